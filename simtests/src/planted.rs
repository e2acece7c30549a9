//! Mistakes planted in the product, to measure the simulator's eyes: each must be seen.
use crate::oracle;
use crate::run::Kind;
use crate::scenario::{drawn, told};
use crate::sweep::{Broken, Sweep};
use kfs_core::planted::Bug;
use std::collections::BTreeMap;
use std::fmt;

/// What each story is shown to see. One that no mistake can be seen in shows nothing.
pub const SHOWN: [(&str, Bug); 130] = [
    ("modes-are-changed", Bug::UnsetAttributesZeroed),
    ("replication-is-changed", Bug::ReplicationUncounted),
    ("server-is-drained", Bug::DrainDropsFirst),
    ("server-is-drained", Bug::DrainForgotten),
    ("server-is-drained", Bug::DrainTakesNew),
    ("drained-server-is-stopped", Bug::DrainDropsFirst),
    ("cut-and-written-at-a-distance", Bug::CutBlockUnsummed),
    ("cut-and-written-at-a-distance", Bug::CutForgotten),
    ("server-is-away-while-a-file-is-cut", Bug::CutNotOrdered),
    ("cut-and-written-at-a-distance", Bug::LeftoversKept),
    ("power-fails-while-a-file-is-cut", Bug::CutBlockUnsummed),
    ("server-is-away-while-a-file-is-cut", Bug::TakeoverNotRaised),
    ("made-longer-over-what-was-left", Bug::ExtendedUncut),
    ("client-dies-while-it-cuts", Bug::CutNotFinished),
    ("client-dies-while-it-cuts", Bug::CheckpointForgetsCuts),
    ("others-go-on-in-turn", Bug::TakeoverNotRaised),
    ("member-comes-back-with-more", Bug::TakeoverNotRaised),
    ("writer-dies-in-a-sync", Bug::TakeoverTakesAll),
    ("raised-and-left-out", Bug::TakeoverForgotten),
    ("leftovers-in-a-gap", Bug::LeftoversKept),
    (
        "power-fails-while-a-chunk-is-taken-over",
        Bug::RaiseUnsynced,
    ),
    ("writer-dies-and-nobody-goes-on", Bug::EveningTakesLess),
    ("writer-dies-and-nobody-goes-on", Bug::EveningDropsFirst),
    ("writer-dies-and-nobody-goes-on", Bug::SealForgetsMore),
    (
        "takeover-is-broken-off-and-nobody-goes-on",
        Bug::EveningTakesLess,
    ),
    (
        "takeover-is-broken-off-and-nobody-goes-on",
        Bug::EveningDropsFirst,
    ),
    ("format", Bug::IdentityUnnamed),
    ("at-rest-loses-power", Bug::SealOverActiveSlot),
    ("power-fails-while-copies-are-made", Bug::SealWritesAgain),
    ("write", Bug::NoDirSyncOnCreate),
    ("log-loses-power", Bug::CoveredPageTorn),
    ("log-loses-power", Bug::RedoPageIgnored),
    ("log-read-while-written", Bug::WaitingPageExpected),
    ("place-is-not-saved", Bug::FailedPlaceBelieved),
    ("written-over-loses-power", Bug::RunsInPlaceFirst),
    ("written-over-loses-power", Bug::OneRunRecalled),
    ("others-write-over", Bug::SoughtChunkFilledOut),
    ("cut-off-and-written-over", Bug::WritesWithoutLease),
    ("rotten-block-is-written-over", Bug::OldBlockUnverified),
    ("written-over-while-read", Bug::WaitingPageExpected),
    ("segment-switch", Bug::SegmentUnnamed),
    ("rename-over", Bug::SessionEndRemovesRenamed),
    ("stale-restart", Bug::TrashEmptiedEarly),
    ("checkpoints", Bug::CheckpointForgetsResults),
    ("compactor", Bug::CheckpointUnsynced),
    ("restored", Bug::AcceptedDeleted),
    ("compactor-beside-server", Bug::CompactorLeavesRest),
    ("backups-beside-server", Bug::SnapshotLogFirst),
    ("backups-beside-server", Bug::SnapshotIdentityLast),
    ("backup-reads-wrong", Bug::SnapshotReadOnce),
    ("backup-restored", Bug::LostTailIgnored),
    ("backup-restored", Bug::AcceptedDeleted),
    ("first-checkpoints-lose-power", Bug::CheckpointUnnamed),
    ("first-checkpoints-lose-power", Bug::CheckpointDirUnnamed),
    ("seen-before-durable", Bug::QueryUngated),
    ("refused-before-durable", Bug::RefusalUngated),
    ("removal-lost", Bug::DeleteBeforeDurable),
    ("answers-of-two-batches-lost", Bug::ResultForgottenEarly),
    ("cut-off-until-expired", Bug::UnknownAskedAgain),
    ("opening-comes-late", Bug::LateOpeningTaken),
    ("close-not-reported", Bug::CloseAckedUnreported),
    ("rot-in-the-log", Bug::DamagePassesForTorn),
    ("rot-in-the-last-batch", Bug::MarkLeftOut),
    ("mirror-has-the-last-batch", Bug::MirrorNotAwaited),
    ("mirror-has-the-last-batch", Bug::MirrorUnread),
    ("mirror-has-the-last-batch", Bug::MirrorUnnamed),
    ("mirror-and-log-rot-apart", Bug::MirrorLeftDamaged),
    ("meta-set-back", Bug::EpochLivedTwice),
    ("meta-set-back", Bug::UnknownDeleted),
    ("meta-set-back", Bug::LostTailIgnored),
    ("set-back-while-alone", Bug::WitnessesNotAwaited),
    ("rollback-accepted", Bug::AcceptedDeleted),
    ("disk-cloned", Bug::ClonedDiskAccepted),
    ("sync-fails-and-power-is-lost", Bug::ReadTailOnlySynced),
    ("end-of-log-is-read-wrong", Bug::TornTailReadOnce),
    ("newest-checkpoint-rots", Bug::LogPrunedByNewest),
    ("newer-header-rots", Bug::ShortReplicaServed),
    ("block-rots-and-a-part-is-read", Bug::PartialReadUnverified),
    ("bits-flip-on-their-way-to-readers", Bug::ReadSumsIgnored),
    ("bits-flip-on-their-way-to-heads", Bug::PieceUnverified),
    ("segment-switch-power", Bug::SegmentHeaderUnsynced),
    ("tail-in-cache", Bug::ReadTailUnsynced),
    ("start-loses-power", Bug::ReadTailUnsynced),
    ("rename-over-power", Bug::RenameInTwoRecords),
    ("directory-below-itself", Bug::DirectoryIntoItself),
    ("writer-dies", Bug::TemporaryStays),
    ("tree-counted-while-names-move", Bug::UsageOfMovingTree),
    ("member-back-in-two-seconds", Bug::ChainGoesOnWithoutTail),
    ("replicas-differ-after-power-loss", Bug::HeadAcksEarly),
    ("chains-cross-with-full-rooms", Bug::OneRoomForAll),
    ("chains-cross-with-full-rooms", Bug::HalfFrameDropped),
    ("block-synced-twice", Bug::HeaderBeforeData),
    ("header-torn", Bug::HeaderOverActiveSlot),
    ("read-while-written", Bug::DirtyBlockRead),
    ("parked-and-written-on", Bug::StaleTableRead),
    ("hole-filled-and-header-rots", Bug::OlderHeaderServed),
    ("chunk-behind-a-page", Bug::HolePastPage),
    ("grown-while-read", Bug::GrownPlacesKept),
    (
        "meta-restarts-while-chunks-are-made",
        Bug::UnreadReplicaStale,
    ),
    ("reads-behind-one-link", Bug::AnswersUnbounded),
    ("many-writers-one-head", Bug::FullRoomTaken),
    ("many-writers-one-head", Bug::LateLinkUnpaused),
    ("chunk-allocated-power-lost", Bug::UnreadReplicaStale),
    ("member-dies-under-writer", Bug::FoundUnsynced),
    ("sync-reaches-some-members", Bug::RechainFromFarthest),
    ("sync-reaches-some-members", Bug::ResumedAtOwnWrite),
    ("all-members-restart-under-writer", Bug::RechainFromFarthest),
    ("header-rots-under-writer", Bug::RechainForgetsSynced),
    ("sync-fails-under-writer", Bug::FailedHeaderKept),
    ("head-out-of-reach", Bug::RechainKeepsHead),
    ("members-out-of-reach", Bug::RechainKeepsBoth),
    ("one-of-two-members-dies", Bug::RechainTakesFew),
    (
        "power-fails-while-a-chain-is-made",
        Bug::RechainFromFarthest,
    ),
    ("heartbeats-pass-one-way", Bug::SilenceForgiven),
    ("host-sleeps-and-wakes", Bug::SilenceForgiven),
    ("removed-while-created-below", Bug::FullDirectoryRemoved),
    ("removed-while-open", Bug::HeldFileDropped),
    ("removed-while-open", Bug::RestartForgetsHolders),
    ("removed-while-open", Bug::HoldsNotToldAgain),
    ("tree-removed-while-created-below", Bug::TreeTakesHeld),
    (
        "tree-removed-while-created-below",
        Bug::ReclaimLosesItsPlace,
    ),
    ("set-back-and-grown-over", Bug::UnknownDeleted),
    ("server-gone-for-good", Bug::TrimUnlogged),
    ("server-gone-for-good", Bug::CopyUnsynced),
    ("power-fails-while-copies-are-made", Bug::CopyUnnamed),
    ("bits-flip-on-their-way-to-copies", Bug::CopyUnchecked),
    ("block-rots-and-is-copied", Bug::DamageLeft),
    ("block-rots-and-nobody-reads", Bug::ScrubSkips),
    ("removed-while-copied", Bug::TrimUnlogged),
    ("clean", Bug::FreedStillCounted),
];

/// The scenarios that a mistake was seen in: its hunt begins there, and with any luck ends there.
pub fn made_for(bug: Bug) -> impl Iterator<Item = &'static str> {
    let of = SHOWN.iter().filter(move |(_, shown)| *shown == bug);
    of.map(|(name, _)| *name)
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
                write!(f, "SURVIVED {:<28} {} runs", self.bug.name(), self.runs)
            }
        }
    }
}

/// How many mistakes an oracle saw.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub struct Kills {
    /// Before any other did.
    pub first: u64,
    /// In a run that another had spoken of before, once it had come to rest.
    pub with_others: u64,
}

/// How many mistakes each oracle saw; one that is never the first sees what another sees as soon. `panic` and
/// `halt` are no oracles, but kill too.
#[must_use]
pub fn killers(hunts: &[Hunt]) -> BTreeMap<&'static str, Kills> {
    let mut killers: BTreeMap<&'static str, Kills> =
        oracle::NAMES.map(|name| (name, Kills::default())).into();
    for broken in hunts.iter().filter_map(|hunt| hunt.broken.as_ref()) {
        killers.entry(broken.violation.oracle).or_default().first += 1;
        for other in &broken.violation.also {
            killers.entry(other).or_default().with_others += 1;
        }
    }
    killers
}

/// Plants a mistake and runs scenarios until it is seen, or for so many seeds: first those that are made for it,
/// then those that are made for nothing in particular.
#[must_use]
pub fn hunt(bug: Bug, most: u64, jobs: usize) -> Hunt {
    let made_for = |kind: &Kind| made_for(bug).any(|name| name == kind.scenario.name);
    // The scenario in which nothing fails sees few of them.
    let usual = |kind: &Kind| {
        let mut scenarios = drawn::ALL.iter().chain(&told::basics::ALL);
        scenarios.any(|usual| usual.name == kind.scenario.name) && !kind.scenario.is_clean()
    };
    let mut hunt = Hunt {
        bug,
        runs: 0,
        broken: None,
    };
    for which in [&made_for as &dyn Fn(&Kind) -> bool, &usual] {
        let sweep = Sweep {
            kinds: Kind::all().into_iter().filter(which).collect(),
            seeds: 1..most + 1,
            bug: Some(bug),
            jobs,
            longest: None,
        };
        let swept = sweep.execute();
        hunt.runs += swept.totals.runs;
        hunt.broken = swept.broken;
        if hunt.kills() {
            break;
        }
    }
    hunt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    /// A path that hardly any other run takes is why it is there, and O14 asks for that.
    const FOR_A_PATH: [&str; 3] = [
        "many-chunks-are-cut-off",
        "replicas-rot-apart",
        "redo-page-rots",
    ];

    #[test]
    fn a_story_that_no_mistake_was_seen_in_is_told() {
        for story in told::all() {
            let shown = SHOWN.iter().any(|(name, _)| *name == story.name);
            assert_ne!(shown, FOR_A_PATH.contains(&story.name), "{}", story.name);
        }
        for (name, _) in SHOWN {
            assert!(Scenario::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_table_of_executions_says_of_a_story_what_was_not_shown() {
        let page = include_str!("scenario/told/mod.rs");
        let rows = page.lines().filter(|line| line.starts_with("//! | "));
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').collect()).collect();
        // Its heads, and the line below them.
        assert!(rows.len() > 20, "{rows:?}");
        for row in &rows[2..] {
            let names = |cell: &str| -> Vec<String> {
                let names = cell.split('`').skip(1).step_by(2);
                names.map(str::to_owned).collect()
            };
            let (stories, bugs) = (names(row[2]), names(row[3]));
            let shown = |story: &str, bug: &str| {
                let mut shown = SHOWN.iter();
                shown.any(|(name, seen)| *name == story && seen.name() == bug)
            };
            for story in &stories {
                assert!(bugs.iter().any(|bug| shown(story, bug)), "{story}");
            }
            for bug in &bugs {
                assert!(stories.iter().any(|story| shown(story, bug)), "{bug}");
            }
        }
    }
}
