//! A command that is stopped half-way leaves nothing under the final name.
use crate::cluster::{Cluster, Said, content, ended, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};

/// A `put` from a pipe that has got some bytes and waits for more, seen by its temporary name.
#[allow(clippy::zombie_processes, reason = "whoever asks for it waits for it")]
fn half_done(cluster: &Cluster) -> (Child, ChildStdin) {
    half_done_within(cluster, "60s")
}

/// As [`half_done`]; each of its calls may take so long.
#[allow(clippy::zombie_processes, reason = "whoever asks for it waits for it")]
fn half_done_within(cluster: &Cluster, timeout: &str) -> (Child, ChildStdin) {
    let mut command = cluster.command(&["put", "-", "/f", "--timeout", timeout]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&content(3 << 20)).unwrap();
    wait("the temporary name", || {
        let names = cluster.names("/");
        assert!(
            !names.contains(&"f".to_owned()),
            "half a file has the final name"
        );
        names
            .iter()
            .any(|name| name.starts_with(".kfs-put-"))
            .then_some(())
    });
    (child, stdin)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

fn stopped_by(wanted: Signal) -> (Cluster, Said) {
    let cluster = Cluster::new();
    let (child, stdin) = half_done(&cluster);
    signal(&child, wanted);
    // The pipe is still open: the command must not wait for its end.
    let said = ended(child);
    drop(stdin);
    (cluster, said)
}

#[test]
fn an_interrupted_put_removes_what_it_has_made() {
    for wanted in [Signal::INT, Signal::TERM] {
        let (cluster, said) = stopped_by(wanted);
        said.failed(1, &["error: interrupted"]);
        assert_eq!(cluster.names("/"), [""; 0], "{wanted:?}");
    }
}

#[test]
fn a_killed_put_leaves_nothing_under_the_final_name() {
    let (cluster, said) = stopped_by(Signal::KILL);
    assert_eq!(said.code, None);
    let names = cluster.names("/");
    assert!(
        names.iter().all(|name| name.starts_with(".kfs-put-")),
        "{names:?}"
    );
    // The name is free for the next one.
    cluster.store("/f", b"whole");
    assert_eq!(cluster.ok(&["cat", "/f"]), "whole");
}

/// Kills that many of three chunkservers in the middle of a put, and gives it the rest of its bytes.
fn killed_under_a_put(cluster: &Cluster, killed: usize, timeout: &str) -> Said {
    cluster.store("/before", &content(100_000));
    let (child, mut stdin) = half_done_within(cluster, timeout);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for server in &cluster.chunkservers[..killed] {
        runtime.block_on(server.kill());
    }
    // A put that fails closes the pipe.
    let _ = stdin.write_all(&content(8 << 20));
    drop(stdin);
    ended(child)
}

#[test]
fn a_put_goes_on_when_a_chunkserver_dies() {
    let cluster = Cluster::new();
    let said = killed_under_a_put(&cluster, 1, "60s");
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut whole = content(3 << 20);
    whole.extend(content(8 << 20));
    assert!(cluster.kfs(&["cat", "/f"]).out == whole);
}

#[test]
fn a_put_whose_chunkservers_die_says_so_and_removes_what_it_has_made() {
    let cluster = Cluster::new();
    let said = killed_under_a_put(&cluster, 2, "4s");
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.err.starts_with("error[KFS-E0"), "{said:?}");
    assert_eq!(cluster.names("/"), ["before"], "{said:?}");
    assert!(cluster.kfs(&["cat", "/before"]).out == content(100_000));
}

#[test]
fn of_two_puts_under_one_name_the_first_to_end_wins_and_the_other_is_told() {
    let cluster = Cluster::new();
    let (child, stdin) = half_done(&cluster);
    cluster.store("/f", b"first");
    drop(stdin);
    ended(child).failed(4, &["error[KFS-E002]: /f exists"]);
    assert_eq!(cluster.names("/"), ["f"]);
    assert_eq!(cluster.ok(&["cat", "/f"]), "first");
}
