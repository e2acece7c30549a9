//! A file is written further by a client that has not begun it: what the one before left behind, durable on some
//! servers and on others not, must not pass for what is there now.
use super::{dark, draws_of, plan, planned, read, small};
use crate::fault::{Fault, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::{Schedule, Speed};
use crate::workload::job::{End, Fill, Job};

pub(super) const NAME: &str = "/d0/on";

/// All of them.
pub(super) const ALL: [Scenario; 6] = [
    Scenario {
        name: "others-go-on-in-turn",
        about: "clients write one file further, one after another, and servers are killed meanwhile",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let client = |nth: u64, draws: &mut Keyed| {
                let mut jobs = vec![Job::Idle {
                    ms: 300 + 250 * nth,
                }];
                for _ in 0..3 {
                    jobs.push(append(steps(draws), End::Close));
                    jobs.push(Job::Idle {
                        ms: draws.below(700),
                    });
                    jobs.push(read(NAME));
                }
                plan(jobs)
            };
            let mut clients = vec![plan(vec![written(&mut draws, End::Close)])];
            clients.extend((0..3).map(|nth| client(nth, &mut draws)));
            let mut faults = Vec::new();
            for nth in 0..3 {
                let message =
                    draws.pick(&["SealChunk", "ChunkSealed", "ResumeChunk", "ChainPiece"]);
                let at = Trigger::AfterMessage(message.into(), 3 + 7 * nth, draws.below(6));
                let killed = Fault::Kill(draws.index(4));
                faults.push(planned(at, killed, draws.pick(&[60, 2_500])));
            }
            Schedule {
                clients,
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "writer-dies-in-a-sync",
        about: "a writer dies as the power of some of its servers fails in the middle of a sync: they have less than the others, and another client goes on",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let few = draws.pick(&[&[1][..], &[2], &[3], &[1, 2], &[2, 3]]);
            let ends = in_a_sync(&mut draws);
            let power = dark(few, &[], &mut draws);
            Schedule {
                clients: another(&mut draws),
                faults: vec![
                    planned(ends.clone(), Fault::KillClient(0), 60_000),
                    planned(ends, power, 80),
                ],
                ..slow_syncs(seed)
            }
        },
    },
    Scenario {
        name: "member-comes-back-with-more",
        about: "a writer dies in the middle of a sync that one server has made, which is cut off then; another client goes on with those that have not, and that one comes back",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let cut_off = 1 + draws.index(3);
            let ends = in_a_sync(&mut draws);
            let others: Vec<usize> = (1..4).filter(|server| *server != cut_off).collect();
            let power = dark(&others, &[], &mut draws);
            Schedule {
                clients: another(&mut draws),
                faults: vec![
                    planned(ends.clone(), Fault::Isolate(cut_off), 17_000),
                    planned(ends.clone(), Fault::KillClient(0), 60_000),
                    planned(ends, power, 80),
                ],
                ..slow_syncs(seed)
            }
        },
    },
    Scenario {
        name: "raised-and-left-out",
        about: "of the servers that are raised for another client's writes one is, and is cut off; the power of the others fails before they are, and they go on without it",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let raised = 1 + draws.index(3);
            let others: Vec<usize> = (1..4).filter(|server| *server != raised).collect();
            let ordered = |steps| Trigger::AfterMessage("ResumeChunk".into(), 1, steps);
            let power = dark(&others, &[], &mut draws);
            Schedule {
                clients: another(&mut draws),
                faults: vec![
                    planned(ordered(draws.below(8)), power, 60),
                    planned(ordered(8 + draws.below(24)), Fault::Isolate(raised), 6_000),
                ],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "leftovers-in-a-gap",
        about: "a writer dies, and the servers that have what it had not synced are killed; another client goes on at a distance from where the file ends",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let synced = 1 + draws.below(500);
            // Enough that some of it is sent, and not so much that it is synced by itself.
            let lost = vec![
                bytes(0, synced),
                Fill::Sync,
                bytes(synced, 520 + draws.below(200)),
                Fill::Idle { ms: 20_000 },
            ];
            let begun = Job::Write {
                name: NAME.into(),
                fill: lost,
                end: End::Close,
                failed: End::Close,
            };
            let mut at = draws.below(400);
            let mut fill = Vec::new();
            for _ in 0..3 {
                let len = 1 + draws.below(60);
                fill.extend([bytes(at, len), Fill::Sync]);
                at += len + draws.below(600);
            }
            let jobs = vec![
                Job::Idle { ms: 1_500 },
                append(fill, End::Close),
                read(NAME),
                Job::Idle { ms: 5_000 },
                read(NAME),
            ];
            let when = Trigger::At(700 + draws.below(300));
            let mut faults = vec![planned(when.clone(), Fault::KillClient(0), 60_000)];
            let killed = |server| planned(when.clone(), Fault::Kill(server), 80);
            faults.extend((1..4).map(killed));
            Schedule {
                clients: vec![plan(vec![begun]), plan(jobs)],
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "power-fails-while-a-chunk-is-taken-over",
        about: "power fails as the members of a chunk are sealed, are raised, and take pieces of another client than before",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..2 {
                let message = draws.pick(&["ResumeChunk", "ChunkResumed", "ChunkResumed"]);
                let at = 1 + 3 * nth + draws.below(3);
                let made = Trigger::AfterMessage(message.into(), at, draws.below(8));
                let servers = draws.pick(&[&[1, 2, 3][..], &[0, 1, 2, 3], &[0], &[2]]);
                let fault = dark(servers, &[], &mut draws);
                faults.push(planned(made, fault, 60));
            }
            let appends = vec![
                Job::Idle { ms: 500 },
                // Nothing of it is synced before the power fails.
                append(
                    vec![Fill::Idle { ms: 900 }, bytes(0, 20), Fill::Sync],
                    End::Close,
                ),
                read(NAME),
                append(steps(&mut draws), End::Close),
                read(NAME),
            ];
            Schedule {
                clients: vec![plan(vec![written(&mut draws, End::Close)]), plan(appends)],
                faults,
                ..small(seed)
            }
        },
    },
];

/// A client that makes the file, and one that goes on with it, as soon as it may, and looks at it for long enough.
fn another(draws: &mut Keyed) -> Vec<crate::schedule::ClientPlan> {
    let mut jobs = vec![
        Job::Idle { ms: 1_500 },
        append(vec![bytes(0, 1 + draws.below(60))], End::Close),
    ];
    for _ in 0..8 {
        jobs.extend([read(NAME), Job::Idle { ms: 1_500 }]);
    }
    vec![plan(vec![written(draws, End::Close)]), plan(jobs)]
}

/// In the middle of a sync of the first client.
pub(super) fn in_a_sync(draws: &mut Keyed) -> Trigger {
    let message = draws.pick(&["ChainSync", "ChainSynced"]);
    Trigger::AfterMessage(message.into(), 2 + draws.below(5), draws.below(8))
}

pub(super) fn slow_syncs(seed: u64) -> Schedule {
    let base = small(seed);
    Schedule {
        speed: Speed {
            sync_us: 9_000,
            ..base.speed
        },
        ..base
    }
}

pub(super) fn append(fill: Vec<Fill>, end: End) -> Job {
    let name = NAME.into();
    Job::Append { name, fill, end }
}

/// Within one chunk, synced every few pieces.
pub(super) fn written(draws: &mut Keyed, end: End) -> Job {
    let mut fill = Vec::new();
    let mut at = 0;
    for nth in 0..12 {
        let len = 1 + draws.below(100);
        fill.push(bytes(at, len));
        at += len;
        if nth % 3 == 2 {
            fill.push(Fill::Sync);
        }
    }
    Job::Write {
        name: NAME.into(),
        fill,
        end,
        failed: End::Close,
    }
}

pub(super) fn steps(draws: &mut Keyed) -> Vec<Fill> {
    let mut fill = Vec::new();
    let mut at = 0;
    for _ in 0..4 {
        let len = 1 + draws.below(200);
        fill.push(bytes(at, len));
        at += len;
        if draws.percent(40) {
            fill.push(Fill::Sync);
        }
    }
    fill
}

pub(super) fn bytes(at: u64, len: u64) -> Fill {
    Fill::Bytes { at, len }
}
