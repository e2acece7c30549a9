//! `kfs bench killed`: a meta server with many files that is killed in the middle of its checkpoints, started again,
//! and compared record by record with its log in the end.
use super::meta::{go_on, write_log};
use super::process::Daemon;
use super::{directory, removed};
use crate::cli::failure::{Exit, Failure};
use crate::cli::screen::Screen;
use crate::cli::units;
use clap::Args;
use kfs_client::{Kfs, Options};
use kfs_core::meta::checkpoint::format as checkpoint;
use kfs_core::meta::fill::{Order, Records};
use kfs_core::wire::Status;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Of a checkpoint a file takes about so many bytes: it is killed when a share of that is there.
const FILE_BYTES: u64 = 100;
/// In percent, one kill each.
const SHARES: [u64; 3] = [10, 50, 80];
/// How often it is looked how far a checkpoint is.
const LOOKS: Duration = Duration::from_millis(2);
/// A checkpoint that is not begun in this time never will be.
const CHECKPOINT_MAX: Duration = Duration::from_secs(1_800);

/// What is killed.
#[derive(Args, Debug)]
pub(crate) struct Killed {
    /// Where the server keeps its data, in a directory that is removed at the end; the system's temporary directory
    /// if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Files that the server has
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    files: u64,
}

/// One kill.
#[derive(Serialize, Debug)]
struct Kill {
    case: &'static str,
    /// How much of the checkpoint was in its file.
    checkpoint_bytes: u64,
    /// From the start of the next process to its line that it is ready.
    ready_s: f64,
}

/// What was left in the end.
#[derive(Serialize, Debug)]
struct Left {
    case: &'static str,
    files: u64,
    records: u64,
    checkpoint: u64,
    state_hash: String,
    /// What `kfs verify` said: the checkpoint, and what the log gives from its first record on, are the same.
    verified: bool,
    seconds: f64,
}

pub(super) fn run(asked: &Killed, screen: &Screen, stop: &AtomicBool) -> Result<(), Failure> {
    let directory = directory(asked.dir.as_deref())?;
    let data = directory.path().join("killed");
    let failed = |error: std::io::Error| Failure::local("cannot make a log", &error);
    screen.note(format!("making a log of {} files", asked.files));
    let records = write_log(&data, Records::new(asked.files, Order::Random)).map_err(failed)?;
    let begun = Instant::now();
    let start = || {
        Daemon::start(
            "kfs-metaserver",
            data.clone(),
            &["--checkpoint-every", "0s"],
        )
    };
    let mut meta = start()?;
    for share in SHARES {
        go_on(stop)?;
        let checkpoint_bytes = killed_at(meta, asked.files * FILE_BYTES * share / 100, stop)?;
        let since = Instant::now();
        meta = start()?;
        let kill = Kill {
            case: "killed",
            checkpoint_bytes,
            ready_s: since.elapsed().as_secs_f64(),
        };
        screen.json(&kill)?;
        screen.line(format!(
            "killed with {} of a checkpoint written; ready again after {:.1} s",
            units::size(kill.checkpoint_bytes),
            kill.ready_s
        ))?;
    }
    let made = super::super::runtime()?.block_on(async {
        let kfs = client(meta.listen);
        let made = kfs.checkpoint().await?;
        kfs.disconnect().await;
        Ok::<_, Failure>(made)
    })?;
    meta.stop()?;
    go_on(stop)?;
    screen.note("comparing the checkpoint with the log");
    let verified = verify(&data)?;
    let hash = made
        .hash
        .map_or_else(String::new, |hash| format!("{hash:016x}"));
    let left = Left {
        case: "killed_left",
        files: asked.files,
        records,
        checkpoint: made.seq.0,
        state_hash: hash,
        verified,
        seconds: begun.elapsed().as_secs_f64(),
    };
    screen.json(&left)?;
    let what = if verified { "the same" } else { "NOT the same" };
    screen.line(format!(
        "{} files: checkpoint {} (state hash {}) and all records of the log from the first one on are {what}",
        left.files, left.checkpoint, left.state_hash
    ))?;
    removed(directory)?;
    if verified {
        return Ok(());
    }
    let what = "a server that was killed is not what its log says".to_owned();
    Err(Failure::new(Status::Corrupt, what))
}

fn client(meta: SocketAddr) -> Kfs {
    Kfs::connect(Options {
        timeout: CHECKPOINT_MAX,
        ..Options::new(meta)
    })
}

/// Asks for a checkpoint and kills the server when so much of it is written. Gives how much there was.
fn killed_at(meta: Daemon, bytes: u64, stop: &AtomicBool) -> Result<u64, Failure> {
    let dir = meta.data.join(checkpoint::DIR);
    let runtime = super::super::runtime()?;
    let at = meta.listen;
    // It is never answered: the thread ends with the process.
    let asking = std::thread::spawn(move || {
        runtime.block_on(async { client(at).checkpoint().await.is_ok() })
    });
    let begun = Instant::now();
    while unfinished(&dir).unwrap_or(0) < bytes.max(1) {
        go_on(stop)?;
        if asking.is_finished() || begun.elapsed() > CHECKPOINT_MAX {
            let what = "the checkpoint had ended before the server was killed".to_owned();
            return Err(Failure::new(Status::TimedOut, what).help("ask for more files"));
        }
        std::thread::sleep(LOOKS);
    }
    // Dropped, it is killed.
    drop(meta);
    let there = unfinished(&dir);
    there.ok_or_else(|| {
        let what = "the checkpoint was whole when the server was killed".to_owned();
        Failure::new(Status::TimedOut, what).help("ask for more files")
    })
}

/// Bytes of the checkpoint that is being made.
fn unfinished(dir: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let tmp =
        |entry: &std::fs::DirEntry| checkpoint::is_unfinished(&entry.file_name().to_string_lossy());
    let mut found = entries.filter(tmp);
    Some(found.next()?.metadata().ok()?.len())
}

/// `kfs verify`, in a process of its own.
fn verify(data: &Path) -> Result<bool, Failure> {
    let failed = |error: &std::io::Error| Failure::local("cannot run 'kfs verify'", error);
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let status = Command::new(program)
        .arg("verify")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| failed(&error))?;
    match status.code() {
        Some(code) if code == i32::from(Exit::Done as u8) => Ok(true),
        Some(code) if code == i32::from(Exit::Corrupt as u8) => Ok(false),
        _ => Err(Failure::new(
            Status::LocalIo,
            format!("'kfs verify' ended with {status}"),
        )),
    }
}
