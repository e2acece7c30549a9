//! A chunkserver that was away while files were removed throws away their chunks, and nothing else.
use crate::chunk_file;
use crate::cluster::{Cluster, content, expect_content, put};
use crate::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_chunks_go_to_the_trash_and_no_other_file_is_touched() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let kept = content(1, 400_000);
    put(&kfs, "/kept", &kept).await;
    put(&kfs, "/gone", &content(2, 300_000)).await;
    let gone = format!("{}.", kfs.stat(b"/gone").await.unwrap().file);
    cluster.chunks[0].kill();
    kfs.remove(b"/gone").await.unwrap();

    // Beside its own chunks: garbage with a chunk's name, no chunk at all, a chunk whose header names
    // another, and a whole one from a meta server that this log does not know.
    let dir = cluster.chunk_dir(0).join("chunks");
    let before = cluster.chunk_files(0);
    let kept_name = before
        .keys()
        .find(|name| !name.starts_with(&gone))
        .unwrap()
        .clone();
    std::fs::write(dir.join("99.98.97"), b"not a chunk").unwrap();
    std::fs::write(dir.join("notes.txt"), b"left by somebody").unwrap();
    std::fs::write(dir.join("02.5.1"), b"a leading zero").unwrap();
    std::fs::write(dir.join("12.13.14"), &before[&kept_name]).unwrap();
    let foreign = chunk_file::of_a_stranger(&before[&kept_name]);
    std::fs::write(dir.join(&foreign.0), &foreign.1).unwrap();
    let mut expected = cluster.chunk_files(0);
    expected.retain(|name, _| !name.starts_with(&gone));
    assert_eq!(expected.len(), before.len() - 1 + 5);

    cluster.restart_chunk(0);
    until("the chunk of the removed file is in the trash", || {
        let trash = cluster.trash_files(0);
        (trash.len() == 1 && cluster.chunk_files(0).len() == expected.len()).then_some(())
    });
    let trash = cluster.trash_files(0);
    let (name, bytes) = trash.first_key_value().unwrap();
    assert!(name.starts_with(&gone), "{name}");
    assert_eq!(
        *bytes,
        before[before.keys().find(|name| name.starts_with(&gone)).unwrap()]
    );
    assert!(
        cluster.chunk_files(0) == expected,
        "no other file is touched"
    );
    cluster.servers_up(&kfs, 3).await;
    let status = kfs.status().await.unwrap();
    assert!(
        status.chunks_unknown >= 3,
        "what is not known is reported: {}",
        status.chunks_unknown
    );

    // The servers that were there heard of it at once.
    for n in 1..3 {
        until("the others throw it away, too", || {
            (cluster.trash_files(n).len() == 1).then_some(())
        });
        assert_eq!(cluster.chunk_files(n).len(), 1);
    }
    // And once more: nothing that was left is thrown away at a later start.
    cluster.chunks[0].kill();
    cluster.restart_chunk(0);
    assert!(
        cluster.chunk_files(0) == expected,
        "no other file is touched"
    );
    cluster.chunks[1].kill();
    cluster.chunks[2].kill();
    expect_content(&kfs, "/kept", &kept).await;
}
