//! The blocks of a chunk that is being written: how far each is filled, its sum, and what a sync has
//! covered. Sums of appended pieces are combined, so no byte is read twice.
//!
//! **Write once.** Within a block writes only go forward, and nothing below a *cut* is touched again: no
//! byte of a block that has a sum and lies below the committed end. The page that holds that end is written
//! in its place only once it stands elsewhere too (see [`super::tail`]). So a torn write can never reach what
//! a sync promised.
use super::header::Header;
use crate::block::{self, BlockSpan, EMPTY, spans};
use crate::limits::Geometry;
use crate::planted::{self, Bug};
use core::ops::Range;

/// See the file's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    geometry: Geometry,
    /// Up to the last block written to.
    blocks: Vec<Block>,
    /// The largest end of a write, in bytes.
    end: u64,
    elsewhere: Elsewhere,
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
    /// Bytes from the block's start that a cut covers: not below it may be written.
    covered: u32,
}

const HOLE: Block = Block {
    filled: 0,
    plain: EMPTY,
    covered: 0,
};

/// What a block must look like when it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expected {
    /// Bytes from the block's start that count; after them it is zeros whatever the disk holds.
    pub filled: u32,
    /// The sum of the block, padded with zeros; `None`: a hole.
    pub sum: Option<u32>,
}

/// A write that would touch what may not be touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Covered {
    pub block: usize,
    /// Writes to the block may begin here, in bytes from its start.
    pub from: u32,
}

impl Table {
    /// The table of a chunk of which nothing is written.
    pub(super) const fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            blocks: Vec::new(),
            end: 0,
            elsewhere: Elsewhere::Zeros,
        }
    }
    /// The table of a chunk of which everything is committed.
    pub(super) fn of(geometry: Geometry, header: &Header, elsewhere: Elsewhere) -> Self {
        let block = |(index, sum): (usize, &Option<u32>)| match *sum {
            None => HOLE,
            Some(sum) => {
                let filled = committed_share(geometry, header.len, index);
                let plain = block::unpad(sum, u64::from(geometry.block_bytes - filled));
                Block {
                    filled,
                    plain,
                    covered: filled,
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
            geometry,
            blocks,
            end: header.len,
            elsewhere,
        }
    }
    /// One of nothing, that still tells what is known of the disk.
    pub(super) fn emptied(&self) -> Self {
        Self {
            elsewhere: self.elsewhere,
            ..Self::new(self.geometry)
        }
    }
    /// What is known of the disk.
    pub(super) const fn elsewhere(&self) -> Elsewhere {
        self.elsewhere
    }
    /// Bytes before a write at `offset` that come to count with it, as zeros, and may be others on the disk: how many.
    pub(super) fn gap_before(&self, offset: u64) -> u64 {
        let block_bytes = u64::from(self.geometry.block_bytes);
        let block = usize::try_from(offset / block_bytes).expect("a chunk has few blocks");
        let filled = self.blocks.get(block).map_or(0, |block| block.filled);
        match self.elsewhere {
            Elsewhere::Zeros => 0,
            Elsewhere::Leftovers => (offset % block_bytes).saturating_sub(u64::from(filled)),
        }
    }
    /// The largest end of a write, in bytes.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }
    /// Whether `len` bytes from `offset` may be written.
    pub(super) fn may_write(&self, offset: u64, len: u64) -> Result<(), Covered> {
        for span in spans(self.geometry, offset, len) {
            let from = self.free_from(span.block);
            if span.from < from {
                return Err(Covered {
                    block: span.block,
                    from,
                });
            }
        }
        Ok(())
    }
    /// Notes a write that [`Table::may_write`] allowed; `sums` are of its share of each block.
    pub(super) fn write(&mut self, offset: u64, len: u64, sums: &[u32]) {
        assert!(
            self.may_write(offset, len).is_ok(),
            "checked before it was taken"
        );
        let mut shares = 0;
        for (
            BlockSpan {
                block, from, len, ..
            },
            sum,
        ) in spans(self.geometry, offset, len).zip(sums)
        {
            if self.blocks.len() <= block {
                self.blocks.resize(block + 1, HOLE);
            }
            let slot = &mut self.blocks[block];
            let gap = if planted::is(Bug::GapUnsummed) {
                0
            } else {
                u64::from(from - slot.filled)
            };
            slot.plain = block::combine(block::pad(slot.plain, gap), *sum, u64::from(len));
            slot.filled = from + len;
            assert!(
                slot.filled <= self.geometry.block_bytes,
                "a share stays in its block"
            );
            shares += 1;
        }
        assert_eq!(shares, sums.len(), "one sum for each block touched");
        self.end = self.end.max(offset + len);
    }
    /// Takes a cut: what is written now is covered from here on. Gives the padded sums for the header, and ranges that
    /// come to count with it, as zeros, and may be something else on the disk.
    pub(super) fn cut(&mut self) -> (Vec<Option<u32>>, Vec<Range<u64>>) {
        let block_bytes = self.geometry.block_bytes;
        let mut rests = Vec::new();
        for (index, block) in self.blocks.iter_mut().enumerate() {
            if block.filled > 0 {
                // A block wholly below the committed end is covered to its own end: the rest of it was
                // committed as zeros.
                let covered = committed_share(self.geometry, self.end, index);
                let is_new = block.covered < covered && block.filled < covered;
                if is_new && self.elsewhere == Elsewhere::Leftovers {
                    let begin = index as u64 * u64::from(block_bytes);
                    rests.push(begin + u64::from(block.filled)..begin + u64::from(covered));
                }
                block.covered = covered;
            }
        }
        let sum = |block: &Block| {
            (block.filled > 0)
                .then(|| block::pad_to_block(block.plain, u64::from(block.filled), block_bytes))
        };
        let mut sums: Vec<Option<u32>> = self.blocks.iter().map(sum).collect();
        while sums.last().is_some_and(Option::is_none) {
            sums.pop();
        }
        (sums, rests)
    }
    /// How a block must look now.
    pub(super) fn expected(&self, block: usize) -> Expected {
        let Block { filled, plain, .. } = self.blocks.get(block).copied().unwrap_or(HOLE);
        let sum = (filled > 0)
            .then(|| block::pad_to_block(plain, u64::from(filled), self.geometry.block_bytes));
        Expected { filled, sum }
    }
    fn free_from(&self, block: usize) -> u32 {
        self.blocks
            .get(block)
            .map_or(0, |block| block.filled.max(block.covered))
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

    fn write(table: &mut Table, offset: u64, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        let sums = Sums::of(REAL, offset, &bytes);
        table.write(offset, bytes.len() as u64, &sums.blocks);
    }

    fn first_free(table: &Table, block: u64) -> u64 {
        let start = block * 65_536;
        (0..65_536)
            .find(|from| table.may_write(start + from, 1).is_ok())
            .unwrap_or(65_536)
    }

    #[test]
    fn a_cut_covers_what_is_written_and_whole_blocks_below_the_committed_end() {
        let mut table = Table::new(REAL);
        write(&mut table, 0, &[1; 100]);
        write(&mut table, 2 * 65_536, &[2; 5_000]);
        assert_eq!(first_free(&table, 0), 100);
        assert_eq!(first_free(&table, 2), 5_000);
        table.cut();
        assert_eq!(first_free(&table, 0), 65_536, "below the committed end");
        assert_eq!(first_free(&table, 1), 0, "a hole has nothing to cover");
        assert_eq!(first_free(&table, 2), 5_000, "the page is written further");
        assert!(
            table.may_write(65_536, 65_536 + 1).is_err(),
            "a write is seen in every block it touches"
        );
        write(&mut table, 2 * 65_536 + 8_192, &[3; 10]);
        write(&mut table, 65_536 + 7, &[4; 10]);
        assert_eq!(table.end(), 2 * 65_536 + 8_202);
        table.cut();
        assert_eq!(first_free(&table, 1), 65_536);
        assert_eq!(first_free(&table, 2), 8_202);
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
        let (sums, _) = table.cut();
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
            redo: None,
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
        assert_eq!(reloaded.cut().0[2], sum(&later, 2));
        assert_eq!(reloaded.expected(2).filled, 5_096);
    }
}
