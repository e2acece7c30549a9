//! What the kernel asks for, carried out by the library: one task a request, a bounded number at a time.
//!
//! The thread that takes requests from the kernel only hands them on. Names are looked up anew each time: no answer
//! to a lookup may be kept by the kernel, so that what another client renames or replaces is seen by the next opening.
//! What a listing gave may be kept for a second; an opening of something that is gone by then has the kernel look again.
use super::errno;
use super::known::{self, Content, Known};
use super::listing::{DOTS, Listing};
use super::open_file::{OpenFile, Where};
use crate::by_id::{by_id, in_directory};
use crate::connect::{CreateOptions, Kfs};
use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use kfs_core::time::UnixNanos;
use kfs_core::wire::client_meta::{
    Attributes, Attrs, Keep, Kind, Ownership, RenameMode, ServerState, TimeOf,
};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Requests that are worked on at a time; each may hold a megabyte.
pub(super) const REQUESTS_MAX: usize = 128;
/// What the kernel reads and writes at once, at most.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Reads ahead of the kernel that may wait for an answer.
const BACKGROUND_MAX: u16 = 64;
/// No answer to a lookup is kept: see the head of this file.
const NOT_KEPT: Duration = Duration::ZERO;
/// What is in a listing is kept so long.
const LISTED_KEPT: Duration = Duration::from_secs(1);
/// Ids are never given a second time.
const GENERATION: Generation = Generation(0);
/// A block, as `statfs` and `stat` count them.
const BLOCK: u32 = 4_096;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    kfs: Kfs,
    known: Mutex<Known>,
    files: Mutex<HashMap<u64, Opened>>,
    handles: Mutex<HashMap<u64, Held>>,
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
enum Held {
    File(Arc<OpenFile>, Access),
    Directory(Arc<tokio::sync::Mutex<Listing>>),
}

/// What a file was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read,
    Write,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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

    /// One more has the file open; whether it is the first.
    fn take(&self, number: u64) -> (Arc<OpenFile>, bool) {
        let mut files = lock(&self.files);
        let open = files.entry(number).or_insert_with(|| Opened {
            file: Arc::new(OpenFile::new(self.kfs.clone(), known::file(number))),
            count: 0,
        });
        open.count += 1;
        (Arc::clone(&open.file), open.count == 1)
    }

    fn give_back(&self, number: u64) {
        let mut files = lock(&self.files);
        let open = files.get_mut(&number).expect("who gives it back took it");
        open.count -= 1;
        if open.count == 0 {
            files.remove(&number);
        }
    }

    fn hold(&self, held: Held) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.handles).insert(handle, held);
        FileHandle(handle)
    }

    fn held_file(&self, handle: FileHandle) -> Result<(Arc<OpenFile>, Access), Errno> {
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
    fn told(&self, attrs: &Attrs) -> FileAttr {
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

    async fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
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
    async fn lookup(&self, parent: u64, name: &[u8]) -> Result<FileAttr, Errno> {
        let at = in_directory(known::file(parent), name);
        let attrs = self.kfs.stat_at(at).await;
        let attrs = attrs.map_err(|error| errno::of(&error))?;
        let told = self.told(&attrs);
        lock(&self.known).looked_up(told.ino.0, parent);
        Ok(told)
    }

    async fn open(&self, number: u64, flags: OpenFlags) -> Result<(FileHandle, FopenFlags), Errno> {
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access::Read,
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => Access::Write,
        };
        let (file, is_first) = self.take(number);
        let opened = match access {
            Access::Read => match file.open_to_read().await {
                // It lost its name since the kernel found it, or another file has that now.
                Ok(attrs) if attrs.links == 0 && is_first => Err(Errno::ESTALE),
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

    async fn create(
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
        let (file, _) = self.take(number);
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

    async fn release(&self, number: u64, handle: FileHandle) {
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

    async fn set_attributes(
        &self,
        number: u64,
        size: Option<u64>,
        to: Attributes,
    ) -> Result<FileAttr, Errno> {
        let open = self.open_file(number);
        if let Some(len) = size {
            let attrs = self.kfs.stat_at(by_id(known::file(number))).await;
            let attrs = attrs.map_err(|error| errno::of_id(&error))?;
            let file = open
                .clone()
                .unwrap_or_else(|| Arc::new(OpenFile::new(self.kfs.clone(), attrs.file)));
            file.set_len(len, &attrs).await?;
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

    async fn statfs(&self) -> Result<Room, Errno> {
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

struct Room {
    blocks: u64,
    free: u64,
    things: u64,
}

/// A flag of `open` as the kernel gives it.
fn raw(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("flags of open are few")
}

fn owner(request: &Request, mode: u32, umask: u32) -> Ownership {
    Ownership {
        uid: request.uid(),
        gid: request.gid(),
        mode: mode & !umask & 0o7777,
    }
}

/// A time that is set: none before 1970 can be.
fn time(given: TimeOrNow) -> Result<TimeOf, Errno> {
    match given {
        TimeOrNow::Now => Ok(TimeOf::Change),
        TimeOrNow::SpecificTime(time) => {
            let since = time.duration_since(UNIX_EPOCH).map_err(|_| Errno::EINVAL)?;
            let nanos = u64::try_from(since.as_nanos()).map_err(|_| Errno::EINVAL)?;
            Ok(TimeOf::Given(UnixNanos(nanos)))
        }
    }
}

/// Takes requests from the kernel.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Handle,
}

impl Requests {
    /// Has a request worked on. With too many of them the kernel waits.
    fn go<F>(&self, work: impl FnOnce(Arc<Shared>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::clone(&self.shared.slots);
        let slot = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => self
                .runtime
                .block_on(slots.acquire_owned())
                .expect("slots are never closed"),
        };
        let work = work(Arc::clone(&self.shared));
        self.runtime.spawn(async move {
            work.await;
            drop(slot);
        });
    }

    /// One that is answered by its success only.
    fn go_empty<F>(&self, reply: ReplyEmpty, work: impl FnOnce(Arc<Shared>) -> F)
    where
        F: Future<Output = Result<(), Errno>> + Send + 'static,
    {
        self.go(|shared| {
            let work = work(shared);
            async move {
                match work.await {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(errno),
                }
            }
        });
    }
}

impl Filesystem for Requests {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The other answers say what the nearest is that can be had, which is as good.
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        if let Err(most) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.go(|shared| async move {
            match shared.lookup(parent.0, &name).await {
                Ok(told) => reply.entry(&NOT_KEPT, &told, GENERATION),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        lock(&self.shared.known).forgotten(number.0, count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.go(|shared| async move {
            match shared.attributes(number.0).await {
                Ok(told) => reply.attr(&NOT_KEPT, &told),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mtime = match mtime.map(time).transpose() {
            Ok(mtime) => mtime,
            Err(errno) => return reply.error(errno),
        };
        let to = Attributes {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            mtime,
        };
        self.go(|shared| async move {
            match shared.set_attributes(number.0, size, to).await {
                Ok(told) => reply.attr(&NOT_KEPT, &told),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        const KIND: u32 = 0o170_000;
        const REGULAR: u32 = 0o100_000;
        if mode & KIND != REGULAR {
            return reply.error(Errno::EPERM);
        }
        let (name, owner) = (name.as_bytes().to_vec(), owner(request, mode, umask));
        self.go(|shared| async move {
            let flags = OpenFlags(raw(OFlags::EXCL));
            match shared.create(parent.0, &name, owner, flags).await {
                Ok((told, handle, _)) => {
                    shared.release(told.ino.0, handle).await;
                    reply.entry(&NOT_KEPT, &told, GENERATION);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (name, owner) = (name.as_bytes().to_vec(), owner(request, mode, umask));
        self.go(|shared| async move {
            let at = in_directory(known::file(parent.0), &name);
            let made = shared.kfs.mkdir_at(at, owner).await;
            let found = match made {
                Ok(()) => shared.lookup(parent.0, &name).await,
                Err(error) => Err(errno::of(&error)),
            };
            match found {
                Ok(told) => reply.entry(&NOT_KEPT, &told, GENERATION),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let at = in_directory(known::file(parent.0), name.as_bytes());
        self.go_empty(reply, |shared| async move {
            let removed = shared.kfs.remove_at(at).await;
            removed.map_err(|error| errno::of(&error))
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let at = in_directory(known::file(parent.0), name.as_bytes());
        self.go_empty(reply, |shared| async move {
            let removed = shared.kfs.rmdir_at(at).await;
            removed.map_err(|error| errno::of(&error))
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else {
            return reply.error(Errno::EINVAL);
        };
        let from = in_directory(known::file(parent.0), name.as_bytes());
        let to = in_directory(known::file(newparent.0), newname.as_bytes());
        self.go_empty(reply, |shared| async move {
            let renamed = shared.kfs.rename_at(from, to, mode).await;
            renamed.map_err(|error| errno::of(&error))
        });
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.go(|shared| async move {
            match shared.open(number.0, flags).await {
                Ok((handle, flags)) => reply.opened(handle, flags),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, owner) = (name.as_bytes().to_vec(), owner(request, mode, umask));
        self.go(|shared| async move {
            match shared
                .create(parent.0, &name, owner, OpenFlags(flags))
                .await
            {
                Ok((told, handle, flags)) => {
                    reply.created(&NOT_KEPT, &told, GENERATION, handle, flags);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.go(|shared| async move {
            let read = match shared.held_file(handle) {
                Ok((file, _)) => file.read(offset, size as usize).await,
                Err(errno) => Err(errno),
            };
            match read {
                Ok(read) => match read.parts.as_slice() {
                    [] => reply.data(&[]),
                    [one] => reply.data(one),
                    many => reply.data(&many.concat()),
                },
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The buffer that it is in is the next request's.
        let data = Bytes::copy_from_slice(data);
        // What comes from a mapping belongs where it is, however the file was opened.
        let from_cache = how.contains(WriteFlags::FUSE_WRITE_CACHE);
        let at = if flags.0 & raw(OFlags::APPEND) != 0 && !from_cache {
            Where::End
        } else {
            Where::At(offset)
        };
        self.go(|shared| async move {
            let size = u32::try_from(data.len()).expect("a request is small");
            let wrote = match shared.held_file(handle) {
                Ok((file, _)) => file.write(at, data).await,
                Err(errno) => Err(errno),
            };
            match wrote {
                Ok(()) => reply.written(size),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.go_empty(reply, |shared| async move {
            match shared.held_file(handle)? {
                (file, Access::Write) => file.sync().await,
                (_, Access::Read) => Ok(()),
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.go_empty(reply, |shared| async move {
            shared.release(number.0, handle).await;
            Ok(())
        });
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.go_empty(reply, |shared| async move {
            let (file, _) = shared.held_file(handle)?;
            file.sync().await
        });
    }

    /// What the meta server has acknowledged is durable.
    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listing = Listing::new(self.shared.kfs.clone(), known::file(number.0));
        let held = Held::Directory(Arc::new(tokio::sync::Mutex::new(listing)));
        reply.opened(self.shared.hold(held), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.go(|shared| async move {
            let filled = shared
                .fill(number.0, handle, offset, |of, next, name| match of {
                    Of::Dot(number) => reply.add(INodeNo(number), next, FileType::Directory, name),
                    Of::Entry(attrs) => reply.add(
                        INodeNo(known::number(attrs.file)),
                        next,
                        kind(attrs.kind),
                        name,
                    ),
                })
                .await;
            match filled {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.go(|shared| async move {
            let parent = number.0;
            let filled = shared
                .fill(parent, handle, offset, |of, next, name| match of {
                    Of::Dot(number) => {
                        let told = dot(number);
                        reply.add(told.ino, next, name, &NOT_KEPT, &told, GENERATION)
                    }
                    Of::Entry(attrs) => {
                        let told = shared.told(attrs);
                        let full = reply.add(told.ino, next, name, &LISTED_KEPT, &told, GENERATION);
                        if !full {
                            lock(&shared.known).looked_up(told.ino.0, parent);
                        }
                        full
                    }
                })
                .await;
            match filled {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.shared.handles).remove(&handle.0);
        reply.ok();
    }

    /// Every file is asked by some programs whether it is a terminal.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _flags: fuser::IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    /// With this answer the kernel asks for none of them any more.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: fuser::ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: fuser::ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.go(|shared| async move {
            match shared.statfs().await {
                Ok(room) => reply.statfs(
                    room.blocks,
                    room.free,
                    room.free,
                    room.things,
                    // There is no bound but memory.
                    u64::from(u32::MAX),
                    BLOCK,
                    NAME_BYTES_MAX,
                    BLOCK,
                ),
                Err(errno) => reply.error(errno),
            }
        });
    }
}

const NAME_BYTES_MAX: u32 = 255;

/// What an entry of a listing is of.
enum Of<'a> {
    /// `.` or `..`, by its number.
    Dot(u64),
    Entry(&'a Attrs),
}

const fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    }
}

/// The kernel takes the number and the kind of `.` and `..`, and nothing else.
fn dot(number: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

impl Shared {
    /// Fills a part of a listing from this place on, until `add` says that it is full.
    async fn fill(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_refused_and_others_are_kept_to_the_nanosecond() {
        let at = UNIX_EPOCH + Duration::new(5, 7);
        let given = time(TimeOrNow::SpecificTime(at));
        assert_eq!(given.ok(), Some(TimeOf::Given(UnixNanos(5_000_000_007))));
        let before = UNIX_EPOCH - Duration::from_nanos(1);
        let refused = time(TimeOrNow::SpecificTime(before)).err();
        assert_eq!(refused.map(Errno::code), Some(Errno::EINVAL.code()));
        assert_eq!(time(TimeOrNow::Now).ok(), Some(TimeOf::Change));
    }
}
