//! What is not the protocol: the connection is closed, everybody else is served.
use crate::cluster::{Cluster, content, expect_content, put};
use crate::daemon::http_get;
use kfs_core::ids::ClusterId;
use kfs_core::wire::frame::{PREFIX_BYTES, encode};
use kfs_core::wire::{Msg, Negotiate, Role};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longer than anybody is waited for.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
/// More than any server here may need.
const MEMORY_MAX: u64 = 256 << 20;

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(CLOSED_WITHIN)).unwrap();
    stream
}

/// Sends `bytes`; the connection must be closed by the server.
fn expect_closed(addr: SocketAddr, what: &str, bytes: &[u8]) {
    let mut stream = connect(addr);
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    let begun = Instant::now();
    let mut answer = [0; 4_096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(err)
                if matches!(
                    err.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                return;
            }
            Err(err) => panic!("{addr} did not close after {what}: {err}"),
        }
        assert!(
            begun.elapsed() < CLOSED_WITHIN,
            "{addr} goes on answering to {what}"
        );
    }
}

/// The prefix of a frame that announces these lengths, its checksum right.
fn announcing(head_bytes: u32, body_bytes: u32) -> Vec<u8> {
    let mut prefix = vec![0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(b"KFSF");
    prefix[6..8].copy_from_slice(&1_u16.to_le_bytes());
    prefix[16..20].copy_from_slice(&head_bytes.to_le_bytes());
    prefix[20..24].copy_from_slice(&body_bytes.to_le_bytes());
    let sum = crc32fast::hash(&prefix[..24]);
    prefix[24..].copy_from_slice(&sum.to_le_bytes());
    prefix
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_any_port_closes_that_connection_and_nothing_else() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(1, 200_000);
    put(&kfs, "/before", &data).await;
    let greeting = encode(0, &Msg::new(0, Negotiate::ours(Role::Client, ClusterId(0))));
    let bad_head = {
        let mut frame = greeting.clone();
        *frame.last_mut().unwrap() ^= 1;
        frame
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("random bytes", content(2, 10_000).to_vec()),
        ("zeros", vec![0; 10_000]),
        (
            "a web request",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        ("half a frame", greeting[..greeting.len() / 2].to_vec()),
        ("a head of 4 GiB", announcing(u32::MAX, 0)),
        ("a body of 4 GiB", announcing(100, u32::MAX)),
        ("a head that does not match its sum", bad_head),
        (
            "a greeting and garbage",
            [greeting.clone(), content(3, 5_000).to_vec()].concat(),
        ),
        (
            "a greeting and 4 GiB",
            [greeting.clone(), announcing(u32::MAX, u32::MAX)].concat(),
        ),
    ];
    let ports: Vec<SocketAddr> = [cluster.meta_addr()]
        .into_iter()
        .chain(cluster.chunks_ready.iter().map(|ready| ready.listen))
        .collect();
    std::thread::scope(|scope| {
        for port in &ports {
            for (what, bytes) in &cases {
                scope.spawn(|| expect_closed(*port, what, bytes));
            }
            // Half a frame after the greeting, and gone.
            scope.spawn(|| {
                let mut stream = connect(*port);
                stream.write_all(&greeting).unwrap();
                let _ = stream.write_all(&greeting[..20]);
                let _ = stream.shutdown(Shutdown::Both);
            });
            scope.spawn(|| (0..200).for_each(|_| drop(connect(*port))));
        }
    });
    expect_content(&kfs, "/before", &data).await;
    put(&kfs, "/after", &data).await;
    expect_content(&cluster.client(), "/after", &data).await;
    assert!(cluster.meta.runs());
    assert!(cluster.chunks.iter_mut().all(|chunk| chunk.runs()));
    for ready in [&cluster.meta_ready]
        .into_iter()
        .chain(&cluster.chunks_ready)
    {
        let (_, body) = http_get(ready.http, "/status.json");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(status["process"]["resident_bytes"].as_u64().unwrap() < MEMORY_MAX);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_pages_port_is_answered_or_dropped() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.meta_ready.http;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(50_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("random bytes", content(1, 10_000).to_vec()),
        ("zeros", vec![0; 10_000]),
        ("a long path", long.into_bytes()),
        ("many headers", many.into_bytes()),
        ("half a request", b"GET / HT".to_vec()),
        (
            "a body that never comes",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        ),
    ];
    std::thread::scope(|scope| {
        for (what, bytes) in &cases {
            scope.spawn(|| expect_closed(addr, what, bytes));
        }
    });
    for path in ["/nowhere", "/status.json/..", "/%00", "//"] {
        assert_eq!(http_get(addr, path).0, 404, "{path}");
    }
    assert_eq!(http_get(addr, "/healthz").0, 200);
    assert!(cluster.meta.runs());
}
