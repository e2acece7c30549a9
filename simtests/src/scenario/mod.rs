//! Scenarios: kinds of runs, the same for both simulators. In some the seed draws almost everything ([`drawn`]);
//! others tell a story that breaks a promise in a design that looks right ([`told`]), and the seed draws only
//! when exactly things happen.
pub mod drawn;
pub mod told;

use crate::schedule::{Class, Schedule};

/// A kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// As it is named on the command line, after `world:` or `bare:`.
    pub name: &'static str,
    /// For `sim list`.
    pub about: &'static str,
    /// The run of a seed.
    pub draw: fn(u64) -> Schedule,
}

impl Scenario {
    /// All there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        drawn::ALL.into_iter().chain(told::all()).collect()
    }
    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|scenario| scenario.name == name)
    }
    /// Whether the seed draws almost everything.
    #[must_use]
    pub fn is_drawn(&self) -> bool {
        drawn::ALL.iter().any(|drawn| drawn.name == self.name)
    }
    /// Whether nothing goes wrong in it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        (self.draw)(0).class == Class::Clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_scenario_names_a_server_or_a_client_that_is_not_there() {
        let mut names = BTreeSet::new();
        for scenario in Scenario::all() {
            assert!(names.insert(scenario.name), "{} is twice", scenario.name);
            for seed in 1..200 {
                let drawn = (scenario.draw)(seed).check();
                assert_eq!(drawn, Ok(()), "{} {seed}", scenario.name);
            }
        }
    }
}
