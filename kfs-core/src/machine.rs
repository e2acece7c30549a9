//! The contract between a machine and whoever drives it.
//!
//! 1. `handle`, then drain `poll` to `None`, then `handle` again.
//! 2. Total: unknown links, late completions and well-formed nonsense give an output or nothing, never a panic.
//! 3. Nothing leaves before it is durable: see [`crate::outbox`].
//! 4. One completion per ticket. Operations that change one file take effect in the order they were issued;
//!    reads are in no order with them, so a machine waits for a write's completion before it reads it back.
//! 5. A failed sync is final.
//! 6. Bulk data is limited by [`Input::Sent`] before a disk read is issued, so memory is bounded by
//!    [`crate::limits`].
//! 7. (configuration, seed, inputs) determines all outputs.
use crate::ids::{CallId, LinkId, Ticket};
use crate::time::{Instant, Now};
use crate::wire::{Msg, Peer};
use bytes::Bytes;
use core::fmt;
use core::net::SocketAddr;
use std::sync::Arc;

/// A state machine: it never reads a clock, file, socket or entropy; it never blocks; it never fails.
pub trait Machine {
    /// What the process around it asks for.
    type Call: fmt::Debug;
    /// What it tells the process around it.
    type Event: fmt::Debug;
    /// Takes one input. The outputs of the previous one must have been drained.
    fn handle(&mut self, now: Now, input: Input<Self::Call>);
    /// The next output, in order; `None` when drained.
    fn poll(&mut self) -> Option<Output<Self::Event>>;
    /// When [`Input::Wake`] is due at the latest, and what for. Read after the drain.
    fn deadline(&self) -> Option<(Instant, &'static str)>;
}

/// What happens to a machine.
#[derive(Clone, Debug)]
pub enum Input<C> {
    /// A deadline passed; also the first input of a machine's life.
    Wake,
    /// A link is up and both ends agreed on the protocol.
    Opened {
        /// Dialed by the machine, or accepted for it.
        link: LinkId,
        /// Who is at the other end.
        peer: Peer,
    },
    /// A message arrived whole.
    Received {
        /// Where from.
        link: LinkId,
        /// What.
        msg: Msg,
    },
    /// So many bytes of earlier `Send`s have been handed to the network.
    Sent {
        /// On this link.
        link: LinkId,
        /// As [`Msg::cost`] counts them.
        bytes: usize,
    },
    /// The link is gone, or could not be made; nothing more comes from it, and nothing sent on it is certain.
    Closed {
        /// Which.
        link: LinkId,
        /// Why, for people.
        why: CloseReason,
    },
    /// A disk operation ended.
    Disk {
        /// Which.
        ticket: Ticket,
        /// How.
        result: DiskResult,
    },
    /// The process around the machine asks for something.
    Call {
        /// Answered by an event of this id.
        id: CallId,
        /// What.
        call: C,
    },
}

/// What a machine wants done.
#[derive(Clone, Debug)]
pub enum Output<E> {
    /// Send, in order with the link's other sends. To a link that is gone: nothing happens.
    Send {
        /// Where to.
        link: LinkId,
        /// What.
        msg: Msg,
    },
    /// Make a link; answered by `Opened` or `Closed`.
    Dial {
        /// An id this machine has not used before ([`LinkId::dialed`]).
        link: LinkId,
        /// Where to.
        addr: SocketAddr,
    },
    /// Send what is queued, then close. No `Closed` follows, and no input from the link after it.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Stop reading from the link; what is already on its way may still arrive.
    Pause {
        /// Which.
        link: LinkId,
    },
    /// Read from the link again.
    Resume {
        /// Which.
        link: LinkId,
    },
    /// Do this on the data directory.
    Disk {
        /// Comes back with the result.
        ticket: Ticket,
        /// What.
        op: DiskOp,
    },
    /// Tell the process around the machine.
    Event {
        /// The call it answers, or [`CallId::NONE`].
        id: CallId,
        /// What.
        event: E,
    },
    /// The machine cannot go on; the process ends with this. Nothing is output after it.
    Halt {
        /// Why.
        fault: Fault,
    },
}

/// A path below the data directory, with `/` between components, such as `chunks/2.5.1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Arc<str>);

impl FileName {
    /// The file of this path.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The directory it stands in; "" is the data directory itself.
    #[must_use]
    pub fn dir(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(dir, _)| dir)
    }
    /// Its last component.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, base)| base)
    }
}
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A primitive of the data directory. Each does one thing; their order is the machine's business.
#[derive(Clone, Debug)]
pub enum DiskOp {
    /// The entries of a directory, in any order. Of a missing directory: [`DiskError::NotFound`].
    List {
        /// "" is the data directory itself.
        dir: FileName,
    },
    /// Makes a directory; one that is there is fine. Its name is durable after `SyncDir` of its parent.
    MakeDir {
        /// Which.
        dir: FileName,
    },
    /// Makes an empty file, which must not exist, and fills it with `zeroed` bytes of real zeros. Not durable.
    Create {
        /// Which.
        file: FileName,
        /// Bytes of zeros written, not merely reserved.
        zeroed: u64,
    },
    /// Writes all of `data` one after the other from `offset`, extending the file where needed.
    Write {
        /// Must exist.
        file: FileName,
        /// In bytes.
        offset: u64,
        /// One buffer or several, uncopied.
        data: Vec<Bytes>,
        /// Whether `fdatasync` follows before the completion.
        sync: SyncMode,
    },
    /// Reads up to `len` bytes; fewer only at the end of the file.
    Read {
        /// Must exist.
        file: FileName,
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: usize,
    },
    /// Makes the file's data and length durable (`fdatasync`), not its name.
    Sync {
        /// Which.
        file: FileName,
    },
    /// Makes the names in a directory durable (`fsync` of the directory).
    SyncDir {
        /// "" is the data directory itself.
        dir: FileName,
    },
    /// Renames, replacing what is there. Durable after `SyncDir` of both directories.
    Rename {
        /// Must exist.
        from: FileName,
        /// May exist.
        to: FileName,
    },
    /// Unlinks. Durable after `SyncDir`.
    Remove {
        /// Must exist.
        file: FileName,
    },
    /// Sets the length.
    Truncate {
        /// Must exist.
        file: FileName,
        /// In bytes.
        len: u64,
    },
    /// How much room the file system has.
    Space,
    /// Makes durable all that was written to any file in this directory, by whomever, and the names in it (`syncfs`).
    SyncAll {
        /// "" is the data directory itself.
        dir: FileName,
    },
}

/// Whether a write is made durable before its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMode {
    /// Left to a later `Sync`.
    Later,
    /// `fdatasync` before the completion.
    Now,
}

/// How a disk operation ended.
pub type DiskResult = Result<DiskDone, DiskError>;

/// What a disk operation that succeeded gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskDone {
    /// Nothing to say.
    Done,
    /// What `Read` read.
    Data(Bytes),
    /// What `List` found.
    Entries(Vec<DirEntry>),
    /// What `Space` found.
    Space {
        /// Bytes that may still be written.
        bytes_free: u64,
        /// Bytes in all.
        bytes_total: u64,
    },
}

/// One entry of a directory of the disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// Names that are not UTF-8 are given lossily: they are no names of ours.
    pub name: String,
    /// In bytes; 0 for what is not a file.
    pub len: u64,
    /// Whether it is a plain file.
    pub is_file: bool,
}

/// How a disk operation failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    /// The file or directory is not there.
    #[error("not found")]
    NotFound,
    /// The file is there and was not to be.
    #[error("already exists")]
    Exists,
    /// The disk is full, or a quota is.
    #[error("no space left")]
    NoSpace,
    /// Anything else; the text is the operating system's.
    #[error("{0}")]
    Io(String),
}

/// Why a link closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it, or the network broke it.
    #[error("{0}")]
    Lost(String),
    /// It could not be made.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// What arrived was not the protocol.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The two ends do not fit (protocol, role, cluster); trying again does not help.
    #[error("refused: {0}")]
    Refused(String),
}

/// Why a machine stopped, for the operator: what, where, expected, found, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// Which kind, for the exit code.
    pub kind: FaultKind,
    /// One line; the code stands in front when it is printed.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
}

/// Kinds of [`Fault`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A write or a sync of the log or the identity failed.
    Disk,
    /// The data directory is damaged: refused rather than guessed.
    Corrupt,
    /// The data directory belongs elsewhere, or has no identity, or the peer refuses us for good.
    Refused,
}
