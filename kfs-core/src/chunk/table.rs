//! The blocks of a chunk that is being written: how far each is filled, its sum, what a sync has covered, and what of
//! it stands on the disk. Sums of appended pieces are combined, so no byte is read twice.
//!
//! **Nothing covered is torn.** A write goes to its place at once only where nothing is that a header says: behind what
//! its block is filled with, and not in the page that holds the committed end. Every other write waits in memory, and
//! the next sync makes the block anew (see [`super::over`]). Until then the block is on the disk what it was, and is
//! read as that.
use super::header::Header;
use super::over::Over;
use crate::block::{self, BlockSpan, EMPTY, spans};
use crate::limits::Geometry;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use core::ops::Range;
use std::collections::BTreeMap;

/// See the file's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    geometry: Geometry,
    /// Up to the last block written to.
    blocks: Vec<Block>,
    /// The largest end of a write, in bytes.
    end: u64,
    elsewhere: Elsewhere,
    /// What is written to blocks and waits for the next cut.
    waits: BTreeMap<usize, Over>,
    /// Blocks that are made anew, until they are in their places: what they are there.
    behind: BTreeMap<usize, Expected>,
}

/// What the disk has where nothing was written that counts: in holes, and behind what a block is filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Elsewhere {
    /// Zeros: all that was ever written to the file is in the table.
    Zeros,
    /// Perhaps what an earlier chain has written and no sync has covered. Where such bytes come to count, as zeros,
    /// they are made that first.
    Leftovers,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    /// Bytes from the block's start that are written, or zeros between writes. 0: a hole.
    filled: u32,
    /// Adler-32 of those bytes, unpadded.
    plain: u32,
    /// Bytes from the block's start that a cut covers.
    covered: u32,
    anew: Anew,
}

/// Whether a block is made anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Anew {
    No,
    /// Its sum is not known before that is done.
    Unsummed,
    /// It is not yet in its place.
    Summed,
}

const HOLE: Block = Block {
    filled: 0,
    plain: EMPTY,
    covered: 0,
    anew: Anew::No,
};

/// What a block must look like when it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expected {
    /// Bytes from the block's start that count; after them it is zeros whatever the disk holds.
    pub filled: u32,
    /// The sum of the block, padded with zeros; `None`: a hole.
    pub sum: Option<u32>,
}

/// What a cut covers.
#[derive(Debug)]
pub(super) struct Covers {
    /// The padded sums for the header. Of blocks that are made anew they come later.
    pub sums: Vec<Option<u32>>,
    /// Bytes that come to count with it, as zeros, and may be something else on the disk.
    pub zeros: Vec<Range<u64>>,
    /// Blocks to be made anew, what is written to them, and how many bytes of each count then.
    pub changes: Vec<Change>,
}

/// A block that is made anew.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub block: usize,
    pub over: Over,
    /// Its bytes below the committed end.
    pub share: u32,
}

impl Table {
    /// The table of a chunk of which nothing is written.
    pub(super) const fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            blocks: Vec::new(),
            end: 0,
            elsewhere: Elsewhere::Zeros,
            waits: BTreeMap::new(),
            behind: BTreeMap::new(),
        }
    }
    /// The table of a chunk of which everything is committed.
    pub(super) fn of(geometry: Geometry, header: &Header, elsewhere: Elsewhere) -> Self {
        let block = |(index, sum): (usize, &Option<u32>)| match *sum {
            None => HOLE,
            Some(sum) => {
                let filled = committed_share(geometry, header.len, index);
                Block {
                    filled,
                    plain: block::unpad(sum, u64::from(geometry.block_bytes - filled)),
                    covered: filled,
                    anew: Anew::No,
                }
            }
        };
        let mut blocks: Vec<Block> = header.sums.iter().enumerate().map(block).collect();
        // It may end in a hole, if its file was cut there: what is before the end is not written any more.
        let last = usize::try_from(header.len / u64::from(geometry.block_bytes));
        let last = last.expect("a chunk has few blocks");
        let covered = committed_share(geometry, header.len, last);
        if covered > 0 && blocks.len() <= last {
            blocks.resize(last, HOLE);
            blocks.push(Block { covered, ..HOLE });
        }
        Self {
            blocks,
            end: header.len,
            elsewhere,
            ..Self::new(geometry)
        }
    }
    /// One of nothing, that still tells what is known of the disk.
    pub(super) fn emptied(&self) -> Self {
        assert!(
            self.waits.is_empty() && self.behind.is_empty(),
            "what waits is nowhere else"
        );
        Self {
            elsewhere: self.elsewhere,
            ..Self::new(self.geometry)
        }
    }
    /// What is known of the disk.
    pub(super) const fn elsewhere(&self) -> Elsewhere {
        self.elsewhere
    }
    /// The largest end of a write, in bytes.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }
    /// Blocks to which something is written that waits for the next cut.
    pub(super) fn waiting(&self) -> usize {
        self.waits.len()
    }
    /// How many more there are at most once `len` bytes from `offset` are written.
    pub(super) fn would_wait(&self, offset: u64, len: u64) -> usize {
        let more =
            |span: &BlockSpan| self.waits_for_cut(span) && !self.waits.contains_key(&span.block);
        spans(self.geometry, offset, len).filter(more).count()
    }
    fn block(&self, block: usize) -> Block {
        self.blocks.get(block).copied().unwrap_or(HOLE)
    }
    /// Whether a write of this share cannot go to its place.
    fn waits_for_cut(&self, span: &BlockSpan) -> bool {
        let block = self.block(span.block);
        if block.filled == 0 || block.anew != Anew::No {
            // In a hole nothing is covered, whatever the end of the chunk is.
            return block.anew != Anew::No;
        }
        let page = u32::try_from(self.geometry.page_bytes()).expect("a page is small");
        let page_ends = block.covered.next_multiple_of(page);
        let is_behind = span.from >= block.filled.max(block.covered);
        let is_apart = span.from >= page_ends || planted::is(Bug::CoveredPageTorn);
        // The gap before it is made zeros, and part of that is in the covered page.
        let gap = self.has_leftovers() && span.from > block.filled && block.filled < page_ends;
        !is_behind || !is_apart || (gap && !block.covered.is_multiple_of(page))
    }
    fn has_leftovers(&self) -> bool {
        self.elsewhere == Elsewhere::Leftovers && !planted::is(Bug::LeftoversKept)
    }
    /// Notes a write; `sums` are of its share of each block. Gives what of `bytes` is written to its place, in order;
    /// before the first of them so many zeros.
    pub(super) fn write(
        &mut self,
        offset: u64,
        bytes: &[u8],
        sums: &[u32],
    ) -> (Vec<Range<usize>>, u64) {
        let (mut places, mut zeros): (Vec<Range<usize>>, u64) = (Vec::new(), 0);
        let mut shares = 0;
        let len = bytes.len() as u64;
        for (span, sum) in spans(self.geometry, offset, len).zip(sums) {
            let BlockSpan {
                block,
                from,
                len,
                at,
            } = span;
            if self.blocks.len() <= block {
                self.blocks.resize(block + 1, HOLE);
            }
            shares += 1;
            let range = at..at + len as usize;
            if self.waits_for_cut(&span) {
                if from < self.blocks[block].covered {
                    probe::hit(Probe::WrittenOver);
                }
                self.anew(block);
                let slot = &mut self.blocks[block];
                slot.filled = slot.filled.max(from + len);
                self.waits
                    .entry(block)
                    .or_default()
                    .put(from, &bytes[range]);
                continue;
            }
            let has_leftovers = self.has_leftovers();
            let slot = &mut self.blocks[block];
            let gap = u64::from(from - slot.filled);
            let summed = if planted::is(Bug::GapUnsummed) {
                0
            } else {
                gap
            };
            if has_leftovers && gap > 0 {
                assert_eq!(at, 0, "a piece goes on where a block begins");
                zeros = gap;
            }
            slot.plain = block::combine(block::pad(slot.plain, summed), *sum, u64::from(len));
            slot.filled = from + len;
            match places.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => places.push(range),
            }
        }
        assert_eq!(shares, sums.len(), "one sum for each block touched");
        self.end = self.end.max(offset + len);
        (places, zeros)
    }
    /// The block is made anew by the next cut.
    fn anew(&mut self, block: usize) {
        if self.blocks[block].anew == Anew::No {
            probe::hit(Probe::BlockMadeAnew);
            let is = self.summed(block);
            self.behind.insert(block, is);
        }
        self.blocks[block].anew = Anew::Unsummed;
    }
    /// Takes a cut: what is written now is covered from here on.
    pub(super) fn cut(&mut self) -> Covers {
        let block_bytes = self.geometry.block_bytes;
        let page = u32::try_from(self.geometry.page_bytes()).expect("a page is small");
        let mut zeros = Vec::new();
        for index in 0..self.blocks.len() {
            let block = self.blocks[index];
            if block.filled == 0 {
                continue;
            }
            // A block wholly below the committed end is covered to its own end: the rest of it was
            // committed as zeros.
            let covered = committed_share(self.geometry, self.end, index);
            let grows = block.covered < covered && block.filled < covered;
            if grows && self.has_leftovers() {
                let in_page = !block.covered.is_multiple_of(page)
                    && block.filled < block.covered.next_multiple_of(page);
                if block.anew != Anew::No || in_page {
                    self.anew(index);
                    self.waits.entry(index).or_default();
                } else {
                    let begin = index as u64 * u64::from(block_bytes);
                    zeros.push(begin + u64::from(block.filled)..begin + u64::from(covered));
                }
            }
            self.blocks[index].covered = covered;
        }
        let change = |(block, over)| Change {
            block,
            over,
            share: committed_share(self.geometry, self.end, block),
        };
        let changes = core::mem::take(&mut self.waits)
            .into_iter()
            .map(change)
            .collect();
        let sum = |block: &Block| {
            let padded = || block::pad_to_block(block.plain, block.filled.into(), block_bytes);
            (block.filled > 0 && block.anew != Anew::Unsummed).then(padded)
        };
        Covers {
            sums: self.blocks.iter().map(sum).collect(),
            zeros,
            changes,
        }
    }
    /// What a block is that a cut has made anew. `last` tells whether nothing was written to it since.
    pub(super) fn made_anew(&mut self, block: usize, is: Expected, last: bool) {
        if !last || self.waits.contains_key(&block) {
            return;
        }
        let slot = &mut self.blocks[block];
        assert_eq!(slot.anew, Anew::Unsummed, "it is summed once");
        let rest = u64::from(self.geometry.block_bytes - is.filled);
        slot.filled = is.filled;
        slot.plain = is.sum.map_or(EMPTY, |sum| block::unpad(sum, rest));
        slot.anew = Anew::Summed;
    }
    /// A block that was made anew is in its place. `last` as there.
    pub(super) fn placed(&mut self, block: usize, is: Expected, last: bool) {
        if !last || self.waits.contains_key(&block) {
            self.behind.insert(block, is);
            return;
        }
        self.behind.remove(&block);
        self.blocks[block].anew = Anew::No;
    }
    /// How a block must look on the disk. What is read is never more than a sync has covered, and what waits is past
    /// that.
    pub(super) fn expected(&self, block: usize) -> Expected {
        match self.behind.get(&block) {
            Some(behind) if !planted::is(Bug::WaitingPageExpected) => *behind,
            _ => self.summed(block),
        }
    }
    /// How a block must look by what was written.
    fn summed(&self, block: usize) -> Expected {
        let Block { filled, plain, .. } = self.block(block);
        let sum = (filled > 0)
            .then(|| block::pad_to_block(plain, u64::from(filled), self.geometry.block_bytes));
        Expected { filled, sum }
    }
}

impl Expected {
    /// How a block at rest must look, by its header.
    pub(super) fn by(geometry: Geometry, header: &Header, block: usize) -> Self {
        let sum = header.sum(block);
        let filled = if sum.is_some() {
            committed_share(geometry, header.len, block)
        } else {
            0
        };
        Self { filled, sum }
    }
}

/// How many bytes of a block lie below the committed end.
fn committed_share(geometry: Geometry, len: u64, block: usize) -> u32 {
    let before = block as u64 * u64::from(geometry.block_bytes);
    let share = len
        .saturating_sub(before)
        .min(u64::from(geometry.block_bytes));
    u32::try_from(share).expect("at most a block")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Sums;
    use crate::chunk::name::ChunkName;
    use crate::ids::*;
    use bytes::Bytes;

    const REAL: Geometry = Geometry::REAL;

    /// Whether it goes to its place, whole.
    fn write(table: &mut Table, offset: u64, bytes: &[u8]) -> bool {
        let bytes = Bytes::copy_from_slice(bytes);
        let sums = Sums::of(REAL, offset, &bytes);
        let (places, _) = table.write(offset, &bytes, &sums.blocks);
        matches!(&places[..], [place] if place.len() == bytes.len())
    }

    /// The first byte of a block from which on a write goes to its place.
    fn first_free(table: &Table, block: u64) -> u64 {
        let start = block * 65_536;
        (0..65_536)
            .find(|from| table.would_wait(start + from, 1) == 0)
            .unwrap_or(65_536)
    }

    #[test]
    fn a_cut_covers_what_is_written_the_page_it_ends_in_and_whole_blocks_below_the_committed_end() {
        let mut table = Table::new(REAL);
        assert!(write(&mut table, 0, &[1; 100]));
        assert!(write(&mut table, 2 * 65_536, &[2; 5_000]));
        assert_eq!(first_free(&table, 0), 100);
        assert_eq!(first_free(&table, 2), 5_000);
        table.cut();
        assert_eq!(first_free(&table, 0), 65_536, "below the committed end");
        assert_eq!(first_free(&table, 1), 0, "a hole has nothing to cover");
        assert_eq!(first_free(&table, 2), 8_192, "its page may not be torn");
        assert!(write(&mut table, 2 * 65_536 + 8_192, &[3; 10]));
        assert!(write(&mut table, 65_536 + 7, &[4; 10]));
        assert_eq!(table.end(), 2 * 65_536 + 8_202);
        table.cut();
        assert_eq!(first_free(&table, 1), 65_536);
        assert_eq!(first_free(&table, 2), 12_288);
        assert_eq!(first_free(&table, 3), 0);
    }

    #[test]
    fn a_page_that_is_exactly_full_covers_no_more() {
        let mut table = Table::new(REAL);
        write(&mut table, 0, &[1; 8_192]);
        table.cut();
        assert_eq!(first_free(&table, 0), 8_192);
        write(&mut table, 8_192, &[1; 65_536 - 8_192]);
        table.cut();
        assert_eq!(first_free(&table, 0), 65_536);
    }

    #[test]
    fn whatever_is_written_to_a_block_that_waits_waits_too_until_it_is_in_its_place() {
        let mut table = Table::new(REAL);
        write(&mut table, 0, &[1; 100]);
        assert!(!write(&mut table, 50, &[2; 10]), "it is there already");
        assert!(!write(&mut table, 9_000, &[3; 10]), "the sum is unknown");
        assert_eq!(table.waiting(), 1);
        assert_eq!(table.expected(0).filled, 100, "as it is on the disk");
        let mut cut = table.cut();
        assert_eq!(cut.sums, [None]);
        assert!(
            !write(&mut table, 20_000, &[4; 10]),
            "it is not yet in its place"
        );
        let change = cut.changes.remove(0);
        let redo = change.make(REAL, table.expected(0), &[1; 100]).unwrap();
        table.made_anew(0, redo.is, true);
        table.placed(0, redo.is, true);
        assert_eq!(table.expected(0), redo.is);
        assert!(
            !write(&mut table, 40_000, &[4; 10]),
            "something waits still"
        );
        let mut cut = table.cut();
        let change = cut.changes.remove(0);
        let mut old = vec![0; 9_010];
        old[..100].fill(1);
        old[50..60].fill(2);
        old[9_000..].fill(3);
        let redo = change.make(REAL, table.expected(0), &old).unwrap();
        assert_eq!(
            redo.run.pages, 8,
            "from the first byte that was not there on"
        );
        table.made_anew(0, redo.is, true);
        assert!(!write(&mut table, 50_000, &[4; 10]), "nor is it now");
        assert!(!table.cut().changes.is_empty());
        let mut table = Table::new(REAL);
        write(&mut table, 0, &[1; 100]);
        write(&mut table, 50, &[2; 10]);
        let change = table.cut().changes.remove(0);
        let redo = change.make(REAL, table.expected(0), &[1; 100]).unwrap();
        table.made_anew(0, redo.is, true);
        table.placed(0, redo.is, true);
        assert!(write(&mut table, 40_000, &[4; 10]));
    }

    #[test]
    fn a_block_that_is_written_over_whole_is_not_read_and_one_that_rotted_is_not_written_over_in_part()
     {
        let mut table = Table::new(REAL);
        write(&mut table, 0, &[1; 100]);
        table.cut();
        write(&mut table, 0, &[2; 60]);
        write(&mut table, 60, &[3; 60]);
        let change = table.cut().changes.remove(0);
        assert!(!change.needs(table.expected(0)));
        let redo = change.make(REAL, table.expected(0), &[]).unwrap();
        assert_eq!(redo.bytes[..], [[2; 60], [3; 60]].concat());
        table.made_anew(0, redo.is, true);
        table.placed(0, redo.is, true);
        write(&mut table, 1, &[4; 119]);
        let change = table.cut().changes.remove(0);
        let was = table.expected(0);
        assert!(change.needs(was));
        let old = [[2; 60], [3; 60]].concat();
        for rotted in [vec![], old[1..].to_vec(), [&[9], &old[1..]].concat()] {
            let bad = change.make(REAL, was, &rotted).unwrap_err();
            assert_eq!(bad.block, 0);
        }
        assert_eq!(change.make(REAL, was, &old).unwrap().bytes[0], 2);
    }

    #[test]
    fn the_sums_of_pieces_gaps_and_reloaded_tables_are_those_of_the_bytes() {
        let mut table = Table::new(REAL);
        let mut bytes = vec![0_u8; 3 * 65_536];
        let mut put = |table: &mut Table, from: usize, len: usize| {
            for (at, byte) in bytes.iter_mut().enumerate().skip(from).take(len) {
                *byte = u8::try_from(at % 253 + 1).unwrap();
            }
            write(table, from as u64, &bytes[from..from + len]);
            bytes.clone()
        };
        put(&mut table, 0, 1);
        put(&mut table, 1, 4_095);
        put(&mut table, 4_099, 65_536 - 4_099 + 10);
        let now = put(&mut table, 2 * 65_536 + 70, 30);
        let sum = |bytes: &[u8], block: usize| {
            Some(adler::adler32_slice(
                &bytes[block * 65_536..(block + 1) * 65_536],
            ))
        };
        let sums = table.cut().sums;
        assert_eq!(sums, [sum(&now, 0), sum(&now, 1), sum(&now, 2)]);
        let header = Header {
            name: ChunkName {
                file: FileId(1),
                chunk: ChunkId(1),
                version: Version(1),
            },
            len: table.end(),
            sums,
            generation: 2,
            incarnation: Incarnation(1),
            cluster: ClusterId(1),
            wseq: WriteSeq(1),
            pieces: Vec::new(),
            redo: Vec::new(),
        };
        let mut reloaded = Table::of(REAL, &header, Elsewhere::Zeros);
        for block in 0..4 {
            assert_eq!(
                first_free(&reloaded, block),
                first_free(&table, block),
                "block {block}"
            );
        }
        let later = put(&mut reloaded, 2 * 65_536 + 4_096, 1_000);
        assert_eq!(reloaded.cut().sums[2], sum(&later, 2));
        assert_eq!(reloaded.expected(2).filled, 5_096);
    }
}
