//! `explain`, `config show` and `doctor`: what is said of a file, of settings and of a machine is so.
use crate::cluster::{Cluster, command, content, run, text, wait};
use crate::fsck::{flip, kill, replicas};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_code_is_explained_without_a_cluster_and_what_is_none_is_refused() {
    let no_cluster = |arguments: &[&str]| run(command(arguments).env("KFS_META", "127.0.0.1:1"));
    for asked in ["KFS-E021", "e21", "21"] {
        let said = no_cluster(&["explain", asked]);
        let text = String::from_utf8(said.out).unwrap();
        assert!(
            text.starts_with("KFS-E021: No chunkserver has room"),
            "{text}"
        );
        assert!(
            text.contains("\nwhy:  ") && text.contains("\nhelp: Add a server"),
            "{text}"
        );
    }
    let told = &lines(&no_cluster(&["explain", "--json", "servers_down"]).out)[0];
    assert_eq!(told["code"], "SERVERS_DOWN");
    for field in ["what", "why", "do"] {
        assert!(
            told[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}"
        );
    }
    let all = no_cluster(&["explain"]).out;
    assert!(all.starts_with(b"CODE") && all.len() > 2_000);
    for asked in ["KFS-E999", "nonsense", ""] {
        no_cluster(&["explain", asked]).failed(2, &["neither a code"]);
    }
}

#[test]
fn a_file_is_explained_chunk_by_chunk_with_who_holds_what() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/d/empty", b"");
    cluster.store("/f", &content((64 << 20) + 5));
    let said = cluster.ok(&["explain", "--verify-data", "/f"]);
    assert_eq!(
        said.matches(": matches its sums (67108864 bytes read)")
            .count(),
        3,
        "{said}"
    );
    assert_eq!(
        said.matches(": matches its sums (5 bytes read)").count(),
        3,
        "{said}"
    );
    assert!(
        said.contains("All of its 2 chunks can be read from as many servers"),
        "{said}"
    );
    let told = lines(&cluster.kfs(&["explain", "--json", "/f"]).out);
    assert_eq!(
        (&told[1]["index"], &told[1]["offset"], &told[1]["bytes"]),
        (&1.into(), &(64 << 20).into(), &5.into())
    );
    assert_eq!(told[0]["replicas"].as_array().unwrap().len(), 3);
    assert!(
        told[0]["replicas"][0].get("matches").is_none(),
        "nothing was read"
    );
    assert_eq!(
        (&told[2]["chunks"], &told[2]["degraded"]),
        (&2.into(), &0.into())
    );
    assert!(
        cluster
            .ok(&["explain", "/d"])
            .contains("A directory with 1 entries")
    );
    assert!(
        cluster
            .ok(&["explain", "/d/empty"])
            .contains("An empty file")
    );
    cluster.kfs(&["explain", "/no"]).failed(3, &["/no"]);
}

#[test]
fn the_replica_that_has_rotted_is_told_from_those_that_have_not() {
    let cluster = Cluster::new();
    let bytes = content(150_000);
    cluster.store("/f", &bytes);
    flip(replicas(&cluster, &bytes[..1_000]).remove(0));
    let said = cluster.kfs(&["explain", "--verify-data", "--json", "/f"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let told = lines(&said.out);
    let verdicts: Vec<&Value> = told[0]["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["matches"])
        .collect();
    assert_eq!(
        verdicts.iter().filter(|matches| **matches == true).count(),
        2,
        "{told:?}"
    );
    assert_eq!(
        (&told[1]["degraded"], &told[1]["replicas_bad"]),
        (&1.into(), &1.into())
    );
    assert!(
        told[1]["text"]
            .as_str()
            .unwrap()
            .contains("made anew from a good one"),
        "{told:?}"
    );
}

#[test]
fn a_file_that_nobody_has_any_more_is_said_to_be_unreadable_and_exits_6() {
    let cluster = Cluster::new();
    cluster.store("/f", &content(100_000));
    kill(&cluster, 0);
    let degraded = wait("one replica is away", || {
        let said = cluster.ok(&["explain", "/f"]);
        said.contains("1 more cannot be read now").then_some(said)
    });
    assert!(
        degraded.contains("nothing is lost") && degraded.contains("Only 2 servers are up"),
        "{degraded}"
    );
    kill(&cluster, 1);
    kill(&cluster, 2);
    let lost = wait("all are away", || {
        let said = cluster.kfs(&["explain", "/f"]);
        (said.code != Some(0)).then_some(said)
    });
    assert_eq!(lost.code, Some(6), "{lost:?}");
    let text = String::from_utf8(lost.out).unwrap();
    assert!(
        text.contains("cannot be read from anybody") && text.contains("KFS-E025"),
        "{text}"
    );
}

#[test]
fn each_setting_names_who_has_said_it_and_the_strongest_wins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meta.toml");
    fs::write(
        &file,
        "data = '/srv/meta'\nheartbeat = '2s'\nreplication = 2\nlog-json = true\n",
    )
    .unwrap();
    let mut show = command(&[
        "config",
        "show",
        "metaserver",
        "--origin",
        "--json",
        "--config",
        text(&file),
    ]);
    show.env("KFS_HEARTBEAT", "1500ms")
        .env("KFS_LOG_JSON", "false")
        .env("KFS_REPLICATION", "4");
    let said = run(show.args(["--", "--replication", "5"]));
    assert_eq!(said.code, Some(0), "{said:?}");
    let told = lines(&said.out);
    let setting = |key: &str| {
        let found = told.iter().find(|line| line["key"] == key).unwrap();
        (
            found["value"].clone(),
            found["origin"].clone(),
            found["where"].clone(),
        )
    };
    let in_file = |line| Value::from(format!("{}:{line}", file.display()));
    assert_eq!(
        setting("data"),
        ("/srv/meta".into(), "file".into(), in_file(1))
    );
    assert_eq!(
        setting("heartbeat"),
        (
            "1s500ms".into(),
            "environment".into(),
            "KFS_HEARTBEAT".into()
        )
    );
    assert_eq!(
        setting("replication"),
        ("5".into(), "flag".into(), Value::Null)
    );
    assert_eq!(
        setting("log-json"),
        ("false".into(), "environment".into(), "KFS_LOG_JSON".into())
    );
    assert_eq!(
        setting("serve-lease"),
        ("5s".into(), "default".into(), Value::Null)
    );
    let unset =
        run(command(&["config", "show", "chunkserver", "--origin"])
            .env("KFS_LISTEN", "127.0.0.1:0"));
    let table = String::from_utf8(unset.out).unwrap();
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("data ") && line.ends_with("missing")),
        "{table}"
    );
    assert!(
        table
            .lines()
            .any(|line| line.ends_with("environment KFS_LISTEN")),
        "{table}"
    );
}

/// What is shown is a file that means the same; what a daemon would refuse is refused, and nothing is started.
#[test]
fn what_is_shown_can_be_started_with_and_what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a \"quoted\" \\ directory");
    let show = |arguments: &[&str]| {
        run(command(&[&["config", "show"], arguments].concat()).env_remove("RUST_LOG"))
    };
    for (daemon, flags) in [
        (
            "metaserver",
            &[
                "--replication",
                "2",
                "--trash-grace",
                "1h30m",
                "--copy-rate",
                "3MiB",
            ][..],
        ),
        (
            "chunkserver",
            &["--meta", "127.0.0.1:7", "--rack", "r 1", "--log-json"],
        ),
    ] {
        let shown = show(&[&[daemon, "--", "--data", text(&odd)], flags].concat());
        assert_eq!(shown.code, Some(0), "{shown:?}");
        let file = dir.path().join(daemon);
        fs::write(&file, &shown.out).unwrap();
        let again = show(&[daemon, "--config", text(&file)]);
        assert_eq!(again.code, Some(0), "{again:?}");
        let plain = |out: &[u8]| {
            let text = String::from_utf8(out.to_vec()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(plain(&again.out), plain(&shown.out));
    }
    assert!(!odd.exists());
    let file = dir.path().join("wrong.toml");
    fs::write(&file, "heartbeet = '1s'\n").unwrap();
    show(&["metaserver", "--config", text(&file)]).failed(2, &["KFS-E066", ":1", "'heartbeat'"]);
    show(&["metaserver", "--config", "/no/file"]).failed(2, &["/no/file"]);
    show(&["metaserver", "--", "--rack", "r"]).failed(2, &["--rack"]);
    show(&["compactor"]).failed(2, &["metaserver"]);
    show(&["metaserver", "--meta", "h:1"]).failed(2, &["--meta"]);
}

#[test]
fn a_doctor_says_what_is_wrong_and_fails_only_for_what_keeps_a_server_from_working() {
    let cluster = Cluster::new();
    let missing = cluster.dir.path().join("missing");
    let data = cluster.dir.path();
    let told = |arguments: &[&str]| {
        let said = cluster.kfs(&[&["doctor", "--json"], arguments].concat());
        (said.code, lines(&said.out))
    };
    let (code, found) = told(&["--data", text(data)]);
    let of = |found: &[Value], check: &str| {
        let found = found.iter().find(|line| line["check"] == check);
        found.unwrap_or_else(|| panic!("{check}")).clone()
    };
    assert_eq!(code, Some(0), "{found:?}");
    assert_eq!(of(&found, "meta server")["state"], "ok", "{found:?}");
    assert!(
        of(&found, "meta server")["what"]
            .as_str()
            .unwrap()
            .contains(&cluster.meta())
    );
    assert!(
        of(&found, "disk sync")["what"]
            .as_str()
            .unwrap()
            .contains("a sync takes")
    );
    for check in [
        "checksums",
        "clock",
        "file descriptors",
        "port",
        "fuse",
        "disk room",
    ] {
        assert!(
            of(&found, check)["what"]
                .as_str()
                .is_some_and(|what| !what.is_empty())
        );
    }
    let before = fs::read_dir(data).unwrap().count();
    let (code, found) = told(&["--data", text(&missing), "--data", text(data)]);
    assert_eq!(
        (code, &of(&found, "disk")["state"]),
        (Some(1), &"fail".into())
    );
    assert!(
        of(&found, "disk")["fix"]
            .as_str()
            .is_some_and(|fix| !fix.is_empty())
    );
    assert_eq!(
        fs::read_dir(data).unwrap().count(),
        before,
        "nothing is left behind"
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = taken.local_addr().unwrap().to_string();
    let said = run(&mut command(&[
        "doctor",
        "--meta",
        &silent,
        "--timeout",
        "1s",
    ]));
    assert_eq!(said.code, Some(1), "{said:?}");
    let text = String::from_utf8(said.out).unwrap();
    assert!(
        text.contains("FAIL  meta server: ") && text.contains("      -> start it"),
        "{text}"
    );
    let said = run(&mut command(&["doctor", "--meta", "nowhere"]));
    assert!(
        said.code == Some(1) && said.out.ends_with(b"\n"),
        "{said:?}"
    );
}
