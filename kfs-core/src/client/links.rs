//! Links to chunkservers: dialed when first used, shared by all files, closed when idle.
//!
//! Reads and writes to one server have a link each: a server that pauses a writer must not make its reads
//! wait. No more is handed to a link than it can soon send; the rest waits here. A link that goes silent while something is asked on it is closed, and everything on it is handed
//! back to whoever asked; nothing is sent again here.
use crate::buggify::{self, Site};
use crate::ids::LinkId;
use crate::machine::{CloseReason, Output};
use crate::outbox::Outbox;
use crate::time::Instant;
use crate::wire::{Head, Msg, Peer, Role};
use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// A read that hears nothing from its server for this long goes to another.
pub(super) const READ_SILENCE: Duration = Duration::from_secs(3);
/// A head that says nothing for this long is dialed anew; a sync may take its time.
const WRITE_SILENCE: Duration = Duration::from_secs(10);
/// A link on which nothing was asked for this long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// What a link is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Use {
    /// Ranges of chunks.
    Read,
    /// Pieces and syncs, to the head of a chain.
    Write,
}

impl Use {
    const fn silence(self) -> Duration {
        match self {
            Self::Read => READ_SILENCE,
            Self::Write => WRITE_SILENCE,
        }
    }
}

/// Why something was handed back unanswered.
#[derive(Clone, Debug)]
pub(super) struct Lost<T> {
    pub(super) why: String,
    pub(super) reached: Reached,
    pub(super) errands: Vec<T>,
}

/// Whether a link that is gone had been up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reached {
    Yes,
    No,
}

#[derive(Clone, Debug)]
pub(super) struct Links<T> {
    /// Bytes handed to a link and not yet sent before further messages wait here.
    unsent_max: usize,
    pool: BTreeMap<(Use, SocketAddr), Link<T>>,
    by_link: BTreeMap<LinkId, (Use, SocketAddr)>,
    next_request: u64,
}

#[derive(Clone, Debug)]
struct Link<T> {
    link: LinkId,
    stage: Stage,
    /// Until the link is up, or has sent more of what it was given.
    waiting: VecDeque<Msg>,
    asked: BTreeMap<u64, T>,
    /// Since when something is asked and nothing is heard; if nothing is asked, since when.
    quiet_since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Dialing,
    Up { unsent: usize },
}

impl<T> Links<T> {
    pub(super) const fn new(unsent_max: usize) -> Self {
        Self {
            unsent_max,
            pool: BTreeMap::new(),
            by_link: BTreeMap::new(),
            next_request: 1,
        }
    }

    /// Sends on the link to this server, making it if needed; `errand` comes back with the answer or the loss.
    pub(super) fn ask<E>(
        &mut self,
        now: Instant,
        to: (Use, SocketAddr),
        (head, body): (Head, Bytes),
        errand: T,
        outbox: &mut Outbox<E>,
    ) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        let link = self.pool.entry(to).or_insert_with(|| {
            let link = outbox.dial(to.1);
            self.by_link.insert(link, to);
            Link {
                link,
                stage: Stage::Dialing,
                waiting: VecDeque::new(),
                asked: BTreeMap::new(),
                quiet_since: now,
            }
        });
        if link.asked.is_empty() {
            link.quiet_since = now;
        }
        link.asked.insert(request, errand);
        link.waiting.push_back(Msg::with_body(request, head, body));
        link.flush(self.unsent_max, outbox);
        request
    }

    /// Nobody waits for this request any more.
    pub(super) fn forget(&mut self, to: (Use, SocketAddr), request: u64) {
        if let Some(link) = self.pool.get_mut(&to) {
            link.asked.remove(&request);
            link.waiting.retain(|msg| msg.request != request);
        }
    }

    /// The link is up: what waited is sent. A peer that is no chunkserver is left again.
    pub(super) fn opened<E>(
        &mut self,
        now: Instant,
        link: LinkId,
        peer: &Peer,
        outbox: &mut Outbox<E>,
    ) -> Option<Lost<T>> {
        let to = self.by_link.get(&link).copied()?;
        if peer.role != Role::Chunk {
            outbox.push(Output::Close { link });
            return self.lose(to, "it is no chunkserver".into());
        }
        let entry = self.pool.get_mut(&to).expect("a known link is in the pool");
        assert_eq!(entry.link, link, "one link per server and use");
        entry.quiet_since = now;
        entry.stage = Stage::Up { unsent: 0 };
        entry.flush(self.unsent_max, outbox);
        None
    }

    /// The link has sent so many bytes: it gets more.
    pub(super) fn sent<E>(&mut self, link: LinkId, bytes: usize, outbox: &mut Outbox<E>) {
        let Some(entry) = self.by_link.get(&link).and_then(|to| self.pool.get_mut(to)) else {
            return;
        };
        if let Stage::Up { unsent } = &mut entry.stage {
            *unsent = unsent.saturating_sub(bytes);
            entry.flush(self.unsent_max, outbox);
        }
    }

    pub(super) fn closed(&mut self, link: LinkId, why: &CloseReason) -> Option<Lost<T>> {
        let to = self.by_link.get(&link).copied()?;
        self.lose(to, why.to_string())
    }

    /// Whose answer this is; `None` for a late or unasked one.
    pub(super) fn received(
        &mut self,
        now: Instant,
        link: LinkId,
        request: u64,
    ) -> Option<(T, SocketAddr)> {
        let to = self.by_link.get(&link)?;
        let entry = self.pool.get_mut(to).expect("a known link is in the pool");
        entry.quiet_since = now;
        Some((entry.asked.remove(&request)?, to.1))
    }

    /// Closes what has been silent or idle too long; what was asked on it comes back.
    pub(super) fn tick<E>(&mut self, now: Instant, outbox: &mut Outbox<E>) -> Vec<Lost<T>> {
        let due: Vec<_> = self
            .pool
            .iter()
            .filter(|(to, link)| link.due(to.0) <= now)
            .map(|(to, _)| *to)
            .collect();
        let mut lost = Vec::new();
        for to in due {
            outbox.push(Output::Close {
                link: self.pool[&to].link,
            });
            let why = match self.pool[&to].stage {
                Stage::Dialing => {
                    format!("cannot connect within {} s", to.0.silence().as_secs())
                }
                Stage::Up { .. } => format!("no answer within {} s", to.0.silence().as_secs()),
            };
            lost.extend(self.lose(to, why));
        }
        lost
    }

    /// Closes all links; what was asked is forgotten.
    pub(super) fn hang_up<E>(&mut self, outbox: &mut Outbox<E>) {
        for link in core::mem::take(&mut self.by_link).into_keys() {
            outbox.push(Output::Close { link });
        }
        self.pool.clear();
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let due = self.pool.iter().map(|(to, link)| link.due(to.0)).min()?;
        Some((due, "a chunkserver is silent or its link idle"))
    }

    fn lose(&mut self, to: (Use, SocketAddr), why: String) -> Option<Lost<T>> {
        let link = self.pool.remove(&to)?;
        self.by_link.remove(&link.link);
        assert_eq!(
            self.pool.len(),
            self.by_link.len(),
            "every link is known by both names"
        );
        let reached = match link.stage {
            Stage::Dialing => Reached::No,
            Stage::Up { .. } => Reached::Yes,
        };
        Some(Lost {
            why,
            reached,
            errands: link.asked.into_values().collect(),
        })
    }
}

impl<T> Link<T> {
    fn flush<E>(&mut self, unsent_max: usize, outbox: &mut Outbox<E>) {
        let Stage::Up { unsent } = &mut self.stage else {
            return;
        };
        let unsent_max = if buggify::is(Site::OneMessageUnsent) {
            1
        } else {
            unsent_max
        };
        while *unsent < unsent_max
            && let Some(msg) = self.waiting.pop_front()
        {
            *unsent += msg.cost();
            outbox.send(self.link, msg);
        }
    }

    fn due(&self, of: Use) -> Instant {
        let patience = if self.asked.is_empty() {
            IDLE
        } else {
            of.silence()
        };
        self.quiet_since + patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClusterId;

    fn addr() -> SocketAddr {
        "127.0.0.1:7".parse().unwrap()
    }
    fn peer() -> Peer {
        Peer {
            role: Role::Chunk,
            cluster: ClusterId(1),
            addr: addr(),
            protocol: 1,
            build: String::new(),
        }
    }
    fn head() -> Head {
        crate::wire::client_meta::Renew {
            session: crate::ids::SessionId(1),
        }
        .into()
    }

    #[test]
    fn a_silent_link_hands_back_all_its_errands_and_an_idle_one_closes_quietly() {
        let (mut links, mut outbox) = (Links::new(1_000), Outbox::<()>::default());
        let to = (Use::Read, addr());
        let first = links.ask(Instant(0), to, (head(), Bytes::new()), 'a', &mut outbox);
        links.ask(Instant(0), to, (head(), Bytes::new()), 'b', &mut outbox);
        let Some(Output::Dial { link, .. }) = outbox.pop() else {
            panic!("one dial for both")
        };
        assert!(outbox.is_drained(), "nothing is sent before the link is up");
        assert!(
            links
                .opened(Instant(1), link, &peer(), &mut outbox)
                .is_none()
        );
        assert_eq!(links.received(Instant(2), link, first), Some(('a', addr())));
        assert_eq!(
            links.received(Instant(2), link, first),
            None,
            "an answer comes once"
        );
        let late = Instant(2) + READ_SILENCE;
        assert_eq!(links.deadline().unwrap().0, late);
        let lost = links.tick(late, &mut outbox);
        assert_eq!(lost[0].errands, ['b']);
        assert!(links.deadline().is_none());
        let again = links.ask(late, to, (head(), Bytes::new()), 'c', &mut outbox);
        links.forget(to, again);
        let lost = links.tick(late + IDLE, &mut outbox);
        assert!(lost[0].errands.is_empty());
    }

    #[test]
    fn a_link_is_not_given_more_than_it_can_soon_send() {
        let (mut links, mut outbox) = (Links::new(1_000), Outbox::<()>::default());
        let to = (Use::Write, addr());
        for errand in 0..3 {
            links.ask(
                Instant(0),
                to,
                (head(), Bytes::from(vec![0; 600])),
                errand,
                &mut outbox,
            );
        }
        let Some(Output::Dial { link, .. }) = outbox.pop() else {
            panic!("a dial")
        };
        links.opened(Instant(1), link, &peer(), &mut outbox);
        assert_eq!(core::iter::from_fn(|| outbox.pop()).count(), 2);
        links.sent(link, 856, &mut outbox);
        assert_eq!(core::iter::from_fn(|| outbox.pop()).count(), 1);
    }

    #[test]
    fn a_peer_that_is_no_chunkserver_is_left() {
        let (mut links, mut outbox) = (Links::new(1_000), Outbox::<()>::default());
        links.ask(
            Instant(0),
            (Use::Write, addr()),
            (head(), Bytes::new()),
            'a',
            &mut outbox,
        );
        let Some(Output::Dial { link, .. }) = outbox.pop() else {
            panic!("a dial")
        };
        let lost = links
            .opened(
                Instant(1),
                link,
                &Peer {
                    role: Role::Meta,
                    ..peer()
                },
                &mut outbox,
            )
            .unwrap();
        assert_eq!(lost.errands, ['a']);
        assert!(matches!(outbox.pop(), Some(Output::Close { .. })));
    }
}
