//! O14: every rare path of the machines is taken, sooner or later. A sweep that never takes one proves nothing about
//! it.
use crate::run::Simulator;
use kfs_core::probe::Probe;
use std::collections::BTreeMap;

/// A sweep of all scenarios of a simulator that has fewer runs may have missed a path by chance.
pub const RUNS_DUE: u64 = 20_000;

/// Paths that only drivers take: without them nobody gets there.
const OF_DRIVERS: [Probe; 2] = [Probe::FrameCutByPause, Probe::DialFailed];

/// The paths that can be taken in at least one of these simulators.
pub fn due(simulators: &[Simulator]) -> impl Iterator<Item = Probe> {
    let drives = simulators.contains(&Simulator::World);
    Probe::ALL
        .into_iter()
        .filter(move |probe| drives || !OF_DRIVERS.contains(probe))
}

/// Those of them that were never taken.
#[must_use]
pub fn never(simulators: &[Simulator], taken: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    due(simulators)
        .map(Probe::name)
        .filter(|name| taken.get(name).is_none_or(|count| *count == 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_was_never_taken_is_named_unless_nobody_can_get_there() {
        let mut taken: BTreeMap<_, _> = Probe::ALL.map(|probe| (probe.name(), 1)).into();
        assert!(never(&Simulator::ALL, &taken).is_empty());
        taken.insert(Probe::ReadSplit.name(), 0);
        taken.remove(Probe::DialFailed.name());
        let both = [Probe::ReadSplit.name(), Probe::DialFailed.name()];
        assert_eq!(never(&Simulator::ALL, &taken), both);
        assert_eq!(never(&[Simulator::Bare], &taken), both[..1]);
    }
}
