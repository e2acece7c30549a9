//! Files that ask for another number of replicas: copies are made or go, never below what is asked for, and all of
//! them are counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Refusal, Role, Status};
use meta_rig::*;
use std::collections::BTreeMap;

const LEN: u64 = 1_000;

fn cluster(servers: u128) -> (Rig, Vec<Server>, Client) {
    let mut rig = Rig::fresh();
    let servers = (1..=servers).map(|node| rig.server(node)).collect();
    let client = rig.client(1);
    (rig, servers, client)
}
fn set(rig: &mut Rig, client: &mut Client, path: &str, replication: u8) -> Result<Done, Refusal> {
    let at = at(path);
    rig.mutate(client, MutateOp::SetReplication { at, replication })
}
/// A closed file of so many chunks at three replicas.
fn file(rig: &mut Rig, servers: &[Server], client: &mut Client, path: &str, chunks: u64) {
    let file = rig.create(client, path);
    let of: Vec<&Server> = servers.iter().collect();
    let mut size = 0;
    for index in 0..chunks {
        let grant = rig.allocate(client, &of, file, index).unwrap();
        size = index * CHUNK + LEN;
        let len = if index + 1 < chunks { CHUNK } else { LEN };
        let size_of = if index + 1 < chunks {
            (index + 1) * CHUNK
        } else {
            size
        };
        let done = rig.mutate(client, set_size(file, size_of, vec![synced(&grant, len)]));
        assert_eq!(done, Ok(Done::Ok));
    }
    assert_eq!(rig.mutate(client, close(file, size, vec![])), Ok(Done::Ok));
}
/// Passes time; every server beats, and does what it is told.
fn pass(rig: &mut Rig, servers: &[Server], ticks: u64, beat: &mut u64) {
    let mut had = BTreeMap::new();
    let mut never_fewer = |state: &State| {
        for owned in state.chunks() {
            let now = owned.members.len();
            let before = had.insert(owned.chunk, now).unwrap_or(now);
            let least = usize::from(owned.wanted).min(before);
            assert!(now >= least, "{before} before: {owned:?}");
        }
    };
    let holds = durable(LEN);
    let all = &|_: &Server| Ok(holds);
    rig.work(servers, (ticks, beat), holds, all, &mut never_fewer);
}
fn members(rig: &Rig) -> Vec<usize> {
    let chunks = rig.meta.state().unwrap().chunks();
    chunks.map(|owned| owned.members.len()).collect()
}

#[test]
fn more_are_copied_and_fewer_are_trimmed_and_none_below() {
    let (mut rig, servers, mut client) = cluster(5);
    file(&mut rig, &servers, &mut client, "f", 1);
    file(&mut rig, &servers, &mut client, "left", 1);
    let mut beat = 0;
    for (replication, has) in [(5, 5), (2, 2), (4, 4), (1, 1), (16, 5)] {
        assert_eq!(set(&mut rig, &mut client, "f", replication), Ok(Done::Ok));
        let asked = rig.stat(client.link, "f").unwrap().replication;
        assert_eq!(asked, replication);
        let under = rig.status(client.link).chunks_under_replicated;
        assert_eq!(under, u64::from(replication > 3), "it is known at once");
        pass(&mut rig, &servers, 700, &mut beat);
        rig.send(
            client.link,
            Renew {
                session: client.session,
            },
        );
        assert_eq!(members(&rig), [has, 3]);
    }
    let under = rig.status(client.link).chunks_under_replicated;
    assert_eq!(under, 1, "there are no sixteen servers, and that is said");
}

#[test]
fn what_cannot_be_is_refused_and_what_is_so_changes_nothing() {
    let (mut rig, servers, mut client) = cluster(3);
    file(&mut rig, &servers, &mut client, "f", 1);
    rig.mutate(&mut client, mkdir("d")).unwrap();
    for (path, replication, status) in [
        ("f", 0, Status::BadRequest),
        ("f", 17, Status::BadRequest),
        ("d", 2, Status::IsADirectory),
        ("g", 2, Status::NotFound),
    ] {
        let refused = set(&mut rig, &mut client, path, replication).unwrap_err();
        assert_eq!(refused.status, status, "{path} {replication}");
    }
    let before = rig.meta.state().unwrap().seq();
    assert_eq!(set(&mut rig, &mut client, "f", 3), Ok(Done::Ok));
    assert_eq!(rig.meta.state().unwrap().seq(), before);
}

#[test]
fn every_chunk_of_a_large_file_is_counted_against_it_and_new_ones_get_as_many() {
    let (mut rig, servers, mut client) = cluster(3);
    let chunks = 2_500;
    file(&mut rig, &servers, &mut client, "f", chunks);
    assert_eq!(set(&mut rig, &mut client, "f", 4), Ok(Done::Ok));
    let told = |rig: &mut Rig| {
        let asks = rig.open_link(Role::Client);
        rig.status(asks).chunks_under_replicated
    };
    let at_once = told(&mut rig);
    assert!(at_once > 0 && at_once < chunks, "{at_once}");
    let mut beat = 0;
    pass(&mut rig, &servers, 120, &mut beat);
    assert_eq!(told(&mut rig), chunks);
    rig.send(
        client.link,
        Renew {
            session: client.session,
        },
    );
    // Asked for again while the one before is not done.
    set(&mut rig, &mut client, "f", 5).unwrap();
    set(&mut rig, &mut client, "f", 3).unwrap();
    pass(&mut rig, &servers, 120, &mut beat);
    assert_eq!(told(&mut rig), 0);

    rig.send(
        client.link,
        Renew {
            session: client.session,
        },
    );
    set(&mut rig, &mut client, "f", 2).unwrap();
    let at = at("f");
    let Ok(Done::Appending { file, .. }) = rig.mutate(&mut client, MutateOp::Append { at }) else {
        panic!("it is opened");
    };
    let of: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(&mut client, &of, file, chunks).unwrap();
    assert_eq!(grant.chain.len(), 2);
}

#[test]
fn a_restart_knows_what_a_file_asks_for() {
    let (mut rig, servers, mut client) = cluster(3);
    file(&mut rig, &servers, &mut client, "f", 1);
    set(&mut rig, &mut client, "f", 5).unwrap();
    for _ in 0..2 {
        rig.restart();
        rig.newcomer_joins();
        let asks = rig.open_link(Role::Client);
        assert_eq!(rig.stat(asks, "f").unwrap().replication, 5);
        rig.query(asks, QueryOp::Checkpoint).unwrap();
    }
}
