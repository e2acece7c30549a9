//! Chains that break under a writer, and go on in others: the writer must not notice more than a pause, whoever is
//! gone, as long as enough are there who have what was synced.
use super::{dark, draws_of, plan, planned, read, small};
use crate::disk::faults::{Aim, Damage, DiskFault, Target as DiskTarget, Times};
use crate::fault::spot::{Spot, Which};
use crate::fault::{Cut, Fault, Party, Trigger};
use crate::scenario::Scenario;
use crate::schedule::{Class, Schedule, Speed};
use crate::workload::job::{End, Fill, Job};

/// All of them.
pub(super) const ALL: [Scenario; 9] = [
    Scenario {
        name: "member-dies-under-writer",
        about: "a chunkserver is killed while a file is written through it, and stays away for longer than a lease; the writer goes on with the others",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let killed = |nth: u64| {
                let message = draws.pick(&["ChainPiece", "ChainSync", "ChainSynced"]);
                let nth = draws.between(2, 8) + 9 * nth;
                let sent = Trigger::AfterMessage(message.into(), nth, draws.below(8));
                planned(
                    sent,
                    Fault::Kill(1 + draws.index(3)),
                    draws.pick(&[2_500, 6_000]),
                )
            };
            let faults = (0..3).map(killed).collect();
            Schedule {
                clients: written_and_read(&[2_600, 2_600]),
                faults,
                speed: Speed {
                    sync_us: 12_000,
                    ..small(seed).speed
                },
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "sync-reaches-some-members",
        about: "connections break again and again in the middle of syncs: some members have made them and others have not, and all go on in one chain",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            // Of two servers neither can be left out, nor another be given a copy.
            let servers = draws.pick(&[2, 3]);
            let breaks = |nth: u64| {
                let message = draws.pick(&["ChainSync", "ChainSynced"]);
                let sent = Trigger::AfterMessage(message.into(), 2 + 5 * nth, draws.below(12));
                let cut = draws.pick(&[Cut::Seen, Cut::HalfSeen]);
                let links = Fault::CutLinks(Party::Server(1 + draws.index(servers)), cut);
                planned(sent, links, 1)
            };
            Schedule {
                servers: 1 + servers,
                replication: u8::try_from(servers).expect("few servers"),
                faults: (0..4).map(breaks).collect(),
                clients: written_and_read(&[2_600, 2_600]),
                speed: Speed {
                    sync_us: 6_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "all-members-restart-under-writer",
        about: "the power of all chunkservers fails in the middle of a sync; each comes back with what it had durable, and the writer goes on",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let mut lost = |nth: u64| {
                let message = draws.pick(&["ChainSync", "ChainSynced", "ChainPiece"]);
                let sent = Trigger::AfterMessage(message.into(), 3 + 6 * nth, draws.below(12));
                planned(sent, dark(&[1, 2, 3], &[], &mut draws), 300)
            };
            let faults = (0..2).map(&mut lost).collect();
            Schedule {
                clients: written_and_read(&[2_600, 2_600]),
                faults,
                speed: Speed {
                    sync_us: 6_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "header-rots-under-writer",
        about: "a member comes back with an older header than the sync that its writer was told of: it is left out",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let server = 1 + draws.index(3);
            let rots = |slot: u64| {
                let spot = Spot {
                    under: "chunks/".into(),
                    which: Which::FromFirst(slot),
                    bytes: 8_192,
                };
                Fault::Spoil(server, spot, Damage::Corrupt)
            };
            // What fills a sync in the background is in no report yet.
            let fill = vec![
                bytes(0, 1_280),
                Fill::Idle { ms: 800 },
                bytes(1_280, 512),
                Fill::Sync,
            ];
            let jobs = vec![must("/d0/r", fill), Job::Idle { ms: 1_500 }, read("/d0/r")];
            Schedule {
                class: Class::Safe,
                clients: vec![plan(jobs)],
                faults: vec![
                    planned(Trigger::At(600), Fault::Kill(server), 150),
                    planned(Trigger::At(650), rots(draws.below(2)), 1),
                ],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "sync-fails-under-writer",
        about: "a sync of a member fails and drops what it was to save; its chunk goes on without it, and its server is killed and comes back",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..3 {
                let server = 1 + draws.index(3);
                let aim = Aim {
                    at: DiskTarget::Under("chunks".into()),
                    after: draws.below(6),
                    times: Times::Once,
                    seed: draws.bits(),
                };
                let at = 60 + 400 * nth;
                faults.push(planned(
                    Trigger::At(at),
                    Fault::Disk(server, DiskFault::DropSync { aim }),
                    350,
                ));
                let killed = Trigger::At(at + draws.between(20, 300));
                faults.push(planned(killed, Fault::Kill(server), 200));
            }
            Schedule {
                clients: written_and_read(&[2_600, 2_600, 2_600]),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "head-out-of-reach",
        about: "a client cannot reach one of the servers, which may be the head of its chain; the others can",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let server = 1 + draws.index(3);
            let sent = Trigger::AfterMessage("ChainPiece".into(), draws.between(3, 9), 0);
            Schedule {
                clients: vec![plan(vec![must("/d0/h", pieces(1_800))])],
                faults: vec![planned(sent, Fault::Apart(0, server), 60_000)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "members-out-of-reach",
        about: "two chunkservers cannot reach one another, and everybody else reaches both",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let one = 1 + draws.index(3);
            let other = 1 + one % 3;
            let nth = draws.between(3, 9);
            let apart = |from, to| {
                let sent = Trigger::AfterMessage("ChainPiece".into(), nth, 0);
                planned(sent, Fault::OneWay(from, to), 90_000)
            };
            Schedule {
                clients: vec![plan(vec![must("/d0/m", pieces(1_800))])],
                faults: vec![apart(one, other), apart(other, one)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "one-of-two-members-dies",
        about: "of two members one is gone for good: another server gets a copy of what was synced, and the writer goes on",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let server = 1 + draws.index(3);
            let sent =
                Trigger::AfterMessage("SyncDone".into(), draws.between(1, 4), draws.below(6));
            Schedule {
                replication: 2,
                clients: written_and_read(&[1_800, 1_800]),
                faults: vec![planned(sent, Fault::Kill(server), 20_000)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "power-fails-while-a-chain-is-made",
        about: "a chain breaks, and power fails as members are sealed and as they take pieces again",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..3 {
                let sent = Trigger::AfterMessage("ChainPiece".into(), 3 + 6 * nth, draws.below(8));
                let links = Fault::CutLinks(Party::Server(1 + draws.index(3)), Cut::Seen);
                faults.push(planned(sent, links, 1));
                let message =
                    draws.pick(&["SealChunk", "ChunkSealed", "ResumeChunk", "ChunkResumed"]);
                let made = Trigger::AfterMessage(message.into(), 1 + 3 * nth, draws.below(4));
                let servers = draws.pick(&[&[0][..], &[1], &[2], &[3], &[0, 1, 2, 3]]);
                faults.push(planned(made, dark(servers, &[], &mut draws), 60));
            }
            Schedule {
                clients: written_and_read(&[2_600, 2_600]),
                faults,
                ..small(seed)
            }
        },
    },
];

/// A client that writes files of these sizes, one after the other, and must not fail; and one that reads them.
fn written_and_read(sizes: &[u64]) -> Vec<crate::schedule::ClientPlan> {
    let name = |nth: usize| format!("/d0/c{nth}");
    let write = |(nth, size): (usize, &u64)| must(&name(nth), pieces(*size));
    let looks = (0..sizes.len()).cycle().take(6);
    let reads = looks.flat_map(|nth| [Job::Idle { ms: 400 }, read(&name(nth))]);
    vec![
        plan(sizes.iter().enumerate().map(write).collect()),
        plan(reads.collect()),
    ]
}

fn must(name: &str, fill: Vec<Fill>) -> Job {
    Job::Write {
        name: name.into(),
        fill,
        end: End::Close,
        failed: End::MustNot,
    }
}

/// Pieces of a block or two, now and then a sync, and a pause.
fn pieces(size: u64) -> Vec<Fill> {
    let mut fill = Vec::new();
    let mut at = 0;
    for nth in 0.. {
        let len = [512, 256, 300, 212, 512][nth % 5].min(size - at);
        fill.push(bytes(at, len));
        at += len;
        if at == size {
            return fill;
        }
        match nth % 4 {
            1 => fill.push(Fill::Sync),
            3 => fill.push(Fill::Idle { ms: 60 }),
            _ => {}
        }
    }
    fill
}

fn bytes(at: u64, len: u64) -> Fill {
    Fill::Bytes { at, len }
}
