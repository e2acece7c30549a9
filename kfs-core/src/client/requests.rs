//! Requests to the meta server until they are answered, found by whatever is asked of them: which may be sent,
//! which was sent first, whose time is up. Nothing here looks at all of them.
//!
//! Where a request stands changes here only, so that every order of them is kept with it.
use super::Asker;
use super::meta_on_client::Ask;
use crate::ids::RequestNumber;
use crate::time::Instant;
use crate::wire::Refusal;
use crate::wire::client_meta::QueryOp;
use std::collections::{BTreeMap, BTreeSet};

/// The order in which requests were taken up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Serial(u64);

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) asker: Asker,
    pub(super) ask: Ask,
    deadline: Instant,
    place: Place,
    pub(super) refusals: u32,
    pub(super) last_refusal: Option<Refusal>,
}

impl Pending {
    /// Of a mutation that was sent and may have been done.
    pub(super) const fn sent_as(&self) -> Option<SentAs> {
        self.place.sent_as
    }
}

/// All that says in which orders it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    kind: Kind,
    step: Step,
    sent_as: Option<SentAs>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Question,
    Change,
}

/// The number of a mutation, and how often it was sent with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SentAs {
    pub(super) number: RequestNumber,
    pub(super) sends: u32,
}

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Until there is a link, and for a mutation a session bound to it.
    Waiting,
    /// It was refused for the moment.
    Resting { until: Instant },
    /// On the link, by this id.
    Sent { request: u64, at: Instant },
}

/// All requests that are not answered.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    all: BTreeMap<Serial, Pending>,
    next: Serial,
    changes: usize,
    /// Those that wait: questions, changes that have a number, and changes that have none.
    questions: BTreeSet<Serial>,
    again: BTreeSet<Serial>,
    fresh: BTreeSet<Serial>,
    resting: BTreeSet<(Instant, Serial)>,
    /// Ids rise as time does: the first one was sent first.
    sent: BTreeMap<u64, Serial>,
    due: BTreeSet<(Instant, Serial)>,
    numbers: BTreeSet<RequestNumber>,
    /// Those that make sense on this link only; and of these, those that tell what is held.
    of_link: BTreeSet<Serial>,
    telling: BTreeSet<Serial>,
}

impl Requests {
    pub(super) const fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            next: Serial(1),
            changes: 0,
            questions: BTreeSet::new(),
            again: BTreeSet::new(),
            fresh: BTreeSet::new(),
            resting: BTreeSet::new(),
            sent: BTreeMap::new(),
            due: BTreeSet::new(),
            numbers: BTreeSet::new(),
            of_link: BTreeSet::new(),
            telling: BTreeSet::new(),
        }
    }

    /// Takes one up; it waits.
    pub(super) fn add(&mut self, asker: Asker, ask: Ask, deadline: Instant) {
        let serial = self.next;
        self.next = Serial(serial.0 + 1);
        let kind = match ask {
            Ask::Query(_) => Kind::Question,
            Ask::Mutate(_) | Ask::MutateIn(..) => Kind::Change,
        };
        if let Ask::Query(QueryOp::Hold { .. } | QueryOp::Release { .. }) = ask {
            self.of_link.insert(serial);
        }
        if matches!(&ask, Ask::Query(QueryOp::Hold { files }) if !files.is_empty()) {
            self.telling.insert(serial);
        }
        let place = Place {
            kind,
            step: Step::Waiting,
            sent_as: None,
        };
        let pending = Pending {
            asker,
            ask,
            deadline,
            place,
            refusals: 0,
            last_refusal: None,
        };
        self.changes += usize::from(kind == Kind::Change);
        self.due.insert((deadline, serial));
        self.enter(serial, place);
        self.all.insert(serial, pending);
    }

    /// It is over.
    pub(super) fn take(&mut self, serial: Serial) -> Option<Pending> {
        let pending = self.all.remove(&serial)?;
        self.displace(serial, pending.place);
        self.due.remove(&(pending.deadline, serial));
        self.of_link.remove(&serial);
        self.telling.remove(&serial);
        self.changes -= usize::from(pending.place.kind == Kind::Change);
        Some(pending)
    }

    /// All are over; in the order they were taken up.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Pending> + use<> {
        let next = self.next;
        let all = core::mem::replace(
            self,
            Self {
                next,
                ..Self::new()
            },
        )
        .all;
        all.into_values()
    }

    /// All that make sense on the link only that is gone are over; in the order they were taken up.
    pub(super) fn take_of_link(&mut self) -> Vec<Pending> {
        let of_link: Vec<_> = self.of_link.iter().copied().collect();
        of_link
            .into_iter()
            .filter_map(|serial| self.take(serial))
            .collect()
    }

    pub(super) fn get(&self, serial: Serial) -> Option<&Pending> {
        self.all.get(&serial)
    }
    pub(super) fn get_mut(&mut self, serial: Serial) -> Option<&mut Pending> {
        self.all.get_mut(&serial)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    /// Whether one of them is a change.
    pub(super) const fn have_change(&self) -> bool {
        self.changes > 0
    }
    /// Whether what is held is being told.
    pub(super) fn tells_holds(&self) -> bool {
        !self.telling.is_empty()
    }
    /// What tells what is held, and waits.
    pub(super) fn untold_holds(&self) -> Vec<Serial> {
        let waits = |serial: &Serial| self.questions.contains(serial);
        self.telling.iter().copied().filter(waits).collect()
    }
    /// All changes.
    pub(super) fn changes_mut(&mut self) -> impl Iterator<Item = (Serial, &mut Pending)> {
        let all = self
            .all
            .iter_mut()
            .map(|(serial, pending)| (*serial, pending));
        all.filter(|(_, pending)| pending.place.kind == Kind::Change)
    }

    /// The request that was sent by this id and is not answered.
    pub(super) fn sent(&self, request: u64) -> Option<Serial> {
        self.sent.get(&request).copied()
    }
    /// Everything that is on the link, in the order it was sent.
    pub(super) fn on_link(&self) -> Vec<Serial> {
        self.sent.values().copied().collect()
    }
    /// When the one was sent that is on the link for the longest time.
    pub(super) fn sent_first(&self) -> Option<Instant> {
        let (_, serial) = self.sent.first_key_value()?;
        match self.all[serial].place.step {
            Step::Sent { at, .. } => Some(at),
            Step::Waiting | Step::Resting { .. } => unreachable!("it is on the link"),
        }
    }
    /// When the first one may be sent again that was refused for the moment.
    pub(super) fn rested_first(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }
    /// When the time of the first one is up.
    pub(super) fn due_first(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
    /// Takes one whose time is up.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Pending> {
        let (_, serial) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.take(serial)
    }
    /// Those that have rested wait.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((until, serial)) = self.resting.first().copied()
            && until <= now
        {
            self.step(serial, Step::Waiting);
        }
    }

    /// The lowest number under which a change was sent that is not answered.
    pub(super) fn lowest(&self) -> Option<RequestNumber> {
        self.numbers.first().copied()
    }
    /// Changes that wait for their first number.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }
    /// Questions that wait; with a session also changes, of those that have no number yet so many at most. In the
    /// order they were taken up.
    pub(super) fn to_send(&self, changes: Option<usize>) -> Vec<Serial> {
        let again = changes.map(|_| self.again.iter()).into_iter().flatten();
        let fresh = self.fresh.iter().take(changes.unwrap_or(0));
        let mut all: Vec<_> = self
            .questions
            .iter()
            .chain(again)
            .chain(fresh)
            .copied()
            .collect();
        all.sort_unstable();
        all
    }

    /// It stands there from now on.
    pub(super) fn step(&mut self, serial: Serial, to: Step) {
        self.change(serial, |place| place.step = to);
    }
    /// It has this number from now on, or none: then it was not done.
    pub(super) fn number(&mut self, serial: Serial, to: Option<SentAs>) {
        self.change(serial, |place| place.sent_as = to);
    }

    fn change(&mut self, serial: Serial, change: impl FnOnce(&mut Place)) {
        let Some(pending) = self.all.get_mut(&serial) else {
            return;
        };
        let before = pending.place;
        change(&mut pending.place);
        let after = pending.place;
        self.displace(serial, before);
        self.enter(serial, after);
    }

    /// Enters it where its place is.
    fn enter(&mut self, serial: Serial, at: Place) {
        match at.step {
            Step::Waiting => self.waiting_like(at).insert(serial),
            Step::Resting { until } => self.resting.insert((until, serial)),
            Step::Sent { request, .. } => self.sent.insert(request, serial).is_none(),
        };
        if let Some(SentAs { number, .. }) = at.sent_as {
            self.numbers.insert(number);
        }
    }
    fn displace(&mut self, serial: Serial, from: Place) {
        match from.step {
            Step::Waiting => self.waiting_like(from).remove(&serial),
            Step::Resting { until } => self.resting.remove(&(until, serial)),
            Step::Sent { request, .. } => self.sent.remove(&request).is_some(),
        };
        if let Some(SentAs { number, .. }) = from.sent_as {
            self.numbers.remove(&number);
        }
    }
    fn waiting_like(&mut self, at: Place) -> &mut BTreeSet<Serial> {
        match (at.kind, at.sent_as) {
            (Kind::Question, _) => &mut self.questions,
            (Kind::Change, Some(_)) => &mut self.again,
            (Kind::Change, None) => &mut self.fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::wire::client_meta::MutateOp;

    fn tells(pending: &Pending) -> bool {
        matches!(pending.ask, Ask::Query(QueryOp::Hold { .. }))
    }

    fn of_link(pending: &Pending) -> bool {
        tells(pending) || matches!(pending.ask, Ask::Query(QueryOp::Release { .. }))
    }

    /// What is asked of all requests, by looking at all of them.
    fn compare(requests: &Requests, now: Instant) {
        let all = || requests.all.iter().map(|(serial, p)| (*serial, p));
        let sent = |p: &Pending| match p.place.step {
            Step::Sent { at, .. } => Some(at),
            Step::Waiting | Step::Resting { .. } => None,
        };
        let rests = |p: &Pending| match p.place.step {
            Step::Resting { until } => Some(until),
            Step::Waiting | Step::Sent { .. } => None,
        };
        assert_eq!(
            requests.sent_first(),
            all().filter_map(|(_, p)| sent(p)).min()
        );
        assert_eq!(
            requests.rested_first(),
            all().filter_map(|(_, p)| rests(p)).min()
        );
        assert_eq!(requests.due_first(), all().map(|(_, p)| p.deadline).min());
        let number = |p: &Pending| p.sent_as().map(|sent_as| sent_as.number);
        assert_eq!(
            requests.lowest(),
            all().filter_map(|(_, p)| number(p)).min()
        );
        let is_change = |p: &Pending| !matches!(p.ask, Ask::Query(_));
        assert_eq!(requests.have_change(), all().any(|(_, p)| is_change(p)));
        let waits = |p: &Pending| p.place.step == Step::Waiting;
        let is_fresh = |p: &Pending| waits(p) && is_change(p) && number(p).is_none();
        assert_eq!(requests.fresh(), all().filter(|(_, p)| is_fresh(p)).count());
        for room in [None, Some(0), Some(1), Some(3), Some(usize::MAX)] {
            let mut left = room.unwrap_or(0);
            let mut goes = |p: &Pending| {
                if is_fresh(p) {
                    let has = left > 0;
                    left = left.saturating_sub(1);
                    return has;
                }
                waits(p) && (!is_change(p) || room.is_some())
            };
            let plain: Vec<_> = all()
                .filter(|(_, p)| goes(p))
                .map(|(serial, _)| serial)
                .collect();
            assert_eq!(requests.to_send(room), plain, "room {room:?}");
        }
        for (serial, p) in all() {
            if let Step::Sent { request, .. } = p.place.step {
                assert_eq!(requests.sent(request), Some(serial));
            }
        }
        assert_eq!(requests.tells_holds(), all().any(|(_, p)| tells(p)));
        let is_of_link = all().filter(|(_, p)| of_link(p)).count();
        assert_eq!(requests.of_link.len(), is_of_link, "none is kept for ever");
        let untold = all().filter(|(_, p)| waits(p) && tells(p));
        let untold: Vec<_> = untold.map(|(serial, _)| serial).collect();
        assert_eq!(requests.untold_holds(), untold);
        let on_link = all().filter(|(_, p)| sent(p).is_some()).count();
        assert_eq!(requests.on_link().len(), on_link);
        assert!(
            requests.due_first().is_none_or(|at| at > now),
            "all that was due was taken"
        );
    }

    #[test]
    fn no_order_of_requests_forgets_one_whatever_becomes_of_them() {
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            let mut some = |limit: u64| rng.u64() % limit;
            let (mut requests, mut now) = (Requests::new(), Instant(1));
            let (mut id, mut number) = (1, RequestNumber(1));
            for _ in 0..400 {
                now = Instant(now.0 + some(3));
                let known: Vec<_> = requests.all.keys().copied().collect();
                let which = usize::try_from(some(1 + known.len() as u64)).unwrap();
                match (some(10), known.get(which).copied()) {
                    (0..3, _) | (_, None) => {
                        let file = crate::ids::FileId(some(9));
                        let ask = match some(8) {
                            0 | 1 => Ask::Query(QueryOp::Status),
                            2 => Ask::Query(QueryOp::Hold { files: vec![file] }),
                            3 => Ask::Query(QueryOp::Release { file }),
                            _ => Ask::Mutate(MutateOp::EndSession),
                        };
                        requests.add(Asker::Nobody, ask, Instant(now.0 + 1 + some(300)));
                    }
                    (3, Some(_)) if some(8) == 0 => {
                        let of_link = requests.all.values().filter(|p| of_link(p)).count();
                        assert_eq!(requests.take_of_link().len(), of_link);
                    }
                    (3, Some(serial)) => drop(requests.take(serial)),
                    (4, Some(serial)) => {
                        let until = Instant(now.0 + some(20));
                        requests.step(serial, Step::Resting { until });
                    }
                    (5, Some(serial)) => requests.step(serial, Step::Waiting),
                    (6, Some(serial)) => requests.number(serial, None),
                    (_, Some(serial)) => {
                        if requests.all[&serial].place.kind == Kind::Change {
                            let sends = 1;
                            requests.number(serial, Some(SentAs { number, sends }));
                            number = number.next();
                        }
                        requests.step(
                            serial,
                            Step::Sent {
                                request: id,
                                at: now,
                            },
                        );
                        id += 1;
                    }
                }
                requests.wake(now);
                while requests.take_due(now).is_some() {}
                compare(&requests, now);
            }
            assert_eq!(requests.clone().take_all().count(), requests.all.len());
        }
    }
}
