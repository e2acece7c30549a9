//! Planted bugs: real mistakes behind a runtime switch, so that the simulator's eyes can be tested.
//!
//! Compiled only under `cfg(madsim)`. In every other build [`is`] is a constant `false` and the mistakes
//! are compiled away, their names with them. Each is a rule of the product left out, in the code that keeps
//! it; the table says which rule, and which promise breaks.

/// Makes the enum of the mistakes, and under the simulator their texts, from the one table below.
macro_rules! bugs {
    ($($(#[$rule:meta])* $bug:ident, $name:literal, $promise:literal, $about:literal;)+) => {
        /// The mistakes that can be planted. Each names the rule that it leaves out.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[$rule])* $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: [Self; [$(Self::$bug),+].len()] = [$(Self::$bug),+];
        }

        #[cfg(madsim)]
        impl Bug {
            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }
            /// What is wrong with it.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$bug => $about,)+
                }
            }
            /// The promise that it breaks.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self {
                    $(Self::$bug => $promise,)+
                }
            }
        }
    };
}

bugs! {
    // Attributes.

    /// What is not to be changed stays.
    UnsetAttributesZeroed, "unset-attributes-zeroed", "N1",
        "a group that is not to be changed becomes 0 when the mode is";

    // Files that ask for another number of replicas.

    /// What a file asks for is what its chunks are counted against.
    ReplicationUncounted, "replication-uncounted", "L",
        "chunks of a file that asks for another number of replicas are counted against the one before";

    // Servers that are drained.

    /// Who is drained is a member until a copy has taken its place.
    DrainDropsFirst, "drain-drops-first", "L",
        "a server that is drained is taken off the members of a chunk before there is a copy elsewhere";
    /// That a server is drained is known until somebody says otherwise.
    DrainForgotten, "drain-forgotten", "N3",
        "checkpoints do not say which servers are drained";
    /// Who is drained gets nothing new.
    DrainTakesNew, "drain-takes-new", "L",
        "a server that is drained gets new chunks and copies as others do";

    // Copies that are made again.

    /// A copy counts when all of it is durable.
    CopyUnsynced, "copy-unsynced", "D5",
        "a copy takes its name before its bytes are synced";
    /// So is its name.
    CopyUnnamed, "copy-unnamed", "L",
        "a copy counts though its name may go with the power";
    /// What comes over the network is checked.
    CopyUnchecked, "copy-unchecked", "D5",
        "a copy takes bytes that do not match their sums";
    /// Who is no member any more is one that the log says so of.
    TrimUnlogged, "trim-unlogged", "D2",
        "a replica goes that is not needed, and the log still has its server";
    /// A header is written only into the slot that does not hold the newest one.
    SealOverActiveSlot, "seal-over-active-slot", "D2",
        "a replica at rest gets its header written over the only slot that has it";
    /// It is written again only where it is not: the newest may be the one that no sync has covered.
    SealWritesAgain, "seal-writes-again", "D2",
        "each time a replica at rest is sealed, its header is written over the older slot";
    /// The page in which a sync ended is written in its place only when it stands elsewhere too.
    CoveredPageTorn, "covered-page-torn", "D2",
        "what is appended to a page with synced bytes is written over it";
    /// A read is served by what is on the disk, not by what waits for the next sync.
    WaitingPageExpected, "waiting-page-expected", "D4",
        "a block is read as if the page that waits for a sync were in its place";
    /// What a sync that failed was to save is not there for certain: the page is written in its place again.
    FailedPlaceBelieved, "failed-place-believed", "D2",
        "after a sync has failed, a redo page counts as in its place that it was to save there";
    /// What is made anew is in its place only when it stands elsewhere, and a durable header says so.
    RunsInPlaceFirst, "runs-in-place-first", "D2",
        "what a sync makes anew is written in its place before its header is durable";
    /// After a crash all that a header names is written in its place.
    OneRunRecalled, "one-run-recalled", "D2",
        "of the redo runs that are found at a start only the first is written in its place";
    /// A block that rotted stays one.
    OldBlockUnverified, "old-block-unverified", "D5",
        "a block is made anew without a look at whether what is left of it matches its sum";
    /// What others have written ends where they say.
    SoughtChunkFilledOut, "sought-chunk-filled-out", "D2",
        "a chunk that others have written is filled out with zeros before it is known where it ends";
    /// Who is not heard by the meta server writes no more.
    WritesWithoutLease, "writes-without-lease", "D5",
        "a client that is cut off from the meta server writes on to chunkservers for as long as it likes";
    /// What an earlier chain has left on the disk is not there when the bytes count as zeros.
    LeftoversKept, "leftovers-kept", "D2",
        "bytes that count as zeros are left as an earlier chain has written them, that no sync has covered";
    /// Whoever takes a chunk over begins above all that was written before.
    TakeoverNotRaised, "takeover-not-raised", "D5",
        "a chunk is taken over by another session at the write that the one before left it at";
    /// What a takeover raised to that was broken off is never given out again.
    TakeoverForgotten, "takeover-forgotten", "D5",
        "the next takeover of a chunk may raise to the same write as one that was broken off";
    /// Each member is there durably before the log says so.
    RaiseUnsynced, "raise-unsynced", "D2",
        "a member says that it is raised before its header is durable";
    /// Where a file was cut, the replicas of its chunk are too, before it is written further.
    CutForgotten, "cut-forgotten", "D7",
        "a file is cut in the log, and nobody notes that the chunk is to be cut";
    /// Who is raised is told where it is to be cut.
    CutNotOrdered, "cut-not-ordered", "D7",
        "members of a chunk that is to be cut are raised as they are, and the log takes them for cut";
    /// A block that was cut has another sum.
    CutBlockUnsummed, "cut-block-unsummed", "D7",
        "the header of a replica that was cut has the sum of the whole block in which that was";
    /// What a longer file has behind its old end is zeros, whatever its replicas have there.
    ExtendedUncut, "extended-uncut", "D7",
        "a file that is made longer is not cut where it ended";
    /// A cut that its session has not made is made without one.
    CutNotFinished, "cut-not-finished", "L",
        "a chunk that is to be cut waits for a session that writes it";
    /// What is to be cut is in checkpoints.
    CheckpointForgetsCuts, "checkpoint-forgets-cuts", "D7",
        "a checkpoint does not say which chunks are still to be cut";
    /// Only who holds the same goes on.
    TakeoverTakesAll, "takeover-takes-all", "D1",
        "a chunk is taken over with all members that have what was synced, though they differ";
    /// Who has less gets what the others have.
    EveningTakesLess, "evening-takes-the-less", "L",
        "of replicas at rest that differ, who has more is to copy what the others have";
    /// It keeps what it has until then.
    EveningDropsFirst, "evening-drops-first", "L",
        "of replicas at rest that differ, who has less is no member until it has its copy";
    /// What all have said is in the log as a whole.
    SealForgetsMore, "seal-forgets-more", "D3",
        "a chunk is sealed with the digest of more than the log says was synced";
    /// After a crash the page is written in its place.
    RedoPageIgnored, "redo-page-ignored", "D2",
        "a redo page that is found at a start is left where it is";
    /// A damaged replica is made anew as well.
    DamageLeft, "damage-left", "L",
        "a replica with a bad block stays as it is";

    // The log.

    /// An answer leaves when the log is durable up to what it rests on.
    ReplyBeforeSync, "reply-before-sync", "N3",
        "the meta server answers before the record is durable";
    /// A question's answer waits too: it may have seen what is not durable.
    QueryUngated, "query-ungated", "N3",
        "a question is answered from a state that is not durable yet";
    /// So does a refusal.
    RefusalUngated, "refusal-ungated", "N3",
        "a refusal leaves at once, though what it rests on is not durable yet";
    /// A member is told to delete when the removal is durable, not when it is decided.
    DeleteBeforeDurable, "delete-before-durable", "N3",
        "chunks are deleted before the record that frees them is durable";
    /// Every record of the log is applied at a start.
    ReplaySkipsRecord, "replay-skips-record", "N3",
        "a record is skipped when the log is replayed";
    /// A segment is written to when its name is durable.
    SegmentUnnamed, "segment-unnamed", "N3",
        "the log switches to a segment whose name is not durable";
    /// A checkpoint is durable before it has its name.
    CheckpointUnsynced, "checkpoint-unsynced", "N3",
        "a checkpoint gets its name before its bytes are durable";
    /// Its name is durable before anything that it stands for goes.
    CheckpointUnnamed, "checkpoint-unnamed", "N3",
        "a checkpoint is renamed and its directory is not synced";
    /// So is that of the directory which it stands in.
    CheckpointDirUnnamed, "checkpoint-dir-unnamed", "N3",
        "the directory of checkpoints is made and the one above it is not synced";
    /// A compactor takes away what one before it did not finish: it may need the name.
    CompactorLeavesRest, "compactor-leaves-rest", "L",
        "what a killed compactor did not finish stays in the way of the next one";
    /// It has all that replay needs.
    CheckpointForgetsResults, "checkpoint-forgets-results", "N4",
        "a checkpoint holds sessions without the results that were remembered for them";
    /// The log is kept from the older checkpoint on.
    LogPrunedByNewest, "log-pruned-by-newest", "N3",
        "all of the log that the newest checkpoint stands for is removed, though the older one needs it";
    /// So is the segment of a new epoch.
    FirstSegmentUnnamed, "first-segment-unnamed", "N3",
        "the segment that a start opens is left without a durable name";
    /// A segment has its name when its header is durable.
    SegmentHeaderUnsynced, "segment-header-unsynced", "N3",
        "a segment gets its name before its header is durable";
    /// What a start has read may be in the page cache only: it is synced before anything is built on it.
    ReadTailUnsynced, "read-tail-unsynced", "N3",
        "the end of the log is read at a start and not made durable";
    /// A head that its client cannot reach is none.
    RechainKeepsHead, "rechain-keeps-head", "L",
        "a new chain has the head again that its client could not reach";
    /// Members that cannot reach one another are not both in a chain.
    RechainKeepsBoth, "rechain-keeps-both", "L",
        "a new chain has a member again that the one before it could not reach";
    /// A chunk is written by as many as are wanted at least.
    RechainTakesFew, "rechain-takes-few", "D2",
        "a new chain is made of whoever is left, however few";
    /// What a sync that failed was to save is not there.
    FailedHeaderKept, "failed-header-kept", "D2",
        "a header whose sync failed stays, and is believed when its replica is sealed or found";
    /// What a start finds may be in the page cache only.
    FoundUnsynced, "found-unsynced", "D2",
        "a chunkserver reports what it finds at its start, and does not make it durable before";
    /// All members of a new chain begin at one write.
    ResumedAtOwnWrite, "resumed-at-own-write", "L",
        "a member begins in a new chain at its own last write, not at the one that all have";
    /// What a member lacks is sent again.
    RechainFromFarthest, "rechain-from-farthest", "L",
        "a new chain begins behind what the member has that has most, not what all have";
    /// A member of a new chain has what was synced in the old one.
    RechainForgetsSynced, "rechain-forgets-synced", "D2",
        "a member that lacks what was synced is taken into a new chain";
    /// What looks like a torn write may have been read wrong.
    TornTailReadOnce, "torn-tail-read-once", "N3",
        "the end of the log is cut off as torn after it was read once";
    /// A sync that failed once may have dropped what it was to save; so what was read is written anew.
    ReadTailOnlySynced, "read-tail-only-synced", "N3",
        "the end of the log is read at a start and synced, though a sync of it may have failed before";
    /// A copy of the data directory has the identity first: the log that is copied then reaches its epoch.
    SnapshotIdentityLast, "snapshot-identity-last", "N3",
        "a copy of a data directory takes the identity last, which may name an epoch that the copied log lacks";
    /// A segment whose end is not whole may have been read wrong.
    SnapshotReadOnce, "snapshot-read-once", "N3",
        "a copy of a data directory ends where the open segment was read wrong";
    /// It has the checkpoints before the log, which then reaches them.
    SnapshotLogFirst, "snapshot-log-first", "N3",
        "a copy of a data directory takes the log first, and then checkpoints that may be ahead of it";
    /// A mark after the last batch proves that that one was whole.
    MarkLeftOut, "mark-left-out", "N3",
        "no mark follows the last batch: if it rots, it passes for one that was cut";
    /// A bad place with a whole batch behind it is damage, not a torn tail.
    DamagePassesForTorn, "damage-passes-for-torn", "N3",
        "a bad batch is cut off as a torn tail, and the whole batches after it";
    /// With a mirror an ack waits for both copies of the log.
    MirrorNotAwaited, "mirror-not-awaited", "N3",
        "a record is acked when the log has it, though the mirror does not have it yet";
    /// A start takes from the mirror what the log itself has not.
    MirrorUnread, "mirror-unread", "N3",
        "a last batch that only the mirror has is cut off as a torn tail";
    /// What is damaged in the mirror is repaired from the log, not only what is damaged in the log.
    MirrorLeftDamaged, "mirror-left-damaged", "N3",
        "a start repairs the log from the mirror, and leaves the mirror damaged";
    /// Segments of the mirror have durable names like those of the log.
    MirrorUnnamed, "mirror-unnamed", "N3",
        "segments of the mirror are left without durable names";
    /// A record is logged as it is applied.
    ForgottenUnlogged, "forgotten-unlogged", "N3",
        "results that a client no longer asks for are forgotten in the state, and kept in the log";
    /// A name is durable when its directory is synced.
    IdentityUnnamed, "identity-unnamed", "L",
        "the identity file is replaced and its directory is not synced";

    // Sessions and names.

    /// The result of a change is kept with the session, for who asks again.
    ResultsForgotten, "results-forgotten", "N4",
        "results of changes are not kept: a change asked for twice is done twice";
    /// Results are kept down to the lowest request that is not answered, that one included.
    ResultForgottenEarly, "result-forgotten-early", "N4",
        "the result of the oldest unanswered request is forgotten";
    /// A change keeps its number over every link.
    RetryNumberedAnew, "retry-numbered-anew", "N4",
        "a change is sent again under another number when its link was lost";
    /// A change sent under a session that is lost is reported unknown, never sent again under the next.
    UnknownAskedAgain, "unknown-asked-again", "N4",
        "a change whose outcome was lost with its session is done again under the next";
    /// What replaces and what is replaced is one record.
    RenameInTwoRecords, "rename-in-two-records", "N2",
        "a rename removes what it replaces in a record of its own";
    /// A directory is not moved into itself.
    DirectoryIntoItself, "directory-into-itself", "N2",
        "a directory can be moved below itself";
    /// A directory is removed when nothing is in it.
    FullDirectoryRemoved, "full-directory-removed", "N2",
        "a directory is removed with what is in it";
    /// A page begins after the last entry of the page before.
    ListRepeatsAtPageEdge, "list-repeats-at-page-edge", "N5",
        "a page of a listing begins with the last entry of the page before";
    /// A file that was renamed is no temporary file any more.
    SessionEndRemovesRenamed, "session-end-removes-renamed", "N3",
        "the end of a session removes its files that were renamed";
    /// Temporary files go with their session.
    TemporaryStays, "temporary-stays", "N1",
        "temporary files stay when their session ends";
    /// A file keeps the chunk that its last bytes are in.
    LastChunkDropped, "last-chunk-dropped", "D3",
        "a close gives up the chunk that the file ends in";

    // What was removed.

    /// A file that is removed or replaced stays while somebody has it open, and the record says so.
    HeldFileDropped, "held-file-dropped", "D7",
        "a file that is removed or replaced goes at once, though somebody has it open";
    /// After a restart everybody has the time to say what they hold.
    RestartForgetsHolders, "restart-forgets-holders", "D7",
        "after a restart, who has not said what they hold open counts as nobody";
    /// Who holds files says so on every new link.
    HoldsNotToldAgain, "holds-not-told-again", "D7",
        "a client does not say on a new link what it holds open";
    /// Files in a tree are held like others.
    TreeTakesHeld, "tree-takes-held", "D7",
        "a removed tree is reclaimed with files in it that somebody has open";
    /// What is being reclaimed is in checkpoints.
    ReclaimLosesItsPlace, "reclaim-loses-its-place", "N3",
        "a checkpoint has not the directories that were removed and are being reclaimed";
    /// A scan of what a tree takes is of one instant.
    UsageOfMovingTree, "usage-of-moving-tree", "N1",
        "each slice of a scan of what a tree takes looks at the tree as it has become meanwhile";

    /// A link that a client has left does not take its session back.
    LateOpeningTaken, "late-opening-taken", "N4",
        "a session is taken up on a link that its client has left, and goes when that one closes";

    /// An id is issued once, even if what it was for is gone.
    IdsGivenAgain, "ids-given-again", "D1",
        "the ids of a chunk that is given up go to the next chunk";

    // Chunkservers and the meta server.

    /// An epoch that somebody has seen is passed, and never accepted again.
    EpochLivedTwice, "epoch-lived-twice", "N4",
        "a meta server whose log was set back lives its epochs again";
    /// A log that lost its end takes no changes until somebody accepts that.
    LostTailIgnored, "lost-tail-ignored", "F",
        "a meta server whose log was set back hears of it, and goes on as if nothing was missing";
    /// Nor does one before somebody was heard who would know.
    WitnessesNotAwaited, "witnesses-not-awaited", "F",
        "a meta server takes changes after a start before any chunkserver has said what it knows of the log";
    /// What was lost is found again, or stays as it is; nothing of it is deleted.
    AcceptedDeleted, "accepted-deleted", "F",
        "chunks of the part of the log that is missing are deleted once that is accepted";
    /// Only what is certainly of this log and certainly nobody's is deleted.
    UnknownDeleted, "unknown-deleted", "F",
        "a replica that the log does not know is called stale, and deleted";
    /// A replica of which nothing can be read yet is owned all the same.
    UnreadReplicaStale, "unread-replica-stale", "D2",
        "a replica of which readers may see nothing yet is called stale, and deleted";
    /// A replica stays in the trash for its grace.
    TrashEmptiedEarly, "trash-emptied-early", "D2",
        "replicas are unlinked from the trash after half of their grace";
    /// A server that is silent, or does not hear, is not up.
    SilenceForgiven, "silence-forgiven", "F",
        "a server of which nothing is heard, or that hears no answer, is up until its link closes";
    /// A link that closed is forgotten.
    DeadLinkKept, "dead-link-kept", "bounds",
        "the meta server keeps its links when they close";
    /// What is said of copies is what they are.
    FreedStillCounted, "freed-still-counted", "F",
        "chunks that are gone go on counting as chunks with too few copies";
    /// A boot that was heard before, from another process, is a copy of the disk.
    ClonedDiskAccepted, "cloned-disk-accepted", "D5",
        "a server with a boot that was heard before is accepted";
    /// A replica shorter than the log says serves nothing.
    ShortReplicaServed, "short-replica-served", "D5",
        "a replica shorter than the log says is kept, and served with zeros";
    /// A replica older than the log says serves nothing, also if it is as long.
    OlderHeaderServed, "older-header-served", "D5",
        "a replica whose header is older than the sync in the log is kept, and its holes served as zeros";

    // Chunks on disk.

    /// A chunk's name is durable before its first sync is.
    NoDirSyncOnCreate, "no-dir-sync-on-create", "D4",
        "a chunk's first sync leaves its name to chance";
    /// A short block is summed as if zeros followed it.
    ShortBlockUnpadded, "short-block-unpadded", "D5",
        "the last, short block of a chunk is summed without its padding";
    /// A gap between two writes of a block counts as zeros.
    GapUnsummed, "gap-unsummed", "D5",
        "zeros between two writes of a block are left out of its sum";
    /// Data is durable before a header that tells of it is written.
    HeaderBeforeData, "header-before-data", "D4",
        "the header of a sync is written before the data is durable";
    /// Headers alternate between the slots, so that one that is torn leaves the other.
    HeaderOverActiveSlot, "header-over-active-slot", "D4",
        "a header is written over the one that is in force";
    /// The slot of the larger generation is in force.
    FirstSlotPreferred, "first-slot-preferred", "D4",
        "the first slot is read when both are valid, though it may be the older one";
    /// What is served is checked against the sum of its block, however little of it is asked for.
    PartialReadUnverified, "partial-read-unverified", "D5",
        "a read of a part of a block is served unchecked";
    /// A block with a write on its way is not read.
    DirtyBlockRead, "dirty-block-read", "D5",
        "a block is read while a write of it is on its way";
    /// A read is begun when the link has room for its answer.
    AnswersUnbounded, "answers-unbounded", "bounds",
        "reads are begun though the link is full of answers that its client does not take";
    /// A table that was read from a header is forgotten when the chunk goes on.
    StaleTableRead, "stale-table-read", "D5",
        "a chunk is read by the table that it had before it was last written";

    /// The head of a chain refuses pieces for which it has no room.
    FullRoomTaken, "full-room-taken", "F",
        "the head of a chain takes pieces though it has no room in memory for them";
    /// Who brings a piece while there is no room is paused, also if nothing was known of it when room ran out.
    LateLinkUnpaused, "late-link-unpaused", "F",
        "a link that brings its first piece while there is no room in memory is read on";
    /// Each place in a chain has a room of its own, so that chains in both directions cannot wait for one another.
    OneRoomForAll, "one-room-for-all", "L",
        "pieces of all places in chains are in one room, and wait for one another";
    /// A piece is counted when it is written, once.
    PieceCountedTwice, "piece-counted-twice", "F",
        "a piece is counted as two if its sync was waiting for it";

    // Along the chain.

    /// The head acks what all below have made.
    HeadAcksEarly, "head-acks-early", "D2",
        "the head of a chain acks a sync before the tail has made it";
    /// A sync acks what is durable, not what is written.
    SyncAckedWhenWritten, "sync-acked-when-written", "D2",
        "the head acks a sync when all is written and nothing is durable";
    /// A replica acks when it has made the sync itself.
    MiddleAcksUnsynced, "middle-acks-unsynced", "D2",
        "the middle of a chain passes an ack on before it has made the sync";
    /// A chain that lost a member is broken for good.
    ChainGoesOnWithoutTail, "chain-goes-on-without-tail", "D2",
        "a chain that lost its next server goes on without it";
    /// Every replica checks a piece before it takes it.
    PieceUnverified, "piece-unverified", "D5",
        "replicas take pieces without looking at their sums";

    // The client.

    /// A close is acked when the size it rests on is in the log.
    CloseAckedUnreported, "close-acked-unreported", "D3",
        "a close is acked though its size report failed";
    /// Bytes that were gathered are sent before a write elsewhere is taken.
    GatheredBytesDropped, "gathered-bytes-dropped", "D2",
        "small writes that were gathered are dropped when the next write is elsewhere";
    /// A write waits while the window is full.
    WindowIgnored, "window-ignored", "bounds",
        "a client takes writes beyond the window that no sync covers";
    /// Bytes that come are checked against the sums that come with them.
    ReadSumsIgnored, "read-sums-ignored", "D5",
        "the client does not look at the sums of what it reads";
    /// A chunk is a hole when the meta server was asked for it, and only then.
    HolePastPage, "hole-past-page", "D5",
        "the chunk after a page of places is taken for a hole";
    /// What is known of a chunk that has grown is asked for again.
    GrownPlacesKept, "grown-places-kept", "D3",
        "a reader that learns of a larger size keeps the old lengths of chunks";

    // What nobody reads.

    /// What has rotted is found before it is needed.
    ScrubSkips, "scrub-skips", "D5",
        "the scrub passes over blocks that do not match their sums";

    // The driver.

    /// A write that is to be synced is.
    WriteNotSynced, "write-not-synced", "N3",
        "the driver writes what is to be written durably, and does not sync it";
    /// A sync is answered when it was made.
    SyncNotMade, "sync-not-made", "D4",
        "the driver answers a sync of a file without making it";
    /// The alarm is set anew when the deadline moves, to an earlier time too.
    AlarmStaysLate, "alarm-stays-late", "L",
        "a deadline that moves to an earlier time does not move the alarm";
    /// A frame that was read in part is kept until the rest comes.
    HalfFrameDropped, "half-frame-dropped", "L",
        "what was read of a frame is dropped when the link is paused";
}

/// Stands in the simulator's binary, and in no other.
#[cfg(madsim)]
pub const MARK: &str = "KFS-SIM-ONLY planted";

#[cfg(madsim)]
std::thread_local! {
    static PLANTED: core::cell::Cell<Option<Bug>> = const { core::cell::Cell::new(None) };
}

/// Plants one bug, or none, for the rest of this thread's life.
#[cfg(madsim)]
pub fn plant(bug: Option<Bug>) {
    core::hint::black_box(MARK);
    PLANTED.with(|planted| planted.set(bug));
}

/// Whether this bug is planted.
#[cfg(madsim)]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.with(|planted| planted.get() == Some(bug))
}

/// Whether this bug is planted: never, outside the simulator.
#[cfg(not(madsim))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}
