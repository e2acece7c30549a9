//! What a start refuses, and in which words: each names what is wrong, and what to do.
use super::super::Config;
use super::super::oplog::Damage;
use crate::identity::{Identity, Owner};
use crate::machine::{DirEntry, DiskDone, DiskError, DiskOp, DiskResult, Fault, FaultKind};
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
    if identity.owner != Owner::Meta {
        return Err(refused(
            "the data directory belongs to a chunkserver, not to a meta server".into(),
        ));
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

pub(super) const fn described(op: &DiskOp) -> &'static str {
    match op {
        DiskOp::MakeDir { .. } => "make the log's directory",
        DiskOp::Create { .. } => "make a file of the data directory, or a log segment",
        DiskOp::Write { .. } => "write the identity file, the log's last segment or a header",
        DiskOp::Sync { .. } => "sync the log",
        DiskOp::SyncDir { .. } => "sync the data directory or the log's",
        DiskOp::Rename { .. } => "rename the identity file or the log's segment",
        DiskOp::Remove { .. } => "remove a leftover file",
        DiskOp::List { .. } | DiskOp::Read { .. } | DiskOp::Truncate { .. } | DiskOp::Space => {
            "do what it does"
        }
    }
}
