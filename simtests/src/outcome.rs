//! What came of a run, or of many.
use crate::disk::Crash;
use crate::observe::record::Counts;
use crate::observe::telling::Telling;
use crate::oracle::Violation;
use std::collections::BTreeMap;
use std::time::Duration;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// Over every input and output of every machine (O13).
    pub hash: u64,
    /// What happened.
    pub totals: Totals,
    /// What is told of it, if it was looked at closely.
    pub told: Option<Box<Telling>>,
    /// When a promise was broken, or when it ended, in nanoseconds of the simulation.
    pub ended_ns: u64,
}

/// What happened in a run, or in many.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Changes, syncs and closes that were acked.
    pub acked: u64,
    /// Questions and reads that were answered.
    pub answered: u64,
    /// Calls that the namespace refused.
    pub refused: u64,
    /// Calls that failed for another reason.
    pub failed: u64,
    /// Bytes that clients read and that were what their writer wrote.
    pub bytes_verified: u64,
    /// Bytes on disks that were what their writer wrote.
    pub bytes_verified_on_disk: u64,
    /// Replies that the reference namespace confirmed.
    pub replies_certain: u64,
    /// Replies of which it could say nothing.
    pub replies_uncertain: u64,
    /// Histories of operations for which no order was found and none was ruled out.
    pub undecided: u64,
    /// Pairs of replicas at rest that had to be equal, and were.
    pub replicas_equal: u64,
    /// How often an oracle judged something while runs went on, by its name.
    pub judged: BTreeMap<&'static str, u64>,
    /// Power losses of one server.
    pub power_losses: u64,
    /// Those that dropped or tore pending operations.
    pub crashes_that_dropped: u64,
    /// Pending operations dropped.
    pub dropped: u64,
    /// Pending writes torn.
    pub torn: u64,
    /// Events of machines.
    pub events: u64,
    /// Operations of disks.
    pub disk_operations: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare paths of the machines that were taken, by name (O14).
    pub probes: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Of one run of which nothing more is known.
    #[must_use]
    pub fn of_one() -> Self {
        Self {
            runs: 1,
            ..Self::default()
        }
    }
    /// Adds another run or runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.acked += other.acked;
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.bytes_verified += other.bytes_verified;
        self.bytes_verified_on_disk += other.bytes_verified_on_disk;
        self.replies_certain += other.replies_certain;
        self.replies_uncertain += other.replies_uncertain;
        self.undecided += other.undecided;
        self.replicas_equal += other.replicas_equal;
        self.power_losses += other.power_losses;
        self.crashes_that_dropped += other.crashes_that_dropped;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.events += other.events;
        self.disk_operations += other.disk_operations;
        self.simulated += other.simulated;
        for (oracle, count) in &other.judged {
            *self.judged.entry(oracle).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (probe, count) in &other.probes {
            *self.probes.entry(probe).or_default() += count;
        }
    }

    /// Takes over what one run counted.
    pub fn count(&mut self, counts: Counts, crashes: Crashes) {
        self.runs = 1;
        self.acked = counts.acked;
        self.answered = counts.answered;
        self.refused = counts.refused;
        self.failed = counts.failed;
        self.undecided = counts.undecided;
        self.replicas_equal = counts.replicas_equal;
        self.events = counts.events;
        self.power_losses = crashes.power_losses;
        self.crashes_that_dropped = crashes.that_dropped;
        self.dropped = crashes.dropped;
        self.torn = crashes.torn;
    }
}

/// What power losses did, over a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Crashes {
    /// Power losses of one server each.
    pub power_losses: u64,
    /// Those that dropped or tore at least one pending operation.
    pub that_dropped: u64,
    /// Pending operations that were dropped.
    pub dropped: u64,
    /// Pending writes that were torn.
    pub torn: u64,
}

impl Crashes {
    /// One more.
    pub fn add(&mut self, crash: Crash) {
        self.power_losses += 1;
        self.that_dropped += u64::from(crash.dropped + crash.torn > 0);
        self.dropped += crash.dropped;
        self.torn += crash.torn;
    }
}
