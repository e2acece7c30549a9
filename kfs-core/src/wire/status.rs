//! Status codes: why something was refused, and, in one table, whether trying again may help.
use core::fmt;
use serde::{Deserialize, Serialize};

/// Why a request was not done. The numbers are the codes that people see (`KFS-E021`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u16)]
pub enum Status {
    /// A name of the path is not there.
    NotFound = 1,
    /// The name is there already.
    Exists = 2,
    /// A component of the path is a file.
    NotADirectory = 3,
    /// It is a directory and was to be a file.
    IsADirectory = 4,
    /// The directory has entries.
    NotEmpty = 5,
    /// A name that cannot be: empty, too long, `.` or `..`, with a NUL or a slash.
    BadName = 6,
    /// The request makes no sense: a directory into itself, a size over a promise, an unknown handle.
    BadRequest = 7,
    /// The caller may not.
    Permission = 8,
    /// Bytes that were written cannot be written again.
    Overwrite = 9,
    /// Not enough chunkservers are alive for a new chunk.
    NoServers = 20,
    /// No chunkserver has room for a new chunk.
    NoRoom = 21,
    /// The chain of a chunk that is being written is broken.
    ChainBroken = 22,
    /// The chunk is not served here: unknown, damaged, stale, or past the file's length.
    NotServed = 23,
    /// Bytes did not match their sums.
    Corrupt = 24,
    /// No replica of the chunk can be had at the moment.
    NoReplica = 25,
    /// The session is unknown or has expired.
    SessionExpired = 30,
    /// Not ready yet, or too many requests: try again.
    Busy = 31,
    /// The meta server refuses mutations, with the reason in the text.
    ReadOnly = 32,
    /// The peer cannot be reached, or did not answer in time.
    Unreachable = 40,
    /// The time for the call is used up.
    TimedOut = 41,
    /// The peer broke the protocol, or speaks another.
    Protocol = 42,
    /// Whether it was done is not known: the answer was lost and cannot be asked for again.
    Unknown = 43,
    /// A file or device of the machine this runs on failed.
    LocalIo = 50,
}

impl Status {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 23] = [
        Self::NotFound,
        Self::Exists,
        Self::NotADirectory,
        Self::IsADirectory,
        Self::NotEmpty,
        Self::BadName,
        Self::BadRequest,
        Self::Permission,
        Self::Overwrite,
        Self::NoServers,
        Self::NoRoom,
        Self::ChainBroken,
        Self::NotServed,
        Self::Corrupt,
        Self::NoReplica,
        Self::SessionExpired,
        Self::Busy,
        Self::ReadOnly,
        Self::Unreachable,
        Self::TimedOut,
        Self::Protocol,
        Self::Unknown,
        Self::LocalIo,
    ];

    /// The code as people see it.
    #[must_use]
    pub fn code(self) -> String {
        format!("KFS-E{:03}", self as u16)
    }

    /// Whether the same request may succeed later without anybody doing anything: the one table of it.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self {
            Self::Busy | Self::NoReplica | Self::Unreachable | Self::NotServed => Retry::Later,
            Self::NotFound
            | Self::Exists
            | Self::NotADirectory
            | Self::IsADirectory
            | Self::NotEmpty
            | Self::BadName
            | Self::BadRequest
            | Self::Permission
            | Self::Overwrite
            | Self::NoServers
            | Self::NoRoom
            | Self::ChainBroken
            | Self::Corrupt
            | Self::SessionExpired
            | Self::ReadOnly
            | Self::TimedOut
            | Self::Protocol
            | Self::Unknown
            | Self::LocalIo => Retry::Never,
        }
    }
}

/// See [`Status::retry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It may, after a while.
    Later,
    /// It will not.
    Never,
}

/// A refusal as it travels: the status and one line that says what and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Which.
    pub status: Status,
    /// What, where, why: one line.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(status: Status, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.status.code(), self.detail)
    }
}
