//! How the command fails: exit codes, and errors that say what, where, why, and what to do.
use kfs_core::wire::Status;
use serde::Serialize;
use std::io;

/// What a command answers to the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It is done.
    Done = 0,
    /// The operation failed.
    Failed = 1,
    /// It was asked for in a way that makes no sense.
    Usage = 2,
    /// Something that must be there is not.
    NotFound = 3,
    /// Something is there that must not be.
    Exists = 4,
    /// The cluster, or the part of it that is needed, cannot be reached in time.
    Unreachable = 5,
    /// Data is corrupt or lost.
    Corrupt = 6,
    /// Refused: permission, no room, read-only.
    Refused = 7,
}

impl From<Status> for Exit {
    fn from(status: Status) -> Self {
        match status {
            Status::NotFound => Self::NotFound,
            Status::Exists => Self::Exists,
            Status::Corrupt => Self::Corrupt,
            Status::Permission | Status::NoServers | Status::NoRoom | Status::ReadOnly => {
                Self::Refused
            }
            Status::NotServed
            | Status::NoReplica
            | Status::Busy
            | Status::Unreachable
            | Status::TimedOut => Self::Unreachable,
            Status::NotADirectory
            | Status::IsADirectory
            | Status::NotEmpty
            | Status::BadName
            | Status::BadRequest
            | Status::Overwrite
            | Status::ChainBroken
            | Status::SessionExpired
            | Status::Protocol
            | Status::Unknown
            | Status::LocalIo => Self::Failed,
        }
    }
}

/// Why a command failed, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// Stands in front of the text as `KFS-E001`: a [`Status`], or a server's own code from 60 on. `None` for
    /// an interruption, which is nobody's error.
    pub(crate) code: Option<u16>,
    /// What the shell is told.
    pub(crate) exit: Exit,
    /// One line. Empty: nothing is printed (the reader of our output has gone).
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: Status, what: impl Into<String>) -> Self {
        Self {
            code: Some(status as u16),
            exit: status.into(),
            what: what.into(),
            help: None,
        }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(Status::BadRequest, what)
        }
    }

    /// A file or device of this machine: `doing` says what was tried with it.
    pub(crate) fn local(doing: impl AsRef<str>, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let exit = match error.kind() {
            Kind::NotFound => Exit::NotFound,
            Kind::AlreadyExists => Exit::Exists,
            Kind::PermissionDenied
            | Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::ReadOnlyFilesystem => Exit::Refused,
            _ => Exit::Failed,
        };
        Self {
            exit,
            ..Self::new(Status::LocalIo, format!("{}: {error}", doing.as_ref()))
        }
    }

    /// Writing what was asked for to standard output failed; silent if its reader has gone.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: None,
                exit: Exit::Failed,
                what: String::new(),
                help: None,
            };
        }
        Self::local("cannot write to standard output", error)
    }

    /// A signal asked to stop.
    pub(crate) fn interrupted() -> Self {
        Self {
            code: None,
            exit: Exit::Failed,
            what: "interrupted".into(),
            help: None,
        }
    }

    /// Says what to do, better than it was said so far.
    #[must_use]
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    /// `error[KFS-E001]: …` and `help: …`, each a line.
    pub(crate) fn text(&self) -> String {
        let mut text = match self.code {
            Some(code) => format!("error[{}]: {}\n", shown(code), self.what),
            None => format!("error: {}\n", self.what),
        };
        if let Some(help) = &self.help {
            text.push_str("help: ");
            text.push_str(help);
            text.push('\n');
        }
        text
    }

    /// The same as one line of JSON.
    pub(crate) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            help: Option<&'a str>,
            exit: u8,
        }
        let shape = Shape {
            error: &self.what,
            code: self.code.map(shown),
            help: self.help.as_deref(),
            exit: self.exit as u8,
        };
        serde_json::to_string(&shape).expect("strings and a number have a JSON form") + "\n"
    }
}

fn shown(code: u16) -> String {
    format!("KFS-E{code:03}")
}

#[cfg(feature = "embedded")]
impl From<kfs_server::StartError> for Failure {
    fn from(error: kfs_server::StartError) -> Self {
        let exit = match error.code.exit_code() {
            2 => Exit::Usage,
            5 => Exit::Unreachable,
            6 => Exit::Corrupt,
            7 => Exit::Refused,
            _ => Exit::Failed,
        };
        Self {
            code: Some(error.code as u16),
            exit,
            what: error.what,
            help: error.help,
        }
    }
}

impl From<kfs_client::Error> for Failure {
    fn from(error: kfs_client::Error) -> Self {
        Self {
            help: error.help,
            ..Self::new(error.status, error.what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_code_and_what_to_do() {
        let failure = Failure::new(Status::NoRoom, "no room for /a")
            .help("a general word")
            .help("add a server");
        assert_eq!(
            failure.text(),
            "error[KFS-E021]: no room for /a\nhelp: add a server\n"
        );
        assert_eq!(
            failure.json(),
            "{\"error\":\"no room for /a\",\"code\":\"KFS-E021\",\"help\":\"add a server\",\"exit\":7}\n"
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_no_news() {
        assert_eq!(Failure::stdout(&io::ErrorKind::BrokenPipe.into()).what, "");
        assert_ne!(Failure::stdout(&io::ErrorKind::StorageFull.into()).what, "");
    }

    #[test]
    fn every_status_has_an_exit_code_of_the_documented_eight_and_none_is_success() {
        for status in Status::ALL {
            assert!((1..=7).contains(&(Exit::from(status) as u8)), "{status:?}");
        }
    }
}
