//! The client: paths, sessions and retries towards the meta server, pieces and reads towards chunkservers.
use crate::ids::FileId;
use crate::limits::Limits;
use crate::machine::{Input, Machine, Output};
use crate::outbox::Outbox;
use crate::time::{Instant, Now};
use crate::wire::client_meta::{
    At, Attrs, ClusterStatus, Entry, Keep, Ownership, Parents, RenameMode,
};
use crate::wire::{Refusal, Status};
use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;

/// How a client is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// For back-off, the choice of replicas, and the session's nonce.
    pub seed: u64,
    /// Bounds of windows.
    pub limits: Limits,
    /// Where the meta server listens.
    pub meta: SocketAddr,
    /// How long a call may take in all, with its retries.
    pub timeout: Duration,
}

/// An open file of this client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle(pub u64);

/// What the library asks for. Each is answered by exactly one event.
#[derive(Debug)]
pub enum Call {
    /// Answered by [`Event::Attrs`].
    Stat(At),
    /// A page of a directory; answered by [`Event::Entries`].
    List {
        /// Which.
        at: At,
        /// Names greater than this; empty: from the first.
        after: Vec<u8>,
    },
    /// Answered by [`Event::Done`].
    Mkdir {
        /// Its place.
        at: At,
        /// As `mkdir -p`, or not.
        parents: Parents,
        /// Of what is made.
        owner: Ownership,
    },
    /// Answered by [`Event::Done`].
    Rename {
        /// What.
        from: At,
        /// Where to.
        to: At,
        /// If the name is taken.
        mode: RenameMode,
    },
    /// Answered by [`Event::Done`].
    Remove(At),
    /// Answered by [`Event::Done`].
    Rmdir(At),
    /// Makes a file to write; answered by [`Event::Created`].
    Create {
        /// Its place.
        at: At,
        /// Of the file.
        owner: Ownership,
        /// 0: the cluster's default.
        replication: u8,
        /// If the session ends before a rename.
        keep: Keep,
    },
    /// Opens a file to read; answered by [`Event::Opened`].
    Open(At),
    /// Writes; answered by [`Event::Done`] when the window has room for more, not when it is on disk.
    /// Writes of one file take effect in the order of the calls.
    Write {
        /// Of `Created`.
        handle: Handle,
        /// In the file, in bytes.
        offset: u64,
        /// Uncopied.
        data: Bytes,
    },
    /// Makes all earlier writes durable on every replica, and the size; answered by [`Event::Done`].
    Sync(Handle),
    /// Syncs and closes a written file, or closes a read one; answered by [`Event::Done`].
    /// The handle is gone afterwards, whatever the answer.
    Close(Handle),
    /// Forgets a written file without syncing: its size stays as last synced; answered by [`Event::Done`].
    Abandon(Handle),
    /// Reads up to `len` bytes, fewer only at the end of the file; answered by [`Event::Data`].
    Read {
        /// Of `Opened`.
        handle: Handle,
        /// In the file, in bytes.
        offset: u64,
        /// In bytes.
        len: usize,
    },
    /// Answered by [`Event::Status`].
    Status,
    /// Ends the session and closes all links; answered by [`Event::Done`], after which nothing more is sent.
    Disconnect,
}

/// What the client tells the library.
#[derive(Debug)]
pub enum Event {
    /// It is done.
    Done,
    /// To `Stat`.
    Attrs(Attrs),
    /// To `List`.
    Entries {
        /// In byte order of names.
        entries: Vec<Entry>,
        /// Whether none is left.
        end: bool,
    },
    /// To `Create`.
    Created {
        /// To write with.
        handle: Handle,
        /// Its id.
        file: FileId,
        /// Replicas of each chunk.
        replication: u8,
    },
    /// To `Open`.
    Opened {
        /// To read with.
        handle: Handle,
        /// As they are now.
        attrs: Attrs,
    },
    /// To `Read`: the bytes in order, verified; less than asked for only at the end of the file.
    Data {
        /// One buffer or several, uncopied.
        parts: Vec<Bytes>,
        /// The replicas they were read from, as (chunk index, address), for people.
        from: Vec<(u64, SocketAddr)>,
    },
    /// To `Status`.
    Status(Box<ClusterStatus>),
    /// The call failed.
    Failed(Failure),
}

/// How a call failed: what is known for certain and what was tried.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("[{}] {what}", status.code())]
pub struct Failure {
    /// Why.
    pub status: Status,
    /// What, where, why, what was tried: one line.
    pub what: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            what: refusal.detail,
        }
    }
}

/// The client.
#[derive(Debug)]
pub struct Client {
    outbox: Outbox<Event>,
}

impl Client {
    /// A client that has not connected; it dials when it is asked for something.
    #[must_use]
    pub fn new(_config: Config) -> Self {
        Self {
            outbox: Outbox::default(),
        }
    }
}

impl Machine for Client {
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
