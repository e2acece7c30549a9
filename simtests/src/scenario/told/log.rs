//! The log of the meta server, and what a loss of power leaves of it.
use super::{dark, draws_of, mkdir, one, plan, planned, put, read, small};
use crate::fault::{Fault, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::Job;
use kfs_core::limits::Limits;

/// Between two checkpoints.
const EVERY_MS: u64 = 150;

/// All of them.
pub(super) const ALL: [Scenario; 4] = [
    Scenario {
        name: "first-checkpoints-lose-power",
        about: "the power of the meta server fails when its first two checkpoints are made, and the log that they stand for is gone",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let jobs = (0..60).flat_map(|nth| [mkdir(&format!("/f{nth}")), Job::Idle { ms: 5 }]);
            // Behind the second one, before the third one.
            let when = Trigger::At(EVERY_MS + draws.below(2 * EVERY_MS));
            Schedule {
                checkpoint_ms: EVERY_MS,
                clients: one(jobs.chain([Job::List("/".into())]).collect()),
                faults: vec![planned(when, dark(&[0], &[], &mut draws), 10)],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "segment-switch-power",
        about: "the power of the meta server fails again and again while the log goes on in another segment",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut jobs: Vec<Job> = (0..40).map(|nth| mkdir(&format!("/s{nth}"))).collect();
            jobs.push(Job::List("/".into()));
            let faults = (0..5).map(|nth| {
                planned(
                    Trigger::AtOperation(0, 40 + 150 * nth, draws.below(30)),
                    dark(&[0], &[], &mut draws),
                    10,
                )
            });
            Schedule {
                clients: one(jobs),
                faults: faults.collect(),
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "tail-in-cache",
        about: "the meta server is killed in a write of the log, starts on what the page cache holds, goes on, and loses power",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let jobs = (0..40).map(|nth| mkdir(&format!("/t{nth}"))).collect();
            let mut faults = Vec::new();
            for nth in 0..4 {
                let kill = Trigger::AtOperation(0, 30 + 300 * nth, draws.below(10));
                faults.push(planned(kill, Fault::Kill(0), 5));
                let power = Trigger::At(30 + 300 * nth + 180 + draws.below(100));
                faults.push(planned(power, dark(&[0], &[], &mut draws), 5));
            }
            Schedule {
                clients: one(jobs),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "rename-over-power",
        about: "a file is replaced again and again by records that fill a batch each, until the power of the meta server and of who asked fails",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let mut jobs = Vec::new();
            for nth in 0..10 {
                jobs.push(put("/d0/r", 100 + nth));
                jobs.push(Job::Stat("/d0/r".into()));
            }
            let looks = (0..40).flat_map(|_| [Job::Idle { ms: 5 }, Job::Stat("/d0/r".into())]);
            let faults = (0..3).map(|nth| {
                planned(
                    Trigger::AtOperation(0, 60 + 200 * nth, draws.below(14)),
                    dark(&[0], &[0], &mut draws),
                    10,
                )
            });
            Schedule {
                faults: faults.collect(),
                clients: vec![
                    plan(jobs),
                    plan(
                        [put("/d1/other", 600), read("/d1/other")]
                            .into_iter()
                            .chain(looks)
                            .collect(),
                    ),
                ],
                limits: Limits {
                    log_batch_bytes: 1,
                    ..base.limits
                },
                ..base
            }
        },
    },
];
