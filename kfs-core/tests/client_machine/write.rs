//! Writes: pieces and their edges, the window, syncs, lost links, broken chains, size reports.
use crate::rig::{
    GEOMETRY, Rig, SESSION, TIMEOUT, ToHead, VERSION, bytes, chunk, durable, limits, place,
    refusal, server,
};
use bytes::Bytes;
use kfs_core::block::Sums;
use kfs_core::client::{Call, Handle};
use kfs_core::ids::{CallId, FileId, LinkId, LogSeq, PieceNumber, WriteSeq};
use kfs_core::limits::Limits;
use kfs_core::time::Instant;
use kfs_core::wire::client_chunk::{Durable, PieceDone, SyncDone};
use kfs_core::wire::client_meta::{
    Done, Grant, HeadSeen, MutateOp, Renewed, SessionOpened, SyncedChunk, WriterStays,
};
use kfs_core::wire::{Head, Msg, Role, Status};
use std::time::Duration;

pub(crate) fn write(rig: &mut Rig, handle: Handle, offset: u64, len: usize) -> CallId {
    rig.call(Call::Write {
        handle,
        offset,
        data: bytes(offset, len),
    })
}

pub(crate) fn wide() -> Limits {
    Limits {
        write_window_bytes: 1 << 20,
        sync_every_bytes: 1 << 20,
        ..limits()
    }
}

pub(crate) fn briefs(sent: &[ToHead]) -> Vec<(u64, u64, u64, usize)> {
    sent.iter().map(ToHead::brief).collect()
}

/// Acks all pieces, and all syncs with the length that the sent bytes make.
fn ack(rig: &mut Rig, sent: &[ToHead], lens: &[(u64, u64)]) {
    for one in sent {
        match one {
            ToHead::Piece(link, request, piece, _) => rig.piece_done(*link, *request, piece),
            ToHead::Sync(link, request, sync) => {
                let index = sync.chunk.0 - 100;
                let (_, len) = lens
                    .iter()
                    .find(|(of, _)| *of == index)
                    .expect("a length for the chunk");
                rig.sync_done(*link, *request, sync.chunk, *len);
            }
        }
    }
}

pub(crate) fn size_report(
    rig: &mut Rig,
    meta: LinkId,
) -> (u64, u64, Vec<SyncedChunk>, WriterStays) {
    let (request, mutate) = rig.sent_mutation(meta);
    let MutateOp::SetSize {
        file: FileId(9),
        size,
        basis,
        writer,
    } = mutate.op
    else {
        panic!("{mutate:?}")
    };
    (request, size, basis, writer)
}

fn synced(index: u64, synced_len: u64) -> SyncedChunk {
    SyncedChunk {
        index,
        chunk: chunk(index),
        version: VERSION,
        synced: durable(synced_len),
    }
}

/// A file whose first chunk is granted and 2,000 bytes of it sent as piece 1.
fn one_piece(limits: Limits) -> (Rig, LinkId, Handle, LinkId) {
    let (mut rig, meta, handle) = Rig::writing(limits);
    let id = write(&mut rig, handle, 0, 2_000);
    rig.done(id);
    rig.grant(meta, 0);
    let head = rig.chunkserver_up(1);
    (rig, meta, handle, head)
}

#[test]
fn who_is_not_heard_by_the_meta_server_sends_nothing_to_chunkservers() {
    // A session may be idle for 120 s. The meta server says nothing after this time.
    for (silent, sends) in [(85, true), (95, false)] {
        let (mut rig, _, handle, head) = one_piece(wide());
        let sent = rig.sent_to_heads();
        ack(&mut rig, &sent, &[(0, 2_000)]);
        rig.close(head);
        rig.pass(Duration::from_secs(silent));
        rig.dials.clear();
        write(&mut rig, handle, 100, 3_000);
        let dialed = rig.dials.iter().any(|(_, addr)| *addr == place(1).addr);
        assert_eq!(dialed, sends, "after {silent} s");
    }
}

#[test]
fn pieces_never_cross_chunk_edges_and_carry_their_sums() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let id = write(&mut rig, handle, 500, 11_000);
    rig.done(id);
    for index in 0..3 {
        rig.grant(meta, index);
    }
    let head = rig.chunkserver_up(1);
    let close = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    let pieces: Vec<_> = sent
        .iter()
        .filter(|one| one.piece().is_some())
        .map(ToHead::brief)
        .collect();
    assert_eq!(
        pieces,
        [
            (0, 1, 500, 1_500),
            (0, 2, 2_000, 2_000),
            (0, 3, 4_000, 1_000),
            (1, 1, 0, 2_000),
            (1, 2, 2_000, 2_000),
            (1, 3, 4_000, 1_000),
            (2, 1, 0, 1_000),
            (2, 2, 1_000, 500)
        ]
    );
    for one in &sent {
        if let ToHead::Piece(link, _, piece, body) = one {
            assert_eq!(*link, head);
            assert_eq!((piece.session, piece.version), (SESSION, VERSION));
            assert_eq!(piece.sums, Sums::of(GEOMETRY, piece.offset, body));
            assert_eq!(
                body,
                &bytes((piece.chunk.0 - 100) * 5_000 + piece.offset, body.len())
            );
        }
    }
    ack(&mut rig, &sent, &[(0, 5_000), (1, 5_000), (2, 1_500)]);
    let (request, size, _, _) = size_report(&mut rig, meta);
    assert_eq!(size, 11_500);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
}

#[test]
fn small_writes_are_gathered_until_a_piece_is_full_or_a_sync_comes() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    for at in (0..2_400).step_by(300) {
        let id = write(&mut rig, handle, at, 300);
        rig.done(id);
    }
    rig.grant(meta, 0);
    let _head = rig.chunkserver_up(1);
    assert_eq!(briefs(&rig.sent_to_heads()), [(0, 1, 0, 2_000)]);
    rig.call(Call::Sync(handle));
    assert_eq!(
        briefs(&rig.sent_to_heads()),
        [(0, 2, 2_000, 400), (0, 2, 0, 0)]
    );
}

#[test]
fn a_full_window_makes_writes_wait_until_a_sync_moves_it() {
    let (mut rig, _, handle, _) = one_piece(Limits {
        write_window_bytes: 4_600,
        ..wide()
    });
    let second = write(&mut rig, handle, 2_000, 2_000);
    rig.done(second);
    let third = write(&mut rig, handle, 4_000, 1_000);
    assert!(
        rig.events.is_empty(),
        "4,600 bytes are held with what pieces cost"
    );
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Mutate(_)));
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [(0, 1, 0, 2_000), (0, 2, 2_000, 2_000), (0, 2, 0, 0)],
        "a full window forces a sync"
    );
    for one in &sent[..2] {
        ack(&mut rig, std::slice::from_ref(one), &[]);
    }
    assert!(rig.events.is_empty(), "acks do not move the window");
    ack(&mut rig, &sent[2..], &[(0, 4_000)]);
    rig.done(third);
    assert_eq!(
        briefs(&rig.sent_to_heads()),
        [(0, 3, 4_000, 1_000), (0, 3, 0, 0)],
        "a full chunk is synced"
    );
}

#[test]
fn background_syncs_fall_on_block_edges() {
    let (mut rig, _, handle, _) = one_piece(Limits {
        sync_every_bytes: 500,
        ..wide()
    });
    let sent = rig.sent_to_heads();
    assert_eq!(briefs(&sent), [(0, 1, 0, 2_000), (0, 1, 0, 0)]);
    ack(&mut rig, &sent, &[(0, 2_000)]);
    // A piece that ends within a block, because the next write does not follow it.
    write(&mut rig, handle, 2_000, 700);
    write(&mut rig, handle, 3_000, 100);
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Mutate(_)));
    assert_eq!(
        briefs(&rig.sent_to_heads()),
        [(0, 2, 2_000, 700)],
        "no sync: the block's rest may still come"
    );
    write(&mut rig, handle, 2_700, 300);
    assert_eq!(briefs(&rig.sent_to_heads()), [(0, 3, 3_000, 100)]);
    write(&mut rig, handle, 3_100, 900);
    assert_eq!(
        briefs(&rig.sent_to_heads()),
        [(0, 4, 2_700, 300), (0, 5, 3_100, 900), (0, 5, 0, 0)]
    );
}

#[test]
fn a_lost_link_sends_the_same_pieces_with_the_same_numbers_again() {
    let (mut rig, _, handle, head) = one_piece(wide());
    write(&mut rig, handle, 2_000, 2_000);
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Mutate(_)));
    let sync = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent[..1], &[]);
    rig.close(head);
    rig.events.clear();
    rig.pass(Duration::from_millis(20));
    let head = rig.chunkserver_up(1);
    let again = rig.sent_to_heads();
    assert_eq!(
        briefs(&again),
        [(0, 2, 2_000, 2_000), (0, 2, 0, 0)],
        "what is on every replica is not sent again"
    );
    assert_eq!(again[0].piece(), sent[1].piece());
    // A late answer of the old link changes nothing.
    ack(&mut rig, &sent[1..], &[(0, 4_000)]);
    assert!(rig.sends.is_empty());
    let [ToHead::Piece(link, ..), ..] = &again[..] else {
        panic!()
    };
    assert_eq!(*link, head);
    ack(&mut rig, &again, &[(0, 4_000)]);
    assert!(
        matches!(rig.sends[0].1.head, Head::Mutate(_)),
        "the size is reported"
    );
    assert!(rig.events.iter().all(|(of, _)| *of != sync));
}

#[test]
fn a_broken_chain_fails_the_file_for_good_and_says_which_server_and_why() {
    let (mut rig, meta, handle, head) = one_piece(wide());
    let sync = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    let ToHead::Piece(_, request, piece, _) = &sent[0] else {
        panic!()
    };
    let outcome = Err(refusal(Status::ChainBroken));
    rig.say(
        head,
        *request,
        PieceDone {
            chunk: piece.chunk,
            piece: piece.piece,
            outcome,
        },
    );
    rig.quiet_until_rechained(meta, HeadSeen::Reached);
    let failure = rig.failed(sync);
    assert_eq!(failure.status, Status::ChainBroken);
    for text in [
        "chunk 0 of /f",
        "127.0.0.1:22001 -> 127.0.0.1:22002 -> 127.0.0.1:22003",
        "because KFS-E022",
        "no other chain can be had: because KFS-E020",
    ] {
        assert!(failure.what.contains(text), "{text} in: {}", failure.what);
    }
    let later = write(&mut rig, handle, 2_000, 10);
    assert_eq!(rig.failed(later), failure);
    let later = rig.call(Call::Sync(handle));
    assert_eq!(rig.failed(later), failure);
    ack(&mut rig, &sent[1..], &[(0, 2_000)]);
    rig.quiet_sends();
    let close = rig.call(Call::Close(handle));
    assert_eq!(rig.failed(close), failure);
    let (_, size, basis, writer) = size_report(&mut rig, meta);
    assert_eq!(
        (size, basis.len(), writer),
        (0, 0, WriterStays::Closed),
        "the grant is given back"
    );
    let gone = rig.call(Call::Sync(handle));
    assert_eq!(rig.failed(gone).status, Status::BadRequest);
}

#[test]
fn a_refused_sync_fails_the_file() {
    let (mut rig, meta, handle, head) = one_piece(wide());
    let close = rig.call(Call::Close(handle));
    let sent = rig.sent_to_heads();
    let ToHead::Sync(_, request, sync) = &sent[1] else {
        panic!()
    };
    rig.say(
        head,
        *request,
        SyncDone {
            chunk: sync.chunk,
            outcome: Err(refusal(Status::NotServed)),
        },
    );
    rig.quiet_until_rechained(meta, HeadSeen::Reached);
    assert_eq!(rig.failed(close).status, Status::NotServed);
}

/// Writes, syncs, and lets the head say what is durable; gives the call of the sync.
fn write_and_sync(rig: &mut Rig, handle: Handle, at: (u64, usize), says: (u64, u64)) -> CallId {
    let written = write(rig, handle, at.0, at.1);
    rig.done(written);
    let call = rig.call(Call::Sync(handle));
    // The next chunk is asked for ahead: not here.
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Mutate(_)));
    let wseq = WriteSeq(says.1);
    for one in rig.sent_to_heads() {
        match one {
            ToHead::Piece(link, request, piece, _) => rig.piece_done(link, request, &piece),
            ToHead::Sync(link, request, sync) => {
                let (chunk, len) = (sync.chunk, says.0);
                let outcome = Ok(Durable { len, wseq });
                rig.say(link, request, SyncDone { chunk, outcome });
            }
        }
    }
    call
}

#[test]
fn a_sync_of_a_hole_is_reported_though_the_file_is_as_long_as_before() {
    let (mut rig, meta, handle, _) = one_piece(wide());
    for (at, wseq) in [((3_000, 1_000), 2), ((2_000, 1_000), 3)] {
        let call = write_and_sync(&mut rig, handle, at, (4_000, wseq));
        let (request, size, basis, _) = size_report(&mut rig, meta);
        assert_eq!((size, basis[0].synced.len), (4_000, 4_000));
        assert_eq!(basis[0].synced.wseq, WriteSeq(wseq));
        rig.mutated(meta, request, Ok(Done::Ok));
        rig.done(call);
    }
}

#[test]
fn a_head_whose_syncs_go_back_to_an_earlier_write_is_not_believed() {
    for wseq in [0, 1] {
        let (mut rig, meta, handle, _) = one_piece(wide());
        let call = write_and_sync(&mut rig, handle, (2_000, 1_000), (3_000, 2));
        let (request, ..) = size_report(&mut rig, meta);
        rig.mutated(meta, request, Ok(Done::Ok));
        rig.done(call);
        let call = write_and_sync(&mut rig, handle, (3_000, 500), (3_500, wseq));
        assert_eq!(rig.failed(call).status, Status::Protocol, "write {wseq}");
    }
}

#[test]
fn a_head_that_says_less_is_durable_than_was_synced_is_not_believed() {
    let (mut rig, _, handle, _) = one_piece(wide());
    let close = rig.call(Call::Close(handle));
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(0, 1_999)]);
    assert_eq!(rig.failed(close).status, Status::Protocol);
}

#[test]
fn a_busy_head_is_sent_the_same_pieces_again() {
    let (mut rig, meta, handle, head) = one_piece(wide());
    write(&mut rig, handle, 2_000, 2_000);
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Mutate(_)));
    rig.events.clear();
    let sent = rig.sent_to_heads();
    let refuse = |rig: &mut Rig, one: &ToHead, status| {
        let ToHead::Piece(_, request, piece, _) = one else {
            panic!()
        };
        let outcome = Err(refusal(status));
        rig.say(
            head,
            *request,
            PieceDone {
                chunk: piece.chunk,
                piece: piece.piece,
                outcome,
            },
        );
    };
    refuse(&mut rig, &sent[0], Status::Busy);
    refuse(&mut rig, &sent[1], Status::BadRequest);
    rig.quiet();
    rig.pass(Duration::from_millis(20));
    let again = rig.sent_to_heads();
    assert_eq!(briefs(&again), briefs(&sent));
    // Damaged on the way is sent again too, but not for ever.
    let mut last = again;
    for _ in 0..2 {
        refuse(&mut rig, &last[0], Status::Corrupt);
        rig.pass(Duration::from_millis(200));
        last = rig.sent_to_heads();
        assert_eq!(briefs(&last), briefs(&sent));
    }
    refuse(&mut rig, &last[0], Status::Corrupt);
    let sync = rig.call(Call::Sync(handle));
    rig.quiet_until_rechained(meta, HeadSeen::Lost);
    assert_eq!(rig.failed(sync).status, Status::Corrupt);
}

impl Rig {
    /// Nothing has failed yet, and another chain was asked for, for the first time: the meta server has none.
    fn quiet_until_rechained(&mut self, meta: LinkId, head: HeadSeen) {
        assert!(self.events.is_empty(), "{:?}", self.events);
        let request = self.asked_for_chain(meta, Durable::default(), head, 0);
        self.quiet_sends();
        self.mutated(meta, request, Err(refusal(Status::NoServers)));
    }
}

#[test]
fn for_a_head_that_is_gone_another_chain_is_asked_for_after_a_fifth_of_a_second() {
    let (mut rig, meta, handle, head) = one_piece(wide());
    let sync = rig.call(Call::Sync(handle));
    rig.sends.clear();
    rig.close(head);
    let begin = rig.now;
    while rig.sends.is_empty() {
        if let Some((link, addr)) = rig.dials.pop_front() {
            assert_eq!(addr, server(1));
            rig.refuse_dial(link);
        }
        let (next, _) = rig.deadline().unwrap();
        rig.pass(next.since(rig.now));
    }
    assert_eq!(rig.now.since(begin), Duration::from_millis(200));
    rig.quiet_until_rechained(meta, HeadSeen::Lost);
    let failure = rig.failed(sync);
    assert_eq!(failure.status, Status::ChainBroken);
    assert!(
        failure.what.contains("127.0.0.1:22001")
            && failure.what.contains("connection refused")
            && failure.what.contains("no other chain can be had"),
        "{}",
        failure.what
    );
}

#[test]
fn for_a_head_that_takes_pieces_and_never_acks_another_chain_is_asked_for_later_each_time_and_not_for_ever()
 {
    let (mut rig, mut meta, handle, _) = one_piece(wide());
    let sync = rig.call(Call::Sync(handle));
    let begin = rig.now;
    let mut asked: Vec<Instant> = vec![];
    while rig.events.is_empty() {
        if let Some((link, addr)) = rig.dials.pop_front() {
            if addr == server(1) {
                rig.open(link, Role::Chunk);
            } else {
                meta = link;
                rig.open(link, Role::Meta);
            }
        }
        while let Some((link, msg)) = rig.sends.pop_front() {
            match msg.head {
                Head::Renew(_) => rig.say(link, msg.request, Renewed { outcome: Ok(()) }),
                Head::OpenSession(open) => {
                    assert_eq!(open.resume, Some(SESSION));
                    rig.sends.push_front((link, Msg::new(msg.request, open)));
                    rig.grant_session(link, SESSION);
                }
                Head::Mutate(mutate) => {
                    assert_eq!(link, meta);
                    let MutateOp::Rechain { broken, .. } = mutate.op else {
                        panic!("another chain is asked for: {mutate:?}")
                    };
                    if asked.len() < 3 {
                        assert_eq!(broken as usize, asked.len());
                        asked.push(rig.now);
                    }
                    if asked.len() < 3 {
                        let grant = Grant {
                            index: 0,
                            chunk: chunk(0),
                            version: VERSION,
                            chain: vec![place(1)],
                            from: PieceNumber(0),
                            to: PieceNumber(0),
                        };
                        rig.mutated(link, msg.request, Ok(Done::Granted(grant)));
                    }
                }
                _ => {}
            }
        }
        let (next, _) = rig.deadline().unwrap();
        rig.pass(next.since(rig.now));
    }
    let waited = [begin, asked[0], asked[1], asked[2]]
        .windows(2)
        .map(|two| two[1].since(two[0]).as_secs())
        .collect::<Vec<_>>();
    assert_eq!(
        waited,
        [6, 12, (TIMEOUT / 3).as_secs()],
        "a disk that is slow gains nothing by another chain"
    );
    assert_eq!(rig.now.since(asked[0]), TIMEOUT, "nothing got done");
    let failure = rig.failed(sync);
    assert_eq!(failure.status, Status::TimedOut);
    assert!(
        failure.what.contains("127.0.0.1:22001")
            && failure.what.contains("no other chain can be had"),
        "{failure}"
    );
}

#[test]
fn the_size_report_names_every_chunk_once_and_always_the_last() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    write(&mut rig, handle, 0, 12_000);
    rig.events.clear();
    for index in 0..3 {
        rig.grant(meta, index);
    }
    rig.chunkserver_up(1);
    let sync = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(0, 5_000), (1, 5_000), (2, 2_000)]);
    let (request, size, basis, writer) = size_report(&mut rig, meta);
    assert_eq!((size, writer), (12_000, WriterStays::Open));
    assert_eq!(
        basis,
        [synced(0, 5_000), synced(1, 5_000), synced(2, 2_000)]
    );
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
    let sync = rig.call(Call::Sync(handle));
    rig.done(sync);
    rig.quiet();
    let id = write(&mut rig, handle, 12_000, 2_000);
    rig.done(id);
    let close = rig.call(Call::Close(handle));
    // The chunk is nearly full, so the next one is asked for.
    let ahead = rig
        .sends
        .iter()
        .position(|(link, _)| *link == meta)
        .unwrap();
    let (_, ahead) = rig.sends.remove(ahead).unwrap();
    let is_next = |op: &MutateOp| matches!(op, MutateOp::Allocate { index: 3, .. });
    assert!(matches!(&ahead.head, Head::Mutate(mutate) if is_next(&mutate.op)));
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(2, 4_000)]);
    let (request, size, basis, writer) = size_report(&mut rig, meta);
    assert_eq!((size, writer), (14_000, WriterStays::Closed));
    assert_eq!(basis, [synced(2, 4_000)]);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
    rig.quiet();
}

#[test]
fn an_empty_file_is_closed_with_a_size_of_nothing() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let sync = rig.call(Call::Sync(handle));
    rig.done(sync);
    let close = rig.call(Call::Close(handle));
    let (request, size, basis, writer) = size_report(&mut rig, meta);
    assert_eq!((size, basis.len(), writer), (0, 0, WriterStays::Closed));
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
}

#[test]
fn a_refused_size_fails_the_close() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let close = rig.call(Call::Close(handle));
    let (request, ..) = size_report(&mut rig, meta);
    rig.mutated(meta, request, Err(refusal(Status::NotFound)));
    let failure = rig.failed(close);
    assert_eq!(failure.status, Status::NotFound);
    assert!(failure.what.contains("size 0 of /f"), "{}", failure.what);
}

#[test]
fn the_next_chunk_is_asked_for_before_this_one_is_full_and_its_refusal_does_no_harm() {
    let (mut rig, meta, handle, _) = one_piece(wide());
    let id = write(&mut rig, handle, 2_000, 2_000);
    rig.done(id);
    let (link, msg) = rig
        .sends
        .iter()
        .find(|(link, _)| *link == meta)
        .cloned()
        .expect("it asks ahead");
    assert!(
        matches!(&msg.head, Head::Mutate(m) if matches!(m.op, MutateOp::Allocate { index: 1, .. }))
    );
    rig.sends.clear();
    rig.mutated(link, msg.request, Err(refusal(Status::NoRoom)));
    rig.quiet();
    // Needed in earnest, it is asked for again, and its refusal is the file's.
    let id = write(&mut rig, handle, 4_000, 2_000);
    rig.done(id);
    rig.sends.retain(|(link, _)| *link == meta);
    let (request, _) = rig.sent_mutation(meta);
    rig.mutated(meta, request, Err(refusal(Status::NoRoom)));
    let sync = rig.call(Call::Sync(handle));
    let failure = rig.failed(sync);
    assert_eq!(failure.status, Status::NoRoom);
    assert!(
        failure.what.contains("chunk 1 for /f") && failure.what.contains("because KFS-E021"),
        "{}",
        failure.what
    );
}

#[test]
fn a_chunk_before_the_last_is_given_its_full_length() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    write(&mut rig, handle, 0, 1_000);
    write(&mut rig, handle, 11_000, 1_000);
    rig.events.clear();
    rig.grant(meta, 0);
    rig.grant(meta, 2);
    rig.chunkserver_up(1);
    let close = rig.call(Call::Close(handle));
    let sent = rig.sent_to_heads();
    assert!(
        briefs(&sent).contains(&(0, 2, 4_999, 1)),
        "{:?}",
        briefs(&sent)
    );
    ack(&mut rig, &sent, &[(0, 5_000), (2, 2_000)]);
    let (request, size, basis, _) = size_report(&mut rig, meta);
    assert_eq!(size, 12_000);
    assert_eq!(
        basis,
        [synced(0, 5_000), synced(2, 2_000)],
        "a chunk that is a hole is not named"
    );
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
}

#[test]
fn a_report_of_an_earlier_chunk_names_the_last_one_again() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    write(&mut rig, handle, 11_000, 1_000);
    rig.events.clear();
    rig.grant(meta, 2);
    rig.chunkserver_up(1);
    let sync = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(2, 2_000)]);
    let (request, ..) = size_report(&mut rig, meta);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
    let id = write(&mut rig, handle, 0, 1_000);
    rig.done(id);
    rig.grant(meta, 0);
    rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(0, 5_000)]);
    let (_, size, basis, _) = size_report(&mut rig, meta);
    assert_eq!(size, 12_000);
    assert_eq!(basis, [synced(0, 5_000), synced(2, 2_000)]);
}

#[test]
fn bytes_of_a_full_chunk_are_written_over_in_its_chain() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    write(&mut rig, handle, 0, 5_000);
    rig.events.clear();
    rig.grant(meta, 0);
    rig.grant(meta, 1);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(0, 5_000)]);
    write(&mut rig, handle, 100, 2_000);
    rig.events.clear();
    let sync = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    let pieces = [(0, 4, 100, 1_900), (0, 5, 2_000, 100), (0, 5, 0, 0)];
    assert_eq!(briefs(&sent), pieces, "and its sync");
    ack(&mut rig, &sent, &[(0, 5_000)]);
    let (request, size, ..) = size_report(&mut rig, meta);
    assert_eq!(size, 5_000);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
}

#[test]
fn a_grant_that_was_not_asked_for_is_not_used() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let id = write(&mut rig, handle, 0, 2_000);
    rig.done(id);
    let (request, _) = rig.sent_mutation(meta);
    let grant = Grant {
        index: 4,
        chunk: chunk(4),
        version: VERSION,
        chain: vec![place(1)],
        from: PieceNumber(0),
        to: PieceNumber(0),
    };
    rig.mutated(meta, request, Ok(Done::Granted(grant)));
    let sync = rig.call(Call::Sync(handle));
    assert_eq!(rig.failed(sync).status, Status::Protocol);
}

#[test]
fn a_lost_session_fails_the_files_it_wrote() {
    let (mut rig, meta, handle, _) = one_piece(wide());
    rig.sends.clear();
    let close = rig.call(Call::Close(handle));
    rig.sends.clear();
    rig.close(meta);
    rig.pass(Duration::from_millis(20));
    let meta = rig.meta_up();
    let open = rig.sent(meta);
    let outcome = Err(refusal(Status::SessionExpired));
    rig.say(
        meta,
        open.request,
        SessionOpened {
            seq: LogSeq(9),
            outcome,
        },
    );
    let failure = rig.failed(close);
    assert_eq!(failure.status, Status::SessionExpired);
    let gone = rig.call(Call::Sync(handle));
    assert_eq!(
        rig.failed(gone).status,
        Status::BadRequest,
        "the close was its end"
    );
}

#[test]
fn an_abandoned_file_stays_as_last_reported() {
    let (mut rig, meta, handle, _) = one_piece(wide());
    rig.sends.clear();
    let sync = rig.call(Call::Sync(handle));
    rig.sends.clear();
    let abandon = rig.call(Call::Abandon(handle));
    assert_eq!(rig.failed(sync).status, Status::BadRequest);
    rig.done(abandon);
    let (_, size, basis, writer) = size_report(&mut rig, meta);
    assert_eq!((size, basis.len(), writer), (0, 0, WriterStays::Closed));
}

#[test]
fn writes_past_what_a_file_can_be_are_refused_and_do_no_harm() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let id = rig.call(Call::Write {
        handle,
        offset: u64::MAX,
        data: Bytes::from_static(b"xy"),
    });
    assert_eq!(rig.failed(id).status, Status::BadRequest);
    let id = rig.call(Call::Write {
        handle,
        offset: 0,
        data: Bytes::new(),
    });
    rig.done(id);
    let close = rig.call(Call::Close(handle));
    let (request, size, ..) = size_report(&mut rig, meta);
    assert_eq!(size, 0);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
}
