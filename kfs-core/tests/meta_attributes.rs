//! Attributes that are set: what is given is what is seen, for as long as nothing else is, and times that somebody set
//! are not moved by what changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::FileId;
use kfs_core::time::UnixNanos;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::*;
use meta_rig::*;

fn by_id(file: FileId) -> At {
    At {
        dir: file,
        path: Vec::new(),
    }
}
fn set(at: At, to: Attributes) -> MutateOp {
    MutateOp::SetAttributes { at, to }
}
fn mode(mode: u32) -> Attributes {
    Attributes {
        mode: Some(mode),
        ..Attributes::default()
    }
}
/// Some time later, on the clock that records have.
fn later(rig: &mut Rig) -> UnixNanos {
    rig.now.wall = UnixNanos(rig.now.wall.0 + 1_000);
    rig.now.wall
}

#[test]
fn what_is_set_is_seen_and_nothing_else_changes_after_a_restart_and_from_a_checkpoint_too() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.create(&mut client, "f");
    rig.mutate(&mut client, mkdir("d")).unwrap();
    let made = rig.stat(client.link, "f").unwrap();
    let all = Attributes {
        mode: Some(0o4711),
        uid: Some(77),
        gid: Some(88),
        mtime: Some(TimeOf::Given(UnixNanos(5))),
    };
    let (first, second) = (later(&mut rig), later(&mut rig));
    assert!(first < second);
    assert_eq!(rig.mutate(&mut client, set(at("f"), all)), Ok(Done::Ok));
    let due = Attrs {
        mode: 0o4711,
        uid: 77,
        gid: 88,
        mtime: UnixNanos(5),
        ctime: second,
        ..made
    };
    assert_eq!(rig.stat(client.link, "f"), Ok(due));
    let third = later(&mut rig);
    for to in [
        mode(0o600),
        Attributes {
            uid: Some(1),
            ..Attributes::default()
        },
        Attributes {
            gid: Some(2),
            ..Attributes::default()
        },
        Attributes {
            mtime: Some(TimeOf::Change),
            ..Attributes::default()
        },
    ] {
        let before = rig.stat(client.link, "d").unwrap();
        assert_eq!(rig.mutate(&mut client, set(at("d"), to)), Ok(Done::Ok));
        let due = Attrs {
            mode: to.mode.unwrap_or(before.mode),
            uid: to.uid.unwrap_or(before.uid),
            gid: to.gid.unwrap_or(before.gid),
            mtime: to.mtime.map_or(before.mtime, |_| third),
            ctime: third,
            ..before
        };
        assert_eq!(rig.stat(client.link, "d"), Ok(due), "{to:?}");
    }
    let seen = [
        rig.stat(client.link, "f").unwrap(),
        rig.stat(client.link, "d").unwrap(),
    ];
    for checkpoint in [false, true] {
        if checkpoint {
            let made = rig.query(client.link, QueryOp::Checkpoint);
            assert!(matches!(made, Ok(Answer::Checkpoint(_))), "{made:?}");
        }
        rig.restart();
        rig.resume(&mut client);
        for (path, seen) in ["f", "d"].into_iter().zip(seen) {
            assert_eq!(rig.stat(client.link, path), Ok(seen), "{checkpoint}");
        }
    }
}

#[test]
fn a_mode_has_no_more_than_its_twelve_bits_and_no_attributes_are_no_record() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.create(&mut client, "f");
    let all = set(at("f"), mode(u32::MAX));
    assert_eq!(rig.mutate(&mut client, all), Ok(Done::Ok));
    assert_eq!(rig.stat(client.link, "f").unwrap().mode, 0o7777);
    let before = rig.meta.state().unwrap().seq();
    later(&mut rig);
    let none = set(at("f"), Attributes::default());
    assert_eq!(rig.mutate(&mut client, none), Ok(Done::Ok));
    assert_eq!(rig.meta.state().unwrap().seq(), before);
    let missing = rig.mutate(&mut client, set(at("no"), mode(0)));
    assert!(refused(missing, Status::NotFound).contains("/no"));
    let below = rig.mutate(&mut client, set(at("f/no"), mode(0)));
    refused(below, Status::NotADirectory);
}

/// Who has a file open knows its id, and a name may stand for another file by then.
#[test]
fn a_file_without_a_name_has_attributes_that_are_set_by_its_id() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    rig.mutate(&mut client, remove("f")).unwrap();
    let other = rig.create(&mut client, "f");
    let by = set(by_id(file), mode(0o400));
    assert_eq!(rig.mutate(&mut client, by), Ok(Done::Ok));
    let op = QueryOp::Stat { at: by_id(file) };
    let Ok(Answer::Attrs(attrs)) = rig.query(client.link, op) else {
        panic!("it is open for writing, and there");
    };
    assert_eq!((attrs.mode, attrs.links), (0o400, 0));
    assert_ne!(rig.stat(client.link, "f").unwrap().mode, 0o400);
    assert_eq!(rig.stat(client.link, "f").unwrap().file, other);
    let gone = set(by_id(FileId(u64::MAX >> 1)), mode(0));
    refused(rig.mutate(&mut client, gone), Status::NotFound);
}

/// `cp -p` sets the time of a file before it closes it.
#[test]
fn a_close_that_writes_nothing_leaves_the_time_that_was_set_and_a_write_moves_it() {
    let mut rig = Rig::fresh();
    let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
    let of: Vec<&Server> = servers.iter().collect();
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let grant = rig.allocate(&mut client, &of, file, 0).unwrap();
    let old = Attributes {
        mtime: Some(TimeOf::Given(UnixNanos(5))),
        ..Attributes::default()
    };
    let wrote = later(&mut rig);
    let report = set_size(file, 10, vec![synced(&grant, 10)]);
    assert_eq!(rig.mutate(&mut client, report.clone()), Ok(Done::Ok));
    let seen = rig.stat(client.link, "f").unwrap();
    assert_eq!((seen.mtime, seen.ctime), (wrote, wrote));

    let set_at = later(&mut rig);
    rig.mutate(&mut client, set(by_id(file), old)).unwrap();
    later(&mut rig);
    rig.mutate(&mut client, close(file, 10, vec![synced(&grant, 10)]))
        .unwrap();
    let seen = rig.stat(client.link, "f").unwrap();
    assert_eq!((seen.mtime, seen.ctime), (UnixNanos(5), set_at));

    // The same size, and more that was synced: bytes were written in a hole.
    let other = rig.create(&mut client, "g");
    let grant = rig.allocate(&mut client, &of, other, 0).unwrap();
    rig.mutate(&mut client, set_size(other, 10, vec![synced(&grant, 10)]))
        .unwrap();
    rig.mutate(&mut client, set(by_id(other), old)).unwrap();
    let again = later(&mut rig);
    let mut more = synced(&grant, 10);
    more.synced.wseq = more.synced.wseq.next();
    rig.mutate(&mut client, close(other, 10, vec![more]))
        .unwrap();
    assert_eq!(rig.stat(client.link, "g").unwrap().mtime, again);
    rig.pass(Duration::from_secs(1));
}
