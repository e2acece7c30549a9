//! Chunkserver and meta server: hello, inventory, heartbeats, orders.
//!
//! The chunkserver dials. Everything after the welcome names the term; what names another term is dropped.
use super::client_chunk::Durable;
use super::client_meta::Place;
use super::status::Refusal;
use crate::ids::{
    Boot, ChainId, ChunkId, ClusterId, Digest, Epoch, FileId, Incarnation, Instance, LogSeq,
    NodeId, SessionId, Term, Version, WriteSeq,
};
use crate::limits::{Geometry, Timing};
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// "I am here": the first message of a chunkserver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// From its identity file; zero if it never joined a cluster.
    pub cluster: ClusterId,
    /// From its identity file.
    pub node: NodeId,
    /// From its identity file, raised at this start.
    pub boot: Boot,
    /// Of this process.
    pub instance: Instance,
    /// Where clients reach it. An unspecified IP means: the one the meta server sees.
    pub addr: SocketAddr,
    /// The rack it was told it is in; empty: none.
    pub rack: String,
    /// The highest (epoch, incarnation) it has accepted, durably.
    pub seen: (Epoch, Incarnation),
    /// How far the log of that one was durable, as far as it is remembered: the log goes on from there, or has lost
    /// its end.
    pub seen_seq: LogSeq,
    /// Bytes that may still be written.
    pub bytes_free: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// The sizes it stores chunks in.
    pub geometry: Geometry,
}

/// The hello was accepted: a term begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The cluster, for a server that has none yet.
    pub cluster: ClusterId,
    /// Names this hello in everything that follows.
    pub term: Term,
    /// Of the meta server's start.
    pub incarnation: Incarnation,
    /// The periods everybody keeps.
    pub timing: Timing,
}

/// The hello was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelloRefused {
    /// Why. With `Busy` the server tries again, else it stops.
    pub refusal: Refusal,
}

/// The chunkserver refuses a meta server whose epoch is below one it has seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochBehind {
    /// The highest it has accepted, durably.
    pub seen: (Epoch, Incarnation),
}

/// "Say hello again": the term that was named has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SayHello {
    /// Why, for people.
    pub why: String,
}

/// A batch of what a chunkserver has, sorted by (file, chunk, version).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inventory {
    /// Of the welcome.
    pub term: Term,
    /// At most [`crate::limits::INVENTORY_BATCH`].
    pub items: Vec<InventoryItem>,
    /// Whether this is the last batch (which may be empty).
    pub last: bool,
}

/// One replica, as its server sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InventoryItem {
    /// From the name, equal to the header's.
    pub file: FileId,
    /// From the name, equal to the header's.
    pub chunk: ChunkId,
    /// From the name, equal to the header's.
    pub version: Version,
    /// From the header: of the meta server that issued the version.
    pub incarnation: Incarnation,
    /// From the header: writes up to it are durable.
    pub wseq: WriteSeq,
    /// From the header: the committed length.
    pub len: u64,
    /// Of what is durable.
    pub digest: Digest,
    /// What the server thinks of it.
    pub state: ReplicaState,
}

impl InventoryItem {
    /// How far it is durable.
    #[must_use]
    pub const fn durable(&self) -> Durable {
        Durable {
            len: self.len,
            wseq: self.wseq,
        }
    }
    /// What it holds, if it is at rest.
    #[must_use]
    pub const fn content(&self) -> Content {
        Content {
            durable: self.durable(),
            digest: self.digest,
        }
    }
}

/// What a replica at rest holds. Two that are the same in this are the same to whoever reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// How far it is durable.
    pub durable: Durable,
    /// Of that.
    pub digest: Digest,
}

/// See [`InventoryItem`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReplicaState {
    /// Written to in this process, its chain unbroken.
    Writing,
    /// At rest.
    Good,
    /// Its header is unreadable, or does not match its name: served to nobody. Header fields are zero.
    BadHeader,
}

/// What becomes of the replicas of one batch, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdicts {
    /// Of the welcome.
    pub term: Term,
    /// One per item of the batch.
    pub verdicts: Vec<(ChunkId, Version, Verdict)>,
    /// Whether the whole inventory is accepted: the server is up.
    pub accepted: bool,
}

/// What becomes of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// It is served, up to the log's length.
    Keep {
        /// What the file's size in the log gives the chunk, and up to which write it is synced.
        log: Durable,
    },
    /// No file owns it: moved to `trash/`.
    Stale,
    /// It is shorter or older than the log says: served to nobody, left where it is.
    Damaged {
        /// What the log says.
        log: Durable,
    },
    /// Not from this log, or not as this log has it: left where it is, served to nobody.
    Unknown,
}

/// "I am alive."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Of the welcome.
    pub term: Term,
    /// Counts from 1 in the term.
    pub number: u64,
    /// The highest number answered.
    pub answered: u64,
    /// Bytes that may still be written.
    pub bytes_free: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Chunks being written to here.
    pub chunks_writing: u32,
}

/// "I heard."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// Of the welcome.
    pub term: Term,
    /// Of the heartbeat.
    pub number: u64,
    /// The end of the log, durable.
    pub durable: LogSeq,
}

/// An order: make this chunk. Given only after the log holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateChunk {
    /// Of the welcome.
    pub term: Term,
    /// The file that owns it.
    pub file: FileId,
    /// New.
    pub chunk: ChunkId,
    /// New.
    pub version: Version,
    /// Of the meta server that issued the version.
    pub incarnation: Incarnation,
    /// The chain, head first; this server is in it.
    pub chain: Vec<Place>,
    /// The session that may write.
    pub session: SessionId,
}

/// Answers [`CreateChunk`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkCreated {
    /// Of the order.
    pub term: Term,
    /// Of the order.
    pub chunk: ChunkId,
    /// Of the order.
    pub version: Version,
    /// Whether it was made.
    pub outcome: Result<(), Refusal>,
}

/// An order: move these to `trash/`. What is not there is fine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteChunks {
    /// Of the welcome.
    pub term: Term,
    /// Which, at which version; another version is left alone.
    pub chunks: Vec<(ChunkId, Version)>,
}

/// Answers [`DeleteChunks`], when it is durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunksDeleted {
    /// Of the order.
    pub term: Term,
    /// Of the order.
    pub chunks: Vec<(ChunkId, Version)>,
}

/// An order: take no more pieces for this replica, and say how far it is durable. It is at rest, or copied then, or
/// written further in another chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SealChunk {
    /// Of the welcome.
    pub term: Term,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// What becomes of writes that no sync has covered.
    pub unsynced: Unsynced,
}

/// See [`SealChunk`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unsynced {
    /// They are made durable.
    Kept,
    /// They are forgotten: who wrote them has them still, and sends them again.
    Dropped,
}

/// Answers [`SealChunk`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkSealed {
    /// Of the order.
    pub term: Term,
    /// Of the order.
    pub chunk: ChunkId,
    /// Of the order.
    pub version: Version,
    /// How far it is durable, and stays.
    pub outcome: Result<Content, Refusal>,
    /// Whether its chain broke, or stood still, at the link to the next server.
    pub next_lost: bool,
}

/// An order: take pieces again for a replica that was sealed, in another chain. All members begin at the same write;
/// one that has some of what comes next takes those again without writing them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResumeChunk {
    /// Of the welcome.
    pub term: Term,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Names the chain.
    pub chain: ChainId,
    /// Its members, head first; this server is among them.
    pub members: Vec<Place>,
    /// The session that may write.
    pub session: SessionId,
    /// The last write that all members have.
    pub from: WriteSeq,
    /// The last write that one of them has: no sync is taken before all have it.
    pub to: WriteSeq,
    /// If another session writes it from now on: the write that it is at then, in a header that is durable before this
    /// is answered. All members are at the same one before.
    pub raised: Option<WriteSeq>,
    /// If its file was cut in it: that header ends here at most, in bytes, and what the disk has behind it counts no
    /// more. Only with `raised`.
    pub cut: Option<u64>,
}

/// Answers [`ResumeChunk`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkResumed {
    /// Of the order.
    pub term: Term,
    /// Of the order.
    pub chunk: ChunkId,
    /// Of the order.
    pub version: Version,
    /// Of the order.
    pub chain: ChainId,
    /// Whether it takes pieces.
    pub outcome: Result<(), Refusal>,
}

/// An order: make a replica of a chunk that is at rest, from one that another server has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyChunk {
    /// Of the welcome.
    pub term: Term,
    /// The file that the replica's name says.
    pub file: FileId,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Of the meta server that issued the version.
    pub incarnation: Incarnation,
    /// How far who has it is durable: so much is copied, all of it.
    pub has: Durable,
    /// Who has it.
    pub source: Place,
}

/// Answers [`CopyChunk`], when the replica is durable, or cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkCopied {
    /// Of the order.
    pub term: Term,
    /// Of the order.
    pub chunk: ChunkId,
    /// Of the order.
    pub version: Version,
    /// How far the replica is durable.
    pub outcome: Result<Content, Refusal>,
}

/// A replica is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportDamage {
    /// Of the welcome.
    pub term: Term,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// The block whose sum does not match; `None`: the whole replica.
    pub block: Option<u32>,
    /// For people.
    pub why: String,
}
