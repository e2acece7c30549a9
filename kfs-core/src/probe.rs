//! Probes: rare paths of the machines, counted where they are taken, so that a simulation can say that it
//! reached them all.
//!
//! A sweep in which nothing went wrong proves little if nothing rare happened in it. Counted only under
//! `cfg(madsim)`, per thread; in every other build [`hit`] is nothing, and the names do not exist. A probe
//! never changes what a machine does.

/// Makes the enum of the probes, and under the simulator their names, from the one table below.
macro_rules! probes {
    ($($(#[$path:meta])* $probe:ident, $name:literal;)+) => {
        /// The rare paths.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Probe {
            $($(#[$path])* $probe,)+
        }

        impl Probe {
            /// All of them.
            pub const ALL: [Self; [$(Self::$probe),+].len()] = [$(Self::$probe),+];
        }

        #[cfg(madsim)]
        impl Probe {
            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$probe => $name,)+
                }
            }
        }
    };
}

probes! {
    // The log.

    /// A batch has more than one record.
    BatchOfSeveral, "log-batch-of-several";
    /// A mark was written after the last batch.
    MarkWritten, "log-mark-written";
    /// The log goes on in another segment.
    SegmentSwitched, "log-segment-switched";
    /// The disk was full when the next segment was prepared.
    SegmentNoSpace, "log-segment-no-space";
    /// A change was refused because the next segment is not ready.
    LogRoomSoon, "log-room-soon";
    /// A change was refused because the log's disk is full.
    LogRoomFull, "log-room-full";
    /// A start has read more than one segment.
    SegmentsJoined, "log-segments-joined";
    /// A start has found the tail of a write that was cut.
    TornTailCut, "log-torn-tail-cut";
    /// A copy of a data directory has read the open segment again, as its end was not whole.
    SnapshotReadAgain, "snapshot-read-again";
    /// A start has read the end of the log twice, and got two things.
    TailUnsteady, "log-tail-unsteady";
    /// A start has repaired a copy of the log from the other one.
    LogRepaired, "log-repaired";
    /// A start has found the mirror behind, or new.
    MirrorBehind, "log-mirror-behind";
    /// A start has removed a segment that had no batch.
    EmptySegmentRemoved, "log-empty-segment-removed";
    /// A start has removed what a crash had left half made.
    LeftoverRemoved, "meta-leftover-removed";

    /// A compactor was about to read what the server beside it let go of, and looked anew.
    RemovedWhileRead, "compactor-begun-again";
    /// So was who copies a data directory.
    SnapshotBegunAgain, "snapshot-begun-again";

    /// A checkpoint was made.
    CheckpointMade, "checkpoint-made";
    /// A checkpoint could not be made.
    CheckpointFailed, "checkpoint-failed";
    /// A start has read a checkpoint.
    CheckpointLoaded, "checkpoint-loaded";
    /// A start has found a checkpoint damaged.
    CheckpointDamaged, "checkpoint-damaged";
    /// Segments of the log were removed because two checkpoints stand for them.
    LogPruned, "log-pruned";

    // Sessions and names.

    /// A session goes on over another link.
    SessionResumed, "session-resumed";
    /// A session was opened twice by one nonce: its first answer was lost.
    SessionOpenedTwice, "session-opened-twice";
    /// A change asked for again was answered from the log.
    RetryFromResults, "session-retry-from-results";
    /// A change asked for again was answered from memory.
    RetryFromMemory, "session-retry-from-memory";
    /// A request asked for again is still being done.
    DuplicateWaits, "session-duplicate-waits";
    /// A request came on a link that its session has left.
    LateDuplicateDropped, "session-late-duplicate-dropped";
    /// A session was silent too long.
    SessionExpired, "session-expired";
    /// It was writing files.
    SessionExpiredWriting, "session-expired-writing";
    /// A temporary file went with its session.
    TemporaryRemoved, "session-temporary-removed";
    /// A rename has replaced a file.
    RenameReplaced, "rename-replaced";
    /// A rename was refused because it would move a directory into itself.
    RenameIntoItself, "rename-into-itself-refused";
    /// The answer to a question waits for the log, because it may have seen what is not durable.
    QuestionWaits, "question-waits-for-log";
    /// A listing has more than one page.
    ListPaged, "list-paged";

    // Copies that are made again.

    /// A copy of a chunk was ordered.
    CopyOrdered, "copy-ordered";
    /// A copy is not made yet, as a member that is gone may merely be restarting.
    CopyAwaitsRestart, "copy-awaits-restart";
    /// A copy was not made in time.
    CopyOverdue, "copy-overdue";
    /// A server could not make a copy.
    CopyRefused, "copy-refused";
    /// A copy was made and is not wanted any more.
    CopyNotWanted, "copy-not-wanted";
    /// A copy was made, and the log had no room to say so.
    CopyUnregistered, "copy-unregistered";
    /// There were more replicas than wanted, and one went.
    CopyTrimmed, "copy-trimmed";
    /// A server that is drained has nothing any more.
    ServerDrained, "server-drained";
    /// What a server has that is drained can be had by nobody else.
    DrainNowhere, "drain-nowhere";
    /// A replica of a server that is no member was taken.
    StrayTaken, "stray-taken";
    /// A replica of a server that is no member was not needed.
    StrayNotWanted, "stray-not-wanted";
    /// A client asked for another chain.
    RechainAsked, "rechain-asked";
    /// A chunk was given another chain.
    Rechained, "rechain-done";
    /// Members did not say in time how far they are.
    RechainOverdue, "rechain-overdue";
    /// A member was lost while a new chain was made, and it was begun again.
    RechainNextRound, "rechain-next-round";
    /// Nothing was synced of a chunk: it was made anew by others.
    RechainMadeAnew, "rechain-made-anew";
    /// Another server got a copy to go on writing to.
    RechainCopies, "rechain-copies";
    /// The head went to the end of the chain, as its client could not reach it.
    RechainTurned, "rechain-turned";
    /// A member that another could not reach was left out.
    RechainLeftOut, "rechain-left-out";
    /// There were too few members to go on, and the client asked again.
    RechainWaits, "rechain-waits";
    /// Another session is to write a chunk further.
    TakeoverAsked, "takeover-asked";
    /// It was logged that it does.
    ChunkTakenOver, "takeover-done";
    /// A file was cut.
    FileCut, "file-cut";
    /// A file was made longer than what is in it.
    FileExtended, "file-extended";
    /// A file was opened to be written, or cut, where there is no chunk.
    EndsInHole, "ends-in-hole";
    /// A reader learned that a file is shorter.
    SizeShrunk, "size-shrunk";
    /// A file was cut that had more chunks behind that than one record reclaims.
    CutManyChunks, "cut-many-chunks";
    /// A chunk was cut whose session had ended before.
    CutAtRest, "cut-at-rest";
    /// A replica was cut in the middle of a block that has a sum.
    ReplicaCutInBlock, "replica-cut-in-block";
    /// A replica was cut where it had nothing written, or at the edge of a block.
    ReplicaCutAtEdge, "replica-cut-at-edge";
    /// A file is to be written further that another session writes.
    AppendWaits, "append-waits";
    /// A header went whose sync had failed.
    HeaderSpoiled, "header-spoiled";
    /// A block is made anew by the next sync.
    BlockMadeAnew, "block-made-anew";
    /// Bytes were written over that a sync had covered.
    WrittenOver, "written-over";
    /// A client was cut off from the meta server for so long that it writes no more.
    WriterOutOfLease, "writer-out-of-lease";
    /// A client writes over bytes of a chunk that was full and synced.
    ChunkOpenAgain, "chunk-open-again";
    /// A client writes over bytes of a chunk that others have written, and has it taken over for that.
    ChunkTakenOverLate, "chunk-taken-over-late";
    /// A read waited for a page to be written in its place.
    ReadWaitsForPlace, "read-waits-for-place";
    /// A redo page was found, and written in its place.
    RedoPageRecalled, "redo-page-recalled";
    /// A redo page was found that does not match its sum.
    RedoPageBad, "redo-page-bad";
    /// Nor was the page in its place.
    RedoPageLost, "redo-page-lost";
    /// A sync has failed that was to save a redo page in its place.
    PlaceUnsure, "place-unsure";
    /// Zeros were written where an earlier chain may have left something.
    LeftoversCleared, "leftovers-cleared";
    /// A replica took pieces again.
    Resumed, "resumed";
    /// A replica was raised: another session writes it further.
    ReplicaRaised, "replica-raised";
    /// A replica took pieces again that had more than others.
    ResumedAhead, "resumed-ahead";
    /// A piece came that was written in an earlier chain.
    PieceHadBefore, "piece-had-before";
    /// Something came of a chain that is over.
    ChainOver, "chain-over";
    /// A client was given another chain for a chunk.
    ClientRechained, "client-rechained";
    /// A replica that is to be copied was synced first.
    SealSyncs, "seal-syncs";
    /// A server began to make a copy.
    CopyBegun, "copy-begun";
    /// A start has found a copy that was not finished.
    CopyLeftover, "copy-leftover";
    /// Who has what is copied was too busy for a range of it.
    CopyAsksAgain, "copy-asks-again";
    /// A range came that does not match its sums.
    CopyRangeBad, "copy-range-bad";
    /// A copy took the place of a damaged replica.
    CopyReplaces, "copy-replaces";
    /// A copy was finished after the term that had ordered it.
    CopyOutlivesTerm, "copy-outlives-term";
    /// A copy was given up where it was made.
    CopyFailed, "copy-failed";

    // What was removed.

    /// A file lost its name while somebody had it open, or might have.
    RemovedWhileHeld, "removed-while-held";
    /// A link was silent, or gone, too long for what was held on it.
    HoldsExpired, "holds-expired";
    /// Names of a removed tree were reclaimed.
    TreeReclaimed, "tree-reclaimed";
    /// A file in a removed tree was open.
    HeldInTree, "held-in-removed-tree";
    /// A file without a name has more chunks than one record reclaims.
    ReclaimedInParts, "reclaimed-in-parts";

    // What trees take.

    /// A scan rests until its next page is asked for.
    UsageInPages, "usage-in-pages";
    /// A slice of a scan ended among the chunks of a file.
    UsageFileInParts, "usage-file-in-parts";
    /// A scan ended before its last page: its link is gone, or was silent.
    UsageScanDropped, "usage-scan-dropped";

    // Chunks being made.

    /// A chunk that was being made was given up for another set.
    AllocationAbandoned, "allocation-abandoned";
    /// Its members took too long.
    AllocationOverdue, "allocation-overdue";
    /// No set of members made it.
    AllocationGaveUp, "allocation-gave-up";
    /// It was asked for again after a restart of the meta server, and its members are told again.
    AllocationOrderedAgain, "allocation-ordered-again";
    /// Its file was removed, or closed, meanwhile.
    AllocationCancelled, "allocation-cancelled";
    /// A request waits for servers that were there before the start.
    ServersAwaited, "allocation-servers-awaited";

    // Chunkservers as the meta server sees them.

    /// A chunkserver has seen what the log has lost.
    TailLost, "log-tail-lost";
    /// A change was refused because the log has lost its end.
    TailLostRefused, "log-tail-lost-refused";
    /// What a chunk at rest holds went into the log.
    ChunkSealed, "chunk-sealed";
    /// Replicas of a chunk at rest are not the same.
    SealDiffers, "seal-differs";
    /// One of them that has less is to get a copy of what another one has.
    EveningOrdered, "evening-ordered";
    /// All of them hold more than was reported, and that is in the log now.
    SealedMore, "sealed-more";
    /// A change waits after a start for chunkservers that may have seen more of the log.
    WitnessesAwaited, "log-witnesses-awaited";
    /// An operator has accepted that.
    RollbackAccepted, "log-rollback-accepted";
    /// A chunk of the part of the log that is missing became a file.
    OrphanAdopted, "log-orphan-adopted";
    /// A chunkserver has noted how far the log was durable, and nothing else.
    SeenNoted, "chunk-seen-noted";
    /// A chunkserver has seen a later epoch.
    EpochRaised, "epoch-raised";
    /// A server was silent for a lease.
    ServerSilent, "server-silent";
    /// A server said hello again while its older link was up.
    HelloAgain, "server-hello-again";
    /// A hello was refused because its boot was heard before.
    HelloCloned, "server-hello-cloned";
    /// A replica that is certainly nobody's.
    ReplicaStale, "replica-stale";
    /// A replica that the log does not know: kept.
    ReplicaUnknown, "replica-unknown-kept";
    /// A replica shorter or older than the log says.
    ReplicaDamaged, "replica-damaged";
    /// A replica that was told to be kept lacks what a size report says is synced.
    ReplicaOutgrown, "replica-outgrown";
    /// A server has told of damage.
    DamageReported, "damage-reported";

    // The chunkserver.

    /// The chain broke at its head.
    ChainBrokeAtHead, "chain-broke-at-head";
    /// The chain broke between its ends.
    ChainBrokeInMiddle, "chain-broke-in-middle";
    /// The chain broke at its tail.
    ChainBrokeAtTail, "chain-broke-at-tail";
    /// A piece came again while it was on its way.
    PieceAskedTwice, "piece-asked-twice";
    /// A piece came again when it was done.
    PieceDoneBefore, "piece-done-before";
    /// A piece does not fit the disk.
    PieceNoRoom, "piece-no-room";
    /// So many pieces are in memory that the head of a chain takes no more.
    HeadLacksRoom, "head-lacks-room";
    /// A piece does not match its sums.
    PieceCorrupt, "piece-corrupt";
    /// Too many pieces are in memory: the links they come on are paused.
    LinkPaused, "link-paused-for-room";
    /// There is room again.
    LinkResumed, "link-resumed";
    /// A sync was asked for again when it was made.
    SyncDoneBefore, "sync-done-before";
    /// One sync of the directory is for several chunks.
    DirSyncShared, "dir-sync-shared";
    /// A chunk that nobody writes to gave its table back.
    ChunkParked, "chunk-parked";
    /// It is written to again.
    ChunkUnparked, "chunk-unparked";
    /// A read waits for a write of its blocks.
    ReadWaitsForWrite, "read-waits-for-write";
    /// A read waits for room on its link.
    ReadWaitsForLink, "read-waits-for-link";
    /// The scrub found a block or a header that has rotted.
    ScrubFoundDamage, "scrub-found-damage";
    /// The scrub was through with all replicas.
    ScrubRoundDone, "scrub-round-done";
    /// A replica went or changed while the scrub read it.
    ScrubReplicaGone, "scrub-replica-gone";
    /// A table was forgotten for another.
    TableEvicted, "table-evicted";
    /// A block did not match its sum.
    BadBlockSeen, "bad-block-seen";
    /// A replica's header is not what it was.
    ReplicaRotted, "replica-rotted";
    /// A replica was moved to the trash because of a verdict.
    StaleToTrash, "stale-to-trash";
    /// A file in the trash was unlinked after its grace.
    TrashUnlinked, "trash-unlinked";
    /// A replica was to be deleted that is not there.
    DeleteOfAbsent, "delete-of-absent";
    /// A meta server was refused because its epoch is behind.
    EpochBehind, "epoch-behind-refused";
    /// Heartbeats were not answered for a lease.
    HeartbeatsUnanswered, "heartbeats-unanswered";
    /// A start has found the identity file's replacement half made.
    IdentityHalfMade, "identity-half-made";

    // The client.

    /// A write waits because the window is full.
    WindowFull, "client-window-full";
    /// A sync was begun in the background.
    BackgroundSync, "client-background-sync";
    /// Small writes were gathered into one piece.
    PieceGathered, "client-piece-gathered";
    /// Pieces are sent again.
    PiecesSentAgain, "client-pieces-sent-again";
    /// The link to a head was lost while something was asked on it.
    HeadLinkLost, "client-head-link-lost";
    /// A chunk before the last was filled out, because the file has a hole.
    ChunkFilledOut, "client-chunk-filled-out";
    /// A chunk that was asked for ahead was refused, and not needed yet.
    ChunkAheadRefused, "client-chunk-ahead-refused";
    /// The meta server was dialed again after a link was lost.
    MetaDialedAgain, "client-meta-dialed-again";
    /// The meta server was silent too long.
    MetaSilent, "client-meta-silent";
    /// Files that are open were told of again on a new link.
    HeldAgain, "client-held-again";
    /// A change was sent again under its number.
    ChangeSentAgain, "client-change-sent-again";
    /// The session was lost.
    SessionLost, "client-session-lost";
    /// Whether a change was done is not known.
    OutcomeUnknown, "client-outcome-unknown";
    /// More changes wait than a session may have unanswered.
    SessionWindowFull, "client-session-window-full";
    /// A read goes to another replica.
    ReadPassedOver, "client-read-passed-over";
    /// No replica gave what was read: a new round begins later.
    ReadRests, "client-read-rests";
    /// What was read is read block by block, because no replica has all of it.
    ReadSplit, "client-read-split";
    /// A hole was read.
    HoleRead, "client-hole-read";
    /// A reader has learned of a larger size.
    SizeGrown, "client-size-grown";

    // The driver.

    /// A frame was read in part when its link was paused or resumed.
    FrameCutByPause, "frame-cut-by-pause";
    /// A link could not be made.
    DialFailed, "dial-failed";
}

/// Stands in the simulator's binary, and in no other.
#[cfg(madsim)]
pub const MARK: &str = "KFS-SIM-ONLY probe";

/// How often each path was taken.
#[cfg(madsim)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts([u64; Probe::ALL.len()]);

#[cfg(madsim)]
impl Counts {
    /// None was.
    pub const ZERO: Self = Self([0; Probe::ALL.len()]);

    /// How often this one was.
    #[must_use]
    pub const fn of(&self, probe: Probe) -> u64 {
        self.0[probe as usize]
    }
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
    /// All of them, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Probe, u64)> {
        Probe::ALL.into_iter().zip(self.0)
    }
    /// Those never taken.
    pub fn missing(&self) -> impl Iterator<Item = Probe> {
        self.iter()
            .filter(|(_, count)| *count == 0)
            .map(|(probe, _)| probe)
    }
}

#[cfg(madsim)]
impl Default for Counts {
    fn default() -> Self {
        Self::ZERO
    }
}

#[cfg(madsim)]
std::thread_local! {
    static HITS: core::cell::Cell<Counts> = const { core::cell::Cell::new(Counts::ZERO) };
}

/// A rare path is taken.
#[cfg(madsim)]
pub fn hit(probe: Probe) {
    HITS.with(|hits| {
        let mut counts = hits.get();
        counts.0[probe as usize] += 1;
        hits.set(counts);
    });
}

/// A rare path is taken: nobody counts, outside the simulator.
#[cfg(not(madsim))]
pub const fn hit(_probe: Probe) {}

/// What was counted on this thread since this was last called.
#[cfg(madsim)]
#[must_use]
pub fn take() -> Counts {
    core::hint::black_box((MARK, Probe::name as fn(Probe) -> &'static str));
    HITS.with(core::cell::Cell::take)
}
