//! `drain`: a server that was drained may go, and one that may not is said to be needed.
use crate::cluster::{Cluster, content, wait};
use serde_json::Value;

/// What 'kfs status --json' says of the server at this address.
fn told(cluster: &Cluster, address: &str) -> Value {
    let status: Value = serde_json::from_str(&cluster.ok(&["status", "--json"])).unwrap();
    let servers = status["servers"].as_array().unwrap();
    let at = servers.iter().find(|server| server["address"] == address);
    at.unwrap().clone()
}

fn kill(cluster: &Cluster, server: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cluster.chunkservers[server].kill());
}

#[test]
fn a_server_that_was_drained_is_not_missed_and_the_last_ones_are_not_drained() {
    let mut cluster = Cluster::with(4);
    let files: Vec<(String, Vec<u8>)> = (0..8)
        .map(|n| (format!("/f{n}"), content(100_000 + n)))
        .collect();
    for (path, bytes) in &files {
        cluster.store(path, bytes);
    }
    let address = cluster.chunkservers[1].listen.to_string();
    let said = cluster.ok(&["drain", &address]);
    assert!(
        said.starts_with(&format!("draining {address}, which has ")),
        "{said}"
    );
    let drained = |cluster: &Cluster| {
        let drain = told(cluster, &address)["drain"].clone();
        (drain["state"] == "drained").then_some(drain)
    };
    let drain = wait("it is drained", || drained(&cluster));
    assert_eq!(
        (&drain["chunks_left"], &drain["bytes_left"]),
        (&0.into(), &0.into())
    );
    let screen = cluster.ok(&["status"]);
    assert!(screen.contains("drained: may be stopped"), "{screen}");

    // Everybody restarts, and it is drained still.
    cluster.restart_all();
    let address = cluster.chunkservers[1].listen.to_string();
    wait("it is known to be drained", || {
        let drain = told(&cluster, &address)["drain"].clone();
        (drain["state"] == "drained").then_some(())
    });
    kill(&cluster, 1);
    for (path, bytes) in &files {
        assert_eq!(&cluster.kfs(&["cat", path]).out, bytes, "{path}");
    }
    wait("it is not missed", || {
        let status: Value = serde_json::from_str(&cluster.ok(&["status", "--json"])).unwrap();
        let is_down = told(&cluster, &address)["state"] == "down";
        (is_down && status["health"]["level"] == "HEALTH_OK").then_some(())
    });
    let fsck = cluster.kfs(&["fsck"]);
    assert!(fsck.err.contains("all as they should be"), "{fsck:?}");

    // The other three are needed.
    let needed = cluster.chunkservers[0].listen.to_string();
    let said = cluster.kfs(&["drain", &needed]);
    assert_eq!(said.code, Some(7), "{said:?}");
    let why =
        "error[KFS-E020]: without it 2 live chunkservers would be left, too few for replication 3";
    assert!(said.err.contains(why), "{said:?}");
    let said = cluster.kfs(&["drain", "127.0.0.1:1"]);
    assert_eq!(said.code, Some(3), "{said:?}");

    // By its node id, though nobody is there: it may come back as any other.
    let node = told(&cluster, &address)["node"]
        .as_str()
        .unwrap()
        .to_owned();
    let did = cluster.ok(&["--json", "drain", "--undo", &node]);
    assert!(did.contains("\"did\":\"stays\""), "{did}");
    assert_eq!(told(&cluster, &address)["drain"], Value::Null);
}
