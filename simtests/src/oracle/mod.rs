//! What was promised, checked from outside: each oracle names the promise whose breach it reports.
//!
//! All are plain functions and values over operations, disks, states and messages: no runtime, no clock.
//!
//! | oracle | promise | checked by | fed with |
//! | --- | --- | --- | --- |
//! | O1 | N1 one total order, in real time | [`order`]; [`wing_gong`] as cross-check | operations, when a run ends |
//! | O2 | D1, D3, D5: every byte names its writer; none is lost, none is old | [`contents`] | writes, reads, sizes |
//! | O1 | N1: what a tree takes is of one state | [`usage`] | messages and states of the running meta server |
//! | O3 | N3, D2, D4: what was acked durable is there after any crash | [`contents`], [`replicas`] | reads and disks, at rest |
//! | O4 | D2: replicas are equal at rest | [`equal`] | disks and the state, at rest |
//! | O5 | N1, N2, D1: the state holds, ids and versions are used once; one write grant at most | [`meta`] | states and messages of the running machines; the log, at rest |
//! | O5 | N1: temporary files go with their session | [`temporary`] | the log, at rest |
//! | O6 | N1: the tree is a map, and the reference namespace | [`names`], and tests beside the tree | the state, when a run ends |
//! | O7 | N3: the log is the state | [`log`] | the meta server's disk at each of its starts and at rest, and what its machine had |
//! | O8 | N3, D2: nothing acked is ever deleted | [`deleted`] | orders and disk operations of the running machines |
//! | O9 | L: whoever works is done, and everybody is ready, some time after the last fault | the ends of runs | |
//! | O10 | F: queues, tables and memory have bounds | [`bounds`] | the machines, after every input |
//! | O11 | F: counters are what was done; no damage is reported where none was made, and none is taken | [`counters`], `observe::overseer` | the running machines and their messages; of `world`, links that met no frame |
//! | O12 | F: the status is the truth | [`status`] | the status (of `bare`), the state and disks, at rest |
//! | O12 | F: who is said to be up is heard, and hears | [`silence`] | heartbeats, and the status of the running machine |
//! | O13 | the same seed gives the same events | `sim twice` | |
//! | O14 | every rare path was taken | `paths` | a long sweep, at its end |
pub mod bounds;
pub mod contents;
pub mod counters;
pub mod deleted;
pub mod equal;
pub mod log;
pub mod meta;
pub mod names;
pub mod order;
#[cfg(madsim)]
pub mod paths;
pub mod replicas;
pub mod rest;
pub mod silence;
pub mod status;
pub mod temporary;
pub mod usage;
pub mod wing_gong;

use std::collections::BTreeSet;
use std::fmt;

/// A promise was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Who saw it: `O1` …, or `panic`, `halt`, `end` for what no machine may do.
    pub oracle: &'static str,
    /// Which promise: `N3`, `D2`, …
    pub promise: &'static str,
    /// What was expected and what was found.
    pub what: String,
    /// Who else saw a promise broken in the same run, once it had come to rest.
    pub also: BTreeSet<&'static str>,
}

impl Violation {
    /// A breach of `promise`, seen by `oracle`.
    #[must_use]
    pub fn new(oracle: &'static str, promise: &'static str, what: impl Into<String>) -> Self {
        Self {
            oracle,
            promise,
            what: what.into(),
            also: BTreeSet::new(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.oracle, self.promise, self.what)
    }
}

/// What several oracles say of one run: the first breach, and who else saw one.
#[derive(Default, Debug)]
pub struct Verdicts(Option<Violation>);

impl Verdicts {
    /// Hears one. Gives what was judged, if nothing was broken.
    pub fn hear<T>(&mut self, verdict: Result<T, Violation>) -> Option<T> {
        let violation = match verdict {
            Ok(judged) => return Some(judged),
            Err(violation) => violation,
        };
        match &mut self.0 {
            None => self.0 = Some(violation),
            Some(first) => {
                first.also.insert(violation.oracle);
                first.also.extend(violation.also);
                first.also.remove(first.oracle);
            }
        }
        None
    }

    /// All of them.
    ///
    /// # Errors
    /// The first breach.
    pub fn end(self) -> Result<(), Violation> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Those that judge runs, by the names that a [`Violation`] gives them.
pub const NAMES: [&str; 12] = [
    "O1", "O2", "O3", "O4", "O5", "O6", "O7", "O8", "O9", "O10", "O11", "O12",
];

/// A place in the real order of all that happened in a run: every observation has its own.
pub type Tick = u64;
