//! Everything the log determines, and nothing else: two meta servers that applied the same records are equal.
//!
//! The maps are persistent, so a snapshot is cheap. Knows no links, no time and no randomness; what is known
//! only from chunkservers that said hello is in [`super::roster`] and [`super::chunkmap`].
use super::key::Key;
use super::record::Logged;
use super::tree::Tree;
use crate::ids::{
    Boot, ChunkId, ClusterId, Epoch, FileId, Incarnation, Instance, LogSeq, NodeId, RequestNumber,
    ServerIndex, SessionId, Version,
};
use crate::limits::Geometry;
use crate::time::UnixNanos;
use crate::wire::client_meta::{Attrs, Done, Kind};
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
    pub(crate) inodes: OrdMap<FileId, Inode>,
    /// The chunks of files by their index.
    pub(crate) chunks: OrdMap<(FileId, u64), ChunkState>,
    /// Whose each chunk is.
    pub(crate) owners: OrdMap<ChunkId, (FileId, u64)>,
    /// Chunks that no size report has named yet.
    pub(crate) unnamed: OrdSet<(FileId, u64)>,
    /// Which session may write a file.
    pub(crate) writers: OrdMap<FileId, SessionId>,
    pub(crate) writing: OrdSet<(SessionId, FileId)>,
    /// Files that are removed if their session ends before they are renamed.
    pub(crate) temporary: OrdMap<(SessionId, FileId), Key>,
    /// Whose temporary file it is.
    pub(crate) holders: OrdMap<FileId, SessionId>,
    pub(crate) sessions: OrdMap<SessionId, SessionState>,
    pub(crate) nonces: OrdMap<u64, SessionId>,
    pub(crate) roster: OrdMap<ServerIndex, Server>,
    pub(crate) nodes: OrdMap<NodeId, ServerIndex>,
    pub(crate) directories: u64,
    /// Of all files, as their sizes say.
    pub(crate) bytes: u64,
}

/// One epoch.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct EpochState {
    pub(crate) incarnation: Incarnation,
    pub(crate) first_seq: LogSeq,
    /// The highest counter of an id issued in it; 0: none.
    pub(crate) issued: u64,
}

/// A file or directory, but for its name.
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug)]
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

/// A chunk of a file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ChunkState {
    pub(crate) chunk: ChunkId,
    pub(crate) version: Version,
    /// The chain, head first.
    pub(crate) members: Arc<[ServerIndex]>,
    /// Which request of the file's writer made it: if that one is asked again, nobody was told of it.
    pub(crate) opened_by: RequestNumber,
    /// How far size reports say it is synced; `None` before one has named it.
    pub(crate) synced: Option<u64>,
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
        Self {
            seq: LogSeq(0),
            cluster: ClusterId(0),
            geometry: None,
            epoch: Epoch(0),
            epochs: OrdMap::new(),
            incarnations: OrdMap::new(),
            tree: Tree::default(),
            inodes: OrdMap::unit(FileId::ROOT, root),
            chunks: OrdMap::new(),
            owners: OrdMap::new(),
            unnamed: OrdSet::new(),
            writers: OrdMap::new(),
            writing: OrdSet::new(),
            temporary: OrdMap::new(),
            holders: OrdMap::new(),
            sessions: OrdMap::new(),
            nonces: OrdMap::new(),
            roster: OrdMap::new(),
            nodes: OrdMap::new(),
            directories: 1,
            bytes: 0,
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
        let mut entries = OrdMap::<FileId, (u64, u32)>::new();
        let mut bytes = 0;
        for (id, inode) in &self.inodes {
            match inode.node {
                Node::File { size, .. } => bytes += size,
                Node::Directory { parent, .. } => {
                    let parent = self
                        .inodes
                        .get(&parent)
                        .expect("a directory's parent is there");
                    assert!(
                        matches!(parent.node, Node::Directory { .. }),
                        "a directory stands in a directory"
                    );
                    for (_, file) in self.tree.after(*id, b"") {
                        let (count, subdirectories) = entries.entry(*id).or_insert((0, 0));
                        *count += 1;
                        let child = self.inodes.get(&file).expect("a name stands for something");
                        if let Node::Directory { parent, .. } = child.node {
                            assert_eq!(parent, *id, "a directory knows its parent");
                            *subdirectories += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(bytes, self.bytes);
        assert_eq!(
            self.inodes.len(),
            self.tree.len() + 1,
            "everything but the root has one name"
        );
        for (id, inode) in &self.inodes {
            if let Node::Directory {
                entries: counted,
                subdirectories,
                ..
            } = inode.node
            {
                let found = entries.get(id).copied().unwrap_or((0, 0));
                assert_eq!(
                    (counted, subdirectories),
                    found,
                    "a directory counts its entries"
                );
                assert!(self.climbs_to_root(*id), "no directory is in itself");
            }
        }
        assert_eq!(self.chunks.len(), self.owners.len());
        for ((file, index), chunk) in &self.chunks {
            assert_eq!(
                self.owners.get(&chunk.chunk),
                Some(&(*file, *index)),
                "chunks and owners agree"
            );
            assert!(self.inodes.contains_key(file), "a chunk's file is there");
            assert_eq!(
                self.unnamed.contains(&(*file, *index)),
                chunk.synced.is_none()
            );
        }
        assert_eq!(self.writers.len(), self.writing.len());
        for (file, session) in &self.writers {
            assert!(self.inodes.contains_key(file) && self.sessions.contains_key(session));
            assert!(self.writing.contains(&(*session, *file)));
        }
        assert_eq!(self.temporary.len(), self.holders.len());
        for ((session, file), key) in &self.temporary {
            assert_eq!(self.holders.get(file), Some(session));
            assert!(self.sessions.contains_key(session));
            assert_eq!(
                self.tree.get(key),
                Some(*file),
                "a temporary file has the name it was made with"
            );
        }
    }
    fn climbs_to_root(&self, from: FileId) -> bool {
        let mut at = from;
        for _ in 0..=self.inodes.len() {
            if at == FileId::ROOT {
                return true;
            }
            match self.inodes.get(&at).map(|inode| &inode.node) {
                Some(Node::Directory { parent, .. }) => at = *parent,
                Some(Node::File { .. }) | None => return false,
            }
        }
        false
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
    /// Whether a session may write a file.
    pub(crate) fn is_writing(&self, session: SessionId) -> bool {
        let of_session = (session, FileId(0))..=(session, FileId(u64::MAX));
        self.writing.range(of_session).next().is_some()
    }
    /// How many files there are.
    pub(crate) fn files(&self) -> u64 {
        self.inodes.len() as u64 - self.directories
    }
    /// How many bytes of a chunk readers may see: what the file's size gives it, as far as it was synced.
    pub(crate) fn log_len(&self, file: FileId, index: u64, chunk: &ChunkState) -> u64 {
        let size = match self.inodes.get(&file).map(|inode| &inode.node) {
            Some(Node::File { size, .. }) => *size,
            Some(Node::Directory { .. }) | None => 0,
        };
        self.geometry()
            .chunk_len(size, index)
            .min(chunk.synced.unwrap_or(0))
    }
    /// How many replicas a file asks for.
    pub(crate) fn replication(&self, file: FileId) -> u8 {
        match self.inodes.get(&file).map(|inode| &inode.node) {
            Some(Node::File { replication, .. }) => *replication,
            Some(Node::Directory { .. }) | None => 0,
        }
    }
    /// The attributes of a file or directory.
    pub(crate) fn attrs(&self, file: FileId) -> Option<Attrs> {
        let inode = self.inodes.get(&file)?;
        let (kind, size, replication, links) = match inode.node {
            Node::File { size, replication } => (Kind::File, size, replication, 1),
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
