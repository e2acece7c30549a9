//! How a call failed, for programs (the status) and for people (what, where, why, and what to do).
use kfs_core::client::Failure;
use kfs_core::wire::Status;
use std::fmt;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// How a call failed. Printed as `error[KFS-E021]: what`, with a line `help: …` below it if there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Why, for programs. [`Status::Unknown`]: it may or may not have been done.
    pub status: Status,
    /// What, where, why, and what was tried: one line.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Error {
    /// An error of this status, with the help that goes with it.
    #[must_use]
    pub fn new(status: Status, what: impl Into<String>) -> Self {
        Self {
            status,
            what: what.into(),
            help: help(status).map(Into::into),
        }
    }

    /// The code that people see, as `KFS-E021`.
    #[must_use]
    pub fn code(&self) -> String {
        self.status.code()
    }

    /// The same, naming this path if nothing names it yet.
    pub(crate) fn at(mut self, path: &[u8]) -> Self {
        let path = String::from_utf8_lossy(path);
        if !self.what.contains(&*path) {
            self.what = format!("{path}: {}", self.what);
        }
        self
    }

    /// The task that drives the client is gone, with its runtime or after a disconnect.
    pub(crate) fn gone() -> Self {
        Self::new(Status::BadRequest, "the client has stopped")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.status, failure.what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code(), self.what)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// What to do about an error of this status.
const fn help(status: Status) -> Option<&'static str> {
    match status {
        Status::NotFound
        | Status::NotADirectory
        | Status::IsADirectory
        | Status::Permission
        | Status::LocalIo
        | Status::BadRequest => None,
        Status::Exists => Some("choose another name, or replace what is there"),
        Status::NotEmpty => Some("remove its entries first"),
        Status::BadName => Some("a path is /a/b; a name has 1 to 255 bytes and is not '.' or '..'"),
        Status::Overwrite => Some("a server of an older build says so: update it"),
        Status::NoServers => Some("start chunkservers, and see 'kfs status' for those that are up"),
        Status::NoRoom => {
            Some("add a server, or remove files and wait for the reclaim shown by 'kfs status'")
        }
        Status::ChainBroken | Status::NotServed => {
            Some("write the file again: it is placed on servers that are up")
        }
        Status::Corrupt => Some("every copy is damaged: restore the file from where it came from"),
        Status::NoReplica => {
            Some("see 'kfs status' for servers that are down, start them, and try again")
        }
        Status::SessionExpired => Some("the client was silent for too long: open the file again"),
        Status::Busy => Some("try again later"),
        Status::ReadOnly => {
            Some("see 'kfs status' for why changes are refused, and what can be done")
        }
        Status::Unreachable | Status::TimedOut => Some(
            "see that the servers run, that --meta names the meta server, and give it more --timeout",
        ),
        Status::Protocol => Some("see that both ends are the same version of KFS"),
        Status::Unknown => Some("look whether it was done before doing it again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_code_what_and_help() {
        let error = Error::new(Status::NoRoom, "no chunkserver has room").at(b"/a/b");
        let text = error.to_string();
        assert!(
            text.starts_with("error[KFS-E021]: /a/b: no chunkserver has room\nhelp: add a server"),
            "{text}"
        );
        assert_eq!(error.clone().at(b"/a/b"), error, "a path is named once");
    }
}
