//! The bytes of every message, held for ever: `golden/wire_v1.txt` has one line `name hex` per sample, the hex
//! being the whole frame with its body. A sample that no longer encodes to its line, or a line that no longer
//! decodes to its sample, is a break of the wire.
//!
//! `KFS_GOLDEN=add` appends lines for new samples and touches no other. `KFS_GOLDEN=rewrite` makes the file
//! anew: only while the format is a draft, that is before the first release is tagged.
use bytes::Bytes;
use core::fmt::Write as _;
use core::time::Duration;
use kfs_core::block::Sums;
use kfs_core::ids::*;
use kfs_core::limits::{Geometry, Timing};
use kfs_core::time::UnixNanos;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::frame::{PREFIX_BYTES, Prefix, encode};
use kfs_core::wire::{Head, Msg, Negotiate, Refusal, Role, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const HEAD: &str = "\
# Golden frames of protocol 1: one line per sample, `name hex`, prefix, head, its CRC, body.
# Never edited: kfs-core/tests/golden_wire.rs adds to it when told to. Layout: docs/formats/wire.md.
";

const DURABLE: Durable = Durable {
    len: 65_537,
    wseq: WriteSeq(1_000),
};

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire_v1.txt")
}

/// The name of an enum's variant, by a match that does not compile when a variant is added, and all names.
macro_rules! variants {
    ($($fn:ident $all:ident $ty:ty { $($name:ident $pattern:pat),+ $(,)? })+) => {$(
        const $all: &[&str] = &[$(concat!(stringify!($fn), "=", stringify!($name))),+];
        fn $fn(value: &$ty) -> &'static str {
            match value {$($pattern => concat!(stringify!($fn), "=", stringify!($name)),)+}
        }
    )+};
}
variants! {
    role ROLE Role { Meta Role::Meta, Chunk Role::Chunk, Client Role::Client }
    mutate MUTATE MutateOp {
        Mkdir MutateOp::Mkdir { .. }, Create MutateOp::Create { .. }, Rename MutateOp::Rename { .. },
        Remove MutateOp::Remove { .. }, Rmdir MutateOp::Rmdir { .. }, Allocate MutateOp::Allocate { .. },
        SetSize MutateOp::SetSize { .. }, EndSession MutateOp::EndSession,
        AcceptRollback MutateOp::AcceptRollback, RemoveTree MutateOp::RemoveTree { .. },
        Rechain MutateOp::Rechain { .. }, Append MutateOp::Append { .. }, TakeOver MutateOp::TakeOver { .. },
        Drain MutateOp::Drain { .. }, SetReplication MutateOp::SetReplication { .. },
        Truncate MutateOp::Truncate { .. },
        SetAttributes MutateOp::SetAttributes { .. },
    }
    time_of TIME_OF TimeOf { Change TimeOf::Change, Given TimeOf::Given(_) }
    drain DRAIN Drain { Begin Drain::Begin, End Drain::End }
    drained DRAINED DrainStatus {
        Counting DrainStatus::Counting, Left DrainStatus::Left(_), Drained DrainStatus::Drained,
    }
    head_seen HEAD_SEEN HeadSeen { Reached HeadSeen::Reached, Lost HeadSeen::Lost }
    unsynced UNSYNCED Unsynced { Kept Unsynced::Kept, Dropped Unsynced::Dropped }
    parents PARENTS Parents { MustExist Parents::MustExist, Make Parents::Make }
    keep KEEP Keep { Always Keep::Always, UntilSessionEnds Keep::UntilSessionEnds }
    rename RENAME RenameMode { Replace RenameMode::Replace, NoReplace RenameMode::NoReplace }
    writer WRITER WriterStays { Open WriterStays::Open, Closed WriterStays::Closed }
    done DONE Done {
        Ok Done::Ok, Made Done::Made { .. }, Granted Done::Granted(_),
        Appending Done::Appending { .. }, TakenOver Done::TakenOver { .. },
    }
    query QUERY QueryOp {
        Stat QueryOp::Stat { .. }, List QueryOp::List { .. }, Locate QueryOp::Locate { .. }, Status QueryOp::Status, Checkpoint QueryOp::Checkpoint,
        Open QueryOp::Open { .. }, Hold QueryOp::Hold { .. }, Release QueryOp::Release { .. },
        Usage QueryOp::Usage { .. }, UsageNext QueryOp::UsageNext { .. },
    }
    answer ANSWER Answer {
        Attrs Answer::Attrs(_), Entries Answer::Entries { .. }, Located Answer::Located(_), Status Answer::Status(_), Checkpoint Answer::Checkpoint(_),
        Opened Answer::Opened { .. }, Held Answer::Held { .. }, Usage Answer::Usage(_),
    }
    usage_row USAGE_ROW UsageRow { Enters UsageRow::Enters { .. }, Leaves UsageRow::Leaves(_) }
    kind KIND Kind { File Kind::File, Directory Kind::Directory }
    server SERVER ServerState { Up ServerState::Up, Joining ServerState::Joining, Down ServerState::Down }
    replica REPLICA ReplicaState {
        Writing ReplicaState::Writing, Good ReplicaState::Good, BadHeader ReplicaState::BadHeader,
    }
    verdict VERDICT Verdict {
        Keep Verdict::Keep { .. }, Stale Verdict::Stale, Damaged Verdict::Damaged { .. }, Unknown Verdict::Unknown,
    }
}

/// Which nested variants a message shows, beyond its own type and whether it is a refusal.
fn shows(head: &Head) -> Vec<String> {
    let mut seen: Vec<String> = vec![];
    let mut see = |name: &str| seen.push(name.to_owned());
    match head {
        Head::Negotiate(m) => see(role(&m.role)),
        Head::Mutate(m) => {
            see(mutate(&m.op));
            match &m.op {
                MutateOp::Mkdir { parents: p, .. } => see(parents(p)),
                MutateOp::Create { keep: k, .. } => see(keep(k)),
                MutateOp::Rename { mode, .. } => see(rename(mode)),
                MutateOp::SetSize { writer: w, .. } => see(writer(w)),
                MutateOp::Rechain { head, .. } => see(head_seen(head)),
                MutateOp::Drain { drain: d, .. } => see(drain(d)),
                MutateOp::SetAttributes { to, .. } => to.mtime.iter().for_each(|t| see(time_of(t))),
                MutateOp::Remove { .. }
                | MutateOp::Rmdir { .. }
                | MutateOp::Allocate { .. }
                | MutateOp::EndSession
                | MutateOp::RemoveTree { .. }
                | MutateOp::Append { .. }
                | MutateOp::TakeOver { .. }
                | MutateOp::Truncate { .. }
                | MutateOp::SetReplication { .. }
                | MutateOp::AcceptRollback => {}
            }
        }
        Head::Mutated(m) => match &m.outcome {
            Ok(did) => see(done(did)),
            Err(refusal) => see(&format!("refused={}", refusal.status.code())),
        },
        Head::Query(m) => see(query(&m.op)),
        Head::Answered(m) => match &m.outcome {
            Ok(said) => {
                see(answer(said));
                match said {
                    Answer::Entries { entries, .. } => {
                        entries.iter().for_each(|e| see(kind(&e.attrs.kind)))
                    }
                    Answer::Checkpoint(_) | Answer::Opened { .. } | Answer::Held { .. } => {}
                    Answer::Status(s) => s.servers.iter().for_each(|s| {
                        see(server(&s.state));
                        s.drain.iter().for_each(|s| see(drained(s)));
                    }),
                    Answer::Usage(page) => page.rows.iter().for_each(|row| see(usage_row(row))),
                    Answer::Attrs(_) | Answer::Located(_) => {}
                }
            }
            Err(_) => see("refused"),
        },
        Head::SealChunk(m) => see(unsynced(&m.unsynced)),
        Head::Inventory(m) => m.items.iter().for_each(|item| see(replica(&item.state))),
        Head::Verdicts(m) => m.verdicts.iter().for_each(|(_, _, v)| see(verdict(v))),
        _ => {}
    }
    seen
}

const SESSION: SessionId = SessionId(3 << 40 | 77);
const CHUNK: ChunkId = ChunkId(3 << 40 | 5);
const VERSION: Version = Version(3 << 40 | 6);
const CHAIN: ChainId = ChainId(0xC4A1);
const FILE: FileId = FileId(3 << 40 | 4);
const TERM: Term = Term {
    epoch: Epoch(3),
    number: 9,
};

fn at(path: &str) -> At {
    At {
        dir: FileId::ROOT,
        path: path.into(),
    }
}
fn owner() -> Ownership {
    Ownership {
        uid: 1000,
        gid: 100,
        mode: 0o755,
    }
}
fn refusal(status: Status) -> Refusal {
    Refusal::new(status, format!("why it is {status:?}"))
}
fn place(n: u8) -> Place {
    Place {
        node: NodeId(0x0102 << 64 | u128::from(n)),
        addr: ([127, 0, 0, n], 22_000).into(),
    }
}
fn attrs(kind: Kind) -> Attrs {
    Attrs {
        file: FILE,
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        size: 1 << 33,
        replication: 3,
        links: 1,
        mtime: UnixNanos(1_700_000_000_123_456_789),
        ctime: UnixNanos(1_700_000_001_000_000_000),
        crtime: UnixNanos(1),
    }
}
fn sums() -> Sums {
    Sums::of(
        Geometry {
            block_bytes: 4,
            chunk_blocks: 8,
            piece_bytes: 8,
        },
        2,
        &body(),
    )
}
fn body() -> Bytes {
    Bytes::from_static(b"golden")
}

/// Every sample, by name: the message's name, and after a dot what is special about this one.
fn samples() -> Vec<(String, Msg)> {
    let mut out: Vec<(String, Msg)> = vec![];
    let mut add = |case: &str, head: Head, body: Bytes| {
        let name = if case.is_empty() {
            head.name().to_owned()
        } else {
            format!("{}.{case}", head.name())
        };
        let request = 0x1122_3344_5566_7788;
        out.push((
            name,
            Msg {
                request,
                head,
                body,
            },
        ));
    };
    let none = Bytes::new;

    for (case, role) in [
        ("meta", Role::Meta),
        ("chunk", Role::Chunk),
        ("client", Role::Client),
    ] {
        let build = "kfs 0.1.0".to_owned();
        let m = Negotiate {
            protocol_min: 1,
            protocol_max: 2,
            features: 5,
            role,
            cluster: ClusterId(1 << 127),
            build,
        };
        add(case, m.into(), none());
    }
    add(
        "new",
        OpenSession {
            resume: None,
            nonce: u64::MAX,
        }
        .into(),
        none(),
    );
    add(
        "resume",
        OpenSession {
            resume: Some(SESSION),
            nonce: 1,
        }
        .into(),
        none(),
    );
    let idle = Duration::new(120, 5);
    let grant = SessionGrant {
        session: SESSION,
        idle,
        geometry: Geometry::REAL,
    };
    add(
        "ok",
        SessionOpened {
            seq: LogSeq(300),
            outcome: Ok(grant),
        }
        .into(),
        none(),
    );
    let expired = Err(refusal(Status::SessionExpired));
    add(
        "refused",
        SessionOpened {
            seq: LogSeq(300),
            outcome: expired.clone(),
        }
        .into(),
        none(),
    );
    add("", Renew { session: SESSION }.into(), none());
    add("ok", Renewed { outcome: Ok(()) }.into(), none());
    add(
        "refused",
        Renewed {
            outcome: Err(refusal(Status::SessionExpired)),
        }
        .into(),
        none(),
    );

    let synced = SyncedChunk {
        index: 1,
        chunk: CHUNK,
        version: VERSION,
        synced: DURABLE,
    };
    let set_size = |writer| MutateOp::SetSize {
        file: FILE,
        size: 70_000_000,
        basis: vec![synced],
        writer,
    };
    let rechain = |head| MutateOp::Rechain {
        file: FILE,
        index: 2,
        chunk: CHUNK,
        version: VERSION,
        synced: DURABLE,
        head,
        broken: 1,
    };
    let create = |keep| MutateOp::Create {
        at: at("d/f"),
        owner: owner(),
        replication: 3,
        keep,
    };
    let rename = |mode| MutateOp::Rename {
        from: at("a"),
        to: At {
            dir: FILE,
            path: vec![0xFF, 0x80],
        },
        mode,
    };
    for (case, op) in [
        (
            "mkdir",
            MutateOp::Mkdir {
                at: at("a/b"),
                parents: Parents::MustExist,
                owner: owner(),
            },
        ),
        (
            "mkdir_parents",
            MutateOp::Mkdir {
                at: at(""),
                parents: Parents::Make,
                owner: owner(),
            },
        ),
        ("create", create(Keep::Always)),
        ("create_temporary", create(Keep::UntilSessionEnds)),
        ("rename", rename(RenameMode::Replace)),
        ("rename_no_replace", rename(RenameMode::NoReplace)),
        ("remove", MutateOp::Remove { at: at("x") }),
        ("rmdir", MutateOp::Rmdir { at: at("x") }),
        (
            "allocate",
            MutateOp::Allocate {
                file: FILE,
                index: 2,
            },
        ),
        ("set_size", set_size(WriterStays::Open)),
        ("set_size_closed", set_size(WriterStays::Closed)),
        ("end_session", MutateOp::EndSession),
        ("accept_rollback", MutateOp::AcceptRollback),
        (
            "set_replication",
            MutateOp::SetReplication {
                at: At::root(*b"a/f"),
                replication: 5,
            },
        ),
        (
            "truncate",
            MutateOp::Truncate {
                file: FILE,
                len: 70_000,
            },
        ),
        (
            "set_attributes",
            MutateOp::SetAttributes {
                at: At::root(*b"a/f"),
                to: Attributes {
                    mode: Some(0o4755),
                    uid: Some(1_000),
                    gid: Some(100),
                    mtime: Some(TimeOf::Given(UnixNanos(1_700_000_000_000_000_001))),
                },
            },
        ),
        (
            "set_attributes_touch",
            MutateOp::SetAttributes {
                at: At {
                    dir: FILE,
                    path: Vec::new(),
                },
                to: Attributes {
                    mtime: Some(TimeOf::Change),
                    ..Attributes::default()
                },
            },
        ),
        (
            "drain",
            MutateOp::Drain {
                node: NodeId(5),
                drain: Drain::Begin,
            },
        ),
        (
            "drain_end",
            MutateOp::Drain {
                node: NodeId(5),
                drain: Drain::End,
            },
        ),
        ("remove_tree", MutateOp::RemoveTree { at: at("x") }),
        ("rechain", rechain(HeadSeen::Reached)),
        ("rechain_head_lost", rechain(HeadSeen::Lost)),
        ("append", MutateOp::Append { at: at("x") }),
        (
            "take_over",
            MutateOp::TakeOver {
                file: FILE,
                index: 2,
            },
        ),
    ] {
        let (number, lowest_unanswered) = (RequestNumber(130), RequestNumber(128));
        add(
            case,
            Mutate {
                session: SESSION,
                number,
                lowest_unanswered,
                op,
            }
            .into(),
            none(),
        );
    }
    let granted = Grant {
        index: 2,
        chunk: CHUNK,
        version: VERSION,
        chain: vec![place(1), place(2)],
        from: PieceNumber(3),
        to: PieceNumber(5),
    };
    for (case, did) in [
        ("ok", Done::Ok),
        (
            "made",
            Done::Made {
                file: FILE,
                replication: 3,
            },
        ),
        ("granted", Done::Granted(granted.clone())),
        (
            "appending",
            Done::Appending {
                file: FILE,
                replication: 3,
                size: 70_000_000,
            },
        ),
        (
            "taken_over",
            Done::TakenOver {
                grant: granted,
                len: 65_537,
            },
        ),
    ] {
        add(
            case,
            Mutated {
                seq: LogSeq(301),
                outcome: Ok(did),
            }
            .into(),
            none(),
        );
    }
    for status in Status::ALL {
        let m = Mutated {
            seq: LogSeq(301),
            outcome: Err(refusal(status)),
        };
        add(&format!("refused_{}", status as u16), m.into(), none());
    }

    for (case, op) in [
        ("stat", QueryOp::Stat { at: at("a") }),
        (
            "list",
            QueryOp::List {
                at: at("a"),
                after: b"last".to_vec(),
                limit: 1_000,
            },
        ),
        (
            "locate",
            QueryOp::Locate {
                file: FILE,
                first: 1,
                count: 64,
            },
        ),
        ("status", QueryOp::Status),
        ("checkpoint", QueryOp::Checkpoint),
        ("open", QueryOp::Open { at: at("x") }),
        (
            "hold",
            QueryOp::Hold {
                files: vec![FILE, FILE],
            },
        ),
        ("release", QueryOp::Release { file: FILE }),
        (
            "usage",
            QueryOp::Usage {
                at: at("a"),
                depth: 3,
            },
        ),
        (
            "usage_next",
            QueryOp::UsageNext {
                scan: 0x1122_3344_5566_7788,
            },
        ),
    ] {
        add(case, Query { op }.into(), none());
    }
    let entries = [("d", Kind::Directory), ("f", Kind::File)]
        .map(|(name, kind)| Entry {
            name: name.into(),
            attrs: attrs(kind),
        })
        .to_vec();
    let chunk = ChunkPlaces {
        index: 1,
        chunk: CHUNK,
        version: VERSION,
        log: DURABLE,
        replicas: vec![Place {
            addr: "[::1]:22000".parse().expect("an address"),
            ..place(1)
        }],
        absent: 2,
    };
    let located = Located {
        size: 1 << 27,
        geometry: Geometry::REAL,
        chunks: vec![chunk],
    };
    for (case, said) in [
        ("attrs", Answer::Attrs(attrs(Kind::File))),
        ("entries", Answer::Entries { entries, end: true }),
        ("located", Answer::Located(located)),
        ("status", Answer::Status(Box::new(status()))),
        (
            "checkpoint",
            Answer::Checkpoint(CheckpointMade {
                seq: LogSeq(303),
                hash: Some(0x1122_3344_5566_7788),
            }),
        ),
        (
            "opened",
            Answer::Opened {
                attrs: attrs(Kind::File),
                idle: Duration::from_secs(120),
            },
        ),
        (
            "held",
            Answer::Held {
                idle: Duration::from_secs(120),
            },
        ),
        (
            "usage",
            Answer::Usage(UsagePage {
                scan: 0x1122_3344_5566_7788,
                at: LogSeq(302),
                rows: vec![
                    UsageRow::Enters {
                        name: b"d".to_vec(),
                    },
                    UsageRow::Leaves(Usage {
                        bytes: 1 << 33,
                        files: 5,
                        directories: 2,
                        chunks: 130,
                        replica_bytes: 3 << 33,
                    }),
                ],
                end: false,
            }),
        ),
    ] {
        add(
            case,
            Answered {
                seq: LogSeq(302),
                outcome: Ok(said),
            }
            .into(),
            none(),
        );
    }
    add(
        "refused",
        Answered {
            seq: LogSeq(302),
            outcome: Err(refusal(Status::NotFound)),
        }
        .into(),
        none(),
    );
    chunk_meta(&mut add);
    client_chunk(&mut add);
    out
}

fn status() -> ClusterStatus {
    let server = |n, state| ServerStatus {
        node: place(n).node,
        addr: (n != 3).then_some(place(n).addr),
        rack: "r1".into(),
        state,
        chunks: 12,
        bytes_free: 1 << 40,
        bytes_total: 2 << 40,
        silent: (n != 3).then_some(Duration::from_millis(1_500)),
        drain: None,
    };
    let drained = |n, drain| ServerStatus {
        drain: Some(drain),
        ..server(n, ServerState::Up)
    };
    let left = DrainLeft {
        chunks: 12,
        bytes: 1 << 33,
        written: 2,
        stuck: 1,
    };
    ClusterStatus {
        cluster: ClusterId(7),
        epoch: Epoch(3),
        build: "kfs 0.1.0".into(),
        log_seq: LogSeq(303),
        log_durable: LogSeq(302),
        files: 1,
        directories: 2,
        chunks: 3,
        bytes: 4,
        chunks_under_replicated: 5,
        chunks_unavailable: 6,
        replicas_damaged: 7,
        chunks_unknown: 8,
        sessions: 9,
        replication: 3,
        min_replicas: 2,
        read_only: Some("the log's disk is full".into()),
        changes_wait: Some("1 of 3 have said hello".into()),
        tail_lost: true,
        checkpoint: Box::new(CheckpointStatus {
            age: Some(CheckpointAge::Exactly(Duration::from_secs(90))),
            newest: Some(LogSeq(300)),
            failed: Some("no space".into()),
        }),
        reclaim: Box::new(ReclaimStatus {
            files: 10,
            directories: 11,
            entries: 12,
            done: 13,
        }),
        replication_work: Box::new(ReplicationStatus {
            waiting: 14,
            copying: 15,
            copied: 16,
            copied_bytes: 17,
            failed: 18,
            trimmed: 19,
        }),
        log_mirror: Some(Box::new(LogMirror {
            repaired: vec!["log/log.1 at offset 4096: rotten".into()],
            caught_up: 2,
        })),
        servers: vec![
            server(1, ServerState::Up),
            server(2, ServerState::Joining),
            server(3, ServerState::Down),
            drained(4, DrainStatus::Counting),
            drained(5, DrainStatus::Left(left)),
            drained(6, DrainStatus::Drained),
        ],
    }
}

fn chunk_meta(add: &mut impl FnMut(&str, Head, Bytes)) {
    let none = Bytes::new;
    let seen = (Epoch(2), Incarnation(0xABCD));
    let hello = Hello {
        cluster: ClusterId(7),
        node: NodeId(8),
        boot: Boot(4),
        instance: Instance(u64::MAX),
        addr: ([0, 0, 0, 0], 22_000).into(),
        rack: "r1".into(),
        seen,
        seen_seq: LogSeq(301),
        bytes_free: 1 << 40,
        bytes_total: 2 << 40,
        geometry: Geometry::REAL,
    };
    add("", hello.into(), none());
    let timing = Timing::REAL;
    add(
        "",
        Welcome {
            cluster: ClusterId(7),
            term: TERM,
            incarnation: Incarnation(0xEF),
            timing,
        }
        .into(),
        none(),
    );
    add(
        "",
        HelloRefused {
            refusal: refusal(Status::Permission),
        }
        .into(),
        none(),
    );
    add("", EpochBehind { seen }.into(), none());
    let item = |state| InventoryItem {
        file: FILE,
        chunk: CHUNK,
        version: VERSION,
        incarnation: Incarnation(0xEF),
        wseq: WriteSeq(64),
        len: 1 << 26,
        digest: Digest(0xD16E_5700),
        state,
    };
    let items = [
        ReplicaState::Writing,
        ReplicaState::Good,
        ReplicaState::BadHeader,
    ]
    .map(item)
    .to_vec();
    add(
        "",
        Inventory {
            term: TERM,
            items,
            last: false,
        }
        .into(),
        none(),
    );
    add(
        "last",
        Inventory {
            term: TERM,
            items: vec![],
            last: true,
        }
        .into(),
        none(),
    );
    let verdicts = [
        Verdict::Keep { log: DURABLE },
        Verdict::Stale,
        Verdict::Damaged {
            log: Durable {
                len: 1 << 26,
                ..DURABLE
            },
        },
        Verdict::Unknown,
    ]
    .map(|verdict| (CHUNK, VERSION, verdict))
    .to_vec();
    add(
        "",
        Verdicts {
            term: TERM,
            verdicts,
            accepted: true,
        }
        .into(),
        none(),
    );
    let heartbeat = Heartbeat {
        term: TERM,
        number: 10,
        answered: 9,
        bytes_free: 1,
        bytes_total: 2,
        chunks_writing: 300,
    };
    add("", heartbeat.into(), none());
    add(
        "",
        HeartbeatAnswer {
            term: TERM,
            number: 10,
            durable: LogSeq(303),
        }
        .into(),
        none(),
    );
    let create = CreateChunk {
        term: TERM,
        file: FILE,
        chunk: CHUNK,
        version: VERSION,
        incarnation: Incarnation(0xEF),
        chain: vec![place(1), place(2), place(3)],
        session: SESSION,
    };
    add("", create.into(), none());
    let created = |outcome| ChunkCreated {
        term: TERM,
        chunk: CHUNK,
        version: VERSION,
        outcome,
    };
    add("ok", created(Ok(())).into(), none());
    add(
        "refused",
        created(Err(refusal(Status::NoRoom))).into(),
        none(),
    );
    let chunks = vec![(CHUNK, VERSION), (CHUNK.next(), VERSION.next())];
    add(
        "",
        DeleteChunks {
            term: TERM,
            chunks: chunks.clone(),
        }
        .into(),
        none(),
    );
    add("", ChunksDeleted { term: TERM, chunks }.into(), none());
    let report = |block| ReportDamage {
        term: TERM,
        chunk: CHUNK,
        version: VERSION,
        block,
        why: "sum".into(),
    };
    add("block", report(Some(1_023)).into(), none());
    add("whole", report(None).into(), none());
    add(
        "",
        SayHello {
            why: "the term has ended".into(),
        }
        .into(),
        none(),
    );
    let (term, chunk, version) = (TERM, CHUNK, VERSION);
    for (case, unsynced) in [("kept", Unsynced::Kept), ("dropped", Unsynced::Dropped)] {
        let order = SealChunk {
            term,
            chunk,
            version,
            unsynced,
        };
        add(case, order.into(), none());
    }
    let resume = ResumeChunk {
        term,
        chunk,
        version,
        chain: CHAIN,
        members: vec![place(1), place(2)],
        session: SESSION,
        from: WriteSeq(3),
        to: WriteSeq(5),
        raised: None,
        cut: None,
    };
    let raised = ResumeChunk {
        to: WriteSeq(3),
        raised: Some(WriteSeq(1 << COUNTER_BITS)),
        ..resume.clone()
    };
    let cut = ResumeChunk {
        cut: Some(70_000),
        ..raised.clone()
    };
    add("", resume.into(), none());
    add("raised", raised.into(), none());
    add("cut", cut.into(), none());
    let resumed = |outcome| ChunkResumed {
        term,
        chunk,
        version,
        chain: CHAIN,
        outcome,
    };
    add("ok", resumed(Ok(())).into(), none());
    add(
        "refused",
        resumed(Err(refusal(Status::Busy))).into(),
        none(),
    );
    let has = Durable {
        len: 70_000,
        wseq: WriteSeq(9),
    };
    let content = Content {
        durable: has,
        digest: Digest(0xFEDC_BA98_7654_3210),
    };
    let sealed = |outcome| ChunkSealed {
        term,
        chunk,
        version,
        outcome,
        next_lost: true,
    };
    add("ok", sealed(Ok(content)).into(), none());
    add("refused", sealed(Err(refusal(Status::Busy))).into(), none());
    let order = CopyChunk {
        term,
        file: FileId(5),
        chunk,
        version,
        incarnation: Incarnation(0xABCD),
        has,
        source: place(2),
    };
    add("", order.into(), none());
    let copied = |outcome| ChunkCopied {
        term,
        chunk,
        version,
        outcome,
    };
    add("ok", copied(Ok(content)).into(), none());
    add(
        "refused",
        copied(Err(refusal(Status::NoRoom))).into(),
        none(),
    );
}

fn client_chunk(add: &mut impl FnMut(&str, Head, Bytes)) {
    let none = Bytes::new;
    let (chunk, version, session) = (CHUNK, VERSION, SESSION);
    let (piece, wseq, position) = (PieceNumber(3), WriteSeq(200), 1);
    add(
        "",
        WritePiece {
            chunk,
            version,
            session,
            piece,
            offset: 2,
            sums: sums(),
        }
        .into(),
        body(),
    );
    add(
        "ok",
        PieceDone {
            chunk,
            piece,
            outcome: Ok(()),
        }
        .into(),
        none(),
    );
    add(
        "refused",
        PieceDone {
            chunk,
            piece,
            outcome: Err(refusal(Status::Overwrite)),
        }
        .into(),
        none(),
    );
    let sums = sums();
    let along = ChainPiece {
        chunk,
        version,
        chain: CHAIN,
        position,
        wseq,
        session,
        piece,
        offset: 2,
        sums: sums.clone(),
    };
    add("", along.into(), body());
    add(
        "ok",
        ChainDone {
            chunk,
            version,
            chain: CHAIN,
            wseq,
            outcome: Ok(()),
        }
        .into(),
        none(),
    );
    let broken = refusal(Status::ChainBroken);
    add(
        "refused",
        ChainDone {
            chunk,
            version,
            chain: CHAIN,
            wseq,
            outcome: Err(broken.clone()),
        }
        .into(),
        none(),
    );
    add(
        "",
        SyncChunk {
            chunk,
            version,
            session,
            up_to: piece,
        }
        .into(),
        none(),
    );
    add(
        "ok",
        SyncDone {
            chunk,
            outcome: Ok(DURABLE),
        }
        .into(),
        none(),
    );
    add(
        "refused",
        SyncDone {
            chunk,
            outcome: Err(broken.clone()),
        }
        .into(),
        none(),
    );
    add(
        "",
        ChainSync {
            chunk,
            version,
            chain: CHAIN,
            position,
            wseq,
        }
        .into(),
        none(),
    );
    add(
        "ok",
        ChainSynced {
            chunk,
            version,
            chain: CHAIN,
            wseq,
            outcome: Ok(65_537),
        }
        .into(),
        none(),
    );
    add(
        "refused",
        ChainSynced {
            chunk,
            version,
            chain: CHAIN,
            wseq,
            outcome: Err(broken),
        }
        .into(),
        none(),
    );
    add(
        "",
        ReadRange {
            chunk,
            version,
            offset: 2,
            len: 6,
            log: DURABLE,
        }
        .into(),
        none(),
    );
    add("ok", RangeRead { outcome: Ok(sums) }.into(), body());
    add(
        "refused",
        RangeRead {
            outcome: Err(refusal(Status::Corrupt)),
        }
        .into(),
        none(),
    );
}

fn frame(msg: &Msg) -> Vec<u8> {
    let mut bytes = encode(1, msg);
    bytes.extend_from_slice(&msg.body);
    bytes
}
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a string takes all");
    }
    out
}
fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "hex comes in pairs");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}

fn golden() -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(file()).expect("the golden file is in the repository");
    let mut lines = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, bytes) = line.split_once(' ').expect("each line is `name hex`");
        let before = lines.insert(name.to_owned(), unhex(bytes));
        assert!(before.is_none(), "{name} stands twice in the golden file");
    }
    lines
}

/// The one way the golden file is ever written.
fn write_if_told() {
    let Ok(told) = std::env::var("KFS_GOLDEN") else {
        return;
    };
    let lines = |wanted: &dyn Fn(&str) -> bool| {
        let samples = samples();
        let wanted = samples.iter().filter(|(name, _)| wanted(name));
        wanted
            .map(|(name, msg)| format!("{name} {}\n", hex(&frame(msg))))
            .collect::<String>()
    };
    let text = match told.as_str() {
        "add" => {
            let old =
                std::fs::read_to_string(file()).expect("the golden file is in the repository");
            let known = golden();
            old + &lines(&|name| !known.contains_key(name))
        }
        "rewrite" => HEAD.to_owned() + &lines(&|_| true),
        other => panic!("KFS_GOLDEN={other}: it is `add` or, for a draft, `rewrite`"),
    };
    std::fs::write(file(), text).expect("the golden file can be written");
}

#[test]
fn the_bytes_of_a_message_never_change() {
    write_if_told();
    let golden = golden();
    let mut seen = BTreeSet::new();
    for (name, msg) in samples() {
        assert!(seen.insert(name.clone()), "two samples are called {name}");
        let Some(bytes) = golden.get(&name) else {
            panic!("{name} has no golden line; KFS_GOLDEN=add appends it");
        };
        assert_eq!(
            hex(&frame(&msg)),
            hex(bytes),
            "{name} is not encoded as it was"
        );
    }
    let gone: Vec<_> = golden.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(gone.is_empty(), "golden lines without a sample: {gone:?}");
}

#[test]
fn golden_bytes_decode_to_what_was_sent() {
    let golden = golden();
    for (name, msg) in samples() {
        let bytes = &golden[&name];
        let prefix = Prefix::decode(bytes[..PREFIX_BYTES].try_into().expect("long enough"))
            .expect("a prefix");
        let (head, rest) = bytes[PREFIX_BYTES..].split_at(prefix.head_bytes);
        let decoded = prefix.message(head, Bytes::copy_from_slice(rest));
        assert_eq!(decoded, Ok(msg), "{name}");
    }
}

#[test]
fn every_message_and_every_nested_variant_has_a_sample() {
    let samples = samples();
    let codes: BTreeSet<u16> = samples.iter().map(|(_, msg)| msg.head.code()).collect();
    for (code, name) in Head::TYPES {
        assert!(codes.contains(code), "no sample of {name}");
    }
    let shown: BTreeSet<String> = samples
        .iter()
        .flat_map(|(_, msg)| shows(&msg.head))
        .collect();
    let nested = [
        ROLE, MUTATE, PARENTS, KEEP, RENAME, WRITER, HEAD_SEEN, TIME_OF, DRAIN, DRAINED, UNSYNCED,
        DONE, QUERY, ANSWER, KIND, USAGE_ROW, SERVER, REPLICA, VERDICT,
    ];
    for name in nested.into_iter().flatten() {
        assert!(shown.contains(*name), "no sample shows {name}");
    }
    for status in Status::ALL {
        assert!(
            shown.contains(&format!("refused={}", status.code())),
            "no sample is refused with {status:?}"
        );
    }
}
