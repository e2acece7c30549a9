//! The simulated disk: what is in the page cache, what is durable, what a crash leaves of the rest, and what
//! goes wrong before any crash.
//!
//! [`model`] is the file system and its promise: a sync of a file makes its data and length durable, not its
//! name; a sync of a directory makes its names durable; nothing else is certain. [`crash`] is what a power
//! loss does with what is not certain, and [`images`] all that it can do. [`faults`] is how a disk breaks that
//! promise. [`queue`] is what is on its way to a disk; [`node`] puts it all behind the drivers' `Disk`, with latencies.
pub mod crash;
pub mod faults;
pub mod image;
pub mod images;
pub mod model;
#[cfg(madsim)]
pub mod node;
pub mod queue;

pub use crash::{Choice, Crash, Policy};
pub use faults::{DiskFault, FaultCounts};
pub use image::Recipe;
pub use images::{Coverage, CrashImage, CrashImages};
pub use model::{DiskModel, Moment};
