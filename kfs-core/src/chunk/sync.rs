//! Syncs: what was taken becomes durable on every replica of the chain, all at once beside one another.
//!
//! A cut freezes sums, length and write sequence number; then, here: all writes of the cut → zeros where
//! bytes count as such that an earlier chain may have written (see [`super::table`]) → blocks that are made anew are
//! read, and their new pages written to where they stand whole (see [`super::over`]) → sync of the
//! file → the header into the slot that does not hold the newest → sync → the first time, sync of the
//! directory → the new pages in their places (see [`super::redo`]). If the order changed, a header could promise bytes that a power loss takes. Any failure
//! breaks the chain; a sync is never tried again.
use super::header::{Header, REDO_RUNS_MAX, Slot};
use super::name::{CHUNKS, ReplicaId};
use super::over::WAITING_MANY;
use super::redo::Redo;
use super::table::Change;
use super::write::{Synced, Writing};
use super::{Chunk, Event, Job, Stopping};
use crate::block;
use crate::ids::{ClusterId, Digest, LinkId, PieceNumber, WriteSeq};
use crate::limits::HEADER_BYTES;
use crate::machine::{DiskDone, DiskError, DiskOp, DiskResult, FileName, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::client_chunk::{ChainSync, ChainSynced, Durable, SyncChunk, SyncDone};
use crate::wire::{Msg, Refusal, Status};
use bytes::Bytes;
use core::ops::Range;
use std::collections::VecDeque;

/// Cuts that a replica holds beside the one at work; a head that waits for each never has more than one.
const CUTS_MAX: usize = 16;

/// A sync being made.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    wseq: WriteSeq,
    piece: PieceNumber,
    len: u64,
    slot: Slot,
    /// Whole when no changes are left.
    header: Header,
    digest: Digest,
    /// What is still to be made zeros.
    zeros: Vec<Range<u64>>,
    /// Blocks that are still to be made anew, the last one first.
    changes: Vec<Change>,
    /// The new pages of those that are, the first one first, and how many of them stand whole.
    redo: Vec<Redo>,
    kept: usize,
    reach: Reach,
    stage: Stage,
}

/// Who makes a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// This replica only, because it stops.
    Here,
    /// This replica, and all below have made it, or there are none.
    Chain,
    /// This replica, and those below have not yet said that they made it.
    Below,
}

/// How far a sync is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Writes of the cut are on their way to the disk, or the redo runs of the sync before to their places.
    Writes,
    /// Where an earlier chain may have left something, zeros are being written.
    Zeros,
    /// A block that is to be made anew is being read.
    Old,
    /// The redo runs are being written where they stand whole.
    Redo,
    /// The data is being synced.
    Data,
    /// The header is being written.
    Header,
    /// The header is being synced.
    HeaderSync,
    /// The directory is being synced.
    Name,
    Durable,
}

/// A client that waits for everything up to a piece to be durable everywhere.
#[derive(Clone, Debug)]
pub(super) struct SyncAsk {
    pub link: LinkId,
    pub request: u64,
    up_to: PieceNumber,
}

/// Syncs of the directory, shared by all chunks that wait for one.
#[derive(Clone, Debug, Default)]
pub(super) struct DirSync {
    /// Whose names the sync in flight covers; empty: none is in flight.
    running: Vec<ReplicaId>,
    /// Whose names the next one will cover.
    next: Vec<ReplicaId>,
}

impl Cut {
    fn take(writing: &mut Writing, cluster: ClusterId, reach: Reach) -> Self {
        let (header, zeros, mut changes) = writing.next_header(cluster);
        changes.reverse();
        Self {
            digest: Digest(0),
            wseq: header.wseq,
            piece: writing.last_piece,
            len: header.len,
            slot: Slot::of(header.generation),
            header,
            zeros,
            changes,
            redo: Vec::new(),
            kept: 0,
            reach,
            stage: Stage::Writes,
        }
    }
    /// Blocks that it has in memory.
    pub(super) fn blocks(&self) -> usize {
        self.changes.len() + self.redo.len()
    }
    /// The sum of a block that was not known when it was taken.
    pub(super) fn sum_is(&mut self, block: usize, sum: Option<u32>) {
        self.header.sums[block] = sum;
    }
    /// Whether it makes a block anew, and that is not yet in its place.
    pub(super) fn changes(&self, block: usize) -> bool {
        let made = self.redo.iter().any(|redo| redo.block == block);
        let waits = self.changes.iter().any(|change| change.block == block);
        self.stage != Stage::Durable && (made || waits)
    }
    const fn durable(&self) -> Durable {
        Durable {
            len: self.len,
            wseq: self.wseq,
        }
    }
}

impl Chunk {
    /// A client wants everything up to a piece to be durable on every replica.
    pub(super) fn sync_chunk(&mut self, link: LinkId, request: u64, head: SyncChunk) {
        let id = ReplicaId {
            chunk: head.chunk,
            version: head.version,
        };
        let busy = |what: &str| Refusal::new(Status::Busy, what);
        if self.parked.contains_key(&id) {
            let may = if self.links.lacks_room(0) {
                Err(busy("no room in memory for what waits"))
            } else {
                self.may_wake(id, head.session)
            };
            return match may {
                Ok(()) => self.unpark(id, link, 0, Msg::new(request, head)),
                Err(refusal) => self.send(link, sync_done(request, id, Err(refusal))),
            };
        }
        let synced = match self.head_of(id, head.session) {
            Ok(writing) => writing.synced,
            Err(refusal) => return self.send(link, sync_done(request, id, Err(refusal))),
        };
        if let Some(synced) = synced.filter(|synced| head.up_to <= synced.piece) {
            probe::hit(Probe::SyncDoneBefore);
            return self.send(link, sync_done(request, id, Ok(synced.durable)));
        }
        let writing = self.writing.get_mut(&id).expect("it was just found");
        if writing.asks.len() >= self.config.limits.link_requests {
            let refusal = busy("as many syncs of the chunk wait as may");
            return self.send(link, sync_done(request, id, Err(refusal)));
        }
        writing.asks.push(SyncAsk {
            link,
            request,
            up_to: head.up_to,
        });
        let written = writing.pieces.is_empty();
        self.sync_asked(id);
        if written && planted::is(Bug::SyncAckedWhenWritten) {
            self.ack_written(id);
        }
    }

    /// A planted mistake: everything is written, here and below, and nothing of it need be durable.
    pub(super) fn ack_written(&mut self, id: ReplicaId) {
        let writing = self.writing.get(&id).expect("it was just found");
        if writing.position == 0 {
            let durable = Durable {
                len: writing.table.end(),
                wseq: writing.applied,
            };
            self.answer_syncs(id, writing.last_piece, durable);
        }
    }

    /// A planted mistake: there is no next server any more, and nothing is missed without it.
    pub(super) fn end_chain_here(&mut self, id: ReplicaId) {
        let writing = self.writing.get_mut(&id).expect("it was just found");
        writing.chain.truncate(usize::from(writing.position) + 1);
        writing.downstream = None;
        for cut in &mut writing.syncs {
            cut.reach = Reach::Chain;
        }
        self.advance(id);
        self.sync_ends(id);
    }

    /// Begins a sync at the head, if one is asked for, or needed, what it is to cover is taken, and none is at work.
    pub(super) fn sync_asked(&mut self, id: ReplicaId) {
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        let taken = writing.last_piece;
        // All members take their cuts where the head does: so they are one apart at most when a chain ends.
        let is_head = writing.position == 0;
        let may = is_head && writing.syncs.is_empty() && writing.may_sync();
        let asked = writing.asks.iter().any(|ask| ask.up_to <= taken);
        // A header names so many redo runs and no more.
        let many = writing.table.waiting() >= WAITING_MANY;
        if may && (asked || many || writing.cuts_at_until()) {
            self.cut(id);
        }
    }

    /// The server before in the chain wants everything up to a write to be durable.
    pub(super) fn chain_sync(&mut self, link: LinkId, request: u64, head: ChainSync) {
        if let Err(why) = self.carries(link, head.position) {
            return self.close(link, why);
        }
        let id = ReplicaId {
            chunk: head.chunk,
            version: head.version,
        };
        if self.wakes(id, link, head.position) {
            return self.unpark(id, link, head.position, Msg::new(request, head));
        }
        if self.is_of_another_chain(id, head.chain) {
            return self.refuse_late(id, link, head.chain, head.wseq);
        }
        if let Err(refusal) = self.joins_chain(id, link, head.position) {
            return self.refuse_up(id, link, head.chain, head.wseq, &refusal);
        }
        let writing = self.writing.get(&id).expect("it joined the chain");
        let may_sync = writing.may_sync() && writing.syncs.len() < CUTS_MAX;
        if head.wseq != writing.applied || !may_sync {
            let why = format!(
                "{} cannot sync {id} up to write {}: the last is {}",
                writing.who(),
                head.wseq,
                writing.applied
            );
            let refusal = Refusal::new(Status::ChainBroken, why);
            return self.refuse_up(id, link, head.chain, head.wseq, &refusal);
        }
        self.cut(id);
    }

    /// Takes a cut now, and sends the sync down before the work here begins.
    pub(super) fn cut(&mut self, id: ReplicaId) {
        let downstream = self.downstream(id);
        let cluster = self.identity.cluster;
        let writing = self
            .writing
            .get_mut(&id)
            .expect("only a chunk being written is synced");
        let reach = if downstream.is_some() {
            Reach::Below
        } else {
            Reach::Chain
        };
        writing.resumed_from = writing.until;
        let cut = Cut::take(writing, cluster, reach);
        assert!(
            writing
                .syncs
                .back()
                .is_none_or(|last| last.wseq <= cut.wseq && last.slot != cut.slot)
                || planted::is(Bug::HeaderOverActiveSlot),
            "cuts grow, and headers alternate between the slots"
        );
        let (wseq, position, chain) = (cut.wseq, writing.position + 1, writing.chain_id);
        writing.syncs.push_back(cut);
        if let Some(link) = downstream {
            let sync = ChainSync {
                chunk: id.chunk,
                version: id.version,
                chain,
                position,
                wseq,
            };
            self.send(link, Msg::new(0, sync));
        }
        self.sync_step(id);
    }

    /// Begins the work of the first sync that is not durable, once all its writes are on the disk.
    pub(super) fn sync_step(&mut self, id: ReplicaId) {
        if self.is_placing(id) {
            return;
        }
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        let Some(cut) = at_work(&mut writing.syncs).filter(|cut| cut.stage == Stage::Writes) else {
            return;
        };
        if writing
            .pieces
            .iter()
            .any(|piece| piece.wseq <= cut.wseq && piece.at_disk > 0)
        {
            return;
        }
        self.sync_anew(id);
    }

    /// The pieces of the cut are written: what else it is to cover is.
    fn sync_anew(&mut self, id: ReplicaId) {
        let geometry = self.config.geometry;
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let file = writing.name.path();
        let cut = at_work(&mut writing.syncs).expect("it was just found");
        if let Some(zeros) = cut.zeros.pop() {
            probe::hit(Probe::LeftoversCleared);
            cut.stage = Stage::Zeros;
            let len = usize::try_from(zeros.end - zeros.start).expect("less than a block");
            let op = DiskOp::Write {
                file,
                offset: HEADER_BYTES + zeros.start,
                data: block::zeros(len),
                sync: SyncMode::Later,
            };
            return self.disk(Job::Sync(id), op);
        }
        let Some(change) = cut.changes.last() else {
            return self.sync_whole(id);
        };
        let was = writing.table.expected(change.block);
        if !change.needs(was) {
            return self.block_anew(id, &[]);
        }
        cut.stage = Stage::Old;
        let op = DiskOp::Read {
            file,
            offset: HEADER_BYTES + change.block as u64 * u64::from(geometry.block_bytes),
            len: was.filled as usize,
        };
        self.disk(Job::SyncReads(id), op);
    }

    /// A block that is to be made anew was read, as it is on the disk.
    pub(super) fn old_block_came(&mut self, id: ReplicaId, result: DiskResult) {
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        if at_work(&mut writing.syncs).is_none_or(|cut| cut.stage != Stage::Old) {
            return;
        }
        match result {
            Ok(DiskDone::Data(bytes)) => self.block_anew(id, &bytes),
            // It matches no sum.
            Ok(_) | Err(_) => self.block_anew(id, &[]),
        }
    }

    /// Makes the next block anew of what it was.
    fn block_anew(&mut self, id: ReplicaId, old: &[u8]) {
        let geometry = self.config.geometry;
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let at = writing
            .syncs
            .iter()
            .position(|cut| cut.stage != Stage::Durable);
        let at = at.expect("a sync is at work");
        let cut = &mut writing.syncs[at];
        let change = cut.changes.last().expect("there is one to be made");
        let block = change.block;
        let was = writing.table.expected(block);
        let redo = match change.make(geometry, was, old) {
            Ok(redo) => redo,
            Err(bad) => {
                let name = writing.name;
                let why = self.block_is_bad(name, &bad);
                return self.cannot_cover(id, &why);
            }
        };
        let is = redo.is;
        cut.changes.pop();
        cut.redo.push(redo);
        writing.sums_known(at, block, is);
        self.sync_anew(id);
    }

    /// Nothing of the cut is unknown any more: its header says it, and its redo runs are written.
    fn sync_whole(&mut self, id: ReplicaId) {
        let geometry = self.config.geometry;
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let file = writing.name.path();
        let cut = at_work(&mut writing.syncs).expect("it was just found");
        if cut.kept == 0 {
            cut.header.redo = cut.redo.iter().map(|redo| redo.run).collect();
            cut.digest = cut.header.digest(geometry);
        }
        if cut.redo.len() > REDO_RUNS_MAX {
            let why = format!("{id}: more blocks are written over than a sync can cover");
            return self.cannot_cover(id, &why);
        }
        if let Some(redo) = cut.redo.get(cut.kept) {
            let op = if planted::is(Bug::RunsInPlaceFirst) {
                redo.place(file, geometry)
            } else {
                redo.keep(file, cut.slot, cut.kept, geometry)
            };
            cut.kept += 1;
            cut.stage = Stage::Redo;
            return self.disk(Job::Sync(id), op);
        }
        self.sync_data(id);
    }

    /// All that the cut covers is written.
    fn sync_data(&mut self, id: ReplicaId) {
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let cut = at_work(&mut writing.syncs).expect("it was just found");
        cut.stage = Stage::Data;
        let file = writing.name.path();
        if planted::is(Bug::HeaderBeforeData) {
            return self.sync_step_done(id, Ok(()));
        }
        self.disk(Job::Sync(id), DiskOp::Sync { file });
    }

    /// One step of the sync at work ended.
    pub(super) fn sync_step_done(&mut self, id: ReplicaId, result: Result<(), DiskError>) {
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        if let Err(error) = result {
            let why = format!("{} cannot sync {id}: {error}", writing.who());
            return self.sync_failed(id, &why);
        }
        let (file, named) = (writing.name.path(), writing.named);
        let Some(cut) = at_work(&mut writing.syncs) else {
            return;
        };
        match cut.stage {
            Stage::Zeros => self.sync_anew(id),
            Stage::Redo => self.sync_whole(id),
            Stage::Data => {
                cut.stage = Stage::Header;
                let data = vec![Bytes::from(cut.header.encode())];
                let offset = cut.slot.offset() as u64;
                self.disk(
                    Job::Sync(id),
                    DiskOp::Write {
                        file,
                        offset,
                        data,
                        sync: SyncMode::Later,
                    },
                );
            }
            Stage::Header => {
                cut.stage = Stage::HeaderSync;
                self.disk(Job::Sync(id), DiskOp::Sync { file });
            }
            Stage::HeaderSync if named || planted::is(Bug::NoDirSyncOnCreate) => self.durable(id),
            Stage::HeaderSync => {
                cut.stage = Stage::Name;
                self.dir_sync.next.push(id);
                self.dir_sync_begin();
            }
            Stage::Writes | Stage::Old | Stage::Name | Stage::Durable => {}
        }
    }

    /// Starts a sync of the directory, unless one is in flight: that one may have begun too early.
    fn dir_sync_begin(&mut self) {
        if self.dir_sync.running.is_empty() && !self.dir_sync.next.is_empty() {
            self.dir_sync.running = core::mem::take(&mut self.dir_sync.next);
            if self.dir_sync.running.len() > 1 {
                probe::hit(Probe::DirSyncShared);
            }
            self.disk(
                Job::DirSync,
                DiskOp::SyncDir {
                    dir: FileName::new(CHUNKS),
                },
            );
        }
    }

    pub(super) fn dir_synced(&mut self, result: Result<(), DiskError>) {
        for id in core::mem::take(&mut self.dir_sync.running) {
            let Some(writing) = self.writing.get_mut(&id) else {
                continue;
            };
            if let Err(error) = &result {
                let why = format!(
                    "{} cannot sync the directory of {id}: {error}",
                    writing.who()
                );
                self.sync_failed(id, &why);
            } else if at_work(&mut writing.syncs).is_some_and(|cut| cut.stage == Stage::Name) {
                self.durable(id);
            }
        }
        self.dir_sync_begin();
    }

    /// A sync cannot be made of what is here. Nothing of it was written that counts.
    fn cannot_cover(&mut self, id: ReplicaId, why: &str) {
        let writing = self.writing.get(&id).expect("it was just found");
        let wseq = writing.below.next();
        self.break_chain(id, wseq, why);
        self.failed_here(id);
    }

    /// A sync could not be made: what it was to save may be in the page cache only, where a later sync leaves it, and
    /// the header that was written for it says that it is there. That one goes, so that nobody ever reads it: neither
    /// who seals this replica, nor the next process.
    fn sync_failed(&mut self, id: ReplicaId, why: &str) {
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let wseq = writing.below.next();
        let slot = at_work(&mut writing.syncs).map(|cut| cut.slot);
        self.break_chain(id, wseq, why);
        self.failed_here(id);
        self.place_is_unsure(id);
        if let Some(slot) = slot {
            self.spoil_header(id, slot);
        }
    }

    /// What this server's own disk could not do for a replica takes it out of every chain.
    pub(super) fn failed_here(&mut self, id: ReplicaId) {
        if let Some(replica) = self.inventory.replicas.get_mut(&id)
            && let Some(broken) = &mut replica.broken
        {
            broken.failed_here = true;
        }
    }

    pub(super) fn has_failed_here(&self, id: ReplicaId) -> bool {
        let replica = self.inventory.replicas.get(&id);
        let broken = replica.and_then(|replica| replica.broken.as_ref());
        broken.is_some_and(|broken| broken.failed_here)
    }

    /// Makes a header that cannot be relied on one that is none.
    pub(super) fn spoil_header(&mut self, id: ReplicaId, slot: Slot) {
        let Some(replica) = self.inventory.replicas.get(&id) else {
            return;
        };
        if planted::is(Bug::FailedHeaderKept) {
            return;
        }
        probe::hit(Probe::HeaderSpoiled);
        let op = DiskOp::Write {
            file: id.of(replica.file).path(),
            offset: slot.offset() as u64,
            data: vec![Bytes::from_static(&[0; 8])],
            sync: SyncMode::Later,
        };
        self.disk(Job::Sync(id), op);
    }

    /// The sync at work is durable here.
    fn durable(&mut self, id: ReplicaId) {
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let cut = at_work(&mut writing.syncs).expect("it was just found");
        cut.stage = Stage::Durable;
        let redo = core::mem::take(&mut cut.redo);
        let (generation, name) = (cut.header.generation, writing.name);
        writing.named = true;
        self.counts.syncs += 1;
        let replica = self
            .inventory
            .replicas
            .get_mut(&id)
            .expect("what is written is in the inventory");
        assert!(
            replica.wseq <= cut.wseq && replica.len <= cut.len,
            "a chunk being written only grows"
        );
        (replica.wseq, replica.len, replica.digest) = (cut.wseq, cut.len, cut.digest);
        if planted::is(Bug::HeadAcksEarly) && writing.position == 0 {
            let (piece, durable) = (cut.piece, cut.durable());
            self.answer_syncs(id, piece, durable);
        }
        if !redo.is_empty() {
            self.place(name, redo, generation);
        }
        self.sync_ends(id);
    }

    /// The next server, and all below it, have made a sync, or could not.
    pub(super) fn chain_synced(&mut self, link: LinkId, head: ChainSynced) {
        let id = ReplicaId {
            chunk: head.chunk,
            version: head.version,
        };
        let Some(writing) = self
            .writing
            .get_mut(&id)
            .filter(|writing| writing.downstream == Some(link))
            .filter(|writing| writing.chain_id == head.chain)
        else {
            return;
        };
        let cut = writing
            .syncs
            .iter_mut()
            .find(|cut| cut.wseq == head.wseq && cut.reach == Reach::Below);
        match (cut, head.outcome) {
            (Some(cut), Ok(len)) if len == cut.len => {
                cut.reach = Reach::Chain;
                if planted::is(Bug::MiddleAcksUnsynced)
                    && let Some(up) = writing.upstream
                {
                    let outcome = Ok(len);
                    self.send(up, Msg::new(0, ChainSynced { outcome, ..head }));
                }
                self.sync_ends(id);
            }
            (Some(cut), Ok(len)) => {
                let why = format!("{id} has {} bytes here and {len} below", cut.len);
                self.break_chain(id, head.wseq, &why);
            }
            (_, Err(refusal)) => self.break_chain(id, head.wseq, &refusal.detail),
            (None, Ok(_)) => {}
        }
    }

    /// Ends the syncs that are durable here and below: says so, and goes on with the next.
    fn sync_ends(&mut self, id: ReplicaId) {
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let over = |cut: &Cut| cut.stage == Stage::Durable && cut.reach != Reach::Below;
        let mut ended = Vec::new();
        while writing.syncs.front().is_some_and(over) {
            ended.extend(
                writing
                    .syncs
                    .pop_front()
                    .filter(|cut| cut.reach == Reach::Chain),
            );
        }
        for cut in ended {
            let writing = self.writing.get_mut(&id).expect("answers break no chain");
            writing.synced = Some(Synced {
                piece: cut.piece,
                durable: cut.durable(),
            });
            if writing.position == 0 {
                self.answer_syncs(id, cut.piece, cut.durable());
            } else if let Some(link) = writing.upstream {
                let (chunk, version, wseq) = (id.chunk, id.version, cut.wseq);
                let chain = writing.chain_id;
                self.send(
                    link,
                    Msg::new(
                        0,
                        ChainSynced {
                            chunk,
                            version,
                            chain,
                            wseq,
                            outcome: Ok(cut.len),
                        },
                    ),
                );
            }
        }
        self.sync_step(id);
        self.sync_asked(id);
        self.park_if_full(id);
    }

    fn answer_syncs(&mut self, id: ReplicaId, piece: PieceNumber, durable: Durable) {
        let writing = self.writing.get_mut(&id).expect("it was just found");
        let covered: Vec<_> = writing
            .asks
            .extract_if(.., |ask| ask.up_to <= piece)
            .collect();
        for ask in covered {
            self.send(ask.link, sync_done(ask.request, id, Ok(durable)));
        }
    }

    /// Makes durable here what was written here, whatever the rest of the chain does.
    pub(super) fn sync_here(&mut self, id: ReplicaId) {
        let cluster = self.identity.cluster;
        if let Some(writing) = self.writing.get_mut(&id).filter(|at| at.may_cut()) {
            let cut = Cut::take(writing, cluster, Reach::Here);
            writing.syncs.push_back(cut);
            self.sync_step(id);
        }
    }

    /// While stopping: ends the chains, so that their clients go on in others, and says so when the disk has nothing
    /// left to do for them. What no sync covered is with those clients still.
    pub(super) fn stop_on(&mut self) {
        let Stopping::Asked(call) = self.stopping else {
            return;
        };
        let written = self.writing.iter().map(|(id, writing)| (*id, writing));
        let parked = self
            .parked
            .iter()
            .map(|(id, parked)| (*id, &parked.writing));
        // A sync that is at work goes to its end here: a client may be about to hear of it.
        let idle = |(_, writing): &(ReplicaId, &Writing)| {
            let mut syncs = writing.syncs.iter();
            syncs.all(|cut| cut.stage == Stage::Durable)
        };
        let ids: Vec<_> = written
            .chain(parked)
            .filter(idle)
            .map(|(id, _)| id)
            .collect();
        let why = format!("{} is stopping", self.who());
        for id in ids {
            self.break_chain(id, WriteSeq(0), &why);
        }
        let at_work = |job: &Job| {
            let of_sync = matches!(
                job,
                Job::Sync(_) | Job::SyncReads(_) | Job::DirSync | Job::Place(_)
            );
            of_sync || matches!(job, Job::Piece { .. })
        };
        let busy = !self.writing.is_empty() || self.jobs.values().any(at_work);
        if !busy && self.identity_steps.is_empty() {
            self.stopping = Stopping::Stopped;
            self.outbox.event(call, Event::Stopped);
        }
    }
}

fn at_work(syncs: &mut VecDeque<Cut>) -> Option<&mut Cut> {
    syncs.iter_mut().find(|cut| cut.stage != Stage::Durable)
}

fn sync_done(request: u64, id: ReplicaId, outcome: Result<Durable, Refusal>) -> Msg {
    Msg::new(
        request,
        SyncDone {
            chunk: id.chunk,
            outcome,
        },
    )
}
