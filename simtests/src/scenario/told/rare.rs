//! Rare meetings: paths of the machines that a drawn run takes next to never.
use super::{LARGE_BLOCK, acked, large_blocks, one, plan, planned, read, small, write};
use crate::disk::faults::Damage;
use crate::fault::spot::Which;
use crate::fault::{Fault, Spot, Trigger};
use crate::scenario::Scenario;
use crate::schedule::{Schedule, Speed};
use crate::workload::job::{Job, ReadHow};
use kfs_core::limits::Limits;

/// Streams of one client at once.
const READERS: u64 = 12;

/// All of them.
pub(super) const ALL: [Scenario; 4] = [
    Scenario {
        name: "meta-restarts-while-chunks-are-made",
        about: "the meta server is killed and back at once, while slow disks make the chunks that it ordered before",
        draw: |seed| {
            let base = small(seed);
            let jobs = (0..8).map(|nth| write(&format!("/d0/m{nth}"), &[Some(700)]));
            let slow = |server| planned(Trigger::At(1), Fault::SlowDisk(server), 20_000);
            let restart = |nth| {
                let ordered = Trigger::AfterMessage("CreateChunk".into(), nth, 2);
                planned(ordered, Fault::Kill(0), 1)
            };
            Schedule {
                clients: one(jobs.collect()),
                faults: (1..4).map(slow).chain((1..4).map(restart)).collect(),
                ..base
            }
        },
    },
    Scenario {
        name: "reads-behind-one-link",
        about: "a client reads several files at once over one link, which has room for hardly an answer",
        draw: |seed| {
            let base = large_blocks(small(seed));
            let block = LARGE_BLOCK as usize;
            let mut clients = one(vec![write("/d0/r", &[Some(32 * u64::from(LARGE_BLOCK))])]);
            let stream = || {
                let name = "/d0/r".to_owned();
                let how = ReadHow::Stream;
                // It was made, and closed.
                vec![acked(1 + READERS, 2), Job::Read { name, how }]
            };
            let mut reader = plan(stream());
            reader.actors.extend((1..READERS).map(|_| stream()));
            clients.push(reader);
            Schedule {
                clients,
                limits: Limits {
                    link_unsent_bytes: block,
                    piece_buffer_bytes: 2 * block,
                    ..base.limits
                },
                ..base
            }
        },
    },
    Scenario {
        name: "replicas-rot-apart",
        about: "each replica of a chunk has a bad block, each another one: every block is good somewhere",
        draw: |seed| {
            let name = "/d0/p";
            // The chunk has eight blocks, counted from its end: what stands before them is the header. A client asks
            // for two of them at once.
            let spoilt = |(server, block)| {
                let spot = Spot {
                    under: "chunks/".into(),
                    which: Which::FromLast(block),
                    bytes: 256,
                };
                let fault = Fault::Spoil(server, spot, Damage::Unreadable);
                planned(Trigger::At(1_500), fault, 1)
            };
            let base = small(seed);
            Schedule {
                clients: one(vec![
                    write(name, &[Some(8 * 256)]),
                    Job::Idle { ms: 2_000 },
                    Job::Read {
                        name: name.into(),
                        how: ReadHow::Stream,
                    },
                    read(name),
                ]),
                faults: [(1, 7), (2, 6), (3, 7)].map(spoilt).into(),
                ..base
            }
        },
    },
    Scenario {
        name: "many-writers-one-head",
        about: "many clients write at once through the heads of chains that have room for hardly a piece",
        draw: |seed| {
            let base = small(seed);
            let writer = |client| {
                let jobs = (0..3).map(|nth| write(&format!("/d0/w{client}-{nth}"), &[Some(1_500)]));
                plan(jobs.collect())
            };
            Schedule {
                clients: (0..10).map(writer).collect(),
                limits: Limits {
                    piece_buffer_bytes: 300,
                    ..base.limits
                },
                speed: Speed {
                    write_us: 20_000,
                    ..base.speed
                },
                ..base
            }
        },
    },
];
