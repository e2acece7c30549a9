//! Chunks at the meta server: allocation with members that fail, sizes and what they rest on, deletion.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use core::time::Duration;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Status};
use meta_rig::*;
use std::collections::BTreeSet;

fn three(rig: &mut Rig) -> Vec<Server> {
    (1..=3).map(|node| rig.server(node)).collect()
}

#[test]
fn a_chunk_is_ordered_when_it_is_durable_and_granted_when_all_have_made_it() {
    let mut rig = Rig::fresh();
    let servers = three(&mut rig);
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    rig.hold = true;
    let request = rig.begin(&mut client, MutateOp::Allocate { file, index: 0 });
    assert!(
        servers.iter().all(|server| rig.ordered(server).is_none()),
        "not before it is durable"
    );
    rig.hold = false;
    rig.run_disk();
    for server in &servers {
        assert_eq!(
            rig.mutated(client.link, request),
            None,
            "not before all have made it"
        );
        let order = rig.ordered(server).unwrap();
        assert_eq!(
            (order.file, order.session, order.chain.len()),
            (file, client.session, 3)
        );
        assert_eq!(
            (order.term, order.incarnation),
            (server.term, server.incarnation)
        );
        rig.send(server.link, created(&order, Ok(())));
    }
    let mutated = rig.mutated(client.link, request).unwrap();
    let Ok(Done::Granted(grant)) = mutated.outcome.clone() else {
        panic!("{mutated:?}");
    };
    let again = client.request(client.last, MutateOp::Allocate { file, index: 0 });
    let request = rig.send(client.link, again);
    assert_eq!(
        rig.mutated(client.link, request),
        Some(mutated),
        "a retry gets the same"
    );
    let standing = rig.mutate(&mut client, MutateOp::Allocate { file, index: 0 });
    assert_eq!(
        standing,
        Ok(Done::Granted(grant)),
        "asked anew it gives the standing chain"
    );
}

#[test]
fn only_who_made_a_file_and_has_not_closed_it_gets_chunks() {
    let mut rig = Rig::fresh();
    three(&mut rig);
    let (mut client, mut other) = (rig.client(1), rig.client(2));
    let file = rig.create(&mut client, "f");
    let allocate = |file, index| MutateOp::Allocate { file, index };
    refused(
        rig.mutate(&mut other, allocate(file, 0)),
        Status::BadRequest,
    );
    refused(
        rig.mutate(&mut client, allocate(kfs_core::ids::FileId(99), 0)),
        Status::NotFound,
    );
    refused(
        rig.mutate(&mut client, allocate(kfs_core::ids::FileId::ROOT, 0)),
        Status::IsADirectory,
    );
    refused(
        rig.mutate(&mut client, allocate(file, u64::MAX / 2)),
        Status::BadRequest,
    );
    rig.mutate(&mut client, close(file, 0, vec![])).unwrap();
    let why = refused(
        rig.mutate(&mut client, allocate(file, 0)),
        Status::BadRequest,
    );
    assert!(why.contains("not open for writing"), "{why}");
}

#[test]
fn too_few_servers_and_too_little_room_are_told_apart() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let allocate = MutateOp::Allocate { file, index: 0 };
    let why = refused(rig.mutate(&mut client, allocate.clone()), Status::NoServers);
    assert!(why.contains("0 live"), "{why}");
    rig.server(1);
    let why = refused(rig.mutate(&mut client, allocate.clone()), Status::NoServers);
    assert!(why.contains("1 live"), "{why}");
    for node in 2..=3 {
        let mut full = Server::new(node);
        full.hello.bytes_free = 1_000;
        rig.join(&mut full, vec![]);
    }
    let why = refused(rig.mutate(&mut client, allocate), Status::NoRoom);
    assert!(
        why.contains("3 live servers") && why.contains("99 %"),
        "{why}"
    );
}

#[test]
fn a_member_that_refuses_closes_or_is_silent_is_replaced_by_another() {
    for how in ["refuses", "closes", "silent"] {
        let mut rig = Rig::fresh();
        let servers: Vec<Server> = (1..=4).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        let request = rig.begin(&mut client, MutateOp::Allocate { file, index: 0 });
        let orders: Vec<_> = servers
            .iter()
            .filter_map(|server| Some((server, rig.ordered(server)?)))
            .collect();
        assert_eq!(orders.len(), 3);
        let (failing, order) = &orders[1];
        for (server, order) in [&orders[0], &orders[2]] {
            rig.send(server.link, created(order, Ok(())));
        }
        match how {
            "refuses" => {
                let why = Refusal::new(Status::NoRoom, "full");
                rig.send(failing.link, created(order, Err(why)));
            }
            "closes" => rig.close_link(failing.link),
            _ => rig.pass(Duration::from_millis(1_001)),
        }
        assert_eq!(rig.mutated(client.link, request), None, "{how}");
        let mut members = BTreeSet::new();
        for server in servers.iter().filter(|server| server.link != failing.link) {
            let orders = rig.orders(server);
            let deleted = orders.iter().any(
                |head| matches!(head, Head::DeleteChunks(m) if m.chunks == [(order.chunk, order.version)]),
            );
            let again = orders.iter().find_map(|head| match head {
                Head::CreateChunk(order) => Some(order.clone()),
                _ => None,
            });
            let again = again.expect("the three others are ordered");
            assert_ne!(again.chunk, order.chunk, "under a new id");
            let was_member = order.chain.contains(&server.place());
            assert_eq!(deleted, was_member, "who made it is told to delete it");
            members.insert(server.hello.node);
            rig.send(server.link, created(&again, Ok(())));
        }
        let mutated = rig.mutated(client.link, request).unwrap();
        let Ok(Done::Granted(grant)) = mutated.outcome else {
            panic!("{how}: {mutated:?}");
        };
        assert!(
            grant
                .chain
                .iter()
                .all(|place| place.node != failing.hello.node)
        );
        // What comes late of the chunk that was given up changes nothing.
        rig.send(failing.link, created(order, Ok(())));
        let state = rig.meta.state().unwrap().clone();
        state.check();
        rig.restart();
        assert_eq!(rig.locate_count(file), 0);
    }
}

impl Rig {
    fn locate_count(&mut self, file: kfs_core::ids::FileId) -> usize {
        let link = self.open_link(kfs_core::wire::Role::Client);
        self.locate(link, file).chunks.len()
    }
}

#[test]
fn when_nobody_can_make_it_the_refusal_says_who_and_why() {
    let mut rig = Rig::fresh();
    let servers = three(&mut rig);
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let request = rig.begin(&mut client, MutateOp::Allocate { file, index: 0 });
    for round in 0..8 {
        let Some(server) = servers.get(round % 3) else {
            break;
        };
        if let Some(order) = rig.ordered(server) {
            rig.send(
                server.link,
                created(&order, Err(Refusal::new(Status::ChainBroken, "no wish"))),
            );
        }
    }
    let mutated = rig.mutated(client.link, request).unwrap();
    let why = refused(mutated.outcome, Status::Busy);
    assert!(
        why.contains("127.0.0.1:2200") && why.contains("no wish"),
        "{why}"
    );
    assert_eq!(rig.status(client.link).chunks, 0);
}

#[test]
fn an_allocation_that_a_restart_cut_off_is_finished_or_made_anew() {
    for member_is_back in [true, false] {
        let mut rig = Rig::fresh();
        let mut servers: Vec<Server> = (1..=4).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        rig.begin(&mut client, MutateOp::Allocate { file, index: 0 });
        let orders: Vec<_> = servers.iter().map(|server| rig.ordered(server)).collect();
        let member = orders.iter().position(Option::is_some).unwrap();
        let chunk = orders[member].as_ref().unwrap().chunk;
        rig.restart();
        rig.resume(&mut client);
        let again = client.request(client.last, MutateOp::Allocate { file, index: 0 });
        let request = rig.send(client.link, again.clone());
        refused(
            rig.mutated(client.link, request).unwrap().outcome,
            Status::Busy,
        );
        for (nth, server) in servers.iter_mut().enumerate() {
            if nth != member || member_is_back {
                rig.join(server, vec![]);
            }
        }
        if !member_is_back {
            for n in 1..8 {
                rig.pass(Duration::from_secs(1));
                for (_, server) in servers.iter().enumerate().filter(|(nth, _)| *nth != member) {
                    rig.send(server.link, server.heartbeat(n, n - 1));
                }
            }
        }
        rig.sent.clear();
        let request = rig.send(client.link, again);
        for server in &servers {
            if let Some(order) = rig.ordered(server) {
                assert_eq!(order.chunk == chunk, member_is_back);
                rig.send(server.link, created(&order, Ok(())));
            }
        }
        let mutated = rig.mutated(client.link, request).unwrap();
        assert!(
            matches!(mutated.outcome, Ok(Done::Granted(_))),
            "{mutated:?}"
        );
        rig.meta.state().unwrap().check();
    }
}

#[test]
fn a_size_rests_on_what_was_synced_and_on_nothing_else() {
    let mut rig = Rig::fresh();
    let servers = three(&mut rig);
    let all: Vec<&Server> = servers.iter().collect();
    let (mut client, mut other) = (rig.client(1), rig.client(2));
    let file = rig.create(&mut client, "f");
    let first = rig.allocate(&mut client, &all, file, 0).unwrap();
    let third = rig.allocate(&mut client, &all, file, 2).unwrap();
    let wrong = SyncedChunk {
        version: kfs_core::ids::Version(1),
        ..synced(&first, 9)
    };
    let over = synced(&first, CHUNK + 1);
    refused(
        rig.mutate(&mut other, set_size(file, 9, vec![synced(&first, 9)])),
        Status::BadRequest,
    );
    let mut set = |size, basis: &[SyncedChunk]| {
        let outcome = rig.mutate(&mut client, set_size(file, size, basis.to_vec()));
        rig.meta.state().unwrap().check();
        outcome
    };
    refused(set(9, &[]), Status::BadRequest);
    refused(set(9, &[wrong]), Status::BadRequest);
    refused(set(9, &[over]), Status::BadRequest);
    refused(set(10, &[synced(&first, 9)]), Status::BadRequest);
    refused(set(2 * CHUNK + 5, &[synced(&third, 5)]), Status::BadRequest);
    refused(
        set(1 << 63, &[synced(&first, 9), synced(&third, 5)]),
        Status::BadRequest,
    );
    assert_eq!(set(9, &[synced(&first, 9)]), Ok(Done::Ok));
    refused(set(10, &[]), Status::BadRequest);
    assert_eq!(set(5, &[]), Ok(Done::Ok), "an old report raises nothing");
    assert_eq!(set(20, &[synced(&first, 20)]), Ok(Done::Ok));
    let whole = [synced(&first, CHUNK), synced(&third, 5)];
    assert_eq!(set(2 * CHUNK + 5, &whole), Ok(Done::Ok), "over a hole");
    assert_eq!(rig.stat(client.link, "f").unwrap().size, 2 * CHUNK + 5);
    let located = rig.locate(client.link, file);
    let lens: Vec<_> = located
        .chunks
        .iter()
        .map(|chunk| (chunk.index, chunk.log.len))
        .collect();
    assert_eq!(lens, [(0, CHUNK), (2, 5)]);
    rig.mutate(&mut client, remove("f")).unwrap();
    let closes = close(file, 0, vec![]);
    assert_eq!(
        rig.mutate(&mut client, closes.clone()),
        Ok(Done::Ok),
        "who writes it has it open"
    );
    rig.pass(Duration::from_millis(10));
    refused(rig.mutate(&mut client, closes), Status::NotFound);
}

#[test]
fn chunks_are_deleted_when_their_files_are_gone_and_only_when_that_is_durable() {
    let mut rig = Rig::fresh();
    let servers = three(&mut rig);
    let all: Vec<&Server> = servers.iter().collect();
    let mut client = rig.client(1);
    let deleted = |rig: &mut Rig, server: &Server| -> Vec<_> {
        let orders = rig.orders(server);
        let chunks = orders.into_iter().filter_map(|head| match head {
            Head::DeleteChunks(m) => Some(m.chunks),
            _ => None,
        });
        chunks.flatten().map(|(chunk, _)| chunk).collect()
    };
    // By remove, by replacement, with the session; what is made past the end, at the close.
    let ways = ["remove", "replace", "session", "close"];
    for (nonce, way) in (100..).zip(ways) {
        let mut owner = rig.client(nonce);
        let file = match rig.mutate(&mut owner, create(way, Keep::UntilSessionEnds)) {
            Ok(Done::Made { file, .. }) => file,
            other => panic!("{other:?}"),
        };
        let grant = rig.allocate(&mut owner, &all, file, 0).unwrap();
        if matches!(way, "remove" | "replace") {
            // Or it would stay for who writes it.
            let whole = close(file, 1, vec![synced(&grant, 1)]);
            rig.mutate(&mut owner, whole).unwrap();
        }
        rig.hold = true;
        match way {
            "remove" => rig.begin(&mut owner, remove(way)),
            "replace" => {
                rig.hold = false;
                rig.create(&mut client, "new");
                rig.hold = true;
                rig.begin(&mut client, rename("new", way))
            }
            "session" => rig.begin(&mut owner, MutateOp::EndSession),
            _ => rig.begin(&mut owner, close(file, 0, vec![])),
        };
        assert!(
            servers
                .iter()
                .all(|server| deleted(&mut rig, server).is_empty()),
            "{way}"
        );
        rig.hold = false;
        rig.run_disk();
        for server in &servers {
            assert_eq!(deleted(&mut rig, server), [grant.chunk], "{way}");
        }
        rig.meta.state().unwrap().check();
        rig.sent.clear();
    }
    assert_eq!(rig.status(client.link).chunks, 0);
}

#[test]
fn files_of_holes_cannot_make_the_count_of_all_bytes_wrap() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let mut made = |name: &str| {
        let file = rig.create(&mut client, name);
        rig.mutate(&mut client, set_size(file, (1 << 63) - 1, vec![]))
    };
    assert_eq!(made("a"), Ok(Done::Ok));
    assert_eq!(made("b"), Ok(Done::Ok));
    refused(made("c"), Status::BadRequest);
}

#[test]
fn a_burst_of_small_files_does_not_run_out_of_room_it_does_not_use() {
    let mut rig = Rig::fresh();
    let mut servers = Vec::new();
    // Room for 41 chunks, were every file as large as its chunk may become, and for 50 of one byte each.
    for node in 1..=3 {
        let mut server = Server::new(node);
        server.hello.bytes_free = 42 * (CHUNK + 16_384);
        rig.join(&mut server, vec![]);
        servers.push(server);
    }
    let all: Vec<&Server> = servers.iter().collect();
    let mut client = rig.client(1);
    let mut stored = 0;
    loop {
        let file = rig.create(&mut client, &format!("f{stored}"));
        let Ok(grant) = rig.allocate(&mut client, &all, file, 0) else {
            break;
        };
        let whole = close(file, 1, vec![synced(&grant, 1)]);
        rig.mutate(&mut client, whole).unwrap();
        stored += 1;
    }
    assert_eq!(stored, 50);
}
