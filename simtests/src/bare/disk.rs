//! A node's disk as its process sees it: operations take a while, those that change one name keep their order,
//! and a dying process gets some of them done.
use crate::disk::{Crash, DiskModel, Policy};
use crate::keyed::Keyed;
use crate::schedule::Speed;
use bytes::Bytes;
use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, DiskResult, FileName, SyncMode};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What is on it.
    pub model: DiskModel,
    draws: Keyed,
    speed: Speed,
    /// By when they are due, then by submission.
    in_flight: BTreeMap<(u64, u64), (Ticket, DiskOp)>,
    /// When the last operation on a name is due.
    due: BTreeMap<FileName, u64>,
    submitted: u64,
    trip: Option<Trip>,
    /// Operations carried out.
    pub operations: u64,
}

/// A crash at an operation: when so many more operations that change something were carried out.
#[derive(Clone, Copy, Debug)]
struct Trip {
    left: u64,
    /// Whether that operation is still in flight then, and so may be cut, or is done and nobody was told.
    in_flight: bool,
}

/// What came of the operation that was due.
#[derive(Debug)]
pub enum Carried {
    /// It ended.
    Done(Ticket, DiskOp, DiskResult),
    /// The crash that was to happen at this operation is due.
    Tripped,
}

impl Disk {
    /// A disk that nobody uses yet.
    #[must_use]
    pub fn new(model: DiskModel, draws: Keyed, speed: Speed) -> Self {
        Self {
            model,
            draws,
            speed,
            in_flight: BTreeMap::new(),
            due: BTreeMap::new(),
            submitted: 0,
            trip: None,
            operations: 0,
        }
    }

    /// Takes an operation; gives when it is due, in nanoseconds.
    pub fn submit(&mut self, now: u64, ticket: Ticket, op: DiskOp) -> u64 {
        let speed = self.speed;
        let most_us = match &op {
            DiskOp::Read { .. } | DiskOp::List { .. } | DiskOp::Space => speed.read_us,
            DiskOp::Sync { .. }
            | DiskOp::SyncDir { .. }
            | DiskOp::Write {
                sync: SyncMode::Now,
                ..
            } => speed.sync_us,
            DiskOp::MakeDir { .. }
            | DiskOp::Create { .. }
            | DiskOp::Write { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::Truncate { .. } => speed.write_us,
        };
        // Mostly far below the most, as disks are.
        let share = self.draws.below(1_000) * self.draws.below(1_000);
        let mut at = now + most_us * share / 1_000;
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

    /// Carries out the first operation that is due.
    pub fn carry_out(&mut self, now: u64) -> Option<Carried> {
        let (&(at, nth), (_, op)) = self.in_flight.first_key_value()?;
        if at > now {
            return None;
        }
        let mut trips = false;
        if let Some(trip) = &mut self.trip
            && changed(op).next().is_some()
        {
            trips = trip.left == 0;
            trip.left = trip.left.saturating_sub(1);
            if trips && trip.in_flight {
                self.trip = None;
                return Some(Carried::Tripped);
            }
        }
        let (ticket, op) = self.in_flight.remove(&(at, nth))?;
        for name in changed(&op) {
            if self.due.get(name) == Some(&at) {
                self.due.remove(name);
            }
        }
        let result = self.model.apply(&op);
        self.operations += 1;
        if trips {
            self.trip = None;
            return Some(Carried::Tripped);
        }
        Some(Carried::Done(ticket, op, result))
    }

    /// The process dies: of its operations in flight the first so many are carried out, one in part, and
    /// nothing more. What is in the page cache stays.
    pub fn kill(&mut self) {
        self.trip = None;
        self.due.clear();
        let in_flight = std::mem::take(&mut self.in_flight);
        let survivors = self.draws.index(in_flight.len() + 1);
        for (nth, (_, op)) in in_flight.into_values().enumerate() {
            if nth < survivors {
                // The dead process does not hear how it went.
                let _ = self.model.apply(&op);
            } else if nth == survivors
                && let Some(part) = cut(&op, &mut self.draws)
            {
                let _ = self.model.apply(&part);
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
    pub fn power_loss(&mut self, policy: Policy) -> Crash {
        self.model.power_loss(policy, &mut self.draws)
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

    /// Changes its speed from now on.
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
        DiskOp::MakeDir { dir } | DiskOp::SyncDir { dir } => (Some(dir), None),
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. } => (Some(file), None),
        DiskOp::Rename { from, to } => (Some(from), Some(to)),
    };
    one.into_iter().chain(other)
}
