//! Chunkservers at the meta server: hello, terms, verdicts, silence.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use core::time::Duration;
use kfs_core::health::Health;
use kfs_core::ids::*;
use kfs_core::machine::Input;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Role, Status};
use meta_rig::*;

#[test]
fn a_hello_is_accepted_or_refused_by_who_says_it() {
    let mut rig = Rig::fresh();
    let first = rig.server(1);
    let mut same = first.clone();
    assert!(rig.hello(&mut same).is_ok(), "the same process again");
    assert!(
        rig.closed.contains(&first.link),
        "its older link is dropped"
    );
    assert!(same.term > first.term);
    type Change = fn(&mut Hello);
    let table: [(&str, Change, Option<Status>); 7] = [
        (
            "restarted",
            |h| (h.boot, h.instance) = (Boot(2), Instance(2)),
            None,
        ),
        (
            "a cloned disk",
            |h| (h.boot, h.instance) = (Boot(2), Instance(9)),
            Some(Status::Permission),
        ),
        (
            "an older boot",
            |h| (h.boot, h.instance) = (Boot(1), Instance(1)),
            Some(Status::Permission),
        ),
        (
            "another cluster",
            |h| h.cluster = ClusterId(9),
            Some(Status::BadRequest),
        ),
        (
            "other sizes",
            |h| h.geometry.block_bytes = 512,
            Some(Status::BadRequest),
        ),
        ("no id", |h| h.node = NodeId(0), Some(Status::BadRequest)),
        ("another server", |h| h.node = NodeId(2), None),
    ];
    for (what, change, refusal) in table {
        let mut server = first.clone();
        change(&mut server.hello);
        let outcome = rig.hello(&mut server);
        assert_eq!(
            outcome.err().map(|refusal| refusal.status),
            refusal,
            "{what}"
        );
    }
    let link = rig.open_link(Role::Client);
    assert_eq!(rig.status(link).servers.len(), 2);
    // What was accepted is in the log: the same after a restart.
    rig.restart();
    let mut clone = first.clone();
    (clone.hello.boot, clone.hello.instance) = (Boot(2), Instance(9));
    refused(rig.hello(&mut clone), Status::Permission);
}

#[test]
fn an_address_that_is_not_told_is_the_one_that_is_seen() {
    let mut rig = Rig::fresh();
    let mut server = Server::new(1);
    server.hello.addr = "0.0.0.0:22001".parse().unwrap();
    rig.join(&mut server, vec![]);
    let link = rig.open_link(Role::Client);
    let known = rig.status(link).servers[0].clone();
    assert_eq!(
        (known.addr, known.state),
        (Some("127.0.0.1:22001".parse().unwrap()), ServerState::Up)
    );
}

#[test]
fn a_replica_is_kept_stale_damaged_or_unknown() {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2), rig.server(3)];
    let mut client = rig.client(1);
    let [file, gone] = ["f", "gone"].map(|path| rig.create(&mut client, path));
    let all = [
        &servers[0].clone(),
        &servers[1].clone(),
        &servers[2].clone(),
    ];
    let kept = rig.allocate(&mut client, &all, file, 0).unwrap();
    rig.mutate(&mut client, close(file, 1_000, vec![synced(&kept, 1_000)]))
        .unwrap();
    let stale = rig.allocate(&mut client, &all, gone, 0).unwrap();
    rig.mutate(&mut client, close(gone, 1, vec![synced(&stale, 1)]))
        .unwrap();
    rig.mutate(&mut client, remove("gone")).unwrap();
    let incarnation = servers[0].incarnation;
    rig.restart();
    let other = Incarnation(incarnation.0 ^ 1);
    let never = Grant {
        chunk: ChunkId::issued(Epoch(1), 999_999),
        ..stale.clone()
    };
    let later = Grant {
        version: Version::issued(Epoch(1), 999_999),
        ..kept.clone()
    };
    let log = durable(1_000);
    let bad = |item: InventoryItem| InventoryItem {
        state: ReplicaState::BadHeader,
        incarnation: Incarnation(0),
        len: 0,
        ..item
    };
    let table = [
        (
            "as the log has it",
            item(file, &kept, incarnation, 1_000),
            Verdict::Keep { log },
        ),
        (
            "longer than the log",
            item(file, &kept, incarnation, 4_096),
            Verdict::Keep { log },
        ),
        (
            "shorter than the log",
            item(file, &kept, incarnation, 999),
            Verdict::Damaged { log },
        ),
        (
            "ours, unreadable",
            bad(item(file, &kept, incarnation, 0)),
            Verdict::Damaged { log },
        ),
        (
            "of another file",
            item(gone, &kept, incarnation, 1_000),
            Verdict::Unknown,
        ),
        (
            "at another version",
            item(file, &later, incarnation, 1_000),
            Verdict::Unknown,
        ),
        (
            "removed",
            item(gone, &stale, incarnation, 0),
            Verdict::Stale,
        ),
        (
            "removed, of another history",
            item(gone, &stale, other, 0),
            Verdict::Unknown,
        ),
        (
            "never issued",
            item(gone, &never, incarnation, 0),
            Verdict::Unknown,
        ),
        (
            "removed, unreadable",
            bad(item(gone, &stale, incarnation, 0)),
            Verdict::Unknown,
        ),
    ];
    for (what, item, verdict) in table {
        (servers[0].hello.boot, servers[0].hello.instance) =
            (servers[0].hello.boot.next(), Instance(5));
        assert_eq!(rig.join(&mut servers[0], vec![item]), [verdict], "{what}");
    }
    let mut stranger = Server::new(4);
    let items = vec![item(file, &kept, incarnation, 1_000)];
    assert_eq!(
        rig.join(&mut stranger, items),
        [Verdict::Unknown],
        "on a server that is no member"
    );
}

#[test]
fn only_confirmed_replicas_on_servers_that_are_up_are_read_from() {
    let mut rig = Rig::fresh();
    let servers = [rig.server(1), rig.server(2), rig.server(3)];
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let all = [&servers[0], &servers[1], &servers[2]];
    let grant = rig.allocate(&mut client, &all, file, 0).unwrap();
    assert!(
        rig.locate(client.link, file).chunks.is_empty(),
        "nothing of it can be read yet"
    );
    rig.mutate(&mut client, close(file, 10, vec![synced(&grant, 10)]))
        .unwrap();
    let located = rig.locate(client.link, file);
    assert_eq!((located.size, located.chunks.len()), (10, 1));
    assert_eq!(
        (located.chunks[0].replicas.clone(), located.chunks[0].absent),
        (grant.chain.clone(), 0)
    );
    rig.close_link(servers[0].link);
    let damage = ReportDamage {
        term: servers[1].term,
        chunk: grant.chunk,
        version: grant.version,
        block: None,
        why: "test".into(),
    };
    rig.send(servers[1].link, damage);
    let chunk = rig.locate(client.link, file).chunks[0].clone();
    assert_eq!(
        (chunk.replicas, chunk.absent),
        (vec![servers[2].place()], 2)
    );
    let status = rig.status(client.link);
    assert_eq!(
        (
            status.chunks_under_replicated,
            status.chunks_unavailable,
            status.replicas_damaged
        ),
        (1, 0, 1)
    );
    let mut back = servers[0].clone();
    let items = vec![item(file, &grant, back.incarnation, 10)];
    rig.join(&mut back, items);
    assert_eq!(rig.locate(client.link, file).chunks[0].absent, 1);
    for server in [&back, &servers[1], &servers[2]] {
        rig.close_link(server.link);
    }
    let status = rig.status(client.link);
    assert_eq!(
        (status.chunks_under_replicated, status.chunks_unavailable),
        (1, 1)
    );
}

#[test]
fn an_unfinished_write_that_lost_its_replicas_is_no_lost_data() {
    let mut rig = Rig::fresh();
    let servers = [rig.server(1), rig.server(2), rig.server(3)];
    let all = [&servers[0], &servers[1], &servers[2]];
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let grant = rig.allocate(&mut client, &all, file, 0).unwrap();
    let next = rig.allocate(&mut client, &all, file, 1).unwrap();
    assert_ne!(grant.chunk, next.chunk);
    for server in all {
        rig.close_link(server.link);
    }
    let health = |rig: &mut Rig, link| {
        let status = rig.status(link);
        let reasons = kfs_core::health::reasons(&status);
        let err = Health::of(&reasons) == Health::Err;
        let under = reasons
            .iter()
            .any(|reason| reason.code == "UNDER_REPLICATED");
        assert!(under, "an operator sees that copies are missing");
        (
            status.chunks_under_replicated,
            status.chunks_unavailable,
            err,
        )
    };
    assert_eq!(
        health(&mut rig, client.link),
        (2, 0, false),
        "nothing of it was ever synced"
    );
    let report = set_size(file, 10, vec![synced(&grant, 10)]);
    rig.mutate(&mut client, report).unwrap();
    assert_eq!(
        health(&mut rig, client.link),
        (2, 1, true),
        "ten bytes of the first were promised"
    );
    rig.restart();
    let link = rig.open_link(Role::Client);
    assert_eq!(
        health(&mut rig, link),
        (2, 1, true),
        "a start reads the same from its log"
    );
}

#[test]
fn a_server_that_is_silent_is_down_and_one_whose_answers_do_not_arrive_too() {
    let mut rig = Rig::fresh();
    let [alive, silent, deaf] = [rig.server(1), rig.server(2), rig.server(3)];
    for n in 1..=8 {
        rig.pass(Duration::from_secs(1));
        let answer = rig.ask(alive.link, alive.heartbeat(n, n - 1));
        assert!(matches!(answer, Head::HeartbeatAnswer(answer) if answer.number == n));
        rig.send(deaf.link, deaf.heartbeat(n, 0));
    }
    let link = rig.open_link(Role::Client);
    let states: Vec<_> = rig
        .status(link)
        .servers
        .into_iter()
        .map(|server| server.state)
        .collect();
    assert_eq!(
        states,
        [ServerState::Up, ServerState::Down, ServerState::Down]
    );
    let answer = rig.send(silent.link, silent.heartbeat(1, 0));
    assert!(rig.closed.contains(&silent.link) || rig.answer(silent.link, answer).is_some());
    let mut wrong = alive.clone();
    wrong.term.number += 100;
    assert!(matches!(
        rig.ask(alive.link, wrong.heartbeat(9, 8)),
        Head::SayHello(_)
    ));
}

#[test]
fn heartbeats_are_answered_while_the_log_waits_and_verdicts_are_not() {
    let mut rig = Rig::fresh();
    let server = rig.server(1);
    let mut client = rig.client(1);
    rig.hold = true;
    rig.begin(&mut client, mkdir("d"));
    assert!(matches!(
        rig.ask(server.link, server.heartbeat(1, 0)),
        Head::HeartbeatAnswer(_)
    ));
    let report = Inventory {
        term: server.term,
        items: vec![],
        last: true,
    };
    let request = rig.send(server.link, report);
    assert!(rig.answer(server.link, request).is_none());
    rig.run_disk();
    assert!(rig.answer(server.link, request).is_some());
}

#[test]
fn an_epoch_that_a_server_has_seen_is_passed_and_all_say_hello_again() {
    let mut rig = Rig::fresh();
    let [first, second] = [rig.server(1), rig.server(2)];
    let seen = (Epoch(40), Incarnation(123));
    rig.send(first.link, EpochBehind { seen });
    assert!(rig.closed.contains(&first.link) && rig.closed.contains(&second.link));
    let mut first = first;
    let welcome = rig.hello(&mut first).unwrap();
    assert_eq!(welcome.term.epoch, Epoch(41));
    // Said in the hello itself it is passed at once; the same epoch lived twice is passed too.
    let mut second = second;
    second.hello.seen = (Epoch(41), Incarnation(9));
    assert_eq!(rig.hello(&mut second).unwrap().term.epoch, Epoch(42));
    let seq = rig.meta.state().unwrap().seq();
    rig.send(
        second.link,
        EpochBehind {
            seen: (Epoch(3), Incarnation(1)),
        },
    );
    assert_eq!(
        rig.meta.state().unwrap().seq(),
        seq,
        "a lower one is no reason"
    );
    rig.restart();
    let mut third = Server::new(3);
    assert_eq!(rig.hello(&mut third).unwrap().term.epoch, Epoch(43));
}

#[test]
fn before_the_state_is_loaded_everybody_is_told_to_come_again() {
    let mut rig = Rig::on(config(), Disk::default());
    rig.hold = true;
    rig.input(Input::Wake);
    let mut server = Server::new(1);
    refused(rig.hello(&mut server), Status::Busy);
    let link = rig.open_link(Role::Client);
    refused(rig.open_session(link, None, 1), Status::Busy);
    refused(rig.stat(link, ""), Status::Busy);
}

/// The same, with this as its last write.
fn at_write(item: InventoryItem, wseq: u64) -> InventoryItem {
    let wseq = WriteSeq(wseq);
    InventoryItem { wseq, ..item }
}
fn synced_at(grant: &Grant, len: u64, wseq: u64) -> SyncedChunk {
    let wseq = WriteSeq(wseq);
    SyncedChunk {
        synced: Durable { len, wseq },
        ..synced(grant, len)
    }
}

#[test]
fn a_replica_that_is_as_long_as_the_log_says_and_older_is_damaged() {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2), rig.server(3)];
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let all: Vec<Server> = servers.to_vec();
    let grant = rig
        .allocate(&mut client, &all.iter().collect::<Vec<_>>(), file, 0)
        .unwrap();
    let report = set_size(file, 1_000, vec![synced_at(&grant, 1_000, 5)]);
    rig.mutate(&mut client, report).unwrap();
    // A late report of an earlier sync takes nothing back.
    let late = close(file, 1_000, vec![synced_at(&grant, 1_000, 4)]);
    rig.mutate(&mut client, late).unwrap();
    rig.restart();
    let log = Durable {
        len: 1_000,
        wseq: WriteSeq(5),
    };
    let incarnation = servers[0].incarnation;
    let table = [
        (4, 1_000, Verdict::Damaged { log }),
        (4, 4_096, Verdict::Damaged { log }),
        (5, 999, Verdict::Damaged { log }),
        (5, 1_000, Verdict::Keep { log }),
        // A sync that nobody has reported yet.
        (6, 1_000, Verdict::Keep { log }),
    ];
    for (wseq, len, verdict) in table {
        (servers[0].hello.boot, servers[0].hello.instance) =
            (servers[0].hello.boot.next(), Instance(5));
        let item = at_write(item(file, &grant, incarnation, len), wseq);
        assert_eq!(
            rig.join(&mut servers[0], vec![item]),
            [verdict],
            "{len} bytes at write {wseq}"
        );
    }
}

#[test]
fn a_size_report_that_comes_after_the_hello_of_a_replica_without_its_sync_damages_it() {
    let mut rig = Rig::fresh();
    let servers = [rig.server(1), rig.server(2), rig.server(3)];
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let all: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(&mut client, &all, file, 0).unwrap();
    let first = set_size(file, 1_000, vec![synced_at(&grant, 1_000, 4)]);
    rig.mutate(&mut client, first).unwrap();
    // The second sync was acked by all; before it is reported, one restarts and has lost it.
    for (nth, wseq) in [(0, 4), (1, 5)] {
        let mut back = servers[nth].clone();
        (back.hello.boot, back.hello.instance) = (back.hello.boot.next(), Instance(5));
        let item = at_write(item(file, &grant, back.incarnation, 1_000), wseq);
        let verdicts = rig.join(&mut back, vec![item]);
        assert!(
            matches!(verdicts[..], [Verdict::Keep { .. }]),
            "{verdicts:?}"
        );
    }
    assert_eq!(rig.locate(client.link, file).chunks[0].absent, 0);
    let second = close(file, 1_000, vec![synced_at(&grant, 1_000, 5)]);
    rig.mutate(&mut client, second).unwrap();
    let chunk = rig.locate(client.link, file).chunks[0].clone();
    let left: Vec<_> = chunk.replicas.iter().map(|place| place.node).collect();
    assert_eq!((left.len(), chunk.absent), (2, 1));
    assert!(!left.contains(&servers[0].place().node), "{left:?}");
    assert_eq!(rig.status(client.link).replicas_damaged, 1);
}
