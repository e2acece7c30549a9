//! O3 on the disks: chunk files at rest, read with nothing but the format's page. It shares no code with the
//! chunkserver, not even the checksum.
use super::contents::{Contents, Seen};
use super::{Tick, Violation};
use crate::disk::DiskModel;
use kfs_core::ids::{ChunkId, FileId, Version};
use kfs_core::limits::Geometry;

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
    /// What the file's size gives it.
    pub log_len: u64,
}

/// Checks one server's replica of a chunk, if it has one. Gives the bytes compared.
///
/// # Errors
/// If header, sums or bytes are not what they must be.
pub fn check(
    disk: &DiskModel,
    server: &str,
    located: &Located,
    geometry: Geometry,
    contents: &Contents,
    now: Tick,
) -> Result<Option<u64>, Violation> {
    let Located {
        file,
        chunk,
        version,
        log_len,
        ..
    } = *located;
    let path = format!("chunks/{file}.{chunk}.{version}");
    let Some(bytes) = disk.contents(&path) else {
        return Ok(None);
    };
    let bad = |what: String| Violation::new("O3", "D2", format!("{server}, {path}: {what}"));
    let slots = [0, 1].map(|nth| bytes.get(nth * SLOT_BYTES..(nth + 1) * SLOT_BYTES));
    let valid = slots
        .into_iter()
        .enumerate()
        .filter_map(|(nth, slot)| Slot::read(slot?, nth as u64));
    let Some(slot) = valid.max_by_key(|slot| slot.generation) else {
        return Err(bad("neither slot of the header is valid".into()));
    };
    let ids = [file.0, chunk.0, version.0];
    if slot.ids != ids {
        return Err(bad(format!("the header names {:?}", slot.ids)));
    }
    if slot.len < log_len {
        let committed = slot.len;
        return Err(bad(format!(
            "{committed} bytes are committed, {log_len} are in the log"
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
    let seen_len = usize::try_from(log_len).expect("chunks fit in memory");
    let seen = Seen {
        file,
        size: u64::MAX,
        offset: located.index * geometry.chunk_bytes(),
        len: seen_len,
        bytes: &data[..seen_len],
        asked: now,
        came: now,
    };
    contents.compare(&seen, &format!("{server}'s disk"))?;
    Ok(Some(log_len))
}

/// A slot of a chunk header.
struct Slot {
    ids: [u64; 3],
    len: u64,
    sums: Vec<u32>,
    bitmap: Vec<u8>,
    generation: u64,
}

impl Slot {
    fn read(bytes: &[u8], nth: u64) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let generation = u64_at(4_416);
        let valid = u32_at(0) == 0xCAFE_CAFE
            && u32_at(4) == 1
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
        })
    }
}
