//! A chunk that an earlier session has written is written further by another one.
//!
//! Whoever wrote it may be alive still, cut off, and its session over: what it sends must never meet what comes now.
//! Both would number their writes on from the same one, and a replica that was left out with more of the old ones
//! would look as good as one that has the new ones. So the members are *raised* first: each writes a header, durably,
//! that says that it is at a write above every number that was ever given out of the chunk
//! ([`crate::ids::WriteSeq::taken_over`]). The number is logged before anybody is told it, so that the next one is
//! above it whatever becomes of this one. When all have raised, that is logged, with the members that have; from then
//! on who is not among them has less than the log says, however much it has of the old session's writes. See
//! `docs/decisions/0012-a-closed-file-is-written-further.md`.
//!
//! Before that the members are sealed as at rest, so that what was acknowledged and no sync has covered stays too, and
//! only those go on that hold the same: the most that any of them has. The others get copies, as far as they are
//! needed; else they are strays from now on.
//!
//! If its file was cut in it, the header that raises a member ends where it was cut. Who is raised has nothing behind
//! that any more, and who is not is none of them.
//!
//! If the log has a digest of the chunk, it is taken out before anybody is raised: a crash in between would leave
//! replicas that are not what it says.
use super::{RECORD_BYTES, Round, Sealed, Why, Wish};
use crate::ids::PieceNumber;
use crate::ids::{FileId, ServerIndex, WriteSeq};
use crate::meta::allocate::Asker;
use crate::meta::record::{By, ChunkTaken, MembersChanged, TakeoverBegun, Unsealed};
use crate::meta::{Io, LOG_RESERVE, Serving, namespace};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::chunk_meta::Content;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{Done, Grant, HeadSeen};
use crate::wire::{Refusal, Status};
use std::collections::{BTreeMap, BTreeSet};

/// The members that hold the most, and the same; `known` is what they held at rest, if that was in the log.
pub(super) fn most(
    members: &[(ServerIndex, Durable)],
    sealed: &BTreeMap<ServerIndex, Sealed>,
    known: Option<Content>,
) -> BTreeSet<ServerIndex> {
    if planted::is(Bug::TakeoverTakesAll) {
        return members.iter().map(|(member, _)| *member).collect();
    }
    let held = members
        .iter()
        .filter_map(|(member, _)| Some((*member, sealed.get(member)?.has)));
    // What is past that was raised by a round before this one.
    let is_raised = |has: &Content, known: Content| {
        let above = known.durable.wseq.taken_over();
        has.durable.len == known.durable.len && above.is_some_and(|above| has.durable.wseq >= above)
    };
    let fits = |has: &Content| known.is_none_or(|known| *has == known || is_raised(has, known));
    let held: Vec<_> = held.filter(|(_, has)| fits(has)).collect();
    let most = held.iter().max_by_key(|(_, has)| has.durable.wseq);
    let Some((_, most)) = most.copied() else {
        return BTreeSet::new();
    };
    let same = held.iter().filter(|(_, has)| *has == most);
    same.map(|(member, _)| *member).collect()
}

/// The write that members are raised to which are at this one.
pub(super) fn above(wseq: WriteSeq) -> Result<Option<WriteSeq>, Refusal> {
    if planted::is(Bug::TakeoverNotRaised) {
        return Ok(None);
    }
    wseq.taken_over().map(Some).ok_or_else(|| {
        let what = "the chunk was written by more sessions, one after another, than can be counted";
        Refusal::new(Status::BadRequest, what)
    })
}

impl Serving {
    /// Begins to take over a chunk of a file that the session writes; it is answered later.
    pub(in crate::meta) fn take_over(
        &mut self,
        io: &mut Io,
        asker: Asker,
        file: FileId,
        index: u64,
    ) -> Result<Option<Done>, Refusal> {
        namespace::writes(&self.state, asker.by.session, file)?;
        let target = (file, index);
        if self.state.is_behind(target) {
            namespace::may_grow(&self.state, file)?;
        }
        let Some(owned) = self.state.chunks.get(&target) else {
            // The file was made longer than what is in it.
            return Ok(Some(Done::Ok));
        };
        let Some(synced) = owned.synced else {
            let what = format!("chunk {index} of file {file} is this session's own");
            return Err(Refusal::new(Status::BadRequest, what));
        };
        let known = owned.sealed.map(|digest| Content {
            durable: synced,
            digest,
        });
        let wish = Wish {
            target,
            chunk: owned.chunk,
            version: owned.version,
            synced,
            head: HeadSeen::Reached,
            broken: 0,
            why: Why::TakenOver(known),
        };
        self.may_rechain(&wish)?;
        probe::hit(Probe::TakeoverAsked);
        // What was said of it at rest may not be so any more when the last one says so.
        self.sealing.forget(wish.chunk);
        self.not_at_rest(wish.chunk);
        if known.is_some() {
            let (chunk, version) = (wish.chunk, wish.version);
            self.commit(io, By::NOBODY, Unsealed { chunk, version });
        }
        self.begin_rechain(io, asker, wish);
        Ok(None)
    }

    /// To which write the members are raised that are at this one at most, which is in the log before anybody is: one
    /// that is, and is not heard of then, must be behind those that are raised without it.
    pub(super) fn raise_from(
        &mut self,
        io: &mut Io,
        wish: &Wish,
        held: WriteSeq,
    ) -> Result<Option<WriteSeq>, Refusal> {
        let (chunk, version) = (wish.chunk, wish.version);
        let begun = self.state.raising.get(&chunk).copied();
        let Some(to) = above(begun.map_or(held, |begun| begun.max(held)))? else {
            return Ok(None);
        };
        self.has_room(RECORD_BYTES, LOG_RESERVE)?;
        let begun = TakeoverBegun { chunk, version, to };
        self.commit(io, By::NOBODY, begun);
        Ok(Some(to))
    }

    /// All members are raised and take pieces: that is logged, and the client may send them.
    pub(super) fn taken_over(
        &mut self,
        io: &mut Io,
        round: Round,
        members: Vec<ServerIndex>,
        synced: Durable,
    ) {
        let Wish {
            target,
            chunk,
            version,
            ..
        } = round.wish;
        // Its client may have given up, and closed the file.
        let owned = match self.is_wanted(&round) {
            Ok(owned) => owned,
            Err(refusal) => return self.rechain_ends(io, round, Err(refusal)),
        };
        if let Err(refusal) = self.has_room(RECORD_BYTES, LOG_RESERVE) {
            return self.rechain_ends(io, round, Err(refusal));
        }
        probe::hit(Probe::ChunkTakenOver);
        tracing::info!(%chunk, ?members, before = ?owned.members, "a chunk is written further by another session");
        let taken = ChunkTaken {
            chunk,
            version,
            members: members.clone(),
            synced,
        };
        if planted::is(Bug::TakeoverNotRaised) {
            let members = members.clone();
            let changed = MembersChanged {
                chunk,
                version,
                members,
            };
            self.commit(io, By::NOBODY, changed);
        } else {
            self.commit(io, By::NOBODY, taken);
        }
        for member in owned
            .members
            .iter()
            .filter(|member| !members.contains(member))
        {
            self.strayed_from(*member, &round.wish);
        }
        for member in &members {
            self.roster.mended(*member, chunk, &mut self.copies);
        }
        let owned = self
            .state
            .chunks
            .get(&target)
            .expect("it was just taken over");
        let grant = self.grant(target, &owned).map(|grant| Grant {
            from: PieceNumber(synced.wseq.0),
            to: PieceNumber(synced.wseq.0),
            ..grant
        });
        let len = synced.len;
        let done = grant.map(|grant| Done::TakenOver { grant, len });
        self.rechain_ends(io, round, done);
    }
}
