//! `kfs verify`, `kfs log cat`, `kfs checkpoint`: what a directory holds, without its server.
use crate::cluster::{command, content, feed, run, text};
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
