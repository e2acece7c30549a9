//! Checkpoints of the meta server: what they hold, what they let go of, and starts that read them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::*;
use kfs_core::machine::*;
use kfs_core::meta::Event;
use kfs_core::meta::checkpoint::format::HEADER_BYTES;
use kfs_core::meta::checkpoint::{Loader, Writer};
use kfs_core::meta::oplog::{Damage, More};
use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Refusal, Role, Status};
use meta_rig::*;
use std::collections::BTreeSet;

/// A cluster in which there is something of everything.
fn lively() -> (Rig, Client) {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let mut servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
    for server in &mut servers {
        rig.join(server, Vec::new());
    }
    for name in ["a", "b", "c"] {
        rig.mutate(&mut client, mkdir(name)).unwrap();
    }
    let servers: Vec<&Server> = servers.iter().collect();
    let file = rig.create(&mut client, "a/written");
    let grant = rig.allocate(&mut client, &servers, file, 0).unwrap();
    let basis = vec![synced(&grant, 100)];
    rig.mutate(&mut client, set_size(file, 100, basis)).unwrap();
    let unnamed = rig.create(&mut client, "a/not named by a report yet");
    rig.allocate(&mut client, &servers, unnamed, 0).unwrap();
    let temporary = create("b/goes with its session", Keep::UntilSessionEnds);
    rig.mutate(&mut client, temporary).unwrap();
    let long = "x".repeat(255);
    rig.mutate(&mut client, create(&format!("c/{long}"), Keep::Always))
        .unwrap();
    (rig, client)
}

fn bytes_of(state: &State) -> (Vec<u8>, u64) {
    let mut writer = Writer::new(state.clone());
    let mut bytes = Vec::new();
    while let Some(more) = writer.next_bytes() {
        bytes.extend(more);
    }
    (bytes, writer.hash())
}

fn load(cluster: ClusterId, bytes: &[u8]) -> Result<State, Damage> {
    let mut loader = Loader::new("checkpoint/checkpoint.1".into(), cluster);
    let loaded = loader.feed(bytes, More::Ends)?;
    Ok(loaded.expect("a file that has ended is whole or damaged").0)
}

fn cluster_of(rig: &Rig) -> ClusterId {
    kfs_core::identity::Identity::decode(&rig.disk.files["identity"])
        .unwrap()
        .cluster
}

fn checkpoint(rig: &mut Rig, link: LinkId) -> Result<CheckpointMade, Refusal> {
    match rig.query(link, QueryOp::Checkpoint)? {
        Answer::Checkpoint(made) => Ok(made),
        other => panic!("{other:?}"),
    }
}

fn names(rig: &Rig, dir: &str) -> Vec<String> {
    let of = |path: &String| path.strip_prefix(dir).map(str::to_owned);
    rig.disk.files.keys().filter_map(of).collect()
}

/// Records until the log has gone on to another segment.
fn fill_a_segment(rig: &mut Rig, client: &mut Client) {
    let before = rig.disk.segments().len();
    for nth in 0.. {
        assert!(nth < 500, "the log goes on to another segment");
        let name = format!("a/{}-{nth}", rig.disk.segments().last().unwrap().len());
        let made = rig.mutate(client, mkdir(&name));
        if made.is_ok() {
            rig.mutate(client, rmdir(&name)).unwrap();
        }
        if rig.disk.segments().len() > before {
            return;
        }
    }
}

#[test]
fn what_is_loaded_is_what_was_written() {
    let (rig, _) = lively();
    let state = rig.meta.state().unwrap();
    let (bytes, hash) = bytes_of(state);
    let loaded = load(cluster_of(&rig), &bytes).unwrap();
    assert_eq!(state.difference(&loaded), None);
    loaded.check();
    assert_eq!(
        bytes_of(&loaded),
        (bytes, hash),
        "equal states, equal bytes"
    );
}

#[test]
fn a_state_of_many_blocks_is_loaded_in_pieces_of_any_size() {
    let (mut rig, mut client) = lively();
    for nth in 0..4_000 {
        let name = format!("a/{nth}-{}", "n".repeat(100));
        if rig
            .mutate(&mut client, create(&name, Keep::Always))
            .is_err()
        {
            rig.pass(Duration::from_secs(1));
        }
    }
    let state = rig.meta.state().unwrap().clone();
    let (bytes, _) = bytes_of(&state);
    assert!(bytes.len() > 600_000, "several blocks, not {}", bytes.len());
    for at_once in [1_000, 65_536, 1 << 20] {
        let mut loader = Loader::new("checkpoint/checkpoint.1".into(), cluster_of(&rig));
        let mut pieces = bytes.chunks(at_once).peekable();
        let loaded = loop {
            let piece = pieces.next().expect("it ends with its last piece");
            let more = match pieces.peek() {
                Some(_) => More::Follows,
                None => More::Ends,
            };
            if let Some((loaded, _)) = loader.feed(piece, more).unwrap() {
                break loaded;
            }
        };
        assert_eq!(state.difference(&loaded), None);
    }
}

#[test]
fn no_prefix_and_no_flipped_bit_passes_for_a_checkpoint() {
    let (rig, _) = lively();
    let (bytes, _) = bytes_of(rig.meta.state().unwrap());
    let cluster = cluster_of(&rig);
    for len in 0..bytes.len() {
        assert!(load(cluster, &bytes[..len]).is_err(), "cut at {len}");
    }
    let behind_header = HEADER_BYTES * 8..bytes.len() * 8;
    let in_header = (0..64 * 8).chain((HEADER_BYTES - 8) * 8..HEADER_BYTES * 8);
    for bit in in_header.chain(behind_header) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(load(cluster, &bad).is_err(), "bit {bit}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(load(cluster, &longer).is_err(), "a byte behind its end");
    assert!(load(ClusterId(1), &bytes).is_err(), "another cluster's");
}

#[test]
fn a_checkpoint_of_a_newer_format_is_refused_by_name() {
    let (rig, _) = lively();
    let (mut bytes, _) = bytes_of(rig.meta.state().unwrap());
    bytes[8] = 2;
    let sum = kfs_core::block::crc(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    let damage = load(cluster_of(&rig), &bytes).unwrap_err().to_string();
    assert!(
        damage.contains("format version 1") && damage.contains("found 2"),
        "{damage}"
    );
}

#[test]
fn a_start_reads_the_newest_checkpoint_and_the_log_behind_it() {
    let (mut rig, mut client) = lively();
    let made = checkpoint(&mut rig, client.link).unwrap();
    assert_eq!(made.seq, rig.meta.state().unwrap().seq());
    assert!(made.hash.is_some());
    assert_eq!(
        names(&rig, "checkpoint/"),
        [format!("checkpoint.{}", made.seq)]
    );
    let again = checkpoint(&mut rig, client.link).unwrap();
    assert_eq!(
        (again.seq, again.hash),
        (made.seq, None),
        "it has everything"
    );
    rig.mutate(&mut client, mkdir("behind it")).unwrap();
    let before = rig.meta.state().unwrap().clone();
    // If the log before it were read, this would be seen.
    let name = rig.disk.segments()[0].clone();
    assert_eq!(rig.disk.segments().len(), 1);
    rig.restart();
    let after = rig.meta.state().unwrap();
    assert_eq!(after.seq(), before.seq().next(), "the epoch's record");
    let link = rig.open_link(Role::Client);
    assert!(rig.stat(link, "behind it").is_ok());
    assert_eq!(rig.status(link).checkpoint.newest, Some(made.seq));
    assert!(
        rig.disk.files.contains_key(&name),
        "one checkpoint is not enough to do without"
    );
}

#[test]
fn results_are_remembered_across_a_checkpoint_and_a_restart() {
    let (mut rig, mut client) = lively();
    let op = mkdir("once");
    let number = rig.begin(&mut client, op.clone());
    let first = rig.mutated(client.link, number).expect("it is answered");
    checkpoint(&mut rig, client.link).unwrap();
    rig.restart();
    rig.resume(&mut client);
    let request = client.request(client.last, op);
    let asked = rig.send(client.link, request);
    let again = rig.mutated(client.link, asked).expect("it is answered");
    assert_eq!(again.outcome, first.outcome, "not done twice");
}

#[test]
fn two_checkpoints_are_kept_and_the_log_from_the_older_on() {
    let (mut rig, mut client) = lively();
    let mut made = Vec::new();
    for _ in 0..4 {
        fill_a_segment(&mut rig, &mut client);
        made.push(checkpoint(&mut rig, client.link).unwrap().seq);
    }
    rig.mutate(&mut client, mkdir("last")).unwrap();
    let kept = BTreeSet::from([made[2], made[3]].map(|seq| format!("checkpoint.{seq}")));
    assert_eq!(BTreeSet::from_iter(names(&rig, "checkpoint/")), kept);
    let first = |name: &String| name.rsplit('.').next().unwrap().parse::<u64>().unwrap();
    let firsts: Vec<u64> = rig.disk.segments().iter().map(first).collect();
    assert!(firsts[0] > 1, "the oldest segments are gone: {firsts:?}");
    assert!(
        firsts[0] <= made[2].0 + 1 && firsts[1] > made[2].0 + 1,
        "{firsts:?}, {made:?}"
    );
    let before = rig.meta.state().unwrap().clone();

    // The newest one is damaged: the older one is used, with more of the log.
    let newest = format!("checkpoint/checkpoint.{}", made[3]);
    let mut damaged = rig.disk.clone();
    let bytes = damaged.files.get_mut(&newest).unwrap();
    let middle = bytes.len() - 60;
    bytes[middle] ^= 0x10;
    let mut older = Rig::start(rig.config.clone(), damaged);
    assert_eq!(older.meta.state().unwrap().seq(), before.seq().next());
    let link = older.open_link(Role::Client);
    assert!(older.stat(link, "last").is_ok());
    assert_eq!(older.status(link).checkpoint.newest, Some(made[2]));
    assert!(
        older.disk.files.contains_key(&format!("{newest}.damaged")),
        "kept for who wants to look"
    );
    assert!(!older.disk.files.contains_key(&newest));
    // Both are: nothing is guessed.
    let mut damaged = rig.disk.clone();
    for seq in [made[2], made[3]] {
        let bytes = damaged
            .files
            .get_mut(&format!("checkpoint/checkpoint.{seq}"))
            .unwrap();
        bytes.truncate(bytes.len() / 2);
    }
    let fault = refused_start(&rig, damaged);
    for seq in [made[2], made[3]] {
        assert!(
            fault.what.contains(&format!("checkpoint.{seq}")),
            "{fault:?}"
        );
    }
}

/// A start that must be refused, with nothing changed.
fn refused_start(rig: &Rig, disk: Disk) -> Fault {
    let before = disk.clone();
    let mut next = Rig::on(rig.config.clone(), disk);
    next.input(Input::Wake);
    let fault = next.halted.expect("it does not start");
    assert_eq!(fault.kind, FaultKind::Corrupt, "{fault:?}");
    assert_eq!(next.disk.files, before.files, "nothing was changed");
    fault
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_refused() {
    let (mut rig, mut client) = lively();
    let mut old = rig.disk.clone();
    fill_a_segment(&mut rig, &mut client);
    let made = checkpoint(&mut rig, client.link).unwrap();
    let name = format!("checkpoint/checkpoint.{}", made.seq);
    old.files
        .insert(name.clone(), rig.disk.files[&name].clone());
    old.dirs.insert("checkpoint".into());
    let fault = refused_start(&rig, old);
    assert!(fault.what.contains("goes on to record"), "{fault:?}");

    // And one whose part between is missing.
    for _ in 0..3 {
        fill_a_segment(&mut rig, &mut client);
    }
    let mut gap = rig.disk.clone();
    let segments = gap.segments();
    for name in &segments[..segments.len() - 1] {
        gap.files.remove(name);
    }
    let fault = refused_start(&rig, gap);
    assert!(
        fault.what.contains("a part of the log is missing"),
        "{fault:?}"
    );
    assert!(fault.what.contains(&made.seq.to_string()), "{fault:?}");
}

#[test]
fn a_checkpoint_that_fails_harms_nothing_and_is_tried_again() {
    for (verb, end) in [
        ("makedir", "checkpoint"),
        ("create", ".tmp"),
        ("write", ".tmp"),
        ("sync", ".tmp"),
        ("read", ".tmp"),
        ("rename", ".tmp"),
    ] {
        let (mut rig, mut client) = lively();
        rig.disk
            .fails
            .push((verb, end.to_owned(), DiskError::NoSpace));
        let refusal = checkpoint(&mut rig, client.link).unwrap_err();
        assert_eq!(refusal.status, Status::LocalIo, "{verb}: {refusal:?}");
        assert!(rig.halted.is_none(), "{verb}");
        assert!(
            names(&rig, "checkpoint/").is_empty(),
            "{verb}: it is taken away"
        );
        rig.mutate(&mut client, mkdir("goes on")).unwrap();
        let why = rig.status(client.link).checkpoint.failed;
        assert!(why.is_some_and(|why| why.contains("no space")), "{verb}");
        rig.disk.fails.clear();
        checkpoint(&mut rig, client.link).unwrap();
        assert_eq!(rig.status(client.link).checkpoint.failed, None);
        rig.restart();
    }
}

#[test]
fn what_is_read_back_otherwise_than_it_was_written_is_no_checkpoint() {
    let (mut rig, client) = lively();
    rig.hold = true;
    let asked = rig.send(
        client.link,
        Query {
            op: QueryOp::Checkpoint,
        },
    );
    let reads = |rig: &Rig| {
        let next = rig.pending.front();
        next.is_some_and(|(_, op)| matches!(op, DiskOp::Read { .. }))
    };
    while !reads(&rig) {
        assert!(
            rig.run_disk_once(),
            "it is read back before it has its name"
        );
    }
    let (name, bytes) = rig
        .disk
        .files
        .iter_mut()
        .find(|(name, _)| name.ends_with(".tmp"))
        .unwrap();
    let (name, middle) = (name.clone(), bytes.len() / 2);
    bytes[middle] ^= 1;
    rig.run_disk();
    assert!(!rig.disk.files.contains_key(&name));
    assert!(names(&rig, "checkpoint/").is_empty());
    match rig.answer(client.link, asked) {
        Some(kfs_core::wire::Head::Answered(answered)) => {
            let refusal = answered.outcome.unwrap_err();
            assert!(refusal.detail.contains("read back"), "{refusal:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_go_on_while_a_checkpoint_is_made_and_are_not_in_it() {
    let (mut rig, mut client) = lively();
    rig.hold = true;
    let asked = rig.send(
        client.link,
        Query {
            op: QueryOp::Checkpoint,
        },
    );
    let seq = rig.meta.state().unwrap().seq();
    assert!(rig.run_disk_once());
    rig.begin(&mut client, mkdir("later"));
    rig.hold = false;
    rig.run_disk();
    match rig.answer(client.link, asked) {
        Some(kfs_core::wire::Head::Answered(answered)) => match answered.outcome.unwrap() {
            Answer::Checkpoint(made) => assert_eq!(made.seq, seq),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    rig.restart();
    let link = rig.open_link(Role::Client);
    assert!(rig.stat(link, "later").is_ok());
}

#[test]
fn an_unfinished_checkpoint_is_removed_at_the_next_start_and_a_strange_file_is_not() {
    let (mut rig, client) = lively();
    checkpoint(&mut rig, client.link).unwrap();
    for name in ["checkpoint.9.tmp", "notes"] {
        let path = format!("checkpoint/{name}");
        rig.disk.files.insert(path, b"half".to_vec());
    }
    rig.restart();
    let left = names(&rig, "checkpoint/");
    assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
    assert!(left.iter().any(|name| name == "notes"), "{left:?}");
}

#[test]
fn checkpoints_are_made_by_the_clock() {
    let mut config = config();
    config.checkpoint_every = Some(Duration::from_secs(600));
    let mut rig = Rig::start(config, Disk::default());
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("a")).unwrap();
    assert!(names(&rig, "checkpoint/").is_empty());
    rig.pass(Duration::from_secs(601));
    assert_eq!(names(&rig, "checkpoint/").len(), 1);
    assert!(
        rig.events
            .iter()
            .all(|(_, event)| matches!(event, Event::Ready { .. })),
        "nobody asked for it"
    );
}

#[test]
fn the_age_of_the_newest_checkpoint_is_that_of_its_state_and_of_an_older_start_at_least_that() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (mut rig, _) = lively();
    let link = rig.open_link(Role::Client);
    let age = |rig: &mut Rig, link| {
        let status = *rig.status(link).checkpoint;
        assert_eq!(status.newest.is_some(), status.age.is_some());
        status.age
    };
    assert_eq!(age(&mut rig, link), None);
    // It is written for a minute: what is in it is as old as the state was when it was begun.
    rig.hold = true;
    rig.send(
        link,
        Query {
            op: QueryOp::Checkpoint,
        },
    );
    rig.now.mono = rig.now.mono + MINUTE;
    rig.hold = false;
    rig.run_disk();
    assert_eq!(age(&mut rig, link), Some(CheckpointAge::Exactly(MINUTE)));
    rig.pass(MINUTE);
    assert_eq!(
        age(&mut rig, link),
        Some(CheckpointAge::Exactly(2 * MINUTE))
    );
    rig.restart();
    let link = rig.open_link(Role::Client);
    rig.pass(MINUTE);
    assert_eq!(age(&mut rig, link), Some(CheckpointAge::Over(MINUTE)));
    rig.newcomer_joins();
    let mut client = rig.client(2);
    rig.mutate(&mut client, mkdir("later")).unwrap();
    checkpoint(&mut rig, link).unwrap();
    assert_eq!(
        age(&mut rig, link),
        Some(CheckpointAge::Exactly(Duration::ZERO))
    );
}
