//! A chunk that is being written: how it is made, and how the head of its chain takes a client's pieces.
//!
//! Whatever a piece may be refused for is decided before it is given a write sequence number; from then on
//! a failure breaks the chain. Read [`super::chain`] next.
use super::header::{FIRST_GENERATION, Header, PieceEntry, Slot};
use super::inventory::{Replica, Standing};
use super::link::HoldId;
use super::name::{ChunkName, ReplicaId};
use super::over::{WAITING_MAX, WAITING_OF_ALL_MAX};
use super::read::ReadId;
use super::sync::{Cut, SyncAsk};
use super::table::{Change, Covers, Elsewhere, Expected, Table};
use super::{Chunk, Job, Stopping};
use crate::block::{self, Sums};
use crate::ids::{ChainId, ClusterId, Incarnation, LinkId, PieceNumber, SessionId, WriteSeq};
use crate::limits::{Geometry, HEADER_BYTES, REPLICATION_MAX};
use crate::machine::{DiskDone, DiskError, DiskOp, DiskResult, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::{ChunkCreated, CreateChunk, ResumeChunk};
use crate::wire::client_chunk::{Durable, PieceDone, WritePiece};
use crate::wire::client_meta::Place;
use crate::wire::{Head, Msg, Refusal, Status};
use bytes::Bytes;
use core::ops::Range;
use std::collections::VecDeque;
use std::sync::Arc;

/// Replicas that the disk makes at once.
pub const MAKES_MAX: usize = 64;

/// A replica that takes pieces: made in this process, its chain unbroken.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    pub name: ChunkName,
    incarnation: Incarnation,
    pub session: SessionId,
    pub chain: Vec<Place>,
    /// Which chain that is.
    pub chain_id: ChainId,
    /// This server's place in the chain; 0: the head.
    pub position: u8,
    made: Made,
    /// Writes up to it were made in an earlier chain: when they come again, they are not made again.
    pub had: WriteSeq,
    /// The last write that any member had when this chain began: no sync is taken before it has come.
    pub until: WriteSeq,
    /// The last write that all had, until a cut is taken behind that one.
    pub resumed_from: WriteSeq,
    /// Of the newest header that was written, or is being written.
    pub generation: u64,
    /// The last write taken.
    pub applied: WriteSeq,
    /// Its number as the client gave it.
    pub last_piece: PieceNumber,
    /// Everything up to it is written by all below.
    pub below: WriteSeq,
    /// Writes that are not yet written here and by all below, in order.
    pub pieces: VecDeque<Piece>,
    pub table: Table,
    pub upstream: Option<LinkId>,
    pub downstream: Option<LinkId>,
    /// Syncs being made; the first one is at work.
    pub syncs: VecDeque<Cut>,
    /// Clients that wait for a sync.
    pub asks: Vec<SyncAsk>,
    /// The last sync that all have made.
    pub synced: Option<Synced>,
    /// Whether its name is durable.
    pub named: bool,
    /// Reads that wait for a block to be clean.
    pub reads: Vec<ReadId>,
    /// When it last took a piece.
    pub used: Instant,
}

/// How far the making of a replica is.
#[derive(Clone, Debug)]
enum Made {
    /// Who asked, and is answered when it is made.
    Making(Vec<(LinkId, u64)>),
    Made,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub wseq: WriteSeq,
    number: PieceNumber,
    /// Blocks touched, first and last.
    pub blocks: (usize, usize),
    len: u64,
    /// Parts of it that are being written to their places.
    pub at_disk: usize,
    /// Clients to be answered.
    pub asks: Vec<(LinkId, u64)>,
}

/// A sync that this replica and all below have made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Synced {
    pub piece: PieceNumber,
    pub durable: Durable,
}

/// A piece that was checked.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub session: SessionId,
    pub number: PieceNumber,
    pub offset: u64,
    pub sums: Sums,
    pub body: Bytes,
    pub ask: Option<(LinkId, u64)>,
}

impl Writing {
    pub(super) const fn id(&self) -> ReplicaId {
        self.name.id()
    }
    /// The next server of the chain and its position.
    pub(super) fn next(&self) -> Option<(Place, u8)> {
        let position = self.position + 1;
        Some((*self.chain.get(usize::from(position))?, position))
    }
    /// How this server is called by the others of the chain.
    pub(super) fn who(&self) -> String {
        format!("server {}", self.chain[usize::from(self.position)].addr)
    }
    /// Whether the table says no more than what was taken, so that a cut may be taken here.
    pub(super) fn may_cut(&self) -> bool {
        self.applied >= self.had
    }
    /// As [`Self::may_cut`], on every member.
    pub(super) fn may_sync(&self) -> bool {
        self.applied >= self.until
    }
    /// Whether with this write more blocks would wait for a sync than one covers. Of what some member had already there
    /// is never too much.
    pub(super) fn waits_too_much(&self, offset: u64, len: u64) -> bool {
        let waiting = self.table.waiting() + self.table.would_wait(offset, len);
        waiting > WAITING_MAX && self.may_sync()
    }
    /// A replica that has taken nothing in this chain.
    fn begun(
        name: ChunkName,
        (header, elsewhere): (&Header, Elsewhere),
        geometry: Geometry,
        (chain, position): (Vec<Place>, u8),
        session: SessionId,
        now: Instant,
    ) -> Self {
        Self {
            name,
            incarnation: header.incarnation,
            session,
            chain,
            chain_id: ChainId(0),
            position,
            made: Made::Made,
            had: header.wseq,
            until: header.wseq,
            resumed_from: header.wseq,
            generation: header.generation,
            applied: header.wseq,
            last_piece: PieceNumber(header.wseq.0),
            below: header.wseq,
            pieces: VecDeque::new(),
            table: Table::of(geometry, header, elsewhere),
            upstream: None,
            downstream: None,
            syncs: VecDeque::new(),
            asks: Vec::new(),
            synced: None,
            named: false,
            reads: Vec::new(),
            used: now,
        }
    }
    /// A replica that takes pieces again, from its header on.
    pub(super) fn resumed(
        name: ChunkName,
        header: &Header,
        geometry: Geometry,
        order: &ResumeChunk,
        position: u8,
        now: Instant,
    ) -> Self {
        let chain = (order.members.clone(), position);
        Self {
            chain_id: order.chain,
            until: order.to,
            resumed_from: order.from,
            applied: order.from,
            last_piece: PieceNumber(order.from.0),
            below: order.from,
            ..Self::begun(
                name,
                (header, Elsewhere::Leftovers),
                geometry,
                chain,
                order.session,
                now,
            )
        }
    }
    /// Whether a block has a write that is not yet everywhere below.
    pub(super) fn is_dirty(&self, first: usize, last: usize) -> bool {
        self.pieces
            .iter()
            .any(|piece| piece.blocks.0 <= last && first <= piece.blocks.1)
    }
    /// Whether nothing is on its way and all is durable, here and below.
    pub(super) fn is_at_rest(&self) -> bool {
        let synced = self
            .synced
            .is_some_and(|synced| synced.durable.wseq == self.applied);
        let idle = self.pieces.is_empty()
            && self.syncs.is_empty()
            && self.asks.is_empty()
            && self.reads.is_empty();
        synced && idle && matches!(self.made, Made::Made)
    }
    /// Whether a cut is taken as soon as all members have what any had when this chain began: what waits on some for
    /// it is in places on others, and must not come to more than a header names.
    pub(super) fn cuts_at_until(&self) -> bool {
        self.applied == self.until && self.resumed_from < self.until
    }
    /// The header that says all that was taken so far, in the slot that does not hold the newest one, but for the sums
    /// of blocks that are made anew; and what is to be made zeros and anew before it.
    pub(super) fn next_header(
        &mut self,
        cluster: ClusterId,
    ) -> (Header, Vec<Range<u64>>, Vec<Change>) {
        self.generation += if planted::is(Bug::HeaderOverActiveSlot) {
            2
        } else {
            1
        };
        let entry = PieceEntry {
            session: self.session,
            last: self.last_piece,
            append_offset: 0,
        };
        let Covers {
            sums,
            zeros,
            changes,
        } = self.table.cut();
        let header = Header {
            name: self.name,
            len: self.table.end(),
            sums,
            generation: self.generation,
            incarnation: self.incarnation,
            cluster,
            wseq: self.applied,
            pieces: if self.last_piece.0 > 0 {
                vec![entry]
            } else {
                Vec::new()
            },
            redo: Vec::new(),
        };
        (header, zeros, changes)
    }
    /// A block was made anew for the cut at `at`: this is its sum, there and in the headers of later cuts, up to one
    /// that makes it anew again.
    pub(super) fn sums_known(&mut self, at: usize, block: usize, is: Expected) {
        let mut last = true;
        for (nth, cut) in self.syncs.iter_mut().enumerate().skip(at) {
            if nth > at && cut.changes(block) {
                last = false;
                break;
            }
            cut.sum_is(block, is.sum);
        }
        self.table.made_anew(block, is, last);
    }
    /// Whom to tell when making it failed or ended.
    pub(super) fn take_made(&mut self) -> Vec<(LinkId, u64)> {
        match core::mem::replace(&mut self.made, Made::Made) {
            Made::Making(asks) => asks,
            Made::Made => Vec::new(),
        }
    }
}

impl Chunk {
    /// An order of the meta server: makes a replica. The term was checked.
    pub(super) fn create_chunk(&mut self, link: LinkId, request: u64, order: CreateChunk) {
        let id = ReplicaId {
            chunk: order.chunk,
            version: order.version,
        };
        let refusal = match self.may_create(id, &order) {
            Ok(Create::New(position)) => return self.make(link, request, order, position),
            Ok(Create::Making) => {
                let writing = self.writing.get_mut(&id).expect("it is being made");
                if let Made::Making(asks) = &mut writing.made {
                    asks.push((link, request));
                }
                return;
            }
            Ok(Create::Made) => None,
            Err(refusal) => Some(refusal),
        };
        self.answer_created(id, &[(link, request)], refusal);
    }

    fn may_create(&self, id: ReplicaId, order: &CreateChunk) -> Result<Create, Refusal> {
        let place = order
            .chain
            .iter()
            .position(|place| place.node == self.identity.node);
        let position = place
            .and_then(|place| u8::try_from(place).ok())
            .filter(|place| *place < REPLICATION_MAX);
        let Some(position) = position.filter(|_| order.chain.len() <= usize::from(REPLICATION_MAX))
        else {
            return Err(Refusal::new(
                Status::BadRequest,
                format!("{} is not in the chain of {id}", self.who()),
            ));
        };
        if self.stopping != Stopping::No {
            return Err(Refusal::new(
                Status::Busy,
                format!("{} is stopping", self.who()),
            ));
        }
        let same = |writing: &Writing| {
            writing.name.file == order.file
                && writing.chain == order.chain
                && writing.session == order.session
        };
        let exists = Err(Refusal::new(
            Status::Exists,
            format!("{} has {id} already", self.who()),
        ));
        let parked = self.parked.get(&id).map(|parked| &parked.writing);
        match self.writing.get(&id).or(parked) {
            Some(writing) if same(writing) => match writing.made {
                Made::Making(_) => Ok(Create::Making),
                Made::Made => Ok(Create::Made),
            },
            None if self.inventory.replicas.contains_key(&id) => exists,
            None if self.makes() >= MAKES_MAX => Err(Refusal::new(
                Status::Busy,
                format!(
                    "the disk of {} has as many new chunks to make as it may",
                    self.who()
                ),
            )),
            None => Ok(Create::New(position)),
            Some(_) => exists,
        }
    }

    /// Replicas that the disk is making. One that was given up meanwhile counts until the disk has ended it: a disk
    /// that hangs is not asked for more and more of them.
    pub(super) fn makes(&self) -> usize {
        let makes = |job: &&Job| matches!(job, Job::Create(_) | Job::CreateHeader(_));
        self.jobs.values().filter(makes).count()
    }

    fn make(&mut self, link: LinkId, request: u64, order: CreateChunk, position: u8) {
        let name = ChunkName {
            file: order.file,
            chunk: order.chunk,
            version: order.version,
        };
        let header = first_header(name, order.incarnation, self.identity.cluster);
        let (geometry, now) = (self.config.geometry, self.now.mono);
        let chain = (order.chain, position);
        let writing = Writing {
            made: Made::Making(vec![(link, request)]),
            ..Writing::begun(
                name,
                (&header, Elsewhere::Zeros),
                geometry,
                chain,
                order.session,
                now,
            )
        };
        let replica = Replica {
            file: name.file,
            incarnation: writing.incarnation,
            wseq: WriteSeq(0),
            len: 0,
            digest: header.digest(geometry),
            standing: Standing::Served,
            broken: None,
        };
        self.inventory.replicas.insert(name.id(), replica);
        self.writing.insert(name.id(), writing);
        self.park_later();
        self.disk(
            Job::Create(name.id()),
            DiskOp::Create {
                file: name.path(),
                zeroed: 0,
            },
        );
    }

    pub(super) fn created(&mut self, id: ReplicaId, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.not_created(id, &error);
        }
        let Some(writing) = self.writing.get(&id) else {
            return;
        };
        let header = first_header(writing.name, writing.incarnation, self.identity.cluster);
        let op = DiskOp::Write {
            file: writing.name.path(),
            offset: Slot::of(FIRST_GENERATION).offset() as u64,
            data: vec![Bytes::from(header.encode())],
            sync: SyncMode::Later,
        };
        self.disk(Job::CreateHeader(id), op);
    }

    pub(super) fn header_created(&mut self, id: ReplicaId, result: Result<(), DiskError>) {
        if let Err(error) = result {
            if let Some(writing) = self.writing.get(&id) {
                let file = writing.name.path();
                self.disk(Job::Tidy, DiskOp::Remove { file });
            }
            return self.not_created(id, &error);
        }
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        let asks = writing.take_made();
        self.answer_created(id, &asks, None);
    }

    fn not_created(&mut self, id: ReplicaId, error: &DiskError) {
        let why = format!("{} cannot make {id}: {error}", self.who());
        tracing::warn!(why, "a chunk was not made");
        let status = match error {
            DiskError::NoSpace => Status::NoRoom,
            DiskError::Exists => Status::Exists,
            DiskError::NotFound | DiskError::Io(_) => Status::LocalIo,
        };
        if let Some(writing) = self.writing.get_mut(&id) {
            let asks = writing.take_made();
            self.answer_created(id, &asks, Some(Refusal::new(status, why.clone())));
        }
        self.break_chain(id, WriteSeq(1), &why);
        self.forget_replica(id);
    }

    pub(super) fn answer_created(
        &mut self,
        id: ReplicaId,
        asks: &[(LinkId, u64)],
        refusal: Option<Refusal>,
    ) {
        let Some(term) = self.station.term() else {
            return;
        };
        for (link, request) in asks {
            let outcome = refusal.clone().map_or(Ok(()), Err);
            let created = ChunkCreated {
                term,
                chunk: id.chunk,
                version: id.version,
                outcome,
            };
            self.send(*link, Msg::new(*request, created));
        }
    }

    /// A client's piece, at the head.
    pub(super) fn write_piece(
        &mut self,
        link: LinkId,
        request: u64,
        head: WritePiece,
        body: Bytes,
    ) {
        if let Err(why) = self.links.carries(link, 0) {
            return self.close(link, why);
        }
        let id = ReplicaId {
            chunk: head.chunk,
            version: head.version,
        };
        let piece = (head.chunk, head.piece);
        if self.links.lacks_room(body.len()) {
            probe::hit(Probe::HeadLacksRoom);
            self.links.pause(&mut self.outbox, link, 0);
            let why = format!("{} has no room in memory for pieces", self.who());
            let refusal = Refusal::new(Status::Busy, why);
            return self.send(link, piece_done(request, piece, Err(refusal)));
        }
        if self.parked.contains_key(&id) {
            let fits = self
                .fits(head.offset, body.len() as u64)
                .map_err(|why| Refusal::new(Status::BadRequest, format!("a piece of {id}: {why}")));
            return match self.may_wake(id, head.session).and(fits) {
                Ok(()) => self.unpark(id, link, 0, Msg::with_body(request, head, body)),
                Err(refusal) => self.send(link, piece_done(request, piece, Err(refusal))),
            };
        }
        match self.may_write(id, &head, &body) {
            Ok(Write::New) => {
                let WritePiece {
                    session,
                    piece,
                    offset,
                    sums,
                    ..
                } = head;
                let ask = Some((link, request));
                self.take_piece(
                    id,
                    link,
                    Incoming {
                        session,
                        number: piece,
                        offset,
                        sums,
                        body,
                        ask,
                    },
                );
            }
            Ok(Write::OnItsWay) => {
                probe::hit(Probe::PieceAskedTwice);
                let writing = self.writing.get_mut(&id).expect("it was just found");
                let piece = writing
                    .pieces
                    .iter_mut()
                    .find(|piece| piece.number == head.piece);
                let asks = &mut piece.expect("it was just found").asks;
                if asks.len() < self.config.limits.link_requests {
                    return asks.push((link, request));
                }
                let why = format!("piece {} of {id} was asked for too often", head.piece);
                let refusal = Refusal::new(Status::Busy, why);
                self.send(
                    link,
                    piece_done(request, (head.chunk, head.piece), Err(refusal)),
                );
            }
            Ok(Write::Done) => {
                probe::hit(Probe::PieceDoneBefore);
                self.send(link, piece_done(request, piece, Ok(())));
            }
            Err(refusal) => {
                if refusal.status == Status::Corrupt {
                    probe::hit(Probe::PieceCorrupt);
                    self.counts.pieces_bad += 1;
                }
                let is_full = self.waiting() > WAITING_OF_ALL_MAX / 2;
                self.send(link, piece_done(request, piece, Err(refusal)));
                if is_full {
                    self.sync_most();
                }
            }
        }
    }

    /// All that a piece may be refused for. A piece refused here has changed nothing anywhere.
    fn may_write(&self, id: ReplicaId, head: &WritePiece, body: &Bytes) -> Result<Write, Refusal> {
        let who = self.who();
        let refuse = |status, why: String| Err(Refusal::new(status, why));
        if self.stopping != Stopping::No {
            return refuse(Status::Busy, format!("{who} is stopping"));
        }
        let writing = self.head_of(id, head.session)?;
        if head.piece <= writing.last_piece {
            let on_its_way = writing
                .pieces
                .iter()
                .any(|piece| piece.number == head.piece);
            return Ok(if on_its_way {
                Write::OnItsWay
            } else {
                Write::Done
            });
        }
        let expected = writing.last_piece.next();
        if head.piece != expected {
            return refuse(
                Status::BadRequest,
                format!("piece {} of {id}: piece {expected} comes next", head.piece),
            );
        }
        let len = body.len() as u64;
        if let Err(why) = self.fits(head.offset, len) {
            return refuse(
                Status::BadRequest,
                format!("piece {} of {id}: {why}", head.piece),
            );
        }
        // It was written in an earlier chain, and is passed on to who lacks it.
        let had = writing.applied.next() <= writing.had;
        if self.space.lacks(len) && !had {
            probe::hit(Probe::PieceNoRoom);
            let free = self.space.bytes_free();
            return refuse(
                Status::NoRoom,
                format!(
                    "{who} has {free} bytes free, piece {} of {id} has {len}",
                    head.piece
                ),
            );
        }
        if !head
            .sums
            .match_bytes(self.config.geometry, head.offset, body)
            && !planted::is(Bug::PieceUnverified)
        {
            return refuse(
                Status::Corrupt,
                format!(
                    "{who}: piece {} of {id} does not match its sums",
                    head.piece
                ),
            );
        }
        // A sync is on its way then, or begins as soon as one may.
        if !had && writing.waits_too_much(head.offset, len) {
            let why = format!("{who}: as many blocks of {id} are written over as a sync covers");
            return refuse(Status::Busy, why);
        }
        let more = writing.table.would_wait(head.offset, len);
        if !had && more > 0 && writing.may_sync() && self.waiting() + more > WAITING_OF_ALL_MAX {
            let why = format!("{who} has no room in memory for more blocks that are written over");
            return refuse(Status::Busy, why);
        }
        Ok(Write::New)
    }

    /// Blocks of all chunks that are written over in memory: that wait for a sync, or for one that is at work.
    pub(super) fn waiting(&self) -> usize {
        let of = |writing: &Writing| {
            let at_work: usize = writing.syncs.iter().map(Cut::blocks).sum();
            writing.table.waiting() + at_work
        };
        self.writing.values().map(of).sum()
    }

    /// Of the chunks that this server is the head of, begins a sync of the one with the most blocks that wait for one.
    fn sync_most(&mut self) {
        let may = |writing: &&Writing| {
            let idle = writing.syncs.is_empty() && writing.may_sync();
            writing.position == 0 && idle && writing.table.waiting() > 0
        };
        let chunks = self.writing.values().filter(may);
        let most = chunks.max_by_key(|writing| writing.table.waiting());
        if let Some(id) = most.map(Writing::id) {
            self.cut(id);
        }
    }

    /// The chunk, if this is the head of its chain and the session may write to it.
    pub(super) fn head_of(&self, id: ReplicaId, session: SessionId) -> Result<&Writing, Refusal> {
        let writing = self.writing.get(&id).ok_or_else(|| self.not_writable(id))?;
        if writing.position != 0 {
            let head = writing.chain[0].addr;
            return Err(Refusal::new(
                Status::BadRequest,
                format!("the head of {id} is {head}, not {}", writing.who()),
            ));
        }
        if writing.session != session {
            return Err(Refusal::new(
                Status::BadRequest,
                format!("session {session} was not granted {id}"),
            ));
        }
        Ok(writing)
    }

    /// Why a replica takes no pieces.
    pub(super) fn not_writable(&self, id: ReplicaId) -> Refusal {
        let who = self.who();
        match self.inventory.replicas.get(&id) {
            None => Refusal::new(Status::NotServed, format!("{id} is not on {who}")),
            Some(Replica {
                broken: Some(broken),
                ..
            }) => Refusal::new(Status::ChainBroken, broken.why.clone()),
            Some(_) => Refusal::new(
                Status::ChainBroken,
                format!("{who} restarted since {id} was made: its chain is broken"),
            ),
        }
    }

    /// Whether a range of bytes can be one piece of a chunk.
    pub(super) fn fits(&self, offset: u64, len: u64) -> Result<(), String> {
        let geometry = self.config.geometry;
        let end = offset.checked_add(len);
        if len == 0 || len > u64::from(geometry.piece_bytes) {
            return Err(format!(
                "{len} bytes, a piece has 1 to {}",
                geometry.piece_bytes
            ));
        }
        if end.is_none_or(|end| end > geometry.chunk_bytes()) {
            return Err(format!(
                "{len} bytes at offset {offset} end past the chunk of {}",
                geometry.chunk_bytes()
            ));
        }
        Ok(())
    }

    /// Takes a piece as the next write: passes it on at once, and writes it here.
    pub(super) fn take_piece(&mut self, id: ReplicaId, link: LinkId, piece: Incoming) {
        let Incoming {
            session,
            number,
            offset,
            sums,
            body,
            ask,
        } = piece;
        let block_bytes = u64::from(self.config.geometry.block_bytes);
        let len = body.len() as u64;
        let writing = self
            .writing
            .get_mut(&id)
            .expect("only a chunk being written takes pieces");
        assert!(
            number > writing.last_piece && len > 0,
            "a piece is taken once, in order"
        );
        writing.applied = writing.applied.next();
        writing.last_piece = number;
        writing.used = self.now.mono;
        let wseq = writing.applied;
        assert_eq!(
            wseq.0, number.0,
            "one session writes a chunk, so writes are numbered as its pieces are"
        );
        let had = wseq <= writing.had;
        let (mut places, mut zeros) = (Vec::new(), 0);
        if had {
            probe::hit(Probe::PieceHadBefore);
        } else {
            (places, zeros) = writing.table.write(offset, &body, &sums.blocks);
        }
        if zeros > 0 {
            probe::hit(Probe::LeftoversCleared);
        }
        assert!(
            writing.pieces.back().is_none_or(|last| last.wseq < wseq),
            "writes wait in their order"
        );
        let nth = |at: u64| usize::try_from(at / block_bytes).expect("a chunk has few blocks");
        writing.pieces.push_back(Piece {
            wseq,
            number,
            blocks: (nth(offset), nth(offset + len - 1)),
            len,
            at_disk: places.len(),
            asks: ask.into_iter().collect(),
        });
        let (file, position, next) = (writing.name.path(), writing.position, writing.next());
        let in_places: usize = places.iter().map(ExactSizeIterator::len).sum();
        let waits = if had { 0 } else { len - in_places as u64 };
        self.space.taken += waits;
        self.space.written += waits;
        if !had && places.is_empty() {
            self.count_written(id, len);
        }
        let parts = u8::try_from(places.len()).expect("a piece touches few blocks");
        let users = u8::from(next.is_some()) + parts;
        if users == 0 {
            self.advance(id);
            return self.sync_asked(id);
        }
        let hold = self
            .links
            .hold(&mut self.outbox, (link, position), body.len(), users);
        // The next server gets it before the disk here does: its way is the longer one.
        if next.is_some() {
            self.pass_on(
                id,
                wseq,
                Incoming {
                    session,
                    number,
                    offset,
                    sums,
                    body: body.clone(),
                    ask: None,
                },
                hold,
            );
        }
        for place in places {
            let before = core::mem::take(&mut zeros);
            let bytes = place.len() as u64;
            self.space.taken += bytes;
            let mut data = block::zeros(usize::try_from(before).expect("less than a block"));
            let op_at = HEADER_BYTES + offset + place.start as u64 - before;
            data.push(body.slice(place));
            let op = DiskOp::Write {
                file: file.clone(),
                offset: op_at,
                data,
                sync: SyncMode::Later,
            };
            self.disk(
                Job::Piece {
                    id,
                    wseq,
                    hold,
                    bytes,
                },
                op,
            );
        }
        self.sync_asked(id);
    }

    pub(super) fn piece_written(
        &mut self,
        id: ReplicaId,
        wseq: WriteSeq,
        hold: HoldId,
        bytes: u64,
        result: Result<(), DiskError>,
    ) {
        self.space.written += bytes;
        self.links.let_go(&mut self.outbox, Some(hold));
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        if let Err(error) = result {
            let why = format!("{} cannot write to {id}: {error}", writing.who());
            self.break_chain(id, wseq, &why);
            return self.failed_here(id);
        }
        if let Some(piece) = writing.pieces.iter_mut().find(|piece| piece.wseq == wseq) {
            piece.at_disk -= 1;
            let (left, len) = (piece.at_disk, piece.len);
            if left == 0 {
                self.count_written(id, len);
            }
        }
        self.advance(id);
        self.sync_step(id);
    }

    fn count_written(&mut self, id: ReplicaId, bytes: u64) {
        let asked = |writing: &Writing| !writing.asks.is_empty();
        let twice = self.writing.get(&id).is_some_and(asked) && planted::is(Bug::PieceCountedTwice);
        self.counts.pieces_written += if twice { 2 } else { 1 };
        self.counts.bytes_written += bytes;
    }

    /// The header of a replica's file, from what was read of it.
    pub(super) fn read_header(
        &self,
        name: ChunkName,
        result: DiskResult,
    ) -> Result<Arc<Header>, String> {
        match result {
            Ok(DiskDone::Data(bytes)) => Header::choose(&bytes, name, self.config.geometry)
                .map(Arc::new)
                .map_err(|error| format!("{}: {error}", name.path())),
            Ok(_) => Err(format!("{}: the disk answered something else", name.path())),
            Err(error) => Err(format!("{}: {error}", name.path())),
        }
    }
}

/// Of a replica that has nothing yet.
const fn first_header(name: ChunkName, incarnation: Incarnation, cluster: ClusterId) -> Header {
    Header {
        name,
        len: 0,
        sums: Vec::new(),
        generation: FIRST_GENERATION,
        incarnation,
        cluster,
        wseq: WriteSeq(0),
        pieces: Vec::new(),
        redo: Vec::new(),
    }
}

/// What is to be done with an order to make a chunk.
enum Create {
    New(u8),
    Making,
    Made,
}

/// What is to be done with a piece.
enum Write {
    New,
    OnItsWay,
    Done,
}

pub(super) fn piece_done(
    request: u64,
    (chunk, piece): (crate::ids::ChunkId, PieceNumber),
    outcome: Result<(), Refusal>,
) -> Msg {
    Msg::new(
        request,
        Head::from(PieceDone {
            chunk,
            piece,
            outcome,
        }),
    )
}

impl Piece {
    pub(super) const fn number(&self) -> PieceNumber {
        self.number
    }
}

#[cfg(test)]
mod tests;
