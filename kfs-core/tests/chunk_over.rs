//! Bytes are written over, synced ones too: no crash leaves anything but what a sync has covered, or what comes after it.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use bytes::Bytes;
use chunk_rig::*;
use kfs_core::chunk::over;
use kfs_core::ids::*;
use kfs_core::limits::HEADER_BYTES;
use kfs_core::rng::Rng;
use kfs_core::wire::Status;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;

const C: ChunkId = ChunkId(5);
const FILE: &str = "chunks/1000.5.9";
const CHUNK: usize = 4_096;
const BLOCK: usize = 256;

/// A chunk on some servers, and what its client has written and what is synced of it.
struct Over {
    world: World,
    link: LinkId,
    head: usize,
    chain: Vec<usize>,
    /// Pieces of the client that no sync covers, in order.
    pieces: Vec<(u64, u64, Bytes)>,
    next: u64,
    whole: Vec<u8>,
    len: usize,
    synced: Vec<u8>,
    durable: Durable,
}

impl Over {
    fn on(servers: usize) -> Self {
        let mut world = World::up(servers);
        let chain: Vec<_> = (0..servers).collect();
        world.create(&chain, C);
        let link = world.client(0);
        Self {
            world,
            link,
            head: 0,
            chain,
            pieces: Vec::new(),
            next: 1,
            whole: vec![0; CHUNK],
            len: 0,
            synced: Vec::new(),
            durable: Durable::default(),
        }
    }
    fn write(&mut self, at: usize, body: &[u8]) {
        let (piece, at64, body) = (self.next, at as u64, Bytes::copy_from_slice(body));
        self.next += 1;
        self.whole[at..at + body.len()].copy_from_slice(&body);
        self.len = self.len.max(at + body.len());
        self.world
            .write(self.head, self.link, C, piece, at64, &body);
        self.pieces.push((piece, at64, body));
    }
    fn written(&mut self) {
        self.world.run();
        for (piece, ..) in &self.pieces {
            assert_eq!(self.world.piece_done(*piece), Some(Ok(())), "piece {piece}");
        }
    }
    fn sync(&mut self) {
        let last = self.next - 1;
        self.world.sync(self.head, self.link, C, last);
        self.world.run();
        self.durable = Durable {
            len: self.len as u64,
            wseq: WriteSeq(last),
        };
        let answered = self.world.syncs_answered();
        assert_eq!(answered.last(), Some(&Ok(self.durable)));
        self.synced = self.whole[..self.len].to_vec();
        self.pieces.clear();
    }
    /// A server serves what was synced last; in a hole perhaps something that was written since.
    fn assert_serves(&mut self, server: usize, when: &str) {
        for at in (0..self.synced.len()).step_by(BLOCK) {
            let end = (at + BLOCK).min(self.synced.len());
            let range = (at as u64, u32::try_from(end - at).unwrap());
            let read = self.world.read_at(server, C, range, self.durable);
            let read = read.unwrap_or_else(|refusal| panic!("{when}, server {server}: {refusal}"));
            let is_hole = self.world.header(server, C).sum(at / BLOCK).is_none();
            let is_newer = is_hole && !self.pieces.is_empty();
            assert!(
                read == self.synced[at..end] || is_newer,
                "{when}, server {server}, at {at}"
            );
        }
    }
    /// Another process finds on what is durable of a disk what was synced.
    fn assert_survives(&mut self, server: usize, when: &str) {
        let mut later = World::up(1);
        let file = self.world.servers[server].disk.durable(FILE).to_vec();
        later.servers[0].disk.put(FILE, &file);
        later.power_cycle(0, C, self.durable);
        let mut over = Self {
            world: later,
            link: self.link,
            head: 0,
            chain: vec![0],
            pieces: Vec::new(),
            next: 0,
            whole: Vec::new(),
            len: 0,
            synced: self.synced.clone(),
            durable: self.durable,
        };
        over.assert_serves(0, when);
        assert_eq!(over.world.damage(), [], "{when}");
    }
    /// The chain ends, and goes on from what all have.
    fn goes_on(&mut self, chain: u64) {
        let sealed: Vec<Durable> = self
            .chain
            .clone()
            .into_iter()
            .map(|server| {
                loop {
                    match self.world.seal_chunk(server, C, Unsynced::Dropped).0 {
                        Ok(durable) => break durable,
                        Err(refusal) => assert_eq!(refusal.status, Status::Busy),
                    }
                    self.world.run();
                }
            })
            .collect();
        let from = sealed.iter().map(|has| has.wseq.0).min().unwrap();
        let to = sealed.iter().map(|has| has.wseq.0).max().unwrap();
        for server in self.chain.clone() {
            let order = self
                .world
                .resume_order(server, &self.chain, C, chain, (from, to));
            self.world.resume_with(server, order).unwrap();
        }
        self.head = self.chain[0];
        self.link = self.world.client(self.head);
        for (piece, at, body) in self.pieces.clone() {
            if piece > from {
                self.world.write(self.head, self.link, C, piece, at, &body);
            }
        }
        self.written();
    }
}

fn piece(rng: &mut Rng) -> (usize, Vec<u8>) {
    let at = match rng.below(3) {
        0 => rng.below(CHUNK / BLOCK) * BLOCK,
        _ => rng.below(CHUNK),
    };
    let len = match rng.below(4) {
        0 => BLOCK * (1 + rng.below(4)),
        _ => 1 + rng.below(300),
    };
    let len = len.min(CHUNK - at).min(1_024);
    let mut body = vec![0; len];
    body.fill_with(|| rng.u64().to_le_bytes()[0]);
    (at, body)
}

#[test]
fn whatever_is_written_over_what_a_sync_covered_is_there_after_every_loss_of_power_on_every_server()
{
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut over = Over::on(3);
        for step in 0..60 {
            let when = format!("seed {seed}, step {step}");
            let (at, body) = piece(&mut rng);
            over.write(at, &body);
            if rng.below(3) == 0 {
                over.written();
            }
            if rng.below(4) == 0 {
                over.sync();
            }
            let server = rng.below(3);
            over.assert_serves(server, &when);
            over.assert_survives(server, &when);
        }
        assert_eq!(over.world.damage(), []);
    }
}

#[test]
fn a_crash_between_any_two_steps_of_a_sync_leaves_the_one_before_or_that_one_whole() {
    for seed in 0..12 {
        // Every disk operation of the sync is held in its turn, and the power goes then.
        for held in 0.. {
            let mut rng = Rng::new(seed);
            let mut over = Over::on(1);
            for _ in 0..6 {
                let (at, body) = piece(&mut rng);
                over.write(at, &body);
            }
            over.written();
            over.sync();
            let before = (over.synced.clone(), over.durable);
            for _ in 0..4 {
                let (at, body) = piece(&mut rng);
                over.write(at, &body);
            }
            over.written();
            over.world.trace.clear();
            over.world.rules.hold_disk_after = Some(held);
            over.world.sync(0, over.link, C, over.next - 1);
            over.world.run();
            over.world.rules.hold_disk_after = None;
            let is_over = !over.world.holds("");
            let when = format!("seed {seed}, {held} steps: {:?}", over.world.trace);
            let last = Durable {
                len: over.len as u64,
                wseq: WriteSeq(over.next - 1),
            };
            let acked = over.world.syncs_answered().last() == Some(&Ok(last));
            over.world.kill(0);
            over.world.lose_held(0);
            over.world.servers[0].disk.power_loss();
            let header_after = over.world.header(0, C);
            assert!(!acked || header_after.wseq == last.wseq, "{when}");
            (over.synced, over.durable) = if header_after.wseq == last.wseq {
                (over.whole[..over.len].to_vec(), last)
            } else {
                before
            };
            let log = over.durable;
            over.world
                .meta
                .verdicts
                .insert((C, VERSION), Verdict::Keep { log });
            over.world.rules.hold_disk.clear();
            over.world.start(0);
            over.world.run();
            over.assert_serves(0, &when);
            assert_eq!(over.world.damage(), [], "{when}");
            if is_over {
                assert!(acked && held > 3, "{when}");
                break;
            }
        }
    }
}

#[test]
fn members_that_were_at_different_syncs_go_on_and_end_equal_whatever_is_written_over() {
    for seed in 0..40 {
        let mut rng = Rng::new(1_000 + seed);
        let mut over = Over::on(3);
        for round in 1..8 {
            for _ in 0..1 + rng.below(4) {
                let (at, body) = piece(&mut rng);
                over.write(at, &body);
            }
            over.written();
            match rng.below(3) {
                0 => over.sync(),
                1 => {
                    // A sync that reaches only some of them.
                    let behind = 1 + rng.below(2);
                    over.world.rules.hold_sends.push((behind - 1, "ChainSync"));
                    over.world.sync(over.head, over.link, C, over.next - 1);
                    over.world.run();
                    over.world.rules.hold_sends.clear();
                }
                _ => {}
            }
            let order = [[0, 1, 2], [2, 0, 1], [1, 2, 0]][rng.below(3)];
            over.chain = order.to_vec();
            over.goes_on(round);
            if over.world.holds("ChainSync") {
                over.world.let_go("ChainSync");
            }
            let (at, body) = piece(&mut rng);
            over.write(at, &body);
            over.written();
            over.sync();
            let when = format!("seed {seed}, round {round}");
            let digests: Vec<_> = (0..3)
                .map(|server| over.world.header(server, C).digest(GEOMETRY))
                .collect();
            assert_eq!(digests, vec![digests[0]; 3], "{when}");
            for server in 0..3 {
                over.assert_serves(server, &when);
                over.assert_survives(server, &when);
            }
        }
        assert_eq!(over.world.damage(), []);
    }
}

#[test]
fn a_read_that_the_disk_has_when_its_block_is_written_over_is_read_again() {
    let mut over = Over::on(1);
    over.write(0, &[1; 200]);
    over.written();
    over.sync();
    over.write(50, &[2; 50]);
    over.written();
    let log = over.durable;
    let reader = over.world.client(0);
    over.world.rules.hold_disk.push((0, "read chunks".into()));
    over.world.inbox.clear();
    over.world.ask_at(0, reader, C, (0, 200), log);
    over.world.run();
    over.world.rules.hold_disk.clear();
    over.sync();
    over.world.let_go("read chunks");
    let answers: Vec<_> = over
        .world
        .inbox
        .iter()
        .filter(|(_, at, _)| *at == reader)
        .collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].2.body, over.whole[..200]);
    assert_eq!(over.world.damage(), []);
}

#[test]
fn a_block_that_rotted_is_not_made_good_by_a_write_over_a_part_of_it() {
    for whole in [false, true] {
        let mut over = Over::on(2);
        over.write(0, &[1; 200]);
        over.write(300, &[2; 50]);
        over.written();
        over.sync();
        let file = over.world.servers[1].disk.get_mut(FILE);
        file[usize::try_from(HEADER_BYTES).unwrap() + 7] ^= 1;
        let len = if whole { 256 } else { 100 };
        over.write(0, &vec![9; len]);
        over.written();
        over.world.sync(0, over.link, C, 3);
        over.world.run();
        let answered = over.world.syncs_answered().last().unwrap().clone();
        if whole {
            assert!(answered.is_ok(), "all of it is new");
            assert_eq!(over.world.damage(), []);
            continue;
        }
        assert_eq!(answered.unwrap_err().status, Status::ChainBroken);
        assert_eq!(over.world.damage(), [(1, C, Some(0))]);
        let before = over.durable;
        assert_eq!(over.world.header(1, C).wseq, before.wseq);
        let read = over.world.read_at(1, C, (0, 10), before).unwrap_err();
        assert_eq!(read.status, Status::Corrupt);
        // The other one has it, or has it not; what it serves is right.
        over.whole[..100].fill(1);
        over.synced = over.whole[..350].to_vec();
    }
}

#[test]
fn a_member_that_missed_a_sync_has_no_more_that_waits_than_a_header_names_when_the_chain_goes_on() {
    let geometry = kfs_core::limits::Geometry {
        block_bytes: 256,
        chunk_blocks: 200,
        piece_bytes: 1_024,
    };
    let mut world = World::up_with(2, geometry);
    world.create(&[0, 1], C);
    let mut link = world.client(0);
    let pieces = |over: u64| over + 1..=over + 50;
    let body = |piece: u64| bytes(1_024, u8::try_from(piece * 3 % 251).unwrap());
    let at = |piece: u64| (piece - 1) % 50 * 1_024;
    for piece in pieces(0) {
        world.write(0, link, C, piece, at(piece), &body(piece));
        world.run();
    }
    world.sync(0, link, C, 50);
    world.run();
    // The head takes a cut by itself when many blocks wait; the other member never hears of it.
    world.rules.hold_sends.push((0, "ChainSync"));
    for piece in 51..=58 {
        world.write(0, link, C, piece, at(piece), &body(piece));
        world.run();
    }
    world.rules.hold_sends.clear();
    let sealed: Vec<u64> = (0..2)
        .map(|server| {
            loop {
                if let Ok(has) = world.seal_chunk(server, C, Unsynced::Dropped).0 {
                    break has.wseq.0;
                }
                world.run();
            }
        })
        .collect();
    assert_eq!(sealed, [58, 50]);
    for server in 0..2 {
        let order = world.resume_order(server, &[0, 1], C, 7, (50, 58));
        world.resume_with(server, order).unwrap();
    }
    link = world.client(0);
    world.let_go("ChainSync");
    for piece in 51..=100 {
        for _ in 0..20 {
            world.write(0, link, C, piece, at(piece), &body(piece));
            world.run();
            if world.piece_done(piece) == Some(Ok(())) {
                break;
            }
        }
        assert_eq!(world.piece_done(piece), Some(Ok(())), "piece {piece}");
    }
    world.sync(0, link, C, 100);
    world.run();
    assert!(matches!(world.syncs_answered().last(), Some(Ok(_))));
    assert_eq!(world.header(0, C).sums, world.header(1, C).sums);
}

#[test]
fn a_head_whose_sync_hangs_takes_no_more_than_the_next_one_covers() {
    let geometry = kfs_core::limits::Geometry {
        block_bytes: 256,
        chunk_blocks: 200,
        piece_bytes: 256,
    };
    let mut world = World::up_with(2, geometry);
    world.create(&[0, 1], C);
    let link = world.client(0);
    let at = |piece: u64| (piece - 1) % 200 * 256;
    for piece in 1..=200 {
        world.write(0, link, C, piece, at(piece), &bytes(256, 1));
        world.run();
    }
    world.sync(0, link, C, 200);
    world.run();
    world.rules.hold_disk.push((0, "sync chunks".into()));
    // 31 are in the sync that hangs, 63 wait for the next one.
    for piece in 201..=294 {
        world.write(0, link, C, piece, at(piece), &bytes(256, 2));
        world.run();
        assert_eq!(world.piece_done(piece), Some(Ok(())), "piece {piece}");
    }
    world.write(0, link, C, 295, at(295), &bytes(256, 2));
    world.run();
    let refusal = world.piece_done(295).unwrap().unwrap_err();
    assert_eq!(refusal.status, Status::Busy, "{refusal}");
    world.let_go("sync chunks");
    world.write(0, link, C, 295, at(295), &bytes(256, 2));
    world.sync(0, link, C, 295);
    world.run();
    assert!(matches!(world.syncs_answered().last(), Some(Ok(_))));
    assert_eq!(world.header(0, C).sums, world.header(1, C).sums);
}

#[test]
fn what_waits_for_syncs_that_do_not_end_is_bounded_and_all_of_it_is_there_when_they_do() {
    let geometry = kfs_core::limits::Geometry {
        block_bytes: 256,
        chunk_blocks: 64,
        piece_bytes: 1_024,
    };
    let mut world = World::up_with(1, geometry);
    let chunks: Vec<_> = (1..=24).map(ChunkId).collect();
    let link = world.client(0);
    let body = |piece: u64| bytes(1_024, u8::try_from(piece * 7 % 250).unwrap());
    for chunk in &chunks {
        world.create(&[0], *chunk);
        for piece in 1..=16 {
            world.write(0, link, *chunk, piece, (piece - 1) * 1_024, &body(piece));
        }
        world.sync(0, link, *chunk, 16);
        world.run();
    }
    world.inbox.clear();
    world.rules.hold_disk.push((0, "sync chunks".into()));
    let mut refused = Vec::new();
    for chunk in &chunks {
        for piece in 17..=32 {
            world.inbox.clear();
            world.write(0, link, *chunk, piece, (piece - 17) * 1_024, &body(piece));
            world.run();
            match world.piece_done(piece).expect("it is answered") {
                Ok(()) => {}
                Err(refusal) => {
                    assert_eq!(refusal.status, Status::Busy);
                    refused.push(*chunk);
                    break;
                }
            }
            assert!(world.servers[0].machine.bounds().waiting <= over::WAITING_OF_ALL_MAX);
        }
    }
    assert!(refused.len() > 4, "some have no room: {refused:?}");
    world.let_go("sync chunks");
    for chunk in &chunks {
        for piece in 17..=32 {
            world.write(0, link, *chunk, piece, (piece - 17) * 1_024, &body(piece));
            world.run();
        }
        world.sync(0, link, *chunk, 32);
        world.run();
        assert_eq!(world.header(0, *chunk).wseq, WriteSeq(32));
    }
    assert_eq!(world.servers[0].machine.bounds().waiting, 0);
    assert_eq!(world.damage(), []);
}

#[test]
fn a_chunk_is_written_over_again_and_again_in_bounded_memory_though_nobody_asks_for_a_sync() {
    let geometry = kfs_core::limits::Geometry {
        block_bytes: 256,
        chunk_blocks: 200,
        piece_bytes: 1_024,
    };
    let mut world = World::up_with(2, geometry);
    world.create(&[0, 1], C);
    let link = world.client(0);
    let all: u64 = 200 * 256;
    let mut piece = 0;
    let mut whole = vec![0; usize::try_from(all).unwrap()];
    for round in 0..4_u8 {
        for nth in 0..all / 1_024 {
            // Every other block of what is there, from one end to the other.
            let at = nth * 1_024;
            piece += 1;
            let body = bytes(
                1_024,
                round
                    .wrapping_mul(50)
                    .wrapping_add(u8::try_from(nth).unwrap()),
            );
            whole[usize::try_from(at).unwrap()..][..1_024].copy_from_slice(&body);
            for _ in 0..50 {
                world.write(0, link, C, piece, at, &body);
                world.run();
                if world.piece_done(piece) == Some(Ok(())) {
                    break;
                }
            }
            assert_eq!(world.piece_done(piece), Some(Ok(())), "piece {piece}");
            for server in 0..2 {
                assert!(world.header(server, C).redo.len() <= 64);
            }
        }
    }
    world.sync(0, link, C, piece);
    world.run();
    assert!(world.syncs_answered()[0].is_ok());
    for server in 0..2 {
        let data = &world.servers[server].disk.get(FILE).unwrap()
            [usize::try_from(HEADER_BYTES).unwrap()..];
        assert_eq!(data[..whole.len()], whole[..]);
    }
    assert_eq!(world.damage(), []);
}
