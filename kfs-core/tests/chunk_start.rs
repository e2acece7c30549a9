//! How a chunkserver starts, joins, hears verdicts, and gets rid of what it is told to.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use chunk_rig::*;
use kfs_core::chunk::{Call, Event};
use kfs_core::identity::{Identity, Owner};
use kfs_core::ids::*;
use kfs_core::limits::{HEADER_BYTES, INVENTORY_BATCH, Timing};
use kfs_core::machine::*;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::{Head, Msg, Refusal, Status};
use std::time::Duration;

const C: ChunkId = ChunkId(5);

fn identity(world: &World, server: usize) -> Identity {
    Identity::decode(world.servers[server].disk.get("identity").unwrap()).unwrap()
}

fn fault(world: &World, server: usize) -> &Fault {
    world.servers[server].fault.as_ref().expect("it halted")
}

fn hellos(world: &World) -> Vec<&Hello> {
    let hello = |(_, msg): &'_ (usize, Msg)| matches!(msg.head, Head::Hello(_));
    world
        .meta
        .heard
        .iter()
        .filter(|heard| hello(heard))
        .map(|(_, msg)| match &msg.head {
            Head::Hello(hello) => hello,
            _ => unreachable!(),
        })
        .collect()
}

fn inventories(world: &World) -> Vec<Inventory> {
    let said = |(_, msg): &(usize, Msg)| match &msg.head {
        Head::Inventory(said) => Some(said.clone()),
        _ => None,
    };
    world.meta.heard.iter().filter_map(said).collect()
}

/// One server with a chunk of 300 synced bytes, stopped.
fn with_a_chunk() -> World {
    let mut world = World::up(1);
    world.create(&[0], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(300)]);
    world.kill(0);
    world.trace.clear();
    world.meta.heard.clear();
    world.inbox.clear();
    world
}

#[test]
fn an_empty_directory_is_formatted_durably_before_anything_is_said() {
    let mut world = World::new(1);
    world.start(0);
    world.run();
    assert!(world.is_ready(0));
    assert_eq!(
        world.trace[..9],
        [
            "0: list ",
            "0: create identity.new",
            "0: write identity.new 0+108 sync",
            "0: mkdir chunks",
            "0: mkdir trash",
            "0: syncdir ",
            "0: rename identity.new identity",
            "0: syncdir ",
            "0: list trash",
        ]
    );
    let ours = identity(&world, 0);
    assert_eq!(
        (ours.owner, ours.boot, ours.cluster),
        (Owner::Chunk, Boot(1), CLUSTER)
    );
    assert_eq!(ours.seen, (EPOCH, INCARNATION));
    let hello = hellos(&world)[0];
    assert_eq!(
        (hello.cluster, hello.boot, hello.node),
        (ClusterId(0), Boot(1), ours.node)
    );
    assert_eq!(hello.geometry, GEOMETRY);
    assert_eq!(hello.bytes_free, 1 << 30);
}

#[test]
fn what_an_interrupted_format_left_counts_as_empty() {
    let mut world = World::new(1);
    let disk = &mut world.servers[0].disk;
    disk.put("identity.new", b"half");
    disk.make_dir("chunks");
    disk.make_dir("trash");
    disk.make_dir("lost+found");
    world.start(0);
    world.run();
    assert!(world.is_ready(0));
}

#[test]
fn a_directory_with_files_and_no_identity_is_refused_and_untouched() {
    for stranger in ["notes.txt", "chunks/2.5.1", "trash/2.5.1.1", "chunks/junk"] {
        let mut world = World::new(1);
        world.servers[0].disk.put(stranger, b"precious");
        world.start(0);
        world.run();
        assert_eq!(fault(&world, 0).kind, FaultKind::Refused, "{stranger}");
        assert!(fault(&world, 0).what.contains("no identity file"));
        assert_eq!(world.servers[0].disk.paths(), [stranger]);
        assert!(
            world.trace.iter().all(|line| line.contains("list")),
            "{:?}",
            world.trace
        );
    }
}

#[test]
fn an_identity_of_another_owner_or_format_or_a_damaged_one_halts() {
    let world = with_a_chunk();
    let ours = identity(&world, 0);
    let meta = Identity {
        owner: Owner::Meta,
        ..ours.clone()
    }
    .encode();
    let mut newer = ours.encode();
    newer[8] = 2;
    let mut damaged = ours.encode();
    damaged[40] ^= 1;
    let long = [ours.encode(), vec![0]].concat();
    for (bytes, kind) in [
        (meta, FaultKind::Refused),
        (newer, FaultKind::Refused),
        (damaged, FaultKind::Corrupt),
        (Vec::new(), FaultKind::Corrupt),
        (long, FaultKind::Corrupt),
        (vec![0xEE; 100_000], FaultKind::Corrupt),
    ] {
        let mut world = with_a_chunk();
        world.servers[0].disk.put("identity", &bytes);
        let before = world.servers[0].disk.paths();
        world.start(0);
        world.run();
        assert_eq!(fault(&world, 0).kind, kind, "{}", fault(&world, 0));
        assert_eq!(world.servers[0].disk.paths(), before);
        assert!(world.meta.heard.is_empty());
    }
}

#[test]
fn an_identity_without_its_chunks_is_a_missing_mount() {
    let mut world = World::up(1);
    world.kill(0);
    world.servers[0].disk.remove_dir("chunks");
    world.start(0);
    world.run();
    assert_eq!(fault(&world, 0).kind, FaultKind::Corrupt);
    let mut world = World::up(1);
    world.kill(0);
    world.servers[0].disk.remove_dir("trash");
    world.start(0);
    world.run();
    assert!(world.is_ready(0), "the trash may be thrown away");
}

#[test]
fn a_disk_that_fails_at_the_start_halts() {
    for what in [
        "list ",
        "write identity.new",
        "rename",
        "syncdir",
        "list chunks",
    ] {
        let mut world = World::new(1);
        world
            .rules
            .fail_disk
            .push((0, what.into(), DiskError::Io("EIO".into())));
        world.start(0);
        world.run();
        assert_eq!(fault(&world, 0).kind, FaultKind::Disk, "{what}");
        assert!(world.meta.heard.is_empty());
    }
}

#[test]
fn the_boot_is_raised_durably_before_the_hello() {
    let mut world = with_a_chunk();
    world.servers[0]
        .disk
        .put("identity.new", b"left by a crash");
    world.start(0);
    world.run();
    assert_eq!(hellos(&world)[0].boot, Boot(2));
    world.servers[0].disk.power_loss();
    assert_eq!(identity(&world, 0).boot, Boot(2));
    world.restart(0);
    assert_eq!(hellos(&world)[1].boot, Boot(3));
    assert_ne!(hellos(&world)[0].instance, hellos(&world)[1].instance);
    assert_eq!(hellos(&world)[0].cluster, CLUSTER);
}

#[test]
fn what_is_found_is_said_with_what_its_header_says() {
    let mut world = with_a_chunk();
    world.meta.verdicts.insert((C, VERSION), keep(300));
    world.start(0);
    world.run();
    let [said] = &inventories(&world)[..] else {
        panic!("one batch")
    };
    assert!(said.last);
    assert_eq!(
        said.items,
        [InventoryItem {
            file: FILE,
            chunk: C,
            version: VERSION,
            incarnation: INCARNATION,
            wseq: WriteSeq(1),
            len: 300,
            digest: said.items[0].digest,
            state: ReplicaState::Good,
        }]
    );
    assert_eq!(world.read(0, C, 0, 300, 300).unwrap(), bytes(300, 1));
    assert_eq!(world.status(0).chunks, 1);
}

#[test]
fn nothing_is_served_before_its_verdict() {
    let mut world = with_a_chunk();
    world.meta.answers_hello = false;
    world.start(0);
    world.run();
    let refusal = world.read(0, C, 0, 300, 300).unwrap_err();
    assert_eq!(refusal.status, Status::NotServed);
    assert!(!world.is_ready(0));
}

#[test]
fn each_verdict_does_what_it_says_and_no_more() {
    for (verdict, served, stays) in [
        (keep(300), true, true),
        (keep(0), true, true),
        // It would be a mistake of the meta server: what is shorter than the log is not served all the same.
        (keep(301), false, true),
        (damaged(400), false, true),
        (Verdict::Unknown, false, true),
        (Verdict::Stale, false, false),
    ] {
        let mut world = with_a_chunk();
        world.meta.verdicts.insert((C, VERSION), verdict);
        world.start(0);
        world.run();
        assert!(world.is_ready(0));
        assert_eq!(world.read(0, C, 0, 300, 300).is_ok(), served, "{verdict:?}");
        assert_eq!(
            world.servers[0].disk.get("chunks/1000.5.9").is_some(),
            stays,
            "{verdict:?}"
        );
        let status = world.status(0);
        assert_eq!(
            status.chunks_damaged,
            u64::from(stays && !served),
            "{verdict:?}"
        );
        assert_eq!(status.chunks_trash, u64::from(!stays));
        world.pass(Duration::from_secs(2 * 3_600));
        assert_eq!(
            world.servers[0].disk.get("chunks/1000.5.9").is_some(),
            stays,
            "{verdict:?}"
        );
    }
}

#[test]
fn a_bad_header_is_said_as_such_and_never_served_or_moved() {
    let mut world = with_a_chunk();
    let file = world.servers[0].disk.get_mut("chunks/1000.5.9");
    file[..usize::try_from(HEADER_BYTES).unwrap()].fill(0);
    world.servers[0].disk.put("chunks/1000.6.9", b"short");
    for verdict in [Verdict::Unknown, damaged(300), keep(0)] {
        world.meta.verdicts.insert((C, VERSION), verdict);
        world.meta.heard.clear();
        world.restart(0);
        let said = &inventories(&world)[0];
        assert_eq!(said.items.len(), 2);
        for item in &said.items {
            assert_eq!(
                (item.state, item.len, item.wseq),
                (ReplicaState::BadHeader, 0, WriteSeq(0))
            );
        }
        assert!(world.read(0, C, 0, 1, 0).is_err());
        assert_eq!(world.status(0).chunks_damaged, 2);
    }
    assert!(world.servers[0].disk.get("chunks/1000.6.9").is_some());
}

#[test]
fn a_newer_header_that_rotted_shows_the_older_length_and_the_meta_server_hears_it() {
    let mut world = with_a_chunk();
    world.servers[0].disk.get_mut("chunks/1000.5.9")[8_192 + 32] ^= 1;
    world.meta.verdicts.insert((C, VERSION), damaged(300));
    world.start(0);
    world.run();
    assert_eq!(
        (
            inventories(&world)[0].items[0].len,
            inventories(&world)[0].items[0].wseq
        ),
        (0, WriteSeq(0))
    );
    assert!(world.read(0, C, 0, 300, 300).is_err());
}

#[test]
fn a_file_under_another_chunks_name_is_a_bad_header() {
    let mut world = with_a_chunk();
    let bytes = world.servers[0]
        .disk
        .get("chunks/1000.5.9")
        .unwrap()
        .to_vec();
    world.servers[0].disk.put("chunks/1000.6.9", &bytes);
    world.servers[0].disk.put("chunks/999.5.9", &bytes);
    world.meta.verdicts.insert((C, VERSION), keep(300));
    world.start(0);
    world.run();
    let items = &inventories(&world)[0].items;
    assert_eq!(
        items
            .iter()
            .map(|item| (item.file, item.chunk, item.state))
            .collect::<Vec<_>>(),
        [
            (FILE, C, ReplicaState::Good),
            (FILE, ChunkId(6), ReplicaState::BadHeader),
        ]
    );
    assert_eq!(
        world.status(0).files_foreign,
        1,
        "two files cannot be one replica"
    );
    assert!(world.read(0, C, 0, 300, 300).is_ok());
}

#[test]
fn foreign_files_are_counted_and_never_touched() {
    let mut world = with_a_chunk();
    let strangers = [
        "chunks/README",
        "chunks/1.2",
        "chunks/01.2.3",
        "chunks/1.2.3.4",
        "trash/1.2.3",
        "trash/x",
        "chunks/9223372036854775808.1.1",
    ];
    for stranger in strangers {
        world.servers[0].disk.put(stranger, b"precious");
    }
    world.servers[0].disk.make_dir("chunks/7.7.7");
    world.start(0);
    world.run();
    world.pass(Duration::from_secs(2 * 3_600));
    assert!(world.is_ready(0));
    assert_eq!(world.status(0).files_foreign, 8);
    for stranger in strangers {
        assert_eq!(world.servers[0].disk.get(stranger), Some(&b"precious"[..]));
    }
    assert_eq!(inventories(&world)[0].items.len(), 1);
}

#[test]
fn what_is_reported_has_a_name_that_power_does_not_take() {
    let mut world = with_a_chunk();
    world.meta.verdicts.insert((C, VERSION), keep(300));
    // The process before was killed between the rename and the sync of the directory.
    world.servers[0].disk.forget_name("chunks/1000.5.9");
    world.start(0);
    world.run();
    assert_eq!(inventories(&world)[0].items.len(), 1);
    world.servers[0].disk.power_loss();
    assert!(world.servers[0].disk.get("chunks/1000.5.9").is_some());
}

#[test]
fn stale_replicas_are_moved_durably_and_unlinked_after_their_grace() {
    let mut world = with_a_chunk();
    world.meta.verdicts.insert((C, VERSION), Verdict::Stale);
    world.servers[0].disk.put("trash/1.1.1.7", b"older");
    world.start(0);
    world.run();
    assert_eq!(
        world.traced("trash/"),
        ["0: rename chunks/1000.5.9 trash/1000.5.9.8"]
    );
    assert!(world.position("rename chunks/") < world.position("syncdir trash"));
    // The start has made the names durable that it found; this is of the one that went.
    let gone = world
        .trace
        .iter()
        .rposition(|line| line.contains("syncdir chunks"));
    assert!(Some(world.position("syncdir trash")) < gone);
    world.servers[0].disk.power_loss();
    assert!(world.servers[0].disk.get("trash/1000.5.9.8").is_some());
    world.pass(Timing::REAL.trash_grace - Duration::from_secs(60));
    assert_eq!(world.status(0).chunks_trash, 2);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.status(0).chunks_trash, 0);
    assert!(
        world.servers[0]
            .disk
            .paths()
            .iter()
            .all(|path| !path.starts_with("trash/"))
    );
}

#[test]
fn deleted_chunks_are_confirmed_when_it_is_durable_and_another_version_is_left_alone() {
    let mut world = World::up(1);
    world.create(&[0], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.run();
    world.rules.hold_disk.push((0, "syncdir chunks".into()));
    let delete = DeleteChunks {
        term: world.term(0),
        chunks: vec![(C, VERSION), (ChunkId(77), VERSION)],
    };
    world.order(0, delete.clone());
    world.run();
    let deleted = |world: &World| -> Vec<_> {
        let deleted = |(_, msg): &(usize, Msg)| match &msg.head {
            Head::ChunksDeleted(deleted) => Some(deleted.chunks.clone()),
            _ => None,
        };
        world.meta.heard.iter().filter_map(deleted).collect()
    };
    assert!(deleted(&world).is_empty());
    world.let_go("syncdir chunks");
    assert_eq!(deleted(&world), std::slice::from_ref(&delete.chunks));
    assert_eq!(world.status(0).chunks_writing, 0);
    world.write(0, link, C, 2, 300, &bytes(300, 1));
    world.run();
    assert_eq!(
        world.piece_done(2).unwrap().unwrap_err().status,
        Status::NotServed
    );
    world.create(&[0], ChunkId(8));
    world.order(
        0,
        DeleteChunks {
            term: world.term(0),
            chunks: vec![(ChunkId(8), Version(1))],
        },
    );
    let mut old = world.term(0);
    old.number += 1;
    world.order(
        0,
        DeleteChunks {
            term: old,
            chunks: vec![(ChunkId(8), VERSION)],
        },
    );
    world.run();
    assert_eq!(
        deleted(&world).len(),
        2,
        "an order of another term is dropped"
    );
    assert!(world.servers[0].disk.get("chunks/1000.8.9").is_some());
}

#[test]
fn an_inventory_of_many_goes_in_batches_in_order_and_each_waits_for_its_verdicts() {
    let mut world = with_a_chunk();
    let bytes = world.servers[0]
        .disk
        .get("chunks/1000.5.9")
        .unwrap()
        .to_vec();
    let count = INVENTORY_BATCH * 2 + 10;
    for chunk in 0..count {
        // Their headers are bad, which is enough to be said.
        world.servers[0]
            .disk
            .put(&format!("chunks/{}.{chunk}.1", chunk % 7), &bytes[..100]);
    }
    world.start(0);
    world.run();
    let said = inventories(&world);
    assert_eq!(
        said.iter()
            .map(|batch| (batch.items.len(), batch.last))
            .collect::<Vec<_>>(),
        [
            (INVENTORY_BATCH, false),
            (INVENTORY_BATCH, false),
            (11, true)
        ]
    );
    let names: Vec<_> = said
        .iter()
        .flat_map(|batch| &batch.items)
        .map(|item| (item.file, item.chunk, item.version))
        .collect();
    assert!(names.is_sorted());
    assert!(world.is_ready(0));
}

#[test]
fn a_new_epoch_is_durable_before_the_inventory_and_an_older_one_is_refused() {
    let mut world = World::up(1);
    world.meta.epoch = Epoch(7);
    world.meta.incarnation = Incarnation(70);
    world.kill(0);
    world.trace.clear();
    world.meta.heard.clear();
    world.start(0);
    world.run();
    assert_eq!(hellos(&world)[0].seen, (EPOCH, INCARNATION));
    world.servers[0].disk.power_loss();
    assert_eq!(identity(&world, 0).seen, (Epoch(7), Incarnation(70)));
    for (epoch, incarnation) in [(EPOCH, INCARNATION), (Epoch(7), Incarnation(71))] {
        (world.meta.epoch, world.meta.incarnation) = (epoch, incarnation);
        world.meta.heard.clear();
        world.restart(0);
        assert!(!world.is_ready(0));
        let behind = world.meta.heard.iter().any(|(_, msg)| {
            matches!(&msg.head, Head::EpochBehind(behind) if behind.seen == (Epoch(7), Incarnation(70)))
        });
        assert!(behind && inventories(&world).is_empty());
    }
    (world.meta.epoch, world.meta.incarnation) = (Epoch(8), Incarnation(80));
    world.pass(Duration::from_secs(5));
    assert!(world.is_ready(0), "it tries again");
}

#[test]
fn another_cluster_and_a_refusal_for_good_halt_and_what_passes_is_tried_again() {
    let mut world = World::up(1);
    world.meta.cluster = ClusterId(0xBAD);
    world.restart(0);
    assert_eq!(fault(&world, 0).kind, FaultKind::Refused);
    assert!(fault(&world, 0).what.contains("cluster"));

    let mut world = World::new(1);
    world.meta.refuse = Some(Refusal::new(Status::Permission, "cloned disk?"));
    world.start(0);
    world.run();
    assert_eq!(fault(&world, 0).kind, FaultKind::Refused);
    assert!(fault(&world, 0).what.contains("cloned disk?"));

    // Busy, or without room in its log: that passes.
    for status in [Status::Busy, Status::ReadOnly] {
        let mut world = World::new(1);
        world.meta.refuse = Some(Refusal::new(status, "not now"));
        world.start(0);
        world.run();
        world.pass(Duration::from_secs(1));
        world.meta.refuse = None;
        world.pass(Duration::from_secs(3));
        assert!(world.is_ready(0), "{status:?}");
        let waiting: Vec<_> = world.servers[0]
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Waiting { .. }))
            .collect();
        assert_eq!(waiting.len(), 1, "said once: {waiting:?}");
    }
}

#[test]
fn heartbeats_go_on_and_a_silent_meta_server_is_left_and_dialed_again() {
    let mut world = World::up(1);
    world.pass(Duration::from_secs(10));
    let beats = |world: &World| {
        world
            .meta
            .heard
            .iter()
            .filter(|(_, msg)| matches!(msg.head, Head::Heartbeat(_)))
            .count()
    };
    assert!((10..=12).contains(&beats(&world)), "{}", beats(&world));
    assert_eq!(hellos(&world).len(), 1);
    world.meta.answers_heartbeats = false;
    world.pass(Duration::from_secs(7));
    assert!(hellos(&world).len() >= 2, "it said hello again");
    world.meta.answers_heartbeats = true;
    world.pass(Duration::from_secs(7));
    assert!(world.status(0).serving);
}

#[test]
fn a_hello_that_is_not_answered_is_said_again() {
    let mut world = World::new(1);
    world.meta.answers_hello = false;
    world.start(0);
    world.pass(Duration::from_secs(12));
    assert!(hellos(&world).len() >= 2);
    world.meta.answers_hello = true;
    world.pass(Duration::from_secs(12));
    assert!(world.is_ready(0));
}

#[test]
fn a_lost_meta_server_stops_neither_reads_nor_writes_and_nothing_is_scanned_again() {
    let mut world = World::up(2);
    world.create(&[0, 1], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.rules.unreachable.insert(meta_addr());
    for server in 0..2 {
        world.cut_meta(server);
    }
    world.run();
    world.trace.clear();
    world.meta.heard.clear();
    world.pass(Duration::from_secs(3));
    assert!(!world.status(0).serving);
    assert_eq!(world.read(1, C, 0, 300, 300).unwrap(), bytes(300, 1));
    world.write(0, link, C, 2, 512, &bytes(300, 1));
    world.run();
    assert_eq!(world.piece_done(2), Some(Ok(())));
    world.rules.unreachable.clear();
    world.meta.verdicts.insert((C, VERSION), keep(300));
    world.pass(Duration::from_secs(3));
    assert!(world.status(0).serving);
    assert!(world.traced("list").is_empty() && world.traced(" 0+16384").is_empty());
    let said: Vec<_> = inventories(&world)
        .into_iter()
        .flat_map(|batch| batch.items)
        .collect();
    assert!(
        said.iter()
            .all(|item| item.state == ReplicaState::Writing && item.len == 300)
            && said.len() == 2
    );
    world.sync(0, link, C, 2);
    world.run();
    assert_eq!(
        world.syncs_done().pop(),
        Some(Ok(812)),
        "the chain is whole"
    );
}

#[test]
fn damage_is_said_again_at_the_next_hello() {
    let mut world = with_a_chunk();
    world.meta.verdicts.insert((C, VERSION), keep(300));
    world.start(0);
    world.run();
    world.servers[0].disk.get_mut("chunks/1000.5.9")[usize::try_from(HEADER_BYTES).unwrap()] ^= 1;
    world.rules.unreachable.insert(meta_addr());
    world.cut_meta(0);
    world.run();
    assert_eq!(
        world.read(0, C, 0, 300, 300).unwrap_err().status,
        Status::Corrupt
    );
    assert!(world.damage().is_empty());
    world.rules.unreachable.clear();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.damage(), [(0, C, Some(0))]);
}

#[test]
fn verdicts_on_something_else_end_the_term() {
    for (verdicts, accepted) in [
        (vec![(ChunkId(1), VERSION, Verdict::Stale)], true),
        (vec![], false),
    ] {
        let mut world = World::up(1);
        world.create(&[0], ChunkId(1));
        let verdicts = Verdicts {
            term: world.term(0),
            verdicts,
            accepted,
        };
        world.order(0, verdicts);
        world.run();
        assert!(
            world.servers[0].disk.get("chunks/1000.1.9").is_some(),
            "nothing is done by it"
        );
        assert!(!world.status(0).serving);
        world.meta.verdicts.insert((ChunkId(1), VERSION), keep(0));
        world.pass(Duration::from_secs(2));
        assert!(world.status(0).serving);
    }
}

#[test]
fn a_chunk_never_synced_is_gone_or_bad_after_power_loss_and_never_served() {
    let mut world = World::up(1);
    world.create(&[0], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.run();
    world.kill(0);
    world.servers[0].disk.power_loss();
    world.start(0);
    world.run();
    assert!(world.is_ready(0));
    assert!(
        inventories(&world).last().unwrap().items.is_empty(),
        "its name was not durable"
    );
}

#[test]
fn a_stop_before_the_start_is_over_is_answered() {
    let mut world = World::new(1);
    world.call(0, 1, Call::Stop);
    world.servers[0].alive = true;
    world.run();
    assert!(
        world.servers[0]
            .events
            .iter()
            .any(|(id, event)| *id == CallId(1) && matches!(event, Event::Stopped))
    );
}

#[test]
fn an_order_to_say_hello_again_is_followed() {
    let mut world = World::up(1);
    world.order(
        0,
        SayHello {
            why: "a new epoch".into(),
        },
    );
    world.run();
    world.pass(Duration::from_secs(1));
    assert_eq!(hellos(&world).len(), 2);
    assert!(world.status(0).serving);
}

#[test]
fn a_trash_that_is_due_all_at_once_is_unlinked_a_few_files_at_a_time() {
    let mut world = World::new(1);
    world.servers[0].disk.make_dir("trash");
    world.start(0);
    world.run();
    world.kill(0);
    for n in 1..200 {
        let path = format!("trash/1.{n}.1.{n}");
        world.servers[0].disk.put(&path, b"old");
    }
    world.start(0);
    world.run();
    world.rules.hold_disk.push((0, "remove".into()));
    world.pass(Timing::REAL.trash_grace + Duration::from_secs(1));
    let waits = world.servers[0].machine.bounds().jobs;
    assert!((1..=16).contains(&waits), "{waits} at once");
    world.rules.hold_disk.clear();
    world.let_go("remove");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.status(0).chunks_trash, 0, "all of them, in the end");
}
