//! Scenarios that tell a story: the same clients, jobs and faults in every run; the seed draws only how long
//! everything takes, and when exactly a fault strikes.
//!
//! Each is an execution that breaks a promise in a design that looks right, and is made so that a mistake in the
//! rule that it is about shows within a few dozen seeds ([`crate::planted::made_for`]).
//!
//! | execution | story | a mistake that it sees |
//! | --- | --- | --- |
//! | an answer rests on what a power loss takes | `seen-before-durable`, `refused-before-durable` | `query-ungated`, `refusal-ungated` |
//! | a removal that is not durable yet, and chunks that went with it | `removal-lost` | `delete-before-durable` |
//! | answers of two batches of the log are lost, and asked for again | `answers-of-two-batches-lost` | `result-forgotten-early` |
//! | a delayed request succeeds behind its failed answer | `cut-off-until-expired` | `unknown-asked-again` |
//! | a message on a link that is given up arrives behind those on the next | `opening-comes-late` | `late-opening-taken` |
//! | a close has synced, and its size is not in the log | `close-not-reported` | `close-acked-unreported` |
//! | a chunk is in the log, power is lost before any replica of it is made | `chunk-allocated-power-lost` | `unread-replica-stale` |
//! | the meta server restarts between an order and its answer | `meta-restarts-while-chunks-are-made` | `unread-replica-stale` |
//! | a server comes back with what was removed while it was away | `stale-restart` | `trash-emptied-early` |
//! | the newer header rots: the older one shows less | `newer-header-rots`, `hole-filled-and-header-rots` | `short-replica-served`, `older-header-served` |
//! | power is lost in the middle of a header | `header-torn` | `header-over-active-slot` |
//! | files come to rest, and power is lost | `at-rest-loses-power` | `seal-over-active-slot` |
//! | a block that is synced is written on, and power is lost | `block-synced-twice` | `header-before-data` |
//! | a block is read while it is written on, or by a table of before | `read-while-written`, `parked-and-written-on` | `dirty-block-read`, `stale-table-read` |
//! | a member of an open chunk loses what was not synced, and is back in two seconds | `member-back-in-two-seconds` | `chain-goes-on-without-tail` |
//! | replicas of one version differ after a power loss | `replicas-differ-after-power-loss` | `head-acks-early` |
//! | rot in the log, and in its last acked batch | `rot-in-the-log`, `rot-in-the-last-batch` | `damage-passes-for-torn`, `mark-left-out` |
//! | rot in the last acked batch of a log that has a mirror, or in both of them at different places | `mirror-has-the-last-batch`, `mirror-and-log-rot-apart` | `mirror-not-awaited`, `mirror-unread`, `mirror-unnamed`, `mirror-left-damaged` |
//! | a sync of the log fails once, then power is lost | `sync-fails-and-power-is-lost` | `read-tail-only-synced` |
//! | the end of the log is read wrong, and is no torn write | `end-of-log-is-read-wrong` | `torn-tail-read-once` |
//! | the tail of the log is in the cache only, and power is lost, in the start too | `tail-in-cache`, `start-loses-power` | `read-tail-unsynced` |
//! | a crash in the middle of a segment switch | `segment-switch-power` | `segment-header-unsynced` |
//! | checkpoints without durable names, and the log that they stand for is gone | `first-checkpoints-lose-power` | `checkpoint-unnamed`, `checkpoint-dir-unnamed` |
//! | the off-line compactor beside a server, either killed at any point | `compactor-beside-server` | `compactor-leaves-rest` |
//! | a data directory is copied while its server lets go of files and starts again | `backups-beside-server` | `snapshot-log-first`, `snapshot-identity-last` |
//! | a copy of a data directory is read wrong | `backup-reads-wrong` | `snapshot-read-once` |
//! | a backup is restored; what is missing is said, accepted, and found | `backup-restored` | `lost-tail-ignored`, `accepted-deleted` |
//! | the newest checkpoint rots | `newest-checkpoint-rots` | `log-pruned-by-newest` |
//! | an old copy of the meta server's disk comes back; epochs are lived twice | `meta-set-back` | `epoch-lived-twice`, `unknown-deleted`, `lost-tail-ignored` |
//! | an old copy of the meta server's disk comes back, and nobody is there to say so | `set-back-while-alone` | `witnesses-not-awaited` |
//! | the operator accepts that; what was lost is found again | `rollback-accepted` | `accepted-deleted` |
//! | the lost tail is grown over before anybody says hello | `set-back-and-grown-over` | `unknown-deleted` |
//! | a disk is cloned into a second server | `disk-cloned` | `cloned-disk-accepted` |
//! | a member dies under a writer, and comes back with a header that was not durable yet | `member-dies-under-writer` | `found-unsynced` |
//! | a chain breaks when a sync has reached only some of its members | `sync-reaches-some-members` | `rechain-from-farthest`, `resumed-at-own-write` |
//! | all members lose power under a writer | `all-members-restart-under-writer` | `rechain-from-farthest` |
//! | a member comes back with less than its writer was told is synced | `header-rots-under-writer` | `rechain-forgets-synced` |
//! | a sync of a member fails, and its server comes back | `sync-fails-under-writer` | `failed-header-kept` |
//! | a client cannot reach the head of its chain | `head-out-of-reach` | `rechain-keeps-head` |
//! | two members cannot reach one another | `members-out-of-reach` | `rechain-keeps-both` |
//! | of two members one is gone for good | `one-of-two-members-dies` | `rechain-takes-few` |
//! | power fails at every step of giving a chunk another chain | `power-fails-while-a-chain-is-made` | `rechain-from-farthest` |
//! | clients write one file further in turn, and servers are killed | `others-go-on-in-turn` | `takeover-not-raised` |
//! | a writer dies in a sync that has reached only some, and another goes on | `writer-dies-in-a-sync` | `takeover-takes-all` |
//! | who writes a file further leaves a gap where servers have bytes that no sync covered | `leftovers-in-a-gap` | `leftovers-kept` |
//! | a server is raised for a takeover that goes on without it, and comes back | `raised-and-left-out` | `takeover-forgotten` |
//! | a server with more of a dead writer's writes than all comes back when another has gone on | `member-comes-back-with-more` | `takeover-not-raised` |
//! | power fails as a chunk is taken over | `power-fails-while-a-chunk-is-taken-over` | `raise-unsynced` |
//! | a writer dies in a sync, or a takeover is broken off, and nobody goes on; servers fail while who has less gets copies | `writer-dies-and-nobody-goes-on`, `takeover-is-broken-off-and-nobody-goes-on` | `evening-takes-the-less`, `evening-drops-first`, `seal-forgets-more` |
//! | heartbeats pass one way only | `heartbeats-pass-one-way` | `silence-forgiven` |
//! | a host sleeps for longer than its lease, and wakes in the middle of a write; the meta server's host too | `host-sleeps-and-wakes` | `silence-forgiven` |
//! | a bit rots, and a part of its block is read | `block-rots-and-a-part-is-read` | `partial-read-unverified` |
//! | a bit flips on its way, to a head or along a chain, or to a reader | `bits-flip-on-their-way-to-heads`, `bits-flip-on-their-way-to-readers` | `piece-unverified`, `read-sums-ignored` |
//! | chains A→B and B→A with full rooms | `chains-cross-with-full-rooms` | `one-room-for-all`, `half-frame-dropped` |
//! | more comes to a head, or is asked of one link, than there is room for | `many-writers-one-head`, `reads-behind-one-link` | `full-room-taken`, `answers-unbounded` |
//! | a file is longer than what a client is told of at once, or grows while it is read | `chunk-behind-a-page`, `grown-while-read` | `hole-past-page`, `grown-places-kept` |
//! | a file is replaced in two steps | `rename-over-power` | `rename-in-two-records` |
//! | a directory is moved below itself | `directory-below-itself` | `directory-into-itself` |
//! | attributes are set, some at a time, of what is renamed and removed meanwhile | `modes-are-changed` | `unset-attributes-zeroed` |
//! | a client dies with files that nobody was to see | `writer-dies` | `temporary-stays` |
//! | what a tree takes is asked for while names move in it; who asks dies, and the meta server loses power | `tree-counted-while-names-move` | `usage-of-moving-tree` |
//! | a client makes names below a directory that another removes | `removed-while-created-below` | `full-directory-removed` |
//! | open, remove, the meta server restarts, read on | `removed-while-open` | `held-file-dropped`, `restart-forgets-holders`, `holds-not-told-again` |
//! | a directory is removed with all that is in it, while a client creates below it and another reads there | `tree-removed-while-created-below` | `tree-takes-held`, `reclaim-loses-its-place` |
//! | a server is gone for good, and is back when its copies were made again | `server-gone-for-good` | `trim-unlogged`, `copy-unsynced` |
//! | power fails while copies are made | `power-fails-while-copies-are-made` | `copy-unnamed`, `seal-writes-again` |
//! | a bit flips on its way to who makes a copy | `bits-flip-on-their-way-to-copies` | `copy-unchecked` |
//! | an append tears the page of synced bytes | `log-loses-power` | `covered-page-torn`, `redo-page-ignored` |
//! | a sync fails that was to save a page in its place | `place-is-not-saved` | `failed-place-believed` |
//! | a page of synced bytes is read while more is appended to it | `log-read-while-written` | `waiting-page-expected` |
//! | blocks are written over, and power fails in the middle of the sync | `written-over-loses-power` | `runs-in-place-first`, `one-run-recalled` |
//! | bytes of a chunk that others have written are written over, before its end is known | `others-write-over` | `sought-chunk-filled-out` |
//! | a client is cut off from the meta server, and writes over its file on and on when its session is over | `cut-off-and-written-over` | `writes-without-lease` |
//! | a block has rotted, and a part of it is written over | `rotten-block-is-written-over` | `old-block-unverified` |
//! | a block is read while it is written over | `written-over-while-read` | `waiting-page-expected` |
//! | a bit rots, and its replica is made anew | `block-rots-and-is-copied` | `damage-left` |
//! | a block rots that nobody reads, on one replica after another | `block-rots-and-nobody-reads` | `scrub-skips` |
//! | a server is drained, and power fails meanwhile | `server-is-drained` | `drain-drops-first`, `drain-forgotten`, `drain-takes-new` |
//! | a server is drained, and is gone then | `drained-server-is-stopped` | `drain-drops-first` |
//! | files ask for more replicas, and for fewer | `replication-is-changed` | `replication-uncounted` |
//! | a file is cut within a block, and written on at a distance | `cut-and-written-at-a-distance` | `cut-block-unsummed`, `cut-forgotten`, `leftovers-kept` |
//! | power fails while a file is cut | `power-fails-while-a-file-is-cut` | `cut-block-unsummed` |
//! | a member is away while a file is cut, and comes back with what was cut off | `server-is-away-while-a-file-is-cut` | `takeover-not-raised`, `cut-not-ordered` |
//! | a file is made longer over what its writer had not reported | `made-longer-over-what-was-left` | `extended-uncut` |
//! | a client dies between the two steps of a cut | `client-dies-while-it-cuts` | `cut-not-finished`, `checkpoint-forgets-cuts` |
//! | a file is removed while its chunks are copied | `removed-while-copied` | `trim-unlogged` |
//!
//! A test runs each story with the mistake of its row that it sees ([`crate::planted::SHOWN`]).
//!
//! What has no story yet is what is not built yet: version changes, record appends, two writers of one file at once. A meta server that wakes
//! beside a new one has none either: two processes on one disk, and two of them at one address, are nothing that
//! a run has. The lock of a data directory keeps the first away; that a chunkserver accepts no epoch behind the one
//! that it knows is judged in all runs (O5), and seen in `meta-set-back`.
mod answers;
pub mod basics;
mod chains;
mod chunks;
mod copies;
mod cuts;
mod disks;
mod evening;
mod holes;
mod log;
mod mirror;
mod names;
mod offline;
mod overs;
mod places;
mod rare;
mod rechains;
mod removed;
mod servers;
mod tails;
mod takeovers;

use super::Scenario;
use crate::disk::Policy;
use crate::fault::{Fault, Planned, Site, Trigger};
use crate::keyed::Keyed;
use crate::schedule::{Class, ClientPlan, Schedule, Speed};
use crate::workload::job::{End, Fill, Job, ReadHow, SHARED_DIRS};
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::wire::client_meta::{Parents, RenameMode};
use std::time::Duration;

/// Of one block that several pages of the disk's cache fit into.
const LARGE_BLOCK: u32 = 16_384;

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    basics::ALL
        .into_iter()
        .chain(answers::ALL)
        .chain(disks::ALL)
        .chain(log::ALL)
        .chain(mirror::ALL)
        .chain(names::ALL)
        .chain(offline::ALL)
        .chain(chains::ALL)
        .chain(chunks::ALL)
        .chain(copies::ALL)
        .chain(cuts::ALL)
        .chain(evening::ALL)
        .chain(holes::ALL)
        .chain(overs::ALL)
        .chain(places::ALL)
        .chain(rare::ALL)
        .chain(rechains::ALL)
        .chain(removed::ALL)
        .chain(servers::ALL)
        .chain(tails::ALL)
        .chain(takeovers::ALL)
        .collect()
}

/// A cluster of three chunkservers with small chunks, fast enough that a run takes a second or two.
fn small(seed: u64) -> Schedule {
    let block = 256;
    let mut draws = Keyed::new(seed, "setup");
    Schedule {
        seed,
        class: Class::Live,
        servers: 4,
        replication: 3,
        geometry: Geometry {
            block_bytes: 256,
            chunk_blocks: 8,
            piece_bytes: 512,
        },
        limits: Limits {
            piece_buffer_bytes: 16 * block,
            link_unsent_bytes: 16 * block,
            link_requests: 64,
            chunk_tables: 4,
            log_batch_bytes: 4 << 10,
            // As short as a segment can be: it holds a record of any size.
            log_first_segment_bytes: 0,
            log_segment_bytes: 0,
            write_window_bytes: 16 * block,
            sync_every_bytes: 4 * block,
            read_ahead_bytes: 8 * block,
        },
        timing: Timing {
            heartbeat: Duration::from_millis(200),
            serve_lease: Duration::from_millis(1_500),
            trash_grace: Duration::from_secs(2),
            session_idle: Duration::from_secs(12),
        },
        latency_us: draws.pick(&[(50, 400), (200, 2_000)]),
        loss_permille: 0,
        speed: Speed {
            read_us: 500,
            write_us: 300,
            sync_us: draws.pick(&[2_000, 8_000]),
        },
        buggify_permille: 0,
        checkpoint_ms: 0,
        log_mirror: false,
        scrub_rate: 0,
        rests: false,
        clients: Vec::new(),
        faults: Vec::new(),
    }
}

/// Blocks of several pages, and room for pieces of them.
fn large_blocks(base: Schedule) -> Schedule {
    let block = LARGE_BLOCK as usize;
    Schedule {
        geometry: Geometry {
            block_bytes: LARGE_BLOCK,
            chunk_blocks: 8,
            piece_bytes: 2 * LARGE_BLOCK,
        },
        limits: Limits {
            piece_buffer_bytes: 16 * block,
            link_unsent_bytes: 16 * block,
            write_window_bytes: 16 * block,
            sync_every_bytes: 4 * block,
            read_ahead_bytes: 8 * block,
            ..base.limits
        },
        ..base
    }
}

fn one(jobs: Vec<Job>) -> Vec<ClientPlan> {
    vec![plan(jobs)]
}
fn plan(jobs: Vec<Job>) -> ClientPlan {
    ClientPlan { actors: vec![jobs] }
}
fn mkdir(name: &str) -> Job {
    Job::Mkdir {
        name: name.into(),
        parents: Parents::MustExist,
    }
}
fn read(name: &str) -> Job {
    Job::Read {
        name: name.into(),
        how: ReadHow::Steps(400),
    }
}
fn put(name: &str, size: u64) -> Job {
    Job::Put {
        temp: format!("{name}.tmp{size}"),
        name: name.into(),
        mode: RenameMode::Replace,
        fill: fill(&[Some(size)]),
    }
}
/// So many bytes behind one another, and syncs between.
fn write(name: &str, steps: &[Option<u64>]) -> Job {
    Job::Write {
        name: name.into(),
        fill: fill(steps),
        end: End::Close,
        failed: End::Close,
    }
}
fn fill(steps: &[Option<u64>]) -> Vec<Fill> {
    let mut at = 0;
    let mut filled = Vec::new();
    for step in steps {
        match step {
            Some(len) => {
                filled.push(Fill::Bytes { at, len: *len });
                at += len;
            }
            None => filled.push(Fill::Sync),
        }
    }
    filled
}

/// Waits until so many acks were heard in a run of so many actors, beside those of the directories that each of
/// them makes first.
fn acked(actors: u64, acks: u64) -> Job {
    Job::Await {
        acks: actors * SHARED_DIRS + acks,
        ms: 20_000,
    }
}

/// What a seed draws in a story, beside how long everything takes.
fn draws_of(seed: u64) -> Keyed {
    Keyed::new(seed, "story")
}
fn planned(trigger: Trigger, fault: Fault, lasts_ms: u64) -> Planned {
    Planned {
        trigger,
        fault,
        lasts_ms,
    }
}
/// The power of these servers and clients fails; what it leaves is drawn.
fn dark(servers: &[usize], clients: &[usize], draws: &mut Keyed) -> Fault {
    let site = Site {
        servers: servers.to_vec(),
        clients: clients.to_vec(),
    };
    Fault::PowerLoss(site, draws.pick(&Policy::ALL))
}
