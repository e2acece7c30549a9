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
    ChunkId, ClusterId, FileId, Incarnation, PieceNumber, SessionId, Version, WriteSeq,
};
use kfs_core::limits::{FRAME_BODY_MAX, FRAME_HEAD_MAX, Geometry, HEADER_BYTES};
use kfs_core::wire::Msg;
use kfs_core::wire::frame::{HEAD_CRC_BYTES, PREFIX_BYTES, Prefix, encode};
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
