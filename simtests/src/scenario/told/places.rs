//! What a client is told of where chunks are: a page at a time, and of a file that grows.
use super::{acked, plan, read, small};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::job::{End, Fill, Job, Look, ReadHow};
use kfs_core::limits::LOCATE_PAGE_MAX;

/// Bytes of a chunk.
const CHUNK: u64 = 8 * 256;
/// Where the chunk begins that no page has which begins with the first one.
const BEHIND: u64 = CHUNK * LOCATE_PAGE_MAX as u64;
const NAME: &str = "/d0/b";

/// All of them.
pub(super) const ALL: [Scenario; 2] = [
    Scenario {
        name: "chunk-behind-a-page",
        about: "a file has one chunk more than a client is told of at once, and is read from its first one on",
        draw: |seed| Schedule {
            clients: vec![
                plan(vec![longer_than_a_page(&[(0, 700)])]),
                plan(vec![
                    acked(2, 2),
                    look(&[FIRST, behind(0, 700)]),
                    look(&[behind(0, 500), FIRST, behind(200, 500)]),
                ]),
            ],
            ..small(seed)
        },
    },
    Scenario {
        name: "grown-while-read",
        about: "a reader keeps a file open that grows, and learns of that when it asks for another part of it",
        draw: |seed| {
            let wait = Look::Idle { ms: 900 };
            // Both begin when the file is made and synced once. The last chunk is asked for while it is short, and the first one when it is longer.
            let looks = [
                behind(0, 256),
                wait,
                FIRST,
                behind(256, 300),
                behind(0, 700),
                wait,
                behind(300, 600),
            ];
            Schedule {
                clients: vec![
                    plan(vec![
                        longer_than_a_page(&[(0, 256), (256, 700)]),
                        read(NAME),
                    ]),
                    plan(vec![acked(3, 2), look(&looks)]),
                    plan(vec![acked(3, 2), Job::Idle { ms: 200 }, look(&looks)]),
                ],
                ..small(seed)
            }
        },
    },
];

const FIRST: Look = Look::At { at: 0, len: 300 };
fn behind(at: u64, len: u64) -> Look {
    let at = BEHIND + at;
    Look::At { at, len }
}

fn look(looks: &[Look]) -> Job {
    Job::Read {
        name: NAME.into(),
        how: ReadHow::Looks(looks.to_vec()),
    }
}

/// A file with a block in each chunk of a page, and these stretches behind them, each synced and left alone.
fn longer_than_a_page(stretches: &[(u64, u64)]) -> Job {
    let blocks = (0..LOCATE_PAGE_MAX as u64).map(|nth| Fill::Bytes {
        at: nth * CHUNK,
        len: 256,
    });
    let steps = stretches.iter().flat_map(|(at, len)| {
        [
            Fill::Bytes {
                at: BEHIND + at,
                len: *len,
            },
            Fill::Sync,
            Fill::Idle { ms: 600 },
        ]
    });
    Job::Write {
        name: NAME.into(),
        fill: blocks.chain(steps).collect(),
        end: End::Close,
        failed: End::Close,
    }
}
