//! A file that others have written is written further: where it goes on, what is told of it, and what becomes of it when
//! that fails.
use crate::rig::{GEOMETRY, Rig, SESSION, TIMEOUT, ToHead, VERSION, bytes, chunk, place, refusal};
use crate::write::{briefs, size_report, wide, write};
use kfs_core::block::Sums;
use kfs_core::client::{Call, Event, Failure, Handle};
use kfs_core::ids::{CallId, FileId, LinkId, LogSeq, PieceNumber, SessionId, WriteSeq};
use kfs_core::wire::client_chunk::{Durable, PieceDone, SyncDone};
use kfs_core::wire::client_meta::{
    At, Done, Grant, HeadSeen, MutateOp, Renewed, SessionOpened, SyncedChunk, WriterStays,
};
use kfs_core::wire::{Head, Refusal, Status};
use std::time::Duration;

pub(crate) const FILE: FileId = FileId(9);
pub(crate) const CHUNK: u64 = 5_000;
/// The write that the members of a chunk are raised to which is taken over for the first time.
pub(crate) const RAISED: u64 = 1 << 40;

pub(crate) fn append() -> MutateOp {
    MutateOp::Append { at: At::root("f") }
}
/// The answer to it: the file has this size.
pub(crate) fn may_append(size: u64) -> Done {
    Done::Appending {
        file: FILE,
        replication: 3,
        size,
    }
}
pub(crate) fn grant(index: u64, from: u64) -> Grant {
    Grant {
        index,
        chunk: chunk(index),
        version: VERSION,
        chain: vec![place(1), place(2), place(3)],
        from: PieceNumber(from),
        to: PieceNumber(from),
    }
}
pub(crate) fn taken(index: u64, len: u64) -> Done {
    let grant = grant(index, RAISED);
    Done::TakenOver { grant, len }
}
/// What is durable of a chunk that was taken over, after so many writes more.
pub(crate) fn durable(len: u64, writes: u64) -> Durable {
    let wseq = WriteSeq(RAISED + writes);
    Durable { len, wseq }
}
pub(crate) fn basis(index: u64, synced: Durable) -> SyncedChunk {
    SyncedChunk {
        index,
        chunk: chunk(index),
        version: VERSION,
        synced,
    }
}

/// The next request of the client, which must be this; gives its id and number.
#[track_caller]
pub(crate) fn asked(rig: &mut Rig, meta: LinkId, op: &MutateOp) -> (u64, u64) {
    let (request, mutate) = rig.sent_mutation(meta);
    assert_eq!(&mutate.op, op);
    assert_eq!(mutate.session, SESSION);
    (request, mutate.number.0)
}
#[track_caller]
pub(crate) fn asked_to_take_over(rig: &mut Rig, meta: LinkId, index: u64) -> (u64, u64) {
    asked(rig, meta, &MutateOp::TakeOver { file: FILE, index })
}
#[track_caller]
pub(crate) fn opened(rig: &mut Rig, id: CallId) -> (Handle, u64) {
    let (of, event) = rig.event();
    let Event::Appending {
        handle,
        file: FILE,
        replication: 3,
        end,
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(of, id);
    (handle, end)
}
/// A file of this size that may be appended to; the meta server is told so.
#[track_caller]
fn reopened(rig: &mut Rig, meta: LinkId, size: u64) -> CallId {
    let id = rig.call(Call::Append(At::root("f")));
    let (request, _) = asked(rig, meta, &append());
    rig.mutated(meta, request, Ok(may_append(size)));
    id
}
/// A file of this size whose last chunk was taken over and has `len` bytes.
#[track_caller]
pub(crate) fn taken_over(size: u64, len: u64) -> (Rig, LinkId, Handle) {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, size);
    let index = size / CHUNK;
    let (request, _) = asked_to_take_over(&mut rig, meta, index);
    rig.mutated(meta, request, Ok(taken(index, len)));
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, index * CHUNK + len);
    rig.quiet();
    (rig, meta, handle)
}
/// Acknowledges pieces, and syncs with what is said of the chunk.
pub(crate) fn ack(rig: &mut Rig, sent: &[ToHead], says: &[(u64, Durable)]) {
    for one in sent {
        match one {
            ToHead::Piece(link, request, piece, _) => rig.piece_done(*link, *request, piece),
            ToHead::Sync(link, request, sync) => {
                let said = says.iter().find(|(of, _)| chunk(*of) == sync.chunk);
                let outcome = Ok(said.expect("something is said of the chunk").1);
                let chunk = sync.chunk;
                rig.say(*link, *request, SyncDone { chunk, outcome });
            }
        }
    }
}
/// The file was let go of as it was: another client may write it.
#[track_caller]
pub(crate) fn let_go(rig: &mut Rig, meta: LinkId, size: u64) {
    let (request, said, basis, writer) = size_report(rig, meta);
    assert_eq!((said, basis, writer), (size, vec![], WriterStays::Closed));
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.quiet();
}
/// The client knows nothing of it any more: no deadline of a writer, and the next call is taken as the first one was.
#[track_caller]
pub(crate) fn nothing_is_left(rig: &mut Rig, meta: LinkId) {
    let bounds = rig.bounds();
    assert!(bounds.writers.is_empty(), "{bounds:?}");
    let id = reopened(rig, meta, 0);
    let (_, end) = opened(rig, id);
    assert_eq!(end, 0);
    rig.quiet();
}

#[test]
fn a_file_that_ends_with_a_whole_chunk_takes_none_over_and_goes_on_in_the_next() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 2 * CHUNK);
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 2 * CHUNK);
    rig.quiet();
    let written = write(&mut rig, handle, end, 700);
    rig.done(written);
    let close = rig.call(Call::Close(handle));
    rig.grant(meta, 2);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(briefs(&sent), [(2, 1, 0, 700), (2, 1, 0, 0)]);
    let said = Durable {
        len: 700,
        wseq: WriteSeq(1),
    };
    ack(&mut rig, &sent, &[(2, said)]);
    let (request, size, named, writer) = size_report(&mut rig, meta);
    assert_eq!((size, writer), (2 * CHUNK + 700, WriterStays::Closed));
    assert_eq!(named, [basis(2, said)]);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
    rig.quiet();
}

#[test]
fn an_empty_file_takes_no_chunk_over_and_begins_with_its_first() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 0);
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 0);
    let sync = rig.call(Call::Sync(handle));
    rig.done(sync);
    let written = write(&mut rig, handle, 0, 300);
    rig.done(written);
    rig.quiet();
    rig.call(Call::Close(handle));
    rig.grant(meta, 0);
    rig.chunkserver_up(1);
    assert_eq!(briefs(&rig.sent_to_heads()), [(0, 1, 0, 300), (0, 1, 0, 0)]);
}

#[test]
fn a_file_of_whole_chunks_that_nothing_is_added_to_is_synced_and_closed_as_it_was() {
    for chunks in [0, 1, 3] {
        let (mut rig, meta) = Rig::in_session_with(wide());
        let id = reopened(&mut rig, meta, chunks * CHUNK);
        let (handle, _) = opened(&mut rig, id);
        let sync = rig.call(Call::Sync(handle));
        rig.done(sync);
        rig.quiet();
        let close = rig.call(Call::Close(handle));
        let_go_by_close(&mut rig, meta, close, (chunks * CHUNK, vec![]));
    }
}

/// The close reports this, and is done then.
#[track_caller]
fn let_go_by_close(rig: &mut Rig, meta: LinkId, close: CallId, says: (u64, Vec<SyncedChunk>)) {
    let (request, size, named, writer) = size_report(rig, meta);
    assert_eq!((size, named), says);
    assert_eq!(writer, WriterStays::Closed);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
    nothing_is_left(rig, meta);
}

#[test]
fn a_file_that_ends_within_a_chunk_and_nothing_is_added_to_is_closed_as_it_was() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let sync = rig.call(Call::Sync(handle));
    rig.done(sync);
    rig.quiet();
    let close = rig.call(Call::Close(handle));
    let named = vec![basis(1, durable(2_300, 0))];
    let_go_by_close(&mut rig, meta, close, (7_300, named));
}

#[test]
fn the_first_piece_is_numbered_behind_the_grant_and_stands_where_the_file_ends() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    // Within the block that is there in part, to its edge, and past a piece.
    let written = write(&mut rig, handle, 7_300, 2_500);
    rig.done(written);
    // The chunk is nearly full: the next one is asked for.
    rig.grant(meta, 2);
    let sync = rig.call(Call::Sync(handle));
    let head = rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [
            (1, RAISED + 1, 2_300, 1_700),
            (1, RAISED + 2, 4_000, 800),
            (1, RAISED + 2, 0, 0)
        ]
    );
    for one in &sent[..2] {
        let ToHead::Piece(link, _, piece, body) = one else {
            panic!("{one:?}")
        };
        assert_eq!(*link, head);
        assert_eq!((piece.session, piece.version), (SESSION, VERSION));
        assert_eq!(piece.sums, Sums::of(GEOMETRY, piece.offset, body));
        assert_eq!(body, &bytes(CHUNK + piece.offset, body.len()));
    }
    ack(&mut rig, &sent, &[(1, durable(4_800, 2))]);
    let (request, size, named, writer) = size_report(&mut rig, meta);
    assert_eq!((size, writer), (9_800, WriterStays::Open));
    assert_eq!(named, [basis(1, durable(4_800, 2))]);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
    // Nothing new: the last chunk is named again all the same, because the size ends in it.
    let close = rig.call(Call::Close(handle));
    let named = vec![basis(1, durable(4_800, 2))];
    let_go_by_close(&mut rig, meta, close, (9_800, named));
}

#[test]
fn a_chunk_that_is_filled_up_and_the_next_one_are_both_reported() {
    let (mut rig, meta, handle) = taken_over(4_000, 4_000);
    let written = write(&mut rig, handle, 4_000, 1_500);
    rig.done(written);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [(0, RAISED + 1, 4_000, 1_000), (0, RAISED + 1, 0, 0)],
        "a full chunk is synced, whoever filled the rest of it"
    );
    ack(&mut rig, &sent, &[(0, durable(5_000, 1))]);
    let close = rig.call(Call::Close(handle));
    rig.grant(meta, 1);
    let sent = rig.sent_to_heads();
    let next = Durable {
        len: 500,
        wseq: WriteSeq(1),
    };
    ack(&mut rig, &sent, &[(1, next)]);
    let named = vec![basis(0, durable(5_000, 1)), basis(1, next)];
    let_go_by_close(&mut rig, meta, close, (5_500, named));
}

#[test]
fn what_was_synced_and_not_reported_is_kept_and_counts_from_the_first_report_on() {
    // A sync that writes nothing reports it; so does a close; and what is written comes behind it.
    let (mut rig, meta, handle) = taken_over(7_300, 2_800);
    let sync = rig.call(Call::Sync(handle));
    let (request, size, named, writer) = size_report(&mut rig, meta);
    assert_eq!((size, writer), (7_800, WriterStays::Open));
    assert_eq!(named, [basis(1, durable(2_800, 0))]);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
    let sync = rig.call(Call::Sync(handle));
    rig.done(sync);
    rig.quiet();

    let (mut rig, meta, handle) = taken_over(7_300, 2_800);
    let close = rig.call(Call::Close(handle));
    let named = vec![basis(1, durable(2_800, 0))];
    let_go_by_close(&mut rig, meta, close, (7_800, named));

    let (mut rig, meta, handle) = taken_over(7_300, 2_800);
    let written = write(&mut rig, handle, 7_800, 100);
    rig.done(written);
    let close = rig.call(Call::Close(handle));
    // The chunk is nearly full: the next one is asked for.
    rig.grant(meta, 2);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [(1, RAISED + 1, 2_800, 100), (1, RAISED + 1, 0, 0)]
    );
    ack(&mut rig, &sent, &[(1, durable(2_900, 1))]);
    let named = vec![basis(1, durable(2_900, 1))];
    let_go_by_close(&mut rig, meta, close, (7_900, named));
}

#[test]
fn a_chunk_that_was_synced_full_and_not_reported_so_is_left_as_it_is() {
    let (mut rig, meta, handle) = taken_over(4_000, 5_000);
    let written = write(&mut rig, handle, 5_000, 500);
    rig.done(written);
    let close = rig.call(Call::Close(handle));
    rig.grant(meta, 1);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(briefs(&sent), [(1, 1, 0, 500), (1, 1, 0, 0)]);
    let next = Durable {
        len: 500,
        wseq: WriteSeq(1),
    };
    ack(&mut rig, &sent, &[(1, next)]);
    let_go_by_close(&mut rig, meta, close, (5_500, vec![basis(1, next)]));

    let (mut rig, meta, handle) = taken_over(4_000, 5_000);
    let close = rig.call(Call::Close(handle));
    let named = vec![basis(0, durable(5_000, 0))];
    let_go_by_close(&mut rig, meta, close, (5_000, named));
}

#[test]
fn a_chunk_that_was_there_before_is_taken_over_when_it_is_first_written_to_and_once() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_800);
    write(&mut rig, handle, 4_000, 500);
    write(&mut rig, handle, 100, 10);
    rig.events.clear();
    let sync = rig.call(Call::Sync(handle));
    let (request, _) = asked_to_take_over(&mut rig, meta, 0);
    assert_eq!(rig.sent_to_heads().len(), 0, "nobody takes it yet");
    rig.mutated(meta, request, Ok(taken(0, CHUNK)));
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    let pieces = [
        (0, RAISED + 1, 4_000, 500),
        (0, RAISED + 2, 100, 10),
        (0, RAISED + 2, 0, 0),
    ];
    assert_eq!(briefs(&sent), pieces);
    ack(&mut rig, &sent, &[(0, durable(CHUNK, 2))]);
    let (request, size, named, _) = size_report(&mut rig, meta);
    // The last one has more than was reported of it, as its takeover has shown.
    let all = [basis(0, durable(CHUNK, 2)), basis(1, durable(2_800, 0))];
    assert_eq!((size, named), (7_800, all.to_vec()));
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
    // It is full and synced; written to again, it is asked for no more.
    write(&mut rig, handle, 0, 5);
    let sync = rig.call(Call::Sync(handle));
    rig.events.clear();
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [(0, RAISED + 3, 0, 5), (0, RAISED + 3, 0, 0)]
    );
    ack(&mut rig, &sent, &[(0, durable(CHUNK, 3))]);
    let (request, size, named, _) = size_report(&mut rig, meta);
    let both = [basis(0, durable(CHUNK, 3)), basis(1, durable(2_800, 0))];
    assert_eq!((size, named), (7_800, both.to_vec()));
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
}

#[test]
fn a_chunk_that_was_there_before_and_cannot_be_taken_over_fails_the_file_by_name() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_800);
    write(&mut rig, handle, 4_000, 500);
    rig.events.clear();
    let sync = rig.call(Call::Sync(handle));
    let (request, _) = asked_to_take_over(&mut rig, meta, 0);
    rig.mutated(meta, request, Err(refusal(Status::NoServers)));
    let failure = rig.failed(sync);
    assert_eq!(failure.status, Status::NoServers);
    assert!(failure.what.contains("no chunk 0 for /f"), "{failure}");
    let close = rig.call(Call::Close(handle));
    assert_eq!(rig.failed(close), failure);
    let_go(&mut rig, meta, 7_300);
}

#[test]
fn a_hole_as_large_as_a_chunk_is_filled_by_a_new_one() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_800);
    write(&mut rig, handle, 4_000, 500);
    rig.events.clear();
    let sync = rig.call(Call::Sync(handle));
    let (request, _) = asked_to_take_over(&mut rig, meta, 0);
    rig.mutated(meta, request, Ok(Done::Ok));
    let allocate = MutateOp::Allocate {
        file: FILE,
        index: 0,
    };
    let (request, _) = asked(&mut rig, meta, &allocate);
    rig.mutated(meta, request, Ok(Done::Granted(grant(0, 0))));
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    // A chunk before the last one has its full length, or it would not be read to its end.
    let pieces = [(0, 1, 4_000, 500), (0, 2, 4_999, 1), (0, 2, 0, 0)];
    assert_eq!(briefs(&sent), pieces);
    let _ = sync;
}

#[test]
fn a_background_sync_waits_until_the_block_that_was_there_in_part_is_full() {
    let limits = kfs_core::limits::Limits {
        sync_every_bytes: 500,
        ..wide()
    };
    let (mut rig, meta) = Rig::in_session_with(limits);
    let id = reopened(&mut rig, meta, 300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 0);
    rig.mutated(meta, request, Ok(taken(0, 300)));
    let (handle, _) = opened(&mut rig, id);
    // Behind a gap, so that the block is not full though the piece ends with one.
    let written = write(&mut rig, handle, 1_000, 1_000);
    rig.done(written);
    rig.chunkserver_up(1);
    assert_eq!(
        briefs(&rig.sent_to_heads()),
        [(0, RAISED + 1, 1_000, 1_000)],
        "a cut would cover the rest of the block too"
    );
    let written = write(&mut rig, handle, 300, 700);
    rig.done(written);
    assert_eq!(
        briefs(&rig.sent_to_heads()),
        [(0, RAISED + 2, 300, 700), (0, RAISED + 2, 0, 0)]
    );
}

#[test]
fn a_chain_that_breaks_goes_on_behind_what_was_taken_over() {
    let (mut rig, meta, handle) = taken_over(2_300, 2_300);
    let written = write(&mut rig, handle, 2_300, 100);
    rig.done(written);
    let close = rig.call(Call::Close(handle));
    let head = rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    let ToHead::Piece(_, request, piece, _) = &sent[0] else {
        panic!()
    };
    let done = PieceDone {
        chunk: piece.chunk,
        piece: piece.piece,
        outcome: Err(refusal(Status::ChainBroken)),
    };
    rig.say(head, *request, done);
    let asked = rig.asked_for_chain(meta, durable(2_300, 0), HeadSeen::Reached, 0);
    rig.mutated(meta, asked, Ok(Done::Granted(grant(0, RAISED))));
    let again = rig.sent_to_heads();
    assert_eq!(briefs(&again), briefs(&sent));
    ack(&mut rig, &again, &[(0, durable(2_400, 1))]);
    let named = vec![basis(0, durable(2_400, 1))];
    let_go_by_close(&mut rig, meta, close, (2_400, named));
}

#[test]
fn while_another_client_writes_the_file_it_is_asked_for_again_under_a_new_number() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = rig.call(Call::Append(At::root("f")));
    for number in 2..6 {
        let (request, asked) = asked(&mut rig, meta, &append());
        assert_eq!(asked, number, "nothing was done under the one before");
        rig.mutated(meta, request, Err(refusal(Status::Busy)));
        rig.quiet();
        let (due, why) = rig.deadline().unwrap();
        assert_eq!(why, "ask the meta server again");
        rig.pass(due.since(rig.now));
    }
    let (request, _) = asked(&mut rig, meta, &append());
    rig.mutated(meta, request, Ok(may_append(CHUNK)));
    opened(&mut rig, id);
    rig.quiet();
}

#[test]
fn a_file_that_another_client_writes_for_longer_than_a_call_may_take_is_named() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = rig.call(Call::Append(At::root("f")));
    let (begin, mut asks) = (rig.now, 0);
    while rig.events.is_empty() {
        while let Some((link, msg)) = rig.sends.pop_front() {
            assert_eq!(link, meta);
            let Head::Mutate(mutate) = msg.head else {
                rig.say(link, msg.request, Renewed { outcome: Ok(()) });
                continue;
            };
            assert_eq!(mutate.op, append());
            let why = "/f is being written by another client";
            rig.mutated(meta, msg.request, Err(Refusal::new(Status::Busy, why)));
            asks += 1;
        }
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
    }
    assert_eq!(rig.now.since(begin), TIMEOUT);
    assert!(asks > 30, "{asks}: it is told soon when the file is free");
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Busy);
    let named = "/f is being written by another client";
    assert!(failure.what.contains(named), "{failure}");
    rig.pass(Duration::from_secs(3));
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Renew(_)));
    nothing_is_left(&mut rig, meta);
}

#[test]
fn a_refusal_to_open_is_told_as_it_is_and_nothing_is_let_go_of() {
    for status in [Status::NotFound, Status::IsADirectory, Status::ReadOnly] {
        let (mut rig, meta) = Rig::in_session();
        let id = rig.call(Call::Append(At::root("f")));
        let (request, _) = asked(&mut rig, meta, &append());
        rig.mutated(meta, request, Err(refusal(status)));
        assert_eq!(rig.failed(id).status, status);
        rig.quiet();
        nothing_is_left(&mut rig, meta);
    }
}

/// The takeover of a file of 7,300 bytes comes to this.
#[track_caller]
fn refused(outcome: Result<Done, Refusal>) -> Failure {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 1);
    rig.mutated(meta, request, outcome);
    let failure = rig.failed(id);
    let_go(&mut rig, meta, 7_300);
    nothing_is_left(&mut rig, meta);
    failure
}

#[test]
fn a_takeover_that_is_refused_says_which_file_and_why_and_lets_go_of_it() {
    let failure = refused(Err(refusal(Status::NoServers)));
    assert_eq!(failure.status, Status::NoServers);
    for part in ["/f cannot be written further", "because KFS-E020"] {
        assert!(failure.what.contains(part), "{part} in: {failure}");
    }
}

#[test]
fn a_takeover_that_is_refused_for_the_moment_is_asked_for_again() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (request, first) = asked_to_take_over(&mut rig, meta, 1);
    rig.mutated(meta, request, Err(refusal(Status::Busy)));
    rig.quiet();
    rig.pass(Duration::from_millis(20));
    let (request, second) = asked_to_take_over(&mut rig, meta, 1);
    assert_eq!(second, first + 1);
    rig.mutated(meta, request, Ok(taken(1, 2_300)));
    opened(&mut rig, id);
}

#[test]
fn a_grant_that_makes_no_sense_is_not_used_and_the_file_is_let_go_of() {
    let over = |change: fn(&mut Grant), len| {
        let mut grant = grant(1, RAISED);
        change(&mut grant);
        Done::TakenOver { grant, len }
    };
    let bent = [
        ("of another chunk", over(|grant| grant.index = 0, 2_300)),
        ("of nobody", over(|grant| grant.chain.clear(), 2_300)),
        (
            "that members have to be told of writes for",
            over(|grant| grant.to = PieceNumber(RAISED + 1), 2_300),
        ),
        (
            "that was never written",
            over(
                |grant| (grant.from, grant.to) = (PieceNumber(0), PieceNumber(0)),
                2_300,
            ),
        ),
        (
            "behind which no piece can be numbered",
            over(
                |grant| (grant.from, grant.to) = (PieceNumber(u64::MAX), PieceNumber(u64::MAX)),
                2_300,
            ),
        ),
        ("of nothing", over(|_| {}, 0)),
        ("of more than a chunk has", over(|_| {}, 5_001)),
        ("of far more than a chunk has", over(|_| {}, u64::MAX)),
        ("as one that is made anew", Done::Granted(grant(1, 0))),
        ("as a file", may_append(7_300)),
    ];
    for (what, done) in bent {
        let failure = refused(Ok(done));
        assert_eq!(failure.status, Status::Protocol, "{what}: {failure}");
    }
}

#[test]
fn a_file_that_ends_where_there_is_no_chunk_goes_on_there_in_a_new_one() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 1);
    rig.mutated(meta, request, Ok(Done::Ok));
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 7_300);
    let written = write(&mut rig, handle, end, 100);
    rig.done(written);
    let close = rig.call(Call::Close(handle));
    rig.grant(meta, 1);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(briefs(&sent), [(1, 1, 2_300, 100), (1, 1, 0, 0)]);
    let said = Durable {
        len: 2_400,
        wseq: WriteSeq(1),
    };
    ack(&mut rig, &sent, &[(1, said)]);
    let_go_by_close(&mut rig, meta, close, (7_400, vec![basis(1, said)]));
}

#[test]
fn a_chunk_that_ends_before_the_file_does_is_written_from_where_the_file_ends() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 1);
    rig.mutated(meta, request, Ok(taken(1, 500)));
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 7_300, "what is between is zeros");
    let before = write(&mut rig, handle, 7_299, 10);
    rig.done(before);
    rig.call(Call::Sync(handle));
    rig.chunkserver_up(1);
    let sent = briefs(&rig.sent_to_heads());
    assert_eq!(sent, [(1, RAISED + 1, 2_299, 10), (1, RAISED + 1, 0, 0)]);
}

#[test]
fn a_size_that_no_file_can_have_is_not_believed() {
    for size in [u64::MAX, (1 << 62) + 1] {
        let (mut rig, meta) = Rig::in_session();
        let id = reopened(&mut rig, meta, size);
        let failure = rig.failed(id);
        assert_eq!(failure.status, Status::Protocol, "{failure}");
        rig.quiet();
        nothing_is_left(&mut rig, meta);
    }
}

/// Takes another link to the meta server, and up the session on it.
fn another_link(rig: &mut Rig, meta: LinkId) -> LinkId {
    rig.close(meta);
    rig.pass(Duration::from_millis(20));
    let meta = rig.meta_up();
    assert_eq!(rig.grant_session(meta, SESSION).0, Some(SESSION));
    meta
}

#[test]
fn over_another_link_the_same_is_asked_for_and_answered_once() {
    let (mut rig, old) = Rig::in_session_with(wide());
    let id = rig.call(Call::Append(At::root("f")));
    let (late, first) = asked(&mut rig, old, &append());
    let meta = another_link(&mut rig, old);
    let (request, second) = asked(&mut rig, meta, &append());
    assert_eq!(first, second);
    rig.mutated(old, late, Ok(may_append(7_300)));
    rig.quiet();
    rig.mutated(meta, request, Ok(may_append(7_300)));
    rig.mutated(meta, request, Ok(may_append(7_300)));

    let old = meta;
    let (late, first) = asked_to_take_over(&mut rig, old, 1);
    rig.quiet();
    let meta = another_link(&mut rig, old);
    let (request, second) = asked_to_take_over(&mut rig, meta, 1);
    assert_eq!(first, second);
    rig.mutated(old, late, Ok(taken(1, 2_300)));
    rig.quiet();
    // It was done twice: what the first time was to begin with counts no more.
    let again = Done::TakenOver {
        grant: grant(1, 2 * RAISED),
        len: 2_300,
    };
    rig.mutated(meta, request, Ok(again.clone()));
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 7_300);
    rig.mutated(meta, request, Ok(again));
    rig.quiet();
    let written = write(&mut rig, handle, end, 100);
    rig.done(written);
    rig.call(Call::Sync(handle));
    rig.chunkserver_up(1);
    let sent = briefs(&rig.sent_to_heads());
    assert_eq!(sent[0], (1, 2 * RAISED + 1, 2_300, 100));
}

#[test]
fn a_takeover_that_nobody_answers_ends_with_the_call_and_lets_go_of_the_file() {
    let (mut rig, mut meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let mut asks = 0;
    while rig.events.is_empty() {
        if !rig.dials.is_empty() {
            meta = rig.meta_up();
            rig.grant_session(meta, SESSION);
        }
        while !rig.sends.is_empty() {
            asked_to_take_over(&mut rig, meta, 1);
            asks += 1;
        }
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
    }
    assert!(asks > 5, "{asks}");
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Unknown);
    for part in ["/f cannot be written further", "taking over a chunk"] {
        assert!(failure.what.contains(part), "{part} in: {failure}");
    }
    while rig.dials.is_empty() {
        if !rig.sends.is_empty() {
            return let_go(&mut rig, meta, 7_300);
        }
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
    }
    let meta = rig.meta_up();
    rig.grant_session(meta, SESSION);
    let_go(&mut rig, meta, 7_300);
}

#[test]
fn a_file_that_is_open_for_writing_here_is_not_opened_again_and_stays_open() {
    let (mut rig, meta, first) = taken_over(7_300, 2_300);
    let again = reopened(&mut rig, meta, 7_300);
    let failure = rig.failed(again);
    assert_eq!(failure.status, Status::BadRequest);
    assert!(
        failure.what.contains("/f is open for writing here"),
        "{failure}"
    );
    rig.quiet();
    let close = rig.call(Call::Close(first));
    let named = vec![basis(1, durable(2_300, 0))];
    let_go_by_close(&mut rig, meta, close, (7_300, named));

    // One that was created here and is not closed is one, too.
    let (mut rig, meta, created) = Rig::writing(wide());
    let again = reopened(&mut rig, meta, 0);
    assert_eq!(rig.failed(again).status, Status::BadRequest);
    rig.quiet();
    let sync = rig.call(Call::Sync(created));
    rig.done(sync);
}

#[test]
fn of_two_who_open_the_file_at_once_here_one_gets_it() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let ids = [(); 2].map(|()| rig.call(Call::Append(At::root("f"))));
    let requests = [(); 2].map(|()| asked(&mut rig, meta, &append()).0);
    // The other one gets it while the first is taking over.
    rig.mutated(meta, requests[0], Ok(may_append(7_300)));
    let (takes, _) = asked_to_take_over(&mut rig, meta, 1);
    rig.mutated(meta, requests[1], Ok(may_append(7_300)));
    assert_eq!(rig.failed(ids[1]).status, Status::BadRequest);
    rig.quiet();
    rig.mutated(meta, takes, Ok(taken(1, 2_300)));
    opened(&mut rig, ids[0]);
    rig.quiet();
}

#[test]
fn a_file_that_is_being_taken_over_has_no_handle_that_could_be_guessed() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 1);
    let guessed = Handle(1);
    let early = write(&mut rig, guessed, 7_300, 2_000);
    assert_eq!(rig.failed(early).status, Status::BadRequest);
    for call in [
        Call::Sync(guessed),
        Call::Close(guessed),
        Call::Abandon(guessed),
    ] {
        let early = rig.call(call);
        assert_eq!(rig.failed(early).status, Status::BadRequest);
    }
    rig.quiet();
    rig.mutated(meta, request, Ok(taken(1, 2_300)));
    assert_eq!(opened(&mut rig, id), (guessed, 7_300));
    rig.quiet();
}

#[test]
fn a_file_that_is_open_for_reading_is_appended_to_and_who_opens_it_later_sees_that() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let open = |rig: &mut Rig, size| {
        let id = rig.call(Call::Open(At::root("f")));
        rig.grant_open(meta, size);
        let (of, event) = rig.event();
        let Event::Opened { handle, attrs } = event else {
            panic!("{event:?}")
        };
        assert_eq!((of, attrs.size), (id, size));
        handle
    };
    let before = open(&mut rig, 2_300);
    let id = reopened(&mut rig, meta, 2_300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 0);
    rig.mutated(meta, request, Ok(taken(0, 2_300)));
    let (handle, end) = opened(&mut rig, id);
    let written = write(&mut rig, handle, end, 100);
    rig.done(written);
    let close = rig.call(Call::Close(handle));
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    ack(&mut rig, &sent, &[(0, durable(2_400, 1))]);
    let (request, ..) = size_report(&mut rig, meta);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
    let after = open(&mut rig, 2_400);
    let tail = |rig: &mut Rig, handle, size: u64, len: usize| {
        let id = rig.call(Call::Read {
            handle,
            offset: 2_000,
            len: 1_000,
        });
        rig.locate(meta, size, &[(0, &[1], 0)]);
        if !rig.dials.is_empty() {
            rig.chunkserver_up(1);
        }
        let link = rig.sends.front().expect("the client reads").0;
        let (request, range) = rig.sent_read(link);
        assert_eq!((range.offset, range.len as usize), (2_000, len));
        rig.range(link, request, &range, bytes(2_000, len));
        let (of, event) = rig.event();
        let Event::Data { parts, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!(of, id);
        assert_eq!(parts.concat(), bytes(2_000, len));
    };
    tail(&mut rig, after, 2_400, 400);
    tail(&mut rig, before, 2_400, 300);
}

/// The session is over: the meta server says so when it is taken up again.
fn expires(rig: &mut Rig, meta: LinkId) -> LinkId {
    rig.close(meta);
    rig.pass(Duration::from_millis(20));
    let meta = rig.meta_up();
    let open = rig.sent(meta);
    assert!(matches!(open.head, Head::OpenSession(_)), "{open:?}");
    let said = SessionOpened {
        seq: LogSeq(9),
        outcome: Err(refusal(Status::SessionExpired)),
    };
    rig.say(meta, open.request, said);
    meta
}
const NEXT: SessionId = SessionId(78);

#[test]
fn a_session_that_expires_while_the_file_is_opened_leaves_it_unknown_or_for_the_next() {
    // Sent and not answered.
    let (mut rig, meta) = Rig::in_session();
    let id = rig.call(Call::Append(At::root("f")));
    asked(&mut rig, meta, &append());
    expires(&mut rig, meta);
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Unknown);
    assert!(failure.what.contains("opening the file"), "{failure}");
    rig.quiet();

    // Refused for the session at its only sending: it was not done.
    let (mut rig, meta) = Rig::in_session();
    let id = rig.call(Call::Append(At::root("f")));
    let (request, _) = asked(&mut rig, meta, &append());
    rig.mutated(meta, request, Err(refusal(Status::SessionExpired)));
    rig.grant_session(meta, NEXT);
    let (request, mutate) = rig.sent_mutation(meta);
    assert_eq!((mutate.op, mutate.session), (append(), NEXT));
    rig.mutated(meta, request, Ok(may_append(CHUNK)));
    opened(&mut rig, id);
}

#[test]
fn a_session_that_expires_while_a_chunk_is_taken_over_ends_that_and_leaves_nothing_behind() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    asked_to_take_over(&mut rig, meta, 1);
    let meta = expires(&mut rig, meta);
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Unknown);
    assert!(
        failure.what.contains("/f cannot be written further"),
        "{failure}"
    );
    rig.quiet();
    assert!(rig.bounds().writers.is_empty());
    // Nothing is said of the file in the next session: it may be somebody else's.
    let id = rig.call(Call::Append(At::root("f")));
    rig.grant_session(meta, NEXT);
    let (request, mutate) = rig.sent_mutation(meta);
    assert_eq!((mutate.op, mutate.session), (append(), NEXT));
    rig.mutated(meta, request, Ok(may_append(0)));
    opened(&mut rig, id);
    rig.quiet();

    // Refused for the session: the next one does not write the file.
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (request, _) = asked_to_take_over(&mut rig, meta, 1);
    rig.mutated(meta, request, Err(refusal(Status::SessionExpired)));
    assert_eq!(rig.failed(id).status, Status::SessionExpired);
    rig.quiet();
}

#[test]
fn a_file_whose_session_is_over_is_opened_again_before_it_was_closed() {
    let (mut rig, meta, lost) = taken_over(7_300, 2_300);
    let meta = expires(&mut rig, meta);
    let id = rig.call(Call::Append(At::root("f")));
    rig.grant_session(meta, NEXT);
    let (request, mutate) = rig.sent_mutation(meta);
    assert_eq!((mutate.op, mutate.session), (append(), NEXT));
    // This session writes it now: to refuse it here would keep it from everybody.
    rig.mutated(meta, request, Ok(may_append(CHUNK)));
    let (handle, _) = opened(&mut rig, id);
    let close = rig.call(Call::Close(lost));
    assert_eq!(rig.failed(close).status, Status::SessionExpired);
    rig.quiet();
    let sync = rig.call(Call::Sync(handle));
    rig.done(sync);
}

#[test]
fn a_client_that_goes_away_while_a_chunk_is_taken_over_answers_once() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let id = reopened(&mut rig, meta, 7_300);
    let (takes, _) = asked_to_take_over(&mut rig, meta, 1);
    let gone = rig.call(Call::Disconnect);
    assert_eq!(rig.failed(id).status, Status::Unknown);
    let (request, _) = asked(&mut rig, meta, &MutateOp::EndSession);
    rig.mutated(meta, takes, Ok(taken(1, 2_300)));
    rig.quiet();
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(gone);
}

/// A file that is open for writing, with pieces that no size rests on, was given up; gives the request that says so.
#[track_caller]
fn given_up(rig: &mut Rig, meta: LinkId, handle: Handle) -> u64 {
    let written = write(rig, handle, 0, 2_000);
    rig.done(written);
    rig.grant(meta, 0);
    rig.chunkserver_up(1);
    rig.sends.clear();
    let abandon = rig.call(Call::Abandon(handle));
    rig.done(abandon);
    asked(rig, meta, &gone()).0
}
fn gone() -> MutateOp {
    MutateOp::SetSize {
        file: FILE,
        size: 0,
        basis: vec![],
        writer: WriterStays::Closed,
    }
}
/// Lets the time pass that the client waits before it asks again to open the file.
fn rested(rig: &mut Rig) {
    let (due, why) = rig.deadline().unwrap();
    assert_eq!(why, "ask the meta server again");
    rig.pass(due.since(rig.now));
}

#[test]
fn pieces_of_a_file_that_was_given_up_are_not_taken_for_those_of_who_opens_it_next() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let goodbye = given_up(&mut rig, meta, handle);
    let id = rig.call(Call::Append(At::root("f")));
    let mut numbers = Vec::new();
    // The session writes it still, says the meta server: it has not heard.
    for _ in 0..3 {
        let (request, number) = asked(&mut rig, meta, &append());
        numbers.push(number);
        rig.mutated(meta, request, Ok(may_append(0)));
        rig.quiet();
        rested(&mut rig);
    }
    let (request, number) = asked(&mut rig, meta, &append());
    numbers.push(number);
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    rig.mutated(meta, goodbye, Ok(Done::Ok));
    rig.quiet();
    rig.mutated(meta, request, Ok(may_append(0)));
    opened(&mut rig, id);
    rig.quiet();
}

#[test]
fn an_answer_of_before_a_file_was_let_go_of_is_not_remembered_for_after() {
    let (mut rig, old, handle) = Rig::writing(wide());
    let goodbye = given_up(&mut rig, old, handle);
    let id = rig.call(Call::Append(At::root("f")));
    asked(&mut rig, old, &append());
    let meta = another_link(&mut rig, old);
    asked(&mut rig, meta, &gone());
    let (request, number) = asked(&mut rig, meta, &append());
    rig.mutated(meta, request, Ok(may_append(0)));
    rig.mutated(meta, goodbye, Ok(Done::Ok));
    rested(&mut rig);
    // It was sent twice. Under its number the meta server would say the same again.
    let (_, next) = asked(&mut rig, meta, &append());
    assert!(next > number, "{next}");
    assert!(rig.events.is_empty(), "{id} {:?}", rig.events);
}

#[test]
fn a_file_that_is_not_let_go_of_for_longer_than_a_call_may_take_is_named() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    given_up(&mut rig, meta, handle);
    let id = rig.call(Call::Append(At::root("f")));
    let mut meta = meta;
    while rig.events.is_empty() {
        if !rig.dials.is_empty() {
            meta = rig.meta_up();
            rig.grant_session(meta, SESSION);
        }
        while let Some((link, msg)) = rig.sends.pop_front() {
            if matches!(&msg.head, Head::Mutate(mutate) if mutate.op == append()) {
                rig.mutated(link, msg.request, Ok(may_append(0)));
            }
        }
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
    }
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Busy, "{failure} {meta}");
    assert!(
        failure.what.contains("it was open for writing here"),
        "{failure}"
    );
}

#[test]
fn that_a_file_was_given_up_is_told_however_long_the_meta_server_is_away() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    given_up(&mut rig, meta, handle);
    rig.close(meta);
    let begin = rig.now;
    while rig.now.since(begin) < 2 * TIMEOUT {
        if let Some((link, _)) = rig.dials.pop_front() {
            rig.refuse_dial(link);
        }
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
    }
    while rig.dials.is_empty() {
        let (due, _) = rig.deadline().unwrap();
        rig.pass(due.since(rig.now));
    }
    let meta = rig.meta_up();
    rig.grant_session(meta, SESSION);
    let (request, _) = asked(&mut rig, meta, &gone());
    rig.mutated(meta, request, Ok(Done::Ok));
    nothing_is_left(&mut rig, meta);
}

#[test]
fn that_a_file_was_given_up_is_told_again_when_it_is_opened_if_it_was_refused() {
    let (mut rig, meta, handle) = Rig::writing(wide());
    let request = given_up(&mut rig, meta, handle);
    rig.mutated(meta, request, Err(refusal(Status::ReadOnly)));
    rig.quiet();
    let id = rig.call(Call::Append(At::root("f")));
    for _ in 0..2 {
        let (request, _) = asked(&mut rig, meta, &append());
        rig.mutated(meta, request, Ok(may_append(0)));
        let (request, _) = asked(&mut rig, meta, &gone());
        rig.quiet();
        rig.mutated(meta, request, Err(refusal(Status::ReadOnly)));
        rig.quiet();
        rested(&mut rig);
    }
    let (request, _) = asked(&mut rig, meta, &append());
    rig.mutated(meta, request, Ok(may_append(0)));
    let (request, _) = asked(&mut rig, meta, &gone());
    rig.mutated(meta, request, Ok(Done::Ok));
    rested(&mut rig);
    let (request, _) = asked(&mut rig, meta, &append());
    rig.mutated(meta, request, Ok(may_append(0)));
    opened(&mut rig, id);
    rig.quiet();
}

#[test]
fn a_file_that_the_session_writes_no_more_anyway_is_given_up_when_that_is_said() {
    for status in [Status::BadRequest, Status::NotFound] {
        let (mut rig, meta, handle) = Rig::writing(wide());
        let request = given_up(&mut rig, meta, handle);
        rig.mutated(meta, request, Err(refusal(status)));
        nothing_is_left(&mut rig, meta);
    }
    // With the session goes what it wrote.
    let (mut rig, meta, handle) = Rig::writing(wide());
    given_up(&mut rig, meta, handle);
    let meta = expires(&mut rig, meta);
    let id = rig.call(Call::Append(At::root("f")));
    rig.grant_session(meta, NEXT);
    let (request, _) = rig.sent_mutation(meta);
    rig.mutated(meta, request, Ok(may_append(0)));
    opened(&mut rig, id);
    rig.quiet();
}
