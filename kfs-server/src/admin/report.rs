//! What a server says of itself: its health in words, and how far a start has come.
use super::metrics::Family;
use crate::observed::Counts;
use crate::running::Phase;
use kfs_core::health::{Health, Reason};
use serde_json::{Value, json};
use std::path::Path;

/// What a server's status says, in words and in numbers.
pub(crate) trait Report {
    /// The name under which it stands in `/status.json`.
    const KEY: &'static str;
    /// All of it.
    fn json(&self) -> Value;
    /// What is wrong; nothing: all is well.
    fn health(&self) -> Vec<Reason>;
    /// Why changes are refused, if they are.
    fn read_only(&self) -> Option<&str>;
    /// For `/metrics`.
    fn families(&self) -> Vec<Family>;
    /// Counters that are drawn as rates.
    fn series(&self) -> Vec<Series>;
}

/// The worst level, and all reasons.
pub(super) fn health_json(reasons: &[Reason]) -> Value {
    json!({ "level": Health::of(reasons), "reasons": reasons })
}

/// A counter that is drawn as a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Series {
    pub(crate) label: &'static str,
    pub(crate) unit: Unit,
    pub(crate) value: u64,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Bytes,
    Files,
    Count,
}

impl Unit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::Count => "count",
        }
    }
}

/// What most of a start consists of: reading this directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartupWork {
    /// Below the data directory.
    pub(crate) dir: &'static str,
    /// [`Unit::Bytes`] read from it, or [`Unit::Files`] looked at.
    pub(crate) unit: Unit,
}

/// How much a start has to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Startup {
    work: StartupWork,
    total: u64,
}

impl Startup {
    /// Looks at what is in the data directory, for the progress shown; a directory that cannot be listed
    /// has nothing to be read.
    pub(crate) fn of(work: StartupWork, data: &Path) -> Self {
        let entries = std::fs::read_dir(data.join(work.dir))
            .into_iter()
            .flatten()
            .flatten();
        let total = match work.unit {
            Unit::Bytes => entries
                .filter_map(|entry| entry.metadata().ok())
                .map(|entry| entry.len())
                .sum(),
            Unit::Files | Unit::Count => entries.count() as u64,
        };
        Self { work, total }
    }

    pub(super) fn json(&self, counts: &Counts, phase: &Phase) -> Value {
        let done = match (phase, self.work.unit) {
            (Phase::Waiting { .. } | Phase::Ready { .. }, _) => self.total,
            (Phase::Starting, Unit::Bytes) => counts.disk_bytes_read.get().min(self.total),
            (Phase::Starting, Unit::Files | Unit::Count) => counts.disk_reads.get().min(self.total),
        };
        json!({ "reads": self.work.dir, "unit": self.work.unit.name(), "done": done, "total": self.total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_that_does_not_work_outweighs_many_to_look_at() {
        assert_eq!(health_json(&[])["level"], "HEALTH_OK");
        let mut reasons = vec![Reason::warn("A", "a"), Reason::warn("B", "b")];
        assert_eq!(health_json(&reasons)["level"], "HEALTH_WARN");
        reasons.insert(1, Reason::err("C", "c"));
        assert_eq!(health_json(&reasons)["level"], "HEALTH_ERR");
        assert_eq!(health_json(&reasons)["reasons"][1]["code"], "C");
    }
}
