//! Writing along chains: order, acknowledgements, what breaks a chain, what a sync makes durable and when.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use chunk_rig::*;
use kfs_core::chunk::Call;
use kfs_core::ids::*;
use kfs_core::limits::{HEADER_BYTES, Limits};
use kfs_core::machine::DiskError;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::{Head, Msg, Refusal, Status};
use std::time::Duration;

const C: ChunkId = ChunkId(5);

/// Servers up, a chunk on all of them, a client at the head.
fn written_by_client(servers: usize) -> (World, LinkId) {
    let mut world = World::up(servers);
    let chain: Vec<_> = (0..servers).collect();
    world.create(&chain, C);
    let link = world.client(0);
    world.run();
    world.trace.clear();
    (world, link)
}

fn status_of(outcome: Option<Result<(), Refusal>>) -> Status {
    match outcome {
        Some(Err(refusal)) => refusal.status,
        other => panic!("not a refusal: {other:?}"),
    }
}

fn detail_of(outcome: Option<Result<(), Refusal>>) -> String {
    match outcome {
        Some(Err(refusal)) => refusal.detail,
        other => panic!("not a refusal: {other:?}"),
    }
}

fn data(world: &World, server: usize, from: u64, len: usize) -> Vec<u8> {
    let file = world.servers[server]
        .disk
        .get(name(C).path().as_str())
        .unwrap();
    let from = usize::try_from(HEADER_BYTES + from).unwrap();
    file[from..from + len].to_vec()
}

#[test]
fn a_piece_is_on_every_replica_when_it_is_acked() {
    let (mut world, link) = written_by_client(3);
    let body = bytes(700, 1);
    world.write(0, link, C, 1, 0, &body);
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())));
    for server in 0..3 {
        assert_eq!(data(&world, server, 0, 700), body, "server {server}");
    }
}

#[test]
fn a_piece_is_passed_on_before_it_is_written_here() {
    let (mut world, link) = written_by_client(3);
    for server in 0..3 {
        world.rules.hold_disk.push((server, "write".into()));
    }
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.run();
    assert!(world.traced("write").is_empty());
    assert_eq!(
        world.traced("send ChainPiece"),
        ["0: send ChainPiece to 1", "1: send ChainPiece to 2"]
    );
    assert_eq!(world.piece_done(1), None);
}

#[test]
fn an_ack_waits_for_the_disk_here_and_for_all_below() {
    for slow in 0..3 {
        let (mut world, link) = written_by_client(3);
        world.rules.hold_disk.push((slow, "write chunks/".into()));
        world.write(0, link, C, 1, 0, &bytes(300, 1));
        world.run();
        assert_eq!(
            world.piece_done(1),
            None,
            "server {slow} has not written it"
        );
        world.let_go("write chunks/");
        assert_eq!(world.piece_done(1), Some(Ok(())));
    }
    let (mut world, link) = written_by_client(3);
    world.rules.hold_sends.push((2, "ChainDone"));
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.run();
    assert_eq!(world.piece_done(1), None, "nothing was heard from below");
    world.let_go("ChainDone");
    assert_eq!(world.piece_done(1), Some(Ok(())));
}

#[test]
fn a_later_write_that_is_done_first_does_not_ack_the_earlier_one() {
    let (mut world, link) = written_by_client(2);
    world
        .rules
        .hold_disk
        .push((0, format!("{}+", HEADER_BYTES)));
    world.write(0, link, C, 1, 0, &bytes(256, 1));
    // Another file's operations may overtake; this one's do not, so the acks of both wait.
    world.write(0, link, C, 2, 256, &bytes(256, 2));
    world.run();
    assert_eq!((world.piece_done(1), world.piece_done(2)), (None, None));
    world.let_go("write");
    assert_eq!(
        (world.piece_done(1), world.piece_done(2)),
        (Some(Ok(())), Some(Ok(())))
    );
}

#[test]
fn a_piece_sent_again_is_acked_and_not_applied_twice() {
    let (mut world, link) = written_by_client(2);
    world.rules.hold_sends.push((1, "ChainDone"));
    world.write(0, link, C, 1, 0, &bytes(100, 1));
    let again = world.client(0);
    world.write(0, again, C, 1, 0, &bytes(100, 1));
    world.run();
    assert!(
        world.inbox.is_empty(),
        "a piece on its way is not acked before it is everywhere"
    );
    world.let_go("ChainDone");
    let links: Vec<_> = world.inbox.iter().map(|(_, at, _)| *at).collect();
    assert_eq!(links, [link, again]);
    world.inbox.clear();
    world.write(0, again, C, 1, 0, &bytes(100, 9));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())));
    assert_eq!(
        data(&world, 0, 0, 100),
        bytes(100, 1),
        "what was sent again changed nothing"
    );
    assert_eq!(world.traced("write chunks/").len(), 2);
}

#[test]
fn a_client_that_lost_its_link_goes_on_over_another() {
    let (mut world, link) = written_by_client(2);
    world.write(0, link, C, 1, 0, &bytes(100, 1));
    world.run();
    world.close_client(0, link);
    let link = world.client(0);
    world.write(0, link, C, 2, 100, &bytes(100, 2));
    world.run();
    assert_eq!(world.piece_done(2), Some(Ok(())));
}

#[test]
fn a_piece_out_of_order_is_refused_and_names_the_one_expected() {
    let (mut world, link) = written_by_client(1);
    world.write(0, link, C, 2, 0, &bytes(100, 1));
    world.run();
    assert_eq!(status_of(world.piece_done(2)), Status::BadRequest);
    assert!(detail_of(world.piece_done(2)).contains("piece 1 comes next"));
    world.write(0, link, C, 1, 0, &bytes(100, 1));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())));
}

#[test]
fn pieces_that_cannot_be_are_refused_and_nothing_is_applied() {
    let (mut world, link) = written_by_client(2);
    let chunk_bytes = GEOMETRY.chunk_bytes();
    for (offset, len) in [
        (0, 0),
        (0, 1_025),
        (chunk_bytes, 1),
        (chunk_bytes - 1, 2),
        (u64::MAX, 2),
    ] {
        let mut msg = world.piece(C, 1, 0, &bytes(1, 1));
        msg.body = bytes(len, 1);
        if let Head::WritePiece(head) = &mut msg.head {
            head.offset = offset;
        }
        world.send(0, link, msg);
        world.run();
        assert_eq!(
            status_of(world.piece_done(1)),
            Status::BadRequest,
            "{len} bytes at {offset}"
        );
    }
    let mut stranger = world.piece(C, 1, 0, &bytes(10, 1));
    if let Head::WritePiece(head) = &mut stranger.head {
        head.session = SessionId(1);
    }
    world.send(0, link, stranger);
    world.run();
    assert!(detail_of(world.piece_done(1)).contains("session 1"));
    let to_tail = world.client(1);
    world.write(1, to_tail, C, 1, 0, &bytes(10, 1));
    world.run();
    assert!(detail_of(world.piece_done(1)).contains("the head"));
    world.write(0, link, ChunkId(99), 1, 0, &bytes(10, 1));
    world.run();
    assert_eq!(status_of(world.piece_done(1)), Status::NotServed);
    assert!(world.traced("write").is_empty() && world.traced("ChainPiece").is_empty());
    world.write(0, link, C, 1, 0, &bytes(10, 1));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())), "the chain is whole");
}

#[test]
fn bytes_that_do_not_match_their_sums_are_refused_at_the_head_and_the_chain_is_whole() {
    let (mut world, link) = written_by_client(2);
    for damage in ["adler", "crc", "body", "count"] {
        let mut msg = world.piece(C, 1, 0, &bytes(300, 1));
        let Head::WritePiece(head) = &mut msg.head else {
            unreachable!()
        };
        match damage {
            "adler" => head.sums.blocks[1] ^= 1,
            "crc" => head.sums.crc ^= 1,
            "count" => head.sums.blocks.push(1),
            _ => msg.body = bytes(300, 2),
        }
        world.send(0, link, msg);
        world.run();
        assert_eq!(status_of(world.piece_done(1)), Status::Corrupt, "{damage}");
    }
    assert!(world.traced("ChainPiece").is_empty());
    assert_eq!(world.status(0).pieces_bad, 4);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())));
}

#[test]
fn a_piece_damaged_between_two_servers_breaks_the_chain_there() {
    for from in 0..2 {
        let (mut world, link) = written_by_client(3);
        world.rules.damage_next = Some(from);
        world.write(0, link, C, 1, 0, &bytes(300, 1));
        world.write(0, link, C, 2, 300, &bytes(10, 2));
        world.run();
        for piece in 1..=2 {
            assert_eq!(status_of(world.piece_done(piece)), Status::ChainBroken);
            let detail = detail_of(world.piece_done(piece));
            assert!(
                detail.contains("sums") && detail.contains(&server_addr(from + 1).to_string()),
                "{detail}"
            );
        }
        assert_eq!(world.status(from + 1).pieces_bad, 1);
        for server in from + 1..3 {
            let file = world.servers[server]
                .disk
                .get(name(C).path().as_str())
                .unwrap();
            assert!(
                file.len() <= usize::try_from(HEADER_BYTES).unwrap(),
                "server {server} wrote nothing"
            );
        }
        assert_eq!(
            world.traced("send ChainDone to 0").len(),
            1,
            "it is said once: {:#?}",
            world.trace
        );
        world.write(0, link, C, 3, 0, &bytes(10, 1));
        world.sync(0, link, C, 2);
        world.run();
        assert_eq!(status_of(world.piece_done(3)), Status::ChainBroken);
        assert_eq!(
            world.syncs_done().pop().unwrap().unwrap_err().status,
            Status::ChainBroken
        );
    }
}

#[test]
fn a_lost_server_below_or_above_breaks_the_chain_and_everybody_hears_why() {
    for dead in 1..3 {
        let (mut world, link) = written_by_client(3);
        world.write(0, link, C, 1, 0, &bytes(100, 1));
        world.run();
        world.rules.hold_sends.push((2, "ChainDone"));
        world.rules.hold_sends.push((2, "ChainSynced"));
        world.write(0, link, C, 2, 100, &bytes(100, 2));
        world.sync(0, link, C, 2);
        world.run();
        world.kill(dead);
        world.run();
        let detail = detail_of(world.piece_done(2));
        assert!(detail.contains(&server_addr(dead).to_string()), "{detail}");
        assert_eq!(
            world.syncs_done().pop().unwrap().unwrap_err().status,
            Status::ChainBroken
        );
    }
    let (mut world, link) = written_by_client(3);
    world.write(0, link, C, 1, 0, &bytes(100, 1));
    world.run();
    world.kill(0);
    world.run();
    for server in 1..3 {
        assert_eq!(
            world.status(server).chunks_writing,
            0,
            "server {server} takes nothing more"
        );
    }
}

#[test]
fn a_chain_that_has_seen_no_piece_survives_a_lost_link_of_another_chunk() {
    let (mut world, link) = written_by_client(2);
    world.create(&[0, 1], ChunkId(6));
    world.write(0, link, C, 1, 0, &bytes(100, 1));
    world.run();
    world.cut_link(0, 1);
    world.run();
    assert_eq!(world.status(0).chunks_writing, 1);
    world.write(0, link, ChunkId(6), 1, 0, &bytes(100, 1));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())), "over a new link");
}

#[test]
fn one_link_per_position_is_shared_by_chunks() {
    let mut world = World::up(2);
    for chunk in 5..8 {
        world.create(&[0, 1], ChunkId(chunk));
    }
    world.create(&[1, 0], ChunkId(8));
    let (link, other) = (world.client(0), world.client(1));
    for chunk in 5..8 {
        world.write(0, link, ChunkId(chunk), 1, 0, &bytes(100, 1));
    }
    world.write(1, other, ChunkId(8), 1, 0, &bytes(100, 1));
    world.run();
    assert_eq!(world.inbox.len(), 4);
    world.cut_link(0, 1);
    world.run();
    assert_eq!(
        world.status(0).chunks_writing,
        1,
        "the other way is another link"
    );
    assert_eq!(world.status(1).chunks_writing, 1);
}

#[test]
fn a_disk_that_fails_breaks_the_chain_with_the_reason() {
    for (server, error, word) in [
        (0, DiskError::NoSpace, "no space left"),
        (1, DiskError::Io("EIO".into()), "EIO"),
        (2, DiskError::NoSpace, "no space left"),
    ] {
        let (mut world, link) = written_by_client(3);
        world
            .rules
            .fail_disk
            .push((server, "write chunks/".into(), error));
        world.write(0, link, C, 1, 0, &bytes(100, 1));
        world.run();
        assert_eq!(status_of(world.piece_done(1)), Status::ChainBroken);
        let detail = detail_of(world.piece_done(1));
        assert!(
            detail.contains(word) && detail.contains(&server_addr(server).to_string()),
            "{detail}"
        );
        world.write(0, link, C, 2, 100, &bytes(100, 1));
        world.run();
        assert!(detail_of(world.piece_done(2)).contains(word));
    }
}

#[test]
fn the_head_refuses_for_want_of_room_before_anything_happens() {
    let (mut world, link) = written_by_client(2);
    world.servers[0].disk.bytes_free = HEADER_BYTES + 1_500;
    world.pass(Duration::from_secs(2));
    world.trace.clear();
    world.write(0, link, C, 1, 0, &bytes(1_000, 1));
    world.write(0, link, C, 2, 1_000, &bytes(1_000, 1));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())));
    assert_eq!(status_of(world.piece_done(2)), Status::NoRoom);
    assert_eq!(world.traced("send ChainPiece").len(), 1);
    world.servers[0].disk.bytes_free = 1 << 20;
    world.pass(Duration::from_secs(2));
    world.write(0, link, C, 2, 1_000, &bytes(1_000, 1));
    world.run();
    assert_eq!(
        world.piece_done(2),
        Some(Ok(())),
        "the chain was never broken"
    );
}

#[test]
fn a_sync_makes_things_durable_in_the_one_safe_order() {
    let (mut world, link) = written_by_client(1);
    world
        .rules
        .hold_disk
        .push((0, format!("write chunks/1000.5.9 {HEADER_BYTES}+")));
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    assert!(
        world.traced("sync").is_empty(),
        "not before the data is written"
    );
    world.let_go("write");
    assert_eq!(world.syncs_done(), [Ok(300)]);
    assert_eq!(
        world.trace,
        [
            "0: write chunks/1000.5.9 16384+300",
            "0: sync chunks/1000.5.9",
            "0: write chunks/1000.5.9 8192+8192",
            "0: sync chunks/1000.5.9",
            "0: syncdir chunks",
        ]
    );
    world.trace.clear();
    world.write(0, link, C, 2, 512, &bytes(300, 2));
    world.sync(0, link, C, 2);
    world.run();
    assert_eq!(
        world.trace,
        [
            "0: write chunks/1000.5.9 16896+300",
            "0: sync chunks/1000.5.9",
            "0: write chunks/1000.5.9 0+8192",
            "0: sync chunks/1000.5.9",
        ]
    );
    let header = world.header(0, C);
    assert_eq!(
        (header.len, header.wseq, header.generation),
        (812, WriteSeq(2), 4)
    );
    assert_eq!((header.incarnation, header.cluster), (INCARNATION, CLUSTER));
    assert_eq!(
        (header.pieces[0].session, header.pieces[0].last),
        (SESSION, PieceNumber(2))
    );
}

#[test]
fn every_step_of_a_sync_is_waited_for() {
    for (step, what) in ["sync chunks/1000.5.9", "8192+8192", "syncdir chunks"]
        .iter()
        .enumerate()
    {
        let (mut world, link) = written_by_client(1);
        world.rules.hold_disk.push((0, (*what).into()));
        world.write(0, link, C, 1, 0, &bytes(300, 1));
        world.sync(0, link, C, 1);
        world.run();
        assert!(world.syncs_done().is_empty(), "{what} is held");
        assert_eq!(
            world.traced(" 8192+8192").len(),
            usize::from(step == 2),
            "no header before its data is durable"
        );
        assert!(world.traced("syncdir").is_empty());
    }
}

#[test]
fn a_sync_is_acked_when_the_last_replica_has_made_it_and_survives_power_loss_everywhere() {
    for slow in 0..3 {
        let (mut world, link) = written_by_client(3);
        world.rules.hold_disk.push((slow, "syncdir chunks".into()));
        world.write(0, link, C, 1, 0, &bytes(300, 1));
        world.sync(0, link, C, 1);
        world.run();
        assert!(
            world.syncs_done().is_empty(),
            "server {slow} has not made it"
        );
        world.let_go("syncdir");
        assert_eq!(world.syncs_done(), [Ok(300)]);
        for server in 0..3 {
            world.servers[server].disk.power_loss();
            assert_eq!(world.header(server, C).len, 300);
            assert_eq!(data(&world, server, 0, 300), bytes(300, 1));
        }
    }
}

#[test]
fn a_sync_goes_down_at_once_and_is_made_beside_one_another() {
    let (mut world, link) = written_by_client(3);
    for server in 0..3 {
        world.rules.hold_disk.push((server, "sync ".into()));
    }
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    assert_eq!(world.traced("send ChainSync").len(), 2);
    assert!(world.holds("sync chunks"));
}

#[test]
fn pieces_taken_during_a_sync_are_not_in_it() {
    let (mut world, link) = written_by_client(2);
    world.rules.hold_disk.push((1, "sync chunks/".into()));
    world.write(0, link, C, 1, 0, &bytes(256, 1));
    world.sync(0, link, C, 1);
    world.write(0, link, C, 2, 256, &bytes(256, 2));
    world.run();
    assert_eq!(
        world.piece_done(2),
        Some(Ok(())),
        "pieces are taken while a sync runs"
    );
    world.sync(0, link, C, 2);
    world.run();
    assert!(world.syncs_done().is_empty());
    assert_eq!(
        world.traced("send ChainSync to").len(),
        1,
        "one sync at a time"
    );
    world.let_go("sync chunks/");
    assert_eq!(world.syncs_done(), [Ok(256), Ok(512)]);
    assert_eq!(world.header(1, C).wseq, WriteSeq(2));
}

#[test]
fn a_sync_of_what_is_synced_is_answered_at_once() {
    let (mut world, link) = written_by_client(2);
    world.write(0, link, C, 1, 0, &bytes(256, 1));
    world.sync(0, link, C, 1);
    world.sync(0, link, C, 1);
    world.run();
    world.trace.clear();
    world.sync(0, link, C, 1);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(256), Ok(256), Ok(256)]);
    assert!(world.trace.is_empty());
}

#[test]
fn a_sync_of_a_piece_that_has_not_come_waits_for_it() {
    let (mut world, link) = written_by_client(2);
    world.sync(0, link, C, 1);
    world.run();
    assert!(world.syncs_done().is_empty());
    world.write(0, link, C, 1, 0, &bytes(256, 1));
    world.write(0, link, C, 2, 256, &bytes(256, 1));
    world.sync(0, link, C, 2);
    world.run();
    assert_eq!(world.syncs_done().len(), 2);
}

#[test]
fn a_sync_that_fails_anywhere_breaks_the_chain_and_is_never_tried_again() {
    for server in 0..3 {
        for step in ["sync chunks/", "8192+8192", "syncdir chunks"] {
            let (mut world, link) = written_by_client(3);
            world
                .rules
                .fail_disk
                .push((server, step.into(), DiskError::Io("EIO".into())));
            world.write(0, link, C, 1, 0, &bytes(300, 1));
            world.sync(0, link, C, 1);
            world.run();
            let refusal = world.syncs_done().pop().unwrap().unwrap_err();
            assert_eq!(refusal.status, Status::ChainBroken, "{step} at {server}");
            assert!(refusal.detail.contains("EIO"), "{refusal}");
            let syncs = world.traced(&format!("{server}: sync ")).len();
            world.sync(0, link, C, 1);
            world.run();
            assert_eq!(world.syncs_done().len(), 2);
            assert_eq!(
                world.traced(&format!("{server}: sync ")).len(),
                syncs,
                "not tried again"
            );
        }
    }
}

#[test]
fn the_sums_of_appended_short_pieces_are_those_of_the_bytes() {
    let (mut world, link) = written_by_client(2);
    let (mut at, mut piece, mut all) = (0_u64, 0, Vec::new());
    for len in [1, 3, 100, 256, 7, 511, 1_000, 2] {
        piece += 1;
        let body = bytes(len, u8::try_from(piece).unwrap());
        world.write(0, link, C, piece, at, &body);
        at += len as u64;
        all.extend_from_slice(&body);
    }
    // A gap inside a block, and a hole of whole blocks after it.
    at += 5;
    all.resize(all.len() + 5, 0);
    world.write(0, link, C, piece + 1, at, &bytes(3, 9));
    all.extend_from_slice(&bytes(3, 9));
    world.write(0, link, C, piece + 2, 15 * 256, &bytes(9, 9));
    world.sync(0, link, C, piece + 2);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(15 * 256 + 9)]);
    let last = bytes(9, 9);
    for server in 0..2 {
        let header = world.header(server, C);
        let written = all
            .chunks(256)
            .map(|block| Some(adler::adler32_slice(&padded(block))));
        let mut expected: Vec<_> = written.collect();
        expected.resize(15, None);
        expected.push(Some(adler::adler32_slice(&padded(&last))));
        assert_eq!(header.sums, expected, "server {server}");
        assert_eq!(header.len, 15 * 256 + 9);
    }
}

fn padded(block: &[u8]) -> Vec<u8> {
    let mut block = block.to_vec();
    block.resize(256, 0);
    block
}

#[test]
fn what_was_committed_before_a_chain_broke_is_served_and_nothing_else() {
    let (mut world, link) = written_by_client(2);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.write(0, link, C, 2, 512, &bytes(300, 2));
    world.run();
    world.kill(1);
    world.run();
    assert_eq!(world.read(0, C, 0, 300, 300).unwrap(), bytes(300, 1));
    assert_eq!(
        world.read(0, C, 512, 300, 812).unwrap_err().status,
        Status::NotServed
    );
}

#[test]
fn a_replica_that_restarted_takes_no_pieces_and_says_so() {
    let (mut world, link) = written_by_client(2);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.meta.verdicts.insert((C, VERSION), keep(300));
    world.restart(1);
    world.write(0, link, C, 2, 512, &bytes(300, 2));
    world.run();
    assert_eq!(status_of(world.piece_done(2)), Status::ChainBroken);
    world.restart(0);
    let link = world.client(0);
    world.inbox.clear();
    world.write(0, link, C, 2, 512, &bytes(300, 2));
    world.run();
    assert!(detail_of(world.piece_done(2)).contains("restarted"));
    assert_eq!(world.read(0, C, 0, 300, 300).unwrap(), bytes(300, 1));
}

#[test]
fn a_tail_that_restarted_before_the_first_piece_breaks_the_chain() {
    let (mut world, link) = written_by_client(2);
    world.restart(1);
    world.write(0, link, C, 1, 0, &bytes(300, 2));
    world.run();
    let detail = detail_of(world.piece_done(1));
    assert!(
        detail.contains("restarted") && detail.contains(&server_addr(1).to_string()),
        "{detail}"
    );
}

#[test]
fn a_server_that_cannot_be_reached_breaks_the_chain() {
    let (mut world, link) = written_by_client(2);
    world.rules.unreachable.insert(server_addr(1));
    world.write(0, link, C, 1, 0, &bytes(300, 2));
    world.run();
    let detail = detail_of(world.piece_done(1));
    assert!(
        detail.contains("cannot connect") && detail.contains(&server_addr(1).to_string()),
        "{detail}"
    );
}

#[test]
fn a_write_sequence_that_skips_or_comes_over_another_link_breaks_the_chain() {
    for skip in [true, false] {
        let (mut world, link) = written_by_client(2);
        world.write(0, link, C, 1, 0, &bytes(100, 1));
        world.run();
        let body = bytes(10, 1);
        let Head::WritePiece(piece) = world.piece(C, 2, 100, &body).head else {
            unreachable!()
        };
        let head = ChainPiece {
            chain: ChainId(0),
            chunk: C,
            version: VERSION,
            position: 1,
            wseq: WriteSeq(if skip { 3 } else { 2 }),
            session: SESSION,
            piece: PieceNumber(2),
            offset: 100,
            sums: piece.sums,
        };
        let from = if skip {
            LinkId::accepted(1)
        } else {
            world.client(1)
        };
        world.send(1, from, Msg::with_body(0, head, body));
        world.run();
        assert_eq!(world.status(1).chunks_writing, 0, "it is not taken");
        assert_eq!(data(&world, 1, 0, 100), bytes(100, 1));
        let path = name(C).path();
        let file = world.servers[1].disk.get(path.as_str()).unwrap();
        assert_eq!(file.len() as u64, HEADER_BYTES + 100, "and not written");
        world.write(0, link, C, 2, 100, &bytes(10, 1));
        world.run();
        assert_eq!(status_of(world.piece_done(2)), Status::ChainBroken);
    }
}

#[test]
fn a_piece_of_another_session_or_number_breaks_the_chain_at_the_replica() {
    for (piece, session) in [(1, SESSION), (3, SESSION), (2, SessionId(1))] {
        let (mut world, link) = written_by_client(2);
        world.write(0, link, C, 1, 0, &bytes(100, 1));
        world.run();
        let body = bytes(10, 1);
        let Head::WritePiece(good) = world.piece(C, 2, 100, &body).head else {
            unreachable!()
        };
        let head = ChainPiece {
            chain: ChainId(0),
            chunk: C,
            version: VERSION,
            position: 1,
            wseq: WriteSeq(2),
            session,
            piece: PieceNumber(piece),
            offset: 100,
            sums: good.sums,
        };
        world.send(1, LinkId::accepted(1), Msg::with_body(0, head, body));
        world.run();
        assert_eq!(
            world.status(1).chunks_writing,
            0,
            "piece {piece} of {session}"
        );
    }
}

#[test]
fn links_are_paused_while_their_position_has_no_room() {
    let limits = Limits {
        piece_buffer_bytes: 1_000,
        ..Limits::REAL
    };
    let mut world = World::with_limits(2, limits);
    for server in 0..2 {
        world.start(server);
    }
    world.run();
    world.create(&[0, 1], C);
    let link = world.client(0);
    world.rules.no_credit.insert(0);
    for piece in 0..3 {
        world.write(0, link, C, piece + 1, piece * 512, &bytes(512, 1));
        world.run();
    }
    assert_eq!(world.traced("0: pause").len(), 1, "the head's client waits");
    assert!(
        world.traced("1: pause").is_empty(),
        "the tail has room of its own"
    );
    assert_eq!(
        world.status(0).piece_buffer_bytes,
        3 * 512,
        "written, but not sent on"
    );
    assert!(world.traced("0: resume").is_empty());
    let other = world.client(0);
    world.create(&[0], ChunkId(6));
    world.write(0, other, ChunkId(6), 1, 0, &bytes(512, 1));
    world.run();
    assert_eq!(
        world.traced("0: pause").len(),
        2,
        "who comes later waits as well"
    );
    world.rules.no_credit.clear();
    let next = LinkId::dialed(2);
    world.input(
        0,
        kfs_core::machine::Input::Sent {
            link: next,
            bytes: 3 * (512 + 256),
        },
    );
    world.run();
    assert_eq!(world.status(0).piece_buffer_bytes, 0);
    assert_eq!(world.traced("0: resume").len(), 2);
}

#[test]
fn room_is_given_back_when_the_next_server_is_lost() {
    let (mut world, link) = written_by_client(2);
    world.rules.no_credit.insert(0);
    world.write(0, link, C, 1, 0, &bytes(512, 1));
    world.run();
    assert_eq!(world.status(0).piece_buffer_bytes, 512);
    world.kill(1);
    world.run();
    assert_eq!(world.status(0).piece_buffer_bytes, 0);
}

#[test]
fn a_chunk_at_rest_gives_its_table_back_and_goes_on_where_it_was() {
    let (mut world, link) = written_by_client(2);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.pass(Duration::from_secs(25));
    assert_eq!(
        (
            world.status(0).chunks_writing,
            world.status(1).chunks_writing
        ),
        (0, 0)
    );
    assert_eq!(world.read(1, C, 0, 300, 300).unwrap(), bytes(300, 1));
    world.write(0, link, C, 2, 512, &bytes(300, 2));
    world.write(0, link, C, 3, 812, &bytes(100, 3));
    world.sync(0, link, C, 3);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(300), Ok(912)]);
    assert_eq!(world.read(1, C, 0, 812, 812).unwrap()[512..], bytes(300, 2));
    let header = world.header(1, C);
    assert_eq!((header.wseq, header.generation), (WriteSeq(3), 4));
    let mut first = bytes(300, 1).to_vec();
    first.resize(512, 0);
    assert_eq!(header.sums[0], Some(adler::adler32_slice(&first[..256])));
    assert_eq!(header.sums[1], Some(adler::adler32_slice(&first[256..])));
}

#[test]
fn a_chunk_at_rest_still_loses_its_chain_with_its_link() {
    let (mut world, link) = written_by_client(2);
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.pass(Duration::from_secs(25));
    world.cut_link(0, 1);
    world.run();
    world.write(0, link, C, 2, 512, &bytes(300, 2));
    world.run();
    assert_eq!(status_of(world.piece_done(2)), Status::ChainBroken);
}

#[test]
fn a_full_chunk_is_at_rest_at_once() {
    let (mut world, link) = written_by_client(2);
    for piece in 0..4 {
        world.write(0, link, C, piece + 1, piece * 1_024, &bytes(1_024, 1));
    }
    world.sync(0, link, C, 4);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(4_096)]);
    assert_eq!(
        (
            world.status(0).chunks_writing,
            world.status(1).chunks_writing
        ),
        (0, 0)
    );
    world.sync(0, link, C, 4);
    world.run();
    assert_eq!(world.syncs_done(), [Ok(4_096), Ok(4_096)]);
}

#[test]
fn an_order_to_make_a_chunk_again_is_fine_and_another_is_refused() {
    let mut world = World::up(2);
    world.rules.hold_disk.push((0, "create".into()));
    let order = world.create_order(0, &[0, 1], C);
    world.order(0, order.clone());
    world.order(0, order.clone());
    world.run();
    let outcomes = |world: &World| -> Vec<_> {
        let made = |(_, msg): &(usize, Msg)| match &msg.head {
            Head::ChunkCreated(made) => Some(made.outcome.clone()),
            _ => None,
        };
        world.meta.heard.iter().filter_map(made).collect()
    };
    assert!(outcomes(&world).is_empty(), "not before it is made");
    world.let_go("create");
    world.order(0, order.clone());
    world.run();
    assert_eq!(outcomes(&world), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(world.traced("create chunks/").len(), 1);
    world.order(
        0,
        CreateChunk {
            session: SessionId(1),
            ..order.clone()
        },
    );
    world.order(
        0,
        CreateChunk {
            chunk: ChunkId(50),
            chain: world.chain(&[1]),
            ..order.clone()
        },
    );
    let mut old = order.clone();
    old.term.number += 100;
    old.chunk = ChunkId(51);
    world.order(0, old);
    world.run();
    let outcomes = outcomes(&world);
    assert_eq!(outcomes.len(), 5, "an order of another term is dropped");
    assert_eq!(outcomes[3].as_ref().unwrap_err().status, Status::Exists);
    assert_eq!(outcomes[4].as_ref().unwrap_err().status, Status::BadRequest);
}

#[test]
fn a_chunk_that_cannot_be_made_is_refused_and_leaves_nothing() {
    for (step, error, status) in [
        ("create chunks/", DiskError::NoSpace, Status::NoRoom),
        ("0+8192", DiskError::NoSpace, Status::NoRoom),
        (
            "create chunks/",
            DiskError::Io("EIO".into()),
            Status::LocalIo,
        ),
    ] {
        let mut world = World::up(1);
        world.rules.fail_disk.push((0, step.into(), error));
        let order = world.create_order(0, &[0], C);
        world.order(0, order);
        world.run();
        let made = world
            .meta
            .heard
            .iter()
            .find_map(|(_, msg)| match &msg.head {
                Head::ChunkCreated(made) => Some(made.outcome.clone()),
                _ => None,
            });
        assert_eq!(made.unwrap().unwrap_err().status, status);
        assert_eq!(world.servers[0].disk.get("chunks/1000.5.9"), None);
        world.create(&[0], C);
    }
}

#[test]
fn a_stop_ends_the_chains_and_lets_a_sync_that_is_at_work_end() {
    let (mut world, link) = written_by_client(2);
    world.rules.hold_disk.push((1, "sync chunks/".into()));
    world.write(0, link, C, 1, 0, &bytes(300, 1));
    world.sync(0, link, C, 1);
    world.run();
    world.call(1, 1, Call::Stop);
    world.run();
    let stopped = |world: &World| {
        world.servers[1]
            .events
            .iter()
            .any(|(id, event)| *id == CallId(1) && matches!(event, kfs_core::chunk::Event::Stopped))
    };
    assert!(!stopped(&world), "a client may be about to hear of it");
    world.let_go("sync chunks/");
    assert!(stopped(&world));
    world.servers[1].disk.power_loss();
    assert_eq!(world.header(1, C).len, 300);
    assert_eq!(data(&world, 1, 0, 300), bytes(300, 1));
}

#[test]
fn nonsense_closes_the_link_it_came_on_and_nothing_else() {
    let (mut world, link) = written_by_client(2);
    let nonsense = world.client(0);
    world.send(0, nonsense, Msg::new(1, SayHello { why: "no".into() }));
    world.run();
    assert_eq!(world.traced("0: close").len(), 1);
    let nonsense = world.client(0);
    world.send(
        0,
        nonsense,
        Msg::new(
            1,
            ChainSync {
                chain: ChainId(0),
                chunk: C,
                version: VERSION,
                position: 0,
                wseq: WriteSeq(0),
            },
        ),
    );
    world.run();
    assert_eq!(world.traced("0: close").len(), 2);
    world.send(
        0,
        LinkId::accepted(999),
        Msg::new(1, SayHello { why: "no".into() }),
    );
    world.input(
        0,
        kfs_core::machine::Input::Sent {
            link,
            bytes: usize::MAX,
        },
    );
    world.input(
        0,
        kfs_core::machine::Input::Disk {
            ticket: Ticket(1),
            result: Ok(kfs_core::machine::DiskDone::Done),
        },
    );
    let later = ChainDone {
        chain: ChainId(0),
        chunk: C,
        version: VERSION,
        wseq: WriteSeq(9),
        outcome: Ok(()),
    };
    world.send(0, link, Msg::new(1, later));
    world.write(0, link, C, 1, 0, &bytes(10, 1));
    world.run();
    assert_eq!(world.piece_done(1), Some(Ok(())));
}

#[test]
fn a_disk_that_stands_still_is_not_asked_for_its_room_at_every_heartbeat() {
    let mut world = World::up(1);
    world.rules.hold_disk.push((0, "space".into()));
    world.pass(Duration::from_secs(60));
    let waits = world.servers[0].machine.bounds().jobs;
    assert_eq!(waits, 1, "asked again and again, and never answered");
    world.rules.hold_disk.clear();
    world.let_go("space");
    let before = world.traced("space").len();
    world.pass(Duration::from_secs(10));
    assert!(
        world.traced("space").len() > before + 1,
        "it is asked again"
    );
}
