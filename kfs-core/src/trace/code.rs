//! Inputs and configurations as bytes: a small head in postcard, and bulk data raw behind it.
//!
//! The types that are encoded are this file's own, so that what a machine calls its parts may change without
//! the format changing. Decoding takes whatever it is given and never allocates more than that justifies.
use super::hash::EventHash;
use crate::chunk::{self, Chunk};
use crate::client::{self, Client, Handle};
use crate::ids::{ClusterId, FileId, LinkId, NodeId};
use crate::limits::{Geometry, Limits, Timing};
use crate::machine::{CloseReason, DirEntry, DiskDone, DiskError, DiskResult, Input, Machine};
use crate::meta::{self, Meta};
use crate::wire::client_meta::{At, Attributes, Drain, Keep, Ownership, Parents, RenameMode};
use crate::wire::{Head, Msg, Peer, Role};
use bytes::Bytes;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::time::Duration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A machine that can be recorded, and built again from its configuration.
pub trait TracedMachine: Machine<Call: TracedCall, Event: TracedEvent> + Sized {
    /// All that it is built from, its seed included.
    type Config: Clone + Into<Configuration>;
    /// Builds it.
    fn configured(config: Self::Config) -> Self;
}

/// A call that can be recorded.
pub trait TracedCall: Sized {
    /// Appends it to `head`; bulk data is given apart.
    fn encode(&self, head: Vec<u8>) -> (Vec<u8>, Bytes);
    /// The call of these bytes; `None` if there is no such call.
    fn decode(head: &[u8], body: Bytes) -> Option<Self>;
}

/// An event that can be told from another.
pub trait TracedEvent {
    /// Adds all that it says to a hash.
    fn add_to(&self, hash: &mut EventHash);
}

/// What an entry of a trace is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// Nothing more was recorded.
    End,
    /// [`Input::Wake`].
    Wake,
    /// [`Input::Opened`].
    Opened,
    /// [`Input::Received`].
    Received,
    /// [`Input::Sent`].
    Sent,
    /// [`Input::Closed`].
    Closed,
    /// [`Input::Disk`].
    Disk,
    /// [`Input::Call`].
    Call,
}

impl EntryKind {
    /// All of them, in the order of their codes, from 0.
    pub const ALL: [Self; 8] = [
        Self::End,
        Self::Wake,
        Self::Opened,
        Self::Received,
        Self::Sent,
        Self::Closed,
        Self::Disk,
        Self::Call,
    ];
    /// Its number in the format.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::End => 0,
            Self::Wake => 1,
            Self::Opened => 2,
            Self::Received => 3,
            Self::Sent => 4,
            Self::Closed => 5,
            Self::Disk => 6,
            Self::Call => 7,
        }
    }
    /// The kind of this number.
    #[must_use]
    pub fn of_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Encodes an input: its kind, its head appended to `head`, and its bulk data.
pub(super) fn encode_input<C: TracedCall>(
    input: &Input<C>,
    head: Vec<u8>,
) -> (EntryKind, Vec<u8>, Bytes) {
    let (kind, head) = match input {
        Input::Wake => (EntryKind::Wake, head),
        Input::Opened { link, peer } => {
            (EntryKind::Opened, put(head, &(*link, PeerCode::from(peer))))
        }
        Input::Received { link, msg } => {
            let head = put(head, &(*link, msg.request, msg.head.code()));
            return (EntryKind::Received, msg.head.encode(head), msg.body.clone());
        }
        Input::Sent { link, bytes } => (EntryKind::Sent, put(head, &(*link, *bytes as u64))),
        Input::Closed { link, why } => {
            (EntryKind::Closed, put(head, &(*link, CloseCode::from(why))))
        }
        Input::Disk { ticket, result } => {
            let head = put(head, &(*ticket, DiskCode::from(result)));
            let body = match result {
                Ok(DiskDone::Data(data)) => data.clone(),
                _ => Bytes::new(),
            };
            return (EntryKind::Disk, head, body);
        }
        Input::Call { id, call } => {
            let (head, body) = call.encode(put(head, id));
            return (EntryKind::Call, head, body);
        }
    };
    (kind, head, Bytes::new())
}

/// The input of these bytes; `None` if there is no such input.
pub(super) fn decode_input<C: TracedCall>(
    kind: EntryKind,
    head: &[u8],
    body: Bytes,
) -> Option<Input<C>> {
    let bodiless = body.is_empty();
    let input = match kind {
        EntryKind::End => return None,
        EntryKind::Wake => {
            if !head.is_empty() {
                return None;
            }
            Input::Wake
        }
        EntryKind::Opened => {
            let (link, peer): (LinkId, PeerCode<'_>) = take_all(head)?;
            Input::Opened {
                link,
                peer: peer.into(),
            }
        }
        EntryKind::Received => {
            let ((link, request, code), rest) = take(head)?;
            let head = Head::decode(code, rest).ok()?;
            let msg = Msg {
                request,
                head,
                body,
            };
            return Some(Input::Received { link, msg });
        }
        EntryKind::Sent => {
            let (link, bytes): (LinkId, u64) = take_all(head)?;
            let bytes = usize::try_from(bytes).ok()?;
            Input::Sent { link, bytes }
        }
        EntryKind::Closed => {
            let (link, why): (LinkId, CloseCode<'_>) = take_all(head)?;
            Input::Closed {
                link,
                why: why.into(),
            }
        }
        EntryKind::Disk => {
            let (ticket, code): (_, DiskCode<'_>) = take_all(head)?;
            let result = code.result(body)?;
            return Some(Input::Disk { ticket, result });
        }
        EntryKind::Call => {
            let (id, rest) = take(head)?;
            let call = C::decode(rest, body)?;
            return Some(Input::Call { id, call });
        }
    };
    bodiless.then_some(input)
}

/// Appends a value in postcard.
pub(super) fn put(to: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, to).expect("a trace holds nothing that postcard cannot encode")
}
fn take<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}
fn take_all<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = take(bytes)?;
    rest.is_empty().then_some(value)
}

/// An address, whole: what travels on the wire leaves out flow and scope.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Addr {
    V4([u8; 4], u16),
    V6([u8; 16], u16, u32, u32),
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(addr.ip().octets(), addr.port()),
            SocketAddr::V6(addr) => Self::V6(
                addr.ip().octets(),
                addr.port(),
                addr.flowinfo(),
                addr.scope_id(),
            ),
        }
    }
}
impl From<Addr> for SocketAddr {
    fn from(addr: Addr) -> Self {
        match addr {
            Addr::V4(ip, port) => Self::from((Ipv4Addr::from(ip), port)),
            Addr::V6(ip, port, flow, scope) => {
                SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into()
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct PeerCode<'a> {
    role: Role,
    cluster: ClusterId,
    addr: Addr,
    protocol: u8,
    build: Cow<'a, str>,
}

impl<'a> From<&'a Peer> for PeerCode<'a> {
    fn from(peer: &'a Peer) -> Self {
        let Peer {
            role,
            cluster,
            addr,
            protocol,
            build,
        } = peer;
        Self {
            role: *role,
            cluster: *cluster,
            addr: (*addr).into(),
            protocol: *protocol,
            build: build.into(),
        }
    }
}
impl From<PeerCode<'_>> for Peer {
    fn from(code: PeerCode<'_>) -> Self {
        Self {
            role: code.role,
            cluster: code.cluster,
            addr: code.addr.into(),
            protocol: code.protocol,
            build: code.build.into_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
enum CloseCode<'a> {
    Lost(Cow<'a, str>),
    Unreachable(Cow<'a, str>),
    Malformed(Cow<'a, str>),
    Refused(Cow<'a, str>),
}

impl<'a> From<&'a CloseReason> for CloseCode<'a> {
    fn from(why: &'a CloseReason) -> Self {
        match why {
            CloseReason::Lost(text) => Self::Lost(text.into()),
            CloseReason::Unreachable(text) => Self::Unreachable(text.into()),
            CloseReason::Malformed(text) => Self::Malformed(text.into()),
            CloseReason::Refused(text) => Self::Refused(text.into()),
        }
    }
}
impl From<CloseCode<'_>> for CloseReason {
    fn from(code: CloseCode<'_>) -> Self {
        match code {
            CloseCode::Lost(text) => Self::Lost(text.into_owned()),
            CloseCode::Unreachable(text) => Self::Unreachable(text.into_owned()),
            CloseCode::Malformed(text) => Self::Malformed(text.into_owned()),
            CloseCode::Refused(text) => Self::Refused(text.into_owned()),
        }
    }
}

#[derive(Serialize, Deserialize)]
enum DiskCode<'a> {
    Done,
    /// The body is what was read.
    Data,
    Entries(Vec<DirEntryCode<'a>>),
    Space {
        bytes_free: u64,
        bytes_total: u64,
    },
    NotFound,
    Exists,
    NoSpace,
    Io(Cow<'a, str>),
}

#[derive(Serialize, Deserialize)]
struct DirEntryCode<'a> {
    name: Cow<'a, str>,
    len: u64,
    is_file: bool,
}

impl<'a> From<&'a DiskResult> for DiskCode<'a> {
    fn from(result: &'a DiskResult) -> Self {
        match result {
            Ok(DiskDone::Done) => Self::Done,
            Ok(DiskDone::Data(_)) => Self::Data,
            Ok(DiskDone::Entries(entries)) => {
                let entries = entries.iter().map(|entry| DirEntryCode {
                    name: (&entry.name).into(),
                    len: entry.len,
                    is_file: entry.is_file,
                });
                Self::Entries(entries.collect())
            }
            Ok(DiskDone::Space {
                bytes_free,
                bytes_total,
            }) => Self::Space {
                bytes_free: *bytes_free,
                bytes_total: *bytes_total,
            },
            Err(DiskError::NotFound) => Self::NotFound,
            Err(DiskError::Exists) => Self::Exists,
            Err(DiskError::NoSpace) => Self::NoSpace,
            Err(DiskError::Io(text)) => Self::Io(text.into()),
        }
    }
}

impl DiskCode<'_> {
    /// The result; `None` if a body came with one that has none.
    fn result(self, body: Bytes) -> Option<DiskResult> {
        if !matches!(self, Self::Data) && !body.is_empty() {
            return None;
        }
        Some(match self {
            Self::Done => Ok(DiskDone::Done),
            Self::Data => Ok(DiskDone::Data(body)),
            Self::Entries(entries) => {
                let entries = entries.into_iter().map(|entry| DirEntry {
                    name: entry.name.into_owned(),
                    len: entry.len,
                    is_file: entry.is_file,
                });
                Ok(DiskDone::Entries(entries.collect()))
            }
            Self::Space {
                bytes_free,
                bytes_total,
            } => Ok(DiskDone::Space {
                bytes_free,
                bytes_total,
            }),
            Self::NotFound => Err(DiskError::NotFound),
            Self::Exists => Err(DiskError::Exists),
            Self::NoSpace => Err(DiskError::NoSpace),
            Self::Io(text) => Err(DiskError::Io(text.into_owned())),
        })
    }
}

/// The calls of a server, meta server or chunkserver.
#[derive(Serialize, Deserialize)]
enum ServerCall {
    Status,
    Stop,
}

impl TracedCall for meta::Call {
    fn encode(&self, head: Vec<u8>) -> (Vec<u8>, Bytes) {
        let call = match self {
            Self::Status => ServerCall::Status,
            Self::Stop => ServerCall::Stop,
        };
        (put(head, &call), Bytes::new())
    }
    fn decode(head: &[u8], body: Bytes) -> Option<Self> {
        let call = match take_all(head)? {
            ServerCall::Status => Self::Status,
            ServerCall::Stop => Self::Stop,
        };
        body.is_empty().then_some(call)
    }
}

impl TracedCall for chunk::Call {
    fn encode(&self, head: Vec<u8>) -> (Vec<u8>, Bytes) {
        let call = match self {
            Self::Status => ServerCall::Status,
            Self::Stop => ServerCall::Stop,
        };
        (put(head, &call), Bytes::new())
    }
    fn decode(head: &[u8], body: Bytes) -> Option<Self> {
        let call = match take_all(head)? {
            ServerCall::Status => Self::Status,
            ServerCall::Stop => Self::Stop,
        };
        body.is_empty().then_some(call)
    }
}

#[derive(Serialize, Deserialize)]
enum ClientCall<'a> {
    Stat(Cow<'a, At>),
    List(Cow<'a, At>, Cow<'a, [u8]>),
    Mkdir(Cow<'a, At>, Parents, Ownership),
    Rename(Cow<'a, At>, Cow<'a, At>, RenameMode),
    Remove(Cow<'a, At>),
    Rmdir(Cow<'a, At>),
    Create(Cow<'a, At>, Ownership, u8, Keep),
    Open(Cow<'a, At>),
    /// The body is what is written.
    Write(u64, u64),
    Sync(u64),
    Close(u64),
    Abandon(u64),
    Read(u64, u64, u64),
    Status,
    Disconnect,
    Checkpoint,
    AcceptRollback,
    RemoveTree(Cow<'a, At>),
    Usage(Cow<'a, At>, u32),
    UsageNext(u64),
    Append(Cow<'a, At>),
    Locate(u64, u64),
    Drain(NodeId, Drain),
    SetReplication(Cow<'a, At>, u8),
    Truncate(Cow<'a, At>, u64),
    SetLen(u64, u64),
    SetAttributes(Cow<'a, At>, Attributes),
}

impl TracedCall for client::Call {
    fn encode(&self, head: Vec<u8>) -> (Vec<u8>, Bytes) {
        let mut body = Bytes::new();
        let at = Cow::Borrowed;
        let call = match self {
            Self::Stat(place) => ClientCall::Stat(at(place)),
            Self::List { at: place, after } => ClientCall::List(at(place), after.into()),
            Self::Mkdir {
                at: place,
                parents,
                owner,
            } => ClientCall::Mkdir(at(place), *parents, *owner),
            Self::Rename { from, to, mode } => ClientCall::Rename(at(from), at(to), *mode),
            Self::Remove(place) => ClientCall::Remove(at(place)),
            Self::Rmdir(place) => ClientCall::Rmdir(at(place)),
            Self::Create {
                at: place,
                owner,
                replication,
                keep,
            } => ClientCall::Create(at(place), *owner, *replication, *keep),
            Self::Open(place) => ClientCall::Open(at(place)),
            Self::Append(place) => ClientCall::Append(at(place)),
            Self::Truncate { at: place, len } => ClientCall::Truncate(at(place), *len),
            Self::SetLen { handle, len } => ClientCall::SetLen(handle.0, *len),
            Self::Write {
                handle,
                offset,
                data,
            } => {
                body = data.clone();
                ClientCall::Write(handle.0, *offset)
            }
            Self::Sync(handle) => ClientCall::Sync(handle.0),
            Self::Close(handle) => ClientCall::Close(handle.0),
            Self::Abandon(handle) => ClientCall::Abandon(handle.0),
            Self::Read {
                handle,
                offset,
                len,
            } => ClientCall::Read(handle.0, *offset, *len as u64),
            Self::Status => ClientCall::Status,
            Self::Disconnect => ClientCall::Disconnect,
            Self::Checkpoint => ClientCall::Checkpoint,
            Self::AcceptRollback => ClientCall::AcceptRollback,
            Self::SetReplication {
                at: place,
                replication,
            } => ClientCall::SetReplication(at(place), *replication),
            Self::SetAttributes { at: place, to } => ClientCall::SetAttributes(at(place), *to),
            Self::Drain { node, drain } => ClientCall::Drain(*node, *drain),
            Self::RemoveTree(place) => ClientCall::RemoveTree(at(place)),
            Self::Usage { at: place, depth } => ClientCall::Usage(at(place), *depth),
            Self::UsageNext { scan } => ClientCall::UsageNext(*scan),
            Self::Locate { file, first } => ClientCall::Locate(file.0, *first),
        };
        (put(head, &call), body)
    }
    fn decode(head: &[u8], body: Bytes) -> Option<Self> {
        let call = take_all(head)?;
        if !matches!(call, ClientCall::Write(..)) && !body.is_empty() {
            return None;
        }
        Some(match call {
            ClientCall::Stat(at) => Self::Stat(at.into_owned()),
            ClientCall::List(at, after) => Self::List {
                at: at.into_owned(),
                after: after.into_owned(),
            },
            ClientCall::Mkdir(at, parents, owner) => Self::Mkdir {
                at: at.into_owned(),
                parents,
                owner,
            },
            ClientCall::Rename(from, to, mode) => Self::Rename {
                from: from.into_owned(),
                to: to.into_owned(),
                mode,
            },
            ClientCall::Remove(at) => Self::Remove(at.into_owned()),
            ClientCall::Rmdir(at) => Self::Rmdir(at.into_owned()),
            ClientCall::Create(at, owner, replication, keep) => Self::Create {
                at: at.into_owned(),
                owner,
                replication,
                keep,
            },
            ClientCall::Open(at) => Self::Open(at.into_owned()),
            ClientCall::Append(at) => Self::Append(at.into_owned()),
            ClientCall::Truncate(at, len) => Self::Truncate {
                at: at.into_owned(),
                len,
            },
            ClientCall::SetLen(handle, len) => Self::SetLen {
                handle: Handle(handle),
                len,
            },
            ClientCall::Write(handle, offset) => Self::Write {
                handle: Handle(handle),
                offset,
                data: body,
            },
            ClientCall::Sync(handle) => Self::Sync(Handle(handle)),
            ClientCall::Close(handle) => Self::Close(Handle(handle)),
            ClientCall::Abandon(handle) => Self::Abandon(Handle(handle)),
            ClientCall::Read(handle, offset, len) => Self::Read {
                handle: Handle(handle),
                offset,
                len: usize::try_from(len).ok()?,
            },
            ClientCall::Status => Self::Status,
            ClientCall::Disconnect => Self::Disconnect,
            ClientCall::Checkpoint => Self::Checkpoint,
            ClientCall::AcceptRollback => Self::AcceptRollback,
            ClientCall::SetReplication(place, replication) => Self::SetReplication {
                at: place.into_owned(),
                replication,
            },
            ClientCall::SetAttributes(place, to) => Self::SetAttributes {
                at: place.into_owned(),
                to,
            },
            ClientCall::Drain(node, drain) => Self::Drain { node, drain },
            ClientCall::RemoveTree(at) => Self::RemoveTree(at.into_owned()),
            ClientCall::Usage(at, depth) => Self::Usage {
                at: at.into_owned(),
                depth,
            },
            ClientCall::UsageNext(scan) => Self::UsageNext { scan },
            ClientCall::Locate(file, first) => Self::Locate {
                file: FileId(file),
                first,
            },
        })
    }
}

impl TracedEvent for meta::Event {
    fn add_to(&self, hash: &mut EventHash) {
        match self {
            Self::Ready {
                cluster,
                epoch,
                seq,
            } => {
                hash.word(1);
                hash.encoded(&(cluster, epoch, seq));
            }
            Self::Status(status) => {
                hash.word(2);
                hash.encoded(status);
            }
            Self::Stopped => hash.word(3),
            Self::Compacted(made) => {
                hash.word(4);
                match made {
                    Ok(done) => hash.encoded(&(done.end, done.made.map(|made| made.hash))),
                    Err(why) => hash.bytes(why.as_bytes()),
                }
            }
        }
    }
}

impl TracedEvent for chunk::Event {
    fn add_to(&self, hash: &mut EventHash) {
        match self {
            Self::Ready { node, cluster } => {
                hash.word(1);
                hash.encoded(&(node, cluster));
            }
            Self::Waiting { why } => {
                hash.word(2);
                hash.bytes(why.as_bytes());
            }
            Self::Status(status) => {
                hash.word(3);
                hash.encoded(status);
            }
            Self::Stopped => hash.word(4),
        }
    }
}

impl TracedEvent for client::Event {
    fn add_to(&self, hash: &mut EventHash) {
        match self {
            Self::Done => hash.word(1),
            Self::Attrs(attrs) => {
                hash.word(2);
                hash.encoded(attrs);
            }
            Self::Entries { entries, end } => {
                hash.word(3);
                hash.encoded(&(entries, end));
            }
            Self::Created {
                handle,
                file,
                replication,
            } => {
                hash.word(4);
                hash.encoded(&(handle.0, file, replication));
            }
            Self::Opened { handle, attrs } => {
                hash.word(5);
                hash.encoded(&(handle.0, attrs));
            }
            Self::Data { parts, from } => {
                hash.word(6);
                hash.word(parts.len() as u64);
                for part in parts {
                    hash.bytes(part);
                }
                hash.word(from.len() as u64);
                for (chunk, addr) in from {
                    hash.encoded(&(chunk, Addr::from(*addr)));
                }
            }
            Self::Status(status) => {
                hash.word(7);
                hash.encoded(status);
            }
            Self::Checkpoint(made) => {
                hash.word(9);
                hash.encoded(made);
            }
            Self::Usage(page) => {
                hash.word(10);
                hash.encoded(page);
            }
            Self::Located(located) => {
                hash.word(12);
                hash.encoded(located);
            }
            Self::Appending {
                handle,
                file,
                replication,
                end,
            } => {
                hash.word(11);
                hash.encoded(&(handle.0, file, replication, end));
            }
            Self::Failed(failure) => {
                hash.word(8);
                hash.encoded(&failure.status);
                hash.bytes(failure.what.as_bytes());
            }
        }
    }
}

/// A machine's configuration: together with the inputs it determines all outputs.
#[derive(Clone, Debug)]
pub enum Configuration {
    /// Of a meta server.
    Meta(meta::Config),
    /// Of a chunkserver.
    Chunk(chunk::Config),
    /// Of a client.
    Client(client::Config),
}

impl Configuration {
    /// The machine's number in the format.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Meta(_) => 1,
            Self::Chunk(_) => 2,
            Self::Client(_) => 3,
        }
    }
    /// The machine, for people.
    #[must_use]
    pub const fn machine(&self) -> &'static str {
        match self {
            Self::Meta(_) => "meta server",
            Self::Chunk(_) => "chunkserver",
            Self::Client(_) => "client",
        }
    }
    /// What randomness of the machine comes from.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        match self {
            Self::Meta(config) => config.seed,
            Self::Chunk(config) => config.seed,
            Self::Client(config) => config.seed,
        }
    }

    /// Appends it.
    pub(super) fn encode(&self, to: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Meta(config) => {
                let meta::Config {
                    seed,
                    geometry,
                    limits,
                    timing,
                    replication,
                    min_replicas,
                    cluster,
                    checkpoint_every,
                    re_replicate_after,
                    copy_rate,
                    mirror,
                } = config.clone();
                let limits = limits.into();
                put(
                    to,
                    &MetaCode {
                        seed,
                        geometry,
                        limits,
                        timing,
                        replication,
                        min_replicas,
                        cluster,
                        checkpoint_every,
                        re_replicate_after,
                        copy_rate,
                        mirror,
                    },
                )
            }
            Self::Chunk(config) => {
                let chunk::Config {
                    seed,
                    geometry,
                    limits,
                    meta,
                    listen,
                    rack,
                    scrub_rate,
                } = config.clone();
                put(
                    to,
                    &ChunkCode {
                        seed,
                        geometry,
                        limits: limits.into(),
                        meta: meta.into(),
                        listen: listen.into(),
                        rack,
                        scrub_rate,
                    },
                )
            }
            Self::Client(config) => {
                let client::Config {
                    seed,
                    limits,
                    meta,
                    timeout,
                } = config.clone();
                put(
                    to,
                    &ClientCode {
                        seed,
                        limits: limits.into(),
                        meta: meta.into(),
                        timeout,
                    },
                )
            }
        }
    }
    /// The configuration of a machine of this number that all of `bytes` say; `None` if there is none.
    pub(super) fn decode(machine: u32, bytes: &[u8]) -> Option<Self> {
        let (configuration, geometry) = match machine {
            1 => {
                let code: MetaCode = take_all(bytes)?;
                if code.replication == 0 || code.min_replicas == 0 {
                    return None;
                }
                let config = meta::Config {
                    seed: code.seed,
                    geometry: code.geometry,
                    limits: code.limits.limits()?,
                    timing: code.timing,
                    replication: code.replication,
                    min_replicas: code.min_replicas,
                    cluster: code.cluster,
                    checkpoint_every: code.checkpoint_every,
                    re_replicate_after: code.re_replicate_after,
                    copy_rate: code.copy_rate,
                    mirror: code.mirror,
                };
                (Self::Meta(config), code.geometry)
            }
            2 => {
                let code: ChunkCode = take_all(bytes)?;
                let config = chunk::Config {
                    seed: code.seed,
                    geometry: code.geometry,
                    limits: code.limits.limits()?,
                    meta: code.meta.into(),
                    listen: code.listen.into(),
                    rack: code.rack,
                    scrub_rate: code.scrub_rate,
                };
                (Self::Chunk(config), code.geometry)
            }
            3 => {
                let code: ClientCode = take_all(bytes)?;
                let config = client::Config {
                    seed: code.seed,
                    limits: code.limits.limits()?,
                    meta: code.meta.into(),
                    timeout: code.timeout,
                };
                (Self::Client(config), Geometry::REAL)
            }
            _ => return None,
        };
        geometry.fits().then_some(configuration)
    }
}

impl From<meta::Config> for Configuration {
    fn from(config: meta::Config) -> Self {
        Self::Meta(config)
    }
}
impl From<chunk::Config> for Configuration {
    fn from(config: chunk::Config) -> Self {
        Self::Chunk(config)
    }
}
impl From<client::Config> for Configuration {
    fn from(config: client::Config) -> Self {
        Self::Client(config)
    }
}

impl TracedMachine for Meta {
    type Config = meta::Config;
    fn configured(config: meta::Config) -> Self {
        Self::new(config)
    }
}
impl TracedMachine for Chunk {
    type Config = chunk::Config;
    fn configured(config: chunk::Config) -> Self {
        Self::new(config)
    }
}
impl TracedMachine for Client {
    type Config = client::Config;
    fn configured(config: client::Config) -> Self {
        Self::new(config)
    }
}

#[derive(Serialize, Deserialize)]
struct MetaCode {
    seed: u64,
    geometry: Geometry,
    limits: LimitsCode,
    timing: Timing,
    replication: u8,
    min_replicas: u8,
    cluster: Option<ClusterId>,
    checkpoint_every: Option<Duration>,
    re_replicate_after: Duration,
    copy_rate: u64,
    mirror: bool,
}

#[derive(Serialize, Deserialize)]
struct ChunkCode {
    seed: u64,
    geometry: Geometry,
    limits: LimitsCode,
    meta: Addr,
    listen: Addr,
    rack: String,
    scrub_rate: u64,
}

#[derive(Serialize, Deserialize)]
struct ClientCode {
    seed: u64,
    limits: LimitsCode,
    meta: Addr,
    timeout: Duration,
}

#[derive(Serialize, Deserialize)]
struct LimitsCode {
    piece_buffer_bytes: u64,
    link_unsent_bytes: u64,
    link_requests: u64,
    chunk_tables: u64,
    log_batch_bytes: u64,
    log_first_segment_bytes: u64,
    log_segment_bytes: u64,
    write_window_bytes: u64,
    sync_every_bytes: u64,
    read_ahead_bytes: u64,
}

impl From<Limits> for LimitsCode {
    fn from(limits: Limits) -> Self {
        let Limits {
            piece_buffer_bytes,
            link_unsent_bytes,
            link_requests,
            chunk_tables,
            log_batch_bytes,
            log_first_segment_bytes,
            log_segment_bytes,
            write_window_bytes,
            sync_every_bytes,
            read_ahead_bytes,
        } = limits;
        Self {
            piece_buffer_bytes: piece_buffer_bytes as u64,
            link_unsent_bytes: link_unsent_bytes as u64,
            link_requests: link_requests as u64,
            chunk_tables: chunk_tables as u64,
            log_batch_bytes: log_batch_bytes as u64,
            log_first_segment_bytes,
            log_segment_bytes,
            write_window_bytes: write_window_bytes as u64,
            sync_every_bytes: sync_every_bytes as u64,
            read_ahead_bytes: read_ahead_bytes as u64,
        }
    }
}

impl LimitsCode {
    /// `None` if this machine's words are too short for one.
    fn limits(&self) -> Option<Limits> {
        let size = |bytes: u64| usize::try_from(bytes).ok();
        Some(Limits {
            piece_buffer_bytes: size(self.piece_buffer_bytes)?,
            link_unsent_bytes: size(self.link_unsent_bytes)?,
            link_requests: size(self.link_requests)?,
            chunk_tables: size(self.chunk_tables)?,
            log_batch_bytes: size(self.log_batch_bytes)?,
            log_first_segment_bytes: self.log_first_segment_bytes,
            log_segment_bytes: self.log_segment_bytes,
            write_window_bytes: size(self.write_window_bytes)?,
            sync_every_bytes: size(self.sync_every_bytes)?,
            read_ahead_bytes: size(self.read_ahead_bytes)?,
        })
    }
}
