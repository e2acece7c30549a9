//! Sessions: asked twice, done once, answered twice the same; and what becomes of a session that is silent.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use core::time::Duration;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Role, Status};
use meta_rig::*;

#[test]
fn an_opening_sent_twice_finds_the_session_it_made() {
    let mut rig = Rig::fresh();
    let first = rig.client(9);
    let link = rig.open_link(Role::Client);
    assert_eq!(rig.open_session(link, None, 9), Ok(first.session));
    assert_ne!(rig.open_session(link, None, 10), Ok(first.session));
    rig.restart();
    let link = rig.open_link(Role::Client);
    assert_eq!(rig.open_session(link, None, 9), Ok(first.session));
    let unknown = Some(kfs_core::ids::SessionId(77));
    refused(rig.open_session(link, unknown, 0), Status::SessionExpired);
}

#[test]
fn a_retry_after_a_restart_gets_the_first_answer_and_changes_nothing() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let mut answers = vec![];
    let ops = [
        mkdir("d"),
        create("d/f", Keep::Always),
        rename("d/f", "g"),
        remove("g"),
        rmdir("d"),
    ];
    for op in &ops {
        let request = rig.begin(&mut client, op.clone());
        answers.push(rig.mutated(client.link, request).unwrap());
    }
    for restarted in [false, true] {
        if restarted {
            rig.restart();
        }
        rig.resume(&mut client);
        let seq = rig.meta.state().unwrap().seq();
        for (nth, op) in ops.iter().enumerate() {
            let retry = client.request(nth as u64 + 1, op.clone());
            let request = rig.send(client.link, retry);
            let again = rig.mutated(client.link, request).unwrap();
            assert_eq!(again, answers[nth], "restarted: {restarted}");
        }
        assert_eq!(
            rig.meta.state().unwrap().seq(),
            seq,
            "nothing was done twice"
        );
    }
}

#[test]
fn a_refusal_is_given_again_while_the_request_is_unanswered() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let request = rig.begin(&mut client, remove("f"));
    let first = rig.mutated(client.link, request).unwrap();
    refused(first.outcome.clone(), Status::NotFound);
    let number = client.last;
    rig.begin(&mut client, create("f", Keep::Always));
    let late = client.request(number, remove("f"));
    let request = rig.send(client.link, late);
    assert_eq!(
        rig.mutated(client.link, request),
        Some(first),
        "it does not succeed late"
    );
    assert!(rig.stat(client.link, "f").is_ok());
}

#[test]
fn a_duplicate_that_comes_late_has_no_effect() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, create("f", Keep::Always)).unwrap();
    rig.mutate(&mut client, remove("f")).unwrap();
    rig.mutate(&mut client, mkdir("d")).unwrap();
    // Answered, and the client said so: dropped.
    let late = client.request(1, create("f", Keep::Always));
    let request = rig.send(client.link, late);
    assert_eq!(rig.mutated(client.link, request), None);
    // New, but on a link that the session has left: dropped.
    let old = client.link;
    rig.resume(&mut client);
    let late = client.request(client.last + 1, create("f", Keep::Always));
    let request = rig.send(old, late);
    assert_eq!(rig.mutated(old, request), None);
    refused(rig.stat(client.link, "f"), Status::NotFound);
    // On a link that never took the session up.
    rig.close_link(client.link);
    let link = rig.open_link(Role::Client);
    let stray = client.request(client.last + 1, create("f", Keep::Always));
    let request = rig.send(link, stray);
    refused(
        rig.mutated(link, request).unwrap().outcome,
        Status::BadRequest,
    );
}

#[test]
fn a_session_is_not_taken_back_by_a_link_that_its_client_has_left() {
    let mut rig = Rig::fresh();
    let old = rig.open_link(Role::Client);
    let mut client = rig.client(1);
    // Sent when the client had heard nothing yet, and read only now; then that link closes.
    let late = OpenSession {
        resume: None,
        nonce: 1,
    };
    let request = rig.send(old, late);
    assert!(rig.answer(old, request).is_none());
    rig.close_link(old);
    rig.mutate(&mut client, mkdir("d")).unwrap();
}

#[test]
fn a_link_whose_session_was_taken_up_and_left_elsewhere_is_closed_so_that_it_is_taken_up_anew() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let other = rig.open_link(Role::Client);
    rig.open_session(other, Some(client.session), 0).unwrap();
    rig.close_link(other);
    let request = rig.begin(&mut client, mkdir("d"));
    assert_eq!(rig.mutated(client.link, request), None);
    assert!(rig.closed.contains(&client.link));
    rig.resume(&mut client);
    rig.mutate(&mut client, mkdir("e")).unwrap();
}

#[test]
fn a_window_that_is_full_is_busy_and_results_below_it_are_forgotten() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    for n in 0..256 {
        rig.begin(&mut client, mkdir(&format!("d{n}")));
    }
    rig.sent.clear();
    let request = rig.begin(&mut client, mkdir("more"));
    refused(
        rig.mutated(client.link, request).unwrap().outcome,
        Status::Busy,
    );
    client.lowest = 200;
    let again = client.request(client.last, mkdir("more"));
    let request = rig.send(client.link, again);
    assert!(rig.mutated(client.link, request).unwrap().outcome.is_ok());
    let forgotten = client.request(199, mkdir("x"));
    let request = rig.send(client.link, forgotten);
    assert_eq!(rig.mutated(client.link, request), None);
    let size = format!("{:?}", rig.meta.state().unwrap())
        .matches("Made {")
        .count();
    assert!(size <= 60, "{size} results are kept");
}

#[test]
fn a_silent_session_expires_and_its_temporary_files_with_it() {
    let mut rig = Rig::fresh();
    let (mut silent, mut alive) = (rig.client(1), rig.client(2));
    rig.mutate(&mut silent, mkdir("d")).unwrap();
    rig.mutate(&mut silent, create("d/tmp", Keep::UntilSessionEnds))
        .unwrap();
    rig.mutate(&mut silent, create("d/moved", Keep::UntilSessionEnds))
        .unwrap();
    rig.mutate(&mut silent, create("d/kept", Keep::Always))
        .unwrap();
    rig.mutate(&mut silent, rename("d/moved", "d/final"))
        .unwrap();
    for _ in 0..5 {
        rig.pass(Duration::from_secs(50));
        assert!(matches!(
            rig.ask(
                alive.link,
                Renew {
                    session: alive.session
                }
            ),
            Head::Renewed(Renewed { outcome: Ok(()) })
        ));
    }
    refused(rig.stat(alive.link, "d/tmp"), Status::NotFound);
    assert!(rig.stat(alive.link, "d/final").is_ok() && rig.stat(alive.link, "d/kept").is_ok());
    assert_eq!(rig.status(alive.link).sessions, 1);
    let outcome = rig.mutate(&mut silent, mkdir("late"));
    refused(outcome, Status::SessionExpired);
    assert!(rig.mutate(&mut alive, mkdir("alive")).is_ok());
    rig.meta.state().unwrap().check();
    let link = rig.open_link(Role::Client);
    refused(
        rig.open_session(link, Some(silent.session), 0),
        Status::SessionExpired,
    );
}

#[test]
fn a_session_that_ends_itself_leaves_nothing_behind() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, create("tmp", Keep::UntilSessionEnds))
        .unwrap();
    assert_eq!(rig.mutate(&mut client, MutateOp::EndSession), Ok(Done::Ok));
    refused(rig.stat(client.link, "tmp"), Status::NotFound);
    refused(rig.mutate(&mut client, mkdir("d")), Status::SessionExpired);
    rig.meta.state().unwrap().check();
}

#[test]
fn after_a_restart_a_session_is_given_its_time_again() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.pass(Duration::from_secs(100));
    rig.restart();
    rig.pass(Duration::from_secs(100));
    rig.resume(&mut client);
    assert!(rig.mutate(&mut client, mkdir("d")).is_ok());
}
