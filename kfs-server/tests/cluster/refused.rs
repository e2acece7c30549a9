//! Starts that are refused: each with a code, what is wrong, and what to do; and nothing changed on disk.
use crate::cluster::{Cluster, content, expect_content, files_in, put};
use crate::daemon::{CHUNK, Daemon, META, run};
use std::net::TcpListener;
use std::path::Path;
use tempfile::TempDir;

const ANY: &str = "127.0.0.1:0";
const A_CLUSTER: &str = "0123456789abcdef0123456789abcdef";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind(ANY).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for program in [META, CHUNK] {
        let data = dir.path().join("data");
        let args = ["--data", text(&data), "--listen", &addr, "--http", ANY];
        run(program, &args, dir.path()).expect(1, "KFS-E063", &[&addr, "--listen", "help: "]);
        let args = ["--data", text(&data), "--listen", ANY, "--http", &addr];
        run(program, &args, dir.path()).expect(1, "KFS-E063", &[&addr, "--http", "help: "]);
        assert!(!data.join("identity").exists(), "nothing is formatted");
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let args = [
        "--data",
        text(&data),
        "--listen",
        "192.0.2.1:0",
        "--http",
        ANY,
    ];
    run(META, &args, dir.path()).expect(1, "KFS-E063", &["192.0.2.1", "help: "]);
}

#[test]
fn files_without_an_identity_are_not_formatted_over() {
    for program in [META, CHUNK] {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("thesis.txt"), b"of somebody").unwrap();
        let args = ["--data", text(&data), "--listen", ANY, "--http", ANY];
        run(program, &args, dir.path()).expect(7, "KFS-E062", &["identity", text(&data), "help: "]);
        let left = files_in(&data);
        assert_eq!(left.len(), 1);
        assert_eq!(left["thesis.txt"], b"of somebody");
    }
}

#[test]
fn a_damaged_identity_is_refused_as_corrupt() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let args = ["--data", text(&data), "--listen", ANY, "--http", ANY];
    let mut meta = Daemon::spawn(META, &args, &dir.path().join("first"));
    meta.ready();
    meta.kill();
    let mut identity = std::fs::read(data.join("identity")).unwrap();
    identity[40] ^= 1;
    std::fs::write(data.join("identity"), &identity).unwrap();
    run(META, &args, dir.path()).expect(6, "KFS-E061", &["identity", "help: "]);
    assert_eq!(std::fs::read(data.join("identity")).unwrap(), identity);
}

#[test]
fn the_directory_of_another_kind_of_server_is_refused() {
    let cluster = Cluster::start(0);
    let data = cluster.meta_dir();
    drop(cluster.meta);
    let args = ["--data", text(&data), "--listen", ANY, "--http", ANY];
    run(CHUNK, &args, cluster.dir.path()).expect(7, "KFS-E062", &[text(&data), "help: "]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunkserver_of_another_cluster_is_refused_and_left_as_it_is() {
    let mut ours = Cluster::start(1);
    let theirs = Cluster::start(1);
    let theirs_id = theirs.client().status().await.unwrap().cluster.to_string();
    ours.chunks[0].kill();
    let dir = ours.chunk_dir(0);
    // Something to lose.
    std::fs::write(dir.join("chunks").join("12.13.14"), content(1, 1_000)).unwrap();
    let before = files_in(&dir.join("chunks"));
    let meta = theirs.meta_addr().to_string();
    let args = [
        "--data",
        text(&dir),
        "--meta",
        &meta,
        "--listen",
        ANY,
        "--http",
        ANY,
    ];
    run(CHUNK, &args, ours.dir.path()).expect(7, "KFS-E062", &["cluster", &theirs_id, "help: "]);
    assert!(files_in(&dir.join("chunks")) == before);
    // The other cluster has not taken it in, and at home it is welcome.
    assert_eq!(theirs.client().status().await.unwrap().servers.len(), 1);
    ours.restart_chunk(0);
    assert_eq!(ours.client().status().await.unwrap().servers.len(), 1);
    assert!(files_in(&dir.join("chunks")) == before);
}

#[test]
fn a_meta_server_asked_for_another_cluster_is_refused() {
    let dir = TempDir::new().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let args = |data| {
        [
            "--data",
            data,
            "--listen",
            ANY,
            "--http",
            ANY,
            "--cluster-id",
            A_CLUSTER,
        ]
    };
    let mut meta = Daemon::spawn(META, &args(text(&old))[..6], &dir.path().join("first"));
    meta.ready();
    meta.kill();
    let before = files_in(&old);
    run(META, &args(text(&old)), dir.path()).expect(7, "KFS-E062", &[A_CLUSTER, "help: "]);
    assert!(files_in(&old) == before);
    run(META, &args(text(&new)), dir.path()).expect(7, "KFS-E062", &["help: "]);
    assert!(
        !new.join("identity").exists(),
        "an empty directory is not formatted as part of a cluster that exists"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::start(3);
    let kfs = cluster.client();
    let data = content(2, 50_000);
    put(&kfs, "/before", &data).await;
    for (program, dir) in [(META, cluster.meta_dir()), (CHUNK, cluster.chunk_dir(1))] {
        let args = ["--data", text(&dir), "--listen", ANY, "--http", ANY];
        run(program, &args, cluster.dir.path()).expect(
            7,
            "KFS-E064",
            &[text(&dir), "in use", "help: "],
        );
    }
    put(&kfs, "/after", &data).await;
    expect_content(&kfs, "/before", &data).await;
    expect_content(&kfs, "/after", &data).await;
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below = file.join("data");
    let args = ["--data", text(&below), "--listen", ANY, "--http", ANY];
    run(META, &args, dir.path()).expect(1, "KFS-E065", &[text(&below), "help: "]);
}

#[test]
fn wrong_flags_end_with_two_and_a_usage() {
    let dir = TempDir::new().unwrap();
    let wrong: [&[&str]; 8] = [
        &["--no-such-flag"],
        &["--data"],
        &["stray"],
        &["--data", "d", "--listen", "nowhere"],
        &["--data", "d", "--listen", "127.0.0.1:65536"],
        &["--data", "d", "--data", "e"],
        &["--data", "d", "--log-json=perhaps"],
        &["--data", "d", "--config"],
    ];
    for program in [META, CHUNK] {
        for args in wrong {
            let ended = run(program, args, dir.path());
            assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
            assert!(
                ended.stderr.contains("error: "),
                "{args:?}: {}",
                ended.stderr
            );
        }
        run(program, &[], dir.path()).expect(2, "KFS-E066", &["--data", "help: "]);
        run(program, &["--data", "d", "--log", "=/="], dir.path()).expect(
            2,
            "KFS-E066",
            &["--log", "help: "],
        );
    }
    for args in [
        ["--replication", "0"],
        ["--replication", "17"],
        ["--serve-lease", "5"],
        ["--cluster-id", "12"],
    ] {
        assert_eq!(run(META, &args, dir.path()).code, Some(2), "{args:?}");
    }
}

#[test]
fn an_unknown_key_in_the_file_is_an_error_with_a_suggestion() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("kfs.toml");
    std::fs::write(
        &config,
        "data = 'd'\nlisten = '127.0.0.1:0'\nhtpp = '127.0.0.1:0'\n",
    )
    .unwrap();
    for program in [META, CHUNK] {
        let ended = run(program, &["--config", text(&config)], dir.path());
        ended.expect(
            2,
            "KFS-E066",
            &["kfs.toml:3", "'htpp'", "help: did you mean 'http'?"],
        );
    }
    let missing = dir.path().join("missing.toml");
    run(META, &["--config", text(&missing)], dir.path()).expect(
        2,
        "KFS-E066",
        &["missing.toml", "help: "],
    );
}

#[test]
fn settings_come_from_the_file_too() {
    let dir = TempDir::new().unwrap();
    let (config, data) = (dir.path().join("kfs.toml"), dir.path().join("data"));
    let settings = format!(
        "data = '{}'\nlisten = 'localhost:0'\nhttp = '127.0.0.1:0'\nreplication = 2\n",
        text(&data)
    );
    std::fs::write(&config, settings).unwrap();
    let meta = Daemon::spawn(
        META,
        &["--config", text(&config)],
        &dir.path().join("stderr"),
    );
    assert!(meta.ready().listen.ip().is_loopback());
    assert!(data.join("identity").exists());
}

#[test]
fn a_chunkserver_with_an_unknown_host_to_go_to_is_told_so() {
    let dir = TempDir::new().unwrap();
    let args = [
        "--data",
        text(dir.path()),
        "--meta",
        "no-such-host.invalid:20000",
    ];
    run(CHUNK, &args, dir.path()).expect(
        5,
        "KFS-E067",
        &["no-such-host.invalid", "--meta", "help: "],
    );
}

#[test]
fn help_and_version_are_there() {
    for (program, name) in [(META, "kfs-metaserver"), (CHUNK, "kfs-chunkserver")] {
        for (flag, part) in [("--help", "--listen"), ("--version", name)] {
            let output = std::process::Command::new(program)
                .arg(flag)
                .output()
                .unwrap();
            assert!(output.status.success());
            assert!(String::from_utf8(output.stdout).unwrap().contains(part));
        }
    }
}
