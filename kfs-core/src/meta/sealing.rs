//! Sealing: what a chunk at rest holds goes into the log, once all of its replicas have said the same.
//!
//! From then on a replica of it is what the log says, or damaged: one that lost a sync, one whose disk was set back,
//! and one that has more than the others because its writer died in the middle of a sync. Who is asked takes no more
//! pieces, as the writer may be gone without knowing it; and what all have said stays so until the record is made,
//! for each of them is still in the term that it said it in.
//!
//! After the death of a writer, or a takeover that was broken off, they may differ behind what size reports have named.
//! As far as readers see they are the same; but they are made equal first ([`super::copying::evening`]). If all hold
//! the same then, and it is more than was reported, the log has that from now on: as many as the file asks for have
//! it, so a member that is away and has less is none that is needed. Files stay as long as they are.
//!
//! A file is looked at when it was closed some time ago. Whatever else brings chunks to rest (the end of a session, a
//! copy that was missing, a start) only says that all chunks are to be looked through again, a few at a time.
use super::copying::evening::Uneven;
use super::record::{By, Sealed};
use super::state::ChunkState;
use super::{Io, LOG_RESERVE, Serving};
use crate::ids::{ChunkId, FileId, ServerIndex, Term, Version};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::Status;
use crate::wire::chunk_meta::{ChunkSealed, Content, Unsynced};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Files, or chunks, that wait for their turn. What is beyond it is found by looking.
const QUEUE_MAX: usize = 4_096;
/// Chunks whose members are asked at once.
const ASKED_MAX: usize = 64;
/// What there is in memory of it at most.
pub const WORK_MAX: usize = QUEUE_MAX + ASKED_MAX;
/// Chunks that are asked about in one go, and that are looked at.
const ASKED_AT_ONCE: usize = 8;
const LOOKED_AT: usize = 512;
/// Between two goes.
const EVERY: Duration = Duration::from_millis(20);
/// Who was at work on a replica is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// In leases: how long a file rests before it is asked about, members have to answer, and until all chunks are looked
/// through again.
const REST: u32 = 2;
const ANSWER: u32 = 2;
const LOOK_AGAIN: u32 = 12;
/// A record of it has at most so many bytes.
const RECORD_BYTES: usize = 640;

/// What is being done about chunks that are not sealed.
#[derive(Clone, Debug, Default)]
pub(super) struct Sealing {
    queue: BTreeSet<Turn>,
    asked: BTreeMap<ChunkId, Asked>,
    /// Where looking through all chunks goes on, while somebody looks.
    looks: Option<(FileId, u64)>,
    /// Whether there may be chunks to be found by looking, and before when nobody looks.
    missed: bool,
    look_at: Instant,
    next: Instant,
}

/// Whose turn it is when.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Turn {
    at: Instant,
    file: FileId,
    index: u64,
    /// Whether the chunks behind it come too.
    all: bool,
}

/// A chunk whose members were asked.
#[derive(Clone, Debug)]
struct Asked {
    version: Version,
    /// What each has said, in which term.
    answers: BTreeMap<ServerIndex, (Term, Option<Content>)>,
    due: Instant,
}

/// What came of the attempt to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asking {
    Asked,
    /// There is nothing to ask, until something else happens to the chunk.
    Nothing,
    /// Not all of its replicas are there.
    Later,
}

impl Sealing {
    pub(super) fn of(now: Instant, lease: Duration) -> Self {
        let mut sealing = Self::default();
        sealing.look_later(now, lease);
        sealing
    }
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.asked.len()
    }
    /// Whether members of the chunk are being asked.
    pub(super) fn asks(&self, chunk: ChunkId) -> bool {
        self.asked.contains_key(&chunk)
    }
    /// What was said of a chunk does not count.
    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.asked.remove(&chunk);
    }
    /// A file was closed.
    pub(super) fn rests(&mut self, file: FileId, now: Instant, lease: Duration) {
        let turn = Turn {
            at: now + lease * REST,
            file,
            index: 0,
            all: true,
        };
        self.push(turn);
    }
    /// Chunks may have come to rest.
    pub(super) fn look_later(&mut self, now: Instant, lease: Duration) {
        self.missed = true;
        self.look_at = self.look_at.max(now + lease * REST);
    }
    /// As [`Self::look_later`], if it was not to be so anyway.
    pub(super) fn missed(&mut self) {
        self.missed = true;
    }
    /// The members of a chunk are to be asked again.
    pub(super) fn ask_again(&mut self, file: FileId, index: u64, at: Instant) {
        let all = false;
        self.push(Turn {
            at,
            file,
            index,
            all,
        });
    }
    fn push(&mut self, turn: Turn) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.insert(turn);
        } else {
            self.missed = true;
        }
    }
    fn due(&self) -> Option<Instant> {
        let paced = |at: Instant| at.max(self.next);
        [
            self.asked.values().map(|asked| asked.due).min(),
            self.queue.first().map(|turn| paced(turn.at)),
            self.looks.map(|_| self.next),
            self.missed.then(|| paced(self.look_at)),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Serving {
    /// When chunks at rest are asked about next.
    pub(super) fn sealing_due(&self) -> Option<Instant> {
        self.sealing
            .due()
            .filter(|_| self.state.tail_lost.is_none())
    }

    /// Asks about chunks at rest, as far as it is time.
    pub(super) fn seal_at_rest(&mut self, io: &mut Io) {
        let now = io.now.mono;
        if self.sealing_due().is_none_or(|due| due > now) {
            return;
        }
        let asked = self.sealing.asked.len();
        self.sealing.asked.retain(|_, asked| asked.due > now);
        self.sealing.missed |= self.sealing.asked.len() < asked;
        if self.sealing.next > now {
            return;
        }
        self.sealing.next = now + EVERY;
        let free = ASKED_MAX - self.sealing.asked.len();
        let mut left = free.min(ASKED_AT_ONCE);
        for _ in 0..LOOKED_AT {
            let turn = self.sealing.queue.first().copied();
            let Some(turn) = turn.filter(|turn| turn.at <= now && left > 0) else {
                break;
            };
            self.sealing.queue.remove(&turn);
            let from = (turn.file, turn.index);
            let Some((at, chunk)) = self.state.chunks.range(from..).next() else {
                continue;
            };
            if at.0 != turn.file || (at.1 != turn.index && !turn.all) {
                continue;
            }
            if turn.all {
                let index = at.1 + 1;
                self.sealing.push(Turn { index, ..turn });
            }
            match self.ask_at_rest(io, at, &chunk) {
                Asking::Asked => left -= 1,
                Asking::Nothing => {}
                Asking::Later => self.sealing.missed = true,
            }
        }
        self.look_for_rest(io, left);
    }

    /// Looks through the next chunks for some that nobody said of that they rest.
    fn look_for_rest(&mut self, io: &mut Io, most: usize) {
        let now = io.now.mono;
        let lease = io.config.timing.serve_lease;
        if self.sealing.looks.is_none() && self.sealing.missed && self.sealing.look_at <= now {
            self.sealing.missed = false;
            self.sealing.look_at = now + lease * LOOK_AGAIN;
            self.sealing.looks = Some((FileId(0), 0));
        }
        let Some(from) = self.sealing.looks.filter(|_| most > 0) else {
            return;
        };
        let mut found = Vec::new();
        let mut next = None;
        for (looked_at, (at, chunk)) in self.state.chunks.range(from..).enumerate() {
            if looked_at == LOOKED_AT || found.len() == most {
                next = Some(at);
                break;
            }
            if chunk.sealed.is_none() {
                found.push((at, chunk));
            }
        }
        self.sealing.looks = next;
        for (at, chunk) in found {
            if self.ask_at_rest(io, at, &chunk) == Asking::Later {
                self.sealing.missed = true;
            }
        }
    }

    fn ask_at_rest(&mut self, io: &mut Io, at: (FileId, u64), chunk: &ChunkState) -> Asking {
        let log = self.state.logged(at.0, at.1, chunk);
        if chunk.sealed.is_some() || self.state.is_written(at.0) || log.len == 0 {
            return Asking::Nothing;
        }
        let good = self.good(chunk);
        if self.sealing.asks(chunk.chunk)
            || self.copying.makes(chunk.chunk)
            || self.copying.evens(chunk.chunk)
            || good.len() < usize::from(self.state.replication(at.0))
        {
            return Asking::Later;
        }
        if self.state.cut(chunk.chunk).is_some() {
            return if !planted::is(Bug::CutNotFinished) && self.cut_at_rest(io, at, chunk) {
                Asking::Asked
            } else {
                Asking::Later
            };
        }
        let mut answers = BTreeMap::new();
        for server in good {
            let which = (chunk.chunk, chunk.version);
            if let Some(term) = self.order_to_seal(io, server, which, Unsynced::Kept) {
                answers.insert(server, (term, None));
            }
        }
        let asked = Asked {
            version: chunk.version,
            answers,
            due: io.now.mono + io.config.timing.serve_lease * ANSWER,
        };
        self.sealing.asked.insert(chunk.chunk, asked);
        Asking::Asked
    }

    /// A member says what it holds. Whether it was asked because the chunk rests.
    pub(super) fn rest_told(&mut self, io: &mut Io, server: ServerIndex, m: &ChunkSealed) -> bool {
        let asked = self.sealing.asked.get_mut(&m.chunk);
        let asked = asked.filter(|asked| asked.version == m.version);
        let Some((_, answer)) = asked
            .and_then(|asked| asked.answers.get_mut(&server))
            .filter(|(term, _)| *term == m.term)
        else {
            return false;
        };
        match &m.outcome {
            Ok(content) => {
                *answer = Some(*content);
                self.seal(io, m.chunk);
            }
            Err(refusal) => {
                self.sealing.asked.remove(&m.chunk);
                let at = self.state.owners.get(&m.chunk);
                match at.filter(|_| refusal.status == Status::Busy) {
                    Some((file, index)) => {
                        self.sealing.ask_again(file, index, io.now.mono + AGAIN);
                    }
                    None => self.sealing.missed = true,
                }
            }
        }
        true
    }

    /// Seals a chunk, if all have said the same of it and are still those who have it.
    fn seal(&mut self, io: &mut Io, chunk: ChunkId) {
        let asked = &self.sealing.asked[&chunk];
        let said = asked.answers.iter();
        let said = said.map(|(server, (term, said))| Some((*server, *term, (*said)?)));
        let Some(said) = said.collect::<Option<Vec<(ServerIndex, Term, Content)>>>() else {
            return;
        };
        let asked = self
            .sealing
            .asked
            .remove(&chunk)
            .expect("it was just there");
        let Some((_, owned, log)) = self.at_rest(chunk) else {
            return;
        };
        let same_terms = said.iter().all(|(server, term, _)| {
            let orders = self.roster.orders_to(*server);
            orders.is_some_and(|(_, now)| now == *term)
        });
        let good: BTreeSet<ServerIndex> = self.good(&owned).into_iter().collect();
        let all = good.iter().eq(asked.answers.keys());
        if self.state.cut(chunk).is_some() {
            self.sealing.missed = true;
            return;
        }
        if owned.version != asked.version || owned.sealed.is_some() || !same_terms || !all {
            self.sealing.missed = true;
            return;
        }
        let version = owned.version;
        let (.., content) = said[0];
        if said.iter().any(|(.., other)| *other != content) {
            return self.differ(io, chunk, Uneven { version, said });
        }
        let known = owned.synced.unwrap_or_default();
        let has_all = owned.is_had_by(log, content) && content.durable.covers(known);
        if !has_all || self.has_room(RECORD_BYTES, LOG_RESERVE).is_err() {
            self.sealing.missed = true;
            return;
        }
        if content.durable != known {
            probe::hit(Probe::SealedMore);
            tracing::info!(%chunk, ?content, ?known, "a chunk at rest is sealed with more than was reported of it");
            // Who has not said that it holds that is no member any more: there are enough.
            let members = owned.members.iter().copied();
            let gone: Vec<_> = members.filter(|member| !good.contains(member)).collect();
            if !gone.is_empty() {
                self.take_off(io, &owned, &gone);
            }
        }
        probe::hit(Probe::ChunkSealed);
        let sealed = Sealed {
            chunk,
            version,
            content,
        };
        self.commit(io, By::NOBODY, sealed);
        self.copying.is_even(chunk);
    }
}
