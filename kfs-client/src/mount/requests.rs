//! What the kernel asks for, carried out by the library: one task a request, a bounded number at a time.
//!
//! The thread that takes requests from the kernel only hands them on. Names are looked up anew each time: no answer
//! to a lookup may be kept by the kernel, so that what another client renames or replaces is seen by the next opening.
//! What a listing gave may be kept for a second; an opening of something that is gone by then has the kernel look again.
use super::errno;
use super::known;
use super::listing::Listing;
use super::open_file::Where;
use super::shared::{Access, BLOCK, Held, Of, Shared, lock, raw};
use crate::by_id::in_directory;
use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use kfs_core::client::FILE_BYTES_MAX;
use kfs_core::time::UnixNanos;
use kfs_core::wire::client_meta::{Attributes, Kind, Ownership, RenameMode, TimeOf};
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;

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

fn owner(request: &Request, mode: u32, umask: u32) -> Ownership {
    Ownership {
        uid: request.uid(),
        gid: request.gid(),
        mode: mode & !umask & 0o7777,
    }
}

/// What becomes of a name that is taken. The kernel looks itself, too, but another client may be faster.
fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else {
        Err(Errno::EINVAL)
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
        let mode = match rename_mode(flags) {
            Ok(mode) => mode,
            Err(errno) => return reply.error(errno),
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
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > FILE_BYTES_MAX) {
            return reply.error(Errno::EFBIG);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_that_may_replace_nothing_is_told_from_others_and_two_names_are_not_exchanged() {
        let mode = |flags| rename_mode(flags).map_err(Errno::code);
        assert_eq!(mode(RenameFlags::empty()), Ok(RenameMode::Replace));
        let no_replace = RenameFlags::RENAME_NOREPLACE;
        assert_eq!(mode(no_replace), Ok(RenameMode::NoReplace));
        let exchange = RenameFlags::RENAME_EXCHANGE;
        assert_eq!(mode(exchange), Err(Errno::EINVAL.code()));
        assert_eq!(mode(exchange | no_replace), Err(Errno::EINVAL.code()));
    }

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
