//! What each verb does when all is well.
use crate::cluster::{Cluster, command, content, run, text, wait};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn directories_are_made_listed_renamed_and_removed() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/a", "/b"]);
    cluster.ok(&["mkdir", "-p", "/a/x/y", "/a/x"]);
    assert_eq!(cluster.names("/"), ["a", "b"]);
    cluster.ok(&["mv", "/a/x", "/z"]);
    assert_eq!(cluster.names("/"), ["a", "b", "z"]);
    // Into a directory that is there, as everywhere on unix.
    cluster.ok(&["mv", "/z", "/b"]);
    assert_eq!(cluster.names("/b"), ["z"]);
    cluster.ok(&["rmdir", "/b/z/y", "/b/z", "/a"]);
    assert_eq!(cluster.names("/"), ["b"]);
    assert_eq!(cluster.names("/b"), [""; 0]);
}

#[test]
fn a_long_listing_shows_kind_mode_replicas_and_size() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    cluster.store("/f", b"12345");
    let listed = cluster.ok(&["ls", "-l", "/"]);
    let rows: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(rows[0][0].starts_with("drwx"), "{listed}");
    assert_eq!((rows[0][1], rows[0][7]), ("-", "d"), "{listed}");
    assert!(rows[1][0].starts_with("-rw-"), "{listed}");
    assert_eq!(
        (rows[1][1], rows[1][4], rows[1][7]),
        ("3", "5", "f"),
        "{listed}"
    );
    // A file is listed by itself, under the name it was asked for.
    assert_eq!(cluster.ok(&["ls", "/f"]), "/f\n");
}

#[test]
fn a_tree_is_listed_directory_by_directory() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/a/b", "/a/c"]);
    cluster.store("/a/b/f", b"");
    assert_eq!(
        cluster.ok(&["ls", "-R", "/a"]),
        "/a:\nb\nc\n\n/a/b:\nf\n\n/a/c:\n"
    );
    let paths: Vec<Value> = lines(&cluster.ok(&["ls", "-R", "--json", "/a"]))
        .iter()
        .map(|line| line["path"].clone())
        .collect();
    assert_eq!(paths, ["/a/b", "/a/c", "/a/b/f"]);
}

#[test]
fn attributes_are_told_to_people_and_to_programs() {
    let cluster = Cluster::new();
    cluster.store("/f", &content(70_000));
    let shown = cluster.ok(&["stat", "/f"]);
    for part in [
        "path: /f",
        "kind: file",
        "size: 70000 bytes (68.4 KiB)",
        "replicas: 3",
        "mode: 0",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let told = &lines(&cluster.ok(&["--json", "stat", "/f", "/"]));
    assert_eq!(told[0]["size"], 70_000);
    assert_eq!(told[0]["kind"], "file");
    assert_eq!(told[0]["replication"], 3);
    assert_eq!(told[1]["kind"], "directory");
    assert_eq!(told[1]["size"], 1, "entries of a directory");
    assert!(told[0]["mtime_ns"].as_u64().unwrap() > 1_600_000_000_000_000_000);
}

#[test]
fn a_range_of_a_file_is_written_out_and_no_more() {
    let cluster = Cluster::new();
    let bytes = content(200_000);
    cluster.store("/f", &bytes);
    for (offset, length, range) in [
        ("0", None, 0..200_000),
        ("65535", Some("2"), 65_535..65_537),
        ("199999", Some("100"), 199_999..200_000),
        ("128KiB", None, 131_072..200_000),
        ("200000", None, 0..0),
        ("1GiB", Some("5"), 0..0),
        ("7", Some("0"), 0..0),
    ] {
        let mut arguments = vec!["cat", "/f", "--offset", offset];
        arguments.extend(length.into_iter().flat_map(|length| ["--length", length]));
        let said = cluster.kfs(&arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
        assert!(
            said.out == bytes[range.clone()],
            "{arguments:?} gave {} bytes",
            said.out.len()
        );
    }
}

#[test]
fn files_are_removed_and_trees_only_with_r() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/t/a/b", "/t/c"]);
    for path in ["/f", "/t/1", "/t/a/2", "/t/a/b/3"] {
        cluster.store(path, b"x");
    }
    let would = cluster.ok(&["rm", "-r", "--dry-run", "/t"]);
    assert_eq!(would.lines().count(), 7, "{would}");
    assert_eq!(cluster.names("/"), ["f", "t"], "a dry run removes nothing");
    cluster.ok(&["rm", "/f"]);
    cluster.ok(&["rm", "-r", "/t"]);
    assert_eq!(cluster.names("/"), [""; 0]);
}

#[test]
fn a_rename_replaces_a_file_and_keeps_its_content() {
    let cluster = Cluster::new();
    cluster.store("/new", b"new");
    cluster.store("/old", b"old");
    cluster.ok(&["mv", "/new", "/old"]);
    assert_eq!(cluster.names("/"), ["old"]);
    assert_eq!(cluster.ok(&["cat", "/old"]), "new");
}

#[test]
fn a_name_that_is_no_text_goes_in_and_comes_out_as_it_is() {
    let cluster = Cluster::new();
    let odd = OsStr::from_bytes(b"/od\xffd\n\x1b[31m name");
    let local = cluster.local("source", b"odd");
    let said = run(cluster.command(&["put", text(&local)]).arg(odd));
    assert_eq!(said.code, Some(0), "{said:?}");
    // In a pipe the bytes; in JSON, base64.
    assert_eq!(cluster.kfs(&["ls", "/"]).out, b"od\xffd\n\x1b[31m name\n");
    let told = &lines(&cluster.ok(&["ls", "--json"]))[0];
    assert_eq!(told["name_b64"], "b2T/ZAobWzMxbSBuYW1l");
    assert_eq!(told.get("name"), None);
    assert_eq!(run(cluster.command(&["cat"]).arg(odd)).out, b"odd");
    // An error must not steer the terminal.
    let said = run(cluster.command(&["mkdir"]).arg(odd));
    said.failed(4, &["KFS-E002"]);
}

#[test]
fn the_cluster_is_named_by_flag_environment_or_path() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/here"]);
    let meta = cluster.meta();
    let url = format!("kfs://{meta}/");
    for arguments in [
        vec!["--meta", &meta, "ls", "/"],
        vec!["ls", "--meta", &meta, "/"],
        vec!["ls", "/", "--meta", &meta],
        vec!["ls", &url],
    ] {
        let said = run(&mut command(&arguments));
        assert_eq!(
            (said.code, &said.out[..]),
            (Some(0), &b"here\n"[..]),
            "{arguments:?}: {}",
            said.err
        );
    }
}

#[test]
fn status_says_the_health_and_names_the_server_that_is_gone() {
    let cluster = Cluster::new();
    cluster.store("/f", b"x");
    let shown = cluster.ok(&["status"]);
    assert!(shown.starts_with("HEALTH_OK\n"), "{shown}");
    assert!(shown.contains("3 of 3 up"), "{shown}");
    let gone = cluster.chunkservers[0].listen.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cluster.chunkservers[0].kill());
    // Its links close at once, but the meta server hears of it in its own time.
    let told = wait("the meta server to notice", || {
        let told = lines(&cluster.ok(&["status", "--json"])).remove(0);
        (told["health"]["level"] != "HEALTH_OK").then_some(told)
    });
    assert_eq!(told["health"]["level"], "HEALTH_WARN");
    let reasons = told["health"]["reasons"].to_string();
    assert!(
        reasons.contains("SERVERS_DOWN") && reasons.contains(&gone),
        "{told}"
    );
    assert_eq!(told["files"], 1);
}

#[test]
fn completions_are_for_the_shell_that_is_named() {
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef kfs"),
        ("fish", "complete -c kfs"),
    ] {
        let said = run(&mut command(&["completions", shell]));
        assert_eq!(said.code, Some(0));
        assert!(
            String::from_utf8(said.out).unwrap().contains(part),
            "{shell}"
        );
    }
}

#[test]
fn every_verb_and_every_program_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let written = run(&mut command(&["man", "--dir", text(dir.path())]));
    assert_eq!(written.code, Some(0), "{written:?}");
    let help = run(&mut command(&["--help"])).out;
    let help = String::from_utf8(help).unwrap();
    let verbs = help.split("Verbs:\n").nth(1).unwrap();
    let verbs = verbs.split("\n\n").next().unwrap();
    let verbs = verbs.lines().filter_map(|line| {
        let is_verb = line.starts_with("  ") && !line.starts_with("   ");
        let verb = line.split_whitespace().next().filter(|_| is_verb)?;
        (verb != "help").then(|| format!("kfs-{verb}"))
    });
    let mut pages: Vec<String> = verbs.collect();
    assert!(pages.len() > 25, "{pages:?}");
    let others = [
        "kfs",
        "kfs-log-blame",
        "kfs-metaserver",
        "kfs-chunkserver",
        "kfs-logcompactor",
    ];
    pages.extend(others.map(str::to_owned));
    for page in pages {
        let file = dir.path().join(format!("{page}.1"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(&format!(".TH {page} 1")), "{page}: {text}");
        assert!(text.contains(".SH DESCRIPTION"), "{page}");
    }
    let said = run(&mut command(&["man", "log", "blame"]));
    assert_eq!(
        said.out,
        std::fs::read(dir.path().join("kfs-log-blame.1")).unwrap()
    );
    run(&mut command(&["man", "nothing"])).failed(3, &["no page of 'nothing'"]);
    run(&mut command(&["man", "--dir", "/no/dir"])).failed(3, &["/no/dir"]);
    run(&mut command(&["man", "put", "--dir", "/tmp"])).failed(2, &["--dir"]);
}

#[test]
fn help_and_version_are_answers() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["help", "put"],
        &["put", "--help"],
        &["bench", "data", "--help"],
    ] {
        let said = run(&mut command(arguments));
        assert_eq!(
            (said.code, said.err.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        assert!(!said.out.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_trees_take_is_summed_up_deepest_first_and_as_of_one_record() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/a/b/c", "/a/d"]);
    cluster.store("/a/b/one", &content(70_000));
    cluster.store("/a/two", b"12345");
    cluster.store("/top", b"123");
    let said = cluster.kfs(&["du", "/a"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let due = "0\t/a/b/c\n70000\t/a/b\n0\t/a/d\n70005\t/a\n";
    assert_eq!(said.out, due.as_bytes());
    for part in ["/a: 2 files, 4 directories, 2 chunks", "as of record "] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(
        cluster.ok(&["du", "-s", "/", "/top"]),
        "70008\t/\n3\t/top\n"
    );
    assert_eq!(cluster.ok(&["du", "-sh", "/a/b"]), "68.4 KiB\t/a/b\n");
    let one_down = "70005\t/a\n70008\t/\n";
    assert_eq!(cluster.ok(&["du", "--max-depth", "1"]), one_down);
    let told = lines(&cluster.ok(&["--json", "du", "/a"]));
    assert_eq!(told.len(), 4);
    let all = &told[3];
    assert_eq!((&all["path"], &all["depth"]), (&"/a".into(), &0.into()));
    for (field, value) in [
        ("bytes", 70_005),
        ("files", 2),
        ("directories", 4),
        ("chunks", 2),
        ("replica_bytes", 3 * (2 * 16_384 + 70_005)),
    ] {
        assert_eq!(all[field], value, "{field}");
    }
    assert!(told.iter().all(|of| of["log_seq"] == all["log_seq"]));
    // One path that is not there does not keep the others from being shown.
    let said = cluster.kfs(&["du", "-s", "/nothing", "/a"]);
    assert_eq!(said.code, Some(3));
    assert_eq!(said.out, b"70005\t/a\n");
    assert!(said.err.contains("KFS-E001"), "{}", said.err);
    for wrong in [
        &["du", "-s", "--max-depth", "1"][..],
        &["du", "--max-depth", "x"],
    ] {
        assert_eq!(cluster.kfs(wrong).code, Some(2));
    }
    assert!(cluster.ok(&["du", "--help"]).contains("--max-depth"));
}

#[test]
fn more_directories_than_fit_in_an_answer_are_all_shown() {
    let cluster = Cluster::new();
    let paths: Vec<String> = (0..1_300).map(|nth| format!("/d/{nth:04}")).collect();
    cluster.ok(&["mkdir", "/d"]);
    let mut arguments = vec!["mkdir"];
    arguments.extend(paths.iter().map(String::as_str));
    cluster.ok(&arguments);
    let shown = cluster.ok(&["du", "/d"]);
    let mut due: Vec<String> = paths.iter().map(|path| format!("0\t{path}")).collect();
    due.push("0\t/d".into());
    assert!(
        shown.lines().eq(due.iter()),
        "{} lines",
        shown.lines().count()
    );
}

#[test]
fn replicas_that_a_file_asks_for_are_changed_and_made_and_what_cannot_be_is_refused() {
    let cluster = Cluster::with(4);
    cluster.ok(&["mkdir", "-p", "/d/e"]);
    cluster.store("/d/f", b"one");
    cluster.store("/d/e/g", b"two");
    cluster.ok(&["setrep", "4", "/d/f"]);
    let long = |path: &str| cluster.ok(&["--json", "stat", path]);
    assert!(long("/d/f").contains("\"replication\":4"));
    let whole = || {
        let said = cluster.kfs(&["fsck"]);
        said.err.contains("all as they should be").then_some(())
    };
    wait("the fourth copy is made", whole);
    let said = cluster.kfs(&["setrep", "2", "/d"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("setrep -R"), "{said:?}");
    let did = cluster.ok(&["--json", "setrep", "-R", "1", "/d"]);
    assert_eq!(did.lines().count(), 2, "{did}");
    assert!(
        long("/d/f").contains("\"replication\":1") && long("/d/e/g").contains("\"replication\":1")
    );
    let trimmed = || {
        let status: Value = serde_json::from_str(&cluster.ok(&["status", "--json"])).unwrap();
        let servers = status["servers"].as_array().unwrap();
        let chunks = servers.iter().map(|at| at["chunks"].as_u64().unwrap());
        (chunks.sum::<u64>() == 2).then_some(())
    };
    wait("what is too much goes", trimmed);
    assert_eq!(cluster.kfs(&["cat", "/d/f"]).out, b"one");
    for (replication, code) in [("0", 2), ("17", 2)] {
        let said = cluster.kfs(&["setrep", replication, "/d/f"]);
        assert_eq!(said.code, Some(code), "{said:?}");
    }
    assert_eq!(cluster.kfs(&["setrep", "2", "/nobody"]).code, Some(3));
}

#[test]
fn modes_and_owners_are_changed_of_what_is_named_and_below_it_only_if_asked() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "-p", "/d/e"]);
    cluster.store("/d/f", b"one");
    cluster.store("/d/e/g", b"two");
    let stat = |path: &str| -> Value {
        serde_json::from_str(&cluster.ok(&["--json", "stat", path])).unwrap()
    };
    let seen = |path: &str, what: &str| stat(path)[what].as_u64().unwrap();
    let mode = |path: &str| u64::from_str_radix(stat(path)["mode"].as_str().unwrap(), 8).unwrap();
    cluster.ok(&["chmod", "700", "/d"]);
    cluster.ok(&["chmod", "u=rw,go=", "/d/f"]);
    assert_eq!((mode("/d"), mode("/d/f")), (0o700, 0o600));
    assert_eq!(mode("/d/e"), 0o755);
    let did = cluster.ok(&["--json", "chmod", "-R", "go+rX", "/d"]);
    assert_eq!(did.lines().count(), 4, "{did}");
    assert_eq!(
        (mode("/d"), mode("/d/f"), mode("/d/e")),
        (0o755, 0o644, 0o755)
    );
    cluster.ok(&["chmod", "-w", "/d/f"]);
    assert_eq!(mode("/d/f"), 0o444);
    cluster.ok(&["chown", "7:8", "/d/f"]);
    cluster.ok(&["chown", "-R", ":9", "/d/e"]);
    cluster.ok(&["chown", "11", "/"]);
    for (path, uid, gid) in [
        ("/d/f", 7, 8),
        ("/d/e", 0, 9),
        ("/d/e/g", 0, 9),
        ("/", 11, 0),
    ] {
        assert_eq!((seen(path, "uid"), seen(path, "gid")), (uid, gid), "{path}");
    }
    assert_eq!(cluster.kfs(&["cat", "/d/f"]).out, b"one");
    cluster.kfs(&["chmod", "u+q", "/d"]).failed(2, &["u+x"]);
    cluster
        .kfs(&["chown", "no such user", "/d"])
        .failed(2, &["number"]);
    let last = cluster.kfs(&["chmod", "640", "/nobody", "/d/f"]);
    last.failed(3, &["/nobody"]);
    assert_eq!(mode("/d/f"), 0o640, "the others are done");
}
