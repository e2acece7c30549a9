//! `kfs bench data` and `kfs bench recover`, small.
use crate::cluster::{command, ended, run, wait};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The command without the programs beside it that a benchmark starts.
fn alone(dir: &TempDir) -> Command {
    let alone = dir.path().join("kfs");
    std::fs::copy(env!("CARGO_BIN_EXE_kfs"), &alone).unwrap();
    Command::new(alone)
}

#[test]
fn without_the_daemons_beside_it_says_how_to_build_them() {
    let dir = tempfile::tempdir().unwrap();
    let output = alone(&dir)
        .args(["bench", "data", "--size", "4MiB"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("kfs-metaserver")
            && err.contains("help: build all programs with 'cargo build"),
        "{err}"
    );
}

/// Whether the programs are there that a benchmark starts.
fn has_daemons() -> bool {
    let daemon = Path::new(env!("CARGO_BIN_EXE_kfs")).with_file_name("kfs-chunkserver");
    if !daemon.is_file() {
        // Cargo builds another package's programs only when it tests the whole workspace, as scripts/test does.
        eprintln!("not run: {} is not built", daemon.display());
    }
    daemon.is_file()
}

/// What a benchmark printed, line by line.
fn lines(out: &[u8]) -> Vec<Value> {
    let out = std::str::from_utf8(out).unwrap();
    let line = |line| serde_json::from_str(line).unwrap();
    out.lines().map(line).collect()
}

#[track_caller]
fn number(line: &Value, name: &str) -> f64 {
    line[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} in {line}"))
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    entries.map(name).collect()
}

#[test]
fn every_case_is_measured_beside_its_floor() {
    if !has_daemons() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let said = run(command(&[
        "bench", "data", "--json", "--size", "5MiB", "--rounds", "2", "--dir",
    ])
    .arg(dir.path()));
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = lines(&said.out);
    let cases: Vec<&Value> = lines.iter().map(|line| &line["case"]).collect();
    assert_eq!(cases, ["write_r1", "write_r3", "read_r1", "read_r3"]);
    for line in &lines {
        assert_eq!(line["unit"], "MB/s");
        assert_eq!(line["bytes"], 8 << 20, "rounded up");
        assert_eq!(line["rounds"].as_array().unwrap().len(), 2, "{line}");
        let number = |name: &str| number(line, name);
        assert!(number("value") > 0.0 && number("floor") > 0.0, "{line}");
        assert!(
            (number("ratio") - number("value") / number("floor")).abs() < 0.01,
            "{line}"
        );
        assert!(
            number("rss_client_bytes") > 1e6 && number("rss_chunkserver_bytes") > 1e6,
            "{line}"
        );
    }
    assert_eq!(names(dir.path()), [""; 0], "nothing is left");
}

#[test]
fn copies_are_measured_beside_a_floor_and_beside_a_reader() {
    if !has_daemons() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ours"), b"stays").unwrap();
    let said = run(command(&[
        "bench", "recover", "--json", "--size", "21MiB", "--rounds", "2", "--dir",
    ])
    .arg(dir.path()));
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = lines(&said.out);
    let cases: Vec<&Value> = lines.iter().map(|line| &line["case"]).collect();
    assert_eq!(
        cases,
        [
            "recover_copy",
            "recover_copy_beside_reader",
            "recover_reader"
        ]
    );
    for line in &lines {
        assert_eq!(line["unit"], "MB/s");
        assert_eq!(line["rounds"].as_array().unwrap().len(), 2, "{line}");
        let number = |name: &str| number(line, name);
        let is_reader = line["case"] == "recover_reader";
        let beside = if is_reader { "alone" } else { "floor" };
        assert!(number("value") > 0.0 && number(beside) > 0.0, "{line}");
        assert!(
            (number("ratio") - number("value") / number(beside)).abs() < 0.01,
            "{line}"
        );
        let each = line[format!("{beside}_rounds")].as_array().unwrap();
        assert_eq!(each.len(), 2, "{line}");
        if is_reader {
            continue;
        }
        assert_eq!(line["bytes"], 24 << 20, "rounded up");
        // Six files of 4 MiB with two replicas each: of three servers, one has a third of the replicas at least.
        for copied in line["copied_rounds"].as_array().unwrap() {
            let copied = copied.as_u64().unwrap();
            assert!((16 << 20..=24 << 20).contains(&copied), "{line}");
            assert!(copied.is_multiple_of(4 << 20), "{line}");
        }
        assert_eq!(line["copied_rounds"].as_array().unwrap().len(), 2, "{line}");
        assert!(number("rss_chunkserver_bytes") > 1e6, "{line}");
        // Counted from when the server was last heard of, it may be over when that is killed.
        assert!((0.0..30.0).contains(&number("grace_s")), "{line}");
        assert!(line["floor_manner"].is_string() && line["copies_failed"].is_u64());
        let has_cpu = line["case"] == "recover_copy";
        for cpu in ["cpu_s", "cpu_floor_s"] {
            assert_eq!(line[cpu].is_f64(), has_cpu, "{cpu} in {line}");
        }
    }
    assert_eq!(names(dir.path()), ["ours"], "nothing else is left");
}

#[test]
fn a_recovery_that_is_interrupted_leaves_nothing() {
    if !has_daemons() {
        return;
    }
    for wanted in [Signal::INT, Signal::TERM] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(&["bench", "recover", "--size", "64MiB", "--dir"]);
        command.arg(dir.path());
        let child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait("a chunkserver", || {
            let bench = names(dir.path()).pop()?;
            let servers = dir.path().join(bench).join("cluster");
            servers.join("chunkserver-3").is_dir().then_some(())
        });
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        if wanted == Signal::INT {
            // As a terminal does: the servers hear it, too, and what is seen first may be their end.
            kill_process_group(pid, wanted).unwrap();
        } else {
            kill_process(pid, wanted).unwrap();
        }
        ended(child).failed(1, &["error: interrupted"]);
        assert_eq!(names(dir.path()), [""; 0], "{wanted:?}");
    }
}

#[test]
fn a_recovery_of_nothing_or_of_more_than_the_disk_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Alone, so that it fills no disk whatever it refuses.
    let programs = tempfile::tempdir().unwrap();
    let recover = |size: &str, dir: &Path| {
        run(alone(&programs)
            .args(["bench", "recover", "--size", size, "--dir"])
            .arg(dir))
    };
    recover("0", dir.path()).failed(2, &["without any bytes"]);
    recover("900000TiB", dir.path()).failed(7, &["are needed", "help: ", "--size"]);
    recover("10000000TiB", dir.path()).failed(7, &["are needed"]);
    assert_eq!(names(dir.path()), [""; 0]);
    recover("4MiB", &dir.path().join("missing")).failed(3, &["missing"]);
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    recover("4MiB", &file).failed(1, &["directory for the benchmark"]);
}
