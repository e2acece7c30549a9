//! Links between machines: dialed, negotiated, in order per direction, bounded in flight, and broken in every
//! way that a connection can break.
//!
//! It stands for the drivers' links and for TCP below them. So within a link nothing is reordered or lost: a
//! lost packet is a delay of all that follows it. Disorder, loss and late replay are *between* links: an end may
//! learn of a break long after the other has dialed anew, and what was on its way may still arrive then.
use super::process::Happens;
use super::sim::{Heap, What};
use crate::keyed::mix;
use kfs_core::ids::{ClusterId, LinkId};
use kfs_core::machine::CloseReason;
use kfs_core::wire::{Msg, Negotiate, PROTOCOL_MAX, Peer, Role};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A node of the simulation.
pub type NodeId = usize;
/// A connection.
pub type ConnId = u64;

const PORT: u16 = 20_000;
/// How long a dial may take, as in the drivers.
const DIAL_MAX_NS: u64 = 5_000_000_000;
/// After how long a lost packet is sent again.
const RETRANSMIT_NS: u64 = 200_000_000;
/// Bytes in flight per direction before a sender waits.
const WINDOW: usize = 64 << 10;
const SECOND_NS: u64 = 1_000_000_000;

/// One of the two ends of a connection: 0 dialed, 1 was dialed.
pub type Side = usize;

/// What happens in the network.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// A dial reaches whoever is dialed.
    Syn(ConnId),
    /// An end learns that the connection is open.
    Open(ConnId, Side),
    /// Something arrives at an end.
    Arrive(ConnId, Side, Arrival),
    /// What had arrived at a paused end, or is stuck no more, is handed out.
    Drain(ConnId, Side),
    /// So much of what an end sent has left it.
    Sent(ConnId, Side, usize),
    /// An end learns that the connection is gone.
    Gone(ConnId, Side, String),
    /// A dial has taken too long.
    DialEnds(ConnId),
    /// What is stuck has been stuck for too long, if this many unblockings later it still is.
    GiveUp(ConnId, Side, u64),
}

/// What arrives.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A message.
    Msg(Box<Msg>),
    /// The other end closed.
    Fin,
}

/// Something for a process.
#[derive(Debug)]
pub struct Delivery {
    /// Whose.
    pub node: NodeId,
    /// What.
    pub happens: Happens,
}

/// All connections.
#[derive(Clone, Debug)]
pub struct Net {
    seed: u64,
    latency_ns: (u64, u64),
    /// Packets lost, in thousandths.
    pub loss_permille: u64,
    conns: BTreeMap<ConnId, Conn>,
    links: BTreeMap<(NodeId, LinkId), (ConnId, Side)>,
    next: ConnId,
    /// Directed pairs between which no packet passes.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// How often something was unblocked.
    unblocked: u64,
    /// Nodes whose dials and whose being dialed hang.
    hung: BTreeSet<NodeId>,
    accepted: BTreeMap<NodeId, u64>,
    /// Connections per directed pair so far, so that each draws from numbers of its own.
    dialed: BTreeMap<(NodeId, NodeId), u64>,
    roles: Vec<Role>,
}

#[derive(Clone, Debug)]
struct Conn {
    ends: [End; 2],
    /// By the end that sends.
    flows: [Flow; 2],
    key: u64,
}

#[derive(Clone, Debug)]
struct End {
    node: NodeId,
    link: LinkId,
    state: EndState,
    /// Its process does not want to read.
    paused: bool,
    /// What has arrived and was not read.
    held: VecDeque<Arrival>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EndState {
    Opening,
    Open,
    Closed,
}

#[derive(Clone, Default, Debug)]
struct Flow {
    /// Not yet handed to the network.
    queue: VecDeque<Msg>,
    /// The sender closed behind what is queued.
    closing: bool,
    in_flight: usize,
    last_arrival: u64,
    count: u64,
    /// Behind a block, in order.
    stuck: VecDeque<Arrival>,
}

/// The address of a node. Addresses for documentation (RFC 5737, RFC 2544): nobody real is ever meant.
#[must_use]
pub fn addr_of(node: NodeId) -> SocketAddr {
    let low = u8::try_from(node % 250 + 1).expect("below 251");
    let high = u8::try_from(node / 250).expect("a run has few nodes");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, high, low)), PORT)
}

fn node_at(addr: SocketAddr) -> Option<NodeId> {
    match addr.ip() {
        IpAddr::V4(ip) => {
            let [198, 18, high, low] = ip.octets() else {
                return None;
            };
            Some(usize::from(high) * 250 + usize::from(low).checked_sub(1)?)
        }
        IpAddr::V6(_) => None,
    }
}

impl Net {
    /// No connections yet, between nodes of these roles.
    #[must_use]
    pub fn new(seed: u64, latency_us: (u64, u64), loss_permille: u64, roles: Vec<Role>) -> Self {
        Self {
            seed,
            latency_ns: (latency_us.0 * 1_000, latency_us.1 * 1_000),
            loss_permille,
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            next: 1,
            blocked: BTreeSet::new(),
            unblocked: 0,
            hung: BTreeSet::new(),
            accepted: BTreeMap::new(),
            dialed: BTreeMap::new(),
            roles,
        }
    }

    /// Connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// A process dials.
    pub fn dial(&mut self, heap: &mut Heap, now: u64, node: NodeId, link: LinkId, to: SocketAddr) {
        let target = node_at(to).filter(|target| *target < self.roles.len());
        let id = self.next;
        self.next += 1;
        let pair = (node, target.unwrap_or(usize::MAX));
        let nth = self.dialed.entry(pair).or_default();
        *nth += 1;
        let key = mix(mix(self.seed ^ mix(pair.0 as u64)) ^ mix(pair.1 as u64) ^ *nth);
        let end = |node, link| End {
            node,
            link,
            state: EndState::Opening,
            paused: false,
            held: VecDeque::new(),
        };
        let conn = Conn {
            ends: [
                end(node, link),
                end(target.unwrap_or(usize::MAX), LinkId(u64::MAX)),
            ],
            flows: [Flow::default(), Flow::default()],
            key,
        };
        self.conns.insert(id, conn);
        self.links.insert((node, link), (id, 0));
        heap.push(now + DIAL_MAX_NS, What::Net(NetEvent::DialEnds(id)));
        if let Some(target) = target {
            let hangs = self.hung.contains(&node)
                || self.hung.contains(&target)
                || self.blocked.contains(&(node, target));
            if !hangs {
                let at = now + self.latency(key, 0);
                heap.push(at, What::Net(NetEvent::Syn(id)));
            }
        }
    }

    /// A process sends.
    pub fn send(&mut self, heap: &mut Heap, now: u64, node: NodeId, link: LinkId, msg: Msg) {
        let Some(&(id, side)) = self.links.get(&(node, link)) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.flows[side].queue.push_back(msg);
            self.pump(heap, now, id, side);
        }
    }

    /// A process closes: what is queued still leaves.
    pub fn close(&mut self, heap: &mut Heap, now: u64, node: NodeId, link: LinkId) {
        let Some((id, side)) = self.links.remove(&(node, link)) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.ends[side].state = EndState::Closed;
            conn.ends[side].held.clear();
            conn.flows[side].closing = true;
            // Nobody reads any more: what the other end has in flight is taken and dropped.
            conn.flows[1 - side].in_flight = 0;
            self.pump(heap, now, id, side);
            self.pump(heap, now, id, 1 - side);
        }
    }

    /// A process stops reading from a link, or goes on.
    pub fn set_reading(
        &mut self,
        heap: &mut Heap,
        now: u64,
        (node, link): (NodeId, LinkId),
        reading: Reading,
    ) {
        let Some(&(id, side)) = self.links.get(&(node, link)) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.ends[side].paused = reading == Reading::Paused;
            if reading == Reading::Going && !conn.ends[side].held.is_empty() {
                heap.push(now, What::Net(NetEvent::Drain(id, side)));
            }
        }
    }

    /// Hands to the network what it takes now.
    fn pump(&mut self, heap: &mut Heap, now: u64, id: ConnId, side: Side) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let key = mix(conn.key ^ (side as u64 + 1));
        let (opening, closed) = (
            conn.ends[side].state == EndState::Opening,
            conn.ends[side].state == EndState::Closed,
        );
        if opening {
            return;
        }
        let flow = &mut conn.flows[side];
        let mut sent = 0;
        while flow.in_flight == 0 || flow.in_flight < WINDOW {
            let Some(msg) = flow.queue.pop_front() else {
                break;
            };
            let cost = msg.cost();
            flow.in_flight += cost;
            sent += cost;
            flow.count += 1;
            let mut delay = spread(self.latency_ns, mix(key ^ flow.count));
            if self.loss_permille > 0 && mix(key ^ !flow.count) % 1_000 < self.loss_permille {
                delay += RETRANSMIT_NS;
            }
            let at = (now + delay).max(flow.last_arrival);
            flow.last_arrival = at;
            let arrival = NetEvent::Arrive(id, 1 - side, Arrival::Msg(Box::new(msg)));
            heap.push(at, What::Net(arrival));
        }
        if sent > 0 && !closed {
            heap.push(now + 5_000, What::Net(NetEvent::Sent(id, side, sent)));
        }
        if flow.closing && flow.queue.is_empty() {
            flow.closing = false;
            let at = (now + spread(self.latency_ns, mix(key ^ flow.count))).max(flow.last_arrival);
            flow.last_arrival = at;
            let arrival = NetEvent::Arrive(id, 1 - side, Arrival::Fin);
            heap.push(at, What::Net(arrival));
        }
    }

    /// Something happens; gives what a process is told of it. `host` says how a node meets a dial.
    pub fn happens(
        &mut self,
        heap: &mut Heap,
        now: u64,
        event: NetEvent,
        host: impl Fn(NodeId) -> Host,
    ) -> Option<Delivery> {
        match event {
            NetEvent::Syn(id) => self.syn(heap, now, id, host),
            NetEvent::Open(id, side) => self.open(heap, now, id, side),
            NetEvent::Arrive(id, side, arrival) => {
                let conn = self.conns.get_mut(&id)?;
                let flow = &mut conn.flows[1 - side];
                let path = (conn.ends[1 - side].node, conn.ends[side].node);
                if self.blocked.contains(&path) || !flow.stuck.is_empty() {
                    if flow.stuck.is_empty() {
                        let wait = SECOND_NS * (4 + mix(conn.key ^ now) % 16);
                        let gives_up = NetEvent::GiveUp(id, 1 - side, self.unblocked);
                        heap.push(now + wait, What::Net(gives_up));
                    }
                    flow.stuck.push_back(arrival);
                    return None;
                }
                let end = &mut conn.ends[side];
                if end.paused || !end.held.is_empty() || end.state == EndState::Opening {
                    end.held.push_back(arrival);
                    return None;
                }
                self.arrived(heap, now, id, side, arrival)
            }
            NetEvent::Drain(id, side) => {
                let end = &mut self.conns.get_mut(&id)?.ends[side];
                if end.paused || end.state != EndState::Open {
                    return None;
                }
                let arrival = end.held.pop_front()?;
                if !end.held.is_empty() {
                    heap.push(now, What::Net(NetEvent::Drain(id, side)));
                }
                self.arrived(heap, now, id, side, arrival)
            }
            NetEvent::Sent(id, side, bytes) => {
                let end = &self.conns.get(&id)?.ends[side];
                (end.state == EndState::Open).then(|| Delivery {
                    node: end.node,
                    happens: Happens::Sent(end.link, bytes),
                })
            }
            NetEvent::Gone(id, side, why) => self.gone(id, side, CloseReason::Lost(why)),
            NetEvent::DialEnds(id) => {
                let end = &self.conns.get(&id)?.ends[0];
                if end.state != EndState::Opening {
                    return None;
                }
                let why = CloseReason::Unreachable(format!("{}: no answer", addr_of(end.node)));
                self.gone(id, 0, why)
            }
            NetEvent::GiveUp(id, side, unblocked) => {
                let conn = self.conns.get(&id)?;
                if self.unblocked != unblocked || conn.flows[side].stuck.is_empty() {
                    return None;
                }
                // The other end hears of it later, from a reset or from its own time-out.
                let later = now + SECOND_NS * (1 + mix(conn.key ^ now) % 15);
                let gone = NetEvent::Gone(id, 1 - side, "connection reset by peer".into());
                heap.push(later, What::Net(gone));
                self.gone(id, side, CloseReason::Lost("connection timed out".into()))
            }
        }
    }

    /// Whose process an event is about to reach, if any.
    #[must_use]
    pub fn concerns(&self, event: &NetEvent) -> Option<NodeId> {
        let (id, side) = match event {
            // A host accepts for a process that stands still.
            NetEvent::Syn(_) => return None,
            NetEvent::DialEnds(id) => (id, 0),
            NetEvent::Open(id, side)
            | NetEvent::Arrive(id, side, _)
            | NetEvent::Drain(id, side)
            | NetEvent::Sent(id, side, _)
            | NetEvent::Gone(id, side, _)
            | NetEvent::GiveUp(id, side, _) => (id, *side),
        };
        let node = self.conns.get(id)?.ends[side].node;
        (node < self.roles.len()).then_some(node)
    }

    fn syn(
        &mut self,
        heap: &mut Heap,
        now: u64,
        id: ConnId,
        host: impl Fn(NodeId) -> Host,
    ) -> Option<Delivery> {
        let conn = self.conns.get_mut(&id)?;
        let (from, to) = (conn.ends[0].node, conn.ends[1].node);
        let there_and_back = [(from, to), (to, from)];
        if there_and_back
            .iter()
            .any(|path| self.blocked.contains(path))
        {
            return None;
        }
        let back = spread(self.latency_ns, mix(conn.key ^ 0xB0));
        match host(to) {
            Host::Listens => {
                let nth = self.accepted.entry(to).or_default();
                let link = LinkId::accepted(*nth);
                *nth += 1;
                conn.ends[1].link = link;
                self.links.insert((to, link), (id, 1));
                // The dialer's word arrives a round trip later; each end opens with the other's.
                let forth = spread(self.latency_ns, mix(conn.key ^ 0xB1));
                conn.flows[0].last_arrival = now + back + forth;
                conn.flows[1].last_arrival = now + back;
                heap.push(now + back, What::Net(NetEvent::Open(id, 0)));
                heap.push(now + back + forth, What::Net(NetEvent::Open(id, 1)));
            }
            Host::Refuses => {
                let gone = NetEvent::Gone(id, 0, "connection refused".into());
                heap.push(now + back, What::Net(gone));
            }
            Host::Dark => {}
        }
        None
    }

    fn open(&mut self, heap: &mut Heap, now: u64, id: ConnId, side: Side) -> Option<Delivery> {
        let conn = self.conns.get_mut(&id)?;
        let other = conn.ends[1 - side].node;
        let end = &mut conn.ends[side];
        if end.state != EndState::Opening {
            return None;
        }
        end.state = EndState::Open;
        if !end.held.is_empty() {
            heap.push(now, What::Net(NetEvent::Drain(id, side)));
        }
        let role = self.roles[other];
        let peer = Peer {
            role,
            cluster: ClusterId(0),
            addr: addr_of(other),
            protocol: PROTOCOL_MAX,
            build: Negotiate::ours(role, ClusterId(0)).build,
        };
        let (node, link) = (end.node, end.link);
        self.pump(heap, now, id, side);
        Some(Delivery {
            node,
            happens: Happens::Opened(link, peer),
        })
    }

    fn arrived(
        &mut self,
        heap: &mut Heap,
        now: u64,
        id: ConnId,
        side: Side,
        arrival: Arrival,
    ) -> Option<Delivery> {
        match arrival {
            Arrival::Msg(msg) => {
                let conn = self.conns.get_mut(&id)?;
                let flow = &mut conn.flows[1 - side];
                flow.in_flight = flow.in_flight.saturating_sub(msg.cost());
                let end = &conn.ends[side];
                let open = end.state == EndState::Open;
                let (node, link) = (end.node, end.link);
                self.pump(heap, now, id, 1 - side);
                open.then(|| Delivery {
                    node,
                    happens: Happens::Received(link, *msg),
                })
            }
            Arrival::Fin => {
                let why = CloseReason::Lost("the peer closed the connection".into());
                self.gone(id, side, why)
            }
        }
    }

    /// An end is told that the connection is gone. When both know, it is forgotten.
    fn gone(&mut self, id: ConnId, side: Side, why: CloseReason) -> Option<Delivery> {
        let conn = self.conns.get_mut(&id)?;
        let other_closed = conn.ends[1 - side].state == EndState::Closed
            || conn.ends[1 - side].link == LinkId(u64::MAX);
        let end = &mut conn.ends[side];
        let told = end.state != EndState::Closed && end.link != LinkId(u64::MAX);
        let (node, link) = (end.node, end.link);
        let why = match (why, end.state) {
            (CloseReason::Lost(why), EndState::Opening) if side == 0 => {
                CloseReason::Unreachable(why)
            }
            (why, _) => why,
        };
        end.state = EndState::Closed;
        // A later process of the node may have a link of the same number.
        if self.links.get(&(node, link)) == Some(&(id, side)) {
            self.links.remove(&(node, link));
        }
        if other_closed {
            self.conns.remove(&id);
        }
        told.then(|| Delivery {
            node,
            happens: Happens::Closed(link, why),
        })
    }

    /// A process is gone. Its peers are told by its host at once, or find out by themselves if that is gone too.
    pub fn process_ended(&mut self, heap: &mut Heap, now: u64, node: NodeId, how: Ended) {
        let ended: Vec<(LinkId, (ConnId, Side))> = self
            .links
            .range((node, LinkId(0))..=(node, LinkId(u64::MAX)))
            .map(|((_, link), at)| (*link, *at))
            .collect();
        for (link, (id, side)) in ended {
            self.links.remove(&(node, link));
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            conn.ends[side].state = EndState::Closed;
            conn.ends[side].held.clear();
            conn.flows[side].queue.clear();
            conn.flows[side].closing = false;
            conn.flows[1 - side].in_flight = 0;
            let key = mix(conn.key ^ now);
            let arrives = conn.flows[side].last_arrival;
            match how {
                Ended::Killed => {
                    let at = (now + spread(self.latency_ns, key)).max(arrives);
                    conn.flows[side].last_arrival = at;
                    let fin = NetEvent::Arrive(id, 1 - side, Arrival::Fin);
                    heap.push(at, What::Net(fin));
                }
                Ended::Dark => {
                    let at = (now + SECOND_NS / 10 + key % (9 * SECOND_NS)).max(arrives);
                    let gone = NetEvent::Gone(id, 1 - side, "connection timed out".into());
                    heap.push(at, What::Net(gone));
                }
            }
            self.pump(heap, now, id, 1 - side);
        }
        self.accepted.remove(&node);
    }

    /// All connections of a node break; what was on its way to an end that does not know it yet still arrives.
    /// Gives how many broke.
    pub fn break_all(&mut self, heap: &mut Heap, now: u64, node: NodeId, how: Break) -> u64 {
        let mut broken = 0;
        for (id, conn) in &mut self.conns {
            let Some(side) = conn.ends.iter().position(|end| end.node == node) else {
                continue;
            };
            if conn.ends.iter().any(|end| end.state != EndState::Open) {
                continue;
            }
            broken += 1;
            let key = mix(conn.key ^ now);
            let late = match how {
                Break::Seen => key % (SECOND_NS / 100),
                Break::HalfSeen => SECOND_NS / 2 + key % (12 * SECOND_NS),
            };
            // Which of the two knows first.
            let first = if key & 1 << 40 == 0 { side } else { 1 - side };
            for flow in &mut conn.flows {
                flow.queue.clear();
            }
            let why = || "connection reset by peer".to_owned();
            heap.push(now, What::Net(NetEvent::Gone(*id, first, why())));
            heap.push(now + late, What::Net(NetEvent::Gone(*id, 1 - first, why())));
        }
        broken
    }

    /// No packet passes from the first to the second.
    pub fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }
    /// Packets pass again from the first to the second.
    pub fn unblock(&mut self, heap: &mut Heap, now: u64, from: NodeId, to: NodeId) {
        if !self.blocked.remove(&(from, to)) {
            return;
        }
        self.unblocked += 1;
        for (id, conn) in &mut self.conns {
            for side in 0..2 {
                if (conn.ends[1 - side].node, conn.ends[side].node) != (from, to) {
                    continue;
                }
                let flow = &mut conn.flows[1 - side];
                // Sent again, in order, when the next retransmission is due.
                let mut at = now + mix(conn.key ^ now) % RETRANSMIT_NS;
                for arrival in std::mem::take(&mut flow.stuck) {
                    at = at.max(flow.last_arrival);
                    heap.push(at, What::Net(NetEvent::Arrive(*id, side, arrival)));
                    flow.last_arrival = at;
                }
            }
        }
    }
    /// Dials to a node take for ever, or do not any more.
    pub fn hang(&mut self, node: NodeId, hangs: Hangs) {
        match hangs {
            Hangs::Yes => self.hung.insert(node),
            Hangs::No => self.hung.remove(&node),
        };
    }

    fn latency(&self, key: u64, count: u64) -> u64 {
        spread(self.latency_ns, mix(key ^ count))
    }
}

/// Whether a process reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// It does.
    Going,
    /// It does not.
    Paused,
}

/// How a dialed node meets a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// Its process accepts.
    Listens,
    /// Nobody listens; the host says so.
    Refuses,
    /// There is no host.
    Dark,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Its host goes on.
    Killed,
    /// Its host has no power.
    Dark,
}

/// How connections break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// Both ends learn it soon.
    Seen,
    /// One end learns it, the other one much later.
    HalfSeen,
}

/// Whether dials hang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hangs {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// A latency between two bounds: mostly near the lower one.
fn spread((from, to): (u64, u64), random: u64) -> u64 {
    let range = to - from + 1;
    from + (random % range) * ((random >> 32) % 1_000) / 1_000
}
