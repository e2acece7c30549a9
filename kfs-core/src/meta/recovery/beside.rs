//! Reading beside a meta server that serves: it lets go of checkpoints and segments when it has made newer ones, so
//! what was listed may be gone when it is its turn. Then there is something newer to begin with.
use super::super::oplog::DIR;
use super::refusals::changing;
use super::{Io, Purpose, Recovered, Recovery, Step};
use crate::identity::Identity;
use crate::machine::{DiskError, DiskOp, DiskResult, Fault, FileName};
use crate::probe::{self, Probe};

/// How often somebody else may remove what is about to be read.
const AGAIN_MAX: u32 = 8;

impl Recovery {
    /// Whether a server beside it let go of what was about to be read, when it had made newer checkpoints.
    pub(super) fn was_removed(&self, result: &DiskResult) -> bool {
        self.purpose == Purpose::ClosedSegments && matches!(result, Err(DiskError::NotFound))
    }

    /// Looks anew at what there is.
    pub(super) fn begin_again(
        mut self: Box<Self>,
        io: &mut Io,
        identity: Identity,
    ) -> Result<Recovered, Fault> {
        self.again += 1;
        if self.again == AGAIN_MAX {
            return Err(changing(AGAIN_MAX));
        }
        probe::hit(Probe::RemovedWhileRead);
        self.damaged.clear();
        self.ticket = io.outbox.disk(DiskOp::List {
            dir: FileName::new(DIR),
        });
        self.step = Step::LogList { identity };
        Ok(Recovered::Going(self))
    }
}
