//! A replica takes pieces again, in another chain than the one that broke.
//!
//! The meta server has sealed all members before: each has told how far it is durable, and has forgotten what no sync
//! covered. The client has all of that still, and sends it again, each piece as what it was: one session writes a
//! chunk, so write n is its piece n, in whatever chain it comes. So members that are at different writes, as a sync
//! had reached only some of them, need nothing from one another: the chain begins behind the last write that all
//! have, and who has one of those that come then does not write it again.
//!
//! What such a replica's table says is ahead of what was taken, until those writes have come again. No cut is taken in
//! that time, on any member: its sums would be of other writes than its number says.
//!
//! When another session goes on with a chunk, all members hold the same, and each is *raised* first: its newest header
//! says a write then that is above all that a session of before can have numbered. That header is durable before the
//! order is answered; the file is synced before it is written, as the slot beside it may not be durable. If the file was
//! cut in the chunk, that header ends there ([`super::cut`]).
use super::cut::cut;
use super::header::{Header, Slot};
use super::inventory::Standing;
use super::name::{ChunkName, ReplicaId};
use super::redo::{NOT_IN_PLACE, check_last};
use super::write::Writing;
use super::{Chunk, Job, Stopping};
use crate::ids::{LinkId, WriteSeq};
use crate::limits::{HEADER_BYTES, REPLICATION_MAX};
use crate::machine::{DiskError, DiskOp, DiskResult, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::chunk_meta::{ChunkResumed, ResumeChunk};
use crate::wire::{Msg, Refusal, Status};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Replicas whose headers are read at once for this; an order beyond it comes again.
const RESUMES_MAX: usize = 64;

/// Orders whose headers are being read, with where they came from.
pub(super) type Resumes = BTreeMap<ReplicaId, Resume>;

/// See [`Resumes`].
#[derive(Clone, Debug)]
pub(super) struct Resume {
    from: (LinkId, u64),
    order: ResumeChunk,
    step: Step,
    /// Whether the file was synced for it.
    synced: bool,
}

/// What the disk is doing for it.
#[derive(Clone, Debug)]
enum Step {
    Sync,
    Header,
    /// The block in which it ends, or is to end, is read, by this header.
    Block(Arc<Header>),
    /// This header is written, durably.
    Raise(Arc<Header>),
}

impl Resume {
    const fn new(from: (LinkId, u64), order: ResumeChunk) -> Self {
        let step = if order.raised.is_some() {
            Step::Sync
        } else {
            Step::Header
        };
        Self {
            from,
            order,
            step,
            synced: false,
        }
    }
    /// Whether the replica is another one when it is done. Nobody may be told what it holds meanwhile.
    const fn raises(&self) -> bool {
        self.order.raised.is_some()
    }
}

impl Chunk {
    /// An order of the meta server. The term was checked.
    pub(super) fn resume_chunk(&mut self, link: LinkId, request: u64, order: ResumeChunk) {
        let id = ReplicaId {
            chunk: order.chunk,
            version: order.version,
        };
        let from = (link, request);
        let writing = self.writing.get(&id);
        if writing.is_some_and(|writing| writing.chain_id == order.chain) {
            return self.say_resumed(&Resume::new(from, order), Ok(()));
        }
        if let Err(refusal) = self.may_resume(id, &order) {
            return self.say_resumed(&Resume::new(from, order), Err(refusal));
        }
        let name = id.of(self.inventory.replicas[&id].file);
        let other_cut = |before: &Resume| before.order.cut != order.cut;
        if self.resumes.get(&id).is_some_and(other_cut) {
            // Another block is being read than this one needs.
            let why = format!("{} is still at work on {id}", self.who());
            let refusal = Refusal::new(Status::Busy, why);
            return self.say_resumed(&Resume::new(from, order), Err(refusal));
        }
        if let Some(before) = self.resumes.get_mut(&id) {
            // The header is being read for another order; it goes on for this one.
            (before.from, before.order) = (from, order);
            return;
        }
        let resume = Resume::new(from, order);
        let op = match resume.step {
            Step::Sync => DiskOp::Sync { file: name.path() },
            _ => header_of(name),
        };
        self.resume_step(id, resume, op);
    }

    fn resume_step(&mut self, id: ReplicaId, resume: Resume, op: DiskOp) {
        self.resumes.insert(id, resume);
        self.disk(Job::Resume(id), op);
    }

    fn say_resumed(&mut self, of: &Resume, outcome: Result<(), Refusal>) {
        let resumed = ChunkResumed {
            term: of.order.term,
            chunk: of.order.chunk,
            version: of.order.version,
            chain: of.order.chain,
            outcome,
        };
        self.send(of.from.0, Msg::new(of.from.1, resumed));
    }

    fn may_resume(&self, id: ReplicaId, order: &ResumeChunk) -> Result<u8, Refusal> {
        let who = self.who();
        let refuse = |status, why: String| Err(Refusal::new(status, why));
        let mut members = order.members.iter();
        let place = members.position(|place| place.node == self.identity.node);
        let position = place.and_then(|place| u8::try_from(place).ok());
        let few = order.members.len() <= usize::from(REPLICATION_MAX);
        let Some(position) = position.filter(|_| few) else {
            return refuse(
                Status::BadRequest,
                format!("{who} is not in the chain of {id}"),
            );
        };
        if order.raised.is_some_and(|raised| raised <= order.to) {
            let why = format!("{id} is at write {} already", order.to);
            return refuse(Status::BadRequest, why);
        }
        let ends = 1..=self.config.geometry.chunk_bytes();
        if order.cut.is_some_and(|cut| !ends.contains(&cut)) {
            let why = format!("{id} cannot be cut at {:?}", order.cut);
            return refuse(Status::BadRequest, why);
        }
        if self.stopping != Stopping::No {
            return refuse(Status::Busy, format!("{who} is stopping"));
        }
        if self.writing.contains_key(&id) || self.parked.contains_key(&id) {
            let why = format!("{id} takes pieces in another chain on {who}");
            return refuse(Status::Exists, why);
        }
        let replica = self.inventory.replicas.get(&id);
        let Some(replica) = replica.filter(|replica| replica.standing == Standing::Served) else {
            return refuse(Status::NotServed, format!("{id} is not served on {who}"));
        };
        if !(order.from..=order.to).contains(&replica.wseq) {
            let (has, from, to) = (replica.wseq, order.from, order.to);
            let why = format!("{id} is at write {has} on {who}, not at one of {from} to {to}");
            return refuse(Status::ChainBroken, why);
        }
        let full = self.resumes.len() >= RESUMES_MAX && !self.resumes.contains_key(&id);
        if full || self.is_at_work_on(id) || self.copies.contains_key(&id) {
            return refuse(Status::Busy, format!("{who} is still at work on {id}"));
        }
        Ok(position)
    }

    /// Whether the disk has something to do yet with what an earlier chain of this replica left.
    pub(super) fn is_at_work_on(&self, id: ReplicaId) -> bool {
        let of_it = |job: &Job| match job {
            Job::Piece { id: of, .. } | Job::Sync(of) | Job::SyncReads(of) => *of == id,
            Job::Seal(seal, _) => seal.id() == id,
            Job::Place(place) => place.id() == id,
            Job::Recall(recall) => recall.id() == id,
            _ => false,
        };
        self.jobs.values().any(of_it) || self.resumes.get(&id).is_some_and(Resume::raises)
    }

    pub(super) fn resume_came(&mut self, id: ReplicaId, result: DiskResult) {
        let Some(resume) = self.resumes.remove(&id) else {
            return;
        };
        if matches!(resume.step, Step::Raise(..)) {
            return self.raise_came(id, resume, result.map(|_| ()));
        }
        if let Err(refusal) = self.may_resume(id, &resume.order) {
            return self.say_resumed(&resume, Err(refusal));
        }
        let replica = &self.inventory.replicas[&id];
        let (name, durable) = (id.of(replica.file), replica.durable());
        let geometry = self.config.geometry;
        let known = match &resume.step {
            Step::Sync => {
                if let Err(error) = result {
                    let refusal = self.cannot_raise(id, &error);
                    return self.say_resumed(&resume, Err(refusal));
                }
                let (step, synced) = (Step::Header, true);
                let resume = Resume {
                    step,
                    synced,
                    ..resume
                };
                return self.resume_step(id, resume, header_of(name));
            }
            Step::Block(header) => Some(Arc::clone(header)),
            Step::Header | Step::Raise(..) => None,
        };
        let (header, block) = self.header_or_block(name, known, result);
        let header = match header {
            Ok(header) if header.wseq == durable.wseq && header.len == durable.len => header,
            Ok(header) if header.wseq > durable.wseq => {
                // A sync that was at work when its chain broke has written it: sealing finds that.
                let why = format!("{id} has changed since it was sealed");
                return self.say_resumed(&resume, Err(Refusal::new(Status::Busy, why)));
            }
            other => {
                let why = other.err().unwrap_or("its newest header is gone".into());
                self.replica_rotted(id, format!("{}: {why}", name.path()));
                let refusal = Refusal::new(Status::NotServed, format!("{id}: {why}"));
                return self.say_resumed(&resume, Err(refusal));
            }
        };
        if !self.is_in_place(id, &header) {
            // The next header would say that its page is.
            let why = format!("{}: {NOT_IN_PLACE}", name.path());
            self.report_damage(id, None, why.clone());
            return self.say_resumed(&resume, Err(Refusal::new(Status::NotServed, why)));
        }
        let is_raised = resume.raises();
        let shorter = resume.order.cut.filter(|at| *at < header.len && is_raised);
        let needed = match shorter {
            Some(at) => self.cut_block(name, &header, at),
            None => self.last_block(name, &header),
        };
        if let (Some(op), None) = (needed, &block) {
            let step = Step::Block(header);
            return self.resume_step(id, Resume { step, ..resume }, op);
        }
        let block = block.unwrap_or_default();
        let checked = match shorter {
            Some(at) => cut(geometry, &header, at, &block).map(Arc::new),
            None => check_last(geometry, &header, &block).map(|()| header),
        };
        let header = match checked {
            Ok(header) => header,
            Err(bad) => {
                let refusal = Refusal::new(Status::Corrupt, self.block_is_bad(name, &bad));
                return self.say_resumed(&resume, Err(refusal));
            }
        };
        match resume.order.raised {
            None => self.resumed(id, resume, &header),
            Some(_) if !resume.synced => {
                let step = Step::Sync;
                let op = DiskOp::Sync { file: name.path() };
                self.resume_step(id, Resume { step, ..resume }, op);
            }
            Some(wseq) => self.raise(id, resume, &header, wseq),
        }
    }

    /// Writes a header that says that the replica is at another write, in the slot that does not hold the newest one.
    fn raise(&mut self, id: ReplicaId, resume: Resume, header: &Header, wseq: WriteSeq) {
        // Its redo runs are in their places, which were synced since.
        let raised = Header {
            generation: header.generation + 1,
            wseq,
            redo: Vec::new(),
            ..header.clone()
        };
        let sync = if planted::is(Bug::RaiseUnsynced) {
            SyncMode::Later
        } else {
            SyncMode::Now
        };
        let op = DiskOp::Write {
            file: header.name.path(),
            offset: Slot::of(raised.generation).offset() as u64,
            data: vec![Bytes::from(raised.encode())],
            sync,
        };
        let step = Step::Raise(Arc::new(raised));
        self.resume_step(id, Resume { step, ..resume }, op);
    }

    fn raise_came(&mut self, id: ReplicaId, resume: Resume, result: Result<(), DiskError>) {
        let Step::Raise(header) = resume.step.clone() else {
            unreachable!("the caller has seen it");
        };
        self.inventory.tables.forget(id);
        if let Err(error) = result {
            let refusal = self.cannot_raise(id, &error);
            self.spoil_header(id, Slot::of(header.generation));
            return self.say_resumed(&resume, Err(refusal));
        }
        let digest = header.digest(self.config.geometry);
        if let Some(replica) = self.inventory.replicas.get_mut(&id) {
            (replica.wseq, replica.len, replica.digest) = (header.wseq, header.len, digest);
            self.placed.remove(&id);
        }
        let at = header.wseq;
        let order = ResumeChunk {
            from: at,
            to: at,
            raised: None,
            ..resume.order.clone()
        };
        let resume = Resume { order, ..resume };
        match self.may_resume(id, &resume.order) {
            Ok(_) => {
                probe::hit(Probe::ReplicaRaised);
                self.resumed(id, resume, &header);
            }
            Err(refusal) => self.say_resumed(&resume, Err(refusal)),
        }
    }

    /// The disk has failed a replica that another session was to write further.
    fn cannot_raise(&mut self, id: ReplicaId, error: &DiskError) -> Refusal {
        let why = format!("{} cannot write the header of {id}: {error}", self.who());
        if let Some(replica) = self.inventory.replicas.get_mut(&id) {
            // The chain that it was in may have ended in an earlier process.
            let broken = replica.broken.get_or_insert_default();
            (broken.why, broken.failed_here) = (why.clone(), true);
        }
        self.place_is_unsure(id);
        Refusal::new(Status::LocalIo, why)
    }

    /// The replica takes pieces from now on.
    fn resumed(&mut self, id: ReplicaId, resume: Resume, header: &Header) {
        let Ok(position) = self.may_resume(id, &resume.order) else {
            unreachable!("the caller has asked");
        };
        let name = header.name;
        let (geometry, now) = (self.config.geometry, self.now.mono);
        let mut writing = Writing::resumed(name, header, geometry, &resume.order, position, now);
        if planted::is(Bug::ResumedAtOwnWrite) {
            writing.applied = header.wseq;
            writing.last_piece = crate::ids::PieceNumber(header.wseq.0);
        }
        probe::hit(if header.wseq > resume.order.from {
            Probe::ResumedAhead
        } else {
            Probe::Resumed
        });
        tracing::info!(%id, chain = %resume.order.chain, position, "a replica takes pieces again");
        self.inventory.tables.forget(id);
        self.reads_are_stale(id);
        if let Some(replica) = self.inventory.replicas.get_mut(&id) {
            replica.broken = None;
        }
        self.writing.insert(id, writing);
        self.park_later();
        self.say_resumed(&resume, Ok(()));
    }
}

/// Reads both slots.
fn header_of(name: ChunkName) -> DiskOp {
    let len = usize::try_from(HEADER_BYTES).expect("a header is small");
    let (file, offset) = (name.path(), 0);
    DiskOp::Read { file, offset, len }
}
