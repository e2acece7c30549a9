//! The one loop that carries out what a machine wants, and hands it what happens.
//!
//! The same source runs in production over tokio and in the simulator over madsim: the manifest picks the
//! crate behind the name `tokio`. Drivers are dull: an `if` on the meaning of a message belongs in the core.
//!
//! A crate of its own, because servers and clients both need it and do not import each other.
//! Start at [`drive()`].
mod calls;
mod clock;
mod drive;
mod net;
pub mod pool;

pub use calls::{Caller, Calls, Gone, Pending, calls};
pub use clock::{Clock, entropy};
pub use drive::{Exit, drive};
pub use net::Net;
#[cfg(madsim)]
pub use net::seam;

use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, DiskResult};
use tokio::sync::mpsc::UnboundedSender;

/// Where a disk puts what became of its operations. Its length is bounded by the operations that machines
/// have in flight, which `kfs_core::limits` bounds.
pub type Completions = UnboundedSender<(Ticket, DiskResult)>;

/// A data directory: real files in production, a model with faults in the simulator.
///
/// Operations that change one file take effect in the order of their submission; reads and operations on
/// different files run beside one another.
pub trait Disk: Send + 'static {
    /// Begins an operation and returns at once; its completion goes to the [`Completions`] that the disk
    /// was opened with, exactly once.
    fn submit(&mut self, ticket: Ticket, op: DiskOp);
}

/// For a machine that has no data directory.
#[derive(Debug)]
pub struct NoDisk;

impl Disk for NoDisk {
    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        unreachable!("a machine without a data directory asked for {op:?} ({ticket})");
    }
}
