//! Copies that are made again: a server is gone, a replica is bad, and what can go wrong while a copy is made.
use super::{dark, draws_of, one, plan, planned, put, read, small, write};
use crate::disk::faults::Damage;
use crate::fault::spot::{Spot, Which};
use crate::fault::{Fault, Party, Planned, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::Job;

/// Bytes a second that chunkservers read by themselves: some three chunks with their headers.
const SCRUB_RATE: u64 = 64 << 10;
/// When a block rots first, and how long the others have then to be found out and made good.
const ROTS_FIRST: u64 = 1_500;
const ROTS_EVERY: u64 = 12_000;

/// When a server is gone that was drained before.
const STOPPED_AT: u64 = 12_000;

/// All of them.
pub(super) const ALL: [Scenario; 9] = [
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
        name: "block-rots-and-nobody-reads",
        about: "the same block rots on one replica after another, and nobody reads the file until it has on all",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let which = Which::FromLast(draws.below(16));
            let mut servers = [1, 2, 3];
            draws.shuffle(&mut servers);
            let rots = |(nth, server): (u64, usize)| {
                let spot = Spot {
                    under: "chunks/".into(),
                    which,
                    bytes: 256,
                };
                let fault = Fault::Spoil(server, spot, Damage::Corrupt);
                planned(Trigger::At(ROTS_FIRST + nth * ROTS_EVERY), fault, 1)
            };
            let idle = Job::Idle {
                ms: ROTS_FIRST + 3 * ROTS_EVERY,
            };
            Schedule {
                // Two chunks, to their ends: they are at rest at once.
                clients: one(vec![write("/d0/p", &[Some(4_096)]), idle, read("/d0/p")]),
                faults: (0..).zip(servers).map(rots).collect(),
                scrub_rate: SCRUB_RATE,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "server-is-drained",
        about: "a chunkserver is drained while files are made; power fails as copies are ordered and done, of the meta server too, between its checkpoints",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut lost = |message: &str, nth: u64| {
                let when = Trigger::AfterMessage(message.into(), nth, draws.below(2));
                let servers = [vec![0], vec![1 + draws.index(4)], vec![0, 1, 2, 3, 4]];
                planned(when, dark(&servers[draws.index(3)], &[], &mut draws), 30)
            };
            let faults = vec![
                lost("CopyChunk", 1),
                lost("ChunkCopied", 2),
                lost("ChunkCopied", 5),
            ];
            Schedule {
                checkpoint_ms: 150,
                ..drained(seed, 1 + draws.index(4), faults)
            }
        },
    },
    Scenario {
        name: "drained-server-is-stopped",
        about: "a chunkserver is drained and then gone, and everything is read from the others",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let server = 1 + draws.index(4);
            let mut schedule = drained(seed, server, Vec::new());
            let gone = planned(Trigger::At(STOPPED_AT), Fault::Isolate(server), 6_000);
            schedule.faults.push(gone);
            let jobs = &mut schedule.clients[0].actors[0];
            jobs.push(Job::Idle { ms: STOPPED_AT });
            jobs.extend((0..6).map(|nth| read(&format!("/d0/g{nth}"))));
            schedule
        },
    },
    Scenario {
        name: "replication-is-changed",
        about: "files ask for more replicas, and for fewer, while power fails as copies are made; in the end each has as many as it asked for last",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut lost = |message: &str, nth: u64| {
                let when = Trigger::AfterMessage(message.into(), nth, draws.below(2));
                let servers = [vec![0], vec![1 + draws.index(4)], vec![0, 1, 2, 3, 4]];
                planned(when, dark(&servers[draws.index(3)], &[], &mut draws), 30)
            };
            let faults = vec![lost("CopyChunk", 2), lost("ChunkCopied", 4)];
            let mut jobs = gone_jobs();
            jobs.truncate(6);
            for replication in [4, 2, 3] {
                let set = |nth| Job::SetReplication {
                    name: format!("/d0/g{nth}"),
                    replication,
                };
                jobs.extend((0..6).filter(|_| draws.below(3) > 0).map(set));
                jobs.push(Job::Copies { ms: 20_000 });
                jobs.extend((0..6).map(|nth| read(&format!("/d0/g{nth}"))));
            }
            Schedule {
                servers: 5,
                replication: 2,
                checkpoint_ms: 150,
                clients: one(jobs),
                faults,
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

/// A chunkserver is drained while others make files, and this happens meanwhile.
fn drained(seed: u64, server: usize, faults: Vec<Planned>) -> Schedule {
    let mut jobs = gone_jobs();
    jobs.truncate(6);
    jobs.push(Job::Drain { server, ms: 20_000 });
    jobs.push(Job::Copies { ms: 20_000 });
    jobs.extend((0..6).map(|nth| read(&format!("/d0/g{nth}"))));
    let makes = (0..12).flat_map(|nth| {
        let name = format!("/d1/n{nth}");
        [put(&name, 900), Job::Idle { ms: 60 }, read(&name)]
    });
    Schedule {
        servers: 5,
        replication: 2,
        clients: vec![plan(jobs), plan(makes.collect())],
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
