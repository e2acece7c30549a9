//! What a start writes, in its order: operations one after the other, and files copied piece by piece.
//!
//! A file that takes the place of another is written under a name of its own, synced, and then renamed. What is
//! copied is summed on its way: what is read the second time must be what was read when it was judged.
use super::super::commit::log_file;
use super::super::mirror::Side;
use super::super::oplog::{DIR, segment_name};
use super::merge::Part;
use super::refusals::{changed, described};
use super::{Io, READ_BYTES};
use crate::block::crc;
use crate::ids::{LogSeq, Ticket};
use crate::machine::{
    DiskDone, DiskError, DiskOp, DiskResult, Fault, FaultKind, FileName, SyncMode,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// The end of the name of a segment that is being repaired.
pub(super) const REPAIR: &str = ".repair";
/// The end of the name of a segment that was damaged and was put aside.
pub(super) const DAMAGED: &str = ".damaged";

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Op(DiskOp),
    Copy(Piece),
}

/// A piece of a file that is copied into another.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    from: FileName,
    offset: u64,
    len: usize,
    to: FileName,
    at: u64,
    /// Its CRC-32; `None`: what cannot be read of it is left out.
    sum: Option<u32>,
}

impl From<DiskOp> for Job {
    fn from(op: DiskOp) -> Self {
        Self::Op(op)
    }
}

/// Copies what there is of a damaged file of so many bytes.
pub(super) fn keep(from: &FileName, to: &FileName, len: u64) -> Vec<Job> {
    let create = DiskOp::Create {
        file: to.clone(),
        zeroed: 0,
    };
    let mut jobs = vec![create.into()];
    for offset in (0..len).step_by(READ_BYTES) {
        jobs.push(Job::Copy(Piece {
            from: from.clone(),
            offset,
            len: READ_BYTES,
            to: to.clone(),
            at: offset,
            sum: None,
        }));
    }
    jobs.push(DiskOp::Sync { file: to.clone() }.into());
    jobs
}

/// Puts a segment of these bytes, which are these parts of its copies, in the place of one of them.
pub(super) fn replace(side: Side, first: LogSeq, parts: &[Part], bytes: &[u8]) -> Vec<Job> {
    let name = segment_name(first);
    let to = log_file(side, &format!("{name}{REPAIR}"));
    let create = DiskOp::Create {
        file: to.clone(),
        zeroed: 0,
    };
    let mut jobs = vec![create.into()];
    let mut at = 0;
    for part in parts {
        for offset in (part.from..part.to).step_by(READ_BYTES) {
            let len = usize::try_from(part.to - offset).unwrap_or(READ_BYTES);
            let len = len.min(READ_BYTES);
            jobs.push(Job::Copy(Piece {
                from: log_file(part.side, &name),
                offset,
                len,
                to: to.clone(),
                at: at as u64,
                sum: Some(crc(&bytes[at..at + len])),
            }));
            at += len;
        }
    }
    jobs.extend([
        DiskOp::Sync { file: to.clone() }.into(),
        DiskOp::Rename {
            from: to,
            to: log_file(side, &name),
        }
        .into(),
        DiskOp::SyncDir {
            dir: side.file(DIR),
        }
        .into(),
    ]);
    jobs
}

/// All that a start writes, as far as it is not done.
#[derive(Clone, Debug)]
pub(super) struct Work {
    jobs: VecDeque<Job>,
    /// The piece that is being read.
    reading: Option<Piece>,
    running: (&'static str, Side),
    /// Whether that takes a file away: a compactor beside it may have done so already.
    removes: bool,
}

impl Work {
    pub(super) const fn new(jobs: VecDeque<Job>) -> Self {
        Self {
            jobs,
            reading: None,
            running: ("begin", Side::Primary),
            removes: false,
        }
    }

    /// Takes how the operation before has ended, and issues the next one; `None` when all is done.
    pub(super) fn go_on(
        &mut self,
        io: &mut Io,
        result: DiskResult,
    ) -> Result<Option<Ticket>, Fault> {
        if let Some(piece) = self.reading.take() {
            let data = match (result, piece.sum) {
                (Ok(DiskDone::Data(bytes)), Some(sum)) if crc(&bytes) != sum => {
                    return Err(changed(&piece.from, piece.offset));
                }
                (Ok(DiskDone::Data(bytes)), _) => bytes,
                (Ok(_), _) => panic!("a read gives data"),
                (Err(_), None) => Bytes::new(),
                (Err(error), Some(_)) => return Err(self.fault(&error)),
            };
            let write = DiskOp::Write {
                file: piece.to,
                offset: piece.at,
                data: vec![data],
                sync: SyncMode::Later,
            };
            return Ok(Some(self.issue(io, write)));
        }
        if let Err(error) = result
            && !(self.removes && error == DiskError::NotFound)
        {
            return Err(self.fault(&error));
        }
        let op = match self.jobs.pop_front() {
            None => return Ok(None),
            Some(Job::Op(op)) => op,
            Some(Job::Copy(piece)) => {
                let read = DiskOp::Read {
                    file: piece.from.clone(),
                    offset: piece.offset,
                    len: piece.len,
                };
                self.reading = Some(piece);
                read
            }
        };
        Ok(Some(self.issue(io, op)))
    }

    fn issue(&mut self, io: &mut Io, op: DiskOp) -> Ticket {
        self.running = described(&op);
        self.removes = matches!(op, DiskOp::Remove { .. });
        io.outbox.disk(op)
    }

    fn fault(&self, error: &DiskError) -> Fault {
        let (what, side) = self.running;
        let (of, disk) = match side {
            Side::Primary => ("", "data directory"),
            Side::Mirror => (" of the mirror", "log mirror"),
        };
        Fault {
            kind: FaultKind::Disk,
            what: format!("cannot {what}{of} at the start: {error}"),
            help: Some(format!(
                "check the disk of the {disk} and its free space, then start again"
            )),
        }
    }
}
