//! Mistakes planted in the product, to measure the simulator's eyes: each must be seen.
use crate::oracle;
use crate::run::Kind;
use crate::sweep::{Broken, Sweep};
use kfs_core::planted::Bug;
use std::collections::BTreeMap;
use std::fmt;

/// What has to happen before anybody can see it, if runs of `world` make it happen seldom or never: the
/// sequence of events that a scenario is to have. `None`: sixty seeds of each scenario see it.
#[must_use]
pub const fn needs(bug: Bug) -> Option<&'static str> {
    let needs = match bug {
        Bug::QueryUngated => {
            "one client changes a name, another asks for it while the record is being synced and is answered, \
             power of the meta server fails and the record is lost"
        }
        Bug::RefusalUngated => {
            "one client makes a name, another is refused it while the record is being synced, power of the \
             meta server fails and the record is lost"
        }
        Bug::SegmentHeaderUnsynced => {
            "power of the meta server fails between the name of a new segment and its first batch"
        }
        Bug::MarkLeftOut => {
            "a bit of the last acked batch of the log rots while the meta server is down"
        }
        Bug::DamagePassesForTorn => {
            "a bit of a batch in the last segment rots, with acked batches behind it"
        }
        Bug::ResultForgottenEarly => {
            "a client has two changes unanswered; the first is answered, a third names the second as the \
             lowest, and the link is lost before the answer to the second arrives"
        }
        Bug::UnknownAskedAgain => {
            "a change is done, its answer is lost, and the client is cut off for longer than its session lives"
        }
        Bug::RenameInTwoRecords => {
            "a rename replaces a file, its two records are in two batches, power of the meta server fails \
             between them, and the client that asked dies too"
        }
        Bug::DirectoryIntoItself => "a client moves a directory to a name below itself",
        Bug::TemporaryStays => {
            "a client dies with a temporary file open, its session ends, and the directory is listed"
        }
        Bug::EpochLivedTwice => {
            "the data of the meta server is set back to an earlier copy while chunkservers keep theirs"
        }
        Bug::UnknownDeleted => {
            "the data of the meta server is set back; replicas of files made since are in chunks/ as before"
        }
        Bug::ClonedDiskAccepted => {
            "the data of a chunkserver is copied to a second one, and both run"
        }
        Bug::ShortReplicaServed => {
            "a chunk is synced twice, the newer header slot of a replica rots, its server restarts, and the \
             file is read from it"
        }
        Bug::HeaderBeforeData => {
            "blocks are larger than 4 KiB; a chunk is synced in the middle of a block, written on in that \
             block, and power fails in the second sync with the header kept and the data lost"
        }
        Bug::HeaderOverActiveSlot => {
            "power fails while a header is written, and the slot is left torn"
        }
        Bug::PartialReadUnverified => {
            "a bit of a replica's data rots, and a part of its block is read"
        }
        Bug::DirtyBlockRead => {
            "a chunk is read while a piece is written to the same block, on a disk where a read overtakes a write"
        }
        Bug::StaleTableRead => {
            "a chunk is synced and parked, read, written on, synced and parked again, and read"
        }
        Bug::FullRoomUnpaused => {
            "clients write more at once through one chunkserver than its room for pieces holds"
        }
        Bug::PieceUnverified => "a bit of a piece flips on its way to the head, or along the chain",
        Bug::CloseAckedUnreported => {
            "a client is cut off from the meta server between the sync of a close and its size report, for \
             longer than its session lives or the call may take"
        }
        Bug::ReadSumsIgnored => "a bit of what a chunkserver sends to a reader flips on its way",
        Bug::GrownPlacesKept => {
            "a file is open for reading and has grown since; all replicas of one chunk refuse a read once, so \
             that its places are asked for again; then the end of the file is read"
        }
        Bug::HalfFrameDropped => {
            "a link is paused for room when half of a frame has been read from it"
        }
        _ => return None,
    };
    Some(needs)
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
                "killed   {:<28} in {} runs by {} ({} --seed {}): {}",
                self.bug.name(),
                self.runs,
                broken.violation.oracle,
                broken.kind,
                broken.seed,
                broken.violation.what
            ),
            None => {
                write!(f, "SURVIVED {:<28} {} runs", self.bug.name(), self.runs)?;
                needs(self.bug).map_or(Ok(()), |needs| write!(f, "; needs: {needs}"))
            }
        }
    }
}

/// How many mistakes each oracle was the first to see, and which oracles were the first for none: all that those
/// see, another sees as soon. `panic` and `halt` are no oracles, but kill too.
#[must_use]
pub fn killers(hunts: &[Hunt]) -> (BTreeMap<&'static str, u64>, Vec<&'static str>) {
    let mut killers = BTreeMap::new();
    for broken in hunts.iter().filter_map(|hunt| hunt.broken.as_ref()) {
        *killers.entry(broken.violation.oracle).or_default() += 1;
    }
    let mut idle = oracle::NAMES.to_vec();
    idle.retain(|name| !killers.contains_key(name));
    (killers, idle)
}

/// Plants a mistake and runs scenarios until it is seen, or for so many seeds.
#[must_use]
pub fn hunt(bug: Bug, most: u64, jobs: usize) -> Hunt {
    // The scenario in which nothing fails sees few of them.
    let kinds: Vec<_> = Kind::all()
        .into_iter()
        .filter(|kind| !kind.scenario.is_clean())
        .collect();
    let sweep = Sweep {
        kinds,
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
