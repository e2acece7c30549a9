//! `kfs-logcompactor` beside a meta server that serves, and checkpoints over restarts and `kill -9`.
use crate::cluster::{Cluster, content, expect_content, put};
use std::process::{Command, Output};

const COMPACTOR: &str = env!("CARGO_BIN_EXE_kfs-logcompactor");

fn compactor(data: &std::path::Path, more: &[&str]) -> Output {
    let mut command = Command::new(COMPACTOR);
    command.arg("--data").arg(data).args(more);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_compacted_beside_its_server_gives_everything_at_the_next_start() {
    let mut cluster = Cluster::start(3);
    let data = cluster.meta_dir();
    let bytes = content(1, 300_000);
    put(&cluster.client(), "/before", &bytes).await;
    // Each start begins a segment: what was before is closed.
    for round in 0..3 {
        cluster.meta.kill();
        cluster.restart_meta();
        put(
            &cluster.client(),
            &format!("/{round}"),
            &content(round, 9_000),
        )
        .await;
        let read = compactor(&data, &["--verify"]);
        assert!(read.status.success(), "{}", said(&read));
        assert!(
            said(&read).starts_with("whole up to record "),
            "{}",
            said(&read)
        );
        let made = compactor(&data, &[]);
        assert!(made.status.success(), "{}", said(&made));
        assert!(said(&made).contains(" made, "), "{}", said(&made));
        let again = compactor(&data, &[]);
        assert!(
            said(&again).contains("has everything already"),
            "{}",
            said(&again)
        );
    }
    let kept = std::fs::read_dir(data.join("checkpoint")).unwrap().count();
    assert_eq!(kept, 2);
    assert!(
        !data.join("log/log.1").exists(),
        "two checkpoints stand for it"
    );
    cluster.meta.kill();
    cluster.restart_meta();
    let log = cluster.meta.stderr();
    assert!(log.contains("a checkpoint was loaded"), "{log}");
    expect_content(&cluster.client(), "/before", &bytes).await;
    for round in 0..3 {
        expect_content(
            &cluster.client(),
            &format!("/{round}"),
            &content(round, 9_000),
        )
        .await;
    }
}

#[test]
fn a_directory_without_a_meta_server_and_a_wrong_flag_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = compactor(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(
        said(&output).contains("no identity file"),
        "{}",
        said(&output)
    );
    let output = compactor(&dir.path().join("nowhere"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let output = compactor(dir.path(), &["--everything"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
