//! Replays the committed corpora on stable, without a fuzzer: once an input broke something, its file stays
//! in `seeds/<target>/` and is tried for ever. Fails on a corpus that is empty or belongs to no target.
use kfs_core::meta::record::{Logged, Record};
use kfs_core::trace::{EntryKind, Reader};
use kfs_core::wire::Head;
use kfs_fuzz::TARGETS;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = seeds().join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_seed_of_every_target_is_survived() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "the corpus of {name} is empty");
        for (path, data) in &corpus {
            println!("{}", path.display());
            target(data);
            // What a torn read or a cut connection leaves of it; long ones at some cuts only.
            for len in (0..data.len()).step_by(1 + data.len() / 64) {
                target(&data[..len]);
            }
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    for entry in fs::read_dir(seeds()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            TARGETS.iter().any(|(target, _)| *target == name),
            "seeds/{name} has no target"
        );
    }
    for (name, _) in TARGETS {
        let manifest = include_str!("../Cargo.toml");
        assert!(
            manifest.contains(&format!("fuzz_targets/{name}.rs")),
            "{name} is not handed to the fuzzer"
        );
    }
}

#[test]
fn every_message_type_is_in_the_corpus() {
    let codes: BTreeSet<u16> = corpus("message")
        .iter()
        .filter_map(|(_, data)| data.first_chunk())
        .map(|code| u16::from_le_bytes(*code))
        .collect();
    for (code, name) in Head::TYPES {
        assert!(codes.contains(code), "no seed of {name}");
    }
}

#[test]
fn every_record_type_is_in_the_corpus() {
    let records = corpus("record");
    let decoded = records
        .iter()
        .filter_map(|(_, data)| Logged::decode(data.get(1..)?).ok());
    let codes: BTreeSet<(u16, u16)> = decoded.map(|(logged, _)| logged.record.code()).collect();
    for (code, version, name) in Record::TYPES {
        assert!(codes.contains(&(*code, *version)), "no seed of {name}");
    }
}

#[test]
fn every_kind_of_entry_is_in_the_corpus_of_every_machine() {
    for (_, data) in corpus("trace").iter().filter(|(path, _)| {
        let name = path.file_name().expect("a file");
        ["meta_server", "chunkserver", "client"]
            .iter()
            .any(|good| name == *good)
    }) {
        let mut reader = Reader::default();
        reader.feed(&data[1..]);
        reader.header().unwrap().expect("a good trace has a header");
        let mut kinds = BTreeSet::new();
        while let Some(entry) = reader.entry().unwrap() {
            kinds.insert(entry.kind.code());
        }
        reader.finish().unwrap();
        assert_eq!(kinds.len(), EntryKind::ALL.len(), "every kind is there");
    }
}

#[test]
fn the_good_checkpoint_of_the_corpus_is_one() {
    let corpus = corpus("checkpoint");
    let mut good = corpus.iter().filter(|(path, _)| path.ends_with("good"));
    let (_, data) = good.next().expect("there is a good one");
    let entries = kfs_fuzz::checkpoint_entries(data).expect("it can be loaded");
    assert!(
        entries > 12,
        "something of everything, not {entries} entries"
    );
}
