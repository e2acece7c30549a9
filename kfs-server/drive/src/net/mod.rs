//! Links: connections that carry messages, both ways, with bounded queues.
//!
//! Every link has two tasks ([`link`]): one reads frames and hands them to the loop, one writes what the loop
//! could not write at once. Reading waits when the loop is behind (its queue is bounded) or paused the link; what
//! is queued for writing is bounded by the machine's credits, and by [`QUEUED_MAX`] if those fail.
mod link;
#[cfg(madsim)]
pub mod seam;
#[cfg(not(madsim))]
mod socket;

use kfs_core::ids::LinkId;
use kfs_core::machine::{CloseReason, Input};
use kfs_core::wire::{Msg, Peer, Role};
use link::{Control, Handle, Leaves};
#[cfg(madsim)]
use seam as socket;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Events of all links that wait for the loop; each is at most one frame, and small ones that came with it.
const EVENTS: usize = 32;
/// Bytes queued on one link before it is closed as one whose peer does not read.
const QUEUED_MAX: usize = 64 << 20;
/// Links accepted and alive, at most; further ones are dropped at once.
const ACCEPTED_MAX: usize = 4_096;

/// What happens on links, for the loop.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Accepted {
        link: LinkId,
        handle: Handle,
    },
    Opened {
        link: LinkId,
        peer: Peer,
    },
    /// And frames that came behind it in the same read.
    Received {
        link: LinkId,
        msg: Msg,
        more: Vec<Msg>,
    },
    Sent {
        link: LinkId,
        bytes: usize,
    },
    Closed {
        link: LinkId,
        why: CloseReason,
    },
}

/// The links of one machine.
#[derive(Debug)]
pub struct Net {
    role: Role,
    links: BTreeMap<LinkId, Handle>,
    /// What came together and was not taken yet.
    arrived: VecDeque<(LinkId, Msg)>,
    /// Links with frames that leave with the next [`Net::flush`].
    unflushed: Vec<LinkId>,
    /// What has left by it and was not told yet.
    sent: VecDeque<(LinkId, usize)>,
    accepted: Arc<AtomicU64>,
    events: mpsc::Receiver<LinkEvent>,
    sender: mpsc::Sender<LinkEvent>,
    /// Dropped with this: accepting stops.
    _alive: watch::Sender<()>,
    alive: watch::Receiver<()>,
}

impl Net {
    /// No links yet; `role` is what peers are told.
    #[must_use]
    pub fn new(role: Role) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let (alive_sender, alive) = watch::channel(());
        Self {
            role,
            links: BTreeMap::new(),
            arrived: VecDeque::new(),
            unflushed: Vec::new(),
            sent: VecDeque::new(),
            accepted: Arc::new(AtomicU64::new(0)),
            events,
            sender,
            _alive: alive_sender,
            alive,
        }
    }

    /// Accepts links at `addr` from now on; gives the address bound, with its port.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn listen(&mut self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(addr).await?;
        let bound = listener.local_addr()?;
        #[cfg(madsim)]
        seam::listens(bound);
        let (role, ids, events, alive) = (
            self.role,
            Arc::clone(&self.accepted),
            self.sender.clone(),
            self.alive.clone(),
        );
        tokio::spawn(accept(listener, role, ids, events, alive));
        Ok(bound)
    }

    /// What happens next.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        self.events.recv().await.expect("this end holds a sender")
    }
    /// What is there already, for the machine.
    pub(crate) fn ready<C>(&mut self) -> Option<Input<C>> {
        loop {
            if let Some(input) = self.at_hand() {
                return Some(input);
            }
            let event = self.events.try_recv().ok()?;
            if let Some(input) = self.accept(event) {
                return Some(input);
            }
        }
    }
    /// What came with something else, or from here.
    pub(crate) fn at_hand<C>(&mut self) -> Option<Input<C>> {
        while let Some((link, msg)) = self.arrived.pop_front() {
            if self.knows(link) {
                return Some(Input::Received { link, msg });
            }
        }
        self.sent()
    }
    /// How often [`Net::sent`] has something to say.
    pub(crate) fn sent_count(&self) -> usize {
        self.sent.len()
    }
    /// What has left from here.
    pub(crate) fn sent<C>(&mut self) -> Option<Input<C>> {
        while let Some((link, bytes)) = self.sent.pop_front() {
            if self.knows(link) {
                return Some(Input::Sent { link, bytes });
            }
        }
        None
    }
    /// What an event of a link means for the machine; nothing for a link that it closed.
    pub(crate) fn accept<C>(&mut self, event: LinkEvent) -> Option<Input<C>> {
        match event {
            LinkEvent::Opened { link, peer } => {
                self.links.get_mut(&link)?.opened(peer.protocol);
                Some(Input::Opened { link, peer })
            }
            LinkEvent::Received { link, msg, more } => {
                self.arrived.extend(more.into_iter().map(|msg| (link, msg)));
                self.knows(link).then_some(Input::Received { link, msg })
            }
            LinkEvent::Sent { link, bytes } => {
                self.knows(link).then_some(Input::Sent { link, bytes })
            }
            LinkEvent::Closed { link, why } => {
                let known = self.links.remove(&link).is_some();
                known.then_some(Input::Closed { link, why })
            }
            LinkEvent::Accepted { link, handle } => {
                self.adopt(link, handle);
                None
            }
        }
    }
    fn knows(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }
    fn adopt(&mut self, link: LinkId, handle: Handle) {
        let accepted = self.links.keys().filter(|link| !link.is_dialed()).count();
        if accepted < ACCEPTED_MAX {
            self.links.insert(link, handle);
        } else {
            tracing::warn!("more than {ACCEPTED_MAX} connections: a new one was dropped");
        }
    }
    pub(crate) fn dial(&mut self, link: LinkId, addr: SocketAddr) {
        assert!(!self.knows(link), "a machine dials each link once");
        let (handle, ends) = link::pair(link, self.role, self.sender.clone());
        self.links.insert(link, handle);
        tokio::spawn(ends.dial(addr));
    }
    pub(crate) fn send(&mut self, link: LinkId, msg: Msg) {
        let Some(handle) = self.links.get_mut(&link) else {
            return;
        };
        if handle.queued_bytes() > QUEUED_MAX {
            tracing::warn!(%link, "closed: the peer does not read what it is sent");
            handle.control.send_replace(Control::Stop);
            handle.writing.send_replace(Control::Stop);
            return;
        }
        if handle.send(msg) == Leaves::WithFlush {
            self.unflushed.push(link);
        }
    }
    /// Has everything leave that was sent so far.
    pub(crate) fn flush(&mut self) {
        for link in self.unflushed.drain(..) {
            let sent = self.links.get_mut(&link).map_or(0, Handle::flush);
            if sent > 0 {
                self.sent.push_back((link, sent));
            }
        }
    }
    pub(crate) fn close(&mut self, link: LinkId) {
        // Dropping the handle ends both tasks, the writing one after what is queued.
        if let Some(mut handle) = self.links.remove(&link) {
            handle.flush();
        }
    }
    pub(crate) fn pause(&mut self, link: LinkId) {
        self.control(link, Control::Paused);
    }
    pub(crate) fn resume(&mut self, link: LinkId) {
        self.control(link, Control::Run);
    }
    fn control(&self, link: LinkId, to: Control) {
        if let Some(handle) = self.links.get(&link) {
            handle.control.send_if_modified(|control| {
                let change = *control != Control::Stop && *control != to;
                if change {
                    *control = to;
                }
                change
            });
        }
    }
}

async fn accept(
    listener: TcpListener,
    role: Role,
    ids: Arc<AtomicU64>,
    events: mpsc::Sender<LinkEvent>,
    mut alive: watch::Receiver<()>,
) {
    loop {
        let stream: io::Result<(TcpStream, SocketAddr)> = tokio::select! {
            biased;
            _ = alive.changed() => return,
            stream = listener.accept() => stream,
        };
        match stream {
            Ok((stream, peer)) => {
                let link = LinkId::accepted(ids.fetch_add(1, Ordering::Relaxed));
                let (handle, ends) = link::pair(link, role, events.clone());
                if events
                    .send(LinkEvent::Accepted { link, handle })
                    .await
                    .is_err()
                {
                    return;
                }
                tokio::spawn(ends.run(socket::accepted(stream), peer));
            }
            Err(error) => {
                // Out of descriptors, most likely: links that close will give some back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
