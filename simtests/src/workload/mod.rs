//! What clients do: files whose bytes describe themselves, and churn of names.
pub mod bytes;
#[cfg(madsim)]
pub mod client;
pub mod job;

use crate::observe::record::Record;
use crate::oracle::Violation;
use crate::oracle::order::is_decision;
use crate::schedule::{Class, Schedule};
use kfs_core::ids::NodeId;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{ClusterStatus, DrainStatus};

/// Whether a failure is one that no other actor can be the reason of, in a run where nothing fails.
#[must_use]
pub const fn is_unexpected(status: Status) -> bool {
    !is_decision(status)
}

/// How often somebody asks who waits for copies, in milliseconds.
pub const COUNT_MS: u64 = 100;

/// A file could not be written, and nothing that happened in the run is a reason for that.
#[must_use]
pub fn must_not_fail(name: &str, why: &str) -> Violation {
    let what =
        format!("{name} was to be written whatever happened in this run, and was not: {why}");
    Violation::new("O9", "L", what)
}

/// Copies were not made in time; so many chunks lack some, if that could be heard.
#[must_use]
pub fn copies_missing(lack: Option<u64>) -> Violation {
    let what = match lack {
        Some(lack) => format!("{lack} chunks still lack copies"),
        None => "the meta server does not say whether copies are missing".into(),
    };
    Violation::new("O9", "L", what)
}

/// How far a server is drained, as faults name it: the nth by its address. `None`: the meta server does not know it.
#[must_use]
pub fn drain_of(status: &ClusterStatus, server: usize) -> Option<(NodeId, Option<DrainStatus>)> {
    let heard = status.servers.iter();
    let mut heard: Vec<_> = heard.filter_map(|at| Some((at.addr?, at))).collect();
    heard.sort_by_key(|(addr, _)| *addr);
    let (_, at) = heard.get(server.checked_sub(1)?)?;
    Some((at.node, at.drain))
}

/// A server was not drained in time.
#[must_use]
pub fn not_drained(server: usize, drain: Option<DrainStatus>) -> Violation {
    let what = format!("server {server} is not drained: {drain:?}");
    Violation::new("O9", "L", what)
}

/// What a client has open it can read and write on, whatever becomes of the name; as long as its session lives.
pub fn judge_open(
    record: &mut Record,
    schedule: &Schedule,
    client: usize,
    (status, what): (Status, &str),
) {
    let client = u32::try_from(client).expect("a run has few clients");
    let lives = schedule.class != Class::Safe && !record.sessions_lost.contains_key(&client);
    if lives && status == Status::NotFound {
        let what = format!("client {client} has a file open, and cannot go on: {what}");
        record.check::<()>(Err(Violation::new("O2", "D7", what)));
    }
}
