//! A data directory of real files, worked on by a few threads. With it goes the directory of a log mirror, if there
//! is one: the machine names its files below [`mirror::DIR`].
//!
//! Operations that change one file are queued per file and run in order, one at a time; everything else runs
//! beside them. Large aligned writes bypass the page cache where the file system allows it: that costs a
//! third of the processor time, and leaves nothing for a later sync to write back.
use kfs_core::ids::Ticket;
use kfs_core::limits::FRAME_BODY_MAX;
use kfs_core::machine::{DirEntry, DiskDone, DiskError, DiskOp, FileName, SyncMode};
use kfs_core::meta::mirror;
use kfs_drive::pool::{ALIGN, Pool};
use kfs_drive::{Completions, Disk};
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// Threads that work on one data directory.
const THREADS: usize = 4;
/// Files kept open.
const OPEN_MAX: usize = 256;
/// Writes of at least this many bytes bypass the page cache if they are aligned.
const DIRECT_MIN: usize = 256 << 10;
/// Unused read buffers that are kept.
const POOL_KEEP: usize = 32;
/// Bytes of zeros written at once.
const ZEROS: usize = 1 << 20;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another server of this one, works on it.
    #[error("{0} is in use by another server")]
    Locked(PathBuf),
    /// Another server keeps the mirror of its log there.
    #[error("the log mirror {0} is in use by another server")]
    MirrorLocked(PathBuf),
    /// The log mirror lies in the data directory, or that in the mirror, or they are one.
    #[error("{0} and the data directory lie in one another")]
    Nested(PathBuf),
    /// The operating system's word on the log mirror.
    #[error("the log mirror {path}: {error}")]
    Mirror {
        /// Where.
        path: PathBuf,
        /// What.
        error: io::Error,
    },
    /// The operating system's word.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        error: io::Error,
    },
}

/// A locked data directory. Dropped: its threads end after what they are at, and the lock goes.
#[derive(Debug)]
pub struct Files {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _locks: [Option<File>; 2],
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Where the log mirror is.
    mirror: Option<PathBuf>,
    done: Completions,
    jobs: Mutex<Jobs>,
    ready: Condvar,
    open: Mutex<OpenFiles>,
    pool: Pool,
}

#[derive(Debug, Default)]
struct Jobs {
    ready: VecDeque<Job>,
    files: HashMap<FileName, VecDeque<(Ticket, DiskOp)>>,
    closing: bool,
}

#[derive(Debug)]
enum Job {
    /// The next operation of this file's queue.
    Next(FileName),
    /// An operation that is in no order with others.
    One(Ticket, DiskOp),
}

impl Files {
    /// Makes the directory if it is missing, locks it and starts its threads.
    ///
    /// # Errors
    /// If it is in use, or cannot be made or opened.
    pub fn open(dir: &Path, done: Completions) -> Result<Self, OpenError> {
        Self::locking(dir, dir, None, done)
    }

    /// Does the same with the directory of a log mirror, if one is given.
    ///
    /// # Errors
    /// If one of them is in use, or cannot be made or opened, or one lies in the other.
    pub fn open_mirrored(
        dir: &Path,
        mirror: Option<&Path>,
        done: Completions,
    ) -> Result<Self, OpenError> {
        Self::locking(dir, dir, mirror, done)
    }

    /// Opens a data directory that a server may be using, and locks one of its directories, which is made if it is
    /// missing. The directory of its log mirror, if one is given, is not locked: the server keeps it so.
    ///
    /// # Errors
    /// If that is locked, or there is no data directory, or no mirror where one is said to be.
    pub fn open_beside(
        dir: &Path,
        locked: &str,
        mirror: Option<&Path>,
        done: Completions,
    ) -> Result<Self, OpenError> {
        if let Err(error) = std::fs::metadata(dir) {
            let path = dir.to_path_buf();
            return Err(OpenError::Io { path, error });
        }
        if let Some(mirror) = mirror
            && let Err(error) = std::fs::metadata(mirror)
        {
            let path = mirror.to_path_buf();
            return Err(OpenError::Mirror { path, error });
        }
        let lock = lock_dir(dir, &dir.join(locked))?;
        Self::working(dir, mirror, done, [Some(lock), None])
    }

    fn locking(
        dir: &Path,
        lock: &Path,
        mirror: Option<&Path>,
        done: Completions,
    ) -> Result<Self, OpenError> {
        let lock = lock_dir(dir, lock)?;
        let mirror_lock = mirror.map(|mirror| lock_mirror(dir, mirror)).transpose()?;
        Self::working(dir, mirror, done, [Some(lock), mirror_lock])
    }

    fn working(
        dir: &Path,
        mirror: Option<&Path>,
        done: Completions,
        locks: [Option<File>; 2],
    ) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Io {
            path: dir.to_path_buf(),
            error,
        };
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            mirror: mirror.map(Path::to_path_buf),
            done,
            jobs: Mutex::new(Jobs::default()),
            ready: Condvar::new(),
            open: Mutex::new(OpenFiles::default()),
            pool: Pool::new(FRAME_BODY_MAX, POOL_KEEP),
        });
        let mut threads = Vec::with_capacity(THREADS);
        for _ in 0..THREADS {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("kfs-disk".into());
            threads.push(thread.spawn(move || shared.work()).map_err(failed)?);
        }
        Ok(Self {
            shared,
            threads,
            _locks: locks,
        })
    }
}

/// Makes a directory of a data directory if it is missing, and locks it.
fn lock_dir(dir: &Path, lock: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Io {
        path: dir.to_path_buf(),
        error,
    };
    std::fs::create_dir_all(lock).map_err(failed)?;
    let lock = File::open(lock).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Makes the directory of a log mirror if it is missing, and locks it.
fn lock_mirror(data: &Path, mirror: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Mirror {
        path: mirror.to_path_buf(),
        error,
    };
    // Before anything is made: a directory in the data directory would keep that from being formatted.
    let nested = |one: &Path, other: &Path| one.starts_with(other) || other.starts_with(one);
    let absolute = |path: &Path| std::path::absolute(path);
    if nested(
        &absolute(data).map_err(failed)?,
        &absolute(mirror).map_err(failed)?,
    ) {
        return Err(OpenError::Nested(mirror.to_path_buf()));
    }
    std::fs::create_dir_all(mirror).map_err(failed)?;
    let real = |path: &Path| path.canonicalize();
    if nested(&real(data).map_err(failed)?, &real(mirror).map_err(failed)?) {
        return Err(OpenError::Nested(mirror.to_path_buf()));
    }
    let lock = File::open(mirror).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::MirrorLocked(mirror.to_path_buf()));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // The name of a directory that was just made is durable with the one it stands in.
    if let Some(parent) = real(mirror).map_err(failed)?.parent() {
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed)?;
    }
    let device = |path: &Path| path.metadata().map(|meta| meta.dev());
    if device(data).map_err(failed)? == device(mirror).map_err(failed)? {
        tracing::warn!(
            mirror = %mirror.display(),
            "the log mirror is on the file system of the data directory: what takes the one takes the other"
        );
    }
    Ok(lock)
}

impl Disk for Files {
    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let mut jobs = locked(&self.shared.jobs);
        match changed_file(&op).cloned() {
            Some(file) => match jobs.files.get_mut(&file) {
                Some(queue) => {
                    queue.push_back((ticket, op));
                    return;
                }
                None => {
                    jobs.files
                        .insert(file.clone(), VecDeque::from([(ticket, op)]));
                    jobs.ready.push_back(Job::Next(file));
                }
            },
            None => jobs.ready.push_back(Job::One(ticket, op)),
        }
        drop(jobs);
        self.shared.ready.notify_one();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        locked(&self.shared.jobs).closing = true;
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(dir = %self.shared.dir.display(), "a disk thread panicked");
            }
        }
    }
}

/// The file whose queue orders this operation.
fn changed_file(op: &DiskOp) -> Option<&FileName> {
    match op {
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. }
        | DiskOp::Rename { from: file, .. } => Some(file),
        DiskOp::List { .. }
        | DiskOp::MakeDir { .. }
        | DiskOp::Read { .. }
        | DiskOp::SyncDir { .. }
        | DiskOp::SyncAll { .. }
        | DiskOp::Space => None,
    }
}

/// A panic while a lock was held leaves the process to end; others only need to get that far.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn work(&self) {
        let mut jobs = locked(&self.jobs);
        loop {
            if jobs.closing {
                return;
            }
            let Some(job) = jobs.ready.pop_front() else {
                jobs = self
                    .ready
                    .wait(jobs)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (ticket, op, file) = match job {
                Job::One(ticket, op) => (ticket, op, None),
                Job::Next(file) => {
                    let queue = jobs
                        .files
                        .get_mut(&file)
                        .expect("a file in the queue has operations");
                    let (ticket, op) = queue
                        .pop_front()
                        .expect("a file in the queue has operations");
                    (ticket, op, Some(file))
                }
            };
            drop(jobs);
            let result = self.run(op).map_err(|error| disk_error(&error));
            // Who no longer listens has stopped.
            let _ = self.done.send((ticket, result));
            jobs = locked(&self.jobs);
            if let Some(file) = file {
                if jobs.files.get(&file).is_some_and(VecDeque::is_empty) {
                    jobs.files.remove(&file);
                } else {
                    jobs.ready.push_back(Job::Next(file));
                    self.ready.notify_one();
                }
            }
        }
    }

    fn run(&self, op: DiskOp) -> io::Result<DiskDone> {
        match op {
            DiskOp::Write {
                file,
                offset,
                data,
                sync,
            } => {
                let open = self.file(&file)?;
                open.write(offset, &data)?;
                if sync == SyncMode::Now {
                    open.buffered.sync_data()?;
                }
            }
            DiskOp::Read { file, offset, len } => return self.read(&file, offset, len),
            DiskOp::Sync { file } => self.file(&file)?.buffered.sync_data()?,
            DiskOp::Create { file, zeroed } => {
                let path = self.path(&file);
                let made = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)?;
                let zeros = vec![0; usize::try_from(zeroed).unwrap_or(ZEROS).min(ZEROS)];
                let mut at = 0;
                while at < zeroed {
                    let n = usize::try_from(zeroed - at).unwrap_or(ZEROS).min(ZEROS);
                    made.write_all_at(&zeros[..n], at)?;
                    at += n as u64;
                }
                locked(&self.open).insert(
                    file,
                    Arc::new(OpenFile {
                        path,
                        buffered: made,
                        direct: OnceLock::new(),
                    }),
                );
            }
            DiskOp::Truncate { file, len } => self.file(&file)?.buffered.set_len(len)?,
            DiskOp::Rename { from, to } => {
                std::fs::rename(self.path(&from), self.path(&to))?;
                let mut open = locked(&self.open);
                open.remove(&from);
                open.remove(&to);
            }
            DiskOp::Remove { file } => {
                std::fs::remove_file(self.path(&file))?;
                locked(&self.open).remove(&file);
            }
            DiskOp::SyncDir { dir } => File::open(self.path(&dir))?.sync_all()?,
            DiskOp::SyncAll { dir } => rustix::fs::syncfs(File::open(self.path(&dir))?)?,
            DiskOp::MakeDir { dir } => match std::fs::create_dir(self.path(&dir)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            },
            DiskOp::List { dir } => return self.list(&dir),
            DiskOp::Space => {
                let space = rustix::fs::statvfs(&self.dir)?;
                return Ok(DiskDone::Space {
                    bytes_free: space.f_bavail * space.f_frsize,
                    bytes_total: space.f_blocks * space.f_frsize,
                });
            }
        }
        Ok(DiskDone::Done)
    }

    fn read(&self, file: &FileName, offset: u64, len: usize) -> io::Result<DiskDone> {
        let open = self.file(file)?;
        let mut buffer = self.pool.take(len);
        let mut have = 0;
        while have < len {
            match open
                .buffered
                .read_at(&mut buffer.as_mut()[have..], offset + have as u64)
            {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(have);
        Ok(DiskDone::Data(buffer.freeze()))
    }

    fn list(&self, dir: &FileName) -> io::Result<DiskDone> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.path(dir))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What vanishes between the two calls was not ours to report.
            let Ok(meta) = entry.metadata() else { continue };
            let is_file = meta.is_file();
            entries.push(DirEntry {
                name,
                len: if is_file { meta.len() } else { 0 },
                is_file,
            });
        }
        Ok(DiskDone::Entries(entries))
    }

    fn path(&self, file: &FileName) -> PathBuf {
        match &self.mirror {
            Some(root) => match file.as_str().strip_prefix(mirror::DIR) {
                Some("") => root.clone(),
                Some(inside) if inside.starts_with('/') => root.join(&inside[1..]),
                Some(_) | None => self.dir.join(file.as_str()),
            },
            None => self.dir.join(file.as_str()),
        }
    }

    fn file(&self, file: &FileName) -> io::Result<Arc<OpenFile>> {
        if let Some(open) = locked(&self.open).get(file) {
            return Ok(open);
        }
        let path = self.path(file);
        let buffered = OpenOptions::new().read(true).write(true).open(&path)?;
        let open = Arc::new(OpenFile {
            path,
            buffered,
            direct: OnceLock::new(),
        });
        locked(&self.open).insert(file.clone(), Arc::clone(&open));
        Ok(open)
    }
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    buffered: File,
    /// Opened at the first write that can use it; `None` if the file system does not do it.
    direct: OnceLock<Option<File>>,
}

impl OpenFile {
    fn write(&self, mut offset: u64, data: &[bytes::Bytes]) -> io::Result<()> {
        for part in data {
            let aligned = part.as_ptr().align_offset(ALIGN) == 0
                && part.len().is_multiple_of(ALIGN)
                && offset.is_multiple_of(4_096);
            let direct = if aligned && part.len() >= DIRECT_MIN {
                self.direct()
            } else {
                None
            };
            direct
                .unwrap_or(&self.buffered)
                .write_all_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn direct(&self) -> Option<&File> {
        let open = || {
            let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
            OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&self.path)
                .ok()
        };
        self.direct.get_or_init(open).as_ref()
    }
}

/// Files kept open, the longest unused closed first.
#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<FileName, (u64, Arc<OpenFile>)>,
    uses: u64,
}

impl OpenFiles {
    fn get(&mut self, file: &FileName) -> Option<Arc<OpenFile>> {
        self.uses += 1;
        let (used, open) = self.files.get_mut(file)?;
        *used = self.uses;
        Some(Arc::clone(open))
    }
    fn insert(&mut self, file: FileName, open: Arc<OpenFile>) {
        if self.files.len() >= OPEN_MAX {
            // Half at once, so that the search is rare.
            let mut uses: Vec<u64> = self.files.values().map(|(used, _)| *used).collect();
            let (_, median, _) = uses.select_nth_unstable(OPEN_MAX / 2);
            let median = *median;
            self.files.retain(|_, (used, _)| *used > median);
        }
        self.uses += 1;
        self.files.insert(file, (self.uses, open));
    }
    fn remove(&mut self, file: &FileName) {
        self.files.remove(file);
    }
}

fn disk_error(error: &io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::NotFound => DiskError::NotFound,
        io::ErrorKind::AlreadyExists => DiskError::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::NoSpace,
        _ => DiskError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kfs_core::machine::DiskResult;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Bench {
        disk: Files,
        done: UnboundedReceiver<(Ticket, DiskResult)>,
        next: u64,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (sender, done) = unbounded_channel();
            Self {
                disk: Files::open(dir.path(), sender).unwrap(),
                done,
                next: 0,
                _dir: dir,
            }
        }
        fn run(&mut self, op: DiskOp) -> DiskResult {
            self.submit(op);
            let (ticket, result) = self.done.blocking_recv().unwrap();
            assert_eq!(ticket.0, self.next);
            result
        }
        fn submit(&mut self, op: DiskOp) {
            self.next += 1;
            self.disk.submit(Ticket(self.next), op);
        }
    }

    fn name(text: &str) -> FileName {
        FileName::new(text)
    }

    #[test]
    fn a_directory_is_used_by_one_server_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, _done) = unbounded_channel();
        let first = Files::open(dir.path(), sender.clone()).unwrap();
        assert!(matches!(
            Files::open(dir.path(), sender.clone()),
            Err(OpenError::Locked(_))
        ));
        drop(first);
        Files::open(dir.path(), sender).unwrap();
    }

    #[test]
    fn a_mirror_is_used_by_one_server_and_lies_beside_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let [data, other, mirror] = ["a", "b", "m"].map(|name| dir.path().join(name));
        let (sender, mut done) = unbounded_channel();
        let open =
            |data: &Path, mirror: &Path| Files::open_mirrored(data, Some(mirror), sender.clone());
        let mut first = open(&data, &mirror).unwrap();
        assert!(matches!(
            open(&other, &mirror),
            Err(OpenError::MirrorLocked(_))
        ));
        for (op, path) in [("mirror/f", "m/f"), ("mirrored", "a/mirrored")] {
            let create = DiskOp::Create {
                file: name(op),
                zeroed: 0,
            };
            first.submit(Ticket(1), create);
            done.blocking_recv().unwrap().1.unwrap();
            assert!(dir.path().join(path).exists(), "{op}");
        }
        drop(first);
        for nested in [data.clone(), data.join("m"), dir.path().to_path_buf()] {
            let refused = open(&data, &nested);
            assert!(matches!(refused, Err(OpenError::Nested(_))), "{nested:?}");
        }
        assert!(!data.join("m").exists());
    }

    #[test]
    fn changes_of_one_file_keep_their_order_and_direct_writes_mix_with_buffered_ones() {
        let mut bench = Bench::new();
        bench
            .run(DiskOp::Create {
                file: name("f"),
                zeroed: 0,
            })
            .unwrap();
        let pool = Pool::new(1 << 20, 4);
        let mut expected = Vec::new();
        for round in 0..20_u8 {
            let mut large = pool.take(1 << 20);
            large.as_mut().fill(round);
            let small = Bytes::from(vec![round ^ 0x80; 1_000]);
            for data in [large.freeze(), small] {
                let offset = u64::from(round) * ((1 << 20) + 4_096)
                    + if data.len() == 1_000 { 1 << 20 } else { 0 };
                expected.resize(usize::try_from(offset).unwrap(), 0);
                expected.extend_from_slice(&data);
                bench.submit(DiskOp::Write {
                    file: name("f"),
                    offset,
                    data: vec![data],
                    sync: SyncMode::Later,
                });
            }
        }
        bench.submit(DiskOp::Sync { file: name("f") });
        for ticket in 2..=42 {
            let (done, result) = bench.done.blocking_recv().unwrap();
            assert_eq!((done.0, result), (ticket, Ok(DiskDone::Done)), "in order");
        }
        for (at, part) in expected.chunks(1 << 20).enumerate() {
            let read = bench.run(DiskOp::Read {
                file: name("f"),
                offset: (at as u64) << 20,
                len: 1 << 20,
            });
            assert_eq!(
                read,
                Ok(DiskDone::Data(Bytes::copy_from_slice(part))),
                "MiB {at}"
            );
        }
    }

    #[test]
    fn a_name_used_again_is_the_new_file() {
        let mut bench = Bench::new();
        for content in [b"old", b"new"] {
            bench
                .run(DiskOp::Create {
                    file: name("a"),
                    zeroed: 0,
                })
                .unwrap();
            let data = vec![Bytes::from_static(content)];
            bench
                .run(DiskOp::Write {
                    file: name("a"),
                    offset: 0,
                    data,
                    sync: SyncMode::Now,
                })
                .unwrap();
            bench
                .run(DiskOp::Rename {
                    from: name("a"),
                    to: name("b"),
                })
                .unwrap();
            let read = bench.run(DiskOp::Read {
                file: name("b"),
                offset: 0,
                len: 10,
            });
            assert_eq!(read, Ok(DiskDone::Data(Bytes::from_static(content))));
        }
        bench.run(DiskOp::Remove { file: name("b") }).unwrap();
        assert_eq!(
            bench.run(DiskOp::Read {
                file: name("b"),
                offset: 0,
                len: 1
            }),
            Err(DiskError::NotFound)
        );
        assert_eq!(
            bench.run(DiskOp::Create {
                file: name("c"),
                zeroed: 5
            }),
            Ok(DiskDone::Done)
        );
        assert_eq!(
            bench.run(DiskOp::Create {
                file: name("c"),
                zeroed: 0
            }),
            Err(DiskError::Exists)
        );
        let entry = DirEntry {
            name: "c".into(),
            len: 5,
            is_file: true,
        };
        assert_eq!(
            bench.run(DiskOp::List { dir: name("") }),
            Ok(DiskDone::Entries(vec![entry]))
        );
    }
}
