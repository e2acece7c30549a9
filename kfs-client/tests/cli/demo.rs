//! `kfs demo`, as a stranger runs it first.
use crate::cluster::{command, ended, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn the_tour_says_each_step_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(command(&["demo", "--exit", "--size", "3MiB", "--dir"]).arg(dir.path()));
    assert_eq!(said.code, Some(0), "{said:?}");
    let out = String::from_utf8(said.out).unwrap();
    let sums: Vec<&str> = out
        .lines()
        .filter_map(|line| line.trim().strip_prefix("SHA-256 "))
        .collect();
    assert_eq!(sums.len(), 2, "{out}");
    assert_eq!((sums[0].len(), sums[0]), (64, sums[1]), "{out}");
    for part in [
        "4 chunkservers",
        "3.0 MiB at 3 replicas",
        "killing that chunkserver",
        "refuses",
        "from the replica on 127.0.0.1:",
        "1 copy was made (3.0 MiB)",
    ] {
        assert!(out.contains(part), "'{part}' is not in: {out}");
    }
    // The data can be looked at afterwards, and the demo can be given again.
    assert!(dir.path().join("meta/identity").is_file());
    let again = run(command(&["demo", "--exit", "--size", "1", "--dir"]).arg(dir.path()));
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[test]
fn programs_get_the_steps_as_objects() {
    let said = run(&mut command(&[
        "demo",
        "--exit",
        "--json",
        "--size",
        "65537",
        "--chunkservers",
        "5",
    ]));
    assert_eq!(said.code, Some(0), "{said:?}");
    let out = String::from_utf8(said.out).unwrap();
    let steps: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&Value> = steps.iter().map(|step| &step["step"]).collect();
    assert_eq!(
        names,
        ["started", "stored", "killed", "read", "copies_made"]
    );
    assert_eq!(steps[0]["chunkservers"].as_array().unwrap().len(), 5);
    assert_eq!(steps[1]["sha256"], steps[3]["sha256"]);
    assert_eq!(steps[2]["port_refuses"], true);
    assert_eq!(steps[3]["equal"], true);
    assert_eq!(steps[4]["copies"], 1);
    assert_eq!(steps[4]["bytes"], 65_537);
    assert!(
        !steps[3]["replicas"]
            .as_array()
            .unwrap()
            .contains(&steps[2]["chunkserver"])
    );
    let dir = steps[0]["dir"].as_str().unwrap();
    assert!(
        !std::path::Path::new(dir).exists(),
        "a temporary directory is removed"
    );
}

#[test]
fn without_a_server_to_spare_it_says_that_nobody_gets_copies() {
    let said = run(&mut command(&[
        "demo",
        "--exit",
        "--size",
        "1",
        "--chunkservers",
        "3",
    ]));
    assert_eq!(said.code, Some(0), "{said:?}");
    let out = String::from_utf8(said.out).unwrap();
    assert!(out.contains("nobody is left who could get"), "{out}");
}

#[test]
fn it_stays_up_for_the_commands_it_prints() {
    let mut demo = command(&["demo", "--json", "--size", "1MiB"]);
    let mut demo = demo
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let meta = loop {
        let step: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if step["step"] == "stays_up" {
            break step["meta"].as_str().unwrap().to_owned();
        }
    };
    let listed = run(&mut command(&["--meta", &meta, "ls", "/demo"]));
    assert_eq!(
        (listed.code, &listed.out[..]),
        (Some(0), &b"file\n"[..]),
        "{listed:?}"
    );
    kill_process(Pid::from_raw(demo.id() as i32).unwrap(), Signal::INT).unwrap();
    let said = ended(demo);
    assert_eq!(said.code, Some(0), "{said:?}");
}
