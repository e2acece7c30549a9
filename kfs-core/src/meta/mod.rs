//! The meta server: the one namespace, its log, where chunks are.
//!
//! A request is *decided* (state, time and randomness are read; a `Record` or a refusal comes out) and the
//! record is *applied*, live and on replay alike, by one function.
use crate::ids::{CallId, ClusterId, Epoch, LogSeq};
use crate::limits::{Geometry, Limits, Timing};
use crate::machine::{Input, Machine, Output};
use crate::outbox::Outbox;
use crate::time::{Instant, Now};
use crate::wire::client_meta::ClusterStatus;

/// How a meta server is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// For ids and placement.
    pub seed: u64,
    /// The sizes files are cut into.
    pub geometry: Geometry,
    /// Bounds of queues.
    pub limits: Limits,
    /// Told to chunkservers and clients.
    pub timing: Timing,
    /// Replicas a file gets unless it says otherwise.
    pub replication: u8,
    /// Fewest live servers a new chunk is begun with; at most what the file asks for.
    pub min_replicas: u8,
    /// The cluster this data directory must belong to: an empty one is then refused, not formatted.
    pub cluster: Option<ClusterId>,
}

/// What the process around it asks for.
#[derive(Debug)]
pub enum Call {
    /// The state of the cluster.
    Status,
    /// Finish: sync what is in the log, then [`Event::Stopped`].
    Stop,
}

/// What it tells the process around it.
#[derive(Debug)]
pub enum Event {
    /// Its state is loaded and its epoch is in the log: it serves.
    Ready {
        /// The cluster it serves.
        cluster: ClusterId,
        /// Of this start.
        epoch: Epoch,
        /// Where the log ends.
        seq: LogSeq,
    },
    /// Answers [`Call::Status`]; `None` while it is still starting.
    Status(Option<Box<ClusterStatus>>),
    /// Answers [`Call::Stop`].
    Stopped,
}

/// The meta server.
#[derive(Debug)]
pub struct Meta {
    outbox: Outbox<Event>,
}

impl Meta {
    /// A meta server that has not started; its first input is [`Input::Wake`].
    #[must_use]
    pub fn new(_config: Config) -> Self {
        Self {
            outbox: Outbox::default(),
        }
    }
}

impl Machine for Meta {
    type Call = Call;
    type Event = Event;
    fn handle(&mut self, _now: Now, _input: Input<Call>) {
        assert!(
            self.outbox.is_drained(),
            "the outbox is drained between inputs"
        );
        let _ = CallId::NONE;
    }
    fn poll(&mut self) -> Option<Output<Event>> {
        self.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        None
    }
}
