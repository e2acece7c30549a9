//! More is written to the page in which a sync ended: synced bytes of it never depend on a write that may tear.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use bytes::Bytes;
use chunk_rig::*;
use kfs_core::chunk::header::{RedoRun, Slot};
use kfs_core::ids::*;
use kfs_core::limits::HEADER_BYTES;
use kfs_core::machine::DiskError;
use kfs_core::wire::Status;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use std::time::Duration;

const C: ChunkId = ChunkId(5);
/// What is appended at a time. A page has room for some of them, and its edge lies within one.
const LEN: usize = 30;
const PAGE: u64 = 256;

fn body(piece: u64) -> Bytes {
    bytes(LEN, u8::try_from(piece % 200).unwrap())
}
fn end(piece: u64) -> u64 {
    piece * LEN as u64
}
fn durable(piece: u64) -> Durable {
    Durable {
        len: end(piece),
        wseq: WriteSeq(piece),
    }
}
/// All that so many pieces wrote.
fn whole(pieces: u64) -> Vec<u8> {
    (1..=pieces)
        .flat_map(|piece| body(piece).to_vec())
        .collect()
}
fn write_at(at: u64) -> String {
    format!("0: write chunks/1000.5.9 {}+", HEADER_BYTES + at)
}
fn header_write(slot: Slot) -> String {
    format!("0: write chunks/1000.5.9 {}+8192", slot.offset())
}
fn redo_write(slot: Slot) -> String {
    format!(
        "0: write chunks/1000.5.9 {}+",
        slot.redo_offset(0, GEOMETRY)
    )
}

impl World {
    /// Holds what the first server asks its disk for, as the trace would say it.
    fn hold(&mut self, what: String) {
        self.rules.hold_disk.push((0, what[3..].to_owned()));
    }
    fn append(&mut self, head: usize, link: LinkId, pieces: std::ops::RangeInclusive<u64>) {
        for piece in pieces {
            self.write(head, link, C, piece, end(piece - 1), &body(piece));
            self.run();
            assert_eq!(self.piece_done(piece), Some(Ok(())), "piece {piece}");
        }
    }
    fn synced(&mut self, head: usize, link: LinkId, piece: u64) {
        self.sync(head, link, C, piece);
        self.run();
        assert_eq!(self.syncs_answered().last(), Some(&Ok(durable(piece))));
    }
    fn assert_holds(&mut self, server: usize, piece: u64) {
        let whole = whole(piece);
        for (nth, part) in whole.chunks(1_024).enumerate() {
            let range = (nth as u64 * 1_024, u32::try_from(part.len()).unwrap());
            let read = self.read_at(server, C, range, durable(piece));
            let read = read.unwrap_or_else(|refusal| panic!("server {server}: {refusal}"));
            assert_eq!(read, part, "server {server} after piece {piece}");
        }
    }
    /// The power goes, and comes again.
    fn loses_power(&mut self, server: usize, log: u64) {
        self.power_cycle(server, C, durable(log));
    }
    fn data(&self, server: usize) -> &[u8] {
        let file = self.servers[server].disk.get("chunks/1000.5.9").unwrap();
        &file[usize::try_from(HEADER_BYTES).unwrap()..]
    }
    fn set_data(&mut self, server: usize, from: u64, to: u64, byte: u8) {
        let file = self.servers[server].disk.get_mut("chunks/1000.5.9");
        let at = |offset| usize::try_from(HEADER_BYTES + offset).unwrap();
        file[at(from)..at(to)].fill(byte);
    }
    /// Ends the chain as the meta server does before another one begins, or for good.
    fn seal_as(&mut self, server: usize, unsynced: Unsynced) -> Result<Durable, Status> {
        let (said, _) = self.seal_chunk(server, C, unsynced);
        said.map_err(|refusal| refusal.status)
    }
    fn resume(&mut self, server: usize, chain: u64, from: u64) -> Result<(), Status> {
        let order = self.resume_order(server, &[server], C, chain, (from, from));
        let said = self.resume_with(server, order);
        said.map_err(|refusal| refusal.status)
    }
}

/// A chunk on some servers, to which so many pieces were appended and synced, all at once.
fn begun(servers: usize, pieces: u64) -> (World, LinkId) {
    let mut world = World::up(servers);
    let chain: Vec<_> = (0..servers).collect();
    world.create(&chain, C);
    let link = world.client(0);
    world.append(0, link, 1..=pieces);
    world.synced(0, link, pieces);
    world.trace.clear();
    (world, link)
}

/// A chunk whose chain ended when the header of its second sync was written and not synced: three pieces are durable,
/// two more are in that header, whose page is not in its place.
fn broken_in_a_sync() -> World {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=5);
    world.sync(0, link, C, 5);
    world.hold(header_write(Slot::A));
    world.run();
    world.rules.hold_disk.clear();
    world.hold("0: sync chunks/1000.5.9".into());
    world.let_go("write chunks");
    assert!(world.holds("sync chunks/1000.5.9"));
    assert!(world.header(0, C).redo.len() == 1);
    assert_eq!(world.seal_as(0, Unsynced::Dropped), Err(Status::Busy));
    world.let_go("sync chunks/1000.5.9");
    world.rules.hold_disk.clear();
    world
}

/// A chunk of which four pieces are synced, and whose server died before the page was in its place.
fn killed_before_the_place() -> World {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    world.hold(write_at(0));
    world.synced(0, link, 4);
    world.kill(0);
    world.lose_held(0);
    world.servers[0].disk.power_loss();
    let log = durable(4);
    world
        .meta
        .verdicts
        .insert((C, VERSION), Verdict::Keep { log });
    world
}

#[test]
fn a_log_that_is_synced_after_every_record_is_there_after_every_loss_of_power() {
    for every in 1..=3 {
        let (mut world, link) = begun(3, 1);
        let mut synced = 1;
        for piece in 2..=40 {
            world.append(0, link, piece..=piece);
            if piece % every == 0 {
                world.synced(0, link, piece);
                synced = piece;
            }
            for server in 0..3 {
                world.assert_holds(server, synced);
            }
            if piece % 7 == 0 {
                // Another process finds on a copy of the disk what this one has promised.
                let mut later = World::up(1);
                let disk = &world.servers[2].disk;
                let file = disk.durable("chunks/1000.5.9").to_vec();
                later.servers[0].disk.put("chunks/1000.5.9", &file);
                later.loses_power(0, synced);
                later.assert_holds(0, synced);
            }
        }
        for server in 0..3 {
            world.loses_power(server, synced);
            world.assert_holds(server, synced);
        }
        assert_eq!(world.damage(), []);
    }
}

#[test]
fn the_page_is_written_in_its_place_after_the_header_that_has_it_elsewhere_is_durable() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    assert_eq!(
        world.traced("write"),
        Vec::<&str>::new(),
        "it waits for the sync"
    );
    assert_eq!(world.data(0).len() as u64, end(3));
    world.synced(0, link, 4);
    // The chunk's headers so far: made in A, synced in B.
    let sync = "0: sync chunks/1000.5.9".to_owned();
    let steps = [
        format!("{}120", redo_write(Slot::A)),
        sync.clone(),
        header_write(Slot::A),
        sync.clone(),
        format!("{}120", write_at(0)),
    ];
    let of_file: Vec<_> = world
        .traced("chunks/1000.5.9")
        .into_iter()
        .filter(|line| !line.contains("read"))
        .collect();
    assert_eq!(of_file, steps);
    let header = world.header(0, C);
    assert_eq!(header.redo.first().map(|run| run.page), Some(0));
    assert_eq!(world.data(0)[..120], whole(4)[..]);
    // The next one goes to the other slots.
    world.trace.clear();
    world.append(0, link, 5..=5);
    world.synced(0, link, 5);
    let read = world.position("read chunks/1000.5.9");
    assert!(
        read < world.position(&redo_write(Slot::B)),
        "it is read as it is"
    );
    assert!(world.position(&redo_write(Slot::B)) < world.position(&header_write(Slot::B)));
    // And one that has nothing in a covered page needs none.
    world.synced(0, link, 5);
    assert_eq!(world.header(0, C).redo.first().map(|run| run.page), Some(0));
}

#[test]
fn a_piece_that_crosses_the_edge_of_the_page_waits_with_its_first_bytes_only() {
    let (mut world, link) = begun(1, 8);
    assert!(end(8) < PAGE && end(9) > PAGE);
    world.append(0, link, 9..=9);
    let rest = end(9) - PAGE;
    assert_eq!(world.traced("write"), [format!("{}{rest}", write_at(PAGE))]);
    world.synced(0, link, 9);
    assert_eq!(
        world.traced(&write_at(0)).len(),
        1,
        "the page, in its place"
    );
    world.assert_holds(0, 9);
    // The page that the end is in now is another one; the one before is at rest.
    world.append(0, link, 10..=10);
    world.synced(0, link, 10);
    assert_eq!(world.header(0, C).redo.first().map(|run| run.page), Some(1));
    assert_eq!(world.traced(&write_at(0)).len(), 1);
    world.assert_holds(0, 10);
}

#[test]
fn what_a_later_write_skips_of_the_page_is_zeros() {
    let (mut world, link) = begun(1, 3);
    let far = 200;
    world.write(0, link, C, 4, far, &body(4));
    world.run();
    assert_eq!(world.piece_done(4), Some(Ok(())));
    world.sync(0, link, C, 4);
    world.run();
    let log = Durable {
        len: far + LEN as u64,
        wseq: WriteSeq(4),
    };
    let mut expected = whole(3);
    expected.resize(usize::try_from(far).unwrap(), 0);
    expected.extend_from_slice(&body(4));
    for _ in 0..2 {
        let len = u32::try_from(log.len).unwrap();
        assert_eq!(world.read_at(0, C, (0, len), log).unwrap(), expected);
        world
            .meta
            .verdicts
            .insert((C, VERSION), Verdict::Keep { log });
        world.servers[0].disk.power_loss();
        world.restart(0);
    }
}

#[test]
fn a_page_that_is_left_before_it_is_full_is_whole_in_its_redo_slot() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    world.write(0, link, C, 5, PAGE, &body(5));
    world.hold(write_at(0));
    world.sync(0, link, C, 5);
    world.run();
    let log = Durable {
        len: PAGE + LEN as u64,
        wseq: WriteSeq(5),
    };
    assert_eq!(world.syncs_answered().last(), Some(&Ok(log)));
    world.kill(0);
    world.lose_held(0);
    world.servers[0].disk.power_loss();
    world.set_data(0, 0, 200, 0xEE);
    world
        .meta
        .verdicts
        .insert((C, VERSION), Verdict::Keep { log });
    world.start(0);
    world.run();
    let mut expected = whole(4);
    expected.resize(usize::try_from(PAGE).unwrap(), 0);
    expected.extend_from_slice(&body(5));
    let len = u32::try_from(log.len).unwrap();
    assert_eq!(world.read_at(0, C, (0, len), log).unwrap(), expected);
}

#[test]
fn reads_see_what_is_synced_while_more_waits_and_while_the_page_goes_to_its_place() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=6);
    world.assert_holds(0, 3);
    world.hold(write_at(0));
    world.sync(0, link, C, 6);
    world.run();
    assert_eq!(
        world.syncs_answered().last(),
        Some(&Ok(durable(6))),
        "it is durable"
    );
    assert!(world.holds("write chunks"));
    let reader = world.client(0);
    world.inbox.clear();
    world.ask_at(
        0,
        reader,
        C,
        (0, u32::try_from(end(6)).unwrap()),
        durable(6),
    );
    world.run();
    assert!(
        world.inbox.is_empty(),
        "what is in the place is older than what is asked for"
    );
    // More is taken meanwhile; the next sync waits for the place.
    world.append(0, link, 7..=7);
    world.trace.clear();
    world.sync(0, link, C, 7);
    world.run();
    assert_eq!(world.traced("write"), Vec::<&str>::new());
    world.let_go("write chunks");
    let answers: Vec<_> = world
        .inbox
        .iter()
        .filter(|(_, at, _)| *at == reader)
        .collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].2.body, whole(6));
    assert_eq!(world.syncs_answered().last(), Some(&Ok(durable(7))));
    world.assert_holds(0, 7);
    assert_eq!(world.damage(), []);
}

#[test]
fn a_reader_that_leaves_while_it_waits_for_the_place_is_forgotten() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    world.hold(write_at(0));
    world.sync(0, link, C, 4);
    world.run();
    let reader = world.client(0);
    world.ask_at(0, reader, C, (0, 10), durable(4));
    world.run();
    world.close_client(0, reader);
    world.run();
    assert_eq!(world.servers[0].machine.bounds().reads, 0);
    world.let_go("write chunks");
    world.assert_holds(0, 4);
}

#[test]
fn a_place_that_a_crash_has_torn_is_written_again_from_the_redo_page() {
    for twice in [false, true] {
        let (mut world, link) = begun(1, 3);
        world.append(0, link, 4..=5);
        world.hold(write_at(0));
        world.synced(0, link, 5);
        world.kill(0);
        world.lose_held(0);
        world.servers[0].disk.power_loss();
        world.set_data(0, 20, 70, 0xEE);
        let log = durable(5);
        world
            .meta
            .verdicts
            .insert((C, VERSION), Verdict::Keep { log });
        if twice {
            // The next process dies before it has done it.
            world.hold(write_at(0));
            world.start(0);
            world.run();
            assert!(
                !world.is_ready(0),
                "nothing is said of what is not in its place"
            );
            world.kill(0);
            world.lose_held(0);
        }
        world.start(0);
        world.run();
        world.assert_holds(0, 5);
        assert_eq!(world.damage(), []);
    }
}

#[test]
fn a_redo_page_that_rotted_is_not_written_over_a_place_that_is_good() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    world.synced(0, link, 4);
    let at =
        usize::try_from(Slot::of(world.header(0, C).generation).redo_offset(0, GEOMETRY)).unwrap();
    world.servers[0].disk.get_mut("chunks/1000.5.9")[at + 3] ^= 1;
    let log = durable(4);
    world
        .meta
        .verdicts
        .insert((C, VERSION), Verdict::Keep { log });
    world.restart(0);
    world.assert_holds(0, 4);
    // With the place bad as well nothing of the block is served.
    world.set_data(0, 20, 70, 0xEE);
    world.restart(0);
    let refusal = world.read_at(0, C, (0, 10), log).unwrap_err();
    assert_eq!(refusal.status, Status::Corrupt);
    assert_eq!(world.damage(), [(0, C, Some(0))]);
}

#[test]
fn a_redo_page_that_is_read_wrong_once_is_read_again() {
    let mut world = killed_before_the_place();
    let slot = Slot::of(world.header(0, C).generation);
    let at = usize::try_from(slot.redo_offset(0, GEOMETRY)).unwrap();
    let read = redo_write(slot).replace("write", "read");
    let read = read.trim_end_matches('+').to_owned();
    world.hold(read);
    world.start(0);
    world.run();
    // Both reads are held, one after the other.
    let reads = format!(" {at}+");
    for _ in 0..2 {
        world.servers[0].disk.get_mut("chunks/1000.5.9")[at + 3] ^= 1;
        world.let_go(&reads);
    }
    world.assert_holds(0, 4);
    assert_eq!(world.damage(), []);
}

#[test]
fn a_redo_page_that_rotted_and_is_not_in_its_place_is_relied_on_by_nobody() {
    for goes_on in [true, false] {
        let mut world = killed_before_the_place();
        let slot = Slot::of(world.header(0, C).generation);
        let at = usize::try_from(slot.redo_offset(0, GEOMETRY)).unwrap();
        world.servers[0].disk.get_mut("chunks/1000.5.9")[at + 3] ^= 1;
        world.start(0);
        world.run();
        let outcome = if goes_on {
            world.resume(0, 7, 4)
        } else {
            world.seal_as(0, Unsynced::Kept).map(drop)
        };
        assert_eq!(outcome, Err(Status::NotServed), "goes on: {goes_on}");
        assert_eq!(world.damage(), [(0, C, None)]);
        assert!(world.header(0, C).redo.len() == 1);
    }
}

#[test]
fn a_chain_that_breaks_in_the_middle_of_a_sync_leaves_a_replica_that_can_be_read_and_sealed() {
    for sealed in [false, true] {
        let mut world = broken_in_a_sync();
        let place = &world.data(0)[90..150];
        assert_eq!(place, [0; 60], "the page is not in its place");
        if !sealed {
            world.trace.clear();
            world.assert_holds(0, 3);
            assert!(
                world.position("0: sync chunks/1000.5.9") < world.position(&write_at(0)),
                "the header is made durable before the place may tear"
            );
        }
        assert_eq!(world.seal_as(0, Unsynced::Dropped), Ok(durable(5)));
        assert_eq!(world.resume(0, 7, 5), Ok(()));
        let link = world.client(0);
        world.append(0, link, 6..=7);
        world.synced(0, link, 7);
        world.assert_holds(0, 7);
        world.loses_power(0, 7);
        world.assert_holds(0, 7);
        assert_eq!(world.damage(), []);
    }
}

#[test]
fn a_header_that_cannot_be_made_durable_is_served_to_nobody_with_its_page() {
    let mut world = broken_in_a_sync();
    let io = DiskError::Io("a bad disk".into());
    world
        .rules
        .fail_disk
        .push((0, "sync chunks/1000.5.9".into(), io));
    let refusal = world.read_at(0, C, (0, 10), durable(3)).unwrap_err();
    assert_eq!(refusal.status, Status::NotServed);
    assert_eq!(world.traced(&write_at(0)), Vec::<&str>::new());
    assert_eq!(
        world.data(0)[..90],
        whole(3)[..],
        "what was synced before is as it was"
    );
    // Another process finds no header that might not be durable.
    let log = durable(3);
    world
        .meta
        .verdicts
        .insert((C, VERSION), Verdict::Keep { log });
    world.restart(0);
    assert_eq!(world.header(0, C).wseq, WriteSeq(3));
    world.assert_holds(0, 3);
}

#[test]
fn a_sealed_replica_needs_no_redo_page_any_more() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=5);
    world.synced(0, link, 5);
    world.trace.clear();
    assert_eq!(world.seal_as(0, Unsynced::Kept), Ok(durable(5)));
    assert!(
        world.position("0: sync chunks/1000.5.9") < world.position(&header_write(Slot::B)),
        "the place is durable before a header relies on it"
    );
    assert_eq!(world.header(0, C).redo, []);
    // Once: the newer one is perhaps not durable.
    world.trace.clear();
    assert_eq!(world.seal_as(0, Unsynced::Kept), Ok(durable(5)));
    assert_eq!(world.traced("write"), Vec::<&str>::new());
    world.loses_power(0, 5);
    world.assert_holds(0, 5);
}

#[test]
fn a_page_in_its_place_that_a_failed_sync_has_dropped_is_written_there_again() {
    for failed in ["of a write", "of a chain that broke", "of the place"] {
        let (mut world, link) = begun(1, 3);
        world.append(0, link, 4..=5);
        world.synced(0, link, 5);
        if failed == "of a chain that broke" {
            assert_eq!(world.seal_as(0, Unsynced::Dropped), Ok(durable(5)));
        }
        let io = DiskError::Io("a bad disk".into());
        let fails = "sync chunks/1000.5.9".to_owned();
        world.rules.fail_disk.push((0, fails, io));
        match failed {
            "of a write" => {
                world.append(0, link, 6..=6);
                world.sync(0, link, C, 6);
                world.run();
                assert!(matches!(world.syncs_answered().last(), Some(Err(_))));
            }
            "of a chain that broke" => {
                assert_eq!(world.seal_as(0, Unsynced::Kept), Err(Status::LocalIo));
            }
            // The header without the page is not written; that with it stands.
            _ => assert_eq!(world.seal_as(0, Unsynced::Kept), Ok(durable(5))),
        }
        assert!(world.header(0, C).redo.len() == 1);
        // Such a disk drops what it could not write, and says next time that all is well.
        world.set_data(0, end(3), end(5), 0);
        let sealed = world.seal_as(0, Unsynced::Kept);
        assert_eq!(sealed, Ok(durable(5)), "a sync {failed}");
        assert_eq!(world.header(0, C).redo, []);
        world.assert_holds(0, 5);
    }
}

#[test]
fn the_header_of_a_sealed_replica_that_power_takes_leaves_the_one_with_the_page() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=5);
    world.synced(0, link, 5);
    assert_eq!(world.seal_as(0, Unsynced::Kept), Ok(durable(5)));
    world.loses_power(0, 5);
    assert!(world.header(0, C).redo.len() == 1);
    world.assert_holds(0, 5);
}

#[test]
fn a_chain_goes_on_in_the_middle_of_a_page() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    world.synced(0, link, 4);
    world.append(0, link, 5..=5);
    assert_eq!(world.seal_as(0, Unsynced::Dropped), Ok(durable(4)));
    assert_eq!(world.resume(0, 7, 4), Ok(()));
    let link = world.client(0);
    world.append(0, link, 5..=12);
    world.synced(0, link, 12);
    world.assert_holds(0, 12);
    world.loses_power(0, 12);
    world.assert_holds(0, 12);
}

#[test]
fn a_replica_whose_last_block_is_bad_takes_nothing_more_and_is_reported() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    world.synced(0, link, 4);
    assert_eq!(world.seal_as(0, Unsynced::Dropped), Ok(durable(4)));
    world.set_data(0, 7, 9, 0xEE);
    assert_eq!(world.resume(0, 7, 4), Err(Status::Corrupt));
    assert_eq!(world.damage(), [(0, C, Some(0))]);
}

#[test]
fn a_chunk_at_rest_in_the_middle_of_a_page_goes_on_there() {
    let (mut world, link) = begun(2, 3);
    world.pass(Duration::from_secs(25));
    assert_eq!(world.status(0).chunks_writing, 0);
    for piece in 4..=5 {
        world.append(0, link, piece..=piece);
        world.synced(0, link, piece);
        world.assert_holds(1, piece);
    }
    world.pass(Duration::from_secs(25));
    world.append(0, link, 6..=20);
    world.synced(0, link, 20);
    for server in 0..2 {
        world.assert_holds(server, 20);
        world.loses_power(server, 20);
        world.assert_holds(server, 20);
    }
}

#[test]
fn a_disk_that_cannot_write_the_page_in_its_place_takes_no_more_and_has_it_after_a_restart() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=4);
    let io = DiskError::Io("a bad disk".into());
    world
        .rules
        .fail_disk
        .push((0, write_at(0)[3..].to_owned(), io));
    world.synced(0, link, 4);
    world.write(0, link, C, 5, end(4), &body(5));
    world.run();
    let status = world.piece_done(5).unwrap().unwrap_err().status;
    assert_eq!(status, Status::ChainBroken);
    // Before a header does without the page it is tried again.
    assert_eq!(world.seal_as(0, Unsynced::Kept), Ok(durable(4)));
    world.assert_holds(0, 4);
    world.loses_power(0, 4);
    world.assert_holds(0, 4);
}

#[test]
fn a_page_that_the_disk_fails_is_tried_again_before_a_header_does_without_it() {
    for fails in ["read chunks/1000.5.9 2", "write chunks/1000.5.9 16384"] {
        for times in 1..=2 {
            let mut world = killed_before_the_place();
            for _ in 0..times {
                let io = DiskError::Io("a bad disk".into());
                world.rules.fail_disk.push((0, fails.into(), io));
            }
            world.start(0);
            world.run();
            let sealed = world.seal_as(0, Unsynced::Kept);
            if times == 1 {
                assert_eq!(sealed, Ok(durable(4)), "{fails}");
                world.assert_holds(0, 4);
                assert_eq!(world.damage(), []);
            } else {
                assert_eq!(sealed, Err(Status::NotServed), "{fails}");
                assert_eq!(world.damage(), [(0, C, None)]);
                // The next process finds it as before.
                world.restart(0);
                world.assert_holds(0, 4);
            }
        }
    }
}

#[test]
fn a_replica_whose_page_the_disk_fails_is_not_written_further() {
    for crosses in [false, true] {
        let mut world = if crosses {
            // The page that is not in its place is not the one in which the replica ends.
            let (mut world, link) = begun(1, 8);
            world.append(0, link, 9..=10);
            world.hold(write_at(0));
            world.synced(0, link, 10);
            world.kill(0);
            world.lose_held(0);
            world
        } else {
            killed_before_the_place()
        };
        let piece = if crosses { 10 } else { 4 };
        let io = DiskError::Io("a bad disk".into());
        let fails = "write chunks/1000.5.9 16384".to_owned();
        world.rules.fail_disk.push((0, fails, io));
        world.loses_power(0, piece);
        assert_eq!(world.resume(0, 7, piece), Err(Status::NotServed));
        assert_eq!(world.damage(), [(0, C, None)]);
        world.loses_power(0, piece);
        world.assert_holds(0, piece);
    }
}

#[test]
fn a_header_whose_sync_failed_is_not_made_durable_by_who_reads_it() {
    let (mut world, link) = begun(1, 3);
    world.append(0, link, 4..=5);
    world.hold(header_write(Slot::A));
    world.sync(0, link, C, 5);
    world.run();
    world.rules.hold_disk.clear();
    world.hold("0: sync chunks/1000.5.9".into());
    world.let_go("write chunks");
    let io = DiskError::Io("a bad disk".into());
    world
        .rules
        .fail_disk
        .push((0, "sync chunks/1000.5.9".into(), io));
    // What makes the header none is on its way still.
    world.hold(format!("{}8", write_at(0).replace("16384+", "0+")));
    world.let_go("sync chunks/1000.5.9");
    assert!(world.holds("write chunks/1000.5.9 0+8"));
    assert!(world.header(0, C).redo.len() == 1);
    world.trace.clear();
    let refusal = world.read_at(0, C, (0, 10), durable(3)).unwrap_err();
    assert_eq!(refusal.status, Status::NotServed);
    assert_eq!(world.traced("sync"), Vec::<&str>::new());
    assert_eq!(world.traced(&write_at(0)), Vec::<&str>::new());
}

#[test]
fn a_file_that_is_none_of_ours_keeps_its_place_as_it_is() {
    let mut world = killed_before_the_place();
    let ours = world.servers[0]
        .disk
        .get("chunks/1000.5.9")
        .unwrap()
        .to_vec();
    let foreign = "chunks/999.5.9";
    let mut theirs = ours.clone();
    for at in [8, 8_192 + 8] {
        theirs[at..at + 8].copy_from_slice(&999_u64.to_le_bytes());
    }
    for slot in [0, 8_192] {
        let adler = u64::from(adler::adler32_slice(&theirs[slot..slot + 4_400]));
        theirs[slot + 4_400..slot + 4_408].copy_from_slice(&adler.to_le_bytes());
        let crc = kfs_core::block::crc(&theirs[slot..slot + 8_184]);
        theirs[slot + 8_184..slot + 8_188].copy_from_slice(&crc.to_le_bytes());
    }
    world.servers[0].disk.put(foreign, &theirs);
    world.start(0);
    world.run();
    let files =
        [foreign, "chunks/1000.5.9"].map(|path| world.servers[0].disk.get(path).unwrap().to_vec());
    let changed = usize::from(files[0] != theirs) + usize::from(files[1] != ours);
    assert_eq!(
        changed, 1,
        "one of them is ours, and its page is in its place"
    );
    assert_eq!(world.status(0).files_foreign, 1);
}

#[test]
fn a_page_of_a_header_is_within_what_is_committed() {
    let page = RedoRun {
        page: 3,
        pages: 1,
        crc: 0,
    };
    assert_eq!(page.at(GEOMETRY), 3 * PAGE);
    assert_eq!(page.len(3 * PAGE + 10, GEOMETRY), 10);
    assert_eq!(page.len(5 * PAGE, GEOMETRY), 256);
}
