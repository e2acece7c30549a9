//! Chunkservers on a small world: an in-memory disk each, links that carry messages in order, and a meta
//! server that says what the test wants. Everything happens in one queue, first come first served; what a
//! test holds back waits until it is let go.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::large_enum_variant,
    reason = "a module of tests, each of which uses a part of it"
)]

use bytes::Bytes;
use kfs_core::block::Sums;
use kfs_core::chunk::header::{Header, SLOT_BYTES, Slot};
use kfs_core::chunk::name::ChunkName;
use kfs_core::chunk::{Call, Chunk, ChunkStatus, Config, Event};
use kfs_core::ids::*;
use kfs_core::limits::{Geometry, HEADER_BYTES, Limits, Timing};
use kfs_core::machine::*;
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::client_meta::Place;
use kfs_core::wire::{Head, Msg, Peer, Refusal, Role};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

pub const GEOMETRY: Geometry = Geometry {
    block_bytes: 256,
    chunk_blocks: 16,
    piece_bytes: 1_024,
};
pub const CLUSTER: ClusterId = ClusterId(0xC1);
pub const INCARNATION: Incarnation = Incarnation(0x17);
pub const EPOCH: Epoch = Epoch(3);
pub const SESSION: SessionId = SessionId(77);
pub const FILE: FileId = FileId(1000);
pub const VERSION: Version = Version(9);

pub fn meta_addr() -> SocketAddr {
    "127.0.0.1:20000".parse().unwrap()
}
pub fn server_addr(server: usize) -> SocketAddr {
    format!("127.0.0.1:{}", 22_000 + server).parse().unwrap()
}
pub fn name(chunk: ChunkId) -> ChunkName {
    ChunkName {
        file: FILE,
        chunk,
        version: VERSION,
    }
}
/// What the log has of a chunk of so many bytes, at the least.
pub fn logged(len: u64) -> Durable {
    let wseq = WriteSeq(u64::from(len > 0));
    Durable { len, wseq }
}
pub fn keep(log_len: u64) -> Verdict {
    let log = logged(log_len);
    Verdict::Keep { log }
}
pub fn damaged(log_len: u64) -> Verdict {
    let log = logged(log_len);
    Verdict::Damaged { log }
}
/// Bytes that tell where they are from.
pub fn bytes(len: usize, salt: u8) -> Bytes {
    (0..len)
        .map(|i| u8::try_from((i * 31 + i / 251 + usize::from(salt)) % 255 + 1).unwrap())
        .collect()
}

/// A disk that knows what is durable.
#[derive(Default, Debug)]
pub struct Disk {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
    files: Vec<File>,
    pub bytes_free: u64,
}
#[derive(Default, Debug, Clone)]
struct File {
    data: Vec<u8>,
    durable: Vec<u8>,
}

impl Disk {
    pub fn put(&mut self, path: &str, data: &[u8]) {
        let data = data.to_vec();
        let durable = data.clone();
        self.files.push(File { data, durable });
        let inode = self.files.len() - 1;
        self.names.insert(path.into(), inode);
        self.durable_names.insert(path.into(), inode);
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.dirs.insert(dir.into());
        }
    }
    pub fn make_dir(&mut self, dir: &str) {
        self.dirs.insert(dir.into());
    }
    pub fn remove(&mut self, path: &str) {
        self.names.remove(path);
        self.durable_names.remove(path);
    }
    /// A name that was given, and not made durable: it goes with the power.
    pub fn forget_name(&mut self, path: &str) {
        self.durable_names.remove(path);
    }
    pub fn remove_dir(&mut self, dir: &str) {
        self.dirs.remove(dir);
    }
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        Some(&self.files[*self.names.get(path)?].data)
    }
    /// What is durable of a file.
    pub fn durable(&self, path: &str) -> &[u8] {
        &self.files[self.names[path]].durable
    }
    pub fn get_mut(&mut self, path: &str) -> &mut Vec<u8> {
        &mut self.files[self.names[path]].data
    }
    pub fn paths(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }
    pub fn power_loss(&mut self) {
        self.names = self.durable_names.clone();
        for file in &mut self.files {
            file.data = file.durable.clone();
        }
    }
    fn inode(&self, file: &FileName) -> Result<usize, DiskError> {
        self.names
            .get(file.as_str())
            .copied()
            .ok_or(DiskError::NotFound)
    }
    fn apply(&mut self, op: &DiskOp) -> DiskResult {
        match op {
            DiskOp::List { dir } => {
                let dir = dir.as_str();
                if !dir.is_empty() && !self.dirs.contains(dir) {
                    return Err(DiskError::NotFound);
                }
                let prefix = if dir.is_empty() {
                    String::new()
                } else {
                    format!("{dir}/")
                };
                let below = |path: &String| {
                    let rest = path.strip_prefix(&prefix)?;
                    (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned())
                };
                let mut entries: Vec<_> = self
                    .names
                    .iter()
                    .filter_map(|(path, inode)| {
                        let len = self.files[*inode].data.len() as u64;
                        Some(DirEntry {
                            name: below(path)?,
                            len,
                            is_file: true,
                        })
                    })
                    .collect();
                entries.extend(self.dirs.iter().filter_map(|dir| {
                    Some(DirEntry {
                        name: below(dir)?,
                        len: 0,
                        is_file: false,
                    })
                }));
                entries.reverse();
                return Ok(DiskDone::Entries(entries));
            }
            DiskOp::MakeDir { dir } => {
                self.dirs.insert(dir.as_str().into());
            }
            DiskOp::Create { file, zeroed } => {
                if self.names.contains_key(file.as_str()) {
                    return Err(DiskError::Exists);
                }
                self.files.push(File {
                    data: vec![0; usize::try_from(*zeroed).unwrap()],
                    durable: vec![],
                });
                self.names
                    .insert(file.as_str().into(), self.files.len() - 1);
            }
            DiskOp::Write {
                file,
                offset,
                data,
                sync,
            } => {
                let inode = self.inode(file)?;
                let file = &mut self.files[inode];
                let mut at = usize::try_from(*offset).unwrap();
                for part in data {
                    let end = at + part.len();
                    file.data.resize(file.data.len().max(end), 0);
                    file.data[at..end].copy_from_slice(part);
                    at = end;
                }
                if *sync == SyncMode::Now {
                    file.durable = file.data.clone();
                }
            }
            DiskOp::Read { file, offset, len } => {
                let data = &self.files[self.inode(file)?].data;
                let from = usize::try_from(*offset).unwrap().min(data.len());
                let to = (from + len).min(data.len());
                return Ok(DiskDone::Data(Bytes::copy_from_slice(&data[from..to])));
            }
            DiskOp::Sync { file } => {
                let inode = self.inode(file)?;
                self.files[inode].durable = self.files[inode].data.clone();
            }
            DiskOp::SyncDir { dir } | DiskOp::SyncAll { dir } => {
                if matches!(op, DiskOp::SyncAll { .. }) {
                    for file in &mut self.files {
                        file.durable = file.data.clone();
                    }
                }
                let within =
                    |path: &str| path.rsplit_once('/').map_or("", |(dir, _)| dir) == dir.as_str();
                self.durable_names.retain(|path, _| !within(path));
                for (path, inode) in self.names.iter().filter(|(path, _)| within(path)) {
                    self.durable_names.insert(path.clone(), *inode);
                }
            }
            DiskOp::Rename { from, to } => {
                let inode = self
                    .names
                    .remove(from.as_str())
                    .ok_or(DiskError::NotFound)?;
                self.names.insert(to.as_str().into(), inode);
            }
            DiskOp::Remove { file } => {
                self.names
                    .remove(file.as_str())
                    .ok_or(DiskError::NotFound)?;
            }
            DiskOp::Truncate { file, len } => {
                let inode = self.inode(file)?;
                self.files[inode]
                    .data
                    .resize(usize::try_from(*len).unwrap(), 0);
            }
            DiskOp::Space => {
                return Ok(DiskDone::Space {
                    bytes_free: self.bytes_free,
                    bytes_total: 1 << 40,
                });
            }
        }
        Ok(DiskDone::Done)
    }
}

/// One word and the file of an operation, for traces.
pub fn describe(op: &DiskOp) -> String {
    match op {
        DiskOp::List { dir } => format!("list {dir}"),
        DiskOp::MakeDir { dir } => format!("mkdir {dir}"),
        DiskOp::Create { file, .. } => format!("create {file}"),
        DiskOp::Write {
            file,
            offset,
            data,
            sync,
        } => {
            let len: usize = data.iter().map(Bytes::len).sum();
            let sync = if *sync == SyncMode::Now { " sync" } else { "" };
            format!("write {file} {offset}+{len}{sync}")
        }
        DiskOp::Read { file, offset, len } => format!("read {file} {offset}+{len}"),
        DiskOp::Sync { file } => format!("sync {file}"),
        DiskOp::SyncDir { dir } => format!("syncdir {dir}"),
        DiskOp::SyncAll { dir } => format!("syncall {dir}"),
        DiskOp::Rename { from, to } => format!("rename {from} {to}"),
        DiskOp::Remove { file } => format!("remove {file}"),
        DiskOp::Truncate { file, len } => format!("truncate {file} {len}"),
        DiskOp::Space => "space".into(),
    }
}

pub struct Server {
    pub machine: Chunk,
    pub disk: Disk,
    pub alive: bool,
    pub events: Vec<(CallId, Event)>,
    pub fault: Option<Fault>,
    /// Links this server has, and who is at the other end.
    links: BTreeMap<LinkId, End>,
    accepted: u64,
    /// Raised at each start, so that nothing of an old process reaches a new one.
    life: u64,
}

/// The other end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Server(usize, LinkId),
    Meta,
    Client,
}

#[derive(Debug)]
enum Happening {
    Disk {
        server: usize,
        life: u64,
        ticket: Ticket,
        op: DiskOp,
    },
    Input {
        server: usize,
        life: u64,
        input: Input<Call>,
    },
}

/// What a test holds back or breaks.
#[derive(Default)]
pub struct Rules {
    /// Disk operations, by server and description, that wait until they are let go.
    pub hold_disk: Vec<(usize, String)>,
    /// After so many more disk operations of any server the next ones wait.
    pub hold_disk_after: Option<usize>,
    /// Disk operations, by server and description, that are carried out at once, and whose end is heard of when they
    /// are let go.
    pub late_disk: Vec<(usize, String)>,
    /// Disk operations that fail, once each.
    pub fail_disk: Vec<(usize, String, DiskError)>,
    /// Writes that fail, once each, when the bytes are in the file already: only their sync failed.
    pub fail_durable: Vec<(usize, String, DiskError)>,
    /// Messages from a server that wait until they are let go.
    pub hold_sends: Vec<(usize, &'static str)>,
    /// Links of these servers do not report what was sent.
    pub no_credit: BTreeSet<usize>,
    /// Dials to these addresses fail.
    pub unreachable: BTreeSet<SocketAddr>,
    /// The next body sent from this server to another is damaged.
    pub damage_next: Option<usize>,
    /// What is sent to a server that paused the link is not taken from the sender until it reads again.
    pub back_pressure: bool,
}

/// The meta server of the test.
pub struct MetaSide {
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub cluster: ClusterId,
    pub timing: Timing,
    /// What becomes of replicas; others are unknown.
    pub verdicts: BTreeMap<(ChunkId, Version), Verdict>,
    pub refuse: Option<Refusal>,
    pub answers_hello: bool,
    pub answers_heartbeats: bool,
    /// What servers said.
    pub heard: Vec<(usize, Msg)>,
    links: BTreeMap<usize, (LinkId, Term)>,
    terms: u64,
}

/// A message at a server, and on which link.
type Arriving = (usize, LinkId, Msg);

pub struct World {
    pub servers: Vec<Server>,
    pub meta: MetaSide,
    pub rules: Rules,
    pub mono: Duration,
    pub limits: Limits,
    pub geometry: Geometry,
    /// Bytes a second that servers which are started read by themselves.
    pub scrub_rate: u64,
    /// What reached clients: server, link, message.
    pub inbox: Vec<(usize, LinkId, Msg)>,
    /// Disk operations as they were carried out, and messages between servers as they were sent.
    pub trace: Vec<String>,
    queue: VecDeque<Happening>,
    held: Vec<(String, Happening)>,
    paused: BTreeSet<(usize, LinkId)>,
    /// By the end that does not read: what waits at the other end, and who sent it.
    stuck: BTreeMap<(usize, LinkId), VecDeque<Arriving>>,
    pieces: u64,
}

impl World {
    pub fn new(servers: usize) -> Self {
        Self::with_limits(servers, Limits::REAL)
    }
    pub fn with_limits(servers: usize, limits: Limits) -> Self {
        let mut world = Self {
            servers: Vec::new(),
            meta: MetaSide {
                epoch: EPOCH,
                incarnation: INCARNATION,
                cluster: CLUSTER,
                timing: Timing::REAL,
                verdicts: BTreeMap::new(),
                refuse: None,
                answers_hello: true,
                answers_heartbeats: true,
                heard: Vec::new(),
                links: BTreeMap::new(),
                terms: 0,
            },
            rules: Rules::default(),
            mono: Duration::from_secs(1_000),
            limits,
            geometry: GEOMETRY,
            scrub_rate: 0,
            inbox: Vec::new(),
            trace: Vec::new(),
            queue: VecDeque::new(),
            held: Vec::new(),
            paused: BTreeSet::new(),
            stuck: BTreeMap::new(),
            pieces: 0,
        };
        for server in 0..servers {
            let disk = Disk {
                bytes_free: 1 << 30,
                ..Disk::default()
            };
            world.servers.push(Server {
                machine: world.machine(server, 1),
                disk,
                alive: false,
                events: Vec::new(),
                fault: None,
                links: BTreeMap::new(),
                accepted: 0,
                life: 0,
            });
        }
        world
    }
    /// A world whose servers are up.
    pub fn up(servers: usize) -> Self {
        Self::up_with(servers, GEOMETRY)
    }
    /// As [`Self::up`], with blocks and chunks of other sizes.
    pub fn up_with(servers: usize, geometry: Geometry) -> Self {
        let mut world = Self::new(servers);
        world.geometry = geometry;
        for server in 0..servers {
            world.servers[server].machine = world.machine(server, 1);
        }
        for server in 0..servers {
            world.start(server);
        }
        world.run();
        for server in 0..servers {
            assert!(
                world.is_ready(server),
                "server {server} is up: {:?}",
                world.servers[server].fault
            );
        }
        world.trace.clear();
        world
    }
    fn machine(&self, server: usize, life: u64) -> Chunk {
        Chunk::new(Config {
            seed: 100 * life + server as u64,
            geometry: self.geometry,
            limits: self.limits,
            meta: meta_addr(),
            listen: server_addr(server),
            rack: String::new(),
            scrub_rate: self.scrub_rate,
        })
    }
    pub fn start(&mut self, server: usize) {
        let life = self.servers[server].life + 1;
        let machine = self.machine(server, life);
        let at = &mut self.servers[server];
        (at.machine, at.life, at.alive, at.fault) = (machine, life, true, None);
        at.events.clear();
        self.input(server, Input::Wake);
    }
    /// The process dies; what the disk was asked for before is done.
    pub fn kill(&mut self, server: usize) {
        self.servers[server].alive = false;
        self.servers[server].life += 1;
        let links = std::mem::take(&mut self.servers[server].links);
        self.meta.links.remove(&server);
        for end in links.into_values() {
            if let End::Server(other, link) = end {
                self.servers[other].links.remove(&link);
                self.input(
                    other,
                    Input::Closed {
                        link,
                        why: CloseReason::Lost("the peer died".into()),
                    },
                );
            }
        }
    }
    pub fn restart(&mut self, server: usize) {
        self.kill(server);
        self.start(server);
        self.run();
    }
    /// Cuts the link on which a server dialed another.
    pub fn cut_link(&mut self, from: usize, to: usize) {
        let links = &self.servers[from].links;
        let found = links.iter().find_map(|(link, end)| match end {
            End::Server(other, theirs) if *other == to && link.is_dialed() => {
                Some((*link, *theirs))
            }
            _ => None,
        });
        let (ours, theirs) = found.expect("there is such a link");
        for (server, link) in [(from, ours), (to, theirs)] {
            self.servers[server].links.remove(&link);
            self.input(
                server,
                Input::Closed {
                    link,
                    why: CloseReason::Lost("cut".into()),
                },
            );
        }
    }
    pub fn cut_meta(&mut self, server: usize) {
        let (link, _) = self.meta.links.remove(&server).expect("it is linked");
        self.servers[server].links.remove(&link);
        self.input(
            server,
            Input::Closed {
                link,
                why: CloseReason::Lost("cut".into()),
            },
        );
    }
    pub fn client(&mut self, server: usize) -> LinkId {
        self.accept(server, End::Client, Role::Client)
    }
    pub fn close_client(&mut self, server: usize, link: LinkId) {
        self.servers[server].links.remove(&link);
        self.input(
            server,
            Input::Closed {
                link,
                why: CloseReason::Lost("client left".into()),
            },
        );
    }
    fn accept(&mut self, server: usize, end: End, role: Role) -> LinkId {
        let at = &mut self.servers[server];
        at.accepted += 1;
        let link = LinkId::accepted(at.accepted);
        at.links.insert(link, end);
        self.input(
            server,
            Input::Opened {
                link,
                peer: peer(role),
            },
        );
        link
    }
    pub fn input(&mut self, server: usize, input: Input<Call>) {
        let life = self.servers[server].life;
        self.queue.push_back(Happening::Input {
            server,
            life,
            input,
        });
    }
    pub fn call(&mut self, server: usize, id: u64, call: Call) {
        self.input(
            server,
            Input::Call {
                id: CallId(id),
                call,
            },
        );
    }
    pub fn send(&mut self, server: usize, link: LinkId, msg: Msg) {
        self.input(server, Input::Received { link, msg });
    }
    pub fn order(&mut self, server: usize, order: impl Into<Head>) {
        let (link, _) = self.meta.links[&server];
        self.send(server, link, Msg::new(5, order));
    }
    pub fn term(&self, server: usize) -> Term {
        self.meta.links[&server].1
    }
    /// Runs until nothing is left but what is held.
    pub fn run(&mut self) {
        for _ in 0..200_000 {
            let Some(happening) = self.queue.pop_front() else {
                return;
            };
            self.happen(happening);
        }
        panic!("the world does not come to rest");
    }
    /// Lets time pass, waking machines when they asked to be.
    pub fn pass(&mut self, time: Duration) {
        let end = self.mono + time;
        self.run();
        loop {
            let due = (0..self.servers.len())
                .filter(|server| {
                    self.servers[*server].alive && self.servers[*server].fault.is_none()
                })
                .filter_map(|server| Some((self.servers[server].machine.deadline()?.0, server)))
                .min();
            let Some((at, server)) = due.filter(|(at, _)| u128::from(at.0) <= end.as_nanos())
            else {
                break;
            };
            self.mono = self.mono.max(Duration::from_nanos(at.0));
            self.input(server, Input::Wake);
            self.run();
        }
        self.mono = end;
    }
    /// Lets go what was held and whose description has this in it.
    pub fn let_go(&mut self, what: &str) {
        self.rules
            .hold_disk
            .retain(|(_, held)| !held.contains(what) && !what.contains(held.as_str()));
        self.rules
            .late_disk
            .retain(|(_, late)| !late.contains(what) && !what.contains(late.as_str()));
        self.rules
            .hold_sends
            .retain(|(_, held)| !held.contains(what));
        let (go, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(held, _)| held.contains(what));
        assert!(!go.is_empty(), "nothing held is '{what}'");
        self.held = stay;
        for (_, happening) in go {
            match happening {
                Happening::Disk {
                    server,
                    life,
                    ticket,
                    op,
                } => self.carry_out(server, life, ticket, &op),
                other => self.queue.push_back(other),
            }
        }
        self.run();
    }
    /// What is held of the disk of a server that is dead is never done.
    pub fn lose_held(&mut self, server: usize) {
        assert!(!self.servers[server].alive);
        self.rules.hold_disk.retain(|(at, _)| *at != server);
        let lost = |(_, happening): &(String, Happening)| matches!(happening, Happening::Disk { server: at, .. } if *at == server);
        self.held.retain(|held| !lost(held));
    }
    pub fn is_paused(&self, server: usize, link: LinkId) -> bool {
        self.paused.contains(&(server, link))
    }
    /// Whether a link of this server is one to another server, and stands.
    pub fn is_between_servers(&self, server: usize, link: LinkId) -> bool {
        let end = self.servers[server].links.get(&link);
        matches!(end, Some(End::Server(..)))
    }
    pub fn holds(&self, what: &str) -> bool {
        self.held.iter().any(|(held, _)| held.contains(what))
    }
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Disk {
                server,
                life,
                ticket,
                op,
            } => {
                let what = describe(&op);
                let held =
                    |(at, held): &(usize, String)| *at == server && what.contains(held.as_str());
                // What follows on a file that waits, waits as well, but for reads.
                let behind = !matches!(op, DiskOp::Read { .. }) && self.held.iter().any(|(_, happening)| {
                    matches!(happening, Happening::Disk { server: at, op: before, .. } if *at == server && file(before).is_some() && file(before) == file(&op))
                });
                let after = match &mut self.rules.hold_disk_after {
                    Some(0) => true,
                    Some(more) => {
                        *more -= 1;
                        false
                    }
                    None => false,
                };
                if after || behind || self.rules.hold_disk.iter().any(held) {
                    self.held.push((
                        what,
                        Happening::Disk {
                            server,
                            life,
                            ticket,
                            op,
                        },
                    ));
                } else {
                    self.carry_out(server, life, ticket, &op);
                }
            }
            Happening::Input {
                server,
                life,
                input,
            } => {
                let at = &self.servers[server];
                if !at.alive || at.life != life || at.fault.is_some() {
                    return;
                }
                if let Input::Received { link, .. }
                | Input::Closed { link, .. }
                | Input::Sent { link, .. } = &input
                {
                    let gone =
                        !at.links.contains_key(link) && !matches!(input, Input::Closed { .. });
                    if gone {
                        return;
                    }
                }
                self.handle(server, input);
            }
        }
    }
    fn carry_out(&mut self, server: usize, life: u64, ticket: Ticket, op: &DiskOp) {
        let what = describe(op);
        let fails = self
            .rules
            .fail_disk
            .iter()
            .position(|(at, fails, _)| *at == server && what.contains(fails.as_str()));
        let not_durable = self
            .rules
            .fail_durable
            .iter()
            .position(|(at, fails, _)| *at == server && what.contains(fails.as_str()));
        let disk = &mut self.servers[server].disk;
        let result = if let Some(rule) = fails {
            Err(self.rules.fail_disk.remove(rule).2)
        } else if let Some(rule) = not_durable {
            let mut unsynced = op.clone();
            if let DiskOp::Write { sync, .. } = &mut unsynced {
                *sync = SyncMode::Later;
            }
            let error = self.rules.fail_durable.remove(rule).2;
            disk.apply(&unsynced).and(Err(error))
        } else {
            disk.apply(op)
        };
        self.trace.push(format!("{server}: {what}"));
        let input = Input::Disk { ticket, result };
        let ended = Happening::Input {
            server,
            life,
            input,
        };
        let late = |(at, late): &(usize, String)| *at == server && what.contains(late.as_str());
        if self.rules.late_disk.iter().any(late) {
            self.held.push((what, ended));
        } else {
            self.queue.push_back(ended);
        }
    }
    fn handle(&mut self, server: usize, input: Input<Call>) {
        let mono = Instant(u64::try_from(self.mono.as_nanos()).unwrap());
        let now = Now {
            mono,
            wall: UnixNanos(0),
        };
        self.servers[server].machine.handle(now, input);
        while let Some(output) = self.servers[server].machine.poll() {
            self.output(server, output);
        }
    }
    fn output(&mut self, server: usize, output: Output<Event>) {
        let life = self.servers[server].life;
        match output {
            Output::Disk { ticket, op } => self.queue.push_back(Happening::Disk {
                server,
                life,
                ticket,
                op,
            }),
            Output::Send { link, msg } => self.deliver(server, link, msg),
            Output::Dial { link, addr } => self.dial(server, link, addr),
            Output::Close { link } => {
                if let Some(End::Server(other, theirs)) = self.servers[server].links.remove(&link) {
                    self.servers[other].links.remove(&theirs);
                    let why = CloseReason::Lost("the peer closed".into());
                    self.input(other, Input::Closed { link: theirs, why });
                }
                self.trace.push(format!("{server}: close {}", link.0));
            }
            Output::Pause { link } => {
                self.trace.push(format!("{server}: pause {}", link.0));
                assert!(self.paused.insert((server, link)), "paused once");
            }
            Output::Resume { link } => {
                self.trace.push(format!("{server}: resume {}", link.0));
                assert!(self.paused.remove(&(server, link)), "it was paused");
                let stuck = self.stuck.remove(&(server, link)).unwrap_or_default();
                for (sender, theirs, msg) in stuck {
                    self.deliver(sender, theirs, msg);
                }
            }
            Output::Event { id, event } => self.servers[server].events.push((id, event)),
            Output::Halt { fault } => self.servers[server].fault = Some(fault),
        }
    }
    fn dial(&mut self, server: usize, link: LinkId, addr: SocketAddr) {
        let other = (0..self.servers.len())
            .find(|other| server_addr(*other) == addr && self.servers[*other].alive);
        if self.rules.unreachable.contains(&addr) || (addr != meta_addr() && other.is_none()) {
            let why = CloseReason::Unreachable("refused".into());
            return self.input(server, Input::Closed { link, why });
        }
        let (end, role) = match other {
            None => (End::Meta, Role::Meta),
            Some(other) => {
                let theirs = self.accept(other, End::Server(server, link), Role::Chunk);
                (End::Server(other, theirs), Role::Chunk)
            }
        };
        self.servers[server].links.insert(link, end);
        self.input(
            server,
            Input::Opened {
                link,
                peer: peer(role),
            },
        );
    }
    fn deliver(&mut self, server: usize, link: LinkId, mut msg: Msg) {
        let Some(end) = self.servers[server].links.get(&link).copied() else {
            return;
        };
        if let End::Server(other, theirs) = end
            && self.rules.back_pressure
            && self.paused.contains(&(other, theirs))
        {
            let stuck = self.stuck.entry((other, theirs)).or_default();
            return stuck.push_back((server, link, msg));
        }
        if !self.rules.no_credit.contains(&server) {
            self.input(
                server,
                Input::Sent {
                    link,
                    bytes: msg.cost(),
                },
            );
        }
        match end {
            End::Client => self.inbox.push((server, link, msg)),
            End::Meta => self.meta_hears(server, link, msg),
            End::Server(other, theirs) => {
                self.trace
                    .push(format!("{server}: send {} to {other}", msg.head.name()));
                if self.rules.damage_next == Some(server) && !msg.body.is_empty() {
                    self.rules.damage_next = None;
                    let mut damaged = msg.body.to_vec();
                    damaged[0] ^= 1;
                    msg.body = damaged.into();
                }
                let what = format!("{server}: {}", msg.head.name());
                let held = self
                    .rules
                    .hold_sends
                    .iter()
                    .any(|(at, held)| *at == server && *held == msg.head.name());
                let life = self.servers[other].life;
                let happening = Happening::Input {
                    server: other,
                    life,
                    input: Input::Received { link: theirs, msg },
                };
                if held {
                    self.held.push((what, happening));
                } else {
                    self.queue.push_back(happening);
                }
            }
        }
    }
    fn meta_hears(&mut self, server: usize, link: LinkId, msg: Msg) {
        self.meta.heard.push((server, msg.clone()));
        let meta = &mut self.meta;
        let answer: Option<Head> = match msg.head {
            Head::Hello(_) if !meta.answers_hello => None,
            Head::Hello(_) => match meta.refuse.clone() {
                Some(refusal) => Some(HelloRefused { refusal }.into()),
                None => {
                    meta.terms += 1;
                    let term = Term {
                        epoch: meta.epoch,
                        number: meta.terms,
                    };
                    meta.links.insert(server, (link, term));
                    let (cluster, incarnation, timing) =
                        (meta.cluster, meta.incarnation, meta.timing);
                    Some(
                        Welcome {
                            cluster,
                            term,
                            incarnation,
                            timing,
                        }
                        .into(),
                    )
                }
            },
            Head::Inventory(said) => {
                let verdict = |item: &InventoryItem| {
                    let verdict = meta.verdicts.get(&(item.chunk, item.version)).copied();
                    (
                        item.chunk,
                        item.version,
                        verdict.unwrap_or(Verdict::Unknown),
                    )
                };
                let verdicts = said.items.iter().map(verdict).collect();
                Some(
                    Verdicts {
                        term: said.term,
                        verdicts,
                        accepted: said.last,
                    }
                    .into(),
                )
            }
            Head::Heartbeat(beat) if meta.answers_heartbeats => Some(
                HeartbeatAnswer {
                    term: beat.term,
                    number: beat.number,
                    durable: LogSeq(1),
                }
                .into(),
            ),
            _ => None,
        };
        if let Some(head) = answer {
            self.input(
                server,
                Input::Received {
                    link,
                    msg: Msg::new(msg.request, head),
                },
            );
        }
    }

    pub fn is_ready(&self, server: usize) -> bool {
        self.servers[server]
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Ready { .. }))
    }
    pub fn status(&mut self, server: usize) -> ChunkStatus {
        self.call(server, 4_242, Call::Status);
        self.run();
        let events = &mut self.servers[server].events;
        let at = events
            .iter()
            .position(|(_, event)| matches!(event, Event::Status(_)));
        match events.remove(at.expect("a status was asked for")).1 {
            Event::Status(status) => *status,
            other => panic!("not a status: {other:?}"),
        }
    }
    pub fn chain(&self, servers: &[usize]) -> Vec<Place> {
        let place = |server: &usize| Place {
            node: self.node(*server),
            addr: server_addr(*server),
        };
        servers.iter().map(place).collect()
    }
    fn node(&self, server: usize) -> NodeId {
        let hello = self
            .meta
            .heard
            .iter()
            .rev()
            .find_map(|(from, msg)| match &msg.head {
                Head::Hello(hello) if *from == server => Some(hello.node),
                _ => None,
            });
        hello.expect("it said hello")
    }
    pub fn create_order(&self, server: usize, servers: &[usize], chunk: ChunkId) -> CreateChunk {
        CreateChunk {
            term: self.term(server),
            file: FILE,
            chunk,
            version: VERSION,
            incarnation: INCARNATION,
            chain: self.chain(servers),
            session: SESSION,
        }
    }
    /// Makes a chunk on a chain of servers.
    pub fn create(&mut self, servers: &[usize], chunk: ChunkId) {
        for server in servers {
            let order = self.create_order(*server, servers, chunk);
            self.order(*server, order);
        }
        self.run();
        for server in servers {
            let made = self.meta.heard.iter().any(|(from, msg)| {
                matches!(&msg.head, Head::ChunkCreated(made) if from == server && made.chunk == chunk && made.outcome.is_ok())
            });
            assert!(made, "server {server} made chunk {chunk}");
        }
    }
    pub fn piece(&mut self, chunk: ChunkId, piece: u64, offset: u64, body: &Bytes) -> Msg {
        self.pieces += 1;
        let head = WritePiece {
            chunk,
            version: VERSION,
            session: SESSION,
            piece: PieceNumber(piece),
            offset,
            sums: Sums::of(self.geometry, offset, body),
        };
        Msg::with_body(self.pieces, head, body.clone())
    }
    /// Sends a piece to the head, without running.
    pub fn write(
        &mut self,
        head: usize,
        link: LinkId,
        chunk: ChunkId,
        piece: u64,
        offset: u64,
        body: &Bytes,
    ) {
        let msg = self.piece(chunk, piece, offset, body);
        self.send(head, link, msg);
    }
    /// Sends a sync to the head, without running.
    pub fn sync(&mut self, head: usize, link: LinkId, chunk: ChunkId, up_to: u64) {
        self.sync_of(SESSION, (head, link), chunk, up_to);
    }
    /// As [`Self::sync`], for another session.
    pub fn sync_of(
        &mut self,
        session: SessionId,
        (head, link): (usize, LinkId),
        chunk: ChunkId,
        up_to: u64,
    ) {
        let sync = SyncChunk {
            chunk,
            version: VERSION,
            session,
            up_to: PieceNumber(up_to),
        };
        self.send(head, link, Msg::new(900, sync));
    }
    /// What was said of a piece, if anything: the last word.
    pub fn piece_done(&self, piece: u64) -> Option<Result<(), Refusal>> {
        self.inbox
            .iter()
            .rev()
            .find_map(|(.., msg)| match &msg.head {
                Head::PieceDone(done) if done.piece == PieceNumber(piece) => {
                    Some(done.outcome.clone())
                }
                _ => None,
            })
    }
    /// Answers to syncs, in order.
    pub fn syncs_answered(&self) -> Vec<Result<Durable, Refusal>> {
        let outcome = |(.., msg): &(usize, LinkId, Msg)| match &msg.head {
            Head::SyncDone(done) => Some(done.outcome.clone()),
            _ => None,
        };
        self.inbox.iter().filter_map(outcome).collect()
    }
    /// The lengths that answers to syncs say, in order.
    pub fn syncs_done(&self) -> Vec<Result<u64, Refusal>> {
        let answers = self.syncs_answered().into_iter();
        answers
            .map(|answer| answer.map(|durable| durable.len))
            .collect()
    }
    pub fn ask(
        &mut self,
        server: usize,
        link: LinkId,
        chunk: ChunkId,
        offset: u64,
        len: u32,
        log_len: u64,
    ) {
        self.ask_at(server, link, chunk, (offset, len), logged(log_len));
    }
    pub fn ask_at(
        &mut self,
        server: usize,
        link: LinkId,
        chunk: ChunkId,
        (offset, len): (u64, u32),
        log: Durable,
    ) {
        let ask = ReadRange {
            chunk,
            version: VERSION,
            offset,
            len,
            log,
        };
        self.send(server, link, Msg::new(offset, ask));
    }
    pub fn read(
        &mut self,
        server: usize,
        chunk: ChunkId,
        offset: u64,
        len: u32,
        log_len: u64,
    ) -> Result<Bytes, Refusal> {
        self.read_at(server, chunk, (offset, len), logged(log_len))
    }
    /// Reads, and checks the sums that came with the bytes.
    pub fn read_at(
        &mut self,
        server: usize,
        chunk: ChunkId,
        (offset, len): (u64, u32),
        log: Durable,
    ) -> Result<Bytes, Refusal> {
        let link = self.client(server);
        self.ask_at(server, link, chunk, (offset, len), log);
        self.run();
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox)
            .into_iter()
            .partition(|(from, at, _)| (*from, *at) == (server, link));
        self.inbox = others;
        let [(.., msg)] = mine.as_slice() else {
            panic!("one answer to one read: {mine:?}")
        };
        self.close_client(server, link);
        match &msg.head {
            Head::RangeRead(RangeRead { outcome: Ok(sums) }) => {
                assert!(
                    sums.match_bytes(self.geometry, offset, &msg.body),
                    "sums match what was sent"
                );
                Ok(msg.body.clone())
            }
            Head::RangeRead(RangeRead {
                outcome: Err(refusal),
            }) => {
                assert!(msg.body.is_empty());
                Err(refusal.clone())
            }
            other => panic!("not an answer to a read: {other:?}"),
        }
    }
    /// The header on a server's disk.
    pub fn header(&self, server: usize, chunk: ChunkId) -> Header {
        let file = self.servers[server]
            .disk
            .get(name(chunk).path().as_str())
            .expect("the file is there");
        Header::choose(
            &file[..usize::try_from(HEADER_BYTES).unwrap()],
            name(chunk),
            self.geometry,
        )
        .unwrap()
    }
    /// Both slots of a header on a server's disk, as far as they are valid.
    pub fn slots(&self, server: usize, chunk: ChunkId) -> Vec<Header> {
        let path = name(chunk).path();
        let file = self.servers[server].disk.get(path.as_str()).unwrap();
        [Slot::A, Slot::B]
            .into_iter()
            .filter_map(|slot| {
                let bytes = file[slot.offset()..].first_chunk::<SLOT_BYTES>().unwrap();
                Header::decode(bytes, slot, self.geometry).ok()
            })
            .collect()
    }
    /// Orders a server to copy the replica that another one has, which is said to have this.
    pub fn copies(&mut self, server: usize, chunk: ChunkId, source: usize, has: Durable) {
        let order = CopyChunk {
            term: self.term(server),
            file: FILE,
            chunk,
            version: VERSION,
            incarnation: INCARNATION,
            has,
            source: self.chain(&[source])[0],
        };
        self.forget_heard();
        self.order(server, order);
        self.run();
    }
    /// Forgets what servers said, but for the hellos: the rig finds their nodes there.
    pub fn forget_heard(&mut self) {
        let heard = &mut self.meta.heard;
        heard.retain(|(_, msg)| matches!(msg.head, Head::Hello(_)));
    }
    /// What the last inventory of a server says of a chunk.
    pub fn inventory_said(&self, server: usize, chunk: ChunkId) -> Option<InventoryItem> {
        let heard = self.meta.heard.iter().rev();
        heard
            .filter(|(from, _)| *from == server)
            .find_map(|(_, msg)| match &msg.head {
                Head::Inventory(said) => {
                    said.items.iter().find(|item| item.chunk == chunk).copied()
                }
                _ => None,
            })
    }
    /// The power goes, and comes again; the log has the chunk at `log`.
    pub fn power_cycle(&mut self, server: usize, chunk: ChunkId, log: Durable) {
        let verdict = Verdict::Keep { log };
        self.meta.verdicts.insert((chunk, VERSION), verdict);
        self.kill(server);
        self.servers[server].disk.power_loss();
        self.start(server);
        self.run();
    }
    pub fn seal_order(&self, server: usize, chunk: ChunkId, unsynced: Unsynced) -> SealChunk {
        SealChunk {
            term: self.term(server),
            chunk,
            version: VERSION,
            unsynced,
        }
    }
    /// Seals a replica: how far it is durable, and whether the next server was lost.
    pub fn seal_chunk(
        &mut self,
        server: usize,
        chunk: ChunkId,
        unsynced: Unsynced,
    ) -> (Result<Durable, Refusal>, bool) {
        let order = self.seal_order(server, chunk, unsynced);
        self.forget_heard();
        self.order(server, order);
        self.run();
        let said = |(from, msg): &(usize, Msg)| match &msg.head {
            Head::ChunkSealed(said) if *from == server => {
                assert_eq!((said.chunk, said.version), (chunk, VERSION));
                Some((said.outcome.clone(), said.next_lost))
            }
            _ => None,
        };
        let mut said: Vec<_> = self.meta.heard.iter().filter_map(said).collect();
        assert_eq!(said.len(), 1, "an order is answered once");
        let (outcome, next_lost) = said.remove(0);
        (outcome.map(|content| content.durable), next_lost)
    }
    pub fn resume_order(
        &self,
        server: usize,
        members: &[usize],
        chunk: ChunkId,
        chain: u64,
        (from, to): (u64, u64),
    ) -> ResumeChunk {
        ResumeChunk {
            term: self.term(server),
            chunk,
            version: VERSION,
            chain: ChainId(chain),
            members: self.chain(members),
            session: SESSION,
            from: WriteSeq(from),
            to: WriteSeq(to),
            raised: None,
            cut: None,
        }
    }
    /// What a server answered to orders to resume, as far as it was not forgotten.
    pub fn resumes_said(&self, server: usize) -> Vec<(ChainId, Result<(), Refusal>)> {
        let said = |(from, msg): &(usize, Msg)| match &msg.head {
            Head::ChunkResumed(said) if *from == server => {
                assert_eq!(said.version, VERSION);
                Some((said.chain, said.outcome.clone()))
            }
            _ => None,
        };
        self.meta.heard.iter().filter_map(said).collect()
    }
    /// Orders a replica to take pieces again: what its server said.
    pub fn resume_with(&mut self, server: usize, order: ResumeChunk) -> Result<(), Refusal> {
        self.forget_heard();
        let chain = order.chain;
        self.order(server, order);
        self.run();
        let mut said = self.resumes_said(server);
        assert_eq!(said.len(), 1, "an order is answered once");
        assert_eq!(said[0].0, chain);
        said.remove(0).1
    }
    /// Reports of damage: server, chunk, block.
    pub fn damage(&self) -> Vec<(usize, ChunkId, Option<u32>)> {
        let report = |(server, msg): &(usize, Msg)| match &msg.head {
            Head::ReportDamage(report) => Some((*server, report.chunk, report.block)),
            _ => None,
        };
        self.meta.heard.iter().filter_map(report).collect()
    }
    /// What the trace says of files and messages that have this in their line.
    pub fn traced(&self, what: &str) -> Vec<&str> {
        self.trace
            .iter()
            .filter(|line| line.contains(what))
            .map(String::as_str)
            .collect()
    }
    pub fn position(&self, what: &str) -> usize {
        let at = self.trace.iter().position(|line| line.contains(what));
        at.unwrap_or_else(|| panic!("'{what}' is not in {:#?}", self.trace))
    }
}

fn peer(role: Role) -> Peer {
    Peer {
        role,
        cluster: ClusterId(0),
        addr: "127.0.0.1:9".parse().unwrap(),
        protocol: 1,
        build: "test".into(),
    }
}

fn file(op: &DiskOp) -> Option<&str> {
    match op {
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. } => Some(file.as_str()),
        DiskOp::Rename { from, .. } => Some(from.as_str()),
        _ => None,
    }
}
