//! Scrub: all replicas are read, slowly and again and again, so that what rots is found while another server has it
//! whole.
//!
//! It reads as a client does (see [`super::read`]): the same waits, the same sums, and what is bad is reported as if
//! a client had met it, and made anew by the meta server's order. What it adds is an order and a pace. It goes through
//! the ids of replicas, so those that come and go meanwhile need no list. One read is at the disk at a time, beside
//! those of clients and never in their way, and the next one no sooner than the rate allows; time that was lost is
//! not made up for. A replica that is being written is left out: it is read in the round after it came to rest.
//!
//! A process begins at a replica drawn by lot, not where the last one was: that would have to be written down, and
//! from the first replica on, a server that is restarted often would never come to its last ones.
use super::inventory::{Replica, Standing};
use super::name::ReplicaId;
use super::{Chunk, ScrubStatus, Stopping};
use crate::ids::{ChunkId, Version};
use crate::limits::HEADER_BYTES;
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_chunk::{Durable, ReadRange};
use crate::wire::{Refusal, Status};
use core::ops::Bound;
use core::time::Duration;
use std::collections::BTreeMap;

/// Rounds do not begin faster than this, however little there is to read.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// Replicas that are passed over in one go, and when it goes on after that.
const LOOKS_MAX: usize = 256;
const LOOKS_PAUSE: Duration = Duration::from_millis(10);

/// How far it is.
#[derive(Clone, Debug)]
pub(super) struct Scrub {
    /// Bytes a second; 0: it is off.
    rate: u64,
    /// Nothing is read before.
    due: Instant,
    /// Where rounds begin and end, once it was drawn.
    origin: Option<ReplicaId>,
    round: Option<Round>,
    /// The replica that is being read.
    at: Option<At>,
    began: Option<Instant>,
    ended: Option<Instant>,
}

/// The way from one replica through all others back to it.
#[derive(Clone, Copy, Debug)]
struct Round {
    origin: ReplicaId,
    leg: Leg,
}

#[derive(Clone, Copy, Debug)]
enum Leg {
    /// From the origin to the last replica. The one seen last.
    Up(Option<ReplicaId>),
    /// From the first one to the origin.
    Home(Option<ReplicaId>),
}

#[derive(Clone, Copy, Debug)]
struct At {
    id: ReplicaId,
    durable: Durable,
    /// Where the next read begins, in bytes.
    next: u64,
}

impl Scrub {
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate,
            due: Instant::default(),
            origin: None,
            round: None,
            at: None,
            began: None,
            ended: None,
        }
    }
    /// How long so many bytes take.
    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Round {
    const fn from(origin: ReplicaId) -> Self {
        let leg = Leg::Up(None);
        Self { origin, leg }
    }
    /// The next replica that is there now; `None`: all were seen.
    fn next(&mut self, replicas: &BTreeMap<ReplicaId, Replica>) -> Option<ReplicaId> {
        if let Leg::Up(seen) = self.leg {
            let from = seen.map_or(Bound::Included(self.origin), Bound::Excluded);
            if let Some((id, _)) = replicas.range((from, Bound::Unbounded)).next() {
                self.leg = Leg::Up(Some(*id));
                return Some(*id);
            }
            self.leg = Leg::Home(None);
        }
        let Leg::Home(seen) = self.leg else {
            unreachable!("it is on its way home");
        };
        let from = seen.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, _) = replicas
            .range((from, Bound::Excluded(self.origin)))
            .next()?;
        self.leg = Leg::Home(Some(*id));
        Some(*id)
    }
}

impl Chunk {
    /// When something is to be read; `None` also while a read is at work.
    pub(super) fn scrub_due(&self) -> Option<Instant> {
        let is_on = self.scrub.rate > 0 && self.ready_said && self.stopping == Stopping::No;
        (is_on && self.reads.scrub_may()).then_some(self.scrub.due)
    }

    pub(super) fn scrub_on_time(&mut self) {
        let now = self.now.mono;
        if self.scrub_due().is_none_or(|due| now < due) {
            return;
        }
        if let Some(At { id, durable, .. }) = self.scrub.at
            && self.scrubs(id) != Some(durable)
        {
            self.scrub_leaves(id);
        }
        if self.scrub.at.is_none() {
            self.scrub_next();
        }
        let Some(At { id, durable, next }) = self.scrub.at else {
            return;
        };
        let len = (durable.len - next).min(u64::from(self.config.geometry.piece_bytes));
        // Holes cost as much as what is read: so a step is never free, and there are no more of them in a second.
        let header = if next == 0 { HEADER_BYTES } else { 0 };
        self.scrub.due = now + self.scrub.time_of(len + header);
        self.read_for_scrub(ReadRange {
            chunk: id.chunk,
            version: id.version,
            offset: next,
            len: u32::try_from(len).expect("at most a piece"),
            log: durable,
        });
    }

    /// Takes on the next replica, if there is one that is to be read now.
    fn scrub_next(&mut self) {
        let now = self.now.mono;
        let mut round = if let Some(round) = self.scrub.round {
            round
        } else {
            self.scrub.began = Some(now);
            Round::from(self.scrub_origin())
        };
        for _ in 0..LOOKS_MAX {
            let Some(id) = round.next(&self.inventory.replicas) else {
                return self.scrub_round_ends();
            };
            if let Some(durable) = self.scrubs(id) {
                self.inventory.tables.scrub_begins(id);
                let next = 0;
                self.scrub.at = Some(At { id, durable, next });
                self.scrub.round = Some(round);
                return;
            }
        }
        self.scrub.round = Some(round);
        self.scrub.due = now + LOOKS_PAUSE;
    }

    fn scrub_origin(&mut self) -> ReplicaId {
        if let Some(origin) = self.scrub.origin {
            return origin;
        }
        let replicas = &self.inventory.replicas;
        let drawn = (!replicas.is_empty()).then(|| self.rng.below(replicas.len()));
        let drawn = drawn.and_then(|nth| replicas.keys().nth(nth).copied());
        let (chunk, version) = (ChunkId(0), Version(0));
        let origin = drawn.unwrap_or(ReplicaId { chunk, version });
        *self.scrub.origin.insert(origin)
    }

    fn scrub_round_ends(&mut self) {
        probe::hit(Probe::ScrubRoundDone);
        let now = self.now.mono;
        self.counts.scrub.rounds += 1;
        self.scrub.round = None;
        self.scrub.ended = Some(now);
        let began = self.scrub.began.expect("a round that ends has begun");
        self.scrub.due = now.max(began + ROUND_MIN);
    }

    /// Whether a replica is to be read now, and how far it is durable.
    fn scrubs(&self, id: ReplicaId) -> Option<Durable> {
        let replica = self.inventory.replicas.get(&id)?;
        let is_damaged = || {
            let damage = (id, None)..=(id, Some(u32::MAX));
            self.damage.range(damage).next().is_some()
        };
        let is_at_rest = !self.writing.contains_key(&id) && !self.copies.contains_key(&id);
        let is_good = replica.standing == Standing::Served && !is_damaged();
        (is_at_rest && is_good && replica.len > 0).then(|| replica.durable())
    }

    /// What it has asked for was read, `bytes` of it from the disk; or cannot be.
    pub(super) fn scrub_has_read(&mut self, ask: &ReadRange, outcome: Result<u64, Refusal>) {
        let at = self.scrub.at.as_mut().expect("it has asked for it");
        let id = at.id;
        assert_eq!(at.next, ask.offset, "it asks for one range at a time");
        match outcome {
            Ok(bytes) => {
                self.counts.scrub.bytes += bytes;
                at.next += u64::from(ask.len);
                if at.next == at.durable.len {
                    self.counts.scrub.chunks += 1;
                    self.scrub_is_done();
                }
            }
            Err(refusal) => {
                let replica = self.inventory.replicas.get(&id);
                let has_rotted = replica.is_some_and(|at| at.standing == Standing::BadHeader);
                if refusal.status == Status::Corrupt || has_rotted {
                    probe::hit(Probe::ScrubFoundDamage);
                    self.counts.scrub.bad += 1;
                    // All of it is made anew, so the rest is not worth reading.
                    self.scrub_is_done();
                } else {
                    self.scrub_leaves(id);
                }
            }
        }
    }

    /// A replica has gone or changed: if it comes to rest it is read in the next round.
    fn scrub_leaves(&mut self, id: ReplicaId) {
        probe::hit(Probe::ScrubReplicaGone);
        tracing::debug!(%id, "a replica has changed while it was verified");
        self.scrub_is_done();
    }

    fn scrub_is_done(&mut self) {
        if let Some(at) = self.scrub.at.take() {
            self.inventory.tables.scrub_ends(at.id);
        }
    }

    pub(super) fn scrub_status(&self) -> ScrubStatus {
        let ago = |at: Instant| {
            let ms = self.now.mono.since(at).as_millis();
            u64::try_from(ms).unwrap_or(u64::MAX)
        };
        ScrubStatus {
            began_ms_ago: self.scrub.began.map(ago),
            ended_ms_ago: self.scrub.ended.map(ago),
            ..self.counts.scrub.clone()
        }
    }
}
