//! Room in memory: what a chunkserver holds of pieces and of what waits is bounded, whoever brings it, and who
//! waits for room gets it in turn.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use chunk_rig::*;
use kfs_core::chunk::MAKES_MAX;
use kfs_core::ids::*;
use kfs_core::limits::Limits;
use kfs_core::wire::client_chunk::ChainPiece;
use kfs_core::wire::{Head, Msg, Status};

const PIECE: usize = 1_024;

fn with_room(servers: usize, piece_buffer_bytes: usize) -> World {
    let limits = Limits {
        piece_buffer_bytes,
        link_requests: 10,
        ..Limits::REAL
    };
    let mut world = World::with_limits(servers, limits);
    for server in 0..servers {
        world.start(server);
    }
    world.run();
    world.trace.clear();
    world
}

/// A client that writes one piece to a chunk of its own.
#[derive(Clone, Copy, Debug)]
struct Writer {
    head: usize,
    link: LinkId,
    chunk: ChunkId,
}

fn writer(world: &mut World, servers: &[usize], chunk: u64) -> Writer {
    let chunk = ChunkId(chunk);
    world.create(servers, chunk);
    Writer {
        head: servers[0],
        link: world.client(servers[0]),
        chunk,
    }
}

fn writes(world: &mut World, writer: Writer) {
    let body = bytes(PIECE, 1);
    world.write(writer.head, writer.link, writer.chunk, 1, 0, &body);
}

/// The last word on the piece of a writer.
fn said(world: &World, writer: Writer) -> Option<Result<(), Status>> {
    world
        .inbox
        .iter()
        .rev()
        .find_map(|(.., msg)| match &msg.head {
            Head::PieceDone(done) if done.chunk == writer.chunk => {
                Some(done.outcome.clone().map_err(|refusal| refusal.status))
            }
            _ => None,
        })
}

/// Bytes of pieces at a position, looked up after every step of a run.
fn held(world: &World, server: usize, position: u8) -> usize {
    let rooms = world.servers[server].machine.bounds().rooms;
    let room = rooms.iter().find(|room| room.position == position);
    room.map_or(0, |room| room.bytes)
}

fn paused(world: &World, word: &str, writers: &[Writer]) -> Vec<usize> {
    let place = |line: &String| {
        let link: u64 = line.strip_prefix(&format!("0: {word} "))?.parse().ok()?;
        writers.iter().position(|writer| writer.link.0 == link)
    };
    world.trace.iter().filter_map(place).collect()
}

#[test]
fn many_clients_that_all_bring_pieces_at_once_do_not_fill_the_memory_of_a_head() {
    let mut world = with_room(1, 3 * PIECE);
    let writers: Vec<_> = (1..=20)
        .map(|chunk| writer(&mut world, &[0], chunk))
        .collect();
    world.run();
    world.rules.hold_disk.push((0, "write".into()));
    // All of these were read from their links before one of them was paused.
    for writer in &writers {
        writes(&mut world, *writer);
    }
    world.run();
    let most = world.limits.head_bytes_max(GEOMETRY);
    assert!(held(&world, 0, 0) > world.limits.piece_buffer_bytes);
    assert!(held(&world, 0, 0) <= most, "{}", held(&world, 0, 0));
    let refused = |world: &World, writer: &Writer| said(world, *writer) == Some(Err(Status::Busy));
    let busy = writers
        .iter()
        .filter(|writer| refused(&world, writer))
        .count();
    assert!((10..20).contains(&busy), "{busy} were refused for now");
    let all_paused = writers.iter().all(|writer| world.is_paused(0, writer.link));
    assert!(
        all_paused,
        "who brings a piece while there is no room waits"
    );
    let mut rounds = 0;
    while writers
        .iter()
        .any(|writer| said(&world, *writer) != Some(Ok(())))
    {
        rounds += 1;
        assert!(rounds < 20, "everybody has a turn");
        world.let_go("write");
        world.rules.hold_disk.push((0, "write".into()));
        for writer in &writers {
            if refused(&world, writer) && !world.is_paused(0, writer.link) {
                writes(&mut world, *writer);
            }
        }
        world.run();
        assert!(held(&world, 0, 0) <= most, "{}", held(&world, 0, 0));
    }
    assert_eq!(held(&world, 0, 0), 0);
    assert!(
        writers
            .iter()
            .all(|writer| !world.is_paused(0, writer.link))
    );
}

#[test]
fn who_waits_for_room_goes_on_in_turn_and_no_more_at_once_than_there_is_room_for() {
    let mut world = with_room(1, 4 * PIECE);
    let writers: Vec<_> = (1..=6)
        .map(|chunk| writer(&mut world, &[0], chunk))
        .collect();
    world.run();
    world.rules.hold_disk.push((0, "write".into()));
    for writer in &writers {
        writes(&mut world, *writer);
        world.run();
    }
    assert_eq!(paused(&world, "pause", &writers), [0, 1, 2, 3, 4, 5]);
    let file = |writer: &Writer| format!("write {}", name(writer.chunk).path().as_str());
    for writer in &writers[..5] {
        world.let_go(&file(writer));
        world.rules.hold_disk.push((0, "write".into()));
    }
    let resumed = |world: &World| paused(world, "resume", &writers);
    assert_eq!(resumed(&world), [0, 1], "there is room for two pieces more");
    let body = bytes(PIECE, 2);
    let (first, second) = (writers[0], writers[1]);
    world.write(0, first.link, first.chunk, 2, PIECE as u64, &body);
    world.run();
    world.let_go(&file(&first));
    world.rules.hold_disk.push((0, "write".into()));
    assert_eq!(resumed(&world), [0, 1, 2], "one took its turn");
    // Room that is kept for who has left is for the others.
    world.close_client(0, second.link);
    world.close_client(0, writers[3].link);
    world.run();
    world.let_go(&file(&writers[5]));
    assert_eq!(resumed(&world), [0, 1, 2, 4, 5]);
}

#[test]
fn clients_that_have_nothing_more_to_bring_take_no_turn_from_who_has() {
    let mut world = with_room(1, 4 * PIECE);
    for chunk in 1..=8 {
        let idle = writer(&mut world, &[0], chunk);
        writes(&mut world, idle);
    }
    let busy: Vec<_> = (11..=14)
        .map(|chunk| writer(&mut world, &[0], chunk))
        .collect();
    let link = busy[0].link;
    world.run();
    let write_all = |world: &mut World, piece: u64| {
        world.rules.hold_disk.push((0, "write".into()));
        for Writer { chunk, .. } in &busy {
            let at = (piece - 1) * PIECE as u64;
            world.write(0, link, *chunk, piece, at, &bytes(PIECE, 1));
        }
        world.run();
        assert!(world.is_paused(0, link));
    };
    // All were paused; the others go on as well, and bring nothing.
    write_all(&mut world, 1);
    world.let_go("write");
    assert!(!world.is_paused(0, link));
    write_all(&mut world, 2);
    for Writer { chunk, .. } in &busy[..3] {
        world.let_go(&format!("write {}", name(*chunk).path().as_str()));
        world.rules.hold_disk.push((0, "write".into()));
    }
    assert!(!world.is_paused(0, link), "there is room for three pieces");
}

#[test]
fn pieces_of_one_byte_fill_a_room_as_well() {
    let mut world = with_room(1, 2_048);
    let writer = writer(&mut world, &[0], 1);
    world.run();
    world.rules.hold_disk.push((0, "write".into()));
    for piece in 0..100 {
        let body = bytes(1, 1);
        world.write(0, writer.link, writer.chunk, piece + 1, piece, &body);
    }
    world.run();
    assert!(world.is_paused(0, writer.link));
    let pieces = world.servers[0].machine.bounds().pieces;
    assert!(pieces <= 20, "{pieces} pieces are in memory");
}

#[test]
fn chains_in_both_directions_with_full_rooms_do_not_wait_for_each_other() {
    let mut world = with_room(2, PIECE);
    world.rules.back_pressure = true;
    let mut writers = Vec::new();
    for chunk in 1..=12 {
        let chain = if chunk % 2 == 0 { [0, 1] } else { [1, 0] };
        writers.push(writer(&mut world, &chain, chunk));
    }
    world.run();
    for server in 0..2 {
        world.rules.hold_disk.push((server, "write".into()));
    }
    let unsaid = |world: &World, writer: &Writer| {
        !matches!(said(world, *writer), Some(Ok(()))) && !world.is_paused(writer.head, writer.link)
    };
    let within = |world: &World| {
        for server in 0..2 {
            let limits = world.limits;
            // Six clients write to each, all at once: five pieces are on their way when the link is paused.
            assert!(held(world, server, 0) <= limits.piece_bytes_max(GEOMETRY, 0, 6, 1));
            assert!(held(world, server, 1) <= limits.piece_bytes_max(GEOMETRY, 1, 1, 5));
        }
    };
    for writer in &writers {
        writes(&mut world, *writer);
    }
    world.run();
    within(&world);
    let full = |position: u8| (0..2).all(|server| held(&world, server, position) > PIECE);
    assert!(full(0) && full(1), "every room is full");
    world.rules.hold_disk.clear();
    if world.holds("write") {
        world.let_go("write");
    }
    for _ in 0..20 {
        let again: Vec<_> = writers
            .iter()
            .copied()
            .filter(|writer| unsaid(&world, writer))
            .collect();
        for writer in again {
            writes(&mut world, writer);
        }
        world.run();
        within(&world);
    }
    for writer in &writers {
        assert_eq!(said(&world, *writer), Some(Ok(())), "{writer:?}");
    }
    for server in 0..2 {
        assert_eq!((held(&world, server, 0), held(&world, server, 1)), (0, 0));
    }
    let count = |word: &str| {
        world
            .trace
            .iter()
            .filter(|line| line.contains(word))
            .count()
    };
    assert!(count(": pause ") > 0);
    assert_eq!(count(": pause "), count(": resume "));
}

#[test]
fn syncs_that_wait_for_a_piece_that_never_comes_are_few() {
    let mut world = with_room(1, 4 * PIECE);
    let writer = writer(&mut world, &[0], 1);
    for _ in 0..12 {
        world.sync(0, writer.link, writer.chunk, 99);
    }
    world.run();
    let busy = world.syncs_done();
    assert_eq!(busy.len(), 2, "ten wait, no more");
    assert!(
        busy.iter()
            .all(|done| done.as_ref().unwrap_err().status == Status::Busy)
    );
}

#[test]
fn a_piece_that_is_asked_for_again_and_again_gathers_few_who_wait() {
    let mut world = with_room(1, 4 * PIECE);
    let writer = writer(&mut world, &[0], 1);
    world.run();
    world.rules.hold_disk.push((0, "write".into()));
    for _ in 0..12 {
        writes(&mut world, writer);
    }
    world.run();
    assert_eq!(world.inbox.len(), 2);
    assert_eq!(said(&world, writer), Some(Err(Status::Busy)));
    world.let_go("write");
    assert_eq!(said(&world, writer), Some(Ok(())));
    assert_eq!(world.inbox.len(), 12);
}

/// A chunk whose table was given back.
fn at_rest() -> (World, Writer) {
    let mut world = with_room(1, 4 * PIECE);
    let writer = writer(&mut world, &[0], 1);
    writes(&mut world, writer);
    world.sync(0, writer.link, writer.chunk, 1);
    world.run();
    world.pass(core::time::Duration::from_secs(25));
    assert_eq!(world.servers[0].machine.bounds().parked, 1);
    world.inbox.clear();
    world.rules.hold_disk.push((0, "read".into()));
    (world, writer)
}

#[test]
fn strangers_do_not_wake_a_chunk_at_rest_nor_fill_rooms_through_it() {
    let (mut world, Writer { chunk, .. }) = at_rest();
    let strangers: Vec<_> = (0..4).map(|_| world.client(0)).collect();
    let mut msg = world.piece(chunk, 2, 0, &bytes(10, 1));
    if let Head::WritePiece(head) = &mut msg.head {
        head.session = SessionId(SESSION.0 + 1);
    }
    world.send(0, strangers[0], msg);
    let msg = world.piece(chunk, 2, 1_024, &bytes(PIECE + 1, 1));
    world.send(0, strangers[1], msg);
    world.run();
    for (.., msg) in &world.inbox {
        assert!(
            matches!(&msg.head, Head::PieceDone(done) if done.outcome.as_ref().unwrap_err().status == Status::BadRequest)
        );
    }
    assert_eq!(world.inbox.len(), 2);
    for (link, position) in strangers[2..].iter().zip([9, 200]) {
        let good = world.piece(chunk, 2, 1_024, &bytes(10, 1));
        let Head::WritePiece(head) = good.head else {
            unreachable!("it is a piece");
        };
        let head = ChainPiece {
            chain: ChainId(0),
            chunk,
            version: VERSION,
            position,
            wseq: WriteSeq(2),
            session: SESSION,
            piece: PieceNumber(2),
            offset: 1_024,
            sums: head.sums,
        };
        world.send(0, *link, Msg::with_body(0, head, good.body));
    }
    world.run();
    let rooms = world.servers[0].machine.bounds().rooms;
    assert!(rooms.iter().all(|room| room.bytes == 0), "{rooms:?}");
    assert!(!world.holds("read"), "nobody made it read");
}

#[test]
fn syncs_of_a_chunk_at_rest_that_pile_up_while_it_wakes_are_bounded() {
    let (mut world, Writer { link, chunk, .. }) = at_rest();
    for _ in 0..1_000 {
        world.sync(0, link, chunk, 1);
    }
    world.run();
    let bounds = world.servers[0].machine.bounds();
    let most = world.limits.head_bytes_max(GEOMETRY) / 256;
    assert!(bounds.pieces <= most, "{bounds:?}");
    world.let_go("read");
    assert_eq!(world.syncs_done().len(), 1_000, "each is answered");
}

#[test]
fn a_disk_that_hangs_is_not_given_chunks_to_make_without_end() {
    let mut world = World::up(1);
    world.rules.hold_disk.push((0, "create chunks/".into()));
    let most = u64::try_from(MAKES_MAX).unwrap();
    let said = |world: &World, chunk: u64| {
        let said = |(_, msg): &(usize, Msg)| match &msg.head {
            Head::ChunkCreated(made) if made.chunk == ChunkId(chunk) => Some(made.outcome.clone()),
            _ => None,
        };
        world.meta.heard.iter().find_map(said)
    };
    for chunk in 1..=most + 1 {
        let order = world.create_order(0, &[0], ChunkId(chunk));
        world.order(0, order);
        world.run();
    }
    assert_eq!(said(&world, most), None, "it waits for the disk");
    let refused = said(&world, most + 1).unwrap().unwrap_err();
    assert_eq!(refused.status, Status::Busy);
    // Who asks again for one that is being made is no more.
    let order = world.create_order(0, &[0], ChunkId(1));
    world.order(0, order);
    world.run();
    assert_eq!(said(&world, 1), None);
    world.rules.hold_disk.clear();
    world.let_go("create chunks/");
    assert_eq!(said(&world, most), Some(Ok(())));
    world.create(&[0], ChunkId(most + 2));
}
