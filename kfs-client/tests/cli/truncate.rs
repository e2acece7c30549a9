//! `truncate`: what is cut off is never seen again, and what a file is longer by is zeros, whoever dies in between.
use crate::cluster::{Cluster, content, run, text};
use crate::fsck::kill;
use std::process::Command;

const BLOCK: usize = 65_536;
const MIB: usize = 1 << 20;

/// A file of this path, as it was cut and added to.
struct File<'a> {
    cluster: &'a Cluster,
    bytes: Vec<u8>,
}

impl<'a> File<'a> {
    fn new(cluster: &'a Cluster, len: usize) -> Self {
        let bytes = content(len);
        cluster.store("/f", &bytes);
        Self { cluster, bytes }
    }
    #[track_caller]
    fn set(&mut self, len: usize) {
        let size = len.to_string();
        assert_eq!(self.cluster.ok(&["truncate", "-s", &size, "/f"]), "");
        self.bytes.resize(len, 0);
    }
    #[track_caller]
    fn add(&mut self, len: usize) {
        let salt = u8::try_from(self.bytes.len() % 251).unwrap();
        let more: Vec<u8> = content(len).into_iter().map(|byte| byte ^ salt).collect();
        let said = self.cluster.feed(&["append", "-", "/f"], &more);
        assert_eq!(said.code, Some(0), "{said:?}");
        self.bytes.extend(more);
    }
    #[track_caller]
    fn is_there(&self) {
        is_there(self.cluster, "/f", &self.bytes);
    }
}

#[track_caller]
fn is_there(cluster: &Cluster, path: &str, bytes: &[u8]) {
    let said = cluster.kfs(&["cat", path]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let differs = said.out.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!((said.out.len(), differs), (bytes.len(), None), "{path}");
}

#[test]
fn a_file_is_cut_made_longer_and_added_to_at_awkward_places() {
    let cluster = Cluster::new();
    let mut file = File::new(&cluster, 3 * BLOCK + 777);
    for (len, add) in [
        (2 * BLOCK + 100, 0),
        (2 * BLOCK + 5_000, 10),
        (2 * BLOCK + 4_090, 3),
        (BLOCK, 1),
        (BLOCK + 70_000, 0),
        (BLOCK + 1, 9_000),
        (BLOCK + 1, 0),
        (4_096, 5_000),
        (1, BLOCK),
        (0, 0),
        (300, 300),
        (0, 2 * BLOCK),
    ] {
        file.set(len);
        file.is_there();
        if add > 0 {
            file.add(add);
            file.is_there();
        }
    }
}

#[test]
fn what_was_cut_off_stays_away_when_everybody_is_killed() {
    let mut cluster = Cluster::new();
    let whole = content(3 * BLOCK);
    cluster.store("/f", &whole);
    cluster.ok(&["truncate", "-s", "70000", "/f"]);
    cluster.restart_all();
    cluster.ok(&["truncate", "-s", "200000", "/f"]);
    let mut due = whole[..70_000].to_vec();
    due.resize(200_000, 0);
    is_there(&cluster, "/f", &due);
    cluster.restart_all();
    is_there(&cluster, "/f", &due);
    let said = cluster.feed(&["append", "-", "/f"], b"behind");
    assert_eq!(said.code, Some(0), "{said:?}");
    due.extend(b"behind");
    is_there(&cluster, "/f", &due);
    cluster.restart_all();
    is_there(&cluster, "/f", &due);
    let checked = cluster.kfs(&["fsck", "--verify-data"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn a_server_that_was_away_when_a_file_was_cut_brings_nothing_back() {
    for away in 0..3 {
        let mut cluster = Cluster::new();
        let whole = content(2 * BLOCK);
        cluster.store("/f", &whole);
        kill(&cluster, away);
        cluster.ok(&["truncate", "-s", "1000", "/f"]);
        cluster.ok(&["truncate", "-s", "131072", "/f"]);
        let mut due = whole[..1_000].to_vec();
        due.resize(2 * BLOCK, 0);
        is_there(&cluster, "/f", &due);
        cluster.restart_all();
        for other in 0..3 {
            is_there(&cluster, "/f", &due);
            if other != away && other == (away + 1) % 3 {
                kill(&cluster, other);
            }
        }
        is_there(&cluster, "/f", &due);
    }
}

#[test]
fn a_file_that_ends_in_a_hole_is_read_checked_copied_and_written_on_like_others() {
    let cluster = Cluster::new();
    let mut file = File::new(&cluster, 100_000);
    file.set(65 * MIB + 5);
    let sum = |path: &str| {
        let said = cluster.ok(&["checksum", path]);
        said.split_whitespace().next().unwrap().to_owned()
    };
    let local = cluster.local("due", &file.bytes);
    let due = run(Command::new("sha256sum").arg(text(&local)));
    let due = String::from_utf8(due.out).unwrap();
    assert_eq!(due.split_whitespace().next().unwrap(), sum("/f"));
    cluster.ok(&["cp", "/f", "/g"]);
    assert_eq!(sum("/g"), sum("/f"));
    let said = cluster.kfs(&["fsck", "--verify-data", "/f"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("all as they should be"), "{said:?}");
    let taken = cluster.ok(&["du", "/f"]);
    assert!(taken.starts_with(&(65 * MIB + 5).to_string()), "{taken}");
    let said = cluster.ok(&["explain", "/f"]);
    assert!(said.contains("chunk 0"), "{said}");
    let tail = cluster.kfs(&["tail", "-c", "7", "/f"]);
    assert_eq!(tail.out, [0; 7]);
    file.add(10_000);
    file.is_there();
    file.set(100_000);
    file.is_there();
    file.set(MIB);
    file.is_there();
    let said = cluster.kfs(&["fsck", "--verify-data", "/f"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn what_cannot_be_cut_is_refused_and_the_others_are_cut() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/f", b"12345678");
    let said = cluster.kfs(&["truncate", "-s", "3", "/nobody", "/d", "/f"]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(
        said.err.contains("/nobody") && said.err.contains("/d"),
        "{said:?}"
    );
    assert_eq!(cluster.kfs(&["cat", "/f"]).out, b"123");
    assert_eq!(
        cluster.kfs(&["truncate", "-s", "3", "/nobody"]).code,
        Some(3)
    );
    for size in ["-1", "x", "9EiB", "9999999999999999999999"] {
        let size = format!("--size={size}");
        assert_eq!(
            cluster.kfs(&["truncate", &size, "/f"]).code,
            Some(2),
            "{size}"
        );
    }
    let said = cluster.kfs(&["truncate", "-s", "9000000000000000000", "/f"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("at most"), "{said:?}");
    assert_eq!(cluster.kfs(&["truncate", "/f"]).code, Some(2), "how long?");
    let did = cluster.ok(&["--json", "truncate", "-s", "1KiB", "/f"]);
    assert_eq!(did.lines().count(), 1, "{did}");
    assert!(did.contains("\"did\":\"truncated\""), "{did}");
    assert_eq!(cluster.kfs(&["cat", "/f"]).out.len(), 1_024);
}
