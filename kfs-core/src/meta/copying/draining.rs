//! Servers that are drained: what they have gets a copy elsewhere first, and only then are they taken off its members.
//!
//! Who is drained stays a replica that counts and is read as long as it is a member, and gets nothing new. A chunk
//! at rest with as many good replicas as are wanted, one of them on such a server, lacks one elsewhere; when that is
//! made there is one too many, and the one on the server that is drained goes, as any that is too many does. So there
//! are never fewer than before. What is being written waits until it is at rest, or gets another chain.
//!
//! Nothing tells which chunks a server is a member of but looking through all of them, a few at a time: once and again
//! to find those to copy, and to count what is left. That nothing is left is believed only of a count during which no
//! record has made the server a member of anything.
use super::super::namespace::Decision;
use super::super::record::{Record, ServerDrains};
use super::{Io, LOOKED_AT, PAUSE, Serving};
use crate::ids::{ChunkId, FileId, NodeId, ServerIndex};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_meta::{Drain, DrainLeft, DrainStatus};
use crate::wire::{Refusal, Status};
use core::ops::Bound::{Excluded, Unbounded};
use std::collections::{BTreeMap, BTreeSet};

/// Chunks that wait for their turn at once because a server is drained: what lacks replicas is found only when these
/// are done.
const QUEUED_MAX: usize = 64;
/// Between two counts there is so much more time than a count takes.
const COUNT_PAUSE: u32 = 4;

type Target = (FileId, u64);

/// What is being done about servers that are drained.
#[derive(Clone, Debug, Default)]
pub(super) struct Drains {
    /// Behind this it is looked for the next chunks to copy; `None`: at the first one.
    behind: Option<Target>,
    /// Chunks that nobody can take, in this look, and in the one before.
    stuck: BTreeMap<ServerIndex, u64>,
    stuck_before: BTreeMap<ServerIndex, u64>,
    counting: Option<Counting>,
    count_at: Instant,
    /// As counted last.
    left: BTreeMap<ServerIndex, DrainLeft>,
}

/// A count that is under way.
#[derive(Clone, Debug)]
struct Counting {
    began: Instant,
    behind: Option<Target>,
    left: BTreeMap<ServerIndex, DrainLeft>,
    /// Servers that a record has made, or left, a member of something since it began.
    named: BTreeSet<ServerIndex>,
}

impl Drains {
    /// Whether nothing is being looked at.
    pub(super) const fn is_idle(&self) -> bool {
        self.behind.is_none() && self.counting.is_none()
    }
}

impl Serving {
    /// Whether a server is to keep what it has.
    pub(super) fn stays(&self, server: ServerIndex) -> bool {
        !self.state.is_draining(server)
    }
    /// Whether a server may get chunks and copies.
    pub(in crate::meta) fn takes_new(&self, server: ServerIndex) -> bool {
        self.stays(server) || planted::is(Bug::DrainTakesNew)
    }

    /// Begins to drain a server, or ends that.
    pub(in crate::meta) fn drain(
        &self,
        io: &Io,
        node: NodeId,
        drain: Drain,
    ) -> Result<Decision, Refusal> {
        let Some(index) = self.state.nodes.get(&node).copied() else {
            let what = format!("no chunkserver {node} ever joined this cluster");
            return Err(Refusal::new(Status::NotFound, what));
        };
        let is_draining = self.state.is_draining(index);
        let is_so = match drain {
            Drain::Begin => is_draining,
            Drain::End => !is_draining,
        };
        if is_so {
            return Ok(Decision::Unchanged(crate::wire::client_meta::Done::Ok));
        }
        if drain == Drain::Begin {
            let up = self.roster.iter().filter(|(_, heard)| heard.is_up());
            let others = up.filter(|(server, _)| *server != index && self.stays(*server));
            let others = others.count();
            let replication = io.config.replication;
            if others < usize::from(replication) {
                let what = format!(
                    "without it {others} live chunkservers would be left, too few for replication {replication}"
                );
                return Err(Refusal::new(Status::NoServers, what));
            }
        }
        Ok(Decision::Log(ServerDrains { index, drain }.into()))
    }

    /// Whether servers are drained that may have something yet.
    pub(super) fn drains(&self) -> bool {
        let mut draining = self.state.draining.iter();
        draining.any(|server| !self.is_drained(*server))
    }
    /// How many chunks servers have that are drained, and that others could take; 1 while that is being counted.
    pub(in crate::meta) fn drains_left(&self) -> u64 {
        let statuses = self.state.draining.iter();
        let statuses = statuses.filter_map(|server| self.drain_status(*server));
        statuses
            .map(|status| match status {
                DrainStatus::Counting => 1,
                DrainStatus::Left(left) => left.chunks.saturating_sub(left.stuck + left.written),
                DrainStatus::Drained => 0,
            })
            .sum()
    }
    fn is_drained(&self, server: ServerIndex) -> bool {
        let left = self.copying.drains.left.get(&server);
        left.is_some_and(|left| left.chunks == 0)
    }

    /// How far a server is drained, if it is.
    pub(in crate::meta) fn drain_status(&self, server: ServerIndex) -> Option<DrainStatus> {
        if !self.state.is_draining(server) {
            return None;
        }
        let drains = &self.copying.drains;
        Some(match drains.left.get(&server) {
            None => DrainStatus::Counting,
            Some(left) if left.chunks == 0 => DrainStatus::Drained,
            Some(left) => {
                let stuck = |of: &BTreeMap<ServerIndex, u64>| of.get(&server).copied().unwrap_or(0);
                let stuck = stuck(&drains.stuck_before).max(stuck(&drains.stuck));
                DrainStatus::Left(DrainLeft {
                    stuck: stuck.min(left.chunks),
                    ..*left
                })
            }
        })
    }

    /// A record was applied: what was known of servers that it names may not be so any more.
    pub(in crate::meta) fn note_drained(&mut self, record: &Record) {
        if let Record::ServerDrains(drains) = record {
            self.copying.drains = Drains::default();
            tracing::info!(server = %drains.index, drain = ?drains.drain, "a chunkserver is to be drained, or not any more");
        }
        if self.state.draining.is_empty() {
            return;
        }
        let members = match record {
            Record::ChunkOpened(r) => &r.members,
            Record::MembersChanged(r) => &r.members,
            Record::ChunkTaken(r) => &r.members,
            Record::OrphanAdopted(r) => &r.members,
            _ => return,
        };
        let drains = &mut self.copying.drains;
        for server in members.iter().filter(|at| self.state.is_draining(**at)) {
            drains.left.entry(*server).and_modify(|left| {
                // Nothing was left, and now there is.
                left.chunks = left.chunks.max(1);
            });
            if let Some(counting) = &mut drains.counting {
                counting.named.insert(*server);
            }
        }
    }

    /// Counts what servers that are drained have, in the next chunks.
    pub(super) fn count_drained(&mut self, now: Instant) {
        if !self.drains() {
            self.copying.drains.counting = None;
            return;
        }
        let drains = &mut self.copying.drains;
        let mut counting = match drains.counting.take() {
            Some(counting) => counting,
            None if drains.count_at > now => return,
            None => Counting {
                began: now,
                behind: None,
                left: BTreeMap::new(),
                named: BTreeSet::new(),
            },
        };
        let from = counting.behind.map_or(Unbounded, Excluded);
        let mut looked_at = 0;
        for (at, chunk) in self.state.chunks.range((from, Unbounded)).take(LOOKED_AT) {
            looked_at += 1;
            counting.behind = Some(at);
            for member in chunk.members.iter() {
                if self.state.is_draining(*member) {
                    let left = counting.left.entry(*member).or_default();
                    left.chunks += 1;
                    left.bytes += self.state.logged(at.0, at.1, &chunk).len;
                    left.written += u64::from(self.state.is_written(at.0));
                }
            }
        }
        if looked_at == LOOKED_AT {
            self.copying.drains.counting = Some(counting);
            return;
        }
        let Counting {
            began, left, named, ..
        } = counting;
        let counted = |server: &ServerIndex| {
            let left = left.get(server).copied().unwrap_or_default();
            (left.chunks > 0 || !named.contains(server)).then_some((*server, left))
        };
        let drains = &mut self.copying.drains;
        for (server, left) in self.state.draining.iter().filter_map(counted) {
            if drains.left.insert(server, left) != Some(left) && left.chunks == 0 {
                probe::hit(Probe::ServerDrained);
                tracing::info!(%server, "a chunkserver is drained: it may be stopped");
            }
        }
        drains.count_at = now + PAUSE.max(now.since(began) * COUNT_PAUSE);
    }

    /// Queues the next chunks that servers have which are drained.
    pub(super) fn look_for_drained(&mut self, now: Instant) {
        if !self.drains() {
            self.copying.drains.behind = None;
            return;
        }
        let from = match self.copying.drains.behind {
            Some(behind) => Excluded(behind),
            None => {
                let drains = &mut self.copying.drains;
                drains.stuck_before = core::mem::take(&mut drains.stuck);
                Unbounded
            }
        };
        let (mut looked_at, mut found, mut behind) = (0, Vec::new(), None);
        for (at, chunk) in self.state.chunks.range((from, Unbounded)).take(LOOKED_AT) {
            looked_at += 1;
            behind = Some(at);
            let leaves = |server: &ServerIndex| self.state.is_draining(*server);
            if chunk.members.iter().any(leaves)
                && !self.state.is_written(at.0)
                && self.copying.has_turn(chunk.chunk, now)
            {
                found.push((self.state.replication(at.0), chunk.chunk));
            }
            if found.len() >= QUEUED_MAX {
                break;
            }
        }
        let is_end = looked_at < LOOKED_AT && found.len() < QUEUED_MAX;
        self.copying.drains.behind = behind.filter(|_| !is_end);
        self.copying.queue.extend(found);
    }

    /// A chunk that is to move has nowhere to go.
    pub(super) fn drains_nowhere(&mut self, chunk: ChunkId) {
        let Some((_, owned, _)) = self.at_rest(chunk) else {
            return;
        };
        probe::hit(Probe::DrainNowhere);
        for server in owned.members.iter() {
            if self.state.is_draining(*server) {
                *self.copying.drains.stuck.entry(*server).or_default() += 1;
            }
        }
    }
}
