//! What a program asks of the client, and what it is told: the whole of what goes in and out besides messages.
use crate::ids::{FileId, NodeId};
use crate::limits::PATH_BYTES_MAX;
use crate::wire::client_meta::{
    At, Attributes, Attrs, CheckpointMade, ClusterStatus, Drain, Entry, Keep, Located, Ownership,
    Parents, RenameMode, UsagePage,
};
use crate::wire::{Refusal, Status};
use bytes::Bytes;
use core::net::SocketAddr;

/// An open file of this client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle(pub u64);

/// What the library asks for. Each is answered by exactly one event.
#[derive(Clone, Debug)]
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
    /// Removes a directory with all that is in it; answered by [`Event::Done`].
    RemoveTree(At),
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
    /// Opens a file that is there, to write it further from where it ends; answered by [`Event::Appending`]. While
    /// another client writes it, that is waited for.
    Append(At),
    /// As [`Call::Append`], and gives it another length first: see [`Call::SetLen`]. Answered by [`Event::Appending`].
    Truncate {
        /// Which.
        at: At,
        /// In bytes.
        len: u64,
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
    /// Makes all earlier writes durable, as [`Call::Sync`], and gives the file this length: what is behind it is gone, and
    /// what is behind where it ended before is zeros until it is written.
    /// Answered by [`Event::Done`].
    SetLen {
        /// Of `Created` or `Appending`.
        handle: Handle,
        /// In bytes.
        len: u64,
    },
    /// Syncs and closes a written file, or closes a read one; answered by [`Event::Done`].
    /// The handle is gone afterwards, whatever the answer.
    Close(Handle),
    /// Forgets a written file without syncing: its size stays as last synced; answered by [`Event::Done`].
    Abandon(Handle),
    /// Reads up to `len` bytes (at most [`READ_BYTES_MAX`]), fewer only at the end of the file; answered by
    /// [`Event::Data`].
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
    /// A checkpoint is made; answered by [`Event::Checkpoint`].
    Checkpoint,
    /// What a tree takes: the first page of a scan; answered by [`Event::Usage`].
    Usage {
        /// Which.
        at: At,
        /// Directories so far below have rows of their own.
        depth: u32,
    },
    /// The next page of a scan; answered by [`Event::Usage`].
    UsageNext {
        /// As the page before said.
        scan: u64,
    },
    /// Where the chunks of a file are of which there is something to read, a page of them; answered by
    /// [`Event::Located`].
    Locate {
        /// Which.
        file: FileId,
        /// From this chunk on.
        first: u64,
    },
    /// What a part of the log that is missing had is given up; answered by [`Event::Done`].
    AcceptRollback,
    /// A chunkserver is to give away what it has, or is not any more; answered by [`Event::Done`].
    Drain {
        /// Which.
        node: NodeId,
        /// Which of the two.
        drain: Drain,
    },
    /// A file asks for another number of replicas; answered by [`Event::Done`].
    SetReplication {
        /// Which.
        at: At,
        /// Replicas of each chunk.
        replication: u8,
    },
    /// Attributes of a file or directory are changed; answered by [`Event::Done`].
    SetAttributes {
        /// Which.
        at: At,
        /// To what.
        to: Attributes,
    },
    /// Ends the session and closes all links; answered by [`Event::Done`], after which nothing more is sent.
    Disconnect,
}

impl Call {
    /// Refuses what no frame could carry; everything else about names is the meta server's to say.
    pub(super) fn check_names(&self) -> Result<(), Refusal> {
        let names: [&[u8]; 2] = match self {
            Self::Stat(at)
            | Self::Remove(at)
            | Self::RemoveTree(at)
            | Self::Rmdir(at)
            | Self::Open(at)
            | Self::Append(at)
            | Self::Truncate { at, .. }
            | Self::Usage { at, .. }
            | Self::SetReplication { at, .. }
            | Self::SetAttributes { at, .. }
            | Self::Mkdir { at, .. }
            | Self::Create { at, .. } => [&at.path, &[]],
            Self::List { at, after } => [&at.path, after],
            Self::Rename { from, to, .. } => [&from.path, &to.path],
            Self::Write { .. }
            | Self::Sync(_)
            | Self::SetLen { .. }
            | Self::Close(_)
            | Self::Abandon(_)
            | Self::Read { .. }
            | Self::Status
            | Self::UsageNext { .. }
            | Self::Locate { .. }
            | Self::AcceptRollback
            | Self::Drain { .. }
            | Self::Checkpoint
            | Self::Disconnect => [&[], &[]],
        };
        match names.iter().find(|name| name.len() > PATH_BYTES_MAX) {
            None => Ok(()),
            Some(name) => {
                let len = name.len();
                let what = format!("a path has at most {PATH_BYTES_MAX} bytes, this one {len}");
                Err(Refusal::new(Status::BadName, what))
            }
        }
    }
}

/// What the client tells the library.
#[derive(Clone, Debug)]
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
    /// To `Append`.
    Appending {
        /// To write with.
        handle: Handle,
        /// Its id.
        file: FileId,
        /// Replicas of each chunk.
        replication: u8,
        /// Where it ends, in bytes: nothing before it can be written.
        end: u64,
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
    /// To `Checkpoint`.
    Checkpoint(CheckpointMade),
    /// To `Locate`.
    Located(Box<Located>),
    /// To `Usage` and `UsageNext`.
    Usage(UsagePage),
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
