//! A file is cut in a chunk: its replicas end there, and what their disks have behind it is never read again.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use bytes::Bytes;
use chunk_rig::*;
use kfs_core::block::Sums;
use kfs_core::chunk::header::{SLOT_BYTES, Slot};
use kfs_core::ids::*;
use kfs_core::limits::HEADER_BYTES;
use kfs_core::machine::DiskError;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::{Msg, Status};

const C: ChunkId = ChunkId(5);
const PATH: &str = "chunks/1000.5.9";
const BLOCK: u64 = GEOMETRY.block_bytes as u64;

/// A chunk on some servers, and what is to be read of it.
struct Chunk {
    world: World,
    servers: Vec<usize>,
    link: LinkId,
    session: SessionId,
    at: WriteSeq,
    whole: Vec<u8>,
    chain: u64,
}

impl Chunk {
    fn new(servers: usize) -> Self {
        let mut world = World::up(servers);
        let servers: Vec<_> = (0..servers).collect();
        world.create(&servers, C);
        let link = world.client(0);
        Self {
            world,
            servers,
            link,
            session: SESSION,
            at: WriteSeq(0),
            whole: Vec::new(),
            chain: 7,
        }
    }
    /// One that has so many bytes, synced.
    fn of(servers: usize, len: usize) -> Self {
        let mut chunk = Self::new(servers);
        chunk.write(0, len, 1);
        chunk.sync();
        chunk
    }
    fn durable(&self) -> Durable {
        Durable {
            len: self.whole.len() as u64,
            wseq: self.at,
        }
    }
    fn piece(&self, offset: u64, body: &Bytes) -> Msg {
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
    fn write(&mut self, offset: u64, len: usize, salt: u8) {
        let mut at = offset;
        let end = offset + len as u64;
        while at < end {
            let piece = u64::from(GEOMETRY.piece_bytes).min(end - at);
            let body = bytes(usize::try_from(piece).unwrap(), salt);
            let msg = self.piece(at, &body);
            self.world.send(0, self.link, msg);
            self.world.run();
            self.at = self.at.next();
            assert_eq!(self.world.piece_done(self.at.0), Some(Ok(())), "at {at}");
            let from = usize::try_from(at).unwrap();
            self.whole
                .resize(self.whole.len().max(from + body.len()), 0);
            self.whole[from..from + body.len()].copy_from_slice(&body);
            at += piece;
        }
    }
    fn sync(&mut self) {
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
        self.world.forget_heard();
        self.world.trace.clear();
    }
    /// The order to cut it here.
    fn order(&self, server: usize, cut: u64) -> ResumeChunk {
        let at = self.at.0;
        let order = self
            .world
            .resume_order(server, &self.servers, C, self.chain, (at, at));
        ResumeChunk {
            session: SessionId(self.session.0 + 1),
            raised: self.at.taken_over(),
            cut: Some(cut),
            ..order
        }
    }
    /// All are cut here, and another session writes it.
    fn cut(&mut self, cut: u64) {
        self.seal(Unsynced::Kept);
        for server in self.servers.clone() {
            let order = self.order(server, cut);
            assert_eq!(self.world.resume_with(server, order), Ok(()), "at {cut}");
        }
        self.is_cut(cut);
    }
    fn is_cut(&mut self, cut: u64) {
        let order = self.order(0, cut);
        self.chain += 1;
        self.at = order.raised.unwrap();
        self.session = order.session;
        self.link = self.world.client(0);
        self.world.run();
        self.whole
            .truncate(usize::try_from(cut).unwrap().min(self.whole.len()));
    }
    /// Every server serves all of it.
    fn assert_holds(&mut self, case: &str) {
        let log = self.durable();
        for server in self.servers.clone() {
            for (nth, part) in self.whole.clone().chunks(1_024).enumerate() {
                let range = (nth as u64 * 1_024, u32::try_from(part.len()).unwrap());
                let read = self.world.read_at(server, C, range, log);
                let read = read.unwrap_or_else(|refusal| panic!("server {server}: {refusal}"));
                assert_eq!(read, part, "server {server}, {case}, part {nth}");
            }
            assert_eq!(self.world.header(server, C).len, log.len, "{case}");
        }
        assert_eq!(self.world.damage(), [], "{case}");
    }
    /// As [`Self::assert_holds`], also when all lose power, and start again.
    fn assert_stays(&mut self, case: &str) {
        self.assert_holds(case);
        for server in self.servers.clone() {
            let log = self.durable();
            self.world.power_cycle(server, C, log);
        }
        self.assert_holds(&format!("{case}, after a loss of power"));
    }
    /// What a server makes of this file when it starts: which write it is at.
    fn found(&self, file: &[u8], log: Durable, whole: &[u8]) -> WriteSeq {
        let mut world = World::up(1);
        world.servers[0].disk.put(PATH, file);
        let verdict = Verdict::Keep { log };
        world.meta.verdicts.insert((C, VERSION), verdict);
        world.restart(0);
        let item = world.inventory_said(0, C).unwrap();
        let link = world.client(0);
        let mut found = Self {
            world,
            servers: vec![0],
            link,
            session: self.session,
            at: item.wseq,
            whole: whole[..usize::try_from(item.len).unwrap()].to_vec(),
            chain: 90,
        };
        found.assert_holds("found by a start");
        item.wseq
    }
}

#[test]
fn nothing_behind_a_cut_is_read_wherever_it_falls() {
    let len = usize::try_from(5 * BLOCK + 100).unwrap();
    for servers in [1, 3] {
        for cut in [
            1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            3 * BLOCK + 200,
            5 * BLOCK,
            5 * BLOCK + 99,
        ] {
            let mut chunk = Chunk::of(servers, len);
            let before = chunk.durable();
            chunk.cut(cut);
            chunk.assert_stays(&format!("cut at {cut}"));
            for server in chunk.servers.clone() {
                // Who asks for it as it was is sent away, and so is who asks past the end.
                for log in [
                    before,
                    Durable {
                        len: before.len,
                        ..chunk.durable()
                    },
                ] {
                    let refused = chunk.world.read_at(server, C, (0, 10), log).unwrap_err();
                    assert_eq!(refused.status, Status::NotServed, "cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn a_replica_that_has_less_than_the_cut_stays_as_it_is() {
    for cut in [700, 701, 4_000] {
        let mut chunk = Chunk::of(2, 700);
        chunk.cut(cut);
        chunk.assert_holds(&format!("cut at {cut}"));
        chunk.write(700, 50, 9);
        chunk.sync();
        chunk.assert_stays(&format!("cut at {cut}, written on"));
    }
}

#[test]
fn what_stood_behind_a_cut_is_zeros_when_something_is_written_at_a_distance() {
    let len = usize::try_from(6 * BLOCK).unwrap();
    for cut in [1, 100, BLOCK, BLOCK + 30, 2 * BLOCK + 10] {
        for gap in [0, 1, 100, BLOCK - 30, BLOCK, BLOCK + 200, 3 * BLOCK + 5] {
            let mut chunk = Chunk::of(1, len);
            chunk.cut(cut);
            chunk.write(cut + gap, 40, 7);
            chunk.sync();
            let case = format!("cut at {cut}, written {gap} behind");
            chunk.assert_stays(&case);
            // It goes on there, and what is written later meets nothing of before either.
            let end = chunk.whole.len() as u64;
            chunk.cut(end);
            chunk.write(end + 600, 40, 8);
            chunk.sync();
            chunk.assert_stays(&case);
        }
    }
}

#[test]
fn what_stood_behind_a_cut_is_zeros_when_several_syncs_come_to_it() {
    for cut in [100, BLOCK, BLOCK + 30] {
        let mut chunk = Chunk::of(3, usize::try_from(6 * BLOCK).unwrap());
        chunk.cut(cut);
        for (nth, gap) in [10, 300, 0, 0, BLOCK + 5].into_iter().enumerate() {
            let end = chunk.whole.len() as u64;
            chunk.write(end + gap, 20, u8::try_from(nth).unwrap());
            chunk.sync();
            chunk.assert_holds(&format!("cut at {cut}, write {nth}"));
        }
        chunk.assert_stays(&format!("cut at {cut}"));
    }
}

#[test]
fn a_cut_in_a_hole_is_written_on_from_there() {
    for cut in [2 * BLOCK + 10, 3 * BLOCK] {
        for gap in [0, 20, BLOCK, 2 * BLOCK + 7] {
            let mut chunk = Chunk::new(2);
            chunk.write(0, 300, 1);
            chunk.write(4 * BLOCK, 300, 2);
            chunk.sync();
            chunk.cut(cut);
            let case = format!("cut at {cut}, {gap} behind");
            chunk.assert_stays(&case);
            let mut chunk = Chunk::new(2);
            chunk.write(0, 300, 1);
            chunk.write(4 * BLOCK, 300, 2);
            chunk.sync();
            chunk.cut(cut);
            // Before the end too, where there is a hole.
            if !cut.is_multiple_of(BLOCK) {
                chunk.write(cut - 5, 5, 3);
            }
            chunk.write(cut + gap, 30, 3);
            chunk.sync();
            chunk.assert_holds(&case);
            let end = chunk.whole.len() as u64;
            chunk.write(end + 5, 30, 4);
            chunk.sync();
            chunk.assert_stays(&case);
        }
    }
}

#[test]
fn a_copy_of_a_chunk_that_ends_with_zeros_is_written_further() {
    let mut chunk = Chunk::new(1);
    chunk.write(0, 300, 1);
    // Zeros that were written: a copy has a hole there, in which it ends.
    let zeros = Bytes::from(vec![0; 100]);
    let msg = chunk.piece(2 * BLOCK, &zeros);
    chunk.world.send(0, chunk.link, msg);
    chunk.world.run();
    chunk.at = chunk.at.next();
    chunk
        .whole
        .resize(usize::try_from(2 * BLOCK).unwrap() + 100, 0);
    chunk.sync();
    chunk.seal(Unsynced::Kept);
    let mut other = World::up(2);
    let file = chunk.world.servers[0].disk.get(PATH).unwrap().to_vec();
    other.servers[0].disk.put(PATH, &file);
    let verdict = Verdict::Keep {
        log: chunk.durable(),
    };
    other.meta.verdicts.insert((C, VERSION), verdict);
    other.restart(0);
    other.copies(1, C, 0, chunk.durable());
    assert_eq!(other.header(1, C).sums.len(), 2);
    let copy = other.servers[1].disk.get(PATH).unwrap().to_vec();
    let mut world = World::up(1);
    world.servers[0].disk.put(PATH, &copy);
    world.meta.verdicts.insert((C, VERSION), verdict);
    world.restart(0);
    chunk.link = world.client(0);
    chunk.world = world;
    let end = chunk.whole.len() as u64;
    chunk.cut(end);
    chunk.write(end + 20, 60, 4);
    chunk.sync();
    chunk.assert_stays("a copy");
}

#[test]
fn power_that_goes_at_any_moment_of_a_cut_leaves_all_or_what_was_to_stay() {
    for cut in [100, BLOCK, BLOCK + 30] {
        let mut chunk = Chunk::of(1, usize::try_from(3 * BLOCK + 100).unwrap());
        // Its last page is written a second time, so that it stands elsewhere too.
        chunk.write(3 * BLOCK + 100, 20, 5);
        chunk.sync();
        chunk.seal(Unsynced::Dropped);
        let (whole, before) = (chunk.whole.clone(), chunk.at);
        let log = Durable {
            len: cut,
            wseq: before,
        };
        let slot = Slot::of(chunk.world.header(0, C).generation + 1);
        let write = format!("write {PATH} {}+{SLOT_BYTES} sync", slot.offset());
        let durable = |chunk: &Chunk| chunk.world.servers[0].disk.durable(PATH).to_vec();
        let order = chunk.order(0, cut);
        chunk.world.rules.hold_disk = vec![(0, write.clone())];
        chunk.world.order(0, order.clone());
        chunk.world.run();
        let synced = durable(&chunk);
        assert_eq!(chunk.found(&synced, log, &whole), before);
        assert_eq!(chunk.world.resumes_said(0), [], "not before it is durable");
        chunk.world.let_go(&write);
        let after = durable(&chunk);
        let raised = order.raised.unwrap();
        let slot = slot.offset()..slot.offset() + SLOT_BYTES;
        for torn in [8, 512, 4_096, SLOT_BYTES - 8, SLOT_BYTES] {
            let mut file = synced.clone();
            let new = slot.start..slot.start + torn;
            file[new.clone()].copy_from_slice(&after[new]);
            let is_whole = file[slot.clone()] == after[slot.clone()];
            let expected = if is_whole { raised } else { before };
            assert_eq!(chunk.found(&file, log, &whole), expected, "torn at {torn}");
        }
        // What is written then and covered by no sync harms nothing of what stays, whatever comes to the disk.
        chunk.is_cut(cut);
        chunk.write(cut + 3, 2_000, 6);
        let mut file = after.clone();
        let end = usize::try_from(HEADER_BYTES + cut).unwrap();
        file[end..].fill(0xEE);
        assert_eq!(chunk.found(&file, log, &whole), raised);
    }
}

#[test]
fn what_has_rotted_in_the_block_of_the_cut_is_not_made_good() {
    // Before the cut, and behind it.
    for rotten in [BLOCK + 5, BLOCK + 200] {
        let mut chunk = Chunk::of(1, usize::try_from(3 * BLOCK).unwrap());
        chunk.seal(Unsynced::Kept);
        let at = usize::try_from(HEADER_BYTES + rotten).unwrap();
        chunk.world.servers[0].disk.get_mut(PATH)[at] ^= 1;
        let order = chunk.order(0, BLOCK + 100);
        let refused = chunk.world.resume_with(0, order).unwrap_err();
        assert_eq!(refused.status, Status::Corrupt);
        assert_eq!(chunk.world.damage(), [(0, C, Some(1))]);
        assert_eq!(chunk.world.header(0, C).len, 3 * BLOCK, "it is as it was");
    }
    // Elsewhere behind it: nobody needs that.
    let mut chunk = Chunk::of(1, usize::try_from(3 * BLOCK).unwrap());
    chunk.seal(Unsynced::Kept);
    let at = usize::try_from(HEADER_BYTES + 2 * BLOCK + 5).unwrap();
    chunk.world.servers[0].disk.get_mut(PATH)[at] ^= 1;
    chunk.cut(BLOCK + 100);
    chunk.assert_stays("rotten behind the block of the cut");
}

#[test]
fn a_header_that_cannot_be_made_durable_cuts_nothing() {
    let mut chunk = Chunk::of(1, 3_000);
    chunk.seal(Unsynced::Kept);
    let before = chunk.at;
    let slot = Slot::of(chunk.world.header(0, C).generation + 1);
    let write = format!("write {PATH} {}+{SLOT_BYTES} sync", slot.offset());
    let io = DiskError::Io("a bad disk".into());
    chunk.world.rules.fail_durable.push((0, write, io));
    let order = chunk.order(0, 100);
    let refused = chunk.world.resume_with(0, order).unwrap_err();
    assert_eq!(refused.status, Status::LocalIo);
    chunk.assert_holds("as it was");
    let log = chunk.durable();
    chunk.world.power_cycle(0, C, log);
    assert_eq!(chunk.world.header(0, C).wseq, before);
    chunk.assert_holds("as it was, after a loss of power");
}

#[test]
fn a_reader_that_comes_while_a_replica_is_cut_does_not_make_it_count_as_rotted() {
    let mut chunk = Chunk::of(1, 3_000);
    chunk.seal(Unsynced::Kept);
    let log = chunk.durable();
    chunk.world.restart(0);
    let verdict = Verdict::Keep { log };
    chunk.world.meta.verdicts.insert((C, VERSION), verdict);
    chunk.world.restart(0);
    let slot = Slot::of(chunk.world.header(0, C).generation + 1);
    let write = format!("write {PATH} {}+{SLOT_BYTES} sync", slot.offset());
    // Written and durable, and nobody has heard of it.
    chunk.world.rules.late_disk = vec![(0, write.clone())];
    let order = chunk.order(0, 100);
    chunk.world.order(0, order);
    chunk.world.run();
    chunk.is_cut(100);
    let reader = chunk.world.client(0);
    chunk.world.ask_at(0, reader, C, (0, 50), log);
    chunk.world.run();
    assert_eq!(chunk.world.damage(), []);
    chunk.world.let_go(&write);
    chunk.world.run();
    chunk.assert_stays("read while it was cut");
}

#[test]
fn an_order_to_cut_that_cannot_be_is_refused_and_changes_nothing() {
    let mut chunk = Chunk::of(1, 3_000);
    chunk.seal(Unsynced::Kept);
    for cut in [0, GEOMETRY.chunk_bytes() + 1] {
        let order = chunk.order(0, cut);
        let refused = chunk.world.resume_with(0, order).unwrap_err();
        assert_eq!(refused.status, Status::BadRequest);
    }
    chunk.assert_holds("as it was");
    // Who is not raised is not cut: anybody could not tell it from one that is not.
    let order = ResumeChunk {
        raised: None,
        session: SESSION,
        ..chunk.order(0, 100)
    };
    assert_eq!(chunk.world.resume_with(0, order), Ok(()));
    assert_eq!(chunk.world.header(0, C).len, 3_000);
}
