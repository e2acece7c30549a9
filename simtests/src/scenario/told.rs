//! Scenarios that tell a story: the same clients, jobs and faults in every run, small enough to be crashed
//! everywhere; the seed draws only how long everything takes.
use super::Scenario;
use crate::fault::{Fault, Planned, Trigger};
use crate::keyed::Keyed;
use crate::schedule::{Class, ClientPlan, Schedule, Speed};
use crate::workload::job::{End, Fill, Job, ReadHow};
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::wire::client_meta::{Parents, RenameMode};
use std::time::Duration;

/// All of them.
pub const ALL: [Scenario; 5] = [
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
            let base = small(seed);
            Schedule {
                clients: one(jobs),
                limits: Limits {
                    log_batch_bytes: 4 << 10,
                    log_first_segment_bytes: 32 << 10,
                    log_segment_bytes: 32 << 10,
                    ..base.limits
                },
                ..base
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
];

/// A cluster of three chunkservers with small chunks, fast enough that a run takes a second or two.
fn small(seed: u64) -> Schedule {
    let block = 256;
    let mut draws = Keyed::new(seed, "setup");
    Schedule {
        seed,
        class: Class::Live,
        servers: 4,
        replication: 3,
        geometry: Geometry {
            block_bytes: 256,
            chunk_blocks: 8,
            piece_bytes: 512,
        },
        limits: Limits {
            piece_buffer_bytes: 16 * block,
            link_unsent_bytes: 16 * block,
            link_requests: 64,
            chunk_tables: 4,
            log_batch_bytes: 8 << 10,
            log_first_segment_bytes: 64 << 10,
            log_segment_bytes: 64 << 10,
            write_window_bytes: 16 * block,
            sync_every_bytes: 4 * block,
            read_ahead_bytes: 8 * block,
        },
        timing: Timing {
            heartbeat: Duration::from_millis(200),
            serve_lease: Duration::from_millis(1_500),
            trash_grace: Duration::from_secs(2),
            session_idle: Duration::from_secs(12),
        },
        latency_us: draws.pick(&[(50, 400), (200, 2_000)]),
        loss_permille: 0,
        speed: Speed {
            read_us: 500,
            write_us: 300,
            sync_us: draws.pick(&[2_000, 8_000]),
        },
        buggify_permille: 0,
        clients: Vec::new(),
        faults: Vec::new(),
    }
}

fn one(jobs: Vec<Job>) -> Vec<ClientPlan> {
    vec![plan(jobs)]
}
fn plan(jobs: Vec<Job>) -> ClientPlan {
    ClientPlan { actors: vec![jobs] }
}
fn mkdir(name: &str) -> Job {
    Job::Mkdir {
        name: name.into(),
        parents: Parents::MustExist,
    }
}
fn read(name: &str) -> Job {
    Job::Read {
        name: name.into(),
        how: ReadHow::Steps(400),
    }
}
fn put(name: &str, size: u64) -> Job {
    Job::Put {
        temp: format!("{name}.tmp{size}"),
        name: name.into(),
        mode: RenameMode::Replace,
        fill: fill(&[Some(size)]),
    }
}
/// So many bytes behind one another, and syncs between.
fn write(name: &str, steps: &[Option<u64>]) -> Job {
    Job::Write {
        name: name.into(),
        fill: fill(steps),
        end: End::Close,
        failed: End::Close,
    }
}
fn fill(steps: &[Option<u64>]) -> Vec<Fill> {
    let mut at = 0;
    let mut filled = Vec::new();
    for step in steps {
        match step {
            Some(len) => {
                filled.push(Fill::Bytes { at, len: *len });
                at += len;
            }
            None => filled.push(Fill::Sync),
        }
    }
    filled
}
