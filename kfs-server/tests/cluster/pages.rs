//! The pages of the daemons: what they say, and when.
use crate::cluster::{Cluster, content, expect_content, put};
use crate::daemon::{CHUNK, Daemon, http_get};
use crate::wait::until;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};

fn status(addr: SocketAddr) -> Value {
    let (code, body) = http_get(addr, "/status.json");
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_tell_what_the_cluster_does() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(1, 300_000);
    put(&kfs, "/f", &data).await;
    expect_content(&kfs, "/f", &data).await;
    let known = kfs.status().await.unwrap();

    let meta = cluster.meta_ready.http;
    assert_eq!(http_get(meta, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(http_get(meta, "/readyz"), (200, "ready\n".to_owned()));
    let shown = status(meta);
    assert_eq!(shown["role"], "meta");
    assert_eq!(shown["listen"], cluster.meta_addr().to_string());
    assert_eq!(shown["health"]["level"], "HEALTH_OK", "{shown}");
    let told = &shown["cluster"];
    assert_eq!(told["cluster"], known.cluster.to_string());
    assert_eq!(
        (told["files"].as_u64(), told["bytes"].as_u64()),
        (Some(1), Some(300_000))
    );
    assert_eq!(told["servers"].as_array().unwrap().len(), 3);
    assert!(told["log_durable"].as_u64().unwrap() >= known.log_durable.0);
    assert!(
        shown["messages"]["received"]["Mutate"].as_u64().unwrap() >= 3,
        "{shown}"
    );
    let (code, metrics) = http_get(meta, "/metrics");
    assert_eq!(code, 200);
    for line in [
        "kfs_files 1",
        "kfs_file_bytes 300000",
        "kfs_servers{state=\"up\"} 3",
        "kfs_ready 1",
        "# EOF",
    ] {
        assert!(
            metrics.lines().any(|have| have == line),
            "{line} is not in:\n{metrics}"
        );
    }

    let mut read = 0;
    for ready in &cluster.chunks_ready {
        let shown = status(ready.http);
        assert_eq!(shown["role"], "chunk");
        assert_eq!(shown["health"]["level"], "HEALTH_OK", "{shown}");
        assert_eq!(shown["server"]["chunks"], 1);
        assert_eq!(shown["server"]["bytes_written"], 300_000);
        read += shown["server"]["bytes_read"].as_u64().unwrap();
        let (_, metrics) = http_get(ready.http, "/metrics");
        assert!(
            metrics.contains("kfs_written_bytes_total 300000\n"),
            "{metrics}"
        );
        // It is being written, as far as it knows, or was read once or more since.
        assert_eq!(shown["server"]["scrub_bad"], 0);
        for name in ["bytes", "chunks", "rounds"] {
            let said = shown["server"][format!("scrub_{name}")].as_u64();
            assert!(said.is_some(), "{name}: {shown}");
            assert!(
                metrics.contains(&format!("kfs_scrub_{name}_total ")),
                "{metrics}"
            );
        }
        assert!(
            shown["server"]["scrub_round_age_s"].as_f64().is_some(),
            "a server that is ready has begun: {shown}"
        );
        assert_eq!(http_get(ready.http, "/readyz").0, 200);
    }
    assert!(read >= 300_000, "what was read was read somewhere");

    for addr in [meta, cluster.chunks_ready[0].http] {
        let (code, page) = http_get(addr, "/");
        assert_eq!(code, 200);
        assert!(page.starts_with("<!doctype html>") && page.contains("\"uptime_s\""));
    }

    cluster.chunks[2].kill();
    until("the dead server is told of", || {
        let shown = status(meta);
        let codes: Vec<_> = shown["health"]["reasons"]
            .as_array()?
            .iter()
            .map(|reason| &reason["code"])
            .collect();
        (shown["health"]["level"] == "HEALTH_WARN"
            && codes.iter().any(|code| **code == "SERVERS_DOWN"))
        .then_some(())
    });
    until("its chunk is counted", || {
        (status(meta)["cluster"]["chunks_under_replicated"] == 1).then_some(())
    });
}

#[test]
fn a_chunkserver_without_a_meta_server_waits_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // A port that nobody listens on, until the end of the test.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let http = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let data = dir.path().join("data");
    let http_text = http.to_string();
    let args = [
        "--data",
        data.to_str().unwrap(),
        "--meta",
        &nobody,
        "--listen",
        "127.0.0.1:0",
        "--http",
        &http_text,
    ];
    let mut chunk = Daemon::spawn(CHUNK, &args, &dir.path().join("stderr"));
    until("it says that it waits", || {
        chunk
            .stderr()
            .contains("waiting for the meta server")
            .then_some(())
    });
    assert!(chunk.stderr().contains(&nobody), "{}", chunk.stderr());
    until("the page says so, too", || {
        (status(http)["phase"] == "waiting").then_some(())
    });
    let (code, why) = http_get(http, "/readyz");
    assert_eq!(code, 503);
    assert!(why.starts_with("waiting: "), "{why}");
    assert_eq!(http_get(http, "/healthz").0, 200);
    assert_eq!(http_get(http, "/").0, 200);
    assert!(!chunk.is_ready());
    chunk.terminate();
    assert_eq!(chunk.ended().code, Some(0));
}
