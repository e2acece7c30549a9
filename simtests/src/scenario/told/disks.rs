//! Disks that rot, are set back, or are cloned; and bits that flip on their way.
use super::{dark, draws_of, mkdir, one, plan, planned, put, read, small, write};
use crate::disk::faults::{Aim, Damage, DiskFault, Target as DiskTarget, Times};
use crate::fault::spot::Which;
use crate::fault::{Fault, Party, Spot, Trigger};
use crate::scenario::Scenario;
use crate::schedule::{Class, Schedule, Speed};
use crate::workload::job::{Job, Look, ReadHow};
use std::ops::Range;

/// All of them.
pub(super) const ALL: [Scenario; 13] = [
    Scenario {
        name: "rot-in-the-log",
        about: "a block of the log rots while the meta server is down, with acked records behind it",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let damage = draws.pick(&[Damage::Corrupt, Damage::Zero]);
            let rot = log_rots(Which::FromLast(draws.between(4, 12)), damage);
            Schedule {
                class: Class::Safe,
                clients: one(puts(0..12).chain([Job::Idle { ms: 4_000 }]).collect()),
                faults: down_while(2_500, rot),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "rot-in-the-last-batch",
        about: "the last acked batch of the log rots while the meta server is down: only a mark is behind it",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let damage = draws.pick(&[Damage::Corrupt, Damage::Zero]);
            // Before the chunk is sealed. The mark is last, or the batch before it.
            let which = Which::FromLast(draws.below(2));
            Schedule {
                class: Class::Safe,
                clients: one(vec![put("/d0/p", 300), Job::Idle { ms: 4_500 }]),
                faults: down_while(2_000, log_rots(which, damage)),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "meta-set-back",
        about: "the meta server gets an old copy of its disk back, and chunkservers have files that were made since",
        draw: |seed| {
            let jobs = puts_twice();
            Schedule {
                class: Class::Safe,
                clients: one(jobs.chain([Job::Idle { ms: 3_000 }]).collect()),
                faults: vec![
                    // The epoch of this start is lived again after the copy is back.
                    planned(Trigger::At(1_000), Fault::Kill(0), 5),
                    planned(Trigger::At(4_000), Fault::SetBack(0, 20), 50),
                ],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "set-back-while-alone",
        about: "the meta server gets an old copy of its disk back while no chunkserver is there to say so, and is asked for changes",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let down_ms = draws.between(800, 4_000);
            let alone =
                (1..4).map(|server| planned(Trigger::At(980), Fault::Kill(server), down_ms));
            let set_back = planned(Trigger::At(1_000), Fault::SetBack(0, 20), 50);
            let changes = [Job::Idle { ms: 1_100 }, mkdir("/new"), mkdir("/newer")];
            Schedule {
                class: Class::Safe,
                clients: [one(puts(0..4).collect()), one(changes.into())].concat(),
                faults: alone.chain([set_back]).collect(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "rollback-accepted",
        about: "the meta server gets an old copy of its disk back; the operator accepts it, and what was lost is found",
        draw: |seed| {
            let accept = [Job::Idle { ms: 3_000 }, Job::AcceptRollback];
            let found = ["/", "/lost+found"].map(|dir| Job::List(dir.into()));
            let jobs = puts(0..4)
                .chain([Job::Idle { ms: 1_000 }, put("/d0/refused", 300)])
                .chain(accept)
                .chain([Job::Idle { ms: 1_500 }])
                .chain(found)
                .chain(puts(4..8))
                .chain([Job::Idle { ms: 1_000 }]);
            Schedule {
                class: Class::Safe,
                clients: one(jobs.collect()),
                faults: vec![planned(Trigger::At(1_000), Fault::SetBack(0, 20), 50)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "disk-cloned",
        about: "the disk of a chunkserver is copied into another, and both run",
        draw: |seed| {
            let jobs = puts_twice();
            Schedule {
                class: Class::Safe,
                servers: 5,
                clients: one(jobs.collect()),
                faults: vec![planned(Trigger::At(1_200), Fault::CloneDisk(1, 2), 2_000)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "sync-fails-and-power-is-lost",
        about: "a sync of the log fails once and drops what it was to save; the meta server starts again, and then its power fails",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let aim = Aim {
                at: DiskTarget::Under("log".into()),
                after: draws.below(12),
                times: Times::Once,
                seed: draws.bits(),
            };
            let power = |ms| planned(Trigger::At(ms), dark(&[0], &[], &mut draws_of(seed)), 50);
            let jobs = puts(0..6)
                .chain([Job::Idle { ms: 1_500 }])
                .chain(puts(6..9));
            Schedule {
                clients: one(jobs.chain([Job::Idle { ms: 2_500 }]).collect()),
                faults: vec![
                    planned(
                        Trigger::At(60),
                        Fault::Disk(0, DiskFault::DropSync { aim }),
                        5_000,
                    ),
                    power(1_200),
                    power(3_600),
                ],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "end-of-log-is-read-wrong",
        about: "power fails right after a change was answered, and the next starts get wrong bits whenever they read the log",
        draw: |seed| {
            let mut draws = draws_of(seed);
            // The shorter the log, the more often its last batch alone is read wrong.
            let faults = [1, 2, 3, 5].into_iter().flat_map(|nth| {
                let aim = Aim {
                    at: DiskTarget::Under("log".into()),
                    after: 0,
                    times: Times::Always,
                    seed: draws.bits(),
                };
                let answered = Trigger::AfterMessage("Mutated".into(), nth, 0);
                let read = Fault::Disk(0, DiskFault::CorruptRead { bits: 60, aim });
                [
                    planned(answered.clone(), dark(&[0], &[], &mut draws), 50),
                    planned(answered, read, 900),
                ]
            });
            let faults = faults.collect();
            let jobs = puts(0..6).chain([Job::Idle { ms: 1_500 }]);
            Schedule {
                clients: one(jobs.chain(puts(6..9)).collect()),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "newest-checkpoint-rots",
        about: "the newest checkpoint rots while the meta server is down: the one before it is used, with more of the log",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let spot = Spot {
                under: "checkpoint/".into(),
                which: Which::FromLast(draws.below(2)),
                bytes: 4_096,
            };
            let damage = draws.pick(&[Damage::Corrupt, Damage::Zero, Damage::Unreadable]);
            let jobs =
                (0..8).flat_map(|nth| [put(&format!("/d0/p{nth}"), 300), Job::Idle { ms: 100 }]);
            Schedule {
                checkpoint_ms: 150,
                clients: one(jobs.chain([Job::Idle { ms: 4_000 }]).collect()),
                faults: down_while(2_500, Fault::Spoil(0, spot, damage)),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "newer-header-rots",
        about: "the newer of two valid headers rots on every replica while its server is down: the older one shows less",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let slot = draws.below(2);
            let rots = |server: usize| {
                let spot = Spot {
                    under: "chunks/".into(),
                    which: Which::FromFirst(slot),
                    bytes: 8_192,
                };
                vec![
                    planned(Trigger::At(1_500), Fault::Kill(server), 200),
                    planned(
                        Trigger::At(1_600),
                        Fault::Spoil(server, spot, Damage::Corrupt),
                        1,
                    ),
                ]
            };
            let steps = [Some(500), None, Some(700), None];
            let reads = (0..4).map(|_| read("/d0/p"));
            let jobs = [write("/d0/p", &steps), Job::Idle { ms: 3_000 }];
            Schedule {
                class: Class::Safe,
                clients: one(jobs.into_iter().chain(reads).collect()),
                faults: (1..4).flat_map(rots).collect(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "block-rots-and-a-part-is-read",
        about: "a bit of a block rots on one replica after another, and parts of blocks are read",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut rots = |server: usize| {
                let spot = Spot {
                    under: "chunks/".into(),
                    which: Which::FromLast(draws.below(8)),
                    bytes: 256,
                };
                let fault = Fault::Spoil(server, spot, Damage::Corrupt);
                planned(Trigger::At(1_200), fault, 1)
            };
            let looks = (0..48).map(|nth| Look::At {
                at: nth * 41,
                len: 37,
            });
            let reads = Job::Read {
                name: "/d0/p".into(),
                how: ReadHow::Looks(looks.collect()),
            };
            // One good replica of each block is left.
            let faults = (1..3).map(&mut rots).collect();
            Schedule {
                class: Class::Safe,
                clients: one(vec![
                    write("/d0/p", &[Some(2_000)]),
                    Job::Idle { ms: 1_500 },
                    reads.clone(),
                    reads,
                ]),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "bits-flip-on-their-way-to-readers",
        about: "bits flip in what chunkservers send to readers",
        draw: |seed| {
            let flips = |nth: u64| {
                let server = 1 + usize::try_from(nth % 3).expect("a small number");
                let flip = Fault::FlipBodies(Party::Server(server), 2);
                planned(Trigger::At(1_200 + 20 * nth), flip, 2_000)
            };
            let mut jobs = vec![write("/d0/p", &[Some(4_000)]), Job::Idle { ms: 1_200 }];
            jobs.extend((0..30).map(|_| read("/d0/p")));
            Schedule {
                clients: one(jobs),
                faults: (0..30).map(flips).collect(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "bits-flip-on-their-way-to-heads",
        about: "bits flip in what clients send to heads, and heads down their chains",
        draw: |seed| {
            let flips = |nth: u64| {
                let party = match nth % 4 {
                    0 => Party::Client(0),
                    server => Party::Server(usize::try_from(server).expect("a small number")),
                };
                planned(
                    Trigger::At(100 + 40 * nth),
                    Fault::FlipBodies(party, 1),
                    300,
                )
            };
            let base = small(seed);
            let jobs = (0..10).map(|nth| write(&format!("/d0/w{nth}"), &[Some(900), Some(900)]));
            Schedule {
                clients: vec![plan(jobs.collect())],
                faults: (0..20).map(flips).collect(),
                speed: Speed {
                    write_us: 2_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
];

fn puts(which: Range<u64>) -> impl Iterator<Item = Job> {
    which.map(|nth| put(&format!("/d0/p{nth}"), 300))
}

/// Files are stored, and after a while others.
fn puts_twice() -> impl Iterator<Item = Job> {
    puts(0..4)
        .chain([Job::Idle { ms: 1_500 }])
        .chain(puts(4..8))
}

fn log_rots(which: Which, damage: Damage) -> Fault {
    let spot = Spot {
        under: "log/log.".into(),
        which,
        bytes: 4_096,
    };
    Fault::Spoil(0, spot, damage)
}

/// The meta server is killed at this time, damaged while it is down, and started again.
fn down_while(ms: u64, damage: Fault) -> Vec<crate::fault::Planned> {
    vec![
        planned(Trigger::At(ms), Fault::Kill(0), 100),
        planned(Trigger::At(ms + 50), damage, 1),
    ]
}
