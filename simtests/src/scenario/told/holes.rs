//! Holes that are written after what lies behind them: the chunk stays as long as it was.
use super::{one, planned, read, small};
use crate::disk::faults::Damage;
use crate::fault::spot::{Spot, Which};
use crate::fault::{Fault, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{End, Fill, Job};
use kfs_core::limits::HEADER_BYTES;

/// The server whose newest header rots.
const ROTTEN: usize = 2;

/// All of them.
pub(super) const ALL: [Scenario; 1] = [Scenario {
    name: "hole-filled-and-header-rots",
    about: "a hole is written and synced, the newer header of a replica rots, and its server restarts with the older one",
    draw: |seed| {
        let mut jobs = vec![hole_filled("/d0/hole"), Job::Idle { ms: 1_200 }];
        // Each finds the replicas in another order.
        jobs.extend((0..12).map(|_| read("/d0/hole")));
        let slot = Spot {
            under: "chunks/".into(),
            // The second sync of a chunk writes the first slot.
            which: Which::FromFirst(0),
            bytes: HEADER_BYTES / 2,
        };
        let at = Trigger::At(600);
        Schedule {
            clients: one(jobs),
            faults: vec![
                planned(at.clone(), Fault::Spoil(ROTTEN, slot, Damage::Corrupt), 1),
                planned(at, Fault::Kill(ROTTEN), 50),
            ],
            ..small(seed)
        }
    },
}];

/// Two blocks with one between them that is written last.
fn hole_filled(name: &str) -> Job {
    let block = |nth: u64| Fill::Bytes {
        at: nth * 256,
        len: 256,
    };
    Job::Write {
        name: name.into(),
        fill: vec![block(0), block(2), Fill::Sync, block(1), Fill::Sync],
        end: End::Close,
        failed: End::Close,
    }
}
