//! `kfs verify`, `kfs log`, `kfs at`, `kfs checkpoint`: what a directory holds, without its server.
use crate::cluster::{command, content, feed, run, text};
use kfs_core::identity::{Identity, Owner};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The data of a cluster in which a file was stored and a checkpoint made; nobody runs on it.
fn stored() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let local = ["--local", text(&data)];
    let put = feed(command(&local).args(["put", "-", "/f"]), &content(300_000));
    assert_eq!(put.code, Some(0), "{put:?}");
    let made = run(command(&local).args(["checkpoint", "--json"]));
    assert_eq!(made.code, Some(0), "{made:?}");
    let said = String::from_utf8(made.out).unwrap();
    assert!(said.contains("\"made\":true"), "{said}");
    (dir, data)
}

fn verify(dir: &Path) -> (Option<i32>, String) {
    let said = run(command(&["verify", text(dir)]).env_remove("KFS_META"));
    (said.code, String::from_utf8(said.out).unwrap() + &said.err)
}

/// The first file below a directory whose name begins so.
fn file(dir: &Path, name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(name)
        })
        .collect();
    found.sort();
    found.remove(0)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x08;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_directory_that_is_whole_is_said_to_be_and_one_flipped_bit_is_found() {
    let (_dir, data) = stored();
    for server in ["meta", "chunkserver-1", "chunkserver-2", "chunkserver-3"] {
        let (code, said) = verify(&data.join(server));
        assert_eq!(code, Some(0), "{server}: {said}");
        assert!(said.contains("directory  whole"), "{server}: {said}");
    }

    let chunk = file(&data.join("chunkserver-1/chunks"), "");
    flip(&chunk, 16_384 + 70_000);
    let (code, said) = verify(&data.join("chunkserver-1"));
    assert_eq!(code, Some(6), "{said}");
    assert!(
        said.contains(text(&chunk)) && said.contains("block 1: its sum"),
        "{said}"
    );

    let checkpoint = file(&data.join("meta/checkpoint"), "checkpoint.");
    let log = file(&data.join("meta/log"), "log.1");
    let whole = fs::read(&checkpoint).unwrap();
    flip(&checkpoint, whole.len() - 20);
    let (code, said) = verify(&data.join("meta"));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains(text(&checkpoint)), "{said}");
    fs::write(&checkpoint, whole).unwrap();
    flip(&log, 4_096 + 100);
    let (code, said) = verify(&data.join("meta"));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("whole up to record 0"), "{said}");
    assert!(said.contains("log.1 at offset 4096"), "{said}");
}

#[test]
fn every_record_of_a_log_is_printed_as_text_and_as_objects() {
    let (_dir, data) = stored();
    let meta = data.join("meta");
    let said = run(&mut command(&["log", "cat", text(&meta)]));
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = String::from_utf8(said.out).unwrap();
    let objects = run(&mut command(&["log", "cat", "--json", text(&meta)]));
    let objects = String::from_utf8(objects.out).unwrap();
    assert_eq!(lines.lines().count(), objects.lines().count());
    for (nth, line) in objects.lines().enumerate() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["seq"], nth + 1);
    }
    for record in [
        "EpochBegun",
        "ServerJoined",
        "FileCreated",
        "ChunkOpened",
        "SizeSet",
        "Renamed",
    ] {
        assert!(
            objects.contains(&format!("\"record\":\"{record}\"")),
            "{record}"
        );
    }
}

#[test]
fn what_is_no_data_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    run(&mut command(&["verify", path])).failed(3, &["identity"]);
    run(command(&["verify", path]).args(["--meta", "127.0.0.1:1"])).failed(2, &["--meta"]);
    let (_dir, data) = stored();
    let chunkserver = data.join("chunkserver-1");
    run(&mut command(&["log", "cat", text(&chunkserver)])).failed(2, &["it has no log"]);
}

/// A mirror has the log of its meta server, and no checkpoint beside it.
#[test]
fn a_mirror_of_a_log_is_read_as_one() {
    let (dir, data) = stored();
    let mirror = dir.path().join("mirror");
    fs::create_dir_all(mirror.join("log")).unwrap();
    let own = fs::read(data.join("meta/identity")).unwrap();
    let identity = Identity {
        owner: Owner::Mirror,
        ..Identity::decode(&own).unwrap()
    };
    fs::write(mirror.join("identity"), identity.encode()).unwrap();
    for entry in fs::read_dir(data.join("meta/log")).unwrap() {
        let from = entry.unwrap().path();
        let to = mirror.join("log").join(from.file_name().unwrap());
        fs::copy(&from, to).unwrap();
    }
    let (code, said) = verify(&mirror);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a mirror, whole from record 1 to "), "{said}");
    let cat = run(command(&["log", "cat", text(&mirror)]).env_remove("KFS_META"));
    assert_eq!(cat.code, Some(0), "{cat:?}");
    flip(&file(&mirror.join("log"), "log.1"), 4_096 + 100);
    let (code, said) = verify(&mirror);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("log.1 at offset 4096"), "{said}");
}

fn said(arguments: &[&str]) -> (Option<i32>, String, String) {
    let said = run(command(arguments).env_remove("KFS_META"));
    (said.code, String::from_utf8(said.out).unwrap(), said.err)
}

/// The number of the last record of a kind that names a thing.
fn record(log: &str, kind: &str) -> u64 {
    let line = log.lines().rfind(|line| line.contains(kind)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_removed_file_is_seen_at_any_record_before_and_each_record_about_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let local = ["--local", text(&data)];
    let does = |arguments: &[&str]| {
        let did = run(command(&local).args(arguments));
        assert_eq!(did.code, Some(0), "{arguments:?}: {did:?}");
    };
    does(&["mkdir", "/d", "/other"]);
    let put = feed(command(&local).args(["put", "-", "/d/f"]), &content(3_000));
    assert_eq!(put.code, Some(0), "{put:?}");
    does(&["mv", "/d", "/e"]);
    does(&["mkdir", "/other/below"]);
    does(&["rm", "/e/f"]);
    let meta = data.join("meta");
    let meta = text(&meta);

    let (code, blamed, err) = said(&["log", "blame", "/e/f", "--data", meta]);
    assert_eq!(code, Some(0), "{err}");
    for kind in [
        "FileCreated",
        "ChunkOpened",
        "SizeSet",
        "Renamed",
        "FileRemoved",
    ] {
        assert!(blamed.contains(kind), "{kind}: {blamed}");
    }
    assert!(!blamed.contains("below"), "not about it: {blamed}");
    let renamed = record(&blamed, "Renamed");
    let removed = record(&blamed, "FileRemoved");
    let (before, last) = ((renamed - 1).to_string(), (removed - 1).to_string());

    let (code, out, err) = said(&["at", &before, "ls", "--data", meta]);
    assert_eq!((code, &*out), (Some(0), "d\nother\n"), "{err}");
    let (code, out, err) = said(&["at", &last, "ls", "/e", "--data", meta]);
    assert_eq!((code, &*out), (Some(0), "f\n"), "{err}");
    let (code, out, err) = said(&["at", &last, "stat", "/e/f", "--data", meta, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\"size\":3000"), "{out}");

    let (code, _, err) = said(&["at", &removed.to_string(), "stat", "/e/f", "--data", meta]);
    assert_eq!(code, Some(3), "{err}");
    let (code, _, err) = said(&["at", "99999", "ls", "--data", meta]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("the log ends with record"), "{err}");
    let (code, _, err) = said(&["log", "blame", "/nothing", "--data", meta]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("nothing ever stood at /nothing"), "{err}");
    let (code, _, err) = said(&["at", "1", "ls", "kfs://h:1/", "--data", meta]);
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn a_past_that_the_log_has_let_go_of_is_not_made_up() {
    let (_dir, data) = stored();
    let meta = data.join("meta");
    let meta = text(&meta);
    let cat = said(&["log", "cat", meta]).1;
    let end = record(&cat, "");
    let (code, whole, err) = said(&["at", &end.to_string(), "ls", "-l", "--data", meta]);
    assert_eq!(code, Some(0), "{err}");
    assert!(whole.ends_with(" f\n"), "{whole}");
    // Only the checkpoint says what was.
    let segment = file(&data.join("meta/log"), "");
    fs::remove_file(&segment).unwrap();
    let checkpoint = file(&data.join("meta/checkpoint"), "");
    let (code, _, err) = said(&["at", "1", "ls", "--data", meta]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("cannot be told"), "{err}");
    let seq = kfs_core::meta::checkpoint::format::checkpoint_seq(
        checkpoint.file_name().unwrap().to_str().unwrap(),
    );
    let seq = seq.unwrap().0.to_string();
    let (code, at_checkpoint, err) = said(&["at", &seq, "ls", "-l", "--data", meta]);
    assert_eq!((code, at_checkpoint), (Some(0), whole), "{err}");
    let (code, _, err) = said(&["log", "blame", "/f", "--data", meta]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("older than record"), "{err}");

    let chunkserver = data.join("chunkserver-1");
    let (code, _, err) = said(&["at", "1", "ls", "--data", text(&chunkserver)]);
    assert_eq!(code, Some(2), "{err}");
}
