//! The log's bytes, held for ever: `golden/meta_oplog_v1.txt` has a segment's header, a batch of every record,
//! and a mark; and `docs/formats/oplog.md` says what they are.
//!
//! `KFS_GOLDEN=rewrite` makes the file anew: only while the format is a draft.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]
use core::fmt::Write as _;
use kfs_core::block::crc;
use kfs_core::ids::*;
use kfs_core::limits::Geometry;
use kfs_core::meta::key::{Key, Name};
use kfs_core::meta::oplog::*;
use kfs_core::meta::record::*;
use kfs_core::time::UnixNanos;
use kfs_core::wire::chunk_meta::Content;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::{Drain, Keep, Ownership, WriterStays};
use std::collections::BTreeSet;
use std::path::PathBuf;

const SALT: u64 = 0x0102_0304_0506_0708;
const CLUSTER: ClusterId = ClusterId(0x000F_0E0D_0C0B_0A09_0807_0605_0403_0201);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
fn page() -> String {
    std::fs::read_to_string(root().join("../docs/formats/oplog.md")).unwrap()
}

fn header() -> SegmentHeader {
    SegmentHeader {
        cluster: CLUSTER,
        epoch: Epoch(3),
        first: LogSeq(1),
        salt: SALT,
        chain: 0,
    }
}

/// One record of every type, at least.
fn records() -> Vec<Logged> {
    let time = UnixNanos(1_700_000_000_123_456_789);
    let owner = Ownership {
        uid: 1_000,
        gid: 100,
        mode: 0o640,
    };
    let name = |name: &[u8]| Name::new(name).unwrap();
    let key = |parent, of: &[u8]| Key {
        parent: FileId(parent),
        name: name(of),
    };
    let id = |counter| u64::from(3_u32) << COUNTER_BITS | counter;
    let sealed = |chunk, version| {
        let content = Content {
            durable: Durable {
                len: 70_000,
                wseq: WriteSeq(300),
            },
            digest: Digest(0xFEDC_BA98_7654_3210),
        };
        let (chunk, version) = (ChunkId(chunk), Version(version));
        Record::from(Sealed {
            chunk,
            version,
            content,
        })
    };
    let records: Vec<Record> = vec![
        EpochBegun {
            epoch: Epoch(3),
            incarnation: Incarnation(0xFEED),
            cluster: CLUSTER,
            geometry: Geometry::REAL,
        }
        .into(),
        SessionOpened {
            session: SessionId(id(1)),
            nonce: 77,
        }
        .into(),
        DirectoriesMade {
            parent: FileId::ROOT,
            made: vec![
                (name(b"a"), FileId(id(2))),
                (name(&[0xFF; 30]), FileId(id(3))),
            ],
            owner,
            time,
        }
        .into(),
        FileCreated {
            key: key(2, b"f"),
            file: FileId(id(4)),
            owner,
            replication: 3,
            keep: Keep::UntilSessionEnds,
            time,
        }
        .into(),
        Renamed {
            from: key(2, b"f"),
            to: key(id(2), b"g"),
            replaced: Fate::Dropped,
            time,
        }
        .into(),
        ServerJoined {
            index: ServerIndex(1),
            node: NodeId(0xAB),
            boot: Boot(1),
            instance: Instance(9),
            rack: "r1".into(),
        }
        .into(),
        ServerDrains {
            index: ServerIndex(1),
            drain: Drain::Begin,
        }
        .into(),
        ChunkOpened {
            file: FileId(id(4)),
            index: 0,
            chunk: ChunkId(id(5)),
            version: Version(id(6)),
            members: vec![ServerIndex(1)],
        }
        .into(),
        ChunkAbandoned {
            chunk: ChunkId(id(5)),
        }
        .into(),
        ChunkOpened {
            file: FileId(id(4)),
            index: 1,
            chunk: ChunkId(id(7)),
            version: Version(id(8)),
            members: vec![ServerIndex(1)],
        }
        .into(),
        SizeSet {
            file: FileId(id(4)),
            size: (64 << 20) + 70_000,
            synced: vec![(
                1,
                Durable {
                    len: 70_000,
                    wseq: WriteSeq(300),
                },
            )],
            writer: WriterStays::Closed,
            time,
        }
        .into(),
        sealed(id(7), id(8)),
        ReplicationSet {
            file: FileId(id(4)),
            replication: 2,
            time,
        }
        .into(),
        AttributesSet {
            file: FileId(id(4)),
            mode: Some(0o640),
            uid: Some(1_000),
            gid: None,
            mtime: Some(UnixNanos(1_600_000_000_000_000_000)),
            time,
        }
        .into(),
        FileReopened {
            file: FileId(id(4)),
        }
        .into(),
        Unsealed {
            chunk: ChunkId(id(7)),
            version: Version(id(8)),
        }
        .into(),
        Truncated {
            file: FileId(id(4)),
            size: (64 << 20) + 60_000,
            behind: Fate::Kept,
            time,
        }
        .into(),
        BehindReclaimed {
            file: FileId(id(4)),
            below: None,
        }
        .into(),
        TakeoverBegun {
            chunk: ChunkId(id(7)),
            version: Version(id(8)),
            to: WriteSeq(1 << COUNTER_BITS),
        }
        .into(),
        ChunkTaken {
            chunk: ChunkId(id(7)),
            version: Version(id(8)),
            members: vec![ServerIndex(1)],
            synced: Durable {
                len: 60_000,
                wseq: WriteSeq(1 << COUNTER_BITS),
            },
        }
        .into(),
        SizeSet {
            file: FileId(id(4)),
            size: (64 << 20) + 70_001,
            synced: vec![(
                1,
                Durable {
                    len: 70_001,
                    wseq: WriteSeq(1 << COUNTER_BITS).next(),
                },
            )],
            writer: WriterStays::Closed,
            time,
        }
        .into(),
        FileRemoved {
            key: key(id(2), b"g"),
            fate: Fate::Kept,
            time,
        }
        .into(),
        DirectoryRemoved {
            key: key(id(2), &[0xFF; 30]),
            time,
        }
        .into(),
        SessionEnded {
            session: SessionId(id(1)),
            time,
        }
        .into(),
        TailLost {
            node: NodeId(0xA0DE),
            epoch: Epoch(3),
            incarnation: Incarnation(0x1AC4),
            seq: LogSeq(300),
            has: LogSeq(0),
        }
        .into(),
        RollbackAccepted { time }.into(),
        OrphanAdopted {
            key: key(id(2), b"lost"),
            file: FileId(id(9)),
            chunk: ChunkId(id(1_000)),
            version: Version(id(1_001)),
            of: Adopted {
                named: FileId(id(999)),
                incarnation: Incarnation(0x1AC4),
            },
            members: vec![ServerIndex(1)],
            synced: Durable {
                len: 70_000,
                wseq: WriteSeq(300),
            },
            replication: 3,
            time,
        }
        .into(),
        MembersChanged {
            chunk: ChunkId(id(1_000)),
            version: Version(id(1_001)),
            members: vec![ServerIndex(1)],
        }
        .into(),
        sealed(id(1_000), id(1_001)),
        TreeDetached {
            key: key(2, b"a"),
            time,
        }
        .into(),
        TreeReclaimed {
            dir: FileId(id(2)),
            entries: 1,
            kept: vec![FileId(id(9))],
        }
        .into(),
        FilesReclaimed {
            files: vec![FileId(id(4))],
            part: Some((FileId(id(9)), 1)),
        }
        .into(),
    ];
    let asked = |record: &Record| {
        let nobody = matches!(
            record,
            Record::EpochBegun(_)
                | Record::SessionOpened(_)
                | Record::ServerJoined(_)
                | Record::SessionEnded(_)
                | Record::TailLost(_)
                | Record::OrphanAdopted(_)
                | Record::TreeReclaimed(_)
                | Record::FilesReclaimed(_)
                | Record::BehindReclaimed(_)
                | Record::MembersChanged(_)
                | Record::Sealed(_)
                | Record::Unsealed(_)
                | Record::ChunkTaken(_)
                | Record::TakeoverBegun(_)
        );
        let session = if nobody { 0 } else { id(1) };
        let number = |number| RequestNumber(if nobody { 0 } else { number });
        By {
            session: SessionId(session),
            request: number(2),
            lowest: number(1),
        }
    };
    (1..)
        .zip(records)
        .map(|(seq, record)| Logged {
            seq: LogSeq(seq),
            by: asked(&record),
            record,
        })
        .collect()
}

fn segment() -> Vec<u8> {
    let mut bytes = header().encode();
    let mut forming = Forming::new(LogSeq(1));
    let records = records();
    records.iter().for_each(|record| forming.push(record));
    let last = forming.last();
    let (batch, chain) = forming.close(SALT, LogSeq(0), 0);
    bytes.extend(batch);
    bytes.extend(Forming::new(last.next()).close(SALT, last, chain).0);
    bytes
}

/// Lines of 32 bytes; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::from(
        "# A golden log segment of format 1: `offset bytes`, lines of zeros left out. Never edited.\n\
         # Made and checked by kfs-core/tests/meta_oplog.rs. Layout: docs/formats/oplog.md.\n",
    );
    for (nth, line) in bytes.chunks(32).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            write!(text, "{:06} ", nth * 32).unwrap();
            line.iter()
                .for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text + &format!("{:06} end\n", bytes.len())
}

#[test]
fn the_log_is_written_as_it_always_was() {
    let file = root().join("tests/golden/meta_oplog_v1.txt");
    let dumped = dump(&segment());
    if std::env::var("KFS_GOLDEN").is_ok_and(|how| how == "rewrite") {
        std::fs::write(&file, &dumped).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), dumped);
    let shown: BTreeSet<_> = records()
        .iter()
        .map(|logged| logged.record.code())
        .collect();
    let all: BTreeSet<_> = Record::TYPES
        .iter()
        .map(|(code, version, _)| (*code, *version))
        .collect();
    assert_eq!(shown, all, "every record is in the golden file");
}

#[test]
fn the_golden_log_is_read_and_replayed() {
    let mut reader = SegmentReader::new("log/log.1".into(), CLUSTER, None, Follows::Nothing);
    let mut read = vec![];
    let mut sink = |logged| {
        read.push(logged);
        Ok(())
    };
    let end = reader
        .feed(&segment(), More::Ends, &mut sink)
        .unwrap()
        .unwrap();
    assert_eq!(read, records());
    assert_eq!(
        (end.batches, end.joint.seq, end.torn),
        (2, LogSeq(33), false)
    );
    let state = kfs_core::meta::state::State::replay(&read).unwrap();
    state.check();
    assert_eq!(state.seq(), LogSeq(32));
}

/// Offset, size and text of the rows of the first table below a heading.
fn layout(heading: &str) -> Vec<(usize, usize, String)> {
    let page = page();
    let (_, section) = page.split_once(heading).expect("the page has the heading");
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            Some((
                cells.next()?.parse().ok()?,
                cells.next()?.parse().ok()?,
                cells.next()?.to_owned(),
            ))
        })
        .collect()
}

fn field(layout: &[(usize, usize, String)], bytes: &[u8], name: &str) -> u128 {
    let (at, size, _) = layout
        .iter()
        .find(|(_, _, what)| what.starts_with(name))
        .expect(name);
    bytes[*at..at + size]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn assert_no_gaps(layout: &[(usize, usize, String)], end: usize) {
    let filled = layout.iter().fold(0, |at, (offset, size, what)| {
        assert_eq!(
            *offset, at,
            "'{what}' begins where the field before it ends"
        );
        at + size
    });
    assert_eq!(filled, end);
}

#[test]
fn the_page_lays_out_what_is_written() {
    let bytes = segment();
    let of = layout("## Segment");
    assert_no_gaps(&of, SEGMENT_HEADER_BYTES);
    let at = |name| field(&of, &bytes, name);
    assert_eq!(at("magic"), u128::from(SEGMENT_MAGIC));
    assert_eq!(
        (at("format version"), at("epoch"), at("cluster")),
        (1, 3, CLUSTER.0)
    );
    assert_eq!(
        (at("first"), at("salt"), at("chain")),
        (1, u128::from(SALT), 0)
    );
    assert_eq!(at("CRC-32"), u128::from(crc(&bytes[..SEGMENT_CRC_AT])));

    let of = layout("## Batch");
    assert_no_gaps(&of, BATCH_HEADER_BYTES);
    let mark = &bytes[bytes.len() - SEGMENT_HEADER_BYTES..];
    let batch = &bytes[SEGMENT_HEADER_BYTES..bytes.len() - SEGMENT_HEADER_BYTES];
    let at = |bytes, name| field(&of, bytes, name);
    let fnv = batch[..BATCH_HEADER_BYTES]
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
    assert_eq!(at(batch, "magic"), u128::from(BATCH_MAGIC ^ SALT));
    assert_eq!(
        (at(batch, "count"), at(batch, "first"), at(batch, "durable")),
        (32, 1, 0)
    );
    assert_eq!(
        (at(mark, "count"), at(mark, "first"), at(mark, "durable")),
        (0, 33, 32)
    );
    assert_eq!(
        (at(batch, "chain"), at(mark, "chain")),
        (0, u128::from(fnv))
    );
    assert_eq!(
        at(batch, "CRC-32 of records"),
        u128::from(crc(&batch[BATCH_HEADER_BYTES..]))
    );
    assert_eq!(
        at(batch, "CRC-32 of bytes"),
        u128::from(crc(&batch[..BATCH_CRC_AT]))
    );

    let of = layout("## Record");
    assert_no_gaps(&of[..7], FIXED_BYTES);
    let records = records();
    let (first, third) = (records[0].encode(vec![]), records[2].encode(vec![]));
    assert_eq!(field(&of, &first, "length"), first.len() as u128);
    assert_eq!(
        (
            field(&of, &third, "type"),
            field(&of, &third, "version"),
            field(&of, &third, "sequence")
        ),
        (4, 1, 3)
    );
    assert_eq!(
        (field(&of, &third, "request"), field(&of, &third, "lowest")),
        (2, 1)
    );
    let end = first.len() - CRC_BYTES;
    assert_eq!(first[end..], crc(&first[..end]).to_le_bytes());

    let page = page();
    for (code, version, name) in Record::TYPES {
        assert!(
            page.contains(&format!("| {code} | {version} | {name} |")),
            "the page has {name}"
        );
    }
    let grouped = |number: u64| {
        let digits = number.to_string();
        let groups: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|group| core::str::from_utf8(group).unwrap())
            .collect();
        groups.join(",")
    };
    for number in [
        SEGMENT_BYTES_MIN,
        BATCH_PAYLOAD_MAX as u64,
        RECORD_BYTES_MAX as u64,
        PAGE_BYTES,
    ] {
        assert!(
            page.contains(&grouped(number)),
            "the page says {}",
            grouped(number)
        );
    }
    assert!(page.contains("`KFSOPLOG`") && page.contains("`KFSBATCH`"));
}
