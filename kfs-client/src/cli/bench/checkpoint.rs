//! What a checkpoint costs the requests that come meanwhile: the machine of a meta server with many files is told of
//! creates at a steady rate, in simulated time and on real files, first without and then beside a checkpoint.
//!
//! Each call of the machine is measured by what it takes of this thread's CPU time, so that what else the machine
//! it runs on does is not counted. A disk is simulated that takes so many bytes a second.
use super::process::own_resident_bytes;
use kfs_core::ids::{
    Boot, Epoch, Incarnation, Instance, LinkId, LogSeq, NodeId, RequestNumber, SessionId, Ticket,
};
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::machine::{
    DirEntry, DiskDone, DiskError, DiskOp, DiskResult, Input, Machine as _, Output, SyncMode,
};
use kfs_core::meta::{Call, Config, Event, Meta};
use kfs_core::rng::Rng;
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::wire::chunk_meta::Hello;
use kfs_core::wire::client_meta::{
    Answer, At, Keep, Mutate, MutateOp, OpenSession, Ownership, Query, QueryOp,
};
use kfs_core::wire::{Head, Msg, Peer, Role};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Creates a second.
pub(super) const RATE: u64 = 2_000;
/// How long they go on without a checkpoint, in simulated time.
const WITHOUT: Duration = Duration::from_secs(5);
/// A checkpoint that takes longer, in simulated time, is none.
const WITHIN: Duration = Duration::from_secs(600);
/// What the simulated disk takes.
pub(super) const DISK_BYTES_A_SECOND: u64 = 200 << 20;
const SYNC: Duration = Duration::from_micros(200);
const LINK: LinkId = LinkId::accepted(0);
const CHUNKSERVER: LinkId = LinkId::accepted(1);

/// What came of it.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Beside {
    /// The longest call of the machine in milliseconds of CPU time, without a checkpoint and beside one.
    pub(super) call_max_ms_without: f64,
    pub(super) call_max_ms: f64,
    /// Of a thousand calls, all but one took less.
    pub(super) call_p999_ms_without: f64,
    pub(super) call_p999_ms: f64,
    /// Creates that were answered beside it.
    pub(super) creates: u64,
    /// Of the simulated disk, in seconds.
    pub(super) seconds: f64,
    /// Resident memory at its peak beside it, as a percentage above what it was before.
    pub(super) memory_percent: f64,
}

/// Starts the machine on a data directory with so many directories `dir-N`, and measures.
pub(super) fn beside(data: PathBuf, directories: u64) -> io::Result<Beside> {
    let mut rig = Rig::new(data, directories);
    rig.start()?;
    rig.load(WITHOUT, None)?;
    let without = std::mem::take(&mut rig.took);
    let before = own_resident_bytes()?;
    let (began, created) = (rig.now, rig.created);
    rig.load(WITHIN, Some(before))?;
    let [longest_beside, almost_beside] = longest(rig.took);
    let [longest_without, almost_without] = longest(without);
    Ok(Beside {
        call_max_ms_without: longest_without,
        call_max_ms: longest_beside,
        call_p999_ms_without: almost_without,
        call_p999_ms: almost_beside,
        creates: rig.created - created,
        seconds: rig.now.since(began).as_secs_f64(),
        memory_percent: (rig.peak as f64 / before as f64 - 1.0) * 100.0,
    })
}

/// The longest, and the longest but one in a thousand, in milliseconds.
fn longest(mut took: Vec<u64>) -> [f64; 2] {
    took.sort_unstable();
    let ms = |nth: usize| took.get(nth).map_or(0.0, |nanos| *nanos as f64 / 1e6);
    let last = took.len().saturating_sub(1);
    [ms(last), ms(last - took.len() / 1_000)]
}

struct Rig {
    meta: Meta,
    data: PathBuf,
    directories: u64,
    now: Instant,
    /// What the disk has done when, and what the rest of its work waits for: of the checkpoints, and of all else.
    done: BTreeMap<(Instant, Ticket), DiskResult>,
    busy: [Instant; 2],
    files: BTreeMap<String, File>,
    session: Option<SessionId>,
    rng: Rng,
    is_ready: bool,
    is_checkpointed: bool,
    asked: u64,
    created: u64,
    /// Nanoseconds of each call.
    took: Vec<u64>,
    peak: u64,
}

impl Rig {
    fn new(data: PathBuf, directories: u64) -> Self {
        let config = Config {
            seed: 1,
            geometry: Geometry::REAL,
            limits: Limits::REAL,
            timing: Timing::REAL,
            replication: 3,
            min_replicas: 2,
            cluster: None,
            checkpoint_every: None,
            re_replicate_after: Duration::from_secs(60),
            copy_rate: 1 << 29,
            mirror: false,
        };
        let now = Instant(1_000_000_000);
        Self {
            meta: Meta::new(config),
            data,
            directories,
            now,
            done: BTreeMap::new(),
            busy: [now; 2],
            files: BTreeMap::new(),
            session: None,
            rng: Rng::new(1),
            is_ready: false,
            is_checkpointed: false,
            asked: 0,
            created: 0,
            took: Vec::new(),
            peak: 0,
        }
    }

    fn start(&mut self) -> io::Result<()> {
        self.tell(Input::Wake)?;
        while !self.is_ready {
            self.next(Instant(u64::MAX))?;
        }
        let peer = Peer {
            role: Role::Client,
            cluster: kfs_core::meta::fill::CLUSTER,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            protocol: kfs_core::wire::PROTOCOL_MAX,
            build: "bench".into(),
        };
        self.tell(Input::Opened { link: LINK, peer })?;
        let open = OpenSession {
            resume: None,
            nonce: 2,
        };
        self.send(open)?;
        while self.session.is_none() {
            self.next(Instant(u64::MAX))?;
        }
        self.chunkserver_joins()?;
        self.took.clear();
        Ok(())
    }

    /// A start takes changes when one chunkserver has said hello, and those of before are waited for no longer.
    fn chunkserver_joins(&mut self) -> io::Result<()> {
        let peer = Peer {
            role: Role::Chunk,
            cluster: kfs_core::meta::fill::CLUSTER,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 2)),
            protocol: kfs_core::wire::PROTOCOL_MAX,
            build: "bench".into(),
        };
        let link = CHUNKSERVER;
        self.tell(Input::Opened { link, peer })?;
        let hello = Hello {
            cluster: kfs_core::meta::fill::CLUSTER,
            node: NodeId(u128::MAX),
            boot: Boot(1),
            instance: Instance(1),
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 2)),
            rack: String::new(),
            seen: (Epoch(0), Incarnation(0)),
            seen_seq: LogSeq(0),
            bytes_free: 0,
            bytes_total: 0,
            geometry: Geometry::REAL,
        };
        let msg = Msg::new(1, hello);
        self.tell(Input::Received { link, msg })?;
        let waited = self.now + Timing::REAL.serve_lease + Timing::REAL.heartbeat;
        while self.next(waited)? {}
        self.now = self.now.max(waited);
        Ok(())
    }

    /// Creates files for so long; with memory to compare with: until a checkpoint is made.
    fn load(&mut self, within: Duration, memory: Option<u64>) -> io::Result<()> {
        let end = self.now + within;
        if memory.is_some() {
            let op = QueryOp::Checkpoint;
            self.send(Query { op })?;
        }
        while self.now < end && !self.is_checkpointed {
            self.create()?;
            let next = self.now + Duration::from_nanos(1_000_000_000 / RATE);
            while self.next(next)? {}
            self.now = next;
            if memory.is_some() && self.asked.is_multiple_of(64) {
                self.peak = self.peak.max(own_resident_bytes()?);
            }
        }
        if memory.is_some() && !self.is_checkpointed {
            return Err(io::Error::other("the checkpoint came to no end"));
        }
        Ok(())
    }

    fn create(&mut self) -> io::Result<()> {
        self.asked += 1;
        let directory = self
            .rng
            .below(usize::try_from(self.directories).unwrap_or(1)) as u64;
        let path = format!("dir-{directory}/made-beside-{}", self.asked);
        let mutate = Mutate {
            session: self.session.unwrap_or(SessionId::issued(Epoch(1), 1)),
            number: RequestNumber(self.asked),
            lowest_unanswered: RequestNumber(self.asked.saturating_sub(64).max(1)),
            op: MutateOp::Create {
                at: At {
                    dir: kfs_core::ids::FileId::ROOT,
                    path: path.into_bytes(),
                },
                owner: Ownership {
                    uid: 0,
                    gid: 0,
                    mode: 0o644,
                },
                replication: 0,
                keep: Keep::Always,
            },
        };
        self.send(mutate)
    }

    fn send(&mut self, head: impl Into<Head>) -> io::Result<()> {
        let msg = Msg::new(1, head);
        self.tell(Input::Received { link: LINK, msg })
    }

    /// Does what is due next, up to then; whether there was something.
    fn next(&mut self, end: Instant) -> io::Result<bool> {
        let disk = self.done.keys().next().map(|(at, _)| *at);
        let wake = self.meta.deadline().map(|(at, _)| at);
        let Some(due) = disk.into_iter().chain(wake).min().filter(|due| *due <= end) else {
            return Ok(false);
        };
        self.now = self.now.max(due);
        if disk == Some(due)
            && let Some(((_, ticket), result)) = self.done.pop_first()
        {
            self.tell(Input::Disk { ticket, result })?;
        } else {
            self.tell(Input::Wake)?;
        }
        Ok(true)
    }

    fn tell(&mut self, input: Input<Call>) -> io::Result<()> {
        let now = Now {
            mono: self.now,
            wall: UnixNanos(1_700_000_000_000_000_000 + self.now.0),
        };
        let begun = clock_gettime(ClockId::ThreadCPUTime);
        self.meta.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = self.meta.poll() {
            outputs.push(output);
        }
        let ended = clock_gettime(ClockId::ThreadCPUTime);
        let nanos = (ended.tv_sec - begun.tv_sec) * 1_000_000_000 + ended.tv_nsec - begun.tv_nsec;
        self.took.push(u64::try_from(nanos).unwrap_or(0));
        for output in outputs {
            self.carry_out(output)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output<Event>) -> io::Result<()> {
        match output {
            Output::Disk { ticket, op } => {
                let takes = cost(&op);
                let is_checkpoint = path_of(&op).starts_with("checkpoint");
                let result = self.disk(op);
                let busy = &mut self.busy[usize::from(is_checkpoint)];
                *busy = (*busy).max(self.now) + takes;
                self.done.insert((*busy, ticket), result);
            }
            Output::Send { msg, link } => {
                let bytes = msg.cost();
                self.heard(msg)?;
                self.tell(Input::Sent { link, bytes })?;
            }
            Output::Event { event, .. } => {
                self.is_ready |= matches!(event, Event::Ready { .. });
            }
            Output::Halt { fault } => return Err(io::Error::other(fault.what)),
            Output::Dial { .. }
            | Output::Close { .. }
            | Output::Pause { .. }
            | Output::Resume { .. } => {}
        }
        Ok(())
    }

    fn heard(&mut self, msg: Msg) -> io::Result<()> {
        match msg.head {
            Head::SessionOpened(opened) => {
                let grant = opened.outcome.map_err(|why| io::Error::other(why.detail))?;
                self.session = Some(grant.session);
            }
            Head::Mutated(mutated) => {
                mutated
                    .outcome
                    .map_err(|why| io::Error::other(why.detail))?;
                self.created += 1;
            }
            Head::Answered(answered) => {
                let answer = answered
                    .outcome
                    .map_err(|why| io::Error::other(why.detail))?;
                self.is_checkpointed |= matches!(answer, Answer::Checkpoint(_));
            }
            _ => {}
        }
        Ok(())
    }

    fn disk(&mut self, op: DiskOp) -> DiskResult {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => DiskError::NotFound,
            _ => DiskError::Io(error.to_string()),
        };
        self.done_on_disk(op).map_err(failed)
    }

    /// Carries an operation out; nothing has to be durable here.
    fn done_on_disk(&mut self, op: DiskOp) -> io::Result<DiskDone> {
        let path = self.data.join(path_of(&op));
        match op {
            DiskOp::List { .. } => return Ok(DiskDone::Entries(entries(&path)?)),
            DiskOp::MakeDir { .. } => std::fs::create_dir_all(path)?,
            DiskOp::Create { file, zeroed } => {
                let made = File::create(path)?;
                made.set_len(zeroed)?;
                self.files.insert(file.as_str().to_owned(), made);
            }
            DiskOp::Write {
                file,
                mut offset,
                data,
                ..
            } => {
                let file = self.open(file.as_str())?;
                for part in data {
                    file.write_all_at(&part, offset)?;
                    offset += part.len() as u64;
                }
            }
            DiskOp::Read { offset, len, .. } => {
                let file = File::open(path)?;
                let left = file.metadata()?.len().saturating_sub(offset);
                let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(len))];
                file.read_exact_at(&mut bytes, offset)?;
                return Ok(DiskDone::Data(bytes.into()));
            }
            DiskOp::Sync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncAll { .. } => {}
            DiskOp::Rename { from, to } => {
                self.files.remove(from.as_str());
                self.files.remove(to.as_str());
                std::fs::rename(path, self.data.join(to.as_str()))?;
            }
            DiskOp::Remove { file } => {
                self.files.remove(file.as_str());
                std::fs::remove_file(path)?;
            }
            DiskOp::Truncate { file, len } => self.open(file.as_str())?.set_len(len)?,
            DiskOp::Space => {
                return Ok(DiskDone::Space {
                    bytes_free: 1 << 40,
                    bytes_total: 1 << 41,
                });
            }
        }
        Ok(DiskDone::Done)
    }

    fn open(&mut self, file: &str) -> io::Result<&File> {
        if !self.files.contains_key(file) {
            let opened = OpenOptions::new().write(true).open(self.data.join(file))?;
            self.files.insert(file.to_owned(), opened);
        }
        Ok(&self.files[file])
    }
}

/// What the simulated disk takes for it.
fn cost(op: &DiskOp) -> Duration {
    let of =
        |bytes: usize| Duration::from_nanos(bytes as u64 * 1_000_000_000 / DISK_BYTES_A_SECOND);
    match op {
        DiskOp::Write { data, sync, .. } => {
            let bytes = of(data.iter().map(|part| part.len()).sum());
            match sync {
                SyncMode::Later => bytes,
                SyncMode::Now => bytes + SYNC,
            }
        }
        DiskOp::Read { len, .. } => of(*len),
        DiskOp::Sync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncAll { .. } => SYNC,
        DiskOp::Create { .. }
        | DiskOp::List { .. }
        | DiskOp::MakeDir { .. }
        | DiskOp::Rename { .. }
        | DiskOp::Remove { .. }
        | DiskOp::Truncate { .. }
        | DiskOp::Space => Duration::from_micros(20),
    }
}

fn path_of(op: &DiskOp) -> String {
    let name = match op {
        DiskOp::List { dir }
        | DiskOp::MakeDir { dir }
        | DiskOp::SyncDir { dir }
        | DiskOp::SyncAll { dir } => dir,
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Read { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. } => file,
        DiskOp::Rename { from, .. } => from,
        DiskOp::Space => return String::new(),
    };
    name.as_str().to_owned()
}

fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let entry = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        let of = entry.metadata()?;
        Ok(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            len: if of.is_file() { of.len() } else { 0 },
            is_file: of.is_file(),
        })
    };
    std::fs::read_dir(dir)?.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::meta::fill::{Order, Records};

    #[test]
    fn creates_are_answered_beside_a_checkpoint() {
        let data = tempfile::tempdir().unwrap();
        super::super::meta::write_log(data.path(), Records::new(20_000, Order::Random)).unwrap();
        let beside = beside(data.path().to_owned(), 20).unwrap();
        assert!(beside.creates > 0 && beside.seconds > 0.0, "{beside:?}");
        assert!(beside.call_max_ms >= beside.call_p999_ms, "{beside:?}");
        assert!(data.path().join("checkpoint").is_dir());
    }

    #[test]
    fn the_longest_but_one_in_a_thousand_is_told_apart() {
        let took = (1..=2_000).map(|ms| ms * 1_000_000).collect();
        assert_eq!(longest(took), [2_000.0, 1_998.0]);
        assert_eq!(longest(vec![]), [0.0, 0.0]);
    }
}
