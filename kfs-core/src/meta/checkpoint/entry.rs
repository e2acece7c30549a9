//! What a checkpoint holds, one entry at a time: everything of a state that the rest of it does not tell.
//!
//! Sections come in the order of [`Section::ALL`], entries within a section in the order of their keys; so equal
//! states give equal bytes, whoever writes them. A section that was released is never edited: another one is added.
use crate::ids::{
    Boot, ChunkId, Digest, Epoch, FileId, ID_LIMIT, Incarnation, Instance, LogSeq, NodeId,
    RequestNumber, ServerIndex, SessionId, Version, WriteSeq,
};
use crate::limits::{Geometry, REPLICATION_MAX};
use crate::meta::key::Key;
use crate::meta::packed::{Code, Iter, Map};
use crate::meta::record::{Adopted, TailLost};
use crate::meta::state::{ChunkState, EpochState, Inode, Node, Server, SessionState, State};
use crate::planted::{self, Bug};
use crate::time::UnixNanos;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::Done;
use core::iter::Take;
use core::ops::Bound;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

/// Numbers of the whole state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Whole {
    /// The sizes files are cut into.
    pub geometry: Option<Geometry>,
    /// How many directories there are, the root among them.
    pub directories: u64,
    /// Of all files, as their sizes say.
    pub bytes: u64,
    /// What proved that the log lost its end, until somebody accepts it.
    pub tail_lost: Option<TailLost>,
    /// The newest epoch when that was accepted last; 0: never.
    pub accepted: Epoch,
}

/// An epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EpochEntry {
    /// Which.
    pub epoch: Epoch,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its first record.
    pub first_seq: LogSeq,
    /// The highest counter of an id issued in it.
    pub issued: u64,
}

/// A chunkserver that ever joined.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServerEntry {
    /// Its place in the roster.
    pub index: ServerIndex,
    /// Which.
    pub node: NodeId,
    /// Its last boot.
    pub boot: Boot,
    /// Its last process.
    pub instance: Instance,
    /// Where it stands.
    pub rack: String,
}

/// A session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Which.
    pub session: SessionId,
    /// What it was opened with.
    pub nonce: u64,
    /// Results below it are forgotten.
    pub lowest: RequestNumber,
    /// Results of what changed something.
    pub results: Vec<(RequestNumber, LogSeq, Done)>,
}

/// A file or directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InodeEntry {
    /// Which.
    pub file: FileId,
    /// What files and directories do not share.
    pub node: NodeEntry,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of the contents.
    pub mtime: UnixNanos,
    /// Of anything.
    pub ctime: UnixNanos,
    /// When it was made.
    pub crtime: UnixNanos,
}

/// See [`InodeEntry`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum NodeEntry {
    /// A file.
    File {
        /// In bytes.
        size: u64,
        /// Replicas of each chunk.
        replication: u8,
    },
    /// A directory.
    Directory {
        /// The one it stands in.
        parent: FileId,
        /// Names in it.
        entries: u64,
        /// Directories among them.
        subdirectories: u32,
    },
}

/// A name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NameEntry {
    /// Where it stands.
    pub key: Key,
    /// What it stands for.
    pub file: FileId,
}

/// A chunk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// Whose.
    pub file: FileId,
    /// Its place in the file.
    pub index: u64,
    /// Which.
    pub chunk: ChunkId,
    /// Its version.
    pub version: Version,
    /// Its chain, head first.
    pub members: Vec<ServerIndex>,
    /// Which request of the file's writer made it.
    pub opened_by: RequestNumber,
    /// How far size reports say it is synced.
    pub synced: Option<Durable>,
    /// Of what every replica holds, once it is sealed.
    pub sealed: Option<Digest>,
}

/// A file that goes with its session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TemporaryEntry {
    /// Whose.
    pub session: SessionId,
    /// Which.
    pub file: FileId,
    /// The name it was made with.
    pub key: Key,
}

/// A file that is being written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WriterEntry {
    /// Which.
    pub file: FileId,
    /// By whom.
    pub session: SessionId,
}

/// A chunk that was of a part of the log that is missing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AdoptedEntry {
    /// Which.
    pub chunk: ChunkId,
    /// Whose it was.
    pub of: Adopted,
}

/// A chunk whose members may be at a write that the log does not know of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RaisingEntry {
    /// Which.
    pub chunk: ChunkId,
    /// The highest one.
    pub to: WriteSeq,
}

/// A chunk in which its file was cut, and whose replicas may have more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CutEntry {
    /// Which.
    pub chunk: ChunkId,
}

/// A file that was cut, with chunks behind that which are being reclaimed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BehindEntry {
    /// Which.
    pub file: FileId,
    /// The first of those chunks.
    pub first: u64,
}

/// A file without a name, which waits until nobody has it open.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UnlinkedEntry {
    /// Which.
    pub file: FileId,
}

/// A directory that was removed with what is in it, which is being reclaimed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DetachedEntry {
    /// Which.
    pub dir: FileId,
}

/// A chunkserver that is to give away what it has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DrainingEntry {
    /// Its place in the roster.
    pub index: ServerIndex,
}

macro_rules! sections {
    ($($code:literal $section:ident $entry:ident),+ $(,)?) => {
        /// The kinds of entries, in their order; their numbers are fixed for ever.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Section {$(
            #[doc = concat!("Number ", stringify!($code), ": see [`", stringify!($entry), "`].")]
            $section = $code,
        )+}

        impl Section {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$section),+];
            /// Numbers, names and entries.
            pub const TABLE: &'static [(u16, &'static str)] = &[$(($code, stringify!($section))),+];
            /// The section of this number.
            #[must_use]
            pub fn of(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$section),)+
                    _ => None,
                }
            }
        }

        /// One entry.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Entry {$(
            #[doc = concat!("Of section ", stringify!($code), ".")]
            $section($entry),
        )+}

        impl Entry {
            /// Where it belongs.
            #[must_use]
            pub const fn section(&self) -> Section {
                match self {$(Self::$section(_) => Section::$section,)+}
            }
            /// Appends its bytes.
            #[must_use]
            pub fn encode(&self, to: Vec<u8>) -> Vec<u8> {
                match self {$(Self::$section(entry) => postcard::to_extend(entry, to),)+}
                    .expect("entries hold nothing that postcard cannot encode")
            }
            /// Reads one of a section from the front of `bytes`; `None` if there is none.
            #[must_use]
            pub fn decode(section: Section, bytes: &[u8]) -> Option<(Self, &[u8])> {
                match section {$(
                    Section::$section => {
                        let (entry, rest) = postcard::take_from_bytes(bytes).ok()?;
                        Some((Self::$section(entry), rest))
                    }
                )+}
            }
        }
    };
}

sections! {
    1 Whole Whole,
    2 Epochs EpochEntry,
    3 Servers ServerEntry,
    4 Sessions SessionEntry,
    5 Inodes InodeEntry,
    6 Names NameEntry,
    7 Chunks ChunkEntry,
    8 Temporary TemporaryEntry,
    9 Writers WriterEntry,
    10 Adopted AdoptedEntry,
    11 Unlinked UnlinkedEntry,
    12 Detached DetachedEntry,
    13 Raising RaisingEntry,
    14 Draining DrainingEntry,
    15 Cuts CutEntry,
    16 Behind BehindEntry,
}

/// The next entries of a section, at most so many, behind `last`; fewer only where the section ends.
pub(super) fn entries_after(
    state: &State,
    section: Section,
    last: Option<&Entry>,
    most: usize,
) -> Vec<Entry> {
    match section {
        Section::Whole if last.is_some() => Vec::new(),
        Section::Whole => vec![Entry::Whole(Whole {
            geometry: state.geometry,
            directories: state.directories,
            bytes: state.bytes,
            tail_lost: state.tail_lost.clone(),
            accepted: state.accepted,
        })],
        Section::Epochs => {
            let from = last.map(|last| match last {
                Entry::Epochs(entry) => entry.epoch,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(epoch, begun): (&Epoch, &EpochState)| {
                Entry::Epochs(EpochEntry {
                    epoch: *epoch,
                    incarnation: begun.incarnation,
                    first_seq: begun.first_seq,
                    issued: begun.issued,
                })
            };
            after(&state.epochs, from, most).map(entry).collect()
        }
        Section::Servers => {
            let from = last.map(|last| match last {
                Entry::Servers(entry) => entry.index,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(index, server): (&ServerIndex, &Server)| {
                Entry::Servers(ServerEntry {
                    index: *index,
                    node: server.node,
                    boot: server.boot,
                    instance: server.instance,
                    rack: server.rack.to_string(),
                })
            };
            after(&state.roster, from, most).map(entry).collect()
        }
        Section::Sessions => {
            let from = last.map(|last| match last {
                Entry::Sessions(entry) => entry.session,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(session, kept): (&SessionId, &SessionState)| {
                Entry::Sessions(SessionEntry {
                    session: *session,
                    nonce: kept.nonce,
                    lowest: kept.lowest,
                    results: if planted::is(Bug::CheckpointForgetsResults) {
                        Vec::new()
                    } else {
                        kept.results.clone()
                    },
                })
            };
            after(&state.sessions, from, most).map(entry).collect()
        }
        Section::Inodes => {
            let from = last.map(|last| match last {
                Entry::Inodes(entry) => entry.file,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(file, inode): (FileId, Inode)| Entry::Inodes(inode_entry(file, &inode));
            behind(&state.inodes, from, most).map(entry).collect()
        }
        Section::Names => {
            let from = last.map(|last| match last {
                Entry::Names(entry) => entry.key.clone(),
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(key, file)| Entry::Names(NameEntry { key, file });
            state.tree.behind(from).take(most).map(entry).collect()
        }
        Section::Chunks => {
            let from = last.map(|last| match last {
                Entry::Chunks(entry) => (entry.file, entry.index),
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(at, chunk): ((FileId, u64), ChunkState)| {
                Entry::Chunks(ChunkEntry {
                    file: at.0,
                    index: at.1,
                    chunk: chunk.chunk,
                    version: chunk.version,
                    members: chunk.members.to_vec(),
                    opened_by: chunk.opened_by,
                    synced: chunk.synced,
                    sealed: chunk.sealed,
                })
            };
            behind(&state.chunks, from, most).map(entry).collect()
        }
        Section::Temporary => {
            let from = last.map(|last| match last {
                Entry::Temporary(entry) => (entry.session, entry.file),
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(at, key): (&(SessionId, FileId), &Key)| {
                let ((session, file), key) = (*at, key.clone());
                Entry::Temporary(TemporaryEntry { session, file, key })
            };
            after(&state.temporary, from, most).map(entry).collect()
        }
        Section::Writers => {
            let from = last.map(|last| match last {
                Entry::Writers(entry) => entry.file,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(file, session)| Entry::Writers(WriterEntry { file, session });
            behind(&state.writers, from, most).map(entry).collect()
        }
        Section::Adopted => {
            let from = last.map(|last| match last {
                Entry::Adopted(entry) => entry.chunk,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(chunk, of): (&ChunkId, &Adopted)| {
                let (chunk, of) = (*chunk, *of);
                Entry::Adopted(AdoptedEntry { chunk, of })
            };
            after(&state.adopted, from, most).map(entry).collect()
        }
        Section::Raising => {
            let from = last.map(|last| match last {
                Entry::Raising(entry) => entry.chunk,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(chunk, to): (&ChunkId, &WriteSeq)| {
                let (chunk, to) = (*chunk, *to);
                Entry::Raising(RaisingEntry { chunk, to })
            };
            after(&state.raising, from, most).map(entry).collect()
        }
        Section::Cuts if planted::is(Bug::CheckpointForgetsCuts) => Vec::new(),
        Section::Cuts => {
            let from = last.map(|last| match last {
                Entry::Cuts(entry) => entry.chunk,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |chunk: &ChunkId| Entry::Cuts(CutEntry { chunk: *chunk });
            beyond(&state.cuts, from, most).map(entry).collect()
        }
        Section::Behind => {
            let from = last.map(|last| match last {
                Entry::Behind(entry) => entry.file,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |(file, first): (&FileId, &u64)| {
                let (file, first) = (*file, *first);
                Entry::Behind(BehindEntry { file, first })
            };
            after(&state.behind, from, most).map(entry).collect()
        }
        Section::Draining if planted::is(Bug::DrainForgotten) => Vec::new(),
        Section::Draining => {
            let from = last.map(|last| match last {
                Entry::Draining(entry) => entry.index,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |index: &ServerIndex| Entry::Draining(DrainingEntry { index: *index });
            beyond(&state.draining, from, most).map(entry).collect()
        }
        Section::Unlinked => {
            let from = last.map(|last| match last {
                Entry::Unlinked(entry) => entry.file,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |file: &FileId| Entry::Unlinked(UnlinkedEntry { file: *file });
            beyond(&state.unlinked, from, most).map(entry).collect()
        }
        Section::Detached if planted::is(Bug::ReclaimLosesItsPlace) => Vec::new(),
        Section::Detached => {
            let from = last.map(|last| match last {
                Entry::Detached(entry) => entry.dir,
                other => panic!("not of this section: {other:?}"),
            });
            let entry = |dir: &FileId| Entry::Detached(DetachedEntry { dir: *dir });
            beyond(&state.detached, from, most).map(entry).collect()
        }
    }
}

fn after<K: Ord + Clone, V: Clone>(
    map: &OrdMap<K, V>,
    from: Option<K>,
    most: usize,
) -> impl Iterator<Item = (&K, &V)> {
    let from = from.map_or(Bound::Unbounded, Bound::Excluded);
    map.range((from, Bound::Unbounded)).take(most)
}

fn beyond<K: Ord + Clone>(
    set: &OrdSet<K>,
    from: Option<K>,
    most: usize,
) -> impl Iterator<Item = &K> {
    let from = from.map_or(Bound::Unbounded, Bound::Excluded);
    set.range((from, Bound::Unbounded)).take(most)
}

fn behind<C: Code>(map: &Map<C>, from: Option<C::Key>, most: usize) -> Take<Iter<'_, C>> {
    let from = from.map_or(Bound::Unbounded, Bound::Excluded);
    map.range((from, Bound::Unbounded)).take(most)
}

fn inode_entry(file: FileId, inode: &Inode) -> InodeEntry {
    let node = match inode.node {
        Node::File { size, replication } => NodeEntry::File { size, replication },
        Node::Directory {
            parent,
            entries,
            subdirectories,
        } => NodeEntry::Directory {
            parent,
            entries,
            subdirectories,
        },
    };
    InodeEntry {
        file,
        node,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        ctime: inode.ctime,
        crtime: inode.crtime,
    }
}

/// Puts an entry into the state that a checkpoint is loaded into.
///
/// # Errors
/// If it does not follow the one before it in its section, or does not fit.
pub(super) fn put(state: &mut State, entry: Entry) -> Result<(), &'static str> {
    const ORDER: Result<(), &str> = Err("an entry that is out of order");
    const TWICE: Result<(), &str> = Err("something that there can be only one of is there twice");
    match entry {
        Entry::Whole(whole) => {
            state.geometry = whole.geometry;
            state.directories = whole.directories;
            state.bytes = whole.bytes;
            state.tail_lost = whole.tail_lost;
            state.accepted = whole.accepted;
        }
        Entry::Epochs(entry) => {
            if follows(&state.epochs, &entry.epoch) {
                return ORDER;
            }
            state.epoch = entry.epoch;
            let twice = state.incarnations.insert(entry.incarnation, entry.epoch);
            if twice.is_some() {
                return TWICE;
            }
            let begun = EpochState {
                incarnation: entry.incarnation,
                first_seq: entry.first_seq,
                issued: entry.issued,
            };
            state.epochs.insert(entry.epoch, begun);
        }
        Entry::Servers(entry) => {
            if follows(&state.roster, &entry.index) {
                return ORDER;
            }
            if state.nodes.insert(entry.node, entry.index).is_some() {
                return TWICE;
            }
            let server = Server {
                node: entry.node,
                boot: entry.boot,
                instance: entry.instance,
                rack: entry.rack.into(),
            };
            state.roster.insert(entry.index, server);
        }
        Entry::Sessions(entry) => {
            if follows(&state.sessions, &entry.session) {
                return ORDER;
            }
            if state.nonces.insert(entry.nonce, entry.session).is_some() {
                return TWICE;
            }
            let kept = SessionState {
                nonce: entry.nonce,
                lowest: entry.lowest,
                results: entry.results,
            };
            state.sessions.insert(entry.session, kept);
        }
        Entry::Inodes(entry) => {
            if state
                .inodes
                .last()
                .is_some_and(|(last, _)| last >= entry.file)
            {
                return ORDER;
            }
            let node = match entry.node {
                NodeEntry::File { size, replication } => Node::File { size, replication },
                NodeEntry::Directory {
                    parent,
                    entries,
                    subdirectories,
                } => Node::Directory {
                    parent,
                    entries,
                    subdirectories,
                },
            };
            let inode = Inode {
                node,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                ctime: entry.ctime,
                crtime: entry.crtime,
            };
            state.inodes.insert(entry.file, inode);
        }
        Entry::Names(entry) => {
            if state.tree.last().is_some_and(|last| last >= entry.key) {
                return ORDER;
            }
            state.tree.insert(entry.key, entry.file);
        }
        Entry::Chunks(entry) => {
            let at = (entry.file, entry.index);
            if state.chunks.last().is_some_and(|(last, _)| last >= at) {
                return ORDER;
            }
            let synced = entry.synced.unwrap_or_default();
            if entry.members.len() > usize::from(REPLICATION_MAX) || synced.len >= ID_LIMIT {
                return Err("a chunk with more members, or more bytes, than there can be");
            }
            if state.owners.insert(entry.chunk, at).is_some() {
                return TWICE;
            }
            if entry.synced.is_none() {
                state.unnamed.insert(at);
            }
            let chunk = ChunkState {
                chunk: entry.chunk,
                version: entry.version,
                members: entry.members.into(),
                opened_by: entry.opened_by,
                synced: entry.synced,
                sealed: entry.sealed,
            };
            state.chunks.insert(at, chunk);
        }
        Entry::Temporary(entry) => {
            let at = (entry.session, entry.file);
            if follows(&state.temporary, &at) {
                return ORDER;
            }
            if state.holders.insert(entry.file, entry.session).is_some() {
                return TWICE;
            }
            state.temporary.insert(at, entry.key);
        }
        Entry::Writers(entry) => {
            if state
                .writers
                .last()
                .is_some_and(|(last, _)| last >= entry.file)
            {
                return ORDER;
            }
            state.writing.insert((entry.session, entry.file), ());
            state.writers.insert(entry.file, entry.session);
        }
        Entry::Adopted(entry) => {
            if follows(&state.adopted, &entry.chunk) {
                return ORDER;
            }
            state.adopted.insert(entry.chunk, entry.of);
        }
        Entry::Raising(entry) => {
            if follows(&state.raising, &entry.chunk) {
                return ORDER;
            }
            state.raising.insert(entry.chunk, entry.to);
        }
        Entry::Cuts(entry) => {
            if state.cuts.get_max() >= Some(&entry.chunk) {
                return ORDER;
            }
            state.cuts.insert(entry.chunk);
        }
        Entry::Behind(entry) => {
            if follows(&state.behind, &entry.file) {
                return ORDER;
            }
            state.behind.insert(entry.file, entry.first);
        }
        Entry::Draining(entry) => {
            if state.draining.get_max() >= Some(&entry.index) {
                return ORDER;
            }
            if !state.roster.contains_key(&entry.index) {
                return Err("a server that is drained, and is none");
            }
            state.draining.insert(entry.index);
        }
        Entry::Unlinked(entry) => {
            if state.unlinked.get_max() >= Some(&entry.file) {
                return ORDER;
            }
            state.unlinked.insert(entry.file);
        }
        Entry::Detached(entry) => {
            if state.detached.get_max() >= Some(&entry.dir) {
                return ORDER;
            }
            let node = state.inodes.get(&entry.dir).map(|inode| inode.node);
            let Some(Node::Directory { entries, .. }) = node else {
                return Err("a directory that stands nowhere, and is none");
            };
            state.detached_entries = state
                .detached_entries
                .checked_add(entries)
                .ok_or("more names than can be counted")?;
            state.detached.insert(entry.dir);
        }
    }
    Ok(())
}

/// Whether something in the map is at this key, or behind it.
fn follows<K: Ord + Clone, V: Clone>(map: &OrdMap<K, V>, key: &K) -> bool {
    map.get_max().is_some_and(|(last, _)| last >= key)
}
