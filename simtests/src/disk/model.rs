//! The file system of one node: live contents as processes see them, durable contents, and between the two
//! the pending operations in their order.
//!
//! It never sleeps and never draws a number by itself: a value, tested on plain threads.
use bytes::{Bytes, BytesMut};
use kfs_core::machine::{DirEntry, DiskDone, DiskError, DiskOp, DiskResult, FileName, SyncMode};
use std::collections::BTreeMap;

/// The unit in which a page cache writes back.
pub const PAGE_BYTES: usize = 4_096;

/// A file apart from its names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Inode(u64);

/// What a path stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Dir,
    File(Inode),
}

pub(super) type Names = BTreeMap<String, Entry>;

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
        dir: String,
    },
    Link {
        path: String,
        inode: Inode,
    },
    Rename {
        from: String,
        to: String,
        inode: Inode,
    },
    Unlink {
        path: String,
        inode: Inode,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<DataOp>,
}

/// One node's file system.
#[derive(Clone, Debug)]
pub struct DiskModel {
    pub(super) files: BTreeMap<Inode, File>,
    pub(super) names: Names,
    pub(super) durable_names: Names,
    pub(super) pending_names: Vec<NameOp>,
    bytes_total: u64,
    bytes_used: u64,
    next_inode: u64,
    next_order: u64,
}

impl DiskModel {
    /// An empty data directory on a disk of so many bytes.
    #[must_use]
    pub fn new(bytes_total: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            names: Names::new(),
            durable_names: Names::new(),
            pending_names: Vec::new(),
            bytes_total,
            bytes_used: 0,
            next_inode: 1,
            next_order: 1,
        }
    }

    /// Carries out one operation, whole and at once.
    ///
    /// # Errors
    /// As a file system would.
    pub fn apply(&mut self, op: &DiskOp) -> DiskResult {
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
                    self.sync(inode);
                }
                Ok(DiskDone::Done)
            }
            DiskOp::Read { file, offset, len } => {
                let live = &self.files[&self.inode(file)?].live;
                let from = to_usize(*offset).min(live.len());
                let to = from.saturating_add(*len).min(live.len());
                Ok(DiskDone::Data(Bytes::copy_from_slice(&live[from..to])))
            }
            DiskOp::Sync { file } => {
                let inode = self.inode(file)?;
                self.sync(inode);
                Ok(DiskDone::Done)
            }
            DiskOp::SyncDir { dir } => self.sync_dir(dir).map(|()| DiskDone::Done),
            DiskOp::Rename { from, to } => self.rename(from, to).map(|()| DiskDone::Done),
            DiskOp::Remove { file } => self.remove(file).map(|()| DiskDone::Done),
            DiskOp::Truncate { file, len } => {
                let inode = self.inode(file)?;
                self.set_len(inode, to_usize(*len))?;
                Ok(DiskDone::Done)
            }
            DiskOp::Space => Ok(DiskDone::Space {
                bytes_free: self.bytes_total.saturating_sub(self.bytes_used),
                bytes_total: self.bytes_total,
            }),
        }
    }

    /// The live bytes of a file, for oracles.
    #[must_use]
    pub fn contents(&self, path: &str) -> Option<&[u8]> {
        match self.names.get(path)? {
            Entry::File(inode) => Some(&self.files[inode].live),
            Entry::Dir => None,
        }
    }
    /// The paths of all files there are now.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::File(_)))
            .map(|(path, _)| path.as_str())
    }
    /// Operations that a power loss now could drop.
    #[must_use]
    pub fn pending(&self) -> usize {
        let data: usize = self.files.values().map(|file| file.pending.len()).sum();
        data + self.pending_names.len()
    }

    fn list(&self, dir: &FileName) -> Result<Vec<DirEntry>, DiskError> {
        self.must_be_dir(dir.as_str())?;
        Ok(self
            .names
            .iter()
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
        self.names.insert(dir.as_str().into(), Entry::Dir);
        self.name_op(NameChange::MakeDir {
            dir: dir.as_str().into(),
        });
        Ok(())
    }

    fn create(&mut self, file: &FileName, zeroed: u64) -> Result<(), DiskError> {
        self.must_be_dir(file.dir())?;
        if self.names.contains_key(file.as_str()) {
            return Err(DiskError::Exists);
        }
        if self.bytes_used + zeroed > self.bytes_total {
            return Err(DiskError::NoSpace);
        }
        let inode = Inode(self.next_inode);
        self.next_inode += 1;
        self.files.insert(inode, File::default());
        self.names.insert(file.as_str().into(), Entry::File(inode));
        self.name_op(NameChange::Link {
            path: file.as_str().into(),
            inode,
        });
        if zeroed > 0 {
            self.write(inode, 0, Bytes::from(vec![0; to_usize(zeroed)]))?;
        }
        Ok(())
    }

    fn write(&mut self, inode: Inode, offset: usize, data: Bytes) -> Result<(), DiskError> {
        if data.is_empty() {
            return Ok(());
        }
        let file = self.files.get_mut(&inode).expect("a name has its file");
        let end = offset + data.len();
        let grown = end.saturating_sub(file.live.len()) as u64;
        if self.bytes_used + grown > self.bytes_total {
            return Err(DiskError::NoSpace);
        }
        self.bytes_used += grown;
        let change = Change::Write { offset, data };
        change.apply(&mut file.live);
        file.pending.push(DataOp {
            order: self.next_order,
            change,
        });
        self.next_order += 1;
        Ok(())
    }

    fn set_len(&mut self, inode: Inode, len: usize) -> Result<(), DiskError> {
        let file = self.files.get_mut(&inode).expect("a name has its file");
        let used = self.bytes_used - file.live.len() as u64 + len as u64;
        if used > self.bytes_total {
            return Err(DiskError::NoSpace);
        }
        self.bytes_used = used;
        file.live.resize(len, 0);
        file.pending.push(DataOp {
            order: self.next_order,
            change: Change::SetLen(len),
        });
        self.next_order += 1;
        Ok(())
    }

    fn sync(&mut self, inode: Inode) {
        let file = self.files.get_mut(&inode).expect("a name has its file");
        for op in file.pending.drain(..) {
            op.change.apply(&mut file.durable);
        }
        debug_assert_eq!(file.durable, file.live, "all changes were pending");
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
                    self.durable_names.insert(to.clone(), Entry::File(*inode));
                    let change = NameChange::Unlink {
                        path: from.clone(),
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
            Some(Entry::File(replaced)) => self.free(*replaced),
            None => {}
        }
        self.names.remove(from.as_str());
        self.names.insert(to.as_str().into(), Entry::File(inode));
        self.name_op(NameChange::Rename {
            from: from.as_str().into(),
            to: to.as_str().into(),
            inode,
        });
        Ok(())
    }

    fn remove(&mut self, file: &FileName) -> Result<(), DiskError> {
        let inode = self.inode(file)?;
        self.names.remove(file.as_str());
        self.free(inode);
        self.name_op(NameChange::Unlink {
            path: file.as_str().into(),
            inode,
        });
        Ok(())
    }

    /// Gives back a nameless file's room. Its contents stay, since a crash may bring its name back.
    fn free(&mut self, inode: Inode) {
        self.bytes_used -= self.files[&inode].live.len() as u64;
    }

    /// After a crash: what is durable is all there is.
    pub(super) fn restart(&mut self) {
        self.pending_names.clear();
        let orphaned = |names: &Names, path: &str| {
            let dir = parent(path);
            !dir.is_empty() && names.get(dir) != Some(&Entry::Dir)
        };
        while let Some(orphan) = self
            .durable_names
            .keys()
            .find(|path| orphaned(&self.durable_names, path))
            .cloned()
        {
            self.durable_names.remove(&orphan);
        }
        self.names.clone_from(&self.durable_names);
        let named: Vec<Inode> = self
            .names
            .values()
            .filter_map(|entry| match entry {
                Entry::File(inode) => Some(*inode),
                Entry::Dir => None,
            })
            .collect();
        self.files.retain(|inode, _| named.contains(inode));
        self.bytes_used = 0;
        for file in self.files.values_mut() {
            assert!(file.pending.is_empty(), "the crash decided every operation");
            file.live.clone_from(&file.durable);
            self.bytes_used += file.live.len() as u64;
        }
    }

    fn inode(&self, file: &FileName) -> Result<Inode, DiskError> {
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
}

impl Change {
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(data);
            }
            Self::SetLen(len) => to.resize(*len, 0),
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
                names.insert(dir.clone(), Entry::Dir);
            }
            Self::Link { path, inode } => {
                names.insert(path.clone(), Entry::File(*inode));
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(&Entry::File(*inode)) {
                    names.remove(from);
                }
                names.insert(to.clone(), Entry::File(*inode));
            }
            Self::Unlink { path, inode } => {
                if names.get(path) == Some(&Entry::File(*inode)) {
                    names.remove(path);
                }
            }
        }
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated disks fit in memory")
}
fn joined(data: &[Bytes]) -> Bytes {
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
    use crate::keyed::Keyed;
    use std::fs;
    use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
    use std::path::Path;

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
            DiskOp::SyncDir { dir } => done(fs::File::open(at(dir)).and_then(|dir| dir.sync_all())),
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

    #[test]
    fn without_a_crash_the_model_is_a_real_file_system() {
        for seed in 0..20 {
            let root = tempfile::tempdir().unwrap();
            let mut model = DiskModel::new(1 << 30);
            let mut draws = Keyed::new(seed, "operations");
            for nth in 0..400 {
                let op = any_op(&mut draws);
                let blur = |result: DiskResult| match result {
                    Err(DiskError::Io(_)) => Err(DiskError::Io(String::new())),
                    result => result,
                };
                let (ours, theirs) = (blur(model.apply(&op)), really(root.path(), &op));
                assert_eq!(ours, theirs, "seed {seed}, operation {nth}: {op:?}");
            }
            for path in model.paths() {
                let real = fs::read(root.path().join(path)).unwrap();
                assert_eq!(model.contents(path), Some(&real[..]), "seed {seed}: {path}");
            }
        }
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
