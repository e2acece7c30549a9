//! Chunks on the disks of their servers: headers, tables, and blocks that are written on.
use super::{draws_of, large_blocks, one, plan, planned, put, small};
use crate::disk::Policy;
use crate::fault::{Fault, Site, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::{Schedule, Speed};
use crate::workload::job::{End, Fill, Job, Look, ReadHow};

const PAGE: u64 = 4_096;

/// All of them.
pub(super) const ALL: [Scenario; 5] = [
    Scenario {
        name: "block-synced-twice",
        about: "a block is synced in its middle and written on, and all power fails in the second sync",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = large_blocks(small(seed));
            let jobs = (0..6).map(|nth| pages(&format!("/d0/p{nth}"), 5, 300));
            let power = |at: u64, draws: &mut Keyed| {
                let server = 1 + draws.index(3);
                let site = Site {
                    servers: vec![1, 2, 3],
                    clients: vec![0],
                };
                let policy = draws.pick(&[Policy::Subset, Policy::Torn]);
                planned(
                    Trigger::AtOperation(server, at, draws.below(16)),
                    Fault::PowerLoss(site, policy),
                    50,
                )
            };
            Schedule {
                clients: one(jobs.collect()),
                faults: (0..4)
                    .map(|nth| power(40 + 250 * nth, &mut draws))
                    .collect(),
                ..base
            }
        },
    },
    Scenario {
        name: "header-torn",
        about: "files are synced again and again, and the power of chunkservers fails in the middle of a header",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let steps = [
                Some(200),
                None,
                Some(200),
                None,
                Some(200),
                None,
                Some(200),
                None,
            ];
            let jobs = (0..8).map(|nth| spread(&format!("/d0/h{nth}"), &steps));
            let power = |at: u64, draws: &mut Keyed| {
                let server = 1 + draws.index(3);
                let site = Site {
                    servers: vec![server],
                    clients: vec![],
                };
                planned(
                    Trigger::AtOperation(server, at, draws.below(20)),
                    Fault::PowerLoss(site, Policy::Torn),
                    30,
                )
            };
            Schedule {
                // Of several replicas one that lost its header would be left out, and made anew.
                replication: 1,
                clients: one(jobs.collect()),
                faults: (0..6)
                    .map(|nth| power(30 + 120 * nth, &mut draws))
                    .collect(),
                ..base
            }
        },
    },
    Scenario {
        name: "at-rest-loses-power",
        about: "files come to rest, and every power fails while their headers are written into their other slots",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let jobs = (0..8).map(|nth| put(&format!("/d0/p{nth}"), 700));
            let dark = |ms: u64| {
                let site = Site {
                    servers: vec![1, 2, 3],
                    clients: vec![],
                };
                planned(Trigger::At(ms), Fault::PowerLoss(site, Policy::Torn), 30)
            };
            let at = 3_000 + draws.below(600);
            Schedule {
                clients: one(jobs.chain([Job::Idle { ms: 4_000 }]).collect()),
                faults: vec![dark(at)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "read-while-written",
        about: "synced pages of a block are read while its other pages are written, on disks where reads are faster than writes",
        draw: |seed| {
            let base = large_blocks(small(seed));
            let looks = (0..60).flat_map(|_| [Look::At { at: 0, len: 300 }, Look::Idle { ms: 1 }]);
            let reads = |from: u64| {
                vec![
                    Job::Idle { ms: from },
                    Job::Read {
                        name: "/d0/p".into(),
                        how: ReadHow::Looks(looks.clone().collect()),
                    },
                ]
            };
            Schedule {
                clients: vec![
                    plan(vec![pages("/d0/p", 8, PAGE)]),
                    plan(reads(40)),
                    plan(reads(80)),
                ],
                speed: Speed {
                    read_us: 200,
                    write_us: 8_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "parked-and-written-on",
        about: "a file is synced and left alone, read, written on, left alone and read again",
        draw: |seed| {
            let idle = Fill::Idle { ms: 21_000 };
            let base = large_blocks(small(seed));
            let reads = |look: u64| {
                let looks = (0..4).flat_map(move |nth| {
                    [
                        Look::At {
                            at: nth * PAGE,
                            len: look,
                        },
                        Look::Idle { ms: 5_000 },
                    ]
                });
                Job::Read {
                    name: "/d0/p".into(),
                    how: ReadHow::Looks(looks.collect()),
                }
            };
            Schedule {
                clients: vec![
                    plan(vec![Job::Write {
                        name: "/d0/p".into(),
                        fill: vec![
                            Fill::Bytes { at: 0, len: 3_000 },
                            Fill::Sync,
                            idle,
                            Fill::Bytes {
                                at: PAGE,
                                len: 3_000,
                            },
                            Fill::Sync,
                            idle,
                            Fill::Bytes {
                                at: 2 * PAGE,
                                len: 3_000,
                            },
                            Fill::Sync,
                            idle,
                        ],
                        end: End::Close,
                        failed: End::Close,
                    }]),
                    plan((0..6).map(|_| reads(2_000)).collect()),
                ],
                ..base
            }
        },
    },
];

/// A file whose pages are written one after the other, each begun and synced: the block of all goes on.
fn pages(name: &str, pages: u64, len: u64) -> Job {
    let steps = (0..pages).flat_map(|page| {
        [
            Fill::Bytes {
                at: page * PAGE,
                len,
            },
            Fill::Sync,
        ]
    });
    Job::Write {
        name: name.into(),
        fill: steps.collect(),
        end: End::Close,
        failed: End::Close,
    }
}
/// As [`super::write`], each stretch in a block of its own.
fn spread(name: &str, steps: &[Option<u64>]) -> Job {
    let mut block = 0;
    let steps = steps.iter().map(|step| match step {
        Some(len) => {
            block += 1;
            Fill::Bytes {
                at: (block - 1) * 256,
                len: *len,
            }
        }
        None => Fill::Sync,
    });
    Job::Write {
        name: name.into(),
        fill: steps.collect(),
        end: End::Close,
        failed: End::Close,
    }
}
