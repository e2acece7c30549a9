//! A file gets another length: what is asked for first, and what is never said again.
use crate::append::{
    CHUNK, FILE, RAISED, ack, append, asked, asked_to_take_over, basis, durable, let_go,
    may_append, nothing_is_left, opened, taken, taken_over,
};
use crate::rig::{Rig, refusal};
use crate::write::{briefs, size_report, wide, write};
use kfs_core::client::{Call, Handle};
use kfs_core::ids::{CallId, LinkId, WriteSeq};
use kfs_core::wire::Status;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::{At, Done, MutateOp, SyncedChunk, WriterStays};

fn set_len(rig: &mut Rig, handle: Handle, len: u64) -> CallId {
    rig.call(Call::SetLen { handle, len })
}
#[track_caller]
fn asked_to_truncate(rig: &mut Rig, meta: LinkId, len: u64) -> u64 {
    asked(rig, meta, &MutateOp::Truncate { file: FILE, len }).0
}
/// The file is cut, and so is the chunk in which that is.
#[track_caller]
fn is_cut(rig: &mut Rig, meta: LinkId, len: u64, (index, ends): (u64, u64)) {
    let request = asked_to_truncate(rig, meta, len);
    rig.mutated(meta, request, Ok(Done::Ok));
    let (request, _) = asked_to_take_over(rig, meta, index);
    rig.mutated(meta, request, Ok(taken(index, ends)));
}
#[track_caller]
fn closes(rig: &mut Rig, meta: LinkId, handle: Handle, says: (u64, Vec<SyncedChunk>)) {
    let close = rig.call(Call::Close(handle));
    let (request, size, named, writer) = size_report(rig, meta);
    assert_eq!(((size, named), writer), (says, WriterStays::Closed));
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(close);
}

#[test]
fn what_was_written_before_is_synced_and_reported_and_writing_goes_on_behind_the_cut() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let written = write(&mut rig, handle, 7_300, 100);
    rig.done(written);
    let cut = set_len(&mut rig, handle, 6_000);
    // It waits in its turn.
    let behind = write(&mut rig, handle, 6_100, 50);
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [(1, RAISED + 1, 2_300, 100), (1, RAISED + 1, 0, 0)]
    );
    ack(&mut rig, &sent, &[(1, durable(2_400, 1))]);
    let (request, size, named, _) = size_report(&mut rig, meta);
    assert_eq!((size, named), (7_400, vec![basis(1, durable(2_400, 1))]));
    rig.quiet();
    rig.mutated(meta, request, Ok(Done::Ok));
    is_cut(&mut rig, meta, 6_000, (1, 1_000));
    rig.done(cut);
    rig.done(behind);
    let sync = rig.call(Call::Sync(handle));
    let sent = rig.sent_to_heads();
    assert_eq!(
        briefs(&sent),
        [(1, RAISED + 1, 1_100, 50), (1, RAISED + 1, 0, 0)]
    );
    ack(&mut rig, &sent, &[(1, durable(1_150, 1))]);
    let (request, size, named, _) = size_report(&mut rig, meta);
    assert_eq!((size, named), (6_150, vec![basis(1, durable(1_150, 1))]));
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
    // What is before the cut is written over in the same chain.
    let early = write(&mut rig, handle, 5_999, 1);
    rig.done(early);
    rig.call(Call::Sync(handle));
    let sent = briefs(&rig.sent_to_heads());
    assert_eq!(sent, [(1, RAISED + 2, 999, 1), (1, RAISED + 2, 0, 0)]);
}

#[test]
fn no_chunk_is_asked_for_ahead_in_the_hole_of_a_file_that_was_made_longer() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let grown = set_len(&mut rig, handle, 4 * CHUNK);
    is_cut(&mut rig, meta, 4 * CHUNK, (1, 2_300));
    rig.done(grown);
    let written = write(&mut rig, handle, 2 * CHUNK - 10, 5);
    rig.done(written);
    let sync = rig.call(Call::Sync(handle));
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    // It would be waited for: a chunk that nothing was written to is never synced.
    rig.quiet();
    ack(&mut rig, &sent, &[(1, durable(CHUNK, 2))]);
    let (request, size, ..) = size_report(&mut rig, meta);
    assert_eq!(size, 4 * CHUNK);
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
}

#[test]
fn a_file_that_is_made_longer_is_written_anywhere_behind_its_old_end_and_keeps_its_length() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let grown = set_len(&mut rig, handle, 3 * CHUNK + 10);
    is_cut(&mut rig, meta, 3 * CHUNK + 10, (1, 2_300));
    rig.done(grown);
    rig.quiet();
    closes_as(&mut rig, meta, handle);
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let grown = set_len(&mut rig, handle, 3 * CHUNK + 10);
    is_cut(&mut rig, meta, 3 * CHUNK + 10, (1, 2_300));
    rig.done(grown);
    let written = write(&mut rig, handle, 7_400, 50);
    rig.done(written);
    let sync = rig.call(Call::Sync(handle));
    rig.chunkserver_up(1);
    let sent = rig.sent_to_heads();
    // The chunk is filled out, as the file goes on behind it.
    let fills = [
        (1, RAISED + 1, 2_400, 50),
        (1, RAISED + 2, 4_999, 1),
        (1, RAISED + 2, 0, 0),
    ];
    assert_eq!(briefs(&sent), fills);
    ack(&mut rig, &sent, &[(1, durable(5_000, 2))]);
    let (request, size, named, _) = size_report(&mut rig, meta);
    assert_eq!(
        (size, named),
        (3 * CHUNK + 10, vec![basis(1, durable(5_000, 2))])
    );
    rig.mutated(meta, request, Ok(Done::Ok));
    rig.done(sync);
}

/// It is closed with the length that it was given, on which no chunk rests.
#[track_caller]
fn closes_as(rig: &mut Rig, meta: LinkId, handle: Handle) {
    closes(rig, meta, handle, (3 * CHUNK + 10, vec![]));
    nothing_is_left(rig, meta);
}

#[test]
fn what_others_synced_and_did_not_report_is_cut_off_and_not_reported_first() {
    for (len, ends) in [(7_300, 2_300), (7_500, 2_300), (6_000, 1_000)] {
        let (mut rig, meta, handle) = taken_over(7_300, 2_800);
        let cut = set_len(&mut rig, handle, len);
        is_cut(&mut rig, meta, len, (1, ends));
        rig.done(cut);
        rig.quiet();
    }
}

#[test]
fn a_cut_to_nothing_or_at_the_edge_of_a_chunk_takes_none_over() {
    for len in [0, CHUNK] {
        let (mut rig, meta, handle) = taken_over(7_300, 2_300);
        let cut = set_len(&mut rig, handle, len);
        let request = asked_to_truncate(&mut rig, meta, len);
        rig.mutated(meta, request, Ok(Done::Ok));
        rig.done(cut);
        let written = write(&mut rig, handle, len, 100);
        rig.done(written);
        let close = rig.call(Call::Close(handle));
        // The chunk that was there is none of it any more: another one is made.
        rig.grant(meta, len / CHUNK);
        rig.chunkserver_up(1);
        let sent = rig.sent_to_heads();
        assert_eq!(
            briefs(&sent),
            [(len / CHUNK, 1, 0, 100), (len / CHUNK, 1, 0, 0)]
        );
        let said = Durable {
            len: 100,
            wseq: WriteSeq(1),
        };
        ack(&mut rig, &sent, &[(len / CHUNK, said)]);
        let (request, size, named, _) = size_report(&mut rig, meta);
        assert_eq!((size, named), (len + 100, vec![basis(len / CHUNK, said)]));
        rig.mutated(meta, request, Ok(Done::Ok));
        rig.done(close);
    }
}

#[test]
fn a_chunk_that_was_asked_for_ahead_is_waited_for_before_the_file_is_cut() {
    for granted in [true, false] {
        let (mut rig, meta, handle) = taken_over(7_300, 2_300);
        // Nearly to the end of its chunk: the next one is asked for.
        let written = write(&mut rig, handle, 7_300, 2_500);
        rig.done(written);
        let (ahead, mutate) = rig.sent_mutation(meta);
        assert_eq!(
            mutate.op,
            MutateOp::Allocate {
                file: FILE,
                index: 2
            }
        );
        let cut = set_len(&mut rig, handle, 6_000);
        rig.chunkserver_up(1);
        let sent = rig.sent_to_heads();
        ack(&mut rig, &sent, &[(1, durable(4_800, 2))]);
        let (request, ..) = size_report(&mut rig, meta);
        rig.mutated(meta, request, Ok(Done::Ok));
        rig.quiet();
        if granted {
            rig.mutated(meta, ahead, Ok(Done::Granted(crate::append::grant(2, 0))));
        } else {
            rig.mutated(meta, ahead, Err(refusal(Status::NoServers)));
        }
        is_cut(&mut rig, meta, 6_000, (1, 1_000));
        rig.done(cut);
        closes(
            &mut rig,
            meta,
            handle,
            (6_000, vec![basis(1, durable(1_000, 0))]),
        );
        nothing_is_left(&mut rig, meta);
    }
}

#[test]
fn the_size_of_before_is_never_said_again_once_another_was_asked_for() {
    // Refused, lost, or the chunk cannot be had: the file may have either size.
    for at_chunk in [false, true] {
        for abandoned in [false, true] {
            let (mut rig, meta, handle) = taken_over(7_300, 2_300);
            let cut = set_len(&mut rig, handle, 6_000);
            let mut request = asked_to_truncate(&mut rig, meta, 6_000);
            if at_chunk {
                rig.mutated(meta, request, Ok(Done::Ok));
                request = asked_to_take_over(&mut rig, meta, 1).0;
            }
            if abandoned {
                let abandon = rig.call(Call::Abandon(handle));
                rig.failed(cut);
                rig.done(abandon);
                let_go(&mut rig, meta, 6_000);
                continue;
            }
            rig.mutated(meta, request, Err(refusal(Status::ReadOnly)));
            let failure = rig.failed(cut);
            assert!(failure.what.contains("6000 bytes"), "{failure}");
            let close = rig.call(Call::Close(handle));
            rig.failed(close);
            let_go(&mut rig, meta, 6_000);
        }
    }
    // It was to be longer: it says no more than what was there.
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let grown = set_len(&mut rig, handle, 70_000);
    asked_to_truncate(&mut rig, meta, 70_000);
    let abandon = rig.call(Call::Abandon(handle));
    rig.failed(grown);
    rig.done(abandon);
    let_go(&mut rig, meta, 7_300);
}

#[test]
fn a_chunk_that_has_more_than_it_was_cut_to_is_not_written() {
    for ends in [1_001, 2_300, 0] {
        let (mut rig, meta, handle) = taken_over(7_300, 2_300);
        let cut = set_len(&mut rig, handle, 6_000);
        is_cut(&mut rig, meta, 6_000, (1, ends));
        assert_eq!(rig.failed(cut).status, Status::Protocol);
    }
}

#[test]
fn a_file_is_opened_with_another_length_and_its_last_chunk_of_before_is_not_needed() {
    let (mut rig, meta) = Rig::in_session_with(wide());
    let opens = |rig: &mut Rig, len| {
        let at = At::root("f");
        let id = rig.call(Call::Truncate { at, len });
        let (request, _) = asked(rig, meta, &append());
        rig.mutated(meta, request, Ok(may_append(7_300)));
        id
    };
    let id = opens(&mut rig, 0);
    let request = asked_to_truncate(&mut rig, meta, 0);
    rig.mutated(meta, request, Ok(Done::Ok));
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 0);
    closes(&mut rig, meta, handle, (0, vec![]));
    let id = opens(&mut rig, 9_000);
    is_cut(&mut rig, meta, 9_000, (1, 2_300));
    let (handle, end) = opened(&mut rig, id);
    assert_eq!(end, 9_000);
    closes(
        &mut rig,
        meta,
        handle,
        (9_000, vec![basis(1, durable(2_300, 0))]),
    );
    // One that cannot be cut is let go of: nobody knows its handle.
    let id = opens(&mut rig, 10);
    let request = asked_to_truncate(&mut rig, meta, 10);
    rig.mutated(meta, request, Err(refusal(Status::ReadOnly)));
    assert_eq!(rig.failed(id).status, Status::ReadOnly);
    let_go(&mut rig, meta, 10);
    nothing_is_left(&mut rig, meta);
}

#[test]
fn a_length_that_no_file_can_have_is_refused_and_the_file_goes_on() {
    let (mut rig, meta, handle) = taken_over(7_300, 2_300);
    let cut = set_len(&mut rig, handle, (1 << 62) + 1);
    assert_eq!(rig.failed(cut).status, Status::BadRequest);
    let (at, len) = (At::root("g"), u64::MAX);
    let opens = rig.call(Call::Truncate { at, len });
    assert_eq!(rig.failed(opens).status, Status::BadRequest);
    rig.quiet();
    closes(
        &mut rig,
        meta,
        handle,
        (7_300, vec![basis(1, durable(2_300, 0))]),
    );
}
