//! Links: connections that carry messages, both ways, with bounded queues.
//!
//! Every link has two tasks ([`link`]): one reads frames and hands them to the loop, one writes what the
//! loop sends. Reading waits when the loop is behind (its queue is bounded) or paused the link; what is
//! queued for writing is bounded by the machine's credits, and by [`QUEUED_MAX`] if those fail.
mod link;
#[cfg(madsim)]
pub mod seam;
#[cfg(not(madsim))]
mod socket;

use kfs_core::ids::LinkId;
use kfs_core::machine::CloseReason;
use kfs_core::wire::{Msg, Peer, Role};
use link::{Control, Handle};
#[cfg(madsim)]
use seam as socket;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Events of all links that wait for the loop; each is at most one frame.
const EVENTS: usize = 32;
/// Bytes queued on one link before it is closed as one whose peer does not read.
const QUEUED_MAX: usize = 64 << 20;
/// Links accepted and alive, at most; further ones are dropped at once.
const ACCEPTED_MAX: usize = 4_096;

/// What happens on links, for the loop.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Accepted { link: LinkId, handle: Handle },
    Opened { link: LinkId, peer: Peer },
    Received { link: LinkId, msg: Msg },
    Sent { link: LinkId, bytes: usize },
    Closed { link: LinkId, why: CloseReason },
}

/// The links of one machine.
#[derive(Debug)]
pub struct Net {
    role: Role,
    links: BTreeMap<LinkId, Handle>,
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

    pub(crate) async fn next(&mut self) -> LinkEvent {
        self.events.recv().await.expect("this end holds a sender")
    }
    pub(crate) fn knows(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }
    pub(crate) fn forget(&mut self, link: LinkId) -> bool {
        self.links.remove(&link).is_some()
    }
    pub(crate) fn adopt(&mut self, link: LinkId, handle: Handle) {
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
        let Some(handle) = self.links.get(&link) else {
            return;
        };
        if handle.queued_bytes() > QUEUED_MAX {
            tracing::warn!(%link, "closed: the peer does not read what it is sent");
            handle.control.send_replace(Control::Stop);
            handle.writing.send_replace(Control::Stop);
            return;
        }
        handle.send(msg);
    }
    pub(crate) fn close(&mut self, link: LinkId) {
        // Dropping the handle ends both tasks, the writing one after what is queued.
        self.links.remove(&link);
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
