//! A command that is stopped half-way leaves nothing under the final name.
use crate::cluster::{Cluster, Said, content, ended};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};

/// A `put` from a pipe that has got some bytes and waits for more, seen by its temporary name.
fn half_done(cluster: &Cluster) -> (Child, ChildStdin) {
    let mut command = cluster.command(&["put", "-", "/f"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&content(3 << 20)).unwrap();
    loop {
        let names = cluster.names("/");
        assert!(
            !names.contains(&"f".to_owned()),
            "half a file has the final name"
        );
        if names.iter().any(|name| name.starts_with(".kfs-put-")) {
            return (child, stdin);
        }
    }
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

#[test]
fn a_put_whose_chunkservers_die_says_so_and_removes_what_it_has_made() {
    let cluster = Cluster::new();
    cluster.store("/before", &content(100_000));
    let (child, mut stdin) = half_done(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cluster.chunkservers[0].kill());
    // Its chain is broken now, or it will find out with the next pieces; then it closes the pipe.
    let _ = stdin.write_all(&content(8 << 20));
    drop(stdin);
    let said = ended(child);
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
