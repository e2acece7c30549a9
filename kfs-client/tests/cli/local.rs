//! `--local DIR`: a cluster for one command, its data kept for the next.
use crate::cluster::{command, content, feed, run};
use std::io::Write;
use std::process::Stdio;

#[test]
fn what_one_command_stores_the_next_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let local = ["--local", data.to_str().unwrap()];
    let bytes = content(150_000);
    let put = feed(command(&local).args(["put", "-", "/f"]), &bytes);
    assert_eq!(put.code, Some(0), "{put:?}");
    let stat = run(command(&local).args(["stat", "/f"]));
    assert!(
        String::from_utf8_lossy(&stat.out).contains("replicas: 3"),
        "{stat:?}"
    );
    assert!(run(command(&local).args(["cat", "/f"])).out == bytes);
    let health = run(command(&local).arg("status"));
    assert!(health.out.starts_with(b"HEALTH_OK"), "{health:?}");
}

#[test]
fn two_commands_do_not_share_a_directory_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let local = ["--local", dir.path().to_str().unwrap()];
    let mut first = command(&local);
    first
        .args(["put", "-", "/f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(&content(8 << 20)).unwrap();
    // More than a pipe and the command's read-ahead hold: it is at work, and its servers are up.
    run(command(&local).args(["ls", "/"])).failed(7, &["error[KFS-E064]: "]);
    drop(stdin);
    assert!(first.wait().unwrap().success());
    assert_eq!(run(command(&local).args(["ls", "/"])).out, b"f\n");
}

#[test]
fn a_directory_that_is_somebody_elses_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("meta")).unwrap();
    std::fs::write(dir.path().join("meta/thesis.tex"), "x").unwrap();
    run(command(&["--local", dir.path().to_str().unwrap()]).args(["ls", "/"]))
        .failed(7, &["error[KFS-E062]: "]);
    assert_eq!(
        std::fs::read_dir(dir.path().join("meta")).unwrap().count(),
        1
    );
}
