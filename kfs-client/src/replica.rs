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
    if !geometry.fits() || chunk.log.len > geometry.chunk_bytes() {
        let what = format!(
            "the meta server named impossible sizes: {geometry:?}, and {} bytes in a chunk",
            chunk.log.len
        );
        return Err(Error::new(Status::Protocol, what));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kfs_core::block::Sums;
    use kfs_core::ids::{ChunkId, ClusterId, Version};
    use kfs_core::time::UnixNanos;
    use kfs_core::wire::Peer;
    use kfs_core::wire::client_chunk::Durable;

    const CALL: CallId = CallId(7);

    fn at(seconds: u64) -> Now {
        Now {
            mono: Instant::default() + Duration::from_secs(seconds),
            wall: UnixNanos(0),
        }
    }

    fn range(bytes: &Bytes) -> ReadRange {
        ReadRange {
            chunk: ChunkId(1),
            version: Version(1),
            offset: 0,
            len: u32::try_from(bytes.len()).unwrap(),
            log: Durable::default(),
        }
    }

    fn drain(replica: &mut Replica) -> Vec<Output<Answer>> {
        std::iter::from_fn(|| replica.poll()).collect()
    }

    /// A replica that was asked for these bytes over a link that is up.
    fn asked(bytes: &Bytes) -> (Replica, LinkId, u64) {
        let mut replica = Replica::new("127.0.0.1:1".parse().unwrap(), Geometry::REAL);
        let call = range(bytes);
        replica.handle(at(0), Input::Call { id: CALL, call });
        let [Output::Dial { link, .. }] = drain(&mut replica)[..] else {
            panic!("it dials")
        };
        let peer = peer(Role::Chunk);
        replica.handle(at(1), Input::Opened { link, peer });
        let sent = drain(&mut replica);
        let [Output::Send { msg, .. }] = &sent[..] else {
            panic!("it asks: {sent:?}")
        };
        let request = msg.request;
        (replica, link, request)
    }

    fn peer(role: Role) -> Peer {
        Peer {
            role,
            cluster: ClusterId(0),
            addr: "127.0.0.1:1".parse().unwrap(),
            protocol: 1,
            build: String::new(),
        }
    }

    fn answer(outputs: &[Output<Answer>]) -> &Answer {
        let [.., Output::Event { id, event }] = outputs else {
            panic!("no answer: {outputs:?}")
        };
        assert_eq!(*id, CALL);
        event
    }

    #[test]
    fn bytes_are_good_only_if_they_are_all_there_and_match_what_was_summed() {
        let bytes = Bytes::from(vec![7; 100_000]);
        let sums = Sums::of(Geometry::REAL, 0, &bytes);
        let mut flipped = bytes.to_vec();
        flipped[70_000] ^= 1;
        for (body, good) in [
            (bytes.clone(), true),
            (Bytes::from(flipped), false),
            (bytes.slice(..99_999), false),
            (Bytes::new(), false),
        ] {
            let (mut replica, link, request) = asked(&bytes);
            let outcome = Ok(sums.clone());
            let msg = Msg::with_body(request, RangeRead { outcome }, body);
            replica.handle(at(2), Input::Received { link, msg });
            match answer(&drain(&mut replica)) {
                Ok(len) => assert!(good && *len == 100_000),
                Err(refusal) => assert!(!good && refusal.status == Status::Corrupt),
            }
            assert_eq!(replica.deadline(), None, "nobody is waited for");
        }
    }

    #[test]
    fn a_server_that_is_silent_gone_or_none_is_not_waited_for() {
        let bytes = Bytes::from_static(b"x");
        let failed = |replica: &mut Replica, part: &str| {
            let outputs = drain(replica);
            let refusal = answer(&outputs).clone().unwrap_err();
            assert_eq!(refusal.status, Status::Unreachable);
            assert!(refusal.detail.contains(part), "{refusal:?}");
        };
        let (mut replica, link, _) = asked(&bytes);
        let (due, _) = replica.deadline().unwrap();
        assert_eq!(due, at(1).mono + SILENCE);
        replica.handle(at(12), Input::Wake);
        assert!(drain(&mut replica).is_empty(), "not yet");
        replica.handle(at(13), Input::Wake);
        failed(&mut replica, "no answer within 12 s");
        // What it says now is too late for anybody.
        let outcome = Err(Refusal::new(Status::Busy, ""));
        let msg = Msg::new(1, RangeRead { outcome });
        replica.handle(at(14), Input::Received { link, msg });
        assert!(drain(&mut replica).is_empty());

        let (mut replica, link, _) = asked(&bytes);
        let why = kfs_core::machine::CloseReason::Lost("it was killed".into());
        replica.handle(at(2), Input::Closed { link, why });
        failed(&mut replica, "it was killed");

        let mut replica = Replica::new("127.0.0.1:1".parse().unwrap(), Geometry::REAL);
        let call = range(&bytes);
        replica.handle(at(0), Input::Call { id: CALL, call });
        let [Output::Dial { link, .. }] = drain(&mut replica)[..] else {
            panic!("it dials")
        };
        let peer = peer(Role::Meta);
        replica.handle(at(1), Input::Opened { link, peer });
        failed(&mut replica, "it is no chunkserver");
    }
}
