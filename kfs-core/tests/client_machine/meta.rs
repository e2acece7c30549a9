//! Towards the meta server: exactly once over lost links, sessions, refusals, time.
use crate::rig::{OWNER, Rig, SESSION, TIMEOUT, meta_addr, refusal};
use kfs_core::client::{Call, Event};
use kfs_core::ids::{LogSeq, RequestNumber, SessionId};
use kfs_core::machine::{CloseReason, Input};
use kfs_core::wire::client_meta::{Answer, At, Done, MutateOp, Parents, Renewed, SessionOpened};
use kfs_core::wire::{Head, Role, Status};
use std::time::Duration;

fn mkdir(name: &str) -> Call {
    Call::Mkdir {
        at: At::root(name),
        parents: Parents::MustExist,
        owner: OWNER,
    }
}

#[test]
fn a_lost_reply_is_asked_for_again_under_the_same_number() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    let (_, first) = rig.sent_mutation(link);
    rig.close(link);
    assert!(
        rig.sends.is_empty() && rig.dials.is_empty(),
        "the next link waits a moment"
    );
    rig.pass(Duration::from_millis(20));
    let link = rig.meta_up();
    assert_eq!(
        rig.grant_session(link, SESSION).0,
        Some(SESSION),
        "the session is taken up again"
    );
    let (request, second) = rig.sent_mutation(link);
    assert_eq!(first, second);
    assert_eq!(second.number, RequestNumber(2));
    rig.mutated(link, request, Ok(Done::Ok));
    rig.done(id);
}

#[test]
fn a_reply_that_comes_late_on_an_old_link_changes_nothing() {
    let (mut rig, old) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    let (request, _) = rig.sent_mutation(old);
    rig.close(old);
    rig.pass(Duration::from_millis(20));
    let link = rig.meta_up();
    rig.mutated(old, request, Ok(Done::Ok));
    assert!(rig.events.is_empty());
    rig.grant_session(link, SESSION);
    let (request, _) = rig.sent_mutation(link);
    rig.mutated(link, request + 1, Ok(Done::Ok));
    assert!(rig.events.is_empty(), "nor does one that nobody asked for");
    rig.mutated(link, request, Err(refusal(Status::Exists)));
    assert_eq!(rig.failed(id).status, Status::Exists);
    rig.mutated(link, request, Ok(Done::Ok));
    rig.quiet();
}

#[test]
fn a_silent_meta_server_is_left_after_five_seconds_and_dialed_again() {
    let (mut rig, link) = Rig::in_session();
    rig.call(mkdir("a"));
    let (_, first) = rig.sent_mutation(link);
    rig.pass(Duration::from_secs(6));
    assert_eq!(rig.closes, [link]);
    let link = rig.meta_up();
    rig.grant_session(link, SESSION);
    assert_eq!(rig.sent_mutation(link).1, first);
}

#[test]
fn results_are_let_go_of_when_they_have_come() {
    let (mut rig, link) = Rig::in_session();
    for name in ["a", "b", "c"] {
        rig.call(mkdir(name));
    }
    let sent: Vec<_> = (0..3).map(|_| rig.sent_mutation(link)).collect();
    let numbers: Vec<_> = sent
        .iter()
        .map(|(_, m)| (m.number.0, m.lowest_unanswered.0))
        .collect();
    assert_eq!(numbers, [(2, 2), (3, 2), (4, 2)]);
    rig.mutated(link, sent[0].0, Ok(Done::Ok));
    rig.mutated(link, sent[2].0, Ok(Done::Ok));
    rig.call(mkdir("d"));
    let (_, next) = rig.sent_mutation(link);
    assert_eq!((next.number.0, next.lowest_unanswered.0), (5, 3));
}

#[test]
fn no_more_mutations_are_unanswered_than_the_meta_server_remembers() {
    let (mut rig, link) = Rig::in_session();
    for n in 0..300 {
        rig.call(mkdir(&n.to_string()));
    }
    assert_eq!(rig.sends.len(), 256);
    let (request, _) = rig.sent_mutation(link);
    rig.mutated(link, request, Ok(Done::Ok));
    assert_eq!(rig.sends.len(), 256, "one answered, one more sent");
}

#[test]
fn an_expired_session_makes_what_was_sent_unknown_and_the_rest_goes_on() {
    let (mut rig, link) = Rig::in_session();
    let sent = rig.call(mkdir("a"));
    rig.sent_mutation(link);
    rig.close(link);
    let later = rig.call(mkdir("b"));
    rig.pass(Duration::from_millis(20));
    let link = rig.meta_up();
    let open = rig.sent(link);
    let Head::OpenSession(resume) = open.head else {
        panic!()
    };
    assert_eq!(resume.resume, Some(SESSION));
    let outcome = Err(refusal(Status::SessionExpired));
    rig.say(
        link,
        open.request,
        SessionOpened {
            seq: LogSeq(9),
            outcome,
        },
    );
    let failure = rig.failed(sent);
    assert_eq!(failure.status, Status::Unknown);
    assert!(
        failure.what.contains("making the directory"),
        "{}",
        failure.what
    );
    let (resumed, nonce) = rig.grant_session(link, SessionId(78));
    assert_eq!(resumed, None);
    assert_ne!(nonce, resume.nonce, "another session has another nonce");
    let (request, mutate) = rig.sent_mutation(link);
    assert_eq!(
        (mutate.session, mutate.number),
        (SessionId(78), RequestNumber(1))
    );
    rig.mutated(link, request, Ok(Done::Ok));
    rig.done(later);
}

#[test]
fn a_mutation_refused_for_its_session_at_its_only_sending_is_done_in_the_next() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    let (request, _) = rig.sent_mutation(link);
    rig.mutated(link, request, Err(refusal(Status::SessionExpired)));
    rig.grant_session(link, SessionId(78));
    let (request, mutate) = rig.sent_mutation(link);
    assert_eq!(mutate.session, SessionId(78));
    rig.mutated(link, request, Ok(Done::Ok));
    rig.done(id);
}

#[test]
fn a_mutation_sent_twice_and_refused_for_its_session_is_unknown() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    rig.sent_mutation(link);
    rig.close(link);
    rig.pass(Duration::from_millis(20));
    let link = rig.meta_up();
    rig.grant_session(link, SESSION);
    let (request, _) = rig.sent_mutation(link);
    rig.mutated(link, request, Err(refusal(Status::SessionExpired)));
    assert_eq!(rig.failed(id).status, Status::Unknown);
}

#[test]
fn busy_is_asked_again_and_everything_else_is_passed_on() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    let (request, first) = rig.sent_mutation(link);
    rig.mutated(link, request, Err(refusal(Status::Busy)));
    rig.quiet();
    rig.pass(Duration::from_millis(20));
    let (request, second) = rig.sent_mutation(link);
    assert!(
        second.number > first.number,
        "no memory of the refusal answers the new try"
    );
    rig.mutated(link, request, Err(refusal(Status::NotADirectory)));
    let failure = rig.failed(id);
    assert_eq!(
        (failure.status, failure.what.as_str()),
        (Status::NotADirectory, "because KFS-E003")
    );
    let id = rig.call(Call::Stat(At::root("a")));
    let (request, _) = rig.sent_query(link);
    rig.answered(link, request, Err(refusal(Status::Busy)));
    rig.pass(Duration::from_millis(20));
    let (request, _) = rig.sent_query(link);
    rig.answered(link, request, Err(refusal(Status::NotFound)));
    assert_eq!(rig.failed(id).status, Status::NotFound);
}

#[test]
fn busy_after_a_lost_reply_does_not_make_the_mutation_a_new_one() {
    let (mut rig, link) = Rig::in_session();
    rig.call(mkdir("a"));
    let (_, first) = rig.sent_mutation(link);
    rig.close(link);
    rig.pass(Duration::from_millis(20));
    let link = rig.meta_up();
    rig.grant_session(link, SESSION);
    let (request, _) = rig.sent_mutation(link);
    rig.mutated(link, request, Err(refusal(Status::Busy)));
    rig.pass(Duration::from_millis(20));
    assert_eq!(rig.sent_mutation(link).1.number, first.number);
}

#[test]
fn a_call_ends_at_its_deadline_whatever_happens() {
    let mut rig = Rig::new();
    let begin = rig.now;
    let stat = rig.call(Call::Stat(At::root("a")));
    while rig.events.is_empty() {
        let (link, addr) = rig.dials.pop_front().expect("it goes on dialing");
        assert_eq!(addr, meta_addr());
        rig.refuse_dial(link);
        let (next, _) = rig.deadline().unwrap();
        rig.pass(next.since(rig.now));
    }
    assert_eq!(rig.now.since(begin), TIMEOUT);
    let failure = rig.failed(stat);
    assert_eq!(failure.status, Status::Unreachable);
    assert!(
        failure.what.contains("connection refused") && failure.what.contains("127.0.0.1:20000"),
        "{}",
        failure.what
    );
}

#[test]
fn a_mutation_that_may_have_been_done_ends_unknown_at_its_deadline() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    rig.sent_mutation(link);
    let waiting = rig.call(Call::Stat(At::root("a")));
    rig.pass(TIMEOUT);
    assert_eq!(rig.failed(id).status, Status::Unknown);
    assert_eq!(rig.failed(waiting).status, Status::Unreachable);
}

#[test]
fn busy_until_the_deadline_says_so() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(mkdir("a"));
    while rig.events.is_empty() {
        if rig.sends.is_empty() {
            let (next, _) = rig.deadline().unwrap();
            rig.pass(next.since(rig.now));
            continue;
        }
        let msg = rig.sent(link);
        match msg.head {
            Head::Mutate(_) => rig.mutated(link, msg.request, Err(refusal(Status::Busy))),
            Head::Renew(_) => rig.say(link, msg.request, Renewed { outcome: Ok(()) }),
            other => panic!("{other:?}"),
        }
    }
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Busy);
    assert!(
        failure.what.contains("because KFS-E031"),
        "{}",
        failure.what
    );
}

#[test]
fn a_session_is_renewed_four_times_in_its_life() {
    let (mut rig, link) = Rig::in_session();
    rig.pass(Duration::from_secs(29));
    rig.quiet();
    rig.pass(Duration::from_secs(1));
    let msg = rig.sent(link);
    assert!(matches!(msg.head, Head::Renew(renew) if renew.session == SESSION));
    rig.say(link, msg.request, Renewed { outcome: Ok(()) });
    rig.pass(Duration::from_secs(30));
    let msg = rig.sent(link);
    rig.say(
        link,
        msg.request,
        Renewed {
            outcome: Err(refusal(Status::SessionExpired)),
        },
    );
    rig.quiet();
    rig.call(mkdir("a"));
    assert_eq!(rig.grant_session(link, SessionId(78)).0, None);
}

#[test]
fn reading_the_namespace_needs_no_session() {
    let mut rig = Rig::new();
    let id = rig.call(Call::List {
        at: At::root("d"),
        after: Vec::new(),
    });
    let link = rig.meta_up();
    let (request, _) = rig.sent_query(link);
    rig.answered(
        link,
        request,
        Ok(Answer::Entries {
            entries: Vec::new(),
            end: true,
        }),
    );
    let (of, event) = rig.event();
    assert_eq!(of, id);
    assert!(matches!(event, Event::Entries { end: true, .. }));
    rig.quiet();
}

#[test]
fn a_peer_that_is_no_meta_server_is_an_error_at_once() {
    let mut rig = Rig::new();
    let id = rig.call(Call::Status);
    let link = rig.dialed(meta_addr());
    rig.open(link, Role::Chunk);
    let failure = rig.failed(id);
    assert_eq!(failure.status, Status::Protocol);
    assert!(
        failure.what.contains("is a chunkserver, not a meta server"),
        "{}",
        failure.what
    );
    assert_eq!(rig.closes, [link]);
    let id = rig.call(Call::Status);
    rig.pass(Duration::from_secs(1));
    let link = rig.dialed(meta_addr());
    rig.input(Input::Closed {
        link,
        why: CloseReason::Refused("no protocol in common".into()),
    });
    assert_eq!(rig.failed(id).status, Status::Protocol);
}

#[test]
fn an_answer_of_another_kind_is_a_protocol_error() {
    let (mut rig, link) = Rig::in_session();
    let id = rig.call(Call::Stat(At::root("a")));
    let (request, _) = rig.sent_query(link);
    let answer = || Answer::Entries {
        entries: Vec::new(),
        end: true,
    };
    rig.answered(link, request + 1, Ok(answer()));
    assert!(rig.events.is_empty(), "nobody asked for it");
    rig.answered(link, request, Ok(answer()));
    assert_eq!(rig.failed(id).status, Status::Protocol);
}

#[test]
fn a_path_that_no_frame_can_carry_is_refused_before_anything_is_sent() {
    let mut rig = Rig::new();
    let id = rig.call(Call::Stat(At::root(vec![b'a'; 5_000])));
    assert_eq!(rig.failed(id).status, Status::BadName);
    rig.quiet();
}

#[test]
fn disconnecting_ends_the_session_and_then_nothing_more_is_sent() {
    let (mut rig, link) = Rig::in_session();
    let pending = rig.call(mkdir("a"));
    rig.sent_mutation(link);
    let id = rig.call(Call::Disconnect);
    assert_eq!(rig.failed(pending).status, Status::Unknown);
    let (request, mutate) = rig.sent_mutation(link);
    assert_eq!(mutate.op, MutateOp::EndSession);
    rig.mutated(link, request, Ok(Done::Ok));
    rig.done(id);
    assert_eq!(rig.closes, [link]);
    assert_eq!(rig.deadline(), None);
    let id = rig.call(mkdir("b"));
    assert_eq!(rig.failed(id).status, Status::BadRequest);
    rig.quiet();
}

#[test]
fn disconnecting_does_not_wait_long_for_a_meta_server_that_is_gone() {
    let (mut rig, link) = Rig::in_session();
    rig.close(link);
    let id = rig.call(Call::Disconnect);
    rig.pass(Duration::from_secs(2));
    rig.done(id);
    assert_eq!(rig.deadline(), None);
}
