//! A replica whose file was cut in its chunk: the header that raises it ends there.
//!
//! Nothing of the data is written. What the disk has behind the cut counts no more, like what an earlier chain has left
//! (see [`super::table`]): it is none of the sums, no read goes past the end, and where such bytes come to count again,
//! as zeros, they are made that first. The block in which the cut falls has another sum then, which needs its bytes:
//! they are read, and must match the sum that they had, so that what has rotted is not made good.
use super::Chunk;
use super::header::Header;
use super::name::ChunkName;
use super::read::BadBlock;
use super::table::Expected;
use crate::block::padded_sum;
use crate::limits::{Geometry, HEADER_BYTES};
use crate::machine::DiskOp;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};

/// A block in which a cut falls, as the header has it.
struct Within {
    nth: usize,
    /// Bytes of it that stay.
    stays: usize,
    /// What it is before.
    before: Expected,
}

/// The block in which a cut falls, if its bytes are needed: `None` at the edge of one, and in a hole.
fn within(geometry: Geometry, header: &Header, cut: u64) -> Option<Within> {
    let block_bytes = u64::from(geometry.block_bytes);
    let nth = usize::try_from(cut / block_bytes).expect("a chunk has few blocks");
    let stays = usize::try_from(cut % block_bytes).expect("a block is small");
    let before = Expected::by(geometry, header, nth);
    (stays > 0 && before.sum.is_some()).then_some(Within { nth, stays, before })
}

/// The header of a replica that ends at `cut`, which is before its end; `block` is what [`Chunk::cut_block`] names of
/// its file.
///
/// # Errors
/// If that does not match its sum.
pub(super) fn cut(
    geometry: Geometry,
    header: &Header,
    cut: u64,
    block: &[u8],
) -> Result<Header, BadBlock> {
    assert!(0 < cut && cut < header.len, "it has more than it is cut to");
    let blocks = cut.div_ceil(u64::from(geometry.block_bytes));
    let mut sums = header.sums.clone();
    sums.truncate(usize::try_from(blocks).expect("a chunk has few blocks"));
    if let Some(Within { nth, stays, before }) = within(geometry, header, cut) {
        let block_bytes = geometry.block_bytes;
        let is_whole = block.len() == before.filled as usize;
        if !is_whole || Some(padded_sum(block, block_bytes)) != before.sum {
            let why =
                "the block in which its file was cut cannot be read, or does not match its sum";
            let why = why.into();
            return Err(BadBlock { block: nth, why });
        }
        probe::hit(Probe::ReplicaCutInBlock);
        if !planted::is(Bug::CutBlockUnsummed) {
            sums[nth] = Some(padded_sum(&block[..stays], block_bytes));
        }
    } else {
        probe::hit(Probe::ReplicaCutAtEdge);
    }
    while sums.last().is_some_and(Option::is_none) {
        sums.pop();
    }
    Ok(Header {
        len: cut,
        sums,
        ..header.clone()
    })
}

impl Chunk {
    /// Reads the block that [`cut`] needs beside a header; `None`: it needs none.
    pub(super) fn cut_block(&self, name: ChunkName, header: &Header, cut: u64) -> Option<DiskOp> {
        let geometry = self.config.geometry;
        let Within { nth, before, .. } = within(geometry, header, cut)?;
        Some(DiskOp::Read {
            file: name.path(),
            offset: HEADER_BYTES + nth as u64 * u64::from(geometry.block_bytes),
            len: before.filled as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::*;

    const SIZES: Geometry = Geometry {
        block_bytes: 100,
        chunk_blocks: 10,
        piece_bytes: 200,
    };

    fn header(len: u64, sums: Vec<Option<u32>>) -> Header {
        Header {
            name: ChunkName {
                file: FileId(1),
                chunk: ChunkId(1),
                version: Version(1),
            },
            len,
            sums,
            generation: 2,
            incarnation: Incarnation(1),
            cluster: ClusterId(1),
            wseq: WriteSeq(1),
            pieces: Vec::new(),
            redo: Vec::new(),
        }
    }

    #[test]
    fn the_block_in_which_it_is_cut_has_the_sum_of_what_stays() {
        let bytes: Vec<u8> = (1..=100).collect();
        let whole = Some(padded_sum(&bytes, 100));
        let before = header(250, vec![whole, whole, Some(7)]);
        let after = cut(SIZES, &before, 130, &bytes).unwrap();
        assert_eq!(after.len, 130);
        assert_eq!(after.sums, [whole, Some(padded_sum(&bytes[..30], 100))]);
        let mut rotten = bytes.clone();
        rotten[99] ^= 1;
        let bad = cut(SIZES, &before, 130, &rotten).unwrap_err();
        assert_eq!(
            bad.block, 1,
            "what has rotted behind the cut is not made good"
        );
        assert!(cut(SIZES, &before, 130, &bytes[..99]).is_err());
    }

    #[test]
    fn at_the_edge_of_a_block_and_in_a_hole_nothing_is_read_and_no_sum_changes() {
        let before = header(350, vec![Some(1), Some(2), None, Some(4)]);
        assert_eq!(
            cut(SIZES, &before, 200, &[]).unwrap().sums,
            [Some(1), Some(2)]
        );
        let after = cut(SIZES, &before, 250, &[]).unwrap();
        assert_eq!((after.len, after.sums), (250, vec![Some(1), Some(2)]));
    }

    #[test]
    fn the_last_block_is_read_as_far_as_it_was_filled() {
        let bytes: Vec<u8> = (1..=50).collect();
        let sum = Some(padded_sum(&bytes, 100));
        let before = header(150, vec![Some(1), sum]);
        let after = cut(SIZES, &before, 120, &bytes).unwrap();
        assert_eq!(after.sums, [Some(1), Some(padded_sum(&bytes[..20], 100))]);
    }
}
