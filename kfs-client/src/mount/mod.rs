//! A cluster as a directory of this machine, through the kernel's FUSE.
//!
//! Read `requests` next (what the kernel asks for), then `shared` (what that comes to) and `open_file` (what is kept of an
//! open file).
//! Close-to-open holds as the library promises it: a close has synced, and every opening asks the meta server anew.
//! Why it is as it is, and what it refuses, stands in `docs/decisions/0016-the-mount-keeps-close-to-open.md`.
mod errno;
mod gathering;
mod known;
mod listing;
mod open_file;
mod requests;
mod shared;

use self::requests::{REQUESTS_MAX, Requests};
use self::shared::Shared;
use crate::connect::Kfs;
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The type of these mounts, as `/proc/self/mountinfo` has it.
pub const TYPE: &str = "fuse.kfs";

/// Whether programs may change what is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changes {
    /// They may, as far as permissions say so.
    Allowed,
    /// The kernel refuses them.
    Refused,
}

/// A mount that is being served.
#[derive(Debug)]
pub struct Mount {
    shared: Arc<Shared>,
    mountpoint: PathBuf,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

impl Mount {
    /// Mounts the cluster of this client, named `source` in lists of mounts, on a directory, and serves it from a thread
    /// and tasks of this runtime. Who is not root sees a mount of their own only.
    ///
    /// # Errors
    /// If there is no `/dev/fuse`, or the kernel refuses to mount.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(kfs: Kfs, mountpoint: &Path, source: String, changes: Changes) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(kfs));
        let requests = Requests {
            shared: Arc::clone(&shared),
            runtime: tokio::runtime::Handle::current(),
        };
        let session = if rustix::process::geteuid().is_root() {
            mounted(requests, mountpoint, &source, changes)?
        } else {
            mounted_by_fusermount(requests, mountpoint, source, changes)?
        };
        let (over, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("mount".into())
            .spawn(move || {
                // Whoever waited for it may have gone.
                let _ = over.send(session.run());
            })?;
        Ok(Self {
            shared,
            mountpoint: mountpoint.to_path_buf(),
            ended: Some(ended),
        })
    }

    /// Waits until the kernel has let go of the mount: it was unmounted, and nobody has anything open in it.
    ///
    /// # Errors
    /// If talking to the kernel failed.
    pub async fn ended(&mut self) -> io::Result<()> {
        let Some(ended) = &mut self.ended else {
            return Ok(());
        };
        let outcome = ended.await;
        self.ended = None;
        outcome.unwrap_or_else(|_| Err(io::Error::other("the thread that served the mount died")))
    }

    /// Syncs all that is open, and has the kernel unmount: at once, or, if programs have files open in it, when they have
    /// closed them; nobody finds it any more from now on. [`Self::ended`] tells when it is done. Gives how many files
    /// could not be synced, for reasons that are in the log.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn unmount(&self) -> io::Result<usize> {
        let failed = self.shared.sync_all().await;
        let mountpoint = self.mountpoint.clone();
        // The kernel may have something written back before it unmounts, which is for us to do.
        let unmounted = tokio::task::spawn_blocking(move || {
            unmount(&mountpoint, Ends::Now).or_else(|_| unmount(&mountpoint, Ends::WhenClosed))
        });
        match unmounted.await {
            Ok(unmounted) => unmounted?,
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(failed)
    }

    /// Syncs and closes whatever is still open, once what the kernel has asked for is done. To be called last.
    pub async fn finish(self) {
        let slots = u32::try_from(REQUESTS_MAX).expect("not many");
        // Requests end by themselves, each within the time of a call; then nobody asks for anything any more.
        let _all = self.shared.slots.acquire_many(slots).await;
        self.shared.finish_all().await;
    }
}

/// When a mount ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Now, or not at all if programs have something open in it.
    Now,
    /// When they have closed it; nobody finds it any more from now on.
    WhenClosed,
}

/// Unmounts what is mounted on a directory: by the kernel's call, or, for who is not root, by the program that is
/// installed for that.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if something is open in it, or that the kernel refuses.
pub fn unmount(mountpoint: &Path, ends: Ends) -> io::Result<()> {
    let (flags, options) = match ends {
        Ends::Now => (UnmountFlags::empty(), "-u"),
        Ends::WhenClosed => (UnmountFlags::DETACH, "-uz"),
    };
    match rustix::mount::unmount(mountpoint, flags) {
        Err(rustix::io::Errno::PERM) => {
            let mut program = std::process::Command::new("fusermount3");
            let said = program.arg(options).arg("--").arg(mountpoint).output()?;
            if said.status.success() {
                return Ok(());
            }
            let why = String::from_utf8_lossy(&said.stderr);
            Err(io::Error::other(why.trim().to_owned()))
        }
        done => Ok(done?),
    }
}

/// Mounts by the kernel's call, for everybody on this machine: permissions say who may do what.
fn mounted(
    requests: Requests,
    mountpoint: &Path,
    source: &str,
    changes: Changes,
) -> io::Result<Session<Requests>> {
    let device = rustix::fs::open(
        "/dev/fuse",
        OFlags::RDWR | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let options = CString::new(options).expect("there is no zero in it");
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if changes == Changes::Refused {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(source, mountpoint, TYPE, flags, options.as_c_str())?;
    let session = Session::from_fd(requests, device, SessionACL::All, Config::default());
    if session.is_err() {
        // Nobody serves it.
        let _ = unmount(mountpoint, Ends::WhenClosed);
    }
    session
}

/// Mounts for this user only, by the program that is installed for that.
fn mounted_by_fusermount(
    requests: Requests,
    mountpoint: &Path,
    source: String,
    changes: Changes,
) -> io::Result<Session<Requests>> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source),
        MountOption::Subtype("kfs".into()),
        MountOption::DefaultPermissions,
        match changes {
            Changes::Allowed => MountOption::RW,
            Changes::Refused => MountOption::RO,
        },
    ];
    config.acl = SessionACL::Owner;
    Session::new(requests, mountpoint, &config)
}
