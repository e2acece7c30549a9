//! The off-line log compactor: one machine, one directory, no links. It runs beside a meta server or without one.
use crate::config::CompactorFlags;
use crate::disk::{Files, OpenError};
use crate::error::{Code, StartError};
use crate::telemetry;
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::machine::{Input, Machine, Output};
use kfs_core::meta::checkpoint::format::DIR;
use kfs_core::meta::compactor::{Aim, Compacted, Compactor};
use kfs_core::meta::{Config, Event};
use kfs_core::time::Now;
use kfs_drive::Disk;
use std::io::Write as _;
use std::path::Path;
use tokio::sync::mpsc::unbounded_channel;

/// Does it and says what came of it on stdout.
///
/// # Errors
/// If the directory cannot be used, or is damaged, or the checkpoint could not be made.
pub fn run(flags: &CompactorFlags) -> Result<(), StartError> {
    telemetry::init(&flags.log, telemetry::Format::Text)?;
    let aim = if flags.verify {
        Aim::Read
    } else {
        Aim::Checkpoint
    };
    let done = compact(
        &flags.data,
        flags.log_mirror.as_deref().filter(|_| !flags.verify),
        aim,
    )?;
    let Compacted {
        end,
        made,
        mirror_removed,
    } = done;
    let mut line = match (made, aim) {
        (Some(made), _) => format!(
            "checkpoint {end} made, {} entries, {} bytes, state hash {:016x}",
            made.entries, made.bytes, made.hash
        ),
        (None, Aim::Read) => format!("whole up to record {end}"),
        (None, Aim::Checkpoint) => format!("checkpoint {end} has everything already"),
    };
    if mirror_removed > 0 {
        line.push_str(&format!(
            "; {mirror_removed} segments went from the log mirror"
        ));
    }
    writeln!(std::io::stdout(), "{line}")
        .map_err(|err| StartError::new(Code::DataUnusable, format!("cannot print: {err}")))
}

/// Runs the machine to its end.
///
/// # Errors
/// See [`run`].
pub fn compact(data: &Path, mirror: Option<&Path>, aim: Aim) -> Result<Compacted, StartError> {
    let (done, mut completions) = unbounded_channel();
    let mut disk = Files::open_beside(data, DIR, mirror, done).map_err(|err| match err {
        OpenError::Locked(_) => StartError::new(
            Code::DataInUse,
            format!("another compactor is at work in {}", data.display()),
        ),
        err @ (OpenError::Io { .. }
        | OpenError::Mirror { .. }
        | OpenError::MirrorLocked(_)
        | OpenError::Nested(_)) => StartError::open(&err),
    })?;
    let mut machine = Compactor::new(
        Config {
            seed: 0,
            geometry: Geometry::REAL,
            limits: Limits::REAL,
            timing: Timing::REAL,
            replication: 1,
            min_replicas: 1,
            cluster: None,
            checkpoint_every: None,
            re_replicate_after: std::time::Duration::ZERO,
            copy_rate: 1,
            mirror: mirror.is_some(),
        },
        aim,
    );
    let mut input = Input::Wake;
    loop {
        // Nothing that it does depends on the time.
        machine.handle(Now::default(), input);
        while let Some(output) = machine.poll() {
            match output {
                Output::Disk { ticket, op } => disk.submit(ticket, op),
                Output::Event {
                    event: Event::Compacted(done),
                    ..
                } => {
                    return done.map_err(|why| {
                        StartError::new(Code::DiskFailed, format!("no checkpoint was made: {why}"))
                            .help(
                                "the log is as it was; make room, or check the disk, and try again",
                            )
                    });
                }
                Output::Halt { fault } => return Err(StartError::fault(data, &fault)),
                other => unreachable!("a compactor has no links and no calls: {other:?}"),
            }
        }
        let (ticket, result) = completions
            .blocking_recv()
            .expect("the disk has its end of the channel");
        input = Input::Disk { ticket, result };
    }
}
