//! Redo runs: pages that a sync has made anew are written in their places once it is durable.
//!
//! The sync writes them to the *redo places* that go with the slot of its header, with all other data, and names them in
//! that header; when that is durable, and not before, they are written where they belong. No header counts then that
//! relies on what stood there. The sync after it makes those places durable before its own header, which names them no
//! more, or again, in the redo places of the other slot. Who finds a header with redo runs after a crash writes them in
//! their places first: that may be done any number of times, as nothing newer is ever written there while that header
//! counts.
use super::header::{Header, RedoRun, Slot};
use super::name::{ChunkName, ReplicaId};
use super::read::{BadBlock, ReadId};
use super::table::Expected;
use super::write::Writing;
use super::{Chunk, Job};
use crate::block::{crc, padded_sum};
use crate::ids::WriteSeq;
use crate::limits::{Geometry, HEADER_BYTES};
use crate::machine::{DiskDone, DiskError, DiskOp, DiskResult, FileName, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use bytes::Bytes;
use std::sync::Arc;

/// Why a replica whose disk has failed its redo runs is neither written further nor sealed.
pub(super) const NOT_IN_PLACE: &str = "a page of it cannot be written in its place";

/// Pages of a block that a cut covers and that are not yet written in their places.
#[derive(Clone, Debug)]
pub(super) struct Redo {
    pub run: RedoRun,
    pub bytes: Bytes,
    pub block: usize,
    /// What its block is once they are.
    pub is: Expected,
}

/// The redo runs of a header, on their way to their places.
#[derive(Clone, Debug)]
pub(super) struct Place {
    name: ChunkName,
    generation: u64,
    runs: Vec<Redo>,
    nth: usize,
}

/// How far the redo runs of a replica's newest header are.
#[derive(Clone, Debug)]
pub(super) enum Placed {
    /// They are being written in their places; reads of the replica wait.
    OnItsWay(Vec<ReadId>),
    /// Those of the header of this generation are in their places.
    Of(u64),
    /// The disk failed one of the header of this generation: what is in its place is not known. They are needed still.
    Not(u64),
}

/// Redo runs that are taken from the disk, as no cut of this process has them.
#[derive(Clone, Debug)]
pub(super) struct Recall {
    header: Arc<Header>,
    /// The run that is being looked at.
    nth: usize,
    step: RecallStep,
    /// Whether one before it is not in its place.
    lost: bool,
    then: After,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RecallStep {
    /// The header and the runs are made durable: from then on the places may tear.
    Sync,
    Read,
    /// What was read did not match: perhaps only on its way.
    ReadAgain,
    /// It does not: whether the run is in its place is seen there.
    Look,
    Write,
}

/// What goes on when the redo runs are in their places.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Scan,
    Seal(super::seal::Seal),
    Table,
}

impl Redo {
    /// Writes it to where it stands whole, whatever becomes of its place.
    pub(super) fn keep(
        &self,
        file: FileName,
        slot: Slot,
        nth: usize,
        geometry: Geometry,
    ) -> DiskOp {
        DiskOp::Write {
            file,
            offset: slot.redo_offset(nth, geometry),
            data: vec![self.bytes.clone()],
            sync: SyncMode::Later,
        }
    }
    /// Writes it in its place.
    pub(super) fn place(&self, file: FileName, geometry: Geometry) -> DiskOp {
        DiskOp::Write {
            file,
            offset: HEADER_BYTES + self.run.at(geometry),
            data: vec![self.bytes.clone()],
            sync: SyncMode::Later,
        }
    }
}

impl Recall {
    pub(super) fn id(&self) -> ReplicaId {
        self.header.name.id()
    }
}

impl Place {
    pub(super) const fn id(&self) -> ReplicaId {
        self.name.id()
    }
}

/// The bytes of the block in which a chunk ends, below its end: from where, and how many. `None`: there are none, as it
/// ends where a page does.
fn last_of(geometry: Geometry, header: &Header) -> Option<(u64, usize)> {
    let within = header.len % u64::from(geometry.block_bytes);
    let ends_in_page = !header.len.is_multiple_of(geometry.page_bytes());
    ends_in_page.then(|| {
        let len = usize::try_from(within).expect("a block is small");
        (header.len - within, len)
    })
}

/// Whether the block in which a chunk ends is what its header says; `block` is what [`Chunk::last_block`] has read.
///
/// # Errors
/// If that does not match its sum.
pub(super) fn check_last(
    geometry: Geometry,
    header: &Header,
    block: &[u8],
) -> Result<(), BadBlock> {
    let Some((start, len)) = last_of(geometry, header) else {
        return Ok(());
    };
    let nth = usize::try_from(start / u64::from(geometry.block_bytes)).expect("few blocks");
    let sum = header.sum(nth);
    if sum.is_none() || (block.len() == len && sum == Some(padded_sum(block, geometry.block_bytes)))
    {
        return Ok(());
    }
    let why = "the last block cannot be read, or does not match its sum".into();
    Err(BadBlock { block: nth, why })
}

impl Chunk {
    /// Whether a replica's redo runs are being written in their places.
    pub(super) fn is_placing(&self, id: ReplicaId) -> bool {
        matches!(self.placed.get(&id), Some(Placed::OnItsWay(_)))
    }

    /// Whether a header may be relied on: it has no redo runs, or they are in their places.
    pub(super) fn is_in_place(&self, id: ReplicaId, header: &Header) -> bool {
        let of = |placed: &Placed| matches!(placed, Placed::Of(generation) if *generation == header.generation);
        header.redo.is_empty() || self.placed.get(&id).is_some_and(of)
    }

    /// Whether there is nothing to be done for a header before it is read by: sums tell what is not in its place.
    pub(super) fn is_tried(&self, id: ReplicaId, header: &Header) -> bool {
        let not = |placed: &Placed| matches!(placed, Placed::Not(generation) if *generation == header.generation);
        self.is_in_place(id, header) || self.placed.get(&id).is_some_and(not)
    }

    /// A read waits until the redo runs are in their places. Gives whether it does.
    pub(super) fn waits_for_place(&mut self, id: ReplicaId, read: ReadId) -> bool {
        match self.placed.get_mut(&id) {
            Some(Placed::OnItsWay(reads)) if !planted::is(Bug::WaitingPageExpected) => {
                probe::hit(Probe::ReadWaitsForPlace);
                reads.push(read);
                true
            }
            _ => false,
        }
    }

    /// These reads are gone.
    pub(super) fn places_lose(&mut self, gone: &std::collections::BTreeSet<ReadId>) {
        for placed in self.placed.values_mut() {
            if let Placed::OnItsWay(reads) = placed {
                reads.retain(|read| !gone.contains(read));
            }
        }
    }

    /// A header with redo runs is durable: they are written in their places.
    pub(super) fn place(&mut self, name: ChunkName, runs: Vec<Redo>, generation: u64) {
        self.on_its_way(name.id());
        let nth = 0;
        self.place_next(Place {
            name,
            generation,
            runs,
            nth,
        });
    }

    fn place_next(&mut self, place: Place) {
        let op = place.runs[place.nth].place(place.name.path(), self.config.geometry);
        self.disk(Job::Place(place), op);
    }

    fn on_its_way(&mut self, id: ReplicaId) {
        // The disk may have a read of what is in the places now.
        self.reads_are_stale(id);
        let reads = match self.placed.remove(&id) {
            Some(Placed::OnItsWay(reads)) => reads,
            _ => Vec::new(),
        };
        self.placed.insert(id, Placed::OnItsWay(reads));
    }

    /// It is over: the page is where it belongs, or the disk has failed it.
    fn tried(&mut self, id: ReplicaId, placed: Placed) {
        let before = if self.inventory.replicas.contains_key(&id) {
            self.placed.insert(id, placed)
        } else {
            self.placed.remove(&id)
        };
        if let Some(Placed::OnItsWay(reads)) = before {
            self.reads.again(reads);
        }
    }

    /// A sync of a replica's file has failed: what no sync had saved may be gone, redo runs in their places among it. A
    /// later sync that succeeds says nothing of that.
    pub(super) fn place_is_unsure(&mut self, id: ReplicaId) {
        if let Some(placed) = self.placed.get_mut(&id)
            && let Placed::Of(generation) = *placed
            && !planted::is(Bug::FailedPlaceBelieved)
        {
            probe::hit(Probe::PlaceUnsure);
            *placed = Placed::Not(generation);
        }
    }

    /// A redo run of a sync is in its place, or cannot be written there.
    pub(super) fn run_placed(&mut self, mut place: Place, result: Result<(), DiskError>) {
        let id = place.id();
        if result.is_ok() && place.nth + 1 < place.runs.len() {
            place.nth += 1;
            return self.place_next(place);
        }
        let generation = place.generation;
        let placed = if result.is_ok() {
            Placed::Of(generation)
        } else {
            Placed::Not(generation)
        };
        self.tried(id, placed);
        if let Err(error) = result {
            let why = format!("{} cannot write to {id}: {error}", self.who());
            self.break_chain(id, WriteSeq(0), &why);
            return self.failed_here(id);
        }
        if let Some(writing) = self.writing.get_mut(&id) {
            let Writing { table, syncs, .. } = writing;
            for redo in &place.runs {
                let later = |cut: &super::sync::Cut| cut.changes(redo.block);
                table.placed(redo.block, redo.is, !syncs.iter().any(later));
            }
        }
        self.sync_step(id);
        self.park_if_full(id);
    }

    /// What came of reading what a replica is written further by: its header, or if that is `known` the block in which
    /// it ends. One that cannot be read is empty, and matches no sum.
    pub(super) fn header_or_block(
        &self,
        name: ChunkName,
        known: Option<Arc<Header>>,
        result: DiskResult,
    ) -> (Result<Arc<Header>, String>, Option<Bytes>) {
        match (known, result) {
            (None, result) => (self.read_header(name, result), None),
            (Some(header), Ok(DiskDone::Data(block))) => (Ok(header), Some(block)),
            (Some(header), _) => (Ok(header), Some(Bytes::new())),
        }
    }

    /// Reads the block that [`check_last`] looks at; `None`: it looks at none.
    pub(super) fn last_block(&self, name: ChunkName, header: &Header) -> Option<DiskOp> {
        let (start, len) = last_of(self.config.geometry, header)?;
        Some(DiskOp::Read {
            file: name.path(),
            offset: HEADER_BYTES + start,
            len,
        })
    }

    /// A replica cannot be written further, as a block of it is bad. Gives what is said of that.
    pub(super) fn block_is_bad(&mut self, name: ChunkName, bad: &BadBlock) -> String {
        let why = format!("{} on {}: {}", name.path(), self.who(), bad.why);
        tracing::error!(why, "a block is bad");
        self.counts.blocks_bad += 1;
        self.report_damage(name.id(), u32::try_from(bad.block).ok(), why.clone());
        why
    }

    /// A header was found whose redo runs may not be in their places: they are written there. Whether the header is
    /// durable is for the caller to know.
    pub(super) fn recall(&mut self, header: &Arc<Header>, is_durable: bool, then: After) {
        let recall = Recall {
            header: Arc::clone(header),
            nth: 0,
            step: RecallStep::Sync,
            lost: false,
            then,
        };
        self.on_its_way(header.name.id());
        if is_durable {
            return self.recall_run(recall, RecallStep::Read);
        }
        let file = header.name.path();
        self.disk(Job::Recall(recall), DiskOp::Sync { file });
    }

    fn recall_run(&mut self, recall: Recall, step: RecallStep) {
        let (header, geometry) = (&recall.header, self.config.geometry);
        let op = DiskOp::Read {
            file: header.name.path(),
            offset: Slot::of(header.generation).redo_offset(recall.nth, geometry),
            len: header.redo[recall.nth].len(header.len, geometry),
        };
        self.disk(Job::Recall(Recall { step, ..recall }), op);
    }

    /// Reads the block of a redo run that has rotted: it may be in its place all the same.
    fn look_at_place(&mut self, recall: Recall) {
        let step = RecallStep::Look;
        let geometry = self.config.geometry;
        let block = recall.header.redo[recall.nth].block(geometry);
        let begin = block as u64 * u64::from(geometry.block_bytes);
        let op = DiskOp::Read {
            file: recall.header.name.path(),
            offset: HEADER_BYTES + begin,
            len: Expected::by(geometry, &recall.header, block).filled as usize,
        };
        self.disk(Job::Recall(Recall { step, ..recall }), op);
    }

    fn is_as_expected(&self, recall: &Recall, found: &DiskDone) -> bool {
        let geometry = self.config.geometry;
        let block = recall.header.redo[recall.nth].block(geometry);
        let Expected { filled, sum } = Expected::by(geometry, &recall.header, block);
        matches!(found, DiskDone::Data(bytes)
            if bytes.len() == filled as usize
                && Some(padded_sum(bytes, geometry.block_bytes)) == sum)
    }

    pub(super) fn recall_step_done(&mut self, mut recall: Recall, result: DiskResult) {
        let geometry = self.config.geometry;
        let header = Arc::clone(&recall.header);
        let (name, run) = (header.name, header.redo[recall.nth]);
        match (recall.step, result) {
            (RecallStep::Sync, Ok(_)) => return self.recall_run(recall, RecallStep::Read),
            (RecallStep::Sync, Err(error)) => {
                // As when a sync fails: what it was to save, the header among it, is not to be relied on.
                self.spoil_header(name.id(), Slot::of(header.generation));
                let why = format!("{}: cannot be synced: {error}", name.path());
                self.replica_rotted(name.id(), why);
                return self.recalled(&recall);
            }
            (RecallStep::Read | RecallStep::ReadAgain, Ok(DiskDone::Data(bytes)))
                if crc(&bytes) == run.crc =>
            {
                probe::hit(Probe::RedoPageRecalled);
                if !planted::is(Bug::RedoPageIgnored) {
                    let op = DiskOp::Write {
                        file: name.path(),
                        offset: HEADER_BYTES + run.at(geometry),
                        data: vec![bytes],
                        sync: SyncMode::Later,
                    };
                    let step = RecallStep::Write;
                    return self.disk(Job::Recall(Recall { step, ..recall }), op);
                }
            }
            (RecallStep::Write, Ok(_)) => {}
            (RecallStep::Read, Ok(_)) => return self.recall_run(recall, RecallStep::ReadAgain),
            (RecallStep::ReadAgain, Ok(_)) => {
                probe::hit(Probe::RedoPageBad);
                tracing::warn!(file = %name.path(), "a redo page does not match its sum");
                return self.look_at_place(recall);
            }
            (RecallStep::Look, Ok(found)) => {
                if !self.is_as_expected(&recall, &found) {
                    probe::hit(Probe::RedoPageLost);
                    tracing::error!(file = %name.path(), "a redo page has rotted, and is not in its place");
                    recall.lost = true;
                }
            }
            (step, Err(error)) => {
                tracing::error!(file = %name.path(), ?step, %error, "a redo page is not in its place");
                recall.lost = true;
            }
        }
        if recall.nth + 1 < header.redo.len() && !planted::is(Bug::OneRunRecalled) {
            recall.nth += 1;
            return self.recall_run(recall, RecallStep::Read);
        }
        self.recalled(&recall);
    }

    /// All redo runs of a header are in their places, or cannot be.
    fn recalled(&mut self, recall: &Recall) {
        let generation = recall.header.generation;
        let placed = if recall.lost {
            Placed::Not(generation)
        } else {
            Placed::Of(generation)
        };
        self.tried(recall.id(), placed);
        match recall.then {
            After::Scan => self.scan_goes_on(),
            After::Seal(seal) => self.read_sealed(seal),
            After::Table => self.table_is_missing(recall.id()),
        }
    }
}
