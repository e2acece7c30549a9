//! `kfs bench data`, small.
use crate::cluster::{command, run};
use serde_json::Value;
use std::path::Path;

#[test]
fn without_the_daemons_beside_it_says_how_to_build_them() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("kfs");
    std::fs::copy(env!("CARGO_BIN_EXE_kfs"), &alone).unwrap();
    let output = std::process::Command::new(alone)
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

#[test]
fn every_case_is_measured_beside_its_floor() {
    let daemon = Path::new(env!("CARGO_BIN_EXE_kfs")).with_file_name("kfs-chunkserver");
    if !daemon.is_file() {
        // Cargo builds another package's programs only when it tests the whole workspace, as scripts/test does.
        eprintln!("not run: {} is not built", daemon.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let said = run(command(&[
        "bench", "data", "--json", "--size", "5MiB", "--rounds", "2", "--dir",
    ])
    .arg(dir.path()));
    assert_eq!(said.code, Some(0), "{said:?}");
    let out = String::from_utf8(said.out).unwrap();
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let cases: Vec<&Value> = lines.iter().map(|line| &line["case"]).collect();
    assert_eq!(cases, ["write_r1", "write_r3", "read_r1", "read_r3"]);
    for line in &lines {
        assert_eq!(line["unit"], "MB/s");
        assert_eq!(line["bytes"], 8 << 20, "rounded up");
        assert_eq!(line["rounds"].as_array().unwrap().len(), 2, "{line}");
        let number = |name: &str| {
            line[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{name} in {line}"))
        };
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
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}
