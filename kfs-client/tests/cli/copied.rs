//! `cp`, `touch` and what `mv` says beforehand: what is there is not lost, and nothing is half there.
use crate::cluster::{Cluster, content, run, wait};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

#[test]
fn a_copy_has_the_bytes_the_mode_and_the_replicas_of_what_it_is_of() {
    let cluster = Cluster::new();
    // More than a chunk, with a hole nowhere and an end in the middle of a block.
    let bytes = content((64 << 20) + 70_001);
    let local = cluster.local("source", &bytes);
    let script = ["put", "--replication", "2", local.to_str().unwrap(), "/f"];
    cluster.ok(&script);
    cluster.ok(&["cp", "/f", "/copy"]);
    let sums = cluster.ok(&["checksum", "/f", "/copy"]);
    let sums: Vec<&str> = sums.lines().map(|line| &line[..64]).collect();
    assert_eq!(sums[0], sums[1]);
    let told = |path: &str| -> serde_json::Value {
        serde_json::from_str(&cluster.ok(&["stat", "--json", path])).unwrap()
    };
    let (of, copy) = (told("/f"), told("/copy"));
    for field in ["size", "mode", "replication"] {
        assert_eq!(of[field], copy[field], "{field}");
    }
    assert_eq!(copy["replication"], 2);
    assert_ne!(of["file"], copy["file"]);
    cluster.store("/empty", b"");
    cluster.ok(&["cp", "--replication", "1", "/empty", "/e2"]);
    assert_eq!(
        (
            told("/e2")["size"].as_u64(),
            told("/e2")["replication"].as_u64()
        ),
        (Some(0), Some(1))
    );
    assert_eq!(cluster.names("/"), ["copy", "e2", "empty", "f"]);
}

#[test]
fn a_copy_replaces_nothing_unless_told_to_and_then_all_of_it() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/new", b"new");
    cluster.store("/old", b"old");
    cluster.store("/d/new", b"inside");
    for to in ["/old", "/d", "/new"] {
        cluster
            .kfs(&["cp", "/new", to])
            .failed(4, &["error[KFS-E002]: ", "help: --force"]);
    }
    assert_eq!(cluster.ok(&["cat", "/old"]), "old");
    assert_eq!(cluster.ok(&["cat", "/d/new"]), "inside");
    cluster
        .kfs(&["cp", "--force", "/new", "/new"])
        .failed(1, &["are one file"]);
    assert_eq!(cluster.ok(&["cat", "/new"]), "new");
    let said = cluster.ok(&["cp", "--force", "--dry-run", "/new", "/old"]);
    assert_eq!(said, "would replace /old by /new\n");
    assert_eq!(
        cluster.ok(&["cp", "--dry-run", "/new", "/x"]),
        "would copy /new to /x\n"
    );
    assert_eq!(
        cluster.ok(&["cat", "/old"]),
        "old",
        "a dry run changes nothing"
    );
    cluster.ok(&["cp", "--force", "/new", "/old"]);
    assert_eq!(cluster.ok(&["cat", "/old"]), "new");
    cluster.kfs(&["cp", "/no", "/x"]).failed(3, &["/no"]);
    cluster.kfs(&["cp", "/new", "/no/x"]).failed(3, &["/no"]);
    cluster
        .kfs(&["cp", "/new", "/old/x"])
        .failed(1, &["KFS-E003"]);
    cluster
        .kfs(&["cp", "kfs://h:1/a", "kfs://h:2/a"])
        .failed(2, &["two clusters"]);
    assert_eq!(cluster.names("/"), ["d", "new", "old"]);
}

#[test]
fn a_tree_is_copied_whole_with_names_that_are_no_text_and_never_into_itself() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/a/b/c", "/a/empty"]);
    cluster.store("/a/b/f", b"f");
    let odd = OsStr::from_bytes(b"/a/b/c/\xff\n");
    let local = cluster.local("source", b"odd");
    assert_eq!(
        run(cluster.command(&["put"]).arg(&local).arg(odd)).code,
        Some(0)
    );
    cluster
        .kfs(&["cp", "/a", "/x"])
        .failed(1, &["KFS-E004", "help: ", "cp -r"]);
    for to in ["/a", "/a/b", "/a/new"] {
        cluster
            .kfs(&["cp", "-r", "/a", to])
            .failed(1, &["into itself"]);
    }
    cluster
        .kfs(&["cp", "-r", "/", "/a/x"])
        .failed(1, &["into itself"]);
    cluster.ok(&["cp", "-r", "/a", "/copy"]);
    let find = |root: &str| {
        let said = cluster.kfs(&["find", root]);
        String::from_utf8_lossy(&said.out).replace(root, "")
    };
    assert_eq!(find("/copy"), find("/a"));
    assert_eq!(
        find("/copy").lines().count(),
        7,
        "the odd name has two lines"
    );
    // Into a directory that is there, as everywhere on unix; not over one.
    cluster.ok(&["cp", "-r", "/a/b", "/copy/empty"]);
    assert_eq!(cluster.names("/copy/empty"), ["b"]);
    cluster
        .kfs(&["cp", "-r", "--force", "/a/b", "/copy/empty"])
        .failed(4, &["rm -r"]);
    assert_eq!(cluster.names("/"), ["a", "copy"]);
}

#[test]
fn a_copy_that_is_interrupted_leaves_no_name_and_what_was_to_be_replaced() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/t"]);
    cluster.store("/t/1", &content(48 << 20));
    cluster.store("/t/2", &content(48 << 20));
    cluster.store("/old", b"old");
    for arguments in [
        &["cp", "--force", "/t/1", "/old"][..],
        &["cp", "-r", "/t", "/t2"],
    ] {
        // One that is done before the signal comes is tried again.
        let was_interrupted = (0..8).any(|_| {
            let code = interrupted(&cluster, arguments);
            if code == Some(0) {
                cluster.kfs(&["rm", "-r", "/t2"]);
                cluster.feed(&["put", "--force", "-", "/old"], b"old");
            }
            code == Some(1)
        });
        assert!(was_interrupted, "{arguments:?}");
        assert_eq!(cluster.names("/"), ["old", "t"], "{arguments:?}");
        assert_eq!(cluster.ok(&["cat", "/old"]), "old");
    }
}

/// Begins a copy, interrupts it when its temporary name is there, and gives its exit code.
fn interrupted(cluster: &Cluster, arguments: &[&str]) -> Option<i32> {
    let mut copy = cluster.command(arguments);
    copy.stdout(Stdio::null()).stderr(Stdio::null());
    let mut copy = copy.spawn().unwrap();
    wait("the temporary name, or the end", || {
        let names = cluster.names("/");
        let is_there = names.iter().any(|name| name.starts_with(".kfs-put-"));
        (is_there || copy.try_wait().unwrap().is_some()).then_some(())
    });
    if copy.try_wait().unwrap().is_none() {
        let pid = rustix::process::Pid::from_child(&copy);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
    copy.wait().unwrap().code()
}

#[test]
fn touch_makes_what_is_missing_and_sets_the_time_of_what_is_there_and_nothing_else() {
    let cluster = Cluster::new();
    cluster.store("/f", b"content");
    let stat = |path: &str| -> serde_json::Value {
        serde_json::from_str(&cluster.ok(&["--json", "stat", path])).unwrap()
    };
    let before = stat("/f");
    let told = cluster.ok(&["--json", "touch", "/f", "/new", "/"]);
    assert!(
        told.contains("\"did\":\"set\",\"path\":\"/f\"")
            && told.contains("\"did\":\"made\",\"path\":\"/new\"")
            && told.contains("\"did\":\"set\",\"path\":\"/\""),
        "{told}"
    );
    let after = stat("/f");
    assert_ne!(after["mtime_ns"], before["mtime_ns"], "{after}");
    for same in ["mode", "uid", "gid", "size", "file", "crtime_ns"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert_eq!(cluster.ok(&["cat", "/f"]), "content");
    assert_eq!(cluster.ok(&["cat", "/new"]), "");
    cluster.ok(&["touch", "-d", "2001-02-03 04:05:06.7", "/f", "/dated"]);
    for path in ["/f", "/dated"] {
        let shown = cluster.ok(&["stat", path]);
        assert!(
            shown.contains("modified: 2001-02-03 04:05:06.700000000Z"),
            "{shown}"
        );
    }
    cluster.ok(&["touch", "-c", "/f", "/never"]);
    cluster
        .kfs(&["touch", "/no/x", "/last"])
        .failed(3, &["/no"]);
    cluster.kfs(&["touch", "/f/x"]).failed(1, &["KFS-E003"]);
    cluster
        .kfs(&["touch", "-d", "yesterday", "/f"])
        .failed(2, &["2026-01-31"]);
    assert_eq!(cluster.names("/"), ["dated", "f", "last", "new"]);
}

#[test]
fn a_rename_that_is_only_said_renames_nothing_and_is_refused_like_a_real_one() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/d/e", "/empty", "/full/d"]);
    cluster.store("/f", b"f");
    cluster.store("/g", b"g");
    cluster.ok(&["mkdir", "/full/d/x"]);
    for (from, to, did) in [
        ("/f", "/x", "would rename /f to /x\n"),
        ("/f", "/g", "would replace /g by /f\n"),
        ("/f", "/d", "would rename /f to /d/f\n"),
        ("/f", "/f", "would leave /f as it is\n"),
        ("/d", "/empty", "would rename /d to /empty/d\n"),
    ] {
        assert_eq!(cluster.ok(&["mv", "--dry-run", from, to]), did);
    }
    assert_eq!(cluster.names("/"), ["d", "empty", "f", "full", "g"]);
    for arguments in [
        &["/d", "/d/e/x"][..],
        &["/d", "/f"],
        &["/no", "/x"],
        &["/f", "/no/x"],
        &["/d", "/full"],
        &["-n", "/f", "/g"],
        &["/", "/x"],
    ] {
        let said = cluster.kfs(&[&["mv", "--dry-run"], arguments].concat());
        let done = cluster.kfs(&[&["mv"], arguments].concat());
        assert_ne!(done.code, Some(0), "{arguments:?}");
        assert_eq!(said.code, done.code, "{arguments:?}: {said:?} {done:?}");
        assert!(said.out.is_empty(), "{said:?}");
    }
}

#[test]
fn a_put_and_a_get_that_are_only_said_store_and_replace_nothing() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/f", b"there");
    let local = cluster.local("here", b"here");
    let here = local.to_str().unwrap();
    for (arguments, did) in [
        (&["put", here, "/new"][..], "would store /new\n"),
        (&["put", here, "/d"], "would store /d/here\n"),
        (&["put", "--force", "-", "/f"], "would replace /f\n"),
    ] {
        let said = cluster.ok(&[arguments, &["--dry-run"]].concat());
        assert_eq!(said, did, "{arguments:?}");
    }
    let get = |to: &str| cluster.ok(&["get", "--force", "--dry-run", "/f", to]);
    assert_eq!(get(here), format!("would replace {here} by /f\n"));
    let new = cluster.dir.path().join("new");
    let new = new.to_str().unwrap();
    assert_eq!(get(new), format!("would fetch /f to {new}\n"));
    for (arguments, code) in [
        (&["put", here, "/f"][..], 4),
        (&["put", here, "/no/x"], 3),
        (&["put", "-", "/d"], 1),
        (&["get", "/f", here], 4),
        (&["get", "/no", here], 3),
    ] {
        let said = cluster.kfs(&[arguments, &["--dry-run"]].concat());
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
    }
    assert_eq!(std::fs::read(&local).unwrap(), b"here");
    assert!(!std::path::Path::new(new).exists());
    assert_eq!(cluster.ok(&["cat", "/f"]), "there");
    assert_eq!(cluster.ok(&["find"]), "/\n/d\n/f\n");
}
