//! Total: whatever well-formed nonsense peers, links and callers produce, there is no panic, no call is
//! answered twice, and when the client goes away every call has been answered.
use crate::rig::{GEOMETRY, OWNER, bytes, chunk, limits, meta_addr, place, refusal, server};
use kfs_core::block::{Sums, crc};
use kfs_core::client::{Call, Client, Config, Event, Handle};
use kfs_core::ids::{
    CallId, ChunkId, ClusterId, FileId, LinkId, LogSeq, PieceNumber, SessionId, Version, WriteSeq,
};
use kfs_core::limits::{Geometry, Limits};
use kfs_core::machine::{CloseReason, Input, Machine, Output};
use kfs_core::rng::Rng;
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::wire::client_chunk::{Durable, PieceDone, RangeRead, SyncDone};
use kfs_core::wire::client_meta::{
    Answer, Answered, At, Attrs, ChunkPlaces, Done, Grant, Keep, Kind, Located, MutateOp, Mutated,
    Parents, QueryOp, RenameMode, Renewed, SessionGrant, SessionOpened,
};
use kfs_core::wire::{Head, Msg, Peer, Refusal, Role, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Chance, and what a peer could know: requests that were sent, links that are there.
struct Chance {
    rng: Rng,
    links: BTreeMap<LinkId, bool>,
    asked: Vec<(LinkId, u64, Head)>,
    handles: u64,
}

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.rng.u64() % limit
    }
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX,
            1 => self.rng.u64(),
            _ => self.below(20),
        }
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn refusal(&mut self) -> Refusal {
        let at = self.rng.below(Status::ALL.len());
        refusal(Status::ALL[at])
    }
    fn geometry(&mut self) -> Geometry {
        if self.one_in(20) {
            Geometry {
                block_bytes: self.number() as u32,
                chunk_blocks: self.number() as u32,
                piece_bytes: 0,
            }
        } else {
            GEOMETRY
        }
    }
    fn at(&mut self) -> At {
        At::root(format!("f{}", self.below(3)))
    }
    fn handle(&mut self) -> Handle {
        Handle(self.rng.u64() % (self.handles + 2))
    }

    fn call(&mut self) -> Call {
        match self.below(27) {
            24..=26 => Call::Append(self.at()),
            0 => Call::Stat(self.at()),
            1 => Call::List {
                at: self.at(),
                after: Vec::new(),
            },
            2 => Call::Mkdir {
                at: self.at(),
                parents: Parents::Make,
                owner: OWNER,
            },
            3 => Call::Rename {
                from: self.at(),
                to: self.at(),
                mode: RenameMode::Replace,
            },
            4 => Call::Remove(self.at()),
            5 => Call::Rmdir(self.at()),
            6 => Call::Status,
            7 | 8 => Call::Open(self.at()),
            9 | 10 => Call::Create {
                at: self.at(),
                owner: OWNER,
                replication: 3,
                keep: Keep::Always,
            },
            11..=15 => {
                let offset = if self.one_in(10) {
                    self.number()
                } else {
                    self.below(30_000)
                };
                Call::Write {
                    handle: self.handle(),
                    offset,
                    data: bytes(0, self.rng.below(6_000)),
                }
            }
            16 | 17 => Call::Sync(self.handle()),
            18 if self.one_in(2) => Call::Close(self.handle()),
            19 if self.one_in(4) => Call::Abandon(self.handle()),
            _ => {
                let offset = if self.one_in(10) {
                    self.number()
                } else {
                    self.below(30_000)
                };
                let len = if self.one_in(20) {
                    usize::MAX
                } else {
                    self.rng.below(20_000)
                };
                Call::Read {
                    handle: self.handle(),
                    offset,
                    len,
                }
            }
        }
    }

    /// An answer that fits the question, with some of it bent.
    fn answer(&mut self, to: &Head) -> Option<Msg> {
        let bent = self.one_in(6);
        let seq = LogSeq(self.number());
        let head: Head = match to {
            _ if self.one_in(30) => Renewed { outcome: Ok(()) }.into(),
            Head::OpenSession(open) => {
                let session = open
                    .resume
                    .filter(|_| !bent)
                    .unwrap_or(SessionId(self.number()));
                let idle = Duration::from_secs(self.below(100));
                let grant = SessionGrant {
                    session,
                    idle,
                    geometry: self.geometry(),
                };
                SessionOpened {
                    seq,
                    outcome: if bent { Err(self.refusal()) } else { Ok(grant) },
                }
                .into()
            }
            Head::Renew(_) => Renewed {
                outcome: if bent { Err(self.refusal()) } else { Ok(()) },
            }
            .into(),
            Head::Mutate(mutate) => {
                let index = match mutate.op {
                    MutateOp::Allocate { index, .. } | MutateOp::TakeOver { index, .. }
                        if !bent =>
                    {
                        index
                    }
                    _ => self.number(),
                };
                let done = match &mutate.op {
                    MutateOp::Allocate { .. } => {
                        let (from, to) = (self.below(3), self.below(3));
                        Done::Granted(self.grant(index, (from, to)))
                    }
                    MutateOp::TakeOver { .. } => {
                        let from = self.number();
                        let to = if bent { self.number() } else { from };
                        let grant = self.grant(index, (from, to));
                        let len = if bent { self.number() } else { 5_000 };
                        Done::TakenOver { grant, len }
                    }
                    MutateOp::Create { .. } => Done::Made {
                        file: FileId(self.number()),
                        replication: 3,
                    },
                    MutateOp::Append { .. } => Done::Appending {
                        file: FileId(self.number()),
                        replication: 3,
                        size: self.attrs().size,
                    },
                    _ => Done::Ok,
                };
                Mutated {
                    seq,
                    outcome: if self.one_in(5) {
                        Err(self.refusal())
                    } else {
                        Ok(done)
                    },
                }
                .into()
            }
            Head::Query(query) => {
                let answer = match query.op {
                    QueryOp::Locate { first, .. } => {
                        let size = if bent { self.number() } else { 30_000 };
                        let chunks = (0..self.below(8))
                            .map(|n| self.places(first.wrapping_add(n)))
                            .collect();
                        Answer::Located(Located {
                            size,
                            geometry: self.geometry(),
                            chunks,
                        })
                    }
                    QueryOp::Stat { .. } => Answer::Attrs(self.attrs()),
                    QueryOp::Open { .. } => Answer::Opened {
                        attrs: self.attrs(),
                        idle: Duration::from_millis(self.number() % 1_000),
                    },
                    QueryOp::Hold { .. } | QueryOp::Release { .. } => Answer::Held {
                        idle: Duration::from_secs(1),
                    },
                    _ => Answer::Entries {
                        entries: Vec::new(),
                        end: !bent,
                    },
                };
                Answered {
                    seq,
                    outcome: if self.one_in(5) {
                        Err(self.refusal())
                    } else {
                        Ok(answer)
                    },
                }
                .into()
            }
            Head::WritePiece(piece) => {
                let piece_number = if bent {
                    PieceNumber(self.number())
                } else {
                    piece.piece
                };
                let outcome = if self.one_in(12) {
                    Err(self.refusal())
                } else {
                    Ok(())
                };
                PieceDone {
                    chunk: piece.chunk,
                    piece: piece_number,
                    outcome,
                }
                .into()
            }
            Head::SyncChunk(sync) => {
                let len = if bent { self.number() } else { 5_000 };
                let outcome = if self.one_in(12) {
                    Err(self.refusal())
                } else {
                    let wseq = WriteSeq(if self.one_in(9) { 0 } else { len });
                    Ok(Durable { len, wseq })
                };
                SyncDone {
                    chunk: sync.chunk,
                    outcome,
                }
                .into()
            }
            Head::ReadRange(range) => {
                let body = bytes(
                    range.offset,
                    if bent {
                        self.rng.below(3_000)
                    } else {
                        range.len as usize
                    },
                );
                let sums = Sums::of(
                    GEOMETRY,
                    if self.one_in(9) { 1 } else { range.offset },
                    &body,
                );
                let outcome = if self.one_in(5) {
                    Err(self.refusal())
                } else {
                    Ok(sums)
                };
                return Some(Msg::with_body(0, RangeRead { outcome }, body));
            }
            _ => return None,
        };
        Some(Msg::new(0, head))
    }

    fn grant(&mut self, index: u64, (from, to): (u64, u64)) -> Grant {
        Grant {
            index,
            chunk: ChunkId(100u64.wrapping_add(index)),
            version: Version(1),
            chain: (0..self.below(4) as u16).map(place).collect(),
            from: PieceNumber(from),
            to: PieceNumber(to),
        }
    }

    fn places(&mut self, index: u64) -> ChunkPlaces {
        let index = if self.one_in(9) { self.number() } else { index };
        ChunkPlaces {
            index,
            chunk: chunk(self.below(50)),
            version: Version(1),
            log: Durable {
                len: self.number(),
                wseq: WriteSeq(self.number()),
            },
            replicas: (0..self.below(4) as u16).map(place).collect(),
            absent: self.number() as u32,
        }
    }

    fn attrs(&mut self) -> Attrs {
        let zero = UnixNanos(0);
        let size = if self.one_in(9) {
            self.number()
        } else {
            self.below(40_000)
        };
        Attrs {
            file: FileId(self.number()),
            kind: if self.one_in(9) {
                Kind::Directory
            } else {
                Kind::File
            },
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            replication: 0,
            links: 1,
            mtime: zero,
            ctime: zero,
            crtime: zero,
        }
    }

    fn link(&mut self) -> LinkId {
        let known: Vec<_> = self.links.keys().copied().collect();
        match known.is_empty() || self.one_in(20) {
            true => LinkId(self.number()),
            false => known[self.rng.below(known.len())],
        }
    }
}

/// The client, and what must hold of its outputs.
struct Watched {
    client: Client,
    now: Instant,
    open_calls: BTreeSet<CallId>,
    next_call: u64,
    answered: u64,
    served: u64,
    digest: u32,
}

impl Watched {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            write_window_bytes: 9_000,
            sync_every_bytes: 3_000,
            read_ahead_bytes: 6_000,
            ..limits()
        };
        let config = Config {
            seed,
            limits,
            meta: meta_addr(),
            timeout: Duration::from_secs(20),
        };
        let now = Instant(1_000_000_000);
        Self {
            client: Client::new(config),
            now,
            open_calls: BTreeSet::new(),
            next_call: 1,
            answered: 0,
            served: 0,
            digest: 0,
        }
    }

    fn call(&mut self, call: Call, chance: &mut Chance) {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.open_calls.insert(id);
        self.input(Input::Call { id, call }, chance);
    }

    fn input(&mut self, input: Input<Call>, chance: &mut Chance) {
        self.client.handle(
            Now {
                mono: self.now,
                wall: UnixNanos(0),
            },
            input,
        );
        while let Some(output) = self.client.poll() {
            let brief = match &output {
                Output::Send { link, msg } => {
                    format!("{link} {} {:?} {}", msg.request, msg.head, msg.body.len())
                }
                other => format!("{other:?}"),
            };
            self.digest = crc(&[&self.digest.to_le_bytes(), brief.as_bytes()].concat());
            match output {
                Output::Send { link, msg } => {
                    assert!(
                        chance.links.get(&link) == Some(&true),
                        "{link} is not open: {:?}",
                        msg.head
                    );
                    chance.asked.push((link, msg.request, msg.head));
                }
                Output::Dial { link, .. } => {
                    assert!(
                        chance.links.insert(link, false).is_none(),
                        "{link} was used before"
                    );
                }
                Output::Close { link } => {
                    assert!(
                        chance.links.remove(&link).is_some(),
                        "{link} is closed twice"
                    );
                }
                Output::Event { id, event } => {
                    assert!(
                        self.open_calls.remove(&id),
                        "{id} is answered twice: {event:?}"
                    );
                    self.answered += 1;
                    self.served += u64::from(!matches!(event, Event::Failed(_)));
                    if let Event::Created { handle, .. }
                    | Event::Opened { handle, .. }
                    | Event::Appending { handle, .. } = event
                    {
                        chance.handles = chance.handles.max(handle.0);
                    }
                }
                other => panic!("a client has no use for {other:?}"),
            }
        }
        if let Some((at, why)) = self.client.deadline() {
            assert!(at > self.now, "a deadline that is due was left: {why}");
        }
    }
}

/// Calls answered, calls served, and a digest of all outputs.
fn run(seed: u64, steps: u32) -> (u64, u64, u32) {
    let mut chance = Chance {
        rng: Rng::new(seed),
        links: BTreeMap::new(),
        asked: Vec::new(),
        handles: 0,
    };
    let mut client = Watched::new(seed);
    client.input(Input::Wake, &mut chance);
    for _ in 0..steps {
        match chance.below(20) {
            0..=5 => {
                let call = chance.call();
                client.call(call, &mut chance);
            }
            6 | 7 => {
                let link = chance.link();
                let role = if chance.one_in(15) {
                    Role::Client
                } else if link == LinkId(2) {
                    Role::Meta
                } else {
                    Role::Chunk
                };
                let role = if chance.one_in(3) { Role::Meta } else { role };
                if chance.links.get(&link) != Some(&true) {
                    if let Some(up) = chance.links.get_mut(&link) {
                        *up = true;
                    }
                    let peer = Peer {
                        role,
                        cluster: ClusterId(9),
                        addr: server(1),
                        protocol: 1,
                        build: String::new(),
                    };
                    client.input(Input::Opened { link, peer }, &mut chance);
                }
            }
            8 if chance.one_in(3) => {
                let link = chance.link();
                chance.links.remove(&link);
                let why = match chance.below(9) {
                    0 => CloseReason::Refused("no".into()),
                    1 => CloseReason::Malformed("no".into()),
                    2 => CloseReason::Unreachable("no".into()),
                    _ => CloseReason::Lost("no".into()),
                };
                client.input(Input::Closed { link, why }, &mut chance);
            }
            9 => {
                let millis = if chance.one_in(10) { 8_000 } else { 80 };
                let time = Duration::from_millis(chance.below(millis));
                client.now = client.now + time;
                client.input(Input::Wake, &mut chance);
            }
            10 => {
                let (link, bytes) = (chance.link(), chance.rng.below(5_000));
                client.input(Input::Sent { link, bytes }, &mut chance);
            }
            _ if chance.asked.is_empty() => {}
            _ => {
                let at = chance.rng.below(chance.asked.len());
                let again = chance.one_in(10);
                let (link, request, head) = if again {
                    chance.asked[at].clone()
                } else {
                    chance.asked.remove(at)
                };
                let Some(mut msg) = chance.answer(&head) else {
                    continue;
                };
                msg.request = if chance.one_in(30) {
                    chance.number()
                } else {
                    request
                };
                let link = if chance.one_in(30) {
                    chance.link()
                } else {
                    link
                };
                client.input(Input::Received { link, msg }, &mut chance);
            }
        }
    }
    client.call(Call::Disconnect, &mut chance);
    client.now = client.now + Duration::from_secs(60);
    client.input(Input::Wake, &mut chance);
    assert!(
        client.open_calls.is_empty(),
        "never answered: {:?}",
        client.open_calls
    );
    assert!(chance.links.is_empty(), "left open: {:?}", chance.links);
    assert_eq!(client.client.deadline(), None);
    (client.answered, client.served, client.digest)
}

#[test]
fn nonsense_never_panics_and_every_call_is_answered_once() {
    let (mut answered, mut served) = (0, 0);
    for seed in 0..60 {
        let (all, well, _) = run(seed, 600);
        answered += all;
        served += well;
    }
    // The nonsense must leave room for sense, or nothing deep was reached.
    assert!(
        answered > 6_000 && served > answered / 10,
        "{served} of {answered} served"
    );
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    for seed in 0..5 {
        assert_eq!(run(seed, 400), run(seed, 400));
    }
}
