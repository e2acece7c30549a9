//! What an operator does to the data directory of a meta server: compacts it, backs it up, restores it.
use super::{dark, draws_of, mkdir, one, planned, put, read, small};
use crate::disk::Policy;
use crate::disk::faults::{Aim, DiskFault, Target as DiskTarget, Times};
use crate::fault::{Fault, Planned, Site, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::{Class, Schedule};
use crate::workload::job::Job;

/// All of them.
pub(super) const ALL: [Scenario; 5] = [
    Scenario {
        name: "compactor-beside-server",
        about: "compactors run beside a meta server that makes checkpoints too, and either is killed or loses power at any point",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults: Vec<Planned> = (0..8)
                .map(|nth| {
                    // Most end by themselves; some give way to a server that makes checkpoints meanwhile.
                    let lasts_ms = draws.pick(&[5_000, 5_000, 3, 15]);
                    let at = Trigger::At(30 + 70 * nth + draws.below(60));
                    planned(at, Fault::Compact(draws.pick(&[1, 1, 40, 400])), lasts_ms)
                })
                .collect();
            faults.extend(server_falls(&mut draws));
            Schedule {
                checkpoint_ms: draws.pick(&[0, 0, 30, 150]),
                clients: one(grows()),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "backups-beside-server",
        about: "a data directory is backed up again and again while its server makes checkpoints, lets go of segments, and starts again",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults: Vec<Planned> = (0..10)
                .map(|nth| {
                    let at = Trigger::At(30 + 60 * nth + draws.below(60));
                    planned(at, Fault::Backup(draws.pick(&[1, 40, 200])), 5_000)
                })
                .collect();
            // Two starts between two of its steps: an epoch that the log had not when it was copied.
            for nth in 0..4 {
                for ms in [100, 170] {
                    let at = Trigger::At(ms + 150 * nth);
                    faults.push(planned(at, Fault::Kill(0), 5));
                }
            }
            faults.extend(server_falls(&mut draws));
            Schedule {
                checkpoint_ms: draws.pick(&[0, 20, 40, 150]),
                clients: one(grows()),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "backup-reads-wrong",
        about: "a data directory is backed up while its disk gives wrong bits of the log now and then",
        draw: |seed| {
            let mut draws = draws_of(seed);
            // While the log has one segment, which is what is read wrong.
            let faults = (0..5).flat_map(|nth| {
                let at = Trigger::At(20 + 15 * nth + draws.below(10));
                let aim = Aim {
                    at: DiskTarget::Under("log".into()),
                    after: 0,
                    times: Times::Once,
                    seed: draws.bits(),
                };
                let wrong = DiskFault::CorruptRead { bits: 10, aim };
                [
                    planned(at.clone(), Fault::Disk(0, wrong), 8),
                    planned(at, Fault::Backup(1), 5_000),
                ]
            });
            let faults = faults.collect();
            Schedule {
                clients: one(grows()),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "backup-restored",
        about: "the meta server loses its disk and gets a backup; the operator accepts what is missing, and what was lost is found",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let files = |from: u64, to: u64| (from..to).map(|nth| put(&format!("/d0/p{nth}"), 300));
            let early = || (0..3).map(|nth| read(&format!("/d0/p{nth}")));
            let found = ["/", "/lost+found"].map(|dir| Job::List(dir.into()));
            let jobs = files(0, 3)
                .chain([Job::Idle { ms: 1_200 }])
                .chain(files(3, 6))
                .chain([Job::Idle { ms: 2_500 }, put("/d0/refused", 300)])
                .chain(early())
                .chain([Job::AcceptRollback, Job::Idle { ms: 1_500 }])
                .chain(found)
                .chain(early())
                .chain(files(6, 9))
                .chain([Job::Idle { ms: 500 }]);
            // A start may lie between the backup and its restoration: an epoch that it has not.
            let mut faults = vec![planned(Trigger::At(700), Fault::Backup(1), 5_000)];
            if draws.percent(50) {
                faults.push(planned(Trigger::At(1_100), Fault::Kill(0), 5));
            }
            let down_ms = draws.pick(&[5, 300]);
            faults.push(planned(Trigger::At(2_900), Fault::Restore, down_ms));
            Schedule {
                class: Class::Safe,
                checkpoint_ms: draws.pick(&[0, 60]),
                log_mirror: draws.percent(30),
                clients: one(jobs.collect()),
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "start-loses-power",
        about: "the meta server is killed in a write of the log, and its power fails while it starts on what the page cache holds",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..20 {
                let ms = 60 + 120 * nth;
                faults.push(planned(Trigger::At(ms), Fault::Kill(0), 5));
                // At an operation of the start; most of those behind which names wait for their directory.
                let first = draws.pick(&[0, 9, 9, 9]);
                let at = Trigger::AtOperation(0, ms + 6, first + draws.below(7));
                let site = Site {
                    servers: vec![0],
                    clients: Vec::new(),
                };
                let policy =
                    draws.pick(&[Policy::Subset, Policy::Subset, Policy::Torn, Policy::Prefix]);
                faults.push(planned(at, Fault::PowerLoss(site, policy), 5));
            }
            Schedule {
                clients: one((0..240).map(|nth| mkdir(&format!("/t{nth}"))).collect()),
                faults,
                ..small(seed)
            }
        },
    },
];

/// So much that the log goes on in other segments.
fn grows() -> Vec<Job> {
    let jobs = (0..6).flat_map(|nth| {
        let made = (0..5).map(move |which| mkdir(&format!("/c{nth}-{which}")));
        made.chain([put(&format!("/d0/p{nth}"), 300), Job::Idle { ms: 60 }])
    });
    jobs.chain([Job::List("/".into())]).collect()
}

/// The meta server is killed or loses power at any of its operations, and is away for a while.
fn server_falls(draws: &mut Keyed) -> Vec<Planned> {
    let mut falls = Vec::new();
    for nth in 0..3 {
        let strikes = if draws.percent(50) {
            Fault::Kill(0)
        } else {
            dark(&[0], &[], draws)
        };
        let when = Trigger::AtOperation(0, 60 + 200 * nth, draws.below(40));
        falls.push(planned(when, strikes, draws.pick(&[5, 60])));
    }
    falls
}
