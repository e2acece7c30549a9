//! O3 on the disks: chunk files at rest, read with nothing but the format's page. It shares no code with the
//! chunkserver, not even the checksum.
use super::contents::{Contents, Seen};
use super::{Tick, Violation};
use crate::disk::DiskModel;
use bytes::Bytes;
use kfs_core::ids::{ChunkId, FileId, Version};
use kfs_core::limits::Geometry;
use kfs_core::wire::client_chunk::Durable;

const DATA_AT: usize = 16_384;
const SLOT_BYTES: usize = 8_192;

/// A chunk, as the meta server told a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// Its file.
    pub file: FileId,
    /// Its place in the file.
    pub index: u64,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// What the file's size gives it, and the last write that every replica has.
    pub log: Durable,
}

/// Checks one server's replica of a chunk, if it has one. Gives the bytes compared. One of a server that is no member
/// may have less than the log, or no header: it was left out of a chain, and is none.
///
/// # Errors
/// If header, sums or bytes are not what they must be.
pub fn check(
    disk: &DiskModel,
    (server, is_member): (&str, bool),
    located: &Located,
    geometry: Geometry,
    contents: &Contents,
    now: Tick,
) -> Result<Option<u64>, Violation> {
    let Located {
        file,
        chunk,
        version,
        log,
        ..
    } = *located;
    let path = format!("chunks/{file}.{chunk}.{version}");
    let Some(bytes) = disk.contents(&path) else {
        return Ok(None);
    };
    let bad = |what: String| Violation::new("O3", "D2", format!("{server}, {path}: {what}"));
    let Some(slot) = Slot::newest(&bytes) else {
        if !is_member {
            return Ok(None);
        }
        return Err(bad("neither slot of the header is valid".into()));
    };
    let bytes = slot.redone(bytes, geometry);
    let ids = [file.0, chunk.0, version.0];
    if slot.ids != ids {
        return Err(bad(format!("the header names {:?}", slot.ids)));
    }
    if !slot.has_all(log) {
        if !is_member {
            return Ok(None);
        }
        return Err(bad(format!(
            "{} bytes are committed at write {}, {} at write {} are in the log",
            slot.len, slot.wseq, log.len, log.wseq
        )));
    }
    let block_bytes = geometry.block_bytes as usize;
    let committed = usize::try_from(slot.len).expect("chunks fit in memory");
    let mut data = vec![0_u8; committed];
    for block in 0..committed.div_ceil(block_bytes) {
        if slot.bitmap[block / 8] >> (block % 8) & 1 == 0 {
            continue;
        }
        let from = block * block_bytes;
        let to = (from + block_bytes).min(committed);
        let held = bytes.get(DATA_AT + from..).unwrap_or_default();
        let held = &held[..held.len().min(to - from)];
        data[from..from + held.len()].copy_from_slice(held);
        let mut padded = data[from..to].to_vec();
        padded.resize(block_bytes, 0);
        let (sum, due) = (adler2::adler32_slice(&padded), slot.sums[block]);
        if sum != due {
            return Err(bad(format!(
                "block {block} of {} bytes, padded with zeros, sums to 0x{sum:08x}; the header says 0x{due:08x}",
                to - from
            )));
        }
    }
    let seen_len = usize::try_from(log.len).expect("chunks fit in memory");
    let seen = Seen {
        file,
        size: u64::MAX,
        offset: located.index * geometry.chunk_bytes(),
        len: seen_len,
        bytes: &data[..seen_len],
        opened: now,
        asked: now,
        came: now,
    };
    contents.compare(&seen, &format!("{server}'s disk"))?;
    Ok(Some(log.len))
}

/// A slot of a chunk header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    /// File, chunk, version.
    pub(super) ids: [u64; 3],
    pub(super) len: u64,
    pub(super) sums: Vec<u32>,
    pub(super) bitmap: Vec<u8>,
    generation: u64,
    pub(super) incarnation: u64,
    pub(super) wseq: u64,
    /// Session, last piece, append offset.
    pub(super) pieces: Vec<(u64, u64, u32)>,
    /// Numbers of the first page, pages and CRC of what stands behind the data too.
    redo: Vec<(u32, u32, u32)>,
}

/// A block of a chunk file at rest.
pub(super) struct BlockAtRest<'a> {
    /// Its bytes below the committed end, as far as the file has them; what is missing is zeros.
    pub(super) held: &'a [u8],
    /// Bytes below the committed end.
    pub(super) share: usize,
}

impl Slot {
    /// The slot that counts, of a whole chunk file; `None`: the header is bad.
    pub(super) fn newest(file: &[u8]) -> Option<Self> {
        let slots = [0, 1].map(|nth| file.get(nth * SLOT_BYTES..(nth + 1) * SLOT_BYTES));
        let valid = slots
            .into_iter()
            .enumerate()
            .filter_map(|(nth, slot)| Self::read(slot?, nth as u64));
        valid.max_by_key(|slot| slot.generation)
    }
    /// The file as a chunkserver has it after its start: the redo runs are in their places.
    pub(super) fn redone(&self, file: Bytes, geometry: Geometry) -> Bytes {
        if self.redo.is_empty() {
            return file;
        }
        let mut redone = file.to_vec();
        let page_bytes = u64::from(geometry.block_bytes.min(4_096));
        let apart = u64::from(geometry.block_bytes.max(4_096));
        for (nth, (page, pages, crc)) in (0_u64..).zip(&self.redo) {
            let at = u64::from(*page) * page_bytes;
            let len = self
                .len
                .saturating_sub(at)
                .min(u64::from(*pages) * page_bytes);
            let before = apart * (2 * nth + self.generation % 2);
            let kept = DATA_AT as u64 + geometry.chunk_bytes() + before;
            let [at, len, kept] =
                [at, len, kept].map(|n| usize::try_from(n).expect("chunks fit in memory"));
            if let Some(whole) = file.get(kept..kept + len)
                && crc32fast::hash(whole) == *crc
            {
                redone[DATA_AT + at..DATA_AT + at + len].copy_from_slice(whole);
            }
        }
        Bytes::from(redone)
    }
    /// Whether nothing is missing of what the log says is synced.
    pub(super) const fn has_all(&self, log: Durable) -> bool {
        self.len >= log.len && self.wseq >= log.wseq.0
    }
    /// What it says of all that is durable, in 64 bits: FNV-1a of the last write, the length, and each block that has
    /// something else than zeros in it, with its sum.
    pub(super) fn digest(&self, block_bytes: usize) -> u64 {
        let zeros = adler2::adler32_slice(&vec![0; block_bytes]);
        let mut of = [self.wseq.to_le_bytes(), self.len.to_le_bytes()].concat();
        for block in self.blocks().filter(|block| self.sums[*block] != zeros) {
            let number = u32::try_from(block).expect("a chunk has few blocks");
            of.extend(number.to_le_bytes());
            of.extend(self.sums[block].to_le_bytes());
        }
        of.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        })
    }
    /// The blocks that have a sum.
    pub(super) fn blocks(&self) -> impl Iterator<Item = usize> {
        (0..self.sums.len()).filter(|block| self.bitmap[block / 8] >> (block % 8) & 1 == 1)
    }
    /// A block of the file that this slot is the header of.
    pub(super) fn block<'a>(
        &self,
        file: &'a [u8],
        block: usize,
        block_bytes: usize,
    ) -> BlockAtRest<'a> {
        let committed = usize::try_from(self.len).unwrap_or(usize::MAX);
        let share = committed
            .saturating_sub(block * block_bytes)
            .min(block_bytes);
        let held = file
            .get(DATA_AT + block * block_bytes..)
            .unwrap_or_default();
        BlockAtRest {
            held: &held[..held.len().min(share)],
            share,
        }
    }
    /// The first block whose bytes do not give its sum.
    pub(super) fn bad_block(&self, file: &[u8], block_bytes: usize) -> Option<usize> {
        self.blocks().find(|block| {
            let mut padded = self.block(file, *block, block_bytes).held.to_vec();
            padded.resize(block_bytes, 0);
            adler2::adler32_slice(&padded) != self.sums[*block]
        })
    }
    fn read(bytes: &[u8], nth: u64) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let generation = u64_at(4_416);
        let valid = u32_at(0) == 0xCAFE_CAFE
            && [1, 3].contains(&u32_at(4))
            && u64_at(4_400) == u64::from(adler2::adler32_slice(&bytes[..4_400]))
            && bytes[4_408..4_416] == *b"KFSRUST1"
            && generation % 2 == nth
            && u32_at(8_184) == crc32fast::hash(&bytes[..8_184])
            && u64::from(u32_at(8_188)) == generation & 0xffff_ffff;
        valid.then(|| Self {
            ids: [u64_at(8), u64_at(16), u64_at(24)],
            len: u64_at(32),
            sums: (0..1_024).map(|block| u32_at(40 + 4 * block)).collect(),
            bitmap: bytes[4_448..4_576].to_vec(),
            generation,
            incarnation: u64_at(4_424),
            wseq: u64_at(4_576),
            pieces: (0..u32_at(4_584).min(128) as usize)
                .map(|nth| 4_600 + 24 * nth)
                .map(|at| (u64_at(at), u64_at(at + 8), u32_at(at + 16)))
                .collect(),
            redo: (0..if u32_at(4) == 3 {
                u32_at(4_588).min(64)
            } else {
                0
            })
                .map(|nth| 7_672 + 8 * nth as usize)
                .map(|at| (u32_at(at) & 0xff_ffff, u32_at(at) >> 24, u32_at(at + 4)))
                .collect(),
        })
    }
}
