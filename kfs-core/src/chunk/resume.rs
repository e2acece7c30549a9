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
use super::header::Header;
use super::inventory::Standing;
use super::name::ReplicaId;
use super::tail::{NOT_IN_PLACE, Tail};
use super::write::Writing;
use super::{Chunk, Job, Stopping};
use crate::ids::LinkId;
use crate::limits::{HEADER_BYTES, REPLICATION_MAX};
use crate::machine::{DiskOp, DiskResult};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::chunk_meta::{ChunkResumed, ResumeChunk};
use crate::wire::{Msg, Refusal, Status};
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
    /// Of the replica, once it was read; the block in which it ends is read then.
    header: Option<Arc<Header>>,
}

impl Resume {
    const fn new(from: (LinkId, u64), order: ResumeChunk) -> Self {
        Self {
            from,
            order,
            header: None,
        }
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
        let file = id.of(self.inventory.replicas[&id].file).path();
        let before = self.resumes.remove(&id);
        let reads = before.is_none();
        let header = before.and_then(|before| before.header);
        let resume = Resume {
            header,
            ..Resume::new(from, order)
        };
        self.resumes.insert(id, resume);
        if reads {
            let len = usize::try_from(HEADER_BYTES).expect("a header is small");
            let offset = 0;
            self.disk(Job::Resume(id), DiskOp::Read { file, offset, len });
        }
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
            Job::Piece { id: of, .. } | Job::Sync(of) => *of == id,
            Job::Seal(seal, _) => seal.id() == id,
            Job::Place(of, ..) => *of == id,
            Job::Recall(recall) => recall.id() == id,
            _ => false,
        };
        self.jobs.values().any(of_it)
    }

    pub(super) fn resume_came(&mut self, id: ReplicaId, result: DiskResult) {
        let Some(resume) = self.resumes.remove(&id) else {
            return;
        };
        let position = match self.may_resume(id, &resume.order) {
            Ok(position) => position,
            Err(refusal) => return self.say_resumed(&resume, Err(refusal)),
        };
        let replica = &self.inventory.replicas[&id];
        let (name, durable) = (id.of(replica.file), replica.durable());
        let geometry = self.config.geometry;
        let (header, block) = self.header_or_block(name, resume.header, result);
        let resume = Resume {
            header: None,
            ..resume
        };
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
        if let (Some(op), None) = (self.last_block(name, &header), &block) {
            let header = Some(header);
            self.resumes.insert(id, Resume { header, ..resume });
            return self.disk(Job::Resume(id), op);
        }
        let tail = match Tail::of(geometry, &header, &block.unwrap_or_default()) {
            Ok(tail) => tail,
            Err(bad) => {
                let refusal = Refusal::new(Status::Corrupt, self.tail_is_bad(name, &bad));
                return self.say_resumed(&resume, Err(refusal));
            }
        };
        let now = self.now.mono;
        let of = (&*header, tail);
        let mut writing = Writing::resumed(name, of, geometry, &resume.order, position, now);
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
        if let Some(replica) = self.inventory.replicas.get_mut(&id) {
            replica.broken = None;
        }
        self.writing.insert(id, writing);
        self.park_later();
        self.say_resumed(&resume, Ok(()));
    }
}
