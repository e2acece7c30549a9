//! Servers that sleep, are heard and do not hear, or lose power between two steps; and clients that undo what others
//! do.
use super::{dark, draws_of, mkdir, plan, planned, put, read, small, write};
use crate::fault::{Fault, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::Job;

/// All of them.
pub(super) const ALL: [Scenario; 5] = [
    Scenario {
        name: "chunk-allocated-power-lost",
        about: "a chunk is in the log, and the power of all servers fails before any replica of it is made",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let jobs =
                (0..5).map(|nth| write(&format!("/d0/a{nth}"), &[Some(600), None, Some(400)]));
            let lost = |nth: u64| {
                let ordered = Trigger::AfterMessage("CreateChunk".into(), nth, draws.below(2));
                planned(ordered, dark(&[0, 1, 2, 3], &[], &mut draws), 30)
            };
            Schedule {
                clients: vec![
                    plan(jobs.collect()),
                    plan(vec![Job::Idle { ms: 1_500 }, Job::List("/d0".into())]),
                ],
                faults: [1, 5, 8].map(lost).into(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "heartbeats-pass-one-way",
        about: "a chunkserver is heard by the meta server and does not hear it, or the other way round",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let server = 1 + draws.index(3);
            let (from, to) = draws.pick(&[(0, server), (server, 0)]);
            let puts = (0..12).flat_map(|nth| {
                let name = format!("/d0/p{nth}");
                [put(&name, 700), Job::Idle { ms: 250 }, read(&name)]
            });
            let again =
                (0..6).flat_map(|nth| [Job::Idle { ms: 500 }, read(&format!("/d0/p{nth}"))]);
            Schedule {
                clients: vec![plan(puts.collect()), plan(again.collect())],
                faults: vec![planned(
                    Trigger::At(400),
                    Fault::OneWay(from, to),
                    draws.between(1_000, 4_000),
                )],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "host-sleeps-and-wakes",
        about: "a server stands still for longer than its lease, in the middle of writes, and goes on as if nothing was",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let writes =
                (0..6).map(|nth| write(&format!("/d0/s{nth}"), &[Some(900), None, Some(700)]));
            let reads =
                (0..6).flat_map(|nth| [Job::Idle { ms: 600 }, read(&format!("/d0/s{nth}"))]);
            let sleeps = |(nth, server): (u64, usize)| {
                let sent = Trigger::AfterMessage("ChainPiece".into(), 4 * nth + 1, 0);
                planned(sent, Fault::Pause(server), draws.between(1_600, 3_000))
            };
            Schedule {
                clients: vec![plan(writes.collect()), plan(reads.collect())],
                faults: [(0, 1), (1, 2), (2, 0)].map(sleeps).into(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "removed-while-created-below",
        about: "one client empties a directory and removes it again and again, while another makes names in it",
        draw: |seed| {
            let makes = (0..40).flat_map(|nth| {
                let name = format!("/d0/r/{nth}");
                let idle = Job::Idle { ms: 1 + nth % 4 };
                [mkdir("/d0/r"), Job::Touch(name), idle]
            });
            let removes = (0..40).flat_map(|nth| {
                let name = format!("/d0/r/{nth}");
                let idle = Job::Idle { ms: 2 };
                [Job::Remove(name), Job::Rmdir("/d0/r".into()), idle]
            });
            Schedule {
                clients: vec![plan(makes.collect()), plan(removes.collect())],
                faults: vec![planned(Trigger::At(300), Fault::Kill(0), 5)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "set-back-and-grown-over",
        about: "the meta server gets an old copy of its disk back, and makes more records than it lost before it hears of that",
        draw: |seed| {
            let files = |from: u64| (from..from + 4).map(|nth| put(&format!("/d0/p{nth}"), 300));
            let names = (0..40).map(|nth| mkdir(&format!("/g{nth}")));
            let jobs = files(0).chain([Job::Idle { ms: 1_000 }]).chain(names);
            // Nobody who knows better is heard before the log is longer than it was.
            let silent = |server| planned(Trigger::At(1_490), Fault::OneWay(server, 0), 4_000);
            let mut faults: Vec<_> = (1..4).map(silent).collect();
            faults.push(planned(Trigger::At(1_500), Fault::SetBack(0, 20), 20));
            Schedule {
                class: crate::schedule::Class::Safe,
                clients: vec![plan(jobs.chain([Job::Idle { ms: 3_000 }]).collect())],
                faults,
                ..small(seed)
            }
        },
    },
];
