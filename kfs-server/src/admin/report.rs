//! What a server says of itself: its health in words, and how far a start has come.
use super::metrics::Family;
use crate::observed::Counts;
use crate::running::Phase;
use kfs_core::health::{Health, Reason};
use kfs_core::ids::LogSeq;
use kfs_core::meta::checkpoint::format::{self as checkpoint, checkpoint_seq};
use kfs_core::meta::oplog::{self, segment_first};
use serde_json::{Value, json};
use std::fs::DirEntry;
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

/// What most of a start consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartupWork {
    /// Looking at every file of this directory below the data directory.
    Look(&'static str),
    /// Reading the newest checkpoint, and the log behind it.
    Load,
}

/// How much a start has to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Startup {
    /// Of what, below the data directory.
    reads: &'static str,
    /// [`Unit::Bytes`] read, or [`Unit::Files`] looked at.
    unit: Unit,
    total: u64,
}

impl Startup {
    /// Looks at what is in the data directory, for the progress shown; a directory that cannot be listed
    /// has nothing to be read.
    pub(crate) fn of(work: StartupWork, data: &Path) -> Self {
        match work {
            StartupWork::Look(dir) => Self {
                reads: dir,
                unit: Unit::Files,
                total: entries(&data.join(dir)).count() as u64,
            },
            StartupWork::Load => Self::load(data),
        }
    }

    fn load(data: &Path) -> Self {
        let newest = numbered(&data.join(checkpoint::DIR), checkpoint_seq).pop();
        let mut segments = numbered(&data.join(oplog::DIR), segment_first);
        let behind = newest.map_or(LogSeq(0), |(seq, _)| seq).next();
        // The checkpoint ends within the last segment that begins before its end, or at the end of one.
        let first = segments.partition_point(|(first, _)| *first <= behind);
        let segments = segments.split_off(first.saturating_sub(1));
        let bytes = |files: &[(LogSeq, u64)]| files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Self {
            reads: match newest {
                Some(_) => "checkpoint/ and log",
                None => "log",
            },
            unit: Unit::Bytes,
            total: bytes(&segments) + newest.map_or(0, |(_, bytes)| bytes),
        }
    }

    pub(super) fn json(&self, counts: &Counts, phase: &Phase) -> Value {
        let done = match phase {
            Phase::Waiting { .. } | Phase::Ready { .. } => self.total,
            Phase::Starting => self.done(counts),
        };
        json!({ "reads": self.reads, "unit": self.unit.name(), "done": done, "total": self.total })
    }

    fn done(&self, counts: &Counts) -> u64 {
        let done = match self.unit {
            Unit::Bytes => counts.disk_bytes_read.get(),
            Unit::Files | Unit::Count => counts.disk_reads.get(),
        };
        done.min(self.total)
    }

    /// How far a start is, for people and for programs that wait.
    pub(crate) fn line(&self, counts: &Counts) -> String {
        let (done, total, unit) = (self.done(counts), self.total, self.unit.name());
        // What was read is not all applied: a hundred is said by the line that it is ready.
        let percent = (done * 100 / total.max(1)).min(99);
        format!(
            "starting progress={percent}% read={done} of={total} unit={unit} from=\"{}\"",
            self.reads
        )
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = DirEntry> {
    std::fs::read_dir(dir).into_iter().flatten().flatten()
}

/// Files whose names have a number, in its order, and how long they are.
fn numbered(dir: &Path, number: fn(&str) -> Option<LogSeq>) -> Vec<(LogSeq, u64)> {
    let of = |entry: DirEntry| {
        let seq = number(entry.file_name().to_str()?)?;
        Some((seq, entry.metadata().ok()?.len()))
    };
    let mut found: Vec<_> = entries(dir).filter_map(of).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::meta::checkpoint::format::checkpoint_name;
    use kfs_core::meta::oplog::segment_name;

    #[test]
    fn a_start_is_said_to_read_the_newest_checkpoint_and_only_the_log_behind_it() {
        let data = tempfile::tempdir().unwrap();
        let write = |dir: &str, name: &str, bytes: usize| {
            std::fs::create_dir_all(data.path().join(dir)).unwrap();
            std::fs::write(data.path().join(dir).join(name), vec![0; bytes]).unwrap();
        };
        let total = || Startup::of(StartupWork::Load, data.path()).total;
        assert_eq!(total(), 0, "nothing is there");
        for (first, bytes) in [(1, 1), (100, 10), (200, 100)] {
            write(oplog::DIR, &segment_name(LogSeq(first)), bytes);
        }
        assert_eq!(total(), 111);
        write(checkpoint::DIR, &checkpoint_name(LogSeq(150)), 1_000);
        assert_eq!(total(), 1_110);
        write(checkpoint::DIR, &checkpoint_name(LogSeq(199)), 2_000);
        assert_eq!(total(), 2_100);
        write(checkpoint::DIR, "other", 5);
        assert_eq!(total(), 2_100);
    }

    #[test]
    fn a_start_is_not_said_to_be_done_before_it_is() {
        let startup = Startup {
            reads: "log",
            unit: Unit::Bytes,
            total: 200,
        };
        let counts = Counts::default();
        let line = |percent, done| {
            format!("starting progress={percent}% read={done} of=200 unit=bytes from=\"log\"")
        };
        assert_eq!(startup.line(&counts), line(0, 0));
        counts.disk_bytes_read.add(50);
        assert_eq!(startup.line(&counts), line(25, 50));
        counts.disk_bytes_read.add(500);
        assert_eq!(startup.line(&counts), line(99, 200));
        let nothing = Startup {
            total: 0,
            ..startup
        };
        assert!(nothing.line(&counts).contains("progress=0% read=0 of=0"));
    }

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
