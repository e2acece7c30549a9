//! What was removed: files stay while somebody has them open, trees go at once and are reclaimed bit by bit.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; a measure is shown"
)]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::{Boot, Epoch, FileId, Incarnation, Instance, LinkId, LogSeq};
use kfs_core::limits::{HOLD_PAGE_MAX, HOLDS_PER_LINK_MAX, RECLAIM_BATCH_MAX, Timing};
use kfs_core::machine::Machine as _;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Role, Status};
use meta_rig::*;

const IDLE: Duration = Timing::REAL.session_idle;
const SOON: Duration = Duration::from_millis(100);

/// Three servers, a client, and a file `f` of ten bytes in one chunk, closed.
fn with_a_file() -> (Rig, Vec<Server>, Client, FileId) {
    let mut rig = Rig::fresh();
    let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
    let mut client = rig.client(1);
    let file = rig.create(&mut client, "f");
    write(&mut rig, &servers, &mut client, file);
    (rig, servers, client, file)
}
/// They come back after a restart of the meta server.
fn all_join(rig: &mut Rig, servers: &mut [Server]) {
    for server in servers {
        rig.join(server, vec![]);
    }
}
fn write(rig: &mut Rig, servers: &[Server], client: &mut Client, file: FileId) {
    let of: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(client, &of, file, 0).unwrap();
    let done = rig.mutate(client, close(file, 10, vec![synced(&grant, 10)]));
    assert_eq!(done, Ok(Done::Ok));
}
fn open(rig: &mut Rig, link: LinkId, path: &str) -> FileId {
    match rig.query(link, QueryOp::Open { at: at(path) }).unwrap() {
        Answer::Opened { attrs, idle } => {
            assert_eq!(idle, IDLE);
            attrs.file
        }
        other => panic!("not opened: {other:?}"),
    }
}
fn release(rig: &mut Rig, link: LinkId, file: FileId) {
    let held = rig.query(link, QueryOp::Release { file });
    assert!(matches!(held, Ok(Answer::Held { .. })), "{held:?}");
}
fn hold(rig: &mut Rig, link: LinkId, files: Vec<FileId>) {
    let held = rig.query(link, QueryOp::Hold { files });
    assert!(matches!(held, Ok(Answer::Held { .. })), "{held:?}");
}
fn remove_tree(path: &str) -> MutateOp {
    MutateOp::RemoveTree { at: at(path) }
}
fn chunks_ordered_away(rig: &mut Rig, server: &Server) -> usize {
    let orders = rig.orders(server).into_iter();
    let deletes = orders.map(|head| match head {
        Head::DeleteChunks(order) => order.chunks.len(),
        _ => 0,
    });
    deletes.sum()
}
fn is_there(rig: &mut Rig, link: LinkId, file: FileId) -> bool {
    let op = QueryOp::Locate {
        file,
        first: 0,
        count: 1,
    };
    match rig.query(link, op) {
        Ok(Answer::Located(located)) => {
            assert_eq!(located.size, 10);
            assert_eq!(located.chunks.len(), 1);
            true
        }
        Err(refusal) => {
            assert_eq!(refusal.status, Status::NotFound);
            false
        }
        other => panic!("not located: {other:?}"),
    }
}
fn check(rig: &Rig) {
    rig.meta.state().unwrap().check();
}

#[test]
fn a_file_that_nobody_has_open_goes_with_its_name() {
    let (mut rig, servers, mut client, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "f");
    release(&mut rig, link, file);
    rig.mutate(&mut client, remove("f")).unwrap();
    assert_eq!(chunks_ordered_away(&mut rig, &servers[0]), 1);
    assert!(!is_there(&mut rig, link, file));
    check(&rig);
}

#[test]
fn a_removed_file_stays_until_the_last_who_has_it_open_lets_go() {
    let (mut rig, servers, mut client, file) = with_a_file();
    let (one, other) = (rig.open_link(Role::Client), rig.open_link(Role::Client));
    for link in [one, one, other] {
        assert_eq!(open(&mut rig, link, "f"), file);
    }
    rig.mutate(&mut client, remove("f")).unwrap();
    refused(rig.stat(one, "f"), Status::NotFound);
    for link in [one, other, one] {
        assert!(is_there(&mut rig, one, file));
        assert_eq!(rig.status(one).reclaim.files, 1);
        rig.pass(SOON);
        assert_eq!(chunks_ordered_away(&mut rig, &servers[0]), 0);
        release(&mut rig, link, file);
    }
    rig.pass(SOON);
    assert_eq!(chunks_ordered_away(&mut rig, &servers[0]), 1);
    assert!(!is_there(&mut rig, one, file));
    let reclaim = *rig.status(one).reclaim;
    assert_eq!((reclaim.files, reclaim.done), (0, 1));
    check(&rig);
}

#[test]
fn a_replaced_file_stays_for_who_has_it_open() {
    let (mut rig, servers, mut client, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "f");
    let new = rig.create(&mut client, "new");
    write(&mut rig, &servers, &mut client, new);
    rig.mutate(&mut client, rename("new", "f")).unwrap();
    assert_eq!(rig.stat(link, "f").unwrap().file, new);
    assert!(is_there(&mut rig, link, file));
    release(&mut rig, link, file);
    rig.pass(SOON);
    assert!(!is_there(&mut rig, link, file) && is_there(&mut rig, link, new));
    check(&rig);
}

#[test]
fn a_removed_file_is_written_on_by_who_made_it_until_it_is_closed() {
    let (mut rig, servers, mut client, _) = with_a_file();
    let file = rig.create(&mut client, "g");
    rig.mutate(&mut client, remove("g")).unwrap();
    rig.pass(SOON);
    rig.restart();
    let servers: Vec<Server> = (1..=servers.len() as u128)
        .map(|node| {
            let mut server = Server::new(node);
            server.hello.boot = Boot(2);
            server.hello.instance = Instance(2);
            rig.join(&mut server, vec![]);
            server
        })
        .collect();
    rig.resume(&mut client);
    let of: Vec<&Server> = servers.iter().collect();
    let grant = rig.allocate(&mut client, &of, file, 0).unwrap();
    let basis = vec![synced(&grant, 10)];
    rig.mutate(&mut client, set_size(file, 10, basis)).unwrap();
    assert!(is_there(&mut rig, client.link, file));
    rig.mutate(&mut client, close(file, 10, vec![])).unwrap();
    rig.pass(IDLE);
    assert!(!is_there(&mut rig, client.link, file));
    check(&rig);
}

#[test]
fn a_removed_file_that_was_only_written_goes_when_it_is_closed_or_its_session_ends() {
    let (mut rig, servers, mut client, _) = with_a_file();
    for ends in [false, true] {
        let mut writer = rig.client(2 + u64::from(ends));
        let file = rig.create(&mut writer, "g");
        let of: Vec<&Server> = servers.iter().collect();
        let grant = rig.allocate(&mut writer, &of, file, 0).unwrap();
        let report = set_size(file, 10, vec![synced(&grant, 10)]);
        rig.mutate(&mut writer, report).unwrap();
        rig.mutate(&mut client, remove("g")).unwrap();
        rig.pass(SOON);
        assert!(is_there(&mut rig, client.link, file));
        let end = if ends {
            MutateOp::EndSession
        } else {
            close(file, 10, vec![])
        };
        rig.mutate(&mut writer, end).unwrap();
        rig.pass(SOON);
        assert!(!is_there(&mut rig, client.link, file));
        check(&rig);
    }
}

#[test]
fn after_a_restart_a_removed_file_stays_for_who_says_in_time_that_it_is_open() {
    let (mut rig, mut servers, mut client, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "f");
    rig.mutate(&mut client, remove("f")).unwrap();
    rig.restart();
    all_join(&mut rig, &mut servers);
    let link = rig.open_link(Role::Client);
    rig.pass(IDLE - SOON);
    assert!(is_there(&mut rig, link, file));
    hold(&mut rig, link, vec![file]);
    for _ in 0..10 {
        rig.pass(IDLE / 4);
        hold(&mut rig, link, vec![]);
        assert!(is_there(&mut rig, link, file));
    }
    release(&mut rig, link, file);
    rig.pass(SOON);
    assert!(!is_there(&mut rig, link, file));
    check(&rig);
}

#[test]
fn what_is_removed_soon_after_a_restart_waits_until_everybody_could_say_what_is_open() {
    let (mut rig, mut servers, mut client, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "f");
    rig.restart();
    all_join(&mut rig, &mut servers);
    rig.resume(&mut client);
    rig.mutate(&mut client, remove("f")).unwrap();
    rig.pass(IDLE / 2);
    assert!(is_there(&mut rig, client.link, file));
    rig.pass(IDLE / 2 + SOON);
    assert!(!is_there(&mut rig, client.link, file));
    check(&rig);
}

#[test]
fn a_hold_outlives_its_link_until_the_client_must_be_taken_for_dead() {
    let (mut rig, _, mut client, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "f");
    rig.close_link(link);
    rig.mutate(&mut client, remove("f")).unwrap();
    rig.pass(IDLE - SOON);
    let asker = rig.open_link(Role::Client);
    assert!(is_there(&mut rig, asker, file));
    rig.pass(SOON * 2);
    assert!(!is_there(&mut rig, asker, file));
}

#[test]
fn opening_costs_no_record() {
    let (mut rig, _, _, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    let seq = rig.status(link).log_seq;
    for _ in 0..10 {
        open(&mut rig, link, "f");
    }
    hold(&mut rig, link, vec![file; 10]);
    for _ in 0..20 {
        release(&mut rig, link, file);
    }
    assert_eq!(rig.status(link).log_seq, seq);
    assert_eq!(rig.meta.bounds().holds, 0);
}

#[test]
fn a_client_that_holds_too_much_is_refused_and_others_are_not() {
    let (mut rig, _, _, file) = with_a_file();
    let link = rig.open_link(Role::Client);
    for _ in 0..HOLDS_PER_LINK_MAX / HOLD_PAGE_MAX {
        hold(&mut rig, link, vec![file; HOLD_PAGE_MAX]);
    }
    let full = rig.query(link, QueryOp::Open { at: at("f") });
    assert!(refused(full, Status::Busy).contains("files open"));
    let files = vec![file; HOLD_PAGE_MAX + 1];
    let large = rig.query(link, QueryOp::Hold { files });
    refused(large, Status::BadRequest);
    let other = rig.open_link(Role::Client);
    open(&mut rig, other, "f");
    assert_eq!(rig.meta.bounds().holds_most, HOLDS_PER_LINK_MAX);
    release(&mut rig, link, file);
    open(&mut rig, link, "f");
}

#[test]
fn a_temporary_file_that_somebody_has_open_outlives_the_session() {
    let (mut rig, servers, _, _) = with_a_file();
    let mut writer = rig.client(2);
    let Ok(Done::Made { file, .. }) = rig.mutate(&mut writer, create("t", Keep::UntilSessionEnds))
    else {
        panic!("it is not made");
    };
    write(&mut rig, &servers, &mut writer, file);
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "t");
    rig.mutate(&mut writer, MutateOp::EndSession).unwrap();
    rig.pass(SOON);
    refused(rig.stat(link, "t"), Status::NotFound);
    assert!(is_there(&mut rig, link, file));
    release(&mut rig, link, file);
    rig.pass(SOON);
    assert!(!is_there(&mut rig, link, file));
    check(&rig);
}

/// `t/d0/f0`, … : so many directories of so many files, none of them written.
fn tree(rig: &mut Rig, client: &mut Client, directories: usize, files: usize) -> FileId {
    rig.mutate(client, mkdir("t")).unwrap();
    for dir in 0..directories {
        rig.mutate(client, mkdir(&format!("t/d{dir}"))).unwrap();
        for file in 0..files {
            let file = rig.create(client, &format!("t/d{dir}/f{file}"));
            rig.mutate(client, close(file, 0, vec![])).unwrap();
        }
    }
    let link = client.link;
    rig.stat(link, "t").unwrap().file
}

#[test]
fn a_tree_is_gone_with_one_record_and_its_names_go_in_batches() {
    let (mut rig, _, mut client, _) = with_a_file();
    tree(&mut rig, &mut client, 20, 50);
    let before = rig.status(client.link);
    assert_eq!((before.files, before.directories), (1_001, 22));
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    let link = client.link;
    refused(rig.stat(link, "t"), Status::NotFound);
    refused(rig.stat(link, "t/d3/f1"), Status::NotFound);
    assert_eq!(rig.stat(link, "").unwrap().size, 1, "the root has f");
    let at_once = rig.status(link);
    assert!(
        at_once.files >= 1_001 - 2 * RECLAIM_BATCH_MAX as u64,
        "not all of it is done"
    );
    let mut last = at_once;
    let mut batches = 0;
    while last.directories > 1 {
        let Some((due, why)) = rig.meta.deadline() else {
            panic!("something is left: {last:?}");
        };
        rig.spent = Duration::ZERO;
        let by = due.since(rig.now.mono);
        rig.pass(by);
        check(&rig);
        let now = rig.status(link);
        let fewer = last.files + last.directories - now.files - now.directories;
        assert!(fewer <= RECLAIM_BATCH_MAX as u64 + 1, "{fewer}: {why}");
        assert!(now.reclaim.done >= last.reclaim.done);
        batches += u64::from(fewer > 0);
        last = now;
    }
    assert!(batches >= 1_000 / RECLAIM_BATCH_MAX as u64);
    assert_eq!((last.files, last.directories), (1, 1));
    let reclaim = *last.reclaim;
    assert_eq!(
        (reclaim.files, reclaim.directories, reclaim.entries),
        (0, 0, 0)
    );
    assert_eq!(reclaim.done, 1_021);
}

#[test]
fn an_id_in_a_removed_tree_leads_nowhere_though_it_is_not_reclaimed_yet() {
    let (mut rig, mut servers, mut client, _) = with_a_file();
    let top = tree(&mut rig, &mut client, 2, 3);
    let link = client.link;
    let below = rig.stat(link, "t/d1").unwrap().file;
    // Soon after a restart nothing is reclaimed.
    rig.restart();
    all_join(&mut rig, &mut servers);
    rig.resume(&mut client);
    let link = client.link;
    for dir in [top, below] {
        let stat = QueryOp::Stat {
            at: At { dir, path: vec![] },
        };
        assert!(rig.query(link, stat).is_ok());
    }
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    rig.pass(SOON);
    assert_eq!(rig.status(link).directories, 4);
    for dir in [top, below] {
        let within = |path: &str| At {
            dir,
            path: path.into(),
        };
        for path in ["", "f0", "d1", "new"] {
            let asked = QueryOp::Stat { at: within(path) };
            refused(rig.query(link, asked), Status::NotFound);
            let opened = QueryOp::Open { at: within(path) };
            refused(rig.query(link, opened), Status::NotFound);
        }
        let listed = QueryOp::List {
            at: within(""),
            after: vec![],
            limit: 10,
        };
        refused(rig.query(link, listed), Status::NotFound);
        let changes = [
            MutateOp::Create {
                at: within("new"),
                owner: OWNER,
                replication: 0,
                keep: Keep::Always,
            },
            MutateOp::Mkdir {
                at: within("new"),
                parents: Parents::Make,
                owner: OWNER,
            },
            MutateOp::Remove { at: within("f0") },
            MutateOp::Rmdir { at: within("d0") },
            MutateOp::RemoveTree { at: within("d0") },
            MutateOp::Rename {
                from: within("f0"),
                to: at("out"),
                mode: RenameMode::Replace,
            },
            MutateOp::Rename {
                from: at("f"),
                to: within("in"),
                mode: RenameMode::Replace,
            },
        ];
        for op in changes {
            refused(rig.mutate(&mut client, op), Status::NotFound);
        }
    }
    check(&rig);
    rig.pass(IDLE);
    assert_eq!(rig.status(link).directories, 1);
}

#[test]
fn reclaiming_goes_on_after_a_restart_and_from_a_checkpoint() {
    let mut rig = Rig::fresh();
    let mut client = rig.client(1);
    tree(&mut rig, &mut client, 3, 100);
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    rig.pass(Duration::from_millis(11));
    let left = rig.status(client.link).files;
    assert!(left > 0 && left < 300, "{left}");
    let made = rig.query(client.link, QueryOp::Checkpoint);
    assert!(matches!(made, Ok(Answer::Checkpoint(_))), "{made:?}");
    for _ in 0..2 {
        rig.restart();
        check(&rig);
        let link = rig.open_link(Role::Client);
        let status = rig.status(link);
        assert_eq!(status.files, left, "who holds what is not known yet");
        assert!(status.reclaim.directories > 0 && status.reclaim.entries > 0);
        rig.pass(IDLE / 2);
        assert_eq!(rig.status(link).files, left);
    }
    rig.pass(IDLE);
    let link = rig.open_link(Role::Client);
    let status = rig.status(link);
    assert_eq!((status.files, status.directories), (0, 1));
    check(&rig);
}

#[test]
fn a_file_that_is_open_in_a_removed_tree_stays_and_the_rest_of_it_goes() {
    let (mut rig, servers, mut client, _) = with_a_file();
    rig.mutate(&mut client, mkdir_p("t/a/b")).unwrap();
    let file = rig.create(&mut client, "t/a/b/open");
    write(&mut rig, &servers, &mut client, file);
    let other = rig.create(&mut client, "t/a/other");
    write(&mut rig, &servers, &mut client, other);
    let link = rig.open_link(Role::Client);
    open(&mut rig, link, "t/a/b/open");
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    rig.pass(SOON);
    assert!(is_there(&mut rig, link, file) && !is_there(&mut rig, link, other));
    assert_eq!(rig.status(link).directories, 1);
    check(&rig);
    release(&mut rig, link, file);
    rig.pass(SOON);
    assert!(!is_there(&mut rig, link, file));
    check(&rig);
}

#[test]
fn a_file_with_more_chunks_than_a_record_reclaims_goes_in_parts() {
    let (mut rig, servers, mut client, _) = with_a_file();
    let chunks = 2 * RECLAIM_BATCH_MAX as u64 + 5;
    for (path, removed) in [("big", remove("big")), ("t/big", remove_tree("t"))] {
        rig.mutate(&mut client, mkdir_p("t")).unwrap();
        let file = rig.create(&mut client, path);
        let of: Vec<&Server> = servers.iter().collect();
        let mut basis = Vec::new();
        for index in 0..chunks {
            let grant = rig.allocate(&mut client, &of, file, index).unwrap();
            basis.push(synced(&grant, CHUNK));
        }
        rig.mutate(&mut client, close(file, chunks * CHUNK, basis))
            .unwrap();
        chunks_ordered_away(&mut rig, &servers[0]);
        let all = rig.status(client.link).chunks;
        rig.mutate(&mut client, removed).unwrap();
        let mut before = rig.status(client.link).chunks;
        assert!(before >= all - RECLAIM_BATCH_MAX as u64);
        while before > 1 {
            let due = rig.meta.deadline().unwrap().0;
            let by = due.since(rig.now.mono);
            rig.pass(by);
            check(&rig);
            let now = rig.status(client.link).chunks;
            assert!(before - now <= RECLAIM_BATCH_MAX as u64);
            before = now;
        }
        rig.pass(SOON);
        assert_eq!(chunks_ordered_away(&mut rig, &servers[0]) as u64, chunks);
        assert_eq!(rig.status(client.link).files, 1);
    }
}

#[test]
fn a_tree_is_a_directory_and_not_the_root() {
    let (mut rig, _, mut client, _) = with_a_file();
    refused(
        rig.mutate(&mut client, remove_tree("f")),
        Status::NotADirectory,
    );
    refused(rig.mutate(&mut client, remove_tree("")), Status::BadRequest);
    refused(
        rig.mutate(&mut client, remove_tree("gone")),
        Status::NotFound,
    );
}

#[test]
fn a_session_that_ends_takes_its_temporary_files_out_of_a_removed_tree_too() {
    let (mut rig, _, mut client, _) = with_a_file();
    tree(&mut rig, &mut client, 2, 100);
    let mut writer = rig.client(2);
    let made = rig.mutate(
        &mut writer,
        create("t/d1/temporary", Keep::UntilSessionEnds),
    );
    assert!(matches!(made, Ok(Done::Made { .. })));
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    rig.mutate(&mut writer, MutateOp::EndSession).unwrap();
    check(&rig);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.status(client.link).files, 1);
    check(&rig);
}

#[test]
fn a_log_that_lost_its_end_reclaims_nothing() {
    let (mut rig, _, mut client, _) = with_a_file();
    tree(&mut rig, &mut client, 2, 100);
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    let mut ahead = Server::new(9);
    ahead.hello.seen = (Epoch(1), Incarnation(99));
    ahead.hello.seen_seq = LogSeq(9_999);
    let _ = rig.hello(&mut ahead);
    assert!(rig.status(client.link).tail_lost);
    let left = rig.status(client.link).files;
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.status(client.link).files, left);
}

/// A batch is short: requests are not held up by it. The one in the middle is judged, as a machine does other things too.
#[test]
#[cfg_attr(not(madsim), ignore = "a measure, for the optimized build")]
fn a_batch_takes_less_than_two_milliseconds() {
    let (mut rig, servers, mut client, _) = with_a_file();
    rig.mutate(&mut client, mkdir("t")).unwrap();
    for nth in 0..2_000 {
        let file = rig.create(&mut client, &format!("t/f{nth:05}"));
        write(&mut rig, &servers, &mut client, file);
    }
    rig.mutate(&mut client, remove_tree("t")).unwrap();
    let mut batches = Vec::new();
    while rig.status(client.link).files > 1 {
        rig.spent = Duration::ZERO;
        let by = rig.meta.deadline().unwrap().0.since(rig.now.mono);
        rig.pass(by);
        batches.push(rig.spent);
    }
    batches.sort_unstable();
    let (middle, longest) = (batches[batches.len() / 2], batches[batches.len() - 1]);
    println!(
        "a batch took {middle:?}, the longest of {} {longest:?}",
        batches.len()
    );
    assert!(middle < Duration::from_millis(2), "{middle:?}");
}

/// It is there by its id for as long as somebody reads it.
#[test]
fn a_file_without_a_name_is_not_opened_for_writing_by_its_id() {
    let (mut rig, _servers, mut client, file) = with_a_file();
    assert_eq!(open(&mut rig, client.link, "f"), file);
    assert_eq!(rig.mutate(&mut client, remove("f")), Ok(Done::Ok));
    let at = At {
        dir: file,
        path: Vec::new(),
    };
    let why = refused(
        rig.mutate(&mut client, MutateOp::Append { at }),
        Status::NotFound,
    );
    assert!(why.contains("was removed"), "{why}");
    assert!(is_there(&mut rig, client.link, file));
}
