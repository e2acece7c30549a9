//! Copies that are made again: a server is gone, a replica is bad, and what can go wrong while a copy is made.
use super::{dark, draws_of, one, plan, planned, put, read, small, write};
use crate::disk::faults::Damage;
use crate::fault::spot::{Spot, Which};
use crate::fault::{Fault, Party, Planned, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::Job;

/// All of them.
pub(super) const ALL: [Scenario; 5] = [
    Scenario {
        name: "server-gone-for-good",
        about: "a chunkserver is gone and does not come back: what it had is copied to others; when it is back, it has too much",
        draw: |seed| {
            let mut draws = draws_of(seed);
            while_gone(seed, 1 + draws.index(3), 9_000, Vec::new())
        },
    },
    Scenario {
        name: "power-fails-while-copies-are-made",
        about: "a chunkserver is gone, and power fails as copies are ordered and as they are done",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let gone = 1 + draws.index(3);
            let mut lost = |message: &str, nth: u64| {
                let when = Trigger::AfterMessage(message.into(), nth, draws.below(2));
                let all = draws.below(2) == 0;
                let servers: Vec<usize> = if all {
                    vec![0, 1, 2, 3]
                } else {
                    vec![draws.index(4)]
                };
                planned(when, dark(&servers, &[], &mut draws), 30)
            };
            let faults = vec![
                lost("CopyChunk", 1),
                lost("ChunkCopied", 2),
                lost("ChunkCopied", 5),
            ];
            while_gone(seed, gone, 14_000, faults)
        },
    },
    Scenario {
        name: "bits-flip-on-their-way-to-copies",
        about: "a chunkserver is gone, and bits flip in what others send to whoever makes copies",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let gone = 1 + draws.index(3);
            let flips = |nth: u64| {
                let server = 1 + usize::try_from(nth % 3).expect("a small number");
                let flip = Fault::FlipBodies(Party::Server(server), 2);
                planned(Trigger::At(2_500 + 40 * nth), flip, 500)
            };
            while_gone(seed, gone, 14_000, (0..60).map(flips).collect())
        },
    },
    Scenario {
        name: "block-rots-and-is-copied",
        about: "a block rots on one replica; who reads it is served by another, and the replica is made anew",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let spot = Spot {
                under: "chunks/".into(),
                which: Which::FromLast(draws.below(4)),
                bytes: 256,
            };
            let rots = Fault::Spoil(1 + draws.index(3), spot, Damage::Corrupt);
            let mut jobs = vec![write("/d0/p", &[Some(1_900)]), Job::Idle { ms: 1_500 }];
            jobs.extend((0..24).map(|_| read("/d0/p")));
            jobs.push(Job::Copies { ms: 15_000 });
            Schedule {
                clients: one(jobs),
                faults: vec![planned(Trigger::At(1_200), rots, 1)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "removed-while-copied",
        about: "files are removed while copies of their chunks are made, and servers come and go",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let gone = 1 + draws.index(3);
            let removes = (0..6).flat_map(|nth| {
                let idle = Job::Idle { ms: 3 + 7 * nth };
                [idle, Job::Remove(format!("/d0/g{nth}"))]
            });
            let copied = [Job::Idle {
                ms: 3_400 + draws.below(800),
            }];
            let mut jobs = gone_jobs();
            jobs.truncate(7);
            let removing = copied.into_iter().chain(removes).collect();
            let server = draws.index(4);
            Schedule {
                replication: 2,
                clients: vec![plan(jobs), plan(removing)],
                faults: vec![
                    planned(Trigger::At(1_500), Fault::Isolate(gone), 4_000),
                    planned(
                        Trigger::AfterMessage("CopyChunk".into(), 3, 1),
                        Fault::Kill(server),
                        50,
                    ),
                ],
                ..small(seed)
            }
        },
    },
];

/// A chunkserver is gone for so long while copies are made of what it had, and this happens meanwhile.
fn while_gone(seed: u64, gone: usize, lasts_ms: u64, mut faults: Vec<Planned>) -> Schedule {
    faults.push(planned(Trigger::At(1_500), Fault::Isolate(gone), lasts_ms));
    Schedule {
        replication: 2,
        clients: one(gone_jobs()),
        faults,
        ..small(seed)
    }
}

/// Files of several chunks, one of them with a hole; then every copy has to be there, whoever is gone.
fn gone_jobs() -> Vec<Job> {
    let mut jobs: Vec<Job> = (0..5)
        .map(|nth| put(&format!("/d0/g{nth}"), 300 + 900 * nth))
        .collect();
    jobs.push(write("/d0/g5", &[Some(1_024), None, Some(500)]));
    jobs.push(Job::Idle { ms: 1_600 });
    jobs.push(Job::Copies { ms: 20_000 });
    jobs.extend((0..6).map(|nth| read(&format!("/d0/g{nth}"))));
    jobs
}
