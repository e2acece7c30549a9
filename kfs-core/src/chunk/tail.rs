//! The page in which a sync ended, when more is written to it: a write of that page in its place could tear what the
//! sync has covered.
//!
//! So from a cut on, bytes for that page wait in memory, at most a page of them. The next sync writes the page to the
//! *redo slot* beside the header that it will write, behind all data, and names it in that header; when that is
//! durable, and not before, the page is written in its place. No header counts then that relies on what stood there.
//! The sync after it makes the place durable before its own header, which names that page no more, or again, in the
//! other redo slot. Who finds a header with a redo page after a crash writes the page in its place first: that may be
//! done any number of times, as nothing newer is ever written there while that header counts.
use super::header::{Header, RedoPage, Slot};
use super::name::{ChunkName, ReplicaId};
use super::read::{BadBlock, ReadId};
use super::table::{Expected, Table};
use super::write::Writing;
use super::{Chunk, Job};
use crate::block::{crc, padded_sum};
use crate::ids::WriteSeq;
use crate::limits::{Geometry, HEADER_BYTES};
use crate::machine::{DiskDone, DiskError, DiskOp, DiskResult, SyncMode};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use bytes::Bytes;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a replica whose disk has failed its redo page is neither written further nor sealed.
pub(super) const NOT_IN_PLACE: &str = "a page of it cannot be written in its place";

/// What waits, and what is known of the end of a chunk that is being written.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    geometry: Geometry,
    /// The page in which what is written ends, as far as it is written.
    last: Page,
    /// The page in which the last cut ended, unless it ended at the edge of one.
    held: Option<Held>,
    /// Blocks that are not yet on the disk what the table says of them: what they are there.
    behind: BTreeMap<usize, Expected>,
}

/// Bytes of one page, from its beginning.
#[derive(Clone, Debug)]
struct Page {
    at: u64,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Held {
    page: Page,
    /// Whether more was written to it, or behind it in its block, since the cut.
    changed: bool,
}

/// A page that a cut covers and that is not yet written in its place.
#[derive(Clone, Debug)]
pub(super) struct Redo {
    pub page: RedoPage,
    at: u64,
    pub bytes: Bytes,
    pub block: usize,
    /// What its block is once it is written.
    then: Expected,
}

/// How far the redo page of a replica's newest header is.
#[derive(Clone, Debug)]
pub(super) enum Placed {
    /// It is being written in its place; reads of the replica wait.
    OnItsWay(Vec<ReadId>),
    /// That of the header of this generation is in its place.
    Of(u64),
    /// The disk failed that of the header of this generation: what is in its place is not known. The redo page is
    /// needed still.
    Not(u64),
}

/// A redo page that is taken from the disk, as no cut of this process has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recall {
    name: ChunkName,
    page: RedoPage,
    len: usize,
    generation: u64,
    /// The block that it is of, and what that must be.
    block: usize,
    expected: Expected,
    step: RecallStep,
    then: After,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RecallStep {
    /// The header and the page are made durable: from then on the place may tear.
    Sync,
    Read,
    /// What was read did not match: perhaps only on its way.
    ReadAgain,
    /// It does not: whether the page is in its place is seen there.
    Look,
    Write,
}

/// What goes on when a redo page is in its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Scan,
    Seal(super::seal::Seal),
    Table,
}

impl Page {
    const fn empty(at: u64) -> Self {
        Self {
            at,
            bytes: Vec::new(),
        }
    }
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
    /// Takes of bytes at `offset` what is of this page, with zeros before them if there is a gap; gives how many.
    fn put(&mut self, page_bytes: u64, offset: u64, bytes: &[u8]) -> usize {
        let limit = self.at + page_bytes;
        assert!(
            offset >= self.end(),
            "within a block writes only go forward"
        );
        let from = usize::try_from(offset.min(limit) - self.at).expect("a page is small");
        let room = usize::try_from(limit - offset.min(limit)).expect("a page is small");
        let taken = room.min(bytes.len());
        self.bytes.resize(from, 0);
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }
}

impl Tail {
    /// Of a chunk of which nothing is written.
    pub(super) const fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            last: Page::empty(0),
            held: None,
            behind: BTreeMap::new(),
        }
    }

    /// Of a replica as its header says that it is; `block` is what [`Tail::block_of`] names of its file.
    ///
    /// # Errors
    /// If that does not match its sum.
    pub(super) fn of(geometry: Geometry, header: &Header, block: &[u8]) -> Result<Self, BadBlock> {
        let page_bytes = geometry.page_bytes();
        let at = header.len - header.len % page_bytes;
        let mut tail = Self::new(geometry);
        tail.last = Page::empty(at);
        let Some((start, len)) = Self::block_of(geometry, header) else {
            return Ok(tail);
        };
        let nth = usize::try_from(start / u64::from(geometry.block_bytes)).expect("few blocks");
        if header.sum(nth).is_none() {
            // A hole: a write in its place can tear nothing.
            let zeros = usize::try_from(header.len - at).expect("a page is small");
            tail.last.bytes.resize(zeros, 0);
            return Ok(tail);
        }
        let block = block.get(..len).unwrap_or(block);
        if block.len() != len || header.sum(nth) != Some(padded_sum(block, geometry.block_bytes)) {
            let why = "the last block cannot be read, or does not match its sum".into();
            return Err(BadBlock { block: nth, why });
        }
        let from = usize::try_from(at - start).expect("a block is small");
        tail.last.bytes.extend_from_slice(&block[from..]);
        tail.hold(header.len);
        Ok(tail)
    }

    /// Which bytes of the data, from where and how many, are read for [`Tail::of`]: the block in which it ends, below
    /// the end. `None`: none are, as no page has bytes that are covered and room for more. More of that block may be given.
    fn block_of(geometry: Geometry, header: &Header) -> Option<(u64, usize)> {
        let within = header.len % u64::from(geometry.block_bytes);
        let held = !header.len.is_multiple_of(geometry.page_bytes());
        held.then(|| {
            let len = usize::try_from(within).expect("a block is small");
            (header.len - within, len)
        })
    }

    /// Notes a write; gives how many of its first bytes are not to be written where they belong. `table` does not have
    /// the write yet.
    pub(super) fn write(&mut self, table: &Table, offset: u64, bytes: &[u8]) -> usize {
        let page_bytes = self.geometry.page_bytes();
        let block_bytes = u64::from(self.geometry.block_bytes);
        let mut waits = 0;
        if let Some(held) = &mut self.held
            && offset / block_bytes == held.page.at / block_bytes
            && !planted::is(Bug::CoveredPageTorn)
        {
            probe::hit(Probe::CoveredPageWritten);
            let block = usize::try_from(offset / block_bytes).expect("a chunk has few blocks");
            let before = table.expected(block);
            self.behind.entry(block).or_insert(before);
            held.changed = true;
            waits = held.page.put(page_bytes, offset, bytes);
        }
        let end = offset + bytes.len() as u64;
        if end > table.end() {
            let at = end - end % page_bytes;
            if at != self.last.at {
                self.last = Page::empty(at);
            }
            let from = usize::try_from(at.saturating_sub(offset)).expect("a piece fits in memory");
            let put = self.last.put(page_bytes, offset.max(at), &bytes[from..]);
            assert_eq!(
                put,
                bytes.len() - from,
                "the page in which it ends takes the rest"
            );
        }
        waits
    }

    /// Bytes of the block of this one are written in their places from there on only.
    pub(super) fn places_from(&self, offset: u64) -> u64 {
        let block_bytes = u64::from(self.geometry.block_bytes);
        let of_it = |held: &&Held| held.page.at / block_bytes == offset / block_bytes;
        let limit = |held: &Held| held.page.at + self.geometry.page_bytes();
        self.held.as_ref().filter(of_it).map_or(0, limit)
    }

    /// A cut is taken; `table` has it. Gives the page that it covers and that waits.
    ///
    /// Of ranges that are to be zeros before it, that page has its share: the rest stays in them.
    pub(super) fn cut(&mut self, table: &Table, zeros: &mut Vec<Range<u64>>) -> Option<Redo> {
        let end = table.end();
        let page_bytes = self.geometry.page_bytes();
        if let Some(held) = &mut self.held {
            let page = held.page.at..held.page.at + page_bytes;
            for range in zeros.iter_mut().filter(|range| page.contains(&range.start)) {
                held.changed = true;
                range.start = page.end;
            }
            zeros.retain(|range| !range.is_empty());
        }
        let redo = self.held.take().filter(|held| held.changed).map(|held| {
            let geometry = self.geometry;
            let Page { at, mut bytes } = held.page;
            let page = u32::try_from(at / geometry.page_bytes()).expect("a chunk has few pages");
            let mut page = RedoPage { page, crc: 0 };
            // What a later write skipped of it is zeros.
            bytes.resize(page.len(end, geometry), 0);
            page.crc = crc(&bytes);
            let block = at / u64::from(geometry.block_bytes);
            let block = usize::try_from(block).expect("a chunk has few blocks");
            Redo {
                page,
                at,
                bytes: Bytes::from(bytes),
                block,
                then: table.expected(block),
            }
        });
        let last = end.saturating_sub(1) / u64::from(self.geometry.block_bytes);
        let last = usize::try_from(last).expect("a chunk has few blocks");
        if table.expected(last).sum.is_some() {
            self.hold(end);
        }
        redo
    }

    fn hold(&mut self, end: u64) {
        let within = !end.is_multiple_of(self.geometry.page_bytes());
        assert!(
            !within || self.last.end() == end,
            "the last page has the last byte"
        );
        self.held = within.then(|| Held {
            page: self.last.clone(),
            changed: false,
        });
    }

    /// A page is in its place. `waits` tells whether a later cut has one for a block.
    fn placed(&mut self, redo: &Redo, waits: impl Fn(usize) -> bool) {
        let block_bytes = u64::from(self.geometry.block_bytes);
        let of_it =
            |held: &Held| held.changed && held.page.at / block_bytes == redo.at / block_bytes;
        if self.held.as_ref().is_some_and(of_it) || waits(redo.block) {
            self.behind.insert(redo.block, redo.then);
        } else {
            self.behind.remove(&redo.block);
        }
    }

    /// How a block must look on the disk. What is read is never more than a sync has covered, and what waits is past
    /// that.
    pub(super) fn expected(&self, table: &Table, block: usize) -> Expected {
        if planted::is(Bug::WaitingPageExpected) {
            return table.expected(block);
        }
        let behind = self.behind.get(&block).copied();
        behind.unwrap_or_else(|| table.expected(block))
    }
}

impl Redo {
    /// Writes it to where it stands whole, whatever becomes of its place.
    pub(super) fn keep(
        &self,
        file: crate::machine::FileName,
        slot: Slot,
        geometry: Geometry,
    ) -> DiskOp {
        DiskOp::Write {
            file,
            offset: slot.redo_offset(geometry),
            data: vec![self.bytes.clone()],
            sync: SyncMode::Later,
        }
    }
}

impl Chunk {
    /// Whether a replica's redo page is being written in its place.
    pub(super) fn is_placing(&self, id: ReplicaId) -> bool {
        matches!(self.placed.get(&id), Some(Placed::OnItsWay(_)))
    }

    /// Whether a header may be relied on: it has no redo page, or that one is in its place.
    pub(super) fn is_in_place(&self, id: ReplicaId, header: &Header) -> bool {
        let of = |placed: &Placed| matches!(placed, Placed::Of(generation) if *generation == header.generation);
        header.redo.is_none() || self.placed.get(&id).is_some_and(of)
    }

    /// Whether there is nothing to be done for a header before it is read by: sums tell what is not in its place.
    pub(super) fn is_tried(&self, id: ReplicaId, header: &Header) -> bool {
        let not = |placed: &Placed| matches!(placed, Placed::Not(generation) if *generation == header.generation);
        self.is_in_place(id, header) || self.placed.get(&id).is_some_and(not)
    }

    /// A read waits until the redo page is in its place. Gives whether it does.
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

    /// A header with a redo page is durable: the page is written in its place.
    pub(super) fn place(&mut self, name: ChunkName, redo: Redo, generation: u64) {
        let id = name.id();
        self.on_its_way(id);
        let op = DiskOp::Write {
            file: name.path(),
            offset: HEADER_BYTES + redo.at,
            data: vec![redo.bytes.clone()],
            sync: SyncMode::Later,
        };
        self.disk(Job::Place(id, redo, generation), op);
    }

    fn on_its_way(&mut self, id: ReplicaId) {
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

    /// A sync of a replica's file has failed: what no sync had saved may be gone, a redo page in its place among it. A
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

    /// The page of a sync is in its place, or cannot be written there.
    pub(super) fn page_placed(
        &mut self,
        id: ReplicaId,
        redo: &Redo,
        generation: u64,
        result: Result<(), DiskError>,
    ) {
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
            let Writing { tail, syncs, .. } = writing;
            let waits = |block| syncs.iter().any(|cut| cut.waits_in(block));
            tail.placed(redo, waits);
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

    /// Reads the block that [`Tail::of`] needs beside a header; `None`: it needs none.
    pub(super) fn last_block(&self, name: ChunkName, header: &Header) -> Option<DiskOp> {
        let (start, len) = Tail::block_of(self.config.geometry, header)?;
        Some(DiskOp::Read {
            file: name.path(),
            offset: HEADER_BYTES + start,
            len,
        })
    }

    /// A replica cannot be written further where it ends. Gives what is said of that.
    pub(super) fn tail_is_bad(&mut self, name: ChunkName, bad: &BadBlock) -> String {
        let why = format!("{} on {}: {}", name.path(), self.who(), bad.why);
        tracing::error!(why, "a block is bad");
        self.counts.blocks_bad += 1;
        self.report_damage(name.id(), u32::try_from(bad.block).ok(), why.clone());
        why
    }

    /// A header was found whose redo page may not be in its place: it is written there. Whether the header is durable
    /// is for the caller to know.
    pub(super) fn recall(&mut self, header: &Header, is_durable: bool, then: After) {
        let page = header.redo.expect("the caller has seen it");
        let geometry = self.config.geometry;
        let block = page.at(geometry) / u64::from(geometry.block_bytes);
        let block = usize::try_from(block).expect("a chunk has few blocks");
        let recall = Recall {
            name: header.name,
            page,
            len: page.len(header.len, geometry),
            generation: header.generation,
            block,
            expected: Expected::by(geometry, header, block),
            step: RecallStep::Sync,
            then,
        };
        self.on_its_way(header.name.id());
        if is_durable {
            return self.recall_page(recall, RecallStep::Read);
        }
        let file = header.name.path();
        self.disk(Job::Recall(recall), DiskOp::Sync { file });
    }

    fn recall_page(&mut self, recall: Recall, step: RecallStep) {
        let op = DiskOp::Read {
            file: recall.name.path(),
            offset: Slot::of(recall.generation).redo_offset(self.config.geometry),
            len: recall.len,
        };
        self.disk(Job::Recall(Recall { step, ..recall }), op);
    }

    /// Reads the block of a redo page that has rotted: it may be in its place all the same.
    fn look_at_place(&mut self, recall: Recall) {
        let step = RecallStep::Look;
        let begin = recall.block as u64 * u64::from(self.config.geometry.block_bytes);
        let op = DiskOp::Read {
            file: recall.name.path(),
            offset: HEADER_BYTES + begin,
            len: recall.expected.filled as usize,
        };
        self.disk(Job::Recall(Recall { step, ..recall }), op);
    }

    fn is_as_expected(&self, recall: &Recall, found: &DiskDone) -> bool {
        let Expected { filled, sum } = recall.expected;
        let block_bytes = self.config.geometry.block_bytes;
        matches!(found, DiskDone::Data(bytes)
            if bytes.len() == filled as usize && Some(padded_sum(bytes, block_bytes)) == sum)
    }

    pub(super) fn recall_step_done(&mut self, recall: Recall, result: DiskResult) {
        let (name, geometry) = (recall.name, self.config.geometry);
        let mut placed = Placed::Of(recall.generation);
        match (recall.step, result) {
            (RecallStep::Sync, Ok(_)) => return self.recall_page(recall, RecallStep::Read),
            (RecallStep::Sync, Err(error)) => {
                // As when a sync fails: what it was to save, the header among it, is not to be relied on.
                self.spoil_header(name.id(), Slot::of(recall.generation));
                let why = format!("{}: cannot be synced: {error}", name.path());
                self.replica_rotted(name.id(), why);
            }
            (RecallStep::Read | RecallStep::ReadAgain, Ok(DiskDone::Data(bytes)))
                if crc(&bytes) == recall.page.crc =>
            {
                probe::hit(Probe::RedoPageRecalled);
                if !planted::is(Bug::RedoPageIgnored) {
                    let op = DiskOp::Write {
                        file: name.path(),
                        offset: HEADER_BYTES + recall.page.at(geometry),
                        data: vec![bytes],
                        sync: SyncMode::Later,
                    };
                    let step = RecallStep::Write;
                    return self.disk(Job::Recall(Recall { step, ..recall }), op);
                }
            }
            (RecallStep::Write, Ok(_)) => {}
            (RecallStep::Read, Ok(_)) => {
                return self.recall_page(recall, RecallStep::ReadAgain);
            }
            (RecallStep::ReadAgain, Ok(_)) => {
                probe::hit(Probe::RedoPageBad);
                tracing::warn!(file = %name.path(), "a redo page does not match its sum");
                return self.look_at_place(recall);
            }
            (RecallStep::Look, Ok(found)) => {
                if !self.is_as_expected(&recall, &found) {
                    probe::hit(Probe::RedoPageLost);
                    tracing::error!(file = %name.path(), "a redo page has rotted, and is not in its place");
                    placed = Placed::Not(recall.generation);
                }
            }
            (step, Err(error)) => {
                tracing::error!(file = %name.path(), ?step, %error, "a redo page is not in its place");
                placed = Placed::Not(recall.generation);
            }
        }
        self.tried(name.id(), placed);
        match recall.then {
            After::Scan => self.scan_goes_on(),
            After::Seal(seal) => self.read_sealed(seal),
            After::Table => self.table_is_missing(name.id()),
        }
    }
}

impl Recall {
    pub(super) const fn id(&self) -> ReplicaId {
        self.name.id()
    }
}
