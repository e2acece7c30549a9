//! The meta server: the one namespace, its log, where chunks are.
//!
//! A request is *decided* ([`namespace`], [`allocate`], [`roster`]: state, time and randomness are read; a
//! [`record::Record`] or a refusal comes out) and the record is *applied* ([`apply`]), live and on replay
//! alike, by one function. Every answer, order and verdict leaves when the log is durable up to the state it
//! was made from; only answers to heartbeats, and "not ready yet", rest on nothing.
//!
//! Read [`state`] first, then [`record`] and [`apply`], then [`commit`] and [`recovery`] for the log.
mod admin;
mod allocate;
mod apply;
pub mod checkpoint;
mod checkpointing;
mod chunkmap;
mod commit;
pub mod compactor;
pub mod copying;
pub mod fill;
mod holds;
pub mod key;
pub mod mirror;
mod namespace;
pub mod oplog;
mod packed;
mod page;
mod placement;
pub mod rechain;
mod reclaim;
pub mod record;
mod recovery;
mod rollback;
mod roster;
pub mod sealing;
mod session;
pub mod snapshot;
pub mod state;
mod tree;
mod truncation;
mod usage;

use self::allocate::Allocations;
use self::apply::Freed;
use self::checkpointing::{Checkpoints, Made, Maker};
use self::chunkmap::ChunkMap;
use self::commit::{Commit, Room};
use self::copying::Copying;
use self::holds::Holds;
use self::mirror::Copies;
use self::rechain::Rechains;
use self::reclaim::Reclaim;
use self::record::{By, Logged, Record, SizeSet};
use self::recovery::{Purpose, Recovered, Recovery};
use self::roster::Roster;
use self::sealing::Sealing;
use self::session::Sessions;
use self::state::State;
use self::usage::Usages;
use crate::buggify::{self, Site};
use crate::identity::Identity;
use crate::ids::{
    CallId, ChunkId, ClusterId, Epoch, FileId, Incarnation, LinkId, LogSeq, RequestNumber,
    ServerIndex, SessionId, Ticket, Version,
};
use crate::limits::{Geometry, HEADER_BYTES, Limits, Timing};
use crate::machine::{DiskResult, Fault, Input, Machine, Output};
use crate::outbox::Outbox;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::rng::Rng;
use crate::time::{Instant, Now};
use crate::wire::chunk_meta::HelloRefused;
use crate::wire::client_meta::{
    Answer, Answered, CheckpointMade, ClusterStatus, Done, LogMirror, Mutated, Query, QueryOp,
    Renewed, SessionOpened, WriterStays,
};
use crate::wire::{Head, Msg, Peer, Refusal, Status};
use core::time::Duration;
use std::collections::BTreeMap;

/// How a meta server is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// For ids and placement.
    pub seed: u64,
    /// The sizes files are cut into.
    pub geometry: Geometry,
    /// Bounds of queues.
    pub limits: Limits,
    /// Told to chunkservers and clients.
    pub timing: Timing,
    /// Replicas a file gets unless it says otherwise.
    pub replication: u8,
    /// Fewest live servers a new chunk is begun with; at most what the file asks for.
    pub min_replicas: u8,
    /// The cluster this data directory must belong to: an empty one is then refused, not formatted.
    pub cluster: Option<ClusterId>,
    /// How often a checkpoint is made by itself; `None`: never.
    pub checkpoint_every: Option<Duration>,
    /// A server that is silent may merely be restarting for so long, before what it has is copied; a tenth of it,
    /// if there is only one replica left.
    pub re_replicate_after: Duration,
    /// Bytes a second that are copied in the whole cluster, at most.
    pub copy_rate: u64,
    /// Whether a second copy of the log is kept, below [`mirror::DIR`].
    pub mirror: bool,
}

/// What the process around it asks for.
#[derive(Clone, Debug)]
pub enum Call {
    /// The state of the cluster.
    Status,
    /// Finish: sync what is in the log, then [`Event::Stopped`].
    Stop,
}

/// What it tells the process around it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Its state is loaded and its epoch is in the log: it serves.
    Ready {
        /// The cluster it serves.
        cluster: ClusterId,
        /// Of this start.
        epoch: Epoch,
        /// Where the log ends.
        seq: LogSeq,
    },
    /// Answers [`Call::Status`]; `None` while it is still starting.
    Status(Option<Box<ClusterStatus>>),
    /// Answers [`Call::Stop`].
    Stopped,
    /// Of a [`compactor`]: what came of it.
    Compacted(Result<compactor::Compacted, String>),
}

/// What a meta server holds in memory besides its state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bounds {
    /// Links that are up.
    pub links: usize,
    /// Outputs that wait for the log.
    pub waiting: usize,
    /// Sessions alive.
    pub sessions: usize,
    /// The most results of what changed something that are remembered for one session.
    pub results_most: usize,
    /// The most answers that changed nothing that are remembered for one session.
    pub answers_most: usize,
    /// Chunks being made.
    pub allocations: usize,
    /// Chunks that are given another chain.
    pub rechains: usize,
    /// Copies that are being made, and chunks that wait for one.
    pub replication: usize,
    /// Chunks at rest that are asked about, or wait for it.
    pub sealing: usize,
    /// Holds on open files.
    pub holds: usize,
    /// The most of them that one link has.
    pub holds_most: usize,
    /// Scans of what trees take, and what is left of those that have ended.
    pub usages: usize,
}

/// The meta server.
#[derive(Clone, Debug)]
pub struct Meta {
    io: Io,
    phase: Phase,
}

/// What goes in and out, in every phase.
#[derive(Clone, Debug)]
struct Io {
    config: Config,
    rng: Rng,
    outbox: Outbox<Event>,
    now: Now,
    links: BTreeMap<LinkId, Link>,
}

impl Io {
    fn new(config: Config) -> Self {
        Self {
            rng: Rng::new(config.seed),
            config,
            outbox: Outbox::default(),
            now: Now::default(),
            links: BTreeMap::new(),
        }
    }
}

/// A link that is up.
#[derive(Clone, Debug)]
struct Link {
    peer: Peer,
    role: LinkRole,
}

/// What a link is used for, as far as it has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinkRole {
    Unsaid,
    Session(SessionId),
    Server(ServerIndex),
}

#[derive(Clone, Debug)]
enum Phase {
    /// Until the first input.
    Asleep,
    Starting(Box<Recovery>),
    Serving(Box<Serving>),
    /// Asked to stop: what is in the log is still made durable.
    Stopping(Box<Serving>),
    Ended,
}

/// A meta server that has loaded its state.
#[derive(Clone, Debug)]
struct Serving {
    identity: Identity,
    state: State,
    log: Commit,
    /// What the start did to the copies of the log.
    mirror: Option<LogMirror>,
    checkpoints: Checkpoints,
    /// Who waits for the checkpoint that is being made.
    checkpoint_askers: Vec<(LinkId, u64)>,
    copies: ChunkMap,
    roster: Roster,
    sessions: Sessions,
    allocations: Allocations,
    rechains: Rechains,
    holds: Holds,
    reclaim: Reclaim,
    copying: Copying,
    sealing: Sealing,
    usages: Usages,
    /// Orders to delete that this input gave rise to.
    deletes: BTreeMap<ServerIndex, Vec<(ChunkId, Version)>>,
    started: Instant,
    /// Who waits for the end.
    stops: Vec<CallId>,
}

/// Chunks in one order to delete.
const DELETE_BATCH: usize = 1_024;
/// Requests for a checkpoint that wait for one.
const CHECKPOINT_ASKERS_MAX: usize = 64;
/// Batches of one page that requests of clients leave free for what the server itself must log.
const LOG_RESERVE: usize = 4;

impl Meta {
    /// A meta server that has not started; its first input is [`Input::Wake`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        config.geometry.check();
        assert!(
            config.replication > 0 && config.min_replicas > 0,
            "a chunk has at least one replica"
        );
        Self {
            io: Io::new(config),
            phase: Phase::Asleep,
        }
    }
    /// The state as applied, which may be ahead of what is durable; `None` while it is being loaded.
    #[must_use]
    pub const fn state(&self) -> Option<&State> {
        match &self.phase {
            Phase::Serving(serving) | Phase::Stopping(serving) => Some(&serving.state),
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => None,
        }
    }
    /// The newest record that is durable; `None` while the log is being read.
    #[must_use]
    pub const fn durable(&self) -> Option<LogSeq> {
        match &self.phase {
            Phase::Serving(serving) | Phase::Stopping(serving) => Some(serving.log.durable()),
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => None,
        }
    }
    /// The state of the cluster as it would be told now, without waiting for the log.
    #[must_use]
    pub fn status(&self) -> Option<ClusterStatus> {
        match &self.phase {
            Phase::Serving(serving) | Phase::Stopping(serving) => {
                Some(serving.status(&self.io.config, self.io.now))
            }
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => None,
        }
    }
    /// How many chunks have more or fewer copies than they should, or a damaged one, or are to move.
    #[must_use]
    pub fn copies_uneven(&self) -> u64 {
        match &self.phase {
            Phase::Serving(serving) | Phase::Stopping(serving) => {
                serving.copies.uneven()
                    + u64::from(serving.roster.has_damage())
                    + serving.drains_left()
            }
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => 0,
        }
    }
    /// What it holds in memory.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let io = Bounds {
            links: self.io.links.len(),
            waiting: self.io.outbox.waiting(),
            ..Bounds::default()
        };
        match &self.phase {
            Phase::Serving(serving) | Phase::Stopping(serving) => {
                let (sessions, answers_most) = serving.sessions.kept();
                let (holds, holds_most) = serving.holds.kept();
                let results = serving.state.sessions().map(|(_, _, results)| results);
                Bounds {
                    sessions,
                    results_most: results.max().unwrap_or(0),
                    answers_most,
                    allocations: serving.allocations.len(),
                    rechains: serving.rechains.len(),
                    replication: serving.copying.len(),
                    sealing: serving.sealing.len(),
                    holds,
                    holds_most,
                    usages: serving.usages.len(),
                    ..io
                }
            }
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => io,
        }
    }

    fn call(&mut self, id: CallId, call: &Call) {
        let Io {
            config,
            outbox,
            now,
            ..
        } = &mut self.io;
        match (call, &mut self.phase) {
            (Call::Status, Phase::Serving(serving) | Phase::Stopping(serving)) => {
                let status = serving.status(config, *now);
                outbox.push_after(
                    serving.state.seq,
                    event(id, Event::Status(Some(Box::new(status)))),
                );
            }
            (Call::Status, Phase::Asleep | Phase::Starting(_) | Phase::Ended) => {
                outbox.event(id, Event::Status(None))
            }
            (Call::Stop, Phase::Serving(serving) | Phase::Stopping(serving)) => {
                serving.stops.push(id);
            }
            (Call::Stop, Phase::Asleep | Phase::Starting(_) | Phase::Ended) => {
                outbox.event(id, Event::Stopped);
                self.phase = Phase::Ended;
            }
        }
        if matches!(call, Call::Stop) {
            self.phase = match core::mem::replace(&mut self.phase, Phase::Ended) {
                Phase::Serving(serving) => Phase::Stopping(serving),
                other
                @ (Phase::Asleep | Phase::Starting(_) | Phase::Stopping(_) | Phase::Ended) => other,
            };
        }
    }

    fn disk(&mut self, ticket: Ticket, result: DiskResult) {
        match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Starting(recovery) => {
                self.phase = match recovery.completed(&mut self.io, ticket, result) {
                    Ok(Recovered::Going(recovery)) => Phase::Starting(recovery),
                    Ok(Recovered::Read(_)) => unreachable!("a start reads all of it"),
                    Ok(Recovered::Done(loaded)) => {
                        Phase::Serving(Box::new(Serving::begin(&mut self.io, *loaded)))
                    }
                    Err(fault) => {
                        self.io.outbox.halt(fault);
                        Phase::Ended
                    }
                }
            }
            Phase::Serving(mut serving) => {
                self.phase = match serving.disk(&mut self.io, ticket, result) {
                    Ok(()) => Phase::Serving(serving),
                    Err(fault) => {
                        self.io.outbox.halt(fault);
                        Phase::Ended
                    }
                }
            }
            Phase::Stopping(mut serving) => {
                self.phase = match serving.disk(&mut self.io, ticket, result) {
                    Ok(()) => Phase::Stopping(serving),
                    Err(fault) => {
                        self.io.outbox.halt(fault);
                        Phase::Ended
                    }
                }
            }
            ended @ (Phase::Asleep | Phase::Ended) => self.phase = ended,
        }
    }
}

impl Machine for Meta {
    type Call = Call;
    type Event = Event;
    fn handle(&mut self, now: Now, input: Input<Call>) {
        assert!(
            self.io.outbox.is_drained(),
            "the outbox is drained between inputs"
        );
        self.io.now = now;
        // First, whatever comes: after a pause of this process it need not be the wake-up, and nobody is to be told
        // that a server is up which has been silent for longer than a lease.
        if let Phase::Serving(serving) = &mut self.phase {
            serving.silence_servers(&mut self.io);
        }
        // Others may have come with it: their records go to the log together.
        let alone = !matches!(input, Input::Received { .. }) || buggify::is(Site::BatchAlone);
        match input {
            Input::Wake => {
                if matches!(self.phase, Phase::Asleep) {
                    self.phase =
                        Phase::Starting(Box::new(Recovery::begin(&mut self.io, Purpose::Serve)));
                }
            }
            Input::Opened { link, peer } => {
                self.io.links.insert(
                    link,
                    Link {
                        peer,
                        role: LinkRole::Unsaid,
                    },
                );
            }
            Input::Received { link, msg } => match &mut self.phase {
                Phase::Serving(serving) => serving.received(&mut self.io, link, msg),
                Phase::Asleep | Phase::Starting(_) => not_ready(&mut self.io, link, &msg),
                Phase::Stopping(_) | Phase::Ended => {}
            },
            // Nothing waits for that.
            Input::Sent { .. } => return,
            Input::Closed { link, .. } => {
                let closed = if planted::is(Bug::DeadLinkKept) {
                    self.io.links.get(&link).cloned()
                } else {
                    self.io.links.remove(&link)
                };
                if let (Phase::Serving(serving), Some(closed)) = (&mut self.phase, closed) {
                    serving.closed(&mut self.io, link, closed.role);
                }
            }
            Input::Disk { ticket, result } => self.disk(ticket, result),
            Input::Call { id, call } => self.call(id, &call),
        }
        match &mut self.phase {
            Phase::Serving(serving) => {
                serving.tick(&mut self.io);
                serving.send_deletes(&mut self.io);
                if alone {
                    serving.advance_log(&mut self.io);
                }
            }
            Phase::Stopping(serving) => serving.stop_on(&mut self.io),
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => {}
        }
    }
    fn poll(&mut self) -> Option<Output<Event>> {
        self.io.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        match &self.phase {
            Phase::Serving(serving) => serving.deadline(self.io.config.timing.session_idle),
            Phase::Stopping(serving) => serving.log.deadline(),
            Phase::Asleep | Phase::Starting(_) | Phase::Ended => None,
        }
    }
}

/// What a start has loaded.
#[derive(Clone, Debug)]
struct Loaded {
    identity: Identity,
    state: State,
    log: Commit,
    checkpoints: Vec<LogSeq>,
    epoch: Epoch,
    mirror: Option<LogMirror>,
}

impl Serving {
    fn begin(io: &mut Io, loaded: Loaded) -> Self {
        let Loaded {
            identity,
            state,
            log,
            checkpoints,
            epoch,
            mirror,
        } = loaded;
        io.outbox.set_durable(log.durable());
        assert_eq!(log.durable(), state.seq, "what was read is durable");
        let mut serving = Self {
            copies: ChunkMap::of(&state),
            roster: Roster::default(),
            sessions: Sessions::of(&state, io.now.mono, io.config.timing.session_idle),
            allocations: Allocations::default(),
            rechains: Rechains::default(),
            holds: Holds::default(),
            copying: Copying::default(),
            sealing: Sealing::of(io.now.mono, io.config.timing.serve_lease),
            usages: Usages::new(io.now.mono),
            reclaim: Reclaim::of(&state, io.now.mono, io.config.timing.session_idle),
            deletes: BTreeMap::new(),
            started: io.now.mono,
            stops: Vec::new(),
            checkpoints: Checkpoints::new(
                (identity.cluster, Maker::Server),
                io.config.checkpoint_every,
                Copies::with(io.config.mirror),
                checkpoints,
                io.now.mono,
            ),
            checkpoint_askers: Vec::new(),
            identity,
            state,
            log,
            mirror,
        };
        serving.begin_epoch(io, epoch);
        let (cluster, seq) = (serving.identity.cluster, serving.state.seq);
        io.outbox.push_after(
            seq,
            event(
                CallId::NONE,
                Event::Ready {
                    cluster,
                    epoch,
                    seq,
                },
            ),
        );
        serving
    }

    fn begin_epoch(&mut self, io: &mut Io, epoch: Epoch) {
        // Drawn anew if this log has it already: a driver may give the same seed to two starts.
        let incarnation = loop {
            let drawn = Incarnation(io.rng.u64().max(1));
            if !self.state.incarnations.contains_key(&drawn) {
                break drawn;
            }
        };
        let (cluster, geometry) = (self.identity.cluster, io.config.geometry);
        self.commit(
            io,
            By::NOBODY,
            record::EpochBegun {
                epoch,
                incarnation,
                cluster,
                geometry,
            },
        );
    }

    /// Applies a record that was decided and appends it to the log.
    fn commit(&mut self, io: &mut Io, by: By, record: impl Into<Record>) -> (LogSeq, Done) {
        let mut logged = Logged {
            seq: self.state.seq.next(),
            by,
            record: record.into(),
        };
        // A chunk that was adopted before is counted already.
        let known = matches!(&logged.record, Record::OrphanAdopted(orphan)
            if self.state.owners.get(&orphan.chunk).is_some());
        let applied = match apply::apply(&mut self.state, &logged) {
            Ok(applied) => applied,
            Err(misfit) => panic!("a record fits the state it was decided on: {}", misfit.0),
        };
        if planted::is(Bug::ForgottenUnlogged) {
            logged.by.lowest = RequestNumber(0);
        }
        self.log.append(io.now.mono, &logged);
        if let Record::ChunkOpened(opened) = &logged.record {
            self.copies
                .opened(opened.chunk, self.state.replication(opened.file));
        }
        if let Record::OrphanAdopted(orphan) = &logged.record
            && !known
        {
            let wanted = self.state.replication(orphan.file);
            self.copies.opened(orphan.chunk, wanted);
            self.copies.synced(orphan.chunk, Some(orphan.synced));
        }
        if let Record::SizeSet(report) = &logged.record {
            self.synced(report);
            if report.writer == WriterStays::Closed {
                self.settle(report);
                let lease = io.config.timing.serve_lease;
                self.sealing.rests(report.file, io.now.mono, lease);
            }
        }
        self.note_drained(&logged.record);
        if let Record::ReplicationSet(set) = &logged.record {
            self.copies.rewanted(&self.state, set.file);
        }
        if let Record::SessionEnded(_)
        | Record::MembersChanged(_)
        | Record::OrphanAdopted(_)
        | Record::ReplicationSet(_)
        | Record::RollbackAccepted(_) = &logged.record
        {
            let lease = io.config.timing.serve_lease;
            self.sealing.look_later(io.now.mono, lease);
        }
        self.reclaim.count(applied.gone.dropped);
        self.reclaim.look_at(&self.state, applied.gone.nameless);
        if matches!(logged.record, Record::RollbackAccepted(_)) {
            // Nobody writes a file any more.
            let nameless: Vec<FileId> = self.state.unlinked().collect();
            self.reclaim.look_at(&self.state, nameless);
        }
        for freed in applied.gone.freed {
            self.freed(io, &freed);
        }
        (logged.seq, applied.done)
    }

    /// What was synced of a file's chunks may be read from now on: from now on it is missed where it is not.
    fn synced(&mut self, report: &SizeSet) {
        for (index, _) in &report.synced {
            if let Some(chunk) = self.state.chunks.get(&(report.file, *index)) {
                self.copies.synced(chunk.chunk, chunk.synced);
                let log = self.state.logged(report.file, *index, &chunk);
                for member in chunk.members.iter() {
                    self.roster
                        .outgrown(*member, chunk.chunk, log, &mut self.copies);
                }
            }
        }
    }

    /// A file was closed: its chunks take what was written to them, not the whole that was promised. So a
    /// burst of small files does not use up the room of its servers before they next count it.
    fn settle(&mut self, report: &SizeSet) {
        for (index, synced) in &report.synced {
            let Some(chunk) = self.state.chunks.get(&(report.file, *index)) else {
                continue;
            };
            for member in chunk.members.iter() {
                let bytes = HEADER_BYTES + synced.len;
                self.roster.settle(*member, chunk.chunk, bytes);
            }
        }
    }

    /// A chunk has left the table: its members are told to delete it; who is not there learns at its next hello.
    fn freed(&mut self, io: &mut Io, freed: &Freed) {
        let Freed {
            at,
            chunk,
            version,
            members,
        } = freed;
        for member in members.iter() {
            if self.roster.forget(*member, *chunk, &mut self.copies) {
                self.deletes
                    .entry(*member)
                    .or_default()
                    .push((*chunk, *version));
            }
        }
        self.strays_freed(*chunk);
        self.copies.freed(*chunk);
        self.cancel(io, *at, *chunk);
    }

    fn received(&mut self, io: &mut Io, link: LinkId, msg: Msg) {
        let Some(from) = io.links.get(&link) else {
            return;
        };
        if let LinkRole::Session(session) = from.role {
            self.sessions.heard(session, link, io.now.mono);
        }
        self.holds.heard(link, io.now.mono);
        let request = msg.request;
        match msg.head {
            Head::OpenSession(m) => self.open_session(io, link, request, &m),
            Head::Mutate(m) => self.mutate(io, link, request, m),
            Head::Renew(m) => self.renew(io, link, request, &m),
            Head::Query(Query {
                op: QueryOp::Checkpoint,
            }) => self.checkpoint(io, link, request),
            Head::Query(Query {
                op: QueryOp::Usage { at, depth },
            }) => self.usage(io, link, request, &at, depth),
            Head::Query(Query {
                op: QueryOp::UsageNext { scan },
            }) => self.usage_next(io, link, request, scan),
            Head::Query(m) => {
                let answered = Answered {
                    seq: self.state.seq,
                    outcome: self.query(io, link, &m.op),
                };
                if self.state.seq > io.outbox.durable() {
                    probe::hit(Probe::QuestionWaits);
                }
                if planted::is(Bug::QueryUngated) {
                    return io.outbox.send(link, Msg::new(request, answered));
                }
                self.reply(io, link, request, answered);
            }
            Head::Hello(m) => self.hello(io, link, request, &m),
            Head::EpochBehind(m) => self.epoch_behind(io, link, m.seen),
            Head::Inventory(m) => self.inventory(io, link, request, &m),
            Head::Heartbeat(m) => self.heartbeat(io, link, request, &m),
            Head::ChunkCreated(m) => self.chunk_created(io, link, &m),
            Head::ChunkSealed(m) => self.chunk_sealed(io, link, &m),
            Head::ChunkResumed(m) => self.chunk_resumed(io, link, &m),
            Head::ChunkCopied(m) => self.chunk_copied(io, link, &m),
            Head::ReportDamage(m) => self.damage_reported(io, link, &m),
            // Nothing is kept of an order to delete: what was not done is found at the next hello.
            Head::ChunksDeleted(_) => {}
            Head::Negotiate(_)
            | Head::SessionOpened(_)
            | Head::Mutated(_)
            | Head::Answered(_)
            | Head::Renewed(_)
            | Head::Welcome(_)
            | Head::HelloRefused(_)
            | Head::Verdicts(_)
            | Head::HeartbeatAnswer(_)
            | Head::CreateChunk(_)
            | Head::SealChunk(_)
            | Head::ResumeChunk(_)
            | Head::CopyChunk(_)
            | Head::DeleteChunks(_)
            | Head::SayHello(_)
            | Head::WritePiece(_)
            | Head::PieceDone(_)
            | Head::ChainPiece(_)
            | Head::ChainDone(_)
            | Head::SyncChunk(_)
            | Head::SyncDone(_)
            | Head::ChainSync(_)
            | Head::ChainSynced(_)
            | Head::ReadRange(_)
            | Head::RangeRead(_) => {
                tracing::warn!(%link, "a message that is not for a meta server was dropped")
            }
        }
    }

    fn closed(&mut self, io: &mut Io, link: LinkId, role: LinkRole) {
        self.usages.closed(link);
        match role {
            LinkRole::Unsaid => {}
            LinkRole::Session(session) => self.sessions.unbind(session, link),
            LinkRole::Server(server) => {
                if self.roster.link(server) == Some(link) {
                    self.server_down(io, server, "its link to the meta server closed");
                }
            }
        }
    }

    fn disk(&mut self, io: &mut Io, ticket: Ticket, result: DiskResult) -> Result<(), Fault> {
        if self.checkpoints.owns(ticket) {
            let made = self.checkpoints.completed(
                io.now.mono,
                result,
                (self.log.durable(), self.log.segments()),
                &mut io.outbox,
            );
            if let Some(made) = made {
                self.checkpointed(io, &made);
            }
            return Ok(());
        }
        if !self.log.owns(ticket) {
            return Ok(());
        }
        self.log
            .completed(io.now.mono, ticket, result, &mut io.outbox)?;
        assert!(
            self.log.durable() <= self.state.seq,
            "nothing is durable that was not applied"
        );
        io.outbox.set_durable(self.log.durable());
        self.checkpoints.durable(self.log.durable(), &mut io.outbox);
        Ok(())
    }

    /// Somebody asks for a checkpoint; whoever asks while one is being made waits for it too.
    fn checkpoint(&mut self, io: &mut Io, link: LinkId, request: u64) {
        if self.checkpoint_askers.len() >= CHECKPOINT_ASKERS_MAX {
            let refusal = Refusal::new(Status::Busy, "too many ask for a checkpoint");
            return self.tell(io, link, request, Err(refusal));
        }
        let begun = self.checkpoints.begin(
            io.now.mono,
            &self.state,
            self.log.segments(),
            &mut io.outbox,
        );
        if begun || self.checkpoints.is_making() {
            return self.checkpoint_askers.push((link, request));
        }
        let newest = self.checkpoints.newest();
        let seq = newest.expect("nothing is begun only if there is one that has everything");
        let there = CheckpointMade { seq, hash: None };
        self.tell(io, link, request, Ok(Answer::Checkpoint(there)));
    }

    /// A checkpoint was made, or not: whoever waits is told.
    fn checkpointed(&mut self, io: &mut Io, made: &Made) {
        for (link, request) in core::mem::take(&mut self.checkpoint_askers) {
            let outcome = match made {
                Ok(summary) => Ok(Answer::Checkpoint(CheckpointMade {
                    seq: summary.header.seq,
                    hash: Some(summary.hash),
                })),
                Err(why) => Err(Refusal::new(Status::LocalIo, why.clone())),
            };
            self.tell(io, link, request, outcome);
        }
    }

    fn tell(&self, io: &mut Io, link: LinkId, request: u64, outcome: Result<Answer, Refusal>) {
        let seq = self.state.seq;
        self.reply(io, link, request, Answered { seq, outcome });
    }

    /// What is due by the clock.
    fn tick(&mut self, io: &mut Io) {
        self.expire_sessions(io);
        self.expire_holds(io);
        self.overdue_allocations(io);
        self.rechains_on_time(io);
        self.adopt_orphans(io);
        self.reclaim(io);
        self.replicate(io);
        self.seal_at_rest(io);
        self.scan_usage(io);
        self.checkpoints.tick(
            io.now.mono,
            &self.state,
            self.log.segments(),
            &mut io.outbox,
        );
    }

    fn send_deletes(&mut self, io: &mut Io) {
        for (server, chunks) in core::mem::take(&mut self.deletes) {
            let Some((link, term)) = self.roster.orders_to(server) else {
                continue;
            };
            for chunks in chunks.chunks(DELETE_BATCH) {
                let order = crate::wire::chunk_meta::DeleteChunks {
                    term,
                    chunks: chunks.to_vec(),
                };
                if planted::is(Bug::DeleteBeforeDurable) {
                    io.outbox.send(link, Msg::new(0, order));
                    continue;
                }
                self.reply(io, link, 0, order);
            }
        }
    }

    /// Brings the log to its end, with a mark: who is stopped in order leaves nothing that could pass for torn.
    fn stop_on(&mut self, io: &mut Io) {
        self.log.ends(io.now.mono);
        self.advance_log(io);
        if self.log.is_settled() {
            for id in core::mem::take(&mut self.stops) {
                io.outbox
                    .push_after(self.state.seq, event(id, Event::Stopped));
            }
        }
    }

    fn advance_log(&mut self, io: &mut Io) {
        self.log
            .advance(io.now.mono, self.state.epoch, &mut io.rng, &mut io.outbox);
    }

    fn deadline(&self, idle: Duration) -> Option<(Instant, &'static str)> {
        let of = |at: Option<Instant>, what| at.map(|at| (at, what));
        [
            self.log.deadline(),
            of(self.checkpoints.due(), "make a checkpoint"),
            of(self.sessions.due(), "see whether a session is silent"),
            of(self.holds.due(), "see whether a link is silent"),
            of(self.reclaim.due(&self.state), "reclaim what was removed"),
            of(self.replication_due(), "make copies"),
            of(self.sealing_due(), "ask about chunks at rest"),
            of(self.usages.due(idle), "go on with what trees take"),
            of(self.roster.due(), "see whether a server is silent"),
            of(self.rechains.due(), "give a chunk another chain"),
            of(
                self.allocations.due(),
                "give up on a chunk that is not made",
            ),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sends what rests on the state as it is now: it leaves when that is durable.
    fn reply(&self, io: &mut Io, link: LinkId, request: u64, head: impl Into<Head>) {
        io.outbox
            .send_after(self.state.seq, link, Msg::new(request, head));
    }

    /// Why changes are refused, if they are. A log whose next segment cannot be made goes on in the one it has.
    fn read_only(&self) -> Option<String> {
        if let Some(why) = self.tail_lost() {
            return Some(why);
        }
        let refused = self.has_room(1_024, LOG_RESERVE).err()?;
        (refused.status == Status::ReadOnly).then_some(refused.detail)
    }

    /// That the log has room for a record, and for what must follow it.
    fn has_room(&self, record_bytes: usize, reserve: usize) -> Result<(), Refusal> {
        match self.log.room(record_bytes, reserve) {
            Room::Enough if !buggify::is(Site::LogRoomSoon) => Ok(()),
            Room::Enough | Room::Soon => {
                probe::hit(Probe::LogRoomSoon);
                Err(Refusal::new(
                    Status::Busy,
                    "the next segment of the log is being prepared",
                ))
            }
            Room::Full => {
                probe::hit(Probe::LogRoomFull);
                Err(Refusal::new(
                    Status::ReadOnly,
                    "the disk of the meta server's log is full: nothing can be changed until there is room",
                ))
            }
        }
    }
}

fn event(id: CallId, event: Event) -> Output<Event> {
    Output::Event { id, event }
}

/// Answers a request that came before the state is loaded: nothing of it is known.
fn not_ready(io: &mut Io, link: LinkId, msg: &Msg) {
    let refusal = Refusal::new(Status::Busy, "the meta server is starting");
    let seq = LogSeq(0);
    let head: Head = match &msg.head {
        Head::OpenSession(_) => SessionOpened {
            seq,
            outcome: Err(refusal),
        }
        .into(),
        Head::Mutate(_) => Mutated {
            seq,
            outcome: Err(refusal),
        }
        .into(),
        Head::Query(_) => Answered {
            seq,
            outcome: Err(refusal),
        }
        .into(),
        Head::Renew(_) => Renewed {
            outcome: Err(refusal),
        }
        .into(),
        Head::Hello(_) => HelloRefused { refusal }.into(),
        _ => return,
    };
    io.outbox.send(link, Msg::new(msg.request, head));
}
