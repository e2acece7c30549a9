//! Many runs: in seed order, on a few threads, ended by the first violation or by a clock.
use crate::observe::overseer;
use crate::oracle::{Violation, paths};
use crate::outcome::{Outcome, Totals};
use crate::run::{Kind, Run, Simulator};
use crate::scenario::{Scenario, drawn};
use kfs_core::planted::Bug;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Which runs.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Of these kinds, for each seed.
    pub kinds: Vec<Kind>,
    /// With these seeds.
    pub seeds: Range<u64>,
    /// A mistake that is planted in the product.
    pub bug: Option<Bug>,
    /// Threads.
    pub jobs: usize,
    /// No run is begun after this.
    pub longest: Option<Duration>,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its kind.
    pub kind: Kind,
    /// Its seed.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
}

impl Broken {
    /// The line that repeats it.
    #[must_use]
    pub fn paste(&self) -> String {
        format!("cargo sim run {} --seed {}", self.kind, self.seed)
    }
}

/// How fast a sweep was.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Real seconds.
    pub seconds: f64,
    /// Simulated ones, per real one.
    pub simulated_per_second: f64,
    /// Inputs and outputs of machines.
    pub events_per_second: f64,
    /// Changes, syncs, closes, questions and reads that succeeded.
    pub acked_per_second: f64,
    /// Runs.
    pub runs_per_minute: f64,
    /// The most memory that the process had.
    pub rss_peak_bytes: u64,
}

/// What came of a sweep.
#[derive(Clone, Default, Debug)]
pub struct Swept {
    /// The first run, in the order of seeds, that broke a promise.
    pub broken: Option<Broken>,
    /// What happened in all of them.
    pub totals: Totals,
    /// Real time.
    pub took: Duration,
}

impl Sweep {
    /// Runs them.
    #[must_use]
    pub fn execute(&self) -> Swept {
        let begun = Instant::now();
        let shared = Mutex::new((0, Swept::default()));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let (seed, kind) = {
                            let mut next = shared.lock().unwrap_or_else(PoisonError::into_inner);
                            let late = self.longest.is_some_and(|most| begun.elapsed() > most);
                            let Some(run) = self.nth(next.0).filter(|_| !late) else {
                                return;
                            };
                            if next.1.broken.is_some() {
                                return;
                            }
                            next.0 += 1;
                            run
                        };
                        let run = Run {
                            bug: self.bug,
                            ..Run::of(kind, seed)
                        };
                        let outcome = run.execute();
                        let mut swept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        swept.1.count(kind, seed, outcome);
                    }
                });
            }
        });
        let (_, mut swept) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        swept.took = begun.elapsed();
        swept
    }

    /// The n-th run: all scenarios of a seed, then the next seed.
    fn nth(&self, nth: u64) -> Option<(u64, Kind)> {
        let scenarios = self.kinds.len() as u64;
        let seed = self.seeds.start.checked_add(nth.checked_div(scenarios)?)?;
        let scenario = usize::try_from(nth % scenarios).ok()?;
        (seed < self.seeds.end).then(|| (seed, self.kinds[scenario]))
    }
}

impl Swept {
    fn count(&mut self, kind: Kind, seed: u64, outcome: Outcome) {
        self.totals.add(&outcome.totals);
        if let Some(violation) = outcome.violation {
            let earlier = self
                .broken
                .as_ref()
                .is_some_and(|broken| broken.seed <= seed);
            if !earlier {
                self.broken = Some(Broken {
                    kind,
                    seed,
                    violation,
                });
            }
        }
    }

    /// How fast it was.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // For people.
    pub fn speed(&self) -> Speed {
        let seconds = self.took.as_secs_f64().max(0.001);
        let totals = &self.totals;
        Speed {
            seconds,
            simulated_per_second: totals.simulated.as_secs_f64() / seconds,
            events_per_second: totals.events as f64 / seconds,
            acked_per_second: (totals.acked + totals.answered) as f64 / seconds,
            runs_per_minute: totals.runs as f64 * 60.0 / seconds,
            rss_peak_bytes: rss_peak_bytes(),
        }
    }

    /// What a sweep of so many runs must at least have done: an idle world passes nothing.
    #[must_use]
    pub fn shortfalls(&self, kinds: &[Kind]) -> Vec<String> {
        let totals = &self.totals;
        let runs = totals.runs;
        let faulty = kinds
            .iter()
            .filter(|kind| !kind.scenario.is_clean())
            .count() as u64;
        let drawn = kinds
            .iter()
            .filter(|kind| {
                let name = kind.scenario.name;
                drawn::ALL.iter().any(|one| one.name == name) && !kind.scenario.is_clean()
            })
            .count() as u64;
        // Runs in which all kinds of faults are drawn; and those in which something fails.
        let drawn = runs * drawn / (kinds.len() as u64).max(1);
        let faulty = runs * faulty / (kinds.len() as u64).max(1);
        let mut minima = vec![
            ("runs", totals.runs, 1),
            ("acked operations", totals.acked, runs.max(10 * drawn)),
            ("bytes verified", totals.bytes_verified, 2_000 * drawn),
            ("replies confirmed", totals.replies_certain, 10 * drawn),
            (
                "crashes that dropped pending operations",
                totals.crashes_that_dropped,
                faulty / 4,
            ),
            ("simulated seconds", totals.simulated.as_secs(), drawn),
        ];
        if drawn >= 80 && kinds.iter().any(|kind| kind.scenario.name == "files") {
            // An oracle that nobody feeds would pass everything.
            for oracle in overseer::ORACLES {
                minima.push((
                    oracle,
                    totals.judged.get(oracle).copied().unwrap_or(0),
                    runs,
                ));
            }
            for kind in FAULTS_DUE {
                minima.push((
                    kind,
                    totals.faults.get(kind).copied().unwrap_or(0),
                    drawn / 40,
                ));
            }
        }
        let few = minima
            .into_iter()
            .filter(|(_, found, least)| found < least)
            .map(|(what, found, least)| format!("{what}: {found}, at least {least} were due"));
        let long = runs >= paths::RUNS_DUE && kinds.len() >= Scenario::all().len();
        let never = paths::never(&simulators(kinds), &totals.probes);
        let never = never.into_iter().filter(|_| long);
        few.chain(never.map(|path| format!("O14: the rare path '{path}' was never taken")))
            .collect()
    }

    /// How many of the rare paths were taken, of how many that could be; and those that were not.
    #[must_use]
    pub fn rare_paths(&self, kinds: &[Kind]) -> (usize, usize, Vec<&'static str>) {
        let simulators = simulators(kinds);
        let (due, never) = (
            paths::due(&simulators).count(),
            paths::never(&simulators, &self.totals.probes),
        );
        (due - never.len(), due, never)
    }
}

fn simulators(kinds: &[Kind]) -> Vec<Simulator> {
    kinds.iter().map(|kind| kind.simulator).collect()
}

/// Kinds of faults of which every large sweep has some, in either simulator.
const FAULTS_DUE: [&str; 8] = [
    "kill",
    "power-one",
    "power-some",
    "isolate",
    "one-way",
    "pause",
    "slow-disk",
    "kill-client",
];

/// The most memory that this process had; 0 where the system does not say.
fn rss_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) << 10
}
