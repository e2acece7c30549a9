//! Looks over the shoulders of machines while a run goes on: what they send, what they do to their disks, what
//! they hold in memory and what they count. It feeds the oracles that a look at the end of a run does not
//! serve: O5 (one grant at most; states in their order), O7 (the log against the machine, at each start), O8
//! (nothing acked is ever deleted), O10 (bounds) and O11 (counters).
//!
//! Both simulators tell it the same three things of every machine ([`Overseen`]), and when a server's process
//! starts on its disk. A value: a simulation that is forked takes a copy along.
mod chunk;
mod meta;

use crate::disk::DiskModel;
use crate::oracle::bounds::{self, OnTheirWay};
use crate::oracle::deleted::ShadowCollector;
use crate::oracle::log;
use crate::oracle::meta::Grants;
use crate::oracle::{Tick, Violation};
use crate::schedule::Schedule;
use chunk::ServerSeen;
use kfs_core::client::Client;
use kfs_core::ids::{Epoch, Incarnation, Instance, LogSeq};
use kfs_core::limits::{Geometry, Limits};
use kfs_core::machine::{Input, Machine, Output};
use kfs_core::meta::record::Logged;
use kfs_core::time::Now;
use kfs_core::wire::Head;
use meta::MetaSeen;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Every so many inputs of a machine its counters are compared: that costs as much as it has replicas.
const COUNTERS_EVERY: u64 = 16;

/// See the module.
#[derive(Clone, Debug)]
pub struct Overseer {
    setup: Setup,
    collector: ShadowCollector,
    grants: Grants,
    meta: MetaSeen,
    servers: BTreeMap<u32, ServerSeen>,
    /// Where the process runs that calls itself so.
    instances: BTreeMap<Instance, u32>,
    /// Sessions that clients asked for.
    nonces: BTreeSet<u64>,
    /// Servers whose disks were changed behind their backs.
    hurt: BTreeSet<u32>,
    /// The newest meta server that each chunkserver has accepted.
    accepted: BTreeMap<u32, (Epoch, Incarnation)>,
    judged: Judged,
}

/// What a run was told before it began.
#[derive(Clone, Copy, Debug)]
struct Setup {
    seed: u64,
    geometry: Geometry,
    limits: Limits,
    on_their_way: OnTheirWay,
    /// Calls that one client makes at once.
    calls: usize,
    lease: Duration,
}

/// How often each oracle judged something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Judged {
    /// O5: states of the meta server.
    pub states: u64,
    /// O5: pieces that were acked.
    pub pieces: u64,
    /// O7: logs that were compared with what a machine had.
    pub logs: u64,
    /// O8: replicas that were ordered away, moved to `trash/`, or removed.
    pub deletions: u64,
    /// O10: machines whose memory was looked at.
    pub bounds: u64,
    /// O11: chunkservers whose counters were compared.
    pub counters: u64,
}

/// The oracles that are fed here.
pub const ORACLES: [&str; 5] = ["O5", "O7", "O8", "O10", "O11"];

impl Judged {
    /// By the oracles' names.
    pub fn by_oracle(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = [
            self.states + self.pieces,
            self.logs,
            self.deletions,
            self.bounds,
            self.counters,
        ];
        ORACLES.into_iter().zip(counts)
    }
}

/// Which machine, and where.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The server's number; of a client any.
    pub node: u32,
    /// For people.
    pub name: &'a str,
}

/// A machine that is looked at from outside.
pub trait Overseen: Machine + Sized {
    /// Before it takes this.
    ///
    /// # Errors
    /// If that shows that a promise was broken.
    fn takes(
        overseer: &mut Overseer,
        whose: Whose<'_>,
        now: Now,
        input: &Input<Self::Call>,
    ) -> Result<(), Violation>;

    /// When it wants this, by its own clock and by the simulation's.
    ///
    /// # Errors
    /// If it may not.
    fn wants(
        &self,
        overseer: &mut Overseer,
        whose: Whose<'_>,
        times: (Now, Tick),
        output: &Output<Self::Event>,
    ) -> Result<(), Violation>;

    /// When it wants nothing more.
    ///
    /// # Errors
    /// If it is not as it must be.
    fn rests(&self, overseer: &mut Overseer, whose: Whose<'_>) -> Result<(), Violation>;
}

impl Overseer {
    /// Of a run of this schedule, in which so many messages may be on their way to one process.
    #[must_use]
    pub fn new(schedule: &Schedule, on_their_way: OnTheirWay) -> Self {
        let calls = usize::try_from(schedule.actors_max()).expect("a run has few actors");
        Self {
            setup: Setup {
                seed: schedule.seed,
                geometry: schedule.geometry,
                limits: schedule.limits,
                on_their_way,
                calls,
                lease: schedule.timing.serve_lease,
            },
            collector: ShadowCollector::new(
                schedule.timing.trash_grace,
                schedule.fewest_replicas(),
            ),
            grants: Grants::default(),
            meta: MetaSeen::default(),
            servers: BTreeMap::new(),
            instances: BTreeMap::new(),
            nonces: BTreeSet::new(),
            hurt: BTreeSet::new(),
            accepted: BTreeMap::new(),
            judged: Judged::default(),
        }
    }

    /// A server's process starts on its disk, as the one before it left it: killed, or without power.
    ///
    /// # Errors
    /// If the log on the meta server's disk is not what its last process had.
    pub fn starts(&mut self, server: u32, disk: &DiskModel) -> Result<(), Violation> {
        if server == 0 {
            self.meta.dies();
            return match &self.meta.restored {
                Some(restored) => log::goes_on(disk, restored),
                None if self.hurt.contains(&0) => Ok(()),
                None => self.meta.live.check(disk),
            };
        }
        self.grants.died(server);
        self.servers.insert(server, ServerSeen::starting(disk));
        Ok(())
    }

    /// A server's disk fails, or is changed behind its back, now or soon: rotten, swapped, or as it was some time
    /// ago. What follows from that is no breach of what is checked here.
    pub fn hurt(&mut self, server: u32) {
        self.hurt.insert(server);
        // What it had accepted may be gone with its identity.
        self.accepted.remove(&server);
    }

    /// A block of the meta server's disk is damaged now. It is one only: all that was durable a second ago has
    /// another batch or a mark behind it, so a start that does without it takes damage for a torn tail.
    pub fn log_damaged(&mut self, at: Tick) {
        self.meta.damaged(at);
    }

    /// The meta server's log ends with these records: a backup was restored.
    pub fn log_restored(&mut self, records: &[Logged]) {
        self.meta.restored = Some(records.into());
    }

    /// How far the meta server's log was durable before its last batch.
    #[must_use]
    pub fn log_settled(&self) -> LogSeq {
        self.meta.settled()
    }

    /// Whether the meta server has what a backup had, and a disk that does not fail.
    #[must_use]
    pub fn log_is_restored(&self) -> bool {
        self.meta.restored.is_some()
    }

    /// The meta server's disk fails, or does not have any more what a backup had.
    pub fn log_at_fault(&mut self) {
        self.meta.restored = None;
    }

    /// Nothing is asked any more of what the meta server's log had.
    pub fn log_lost(&mut self) {
        self.meta.lost();
    }

    /// How much was judged so far.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let counts = self.collector.counts;
        Judged {
            states: self.meta.history.checked,
            pieces: self.grants.pieces,
            logs: self.meta.live.compared,
            deletions: counts.ordered + counts.moved + counts.removed,
            ..self.judged
        }
    }
}

impl Overseen for Client {
    fn takes(
        _: &mut Overseer,
        _: Whose<'_>,
        _: Now,
        _: &Input<Self::Call>,
    ) -> Result<(), Violation> {
        Ok(())
    }

    fn wants(
        &self,
        overseer: &mut Overseer,
        _: Whose<'_>,
        _: (Now, Tick),
        output: &Output<Self::Event>,
    ) -> Result<(), Violation> {
        if let Output::Send { msg, .. } = output
            && let Head::OpenSession(open) = &msg.head
        {
            overseer.nonces.insert(open.nonce);
        }
        Ok(())
    }

    fn rests(&self, overseer: &mut Overseer, whose: Whose<'_>) -> Result<(), Violation> {
        overseer.judged.bounds += 1;
        let Setup {
            limits, geometry, ..
        } = overseer.setup;
        bounds::client(whose.name, &self.bounds(), &limits, geometry)
    }
}
