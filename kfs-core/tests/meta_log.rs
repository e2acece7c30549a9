//! The meta server's log: the first start, group commit, torn tails and damage, a full disk, a failed write.
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
use kfs_core::meta::oplog::{PAGE_BYTES, SEGMENT_HEADER_BYTES};
use kfs_core::meta::{Call, Event};
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Msg, Role, Status};
use meta_rig::*;

const PAGE: usize = PAGE_BYTES as usize;

/// Where the batches of a segment end: the first page of zeros after its header.
fn end_of_log(bytes: &[u8]) -> usize {
    let pages = bytes[SEGMENT_HEADER_BYTES..].chunks(PAGE);
    SEGMENT_HEADER_BYTES
        + PAGE
            * pages
                .take_while(|page| page.iter().any(|byte| *byte != 0))
                .count()
}

/// A start that is expected to be refused.
fn fault(config: kfs_core::meta::Config, disk: Disk) -> Fault {
    let before = disk.clone();
    let mut rig = Rig::on(config, disk);
    rig.input(Input::Wake);
    let fault = rig.halted.expect("it does not start");
    assert_eq!(rig.disk.files, before.files, "nothing was changed");
    fault
}

#[test]
fn the_first_start_formats_and_every_start_raises_boot_and_epoch() {
    let mut rig = Rig::fresh();
    let identity = |rig: &Rig| Identity::decode(&rig.disk.files["identity"]).unwrap();
    let first = identity(&rig);
    assert_eq!(
        (first.owner, first.boot, first.seen.0),
        (Owner::Meta, Boot(1), Epoch(0))
    );
    assert!(matches!(
        rig.events[0].1,
        Event::Ready { cluster, epoch: Epoch(1), seq: LogSeq(1) } if cluster == first.cluster
    ));
    rig.restart();
    let second = identity(&rig);
    assert_eq!(
        (second.cluster, second.boot, second.seen.0),
        (first.cluster, Boot(2), Epoch(1))
    );
    assert!(matches!(
        rig.events[0].1,
        Event::Ready {
            epoch: Epoch(2),
            ..
        }
    ));
    assert_eq!(rig.disk.segments(), ["log/log.1", "log/log.2"]);
}

#[test]
fn a_start_that_is_killed_at_any_operation_is_finished_by_the_next() {
    for formatted in [false, true] {
        for kill_after in 0.. {
            let disk = if formatted {
                Rig::fresh().disk
            } else {
                Disk::default()
            };
            let mut rig = Rig::on(config(), disk);
            rig.hold = true;
            rig.input(Input::Wake);
            let mut done = 0;
            while done < kill_after && rig.run_disk_once() {
                done += 1;
            }
            let next = Rig::start(config(), rig.disk.clone());
            next.meta.state().unwrap().check();
            if done < kill_after {
                break;
            }
        }
    }
}

#[test]
fn a_directory_that_is_not_its_own_is_refused() {
    let disk = Rig::fresh().disk;
    let other = || kfs_core::meta::Config {
        cluster: Some(ClusterId(9)),
        ..config()
    };
    assert_eq!(fault(other(), disk.clone()).kind, FaultKind::Refused);
    assert_eq!(
        fault(other(), Disk::default()).kind,
        FaultKind::Refused,
        "empty, and was to be of a cluster"
    );
    let mut no_identity = disk.clone();
    no_identity.files.remove("identity");
    let refused = fault(config(), no_identity);
    assert!(
        refused.kind == FaultKind::Refused && refused.what.contains("no identity file"),
        "{refused}"
    );
    let mut stray = Disk::default();
    stray.files.insert("notes.txt".into(), vec![1]);
    assert!(fault(config(), stray).what.contains("notes.txt"));
    let mut lost_and_found = Disk::default();
    lost_and_found.dirs.insert("lost+found".into());
    Rig::start(config(), lost_and_found);
    let mut chunks = disk.clone();
    let mut identity = Identity::decode(&disk.files["identity"]).unwrap();
    identity.owner = Owner::Chunk;
    chunks.files.insert("identity".into(), identity.encode());
    assert_eq!(fault(config(), chunks).kind, FaultKind::Refused);
    let mut flipped = disk.clone();
    flipped.files.get_mut("identity").unwrap()[20] ^= 1;
    assert_eq!(fault(config(), flipped).kind, FaultKind::Corrupt);
    let mut sizes = config();
    sizes.geometry.chunk_blocks = 8;
    assert_eq!(fault(sizes, disk.clone()).kind, FaultKind::Refused);
    let mut no_log = disk;
    no_log.dirs.clear();
    no_log.files.retain(|name, _| name == "identity");
    assert_eq!(fault(config(), no_log).kind, FaultKind::Corrupt);
}

#[test]
fn a_log_that_lost_its_newest_segments_is_refused() {
    let mut rig = Rig::fresh();
    rig.restart();
    rig.restart();
    let mut disk = rig.disk.clone();
    for segment in disk.segments().split_off(1) {
        disk.files.remove(&segment);
    }
    let refused = fault(config(), disk.clone());
    assert!(
        refused.kind == FaultKind::Corrupt && refused.what.contains("epoch 2"),
        "{refused}"
    );
    disk.files.remove("log/log.1");
    assert!(fault(config(), disk).what.contains("the log is gone"));
    let mut hole = rig.disk;
    hole.files.remove("log/log.2");
    let refused = fault(config(), hole);
    assert!(
        refused.what.contains("log.1") && refused.what.contains("log.3"),
        "{refused}"
    );
}

#[test]
fn changes_that_come_together_share_one_sync_and_do_not_wait_for_more() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.hold = true;
    let told: Vec<_> = (1..=3)
        .map(|nth| {
            client.last += 1;
            let mutate = client.request(client.last, mkdir(&format!("d{nth}")));
            let (link, msg) = (client.link, Msg::new(1_000 + nth, mutate));
            Input::Received { link, msg }
        })
        .collect();
    rig.inputs(told);
    assert_eq!(rig.pending.len(), 1, "{:?}", rig.pending);
    assert!(rig.run_disk_once());
    for nth in 1..=3 {
        let answer = rig.mutated(client.link, 1_000 + nth);
        assert!(answer.expect("it is durable").outcome.is_ok());
    }
    assert!(rig.pending.is_empty(), "{:?}", rig.pending);
}

#[test]
fn nothing_is_answered_before_its_batch_is_synced_and_batches_form_meanwhile() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.hold = true;
    let first = rig.begin(&mut client, mkdir("a"));
    let writes: Vec<_> = rig.pending.iter().map(|(_, op)| op.clone()).collect();
    assert!(
        matches!(
            &writes[..],
            [DiskOp::Write {
                sync: SyncMode::Now,
                ..
            }]
        ),
        "{writes:?}"
    );
    let others: Vec<u64> = ["b", "c"]
        .map(|dir| rig.begin(&mut client, mkdir(dir)))
        .into();
    // A read has seen what is not durable yet: it waits too.
    let stat = rig.send(
        client.link,
        Query {
            op: QueryOp::Stat { at: at("b") },
        },
    );
    assert_eq!(rig.pending.len(), 1, "one batch in flight");
    assert!(rig.sent.is_empty());
    rig.run_disk_once();
    assert!(rig.mutated(client.link, first).is_some());
    assert!(rig.sent.is_empty(), "the others are not durable");
    assert_eq!(rig.pending.len(), 1, "both in one batch");
    rig.run_disk_once();
    assert!(
        others
            .iter()
            .all(|request| rig.mutated(client.link, *request).is_some())
    );
    assert!(rig.answer(client.link, stat).is_some());
}

#[test]
fn a_mark_follows_when_nothing_else_does() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("a")).unwrap();
    let (end, writes) = (end_of_log(&rig.disk.files["log/log.1"]), rig.writes);
    rig.pass(Duration::from_millis(19));
    assert_eq!(rig.writes, writes);
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.writes, writes + 1, "one mark, not one every 20 ms");
    assert_eq!(end_of_log(&rig.disk.files["log/log.1"]), end + PAGE);
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_batch_loses_nothing_that_was_acknowledged() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("acked")).unwrap();
    let before = end_of_log(&rig.disk.files["log/log.1"]);
    rig.mutate(&mut client, mkdir("last")).unwrap();
    let disk = rig.disk.clone();
    let whole = disk.files["log/log.1"].clone();
    let end = end_of_log(&whole);
    assert_eq!(end, before + PAGE);
    for len in before..=end {
        for zeroed in [false, true] {
            if zeroed && len % 41 != 0 {
                continue;
            }
            let mut disk = disk.clone();
            let bytes = disk.files.get_mut("log/log.1").unwrap();
            bytes.truncate(len);
            if zeroed {
                bytes.resize(whole.len(), 0);
            }
            let mut rig = Rig::start(config(), disk);
            let link = rig.open_link(Role::Client);
            assert!(rig.stat(link, "acked").is_ok(), "cut at {len}");
            if len == end {
                assert!(rig.stat(link, "last").is_ok(), "the whole batch is there");
            }
            if len % 509 == 0 {
                // What was cut stays cut, and the log goes on after it.
                let mut client = rig.client(5);
                rig.mutate(&mut client, mkdir("after")).unwrap();
                rig.restart();
                let link = rig.open_link(Role::Client);
                assert!(rig.stat(link, "after").is_ok() && rig.stat(link, "acked").is_ok());
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_the_logs_middle_is_refused_with_its_place() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    for n in 0..5 {
        rig.mutate(&mut client, mkdir(&format!("d{n}"))).unwrap();
    }
    let end = end_of_log(&rig.disk.files["log/log.1"]);
    for byte in (0..end - PAGE).step_by(211) {
        let mut disk = rig.disk.clone();
        disk.files.get_mut("log/log.1").unwrap()[byte] ^= 4;
        let refused = fault(config(), disk);
        let place = format!("log/log.1 at offset {}", byte / PAGE * PAGE);
        assert!(
            refused.kind == FaultKind::Corrupt && refused.what.contains(&place),
            "{byte}: {refused}"
        );
        assert!(
            refused.what.contains("expected") && refused.what.contains("found"),
            "{refused}"
        );
    }
    // An older segment: every batch of it is before a later one, its last included.
    rig.restart();
    for byte in (0..end).step_by(211) {
        let mut disk = rig.disk.clone();
        disk.files.get_mut("log/log.1").unwrap()[byte] ^= 4;
        let refused = fault(config(), disk);
        let place = format!("log/log.1 at offset {}", byte / PAGE * PAGE);
        assert!(refused.what.contains(&place), "{byte}: {refused}");
    }
}

#[test]
fn segments_are_switched_under_load_and_replay_gives_the_live_state() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let mut other = rig.client(2);
    for n in 0..300_u32 {
        let dir = format!("d{}", n % 7);
        let _ = rig.mutate(&mut client, mkdir(&dir));
        let _ = rig.mutate(
            &mut client,
            create(&format!("{dir}/f{n}"), Keep::UntilSessionEnds),
        );
        let _ = rig.mutate(
            &mut other,
            rename(&format!("{dir}/f{n}"), &format!("d{}/g{}", n % 5, n % 11)),
        );
        let _ = rig.mutate(&mut other, remove(&format!("{dir}/g{}", n % 13)));
        let _ = rig.mutate(&mut client, rmdir(&format!("d{}", n % 3)));
    }
    assert!(rig.disk.segments().len() > 5, "{:?}", rig.disk.segments());
    rig.meta.state().unwrap().check();
    let names: Vec<_> = format!("{:?}", rig.meta.state().unwrap()).into();
    assert!(!names.is_empty());
    let live = rig.meta.state().unwrap().clone();
    let records = read_all(&rig.disk);
    assert_eq!(records.len() as u64, live.seq().0);
    assert!(
        kfs_core::meta::state::State::replay(&records).unwrap() == live,
        "replay gives the live state"
    );
    rig.restart();
    let replayed = rig.meta.state().unwrap();
    let mut begun = read_all(&rig.disk);
    assert_eq!(begun.len(), records.len() + 1, "one epoch more");
    let last = begun.pop().unwrap();
    assert_eq!(last.record.name(), "EpochBegun");
    assert_eq!(begun, records);
    begun.push(last);
    assert!(kfs_core::meta::state::State::replay(&begun).unwrap() == *replayed);
}

/// All records of a log, read segment by segment.
fn read_all(disk: &Disk) -> Vec<kfs_core::meta::record::Logged> {
    use kfs_core::meta::oplog::{Follows, More, SegmentReader};
    let cluster = Identity::decode(&disk.files["identity"]).unwrap().cluster;
    let (mut records, mut before) = (vec![], None);
    for segment in disk.segments() {
        let mut reader = SegmentReader::new(segment.clone(), cluster, before, Follows::Nothing);
        let mut sink = |logged| {
            records.push(logged);
            Ok(())
        };
        before = reader
            .feed(&disk.files[&segment], More::Ends, &mut sink)
            .unwrap();
        assert!(before.is_some(), "the segment ends");
    }
    records
}

#[test]
fn a_failed_write_of_the_log_halts_and_acknowledges_nothing() {
    for (verb, file) in [
        ("write", "log.1"),
        ("sync", "log.next"),
        ("create", "log.next"),
    ] {
        let mut rig = Rig::fresh();
        let mut client = rig.client(1);
        rig.disk.fails.push((
            verb,
            file.into(),
            DiskError::Io("input/output error".into()),
        ));
        let mut made = 0;
        while rig.halted.is_none() {
            made += 1;
            assert!(
                made < 200,
                "{verb} {file} fails at the latest at the switch"
            );
            let request = rig.begin(&mut client, mkdir(&format!("d{made}")));
            client.lowest = client.last;
            if rig.halted.is_some() && verb == "write" {
                assert_eq!(rig.mutated(client.link, request), None);
            }
        }
        let fault = rig.halted.clone().unwrap();
        assert!(
            fault.kind == FaultKind::Disk && fault.what.contains(file),
            "{fault}"
        );
        rig.send(
            client.link,
            Renew {
                session: client.session,
            },
        );
        rig.pass(Duration::from_secs(500));
    }
}

/// After a sync that failed, a page cache may take for clean what never reached the disk.
#[test]
fn what_a_start_has_read_is_written_anew_and_not_only_synced() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("kept")).unwrap();
    let before = rig.disk.clone();
    let last = before.segments().pop().unwrap();
    let mut next = Rig::on(config(), before.clone());
    next.hold = true;
    next.input(Input::Wake);
    let (mut written, mut synced, mut replaced) = (0, 0, false);
    while let Some((_, op)) = next.pending.front().cloned() {
        match op {
            DiskOp::Write {
                file, offset, data, ..
            } if !replaced && file.as_str() == "log/log.next" => {
                assert_eq!(offset, written, "in order, and from the beginning");
                written += data.iter().map(|part| part.len() as u64).sum::<u64>();
            }
            DiskOp::Sync { file } if file.as_str() == "log/log.next" => synced = written,
            DiskOp::Rename { from, to } if to.as_str() == last => {
                assert_eq!(from.as_str(), "log/log.next");
                replaced = true;
            }
            _ => {}
        }
        next.run_disk_once();
    }
    assert!(replaced, "the last segment is another file now");
    let (old, new) = (&before.files[&last], &next.disk.files[&last]);
    let batches = end_of_log(old);
    assert_eq!(new[..], old[..batches], "it ends where its batches end");
    assert_eq!(
        synced, batches as u64,
        "all of it was written and synced first"
    );
    assert_eq!(
        read_all(&next.disk)[..read_all(&before).len()],
        read_all(&before)
    );
}

#[test]
fn a_full_disk_refuses_mutations_goes_on_reading_and_recovers() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.disk
        .fails
        .push(("create", "log.next".into(), DiskError::NoSpace));
    let mut made = 0;
    let why = loop {
        match rig.mutate(&mut client, mkdir(&format!("d{made}"))) {
            Ok(_) => made += 1,
            outcome => break refused(outcome, Status::ReadOnly),
        }
        assert!(made < 200, "two segments do not last for ever");
    };
    assert!(why.contains("full"), "{why}");
    assert!(rig.halted.is_none());
    assert_eq!(rig.stat(client.link, "").unwrap().size, made);
    assert!(rig.status(client.link).read_only.is_some());
    rig.disk.fails.clear();
    rig.pass(Duration::from_secs(6));
    assert!(rig.mutate(&mut client, mkdir("more")).is_ok());
    assert!(rig.status(client.link).read_only.is_none());
    rig.restart();
    let link = rig.open_link(Role::Client);
    assert_eq!(rig.stat(link, "").unwrap().size, made + 1);
}

#[test]
fn a_full_disk_keeps_room_for_sessions_that_expire() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.disk
        .fails
        .push(("create", "log.next".into(), DiskError::NoSpace));
    for n in 0..200 {
        let _ = rig.mutate(
            &mut client,
            create(&format!("f{n}"), Keep::UntilSessionEnds),
        );
    }
    rig.pass(Duration::from_secs(130));
    let link = rig.open_link(Role::Client);
    assert_eq!(rig.stat(link, "").unwrap().size, 0);
}

#[test]
fn a_stop_waits_for_what_is_in_the_log_and_takes_nothing_more() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.hold = true;
    let request = rig.begin(&mut client, mkdir("d"));
    rig.input(Input::Call {
        id: CallId(5),
        call: Call::Stop,
    });
    let late = rig.begin(&mut client, mkdir("late"));
    let stopped = |rig: &Rig| {
        rig.events
            .iter()
            .any(|(id, event)| *id == CallId(5) && matches!(event, Event::Stopped))
    };
    assert!(!stopped(&rig));
    rig.run_disk();
    assert!(stopped(&rig) && rig.mutated(client.link, request).is_some());
    assert!(rig.mutated(client.link, late).is_none());
}

#[test]
fn a_stop_in_order_leaves_a_mark_at_the_end_of_the_log_at_once() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("a")).unwrap();
    let end = end_of_log(&rig.disk.files["log/log.1"]);
    rig.hold = true;
    rig.input(Input::Call {
        id: CallId(5),
        call: Call::Stop,
    });
    assert!(rig.events.iter().all(|(id, _)| *id != CallId(5)));
    rig.hold = false;
    rig.run_disk();
    assert!(rig.events.iter().any(|(id, _)| *id == CallId(5)));
    assert_eq!(end_of_log(&rig.disk.files["log/log.1"]), end + PAGE);
    assert!(rig.pending.is_empty());
    // With the mark in its place already there is nothing to wait for.
    let mut rig = Rig::fresh();
    rig.pass(Duration::from_millis(100));
    let writes = rig.writes;
    rig.input(Input::Call {
        id: CallId(5),
        call: Call::Stop,
    });
    assert!(rig.events.iter().any(|(id, _)| *id == CallId(5)));
    assert_eq!(rig.writes, writes);
}

#[test]
fn a_record_of_the_largest_size_goes_through_the_smallest_segments() {
    let mut config = config();
    config.limits.log_first_segment_bytes = 1;
    config.limits.log_segment_bytes = 1;
    config.limits.log_batch_bytes = 1;
    let mut rig = Rig::start(config, Disk::default());
    let mut client = rig.client(1);
    let deep = vec!["d"; 2_000].join("/");
    rig.mutate(&mut client, mkdir_p(&deep)).unwrap();
    let wide = vec!["w".repeat(255); 15].join("/");
    rig.mutate(&mut client, mkdir_p(&wide)).unwrap();
    rig.restart();
    let link = rig.open_link(Role::Client);
    assert!(rig.stat(link, &deep).is_ok() && rig.stat(link, &wide).is_ok());
}

#[test]
fn the_same_seed_and_inputs_give_the_same_bytes() {
    let run = || {
        let mut rig = Rig::fresh();
        let servers: Vec<Server> = (1..=4).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        let all: Vec<&Server> = servers.iter().collect();
        let grants: Vec<_> = (0..20)
            .map(|index| rig.allocate(&mut client, &all, file, index).unwrap())
            .collect();
        (rig.disk.files, grants)
    };
    assert!(run() == run());
}
