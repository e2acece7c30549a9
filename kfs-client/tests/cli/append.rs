//! `append`: what is added comes behind what is there, whoever wrote that and whatever died since.
use crate::cluster::{Cluster, content, ended, feed, run, text, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

/// A block of a chunk, which has one checksum.
const BLOCK: usize = 65_536;

/// Bytes that are others for each part.
fn part(nth: u8, len: usize) -> Vec<u8> {
    content(len).into_iter().map(|byte| byte ^ nth).collect()
}

/// A file of this path, as it was added to.
struct Grown<'a> {
    cluster: &'a Cluster,
    path: &'a str,
    bytes: Vec<u8>,
}

impl<'a> Grown<'a> {
    fn new(cluster: &'a Cluster, path: &'a str, bytes: Vec<u8>) -> Self {
        cluster.store(path, &bytes);
        Self {
            cluster,
            path,
            bytes,
        }
    }
    #[track_caller]
    fn add(&mut self, bytes: &[u8]) {
        let said = self.cluster.feed(&["append", "-", self.path], bytes);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.is_empty(), "{said:?}");
        self.bytes.extend_from_slice(bytes);
        self.is_there();
    }
    #[track_caller]
    fn is_there(&self) {
        is_there(self.cluster, self.path, &self.bytes);
    }
}

/// The file has these bytes, all of them, and says so.
#[track_caller]
fn is_there(cluster: &Cluster, path: &str, bytes: &[u8]) {
    let said = cluster.kfs(&["cat", path]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let differs = said.out.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(
        (said.out.len(), differs),
        (bytes.len(), None),
        "length, and where {path} differs"
    );
    let stat = cluster.ok(&["stat", "--json", path]);
    let size = format!("\"size\":{},", bytes.len());
    assert!(stat.contains(&size), "{size} is not in {stat}");
}

#[test]
fn a_file_grows_by_awkward_lengths_within_blocks_and_across_them() {
    let cluster = Cluster::new();
    let mut file = Grown::new(&cluster, "/f", Vec::new());
    // A byte, to the edge of a page and of a block but one, over it, nothing, to an edge, more than a block.
    let lens = [1, 4_095, BLOCK - 4_097, 2, 0, BLOCK - 1, 200_001, 7];
    for (nth, len) in (1..).zip(lens) {
        file.add(&part(nth, len));
    }
    assert_eq!(cluster.names("/"), ["f"], "it is not done by a second file");
}

#[test]
fn a_file_of_one_whole_chunk_takes_nothing_and_goes_on_in_the_next() {
    const CHUNK: usize = 64 << 20;
    let cluster = Cluster::new();
    let source = cluster.local("source", &part(1, CHUNK));
    cluster.ok(&["put", text(&source), "/f", "--replication", "1"]);
    for more in [&b""[..], b"behind", b""] {
        let said = cluster.feed(&["append", "-", "/f"], more);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let from = (CHUNK - 4).to_string();
    let said = cluster.kfs(&["cat", "/f", "--offset", &from]);
    let mut end = part(1, CHUNK).split_off(CHUNK - 4);
    end.extend(b"behind");
    assert_eq!(said.out, end);
}

#[test]
fn a_local_file_is_added_and_json_says_how_much_of_it() {
    let cluster = Cluster::new();
    cluster.store("/f", &part(1, 70_000));
    let source = cluster.local("source", &part(2, 60_001));
    let said = cluster.ok(&["append", text(&source), "/f", "--json"]);
    let said: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(said["did"], "appended", "{said}");
    assert_eq!(said["path"], "/f", "{said}");
    assert_eq!(said["files"], 1, "{said}");
    assert_eq!(said["bytes"], 60_001, "what was added, not what is there");
    is_there(&cluster, "/f", &[part(1, 70_000), part(2, 60_001)].concat());
    let said = cluster.feed(&["append", "-", "/f", "--json"], b"");
    let said: serde_json::Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(said["bytes"], 0, "{said}");
}

#[test]
fn what_cannot_be_appended_to_is_told_and_nothing_is_made() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/f", b"old");
    let source = cluster.local("source", b"new");
    let source = text(&source);
    cluster
        .kfs(&["append", source, "/missing"])
        .failed(3, &["error[KFS-E001]: ", "/missing"]);
    cluster
        .kfs(&["append", source, "/d/missing"])
        .failed(3, &["error[KFS-E001]: ", "/d/missing"]);
    cluster
        .kfs(&["append", source, "/d"])
        .failed(1, &["error[KFS-E004]: ", "'/d' is a directory"]);
    cluster
        .kfs(&["append", source, "/f/below"])
        .failed(1, &["error[KFS-E003]: ", "/f"]);
    let nowhere = cluster.dir.path().join("nowhere");
    cluster
        .kfs(&["append", text(&nowhere), "/f"])
        .failed(3, &["cannot open", "nowhere"]);
    cluster
        .kfs(&["append", text(cluster.dir.path()), "/f"])
        .failed(1, &["error[KFS-E004]: ", "is a directory"]);
    cluster.kfs(&["append", source]).failed(2, &["PATH"]);
    assert_eq!(cluster.names("/"), ["d", "f"]);
    assert_eq!(cluster.names("/d"), [""; 0]);
    assert_eq!(cluster.ok(&["cat", "/f"]), "old");
    // A missing file has kept nobody from appending.
    cluster.ok(&["append", source, "/f"]);
    assert_eq!(cluster.ok(&["cat", "/f"]), "oldnew");
}

#[test]
fn a_chunkserver_that_dies_between_appends_is_done_without() {
    let cluster = Cluster::new();
    let mut file = Grown::new(&cluster, "/f", part(1, 100_000));
    file.add(&part(2, 30_000));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cluster.chunkservers[0].kill());
    file.add(&part(3, 50_000));
    file.add(&part(4, 1));
}

#[test]
fn appends_go_on_when_everybody_was_killed_and_is_back() {
    let mut cluster = Cluster::new();
    let mut bytes = part(1, 100_000);
    cluster.store("/f", &bytes);
    for nth in 2..4 {
        cluster.restart_all();
        let more = part(nth, 40_000);
        let said = cluster.feed(&["append", "-", "/f"], &more);
        assert_eq!(said.code, Some(0), "{said:?}");
        bytes.extend(more);
    }
    cluster.restart_all();
    is_there(&cluster, "/f", &bytes);
}

#[test]
fn one_directory_keeps_what_was_appended_by_command_after_command() {
    let dir = tempfile::tempdir().unwrap();
    let local = ["--local", dir.path().to_str().unwrap()];
    let kfs = || crate::cluster::command(&local);
    assert_eq!(feed(kfs().args(["put", "-", "/f"]), b"one ").code, Some(0));
    for more in ["two ", "three"] {
        let said = feed(kfs().args(["append", "-", "/f"]), more.as_bytes());
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    assert_eq!(run(kfs().args(["cat", "/f"])).out, b"one two three");
}

/// An `append` from a pipe, by what it has to be given more.
#[allow(clippy::zombie_processes, reason = "whoever asks for it waits for it")]
fn appending(cluster: &Cluster) -> (Child, ChildStdin) {
    let mut child = cluster
        .command(&["append", "-", "/f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    (child, stdin)
}

/// As [`appending`], when it has the file open: others are kept from it.
fn holding(cluster: &Cluster) -> (Child, ChildStdin) {
    let first = appending(cluster);
    wait("the file to be held open", || {
        let said = cluster.feed(&["append", "-", "/f", "--timeout", "300ms"], b"");
        (said.code != Some(0)).then(|| {
            said.failed(
                5,
                &[
                    "error[KFS-E031]: ",
                    "'/f' is being written by another client",
                    "300ms",
                ],
            );
        })
    });
    first
}

#[test]
fn who_appends_while_another_does_waits_for_it_and_comes_behind() {
    let cluster = Cluster::new();
    let mut bytes = part(1, 10_000);
    cluster.store("/f", &bytes);
    let (first, mut first_in) = holding(&cluster);
    let (mut second, mut second_in) = appending(&cluster);
    second_in.write_all(&part(3, 30_000)).unwrap();
    drop(second_in);
    first_in.write_all(&part(2, 20_000)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(second.try_wait().unwrap(), None, "it waits");
    drop(first_in);
    for child in [first, second] {
        let said = ended(child);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    bytes.extend(part(2, 20_000));
    bytes.extend(part(3, 30_000));
    is_there(&cluster, "/f", &bytes);
}

#[test]
fn an_append_that_is_stopped_lets_the_next_one_in_at_once() {
    let cluster = Cluster::new();
    for wanted in [Signal::INT, Signal::TERM] {
        cluster.store("/f", b"old");
        let (first, stdin) = holding(&cluster);
        kill_process(Pid::from_raw(first.id() as i32).unwrap(), wanted).unwrap();
        ended(first).failed(1, &["error: interrupted"]);
        drop(stdin);
        let said = cluster.feed(&["append", "-", "/f", "--timeout", "5s"], b" new");
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(cluster.ok(&["cat", "/f"]), "old new");
        cluster.ok(&["rm", "/f"]);
    }
}
