//! A file is cut, or made longer than what is in it: the session that writes it says its size.
//!
//! What is there of it is what lies below both sizes, the old one and the new one; where that ends, it is cut. One
//! record says so, and from then on readers get zeros behind it. Whole chunks there go: at once if they are few, else
//! bit by bit, and nothing is put in their place before.
//!
//! The replicas of the chunk in which it is cut still have what was there, and more perhaps, that nobody has reported. So
//! the log notes that they are to be cut, to what it has of the chunk, and until they are the chunk is neither sealed nor made even, and what is
//! reported of it is not taken. They are cut when the session takes the chunk over ([`super::rechain::takeover`]): the
//! header that raises each of them ends there. If the session ends before, whoever writes the file next does it, or
//! the meta server itself, once the file rests. See `docs/decisions/0015-a-file-is-cut-in-the-log-first.md`.
use super::allocate::Asker;
use super::namespace::{self, Decision};
use super::rechain::{Why, Wish};
use super::reclaim::{EVERY, RETRY, batch};
use super::record::{BehindReclaimed, By, Fate, Truncated};
use super::state::ChunkState;
use super::{Io, LOG_RESERVE, Serving};
use crate::ids::{ChunkId, FileId, ID_LIMIT, LinkId, RequestNumber, SessionId};
use crate::probe::{self, Probe};
use crate::wire::client_meta::{Done, HeadSeen};
use crate::wire::{Refusal, Status};

/// A record of it has at most so many bytes.
const RECORD_BYTES: usize = 256;

/// Who asks for a cut that no session is there for.
pub(super) const fn nobody(chunk: ChunkId) -> Asker {
    Asker {
        by: By {
            request: RequestNumber(chunk.0),
            ..By::NOBODY
        },
        link: LinkId(0),
        request: 0,
    }
}

/// Whether nobody is to be answered.
pub(super) const fn is_nobody(asker: &Asker) -> bool {
    asker.by.session.0 == By::NOBODY.session.0
}

impl Serving {
    /// A session that writes a file says its size.
    pub(super) fn truncate(
        &mut self,
        io: &mut Io,
        session: SessionId,
        (file, size): (FileId, u64),
    ) -> Result<Decision, Refusal> {
        let before = namespace::file_size(&self.state, file)?;
        namespace::writes(&self.state, session, file)?;
        let bad = |what: String| {
            let what = format!("file {file} cannot have {size} bytes: {what}");
            Err(Refusal::new(Status::BadRequest, what))
        };
        if size >= ID_LIMIT {
            return bad(format!("a file has less than {ID_LIMIT}"));
        }
        let others = self.state.bytes - before;
        if others.checked_add(size).is_none() {
            return bad("all files together would be past what can be counted".into());
        }
        namespace::may_grow(&self.state, file)?;
        let geometry = self.state.geometry();
        let end = before.min(size);
        let first_behind = end.div_ceil(geometry.chunk_bytes());
        let behind = (file, first_behind)..=(file, u64::MAX);
        let behind = if self.state.chunks.range(behind).nth(batch()).is_some() {
            probe::hit(Probe::CutManyChunks);
            Fate::Kept
        } else {
            Fate::Dropped
        };
        let (index, within) = geometry.chunk_at(end);
        if within > 0
            && let Some(chunk) = self.state.chunks.get(&(file, index))
        {
            // What was said of it, and who was to write it further, were of what it was.
            self.cancel_rechain(io, chunk.chunk);
            self.sealing.forget(chunk.chunk);
            self.not_at_rest(chunk.chunk);
        }
        let lease = io.config.timing.serve_lease;
        self.sealing.look_later(io.now.mono, lease);
        probe::hit(if size < before {
            Probe::FileCut
        } else {
            Probe::FileExtended
        });
        let time = io.now.wall;
        let record = Truncated {
            file,
            size,
            behind,
            time,
        };
        Ok(Decision::Log(record.into()))
    }

    /// That a session may write a chunk of its file as it was told of it, or report what it has written.
    pub(super) fn is_uncut(&self, chunk: ChunkId) -> Result<(), Refusal> {
        if self.state.cut(chunk).is_none() {
            return Ok(());
        }
        let what = format!("its file was cut in chunk {chunk}: it must be taken over first");
        Err(Refusal::new(Status::BadRequest, what))
    }

    /// Whether the replicas of a chunk are still to be cut, and no session does it.
    pub(super) fn is_cut_by_nobody(&self, file: FileId, chunk: ChunkId) -> Result<(), Refusal> {
        if self.state.cut(chunk).is_some() && !self.state.is_written(file) {
            return Ok(());
        }
        let what = format!("a session writes file {file}, or chunk {chunk} is cut");
        Err(Refusal::new(Status::BadRequest, what))
    }

    /// The session that was to have a chunk cut has ended: it is done without one, as the chunk is not protected like
    /// others until then. Whether it was begun.
    pub(super) fn cut_at_rest(
        &mut self,
        io: &mut Io,
        at: (FileId, u64),
        chunk: &ChunkState,
    ) -> bool {
        let wish = Wish {
            target: at,
            chunk: chunk.chunk,
            version: chunk.version,
            synced: chunk.synced.unwrap_or_default(),
            head: HeadSeen::Reached,
            broken: 0,
            why: Why::TakenOver(None),
        };
        if self.rechains.has(chunk.chunk) || self.may_rechain(&wish).is_err() {
            return false;
        }
        probe::hit(Probe::CutAtRest);
        self.not_at_rest(chunk.chunk);
        self.begin_rechain(io, nobody(chunk.chunk), wish);
        true
    }

    /// A chunk was cut without a session: it is to be sealed. Or it was not, and is tried again.
    pub(super) fn cut_at_rest_ends(
        &mut self,
        io: &Io,
        at: (FileId, u64),
        outcome: &Result<Done, Refusal>,
    ) {
        let lease = io.config.timing.serve_lease;
        if outcome.is_ok() {
            self.sealing.ask_again(at.0, at.1, io.now.mono + lease);
        } else {
            self.sealing.missed();
        }
    }

    /// The next batch of chunks behind the end of files that were cut, if it is time.
    pub(super) fn reclaim_behind(&mut self, io: &mut Io) {
        let now = io.now.mono;
        let file = self.state.behind.get_min().copied();
        let Some((file, first)) = file.filter(|_| self.reclaim.behind_at <= now) else {
            return;
        };
        let reserve = LOG_RESERVE + self.allocations.len();
        if self.state.tail_lost.is_some() || self.has_room(RECORD_BYTES, reserve).is_err() {
            self.reclaim.behind_at = now + RETRY;
            return;
        }
        let all = (file, first)..=(file, u64::MAX);
        let indexes = self.state.chunks.range(all).map(|((_, index), _)| index);
        let taken: Vec<u64> = indexes.take(batch()).collect();
        let below = taken.last().filter(|_| taken.len() == batch());
        let below = below.map(|last| last + 1);
        self.reclaim.behind_at = now + EVERY;
        self.commit(io, By::NOBODY, BehindReclaimed { file, below });
    }
}
