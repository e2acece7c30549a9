//! Chunkservers die, stop and restart under a writer: it goes on, and what it wrote is there.
use crate::cluster::{Cluster, content, expect_content};
use bytes::Bytes;
use kfs_client::{CreateOptions, Kfs};

const MIB: usize = 1 << 20;

/// Writes a file of so many parts of 3 MiB and some pages, every other one synced; something happens behind each.
pub(crate) async fn write_while(
    kfs: &Kfs,
    (path, replication): (&str, u8),
    parts: usize,
    mut happens: impl AsyncFnMut(usize),
) -> Bytes {
    let part = 3 * MIB + 3 * 4_096;
    let data = content(7, parts * part);
    let options = CreateOptions {
        replication,
        ..CreateOptions::default()
    };
    let mut writer = kfs.create(path.as_bytes(), options).await.unwrap();
    for nth in 0..parts {
        writer
            .write(data.slice(nth * part..(nth + 1) * part))
            .await
            .unwrap();
        if nth % 2 == 1 {
            writer.sync().await.unwrap();
        }
        happens(nth).await;
    }
    writer.close().await.unwrap();
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_while_its_chunkservers_are_killed_one_after_another() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = write_while(&kfs, ("/f", 3), 6, async |nth| {
        cluster.chunks[nth % 3].kill();
        if nth > 0 {
            // Two are there at any time, and one of them has just come back.
            cluster.restart_chunk((nth - 1) % 3);
            cluster.servers_up(&kfs, 2).await;
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_when_all_its_chunkservers_were_killed_and_are_back() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = write_while(&kfs, ("/f", 3), 4, async |_| {
        for n in 0..3 {
            cluster.chunks[n].kill();
        }
        for n in 0..3 {
            cluster.restart_chunk(n);
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_of_two_replicas_goes_on_with_a_copy_when_one_is_gone_for_good() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let mut gone = None;
    let data = write_while(&kfs, ("/f", 2), 5, async |nth| {
        if nth != 1 {
            return;
        }
        let member = (0..3)
            .find(|n| !cluster.chunk_files(*n).is_empty())
            .unwrap();
        cluster.chunks[member].kill();
        gone = Some(member);
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
    let holds = |n: &usize| Some(*n) != gone && !cluster.chunk_files(*n).is_empty();
    assert_eq!(
        (0..3).filter(holds).count(),
        2,
        "both that are left have it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunkserver_that_is_stopped_in_order_holds_no_writer_up() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = write_while(&kfs, ("/f", 3), 4, async |nth| {
        if nth == 1 {
            cluster.chunks[0].terminate();
            assert_eq!(cluster.chunks[0].ended().code, Some(0));
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_when_the_meta_server_is_killed_with_a_chunkserver() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = write_while(&kfs, ("/f", 3), 4, async |nth| {
        if nth == 1 {
            cluster.chunks[1].kill();
            cluster.meta.kill();
            cluster.restart_meta();
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
}
