//! A chain that broke: the client asks for another one, and sends again what its members lack.
use crate::rig::{Rig, TIMEOUT, ToHead, VERSION, bytes, chunk, limits, place, refusal};
use kfs_core::client::{Call, Failure, Handle};
use kfs_core::ids::{CallId, ChunkId, LinkId, PieceNumber, WriteSeq};
use kfs_core::limits::Limits;
use kfs_core::machine::Input;
use kfs_core::wire::client_chunk::{Durable, PieceDone, SyncDone};
use kfs_core::wire::client_meta::{Done, Grant, HeadSeen, MutateOp, Renewed, WriterStays};
use kfs_core::wire::{Head, Refusal, Status};
use std::time::Duration;

const NOTHING: Durable = Durable {
    len: 0,
    wseq: WriteSeq(0),
};

fn wide() -> Limits {
    Limits {
        write_window_bytes: 1 << 20,
        sync_every_bytes: 1 << 20,
        ..limits()
    }
}

/// How many bytes each piece has. None follows on another, so each is cut when the next is written.
const LEN: usize = 200;

fn at(piece: u64) -> u64 {
    (piece - 1) * 240
}
fn end(piece: u64) -> Durable {
    Durable {
        len: at(piece) + LEN as u64,
        wseq: WriteSeq(piece),
    }
}

/// A file of one chunk with servers 1 to 3 as its chain, as far as it was written.
struct Writer {
    rig: Rig,
    meta: LinkId,
    handle: Handle,
    head: LinkId,
    /// Sent to the head since this was last taken.
    sent: Vec<ToHead>,
    /// Pieces that were written.
    pieces: u64,
    chunk: ChunkId,
}

impl Writer {
    fn new() -> Self {
        Self::with(wide())
    }
    fn with(limits: Limits) -> Self {
        let (mut rig, meta, handle) = Rig::writing(limits);
        let id = rig.call(Call::Write {
            handle,
            offset: at(1),
            data: bytes(at(1), LEN),
        });
        rig.done(id);
        rig.quiet();
        let id = rig.call(Call::Write {
            handle,
            offset: at(2),
            data: bytes(at(2), LEN),
        });
        rig.done(id);
        rig.grant(meta, 0);
        let head = rig.chunkserver_up(1);
        Self {
            rig,
            meta,
            handle,
            head,
            sent: vec![],
            pieces: 2,
            chunk: chunk(0),
        }
    }
    /// Writes pieces up to this one, the last of which waits for a sync to be cut.
    fn write_to(&mut self, piece: u64) {
        while self.pieces < piece {
            self.pieces += 1;
            let offset = at(self.pieces);
            let (handle, data) = (self.handle, bytes(offset, LEN));
            let id = self.rig.call(Call::Write {
                handle,
                offset,
                data,
            });
            self.rig.done(id);
        }
        self.take();
    }
    /// Asks for a sync, so that all is cut and sent.
    fn sync(&mut self) -> CallId {
        let id = self.rig.call(Call::Sync(self.handle));
        self.take();
        id
    }
    fn take(&mut self) {
        let costs: Vec<_> = self
            .rig
            .sends
            .iter()
            .map(|(link, msg)| (*link, msg.cost()))
            .collect();
        self.sent.extend(self.rig.sent_to_heads());
        for (link, bytes) in costs {
            self.rig.input(Input::Sent { link, bytes });
        }
        self.rig.quiet_sends();
    }
    /// Everything that was sent to a head since this was last asked: pieces by number, syncs.
    fn numbers(&self) -> (Vec<u64>, Vec<u64>) {
        let of = |one: &ToHead| one.brief().1;
        let (pieces, syncs): (Vec<&ToHead>, Vec<&ToHead>) =
            self.sent.iter().partition(|one| one.piece().is_some());
        (
            pieces.into_iter().map(of).collect(),
            syncs.into_iter().map(of).collect(),
        )
    }
    /// The head says that these pieces are everywhere.
    fn done(&mut self, pieces: std::ops::RangeInclusive<u64>) {
        for number in pieces {
            let found = self.sent.iter().rev().find_map(|one| match one {
                ToHead::Piece(link, request, piece, _) if piece.piece.0 == number => {
                    Some((*link, *request, piece.clone()))
                }
                _ => None,
            });
            let (link, request, piece) = found.expect("it was sent");
            self.rig.piece_done(link, request, &piece);
        }
    }
    /// The head answers the sync that it was sent last.
    fn synced(&mut self, durable: Durable) {
        self.sync_ends(Ok(durable));
    }
    fn refuse_sync(&mut self) {
        self.sync_ends(Err(refusal(Status::ChainBroken)));
    }
    fn sync_ends(&mut self, outcome: Result<Durable, Refusal>) {
        let found = self.sent.iter().rev().find_map(|one| match one {
            ToHead::Sync(link, request, sync) => Some((*link, *request, sync.chunk)),
            ToHead::Piece(..) => None,
        });
        let (link, request, chunk) = found.expect("a sync was sent");
        self.rig.say(link, request, SyncDone { chunk, outcome });
    }
    /// Writes up to a piece and has all of it synced and reported.
    fn write_synced(&mut self, piece: u64) {
        self.write_to(piece);
        let call = self.sync();
        self.done(1..=piece);
        self.synced(end(piece));
        let (request, mutate) = self.rig.sent_mutation(self.meta);
        let MutateOp::SetSize { basis, .. } = mutate.op else {
            panic!("{mutate:?}")
        };
        assert_eq!(basis[0].synced, end(piece));
        self.rig.mutated(self.meta, request, Ok(Done::Ok));
        self.rig.done(call);
        self.sent.clear();
    }
    /// The head refuses a piece that it was sent: its chain is broken.
    fn breaks(&mut self, number: u64) {
        self.refuses(number, Status::ChainBroken);
    }
    fn refuses(&mut self, number: u64, status: Status) {
        let found = self.sent.iter().rev().find_map(|one| match one {
            ToHead::Piece(link, request, piece, _) if piece.piece.0 == number => {
                Some((*link, *request, piece.chunk, piece.piece))
            }
            _ => None,
        });
        let (link, request, chunk, piece) = found.expect("it was sent");
        let outcome = Err(refusal(status));
        let done = PieceDone {
            chunk,
            piece,
            outcome,
        };
        self.rig.say(link, request, done);
    }
    /// The wish that the client has now, and nothing else.
    #[track_caller]
    fn asked(&mut self, synced: Durable, head: HeadSeen, broken: u32) -> u64 {
        let request = self.rig.asked_for_chain(self.meta, synced, head, broken);
        self.rig.quiet();
        request
    }
    fn other(&self, from: u64, to: u64) -> Grant {
        Grant {
            index: 0,
            chunk: self.chunk,
            version: VERSION,
            chain: vec![place(2), place(3)],
            from: PieceNumber(from),
            to: PieceNumber(to),
        }
    }
    fn grant(&mut self, request: u64, grant: Grant) {
        self.sent.clear();
        self.rig
            .mutated(self.meta, request, Ok(Done::Granted(grant)));
    }
    /// The client is given the chain of servers 2 and 3, and reaches its head.
    fn granted(&mut self, request: u64, from: u64, to: u64) {
        self.grant(request, self.other(from, to));
        if !self.rig.dials.is_empty() {
            self.head = self.rig.chunkserver_up(2);
        }
        self.take();
    }
    /// That all that was sent since the last grant was sent to its head.
    #[track_caller]
    fn went_to_the_new_head(&self) {
        for one in &self.sent {
            let (ToHead::Piece(link, ..) | ToHead::Sync(link, ..)) = one;
            assert_eq!(*link, self.head, "{one:?}");
        }
    }
}

#[test]
fn a_client_whose_chain_broke_asks_for_another_with_what_was_synced_and_sends_nothing_meanwhile() {
    for status in [Status::ChainBroken, Status::NotServed] {
        let mut at = Writer::new();
        at.write_synced(3);
        at.write_to(5);
        at.sync();
        at.refuses(4, status);
        let request = at.asked(end(3), HeadSeen::Reached, 0);
        // What the old head says now is of a chain that is over, and so is its link.
        at.done(4..=5);
        at.synced(end(5));
        at.breaks(5);
        at.rig.close(at.head);
        at.rig.quiet();
        at.pieces = 5;
        at.rig.pass(Duration::from_secs(1));
        at.rig.quiet();
        at.granted(request, 3, 3);
        assert_eq!(at.numbers(), (vec![4, 5], vec![5]));
    }
}

#[test]
fn a_head_that_cannot_be_reached_is_said_to_be_lost() {
    let mut at = Writer::new();
    at.write_synced(2);
    at.write_to(3);
    at.sync();
    at.rig.close(at.head);
    let begin = at.rig.now;
    while at.rig.sends.is_empty() {
        if let Some((link, _)) = at.rig.dials.pop_front() {
            at.rig.refuse_dial(link);
        }
        let (next, _) = at.rig.deadline().unwrap();
        at.rig.pass(next.since(at.rig.now));
    }
    assert_eq!(at.rig.now.since(begin), Duration::from_millis(200));
    let request = at.asked(end(2), HeadSeen::Lost, 0);
    at.granted(request, 2, 2);
    assert_eq!(at.numbers(), (vec![3], vec![3]));
    at.went_to_the_new_head();
}

#[test]
fn exactly_what_the_members_of_the_new_chain_lack_is_sent_again_under_the_same_numbers() {
    // Up to where all have it, whether the client knew that or knew of more.
    for (from, to) in [(2, 2), (2, 4), (3, 3), (4, 6), (5, 6), (6, 6)] {
        let mut at = Writer::new();
        at.write_synced(2);
        at.write_to(6);
        let call = at.sync();
        assert_eq!(at.numbers(), (vec![3, 4, 5, 6], vec![6]));
        let before = std::mem::take(&mut at.sent);
        let pieces = |sent: &[ToHead]| -> Vec<_> {
            let piece = |one: &ToHead| match one {
                ToHead::Piece(_, _, piece, body) => Some((piece.clone(), body.clone())),
                ToHead::Sync(..) => None,
            };
            sent.iter().filter_map(piece).collect()
        };
        at.sent = before;
        at.done(3..=4);
        at.breaks(5);
        let before = pieces(&at.sent);
        let request = at.asked(end(2), HeadSeen::Reached, 0);
        at.granted(request, from, to);
        let lacked = usize::try_from(from - 2).unwrap();
        assert_eq!(pieces(&at.sent), before[lacked..], "from {from} to {to}");
        assert_eq!(at.numbers().1, [6], "and synced after them");
        at.went_to_the_new_head();
        at.done(from + 1..=6);
        assert!(at.rig.events.is_empty());
        at.synced(end(6));
        let (request, mutate) = at.rig.sent_mutation(at.meta);
        let MutateOp::SetSize { size, basis, .. } = mutate.op else {
            panic!("{mutate:?}")
        };
        assert_eq!((size, basis[0].synced), (end(6).len, end(6)));
        at.rig.mutated(at.meta, request, Ok(Done::Ok));
        at.rig.done(call);
        at.rig.quiet();
    }
}

#[test]
fn no_sync_is_begun_before_all_have_what_one_member_had() {
    // A sync in the background is under way for piece 1, and a member has more than that.
    let (mut rig, meta, handle) = Rig::writing(Limits {
        sync_every_bytes: 500,
        ..wide()
    });
    for offset in [0, 1_000, 2_000, 3_000] {
        let (data, from) = (bytes(offset, 1_000), rig.sends.len());
        let id = rig.call(Call::Write {
            handle,
            offset,
            data,
        });
        rig.done(id);
        if from == 0 && !rig.sends.is_empty() {
            rig.grant(meta, 0);
            rig.chunkserver_up(1);
        }
    }
    rig.sends
        .retain(|(_, msg)| !matches!(msg.head, Head::Mutate(_)));
    let sent = rig.sent_to_heads();
    let brief: Vec<_> = sent.iter().map(ToHead::brief).collect();
    assert_eq!(
        brief,
        [
            (0, 1, 0, 1_000),
            (0, 1, 0, 0),
            (0, 2, 1_000, 1_000),
            (0, 3, 2_000, 1_000),
            (0, 4, 3_000, 1_000)
        ],
        "a cut may have been taken behind any of them"
    );
    let ToHead::Piece(head, request, piece, _) = &sent[2] else {
        panic!()
    };
    let outcome = Err(refusal(Status::ChainBroken));
    let (chunk, piece) = (piece.chunk, piece.piece);
    rig.say(
        *head,
        *request,
        PieceDone {
            chunk,
            piece,
            outcome,
        },
    );
    let request = rig.asked_for_chain(meta, NOTHING, HeadSeen::Reached, 0);
    let grant = Grant {
        index: 0,
        chunk,
        version: VERSION,
        chain: vec![place(2), place(3)],
        from: PieceNumber(0),
        to: PieceNumber(3),
    };
    rig.mutated(meta, request, Ok(Done::Granted(grant)));
    rig.chunkserver_up(2);
    let brief: Vec<_> = rig.sent_to_heads().iter().map(ToHead::brief).collect();
    assert_eq!(
        brief,
        [
            (0, 1, 0, 1_000),
            (0, 2, 1_000, 1_000),
            (0, 3, 2_000, 1_000),
            (0, 4, 3_000, 1_000),
            (0, 4, 0, 0)
        ]
    );
}

#[test]
fn a_link_that_is_lost_again_does_not_keep_what_a_member_had_behind_a_sync() {
    let mut at = Writer::new();
    at.write_to(4);
    at.sync();
    at.breaks(1);
    let request = at.asked(NOTHING, HeadSeen::Reached, 0);
    at.granted(request, 0, 4);
    assert_eq!(at.numbers(), (vec![1, 2, 3, 4], vec![4]));
    at.done(1..=2);
    at.sent.clear();
    at.rig.close(at.head);
    at.rig.pass(Duration::from_millis(20));
    at.head = at.rig.chunkserver_up(2);
    at.take();
    assert_eq!(at.numbers(), (vec![3, 4], vec![4]));
}

#[test]
fn a_chunk_that_was_made_anew_gets_everything_from_its_first_piece_on() {
    let mut at = Writer::new();
    at.write_to(4);
    let close = at.rig.call(Call::Close(at.handle));
    at.take();
    at.done(1..=3);
    at.breaks(4);
    let request = at.asked(NOTHING, HeadSeen::Reached, 0);
    let anew = ChunkId(7_000);
    let grant = Grant {
        chunk: anew,
        version: kfs_core::ids::Version(VERSION.0 + 2),
        ..at.other(0, 0)
    };
    at.grant(request, grant);
    at.head = at.rig.chunkserver_up(2);
    at.take();
    assert_eq!(at.numbers(), (vec![1, 2, 3, 4], vec![4]));
    at.went_to_the_new_head();
    for one in &at.sent {
        match one {
            ToHead::Piece(_, _, piece, body) => {
                assert_eq!((piece.chunk, piece.version.0), (anew, VERSION.0 + 2));
                assert_eq!(*body, bytes(piece.offset, LEN));
            }
            ToHead::Sync(_, _, sync) => assert_eq!(sync.chunk, anew),
        }
    }
    at.done(1..=4);
    at.synced(end(4));
    let (request, mutate) = at.rig.sent_mutation(at.meta);
    let MutateOp::SetSize { basis, writer, .. } = mutate.op else {
        panic!("{mutate:?}")
    };
    assert_eq!(writer, WriterStays::Closed);
    assert_eq!(
        (basis[0].chunk, basis[0].synced),
        (anew, end(4)),
        "what is reported is what was written"
    );
    at.rig.mutated(at.meta, request, Ok(Done::Ok));
    at.rig.done(close);
}

/// What a client does with such a grant after pieces up to 3 were synced and 5 were written.
fn after(grant: impl FnOnce(Grant) -> Grant) -> Failure {
    let mut at = Writer::new();
    at.write_synced(3);
    at.write_to(5);
    let sync = at.sync();
    at.breaks(4);
    let request = at.asked(end(3), HeadSeen::Reached, 0);
    let grant = grant(at.other(3, 3));
    at.grant(request, grant);
    at.rig.quiet_sends();
    let failure = at.rig.failed(sync);
    let later = at.rig.call(Call::Sync(at.handle));
    assert_eq!(at.rig.failed(later), failure, "it fails for good");
    failure
}

#[test]
fn a_chain_that_lacks_what_was_synced_is_not_written_to() {
    let failure = after(|grant| Grant {
        from: PieceNumber(2),
        ..grant
    });
    assert_eq!(failure.status, Status::Protocol);
    assert!(failure.what.contains("all that was synced"), "{failure}");
    let failure = after(|grant| Grant {
        from: PieceNumber(0),
        to: PieceNumber(0),
        chunk: ChunkId(7_000),
        ..grant
    });
    assert_eq!(failure.status, Status::Protocol, "an empty chunk lacks it");
    let failure = after(|grant| Grant {
        version: kfs_core::ids::Version(VERSION.0 + 2),
        ..grant
    });
    assert_eq!(failure.status, Status::Protocol);
}

#[test]
fn a_chain_that_has_more_than_was_ever_written_is_not_believed() {
    let failure = after(|grant| Grant {
        to: PieceNumber(6),
        ..grant
    });
    assert_eq!(failure.status, Status::Protocol);
}

#[test]
fn a_chain_without_members_or_of_another_chunk_is_not_used() {
    let failure = after(|grant| Grant {
        chain: vec![],
        ..grant
    });
    assert_eq!(failure.status, Status::Protocol);
    let failure = after(|grant| Grant { index: 1, ..grant });
    assert_eq!(failure.status, Status::Protocol);
}

#[test]
fn a_meta_server_that_has_no_other_chain_fails_the_file_with_what_the_chain_broke_of() {
    let mut at = Writer::new();
    at.write_synced(3);
    at.write_to(5);
    let sync = at.sync();
    at.breaks(4);
    let request = at.asked(end(3), HeadSeen::Reached, 0);
    at.rig
        .mutated(at.meta, request, Err(refusal(Status::NotFound)));
    let failure = at.rig.failed(sync);
    assert_eq!(failure.status, Status::ChainBroken);
    assert!(
        failure.what.contains("because KFS-E022")
            && failure
                .what
                .contains("no other chain can be had: because KFS-E001"),
        "{failure}"
    );
}

/// Passes time in which the session is renewed.
fn pass(at: &mut Writer, time: Duration) {
    let end = at.rig.now + time;
    loop {
        let due = at.rig.deadline().filter(|(due, _)| *due <= end);
        at.rig
            .pass(due.map_or(end, |(due, _)| due).since(at.rig.now));
        let renew = |msg: &Head| matches!(msg, Head::Renew(_));
        while let Some(found) = at.rig.sends.iter().position(|(_, msg)| renew(&msg.head)) {
            let (link, msg) = at.rig.sends.remove(found).unwrap();
            at.rig.say(link, msg.request, Renewed { outcome: Ok(()) });
        }
        if due.is_none() {
            return;
        }
    }
}

#[test]
fn chains_that_break_again_and_again_fail_the_file_when_the_time_is_over_and_are_counted() {
    let mut at = Writer::new();
    at.write_synced(2);
    at.write_to(4);
    let sync = at.sync();
    at.done(3..=3);
    let begin = at.rig.now;
    let mut broken = 0;
    while at.rig.now.since(begin) + Duration::from_secs(12) < TIMEOUT {
        at.breaks(4);
        let request = at.asked(end(2), HeadSeen::Reached, broken);
        broken += 1;
        pass(&mut at, Duration::from_secs(3));
        at.granted(request, 2, 2);
        // What had been done before is done again, and is no news.
        at.done(3..=3);
        pass(&mut at, Duration::from_secs(4));
        assert!(at.rig.events.is_empty(), "{:?}", at.rig.events);
    }
    assert!(
        (5..=8).contains(&broken),
        "{broken}: each seven seconds after the one before, and a rest of up to two more"
    );
    at.breaks(4);
    at.asked(end(2), HeadSeen::Reached, broken);
    let left = TIMEOUT.saturating_sub(at.rig.now.since(begin));
    pass(&mut at, left);
    let failure = at.rig.failed(sync);
    assert_eq!(at.rig.now.since(begin), TIMEOUT, "since the first broke");
    assert_eq!(failure.status, Status::ChainBroken);
    assert!(failure.what.contains("127.0.0.1:22002"), "{failure}");
}

#[test]
fn chains_that_break_at_once_are_not_asked_for_as_fast_as_they_break() {
    let mut at = Writer::new();
    at.write_synced(2);
    at.write_to(4);
    at.sync();
    let begin = at.rig.now;
    let mut broken = 0;
    while at.rig.now.since(begin) < Duration::from_secs(20) {
        at.breaks(4);
        let request = at.asked(end(2), HeadSeen::Reached, broken);
        at.granted(request, 2, 2);
        broken += 1;
        assert!(broken <= 40, "no rest between them");
    }
    assert!((10..=40).contains(&broken), "{broken} in twenty seconds");
}

#[test]
fn a_meta_server_that_gives_no_chain_is_waited_for_as_long_as_a_call_may_take() {
    let mut at = Writer::new();
    at.write_synced(2);
    at.write_to(3);
    let sync = at.sync();
    at.breaks(3);
    let request = at.asked(end(2), HeadSeen::Reached, 0);
    at.granted(request, 2, 2);
    pass(&mut at, Duration::from_secs(8));
    let begin = at.rig.now;
    at.breaks(3);
    at.asked(end(2), HeadSeen::Reached, 1);
    // The meta server is silent, then gone.
    let left = TIMEOUT.saturating_sub(Duration::from_secs(8));
    while at.rig.events.is_empty() {
        at.rig.dials.clear();
        at.rig.sends.clear();
        let (next, _) = at.rig.deadline().unwrap();
        at.rig.pass(next.since(at.rig.now));
    }
    assert_eq!(at.rig.now.since(begin), left, "what is left of it");
    let failure = at.rig.failed(sync);
    assert_eq!(failure.status, Status::ChainBroken);
    assert!(
        failure.what.contains("no other chain can be had"),
        "{failure}"
    );
}

#[test]
fn a_piece_that_gets_done_between_two_breaks_starts_the_time_anew() {
    let mut at = Writer::new();
    at.write_synced(2);
    at.write_to(8);
    at.sync();
    let begin = at.rig.now;
    for next in 3..=8 {
        for broken in 0..5 {
            at.breaks(next);
            let request = at.asked(end(2), HeadSeen::Reached, broken);
            at.granted(request, 2, 2);
            pass(&mut at, Duration::from_secs(8));
        }
        at.done(3..=next);
    }
    assert!(at.rig.now.since(begin) > 2 * TIMEOUT);
    at.rig.quiet();
}

#[test]
fn a_sync_that_gets_done_between_two_breaks_starts_the_time_anew() {
    let mut at = Writer::new();
    at.write_synced(2);
    let begin = at.rig.now;
    for next in 3..=8 {
        at.write_to(next);
        let call = at.sync();
        // Nothing of it was done since the sync before, which is what counts.
        at.breaks(next);
        let request = at.asked(end(next - 1), HeadSeen::Reached, 0);
        at.granted(request, next - 1, next - 1);
        at.done(next..=next);
        for broken in 0..5 {
            at.refuse_sync();
            let request = at.asked(end(next - 1), HeadSeen::Reached, broken);
            at.granted(request, next - 1, next);
            at.done(next..=next);
            pass(&mut at, Duration::from_secs(8));
        }
        at.synced(end(next));
        let (request, _) = at.rig.sent_mutation(at.meta);
        at.rig.mutated(at.meta, request, Ok(Done::Ok));
        at.rig.done(call);
    }
    assert!(at.rig.now.since(begin) > 2 * TIMEOUT);
    at.rig.quiet();
}

#[test]
fn writes_are_taken_while_another_chain_is_awaited_and_go_to_it() {
    let mut at = Writer::new();
    at.write_to(3);
    at.breaks(1);
    let request = at.asked(NOTHING, HeadSeen::Reached, 0);
    at.sent.clear();
    at.write_to(5);
    at.rig.quiet();
    assert_eq!(at.numbers(), (vec![], vec![]));
    at.granted(request, 0, 0);
    assert_eq!(at.numbers(), (vec![1, 2, 3, 4], vec![]), "5 is not cut yet");
    at.went_to_the_new_head();
}

#[test]
fn a_chain_that_begins_behind_what_was_ever_written_is_not_believed() {
    for from in [6, 9, u64::MAX] {
        let failure = after(|grant| Grant {
            from: PieceNumber(from),
            to: PieceNumber(3),
            ..grant
        });
        assert_eq!(failure.status, Status::Protocol, "from {from}");
    }
}
