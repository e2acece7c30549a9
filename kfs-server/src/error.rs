//! What a daemon says when it cannot start or cannot go on: a code, what is wrong, and what to do.
//!
//! The codes from 60 on are the daemons' own; those below are the statuses of `kfs_core::wire::status`.
//! Exit codes: 1 failed, 2 bad usage, 5 not reachable, 6 corrupt, 7 refused.
use crate::disk::OpenError;
use kfs_core::machine::{Fault, FaultKind};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Why a daemon does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Code {
    /// A write or a sync of the log or the identity failed.
    DiskFailed = 60,
    /// The data directory is damaged.
    DataCorrupt = 61,
    /// The data directory, or the cluster, belongs elsewhere.
    DataRefused = 62,
    /// An address cannot be listened on.
    CannotListen = 63,
    /// Another process uses the data directory.
    DataInUse = 64,
    /// The data directory cannot be opened.
    DataUnusable = 65,
    /// A flag, an environment variable or the configuration file is wrong.
    BadConfig = 66,
    /// A host name has no address.
    UnknownHost = 67,
    /// The process is broken: a statement that must hold did not.
    Panicked = 68,
}

impl Code {
    /// What the process exits with.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::DiskFailed | Self::CannotListen | Self::DataUnusable | Self::Panicked => 1,
            Self::BadConfig => 2,
            Self::UnknownHost => 5,
            Self::DataCorrupt => 6,
            Self::DataRefused | Self::DataInUse => 7,
        }
    }
}

/// An error for the operator. Displayed as `error[KFS-E063]: what`, and a line `help: …` where there is help.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartError {
    /// Which kind.
    pub code: Code,
    /// What, where, why: one line.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
}

impl StartError {
    /// An error without advice.
    #[must_use]
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            help: None,
        }
    }
    /// With advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
    /// `addr`, given by the flag `flag`, cannot be listened on.
    pub(crate) fn cannot_listen(flag: &str, addr: SocketAddr, err: &io::Error) -> Self {
        let what = format!("cannot listen on {addr} (--{flag}): {err}");
        let help = match err.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another process listens there ('ss -ltnp' names it): stop it, or choose another address with \
                 --{flag}; port 0 takes any free one"
            ),
            io::ErrorKind::AddrNotAvailable => {
                format!("this machine has no such address: choose one of its own with --{flag}")
            }
            io::ErrorKind::PermissionDenied => format!("choose a port from 1024 on with --{flag}"),
            _ => format!("choose another address with --{flag}"),
        };
        Self::new(Code::CannotListen, what).help(help)
    }
    /// The data directory cannot be opened.
    pub(crate) fn open(err: &OpenError) -> Self {
        match err {
            OpenError::Locked(dir) => {
                Self::new(Code::DataInUse, format!("the data directory {} is in use by another server", dir.display()))
                    .help("stop that server ('fuser -v' on the directory names it), or give this one a directory of its own with --data")
            }
            OpenError::MirrorLocked(dir) => {
                Self::new(Code::DataInUse, format!("the log mirror {} is in use by another server", dir.display()))
                    .help("stop that server ('fuser -v' on the directory names it), or give this one a directory of its own with --log-mirror")
            }
            OpenError::Nested(dir) => {
                Self::new(Code::BadConfig, format!("the log mirror {} and the data directory lie in one another", dir.display()))
                    .help("name a directory on another disk with --log-mirror")
            }
            OpenError::Mirror { path, error } => {
                let code = match error.kind() {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::DataRefused,
                    _ => Code::DataUnusable,
                };
                Self::new(code, format!("cannot open the log mirror {}: {error}", path.display()))
                    .help("give a directory that this user may make and write with --log-mirror, or start without it")
            }
            OpenError::Io { path, error } => {
                let code = match error.kind() {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::DataRefused,
                    _ => Code::DataUnusable,
                };
                Self::new(code, format!("cannot open the data directory {}: {error}", path.display()))
                    .help("give a directory that this user may make and write with --data")
            }
        }
    }
    /// The machine stopped with `fault` over the data directory `dir`.
    #[must_use]
    pub fn fault(dir: &Path, fault: &Fault) -> Self {
        let (code, advice) = match fault.kind {
            FaultKind::Disk => (
                Code::DiskFailed,
                "nothing that was acknowledged is lost; check the disk (its file system, 'dmesg') before the next start",
            ),
            FaultKind::Corrupt => (
                Code::DataCorrupt,
                "nothing was changed; put the damaged file back from a backup, and keep a copy of this directory",
            ),
            FaultKind::Refused => (
                Code::DataRefused,
                "nothing was changed; check that --data, --meta and --cluster-id are those of one cluster",
            ),
        };
        let what = format!("{} (data directory {})", fault.what, dir.display());
        Self::new(code, what).help(fault.help.as_deref().unwrap_or(advice))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[KFS-E{:03}]: {}", self.code as u16, self.what)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}
impl std::error::Error for StartError {}
