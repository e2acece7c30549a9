//! A node's disk in the bare simulator: what lies on it, and what is on its way there.
use crate::disk::queue::{Carried, Queue};
use crate::disk::{Crash, DiskModel, Policy};
use crate::keyed::Keyed;
use crate::schedule::Speed;
use kfs_core::ids::Ticket;
use kfs_core::machine::DiskOp;

/// See the module. Times are in nanoseconds.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What is on it.
    pub model: DiskModel,
    /// What is on its way.
    pub queue: Queue<u64>,
    /// Operations carried out.
    pub operations: u64,
}

impl Disk {
    /// A disk that nobody uses yet.
    #[must_use]
    pub fn new(model: DiskModel, draws: Keyed, speed: Speed) -> Self {
        Self {
            model,
            queue: Queue::new(draws, speed),
            operations: 0,
        }
    }

    /// Takes an operation; gives when it is due.
    pub fn submit(&mut self, now: u64, ticket: Ticket, op: DiskOp) -> u64 {
        let takes = self.queue.takes_ns(&mut self.model, &op);
        self.queue.submit(now + takes, ticket, op)
    }

    /// Carries out the first operation, if it is due.
    pub fn carry_out(&mut self, now: u64) -> Carried<u64> {
        let carried = self.queue.carry_out(now, &mut self.model);
        self.operations += u64::from(matches!(carried, Carried::Done(..)));
        carried
    }

    /// See [`Queue::kill`].
    pub fn kill(&mut self) {
        self.queue.kill(&mut self.model);
    }

    /// See [`Queue::power_loss`].
    pub fn power_loss(&mut self, policy: Policy) -> Crash {
        self.queue.power_loss(policy, &mut self.model)
    }
}
