//! `find`, `tree`, `df` and `servers`: what is shown is what is there.
use crate::cluster::{Cluster, command, content, run, wait};
use crate::fsck::kill;
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn stored() -> Cluster {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/a/logs", "/b"]);
    cluster.store("/a/logs/x.log", &content(5_000));
    cluster.store("/a/logs/y.txt", b"");
    cluster.store("/b/x.log", b"12345");
    cluster
}

#[test]
fn what_has_the_name_the_kind_and_the_size_is_found_and_nothing_else() {
    let cluster = stored();
    for (arguments, found) in [
        (
            &["/"][..],
            "/\n/a\n/a/logs\n/a/logs/x.log\n/a/logs/y.txt\n/b\n/b/x.log\n",
        ),
        (&["/b/x.log"], "/b/x.log\n"),
        (&["--name", "*.log"], "/a/logs/x.log\n/b/x.log\n"),
        (&["--name", "logs"], "/a/logs\n"),
        (&["--name", "nothing*"], ""),
        (&["--type", "d", "/a"], "/a\n/a/logs\n"),
        (
            &["--type", "f", "/b", "/a"],
            "/b/x.log\n/a/logs/x.log\n/a/logs/y.txt\n",
        ),
        (&["--size", "+5", "/"], "/a/logs/x.log\n"),
        (&["--size", "-1KiB", "/"], "/a/logs/y.txt\n/b/x.log\n"),
        (&["--size", "5"], "/b/x.log\n"),
        (&["--max-depth", "0", "/"], "/\n"),
        (&["--max-depth", "1", "--type", "d"], "/\n/a\n/b\n"),
        (
            &["--name", "[xy].*", "--type", "f", "--size", "-6"],
            "/a/logs/y.txt\n/b/x.log\n",
        ),
    ] {
        assert_eq!(
            cluster.ok(&[&["find"], arguments].concat()),
            found,
            "{arguments:?}"
        );
    }
    let told = lines(&cluster.ok(&["find", "--json", "--name", "x*", "/b"]));
    assert_eq!(
        (&told[0]["path"], &told[0]["size"]),
        (&"/b/x.log".into(), &5.into())
    );
    for (arguments, part) in [
        (&["--name", "[a"][..], "no ']'"),
        (&["--type", "x"], "'x'"),
        (&["--size", "+"], "is not a size"),
        (&["a"], "begins with '/'"),
    ] {
        cluster
            .kfs(&[&["find"], arguments].concat())
            .failed(2, &[part]);
    }
    let said = cluster.kfs(&["find", "/no", "/b", "/b/x.log/y"]);
    said.failed(3, &["/no", "KFS-E003"]);
    assert_eq!(said.out, b"/b\n/b/x.log\n");
}

/// More entries than come in a page, and directories between them.
#[test]
fn nothing_is_left_out_or_said_twice_where_pages_end() {
    let cluster = Cluster::new();
    let names: Vec<String> = (0..2_100).map(|n| format!("/d/{n:04}")).collect();
    cluster.ok(&["mkdir", "/d"]);
    for names in names.chunks(700) {
        let mut arguments = vec!["mkdir"];
        arguments.extend(names.iter().map(String::as_str));
        cluster.ok(&arguments);
    }
    cluster.ok(&["mkdir", "/d/1023/x", "/d/1024/y"]);
    let found = cluster.ok(&["find", "/d"]);
    let mut expected = vec!["/d".to_owned()];
    expected.extend(names);
    expected.extend(["/d/1023/x".into(), "/d/1024/y".into()]);
    expected.sort();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    let drawn = cluster.ok(&["tree", "/d"]);
    assert_eq!(drawn.lines().count(), expected.len());
    assert_eq!(
        drawn
            .lines()
            .filter(|line| line.starts_with("└── "))
            .count(),
        1
    );
    assert_eq!(drawn.lines().last(), Some("└── 2099"));
    let would = cluster.ok(&["rm", "-r", "--dry-run", "/d"]);
    assert_eq!(would.lines().count(), expected.len());
}

#[test]
fn a_name_that_is_no_text_is_found_by_its_bytes() {
    let cluster = Cluster::new();
    let odd = OsStr::from_bytes(b"/od\xffd");
    assert_eq!(run(cluster.command(&["touch"]).arg(odd)).code, Some(0));
    let glob = OsStr::from_bytes(b"od\xff?");
    let said = run(cluster.command(&["find", "--name"]).arg(glob));
    assert_eq!(said.out, b"/od\xffd\n", "{}", said.err);
    let told = lines(&cluster.ok(&["find", "--json", "--type", "f"]));
    assert_eq!(told[0]["name_b64"], "b2T/ZA==");
    assert_eq!(
        cluster.kfs(&["tree"]).out,
        "/\n└── ".bytes().chain(*b"od\xffd\n").collect::<Vec<_>>()
    );
}

#[test]
fn a_drawing_leads_from_each_name_to_its_directory() {
    let cluster = stored();
    cluster.ok(&["mkdir", "/c"]);
    assert_eq!(
        cluster.ok(&["tree"]),
        "/\n├── a\n│   └── logs\n│       ├── x.log\n│       └── y.txt\n├── b\n│   └── x.log\n└── c\n"
    );
    assert_eq!(
        cluster.ok(&["tree", "--max-depth", "1", "/a"]),
        "/a\n└── logs\n"
    );
    let depths: Vec<Value> = lines(&cluster.ok(&["tree", "--json", "/a"]))
        .iter()
        .map(|line| line["depth"].clone())
        .collect();
    assert_eq!(depths, [0, 1, 2, 2]);
    let said = cluster.kfs(&["tree", "/b", "/no"]);
    said.failed(3, &["/b: 1 directories, 1 files", "/no"]);
}

#[test]
fn a_server_that_is_gone_is_shown_and_its_room_is_not_promised() {
    let cluster = Cluster::new();
    cluster.store("/f", &content(100_000));
    let told = lines(&cluster.ok(&["df", "--json"]));
    assert_eq!((told.len(), &told[3]["servers_up"]), (4, &3.into()));
    let free = |told: &[Value]| told[3]["file_bytes_free"].as_u64().unwrap();
    assert!(free(&told) > 0, "{told:?}");
    let gone = cluster.chunkservers[0].listen.to_string();
    kill(&cluster, 0);
    let servers = wait("the meta server to notice", || {
        let said = cluster.ok(&["servers"]);
        said.contains("down").then_some(said)
    });
    let lost: Vec<&str> = servers
        .lines()
        .filter(|line| line.contains("down"))
        .collect();
    assert!(lost.len() == 1 && lost[0].starts_with(&gone), "{servers}");
    assert_eq!(servers.lines().count(), 4, "{servers}");
    let told = lines(&cluster.ok(&["df", "--json"]));
    assert_eq!(
        (&told[3]["servers"], &told[3]["servers_up"], free(&told)),
        (&3.into(), &2.into(), 0)
    );
    let said = cluster.kfs(&["df", "-h"]);
    assert!(
        said.err
            .contains("2 servers are up: no file can have 3 replicas"),
        "{said:?}"
    );
    let table = String::from_utf8(said.out).unwrap();
    assert!(
        table.contains("all that are up") && table.contains("2/3"),
        "{table}"
    );
    let told = lines(&cluster.ok(&["servers", "--json"]));
    assert_eq!(
        told.iter().filter(|line| line["state"] == "down").count(),
        1
    );
}

/// Each verb that takes paths asks the cluster that these name.
#[test]
fn a_path_that_names_a_cluster_is_looked_for_there_and_nowhere_else() {
    let cluster = stored();
    let url = format!("kfs://{}/b/x.log", cluster.meta());
    for verb in [
        "ls", "stat", "cat", "head", "tail", "checksum", "find", "tree", "du", "fsck", "touch",
        "explain",
    ] {
        let said = run(&mut command(&["--timeout", "20s", verb, &url]));
        assert_eq!(said.code, Some(0), "{verb}: {said:?}");
    }
}
