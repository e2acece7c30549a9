//! Names: directories that would hold themselves, files that go with who made them.
use super::{acked, dark, draws_of, mkdir, plan, planned, read, small, write};
use crate::fault::{Fault, Trigger};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{Fill, Job};
use kfs_core::limits::Timing;
use kfs_core::wire::client_meta::RenameMode;
use std::time::Duration;

/// All of them.
pub(super) const ALL: [Scenario; 4] = [
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
        name: "tree-counted-while-names-move",
        about: "what a tree takes is asked for while files and directories in it move back and forth, who asks dies, and the meta server loses power",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let dirs = ["/d0/t/a", "/d0/t/b", "/d0/t/c"];
            let makes = [mkdir("/d0/t")].into_iter().chain(dirs.map(mkdir));
            let fills = (0..36).map(|nth| Job::Touch(format!("{}/{nth}", dirs[nth % 3])));
            let first = makes.chain(fills).chain([
                write("/d0/t/b/long", &[Some(5_000)]),
                write("/d0/t/c/long", &[Some(2_500)]),
            ]);
            let moved = |from: String, to: String| Job::Rename {
                from,
                to,
                mode: RenameMode::NoReplace,
            };
            let moves = (0..60).flat_map(|nth| {
                let (name, round) = (3 * (nth % 12), nth / 12);
                let (from, to) = if round % 2 == 0 {
                    ("a", "c")
                } else {
                    ("c", "a")
                };
                let file = moved(format!("/d0/t/{from}/{name}"), format!("/d0/t/{to}/{name}"));
                let (up, down) = ("/d0/t/b".to_owned(), "/d0/t/z".to_owned());
                match nth % 10 {
                    4 => vec![file, moved(up, down)],
                    9 => vec![file, moved(down, up)],
                    _ => vec![file],
                }
            });
            let asks = |name: &'static str, depth| {
                let ask = move |_| {
                    let name = name.into();
                    [Job::Usage { name, depth }, Job::Idle { ms: 15 }]
                };
                plan(
                    [acked(3, 30)]
                        .into_iter()
                        .chain((0..40).flat_map(ask))
                        .collect(),
                )
            };
            let dies = Fault::KillClient(2);
            let fault = dark(&[0], &[], &mut draws);
            Schedule {
                clients: vec![
                    plan(first.chain(moves).collect()),
                    asks("/d0", 9),
                    asks("/", 0),
                ],
                faults: vec![
                    planned(Trigger::At(500 + draws.below(900)), dies, 200),
                    planned(Trigger::At(900 + draws.below(600)), fault, 50),
                ],
                // A scan that is not pushed to be slow is over in one slice.
                buggify_permille: 250,
                ..base
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
    Scenario {
        name: "modes-are-changed",
        about: "modes of files and directories are changed by clients that rename and remove them meanwhile, and the meta server loses power; whoever looks sees what was set last",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let mut changes = |dir: &str| {
                let mut jobs = vec![mkdir(dir), write(&format!("{dir}/f"), &[Some(900)])];
                for nth in 0..12 {
                    let name = match draws.below(3) {
                        0 => dir.to_owned(),
                        1 => "/d0/f".to_owned(),
                        _ => format!("{dir}/f"),
                    };
                    let mode = 0o400 + nth;
                    jobs.extend([
                        Job::SetMode {
                            name: name.clone(),
                            mode,
                        },
                        Job::Idle { ms: draws.below(9) },
                        Job::Stat(name),
                        Job::List("/d0".into()),
                    ]);
                    if nth == 6 {
                        jobs.push(Job::Rename {
                            from: format!("{dir}/f"),
                            to: "/d0/f".into(),
                            mode: RenameMode::Replace,
                        });
                    }
                    if nth == 9 {
                        jobs.push(Job::Remove("/d0/f".into()));
                    }
                }
                jobs
            };
            let clients = vec![plan(changes("/d0/a")), plan(changes("/d0/b"))];
            let nth = 15 + draws.below(25);
            let when = Trigger::AfterMessage("Mutated".into(), nth, draws.below(3));
            Schedule {
                clients,
                faults: vec![planned(when, dark(&[0], &[], &mut draws), 40)],
                checkpoint_ms: 100,
                ..base
            }
        },
    },
];
