//! The old segments of a log mirror go, by the rule of the log itself: two checkpoints stand for what is in them, and
//! the names of those are durable first.
//!
//! Two copies of a log may have become different logs, when the data directory was set back and its server ran without
//! the mirror; then the mirror has what the log has lost, and nobody but an operator may let go of it. So nothing goes
//! unless the mirror has the segment that the log is to begin with, and its header is the same to the last byte: the
//! hash in it chains all records before. The mirror's newest segment never goes, nor any that a start may need.
use super::super::checkpoint::format;
use super::super::commit::log_file;
use super::super::mirror::Side;
use super::super::oplog::{DIR, SEGMENT_HEADER_BYTES, segment_first, segment_name};
use super::super::recovery::{IDENTITY_BYTES_MAX, foreign_mirror, not_a_mirror};
use super::Compacted;
use crate::identity::{self, Identity, Owner};
use crate::ids::{ClusterId, LogSeq, Ticket};
use crate::machine::{DiskDone, DiskOp, DiskResult, Fault, FileName};
use bytes::Bytes;
use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Trimming {
    pub(super) ticket: Ticket,
    /// The segment that the log is to begin with.
    pub(super) first: LogSeq,
    pub(super) step: TrimStep,
    /// What came of the rest.
    pub(super) done: Compacted,
}

#[derive(Clone, Debug)]
pub(super) enum TrimStep {
    /// The names of the checkpoints become durable, whoever made them.
    Naming,
    Listing,
    /// The header of the first segment is read from the log, and then from the mirror.
    Own(Vec<LogSeq>),
    Theirs(Vec<LogSeq>, Bytes),
    Removing(VecDeque<LogSeq>),
}

/// Reads whose mirror it is.
pub(super) fn whose() -> DiskOp {
    DiskOp::Read {
        file: Side::Mirror.file(identity::NAME),
        offset: 0,
        len: IDENTITY_BYTES_MAX,
    }
}

/// That nothing says that it is another's, or no mirror at all. One without an identity is left to the next start.
pub(super) fn is_ours(cluster: ClusterId, result: DiskResult) -> Result<(), Fault> {
    let identity = match result {
        Ok(DiskDone::Data(bytes)) => Identity::decode(&bytes).ok(),
        Ok(_) => panic!("a read gives data"),
        Err(_) => None,
    };
    match identity {
        Some(identity) if identity.owner != Owner::Mirror => Err(not_a_mirror()),
        Some(identity) if identity.cluster != cluster => {
            Err(foreign_mirror(identity.cluster, Some(cluster)))
        }
        Some(_) | None => Ok(()),
    }
}

impl TrimStep {
    pub(super) fn begin() -> (DiskOp, Self) {
        let dir = FileName::new(format::DIR);
        (DiskOp::SyncDir { dir }, Self::Naming)
    }
}

impl Trimming {
    /// What is to be done next; `None`: that was all, or no more of it may go.
    pub(super) fn go_on(&mut self, result: DiskResult) -> Option<DiskOp> {
        let step = core::mem::replace(&mut self.step, TrimStep::Naming);
        let (op, step) = match (step, result) {
            (TrimStep::Naming, Ok(_)) => {
                let dir = Side::Mirror.file(DIR);
                (DiskOp::List { dir }, TrimStep::Listing)
            }
            (TrimStep::Listing, Ok(DiskDone::Entries(entries))) => {
                let files = entries.iter().filter(|entry| entry.is_file);
                let mut segments: Vec<LogSeq> = files
                    .filter_map(|entry| segment_first(&entry.name))
                    .collect();
                segments.sort_unstable();
                let has = segments.contains(&self.first);
                segments.retain(|segment| *segment < self.first);
                if segments.is_empty() {
                    return None;
                }
                if !has {
                    self.left();
                    return None;
                }
                (self.header(Side::Primary), TrimStep::Own(segments))
            }
            (TrimStep::Own(old), Ok(DiskDone::Data(own))) => {
                (self.header(Side::Mirror), TrimStep::Theirs(old, own))
            }
            (TrimStep::Theirs(old, own), Ok(DiskDone::Data(theirs))) => {
                if own != theirs || own.len() < SEGMENT_HEADER_BYTES {
                    self.left();
                    return None;
                }
                return self.remove(old.into());
            }
            (TrimStep::Removing(left), Ok(_)) => {
                self.done.mirror_removed += 1;
                return self.remove(left);
            }
            // The server beside it has let go of it already.
            (TrimStep::Removing(left), Err(crate::machine::DiskError::NotFound)) => {
                return self.remove(left);
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "old segments of the log mirror stay for now");
                return None;
            }
            (_, Ok(_)) => panic!("a listing gives entries, a read data"),
        };
        self.step = step;
        Some(op)
    }

    /// The oldest first: what is left has no gap.
    fn remove(&mut self, mut old: VecDeque<LogSeq>) -> Option<DiskOp> {
        let file = log_file(Side::Mirror, &segment_name(old.pop_front()?));
        self.step = TrimStep::Removing(old);
        Some(DiskOp::Remove { file })
    }

    fn header(&self, side: Side) -> DiskOp {
        DiskOp::Read {
            file: log_file(side, &segment_name(self.first)),
            offset: 0,
            len: SEGMENT_HEADER_BYTES,
        }
    }

    fn left(&self) {
        tracing::warn!(
            first = %self.first,
            "the log mirror lacks the segment that the log begins with, or has another one: nothing of it was removed; a start with the mirror brings it up to date or says what is wrong"
        );
    }
}
