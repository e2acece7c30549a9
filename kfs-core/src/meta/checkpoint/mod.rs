//! Checkpoints: the whole state in one file, so that a start reads it and only the log behind it.
//!
//! [`Writer`] takes a state apart, [`Loader`] puts one together; both are functions of bytes. What makes them while
//! the meta server serves is in [`super::checkpointing`], what loads them is in [`super::recovery`].
mod entry;
pub mod format;
mod read;
mod write;

pub use entry::{Entry, Section};
pub use read::{Loader, Reader, Summary};
pub use write::Writer;

use crate::ids::LogSeq;
use serde::{Deserialize, Serialize};

/// The section of the last block.
pub const END: u16 = u16::MAX;

/// What the last block holds: by it a file that is whole is told from one that is cut short.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// The last record in the checkpoint.
    pub seq: LogSeq,
    /// How many entries each section has, in their order.
    pub entries: Vec<u64>,
}
