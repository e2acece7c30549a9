//! Every bound and every size in one place, with the relations between them asserted.
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Bytes of a chunk file before its data.
pub const HEADER_BYTES: u64 = 16_384;
/// Blocks that a chunk header has sums for.
pub const HEADER_BLOCKS: usize = 1_024;
/// The longest name of a directory entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest path a request may carry, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;
/// The most bytes of a frame's head, its CRC included.
pub const FRAME_HEAD_MAX: usize = 1 << 20;
/// The most bytes of a frame's body: one piece.
pub const FRAME_BODY_MAX: usize = 1 << 20;
/// Directory entries in one page of a listing.
pub const LIST_PAGE_MAX: usize = 1_024;
/// Chunks whose locations one answer carries.
pub const LOCATE_PAGE_MAX: usize = 64;
/// Chunks in one batch of an inventory.
pub const INVENTORY_BATCH: usize = 1_024;
/// Chunks that one size report may name.
pub const SIZE_BASIS_MAX: usize = 2_048;
/// The most replicas of a file.
pub const REPLICATION_MAX: u8 = 16;
/// Sessions in the piece table of a chunk header.
pub const PIECE_TABLE_MAX: usize = 128;
/// Mutations that one session may have unanswered.
pub const SESSION_WINDOW_MAX: u64 = 256;

/// Files that one link may hold open, each counted as often as it is.
pub const HOLDS_PER_LINK_MAX: usize = 65_536;
/// Files that all links together may hold open, those of links that are just gone among them.
pub const HOLDS_MAX: usize = 1 << 20;
/// Files that one message may say are held.
pub const HOLD_PAGE_MAX: usize = 4_096;
/// Names and chunks that one record may reclaim: so much is done between two inputs of the meta server.
pub const RECLAIM_BATCH_MAX: usize = 64;
/// Rows in one page of what a tree takes.
pub const USAGE_PAGE_MAX: usize = 1_024;
/// Scans of what trees take that a meta server has under way, those whose states are being let go of among them: each
/// may keep as much of a state as has changed since it began.
pub const USAGE_SCANS_MAX: usize = 4;
/// Scans of those that one link may have.
pub const USAGE_SCANS_PER_LINK_MAX: usize = 2;
/// Directories in one another that a scan goes down: twice what a path can name from the root.
pub const USAGE_DEPTH_MAX: usize = PATH_BYTES_MAX;

/// The sizes that a file is cut into. Small in the simulator, where edges are met more often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Geometry {
    /// Bytes of a block, the unit of checksums.
    pub block_bytes: u32,
    /// Blocks of a chunk, at most [`HEADER_BLOCKS`].
    pub chunk_blocks: u32,
    /// The most bytes of one piece: a multiple of the block, at most [`FRAME_BODY_MAX`].
    pub piece_bytes: u32,
}

/// What a disk may tear is at most this many bytes, aligned.
pub const PAGE_BYTES: u32 = 4_096;

impl Geometry {
    /// What every real cluster uses: blocks of 64 KiB, chunks of 64 MiB, pieces of 1 MiB.
    pub const REAL: Self = Self {
        block_bytes: 65_536,
        chunk_blocks: 1_024,
        piece_bytes: 1 << 20,
    };

    /// Bytes of a chunk.
    #[must_use]
    pub const fn chunk_bytes(&self) -> u64 {
        self.block_bytes as u64 * self.chunk_blocks as u64
    }
    /// Bytes that a disk may tear together, aligned: a page of [`PAGE_BYTES`], or a block if that is smaller.
    #[must_use]
    pub const fn page_bytes(&self) -> u64 {
        if self.block_bytes < PAGE_BYTES {
            self.block_bytes as u64
        } else {
            PAGE_BYTES as u64
        }
    }
    /// Panics unless the sizes fit one another.
    pub const fn check(&self) {
        assert!(self.fits(), "the sizes fit one another");
    }
    /// Whether the sizes fit one another, for sizes that come from outside.
    #[must_use]
    pub const fn fits(&self) -> bool {
        self.block_bytes > 0
            && (self.block_bytes as u64).is_multiple_of(self.page_bytes())
            && self.chunk_blocks > 0
            && self.chunk_blocks as usize <= HEADER_BLOCKS
            && self.piece_bytes >= self.block_bytes
            && self.piece_bytes.is_multiple_of(self.block_bytes)
            && self.piece_bytes as usize <= FRAME_BODY_MAX
            && self.piece_bytes as u64 <= self.chunk_bytes()
    }
    /// Index in the file of the chunk that holds byte `offset`, and the offset within it.
    #[must_use]
    pub const fn chunk_at(&self, offset: u64) -> (u64, u64) {
        (offset / self.chunk_bytes(), offset % self.chunk_bytes())
    }
    /// How many bytes of chunk `index` a file of `size` bytes has.
    #[must_use]
    pub const fn chunk_len(&self, size: u64, index: u64) -> u64 {
        let before = index.saturating_mul(self.chunk_bytes());
        let rest = size.saturating_sub(before);
        if rest < self.chunk_bytes() {
            rest
        } else {
            self.chunk_bytes()
        }
    }
}

impl Default for Geometry {
    fn default() -> Self {
        Self::REAL
    }
}

/// The bounds of queues and buffers, per machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of pieces a chunkserver holds per chain position before it pauses the links they come on. What a
    /// paused link had on its way arrives still, so there may be more: see [`Limits::piece_bytes_max`].
    pub piece_buffer_bytes: usize,
    /// Bytes handed to one link and not yet sent before no more disk reads are issued for it.
    pub link_unsent_bytes: usize,
    /// Requests waiting on one link before it is answered "busy".
    pub link_requests: usize,
    /// Open chunks whose tables a chunkserver keeps in memory besides those being written.
    pub chunk_tables: usize,
    /// Bytes of one log batch, at most.
    pub log_batch_bytes: usize,
    /// Bytes of the log segment opened at a start; it is small so that a start is quick.
    pub log_first_segment_bytes: u64,
    /// Bytes of every later log segment.
    pub log_segment_bytes: u64,
    /// Unsynced bytes that a client's file holds before a write waits.
    pub write_window_bytes: usize,
    /// Bytes written to a chunk before the client syncs it in the background.
    pub sync_every_bytes: usize,
    /// Bytes a client's reader asks for ahead.
    pub read_ahead_bytes: usize,
}

impl Limits {
    /// Of a production process.
    pub const REAL: Self = Self {
        piece_buffer_bytes: 32 << 20,
        link_unsent_bytes: 4 << 20,
        link_requests: 1_024,
        chunk_tables: 1_024,
        log_batch_bytes: 1 << 20,
        log_first_segment_bytes: 4 << 20,
        log_segment_bytes: 64 << 20,
        write_window_bytes: 32 << 20,
        sync_every_bytes: 16 << 20,
        read_ahead_bytes: 8 << 20,
    };

    /// Bytes of pieces that a chunkserver holds of one chain position, at most, when they come on so many `links`
    /// (those that are gone count as long as a piece of theirs is held) of which each may bring `late` messages
    /// after it was paused.
    ///
    /// When room runs out there are [`Limits::piece_buffer_bytes`] at most. From then on each link brings one
    /// piece that has it paused, and then its late ones: in the daemons these are the 32 messages that stand in
    /// the queue of their loop, and one in the hand of the link's reader. At the head that ends: pieces of clients
    /// past twice the limit are refused for now, and sent again. Further down nobody may refuse; there one link
    /// comes from each server of the cluster.
    #[must_use]
    pub const fn piece_bytes_max(
        &self,
        geometry: Geometry,
        position: u8,
        links: usize,
        late: usize,
    ) -> usize {
        let piece = geometry.piece_bytes as usize;
        let most = self.piece_buffer_bytes + piece * links * (1 + late);
        if position == 0 && most > self.head_bytes_max(geometry) {
            self.head_bytes_max(geometry)
        } else {
            most
        }
    }

    /// Bytes of pieces of clients that the heads of chains on one chunkserver hold, at most, whatever comes.
    #[must_use]
    pub const fn head_bytes_max(&self, geometry: Geometry) -> usize {
        self.piece_buffer_bytes.saturating_mul(2) + geometry.piece_bytes as usize
    }

    /// Reads that a chunkserver gives to its disk at once: as many as there is room for pieces of one chain
    /// position, and at least one. Each reads one piece at most, rounded to whole blocks.
    #[must_use]
    pub const fn disk_reads_max(&self, geometry: Geometry) -> usize {
        let reads = self.piece_buffer_bytes / geometry.piece_bytes as usize;
        if reads > 0 { reads } else { 1 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::REAL
    }
}

/// The periods that more than one machine must agree on; the meta server's word, said in its welcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// A chunkserver says it is alive this often.
    pub heartbeat: Duration,
    /// A chunkserver that was not answered for this long is cut off.
    pub serve_lease: Duration,
    /// A chunk in `trash/` is kept this long.
    pub trash_grace: Duration,
    /// A session that is silent this long expires.
    pub session_idle: Duration,
}

impl Timing {
    /// The defaults of the daemons.
    pub const REAL: Self = Self {
        heartbeat: Duration::from_secs(1),
        serve_lease: Duration::from_secs(5),
        trash_grace: Duration::from_secs(3_600),
        session_idle: Duration::from_secs(120),
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::REAL
    }
}

const _: () = Geometry::REAL.check();
const _: () = assert!(Limits::REAL.link_unsent_bytes >= 2 * FRAME_BODY_MAX);
const _: () = assert!(Limits::REAL.write_window_bytes >= 2 * Limits::REAL.sync_every_bytes);
const _: () = assert!(LIST_PAGE_MAX * (NAME_BYTES_MAX + 160) <= FRAME_HEAD_MAX);
const _: () = assert!(USAGE_PAGE_MAX * (NAME_BYTES_MAX + 16) + 1_024 <= FRAME_HEAD_MAX);
const _: () = assert!(USAGE_SCANS_PER_LINK_MAX < USAGE_SCANS_MAX);
const _: () = assert!(HOLD_PAGE_MAX * 10 + 1_024 <= FRAME_HEAD_MAX);
const _: () = assert!(PATH_BYTES_MAX * 2 + 1_024 <= FRAME_HEAD_MAX);
