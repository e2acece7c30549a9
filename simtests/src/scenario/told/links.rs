//! Links: frames that come in parts, and pauses between them.
use super::{one, read, small, write};
use crate::scenario::Scenario;
use crate::schedule::{Class, Schedule, Speed};
use crate::workload::job::Job;
use kfs_core::limits::Limits;

/// All of them.
pub(super) const ALL: [Scenario; 1] = [Scenario {
    name: "half-a-frame",
    about: "chunkservers with room for hardly a piece, so that links are paused while a frame has come in part",
    draw: |seed| {
        let base = small(seed);
        let jobs = (0..6).flat_map(|nth| -> [Job; 2] {
            let name = format!("/d0/h{nth}");
            [write(&name, &[Some(1_800), Some(2_500)]), read(&name)]
        });
        Schedule {
            class: Class::Clean,
            clients: one(jobs.collect()),
            limits: Limits {
                piece_buffer_bytes: 300,
                ..base.limits
            },
            speed: Speed {
                write_us: 2_000,
                ..base.speed
            },
            buggify_permille: 500,
            ..base
        }
    },
}];
