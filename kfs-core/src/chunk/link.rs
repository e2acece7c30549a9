//! Links as a chunkserver sees them, and the room that pieces take.
//!
//! Room is counted apart per chain position, and position k waits only for the disk and for the link to
//! position k+1; so a chain A→B and a chain B→A never wait for each other.
//!
//! When a position has no room, the links that bring its pieces are paused, and whoever brings one meanwhile
//! is paused too. They go on in the order in which they were paused, and no more of them at once than there is
//! room for the next piece of each. A link that had its turn and did not take it is left alone, and no room is
//! kept for it: clients hold links that they have no use for now. How much there can be:
//! [`Limits::piece_bytes_max`].
//!
//! [`Limits::piece_bytes_max`]: crate::limits::Limits::piece_bytes_max
use super::name::ReplicaId;
use super::read::ReadId;
use crate::buggify::{self, Site};
use crate::ids::LinkId;
use crate::machine::Output;
use crate::outbox::Outbox;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::{Msg, Peer};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a link is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Dialed to the meta server.
    Meta,
    /// Dialed to the next server of chains, which is at this position in them.
    Next(SocketAddr, u8),
    /// Dialed to a server that has a replica which is copied here.
    Source(SocketAddr),
    /// Accepted; nothing came on it yet that says more.
    Accepted,
    /// Accepted, and pieces for this chain position come on it; 0: from clients.
    Pieces(u8),
}

/// What a piece takes in memory beside its bytes: many small ones fill a room as well.
const HOLD_COST: usize = 256;

/// A piece's bytes, held until they are on the disk and handed to the next server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct HoldId(u64);

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub purpose: Purpose,
    /// Who is at the other end; `None`: dialed and not up yet.
    pub peer: Option<Peer>,
    /// Replicas whose chain runs over this link, to either side.
    pub replicas: BTreeSet<ReplicaId>,
    /// Reads that wait for room on the link, in order.
    pub reads_queued: VecDeque<ReadId>,
    /// All reads of the link that are not answered.
    pub reads_open: usize,
    /// Bytes that reads in progress will put on the link.
    pub reads_bytes: usize,
    /// What was handed to the network and is not sent yet, in order, with its weight.
    unsent: VecDeque<(usize, Option<HoldId>)>,
    unsent_bytes: usize,
    /// Bytes reported as sent that do not make up a whole message yet.
    sent_bytes: usize,
    /// Messages for a link that is not up yet.
    early: Vec<Msg>,
    reading: Reading,
}

/// Whether a link is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    /// It has brought no piece yet, or did not when it had its turn.
    Idle,
    Going,
    Paused,
    /// It was paused, and has brought nothing since it goes on: room is kept for its next piece.
    Resumed,
}

impl Link {
    fn new(purpose: Purpose, peer: Option<Peer>) -> Self {
        Self {
            purpose,
            peer,
            replicas: BTreeSet::new(),
            reads_queued: VecDeque::new(),
            reads_open: 0,
            reads_bytes: 0,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            sent_bytes: 0,
            early: Vec::new(),
            reading: Reading::Idle,
        }
    }
    /// Bytes that are on their way out, or will be when reads in progress end.
    pub(super) const fn outgoing_bytes(&self) -> usize {
        self.unsent_bytes + self.reads_bytes
    }
    /// For people.
    pub(super) fn addr(&self) -> String {
        match (&self.peer, &self.purpose) {
            (_, Purpose::Next(addr, _) | Purpose::Source(addr)) => addr.to_string(),
            (Some(peer), _) => peer.addr.to_string(),
            (None, _) => "a server".into(),
        }
    }
}

/// All links, and the room per position.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    next: BTreeMap<(SocketAddr, u8), LinkId>,
    rooms: BTreeMap<u8, Room>,
    holds: BTreeMap<HoldId, Hold>,
    holds_made: u64,
    bounds: RoomBounds,
}

/// How much room there is for pieces.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RoomBounds {
    /// Above so many bytes of a position it has no room.
    pub position_bytes: usize,
    /// Above so many bytes the head of a chain refuses pieces.
    pub head_bytes: usize,
    /// The largest piece.
    pub piece_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Room {
    bytes: usize,
    pieces: usize,
    full: bool,
    /// Links that wait for room, in order.
    paused: VecDeque<LinkId>,
    /// Links that were resumed and have brought nothing since.
    resumed: usize,
}

impl Room {
    const fn weight(&self) -> usize {
        self.bytes + self.pieces * HOLD_COST
    }
}

#[derive(Clone, Debug)]
struct Hold {
    /// Where it came from.
    link: LinkId,
    position: u8,
    bytes: usize,
    /// Who still needs the bytes: the disk, the next link.
    users: u8,
}

impl Links {
    pub(super) fn new(bounds: RoomBounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }
    pub(super) fn get(&self, link: LinkId) -> Option<&Link> {
        self.links.get(&link)
    }
    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&link)
    }
    /// Bytes of pieces in memory.
    pub(super) fn room_bytes(&self) -> usize {
        self.rooms.values().map(|room| room.bytes).sum()
    }
    /// Per chain position: bytes of pieces in memory, and the links that brought them or may bring more.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (u8, usize, usize)> {
        self.rooms.iter().map(|(position, room)| {
            let purpose = Purpose::Pieces(*position);
            let carry = self.links.iter().filter(|(_, at)| at.purpose == purpose);
            let brought = self.holds.values().filter(|at| at.position == *position);
            let links: BTreeSet<_> = carry
                .map(|(link, _)| *link)
                .chain(brought.map(|hold| hold.link))
                .collect();
            (*position, room.bytes, links.len())
        })
    }
    /// All links: reads of each that are not answered, messages on their way out, and the bytes of both.
    pub(super) fn loads(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.links
            .values()
            .map(|link| (link.reads_open, link.unsent.len(), link.outgoing_bytes()))
    }
    /// Pieces in memory.
    pub(super) fn holds(&self) -> usize {
        self.holds.len()
    }
    pub(super) fn accepted(&mut self, link: LinkId, peer: Peer) {
        self.links
            .insert(link, Link::new(Purpose::Accepted, Some(peer)));
    }
    pub(super) fn dialed_meta(&mut self, link: LinkId) {
        self.links.insert(link, Link::new(Purpose::Meta, None));
    }
    /// The link to the next server of a chain: one per (address, position), dialed when first used.
    pub(super) fn next<E>(
        &mut self,
        outbox: &mut Outbox<E>,
        addr: SocketAddr,
        position: u8,
    ) -> LinkId {
        assert!(position > 0, "the head is dialed by clients");
        if let Some(link) = self.next.get(&(addr, position)) {
            return *link;
        }
        let link = outbox.dial(addr);
        self.next.insert((addr, position), link);
        self.links
            .insert(link, Link::new(Purpose::Next(addr, position), None));
        link
    }
    /// Whether what is copied here comes over a link.
    pub(super) fn is_source(&self, link: LinkId) -> bool {
        let at = self.links.get(&link);
        at.is_some_and(|at| matches!(at.purpose, Purpose::Source(_)))
    }
    /// A link to a server that has what is copied here; each copy has its own.
    pub(super) fn source<E>(&mut self, outbox: &mut Outbox<E>, addr: SocketAddr) -> LinkId {
        let link = outbox.dial(addr);
        self.links
            .insert(link, Link::new(Purpose::Source(addr), None));
        link
    }
    /// A dialed link is up: what waited for it leaves.
    pub(super) fn opened<E>(&mut self, outbox: &mut Outbox<E>, link: LinkId, peer: Peer) {
        if let Some(at) = self.links.get_mut(&link) {
            at.peer = Some(peer);
            for msg in core::mem::take(&mut at.early) {
                outbox.send(link, msg);
            }
        }
    }
    /// Sends; `hold` is let go of when the message is handed over, or the link is gone.
    pub(super) fn send<E>(
        &mut self,
        outbox: &mut Outbox<E>,
        link: LinkId,
        msg: Msg,
        hold: Option<HoldId>,
    ) {
        let Some(at) = self.links.get_mut(&link) else {
            return self.let_go(outbox, hold);
        };
        at.unsent.push_back((msg.cost(), hold));
        at.unsent_bytes += msg.cost();
        if at.peer.is_some() {
            outbox.send(link, msg);
        } else {
            at.early.push(msg);
        }
    }
    /// So many bytes were handed to the network.
    pub(super) fn sent<E>(&mut self, outbox: &mut Outbox<E>, link: LinkId, bytes: usize) {
        let Some(at) = self.links.get_mut(&link) else {
            return;
        };
        at.sent_bytes = at.sent_bytes.saturating_add(bytes);
        let mut done = Vec::new();
        while let Some((cost, hold)) = at
            .unsent
            .front()
            .copied()
            .filter(|(cost, _)| *cost <= at.sent_bytes)
        {
            at.unsent.pop_front();
            at.sent_bytes -= cost;
            at.unsent_bytes -= cost;
            done.push(hold);
        }
        if at.unsent.is_empty() {
            at.sent_bytes = 0;
        }
        for hold in done {
            self.let_go(outbox, hold);
        }
    }
    /// Forgets a link that is gone.
    pub(super) fn closed<E>(&mut self, outbox: &mut Outbox<E>, link: LinkId) -> Option<Link> {
        let mut gone = self.links.remove(&link)?;
        if let Purpose::Next(addr, position) = gone.purpose {
            self.next.remove(&(addr, position));
        }
        if let Purpose::Pieces(position) = gone.purpose
            && let Some(room) = self.rooms.get_mut(&position)
        {
            room.paused.retain(|other| *other != link);
            room.resumed -= usize::from(gone.reading == Reading::Resumed);
        }
        for (_, hold) in core::mem::take(&mut gone.unsent) {
            self.let_go(outbox, hold);
        }
        Some(gone)
    }
    /// Notes that pieces of this position come on the link. A link carries one position for all its life.
    pub(super) fn carries(&mut self, link: LinkId, position: u8) -> Result<(), String> {
        let Some(at) = self.links.get_mut(&link) else {
            return Err("the link is gone".into());
        };
        match at.purpose {
            Purpose::Accepted => {
                at.purpose = Purpose::Pieces(position);
                Ok(())
            }
            Purpose::Pieces(other) if other == position => Ok(()),
            Purpose::Pieces(other) => Err(format!(
                "pieces for chain position {position} on a link of position {other}"
            )),
            Purpose::Meta | Purpose::Next(..) | Purpose::Source(_) => {
                Err("pieces come on links that were accepted".into())
            }
        }
    }
    /// Whether a piece of a client would be more than the head of a chain may hold.
    pub(super) fn lacks_room(&self, bytes: usize) -> bool {
        let held = self.rooms.get(&0).map_or(0, Room::weight);
        let lacks = held > 0 && held + HOLD_COST + bytes > self.bounds.head_bytes;
        lacks && !planted::is(Bug::FullRoomTaken)
    }
    /// Counts a piece of `bytes` that came on `link`, until `users` have let go of it.
    pub(super) fn hold<E>(
        &mut self,
        outbox: &mut Outbox<E>,
        (link, position): (LinkId, u8),
        bytes: usize,
        users: u8,
    ) -> HoldId {
        assert!(users > 0, "bytes that nobody needs are not held");
        self.holds_made += 1;
        let id = HoldId(self.holds_made);
        self.holds.insert(
            id,
            Hold {
                link,
                position,
                bytes,
                users,
            },
        );
        let room = self.rooms.entry(position).or_default();
        room.bytes += bytes;
        room.pieces += 1;
        if let Some(at) = self.links.get_mut(&link)
            && at.reading != Reading::Paused
        {
            room.resumed -= usize::from(at.reading == Reading::Resumed);
            at.reading = Reading::Going;
        }
        let heavy =
            self.weight(position) > self.bounds.position_bytes || buggify::is(Site::RoomFullEarly);
        let room = self.rooms.entry(position).or_default();
        if room.full {
            if !planted::is(Bug::LateLinkUnpaused) {
                self.pause(outbox, link, position);
            }
        } else if heavy {
            room.full = true;
            self.fills(outbox, link, position);
        }
        id
    }
    /// A position has no room any more.
    fn fills<E>(&mut self, outbox: &mut Outbox<E>, last: LinkId, position: u8) {
        let room = self.rooms.entry(position).or_default();
        let mut going = Vec::new();
        for (link, at) in &mut self.links {
            match at.reading {
                Reading::Going if at.purpose == Purpose::Pieces(position) && *link != last => {
                    going.push(*link);
                }
                Reading::Resumed if at.purpose == Purpose::Pieces(position) => {
                    at.reading = Reading::Idle;
                    room.resumed -= 1;
                }
                _ => {}
            }
        }
        // Who brought the last piece waits behind those who did not.
        going.push(last);
        for link in going {
            self.pause(outbox, link, position);
        }
    }
    /// Stops reading from a link that pieces of this position come on.
    pub(super) fn pause<E>(&mut self, outbox: &mut Outbox<E>, link: LinkId, position: u8) {
        let Some(at) = self.links.get_mut(&link) else {
            return;
        };
        if at.purpose != Purpose::Pieces(position) || at.reading == Reading::Paused {
            return;
        }
        let room = self.rooms.entry(position).or_default();
        room.resumed -= usize::from(at.reading == Reading::Resumed);
        room.paused.push_back(link);
        at.reading = Reading::Paused;
        probe::hit(Probe::LinkPaused);
        outbox.push(Output::Pause { link });
    }
    /// Lets links go on that wait for room: as many as the next piece of each would find room; all, if there is
    /// nothing whose end would let others go on.
    fn resume<E>(&mut self, outbox: &mut Outbox<E>, position: u8) {
        let RoomBounds {
            position_bytes,
            piece_bytes,
            ..
        } = self.bounds;
        if self.weight(position) > position_bytes / 2 {
            return;
        }
        let room = self
            .rooms
            .get_mut(&position)
            .expect("made when the bytes were held");
        room.full = false;
        let piece = piece_bytes + HOLD_COST;
        let mut after = room.weight() + piece * (room.resumed + 1);
        while room.pieces == 0 || after <= position_bytes {
            let Some(link) = room.paused.pop_front() else {
                return;
            };
            let at = self
                .links
                .get_mut(&link)
                .expect("a link that is gone waits for nothing");
            assert_eq!(at.reading, Reading::Paused, "who waits is paused");
            at.reading = Reading::Resumed;
            room.resumed += 1;
            after += piece;
            probe::hit(Probe::LinkResumed);
            outbox.push(Output::Resume { link });
        }
    }
    /// One user less of a piece's bytes.
    pub(super) fn let_go<E>(&mut self, outbox: &mut Outbox<E>, hold: Option<HoldId>) {
        let Some(id) = hold else { return };
        let held = self
            .holds
            .get_mut(&id)
            .expect("bytes are held until their last user lets go");
        held.users -= 1;
        if held.users > 0 {
            return;
        }
        let Hold {
            position, bytes, ..
        } = self.holds.remove(&id).expect("it was just there");
        let room = self
            .rooms
            .get_mut(&position)
            .expect("made when the bytes were held");
        assert!(room.bytes >= bytes, "room is given back once");
        room.bytes -= bytes;
        room.pieces -= 1;
        if planted::is(Bug::OneRoomForAll) {
            for position in self.rooms.keys().copied().collect::<Vec<_>>() {
                self.resume(outbox, position);
            }
            return;
        }
        self.resume(outbox, position);
    }
    /// Of the pieces in a position's room.
    fn weight(&self, position: u8) -> usize {
        let rooms = self.rooms.iter();
        rooms
            .filter(|(of, _)| **of == position || planted::is(Bug::OneRoomForAll))
            .map(|(_, room)| room.weight())
            .sum()
    }
}
