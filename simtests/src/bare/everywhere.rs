//! A crash at every point of a run: after every disk operation and every message, of one server or of all, with
//! everything that a power loss can leave by each policy, and then a second crash at every disk operation of the
//! recovery. After each, everything that was acked is read back.
//!
//! What was seen before is not tried again: two crashes that leave the same disks after the same acks, with
//! nobody alive who remembers more, are one.
use super::net::NodeId;
use super::run;
use super::sim::{Sim, Step};
use crate::disk::{DiskModel, Policy};
use crate::keyed::{Keyed, mix};
use crate::observe::record::Record;
use crate::oracle::Violation;
use crate::outcome::Totals;
use crate::run::caught;
use crate::scenario::Scenario;
use kfs_core::buggify;
use kfs_core::planted::{self, Bug};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the cluster stands idle behind the clients' work, crashed everywhere too: marks, trash and
/// heartbeats fall into it.
const IDLE: Duration = Duration::from_millis(1_200);

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Everywhere {
    /// In which story.
    pub scenario: Scenario,
    /// When exactly things happen in it.
    pub seed: u64,
    /// Different images of a disk that are tried per point and policy, at most.
    pub images_max: usize,
    /// Whether there is a second crash.
    pub depth: Depth,
    /// Only the crash at this point.
    pub only: Option<u64>,
    /// A mistake that is planted in the product.
    pub bug: Option<Bug>,
    /// Threads.
    pub jobs: u64,
    /// No point is begun after this.
    pub longest: Option<Duration>,
}

/// How many crashes follow on one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// One.
    Once,
    /// One, and another one at every disk operation of the recovery from it.
    Twice,
}

/// Who loses power.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Blast {
    /// One server; everybody else goes on.
    One(NodeId),
    /// The meta server and all clients: nobody is left to ask again.
    Desk,
    /// Everything.
    All,
    /// Nobody: the compactor beside the meta server is killed.
    Compactor,
}

impl Blast {
    /// Tells those apart that leave the same disks.
    const fn number(self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Desk => 2,
            Self::All => 3,
            Self::Compactor => 4,
        }
    }
}

impl fmt::Display for Blast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(node) => write!(f, "server {node}"),
            Self::Desk => f.write_str("the meta server and all clients"),
            Self::All => f.write_str("everything"),
            Self::Compactor => f.write_str("the compactor is killed and nobody"),
        }
    }
}

/// A crash that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// After which point.
    pub point: u64,
    /// Who lost power.
    pub blast: Blast,
    /// What was left of a disk.
    pub policy: Policy,
    /// At which disk operation of the recovery the power failed again, if it did.
    pub second: Option<u64>,
    /// What was broken.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            point,
            blast,
            policy,
            second,
            violation,
        } = self;
        write!(f, "point {point}: {blast} loses power ({policy:?})")?;
        if let Some(second) = second {
            write!(f, ", and again at operation {second} of the recovery")?;
        }
        write!(f, ": {violation}")
    }
}

/// What was tried.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Disk operations after which there was a crash.
    pub operations: u64,
    /// Messages after which there was a crash.
    pub messages: u64,
    /// Crashes of which the cluster recovered.
    pub crashes: u64,
    /// Second crashes among them.
    pub second_crashes: u64,
    /// Crashes that were like an earlier one.
    pub alike: u64,
    /// Hashes of the different disks that crashes left.
    pub images: BTreeSet<u64>,
    /// Bytes that were acked and were read back, or found on disks.
    pub bytes_verified: u64,
    /// Points of which a policy allowed more images than were tried.
    pub sampled: u64,
    /// What was broken: the first few.
    pub failures: Vec<Failure>,
    /// Whether every point was tried.
    pub complete: bool,
    /// Real time.
    pub took: Duration,
}

/// Failures that are kept.
const FAILURES_MAX: usize = 10;

impl Report {
    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.messages += other.messages;
        self.crashes += other.crashes;
        self.second_crashes += other.second_crashes;
        self.alike += other.alike;
        self.images.extend(other.images);
        self.bytes_verified += other.bytes_verified;
        self.sampled += other.sampled;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.point);
        self.failures.truncate(FAILURES_MAX);
        self.complete &= other.complete;
    }
}

impl Everywhere {
    /// Tries all of it.
    #[must_use]
    pub fn execute(&self) -> Report {
        let begun = Instant::now();
        let all = Mutex::new(Report {
            complete: true,
            ..Report::default()
        });
        std::thread::scope(|scope| {
            for job in 0..self.jobs.max(1) {
                let all = &all;
                let share = move || {
                    let report = self.share(job, begun);
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(report);
                };
                let thread = std::thread::Builder::new().name(format!("everywhere: {job}"));
                thread.spawn_scoped(scope, share).expect("a thread");
            }
        });
        let mut report = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.took = begun.elapsed();
        report
    }

    /// Every so-manieth point.
    fn share(&self, job: u64, begun: Instant) -> Report {
        planted::plant(self.bug);
        buggify::arm(self.seed, 0);
        let schedule = Arc::new((self.scenario.draw)(self.seed));
        let mut search = Search {
            everywhere: self,
            seen: BTreeSet::new(),
            report: Report {
                complete: true,
                ..Report::default()
            },
        };
        let record = Record::new(self.seed, None);
        let mut base = Sim::new(schedule, record);
        let mut phase = Phase::Starting;
        let mut point = 0;
        while let Some(step) = phase.step(&mut base) {
            if base.record.violation.is_some() {
                break;
            }
            let node = match step {
                Step::Disk(node) | Step::Message(node) => node,
                Step::Other => continue,
            };
            point += 1;
            let mine = match self.only {
                Some(only) => point == only && job == 0,
                None => point % self.jobs.max(1) == job,
            };
            if !mine {
                continue;
            }
            if self.longest.is_some_and(|most| begun.elapsed() > most)
                || search.report.failures.len() >= FAILURES_MAX
            {
                search.report.complete = false;
                break;
            }
            match step {
                Step::Disk(_) => search.report.operations += 1,
                _ => search.report.messages += 1,
            }
            search.at(&base, point, node);
        }
        if let Some(violation) = base.record.violation {
            search.report.failures.push(Failure {
                point,
                blast: Blast::All,
                policy: Policy::Prefix,
                second: None,
                violation,
            });
        }
        search.report
    }
}

/// How far the run without a crash is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Starting,
    Working,
    Idling(u64),
}

impl Phase {
    /// The next step of the run.
    fn step(&mut self, sim: &mut Sim) -> Option<Step> {
        match self {
            Self::Starting if sim.all_ready() => {
                for client in 0..sim.schedule.clients.len() {
                    sim.start_client(client);
                }
                sim.unleash();
                *self = Self::Working;
            }
            Self::Working if sim.clients_done() => {
                *self = Self::Idling(sim.now() + super::sim::as_ns(IDLE));
            }
            Self::Idling(until) if sim.now() > *until => return None,
            Self::Starting | Self::Working | Self::Idling(_) => {}
        }
        sim.step()
    }
}

struct Search<'a> {
    everywhere: &'a Everywhere,
    seen: BTreeSet<u64>,
    report: Report,
}

impl Search<'_> {
    /// Every crash after this point.
    fn at(&mut self, base: &Sim, point: u64, node: NodeId) {
        let servers = base.servers();
        let mut blasts = vec![Blast::All];
        if node < servers {
            blasts.push(Blast::One(node));
        }
        if node == 0 {
            blasts.push(Blast::Desk);
        }
        if node == 0 && base.compacts() {
            let mut fork = base.clone();
            fork.kill_compactor();
            self.recover(fork, point, Blast::Compactor, Policy::Prefix, 1);
        }
        let focus = if node < servers { node } else { 0 };
        for policy in Policy::ALL {
            let mut draws = Keyed::new(self.everywhere.seed, &format!("{policy:?} at {point}"));
            let most = self.everywhere.images_max;
            let found = base.disk(focus).crash_images(policy, most, &mut draws);
            self.report.sampled += u64::from(found.coverage != crate::disk::Coverage::Every);
            for (nth, image) in found.images.into_iter().enumerate() {
                for blast in &blasts {
                    let mut fork = base.clone();
                    let key = mix(point ^ mix(nth as u64));
                    crash(&mut fork, *blast, policy, key, Some((focus, &image.disk)));
                    self.recover(fork, point, *blast, policy, nth);
                }
            }
        }
    }

    /// Recovers from a first crash, with a second one on the way if that is asked for.
    fn recover(&mut self, mut fork: Sim, point: u64, blast: Blast, policy: Policy, nth: usize) {
        if !self.is_new(&fork, blast, point) {
            self.report.alike += 1;
            return;
        }
        let failure = |second, violation| Failure {
            point,
            blast,
            policy,
            second,
            violation,
        };
        // One image per policy is followed into its recovery; each of them is recovered from.
        if self.everywhere.depth == Depth::Twice && nth == 0 {
            let mut recovery = fork.clone();
            let mut operations = 0;
            while !recovery.all_ready() && recovery.record.violation.is_none() {
                let Ok(Some(step)) = caught(|| recovery.step()) else {
                    break;
                };
                let Step::Disk(_) = step else {
                    continue;
                };
                operations += 1;
                let mut again = recovery.clone();
                let key = mix(point ^ mix(operations) ^ 0xA6A1);
                crash(&mut again, blast, policy, key, None);
                if !self.is_new(&again, blast, point) {
                    self.report.alike += 1;
                    continue;
                }
                self.report.second_crashes += 1;
                if let Some(violation) = self.all_is_there(&mut again, blast) {
                    self.fails(failure(Some(operations), violation));
                    return;
                }
            }
        }
        if let Some(violation) = self.all_is_there(&mut fork, blast) {
            self.fails(failure(None, violation));
        }
    }

    fn fails(&mut self, failure: Failure) {
        if self.report.failures.len() < FAILURES_MAX {
            self.report.failures.push(failure);
        }
    }

    /// Whether nothing like it was tried before: the same disks after the same acks, and nobody alive who
    /// remembers more.
    fn is_new(&mut self, fork: &Sim, blast: Blast, point: u64) -> bool {
        let mut images = 0;
        let mut all = mix(fork.record.counts.acked) ^ mix(!(fork.record.operations.len() as u64));
        for server in 0..fork.servers() {
            let hash = fork.disk(server).live_hash();
            let image = mix(hash ^ server as u64);
            images = mix(images ^ image);
            all = mix(all ^ image);
        }
        self.report.images.insert(images);
        if blast != Blast::All {
            all = mix(all ^ point) ^ mix(fork.record.hash.value()) ^ blast.number();
        }
        self.seen.insert(all)
    }

    /// Starts what lost power, lets who lives go on, and reads everything back.
    fn all_is_there(&mut self, fork: &mut Sim, blast: Blast) -> Option<Violation> {
        self.report.crashes += 1;
        let before = fork.record.contents.verified + fork.record.verified_on_disk;
        let lived = caught(|| {
            if matches!(blast, Blast::One(_) | Blast::Compactor) {
                run::ready(fork)?;
                for client in 0..fork.schedule.clients.len() {
                    if !fork.clients[client].done && !fork.is_up(fork.servers() + client) {
                        fork.start_client(client);
                    }
                }
                run::work(fork)?;
            }
            fork.heal_all();
            run::ready(fork)?;
            run::audit(fork)?;
            run::judge(fork, &mut Totals::default());
            Ok(())
        });
        fork.record.check(lived.flatten());
        let verified = fork.record.contents.verified + fork.record.verified_on_disk;
        self.report.bytes_verified += verified - before;
        fork.record.violation.clone()
    }
}

/// The power of a part of the cluster fails and comes back. What is left of the disk in focus is given, or drawn
/// as that of the others.
pub(super) fn crash(
    sim: &mut Sim,
    blast: Blast,
    policy: Policy,
    key: u64,
    focus: Option<(NodeId, &DiskModel)>,
) {
    let servers: Vec<NodeId> = match blast {
        Blast::One(node) => vec![node],
        Blast::Desk => vec![0],
        Blast::All => (0..sim.servers()).collect(),
        Blast::Compactor => Vec::new(),
    };
    if matches!(blast, Blast::Desk | Blast::All) {
        for client in 0..sim.schedule.clients.len() {
            sim.kill_client(client);
        }
    }
    for server in &servers {
        sim.darken_at_once(*server);
        match focus {
            Some((focus, image)) if focus == *server => *sim.disk_mut(*server) = image.clone(),
            _ => {
                let mut draws = Keyed::new(key, &format!("disk {server}"));
                let _ = sim.disk_mut(*server).power_loss(policy, &mut draws);
            }
        }
    }
    for server in servers {
        sim.start(server);
    }
}
