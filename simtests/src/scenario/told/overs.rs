//! Bytes that are synced are written over: what a sync has covered is there, or what comes after it, whatever fails.
use super::{dark, draws_of, large_blocks, plan, planned, read, small};
use crate::disk::Policy;
use crate::disk::faults::Damage;
use crate::fault::spot::{Spot, Which};
use crate::fault::{Fault, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::{Class, ClientPlan, Schedule};
use crate::workload::job::{End, Fill, Job};

const NAME: &str = "/d0/over";

/// All of them.
pub(super) const ALL: [Scenario; 5] = [
    Scenario {
        name: "written-over-loses-power",
        about: "blocks that are synced are written over, a few of them per sync, and power fails between and within the syncs",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..8 {
                let at = 3 + 3 * nth + draws.below(3);
                let when = match draws.below(5) {
                    0 => Trigger::AfterMessage("SyncChunk".into(), at, draws.below(30)),
                    1 => Trigger::AfterMessage("ChainSynced".into(), 2 * at, draws.below(12)),
                    _ => Trigger::AfterMessage("ChainSync".into(), 2 * at, draws.below(30)),
                };
                let servers: &[usize] = draws.pick(&[&[1, 2, 3][..], &[0, 1, 2, 3], &[1], &[2]]);
                let mut fault = dark(servers, &[], &mut draws);
                if let Fault::PowerLoss(_, policy) = &mut fault
                    && draws.percent(70)
                {
                    *policy = Policy::Torn;
                }
                faults.push(planned(when, fault, 40));
            }
            let base = if draws.percent(40) {
                large_blocks(small(seed))
            } else {
                small(seed)
            };
            let size = u64::from(base.geometry.block_bytes) * 6;
            let mut jobs = vec![over(&mut draws, (size, 24), End::Close)];
            jobs.extend([read(NAME), Job::Idle { ms: 4_000 }, read(NAME)]);
            Schedule {
                clients: vec![plan(jobs)],
                faults,
                ..base
            }
        },
    },
    Scenario {
        name: "others-write-over",
        about: "clients write over bytes of a file of several chunks, one after another, while servers are killed and power fails",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut clients = vec![plan(vec![over(&mut draws, (5_000, 4), End::Close)])];
            for nth in 0..3 {
                clients.push(other(nth, &mut draws));
            }
            let mut faults = Vec::new();
            for nth in 0..3 {
                let message = draws.pick(&[
                    "SealChunk",
                    "ChunkSealed",
                    "ResumeChunk",
                    "ChainSync",
                    "ChainPiece",
                ]);
                let at = Trigger::AfterMessage(message.into(), 2 + 4 * nth, draws.below(6));
                let fault = if draws.percent(50) {
                    Fault::Kill(draws.index(4))
                } else {
                    dark(draws.pick(&[&[1, 2, 3][..], &[1], &[3]]), &[], &mut draws)
                };
                faults.push(planned(at, fault, draws.pick(&[60, 2_500])));
            }
            Schedule {
                clients,
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "cut-off-and-written-over",
        about: "a client that is cut off from the meta server only writes over its file on and on, until its session is over and another client writes there",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut fill = vec![Fill::Bytes { at: 0, len: 4_000 }, Fill::Sync];
            for round in 1..56 {
                fill.push(Fill::Over {
                    permille: draws.below(400),
                    len: 1_500,
                    round,
                });
                fill.push(Fill::Idle {
                    ms: 300 + draws.below(200),
                });
            }
            let writes = Job::Write {
                name: NAME.into(),
                fill,
                end: End::Close,
                failed: End::Abandon,
            };
            let mut jobs = vec![Job::Idle { ms: 3_000 }];
            jobs.push(Job::Append {
                name: NAME.into(),
                fill: overs(&mut draws, 4_000, 1..=8),
                end: End::Close,
            });
            for _ in 0..20 {
                jobs.extend([read(NAME), Job::Idle { ms: 700 }]);
            }
            let cut = Trigger::At(1_500 + draws.below(1_500));
            Schedule {
                clients: vec![plan(vec![writes]), plan(jobs)],
                faults: vec![planned(cut, Fault::Apart(0, 0), 60_000)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "rotten-block-is-written-over",
        about: "a block rots on one replica, and a part of it is written over by a client that has not read it",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let spot = Spot {
                under: "chunks/".into(),
                which: Which::FromLast(draws.below(7)),
                bytes: 256,
            };
            let rots = Fault::Spoil(1 + draws.index(3), spot, Damage::Corrupt);
            let mut fill: Vec<Fill> = (0..14).map(|nth| small_over(nth * 71, 1 + nth)).collect();
            fill.push(Fill::Sync);
            let jobs = vec![
                Job::Write {
                    name: NAME.into(),
                    fill: vec![Fill::Bytes { at: 0, len: 1_900 }],
                    end: End::Close,
                    failed: End::Close,
                },
                Job::Idle { ms: 1_500 },
                Job::Append {
                    name: NAME.into(),
                    fill,
                    end: End::Close,
                },
                Job::Idle { ms: 8_000 },
                read(NAME),
                read(NAME),
                read(NAME),
            ];
            Schedule {
                class: Class::Safe,
                clients: vec![plan(jobs)],
                faults: vec![planned(Trigger::At(1_200), rots, 1)],
                rests: true,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "written-over-while-read",
        about: "blocks are written over while others read them, and a chunkserver restarts",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let reader = |draws: &mut Keyed| {
                let look = |_| {
                    let ms = draws.below(40);
                    [read(NAME), Job::Idle { ms }]
                };
                plan((0..40).flat_map(look).collect())
            };
            let killed = Fault::Kill(1 + draws.index(3));
            let when =
                Trigger::AfterMessage("SyncDone".into(), 3 + draws.below(12), draws.below(5));
            let mut clients = vec![plan(vec![over(&mut draws, (1_800, 20), End::Close)])];
            clients.extend((0..2).map(|_| reader(&mut draws)));
            Schedule {
                clients,
                faults: vec![planned(when, killed, 60)],
                ..small(seed)
            }
        },
    },
];

/// A file of so many bytes, synced; then written over so many times, with a sync after a few each.
fn over(draws: &mut Keyed, (size, rounds): (u64, u32), end: End) -> Job {
    let mut fill = vec![Fill::Bytes { at: 0, len: size }, Fill::Sync];
    fill.extend(overs(draws, size, 1..=rounds));
    Job::Write {
        name: NAME.into(),
        fill,
        end,
        failed: End::Close,
    }
}

fn overs(draws: &mut Keyed, size: u64, rounds: core::ops::RangeInclusive<u32>) -> Vec<Fill> {
    let mut fill = Vec::new();
    for round in rounds {
        let len = draws.pick(&[1, 30, size / 16, size / 6]);
        fill.push(Fill::Over {
            permille: draws.below(1_000),
            len: 1 + draws.below(len),
            round,
        });
        if draws.percent(40) {
            fill.push(Fill::Sync);
        }
        if draws.percent(30) {
            fill.push(Fill::Idle {
                ms: draws.below(30),
            });
        }
    }
    fill.push(Fill::Sync);
    fill
}

fn small_over(permille: u64, round: u64) -> Fill {
    Fill::Over {
        permille,
        len: 20,
        round: u32::try_from(round).expect("few"),
    }
}

/// Waits for its turn, and then writes over what is there, and behind it.
fn other(nth: u64, draws: &mut Keyed) -> ClientPlan {
    let mut jobs = vec![Job::Idle {
        ms: 400 + 500 * nth,
    }];
    for _ in 0..2 {
        let mut fill = overs(draws, 5_000, 1..=5);
        if draws.percent(50) {
            let len = 1 + draws.below(600);
            fill.insert(draws.index(fill.len()), Fill::Bytes { at: 0, len });
        }
        jobs.push(Job::Append {
            name: NAME.into(),
            fill,
            end: End::Close,
        });
        jobs.push(read(NAME));
        jobs.push(Job::Idle {
            ms: draws.below(600),
        });
    }
    jobs.push(read(NAME));
    plan(jobs)
}
