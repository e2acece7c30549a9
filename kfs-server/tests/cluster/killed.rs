//! Whatever is killed, what was acknowledged is there.
use crate::cluster::{Cluster, content, expect_content, get, put};
use bytes::Bytes;
use core::time::Duration;
use kfs_client::{CreateOptions, Kfs, Options, Ownership, Parents, RenameMode, Status};

const OWNER: Ownership = Ownership {
    uid: 7,
    gid: 8,
    mode: 0o750,
};
const CHUNK_BYTES: usize = 64 << 20;

pub(crate) fn everybody_killed_and_started(cluster: &mut Cluster) {
    cluster.meta.kill();
    for chunk in &mut cluster.chunks {
        chunk.kill();
    }
    // The chunkservers come first and wait for the meta server.
    for n in 0..cluster.chunks.len() {
        cluster.spawn_chunk(n);
    }
    cluster.restart_meta();
    cluster.chunks_ready = cluster.chunks.iter().map(|chunk| chunk.ready()).collect();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_several_chunks_comes_back_as_it_went() {
    let cluster = Cluster::start(3);
    let kfs = cluster.client();
    let big = content(1, CHUNK_BYTES + (3 << 20) + 12_345);
    put(&kfs, "/big", &big).await;
    for (path, len) in [
        ("/empty", 0),
        ("/one", 1),
        ("/block", 65_536),
        ("/block-and-one", 65_537),
    ] {
        put(&kfs, path, &content(2, len)).await;
        expect_content(&kfs, path, &content(2, len)).await;
    }
    expect_content(&cluster.client(), "/big", &big).await;
    let file = kfs.stat(b"/big").await.unwrap().file;
    for n in 0..3 {
        let prefix = format!("{file}.");
        let chunks = cluster
            .chunk_files(n)
            .into_keys()
            .filter(|name| name.starts_with(&prefix))
            .count();
        assert_eq!(chunks, 2, "chunkserver {n} has both chunks of the file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meta_server_killed_right_after_an_ack_has_lost_nothing() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = |round| content(round, 300_000);
    for round in 0..4_u64 {
        let (dir, tmp, done) = (
            format!("/d{round}/e"),
            format!("/tmp{round}"),
            format!("/d{round}/e/done"),
        );
        kfs.mkdir(dir.as_bytes(), Parents::Make, OWNER)
            .await
            .unwrap();
        put(&kfs, &tmp, &data(round)).await;
        kfs.rename(tmp.as_bytes(), done.as_bytes(), RenameMode::Replace)
            .await
            .unwrap();
        cluster.meta.kill();
        cluster.restart_meta();
        assert_eq!(cluster.meta_ready.mode, None);
        let fresh = cluster.client();
        for earlier in 0..=round {
            expect_content(&fresh, &format!("/d{earlier}/e/done"), &data(earlier)).await;
            let attrs = fresh
                .stat(format!("/d{earlier}/e").as_bytes())
                .await
                .unwrap();
            assert_eq!((attrs.uid, attrs.gid, attrs.mode), (7, 8, 0o750));
            assert_eq!(
                fresh
                    .stat(format!("/tmp{earlier}").as_bytes())
                    .await
                    .unwrap_err()
                    .status,
                Status::NotFound
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_fall_over_from_dead_chunkservers_and_back_to_restarted_ones() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(3, 5_000_000);
    put(&kfs, "/f", &data).await;
    cluster.chunks[0].kill();
    expect_content(&kfs, "/f", &data).await;
    cluster.chunks[1].kill();
    expect_content(&kfs, "/f", &data).await;
    cluster.restart_chunk(0);
    cluster.chunks[2].kill();
    expect_content(&kfs, "/f", &data).await;
    expect_content(&cluster.client(), "/f", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_killed_and_started_again_is_as_it_was() {
    let mut cluster = Cluster::start(3);
    let data = content(4, 2_500_000);
    {
        let kfs = cluster.client();
        kfs.mkdir(b"/dir", Parents::MustExist, OWNER).await.unwrap();
        put(&kfs, "/dir/f", &data).await;
    }
    for round in 0..2_u64 {
        everybody_killed_and_started(&mut cluster);
        let kfs = cluster.client();
        expect_content(&kfs, "/dir/f", &data).await;
        let more = format!("/dir/more{round}");
        put(&kfs, &more, &content(5 + round, 70_000)).await;
        expect_content(&kfs, &more, &content(5 + round, 70_000)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_too_few_servers_are_left_for_is_told_and_nothing_else_is_touched() {
    let mut cluster = Cluster::start(3);
    let mut options = Options::new(cluster.meta_addr());
    options.timeout = Duration::from_secs(3);
    let kfs = Kfs::connect(options);
    let data = content(6, 1_000_000);
    put(&kfs, "/first", &data).await;
    let mut writer = kfs
        .create(b"/second", CreateOptions::default())
        .await
        .unwrap();
    writer.write(content(7, 98_304)).await.unwrap();
    writer.sync().await.unwrap();
    cluster.chunks[1].kill();
    cluster.chunks[2].kill();
    let piece = content(8, 1 << 20);
    let mut outcome = Ok(());
    for _ in 0..8 {
        outcome = outcome.and(writer.write(piece.clone()).await);
    }
    let closed = writer.close().await;
    let err = outcome.and(closed).unwrap_err();
    assert_eq!(err.status, Status::ChainBroken, "{err}");
    assert!(!err.what.is_empty());
    expect_content(&kfs, "/first", &data).await;
    // What was synced before is there, and nothing that was not.
    let second = get(&kfs, "/second").await.unwrap();
    assert_eq!(Bytes::from(second), content(7, 98_304));
    // The next file goes to the servers that are there.
    cluster.restart_chunk(1);
    cluster.servers_up(&kfs, 2).await;
    put(&kfs, "/third", &data).await;
    expect_content(&kfs, "/third", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_synced_after_every_record_goes_on_over_kills_of_everybody() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let record = |nth: u64| content(nth, 40 + usize::try_from(nth * 37 % 300).unwrap());
    let mut log = kfs.create(b"/log", CreateOptions::default()).await.unwrap();
    let mut written = Vec::new();
    for nth in 0..90 {
        written.extend_from_slice(&record(nth));
        log.write(record(nth)).await.unwrap();
        log.sync().await.unwrap();
        if nth % 9 == 0 {
            let read = get(&kfs, "/log").await.unwrap();
            assert!(read == written, "after record {nth}");
        }
        match nth {
            25 => {
                cluster.chunks[1].kill();
                cluster.restart_chunk(1);
            }
            50 => {
                everybody_killed_and_started(&mut cluster);
                let read = get(&cluster.client(), "/log").await.unwrap();
                assert!(read == written, "after everybody was killed");
            }
            _ => {}
        }
    }
    log.close().await.unwrap();
    for n in 0..3 {
        // Each replica by itself.
        for other in (0..3).filter(|other| *other != n) {
            cluster.chunks[other].kill();
        }
        let read = get(&cluster.client(), "/log").await.unwrap();
        assert!(read == written, "from chunkserver {n}");
        for other in (0..3).filter(|other| *other != n) {
            cluster.restart_chunk(other);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_told_to_stop_end_cleanly_and_start_again() {
    let mut cluster = Cluster::start(3);
    let data = content(9, 200_000);
    put(&cluster.client(), "/f", &data).await;
    cluster.meta.terminate();
    assert_eq!(cluster.meta.ended().code, Some(0));
    for chunk in &mut cluster.chunks {
        chunk.terminate();
        assert_eq!(chunk.ended().code, Some(0));
    }
    cluster.restart_meta();
    for n in 0..3 {
        cluster.restart_chunk(n);
    }
    expect_content(&cluster.client(), "/f", &data).await;
}
