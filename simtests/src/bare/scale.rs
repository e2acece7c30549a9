//! Many servers with many chunks: a cluster that was written to is switched on, says hello, is read from, loses
//! all power, and comes back. Timed by the clock of this machine; what has to come of it is exact.
use super::process::Process;
use super::run::{READY_MAX, ready};
use super::sim::Sim;
use super::written::Written;
use crate::disk::DiskModel;
use crate::observe::record::Record;
use crate::oracle::Violation;
use crate::oracle::contents::Last;
use crate::oracle::order::{Asked, Outcome};
use crate::run::caught;
use crate::schedule::{Class, ClientPlan, Schedule, Speed};
use crate::workload::job::{Job, ReadHow, SHARED_DIRS};
use kfs_core::ids::NodeId;
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::meta::Meta;
use kfs_core::wire::client_meta::ServerState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Files that a client reads.
const FILES_READ: u64 = 32;
/// How long a client may take.
const CLIENT_MAX: Duration = Duration::from_secs(120);
/// Of what is wrong, so much is said.
const WRONG_MAX: usize = 20;
/// Servers that can have an address.
pub const SERVERS_MAX: u64 = 60_000;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Chunkservers.
    pub servers: u64,
    /// Replicas of each of them.
    pub chunks: u64,
    /// Replicas of each chunk.
    pub replication: u8,
    /// Chunks of each file.
    pub file_chunks: u64,
}

/// What a part of it took.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What it was.
    pub name: &'static str,
    /// By the clock of this machine.
    pub took: Duration,
    /// For so long a processor worked on it, which others may have kept waiting.
    pub worked: Duration,
    /// By the clock of the simulation.
    pub simulated: Duration,
    /// Inputs and outputs of machines.
    pub events: u64,
    /// Bytes of this process's memory when it was over.
    pub resident: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What there was.
    pub written: Written,
    /// In their order.
    pub phases: Vec<Phase>,
    /// The most bytes of memory that this process ever had.
    pub resident_most: u64,
    /// Bytes that clients read and that were what was written.
    pub bytes_read: u64,
    /// What was not as it has to be.
    pub wrong: Vec<String>,
}

/// Names of the phases.
pub mod phase {
    /// Disks are made.
    pub const WRITTEN: &str = "disks made";
    /// The meta server is switched on and reads its log.
    pub const META: &str = "meta server up";
    /// All chunkservers are switched on, until each is ready.
    pub const HELLO: &str = "all said hello";
    /// A client lists and reads.
    pub const CLIENT: &str = "client served";
    /// The power of everything fails; until each server is ready again.
    pub const POWER: &str = "power back";
    /// As [`CLIENT`].
    pub const CLIENT_AGAIN: &str = "client served again";
}

impl Report {
    /// A phase by its name, if it came to it.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }
    /// Bytes by which memory grew in a phase.
    #[must_use]
    pub fn grown(&self, name: &str) -> Option<u64> {
        let at = self.phases.iter().position(|phase| phase.name == name)?;
        let before = self.phases.get(at.checked_sub(1)?)?.resident;
        Some(self.phases[at].resident.saturating_sub(before))
    }
}

impl Scale {
    /// Whether it can be run.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            servers,
            replication,
            ..
        } = *self;
        if !(1..=SERVERS_MAX).contains(&servers) {
            return Err(format!("{servers} servers; 1 to {SERVERS_MAX} can be run"));
        }
        if replication == 0 || u64::from(replication) > servers {
            return Err(format!(
                "{replication} replicas of a chunk on {servers} servers"
            ));
        }
        if self.chunks == 0 || self.file_chunks == 0 {
            return Err("there is nothing to be counted without chunks".into());
        }
        Ok(())
    }

    /// What there is when it begins.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            seed: self.seed,
            servers: self.servers,
            replicas: self.chunks,
            replication: self.replication,
            file_chunks: self.file_chunks,
            geometry: Geometry {
                block_bytes: 256,
                chunk_blocks: 4,
                piece_bytes: 512,
            },
        }
    }

    /// Runs it, on this thread.
    #[must_use]
    pub fn execute(&self) -> Report {
        let clock = Clock::start();
        self.on(clock, self.written().disks())
    }

    /// Runs it on these disks.
    fn on(&self, mut clock: Clock, disks: Vec<DiskModel>) -> Report {
        let written = self.written();
        let mut report = Report {
            written,
            phases: Vec::new(),
            resident_most: 0,
            bytes_read: 0,
            wrong: Vec::new(),
        };
        let mut record = Record::new(self.seed, None);
        recall(&mut record, &written);
        let mut sim = Sim::dark(Arc::new(schedule(&written)), record, disks);
        // Who looks at a machine pays for all of its replicas, every time: here they are too many.
        sim.record.overseer = None;
        report.phases.push(clock.lap(phase::WRITTEN, &sim));
        let lived = caught(|| live(&mut sim, &mut report, &mut clock));
        let lived = lived.map_err(|violation| violation.to_string()).flatten();
        report.wrong.extend(lived.err());
        report
            .wrong
            .extend(sim.record.violation.iter().map(Violation::to_string));
        report.bytes_read = sim.record.contents.verified;
        report.resident_most = memory("VmHWM:");
        report
    }
}

fn live(sim: &mut Sim, report: &mut Report, clock: &mut Clock) -> Result<(), String> {
    let written = report.written;
    sim.start(0);
    if !sim.run_until(READY_MAX, |sim| sim.record.ready.contains(&0)) {
        return Err(format!("the meta server is not ready in {READY_MAX:?}"));
    }
    report.phases.push(clock.lap(phase::META, sim));
    for server in 1..sim.servers() {
        sim.start(server);
    }
    all_ready(sim)?;
    report.phases.push(clock.lap(phase::HELLO, sim));
    report.wrong.extend(judge(sim, &written, 0));
    serve(sim, &written, 0)?;
    report.phases.push(clock.lap(phase::CLIENT, sim));
    sim.power_cycle();
    all_ready(sim)?;
    report.phases.push(clock.lap(phase::POWER, sim));
    report.wrong.extend(judge(sim, &written, SHARED_DIRS));
    serve(sim, &written, 1)?;
    report.phases.push(clock.lap(phase::CLIENT_AGAIN, sim));
    Ok(())
}

fn all_ready(sim: &mut Sim) -> Result<(), String> {
    ready(sim).map_err(|violation| violation.to_string())
}

/// What is not as it has to be, with `dirs_made` directories beside those that were written.
fn judge(sim: &Sim, written: &Written, dirs_made: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut due = |what: String, found: u64, due: u64| {
        if found != due && wrong.len() < WRONG_MAX {
            wrong.push(format!("{what}: {found}, due are {due}"));
        }
    };
    let Some(status) = sim.meta().and_then(Meta::status) else {
        return vec!["the meta server is not up".into()];
    };
    let directories = 1 + written.directories() + dirs_made;
    for (what, found, is_due) in [
        ("files", status.files, written.files()),
        ("directories", status.directories, directories),
        ("chunks", status.chunks, written.chunks()),
        ("bytes", status.bytes, written.bytes()),
        (
            "chunks with too few copies",
            status.chunks_under_replicated,
            0,
        ),
        ("chunks without a copy", status.chunks_unavailable, 0),
        ("replicas damaged", status.replicas_damaged, 0),
        ("replicas unknown", status.chunks_unknown, 0),
        ("servers", status.servers.len() as u64, written.servers),
    ] {
        due(what.into(), found, is_due);
    }
    let counted: BTreeMap<NodeId, u64> = status
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Up)
        .map(|server| (server.node, server.chunks))
        .collect();
    for server in 0..written.servers {
        let has = written.replicas_of(server);
        let name = format!("chunk{}", server + 1);
        let confirmed = counted.get(&written.node(server)).copied().unwrap_or(0);
        due(format!("{name}, replicas confirmed"), confirmed, has);
        let node = usize::try_from(server + 1).expect("a run has few servers");
        let Some(Process::Chunk(machine)) = &sim.nodes[node].process else {
            due(format!("{name}, processes"), 0, 1);
            continue;
        };
        let counters = machine.counters();
        due(format!("{name}, serving"), u64::from(counters.serving), 1);
        due(format!("{name}, replicas served"), counters.chunks, has);
        due(format!("{name}, damaged"), counters.chunks_damaged, 0);
        due(format!("{name}, in the trash"), counters.chunks_trash, 0);
        due(format!("{name}, foreign files"), counters.files_foreign, 0);
    }
    wrong
}

/// The record hears of what clients will read, as if it had seen it written.
fn recall(record: &mut Record, written: &Written) {
    for file in files_read(written) {
        let id = written.file_id(file);
        let called = record.tick();
        record
            .contents
            .write_called((id, 0), called, 0, written.contents(file));
        let closed = record.tick();
        record.synced((id, 0), closed, Last::Closed);
    }
}

/// A client does its jobs, and has to be told what was written.
fn serve(sim: &mut Sim, written: &Written, client: usize) -> Result<(), String> {
    let before = (sim.record.contents.verified, sim.record.operations.len());
    sim.start_client(client);
    let done = sim.run_until(CLIENT_MAX, |sim| sim.clients[client].done);
    if let Some(violation) = &sim.record.violation {
        return Err(violation.to_string());
    }
    let read = sim.record.contents.verified - before.0;
    let due: u64 = files_read(written).map(|file| written.size(file)).sum();
    let told = &sim.record.operations[before.1..];
    let listed = told.iter().filter_map(|operation| {
        let (Asked::List(..), Some(answer)) = (&operation.asked, &operation.answer) else {
            return None;
        };
        match &answer.outcome {
            Outcome::Entries(entries, _) => Some(entries.len() as u64),
            _ => None,
        }
    });
    let listed: u64 = listed.sum();
    let entries = written.directories() + SHARED_DIRS + written.dir_files(dir_listed(written));
    if !done || (read, listed) != (due, entries) {
        return Err(format!(
            "client {client} (done: {done}) read {read} bytes and was told {listed} names; due are {due} and {entries}"
        ));
    }
    Ok(())
}

/// Files all over the cluster.
fn files_read(written: &Written) -> impl Iterator<Item = u64> + use<> {
    let files = written.files();
    let read = files.min(FILES_READ);
    (0..read).map(move |nth| nth * files / read)
}

fn dir_listed(written: &Written) -> u64 {
    written.directories() / 2
}

fn schedule(written: &Written) -> Schedule {
    let mut jobs = vec![
        Job::List("/".into()),
        Job::List(written.dir_path(dir_listed(written))),
    ];
    for file in files_read(written) {
        jobs.push(Job::Read {
            name: written.path(file),
            how: ReadHow::Stream,
        });
    }
    let client = ClientPlan { actors: vec![jobs] };
    Schedule {
        seed: written.seed,
        class: Class::Clean,
        servers: usize::try_from(written.servers + 1).expect("a run has few servers"),
        replication: written.replication,
        geometry: written.geometry,
        limits: Limits {
            // The simulator's disk keeps what is written until it is synced.
            log_first_segment_bytes: 1 << 20,
            log_segment_bytes: 1 << 20,
            ..Limits::REAL
        },
        timing: Timing::REAL,
        latency_us: (50, 400),
        loss_permille: 0,
        speed: Speed {
            read_us: 2_000,
            write_us: 300,
            sync_us: 20_000,
        },
        buggify_permille: 0,
        checkpoint_ms: 0,
        log_mirror: false,
        scrub_rate: 0,
        rests: false,
        clients: vec![client.clone(), client],
        faults: Vec::new(),
    }
}

/// Tells the parts of a run apart.
struct Clock {
    at: Instant,
    worked: Duration,
    simulated: u64,
    events: u64,
}

impl Clock {
    fn start() -> Self {
        Self {
            at: Instant::now(),
            worked: worked(),
            simulated: 0,
            events: 0,
        }
    }
    /// What the part took that ends here.
    fn lap(&mut self, name: &'static str, sim: &Sim) -> Phase {
        let now = Self {
            at: Instant::now(),
            worked: worked(),
            simulated: sim.now(),
            events: sim.record.counts.events,
        };
        let phase = Phase {
            name,
            took: now.at - self.at,
            worked: now.worked.saturating_sub(self.worked),
            simulated: Duration::from_nanos(now.simulated - self.simulated),
            events: now.events - self.events,
            resident: memory("VmRSS:"),
        };
        *self = now;
        phase
    }
}

/// How long this thread has run on a processor, as the kernel counts it; 0 where it does not say.
fn worked() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split_whitespace().next();
    Duration::from_nanos(first.and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Bytes of this process's memory, as the kernel counts them; 0 where it does not say.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = found.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or(0, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::machine::{DiskOp, FileName};

    const SMALL: Scale = Scale {
        seed: 1,
        servers: 20,
        chunks: 50,
        replication: 3,
        file_chunks: 3,
    };

    #[test]
    fn many_servers_lose_no_chunk_when_all_say_hello_at_once() {
        let report = SMALL.execute();
        assert_eq!(report.wrong, Vec::<String>::new());
        assert!(report.bytes_read > 0 && report.phases.len() == 6);
        let one_each = Scale {
            replication: 1,
            file_chunks: 1,
            ..SMALL
        };
        assert_eq!(one_each.execute().wrong, Vec::<String>::new());
    }

    /// Runs it with the disk of the first chunkserver changed; gives what was found wrong.
    fn with_first_disk(change: impl FnOnce(&mut DiskModel, FileName)) -> String {
        let written = SMALL.written();
        let mut disks = written.disks();
        change(&mut disks[1], written.chunk(0).name.path());
        SMALL.on(Clock::start(), disks).wrong.join("; ")
    }

    #[test]
    fn one_replica_that_is_lost_among_a_thousand_is_seen() {
        let wrong = with_first_disk(|disk, file| {
            disk.apply(&DiskOp::Remove { file }).unwrap();
        });
        assert!(wrong.contains("too few copies: 1, due are 0"), "{wrong}");
        assert!(wrong.contains("chunk1, replicas served: 50"), "{wrong}");
    }

    #[test]
    fn one_replica_that_nobody_owns_is_seen() {
        let wrong = with_first_disk(|disk, from| {
            let to = FileName::new("chunks/9.9.9");
            disk.apply(&DiskOp::Rename { from, to }).unwrap();
        });
        assert!(wrong.contains("unknown: 1, due are 0"), "{wrong}");
    }

    #[test]
    fn one_replica_that_was_cut_is_seen() {
        let wrong = with_first_disk(|disk, file| {
            disk.apply(&DiskOp::Truncate { file, len: 100 }).unwrap();
        });
        assert!(wrong.contains("damaged: 1, due are 0"), "{wrong}");
    }
}
