//! Cutting what is written into pieces: large writes are sliced where they stand, small ones that follow one
//! another are gathered, and pieces end at block edges wherever the writer lets them.
//!
//! Knows nothing of chunkservers: bytes in, pieces out.
use super::write::PIECE_COST;
use crate::buggify::{self, Site};
use crate::limits::Geometry;
use crate::probe::{self, Probe};
use bytes::Bytes;

/// Cuts the writes of one file.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    geometry: Geometry,
    window: usize,
    /// Pieces end at multiples of this within their chunk: a piece, or less if the window is small.
    stride: u64,
    /// Bytes that wait for more: they end before the next edge.
    tail: Option<Tail>,
}

#[derive(Clone, Debug)]
struct Tail {
    at: u64,
    bytes: Vec<u8>,
}

/// What was taken from a write.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) bytes: usize,
    /// A piece that is ready, and where in the file it stands.
    pub(super) piece: Option<(u64, Bytes)>,
}

impl Cutter {
    pub(super) fn new(geometry: Geometry, window: usize) -> Self {
        let block = u64::from(geometry.block_bytes);
        let half = if buggify::is(Site::PieceOfOneBlock) {
            block
        } else {
            (window as u64 / 2 / block * block).max(block)
        };
        Self {
            geometry,
            window,
            stride: half.min(u64::from(geometry.piece_bytes)),
            tail: None,
        }
    }

    /// Whether bytes at `offset` go on where the gathered ones end.
    pub(super) fn joins(&self, offset: u64) -> bool {
        self.tail
            .as_ref()
            .is_none_or(|tail| tail.at + tail.bytes.len() as u64 == offset)
    }

    /// The gathered bytes, as they are.
    pub(super) fn tail(&mut self) -> Option<(u64, Bytes)> {
        self.tail
            .take()
            .map(|tail| (tail.at, Bytes::from(tail.bytes)))
    }

    /// Takes bytes from the front of `data`, which stands at `offset`: up to the next edge, or all. `None`
    /// if the window, of which `held` is used, has no room for them.
    pub(super) fn take(
        &mut self,
        offset: &mut u64,
        data: &mut Bytes,
        held: usize,
    ) -> Option<Taken> {
        assert!(
            !data.is_empty() && self.joins(*offset),
            "the caller cuts the tail first"
        );
        let (_, within) = self.geometry.chunk_at(*offset);
        let edge = ((within / self.stride + 1) * self.stride).min(self.geometry.chunk_bytes());
        let to_edge = usize::try_from(edge - within).expect("a piece fits in memory");
        let mut share = to_edge.min(data.len());
        if self.tail.is_none() && share < to_edge {
            // Whole blocks that are worth a piece are sent as they stand; what is left of them is gathered.
            let block = u64::from(self.geometry.block_bytes);
            let whole = ((within + share as u64) / block * block).saturating_sub(within);
            if whole >= (self.stride / 4).max(block) {
                share = usize::try_from(whole).expect("no more than the share");
            }
        }
        let room = self
            .window
            .max(to_edge.max(self.stride_bytes()) + PIECE_COST);
        if held > 0 && held + share + PIECE_COST > room {
            return None;
        }
        let at = *offset;
        let bytes = data.split_to(share);
        *offset += share as u64;
        let end = within + share as u64;
        let block_edge = end.is_multiple_of(u64::from(self.geometry.block_bytes));
        let piece = match &mut self.tail {
            Some(tail) => {
                probe::hit(Probe::PieceGathered);
                tail.bytes.extend_from_slice(&bytes);
                if share == to_edge { self.tail() } else { None }
            }
            None if share == to_edge || (block_edge && share as u64 >= self.stride / 4) => {
                Some((at, bytes))
            }
            None => {
                self.tail = Some(Tail {
                    at,
                    bytes: bytes.to_vec(),
                });
                None
            }
        };
        Some(Taken {
            bytes: share,
            piece,
        })
    }

    fn stride_bytes(&self) -> usize {
        usize::try_from(self.stride).expect("a piece fits in memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        block_bytes: 10,
        chunk_blocks: 5,
        piece_bytes: 20,
    };

    fn cut(writes: &[(u64, usize)]) -> Vec<(u64, usize)> {
        let mut cutter = Cutter::new(GEOMETRY, 1 << 20);
        let mut pieces = Vec::new();
        for (at, len) in writes {
            let (mut at, mut data) = (*at, Bytes::from(vec![7; *len]));
            if !cutter.joins(at) {
                pieces.extend(cutter.tail());
            }
            while !data.is_empty() {
                pieces.extend(cutter.take(&mut at, &mut data, 0).unwrap().piece);
            }
        }
        pieces.extend(cutter.tail());
        pieces
            .iter()
            .map(|(at, bytes)| (*at, bytes.len()))
            .collect()
    }

    #[test]
    fn pieces_never_cross_chunk_edges_and_end_at_block_edges() {
        assert_eq!(
            cut(&[(0, 110)]),
            [
                (0, 20),
                (20, 20),
                (40, 10),
                (50, 20),
                (70, 20),
                (90, 10),
                (100, 10)
            ]
        );
        assert_eq!(cut(&[(35, 20)]), [(35, 5), (40, 10), (50, 5)]);
    }

    #[test]
    fn small_writes_that_follow_one_another_become_one_piece() {
        assert_eq!(
            cut(&[(0, 3), (3, 3), (6, 3), (9, 12), (21, 1)]),
            [(0, 20), (20, 2)]
        );
        assert_eq!(
            cut(&[(0, 3), (7, 3)]),
            [(0, 3), (7, 3)],
            "a gap is not written"
        );
    }

    #[test]
    fn large_writes_are_not_copied() {
        let data = Bytes::from(vec![7; 40]);
        let mut rest = data.clone();
        let taken = Cutter::new(GEOMETRY, 1 << 20)
            .take(&mut 0, &mut rest, 0)
            .unwrap();
        let (_, piece) = taken.piece.unwrap();
        assert_eq!(piece.as_ptr(), data.as_ptr());
    }

    #[test]
    fn a_full_window_takes_nothing_and_an_empty_one_always_takes_a_piece() {
        let mut cutter = Cutter::new(GEOMETRY, 1);
        let (mut at, mut data) = (0, Bytes::from(vec![7; 40]));
        assert!(cutter.take(&mut at, &mut data, 1_000).is_none());
        assert_eq!(cutter.take(&mut at, &mut data, 0).unwrap().bytes, 10);
    }
}
