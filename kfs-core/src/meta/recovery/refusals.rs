//! What a start refuses, and in which words: each names what is wrong, and what to do.
use super::super::Config;
use super::super::mirror::Side;
use super::super::oplog::Damage;
use super::merge::Conflict;
use crate::identity::{Identity, Owner};
use crate::ids::{ClusterId, LogSeq};
use crate::machine::{
    DirEntry, DiskDone, DiskError, DiskOp, DiskResult, Fault, FaultKind, FileName,
};
use bytes::Bytes;

pub(super) fn read_identity(config: &Config, bytes: &[u8]) -> Result<Identity, Fault> {
    let refused = |what: String| Fault {
        kind: FaultKind::Refused,
        what,
        help: None,
    };
    let identity = Identity::decode(bytes).map_err(|error| Fault {
        kind: FaultKind::Corrupt,
        what: format!("the identity file cannot be used: {error}"),
        help: Some("restore it from the backup: whose data this is cannot be guessed".into()),
    })?;
    match identity.owner {
        Owner::Meta => {}
        Owner::Chunk => {
            return Err(refused(
                "the data directory belongs to a chunkserver, not to a meta server".into(),
            ));
        }
        Owner::Mirror => {
            return Err(refused(
                "the data directory is a mirror of a log, and no meta server's own".into(),
            ));
        }
    }
    match config.cluster {
        Some(cluster) if cluster != identity.cluster => {
            let found = identity.cluster;
            Err(refused(format!(
                "the data directory belongs to cluster {found}, not to cluster {cluster}"
            )))
        }
        Some(_) | None => Ok(identity),
    }
}

pub(super) fn entries(result: DiskResult, what: &str) -> Result<Vec<DirEntry>, Fault> {
    match result {
        Ok(DiskDone::Entries(entries)) => Ok(entries),
        Ok(DiskDone::Done | DiskDone::Data(_) | DiskDone::Space { .. }) => {
            panic!("a listing gives entries")
        }
        Err(DiskError::NotFound) => Err(Fault {
            kind: FaultKind::Corrupt,
            what: format!("{what} is missing from a data directory that has an identity file"),
            help: Some("restore it from the backup or a mirror".into()),
        }),
        Err(error @ (DiskError::Exists | DiskError::NoSpace | DiskError::Io(_))) => {
            Err(unreadable(what, &error))
        }
    }
}

pub(super) fn data(result: DiskResult, what: &str) -> Result<Bytes, Fault> {
    match result {
        Ok(DiskDone::Data(bytes)) => Ok(bytes),
        Ok(DiskDone::Done | DiskDone::Entries(_) | DiskDone::Space { .. }) => {
            panic!("a read gives data")
        }
        Err(error) => Err(unreadable(what, &error)),
    }
}

pub(super) fn unreadable(what: &str, error: &DiskError) -> Fault {
    Fault {
        kind: FaultKind::Disk,
        what: format!("cannot read {what}: {error}"),
        help: Some("check the disk of the data directory".into()),
    }
}

pub(super) fn no_data() -> Fault {
    Fault {
        kind: FaultKind::Refused,
        what: "the data directory has no identity file: no meta server has started on it".into(),
        help: None,
    }
}

pub(super) fn without_identity(name: &str) -> Fault {
    Fault {
        kind: FaultKind::Refused,
        what: format!("the data directory has files but no identity file, '{name}' among them"),
        help: Some(
            "name an empty or missing directory, or restore the identity file from the backup"
                .into(),
        ),
    }
}

pub(super) fn damaged(damage: Damage) -> Fault {
    Fault {
        kind: FaultKind::Corrupt,
        what: format!("the log is damaged, and acknowledged changes with it: {damage}"),
        help: Some("restore the file from the backup or a mirror; nothing was changed".into()),
    }
}

/// Somebody else removes what is about to be read, again and again.
pub(super) fn changing(times: u32) -> Fault {
    Fault {
        kind: FaultKind::Refused,
        what: format!(
            "checkpoints and segments of the log went {times} times while they were about to be read: the server beside this makes checkpoints faster than they can be read"
        ),
        help: Some("try again, or let the server make them less often".into()),
    }
}

/// An empty directory that was to belong to a cluster.
pub(super) fn empty(cluster: ClusterId) -> Fault {
    Fault {
        kind: FaultKind::Refused,
        what: format!("the data directory is empty, and was to belong to cluster {cluster}"),
        help: Some(
            "mount or restore its data; to begin a new cluster, leave --cluster-id out".into(),
        ),
    }
}

pub(super) fn strange_mirror(name: &str) -> Fault {
    Fault {
        kind: FaultKind::Refused,
        what: format!("the log mirror has files but no identity file, '{name}' among them"),
        help: Some("name an empty or missing directory, or the mirror of this log".into()),
    }
}

pub(in crate::meta) fn not_a_mirror() -> Fault {
    Fault {
        kind: FaultKind::Refused,
        what: "the directory named as the log mirror is a server's data directory".into(),
        help: Some("name an empty or missing directory, or the mirror of this log".into()),
    }
}

pub(in crate::meta) fn foreign_mirror(found: ClusterId, due: Option<ClusterId>) -> Fault {
    let due = due.map_or_else(String::new, |due| format!(", not to cluster {due}"));
    Fault {
        kind: FaultKind::Refused,
        what: format!("the log mirror belongs to cluster {found}{due}; nothing was changed"),
        help: Some("name an empty or missing directory, or the mirror of this log".into()),
    }
}

pub(super) fn mirror_without_identity(first: LogSeq) -> Fault {
    Fault {
        kind: FaultKind::Corrupt,
        what: format!(
            "the data directory is empty, and the log mirror, whose log begins with record {first}, has no identity file that can be used"
        ),
        help: Some("restore one of the two identity files from the backup".into()),
    }
}

pub(super) fn mirror_needs_checkpoint(first: LogSeq) -> Fault {
    Fault {
        kind: FaultKind::Corrupt,
        what: format!(
            "the data directory is empty, and the log mirror begins with record {first}: what is before it is in checkpoints, of which a mirror has none"
        ),
        help: Some(
            "restore identity and checkpoint/ from the backup; the mirror has the log behind them"
                .into(),
        ),
    }
}

/// No log can be made of the two copies.
pub(super) fn conflict(conflict: Conflict) -> Fault {
    match conflict {
        Conflict::Both(damages) => Fault {
            kind: FaultKind::Corrupt,
            what: format!(
                "both copies of the log are damaged, and acknowledged changes with them: {}; and {}",
                damages[0], damages[1]
            ),
            help: Some("restore one of the files from the backup; nothing was changed".into()),
        },
        Conflict::Diverged(damage) => Fault {
            kind: FaultKind::Refused,
            what: format!(
                "the log mirror has another history than the log, and neither is changed: {damage}"
            ),
            help: Some(
                "if the data directory is the right one, name an empty directory as the mirror; if the mirror is, restore the data directory from the backup of its time".into(),
            ),
        },
    }
}

/// A file that is copied is not what it was when it was judged.
pub(super) fn changed(file: &FileName, offset: u64) -> Fault {
    Fault {
        kind: FaultKind::Corrupt,
        what: format!(
            "{file} at offset {offset}: expected what was read there a moment ago, found other bytes"
        ),
        help: Some("check the disk it is on, then start again".into()),
    }
}

/// What an operation of a start is for, and of which copy of the log.
pub(super) fn described(op: &DiskOp) -> (&'static str, Side) {
    let what = match op {
        DiskOp::MakeDir { .. } => "make the log's directory",
        DiskOp::Create { .. } => "make a file of the data directory, or a log segment",
        DiskOp::Write { .. } => "write the identity file, the log's last segment or a header",
        DiskOp::Sync { .. } => "sync the log",
        DiskOp::SyncDir { .. } => "sync the data directory or the log's",
        DiskOp::Rename { .. } => "rename the identity file or the log's segment",
        DiskOp::Remove { .. } => "remove a leftover file",
        DiskOp::Read { .. } => "read what is copied of the log",
        DiskOp::List { .. } | DiskOp::Truncate { .. } | DiskOp::Space | DiskOp::SyncAll { .. } => {
            "do what it does"
        }
    };
    let file = match op {
        DiskOp::List { dir }
        | DiskOp::MakeDir { dir }
        | DiskOp::SyncDir { dir }
        | DiskOp::SyncAll { dir } => dir,
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Read { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Rename { from: file, .. }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. } => file,
        DiskOp::Space => return (what, Side::Primary),
    };
    (what, Side::of(file))
}
