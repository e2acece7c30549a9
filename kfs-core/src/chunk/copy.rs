//! Copies: a replica made here from one that another server has, by the meta server's order.
//!
//! Only chunks at rest are copied, and who gives one takes no more pieces for it, so what is read does not change
//! under the copy. It is read like a client reads, all that is durable there, each range checked against its sums as it comes, and written to a file of
//! another name. That one gets the name of a replica when all of it is durable, so a crash leaves a whole
//! replica or none; what is left of a copy is removed at the next start. Blocks of zeros stay holes.
//!
//! A replica that stands here already is replaced by the rename: one that is damaged, which stays as it is until then
//! as it may have blocks that nobody else has, and one that has less than another, which is read and counts until
//! then. Neither is sealed or takes pieces while it is to be replaced; so a copy never takes the place of a replica
//! that has come further than when it was ordered.
use super::header::{FIRST_GENERATION, Header, Slot};
use super::inventory::{Replica, Standing};
use super::name::{CHUNKS, ChunkName, ReplicaId};
use super::table::Table;
use super::trash::Step as TrashStep;
use super::{Chunk, Job, Stopping};
use crate::block::spans;
use crate::ids::{Digest, LinkId, Term, WriteSeq};
use crate::limits::HEADER_BYTES;
use crate::machine::{CloseReason, DiskError, DiskOp, FileName, Output, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::{ChunkCopied, Content, CopyChunk};
use crate::wire::client_chunk::{RangeRead, ReadRange};
use crate::wire::{Msg, Refusal, Role, Status};
use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Who was too busy for a range is asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Copies that are made here at once.
pub const COPIES_MAX: usize = 4;
/// Ranges of one copy that are asked for or being written.
pub const RANGES_MAX: usize = 2;

/// A replica that is being made.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    name: ChunkName,
    order: CopyChunk,
    /// Where the order came from.
    from: (LinkId, u64),
    /// To who has it.
    source: LinkId,
    stage: Stage,
    /// Where the next range begins that is asked for, in bytes.
    next: u64,
    /// Ranges asked for and not come: where they begin.
    asked: BTreeSet<u64>,
    /// Those that who has it was too busy for, and when they are asked for again.
    again: BTreeSet<u64>,
    again_at: Instant,
    /// Writes that the disk has.
    at_disk: usize,
    table: Table,
    /// Of what it holds, once all of it has come.
    digest: Digest,
    /// When something last came of it.
    moved: Instant,
    /// Somebody ordered meanwhile that the replica goes.
    doomed: bool,
    /// What the replica counted for that it is about to replace.
    replaces: Option<Standing>,
}

/// How far a copy is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// What an earlier one left behind goes.
    Clearing,
    Creating,
    Ranges,
    /// The header is being written and everything synced.
    Header,
    Renaming,
    Naming,
}

impl Copy {
    const fn id(&self) -> ReplicaId {
        self.name.id()
    }
}

/// Copies that are being made.
pub(super) type Copies = BTreeMap<ReplicaId, Copy>;

impl Chunk {
    /// An order of the meta server. The term was checked.
    pub(super) fn copy_chunk(&mut self, link: LinkId, request: u64, order: CopyChunk) {
        let name = ChunkName {
            file: order.file,
            chunk: order.chunk,
            version: order.version,
        };
        let id = name.id();
        if let Some(known) = self.copies.get_mut(&id)
            && (known.order.has, known.order.term) == (order.has, order.term)
            && !known.doomed
        {
            known.from = (link, request);
            return;
        }
        // Who is to have a copy is in no chain that counts: one that was raised, and whose takeover began anew.
        let who = self.who();
        self.break_chain(id, WriteSeq(0), &format!("{id} is to be a copy on {who}"));
        let outcome = match self.may_copy(name, &order) {
            Ok(None) => return self.begin_copy(name, (link, request), order),
            Ok(Some(has)) => Ok(has),
            Err(refusal) => Err(refusal),
        };
        self.send(link, copied(request, order.term, id, outcome));
    }

    /// Whether a copy may be made; or what stands here already and is good.
    fn may_copy(&self, name: ChunkName, order: &CopyChunk) -> Result<Option<Content>, Refusal> {
        let id = name.id();
        let refuse = |status, why: String| Err(Refusal::new(status, why));
        let who = self.who();
        if self.stopping != Stopping::No {
            return refuse(Status::Busy, format!("{who} is stopping"));
        }
        if order.has.len > self.config.geometry.chunk_bytes() || order.has.len == 0 {
            return refuse(
                Status::BadRequest,
                format!("no chunk has {} bytes to copy", order.has.len),
            );
        }
        if let Some(replica) = self.inventory.replicas.get(&id) {
            if replica.file != name.file {
                return refuse(Status::Exists, format!("{who} has {id} of another file"));
            }
            if self.is_at_work_on(id) {
                return refuse(Status::Busy, format!("{who} is still at work on {id}"));
            }
            let bad = self.damage.keys().any(|(damaged, _)| *damaged == id);
            if replica.standing == Standing::Served && !bad && replica.durable().covers(order.has) {
                return Ok(Some(replica.content()));
            }
            if replica.standing == Standing::Unconfirmed {
                return refuse(Status::Busy, format!("{id} is not yet confirmed on {who}"));
            }
        }
        let on_its_way_out = |job: &Job| match job {
            Job::Trash(TrashStep::Renamed(_, gone, _)) => gone.id() == id,
            // Of one that was given up: it must not reach into the file of the next.
            Job::Copy(of, ..) => *of == id,
            _ => false,
        };
        if self.copies.contains_key(&id)
            || self.is_at_work_on(id)
            || self.jobs.values().any(on_its_way_out)
        {
            return refuse(Status::Busy, format!("{id} is on its way on {who}"));
        }
        let (copies, _) = self.copies_held();
        if copies >= COPIES_MAX {
            return refuse(Status::Busy, format!("{who} makes {copies} copies already"));
        }
        if self.space.lacks(order.has.len) {
            return refuse(
                Status::NoRoom,
                format!("{who} has no room for a copy of {id}"),
            );
        }
        Ok(None)
    }

    /// Copies that are being made, those included that were given up and that the disk still has to do with; and the
    /// disk's operations for all of them.
    pub(super) fn copies_held(&self) -> (usize, usize) {
        let of = |job: &Job| match job {
            Job::Copy(id, ..) => Some(*id),
            _ => None,
        };
        let jobs: Vec<ReplicaId> = self.jobs.values().filter_map(of).collect();
        let ids: BTreeSet<_> = self.copies.keys().chain(&jobs).collect();
        (ids.len(), jobs.len())
    }

    fn begin_copy(&mut self, name: ChunkName, from: (LinkId, u64), order: CopyChunk) {
        probe::hit(Probe::CopyBegun);
        let source = self.links.source(&mut self.outbox, order.source.addr);
        let copy = Copy {
            name,
            order,
            from,
            source,
            stage: Stage::Clearing,
            next: 0,
            asked: BTreeSet::new(),
            again: BTreeSet::new(),
            again_at: self.now.mono,
            at_disk: 0,
            table: Table::new(self.config.geometry),
            digest: Digest::default(),
            moved: self.now.mono,
            doomed: false,
            replaces: None,
        };
        self.copies.insert(name.id(), copy);
        let file = name.copy_path();
        self.disk(
            Job::Copy(name.id(), source, Stage::Clearing),
            DiskOp::Remove { file },
        );
    }

    /// A step at the disk ended. Steps of a copy that was given up meanwhile are not of the one that is made now:
    /// the link tells them apart.
    pub(super) fn copy_step_done(
        &mut self,
        id: ReplicaId,
        source: LinkId,
        stage: Stage,
        result: Result<(), DiskError>,
    ) {
        let now = self.now.mono;
        let Some(copy) = self
            .copies
            .get_mut(&id)
            .filter(|copy| copy.source == source && copy.stage == stage)
        else {
            return;
        };
        copy.moved = now;
        let file = copy.name.copy_path();
        let failed = match result {
            Err(DiskError::NotFound) if stage == Stage::Clearing => None,
            Err(error) => Some(error),
            Ok(()) => None,
        };
        if let Some(error) = failed {
            let status = if error == DiskError::NoSpace {
                Status::NoRoom
            } else {
                Status::LocalIo
            };
            let why = format!("{} cannot write a copy of {id}: {error}", self.who());
            return self.copy_fails(id, Refusal::new(status, why));
        }
        match stage {
            Stage::Clearing => {
                copy.stage = Stage::Creating;
                let op = DiskOp::Create { file, zeroed: 0 };
                self.disk(Job::Copy(id, source, Stage::Creating), op);
            }
            Stage::Creating => {
                copy.stage = Stage::Ranges;
                self.copy_goes_on(id);
            }
            Stage::Ranges => {
                copy.at_disk -= 1;
                self.copy_goes_on(id);
            }
            Stage::Header => self.copy_is_whole(id),
            Stage::Renaming => {
                copy.stage = Stage::Naming;
                if planted::is(Bug::CopyUnnamed) {
                    return self.copy_ends(id);
                }
                let dir = FileName::new(CHUNKS);
                self.disk(
                    Job::Copy(id, source, Stage::Naming),
                    DiskOp::SyncDir { dir },
                );
            }
            Stage::Naming => self.copy_ends(id),
        }
    }

    /// Asks for what may be asked for; when all is written, goes on to the header.
    fn copy_goes_on(&mut self, id: ReplicaId) {
        let piece = u64::from(self.config.geometry.piece_bytes);
        let Some(copy) = self.copies.get_mut(&id) else {
            return;
        };
        if copy.stage != Stage::Ranges {
            return;
        }
        let has = copy.order.has;
        let mut asks = Vec::new();
        let now = self.now.mono;
        while copy.asked.len() + copy.at_disk < RANGES_MAX {
            let offset = if !copy.again.is_empty() && copy.again_at <= now {
                copy.again.pop_first().expect("there is one")
            } else if copy.next < has.len {
                let next = copy.next;
                copy.next = has.len.min(next + piece);
                next
            } else {
                break;
            };
            copy.asked.insert(offset);
            let len = piece.min(has.len - offset);
            let ask = ReadRange {
                chunk: id.chunk,
                version: id.version,
                offset,
                len: u32::try_from(len).expect("at most a piece"),
                log: has,
            };
            asks.push(Msg::new(ask.offset / piece + 1, ask));
        }
        let source = copy.source;
        let is_written = copy.asked.is_empty() && copy.again.is_empty() && copy.at_disk == 0;
        if copy.next == has.len && is_written {
            self.write_copy_header(id);
        }
        for ask in asks {
            self.send(source, ask);
        }
    }

    /// A range of what is copied came, or never will.
    pub(super) fn range_came(&mut self, link: LinkId, request: u64, head: RangeRead, body: Bytes) {
        let geometry = self.config.geometry;
        let piece = u64::from(geometry.piece_bytes);
        let now = self.now.mono;
        let offset = request.saturating_sub(1).saturating_mul(piece);
        let Some(copy) = self.copies.values_mut().find(|copy| copy.source == link) else {
            return self.close(link, "nothing is copied over this link".into());
        };
        if !copy.asked.remove(&offset) {
            return self.close(link, "a range that was not asked for".into());
        }
        if let Err(refusal) = &head.outcome
            && refusal.status == Status::Busy
        {
            probe::hit(Probe::CopyAsksAgain);
            copy.again.insert(offset);
            copy.again_at = now + AGAIN_AFTER;
            return;
        }
        copy.moved = now;
        let (id, has, peer) = (copy.id(), copy.order.has, copy.order.source.addr);
        let due = piece.min(has.len - offset);
        let sums = match head.outcome {
            Err(refusal) => {
                let why = format!("{peer} does not give {id}: {}", refusal.detail);
                return self.copy_fails(id, Refusal::new(refusal.status, why));
            }
            Ok(sums) => sums,
        };
        let whole = body.len() as u64 == due
            && (sums.match_bytes(geometry, offset, &body) || planted::is(Bug::CopyUnchecked));
        if !whole {
            self.counts.ranges_bad += 1;
            probe::hit(Probe::CopyRangeBad);
            let why = format!(
                "{peer} sent {} bytes of {id} for {due} that do not match their sums",
                body.len()
            );
            return self.copy_fails(id, Refusal::new(Status::Corrupt, why));
        }
        // What is zeros is a hole: so a sparse chunk stays sparse.
        let blocks: Vec<_> = spans(geometry, offset, due).collect();
        let mut writes = Vec::new();
        let mut at = 0;
        while at < blocks.len() {
            let is_hole = |block: usize| {
                let span = blocks[block];
                body[span.at..span.at + span.len as usize]
                    .iter()
                    .all(|byte| *byte == 0)
            };
            if is_hole(at) {
                at += 1;
                continue;
            }
            let first = at;
            while at < blocks.len() && !is_hole(at) {
                at += 1;
            }
            let from = blocks[first].at;
            let to = blocks[at - 1].at + blocks[at - 1].len as usize;
            let bytes = body.slice(from..to);
            let (places, zeros) =
                copy.table
                    .write(offset + from as u64, &bytes, &sums.blocks[first..at]);
            assert!(
                places.len() == 1 && places[0].len() == bytes.len() && zeros == 0,
                "nothing of a copy is written over"
            );
            writes.push((offset + from as u64, bytes));
        }
        copy.at_disk += writes.len();
        let (file, source) = (copy.name.copy_path(), copy.source);
        for (from, bytes) in writes {
            self.space.taken += bytes.len() as u64;
            self.space.written += bytes.len() as u64;
            self.counts.bytes_copied += bytes.len() as u64;
            let op = DiskOp::Write {
                file: file.clone(),
                offset: HEADER_BYTES + from,
                data: vec![bytes],
                sync: SyncMode::Later,
            };
            self.disk(Job::Copy(id, source, Stage::Ranges), op);
        }
        self.copy_goes_on(id);
    }

    /// Everything is written: the header, in both of its slots, and a sync of the whole file.
    fn write_copy_header(&mut self, id: ReplicaId) {
        let cluster = self.identity.cluster;
        let copy = self.copies.get_mut(&id).expect("it was just found");
        copy.stage = Stage::Header;
        let mut header = Header {
            name: copy.name,
            len: copy.order.has.len,
            sums: copy.table.cut().sums,
            generation: FIRST_GENERATION,
            incarnation: copy.order.incarnation,
            cluster,
            wseq: copy.order.has.wseq,
            pieces: Vec::new(),
            redo: Vec::new(),
        };
        copy.digest = header.digest(self.config.geometry);
        let first = Bytes::from(header.encode());
        header.generation += 1;
        let data = vec![first, Bytes::from(header.encode())];
        let (file, source) = (copy.name.copy_path(), copy.source);
        self.space.taken += HEADER_BYTES;
        self.space.written += HEADER_BYTES;
        let sync = if planted::is(Bug::CopyUnsynced) {
            SyncMode::Later
        } else {
            SyncMode::Now
        };
        let offset = Slot::of(FIRST_GENERATION).offset() as u64;
        let op = DiskOp::Write {
            file,
            offset,
            data,
            sync,
        };
        self.disk(Job::Copy(id, source, Stage::Header), op);
    }

    /// The copy is durable under its own name: it takes the replica's, whatever stands there.
    fn copy_is_whole(&mut self, id: ReplicaId) {
        let why = format!("{} replaces {id} by a copy", self.who());
        let mut replaces = None;
        if self.inventory.replicas.contains_key(&id) {
            probe::hit(Probe::CopyReplaces);
            self.break_chain(id, WriteSeq(0), &why);
            if self.is_at_work_on(id) {
                // What the disk still has to do with the old file must not reach into the new one.
                let why = format!("{} is still at work on {id}", self.who());
                return self.copy_fails(id, Refusal::new(Status::Busy, why));
            }
            // Whoever reads the old one now is told to look elsewhere: it is not compared with the new one's sums.
            if let Some(replica) = self.inventory.replicas.get_mut(&id) {
                replaces = Some(replica.standing);
                replica.standing = Standing::Damaged;
            }
            self.refuse_reads(id, &Refusal::new(Status::NotServed, why));
        }
        let copy = self.copies.get_mut(&id).expect("it was just found");
        copy.stage = Stage::Renaming;
        copy.replaces = replaces;
        let (from, to, source) = (copy.name.copy_path(), copy.name.path(), copy.source);
        self.disk(
            Job::Copy(id, source, Stage::Renaming),
            DiskOp::Rename { from, to },
        );
    }

    /// The replica stands, durably.
    fn copy_ends(&mut self, id: ReplicaId) {
        let copy = self.copies.remove(&id).expect("it was just found");
        self.drop_source(copy.source);
        if self.inventory.replicas.contains_key(&id) {
            self.forget_replica(id);
        }
        let here = self.station.term() == Some(copy.order.term);
        let replica = Replica {
            file: copy.name.file,
            incarnation: copy.order.incarnation,
            wseq: copy.order.has.wseq,
            len: copy.order.has.len,
            digest: copy.digest,
            standing: if here {
                Standing::Served
            } else {
                Standing::Unconfirmed
            },
            broken: None,
        };
        let has = replica.content();
        self.inventory.replicas.insert(id, replica);
        self.counts.chunks_copied += 1;
        if copy.doomed {
            return self.move_to_trash(&[id], None);
        }
        if here {
            let (link, request) = copy.from;
            self.send(link, copied(request, copy.order.term, id, Ok(has)));
        } else {
            // What was said in this term did not have it.
            probe::hit(Probe::CopyOutlivesTerm);
            self.greet_again("a copy was finished that an earlier term had ordered");
        }
    }

    fn copy_fails(&mut self, id: ReplicaId, refusal: Refusal) {
        let Some(copy) = self.copies.remove(&id) else {
            return;
        };
        probe::hit(Probe::CopyFailed);
        tracing::warn!(%id, %refusal, "a replica cannot be copied");
        self.drop_source(copy.source);
        self.drop_copy_file(&copy);
        self.is_not_replaced(&copy, &refusal);
        let (link, request) = copy.from;
        self.send(link, copied(request, copy.order.term, id, Err(refusal)));
    }

    /// A copy was about to take the place of a replica, and could not.
    fn is_not_replaced(&mut self, copy: &Copy, refusal: &Refusal) {
        let (id, here) = (copy.id(), self.station.term() == Some(copy.order.term));
        let Some(standing) = copy.replaces else {
            return;
        };
        self.inventory.tables.forget(id);
        if copy.stage == Stage::Naming {
            // One of them stands there, and which of them after a crash nobody knows.
            return self.report_damage(id, None, refusal.detail.clone());
        }
        // In another term it counts for what was said of it there.
        if let Some(replica) = self.inventory.replicas.get_mut(&id).filter(|_| here) {
            replica.standing = standing;
        }
    }

    /// Nothing rests on what was written of it.
    fn drop_copy_file(&mut self, copy: &Copy) {
        if copy.stage != Stage::Clearing {
            let file = copy.name.copy_path();
            self.disk(
                Job::Copy(copy.id(), copy.source, Stage::Clearing),
                DiskOp::Remove { file },
            );
        }
    }

    fn drop_source(&mut self, link: LinkId) {
        if self.links.closed(&mut self.outbox, link).is_some() {
            self.outbox.push(Output::Close { link });
        }
    }

    /// A link is gone; if a copy came over it, so is that.
    pub(super) fn copy_lost(&mut self, link: LinkId, why: &CloseReason) {
        let on_link = |copy: &&Copy| copy.source == link && copy.stage <= Stage::Ranges;
        if let Some(copy) = self.copies.values().find(on_link) {
            let (id, peer) = (copy.id(), copy.order.source.addr);
            let why = format!("{} lost {peer}, which has {id}: {why}", self.who());
            self.copy_fails(id, Refusal::new(Status::ChainBroken, why));
        }
    }

    /// The link to who has it is up.
    pub(super) fn source_opened(&mut self, link: LinkId, role: Role) {
        if role != Role::Chunk {
            self.outbox.push(Output::Close { link });
            self.links.closed(&mut self.outbox, link);
            self.copy_lost(
                link,
                &CloseReason::Refused("no chunkserver answers there".into()),
            );
        }
    }

    /// The term has ended that ordered them. What is being named is whole, and stays.
    pub(super) fn copies_end(&mut self) {
        let unnamed = |copy: &&Copy| copy.stage < Stage::Renaming;
        let ids: Vec<_> = self.copies.values().filter(unnamed).map(Copy::id).collect();
        for id in ids {
            if let Some(copy) = self.copies.remove(&id) {
                self.drop_source(copy.source);
                self.drop_copy_file(&copy);
            }
        }
    }

    /// The replica is to go, so no copy of it is made.
    pub(super) fn doom_copy(&mut self, id: ReplicaId) {
        if let Some(copy) = self.copies.get_mut(&id) {
            if copy.stage >= Stage::Renaming {
                copy.doomed = true;
                return;
            }
            let why = format!("{} was told to delete {id}", self.who());
            self.copy_fails(id, Refusal::new(Status::NotServed, why));
        }
    }

    /// When a copy is given up of which nothing comes.
    pub(super) fn copies_due(&self) -> Option<Instant> {
        let waits = self
            .copies
            .values()
            .filter(|copy| copy.stage == Stage::Ranges);
        let of = |copy: &Copy| {
            let stands = copy.moved + self.timing.serve_lease * 2;
            let full = copy.asked.len() + copy.at_disk >= RANGES_MAX;
            if copy.again.is_empty() || full {
                stands
            } else {
                stands.min(copy.again_at)
            }
        };
        waits.map(of).min()
    }

    pub(super) fn copies_on_time(&mut self) {
        let now = self.now.mono;
        if self.copies_due().is_none_or(|due| now < due) {
            return;
        }
        let again = |copy: &&Copy| !copy.again.is_empty() && copy.again_at <= now;
        let ids: Vec<_> = self.copies.values().filter(again).map(Copy::id).collect();
        for id in ids {
            self.copy_goes_on(id);
        }
        let since = self.timing.serve_lease * 2;
        let stands = |copy: &&Copy| copy.stage == Stage::Ranges && copy.moved + since <= now;
        let ids: Vec<_> = self.copies.values().filter(stands).map(Copy::id).collect();
        for id in ids {
            let why = format!("nothing came of the copy of {id} to {}", self.who());
            self.copy_fails(id, Refusal::new(Status::ChainBroken, why));
        }
    }
}

fn copied(request: u64, term: Term, id: ReplicaId, outcome: Result<Content, Refusal>) -> Msg {
    let copied = ChunkCopied {
        term,
        chunk: id.chunk,
        version: id.version,
        outcome,
    };
    Msg::new(request, copied)
}
