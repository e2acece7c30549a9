//! What clients do: files whose bytes describe themselves, and churn of names.
pub mod bytes;
#[cfg(madsim)]
pub mod client;
pub mod job;

use kfs_core::wire::Status;

/// Whether a failure is one that no other actor can be the reason of, in a run where nothing fails.
#[must_use]
pub fn is_unexpected(status: Status, alone: bool) -> bool {
    match status {
        Status::NotFound
        | Status::Exists
        | Status::NotADirectory
        | Status::IsADirectory
        | Status::NotEmpty
        | Status::BadName
        | Status::BadRequest
        | Status::Overwrite => false,
        // Read or written while it was removed.
        Status::NoReplica | Status::NotServed | Status::ChainBroken => alone,
        _ => true,
    }
}
