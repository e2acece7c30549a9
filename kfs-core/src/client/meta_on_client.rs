//! The meta server as a client sees it: one link, one session, and every request until it is answered.
//!
//! A mutation gets its number when it is first sent and keeps it over every link until its outcome is known;
//! so the meta server does it once however often it is sent. When the session is lost, the outcome of what
//! was sent and not answered is *unknown*: it is reported so, and never sent again under another session.
//!
//! Nothing here knows about files or chunks; answers go back to whoever asked, as [`News`].
use super::requests::{Pending, Requests, SentAs, Serial, Step};
use super::{Asker, Failure, backoff, is_sound};
use crate::buggify::{self, Site};
use crate::ids::{FileId, LinkId, RequestNumber, SessionId};
use crate::limits::{Geometry, HOLD_PAGE_MAX, SESSION_WINDOW_MAX};
use crate::machine::{CloseReason, Output};
use crate::outbox::Outbox;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::client_meta::{
    Answer, Done, Kind, Mutate, MutateOp, OpenSession, Query, QueryOp, Renew, SessionGrant,
    WriterStays,
};
use crate::wire::status::Retry;
use crate::wire::{Head, Msg, Peer, Refusal, Role, Status};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

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
    /// Until then nobody else may write what the session writes: the meta server has heard it not so long ago.
    lives_until: Instant,
    /// Of the session that stands or is being opened.
    nonce: u64,
    next_number: RequestNumber,
    pending: Requests,
    news: VecDeque<News>,
    held: Held,
    /// Files that the session writes no more, of which the meta server has not said that it knows.
    leaving: BTreeMap<FileId, Leaving>,
}

/// Whether the meta server is being told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    Told,
    /// It would not hear of it.
    Refused,
}

/// The files that are open, which the meta server is to keep if they are removed.
#[derive(Clone, Debug)]
struct Held {
    /// How often each is open.
    files: BTreeMap<FileId, u32>,
    /// A hold ends when nothing came on its link for this long.
    idle: Duration,
    /// When the meta server is to hear something.
    renew: Instant,
}

impl Held {
    fn renewed(&mut self, now: Instant) {
        self.renew = now + (self.idle / 4).max(RENEW_MIN);
    }
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
            lives_until: Instant(0),
            nonce: rng.u64(),
            next_number: RequestNumber(1),
            pending: Requests::new(),
            news: VecDeque::new(),
            held: Held {
                files: BTreeMap::new(),
                idle: Duration::ZERO,
                renew: Instant(0),
            },
            leaving: BTreeMap::new(),
        }
    }

    /// A file was opened, and the meta server has noted that.
    pub(super) fn opened_file(&mut self, now: Instant, file: FileId, idle: Duration) {
        self.held.idle = idle;
        if self.held.files.is_empty() {
            self.held.renewed(now);
        }
        *self.held.files.entry(file).or_default() += 1;
    }

    /// A file was closed. On a link that comes later it is not told of again; on this one it is taken back.
    pub(super) fn closed_file(&mut self, now: Instant, file: FileId) {
        if let Some(count) = self.held.files.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                self.held.files.remove(&file);
            }
        }
        self.let_go(now, file);
    }

    /// As [`Self::closed_file`], of all that are open; whether there is anybody to tell.
    pub(super) fn closed_files(
        &mut self,
        now: Instant,
        within: Duration,
        files: Vec<FileId>,
    ) -> bool {
        self.held.files.clear();
        let told = matches!(self.line, Line::Up { .. }) && !files.is_empty();
        for file in files.into_iter().filter(|_| told) {
            let release = Ask::Query(QueryOp::Release { file });
            self.ask_within(now, within, Asker::Nobody, release);
        }
        told
    }

    fn let_go(&mut self, now: Instant, file: FileId) {
        if matches!(self.line, Line::Up { .. }) {
            let release = Ask::Query(QueryOp::Release { file });
            self.ask(now, Asker::Nobody, release);
        }
    }

    /// Tells the meta server on a new link what is open still.
    fn hold_again(&mut self, now: Instant) {
        if self.held.files.is_empty() || planted::is(Bug::HoldsNotToldAgain) {
            return;
        }
        probe::hit(Probe::HeldAgain);
        let times = |(file, count): (&FileId, &u32)| core::iter::repeat_n(*file, *count as usize);
        let files: Vec<FileId> = self.held.files.iter().flat_map(times).collect();
        for page in files.chunks(HOLD_PAGE_MAX) {
            self.ask_hold(page.to_vec());
        }
        self.held.renewed(now);
    }

    /// It is asked as long as the link is there, whatever else has a time limit.
    fn ask_hold(&mut self, files: Vec<FileId>) {
        let hold = Ask::Query(QueryOp::Hold { files });
        self.pending.add(Asker::Nobody, hold, Instant(u64::MAX));
    }

    /// Takes up a request; it is sent by the next [`Self::pump`] that can.
    pub(super) fn ask(&mut self, now: Instant, asker: Asker, ask: Ask) {
        self.ask_within(now, self.timeout, asker, ask);
    }

    /// As [`Self::ask`], with a time of its own.
    pub(super) fn ask_within(&mut self, now: Instant, within: Duration, asker: Asker, ask: Ask) {
        self.pending.add(asker, ask, now + within);
    }

    /// The session writes a file of this size no more. The meta server is told until it answers: it keeps everybody else
    /// from the file until then.
    pub(super) fn stop_writing(&mut self, session: SessionId, file: FileId, size: u64) {
        let op = MutateOp::SetSize {
            file,
            size,
            basis: Vec::new(),
            writer: WriterStays::Closed,
        };
        self.leaving.insert(file, Leaving::Told);
        let ask = Ask::MutateIn(session, op);
        self.pending.add(Asker::LetGo(file), ask, Instant(u64::MAX));
    }

    /// The meta server was told that a file is written no more, or will not be.
    pub(super) fn stopped_writing(&mut self, file: FileId, outcome: &Result<Reply, Failure>) {
        let refused = outcome.as_ref().err().is_some_and(|failure| {
            // Else it is not this session's any more, or not there.
            let over = [Status::BadRequest, Status::NotFound];
            !over.contains(&failure.status)
        });
        if !refused {
            self.leaving.remove(&file);
        } else if let Some(leaving) = self.leaving.get_mut(&file) {
            *leaving = Leaving::Refused;
        }
    }

    /// What is there of a file that was let go of, and no size rests on, is there until the meta server has heard that.
    /// The pieces of who writes it next would have the numbers of those, and be taken for them: it waits.
    fn is_leaving(
        &mut self,
        serial: Serial,
        session: SessionId,
        outcome: &Result<Done, Refusal>,
    ) -> Option<Refusal> {
        let Ok(Done::Appending { file, size, .. }) = *outcome else {
            return None;
        };
        let leaving = *self.leaving.get(&file)?;
        if leaving == Leaving::Refused {
            self.stop_writing(session, file, size);
        }
        // What is known of it is not to be remembered.
        self.pending.number(serial, None);
        let what = "it was open for writing here, and the meta server has not let go of it yet";
        Some(Refusal::new(Status::Busy, what))
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
        self.hold_again(now);
    }

    pub(super) fn closed(&mut self, now: Instant, why: &CloseReason, rng: &mut Rng) {
        self.lose(now, why.to_string(), rng);
        if let CloseReason::Refused(_) = why {
            let what = format!("the meta server {}: {why}", self.addr);
            self.fail_all(&Refusal::new(Status::Protocol, what));
        }
    }

    /// Whether the session may be taken to stand: what it sends to chunkservers takes effect before another one may
    /// write there. The time runs from when the meta server was asked, which is before it heard that.
    pub(super) fn may_write(&self, now: Instant) -> bool {
        now < self.lives_until || planted::is(Bug::WritesWithoutLease)
    }

    fn session_heard(&mut self, asked: Instant) {
        if let Some(grant) = &self.session {
            self.lives_until = asked + grant.idle / 4 * 3;
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
            if let Bound::Asked { request: asked, at } = bound
                && asked == request
            {
                self.session_opened(now, opened.outcome, rng);
                if matches!(
                    self.line,
                    Line::Up {
                        bound: Bound::Yes(_),
                        ..
                    }
                ) {
                    self.session_heard(at);
                }
            }
        } else if let Head::Renewed(renewed) = head {
            if let Bound::Yes(Renewal::Asked { request: asked, at }) = bound
                && asked == request
            {
                if renewed.outcome.is_ok() {
                    self.session_heard(at);
                }
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
        if let (Line::Up { .. }, true) = (self.line, self.renews_holds(now)) {
            self.ask_hold(Vec::new());
            self.held.renewed(now);
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
        self.held.files.clear();
        drop(self.pending.take_all());
    }

    /// Every request fails: what may have been done is unknown, the rest fails with `refusal`.
    pub(super) fn fail_all(&mut self, refusal: &Refusal) {
        for pending in self.pending.take_all() {
            let failure = match pending.sent_as() {
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
        let sent = self.pending.sent_first().map(|at| at + TRY);
        let holds = matches!(self.line, Line::Up { .. }) && !self.held.files.is_empty();
        let of = |at: Option<Instant>, what| at.map(|at| (at, what));
        let others = [
            of(self.pending.due_first(), "a call's time is up"),
            of(self.pending.rested_first(), "ask the meta server again"),
            of(sent, "the meta server is silent"),
            of(
                holds.then_some(self.held.renew),
                "say that files are open still",
            ),
        ];
        line.into_iter()
            .chain(others.into_iter().flatten())
            .min_by_key(|(at, _)| *at)
    }

    fn is_wanted(&self) -> bool {
        !self.pending.is_empty() || self.session.is_some() || !self.held.files.is_empty()
    }

    fn renews_holds(&self, now: Instant) -> bool {
        self.held.renew <= now && !self.held.files.is_empty()
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
        for serial in self.pending.on_link() {
            if planted::is(Bug::RetryNumberedAnew) {
                self.pending.number(serial, None);
            }
            self.pending.step(serial, Step::Waiting);
        }
        // What is held is told anew on the next link; what is not, is not.
        for pending in self.pending.take_of_link() {
            let failure = Failure {
                status: Status::Unreachable,
                what: "its link is gone".into(),
            };
            let news = News::Answered(pending.asker, Err(failure));
            self.news.push_back(news);
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
                (
                    link,
                    self.pending.sent_first().into_iter().chain(bound).min(),
                )
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
        while let Some(pending) = self.pending.take_due(now) {
            let tried = match (&pending.last_refusal, &self.trouble) {
                (Some(refusal), _) => format!("last it said: {}", refusal.detail),
                (None, Some(trouble)) => format!("last trouble: {trouble}"),
                (None, None) => "nothing was heard".into(),
            };
            let waited = format!(
                "no outcome from the meta server {} within {:?} ({tried}; links lost in vain: {})",
                self.addr, self.timeout, self.attempts
            );
            let failure = match (pending.sent_as(), &pending.last_refusal) {
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

    fn request(&mut self) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        request
    }

    fn send<E>(&mut self, now: Instant, outbox: &mut Outbox<E>) {
        self.pending.wake(now);
        let Line::Up { link, bound } = self.line else {
            return;
        };
        // A session that is taken up says that its client has said all that it holds.
        self.send_holds(now, link, outbox);
        let bound = self.keep_bound(now, link, bound, outbox);
        // Holds are counted: one is not to be taken back, or another to be added, before those of an older link are
        // all told.
        let tells = self.pending.tells_holds();
        for serial in self.pending.to_send(bound.then(|| self.room())) {
            let pending = self.pending.get(serial).expect("what waits is pending");
            let head: Head = match &pending.ask {
                Ask::Query(QueryOp::Open { .. } | QueryOp::Release { .. }) if tells => continue,
                Ask::Query(op) => Query { op: op.clone() }.into(),
                Ask::Mutate(op) | Ask::MutateIn(_, op) => {
                    let Some(grant) = &self.session else {
                        continue;
                    };
                    if let Ask::MutateIn(session, _) = pending.ask
                        && session != grant.session
                    {
                        let failure = Failure {
                            status: Status::SessionExpired,
                            what: "the session it belonged to is over".into(),
                        };
                        let pending = self.pending.take(serial).expect("it was just seen");
                        self.news
                            .push_back(News::Answered(pending.asker, Err(failure)));
                        continue;
                    }
                    let SentAs { number, sends } = pending.sent_as().unwrap_or(SentAs {
                        number: self.next_number,
                        sends: 0,
                    });
                    let floor = self.pending.lowest().unwrap_or(number);
                    assert!(floor <= number, "numbers are given in order");
                    assert!(
                        number.0 - floor.0 < SESSION_WINDOW_MAX,
                        "no more are on their way than the window has room for"
                    );
                    if sends == 0 {
                        self.next_number = number.next();
                    } else {
                        probe::hit(Probe::ChangeSentAgain);
                    }
                    let head = Mutate {
                        session: grant.session,
                        number,
                        lowest_unanswered: floor,
                        op: op.clone(),
                    };
                    let sends = sends + 1;
                    self.pending.number(serial, Some(SentAs { number, sends }));
                    head.into()
                }
            };
            let request = self.request();
            self.pending.step(serial, Step::Sent { request, at: now });
            outbox.send(link, Msg::new(request, head));
        }
    }

    /// How many changes the window has room for that have no number yet.
    fn room(&self) -> usize {
        let window = if buggify::is(Site::SessionWindowOfTwo) {
            2
        } else {
            SESSION_WINDOW_MAX
        };
        let floor = self.pending.lowest().unwrap_or(self.next_number);
        let room = window.saturating_sub(self.next_number.0 - floor.0);
        let room = usize::try_from(room).expect("a window is small");
        if self.pending.fresh() > room {
            probe::hit(Probe::SessionWindowFull);
        }
        room
    }

    fn send_holds<E>(&mut self, now: Instant, link: LinkId, outbox: &mut Outbox<E>) {
        for serial in self.pending.untold_holds() {
            let pending = self.pending.get(serial).expect("what waits is pending");
            let Ask::Query(op) = &pending.ask else {
                continue;
            };
            let query = Query { op: op.clone() };
            let request = self.request();
            self.pending.step(serial, Step::Sent { request, at: now });
            outbox.send(link, Msg::new(request, query));
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
        let wanted = self.session.is_some() || self.pending.have_change();
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
                for (_, pending) in self.pending.changes_mut() {
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
            let sent = self.pending.changes_mut();
            let sent = sent.filter(|(_, pending)| {
                matches!(pending.ask, Ask::Mutate(_)) && pending.sent_as().is_some()
            });
            for serial in sent.map(|(serial, _)| serial).collect::<Vec<_>>() {
                self.pending.number(serial, None);
                self.pending.step(serial, Step::Waiting);
            }
        }
        self.fail_mutations(refusal, |pending| {
            pending.sent_as().is_some() || matches!(pending.ask, Ask::MutateIn(..))
        });
        self.leaving.clear();
        if let Some(grant) = self.session.take() {
            self.news
                .push_back(News::SessionLost(grant.session, refusal.clone()));
        }
    }

    fn fail_mutations(&mut self, refusal: &Refusal, which: impl Fn(&Pending) -> bool) {
        let failed = self.pending.changes_mut();
        let failed = failed.filter(|(_, pending)| which(pending));
        for serial in failed.map(|(serial, _)| serial).collect::<Vec<_>>() {
            let pending = self.pending.take(serial).expect("it was just seen");
            let failure = match pending.sent_as() {
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
        let Some(serial) = self.pending.sent(request) else {
            // Who asked has given up, and does not know of the file.
            if let Ok(Answer::Opened { attrs, .. }) = outcome
                && attrs.kind == Kind::File
            {
                self.let_go(now, attrs.file);
            }
            return;
        };
        let pending = self
            .pending
            .get(serial)
            .expect("a request on the link is pending");
        if !matches!(pending.ask, Ask::Query(_)) {
            return;
        }
        match outcome {
            Err(refusal) if refusal.status.retry() == Retry::Later => {
                self.rest(now, serial, refusal, rng)
            }
            outcome => {
                let pending = self.pending.take(serial).expect("it was just seen");
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
        let Some(serial) = self.pending.sent(request) else {
            return;
        };
        let pending = self
            .pending
            .get(serial)
            .expect("a request on the link is pending");
        let (Some(SentAs { sends, .. }), Some(grant)) = (pending.sent_as(), &self.session) else {
            return;
        };
        let session = grant.session;
        if let Some(refusal) = self.is_leaving(serial, session, &outcome) {
            return self.rest(now, serial, refusal, rng);
        }
        match outcome {
            Err(refusal) if refusal.status == Status::SessionExpired => {
                // A mutation that was sent once and refused was not done: the next session may do it.
                if sends == 1 {
                    self.pending.number(serial, None);
                    self.pending.step(serial, Step::Waiting);
                }
                self.expire(&refusal, rng);
            }
            Err(refusal) if refusal.status.retry() == Retry::Later => {
                // Refused at its only sending, it was not done: the next try is a new request, so that no
                // memory of the refusal answers it. After several sendings an earlier one may have been done,
                // and only the same number finds its result.
                if sends == 1 {
                    self.pending.number(serial, None);
                }
                self.rest(now, serial, refusal, rng);
            }
            outcome => {
                let pending = self.pending.take(serial).expect("it was just seen");
                let outcome = outcome
                    .map(|done| Reply::Done(session, done))
                    .map_err(Failure::from);
                self.news.push_back(News::Answered(pending.asker, outcome));
            }
        }
    }

    /// It was refused for the moment.
    fn rest(&mut self, now: Instant, serial: Serial, refusal: Refusal, rng: &mut Rng) {
        let pending = self.pending.get_mut(serial).expect("the caller found it");
        let until = now + backoff(pending.refusals, rng);
        pending.refusals = pending.refusals.saturating_add(1);
        pending.last_refusal = Some(refusal);
        self.pending.step(serial, Step::Resting { until });
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
            MutateOp::Rechain { .. } => "giving a chunk another chain",
            MutateOp::Append { .. } => "opening the file for writing",
            MutateOp::TakeOver { .. } => "taking over a chunk",
            MutateOp::SetSize { .. } => "reporting the size",
            MutateOp::EndSession => "ending the session",
            MutateOp::Truncate { .. } => "setting the size of a file",
            MutateOp::SetReplication { .. } => "changing how many replicas are wanted",
            MutateOp::SetAttributes { .. } => "changing attributes",
            MutateOp::Drain { .. } => "draining a chunkserver",
            MutateOp::AcceptRollback => "accepting the rollback",
            MutateOp::RemoveTree { .. } => "removing the directory with all that is in it",
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
