//! The chunkserver: chunks as files, written along chains, read with their sums.
use crate::ids::{ClusterId, NodeId};
use crate::limits::{Geometry, Limits};
use crate::machine::{Input, Machine, Output};
use crate::outbox::Outbox;
use crate::time::{Instant, Now};
use core::net::SocketAddr;

/// How a chunkserver is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// For its node id and for jitter.
    pub seed: u64,
    /// The sizes it stores chunks in; the meta server's must be the same.
    pub geometry: Geometry,
    /// Bounds of queues.
    pub limits: Limits,
    /// Where the meta server listens.
    pub meta: SocketAddr,
    /// Where clients reach this server; an unspecified IP means: the one the meta server sees.
    pub listen: SocketAddr,
    /// The rack it is in; empty: none.
    pub rack: String,
}

/// What the process around it asks for.
#[derive(Debug)]
pub enum Call {
    /// Its state.
    Status,
    /// Finish: sync what is being written, then [`Event::Stopped`].
    Stop,
}

/// What it tells the process around it.
#[derive(Debug)]
pub enum Event {
    /// Its inventory was accepted: it serves. Said once per process.
    Ready {
        /// Its id.
        node: NodeId,
        /// The cluster it serves.
        cluster: ClusterId,
    },
    /// It waits for the meta server, for the operator to know. Said once per reason.
    Waiting {
        /// Why.
        why: String,
    },
    /// Answers [`Call::Status`].
    Status(Box<ChunkStatus>),
    /// Answers [`Call::Stop`].
    Stopped,
}

/// The state of a chunkserver, for its pages. Counters count from the start of the process.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub struct ChunkStatus {
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Whether its inventory is accepted and the meta server answers.
    pub serving: bool,
    /// Replicas it serves.
    pub chunks: u64,
    /// Replicas being written.
    pub chunks_writing: u64,
    /// Replicas that serve nothing: damaged, unknown, or with an unreadable header.
    pub chunks_damaged: u64,
    /// Replicas in `trash/`.
    pub chunks_trash: u64,
    /// Bytes that may still be written.
    pub bytes_free: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Pieces written.
    pub pieces_written: u64,
    /// Bytes of those pieces.
    pub bytes_written: u64,
    /// Syncs made.
    pub syncs: u64,
    /// Reads answered with bytes.
    pub reads: u64,
    /// Bytes of those reads.
    pub bytes_read: u64,
    /// Blocks that did not match their sums when read.
    pub blocks_bad: u64,
    /// Pieces that did not match their sums when received.
    pub pieces_bad: u64,
    /// Bytes of pieces in memory now.
    pub piece_buffer_bytes: u64,
}

/// The chunkserver.
#[derive(Debug)]
pub struct Chunk {
    outbox: Outbox<Event>,
}

impl Chunk {
    /// A chunkserver that has not started; its first input is [`Input::Wake`].
    #[must_use]
    pub fn new(_config: Config) -> Self {
        Self {
            outbox: Outbox::default(),
        }
    }
}

impl Machine for Chunk {
    type Call = Call;
    type Event = Event;
    fn handle(&mut self, _now: Now, _input: Input<Call>) {
        assert!(
            self.outbox.is_drained(),
            "the outbox is drained between inputs"
        );
    }
    fn poll(&mut self) -> Option<Output<Event>> {
        self.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        None
    }
}
