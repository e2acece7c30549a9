//! What was promised, checked from outside: each oracle names the promise whose breach it reports.
//!
//! | oracle | promise | checked by |
//! | --- | --- | --- |
//! | O1 | N1 one total order, in real time | [`order`] |
//! | O2 | D1, D3, D5: every byte names its writer; none is lost, none is old | [`contents`] |
//! | O3 | N3, D2, D4: what was acked durable is there after any crash | [`contents`], [`replicas`] |
//! | O13 | the same seed gives the same events | `sim twice` |
pub mod contents;
pub mod deleted;
pub mod equal;
pub mod log;
pub mod meta;
pub mod names;
pub mod order;
pub mod replicas;
pub mod wing_gong;

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
}

impl Violation {
    /// A breach of `promise`, seen by `oracle`.
    #[must_use]
    pub fn new(oracle: &'static str, promise: &'static str, what: impl Into<String>) -> Self {
        Self {
            oracle,
            promise,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.oracle, self.promise, self.what)
    }
}

/// A place in the real order of all that happened in a run: every observation has its own.
pub type Tick = u64;
