//! Chains whose members part: one is away for two seconds, all lose what was not synced, or wait for one another.
use super::{LARGE_BLOCK, draws_of, large_blocks, plan, planned, read, small, write};
use crate::disk::Policy;
use crate::fault::{Fault, Site, Trigger};
use crate::scenario::Scenario;
use crate::schedule::{Class, Schedule, Speed};
use crate::workload::job::{End, Fill, Job};
use kfs_core::limits::Limits;

/// All of them.
pub(super) const ALL: [Scenario; 3] = [
    Scenario {
        name: "member-back-in-two-seconds",
        about: "a member of a chain loses power with pieces that were not synced, is back in two seconds, and the writer goes on and syncs",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let writes = (0..3).map(|nth| in_two_halves(&format!("/d0/m{nth}")));
            let reads =
                (0..3).flat_map(|nth| [Job::Idle { ms: 2_800 }, read(&format!("/d0/m{nth}"))]);
            // Each file has four pieces, and each piece passes two links of its chain.
            let lost = |nth: u64| {
                let site = Site {
                    servers: vec![1 + draws.index(3)],
                    clients: vec![],
                };
                let policy = draws.pick(&[Policy::Prefix, Policy::Subset, Policy::Torn]);
                let passed =
                    Trigger::AfterMessage("ChainPiece".into(), 8 * nth + 3, draws.below(60));
                planned(passed, Fault::PowerLoss(site, policy), 2_000)
            };
            Schedule {
                clients: vec![plan(writes.collect()), plan(reads.collect())],
                faults: (0..3).map(lost).collect(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "replicas-differ-after-power-loss",
        about: "all chunkservers lose power in the middle of a sync: of the same version each keeps other pieces, and all of the sync before",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let steps = [Some(512), None, Some(768), None, Some(512), None];
            let writes = (0..6).map(|nth| write(&format!("/d0/v{nth}"), &steps));
            let reads =
                (0..6).flat_map(|nth| [Job::Idle { ms: 500 }, read(&format!("/d0/v{nth}"))]);
            let lost = |nth: u64| {
                let site = Site {
                    servers: vec![1, 2, 3],
                    clients: vec![],
                };
                let policy = draws.pick(&[Policy::Subset, Policy::Torn]);
                let passed =
                    Trigger::AfterMessage("ChainSynced".into(), 3 + 8 * nth, draws.below(8));
                planned(passed, Fault::PowerLoss(site, policy), 30)
            };
            Schedule {
                clients: vec![plan(writes.collect()), plan(reads.collect())],
                faults: (0..4).map(lost).collect(),
                speed: Speed {
                    sync_us: 6_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "chains-cross-with-full-rooms",
        about: "many clients write through chains in all directions, and every server has room for hardly two pieces of each place in a chain: nobody waits for ever",
        draw: |seed| {
            let base = large_blocks(small(seed));
            let block = LARGE_BLOCK as usize;
            let writer = |client| {
                plan(vec![write(
                    &format!("/d0/w{client}"),
                    &[Some(24 * u64::from(LARGE_BLOCK))],
                )])
            };
            Schedule {
                class: Class::Clean,
                clients: (0..8).map(writer).collect(),
                limits: Limits {
                    piece_buffer_bytes: 4 * block,
                    ..base.limits
                },
                speed: Speed {
                    write_us: 4_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
];

/// A file that is synced in its middle, written on, left alone for longer than a server is away, written on, and
/// synced again.
fn in_two_halves(name: &str) -> Job {
    let piece = |nth: u64| Fill::Bytes {
        at: nth * 512,
        len: 512,
    };
    Job::Write {
        name: name.into(),
        fill: vec![
            piece(0),
            Fill::Sync,
            piece(1),
            Fill::Idle { ms: 2_400 },
            piece(2),
            Fill::Sync,
            piece(3),
        ],
        end: End::Close,
        failed: End::Close,
    }
}
