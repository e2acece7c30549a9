//! The wire between two nodes' links: the failures of connections that the simulated network cannot make.
//!
//! That network carries each flush whole and in order, takes every write, and tells both ends of every end. A real
//! one hands out a byte at a time, is full, breaks in the middle of a frame, tells one end only, or nobody, and flips
//! bits that its own sums do not see. [`Wire`] stands between links and connections ([`kfs_drive::seam`]) and does
//! that on demand, by the number of a node: 0 is the meta server, then chunkservers, then clients.
//!
//! Every draw is keyed by the pair of nodes and the number of their connection. So what befalls one connection does
//! not change because of what befalls another.
mod conn;
mod effects;
mod flips;
mod frames;
mod stream;
#[cfg(test)]
mod tests;

pub use effects::{Effect, Effects};
pub use flips::Flip;
pub use frames::Part;

use crate::keyed::Keyed;
use crate::oracle::Violation;
use conn::{Around, At, Conn, ConnId, Flush, Held, Read, Side, Write};
use flips::Flips;
use kfs_drive::seam::{Bytes, Leave, Plugged, Wiring};
use madsim::task::{AbortHandle, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;
use stream::Stream;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The number of a node: its address is 192.0.2.(1 + number).
pub type Node = usize;

/// How connections break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Both ends learn it soon.
    Seen,
    /// One end learns it. The other one hears nothing and writes into the void, until its buffers are full or a reset
    /// comes, much later.
    HalfSeen,
    /// As soon as one end has written a part of a frame. That end knows at once; the other one is left with the part.
    MidFrame,
}

/// Whether something goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switch {
    /// From now on.
    On,
    /// No more.
    Off,
}

/// All connections of a run. Cloned freely: there is one.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<Net>>);

struct Net {
    seed: u64,
    /// Which node runs on which simulated machine.
    nodes: BTreeMap<NodeId, Node>,
    parts_permille: u64,
    conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    /// Connections per directed pair so far.
    dialed: BTreeMap<[Node; 2], u64>,
    /// Not yet accepted, by the addresses of both ends, in order.
    waiting: BTreeMap<(SocketAddr, SocketAddr), VecDeque<ConnId>>,
    hung: BTreeSet<Node>,
    /// Rings when a dial may hang no more.
    answered: Arc<Notify>,
    full: BTreeSet<Node>,
    flips: BTreeMap<Node, Flips>,
    effects: Effects,
    /// Tasks that tell an end later that its connection is gone.
    telling: Vec<AbortHandle>,
}

fn node_at(ip: IpAddr) -> Node {
    let host = match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [192, 0, 2, host] => usize::from(host).checked_sub(1),
            _ => None,
        },
        IpAddr::V6(_) => None,
    };
    host.unwrap_or_else(|| panic!("{ip} is no node's address"))
}

impl Wire {
    /// A wire that does nothing to anybody.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Net {
            seed,
            nodes: BTreeMap::new(),
            parts_permille: 0,
            conns: BTreeMap::new(),
            next: 0,
            dialed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            hung: BTreeSet::new(),
            answered: Arc::new(Notify::new()),
            full: BTreeSet::new(),
            flips: BTreeMap::new(),
            effects: Effects::default(),
            telling: Vec::new(),
        })))
    }

    /// The wire of a run: on some seeds, some or all connections are cut into small parts.
    #[must_use]
    pub fn of_run(seed: u64) -> Self {
        let wire = Self::new(seed);
        wire.fragment(Keyed::new(seed, "wire").pick(&[0, 0, 0, 300, 1_000]));
        wire
    }

    /// Says which node runs there. A dial from a machine that nobody named never hangs for its sake.
    pub fn name(&self, machine: NodeId, node: Node) {
        self.lock().nodes.insert(machine, node);
    }

    /// All connections that this thread makes pass through it, as long as what this gives lives.
    pub fn plug(&self) -> Plugged {
        kfs_drive::seam::plug(Arc::new(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of so many connections in a thousand, of those made from now on, each read gives and each write takes a few
    /// bytes only, often after a wait for nothing; each part arrives by itself.
    pub fn fragment(&self, permille: u64) {
        self.lock().parts_permille = permille;
    }

    /// All connections that a node has now break. Gives how many.
    pub fn cut(&self, node: Node, how: How) -> u64 {
        let struck = self.lock().cut(node, how);
        let count = struck.len() as u64;
        for learns in struck {
            let wire = self.clone();
            let telling = tokio::spawn(async move {
                if let Some(struck) = learns.after {
                    struck.notified().await;
                }
                sleep(learns.late).await;
                if let Some(conn) = wire.lock().conns.get_mut(&learns.at.conn) {
                    conn.ends[learns.at.side].breaks();
                }
            });
            self.lock().telling.push(telling.abort_handle());
        }
        count
    }

    /// Nobody is told anything any more. A cut that never came holds the wire, and the wire holds it: without this,
    /// all that a run ever allocated would stay.
    pub fn end(&self) {
        let telling = std::mem::take(&mut self.lock().telling);
        telling.iter().for_each(AbortHandle::abort);
    }

    /// Links, dials and tasks that still hold it, besides whoever asks and the plug.
    #[must_use]
    pub fn held_by(&self) -> usize {
        Arc::strong_count(&self.0) - 2
    }

    /// Dials to a node and from it get no answer, or get one again: those that hang are answered then, if their
    /// dialers still wait.
    pub fn hang_dials(&self, node: Node, switch: Switch) {
        let mut net = self.lock();
        match switch {
            Switch::On => net.hung.insert(node),
            Switch::Off => net.hung.remove(&node),
        };
        net.answered.notify_waiters();
    }

    /// What a node writes and what is written to it finds no room, or finds room again.
    pub fn stuff(&self, node: Node, switch: Switch) {
        let mut net = self.lock();
        match switch {
            Switch::On => net.full.insert(node),
            Switch::Off => net.full.remove(&node),
        };
        net.wake();
    }

    /// A bit flips in so many of the next frames that a node sends, in a drawn part of each.
    pub fn corrupt(&self, node: Node, frames: u64) {
        let mut net = self.lock();
        let seed = net.seed;
        let flips = net.flips.entry(node);
        let flips =
            flips.or_insert_with(|| Flips::new(Keyed::new(seed, &format!("wire flips of {node}"))));
        flips.more(frames);
    }

    /// Nothing goes wrong from now on. Ends that were not told that their connection is gone learn it when they would
    /// have; small parts stay small, which is no failure.
    pub fn heal_all(&self) {
        let mut net = self.lock();
        net.hung.clear();
        net.full.clear();
        net.flips.values_mut().for_each(Flips::none);
        for conn in net.conns.values_mut() {
            for end in &mut conn.ends {
                end.spare();
            }
        }
        net.answered.notify_waiters();
        net.wake();
    }

    /// Whether so many links may have closed because of bytes that are no frame: links write frames only, so each
    /// of them met a bit that had flipped.
    ///
    /// # Errors
    /// If there were more of them than such bits.
    pub fn explains(&self, malformed: u64) -> Result<(), Violation> {
        let effects = self.effects();
        let flipped = effects.of(Effect::FlippedPrefix) + effects.of(Effect::FlippedHead);
        if malformed <= flipped {
            return Ok(());
        }
        let what = format!(
            "{malformed} links met bytes that are no frame, and {flipped} bits of heads flipped"
        );
        Err(Violation::new("O11", "L", what))
    }

    /// What was done so far.
    #[must_use]
    pub fn effects(&self) -> Effects {
        self.lock().effects.clone()
    }
    /// The bits that flipped so far, by sender.
    #[must_use]
    pub fn flipped(&self) -> Vec<Flip> {
        let net = self.lock();
        let done = net.flips.values().flat_map(|flips| &flips.done);
        done.copied().collect()
    }
}

/// An end that learns that its connection is gone.
struct Learns {
    at: At,
    /// Not before this rings.
    after: Option<Arc<Notify>>,
    late: Duration,
}

impl Net {
    fn cut(&mut self, node: Node, how: How) -> Vec<Learns> {
        let mut learn = Vec::new();
        for (id, conn) in &mut self.conns {
            if !conn.nodes.contains(&node) || !conn.is_whole() {
                continue;
            }
            // Which of the two knows first.
            let first: Side = conn.draws.index(2);
            let late_ms = match how {
                How::Seen => conn.draws.below(10),
                How::HalfSeen | How::MidFrame => conn.draws.between(500, 12_500),
            };
            let mut after = None;
            match how {
                How::Seen => {
                    self.effects.add(Effect::CutSeen);
                    conn.ends[first].breaks();
                }
                How::HalfSeen => {
                    self.effects.add(Effect::CutHalfSeen);
                    conn.ends[first].breaks();
                    conn.ends[1 - first].falls_silent();
                }
                How::MidFrame => after = Some(conn.cut_mid_frame(first)),
            }
            learn.push(Learns {
                at: At {
                    conn: *id,
                    side: 1 - first,
                },
                after,
                late: Duration::from_millis(late_ms),
            });
        }
        learn
    }

    fn hangs(&self, from: Option<&Node>, to: Node) -> bool {
        self.hung.contains(&to) || from.is_some_and(|from| self.hung.contains(from))
    }
    fn is_full(&mut self, at: At) -> bool {
        let nodes = self.conn(at).nodes;
        nodes.iter().any(|node| self.full.contains(node))
    }
    fn wake(&mut self) {
        for conn in self.conns.values_mut() {
            conn.ends.iter_mut().for_each(conn::End::wake);
        }
    }

    fn dialed(&mut self, from: SocketAddr, to: SocketAddr) -> At {
        let nodes = [node_at(from.ip()), node_at(to.ip())];
        let nth = self.dialed.entry(nodes).or_default();
        *nth += 1;
        let conn = Conn::new(self.seed, nodes, *nth, self.parts_permille);
        if conn.is_cut_into_parts() {
            self.effects.add(Effect::Parts);
        }
        let id = self.next;
        self.next += 1;
        self.conns.insert(id, conn);
        self.waiting.entry((from, to)).or_default().push_back(id);
        At { conn: id, side: 0 }
    }

    /// `None`: whoever dialed did not do so by a link.
    fn accepted(&mut self, from: SocketAddr, to: SocketAddr) -> Option<At> {
        let id = self.waiting.get_mut(&(from, to))?.pop_front()?;
        let at = At { conn: id, side: 1 };
        self.conn(at).ends[1].held = Held::Yes;
        Some(at)
    }

    /// A process listens; what was dialed before and was not accepted never will be.
    fn listens(&mut self, at: SocketAddr) {
        let gone: Vec<_> = self
            .waiting
            .extract_if(.., |(_, to), _| *to == at)
            .collect();
        for conn in gone.into_iter().flat_map(|(_, conns)| conns) {
            self.dropped(At { conn, side: 1 });
        }
    }

    fn dropped(&mut self, at: At) {
        let conn = self.conn(at);
        conn.ends[at.side].let_go();
        if conn.is_over() {
            self.conns.remove(&at.conn);
        }
    }

    fn read(&mut self, at: At, bytes: usize, cx: &Context<'_>) -> Read {
        self.conn(at).read(at.side, bytes, cx)
    }
    fn write<'a>(&mut self, at: At, bytes: &'a [u8], cx: &Context<'_>) -> Write<'a> {
        let full = self.is_full(at);
        let conn = self.conns.get_mut(&at.conn).expect("an end of it lives");
        let around = Around {
            full,
            flips: self.flips.get_mut(&conn.nodes[at.side]),
            effects: &mut self.effects,
        };
        conn.write(at.side, bytes, cx, around)
    }
    fn flush(&mut self, at: At, cx: &Context<'_>) -> Flush {
        let full = self.is_full(at);
        let conn = self.conns.get_mut(&at.conn).expect("an end of it lives");
        conn.flush(at.side, cx, full, &mut self.effects)
    }
    fn conn(&mut self, at: At) -> &mut Conn {
        self.conns.get_mut(&at.conn).expect("an end of it lives")
    }
}

fn both(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    let local = stream.local_addr().expect("a simulated socket has one");
    let peer = stream.peer_addr().expect("a simulated socket has one");
    (local, peer)
}

impl Wiring for Wire {
    fn listens(&self, at: SocketAddr) {
        self.lock().listens(at);
    }
    fn dials(&self, to: SocketAddr) -> Leave {
        let machine = madsim::plugin::node();
        let (wire, to) = (self.clone(), node_at(to.ip()));
        Box::pin(async move {
            let mut counted = false;
            loop {
                let answered = {
                    let mut net = wire.lock();
                    let from = net.nodes.get(&machine).copied();
                    if !net.hangs(from.as_ref(), to) {
                        return;
                    }
                    if !counted {
                        counted = true;
                        net.effects.add(Effect::HungDial);
                    }
                    Arc::clone(&net.answered)
                };
                answered.notified().await;
            }
        })
    }
    fn dialed(&self, stream: TcpStream) -> Box<dyn Bytes> {
        let (local, peer) = both(&stream);
        let at = self.lock().dialed(local, peer);
        Box::new(Stream::new(stream, self.clone(), at))
    }
    fn accepted(&self, stream: TcpStream) -> Box<dyn Bytes> {
        let (local, peer) = both(&stream);
        match self.lock().accepted(peer, local) {
            Some(at) => Box::new(Stream::new(stream, self.clone(), at)),
            None => Box::new(stream),
        }
    }
}
