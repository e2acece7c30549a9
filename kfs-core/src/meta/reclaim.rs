//! Takes apart what was removed: files without names that nobody has open any more, trees that stand nowhere, and what
//! files had behind the place where they were cut ([`super::truncation`]).
//!
//! What there is to do is in the state, and so in the log and in checkpoints; a restart goes on where it was. A record
//! does bounded work, and there are so many of them in a second, so requests of clients are not held up.
use super::record::{By, FilesReclaimed, TreeReclaimed};
use super::state::{Node, State};
use super::{Io, LOG_RESERVE, Serving};
use crate::buggify::{self, Site};
use crate::ids::FileId;
use crate::limits::RECLAIM_BATCH_MAX;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_meta::ReclaimStatus;
use core::time::Duration;
use std::collections::BTreeSet;

/// Between two batches.
pub(super) const EVERY: Duration = Duration::from_millis(5);
/// It is tried again after this if the log had no room, or a session was not taken up and has not ended.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Files that are looked at for one batch: some may be held still.
const LOOKS_MAX: usize = 1_024;
/// The most bytes of a record.
const RECORD_BYTES: usize = 1_024;

const _: () = assert!(RECLAIM_BATCH_MAX * 10 + 128 <= RECORD_BYTES);

/// What is known of it besides what the log knows.
#[derive(Clone, Debug)]
pub(super) struct Reclaim {
    /// Files without names that were held by one less since they were looked at.
    ready: BTreeSet<FileId>,
    /// Not before this: the batch before is too new.
    next: Instant,
    /// Not before this: clients that hold files since before the start may not have said so yet.
    knows_at: Instant,
    /// Not before this: chunks behind the end of files that were cut.
    pub(super) behind_at: Instant,
    done: u64,
}

impl Reclaim {
    /// Of a state that was just loaded. Before the first start nobody held anything.
    pub(super) fn of(state: &State, now: Instant, idle: Duration) -> Self {
        let first = state.epochs.is_empty();
        let knows_at = if first || planted::is(Bug::RestartForgetsHolders) {
            now
        } else {
            now + idle
        };
        Self {
            ready: state.unlinked.iter().copied().collect(),
            next: now,
            knows_at,
            behind_at: now,
            done: 0,
        }
    }
    /// Whether clients that hold files since before the start have had the time to say so.
    pub(super) fn knows(&self, now: Instant) -> bool {
        now >= self.knows_at
    }
    /// These may be without holders now.
    pub(super) fn look_at(&mut self, state: &State, files: impl IntoIterator<Item = FileId>) {
        let nameless = |file: &FileId| state.unlinked.contains(file);
        self.ready.extend(files.into_iter().filter(nameless));
    }
    /// So much is reclaimed.
    pub(super) fn count(&mut self, dropped: u64) {
        self.done += dropped;
    }
    pub(super) fn status(&self, state: &State) -> ReclaimStatus {
        ReclaimStatus {
            files: state.unlinked.len() as u64,
            directories: state.detached.len() as u64,
            entries: state.detached_entries,
            done: self.done,
        }
    }
    fn removed_due(&self, state: &State) -> Option<Instant> {
        let idle = self.ready.is_empty() && state.detached.is_empty();
        (!idle).then(|| self.next.max(self.knows_at))
    }
    /// When there is something to do next.
    pub(super) fn due(&self, state: &State) -> Option<Instant> {
        let removed = self.removed_due(state);
        let behind = (!state.behind.is_empty()).then_some(self.behind_at);
        let deletes = state.tail_lost.is_none();
        let due = [removed, behind].into_iter().flatten().min();
        due.filter(|_| deletes)
    }
}

/// Names and chunks of one batch.
pub(super) fn batch() -> usize {
    if buggify::is(Site::ReclaimBatchOfTwo) {
        2
    } else {
        RECLAIM_BATCH_MAX
    }
}

impl Serving {
    /// The next batch, if it is time.
    pub(super) fn reclaim(&mut self, io: &mut Io) {
        let now = io.now.mono;
        if self.reclaim.due(&self.state).is_none_or(|due| due > now) {
            return;
        }
        self.reclaim_behind(io);
        if self
            .reclaim
            .removed_due(&self.state)
            .is_none_or(|due| due > now)
        {
            return;
        }
        if !self.sessions.are_resumed() {
            self.reclaim.next = now + RETRY;
            return;
        }
        if self
            .has_room(2 * RECORD_BYTES, LOG_RESERVE + self.allocations.len())
            .is_err()
        {
            self.reclaim.next = now + RETRY;
            return;
        }
        let whole = batch();
        let left = self.reclaim_files(io, whole);
        if self.reclaim_trees(io, left) < whole || !self.state.detached.is_empty() {
            self.reclaim.next = now + EVERY;
        }
    }

    /// Files without names; gives what is left of the batch.
    fn reclaim_files(&mut self, io: &mut Io, mut left: usize) -> usize {
        let mut reclaimed = FilesReclaimed {
            files: Vec::new(),
            part: None,
        };
        for _ in 0..LOOKS_MAX {
            let Some(file) = self.reclaim.ready.first().copied().filter(|_| left > 0) else {
                break;
            };
            if !self.state.unlinked.contains(&file) || self.is_held(io, file) {
                // Who lets go of it will say so.
                self.reclaim.ready.remove(&file);
                continue;
            }
            let all = (file, 0)..=(file, u64::MAX);
            let chunks = self.state.chunks.range(all).map(|((_, index), _)| index);
            let chunks: Vec<u64> = chunks.take(left).collect();
            if chunks.len() < left {
                left -= 1 + chunks.len();
                self.reclaim.ready.remove(&file);
                reclaimed.files.push(file);
                continue;
            }
            left = 0;
            probe::hit(Probe::ReclaimedInParts);
            reclaimed.part = chunks.last().map(|last| (file, last + 1));
        }
        if !reclaimed.files.is_empty() || reclaimed.part.is_some() {
            self.commit(io, By::NOBODY, reclaimed);
        }
        left
    }

    /// Trees that stand nowhere: the newest directory first, so that there are few of them at a time. Gives what is
    /// left of the batch.
    fn reclaim_trees(&mut self, io: &mut Io, mut left: usize) -> usize {
        while left > 0
            && let Some(dir) = self.state.detached.get_max().copied()
            && self
                .has_room(2 * RECORD_BYTES, LOG_RESERVE + self.allocations.len())
                .is_ok()
        {
            let mut entries = 0;
            let mut kept = Vec::new();
            for (_, file) in self.state.tree.after(dir, b"") {
                if left == 0 {
                    break;
                }
                let node = self.state.inodes.get(&file).map(|inode| inode.node);
                if matches!(node, Some(Node::File { .. })) {
                    let all = (file, 0)..=(file, u64::MAX);
                    let chunks = self.state.chunks.range(all).take(left).count();
                    if self.is_held(io, file) && !planted::is(Bug::TreeTakesHeld) {
                        probe::hit(Probe::HeldInTree);
                        kept.push(file);
                    } else if chunks < left {
                        left -= chunks;
                    } else if left == batch() {
                        // More than one record takes: it goes by itself, in parts.
                        kept.push(file);
                    } else {
                        // The next batch has room for it, or keeps it.
                        left = 0;
                        break;
                    }
                }
                left -= 1;
                entries += 1;
            }
            if entries == 0 && left == 0 {
                break;
            }
            // A directory without names costs as much as a name.
            left = left.saturating_sub(1);
            kept.sort_unstable();
            probe::hit(Probe::TreeReclaimed);
            let record = TreeReclaimed { dir, entries, kept };
            self.commit(io, By::NOBODY, record);
        }
        left
    }
}
