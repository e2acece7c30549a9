//! What was removed: chunkservers that were away throw away its chunks, and nothing else; who has it open reads on.
use crate::chunk_file;
use crate::cluster::{Cluster, content, expect_content, put};
use crate::wait::{until, until_async};
use kfs_client::{CreateOptions, Ownership, Parents, Reader, RenameMode, Status};

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

async fn read_whole(reader: &Reader) -> Vec<u8> {
    let mut stream = reader.stream(0, reader.attrs().size);
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        for part in bytes.unwrap().parts {
            all.extend_from_slice(&part);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_while_it_is_open_is_read_on_until_it_is_closed() {
    let cluster = Cluster::start(3);
    let (kfs, other) = (cluster.client(), cluster.client());
    let data = content(1, 300_000);
    put(&kfs, "/removed", &data).await;
    put(&kfs, "/replaced", &data).await;
    put(&kfs, "/new", &content(2, 1_000)).await;
    let removed = kfs.open(b"/removed").await.unwrap();
    let replaced = kfs.open(b"/replaced").await.unwrap();
    let written = kfs.create(b"/written", CreateOptions::default());
    let mut written = written.await.unwrap();
    other.remove(b"/removed").await.unwrap();
    other
        .rename(b"/new", b"/replaced", RenameMode::Replace)
        .await
        .unwrap();
    other.remove(b"/written").await.unwrap();
    let gone = kfs.open(b"/removed").await.unwrap_err();
    assert_eq!(gone.status, Status::NotFound);
    for _ in 0..2 {
        assert!(read_whole(&removed).await == data);
        assert!(read_whole(&replaced).await == data);
    }
    written.write(content(3, 100_000)).await.unwrap();
    written.sync().await.unwrap();
    let reclaim = *other.status().await.unwrap().reclaim;
    assert_eq!(reclaim.files, 3);
    assert!(cluster.trash_files(0).is_empty());
    written.close().await.unwrap();
    drop(removed);
    drop(replaced);
    until_async("what was open is reclaimed", async || {
        let reclaim = *kfs.status().await.unwrap().reclaim;
        (reclaim.files == 0).then_some(())
    })
    .await;
    until("its chunks are in the trash", || {
        (cluster.trash_files(0).len() == 3).then_some(())
    });
    expect_content(&other, "/replaced", &content(2, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_while_it_is_open_is_read_on_after_the_meta_server_was_killed() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(1, 300_000);
    let owner = Ownership {
        uid: 1,
        gid: 1,
        mode: 0o755,
    };
    kfs.mkdir(b"/tree/in", Parents::Make, owner).await.unwrap();
    put(&kfs, "/removed", &data).await;
    put(&kfs, "/tree/in/file", &data).await;
    let removed = kfs.open(b"/removed").await.unwrap();
    let below = kfs.open(b"/tree/in/file").await.unwrap();
    kfs.remove(b"/removed").await.unwrap();
    kfs.remove_tree(b"/tree").await.unwrap();
    cluster.meta.kill();
    cluster.restart_meta();
    cluster.servers_up(&kfs, 3).await;
    for path in [&b"/removed"[..], b"/tree", b"/tree/in/file"] {
        assert_eq!(kfs.stat(path).await.unwrap_err().status, Status::NotFound);
    }
    // Whoever has not asked where the chunks are before the restart asks now.
    assert!(read_whole(&removed).await == data);
    assert!(read_whole(&below).await == data);
    for n in 0..3 {
        cluster.chunks[n].kill();
        cluster.restart_chunk(n);
    }
    cluster.servers_up(&kfs, 3).await;
    assert!(read_whole(&removed).await == data);
    assert!(read_whole(&below).await == data);
    assert!((0..3).all(|n| cluster.trash_files(n).is_empty()));
}
