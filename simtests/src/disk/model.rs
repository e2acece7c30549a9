//! The file system of one node: live contents as processes see them, durable contents, and between the two
//! the pending operations in their order.
//!
//! It never sleeps and never draws a number by itself: a value, tested on plain threads. A clone shares all
//! that neither has changed since, so a simulation may be forked at every operation. What goes wrong while it
//! runs stands in [`faults`](super::faults), what a power loss leaves in [`crash`](super::crash).
use super::faults::Faults;
use super::image::{Image, Recipe};
use crate::keyed::mix;
use bytes::{Bytes, BytesMut};
use imbl::OrdMap;
use kfs_core::machine::{DirEntry, DiskDone, DiskError, DiskOp, DiskResult, FileName, SyncMode};
use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// The unit in which a page cache writes back.
pub const PAGE_BYTES: usize = 4_096;

/// A file apart from its names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Inode(pub(super) u64);

/// What a path stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Dir,
    File(Inode),
}

/// What is removed of these is archived.
const ARCHIVED: &str = "log/log.";

pub(super) type Names = OrdMap<Arc<str>, Entry>;

/// A change of data or length that no sync has covered.
#[derive(Clone, Debug)]
pub(super) struct DataOp {
    /// Its place in the order of all operations of the disk.
    pub(super) order: u64,
    pub(super) change: Change,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, data: Bytes },
    SetLen(usize),
}

/// A change of names that no sync of its directory has covered.
#[derive(Clone, Debug)]
pub(super) struct NameOp {
    pub(super) order: u64,
    pub(super) change: NameChange,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    MakeDir {
        dir: Arc<str>,
    },
    Link {
        path: Arc<str>,
        inode: Inode,
    },
    Rename {
        from: Arc<str>,
        to: Arc<str>,
        inode: Inode,
    },
    Unlink {
        path: Arc<str>,
        inode: Inode,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// As processes see it.
    pub(super) live: Image,
    /// As the medium holds it.
    pub(super) durable: Image,
    /// As the cache holds it below the pending operations, where a sync let that differ from `durable`.
    pub(super) beneath: Option<Image>,
    /// What is in the first and not in the second.
    pub(super) pending: Vec<DataOp>,
}

/// All files and names as they were at one moment.
#[derive(Clone, Debug)]
struct Past {
    files: OrdMap<Inode, Arc<File>>,
    names: Names,
}

/// Which of the moments that a disk remembers, the first one being 0.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct Moment(pub usize);

/// One node's file system.
#[derive(Clone, Debug)]
pub struct DiskModel {
    pub(super) files: OrdMap<Inode, Arc<File>>,
    pub(super) names: Names,
    pub(super) durable_names: Names,
    pub(super) pending_names: Vec<NameOp>,
    pub(super) faults: Faults,
    past: Vec<Arc<Past>>,
    bytes_total: u64,
    bytes_used: u64,
    /// Files without a name, some of which a crash could give one.
    unlinked: usize,
    /// Of a rename between directories a crash may leave both names: a file for each name too many.
    twins: Vec<Inode>,
    /// Segments of a log that were removed, with what was in them: what an archive would have.
    archived: OrdMap<Arc<str>, Bytes>,
    next_inode: u64,
    next_order: u64,
}

impl DiskModel {
    /// An empty data directory on a disk of so many bytes.
    #[must_use]
    pub fn new(bytes_total: u64) -> Self {
        Self {
            files: OrdMap::new(),
            names: Names::new(),
            durable_names: Names::new(),
            pending_names: Vec::new(),
            faults: Faults::default(),
            past: Vec::new(),
            bytes_total,
            bytes_used: 0,
            unlinked: 0,
            twins: Vec::new(),
            archived: OrdMap::new(),
            next_inode: 1,
            next_order: 1,
        }
    }

    /// Carries out one operation, whole and at once, unless a fault is in its way.
    ///
    /// # Errors
    /// As a file system would.
    pub fn apply(&mut self, op: &DiskOp) -> DiskResult {
        if self.faults.are_none() {
            self.obey(op)
        } else {
            self.suffer(op)
        }
    }

    /// The live bytes of a file, for oracles.
    #[must_use]
    pub fn contents(&self, path: &str) -> Option<Bytes> {
        self.file(path).map(|file| file.live.read(0..usize::MAX))
    }
    /// The bytes that a power loss now could not take from a file whose name survives it.
    #[must_use]
    pub fn durable_contents(&self, path: &str) -> Option<Bytes> {
        self.file(path).map(|file| file.durable.read(0..usize::MAX))
    }
    /// Segments of a log that were removed, with what was in them: some of them may be there again.
    pub fn archived(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.archived.iter().map(|(path, bytes)| (&**path, bytes))
    }
    /// These segments of a log were removed before.
    pub fn archive<'a>(&mut self, removed: impl Iterator<Item = (&'a str, &'a Bytes)>) {
        self.archived
            .extend(removed.map(|(path, bytes)| (Arc::from(path), bytes.clone())));
    }
    /// The paths of all files there are now.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.lengths().map(|(path, _)| path)
    }
    /// The paths of all files there are now, with their lengths in bytes.
    pub fn lengths(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().filter_map(|(path, entry)| match entry {
            Entry::File(inode) => Some((&**path, self.files[inode].live.len() as u64)),
            Entry::Dir => None,
        })
    }
    /// Operations that a power loss now could drop.
    #[must_use]
    pub fn pending(&self) -> usize {
        let data: usize = self.files.values().map(|file| file.pending.len()).sum();
        data + self.pending_names.len()
    }
    /// Of names, lengths and bytes as processes see them. Cheap if little changed since the last time.
    #[must_use]
    pub fn live_hash(&self) -> u64 {
        self.hash(&self.names, |file| &file.live)
    }
    /// Of names, lengths and bytes as a power loss now would leave them if it took all that is pending.
    #[must_use]
    pub fn durable_hash(&self) -> u64 {
        self.hash(&self.durable_names, |file| &file.durable)
    }

    /// Puts a file there, durable with its name and its directories, in place of what has the name. Its bytes
    /// take no memory before somebody changes them.
    pub fn place(&mut self, path: &str, recipe: Recipe) {
        let mut dir = parent(path);
        while !dir.is_empty() {
            self.names.insert(dir.into(), Entry::Dir);
            self.durable_names.insert(dir.into(), Entry::Dir);
            dir = parent(dir);
        }
        if let Some(Entry::File(replaced)) = self.names.get(path) {
            self.free(*replaced);
        }
        self.bytes_used += recipe.len as u64;
        let image = Image::made_by(recipe);
        let inode = self.add(File {
            live: image.clone(),
            durable: image,
            ..File::default()
        });
        let path: Arc<str> = path.into();
        self.names.insert(Arc::clone(&path), Entry::File(inode));
        self.durable_names.insert(path, Entry::File(inode));
    }

    /// Remembers all files as processes see them now, for a fault that brings them back.
    pub fn remember(&mut self) -> Moment {
        self.past.push(Arc::new(Past {
            files: self.files.clone(),
            names: self.names.clone(),
        }));
        Moment(self.past.len() - 1)
    }

    /// How many moments it remembers.
    #[must_use]
    pub fn moments(&self) -> usize {
        self.past.len()
    }

    /// Carries out one operation.
    pub(super) fn obey(&mut self, op: &DiskOp) -> DiskResult {
        match op {
            DiskOp::List { dir } => self.list(dir).map(DiskDone::Entries),
            DiskOp::MakeDir { dir } => self.make_dir(dir).map(|()| DiskDone::Done),
            DiskOp::Create { file, zeroed } => self.create(file, *zeroed).map(|()| DiskDone::Done),
            DiskOp::Write {
                file,
                offset,
                data,
                sync,
            } => {
                let inode = self.inode(file)?;
                self.write(inode, to_usize(*offset), joined(data))?;
                if *sync == SyncMode::Now {
                    self.file_mut(inode).sync();
                }
                Ok(DiskDone::Done)
            }
            DiskOp::Read { file, offset, len } => {
                let live = &self.files[&self.inode(file)?].live;
                let from = to_usize(*offset);
                Ok(DiskDone::Data(live.read(from..from.saturating_add(*len))))
            }
            DiskOp::Sync { file } => {
                let inode = self.inode(file)?;
                self.file_mut(inode).sync();
                Ok(DiskDone::Done)
            }
            DiskOp::SyncDir { dir } => self.sync_dir(dir).map(|()| DiskDone::Done),
            DiskOp::SyncAll { dir } => {
                let within = self.names.iter().filter_map(|(path, entry)| match entry {
                    Entry::File(inode) if parent(path) == dir.as_str() => Some(*inode),
                    Entry::File(_) | Entry::Dir => None,
                });
                for inode in within.collect::<Vec<_>>() {
                    self.file_mut(inode).sync();
                }
                self.sync_dir(dir).map(|()| DiskDone::Done)
            }
            DiskOp::Rename { from, to } => self.rename(from, to).map(|()| DiskDone::Done),
            DiskOp::Remove { file } => self.remove(file).map(|()| DiskDone::Done),
            DiskOp::Truncate { file, len } => {
                let inode = self.inode(file)?;
                self.set_len(inode, to_usize(*len))?;
                Ok(DiskDone::Done)
            }
            DiskOp::Space => Ok(DiskDone::Space {
                bytes_free: self.room().saturating_sub(self.bytes_used),
                bytes_total: self.bytes_total,
            }),
        }
    }

    fn list(&self, dir: &FileName) -> Result<Vec<DirEntry>, DiskError> {
        self.must_be_dir(dir.as_str())?;
        let below = match dir.as_str() {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let from = (Bound::Included(&*below), Bound::Unbounded);
        let inside = self.names.range::<_, str>(from);
        Ok(inside
            .take_while(|(path, _)| path.starts_with(&below))
            .filter(|(path, _)| parent(path) == dir.as_str())
            .map(|(path, entry)| match entry {
                Entry::Dir => DirEntry {
                    name: base(path).into(),
                    len: 0,
                    is_file: false,
                },
                Entry::File(inode) => DirEntry {
                    name: base(path).into(),
                    len: self.files[inode].live.len() as u64,
                    is_file: true,
                },
            })
            .collect())
    }

    fn make_dir(&mut self, dir: &FileName) -> Result<(), DiskError> {
        self.must_be_dir(dir.dir())?;
        match self.names.get(dir.as_str()) {
            Some(Entry::Dir) => return Ok(()),
            Some(Entry::File(_)) => return Err(DiskError::Exists),
            None => {}
        }
        let dir: Arc<str> = dir.as_str().into();
        self.names.insert(Arc::clone(&dir), Entry::Dir);
        self.name_op(NameChange::MakeDir { dir });
        Ok(())
    }

    fn create(&mut self, file: &FileName, zeroed: u64) -> Result<(), DiskError> {
        self.must_be_dir(file.dir())?;
        if self.names.contains_key(file.as_str()) {
            return Err(DiskError::Exists);
        }
        if zeroed > 0 && self.bytes_used + zeroed > self.room() {
            return Err(DiskError::NoSpace);
        }
        let inode = self.add(File::default());
        let path: Arc<str> = file.as_str().into();
        self.names.insert(Arc::clone(&path), Entry::File(inode));
        self.name_op(NameChange::Link { path, inode });
        if zeroed > 0 {
            self.write(inode, 0, zeros(to_usize(zeroed)))?;
        }
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        inode: Inode,
        offset: usize,
        data: Bytes,
    ) -> Result<(), DiskError> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset + data.len();
        let (room, order) = (self.room(), self.next_order);
        let (files, used) = (&mut self.files, &mut self.bytes_used);
        let file = Arc::make_mut(files.get_mut(&inode).expect("a name has its file"));
        let grown = end.saturating_sub(file.live.len()) as u64;
        if grown > 0 && *used + grown > room {
            return Err(DiskError::NoSpace);
        }
        *used += grown;
        let change = Change::Write { offset, data };
        change.apply(&mut file.live);
        file.pending.push(DataOp { order, change });
        self.next_order += 1;
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: Inode, len: usize) -> Result<(), DiskError> {
        let (room, order) = (self.room(), self.next_order);
        let file = Arc::make_mut(self.files.get_mut(&inode).expect("a name has its file"));
        let used = self.bytes_used - file.live.len() as u64 + len as u64;
        if len > file.live.len() && used > room {
            return Err(DiskError::NoSpace);
        }
        self.bytes_used = used;
        file.live.set_len(len);
        file.pending.push(DataOp {
            order,
            change: Change::SetLen(len),
        });
        self.next_order += 1;
        Ok(())
    }

    fn sync_dir(&mut self, dir: &FileName) -> Result<(), DiskError> {
        let dir = dir.as_str();
        self.must_be_dir(dir)?;
        let mut still_pending = Vec::new();
        for op in std::mem::take(&mut self.pending_names) {
            match &op.change {
                NameChange::Rename { from, to, inode }
                    if parent(to) == dir && parent(from) != dir =>
                {
                    // The new name is durable; that the old one is gone is certain with its directory's sync.
                    self.durable_names
                        .insert(Arc::clone(to), Entry::File(*inode));
                    let change = NameChange::Unlink {
                        path: Arc::clone(from),
                        inode: *inode,
                    };
                    still_pending.push(NameOp {
                        order: op.order,
                        change,
                    });
                }
                change if change.dir() == dir || change.other_dir() == Some(dir) => {
                    change.apply(&mut self.durable_names);
                }
                _ => still_pending.push(op),
            }
        }
        self.pending_names = still_pending;
        self.drop_nameless();
        Ok(())
    }

    fn rename(&mut self, from: &FileName, to: &FileName) -> Result<(), DiskError> {
        let inode = self.inode(from)?;
        self.must_be_dir(to.dir())?;
        if from == to {
            return Ok(());
        }
        match self.names.get(to.as_str()) {
            Some(Entry::Dir) => return Err(DiskError::Io("is a directory".into())),
            // Two names of one file: both stay, says POSIX.
            Some(Entry::File(replaced)) if *replaced == inode => return Ok(()),
            Some(Entry::File(replaced)) => self.free(*replaced),
            None => {}
        }
        let (from, to): (Arc<str>, Arc<str>) = (from.as_str().into(), to.as_str().into());
        self.names.remove(&from);
        self.names.insert(Arc::clone(&to), Entry::File(inode));
        self.name_op(NameChange::Rename { from, to, inode });
        Ok(())
    }

    fn remove(&mut self, file: &FileName) -> Result<(), DiskError> {
        let inode = self.inode(file)?;
        let path: Arc<str> = file.as_str().into();
        if path.starts_with(ARCHIVED) {
            let bytes = self.files[&inode].live.read(0..usize::MAX);
            self.archived.insert(Arc::clone(&path), bytes);
        }
        self.names.remove(&path);
        self.free(inode);
        self.name_op(NameChange::Unlink { path, inode });
        Ok(())
    }

    /// A file lost a name: gives back its room if it was the last one. Its contents stay, since a crash may bring its name back.
    fn free(&mut self, inode: Inode) {
        if let Some(nth) = self.twins.iter().position(|twin| *twin == inode) {
            self.twins.remove(nth);
            return;
        }
        self.bytes_used -= self.files[&inode].live.len() as u64;
        self.unlinked += 1;
    }

    /// Forgets files that no crash can give a name. Looks for them rarely, as the look is at all files.
    fn drop_nameless(&mut self) {
        if self.unlinked < 16 + self.files.len() / 4 {
            return;
        }
        let pending = self.pending_names.iter().filter_map(|op| match op.change {
            NameChange::MakeDir { .. } => None,
            NameChange::Link { inode, .. }
            | NameChange::Rename { inode, .. }
            | NameChange::Unlink { inode, .. } => Some(inode),
        });
        let mut named: BTreeSet<Inode> = pending.collect();
        named.extend(inodes(&self.names));
        named.extend(inodes(&self.durable_names));
        self.keep_files(&named);
        self.unlinked = self.files.len() + self.twins.len() - inodes(&self.names).count();
    }

    /// The same where names are as certain as they will ever be.
    fn drop_all_nameless(&mut self) {
        let mut named = BTreeSet::new();
        self.twins = inodes(&self.names)
            .filter(|inode| !named.insert(*inode))
            .collect();
        self.unlinked = 0;
        self.keep_files(&named);
    }

    fn keep_files(&mut self, named: &BTreeSet<Inode>) {
        let nameless = self.files.keys().filter(|inode| !named.contains(inode));
        for inode in nameless.copied().collect::<Vec<_>>() {
            self.files.remove(&inode);
        }
    }

    /// After a crash: what is durable is all there is.
    pub(super) fn restart(&mut self) {
        if !self.pending_names.is_empty() || self.unlinked > 0 {
            self.pending_names.clear();
            let lost: Vec<Arc<str>> = self
                .durable_names
                .keys()
                .filter(|path| !reachable(&self.durable_names, path))
                .cloned()
                .collect();
            for path in lost {
                self.durable_names.remove(&path);
            }
            self.names.clone_from(&self.durable_names);
            self.drop_all_nameless();
        }
        let changed: Vec<Inode> = self
            .files
            .iter()
            .filter(|(_, file)| !file.pending.is_empty() || file.beneath.is_some())
            .map(|(inode, _)| *inode)
            .collect();
        for inode in changed {
            let file = self.file_mut(inode);
            file.pending.clear();
            file.beneath = None;
            file.live = file.durable.clone();
        }
        self.count_used();
    }

    /// All files and names as they were once, all of it durable. Gives whether it remembers that moment.
    pub(super) fn restore(&mut self, moment: Moment) -> Option<()> {
        let past = Arc::clone(self.past.get(moment.0)?);
        self.files = past.files.clone();
        self.names = past.names.clone();
        self.settle();
        Some(())
    }

    /// No files, as a disk fresh from the shop.
    pub(super) fn wipe(&mut self) {
        self.files = OrdMap::new();
        self.names = Names::new();
        self.settle();
    }

    /// What the two disks hold, and what they remember, changes places; their faults stay where they are.
    pub(super) fn exchange(&mut self, other: &mut Self) {
        std::mem::swap(self, other);
        std::mem::swap(&mut self.faults, &mut other.faults);
    }

    /// A file's bytes at a moment, by its path of then.
    pub(super) fn earlier(&self, moment: Moment, path: &str) -> Option<Image> {
        let past = self.past.get(moment.0)?;
        match past.names.get(path)? {
            Entry::File(inode) => Some(past.files[inode].live.clone()),
            Entry::Dir => None,
        }
    }

    /// All that processes see is durable.
    fn settle(&mut self) {
        self.durable_names.clone_from(&self.names);
        self.pending_names.clear();
        self.drop_all_nameless();
        for inode in self.files.keys().copied().collect::<Vec<_>>() {
            let file = &self.files[&inode];
            if file.pending.is_empty() && file.beneath.is_none() {
                continue;
            }
            let file = self.file_mut(inode);
            file.pending.clear();
            file.beneath = None;
            file.durable = file.live.clone();
        }
        self.count_used();
    }

    fn count_used(&mut self) {
        let lens = self.files.values().map(|file| file.live.len() as u64);
        self.bytes_used = lens.sum();
    }

    /// Bytes that files may take.
    fn room(&self) -> u64 {
        let limit = self.faults.room_bytes.unwrap_or(u64::MAX);
        self.bytes_total.min(limit)
    }

    fn add(&mut self, file: File) -> Inode {
        let inode = Inode(self.next_inode);
        self.next_inode += 1;
        self.files.insert(inode, Arc::new(file));
        inode
    }
    fn file(&self, path: &str) -> Option<&File> {
        match self.names.get(path)? {
            Entry::File(inode) => Some(&self.files[inode]),
            Entry::Dir => None,
        }
    }
    pub(super) fn file_mut(&mut self, inode: Inode) -> &mut File {
        Arc::make_mut(self.files.get_mut(&inode).expect("a name has its file"))
    }
    pub(super) fn inode(&self, file: &FileName) -> Result<Inode, DiskError> {
        match self.names.get(file.as_str()) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Dir) => Err(DiskError::Io("is a directory".into())),
            None => Err(DiskError::NotFound),
        }
    }
    fn must_be_dir(&self, dir: &str) -> Result<(), DiskError> {
        if dir.is_empty() || self.names.get(dir) == Some(&Entry::Dir) {
            Ok(())
        } else {
            Err(DiskError::NotFound)
        }
    }
    fn name_op(&mut self, change: NameChange) {
        self.pending_names.push(NameOp {
            order: self.next_order,
            change,
        });
        self.next_order += 1;
    }
    fn hash(&self, names: &Names, image: fn(&File) -> &Image) -> u64 {
        let mut hash = 0;
        for (path, entry) in names {
            if !reachable(names, path) {
                continue;
            }
            let held = match entry {
                Entry::Dir => 1,
                Entry::File(inode) => image(&self.files[inode]).hash(),
            };
            hash = mix(mix(hash ^ hash_of_path(path)) ^ held);
        }
        hash
    }
}

impl File {
    /// The cache writes back what is dirty: of each page that was written to, all that it holds.
    pub(super) fn sync(&mut self) {
        for op in &self.pending {
            match &op.change {
                Change::Write { offset, data } => self.durable.grow(offset + data.len()),
                Change::SetLen(len) => self.durable.set_len(*len),
            }
        }
        for op in std::mem::take(&mut self.pending) {
            let Change::Write { offset, data } = op.change else {
                continue;
            };
            let to = (offset + data.len()).next_multiple_of(PAGE_BYTES);
            let from = offset - offset % PAGE_BYTES;
            let dirty: Range<usize> = from..to.min(self.live.len());
            self.durable.copy(&self.live, dirty);
        }
        if self.beneath.take().is_some() && self.durable != self.live {
            self.beneath = Some(self.live.clone());
        }
        debug_assert!(
            self.beneath.is_some() || self.durable == self.live,
            "all changes were pending"
        );
    }

    /// The cache takes all of it for written back, and none is.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.beneath = Some(self.live.clone());
    }
}

impl Change {
    pub(super) fn apply(&self, to: &mut Image) {
        match self {
            Self::Write { offset, data } => to.write(*offset, data),
            Self::SetLen(len) => to.set_len(*len),
        }
    }
}

impl NameChange {
    /// The directory whose sync makes it durable.
    pub(super) fn dir(&self) -> &str {
        match self {
            Self::MakeDir { dir } => parent(dir),
            Self::Link { path, .. } | Self::Unlink { path, .. } => parent(path),
            Self::Rename { to, .. } => parent(to),
        }
    }
    /// The second directory of a rename.
    fn other_dir(&self) -> Option<&str> {
        match self {
            Self::Rename { from, .. } => Some(parent(from)),
            Self::MakeDir { .. } | Self::Link { .. } | Self::Unlink { .. } => None,
        }
    }
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::MakeDir { dir } => {
                names.insert(Arc::clone(dir), Entry::Dir);
            }
            Self::Link { path, inode } => {
                names.insert(Arc::clone(path), Entry::File(*inode));
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(&Entry::File(*inode)) {
                    names.remove(from);
                }
                names.insert(Arc::clone(to), Entry::File(*inode));
            }
            Self::Unlink { path, inode } => {
                if names.get(path) == Some(&Entry::File(*inode)) {
                    names.remove(path);
                }
            }
        }
    }
}

/// Whether all directories above a path are there.
pub(super) fn reachable(names: &Names, path: &str) -> bool {
    let dir = parent(path);
    dir.is_empty() || (names.get(dir) == Some(&Entry::Dir) && reachable(names, dir))
}
pub(super) fn inodes(names: &Names) -> impl Iterator<Item = Inode> {
    names.values().filter_map(|entry| match entry {
        Entry::File(inode) => Some(*inode),
        Entry::Dir => None,
    })
}
pub(super) fn hash_of_path(path: &str) -> u64 {
    let bytes = path.bytes();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}
pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated disks fit in memory")
}
fn zeros(len: usize) -> Bytes {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    match ZEROS.get(..len) {
        Some(zeros) => Bytes::from_static(zeros),
        None => Bytes::from(vec![0; len]),
    }
}
pub(super) fn joined(data: &[Bytes]) -> Bytes {
    if let [one] = data {
        return one.clone();
    }
    let mut all = BytesMut::new();
    for part in data {
        all.extend_from_slice(part);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Policy;
    use crate::keyed::Keyed;
    use std::fs;
    use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The same operation on a real directory.
    fn really(root: &Path, op: &DiskOp) -> DiskResult {
        let at = |name: &FileName| root.join(name.as_str());
        let done = |result: std::io::Result<()>| match result {
            Ok(()) => Ok(DiskDone::Done),
            Err(error) => Err(match error.kind() {
                ErrorKind::NotFound => DiskError::NotFound,
                ErrorKind::AlreadyExists => DiskError::Exists,
                _ => DiskError::Io(String::new()),
            }),
        };
        let open = |name: &FileName| fs::OpenOptions::new().read(true).write(true).open(at(name));
        match op {
            DiskOp::List { dir } => {
                let mut entries = Vec::new();
                match fs::read_dir(at(dir)) {
                    Err(error) => return done(Err(error)),
                    Ok(found) => {
                        for entry in found {
                            let entry = entry.unwrap();
                            let about = entry.metadata().unwrap();
                            entries.push(DirEntry {
                                name: entry.file_name().into_string().unwrap(),
                                len: if about.is_file() { about.len() } else { 0 },
                                is_file: about.is_file(),
                            });
                        }
                    }
                }
                entries.sort();
                Ok(DiskDone::Entries(entries))
            }
            DiskOp::MakeDir { dir } => match fs::create_dir(at(dir)) {
                Err(_) if at(dir).is_dir() => Ok(DiskDone::Done),
                made => done(made),
            },
            DiskOp::Create { file, zeroed } => done(
                fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(at(file))
                    .and_then(|mut new| new.write_all(&vec![0; to_usize(*zeroed)])),
            ),
            DiskOp::Write {
                file, offset, data, ..
            } => done(open(file).and_then(|mut file| {
                file.seek(SeekFrom::Start(*offset))?;
                file.write_all(&joined(data))
            })),
            DiskOp::Read { file, offset, len } => {
                let mut bytes = Vec::new();
                let read = open(file).and_then(|mut file| {
                    file.seek(SeekFrom::Start(*offset))?;
                    file.take(*len as u64).read_to_end(&mut bytes)
                });
                match done(read.map(drop)) {
                    Ok(_) => Ok(DiskDone::Data(bytes.into())),
                    Err(error) => Err(error),
                }
            }
            DiskOp::Sync { file } => done(open(file).and_then(|file| file.sync_data())),
            DiskOp::SyncDir { dir } | DiskOp::SyncAll { dir } => {
                done(fs::File::open(at(dir)).and_then(|dir| dir.sync_all()))
            }
            DiskOp::Rename { from, to } => done(fs::rename(at(from), at(to))),
            DiskOp::Remove { file } => done(fs::remove_file(at(file))),
            DiskOp::Truncate { file, len } => done(open(file).and_then(|file| file.set_len(*len))),
            DiskOp::Space => unreachable!("not drawn"),
        }
    }

    fn any_op(draws: &mut Keyed) -> DiskOp {
        let dirs = ["", "d", "e"];
        let files = ["a", "b", "d/a", "d/b", "e/a", "e/b"];
        let file = FileName::new(draws.pick(&files));
        let dir = FileName::new(draws.pick(&dirs));
        match draws.below(14) {
            0 => DiskOp::List { dir },
            1 => DiskOp::MakeDir {
                dir: FileName::new(draws.pick(&["d", "e"])),
            },
            2 | 3 => DiskOp::Create {
                file,
                zeroed: draws.below(3) * 5_000,
            },
            4..7 => DiskOp::Write {
                file,
                offset: draws.below(9_000),
                data: (0..draws.below(3))
                    .map(|_| Bytes::from(vec![draws.bits().to_le_bytes()[0]; draws.index(6_000)]))
                    .collect(),
                sync: SyncMode::Later,
            },
            7 | 8 => DiskOp::Read {
                file,
                offset: draws.below(12_000),
                len: draws.index(12_000),
            },
            9 => DiskOp::Sync { file },
            10 => DiskOp::SyncDir { dir },
            11 => DiskOp::Rename {
                from: file,
                to: FileName::new(draws.pick(&files)),
            },
            12 => DiskOp::Remove { file },
            _ => DiskOp::Truncate {
                file,
                len: draws.below(10_000),
            },
        }
    }

    /// A directory of a tmpfs, which never waits for a medium, or else of whatever there is.
    fn real_directory() -> tempfile::TempDir {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let shm = mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some("/dev/shm") && words.next() == Some("tmpfs")
        });
        if shm && let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
            return dir;
        }
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn without_a_crash_the_model_is_a_real_file_system() {
        for seed in 0..100 {
            let root = real_directory();
            let mut model = DiskModel::new(1 << 30);
            let mut draws = Keyed::new(seed, "operations");
            for nth in 0..400 {
                let op = any_op(&mut draws);
                let blur = |result: DiskResult| match result {
                    Err(DiskError::Io(_)) => Err(DiskError::Io(String::new())),
                    result => result,
                };
                if draws.percent(2) {
                    // Who goes on with a fork, or after everything was saved, sees no difference.
                    model = model.clone();
                }
                let (ours, theirs) = (blur(model.apply(&op)), really(root.path(), &op));
                assert_eq!(ours, theirs, "seed {seed}, operation {nth}: {op:?}");
            }
            let mut used = 0;
            for (path, len) in model.lengths() {
                let real = fs::read(root.path().join(path)).unwrap();
                assert_eq!(real.len() as u64, len);
                assert_eq!(
                    model.contents(path),
                    Some(real.into()),
                    "seed {seed}: {path}"
                );
                used += len;
            }
            let space = model.apply(&DiskOp::Space);
            let (bytes_total, bytes_free) = (1 << 30, (1 << 30) - used);
            let due = DiskDone::Space {
                bytes_free,
                bytes_total,
            };
            assert_eq!(space, Ok(due), "seed {seed}: room is counted right");
        }
    }

    /// All paths with their bytes, read anew.
    fn everything(disk: &DiskModel) -> Vec<(String, Bytes, Bytes)> {
        let all = disk.paths().map(|path| {
            let live = disk.contents(path).unwrap();
            (path.to_owned(), live, disk.durable_contents(path).unwrap())
        });
        all.collect()
    }

    #[test]
    fn what_happens_to_a_fork_never_shows_in_its_parent_nor_the_other_way_round() {
        for seed in 0..60 {
            let mut draws = Keyed::new(seed, "forks");
            let mut disks = vec![DiskModel::new(1 << 30)];
            for _ in 0..150 {
                let which = draws.index(disks.len());
                if disks.len() < 5 && draws.percent(10) {
                    disks.push(disks[which].clone());
                }
                let all = |disks: &[DiskModel]| -> Vec<_> {
                    let seen = disks.iter().map(|disk| {
                        let hashes = (disk.live_hash(), disk.durable_hash());
                        (everything(disk), disk.pending(), hashes)
                    });
                    seen.collect()
                };
                let mut before = all(&disks);
                if draws.percent(3) {
                    let policy = draws.pick(&Policy::ALL);
                    disks[which].power_loss(policy, &mut draws);
                } else {
                    let _ = disks[which].apply(&any_op(&mut draws));
                }
                let mut after = all(&disks);
                before.remove(which);
                after.remove(which);
                assert!(before == after, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_hash_tells_disks_apart_and_not_the_ways_in_which_they_came_to_be() {
        let run = |ops: &[DiskOp]| {
            let mut disk = DiskModel::new(1 << 30);
            for op in ops {
                assert_eq!(disk.apply(op), Ok(DiskDone::Done), "{op:?}");
            }
            disk
        };
        let name = FileName::new;
        let create = |path, zeroed| DiskOp::Create {
            file: name(path),
            zeroed,
        };
        let write = |path, offset, bytes: &'static [u8]| DiskOp::Write {
            file: name(path),
            offset,
            data: vec![Bytes::from_static(bytes)],
            sync: SyncMode::Later,
        };
        let truncate = |path, len| DiskOp::Truncate {
            file: name(path),
            len,
        };
        let rename = |from, to| DiskOp::Rename {
            from: name(from),
            to: name(to),
        };
        let same = [
            run(&[create("a", 9_000), write("a", 5_000, b"x")]),
            run(&[
                create("a", 0),
                write("a", 5_000, b"x"),
                truncate("a", 9_000),
            ]),
            run(&[
                create("b", 10_000),
                write("b", 0, b"yy"),
                write("b", 5_000, b"xy"),
                write("b", 5_001, &[0]),
                write("b", 0, &[0, 0]),
                truncate("b", 9_000),
                rename("b", "a"),
            ]),
        ];
        for one in &same {
            assert_eq!(one.live_hash(), same[0].live_hash());
            assert_eq!(one.durable_hash(), DiskModel::new(0).durable_hash());
        }
        let others = [
            run(&[]),
            run(&[create("a", 9_000)]),
            run(&[create("a", 9_000), write("a", 5_001, b"x")]),
            run(&[create("a", 9_001), write("a", 5_000, b"x")]),
            run(&[create("b", 9_000), write("b", 5_000, b"x")]),
            run(&[create("a", 9_000), write("a", 5_000, b"x"), create("b", 0)]),
            run(&[create("a", 9_000), write("a", 0, b"x")]),
            run(&[create("a", 9_000), write("a", 4_096, b"x")]),
            run(&[create("a", 9_000), write("a", 8_192, b"x")]),
            run(&[DiskOp::MakeDir { dir: name("a") }]),
        ];
        let mut hashes: BTreeSet<u64> = others.iter().map(DiskModel::live_hash).collect();
        hashes.insert(same[0].live_hash());
        assert_eq!(hashes.len(), others.len() + 1);
        let mut synced = same[0].clone();
        for op in [
            DiskOp::Sync { file: name("a") },
            DiskOp::SyncDir { dir: name("") },
        ] {
            synced.apply(&op).unwrap();
        }
        assert_eq!(synced.durable_hash(), same[0].live_hash());
    }

    #[test]
    fn files_placed_by_recipe_are_made_when_read_and_survive_as_if_written() {
        let made = Arc::new(AtomicU64::new(0));
        let maker = {
            let made = Arc::clone(&made);
            move |key: u64| {
                made.fetch_add(1, Ordering::Relaxed);
                vec![key.to_le_bytes()[0]; 16 << 10]
            }
        };
        let mut disk = DiskModel::new(1 << 40);
        let (len, maker): (_, Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>) =
            (16 << 10, Arc::new(maker));
        for key in 0..1_000 {
            let maker = Arc::clone(&maker);
            disk.place(&format!("chunks/{key}"), Recipe { key, len, maker });
        }
        let entries = match disk.apply(&DiskOp::List {
            dir: FileName::new("chunks"),
        }) {
            Ok(DiskDone::Entries(entries)) => entries,
            other => panic!("{other:?}"),
        };
        assert_eq!(entries.len(), 1_000);
        assert!(entries.iter().all(|entry| entry.len == 16 << 10));
        let made = || made.load(Ordering::Relaxed);
        assert_eq!(made(), 0, "a list makes nothing");
        let file = FileName::new("chunks/7");
        let read = DiskOp::Read {
            file: file.clone(),
            offset: 100,
            len: 10,
        };
        for times in 1..3 {
            let seven = Bytes::from_static(&[7; 10]);
            assert_eq!(disk.apply(&read), Ok(DiskDone::Data(seven)));
            assert_eq!(made(), times, "what was read is not kept");
        }
        let write = DiskOp::Write {
            file,
            offset: 0,
            data: vec![Bytes::from_static(b"header")],
            sync: SyncMode::Later,
        };
        assert_eq!(disk.apply(&write), Ok(DiskDone::Done));
        let after_write = made();
        for _ in 0..3 {
            disk.apply(&read).unwrap();
        }
        assert_eq!(made(), after_write, "what was changed is there");
        disk.power_loss(Policy::Prefix, &mut Keyed::new(1, "crash"));
        assert_eq!(disk.paths().count(), 1_000);
        assert_eq!(disk.contents("chunks/8"), Some(vec![8; 16 << 10].into()));
        assert_eq!(
            disk.contents("chunks/7").map(|bytes| bytes.len()),
            Some(16 << 10)
        );
        assert_eq!(disk.bytes_used, 1_000 * (16 << 10));
    }

    #[test]
    fn a_file_with_two_names_after_a_crash_loses_its_room_with_the_last_one() {
        let name = FileName::new;
        let dir = |dir| DiskOp::SyncDir { dir: name(dir) };
        let rename = |from, to| DiskOp::Rename {
            from: name(from),
            to: name(to),
        };
        let (zeroed, file) = (100, name("d/a"));
        let ops = [
            DiskOp::MakeDir { dir: name("d") },
            DiskOp::MakeDir { dir: name("e") },
            DiskOp::Create { file, zeroed },
            DiskOp::Sync { file: name("d/a") },
            dir(""),
            dir("d"),
            rename("d/a", "e/b"),
            dir("e"),
        ];
        let mut disk = DiskModel::new(1_000);
        for op in &ops {
            assert_eq!(disk.apply(op), Ok(DiskDone::Done));
        }
        let images = disk.crash_images(Policy::Subset, 10, &mut Keyed::new(1, "crash"));
        let names = |disk: &DiskModel| disk.paths().map(str::to_owned).collect::<Vec<_>>();
        let both = images
            .images
            .into_iter()
            .find(|image| names(&image.disk).len() == 2);
        let mut disk = both.expect("nothing says that the old name is gone").disk;
        let removes = [("d/a", 100), ("e/b", 0)];
        assert_eq!(disk.apply(&rename("d/a", "e/b")), Ok(DiskDone::Done));
        assert_eq!(names(&disk).len(), 2, "they are one file");
        for (path, bytes_used) in removes {
            let file = name(path);
            assert_eq!(disk.apply(&DiskOp::Remove { file }), Ok(DiskDone::Done));
            assert_eq!(disk.bytes_used, bytes_used);
        }
        disk.drop_nameless();
        assert_eq!(names(&disk), [""; 0]);
    }

    #[test]
    fn files_that_no_crash_can_bring_back_take_no_memory() {
        let mut disk = DiskModel::new(1 << 30);
        let dir = DiskOp::SyncDir {
            dir: FileName::new(""),
        };
        for nth in 0..1_000 {
            let file = FileName::new(&format!("log{nth}"));
            let ops = [
                DiskOp::Create {
                    file: file.clone(),
                    zeroed: 100,
                },
                dir.clone(),
                DiskOp::Remove { file },
                dir.clone(),
            ];
            for op in ops {
                assert_eq!(disk.apply(&op), Ok(DiskDone::Done));
            }
            assert!(disk.files.len() < 40, "{}", disk.files.len());
        }
        // A name that a crash may bring back keeps its file, even one that was never durable.
        let keeper = FileName::new("keeper");
        let create = DiskOp::Create {
            file: keeper.clone(),
            zeroed: 100,
        };
        for op in [create, DiskOp::Remove { file: keeper }] {
            assert_eq!(disk.apply(&op), Ok(DiskDone::Done));
        }
        disk.unlinked = 1_000;
        disk.drop_nameless();
        let left = disk.crash_images(Policy::Subset, 10, &mut Keyed::new(1, "crash"));
        let kept = left
            .images
            .iter()
            .filter(|image| image.disk.contents("keeper").is_some());
        assert!(kept.count() > 0);
    }

    #[test]
    fn a_full_disk_refuses_and_a_removed_file_gives_its_room_back() {
        let mut disk = DiskModel::new(10_000);
        let file = FileName::new("a");
        let create = DiskOp::Create {
            file: file.clone(),
            zeroed: 8_000,
        };
        assert_eq!(disk.apply(&create), Ok(DiskDone::Done));
        let more = DiskOp::Truncate {
            file: file.clone(),
            len: 10_001,
        };
        assert_eq!(disk.apply(&more), Err(DiskError::NoSpace));
        assert_eq!(disk.apply(&DiskOp::Remove { file }), Ok(DiskDone::Done));
        let space = disk.apply(&DiskOp::Space);
        assert!(matches!(
            space,
            Ok(DiskDone::Space {
                bytes_free: 10_000,
                ..
            })
        ));
    }
}
