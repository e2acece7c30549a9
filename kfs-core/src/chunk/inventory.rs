//! What this server has: a small entry per replica, and the tables of those at rest that were read lately.
//!
//! Entries say what is durable: a replica being written has its progress in [`super::write`].
use super::header::Header;
use super::name::{ChunkName, ReplicaId};
use super::read::ReadId;
use crate::buggify::{self, Site};
use crate::ids::{Digest, FileId, Incarnation, LinkId, WriteSeq};
use crate::limits::Geometry;
use crate::probe::{self, Probe};
use crate::wire::chunk_meta::{Content, InventoryItem, ReplicaState};
use crate::wire::client_chunk::Durable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A replica, as its header has it.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub file: FileId,
    pub incarnation: Incarnation,
    pub wseq: WriteSeq,
    /// The committed length in bytes.
    pub len: u64,
    /// Of what is durable.
    pub digest: Digest,
    pub standing: Standing,
    /// Why it takes no pieces, if its chain broke in this process.
    pub broken: Option<Box<Broken>>,
}

/// What may be served of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Found on the disk, and no verdict was heard yet.
    Unconfirmed,
    /// Confirmed by a verdict, or made in this process.
    Served,
    /// It is shorter or older than the log says.
    Damaged,
    /// The meta server does not know it.
    Unknown,
    /// Its header cannot be read, or not any more.
    BadHeader,
}

/// A chain that broke.
#[derive(Clone, Default, Debug)]
pub(super) struct Broken {
    pub why: String,
    /// The link up the chain that was told.
    pub told: Option<LinkId>,
    /// Whether the link to the next server was lost, or it had not yet said that it has everything.
    pub next_lost: bool,
    /// Whether this server's own disk failed it.
    pub failed_here: bool,
}

/// All replicas, by the id that messages use.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory {
    pub replicas: BTreeMap<ReplicaId, Replica>,
    pub tables: Tables,
    /// Files in `chunks/` and `trash/` that are none of ours.
    pub foreign: u64,
}

impl Replica {
    /// As a scan finds it.
    pub(super) fn found(name: ChunkName, header: Option<&Header>, geometry: Geometry) -> Self {
        let (incarnation, wseq, len, digest) = header.map_or_else(Default::default, |header| {
            let digest = header.digest(geometry);
            (header.incarnation, header.wseq, header.len, digest)
        });
        let standing = if header.is_some() {
            Standing::Unconfirmed
        } else {
            Standing::BadHeader
        };
        Self {
            file: name.file,
            incarnation,
            wseq,
            len,
            digest,
            standing,
            broken: None,
        }
    }
    /// How far it is durable.
    pub(super) const fn durable(&self) -> Durable {
        Durable {
            len: self.len,
            wseq: self.wseq,
        }
    }
    /// What it holds, once it is at rest.
    pub(super) const fn content(&self) -> Content {
        Content {
            durable: self.durable(),
            digest: self.digest,
        }
    }
    /// What is said of it, by whether it is being written.
    pub(super) const fn item(&self, id: ReplicaId, whole: ReplicaState) -> InventoryItem {
        let item = InventoryItem {
            file: self.file,
            chunk: id.chunk,
            version: id.version,
            incarnation: self.incarnation,
            wseq: self.wseq,
            len: self.len,
            digest: self.digest,
            state: whole,
        };
        match self.standing {
            Standing::BadHeader => InventoryItem {
                incarnation: Incarnation(0),
                wseq: WriteSeq(0),
                len: 0,
                digest: Digest(0),
                state: ReplicaState::BadHeader,
                ..item
            },
            Standing::Unconfirmed | Standing::Served | Standing::Damaged | Standing::Unknown => {
                item
            }
        }
    }
}

impl Inventory {
    pub(super) fn new(tables_max: usize) -> Self {
        Self {
            tables: Tables {
                max: tables_max,
                ..Tables::default()
            },
            ..Self::default()
        }
    }
    /// All names, sorted as an inventory is said.
    pub(super) fn names(&self) -> Vec<ChunkName> {
        let mut names: Vec<_> = self
            .replicas
            .iter()
            .map(|(id, replica)| id.of(replica.file))
            .collect();
        names.sort_unstable();
        names
    }
}

/// Headers of replicas at rest: those used lately, and those being read.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    max: usize,
    loaded: BTreeMap<ReplicaId, (Arc<Header>, u64)>,
    /// By last use, to forget the one not used for longest.
    used: BTreeMap<u64, ReplicaId>,
    uses: u64,
    loading: BTreeMap<ReplicaId, Loading>,
    /// The replica whose table nobody but the scrub has asked for.
    unwanted: Option<ReplicaId>,
}

/// A header that is being read.
#[derive(Clone, Debug)]
struct Loading {
    waiting: Vec<ReadId>,
    /// Whether the replica has changed since.
    stale: bool,
}

/// What [`Tables::get`] has.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    Loaded(Arc<Header>),
    /// It is being loaded; the read is noted.
    Loading,
    /// It is not there: load it, the read is noted.
    Load,
}

impl Tables {
    pub(super) fn get(&mut self, id: ReplicaId, read: ReadId) -> Lookup {
        if let Some((header, use_no)) = self.loaded.get_mut(&id) {
            self.used.remove(use_no);
            self.uses += 1;
            *use_no = self.uses;
            self.used.insert(self.uses, id);
            return Lookup::Loaded(Arc::clone(header));
        }
        if let Some(loading) = self.loading.get_mut(&id) {
            loading.waiting.push(read);
            return Lookup::Loading;
        }
        let (waiting, stale) = (vec![read], false);
        self.loading.insert(id, Loading { waiting, stale });
        Lookup::Load
    }
    /// The scrub begins with a replica: the header is read anew, as it may have rotted since. If nobody has its table
    /// now, it is not kept afterwards, as it would push out those that are used.
    pub(super) fn scrub_begins(&mut self, id: ReplicaId) {
        let is_unwanted = !self.has(id);
        self.unwanted = is_unwanted.then_some(id);
        self.drop_loaded(id);
    }
    /// The scrub has done with it.
    pub(super) fn scrub_ends(&mut self, id: ReplicaId) {
        if self.unwanted.take() == Some(id) {
            self.drop_loaded(id);
        }
    }
    /// Somebody reads it.
    pub(super) fn is_wanted(&mut self, id: ReplicaId) {
        if self.unwanted == Some(id) {
            self.unwanted = None;
        }
    }
    /// Whether this read waits for the header.
    pub(super) fn is_waited_for(&self, id: ReplicaId, read: ReadId) -> bool {
        let loading = self.loading.get(&id);
        loading.is_some_and(|loading| loading.waiting.contains(&read))
    }
    /// Whether the replica has changed since its header began to be read. Asked once, when that has come.
    pub(super) fn is_stale(&mut self, id: ReplicaId) -> bool {
        let loading = self.loading.get_mut(&id);
        loading.is_some_and(|loading| core::mem::replace(&mut loading.stale, false))
    }
    /// Whether a read of the replica needs nothing of the disk to have the header: it is there, or on its way.
    pub(super) fn has(&self, id: ReplicaId) -> bool {
        self.loaded.contains_key(&id) || self.loading.contains_key(&id)
    }
    /// These reads are gone: none of them waits any more.
    pub(super) fn lost(&mut self, reads: &BTreeSet<ReadId>) {
        for loading in self.loading.values_mut() {
            loading.waiting.retain(|read| !reads.contains(read));
        }
    }
    /// The load ended: keeps the table if there is one, and gives who waited.
    pub(super) fn loaded(&mut self, id: ReplicaId, header: Option<Arc<Header>>) -> Vec<ReadId> {
        let loading = self.loading.remove(&id);
        if let Some(header) = header {
            self.drop_loaded(id);
            self.uses += 1;
            self.loaded.insert(id, (header, self.uses));
            self.used.insert(self.uses, id);
            let max = if buggify::is(Site::TablesOfOne) {
                1
            } else {
                self.max.max(1)
            };
            while self.loaded.len() > max {
                probe::hit(Probe::TableEvicted);
                let (_, oldest) = self
                    .used
                    .pop_first()
                    .expect("each table loaded has a last use");
                self.loaded.remove(&oldest);
            }
            assert_eq!(
                self.loaded.len(),
                self.used.len(),
                "one last use for each table"
            );
        }
        loading.map_or_else(Vec::new, |loading| loading.waiting)
    }
    /// Headers in memory, and headers being read.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.loaded.len(), self.loading.len())
    }
    /// The replica changed, or is gone.
    pub(super) fn forget(&mut self, id: ReplicaId) {
        self.drop_loaded(id);
        if let Some(loading) = self.loading.get_mut(&id) {
            loading.stale = true;
        }
    }
    fn drop_loaded(&mut self, id: ReplicaId) {
        if let Some((_, use_no)) = self.loaded.remove(&id) {
            self.used.remove(&use_no);
        }
    }
}
