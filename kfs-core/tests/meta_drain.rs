//! Servers that are drained: nothing is taken off one before there is a copy elsewhere, it gets nothing new, and that
//! it is to be drained is not forgotten.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::NodeId;
use kfs_core::machine::Machine;
use kfs_core::meta::Config;
use kfs_core::meta::state::State;
use kfs_core::wire::chunk_meta::{CopyChunk, Verdict};
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Refusal, Role, Status};
use meta_rig::*;
use std::collections::BTreeSet;

const LEN: u64 = 1_000;

fn cluster(servers: u128) -> (Rig, Vec<Server>, Client) {
    let config = Config {
        re_replicate_after: Duration::from_millis(500),
        ..config()
    };
    let mut rig = Rig::start(config, Disk::default());
    let servers = (1..=servers).map(|node| rig.server(node)).collect();
    let client = rig.client(1);
    (rig, servers, client)
}
fn drain(rig: &mut Rig, client: &mut Client, server: &Server) -> Result<Done, Refusal> {
    let node = server.hello.node;
    let drain = Drain::Begin;
    rig.mutate(client, MutateOp::Drain { node, drain })
}
/// A file of one chunk at three replicas, which is being written.
fn open(rig: &mut Rig, servers: &[Server], client: &mut Client, path: &str) -> Grant {
    let file = rig.create(client, path);
    let of: Vec<&Server> = servers.iter().collect();
    rig.allocate(client, &of, file, 0).unwrap()
}
/// A closed file of one chunk at three replicas.
fn file(rig: &mut Rig, servers: &[Server], client: &mut Client, path: &str) -> Grant {
    let grant = open(rig, servers, client, path);
    closes(rig, client, path, &grant);
    grant
}
fn closes(rig: &mut Rig, client: &mut Client, path: &str, grant: &Grant) {
    let file = rig.stat(client.link, path).unwrap().file;
    let done = rig.mutate(client, close(file, LEN, vec![synced(grant, LEN)]));
    assert_eq!(done, Ok(Done::Ok));
}
fn is_in(grant: &Grant, server: &Server) -> bool {
    grant.chain.iter().any(|at| at.node == server.hello.node)
}
/// Passes time; every server beats, seals what it is asked to, and does with a copy what this says. Gives who was
/// ordered to copy, and after each order who are the members of all chunks.
fn pass(
    rig: &mut Rig,
    servers: &[Server],
    ticks: u64,
    beat: &mut u64,
    copy: &dyn Fn(&Server) -> Result<Durable, Refusal>,
) -> Vec<(NodeId, CopyChunk)> {
    let mut never_fewer = |state: &State| {
        for owned in state.chunks() {
            let least = usize::from(owned.wanted);
            assert!(owned.members.len() >= least, "{owned:?}");
        }
    };
    let holds = durable(LEN);
    let given = rig.work(servers, (ticks, beat), holds, copy, &mut never_fewer);
    given.copied
}
fn made(_: &Server) -> Result<Durable, Refusal> {
    Ok(durable(LEN))
}
/// Of how many chunks a server is a member.
fn has(rig: &Rig, server: &Server) -> usize {
    let state = rig.meta.state().unwrap();
    let mut servers = state.servers();
    let (index, _) = servers
        .find(|(_, node)| *node == server.hello.node)
        .unwrap();
    let chunks = state.chunks();
    chunks
        .filter(|owned| owned.members.contains(&index))
        .count()
}
fn told(rig: &mut Rig, server: &Server) -> Option<DrainStatus> {
    let asks = rig.open_link(Role::Client);
    let status = rig.status(asks);
    let mut servers = status.servers.into_iter();
    servers
        .find(|at| at.node == server.hello.node)
        .unwrap()
        .drain
}

#[test]
fn a_server_is_taken_off_only_when_a_copy_has_taken_its_place() {
    let (mut rig, servers, mut client) = cluster(5);
    for n in 0..20 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    let had = has(&rig, &servers[0]);
    assert!(had > 4, "{had}");
    assert_eq!(drain(&mut rig, &mut client, &servers[0]), Ok(Done::Ok));
    let mut beat = 0;
    // Nobody can take a copy: nothing is taken off.
    let full = |_: &Server| Err(Refusal::new(Status::NoRoom, "the disk is full"));
    pass(&mut rig, &servers, 300, &mut beat, &full);
    assert_eq!(has(&rig, &servers[0]), had);
    let Some(DrainStatus::Left(left)) = told(&mut rig, &servers[0]) else {
        panic!("it has something yet");
    };
    assert_eq!(left.chunks, had as u64);
    assert_eq!((left.bytes, left.written), (had as u64 * LEN, 0));

    let given = pass(&mut rig, &servers, 6_000, &mut beat, &made);
    assert_eq!(given.len(), had, "one copy for each");
    assert!(given.iter().all(|(to, _)| *to != servers[0].hello.node));
    assert_eq!(has(&rig, &servers[0]), 0);
    assert_eq!(told(&mut rig, &servers[0]), Some(DrainStatus::Drained));
    for owned in rig.meta.state().unwrap().chunks() {
        assert_eq!(owned.members.len(), 3, "and none too many: {owned:?}");
    }
    let rest = rig.meta.deadline().map(|(_, why)| why);
    assert_ne!(rest, Some("make copies"), "nothing is looked for any more");
}

#[test]
fn two_that_are_drained_at_once_do_not_copy_to_one_another() {
    let (mut rig, servers, mut client) = cluster(6);
    for n in 0..20 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    drain(&mut rig, &mut client, &servers[1]).unwrap();
    let mut beat = 0;
    let given = pass(&mut rig, &servers, 6_000, &mut beat, &made);
    let leaving: BTreeSet<NodeId> = servers[..2].iter().map(|at| at.hello.node).collect();
    assert!(given.iter().all(|(to, _)| !leaving.contains(to)));
    assert_eq!((has(&rig, &servers[0]), has(&rig, &servers[1])), (0, 0));
}

#[test]
fn a_server_that_is_drained_gets_no_new_chunk() {
    let (mut rig, servers, mut client) = cluster(5);
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    for n in 0..30 {
        let grant = file(&mut rig, &servers, &mut client, &format!("f{n}"));
        assert!(!is_in(&grant, &servers[0]));
    }
    let node = servers[0].hello.node;
    let drain = Drain::End;
    rig.mutate(&mut client, MutateOp::Drain { node, drain })
        .unwrap();
    assert_eq!(told(&mut rig, &servers[0]), None);
    let again = (0..30).map(|n| file(&mut rig, &servers, &mut client, &format!("g{n}")));
    let again: Vec<Grant> = again.collect();
    assert!(again.iter().any(|grant| is_in(grant, &servers[0])));
}

#[test]
fn what_is_lost_meanwhile_is_not_copied_to_who_is_drained() {
    let (mut rig, servers, mut client) = cluster(5);
    for n in 0..20 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    rig.close_link(servers[1].link);
    let there: Vec<Server> = [&servers[..1], &servers[2..]].concat();
    let mut beat = 0;
    let given = pass(&mut rig, &there, 6_000, &mut beat, &made);
    assert!(!given.is_empty());
    assert!(given.iter().all(|(to, _)| *to != servers[0].hello.node));
    assert_eq!(has(&rig, &servers[0]), 0);
}

#[test]
fn a_chunk_that_is_written_waits_until_it_is_closed() {
    let (mut rig, servers, mut client) = cluster(5);
    let grants: Vec<(String, Grant)> = (0..6)
        .map(|n| {
            let path = format!("f{n}");
            let grant = open(&mut rig, &servers, &mut client, &path);
            (path, grant)
        })
        .collect();
    let had = has(&rig, &servers[0]);
    assert!(had > 0);
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    let mut beat = 0;
    let given = pass(&mut rig, &servers, 300, &mut beat, &made);
    assert!(given.is_empty(), "{given:?}");
    let Some(DrainStatus::Left(left)) = told(&mut rig, &servers[0]) else {
        panic!("it has something yet");
    };
    assert_eq!((left.chunks, left.written), (had as u64, had as u64));
    rig.send(
        client.link,
        Renew {
            session: client.session,
        },
    );
    for (path, grant) in &grants {
        closes(&mut rig, &mut client, path, grant);
    }
    pass(&mut rig, &servers, 6_000, &mut beat, &made);
    assert_eq!(told(&mut rig, &servers[0]), Some(DrainStatus::Drained));
}

#[test]
fn too_few_others_are_said_at_once_and_later_too() {
    let (mut rig, servers, mut client) = cluster(4);
    for n in 0..10 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    rig.close_link(servers[3].link);
    let refused = drain(&mut rig, &mut client, &servers[0]).unwrap_err();
    assert_eq!(refused.status, Status::NoServers);
    assert!(refused.detail.contains("2 live"), "{refused:?}");
    assert_eq!(told(&mut rig, &servers[0]), None);
    let nobody = Server::new(77);
    let refused = drain(&mut rig, &mut client, &nobody).unwrap_err();
    assert_eq!(refused.status, Status::NotFound);

    // There were enough when it was asked for, and are not any more.
    let (mut rig, servers, mut client) = cluster(4);
    for n in 0..10 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    rig.close_link(servers[3].link);
    let mut beat = 0;
    pass(&mut rig, &servers[..3], 500, &mut beat, &made);
    let Some(DrainStatus::Left(left)) = told(&mut rig, &servers[0]) else {
        panic!("it has something yet");
    };
    assert!(left.stuck > 0 && left.stuck <= left.chunks, "{left:?}");
    // A server more is what was missing.
    let mut servers = servers[..3].to_vec();
    servers.push(rig.server(9));
    let full = |_: &Server| Err(Refusal::new(Status::NoRoom, "the disk is full"));
    pass(&mut rig, &servers, 500, &mut beat, &full);
    let Some(DrainStatus::Left(left)) = told(&mut rig, &servers[0]) else {
        panic!("it has something yet");
    };
    assert_eq!(
        left.stuck, 0,
        "there is one now that could have them: {left:?}"
    );
    pass(&mut rig, &servers, 9_000, &mut beat, &made);
    assert_eq!(told(&mut rig, &servers[0]), Some(DrainStatus::Drained));
}

#[test]
fn a_restart_does_not_forget_who_is_drained() {
    let (mut rig, mut servers, mut client) = cluster(5);
    for n in 0..10 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    // Once from the log, and once from a checkpoint.
    for round in 0..2 {
        rig.restart();
        for server in &mut servers {
            // It restarts as well, and joins anew.
            server.hello.boot.0 += 1;
            server.hello.instance.0 += 1;
            rig.join(server, vec![]);
        }
        let told = told(&mut rig, &servers[0]);
        let is_known = matches!(told, Some(DrainStatus::Counting | DrainStatus::Left(_)));
        assert!(is_known, "{told:?}");
        let mut client = rig.client(2 + round);
        let path = format!("g{round}");
        let grant = file(&mut rig, &servers, &mut client, &path);
        assert!(!is_in(&grant, &servers[0]));
        rig.query(client.link, QueryOp::Checkpoint).unwrap();
    }
}

#[test]
fn a_server_that_is_drained_and_gone_is_taken_off_when_there_are_enough_without_it() {
    let (mut rig, servers, mut client) = cluster(5);
    let grants: Vec<Grant> = (0..10)
        .map(|n| file(&mut rig, &servers, &mut client, &format!("f{n}")))
        .collect();
    drain(&mut rig, &mut client, &servers[0]).unwrap();
    rig.close_link(servers[0].link);
    let mut beat = 0;
    pass(&mut rig, &servers[1..], 6_000, &mut beat, &made);
    assert_eq!(has(&rig, &servers[0]), 0);
    assert_eq!(told(&mut rig, &servers[0]), Some(DrainStatus::Drained));
    // What it comes back with is not wanted, and does not make it a member again.
    let mut back = servers[0].clone();
    let asks = rig.open_link(Role::Client);
    let items = (0..10).filter(|n| is_in(&grants[*n], &back)).map(|n| {
        let file = rig.stat(asks, &format!("f{n}")).unwrap().file;
        item(file, &grants[n], servers[0].incarnation, LEN)
    });
    let items: Vec<_> = items.collect();
    assert!(!items.is_empty());
    let verdicts = rig.join(&mut back, items);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Stale));
    assert_eq!(told(&mut rig, &servers[0]), Some(DrainStatus::Drained));
}

#[test]
fn where_no_member_more_can_be_the_copy_takes_the_place_at_once() {
    let (mut rig, servers, mut client) = cluster(17);
    let path = at("f");
    let file = rig.create(&mut client, "f");
    let all = MutateOp::SetReplication {
        at: path,
        replication: 16,
    };
    rig.mutate(&mut client, all).unwrap();
    let of: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(&mut client, &of, file, 0).unwrap();
    assert_eq!(grant.chain.len(), 16);
    closes(&mut rig, &mut client, "f", &grant);
    let leaves = servers.iter().find(|at| is_in(&grant, at)).unwrap();
    drain(&mut rig, &mut client, leaves).unwrap();
    let mut beat = 0;
    pass(&mut rig, &servers, 500, &mut beat, &made);
    assert_eq!(told(&mut rig, leaves), Some(DrainStatus::Drained));
    let state = rig.meta.state().unwrap();
    assert_eq!(state.chunks().next().unwrap().members.len(), 16);
}

#[test]
fn a_replica_of_who_is_drained_that_turns_up_when_one_is_missing_is_no_end_of_it() {
    let (mut rig, servers, mut client) = cluster(4);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let (within, spare): (Vec<_>, Vec<_>) = servers.iter().partition(|at| is_in(&grant, at));
    drain(&mut rig, &mut client, spare[0]).unwrap();
    let mut beat = 0;
    pass(&mut rig, &servers, 300, &mut beat, &made);
    assert_eq!(told(&mut rig, spare[0]), Some(DrainStatus::Drained));
    // A member is gone, and who is drained restarts with a replica of which the log never heard.
    rig.close_link(within[0].link);
    let mut back = spare[0].clone();
    let asks = rig.open_link(Role::Client);
    let file = rig.stat(asks, "f").unwrap().file;
    let stray = item(file, &grant, back.incarnation, LEN);
    let verdicts = rig.join(&mut back, vec![stray]);
    assert!(
        matches!(verdicts[..], [Verdict::Keep { .. }]),
        "{verdicts:?}"
    );
    assert_ne!(
        told(&mut rig, &back),
        Some(DrainStatus::Drained),
        "it has something again"
    );
}

#[test]
fn what_was_taken_off_one_of_two_that_are_drained_is_not_taken_back() {
    let (mut rig, servers, mut client) = cluster(5);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let (within, _): (Vec<_>, Vec<_>) = servers.iter().partition(|at| is_in(&grant, at));
    drain(&mut rig, &mut client, within[0]).unwrap();
    drain(&mut rig, &mut client, within[1]).unwrap();
    // One copy is made, and no other.
    let copies = core::cell::Cell::new(0);
    let one = |_: &Server| {
        copies.set(copies.get() + 1);
        let full = || Refusal::new(Status::NoRoom, "the disk is full");
        (copies.get() == 1).then(|| durable(LEN)).ok_or_else(full)
    };
    let mut beat = 0;
    pass(&mut rig, &servers, 400, &mut beat, &one);
    let off = within[..2].iter().find(|at| has(&rig, at) == 0).unwrap();
    assert_eq!(has(&rig, within[0]) + has(&rig, within[1]), 1);
    // It restarts before it was told to delete what it had.
    let mut back = (*off).clone();
    let asks = rig.open_link(Role::Client);
    let file = rig.stat(asks, "f").unwrap().file;
    let stray = item(file, &grant, back.incarnation, LEN);
    assert_eq!(rig.join(&mut back, vec![stray]), [Verdict::Stale]);
    assert_eq!(has(&rig, &back), 0);
}
