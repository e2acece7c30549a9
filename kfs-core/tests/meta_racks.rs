//! Racks: replicas of a chunk, and copies of it, are in as many as there are, and never two on one server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::NodeId;
use kfs_core::meta::Config;
use kfs_core::wire::Role;
use kfs_core::wire::client_meta::*;
use meta_rig::*;
use std::collections::BTreeSet;

const LEN: u64 = 1_000;

/// Servers 1, 2 and so on in these racks.
fn cluster(racks: &[&str], replication: u8) -> (Rig, Vec<Server>, Client) {
    let config = Config {
        re_replicate_after: Duration::from_millis(500),
        replication,
        ..config()
    };
    let mut rig = Rig::start(config, Disk::default());
    let mut servers = vec![];
    for (rack, node) in racks.iter().zip(1..) {
        let mut server = Server::new(node);
        server.hello.rack = (*rack).into();
        rig.join(&mut server, vec![]);
        servers.push(server);
    }
    let client = rig.client(1);
    (rig, servers, client)
}
fn file(rig: &mut Rig, servers: &[Server], client: &mut Client, path: &str) -> Grant {
    let file = rig.create(client, path);
    let of: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(client, &of, file, 0).unwrap();
    let done = rig.mutate(client, close(file, LEN, vec![synced(&grant, LEN)]));
    assert_eq!(done, Ok(Done::Ok));
    grant
}
fn racks_of(servers: &[Server], nodes: &BTreeSet<NodeId>) -> BTreeSet<String> {
    let within = servers.iter().filter(|at| nodes.contains(&at.hello.node));
    within.map(|at| at.hello.rack.clone()).collect()
}
fn nodes_of(grant: &Grant) -> BTreeSet<NodeId> {
    grant.chain.iter().map(|at| at.node).collect()
}
fn pass(rig: &mut Rig, servers: &[Server], ticks: u64, beat: &mut u64) -> Vec<NodeId> {
    let holds = durable(LEN);
    let given = rig.work(servers, (ticks, beat), holds, &|_| Ok(holds), &mut |_| ());
    given.copied.into_iter().map(|(to, _)| to).collect()
}

#[test]
fn new_chunks_are_in_all_racks_and_never_twice_on_one_server() {
    let (mut rig, servers, mut client) = cluster(&["a", "a", "a", "a", "b", "c"], 3);
    for n in 0..40 {
        let nodes = nodes_of(&file(&mut rig, &servers, &mut client, &format!("f{n}")));
        assert_eq!(nodes.len(), 3);
        assert_eq!(racks_of(&servers, &nodes).len(), 3, "{nodes:?}");
    }
    let asks = rig.open_link(Role::Client);
    let told: BTreeSet<String> = rig
        .status(asks)
        .servers
        .into_iter()
        .map(|at| at.rack)
        .collect();
    assert_eq!(told.len(), 3);
    // One rack only: the racks say nothing, and there are three replicas all the same.
    let (mut rig, servers, mut client) = cluster(&["a", "a", "a", "a"], 3);
    let nodes = nodes_of(&file(&mut rig, &servers, &mut client, "f"));
    assert_eq!(nodes.len(), 3);
}

#[test]
fn a_copy_goes_to_a_rack_that_has_none_and_what_is_too_much_goes_from_the_one_with_most() {
    let (mut rig, servers, mut client) = cluster(&["a", "a", "a", "a", "b", "b"], 2);
    for n in 0..20 {
        file(&mut rig, &servers, &mut client, &format!("f{n}"));
    }
    let gone = &servers[4];
    rig.close_link(gone.link);
    let there: Vec<Server> = [&servers[..4], &servers[5..]].concat();
    let mut beat = 0;
    let to = pass(&mut rig, &there, 3_000, &mut beat);
    assert!(!to.is_empty());
    assert!(to.iter().all(|node| *node == NodeId(6)), "{to:?}");
    // Of three that are two in one rack: with who comes back, one of those goes.
    let state = rig.meta.state().unwrap();
    let index = |node: u128| {
        let mut servers = state.servers();
        servers.find(|(_, of)| *of == NodeId(node)).unwrap().0
    };
    for owned in state.chunks() {
        let in_a = (1..=4).filter(|node| owned.members.contains(&index(*node)));
        assert_eq!(in_a.count(), 1, "{owned:?}");
    }
}
