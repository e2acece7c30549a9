//! Flipped bits and cut files: right bytes from elsewhere, or a refusal that says what and where.
use crate::cluster::{Cluster, content, expect_content, files_in, get, put, whole};
use crate::daemon::{Daemon, META, run};
use crate::wait::until_async;
use kfs_client::{Kfs, Status};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const HEADER_BYTES: u64 = 16_384;
const BATCH_BYTES: u64 = 4_096;

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn only_chunk(cluster: &Cluster, n: usize) -> PathBuf {
    let files = cluster.chunk_files(n);
    assert_eq!(files.len(), 1);
    cluster
        .chunk_dir(n)
        .join("chunks")
        .join(files.first_key_value().unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_chunk_is_never_read() {
    let cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(1, 700_000);
    put(&kfs, "/f", &data).await;
    // Every block is damaged on two servers of three: whoever is asked first may not be able to answer.
    for block in 0..data.len() as u64 / 65_536 {
        for n in [0, 2] {
            flip(
                &only_chunk(&cluster, n),
                HEADER_BYTES + block * 65_536 + 77 * block + 5,
            );
        }
    }
    expect_content(&kfs, "/f", &data).await;
    // A reader draws whom it asks first, and may draw the good one: others read until one met the damage.
    until_async("the damage is counted", async || {
        expect_content(&cluster.client(), "/f", &data).await;
        mended_or_damaged(&kfs).await
    })
    .await;
    // Damaged on all of them: an error, and never the bytes.
    let cluster = Cluster::start(3);
    put(&cluster.client(), "/f", &data).await;
    for n in 0..3 {
        flip(&only_chunk(&cluster, n), HEADER_BYTES + 9);
    }
    let err = get(&cluster.client(), "/f").await.unwrap_err();
    assert_eq!(err.status, Status::Corrupt, "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_that_nobody_reads_is_found_and_made_good() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(3, 300_000);
    put(&kfs, "/f", &data).await;
    cluster.chunks[0].kill();
    let chunk = only_chunk(&cluster, 0);
    let before = std::fs::read(&chunk).unwrap();
    let offset = HEADER_BYTES + 4 * 65_536 + 1_000;
    flip(&chunk, offset);
    cluster.restart_chunk(0);
    cluster.servers_up(&kfs, 3).await;
    until_async("it is made good", async || {
        let status = kfs.status().await.ok()?;
        let whole = status.replicas_damaged == 0 && status.chunks_under_replicated == 0;
        (whole && status.replication_work.copied == 1).then_some(())
    })
    .await;
    let at = usize::try_from(offset).unwrap();
    assert_eq!(std::fs::read(&chunk).unwrap()[at], before[at]);
    for n in [1, 2] {
        cluster.chunks[n].kill();
    }
    expect_content(&cluster.client(), "/f", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_header_costs_one_replica_and_no_byte() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(2, 100_000);
    put(&kfs, "/f", &data).await;
    cluster.chunks[0].kill();
    let chunk = only_chunk(&cluster, 0);
    flip(&chunk, 60);
    flip(&chunk, 8_192 + 60);
    cluster.restart_chunk(0);
    cluster.servers_up(&kfs, 3).await;
    until_async("the damaged replica is counted", async || {
        mended_or_damaged(&kfs).await
    })
    .await;
    assert!(
        chunk.exists(),
        "it is left where it is until it is replaced"
    );
    expect_content(&cluster.client(), "/f", &data).await;
    // It is made anew from the others, and serves alone then.
    until_async("the replica is made anew", async || {
        let status = kfs.status().await.ok()?;
        let whole = status.replicas_damaged == 0 && status.chunks_under_replicated == 0;
        (whole && status.replication_work.copied == 1).then_some(())
    })
    .await;
    cluster.chunks[1].kill();
    cluster.chunks[2].kill();
    expect_content(&cluster.client(), "/f", &data).await;
}

/// What is done to a chunk file while its server is down; the other directory is of a server without a replica.
type Spoils = fn(chunk: &Path, other: &Path);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_file_that_somebody_has_changed_is_made_good_from_the_others() {
    let spoils: [(&str, Spoils); 6] = [
        ("cut short", |chunk, _| {
            set_len(chunk, HEADER_BYTES + 100_000)
        }),
        ("emptied", |chunk, _| set_len(chunk, 0)),
        ("without a header", |chunk, _| {
            let file = OpenOptions::new().write(true).open(chunk).unwrap();
            file.write_all_at(&vec![0; usize::try_from(HEADER_BYTES).unwrap()], 0)
                .unwrap();
        }),
        ("of another version", |chunk, _| {
            let name = chunk.file_name().unwrap().to_str().unwrap();
            let (chunk_name, version) = name.rsplit_once('.').unwrap();
            let version = version.parse::<u64>().unwrap() + 1;
            std::fs::rename(
                chunk,
                chunk.with_file_name(format!("{chunk_name}.{version}")),
            )
            .unwrap();
        }),
        ("given to another server", |chunk, other| {
            std::fs::copy(chunk, other.join(chunk.file_name().unwrap())).unwrap();
            std::fs::remove_file(chunk).unwrap();
        }),
        ("removed", |chunk, _| std::fs::remove_file(chunk).unwrap()),
    ];
    let data = content(3, 300_000);
    for (what, spoil) in spoils {
        eprintln!("a chunk file {what}");
        let mut cluster = Cluster::start_with(4, &["--re-replicate-after", "1s"]);
        let kfs = cluster.client();
        put(&kfs, "/f", &data).await;
        let has = |n: &usize| !cluster.chunk_files(*n).is_empty();
        let (holders, others): (Vec<usize>, Vec<usize>) = (0..4).partition(has);
        let (spoilt, other) = (holders[0], others[0]);
        let (chunk, other_dir) = (
            only_chunk(&cluster, spoilt),
            cluster.chunk_dir(other).join("chunks"),
        );
        for n in [spoilt, other] {
            cluster.chunks[n].kill();
        }
        spoil(&chunk, &other_dir);
        for n in [spoilt, other] {
            cluster.restart_chunk(n);
        }
        cluster.servers_up(&kfs, 4).await;
        expect_content(&cluster.client(), "/f", &data).await;
        whole(&kfs).await;
        // Two of those that had it before are as good as gone: the third one is new, or mended.
        for n in &holders[1..] {
            cluster.chunks[*n].kill();
        }
        expect_content(&cluster.client(), "/f", &data).await;
    }
}

fn set_len(path: &Path, len: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

/// Damage was counted; or it was, and is mended already.
async fn mended_or_damaged(kfs: &Kfs) -> Option<()> {
    let status = kfs.status().await.ok()?;
    (status.replicas_damaged + status.replication_work.copied > 0).then_some(())
}

/// The data directory of a meta server that made a few directories, each in a batch of its own, and was killed.
async fn meta_with_a_log() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(0);
    let kfs = cluster.client();
    let owner = kfs_client::Ownership {
        uid: 0,
        gid: 0,
        mode: 0o755,
    };
    for n in 0..8 {
        let path = format!("/dir{n}");
        kfs.mkdir(path.as_bytes(), kfs_client::Parents::MustExist, owner)
            .await
            .unwrap();
    }
    cluster.meta.kill();
    let log = cluster.meta_dir().join("log");
    (cluster, log)
}

/// The log's segments in order of their first sequence number.
fn segments(log: &Path) -> Vec<PathBuf> {
    let names = files_in(log).into_keys();
    let mut segments: Vec<(u64, String)> = names
        .filter_map(|name| Some((name.strip_prefix("log.")?.parse().ok()?, name)))
        .collect();
    segments.sort();
    segments
        .into_iter()
        .map(|(_, name)| log.join(name))
        .collect()
}

fn meta_args(dir: &Path) -> [&str; 6] {
    [
        "--data",
        dir.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_middle_of_the_log_is_refused_with_file_and_offset() {
    let (cluster, log) = meta_with_a_log().await;
    let segment = segments(&log)[0].clone();
    let name = segment.file_name().unwrap().to_str().unwrap();
    for offset in [BATCH_BYTES + 8, BATCH_BYTES + 90, 2 * BATCH_BYTES - 1] {
        flip(&segment, offset);
        let before = files_in(&log);
        let ended = run(META, &meta_args(&cluster.meta_dir()), cluster.dir.path());
        ended.expect(6, "KFS-E061", &[name, "4096", "help: "]);
        assert!(
            files_in(&log) == before,
            "nothing is changed in a log that is refused"
        );
        flip(&segment, offset);
    }
    let meta = Daemon::spawn(
        META,
        &meta_args(&cluster.meta_dir()),
        &cluster.dir.path().join("again"),
    );
    assert_eq!(meta.ready().mode, None, "undone, it is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_cut_in_its_last_batch_starts_without_it() {
    let (cluster, log) = meta_with_a_log().await;
    let segment = segments(&log).pop().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let last = (end as u64 - 1) / BATCH_BYTES * BATCH_BYTES;
    for cut in [
        last,
        last + 1,
        last + 40,
        last + 4_000,
        last + BATCH_BYTES - 1,
    ] {
        let copy = tempfile::tempdir_in(cluster.dir.path()).unwrap();
        copy_dir(&cluster.meta_dir(), copy.path());
        let cut_segment = copy.path().join("log").join(segment.file_name().unwrap());
        OpenOptions::new()
            .write(true)
            .open(cut_segment)
            .unwrap()
            .set_len(cut)
            .unwrap();
        let mut meta = Daemon::spawn(
            META,
            &meta_args(copy.path()),
            &cluster.dir.path().join("cut"),
        );
        meta.ready();
        meta.kill();
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
