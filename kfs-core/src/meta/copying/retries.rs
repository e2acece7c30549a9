//! Copies that failed: when each is tried again, later each time, so that a server without room or a path that is
//! cut costs an order now and then and not one after the other.
use crate::ids::ChunkId;
use crate::time::Instant;
use core::time::Duration;
use std::collections::BTreeMap;

/// What is remembered at most; of another one, what would be tried soonest is forgotten.
pub(super) const RETRIES_MAX: usize = 4_096;
const FIRST: Duration = Duration::from_secs(1);
const DOUBLINGS_MAX: u32 = 5;

/// Chunks whose last copy failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries {
    of: BTreeMap<ChunkId, Retry>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    failures: u32,
    at: Instant,
}

impl Retries {
    /// Gives when it is tried again.
    pub(super) fn failed(&mut self, chunk: ChunkId, now: Instant) -> Instant {
        let failures = self.failures(chunk) + 1;
        if self.of.len() >= RETRIES_MAX && failures == 1 {
            let soonest = self.of.iter().min_by_key(|(_, retry)| retry.at);
            if let Some(soonest) = soonest.map(|(chunk, _)| *chunk) {
                self.of.remove(&soonest);
            }
        }
        let at = now + FIRST * 2u32.pow((failures - 1).min(DOUBLINGS_MAX));
        self.of.insert(chunk, Retry { failures, at });
        at
    }
    /// It was made, or is not wanted any more.
    pub(super) fn settled(&mut self, chunk: ChunkId) {
        self.of.remove(&chunk);
    }
    pub(super) fn retain(&mut self, is_wanted: impl Fn(ChunkId) -> bool) {
        self.of.retain(|chunk, _| is_wanted(*chunk));
    }
    /// How often it failed: what was tried is then not tried first.
    pub(super) fn failures(&self, chunk: ChunkId) -> u32 {
        self.of.get(&chunk).map_or(0, |retry| retry.failures)
    }
    /// When it is tried again.
    pub(super) fn at(&self, chunk: ChunkId) -> Option<Instant> {
        self.of.get(&chunk).map(|retry| retry.at)
    }
    pub(super) fn waits(&self, chunk: ChunkId, now: Instant) -> bool {
        self.of.get(&chunk).is_some_and(|retry| retry.at > now)
    }
    /// There is a server more: each may be what was missing.
    pub(super) fn server_up(&mut self, now: Instant) {
        for retry in self.of.values_mut() {
            retry.at = retry.at.min(now);
        }
    }
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}
