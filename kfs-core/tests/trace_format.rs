//! Traces: golden bytes, every input there and back, no damage that passes unseen, and a replay that tells one
//! run from another.
//!
//! `golden/trace_v1.txt` has one line `name hex` per sample: headers and entries, and the hash of one output of
//! every kind. `KFS_GOLDEN=add` appends lines for new samples and touches no other; `KFS_GOLDEN=rewrite` makes
//! the file anew: only while the format is a draft.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use bytes::Bytes;
use core::fmt::Write as _;
use core::time::Duration;
use kfs_core::block::crc;
use kfs_core::chunk::{self, Chunk};
use kfs_core::client::{self, Handle};
use kfs_core::ids::*;
use kfs_core::limits::{Geometry, Limits, Timing};
use kfs_core::machine::*;
use kfs_core::meta::{self, Meta};
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::trace::*;
use kfs_core::wire::client_meta::{
    At, Attributes, Drain, Keep, Ownership, Parents, RenameMode, Renew, TimeOf,
};
use kfs_core::wire::frame::{PREFIX_BYTES, Prefix};
use kfs_core::wire::{Head, Msg, Peer, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const HEAD: &str = "\
# Golden pieces of a trace, format 1: one line per sample, `name hex`: headers, entries, and hashes of outputs.
# Never edited: kfs-core/tests/trace_format.rs adds to it when told to. Layout: docs/formats/trace.md.
";

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/trace_v1.txt")
}

fn now() -> Now {
    Now {
        mono: Instant(0x0102_0304_0506_0708),
        wall: UnixNanos(1_700_000_000_123_456_789),
    }
}

fn meta_config() -> meta::Config {
    meta::Config {
        seed: 0x1122_3344_5566_7788,
        geometry: Geometry::REAL,
        limits: Limits::REAL,
        timing: Timing::REAL,
        replication: 3,
        min_replicas: 2,
        cluster: Some(ClusterId(0xC1)),
        checkpoint_every: Some(Duration::from_secs(3_600)),
        re_replicate_after: Duration::from_secs(300),
        copy_rate: 1 << 29,
        mirror: true,
    }
}
fn chunk_config() -> chunk::Config {
    chunk::Config {
        seed: 7,
        geometry: Geometry {
            block_bytes: 256,
            chunk_blocks: 16,
            piece_bytes: 1_024,
        },
        limits: Limits::REAL,
        meta: "127.0.0.1:20000".parse().unwrap(),
        listen: "[::1]:22000".parse().unwrap(),
        rack: "r1".into(),
        scrub_rate: 8 << 20,
    }
}
fn client_config() -> client::Config {
    client::Config {
        seed: 9,
        limits: Limits::REAL,
        meta: "127.0.0.1:20000".parse().unwrap(),
        timeout: Duration::from_millis(30_500),
    }
}

fn peer(addr: &str) -> Peer {
    Peer {
        role: Role::Chunk,
        cluster: ClusterId(0xC1),
        addr: addr.parse().unwrap(),
        protocol: 1,
        build: "kfs 0.1.0".into(),
    }
}

/// Inputs of a server: every variant, and every variant within.
fn inputs() -> Vec<(&'static str, Input<chunk::Call>)> {
    let link = LinkId(6);
    let ticket = Ticket(300);
    let disk = |result| Input::Disk { ticket, result };
    let closed = |why| Input::Closed { link, why };
    let entries = vec![
        DirEntry {
            name: "2.5.1".into(),
            len: 16_384,
            is_file: true,
        },
        DirEntry {
            name: "lost+found".into(),
            len: 0,
            is_file: false,
        },
    ];
    let renew = Renew {
        session: SessionId(77),
    };
    vec![
        ("wake", Input::Wake),
        (
            "opened_v4",
            Input::Opened {
                link,
                peer: peer("192.0.2.1:22000"),
            },
        ),
        (
            "opened_v6",
            Input::Opened {
                link,
                peer: peer("[fe80::1%3]:22000"),
            },
        ),
        (
            "received",
            Input::Received {
                link,
                msg: Msg::new(9, renew.clone()),
            },
        ),
        (
            "received_body",
            Input::Received {
                link,
                msg: Msg::with_body(9, renew, Bytes::from_static(b"bulk data")),
            },
        ),
        (
            "sent",
            Input::Sent {
                link,
                bytes: 1_000_000,
            },
        ),
        ("closed_lost", closed(CloseReason::Lost("reset".into()))),
        (
            "closed_unreachable",
            closed(CloseReason::Unreachable("refused".into())),
        ),
        (
            "closed_malformed",
            closed(CloseReason::Malformed("sum".into())),
        ),
        (
            "closed_refused",
            closed(CloseReason::Refused("protocol".into())),
        ),
        ("disk_done", disk(Ok(DiskDone::Done))),
        (
            "disk_data",
            disk(Ok(DiskDone::Data(Bytes::from_static(b"of a file")))),
        ),
        ("disk_data_none", disk(Ok(DiskDone::Data(Bytes::new())))),
        ("disk_entries", disk(Ok(DiskDone::Entries(entries)))),
        (
            "disk_space",
            disk(Ok(DiskDone::Space {
                bytes_free: 5,
                bytes_total: 1 << 40,
            })),
        ),
        ("disk_not_found", disk(Err(DiskError::NotFound))),
        ("disk_exists", disk(Err(DiskError::Exists))),
        ("disk_no_space", disk(Err(DiskError::NoSpace))),
        ("disk_io", disk(Err(DiskError::Io("os error 5".into())))),
        (
            "call_status",
            Input::Call {
                id: CallId(4),
                call: chunk::Call::Status,
            },
        ),
        (
            "call_stop",
            Input::Call {
                id: CallId(5),
                call: chunk::Call::Stop,
            },
        ),
    ]
}

/// Calls of a client, every one.
fn client_calls() -> Vec<(&'static str, Input<client::Call>)> {
    use client::Call;
    let at = |path: &str| At::root(path);
    let owner = Ownership {
        uid: 1_000,
        gid: 100,
        mode: 0o640,
    };
    let handle = Handle(3);
    let calls = vec![
        ("client_stat", Call::Stat(at("a"))),
        (
            "client_list",
            Call::List {
                at: at("a"),
                after: vec![0xff, 0],
            },
        ),
        (
            "client_mkdir",
            Call::Mkdir {
                at: at("a/b"),
                parents: Parents::Make,
                owner,
            },
        ),
        (
            "client_rename",
            Call::Rename {
                from: at("a"),
                to: at("b"),
                mode: RenameMode::NoReplace,
            },
        ),
        ("client_remove", Call::Remove(at("a"))),
        ("client_remove_tree", Call::RemoveTree(at("a"))),
        ("client_rmdir", Call::Rmdir(at("a"))),
        (
            "client_usage",
            Call::Usage {
                at: at("a"),
                depth: 2,
            },
        ),
        ("client_usage_next", Call::UsageNext { scan: 1 << 40 }),
        (
            "client_create",
            Call::Create {
                at: at("f"),
                owner,
                replication: 2,
                keep: Keep::UntilSessionEnds,
            },
        ),
        ("client_open", Call::Open(at("f"))),
        (
            "client_write",
            Call::Write {
                handle,
                offset: 1 << 33,
                data: Bytes::from_static(b"written"),
            },
        ),
        ("client_sync", Call::Sync(handle)),
        ("client_close", Call::Close(handle)),
        ("client_abandon", Call::Abandon(handle)),
        (
            "client_read",
            Call::Read {
                handle,
                offset: 5,
                len: 1 << 20,
            },
        ),
        ("client_status", Call::Status),
        ("client_disconnect", Call::Disconnect),
        ("client_accept_rollback", Call::AcceptRollback),
        (
            "client_set_replication",
            Call::SetReplication {
                at: At::root(*b"a/f"),
                replication: 5,
            },
        ),
        (
            "client_set_attributes",
            Call::SetAttributes {
                at: At::root(*b"a/f"),
                to: Attributes {
                    mode: Some(0o640),
                    uid: None,
                    gid: Some(100),
                    mtime: Some(TimeOf::Change),
                },
            },
        ),
        (
            "client_drain",
            Call::Drain {
                node: NodeId(5),
                drain: Drain::Begin,
            },
        ),
        (
            "client_truncate",
            Call::Truncate {
                at: At::root(*b"a/f"),
                len: 5_000,
            },
        ),
        ("client_set_len", Call::SetLen { handle, len: 0 }),
        (
            "client_locate",
            Call::Locate {
                file: FileId(7),
                first: 64,
            },
        ),
    ];
    let id = CallId(12);
    calls
        .into_iter()
        .map(|(name, call)| (name, Input::Call { id, call }))
        .collect()
}

/// Outputs, every variant and every variant within; and for each part of one, one that differs only there.
fn outputs() -> Vec<(&'static str, Output<chunk::Event>)> {
    let (link, ticket, id) = (LinkId(6), Ticket(9), CallId(3));
    let name = FileName::new;
    let disk = |op| Output::Disk { ticket, op };
    let renew = |session| Renew {
        session: SessionId(session),
    };
    let write = |file: &str, offset, data: &[&'static [u8]], sync| {
        disk(DiskOp::Write {
            file: name(file),
            offset,
            data: data.iter().map(|part| Bytes::from_static(part)).collect(),
            sync,
        })
    };
    let fault = |kind, what: &str, help: Option<&str>| Output::Halt {
        fault: Fault {
            kind,
            what: what.into(),
            help: help.map(str::to_owned),
        },
    };
    let dial = |addr: &str| Output::Dial {
        link,
        addr: addr.parse().unwrap(),
    };
    let read = |offset, len| {
        disk(DiskOp::Read {
            file: name("a"),
            offset,
            len,
        })
    };
    let event = |event| Output::Event { id, event };
    let status = chunk::ChunkStatus {
        reads: 5,
        ..chunk::ChunkStatus::default()
    };
    let send = |msg| Output::Send { link, msg };
    vec![
        ("send", send(Msg::new(1, renew(77)))),
        ("send_request", send(Msg::new(2, renew(77)))),
        ("send_head", send(Msg::new(1, renew(78)))),
        (
            "send_type",
            send(Msg::new(
                1,
                kfs_core::wire::client_meta::Renewed { outcome: Ok(()) },
            )),
        ),
        (
            "send_body",
            send(Msg::with_body(1, renew(77), Bytes::from_static(b"\0"))),
        ),
        (
            "send_link",
            Output::Send {
                link: LinkId(8),
                msg: Msg::new(1, renew(77)),
            },
        ),
        ("dial_v4", dial("127.0.0.1:1")),
        ("dial_port", dial("127.0.0.1:2")),
        ("dial_v6", dial("[fe80::1]:1")),
        ("dial_scope", dial("[fe80::1%2]:1")),
        ("close", Output::Close { link }),
        ("pause", Output::Pause { link }),
        ("resume", Output::Resume { link }),
        ("list", disk(DiskOp::List { dir: name("a") })),
        ("list_root", disk(DiskOp::List { dir: name("") })),
        ("make_dir", disk(DiskOp::MakeDir { dir: name("a") })),
        (
            "create",
            disk(DiskOp::Create {
                file: name("a"),
                zeroed: 0,
            }),
        ),
        (
            "create_zeroed",
            disk(DiskOp::Create {
                file: name("a"),
                zeroed: 4_096,
            }),
        ),
        ("write", write("a", 0, &[b"bytes"], SyncMode::Later)),
        ("write_synced", write("a", 0, &[b"bytes"], SyncMode::Now)),
        ("write_offset", write("a", 1, &[b"bytes"], SyncMode::Later)),
        (
            "write_cut",
            write("a", 0, &[b"by", b"tes"], SyncMode::Later),
        ),
        (
            "write_other_cut",
            write("a", 0, &[b"byt", b"es"], SyncMode::Later),
        ),
        (
            "write_last_bit",
            write("a", 0, &[b"byter"], SyncMode::Later),
        ),
        (
            "write_zero_more",
            write("a", 0, &[b"bytes\0"], SyncMode::Later),
        ),
        ("write_file", write("b", 0, &[b"bytes"], SyncMode::Later)),
        ("read", read(0, 5)),
        ("read_offset", read(1, 5)),
        ("read_len", read(0, 6)),
        ("sync", disk(DiskOp::Sync { file: name("a") })),
        ("sync_dir", disk(DiskOp::SyncDir { dir: name("a") })),
        ("sync_all", disk(DiskOp::SyncAll { dir: name("a") })),
        (
            "rename",
            disk(DiskOp::Rename {
                from: name("a"),
                to: name("b"),
            }),
        ),
        (
            "rename_back",
            disk(DiskOp::Rename {
                from: name("b"),
                to: name("a"),
            }),
        ),
        ("remove", disk(DiskOp::Remove { file: name("a") })),
        (
            "remove_ticket",
            Output::Disk {
                ticket: Ticket(10),
                op: DiskOp::Remove { file: name("a") },
            },
        ),
        (
            "truncate",
            disk(DiskOp::Truncate {
                file: name("a"),
                len: 0,
            }),
        ),
        (
            "truncate_len",
            disk(DiskOp::Truncate {
                file: name("a"),
                len: 1,
            }),
        ),
        ("space", disk(DiskOp::Space)),
        (
            "ready",
            event(chunk::Event::Ready {
                node: NodeId(1),
                cluster: ClusterId(2),
            }),
        ),
        (
            "ready_node",
            event(chunk::Event::Ready {
                node: NodeId(2),
                cluster: ClusterId(2),
            }),
        ),
        (
            "waiting",
            event(chunk::Event::Waiting { why: "for".into() }),
        ),
        ("status", event(chunk::Event::Status(Box::default()))),
        (
            "status_reads",
            event(chunk::Event::Status(Box::new(status))),
        ),
        ("stopped", event(chunk::Event::Stopped)),
        (
            "stopped_id",
            Output::Event {
                id: CallId(4),
                event: chunk::Event::Stopped,
            },
        ),
        ("halt", fault(FaultKind::Disk, "what", None)),
        ("halt_kind", fault(FaultKind::Corrupt, "what", None)),
        ("halt_refused", fault(FaultKind::Refused, "what", None)),
        ("halt_what", fault(FaultKind::Disk, "that", None)),
        ("halt_help", fault(FaultKind::Disk, "what", Some("help"))),
    ]
}

fn output_hash(output: &Output<chunk::Event>) -> u64 {
    let mut hash = EventHash::default();
    hash.hash_output(output);
    hash.value()
}

fn entry<C: TracedCall>(input: &Input<C>) -> Vec<u8> {
    let mut bytes = vec![];
    Recorder::default().input(now(), input, &mut bytes);
    bytes
}

fn samples() -> Vec<(String, Vec<u8>)> {
    let header = |configuration: Configuration| {
        let build = "kfs 0.0.0".into();
        Header {
            build,
            configuration,
        }
        .encode()
    };
    let mut samples = vec![
        ("header_meta".to_owned(), header(meta_config().into())),
        ("header_chunk".to_owned(), header(chunk_config().into())),
        ("header_client".to_owned(), header(client_config().into())),
    ];
    for (name, input) in inputs() {
        samples.push((format!("entry_{name}"), entry(&input)));
    }
    for (name, input) in client_calls() {
        samples.push((format!("entry_{name}"), entry(&input)));
    }
    let mut recorder = Recorder::default();
    for (name, output) in outputs() {
        recorder.output(&output);
        samples.push((
            format!("output_{name}"),
            output_hash(&output).to_le_bytes().to_vec(),
        ));
    }
    let mut end = vec![];
    recorder.end(&mut end);
    samples.push(("entry_end".to_owned(), end));
    samples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn the_golden_bytes_are_what_is_written() {
    let samples = samples();
    let names: BTreeSet<_> = samples.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), samples.len(), "each sample has its own name");
    let how = std::env::var("KFS_GOLDEN").unwrap_or_default();
    let mut text = std::fs::read_to_string(file()).unwrap_or_default();
    if how == "rewrite" || text.is_empty() {
        text = HEAD.to_owned();
    }
    let line = |line: &str| {
        let (name, hex) = line.split_once(' ').expect("name and bytes");
        (name.to_owned(), hex.to_owned())
    };
    let mut golden: BTreeMap<String, String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(line)
        .collect();
    for (name, bytes) in &samples {
        if !how.is_empty() && !golden.contains_key(name) {
            text += &format!("{name} {}\n", hex(bytes));
            golden.insert(name.clone(), hex(bytes));
        }
        assert_eq!(
            golden.remove(name),
            Some(hex(bytes)),
            "{name}: bytes that were written before are read for ever; KFS_GOLDEN=add adds new samples"
        );
    }
    assert!(golden.is_empty(), "samples that are gone: {golden:?}");
    if !how.is_empty() {
        std::fs::write(file(), text).unwrap();
    }
}

/// All entries of a trace that consists of this header and these bytes.
fn entries(config: impl Into<Configuration>, bytes: &[u8]) -> Result<Vec<Entry>, TraceError> {
    let mut reader = Reader::default();
    let mut begun = vec![];
    Recorder::begin(config, &mut begun);
    reader.feed(&begun);
    reader.header()?.expect("the header is whole");
    reader.feed(bytes);
    let mut entries = vec![];
    while let Some(entry) = reader.entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

/// Reads one entry back, as the input and as its bytes again.
fn comes_back<C: TracedCall + core::fmt::Debug>(input: &Input<C>) {
    let bytes = entry(input);
    let read = entries(chunk_config(), &bytes).unwrap();
    let [read] = read.as_slice() else {
        panic!("{input:?}: {} entries", read.len());
    };
    assert_eq!(read.now, now());
    let again: Input<C> = read.input().unwrap();
    assert_eq!(format!("{input:?}"), format!("{again:?}"));
    assert_eq!(bytes, entry(&again), "{input:?}");
}

#[test]
fn every_input_comes_back_as_it_was() {
    for (_, input) in inputs() {
        comes_back(&input);
    }
    for (_, input) in client_calls() {
        comes_back(&input);
    }
    for call in [meta::Call::Status, meta::Call::Stop] {
        let id = CallId(1);
        comes_back(&Input::Call { id, call });
    }
}

#[test]
fn every_message_comes_back_as_it_was() {
    let mut codes = BTreeSet::new();
    for line in include_str!("golden/wire_v1.txt").lines() {
        let Some((_, hex)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let (fixed, rest) = bytes.split_first_chunk::<PREFIX_BYTES>().unwrap();
        let prefix = Prefix::decode(fixed).unwrap();
        let (head, body) = rest.split_at(prefix.head_bytes);
        let msg = prefix.message(head, Bytes::copy_from_slice(body)).unwrap();
        codes.insert(msg.head.code());
        let link = LinkId(4);
        comes_back(&Input::<meta::Call>::Received { link, msg });
    }
    assert_eq!(codes.len(), Head::TYPES.len(), "every type was seen");
}

#[test]
fn every_configuration_comes_back_as_it_was() {
    for configuration in [
        Configuration::from(meta_config()),
        Configuration::from(meta::Config {
            cluster: None,
            ..meta_config()
        }),
        Configuration::from(chunk_config()),
        Configuration::from(chunk::Config {
            meta: "[fe80::1%2]:1".parse().unwrap(),
            ..chunk_config()
        }),
        Configuration::from(client_config()),
    ] {
        let mut bytes = vec![];
        Recorder::begin(configuration.clone(), &mut bytes);
        let mut reader = Reader::default();
        reader.feed(&bytes);
        let header = reader.header().unwrap().expect("it is whole");
        assert_eq!(header.build, BUILD);
        assert_eq!(
            format!("{:?}", header.configuration),
            format!("{configuration:?}")
        );
        assert_eq!(header.encode(), bytes);
    }
}

#[test]
fn every_part_of_every_output_counts() {
    let mut seen: BTreeMap<u64, &str> = BTreeMap::new();
    for (name, output) in outputs() {
        let hash = output_hash(&output);
        assert_eq!(hash, output_hash(&output), "it is a function");
        let before = seen.insert(hash, name);
        assert_eq!(before, None, "{name} has the hash of another output");
    }
}

/// Answers of a disk that holds nothing and takes everything.
fn answer(op: &DiskOp) -> DiskResult {
    match op {
        DiskOp::List { .. } => Ok(DiskDone::Entries(vec![])),
        DiskOp::Read { .. } => Err(DiskError::NotFound),
        DiskOp::Space => Ok(DiskDone::Space {
            bytes_free: 1 << 30,
            bytes_total: 1 << 40,
        }),
        DiskOp::MakeDir { .. }
        | DiskOp::Create { .. }
        | DiskOp::Write { .. }
        | DiskOp::Sync { .. }
        | DiskOp::SyncDir { .. }
        | DiskOp::SyncAll { .. }
        | DiskOp::Rename { .. }
        | DiskOp::Remove { .. }
        | DiskOp::Truncate { .. } => Ok(DiskDone::Done),
    }
}

/// A machine started on an empty disk and then told more; its trace.
fn recorded<M: TracedMachine>(config: M::Config, more: Vec<Input<M::Call>>) -> Vec<u8> {
    let mut bytes = vec![];
    let mut recorder = Recorder::begin(config.clone(), &mut bytes);
    let mut machine = M::configured(config);
    let mut told = 0;
    let mut more = more.into_iter();
    let mut answers = std::collections::VecDeque::from([Input::Wake]);
    while let Some(input) = answers.pop_front().or_else(|| more.next()) {
        told += 1;
        let now = Now {
            mono: Instant(1_000_000 * told),
            wall: UnixNanos(1_700_000_000_000_000_000 + told),
        };
        recorder.input(now, &input, &mut bytes);
        machine.handle(now, input);
        while let Some(output) = machine.poll() {
            recorder.output(&output);
            if let Output::Disk { ticket, op } = &output {
                let (ticket, result) = (*ticket, answer(op));
                answers.push_back(Input::Disk { ticket, result });
            }
        }
    }
    recorder.end(&mut bytes);
    bytes
}

fn traces() -> [Vec<u8>; 3] {
    let calls = || {
        let id = CallId;
        let (mut of_meta, mut of_chunk) = (vec![], vec![]);
        of_meta.push(Input::Call {
            id: id(1),
            call: meta::Call::Status,
        });
        of_meta.push(Input::Call {
            id: id(2),
            call: meta::Call::Stop,
        });
        of_chunk.push(Input::Opened {
            link: LinkId::accepted(1),
            peer: peer("127.0.0.1:5"),
        });
        of_chunk.push(Input::Call {
            id: id(1),
            call: chunk::Call::Status,
        });
        (of_meta, of_chunk)
    };
    let (of_meta, of_chunk) = calls();
    let small = Limits {
        log_first_segment_bytes: 77_824,
        ..Limits::REAL
    };
    let meta_config = meta::Config {
        limits: small,
        cluster: None,
        ..meta_config()
    };
    let of_client = client_calls().into_iter().map(|(_, call)| call).collect();
    [
        recorded::<Meta>(meta_config, of_meta),
        recorded::<Chunk>(chunk_config(), of_chunk),
        recorded::<client::Client>(client_config(), of_client),
    ]
}

fn replay(bytes: &[u8]) -> Result<Replayed, TraceError> {
    let mut replay = Replay::default();
    replay.feed(bytes)?;
    replay.finish()
}

#[test]
fn a_machine_told_the_same_does_the_same() {
    let mut hashes = BTreeSet::new();
    for (trace, least) in traces().iter().zip([12, 8, 15]) {
        let Ok(Replayed::Same { inputs, hash }) = replay(trace) else {
            panic!("{:?}", replay(trace));
        };
        assert!(inputs >= least, "{inputs} inputs are few");
        hashes.insert(hash);
        let mut slowly = Replay::default();
        for byte in trace {
            slowly.feed(&[*byte]).unwrap();
        }
        assert_eq!(
            slowly.finish(),
            Ok(Replayed::Same { inputs, hash }),
            "how a trace is cut into reads does not matter"
        );
    }
    assert_eq!(hashes.len(), 3, "three machines, three runs");
}

#[test]
fn a_trace_that_breaks_off_anywhere_is_seen_to() {
    for trace in traces() {
        for len in 0..trace.len() {
            let why = replay(&trace[..len]).expect_err("it is not whole");
            assert!(
                matches!(why, TraceError::Truncated { .. }),
                "cut at {len}: {why}"
            );
        }
        let longer = [&trace[..], b"\0"].concat();
        assert!(matches!(replay(&longer), Err(TraceError::AfterEnd(_))));
        let mut reader = Reader::default();
        reader.feed(&trace);
        reader.header().unwrap().unwrap();
        while reader.entry().unwrap().is_some() {}
        assert_eq!(reader.finish(), Ok(()));
        reader.feed(b"\0");
        assert!(matches!(reader.finish(), Err(TraceError::AfterEnd(_))));
        let twice = [&trace[..], &trace].concat();
        assert!(matches!(replay(&twice), Err(TraceError::AfterEnd(_))));
    }
}

#[test]
fn a_flipped_byte_anywhere_is_seen() {
    for mut trace in traces() {
        for at in 0..trace.len() {
            for mask in [0x01, 0x80, 0xff] {
                trace[at] ^= mask;
                let result = replay(&trace);
                assert!(result.is_err(), "byte {at} ^ {mask:#x}: {result:?}");
                trace[at] ^= mask;
            }
        }
    }
}

/// Where each entry begins, and where the last ends.
fn edges(trace: &[u8]) -> Vec<usize> {
    let mut reader = Reader::default();
    reader.feed(trace);
    reader.header().unwrap().unwrap();
    let mut edges = vec![];
    while let Some(entry) = reader.entry().unwrap() {
        edges.push(usize::try_from(entry.offset).unwrap());
    }
    edges.push(trace.len());
    edges
}

/// Both CRCs of the entry at `at` made right again.
fn resealed(trace: &mut [u8], at: usize, end: usize) {
    let payload = crc(&trace[at + ENTRY_BYTES..end]);
    trace[at + 40..at + 44].copy_from_slice(&payload.to_le_bytes());
    let fixed = crc(&trace[at..at + ENTRY_BYTES - CRC_BYTES]);
    trace[at + ENTRY_BYTES - CRC_BYTES..at + ENTRY_BYTES].copy_from_slice(&fixed.to_le_bytes());
}

fn difference(trace: &[u8]) -> Difference {
    match replay(trace) {
        Ok(Replayed::Differs(difference)) => difference,
        other => panic!("not seen to differ: {other:?}"),
    }
}

#[test]
fn another_seed_is_seen_to_do_other_things() {
    let [meta, chunk, _] = traces();
    for (trace, config) in [
        (
            meta,
            Configuration::from(meta::Config {
                seed: 1,
                cluster: None,
                limits: Limits {
                    log_first_segment_bytes: 77_824,
                    ..Limits::REAL
                },
                ..meta_config()
            }),
        ),
        (
            chunk,
            Configuration::from(chunk::Config {
                seed: 1,
                ..chunk_config()
            }),
        ),
    ] {
        let mut other = vec![];
        Recorder::begin(config, &mut other);
        other.extend_from_slice(&trace[edges(&trace)[0]..]);
        let difference = difference(&other);
        assert_ne!(difference.recorded, difference.replayed);
        assert!(difference.input > 1, "the first input lists the disk");
        assert!(
            difference.words.contains("Disk"),
            "it is the input that led to the identity: {difference}"
        );
        let text = difference.to_string();
        assert!(
            text.contains(&format!("{:016x}", difference.recorded))
                && text.contains(&format!("{:016x}", difference.replayed)),
            "{text}"
        );
    }
}

#[test]
fn another_time_another_input_and_a_missing_one_are_seen() {
    let [trace, _, _] = traces();
    let edges = edges(&trace);
    // Time is in few outputs of a start, and every byte of an input in none of them; the hash of all events
    // has them all the same.
    let whole = replay(&trace).unwrap();
    for window in edges[..edges.len() - 1].windows(2) {
        for at in [window[0] + 16, window[0] + 24, window[1] - 1] {
            let mut other = trace.clone();
            if at >= window[0] + ENTRY_BYTES || at < window[0] + 32 {
                other[at] ^= 1;
                resealed(&mut other, window[0], window[1]);
                assert_ne!(replay(&other), Ok(whole.clone()), "byte {at} changed");
            }
        }
    }
    // The answer of the disk to the first listing becomes a failure.
    let mut other = trace[..edges[1]].to_vec();
    let failure = Input::<meta::Call>::Disk {
        ticket: Ticket(1),
        result: Err(DiskError::Io("gone".into())),
    };
    let mut entry = entry(&failure);
    // What was recorded of the outputs before stays.
    entry[32..40].copy_from_slice(&trace[edges[1] + 32..edges[1] + 40]);
    let end = entry.len();
    resealed(&mut entry, 0, end);
    other.extend_from_slice(&entry);
    other.extend_from_slice(&trace[edges[2]..]);
    let found = difference(&other);
    assert_eq!((found.input, found.offset), (2, edges[1] as u64));
    assert!(found.words.contains("gone"), "{found}");
    assert!(
        found.outputs.iter().any(|output| output.contains("Halt")),
        "{found}"
    );
    // An input is left out.
    let missing = [&trace[..edges[1]], &trace[edges[2]..]].concat();
    assert_eq!(difference(&missing).input, 1, "its answer never came");
}

#[test]
fn what_is_no_trace_is_told_from_one_of_another_format() {
    let [trace, _, _] = traces();
    assert_eq!(replay(b"#!/bin/sh\n"), Err(TraceError::NoTrace));
    assert_eq!(replay(b"KFSOPLOG"), Err(TraceError::NoTrace));
    assert!(matches!(replay(b""), Err(TraceError::Truncated { .. })));
    let mut other = trace.clone();
    other[8] = 2;
    assert_eq!(replay(&other), Err(TraceError::OtherFormat(2)));
    assert!(
        replay(&other)
            .unwrap_err()
            .to_string()
            .contains("version 2"),
        "the version is named"
    );
    // A machine that this build has not, and sizes that do not fit one another.
    let mut header = trace[..edges(&trace)[0]].to_vec();
    header[12] = 9;
    let sum = crc(&header[..HEADER_BYTES - CRC_BYTES]);
    header[HEADER_BYTES - CRC_BYTES..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    assert!(matches!(replay(&header), Err(TraceError::Header(_))));
    let mut bytes = vec![];
    Recorder::begin(
        chunk::Config {
            geometry: Geometry {
                block_bytes: 0,
                chunk_blocks: 0,
                piece_bytes: 0,
            },
            ..chunk_config()
        },
        &mut bytes,
    );
    assert!(matches!(replay(&bytes), Err(TraceError::Header(_))));
}

#[test]
fn lengths_that_lie_are_no_reason_for_memory_or_a_panic() {
    let entry_of = |kind: u32, head: &[u8], body_bytes: u64, head_bytes: u32| {
        let mut entry = vec![0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&body_bytes.to_le_bytes());
        entry[8..12].copy_from_slice(&head_bytes.to_le_bytes());
        entry[12..16].copy_from_slice(&kind.to_le_bytes());
        entry.extend_from_slice(head);
        let end = entry.len();
        resealed(&mut entry, 0, end);
        entry
    };
    for (body_bytes, head_bytes) in [
        (u64::MAX, u32::MAX),
        (u64::MAX, 0),
        (u64::MAX, 1),
        (u64::MAX - u64::from(u32::MAX), u32::MAX),
        (1 << 62, 1),
        (0, u32::MAX),
    ] {
        let entry = entry_of(1, b"", body_bytes, head_bytes);
        assert!(
            entries(chunk_config(), &entry).unwrap().is_empty(),
            "it waits for bytes that do not come"
        );
    }
    // Ten entries of a directory in three bytes; and 2^60 of them.
    let count = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for head in [&[1, 2, 10][..], &[&[1, 2][..], &count].concat()] {
        let len = u32::try_from(head.len()).unwrap();
        let entry = entry_of(6, head, 0, len);
        let read = entries(chunk_config(), &entry).unwrap();
        assert!(matches!(
            read[0].input::<chunk::Call>(),
            Err(TraceError::Damaged { entry: 1, .. })
        ));
    }
    // A body where there is none to be, bytes left over, a kind that is none, an end with more to say.
    for (kind, head) in [(1, &b"x"[..]), (4, &b"\x01\x01\x01"[..])] {
        let len = u32::try_from(head.len()).unwrap();
        let read = entries(chunk_config(), &entry_of(kind, head, 0, len)).unwrap();
        assert!(read[0].input::<chunk::Call>().is_err());
    }
    let body = entries(chunk_config(), &entry_of(1, b"body", 4, 0)).unwrap();
    assert!(body[0].input::<chunk::Call>().is_err());
    for entry in [entry_of(8, b"", 0, 0), entry_of(0, b"x", 1, 0)] {
        assert!(matches!(
            entries(chunk_config(), &entry),
            Err(TraceError::Damaged { entry: 1, .. })
        ));
    }
    // A call of another machine.
    let stat = entry(&client_calls()[0].1);
    let read = entries(chunk_config(), &stat).unwrap();
    assert!(read[0].input::<chunk::Call>().is_err());
}
