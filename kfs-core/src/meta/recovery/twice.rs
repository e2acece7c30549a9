//! The last segment of a log that has no mirror is read a second time before its end is cut off: a disk, a cable or
//! memory that flipped a bit on the way does not make acknowledged records look like a torn write.
use super::pair::Whole;
use super::refusals::data;
use super::{READ_BYTES, Recovered, Recovery, Step};
use crate::machine::{DiskOp, DiskResult, Fault, FaultKind, FileName};
use crate::meta::Io;
use crate::meta::commit::log_file;
use crate::meta::mirror::Side;
use crate::meta::oplog::segment_name;
use crate::probe::{self, Probe};

impl Recovery {
    /// Reads the parts of the last segment again, from the n-th on.
    pub(super) fn read_again(
        mut self: Box<Self>,
        io: &mut Io,
        whole: Box<Whole>,
        nth: usize,
    ) -> Result<Recovered, Fault> {
        if nth == whole.tail.len() {
            return self.read_all(io, *whole);
        }
        self.ticket = io.outbox.disk(DiskOp::Read {
            file: last_segment(&whole),
            offset: whole.tail[..nth].iter().map(|part| part.len() as u64).sum(),
            len: READ_BYTES,
        });
        self.step = Step::Again(whole, nth);
        Ok(Recovered::Going(self))
    }

    /// Goes on if a part came as it came before.
    pub(super) fn compare(
        self: Box<Self>,
        io: &mut Io,
        whole: Box<Whole>,
        nth: usize,
        result: DiskResult,
    ) -> Result<Recovered, Fault> {
        let file = last_segment(&whole);
        if data(result, file.as_str())? == whole.tail[nth] {
            return self.read_again(io, whole, nth + 1);
        }
        probe::hit(Probe::TailUnsteady);
        Err(Fault {
            kind: FaultKind::Corrupt,
            what: format!(
                "{file} was read twice, and was not the same: its end looks like a write that was cut, and may be whole"
            ),
            help: Some(
                "start the server again; if it says so again, replace the disk, or restore the log from the backup or a mirror; nothing was changed"
                    .into(),
            ),
        })
    }
}

fn last_segment(whole: &Whole) -> FileName {
    let last = whole.found.segments.last().expect("something was read");
    log_file(Side::Primary, &segment_name(*last))
}
