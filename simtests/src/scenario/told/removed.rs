//! What was removed: files that somebody has open, trees that are being reclaimed.
use super::{acked, dark, draws_of, mkdir, plan, planned, put, read, small, write};
use crate::fault::Trigger;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{End, Fill, Job, Look, ReadHow};
use kfs_core::limits::Timing;
use std::time::Duration;

/// So long may a client be silent.
const IDLE: Duration = Duration::from_millis(900);

/// All of them.
pub(super) const ALL: [Scenario; 2] = [
    Scenario {
        name: "removed-while-open",
        about: "files are removed and replaced while others read and write them, and the meta server loses power",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let removes = vec![
                write("/d0/removed", &[Some(3_000)]),
                write("/d0/replaced", &[Some(2_500)]),
                Job::Idle { ms: 400 },
                Job::Remove("/d0/removed".into()),
                put("/d0/replaced", 700),
                Job::Remove("/d0/written".into()),
                read("/d0/replaced"),
                Job::Stat("/d0/removed".into()),
            ];
            let writes = Job::Write {
                name: "/d0/written".into(),
                fill: slowly(16, 250),
                end: End::Close,
                failed: End::Close,
            };
            let at = 400 + draws.below(600);
            let fault = dark(&[0], &[], &mut draws);
            Schedule {
                clients: vec![
                    plan(removes),
                    plan(vec![acked(5, 4), looks("/d0/removed")]),
                    plan(vec![acked(5, 4), looks("/d0/replaced")]),
                    plan(vec![writes]),
                    plan(vec![acked(5, 4), looks("/d0/removed")]),
                ],
                faults: vec![planned(Trigger::At(at), fault, 50)],
                timing: Timing {
                    session_idle: IDLE,
                    ..base.timing
                },
                // Some of what is reclaimed goes in parts then.
                buggify_permille: draws.pick(&[0, 250]),
                ..base
            }
        },
    },
    Scenario {
        name: "tree-removed-while-created-below",
        about: "a directory is removed with all that is in it, while one client creates below it and another has a file in it open, and the meta server loses power",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let makes = (0..60).flat_map(|nth| {
                let dir = format!("/d0/t/{}", nth % 5);
                let file = format!("{dir}/{nth}");
                [mkdir("/d0/t"), mkdir(&dir), Job::Touch(file)]
            });
            let first = [mkdir("/d0/t"), write("/d0/t/open", &[Some(2_000)])];
            let removes = (0..6).flat_map(|_| {
                let tree = || "/d0/t".to_owned();
                [
                    Job::RemoveTree(tree()),
                    Job::List(tree()),
                    Job::Idle { ms: 150 },
                ]
            });
            let begin = first.into_iter().chain([Job::Idle { ms: 500 }]);
            let at = 450 + draws.below(500);
            let fault = dark(&[0], &[], &mut draws);
            Schedule {
                clients: vec![
                    plan(begin.chain(removes).collect()),
                    plan(vec![Job::Idle { ms: 300 }, looks("/d0/t/open")]),
                    plan(makes.collect()),
                ],
                faults: vec![planned(Trigger::At(at), fault, 50)],
                timing: Timing {
                    session_idle: IDLE,
                    ..base.timing
                },
                checkpoint_ms: 150,
                buggify_permille: draws.pick(&[0, 250]),
                ..base
            }
        },
    },
];

/// A file is looked at for longer than a client may be silent, and once more.
fn looks(name: &str) -> Job {
    let look = |nth: u64| {
        let at = 300 * (nth % 7);
        [Look::At { at, len: 400 }, Look::Idle { ms: 150 }]
    };
    Job::Read {
        name: name.into(),
        how: ReadHow::Looks((0..20).flat_map(look).collect()),
    }
}

/// So many blocks, a few at a time.
fn slowly(blocks: u64, ms: u64) -> Vec<Fill> {
    let block = |nth: u64| Fill::Bytes {
        at: 256 * nth,
        len: 256,
    };
    let steps = (0..blocks).flat_map(|nth| [block(nth), Fill::Sync, Fill::Idle { ms }]);
    steps.collect()
}
