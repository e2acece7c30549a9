//! Several servers in one process: each on its own thread, stopped and killed one by one.
use crate::cluster::{content, expect_content, put};
use kfs_client::{Kfs, Options};
use kfs_server::error::Code;
use kfs_server::{ChunkConfig, ChunkServer, Exit, MetaConfig, MetaServer, Phase};
use std::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_in_one_process_are_stopped_and_killed_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let meta = MetaServer::start(MetaConfig::embedded(dir.path().join("meta"))).unwrap();
    meta.ready().await.unwrap();
    let start = |n: usize| {
        let data = dir.path().join(format!("chunk{n}"));
        ChunkServer::start(ChunkConfig::embedded(data, meta.listen)).unwrap()
    };
    let chunks: Vec<_> = (0..3).map(start).collect();
    for chunk in &chunks {
        chunk.ready().await.unwrap();
        assert!(
            chunk.status().status.is_some(),
            "a phase comes with a status"
        );
    }
    assert!(matches!(meta.status().phase, Phase::Ready { .. }));
    let kfs = Kfs::connect(Options::new(meta.listen));
    let data = content(1, 200_000);
    put(&kfs, "/f", &data).await;

    // The directory of a server that runs is taken, in this process too.
    let again = ChunkServer::start(ChunkConfig::embedded(chunks[0].data(), meta.listen));
    assert_eq!(again.unwrap_err().code, Code::DataInUse);

    assert_eq!(chunks[0].stop().await, Exit::Stopped);
    assert_eq!(chunks[1].kill().await, Exit::Killed);
    for chunk in &chunks[..2] {
        assert!(
            TcpStream::connect(chunk.listen).is_err(),
            "its port refuses"
        );
        assert!(
            TcpStream::connect(chunk.http.unwrap()).is_err(),
            "so does that of its pages"
        );
        assert_eq!(
            chunk.stop().await,
            chunk.wait().await,
            "stopping it again changes nothing"
        );
    }
    expect_content(&kfs, "/f", &data).await;
    let back = start(0);
    back.ready().await.unwrap();
    drop(chunks);
    expect_content(&kfs, "/f", &data).await;
    assert_eq!(meta.stop().await, Exit::Stopped);

    // Where no meta server is, a server waits, and can be told to stop all the same.
    let waiting = start(1);
    assert_eq!(waiting.stop().await, Exit::Stopped);
    assert_eq!(waiting.ready().await, Err(Exit::Stopped));
}
