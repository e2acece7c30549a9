//! The simulated disk: what is in the page cache, what is durable, and what a crash leaves of the rest.
//!
//! [`model`] is the file system and its promise: a sync of a file makes its data and length durable, not its
//! name; a sync of a directory makes its names durable; nothing else is certain. [`crash`] is what a power
//! loss does with what is not certain. [`node`] puts the two behind the drivers' `Disk`, with latencies.
pub mod crash;
pub mod model;
#[cfg(madsim)]
pub mod node;

pub use crash::{Crash, Policy};
pub use model::DiskModel;
