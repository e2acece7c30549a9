//! `put` and `get`: bytes go in and come out, and never a part of them under the final name.
use crate::cluster::{Cluster, content, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const CHUNK: usize = 64 << 20;

#[test]
fn files_of_every_awkward_length_come_back() {
    let cluster = Cluster::new();
    for len in [
        0,
        1,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (1 << 20) + 1,
        3_333_333,
    ] {
        let bytes = content(len);
        let source = cluster.local("source", &bytes);
        let path = format!("/{len}");
        let put = cluster.ok(&["put", text(&source), &path, "--json"]);
        let put: serde_json::Value = serde_json::from_str(put.trim()).unwrap();
        assert_eq!(put["bytes"], len, "{put}");
        let back = cluster.dir.path().join(format!("back-{len}"));
        cluster.ok(&["get", &path, text(&back)]);
        assert!(fs::read(&back).unwrap() == bytes, "{len} bytes, to a file");
        assert!(
            cluster.kfs(&["get", &path, "-"]).out == bytes,
            "{len} bytes, to a pipe"
        );
    }
    let left: Vec<_> = fs::read_dir(cluster.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with(".kfs")),
        "{left:?}"
    );
}

#[test]
fn a_file_of_several_chunks_comes_back_at_every_replication() {
    let cluster = Cluster::new();
    let bytes = content(CHUNK + 123_457);
    let source = cluster.local("source", &bytes);
    for replication in ["1", "3"] {
        let path = format!("/r{replication}");
        cluster.ok(&["put", text(&source), &path, "--replication", replication]);
        let said = cluster.kfs(&["get", &path, "-"]);
        assert!(
            said.out == bytes,
            "replication {replication}: {} bytes, {}",
            said.out.len(),
            said.err
        );
        let stat = cluster.ok(&["stat", "--json", &path]);
        assert!(
            stat.contains(&format!("\"replication\":{replication},")),
            "{stat}"
        );
    }
}

#[test]
fn standard_input_is_stored_whole() {
    let cluster = Cluster::new();
    let bytes = content(2_500_000);
    cluster.store("/from-stdin", &bytes);
    cluster.store("/empty", b"");
    assert!(cluster.kfs(&["cat", "/from-stdin"]).out == bytes);
    assert!(cluster.kfs(&["cat", "/empty"]).out.is_empty());
}

#[test]
fn a_target_that_is_there_is_replaced_only_by_force() {
    let cluster = Cluster::new();
    cluster.store("/f", b"old");
    let source = cluster.local("source", b"new");
    let target = cluster.local("target", b"mine");
    cluster
        .kfs(&["put", text(&source), "/f"])
        .failed(4, &["KFS-E002", "/f exists", "--force"]);
    cluster
        .kfs(&["get", "/f", text(&target)])
        .failed(4, &["KFS-E002", "--force"]);
    assert_eq!(cluster.ok(&["cat", "/f"]), "old");
    assert_eq!(fs::read(&target).unwrap(), b"mine");

    cluster.ok(&["put", "--force", text(&source), "/f"]);
    assert_eq!(cluster.ok(&["cat", "/f"]), "new");
    cluster.ok(&["get", "--force", "/f", text(&target)]);
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert_eq!(cluster.names("/"), ["f"], "no temporary is left");
}

#[test]
fn into_a_directory_a_file_goes_under_its_own_name() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    let source = cluster.local("named", b"x");
    cluster.ok(&["put", text(&source), "/d"]);
    assert_eq!(cluster.names("/d"), ["named"]);
    cluster
        .kfs(&["put", text(&source), "/d/"])
        .failed(4, &["/d/named exists"]);
    let here = cluster.dir.path().join("here");
    fs::create_dir(&here).unwrap();
    cluster.ok(&["get", "/d/named", text(&here)]);
    assert_eq!(fs::read(here.join("named")).unwrap(), b"x");
    cluster
        .feed(&["put", "-", "/d"], b"x")
        .failed(1, &["KFS-E004", "no name"]);
}

#[test]
fn the_mode_goes_along() {
    let cluster = Cluster::new();
    let source = cluster.local("script", b"#!/bin/sh\n");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
    cluster.ok(&["put", text(&source), "/script"]);
    assert!(
        cluster
            .ok(&["stat", "/script"])
            .contains("mode: 0700 (rwx------)")
    );
    let back = cluster.dir.path().join("back");
    cluster.ok(&["get", "/script", text(&back)]);
    assert_eq!(
        fs::metadata(&back).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_tree_goes_in_and_comes_out_whole() {
    let cluster = Cluster::new();
    let tree = cluster.dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    for (name, len) in [("one", 1), ("a/two", 70_000), ("a/b/three", 0)] {
        fs::write(tree.join(name), content(len)).unwrap();
    }
    cluster.ok(&["put", text(&tree), "/tree"]);
    assert_eq!(cluster.names("/"), ["tree"]);
    assert_eq!(cluster.names("/tree"), ["a", "empty", "one"]);
    cluster
        .kfs(&["put", text(&tree), "/tree", "--force"])
        .failed(0, &[]);
    assert_eq!(
        cluster.names("/tree"),
        ["a", "empty", "one", "tree"],
        "into a directory that is there"
    );

    let back = cluster.dir.path().join("back");
    cluster.ok(&["get", "/tree/tree", text(&back)]);
    for name in ["one", "a/two", "a/b/three"] {
        assert_eq!(
            fs::read(back.join(name)).unwrap(),
            fs::read(tree.join(name)).unwrap(),
            "{name}"
        );
    }
    assert!(back.join("empty").is_dir());
    cluster
        .kfs(&["get", "/tree", text(&cluster.local("file", b""))])
        .failed(4, &["KFS-E002"]);
}

#[test]
fn a_tree_with_something_that_cannot_be_stored_leaves_nothing() {
    let cluster = Cluster::new();
    let tree = cluster.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), b"x").unwrap();
    std::os::unix::fs::symlink("a", tree.join("b")).unwrap();
    cluster
        .kfs(&["put", text(&tree), "/tree"])
        .failed(1, &["neither a file nor a directory"]);
    assert_eq!(cluster.names("/"), [""; 0]);
}

#[test]
fn a_file_whose_every_copy_is_damaged_is_not_fetched_in_part() {
    let cluster = Cluster::new();
    cluster.store("/f", &content(300_000));
    let mut damaged = 0;
    for server in &cluster.chunkservers {
        for entry in fs::read_dir(server.data().join("chunks")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            // In the second block, after the header of 16 KiB.
            bytes[16_384 + 100_000] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 3);
    let back = cluster.dir.path().join("back");
    cluster
        .kfs(&["get", "/f", text(&back), "--timeout", "5s"])
        .failed(6, &["KFS-E024", "/f"]);
    assert!(!back.exists());
    let left: Vec<_> = fs::read_dir(cluster.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with(".kfs")),
        "{left:?}"
    );
    // What is whole can be read.
    assert!(cluster.kfs(&["cat", "/f", "--length", "65536"]).out == content(65_536));
}
