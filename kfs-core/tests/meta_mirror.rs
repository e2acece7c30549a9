//! The mirror of the log: an ack waits for both copies, and a start repairs the one from the other or refuses.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
mod meta_rig;

use core::time::Duration;
use kfs_core::identity::{Identity, Owner};
use kfs_core::ids::*;
use kfs_core::machine::*;
use kfs_core::meta::Config;
use kfs_core::meta::oplog::{PAGE_BYTES, SEGMENT_HEADER_BYTES};
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Role, Status};
use meta_rig::*;

const PAGE: usize = PAGE_BYTES as usize;
const COPIES: [&str; 2] = ["log/", "mirror/log/"];

fn mirrored() -> Config {
    Config {
        mirror: true,
        ..config()
    }
}

/// A meta server with a mirror, and a directory that was acknowledged for each of these names.
fn with(dirs: &[&str]) -> (Rig, Client) {
    let mut rig = Rig::start(mirrored(), Disk::default());
    let mut client = rig.client(1);
    for dir in dirs {
        rig.mutate(&mut client, mkdir(dir)).unwrap();
    }
    (rig, client)
}

/// Where the batches of a segment end: the first page of zeros after its header.
fn end_of_log(bytes: &[u8]) -> usize {
    let pages = bytes[SEGMENT_HEADER_BYTES..].chunks(PAGE);
    let used = pages.take_while(|page| page.iter().any(|byte| *byte != 0));
    SEGMENT_HEADER_BYTES + PAGE * used.count()
}

fn fault(config: Config, disk: Disk) -> Fault {
    let before = disk.clone();
    let mut rig = Rig::on(config, disk);
    rig.input(Input::Wake);
    let fault = rig.halted.expect("it does not start");
    assert_eq!(rig.disk.files, before.files, "nothing was changed");
    fault
}

/// The segments of a copy, as far as they are written.
fn segments(disk: &Disk, copy: &str) -> Vec<(String, Vec<u8>)> {
    let files = disk.files.iter().filter_map(|(path, bytes)| {
        let name = path.strip_prefix(copy)?;
        name.strip_prefix("log.")?.parse::<u64>().ok()?;
        Some((name.to_owned(), bytes[..end_of_log(bytes)].to_vec()))
    });
    files.collect()
}

/// Both copies are the same, and these directories are there, at this start and at one without the mirror.
fn whole(mut rig: Rig, dirs: &[&str]) -> Rig {
    assert_eq!(
        segments(&rig.disk, COPIES[0]),
        segments(&rig.disk, COPIES[1])
    );
    let alone = Rig::start(config(), rig.disk.clone());
    for mut rig in [&mut rig, &mut { alone }] {
        let rig = &mut rig;
        let link = rig.open_link(Role::Client);
        for dir in dirs {
            assert!(rig.stat(link, dir).is_ok(), "{dir} is gone");
        }
        rig.close_link(link);
    }
    rig
}

fn told(rig: &mut Rig) -> LogMirror {
    let link = rig.open_link(Role::Client);
    let told = *rig.status(link).log_mirror.expect("there is a mirror");
    rig.close_link(link);
    told
}

/// Takes all there is of a copy.
fn gone(disk: &mut Disk, root: &str) {
    disk.files.retain(|path, _| !path.starts_with(root));
    disk.dirs.retain(|path| !path.starts_with(root));
}

#[test]
fn an_ack_waits_for_both_copies_whichever_is_the_slower() {
    for slower in [0, 1] {
        let (mut rig, mut client) = with(&["a"]);
        rig.hold = true;
        let request = rig.begin(&mut client, mkdir("b"));
        let files: Vec<String> = rig
            .pending
            .iter()
            .map(|(_, op)| match op {
                DiskOp::Write {
                    file,
                    sync: SyncMode::Now,
                    ..
                } => file.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(files, ["log/log.1", "mirror/log/log.1"], "both at once");
        if slower == 0 {
            rig.pending.swap(0, 1);
        }
        rig.run_disk_once();
        assert!(
            rig.mutated(client.link, request).is_none(),
            "one copy has it"
        );
        assert_eq!(rig.pending.len(), 1, "one batch in flight");
        rig.run_disk_once();
        assert!(rig.mutated(client.link, request).is_some());
    }
}

#[test]
fn both_copies_go_through_switches_of_segments_in_step() {
    let (mut rig, mut client) = with(&[]);
    for n in 0..200 {
        let dir = format!("d{n}");
        let _ = rig.mutate(&mut client, mkdir(&dir));
    }
    rig.pass(Duration::from_secs(1));
    let own = segments(&rig.disk, COPIES[0]);
    assert!(own.len() > 3);
    assert_eq!(own, segments(&rig.disk, COPIES[1]));
    rig.restart();
    assert_eq!(told(&mut rig), LogMirror::default(), "nothing was amiss");
    whole(rig, &["d0", "d199"]);
}

#[test]
fn rot_in_the_last_batch_is_not_taken_for_a_torn_tail() {
    for (copy, other) in [(0, 1), (1, 0)] {
        for zeros in [false, true] {
            let (rig, _) = with(&["kept", "last"]);
            let mut disk = rig.disk.clone();
            let name = format!("{}log.1", COPIES[copy]);
            let bytes = disk.files.get_mut(&name).unwrap();
            let end = end_of_log(bytes);
            if zeros {
                bytes[end - PAGE..end].fill(0);
            } else {
                bytes[end - PAGE + 70] ^= 1;
            }
            let mut rig = Rig::start(mirrored(), disk);
            let told = told(&mut rig);
            assert_eq!(
                (told.repaired.len(), told.caught_up),
                (usize::from(!zeros), u64::from(zeros)),
                "{told:?}"
            );
            if !zeros {
                assert!(told.repaired[0].contains(&name), "{told:?}");
                assert!(!told.repaired[0].contains(&format!(" {}", COPIES[other])));
            }
            whole(rig, &["kept", "last"]);
        }
    }
}

#[test]
fn damage_anywhere_in_one_copy_is_repaired_from_the_other_and_kept_aside() {
    let (mut rig, mut client) = with(&["a", "b", "c"]);
    rig.restart();
    rig.resume(&mut client);
    rig.mutate(&mut client, mkdir("d")).unwrap();
    rig.mutate(&mut client, mkdir("e")).unwrap();
    let whole_before = rig.disk.clone();
    let names = whole_before.segments();
    for copy in COPIES {
        for name in &names {
            let name = format!("{copy}{}", name.strip_prefix("log/").unwrap());
            let end = end_of_log(&whole_before.files[&name]);
            // The last batch of the last segment is another danger.
            for at in (0..end - PAGE).step_by(509) {
                let mut disk = whole_before.clone();
                disk.files.get_mut(&name).unwrap()[at] ^= 4;
                let bad = disk.files[&name].clone();
                let mut rig = Rig::start(mirrored(), disk);
                let told = told(&mut rig);
                assert_eq!(told.repaired.len(), 1, "{name} {at}: {told:?}");
                let place = format!("{name} at offset {}", at / PAGE * PAGE);
                assert!(told.repaired[0].contains(&place), "{place}: {told:?}");
                let kept = &rig.disk.files[&format!("{name}.damaged")];
                assert!(*kept == bad, "what was damaged is kept");
                whole(rig, &["a", "b", "c", "d", "e"]);
            }
        }
    }
}

#[test]
fn copies_that_are_damaged_at_different_batches_repair_one_another() {
    let (mut rig, mut client) = with(&["a", "b", "c", "d"]);
    rig.restart();
    rig.resume(&mut client);
    let mut disk = rig.disk.clone();
    disk.files.get_mut("log/log.1").unwrap()[PAGE + 80] ^= 1;
    disk.files.get_mut("mirror/log/log.1").unwrap()[3 * PAGE + 80] ^= 1;
    let mut rig = Rig::start(mirrored(), disk.clone());
    assert_eq!(told(&mut rig).repaired.len(), 2);
    whole(rig, &["a", "b", "c", "d"]);
    // Killed at any operation of the repair, the next start finishes it.
    for kill_after in 0.. {
        let mut rig = Rig::on(mirrored(), disk.clone());
        rig.hold = true;
        rig.input(Input::Wake);
        let mut done = 0;
        while done < kill_after && rig.run_disk_once() {
            done += 1;
        }
        assert!(rig.halted.is_none(), "{:?}", rig.halted);
        whole(
            Rig::start(mirrored(), rig.disk.clone()),
            &["a", "b", "c", "d"],
        );
        if done < kill_after {
            assert!(kill_after > 30, "it was killed in the middle");
            break;
        }
    }
}

#[test]
fn copies_that_are_damaged_at_one_record_are_refused_with_both_places() {
    let (mut rig, _) = with(&["a", "b", "c"]);
    rig.restart();
    for at in [70, 2 * PAGE + 70] {
        let mut disk = rig.disk.clone();
        for copy in COPIES {
            disk.files.get_mut(&format!("{copy}log.1")).unwrap()[at] ^= 1;
        }
        let refused = fault(mirrored(), disk);
        assert_eq!(refused.kind, FaultKind::Corrupt);
        for copy in COPIES {
            let place = format!("{copy}log.1 at offset {}: expected ", at / PAGE * PAGE);
            assert!(refused.what.contains(&place), "{refused}");
        }
        assert!(refused.what.contains(", found "), "{refused}");
    }
    // In the last segment nothing but a batch behind it tells.
    let (rig, _) = with(&["a", "b", "c"]);
    let mut disk = rig.disk;
    for copy in COPIES {
        disk.files.get_mut(&format!("{copy}log.1")).unwrap()[2 * PAGE + 70] ^= 1;
    }
    let refused = fault(mirrored(), disk);
    assert!(refused.what.contains("a whole batch after it"), "{refused}");
}

#[test]
fn a_segment_that_cannot_be_read_is_taken_from_the_other_copy() {
    for copy in COPIES {
        let (rig, _) = with(&["a", "b"]);
        let mut disk = rig.disk;
        let error = DiskError::Io("input/output error".into());
        disk.fails.push(("read", format!("{copy}log.1"), error));
        // A name that ends so is the mirror's too.
        if copy == COPIES[0] {
            disk.fails.clear();
            disk.files.remove("log/log.1");
        }
        let mut rig = Rig::start(mirrored(), disk);
        let told = told(&mut rig);
        assert_eq!(told.repaired.len() as u64 + told.caught_up, 1, "{told:?}");
        rig.disk.fails.clear();
        whole(rig, &["a", "b"]);
    }
}

#[test]
fn an_empty_mirror_is_filled_whatever_the_log_has_and_an_empty_log_from_the_mirror() {
    let (mut rig, mut client) = with(&["a"]);
    for dir in ["b", "c"] {
        rig.restart();
        rig.resume(&mut client);
        rig.mutate(&mut client, mkdir(dir)).unwrap();
    }
    for root in ["mirror", "log", "mirror/log", "mirror/identity"] {
        let mut disk = rig.disk.clone();
        gone(&mut disk, root);
        let mut rig = Rig::start(mirrored(), disk);
        let told = told(&mut rig);
        assert!(told.repaired.is_empty(), "{root}: {told:?}");
        assert_eq!(
            told.caught_up,
            if root == "mirror/identity" { 0 } else { 3 }
        );
        whole(rig, &["a", "b", "c"]);
    }
}

#[test]
fn an_empty_data_directory_is_made_anew_from_the_mirror_at_any_crash() {
    let (mut rig, mut client) = with(&["a"]);
    rig.restart();
    rig.resume(&mut client);
    rig.mutate(&mut client, mkdir("b")).unwrap();
    let old = Identity::decode(&rig.disk.files["identity"]).unwrap();
    let mut disk = rig.disk;
    disk.files.retain(|path, _| path.starts_with("mirror/"));
    disk.dirs.retain(|path| path.starts_with("mirror"));
    let due = Config {
        cluster: Some(old.cluster),
        ..mirrored()
    };
    assert!(fault(due, disk.clone()).what.contains("is empty"));
    for kill_after in 0.. {
        let mut rig = Rig::on(mirrored(), disk.clone());
        rig.hold = true;
        rig.input(Input::Wake);
        let mut done = 0;
        while done < kill_after && rig.run_disk_once() {
            done += 1;
        }
        assert!(rig.halted.is_none(), "{:?}", rig.halted);
        let next = Rig::start(mirrored(), rig.disk.clone());
        let new = Identity::decode(&next.disk.files["identity"]).unwrap();
        assert_eq!((new.owner, new.cluster), (Owner::Meta, old.cluster));
        assert!(new.boot > old.boot);
        whole(next, &["a", "b"]);
        if done < kill_after {
            break;
        }
    }
}

#[test]
fn a_mirror_of_another_cluster_or_kind_is_refused_and_left_as_it_is() {
    let (rig, _) = with(&["a"]);
    let (other, _) = {
        let mut config = mirrored();
        config.seed = 99;
        let mut rig = Rig::start(config, Disk::default());
        let client = rig.client(1);
        (rig, client)
    };
    let mut disk = rig.disk.clone();
    gone(&mut disk, "mirror");
    let theirs = |path: &str| path.starts_with("mirror");
    for (path, bytes) in other.disk.files.iter().filter(|(path, _)| theirs(path)) {
        disk.files.insert(path.clone(), bytes.clone());
    }
    disk.dirs.extend(["mirror".into(), "mirror/log".into()]);
    let refused = fault(mirrored(), disk.clone());
    assert!(
        refused.kind == FaultKind::Refused
            && refused.what.contains("log mirror belongs to cluster"),
        "{refused}"
    );
    // Its segments say so too.
    disk.files.remove("mirror/identity");
    let refused = fault(mirrored(), disk.clone());
    assert!(
        refused.what.contains("log mirror belongs to cluster"),
        "{refused}"
    );
    // A data directory is no mirror, and a mirror no data directory.
    let mut swapped = rig.disk.clone();
    let own = swapped.files["identity"].clone();
    let mirror = swapped.files.insert("mirror/identity".into(), own).unwrap();
    assert!(
        fault(mirrored(), swapped.clone())
            .what
            .contains("data directory")
    );
    swapped.files.insert("identity".into(), mirror);
    assert!(fault(mirrored(), swapped).what.contains("mirror of a log"));
    let mut strange = rig.disk;
    gone(&mut strange, "mirror");
    strange.dirs.insert("mirror".into());
    strange.files.insert("mirror/thesis.txt".into(), vec![1]);
    assert!(fault(mirrored(), strange).what.contains("thesis.txt"));
}

#[test]
fn a_mirror_or_a_log_that_was_set_back_is_brought_up_to_date() {
    let (mut rig, mut client) = with(&["a"]);
    let old = rig.disk.clone();
    for n in 0..2 {
        for m in 0..60 {
            let _ = rig.mutate(&mut client, mkdir(&format!("d{n}{m}")));
        }
        rig.restart();
        rig.resume(&mut client);
    }
    rig.mutate(&mut client, mkdir("z")).unwrap();
    let dirs = ["a", "d00", "d159", "z"];
    for mirror in [true, false] {
        let mut disk = rig.disk.clone();
        let back = |path: &str| path.starts_with("mirror") == mirror;
        disk.files.retain(|path, _| !back(path));
        let was = old.files.iter().filter(|(path, _)| back(path));
        disk.files
            .extend(was.map(|(path, bytes)| (path.clone(), bytes.clone())));
        let mut rig = Rig::start(mirrored(), disk);
        assert!(told(&mut rig).caught_up > 1);
        // No epoch is lived twice.
        assert_eq!(rig.meta.state().unwrap().epoch(), Epoch(4));
        whole(rig, &dirs);
    }
}

#[test]
fn a_run_without_the_mirror_is_made_up_for_by_the_next_with_it() {
    let (mut rig, mut client) = with(&["a"]);
    // What the mirror alone has of the last batch, at every byte of a write that was cut.
    let torn = {
        let mut disk = rig.disk.clone();
        rig.mutate(&mut client, mkdir("b")).unwrap();
        let mirror = rig.disk.files["mirror/log/log.1"].clone();
        disk.files.insert("mirror/log/log.1".into(), mirror);
        disk
    };
    for disk in [rig.disk.clone(), torn] {
        let had = disk == rig.disk;
        let mut alone = Rig::start(config(), disk);
        let mut client = alone.client(2);
        alone.mutate(&mut client, mkdir("c")).unwrap();
        let mut rig = Rig::start(mirrored(), alone.disk.clone());
        assert!(told(&mut rig).caught_up > 0);
        let link = rig.open_link(Role::Client);
        assert_eq!(rig.stat(link, "b").is_ok(), had);
        let kept = rig.disk.files.contains_key("mirror/log/log.1.damaged");
        assert_eq!(kept, !had, "what only the mirror had is kept aside");
        whole(rig, &["a", "c"]);
    }
}

#[test]
fn a_start_that_only_the_mirror_has_of_is_made_up_for_too() {
    // A start is killed at any operation; the next one is without the mirror, and the one after it with it again.
    let (rig, _) = with(&["a"]);
    for kill_after in 0.. {
        let mut first = Rig::on(mirrored(), rig.disk.clone());
        first.hold = true;
        first.input(Input::Wake);
        let mut done = 0;
        while done < kill_after && first.run_disk_once() {
            done += 1;
        }
        for epochs in [1, 2] {
            let mut disk = first.disk.clone();
            for n in 0..epochs {
                let mut config = config();
                config.seed = 50 + n;
                let mut alone = Rig::start(config, disk);
                let mut client = alone.client(2);
                alone.mutate(&mut client, mkdir(&format!("c{n}"))).unwrap();
                disk = alone.disk;
            }
            whole(Rig::start(mirrored(), disk), &["a", "c0"]);
        }
        if done < kill_after {
            break;
        }
    }
}

#[test]
fn a_mirror_with_another_history_is_refused_and_left_as_it_is() {
    let (mut rig, mut client) = with(&["a"]);
    let old = rig.disk.clone();
    for dir in ["b", "c"] {
        rig.mutate(&mut client, mkdir(dir)).unwrap();
    }
    // The log is set back and goes on without the mirror, which has what was acknowledged.
    let mut disk = rig.disk.clone();
    disk.files.retain(|path, _| path.starts_with("mirror"));
    let own = old
        .files
        .into_iter()
        .filter(|(path, _)| !path.starts_with("mirror"));
    disk.files.extend(own);
    let mut alone = Rig::start(config(), disk);
    let mut client = alone.client(2);
    alone.mutate(&mut client, mkdir("other")).unwrap();
    let refused = fault(mirrored(), alone.disk);
    assert!(
        refused.kind == FaultKind::Refused
            && refused.what.contains("another history")
            && refused.what.contains("mirror/log/log.1 at offset"),
        "{refused}"
    );
}

#[test]
fn a_start_that_is_killed_at_any_operation_is_finished_with_the_mirror_or_without() {
    for formatted in [false, true] {
        for kill_after in 0.. {
            let disk = if formatted {
                with(&["a"]).0.disk
            } else {
                Disk::default()
            };
            let mut rig = Rig::on(mirrored(), disk);
            rig.hold = true;
            rig.input(Input::Wake);
            let mut done = 0;
            while done < kill_after && rig.run_disk_once() {
                done += 1;
            }
            let dirs: &[&str] = if formatted { &["a"] } else { &[] };
            whole(Rig::start(mirrored(), rig.disk.clone()), dirs);
            if done < kill_after {
                break;
            }
        }
    }
}

#[test]
fn a_failed_write_of_either_copy_halts_and_acknowledges_nothing() {
    for file in ["log/log.1", "mirror/log/log.1", "mirror/log/log.next"] {
        for verb in ["write", "sync", "create", "rename"] {
            let (mut rig, mut client) = with(&["a"]);
            let error = DiskError::Io("input/output error".into());
            rig.disk.fails.push((verb, file.into(), error));
            for n in 0..120 {
                let request = rig.begin(&mut client, mkdir(&format!("d{n}")));
                client.lowest = client.last;
                if rig.halted.is_some() {
                    let acked = rig.mutated(client.link, request).is_some();
                    assert!(!acked || verb != "write", "{verb} {file}");
                    break;
                }
            }
            let reached = match verb {
                "write" => true,
                "sync" | "create" | "rename" => file.ends_with("next"),
                _ => unreachable!(),
            };
            assert_eq!(rig.halted.is_some(), reached, "{verb} {file}");
            if let Some(fault) = rig.halted.filter(|_| file.starts_with("mirror")) {
                assert!(
                    fault.kind == FaultKind::Disk && fault.what.contains(file),
                    "{fault}"
                );
                assert!(fault.help.unwrap().contains("--log-mirror"));
            }
        }
    }
}

#[test]
fn a_full_mirror_refuses_changes_and_recovers() {
    let (mut rig, mut client) = with(&["a"]);
    let full = ("create", "mirror/log/log.next".into(), DiskError::NoSpace);
    rig.disk.fails.push(full);
    let mut made = 0;
    while rig.mutate(&mut client, mkdir(&format!("d{made}"))).is_ok() {
        made += 1;
        assert!(made < 200, "two segments do not last for ever");
    }
    assert!(rig.halted.is_none());
    assert!(rig.status(client.link).read_only.is_some());
    rig.disk.fails.clear();
    rig.pass(Duration::from_secs(6));
    rig.mutate(&mut client, mkdir("more")).unwrap();
    let link = rig.open_link(Role::Client);
    assert!(rig.stat(link, "more").is_ok());
    rig.restart();
    whole(rig, &["a", "d0", "more"]);
}

#[test]
fn checkpoints_let_go_of_both_copies_and_a_mirror_is_filled_as_far_as_it_is_needed() {
    let (mut rig, mut client) = with(&["a"]);
    for n in 0..3 {
        rig.restart();
        rig.resume(&mut client);
        rig.mutate(&mut client, mkdir(&format!("d{n}"))).unwrap();
        rig.query(client.link, QueryOp::Checkpoint).unwrap();
        rig.mutate(&mut client, mkdir(&format!("e{n}"))).unwrap();
    }
    let own = segments(&rig.disk, COPIES[0]);
    assert!(!rig.disk.files.contains_key("log/log.1"));
    assert_eq!(own, segments(&rig.disk, COPIES[1]));
    assert_eq!(own.len(), 2, "the log is kept from the older checkpoint on");
    let mut disk = rig.disk.clone();
    gone(&mut disk, "mirror");
    whole(Rig::start(mirrored(), disk), &["a", "d0", "d1", "d2"]);
    // Of a mirror that has more, that goes; an empty data directory cannot do without checkpoints.
    let mut disk = rig.disk.clone();
    let first = with(&["a"]).0.disk.files["log/log.1"].clone();
    disk.files.insert("mirror/log/log.1".into(), first);
    let rig = whole(Rig::start(mirrored(), disk), &["a", "d2"]);
    assert!(!rig.disk.files.contains_key("mirror/log/log.1"));
    let mut disk = rig.disk;
    disk.files.retain(|path, _| path.starts_with("mirror/"));
    disk.dirs.retain(|path| path.starts_with("mirror"));
    assert!(fault(mirrored(), disk).what.contains("checkpoints"));
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_batch_in_either_copy_loses_nothing() {
    let (rig, _) = with(&["kept", "last"]);
    let end = end_of_log(&rig.disk.files["log/log.1"]);
    for copy in COPIES {
        for len in (end - PAGE..end).step_by(37) {
            let mut disk = rig.disk.clone();
            let bytes = disk.files.get_mut(&format!("{copy}log.1")).unwrap();
            bytes.truncate(len);
            whole(Rig::start(mirrored(), disk), &["kept", "last"]);
        }
    }
    // Cut in both it was not acknowledged.
    let mut disk = rig.disk;
    for copy in COPIES {
        disk.files
            .get_mut(&format!("{copy}log.1"))
            .unwrap()
            .truncate(end - 9);
    }
    let mut rig = whole(Rig::start(mirrored(), disk), &["kept"]);
    let link = rig.open_link(Role::Client);
    assert!(matches!(rig.stat(link, "last"), Err(refusal) if refusal.status == Status::NotFound));
}

#[test]
fn the_header_of_an_older_run_does_not_stand_for_a_segment_that_lost_its_own() {
    // A start of which the mirror has a segment; then one without the mirror, whose header rots.
    let (rig, _) = with(&["a"]);
    let mut first = Rig::on(mirrored(), rig.disk.clone());
    first.hold = true;
    first.input(Input::Wake);
    first.run_disk();
    let own = first.disk.segments().pop().unwrap();
    let mut disk = rig.disk.clone();
    let mirror = first
        .disk
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("mirror"));
    disk.files
        .extend(mirror.map(|(path, bytes)| (path.clone(), bytes.clone())));
    let mut config = config();
    config.seed = 60;
    let mut alone = Rig::start(config, disk);
    let mut client = alone.client(2);
    alone.mutate(&mut client, mkdir("c")).unwrap();
    assert!(alone.disk.files.contains_key(&own), "{own}");
    let mut disk = alone.disk.clone();
    disk.files.get_mut(&own).unwrap()[8] ^= 1;
    let refused = fault(mirrored(), disk);
    assert_eq!(refused.kind, FaultKind::Corrupt, "{refused}");
    whole(Rig::start(mirrored(), alone.disk), &["a", "c"]);
}
