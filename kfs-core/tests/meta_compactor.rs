//! The off-line compactor: what it reads, what it makes, and that it harms no server beside it.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use kfs_core::ids::*;
use kfs_core::machine::*;
use kfs_core::meta::compactor::{Aim, Compacted, Compactor};
use kfs_core::meta::{Config, Event};
use kfs_core::time::Now;
use kfs_core::wire::Role;
use kfs_core::wire::client_meta::*;
use meta_rig::*;

type Ended = Result<Result<Compacted, String>, Fault>;

/// Runs one on a disk, at most so many operations; `None`: it was killed before its end.
fn run(disk: &mut Disk, aim: Aim, most: usize) -> Option<Ended> {
    run_of(config(), disk, aim, most, &mut Vec::new())
}

/// As [`run`], and what it did to the disk.
fn run_of(
    config: Config,
    disk: &mut Disk,
    aim: Aim,
    most: usize,
    done: &mut Vec<DiskOp>,
) -> Option<Ended> {
    let mut compactor = Compactor::new(config, aim);
    let mut next = Some(Input::Wake);
    let mut ops = Vec::new();
    for _ in 0..=most {
        compactor.handle(Now::default(), next.take()?);
        while let Some(output) = compactor.poll() {
            match output {
                Output::Disk { ticket, op } => ops.push((ticket, op)),
                Output::Event {
                    event: Event::Compacted(done),
                    ..
                } => return Some(Ok(done)),
                Output::Halt { fault } => return Some(Err(fault)),
                other => panic!("a compactor does not {other:?}"),
            }
        }
        assert_eq!(ops.len(), 1, "one operation at a time");
        let (ticket, op) = ops.pop()?;
        let result = disk.run(&op);
        done.push(op);
        next = Some(Input::Disk { ticket, result });
    }
    None
}

fn compact(disk: &mut Disk) -> Compacted {
    run(disk, Aim::Checkpoint, 10_000)
        .unwrap()
        .unwrap()
        .unwrap()
}

/// A meta server whose log has so many segments, and the open one.
fn with_segments(segments: usize) -> (Rig, Client) {
    with_segments_of(config(), segments)
}
fn with_segments_of(config: Config, segments: usize) -> (Rig, Client) {
    let mut rig = Rig::start(config, Disk::default());
    let mut client = rig.client(1);
    let mut made = 0;
    while rig.disk.segments().len() <= segments {
        made += 1;
        // Refused while the next segment is being made.
        let _ = rig.mutate(&mut client, mkdir(&format!("d{made}")));
        assert!(made < 1_000, "the log goes on");
    }
    (rig, client)
}

fn first(rig: &Rig, nth: usize) -> u64 {
    rig.disk.segments()[nth]
        .rsplit('.')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn checkpoints(disk: &Disk) -> Vec<String> {
    let of = |path: &String| path.strip_prefix("checkpoint/").map(str::to_owned);
    disk.files.keys().filter_map(of).collect()
}

/// Starts on a disk, and has everything that the server before had.
fn starts_with_everything(rig: &Rig, disk: Disk) -> Rig {
    let mut next = Rig::start(rig.config.clone(), disk);
    let before = rig.meta.state().unwrap().seq();
    assert_eq!(next.meta.state().unwrap().seq(), before.next());
    let (link, old) = (next.open_link(Role::Client), rig.meta.state().unwrap());
    let root = next.stat(link, "").unwrap();
    assert_eq!(root.size, old.entries(FileId::ROOT).count() as u64);
    next
}

#[test]
fn the_closed_segments_become_a_checkpoint_and_the_open_one_is_not_touched() {
    let (rig, _) = with_segments(3);
    let mut disk = rig.disk.clone();
    let done = compact(&mut disk);
    let open = first(&rig, 3);
    assert_eq!(done.end, LogSeq(open - 1), "all before the open segment");
    assert_eq!(done.made.unwrap().header.seq, done.end);
    assert_eq!(checkpoints(&disk), [format!("checkpoint.{}", done.end)]);
    for (path, bytes) in &rig.disk.files {
        assert_eq!(disk.files.get(path), Some(bytes), "{path} is as it was");
    }
    starts_with_everything(&rig, disk.clone());
    let again = compact(&mut disk);
    assert_eq!(
        (again.end, again.made),
        (done.end, None),
        "it has everything"
    );
}

#[test]
fn two_checkpoints_later_the_log_before_them_is_gone() {
    let (mut rig, mut client) = with_segments(2);
    let mut ends = Vec::new();
    for _ in 0..3 {
        // Beside a server that goes on.
        ends.push(compact(&mut rig.disk).end);
        let segments = rig.disk.segments().len();
        for nth in 0.. {
            let _ = rig.mutate(&mut client, mkdir(&format!("e{}-{nth}", ends.len())));
            if rig.disk.segments().len() > segments {
                break;
            }
            assert!(nth < 500, "the log goes on");
        }
    }
    let kept = [ends[1], ends[2]].map(|seq| format!("checkpoint.{seq}"));
    let mut found = checkpoints(&rig.disk);
    found.sort_by_key(|name| name.len());
    assert_eq!(found, kept);
    assert!(first(&rig, 0) > 1 && first(&rig, 0) <= ends[1].0 + 1);
    let disk = rig.disk.clone();
    starts_with_everything(&rig, disk);
}

#[test]
fn the_server_and_a_compactor_beside_it_do_not_undo_each_other() {
    let (mut rig, mut client) = with_segments(2);
    compact(&mut rig.disk);
    for round in 0..4 {
        match rig.query(client.link, QueryOp::Checkpoint).unwrap() {
            Answer::Checkpoint(_) => {}
            other => panic!("{other:?}"),
        }
        let segments = rig.disk.segments().len();
        for nth in 0..500 {
            let _ = rig.mutate(&mut client, mkdir(&format!("f{round}-{nth}")));
            if rig.disk.segments().len() > segments {
                break;
            }
        }
        compact(&mut rig.disk);
    }
    assert!(rig.halted.is_none());
    assert_eq!(rig.status(client.link).checkpoint.failed, None);
    let disk = rig.disk.clone();
    starts_with_everything(&rig, disk);
}

#[test]
fn killed_at_any_operation_it_leaves_what_was_there() {
    let (rig, _) = with_segments(3);
    for most in 0..200 {
        let mut disk = rig.disk.clone();
        let ended = run(&mut disk, Aim::Checkpoint, most);
        starts_with_everything(&rig, disk.clone());
        // Nor is it in the way of the next one.
        let next = compact(&mut disk);
        assert_eq!(checkpoints(&disk), [format!("checkpoint.{}", next.end)]);
        if ended.is_some() {
            assert!(most > 10, "it has operations");
            return;
        }
    }
    panic!("it does not end");
}

#[test]
fn of_a_log_with_nothing_closed_no_checkpoint_is_made() {
    let rig = Rig::fresh();
    let mut disk = rig.disk.clone();
    let done = compact(&mut disk);
    assert_eq!((done.end, done.made), (LogSeq(0), None));
    assert!(checkpoints(&disk).is_empty());
    starts_with_everything(&rig, disk);
}

#[test]
fn what_the_server_does_not_have_finished_is_not_the_compactor_s() {
    let (rig, _) = with_segments(3);
    let mut disk = rig.disk.clone();
    let end = compact(&mut disk.clone()).end;
    let making = format!("checkpoint/checkpoint.{end}.tmp");
    disk.files.insert(making.clone(), vec![1; 7]);
    assert_eq!(compact(&mut disk).end, end);
    assert_eq!(disk.files.get(&making), Some(&vec![1; 7]));
}

#[test]
fn a_damaged_closed_segment_is_named_and_no_checkpoint_is_made_of_it() {
    let (rig, _) = with_segments(3);
    for nth in 0..3 {
        let mut disk = rig.disk.clone();
        let name = rig.disk.segments()[nth].clone();
        disk.files.get_mut(&name).unwrap()[4_096 + 70] ^= 4;
        let fault = run(&mut disk, Aim::Checkpoint, 10_000)
            .unwrap()
            .unwrap_err();
        assert_eq!(fault.kind, FaultKind::Corrupt);
        assert!(fault.what.contains(&name), "{fault:?}");
        assert!(checkpoints(&disk).is_empty());
    }
    // The end of the last closed one, which the header behind it proves.
    let mut disk = rig.disk.clone();
    let name = rig.disk.segments()[2].clone();
    let bytes = disk.files.get_mut(&name).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] ^= 1;
    let fault = run(&mut disk, Aim::Read, 10_000).unwrap().unwrap_err();
    assert!(fault.what.contains(&name), "{fault:?}");
}

#[test]
fn who_only_reads_changes_nothing() {
    let (rig, _) = with_segments(2);
    let mut disk = rig.disk.clone();
    let done = run(&mut disk, Aim::Read, 10_000).unwrap().unwrap().unwrap();
    assert_eq!((done.end, done.made), (LogSeq(first(&rig, 2) - 1), None));
    assert_eq!(disk.files, rig.disk.files);
    let fault = run(&mut Disk::default(), Aim::Read, 100)
        .unwrap()
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
}

fn mirrored() -> Config {
    Config {
        mirror: true,
        ..config()
    }
}
fn mirror_segments(disk: &Disk) -> Vec<String> {
    let of = |path: &String| path.strip_prefix("mirror/log/log.")?.parse::<u64>().ok();
    let mut segments: Vec<u64> = disk.files.keys().filter_map(of).collect();
    segments.sort_unstable();
    segments.iter().map(u64::to_string).collect()
}
fn log_segments(disk: &Disk) -> Vec<String> {
    let first = |path: &String| path.rsplit('.').next().unwrap().to_owned();
    disk.segments().iter().map(first).collect()
}
/// A server with a mirror, and two checkpoints that compactors made which knew nothing of it.
fn with_a_mirror_left_behind() -> Rig {
    let (mut rig, mut client) = with_segments_of(mirrored(), 2);
    for round in 0..3 {
        compact(&mut rig.disk);
        let segments = rig.disk.segments().len();
        for nth in 0..500 {
            let _ = rig.mutate(&mut client, mkdir(&format!("m{round}-{nth}")));
            if rig.disk.segments().len() > segments {
                break;
            }
        }
    }
    assert!(mirror_segments(&rig.disk).len() > log_segments(&rig.disk).len());
    rig
}

#[test]
fn old_segments_of_the_mirror_go_when_two_durable_checkpoints_stand_for_them() {
    let rig = with_a_mirror_left_behind();
    let mut ops = Vec::new();
    let mut disk = rig.disk.clone();
    let ended = run_of(mirrored(), &mut disk, Aim::Checkpoint, 10_000, &mut ops);
    let done = ended.unwrap().unwrap().unwrap();
    assert!(done.made.is_some() && done.mirror_removed > 0);
    assert_eq!(mirror_segments(&disk), log_segments(&disk));
    assert_eq!(checkpoints(&disk).len(), 2);
    let at = |what: &dyn Fn(&DiskOp) -> bool| ops.iter().position(what).unwrap();
    let named =
        at(&|op| matches!(op, DiskOp::Rename { to, .. } if to.as_str().starts_with("checkpoint/")));
    let durable = named
        + ops[named..]
            .iter()
            .position(|op| matches!(op, DiskOp::SyncDir { dir } if dir.as_str() == "checkpoint"))
            .unwrap();
    let own = at(&|op| matches!(op, DiskOp::Remove { file } if file.as_str().starts_with("log/")));
    let theirs =
        at(&|op| matches!(op, DiskOp::Remove { file } if file.as_str().starts_with("mirror/")));
    assert!(named < durable && durable < own && own < theirs);
    starts_with_everything(&rig, disk.clone());
    // With nothing to make, what an earlier one has left goes all the same.
    let mut left = rig.disk.clone();
    compact(&mut left);
    let mut ops = Vec::new();
    let ended = run_of(mirrored(), &mut left, Aim::Checkpoint, 10_000, &mut ops);
    let done = ended.unwrap().unwrap().unwrap();
    assert!(done.made.is_none() && done.mirror_removed > 0);
    let named = |op: &DiskOp| matches!(op, DiskOp::SyncDir { dir } if dir.as_str() == "checkpoint");
    let goes = |op: &DiskOp| matches!(op, DiskOp::Remove { .. });
    let named = ops.iter().position(named).unwrap();
    assert!(named < ops.iter().position(goes).unwrap(), "{ops:?}");
    assert_eq!(mirror_segments(&left), log_segments(&left));
    starts_with_everything(&rig, left);
    // One that only reads changes nothing.
    let mut read = rig.disk.clone();
    run_of(mirrored(), &mut read, Aim::Read, 10_000, &mut ops)
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(read == rig.disk);
}

#[test]
fn a_compactor_killed_anywhere_leaves_a_mirror_that_a_start_can_use() {
    let rig = with_a_mirror_left_behind();
    for most in 0.. {
        let mut disk = rig.disk.clone();
        let ended = run_of(
            mirrored(),
            &mut disk,
            Aim::Checkpoint,
            most,
            &mut Vec::new(),
        );
        starts_with_everything(&rig, disk.clone());
        // The mirror has the log from where two checkpoints need it, whatever becomes of the data directory's.
        let needed = log_segments(&disk).last().unwrap().clone();
        let left = mirror_segments(&disk);
        assert!(left.contains(&needed));
        assert!(
            mirror_segments(&rig.disk).ends_with(&left),
            "a gap: {left:?}"
        );
        if ended.is_some() {
            break;
        }
    }
}

#[test]
fn a_mirror_with_another_history_or_of_another_cluster_loses_nothing() {
    let rig = with_a_mirror_left_behind();
    // The segment that the log begins with after this is another one in the mirror.
    let mut plain = rig.disk.clone();
    compact(&mut plain);
    let first = log_segments(&plain)[0].clone();
    let mut disk = rig.disk.clone();
    let path = format!("mirror/log/log.{first}");
    disk.files.get_mut(&path).unwrap()[100] ^= 1;
    let before = mirror_segments(&disk);
    let run = |disk: &mut Disk| run_of(mirrored(), disk, Aim::Checkpoint, 10_000, &mut Vec::new());
    let done = run(&mut disk).unwrap().unwrap().unwrap();
    assert_eq!((done.made.is_some(), done.mirror_removed), (true, 0));
    assert_eq!(mirror_segments(&disk), before);
    // Nor if it is not there.
    let mut disk = rig.disk.clone();
    disk.files.remove(&path);
    let before = mirror_segments(&disk);
    let done = run(&mut disk).unwrap().unwrap().unwrap();
    assert_eq!(done.mirror_removed, 0);
    assert_eq!(mirror_segments(&disk), before);
    // A data directory is no mirror, and neither is that of another cluster: nothing at all is done then.
    let identity = |of: &Disk, name: &str| of.files[name].clone();
    let mut config = mirrored();
    config.seed += 100;
    let stranger = Rig::start(config, Disk::default()).disk;
    for bytes in [
        identity(&rig.disk, "identity"),
        identity(&stranger, "mirror/identity"),
    ] {
        let mut disk = rig.disk.clone();
        disk.files.insert("mirror/identity".into(), bytes);
        let before = disk.clone();
        let fault = run(&mut disk).unwrap().unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused, "{}", fault.what);
        assert!(disk == before);
    }
}
