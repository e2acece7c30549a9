//! Copies of chunks that lack replicas, as the meta server orders them: not too many, not too soon, and not again
//! and again from who cannot give them to who cannot take them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::NodeId;
use kfs_core::meta::Config;
use kfs_core::wire::chunk_meta::{ReplicaState, ReportDamage, Verdict};
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Status};
use meta_rig::*;
use std::collections::BTreeSet;

const GRACE: Duration = Duration::from_millis(500);
const LEN: u64 = 1_000;

/// A cluster that copies what is missing for half a second, at this rate.
fn cluster(copy_rate: u64, servers: u128) -> (Rig, Vec<Server>, Client) {
    let config = Config {
        re_replicate_after: GRACE,
        copy_rate,
        ..config()
    };
    let mut rig = Rig::start(config, Disk::default());
    let servers = (1..=servers).map(|node| rig.server(node)).collect();
    let client = rig.client(1);
    (rig, servers, client)
}
/// A closed file of one chunk at three replicas.
fn file(rig: &mut Rig, servers: &[Server], client: &mut Client, path: &str) -> Grant {
    let file = rig.create(client, path);
    let of: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(client, &of, file, 0).unwrap();
    let done = rig.mutate(client, close(file, LEN, vec![synced(&grant, LEN)]));
    assert_eq!(done, Ok(Done::Ok));
    grant
}
fn is_in(grant: &Grant, server: &Server) -> bool {
    let has = |place: &Place| place.node == server.hello.node;
    grant.chain.iter().any(has)
}
/// Passes time; every server beats, seals what it is asked to, and does with a copy what this says.
fn pass(
    rig: &mut Rig,
    servers: &[Server],
    ticks: u64,
    beat: &mut u64,
    copy: &dyn Fn(&Server) -> Result<Durable, Refusal>,
) -> Orders {
    let holds = durable(LEN);
    rig.work(servers, (ticks, beat), holds, copy, &mut |_| ())
}
fn no_room() -> Result<Durable, Refusal> {
    Err(Refusal {
        status: Status::NoRoom,
        detail: "the disk is full".into(),
    })
}
/// Ends the link of one of those who have it; the rest.
fn without(rig: &mut Rig, servers: &[Server], grant: &Grant) -> Vec<Server> {
    let gone = servers.iter().find(|server| is_in(grant, server)).unwrap();
    rig.close_link(gone.link);
    let rest = servers.iter().filter(|server| server.link != gone.link);
    rest.cloned().collect()
}

#[test]
fn a_copy_that_is_refused_is_tried_less_and_less_often_and_from_another_source() {
    let (mut rig, servers, mut client) = cluster(1 << 29, 4);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let rest = without(&mut rig, &servers, &grant);
    let mut beat = 0;
    let given = pass(&mut rig, &rest, 3_000, &mut beat, &|_| no_room());
    let tries = given.copied.len();
    assert!((4..=6).contains(&tries), "{tries} tries in half a minute");
    let sources: BTreeSet<NodeId> = given.sealed.into_iter().collect();
    assert_eq!(sources.len(), 2, "each of the two that have it was asked");
    let asks = rig.open_link(kfs_core::wire::Role::Client);
    let work = rig.status(asks).replication_work;
    assert_eq!((work.waiting, work.copied), (1, 0), "it is still owed");
    assert_eq!(work.failed, tries as u64);

    let given = pass(&mut rig, &rest, 3_500, &mut beat, &|_| Ok(durable(LEN)));
    assert_eq!(given.copied.len(), 1, "it is made as soon as it can be");
    let work = rig.status(asks).replication_work;
    assert_eq!((work.waiting, work.copied), (0, 1));
}

#[test]
fn who_cannot_take_a_copy_does_not_keep_another_from_getting_it() {
    let (mut rig, servers, mut client) = cluster(1 << 29, 5);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let rest = without(&mut rig, &servers, &grant);
    let others: Vec<&Server> = rest.iter().filter(|at| !is_in(&grant, at)).collect();
    let full = others[0].hello.node;
    let mut beat = 0;
    let given = pass(&mut rig, &rest, 3_000, &mut beat, &|server| {
        if server.hello.node == full {
            no_room()
        } else {
            Ok(durable(LEN))
        }
    });
    let made = given.copied.last().unwrap();
    assert_eq!(made.0, others[1].hello.node);
}

#[test]
fn a_damaged_replica_on_a_full_disk_is_made_anew_elsewhere() {
    let (mut rig, servers, mut client) = cluster(1 << 29, 4);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let (within, spare): (Vec<_>, Vec<_>) = servers.iter().partition(|at| is_in(&grant, at));
    rig.send(
        within[0].link,
        ReportDamage {
            term: within[0].term,
            chunk: grant.chunk,
            version: grant.version,
            block: None,
            why: "its header is unreadable".into(),
        },
    );
    let mut beat = 0;
    let given = pass(&mut rig, &servers, 1_000, &mut beat, &|server| {
        if server.hello.node == within[0].hello.node {
            no_room()
        } else {
            Ok(durable(LEN))
        }
    });
    let to: Vec<NodeId> = given.copied.iter().map(|(node, _)| *node).collect();
    assert_eq!(to, vec![within[0].hello.node, spare[0].hello.node]);
}

#[test]
fn a_server_that_comes_is_tried_at_once() {
    let (mut rig, servers, mut client) = cluster(1 << 29, 4);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let mut rest = without(&mut rig, &servers, &grant);
    let mut beat = 0;
    pass(&mut rig, &rest, 3_000, &mut beat, &|_| no_room());
    rest.push(rig.server(9));
    let given = pass(&mut rig, &rest, 200, &mut beat, &|server| {
        if server.hello.node == NodeId(9) {
            Ok(durable(LEN))
        } else {
            no_room()
        }
    });
    assert!(!given.copied.is_empty(), "not only when its time has come");
}

#[test]
fn copies_of_a_dead_server_keep_to_the_rate() {
    let rate = 10 * LEN;
    let (mut rig, servers, mut client) = cluster(rate, 6);
    let grants: Vec<Grant> = (0..100)
        .map(|n| file(&mut rig, &servers, &mut client, &format!("f{n}")))
        .collect();
    let gone = &servers[0];
    rig.close_link(gone.link);
    let owed = grants.iter().filter(|grant| is_in(grant, gone)).count();
    assert!(owed > 30, "{owed}");
    let (mut beat, seconds) = (0, 3);
    let copy = |_: &Server| Ok(durable(LEN));
    let given = pass(&mut rig, &servers[1..], 100 * seconds, &mut beat, &copy);
    // A second is allowed ahead, and the first one that is too many.
    let most = 10 * (seconds + 1) + 1;
    let made = given.copied.len() as u64;
    assert!((15..=most).contains(&made), "{made} copies of {owed}");
    let rest = pass(&mut rig, &servers[1..], 1_000, &mut beat, &copy);
    assert_eq!(given.copied.len() + rest.copied.len(), owed);
}

#[test]
fn a_copy_that_nobody_wants_any_more_does_not_count_as_unknown() {
    let (mut rig, servers, mut client) = cluster(1 << 29, 4);
    let grant = file(&mut rig, &servers, &mut client, "f");
    let asks = rig.open_link(kfs_core::wire::Role::Client);
    let spare = servers.iter().find(|server| !is_in(&grant, server));
    let mut spare = spare.unwrap().clone();
    let older = item(
        grant_file(&mut rig, asks),
        &grant,
        spare.incarnation,
        LEN / 2,
    );
    rig.close_link(spare.link);
    let rest = without(&mut rig, &servers, &grant);
    let verdicts = rig.join(&mut spare, vec![older]);
    assert_eq!(verdicts, vec![Verdict::Unknown], "it lacks something");
    assert_eq!(rig.status(asks).chunks_unknown, 1);
    let rest: Vec<Server> = rest
        .into_iter()
        .filter(|server| server.hello.node != spare.hello.node)
        .chain([spare.clone()])
        .collect();
    let back = servers.iter().find(|at| is_in(&grant, at)).unwrap();
    // The order is on its way when the one that was missing comes back.
    rig.pass(Duration::from_secs(1));
    let mut order = None;
    for _ in 0..100 {
        rig.pass(Duration::from_millis(10));
        for server in &rest {
            for given in rig.orders(server) {
                match given {
                    Head::SealChunk(seal) => {
                        rig.send(server.link, sealed(&seal, durable(LEN)));
                    }
                    Head::CopyChunk(copy) => order = Some(copy),
                    _ => {}
                }
            }
        }
    }
    let order = order.expect("a copy is ordered");
    let mut back = back.clone();
    let whole = item(order.file, &grant, order.incarnation, LEN);
    let verdicts = rig.join(&mut back, vec![whole]);
    assert!(matches!(verdicts[..], [Verdict::Keep { .. }]));
    rig.send(spare.link, copied(&order, Ok(durable(LEN))));
    assert_eq!(rig.status(asks).chunks_unknown, 0);
}

/// The file that stands at `f`.
fn grant_file(rig: &mut Rig, link: kfs_core::ids::LinkId) -> kfs_core::ids::FileId {
    rig.stat(link, "f").unwrap().file
}

#[test]
fn a_stray_goes_with_its_chunk_and_what_has_no_header_stays() {
    for state in [ReplicaState::Good, ReplicaState::BadHeader] {
        let (mut rig, servers, mut client) = cluster(1 << 29, 4);
        let grant = file(&mut rig, &servers, &mut client, "f");
        let asks = rig.open_link(kfs_core::wire::Role::Client);
        let spare = servers.iter().find(|server| !is_in(&grant, server));
        let mut spare = spare.unwrap().clone();
        rig.close_link(spare.link);
        without(&mut rig, &servers, &grant);
        let mut stray = item(
            grant_file(&mut rig, asks),
            &grant,
            spare.incarnation,
            LEN / 2,
        );
        stray.state = state;
        assert_eq!(
            rig.join(&mut spare, vec![stray]),
            vec![Verdict::Unknown],
            "{state:?}"
        );
        rig.mutate(&mut client, remove("f")).unwrap();
        rig.pass(Duration::from_secs(1));
        let orders = rig.orders(&spare);
        let goes = orders
            .iter()
            .any(|order| matches!(order, Head::DeleteChunks(_)));
        let known = state == ReplicaState::Good;
        assert_eq!(goes, known, "{orders:?}");
        assert_eq!(rig.status(asks).chunks_unknown, u64::from(!known));
    }
}
