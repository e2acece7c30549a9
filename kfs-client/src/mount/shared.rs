//! What the mount does for a request of the kernel: names looked up, files opened, made, closed and listed, attributes.
//!
//! Read [`super::requests`] first: who asks. Names are looked up anew each time, in the cluster. Nothing is kept here but
//! what programs have open, and what the kernel has not forgotten.
use super::errno;
use super::known::{self, Content, Known};
use super::listing::{DOTS, Listing};
use super::open_file::OpenFile;
use super::requests::REQUESTS_MAX;
use crate::by_id::{by_id, in_directory};
use crate::connect::{CreateOptions, Kfs};
use fuser::{Errno, FileAttr, FileHandle, FileType, FopenFlags, INodeNo, OpenAccMode, OpenFlags};
use kfs_core::wire::client_meta::{Attributes, Attrs, Keep, Kind, Ownership, ServerState};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// A block, as `statfs` and `stat` count them.
pub(super) const BLOCK: u32 = 4_096;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kfs: Kfs,
    pub(super) known: Mutex<Known>,
    files: Mutex<HashMap<u64, Opened>>,
    pub(super) handles: Mutex<HashMap<u64, Held>>,
    next_handle: AtomicU64,
    pub(super) slots: Arc<Semaphore>,
}

/// A file that is open, and how often.
#[derive(Debug)]
struct Opened {
    file: Arc<OpenFile>,
    count: usize,
}

/// What a handle of the kernel stands for.
#[derive(Clone, Debug)]
pub(super) enum Held {
    File(Arc<OpenFile>, Access),
    Directory(Arc<tokio::sync::Mutex<Listing>>),
}

/// What a file was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(kfs: Kfs) -> Self {
        Self {
            kfs,
            known: Mutex::default(),
            files: Mutex::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            slots: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }
    }

    /// Syncs all files that are open. Gives how many could not be.
    pub(super) async fn sync_all(&self) -> usize {
        // Beside one another: each may take as long as a call, if the cluster is away.
        let files = self.open_files().into_iter();
        let syncs: Vec<_> = files
            .map(|file| tokio::spawn(async move { file.sync().await }))
            .collect();
        let mut failed = 0;
        for sync in syncs {
            if !matches!(sync.await, Ok(Ok(()))) {
                failed += 1;
            }
        }
        failed
    }

    /// Syncs and closes all files that are open: nobody writes them any more.
    pub(super) async fn finish_all(&self) {
        let files = self.open_files().into_iter();
        let ends: Vec<_> = files
            .map(|file| tokio::spawn(async move { file.finish_now().await }))
            .collect();
        for end in ends {
            // Nobody is left to be told.
            let _ = end.await;
        }
    }

    fn open_files(&self) -> Vec<Arc<OpenFile>> {
        let files = lock(&self.files);
        files.values().map(|open| Arc::clone(&open.file)).collect()
    }

    fn open_file(&self, number: u64) -> Option<Arc<OpenFile>> {
        let files = lock(&self.files);
        files.get(&number).map(|open| Arc::clone(&open.file))
    }

    /// One more has the file open.
    fn take(&self, number: u64) -> Arc<OpenFile> {
        let mut files = lock(&self.files);
        let open = files.entry(number).or_insert_with(|| Opened {
            file: Arc::new(OpenFile::new(self.kfs.clone(), known::file(number))),
            count: 0,
        });
        open.count += 1;
        Arc::clone(&open.file)
    }

    fn give_back(&self, number: u64) {
        let mut files = lock(&self.files);
        let open = files.get_mut(&number).expect("who gives it back took it");
        open.count -= 1;
        if open.count == 0 {
            files.remove(&number);
        }
    }

    pub(super) fn hold(&self, held: Held) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.handles).insert(handle, held);
        FileHandle(handle)
    }

    pub(super) fn held_file(&self, handle: FileHandle) -> Result<(Arc<OpenFile>, Access), Errno> {
        match lock(&self.handles).get(&handle.0) {
            Some(Held::File(file, access)) => Ok((Arc::clone(file), *access)),
            Some(Held::Directory(_)) | None => Err(Errno::EBADF),
        }
    }

    fn held_directory(
        &self,
        handle: FileHandle,
    ) -> Result<Arc<tokio::sync::Mutex<Listing>>, Errno> {
        match lock(&self.handles).get(&handle.0) {
            Some(Held::Directory(listing)) => Ok(Arc::clone(listing)),
            Some(Held::File(..)) | None => Err(Errno::EBADF),
        }
    }

    /// Attributes as the kernel is told them: with what was written here and is not synced yet.
    pub(super) fn told(&self, attrs: &Attrs) -> FileAttr {
        let number = known::number(attrs.file);
        let mut size = match attrs.kind {
            Kind::File => attrs.size,
            // Its entries, which are not bytes.
            Kind::Directory => u64::from(BLOCK),
        };
        let mut mtime = Duration::from_nanos(attrs.mtime.0);
        if attrs.kind == Kind::File
            && let Some(open) = self.open_file(number)
        {
            let here = open.here();
            size = size.max(here.end);
            mtime = mtime.max(here.written);
            open.told(size);
        }
        let mtime = UNIX_EPOCH + mtime;
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            // There is no time of access.
            atime: mtime,
            mtime,
            ctime: UNIX_EPOCH + Duration::from_nanos(attrs.ctime.0),
            crtime: UNIX_EPOCH + Duration::from_nanos(attrs.crtime.0),
            kind: match attrs.kind {
                Kind::File => FileType::RegularFile,
                Kind::Directory => FileType::Directory,
            },
            perm: u16::try_from(attrs.mode & 0o7777).expect("twelve bits"),
            nlink: attrs.links,
            uid: attrs.uid,
            gid: attrs.gid,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        }
    }

    pub(super) async fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        // What is synced while the answer is on its way is in neither of the two, if it is looked at only then.
        let before = self.open_file(number).map(|open| open.here());
        let attrs = self.kfs.stat_at(by_id(known::file(number))).await;
        let mut told = self.told(&attrs.map_err(|error| errno::of_id(&error))?);
        if let Some(before) = before {
            told.size = told.size.max(before.end);
        }
        Ok(told)
    }

    /// Finds a name; what it stands for is known to the kernel from the reply on.
    pub(super) async fn lookup(&self, parent: u64, name: &[u8]) -> Result<FileAttr, Errno> {
        let at = in_directory(known::file(parent), name);
        let attrs = self.kfs.stat_at(at).await;
        let attrs = attrs.map_err(|error| errno::of(&error))?;
        let told = self.told(&attrs);
        lock(&self.known).looked_up(told.ino.0, parent);
        Ok(told)
    }

    pub(super) async fn open(
        &self,
        number: u64,
        flags: OpenFlags,
    ) -> Result<(FileHandle, FopenFlags), Errno> {
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access::Read,
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => Access::Write,
        };
        let file = self.take(number);
        let opened = match access {
            Access::Read => match file.open_to_read().await {
                Ok(attrs) => Ok(self.cached(number, &attrs, &file)),
                Err(errno) => Err(errno),
            },
            Access::Write => file.open_to_write().await.map(|()| {
                lock(&self.known).changed(number);
                // Where the kernel takes the end to be, and what it caches behind that, is of no matter then.
                if flags.0 & raw(OFlags::APPEND) != 0 {
                    FopenFlags::FOPEN_DIRECT_IO
                } else {
                    FopenFlags::empty()
                }
            }),
        };
        match opened {
            Ok(flags) => Ok((self.hold(Held::File(file, access)), flags)),
            Err(errno) => {
                self.give_back(number);
                Err(errno)
            }
        }
    }

    /// Whether the kernel may keep what it has cached of a file that is being opened.
    fn cached(&self, number: u64, attrs: &Attrs, file: &OpenFile) -> FopenFlags {
        let mut known = lock(&self.known);
        if file.here().end > 0 {
            known.changed(number);
            return FopenFlags::empty();
        }
        if known.is_cached(number, Content::of(attrs)) {
            FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        }
    }

    pub(super) async fn create(
        &self,
        parent: u64,
        name: &[u8],
        owner: Ownership,
        flags: OpenFlags,
    ) -> Result<(FileAttr, FileHandle, FopenFlags), Errno> {
        let options = CreateOptions {
            owner,
            replication: 0,
            keep: Keep::Always,
        };
        let at = in_directory(known::file(parent), name);
        let writer = match self.kfs.create_at(at, options).await {
            Ok(writer) => writer,
            Err(error) => {
                let errno = errno::of(&error);
                // Another client has made it since the kernel looked.
                if errno.code() != Errno::EEXIST.code() || flags.0 & raw(OFlags::EXCL) != 0 {
                    return Err(errno);
                }
                let told = self.lookup(parent, name).await?;
                let number = told.ino.0;
                let opened = if flags.0 & raw(OFlags::TRUNC) != 0 {
                    let empty = self.set_attributes(number, Some(0), Attributes::default());
                    empty.await.map(drop)
                } else {
                    Ok(())
                };
                let opened = match opened {
                    Ok(()) => self.open(number, flags).await,
                    Err(errno) => Err(errno),
                };
                return match opened {
                    Ok((handle, open)) => Ok((told, handle, open)),
                    Err(errno) => {
                        lock(&self.known).forgotten(told.ino.0, 1);
                        Err(errno)
                    }
                };
            }
        };
        let number = known::number(writer.file());
        let file = self.take(number);
        file.begin(writer).await;
        let told = match self.attributes(number).await {
            Ok(told) => told,
            Err(errno) => {
                file.close_writer().await;
                self.give_back(number);
                return Err(errno);
            }
        };
        lock(&self.known).looked_up(number, parent);
        let handle = self.hold(Held::File(file, Access::Write));
        Ok((told, handle, FopenFlags::empty()))
    }

    pub(super) async fn release(&self, number: u64, handle: FileHandle) {
        let held = lock(&self.handles).remove(&handle.0);
        if let Some(Held::File(file, access)) = held {
            if access == Access::Write {
                file.close_writer().await;
                lock(&self.known).changed(number);
            }
            drop(file);
            self.give_back(number);
            // A reader that nobody has any more holds the file until the cluster is told.
            self.kfs.connection().let_go().await;
        }
    }

    pub(super) async fn set_attributes(
        &self,
        number: u64,
        size: Option<u64>,
        to: Attributes,
    ) -> Result<FileAttr, Errno> {
        let open = self.open_file(number);
        if let Some(len) = size {
            let file = self.take(number);
            let set = match file.open_to_write().await {
                Ok(()) => {
                    let set = file.set_len(len).await;
                    file.close_writer().await;
                    set
                }
                refused => refused,
            };
            drop(file);
            self.give_back(number);
            lock(&self.known).changed(number);
            set?;
        }
        if to != Attributes::default() {
            // A sync after it would set the time once more.
            if let (Some(_), Some(open)) = (to.mtime, open) {
                open.sync().await?;
            }
            let set = self
                .kfs
                .set_attributes_at(by_id(known::file(number)), to)
                .await;
            set.map_err(|error| errno::of_id(&error))?;
        }
        self.attributes(number).await
    }

    pub(super) async fn statfs(&self) -> Result<Room, Errno> {
        let status = self.kfs.status().await.map_err(|error| errno::of(&error))?;
        let up = status
            .servers
            .iter()
            .filter(|server| server.state == ServerState::Up);
        let (total, free) = up.fold((0_u64, 0_u64), |(total, free), server| {
            (
                total.saturating_add(server.bytes_total),
                free.saturating_add(server.bytes_free),
            )
        });
        // What can be stored, at the replication that new files have.
        let share = u64::from(BLOCK) * u64::from(status.replication.max(1));
        Ok(Room {
            blocks: total / share,
            free: free / share,
            things: status.files.saturating_add(status.directories),
        })
    }
}

pub(super) struct Room {
    pub(super) blocks: u64,
    pub(super) free: u64,
    pub(super) things: u64,
}

/// A flag of `open` as the kernel gives it.
pub(super) fn raw(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("flags of open are few")
}

/// What an entry of a listing is of.
pub(super) enum Of<'a> {
    /// `.` or `..`, by its number.
    Dot(u64),
    Entry(&'a Attrs),
}

impl Shared {
    /// Fills a part of a listing from this place on, until `add` says that it is full.
    pub(super) async fn fill(
        &self,
        number: u64,
        handle: FileHandle,
        offset: u64,
        mut add: impl FnMut(Of<'_>, u64, &OsStr) -> bool,
    ) -> Result<(), Errno> {
        let listing = self.held_directory(handle)?;
        let mut listing = listing.lock().await;
        let mut nth = offset;
        let parent = lock(&self.known).parent(number);
        for (dot, name, number) in [(0, ".", number), (1, "..", parent)] {
            if nth == dot {
                nth += 1;
                if add(Of::Dot(number), nth, OsStr::new(name)) {
                    return Ok(());
                }
            }
        }
        // What comes behind one page is asked for with the next request.
        let entries = listing.from(nth - DOTS).await;
        let entries = entries.map_err(|error| errno::of_id(&error))?;
        for entry in entries {
            nth += 1;
            if add(Of::Entry(&entry.attrs), nth, OsStr::from_bytes(&entry.name)) {
                break;
            }
        }
        Ok(())
    }
}
