//! Files that are open: told to the meta server, and told again wherever it may have forgotten.
use crate::rig::*;
use core::time::Duration;
use kfs_core::client::{Call, Event, Handle};
use kfs_core::ids::{FileId, LinkId};
use kfs_core::wire::client_meta::{Answer, At, Done, QueryOp};
use kfs_core::wire::{Refusal, Status};

const IDLE: Duration = Duration::from_secs(120);

fn open(rig: &mut Rig, link: LinkId) -> Handle {
    let id = rig.call(Call::Open(At::root("f")));
    rig.grant_open(link, 10);
    let (of, event) = rig.event();
    assert_eq!(of, id);
    match event {
        Event::Opened { handle, .. } => handle,
        other => panic!("{other:?}"),
    }
}
fn hold(files: &[u64]) -> QueryOp {
    QueryOp::Hold {
        files: files.iter().copied().map(FileId).collect(),
    }
}
fn held(rig: &mut Rig, link: LinkId, request: u64) {
    rig.answered(link, request, Ok(Answer::Held { idle: IDLE }));
}
fn lose_link(rig: &mut Rig, link: LinkId) -> LinkId {
    rig.close(link);
    rig.pass(Duration::from_secs(1));
    rig.meta_up()
}

#[test]
fn what_is_open_is_told_again_on_a_new_link_as_often_as_it_is_open() {
    let (mut rig, link, first) = Rig::reading(10);
    open(&mut rig, link);
    let link = lose_link(&mut rig, link);
    let (request, op) = rig.sent_query(link);
    assert_eq!(op, hold(&[9, 9]));
    held(&mut rig, link, request);
    let id = rig.call(Call::Close(first));
    rig.done(id);
    let (_, op) = rig.sent_query(link);
    assert_eq!(op, QueryOp::Release { file: FileId(9) });
    let link = lose_link(&mut rig, link);
    assert_eq!(rig.sent_query(link).1, hold(&[9]));
    rig.quiet();
}

#[test]
fn what_is_open_is_told_before_the_session_is_taken_up() {
    let (mut rig, link) = Rig::in_session();
    open(&mut rig, link);
    let asked = rig.call(Call::Stat(At::root("g")));
    rig.sent_query(link);
    let link = lose_link(&mut rig, link);
    assert_eq!(rig.sent_query(link).1, hold(&[9]));
    let (resumed, _) = rig.grant_session(link, SESSION);
    assert_eq!(resumed, Some(SESSION));
    let (request, _) = rig.sent_query(link);
    rig.answered(link, request, Ok(Answer::Attrs(attrs(1))));
    assert_eq!(rig.event().0, asked);
}

#[test]
fn a_client_that_disconnects_lets_go_of_what_is_open_with_a_session_or_without() {
    let (mut rig, link, _) = Rig::reading(10);
    let id = rig.call(Call::Disconnect);
    assert_eq!(rig.sent_query(link).1, QueryOp::Release { file: FileId(9) });
    let (last, op) = rig.sent_query(link);
    assert_eq!(op, hold(&[]));
    assert!(rig.closes.is_empty(), "what was said may be on its way");
    held(&mut rig, link, last);
    rig.done(id);
    assert_eq!(rig.closes, [link]);

    let (mut rig, link) = Rig::in_session();
    open(&mut rig, link);
    let id = rig.call(Call::Disconnect);
    assert_eq!(rig.sent_query(link).1, QueryOp::Release { file: FileId(9) });
    let (request, _) = rig.sent_mutation(link);
    rig.mutated(link, request, Ok(Done::Ok));
    rig.done(id);

    // The link is lost meanwhile: it ends all the same.
    let (mut rig, link, _) = Rig::reading(10);
    let id = rig.call(Call::Disconnect);
    rig.close(link);
    rig.done(id);
}

#[test]
fn a_client_without_open_files_or_session_does_not_dial_again() {
    let (mut rig, link, handle) = Rig::reading(10);
    let id = rig.call(Call::Close(handle));
    rig.done(id);
    let (request, _) = rig.sent_query(link);
    held(&mut rig, link, request);
    rig.close(link);
    rig.pass(Duration::from_secs(60));
    rig.quiet();
}

#[test]
fn a_file_is_not_let_go_of_or_opened_before_a_starting_meta_server_has_heard_what_is_held() {
    let (mut rig, link, handle) = Rig::reading(10);
    let link = lose_link(&mut rig, link);
    let (request, op) = rig.sent_query(link);
    assert_eq!(op, hold(&[9]));
    let closed = rig.call(Call::Close(handle));
    rig.done(closed);
    rig.call(Call::Open(At::root("f")));
    rig.quiet();
    let busy = Refusal::new(Status::Busy, "starting");
    rig.answered(link, request, Err(busy));
    rig.quiet();
    rig.pass(Duration::from_secs(1));
    let (request, op) = rig.sent_query(link);
    assert_eq!(op, hold(&[9]), "as it was when the link came up");
    rig.quiet();
    held(&mut rig, link, request);
    assert_eq!(rig.sent_query(link).1, QueryOp::Release { file: FileId(9) });
    assert!(matches!(rig.sent_query(link).1, QueryOp::Open { .. }));
    rig.quiet();
}

#[test]
fn a_client_that_only_keeps_a_file_open_is_heard_four_times_in_the_life_of_a_hold() {
    let (mut rig, link, handle) = Rig::reading(10);
    for _ in 0..4 {
        rig.quiet();
        rig.pass(IDLE / 4);
        let (request, op) = rig.sent_query(link);
        assert_eq!(op, hold(&[]));
        held(&mut rig, link, request);
    }
    let id = rig.call(Call::Close(handle));
    rig.done(id);
    let (request, _) = rig.sent_query(link);
    held(&mut rig, link, request);
    rig.pass(IDLE);
    rig.quiet();
}

#[test]
fn a_file_whose_opener_has_given_up_is_let_go_of() {
    let mut rig = Rig::new();
    let id = rig.call(Call::Open(At::root("f")));
    let link = rig.meta_up();
    let (request, _) = rig.sent_query(link);
    // Refused for now, over and over, until its time is up; then the last try is answered after all.
    let mut last = request;
    while rig.events.is_empty() {
        if let Some((_, msg)) = rig.sends.pop_front() {
            last = msg.request;
        }
        let busy = Refusal::new(Status::Busy, "many");
        if last != 0 && rig.events.is_empty() {
            rig.answered(link, last, Err(busy));
            rig.pass(Duration::from_millis(500));
        }
    }
    rig.failed(id);
    let idle = IDLE;
    let attrs = attrs(10);
    rig.sends.clear();
    rig.answered(link, last, Ok(Answer::Opened { attrs, idle }));
    assert_eq!(rig.sent_query(link).1, QueryOp::Release { file: FileId(9) });
}
