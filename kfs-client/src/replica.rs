//! One replica of a chunk, read by itself and compared with its sums: what a file that is read does not tell, as it
//! takes each chunk from whichever server answers.
//!
//! A machine of its own, with one link to one server: it asks for ranges, and says of each whether it came as it was
//! written. Nothing is asked twice, and nobody else is asked instead.
use crate::error::{Error, Result};
use kfs_core::ids::{CallId, LinkId};
use kfs_core::limits::Geometry;
use kfs_core::machine::{Input, Machine, Output};
use kfs_core::outbox::Outbox;
use kfs_core::time::{Instant, Now};
use kfs_core::wire::client_chunk::{RangeRead, ReadRange};
use kfs_core::wire::client_meta::{ChunkPlaces, Place};
use kfs_core::wire::{Head, Msg, Refusal, Role, Status};
use kfs_drive::{Net, NoDisk};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// A server that says nothing for so long while something is asked is not waited for any longer.
const SILENCE: Duration = Duration::from_secs(12);
/// Ranges asked for ahead.
const AHEAD: usize = 4;

/// Reads all that this server has of a chunk that the log knows, as [`crate::Kfs::verify_replica`] says.
pub(crate) async fn verify(geometry: Geometry, chunk: &ChunkPlaces, place: Place) -> Result<u64> {
    let replica = Replica::new(place.addr, geometry);
    let (caller, calls) = kfs_drive::calls(|_event| {});
    let (_, completions) = tokio::sync::mpsc::unbounded_channel();
    let net = Net::new(Role::Client);
    tokio::spawn(kfs_drive::drive(replica, NoDisk, completions, net, calls));
    let (mut asked, mut verified) = (0, 0);
    let mut ahead = VecDeque::new();
    loop {
        while asked < chunk.log.len && ahead.len() < AHEAD {
            let len = u64::from(geometry.piece_bytes).min(chunk.log.len - asked);
            let range = ReadRange {
                chunk: chunk.chunk,
                version: chunk.version,
                offset: asked,
                len: u32::try_from(len).expect("a piece is small"),
                log: chunk.log,
            };
            ahead.push_back(caller.begin(range).await);
            asked += len;
        }
        let Some(range) = ahead.pop_front() else {
            return Ok(verified);
        };
        match range.await {
            Ok(Ok(bytes)) => verified += bytes,
            Ok(Err(refusal)) => return Err(Error::new(refusal.status, refusal.detail)),
            Err(_) => return Err(Error::gone()),
        }
    }
}

#[derive(Debug)]
struct Replica {
    addr: SocketAddr,
    geometry: Geometry,
    outbox: Outbox<Answer>,
    link: Option<Link>,
    /// What is asked: by the number of its request, which is in the order of the calls.
    asked: BTreeMap<u64, (CallId, ReadRange)>,
    next_request: u64,
    heard: Instant,
}

/// Bytes that match their sums, or why there are none.
type Answer = core::result::Result<u64, Refusal>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Dialed(LinkId),
    Up(LinkId),
}

impl Link {
    const fn id(self) -> LinkId {
        match self {
            Self::Dialed(link) | Self::Up(link) => link,
        }
    }
}

impl Replica {
    fn new(addr: SocketAddr, geometry: Geometry) -> Self {
        Self {
            addr,
            geometry,
            outbox: Outbox::default(),
            link: None,
            asked: BTreeMap::new(),
            next_request: 1,
            heard: Instant::default(),
        }
    }

    fn is_of(&self, link: LinkId) -> bool {
        self.link.is_some_and(|own| own.id() == link)
    }

    fn ask(&mut self, now: Instant, id: CallId, range: ReadRange) {
        if self.asked.is_empty() {
            self.heard = now;
        }
        let request = self.next_request;
        self.next_request += 1;
        match self.link {
            None => self.link = Some(Link::Dialed(self.outbox.dial(self.addr))),
            Some(Link::Dialed(_)) => {}
            Some(Link::Up(link)) => self.outbox.send(link, Msg::new(request, range.clone())),
        }
        self.asked.insert(request, (id, range));
    }

    fn opened(&mut self, link: LinkId, role: Role) {
        if role != Role::Chunk {
            self.outbox.push(Output::Close { link });
            return self.lost("it is no chunkserver");
        }
        self.link = Some(Link::Up(link));
        for (request, (_, range)) in &self.asked {
            self.outbox.send(link, Msg::new(*request, range.clone()));
        }
    }

    fn received(&mut self, msg: Msg) {
        let Some((id, range)) = self.asked.remove(&msg.request) else {
            return;
        };
        let answer = match msg.head {
            Head::RangeRead(RangeRead { outcome: Ok(sums) }) => {
                let is_whole = msg.body.len() == range.len as usize
                    && sums.match_bytes(self.geometry, range.offset, &msg.body);
                if is_whole {
                    Ok(u64::from(range.len))
                } else {
                    let what = "it sent bytes that do not match their sums";
                    Err(Refusal::new(Status::Corrupt, what))
                }
            }
            Head::RangeRead(RangeRead {
                outcome: Err(refusal),
            }) => Err(refusal),
            _ => Err(Refusal::new(
                Status::Protocol,
                "it answered something else than a read",
            )),
        };
        self.outbox.event(id, answer);
    }

    /// The link is gone, and with it what was asked.
    fn lost(&mut self, why: &str) {
        self.link = None;
        for (id, _) in std::mem::take(&mut self.asked).into_values() {
            let refusal = Refusal::new(Status::Unreachable, why);
            self.outbox.event(id, Err(refusal));
        }
    }

    fn tick(&mut self, now: Instant) {
        if !self.asked.is_empty() && self.heard + SILENCE <= now {
            if let Some(link) = self.link {
                self.outbox.push(Output::Close { link: link.id() });
            }
            self.lost(&format!("no answer within {} s", SILENCE.as_secs()));
        }
    }
}

impl Machine for Replica {
    type Call = ReadRange;
    type Event = Answer;

    fn handle(&mut self, now: Now, input: Input<ReadRange>) {
        let now = now.mono;
        match input {
            Input::Wake => self.tick(now),
            Input::Call { id, call } => self.ask(now, id, call),
            Input::Opened { link, peer } if self.is_of(link) => {
                self.heard = now;
                self.opened(link, peer.role);
            }
            Input::Received { link, msg } if self.is_of(link) => {
                self.heard = now;
                self.received(msg);
            }
            Input::Closed { link, why } if self.is_of(link) => self.lost(&why.to_string()),
            Input::Opened { .. }
            | Input::Received { .. }
            | Input::Closed { .. }
            | Input::Sent { .. }
            | Input::Disk { .. } => {}
        }
    }

    fn poll(&mut self) -> Option<Output<Answer>> {
        self.outbox.pop()
    }

    fn deadline(&self) -> Option<(Instant, &'static str)> {
        (!self.asked.is_empty()).then(|| (self.heard + SILENCE, "a replica is silent"))
    }
}
