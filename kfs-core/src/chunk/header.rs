//! The header of a chunk file: two slots of which only the inactive one is ever written, so that a
//! header cannot tear. Layout: `docs/formats/chunk.md`; offsets here are computed from one another.
//!
//! Pure: bytes in, a header or a reason out. Never trusts a byte that its CRC does not cover.
use super::name::ChunkName;
use crate::block::{crc, fnv, pad, sum};
use crate::ids::{
    ChunkId, ClusterId, Digest, FileId, ID_LIMIT, Incarnation, PieceNumber, SessionId, Version,
    WriteSeq,
};
use crate::limits::{Geometry, HEADER_BLOCKS, HEADER_BYTES, PAGE_BYTES, PIECE_TABLE_MAX};
use crate::planted::{self, Bug};

/// Bytes of one slot.
pub const SLOT_BYTES: usize = 8_192;
/// The first four bytes of a slot.
pub const MAGIC: u32 = 0xCAFE_CAFE;
/// The format's version.
pub const FORMAT: u32 = 1;
/// Of a header with redo runs, which who knows [`FORMAT`] only must not overlook. (2 had one page.)
pub const FORMAT_REDO: u32 = 3;
/// The most redo runs of a header.
pub const REDO_RUNS_MAX: usize = 64;
/// Stands before the fields that the original format does not have.
pub const EXTENSION_MAGIC: [u8; 8] = *b"KFSRUST1";
/// Stands before the file-system id, as in the descendant's header.
pub const FS_ID_PREFIX: [u8; 16] = *b"\0QFSFsId\xe4\x5e\x23\x0e\x34\x9a\x07\xce";
/// The generation of a chunk's first slot, which is A.
pub const FIRST_GENERATION: u64 = 2;

/// Where each field of a slot begins.
pub mod at {
    use super::{HEADER_BLOCKS, PIECE_TABLE_MAX, REDO_RUNS_MAX, SLOT_BYTES};
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::FORMAT`].
    pub const FORMAT: usize = MAGIC + 4;
    /// File id.
    pub const FILE: usize = FORMAT + 4;
    /// Chunk id.
    pub const CHUNK: usize = FILE + 8;
    /// Chunk version.
    pub const VERSION: usize = CHUNK + 8;
    /// Committed length.
    pub const LEN: usize = VERSION + 8;
    /// One padded Adler-32 per block.
    pub const SUMS: usize = LEN + 8;
    /// Unused since the original: zero.
    pub const READS: usize = SUMS + 4 * HEADER_BLOCKS;
    /// [`super::FS_ID_PREFIX`]; here the name area of 256 bytes begins.
    pub const FS_ID_PREFIX: usize = READS + 4;
    /// The low 64 bits of the cluster id.
    pub const FS_ID: usize = FS_ID_PREFIX + 16;
    /// Zero.
    pub const FLAGS: usize = FS_ID_PREFIX + 256;
    /// Adler-32 of everything before it, as u64.
    pub const ADLER: usize = FLAGS + 4;
    /// [`super::EXTENSION_MAGIC`].
    pub const EXTENSION: usize = ADLER + 8;
    /// Generation: even in slot A, odd in slot B.
    pub const GENERATION: usize = EXTENSION + 8;
    /// Incarnation of the meta server that issued the version.
    pub const INCARNATION: usize = GENERATION + 8;
    /// Cluster id.
    pub const CLUSTER: usize = INCARNATION + 8;
    /// One bit per block: it has a sum.
    pub const BITMAP: usize = CLUSTER + 16;
    /// Every write up to it is in data and sums.
    pub const WSEQ: usize = BITMAP + HEADER_BLOCKS / 8;
    /// Entries in the piece table.
    pub const PIECES: usize = WSEQ + 8;
    /// How many redo runs there are.
    pub const REDO: usize = PIECES + 4;
    /// The piece table, after 8 bytes of zeros.
    pub const PIECE_TABLE: usize = REDO + 4 + 8;
    /// Bytes of an entry of the piece table.
    pub const PIECE_ENTRY_BYTES: usize = 24;
    /// After the longest piece table: the redo runs.
    pub const REDO_RUNS: usize = PIECE_TABLE + PIECE_TABLE_MAX * PIECE_ENTRY_BYTES;
    /// Bytes of a redo run: number of its first page (3 bytes), pages (1), CRC-32.
    pub const REDO_RUN_BYTES: usize = 8;
    /// After the most redo runs.
    pub const REDO_RUNS_END: usize = REDO_RUNS + REDO_RUNS_MAX * REDO_RUN_BYTES;
    /// CRC-32 of everything before it.
    pub const CRC: usize = SLOT_BYTES - 8;
    /// The low 32 bits of the generation again.
    pub const GENERATION_LOW: usize = CRC + 4;
}

const _: () =
    assert!(at::SUMS == 40 && at::READS == 4_136 && at::FLAGS == 4_396 && at::ADLER == 4_400);
const _: () = assert!(
    at::EXTENSION == 4_408 && at::BITMAP == 4_448 && at::WSEQ == 4_576 && at::PIECE_TABLE == 4_600
);
const _: () = assert!(
    at::REDO_RUNS_END <= at::CRC && at::CRC == 8_184 && at::GENERATION_LOW + 4 == SLOT_BYTES
);
const _: () = assert!(2 * SLOT_BYTES as u64 == HEADER_BYTES);

/// One of the two places a header is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The first, of even generations.
    A,
    /// The second, of odd generations.
    B,
}

impl Slot {
    /// The slot that a generation is written to.
    #[must_use]
    pub const fn of(generation: u64) -> Self {
        if generation.is_multiple_of(2) {
            Self::A
        } else {
            Self::B
        }
    }
    /// Where it begins in the file.
    #[must_use]
    pub const fn offset(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => SLOT_BYTES,
        }
    }
    /// Where a redo run of the header in this slot stands in the file: behind the longest data, and no run of the
    /// other slot's header.
    #[must_use]
    pub const fn redo_offset(self, nth: usize, geometry: Geometry) -> u64 {
        assert!(nth < REDO_RUNS_MAX, "a header has so many runs");
        let data_end = HEADER_BYTES + geometry.chunk_bytes();
        // No two of them share a page of the file.
        let pitch = if geometry.block_bytes < PAGE_BYTES {
            PAGE_BYTES
        } else {
            geometry.block_bytes
        } as u64;
        let before = match self {
            Self::A => 2 * nth,
            Self::B => 2 * nth + 1,
        };
        data_end + before as u64 * pitch
    }
}

/// How far a session's pieces are in the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceEntry {
    /// Whose.
    pub session: SessionId,
    /// The last one applied.
    pub last: PieceNumber,
    /// Where its last record was appended, in bytes.
    pub append_offset: u32,
}

/// Pages of a block that were written since the sync before and have bytes that this one covered, so that a write of
/// them in their places might tear those. They stand whole at [`Slot::redo_offset`] too, and are written in their places
/// from there after a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedoRun {
    /// Number of the first in the data, in pages of [`Geometry::page_bytes`].
    pub page: u32,
    /// How many they are: at least one, and all of one block.
    pub pages: u32,
    /// CRC-32 of the bytes.
    pub crc: u32,
}

impl RedoRun {
    /// Where it belongs in the data, in bytes.
    #[must_use]
    pub fn at(&self, geometry: Geometry) -> u64 {
        u64::from(self.page) * geometry.page_bytes()
    }
    /// Its bytes: the pages' below the committed end.
    #[must_use]
    pub fn len(&self, committed: u64, geometry: Geometry) -> usize {
        let len = committed
            .saturating_sub(self.at(geometry))
            .min(u64::from(self.pages) * geometry.page_bytes());
        usize::try_from(len).expect("a block is small")
    }
    /// The block that it is of.
    #[must_use]
    pub fn block(&self, geometry: Geometry) -> usize {
        let block = self.at(geometry) / u64::from(geometry.block_bytes);
        usize::try_from(block).expect("a chunk has few blocks")
    }
}

/// What a slot says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// File, chunk, version: equal to the file's name.
    pub name: ChunkName,
    /// The committed length in bytes.
    pub len: u64,
    /// Per block the Adler-32 of the block padded with zeros; `None`: a hole, zeros whatever the disk holds.
    /// As many as reach the last block that has one.
    pub sums: Vec<Option<u32>>,
    /// Grows with each header written.
    pub generation: u64,
    /// Of the meta server that issued the version.
    pub incarnation: Incarnation,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Every write up to it is in data and sums.
    pub wseq: WriteSeq,
    /// At most [`PIECE_TABLE_MAX`] entries.
    pub pieces: Vec<PieceEntry>,
    /// What is to be made sure of before the data is read: at most [`REDO_RUNS_MAX`], at most one of a block, in the
    /// order of the blocks.
    pub redo: Vec<RedoRun>,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a slot.
    #[error("the file ends within its header")]
    Cut,
    /// Not a chunk file.
    #[error("bad magic 0x{0:08X}")]
    Magic(u32),
    /// Damaged or torn.
    #[error("it does not match its {0}")]
    Sum(&'static str),
    /// Written by another build.
    #[error("format version {0}, this build knows {FORMAT} and {FORMAT_REDO}")]
    Format(u32),
    /// Sums match, and yet it cannot be.
    #[error("impossible {0}")]
    Impossible(&'static str),
    /// It is the header of another chunk file.
    #[error("it is the header of {0}")]
    OtherChunk(ChunkName),
}

/// Neither slot is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no valid header: slot A: {a}; slot B: {b}")]
pub struct NoHeader {
    /// Why not slot A.
    pub a: HeaderError,
    /// Why not slot B.
    pub b: HeaderError,
}

impl Header {
    /// The valid slot with the larger generation, from the first [`HEADER_BYTES`] of the file `name`.
    ///
    /// # Errors
    /// If neither slot is valid for that name.
    pub fn choose(file: &[u8], name: ChunkName, geometry: Geometry) -> Result<Self, NoHeader> {
        let slot = |slot: Slot| {
            let bytes = file
                .get(slot.offset()..slot.offset() + SLOT_BYTES)
                .ok_or(HeaderError::Cut)?;
            let header =
                Self::decode(bytes.try_into().expect("as long as a slot"), slot, geometry)?;
            if header.name == name {
                Ok(header)
            } else {
                Err(HeaderError::OtherChunk(header.name))
            }
        };
        match (slot(Slot::A), slot(Slot::B)) {
            (Ok(a), Ok(_)) if planted::is(Bug::FirstSlotPreferred) => Ok(a),
            (Ok(a), Ok(b)) => Ok(if a.generation > b.generation { a } else { b }),
            (Ok(only), Err(_)) | (Err(_), Ok(only)) => Ok(only),
            (Err(a), Err(b)) => Err(NoHeader { a, b }),
        }
    }

    /// Whether both slots say the same of the data, but for which is the newer one. A page is no longer to be made
    /// sure of when the second one is written.
    #[must_use]
    pub fn is_in_both_slots(file: &[u8], geometry: Geometry) -> bool {
        let slot = |slot: Slot| {
            let bytes = file.get(slot.offset()..slot.offset() + SLOT_BYTES)?;
            let bytes = bytes.try_into().expect("as long as a slot");
            let header = Self::decode(bytes, slot, geometry).ok()?;
            let generation = 0;
            Some(Self {
                generation,
                redo: Vec::new(),
                ..header
            })
        };
        slot(Slot::A).is_some_and(|a| slot(Slot::B) == Some(a))
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// On anything that [`Header::encode`] would not have written there.
    pub fn decode(
        bytes: &[u8; SLOT_BYTES],
        slot: Slot,
        geometry: Geometry,
    ) -> Result<Self, HeaderError> {
        if u32_at(bytes, at::MAGIC) != MAGIC {
            return Err(HeaderError::Magic(u32_at(bytes, at::MAGIC)));
        }
        if u32_at(bytes, at::CRC) != crc(&bytes[..at::CRC]) {
            return Err(HeaderError::Sum("CRC"));
        }
        if u64_at(bytes, at::ADLER) != u64::from(sum(&bytes[..at::ADLER])) {
            return Err(HeaderError::Sum("Adler-32"));
        }
        let format = u32_at(bytes, at::FORMAT);
        if format != FORMAT && format != FORMAT_REDO {
            return Err(HeaderError::Format(format));
        }
        if bytes[at::EXTENSION..at::EXTENSION + 8] != EXTENSION_MAGIC {
            return Err(HeaderError::Impossible("extension magic"));
        }
        let generation = u64_at(bytes, at::GENERATION);
        let low = u64::from(u32_at(bytes, at::GENERATION_LOW));
        if generation < FIRST_GENERATION
            || Slot::of(generation) != slot
            || generation & 0xffff_ffff != low
        {
            return Err(HeaderError::Impossible("generation"));
        }
        let [file, chunk, version] =
            [at::FILE, at::CHUNK, at::VERSION].map(|field| u64_at(bytes, field));
        if file.max(chunk).max(version) >= ID_LIMIT {
            return Err(HeaderError::Impossible("id"));
        }
        let cluster = ClusterId(u128_at(bytes, at::CLUSTER));
        if bytes[at::FS_ID_PREFIX..at::FS_ID] != FS_ID_PREFIX
            || u64_at(bytes, at::FS_ID) != cluster.low()
        {
            return Err(HeaderError::Impossible("file-system id"));
        }
        let len = u64_at(bytes, at::LEN);
        if len > geometry.chunk_bytes() {
            return Err(HeaderError::Impossible("length"));
        }
        let sums = decode_sums(bytes, len.div_ceil(u64::from(geometry.block_bytes)))?;
        let redo = if format == FORMAT_REDO {
            decode_redo(bytes, len, &sums, geometry)?
        } else {
            Vec::new()
        };
        Ok(Self {
            name: ChunkName {
                file: FileId(file),
                chunk: ChunkId(chunk),
                version: Version(version),
            },
            len,
            sums,
            generation,
            incarnation: Incarnation(u64_at(bytes, at::INCARNATION)),
            cluster,
            wseq: WriteSeq(u64_at(bytes, at::WSEQ)),
            pieces: decode_pieces(bytes)?,
            redo,
        })
    }

    /// The slot's bytes; they belong at the offset of [`Slot::of`] the generation.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.sums.len() <= HEADER_BLOCKS,
            "a header has sums for {HEADER_BLOCKS} blocks"
        );
        assert!(
            self.pieces.len() <= PIECE_TABLE_MAX,
            "a chunk is granted to few sessions"
        );
        assert!(
            self.generation >= FIRST_GENERATION,
            "the first slot written is A with generation 2"
        );
        let mut out = vec![0; SLOT_BYTES];
        put(&mut out, at::MAGIC, &MAGIC.to_le_bytes());
        assert!(
            self.redo.len() <= REDO_RUNS_MAX,
            "a header has {REDO_RUNS_MAX} redo runs at most"
        );
        let format = if self.redo.is_empty() {
            FORMAT
        } else {
            FORMAT_REDO
        };
        put(&mut out, at::FORMAT, &format.to_le_bytes());
        put(&mut out, at::FILE, &self.name.file.0.to_le_bytes());
        put(&mut out, at::CHUNK, &self.name.chunk.0.to_le_bytes());
        put(&mut out, at::VERSION, &self.name.version.0.to_le_bytes());
        put(&mut out, at::LEN, &self.len.to_le_bytes());
        for (block, block_sum) in self.sums.iter().enumerate() {
            if let Some(block_sum) = block_sum {
                put(&mut out, at::SUMS + 4 * block, &block_sum.to_le_bytes());
                out[at::BITMAP + block / 8] |= 1 << (block % 8);
            }
        }
        put(&mut out, at::FS_ID_PREFIX, &FS_ID_PREFIX);
        put(&mut out, at::FS_ID, &self.cluster.low().to_le_bytes());
        let adler = u64::from(sum(&out[..at::ADLER]));
        put(&mut out, at::ADLER, &adler.to_le_bytes());
        put(&mut out, at::EXTENSION, &EXTENSION_MAGIC);
        put(&mut out, at::GENERATION, &self.generation.to_le_bytes());
        put(&mut out, at::INCARNATION, &self.incarnation.0.to_le_bytes());
        put(&mut out, at::CLUSTER, &self.cluster.0.to_le_bytes());
        put(&mut out, at::WSEQ, &self.wseq.0.to_le_bytes());
        let pieces = u32::try_from(self.pieces.len()).expect("bounded above");
        put(&mut out, at::PIECES, &pieces.to_le_bytes());
        for (entry, piece) in self.pieces.iter().enumerate() {
            let begin = at::PIECE_TABLE + entry * at::PIECE_ENTRY_BYTES;
            put(&mut out, begin, &piece.session.0.to_le_bytes());
            put(&mut out, begin + 8, &piece.last.0.to_le_bytes());
            put(&mut out, begin + 16, &piece.append_offset.to_le_bytes());
        }
        let runs = u32::try_from(self.redo.len()).expect("bounded above");
        put(&mut out, at::REDO, &runs.to_le_bytes());
        for (nth, run) in self.redo.iter().enumerate() {
            let begin = at::REDO_RUNS + nth * at::REDO_RUN_BYTES;
            assert!(
                run.page >> 24 == 0 && (1..256).contains(&run.pages),
                "a chunk has few pages"
            );
            put(&mut out, begin, &(run.pages << 24 | run.page).to_le_bytes());
            put(&mut out, begin + 4, &run.crc.to_le_bytes());
        }
        let sum = crc(&out[..at::CRC]);
        put(&mut out, at::CRC, &sum.to_le_bytes());
        let generation = self.generation.to_le_bytes();
        put(&mut out, at::GENERATION_LOW, &generation[..4]);
        assert_eq!(out.len(), SLOT_BYTES, "a slot has one length");
        out
    }

    /// Of what the chunk holds. A block of zeros that was written is none that anybody can tell from a hole, and a
    /// copy has a hole there: so it counts as one.
    #[must_use]
    pub fn digest(&self, geometry: Geometry) -> Digest {
        let zeros = pad(sum(&[]), geometry.block_bytes.into());
        let mut of = Vec::with_capacity(16 + 8 * self.sums.len());
        of.extend_from_slice(&self.wseq.0.to_le_bytes());
        of.extend_from_slice(&self.len.to_le_bytes());
        for (block, block_sum) in (0_u32..).zip(&self.sums) {
            if let Some(block_sum) = block_sum.filter(|block_sum| *block_sum != zeros) {
                of.extend_from_slice(&block.to_le_bytes());
                of.extend_from_slice(&block_sum.to_le_bytes());
            }
        }
        Digest(fnv(&of))
    }

    /// The padded sum of a block; `None`: a hole.
    #[must_use]
    pub fn sum(&self, block: usize) -> Option<u32> {
        self.sums.get(block).copied().flatten()
    }
}

fn decode_sums(bytes: &[u8; SLOT_BYTES], blocks: u64) -> Result<Vec<Option<u32>>, HeaderError> {
    let mut sums = Vec::new();
    let bitmap = &bytes[at::BITMAP..at::WSEQ];
    // A small file leaves most of it empty.
    let bytes_used = bitmap.iter().enumerate().filter(|(_, bits)| **bits != 0);
    for block in bytes_used.flat_map(|(nth, _)| 8 * nth..8 * nth + 8) {
        if bitmap[block / 8] & 1 << (block % 8) != 0 {
            if block as u64 >= blocks {
                return Err(HeaderError::Impossible("block past the length"));
            }
            sums.resize(block, None);
            sums.push(Some(u32_at(bytes, at::SUMS + 4 * block)));
        }
    }
    Ok(sums)
}

/// Redo runs lie below the committed end, each in a block of its own that has a sum.
fn decode_redo(
    bytes: &[u8; SLOT_BYTES],
    len: u64,
    sums: &[Option<u32>],
    geometry: Geometry,
) -> Result<Vec<RedoRun>, HeaderError> {
    let count = usize::try_from(u32_at(bytes, at::REDO)).ok();
    let count = count.filter(|count| (1..=REDO_RUNS_MAX).contains(count));
    let impossible = HeaderError::Impossible("redo run");
    let mut runs: Vec<RedoRun> = Vec::new();
    for nth in 0..count.ok_or(impossible)? {
        let begin = at::REDO_RUNS + nth * at::REDO_RUN_BYTES;
        let which = u32_at(bytes, begin);
        let run = RedoRun {
            page: which & 0xff_ffff,
            pages: which >> 24,
            crc: u32_at(bytes, begin + 4),
        };
        let block = run.block(geometry);
        let last = run.page + run.pages.saturating_sub(1);
        let last_block = RedoRun { page: last, ..run }.block(geometry);
        let block_sum = sums.get(block).copied().flatten();
        let is_after = runs
            .last()
            .is_none_or(|before| before.block(geometry) < block);
        let last_at = u64::from(last) * geometry.page_bytes();
        if run.pages == 0
            || last_block != block
            || block_sum.is_none()
            || !is_after
            || last_at >= len
        {
            return Err(impossible);
        }
        runs.push(run);
    }
    Ok(runs)
}

fn decode_pieces(bytes: &[u8; SLOT_BYTES]) -> Result<Vec<PieceEntry>, HeaderError> {
    let count = usize::try_from(u32_at(bytes, at::PIECES))
        .ok()
        .filter(|count| *count <= PIECE_TABLE_MAX);
    let count = count.ok_or(HeaderError::Impossible("piece table"))?;
    let entry = |entry: usize| {
        let begin = at::PIECE_TABLE + entry * at::PIECE_ENTRY_BYTES;
        PieceEntry {
            session: SessionId(u64_at(bytes, begin)),
            last: PieceNumber(u64_at(bytes, begin + 8)),
            append_offset: u32_at(bytes, begin + 16),
        }
    };
    Ok((0..count).map(entry).collect())
}

fn put(out: &mut [u8], begin: usize, field: &[u8]) {
    out[begin..begin + field.len()].copy_from_slice(field);
}

fn u32_at(bytes: &[u8], begin: usize) -> u32 {
    u32::from_le_bytes(bytes[begin..begin + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], begin: usize) -> u64 {
    u64::from_le_bytes(bytes[begin..begin + 8].try_into().expect("eight bytes"))
}

fn u128_at(bytes: &[u8], begin: usize) -> u128 {
    u128::from_le_bytes(bytes[begin..begin + 16].try_into().expect("sixteen bytes"))
}
