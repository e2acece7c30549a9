//! A run of either simulator, from its schedule to its outcome, on a fresh thread.
use crate::bare;
use crate::observe::record::Record;
use crate::oracle::Violation;
use crate::outcome::{Outcome, Totals};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::world;
use crate::world::shared::Shared;
use kfs_core::planted::{self, Bug};
use kfs_core::{buggify, probe};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Simulator {
    /// Core machines only: see [`crate::bare`].
    Bare,
    /// The real drivers: see [`crate::world`].
    World,
}

impl Simulator {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bare, Self::World];
    /// Before the colon of a kind's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::World => "world",
        }
    }
}

/// A scenario in a simulator.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Where.
    pub simulator: Simulator,
    /// What.
    pub scenario: Scenario,
}

impl Kind {
    /// All there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let of = |simulator| {
            Scenario::all().into_iter().map(move |scenario| Self {
                simulator,
                scenario,
            })
        };
        Simulator::ALL.into_iter().flat_map(of).collect()
    }
    /// The kind of this name, such as `bare:files`; without a colon, of the world.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (simulator, scenario) = match name.split_once(':') {
            Some((simulator, scenario)) => {
                let known = Simulator::ALL.into_iter();
                (
                    known.into_iter().find(|known| known.name() == simulator)?,
                    scenario,
                )
            }
            None => (Simulator::World, name),
        };
        Some(Self {
            simulator,
            scenario: Scenario::named(scenario)?,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.simulator.name(), self.scenario.name))
    }
}

/// What is to be run.
#[derive(Debug)]
pub struct Run {
    /// Where.
    pub simulator: Simulator,
    /// What.
    pub schedule: Arc<Schedule>,
    /// A mistake that is planted in the product for this run.
    pub bug: Option<Bug>,
    /// Where every event is written as a line of text.
    pub trace: Option<File>,
    /// Whether it is told what happened.
    pub watching: Watching,
}

/// How closely a run is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watching {
    /// By the oracles only.
    Usual,
    /// Everything is kept that a picture shows.
    Closely,
}

impl Run {
    /// The run of this seed.
    #[must_use]
    pub fn of(kind: Kind, seed: u64) -> Self {
        Self {
            simulator: kind.simulator,
            schedule: Arc::new((kind.scenario.draw)(seed)),
            bug: None,
            trace: None,
            watching: Watching::Usual,
        }
    }

    /// Runs it, on a fresh thread: what a thread keeps would make the next run differ.
    ///
    /// # Panics
    /// If the thread cannot be made.
    #[must_use]
    pub fn execute(self) -> Outcome {
        let thread = std::thread::Builder::new()
            .name(format!("{}: {}", self.simulator.name(), self.schedule.seed))
            .spawn(move || self.here());
        let thread = thread.expect("a thread for the run");
        thread.join().expect("the run catches its panics")
    }

    fn here(self) -> Outcome {
        planted::plant(self.bug);
        let _ = probe::take();
        buggify::arm(self.schedule.seed, self.schedule.buggify_permille);
        let mut outcome = self.simulate();
        let taken = probe::take();
        let taken = taken.iter().map(|(probe, count)| (probe.name(), count));
        outcome.totals.probes = taken.collect();
        outcome
    }

    fn simulate(self) -> Outcome {
        let mut record = Record::new(self.schedule.seed, self.trace);
        record.telling = (self.watching == Watching::Closely).then(Box::default);
        let schedule = self.schedule;
        match self.simulator {
            Simulator::Bare => bare::run::run(schedule, record),
            Simulator::World => {
                let record = Shared::new(record);
                let seen = record.clone();
                let totals = caught(move || world::run::simulate(schedule, record));
                let mut record = seen.lock();
                let totals = totals.unwrap_or_else(|violation| {
                    record.check::<()>(Err(violation));
                    Totals::of_one()
                });
                record.finish(totals)
            }
        }
    }
}

/// Does something; a panic is a violation.
///
/// # Errors
/// If it panics.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Violation> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
        .map_err(|panic| Violation::new("panic", "L", panic_text(&*panic)))
}

thread_local! {
    /// Where this thread last panicked, and why.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics of runs part of their outcome rather than text between others. Called once, by the command.
pub fn keep_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let of_a_run = std::thread::current()
            .name()
            .is_some_and(|name| name.contains(':'));
        if of_a_run {
            PANICKED.with_borrow_mut(|kept| *kept = Some(info.to_string().replace('\n', " ")));
        } else {
            usual(info);
        }
    }));
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = PANICKED.with_borrow_mut(Option::take) {
        return text;
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
        .to_owned()
}
