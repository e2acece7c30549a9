//! A chunk whose chain broke is written in another one, without its writer noticing more than a pause.
//!
//! Only the session that writes a file asks for it. The members that are there are sealed: they take no more pieces,
//! forget what no sync covered, and say how far they are durable. The client has sent nothing more in the old chain
//! and hears nothing more of it, so whatever a member that cannot be reached still does is of no use to anybody, and
//! nobody has to wait until it is certain to be gone. What every sync that the client heard of has covered is on all
//! members, or the member is left out; all else the client has still, and sends it again. See
//! `docs/decisions/0008-a-broken-chain-goes-on-in-another.md`.
//!
//! 1. *Sealing*: each member says how far it has the chunk. Who does not answer in time is left out.
//! 2. *Copying*, only if fewer are left than a chunk may be written to with: others get a copy first.
//! 3. The record of the members, if these are others than before; then *resuming*: each takes pieces from the last
//!    write on that all have, and the client is told which that is.
//!
//! If no sync covered anything, and not all members are left, the chunk is made anew elsewhere.
//!
//! Every step can be done again: a round in which somebody is lost ends, and the next begins with sealing.
//!
//! A chunk that an earlier session has written is taken over in the same steps ([`takeover`]).
pub(super) mod takeover;

use super::allocate::{Asker, Failed};
use super::copying::strays::Stray;
use super::placement::{Candidate, Wanted, choose};
use super::record::{ChunkAbandoned, MembersChanged};
use super::state::ChunkState;
use super::truncation::is_nobody;
use super::{By, Io, LOG_RESERVE, Serving, namespace};
use crate::ids::{
    ChainId, ChunkId, FileId, PieceNumber, RequestNumber, ServerIndex, SessionId, Version, WriteSeq,
};
use crate::limits::HEADER_BYTES;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::{
    ChunkCopied, ChunkResumed, ChunkSealed, Content, ResumeChunk, Unsynced,
};
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{Done, Grant, HeadSeen, Place};
use crate::wire::{Refusal, Status};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Chunks that are rechained at once.
pub const RECHAINS_MAX: usize = 4_096;
/// Members have so long to say how far they are, and to take pieces again.
const SAID_WITHIN: Duration = Duration::from_secs(1);
/// A member that is still at work on what the old chain left is asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// A copy gets so long, and a second more for each MiB.
const COPIED_WITHIN: Duration = Duration::from_secs(10);
/// Rounds that are tried before the client is told to ask again.
const ROUNDS_MAX: u32 = 4;
/// A record of it has at most so many bytes.
const RECORD_BYTES: usize = 512;

type Target = (FileId, u64);

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) target: Target,
    pub(super) chunk: ChunkId,
    pub(super) version: Version,
    /// What syncs have covered, as the client knows.
    pub(super) synced: Durable,
    pub(super) head: HeadSeen,
    /// Chains that broke before this one with nothing done.
    pub(super) broken: u32,
    pub(super) why: Why,
}

/// Why a chunk is to be written in another chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// The one that its session writes in is broken.
    Broken,
    /// Another session has written it; what all replicas held then, if that was in the log.
    TakenOver(Option<Content>),
}

impl Wish {
    const fn is_takeover(&self) -> bool {
        matches!(self.why, Why::TakenOver(_))
    }
}

/// The chunks that are being rechained.
#[derive(Clone, Debug, Default)]
pub(super) struct Rechains {
    pending: BTreeMap<ChunkId, Rechain>,
    due: BTreeSet<(Instant, ChunkId)>,
    /// Which chunk a request waits for.
    asked: BTreeMap<(SessionId, RequestNumber), ChunkId>,
}

#[derive(Clone, Debug)]
struct Rechain {
    round: Round,
    stage: Stage,
    /// When the stage ends, whatever is still missing.
    until: Instant,
    /// When it is looked at next.
    due: Instant,
}

/// A try to make a chain: for whom, of what, and how many there were before it.
#[derive(Clone, Copy, Debug)]
struct Round {
    asker: Asker,
    wish: Wish,
    before: u32,
    /// Whose disk failed it in the last one.
    failed: Option<ServerIndex>,
}

#[derive(Clone, Debug)]
enum Stage {
    Sealing {
        /// Who has not answered, and whether it is to be asked again.
        waiting: BTreeMap<ServerIndex, Asked>,
        sealed: BTreeMap<ServerIndex, Sealed>,
        /// Who was asked at all: a member that came back since was not.
        asked: BTreeSet<ServerIndex>,
    },
    Copying {
        members: Vec<(ServerIndex, Durable)>,
        waiting: BTreeSet<ServerIndex>,
    },
    Resuming {
        chain: ChainId,
        members: Vec<ServerIndex>,
        missing: BTreeSet<ServerIndex>,
        from: WriteSeq,
        to: WriteSeq,
        /// Where the members end, if they are taken over.
        len: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Yes,
    Again,
}

#[derive(Clone, Copy, Debug)]
struct Sealed {
    has: Content,
    next_lost: bool,
}

/// What comes of the members that were sealed.
enum Decision {
    Resume(Vec<(ServerIndex, Durable)>),
    Copy {
        members: Vec<(ServerIndex, Durable)>,
        to: Vec<ServerIndex>,
    },
    MakeAnew,
    Wait(String),
}

impl Rechains {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
    /// Whether a chunk is being given another chain.
    pub(super) fn has(&self, chunk: ChunkId) -> bool {
        self.pending.contains_key(&chunk)
    }
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
    fn put(&mut self, rechain: Rechain) {
        let Round { asker, wish, .. } = rechain.round;
        let (chunk, by) = (wish.chunk, asker.by);
        self.asked.insert((by.session, by.request), chunk);
        self.due.insert((rechain.due, chunk));
        let before = self.pending.insert(chunk, rechain);
        assert!(before.is_none(), "a chunk is rechained once at a time");
    }
    fn take(&mut self, chunk: ChunkId) -> Option<Rechain> {
        let rechain = self.pending.remove(&chunk)?;
        let by = rechain.round.asker.by;
        self.due.remove(&(rechain.due, chunk));
        self.asked.remove(&(by.session, by.request));
        Some(rechain)
    }
    /// Nobody of this session is answered any more.
    pub(super) fn drop_session(&mut self, session: SessionId) {
        let all = (session, RequestNumber(0))..=(session, RequestNumber(u64::MAX));
        let chunks: Vec<ChunkId> = self.asked.range(all).map(|(_, chunk)| *chunk).collect();
        for chunk in chunks {
            self.take(chunk);
        }
    }
    /// Nobody is answered any more.
    pub(super) fn drop_all(&mut self) {
        *self = Self::default();
    }
    /// A request in progress is answered on the link it last came on.
    pub(super) fn rebind(&mut self, asker: Asker) -> bool {
        let by = asker.by;
        let Some(chunk) = self.asked.get(&(by.session, by.request)) else {
            return false;
        };
        let rechain = self.pending.get_mut(chunk);
        rechain.expect("who asked waits for something").round.asker = asker;
        true
    }
}

impl Serving {
    /// Begins to rechain a chunk; it is answered later.
    pub(super) fn rechain(
        &mut self,
        io: &mut Io,
        asker: Asker,
        wish: Wish,
    ) -> Result<Option<Done>, Refusal> {
        let (file, index) = wish.target;
        namespace::writes(&self.state, asker.by.session, file)?;
        match self.standing(&wish) {
            // It was given up to be made anew, and that was not answered.
            Err(_) if wish.synced.wseq == WriteSeq(0) => {
                return self.allocate(io, asker, file, index);
            }
            standing => standing?,
        };
        self.is_uncut(wish.chunk)?;
        self.may_rechain(&wish)?;
        probe::hit(Probe::RechainAsked);
        self.begin_rechain(io, asker, wish);
        Ok(None)
    }

    pub(super) fn may_rechain(&self, wish: &Wish) -> Result<(), Refusal> {
        if self.rechains.len() >= RECHAINS_MAX && !self.rechains.pending.contains_key(&wish.chunk) {
            let what = format!("{RECHAINS_MAX} chunks are being written elsewhere already");
            return Err(Refusal::new(Status::Busy, what));
        }
        Ok(())
    }

    pub(super) fn begin_rechain(&mut self, io: &mut Io, asker: Asker, wish: Wish) {
        // An earlier request for it was given up by its client.
        self.rechains.take(wish.chunk);
        let (before, failed) = (0, None);
        self.seal_members(
            io,
            Round {
                asker,
                wish,
                before,
                failed,
            },
        );
    }

    /// The chunk, if it is as the client was granted it.
    fn standing(&self, wish: &Wish) -> Result<ChunkState, Refusal> {
        let standing = self.state.chunks.get(&wish.target);
        let same = |chunk: &ChunkState| (chunk.chunk, chunk.version) == (wish.chunk, wish.version);
        standing.filter(same).ok_or_else(|| {
            let ((file, index), chunk) = (wish.target, wish.chunk);
            let what = format!("chunk {index} of file {file} is not {chunk} any more");
            Refusal::new(Status::NotFound, what)
        })
    }

    /// As [`Self::standing`], if its session writes the file still: for one that has closed it, or is over, nobody is
    /// raised, and no member left out of a chunk that is at rest now.
    fn is_wanted(&self, round: &Round) -> Result<ChunkState, Refusal> {
        let standing = self.standing(&round.wish)?;
        let (session, (file, _)) = (round.asker.by.session, round.wish.target);
        if is_nobody(&round.asker) {
            self.is_cut_by_nobody(file, round.wish.chunk)?;
        } else {
            namespace::writes(&self.state, session, file)?;
        }
        Ok(standing)
    }

    /// Asks every member that is there how far it has the chunk.
    fn seal_members(&mut self, io: &mut Io, round: Round) {
        let wish = round.wish;
        let owned = match self.is_wanted(&round) {
            Ok(owned) => owned,
            Err(refusal) => return self.rechain_ends(io, round, Err(refusal)),
        };
        let mut waiting = BTreeMap::new();
        for member in owned.members.iter() {
            if self.order_drop(io, *member, &wish) {
                waiting.insert(*member, Asked::Yes);
            }
        }
        let until = io.now.mono + SAID_WITHIN;
        let nobody = waiting.is_empty();
        let sealed = BTreeMap::new();
        let asked = waiting.keys().copied().collect();
        self.rechains.put(Rechain {
            round,
            stage: Stage::Sealing {
                waiting,
                sealed,
                asked,
            },
            until,
            due: until,
        });
        if nobody {
            self.decide_rechain(io, wish.chunk);
        }
    }

    fn order_drop(&self, io: &mut Io, member: ServerIndex, wish: &Wish) -> bool {
        let which = (wish.chunk, wish.version);
        // Who wrote it before may be gone, and will not send it again.
        let unsynced = if wish.is_takeover() {
            Unsynced::Kept
        } else {
            Unsynced::Dropped
        };
        self.order_to_seal(io, member, which, unsynced).is_some()
    }

    /// A member says how far it has a chunk. Whether that is of a chunk that is rechained.
    pub(super) fn rechain_sealed(
        &mut self,
        io: &mut Io,
        server: ServerIndex,
        m: &ChunkSealed,
    ) -> bool {
        let Rechains { pending, due, .. } = &mut self.rechains;
        let Some(rechain) = pending.get_mut(&m.chunk) else {
            return false;
        };
        let Stage::Sealing {
            waiting, sealed, ..
        } = &mut rechain.stage
        else {
            return true;
        };
        let Some(asked) = waiting.get_mut(&server) else {
            return true;
        };
        match &m.outcome {
            Ok(has) => {
                waiting.remove(&server);
                let next_lost = m.next_lost;
                sealed.insert(
                    server,
                    Sealed {
                        has: *has,
                        next_lost,
                    },
                );
            }
            Err(refusal) if refusal.status == Status::Busy => {
                *asked = Asked::Again;
                due.remove(&(rechain.due, m.chunk));
                rechain.due = rechain.due.min(io.now.mono + AGAIN_AFTER);
                due.insert((rechain.due, m.chunk));
            }
            Err(refusal) => {
                tracing::warn!(chunk = %m.chunk, %server, %refusal, "a member cannot be written to further");
                waiting.remove(&server);
            }
        }
        if waiting.is_empty() {
            self.decide_rechain(io, m.chunk);
        }
        true
    }

    /// All members have said how far they are, or had the time to.
    fn decide_rechain(&mut self, io: &mut Io, chunk: ChunkId) {
        let Some(Rechain { round, stage, .. }) = self.rechains.take(chunk) else {
            return;
        };
        let Stage::Sealing {
            sealed,
            waiting,
            asked,
        } = stage
        else {
            unreachable!("it is decided on what was sealed");
        };
        let silent = Failed::of(waiting.into_keys().map(silent).collect());
        let owned = match self.is_wanted(&round) {
            Ok(owned) => owned,
            Err(refusal) => return self.rechain_ends(io, round, Err(refusal)),
        };
        let is_back = |member: &ServerIndex| {
            let heard = self.roster.get(*member);
            heard.is_some_and(|heard| heard.is_up()) && !asked.contains(member)
        };
        if owned.members.iter().any(is_back) {
            return self.next_round(io, round);
        }
        match self.rechain_decision(io, &round, &owned, &sealed, &silent) {
            Decision::Resume(members) => self.resume(io, round, &owned, &members),
            Decision::Copy { members, to } => {
                self.copy_for_rechain(io, round, &owned, members, &to);
            }
            Decision::MakeAnew => self.make_anew(io, round, silent),
            Decision::Wait(what) => {
                probe::hit(Probe::RechainWaits);
                self.rechain_ends(io, round, Err(Refusal::new(Status::Busy, what)));
            }
        }
    }

    fn rechain_decision(
        &self,
        io: &mut Io,
        Round {
            asker,
            wish,
            failed,
            ..
        }: &Round,
        owned: &ChunkState,
        sealed: &BTreeMap<ServerIndex, Sealed>,
        silent: &Failed,
    ) -> Decision {
        let (file, index) = wish.target;
        let wanted = usize::from(self.state.replication(file));
        let needed = self.needed(io, file);
        let least = if planted::is(Bug::RechainForgetsSynced) {
            Durable::default()
        } else {
            wish.synced.max(owned.synced.unwrap_or_default())
        };
        let mut members: Vec<(ServerIndex, Durable)> = owned
            .members
            .iter()
            .filter_map(|member| Some((*member, sealed.get(member)?.has.durable)))
            .filter(|(_, has)| has.covers(least))
            .collect();
        if let Why::TakenOver(known) = wish.why {
            let same = takeover::most(&members, sealed, known);
            members.retain(|(member, _)| same.contains(member));
        }
        if members.len() > 1 {
            members.retain(|(member, _)| Some(*member) != *failed);
        }
        let is_anew = least.wseq == WriteSeq(0) && self.state.unnamed.contains(&wish.target);
        if is_anew && members.len() < wanted {
            let others = self.members(io, wish.target, asker.link, silent);
            match others {
                Ok(others) if others.len() > members.len() => return Decision::MakeAnew,
                Err(refusal) if members.len() < needed => return Decision::Wait(refusal.detail),
                Ok(_) | Err(_) => {}
            }
        }
        // Who the client cannot reach takes pieces from another member.
        let head_lost = wish.head == HeadSeen::Lost && !planted::is(Bug::RechainKeepsHead);
        if head_lost && members.len() > 1 && members[0].0 == owned.members[0] {
            probe::hit(Probe::RechainTurned);
            members.rotate_left(1);
        }
        // If two cannot reach one another, who is nearer the tail is left out; the first time it may pass.
        let (all, mut left_out) = (members.clone(), None);
        if wish.broken > 0 && !planted::is(Bug::RechainKeepsBoth) {
            let pairs = owned.members.windows(2);
            let apart = pairs.rev().find(|pair| {
                let lost = sealed.get(&pair[0]).is_some_and(|sealed| sealed.next_lost);
                lost && members.iter().any(|(member, _)| *member == pair[1])
            });
            if let Some(pair) = apart
                && members.len() > 1
            {
                probe::hit(Probe::RechainLeftOut);
                left_out = Some(pair[1]);
                members.retain(|(member, _)| *member != pair[1]);
            }
        }
        let few = !members.is_empty() && planted::is(Bug::RechainTakesFew);
        if members.len() >= needed || few {
            return Decision::Resume(members);
        }
        if members.is_empty() {
            return Decision::Wait(format!(
                "no chunkserver is there that has what was synced of chunk {index} of file {file}"
            ));
        }
        let missing = needed - members.len();
        let others = self.roster.iter().filter(|(server, heard)| {
            heard.is_up()
                && self.takes_new(*server)
                && Some(*server) != left_out
                && Some(*server) != *failed
                && members.iter().all(|(member, _)| member != server)
        });
        let candidates: Vec<Candidate> = others
            .map(|(server, heard)| self.candidate(server, heard))
            .collect();
        let racks = members
            .iter()
            .filter_map(|(member, _)| self.state.roster.get(member));
        let wants = Wanted {
            replicas: missing,
            bytes_free_min: self.chunk_file_bytes() + HEADER_BYTES,
            client: None,
            racks_taken: racks.map(|member| member.rack.to_string()).collect(),
        };
        let to = choose(&candidates, &wants, &mut io.rng);
        if to.len() < missing && all.len() >= needed {
            // Without the one that was left out there are too few: perhaps they reach one another again.
            return Decision::Resume(all);
        }
        if to.len() < missing {
            let live = members.len();
            return Decision::Wait(format!(
                "{live} live chunkservers have chunk {index} of file {file} as it was synced, at least {needed} are needed to write to it, and no other has room for a copy"
            ));
        }
        Decision::Copy { members, to }
    }

    /// Nothing of it was synced: other members make a new one, and the client sends all again.
    fn make_anew(&mut self, io: &mut Io, round: Round, silent: Failed) {
        let Round { asker, wish, .. } = round;
        if let Err(refusal) = self.has_room(2 * RECORD_BYTES, LOG_RESERVE) {
            return self.rechain_ends(io, round, Err(refusal));
        }
        probe::hit(Probe::RechainMadeAnew);
        self.commit(io, By::NOBODY, ChunkAbandoned { chunk: wish.chunk });
        if let Err(refusal) = self.make(io, wish.target, vec![asker], silent) {
            self.rechain_ends(io, round, Err(refusal));
        }
    }

    /// Others get a copy of what the member that has most of it has.
    fn copy_for_rechain(
        &mut self,
        io: &mut Io,
        round: Round,
        owned: &ChunkState,
        members: Vec<(ServerIndex, Durable)>,
        to: &[ServerIndex],
    ) {
        let Wish { target, chunk, .. } = round.wish;
        let most = members.iter().max_by_key(|(_, has)| has.wseq);
        let (source, has) = *most.expect("somebody has it");
        let room = self.chunk_file_bytes();
        let mut waiting = BTreeSet::new();
        for server in to {
            if self.order_to_copy(io, (*server, source), target.0, owned, has, room) {
                probe::hit(Probe::RechainCopies);
                waiting.insert(*server);
            }
        }
        let until = io.now.mono + COPIED_WITHIN + Duration::from_secs(has.len >> 20);
        let nobody = waiting.is_empty();
        self.rechains.put(Rechain {
            round,
            stage: Stage::Copying { members, waiting },
            until,
            due: until,
        });
        if nobody {
            self.copied_for_rechain(io, chunk);
        }
    }

    /// A copy is there, or could not be made. Whether it is one of a chunk that is rechained.
    pub(super) fn rechain_copied(
        &mut self,
        io: &mut Io,
        server: ServerIndex,
        m: &ChunkCopied,
    ) -> bool {
        let Some(rechain) = self.rechains.pending.get_mut(&m.chunk) else {
            return false;
        };
        let Stage::Copying { members, waiting } = &mut rechain.stage else {
            return false;
        };
        if rechain.round.wish.version != m.version || !waiting.remove(&server) {
            return false;
        }
        match &m.outcome {
            Ok(has) => {
                members.push((server, has.durable));
                // Until it is a member, whatever becomes of this.
                let (version, is_known) = (m.version, true);
                let stray = Stray { version, is_known };
                self.roster.strays.found(server, m.chunk, stray);
            }
            Err(refusal) => {
                tracing::warn!(chunk = %m.chunk, %server, %refusal, "a copy to go on writing to could not be made");
            }
        }
        if waiting.is_empty() {
            self.copied_for_rechain(io, m.chunk);
        }
        true
    }

    /// The copies are there that could be made.
    fn copied_for_rechain(&mut self, io: &mut Io, chunk: ChunkId) {
        let Some(Rechain { round, stage, .. }) = self.rechains.take(chunk) else {
            return;
        };
        let Stage::Copying { members, .. } = stage else {
            unreachable!("copies were awaited");
        };
        let needed = self.needed(io, round.wish.target.0);
        match self.is_wanted(&round) {
            Ok(owned) if members.len() >= needed => self.resume(io, round, &owned, &members),
            Ok(_) => {
                let what = "no copy could be made on another chunkserver to go on writing to";
                self.rechain_ends(io, round, Err(Refusal::new(Status::Busy, what)));
            }
            Err(refusal) => self.rechain_ends(io, round, Err(refusal)),
        }
    }

    /// A chunk of this file is written to by so many servers at least.
    fn needed(&self, io: &Io, file: FileId) -> usize {
        usize::from(io.config.min_replicas.min(self.state.replication(file)))
    }

    /// Logs the members, if they are others, and orders them to take pieces.
    fn resume(
        &mut self,
        io: &mut Io,
        round: Round,
        owned: &ChunkState,
        members: &[(ServerIndex, Durable)],
    ) {
        let Round { asker, wish, .. } = round;
        let (chunk, version) = (wish.chunk, wish.version);
        let wseqs = || members.iter().map(|(_, has)| has.wseq);
        let to = wseqs().max().expect("there is a member");
        let from = if planted::is(Bug::RechainFromFarthest) {
            to
        } else {
            wseqs().min().expect("there is a member")
        };
        let list: Vec<ServerIndex> = members.iter().map(|(member, _)| *member).collect();
        let places: Option<Vec<Place>> = list.iter().map(|member| self.place(*member)).collect();
        let orders: Option<Vec<_>> = list
            .iter()
            .map(|member| self.roster.orders_to(*member))
            .collect();
        let (Some(places), Some(orders)) = (places, orders) else {
            return self.next_round(io, round);
        };
        if *owned.members != *list && !wish.is_takeover() {
            if let Err(refusal) = self.has_room(RECORD_BYTES, LOG_RESERVE) {
                return self.rechain_ends(io, round, Err(refusal));
            }
            tracing::info!(%chunk, members = ?list, before = ?owned.members, "a chunk is written by other members");
            let members = list.clone();
            self.commit(
                io,
                By::NOBODY,
                MembersChanged {
                    chunk,
                    version,
                    members,
                },
            );
            for member in owned.members.iter().filter(|member| !list.contains(member)) {
                self.strayed_from(*member, &wish);
            }
            for member in list.iter().filter(|member| !owned.members.contains(member)) {
                self.roster.mended(*member, chunk, &mut self.copies);
            }
        }
        let raised = if wish.is_takeover() {
            match self.raise_from(io, &wish, to) {
                Ok(raised) => raised,
                Err(refusal) => return self.rechain_ends(io, round, Err(refusal)),
            }
        } else {
            None
        };
        // In a header that raises nobody there is no cut either.
        let cut = raised.and_then(|_| self.state.cut(chunk));
        let len = members.iter().map(|(_, has)| has.len).max().unwrap_or(0);
        let len = cut.map_or(len, |cut| cut.min(len));
        let chain = ChainId(io.rng.u64().max(1));
        for (link, term) in orders {
            let order = ResumeChunk {
                term,
                chunk,
                version,
                chain,
                members: places.clone(),
                session: asker.by.session,
                from,
                to,
                raised,
                cut: cut.filter(|_| !planted::is(Bug::CutNotOrdered)),
            };
            self.reply(io, link, 0, order);
        }
        let until = io.now.mono + SAID_WITHIN;
        let (from, to) = (raised.unwrap_or(from), raised.unwrap_or(to));
        self.rechains.put(Rechain {
            round,
            stage: Stage::Resuming {
                chain,
                missing: list.iter().copied().collect(),
                members: list,
                from,
                to,
                len,
            },
            until,
            due: until,
        });
    }

    /// A server is no member any more: what it has is nobody's replica.
    fn strayed_from(&mut self, server: ServerIndex, wish: &Wish) {
        if self.roster.forget(server, wish.chunk, &mut self.copies) {
            let stray = Stray {
                version: wish.version,
                is_known: true,
            };
            self.roster.strays.found(server, wish.chunk, stray);
        }
    }

    /// A member takes pieces again, or cannot.
    pub(super) fn chunk_resumed(&mut self, io: &mut Io, link: super::LinkId, m: &ChunkResumed) {
        let Some(server) = self.in_term(io, link, m.term) else {
            return;
        };
        let Some(rechain) = self.rechains.pending.get_mut(&m.chunk) else {
            return;
        };
        let Stage::Resuming { chain, missing, .. } = &mut rechain.stage else {
            return;
        };
        if *chain != m.chain || !missing.remove(&server) {
            return;
        }
        let all = missing.is_empty();
        if let Err(refusal) = &m.outcome {
            tracing::warn!(chunk = %m.chunk, %server, %refusal, "a member does not take pieces again");
            let Rechain { round, .. } = self.rechains.take(m.chunk).expect("it was just found");
            let failed = (refusal.status == Status::LocalIo).then_some(server);
            return self.next_round(io, Round { failed, ..round });
        }
        if !rechain.round.wish.is_takeover() {
            self.roster.resumed(server, m.chunk, &mut self.copies);
        }
        if all {
            self.resumed(io, m.chunk);
        }
    }

    /// All members take pieces: the client may send them.
    fn resumed(&mut self, io: &mut Io, chunk: ChunkId) {
        let Rechain { round, stage, .. } = self.rechains.take(chunk).expect("just found");
        let Stage::Resuming {
            members,
            from,
            to,
            len,
            ..
        } = stage
        else {
            unreachable!("it was just found");
        };
        if round.wish.is_takeover() {
            return self.taken_over(io, round, members, Durable { len, wseq: from });
        }
        let standing = self.standing(&round.wish);
        let grant = standing.and_then(|owned| self.grant(round.wish.target, &owned));
        let grant = grant.map(|grant| Grant {
            from: PieceNumber(from.0),
            to: PieceNumber(to.0),
            ..grant
        });
        probe::hit(Probe::Rechained);
        self.rechain_ends(io, round, grant.map(Done::Granted));
    }

    fn next_round(&mut self, io: &mut Io, round: Round) {
        probe::hit(Probe::RechainNextRound);
        let before = round.before + 1;
        if before >= ROUNDS_MAX {
            let what = "its members come and go: it cannot be written to at the moment";
            return self.rechain_ends(io, round, Err(Refusal::new(Status::Busy, what)));
        }
        self.seal_members(io, Round { before, ..round });
    }

    fn rechain_ends(&mut self, io: &mut Io, round: Round, outcome: Result<Done, Refusal>) {
        if is_nobody(&round.asker) {
            return self.cut_at_rest_ends(io, round.wish.target, &outcome);
        }
        self.answer(io, &[round.asker], self.state.seq, &outcome);
    }

    /// A server is not there any more.
    pub(super) fn rechains_lost(&mut self, io: &mut Io, server: ServerIndex) {
        let concerns = |rechain: &Rechain| match &rechain.stage {
            Stage::Sealing {
                waiting, sealed, ..
            } => waiting.contains_key(&server) || sealed.contains_key(&server),
            Stage::Copying { members, waiting } => {
                waiting.contains(&server) || members.iter().any(|(member, _)| *member == server)
            }
            // One that has resumed already is lost to the chain as well.
            Stage::Resuming { members, .. } => members.contains(&server),
        };
        let pending = self.rechains.pending.iter();
        let lost: Vec<ChunkId> = pending
            .filter(|(_, rechain)| concerns(rechain))
            .map(|(chunk, _)| *chunk)
            .collect();
        for chunk in lost {
            let rechain = self.rechains.pending.get_mut(&chunk).expect("just found");
            if let Stage::Sealing {
                waiting,
                sealed,
                asked,
            } = &mut rechain.stage
            {
                asked.remove(&server);
                waiting.remove(&server);
                sealed.remove(&server);
                if waiting.is_empty() {
                    self.decide_rechain(io, chunk);
                }
            } else {
                let rechain = self.rechains.take(chunk).expect("just found");
                self.next_round(io, rechain.round);
            }
        }
    }

    pub(super) fn rechains_on_time(&mut self, io: &mut Io) {
        let now = io.now.mono;
        while let Some((_, chunk)) = self
            .rechains
            .due
            .first()
            .copied()
            .filter(|(at, _)| *at <= now)
        {
            let mut rechain = self.rechains.take(chunk).expect("what is due is pending");
            let over = rechain.until <= now;
            match &mut rechain.stage {
                Stage::Sealing { waiting, .. } if !over => {
                    let again: Vec<ServerIndex> = waiting
                        .iter()
                        .filter(|(_, asked)| **asked == Asked::Again)
                        .map(|(member, _)| *member)
                        .collect();
                    for member in &again {
                        waiting.insert(*member, Asked::Yes);
                    }
                    rechain.due = rechain.until;
                    let wish = rechain.round.wish;
                    self.rechains.put(rechain);
                    for member in again {
                        self.order_drop(io, member, &wish);
                    }
                }
                Stage::Sealing { .. } => {
                    probe::hit(Probe::RechainOverdue);
                    rechain.due = rechain.until;
                    self.rechains.put(rechain);
                    self.decide_rechain(io, chunk);
                }
                Stage::Copying { .. } => {
                    self.rechains.put(rechain);
                    self.copied_for_rechain(io, chunk);
                }
                Stage::Resuming { .. } => {
                    self.next_round(io, rechain.round);
                }
            }
        }
    }

    /// A chunk has left the table: its file was removed, or closed.
    pub(super) fn cancel_rechain(&mut self, io: &mut Io, chunk: ChunkId) {
        if let Some(rechain) = self.rechains.take(chunk) {
            let what = "the file was removed, or closed, while its chunk was given another chain";
            let refusal = Refusal::new(Status::NotFound, what);
            self.rechain_ends(io, rechain.round, Err(refusal));
        }
    }
}

/// A member that did not say in time how far it is: no new chunk is made there.
fn silent(member: ServerIndex) -> (ServerIndex, Refusal) {
    let why = "it did not say how far it has the chunk whose place this takes";
    (member, Refusal::new(Status::ChainBroken, why))
}
