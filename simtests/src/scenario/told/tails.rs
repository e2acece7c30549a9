//! Records appended one by one, each synced: pages that hold synced bytes are written further.
use super::{dark, draws_of, large_blocks, plan, planned, small};
use crate::disk::Policy;
use crate::disk::faults::{Aim, Damage, DiskFault, Target, Times};
use crate::fault::spot::{Spot, Which};
use crate::fault::{Fault, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{End, Fill, Job, ReadHow};

const NAME: &str = "/d0/log";

/// All of them.
pub(super) const ALL: [Scenario; 4] = [
    Scenario {
        name: "log-loses-power",
        about: "records are appended and synced one by one, and power fails between and within the syncs",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..9 {
                let at = 4 + 5 * nth + draws.below(5);
                let when = match draws.below(6) {
                    0 => Trigger::AfterMessage("SyncChunk".into(), at, draws.below(20)),
                    1 => Trigger::AfterMessage("ChainSynced".into(), at, draws.below(12)),
                    _ => Trigger::AfterMessage("WritePiece".into(), at, draws.below(4)),
                };
                let servers: &[usize] = draws.pick(&[&[1, 2, 3][..], &[0, 1, 2, 3], &[1], &[2]]);
                let mut fault = dark(servers, &[], &mut draws);
                if let Fault::PowerLoss(_, policy) = &mut fault
                    && draws.percent(80)
                {
                    *policy = Policy::Torn;
                }
                faults.push(planned(when, fault, 40));
            }
            let base = if draws.percent(50) {
                large_blocks(small(seed))
            } else {
                small(seed)
            };
            Schedule {
                clients: vec![plan(vec![log(&mut draws, End::Close), again()])],
                faults,
                ..base
            }
        },
    },
    Scenario {
        name: "log-read-while-written",
        about: "records are appended and synced one by one while others read what is synced, and a chunkserver restarts",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let reader = |draws: &mut Keyed| {
                let read = |_| {
                    [
                        again(),
                        Job::Idle {
                            ms: draws.below(40),
                        },
                    ]
                };
                plan((0..40).flat_map(read).collect())
            };
            let killed = Fault::Kill(1 + draws.index(3));
            let when =
                Trigger::AfterMessage("SyncDone".into(), 5 + draws.below(20), draws.below(5));
            let mut clients = vec![plan(vec![log(&mut draws, End::Close)])];
            clients.extend((0..2).map(|_| reader(&mut draws)));
            Schedule {
                clients,
                faults: vec![planned(when, killed, 60)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "place-is-not-saved",
        about: "a disk drops what was to be saved when a chunk comes to rest, a second look finds nothing wrong, and power fails",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let bad = 1 + draws.index(3);
            let away = 1 + (bad + draws.index(2)) % 3;
            let aim = Aim {
                at: Target::Under("chunks".into()),
                after: 0,
                times: Times::Once,
                seed: draws.bits(),
            };
            let asked = Trigger::AfterMessage("SealChunk".into(), 1, 0);
            let again = Trigger::AfterMessage(
                "SealChunk".into(),
                4 + draws.below(4),
                20 + draws.below(400),
            );
            let dark = dark(&[0, 1, 2, 3], &[], &mut draws);
            Schedule {
                clients: vec![plan(vec![
                    // They are in one chunk.
                    records(&mut draws, (12, 5), End::Close),
                    Job::Idle { ms: 30_000 },
                    self::again(),
                ])],
                faults: vec![
                    planned(
                        asked.clone(),
                        Fault::Disk(bad, DiskFault::DropSync { aim }),
                        3_000,
                    ),
                    planned(asked, Fault::Kill(away), 800),
                    planned(again, dark, 40),
                ],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "redo-page-rots",
        about: "the page behind a chunk that is to be written in its place again rots before its server restarts, or before power fails",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let rotten = 1 + draws.index(3);
            let spot = Spot {
                under: "chunks/".into(),
                // One of the two redo pages; the files end with them.
                which: Which::FromLast(draws.pick(&[0, 16])),
                bytes: 256,
            };
            let at = Trigger::AfterMessage("SyncDone".into(), 8 + draws.below(24), 2);
            let goes = if draws.percent(50) {
                Fault::Kill(rotten)
            } else {
                dark(&[rotten], &[], &mut draws)
            };
            Schedule {
                clients: vec![plan(vec![
                    // A server may be back before the next one.
                    records(&mut draws, (40, 400), End::Abandon),
                    // Until it is sealed.
                    Job::Idle { ms: 9_000 },
                    again(),
                ])],
                faults: vec![
                    planned(at.clone(), Fault::Spoil(rotten, spot, Damage::Corrupt), 1),
                    planned(at, goes, 50),
                ],
                ..small(seed)
            }
        },
    },
];

/// Some sixty records, most of them far shorter than a page.
fn log(draws: &mut Keyed, end: End) -> Job {
    records(draws, (60, 5), end)
}

/// So many, with pauses of this length between some.
fn records(draws: &mut Keyed, (count, ms): (u32, u64), end: End) -> Job {
    let mut at = 0;
    let mut fill = Vec::new();
    for _ in 0..count {
        let most = draws.pick(&[20, 60, 60, 300]);
        let len = 1 + draws.below(most);
        fill.push(Fill::Bytes { at, len });
        at += len;
        if draws.percent(80) {
            fill.push(Fill::Sync);
        }
        if draws.percent(20) {
            fill.push(Fill::Idle { ms });
        }
    }
    Job::Write {
        name: NAME.into(),
        fill,
        end,
        failed: End::Close,
    }
}

fn again() -> Job {
    Job::Read {
        name: NAME.into(),
        how: ReadHow::Stream,
    }
}
