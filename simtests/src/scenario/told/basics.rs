//! The stories that are crashed everywhere: small, and with hardly a fault of their own.
use super::{mkdir, one, plan, put, read, small, write};
use crate::fault::{Fault, Planned, Trigger};
use crate::scenario::Scenario;
use crate::schedule::{Class, Schedule};
use crate::workload::job::Job;
use kfs_core::limits::Timing;
use kfs_core::wire::client_meta::RenameMode;
use std::time::Duration;

/// All of them.
pub const ALL: [Scenario; 8] = [
    Scenario {
        name: "format",
        about: "empty disks are formatted and the first directory is made",
        draw: |seed| Schedule {
            clients: one(vec![mkdir("/a")]),
            ..small(seed)
        },
    },
    Scenario {
        name: "write",
        about: "a file is created, written, synced, written on and closed, and read by another client",
        draw: |seed| Schedule {
            clients: vec![
                plan(vec![
                    // What follows a sync begins on a block: the one that holds the synced end is not written on.
                    write(
                        "/d0/w",
                        &[Some(768), None, Some(512), Some(256), None, Some(90)],
                    ),
                    write("/d0/two-chunks", &[Some(3_000), Some(1_500)]),
                ]),
                plan(vec![
                    read("/d0/w"),
                    Job::List("/d0".into()),
                    read("/d0/two-chunks"),
                    read("/d0/w"),
                ]),
            ],
            ..small(seed)
        },
    },
    Scenario {
        name: "segment-switch",
        about: "so many changes that the log goes on in another segment, and in another",
        draw: |seed| {
            let mut jobs: Vec<Job> = (0..12).map(|nth| mkdir(&format!("/s{nth}"))).collect();
            jobs.push(Job::List("/".into()));
            Schedule {
                clients: one(jobs),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "rename-over",
        about: "a file is replaced by another one that was written beside it",
        draw: |seed| Schedule {
            clients: one(vec![
                put("/d0/r", 600),
                read("/d0/r"),
                put("/d0/r", 1_100),
                read("/d0/r"),
                Job::Rename {
                    from: "/d0/r".into(),
                    to: "/d1/r".into(),
                    mode: RenameMode::NoReplace,
                },
                read("/d1/r"),
            ]),
            ..small(seed)
        },
    },
    Scenario {
        name: "stale-restart",
        about: "a chunkserver comes back with chunks of files that were removed while it was away",
        draw: |seed| {
            let base = small(seed);
            Schedule {
                clients: one(vec![
                    put("/d0/gone", 900),
                    put("/d0/kept", 900),
                    Job::Remove("/d0/gone".into()),
                    mkdir("/after"),
                    // Long enough for the server to be back, and for its trash to be emptied.
                    Job::Idle { ms: 1_500 },
                    read("/d0/kept"),
                ]),
                faults: vec![Planned {
                    // Both files are there, the removal is still to come.
                    trigger: Trigger::AtAck(8),
                    fault: Fault::Kill(2),
                    lasts_ms: 300,
                }],
                timing: Timing {
                    trash_grace: Duration::from_millis(400),
                    ..base.timing
                },
                ..base
            }
        },
    },
    Scenario {
        name: "checkpoints",
        about: "so many changes that old checkpoints go, and segments of the log with them",
        draw: |seed| {
            let mut jobs: Vec<Job> = (0..4)
                .flat_map(|nth| {
                    let made = (0..5).map(move |which| mkdir(&format!("/c{nth}-{which}")));
                    made.chain([put(&format!("/d0/p{nth}"), 300)])
                })
                .collect();
            jobs.push(Job::List("/".into()));
            Schedule {
                checkpoint_ms: 60,
                clients: one(jobs),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "compactor",
        about: "a compactor runs beside a meta server that makes no checkpoints itself, until old ones go, and segments with them",
        draw: |seed| {
            let made = (0..18).map(|nth| mkdir(&format!("/c{nth}")));
            let mut jobs: Vec<Job> = made.chain([put("/d0/p", 300)]).collect();
            jobs.push(Job::List("/".into()));
            let compacts = [8, 14, 20].map(|ack| Planned {
                trigger: Trigger::AtAck(ack),
                fault: Fault::Compact(1),
                lasts_ms: 10_000,
            });
            Schedule {
                clients: one(jobs),
                faults: compacts.to_vec(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "restored",
        about: "a backup is taken, more is written, the backup is restored, and what is missing is accepted",
        draw: |seed| {
            let fault = |ack, fault, lasts_ms| Planned {
                trigger: Trigger::AtAck(ack),
                fault,
                lasts_ms,
            };
            Schedule {
                class: Class::Safe,
                clients: one(vec![
                    put("/d0/old", 300),
                    mkdir("/a"),
                    Job::Idle { ms: 60 },
                    put("/d0/new", 300),
                    mkdir("/b"),
                    Job::Idle { ms: 600 },
                    Job::AcceptRollback,
                    read("/d0/old"),
                    Job::Idle { ms: 300 },
                    mkdir("/c"),
                ]),
                faults: vec![
                    fault(6, Fault::Backup(1), 5_000),
                    fault(10, Fault::Restore, 20),
                ],
                ..small(seed)
            }
        },
    },
];
