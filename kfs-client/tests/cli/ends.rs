//! `head`, `tail` and `checksum`: no byte too many, none missing, at every edge that a file has.
use crate::cluster::{Cluster, content, run, wait};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

/// What the program of this machine says of the same bytes.
fn here(cluster: &Cluster, program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let local = cluster.local("here", bytes);
    let input = std::fs::File::open(local).unwrap();
    let said = run(Command::new(program).args(arguments).stdin(input));
    assert_eq!(said.code, Some(0), "{program} {arguments:?}: {}", said.err);
    said.out
}

#[test]
fn the_ends_of_a_file_are_those_that_this_machines_own_head_and_tail_show() {
    let cluster = Cluster::new();
    let long_lines: Vec<u8> =
        [vec![b'x'; 1_500_000], vec![b'\n'; 3], vec![b'y'; 1_100_000]].concat();
    let many_lines: Vec<u8> = (0..400_000)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    let files: [(&str, &[u8]); 7] = [
        ("/empty", b""),
        ("/newline", b"\n"),
        ("/one", b"x"),
        ("/ended", b"a\nbb\nccc\n"),
        ("/open", b"a\n\nbb\n\nccc"),
        ("/long", &long_lines),
        ("/many", &many_lines),
    ];
    for (path, bytes) in files {
        cluster.store(path, bytes);
        let amounts = ["0", "1", "2", "3", "4", "11", "1048577", "300000"];
        for (verb, flag) in ["head", "tail"]
            .into_iter()
            .flat_map(|v| [(v, "-n"), (v, "-c")])
        {
            for amount in amounts {
                let said = cluster.kfs(&[verb, flag, amount, path]);
                assert_eq!(
                    said.code,
                    Some(0),
                    "{verb} {flag} {amount} {path}: {}",
                    said.err
                );
                let expected = here(&cluster, verb, &[flag, amount], bytes);
                assert!(said.out == expected, "{verb} {flag} {amount} {path}");
            }
        }
    }
    let ten: String = (0..10).map(|n| format!("{n}\n")).collect();
    assert_eq!(
        cluster.ok(&["head", "/many"]),
        ten,
        "ten lines if nobody says how many"
    );
    assert_eq!(cluster.ok(&["tail", "-n1", "/many"]), "399999\n");
}

#[test]
fn several_files_have_headings_and_one_that_is_not_there_does_not_stop_the_others() {
    let cluster = Cluster::new();
    cluster.store("/a", b"1\n2\n");
    cluster.store("/b", b"3\n4\n");
    let both = cluster.ok(&["head", "-n1", "/a", "/b"]);
    assert_eq!(both, "==> /a <==\n1\n\n==> /b <==\n3\n");
    assert_eq!(cluster.ok(&["tail", "-q", "-n1", "/a", "/b"]), "2\n4\n");
    let said = cluster.kfs(&["tail", "-n1", "/missing", "/a"]);
    said.failed(3, &["KFS-E001", "/missing"]);
    assert!(said.out.ends_with(b"2\n"), "{said:?}");
}

#[test]
fn a_directory_has_no_beginning_no_end_and_no_sum() {
    let cluster = Cluster::new();
    cluster.ok(&["mkdir", "/d"]);
    for verb in ["head", "tail", "checksum"] {
        cluster
            .kfs(&[verb, "/d"])
            .failed(1, &["error[KFS-E004]: ", "/d"]);
        cluster
            .kfs(&[verb, "/no"])
            .failed(3, &["error[KFS-E001]: ", "/no"]);
        cluster.kfs(&[verb]).failed(2, &["PATH"]);
    }
    cluster
        .kfs(&["head", "-c", "1", "-n", "1", "/d"])
        .failed(2, &["--lines"]);
    cluster.kfs(&["head", "-n", "-1", "/d"]).failed(2, &["-1"]);
    cluster
        .kfs(&["tail", "-c", "1furlong", "/d"])
        .failed(2, &["is not a size"]);
    cluster
        .kfs(&["tail", "-f", "/d", "/e"])
        .failed(2, &["follows one file"]);
}

#[test]
fn what_is_added_to_a_followed_file_comes_out_once_and_its_removal_ends_it() {
    let cluster = Cluster::new();
    cluster.store("/log", b"first\n");
    let mut tail = cluster.command(&["tail", "-f", "-n1", "/log"]);
    let mut tail = Running(tail.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(Result::unwrap);
    assert_eq!(next().as_deref(), Some("first"));
    for line in ["second", "third"] {
        let added = cluster.feed(&["append", "-", "/log"], format!("{line}\n").as_bytes());
        assert_eq!(added.code, Some(0), "{added:?}");
        assert_eq!(next().as_deref(), Some(line));
    }
    cluster.ok(&["rm", "/log"]);
    let ended = wait("tail to end", || tail.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert_eq!(next(), None, "nothing is said twice");
}

/// A command that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, as a rule.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_sum_is_the_one_that_sha256sum_makes_and_checks() {
    let cluster = Cluster::new();
    let odd = OsStr::from_bytes(b"/odd\\name\n\xff");
    for (path, len) in [("/empty", 0), ("/f", 3_000_001)] {
        let bytes = content(len);
        cluster.store(path, &bytes);
        let own = String::from_utf8(here(&cluster, "sha256sum", &[], &bytes)).unwrap();
        let sum = own.split_whitespace().next().unwrap();
        assert_eq!(cluster.ok(&["checksum", path]), format!("{sum}  {path}\n"));
        let told: serde_json::Value =
            serde_json::from_str(&cluster.ok(&["--json", "checksum", path])).unwrap();
        assert_eq!(
            (&told["sha256"], &told["bytes"]),
            (&sum.into(), &len.into())
        );
    }
    let local = cluster.local("source", b"odd");
    let put = run(cluster.command(&["put"]).arg(&local).arg(odd));
    assert_eq!(put.code, Some(0), "{put:?}");
    let said = run(cluster.command(&["checksum"]).arg(odd));
    let own = run(Command::new("sha256sum").arg(&local));
    let own = String::from_utf8(own.out).unwrap();
    let expected = [
        b"\\",
        own.split_whitespace().next().unwrap().as_bytes(),
        b"  /odd\\\\name\\n\xff\n",
    ];
    assert_eq!(said.out, expected.concat());
    let said = run(cluster.command(&["checksum", "--json"]).arg(odd));
    assert!(
        String::from_utf8(said.out)
            .unwrap()
            .contains("\"name_b64\":\"b2RkXG5hbWUK/w==\"")
    );
}
