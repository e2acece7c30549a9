//! Everything the log determines, and nothing else: two meta servers that applied the same records are equal.
//!
//! The maps are persistent, so a snapshot is cheap; those that grow with the number of files are packed. Knows no
//! links, no time and no randomness; what is known only from chunkservers that said hello is in [`super::roster`]
//! and [`super::chunkmap`].
use super::key::{Key, Name};
use super::packed::{Chunks, Inodes, Map, Owners, Writers, Writing};
use super::record::{Adopted, Logged, TailLost};
use super::tree::Tree;
use crate::ids::{
    Boot, ChunkId, ClusterId, Digest, Epoch, FileId, Incarnation, Instance, LogSeq, NodeId,
    RequestNumber, ServerIndex, SessionId, Version, WriteSeq,
};
use crate::limits::{Geometry, RECLAIM_BATCH_MAX};
use crate::time::UnixNanos;
use crate::wire::Refusal;
use crate::wire::chunk_meta::Content;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{At, Attrs, Done, Entry, Kind};
use core::cmp::Ordering;
use core::fmt::Debug;
use core::ops::Bound::{Excluded, Unbounded};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// The state of the cluster as its log tells it.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// The last record applied.
    pub(crate) seq: LogSeq,
    /// Whose log it is; zero before the first record.
    pub(crate) cluster: ClusterId,
    /// The sizes files are cut into, the same in all epochs.
    pub(crate) geometry: Option<Geometry>,
    /// The newest epoch.
    pub(crate) epoch: Epoch,
    pub(crate) epochs: OrdMap<Epoch, EpochState>,
    pub(crate) incarnations: OrdMap<Incarnation, Epoch>,
    pub(crate) tree: Tree,
    pub(crate) inodes: Map<Inodes>,
    /// The chunks of files by their index.
    pub(crate) chunks: Map<Chunks>,
    /// Whose each chunk is.
    pub(crate) owners: Map<Owners>,
    /// Chunks that no size report has named yet.
    pub(crate) unnamed: OrdSet<(FileId, u64)>,
    /// Which session may write a file.
    pub(crate) writers: Map<Writers>,
    pub(crate) writing: Map<Writing>,
    /// Files that are removed if their session ends before they are renamed.
    pub(crate) temporary: OrdMap<(SessionId, FileId), Key>,
    /// Whose temporary file it is.
    pub(crate) holders: OrdMap<FileId, SessionId>,
    pub(crate) sessions: OrdMap<SessionId, SessionState>,
    pub(crate) nonces: OrdMap<u64, SessionId>,
    pub(crate) roster: OrdMap<ServerIndex, Server>,
    pub(crate) nodes: OrdMap<NodeId, ServerIndex>,
    /// Chunkservers that are to give away what they have.
    pub(crate) draining: OrdSet<ServerIndex>,
    pub(crate) directories: u64,
    /// Of all files, as their sizes say.
    pub(crate) bytes: u64,
    /// What proved that this log lost its end, until somebody accepts it.
    pub(crate) tail_lost: Option<TailLost>,
    /// The newest epoch when that was accepted last; 0: never.
    pub(crate) accepted: Epoch,
    /// Chunks that were of a part of the log that is missing.
    pub(crate) adopted: OrdMap<ChunkId, Adopted>,
    /// The highest write that members of a chunk were to be raised to, where a takeover has begun and not ended: one
    /// that is not heard of may be at it.
    pub(crate) raising: OrdMap<ChunkId, WriteSeq>,
    /// Chunks whose file was cut in them: their replicas may have more than is said to be synced, which counts no more and
    /// must not come to. Until all of them have been raised and cut there.
    pub(crate) cuts: OrdSet<ChunkId>,
    /// Files that were cut and have chunks behind that, from this index on, which are being reclaimed. Until then
    /// nothing is put there.
    pub(crate) behind: OrdMap<FileId, u64>,
    /// Files without names, which wait until nobody has them open.
    pub(crate) unlinked: OrdSet<FileId>,
    /// Directories that stand nowhere: removed with what is in them, which is being reclaimed.
    pub(crate) detached: OrdSet<FileId>,
    /// Names in those.
    pub(crate) detached_entries: u64,
}

/// Where a directory stands that stands nowhere: no id is 0.
pub(crate) const NOWHERE: FileId = FileId(0);

/// One epoch.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct EpochState {
    pub(crate) incarnation: Incarnation,
    pub(crate) first_seq: LogSeq,
    /// The highest counter of an id issued in it; 0: none.
    pub(crate) issued: u64,
}

/// A file or directory, but for its name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Inode {
    pub(crate) node: Node,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: UnixNanos,
    pub(crate) ctime: UnixNanos,
    pub(crate) crtime: UnixNanos,
}

/// What files and directories do not share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Node {
    File {
        size: u64,
        replication: u8,
    },
    Directory {
        parent: FileId,
        entries: u64,
        subdirectories: u32,
    },
}

impl Node {
    /// How many replicas it asks for: a directory none.
    pub(crate) const fn replication(&self) -> u8 {
        match self {
            Self::File { replication, .. } => *replication,
            Self::Directory { .. } => 0,
        }
    }
}

/// A chunk of a file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ChunkState {
    pub(crate) chunk: ChunkId,
    pub(crate) version: Version,
    /// The chain, head first.
    pub(crate) members: Arc<[ServerIndex]>,
    /// Which request of the file's writer made it: if that one is asked again, nobody was told of it.
    pub(crate) opened_by: RequestNumber,
    /// How far size reports say it is synced, or what a record has made known since; `None` before a report has named
    /// it. If it is sealed: all of it.
    pub(crate) synced: Option<Durable>,
    /// Of what it holds, once it is sealed.
    pub(crate) sealed: Option<Digest>,
}

impl ChunkState {
    /// Whether a replica is what the log has of the chunk, or, while that is not known, has at least what was synced.
    pub(crate) fn is_had_by(&self, log: Durable, has: Content) -> bool {
        let same = self.sealed.is_none_or(|digest| {
            let durable = self.synced.unwrap_or_default();
            has == Content { durable, digest }
        });
        same && has.durable.covers(log)
    }
}

/// A chunk that a file owns, as the log has it, for who looks at a state from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owned {
    /// Whose it is.
    pub file: FileId,
    /// Its place in the file.
    pub index: u64,
    /// Whose it is by the names of its replicas: another file's, if it was adopted.
    pub named: FileId,
    /// Which.
    pub chunk: ChunkId,
    /// At which version.
    pub version: Version,
    /// The chain, head first.
    pub members: Arc<[ServerIndex]>,
    /// How far size reports say it is synced; `None` before one has named it.
    pub synced: Option<Durable>,
    /// Of what every replica holds, once it is sealed.
    pub sealed: Option<Digest>,
    /// How many of its bytes readers may see, and which writes every replica has.
    pub log: Durable,
    /// How many replicas its file asks for.
    pub wanted: u8,
}

/// A session.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SessionState {
    pub(crate) nonce: u64,
    /// Results below it are forgotten.
    pub(crate) lowest: RequestNumber,
    /// Results of what changed something, in the order of their numbers.
    pub(crate) results: Vec<(RequestNumber, LogSeq, Done)>,
}

/// A chunkserver that ever joined.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Server {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) instance: Instance,
    pub(crate) rack: Arc<str>,
}

impl Default for State {
    /// Before the first record: an empty root.
    fn default() -> Self {
        let root = Inode {
            node: Node::Directory {
                parent: FileId::ROOT,
                entries: 0,
                subdirectories: 0,
            },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: UnixNanos(0),
            ctime: UnixNanos(0),
            crtime: UnixNanos(0),
        };
        let mut inodes = Map::default();
        inodes.insert(FileId::ROOT, root);
        Self {
            seq: LogSeq(0),
            cluster: ClusterId(0),
            geometry: None,
            epoch: Epoch(0),
            epochs: OrdMap::new(),
            incarnations: OrdMap::new(),
            tree: Tree::default(),
            inodes,
            chunks: Map::default(),
            owners: Map::default(),
            unnamed: OrdSet::new(),
            writers: Map::default(),
            writing: Map::default(),
            temporary: OrdMap::new(),
            holders: OrdMap::new(),
            sessions: OrdMap::new(),
            nonces: OrdMap::new(),
            roster: OrdMap::new(),
            nodes: OrdMap::new(),
            draining: OrdSet::new(),
            directories: 1,
            bytes: 0,
            tail_lost: None,
            accepted: Epoch(0),
            adopted: OrdMap::new(),
            raising: OrdMap::new(),
            cuts: OrdSet::new(),
            behind: OrdMap::new(),
            unlinked: OrdSet::new(),
            detached: OrdSet::new(),
            detached_entries: 0,
        }
    }
}

impl State {
    /// The state that these records make, from nothing.
    ///
    /// # Errors
    /// If one does not fit the state before it.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Logged>) -> Result<Self, String> {
        let mut state = Self::default();
        for logged in records {
            super::apply::apply(&mut state, logged).map_err(|misfit| misfit.0)?;
        }
        Ok(state)
    }
    /// The state after one record more.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn apply(&mut self, logged: &Logged) -> Result<(), String> {
        super::apply::apply(self, logged)
            .map(|_| ())
            .map_err(|misfit| misfit.0)
    }
    /// The last record applied.
    #[must_use]
    pub const fn seq(&self) -> LogSeq {
        self.seq
    }
    /// Checks what must hold of every state, at a cost of the whole of it: for tests and simulations.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check(&self) {
        if let Err(broken) = self.try_check() {
            panic!("{broken}");
        }
    }
    /// As [`State::check`], for who goes on after it.
    ///
    /// # Errors
    /// The first thing that does not hold, and of what.
    pub fn try_check(&self) -> Result<(), String> {
        self.check_namespace()?;
        self.check_chunks()?;
        self.check_sessions()
    }
    fn check_namespace(&self) -> Result<(), String> {
        let mut bytes = 0_u64;
        let mut directories = 0_u64;
        let mut detached_entries = 0_u64;
        for (id, inode) in self.inodes.iter() {
            let Node::Directory {
                parent,
                entries,
                subdirectories,
            } = inode.node
            else {
                if let Node::File { size, .. } = inode.node {
                    bytes = bytes
                        .checked_add(size)
                        .ok_or("the sizes of all files cannot be counted")?;
                }
                continue;
            };
            directories += 1;
            let detached = self.detached.contains(&id);
            if detached {
                detached_entries += entries;
            }
            let above = self.inodes.get(&parent).map(|inode| inode.node);
            let stands = matches!(above, Some(Node::Directory { .. }));
            holds(
                stands != detached && (parent == NOWHERE) == detached,
                || format!("directory {id} stands in {parent}, which is no directory, or should"),
            )?;
            let mut found = (0_u64, 0_u32);
            for (name, file) in self.tree.after(id, b"") {
                found.0 += 1;
                let Some(child) = self.inodes.get(&file) else {
                    return Err(format!(
                        "{name:?} in directory {id} stands for {file}, which is not there"
                    ));
                };
                if let Node::Directory { parent, .. } = child.node {
                    found.1 += 1;
                    holds(parent == id, || {
                        format!("directory {file} stands in {id} and takes {parent} for its parent")
                    })?;
                }
            }
            holds((entries, subdirectories) == found, || {
                format!(
                    "directory {id} counts {entries} entries, {subdirectories} of them directories; it has {found:?}"
                )
            })?;
            holds(self.climbs_to_the_top(id), || {
                format!("directory {id} is in itself, or below nothing")
            })?;
        }
        holds(bytes == self.bytes, || {
            format!("all files have {bytes} bytes; {} are counted", self.bytes)
        })?;
        holds(directories == self.directories, || {
            format!(
                "there are {directories} directories; {} are counted",
                self.directories
            )
        })?;
        let nameless = 1 + self.unlinked.len() + self.detached.len();
        holds(self.inodes.len() == self.tree.len() + nameless, || {
            let (things, names) = (self.inodes.len(), self.tree.len());
            format!(
                "{things} files and directories have {names} names: all but {nameless} have one"
            )
        })?;
        for file in &self.unlinked {
            let node = self.inodes.get(file).map(|inode| inode.node);
            holds(
                matches!(node, Some(Node::File { .. })) && !self.holders.contains_key(file),
                || format!("{file} has no name, and is no file, or a temporary one"),
            )?;
        }
        for dir in &self.detached {
            holds(self.inodes.contains_key(dir), || {
                format!("directory {dir} stands nowhere, and is not there")
            })?;
        }
        holds(detached_entries == self.detached_entries, || {
            format!(
                "directories that stand nowhere have {detached_entries} names; {} are counted",
                self.detached_entries
            )
        })
    }
    fn check_chunks(&self) -> Result<(), String> {
        holds(self.chunks.len() == self.owners.len(), || {
            format!(
                "{} chunks have {} owners",
                self.chunks.len(),
                self.owners.len()
            )
        })?;
        for (at, chunk) in self.chunks.iter() {
            let (file, index) = at;
            let id = chunk.chunk;
            holds(self.owners.get(&id) == Some(at), || {
                let owner = self.owners.get(&id);
                format!("chunk {id} is chunk {index} of file {file}; its owner is {owner:?}")
            })?;
            let node = self.inodes.get(&file).map(|inode| inode.node);
            holds(matches!(node, Some(Node::File { .. })), || {
                format!("chunk {id} is of {file}, which is no file")
            })?;
            holds(self.unnamed.contains(&at) == chunk.synced.is_none(), || {
                format!(
                    "chunk {id} was named by a report, or was not: {:?}",
                    chunk.synced
                )
            })?;
            holds(!chunk.members.is_empty(), || {
                format!("chunk {id} is nowhere")
            })?;
            for (nth, member) in chunk.members.iter().enumerate() {
                holds(
                    self.roster.contains_key(member) && !chunk.members[..nth].contains(member),
                    || format!("chunk {id} is on {member} twice, or it never joined"),
                )?;
            }
        }
        for chunk in self.adopted.keys() {
            holds(self.owners.get(chunk).is_some(), || {
                format!("chunk {chunk} was adopted, and no file owns it")
            })?;
        }
        for chunk in self.raising.keys() {
            holds(self.owners.get(chunk).is_some(), || {
                format!("chunk {chunk} is being raised, and no file owns it")
            })?;
        }
        for chunk in &self.cuts {
            let at = self.owners.get(chunk);
            let owned = at.and_then(|at| self.chunks.get(&at));
            let fits = owned.is_some_and(|owned| owned.synced.is_some() && owned.sealed.is_none());
            holds(fits, || {
                format!("chunk {chunk} is to be cut, and no report has named it, or it is sealed")
            })?;
        }
        for file in self.behind.keys() {
            let node = self.inodes.get(file).map(|inode| inode.node);
            holds(matches!(node, Some(Node::File { .. })), || {
                format!("chunks behind the end of {file} are reclaimed, and it is no file")
            })?;
        }
        for at in &self.unnamed {
            holds(self.chunks.contains_key(at), || {
                format!(
                    "chunk {} of file {} is not there and waits for a report",
                    at.1, at.0
                )
            })?;
        }
        Ok(())
    }
    fn check_sessions(&self) -> Result<(), String> {
        holds(self.writers.len() == self.writing.len(), || {
            format!(
                "{} files are written by {} writers",
                self.writing.len(),
                self.writers.len()
            )
        })?;
        for (file, session) in self.writers.iter() {
            holds(
                self.inodes.contains_key(&file)
                    && self.sessions.contains_key(&session)
                    && self.writing.contains_key(&(session, file)),
                || format!("file {file} is written by session {session}: one is not there"),
            )?;
        }
        holds(self.temporary.len() == self.holders.len(), || {
            format!(
                "{} temporary files have {} holders",
                self.temporary.len(),
                self.holders.len()
            )
        })?;
        for ((session, file), key) in &self.temporary {
            holds(
                self.holders.get(file) == Some(session) && self.sessions.contains_key(session),
                || {
                    format!(
                        "temporary file {file} is held by session {session}, which is not there"
                    )
                },
            )?;
            holds(self.tree.get(key) == Some(*file), || {
                format!("temporary file {file} has lost the name it was made with, {key:?}")
            })?;
        }
        holds(self.sessions.len() == self.nonces.len(), || {
            format!(
                "{} sessions have {} nonces",
                self.sessions.len(),
                self.nonces.len()
            )
        })?;
        for (id, session) in &self.sessions {
            holds(self.nonces.get(&session.nonce) == Some(id), || {
                format!("session {id} is not the one of its nonce")
            })?;
            holds(
                session.results.is_sorted_by(|a, b| a.0 < b.0)
                    && session
                        .results
                        .iter()
                        .all(|(number, ..)| *number >= session.lowest),
                || format!("session {id} remembers results out of order, or forgotten ones"),
            )?;
        }
        for (node, index) in &self.nodes {
            holds(
                self.roster
                    .get(index)
                    .is_some_and(|server| server.node == *node),
                || format!("node {node} is not server {index} of the roster"),
            )?;
        }
        holds(self.roster.len() == self.nodes.len(), || {
            format!(
                "{} servers have {} nodes",
                self.roster.len(),
                self.nodes.len()
            )
        })?;
        for (epoch, begun) in &self.epochs {
            holds(
                self.incarnations.get(&begun.incarnation) == Some(epoch)
                    && begun.first_seq <= self.seq
                    && *epoch <= self.epoch,
                || format!("epoch {epoch} is not the one of its incarnation, or not of this log"),
            )?;
        }
        Ok(())
    }
    /// The root, or a directory that stands nowhere.
    fn climbs_to_the_top(&self, from: FileId) -> bool {
        let mut at = from;
        for _ in 0..=self.inodes.len() {
            if at == FileId::ROOT || self.detached.contains(&at) {
                return true;
            }
            match self.inodes.get(&at).map(|inode| inode.node) {
                Some(Node::Directory { parent, .. }) => at = parent,
                Some(Node::File { .. }) | None => return false,
            }
        }
        false
    }

    /// The newest epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// All epochs: which start each was, and the highest counter of an id issued in it.
    pub fn epochs(&self) -> impl Iterator<Item = (Epoch, Incarnation, u64)> {
        self.epochs
            .iter()
            .map(|(epoch, begun)| (*epoch, begun.incarnation, begun.issued))
    }
    /// All chunks that files own.
    pub fn chunks(&self) -> impl Iterator<Item = Owned> {
        self.chunks
            .iter()
            .map(|((file, index), chunk)| self.owned(file, index, &chunk))
    }
    /// A chunk, if a file owns it.
    #[must_use]
    pub fn chunk(&self, chunk: ChunkId) -> Option<Owned> {
        let at = self.owners.get(&chunk)?;
        let state = self.chunks.get(&at)?;
        Some(self.owned(at.0, at.1, &state))
    }
    /// The file that the names of a chunk's replicas say.
    pub(crate) fn named(&self, chunk: ChunkId, owner: FileId) -> FileId {
        self.adopted.get(&chunk).map_or(owner, |of| of.named)
    }
    fn owned(&self, file: FileId, index: u64, chunk: &ChunkState) -> Owned {
        Owned {
            file,
            index,
            named: self.named(chunk.chunk, file),
            chunk: chunk.chunk,
            version: chunk.version,
            members: Arc::clone(&chunk.members),
            synced: chunk.synced,
            sealed: chunk.sealed,
            log: self.logged(file, index, chunk),
            wanted: self.replication(file),
        }
    }
    /// All chunkservers that ever joined.
    pub fn servers(&self) -> impl Iterator<Item = (ServerIndex, NodeId)> {
        self.roster
            .iter()
            .map(|(index, server)| (*index, server.node))
    }
    /// Whether a chunkserver is to give away what it has.
    #[must_use]
    pub fn is_draining(&self, server: ServerIndex) -> bool {
        self.draining.contains(&server)
    }
    /// All sessions, with their nonces and how many results of each are remembered.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, u64, usize)> {
        self.sessions
            .iter()
            .map(|(id, session)| (*id, session.nonce, session.results.len()))
    }
    /// The session that may write a file.
    #[must_use]
    pub fn writer(&self, file: FileId) -> Option<SessionId> {
        self.writers.get(&file)
    }
    /// All files and directories, the root among them.
    pub fn files_and_directories(&self) -> impl Iterator<Item = Attrs> {
        self.inodes.keys().filter_map(|file| self.attrs(file))
    }
    /// The entries of a directory, in byte order of their names.
    pub fn entries(&self, dir: FileId) -> impl Iterator<Item = (Name, FileId)> {
        self.tree.after(dir, b"")
    }
    /// The first thing in which two states differ: which part, which key, and what each says. `None`: equal.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        // Taken apart so that a part that is added is compared too.
        let Self {
            seq,
            cluster,
            geometry,
            epoch,
            epochs,
            incarnations,
            tree,
            inodes,
            chunks,
            owners,
            unnamed,
            writers,
            writing,
            temporary,
            holders,
            sessions,
            nonces,
            roster,
            nodes,
            draining,
            directories,
            bytes,
            tail_lost,
            accepted,
            adopted,
            raising,
            cuts,
            behind,
            unlinked,
            detached,
            detached_entries,
        } = self;
        let found = value("seq", seq, &other.seq)
            .or_else(|| value("cluster", cluster, &other.cluster))
            .or_else(|| value("geometry", geometry, &other.geometry))
            .or_else(|| value("epoch", epoch, &other.epoch))
            .or_else(|| maps("epochs", epochs.iter(), other.epochs.iter()))
            .or_else(|| {
                maps(
                    "incarnations",
                    incarnations.iter(),
                    other.incarnations.iter(),
                )
            })
            .or_else(|| packed("tree", tree.iter(), other.tree.iter()))
            .or_else(|| packed("inodes", inodes.iter(), other.inodes.iter()))
            .or_else(|| packed("chunks", chunks.iter(), other.chunks.iter()))
            .or_else(|| packed("owners", owners.iter(), other.owners.iter()))
            .or_else(|| maps("unnamed", keys(unnamed), keys(&other.unnamed)))
            .or_else(|| packed("writers", writers.iter(), other.writers.iter()))
            .or_else(|| packed("writing", writing.iter(), other.writing.iter()))
            .or_else(|| maps("temporary", temporary.iter(), other.temporary.iter()))
            .or_else(|| maps("holders", holders.iter(), other.holders.iter()))
            .or_else(|| maps("sessions", sessions.iter(), other.sessions.iter()))
            .or_else(|| maps("nonces", nonces.iter(), other.nonces.iter()))
            .or_else(|| maps("roster", roster.iter(), other.roster.iter()))
            .or_else(|| maps("nodes", nodes.iter(), other.nodes.iter()))
            .or_else(|| maps("draining", keys(draining), keys(&other.draining)))
            .or_else(|| value("directories", directories, &other.directories))
            .or_else(|| value("bytes", bytes, &other.bytes))
            .or_else(|| value("tail_lost", tail_lost, &other.tail_lost))
            .or_else(|| value("accepted", accepted, &other.accepted))
            .or_else(|| maps("adopted", adopted.iter(), other.adopted.iter()))
            .or_else(|| maps("raising", raising.iter(), other.raising.iter()))
            .or_else(|| maps("cuts", keys(cuts), keys(&other.cuts)))
            .or_else(|| maps("behind", behind.iter(), other.behind.iter()))
            .or_else(|| maps("unlinked", keys(unlinked), keys(&other.unlinked)))
            .or_else(|| maps("detached", keys(detached), keys(&other.detached)))
            .or_else(|| {
                let (one, two) = (detached_entries, &other.detached_entries);
                value("detached_entries", one, two)
            });
        assert_eq!(found.is_none(), self == other, "every part is compared");
        found
    }

    /// Files without names, which wait until nobody has them open.
    pub fn unlinked(&self) -> impl Iterator<Item = FileId> {
        self.unlinked.iter().copied()
    }
    /// Directories that were removed with what is in them, as far as that was looked into.
    pub fn detached(&self) -> impl Iterator<Item = FileId> {
        self.detached.iter().copied()
    }
    /// Whether a directory is the root, or below it: in a tree that was removed, nothing is to be found.
    pub(crate) fn is_attached(&self, dir: FileId) -> bool {
        let mut at = dir;
        // While no tree is being reclaimed, everything is below the root.
        while !self.detached.is_empty() && at != FileId::ROOT {
            match self.inodes.get(&at).map(|inode| inode.node) {
                Some(Node::Directory { parent, .. }) => at = parent,
                Some(Node::File { .. }) | None => return false,
            }
        }
        true
    }
    /// Whether one record may reclaim all chunks of a file.
    pub(crate) fn is_small(&self, file: FileId) -> bool {
        let all = (file, 0)..=(file, u64::MAX);
        self.chunks.range(all).nth(RECLAIM_BATCH_MAX).is_none()
    }

    /// What proved that this log lost its end, if nobody has accepted that yet.
    #[must_use]
    pub const fn tail_lost(&self) -> Option<&TailLost> {
        self.tail_lost.as_ref()
    }
    /// The newest epoch when it was accepted last that this log lost its end; 0: never.
    #[must_use]
    pub const fn rollback_accepted(&self) -> Epoch {
        self.accepted
    }
    /// Whether this log has lost records that somebody saw durable: those of that epoch up to this one. Gives how
    /// far it has that epoch; 0: not at all. What was lost before a rollback was accepted is known to be.
    pub(crate) fn lost(
        &self,
        (epoch, incarnation): (Epoch, Incarnation),
        seq: LogSeq,
    ) -> Option<LogSeq> {
        if incarnation == Incarnation(0) {
            return None;
        }
        let known = self.incarnations.get(&incarnation) == Some(&epoch);
        let has = if known {
            // An epoch ends where the next one begins; the newest has not ended.
            let mut later = self.epochs.range((Excluded(epoch), Unbounded));
            later
                .next()
                .map_or(self.seq, |(_, next)| LogSeq(next.first_seq.0 - 1))
        } else {
            LogSeq(0)
        };
        let accepted = epoch < self.accepted || (epoch == self.accepted && !known);
        (!accepted && (!known || seq > has)).then_some(has)
    }

    /// The counter that the next id gets.
    pub(crate) fn next_counter(&self) -> u64 {
        self.epochs.get(&self.epoch).map_or(0, |epoch| epoch.issued) + 1
    }
    /// The sizes files are cut into.
    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
            .expect("the first record of a log says the geometry")
    }
    /// The incarnation of the newest epoch.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.epochs
            .get(&self.epoch)
            .map_or(Incarnation(0), |epoch| epoch.incarnation)
    }
    /// Whether some session may write a file: the size and the syncs that the log has of it may grow.
    pub(crate) fn is_written(&self, file: FileId) -> bool {
        self.writers.contains_key(&file)
    }
    /// Whether a session may write a file.
    pub(crate) fn is_writing(&self, session: SessionId) -> bool {
        let of_session = (session, FileId(0))..=(session, FileId(u64::MAX));
        self.writing.range(of_session).next().is_some()
    }
    /// Lets go of a part of a state that is of no use any more, so that this does not take long at once; whether there
    /// is more. Nothing else may be done with it afterwards.
    pub(crate) fn shed(&mut self, mut most: usize) -> bool {
        self.tree.shed(&mut most)
            || self.inodes.shed(&mut most)
            || self.chunks.shed(&mut most)
            || self.owners.shed(&mut most)
            || self.writers.shed(&mut most)
            || self.writing.shed(&mut most)
    }
    /// How many files there are, those without names among them.
    pub(crate) fn files(&self) -> u64 {
        self.inodes.len() as u64 - self.directories
    }
    /// How many bytes of a chunk readers may see: what the file's size gives it, as far as it was synced; and
    /// the last write of that sync. A replica that does not cover it is damaged.
    pub(crate) fn logged(&self, file: FileId, index: u64, chunk: &ChunkState) -> Durable {
        let size = match self.inodes.get(&file).map(|inode| inode.node) {
            Some(Node::File { size, .. }) => size,
            Some(Node::Directory { .. }) | None => 0,
        };
        let synced = chunk.synced.unwrap_or_default();
        let size = if self.is_behind((file, index)) {
            0
        } else {
            size
        };
        Durable {
            len: self.geometry().chunk_len(size, index).min(synced.len),
            ..synced
        }
    }
    /// Whether a chunk is behind the place where its file was cut, or would be, and those are still to go.
    pub(crate) fn is_behind(&self, (file, index): (FileId, u64)) -> bool {
        self.behind.get(&file).is_some_and(|first| index >= *first)
    }
    /// Where the replicas of a chunk are to be cut, if they still are.
    #[must_use]
    pub fn cut(&self, chunk: ChunkId) -> Option<u64> {
        let at = self.owners.get(self.cuts.get(&chunk)?)?;
        Some(self.chunks.get(&at)?.synced?.len)
    }
    /// Files that were cut, with chunks behind that which are still to go.
    pub fn behind(&self) -> impl Iterator<Item = FileId> {
        self.behind.keys().copied()
    }
    /// How many replicas a file asks for.
    pub(crate) fn replication(&self, file: FileId) -> u8 {
        let inode = self.inodes.get(&file);
        inode.map_or(0, |inode| inode.node.replication())
    }
    /// What stands at a path, for who looks at a state from outside.
    ///
    /// # Errors
    /// As a client would be told that asks a meta server in this state.
    pub fn stat(&self, at: &At) -> Result<Attrs, Refusal> {
        super::namespace::stat(self, at)
    }
    /// The entries of a directory after a name, in byte order, in pages of at most
    /// [`crate::limits::LIST_PAGE_MAX`]; and whether these are the last.
    ///
    /// # Errors
    /// As a client would be told that asks a meta server in this state.
    pub fn list(&self, at: &At, after: &[u8]) -> Result<(Vec<Entry>, bool), Refusal> {
        super::namespace::list(self, at, after, u32::MAX)
    }
    /// The attributes of a file or directory.
    #[must_use]
    pub fn attrs(&self, file: FileId) -> Option<Attrs> {
        let inode = self.inodes.get(&file)?;
        let (kind, size, replication, links) = match inode.node {
            Node::File { size, replication } => {
                let links = u32::from(!self.unlinked.contains(&file));
                (Kind::File, size, replication, links)
            }
            Node::Directory {
                entries,
                subdirectories,
                ..
            } => (Kind::Directory, entries, 0, 2 + subdirectories),
        };
        Some(Attrs {
            file,
            kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size,
            replication,
            links,
            mtime: inode.mtime,
            ctime: inode.ctime,
            crtime: inode.crtime,
        })
    }
}

fn holds(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn keys<K: Ord>(set: &OrdSet<K>) -> impl Iterator<Item = (&K, &())> {
    set.iter().map(|key| (key, &()))
}

fn value<V: PartialEq + Debug>(part: &str, left: &V, right: &V) -> Option<String> {
    (left != right).then(|| format!("{part}: {left:?} against {right:?}"))
}

/// As [`packed`], of maps that give what they hold by reference.
fn maps<'a, K: Ord + Debug + 'a, V: PartialEq + Debug + 'a>(
    part: &str,
    left: impl Iterator<Item = (&'a K, &'a V)>,
    right: impl Iterator<Item = (&'a K, &'a V)>,
) -> Option<String> {
    packed(part, left, right)
}

/// The first key, in order, that two maps do not agree on.
fn packed<K: Ord + Debug, V: PartialEq + Debug>(
    part: &str,
    left: impl Iterator<Item = (K, V)>,
    right: impl Iterator<Item = (K, V)>,
) -> Option<String> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let one = left.next_if(|_| order.is_le());
        let other = right.next_if(|_| order.is_ge());
        if one != other {
            let key = one.as_ref().or(other.as_ref()).map(|(key, _)| key);
            let text = |entry: &Option<(K, V)>| match entry {
                Some((_, value)) => format!("{value:?}"),
                None => "nothing".into(),
            };
            return Some(format!(
                "{part}, at {:?}: {} against {}",
                key.expect("one of them is there"),
                text(&one),
                text(&other)
            ));
        }
    }
}
