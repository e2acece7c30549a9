//! The meta server's namespace: every operation, and what each refuses.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use kfs_core::ids::FileId;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::*;
use meta_rig::*;

#[test]
fn what_is_made_is_found_with_its_attributes() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    assert!(matches!(
        rig.mutate(&mut client, mkdir("a")),
        Ok(Done::Made { replication: 0, .. })
    ));
    let file = rig.create(&mut client, "a/f");
    let attrs = rig.stat(client.link, "a/f").unwrap();
    assert_eq!(
        (attrs.file, attrs.kind, attrs.size, attrs.replication),
        (file, Kind::File, 0, 3)
    );
    assert_eq!(
        (attrs.uid, attrs.gid, attrs.mode, attrs.links),
        (1, 2, 0o644, 1)
    );
    assert_eq!(attrs.mtime, rig.now.wall);
    let dir = rig.stat(client.link, "a").unwrap();
    assert_eq!(
        (dir.kind, dir.size, dir.links, dir.replication),
        (Kind::Directory, 1, 2, 0)
    );
    let root = rig.stat(client.link, "").unwrap();
    assert_eq!((root.file, root.size, root.links), (FileId::ROOT, 1, 3));
    assert_eq!(
        rig.stat(client.link, "a//f").unwrap().file,
        file,
        "slashes may be repeated"
    );
    let from_dir = At {
        dir: dir.file,
        path: b"f".to_vec(),
    };
    assert!(matches!(
        rig.query(client.link, QueryOp::Stat { at: from_dir }),
        Ok(Answer::Attrs(attrs)) if attrs.file == file
    ));
    rig.meta.state().unwrap().check();
}

#[test]
fn paths_that_lead_nowhere_say_why() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.create(&mut client, "f");
    rig.mutate(&mut client, mkdir("d")).unwrap();
    refused(rig.stat(client.link, "no"), Status::NotFound);
    refused(rig.stat(client.link, "no/more"), Status::NotFound);
    refused(rig.stat(client.link, "f/more"), Status::NotADirectory);
    for bad in [".", "..", "d/../f", "d/.", "a\0b"] {
        refused(rig.stat(client.link, bad), Status::BadName);
    }
    let long = |len: usize| String::from_utf8(vec![b'n'; len]).unwrap();
    refused(rig.stat(client.link, &long(255)), Status::NotFound);
    refused(rig.stat(client.link, &long(256)), Status::BadName);
    rig.create(&mut client, &long(255));
    let outcome = rig.mutate(&mut client, create(&long(256), Keep::Always));
    assert!(refused(outcome, Status::BadName).contains("256 bytes"));
    refused(rig.stat(client.link, &"d/".repeat(2_049)), Status::BadName);
    let nowhere = At {
        dir: FileId(99),
        path: b"x".to_vec(),
    };
    refused(
        rig.query(client.link, QueryOp::Stat { at: nowhere }),
        Status::NotFound,
    );
    refused(
        rig.mutate(&mut client, create("f/x", Keep::Always)),
        Status::NotADirectory,
    );
    refused(
        rig.mutate(&mut client, create("no/x", Keep::Always)),
        Status::NotFound,
    );
}

#[test]
fn directories_are_made_with_their_parents_in_one_step() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    refused(rig.mutate(&mut client, mkdir("a/b/c")), Status::NotFound);
    let before = rig.meta.state().unwrap().seq();
    let made = rig.mutate(&mut client, mkdir_p("a/b/c")).unwrap();
    assert_eq!(rig.meta.state().unwrap().seq(), before.next(), "one record");
    assert_eq!(
        rig.mutate(&mut client, mkdir_p("a/b/c")),
        Ok(made),
        "a second time it is found"
    );
    refused(rig.mutate(&mut client, mkdir("a/b/c")), Status::Exists);
    refused(rig.mutate(&mut client, mkdir("")), Status::Exists);
    rig.create(&mut client, "a/f");
    refused(rig.mutate(&mut client, mkdir_p("a/f")), Status::Exists);
    refused(
        rig.mutate(&mut client, mkdir_p("a/f/x/y")),
        Status::NotADirectory,
    );
    assert_eq!(rig.stat(client.link, "a").unwrap().links, 3);
    rig.meta.state().unwrap().check();
}

#[test]
fn what_is_there_is_not_created_again() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.create(&mut client, "f");
    refused(
        rig.mutate(&mut client, create("f", Keep::Always)),
        Status::Exists,
    );
    refused(
        rig.mutate(&mut client, create("", Keep::Always)),
        Status::Exists,
    );
    let op = MutateOp::Create {
        at: at("g"),
        owner: OWNER,
        replication: 17,
        keep: Keep::Always,
    };
    refused(rig.mutate(&mut client, op), Status::BadRequest);
}

#[test]
fn renames_replace_what_they_may_and_refuse_what_they_may_not() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let f = rig.create(&mut client, "f");
    let g = rig.create(&mut client, "g");
    rig.mutate(&mut client, close(g, 0, vec![])).unwrap();
    for dir in ["d", "d/e", "empty", "full", "full/x"] {
        rig.mutate(&mut client, mkdir(dir)).unwrap();
    }
    let mut ren = |from: &str, to: &str| rig.mutate(&mut client, rename(from, to));
    refused(ren("no", "x"), Status::NotFound);
    refused(ren("f", "no/x"), Status::NotFound);
    refused(ren("", "x"), Status::BadRequest);
    refused(ren("f", ""), Status::BadRequest);
    refused(ren("d", "d/e/d"), Status::BadRequest);
    refused(ren("d", "d/x"), Status::BadRequest);
    refused(ren("d", "f"), Status::NotADirectory);
    refused(ren("f", "d"), Status::IsADirectory);
    refused(ren("d", "full"), Status::NotEmpty);
    refused(ren("full/x", "full"), Status::NotEmpty);
    refused(ren("f", "g/x"), Status::NotADirectory);
    assert_eq!(ren("f", "f"), Ok(Done::Ok));
    assert_eq!(ren("d", "d"), Ok(Done::Ok));
    assert_eq!(ren("d", "empty"), Ok(Done::Ok));
    assert_eq!(ren("f", "g"), Ok(Done::Ok));
    assert_eq!(ren("g", "empty/e/f"), Ok(Done::Ok));
    let op = MutateOp::Rename {
        from: at("full"),
        to: at("empty"),
        mode: RenameMode::NoReplace,
    };
    refused(rig.mutate(&mut client, op), Status::Exists);
    assert_eq!(rig.stat(client.link, "empty/e/f").unwrap().file, f);
    refused(rig.stat(client.link, "f"), Status::NotFound);
    refused(rig.stat(client.link, "g"), Status::NotFound);
    refused(rig.stat(client.link, "d"), Status::NotFound);
    let status = rig.status(client.link);
    assert_eq!((status.files, status.directories), (1, 5));
    rig.meta.state().unwrap().check();
}

#[test]
fn removals_tell_files_from_directories() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let f = rig.create(&mut client, "f");
    rig.mutate(&mut client, close(f, 0, vec![])).unwrap();
    rig.mutate(&mut client, mkdir_p("d/e")).unwrap();
    refused(rig.mutate(&mut client, remove("d")), Status::IsADirectory);
    refused(rig.mutate(&mut client, remove("no")), Status::NotFound);
    refused(rig.mutate(&mut client, rmdir("f")), Status::NotADirectory);
    refused(rig.mutate(&mut client, rmdir("d")), Status::NotEmpty);
    refused(rig.mutate(&mut client, rmdir("no")), Status::NotFound);
    refused(rig.mutate(&mut client, rmdir("")), Status::BadRequest);
    refused(rig.mutate(&mut client, remove("")), Status::BadRequest);
    for op in [rmdir("d/e"), rmdir("d"), remove("f")] {
        assert_eq!(rig.mutate(&mut client, op), Ok(Done::Ok));
    }
    let status = rig.status(client.link);
    assert_eq!((status.files, status.directories), (0, 1));
    rig.meta.state().unwrap().check();
}

#[test]
fn a_listing_in_pages_gives_each_entry_once_while_others_come_and_go() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("d")).unwrap();
    for n in 0..50 {
        rig.create(&mut client, &format!("d/{n:03}"));
    }
    let (mut seen, mut after, mut page) = (vec![], vec![], 0);
    loop {
        let op = QueryOp::List {
            at: at("d"),
            after: after.clone(),
            limit: 7,
        };
        let Ok(Answer::Entries { entries, end }) = rig.query(client.link, op) else {
            panic!("a page");
        };
        assert!(entries.len() <= 7);
        seen.extend(
            entries
                .into_iter()
                .map(|entry| String::from_utf8(entry.name).unwrap()),
        );
        if end {
            break;
        }
        after = seen.last().unwrap().clone().into_bytes();
        rig.mutate(&mut client, remove(&format!("d/{:03}", page * 7)))
            .unwrap();
        rig.create(&mut client, &format!("d/{:03}x", page * 7));
        page += 1;
    }
    let stayed: Vec<String> = (0..50).map(|n| format!("{n:03}")).collect();
    assert!(
        stayed
            .iter()
            .all(|name| seen.iter().filter(|found| *found == name).count() == 1)
    );
    assert!(seen.is_sorted());
    rig.create(&mut client, "f");
    let op = QueryOp::List {
        at: at("f"),
        after: vec![],
        limit: 7,
    };
    refused(rig.query(client.link, op), Status::NotADirectory);
}

/// Prints its rate; as a test it only holds that a directory of 100,000 entries stays usable.
#[test]
fn a_directory_of_a_hundred_thousand_entries_is_filled_listed_and_read_back() {
    let mut config = config();
    config.limits.log_segment_bytes = 8 << 20;
    let mut rig = Rig::start(config, Disk::default());
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("d")).unwrap();
    let before = rig.spent;
    const FILES: u64 = 100_000;
    for n in 0..FILES {
        client.last += 1;
        client.lowest = client.last;
        let op = client.request(client.last, create(&format!("d/{n:07}"), Keep::Always));
        rig.hold = n % 64 != 63;
        rig.send(client.link, op);
        if rig.sent.len() > 1_000 {
            rig.sent.clear();
        }
    }
    rig.hold = false;
    rig.run_disk();
    rig.sent.clear();
    let spent = (rig.spent - before).as_secs_f64();
    println!("{:.0} creates a second", FILES as f64 / spent);
    assert_eq!(rig.stat(client.link, "d").unwrap().size, FILES);
    let op = QueryOp::List {
        at: at("d"),
        after: b"0099990".to_vec(),
        limit: 100,
    };
    assert!(matches!(
        rig.query(client.link, op),
        Ok(Answer::Entries { entries, end: true }) if entries.len() == 9
    ));
    rig.restart();
    let spent = rig.spent.as_secs_f64();
    println!("{:.0} records a second replayed", FILES as f64 / spent);
    let link = rig.open_link(kfs_core::wire::Role::Client);
    assert_eq!(rig.stat(link, "d").unwrap().size, FILES);
}
