//! Mistakes planted in the product, to measure the simulator's eyes: each must be seen.
use crate::world::scenario::ALL;
use crate::world::sweep::{Broken, Sweep};
use kfs_core::planted::Bug;
use std::fmt;

/// Its name on the command line.
#[must_use]
pub const fn name(bug: Bug) -> &'static str {
    bug.name()
}

/// What is wrong with it.
#[must_use]
pub const fn about(bug: Bug) -> &'static str {
    bug.about()
}

/// What came of a hunt for one mistake.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Which.
    pub bug: Bug,
    /// Runs made.
    pub runs: u64,
    /// The run that saw it.
    pub broken: Option<Broken>,
}

impl Hunt {
    /// Whether it was seen.
    #[must_use]
    pub fn kills(&self) -> bool {
        self.broken.is_some()
    }
    /// Runs that it took.
    #[must_use]
    pub fn runs_needed(&self) -> Option<u64> {
        self.broken.is_some().then_some(self.runs)
    }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.broken {
            Some(broken) => write!(
                f,
                "killed   {:<28} in {} runs by {} (world:{} --seed {}): {}",
                name(self.bug),
                self.runs,
                broken.violation.oracle,
                broken.scenario,
                broken.seed,
                broken.violation.what
            ),
            None => write!(f, "SURVIVED {:<28} {} runs", name(self.bug), self.runs),
        }
    }
}

/// Plants a mistake and runs scenarios until it is seen, or for so many seeds.
#[must_use]
pub fn hunt(bug: Bug, most: u64, jobs: usize) -> Hunt {
    // The scenario in which nothing fails sees few of them.
    let scenarios: Vec<_> = ALL
        .into_iter()
        .filter(|scenario| !scenario.is_clean())
        .collect();
    let sweep = Sweep {
        scenarios,
        seeds: 1..most + 1,
        bug: Some(bug),
        jobs,
        longest: None,
    };
    let swept = sweep.execute();
    Hunt {
        bug,
        runs: swept.totals.runs,
        broken: swept.broken,
    }
}
