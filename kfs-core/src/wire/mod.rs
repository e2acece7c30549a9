//! What the three machines say to one another. The frame is in [`frame`], the messages are in one file per
//! pair of roles, the status codes in [`status`]. Layouts: `docs/formats/wire.md`.
//!
//! A message type that was released is never edited: a new one is added, with a new number.
pub mod chunk_meta;
pub mod client_chunk;
pub mod client_meta;
pub mod frame;
mod plain;
pub mod status;

use crate::ids::ClusterId;
use bytes::Bytes;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
pub use status::{Refusal, Status};

/// The newest protocol this build speaks.
pub const PROTOCOL_MAX: u8 = 4;
/// The oldest protocol this build speaks.
pub const PROTOCOL_MIN: u8 = 4;

/// A message: a typed head and a raw body that is never copied or encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msg {
    /// Ties a reply to its request, per link; 0 where nothing answers.
    pub request: u64,
    /// What it says.
    pub head: Head,
    /// Bulk data; empty for most.
    pub body: Bytes,
}

impl Msg {
    /// A message without a body.
    #[must_use]
    pub fn new(request: u64, head: impl Into<Head>) -> Self {
        Self {
            request,
            head: head.into(),
            body: Bytes::new(),
        }
    }
    /// A message with a body of at most [`crate::limits::FRAME_BODY_MAX`] bytes.
    #[must_use]
    pub fn with_body(request: u64, head: impl Into<Head>, body: Bytes) -> Self {
        Self {
            request,
            head: head.into(),
            body,
        }
    }
    /// What it weighs against the bounds of queues, in bytes: its body and an allowance for the rest.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.body.len() + 256
    }
}

/// Who is at the other end of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// The cluster it belongs to; zero if it does not know yet.
    pub cluster: ClusterId,
    /// The address it speaks from (or that was dialed).
    pub addr: SocketAddr,
    /// The protocol both speak on this link.
    pub protocol: u8,
    /// Its program and version, for people.
    pub build: String,
}

/// What a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// The meta server.
    Meta,
    /// A chunkserver.
    Chunk,
    /// A client.
    Client,
}

/// The first message on a link, in both directions. Its layout never changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Negotiate {
    /// The oldest protocol the sender speaks.
    pub protocol_min: u8,
    /// The newest.
    pub protocol_max: u8,
    /// Bits of optional features; an unknown bit is ignored.
    pub features: u64,
    /// What the sender is.
    pub role: Role,
    /// The sender's cluster; zero if it does not know yet.
    pub cluster: ClusterId,
    /// Program and version, for people.
    pub build: String,
}

impl Negotiate {
    /// What this build says.
    #[must_use]
    pub fn ours(role: Role, cluster: ClusterId) -> Self {
        Self {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: 0,
            role,
            cluster,
            build: concat!("kfs ", env!("CARGO_PKG_VERSION")).into(),
        }
    }
    /// The protocol that both speak: the newest one in common.
    ///
    /// # Errors
    /// If there is none; the text names both ranges. Two known and different clusters do not talk either.
    pub fn agree(&self, theirs: &Self) -> Result<u8, String> {
        if self.cluster != theirs.cluster && self.cluster.0 != 0 && theirs.cluster.0 != 0 {
            return Err(format!(
                "this is cluster {}, the peer belongs to {}",
                self.cluster, theirs.cluster
            ));
        }
        let newest = self.protocol_max.min(theirs.protocol_max);
        if newest < self.protocol_min || newest < theirs.protocol_min {
            return Err(format!(
                "no protocol in common: ours {}..={}, theirs {}..={} ({})",
                self.protocol_min,
                self.protocol_max,
                theirs.protocol_min,
                theirs.protocol_max,
                theirs.build
            ));
        }
        Ok(newest)
    }
}

macro_rules! messages {
    ($($code:literal $name:ident($ty:path)),+ $(,)?) => {
        /// Every message there is; the number on the wire is fixed for ever.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Head {$(
            #[doc = concat!("Type ", stringify!($code), ".")]
            $name($ty),
        )+}

        impl Head {
            /// The numbers and names of all message types.
            pub const TYPES: &'static [(u16, &'static str)] = &[$(($code, stringify!($name))),+];

            /// The message type's number on the wire.
            #[must_use]
            pub const fn code(&self) -> u16 {
                match self {$(Self::$name(_) => $code,)+}
            }
            /// Its name, for logs.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {$(Self::$name(_) => stringify!($name),)+}
            }
            /// Appends the postcard encoding.
            pub(crate) fn encode(&self, to: Vec<u8>) -> Vec<u8> {
                match self {$(Self::$name(m) => postcard::to_extend(m, to),)+}
                    .expect("messages hold nothing that postcard cannot encode")
            }
            /// Decodes all of `bytes` as a message of type `code`.
            pub(crate) fn decode(code: u16, bytes: &[u8]) -> Result<Self, frame::FrameError> {
                match code {
                    $($code => frame::decode_all(bytes).map(Self::$name),)+
                    _ => Err(frame::FrameError::UnknownType(code)),
                }
            }
        }
        $(impl From<$ty> for Head {
            fn from(m: $ty) -> Self {
                Self::$name(m)
            }
        })+
    };
}

messages! {
    0x0001 Negotiate(Negotiate),
    0x0101 OpenSession(client_meta::OpenSession),
    0x0102 SessionOpened(client_meta::SessionOpened),
    0x0103 Mutate(client_meta::Mutate),
    0x0104 Mutated(client_meta::Mutated),
    0x0105 Query(client_meta::Query),
    0x0106 Answered(client_meta::Answered),
    0x0107 Renew(client_meta::Renew),
    0x0108 Renewed(client_meta::Renewed),
    0x0201 Hello(chunk_meta::Hello),
    0x0202 Welcome(chunk_meta::Welcome),
    0x0203 HelloRefused(chunk_meta::HelloRefused),
    0x0204 EpochBehind(chunk_meta::EpochBehind),
    0x0205 Inventory(chunk_meta::Inventory),
    0x0206 Verdicts(chunk_meta::Verdicts),
    0x0207 Heartbeat(chunk_meta::Heartbeat),
    0x0208 HeartbeatAnswer(chunk_meta::HeartbeatAnswer),
    0x0209 CreateChunk(chunk_meta::CreateChunk),
    0x020A ChunkCreated(chunk_meta::ChunkCreated),
    0x020B DeleteChunks(chunk_meta::DeleteChunks),
    0x020C ChunksDeleted(chunk_meta::ChunksDeleted),
    0x020D ReportDamage(chunk_meta::ReportDamage),
    0x020E SayHello(chunk_meta::SayHello),
    0x020F CopyChunk(chunk_meta::CopyChunk),
    0x0210 ChunkCopied(chunk_meta::ChunkCopied),
    0x0211 SealChunk(chunk_meta::SealChunk),
    0x0212 ChunkSealed(chunk_meta::ChunkSealed),
    0x0213 ResumeChunk(chunk_meta::ResumeChunk),
    0x0214 ChunkResumed(chunk_meta::ChunkResumed),
    0x0301 WritePiece(client_chunk::WritePiece),
    0x0302 PieceDone(client_chunk::PieceDone),
    0x0303 ChainPiece(client_chunk::ChainPiece),
    0x0304 ChainDone(client_chunk::ChainDone),
    0x0305 SyncChunk(client_chunk::SyncChunk),
    0x0306 SyncDone(client_chunk::SyncDone),
    0x0307 ChainSync(client_chunk::ChainSync),
    0x0308 ChainSynced(client_chunk::ChainSynced),
    0x0309 ReadRange(client_chunk::ReadRange),
    0x030A RangeRead(client_chunk::RangeRead),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_messages_share_a_number() {
        let codes: BTreeSet<u16> = Head::TYPES.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes.len(), Head::TYPES.len());
    }

    #[test]
    fn the_newest_protocol_in_common_is_agreed_and_strangers_are_refused() {
        let ours = Negotiate::ours(Role::Client, ClusterId(0));
        let theirs = Negotiate {
            cluster: ClusterId(7),
            ..Negotiate::ours(Role::Meta, ClusterId(0))
        };
        assert_eq!(ours.agree(&theirs), Ok(PROTOCOL_MAX));
        let other = Negotiate {
            cluster: ClusterId(8),
            ..theirs.clone()
        };
        assert!(other.agree(&theirs).is_err());
        let future = Negotiate {
            protocol_min: 200,
            protocol_max: 201,
            ..theirs
        };
        assert!(ours.agree(&future).is_err_and(|why| why.contains("200")));
    }
}
