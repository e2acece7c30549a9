//! The room on the disk, as the head of a chain sees it before it takes a piece.
use super::{Chunk, Job};
use crate::limits::HEADER_BYTES;
use crate::machine::{DiskDone, DiskOp, DiskResult};

/// The room on the disk: as last measured, less what was taken since.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    measured: Option<Measured>,
    /// The disk was asked and has not said yet.
    asked: bool,
    /// Bytes of pieces taken, and of those written, since the start.
    pub taken: u64,
    pub written: u64,
}

#[derive(Clone, Debug)]
struct Measured {
    bytes_free: u64,
    bytes_total: u64,
    /// What had been written when it was measured.
    written: u64,
}

impl Space {
    pub(super) fn bytes_free(&self) -> u64 {
        let free = |measured: &Measured| {
            measured
                .bytes_free
                .saturating_sub(self.taken - measured.written)
        };
        self.measured.as_ref().map_or(0, free)
    }
    pub(super) fn bytes_total(&self) -> u64 {
        self.measured
            .as_ref()
            .map_or(0, |measured| measured.bytes_total)
    }
    pub(super) fn measure(&mut self, written: u64, result: DiskResult) {
        self.asked = false;
        match result {
            Ok(DiskDone::Space {
                bytes_free,
                bytes_total,
            }) => {
                self.measured = Some(Measured {
                    bytes_free,
                    bytes_total,
                    written,
                });
            }
            other => tracing::warn!(?other, "cannot tell how much room the disk has"),
        }
    }
    /// Whether a piece of `len` bytes would not fit. As long as nothing was measured, the disk will tell.
    pub(super) fn lacks(&self, len: u64) -> bool {
        self.measured.is_some() && self.bytes_free() < len + HEADER_BYTES
    }
}

impl Chunk {
    /// Asks the disk how much room it has, unless it still has to say so: a disk that stands still is not asked
    /// again at each heartbeat.
    pub(super) fn measure_space(&mut self) {
        if core::mem::replace(&mut self.space.asked, true) {
            return;
        }
        let written = self.space.written;
        self.disk(Job::Space(written), DiskOp::Space);
    }
}
