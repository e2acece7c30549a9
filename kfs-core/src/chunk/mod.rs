//! The chunkserver: chunks as files, written along chains, read with their sums.
//!
//! Read in this order: [`header`] and [`name`] (what is on the disk), `table` (blocks, and
//! what may go to its place), `over` and `redo` (the rest of what is written), `write`, `chain` and `sync` (a piece's way in), `read` (its way out), `recovery` and
//! `meta_on_chunk` (how a server starts and joins), `inventory` and `trash` (what it has, and what it is
//! rid of), `seal` and [`copy`] (replicas at rest, made equal and made anew), `scrub` (how rot is found that nobody reads). It never decides what a chunk is for: the meta server's word is carried out or refused.
mod chain;
pub mod copy;
mod cut;
pub mod header;
mod inventory;
mod link;
mod meta_on_chunk;
pub mod name;
pub mod over;
mod parked;
mod read;
mod recovery;
mod redo;
mod resume;
mod scrub;
pub mod seal;
mod space;
mod sync;
mod table;
mod trash;
mod witness;
mod write;

use self::copy::{Copies, Stage};
use self::inventory::{Inventory, Standing};
use self::link::{HoldId, Links, RoomBounds};
use self::meta_on_chunk::{Damage, Station};
use self::name::{ChunkName, ReplicaId};
use self::parked::Parked;
use self::read::{ReadId, Reads};
use self::recovery::Start;
use self::scrub::Scrub;
use self::seal::{Seal, SealStep};
use self::space::Space;
use self::sync::DirSync;
use self::trash::Trash;
use self::witness::Note;
pub use self::write::MAKES_MAX;
use self::write::Writing;
use crate::identity::Identity;
use crate::ids::{CallId, ClusterId, Instance, LinkId, NodeId, Ticket, WriteSeq};
use crate::limits::{Geometry, Limits, Timing};
use crate::machine::{
    CloseReason, DiskDone, DiskError, DiskOp, DiskResult, Fault, FaultKind, Input, Machine, Output,
};
use crate::outbox::Outbox;
use crate::rng::Rng;
use crate::time::{Instant, Now};
use crate::wire::{Head, Msg, Peer};
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// How a chunkserver is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// For its node id and for jitter.
    pub seed: u64,
    /// The sizes it stores chunks in; the meta server's must be the same.
    pub geometry: Geometry,
    /// Bounds of queues.
    pub limits: Limits,
    /// Where the meta server listens.
    pub meta: SocketAddr,
    /// Where clients reach this server; an unspecified IP means: the one the meta server sees.
    pub listen: SocketAddr,
    /// The rack it is in; empty: none.
    pub rack: String,
    /// Bytes a second that it reads by itself, to find what has rotted; 0: it does not.
    pub scrub_rate: u64,
}

/// What the process around it asks for.
#[derive(Clone, Debug)]
pub enum Call {
    /// Its state.
    Status,
    /// Finish: sync what is being written, then [`Event::Stopped`].
    Stop,
}

/// What it tells the process around it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Its inventory was accepted: it serves. Said once per process.
    Ready {
        /// Its id.
        node: NodeId,
        /// The cluster it serves.
        cluster: ClusterId,
    },
    /// It waits for the meta server, for the operator to know. Said once per reason.
    Waiting {
        /// Why.
        why: String,
    },
    /// Answers [`Call::Status`].
    Status(Box<ChunkStatus>),
    /// Answers [`Call::Stop`].
    Stopped,
}

/// The state of a chunkserver, for its pages. Counters count from the start of the process.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub struct ChunkStatus {
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Whether its inventory is accepted and the meta server answers.
    pub serving: bool,
    /// Replicas it serves.
    pub chunks: u64,
    /// Replicas being written.
    pub chunks_writing: u64,
    /// Replicas that serve nothing: damaged, unknown, or with an unreadable header.
    pub chunks_damaged: u64,
    /// Replicas in `trash/`.
    pub chunks_trash: u64,
    /// Files in the directories of chunks whose names are none of ours: left where they are.
    pub files_foreign: u64,
    /// Bytes that may still be written.
    pub bytes_free: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Pieces written.
    pub pieces_written: u64,
    /// Bytes of those pieces.
    pub bytes_written: u64,
    /// Syncs made.
    pub syncs: u64,
    /// Reads answered with bytes.
    pub reads: u64,
    /// Bytes of those reads.
    pub bytes_read: u64,
    /// Replicas made here as copies of others.
    pub chunks_copied: u64,
    /// Bytes written for those, and for copies that were given up.
    pub bytes_copied: u64,
    /// Blocks that did not match their sums when read.
    pub blocks_bad: u64,
    /// Pieces that did not match their sums when received.
    pub pieces_bad: u64,
    /// Ranges of copies that did not match their sums when received.
    pub ranges_bad: u64,
    /// Bytes of pieces in memory now.
    pub piece_buffer_bytes: u64,
    /// What it has read by itself, to find what has rotted.
    pub scrub: ScrubStatus,
}

/// How far a chunkserver is with reading its replicas by itself.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub struct ScrubStatus {
    /// Bytes that matched their sums; those of holes do not count, they are not read.
    pub bytes: u64,
    /// Replicas of which all matched.
    pub chunks: u64,
    /// Blocks that did not match or could not be read, and headers that are not what they were.
    pub bad: u64,
    /// Rounds through all replicas that were ended.
    pub rounds: u64,
    /// How long ago the newest round began, in milliseconds.
    pub began_ms_ago: Option<u64>,
    /// How long ago the last round that was ended was ended, in milliseconds.
    pub ended_ms_ago: Option<u64>,
}

/// What a chunkserver holds in memory, to be compared with its [`Limits`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bounds {
    /// Bytes of pieces per chain position, and how many links such pieces come on.
    pub rooms: Vec<Room>,
    /// Links that are up or being made.
    pub links: Vec<Load>,
    /// Pieces in memory.
    pub pieces: usize,
    /// Headers of replicas at rest in memory.
    pub tables: usize,
    /// Headers of replicas at rest being read.
    pub tables_loading: usize,
    /// Reads that are not answered.
    pub reads: usize,
    /// Disk reads in flight that nobody waits for: the link they were for is gone.
    pub reads_abandoned: usize,
    /// Disk reads in flight, of ranges and of headers, those included that nobody waits for.
    pub reads_at_disk: usize,
    /// Disk reads in flight for the scrub, beside those.
    pub reads_of_scrub: usize,
    /// Replicas being written, with their tables.
    pub writing: usize,
    /// Blocks of them that are written over in memory, until a sync has made them anew.
    pub waiting: usize,
    /// Replicas that may be written and gave their tables back.
    pub parked: usize,
    /// Replicas that the disk is making, those included that were given up meanwhile.
    pub makes: usize,
    /// Disk operations in flight for replicas that are asked what they hold at rest.
    pub seals: usize,
    /// Replicas that are being moved to `trash/`, and orders to do so.
    pub moving: usize,
    /// Replicas that are being made as copies.
    pub copies: usize,
    /// Disk operations in flight for those.
    pub copy_jobs: usize,
    /// Disk operations in flight.
    pub jobs: usize,
}

/// Pieces of one chain position.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Room {
    /// Which.
    pub position: u8,
    /// In memory now.
    pub bytes: usize,
    /// Links that brought those, or may bring more.
    pub links: usize,
}

/// What one link weighs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Reads not answered.
    pub reads: usize,
    /// Messages on their way out.
    pub messages: usize,
    /// Bytes of those messages, and of what reads in progress will add.
    pub bytes: usize,
}

/// The chunkserver.
#[derive(Clone, Debug)]
pub struct Chunk {
    config: Config,
    outbox: Outbox<Event>,
    rng: Rng,
    /// Of the input being handled.
    now: Now,
    instance: Instance,
    start: Start,
    /// As on the disk, once it was read; before that as it will be written.
    identity: Identity,
    /// What is left of a replacement of the identity file, in order.
    identity_steps: std::collections::VecDeque<DiskOp>,
    note: Note,
    station: Station,
    /// The periods of the last welcome.
    timing: Timing,
    links: Links,
    jobs: BTreeMap<Ticket, Job>,
    inventory: Inventory,
    writing: BTreeMap<ReplicaId, Writing>,
    parked: BTreeMap<ReplicaId, Parked>,
    /// When chunks that nobody writes to are looked for.
    park_at: Option<Instant>,
    dir_sync: DirSync,
    /// Replicas that are being made as copies.
    copies: Copies,
    /// Replicas that are about to take pieces again.
    resumes: resume::Resumes,
    /// Where the redo runs of newest headers are, of those that have some.
    placed: BTreeMap<ReplicaId, redo::Placed>,
    reads: Reads,
    scrub: Scrub,
    trash: Trash,
    space: Space,
    counts: ChunkStatus,
    damage: Damage,
    /// Whether [`Event::Ready`] was said.
    ready_said: bool,
    /// The last reason that [`Event::Waiting`] gave.
    waiting_said: Option<String>,
    stopping: Stopping,
}

/// Whether the process is about to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    No,
    /// What was taken is being made durable; nothing more is taken.
    Asked(CallId),
    Stopped,
}

/// What a disk operation in flight is for.
#[derive(Clone, Debug)]
enum Job {
    Start,
    Identity,
    Scan(ChunkName),
    /// A copy that a crash left behind goes.
    Leftover,
    /// How many bytes had been written when it was issued.
    Space(u64),
    Create(ReplicaId),
    CreateHeader(ReplicaId),
    Piece {
        id: ReplicaId,
        wseq: WriteSeq,
        hold: HoldId,
        bytes: u64,
    },
    Sync(ReplicaId),
    DirSync,
    Table(ReplicaId),
    Unpark(ReplicaId),
    Read(ReadId),
    Seal(Seal, SealStep),
    Resume(ReplicaId),
    /// A block is read that a sync makes anew.
    SyncReads(ReplicaId),
    Place(redo::Place),
    Recall(redo::Recall),
    /// Of which copy: the link that it comes over.
    Copy(ReplicaId, LinkId, Stage),
    Trash(trash::Step),
    /// Nothing rests on it.
    Tidy,
}

impl Chunk {
    /// A chunkserver that has not started; its first input is [`Input::Wake`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        config.geometry.check();
        let mut rng = Rng::new(config.seed);
        Self {
            instance: Instance(rng.u64()),
            start: Start::NotYet,
            identity: recovery::new_identity(&mut rng),
            rng,
            now: Now::default(),
            identity_steps: std::collections::VecDeque::new(),
            note: Note::default(),
            station: Station::Starting,
            timing: Timing::REAL,
            links: Links::new(RoomBounds {
                position_bytes: config.limits.piece_buffer_bytes,
                head_bytes: config.limits.head_bytes_max(config.geometry),
                piece_bytes: config.geometry.piece_bytes as usize,
            }),
            jobs: BTreeMap::new(),
            inventory: Inventory::new(config.limits.chunk_tables),
            writing: BTreeMap::new(),
            parked: BTreeMap::new(),
            park_at: None,
            dir_sync: DirSync::default(),
            copies: Copies::new(),
            resumes: resume::Resumes::new(),
            placed: BTreeMap::new(),
            reads: Reads::new(config.limits.disk_reads_max(config.geometry)),
            scrub: Scrub::new(config.scrub_rate),
            trash: Trash::default(),
            space: Space::default(),
            counts: ChunkStatus::default(),
            damage: Damage::new(),
            ready_said: false,
            waiting_said: None,
            stopping: Stopping::No,
            outbox: Outbox::default(),
            config,
        }
    }

    /// Its counters and counts as they are now, without asking it.
    #[must_use]
    pub fn counters(&self) -> ChunkStatus {
        self.status()
    }
    /// What it holds in memory.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let (tables, tables_loading) = self.inventory.tables.len();
        let room = |(position, bytes, links)| Room {
            position,
            bytes,
            links,
        };
        let load = |(reads, messages, bytes)| Load {
            reads,
            messages,
            bytes,
        };
        let (copies, copy_jobs) = self.copies_held();
        let abandoned = |job: &&Job| matches!(job, Job::Read(id) if !self.reads.waits(*id) && !self.reads.is_beside(*id));
        Bounds {
            rooms: self.links.rooms().map(room).collect(),
            links: self.links.loads().map(load).collect(),
            pieces: self.links.holds(),
            tables,
            tables_loading,
            reads: self.reads.open(),
            reads_abandoned: self.jobs.values().filter(abandoned).count(),
            reads_at_disk: self.reads.at_disk(),
            reads_of_scrub: self.reads.beside(),
            writing: self.writing.len(),
            parked: self.parked.len(),
            waiting: self.waiting(),
            makes: self.makes(),
            seals: self.seals(),
            moving: self.trash.moving(),
            copies,
            copy_jobs,
            jobs: self.jobs.len(),
        }
    }

    fn wake(&mut self) {
        if matches!(self.start, Start::NotYet) {
            self.begin();
        }
        self.station_on_time();
        self.trash_on_time();
        self.park_on_time();
        self.copies_on_time();
        self.scrub_on_time();
    }

    fn opened(&mut self, link: LinkId, peer: Peer) {
        if !link.is_dialed() {
            self.links.accepted(link, peer);
        } else if self.station.link() == Some(link) {
            self.links.opened(&mut self.outbox, link, peer);
            self.greet();
        } else if self.links.is_source(link) {
            let role = peer.role;
            self.links.opened(&mut self.outbox, link, peer);
            self.source_opened(link, role);
        } else {
            self.next_opened(link, peer);
        }
    }

    fn received(&mut self, link: LinkId, msg: Msg) {
        if self.links.get(link).is_none() {
            return;
        }
        let Msg {
            request,
            head,
            body,
        } = msg;
        match head {
            Head::WritePiece(head) => self.write_piece(link, request, head, body),
            Head::SyncChunk(head) => self.sync_chunk(link, request, head),
            Head::ReadRange(head) => self.read_range(link, request, head),
            Head::ChainPiece(head) => self.chain_piece(link, request, head, body),
            Head::ChainSync(head) => self.chain_sync(link, request, head),
            Head::ChainDone(head) => self.chain_done(link, head),
            Head::ChainSynced(head) => self.chain_synced(link, head),
            Head::RangeRead(head) if self.links.is_source(link) => {
                self.range_came(link, request, head, body)
            }
            other => self.meta_says(link, request, other),
        }
    }

    fn closed(&mut self, link: LinkId, why: &CloseReason) {
        let Some(gone) = self.links.closed(&mut self.outbox, link) else {
            return;
        };
        self.chains_lost(&gone, why);
        self.reads_lost(link);
        self.copy_lost(link, why);
        if self.station.link() == Some(link) {
            self.meta_lost(why);
        }
    }

    /// Closes a link from this side, for a reason that its peer gave.
    fn close(&mut self, link: LinkId, why: String) {
        tracing::warn!(link = link.0, why, "closing a link");
        self.outbox.push(Output::Close { link });
        self.closed(link, &CloseReason::Malformed(why));
    }

    fn completed(&mut self, ticket: Ticket, result: DiskResult) {
        let Some(job) = self.jobs.remove(&ticket) else {
            return;
        };
        match job {
            Job::Start => self.started(result),
            Job::Identity => self.identity_step_done(result),
            Job::Scan(name) => self.scanned(name, result),
            // One that cannot be removed is none of a replica's, and goes at the next start.
            Job::Leftover => self.scan_goes_on(),
            Job::Space(written) => self.space_measured(written, result),
            Job::Create(id) => self.created(id, done(result)),
            Job::CreateHeader(id) => self.header_created(id, done(result)),
            Job::Piece {
                id,
                wseq,
                hold,
                bytes,
            } => self.piece_written(id, wseq, hold, bytes, done(result)),
            Job::Sync(id) => self.sync_step_done(id, done(result)),
            Job::DirSync => self.dir_synced(done(result)),
            Job::Table(id) => self.table_loaded(id, result),
            Job::Unpark(id) => self.unparked(id, result),
            Job::Read(id) => self.read_came(id, result),
            Job::Seal(seal, step) => self.seal_step_done(seal, step, result),
            Job::Resume(id) => self.resume_came(id, result),
            Job::SyncReads(id) => self.old_block_came(id, result),
            Job::Place(place) => self.run_placed(place, done(result)),
            Job::Recall(recall) => self.recall_step_done(recall, result),
            Job::Copy(id, source, stage) => self.copy_step_done(id, source, stage, done(result)),
            Job::Trash(step) => self.trash_step_done(step, done(result)),
            Job::Tidy => {}
        }
    }

    fn call(&mut self, id: CallId, call: Call) {
        match call {
            Call::Status => {
                let status = Box::new(self.status());
                self.outbox.event(id, Event::Status(status));
            }
            Call::Stop => self.stopping = Stopping::Asked(id),
        }
    }

    fn status(&self) -> ChunkStatus {
        let standing = |wanted: &[Standing]| {
            let replicas = self.inventory.replicas.values();
            replicas
                .filter(|replica| wanted.contains(&replica.standing))
                .count() as u64
        };
        ChunkStatus {
            node: self.identity.node,
            cluster: self.identity.cluster,
            serving: self.station.accepted(),
            chunks: standing(&[Standing::Served]),
            chunks_writing: self.writing.len() as u64,
            chunks_damaged: standing(&[Standing::Damaged, Standing::Unknown, Standing::BadHeader]),
            chunks_trash: self.trash.len(),
            files_foreign: self.inventory.foreign,
            bytes_free: self.space.bytes_free(),
            bytes_total: self.space.bytes_total(),
            piece_buffer_bytes: self.links.room_bytes() as u64,
            scrub: self.scrub_status(),
            ..self.counts.clone()
        }
    }

    fn disk(&mut self, job: Job, op: DiskOp) {
        let ticket = self.outbox.disk(op);
        let before = self.jobs.insert(ticket, job);
        assert!(before.is_none(), "a ticket is used once");
    }

    fn send(&mut self, link: LinkId, msg: Msg) {
        self.links.send(&mut self.outbox, link, msg, None);
    }

    fn halt(&mut self, kind: FaultKind, what: String, help: Option<String>) {
        self.outbox.halt(Fault { kind, what, help });
    }

    /// How this server is called in refusals.
    fn who(&self) -> String {
        format!("server {}", self.config.listen)
    }
}

impl Machine for Chunk {
    type Call = Call;
    type Event = Event;

    fn handle(&mut self, now: Now, input: Input<Call>) {
        assert!(
            self.outbox.is_drained(),
            "the outbox is drained between inputs"
        );
        if self.outbox.halted() {
            return;
        }
        self.now = now;
        match input {
            Input::Wake => self.wake(),
            Input::Opened { link, peer } => self.opened(link, peer),
            Input::Received { link, msg } => self.received(link, msg),
            Input::Sent { link, bytes } => {
                self.links.sent(&mut self.outbox, link, bytes);
                self.reads.ready(link);
            }
            Input::Closed { link, why } => self.closed(link, &why),
            Input::Disk { ticket, result } => self.completed(ticket, result),
            Input::Call { id, call } => self.call(id, call),
        }
        self.reads_go();
        self.stop_on();
    }

    fn poll(&mut self) -> Option<Output<Event>> {
        self.outbox.pop()
    }

    fn deadline(&self) -> Option<(Instant, &'static str)> {
        if self.outbox.halted() {
            return None;
        }
        let trash = self
            .trash
            .unlinks_at(self.timing.trash_grace)
            .map(|at| (at, "trash"));
        let park = self.park_at.map(|at| (at, "idle chunks"));
        let copies = self.copies_due().map(|at| (at, "a copy that stands still"));
        let scrub = self.scrub_due().map(|at| (at, "scrub"));
        [self.station_due(), trash, park, copies, scrub]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

/// The result of an operation that gives nothing but its success.
fn done(result: DiskResult) -> Result<(), DiskError> {
    match result {
        Ok(DiskDone::Done) => Ok(()),
        Ok(_) => Err(DiskError::Io("the disk answered something else".into())),
        Err(error) => Err(error),
    }
}
