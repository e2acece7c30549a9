//! Sessions: a change asked for twice is done once and answered twice the same.
//!
//! Results of what changed something are in the state, and so in the log. What changed nothing (refusals, and
//! chunks granted) is kept here in the same window, in memory: after a restart it is decided again, which is
//! safe, because who asks again was not answered.
use super::allocate::Asker;
use super::namespace::{self, Decision, NewFile, SizeReport};
use super::rechain::{Why, Wish};
use super::record::{By, FileRemoved, Record, SessionEnded, SessionOpened as SessionOpenedRecord};
use super::roster::drop_link;
use super::state::State;
use super::{Io, LOG_RESERVE, LinkRole, Serving};
use crate::ids::{LinkId, LogSeq, RequestNumber, SessionId};
use crate::limits::{PATH_BYTES_MAX, SESSION_WINDOW_MAX};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_meta::{
    Done, Mutate, MutateOp, Mutated, OpenSession, Renew, Renewed, SessionGrant, SessionOpened,
};
use crate::wire::{Msg, Refusal, Status};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the sessions besides what the log knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    live: BTreeMap<SessionId, Live>,
    /// When to look whether a session is silent; it may have been heard since.
    due: BTreeSet<(Instant, SessionId)>,
    /// Of before the start, and not taken up since: what their clients hold is not known.
    unresumed: BTreeSet<SessionId>,
}

#[derive(Clone, Debug)]
struct Live {
    link: Option<LinkId>,
    /// The last one it was taken up on, there or not: what opens it on an older one has come late.
    newest: Option<LinkId>,
    heard: Instant,
    lowest: RequestNumber,
    /// Answers that changed nothing.
    answers: BTreeMap<RequestNumber, (LogSeq, Outcome)>,
}

type Outcome = Result<Done, Refusal>;

/// What a session asks is looked at once more after this, if its end could not be logged.
const RETRY_END: Duration = Duration::from_secs(1);

impl Sessions {
    /// Of a state that was just loaded: every session is given its time again.
    pub(super) fn of(state: &State, now: Instant, idle: Duration) -> Self {
        let mut sessions = Self::default();
        for (session, known) in &state.sessions {
            sessions.add(*session, known.lowest, now, idle);
            if !planted::is(Bug::RestartForgetsHolders) {
                sessions.unresumed.insert(*session);
            }
        }
        sessions
    }
    fn add(&mut self, session: SessionId, lowest: RequestNumber, now: Instant, idle: Duration) {
        let live = Live {
            link: None,
            newest: None,
            heard: now,
            lowest,
            answers: BTreeMap::new(),
        };
        self.live.insert(session, live);
        self.due.insert((now + idle, session));
    }
    /// Something came on a link that is a session's.
    pub(super) fn heard(&mut self, session: SessionId, link: LinkId, now: Instant) {
        if let Some(live) = self
            .live
            .get_mut(&session)
            .filter(|live| live.link == Some(link))
        {
            live.heard = now;
        }
    }
    /// Whether the session was taken up on a newer link than this one: its client has left this one.
    fn left(&self, session: SessionId, link: LinkId) -> bool {
        let newest = self.live.get(&session).and_then(|live| live.newest);
        newest.is_some_and(|newest| link < newest) && !planted::is(Bug::LateOpeningTaken)
    }
    /// A link that was a session's is gone.
    pub(super) fn unbind(&mut self, session: SessionId, link: LinkId) {
        if let Some(live) = self
            .live
            .get_mut(&session)
            .filter(|live| live.link == Some(link))
        {
            live.link = None;
        }
    }
    /// Keeps an answer that changed nothing, for who asks again. "Busy" is not kept: asking again is the point.
    pub(super) fn remember(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        seq: LogSeq,
        outcome: &Outcome,
    ) {
        let busy = outcome
            .as_ref()
            .is_err_and(|refusal| refusal.status == Status::Busy);
        if let Some(live) = self
            .live
            .get_mut(&session)
            .filter(|live| !busy && number >= live.lowest)
        {
            live.answers.insert(number, (seq, outcome.clone()));
        }
    }
    /// Sessions alive, and the most answers that changed nothing kept for one.
    pub(super) fn kept(&self) -> (usize, usize) {
        let most = self.live.values().map(|live| live.answers.len()).max();
        (self.live.len(), most.unwrap_or(0))
    }
    /// Whether every session of before the start was taken up, or has ended.
    pub(super) fn are_resumed(&self) -> bool {
        self.unresumed.is_empty()
    }
    /// When to look next whether a session is silent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

impl Serving {
    pub(super) fn open_session(
        &mut self,
        io: &mut Io,
        link: LinkId,
        request: u64,
        m: &OpenSession,
    ) {
        let known = m
            .resume
            .or_else(|| self.state.nonces.get(&m.nonce).copied());
        if known.is_some_and(|session| self.sessions.left(session, link)) {
            return probe::hit(Probe::LateDuplicateDropped);
        }
        let outcome = match (m.resume, known) {
            (Some(session), _) if self.state.sessions.contains_key(&session) => {
                probe::hit(Probe::SessionResumed);
                Ok(session)
            }
            (Some(session), _) => Err(expired(session)),
            (None, Some(session)) => {
                probe::hit(Probe::SessionOpenedTwice);
                Ok(session)
            }
            (None, None) => self
                .has_room(128, LOG_RESERVE)
                .map(|()| self.begin_session(io, m.nonce)),
        };
        let outcome = outcome.map(|session| {
            self.bind(io, session, link);
            SessionGrant {
                session,
                idle: io.config.timing.session_idle,
                geometry: self.state.geometry(),
            }
        });
        self.reply(
            io,
            link,
            request,
            SessionOpened {
                seq: self.state.seq,
                outcome,
            },
        );
    }

    fn begin_session(&mut self, io: &mut Io, nonce: u64) -> SessionId {
        let session = SessionId::issued(self.state.epoch, self.state.next_counter());
        self.commit(io, By::NOBODY, SessionOpenedRecord { session, nonce });
        self.sessions.add(
            session,
            RequestNumber(1),
            io.now.mono,
            io.config.timing.session_idle,
        );
        session
    }

    /// The session speaks on this link from now on; requests that still come on an older one are dropped.
    fn bind(&mut self, io: &mut Io, session: SessionId, link: LinkId) {
        if let Some(LinkRole::Session(before)) = io.links.get(&link).map(|link| link.role)
            && before != session
        {
            self.sessions.unbind(before, link);
        }
        if let Some(link) = io.links.get_mut(&link) {
            link.role = LinkRole::Session(session);
        }
        let live = self
            .sessions
            .live
            .get_mut(&session)
            .expect("every session of the state is live");
        live.link = Some(link);
        live.newest = Some(link);
        live.heard = io.now.mono;
        self.sessions.unresumed.remove(&session);
    }

    pub(super) fn renew(&mut self, io: &mut Io, link: LinkId, request: u64, m: &Renew) {
        let outcome = match self.sessions.live.get_mut(&m.session) {
            Some(live) => {
                live.heard = io.now.mono;
                Ok(())
            }
            None => Err(expired(m.session)),
        };
        self.reply(io, link, request, Renewed { outcome });
    }

    pub(super) fn mutate(&mut self, io: &mut Io, link: LinkId, request: u64, m: Mutate) {
        let Mutate {
            session,
            number,
            lowest_unanswered,
            op,
        } = m;
        let Some(live) = self.sessions.live.get_mut(&session) else {
            return self.mutated(io, link, request, self.state.seq, Err(expired(session)));
        };
        match live.link {
            Some(bound) if bound == link => {}
            // A late duplicate on a link that the session has left.
            Some(_) => return probe::hit(Probe::LateDuplicateDropped),
            // It was taken up here and elsewhere since, and left there: its client takes it up anew on another link.
            None if io
                .links
                .get(&link)
                .is_some_and(|link| link.role == LinkRole::Session(session))
                && !planted::is(Bug::LateOpeningTaken) =>
            {
                return drop_link(io, link);
            }
            None => {
                let what = "the session must be taken up again on this link first";
                return self.mutated(
                    io,
                    link,
                    request,
                    self.state.seq,
                    Err(Refusal::new(Status::BadRequest, what)),
                );
            }
        }
        if lowest_unanswered > live.lowest {
            live.lowest = lowest_unanswered;
            live.answers = live.answers.split_off(&lowest_unanswered);
        }
        let known = self
            .state
            .sessions
            .get(&session)
            .expect("a live session is in the state");
        let lowest = live.lowest.max(known.lowest);
        if number < lowest {
            return;
        }
        if number.0 - lowest.0 >= SESSION_WINDOW_MAX {
            let what = format!(
                "request {number} is {SESSION_WINDOW_MAX} or more above the oldest unanswered one, {lowest}"
            );
            return self.mutated(
                io,
                link,
                request,
                self.state.seq,
                Err(Refusal::new(Status::Busy, what)),
            );
        }
        if let Some((seq, done)) = known.result(number) {
            let done = done.clone();
            probe::hit(Probe::RetryFromResults);
            return self.mutated(io, link, request, seq, Ok(done));
        }
        if let Some((seq, outcome)) = live.answers.get(&number).cloned() {
            probe::hit(Probe::RetryFromMemory);
            return self.mutated(io, link, request, seq, outcome);
        }
        let by = By {
            session,
            request: number,
            lowest,
        };
        let asker = Asker { by, link, request };
        if self.rebind(asker) {
            return probe::hit(Probe::DuplicateWaits);
        }
        if let Some((seq, outcome)) = self.decide(io, asker, op) {
            self.mutated(io, link, request, seq, outcome);
        }
    }

    /// Does what is asked, or says why not; `None`: it will be answered later.
    fn decide(&mut self, io: &mut Io, asker: Asker, op: MutateOp) -> Option<(LogSeq, Outcome)> {
        let By {
            session,
            request: number,
            ..
        } = asker.by;
        let time = io.now.wall;
        let state = &self.state;
        let decided = self.may_change(io, &op).and_then(|()| {
            self.has_room(record_bytes_max(&op), LOG_RESERVE + self.allocations.len())
        });
        let decided = match (decided, op) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), MutateOp::Allocate { file, index }) => {
                match self.allocate(io, asker, file, index) {
                    Ok(None) => return None,
                    Ok(Some(done)) => Ok(Decision::Unchanged(done)),
                    Err(refusal) => Err(refusal),
                }
            }
            (
                Ok(()),
                MutateOp::Rechain {
                    file,
                    index,
                    chunk,
                    version,
                    synced,
                    head,
                    broken,
                },
            ) => {
                let wish = Wish {
                    target: (file, index),
                    chunk,
                    version,
                    synced,
                    head,
                    broken,
                    why: Why::Broken,
                };
                match self.rechain(io, asker, wish) {
                    Ok(None) => return None,
                    Ok(Some(done)) => Ok(Decision::Unchanged(done)),
                    Err(refusal) => Err(refusal),
                }
            }
            (Ok(()), MutateOp::TakeOver { file, index }) => {
                match self.take_over(io, asker, file, index) {
                    Ok(None) => return None,
                    Ok(Some(done)) => Ok(Decision::Unchanged(done)),
                    Err(refusal) => Err(refusal),
                }
            }
            (Ok(()), MutateOp::Truncate { file, len }) => self.truncate(io, session, (file, len)),
            (Ok(()), MutateOp::Append { at }) => namespace::append(state, session, &at),
            (Ok(()), MutateOp::Mkdir { at, parents, owner }) => {
                namespace::mkdir(state, &at, parents, owner, time)
            }
            (
                Ok(()),
                MutateOp::Create {
                    at,
                    owner,
                    replication,
                    keep,
                },
            ) => {
                let replication = if replication == 0 {
                    io.config.replication
                } else {
                    replication
                };
                namespace::create(
                    state,
                    &at,
                    NewFile {
                        owner,
                        replication,
                        keep,
                        time,
                    },
                )
            }
            (Ok(()), MutateOp::Rename { from, to, mode }) => {
                namespace::rename(state, &from, &to, mode, time, |file| self.fate(io, file))
            }
            (Ok(()), MutateOp::Remove { at }) => {
                namespace::remove(state, &at, time, |file| self.fate(io, file))
            }
            (Ok(()), MutateOp::RemoveTree { at }) => namespace::remove_tree(state, &at, time),
            (Ok(()), MutateOp::Rmdir { at }) => namespace::rmdir(state, &at, time),
            (
                Ok(()),
                MutateOp::SetSize {
                    file,
                    size,
                    basis,
                    writer,
                },
            ) => namespace::set_size(
                state,
                session,
                &SizeReport {
                    file,
                    size,
                    basis: &basis,
                    writer,
                    time,
                },
            ),
            (Ok(()), MutateOp::EndSession) => {
                Ok(Decision::Log(SessionEnded { session, time }.into()))
            }
            (Ok(()), MutateOp::AcceptRollback) => {
                Ok(Decision::Log(self.accept_rollback(io).into()))
            }
            (Ok(()), MutateOp::Drain { node, drain }) => self.drain(io, node, drain),
            (Ok(()), MutateOp::SetReplication { .. }) if self.copies.is_behind() => {
                Err(Refusal::new(
                    Status::Busy,
                    "the chunks of too many large files are being counted anew",
                ))
            }
            (Ok(()), MutateOp::SetReplication { at, replication }) => {
                namespace::set_replication(state, &at, replication, time)
            }
            (Ok(()), MutateOp::SetAttributes { at, to }) => {
                namespace::set_attributes(state, &at, to, time)
            }
        };
        if planted::is(Bug::RenameInTwoRecords)
            && let Ok(Decision::Log(Record::Renamed(renamed))) = &decided
            && let Some(replaced) = self.state.tree.get(&renamed.to)
            && namespace::file_size(&self.state, replaced).is_ok()
        {
            let (key, fate) = (renamed.to.clone(), renamed.replaced);
            self.commit(io, By::NOBODY, FileRemoved { key, fate, time });
        }
        match decided {
            Ok(Decision::Log(record)) => {
                let ends = matches!(record, Record::SessionEnded(_));
                if matches!(record, Record::RollbackAccepted(_)) {
                    // Nobody writes a file any more.
                    self.allocations.drop_all();
                    self.rechains.drop_all();
                }
                let (seq, done) = self.commit(io, asker.by, record);
                if ends {
                    self.forget_session(session);
                }
                Some((seq, Ok(done)))
            }
            Ok(Decision::Unchanged(done)) => {
                let outcome = Ok(done);
                self.sessions
                    .remember(session, number, self.state.seq, &outcome);
                Some((self.state.seq, outcome))
            }
            Err(refusal) => {
                let outcome = Err(refusal);
                self.sessions
                    .remember(session, number, self.state.seq, &outcome);
                Some((self.state.seq, outcome))
            }
        }
    }

    /// Answers a mutation.
    pub(super) fn mutated(
        &self,
        io: &mut Io,
        link: LinkId,
        request: u64,
        seq: LogSeq,
        outcome: Outcome,
    ) {
        assert!(seq <= self.state.seq, "an answer is of a state that was");
        if outcome.is_err() && planted::is(Bug::RefusalUngated) {
            return io
                .outbox
                .send(link, Msg::new(request, Mutated { seq, outcome }));
        }
        self.reply(io, link, request, Mutated { seq, outcome });
    }

    pub(super) fn expire_sessions(&mut self, io: &mut Io) {
        let (now, idle) = (io.now.mono, io.config.timing.session_idle);
        while let Some((at, session)) = self
            .sessions
            .due
            .first()
            .copied()
            .filter(|(at, _)| *at <= now)
        {
            self.sessions.due.remove(&(at, session));
            let Some(heard) = self.sessions.live.get(&session).map(|live| live.heard) else {
                continue;
            };
            if heard + idle > now {
                self.sessions.due.insert((heard + idle, session));
            } else if self.has_room(128, 0).is_err()
                || self.state.tail_lost.is_some()
                || self.awaits_witnesses(&io.config, io.now).is_some()
            {
                // With its end go its temporary files: a part of the log that is missing may have renamed them.
                self.sessions.due.insert((now + RETRY_END, session));
            } else {
                probe::hit(Probe::SessionExpired);
                if self.state.is_writing(session) {
                    probe::hit(Probe::SessionExpiredWriting);
                }
                self.commit(
                    io,
                    By::NOBODY,
                    SessionEnded {
                        session,
                        time: io.now.wall,
                    },
                );
                self.forget_session(session);
            }
        }
    }

    fn forget_session(&mut self, session: SessionId) {
        self.sessions.live.remove(&session);
        self.sessions.unresumed.remove(&session);
        self.allocations.drop_session(session);
        self.rechains.drop_session(session);
    }
}

fn expired(session: SessionId) -> Refusal {
    Refusal::new(
        Status::SessionExpired,
        format!("session {session} is unknown, or has expired"),
    )
}

/// The most bytes of the record that this may become.
const fn record_bytes_max(op: &MutateOp) -> usize {
    const FIXED: usize = 1_024;
    match op {
        // A component of one byte and its slash become a name of two bytes and an id of ten.
        MutateOp::Mkdir { at, .. } => {
            let path = if at.path.len() < PATH_BYTES_MAX {
                at.path.len()
            } else {
                PATH_BYTES_MAX
            };
            FIXED + 7 * path
        }
        MutateOp::SetSize { basis, .. } => FIXED + 16 * basis.len(),
        MutateOp::Create { .. }
        | MutateOp::Rename { .. }
        | MutateOp::Remove { .. }
        | MutateOp::Rmdir { .. }
        | MutateOp::RemoveTree { .. }
        | MutateOp::Allocate { .. }
        | MutateOp::Rechain { .. }
        | MutateOp::Append { .. }
        | MutateOp::TakeOver { .. }
        | MutateOp::Truncate { .. }
        | MutateOp::EndSession
        | MutateOp::Drain { .. }
        | MutateOp::SetReplication { .. }
        | MutateOp::SetAttributes { .. }
        | MutateOp::AcceptRollback => FIXED,
    }
}
