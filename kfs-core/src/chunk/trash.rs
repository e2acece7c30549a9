//! Getting rid of replicas: renamed to `trash/`, both directories synced, unlinked after a grace period.
//!
//! Only what the meta server named is moved. The trash is synced before `chunks/`, so that a power loss
//! leaves a replica under one name or the other.
use super::name::{CHUNKS, ChunkName, ReplicaId, TRASH};
use super::redo::Placed;
use super::{Chunk, Job};
use crate::ids::{ChunkId, LinkId, Version, WriteSeq};
use crate::machine::{DiskError, DiskOp, FileName};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::Msg;
use crate::wire::chunk_meta::{ChunksDeleted, DeleteChunks};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Files that are unlinked at once: a large file takes a disk long, and others wait for it.
const UNLINKS_MAX: usize = 16;

/// Moves of one order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct MoveId(u64);

/// What a disk operation of the trash was.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A replica was renamed.
    Renamed(MoveId, ChunkName, u64),
    /// The trash was synced.
    TrashSynced(MoveId),
    /// `chunks/` was synced.
    ChunksSynced(MoveId),
    /// A file was unlinked.
    Unlinked(ChunkName, u64),
}

/// What is in the trash, and on its way there.
#[derive(Clone, Debug, Default)]
pub(super) struct Trash {
    /// By the time they came, oldest first.
    files: VecDeque<(Instant, ChunkName, u64)>,
    moves: BTreeMap<MoveId, Move>,
    moves_made: u64,
    /// The highest number a file in the trash has or had.
    last: u64,
    /// Files that are being unlinked.
    unlinking: usize,
}

#[derive(Clone, Debug)]
struct Move {
    renames_left: usize,
    /// Whom to tell; `None`: a verdict, nobody waits.
    answer: Option<Answer>,
}

/// What is said when a move is durable.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    link: LinkId,
    request: u64,
    deleted: ChunksDeleted,
}

impl Trash {
    /// A file that was there at the start. When it came is not known: its grace begins now.
    pub(super) fn found(&mut self, now: Instant, name: ChunkName, n: u64) {
        self.last = self.last.max(n);
        self.files.push_back((now, name, n));
    }
    pub(super) fn len(&self) -> u64 {
        self.files.len() as u64
    }
    /// Orders that are being carried out.
    pub(super) fn moving(&self) -> usize {
        self.moves
            .values()
            .map(|moving| moving.renames_left + 1)
            .sum()
    }
    /// When the oldest file's grace ends.
    fn due(&self, grace: Duration) -> Option<Instant> {
        self.files.front().map(|(since, ..)| *since + grace)
    }
    /// When the next file is to be unlinked; `None` also while as many are on their way out as may be.
    pub(super) fn unlinks_at(&self, grace: Duration) -> Option<Instant> {
        self.due(grace).filter(|_| self.unlinking < UNLINKS_MAX)
    }
}

impl Chunk {
    /// An order of the meta server. The term was checked.
    pub(super) fn delete_chunks(&mut self, link: LinkId, request: u64, order: DeleteChunks) {
        let id = |(chunk, version): &(ChunkId, Version)| ReplicaId {
            chunk: *chunk,
            version: *version,
        };
        let ids: Vec<_> = order.chunks.iter().map(id).collect();
        let DeleteChunks { term, chunks } = order;
        let deleted = ChunksDeleted { term, chunks };
        self.move_to_trash(
            &ids,
            Some(Answer {
                link,
                request,
                deleted,
            }),
        );
    }

    /// Moves replicas to the trash; those that are not here are fine.
    pub(super) fn move_to_trash(&mut self, ids: &[ReplicaId], answer: Option<Answer>) {
        self.trash.moves_made += 1;
        let to = MoveId(self.trash.moves_made);
        let mut renames_left = 0;
        for id in ids {
            self.doom_copy(*id);
            let Some(replica) = self.inventory.replicas.get(id) else {
                probe::hit(Probe::DeleteOfAbsent);
                continue;
            };
            let name = id.of(replica.file);
            let why = format!("{} was told to delete {id}", self.who());
            self.break_chain(*id, WriteSeq(0), &why);
            self.forget_replica(*id);
            self.trash.last += 1;
            let n = self.trash.last;
            renames_left += 1;
            let op = DiskOp::Rename {
                from: name.path(),
                to: name.trash_path(n),
            };
            self.disk(Job::Trash(Step::Renamed(to, name, n)), op);
        }
        self.trash.moves.insert(
            to,
            Move {
                renames_left,
                answer,
            },
        );
        if renames_left == 0 {
            // What is not here may have gone a moment ago: its move must be durable before it is confirmed.
            self.sync_trash(to);
        }
    }

    /// A replica is no more: neither its entry nor its table is needed.
    pub(super) fn forget_replica(&mut self, id: ReplicaId) {
        assert!(
            !self.writing.contains_key(&id) && !self.parked.contains_key(&id),
            "its chain was broken before"
        );
        self.inventory.replicas.remove(&id);
        self.inventory.tables.forget(id);
        self.reads_are_stale(id);
        if let Some(Placed::OnItsWay(reads)) = self.placed.remove(&id) {
            self.reads.again(reads);
        }
        self.damage.retain(|(damaged, _), _| *damaged != id);
    }

    pub(super) fn trash_step_done(&mut self, step: Step, result: Result<(), DiskError>) {
        match (step, result) {
            (Step::Renamed(to, name, n), result) => {
                match result {
                    Ok(()) => self.trash.files.push_back((self.now.mono, name, n)),
                    Err(DiskError::NotFound) => {}
                    Err(error) => {
                        tracing::warn!(%name, %error, "cannot move a chunk to the trash");
                        self.trash.moves.remove(&to);
                    }
                }
                let Some(moving) = self.trash.moves.get_mut(&to) else {
                    return;
                };
                moving.renames_left -= 1;
                if moving.renames_left == 0 {
                    self.sync_trash(to);
                }
            }
            (Step::TrashSynced(to), Ok(())) => {
                let dir = FileName::new(CHUNKS);
                self.disk(Job::Trash(Step::ChunksSynced(to)), DiskOp::SyncDir { dir });
            }
            (Step::ChunksSynced(to), Ok(())) => {
                if let Some(answer) = self.trash.moves.remove(&to).and_then(|moved| moved.answer) {
                    self.send(answer.link, Msg::new(answer.request, answer.deleted));
                }
            }
            (Step::TrashSynced(to) | Step::ChunksSynced(to), Err(error)) => {
                tracing::warn!(%error, "cannot sync a directory: what was moved to the trash may come back");
                self.trash.moves.remove(&to);
            }
            (Step::Unlinked(..), Ok(())) => {
                self.trash.unlinking -= 1;
                probe::hit(Probe::TrashUnlinked);
            }
            (Step::Unlinked(name, n), Err(error)) => {
                self.trash.unlinking -= 1;
                tracing::warn!(file = %name.trash_path(n), %error, "cannot unlink");
            }
        }
    }

    fn sync_trash(&mut self, to: MoveId) {
        let dir = FileName::new(TRASH);
        self.disk(Job::Trash(Step::TrashSynced(to)), DiskOp::SyncDir { dir });
    }

    /// Unlinks what has been in the trash for the grace period.
    pub(super) fn trash_on_time(&mut self) {
        let grace = if planted::is(Bug::TrashEmptiedEarly) {
            self.timing.trash_grace / 2
        } else {
            self.timing.trash_grace
        };
        while self.trash.unlinking < UNLINKS_MAX
            && self
                .trash
                .due(grace)
                .is_some_and(|due| due <= self.now.mono)
        {
            self.trash.unlinking += 1;
            let (_, name, n) = self.trash.files.pop_front().expect("it has a due time");
            let op = DiskOp::Remove {
                file: name.trash_path(n),
            };
            self.disk(Job::Trash(Step::Unlinked(name, n)), op);
        }
    }
}
