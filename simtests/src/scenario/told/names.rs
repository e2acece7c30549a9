//! Names: directories that would hold themselves, files that go with who made them.
use super::{draws_of, mkdir, plan, planned, read, small, write};
use crate::fault::{Fault, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{Fill, Job};
use kfs_core::limits::Timing;
use kfs_core::wire::client_meta::RenameMode;
use std::time::Duration;

/// All of them.
pub(super) const ALL: [Scenario; 2] = [
    Scenario {
        name: "directory-below-itself",
        about: "directories are moved to names below themselves, and two below one another at the same time",
        draw: |seed| {
            let moved = |from: &str, to: &str| Job::Rename {
                from: from.into(),
                to: to.into(),
                mode: RenameMode::NoReplace,
            };
            let jobs = |one: &str, other: &str| {
                vec![
                    mkdir(one),
                    Job::Idle { ms: 40 },
                    moved(one, &format!("{other}/in")),
                    moved(one, &format!("{one}/self")),
                    mkdir(&format!("{one}/deep")),
                    moved(one, &format!("{one}/deep/self")),
                    write(&format!("{one}/deep/f"), &[Some(700)]),
                    read(&format!("{one}/deep/f")),
                    Job::List(one.into()),
                    Job::Stat(format!("{one}/deep")),
                    Job::List("/".into()),
                ]
            };
            Schedule {
                clients: vec![plan(jobs("/x", "/y")), plan(jobs("/y", "/x"))],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "writer-dies",
        about: "clients die with temporary files open, and others list the directory when their sessions are over",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let temp = |nth: u64| Job::Put {
                temp: format!("/d0/.tmp{nth}"),
                name: format!("/d0/f{nth}"),
                mode: RenameMode::Replace,
                fill: vec![
                    Fill::Bytes { at: 0, len: 300 },
                    Fill::Sync,
                    Fill::Idle { ms: 400 },
                    Fill::Bytes {
                        at: 4_096,
                        len: 300,
                    },
                ],
            };
            let looks = (0..12).flat_map(|_| [Job::Idle { ms: 400 }, Job::List("/d0".into())]);
            let kill = |client, at| planned(Trigger::At(at), Fault::KillClient(client), 2_500);
            Schedule {
                clients: vec![
                    plan(vec![temp(0), read("/d0/f0")]),
                    plan(vec![temp(1), read("/d0/f1")]),
                    plan(looks.collect()),
                ],
                faults: vec![
                    kill(0, 100 + draws.below(300)),
                    kill(1, 100 + draws.below(500)),
                ],
                timing: Timing {
                    session_idle: Duration::from_millis(900),
                    ..base.timing
                },
                ..base
            }
        },
    },
];
