//! What cannot be done: the exit code, the code of the error, and words that help.
use crate::cluster::{Cluster, command, content, run, text};
use std::time::{Duration, Instant};

#[test]
fn a_command_line_that_makes_no_sense_exits_2() {
    for (arguments, part) in [
        (&[][..], "Usage"),
        (&["lss"], "ls"),
        (&["ls", "--lnog"], "--lnog"),
        (&["stat"], "PATH"),
        (&["cat", "a/b"], "begins with '/'"),
        (&["cat", "kfs://nowhere/a"], "HOST:PORT"),
        (&["cat", "/f", "--offset=-1"], "is not a size"),
        (&["cat", "/f", "--length", "1furlong"], "is not a size"),
        (&["ls", "--timeout", "60"], "is not a time"),
        (&["ls", "--meta", "nowhere"], "HOST:PORT"),
        (&["ls", "--meta", "h:99999"], "HOST:PORT"),
        (&["put", "-", "/f", "--replication", "0"], "1..=16"),
        (&["put", "-", "/f", "--replication", "17"], "1..=16"),
        (&["ls", "--local", "/x", "--meta", "h:1"], "--local"),
        (&["ls", "--local", "/x", "kfs://h:1/"], "--local"),
        (&["ls", "--meta", "h:1", "kfs://h:2/"], "h:2"),
        (&["mv", "kfs://h:1/a", "kfs://h:2/a"], "two clusters"),
        (&["demo", "--chunkservers", "2"], "3..=64"),
        (&["demo", "--meta", "h:1"], "of its own"),
        (&["bench", "data", "--local", "/x"], "of its own"),
        (&["bench", "date"], "data"),
        (&["completions", "csh"], "bash"),
        (&["ls", "--log", "=,="], "log filter"),
    ] {
        let said = run(&mut command(arguments));
        said.failed(2, &[part]);
        assert!(
            arguments.is_empty() || said.err.starts_with("error[KFS-E007]: "),
            "{arguments:?}: {said:?}"
        );
        assert!(said.out.is_empty(), "{arguments:?}: {said:?}");
    }
}

#[test]
fn what_is_not_there_exits_3_and_is_named() {
    let cluster = Cluster::new();
    let source = cluster.local("source", b"x");
    for arguments in [
        &["ls", "/missing"][..],
        &["stat", "/missing"],
        &["cat", "/missing"],
        &["get", "/missing", "/tmp/never"],
        &["get", "/missing", "-"],
        &["rm", "/missing"],
        &["rm", "-r", "/missing"],
        &["rmdir", "/missing"],
        &["mv", "/missing", "/x"],
        &["mkdir", "/missing/x"],
        &["put", text(&source), "/missing/x"],
    ] {
        let said = cluster.kfs(arguments);
        said.failed(3, &["error[KFS-E001]: ", "/missing"]);
        assert!(
            !said.err.contains(".kfs-put"),
            "a temporary is nobody's business: {said:?}"
        );
    }
    cluster
        .kfs(&["put", "/no/such/file", "/x"])
        .failed(3, &["error[KFS-E050]: cannot open /no/such/file"]);
    cluster
        .kfs(&["mkdir", "/missing/x"])
        .failed(3, &["help: ", "mkdir -p"]);
}

#[test]
fn what_is_there_exits_4_and_stays() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/f", b"f");
    cluster.store("/g", b"g");
    cluster.kfs(&["mkdir", "/d"]).failed(4, &["KFS-E002", "/d"]);
    cluster.kfs(&["mkdir", "/f"]).failed(4, &["KFS-E002", "/f"]);
    cluster
        .kfs(&["mv", "-n", "/f", "/g"])
        .failed(4, &["KFS-E002"]);
    cluster
        .feed(&["put", "-", "/f"], b"new")
        .failed(4, &["KFS-E002", "/f", "help: --force"]);
    assert_eq!(cluster.ok(&["cat", "/f"]), "f");
    assert_eq!(cluster.ok(&["cat", "/g"]), "g");
}

#[test]
fn a_path_through_a_file_says_so() {
    let cluster = Cluster::new();
    cluster.store("/f", b"x");
    for arguments in [
        &["ls", "/f/x"][..],
        &["stat", "/f/x"],
        &["cat", "/f/x"],
        &["get", "/f/x", "/tmp/never"],
        &["rm", "/f/x"],
        &["rmdir", "/f/x"],
        &["mkdir", "/f/x"],
        &["mkdir", "-p", "/f/x/y"],
        &["mv", "/f", "/f/x"],
        &["rmdir", "/f"],
    ] {
        cluster
            .kfs(arguments)
            .failed(1, &["error[KFS-E003]: ", "/f"]);
    }
    cluster
        .feed(&["put", "-", "/f/x"], b"x")
        .failed(1, &["error[KFS-E003]: ", "/f"]);
    assert_eq!(cluster.names("/"), ["f"]);
}

#[test]
fn a_directory_is_no_file_and_one_with_entries_is_not_empty() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/d/f", b"x");
    cluster
        .kfs(&["cat", "/d"])
        .failed(1, &["error[KFS-E004]: ", "/d"]);
    cluster
        .kfs(&["rm", "/d"])
        .failed(1, &["error[KFS-E004]: ", "help: 'kfs rm -r'"]);
    cluster
        .kfs(&["rmdir", "/d"])
        .failed(1, &["error[KFS-E005]: ", "/d"]);
    cluster
        .kfs(&["rmdir", "--dry-run", "/d"])
        .failed(1, &["error[KFS-E005]: "]);
    cluster
        .kfs(&["mv", "/d", "/d/below"])
        .failed(1, &["KFS-E007"]);
    assert_eq!(cluster.names("/d"), ["f"]);
}

#[test]
fn the_root_stays() {
    let cluster = Cluster::new();
    cluster.store("/f", b"x");
    cluster
        .kfs(&["rm", "-r", "/"])
        .failed(7, &["KFS-E008", "root"]);
    assert_eq!(cluster.kfs(&["rmdir", "/"]).code, Some(1));
    assert_eq!(cluster.kfs(&["mv", "/", "/x"]).code, Some(1));
    assert_eq!(cluster.names("/"), ["f"]);
}

#[test]
fn a_name_may_have_255_bytes_and_not_one_more() {
    let cluster = Cluster::new();
    let (longest, too_long) = (
        format!("/{}", "n".repeat(255)),
        format!("/{}", "n".repeat(256)),
    );
    cluster.store(&longest, b"x");
    assert_eq!(cluster.ok(&["cat", &longest]), "x");
    cluster.ok(&["mv", &longest, "/short"]);
    cluster.ok(&["mkdir", &longest]);
    let source = cluster.local("source", &content(100));
    for arguments in [
        &["mkdir", &too_long][..],
        &["put", text(&source), &too_long],
        &["stat", &too_long],
        &["mv", "/short", &too_long],
    ] {
        cluster.kfs(arguments).failed(1, &["error[KFS-E006]: "]);
    }
    for dots in ["/.", "/..", "/a/../b"] {
        cluster
            .kfs(&["mkdir", "-p", dots])
            .failed(1, &["error[KFS-E006]: "]);
    }
    assert_eq!(cluster.names("/").len(), 2);
}

#[test]
fn nobody_at_the_other_end_exits_5_in_the_time_allowed() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let started = Instant::now();
    let said = run(&mut command(&[
        "ls",
        "--meta",
        &format!("127.0.0.1:{port}"),
        "--timeout",
        "1s",
    ]));
    said.failed(5, &["error[KFS-E04", &port.to_string(), "help: "]);
    assert!(started.elapsed() < Duration::from_secs(10), "{said:?}");
    let said = run(&mut command(&[
        "ls",
        "--meta",
        "no-such-host.invalid:1",
        "--timeout",
        "1s",
    ]));
    said.failed(5, &["error[KFS-E040]: ", "no-such-host.invalid"]);
}

#[test]
fn without_a_chunkserver_a_file_is_refused_and_nothing_is_left() {
    let cluster = Cluster::with(0);
    cluster
        .feed(&["put", "-", "/f", "--timeout", "5s"], b"x")
        .failed(7, &["error[KFS-E020]: ", "/f"]);
    assert_eq!(cluster.names("/"), [""; 0]);
    // An empty file needs none.
    cluster.store("/empty", b"");
}

#[test]
fn a_file_whose_servers_are_gone_exits_5_and_leaves_nothing_here() {
    let cluster = Cluster::new();
    cluster.store("/f", &content(100_000));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for server in &cluster.chunkservers {
        runtime.block_on(server.kill());
    }
    let target = cluster.dir.path().join("target");
    cluster
        .kfs(&["get", "/f", text(&target), "--timeout", "2s"])
        .failed(5, &["error[KFS-E0", "/f"]);
    assert!(!target.exists());
}

#[test]
fn programs_get_errors_as_objects() {
    let cluster = Cluster::new();
    let said = cluster.kfs(&["--json", "stat", "/missing"]);
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(
        (error["code"].as_str(), error["exit"].as_u64()),
        (Some("KFS-E001"), Some(3))
    );
    assert!(error["error"].as_str().unwrap().contains("/missing"));
    let said = cluster.kfs(&["--json", "stat"]);
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(
        (error["code"].as_str(), error["exit"].as_u64()),
        (Some("KFS-E007"), Some(2))
    );
}

#[test]
fn several_paths_are_all_tried_and_the_first_failure_is_the_exit_code() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/a"]);
    let said = cluster.kfs(&["mkdir", "/x/y", "/a", "/b"]);
    said.failed(3, &["KFS-E001", "KFS-E002"]);
    assert_eq!(cluster.names("/"), ["a", "b"]);
}

#[test]
fn a_local_directory_that_is_not_there_is_named() {
    let cluster = Cluster::new();
    cluster.store("/f", b"x");
    cluster
        .kfs(&["get", "/f", "/no/such/dir/f"])
        .failed(3, &["KFS-E050", "/no/such/dir"]);
}
