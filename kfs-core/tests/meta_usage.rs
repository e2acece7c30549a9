//! What trees take: scans of a state as it was in one instant, in slices between everything else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::{FileId, LinkId, LogSeq};
use kfs_core::limits::{
    HEADER_BYTES, Timing, USAGE_DEPTH_MAX, USAGE_PAGE_MAX, USAGE_SCANS_MAX,
    USAGE_SCANS_PER_LINK_MAX,
};
use kfs_core::machine::{Input, Machine as _};
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Role, Status};
use meta_rig::*;

const IDLE: Duration = Timing::REAL.session_idle;
const SOON: Duration = Duration::from_millis(100);
const MS: Duration = Duration::from_millis(1);

fn usage(path: &str, depth: u32) -> QueryOp {
    QueryOp::Usage {
        at: at(path),
        depth,
    }
}
fn answer(rig: &mut Rig, link: LinkId, request: u64) -> Option<(LogSeq, Result<Answer, Refusal>)> {
    match rig.answer(link, request)? {
        Head::Answered(answered) => Some((answered.seq, answered.outcome)),
        other => panic!("answered {other:?}"),
    }
}
/// What comes of a request within a while.
fn page(rig: &mut Rig, link: LinkId, op: QueryOp) -> Result<UsagePage, Refusal> {
    let request = rig.send(link, Query { op });
    for _ in 0..2_000 {
        if let Some((seq, outcome)) = answer(rig, link, request) {
            return outcome.map(|answer| match answer {
                Answer::Usage(page) => {
                    assert_eq!(page.at, seq, "an answer says which state it is of");
                    assert!(page.rows.len() <= USAGE_PAGE_MAX);
                    page
                }
                other => panic!("answered {other:?}"),
            });
        }
        rig.pass(MS);
    }
    panic!("no answer");
}
/// All of a scan: what each directory takes, by its path from where the scan began; and the state they are of.
fn scan(rig: &mut Rig, link: LinkId, op: QueryOp) -> (Vec<(String, Usage)>, LogSeq) {
    let mut page_now = page(rig, link, op).unwrap();
    let (number, seq) = (page_now.scan, page_now.at);
    let mut rows = Vec::new();
    loop {
        assert_eq!((page_now.scan, page_now.at), (number, seq), "one instant");
        rows.extend(page_now.rows);
        if page_now.end {
            return (with_paths(rows), seq);
        }
        page_now = page(rig, link, QueryOp::UsageNext { scan: number }).unwrap();
    }
}
fn with_paths(rows: Vec<UsageRow>) -> Vec<(String, Usage)> {
    let mut names: Vec<String> = Vec::new();
    let mut of = Vec::new();
    for row in rows {
        match row {
            UsageRow::Enters { name } => names.push(String::from_utf8(name).unwrap()),
            UsageRow::Leaves(usage) => {
                of.push((names.join("/"), usage));
                names.pop();
            }
        }
    }
    assert!(names.is_empty(), "what was entered is left");
    of
}
fn of_files(bytes: u64, files: u64, directories: u64) -> Usage {
    Usage {
        bytes,
        files,
        directories,
        ..Usage::default()
    }
}
/// Of a replica with so many bytes, on three servers.
fn replicas(chunks: u64, bytes: u64) -> u64 {
    3 * (chunks * HEADER_BYTES + bytes)
}
/// So many empty files in a directory.
fn files(rig: &mut Rig, client: &mut Client, dir: &str, count: u64) {
    rig.mutate(client, mkdir_p(dir)).unwrap();
    for nth in 0..count {
        let op = create(&format!("{dir}/{nth:06}"), Keep::Always);
        rig.mutate(client, op).unwrap();
    }
}
fn write(
    rig: &mut Rig,
    client: &mut Client,
    servers: &[Server],
    path: &str,
    chunks: u64,
    last: u64,
) {
    let file = rig.create(client, path);
    let of: Vec<&Server> = servers.iter().collect();
    let mut basis = Vec::new();
    for index in 0..chunks {
        let grant = rig.allocate(client, &of, file, index).unwrap();
        let len = if index + 1 == chunks { last } else { CHUNK };
        basis.push(synced(&grant, len));
    }
    let size = (chunks - 1) * CHUNK + last;
    rig.mutate(client, close(file, size, basis)).unwrap();
}

#[test]
fn what_directories_take_is_summed_upwards_deepest_first() {
    let mut rig = Rig::fresh();
    let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
    let mut client = rig.client(1);
    for dir in ["a", "a/b", "a/b/c", "a/e", "z"] {
        rig.mutate(&mut client, mkdir(dir)).unwrap();
    }
    write(&mut rig, &mut client, &servers, "a/b/one", 1, 10);
    write(&mut rig, &mut client, &servers, "a/three", 3, 5);
    write(&mut rig, &mut client, &servers, "top", 1, 7);
    rig.create(&mut client, "z/empty");
    let link = rig.open_link(Role::Client);
    let (rows, seq) = scan(&mut rig, link, usage("", u32::MAX));
    assert_eq!(seq, rig.meta.state().unwrap().seq());
    let with = |usage: Usage, chunks, bytes| Usage {
        chunks,
        replica_bytes: replicas(chunks, bytes),
        ..usage
    };
    let three = 2 * CHUNK + 5;
    let due = [
        ("a/b/c", of_files(0, 0, 1)),
        ("a/b", with(of_files(10, 1, 2), 1, 10)),
        ("a/e", of_files(0, 0, 1)),
        ("a", with(of_files(10 + three, 2, 4), 4, 10 + three)),
        ("z", of_files(0, 1, 1)),
        ("", with(of_files(17 + three, 4, 6), 5, 17 + three)),
    ];
    let due: Vec<(String, Usage)> = due.map(|(path, usage)| (path.into(), usage)).into();
    assert_eq!(rows, due);
    let status = rig.status(link);
    assert_eq!(status.bytes, rows[5].1.bytes);
    assert_eq!((status.files, status.directories), (4, 6));
    // Rows of their own only so far down; all is counted.
    for (depth, left) in [(0, 1), (1, 3), (2, 5), (3, 6)] {
        let (shown, _) = scan(&mut rig, link, usage("", depth));
        assert_eq!(shown.len(), left, "depth {depth}");
        assert_eq!(shown.last(), rows.last());
        assert!(shown.iter().all(|row| rows.contains(row)));
    }
    let (inside, _) = scan(&mut rig, link, usage("a/b", 9));
    assert_eq!(inside[0], ("c".into(), rows[0].1));
    assert_eq!(inside[1], (String::new(), rows[1].1));
    // A file by itself.
    let (file, _) = scan(&mut rig, link, usage("a/three", 0));
    assert_eq!(
        file,
        [(String::new(), with(of_files(three, 1, 0), 3, three))]
    );
}

#[test]
fn what_changes_while_a_tree_is_scanned_is_in_no_number() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    for dir in ["d/1", "d/2", "d/3"] {
        files(&mut rig, &mut client, dir, 400);
    }
    let link = rig.open_link(Role::Client);
    let begun = rig.meta.state().unwrap().seq();
    let request = rig.send(link, Query { op: usage("d", 1) });
    let mut slices = 0;
    let outcome = loop {
        if let Some((seq, outcome)) = answer(&mut rig, link, request) {
            assert_eq!(seq, begun);
            break outcome;
        }
        // Behind where it is, before it, and the whole tree from under it.
        let nth = slices;
        let other = rig.open_link(Role::Client);
        let attrs = rig.stat(other, "d").map(|attrs| attrs.file);
        assert!(attrs.is_ok() || nth > 1, "a question is answered at once");
        match nth {
            0 => {
                rig.mutate(&mut client, create("d/1/new", Keep::Always))
                    .unwrap();
                rig.mutate(&mut client, remove("d/3/000399")).unwrap();
                rig.mutate(&mut client, rename("d/2", "d/0")).unwrap();
            }
            1 => {
                let op = MutateOp::RemoveTree { at: at("d") };
                rig.mutate(&mut client, op).unwrap();
            }
            _ => {}
        }
        slices += 1;
        rig.pass(MS);
    };
    assert!(slices >= 4, "1,200 names take several slices: {slices}");
    let Ok(Answer::Usage(page)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(page.end && page.at == begun);
    let rows = with_paths(page.rows);
    let each = of_files(0, 400, 1);
    let due = [
        ("1", each),
        ("2", each),
        ("3", each),
        ("", of_files(0, 1_200, 4)),
    ];
    assert_eq!(rows, due.map(|(path, usage)| (path.to_owned(), usage)));
    // What the next one sees.
    refused(page_of_gone(&mut rig, link), Status::NotFound);
    rig.meta.state().unwrap().check();
}
fn page_of_gone(rig: &mut Rig, link: LinkId) -> Result<UsagePage, Refusal> {
    page(rig, link, usage("d", 1))
}

#[test]
fn no_input_waits_for_more_than_a_slice_of_a_large_tree() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    files(&mut rig, &mut client, "d", 5_000);
    let link = rig.open_link(Role::Client);
    let request = rig.send(link, Query { op: usage("", 0) });
    // However many inputs come in an instant, they do not make it work faster: its share of the time is bounded.
    for _ in 0..10_000 {
        rig.input(Input::Wake);
    }
    assert!(answer(&mut rig, link, request).is_none());
    let mut slices = 1;
    while answer(&mut rig, link, request).is_none() {
        let (due, what) = rig.meta.deadline().unwrap();
        assert_eq!(what, "go on with what trees take");
        assert!(due > rig.now.mono, "it does not spin");
        rig.pass(MS);
        slices += 1;
    }
    assert_eq!(slices, 5_000 / 256 + 1);
}

#[test]
fn rows_come_in_pages_and_the_next_one_only_when_it_is_asked_for() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    for nth in 0..1_500 {
        rig.mutate(&mut client, mkdir(&format!("{nth:04}")))
            .unwrap();
    }
    let link = rig.open_link(Role::Client);
    let first = page(&mut rig, link, usage("", 1)).unwrap();
    assert_eq!((first.rows.len(), first.end), (USAGE_PAGE_MAX, false));
    rig.pass(IDLE - SOON);
    assert!(rig.take(link).is_empty(), "nothing comes by itself");
    let of_first = || QueryOp::UsageNext { scan: first.scan };
    let mut rows = first.rows.clone();
    let request = rig.send(link, Query { op: of_first() });
    // One who asks twice at once is told so, and the first is answered.
    let (_, twice) = {
        let again = rig.send(link, Query { op: of_first() });
        answer(&mut rig, link, again).unwrap()
    };
    refused(twice, Status::BadRequest);
    let second = loop {
        match answer(&mut rig, link, request) {
            Some((_, Ok(Answer::Usage(page)))) => break page,
            Some(other) => panic!("{other:?}"),
            None => rig.pass(MS),
        }
    };
    rows.extend(second.rows);
    let third = page(&mut rig, link, of_first()).unwrap();
    rows.extend(third.rows);
    assert!(third.end);
    let rows = with_paths(rows);
    assert_eq!(rows.len(), 1_501);
    assert_eq!(rows[1_500].1, of_files(0, 0, 1_501));
    // It is over.
    refused(page(&mut rig, link, of_first()), Status::BadRequest);
}

#[test]
fn who_asks_is_told_within_a_second_that_a_long_scan_goes_on() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    files(&mut rig, &mut client, "d", 2_000);
    let link = rig.open_link(Role::Client);
    let request = rig.send(link, Query { op: usage("", 0) });
    for _ in 0..2 {
        rig.now.mono = rig.now.mono + Duration::from_millis(400);
        rig.input(Input::Wake);
        assert!(answer(&mut rig, link, request).is_none());
    }
    rig.now.mono = rig.now.mono + Duration::from_millis(400);
    rig.input(Input::Wake);
    let (_, told) = answer(&mut rig, link, request).unwrap();
    let Ok(Answer::Usage(told)) = told else {
        panic!("{told:?}");
    };
    assert!(told.rows.is_empty() && !told.end);
    let last = page(&mut rig, link, QueryOp::UsageNext { scan: told.scan }).unwrap();
    assert!(last.end);
    assert_eq!(last.rows, [UsageRow::Leaves(of_files(0, 2_000, 2))]);
}

#[test]
fn there_are_few_scans_at_once_and_one_client_has_not_all_of_them() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    for nth in 0..1_100 {
        rig.mutate(&mut client, mkdir(&format!("{nth:04}")))
            .unwrap();
    }
    let mut begun = Vec::new();
    let links: Vec<LinkId> = (0..3).map(|_| rig.open_link(Role::Client)).collect();
    for _ in 0..USAGE_SCANS_PER_LINK_MAX {
        begun.push(page(&mut rig, links[0], usage("", 1)).unwrap());
    }
    let busy = |rig: &mut Rig, link| refused(page(rig, link, usage("", 1)), Status::Busy);
    assert!(busy(&mut rig, links[0]).contains("of this client"));
    while begun.len() < USAGE_SCANS_MAX {
        begun.push(page(&mut rig, links[1], usage("", 1)).unwrap());
    }
    busy(&mut rig, links[2]);
    assert_eq!(rig.meta.bounds().usages, USAGE_SCANS_MAX);
    // Another's scan is not this client's.
    let op = QueryOp::UsageNext {
        scan: begun[0].scan,
    };
    refused(page(&mut rig, links[1], op), Status::BadRequest);
    // With a link its scans go.
    rig.close_link(links[0]);
    rig.pass(SOON);
    assert_eq!(rig.meta.bounds().usages, USAGE_SCANS_MAX - 2);
    // What nobody asks about any more goes as well.
    let last = begun.last().unwrap().scan;
    rig.pass(IDLE - 2 * SOON);
    let go_on = QueryOp::UsageNext { scan: last };
    assert!(!page(&mut rig, links[1], go_on.clone()).unwrap().end);
    assert!(page(&mut rig, links[1], go_on).unwrap().end);
    rig.pass(3 * SOON);
    assert_eq!(rig.meta.bounds().usages, 0);
    let op = QueryOp::UsageNext {
        scan: begun[2].scan,
    };
    assert!(refused(page(&mut rig, links[1], op), Status::BadRequest).contains("begun again"));
    scan(&mut rig, links[2], usage("", 1));
}

#[test]
fn a_scan_of_before_a_restart_is_none_of_now() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    for nth in 0..1_100 {
        rig.mutate(&mut client, mkdir(&format!("{nth:04}")))
            .unwrap();
    }
    let link = rig.open_link(Role::Client);
    let old = page(&mut rig, link, usage("", 1)).unwrap();
    rig.restart();
    let link = rig.open_link(Role::Client);
    let new = page(&mut rig, link, usage("", 1)).unwrap();
    assert_ne!(old.scan, new.scan);
    let op = QueryOp::UsageNext { scan: old.scan };
    refused(page(&mut rig, link, op), Status::BadRequest);
}

#[test]
fn a_file_of_many_chunks_is_counted_in_slices_too() {
    let mut rig = Rig::fresh();
    let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
    let mut client = rig.client(1);
    write(&mut rig, &mut client, &servers, "large", 600, 9);
    rig.create(&mut client, "next");
    let link = rig.open_link(Role::Client);
    let size = 599 * CHUNK + 9;
    for (path, files, directories) in [("", 2, 1), ("large", 1, 0)] {
        let request = rig.send(link, Query { op: usage(path, 0) });
        assert!(
            answer(&mut rig, link, request).is_none(),
            "600 chunks take more than a slice"
        );
        rig.pass(4 * MS);
        let (_, outcome) = answer(&mut rig, link, request).unwrap();
        let Ok(Answer::Usage(page)) = outcome else {
            panic!("{outcome:?}");
        };
        let due = Usage {
            chunks: 600,
            replica_bytes: replicas(600, size),
            ..of_files(size, files, directories)
        };
        assert_eq!(page.rows, [UsageRow::Leaves(due)]);
    }
}

#[test]
fn a_chunk_that_no_report_has_named_takes_its_headers() {
    let mut rig = Rig::fresh();
    let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    let of: Vec<&Server> = servers.iter().collect();
    rig.allocate(&mut client, &of, file, 0).unwrap();
    let link = rig.open_link(Role::Client);
    let (rows, _) = scan(&mut rig, link, usage("f", 0));
    assert_eq!((rows[0].1.bytes, rows[0].1.chunks), (0, 1));
    assert_eq!(rows[0].1.replica_bytes, replicas(1, 0));
}

#[test]
fn what_a_tree_takes_is_told_when_it_is_durable() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.mutate(&mut client, mkdir("d")).unwrap();
    let link = rig.open_link(Role::Client);
    rig.hold = true;
    let made = rig.begin(&mut client, mkdir("d/e"));
    let request = rig.send(link, Query { op: usage("d", 0) });
    rig.pass(SOON);
    assert!(answer(&mut rig, link, request).is_none());
    rig.hold = false;
    rig.run_disk();
    assert!(rig.mutated(client.link, made).is_some());
    let (_, outcome) = answer(&mut rig, link, request).unwrap();
    let Ok(Answer::Usage(page)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(page.rows, [UsageRow::Leaves(of_files(0, 0, 2))]);
}

#[test]
fn a_tree_too_deep_to_be_kept_is_refused_and_its_parts_are_not() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    let mut dir = FileId::ROOT;
    let mut middle = dir;
    for nth in 0..USAGE_DEPTH_MAX {
        let op = MutateOp::Mkdir {
            at: At {
                dir,
                path: b"d".to_vec(),
            },
            parents: Parents::MustExist,
            owner: OWNER,
        };
        let Done::Made { file, .. } = rig.mutate(&mut client, op).unwrap() else {
            panic!("it was made");
        };
        dir = file;
        if nth == 100 {
            middle = dir;
        }
    }
    let link = rig.open_link(Role::Client);
    let why = refused(page(&mut rig, link, usage("", 0)), Status::BadRequest);
    assert!(why.contains("further down"), "{why}");
    let op = QueryOp::Usage {
        at: At {
            dir: middle,
            path: vec![],
        },
        depth: 0,
    };
    let last = page(&mut rig, link, op).unwrap();
    let below = USAGE_DEPTH_MAX as u64 - 100;
    assert_eq!(last.rows, [UsageRow::Leaves(of_files(0, 0, below))]);
    rig.pass(SOON);
    assert_eq!(rig.meta.bounds().usages, 0);
}

#[test]
fn what_cannot_be_found_is_not_scanned() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    rig.create(&mut client, "f");
    let link = rig.open_link(Role::Client);
    for (path, status) in [
        ("nothing", Status::NotFound),
        ("f/below", Status::NotADirectory),
    ] {
        refused(page(&mut rig, link, usage(path, 0)), status);
    }
    assert_eq!(rig.meta.bounds().usages, 0);
    let op = QueryOp::UsageNext { scan: 1 };
    refused(page(&mut rig, link, op), Status::BadRequest);
}

#[test]
fn a_scan_that_ends_while_newer_changes_wait_for_the_log_is_answered_behind_them() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    files(&mut rig, &mut client, "d", 600);
    let link = rig.open_link(Role::Client);
    let begun = rig.meta.state().unwrap().seq();
    let request = rig.send(link, Query { op: usage("d", 0) });
    rig.hold = true;
    let newer = rig.begin(&mut client, mkdir("newer"));
    for _ in 0..5 {
        rig.now.mono = rig.now.mono + MS;
        rig.input(Input::Wake);
    }
    assert!(answer(&mut rig, link, request).is_none());
    rig.hold = false;
    rig.run_disk();
    let (seq, outcome) = answer(&mut rig, link, request).unwrap();
    assert_eq!(seq, begun);
    let Ok(Answer::Usage(page)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(page.rows, [UsageRow::Leaves(of_files(0, 600, 1))]);
    assert!(rig.mutated(client.link, newer).unwrap().seq > begun);
}
