//! Another session writes a chunk further: its replicas are raised first, so that none can pass for what it is not.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use bytes::Bytes;
use chunk_rig::*;
use kfs_core::block::{Sums, padded_sum};
use kfs_core::chunk::Call;
use kfs_core::chunk::header::{SLOT_BYTES, Slot};
use kfs_core::ids::*;
use kfs_core::limits::HEADER_BYTES;
use kfs_core::machine::DiskError;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::{Head, Msg, Status};
use std::time::Duration;

const C: ChunkId = ChunkId(5);
const PATH: &str = "chunks/1000.5.9";
/// What is appended at a time. A page has room for some of them, and its edge lies within one.
const LEN: usize = 30;
const SYNC: &str = "0: sync chunks/1000.5.9";
const READ_HEADER: &str = "0: read chunks/1000.5.9 0+";
const READ_BLOCK: &str = "0: read chunks/1000.5.9 16384+";

fn header_write(slot: Slot) -> String {
    format!("0: write {PATH} {}+{SLOT_BYTES} sync", slot.offset())
}
fn spoil(slot: Slot) -> String {
    format!("0: write {PATH} {}+8", slot.offset())
}
/// What the disk does for a replica of one block that is raised, in its order.
fn held_steps() -> [String; 4] {
    let write = header_write(Slot::B);
    [SYNC.into(), READ_HEADER.into(), READ_BLOCK.into(), write]
}
fn io() -> DiskError {
    DiskError::Io("a bad disk".into())
}

/// A chunk on some servers, the first of them at its head, and all that was ever written to it.
struct Grown {
    world: World,
    servers: Vec<usize>,
    /// Of the session that writes.
    link: LinkId,
    session: SessionId,
    /// The last write that it made.
    at: WriteSeq,
    whole: Vec<u8>,
}

impl Grown {
    /// So many pieces were appended and synced, all at once.
    fn begun(servers: usize, pieces: u64) -> Self {
        let mut world = World::up(servers);
        let servers: Vec<_> = (0..servers).collect();
        world.create(&servers, C);
        let link = world.client(0);
        let mut grown = Self {
            world,
            servers,
            link,
            session: SESSION,
            at: WriteSeq(0),
            whole: Vec::new(),
        };
        grown.append(pieces);
        grown.synced();
        grown
    }
    /// As [`Self::begun`], and at rest: as the meta server finds a chunk that is to be taken over.
    fn at_rest(servers: usize, pieces: u64) -> Self {
        let mut grown = Self::begun(servers, pieces);
        grown.seal(Unsynced::Kept);
        grown
    }
    /// A piece was appended after a sync, and synced: the page is in its place, and the newest header has it elsewhere
    /// too.
    fn with_redo(servers: usize) -> Self {
        let mut grown = Self::begun(servers, 3);
        grown.append(1);
        grown.synced();
        grown.seal(Unsynced::Dropped);
        for server in &grown.servers {
            assert!(grown.world.header(*server, C).redo.len() == 1);
        }
        grown
    }
    /// As the server finds it when it starts again.
    fn restarted(mut self) -> Self {
        let log = self.durable();
        let verdict = Verdict::Keep { log };
        self.world.meta.verdicts.insert((C, VERSION), verdict);
        self.world.restart(0);
        self.quiet();
        self
    }
    fn quiet(&mut self) {
        self.world.forget_heard();
        self.world.trace.clear();
        self.world.inbox.clear();
    }
    fn durable(&self) -> Durable {
        Durable {
            len: self.whole.len() as u64,
            wseq: self.at,
        }
    }
    fn piece(&mut self, offset: u64, body: &Bytes) -> Msg {
        let head = WritePiece {
            chunk: C,
            version: VERSION,
            session: self.session,
            piece: PieceNumber(self.at.0 + 1),
            offset,
            sums: Sums::of(GEOMETRY, offset, body),
        };
        Msg::with_body(700, head, body.clone())
    }
    fn append(&mut self, pieces: u64) {
        for _ in 0..pieces {
            let salt = u8::try_from(self.whole.len() / LEN % 200).unwrap();
            let body = bytes(LEN, salt);
            let msg = self.piece(self.whole.len() as u64, &body);
            self.world.send(0, self.link, msg);
            self.world.run();
            self.at = self.at.next();
            self.whole.extend_from_slice(&body);
            assert_eq!(self.world.piece_done(self.at.0), Some(Ok(())));
        }
    }
    fn synced(&mut self) {
        let at = (0, self.link);
        self.world.sync_of(self.session, at, C, self.at.0);
        self.world.run();
        let answers = self.world.syncs_answered();
        assert_eq!(answers.last(), Some(&Ok(self.durable())));
    }
    fn seal(&mut self, unsynced: Unsynced) {
        for server in self.servers.clone() {
            let (said, _) = self.world.seal_chunk(server, C, unsynced);
            assert_eq!(said, Ok(self.durable()), "server {server}");
        }
        self.quiet();
    }
    /// The order that raises a replica to the next tenure.
    fn order(&self, server: usize, chain: u64) -> ResumeChunk {
        let at = self.at.0;
        let order = self
            .world
            .resume_order(server, &self.servers, C, chain, (at, at));
        let raised = self.at.taken_over();
        assert!(raised.is_some());
        let session = SessionId(self.session.0 + 1);
        ResumeChunk {
            session,
            raised,
            ..order
        }
    }
    fn refused(&mut self, order: ResumeChunk) -> Status {
        self.world.resume_with(0, order).unwrap_err().status
    }
    /// Sends the order and lets go nothing that is held.
    fn begin(&mut self, order: &ResumeChunk) {
        self.world.order(0, order.clone());
        self.world.run();
    }
    /// All members were raised by this order: its session writes from now on.
    fn taken_over(&mut self, by: &ResumeChunk) {
        self.at = by.raised.unwrap();
        self.session = by.session;
        self.link = self.world.client(0);
        self.world.run();
    }
    /// Another session takes it over.
    fn raise(&mut self, chain: u64) {
        for server in self.servers.clone() {
            let order = self.order(server, chain);
            assert_eq!(
                self.world.resume_with(server, order),
                Ok(()),
                "server {server}"
            );
        }
        let order = self.order(0, chain);
        self.taken_over(&order);
        self.quiet();
    }
    /// Holds what the first server asks its disk for, as the trace would say it, and nothing else.
    fn hold(&mut self, what: &str) {
        self.world.rules.hold_disk = vec![(0, what[3..].to_owned())];
    }
    fn resumes_said(&self) -> Vec<(u64, Result<(), Status>)> {
        let said = self.world.resumes_said(0).into_iter();
        said.map(|(chain, said)| (chain.0, said.map_err(|refusal| refusal.status)))
            .collect()
    }
    /// What the first server's disk did, but for reads.
    fn written(&self) -> Vec<&str> {
        let lines = self.world.traced(PATH).into_iter();
        lines
            .filter(|line| line.starts_with("0: ") && !line.contains(": read "))
            .collect()
    }
    fn file(&self) -> &[u8] {
        self.world.servers[0].disk.get(PATH).unwrap()
    }
    /// Every server serves all that was written, and says that it is at the last write.
    fn assert_holds(&mut self) {
        let log = self.durable();
        let whole = self.whole.clone();
        for server in self.servers.clone() {
            for (nth, part) in whole.chunks(1_024).enumerate() {
                let range = (nth as u64 * 1_024, u32::try_from(part.len()).unwrap());
                let read = self.world.read_at(server, C, range, log);
                let read = read.unwrap_or_else(|refusal| panic!("server {server}: {refusal}"));
                assert_eq!(read, part, "server {server}");
            }
        }
    }
    /// The newest header of every server says what was written, and which write is the last.
    fn assert_header(&self, at: WriteSeq) {
        let blocks = self.whole.chunks(GEOMETRY.block_bytes as usize);
        let sums: Vec<_> = blocks
            .map(|block| Some(padded_sum(block, GEOMETRY.block_bytes)))
            .collect();
        for server in &self.servers {
            let header = self.world.header(*server, C);
            assert_eq!(header.len, self.whole.len() as u64, "server {server}");
            assert_eq!(header.wseq, at, "server {server}");
            assert_eq!(header.sums, sums, "server {server}");
        }
    }
    /// A server that finds this file when it starts counts for what it was at one of these writes, has all that was
    /// written, and can be taken over: gives the write.
    fn assert_found(&self, file: &[u8], before: Durable) -> WriteSeq {
        let mut later = World::up(1);
        later.servers[0].disk.put(PATH, file);
        let verdict = Verdict::Keep { log: before };
        later.meta.verdicts.insert((C, VERSION), verdict);
        later.restart(0);
        let item = later.inventory_said(0, C).unwrap();
        assert_eq!(item.len, before.len);
        let link = later.client(0);
        let mut found = Self {
            world: later,
            servers: vec![0],
            link,
            session: self.session,
            at: item.wseq,
            whole: self.whole.clone(),
        };
        found.assert_holds();
        assert_eq!(found.world.damage(), []);
        found.raise(8);
        found.append(2);
        found.synced();
        found.assert_holds();
        item.wseq
    }
}

#[test]
fn a_header_that_says_more_is_written_after_all_is_durable_and_is_durable_before_it_is_answered() {
    for redo in [false, true] {
        let mut grown = if redo {
            Grown::with_redo(1)
        } else {
            Grown::at_rest(1, 3)
        };
        let before = grown.world.header(0, C);
        let order = grown.order(0, 7);
        grown.hold(SYNC);
        grown.begin(&order);
        assert!(grown.world.holds(&SYNC[3..]), "redo: {redo}");
        assert_eq!(grown.resumes_said(), [], "it is not begun");
        let write = header_write(Slot::B);
        grown.hold(&write);
        grown.world.let_go(&SYNC[3..]);
        assert!(grown.world.holds(&write[3..]), "redo: {redo}");
        assert_eq!(grown.resumes_said(), [], "it is not durable");
        assert_eq!(grown.world.status(0).chunks_writing, 0);
        grown.world.let_go(&write[3..]);
        assert_eq!(grown.resumes_said(), [(7, Ok(()))], "and once");
        assert_eq!(grown.world.status(0).chunks_writing, 1);
        assert_eq!(grown.written(), [SYNC, &write], "redo: {redo}");
        let raised = grown.world.header(0, C);
        assert_eq!(raised.wseq, order.raised.unwrap());
        assert_eq!(raised.redo, [], "it is in its place");
        assert_eq!(raised.generation, before.generation + 1);
        assert_eq!((raised.len, raised.sums), (before.len, before.sums));
        grown.world.servers[0].disk.power_loss();
        assert_eq!(grown.world.header(0, C).wseq, order.raised.unwrap());
    }
}

#[test]
fn power_that_goes_at_any_moment_leaves_a_whole_replica_at_the_write_before_or_at_the_raised_one() {
    let makes: [fn() -> Grown; 3] = [
        || Grown::at_rest(1, 3),
        || Grown::with_redo(1),
        // Its last page is full, and nothing of it is read for this.
        || {
            let mut grown = Grown::begun(1, 17);
            let fill = bytes(2, 9);
            let msg = grown.piece(510, &fill);
            grown.world.send(0, grown.link, msg);
            grown.world.run();
            grown.at = grown.at.next();
            grown.whole.extend_from_slice(&fill);
            grown.synced();
            grown.seal(Unsynced::Dropped);
            grown
        },
    ];
    for (nth, make) in makes.into_iter().enumerate() {
        let mut grown = make();
        let before = grown.durable();
        let slot = Slot::of(grown.world.header(0, C).generation + 1);
        let write = header_write(slot);
        let order = grown.order(0, 7);
        let raised = order.raised.unwrap();
        let durable = |grown: &Grown| grown.world.servers[0].disk.durable(PATH).to_vec();
        grown.hold(SYNC);
        grown.begin(&order);
        let at = grown.assert_found(&durable(&grown), before);
        assert_eq!(at, before.wseq, "case {nth}, before the sync");
        grown.hold(&write);
        grown.world.let_go(&SYNC[3..]);
        assert!(grown.world.holds(&write[3..]), "case {nth}");
        let synced = durable(&grown);
        assert_eq!(grown.assert_found(&synced, before), before.wseq);
        grown.world.let_go(&write[3..]);
        let after = durable(&grown);
        // The write may tear, and of all else nothing may have come to the disk since the sync.
        let slot = slot.offset()..slot.offset() + SLOT_BYTES;
        for cut in [8, 512, 4_096, 4_400, 4_608, SLOT_BYTES - 8, SLOT_BYTES] {
            let at = slot.start + cut;
            for new in [slot.start..at, at..slot.end] {
                let mut file = synced.clone();
                file[new.clone()].copy_from_slice(&after[new]);
                let at = grown.assert_found(&file, before);
                let is_whole = file[slot.clone()] == after[slot.clone()];
                let expected = if is_whole { raised } else { before.wseq };
                assert_eq!(at, expected, "case {nth}, torn at {cut}");
            }
        }
        assert_eq!(grown.resumes_said(), [(7, Ok(()))]);
        assert_eq!(grown.assert_found(&after, before), raised);
    }
}

#[test]
fn a_header_that_cannot_be_made_durable_counts_for_nobody_and_its_replica_for_what_it_was() {
    for restarted in [false, true] {
        for written in [false, true] {
            let mut grown = Grown::at_rest(1, 3);
            if restarted {
                grown = grown.restarted();
            }
            let case = format!("restarted: {restarted}, written: {written}");
            let before = grown.durable();
            let write = header_write(Slot::B);
            let rules = &mut grown.world.rules;
            let failing = if written {
                &mut rules.fail_durable
            } else {
                &mut rules.fail_disk
            };
            failing.push((0, write[3..].to_owned(), io()));
            let order = grown.order(0, 7);
            assert_eq!(grown.refused(order.clone()), Status::LocalIo, "{case}");
            assert_eq!(grown.written(), [SYNC, &write, &spoil(Slot::B)], "{case}");
            assert_eq!(grown.world.header(0, C).wseq, before.wseq, "{case}");
            assert_eq!(grown.world.status(0).chunks_writing, 0, "{case}");
            // Neither it nor its disk is trusted with another chain in this process.
            let (sealed, _) = grown.world.seal_chunk(0, C, Unsynced::Dropped);
            assert_eq!(sealed.unwrap_err().status, Status::LocalIo, "{case}");
            grown.assert_holds();
            // Nor is a piece of its session taken.
            let (at, session) = (grown.at, grown.session);
            grown.taken_over(&order);
            let msg = grown.piece(grown.whole.len() as u64, &bytes(LEN, 1));
            grown.world.send(0, grown.link, msg);
            grown.world.run();
            let done = grown.world.piece_done(grown.at.0 + 1).unwrap();
            assert_eq!(done.unwrap_err().status, Status::ChainBroken, "{case}");
            (grown.at, grown.session) = (at, session);
            let mut grown = grown.restarted();
            let has = grown.world.header(0, C).wseq;
            assert_eq!(has, before.wseq, "the next process does not see it");
            grown.assert_holds();
            grown.raise(8);
            grown.append(3);
            grown.synced();
            grown.assert_holds();
            assert_eq!(grown.world.damage(), [], "{case}");
        }
    }
}

#[test]
fn a_replica_that_cannot_be_synced_gets_no_header_that_says_more() {
    for restarted in [false, true] {
        let mut grown = Grown::at_rest(1, 3);
        if restarted {
            grown = grown.restarted();
        }
        let file = grown.file().to_vec();
        let fails = SYNC[3..].to_owned();
        grown.world.rules.fail_disk.push((0, fails, io()));
        let order = grown.order(0, 7);
        assert_eq!(grown.refused(order), Status::LocalIo);
        assert_eq!(
            grown.written(),
            [SYNC, &spoil(Slot::B)][..1],
            "a header is not written, and none is spoiled"
        );
        assert_eq!(grown.file(), file);
        assert_eq!(grown.world.status(0).chunks_writing, 0);
        // A disk that fails again is seen when it is sealed for the next try, which goes on without it.
        let fails = SYNC[3..].to_owned();
        grown.world.rules.fail_disk.push((0, fails, io()));
        let (sealed, _) = grown.world.seal_chunk(0, C, Unsynced::Kept);
        assert_eq!(sealed.unwrap_err().status, Status::LocalIo);
        let (sealed, _) = grown.world.seal_chunk(0, C, Unsynced::Dropped);
        assert_eq!(sealed.unwrap_err().status, Status::LocalIo);
        grown.assert_holds();
        let mut grown = grown.restarted();
        assert_eq!(grown.world.header(0, C).wseq, grown.at);
        grown.assert_holds();
        grown.raise(8);
        grown.assert_holds();
    }
}

#[test]
fn a_page_that_a_failed_sync_may_have_dropped_from_its_place_is_not_let_go_of() {
    let mut grown = Grown::with_redo(1);
    let fails = SYNC[3..].to_owned();
    grown.world.rules.fail_disk.push((0, fails, io()));
    let order = grown.order(0, 7);
    assert_eq!(grown.refused(order.clone()), Status::LocalIo);
    // Such a disk drops what it could not write, and says next time that all is well.
    let at = usize::try_from(HEADER_BYTES).unwrap() + 3 * LEN;
    grown.world.servers[0].disk.get_mut(PATH)[at..at + LEN].fill(0);
    assert_eq!(grown.refused(order), Status::NotServed);
    assert!(grown.world.header(0, C).redo.len() == 1, "it is needed");
    assert_eq!(grown.world.header(0, C).wseq, grown.at);
    let mut grown = grown.restarted();
    grown.assert_holds();
    grown.raise(8);
    grown.assert_holds();
}

#[test]
fn a_page_that_is_not_in_its_place_is_not_let_go_of() {
    let mut grown = Grown::begun(1, 3);
    grown.append(1);
    let place = format!("write {PATH} {HEADER_BYTES}+");
    grown.world.rules.fail_disk.push((0, place, io()));
    grown.synced();
    let (sealed, _) = grown.world.seal_chunk(0, C, Unsynced::Dropped);
    assert_eq!(sealed.unwrap_err().status, Status::LocalIo);
    grown.quiet();
    let order = grown.order(0, 7);
    assert_eq!(grown.refused(order), Status::NotServed);
    assert_eq!(grown.world.damage(), [(0, C, None)]);
    assert!(grown.world.header(0, C).redo.len() == 1);
    assert!(grown.world.traced("8192 sync").is_empty());
    let mut grown = grown.restarted();
    grown.assert_holds();
}

#[test]
fn the_next_session_writes_behind_what_is_there_and_its_syncs_say_what_all_of_it_is() {
    for servers in [1, 3] {
        for (redo, pieces) in [(false, 3), (false, 10), (true, 0)] {
            let mut grown = if redo {
                Grown::with_redo(servers)
            } else {
                Grown::at_rest(servers, pieces)
            };
            grown.raise(7);
            let raised = grown.at;
            grown.assert_header(raised);
            grown.assert_holds();
            // The page in which it ended is written further, past its edge, and past its block.
            for pieces in [1, 2, 9, 20] {
                grown.append(pieces);
                grown.synced();
                grown.assert_header(grown.at);
                grown.assert_holds();
            }
            assert_eq!(grown.at.0, raised.0 + 32);
            let header = grown.world.header(0, C);
            let entries = header.pieces.iter();
            let entries: Vec<_> = entries.map(|entry| (entry.session, entry.last)).collect();
            assert_eq!(entries, [(grown.session, PieceNumber(grown.at.0))]);
            for server in grown.servers.clone() {
                let log = grown.durable();
                grown.world.power_cycle(server, C, log);
            }
            grown.assert_header(grown.at);
            grown.assert_holds();
            assert_eq!(grown.world.damage(), []);
        }
    }
}

#[test]
fn what_the_next_session_wrote_and_no_sync_covered_tears_nothing_of_what_was_there() {
    for redo in [false, true] {
        let mut grown = if redo {
            Grown::with_redo(1)
        } else {
            Grown::at_rest(1, 3)
        };
        grown.raise(7);
        let (raised, whole) = (grown.durable(), grown.whole.clone());
        grown.append(12);
        // All that is written in its place comes to the disk, and is torn there.
        let end = usize::try_from(HEADER_BYTES + raised.len).unwrap();
        let mut file = grown.file().to_vec();
        file[end..].fill(0xEE);
        grown.whole = whole;
        assert_eq!(grown.assert_found(&file, raised), raised.wseq);
    }
}

#[test]
fn a_piece_of_the_session_before_is_not_taken_any_more() {
    let mut grown = Grown::at_rest(2, 3);
    let (link, late) = (grown.link, {
        let len = grown.whole.len() as u64;
        grown.piece(len, &bytes(LEN, 99))
    });
    grown.raise(7);
    grown.world.send(0, link, late);
    grown.world.run();
    let done = grown.world.piece_done(4).unwrap();
    assert_eq!(done.unwrap_err().status, Status::BadRequest);
    assert!(grown.written().is_empty());
    grown.append(2);
    grown.synced();
    grown.assert_holds();
}

#[test]
fn a_chunk_is_taken_over_again_and_again() {
    let mut grown = Grown::at_rest(2, 3);
    for tenure in 1..=4 {
        grown.raise(6 + tenure);
        assert_eq!(grown.at, WriteSeq(tenure << 40));
        if tenure % 2 == 0 {
            grown.append(tenure);
            grown.synced();
        }
        let unsynced = if tenure < 3 {
            Unsynced::Kept
        } else {
            Unsynced::Dropped
        };
        grown.seal(unsynced);
        grown.assert_header(grown.at);
        grown.assert_holds();
    }
    for server in 0..2 {
        let log = grown.durable();
        grown.world.power_cycle(server, C, log);
    }
    grown.assert_header(grown.at);
    grown.assert_holds();
}

#[test]
fn an_order_to_raise_that_comes_again_is_answered_at_once_and_writes_nothing() {
    let mut grown = Grown::at_rest(1, 3);
    let order = grown.order(0, 7);
    grown.raise(7);
    grown.append(1);
    grown.world.trace.clear();
    assert_eq!(grown.world.resume_with(0, order.clone()), Ok(()));
    assert!(grown.world.traced(PATH).is_empty());
    grown.append(1);
    grown.synced();
    grown.assert_holds();
    // Once that chain is over it is an order of the past.
    grown.seal(Unsynced::Dropped);
    let file = grown.file().to_vec();
    assert_eq!(grown.refused(order), Status::ChainBroken);
    assert_eq!(grown.file(), file);
}

#[test]
fn an_order_that_comes_while_a_replica_is_raised_for_another_one_is_told_to_come_again() {
    for held in held_steps() {
        let mut grown = Grown::at_rest(1, 3);
        let order = grown.order(0, 7);
        grown.hold(&held);
        grown.begin(&order);
        assert!(grown.world.holds(&held[3..]), "{held}");
        let next = grown.order(0, 8);
        let others = ResumeChunk {
            raised: None,
            ..grown.order(0, 9)
        };
        for order in [&next, &others, &order] {
            grown.begin(order);
        }
        let busy = Err(Status::Busy);
        assert_eq!(grown.resumes_said(), [(8, busy), (9, busy), (7, busy)]);
        grown.world.forget_heard();
        grown.world.let_go(&held[3..]);
        assert_eq!(grown.resumes_said(), [(7, Ok(()))], "{held}");
        assert_eq!(grown.written(), [SYNC, &header_write(Slot::B)]);
        assert_eq!(grown.refused(next), Status::Exists);
        grown.taken_over(&order);
        grown.append(1);
        grown.synced();
        grown.assert_holds();
    }
}

#[test]
fn an_order_to_raise_that_comes_while_the_file_is_read_for_an_older_one_is_the_one_that_is_followed()
 {
    for held in [READ_HEADER, READ_BLOCK] {
        let mut grown = Grown::at_rest(1, 3);
        grown.hold(held);
        let older = ResumeChunk {
            raised: None,
            ..grown.order(0, 7)
        };
        grown.begin(&older);
        assert!(grown.world.holds(&held[3..]));
        let mut order = grown.order(0, 8);
        order.session = SessionId(99);
        grown.begin(&order);
        assert_eq!(grown.resumes_said(), []);
        grown.world.let_go(&held[3..]);
        assert_eq!(grown.resumes_said(), [(8, Ok(()))]);
        assert_eq!(grown.written(), [SYNC, &header_write(Slot::B)]);
        assert_eq!(grown.world.header(0, C).wseq, order.raised.unwrap());
        grown.taken_over(&order);
        grown.append(1);
        grown.synced();
        grown.assert_holds();
    }
}

#[test]
fn a_replica_that_is_at_another_write_is_not_raised() {
    let mut grown = Grown::at_rest(1, 3);
    let file = grown.file().to_vec();
    let order = grown.order(0, 7);
    let tenure = 1 << 40;
    for (from, to) in [(0, 2), (4, 9), (tenure, tenure), (tenure + 3, tenure + 3)] {
        let order = ResumeChunk {
            from: WriteSeq(from),
            to: WriteSeq(to),
            raised: WriteSeq(to).taken_over(),
            ..order.clone()
        };
        assert_eq!(grown.refused(order), Status::ChainBroken, "{from} to {to}");
    }
    assert!(grown.written().is_empty());
    assert_eq!(grown.file(), file);
    // Nor one that was raised already, by an order to those that were not.
    grown.raise(7);
    grown.seal(Unsynced::Dropped);
    let file = grown.file().to_vec();
    let order = ResumeChunk {
        chain: ChainId(8),
        ..order
    };
    assert_eq!(grown.refused(order), Status::ChainBroken);
    assert_eq!(grown.file(), file);
}

#[test]
fn a_replica_whose_last_block_rotted_is_not_raised_and_is_reported() {
    for redo in [false, true] {
        let mut grown = if redo {
            Grown::with_redo(1)
        } else {
            Grown::at_rest(1, 10)
        };
        let last = (grown.whole.len() - 1) / 256;
        let at = usize::try_from(HEADER_BYTES).unwrap() + last * 256 + 7;
        grown.world.servers[0].disk.get_mut(PATH)[at] ^= 1;
        let order = grown.order(0, 7);
        assert_eq!(grown.refused(order), Status::Corrupt);
        let last = u32::try_from(last).unwrap();
        assert_eq!(grown.world.damage(), [(0, C, Some(last))]);
        assert_eq!(grown.written(), [SYNC]);
        assert_eq!(grown.world.status(0).chunks_writing, 0);
    }
}

#[test]
fn a_replica_whose_newest_header_rotted_is_not_raised_and_is_reported() {
    for both in [false, true] {
        // An older header stands in the other slot.
        let mut grown = Grown::begun(1, 3);
        grown.seal(Unsynced::Dropped);
        let file = grown.world.servers[0].disk.get_mut(PATH);
        file[SLOT_BYTES + 100] ^= 1;
        if both {
            file[100] ^= 1;
        }
        let order = grown.order(0, 7);
        assert_eq!(grown.refused(order), Status::NotServed, "both: {both}");
        assert_eq!(grown.world.damage(), [(0, C, None)]);
        assert_eq!(grown.written(), [SYNC]);
        let log = grown.durable();
        let refusal = grown.world.read_at(0, C, (0, 10), log).unwrap_err();
        assert_eq!(refusal.status, Status::NotServed);
    }
    // The same one does: what rotted is written over.
    let mut grown = Grown::at_rest(1, 3);
    grown.world.servers[0].disk.get_mut(PATH)[100] ^= 1;
    grown.raise(7);
    let [raised, before] = &grown.world.slots(0, C)[..] else {
        panic!("two slots are valid")
    };
    assert_eq!((raised.wseq, before.wseq), (grown.at, WriteSeq(3)));
    grown.append(2);
    grown.synced();
    grown.assert_holds();
}

#[test]
fn a_server_that_stops_raises_nothing_and_one_that_is_told_to_in_the_midst_takes_no_pieces() {
    let mut grown = Grown::at_rest(1, 3);
    let order = grown.order(0, 7);
    let file = grown.file().to_vec();
    grown.world.call(0, 1, Call::Stop);
    assert_eq!(grown.refused(order), Status::Busy);
    assert!(grown.written().is_empty());
    assert_eq!(grown.file(), file);
    for held in [SYNC.to_owned(), header_write(Slot::B)] {
        let mut grown = Grown::at_rest(1, 3);
        let before = grown.durable();
        let order = grown.order(0, 7);
        grown.hold(&held);
        grown.begin(&order);
        grown.world.call(0, 1, Call::Stop);
        grown.world.run();
        grown.world.let_go(&held[3..]);
        assert_eq!(grown.resumes_said(), [(7, Err(Status::Busy))], "{held}");
        assert_eq!(grown.world.status(0).chunks_writing, 0);
        let at = grown.assert_found(grown.file(), before);
        let has_raised = held != SYNC;
        assert_eq!(at == order.raised.unwrap(), has_raised, "{held}");
    }
}

#[test]
fn a_replica_that_the_disk_still_writes_is_not_raised() {
    let mut grown = Grown::begun(1, 3);
    let held = "0: write chunks/1000.5.9 16";
    grown.hold(held);
    let msg = grown.piece(512, &bytes(LEN, 1));
    grown.world.send(0, grown.link, msg);
    grown.world.run();
    let (busy, _) = grown.world.seal_chunk(0, C, Unsynced::Dropped);
    assert_eq!(busy.unwrap_err().status, Status::Busy);
    grown.quiet();
    let order = grown.order(0, 7);
    assert_eq!(grown.refused(order), Status::Busy);
    assert!(grown.written().is_empty());
    grown.world.let_go(&held[3..]);
    grown.seal(Unsynced::Dropped);
    grown.raise(7);
    grown.append(1);
    grown.synced();
    grown.assert_holds();
}

#[test]
fn a_replica_that_takes_pieces_is_not_raised_under_its_session() {
    let mut grown = Grown::begun(1, 3);
    let order = grown.order(0, 7);
    assert_eq!(grown.refused(order), Status::Exists);
    grown.append(1);
    grown.synced();
    grown.assert_holds();
}

#[test]
fn an_order_to_seal_or_to_copy_that_comes_while_a_replica_is_raised_does_not_disturb_it() {
    for held in held_steps() {
        let mut grown = Grown::at_rest(2, 3);
        let order = grown.order(0, 7);
        grown.hold(&held);
        grown.begin(&order);
        for unsynced in [Unsynced::Kept, Unsynced::Dropped] {
            let (busy, _) = grown.world.seal_chunk(0, C, unsynced);
            assert_eq!(busy.unwrap_err().status, Status::Busy, "{held}");
        }
        let has = grown.durable();
        let more = Durable {
            wseq: has.wseq.next(),
            ..has
        };
        for has in [has, more] {
            assert_eq!(grown.copied(has), Err(Status::Busy), "{held}");
        }
        grown.world.forget_heard();
        grown.world.let_go(&held[3..]);
        assert_eq!(grown.resumes_said(), [(7, Ok(()))], "{held}");
        assert_eq!(grown.written(), [SYNC, &header_write(Slot::B)]);
        let order = grown.order(1, 7);
        assert_eq!(grown.world.resume_with(1, order.clone()), Ok(()));
        grown.taken_over(&order);
        grown.append(2);
        grown.synced();
        grown.assert_holds();
    }
}

#[test]
fn a_copy_that_was_raised_for_nothing_is_raised_again_with_the_others_and_not_stuck_in_its_chain() {
    let mut grown = Grown::at_rest(2, 3);
    let order = grown.order(0, 7);
    assert_eq!(grown.world.resume_with(0, order.clone()), Ok(()));
    // The second one was not raised, and the first is no member: it is to have a copy, and has it.
    let (before, raised) = (grown.durable(), order.raised.unwrap());
    let has = Durable {
        wseq: raised,
        ..before
    };
    assert_eq!(grown.copied(before), Ok(has));
    assert_eq!(grown.world.status(0).chunks_writing, 0);
    grown.quiet();
    for server in [0, 1] {
        let order = ResumeChunk {
            to: raised,
            raised: raised.taken_over(),
            ..grown.order(server, 8)
        };
        assert_eq!(grown.world.resume_with(server, order.clone()), Ok(()));
        if server == 1 {
            grown.taken_over(&order);
        }
    }
    grown.append(2);
    grown.synced();
    grown.assert_holds();
}

#[test]
fn a_replica_is_not_raised_to_a_write_that_it_has_passed() {
    let mut grown = Grown::at_rest(1, 3);
    for raised in [2, 3] {
        let order = ResumeChunk {
            raised: Some(WriteSeq(raised)),
            ..grown.order(0, 7)
        };
        assert_eq!(grown.refused(order), Status::BadRequest);
    }
    assert!(grown.written().is_empty());
}

impl Grown {
    /// Orders the first server to copy the replica of the second, which is said to have this.
    fn copied(&mut self, has: Durable) -> Result<Durable, Status> {
        self.world.copies(0, C, 1, has);
        let said = self.world.meta.heard.iter();
        let mut said = said.filter_map(|(_, msg)| match &msg.head {
            Head::ChunkCopied(said) => Some(said.outcome.clone()),
            _ => None,
        });
        let said = said.next().expect("an order is answered");
        said.map(|content| content.durable)
            .map_err(|refusal| refusal.status)
    }
}

#[test]
fn what_a_seal_writes_does_not_come_between_while_a_replica_is_raised() {
    // One slot has the header, and a seal would write the other; and one would let go of the page.
    let makes: [fn() -> Grown; 2] = [
        || {
            let mut grown = Grown::begun(1, 3);
            grown.seal(Unsynced::Dropped);
            grown
        },
        || Grown::with_redo(1),
    ];
    for make in makes {
        for held in [READ_HEADER, READ_BLOCK] {
            let mut grown = make();
            let generation = grown.world.header(0, C).generation;
            let before = grown.durable();
            let order = grown.order(0, 7);
            grown.hold(held);
            grown.begin(&order);
            assert!(grown.world.holds(&held[3..]));
            grown.world.rules.hold_disk.clear();
            let (busy, _) = grown.world.seal_chunk(0, C, Unsynced::Kept);
            assert_eq!(busy.unwrap_err().status, Status::Busy, "{held}");
            let write = header_write(Slot::of(generation + 1));
            grown.hold(&write);
            grown.world.let_go(&held[3..]);
            // Its slot is torn now, and what was not durable before is gone.
            let mut file = grown.world.servers[0].disk.durable(PATH).to_vec();
            let torn = Slot::of(generation + 1).offset();
            file[torn..torn + 512].fill(0xEE);
            grown.assert_found(&file, before);
            grown.world.let_go(&write[3..]);
            assert_eq!(grown.resumes_said(), [(7, Ok(()))], "{held}");
            assert_eq!(grown.written(), [SYNC, &write]);
            assert_eq!(grown.world.damage(), [], "nothing is bad");
            grown.taken_over(&order);
            grown.append(1);
            grown.synced();
            grown.assert_holds();
        }
    }
}

#[test]
fn a_replica_that_is_deleted_while_it_is_raised_takes_no_pieces() {
    for held in [SYNC.to_owned(), header_write(Slot::B)] {
        let mut grown = Grown::at_rest(1, 3);
        let order = grown.order(0, 7);
        grown.hold(&held);
        grown.begin(&order);
        let delete = DeleteChunks {
            term: grown.world.term(0),
            chunks: vec![(C, VERSION)],
        };
        grown.world.order(0, delete);
        grown.world.run();
        grown.world.let_go(&held[3..]);
        assert_eq!(grown.resumes_said(), [(7, Err(Status::NotServed))]);
        grown.world.let_go("rename");
        assert_eq!(grown.world.status(0).chunks_writing, 0);
        assert!(grown.world.servers[0].disk.get(PATH).is_none());
        let (sealed, _) = grown.world.seal_chunk(0, C, Unsynced::Kept);
        assert_eq!(sealed.unwrap_err().status, Status::NotServed);
    }
}

#[test]
fn a_replica_whose_meta_server_went_away_while_it_was_raised_says_to_the_next_one_what_it_is() {
    let mut grown = Grown::at_rest(1, 3);
    let log = grown.durable();
    let verdict = Verdict::Keep { log };
    grown.world.meta.verdicts.insert((C, VERSION), verdict);
    let order = grown.order(0, 7);
    let write = header_write(Slot::B);
    grown.hold(&write);
    grown.begin(&order);
    grown.world.cut_meta(0);
    grown.world.run();
    grown.world.let_go(&write[3..]);
    // Another one may come before it is done, and after.
    for _ in 0..2 {
        grown.world.pass(Duration::from_secs(5));
        grown.world.cut_meta(0);
    }
    grown.world.pass(Duration::from_secs(5));
    let (item, header) = (
        grown.world.inventory_said(0, C).unwrap(),
        grown.world.header(0, C),
    );
    assert_eq!(item.wseq, order.raised.unwrap());
    assert_eq!(item.digest, header.digest(GEOMETRY));
    assert_eq!(item.state, ReplicaState::Writing);
    let (sealed, _) = grown.world.seal_chunk(0, C, Unsynced::Kept);
    let raised = order.raised.unwrap();
    assert_eq!(sealed.map(|has| has.wseq), Ok(raised));
    grown.at = raised;
    grown.raise(8);
    grown.append(1);
    grown.synced();
    grown.assert_holds();
}

#[test]
fn what_is_there_is_read_all_the_time_while_a_replica_is_raised() {
    for held in [SYNC.to_owned(), header_write(Slot::B)] {
        for redo in [false, true] {
            let mut grown = if redo {
                Grown::with_redo(1)
            } else {
                Grown::at_rest(1, 3)
            };
            let order = grown.order(0, 7);
            grown.hold(&held);
            grown.begin(&order);
            grown.assert_holds();
            grown.world.let_go(&held[3..]);
            // As far as the log says that it is: that is behind.
            grown.assert_holds();
            grown.taken_over(&order);
            grown.assert_holds();
        }
    }
}

/// A chunk that two servers have, of which all that is not durable is in the page cache still, and whose writer is not
/// heard of again: another session takes it over.
fn left_behind(mut grown: Grown, before: Durable, whole: Vec<u8>) -> Grown {
    (grown.at, grown.whole) = (before.wseq, whole);
    let verdict = Verdict::Keep { log: before };
    grown.world.meta.verdicts.insert((C, VERSION), verdict);
    for server in grown.servers.clone() {
        grown.world.restart(server);
    }
    grown.quiet();
    grown.raise(7);
    grown
}

#[test]
fn bytes_that_no_sync_covered_are_not_in_a_gap_that_the_next_session_leaves() {
    for gap in [1, 200, 420, 600, 1_000, 1_500, 3_400] {
        let mut grown = Grown::begun(2, 3);
        let (before, whole) = (grown.durable(), grown.whole.clone());
        // Written on every server, and synced on none.
        grown.append(100);
        let mut grown = left_behind(grown, before, whole);
        grown.whole.resize(grown.whole.len() + gap, 0);
        grown.append(1);
        grown.synced();
        grown.assert_holds();
        grown.append(2);
        grown.synced();
        grown.seal(Unsynced::Kept);
        grown.assert_holds();
        grown.raise(8);
        grown.append(4);
        grown.synced();
        grown.assert_holds();
        assert_eq!(grown.world.damage(), [], "gap: {gap}");
    }
}

#[test]
fn bytes_that_no_sync_covered_are_not_in_a_hole_that_is_written_in_part() {
    let block = GEOMETRY.block_bytes as usize;
    for from in [0, 100, block - LEN] {
        let mut grown = Grown::begun(2, 3);
        grown.whole.resize(3 * block, 0);
        grown.append(1);
        grown.synced();
        let (before, whole) = (grown.durable(), grown.whole.clone());
        let hole = |grown: &mut Grown, offset: usize, body: &Bytes| {
            let msg = grown.piece(offset as u64, body);
            grown.world.send(0, grown.link, msg);
            grown.world.run();
            grown.at = grown.at.next();
            assert_eq!(grown.world.piece_done(grown.at.0), Some(Ok(())));
            grown.whole[offset..offset + body.len()].copy_from_slice(body);
        };
        hole(&mut grown, block, &bytes(block, 5));
        let mut grown = left_behind(grown, before, whole);
        hole(&mut grown, block + from, &bytes(LEN, 6));
        grown.synced();
        grown.assert_holds();
        grown.seal(Unsynced::Kept);
        grown.assert_holds();
        assert_eq!(grown.world.damage(), [], "from: {from}");
    }
}
