//! A client with its outputs sorted by kind, and the peers' side of the wire in the test's hands.
use bytes::Bytes;
use kfs_core::block::Sums;
use kfs_core::client::{Bounds, Call, Client, Config, Event, Failure, Handle};
use kfs_core::ids::{
    CallId, ChunkId, ClusterId, FileId, LinkId, LogSeq, NodeId, SessionId, Version, WriteSeq,
};
use kfs_core::limits::{Geometry, Limits};
use kfs_core::machine::{CloseReason, Input, Machine, Output};
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::wire::client_chunk::{
    Durable, PieceDone, RangeRead, ReadRange, SyncChunk, SyncDone, WritePiece,
};
use kfs_core::wire::client_meta::{
    Answer, Answered, At, Attrs, ChunkPlaces, Done, Grant, HeadSeen, Keep, Kind, Located, Mutate,
    MutateOp, Mutated, Ownership, Place, QueryOp, SessionGrant, SessionOpened,
};
use kfs_core::wire::{Head, Msg, Peer, Refusal, Role, Status};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const GEOMETRY: Geometry = Geometry {
    block_bytes: 1_000,
    chunk_blocks: 5,
    piece_bytes: 2_000,
};
pub(crate) const OWNER: Ownership = Ownership {
    uid: 1,
    gid: 1,
    mode: 0o644,
};
pub(crate) const SESSION: SessionId = SessionId(77);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// What one write of so many bytes leaves.
pub(crate) fn durable(len: u64) -> Durable {
    let wseq = WriteSeq(u64::from(len > 0));
    Durable { len, wseq }
}

pub(crate) fn meta_addr() -> SocketAddr {
    "127.0.0.1:20000".parse().unwrap()
}
/// Where the n-th chunkserver listens.
pub(crate) fn server(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 22_000 + n))
}
pub(crate) fn place(n: u16) -> Place {
    Place {
        node: NodeId(n.into()),
        addr: server(n),
    }
}
pub(crate) fn chunk(index: u64) -> ChunkId {
    ChunkId(100 + index)
}
pub(crate) const VERSION: Version = Version(5);

/// Of file 9.
pub(crate) fn attrs(size: u64) -> Attrs {
    let zero = UnixNanos(0);
    Attrs {
        file: FileId(9),
        kind: Kind::File,
        mode: 0o644,
        uid: 1,
        gid: 1,
        size,
        replication: 3,
        links: 1,
        mtime: zero,
        ctime: zero,
        crtime: zero,
    }
}

/// The bytes of the test files: each depends on its place.
pub(crate) fn bytes(from: u64, len: usize) -> Bytes {
    (from..from + len as u64)
        .map(|i| (i * 7 + i / 251) as u8)
        .collect()
}

pub(crate) fn limits() -> Limits {
    Limits {
        write_window_bytes: 8_000,
        sync_every_bytes: 3_000,
        ..Limits::REAL
    }
}

#[derive(Debug)]
pub(crate) struct Rig {
    client: Client,
    pub(crate) now: Instant,
    next_call: u64,
    pub(crate) sends: VecDeque<(LinkId, Msg)>,
    pub(crate) dials: VecDeque<(LinkId, SocketAddr)>,
    pub(crate) closes: Vec<LinkId>,
    pub(crate) events: VecDeque<(CallId, Event)>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(limits())
    }
    pub(crate) fn with(limits: Limits) -> Self {
        let config = Config {
            seed: 1,
            limits,
            meta: meta_addr(),
            timeout: TIMEOUT,
        };
        let mut rig = Self {
            client: Client::new(config),
            now: Instant(1_000_000_000),
            next_call: 1,
            sends: VecDeque::new(),
            dials: VecDeque::new(),
            closes: Vec::new(),
            events: VecDeque::new(),
        };
        rig.input(Input::Wake);
        rig
    }

    pub(crate) fn input(&mut self, input: Input<Call>) {
        self.client.handle(
            Now {
                mono: self.now,
                wall: UnixNanos(0),
            },
            input,
        );
        while let Some(output) = self.client.poll() {
            match output {
                Output::Send { link, msg } => self.sends.push_back((link, msg)),
                Output::Dial { link, addr } => self.dials.push_back((link, addr)),
                Output::Close { link } => self.closes.push(link),
                Output::Event { id, event } => self.events.push_back((id, event)),
                other => panic!("a client has no use for {other:?}"),
            }
        }
        if let Some((at, why)) = self.client.deadline() {
            assert!(at > self.now, "a deadline that is due was left: {why}");
        }
    }
    pub(crate) fn call(&mut self, call: Call) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.input(Input::Call { id, call });
        id
    }
    /// Lets time pass, waking the client whenever it asked for it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.client.deadline()
            && at <= end
        {
            self.now = at;
            self.input(Input::Wake);
        }
        self.now = end;
        self.input(Input::Wake);
    }
    pub(crate) fn bounds(&self) -> Bounds {
        self.client.bounds()
    }
    pub(crate) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.client.deadline()
    }

    // What the client did.

    pub(crate) fn dialed(&mut self, addr: SocketAddr) -> LinkId {
        let (link, to) = self.dials.pop_front().expect("the client dials");
        assert_eq!(to, addr);
        link
    }
    pub(crate) fn sent(&mut self, link: LinkId) -> Msg {
        let (on, msg) = self.sends.pop_front().expect("the client sends");
        assert_eq!(on, link, "{:?}", msg.head);
        msg
    }
    pub(crate) fn sent_mutation(&mut self, link: LinkId) -> (u64, Mutate) {
        let msg = self.sent(link);
        let Head::Mutate(mutate) = msg.head else {
            panic!("not a mutation: {msg:?}")
        };
        (msg.request, mutate)
    }
    pub(crate) fn sent_query(&mut self, link: LinkId) -> (u64, QueryOp) {
        let msg = self.sent(link);
        let Head::Query(query) = msg.head else {
            panic!("not a query: {msg:?}")
        };
        (msg.request, query.op)
    }
    pub(crate) fn sent_read(&mut self, link: LinkId) -> (u64, ReadRange) {
        let msg = self.sent(link);
        let Head::ReadRange(range) = msg.head else {
            panic!("not a read: {msg:?}")
        };
        (msg.request, range)
    }
    /// All pieces and syncs sent, in order, and nothing else.
    pub(crate) fn sent_to_heads(&mut self) -> Vec<ToHead> {
        self.sends
            .drain(..)
            .map(|(link, msg)| match msg.head {
                Head::WritePiece(piece) => ToHead::Piece(link, msg.request, piece, msg.body),
                Head::SyncChunk(sync) => ToHead::Sync(link, msg.request, sync),
                other => panic!("not for a head: {other:?}"),
            })
            .collect()
    }
    pub(crate) fn event(&mut self) -> (CallId, Event) {
        self.events.pop_front().expect("the client answers")
    }
    pub(crate) fn done(&mut self, id: CallId) {
        let (of, event) = self.event();
        assert_eq!(of, id);
        assert!(matches!(event, Event::Done), "{event:?}");
    }
    pub(crate) fn failed(&mut self, id: CallId) -> Failure {
        let (of, event) = self.event();
        assert_eq!(of, id, "{event:?}");
        let Event::Failed(failure) = event else {
            panic!("not failed: {event:?}")
        };
        failure
    }
    pub(crate) fn quiet(&self) {
        assert!(self.sends.is_empty(), "{:?}", self.sends);
        assert!(self.dials.is_empty(), "{:?}", self.dials);
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    pub(crate) fn quiet_sends(&self) {
        assert!(self.sends.is_empty(), "{:?}", self.sends);
    }

    // What the peers do.

    pub(crate) fn open(&mut self, link: LinkId, role: Role) {
        let peer = Peer {
            role,
            cluster: ClusterId(9),
            addr: meta_addr(),
            protocol: 1,
            build: "test".into(),
        };
        self.input(Input::Opened { link, peer });
    }
    pub(crate) fn close(&mut self, link: LinkId) {
        self.input(Input::Closed {
            link,
            why: CloseReason::Lost("reset".into()),
        });
    }
    pub(crate) fn refuse_dial(&mut self, link: LinkId) {
        self.input(Input::Closed {
            link,
            why: CloseReason::Unreachable("connection refused".into()),
        });
    }
    pub(crate) fn say(&mut self, link: LinkId, request: u64, head: impl Into<Head>) {
        self.input(Input::Received {
            link,
            msg: Msg::new(request, head),
        });
    }
    pub(crate) fn meta_up(&mut self) -> LinkId {
        let link = self.dialed(meta_addr());
        self.open(link, Role::Meta);
        link
    }
    pub(crate) fn chunkserver_up(&mut self, n: u16) -> LinkId {
        let link = self.dialed(server(n));
        self.open(link, Role::Chunk);
        link
    }
    /// Answers an opening of a session; gives what was asked.
    pub(crate) fn grant_session(
        &mut self,
        link: LinkId,
        session: SessionId,
    ) -> (Option<SessionId>, u64) {
        let msg = self.sent(link);
        let Head::OpenSession(open) = msg.head else {
            panic!("no session is opened: {msg:?}")
        };
        let grant = SessionGrant {
            session,
            idle: Duration::from_secs(120),
            geometry: GEOMETRY,
        };
        self.say(
            link,
            msg.request,
            SessionOpened {
                seq: LogSeq(1),
                outcome: Ok(grant),
            },
        );
        (open.resume, open.nonce)
    }
    pub(crate) fn mutated(&mut self, link: LinkId, request: u64, outcome: Result<Done, Refusal>) {
        self.say(
            link,
            request,
            Mutated {
                seq: LogSeq(2),
                outcome,
            },
        );
    }
    pub(crate) fn answered(
        &mut self,
        link: LinkId,
        request: u64,
        outcome: Result<Answer, Refusal>,
    ) {
        self.say(
            link,
            request,
            Answered {
                seq: LogSeq(2),
                outcome,
            },
        );
    }
    pub(crate) fn piece_done(&mut self, link: LinkId, request: u64, piece: &WritePiece) {
        let done = PieceDone {
            chunk: piece.chunk,
            piece: piece.piece,
            outcome: Ok(()),
        };
        self.say(link, request, done);
    }
    pub(crate) fn sync_done(&mut self, link: LinkId, request: u64, chunk: ChunkId, len: u64) {
        self.say(
            link,
            request,
            SyncDone {
                chunk,
                outcome: Ok(durable(len)),
            },
        );
    }
    pub(crate) fn range(&mut self, link: LinkId, request: u64, range: &ReadRange, body: Bytes) {
        let sums = Sums::of(GEOMETRY, range.offset, &body);
        let head = RangeRead { outcome: Ok(sums) };
        self.input(Input::Received {
            link,
            msg: Msg::with_body(request, head, body),
        });
    }

    // Common beginnings.

    /// A client that stands in a session.
    pub(crate) fn in_session() -> (Self, LinkId) {
        Self::in_session_with(limits())
    }
    pub(crate) fn in_session_with(limits: Limits) -> (Self, LinkId) {
        let mut rig = Self::with(limits);
        let id = rig.call(Call::Remove(At::root("x")));
        let link = rig.meta_up();
        rig.grant_session(link, SESSION);
        let (request, _) = rig.sent_mutation(link);
        rig.mutated(link, request, Ok(Done::Ok));
        rig.done(id);
        (rig, link)
    }
    /// A file open for writing; mutations count from 3 then.
    pub(crate) fn writing(limits: Limits) -> (Self, LinkId, Handle) {
        let (mut rig, link) = Self::in_session_with(limits);
        let id = rig.call(Call::Create {
            at: At::root("f"),
            owner: OWNER,
            replication: 3,
            keep: Keep::Always,
        });
        let (request, _) = rig.sent_mutation(link);
        rig.mutated(
            link,
            request,
            Ok(Done::Made {
                file: FileId(9),
                replication: 3,
            }),
        );
        let (of, event) = rig.event();
        let Event::Created {
            handle,
            file: FileId(9),
            replication: 3,
        } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(of, id);
        (rig, link, handle)
    }
    /// Answers the next request of the client, which must be for chunk `index`: head is server 1.
    pub(crate) fn grant(&mut self, link: LinkId, index: u64) {
        let (request, mutate) = self.sent_mutation(link);
        assert_eq!(
            mutate.op,
            MutateOp::Allocate {
                file: FileId(9),
                index
            }
        );
        let grant = Grant {
            index,
            chunk: chunk(index),
            version: VERSION,
            chain: vec![place(1), place(2), place(3)],
            from: kfs_core::ids::PieceNumber(0),
            to: kfs_core::ids::PieceNumber(0),
        };
        self.mutated(link, request, Ok(Done::Granted(grant)));
    }
    /// The next request of the client, which must ask for another chain for chunk 0 of file 9 with this.
    pub(crate) fn asked_for_chain(
        &mut self,
        link: LinkId,
        synced: Durable,
        head: HeadSeen,
        broken: u32,
    ) -> u64 {
        if broken > 0 {
            // It rests before it asks again.
            let (due, why) = self.deadline().unwrap();
            assert_eq!(why, "another chain is asked for");
            self.pass(due.since(self.now));
        }
        let (request, mutate) = self.sent_mutation(link);
        assert_eq!(mutate.op, rechain(synced, head, broken));
        request
    }
    /// A file of `size` bytes open for reading.
    pub(crate) fn reading(size: u64) -> (Self, LinkId, Handle) {
        Self::reading_with(limits(), size)
    }
    pub(crate) fn reading_with(limits: Limits, size: u64) -> (Self, LinkId, Handle) {
        let mut rig = Self::with(limits);
        let id = rig.call(Call::Open(At::root("f")));
        let link = rig.meta_up();
        rig.grant_open(link, size);
        let (of, event) = rig.event();
        let Event::Opened { handle, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!(of, id);
        (rig, link, handle)
    }
    /// Answers the next request of the client, which must open a file: it is file 9, of this size.
    pub(crate) fn grant_open(&mut self, link: LinkId, size: u64) {
        let (request, op) = self.sent_query(link);
        assert!(matches!(op, QueryOp::Open { .. }), "{op:?}");
        let attrs = attrs(size);
        let idle = Duration::from_secs(120);
        self.answered(link, request, Ok(Answer::Opened { attrs, idle }));
    }
    /// Answers the next request of the client, which must ask for locations, with these chunks.
    pub(crate) fn locate(&mut self, link: LinkId, size: u64, chunks: &[(u64, &[u16], u32)]) {
        let (request, op) = self.sent_query(link);
        let QueryOp::Locate {
            file: FileId(9), ..
        } = op
        else {
            panic!("{op:?}")
        };
        let chunks = chunks
            .iter()
            .map(|(index, servers, absent)| ChunkPlaces {
                index: *index,
                chunk: chunk(*index),
                version: VERSION,
                log: durable(GEOMETRY.chunk_len(size, *index)),
                replicas: servers.iter().map(|n| place(*n)).collect(),
                absent: *absent,
            })
            .collect();
        let located = Located {
            size,
            geometry: GEOMETRY,
            chunks,
        };
        self.answered(link, request, Ok(Answer::Located(located)));
    }
}

/// A wish for another chain for chunk 0 of file 9.
pub(crate) fn rechain(synced: Durable, head: HeadSeen, broken: u32) -> MutateOp {
    MutateOp::Rechain {
        file: FileId(9),
        index: 0,
        chunk: chunk(0),
        version: VERSION,
        synced,
        head,
        broken,
    }
}

/// What a head was sent.
#[derive(Debug)]
pub(crate) enum ToHead {
    Piece(LinkId, u64, WritePiece, Bytes),
    Sync(LinkId, u64, SyncChunk),
}

impl ToHead {
    pub(crate) fn piece(&self) -> Option<&WritePiece> {
        match self {
            Self::Piece(_, _, piece, _) => Some(piece),
            Self::Sync(..) => None,
        }
    }
    /// (chunk index, piece number, offset in the chunk, length) of a piece; (chunk index, up to, 0, 0) of a sync.
    pub(crate) fn brief(&self) -> (u64, u64, u64, usize) {
        match self {
            Self::Piece(_, _, piece, body) => {
                (piece.chunk.0 - 100, piece.piece.0, piece.offset, body.len())
            }
            Self::Sync(_, _, sync) => (sync.chunk.0 - 100, sync.up_to.0, 0, 0),
        }
    }
}

pub(crate) fn refusal(status: Status) -> Refusal {
    Refusal::new(status, format!("because {}", status.code()))
}
