//! Client and meta server: the namespace, sessions, where chunks are.
//!
//! Every answer carries the [`LogSeq`] of the state it was made from: its place in the one total order.
use super::client_chunk::Durable;
use super::status::Refusal;
use crate::ids::{
    ChunkId, ClusterId, Epoch, FileId, LogSeq, NodeId, PieceNumber, RequestNumber, SessionId,
    Version,
};
use crate::limits::Geometry;
use crate::time::UnixNanos;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A place in the tree: a directory, and a path from it (`a/b`, no leading slash; empty: the directory itself).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct At {
    /// Where the path begins.
    pub dir: FileId,
    /// Components separated by `/`, any bytes but `/` and NUL; at most [`crate::limits::PATH_BYTES_MAX`].
    #[serde(with = "super::plain")]
    pub path: Vec<u8>,
}

impl At {
    /// A path from the root, without its leading slash.
    #[must_use]
    pub fn root(path: impl Into<Vec<u8>>) -> Self {
        Self {
            dir: FileId::ROOT,
            path: path.into(),
        }
    }
}

impl fmt::Debug for At {
    /// With the path as text: nobody reads lists of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        write!(f, "At({}, {path:?})", self.dir)
    }
}

/// Begins a session, or takes one up again on this link (which retires its older links).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenSession {
    /// The session to take up; `None` begins a new one.
    pub resume: Option<SessionId>,
    /// A random number of the client, so that a repeated opening finds the session it made.
    pub nonce: u64,
}

/// Answers [`OpenSession`]; for an unknown session to resume the refusal is `SessionExpired`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The state it was made from.
    pub seq: LogSeq,
    /// The session, or why not.
    pub outcome: Result<SessionGrant, Refusal>,
}

/// A session that may be used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionGrant {
    /// Its id.
    pub session: SessionId,
    /// It expires when nothing is heard of it for this long.
    pub idle: Duration,
    /// The sizes files are cut into.
    pub geometry: Geometry,
}

/// Keeps a session alive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// Which.
    pub session: SessionId,
}

/// Answers [`Renew`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renewed {
    /// Whether it was alive.
    pub outcome: Result<(), Refusal>,
}

/// A change of the namespace, done exactly once however often it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mutate {
    /// Whose.
    pub session: SessionId,
    /// Its number within the session.
    pub number: RequestNumber,
    /// The lowest number that the client has no answer to; results below it may be forgotten.
    pub lowest_unanswered: RequestNumber,
    /// What to do.
    pub op: MutateOp,
}

/// Owner, group and mode of something new.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ownership {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, as `st_mode & 0o7777`.
    pub mode: u32,
}

/// The changes there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MutateOp {
    /// Makes a directory.
    Mkdir {
        /// Its place.
        at: At,
        /// Whether missing parents are made too, and a directory that is there is no error.
        parents: Parents,
        /// Of all directories made.
        owner: Ownership,
    },
    /// Makes an empty file; the session may write it until it closes it or expires.
    Create {
        /// Its place; the name must not be taken.
        at: At,
        /// Of the file.
        owner: Ownership,
        /// Replicas of each chunk; 0: the cluster's default.
        replication: u8,
        /// What becomes of it if the session ends before it is renamed.
        keep: Keep,
    },
    /// Renames, atomically.
    Rename {
        /// What.
        from: At,
        /// Its new place.
        to: At,
        /// What happens to a file or an empty directory that has the new name.
        mode: RenameMode,
    },
    /// Removes a file's name; its chunks are reclaimed when nobody has it open any more.
    Remove {
        /// Which.
        at: At,
    },
    /// Removes an empty directory.
    Rmdir {
        /// Which.
        at: At,
    },
    /// Makes the chunk of a file, or gives the standing one. Answered when all members have made it.
    Allocate {
        /// Written by this session.
        file: FileId,
        /// Which of its chunks, from 0.
        index: u64,
    },
    /// Reports how far a file is written and synced. Only raises the size.
    SetSize {
        /// Written by this session.
        file: FileId,
        /// In bytes.
        size: u64,
        /// Every chunk it rests on that no earlier report named, synced to the length given.
        basis: Vec<SyncedChunk>,
        /// Whether the session goes on writing.
        writer: WriterStays,
    },
    /// Ends the session: what it was writing stays as last reported, what it held as temporary is removed.
    EndSession,
    /// An operator accepts that the log has lost its end, and gives up what was acknowledged in it: changes go on.
    AcceptRollback,
    /// Removes a directory with all that is in it: it is gone at once, and what it held is reclaimed bit by bit.
    RemoveTree {
        /// Which.
        at: At,
    },
    /// The chain of a chunk takes no more pieces: it is to be written in another one. Answered when that takes them.
    Rechain {
        /// Written by this session.
        file: FileId,
        /// Which of its chunks, from 0.
        index: u64,
        /// As granted.
        chunk: ChunkId,
        /// As granted.
        version: Version,
        /// What syncs have covered, as the client was told; every member of the other chain has it.
        synced: Durable,
        /// Whether the client could not reach the head.
        head: HeadSeen,
        /// Chains of this chunk that broke before this one without getting anything done.
        broken: u32,
    },
    /// Opens a file that is there to write it further: the session writes it from then on, until it closes it or
    /// expires. Refused while another one writes it.
    Append {
        /// Its place.
        at: At,
    },
    /// Takes over a chunk that earlier sessions have written, or in which the file was cut, to write it further from
    /// where it ends. Answered when its members take pieces of this session; with `Ok` if there is no such chunk.
    TakeOver {
        /// Written by this session.
        file: FileId,
        /// Which of its chunks, from 0.
        index: u64,
    },
    /// An operator has a chunkserver give away what it has, so that it may be stopped for good, or not any more.
    Drain {
        /// Which.
        node: NodeId,
        /// Which of the two.
        drain: Drain,
    },
    /// Changes how many replicas a file asks for. Copies are made, or go, later.
    SetReplication {
        /// Which file.
        at: At,
        /// Replicas of each chunk, from 1 to [`crate::limits::REPLICATION_MAX`].
        replication: u8,
    },
    /// Sets the size of a file, whatever it was. What was behind it is gone, and what is behind it later reads as zeros
    /// until it is written. The chunk in which it is cut is to be taken over before it is written further.
    Truncate {
        /// Written by this session.
        file: FileId,
        /// Its size from then on, in bytes.
        len: u64,
    },
    /// Changes attributes of a file or directory, also of one that has no name any more.
    SetAttributes {
        /// Which.
        at: At,
        /// To what.
        to: Attributes,
    },
}

/// Attributes that are to be changed; those that are `None` stay.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits, as `st_mode & 0o7777`.
    pub mode: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// When the content was changed last.
    pub mtime: Option<TimeOf>,
}

/// A time that is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TimeOf {
    /// The one at which the meta server does it.
    Change,
    /// This one.
    Given(UnixNanos),
}

/// See [`MutateOp::Drain`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Drain {
    /// It gets nothing new, and each chunk that it has is copied to another server before it is taken off it.
    Begin,
    /// It gets chunks and copies as others do, and keeps what it still has.
    End,
}

/// See [`MutateOp::Rechain`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HeadSeen {
    /// The client spoke with it.
    Reached,
    /// It could not be reached, or was silent.
    Lost,
}

/// See [`MutateOp::Mkdir`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Parents {
    /// The parent must be there, the name must not.
    MustExist,
    /// As `mkdir -p`.
    Make,
}

/// See [`MutateOp::Create`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Keep {
    /// It stays.
    Always,
    /// It is removed when the session ends, unless it was renamed before.
    UntilSessionEnds,
}

/// See [`MutateOp::Rename`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// The rename is refused with `Exists`.
    NoReplace,
}

/// See [`MutateOp::SetSize`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WriterStays {
    /// More will be written.
    Open,
    /// The file is closed.
    Closed,
}

/// A chunk and how far a sync has covered it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncedChunk {
    /// Its index in the file.
    pub index: u64,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// As its replicas said.
    pub synced: Durable,
}

/// Answers [`Mutate`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mutated {
    /// The record that did it, or the state in which it was refused.
    pub seq: LogSeq,
    /// What was done.
    pub outcome: Result<Done, Refusal>,
}

/// What a change did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Done {
    /// Nothing more to say.
    Ok,
    /// The file or directory made (by `Mkdir` with parents: the last one, made or found).
    Made {
        /// Its id.
        file: FileId,
        /// Replicas of each of its chunks; 0 for a directory.
        replication: u8,
    },
    /// A chunk that may be written.
    Granted(Grant),
    /// A file that may be written further.
    Appending {
        /// Its id.
        file: FileId,
        /// Replicas of each of its chunks.
        replication: u8,
        /// Its size.
        size: u64,
    },
    /// A chunk that may be written further.
    TakenOver {
        /// Its members, and the number that its next piece comes after.
        grant: Grant,
        /// Where it ends, in bytes; past what the size says, if who wrote it before reported less than it synced.
        len: u64,
    },
}

/// A chunk that a session may write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Its index in the file.
    pub index: u64,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// The chain, head first.
    pub chain: Vec<Place>,
    /// The session's last piece that all members have; what comes next is to be sent (again).
    pub from: PieceNumber,
    /// The last one that one of them has.
    pub to: PieceNumber,
}

/// A chunkserver and where it listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Which.
    pub node: NodeId,
    /// Where.
    pub addr: SocketAddr,
}

/// A question about the namespace; changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Query {
    /// What is asked.
    pub op: QueryOp,
}

/// The questions there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum QueryOp {
    /// The attributes of something.
    Stat {
        /// Which.
        at: At,
    },
    /// A page of a directory's entries, in byte order of their names.
    List {
        /// Which.
        at: At,
        /// Entries with a name greater than this; empty: from the first.
        #[serde(with = "super::plain")]
        after: Vec<u8>,
        /// At most so many, and at most [`crate::limits::LIST_PAGE_MAX`].
        limit: u32,
    },
    /// Where the chunks of a file are.
    Locate {
        /// Which.
        file: FileId,
        /// From this chunk on.
        first: u64,
        /// At most so many, and at most [`crate::limits::LOCATE_PAGE_MAX`].
        count: u32,
    },
    /// The state of the cluster.
    Status,
    /// A checkpoint is made, unless the newest one has everything; answered when it is there.
    Checkpoint,
    /// As `Stat`; and if it is a file, this link holds it open from now on. What is held stays readable when it is
    /// removed, until each hold on it is released, or the link was gone or silent for as long as a session lasts.
    Open {
        /// Which.
        at: At,
    },
    /// On a new link: what is still held since an older one, each file as often as it is open. Without files: this
    /// link goes on holding what it holds.
    Hold {
        /// At most [`crate::limits::HOLD_PAGE_MAX`].
        files: Vec<FileId>,
    },
    /// A file was closed: one hold on it less.
    Release {
        /// Which.
        file: FileId,
    },
    /// What a file takes, or a directory with all below it, as it is now; the first page of the answer. The scan is of
    /// the link it is asked for on.
    Usage {
        /// Which.
        at: At,
        /// Directories so far below have rows of their own; 0: only what is asked for.
        depth: u32,
    },
    /// The next page of a scan, once the one before was answered.
    UsageNext {
        /// As its first page said.
        scan: u64,
    },
}

/// Answers [`Query`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The state it was made from.
    pub seq: LogSeq,
    /// The answer.
    pub outcome: Result<Answer, Refusal>,
}

/// The answers there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To `Stat`.
    Attrs(Attrs),
    /// To `List`.
    Entries {
        /// In byte order of names.
        entries: Vec<Entry>,
        /// Whether none is left after these.
        end: bool,
    },
    /// To `Locate`.
    Located(Located),
    /// To `Status`.
    Status(Box<ClusterStatus>),
    /// To `Checkpoint`.
    Checkpoint(CheckpointMade),
    /// To `Open`.
    Opened {
        /// As they are now.
        attrs: Attrs,
        /// A hold ends when nothing came on its link for this long.
        idle: Duration,
    },
    /// To `Hold` and `Release`.
    Held {
        /// As in `Opened`.
        idle: Duration,
    },
    /// To `Usage` and `UsageNext`.
    Usage(UsagePage),
}

/// A page of what a tree takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UsagePage {
    /// Where the next one is asked for.
    pub scan: u64,
    /// The state that all pages of the scan are of.
    pub at: LogSeq,
    /// At most [`crate::limits::USAGE_PAGE_MAX`]; none of a scan that goes on and has found nothing to say yet.
    pub rows: Vec<UsageRow>,
    /// Whether none is left after these.
    pub end: bool,
}

/// A step of a walk through a tree, in byte order of names, what is in a directory before the directory itself. Names
/// of directories that were entered and not left are the path to each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum UsageRow {
    /// Into a directory.
    Enters {
        /// Any bytes but `/` and NUL.
        #[serde(with = "super::plain")]
        name: Vec<u8>,
    },
    /// Out of the directory that was entered last; the last row of all is of what was asked for.
    Leaves(Usage),
}

/// What a file takes, or a directory with all below it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Of the files, as their sizes say.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Directories, itself among them.
    pub directories: u64,
    /// Chunks of the files.
    pub chunks: u64,
    /// What the replicas of those take, headers and what was synced, on all servers that the log names for them.
    pub replica_bytes: u64,
}

impl Usage {
    /// With that of something else.
    pub const fn add(&mut self, other: &Self) {
        let Self {
            bytes,
            files,
            directories,
            chunks,
            replica_bytes,
        } = other;
        self.bytes = self.bytes.saturating_add(*bytes);
        self.files = self.files.saturating_add(*files);
        self.directories = self.directories.saturating_add(*directories);
        self.chunks = self.chunks.saturating_add(*chunks);
        self.replica_bytes = self.replica_bytes.saturating_add(*replica_bytes);
    }
}

/// A checkpoint that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckpointMade {
    /// The record that it ends with.
    pub seq: LogSeq,
    /// Of the state in it; `None`: it was there before, and was not read again.
    pub hash: Option<u64>,
}

/// The attributes of a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attrs {
    /// Its id.
    pub file: FileId,
    /// File or directory.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file; entries of a directory.
    pub size: u64,
    /// Replicas of each chunk; 0 for a directory.
    pub replication: u8,
    /// Names: 1 for a file, 0 for one that is removed and held open, 2 and one per subdirectory for a directory.
    pub links: u32,
    /// When the content last changed.
    pub mtime: UnixNanos,
    /// When the attributes last changed.
    pub ctime: UnixNanos,
    /// When it was made.
    pub crtime: UnixNanos,
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Any bytes but `/` and NUL.
    #[serde(with = "super::plain")]
    pub name: Vec<u8>,
    /// Of what it stands for.
    pub attrs: Attrs,
}

/// Where chunks of a file are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Located {
    /// The file's size in the log.
    pub size: u64,
    /// The sizes files are cut into.
    pub geometry: Geometry,
    /// In order of their index; an index that is missing is a hole of zeros.
    pub chunks: Vec<ChunkPlaces>,
}

/// Where one chunk is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkPlaces {
    /// Its index in the file.
    pub index: u64,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// How many bytes the file's size gives it, and up to which write it is synced.
    pub log: Durable,
    /// Servers that are up and whose replica is confirmed: the ones to read from.
    pub replicas: Vec<Place>,
    /// How many replicas are not there to read from now: server down, not confirmed yet, or damaged.
    pub absent: u32,
}

/// The state of the cluster, for `kfs status` and the pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Which.
    pub cluster: ClusterId,
    /// The meta server's epoch.
    pub epoch: Epoch,
    /// Program and version of the meta server.
    pub build: Box<str>,
    /// Newest record, applied.
    pub log_seq: LogSeq,
    /// Newest record, durable.
    pub log_durable: LogSeq,
    /// Files, those that are removed and not reclaimed yet among them.
    pub files: u64,
    /// Directories, as files.
    pub directories: u64,
    /// Chunks that files own.
    pub chunks: u64,
    /// Bytes of all files, as their sizes say.
    pub bytes: u64,
    /// Chunks with fewer confirmed replicas than their file asks for.
    pub chunks_under_replicated: u64,
    /// Chunks that no live server has confirmed, of which something was synced: some of it cannot be read.
    pub chunks_unavailable: u64,
    /// Replicas that were reported damaged.
    pub replicas_damaged: u64,
    /// Chunks on servers that no log of this cluster knows; left where they are.
    pub chunks_unknown: u64,
    /// Sessions alive.
    pub sessions: u64,
    /// Replicas a file gets unless it says otherwise.
    pub replication: u8,
    /// Fewest live servers a new chunk is begun with.
    pub min_replicas: u8,
    /// Why mutations are refused, if they are.
    pub read_only: Option<String>,
    /// Why changes wait, if they do.
    pub changes_wait: Option<String>,
    /// Whether they are because a part of the log is missing, which an operator may accept.
    pub tail_lost: bool,
    /// What there is of checkpoints.
    pub checkpoint: Box<CheckpointStatus>,
    /// What was removed and is not reclaimed yet.
    pub reclaim: Box<ReclaimStatus>,
    /// What is done about replicas that are missing.
    pub replication_work: Box<ReplicationStatus>,
    /// Of the second copy of the log; `None`: none is kept.
    pub log_mirror: Option<Box<LogMirror>>,
    /// Every server that ever joined.
    pub servers: Vec<ServerStatus>,
}

/// What there is of checkpoints.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The record that the newest one ends with; `None`: there is none yet.
    pub newest: Option<LogSeq>,
    /// How old what is in it is; `None`: there is none yet.
    pub age: Option<CheckpointAge>,
    /// Why the last one that was begun could not be made, if so.
    pub failed: Option<String>,
}

/// How old what is in a checkpoint is. A checkpoint has no time in it: equal states give equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CheckpointAge {
    /// The state was that one so long ago.
    Exactly(Duration),
    /// It was there at the start of the meta server, so long ago: it is older.
    Over(Duration),
}

impl CheckpointAge {
    /// How old it is, at least.
    #[must_use]
    pub const fn at_least(self) -> Duration {
        match self {
            Self::Exactly(age) | Self::Over(age) => age,
        }
    }
}

/// What is done about replicas that are missing. Counts are since the meta server started.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// Chunks that were found to have too few replicas, or too many, and wait for their turn.
    pub waiting: u64,
    /// Copies that are being made.
    pub copying: u64,
    /// Copies that were made.
    pub copied: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Copies that could not be made.
    pub failed: u64,
    /// Replicas that went because there were more than wanted.
    pub trimmed: u64,
}

/// What was removed and is not reclaimed yet.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ReclaimStatus {
    /// Files that have no name any more: somebody has them open, or their turn comes.
    pub files: u64,
    /// Directories of removed trees, as far as they were looked into.
    pub directories: u64,
    /// Names in those directories.
    pub entries: u64,
    /// Files and directories that were reclaimed since the meta server started.
    pub done: u64,
}

/// The second copy of the log, as the start found it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LogMirror {
    /// What was damaged in one of the copies and was repaired from the other, file by file.
    pub repaired: Vec<String>,
    /// Files of a copy that were behind, or not there, and were brought up to date.
    pub caught_up: u64,
}

/// One chunkserver of [`ClusterStatus`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Which.
    pub node: NodeId,
    /// Where it last listened; `None` if not heard of since the meta server started.
    pub addr: Option<SocketAddr>,
    /// The rack it says it is in; empty: none.
    pub rack: String,
    /// Whether it is there.
    pub state: ServerState,
    /// Replicas it has, confirmed.
    pub chunks: u64,
    /// Bytes that may still be written there.
    pub bytes_free: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Since it was last heard of, if since the meta server started.
    pub silent: Option<Duration>,
    /// If it is being drained: how far.
    pub drain: Option<DrainStatus>,
}

/// How far a chunkserver is drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DrainStatus {
    /// What it has is being counted.
    Counting,
    /// It is a member of chunks yet, when it was last counted.
    Left(DrainLeft),
    /// Nothing rests on it any more: it may be stopped.
    Drained,
}

impl DrainStatus {
    /// As people and programs read it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counting | Self::Left(_) => "draining",
            Self::Drained => "drained",
        }
    }
    /// What is left, as far as it was counted.
    #[must_use]
    pub const fn left(self) -> DrainLeft {
        match self {
            Self::Counting | Self::Drained => DrainLeft {
                chunks: 0,
                bytes: 0,
                written: 0,
                stuck: 0,
            },
            Self::Left(left) => left,
        }
    }
}

/// What a chunkserver that is being drained is a member of yet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DrainLeft {
    /// Chunks.
    pub chunks: u64,
    /// Bytes that readers may see of those.
    pub bytes: u64,
    /// Chunks among them whose file is being written: they stay until it is closed, or they get another chain.
    pub written: u64,
    /// Chunks that no other server could take when they were looked at last: each that is up has them already, is
    /// being drained too, or has no room.
    pub stuck: u64,
}

/// See [`ServerStatus`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServerState {
    /// Its inventory was accepted and it answers.
    Up,
    /// It said hello and its inventory is being looked at.
    Joining,
    /// It is not connected.
    Down,
}

impl ServerState {
    /// As people and programs read it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Joining => "joining",
            Self::Down => "down",
        }
    }
}

impl ServerStatus {
    /// Where it listens, or its id while it was not heard of.
    #[must_use]
    pub fn address(&self) -> String {
        let addr = self.addr.map(|addr| addr.to_string());
        addr.unwrap_or_else(|| self.node.to_string())
    }
}
