//! A meta server on a disk in memory, driven by hand: given, input, outputs.
//!
//! The disk does what it is told at once, or when [`Rig::hold`] is lifted; a restart is a new machine on the
//! files of the old one. What survives a power loss is not modelled here: the simulator does that.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use kfs_core::ids::*;
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::machine::*;
use kfs_core::meta::state::State;
use kfs_core::meta::{Call, Config, Event, Meta};
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Msg, Peer, Refusal, Role, Status};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const GEOMETRY: Geometry = Geometry {
    block_bytes: 256,
    chunk_blocks: 16,
    piece_bytes: 1_024,
};
pub const CHUNK: u64 = 4_096;
pub const OWNER: Ownership = Ownership {
    uid: 1,
    gid: 2,
    mode: 0o644,
};

pub fn config() -> Config {
    Config {
        seed: 7,
        geometry: GEOMETRY,
        limits: Limits {
            log_first_segment_bytes: 128 << 10,
            log_segment_bytes: 128 << 10,
            ..Limits::REAL
        },
        timing: Timing::REAL,
        replication: 3,
        min_replicas: 2,
        cluster: None,
        checkpoint_every: None,
        re_replicate_after: Duration::from_secs(300),
        copy_rate: 1 << 29,
        mirror: false,
    }
}

/// Files in memory.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    pub dirs: BTreeSet<String>,
    /// Operations on files that end so fail so.
    pub fails: Vec<(&'static str, String, DiskError)>,
}

impl Disk {
    pub fn run(&mut self, op: &DiskOp) -> DiskResult {
        let (verb, file) = match op {
            DiskOp::List { dir } => ("list", dir),
            DiskOp::MakeDir { dir } => ("makedir", dir),
            DiskOp::Create { file, .. } => ("create", file),
            DiskOp::Write { file, .. } => ("write", file),
            DiskOp::Read { file, .. } => ("read", file),
            DiskOp::Sync { file } => ("sync", file),
            DiskOp::SyncDir { dir } => ("syncdir", dir),
            DiskOp::SyncAll { dir } => ("syncall", dir),
            DiskOp::Rename { from, .. } => ("rename", from),
            DiskOp::Remove { file } => ("remove", file),
            DiskOp::Truncate { file, .. } => ("truncate", file),
            DiskOp::Space => panic!("a meta server does not ask for room"),
        };
        let name = file.as_str().to_owned();
        if let Some((_, _, error)) = self
            .fails
            .iter()
            .find(|(of, end, _)| *of == verb && name.ends_with(end.as_str()))
        {
            return Err(error.clone());
        }
        match op {
            DiskOp::List { .. } => {
                if !name.is_empty() && !self.dirs.contains(&name) {
                    return Err(DiskError::NotFound);
                }
                let of_dir = |path: &str| {
                    let (dir, base) = path.rsplit_once('/').unwrap_or(("", path));
                    (dir == name).then(|| base.to_owned())
                };
                let files = self.files.iter().filter_map(|(path, bytes)| {
                    let len = bytes.len() as u64;
                    Some(DirEntry {
                        name: of_dir(path)?,
                        len,
                        is_file: true,
                    })
                });
                let dirs = self.dirs.iter().filter_map(|path| {
                    Some(DirEntry {
                        name: of_dir(path)?,
                        len: 0,
                        is_file: false,
                    })
                });
                Ok(DiskDone::Entries(files.chain(dirs).collect()))
            }
            DiskOp::MakeDir { .. } => {
                self.dirs.insert(name);
                Ok(DiskDone::Done)
            }
            DiskOp::Create { zeroed, .. } => {
                if self.files.contains_key(&name) {
                    return Err(DiskError::Exists);
                }
                self.files
                    .insert(name, vec![0; usize::try_from(*zeroed).unwrap()]);
                Ok(DiskDone::Done)
            }
            DiskOp::Write { offset, data, .. } => {
                let bytes = self.files.get_mut(&name).ok_or(DiskError::NotFound)?;
                let mut at = usize::try_from(*offset).unwrap();
                for data in data {
                    let end = at + data.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    bytes[at..end].copy_from_slice(data);
                    at = end;
                }
                Ok(DiskDone::Done)
            }
            DiskOp::Read { offset, len, .. } => {
                let bytes = self.files.get(&name).ok_or(DiskError::NotFound)?;
                let from = usize::try_from(*offset).unwrap().min(bytes.len());
                let to = (from + len).min(bytes.len());
                Ok(DiskDone::Data(Bytes::copy_from_slice(&bytes[from..to])))
            }
            DiskOp::Sync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncAll { .. } => {
                Ok(DiskDone::Done)
            }
            DiskOp::Rename { to, .. } => {
                let bytes = self.files.remove(&name).ok_or(DiskError::NotFound)?;
                self.files.insert(to.as_str().to_owned(), bytes);
                Ok(DiskDone::Done)
            }
            DiskOp::Remove { .. } => {
                self.files.remove(&name).ok_or(DiskError::NotFound)?;
                Ok(DiskDone::Done)
            }
            DiskOp::Truncate { .. } | DiskOp::Space => panic!("a meta server does not truncate"),
        }
    }
    /// The segments of the log, oldest first.
    pub fn segments(&self) -> Vec<String> {
        let mut found: Vec<(u64, String)> = self
            .files
            .keys()
            .filter_map(|name| Some((name.strip_prefix("log/log.")?.parse().ok()?, name.clone())))
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }
}

/// A meta server and what it said.
pub struct Rig {
    pub meta: Meta,
    pub config: Config,
    pub disk: Disk,
    pub now: Now,
    pub sent: Vec<(LinkId, Msg)>,
    pub events: Vec<(CallId, Event)>,
    pub closed: Vec<LinkId>,
    pub halted: Option<Fault>,
    /// Operations that the disk has not done yet.
    pub pending: VecDeque<(Ticket, DiskOp)>,
    /// Whether the disk waits for [`Rig::run_disk`].
    pub hold: bool,
    pub writes: u64,
    /// Time spent in the machine itself.
    pub spent: Duration,
    links: u64,
    requests: u64,
}

impl Rig {
    /// A machine that has not started, on this disk.
    pub fn on(config: Config, disk: Disk) -> Self {
        Self {
            meta: Meta::new(config.clone()),
            config,
            disk,
            now: Now {
                mono: Instant(1_000_000_000),
                wall: UnixNanos(1_700_000_000_000_000_000),
            },
            sent: vec![],
            events: vec![],
            closed: vec![],
            halted: None,
            pending: VecDeque::new(),
            hold: false,
            writes: 0,
            spent: Duration::ZERO,
            links: 0,
            requests: 0,
        }
    }
    /// A meta server that has formatted its disk and is ready.
    pub fn fresh() -> Self {
        Self::start(config(), Disk::default())
    }
    /// A meta server that has started on this disk.
    pub fn start(config: Config, disk: Disk) -> Self {
        Self::start_at(config, disk, Instant(1_000_000_000))
    }
    fn start_at(config: Config, disk: Disk, mono: Instant) -> Self {
        let mut rig = Self::on(config, disk);
        rig.now.mono = mono;
        rig.input(Input::Wake);
        assert!(rig.halted.is_none(), "{:?}", rig.halted);
        assert!(
            rig.events
                .iter()
                .any(|(_, event)| matches!(event, Event::Ready { .. })),
            "it is ready"
        );
        rig
    }
    /// Kills it and starts it again on its files.
    pub fn restart(&mut self) {
        let mut config = self.config.clone();
        config.seed += 1;
        let mut next = Self::start_at(config, self.disk.clone(), self.now.mono);
        (next.links, next.requests) = (self.links, self.requests);
        *self = next;
    }
    pub fn input(&mut self, input: Input<Call>) {
        self.handle(input);
        // What it was told came alone.
        let due = self.meta.deadline();
        if due.is_some_and(|(at, why)| at <= self.now.mono && why == "write what came to the log") {
            self.handle(Input::Wake);
        }
        if !self.hold {
            self.run_disk();
        }
    }
    /// Several that come together.
    pub fn inputs(&mut self, inputs: impl IntoIterator<Item = Input<Call>>) {
        for input in inputs {
            self.handle(input);
        }
        self.input(Input::Wake);
    }
    fn handle(&mut self, input: Input<Call>) {
        let begun = std::time::Instant::now();
        self.meta.handle(self.now, input);
        self.spent += begun.elapsed();
        self.drain();
    }
    fn drain(&mut self) {
        while let Some(output) = self.meta.poll() {
            assert!(
                self.halted.is_none(),
                "nothing comes after a halt: {output:?}"
            );
            match output {
                Output::Send { link, msg } => self.sent.push((link, msg)),
                Output::Close { link } => self.closed.push(link),
                Output::Disk { ticket, op } => self.pending.push_back((ticket, op)),
                Output::Event { id, event } => self.events.push((id, event)),
                Output::Halt { fault } => self.halted = Some(fault),
                Output::Dial { .. } | Output::Pause { .. } | Output::Resume { .. } => {
                    panic!("a meta server does not {output:?}")
                }
            }
        }
    }
    /// Does what the disk was asked to do, until it is asked nothing more.
    pub fn run_disk(&mut self) {
        while self.run_disk_once() {}
    }
    /// Does the oldest operation.
    pub fn run_disk_once(&mut self) -> bool {
        let Some((ticket, op)) = self.pending.pop_front() else {
            return false;
        };
        self.writes += u64::from(matches!(op, DiskOp::Write { .. }));
        let result = self.disk.run(&op);
        self.handle(Input::Disk { ticket, result });
        true
    }
    /// Passes time, in steps of 10 ms; servers beat each second, seal what they are asked to, and do with a copy what
    /// this says. `check` looks at the state after each order.
    pub fn work(
        &mut self,
        servers: &[Server],
        (steps, beat): (u64, &mut u64),
        holds: Durable,
        copy: &dyn Fn(&Server) -> Result<Durable, Refusal>,
        check: &mut dyn FnMut(&State),
    ) -> Orders {
        let mut given = Orders::default();
        for step in 0..steps {
            if step % 100 == 0 {
                *beat += 1;
                for server in servers {
                    self.send(server.link, server.heartbeat(*beat, *beat - 1));
                }
            }
            self.pass(Duration::from_millis(10));
            for server in servers {
                for order in self.orders(server) {
                    match order {
                        Head::SealChunk(order) => {
                            given.sealed.push(server.hello.node);
                            self.send(server.link, sealed(&order, holds));
                        }
                        Head::CopyChunk(order) => {
                            self.send(server.link, copied(&order, copy(server)));
                            given.copied.push((server.hello.node, order));
                        }
                        _ => {}
                    }
                    check(self.meta.state().unwrap());
                }
            }
        }
        given
    }
    /// Lets time pass; wakes come when they are due.
    pub fn pass(&mut self, by: Duration) {
        let end = self.now.mono + by;
        while let Some((due, _)) = self.meta.deadline().filter(|(due, _)| *due <= end) {
            assert!(self.halted.is_none());
            self.now.mono = self.now.mono.max(due);
            let before = self.meta.deadline();
            self.input(Input::Wake);
            assert!(
                self.meta.deadline() != before || self.hold,
                "a wake that is due does something: {before:?}"
            );
            if self.hold {
                break;
            }
        }
        self.now.mono = end;
    }
    pub fn open_link(&mut self, role: Role) -> LinkId {
        self.links += 1;
        let link = LinkId::accepted(self.links);
        let addr = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let (cluster, build) = (ClusterId(0), "test".into());
        let peer = Peer {
            role,
            cluster,
            addr,
            protocol: 1,
            build,
        };
        self.input(Input::Opened { link, peer });
        link
    }
    pub fn close_link(&mut self, link: LinkId) {
        let why = CloseReason::Lost("test".into());
        self.input(Input::Closed { link, why });
    }
    /// Sends; gives the request's id.
    pub fn send(&mut self, link: LinkId, head: impl Into<Head>) -> u64 {
        self.requests += 1;
        let msg = Msg::new(self.requests, head);
        self.input(Input::Received { link, msg });
        self.requests
    }
    /// Takes what was said on a link so far.
    pub fn take(&mut self, link: LinkId) -> Vec<Msg> {
        let (taken, left) = core::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(to, _)| *to == link);
        self.sent = left;
        taken
            .into_iter()
            .map(|(_, msg): (LinkId, Msg)| msg)
            .collect()
    }
    /// The one answer to a request, if it was given.
    pub fn answer(&mut self, link: LinkId, request: u64) -> Option<Head> {
        let at = self
            .sent
            .iter()
            .position(|(to, msg)| (*to, msg.request) == (link, request))?;
        Some(self.sent.remove(at).1.head)
    }
    pub fn ask(&mut self, link: LinkId, head: impl Into<Head>) -> Head {
        let request = self.send(link, head);
        self.answer(link, request).expect("it is answered at once")
    }
    pub fn query(&mut self, link: LinkId, op: QueryOp) -> Result<Answer, Refusal> {
        match self.ask(link, Query { op }) {
            Head::Answered(answered) => answered.outcome,
            other => panic!("not an answer: {other:?}"),
        }
    }
    pub fn stat(&mut self, link: LinkId, path: &str) -> Result<Attrs, Refusal> {
        match self.query(link, QueryOp::Stat { at: at(path) })? {
            Answer::Attrs(attrs) => Ok(attrs),
            other => panic!("not attributes: {other:?}"),
        }
    }
    pub fn status(&mut self, link: LinkId) -> ClusterStatus {
        match self.query(link, QueryOp::Status) {
            Ok(Answer::Status(status)) => *status,
            other => panic!("not a status: {other:?}"),
        }
    }
    pub fn locate(&mut self, link: LinkId, file: FileId) -> Located {
        let op = QueryOp::Locate {
            file,
            first: 0,
            count: 64,
        };
        match self.query(link, op) {
            Ok(Answer::Located(located)) => located,
            other => panic!("not located: {other:?}"),
        }
    }
    /// A client with a session.
    pub fn client(&mut self, nonce: u64) -> Client {
        let link = self.open_link(Role::Client);
        let session = self.open_session(link, None, nonce).unwrap();
        Client {
            link,
            session,
            last: 0,
            lowest: 1,
        }
    }
    pub fn open_session(
        &mut self,
        link: LinkId,
        resume: Option<SessionId>,
        nonce: u64,
    ) -> Result<SessionId, Refusal> {
        match self.ask(link, OpenSession { resume, nonce }) {
            Head::SessionOpened(opened) => opened.outcome.map(|grant| grant.session),
            other => panic!("not opened: {other:?}"),
        }
    }
    /// Takes a client's session up again on a new link.
    pub fn resume(&mut self, client: &mut Client) {
        client.link = self.open_link(Role::Client);
        let session = self.open_session(client.link, Some(client.session), 0);
        assert_eq!(session, Ok(client.session));
    }
    /// Mutates with the client's next number.
    pub fn mutate(&mut self, client: &mut Client, op: MutateOp) -> Result<Done, Refusal> {
        let request = self.begin(client, op);
        let outcome = self
            .mutated(client.link, request)
            .expect("it is answered at once");
        client.lowest = client.last + 1;
        outcome.outcome
    }
    pub fn begin(&mut self, client: &mut Client, op: MutateOp) -> u64 {
        client.last += 1;
        let mutate = client.request(client.last, op);
        self.send(client.link, mutate)
    }
    pub fn mutated(&mut self, link: LinkId, request: u64) -> Option<Mutated> {
        match self.answer(link, request)? {
            Head::Mutated(mutated) => Some(mutated),
            other => panic!("not an answer to a mutation: {other:?}"),
        }
    }
    pub fn create(&mut self, client: &mut Client, path: &str) -> FileId {
        match self.mutate(client, create(path, Keep::Always)) {
            Ok(Done::Made { file, .. }) => file,
            other => panic!("{path} was not made: {other:?}"),
        }
    }
    /// A chunkserver that is up, with nothing on it.
    pub fn server(&mut self, node: u128) -> Server {
        let mut server = Server::new(node);
        self.join(&mut server, vec![]);
        server
    }
    /// After a start a chunkserver joins that was not there before, and those that were are waited for no longer.
    pub fn newcomer_joins(&mut self) {
        let timing = self.config.timing;
        self.pass(timing.serve_lease + timing.heartbeat);
        self.server(9);
    }
    /// Says hello and reports these; the verdicts.
    pub fn join(&mut self, server: &mut Server, items: Vec<InventoryItem>) -> Vec<Verdict> {
        self.hello(server).unwrap();
        let report = Inventory {
            term: server.term,
            items,
            last: true,
        };
        match self.ask(server.link, report) {
            Head::Verdicts(verdicts) => {
                assert!(verdicts.accepted && verdicts.term == server.term);
                verdicts
                    .verdicts
                    .into_iter()
                    .map(|(_, _, verdict)| verdict)
                    .collect()
            }
            other => panic!("not verdicts: {other:?}"),
        }
    }
    /// Says hello on a new link.
    pub fn hello(&mut self, server: &mut Server) -> Result<Welcome, Refusal> {
        server.link = self.open_link(Role::Chunk);
        match self.ask(server.link, server.hello.clone()) {
            Head::Welcome(welcome) => {
                server.term = welcome.term;
                server.incarnation = welcome.incarnation;
                Ok(welcome)
            }
            Head::HelloRefused(refused) => Err(refused.refusal),
            other => panic!("not an answer to a hello: {other:?}"),
        }
    }
    /// The orders a server was given.
    pub fn orders(&mut self, server: &Server) -> Vec<Head> {
        self.take(server.link)
            .into_iter()
            .map(|msg| msg.head)
            .collect()
    }
    /// The last chunk that a server was ordered to make.
    pub fn ordered(&mut self, server: &Server) -> Option<CreateChunk> {
        let orders = self.orders(server).into_iter();
        let mut creates = orders.filter_map(|head| match head {
            Head::CreateChunk(order) => Some(order),
            _ => None,
        });
        creates.next_back()
    }
    /// Makes a chunk with the help of these servers, which all obey.
    pub fn allocate(
        &mut self,
        client: &mut Client,
        servers: &[&Server],
        file: FileId,
        index: u64,
    ) -> Result<Grant, Refusal> {
        let request = self.begin(client, MutateOp::Allocate { file, index });
        for server in servers {
            if let Some(order) = self.ordered(server) {
                self.send(server.link, created(&order, Ok(())));
            }
        }
        client.lowest = client.last + 1;
        match self
            .mutated(client.link, request)
            .expect("answered")
            .outcome?
        {
            Done::Granted(grant) => Ok(grant),
            other => panic!("not a grant: {other:?}"),
        }
    }
}

/// A client, as far as the meta server sees it.
#[derive(Clone, Debug)]
pub struct Client {
    pub link: LinkId,
    pub session: SessionId,
    pub last: u64,
    pub lowest: u64,
}

impl Client {
    pub fn request(&self, number: u64, op: MutateOp) -> Mutate {
        Mutate {
            session: self.session,
            number: RequestNumber(number),
            lowest_unanswered: RequestNumber(self.lowest),
            op,
        }
    }
}

/// A chunkserver, as far as the meta server sees it.
#[derive(Clone, Debug)]
pub struct Server {
    pub link: LinkId,
    pub hello: Hello,
    pub term: Term,
    pub incarnation: Incarnation,
}

impl Server {
    pub fn new(node: u128) -> Self {
        let port = 22_000 + u16::try_from(node).unwrap();
        let hello = Hello {
            cluster: ClusterId(0),
            node: NodeId(node),
            boot: Boot(1),
            instance: Instance(1),
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            rack: String::new(),
            seen: (Epoch(0), Incarnation(0)),
            seen_seq: LogSeq(0),
            bytes_free: 1 << 30,
            bytes_total: 2 << 30,
            geometry: GEOMETRY,
        };
        let (link, term, incarnation) = (LinkId(0), Term::default(), Incarnation(0));
        Self {
            link,
            hello,
            term,
            incarnation,
        }
    }
    pub fn heartbeat(&self, number: u64, answered: u64) -> Heartbeat {
        Heartbeat {
            term: self.term,
            number,
            answered,
            bytes_free: self.hello.bytes_free,
            bytes_total: self.hello.bytes_total,
            chunks_writing: 0,
        }
    }
    pub fn place(&self) -> Place {
        Place {
            node: self.hello.node,
            addr: self.hello.addr,
        }
    }
}

pub fn created(order: &CreateChunk, outcome: Result<(), Refusal>) -> ChunkCreated {
    let CreateChunk {
        term,
        chunk,
        version,
        ..
    } = *order;
    ChunkCreated {
        term,
        chunk,
        version,
        outcome,
    }
}

pub fn item(file: FileId, grant: &Grant, incarnation: Incarnation, len: u64) -> InventoryItem {
    InventoryItem {
        file,
        chunk: grant.chunk,
        version: grant.version,
        incarnation,
        wseq: WriteSeq(1),
        len,
        digest: content(durable(len)).digest,
        state: ReplicaState::Good,
    }
}

/// Which servers were ordered to seal, and to copy what.
#[derive(Default, Debug)]
pub struct Orders {
    pub sealed: Vec<NodeId>,
    pub copied: Vec<(NodeId, CopyChunk)>,
}

/// The answer of a server that holds this.
pub fn sealed(order: &SealChunk, holds: Durable) -> ChunkSealed {
    ChunkSealed {
        term: order.term,
        chunk: order.chunk,
        version: order.version,
        outcome: Ok(content(holds)),
        next_lost: false,
    }
}

/// The answer of a server that has made a copy, or could not.
pub fn copied(order: &CopyChunk, outcome: Result<Durable, Refusal>) -> ChunkCopied {
    ChunkCopied {
        term: order.term,
        chunk: order.chunk,
        version: order.version,
        outcome: outcome.map(content),
    }
}

/// What one write of so many bytes leaves.
pub fn durable(len: u64) -> Durable {
    let wseq = WriteSeq(u64::from(len > 0));
    Durable { len, wseq }
}

/// What a replica holds that is durable so far; of one write like that there is one.
pub fn content(durable: Durable) -> Content {
    let digest = Digest(durable.len << 32 | durable.wseq.0);
    Content { durable, digest }
}

pub fn synced(grant: &Grant, synced_len: u64) -> SyncedChunk {
    let Grant {
        index,
        chunk,
        version,
        ..
    } = *grant;
    SyncedChunk {
        index,
        chunk,
        version,
        synced: durable(synced_len),
    }
}

pub fn at(path: &str) -> At {
    At::root(path.as_bytes())
}
pub fn mkdir(path: &str) -> MutateOp {
    MutateOp::Mkdir {
        at: at(path),
        parents: Parents::MustExist,
        owner: OWNER,
    }
}
pub fn mkdir_p(path: &str) -> MutateOp {
    MutateOp::Mkdir {
        at: at(path),
        parents: Parents::Make,
        owner: OWNER,
    }
}
pub fn create(path: &str, keep: Keep) -> MutateOp {
    MutateOp::Create {
        at: at(path),
        owner: OWNER,
        replication: 0,
        keep,
    }
}
pub fn remove(path: &str) -> MutateOp {
    MutateOp::Remove { at: at(path) }
}
pub fn rmdir(path: &str) -> MutateOp {
    MutateOp::Rmdir { at: at(path) }
}
pub fn rename(from: &str, to: &str) -> MutateOp {
    MutateOp::Rename {
        from: at(from),
        to: at(to),
        mode: RenameMode::Replace,
    }
}
pub fn set_size(file: FileId, size: u64, basis: Vec<SyncedChunk>) -> MutateOp {
    MutateOp::SetSize {
        file,
        size,
        basis,
        writer: WriterStays::Open,
    }
}
pub fn close(file: FileId, size: u64, basis: Vec<SyncedChunk>) -> MutateOp {
    MutateOp::SetSize {
        file,
        size,
        basis,
        writer: WriterStays::Closed,
    }
}

/// That an outcome is a refusal of this status.
#[track_caller]
pub fn refused<T: core::fmt::Debug>(outcome: Result<T, Refusal>, status: Status) -> String {
    match outcome {
        Err(refusal) if refusal.status == status => refusal.detail,
        other => panic!("not refused with {status:?}: {other:?}"),
    }
}
