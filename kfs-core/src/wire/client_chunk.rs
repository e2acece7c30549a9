//! Client and chunkserver, and chunkserver to chunkserver along a chain: pieces, syncs, reads.
//!
//! A chunkserver dials the next one of a chain with one link per chain position, so that a chain A→B and
//! a chain B→A cannot block each other: position k waits only for position k+1.
use super::status::Refusal;
use crate::block::Sums;
use crate::ids::{ChainId, ChunkId, PieceNumber, SessionId, Version, WriteSeq};
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};

/// How far a chunk is durable, or has to be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Durable {
    /// The committed length, in bytes.
    pub len: u64,
    /// Every write up to it is in data and sums. The head numbers the writes, so it is the same on all replicas.
    pub wseq: WriteSeq,
}

impl Durable {
    /// Whether nothing of `other` is missing. The length alone does not tell: a write into a hole leaves it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        let long = self.len >= other.len;
        let new = self.wseq >= other.wseq || planted::is(Bug::OlderHeaderServed);
        (long && new) || planted::is(Bug::ShortReplicaServed)
    }
    /// What covers both, of one chunk.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            len: self.len.max(other.len),
            wseq: self.wseq.max(other.wseq),
        }
    }
}

/// Client → head: write this. The body is the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WritePiece {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Named by the chunk's grant.
    pub session: SessionId,
    /// One more than the session's last piece of this chunk; one at or below it is not applied again.
    pub piece: PieceNumber,
    /// In the chunk, in bytes. A piece begins anywhere and is split only at block edges.
    pub offset: u64,
    /// Made by the client from its own memory.
    pub sums: Sums,
}

/// Head → client: every replica has the piece, or the chain is broken. Carries the piece's request id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PieceDone {
    /// Of the piece.
    pub chunk: ChunkId,
    /// Of the piece.
    pub piece: PieceNumber,
    /// What became of it.
    pub outcome: Result<(), Refusal>,
}

/// Along the chain: write this as write `wseq`. The body is the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainPiece {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Of which chain.
    pub chain: ChainId,
    /// The receiver's place in the chain, from 1.
    pub position: u8,
    /// Given by the head; the receiver must have applied the one before in this process.
    pub wseq: WriteSeq,
    /// Whose.
    pub session: SessionId,
    /// As the client numbered it.
    pub piece: PieceNumber,
    /// In the chunk, in bytes.
    pub offset: u64,
    /// As the client made them.
    pub sums: Sums,
}

/// Up the chain: this replica and all below have written everything up to `wseq`, or the chain is broken here or below.
/// A refusal goes down as well, so that nobody holds on to a chunk that gets no more pieces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainDone {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Of which chain.
    pub chain: ChainId,
    /// Up to which write; with a refusal: the first that failed.
    pub wseq: WriteSeq,
    /// What became of it.
    pub outcome: Result<(), Refusal>,
}

/// Client → head: make everything up to this piece durable on every replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncChunk {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Named by the chunk's grant.
    pub session: SessionId,
    /// The last piece sent; the sync covers it and all before it.
    pub up_to: PieceNumber,
}

/// Head → client. Carries the sync's request id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncDone {
    /// Of the sync.
    pub chunk: ChunkId,
    /// What is durable on every replica.
    pub outcome: Result<Durable, Refusal>,
}

/// Down the chain: make everything up to `wseq` durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainSync {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Of which chain.
    pub chain: ChainId,
    /// The receiver's place in the chain, from 1.
    pub position: u8,
    /// It has been sent down before.
    pub wseq: WriteSeq,
}

/// Up the chain: this replica and all below are durable up to `wseq`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainSynced {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// Of which chain.
    pub chain: ChainId,
    /// Of the sync.
    pub wseq: WriteSeq,
    /// The committed length, in bytes.
    pub outcome: Result<u64, Refusal>,
}

/// Client → any replica: read this.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadRange {
    /// Which chunk.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// In the chunk, in bytes.
    pub offset: u64,
    /// In bytes, at least 1, at most one piece.
    pub len: u32,
    /// What the log has of the chunk, as the meta server told the client. Nothing past its length is served;
    /// a replica that does not cover it serves nothing.
    pub log: Durable,
}

/// Answers [`ReadRange`]; the body is the bytes. Carries its request id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeRead {
    /// The sums of the body, made by the replica after it verified the blocks it read.
    pub outcome: Result<Sums, Refusal>,
}
