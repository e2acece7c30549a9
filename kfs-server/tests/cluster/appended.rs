//! A file is written further by one client after another, and whoever is killed in between, it is whole.
use crate::cluster::{Cluster, content, expect_content, put};
use crate::killed::everybody_killed_and_started;
use crate::wait::{until, until_async};
use bytes::Bytes;
use core::time::Duration;
use kfs_client::{CreateOptions, Kfs, Options, Status};

/// Adds bytes; when this returns, they are durable on all replicas.
async fn append(kfs: &Kfs, path: &str, (begin, more): (usize, Bytes)) {
    let mut writer = kfs.append(path.as_bytes()).await.unwrap();
    assert_eq!(writer.written(), begin as u64, "where {path} ends");
    writer.write(more).await.unwrap();
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_appended_before_everybody_was_killed_is_there_and_is_appended_to() {
    let mut cluster = Cluster::start(3);
    let all = content(1, 400_000);
    put(&cluster.client(), "/f", &all.slice(..100_000)).await;
    // Within a block, across several, and to the edge of one.
    let ends = [100_000, 120_001, 300_000, 327_680, 400_000];
    for ends in ends.windows(2) {
        let more = all.slice(ends[0]..ends[1]);
        append(&cluster.client(), "/f", (ends[0], more)).await;
        everybody_killed_and_started(&mut cluster);
        expect_content(&cluster.client(), "/f", &all.slice(..ends[1])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunkservers_that_are_killed_one_after_another_miss_appends_and_serve_no_old_end() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let all = content(2, 500_000);
    put(&kfs, "/f", &all.slice(..100_000)).await;
    for nth in 0..4 {
        // Two are there at any time, and one of them has just come back with less.
        cluster.chunks[nth % 3].kill();
        if nth > 0 {
            cluster.restart_chunk((nth - 1) % 3);
        }
        cluster.servers_up(&kfs, 2).await;
        let begin = (nth + 1) * 100_000;
        append(&kfs, "/f", (begin, all.slice(begin..begin + 100_000))).await;
        expect_content(&kfs, "/f", &all.slice(..begin + 100_000)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_file_reads_on_while_it_is_appended_to_and_one_client_writes_it_once_at_a_time()
{
    let cluster = Cluster::start(3);
    let kfs = cluster.client();
    let all = content(3, 200_000);
    put(&kfs, "/f", &all.slice(..150_000)).await;
    let reader = kfs.open(b"/f").await.unwrap();
    let read = async || {
        let got = reader.read_at(140_000, 20_000).await.unwrap();
        got.parts.concat()
    };
    let mut writer = kfs.append(b"/f").await.unwrap();
    let refused = kfs.append(b"/f").await.unwrap_err();
    assert_eq!(refused.status, Status::BadRequest, "{refused}");
    assert_eq!(read().await, all[140_000..150_000], "taken over");
    writer.write(all.slice(150_000..)).await.unwrap();
    writer.sync().await.unwrap();
    expect_content(&kfs, "/f", &all).await;
    assert_eq!(read().await, all[140_000..150_000], "written further");
    // Who lets go of it without a word has it no more.
    drop(writer);
    let mut writer = kfs.append(b"/f").await.unwrap();
    assert_eq!(writer.written(), 200_000);
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(kfs.stat(b"/f").await.unwrap().size, 200_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_given_up_is_not_taken_for_what_it_writes_next() {
    let mut cluster = Cluster::start(3);
    let timeout = Duration::from_secs(1);
    let kfs = Kfs::connect(Options {
        timeout,
        ..Options::new(cluster.meta_addr())
    });
    let given_up = content(4, 3 << 20);
    let mut writer = kfs.create(b"/f", CreateOptions::default()).await.unwrap();
    // Its pieces are on the chunkservers, and no size rests on them.
    writer.write(given_up).await.unwrap();
    until("the pieces are there", || {
        let is_there = |n: usize| {
            cluster
                .chunk_files(n)
                .values()
                .any(|file| file.len() > 1 << 20)
        };
        (0..3).all(is_there).then_some(())
    });
    cluster.meta.kill();
    writer.abandon().await.unwrap();
    // Nobody hears in time that the file was let go of.
    tokio::time::sleep(2 * timeout).await;
    cluster.restart_meta();
    let all = content(5, 200_000);
    let appended = until_async("the file can be opened", async || {
        kfs.append(b"/f").await.ok()
    });
    let mut writer = appended.await;
    assert_eq!(writer.written(), 0);
    writer.write(all.clone()).await.unwrap();
    writer.close().await.unwrap();
    expect_content(&cluster.client(), "/f", &all).await;
}
