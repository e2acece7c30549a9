//! A chunk whose chain broke goes on in another: what its members forget, where each begins, what they end with.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use bytes::Bytes;
use chunk_rig::*;
use kfs_core::chunk::Call;
use kfs_core::chunk::header::Header;
use kfs_core::ids::*;
use kfs_core::limits::HEADER_BYTES;
use kfs_core::machine::DiskError;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::{Head, Msg, Refusal, Status};

const C: ChunkId = ChunkId(5);
/// Each piece of a test has so many bytes, and begins in a block that no other has a byte of.
const LEN: usize = 300;

fn offset(piece: u64) -> u64 {
    (piece - 1) * 512
}
fn body(piece: u64) -> Bytes {
    bytes(LEN, u8::try_from(piece).unwrap())
}
/// After so many pieces.
fn durable(pieces: u64) -> Durable {
    Durable {
        len: offset(pieces) + LEN as u64,
        wseq: WriteSeq(pieces),
    }
}
/// The line of the trace in which a server writes a piece.
fn written(server: usize, piece: u64) -> String {
    let at = HEADER_BYTES + offset(piece);
    format!("{server}: write chunks/1000.5.9 {at}+{LEN}")
}

/// Servers up, a chunk on all of them, a client at the head, whose first piece is synced everywhere.
fn synced_once(servers: usize) -> (World, LinkId) {
    let mut world = World::up(servers);
    let chain: Vec<_> = (0..servers).collect();
    world.create(&chain, C);
    let link = world.client(0);
    world.put(0, link, 1..=1);
    world.sync(0, link, C, 1);
    world.run();
    assert_eq!(world.syncs_answered(), [Ok(durable(1))]);
    world.inbox.clear();
    world.trace.clear();
    (world, link)
}

impl World {
    /// Sends pieces to the head.
    fn put(&mut self, head: usize, link: LinkId, pieces: std::ops::RangeInclusive<u64>) {
        for piece in pieces {
            self.write(head, link, C, piece, offset(piece), &body(piece));
            self.run();
        }
    }
    fn seal_as(&mut self, server: usize, unsynced: Unsynced) -> (Result<Durable, Refusal>, bool) {
        self.seal_chunk(server, C, unsynced)
    }
    /// Seals, forgetting what no sync covered.
    fn seal(&mut self, server: usize) -> Result<Durable, Refusal> {
        self.seal_as(server, Unsynced::Dropped).0
    }
    /// All members take pieces again, in chain 7.
    fn resume(&mut self, members: &[usize], within: (u64, u64)) {
        for server in members {
            let order = self.resume_order(*server, members, C, 7, within);
            assert_eq!(self.resume_with(*server, order), Ok(()), "server {server}");
        }
        self.trace.clear();
        self.inbox.clear();
    }
    /// Servers have the same, as they read it themselves and as it is on their disks, up to a piece.
    fn assert_equal(&mut self, servers: &[usize], pieces: u64) {
        for server in servers {
            self.servers[*server].disk.power_loss();
            let header = self.header(*server, C);
            let first = self.header(servers[0], C);
            assert_eq!(
                (header.len, header.wseq),
                (durable(pieces).len, WriteSeq(pieces))
            );
            assert_eq!(header.sums, first.sums, "server {server}");
            assert_eq!(header.pieces, first.pieces, "server {server}");
            assert_eq!(header.pieces[0].last, PieceNumber(pieces));
            let len = u32::try_from(LEN).unwrap();
            for piece in 1..=pieces {
                let read = self.read_at(*server, C, (offset(piece), len), durable(pieces));
                assert_eq!(
                    read.unwrap(),
                    body(piece),
                    "piece {piece} of server {server}"
                );
            }
        }
    }
    fn file(&self, server: usize) -> &[u8] {
        let path = name(C).path();
        self.servers[server].disk.get(path.as_str()).unwrap()
    }
}

/// Two servers; a sync has reached the first and not the second, which has only the first piece, and the link between
/// them is lost. So many pieces are on the first.
fn apart(pieces: u64) -> World {
    let (mut world, link) = synced_once(2);
    world.rules.hold_disk.push((1, "sync chunks/".into()));
    world.put(0, link, 2..=pieces);
    world.sync(0, link, C, pieces);
    world.run();
    world.cut_link(0, 1);
    world.run();
    let refused = world.syncs_answered().pop().unwrap().unwrap_err();
    assert_eq!(refused.status, Status::ChainBroken);
    assert_eq!(world.seal(0), Ok(durable(pieces)));
    let busy = world.seal(1).unwrap_err();
    assert_eq!(busy.status, Status::Busy, "the disk is at work on it");
    world.let_go("sync chunks/");
    assert_eq!(world.seal(1), Ok(durable(1)));
    world
}

#[test]
fn a_member_with_more_and_one_with_less_go_on_in_one_chain_and_end_equal() {
    for members in [[0, 1], [1, 0]] {
        let mut world = apart(3);
        world.resume(&members, (1, 3));
        let link = world.client(members[0]);
        world.put(members[0], link, 2..=5);
        for piece in 2..=5 {
            assert_eq!(world.piece_done(piece), Some(Ok(())), "piece {piece}");
        }
        world.sync(members[0], link, C, 5);
        world.run();
        assert_eq!(world.syncs_answered(), [Ok(durable(5))]);
        for (piece, has) in [(2, true), (3, true), (4, false), (5, false)] {
            assert_eq!(
                world.traced(&written(0, piece)).len(),
                usize::from(!has),
                "piece {piece} is not written twice, in chain {members:?}"
            );
            assert_eq!(world.traced(&written(1, piece)).len(), 1);
        }
        world.assert_equal(&[0, 1], 5);
    }
}

#[test]
fn a_tail_that_missed_a_sync_may_be_the_head_of_the_next_chain() {
    let (mut world, link) = synced_once(3);
    world.rules.hold_disk.push((2, "sync chunks/".into()));
    world.put(0, link, 2..=2);
    world.sync(0, link, C, 2);
    world.run();
    world.cut_link(1, 2);
    world.run();
    world.let_go("sync chunks/");
    let has: Vec<_> = (0..3)
        .map(|server| world.seal(server).unwrap().wseq.0)
        .collect();
    assert_eq!(has, [2, 2, 1]);
    world.resume(&[2, 0, 1], (1, 2));
    let link = world.client(2);
    world.put(2, link, 2..=4);
    world.sync(2, link, C, 4);
    world.run();
    assert_eq!(world.syncs_answered(), [Ok(durable(4))]);
    world.assert_equal(&[0, 1, 2], 4);
}

#[test]
fn no_sync_is_begun_before_all_have_what_one_had() {
    for members in [[0, 1], [1, 0]] {
        let mut world = apart(3);
        world.resume(&members, (1, 3));
        let head = members[0];
        let link = world.client(head);
        world.put(head, link, 2..=2);
        world.sync(head, link, C, 2);
        world.run();
        assert_eq!(world.piece_done(2), Some(Ok(())));
        assert!(world.syncs_answered().is_empty(), "chain {members:?}");
        assert!(world.traced("ChainSync").is_empty());
        assert!(world.traced("sync").is_empty());
        for server in 0..2 {
            world.servers[server].disk.power_loss();
        }
        assert_eq!(world.header(0, C).wseq, WriteSeq(3), "nothing is said anew");
        assert_eq!(world.header(1, C).wseq, WriteSeq(1));
        let mut world = apart(3);
        world.resume(&members, (1, 3));
        let link = world.client(head);
        world.put(head, link, 2..=2);
        world.sync(head, link, C, 2);
        world.put(head, link, 3..=3);
        world.sync(head, link, C, 3);
        world.run();
        assert_eq!(world.syncs_answered(), [Ok(durable(3)), Ok(durable(3))]);
        world.assert_equal(&[0, 1], 3);
    }
}

#[test]
fn a_sync_that_comes_down_before_all_have_what_one_had_is_refused() {
    let mut world = apart(3);
    world.resume(&[1, 0], (1, 3));
    let link = world.client(1);
    world.put(1, link, 2..=2);
    // Of a head that begins one too early.
    let sync = ChainSync {
        chunk: C,
        version: VERSION,
        chain: ChainId(7),
        position: 1,
        wseq: WriteSeq(2),
    };
    let from = world.link_from(0);
    world.send(0, from, Msg::new(0, sync));
    world.run();
    assert!(world.traced("sync").is_empty());
    assert_eq!(world.header(0, C).wseq, WriteSeq(3));
    assert_eq!(world.status(0).chunks_writing, 0, "that chain is broken");
}

impl World {
    /// The link on which a server was last dialed by another.
    fn link_from(&self, server: usize) -> LinkId {
        (1..20)
            .map(LinkId::accepted)
            .rfind(|link| self.is_between_servers(server, *link))
            .expect("a server dialed it")
    }
}

#[test]
fn pieces_that_come_late_of_a_chain_that_is_over_do_not_break_the_one_there_is() {
    let (mut world, link) = synced_once(2);
    world.rules.hold_sends.push((0, "ChainPiece"));
    world.put(0, link, 2..=3);
    for server in 0..2 {
        assert_eq!(world.seal(server), Ok(durable(1)));
    }
    assert_eq!(
        world.piece_done(3).unwrap().unwrap_err().status,
        Status::ChainBroken
    );
    world.resume(&[0, 1], (1, 1));
    world.rules.hold_sends.clear();
    world.put(0, link, 2..=2);
    assert_eq!(world.piece_done(2), Some(Ok(())));
    // What was on its way all the time comes now, on the same link.
    world.let_go("ChainPiece");
    assert_eq!(
        world.traced("1: send ChainDone").len(),
        3,
        "the late ones are refused, and the new one was done"
    );
    world.put(0, link, 3..=4);
    world.sync(0, link, C, 4);
    world.run();
    assert_eq!(world.piece_done(4), Some(Ok(())));
    assert_eq!(world.syncs_answered(), [Ok(durable(4))]);
    world.assert_equal(&[0, 1], 4);
}

#[test]
fn what_was_done_in_a_chain_that_is_over_acks_nothing_in_the_one_there_is() {
    let (mut world, link) = synced_once(2);
    world.rules.hold_sends.push((1, "ChainDone"));
    world.put(0, link, 2..=2);
    for server in 0..2 {
        assert_eq!(world.seal(server), Ok(durable(1)));
    }
    world.resume(&[0, 1], (1, 1));
    world.rules.hold_sends.clear();
    world.rules.hold_disk.push((1, "write chunks/".into()));
    world.put(0, link, 2..=2);
    assert_eq!(world.piece_done(2), None);
    // That piece 2 is done, and that the chain broke: both are of the chain that is over.
    world.let_go("ChainDone");
    assert_eq!(world.piece_done(2), None, "it is not written everywhere");
    world.let_go("write chunks/");
    assert_eq!(world.piece_done(2), Some(Ok(())));
}

#[test]
fn syncs_that_come_late_of_a_chain_that_is_over_make_nothing_durable_and_ack_nothing() {
    let (mut world, link) = synced_once(2);
    world.rules.hold_sends.push((0, "ChainSync"));
    world.put(0, link, 2..=2);
    world.sync(0, link, C, 2);
    world.run();
    assert_eq!(world.seal(0), Ok(durable(2)));
    assert_eq!(world.seal(1), Ok(durable(1)));
    world.resume(&[0, 1], (1, 2));
    world.rules.hold_sends.clear();
    // When all have what one had, a sync is made of that, though nobody asks.
    world.put(0, link, 2..=2);
    assert_eq!(world.header(1, C).wseq, WriteSeq(2));
    world.put(0, link, 3..=3);
    world.trace.clear();
    world.let_go("ChainSync");
    assert!(world.traced("sync").is_empty(), "{:#?}", world.trace);
    world.rules.hold_sends.push((1, "ChainSynced"));
    world.sync(0, link, C, 3);
    world.run();
    let late = ChainSynced {
        chunk: C,
        version: VERSION,
        chain: ChainId(0),
        wseq: WriteSeq(3),
        outcome: Ok(durable(3).len),
    };
    let from = world.link_to(0);
    world.send(0, from, Msg::new(0, late));
    world.run();
    assert!(world.syncs_answered().is_empty());
    world.let_go("ChainSynced");
    assert_eq!(world.syncs_answered(), [Ok(durable(3))]);
    world.assert_equal(&[0, 1], 3);
}

impl World {
    /// The link on which a server dialed another.
    fn link_to(&self, server: usize) -> LinkId {
        (1..20)
            .map(LinkId::dialed)
            .rfind(|link| self.is_between_servers(server, *link))
            .expect("it dialed a server")
    }
}

#[test]
fn a_replica_of_a_restarted_server_takes_pieces_again_from_its_header_on() {
    for members in [[0, 1], [1, 0]] {
        let (mut world, link) = synced_once(2);
        world.put(0, link, 2..=2);
        let log = durable(1);
        world
            .meta
            .verdicts
            .insert((C, VERSION), Verdict::Keep { log });
        world.restart(1);
        assert_eq!(world.seal(0), Ok(durable(1)));
        assert_eq!(world.seal(1), Ok(durable(1)));
        world.resume(&members, (1, 1));
        let head = members[0];
        let link = world.client(head);
        world.put(head, link, 2..=3);
        world.sync(head, link, C, 3);
        world.run();
        assert_eq!(world.syncs_answered(), [Ok(durable(3))]);
        world.assert_equal(&[0, 1], 3);
    }
}

#[test]
fn a_piece_that_was_done_before_the_chain_broke_undoes_nothing_that_was_written_over_it_since() {
    let (mut world, _) = synced_once(1);
    assert_eq!(world.seal(0), Ok(durable(1)));
    world.resume(&[0], (1, 1));
    let link = world.client(0);
    world.write(0, link, C, 2, LEN as u64 - 10, &bytes(10, 9));
    world.run();
    assert_eq!(world.piece_done(2), Some(Ok(())));
    for synced in [false, true] {
        if synced {
            world.sync(0, link, C, 2);
            world.run();
            assert_eq!(world.syncs_answered().len(), 1);
        }
        let before = world.file(0)[usize::try_from(HEADER_BYTES).unwrap()..].to_vec();
        world.put(0, link, 1..=1);
        assert_eq!(world.piece_done(1), Some(Ok(())), "it was done long ago");
        let after = &world.file(0)[usize::try_from(HEADER_BYTES).unwrap()..];
        assert_eq!(after, before);
        assert_eq!(after[LEN - 10..LEN] == bytes(10, 9)[..], synced);
    }
}

#[test]
fn an_order_to_resume_is_refused_where_it_cannot_be_followed_and_the_replica_stays_as_it_is() {
    let sealed = || {
        let (mut world, _) = synced_once(2);
        for server in 0..2 {
            assert_eq!(world.seal(server), Ok(durable(1)));
        }
        world
    };
    let refused = |world: &mut World, order: ResumeChunk| {
        let refusal = world.resume_with(0, order).unwrap_err();
        assert!(refusal.detail.contains("127.0.0.1:22000"), "{refusal}");
        assert!(world.resume_with_at(1, (1, 1)).is_ok(), "the other goes on");
        refusal.status
    };
    let mut world = sealed();
    let order = world.resume_order(0, &[1], C, 7, (1, 1));
    assert_eq!(refused(&mut world, order), Status::BadRequest, "not in it");
    for within in [(0, 0), (2, 3)] {
        let mut world = sealed();
        let order = world.resume_order(0, &[0, 1], C, 7, within);
        assert_eq!(
            refused(&mut world, order),
            Status::ChainBroken,
            "{within:?}"
        );
        assert_eq!(world.status(0).chunks_writing, 0);
        assert_eq!(world.seal(0), Ok(durable(1)));
        world.resume(&[0], (1, 1));
    }
    let mut world = sealed();
    let mut order = world.resume_order(0, &[0, 1], C, 7, (1, 1));
    order.chunk = ChunkId(99);
    world.forget_heard();
    world.order(0, order);
    world.run();
    let status = world
        .meta
        .heard
        .iter()
        .find_map(|(_, msg)| match &msg.head {
            Head::ChunkResumed(said) => Some(said.outcome.clone().unwrap_err().status),
            _ => None,
        });
    assert_eq!(status, Some(Status::NotServed), "it is not there");
}

impl World {
    fn resume_with_at(&mut self, server: usize, within: (u64, u64)) -> Result<(), Refusal> {
        let order = self.resume_order(server, &[0, 1], C, 7, within);
        self.resume_with(server, order)
    }
}

#[test]
fn a_replica_that_is_written_in_another_chain_is_not_taken_out_of_it() {
    let (mut world, link) = synced_once(2);
    let order = world.resume_order(0, &[0, 1], C, 7, (1, 1));
    let refusal = world.resume_with(0, order).unwrap_err();
    assert_eq!(refusal.status, Status::Exists, "in its first one");
    world.put(0, link, 2..=2);
    assert_eq!(world.piece_done(2), Some(Ok(())));
    for server in 0..2 {
        assert_eq!(world.seal(server), Ok(durable(1)));
    }
    world.resume(&[0, 1], (1, 1));
    let order = world.resume_order(0, &[0, 1], C, 8, (1, 1));
    let refusal = world.resume_with(0, order).unwrap_err();
    assert_eq!(refusal.status, Status::Exists, "or in a later one");
    world.put(0, link, 2..=2);
    assert_eq!(world.piece_done(2), Some(Ok(())));
}

#[test]
fn a_replica_that_is_written_and_at_rest_is_not_taken_out_of_its_chain() {
    let (mut world, link) = synced_once(2);
    world.pass(std::time::Duration::from_secs(25));
    assert_eq!(world.status(0).chunks_writing, 0, "it gave its table back");
    let order = world.resume_order(0, &[0, 1], C, 7, (1, 1));
    assert_eq!(
        world.resume_with(0, order).unwrap_err().status,
        Status::Exists
    );
    world.put(0, link, 2..=2);
    assert_eq!(world.piece_done(2), Some(Ok(())));
}

#[test]
fn a_replica_whose_old_writes_are_still_on_their_way_to_the_disk_takes_none_of_the_new_chain() {
    let (mut world, link) = synced_once(1);
    world.rules.hold_disk.push((0, "write chunks/".into()));
    world.put(0, link, 2..=2);
    let busy = world.seal(0).unwrap_err();
    assert_eq!(busy.status, Status::Busy);
    let order = world.resume_order(0, &[0], C, 7, (1, 1));
    let busy = world.resume_with(0, order.clone()).unwrap_err();
    assert_eq!(
        busy.status,
        Status::Busy,
        "an old write could come over a new one"
    );
    assert_eq!(world.status(0).chunks_writing, 0);
    world.let_go("write chunks/");
    assert_eq!(world.seal(0), Ok(durable(1)));
    assert_eq!(world.resume_with(0, order), Ok(()));
}

#[test]
fn a_server_that_stops_takes_no_pieces_again() {
    let (mut world, _) = synced_once(1);
    assert_eq!(world.seal(0), Ok(durable(1)));
    world.rules.hold_disk.push((0, "sync chunks/".into()));
    world.call(0, 1, Call::Stop);
    world.run();
    let order = world.resume_order(0, &[0], C, 7, (1, 1));
    assert_eq!(
        world.resume_with(0, order).unwrap_err().status,
        Status::Busy
    );
}

#[test]
fn the_same_order_to_resume_twice_is_fine_and_changes_nothing() {
    let (mut world, _) = synced_once(1);
    assert_eq!(world.seal(0), Ok(durable(1)));
    world.resume(&[0], (1, 1));
    let link = world.client(0);
    world.put(0, link, 2..=2);
    let order = world.resume_order(0, &[0], C, 7, (1, 1));
    assert_eq!(world.resume_with(0, order.clone()), Ok(()), "said again");
    world.put(0, link, 3..=3);
    world.sync(0, link, C, 3);
    world.run();
    assert_eq!(world.syncs_answered(), [Ok(durable(3))]);
    let pieces = |line: &&&str| line.ends_with("+300");
    let written = world.traced("write chunks/1000.5.9 1");
    assert_eq!(written.iter().filter(pieces).count(), 2);
    // While its header is read still, the last one is answered.
    assert_eq!(world.seal(0), Ok(durable(3)));
    world.forget_heard();
    world.trace.clear();
    let order = ResumeChunk {
        from: WriteSeq(3),
        to: WriteSeq(3),
        chain: ChainId(9),
        ..order
    };
    world.rules.hold_disk.push((0, "read".into()));
    world.order(0, order.clone());
    world.order(0, order);
    world.run();
    assert!(world.resumes_said(0).is_empty(), "not before it is read");
    world.let_go("read");
    let said = world.resumes_said(0);
    assert!(!said.is_empty() && said.iter().all(|said| *said == (ChainId(9), Ok(()))));
    // Its header, and the block in which it ends.
    assert_eq!(world.traced("read chunks/").len(), 2);
}

#[test]
fn an_order_of_another_term_is_not_followed() {
    let (mut world, _) = synced_once(1);
    assert_eq!(world.seal(0), Ok(durable(1)));
    let mut order = world.resume_order(0, &[0], C, 7, (1, 1));
    order.term.number += 1;
    world.forget_heard();
    world.order(0, order);
    world.run();
    assert!(world.resumes_said(0).is_empty());
    assert_eq!(world.status(0).chunks_writing, 0);
}

#[test]
fn a_replica_that_is_sealed_and_read_meanwhile_does_not_take_pieces_of_the_chain_before() {
    let (mut world, _) = synced_once(1);
    assert_eq!(world.seal(0), Ok(durable(1)));
    world.rules.hold_disk.push((0, "read".into()));
    let order = world.resume_order(0, &[0], C, 7, (1, 1));
    world.order(0, order);
    world.run();
    world.rules.hold_disk.clear();
    world.rules.hold_disk.push((0, "sync".into()));
    let seal = world.seal_order(0, C, Unsynced::Dropped);
    world.order(0, seal);
    world.run();
    world.let_go("read");
    let (_, outcome) = world.resumes_said(0).pop().unwrap();
    assert_eq!(outcome.unwrap_err().status, Status::Busy);
    assert_eq!(world.status(0).chunks_writing, 0);
}

#[test]
fn a_replica_whose_header_rotted_takes_no_pieces_and_is_reported() {
    let (mut world, _) = synced_once(1);
    assert_eq!(world.seal(0), Ok(durable(1)));
    let path = name(C).path();
    let file = world.servers[0].disk.get_mut(path.as_str());
    let headers = usize::try_from(HEADER_BYTES).unwrap();
    for at in [headers / 2 + 100, 100] {
        file[at] ^= 1;
    }
    let order = world.resume_order(0, &[0], C, 7, (1, 1));
    let refusal = world.resume_with(0, order).unwrap_err();
    assert_eq!(refusal.status, Status::NotServed);
    assert_eq!(world.damage(), [(0, C, None)]);
}

#[test]
fn a_replica_that_is_to_be_written_further_forgets_what_no_sync_covered() {
    let (mut world, link) = synced_once(1);
    world.put(0, link, 2..=3);
    assert_eq!(world.piece_done(3), Some(Ok(())));
    let syncs = world.traced("write chunks/1000.5.9 0+").len();
    assert_eq!(
        world.seal(0),
        Ok(durable(1)),
        "its client has the rest still"
    );
    assert_eq!(
        world.traced("write chunks/1000.5.9 0+").len(),
        syncs,
        "nothing is made durable for it"
    );
    world.put(0, link, 4..=4);
    assert_eq!(
        world.piece_done(4).unwrap().unwrap_err().status,
        Status::ChainBroken
    );
    world.resume(&[0], (1, 1));
    world.put(0, link, 2..=2);
    assert_eq!(world.traced(&written(0, 2)).len(), 1, "it is written again");
    world.sync(0, link, C, 2);
    world.run();
    assert_eq!(world.syncs_answered(), [Ok(durable(2))]);
    world.assert_equal(&[0], 2);
}

#[test]
fn a_replica_that_is_to_be_copied_keeps_what_no_sync_covered() {
    let (mut world, link) = synced_once(1);
    world.put(0, link, 2..=3);
    let (busy, _) = world.seal_as(0, Unsynced::Kept);
    assert_eq!(busy.unwrap_err().status, Status::Busy);
    assert_eq!(world.seal_as(0, Unsynced::Kept).0, Ok(durable(3)));
}

#[test]
fn who_cannot_reach_the_next_server_says_so_and_nobody_else_does() {
    let (mut world, link) = synced_once(3);
    world.put(0, link, 2..=2);
    world.cut_link(1, 2);
    world.run();
    let lost: Vec<_> = (0..3)
        .map(|server| world.seal_as(server, Unsynced::Dropped).1)
        .collect();
    assert_eq!(lost, [false, true, false], "the link was cut");
    // The link stands, and says nothing.
    let (mut world, link) = synced_once(3);
    world.rules.hold_sends.push((2, "ChainDone"));
    world.put(0, link, 2..=2);
    let lost: Vec<_> = (0..3)
        .rev()
        .map(|server| world.seal_as(server, Unsynced::Dropped).1)
        .collect();
    assert_eq!(lost[..2], [false, true], "the tail has no next server");
}

#[test]
fn the_next_break_says_anew_whether_the_next_server_was_lost() {
    let (mut world, _) = synced_once(2);
    world.cut_link(0, 1);
    world.run();
    assert!(world.seal_as(0, Unsynced::Dropped).1);
    assert!(!world.seal_as(1, Unsynced::Dropped).1);
    world.resume(&[0, 1], (1, 1));
    assert!(!world.seal_as(0, Unsynced::Dropped).1, "that was before");
}

#[test]
fn a_sync_whose_ack_was_lost_with_its_chain_is_acked_in_the_next_one() {
    let (mut world, link) = synced_once(2);
    world.put(0, link, 2..=2);
    world.sync(0, link, C, 2);
    world.run();
    for server in 0..2 {
        assert_eq!(world.seal(server), Ok(durable(2)));
    }
    world.resume(&[1, 0], (2, 2));
    let link = world.client(1);
    world.sync(1, link, C, 2);
    world.run();
    assert_eq!(world.syncs_answered(), [Ok(durable(2))]);
    world.put(1, link, 3..=3);
    world.sync(1, link, C, 3);
    world.run();
    world.assert_equal(&[0, 1], 3);
}

#[test]
fn a_header_whose_sync_failed_is_believed_by_nobody() {
    let mut world = World::up(2);
    world.create(&[0, 1], C);
    let link = world.client(0);
    world.put(0, link, 1..=1);
    // Data and header are saved, and the name is not: what the disk says of it later is nothing to go by.
    let failure = DiskError::Io("EIO".into());
    world
        .rules
        .fail_disk
        .push((0, "syncdir chunks".into(), failure));
    world.sync(0, link, C, 1);
    world.run();
    assert!(world.syncs_answered()[0].is_err());
    assert_eq!(world.header(0, C).wseq, WriteSeq(0), "it is gone");
    let refused = world.seal(0).unwrap_err();
    assert_eq!(refused.status, Status::LocalIo, "it is in no chain again");
    assert_eq!(world.seal(1), Ok(durable(1)), "the other one saved it");
    world.restart(0);
    world.run();
    let has = world.inventory_said(0, C).map(|item| item.wseq);
    assert_eq!(has, Some(WriteSeq(0)), "nor does the next process say so");
}

#[test]
fn a_replica_at_rest_has_its_header_in_both_slots_without_a_sync() {
    let (mut world, _) = synced_once(1);
    assert_ne!(world.slots(0, C)[0].wseq, world.slots(0, C)[1].wseq);
    assert_eq!(world.seal_as(0, Unsynced::Kept).0, Ok(durable(1)));
    let [one, other] = &world.slots(0, C)[..] else {
        panic!("two slots are valid")
    };
    assert_eq!(
        (one.wseq, one.len, &one.sums, &one.pieces),
        (other.wseq, other.len, &other.sums, &other.pieces)
    );
    assert!(world.traced("0: sync").is_empty(), "{:?}", world.trace);
    // Asked again it writes nothing: the newer slot may be the one that no sync has covered.
    let before = world.slots(0, C);
    assert_eq!(world.seal_as(0, Unsynced::Kept).0, Ok(durable(1)));
    assert_eq!(world.slots(0, C), before);
    // The one that no sync has covered goes with the power, and nothing is missing.
    world.servers[0].disk.power_loss();
    let header = world.header(0, C);
    assert_eq!((header.len, header.wseq), (durable(1).len, WriteSeq(1)));
}

#[test]
fn what_a_replica_says_it_holds_is_the_same_for_a_copy_with_holes_and_for_nothing_else() {
    let (world, _) = synced_once(1);
    let header = world.header(0, C);
    let digest = header.digest(GEOMETRY);
    let zeros = kfs_core::block::padded_sum(&[], GEOMETRY.block_bytes);
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = header.clone();
        change(&mut header);
        header.digest(GEOMETRY)
    };
    assert_eq!(with(&|header| header.sums.push(Some(zeros))), digest);
    assert_eq!(with(&|header| header.sums.push(None)), digest);
    assert_eq!(with(&|header| header.generation += 1), digest);
    assert_eq!(with(&|header| header.pieces.clear()), digest);
    for change in [
        &(|header: &mut Header| header.sums.push(Some(7))) as &dyn Fn(&mut Header),
        &|header| header.sums[0] = header.sums[0].map(|sum| sum ^ 1),
        &|header| header.sums.insert(0, None),
        &|header| header.len += 1,
        &|header| header.wseq = header.wseq.next(),
    ] {
        assert_ne!(with(change), digest);
    }
}
