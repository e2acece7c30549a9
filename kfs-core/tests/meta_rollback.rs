//! A meta server whose log lost its end: who proves it, what it refuses then, and what an operator's word changes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::*;
use kfs_core::limits::Timing;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Role, Status};
use meta_rig::*;

/// A cluster that went on after its disk was copied: who is up, and the copy, started again in its place.
fn set_back(goes_on: impl FnOnce(&mut Rig, &mut Client, &mut [Server; 2])) -> (Rig, [Server; 2]) {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2)];
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("before")).unwrap();
    let copy = rig.disk.clone();
    goes_on(&mut rig, &mut client, &mut servers);
    rig.disk = copy;
    rig.restart();
    (rig, servers)
}

/// As the server has it in its identity file, and in memory.
fn has_seen(rig: &mut Rig, server: &mut Server) {
    let beat = server.heartbeat(1, 0);
    let Head::HeartbeatAnswer(answer) = rig.ask(server.link, beat) else {
        panic!("a heartbeat is answered");
    };
    server.hello.seen = (server.term.epoch, server.incarnation);
    server.hello.seen_seq = answer.durable;
}

fn is_lost(rig: &mut Rig) -> Option<String> {
    let link = rig.open_link(Role::Client);
    let status = rig.status(link);
    assert!(!status.tail_lost || status.read_only.is_some());
    status.read_only.filter(|_| status.tail_lost)
}

#[test]
fn a_log_with_everything_that_was_seen_is_no_rollback_however_often_it_starts() {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2)];
    let mut client = rig.client(1);
    for round in 0..4 {
        rig.mutate(&mut client, mkdir(&format!("d{round}")))
            .unwrap();
        for server in &mut servers {
            has_seen(&mut rig, server);
        }
        rig.restart();
        rig.resume(&mut client);
        for server in &mut servers {
            rig.join(server, vec![]);
        }
        assert_eq!(is_lost(&mut rig), None);
    }
    // One that slept through all of it.
    let mut late = Server::new(3);
    let first = rig.meta.state().unwrap().epochs().next().unwrap();
    late.hello.seen = (first.0, first.1);
    late.hello.seen_seq = LogSeq(2);
    rig.join(&mut late, vec![]);
    assert_eq!(is_lost(&mut rig), None);
}

#[test]
fn records_lost_within_an_epoch_are_missed_however_far_the_log_has_grown_since() {
    let (mut rig, [mut first, _]) = set_back(|rig, client, servers| {
        rig.mutate(client, mkdir("after")).unwrap();
        has_seen(rig, &mut servers[0]);
    });
    let seen = first.hello.seen_seq;
    rig.newcomer_joins();
    let mut client = rig.client(2);
    for nth in 0..20 {
        rig.mutate(&mut client, mkdir(&format!("grown{nth}")))
            .unwrap();
    }
    assert!(rig.meta.state().unwrap().seq() > seen);
    rig.join(&mut first, vec![]);
    let why = is_lost(&mut rig).expect("it is known");
    assert!(why.contains(&format!("record {seen} of epoch 1")), "{why}");
}

#[test]
fn an_epoch_that_the_log_does_not_have_is_missed_though_it_has_one_of_that_number() {
    let (mut rig, [mut first, _]) = set_back(|rig, _, servers| {
        rig.restart();
        rig.join(&mut servers[0], vec![]);
        has_seen(rig, &mut servers[0]);
    });
    for _ in 0..3 {
        rig.restart();
    }
    let epoch = first.hello.seen.0;
    assert!(
        rig.meta
            .state()
            .unwrap()
            .epochs()
            .any(|(of, ..)| of == epoch)
    );
    rig.join(&mut first, vec![]);
    assert!(is_lost(&mut rig).is_some());
}

#[test]
fn the_proof_is_durable_before_who_has_it_is_welcomed_and_forgets_it() {
    let (mut rig, [mut first, _]) = set_back(|rig, client, servers| {
        rig.mutate(client, mkdir("after")).unwrap();
        has_seen(rig, &mut servers[0]);
    });
    rig.hold = true;
    first.link = rig.open_link(Role::Chunk);
    let request = rig.send(first.link, first.hello.clone());
    assert!(rig.answer(first.link, request).is_none());
    rig.hold = false;
    rig.run_disk();
    assert!(rig.answer(first.link, request).is_some());
    rig.restart();
    // Nobody says it again, and it is known.
    let mut newer = Server::new(1);
    newer.hello.boot = Boot(2);
    rig.join(&mut newer, vec![]);
    assert!(is_lost(&mut rig).is_some());
}

#[test]
fn nothing_changes_before_it_is_accepted_and_reads_go_on() {
    let (mut rig, [mut first, mut second]) = set_back(|rig, client, servers| {
        rig.mutate(client, create("temporary", Keep::UntilSessionEnds))
            .unwrap();
        rig.mutate(client, mkdir("after")).unwrap();
        for server in servers {
            has_seen(rig, server);
        }
    });
    let mut client = rig.client(2);
    refused(
        rig.mutate(&mut client, MutateOp::AcceptRollback),
        Status::BadRequest,
    );
    let temporary = create("held", Keep::UntilSessionEnds);
    rig.newcomer_joins();
    rig.mutate(&mut client, temporary).unwrap();
    rig.join(&mut first, vec![]);
    for op in [
        mkdir("new"),
        remove("held"),
        rmdir("before"),
        rename("before", "elsewhere"),
        MutateOp::EndSession,
    ] {
        let why = refused(rig.mutate(&mut client, op), Status::ReadOnly);
        assert!(why.contains("accept-rollback"), "{why}");
    }
    rig.stat(client.link, "before").unwrap();
    // What sessions hold stays, though they are silent: what is missing may have renamed it.
    rig.pass(Timing::REAL.session_idle * 3);
    rig.stat(client.link, "held").unwrap();

    // Neither a start nor a checkpoint forgets it.
    rig.restart();
    rig.resume(&mut client);
    rig.query(client.link, QueryOp::Checkpoint).unwrap();
    rig.restart();
    rig.resume(&mut client);
    refused(rig.mutate(&mut client, mkdir("new")), Status::ReadOnly);
    let status = rig.status(client.link);
    assert!(status.read_only.is_some() && status.tail_lost);

    rig.mutate(&mut client, MutateOp::AcceptRollback).unwrap();
    rig.newcomer_joins();
    rig.mutate(&mut client, mkdir("new")).unwrap();
    assert_eq!(is_lost(&mut rig), None);
    // What it held is a file like others now, and stays when it ends.
    rig.mutate(&mut client, MutateOp::EndSession).unwrap();
    let mut client = rig.client(3);
    rig.stat(client.link, "held").unwrap();
    // Who comes late with the same proof brings no news.
    rig.join(&mut second, vec![]);
    assert_eq!(is_lost(&mut rig), None);
    rig.restart();
    rig.newcomer_joins();
    rig.resume(&mut client);
    rig.mutate(&mut client, mkdir("newer")).unwrap();
    rig.meta.state().unwrap().check();
}

#[test]
fn what_is_lost_after_one_rollback_was_accepted_is_missed_again() {
    let (mut rig, [mut first, mut second]) = set_back(|rig, client, servers| {
        rig.mutate(client, mkdir("after")).unwrap();
        has_seen(rig, &mut servers[0]);
    });
    rig.join(&mut first, vec![]);
    let mut client = rig.client(2);
    rig.mutate(&mut client, MutateOp::AcceptRollback).unwrap();
    rig.join(&mut second, vec![]);
    let copy = rig.disk.clone();
    rig.mutate(&mut client, mkdir("lost again")).unwrap();
    has_seen(&mut rig, &mut first);
    rig.disk = copy;
    rig.restart();
    assert_eq!(is_lost(&mut rig), None);
    rig.join(&mut first, vec![]);
    assert!(is_lost(&mut rig).is_some());
}

#[test]
fn a_chunk_that_the_log_never_issued_proves_it_and_stays_where_it_is() {
    let mut found = None;
    let (mut rig, [mut first, _]) = set_back(|rig, client, servers| {
        let file = rig.create(client, "f");
        let all: Vec<&Server> = servers.iter().collect();
        let grant = rig.allocate(client, &all, file, 0).unwrap();
        found = Some(item(file, &grant, servers[0].incarnation, 100));
    });
    // The server noted nothing of it in its identity file.
    let found = found.unwrap();
    assert_eq!(rig.join(&mut first, vec![found]), [Verdict::Unknown]);
    let why = is_lost(&mut rig).expect("it is known");
    assert!(why.contains("a chunk of epoch 1"), "{why}");
    let mut client = rig.client(2);
    rig.mutate(&mut client, MutateOp::AcceptRollback).unwrap();
    let kept = rig.join(&mut first, vec![found]);
    assert!(matches!(kept[..], [Verdict::Keep { .. }]), "{kept:?}");
    assert_eq!(is_lost(&mut rig), None);
}

#[test]
fn a_chunk_with_an_unreadable_header_or_of_this_log_proves_nothing() {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2)];
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let grant = {
        let all: Vec<&Server> = servers.iter().collect();
        rig.allocate(&mut client, &all, file, 0).unwrap()
    };
    let incarnation = servers[0].incarnation;
    rig.mutate(&mut client, remove("f")).unwrap();
    let stale = item(file, &grant, incarnation, 100);
    let bad = InventoryItem {
        state: ReplicaState::BadHeader,
        incarnation: Incarnation(0),
        version: Version(grant.version.0 + 500),
        ..stale
    };
    rig.join(&mut servers[0], vec![stale, bad]);
    rig.pass(Duration::from_secs(1));
    assert_eq!(is_lost(&mut rig), None);
}

#[test]
fn a_made_up_epoch_near_the_end_of_all_numbers_proves_nothing() {
    let mut rig = Rig::fresh();
    let mut server = Server::new(1);
    server.hello.seen = (Epoch(u32::MAX), Incarnation(7));
    rig.join(&mut server, vec![]);
    assert_eq!(is_lost(&mut rig), None);
}

/// What was written behind the copy: a file of two chunks, on both servers. Gives what they report of it.
fn written(rig: &mut Rig, client: &mut Client, servers: &[Server; 2]) -> [InventoryItem; 2] {
    let file = rig.create(client, "f");
    let all: Vec<&Server> = servers.iter().collect();
    [(0, CHUNK), (1, 100)].map(|(index, len)| {
        let grant = rig.allocate(client, &all, file, index).unwrap();
        item(file, &grant, servers[0].incarnation, len)
    })
}

fn found(rig: &mut Rig, client: &Client) -> Vec<Entry> {
    let op = QueryOp::List {
        at: at("lost+found"),
        after: vec![],
        limit: 100,
    };
    match rig.query(client.link, op) {
        Ok(Answer::Entries { entries, .. }) => entries,
        other => panic!("not entries: {other:?}"),
    }
}

#[test]
fn chunks_of_the_lost_part_become_files_when_it_is_accepted_and_are_read() {
    let mut items = None;
    let (mut rig, [mut first, mut second]) = set_back(|rig, client, servers| {
        items = Some(written(rig, client, servers));
    });
    let items = items.unwrap();
    for server in [&mut first, &mut second] {
        assert_eq!(
            rig.join(server, items.to_vec()),
            [Verdict::Unknown, Verdict::Unknown]
        );
    }
    let mut client = rig.client(2);
    refused(rig.stat(client.link, "lost+found"), Status::NotFound);
    assert_eq!(rig.status(client.link).chunks_unknown, 4);
    rig.mutate(&mut client, MutateOp::AcceptRollback).unwrap();
    let entries = found(&mut rig, &client);
    let names: Vec<String> = items
        .iter()
        .map(|item| format!("{}.{}", item.file, item.chunk))
        .collect();
    let listed: Vec<_> = entries
        .iter()
        .map(|entry| String::from_utf8(entry.name.clone()).unwrap())
        .collect();
    assert_eq!(listed, names);
    assert_eq!([entries[0].attrs.size, entries[1].attrs.size], [CHUNK, 100]);
    // They are asked to say hello again, and then have what is theirs.
    for server in [&mut first, &mut second] {
        let asked = rig.take(server.link);
        assert!(
            asked
                .iter()
                .any(|msg| matches!(msg.head, Head::SayHello(_))),
            "{asked:?}"
        );
        let verdicts = rig.join(server, items.to_vec());
        assert!(
            verdicts
                .iter()
                .all(|verdict| matches!(verdict, Verdict::Keep { .. })),
            "{verdicts:?}"
        );
    }
    for (entry, item) in entries.iter().zip(&items) {
        let located = rig.locate(client.link, entry.attrs.file);
        assert_eq!(located.chunks.len(), 1);
        assert_eq!(located.chunks[0].chunk, item.chunk);
        assert_eq!(located.chunks[0].replicas.len(), 2);
    }
    let status = rig.status(client.link);
    assert_eq!((status.chunks_unknown, status.chunks_unavailable), (0, 0));
    // Neither a start from the log nor one from a checkpoint forgets them.
    for _ in 0..2 {
        rig.meta.state().unwrap().check();
        rig.restart();
        rig.resume(&mut client);
        for server in [&mut first, &mut second] {
            let verdicts = rig.join(server, items.to_vec());
            assert!(matches!(
                verdicts[..],
                [Verdict::Keep { .. }, Verdict::Keep { .. }]
            ));
        }
        rig.query(client.link, QueryOp::Checkpoint).unwrap();
    }
    // They are files like others.
    let name = format!("lost+found/{}", names[0]);
    rig.mutate(&mut client, rename(&name, "back")).unwrap();
    rig.mutate(&mut client, remove("back")).unwrap();
    rig.meta.state().unwrap().check();
}

#[test]
fn a_server_that_comes_later_adds_its_replica_and_a_shorter_one_stays_unknown() {
    let mut items = None;
    let (mut rig, [mut first, mut second]) = set_back(|rig, client, servers| {
        items = Some(written(rig, client, servers));
    });
    let items = items.unwrap();
    rig.join(&mut first, items.to_vec());
    let mut client = rig.client(2);
    rig.mutate(&mut client, MutateOp::AcceptRollback).unwrap();
    rig.join(&mut first, items.to_vec());
    let entries = found(&mut rig, &client);
    assert_eq!(entries.len(), 2);
    // It never had the last write of the second chunk.
    let shorter = InventoryItem {
        len: 50,
        wseq: WriteSeq(items[1].wseq.0 - 1),
        ..items[1]
    };
    // A replica is missing of the first chunk: the one it has is taken at once.
    let verdicts = rig.join(&mut second, vec![items[0], shorter]);
    assert!(
        matches!(verdicts[..], [Verdict::Keep { .. }, Verdict::Unknown]),
        "{verdicts:?}"
    );
    assert!(rig.take(second.link).is_empty(), "nothing is left to adopt");
    let located = rig.locate(client.link, entries[0].attrs.file);
    assert_eq!(located.chunks[0].replicas.len(), 2);
    assert_eq!(found(&mut rig, &client).len(), 2);
    rig.meta.state().unwrap().check();
}

#[test]
fn an_orphan_without_a_byte_and_one_whose_directory_is_a_file_stay_where_they_are() {
    let mut items = None;
    let (mut rig, [mut first, _]) = set_back(|rig, client, servers| {
        items = Some(written(rig, client, servers));
    });
    let [one, other] = items.unwrap();
    rig.newcomer_joins();
    let mut client = rig.client(2);
    rig.create(&mut client, "lost+found");
    let empty = InventoryItem {
        len: 0,
        wseq: WriteSeq(0),
        ..other
    };
    rig.join(&mut first, vec![one, empty]);
    rig.mutate(&mut client, MutateOp::AcceptRollback).unwrap();
    assert_eq!(
        rig.join(&mut first, vec![one, empty]),
        [Verdict::Unknown, Verdict::Unknown]
    );
    assert!(
        rig.take(first.link).is_empty(),
        "it is not asked to say the same for ever"
    );
    rig.mutate(&mut client, remove("lost+found")).unwrap();
    rig.join(&mut first, vec![one, empty]);
    assert_eq!(found(&mut rig, &client).len(), 1);
}

/// What a client is told that wants a change made.
fn waits(rig: &mut Rig, client: &mut Client, name: &str) -> Option<String> {
    let done = rig.mutate(client, mkdir(name));
    done.is_err().then(|| refused(done, Status::Busy))
}

#[test]
fn after_a_start_nothing_changes_before_all_were_heard_who_may_know_of_more() {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2), rig.server(3)];
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("before")).unwrap();
    rig.restart();
    rig.resume(&mut client);
    for (heard, server) in servers.iter_mut().enumerate() {
        let why = waits(&mut rig, &mut client, "new").expect("not all were heard");
        assert!(
            why.contains(&format!("{heard} of 3 have said hello")),
            "{why}"
        );
        rig.stat(client.link, "before").unwrap();
        assert_eq!(rig.status(client.link).changes_wait, Some(why));
        rig.hello(server).unwrap();
    }
    assert_eq!(waits(&mut rig, &mut client, "new"), None);
    assert_eq!(rig.status(client.link).changes_wait, None);
}

#[test]
fn who_does_not_come_back_is_waited_for_no_longer_than_it_would_count_as_there() {
    let mut rig = Rig::fresh();
    let mut servers = [rig.server(1), rig.server(2)];
    let mut client = rig.client(1);
    rig.restart();
    rig.resume(&mut client);
    let timing = Timing::REAL;
    let grace = timing.serve_lease + timing.heartbeat;
    rig.pass(grace - Duration::from_millis(1));
    rig.join(&mut servers[0], vec![]);
    assert!(waits(&mut rig, &mut client, "new").is_some());
    rig.pass(Duration::from_millis(1));
    assert_eq!(waits(&mut rig, &mut client, "new"), None);
    // Who was waited for in vain is not waited for again when others come and go.
    rig.close_link(servers[0].link);
    assert_eq!(waits(&mut rig, &mut client, "newer"), None);
}

#[test]
fn one_at_least_is_waited_for_and_until_then_no_session_ends() {
    let mut rig = Rig::fresh();
    let mut server = rig.server(1);
    let mut client = rig.client(1);
    rig.mutate(&mut client, create("held", Keep::UntilSessionEnds))
        .unwrap();
    rig.restart();
    let mut other = rig.client(2);
    rig.pass(Timing::REAL.session_idle * 3);
    rig.resume(&mut other);
    assert!(waits(&mut rig, &mut other, "new").is_some());
    rig.stat(other.link, "held").unwrap();
    rig.join(&mut server, vec![]);
    assert_eq!(waits(&mut rig, &mut other, "new"), None);
    rig.pass(Duration::from_secs(2));
    refused(rig.stat(other.link, "held"), Status::NotFound);
}

#[test]
fn a_cluster_that_never_had_a_chunkserver_waits_for_none() {
    let mut rig = Rig::fresh();
    rig.restart();
    let mut client = rig.client(1);
    assert_eq!(waits(&mut rig, &mut client, "new"), None);
}
