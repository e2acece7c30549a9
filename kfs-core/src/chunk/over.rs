//! A block that is written over: bytes that a sync has covered, or that were written in their places before, are never
//! touched by a write that may tear them.
//!
//! What is written to such a block waits in memory. The sync that covers it reads the block as it is, checks that
//! against its sum, makes it what it is to be, and writes the pages that are others then, one *run* of a block, to where
//! they stand whole beside the data; the header names the runs, and only when that is durable are they written in
//! their places (see [`super::redo`]).
//!
//! Pure: bytes in, bytes out.
use super::header::RedoRun;
use super::read::BadBlock;
use super::redo::Redo;
use super::table::{Change, Expected};
use crate::block::{crc, padded_sum};
use crate::limits::Geometry;
use crate::planted::{self, Bug};
use bytes::Bytes;
use core::ops::Range;

/// Blocks of one chunk that may wait for a cut at the head of its chain; one more may have to be made anew with them,
/// the one in which the chunk ended.
pub(super) const WAITING_MAX: usize = super::header::REDO_RUNS_MAX - 1;
/// As many as make the head take one, though nobody has asked for it.
pub(super) const WAITING_MANY: usize = WAITING_MAX / 2;
/// Blocks of all chunks of a server together that may wait when it is the head of a chain: 64 MiB of real ones.
pub const WAITING_OF_ALL_MAX: usize = 1_024;

/// What is written to a block, the later over the earlier.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Over {
    /// Where in the block `bytes` begin.
    begin: u32,
    bytes: Vec<u8>,
    /// What of the block is written: apart from one another, in order.
    ranges: Vec<Range<u32>>,
}

impl Over {
    /// Notes a write from this byte of the block on.
    pub(super) fn put(&mut self, from: u32, bytes: &[u8]) {
        let to = from + u32::try_from(bytes.len()).expect("less than a block");
        if self.ranges.is_empty() {
            self.begin = from;
        }
        if from < self.begin {
            let more = (self.begin - from) as usize;
            self.bytes.splice(..0, core::iter::repeat_n(0, more));
            self.begin = from;
        }
        let at = (from - self.begin) as usize..(to - self.begin) as usize;
        if self.bytes.len() < at.end {
            self.bytes.resize(at.end, 0);
        }
        self.bytes[at].copy_from_slice(bytes);
        let first = self.ranges.partition_point(|range| range.end < from);
        let past = self.ranges.partition_point(|range| range.start <= to);
        let mut whole = from..to;
        if let Some(touched) = self
            .ranges
            .get(first..past)
            .filter(|touched| !touched.is_empty())
        {
            whole.start = whole.start.min(touched[0].start);
            whole.end = whole.end.max(touched[touched.len() - 1].end);
        }
        self.ranges.splice(first..past, [whole]);
    }

    /// Whether the first so many bytes of the block are all written over.
    fn is_all_of(&self, filled: u32) -> bool {
        filled == 0
            || matches!(self.ranges.first(), Some(first) if first.start == 0 && first.end >= filled)
    }
}

impl Change {
    /// Whether what the block is on the disk has to be read for it.
    pub(super) fn needs(&self, was: Expected) -> bool {
        was.sum.is_some() && !self.over.is_all_of(was.filled)
    }

    /// What the block is to be: the pages that are others then, and what it must look like. `old` is what was read of
    /// it, as far as it was filled; anything if nothing was needed.
    ///
    /// # Errors
    /// If `old` does not match its sum.
    pub(super) fn make(
        &self,
        geometry: Geometry,
        was: Expected,
        old: &[u8],
    ) -> Result<Redo, BadBlock> {
        let block_bytes = geometry.block_bytes;
        let mut bytes = vec![0; self.share as usize];
        if self.needs(was) {
            let is_whole = old.len() == was.filled as usize
                && (Some(padded_sum(old, block_bytes)) == was.sum
                    || planted::is(Bug::OldBlockUnverified));
            if !is_whole {
                let why = "what it is on the disk cannot be read, or does not match its sum".into();
                let block = self.block;
                return Err(BadBlock { block, why });
            }
            let kept = old.len().min(bytes.len());
            bytes[..kept].copy_from_slice(&old[..kept]);
        }
        let over = &self.over;
        for range in &over.ranges {
            let from = (range.start - over.begin) as usize;
            let to = (range.end - over.begin) as usize;
            bytes[range.start as usize..range.end as usize].copy_from_slice(&over.bytes[from..to]);
        }
        let is = Expected {
            filled: self.share,
            sum: Some(padded_sum(&bytes, block_bytes)),
        };
        // What it was not filled with may be anything on the disk.
        let grows = (was.filled < self.share).then_some(was.filled..self.share);
        let others = || over.ranges.iter().chain(&grows);
        let first = others().map(|range| range.start).min();
        let last = others().map(|range| range.end).max();
        let (first, last) = first.zip(last).expect("a block is made anew for a reason");
        let page_bytes = u32::try_from(geometry.page_bytes()).expect("a page is small");
        let pages = first / page_bytes..last.div_ceil(page_bytes);
        let from = pages.start * page_bytes;
        let to = (pages.end * page_bytes).min(self.share);
        let bytes = Bytes::from(bytes).slice(from as usize..to as usize);
        let per_block = block_bytes / page_bytes;
        let block = u32::try_from(self.block).expect("a chunk has few blocks");
        let run = RedoRun {
            page: block * per_block + pages.start,
            pages: pages.end - pages.start,
            crc: crc(&bytes),
        };
        let block = self.block;
        Ok(Redo {
            run,
            bytes,
            block,
            is,
        })
    }
}
