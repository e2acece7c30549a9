//! The meta server as a client sees it: one link, one session, and every request until it is answered.
//!
//! A mutation gets its number when it is first sent and keeps it over every link until its outcome is known;
//! so the meta server does it once however often it is sent. When the session is lost, the outcome of what
//! was sent and not answered is *unknown*: it is reported so, and never sent again under another session.
//!
//! Nothing here knows about files or chunks; answers go back to whoever asked, as [`News`].
use super::{Asker, Failure, backoff, is_sound};
use crate::buggify::{self, Site};
use crate::ids::{LinkId, RequestNumber, SessionId};
use crate::limits::{Geometry, SESSION_WINDOW_MAX};
use crate::machine::{CloseReason, Output};
use crate::outbox::Outbox;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::client_meta::{
    Answer, Done, Mutate, MutateOp, OpenSession, Query, QueryOp, Renew, SessionGrant,
};
use crate::wire::status::Retry;
use crate::wire::{Head, Msg, Peer, Refusal, Role, Status};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A request that is not answered for this long takes the link down with it: it is sent again on a new one.
pub(super) const TRY: Duration = Duration::from_secs(5);
/// The shortest time between two renewals of a session, whatever the meta server says.
const RENEW_MIN: Duration = Duration::from_millis(10);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// A question: sent on any link, as often as needed.
    Query(QueryOp),
    /// A change, under whatever session stands when it is first sent.
    Mutate(MutateOp),
    /// A change that makes sense in this session only.
    MutateIn(SessionId, MutateOp),
}

/// What the meta server said.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// To a query.
    Answer(Answer),
    /// To a mutation of this session.
    Done(SessionId, Done),
}

/// What there is to tell the rest of the client.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// A request has its outcome.
    Answered(Asker, Result<Reply, Failure>),
    /// The session is over; what it was writing cannot go on.
    SessionLost(SessionId, Refusal),
}

#[derive(Clone, Debug)]
struct Pending {
    asker: Asker,
    ask: Ask,
    deadline: Instant,
    step: Step,
    /// Of a mutation that was sent and may have been done: its number, and how often it was sent.
    sent_as: Option<(RequestNumber, u32)>,
    refusals: u32,
    last_refusal: Option<Refusal>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Until there is a link, and for a mutation a session bound to it.
    Waiting,
    /// It was refused for the moment.
    Resting { until: Instant },
    /// On the link.
    Sent { request: u64, at: Instant },
}

#[derive(Clone, Copy, Debug)]
enum Line {
    Down { redial: Instant },
    Dialing { link: LinkId, since: Instant },
    Up { link: LinkId, bound: Bound },
}

/// Whether the session speaks on the link that is up.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Not,
    Asked { request: u64, at: Instant },
    Resting { until: Instant },
    Yes(Renewal),
}

#[derive(Clone, Copy, Debug)]
enum Renewal {
    Due { at: Instant },
    Asked { request: u64, at: Instant },
}

#[derive(Clone, Debug)]
pub(super) struct MetaOnClient {
    addr: SocketAddr,
    timeout: Duration,
    line: Line,
    /// Links lost or refused since something was last heard.
    attempts: u32,
    /// What went wrong last, for people.
    trouble: Option<String>,
    next_request: u64,
    session: Option<SessionGrant>,
    /// Of the session that stands or is being opened.
    nonce: u64,
    next_number: RequestNumber,
    pending: BTreeMap<u64, Pending>,
    /// Those of `pending` that are to be sent.
    waiting: BTreeSet<u64>,
    by_request: BTreeMap<u64, u64>,
    next_serial: u64,
    news: VecDeque<News>,
}

impl MetaOnClient {
    pub(super) fn new(addr: SocketAddr, timeout: Duration, rng: &mut Rng) -> Self {
        Self {
            addr,
            timeout,
            line: Line::Down { redial: Instant(0) },
            attempts: 0,
            trouble: None,
            next_request: 1,
            session: None,
            nonce: rng.u64(),
            next_number: RequestNumber(1),
            pending: BTreeMap::new(),
            waiting: BTreeSet::new(),
            by_request: BTreeMap::new(),
            next_serial: 1,
            news: VecDeque::new(),
        }
    }

    /// Takes up a request; it is sent by the next [`Self::pump`] that can.
    pub(super) fn ask(&mut self, now: Instant, asker: Asker, ask: Ask) {
        self.ask_within(now, self.timeout, asker, ask);
    }

    /// As [`Self::ask`], with a time of its own.
    pub(super) fn ask_within(&mut self, now: Instant, within: Duration, asker: Asker, ask: Ask) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let pending = Pending {
            asker,
            ask,
            deadline: now + within,
            step: Step::Waiting,
            sent_as: None,
            refusals: 0,
            last_refusal: None,
        };
        self.pending.insert(serial, pending);
        self.waiting.insert(serial);
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|grant| grant.session)
    }
    /// The sizes files are cut into, once a session has said them.
    pub(super) fn geometry(&self) -> Option<Geometry> {
        self.session.as_ref().map(|grant| grant.geometry)
    }
    pub(super) fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }
    pub(super) fn is_line(&self, link: LinkId) -> bool {
        match self.line {
            Line::Down { .. } => false,
            Line::Dialing { link: ours, .. } | Line::Up { link: ours, .. } => ours == link,
        }
    }

    pub(super) fn opened<E>(
        &mut self,
        now: Instant,
        link: LinkId,
        peer: &Peer,
        outbox: &mut Outbox<E>,
        rng: &mut Rng,
    ) {
        let Line::Dialing { link: dialing, .. } = self.line else {
            return;
        };
        assert_eq!(dialing, link, "the caller asked whose link it is");
        if peer.role != Role::Meta {
            outbox.push(Output::Close { link });
            let why = format!(
                "{} is a {}, not a meta server",
                self.addr,
                role_name(peer.role)
            );
            self.lose(now, why.clone(), rng);
            self.fail_all(&Refusal::new(Status::Protocol, why));
            return;
        }
        self.line = Line::Up {
            link,
            bound: Bound::Not,
        };
    }

    pub(super) fn closed(&mut self, now: Instant, why: &CloseReason, rng: &mut Rng) {
        self.lose(now, why.to_string(), rng);
        if let CloseReason::Refused(_) = why {
            let what = format!("the meta server {}: {why}", self.addr);
            self.fail_all(&Refusal::new(Status::Protocol, what));
        }
    }

    pub(super) fn received(&mut self, now: Instant, msg: Msg, rng: &mut Rng) {
        let Line::Up { bound, .. } = self.line else {
            return;
        };
        self.attempts = 0;
        self.trouble = None;
        let Msg { request, head, .. } = msg;
        // Every other message is none that a meta server sends to a client; it changes nothing.
        if let Head::SessionOpened(opened) = head {
            if matches!(bound, Bound::Asked { request: asked, .. } if asked == request) {
                self.session_opened(now, opened.outcome, rng);
            }
        } else if let Head::Renewed(renewed) = head {
            if matches!(bound, Bound::Yes(Renewal::Asked { request: asked, .. }) if asked == request)
            {
                match renewed.outcome {
                    Err(refusal) if refusal.status == Status::SessionExpired => {
                        self.expire(&refusal, rng)
                    }
                    Ok(()) | Err(_) => self.bind(Bound::Yes(Renewal::Due {
                        at: now + self.renew_period(),
                    })),
                }
            }
        } else if let Head::Answered(answered) = head {
            self.answered(now, request, answered.outcome, rng);
        } else if let Head::Mutated(mutated) = head {
            self.mutated(now, request, mutated.outcome, rng);
        }
    }

    /// Does all that is due: gives up, redials, binds the session, sends.
    pub(super) fn pump<E>(&mut self, now: Instant, outbox: &mut Outbox<E>, rng: &mut Rng) {
        self.give_up(now);
        self.drop_silent_line(now, outbox, rng);
        if let Line::Down { redial } = self.line
            && redial <= now
            && self.is_wanted()
        {
            if self.attempts > 0 {
                probe::hit(Probe::MetaDialedAgain);
            }
            let link = outbox.dial(self.addr);
            self.line = Line::Dialing { link, since: now };
        }
        self.send(now, outbox);
    }

    /// Closes the link for good.
    pub(super) fn hang_up<E>(&mut self, outbox: &mut Outbox<E>) {
        if let Line::Dialing { link, .. } | Line::Up { link, .. } = self.line {
            outbox.push(Output::Close { link });
        }
        self.line = Line::Down {
            redial: Instant(u64::MAX),
        };
        self.session = None;
        self.pending.clear();
        self.waiting.clear();
        self.by_request.clear();
    }

    /// Every request fails: what may have been done is unknown, the rest fails with `refusal`.
    pub(super) fn fail_all(&mut self, refusal: &Refusal) {
        self.by_request.clear();
        self.waiting.clear();
        for (_, pending) in core::mem::take(&mut self.pending) {
            let failure = match pending.sent_as {
                Some(_) => unknown(&pending.ask, &refusal.detail),
                None => refusal.clone().into(),
            };
            self.news
                .push_back(News::Answered(pending.asker, Err(failure)));
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let line = match self.line {
            Line::Down { redial } => self
                .is_wanted()
                .then_some((redial, "redial the meta server")),
            Line::Dialing { since, .. } => Some((since + TRY, "the meta server is silent")),
            Line::Up { bound, .. } => match bound {
                Bound::Not => None,
                Bound::Asked { at, .. } => Some((at + TRY, "the meta server is silent")),
                Bound::Resting { until } => Some((until, "open the session again")),
                Bound::Yes(Renewal::Due { at }) => Some((at, "renew the session")),
                Bound::Yes(Renewal::Asked { at, .. }) => {
                    Some((at + TRY, "the meta server is silent"))
                }
            },
        };
        let pending = self.pending.values().flat_map(|pending| {
            let step = match pending.step {
                Step::Waiting => None,
                Step::Resting { until } => Some((until, "ask the meta server again")),
                Step::Sent { at, .. } => Some((at + TRY, "the meta server is silent")),
            };
            [Some((pending.deadline, "a call's time is up")), step]
                .into_iter()
                .flatten()
        });
        line.into_iter().chain(pending).min_by_key(|(at, _)| *at)
    }

    fn is_wanted(&self) -> bool {
        !self.pending.is_empty() || self.session.is_some()
    }

    fn renew_period(&self) -> Duration {
        self.session
            .as_ref()
            .map_or(RENEW_MIN, |grant| (grant.idle / 4).max(RENEW_MIN))
    }

    fn bind(&mut self, to: Bound) {
        if let Line::Up { bound, .. } = &mut self.line {
            *bound = to;
        }
    }

    /// The link is gone: what was on it waits for the next one.
    fn lose(&mut self, now: Instant, why: String, rng: &mut Rng) {
        self.line = Line::Down {
            redial: now + backoff(self.attempts, rng),
        };
        self.attempts = self.attempts.saturating_add(1);
        self.trouble = Some(why);
        for (_, serial) in core::mem::take(&mut self.by_request) {
            let pending = self
                .pending
                .get_mut(&serial)
                .expect("a request on the link is pending");
            pending.step = Step::Waiting;
            if planted::is(Bug::RetryNumberedAnew) {
                pending.sent_as = None;
            }
            self.waiting.insert(serial);
        }
    }

    fn drop_silent_line<E>(&mut self, now: Instant, outbox: &mut Outbox<E>, rng: &mut Rng) {
        let (link, since) = match self.line {
            Line::Down { .. } => return,
            Line::Dialing { link, since } => (link, Some(since)),
            Line::Up { link, bound } => {
                let bound = match bound {
                    Bound::Asked { at, .. } | Bound::Yes(Renewal::Asked { at, .. }) => Some(at),
                    Bound::Not | Bound::Resting { .. } | Bound::Yes(Renewal::Due { .. }) => None,
                };
                let asked =
                    self.by_request
                        .values()
                        .filter_map(|serial| match self.pending[serial].step {
                            Step::Sent { at, .. } => Some(at),
                            Step::Waiting | Step::Resting { .. } => None,
                        });
                (link, asked.chain(bound).min())
            }
        };
        if since.is_some_and(|since| since + TRY <= now) {
            probe::hit(Probe::MetaSilent);
            outbox.push(Output::Close { link });
            self.lose(now, format!("no answer within {} s", TRY.as_secs()), rng);
        }
    }

    /// Fails what has no time left.
    fn give_up(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(serial, _)| *serial)
            .collect();
        for serial in due {
            let pending = self.take(serial).expect("it was just seen");
            let tried = match (&pending.last_refusal, &self.trouble) {
                (Some(refusal), _) => format!("last it said: {}", refusal.detail),
                (None, Some(trouble)) => format!("last trouble: {trouble}"),
                (None, None) => "nothing was heard".into(),
            };
            let waited = format!(
                "no outcome from the meta server {} within {:?} ({tried}; links lost in vain: {})",
                self.addr, self.timeout, self.attempts
            );
            let failure = match (&pending.sent_as, &pending.last_refusal) {
                (Some(_), _) => unknown(&pending.ask, &waited),
                (None, Some(refusal)) => Failure {
                    status: refusal.status,
                    what: waited,
                },
                (None, None) if self.trouble.is_some() => Failure {
                    status: Status::Unreachable,
                    what: waited,
                },
                (None, None) => Failure {
                    status: Status::TimedOut,
                    what: waited,
                },
            };
            self.news
                .push_back(News::Answered(pending.asker, Err(failure)));
        }
    }

    fn take(&mut self, serial: u64) -> Option<Pending> {
        let pending = self.pending.remove(&serial)?;
        self.waiting.remove(&serial);
        if let Step::Sent { request, .. } = pending.step {
            self.by_request.remove(&request);
        }
        Some(pending)
    }

    fn request(&mut self) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        request
    }

    fn send<E>(&mut self, now: Instant, outbox: &mut Outbox<E>) {
        for (serial, pending) in &mut self.pending {
            if matches!(pending.step, Step::Resting { until } if until <= now) {
                pending.step = Step::Waiting;
                self.waiting.insert(*serial);
            }
        }
        let Line::Up { link, bound } = self.line else {
            return;
        };
        let bound = self.keep_bound(now, link, bound, outbox);
        let mut lowest = self
            .pending
            .values()
            .filter_map(|pending| Some(pending.sent_as?.0))
            .min();
        for serial in self.waiting.iter().copied().collect::<Vec<_>>() {
            let pending = self
                .pending
                .get_mut(&serial)
                .expect("what waits is pending");
            let head: Head = match &pending.ask {
                Ask::Query(op) => Query { op: op.clone() }.into(),
                Ask::Mutate(op) | Ask::MutateIn(_, op) => {
                    let (true, Some(grant)) = (bound, &self.session) else {
                        continue;
                    };
                    if let Ask::MutateIn(session, _) = pending.ask
                        && session != grant.session
                    {
                        let failure = Failure {
                            status: Status::SessionExpired,
                            what: "the session it belonged to is over".into(),
                        };
                        let pending = self.take(serial).expect("it was just seen");
                        self.news
                            .push_back(News::Answered(pending.asker, Err(failure)));
                        continue;
                    }
                    let (number, sends) = pending.sent_as.unwrap_or((self.next_number, 0));
                    let floor = lowest.unwrap_or(number);
                    assert!(floor <= number, "numbers are given in order");
                    let window = if buggify::is(Site::SessionWindowOfTwo) {
                        2
                    } else {
                        SESSION_WINDOW_MAX
                    };
                    if number.0 - floor.0 >= window {
                        probe::hit(Probe::SessionWindowFull);
                        continue;
                    }
                    if sends == 0 {
                        self.next_number = number.next();
                    } else {
                        probe::hit(Probe::ChangeSentAgain);
                    }
                    lowest = Some(floor);
                    pending.sent_as = Some((number, sends + 1));
                    Mutate {
                        session: grant.session,
                        number,
                        lowest_unanswered: floor,
                        op: op.clone(),
                    }
                    .into()
                }
            };
            let request = self.next_request;
            self.next_request += 1;
            pending.step = Step::Sent { request, at: now };
            self.waiting.remove(&serial);
            self.by_request.insert(request, serial);
            outbox.send(link, Msg::new(request, head));
        }
    }

    /// Opens, resumes or renews the session as needed; whether it may be used now.
    fn keep_bound<E>(
        &mut self,
        now: Instant,
        link: LinkId,
        bound: Bound,
        outbox: &mut Outbox<E>,
    ) -> bool {
        let wanted = self.session.is_some()
            || self
                .pending
                .values()
                .any(|pending| !matches!(pending.ask, Ask::Query(_)));
        match bound {
            Bound::Asked { .. } => false,
            Bound::Resting { until } if until > now => false,
            Bound::Not | Bound::Resting { .. } if !wanted => {
                self.bind(Bound::Not);
                false
            }
            Bound::Not | Bound::Resting { .. } => {
                let request = self.request();
                let open = OpenSession {
                    resume: self.session(),
                    nonce: self.nonce,
                };
                outbox.send(link, Msg::new(request, open));
                self.bind(Bound::Asked { request, at: now });
                false
            }
            Bound::Yes(Renewal::Due { at }) if at <= now => {
                let request = self.request();
                let session = self.session().expect("a session that is bound stands");
                outbox.send(link, Msg::new(request, Renew { session }));
                self.bind(Bound::Yes(Renewal::Asked { request, at: now }));
                true
            }
            Bound::Yes(_) => true,
        }
    }

    fn session_opened(
        &mut self,
        now: Instant,
        outcome: Result<SessionGrant, Refusal>,
        rng: &mut Rng,
    ) {
        let refusal = match outcome {
            Ok(grant) if !is_sound(grant.geometry) => Refusal::new(
                Status::Protocol,
                format!(
                    "the meta server named impossible sizes: {:?}",
                    grant.geometry
                ),
            ),
            Ok(grant)
                if self
                    .session()
                    .is_some_and(|standing| standing != grant.session) =>
            {
                Refusal::new(
                    Status::SessionExpired,
                    "the meta server resumed another session than asked",
                )
            }
            Ok(grant) => {
                self.session = Some(grant);
                self.bind(Bound::Yes(Renewal::Due {
                    at: now + self.renew_period(),
                }));
                return;
            }
            Err(refusal) => refusal,
        };
        if refusal.status == Status::SessionExpired {
            return self.expire(&refusal, rng);
        }
        self.bind(Bound::Resting {
            until: now + backoff(3, rng),
        });
        match refusal.status.retry() {
            Retry::Later => {
                for pending in self
                    .pending
                    .values_mut()
                    .filter(|pending| !matches!(pending.ask, Ask::Query(_)))
                {
                    pending.last_refusal = Some(refusal.clone());
                }
            }
            Retry::Never => self.fail_mutations(&refusal, |_| true),
        }
    }

    /// The session is over: what may have been done under it is unknown, the rest goes to the next session.
    fn expire(&mut self, refusal: &Refusal, rng: &mut Rng) {
        self.bind(Bound::Not);
        probe::hit(Probe::SessionLost);
        self.nonce = rng.u64();
        self.next_number = RequestNumber(1);
        if planted::is(Bug::UnknownAskedAgain) {
            for (serial, pending) in &mut self.pending {
                if matches!(pending.ask, Ask::Mutate(_)) && pending.sent_as.take().is_some() {
                    if let Step::Sent { request, .. } = pending.step {
                        self.by_request.remove(&request);
                    }
                    pending.step = Step::Waiting;
                    self.waiting.insert(*serial);
                }
            }
        }
        self.fail_mutations(refusal, |pending| {
            pending.sent_as.is_some() || matches!(pending.ask, Ask::MutateIn(..))
        });
        if let Some(grant) = self.session.take() {
            self.news
                .push_back(News::SessionLost(grant.session, refusal.clone()));
        }
    }

    fn fail_mutations(&mut self, refusal: &Refusal, which: impl Fn(&Pending) -> bool) {
        let failed: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| !matches!(pending.ask, Ask::Query(_)) && which(pending))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in failed {
            let pending = self.take(serial).expect("it was just seen");
            let failure = match pending.sent_as {
                Some(_) => unknown(&pending.ask, &refusal.detail),
                None => refusal.clone().into(),
            };
            self.news
                .push_back(News::Answered(pending.asker, Err(failure)));
        }
    }

    fn answered(
        &mut self,
        now: Instant,
        request: u64,
        outcome: Result<Answer, Refusal>,
        rng: &mut Rng,
    ) {
        let Some(serial) = self.by_request.get(&request).copied() else {
            return;
        };
        let pending = self
            .pending
            .get_mut(&serial)
            .expect("a request on the link is pending");
        if !matches!(pending.ask, Ask::Query(_)) {
            return;
        }
        match outcome {
            Err(refusal) if refusal.status.retry() == Retry::Later => {
                self.rest(now, serial, refusal, rng)
            }
            outcome => {
                let pending = self.take(serial).expect("it was just seen");
                let outcome = outcome.map(Reply::Answer).map_err(Failure::from);
                self.news.push_back(News::Answered(pending.asker, outcome));
            }
        }
    }

    fn mutated(
        &mut self,
        now: Instant,
        request: u64,
        outcome: Result<Done, Refusal>,
        rng: &mut Rng,
    ) {
        let Some(serial) = self.by_request.get(&request).copied() else {
            return;
        };
        let pending = self
            .pending
            .get_mut(&serial)
            .expect("a request on the link is pending");
        let (Some((_, sends)), Some(grant)) = (pending.sent_as, &self.session) else {
            return;
        };
        let session = grant.session;
        match outcome {
            Err(refusal) if refusal.status == Status::SessionExpired => {
                // A mutation that was sent once and refused was not done: the next session may do it.
                if sends == 1 {
                    pending.sent_as = None;
                    pending.step = Step::Waiting;
                    self.by_request.remove(&request);
                    self.waiting.insert(serial);
                }
                self.expire(&refusal, rng);
            }
            Err(refusal) if refusal.status.retry() == Retry::Later => {
                // Refused at its only sending, it was not done: the next try is a new request, so that no
                // memory of the refusal answers it. After several sendings an earlier one may have been done,
                // and only the same number finds its result.
                if sends == 1 {
                    pending.sent_as = None;
                }
                self.rest(now, serial, refusal, rng);
            }
            outcome => {
                let pending = self.take(serial).expect("it was just seen");
                let outcome = outcome
                    .map(|done| Reply::Done(session, done))
                    .map_err(Failure::from);
                self.news.push_back(News::Answered(pending.asker, outcome));
            }
        }
    }

    /// It was refused for the moment.
    fn rest(&mut self, now: Instant, serial: u64, refusal: Refusal, rng: &mut Rng) {
        let pending = self.pending.get_mut(&serial).expect("the caller found it");
        if let Step::Sent { request, .. } = pending.step {
            self.by_request.remove(&request);
        }
        pending.step = Step::Resting {
            until: now + backoff(pending.refusals, rng),
        };
        pending.refusals = pending.refusals.saturating_add(1);
        pending.last_refusal = Some(refusal);
    }
}

/// What a mutation that was sent and never answered comes to.
fn unknown(ask: &Ask, why: &str) -> Failure {
    probe::hit(Probe::OutcomeUnknown);
    let what = match ask {
        Ask::Query(_) => "the question",
        Ask::Mutate(op) | Ask::MutateIn(_, op) => match op {
            MutateOp::Mkdir { .. } => "making the directory",
            MutateOp::Create { .. } => "making the file",
            MutateOp::Rename { .. } => "renaming",
            MutateOp::Remove { .. } => "removing the file",
            MutateOp::Rmdir { .. } => "removing the directory",
            MutateOp::Allocate { .. } => "making a chunk",
            MutateOp::SetSize { .. } => "reporting the size",
            MutateOp::EndSession => "ending the session",
        },
    };
    Failure {
        status: Status::Unknown,
        what: format!("whether {what} was done is not known: {why}"),
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Meta => "meta server",
        Role::Chunk => "chunkserver",
        Role::Client => "client",
    }
}
