//! Blocks and their sums: Adler-32 over a block padded with zeros, and the arithmetic that lets short
//! and appended pieces be summed without reading anything twice.
//!
//! An Adler-32 is `b << 16 | a`, with a and b modulo 65521 (RFC 1950). Appending n zeros leaves a as it is
//! and adds n·a to b; so a short block's padded sum, and its way back, cost one multiplication.
use crate::limits::Geometry;
use crate::planted::{self, Bug};
use bytes::Bytes;

const MOD: u64 = 65_521;
/// The Adler-32 of no bytes.
pub const EMPTY: u32 = 1;

/// The Adler-32 of these bytes.
#[must_use]
pub fn sum(bytes: &[u8]) -> u32 {
    simd_adler32::adler32(&bytes)
}

/// The Adler-32 of `a ++ b`, from the sum of `a` and the sum and length of `b`.
#[must_use]
pub fn combine(a_sum: u32, b_sum: u32, b_len: u64) -> u32 {
    let (a1, b1) = split(a_sum);
    let (a2, b2) = split(b_sum);
    let a = (a1 + a2 + MOD - 1) % MOD;
    let b = (b1 + b2 + (b_len % MOD) * (a1 + MOD - 1)) % MOD;
    join(a, b)
}

/// The sum after `zeros` zero bytes are appended.
#[must_use]
pub fn pad(sum: u32, zeros: u64) -> u32 {
    let (a, b) = split(sum);
    join(a, (b + (zeros % MOD) * a) % MOD)
}

/// The sum before `zeros` zero bytes were appended: undoes [`pad`].
#[must_use]
pub fn unpad(sum: u32, zeros: u64) -> u32 {
    let (a, b) = split(sum);
    join(a, (b + MOD * MOD - (zeros % MOD) * a) % MOD)
}

const fn split(sum: u32) -> (u64, u64) {
    ((sum & 0xffff) as u64, (sum >> 16) as u64)
}

fn join(a: u64, b: u64) -> u32 {
    u32::try_from(b << 16 | a).expect("both halves are below 65521")
}

/// The sum of a block of `block_bytes` that holds `bytes` and zeros after them.
#[must_use]
pub fn padded_sum(bytes: &[u8], block_bytes: u32) -> u32 {
    pad_to_block(sum(bytes), bytes.len() as u64, block_bytes)
}

/// The padded sum of a block from the plain sum of its first `len` bytes.
#[must_use]
pub fn pad_to_block(plain: u32, len: u64, block_bytes: u32) -> u32 {
    assert!(
        len <= u64::from(block_bytes),
        "a block holds no more than its size"
    );
    if planted::is(Bug::ShortBlockUnpadded) {
        return plain;
    }
    pad(plain, u64::from(block_bytes) - len)
}

/// The CRC-32 of these bytes.
#[must_use]
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// FNV-1a, 64 bits.
#[must_use]
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// One block's share of a range of bytes within a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockSpan {
    /// The block's index in its chunk.
    pub block: usize,
    /// Where the share begins within the block.
    pub from: u32,
    /// Its length, at least 1.
    pub len: u32,
    /// Where it begins within the range.
    pub at: usize,
}

/// Cuts `len` bytes from `offset` of a chunk at block edges.
pub fn spans(geometry: Geometry, offset: u64, len: u64) -> impl Iterator<Item = BlockSpan> {
    let block_bytes = u64::from(geometry.block_bytes);
    let end = offset + len;
    let mut at = offset;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let from = at % block_bytes;
        let share = (block_bytes - from).min(end - at);
        let span = BlockSpan {
            block: usize::try_from(at / block_bytes).expect("a chunk has few blocks"),
            from: u32::try_from(from).expect("within a block"),
            len: u32::try_from(share).expect("within a block"),
            at: usize::try_from(at - offset).expect("within memory"),
        };
        at += share;
        Some(span)
    })
}

/// What travels beside a range of bytes: the plain Adler-32 of its share of each block it touches,
/// in order, and the CRC-32 of the whole, because Adler-32 misses some edits of three bytes.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Sums {
    /// Per block touched: Adler-32 of the bytes sent, without padding.
    pub blocks: Vec<u32>,
    /// CRC-32 of all bytes.
    pub crc: u32,
}

impl Sums {
    /// Of `bytes` that stand at `offset` of a chunk.
    #[must_use]
    pub fn of(geometry: Geometry, offset: u64, bytes: &Bytes) -> Self {
        let blocks = spans(geometry, offset, bytes.len() as u64)
            .map(|span| sum(&bytes[span.at..span.at + span.len as usize]))
            .collect();
        Self {
            blocks,
            crc: crc(bytes),
        }
    }
    /// Whether `bytes` at `offset` of a chunk are what was summed.
    #[must_use]
    pub fn match_bytes(&self, geometry: Geometry, offset: u64, bytes: &Bytes) -> bool {
        *self == Self::of(geometry, offset, bytes)
    }
}

/// So many zeros, of which there is one copy in memory.
#[must_use]
pub fn zeros(len: usize) -> Vec<Bytes> {
    static ZEROS: [u8; 65_536] = [0; 65_536];
    let mut parts = Vec::with_capacity(len.div_ceil(ZEROS.len()));
    let mut left = len;
    while left > 0 {
        let share = left.min(ZEROS.len());
        parts.push(Bytes::from_static(&ZEROS[..share]));
        left -= share;
    }
    parts
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "bytes of patterns wrap")]
mod tests {
    use super::*;

    #[test]
    fn adler_of_the_known_vectors() {
        assert_eq!(sum(b""), 0x0000_0001);
        assert_eq!(sum(b"Wikipedia"), 0x11E6_0398);
        assert_eq!(sum(&[0; 65_536]), 0x000F_0001);
        let mut zero_sum = [0_u8; 65_536];
        zero_sum[..256].fill(0xFF);
        zero_sum[264] = 239;
        zero_sum[392] = 1;
        assert_eq!(sum(&zero_sum), 0);
    }

    #[test]
    fn sums_agree_with_the_reference_adler_for_every_short_length() {
        let bytes: Vec<u8> = (0..4_096_u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(
                sum(&bytes[..len]),
                adler::adler32_slice(&bytes[..len]),
                "length {len}"
            );
        }
    }

    #[test]
    fn padding_combining_and_unpadding_equal_summing_the_bytes() {
        let bytes: Vec<u8> = (0..65_536_u32).map(|i| (i * 31 + i / 255) as u8).collect();
        for cut in [
            0, 1, 15, 4_095, 4_096, 65_520, 65_521, 65_522, 65_535, 65_536,
        ] {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(
                combine(sum(head), sum(tail), tail.len() as u64),
                sum(&bytes),
                "cut {cut}"
            );
            let mut padded = head.to_vec();
            padded.resize(65_536, 0);
            let zeros = (65_536 - cut) as u64;
            assert_eq!(padded_sum(head, 65_536), sum(&padded), "cut {cut}");
            assert_eq!(unpad(sum(&padded), zeros), sum(head), "cut {cut}");
        }
    }

    #[test]
    fn a_range_is_cut_at_block_edges_and_nowhere_else() {
        let geometry = Geometry {
            block_bytes: 100,
            chunk_blocks: 10,
            piece_bytes: 100,
        };
        let cut: Vec<_> = spans(geometry, 150, 120)
            .map(|s| (s.block, s.from, s.len, s.at))
            .collect();
        assert_eq!(cut, [(1, 50, 50, 0), (2, 0, 70, 50)]);
        assert_eq!(spans(geometry, 100, 0).count(), 0);
    }

    #[test]
    fn the_crc_sees_the_edit_that_adler_misses() {
        let geometry = Geometry::REAL;
        let (one, other) = (
            Bytes::from_static(&[1, 3, 2]),
            Bytes::from_static(&[2, 1, 3]),
        );
        let sums = Sums::of(geometry, 0, &one);
        assert_eq!(sums.blocks, Sums::of(geometry, 0, &other).blocks);
        assert!(sums.match_bytes(geometry, 0, &one));
        assert!(!sums.match_bytes(geometry, 0, &other));
    }
}
