//! Reads: replicas that refuse, lie, are silent or gone; holes; several chunks; time.
use crate::rig::{
    GEOMETRY, Rig, TIMEOUT, VERSION, bytes, chunk, durable, limits, place, refusal, server,
};
use bytes::Bytes;
use kfs_core::block::Sums;
use kfs_core::client::{Call, Event, Handle};
use kfs_core::ids::{CallId, FileId, LinkId};
use kfs_core::limits::Limits;
use kfs_core::machine::Input;
use kfs_core::wire::client_chunk::RangeRead;
use kfs_core::wire::client_meta::{Answer, ChunkPlaces, Located, Query, QueryOp};
use kfs_core::wire::{Head, Msg, Role, Status};
use std::net::SocketAddr;
use std::time::Duration;

fn read(rig: &mut Rig, handle: Handle, offset: u64, len: usize) -> CallId {
    rig.call(Call::Read {
        handle,
        offset,
        len,
    })
}

fn data(rig: &mut Rig, id: CallId) -> (Vec<Bytes>, Vec<(u64, SocketAddr)>) {
    let (of, event) = rig.event();
    assert_eq!(of, id);
    let Event::Data { parts, from } = event else {
        panic!("no data: {event:?}")
    };
    (parts, from)
}

/// Brings up the link that is dialed next; which server it is to is the client's chance.
fn any_up(rig: &mut Rig) -> (LinkId, u16) {
    let (link, addr) = rig.dials.pop_front().expect("a replica is dialed");
    rig.open(link, Role::Chunk);
    (link, addr.port() - 22_000)
}

/// A read of the whole first piece with three replicas, up to its first try.
fn trying() -> (Rig, CallId, LinkId, u16) {
    let (mut rig, meta, handle) = Rig::reading(1_500);
    let id = read(&mut rig, handle, 0, 5_000);
    rig.locate(meta, 1_500, &[(0, &[1, 2, 3], 0)]);
    let (link, n) = any_up(&mut rig);
    (rig, id, link, n)
}

/// The next try goes to another server, and gives the bytes.
fn second_try(mut rig: Rig, id: CallId, first: u16) {
    let (link, n) = any_up(&mut rig);
    assert_ne!(n, first);
    let (request, range) = rig.sent_read(link);
    assert_eq!(
        (range.chunk, range.version, range.log.len),
        (chunk(0), VERSION, 1_500)
    );
    assert_eq!((range.offset, range.len), (0, 1_500));
    let body = bytes(0, 1_500);
    rig.range(link, request, &range, body.clone());
    let (parts, from) = data(&mut rig, id);
    assert_eq!(
        (parts[0].as_ptr(), parts.len()),
        (body.as_ptr(), 1),
        "bytes are passed on uncopied"
    );
    assert_eq!(from, [(0, server(n))]);
    rig.quiet();
}

#[test]
fn a_replica_that_refuses_is_passed_over() {
    let (mut rig, id, link, n) = trying();
    let (request, _) = rig.sent_read(link);
    rig.say(
        link,
        request,
        RangeRead {
            outcome: Err(refusal(Status::NotServed)),
        },
    );
    second_try(rig, id, n);
}

#[test]
fn bytes_that_do_not_match_their_sums_are_never_given() {
    let (mut rig, id, link, n) = trying();
    let (request, range) = rig.sent_read(link);
    let sums = Sums::of(GEOMETRY, range.offset, &bytes(0, 1_500));
    let mut wrong = bytes(0, 1_500).to_vec();
    wrong[700] ^= 1;
    let msg = Msg::with_body(request, RangeRead { outcome: Ok(sums) }, Bytes::from(wrong));
    rig.input(Input::Received { link, msg });
    second_try(rig, id, n);
}

#[test]
fn an_answer_that_is_too_short_is_never_given() {
    let (mut rig, id, link, n) = trying();
    let (request, range) = rig.sent_read(link);
    rig.range(link, request, &range, bytes(0, 1_499));
    second_try(rig, id, n);
}

#[test]
fn a_silent_replica_is_passed_over_after_three_seconds_and_its_late_answer_ignored() {
    let (mut rig, id, link, n) = trying();
    let (request, range) = rig.sent_read(link);
    rig.pass(Duration::from_millis(2_900));
    rig.quiet();
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.closes, [link]);
    rig.range(link, request, &range, bytes(0, 1_500));
    assert!(rig.events.is_empty());
    second_try(rig, id, n);
}

#[test]
fn a_replica_that_answers_others_but_not_this_read_is_passed_over() {
    let (mut rig, meta, handle) = Rig::reading(5_000);
    let id = read(&mut rig, handle, 0, 4_000);
    rig.locate(meta, 5_000, &[(0, &[1, 2], 0)]);
    let (link, n) = any_up(&mut rig);
    let (_, _) = rig.sent_read(link);
    for _ in 0..6 {
        let (request, range) = rig.sent_read(link);
        rig.range(
            link,
            request,
            &range,
            bytes(range.offset, range.len as usize),
        );
        rig.pass(Duration::from_millis(2_000));
        read(&mut rig, handle, 4_000, 1_000);
        while rig.events.front().is_some_and(|(of, _)| *of != id) {
            rig.events.pop_front();
        }
    }
    let (link, other) = any_up(&mut rig);
    assert_ne!(n, other);
    let (_, range) = rig.sent_read(link);
    assert_eq!(range.offset, 0);
}

#[test]
fn a_replica_whose_link_closes_is_passed_over() {
    let (mut rig, id, link, n) = trying();
    rig.sent_read(link);
    rig.close(link);
    second_try(rig, id, n);
}

#[test]
fn a_replica_that_cannot_be_connected_is_passed_over() {
    let (mut rig, meta, handle) = Rig::reading(1_500);
    let id = read(&mut rig, handle, 0, 1_500);
    rig.locate(meta, 1_500, &[(0, &[1, 2, 3], 0)]);
    let (link, addr) = rig.dials.pop_front().unwrap();
    rig.refuse_dial(link);
    second_try(rig, id, addr.port() - 22_000);
}

#[test]
fn when_every_copy_is_damaged_the_error_comes_at_once_and_names_them_all() {
    // Of one block: a longer range would be tried block by block before.
    let (mut rig, meta, handle) = Rig::reading(1_500);
    let id = read(&mut rig, handle, 0, 1_000);
    rig.locate(meta, 1_500, &[(0, &[1, 2, 3], 0)]);
    let (mut link, _) = any_up(&mut rig);
    for left in (0..3).rev() {
        let (request, _) = rig.sent_read(link);
        rig.say(
            link,
            request,
            RangeRead {
                outcome: Err(refusal(Status::Corrupt)),
            },
        );
        if left > 0 {
            (link, _) = any_up(&mut rig);
        }
    }
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Corrupt);
    for text in [
        "chunk 0 of /f",
        "127.0.0.1:22001",
        "127.0.0.1:22002",
        "127.0.0.1:22003",
        "KFS-E024",
    ] {
        assert!(failure.what.contains(text), "{text} in: {}", failure.what);
    }
}

#[test]
fn when_one_copy_is_absent_the_others_damaged_it_is_waited_for() {
    let (mut rig, meta, handle) = Rig::reading(1_500);
    let id = read(&mut rig, handle, 0, 1_500);
    rig.locate(meta, 1_500, &[(0, &[1], 2)]);
    let link = rig.chunkserver_up(1);
    let (request, _) = rig.sent_read(link);
    rig.say(
        link,
        request,
        RangeRead {
            outcome: Err(refusal(Status::Corrupt)),
        },
    );
    rig.quiet();
    rig.pass(Duration::from_millis(20));
    rig.locate(meta, 1_500, &[(0, &[2], 2)]);
    let link = rig.chunkserver_up(2);
    let (request, range) = rig.sent_read(link);
    rig.range(link, request, &range, bytes(0, 1_500));
    assert_eq!(data(&mut rig, id).1, [(0, server(2))]);
}

#[test]
fn replicas_are_looked_for_until_the_deadline_and_the_error_says_what_each_said() {
    let (mut rig, meta, handle) = Rig::reading(1_500);
    let begin = rig.now;
    let id = read(&mut rig, handle, 0, 1_500);
    let mut rounds = 0;
    while rig.events.is_empty() {
        if let Some((link, addr)) = rig.dials.pop_front() {
            if addr == server(2) {
                rig.refuse_dial(link);
            } else {
                rig.open(link, Role::Chunk);
            }
        } else if let Some((link, _)) = rig.sends.front() {
            if *link == meta
                && matches!(
                    &rig.sends[0].1.head,
                    Head::Query(Query {
                        op: QueryOp::Hold { .. }
                    })
                )
            {
                let (request, _) = rig.sent_query(meta);
                let idle = Duration::from_secs(120);
                rig.answered(meta, request, Ok(Answer::Held { idle }));
            } else if *link == meta {
                rounds += 1;
                rig.locate(meta, 1_500, &[(0, &[1, 2], 1)]);
            } else {
                let link = *link;
                let (request, _) = rig.sent_read(link);
                rig.say(
                    link,
                    request,
                    RangeRead {
                        outcome: Err(refusal(Status::NotServed)),
                    },
                );
            }
        } else {
            let (next, _) = rig.deadline().unwrap();
            rig.pass(next.since(rig.now));
        }
    }
    assert_eq!(rig.now.since(begin), TIMEOUT);
    assert!(
        (20..200).contains(&rounds),
        "waits grow between {rounds} rounds"
    );
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::NoReplica);
    for text in [
        "127.0.0.1:22001: [KFS-E023]",
        "127.0.0.1:22002: [KFS-E040]",
        "1 more",
        "gave up after 60s",
    ] {
        assert!(failure.what.contains(text), "{text} in: {}", failure.what);
    }
    // The file is open still.
    rig.sends.retain(|(link, _)| *link != meta);
    rig.quiet();
}

#[test]
fn a_read_over_several_chunks_and_a_hole_comes_in_order_however_it_arrives() {
    let (mut rig, meta, handle) = Rig::reading(14_000);
    let id = read(&mut rig, handle, 3_500, 20_000);
    rig.locate(meta, 14_000, &[(0, &[1], 0), (2, &[1], 0)]);
    let link = rig.chunkserver_up(1);
    let mut asked: Vec<_> = (0..rig.sends.len()).map(|_| rig.sent_read(link)).collect();
    let ranges: Vec<_> = asked
        .iter()
        .map(|(_, r)| (r.chunk, r.offset, r.len, r.log.len))
        .collect();
    let (first, third) = (chunk(0), chunk(2));
    assert_eq!(
        ranges,
        [
            (first, 3_500, 500, 5_000),
            (first, 4_000, 1_000, 5_000),
            (third, 0, 2_000, 4_000),
            (third, 2_000, 2_000, 4_000)
        ]
    );
    asked.reverse();
    for (request, range) in asked {
        let at = (range.chunk.0 - 100) * 5_000 + range.offset;
        rig.range(link, request, &range, bytes(at, range.len as usize));
    }
    let (parts, from) = data(&mut rig, id);
    assert_eq!(from, [(0, server(1)), (2, server(1))]);
    let whole = parts.concat();
    assert_eq!(whole[..1_500], bytes(3_500, 1_500));
    assert!(
        whole[1_500..6_500].iter().all(|byte| *byte == 0),
        "a hole is zeros"
    );
    assert_eq!(whole[6_500..], bytes(10_000, 4_000));
    assert_eq!(read(&mut rig, handle, 14_000, 10), CallId(3));
    assert!(
        data(&mut rig, CallId(3)).0.is_empty(),
        "nothing is past the end"
    );
}

#[test]
fn no_more_pieces_are_in_flight_than_may_be_held() {
    let limits = Limits {
        read_ahead_bytes: 4_000,
        ..limits()
    };
    let (mut rig, meta, handle) = Rig::reading_with(limits, 100_000);
    read(&mut rig, handle, 0, 100_000);
    let chunks: Vec<_> = (0..20).map(|index| (index, &[1_u16][..], 0)).collect();
    rig.locate(meta, 100_000, &chunks);
    let link = rig.chunkserver_up(1);
    assert_eq!(rig.sends.len(), 2);
    let (request, range) = rig.sent_read(link);
    rig.range(link, request, &range, bytes(0, 2_000));
    assert_eq!(rig.sends.len(), 2, "one came, one more is asked for");
}

#[test]
fn a_file_that_was_removed_is_an_error_that_says_so() {
    let (mut rig, meta, handle) = Rig::reading(1_500);
    let id = read(&mut rig, handle, 0, 1_500);
    let (request, _) = rig.sent_query(meta);
    rig.answered(meta, request, Err(refusal(Status::NotFound)));
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::NotFound);
    assert!(failure.what.contains("/f"), "{}", failure.what);
}

#[test]
fn a_closed_file_answers_its_reads_and_is_gone() {
    let (mut rig, id, _, _) = trying();
    let close = rig.call(Call::Close(Handle(1)));
    assert_eq!(rig.failed(id).status, Status::BadRequest);
    rig.done(close);
    assert!(matches!(
        rig.sends.pop_back().expect("it lets go of the file").1.head,
        Head::Query(Query {
            op: QueryOp::Release { file: FileId(9) }
        })
    ));
    let id = read(&mut rig, Handle(1), 0, 1);
    assert_eq!(rig.failed(id).status, Status::BadRequest);
}

#[test]
fn where_chunks_are_is_asked_once_for_many_reads() {
    let (mut rig, meta, handle) = Rig::reading(10_000);
    read(&mut rig, handle, 0, 1_000);
    read(&mut rig, handle, 5_000, 1_000);
    rig.locate(meta, 10_000, &[(0, &[1], 0), (1, &[1], 0)]);
    let link = rig.chunkserver_up(1);
    rig.sent_read(link);
    rig.sent_read(link);
    read(&mut rig, handle, 2_000, 1_000);
    rig.sent_read(link);
    rig.quiet();
}

#[test]
fn a_chunk_shorter_than_its_share_ends_in_zeros_and_is_not_asked_for_more() {
    // 1,300 bytes were written to chunk 0 before the file went on in chunk 1.
    let (mut rig, meta, handle) = Rig::reading(6_000);
    let id = read(&mut rig, handle, 0, 5_500);
    let (request, _) = rig.sent_query(meta);
    let places = |index, len| ChunkPlaces {
        index,
        chunk: chunk(index),
        version: VERSION,
        log: durable(len),
        replicas: vec![place(1)],
        absent: 0,
    };
    let located = Located {
        size: 6_000,
        geometry: GEOMETRY,
        chunks: vec![places(0, 1_300), places(1, 1_000)],
    };
    rig.answered(meta, request, Ok(Answer::Located(located)));
    let (link, _) = any_up(&mut rig);
    for (len, log_len) in [(1_300, 1_300), (500, 1_000)] {
        let (request, range) = rig.sent_read(link);
        assert_eq!((range.len, range.log.len), (len, log_len));
        rig.range(link, request, &range, bytes(0, len as usize));
    }
    let (parts, _) = data(&mut rig, id);
    let whole = parts.concat();
    assert_eq!(whole.len(), 5_500);
    assert_eq!(whole[..1_300], bytes(0, 1_300));
    assert!(whole[1_300..5_000].iter().all(|byte| *byte == 0));
    assert_eq!(whole[5_000..], bytes(0, 500));
    rig.quiet();
}

#[test]
fn a_file_that_was_cut_while_it_is_read_ends_there_and_so_does_every_later_read() {
    for (cut, chunks) in [(900, 1), (0, 0), (7_000, 2)] {
        let (mut rig, meta, handle) = Rig::reading(8_500);
        let id = read(&mut rig, handle, 500, 1_000);
        rig.locate(meta, 8_500, &[(0, &[1], 0), (1, &[1], 0)]);
        let (link, _) = any_up(&mut rig);
        let (request, _) = rig.sent_read(link);
        let outcome = Err(refusal(Status::NotServed));
        rig.say(link, request, RangeRead { outcome });
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
        let there: [(u64, &[u16], u32); 2] = [(0, &[1], 0), (1, &[1], 0)];
        rig.locate(meta, cut, &there[..chunks]);
        let left = usize::try_from(cut.saturating_sub(500).min(1_000)).unwrap();
        if left > 0 {
            let (request, range) = rig.sent_read(link);
            assert_eq!((range.offset, range.len as usize), (500, left));
            rig.range(link, request, &range, bytes(500, left));
        }
        let (parts, _) = data(&mut rig, id);
        assert_eq!(parts.concat(), bytes(500, left), "cut at {cut}");
        // What was known of the chunk behind is of before.
        let id = read(&mut rig, handle, 6_000, 4_000);
        if cut <= 6_000 {
            let (parts, _) = data(&mut rig, id);
            assert!(parts.is_empty(), "cut at {cut}");
            continue;
        }
        let (request, range) = rig.sent_read(link);
        assert_eq!((range.offset, range.len), (1_000, 1_000));
        rig.range(link, request, &range, bytes(6_000, 1_000));
        let (parts, _) = data(&mut rig, id);
        assert_eq!(parts.concat(), bytes(6_000, 1_000));
    }
}

#[test]
fn blocks_that_are_bad_on_one_replica_each_are_read_from_the_other() {
    let (mut rig, meta, handle) = Rig::reading(2_000);
    let id = read(&mut rig, handle, 0, 2_000);
    rig.locate(meta, 2_000, &[(0, &[1, 2], 0)]);
    let mut links = std::collections::BTreeMap::new();
    // Block 0 is bad on server 1, block 1 on server 2: no server gives the whole.
    for round in 0..20 {
        while let Some((link, addr)) = rig.dials.pop_front() {
            rig.open(link, Role::Chunk);
            links.insert(link, addr.port() - 22_000);
        }
        let Some(link) = rig.sends.front().map(|(link, _)| *link) else {
            assert!(!rig.events.is_empty(), "stuck in round {round}");
            break;
        };
        let (request, range) = rig.sent_read(link);
        let bad = if links[&link] == 1 { 0 } else { 1_000 };
        if (range.offset..range.offset + u64::from(range.len)).contains(&bad) {
            let outcome = Err(refusal(Status::Corrupt));
            rig.say(link, request, RangeRead { outcome });
        } else {
            rig.range(
                link,
                request,
                &range,
                bytes(range.offset, range.len as usize),
            );
        }
    }
    let (parts, _) = data(&mut rig, id);
    assert_eq!(parts.concat(), bytes(0, 2_000));
    rig.quiet();
}
