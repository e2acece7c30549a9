//! Operations on their way to a disk: each takes a while, those that change one name keep their order, and a
//! dying process gets some of them done. The same for both simulators, each with its own clock.
use super::crash::{Crash, Policy};
use super::model::DiskModel;
use crate::keyed::Keyed;
use crate::schedule::Speed;
use bytes::Bytes;
use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, DiskResult, FileName, SyncMode};
use std::collections::BTreeMap;

/// See the module. `T` is a reading of a clock.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    draws: Keyed,
    speed: Speed,
    /// By when they are due, then by submission.
    in_flight: BTreeMap<(T, u64), (Ticket, DiskOp)>,
    /// When the last operation on a name is due.
    due: BTreeMap<FileName, T>,
    submitted: u64,
    trip: Option<Trip>,
}

/// A crash at an operation: when so many more operations that change something were carried out.
#[derive(Clone, Copy, Debug)]
struct Trip {
    left: u64,
    /// Whether that operation is still in flight then, and so may be cut, or is done and nobody was told.
    in_flight: bool,
}

/// What came of looking for an operation that is due.
#[derive(Debug)]
pub enum Carried<T> {
    /// One ended.
    Done(Ticket, DiskOp, DiskResult),
    /// The crash that was to happen at this operation is due.
    Tripped,
    /// The next one is due then.
    NotBefore(T),
    /// The disk carries nothing out at present.
    Stalled,
    /// There is none.
    Nothing,
}

impl<T: Copy + Ord> Queue<T> {
    /// Nothing on its way yet.
    #[must_use]
    pub fn new(draws: Keyed, speed: Speed) -> Self {
        Self {
            draws,
            speed,
            in_flight: BTreeMap::new(),
            due: BTreeMap::new(),
            submitted: 0,
            trip: None,
        }
    }

    /// Draws how long an operation takes by itself, in nanoseconds.
    pub fn takes_ns(&mut self, model: &mut DiskModel, op: &DiskOp) -> u64 {
        let most_us = match op {
            DiskOp::Read { .. } | DiskOp::List { .. } | DiskOp::Space => self.speed.read_us,
            DiskOp::Sync { .. }
            | DiskOp::SyncDir { .. }
            | DiskOp::SyncAll { .. }
            | DiskOp::Write {
                sync: SyncMode::Now,
                ..
            } => self.speed.sync_us,
            DiskOp::MakeDir { .. }
            | DiskOp::Create { .. }
            | DiskOp::Write { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::Truncate { .. } => self.speed.write_us,
        };
        // Mostly far below the most, as disks are.
        let share = self.draws.below(1_000) * self.draws.below(1_000);
        // The factor of a slow disk; a nanosecond more or less is nobody's business.
        model.latency_us(most_us * share / 1_000)
    }

    /// Takes an operation that would be due then; gives when it is, behind others on its names.
    pub fn submit(&mut self, mut at: T, ticket: Ticket, op: DiskOp) -> T {
        for name in changed(&op) {
            at = at.max(self.due.get(name).copied().unwrap_or(at));
        }
        for name in changed(&op) {
            self.due.insert(name.clone(), at);
        }
        self.submitted += 1;
        self.in_flight.insert((at, self.submitted), (ticket, op));
        at
    }

    /// Carries out the first operation, if it is due.
    pub fn carry_out(&mut self, now: T, model: &mut DiskModel) -> Carried<T> {
        let Some((&(at, nth), (_, op))) = self.in_flight.first_key_value() else {
            return Carried::Nothing;
        };
        if model.is_stalled() {
            return Carried::Stalled;
        }
        if at > now {
            return Carried::NotBefore(at);
        }
        let mut trips = false;
        if let Some(trip) = &mut self.trip
            && changed(op).next().is_some()
        {
            trips = trip.left == 0;
            trip.left = trip.left.saturating_sub(1);
            if trips && trip.in_flight {
                self.trip = None;
                return Carried::Tripped;
            }
        }
        let (ticket, op) = self
            .in_flight
            .remove(&(at, nth))
            .expect("it was the first just now");
        for name in changed(&op) {
            if self.due.get(name) == Some(&at) {
                self.due.remove(name);
            }
        }
        let result = model.apply(&op);
        if trips {
            self.trip = None;
            return Carried::Tripped;
        }
        Carried::Done(ticket, op, result)
    }

    /// The process dies: of its operations in flight the first so many are carried out, one in part, and
    /// nothing more. What is in the page cache stays.
    pub fn kill(&mut self, model: &mut DiskModel) {
        let in_flight = std::mem::take(&mut self.in_flight);
        let survivors = self.draws.index(in_flight.len() + 1);
        self.kill_at_once();
        for (nth, (_, op)) in in_flight.into_values().enumerate() {
            if nth < survivors {
                // The dead process does not hear how it went.
                let _ = model.apply(&op);
            } else if nth == survivors
                && let Some(part) = cut(&op, &mut self.draws)
            {
                let _ = model.apply(&part);
            }
        }
    }

    /// The process dies before anything that is in flight is carried out.
    pub fn kill_at_once(&mut self) {
        self.trip = None;
        self.due.clear();
        self.in_flight.clear();
    }

    /// The power fails, after a kill: pending operations survive as the policy says.
    pub fn power_loss(&mut self, policy: Policy, model: &mut DiskModel) -> Crash {
        model.power_loss(policy, &mut self.draws)
    }

    /// A crash is due after so many more operations that change something.
    pub fn trip_after(&mut self, operations: u64) {
        self.trip = Some(Trip {
            left: operations,
            in_flight: self.draws.percent(60),
        });
    }

    /// Takes such a crash back.
    pub fn disarm(&mut self) {
        self.trip = None;
    }

    /// Changes the disk's speed from now on.
    pub fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
    }
}

/// The part of a write that a dying process gets done; nothing of anything else.
fn cut(op: &DiskOp, draws: &mut Keyed) -> Option<DiskOp> {
    let DiskOp::Write {
        file, offset, data, ..
    } = op
    else {
        return None;
    };
    let all: Vec<u8> = data.concat();
    let kept = draws.index(all.len() + 1);
    Some(DiskOp::Write {
        file: file.clone(),
        offset: *offset,
        data: vec![Bytes::from(all).slice(..kept)],
        sync: SyncMode::Later,
    })
}

/// The names on which an operation keeps its order.
fn changed(op: &DiskOp) -> impl Iterator<Item = &FileName> {
    let (one, other) = match op {
        DiskOp::Read { .. } | DiskOp::List { .. } | DiskOp::Space => (None, None),
        DiskOp::MakeDir { dir } | DiskOp::SyncDir { dir } | DiskOp::SyncAll { dir } => {
            (Some(dir), None)
        }
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. } => (Some(file), None),
        DiskOp::Rename { from, to } => (Some(from), Some(to)),
    };
    one.into_iter().chain(other)
}
