//! A file is cut, or made longer: what stood behind is on the disks still, and is never seen again, whoever dies in
//! between.
use super::takeovers::{NAME, bytes, in_a_sync, slow_syncs, steps, written};
use super::{dark, draws_of, large_blocks, one, plan, planned, read, small};
use crate::fault::{Fault, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{End, Fill, Job};

/// All of them.
pub(super) const ALL: [Scenario; 6] = [
    Scenario {
        name: "cut-and-written-at-a-distance",
        about: "a file is cut within a block, again and again, and written on at a distance",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = if draws.percent(50) {
                large_blocks(small(seed))
            } else {
                small(seed)
            };
            let block = u64::from(base.geometry.block_bytes);
            let chunk = base.geometry.chunk_bytes();
            let mut fill = vec![bytes(0, chunk - draws.below(block)), Fill::Sync];
            for _ in 0..4 {
                let len = 1 + draws.below(chunk - 2 * block);
                fill.push(Fill::SetLen { len });
                let mut at = 0;
                for _ in 0..2 {
                    let len = 1 + draws.below(block / 2);
                    fill.extend([bytes(at, len), Fill::Sync]);
                    at += len + draws.below(2 * block);
                }
            }
            let mut jobs = Vec::new();
            for nth in 0..=fill.len() / 9 {
                jobs.push(Job::Write {
                    name: format!("{NAME}{nth}"),
                    fill: fill[..fill.len().min(9 * (nth + 1))].to_vec(),
                    end: End::Close,
                    failed: End::MustNot,
                });
                jobs.push(read(&format!("{NAME}{nth}")));
            }
            Schedule {
                clients: one(jobs),
                ..base
            }
        },
    },
    Scenario {
        name: "power-fails-while-a-file-is-cut",
        about: "power fails as a file is cut, as its chunk is taken over, and as it is written on at a distance",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let mut faults = Vec::new();
            for nth in 0..2 {
                let message =
                    draws.pick(&["SealChunk", "ResumeChunk", "ChunkResumed", "ChainSynced"]);
                let at = 1 + 4 * nth + draws.below(4);
                let then = Trigger::AfterMessage(message.into(), at, draws.below(10));
                let servers = draws.pick(&[&[1, 2, 3][..], &[0, 1, 2, 3], &[0], &[2]]);
                let fault = dark(servers, &[], &mut draws);
                faults.push(planned(then, fault, 60));
            }
            let mut jobs = vec![Job::Idle { ms: 500 }];
            for _ in 0..4 {
                jobs.extend([cut(&mut draws), read(NAME)]);
            }
            Schedule {
                clients: vec![plan(vec![written(&mut draws, End::Close)]), plan(jobs)],
                faults,
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "server-is-away-while-a-file-is-cut",
        about: "a server is cut off as a file is cut, which is made longer and written on then, and comes back with what was cut off",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let away = 1 + draws.index(3);
            let message = draws.pick(&["SealChunk", "ResumeChunk"]);
            let then = Trigger::AfterMessage(message.into(), 1, draws.below(3));
            let len = 1 + draws.below(400);
            let longer = 1_500 + draws.below(300);
            let mut jobs = vec![
                Job::Idle { ms: 900 },
                truncate(len, Vec::new()),
                truncate(longer, vec![bytes(draws.below(90), 40), Fill::Sync]),
            ];
            for _ in 0..8 {
                jobs.extend([read(NAME), Job::Idle { ms: 900 }]);
            }
            Schedule {
                clients: vec![plan(vec![written(&mut draws, End::Close)]), plan(jobs)],
                faults: vec![planned(
                    then,
                    Fault::Isolate(away),
                    draws.pick(&[3_000, 5_000]),
                )],
                ..small(seed)
            }
        },
    },
    Scenario {
        name: "made-longer-over-what-was-left",
        about: "a writer dies in the middle of a sync, so that servers have more than it reported; another client makes the file longer than that",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let ends = in_a_sync(&mut draws);
            let mut faults = vec![planned(ends.clone(), Fault::KillClient(0), 60_000)];
            if draws.percent(50) {
                let few = draws.pick(&[&[1][..], &[2], &[3], &[1, 2]]);
                faults.push(planned(ends, dark(few, &[], &mut draws), 80));
            }
            let longer = 1_300 + draws.below(700);
            let mut jobs = vec![Job::Idle { ms: 1_500 }];
            jobs.push(truncate(longer, vec![bytes(draws.below(300), 30)]));
            for _ in 0..4 {
                jobs.extend([read(NAME), Job::Idle { ms: 800 }]);
            }
            jobs.extend([truncate(longer + 500, steps(&mut draws)), read(NAME)]);
            Schedule {
                clients: vec![plan(vec![written(&mut draws, End::Close)]), plan(jobs)],
                faults,
                ..slow_syncs(seed)
            }
        },
    },
    Scenario {
        name: "many-chunks-are-cut-off",
        about: "a file of more chunks than go with one record is cut and made longer at once, and the meta server loses power meanwhile",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let base = small(seed);
            let chunk = base.geometry.chunk_bytes();
            let fill = (0..70).map(|nth| bytes(nth * chunk, 20)).collect();
            let longer = draws.below(60) * chunk + draws.below(chunk);
            let jobs = vec![
                Job::Write {
                    name: NAME.into(),
                    fill,
                    end: End::Close,
                    failed: End::Close,
                },
                truncate(draws.below(2 * chunk), Vec::new()),
                truncate(longer, vec![bytes(0, 30)]),
                read(NAME),
                truncate(0, Vec::new()),
                read(NAME),
            ];
            let kind = draws.pick(&["SealChunk", "DeleteChunks", "ResumeChunk"]);
            let then = Trigger::AfterMessage(kind.into(), 1, draws.below(9));
            Schedule {
                clients: one(jobs),
                faults: vec![planned(then, dark(&[0], &[], &mut draws), 60)],
                checkpoint_ms: draws.pick(&[0, 100]),
                ..base
            }
        },
    },
    Scenario {
        name: "client-dies-while-it-cuts",
        about: "a client dies when the meta server has cut a file and its chunk is not cut yet, the meta server starts again, and nobody goes on",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let message = draws.pick(&["SealChunk", "ResumeChunk", "ChunkResumed"]);
            let then = |steps| Trigger::AfterMessage(message.into(), 1, steps);
            let servers = draws.pick(&[&[0][..], &[0, 1], &[0, 2, 3], &[0, 1, 2, 3], &[2]]);
            let power = dark(servers, &[], &mut draws);
            let faults = vec![
                planned(then(draws.below(3)), Fault::KillClient(1), 60_000),
                planned(then(1 + draws.below(40)), power, 60),
            ];
            let len = 1 + draws.below(400);
            let cuts = vec![Job::Idle { ms: 400 }, truncate(len, Vec::new())];
            let looks = vec![
                Job::Idle { ms: 1_500 },
                read(NAME),
                Job::Idle { ms: 9_000 },
                read(NAME),
            ];
            Schedule {
                clients: vec![
                    plan(vec![written(&mut draws, End::Close)]),
                    plan(cuts),
                    plan(looks),
                ],
                faults,
                checkpoint_ms: draws.pick(&[0, 100]),
                rests: true,
                ..small(seed)
            }
        },
    },
];

fn truncate(len: u64, fill: Vec<Fill>) -> Job {
    Job::Truncate {
        name: NAME.into(),
        len,
        fill,
        end: End::Close,
    }
}

/// Cut or made longer, and written on at a distance.
fn cut(draws: &mut Keyed) -> Job {
    let mut fill = Vec::new();
    let mut at = draws.below(300);
    for _ in 0..3 {
        let len = 1 + draws.below(60);
        fill.extend([bytes(at, len), Fill::Sync]);
        at += len + draws.below(400);
    }
    truncate(draws.below(1_200), fill)
}
