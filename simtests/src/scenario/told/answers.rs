//! Answers that leave too early, get lost, or come too late.
use super::{dark, draws_of, mkdir, one, plan, planned, put, read, small, write};
use crate::fault::{Fault, Trigger};
use crate::scenario::Scenario;
use crate::schedule::{ClientPlan, Schedule, Speed};
use crate::workload::job::Job;
use kfs_core::limits::Timing;
use kfs_core::wire::client_meta::RenameMode;
use std::time::Duration;

/// All of them.
pub(super) const ALL: [Scenario; 7] = [
    Scenario {
        name: "seen-before-durable",
        about: "names are made while another client lists them, and the meta server loses power in the middle of a sync",
        draw: |seed| {
            let makes = (0..12).map(|nth| mkdir(&format!("/a{nth}"))).collect();
            let looks = (0..80).flat_map(|_| [Job::Idle { ms: 3 }, Job::List("/".into())]);
            slow_log(seed, vec![plan(makes), plan(looks.collect())])
        },
    },
    Scenario {
        name: "refused-before-durable",
        about: "two clients make the same names, and the meta server loses power in the middle of a sync",
        draw: |seed| {
            let makes = || (0..16).map(|nth| mkdir(&format!("/a{nth}"))).collect();
            slow_log(seed, vec![plan(makes()), plan(makes())])
        },
    },
    Scenario {
        name: "removal-lost",
        about: "synced files are removed, and the power of the meta server and the client fails when chunkservers hear of it",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let names = ["/d0/a", "/d0/b", "/d1/c", "/d1/d"];
            let mut jobs: Vec<Job> = names.iter().map(|name| put(name, 900)).collect();
            jobs.extend(names.iter().map(|name| Job::Remove((*name).into())));
            let base = small(seed);
            Schedule {
                clients: vec![
                    plan(jobs),
                    plan(vec![Job::Idle { ms: 300 }, Job::List("/d0".into())]),
                ],
                faults: vec![planned(
                    Trigger::AfterMessage("DeleteChunks".into(), 1 + draws.below(8), 1),
                    dark(&[0], &[0], &mut draws),
                    2_500,
                )],
                latency_us: (50, 400),
                speed: Speed {
                    sync_us: 60_000,
                    ..base.speed
                },
                timing: Timing {
                    trash_grace: Duration::from_millis(300),
                    ..base.timing
                },
                ..base
            }
        },
    },
    Scenario {
        name: "answers-of-two-batches-lost",
        about: "one client has changes unanswered in two batches of the log when the meta server is cut off and dies",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let actor = |nth: u64| {
                (0..14)
                    .map(|job| mkdir(&format!("/a{nth}-{job}")))
                    .collect()
            };
            let at = 60 + draws.below(300);
            Schedule {
                clients: vec![ClientPlan {
                    actors: (0..4).map(actor).collect(),
                }],
                faults: vec![
                    // Longer than clients wait before they give a link up.
                    planned(Trigger::At(at), Fault::Isolate(0), 6_000),
                    planned(Trigger::At(at + 120), dark(&[0], &[], &mut draws), 30),
                ],
                speed: Speed {
                    sync_us: 60_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "cut-off-until-expired",
        about: "the meta server does what it was asked, and nobody hears of it for longer than a session lives",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let actor = |nth: u64| {
                let jobs = (0..12).map(|job| {
                    if job % 2 == 0 {
                        mkdir(&format!("/a{nth}-{job}"))
                    } else {
                        Job::Rename {
                            from: format!("/a{nth}-{}", job - 1),
                            to: format!("/b{nth}-{job}"),
                            mode: RenameMode::NoReplace,
                        }
                    }
                });
                jobs.collect()
            };
            Schedule {
                clients: vec![ClientPlan {
                    actors: (0..3).map(actor).collect(),
                }],
                faults: vec![planned(
                    Trigger::At(30 + draws.below(200)),
                    Fault::Isolate(0),
                    // Longer than clients wait before they give a link up.
                    7_000,
                )],
                timing: short_sessions(base.timing),
                speed: Speed {
                    sync_us: 40_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "opening-comes-late",
        about: "sessions are asked for while nothing arrives; those messages come when their clients have long had other links",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let makes = |of: u64| {
                let make = |job: u64| [mkdir(&format!("/a{of}-{job}")), Job::Idle { ms: 150 }];
                plan((0..80).flat_map(make).collect())
            };
            let dark = dark(&[0], &[], &mut draws);
            Schedule {
                clients: (0..4).map(makes).collect(),
                faults: vec![
                    planned(Trigger::At(300), dark, 50),
                    // The meta server is not ready yet; who is told so asks again on the same link.
                    planned(
                        Trigger::AfterMessage("SessionOpened".into(), 5, draws.below(60)),
                        Fault::Isolate(0),
                        // About as long as clients wait before they give a link up.
                        3_000 + draws.below(2_500),
                    ),
                ],
                speed: Speed {
                    sync_us: 60_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
    Scenario {
        name: "close-not-reported",
        about: "a close has synced its data, and cannot tell the meta server its size for longer than the session lives",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            Schedule {
                clients: one(vec![
                    write("/d0/a", &[Some(900)]),
                    write("/d0/b", &[Some(500), None, Some(700)]),
                    write("/d1/c", &[Some(2_500)]),
                    read("/d0/a"),
                    read("/d0/b"),
                    read("/d1/c"),
                ]),
                faults: vec![planned(
                    Trigger::AfterMessage("SyncDone".into(), 1 + draws.below(6), 0),
                    Fault::Isolate(0),
                    draws.pick(&[4_000, 25_000]),
                )],
                timing: short_sessions(base.timing),
                ..base
            }
        },
    },
];

/// The log takes long to sync, and the meta server loses power at some of its operations.
fn slow_log(seed: u64, clients: Vec<ClientPlan>) -> Schedule {
    let mut draws = draws_of(seed);
    let base = small(seed);
    let faults = (0..2).map(|nth| {
        planned(
            Trigger::AtOperation(0, 10 + 100 * nth, draws.below(16)),
            dark(&[0], &[], &mut draws),
            20,
        )
    });
    Schedule {
        faults: faults.collect(),
        clients,
        latency_us: (50, 400),
        speed: Speed {
            sync_us: 40_000,
            ..base.speed
        },
        ..base
    }
}

fn short_sessions(timing: Timing) -> Timing {
    Timing {
        session_idle: Duration::from_millis(900),
        ..timing
    }
}
