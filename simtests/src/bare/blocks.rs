//! The single-fault sweep: each block of each file on every disk of a story at rest is damaged, in each of four
//! ways, while its server runs and while it is down; one damage at a time. After each, everything that was acked
//! is read back, and the damaged replica is read alone ([`trial`]).
//!
//! A damage that nobody notices and that costs a byte is *silent*: there is none. How many blocks there are is
//! counted twice: by what was tried, and by the lengths of all files.
mod case;
mod trial;

pub use case::{Case, How, Kind};
pub use trial::{Outcome, Tried};

use super::net::NodeId;
use super::run;
use super::sim::Sim;
use crate::disk::Moment;
use crate::disk::faults::{Block, Damage, DiskFault, Injected};
use crate::observe::record::Record;
use crate::oracle::{Violation, log};
use crate::run::caught;
use crate::scenario::{Scenario, told};
use crate::schedule::Schedule;
use kfs_core::buggify;
use kfs_core::meta::record::Logged;
use kfs_core::planted::{self, Bug};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a block on the meta server's disk, if nothing else is asked for: a page of the log.
const META_BLOCK_BYTES: u64 = 4_096;
/// How long the cluster stands idle behind the clients' work: marks are written, reports arrive.
const QUIET: Duration = Duration::from_millis(500);
/// How long clients may take for their work.
const WORK_MAX: Duration = Duration::from_secs(1_200);
/// Moments of a story that a stale block may come from.
const MOMENTS: u64 = 32;
/// Failures that are kept.
const FAILURES_MAX: usize = 10;

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// On the disks of which story. Its planned faults are left out if a seed draws them.
    pub scenario: Scenario,
    /// When exactly things happen in it.
    pub seed: u64,
    /// Bytes of a block on every disk; `None`: a page of the log, a block of the story's chunks.
    pub block_bytes: Option<u64>,
    /// Only every so-manieth block.
    pub every: u64,
    /// Only this.
    pub only: Option<Case>,
    /// A mistake that is planted in the product.
    pub bug: Option<Bug>,
    /// Threads.
    pub jobs: u64,
    /// No block is begun after this.
    pub longest: Option<Duration>,
}

/// A damage that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub case: Case,
    /// On what.
    pub kind: Kind,
    /// What came of it.
    pub tried: Tried,
}

/// How often each outcome was seen, in the order of [`Outcome::ALL`].
pub type Tally = [u64; Outcome::ALL.len()];

/// What came of it.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// What was broken before anything was damaged.
    pub unsound: Option<Violation>,
    /// Outcomes, by what was damaged and how.
    pub table: BTreeMap<(Kind, &'static str), Tally>,
    /// The first of each kind and outcome, in words.
    pub examples: BTreeMap<(Kind, Outcome), (u64, String)>,
    /// Files on all disks.
    pub files: u64,
    /// Their blocks, by their lengths.
    pub blocks_there: u64,
    /// Those that were to be tried.
    pub blocks_due: u64,
    /// Those on which every damage was tried in both ways.
    pub blocks_swept: u64,
    /// Damages tried.
    pub cases: u64,
    /// Bytes that were read and were what their writer wrote.
    pub bytes_verified: u64,
    /// The first of them that broke a promise.
    pub failures: Vec<(u64, Failure)>,
    /// What came of the one that was asked for.
    pub only: Option<Tried>,
    /// The time was not up before all was tried.
    pub complete: bool,
    /// Real time.
    pub took: Duration,
}

impl Report {
    /// How many came to this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.table
            .values()
            .map(|tally| tally[outcome as usize])
            .sum()
    }
    /// Whether all was tried, and nothing broke.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let failures: u64 = Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.is_failure())
            .map(|outcome| self.count(outcome))
            .sum();
        self.unsound.is_none()
            && failures == 0
            && self.cases > 0
            && self.complete
            && self.blocks_swept == self.blocks_due
    }

    fn note(&mut self, nth: u64, kind: Kind, case: &Case, tried: Tried) {
        self.cases += 1;
        self.bytes_verified += tried.bytes_verified;
        let tally = self.table.entry((kind, case.damage.name())).or_default();
        tally[tried.outcome as usize] += 1;
        self.examples
            .entry((kind, tried.outcome))
            .or_insert_with(|| (nth, format!("{case}: {}", tried.told)));
        if tried.outcome.is_failure() && self.failures.len() < FAILURES_MAX {
            let case = case.clone();
            self.failures.push((nth, Failure { case, kind, tried }));
        }
    }

    fn add(&mut self, other: Self) {
        self.unsound = self.unsound.take().or(other.unsound);
        for (row, tally) in other.table {
            let sums = self.table.entry(row).or_default();
            for (sum, more) in sums.iter_mut().zip(tally) {
                *sum += more;
            }
        }
        for (what, example) in other.examples {
            let first = self.examples.entry(what).or_insert_with(|| example.clone());
            if example.0 < first.0 {
                *first = example;
            }
        }
        (self.files, self.blocks_there) = (other.files, other.blocks_there);
        self.blocks_due = other.blocks_due;
        self.blocks_swept += other.blocks_swept;
        self.cases += other.cases;
        self.bytes_verified += other.bytes_verified;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|(nth, _)| *nth);
        self.failures.truncate(FAILURES_MAX);
        self.only = self.only.take().or(other.only);
        self.complete &= other.complete;
    }
}

impl Blocks {
    /// Tries all of it.
    #[must_use]
    pub fn execute(&self) -> Report {
        let begun = Instant::now();
        let all = Mutex::new(Report {
            complete: true,
            ..Report::default()
        });
        let jobs = if self.only.is_some() {
            1
        } else {
            self.jobs.max(1)
        };
        std::thread::scope(|scope| {
            for job in 0..jobs {
                let all = &all;
                let share = move || {
                    let report = self.share((job, jobs), begun);
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(report);
                };
                let thread = std::thread::Builder::new().name(format!("blocks: {job}"));
                thread.spawn_scoped(scope, share).expect("a thread");
            }
        });
        let mut report = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.took = begun.elapsed();
        report
    }

    /// Every so-manieth of the blocks that are to be tried.
    fn share(&self, (job, jobs): (u64, u64), begun: Instant) -> Report {
        planted::plant(self.bug);
        let mut report = Report {
            complete: true,
            ..Report::default()
        };
        let story = match caught(|| Story::tell(self)).flatten() {
            Ok(story) => story,
            Err(violation) => {
                report.unsound = Some(violation);
                return report;
            }
        };
        if let Some(case) = &self.only {
            report.only = Some(trial::attempt(&story, case));
            return report;
        }
        let every = self.every.max(1);
        report.files = story.files();
        report.blocks_there = story.blocks_there(self);
        report.blocks_due = report.blocks_there.div_ceil(every);
        let blocks = story.blocks(self).into_iter().step_by(as_usize(every));
        for (nth, (server, block)) in (0..).zip(blocks) {
            if nth % jobs != job {
                continue;
            }
            if self.longest.is_some_and(|most| begun.elapsed() > most) {
                report.complete = false;
                break;
            }
            let kind = story.kind(server, &block);
            for damage in Damage::ALL {
                for how in How::ALL {
                    let case = Case {
                        server,
                        block: block.clone(),
                        damage,
                        how,
                    };
                    let tried = trial::attempt(&story, &case);
                    report.note(nth, kind, &case, tried);
                }
            }
            report.blocks_swept += 1;
        }
        report
    }
}

/// A story that has come to rest, all of it acked.
struct Story {
    sim: Sim,
    /// The whole log.
    records: Vec<Logged>,
}

impl Story {
    /// Tells it, and makes sure that all is well without any damage.
    fn tell(blocks: &Blocks) -> Result<Self, Violation> {
        let mut schedule = (blocks.scenario.draw)(blocks.seed);
        let is_told = told::basics::ALL
            .iter()
            .any(|one| one.name == blocks.scenario.name);
        if !is_told {
            schedule.faults.clear();
            schedule.loss_permille = 0;
            schedule.buggify_permille = 0;
        }
        buggify::arm(blocks.seed, 0);
        let schedule = Arc::new(schedule);
        let acked = at_rest(&schedule, None)?.record.counts.acked;
        let sim = at_rest(&schedule, Some(acked.div_ceil(MOMENTS).max(1)))?;
        let mut whole = sim.clone();
        run::audit(&mut whole)?;
        run::rest(&mut whole)?;
        if let Some(violation) = whole.record.violation {
            return Err(violation);
        }
        let records = log::records(sim.disk(0))?;
        Ok(Self { sim, records })
    }

    fn servers(&self) -> std::ops::Range<NodeId> {
        0..self.sim.servers()
    }

    /// All blocks of all disks.
    fn blocks(&self, asked: &Blocks) -> Vec<(NodeId, Block)> {
        let of = |server: NodeId| {
            let blocks = self
                .sim
                .disk(server)
                .blocks(self.block_bytes(asked, server));
            blocks.into_iter().map(move |block| (server, block))
        };
        self.servers().flat_map(of).collect()
    }

    /// How many there must be: of each file as many as its bytes fill, the last one in part.
    fn blocks_there(&self, asked: &Blocks) -> u64 {
        let of = |server: NodeId| {
            let disk = self.sim.disk(server);
            let bytes = disk.paths().filter_map(|path| disk.contents(path));
            bytes
                .map(|bytes| (bytes.len() as u64).div_ceil(self.block_bytes(asked, server)))
                .sum::<u64>()
        };
        self.servers().map(of).sum()
    }

    fn block_bytes(&self, asked: &Blocks, server: NodeId) -> u64 {
        let usual = match server {
            0 => META_BLOCK_BYTES,
            _ => u64::from(self.sim.schedule.geometry.block_bytes),
        };
        asked.block_bytes.unwrap_or(usual).max(1)
    }

    fn files(&self) -> u64 {
        let of = |server| self.sim.disk(server).paths().count() as u64;
        self.servers().map(of).sum()
    }

    /// The fault that does this to exactly one block. Stale bytes are the last ones that were others.
    fn fault(&self, case: &Case) -> DiskFault {
        let disk = self.sim.disk(case.server);
        let stale = |moment| DiskFault::Stale {
            block: case.block.clone(),
            moment: Moment(moment),
        };
        let differs = |fault: &DiskFault| match disk.clone().inject(fault) {
            Injected::Changed(bytes) => !bytes.is_empty(),
            _ => false,
        };
        let usual = case.damage.of(case.block.clone());
        match case.damage {
            Damage::Stale => {
                let mut others = (0..disk.moments()).rev().map(stale);
                others.find(differs).unwrap_or(usual)
            }
            Damage::Corrupt | Damage::Zero | Damage::Unreadable => usual,
        }
    }

    fn kind(&self, server: NodeId, block: &Block) -> Kind {
        Kind::of(server, self.sim.disk(server), block)
    }
}

/// The cluster when all work is done. Its disks remember how they were after each so-manieth ack.
fn at_rest(schedule: &Arc<Schedule>, remember_every: Option<u64>) -> Result<Sim, Violation> {
    let record = Record::new(schedule.seed, None);
    let mut sim = Sim::new(Arc::clone(schedule), record);
    run::ready(&mut sim)?;
    for client in 0..sim.schedule.clients.len() {
        sim.start_client(client);
    }
    sim.unleash();
    let mut acked = 0;
    while let Some(every) = remember_every {
        acked += every;
        let due = |sim: &Sim| sim.record.counts.acked >= acked || sim.clients_done();
        if !sim.run_until(WORK_MAX, due) || sim.clients_done() {
            break;
        }
        for server in 0..sim.servers() {
            sim.disk_mut(server).remember();
        }
    }
    run::work(&mut sim)?;
    sim.heal_all();
    run::ready(&mut sim)?;
    sim.run_until(QUIET, |_| false);
    match sim.record.violation.take() {
        None => Ok(sim),
        Some(violation) => Err(violation),
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, bug: Option<Bug>, every: u64) -> Blocks {
        Blocks {
            scenario: Scenario::named(name).expect("it is in the list"),
            seed: 1,
            block_bytes: None,
            every,
            only: None,
            bug,
            jobs: 2,
            longest: None,
        }
    }
    fn sweep(name: &str, bug: Option<Bug>, every: u64) -> Report {
        asked(name, bug, every).execute()
    }

    #[test]
    fn no_block_is_left_out_and_none_is_damaged_in_silence() {
        let report = sweep("format", None, 1);
        assert!(report.is_well(), "{report:?}");
        assert_eq!(report.blocks_swept, report.blocks_there);
        assert_eq!(report.cases, 8 * report.blocks_there);
        assert!(report.count(Outcome::Refused) > 0, "{report:?}");
    }

    #[test]
    fn a_damaged_replica_is_noticed_and_costs_no_byte() {
        let report = sweep("rename-over", None, 11);
        assert!(report.is_well(), "{report:?}");
        assert_eq!(report.blocks_swept, report.blocks_there.div_ceil(11));
        assert!(report.count(Outcome::Detected) > 0, "{report:?}");
        assert!(report.bytes_verified > 0, "{report:?}");
    }

    #[test]
    fn a_damage_that_passes_in_silence_is_seen() {
        let report = sweep("format", Some(Bug::MarkLeftOut), 1);
        assert!(report.unsound.is_none() && !report.is_well(), "{report:?}");
        assert!(report.count(Outcome::Silent) > 0, "{report:?}");
        let (_, first) = &report.failures[0];
        assert_eq!(first.kind, Kind::LastBatch, "{first:?}");
    }

    #[test]
    fn a_case_that_was_printed_comes_to_the_same_again() {
        let swept = sweep("format", Some(Bug::MarkLeftOut), 1);
        let (_, first) = &swept.failures[0];
        let only = first.case.to_string().parse().expect("it is a case");
        let again = Blocks {
            only: Some(only),
            ..asked("format", Some(Bug::MarkLeftOut), 1)
        };
        let tried = again.execute().only.expect("it was asked for");
        assert_eq!(tried.told, first.tried.told);
    }
}
