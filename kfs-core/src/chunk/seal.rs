//! Sealing: a replica takes no more pieces, and says what it holds durably.
//!
//! By the meta server's order, of a chunk at rest, or of one that is to be written in another chain. A header may have
//! been written that nobody has heard of, when a chain broke in the middle of a sync: so what is said is read from the
//! file, after that is synced, and after its redo runs are in their places.
use super::header::{Header, Slot};
use super::inventory::Standing;
use super::name::{ChunkName, ReplicaId};
use super::redo::{After, NOT_IN_PLACE};
use super::{Chunk, Job};
use crate::ids::{LinkId, Term, WriteSeq};
use crate::limits::HEADER_BYTES;
use crate::machine::{DiskDone, DiskOp, DiskResult, FileName, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::chunk_meta::{ChunkSealed, Content, SealChunk, Unsynced};
use crate::wire::{Msg, Refusal, Status};
use bytes::Bytes;
use std::collections::VecDeque;

/// Replicas that are sealed here at once.
pub const SEALS_MAX: usize = 64;

/// A replica that takes no more pieces: who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    id: ReplicaId,
    term: Term,
    from: (LinkId, u64),
    unsynced: Unsynced,
    next_lost: bool,
}

impl Seal {
    pub(super) const fn id(&self) -> ReplicaId {
        self.id
    }
}

/// The file of a replica whose chain has ended.
#[derive(Debug)]
enum Sealed {
    /// What its header says is durable.
    Clean(FileName),
    /// Its header may say more than is durable.
    Unsure(FileName),
}

/// What is done before it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SealStep {
    Sync,
    Header,
    /// As [`SealStep::Header`], once its redo runs were written in their places.
    Recalled,
    /// The places of redo runs are made durable, so that the other slot's header does without it.
    Place,
    /// As [`SealStep::Recalled`], once that is so.
    Placed,
    /// The header is written into the other slot too: from now on one that rots is no loss.
    OtherSlot,
    /// The sync could not be made.
    Failed,
}

impl Chunk {
    /// An order of the meta server: a replica takes no more pieces. The term was checked.
    pub(super) fn seal_chunk(&mut self, link: LinkId, request: u64, order: &SealChunk) {
        let id = ReplicaId {
            chunk: order.chunk,
            version: order.version,
        };
        let sealed = self.sealed(id, order.unsynced);
        let replica = self.inventory.replicas.get(&id);
        let broken = replica.and_then(|replica| replica.broken.as_ref());
        let seal = Seal {
            id,
            term: order.term,
            from: (link, request),
            unsynced: order.unsynced,
            next_lost: broken.is_some_and(|broken| broken.next_lost),
        };
        match sealed {
            Ok(Sealed::Clean(file)) => self.read_header_of(seal, SealStep::Header, file),
            Ok(Sealed::Unsure(file)) => {
                self.disk(Job::Seal(seal, SealStep::Sync), DiskOp::Sync { file });
            }
            Err(refusal) => self.say_sealed(seal, Err(refusal)),
        }
    }

    /// Goes on with sealing a replica whose redo runs are in their places, or cannot be written there.
    pub(super) fn read_sealed(&mut self, seal: Seal) {
        let Some(replica) = self.inventory.replicas.get(&seal.id) else {
            return self.seal_finds_nothing(seal);
        };
        let file = seal.id.of(replica.file).path();
        self.read_header_of(seal, SealStep::Recalled, file);
    }

    fn seal_finds_nothing(&mut self, seal: Seal) {
        let why = format!("{} is not on {} any more", seal.id, self.who());
        self.say_sealed(seal, Err(Refusal::new(Status::NotServed, why)));
    }

    fn read_header_of(&mut self, seal: Seal, step: SealStep, file: FileName) {
        let len = usize::try_from(HEADER_BYTES).expect("a header is small");
        let offset = 0;
        self.disk(Job::Seal(seal, step), DiskOp::Read { file, offset, len });
    }

    fn say_sealed(&mut self, seal: Seal, outcome: Result<Content, Refusal>) {
        let sealed = ChunkSealed {
            term: seal.term,
            chunk: seal.id.chunk,
            version: seal.id.version,
            outcome,
            next_lost: seal.next_lost,
        };
        self.send(seal.from.0, Msg::new(seal.from.1, sealed));
    }

    /// A header may have been written that nobody has heard of, when the chain broke in the middle of a sync: so how
    /// far the replica is durable is read from it, once it is synced.
    pub(super) fn seal_step_done(&mut self, seal: Seal, step: SealStep, result: DiskResult) {
        let id = seal.id;
        let Some(name) = self.inventory.replicas.get(&id).map(|at| id.of(at.file)) else {
            return self.seal_finds_nothing(seal);
        };
        if step == SealStep::Place && result.is_ok() {
            return self.read_header_of(seal, SealStep::Placed, name.path());
        }
        if step == SealStep::OtherSlot && result.is_ok() {
            self.placed.remove(&id);
        }
        if matches!(step, SealStep::Sync | SealStep::Place) && result.is_err() {
            self.place_is_unsure(id);
        }
        if matches!(step, SealStep::OtherSlot | SealStep::Place) {
            // The header stands in the other slot as before, whatever came of this one.
            if let Err(error) = result {
                tracing::warn!(%id, %error, "the header of a replica at rest could not be written a second time");
            }
            let replica = &self.inventory.replicas[&id];
            let content = replica.content();
            return self.say_sealed(seal, Ok(content));
        }
        if step == SealStep::Failed {
            let newer = self.read_header(name, result);
            let replica = &self.inventory.replicas[&id];
            if let Some(header) = newer.ok().filter(|header| header.wseq > replica.wseq) {
                self.spoil_header(id, Slot::of(header.generation));
            }
            return;
        }
        if step == SealStep::Sync {
            let failed = result.is_err();
            if let Err(error) = result {
                // As in [`Chunk::sync_failed`]: a header that a sync has written and not saved may stand there.
                let why = format!("{} cannot sync {id}: {error}", self.who());
                self.say_sealed(seal, Err(Refusal::new(Status::LocalIo, why)));
            }
            let step = if failed {
                SealStep::Failed
            } else {
                SealStep::Header
            };
            return self.read_header_of(seal, step, name.path());
        }
        let geometry = self.config.geometry;
        let stands_twice = match &result {
            Ok(DiskDone::Data(bytes)) => Header::is_in_both_slots(bytes, geometry),
            Ok(_) | Err(_) => false,
        };
        let header = self.read_header(name, result);
        let replica = &self.inventory.replicas[&id];
        if let Ok(header) = &header
            && header.wseq >= replica.wseq
            && !self.is_in_place(id, header)
        {
            self.inventory.tables.forget(id);
            if step == SealStep::Header {
                // A sync has written it whose chain broke then, or the disk has failed its page before.
                return self.recall(header, true, After::Seal(seal));
            }
            // Its header would say that the page is in its place.
            let why = format!("{}: {NOT_IN_PLACE}", name.path());
            self.report_damage(id, None, why.clone());
            return self.say_sealed(seal, Err(Refusal::new(Status::NotServed, why)));
        }
        let replica = self.inventory.replicas.get_mut(&id).expect("just found");
        let outcome = match header {
            Ok(header) if header.wseq >= replica.wseq && header.len >= replica.len => {
                (replica.wseq, replica.len) = (header.wseq, header.len);
                replica.digest = header.digest(geometry);
                let again = !stands_twice || planted::is(Bug::SealWritesAgain);
                if seal.unsynced == Unsynced::Kept && again {
                    self.inventory.tables.forget(id);
                    if !header.redo.is_empty() && step != SealStep::Placed {
                        let file = name.path();
                        return self.disk(Job::Seal(seal, SealStep::Place), DiskOp::Sync { file });
                    }
                    return self.write_other_slot(seal, name, &header);
                }
                Ok(replica.content())
            }
            Ok(_) => Err("its newest header is gone".to_owned()),
            Err(why) => Err(why),
        };
        self.inventory.tables.forget(id);
        if let Err(why) = &outcome {
            // As who reads it would find: it is made anew, and nobody is sent here for it again.
            self.replica_rotted(id, format!("{}: {why}", name.path()));
        }
        let refuse = |why| Refusal::new(Status::NotServed, format!("{id}: {why}"));
        self.say_sealed(seal, outcome.map_err(refuse));
    }

    /// Writes the header of a replica that stays as it is into the slot that does not hold it. No sync: one slot has
    /// it, durably, and until the other has it too it is as if nothing had been written. So that is done once: the
    /// newer slot may be the one that no sync has covered.
    fn write_other_slot(&mut self, seal: Seal, name: ChunkName, header: &Header) {
        let generation = if planted::is(Bug::SealOverActiveSlot) {
            header.generation + 2
        } else {
            header.generation + 1
        };
        let again = Header {
            generation,
            redo: Vec::new(),
            ..header.clone()
        };
        let op = DiskOp::Write {
            file: name.path(),
            offset: Slot::of(generation).offset() as u64,
            data: vec![Bytes::from(again.encode())],
            sync: SyncMode::Later,
        };
        self.disk(Job::Seal(seal, SealStep::OtherSlot), op);
    }

    /// Ends the chain of a replica that is durable, and gives its file; one that is not is synced, and who asks asks
    /// again.
    fn sealed(&mut self, id: ReplicaId, unsynced: Unsynced) -> Result<Sealed, Refusal> {
        let who = self.who();
        let replica = self.inventory.replicas.get(&id);
        let Some(replica) = replica.filter(|replica| replica.standing == Standing::Served) else {
            let why = format!("{id} is not served on {who}");
            return Err(Refusal::new(Status::NotServed, why));
        };
        let failed = replica.broken.as_ref().filter(|broken| broken.failed_here);
        if let (Some(broken), Unsynced::Dropped) = (failed, unsynced) {
            return Err(Refusal::new(Status::LocalIo, broken.why.clone()));
        }
        let durable = replica.durable();
        // What a sync was at work on when its chain broke may stand in the header, and not be durable.
        let syncs = self.writing.get(&id).map(|writing| &writing.syncs);
        let is_clean = replica.broken.is_none() && syncs.is_none_or(VecDeque::is_empty);
        if let Some(writing) = self.writing.get(&id)
            && writing.applied > durable.wseq
            && unsynced == Unsynced::Kept
        {
            probe::hit(Probe::SealSyncs);
            if writing.syncs.is_empty() {
                self.sync_here(id);
            }
            let why = format!("{id} is being synced on {who}");
            return Err(Refusal::new(Status::Busy, why));
        }
        if self.copies.contains_key(&id) {
            let why = format!("{id} is being replaced by a copy on {who}");
            return Err(Refusal::new(Status::Busy, why));
        }
        let why = match unsynced {
            Unsynced::Kept => format!("{id} is at rest: it takes no more pieces on {who}"),
            Unsynced::Dropped => {
                format!("{id} is to be written in another chain: it takes no more pieces on {who}")
            }
        };
        self.break_chain(id, WriteSeq(0), &why);
        if self.is_at_work_on(id) || self.seals() >= SEALS_MAX {
            let why = format!("{who} is still at work on {id}");
            return Err(Refusal::new(Status::Busy, why));
        }
        let file = id.of(self.inventory.replicas[&id].file).path();
        Ok(if is_clean {
            Sealed::Clean(file)
        } else {
            Sealed::Unsure(file)
        })
    }

    /// Replicas that are being sealed.
    pub(super) fn seals(&self) -> usize {
        let seals = |job: &&Job| matches!(job, Job::Seal(..));
        self.jobs.values().filter(seals).count()
    }
}
