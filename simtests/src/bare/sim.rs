//! The heap, the nodes, and what happens at the head of the heap: a whole cluster as one value.
//!
//! A copy of it is another cluster with the same past. Nothing here reads a clock or draws a number that is not
//! a function of the schedule's seed, of whom it concerns, and of how often it was drawn for that one before.
use super::actor::{Actor, Next};
use super::backup::Backups;
use super::beside::Beside;
use super::disk::Disk;
use super::net::{Delivery, Ended, Host, Net, NetEvent, NodeId, Reading, addr_of};
use super::process::{Happens, Process, Wants};
use crate::disk::queue::Carried;
use crate::disk::{DiskModel, Policy};
use crate::keyed::Keyed;
use crate::observe::client::ClientObserver;
use crate::observe::overseer::{Overseer, Whose};
use crate::observe::record::Record;
use crate::observe::telling::Life;
use crate::oracle::Violation;
use crate::oracle::bounds::OnTheirWay;
use crate::outcome::Crashes;
use crate::schedule::{COPY_RATE, MIN_REPLICAS, Schedule};
use kfs_core::ids::CallId;
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::wire::{Msg, Role};
use kfs_core::{chunk, client, meta};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of every disk.
pub const DISK_BYTES: u64 = 64 << 20;
/// How long a client's call may take.
const CALL_MAX: Duration = Duration::from_secs(20);
/// How long a server that stopped by itself is left alone.
const REVIVE_NS: u64 = 500_000_000;
/// How long until somebody looks whether a stalled disk goes on.
pub(super) const LOOK_AGAIN_NS: u64 = 10_000_000;
/// The monotonic clock does not begin at zero, so that "a while before now" is a time too.
const MONO_FIRST_NS: u64 = 1_000_000_000_000;
/// 2026-01-01.
const WALL_FIRST_NS: u64 = 1_767_225_600_000_000_000;

/// A link that is paused brings nothing more here, not even what has arrived.
const ON_THEIR_WAY: OnTheirWay = OnTheirWay(0);

/// What is to happen, by when, then by when it was decided.
#[derive(Clone, Default, Debug)]
pub struct Heap {
    events: BTreeMap<(u64, u64), What>,
    pushed: u64,
}

impl Heap {
    /// At this time.
    pub fn push(&mut self, at: u64, what: What) {
        self.pushed += 1;
        self.events.insert((at, self.pushed), what);
    }
    fn pop(&mut self) -> Option<(u64, What)> {
        self.events.pop_first().map(|((at, _), what)| (at, what))
    }
}

/// See [`Heap`].
#[derive(Clone, Debug)]
pub enum What {
    /// A process of this life is due to be woken.
    Wake(NodeId, u64),
    /// A process of this life is told something that waited while it stood still.
    Tell(NodeId, u64, Box<Happens>),
    /// An operation of a disk is due, for a process of this life.
    Disk(NodeId, u64),
    /// See [`NetEvent`].
    Net(NetEvent),
    /// An actor of a client goes on, in a process of this life.
    Act(usize, usize, u64),
    /// A planned fault strikes, if it is not too late.
    Strike(usize),
    /// A crash at an operation is armed from now on.
    Arm(usize),
    /// A planned fault is healed.
    Heal(usize),
    /// A server's disk is remembered as it is.
    Remember(NodeId),
    /// Whoever looks after a server starts it again, after it stopped by itself.
    Revive(NodeId),
    /// An operation of a compactor of this life is due.
    Compactor(u64),
    /// A step of a backup of this life is due.
    Backup(u64),
}

/// What a step was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A disk operation was carried out here.
    Disk(NodeId),
    /// A message was received here.
    Message(NodeId),
    /// Something else.
    Other,
}

/// A node: a host with a clock, perhaps a disk, and perhaps a process.
#[derive(Clone, Debug)]
pub struct Node {
    /// For the trace.
    pub name: Arc<str>,
    /// What runs there.
    pub process: Option<Process>,
    /// Its disk; clients have none.
    pub disk: Option<Disk>,
    /// Rises with every start and every end of a process.
    pub(super) life: u64,
    starts: u64,
    /// When the process is next woken, by its own clock; an earlier entry of the heap may be void.
    pub(super) wake_at: Option<Instant>,
    /// It stands still for a while: what happens to it waits here.
    pub(super) frozen: Option<VecDeque<What>>,
    powered: bool,
    /// How much faster its clock runs than the simulation's, in millionths, since when, and what it was then.
    drift_ppm: i64,
    drift_since: u64,
    ran_ns: u64,
    /// How far its wall clock is off, in nanoseconds.
    pub(super) wall_off_ns: i64,
    /// In so many of the bodies that it sends next a bit flips.
    pub(super) flips: u32,
    flipped: u64,
}

impl Node {
    /// Whether its host has power.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.powered
    }
}

/// A client's process and what its actors do.
#[derive(Clone, Debug)]
pub struct ClientState {
    /// Which process it is: the number its session is known by.
    pub process: u32,
    processes: u32,
    /// Its actors.
    pub actors: Vec<Actor>,
    /// Whether it has said farewell.
    pub done: bool,
    calls: BTreeMap<CallId, usize>,
    next_call: u64,
    farewell: Option<CallId>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Sim {
    /// What is run.
    pub schedule: Arc<Schedule>,
    pub(super) now: u64,
    pub(super) heap: Heap,
    /// Servers first, then clients, then the auditor.
    pub nodes: Vec<Node>,
    /// Links.
    pub net: Net,
    /// What is kept of the run.
    pub record: Record,
    /// By client; the last one is the auditor.
    pub clients: Vec<ClientState>,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What power losses did.
    pub crashes: Crashes,
    pub(super) healing: bool,
    /// Servers that may have found that they cannot go on: their disks failed.
    pub(super) ailing: BTreeSet<NodeId>,
    /// Servers on whose disks something is not as they left it.
    pub hurt: BTreeSet<NodeId>,
    /// Disks that were taken out of their servers.
    pub(super) put_aside: BTreeMap<NodeId, DiskModel>,
    /// Faults that struck and were not healed.
    pub(super) striking: Vec<usize>,
    pub(super) armed: BTreeMap<NodeId, usize>,
    /// What works on the meta server's disk beside it.
    pub(super) beside: Beside,
    /// Copies of its data directory.
    pub(super) backups: Backups,
}

impl Sim {
    /// A cluster whose servers have just been switched on, with empty disks.
    #[must_use]
    pub fn new(schedule: Arc<Schedule>, record: Record) -> Self {
        let disks = vec![DiskModel::new(DISK_BYTES); schedule.servers];
        let mut sim = Self::dark(schedule, record, disks);
        for server in 0..sim.servers() {
            sim.start(server);
        }
        sim
    }

    /// A cluster whose servers are off, with these disks.
    ///
    /// # Panics
    /// If there is not one disk for each server.
    #[must_use]
    pub fn dark(schedule: Arc<Schedule>, mut record: Record, disks: Vec<DiskModel>) -> Self {
        assert_eq!(disks.len(), schedule.servers, "each server has a disk");
        let mut disks = disks.into_iter();
        record.overseer = Some(Box::new(Overseer::new(&schedule, ON_THEIR_WAY)));
        let seed = schedule.seed;
        let clients = schedule.clients.len();
        let mut roles = vec![Role::Meta];
        roles.extend((1..schedule.servers).map(|_| Role::Chunk));
        roles.extend((0..=clients).map(|_| Role::Client));
        let nodes = (0..roles.len())
            .map(|node| {
                let name = name_of(&schedule, node);
                let disk = disks.next().map(|model| {
                    let draws = Keyed::new(seed, &format!("disk of {name}"));
                    Disk::new(model, draws, schedule.speed)
                });
                Node {
                    name: name.into(),
                    process: None,
                    disk,
                    life: 0,
                    starts: 0,
                    wake_at: None,
                    frozen: None,
                    powered: true,
                    drift_ppm: 0,
                    drift_since: 0,
                    ran_ns: 0,
                    wall_off_ns: 0,
                    flips: 0,
                    flipped: 0,
                }
            })
            .collect();
        let net = Net::new(seed, schedule.latency_us, schedule.loss_permille, roles);
        let clients = (0..=clients)
            .map(|client| ClientState {
                process: 0,
                processes: 0,
                actors: schedule.clients.get(client).map_or_else(Vec::new, |plan| {
                    (0..plan.actors.len())
                        .map(|nth| Actor::new(&schedule, client, nth))
                        .collect()
                }),
                done: false,
                calls: BTreeMap::new(),
                next_call: 1,
                farewell: None,
            })
            .collect();
        Self {
            schedule,
            now: 0,
            heap: Heap::default(),
            nodes,
            net,
            record,
            clients,
            faults: BTreeMap::new(),
            crashes: Crashes::default(),
            healing: false,
            ailing: BTreeSet::new(),
            hurt: BTreeSet::new(),
            put_aside: BTreeMap::new(),
            striking: Vec::new(),
            armed: BTreeMap::new(),
            beside: Beside::default(),
            backups: Backups::default(),
        }
    }

    /// Simulated time, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }
    /// Servers there are.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.schedule.servers
    }
    /// The disk of a server.
    #[must_use]
    pub fn disk(&self, server: NodeId) -> &DiskModel {
        &self.nodes[server]
            .disk
            .as_ref()
            .expect("a server has a disk")
            .model
    }
    /// The disk of a server, to change what is on it.
    pub fn disk_mut(&mut self, server: NodeId) -> &mut DiskModel {
        let disk = self.nodes[server].disk.as_mut();
        &mut disk.expect("a server has a disk").model
    }
    /// The meta server's machine, if it is up.
    #[must_use]
    pub fn meta(&self) -> Option<&meta::Meta> {
        match &self.nodes[0].process {
            Some(Process::Meta(meta)) => Some(meta),
            _ => None,
        }
    }
    /// Whether a process runs there.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes[node].process.is_some()
    }

    /// Does the next thing; nothing is left when it gives `None`.
    pub fn step(&mut self) -> Option<Step> {
        let (at, what) = self.heap.pop()?;
        assert!(at >= self.now, "time goes forwards");
        self.now = at;
        let step = self.happens(what);
        if self.record.has_fired() {
            for id in self.record.take_fired() {
                self.triggered(id);
            }
        }
        Some(step)
    }

    /// Steps until this holds, for so long in simulated time. Whether it holds.
    pub fn run_until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + as_ns(most);
        while !done(self) {
            if self.record.violation.is_some() || self.now > until || self.step().is_none() {
                return done(self);
            }
        }
        true
    }

    fn happens(&mut self, what: What) -> Step {
        match what {
            What::Wake(node, life) => {
                // An entry of an earlier process, or one that was overtaken by a later deadline, is void.
                let due = self.clock(node).mono;
                let host = &mut self.nodes[node];
                if host.life == life
                    && host.frozen.is_none()
                    && host.wake_at.is_some_and(|at| at <= due)
                {
                    host.wake_at = None;
                    self.deliver(node, Happens::Wake);
                }
                Step::Other
            }
            What::Tell(node, life, happens) => {
                if self.nodes[node].life == life {
                    self.deliver(node, *happens);
                }
                Step::Other
            }
            What::Disk(node, life) => self.disk_due(node, life),
            What::Net(event) => self.net_happens(event),
            What::Act(client, nth, life) => {
                let node = self.servers() + client;
                if self.nodes[node].life == life && self.is_up(node) {
                    self.act(client, nth, None);
                }
                Step::Other
            }
            What::Strike(nth) => {
                self.strike(nth);
                Step::Other
            }
            What::Arm(nth) => {
                self.arm(nth);
                Step::Other
            }
            What::Heal(nth) => {
                if !self.healing {
                    self.heal(nth);
                }
                Step::Other
            }
            What::Remember(server) => {
                self.disk_mut(server).remember();
                Step::Other
            }
            What::Revive(server) => {
                if self.nodes[server].powered {
                    self.start(server);
                }
                Step::Other
            }
            What::Compactor(life) => self.compactor_due(life),
            What::Backup(life) => {
                if self.backup_due(life) {
                    Step::Disk(0)
                } else {
                    Step::Other
                }
            }
        }
    }

    fn disk_due(&mut self, node: NodeId, life: u64) -> Step {
        if self.nodes[node].life != life {
            return Step::Other;
        }
        let now = self.now;
        let disk = self.nodes[node].disk.as_mut();
        match disk.map_or(Carried::Nothing, |disk| disk.carry_out(now)) {
            Carried::Nothing | Carried::NotBefore(_) => return Step::Other,
            Carried::Stalled => {
                let again = now + LOOK_AGAIN_NS;
                self.heap.push(again, What::Disk(node, life));
                return Step::Other;
            }
            Carried::Done(ticket, _, result) => {
                let happens = Happens::Disk(ticket, result);
                if let Some(frozen) = &mut self.nodes[node].frozen {
                    frozen.push_back(What::Tell(node, life, Box::new(happens)));
                } else {
                    self.deliver(node, happens);
                }
            }
            Carried::Tripped => {
                if let Some(nth) = self.armed.remove(&node) {
                    self.strike(nth);
                }
            }
        }
        Step::Disk(node)
    }

    fn net_happens(&mut self, event: NetEvent) -> Step {
        if let Some(frozen) = self
            .net
            .concerns(&event)
            .and_then(|node| self.nodes[node].frozen.as_mut())
        {
            frozen.push_back(What::Net(event));
            return Step::Other;
        }
        let (nodes, net) = (&self.nodes, &mut self.net);
        let host = |node: NodeId| match &nodes[node] {
            Node { powered: false, .. } => Host::Dark,
            Node { process: None, .. } => Host::Refuses,
            Node { .. } => Host::Listens,
        };
        let Some(Delivery { node, happens }) = net.happens(&mut self.heap, self.now, event, host)
        else {
            return Step::Other;
        };
        let step = match happens {
            Happens::Received(..) => Step::Message(node),
            _ => Step::Other,
        };
        self.deliver(node, happens);
        step
    }

    /// Both clocks of a node.
    pub(super) fn clock(&self, node: NodeId) -> Now {
        let node = &self.nodes[node];
        Now {
            mono: Instant(MONO_FIRST_NS + self.ran(node)),
            wall: UnixNanos((WALL_FIRST_NS + self.now).saturating_add_signed(node.wall_off_ns)),
        }
    }

    /// How long a node's own clock has run.
    fn ran(&self, node: &Node) -> u64 {
        let since = i128::from(self.now - node.drift_since);
        let ran = since + since * i128::from(node.drift_ppm) / 1_000_000;
        node.ran_ns + u64::try_from(ran).expect("clocks run forwards")
    }

    /// From now on a node's clock runs faster or slower.
    pub(super) fn set_drift(&mut self, node: NodeId, drift_ppm: i64) {
        if self.nodes[node].drift_ppm == drift_ppm {
            return;
        }
        let ran_ns = self.ran(&self.nodes[node]);
        let host = &mut self.nodes[node];
        (host.ran_ns, host.drift_since, host.drift_ppm) = (ran_ns, self.now, drift_ppm);
        host.wake_at = None;
        self.set_alarm(node);
    }

    /// What a node sends, with a bit of its body flipped, if that is due.
    fn damaged(&mut self, node: NodeId, msg: Msg) -> Msg {
        let host = &mut self.nodes[node];
        if host.flips == 0 || msg.body.is_empty() {
            return msg;
        }
        host.flips -= 1;
        host.flipped += 1;
        let named = format!("flip {} of {}", host.flipped, host.name);
        let mut draws = Keyed::new(self.schedule.seed, &named);
        let mut body = msg.body.to_vec();
        let at = draws.index(body.len());
        body[at] ^= 1 << draws.below(8);
        self.record
            .remark(|| format!("FLIP byte {at} of a {} from {node}", msg.head.name()));
        Msg {
            body: body.into(),
            ..msg
        }
    }

    /// Hands something to the process of a node, and carries out what it wants.
    fn deliver(&mut self, node: NodeId, happens: Happens) {
        let now = self.clock(node);
        self.record.now_ns = self.now;
        let host = &mut self.nodes[node];
        let Some(process) = &mut host.process else {
            return;
        };
        let mut wants = Vec::new();
        let whose = Whose {
            node: as_u32(node),
            name: &host.name,
        };
        process.handle(now, whose, happens, &mut self.record, &mut wants);
        let life = host.life;
        let mut answers = Vec::new();
        for want in wants {
            match want {
                Wants::Send(link, msg) => {
                    let msg = self.damaged(node, msg);
                    self.net.send(&mut self.heap, self.now, node, link, msg);
                }
                Wants::Dial(link, to) => self.net.dial(&mut self.heap, self.now, node, link, to),
                Wants::Close(link) => self.net.close(&mut self.heap, self.now, node, link),
                Wants::Pause(link) => self.set_reading(node, link, Reading::Paused),
                Wants::Resume(link) => self.set_reading(node, link, Reading::Going),
                Wants::Disk(ticket, op) => {
                    let disk = self.nodes[node].disk.as_mut();
                    let at = disk
                        .expect("only servers have a disk")
                        .submit(self.now, ticket, op);
                    self.heap.push(at, What::Disk(node, life));
                }
                Wants::Ready => self.record.server_ready(node),
                Wants::Answer(id, event) => answers.push((id, event)),
                Wants::Halt(fault) => self.halted(node, &fault.what),
            }
        }
        self.set_alarm(node);
        for (id, event) in answers {
            self.answered(node, id, event);
        }
    }

    fn set_reading(&mut self, node: NodeId, link: kfs_core::ids::LinkId, reading: Reading) {
        self.net
            .set_reading(&mut self.heap, self.now, (node, link), reading);
    }

    /// Sees to it that a process is woken in time.
    pub(super) fn set_alarm(&mut self, node: NodeId) {
        let now = self.clock(node).mono;
        let host = &mut self.nodes[node];
        let Some(at) = host.process.as_ref().and_then(Process::deadline) else {
            host.wake_at = None;
            return;
        };
        if host.wake_at == Some(at) {
            return;
        }
        host.wake_at = Some(at);
        // By its own clock, which may run slower or faster; never early.
        let wait = i128::from(as_ns(at.since(now))) * 1_000_000;
        let wait = wait / (1_000_000 + i128::from(host.drift_ppm));
        let wait = u64::try_from(wait).unwrap_or(u64::MAX >> 1);
        let life = host.life;
        self.heap
            .push(self.now + wait + 1_000, What::Wake(node, life));
    }

    /// A machine says that it cannot go on. With a disk that does not fail that is never right; with one that
    /// does, whoever looks after it starts it again.
    fn halted(&mut self, node: NodeId, why: &str) {
        let what = format!("{} stopped by itself: {why}", self.nodes[node].name);
        // A meta server whose log is not what it was may refuse anybody; with that of a backup it has no reason to stop.
        let restored = node == 0 && self.record.log_is_restored();
        if !restored && (self.ailing.contains(&node) || self.hurt.contains(&0)) {
            self.record.remark(|| what);
            self.kill(node);
            self.heap.push(self.now + REVIVE_NS, What::Revive(node));
        } else {
            self.record
                .check::<()>(Err(Violation::new("halt", "L", what)));
        }
    }

    /// Starts a server's process, on the disk as it is.
    pub fn start(&mut self, server: NodeId) {
        if self.is_up(server) {
            return;
        }
        let schedule = Arc::clone(&self.schedule);
        let host = &mut self.nodes[server];
        host.starts += 1;
        let named = format!("{}, start {}", host.name, host.starts);
        let seed = Keyed::new(schedule.seed, &named).bits();
        let process = if server == 0 {
            Process::Meta(Box::new(meta::Meta::new(meta::Config {
                seed,
                geometry: schedule.geometry,
                limits: schedule.limits,
                timing: schedule.timing,
                replication: schedule.replication,
                min_replicas: MIN_REPLICAS,
                cluster: None,
                checkpoint_every: schedule.checkpoint_every(),
                re_replicate_after: schedule.re_replicate_after(),
                copy_rate: COPY_RATE,
                mirror: schedule.log_mirror,
            })))
        } else {
            Process::Chunk(Box::new(chunk::Chunk::new(chunk::Config {
                seed,
                geometry: schedule.geometry,
                limits: schedule.limits,
                meta: addr_of(0),
                listen: addr_of(server),
                rack: format!("rack{}", server % 3),
                scrub_rate: schedule.scrub_rate,
            })))
        };
        self.begin(server, process);
    }

    fn begin(&mut self, node: NodeId, process: Process) {
        let host = &mut self.nodes[node];
        host.process = Some(process);
        host.powered = true;
        host.life += 1;
        host.wake_at = None;
        host.frozen = None;
        if let Some(telling) = &mut self.record.telling {
            telling.process(self.now, &host.name, Life::Begins);
        }
        self.record.now_ns = self.now;
        if let Some(disk) = &host.disk {
            self.record.server_starts(node, &disk.model);
        }
        self.deliver(node, Happens::Wake);
    }

    /// `kill -9`. Whether there was a process.
    pub fn kill(&mut self, node: NodeId) -> bool {
        self.end(node, Ended::Killed)
    }

    fn end(&mut self, node: NodeId, how: Ended) -> bool {
        self.armed.remove(&node);
        let host = &mut self.nodes[node];
        let was_up = host.process.take().is_some();
        host.life += 1;
        host.wake_at = None;
        host.frozen = None;
        if was_up {
            if let Some(telling) = &mut self.record.telling {
                telling.process(self.now, &host.name, Life::Ends);
            }
            if let Some(disk) = &mut host.disk {
                disk.kill();
            }
            self.net.process_ended(&mut self.heap, self.now, node, how);
            self.record.ready.remove(&node);
        }
        was_up
    }

    /// The power of a server fails; pending operations of its disk survive as the policy says.
    pub fn power_loss(&mut self, server: NodeId, policy: Policy) {
        self.darken(server);
        let disk = self.nodes[server].disk.as_mut();
        let crash = disk.expect("a server has a disk").power_loss(policy);
        self.crashes.add(crash);
    }

    /// The power of a server fails; what becomes of its disk is up to who calls.
    pub fn darken(&mut self, server: NodeId) {
        self.end(server, Ended::Dark);
        if server == 0 {
            self.kill_compactor();
            self.end_backup();
        }
        self.nodes[server].powered = false;
    }

    /// As [`Self::darken`]; nothing that was in flight to its disk is carried out any more.
    pub fn darken_at_once(&mut self, server: NodeId) {
        if let Some(disk) = &mut self.nodes[server].disk {
            disk.queue.kill_at_once();
        }
        if server == 0 {
            self.kill_compactor_at_once();
        }
        self.darken(server);
    }

    /// Starts a client's process: its actors go on with the jobs that were not begun.
    pub fn start_client(&mut self, client: usize) {
        let node = self.servers() + client;
        let clients = self.schedule.clients.len();
        let state = &mut self.clients[client];
        let auditor = client == clients;
        let nth = if auditor { 0 } else { state.processes };
        state.process = as_u32(if auditor {
            AUDITOR
        } else {
            nth as usize * clients + client
        });
        state.processes += 1;
        state.calls.clear();
        state.farewell = None;
        let config = client::Config {
            seed: Keyed::new(self.schedule.seed, &format!("client {}", state.process)).bits(),
            limits: self.schedule.limits,
            meta: addr_of(0),
            timeout: CALL_MAX,
        };
        for actor in &mut state.actors {
            actor.begin();
        }
        let (process, actors) = (state.process, state.actors.len());
        let machine = Box::new(client::Client::new(config));
        let observer = Box::new(ClientObserver::new(process));
        self.begin(node, Process::Client(machine, observer));
        let life = self.nodes[node].life;
        for nth in 0..actors {
            self.heap.push(self.now, What::Act(client, nth, life));
        }
    }

    /// `kill -9` of a client's process. Whether there was one.
    pub fn kill_client(&mut self, client: usize) -> bool {
        let node = self.servers() + client;
        if self.clients[client].done || !self.end(node, Ended::Killed) {
            return false;
        }
        let process = self.clients[client].process;
        self.record.session_ends(process);
        true
    }

    /// A client calls its machine.
    fn call(&mut self, client: usize, by: Option<usize>, call: client::Call) {
        let state = &mut self.clients[client];
        let id = CallId(state.next_call);
        state.next_call += 1;
        match by {
            Some(actor) => {
                state.calls.insert(id, actor);
            }
            None => state.farewell = Some(id),
        }
        let node = self.servers() + client;
        self.deliver(node, Happens::Call(id, call));
    }

    fn answered(&mut self, node: NodeId, id: CallId, event: client::Event) {
        let client = node - self.servers();
        if let Some(actor) = self.clients[client].calls.remove(&id) {
            self.act(client, actor, Some(event));
        } else if self.clients[client].farewell == Some(id) {
            self.clients[client].done = true;
            self.end(node, Ended::Killed);
        }
    }

    /// An actor goes on, with what came of its last call.
    fn act(&mut self, client: usize, nth: usize, event: Option<client::Event>) {
        let schedule = Arc::clone(&self.schedule);
        let actor = &mut self.clients[client].actors[nth];
        match actor.next(&schedule, &mut self.record, event) {
            Next::Call(call) => self.call(client, Some(nth), call),
            Next::Wait(ns) => {
                let life = self.nodes[self.servers() + client].life;
                self.heap.push(self.now + ns, What::Act(client, nth, life));
            }
            Next::Done => {
                let state = &self.clients[client];
                if state.farewell.is_none() && state.actors.iter().all(Actor::is_done) {
                    self.call(client, None, client::Call::Disconnect);
                }
            }
        }
    }

    /// Whether every client has done all its jobs.
    #[must_use]
    pub fn clients_done(&self) -> bool {
        let clients = self.schedule.clients.len();
        self.clients[..clients].iter().all(|client| client.done)
    }

    /// Whether every server has said since its last start that it is ready.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        (0..self.servers())
            .all(|server| self.record.ready.contains(&server) || self.is_excused(server))
    }

    /// Whether a server may stop by itself: one whose disk was hurt may have good reason to. A meta server that has
    /// what a backup had has none.
    #[must_use]
    pub fn is_excused(&self, server: NodeId) -> bool {
        self.hurt.contains(&server) && !(server == 0 && self.record.log_is_restored())
    }

    /// Gives the auditor, who reads everything, this to do, and starts it.
    pub fn audit(&mut self) {
        let auditor = self.schedule.clients.len();
        self.record.located.clear();
        let hurt = self.hurt.iter().filter(|server| **server > 0).count();
        let up = self.servers() - 1 - hurt;
        self.clients[auditor].actors = vec![Actor::auditor(&self.schedule, up)];
        self.clients[auditor].done = false;
        self.start_client(auditor);
    }

    /// What the auditor has come to.
    #[must_use]
    pub fn audited(&self) -> Option<Result<(), String>> {
        let auditor = self.clients.last().expect("there is an auditor");
        auditor.done.then(|| auditor.actors[0].verdict())
    }

    /// Ends the auditor's process, whatever it is at.
    pub fn end_audit(&mut self) {
        let auditor = self.servers() + self.schedule.clients.len();
        self.end(auditor, Ended::Killed);
    }
}

/// The number of the client process that reads everything back.
const AUDITOR: usize = 1_000_000;

fn name_of(schedule: &Schedule, node: NodeId) -> String {
    let clients = schedule.clients.len();
    match node.checked_sub(schedule.servers) {
        None if node == 0 => "meta".into(),
        None => format!("chunk{node}"),
        Some(client) if client < clients => format!("client{client}"),
        Some(_) => "auditor".into(),
    }
}

/// In whole nanoseconds.
#[must_use]
pub fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).expect("a run has few of anything")
}
