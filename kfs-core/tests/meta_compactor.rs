//! The off-line compactor: what it reads, what it makes, and that it harms no server beside it.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use kfs_core::ids::*;
use kfs_core::machine::*;
use kfs_core::meta::Event;
use kfs_core::meta::compactor::{Aim, Compacted, Compactor};
use kfs_core::time::Now;
use kfs_core::wire::Role;
use kfs_core::wire::client_meta::*;
use meta_rig::*;

type Ended = Result<Result<Compacted, String>, Fault>;

/// Runs one on a disk, at most so many operations; `None`: it was killed before its end.
fn run(disk: &mut Disk, aim: Aim, most: usize) -> Option<Ended> {
    let mut compactor = Compactor::new(config(), aim);
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
    let mut rig = Rig::fresh();
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
