//! A process that does nothing for a while, and then goes on where it was: what it believed is over.
use crate::cluster::{Cluster, content, expect_content, put};
use crate::written::write_while;
use core::time::Duration;

/// Longer than a lease, and than the meta server waits for who is silent.
const FROZEN: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_while_each_member_of_its_chain_is_frozen_in_turn() {
    let cluster = Cluster::start(4);
    let kfs = cluster.client();
    let before = content(1, 3_000_000);
    put(&kfs, "/before", &before).await;
    let data = write_while(&kfs, ("/f", 3), 8, async |nth| {
        if let Some(chunk) = cluster.chunks.get(nth) {
            chunk.freeze();
        }
        if let Some(chunk) = nth.checked_sub(1).and_then(|nth| cluster.chunks.get(nth)) {
            chunk.thaw();
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
    expect_content(&cluster.client(), "/before", &before).await;
    // Nor is what the ones that were left out have taken for the file.
    for n in 0..4 {
        let others: Vec<usize> = (0..4).filter(|other| *other != n).collect();
        for other in &others[..2] {
            cluster.chunks[*other].freeze();
        }
        expect_content(&cluster.client(), "/f", &data).await;
        for other in &others[..2] {
            cluster.chunks[*other].thaw();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_when_its_meta_server_was_frozen_for_longer_than_any_lease() {
    let cluster = Cluster::start(3);
    let kfs = cluster.client();
    let before = content(1, 3_000_000);
    put(&kfs, "/before", &before).await;
    let data = write_while(&kfs, ("/f", 3), 4, async |nth| {
        if nth == 1 {
            cluster.meta.freeze();
            tokio::time::sleep(FROZEN).await;
            cluster.meta.thaw();
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
    expect_content(&cluster.client(), "/before", &before).await;
}
