//! What a chunkserver had that is gone is copied to others; when it is back, nobody has one too many.
use crate::cluster::{Cluster, content, expect_content, put};
use crate::wait::until_async;

const CHUNK_BYTES: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_chunkserver_had_is_copied_and_trimmed_when_it_is_back() {
    let mut cluster = Cluster::start_with(4, &["--re-replicate-after", "2s"]);
    let kfs = cluster.client();
    // The last one has two chunks.
    let files: Vec<_> = [1, 70_000, 3_000_000, CHUNK_BYTES + 123_456]
        .into_iter()
        .enumerate()
        .map(|(nth, len)| (format!("/f{nth}"), content(nth as u64, len)))
        .collect();
    for (path, data) in &files {
        put(&kfs, path, data).await;
    }
    cluster.chunks[0].kill();
    cluster.servers_up(&kfs, 3).await;
    until_async("copies are made", async || {
        let status = kfs.status().await.ok()?;
        (status.chunks_under_replicated == 0).then_some(())
    })
    .await;
    // The three that are left have everything between them, three times.
    for (path, data) in &files {
        expect_content(&cluster.client(), path, data).await;
    }
    cluster.restart_chunk(0);
    cluster.servers_up(&kfs, 4).await;
    until_async("what is too much is gone", async || {
        let held: usize = (0..4).map(|n| cluster.chunk_files(n).len()).sum();
        (held == 3 * 5).then_some(())
    })
    .await;
    let status = kfs.status().await.unwrap();
    assert_eq!(status.chunks_under_replicated, 0);
    assert_eq!(status.chunks_unknown, 0);
    // A copy is read alone: two of three are gone for each file at least once.
    for gone in [[0, 1], [2, 3]] {
        for n in gone {
            cluster.chunks[n].kill();
        }
        for (path, data) in &files {
            expect_content(&cluster.client(), path, data).await;
        }
        for n in gone {
            cluster.restart_chunk(n);
        }
        cluster.servers_up(&kfs, 4).await;
    }
}
