//! Every short sequence of operations on two directories and two files, from a namespace without files and from
//! one that has both. The meta server and the client lose power at every disk operation of the last one, and the
//! meta server is killed behind it; what is read back then is judged as in any run.
//!
//! A namespace of a few names has few states, and mistakes in it show in short sequences of operations on names
//! that contend ("small scope hypothesis", Jackson 2006); so all of them are tried, not some.
use super::everywhere::{Blast, crash};
use super::run;
use super::sim::{Sim, Step};
use crate::disk::Policy;
use crate::keyed::{Keyed, mix};
use crate::observe::record::Record;
use crate::oracle::Violation;
use crate::outcome::Totals;
use crate::run::caught;
use crate::schedule::{Class, ClientPlan, Schedule, Speed};
use crate::workload::job::{End, Fill, Job, ReadHow};
use kfs_core::buggify;
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::planted::{self, Bug};
use kfs_core::wire::client_meta::{Parents, RenameMode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The two files.
const FILES: [&str; 2] = ["/d0/f", "/d1/f"];
/// The two directories, which every client makes first, and the places to which each can be moved.
const DIRS: [&str; 4] = ["/d0", "/d1", "/d0/d", "/d1/d"];
/// Failures that are kept.
const FAILURES_MAX: usize = 10;

/// What is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Exhaustive {
    /// Operations of a sequence, at most.
    pub depth: u32,
    /// Only every so-manieth sequence.
    pub every: u64,
    /// Only this one.
    pub only: Option<u64>,
    /// When exactly things happen.
    pub seed: u64,
    /// A mistake that is planted in the product.
    pub bug: Option<Bug>,
    /// Threads.
    pub jobs: u64,
}

/// A sequence after which a promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its number.
    pub sequence: u64,
    /// What was done.
    pub jobs: Vec<Job>,
    /// After which disk operation of the last one the power failed; `None`: it did not.
    pub crash: Option<u64>,
    /// What was broken.
    pub violation: Violation,
}

/// What was tried.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Sequences.
    pub sequences: u64,
    /// Those there are up to this depth.
    pub all: u64,
    /// Power losses in the last operation.
    pub crashes: u64,
    /// Replies that the reference namespace confirmed.
    pub replies: u64,
    /// Operations that it refuses, as they were.
    pub refused: u64,
    /// What was broken: the first few.
    pub failures: Vec<Failure>,
    /// Real time.
    pub took: Duration,
}

/// What can be done at each step.
#[must_use]
pub fn alphabet() -> Vec<Job> {
    let [one, other] = FILES;
    let [home, away, inner, beyond] = DIRS;
    let mut jobs = Vec::new();
    for dir in DIRS {
        jobs.push(Job::Mkdir {
            name: dir.into(),
            parents: Parents::MustExist,
        });
        jobs.push(Job::Rmdir(dir.into()));
    }
    for file in FILES {
        jobs.push(Job::Touch(file.into()));
        jobs.push(Job::Write {
            name: file.into(),
            fill: vec![Fill::Bytes { at: 0, len: 300 }],
            end: End::Close,
            failed: End::Abandon,
        });
        jobs.push(Job::Remove(file.into()));
        jobs.push(Job::Read {
            name: file.into(),
            how: ReadHow::Stream,
        });
    }
    jobs.push(Job::Remove(home.into()));
    jobs.push(Job::Rmdir(one.into()));
    jobs.push(Job::RemoveTree(home.into()));
    for mode in [RenameMode::Replace, RenameMode::NoReplace] {
        for (from, to) in [
            (one, other),
            (other, one),
            (home, away),
            (away, home),
            // Into itself; below the other, both ways; from below one to below the other.
            (home, inner),
            (home, beyond),
            (away, inner),
            (inner, beyond),
            // A file over a directory, a directory over a file.
            (one, beyond),
            (home, other),
        ] {
            jobs.push(Job::Rename {
                from: from.into(),
                to: to.into(),
                mode,
            });
        }
    }
    for dir in ["/", home, beyond] {
        jobs.push(Job::List(dir.into()));
    }
    for path in [one, inner] {
        jobs.push(Job::Stat(path.into()));
    }
    jobs
}

/// What stands there before: nothing but the directories, or both files.
fn preludes() -> [Vec<Job>; 2] {
    let write = |file: &str| Job::Write {
        name: file.into(),
        fill: vec![Fill::Bytes { at: 0, len: 500 }],
        end: End::Close,
        failed: End::Abandon,
    };
    [Vec::new(), FILES.map(write).into()]
}

/// How many sequences there are up to a depth.
#[must_use]
pub fn sequences(depth: u32) -> u64 {
    let letters = alphabet().len() as u64;
    let of_depth = (1..=depth).map(|depth| letters.pow(depth));
    preludes().len() as u64 * of_depth.sum::<u64>()
}

/// The sequence of this number, the shortest ones first: what stands there before, and what is done then.
#[must_use]
pub fn sequence(number: u64) -> (Vec<Job>, Vec<Job>) {
    let letters = alphabet();
    let preludes = preludes();
    let (starts, count) = (preludes.len() as u64, letters.len() as u64);
    let at = |nth: u64| usize::try_from(nth).expect("below a length");
    let prelude = preludes[at(number % starts)].clone();
    let mut rest = number / starts;
    let mut depth = 1;
    while rest >= count.pow(depth) {
        rest -= count.pow(depth);
        depth += 1;
    }
    let mut jobs = Vec::new();
    for _ in 0..depth {
        jobs.push(letters[at(rest % count)].clone());
        rest /= count;
    }
    (prelude, jobs)
}

impl Exhaustive {
    /// Tries them.
    #[must_use]
    pub fn execute(&self) -> Report {
        let begun = Instant::now();
        let all = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for job in 0..self.jobs.max(1) {
                let all = &all;
                let share = move || {
                    let report = self.share(job);
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(report);
                };
                let thread = std::thread::Builder::new().name(format!("exhaustive: {job}"));
                thread.spawn_scoped(scope, share).expect("a thread");
            }
        });
        let mut report = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.all = sequences(self.depth);
        report.took = begun.elapsed();
        report
    }

    /// Every so-manieth of them.
    fn share(&self, job: u64) -> Report {
        planted::plant(self.bug);
        buggify::arm(self.seed, 0);
        let mut report = Report::default();
        let schedule = Arc::new(schedule(self.seed, Vec::new()));
        let mut base = Sim::new(schedule, Record::new(self.seed, None));
        let ready = caught(|| run::ready(&mut base)).flatten();
        base.record.check(ready);
        if let Some(violation) = base.record.violation {
            report.fails(0, &[], None, violation);
            return report;
        }
        let numbers = match self.only {
            Some(only) => only..only + 1,
            None => 0..sequences(self.depth),
        };
        let step = if self.only.is_some() { 1 } else { self.every };
        let numbers = numbers.step_by(usize::try_from(step.max(1)).unwrap_or(usize::MAX));
        for (nth, number) in numbers.enumerate() {
            if nth as u64 % self.jobs.max(1) != job {
                continue;
            }
            if report.failures.len() >= FAILURES_MAX {
                break;
            }
            report.sequence(&base, self.seed, number);
        }
        report
    }
}

impl Report {
    fn add(&mut self, other: Self) {
        self.sequences += other.sequences;
        self.crashes += other.crashes;
        self.replies += other.replies;
        self.refused += other.refused;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.sequence);
        self.failures.truncate(FAILURES_MAX);
    }

    fn fails(&mut self, sequence: u64, jobs: &[Job], crash: Option<u64>, violation: Violation) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure {
                sequence,
                jobs: jobs.to_vec(),
                crash,
                violation,
            });
        }
    }

    /// Does one, with all its crashes, on a cluster that is ready.
    fn sequence(&mut self, base: &Sim, seed: u64, number: u64) {
        self.sequences += 1;
        let (mut jobs, then) = sequence(number);
        jobs.extend(then);
        let last = jobs.len();
        let mut sim = base.clone();
        sim.schedule = Arc::new(schedule(seed, jobs.clone()));
        let mut operations = 0;
        let worked = caught(|| {
            sim.start_client(0);
            while !sim.clients_done() && sim.record.violation.is_none() {
                let Some(step) = sim.step() else { break };
                if step != Step::Disk(0) || sim.clients[0].actors[0].begun() < last {
                    continue;
                }
                operations += 1;
                let violation = self.crashed(&sim, number, operations);
                if let Some(violation) = violation {
                    self.fails(number, &jobs, Some(operations), violation);
                    return Ok(());
                }
            }
            run::work(&mut sim)?;
            sim.kill(0);
            sim.start(0);
            run::ready(&mut sim)?;
            run::audit(&mut sim)?;
            run::rest(&mut sim)
        });
        sim.record.check(worked.flatten());
        self.judge(&mut sim);
        self.refused += sim.record.counts.refused;
        if let Some(violation) = sim.record.violation {
            self.fails(number, &jobs, None, violation);
        }
    }

    /// What is broken if meta server and client lose power now, and the meta server comes back.
    fn crashed(&mut self, sim: &Sim, number: u64, operation: u64) -> Option<Violation> {
        self.crashes += 1;
        let mut fork = sim.clone();
        let lived = caught(|| {
            let key = mix(number ^ mix(operation));
            let policy = Keyed::new(key, "policy").pick(&Policy::ALL);
            crash(&mut fork, Blast::Desk, policy, key, None);
            run::ready(&mut fork)?;
            run::audit(&mut fork)?;
            run::rest(&mut fork)
        });
        fork.record.check(lived.flatten());
        self.judge(&mut fork);
        fork.record.violation
    }

    fn judge(&mut self, sim: &mut Sim) {
        let mut totals = Totals::default();
        let judged = caught(|| run::judge(sim, &mut totals));
        sim.record.check(judged);
        self.replies += totals.replies_certain;
    }
}

/// One chunkserver, one client, and a log in which each record is a batch: so that a crash can come between any
/// two.
fn schedule(seed: u64, jobs: Vec<Job>) -> Schedule {
    let block = 256;
    Schedule {
        seed,
        class: Class::Live,
        servers: 2,
        replication: 1,
        geometry: Geometry {
            block_bytes: 256,
            chunk_blocks: 4,
            piece_bytes: 512,
        },
        limits: Limits {
            piece_buffer_bytes: 16 * block,
            link_unsent_bytes: 16 * block,
            link_requests: 64,
            chunk_tables: 4,
            log_batch_bytes: 1,
            log_first_segment_bytes: 1 << 20,
            log_segment_bytes: 1 << 20,
            write_window_bytes: 16 * block,
            sync_every_bytes: 8 * block,
            read_ahead_bytes: 8 * block,
        },
        timing: Timing {
            heartbeat: Duration::from_millis(500),
            serve_lease: Duration::from_secs(3),
            trash_grace: Duration::from_secs(60),
            session_idle: Duration::from_secs(12),
        },
        latency_us: (50, 400),
        loss_permille: 0,
        speed: Speed {
            read_us: 500,
            write_us: 300,
            sync_us: 2_000,
        },
        buggify_permille: 0,
        checkpoint_ms: 0,
        log_mirror: false,
        scrub_rate: 0,
        rests: false,
        clients: vec![ClientPlan { actors: vec![jobs] }],
        faults: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn tried(depth: u32, every: u64, bug: Option<Bug>) -> Report {
        let some = Exhaustive {
            depth,
            every,
            only: None,
            seed: 1,
            bug,
            jobs: 2,
        };
        some.execute()
    }

    #[test]
    fn no_sequence_is_left_out_and_none_is_counted_twice() {
        let letters = alphabet().len() as u64;
        assert_eq!(sequences(2), 2 * (letters + letters * letters));
        let texts: BTreeSet<String> = (0..sequences(2))
            .map(|number| format!("{:?}", sequence(number)))
            .collect();
        assert_eq!(texts.len() as u64, sequences(2));
        assert!((0..2 * letters).all(|number| sequence(number).1.len() == 1));
        assert_eq!(sequence(sequences(2)).1.len(), 3);
    }

    #[test]
    fn short_sequences_of_operations_are_answered_as_the_reference_namespace_says() {
        let report = tried(2, 11, None);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let sequences = report.sequences;
        assert_eq!(sequences, report.all.div_ceil(11));
        assert!(
            report.crashes > sequences
                && report.refused > sequences
                && report.replies > 10 * sequences,
            "{report:?}"
        );
    }

    #[test]
    fn mistakes_in_what_a_name_stands_for_show_in_sequences_of_one() {
        for bug in [
            Bug::DirectoryIntoItself,
            Bug::RenameInTwoRecords,
            Bug::ReplyBeforeSync,
            Bug::ReplaySkipsRecord,
            Bug::FirstSegmentUnnamed,
            Bug::LastChunkDropped,
        ] {
            let report = tried(1, 1, Some(bug));
            assert!(!report.failures.is_empty(), "{bug:?} was not seen");
        }
        assert!(tried(1, 1, None).failures.is_empty());
    }
}
