//! Reads: only right bytes are served, holes and what lies past the committed end are zeros or refused,
//! and memory stays bounded.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use bytes::Bytes;
use chunk_rig::*;
use kfs_core::ids::*;
use kfs_core::limits::{HEADER_BYTES, Limits};
use kfs_core::machine::{DiskError, Input};
use kfs_core::wire::chunk_meta::Verdict;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::{Head, Status};

const C: ChunkId = ChunkId(5);
const PATH: &str = "chunks/1000.5.9";

/// A chunk of 900 bytes in blocks 0 to 3, a hole, and 100 bytes in block 6, synced.
fn synced() -> (World, LinkId, Vec<u8>) {
    let mut world = World::up(1);
    world.create(&[0], C);
    let link = world.client(0);
    let mut all = bytes(900, 1).to_vec();
    world.write(0, link, C, 1, 0, &bytes(900, 1));
    all.resize(6 * 256, 0);
    world.write(0, link, C, 2, 6 * 256, &bytes(100, 2));
    all.extend_from_slice(&bytes(100, 2));
    world.sync(0, link, C, 2);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(all.len() as u64)]);
    world.inbox.clear();
    world.trace.clear();
    (world, link, all)
}

fn reload(world: &mut World, len: u64) {
    world.meta.verdicts.insert((C, VERSION), keep(len));
    world.restart(0);
    assert!(world.is_ready(0));
}

fn rot(world: &mut World, offset: u64) {
    let at = usize::try_from(HEADER_BYTES + offset).unwrap();
    world.servers[0].disk.get_mut(PATH)[at] ^= 0x10;
}

#[test]
fn every_range_is_read_back_from_memory_tables_and_from_headers() {
    let (mut world, _, all) = synced();
    let len = all.len() as u64;
    for round in 0..2 {
        for offset in [
            0, 1, 100, 255, 256, 300, 767, 768, 899, 900, 1_023, 1_100, 1_500, 1_535, 1_536, 1_600,
        ] {
            for size in [1_u32, 2, 99, 256, 257, 700, 1_024] {
                if offset + u64::from(size) > len {
                    continue;
                }
                let from = usize::try_from(offset).unwrap();
                let got = world.read(0, C, offset, size, len).unwrap();
                assert_eq!(
                    got,
                    all[from..from + size as usize],
                    "round {round}: {size} at {offset}"
                );
            }
        }
        reload(&mut world, len);
    }
}

#[test]
fn a_hole_is_zeros_whatever_the_disk_holds_and_so_is_what_lies_past_the_committed_end() {
    let (mut world, _, all) = synced();
    let hole = usize::try_from(HEADER_BYTES).unwrap() + 5 * 256;
    world.servers[0].disk.get_mut(PATH)[hole..hole + 256].fill(0xEE);
    // As if a write after the last sync had reached the disk before a power loss.
    world.servers[0]
        .disk
        .get_mut(PATH)
        .extend_from_slice(&[0xEE; 500]);
    let len = all.len() as u64;
    for _ in 0..2 {
        assert_eq!(
            world.read(0, C, 1_000, 600, len).unwrap(),
            all[1_000..1_600]
        );
        assert_eq!(world.read(0, C, 5 * 256, 256, len).unwrap(), vec![0; 256]);
        reload(&mut world, len);
    }
    assert_eq!(world.status(0).blocks_bad, 0);
}

#[test]
fn nothing_past_the_logs_length_and_nothing_of_a_replica_that_is_shorter_is_served() {
    let (mut world, _, all) = synced();
    let len = all.len() as u64;
    for _ in 0..2 {
        assert_eq!(
            world.read(0, C, 0, 100, 99).unwrap_err().status,
            Status::NotServed
        );
        assert_eq!(
            world.read(0, C, 0, 100, len + 1).unwrap_err().status,
            Status::NotServed
        );
        assert_eq!(
            world.read(0, C, 0, 0, len).unwrap_err().status,
            Status::BadRequest
        );
        assert_eq!(
            world.read(0, C, 0, 1_025, len).unwrap_err().status,
            Status::BadRequest
        );
        assert_eq!(
            world.read(0, C, u64::MAX, 2, len).unwrap_err().status,
            Status::BadRequest
        );
        assert_eq!(
            world.read(0, ChunkId(6), 0, 1, 1).unwrap_err().status,
            Status::NotServed
        );
        assert_eq!(world.read(0, C, 99, 1, 100).unwrap(), all[99..100]);
        reload(&mut world, len);
    }
}

#[test]
fn a_bad_block_is_reported_and_refused_while_others_are_served() {
    for reloaded in [false, true] {
        let (mut world, _, all) = synced();
        let len = all.len() as u64;
        if reloaded {
            reload(&mut world, len);
        }
        rot(&mut world, 300);
        for _ in 0..2 {
            let refusal = world.read(0, C, 256, 10, len).unwrap_err();
            assert_eq!(
                refusal.status,
                Status::Corrupt,
                "also where the range misses the damage"
            );
            assert!(refusal.detail.contains("block 1"), "{refusal}");
        }
        assert_eq!(
            world.read(0, C, 200, 100, len).unwrap_err().status,
            Status::Corrupt
        );
        assert_eq!(world.read(0, C, 0, 256, len).unwrap(), all[..256]);
        assert_eq!(world.read(0, C, 512, 512, len).unwrap(), all[512..1_024]);
        assert_eq!(world.damage(), [(0, C, Some(1))], "said once");
        assert_eq!(world.status(0).blocks_bad, 3);
    }
}

#[test]
fn a_bad_byte_in_the_last_short_block_is_seen_and_one_past_its_end_is_not_looked_at() {
    let (mut world, _, all) = synced();
    let len = all.len() as u64;
    reload(&mut world, len);
    world.servers[0].disk.get_mut(PATH).push(0xEE);
    assert_eq!(world.read(0, C, 1_536, 100, len).unwrap(), all[1_536..]);
    rot(&mut world, 1_635);
    assert_eq!(
        world.read(0, C, 1_536, 1, len).unwrap_err().status,
        Status::Corrupt
    );
}

#[test]
fn a_file_that_lost_its_end_and_one_that_cannot_be_read_are_bad_blocks() {
    let (mut world, _, all) = synced();
    let len = all.len() as u64;
    reload(&mut world, len);
    let end = usize::try_from(HEADER_BYTES).unwrap() + 600;
    world.servers[0].disk.get_mut(PATH).truncate(end);
    assert_eq!(world.read(0, C, 0, 512, len).unwrap(), all[..512]);
    assert_eq!(
        world.read(0, C, 512, 10, len).unwrap_err().status,
        Status::Corrupt
    );
    world.rules.fail_disk.push((
        0,
        format!("read {PATH} {HEADER_BYTES}+"),
        DiskError::Io("EIO".into()),
    ));
    let refusal = world.read(0, C, 0, 10, len).unwrap_err();
    assert_eq!(refusal.status, Status::Corrupt);
    assert!(refusal.detail.contains("EIO"));
    assert_eq!(world.damage(), [(0, C, Some(2)), (0, C, Some(0))]);
}

#[test]
fn a_header_that_rotted_after_the_start_serves_nothing_and_is_reported() {
    for both in [false, true] {
        let (mut world, _, all) = synced();
        let len = all.len() as u64;
        reload(&mut world, len);
        let file = world.servers[0].disk.get_mut(PATH);
        // The newest header is in slot B; the older one in A says that nothing is committed.
        file[8_192 + 100] ^= 1;
        if both {
            file[100] ^= 1;
        }
        assert_eq!(
            world.read(0, C, 0, 10, len).unwrap_err().status,
            Status::NotServed
        );
        assert_eq!(world.damage(), [(0, C, None)]);
        assert_eq!(world.status(0).chunks_damaged, 1);
    }
}

#[test]
fn an_older_header_of_the_same_length_makes_no_hole_of_what_was_written_since() {
    let (mut world, link, all) = synced();
    let len = all.len() as u64;
    world.write(0, link, C, 3, 4 * 256, &bytes(256, 3));
    world.sync(0, link, C, 3);
    world.run();
    world.inbox.clear();
    reload(&mut world, len);
    // The newest header is in slot A; the older one in B knows a hole there.
    world.servers[0].disk.get_mut(PATH)[100] ^= 1;
    let refusal = world.read(0, C, 4 * 256, 10, len).unwrap_err();
    assert_eq!(refusal.status, Status::NotServed);
    assert_eq!(world.damage(), [(0, C, None)]);
}

#[test]
fn the_newest_header_rotted_while_the_server_was_down_makes_no_hole_of_what_was_synced_since() {
    let (mut world, link, all) = synced();
    let len = all.len() as u64;
    world.write(0, link, C, 3, 4 * 256, &bytes(256, 3));
    world.sync(0, link, C, 3);
    world.run();
    let wseq = WriteSeq(3);
    let log = Durable { len, wseq };
    assert_eq!(world.syncs_answered().last(), Some(&Ok(log)));
    world.inbox.clear();
    // The newest header is in slot A; the older one in B knows a hole there.
    world.servers[0].disk.get_mut(PATH)[100] ^= 1;
    for (verdict, served) in [
        (Verdict::Damaged { log }, false),
        // It would be a mistake of the meta server.
        (Verdict::Keep { log }, false),
        // The log had not heard of the second sync yet: the reader has.
        (keep(len), true),
    ] {
        world.meta.verdicts.insert((C, VERSION), verdict);
        world.start(0);
        world.run();
        let read = world.read_at(0, C, (4 * 256, 10), log);
        assert_eq!(read.unwrap_err().status, Status::NotServed, "{verdict:?}");
        let read = world.read(0, C, 0, 10, len);
        assert_eq!(read.is_ok(), served, "{verdict:?}");
    }
}

#[test]
fn a_read_of_a_block_with_a_write_on_its_way_waits_for_it() {
    let mut world = World::up(2);
    world.create(&[0, 1], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.rules.hold_sends.push((1, "ChainDone"));
    world.write(0, link, C, 2, 512, &bytes(10, 2));
    world.run();
    let reader = world.client(0);
    world.inbox.clear();
    world.ask(0, reader, C, 0, 100, 300);
    world.run();
    assert_eq!(world.inbox.len(), 1, "another block is not dirty");
    world.let_go("ChainDone");
    world.sync(0, link, C, 2);
    world.run();
    world.rules.hold_sends.push((1, "ChainDone"));
    // In a real block there is room after the committed page; here the next block shares the read.
    world.write(0, link, C, 3, 768, &bytes(10, 3));
    world.run();
    world.inbox.clear();
    world.ask(0, reader, C, 512, 10, 522);
    world.run();
    assert_eq!(world.inbox.len(), 1);
    assert_eq!(
        world.read(1, C, 512, 10, 522).unwrap(),
        bytes(10, 2),
        "the tail is clean at once"
    );
}

#[test]
fn a_dirty_block_of_a_real_size_waits_and_then_serves_the_committed_bytes() {
    let mut world = World::up(2);
    world.create(&[0, 1], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 256, &bytes(10, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.rules.hold_sends.push((1, "ChainDone"));
    // Block 0 lies below the committed end and is a hole: it may be written, and may be read.
    world.write(0, link, C, 2, 100, &bytes(10, 2));
    world.run();
    let reader = world.client(0);
    world.inbox.clear();
    world.ask(0, reader, C, 90, 30, 266);
    world.run();
    assert!(
        world.inbox.is_empty(),
        "the write is not yet everywhere below"
    );
    world.let_go("ChainDone");
    let body = &world
        .inbox
        .iter()
        .find(|(_, at, _)| *at == reader)
        .expect("it is answered")
        .2
        .body;
    assert_eq!(body[10..20], bytes(10, 2));
}

#[test]
fn a_read_that_waits_when_the_chain_breaks_gets_what_is_committed() {
    let mut world = World::up(2);
    world.create(&[0, 1], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 256, &bytes(10, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.rules.hold_sends.push((1, "ChainDone"));
    world.write(0, link, C, 2, 100, &bytes(10, 2));
    world.run();
    let reader = world.client(0);
    world.inbox.clear();
    world.ask(0, reader, C, 90, 200 - 24, 266);
    world.run();
    assert!(world.inbox.is_empty());
    world.kill(1);
    world.run();
    let answer = &world
        .inbox
        .iter()
        .find(|(_, at, _)| *at == reader)
        .expect("it is answered")
        .2;
    let mut expected = vec![0; 166];
    expected.extend_from_slice(&bytes(10, 1));
    assert_eq!(
        answer.body, expected,
        "the write that was not committed is not served"
    );
}

#[test]
fn reads_are_not_begun_before_the_link_has_room() {
    let limits = Limits {
        link_unsent_bytes: 2_000,
        link_requests: 10,
        ..Limits::REAL
    };
    let mut world = World::with_limits(1, limits);
    world.start(0);
    world.run();
    world.create(&[0], C);
    let writer = world.client(0);
    world.write(0, writer, C, 1, 0, &bytes(1_024, 1));
    world.sync(0, writer, C, 1);
    world.run();
    world.trace.clear();
    world.inbox.clear();
    let link = world.client(0);
    world.rules.no_credit.insert(0);
    for _ in 0..12 {
        world.ask(0, link, C, 0, 1_024, 1_024);
    }
    world.run();
    assert_eq!(
        world.traced("read chunks/").len(),
        2,
        "two replies are more than the link takes"
    );
    let busy = |world: &World| {
        world.inbox.iter().filter(|(.., msg)| matches!(&msg.head, Head::RangeRead(read) if read.outcome.as_ref().is_err_and(|refusal| refusal.status == Status::Busy))).count()
    };
    assert_eq!(busy(&world), 2, "ten wait, no more");
    // What was refused takes room as well: all of it goes, then two more reads begin.
    world.input(
        0,
        Input::Sent {
            link,
            bytes: 2 * 256 + 2 * 1_280,
        },
    );
    world.run();
    assert_eq!(world.traced("read chunks/").len(), 4);
    world.rules.no_credit.clear();
    world.input(
        0,
        Input::Sent {
            link,
            bytes: 2 * 1_280,
        },
    );
    world.run();
    assert_eq!(world.traced("read chunks/").len(), 10);
    assert_eq!(world.inbox.len(), 12);
    let other = world.read(0, C, 0, 10, 1_024).unwrap();
    assert_eq!(other, bytes(1_024, 1)[..10]);
}

#[test]
fn tables_of_chunks_at_rest_are_few_and_read_again_when_needed() {
    let limits = Limits {
        chunk_tables: 2,
        ..Limits::REAL
    };
    let mut world = World::with_limits(1, limits);
    world.start(0);
    world.run();
    let link = world.client(0);
    for chunk in 1..=4 {
        world.create(&[0], ChunkId(chunk));
        world.write(
            0,
            link,
            ChunkId(chunk),
            1,
            0,
            &bytes(100, u8::try_from(chunk).unwrap()),
        );
        world.sync(0, link, ChunkId(chunk), 1);
        world
            .meta
            .verdicts
            .insert((ChunkId(chunk), VERSION), keep(100));
    }
    world.run();
    world.restart(0);
    world.trace.clear();
    let headers = |world: &World| {
        world
            .trace
            .iter()
            .filter(|line| line.ends_with(" 0+16384"))
            .count()
    };
    let read = |world: &mut World, chunk: u8| -> Bytes {
        world.read(0, ChunkId(chunk.into()), 0, 100, 100).unwrap()
    };
    for chunk in [1, 2, 1, 2, 3, 2, 1] {
        assert_eq!(read(&mut world, chunk), bytes(100, chunk));
    }
    assert_eq!(
        headers(&world),
        4,
        "1, 2, 3, and 1 again, which was not used for longest"
    );
}

#[test]
fn reads_of_a_link_that_is_gone_are_dropped() {
    let (mut world, _, all) = synced();
    world.rules.hold_disk.push((0, "read".into()));
    let link = world.client(0);
    world.ask(0, link, C, 0, 100, all.len() as u64);
    world.run();
    world.close_client(0, link);
    world.run();
    world.let_go("read");
    assert!(world.inbox.is_empty());
    assert_eq!(world.read(0, C, 0, 100, 100).unwrap(), all[..100]);
}

/// A server whose disk takes `reads` reads at once, with one chunk of 1,024 bytes.
fn with_slow_disk(reads: usize) -> World {
    let limits = Limits {
        piece_buffer_bytes: reads * 1_024,
        link_requests: 10,
        ..Limits::REAL
    };
    let mut world = World::with_limits(1, limits);
    world.start(0);
    world.run();
    world.create(&[0], C);
    let writer = world.client(0);
    world.write(0, writer, C, 1, 0, &bytes(1_024, 1));
    world.sync(0, writer, C, 1);
    world.run();
    world.inbox.clear();
    world.trace.clear();
    world.rules.hold_disk.push((0, "read".into()));
    world
}

fn answers(world: &World, link: LinkId) -> usize {
    world.inbox.iter().filter(|(_, at, _)| *at == link).count()
}

#[test]
fn a_client_that_asks_and_leaves_again_and_again_piles_up_no_reads_at_the_disk() {
    for reloaded in [false, true] {
        let mut world = with_slow_disk(3);
        if reloaded {
            world.rules.hold_disk.clear();
            reload(&mut world, 1_024);
            world.rules.hold_disk.push((0, "read".into()));
        }
        for _ in 0..50 {
            let link = world.client(0);
            for _ in 0..10 {
                world.ask(0, link, C, 0, 1_024, 1_024);
            }
            world.run();
            world.close_client(0, link);
            world.run();
            let bounds = world.servers[0].machine.bounds();
            assert!(bounds.jobs <= 3, "{bounds:?}");
            assert_eq!(bounds.reads, 0, "nobody is there to be answered");
        }
        let link = world.client(0);
        for _ in 0..10 {
            world.ask(0, link, C, 0, 1_024, 1_024);
        }
        world.run();
        assert_eq!(answers(&world, link), 0);
        world.let_go("read");
        assert_eq!(answers(&world, link), 10, "what left takes nobody's turn");
        let bounds = world.servers[0].machine.bounds();
        assert_eq!((bounds.jobs, bounds.reads_at_disk), (0, 0));
    }
}

#[test]
fn headers_being_read_count_as_reads_of_the_disk() {
    let mut world = with_slow_disk(2);
    world.rules.hold_disk.clear();
    let link = world.client(0);
    for chunk in 11..=16 {
        world.create(&[0], ChunkId(chunk));
        world.write(0, link, ChunkId(chunk), 1, 0, &bytes(100, 1));
        world.sync(0, link, ChunkId(chunk), 1);
        let keep = keep(100);
        world.meta.verdicts.insert((ChunkId(chunk), VERSION), keep);
    }
    world.run();
    world.restart(0);
    world.inbox.clear();
    world.rules.hold_disk.push((0, "read".into()));
    let link = world.client(0);
    for chunk in 11..=16 {
        world.ask(0, link, ChunkId(chunk), 0, 100, 100);
    }
    world.run();
    let bounds = world.servers[0].machine.bounds();
    assert_eq!((bounds.tables_loading, bounds.reads_at_disk), (2, 2));
    world.let_go("read");
    assert_eq!(answers(&world, link), 6);
}

#[test]
fn a_reader_of_much_does_not_keep_the_disk_from_a_reader_of_little() {
    let mut world = with_slow_disk(2);
    let (much, little) = (world.client(0), world.client(0));
    for _ in 0..10 {
        world.ask(0, much, C, 0, 1_024, 1_024);
    }
    world.ask(0, little, C, 0, 10, 1_024);
    world.run();
    world.let_go("read");
    let place = world.inbox.iter().position(|(_, at, _)| *at == little);
    assert!(place.unwrap() < 5, "it was answered as number {place:?}");
    assert_eq!(world.inbox.len(), 11);
}

#[test]
fn reads_that_need_no_disk_after_all_let_those_behind_them_go_on() {
    let mut world = with_slow_disk(2);
    world.rules.hold_disk.clear();
    reload(&mut world, 1_024);
    world.rules.hold_disk.push((0, "0+16384".into()));
    world.rules.hold_disk.push((0, "16384+1024".into()));
    let links: Vec<_> = (0..3).map(|_| world.client(0)).collect();
    for link in &links {
        world.ask(0, *link, C, 0, 1_024, 1_024);
        world.ask(0, *link, C, 0, 1_024, 1_024);
    }
    world.run();
    world.let_go(" 0+16384");
    assert_eq!(world.servers[0].machine.bounds().reads_at_disk, 2);
    assert_eq!(world.inbox.len(), 0, "four wait behind two");
    let delete = kfs_core::wire::chunk_meta::DeleteChunks {
        term: world.term(0),
        chunks: vec![(C, VERSION)],
    };
    world.order(0, delete);
    world.run();
    world.let_go("16384+1024");
    assert_eq!(world.inbox.len(), 6, "each is answered, by a refusal");
}

#[test]
fn a_replica_deleted_while_it_is_read_is_refused() {
    let (mut world, _, all) = synced();
    let link = world.client(0);
    world.rules.hold_disk.push((0, "read".into()));
    world.ask(0, link, C, 0, 100, all.len() as u64);
    world.run();
    let delete = kfs_core::wire::chunk_meta::DeleteChunks {
        term: world.term(0),
        chunks: vec![(C, VERSION)],
    };
    world.order(0, delete);
    world.run();
    world.let_go("read");
    match &world.inbox.pop().expect("an answer").2.head {
        Head::RangeRead(read) => {
            assert_eq!(read.outcome.as_ref().unwrap_err().status, Status::NotServed)
        }
        other => panic!("{other:?}"),
    }
}
