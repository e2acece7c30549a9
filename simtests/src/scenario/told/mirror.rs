//! The mirror of the log: what one of its two copies loses, the other one has.
use super::{dark, draws_of, mkdir, one, planned, small};
use crate::disk::faults::Damage;
use crate::fault::spot::Which;
use crate::fault::{Fault, Spot, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{Job, SHARED_DIRS};

/// All of them.
pub(super) const ALL: [Scenario; 2] = [
    Scenario {
        name: "mirror-has-the-last-batch",
        about: "the power of the meta server fails at an ack, and what was acked rots in one copy of the log before a mark is behind it",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let at = || Trigger::AtAck(SHARED_DIRS + 3);
            let copy = if draws.percent(75) {
                "log/log."
            } else {
                "mirror/log/log."
            };
            let damage = draws.pick(&[Damage::Corrupt, Damage::Zero, Damage::Unreadable]);
            Schedule {
                log_mirror: true,
                clients: one(mkdirs(6)),
                faults: vec![
                    planned(at(), dark(&[0], &[], &mut draws), 100),
                    planned(at(), rots(copy, Which::FromLast(0), damage), 1),
                ],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "mirror-and-log-rot-apart",
        about: "the log and its mirror rot in different places while the meta server is down, again and again: each repairs the other",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..3 {
                let ms = 1_000 + 800 * nth;
                // What cannot be read stays so, under whatever file has the name.
                let damage = draws.pick(&[Damage::Corrupt, Damage::Zero]);
                // Where the one rots, the other one did before.
                let (early, late) = (draws.below(3), 3 + draws.below(3));
                let (own, mirror) = if nth == 1 {
                    (late, early)
                } else {
                    (early, late)
                };
                faults.push(planned(Trigger::At(ms), Fault::Kill(0), 100));
                for (copy, which) in [("log/log.", own), ("mirror/log/log.", mirror)] {
                    let rots = rots(copy, Which::FromFirst(which), damage);
                    faults.push(planned(Trigger::At(ms + 50), rots, 1));
                }
            }
            let mut jobs = mkdirs(12);
            jobs.push(Job::Idle { ms: 4_000 });
            jobs.push(Job::List("/".into()));
            Schedule {
                log_mirror: true,
                clients: one(jobs),
                faults,
                ..small(seed)
            }
        },
    },
];

fn mkdirs(count: u64) -> Vec<Job> {
    (0..count).map(|nth| mkdir(&format!("/m{nth}"))).collect()
}

fn rots(copy: &str, which: Which, damage: Damage) -> Fault {
    let spot = Spot {
        under: copy.into(),
        which,
        bytes: 4_096,
    };
    Fault::Spoil(0, spot, damage)
}
