//! `fsck`: what is lost is found, and what is not is not called so.
use crate::cluster::{Cluster, content, wait};
use std::fs;
use std::path::PathBuf;

/// The chunk files of all chunkservers of which one has this content in its first block.
pub(crate) fn replicas(cluster: &Cluster, first: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for server in 0..cluster.chunkservers.len() {
        let chunks = cluster
            .dir
            .path()
            .join(format!("chunkserver-{server}/chunks"));
        for entry in fs::read_dir(chunks).unwrap() {
            let path = entry.unwrap().path();
            if fs::read(&path).unwrap()[16_384..].starts_with(first) {
                found.push(path);
            }
        }
    }
    found
}

pub(crate) fn kill(cluster: &Cluster, server: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cluster.chunkservers[server].kill());
}

/// Changes a bit in the second block of a chunk file.
pub(crate) fn flip(path: PathBuf) {
    let mut bytes = fs::read(&path).unwrap();
    bytes[16_384 + 70_000] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn files_that_are_whole_are_said_to_be_and_one_that_is_not_there_is_not_found() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/a/b"]);
    cluster.store("/a/b/f", &content(200_000));
    cluster.store("/a/empty", b"");
    let said = cluster.kfs(&["fsck"]);
    assert_eq!((said.code, said.out.len()), (Some(0), 0), "{said:?}");
    let whole = "2 files and 3 directories with 1 chunks: all as they should be";
    assert!(said.err.contains(whole), "{said:?}");
    let told = cluster.ok(&["fsck", "--verify-data", "--json", "/a", "/a/b/f"]);
    assert_eq!(
        told,
        "{\"files\":3,\"directories\":2,\"chunks\":2,\"degraded\":0,\"lost\":0,\"corrupt\":0,\"replicas_bad\":0,\"bytes_read\":1200000}\n"
    );
    let said = cluster.kfs(&["fsck", "/a/c", "/a/b"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(
        said.err.contains("/a/c") && said.err.contains("1 files"),
        "{said:?}"
    );
}

#[test]
fn a_server_that_is_away_leaves_files_degraded_and_all_of_them_leave_them_lost() {
    let cluster = Cluster::new();
    cluster.store("/f", &content(100_000));
    kill(&cluster, 0);
    let degraded = wait("one replica is away", || {
        let said = cluster.kfs(&["fsck"]);
        (!said.out.is_empty()).then_some(said)
    });
    assert_eq!(degraded.code, Some(0), "{degraded:?}");
    let line = String::from_utf8(degraded.out).unwrap();
    assert!(
        line.starts_with("/f: chunk 0 (") && line.ends_with("): 2 of 3 replicas can be read\n"),
        "{line}"
    );
    assert!(
        degraded.err.contains("nothing is lost; 1 chunks"),
        "{}",
        degraded.err
    );
    kill(&cluster, 1);
    kill(&cluster, 2);
    let lost = wait("all are away", || {
        let said = cluster.kfs(&["fsck", "--json"]);
        (said.code != Some(0)).then_some(said)
    });
    assert_eq!(lost.code, Some(6), "{lost:?}");
    let lines = String::from_utf8(lost.out).unwrap();
    assert!(
        lines.contains("\"path\":\"/f\",\"name\":\"f\",\"state\":\"lost\",\"index\":0,")
            && lines.contains("\"replicas\":0,\"wanted\":3}\n")
            && lines.contains("\"lost\":1,"),
        "{lines}"
    );
}

#[test]
fn a_file_of_which_every_replica_has_rotted_is_found_when_its_data_is_read_and_one_of_them_is_no_loss()
 {
    let cluster = Cluster::new();
    let (rotten, hurt) = (content(150_000), vec![7; 150_000]);
    cluster.store("/rotten", &rotten);
    cluster.store("/hurt", &hurt);
    let all = replicas(&cluster, &rotten[..1_000]);
    assert_eq!(all.len(), 3);
    all.into_iter().for_each(flip);
    flip(replicas(&cluster, &hurt[..1_000]).remove(0));
    let said = cluster.kfs(&["--timeout", "5s", "fsck", "--verify-data"]);
    assert_eq!(said.code, Some(6), "{said:?}");
    let lines = String::from_utf8(said.out).unwrap();
    assert!(lines.contains("/rotten: "), "{lines}");
    assert!(
        !lines
            .lines()
            .any(|line| line.starts_with("/hurt: chunk 0") && line.contains("lost")),
        "{lines}"
    );
}

#[test]
fn a_replica_that_has_rotted_is_found_behind_others_that_are_right_and_made_good() {
    let cluster = Cluster::new();
    let hurt = content(150_000);
    cluster.store("/hurt", &hurt);
    let bad = replicas(&cluster, &hurt[..1_000]).remove(0);
    flip(bad.clone());
    let said = cluster.kfs(&["fsck", "--verify-data"]);
    assert_eq!(said.code, Some(0), "nothing is lost: {said:?}");
    let lines = String::from_utf8(said.out).unwrap();
    let is_bad = |line: &&str| line.starts_with("/hurt: chunk 0 (") && line.contains("its sum is");
    assert_eq!(lines.lines().filter(is_bad).count(), 1, "{lines}");
    assert!(said.err.contains("1 of them bad"), "{}", said.err);
    assert!(said.err.contains(" of replicas read"), "{}", said.err);
    let whole = wait("it is made good", || {
        let said = cluster.kfs(&["fsck", "--verify-data", "--json"]);
        let lines = String::from_utf8(said.out).unwrap();
        lines
            .contains("\"replicas_bad\":0,\"bytes_read\":450000}")
            .then_some(lines)
    });
    assert!(whole.contains("\"degraded\":0,"), "{whole}");
}
