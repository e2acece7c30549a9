//! Daemons that are recorded: the same machine, told the same, does the same; and a recording endangers nothing.
use crate::cluster::{content, expect_content, put};
use crate::daemon::{CHUNK, Daemon, META, run};
use kfs_client::{Kfs, Options};
use kfs_core::trace::{Configuration, EntryKind, Header, Reader, Replay, Replayed, TraceError};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tempfile::TempDir;

const ANY: &str = "127.0.0.1:0";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Starts a daemon on the directory that `name` begins with, recorded in `name.trace`.
fn spawn(program: &str, dir: &Path, name: &str, more: &[&str]) -> Daemon {
    let record = dir.join(name).with_extension("trace");
    let data = dir.join(name.split('-').next().unwrap());
    let args = ["--listen", ANY, "--http", ANY, "--data", text(&data)];
    let args = [&args[..], &["--record", text(&record)], more].concat();
    Daemon::spawn(program, &args, &dir.join(name).with_extension("stderr"))
}

fn trace(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name).with_extension("trace")).unwrap()
}

fn replay(bytes: &[u8]) -> (Result<Replayed, TraceError>, u64) {
    let mut replay = Replay::default();
    for piece in bytes.chunks(100_000) {
        replay.feed(piece).unwrap();
    }
    let same = replay.same();
    (replay.finish(), same)
}

/// The header, and how many entries there are of each kind.
fn content_of(bytes: &[u8]) -> (Header, BTreeMap<u32, usize>) {
    let mut reader = Reader::default();
    reader.feed(bytes);
    let header = reader.header().unwrap().unwrap();
    let mut kinds = BTreeMap::new();
    while let Some(entry) = reader.entry().unwrap() {
        *kinds.entry(entry.kind.code()).or_default() += 1;
    }
    (header, kinds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_daemons_did_they_do_again_in_a_replay() {
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path();
    let mut meta = spawn(META, dir, "meta-1", &["--heartbeat", "200ms"]);
    let listen = meta.ready().listen;
    let meta_addr = listen.to_string();
    let mut chunks = ["a-1", "b-1"].map(|name| spawn(CHUNK, dir, name, &["--meta", &meta_addr]));
    for chunk in &chunks {
        chunk.ready();
    }
    let kfs = Kfs::connect(Options::new(listen));
    let data = content(1, 3_000_000);
    put(&kfs, "/f", &data).await;
    expect_content(&kfs, "/f", &data).await;
    drop(kfs);

    let [stopped, killed] = &mut chunks;
    killed.kill();
    for daemon in [stopped, &mut meta] {
        daemon.terminate();
        assert_eq!(daemon.ended().code, Some(0), "{}", daemon.stderr());
    }
    // A start that reads a log is a replay of its own.
    let mut again = spawn(META, dir, "meta-2", &[]);
    again.ready();
    again.terminate();
    assert_eq!(again.ended().code, Some(0));

    for (name, machine, kinds) in [
        (
            "meta-1",
            "meta server",
            &[
                EntryKind::Wake,
                EntryKind::Opened,
                EntryKind::Received,
                EntryKind::Sent,
                EntryKind::Disk,
                EntryKind::Call,
            ][..],
        ),
        (
            "a-1",
            "chunkserver",
            &[
                EntryKind::Opened,
                EntryKind::Received,
                EntryKind::Sent,
                EntryKind::Disk,
                EntryKind::Call,
            ],
        ),
        (
            "meta-2",
            "meta server",
            &[EntryKind::Wake, EntryKind::Disk, EntryKind::Call],
        ),
    ] {
        let bytes = trace(dir, name);
        let (replayed, _) = replay(&bytes);
        let Ok(Replayed::Same { inputs, .. }) = replayed else {
            panic!("{name}: {replayed:?}");
        };
        let (header, seen) = content_of(&bytes);
        assert_eq!(header.configuration.machine(), machine);
        assert_eq!(seen.values().sum::<usize>() as u64, inputs + 1);
        for kind in kinds.iter().chain([&EntryKind::End]) {
            assert!(seen.contains_key(&kind.code()), "{name} has no {kind:?}");
        }
        // The replay is no formality: another seed does other things.
        let length = header.encode().len();
        let mut configuration = header.configuration.clone();
        match &mut configuration {
            Configuration::Meta(config) => config.seed ^= 1,
            Configuration::Chunk(config) => config.seed ^= 1,
            Configuration::Client(config) => config.seed ^= 1,
        }
        let other = Header {
            configuration,
            ..header
        };
        let other = [&other.encode()[..], &bytes[length..]].concat();
        assert!(
            matches!(replay(&other).0, Ok(Replayed::Differs(_))),
            "{name} with another seed"
        );
    }
    let bytes = trace(dir, "a-1");
    assert!(bytes.len() > data.len(), "the pieces are in it");

    // What was recorded of one that was killed is not whole, and as good as far as it goes.
    let (replayed, same) = replay(&trace(dir, "b-1"));
    assert!(
        matches!(replayed, Err(TraceError::Truncated { .. })),
        "{replayed:?}"
    );
    assert!(same > 10, "{same} inputs");
    let path = dir.join("a-1").with_extension("trace");
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "the data of users is not for everybody");
}

#[test]
fn a_recording_is_never_written_over_and_never_into_the_data() {
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path();
    let data = dir.join("data");
    let there = dir.join("there");
    std::fs::write(&there, b"of yesterday").unwrap();
    for program in [META, CHUNK] {
        for (record, why) in [
            (there.clone(), "exists already"),
            (dir.join("no/such/directory"), "cannot make"),
            (data.join("trace"), "in the data directory"),
        ] {
            let args = ["--listen", ANY, "--http", ANY, "--data", text(&data)];
            let args = [&args[..], &["--record", text(&record)]].concat();
            let ended = run(program, &args, dir);
            ended.expect(2, "KFS-E066", &[text(&record), "--record", why, "help: "]);
            assert!(!data.join("identity").exists(), "nothing is formatted");
        }
    }
    assert_eq!(std::fs::read(&there).unwrap(), b"of yesterday");
    assert!(!data.join("trace").exists());
    // A start that is refused for another reason leaves no file behind.
    let record = dir.join("new");
    let args = ["--listen", "192.0.2.1:0", "--data", text(&data)];
    run(
        META,
        &[&args[..], &["--record", text(&record)]].concat(),
        dir,
    )
    .expect(1, "KFS-E063", &[]);
    assert!(!record.exists());
}
