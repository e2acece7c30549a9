//! What is fuzzed: every parser of bytes that come from a wire or a disk, each as a plain function that
//! panics when a property fails. `fuzz_targets/` hands them to libFuzzer, `tests/replay.rs` replays `seeds/`
//! on stable.
//!
//! A check that random bytes cannot pass, such as a CRC, would keep a fuzzer in front of the door. So the
//! first byte of an input says which sums the target puts right before it goes in (see [`Repair`]).
use bytes::Bytes;
use kfs_core::block::{crc, sum};
use kfs_core::chunk::header::{self, Header, SLOT_BYTES, Slot};
use kfs_core::chunk::name::ChunkName;
use kfs_core::identity::Identity;
use kfs_core::ids::{
    ChunkId, ClusterId, Epoch, FileId, Incarnation, LogSeq, PieceNumber, SessionId, Version,
    WriteSeq,
};
use kfs_core::limits::{FRAME_BODY_MAX, FRAME_HEAD_MAX, Geometry, HEADER_BYTES};
use kfs_core::meta::checkpoint::format::{
    self as checkpoint_format, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockHeader,
};
use kfs_core::meta::checkpoint::{Loader, Writer};
use kfs_core::meta::key::{Name, components};
use kfs_core::meta::oplog::{
    BATCH_CRC_AT, BATCH_HEADER_BYTES, BATCH_MAGIC, BATCH_PAYLOAD_CRC_AT, Damage, Follows, Found,
    More, PAGE_BYTES, SegmentEnd, SegmentHeader, SegmentReader, find_batch, segment_first,
    segment_name,
};
use kfs_core::meta::record::{CRC_BYTES, FIXED_BYTES, Logged};
use kfs_core::meta::state::State;
use kfs_core::trace::{
    self, CRC_BYTES as TRACE_CRC_BYTES, Configuration, ENTRY_BYTES, Entry, EntryKind, Reader,
    Recorder, TraceError, TracedCall,
};
use kfs_core::wire::frame::{HEAD_CRC_BYTES, PREFIX_BYTES, Prefix, encode};
use kfs_core::wire::{Msg, Status};
use std::io;

/// A target: its name, which is that of its corpus in `seeds/`, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("message", message),
    ("identity", identity),
    ("chunk_header", chunk_header),
    ("chunk_name", chunk_name),
    ("record", record),
    ("segment", segment),
    ("checkpoint", checkpoint),
    ("replay", replay),
    ("path", path),
    ("trace", trace),
];

/// What the first byte of an input asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repair {
    /// Nothing: the bytes go in as they are.
    Nothing,
    /// Sums that guard the outermost layer are made right.
    Outer,
    /// All sums are made right.
    All,
}

impl Repair {
    fn split(data: &[u8]) -> Option<(Self, &[u8])> {
        let (first, rest) = data.split_first()?;
        let repair = match first % 3 {
            0 => Self::Nothing,
            1 => Self::Outer,
            _ => Self::All,
        };
        Some((repair, rest))
    }
}

/// A stream of frames as a link reads it: what decodes is encoded again and is the same message.
pub fn frame(data: &[u8]) {
    let Some((repair, mut stream)) = Repair::split(data) else {
        return;
    };
    while let Some((first, rest)) = stream.split_first_chunk::<PREFIX_BYTES>() {
        let mut fixed = *first;
        if repair != Repair::Nothing {
            let sum = crc(&fixed[..PREFIX_BYTES - 4]);
            fixed[PREFIX_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        }
        let Ok(prefix) = Prefix::decode(&fixed) else {
            return;
        };
        assert!(
            prefix.head_bytes <= FRAME_HEAD_MAX && prefix.body_bytes <= FRAME_BODY_MAX,
            "lengths are bounded"
        );
        assert!(
            prefix.head_bytes >= HEAD_CRC_BYTES,
            "a head ends with its sum"
        );
        if rest.len() < prefix.head_bytes + prefix.body_bytes {
            return;
        }
        let (head, rest) = rest.split_at(prefix.head_bytes);
        let (body, rest) = rest.split_at(prefix.body_bytes);
        let mut head = head.to_vec();
        if repair == Repair::All {
            let end = head.len() - HEAD_CRC_BYTES;
            let sum = crc(&head[..end]);
            head[end..].copy_from_slice(&sum.to_le_bytes());
        }
        let Ok(msg) = prefix.message(&head, Bytes::copy_from_slice(body)) else {
            return;
        };
        assert_eq!(
            (msg.request, msg.head.code()),
            (prefix.request, prefix.code),
            "the prefix is kept"
        );
        comes_back(prefix.protocol, &msg);
        stream = rest;
    }
}

/// A head of any type: two bytes of type, then the head without its sum.
pub fn message(data: &[u8]) {
    let Some((code, head)) = data.split_first_chunk::<2>() else {
        return;
    };
    if head.len() > FRAME_HEAD_MAX - HEAD_CRC_BYTES {
        return;
    }
    let mut whole = head.to_vec();
    whole.extend_from_slice(&crc(head).to_le_bytes());
    let code = u16::from_le_bytes(*code);
    let prefix = Prefix {
        protocol: 1,
        code,
        request: 7,
        head_bytes: whole.len(),
        body_bytes: 0,
    };
    if let Ok(msg) = prefix.message(&whole, Bytes::new()) {
        assert_eq!(msg.head.code(), code, "a message is of the type it came as");
        // Printing must be as total as decoding: logs show what peers send.
        assert!(
            format!("{msg:?}").contains(msg.head.name()),
            "a message says its name"
        );
        comes_back(1, &msg);
    }
}

fn comes_back(protocol: u8, msg: &Msg) {
    let bytes = encode(protocol, msg);
    let (first, head) = bytes
        .split_first_chunk::<PREFIX_BYTES>()
        .expect("a frame has a prefix");
    let prefix = Prefix::decode(first).expect("what was encoded decodes");
    assert_eq!(prefix.protocol, protocol, "the protocol is kept");
    assert_eq!(
        prefix.message(head, msg.body.clone()).as_ref(),
        Ok(msg),
        "a message comes back as it went"
    );
}

/// An identity file: what decodes is written again, and read back the same.
pub fn identity(data: &[u8]) {
    let Some((repair, rest)) = Repair::split(data) else {
        return;
    };
    let mut bytes = rest.to_vec();
    if repair != Repair::Nothing
        && let Some(end) = bytes.len().checked_sub(4)
    {
        let sum = crc(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(identity) = Identity::decode(&bytes) {
        let again = identity.encode();
        assert_eq!(again.len(), bytes.len(), "nothing is left over");
        assert_eq!(
            Identity::decode(&again),
            Ok(identity),
            "an identity comes back as it was written"
        );
    }
}

/// The header of a chunk file. Raw: the bytes are the file's first. Repaired: they are patches to a good
/// header of two slots, `offset u16, length u8, bytes` each; then slots are given their CRC (outer), or also
/// their Adler-32 and the low half of their generation (all).
pub fn chunk_header(data: &[u8]) {
    let Some((repair, rest)) = Repair::split(data) else {
        return;
    };
    let name = ChunkName {
        file: FileId(2),
        chunk: ChunkId(5),
        version: Version(1),
    };
    let mut file = rest.to_vec();
    if repair != Repair::Nothing {
        file = good_header(name);
        patch(&mut file, rest);
        for slot in file.chunks_exact_mut(SLOT_BYTES) {
            if repair == Repair::All {
                let adler = u64::from(sum(&slot[..header::at::ADLER]));
                slot[header::at::ADLER..][..8].copy_from_slice(&adler.to_le_bytes());
                slot.copy_within(
                    header::at::GENERATION..header::at::GENERATION + 4,
                    header::at::GENERATION_LOW,
                );
            }
            let crc = crc(&slot[..header::at::CRC]);
            slot[header::at::CRC..][..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    for geometry in [
        Geometry::REAL,
        Geometry {
            block_bytes: 256,
            chunk_blocks: 16,
            piece_bytes: 1_024,
        },
    ] {
        for (bytes, slot) in file.chunks_exact(SLOT_BYTES).zip([Slot::A, Slot::B]) {
            let bytes = bytes.try_into().expect("chunks are exact");
            if let Ok(header) = Header::decode(bytes, slot, geometry) {
                assert!(
                    header.len <= geometry.chunk_bytes(),
                    "no chunk is longer than a chunk"
                );
                assert_eq!(
                    Slot::of(header.generation),
                    slot,
                    "a generation has its slot"
                );
                let again: [u8; SLOT_BYTES] = header.encode().try_into().expect("a slot");
                assert_eq!(
                    Header::decode(&again, slot, geometry),
                    Ok(header),
                    "a header comes back as it was written"
                );
            }
        }
        if let Ok(header) = Header::choose(&file, name, geometry) {
            assert_eq!(header.name, name, "a header of another chunk is not taken");
        }
    }
}

fn good_header(name: ChunkName) -> Vec<u8> {
    let pieces = vec![header::PieceEntry {
        session: SessionId(7),
        last: PieceNumber(3),
        append_offset: 0,
    }];
    let sums = vec![Some(1), None, Some(0), Some(0x000F_0001)];
    let (incarnation, cluster, wseq) = (Incarnation(9), ClusterId(1 << 100 | 1), WriteSeq(3));
    let slot = |generation| Header {
        name,
        len: 900,
        sums: sums.clone(),
        generation,
        incarnation,
        cluster,
        wseq,
        pieces: pieces.clone(),
        redo: if generation == 3 {
            let (page, pages, crc) = (0, 1, 5);
            vec![header::RedoRun { page, pages, crc }]
        } else {
            Vec::new()
        },
    };
    let file = [slot(2).encode(), slot(3).encode()].concat();
    assert_eq!(file.len() as u64, HEADER_BYTES, "two slots are a header");
    file
}

/// Overwrites parts of `bytes`: each patch is `offset u16, length u8` and so many bytes.
fn patch(bytes: &mut [u8], mut patches: &[u8]) {
    while let Some(([low, high, len], rest)) = patches.split_first_chunk() {
        let (with, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        let at = usize::from(u16::from_le_bytes([*low, *high])) % bytes.len();
        let end = (at + with.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        patches = rest;
    }
}

/// The name of a file in `chunks/` or `trash/`: what is a name is written the same way again.
pub fn chunk_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(name) = ChunkName::parse(&text) {
        assert_eq!(name.to_string(), text, "each chunk has one name");
        assert!(
            name.file.0 >> 63 == 0 && name.chunk.0 >> 63 == 0 && name.version.0 >> 63 == 0,
            "ids have 63 bits"
        );
    }
    if let Some((name, n)) = ChunkName::parse_trash(&text) {
        assert_eq!(
            format!("{name}.{n}"),
            text,
            "each chunk in the trash has one name"
        );
    }
}

/// One record of the log. Repaired: its length and its CRC are made right.
pub fn record(data: &[u8]) {
    let Some((repair, rest)) = Repair::split(data) else {
        return;
    };
    let mut bytes = rest.to_vec();
    if repair != Repair::Nothing {
        bytes.resize(bytes.len().max(FIXED_BYTES + CRC_BYTES), 0);
        mend_record(&mut bytes);
    }
    if let Ok((logged, len)) = Logged::decode(&bytes) {
        assert!(
            (FIXED_BYTES + CRC_BYTES..=bytes.len()).contains(&len),
            "a record is within its bytes"
        );
        let again = logged.encode(vec![]);
        assert_eq!(
            Logged::decode(&again),
            Ok((logged, again.len())),
            "a record comes back as it was written"
        );
    }
}

/// Gives all of `bytes`, which are long enough, the length and the CRC of one record.
fn mend_record(bytes: &mut [u8]) {
    let len = bytes.len();
    bytes[..4].copy_from_slice(&u32::try_from(len).expect("an input is short").to_le_bytes());
    let sum = crc(&bytes[..len - CRC_BYTES]);
    bytes[len - CRC_BYTES..].copy_from_slice(&sum.to_le_bytes());
}

const CLUSTER: ClusterId = ClusterId(0xC1);
const SALT: u64 = 0x5A17;

/// A segment of the log, as a start reads it: the same in one piece and in many. The second byte says how
/// long the pieces are and whether another segment follows. Repaired: the segment's header is put in front
/// and batches get their magic and CRCs (outer), or are also joined on to one another (all).
pub fn segment(data: &[u8]) {
    let Some((repair, rest)) = Repair::split(data) else {
        return;
    };
    let Some((how, rest)) = rest.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if repair != Repair::Nothing {
        let header = SegmentHeader {
            cluster: CLUSTER,
            epoch: Epoch(1),
            first: LogSeq(1),
            salt: SALT,
            chain: 0,
        };
        mend_batches(&mut bytes, repair);
        bytes.splice(..0, header.encode());
    }
    let follows = if how & 1 == 0 {
        Follows::Nothing
    } else {
        Follows::Segment
    };
    let mut whole = read_segment(&bytes, bytes.len().max(1), follows);
    let mut in_pieces = read_segment(&bytes, 509 + usize::from(how >> 1) * 61, follows);
    if follows == Follows::Segment {
        // What is past the end is then looked at only as far as it was read.
        for (_, end) in [&mut whole, &mut in_pieces] {
            if let Ok(Some(end)) = end {
                end.torn = false;
            }
        }
    }
    assert_eq!(
        whole, in_pieces,
        "how the file is cut into reads does not matter"
    );
    if let (_, Ok(Some(end))) = &whole {
        assert_eq!(
            end.joint.seq.0,
            whole.0.last().map_or(1, |last| last.seq.0 + 1),
            "a segment ends where it says"
        );
        let name = segment_name(end.joint.seq);
        assert_eq!(
            segment_first(&name),
            Some(end.joint.seq),
            "a segment is named for its first record"
        );
    }
}

/// A checkpoint: what is loaded is loaded again from what is written of it, and is the same. The input is an epoch,
/// a last record, and blocks.
pub fn checkpoint(data: &[u8]) {
    let Some(bytes) = checkpoint_bytes(data) else {
        return;
    };
    let whole = load_checkpoint(&bytes, bytes.len());
    let in_pieces = load_checkpoint(&bytes, 1_000);
    match (&whole, &in_pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole.difference(pieces), None),
        (whole, pieces) => assert_eq!(
            whole.as_ref().err(),
            pieces.as_ref().err(),
            "how the file is cut into reads does not matter"
        ),
    }
    let Ok(state) = whole else { return };
    let mut writer = Writer::new(state.clone());
    let mut again = Vec::new();
    while let Some(more) = writer.next_bytes() {
        again.extend(more);
    }
    let again = load_checkpoint(&again, again.len()).expect("what is written can be loaded");
    assert_eq!(state.difference(&again), None);
}

/// How many entries the checkpoint of an input has, if it can be loaded.
#[must_use]
pub fn checkpoint_entries(data: &[u8]) -> Option<u64> {
    let bytes = checkpoint_bytes(data)?;
    let mut loader = Loader::new("checkpoint/checkpoint.1".into(), CLUSTER);
    let (_, summary) = loader.feed(&bytes, More::Ends).ok()??;
    Some(summary.entries)
}

/// The file that an input stands for.
fn checkpoint_bytes(data: &[u8]) -> Option<Vec<u8>> {
    let (repair, rest) = Repair::split(data)?;
    let (numbers, blocks) = rest.split_first_chunk::<12>()?;
    let header = checkpoint_format::Header {
        cluster: CLUSTER,
        epoch: Epoch(u32::from_le_bytes(
            numbers[..4].try_into().expect("four bytes"),
        )),
        seq: LogSeq(u64::from_le_bytes(
            numbers[4..].try_into().expect("eight bytes"),
        )),
    };
    let mut bytes = header.encode();
    bytes.extend_from_slice(blocks);
    if repair != Repair::Nothing {
        mend_blocks(
            &mut bytes[checkpoint_format::HEADER_BYTES..],
            &header,
            repair,
        );
    }
    Some(bytes)
}

fn load_checkpoint(bytes: &[u8], step: usize) -> Result<State, Damage> {
    let mut loader = Loader::new("checkpoint/checkpoint.1".into(), CLUSTER);
    let mut at = 0;
    loop {
        let end = (at + step).min(bytes.len());
        let more = if end == bytes.len() {
            More::Ends
        } else {
            More::Follows
        };
        match loader.feed(&bytes[at..end], more)? {
            Some((state, _)) => return Ok(state),
            None => assert_eq!(more, More::Follows, "at its end a checkpoint ends"),
        }
        at = end;
    }
}

/// Makes blocks of what stands where blocks would: their places and sums, if asked for also what they are.
fn mend_blocks(mut bytes: &mut [u8], header: &checkpoint_format::Header, repair: Repair) {
    let (mut number, mut before) = (0, header.hash());
    while bytes.len() >= BLOCK_HEADER_BYTES {
        let (head, rest) = bytes.split_at_mut(BLOCK_HEADER_BYTES);
        let field =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let payload = field(16).min(u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let (payload, rest) = rest.split_at_mut(payload as usize);
        let mended = BlockHeader {
            section: u16::from_le_bytes([head[4], head[5]]),
            number: if repair == Repair::All {
                number
            } else {
                field(8)
            },
            entries: field(12),
            payload_bytes: u32::try_from(payload.len()).expect("just bounded"),
            payload_crc: crc(payload),
            before,
        };
        debug_assert_eq!(mended.encode()[..4], BLOCK_MAGIC.to_le_bytes());
        head.copy_from_slice(&mended.encode());
        number += 1;
        before = mended.hash_after();
        bytes = rest;
    }
}

type Segment = (Vec<Logged>, Result<Option<SegmentEnd>, Damage>);

fn read_segment(bytes: &[u8], step: usize, follows: Follows) -> Segment {
    let mut reader = SegmentReader::new("log/log.1".into(), CLUSTER, None, follows);
    let mut records = vec![];
    let mut sink = |logged: Logged| {
        records.push(logged);
        Ok(())
    };
    let mut at = 0;
    let end = loop {
        let end = (at + step).min(bytes.len());
        let more = if end == bytes.len() {
            More::Ends
        } else {
            More::Follows
        };
        match reader.feed(&bytes[at..end], more, &mut sink) {
            Ok(None) if more == More::Follows => at = end,
            other => break other,
        }
    };
    assert!(!matches!(end, Ok(None)), "at its end a segment ends");
    assert!(
        records
            .iter()
            .zip(1..)
            .all(|(logged, seq)| logged.seq.0 == seq),
        "records come in order, without a gap"
    );
    (records, end)
}

/// Makes batches of what stands where batches would.
fn mend_batches(bytes: &mut Vec<u8>, repair: Repair) {
    let page = usize::try_from(PAGE_BYTES).expect("a page is short");
    bytes.resize(bytes.len().next_multiple_of(page), 0);
    let (mut at, mut seq, mut chain) = (0, 1_u64, 0_u64);
    while at < bytes.len() {
        let left = bytes.len() - at - BATCH_HEADER_BYTES;
        let batch = &mut bytes[at..];
        // A batch that begins with zeros stays zeros: the end of what was written.
        if batch[..BATCH_HEADER_BYTES].iter().all(|byte| *byte == 0) {
            at += page;
            continue;
        }
        let field =
            |at: usize| u32::from_le_bytes(batch[at..at + 4].try_into().expect("four bytes"));
        let payload = usize::try_from(field(8)).unwrap_or(usize::MAX) % (left + 1);
        batch[..8].copy_from_slice(&(BATCH_MAGIC ^ SALT).to_le_bytes());
        batch[8..12].copy_from_slice(
            &u32::try_from(payload)
                .expect("an input is short")
                .to_le_bytes(),
        );
        if repair == Repair::All {
            let count = mend_records(&mut batch[BATCH_HEADER_BYTES..][..payload], seq);
            batch[12..16].copy_from_slice(&count.to_le_bytes());
            batch[16..24].copy_from_slice(&seq.to_le_bytes());
            batch[24..32].copy_from_slice(&(seq - 1).to_le_bytes());
            batch[32..40].copy_from_slice(&chain.to_le_bytes());
            seq += u64::from(count);
        }
        let padded = (BATCH_HEADER_BYTES + payload).next_multiple_of(page);
        let sum = crc(&batch[BATCH_HEADER_BYTES..padded]);
        batch[BATCH_PAYLOAD_CRC_AT..BATCH_CRC_AT].copy_from_slice(&sum.to_le_bytes());
        let sum = crc(&batch[..BATCH_CRC_AT]);
        batch[BATCH_CRC_AT..BATCH_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        if let Found::Batch { header, .. } = find_batch(batch, SALT) {
            chain = header.chain_after(SALT);
        }
        at += padded;
    }
}

/// Makes records of the bytes, by the lengths they say; gives how many.
fn mend_records(mut bytes: &mut [u8], mut seq: u64) -> u32 {
    let mut count = 0;
    while bytes.len() >= FIXED_BYTES + CRC_BYTES {
        let said = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let len = usize::try_from(said)
            .unwrap_or(usize::MAX)
            .clamp(FIXED_BYTES + CRC_BYTES, bytes.len());
        let (this, rest) = bytes.split_at_mut(len);
        this[8..16].copy_from_slice(&seq.to_le_bytes());
        mend_record(this);
        (bytes, seq, count) = (rest, seq + 1, count + 1);
    }
    count
}

/// Records applied from nothing, as at a start: each is taken or refused, none breaks the state. Records come
/// as `type u8, session u8, request u8, length u8` and so many bytes of body.
pub fn replay(mut data: &[u8]) {
    let mut records = vec![];
    while let Some(([code, session, request, len], rest)) = data.split_first_chunk() {
        let (body, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&u16::from(*code).to_le_bytes());
        bytes.extend_from_slice(&1_u16.to_le_bytes());
        bytes.extend_from_slice(&(records.len() as u64 + 1).to_le_bytes());
        let session = match session {
            0 => SessionId(0),
            n => SessionId::issued(Epoch(1), u64::from(*n)),
        };
        bytes.extend_from_slice(&session.0.to_le_bytes());
        bytes.extend_from_slice(&u64::from(*request).to_le_bytes());
        bytes.extend_from_slice(&u64::from(*request / 2).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len() + CRC_BYTES, 0);
        mend_record(&mut bytes);
        let Ok((logged, _)) = Logged::decode(&bytes) else {
            break;
        };
        records.push(logged);
        // What a refused record leaves behind is given up with the start; what was taken before it is whole.
        match State::replay(&records) {
            Ok(state) => assert_eq!(
                state.seq().0,
                records.len() as u64,
                "every record was taken"
            ),
            Err(why) => {
                assert!(!why.is_empty(), "a refusal says why");
                break;
            }
        }
    }
}

/// A path: it is its names, or is refused as one line, and each component is a name or is refused as one.
pub fn path(data: &[u8]) {
    match components(data) {
        Ok(names) => {
            let given = data
                .split(|byte| *byte == b'/')
                .filter(|name| !name.is_empty());
            assert!(
                names.iter().map(Name::as_bytes).eq(given),
                "a path is its names"
            );
        }
        Err(refusal) => assert_eq!(refusal.status, Status::BadName),
    }
    for component in data.split(|byte| *byte == b'/') {
        match Name::new(component) {
            Ok(name) => {
                assert_eq!(name.as_bytes(), component, "a name is its bytes");
                assert!(
                    (1..=255).contains(&component.len()) && !component.contains(&0),
                    "no such name"
                );
                assert!(component != b"." && component != b"..", "no such name");
                assert!(!format!("{name:?}").is_empty(), "any name can be shown");
            }
            Err(refusal) => {
                assert_eq!(refusal.status, Status::BadName);
                let detail = refusal.detail;
                assert!(
                    !detail.is_empty() && !detail.contains(['\n', '\0']),
                    "one line for people: {detail:?}"
                );
            }
        }
    }
}

/// A trace: read in one piece and in many it is the same, and what is an input is written as one again.
/// Repaired: what guards the first bytes of the header and of each entry is made right (outer), or lengths are
/// also cut to what is there and all sums made right (all).
pub fn trace(data: &[u8]) {
    let Some((repair, rest)) = Repair::split(data) else {
        return;
    };
    let mut bytes = rest.to_vec();
    if repair != Repair::Nothing {
        mend_trace(&mut bytes, repair);
    }
    let whole = read_trace(&bytes, bytes.len().max(1));
    let in_pieces = read_trace(&bytes, 1 + bytes.len() / 7);
    let told = |read: &ReadTrace| {
        let header = read.header.as_ref().map(trace::Header::encode);
        (header, read.entries.len(), read.end.clone())
    };
    assert_eq!(
        told(&whole),
        told(&in_pieces),
        "how the file is cut into reads does not matter"
    );
    let Some(header) = &whole.header else {
        return;
    };
    let again = read_trace(&header.encode(), usize::MAX).header;
    assert_eq!(
        again.map(|again| again.encode()),
        Some(header.encode()),
        "a header comes back as it was written"
    );
    let mut end = 0;
    for (entry, number) in whole.entries.iter().zip(1..) {
        assert!(
            entry.number == number && entry.offset >= end,
            "entries come in their order"
        );
        end = entry.offset + ENTRY_BYTES as u64;
        match header.configuration {
            Configuration::Meta(_) => entry_comes_back::<kfs_core::meta::Call>(header, entry),
            Configuration::Chunk(_) => entry_comes_back::<kfs_core::chunk::Call>(header, entry),
            Configuration::Client(_) => entry_comes_back::<kfs_core::client::Call>(header, entry),
        }
    }
}

struct ReadTrace {
    header: Option<trace::Header>,
    entries: Vec<Entry>,
    end: Result<(), TraceError>,
}

fn read_trace(bytes: &[u8], step: usize) -> ReadTrace {
    let mut reader = Reader::default();
    let (mut header, mut entries) = (None, vec![]);
    let mut feed = |piece: &[u8], entries: &mut Vec<Entry>| {
        reader.feed(piece);
        if let Some(read) = reader.header()? {
            header = Some(read);
        }
        while let Some(entry) = reader.entry()? {
            entries.push(entry);
        }
        Ok(())
    };
    let fed = bytes
        .chunks(step)
        .try_for_each(|piece| feed(piece, &mut entries));
    let end = fed.and_then(|()| reader.finish());
    ReadTrace {
        header,
        entries,
        end,
    }
}

fn entry_comes_back<C: TracedCall + std::fmt::Debug>(header: &trace::Header, entry: &Entry) {
    let Ok(input) = entry.input::<C>() else {
        return;
    };
    assert_ne!(entry.kind, EntryKind::End, "an end is no input");
    let mut written = header.encode();
    let begin = written.len();
    Recorder::default().input(entry.now, &input, &mut written);
    let again = read_trace(&written, usize::MAX);
    let [again] = again.entries.as_slice() else {
        panic!("an input is one entry");
    };
    assert_eq!((again.kind, again.now), (entry.kind, entry.now));
    let again = again.input::<C>().expect("what was written is read");
    assert_eq!(
        format!("{again:?}"),
        format!("{input:?}"),
        "an input comes back as it was"
    );
    let mut twice = vec![];
    Recorder::default().input(entry.now, &again, &mut twice);
    assert_eq!(twice, written[begin..], "an input has one form");
}

/// Makes a trace of what stands where one would.
fn mend_trace(bytes: &mut [u8], repair: Repair) {
    let u32_at =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let short = |len: usize| u32::try_from(len).expect("an input is short");
    let Some((header, mut rest)) = bytes.split_first_chunk_mut::<{ trace::HEADER_BYTES }>() else {
        return;
    };
    header[..8].copy_from_slice(&trace::MAGIC.to_le_bytes());
    header[8..12].copy_from_slice(&trace::FORMAT.to_le_bytes());
    let mut len = usize::try_from(u32_at(header, 16)).unwrap_or(usize::MAX);
    if repair == Repair::All && rest.len() >= TRACE_CRC_BYTES {
        len %= rest.len() - TRACE_CRC_BYTES + 1;
        header[16..20].copy_from_slice(&short(len).to_le_bytes());
        let sum = crc(&rest[..len]);
        rest[len..len + TRACE_CRC_BYTES].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = crc(&header[..trace::HEADER_BYTES - TRACE_CRC_BYTES]);
    header[trace::HEADER_BYTES - TRACE_CRC_BYTES..].copy_from_slice(&sum.to_le_bytes());
    let Some(after) = len
        .checked_add(TRACE_CRC_BYTES)
        .filter(|after| *after <= rest.len())
    else {
        return;
    };
    rest = &mut rest[after..];
    while let Some((fixed, payload)) = rest.split_first_chunk_mut::<ENTRY_BYTES>() {
        let body = u64::from_le_bytes(fixed[..8].try_into().expect("eight"));
        let mut body = usize::try_from(body).unwrap_or(usize::MAX);
        let mut head = usize::try_from(u32_at(fixed, 8)).unwrap_or(usize::MAX);
        if repair == Repair::All {
            head %= payload.len() + 1;
            body %= payload.len() - head + 1;
            fixed[..8].copy_from_slice(&(body as u64).to_le_bytes());
            fixed[8..12].copy_from_slice(&short(head).to_le_bytes());
            fixed[40..44].copy_from_slice(&crc(&payload[..head + body]).to_le_bytes());
        }
        let sum = crc(&fixed[..ENTRY_BYTES - TRACE_CRC_BYTES]);
        fixed[ENTRY_BYTES - TRACE_CRC_BYTES..].copy_from_slice(&sum.to_le_bytes());
        let Some(len) = head.checked_add(body).filter(|len| *len <= payload.len()) else {
            return;
        };
        rest = &mut payload[len..];
    }
}

/// Runs a target on the files that the command line names.
///
/// # Errors
/// If a file cannot be read.
pub fn replay_arguments(target: fn(&[u8])) -> io::Result<()> {
    for path in std::env::args_os().skip(1) {
        target(&std::fs::read(path)?);
    }
    Ok(())
}
