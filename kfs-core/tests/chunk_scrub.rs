//! Scrub: what rots is found though nobody reads it, what is good is never called bad, and nobody is kept waiting.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use chunk_rig::*;
use kfs_core::block::Sums;
use kfs_core::chunk::{Call, Event, ScrubStatus};
use kfs_core::ids::*;
use kfs_core::limits::{HEADER_BYTES, Limits};
use kfs_core::machine::{DiskError, Input};
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::{Head, Msg, Status};
use std::collections::BTreeSet;
use std::time::Duration;

const C: ChunkId = ChunkId(5);
const PATH: &str = "chunks/1000.5.9";
/// A header takes a bit less than two seconds, and a range a tenth of one.
const RATE: u64 = 10_000;
/// Where the rig's servers stop writing what is idle: so long a chunk that was written is at rest after it.
const IDLE: Duration = Duration::from_secs(25);
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const HEADER: &str = "read chunks/1000.5.9 0+16384";
const FIRST: &str = "read chunks/1000.5.9 16384+";

fn world_at(servers: usize, rate: u64, limits: Limits) -> World {
    let mut world = World::with_limits(servers, limits);
    world.scrub_rate = rate;
    for server in 0..servers {
        world.start(server);
    }
    world.run();
    world.trace.clear();
    world
}
fn io() -> DiskError {
    DiskError::Io("a bad disk".into())
}

impl World {
    /// A chunk on these servers that ends in the middle of a page, with a hole in it; what it holds.
    fn filled(&mut self, servers: &[usize], chunk: ChunkId) -> Vec<u8> {
        self.create(servers, chunk);
        let link = self.client(servers[0]);
        let mut all = bytes(1_024, 1).to_vec();
        self.write(servers[0], link, chunk, 1, 0, &bytes(1_024, 1));
        all.resize(10 * 256, 0);
        self.write(servers[0], link, chunk, 2, 10 * 256, &bytes(300, 2));
        all.extend_from_slice(&bytes(300, 2));
        self.sync(servers[0], link, chunk, 2);
        self.run();
        assert_eq!(self.syncs_done().last(), Some(&Ok(all.len() as u64)));
        self.meta
            .verdicts
            .insert((chunk, VERSION), keep(all.len() as u64));
        self.inbox.clear();
        all
    }
    fn scrub(&mut self) -> ScrubStatus {
        self.status(0).scrub
    }
    /// Lets time pass until so many rounds more are through; gives what was done in them.
    fn rounds(&mut self, more: u64) -> ScrubStatus {
        let until = self.scrub().rounds + more;
        for _ in 0..10_000 {
            if self.scrub().rounds >= until {
                return self.scrub();
            }
            self.pass(100 * MS);
        }
        panic!("rounds do not end: {:?}", self.scrub());
    }
    /// Lets time pass until this is held.
    fn until_held(&mut self, what: &str) {
        for _ in 0..10_000 {
            if self.holds(what) {
                return;
            }
            self.pass(100 * MS);
        }
        panic!("nothing held is '{what}'");
    }
    /// Nothing is bad, and all is read.
    fn assert_good(&mut self) {
        let before = self.rounds(1);
        let after = self.rounds(2);
        assert_eq!(self.damage(), []);
        assert_eq!(after.bad, 0);
        assert!(after.chunks > before.chunks, "{after:?}");
        assert_eq!(self.status(0).chunks_damaged, 0);
    }
    fn rot(&mut self, offset: u64) {
        let at = usize::try_from(HEADER_BYTES + offset).unwrap();
        self.servers[0].disk.get_mut(PATH)[at] ^= 0x10;
    }
    fn delete(&mut self, chunk: ChunkId) {
        let term = self.term(0);
        let chunks = vec![(chunk, VERSION)];
        self.order(0, DeleteChunks { term, chunks });
        self.run();
    }
    /// The first server makes a copy of what the second has, which was sealed there.
    fn copy(&mut self, has: Durable) {
        let order = CopyChunk {
            term: self.term(0),
            file: FILE,
            chunk: C,
            version: VERSION,
            incarnation: INCARNATION,
            has,
            source: self.chain(&[1])[0],
        };
        self.forget_heard();
        self.order(0, order);
        self.run();
        let said = self.meta.heard.iter();
        let said = said.rev().find_map(|(_, msg)| match &msg.head {
            Head::ChunkCopied(said) => Some(said.outcome.clone()),
            _ => None,
        });
        assert_eq!(said.unwrap().unwrap().durable, has);
    }
    fn raise(&mut self, chain: u64, at: WriteSeq, session: SessionId) -> WriteSeq {
        let order = self.resume_order(0, &[0], C, chain, (at.0, at.0));
        let raised = at.taken_over();
        let order = ResumeChunk {
            session,
            raised,
            ..order
        };
        assert_eq!(self.resume_with(0, order), Ok(()));
        raised.unwrap()
    }
    fn write_as(&mut self, link: LinkId, session: SessionId, at: WriteSeq, offset: u64, salt: u8) {
        let body = bytes(40, salt);
        let head = WritePiece {
            chunk: C,
            version: VERSION,
            session,
            piece: PieceNumber(at.0),
            offset,
            sums: Sums::of(GEOMETRY, offset, &body),
        };
        self.send(0, link, Msg::with_body(700, head, body));
        self.run();
        assert_eq!(self.piece_done(at.0), Some(Ok(())));
    }
    fn reads_of(&self, chunk: ChunkId) -> usize {
        self.traced(&format!("0: read {}", name(chunk).path()))
            .len()
    }
}

/// One server with one chunk that was at rest when it started.
fn at_rest(rate: u64) -> (World, Vec<u8>) {
    let mut world = world_at(1, 0, Limits::REAL);
    let all = world.filled(&[0], C);
    world.scrub_rate = rate;
    world.restart(0);
    world.trace.clear();
    world.forget_heard();
    (world, all)
}

#[test]
fn a_block_that_rots_is_found_though_nobody_reads_it_wherever_it_is() {
    for (offset, block) in [
        (0, 0),
        (255, 0),
        (600, 2),
        (1_023, 3),
        (2_560, 10),
        (2_859, 11),
    ] {
        let (mut world, _) = at_rest(RATE);
        world.assert_good();
        world.rot(offset);
        let status = world.rounds(2);
        assert_eq!(world.damage(), [(0, C, Some(block))], "{offset}: said once");
        assert_eq!(status.bad, 1, "{offset}");
        assert_eq!(world.status(0).blocks_bad, 1);
        world.trace.clear();
        world.rounds(3);
        assert_eq!(world.reads_of(C), 0, "what is known needs no second look");
    }
}

#[test]
fn a_chunk_that_was_written_a_while_ago_is_read_too() {
    let mut world = world_at(1, RATE, Limits::REAL);
    world.filled(&[0], C);
    world.trace.clear();
    world.rounds(1);
    assert_eq!(world.reads_of(C), 0, "it is being written");
    world.pass(IDLE);
    world.assert_good();
    assert!(world.reads_of(C) > 0);
    world.rot(2_859);
    world.rounds(2);
    assert_eq!(world.damage(), [(0, C, Some(11))]);
}

#[test]
fn the_page_in_which_a_chunk_ends_is_read_where_it_is_in_its_place() {
    let make = || {
        let mut world = world_at(1, RATE, Limits::REAL);
        let all = world.filled(&[0], C);
        let link = world.client(0);
        let end = all.len() as u64;
        world.write(0, link, C, 3, end, &bytes(30, 3));
        world.sync(0, link, C, 3);
        world.run();
        assert!(world.header(0, C).redo.len() == 1);
        (world, end)
    };
    let (mut world, end) = make();
    world.pass(IDLE);
    world.assert_good();
    world.rot(end + 29);
    world.rounds(2);
    assert_eq!(world.damage(), [(0, C, Some(11))]);
    // As a crash may leave it: the page is in the header's slot only.
    let (mut world, end) = make();
    let at = usize::try_from(HEADER_BYTES + end).unwrap();
    world.kill(0);
    world.servers[0].disk.get_mut(PATH)[at..at + 30].fill(0xEE);
    world.start(0);
    world.run();
    world.assert_good();
    assert_eq!(
        world.servers[0].disk.get(PATH).unwrap()[at..at + 30],
        bytes(30, 3)
    );
}

#[test]
fn a_page_that_goes_to_its_place_meanwhile_is_waited_for() {
    // The other slot has rotted, so the header that is found at the next look names a page that is to be looked for.
    let mut world = world_at(1, 0, Limits::REAL);
    let all = world.filled(&[0], C);
    let link = world.client(0);
    world.write(0, link, C, 3, all.len() as u64, &bytes(30, 3));
    let place = format!("write {PATH} {}", HEADER_BYTES + 2_816);
    world.rules.hold_disk.push((0, place.clone()));
    world.sync(0, link, C, 3);
    world.run();
    assert!(world.holds(&place));
    // The chain breaks, so the replica is not written any more; and its page is not in its place.
    world.scrub_rate = RATE;
    let order = world.seal_order(0, C, Unsynced::Dropped);
    world.order(0, order);
    world.run();
    world.pass(IDLE);
    assert_eq!(world.damage(), []);
    world.let_go(&place);
    world.pass(IDLE);
    assert_eq!(world.damage(), []);
    world.restart(0);
    world.assert_good();
}

#[test]
fn a_hole_and_what_lies_past_the_end_may_hold_anything() {
    let (mut world, _) = at_rest(RATE);
    let hole = usize::try_from(HEADER_BYTES).unwrap() + 6 * 256;
    world.servers[0].disk.get_mut(PATH)[hole..hole + 256].fill(0xEE);
    world.servers[0]
        .disk
        .get_mut(PATH)
        .extend_from_slice(&[0xEE; 700]);
    world.assert_good();
}

#[test]
fn a_replica_that_is_all_holes_but_its_end_is_gone_through_at_the_same_pace() {
    let mut world = world_at(1, 0, Limits::REAL);
    world.create(&[0], C);
    let link = world.client(0);
    world.write(0, link, C, 1, 4_000, &bytes(96, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.meta.verdicts.insert((C, VERSION), keep(4_096));
    world.scrub_rate = RATE;
    world.restart(0);
    world.trace.clear();
    // The header and the first range, then a tenth of a second for each range, though one of four is on the disk.
    world.pass(1_900 * MS);
    assert_eq!(world.scrub().chunks, 0);
    world.pass(100 * MS);
    let status = world.scrub();
    assert_eq!((status.chunks, status.bytes, status.bad), (1, 256, 0));
    assert_eq!(world.reads_of(C), 2);
}

#[test]
fn a_replica_that_cannot_be_read_is_reported() {
    let (mut world, _) = at_rest(RATE);
    world.rules.fail_disk.push((0, FIRST.into(), io()));
    let status = world.rounds(1);
    assert_eq!(world.damage(), [(0, C, Some(0))]);
    assert_eq!(status.bad, 1);
    for broken in ["eio", "gone", "short"] {
        let (mut world, _) = at_rest(RATE);
        match broken {
            "eio" => world.rules.fail_disk.push((0, HEADER.into(), io())),
            "gone" => world.servers[0].disk.remove(PATH),
            _ => world.servers[0].disk.get_mut(PATH).truncate(9_000),
        }
        let status = world.rounds(1);
        assert_eq!(world.damage(), [(0, C, None)], "{broken}");
        assert_eq!(status.bad, 1);
        assert_eq!(world.status(0).chunks_damaged, 1);
    }
}

#[test]
fn a_header_that_rots_is_found_though_its_table_is_in_memory() {
    for both in [false, true] {
        let (mut world, all) = at_rest(RATE);
        let len = all.len() as u64;
        world.assert_good();
        world.read(0, C, 0, 100, len).unwrap();
        let file = world.servers[0].disk.get_mut(PATH);
        // The newest header is in slot B; the older one in A says that nothing is committed.
        file[8_192 + 100] ^= 1;
        if both {
            file[100] ^= 1;
        }
        world.rounds(2);
        assert_eq!(world.damage(), [(0, C, None)]);
        assert_eq!(world.scrub().bad, 1);
    }
}

#[test]
fn no_more_is_read_in_a_second_than_was_allowed_and_a_pause_is_not_made_up_for() {
    let mut world = world_at(1, 0, Limits::REAL);
    for chunk in 1..=6 {
        world.filled(&[0], ChunkId(chunk));
    }
    world.scrub_rate = RATE;
    world.restart(0);
    let read = |world: &World| {
        let len = |line: &&str| line.rsplit_once('+').unwrap().1.parse::<u64>().unwrap();
        let reads: Vec<u64> = world.traced("0: read chunks").iter().map(len).collect();
        reads.iter().sum::<u64>()
    };
    world.trace.clear();
    let once = HEADER_BYTES + 1_024;
    for tenth in 1..=200 {
        world.pass(100 * MS);
        let most = tenth * RATE / 10 + once;
        assert!(read(&world) <= most, "{tenth}: {}", read(&world));
    }
    assert!(read(&world) > 20 * RATE / 2, "it goes on: {}", read(&world));
    // The process stands still for an hour.
    world.mono += Duration::from_secs(3_600);
    world.input(0, Input::Wake);
    world.run();
    world.pass(SECOND);
    world.trace.clear();
    for tenth in 1..=30 {
        world.pass(100 * MS);
        let most = tenth * RATE / 10 + once;
        assert!(read(&world) <= most, "{tenth}: {}", read(&world));
    }
}

#[test]
fn a_server_that_is_told_not_to_reads_nothing() {
    let (mut world, _) = at_rest(0);
    world.rot(300);
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.reads_of(C), 0);
    assert_eq!(world.scrub(), ScrubStatus::default());
}

#[test]
fn a_server_that_has_nothing_is_woken_once_a_second_and_no_more() {
    let mut world = world_at(1, u64::MAX, Limits::REAL);
    let before = world.scrub().rounds;
    world.pass(Duration::from_secs(100));
    let rounds = world.scrub().rounds - before;
    assert!((99..=101).contains(&rounds), "{rounds}");
    world.filled(&[0], C);
    world.pass(IDLE);
    world.trace.clear();
    world.pass(Duration::from_secs(10));
    let headers = world.traced(HEADER).len();
    assert!((9..=11).contains(&headers), "{headers}");
}

#[test]
fn one_read_is_at_the_disk_however_long_it_takes() {
    for held in [HEADER, FIRST] {
        let (mut world, _) = at_rest(RATE);
        world.rules.hold_disk.push((0, "read".into()));
        world.until_held(HEADER);
        if held == FIRST {
            world.let_go(HEADER);
            world.rules.hold_disk.push((0, "read".into()));
            if !world.holds(FIRST) {
                // It went on at once.
                world.until_held("read");
            }
        }
        world.pass(Duration::from_secs(3_600));
        let bounds = world.servers[0].machine.bounds();
        assert_eq!((bounds.reads_of_scrub, bounds.jobs), (1, 1), "{bounds:?}");
        assert_eq!((bounds.reads, bounds.reads_at_disk), (0, 0));
        world.let_go("read");
        world.assert_good();
    }
}

#[test]
fn a_client_waits_for_no_read_of_the_scrub_and_the_scrub_for_none_of_a_client() {
    let limits = Limits {
        piece_buffer_bytes: 1_024,
        ..Limits::REAL
    };
    let mut world = world_at(1, 0, limits);
    let all = world.filled(&[0], C);
    let other = ChunkId(6);
    world.filled(&[0], other);
    let len = all.len() as u64;
    world.scrub_rate = RATE;
    world.restart(0);
    world.rules.hold_disk.push((0, HEADER.into()));
    world.until_held(HEADER);
    assert_eq!(world.read(0, other, 0, 1_024, len).unwrap(), all[..1_024]);
    world.let_go(HEADER);
    world.rules.hold_disk.push((0, FIRST.into()));
    world.until_held(FIRST);
    assert_eq!(world.read(0, other, 0, 1_024, len).unwrap(), all[..1_024]);
    world.let_go(FIRST);
    // The disk has as many reads of clients as it may.
    let path = format!("read {}", name(other).path());
    world.rules.hold_disk.push((0, path.clone()));
    let link = world.client(0);
    world.ask(0, link, other, 0, 1_024, len);
    world.run();
    let bounds = world.servers[0].machine.bounds();
    assert_eq!(bounds.reads_at_disk, 1, "{bounds:?}");
    world.trace.clear();
    world.pass(IDLE);
    assert!(world.reads_of(C) > 0, "it may stop at the one that is held");
    world.let_go(&path);
    world.assert_good();
}

#[test]
fn a_client_and_the_scrub_that_want_one_header_read_it_once_and_both_go_on() {
    let (mut world, all) = at_rest(RATE);
    world.rules.hold_disk.push((0, HEADER.into()));
    world.until_held(HEADER);
    let link = world.client(0);
    world.ask(0, link, C, 0, 100, all.len() as u64);
    world.run();
    assert!(world.inbox.is_empty());
    world.close_client(0, link);
    let link = world.client(0);
    world.ask(0, link, C, 0, 100, all.len() as u64);
    world.let_go(HEADER);
    assert_eq!(world.inbox.len(), 1);
    assert_eq!(world.inbox[0].2.body, all[..100]);
    assert_eq!(world.traced(HEADER).len(), 1);
    world.assert_good();
}

#[test]
fn what_waits_for_a_header_that_a_client_reads_is_one_read_however_long_that_takes() {
    let (mut world, all) = at_rest(RATE);
    world.rules.hold_disk.push((0, HEADER.into()));
    let link = world.client(0);
    world.ask(0, link, C, 0, 100, all.len() as u64);
    world.run();
    assert!(world.holds(HEADER), "before the scrub begins");
    world.pass(Duration::from_secs(3_600));
    let bounds = world.servers[0].machine.bounds();
    assert_eq!((bounds.reads_of_scrub, bounds.reads_at_disk), (0, 1));
    world.let_go(HEADER);
    assert_eq!(world.inbox.len(), 1);
    assert_eq!(world.traced(HEADER).len(), 1);
    assert_eq!(world.traced(FIRST).len(), 2, "one for each");
    world.assert_good();
}

#[test]
fn a_table_that_a_client_asked_for_in_the_middle_stays_in_memory() {
    for asks in [false, true] {
        // A round is through in a quarter of a second, and the next one waits for the rest of it.
        let (mut world, all) = at_rest(10 * RATE);
        let len = all.len() as u64;
        let last = format!("read {PATH} {}+", HEADER_BYTES + 2_048);
        world.rules.hold_disk.push((0, last.clone()));
        world.until_held(&last);
        if asks {
            world.read(0, C, 0, 100, len).unwrap();
        }
        world.let_go(&last);
        world.rounds(1);
        let bounds = world.servers[0].machine.bounds();
        assert_eq!(bounds.tables, usize::from(asks));
    }
}

#[test]
fn tables_that_clients_use_are_not_pushed_out() {
    let limits = Limits {
        chunk_tables: 2,
        ..Limits::REAL
    };
    let mut world = world_at(1, 0, limits);
    let len = world.filled(&[0], ChunkId(1)).len() as u64;
    for chunk in 2..=6 {
        world.filled(&[0], ChunkId(chunk));
    }
    world.scrub_rate = RATE;
    world.restart(0);
    world.rounds(1);
    for round in 0..3 {
        // One place is the scrub's while it reads; and what it finds in memory stays there.
        world.read(0, ChunkId(3), 0, 100, len).unwrap();
        world.rounds(1);
        world.trace.clear();
        world.read(0, ChunkId(3), 0, 100, len).unwrap();
        assert_eq!(world.traced(" 0+16384"), Vec::<&str>::new(), "{round}");
    }
    assert_eq!(world.damage(), []);
}

#[test]
fn replicas_that_come_and_go_meanwhile_are_read_or_not_and_nothing_stands_still() {
    let mut world = world_at(1, 0, Limits::REAL);
    for chunk in [2, 4, 6, 8] {
        world.filled(&[0], ChunkId(chunk));
    }
    world.scrub_rate = RATE;
    world.restart(0);
    world.pass(2 * SECOND);
    world.delete(ChunkId(4));
    for chunk in [3, 9] {
        world.filled(&[0], ChunkId(chunk));
    }
    world.pass(SECOND);
    world.delete(ChunkId(8));
    world.pass(IDLE);
    world.rounds(1);
    let before = world.scrub().chunks;
    assert_eq!(world.rounds(2).chunks - before, 2 * 4, "2, 3, 6 and 9");
    for chunk in [2, 3, 6, 9] {
        world.delete(ChunkId(chunk));
    }
    let before = world.scrub().chunks;
    assert_eq!(world.rounds(2).chunks, before);
    assert_eq!(world.damage(), []);
}

#[test]
fn a_replica_that_goes_while_it_is_read_is_not_missed() {
    for (held, fails) in [
        (HEADER, false),
        (HEADER, true),
        (FIRST, false),
        (FIRST, true),
    ] {
        let (mut world, _) = at_rest(RATE);
        world.rules.hold_disk.push((0, held.into()));
        world.until_held(held);
        if fails {
            world.rules.fail_disk.push((0, held.into(), io()));
        }
        world.delete(C);
        world.let_go(held);
        let status = world.rounds(2);
        assert_eq!((status.bad, status.chunks), (0, 0), "{held}");
        assert_eq!(world.damage(), [], "{held}");
    }
}

/// Two servers with one sealed chunk; the first one reads what it has, and its disk has done so, and not said.
fn late(what: &str, rotten: Option<u64>) -> (World, Durable) {
    let mut world = world_at(2, 0, Limits::REAL);
    let all = world.filled(&[0, 1], C);
    for server in 0..2 {
        world.seal_chunk(server, C, Unsynced::Kept).0.unwrap();
    }
    world.scrub_rate = RATE;
    world.restart(0);
    world.forget_heard();
    if let Some(offset) = rotten {
        world.rot(offset);
    }
    world.rules.late_disk.push((0, what.into()));
    world.until_held(what);
    let (len, wseq) = (all.len() as u64, WriteSeq(2));
    (world, Durable { len, wseq })
}

#[test]
fn what_was_read_of_a_replica_that_is_deleted_is_not_held_against_the_copy_that_comes() {
    for (what, rotten) in [(FIRST, Some(300)), (HEADER, None)] {
        let (mut world, has) = late(what, rotten);
        world.delete(C);
        world.copy(has);
        world.let_go(what);
        world.pass(SECOND);
        world.assert_good();
    }
}

#[test]
fn what_was_read_of_a_damaged_replica_is_not_held_against_the_copy_that_replaces_it() {
    for rotten in [300, 2_570] {
        let what = if rotten == 300 { FIRST } else { "18432+" };
        let (mut world, has) = late(what, Some(rotten));
        // A client has met another block of it.
        world.rot(700);
        world.read(0, C, 700, 10, has.len).unwrap_err();
        world.forget_heard();
        world.copy(has);
        world.let_go(what);
        world.pass(SECOND);
        world.assert_good();
    }
}

#[test]
fn a_header_that_was_read_before_another_session_took_over_is_not_held_against_what_it_made() {
    let (mut world, _) = at_rest(RATE);
    let (said, _) = world.seal_chunk(0, C, Unsynced::Kept);
    let durable = said.unwrap();
    world.rounds(1);
    world.rules.late_disk.push((0, HEADER.into()));
    world.until_held(HEADER);
    let late = world.rules.late_disk.split_off(0);
    let session = SessionId(88);
    let at = world.raise(7, durable.wseq, session);
    let link = world.client(0);
    world.write_as(link, session, at.next(), durable.len, 9);
    let (said, _) = world.seal_chunk(0, C, Unsynced::Kept);
    assert_eq!(said.unwrap_err().status, Status::Busy, "it is synced first");
    let (said, _) = world.seal_chunk(0, C, Unsynced::Kept);
    assert_eq!(said.unwrap().wseq, at.next());
    world.rules.late_disk = late;
    world.let_go(HEADER);
    world.assert_good();
}

#[test]
fn what_a_session_wrote_and_no_sync_covered_is_not_held_against_what_the_next_one_wrote_there() {
    let mut world = world_at(1, 0, Limits::REAL);
    let all = world.filled(&[0], C);
    let len = all.len() as u64;
    let link = world.client(0);
    world.write(0, link, C, 3, 3_072, &bytes(10, 3));
    world.sync(0, link, C, 3);
    world.run();
    // A hole below the committed end is written, and lost.
    world.write(0, link, C, 4, 6 * 256, &bytes(40, 4));
    world.run();
    let reader = world.client(0);
    world.inbox.clear();
    world.rules.hold_disk.push((0, "read".into()));
    world.ask(0, reader, C, 5 * 256, 400, len);
    world.run();
    world.rules.hold_disk.clear();
    let (said, _) = world.seal_chunk(0, C, Unsynced::Dropped);
    let session = SessionId(88);
    let at = world.raise(7, said.unwrap().wseq, session);
    let link = world.client(0);
    world.write_as(link, session, at.next(), 6 * 256, 9);
    world.let_go("read");
    let answer = world.inbox.iter().find(|(_, at, _)| *at == reader);
    let answer = &answer.expect("it is answered").2;
    assert_eq!(answer.body[256..296], bytes(40, 9));
    assert_eq!(world.damage(), []);
    assert_eq!(world.status(0).blocks_bad, 0);
}

#[test]
fn a_replica_that_is_written_further_in_the_middle_is_left_and_read_when_it_is_at_rest_again() {
    for held in [HEADER, FIRST, "18432+"] {
        let (mut world, _) = at_rest(RATE);
        let (said, _) = world.seal_chunk(0, C, Unsynced::Kept);
        let durable = said.unwrap();
        world.rules.hold_disk.push((0, held.into()));
        world.until_held(held);
        let holds = world.rules.hold_disk.split_off(0);
        let session = SessionId(88);
        let at = world.raise(7, durable.wseq, session);
        let link = world.client(0);
        world.write_as(link, session, at.next(), durable.len, 9);
        world.rules.hold_disk = holds;
        world.let_go(held);
        let before = world.scrub();
        world.pass(2 * SECOND);
        assert_eq!(world.scrub().chunks, before.chunks, "{held}: it is written");
        let sync = SyncChunk {
            chunk: C,
            version: VERSION,
            session,
            up_to: PieceNumber(at.0 + 1),
        };
        world.send(0, link, Msg::new(900, sync));
        world.run();
        world.pass(IDLE);
        world.assert_good();
        world.seal_chunk(0, C, Unsynced::Kept).0.unwrap();
        world.assert_good();
    }
}

#[test]
fn a_replica_that_is_sealed_while_it_is_read_is_as_good_as_before() {
    for held in [HEADER, FIRST] {
        for late in [false, true] {
            let mut world = world_at(1, RATE, Limits::REAL);
            let all = world.filled(&[0], C);
            let link = world.client(0);
            world.write(0, link, C, 3, all.len() as u64, &bytes(30, 3));
            world.sync(0, link, C, 3);
            world.run();
            let rule = (0, held.to_owned());
            if late {
                world.rules.late_disk.push(rule);
            } else {
                world.rules.hold_disk.push(rule);
            }
            world.until_held(held);
            let (holds, lates) = (
                world.rules.hold_disk.split_off(0),
                world.rules.late_disk.split_off(0),
            );
            world.seal_chunk(0, C, Unsynced::Kept).0.unwrap();
            (world.rules.hold_disk, world.rules.late_disk) = (holds, lates);
            world.let_go(held);
            world.assert_good();
        }
    }
}

#[test]
fn a_copy_that_was_made_here_is_read_like_any_other() {
    let (mut world, has) = late(FIRST, None);
    world.delete(C);
    world.copy(has);
    world.let_go(FIRST);
    world.assert_good();
    world.rot(2_570);
    world.rounds(2);
    assert_eq!(world.damage(), [(0, C, Some(10))]);
}

#[test]
fn what_was_found_while_the_meta_server_was_away_is_said_when_it_is_back() {
    let (mut world, _) = at_rest(RATE);
    world.assert_good();
    world.rules.unreachable.insert(meta_addr());
    world.cut_meta(0);
    world.rot(300);
    world.rounds(2);
    assert_eq!(world.damage(), []);
    world.rules.unreachable.clear();
    world.pass(5 * SECOND);
    assert_eq!(world.damage(), [(0, C, Some(1))]);
}

#[test]
fn counters_say_what_was_read_and_when() {
    // A round takes a quarter of a second, and the next one waits for the rest of the second.
    let (mut world, _) = at_rest(10 * RATE);
    let status = world.rounds(1);
    // Blocks 4 to 9 are holes.
    assert_eq!((status.chunks, status.bytes), (1, 1_024 + 300));
    let began = status.began_ms_ago.unwrap();
    assert!((200..=400).contains(&began), "{status:?}");
    assert!(status.ended_ms_ago.unwrap() <= 100, "{status:?}");
    world.pass(500 * MS);
    let later = world.scrub();
    assert_eq!(later.began_ms_ago.unwrap(), began + 500);
    assert!(later.ended_ms_ago.unwrap() >= 500, "{later:?}");
    assert_eq!((later.rounds, later.bytes), (1, 1_324));
    let status = world.rounds(2);
    assert_eq!(
        (status.rounds, status.chunks, status.bytes),
        (3, 3, 3 * 1_324)
    );
    let clients = world.status(0);
    assert_eq!(
        (clients.reads, clients.bytes_read),
        (0, 0),
        "no client read"
    );
}

#[test]
fn a_server_that_is_told_to_stop_ends_at_once() {
    for held in [HEADER, FIRST] {
        let (mut world, _) = at_rest(RATE);
        world.rules.hold_disk.push((0, held.into()));
        world.until_held(held);
        world.call(0, 1, Call::Stop);
        world.run();
        let stopped = |(_, event): &(CallId, Event)| matches!(event, Event::Stopped);
        assert!(world.servers[0].events.iter().any(stopped));
        world.trace.clear();
        world.let_go(held);
        world.pass(IDLE);
        assert!(world.reads_of(C) <= 2, "what was begun ends");
        assert_eq!(world.damage(), []);
    }
}

#[test]
fn a_server_that_is_restarted_again_and_again_comes_to_all_of_its_replicas() {
    let mut world = world_at(1, 0, Limits::REAL);
    for chunk in 1..=8 {
        world.filled(&[0], ChunkId(chunk));
    }
    world.scrub_rate = RATE;
    world.trace.clear();
    let mut read = BTreeSet::new();
    for _ in 0..60 {
        world.restart(0);
        world.trace.clear();
        world.pass(MS);
        read.extend((1..=8).filter(|chunk| world.reads_of(ChunkId(*chunk)) > 0));
    }
    assert_eq!(read.len(), 8, "{read:?}");
}

#[test]
fn many_replicas_that_are_not_to_be_read_do_not_hide_those_behind_them() {
    let mut world = world_at(1, 0, Limits::REAL);
    for chunk in 1..=600 {
        world.create(&[0], ChunkId(1_000 + chunk));
    }
    world.filled(&[0], C);
    world.filled(&[0], ChunkId(5_000));
    world.scrub_rate = RATE;
    world.restart(0);
    assert_eq!(world.status(0).chunks, 2, "the log knows nothing of others");
    assert_eq!(world.rounds(1).chunks, 2);
    world.rot(300);
    world.rounds(2);
    assert_eq!(world.damage(), [(0, C, Some(1))]);
}

#[test]
fn replicas_that_are_served_to_nobody_take_no_time() {
    let mut world = world_at(1, 0, Limits::REAL);
    for chunk in 1..=30 {
        world.filled(&[0], ChunkId(chunk));
        if chunk > 1 {
            world.meta.verdicts.remove(&(ChunkId(chunk), VERSION));
        }
    }
    world.scrub_rate = RATE;
    world.restart(0);
    world.trace.clear();
    let since = world.mono;
    assert_eq!(world.rounds(1).chunks, 1);
    assert!(world.mono - since < 3 * SECOND, "{:?}", world.mono - since);
    assert_eq!(world.traced("0: read").len(), world.reads_of(ChunkId(1)));
}
