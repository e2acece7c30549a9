//! The header of a chunk file: page, golden bytes and code say the same, and no damage passes for a header.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

use kfs_core::block;
use kfs_core::chunk::header::*;
use kfs_core::chunk::name::ChunkName;
use kfs_core::ids::*;
use kfs_core::limits::{Geometry, HEADER_BLOCKS, HEADER_BYTES, PIECE_TABLE_MAX};
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../docs/formats/chunk.md");
const GOLDEN: &str = include_str!("golden/chunk_v1.txt");

/// The golden slots by name.
fn golden() -> BTreeMap<&'static str, [u8; SLOT_BYTES]> {
    let mut slots = BTreeMap::new();
    let mut name = "";
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        if let Some(next) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            name = next;
            slots.insert(name, [0; SLOT_BYTES]);
            continue;
        }
        let (at, hex) = line.split_once(' ').unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (byte, digits) in hex.as_bytes().chunks(2).enumerate() {
            let digits = std::str::from_utf8(digits).unwrap();
            slots.get_mut(name).unwrap()[at + byte] = u8::from_str_radix(digits, 16).unwrap();
        }
    }
    slots
}

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);

fn first() -> Header {
    Header {
        name: ChunkName {
            file: FileId(0x0102_0304_0506_0708),
            chunk: ChunkId(0x1112_1314_1516_1718),
            version: Version(0x2122_2324_2526_2728),
        },
        len: 0,
        sums: Vec::new(),
        generation: FIRST_GENERATION,
        incarnation: Incarnation(0x3132_3334_3536_3738),
        cluster: CLUSTER,
        wseq: WriteSeq(0),
        pieces: Vec::new(),
        redo: Vec::new(),
    }
}

fn written() -> Header {
    let padded = |bytes: &[u8]| {
        let mut block = bytes.to_vec();
        block.resize(65_536, 0);
        Some(adler::adler32_slice(&block))
    };
    let all: Vec<u8> = (0..65_536_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut sums = vec![None; HEADER_BLOCKS];
    sums[0] = padded(&[]);
    sums[1] = Some(0);
    sums[7] = padded(&all);
    sums[1_023] = padded(b"Wikipedia");
    let entry = |session, last, append_offset| PieceEntry {
        session: SessionId(session),
        last: PieceNumber(last),
        append_offset,
    };
    Header {
        name: ChunkName {
            file: FileId(2),
            chunk: ChunkId(5),
            version: Version(1),
        },
        len: 1_023 * 65_536 + 9,
        sums,
        generation: 0x1_0000_0003,
        incarnation: Incarnation(7),
        cluster: CLUSTER,
        wseq: WriteSeq(0x4142_4344_4546_4748),
        pieces: vec![
            entry(0x5152_5354_5556_5758, 0x6162_6364_6566_6768, 0x7172_7374),
            entry(9, 1, 0),
        ],
        redo: Vec::new(),
    }
}

/// Pages of a block, and the last page of the data, are to be written in their places.
fn with_redo() -> Header {
    Header {
        redo: vec![
            RedoRun {
                page: 7 * 16 + 2,
                pages: 14,
                crc: 0x7172_7374,
            },
            RedoRun {
                page: 1_023 * 16,
                pages: 1,
                crc: 0x8182_8384,
            },
        ],
        ..written()
    }
}

fn decode(bytes: &[u8; SLOT_BYTES], slot: Slot) -> Result<Header, HeaderError> {
    Header::decode(bytes, slot, Geometry::REAL)
}

/// Both sums made right again after a change, so that only the change itself can be refused.
fn resummed(mut bytes: [u8; SLOT_BYTES]) -> [u8; SLOT_BYTES] {
    let adler = u64::from(adler::adler32_slice(&bytes[..at::ADLER]));
    bytes[at::ADLER..at::ADLER + 8].copy_from_slice(&adler.to_le_bytes());
    let crc = block::crc(&bytes[..at::CRC]);
    bytes[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn file(a: &[u8], b: &[u8]) -> Vec<u8> {
    [a, b].concat()
}

#[test]
fn the_golden_slots_are_what_the_code_writes_and_reads() {
    let golden = golden();
    let samples = [
        ("first", first(), Slot::A),
        ("written", written(), Slot::B),
        ("redo", with_redo(), Slot::B),
    ];
    assert_eq!(golden.len(), samples.len());
    for (name, header, slot) in samples {
        assert_eq!(header.encode(), golden[name], "{name}");
        assert_eq!(decode(&golden[name], slot), Ok(header), "{name}");
    }
}

#[test]
fn the_page_has_the_offsets_of_the_code() {
    let (_, table) = PAGE.split_once("## A slot").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut fields = Vec::new();
    for line in table.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [offset, size, what] = cells[..]
            && let (Ok(offset), Ok(size)) = (offset.parse::<usize>(), size.parse::<usize>())
        {
            fields.push((offset, size, what));
        }
    }
    let mut end = 0;
    for (offset, size, what) in &fields {
        assert_eq!(
            *offset, end,
            "'{what}' begins where the field before it ends"
        );
        end += size;
    }
    assert_eq!(end, SLOT_BYTES);
    let offset = |begins: &str| {
        let mut named = fields.iter().filter(|(.., what)| what.starts_with(begins));
        let found = named
            .next()
            .unwrap_or_else(|| panic!("the page has '{begins}'"));
        assert!(named.next().is_none(), "'{begins}' names one field");
        found.0
    };
    for (begins, at) in [
        ("magic 0xCAFECAFE", at::MAGIC),
        ("format version: 1", at::FORMAT),
        ("file id", at::FILE),
        ("chunk id", at::CHUNK),
        ("chunk version", at::VERSION),
        ("committed length", at::LEN),
        ("sums", at::SUMS),
        ("reads", at::READS),
        ("prefix of the file-system id", at::FS_ID_PREFIX),
        ("file-system id", at::FS_ID),
        ("flags", at::FLAGS),
        ("Adler of bytes 0..4400", at::ADLER),
        ("extension magic `KFSRUST1`", at::EXTENSION),
        ("generation: even", at::GENERATION),
        ("incarnation", at::INCARNATION),
        ("cluster id", at::CLUSTER),
        ("bitmap", at::BITMAP),
        ("wseq", at::WSEQ),
        ("count of entries", at::PIECES),
        ("count of redo runs", at::REDO),
        ("redo runs: per run", at::REDO_RUNS),
        ("piece table", at::PIECE_TABLE),
        ("CRC of bytes 0..8184", at::CRC),
        ("generation again", at::GENERATION_LOW),
    ] {
        assert_eq!(offset(begins), at, "{begins}");
    }
    assert_eq!(
        (MAGIC, FORMAT, FORMAT_REDO, &EXTENSION_MAGIC),
        (0xCAFE_CAFE, 1, 3, b"KFSRUST1")
    );
    for slot in [Slot::A, Slot::B] {
        for nth in [0, 1, REDO_RUNS_MAX - 1] {
            let at = slot.redo_offset(nth, Geometry::REAL) - 67_108_864 - 16_384;
            let before = 2 * nth as u64 + u64::from(slot == Slot::B);
            assert_eq!(at, 65_536 * before);
        }
    }
    let prefix: Vec<_> = FS_ID_PREFIX
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    assert!(PAGE.contains(&prefix.join(" ")));
    assert!(PAGE.contains(&format!("at most {PIECE_TABLE_MAX} entries")));
    assert_eq!(HEADER_BYTES, 16_384);
}

#[test]
fn every_flipped_bit_of_a_slot_is_refused() {
    let good: [u8; SLOT_BYTES] = with_redo().encode().try_into().unwrap();
    for bit in 0..SLOT_BYTES * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad, Slot::B).is_err(), "bit {bit}");
    }
}

#[test]
fn a_damaged_slot_falls_back_to_the_other_and_two_damaged_ones_are_no_header() {
    let older = Header {
        generation: 4,
        ..written()
    };
    let newer = Header {
        generation: 5,
        len: 1_023 * 65_536 + 10,
        ..written()
    };
    let (a, b) = (older.encode(), newer.encode());
    let choose = |file: &[u8]| Header::choose(file, older.name, Geometry::REAL);
    assert_eq!(choose(&file(&a, &b)), Ok(newer.clone()));
    for at in (0..SLOT_BYTES).step_by(13) {
        let mut rotten = b.clone();
        rotten[at] ^= 0x20;
        assert_eq!(choose(&file(&a, &rotten)), Ok(older.clone()), "byte {at}");
        let mut both = a.clone();
        both[at] ^= 0x20;
        assert!(choose(&file(&both, &rotten)).is_err(), "byte {at}");
    }
    let newest = Header {
        generation: 6,
        ..newer.clone()
    };
    assert_eq!(choose(&file(&newest.encode(), &b)), Ok(newest));
    assert_eq!(
        choose(&file(&a, &b)[..SLOT_BYTES + 100]),
        Ok(older.clone()),
        "a file that ends within slot B"
    );
    assert!(choose(&a[..SLOT_BYTES - 1]).is_err());
    assert!(choose(&[]).is_err());
}

#[test]
fn a_torn_slot_is_never_taken_for_a_header() {
    let old = Header {
        generation: 3,
        ..written()
    };
    let new = Header {
        generation: 5,
        len: 1_023 * 65_536 + 11,
        wseq: WriteSeq(99),
        ..written()
    };
    let (old_bytes, new_bytes) = (old.encode(), new.encode());
    for atom in [512, 4_096] {
        let part = |part: usize| part * atom..(part + 1) * atom;
        // What does not differ cannot tear.
        let parts: Vec<_> = (0..SLOT_BYTES / atom)
            .filter(|at| old_bytes[part(*at)] != new_bytes[part(*at)])
            .collect();
        assert!(parts.len() > 1);
        for kept in 1..(1_u32 << parts.len()) - 1 {
            let mut torn = old_bytes.clone();
            for (_, at) in parts
                .iter()
                .enumerate()
                .filter(|(bit, _)| kept & 1 << bit != 0)
            {
                torn[part(*at)].copy_from_slice(&new_bytes[part(*at)]);
            }
            let torn: [u8; SLOT_BYTES] = torn.try_into().unwrap();
            assert!(decode(&torn, Slot::B).is_err(), "atoms {kept:b} of {atom}");
        }
    }
}

#[test]
fn a_slot_in_the_wrong_place_and_a_header_of_another_chunk_are_refused() {
    let a = first().encode();
    let bytes: [u8; SLOT_BYTES] = a.clone().try_into().unwrap();
    assert!(
        decode(&bytes, Slot::B).is_err(),
        "a slot that was written to the other's place"
    );
    let other = ChunkName {
        version: Version(3),
        ..first().name
    };
    let refused = Header::choose(&file(&a, &[0; SLOT_BYTES]), other, Geometry::REAL).unwrap_err();
    assert_eq!(refused.a, HeaderError::OtherChunk(first().name));
    assert_eq!(refused.b, HeaderError::Magic(0));
}

#[test]
fn what_cannot_be_is_refused_even_with_right_sums() {
    let good: [u8; SLOT_BYTES] = written().encode().try_into().unwrap();
    assert!(decode(&resummed(good), Slot::B).is_ok());
    let mut refused = 0;
    let mut check = |offset: usize, field: &[u8]| {
        let mut bad = good;
        bad[offset..offset + field.len()].copy_from_slice(field);
        assert!(decode(&resummed(bad), Slot::B).is_err(), "offset {offset}");
        refused += 1;
    };
    check(at::FORMAT, &[2]);
    check(at::FORMAT, &[3]);
    check(at::FILE + 7, &[0x80]);
    check(at::CHUNK + 7, &[0x80]);
    check(at::VERSION + 7, &[0x80]);
    check(at::LEN + 7, &[1]);
    check(at::LEN, &(64_u64 * 65_536).to_le_bytes());
    check(at::LEN, &(1_024_u64 * 65_536 + 1).to_le_bytes());
    check(at::FS_ID, &[0]);
    check(at::FS_ID_PREFIX, &[1]);
    check(at::EXTENSION, b"X");
    check(at::GENERATION, &1_u64.to_le_bytes());
    check(at::GENERATION, &4_u64.to_le_bytes());
    check(at::GENERATION_LOW, &[9]);
    check(at::PIECES, &129_u32.to_le_bytes());
    check(at::PIECES, &u32::MAX.to_le_bytes());
    assert_eq!(refused, 16);
}

#[test]
fn a_full_header_has_room_for_all_it_may_hold() {
    let entry = |n| PieceEntry {
        session: SessionId(n),
        last: PieceNumber(n),
        append_offset: 1,
    };
    let full = Header {
        len: Geometry::REAL.chunk_bytes(),
        sums: vec![Some(u32::MAX); HEADER_BLOCKS],
        pieces: (1..=PIECE_TABLE_MAX as u64).map(entry).collect(),
        ..written()
    };
    let bytes: [u8; SLOT_BYTES] = full.encode().try_into().unwrap();
    assert_eq!(decode(&bytes, Slot::B), Ok(full));
}

#[test]
fn small_geometries_have_the_same_header_and_smaller_bounds() {
    let small = Geometry {
        block_bytes: 256,
        chunk_blocks: 16,
        piece_bytes: 1_024,
    };
    let header = Header {
        len: 4_096,
        sums: vec![Some(1); 16],
        ..written()
    };
    let bytes: [u8; SLOT_BYTES] = header.encode().try_into().unwrap();
    assert_eq!(Header::decode(&bytes, Slot::B, small), Ok(header.clone()));
    for too_much in [
        Header {
            len: 4_097,
            ..header.clone()
        },
        Header { len: 100, ..header },
    ] {
        let bytes: [u8; SLOT_BYTES] = too_much.encode().try_into().unwrap();
        assert!(Header::decode(&bytes, Slot::B, small).is_err());
    }
}

#[test]
fn a_redo_run_where_nothing_is_committed_is_refused_and_one_in_format_1_is_none() {
    let impossible = Err(HeaderError::Impossible("redo run"));
    let bytes = |count: u32, page: u32, pages: u32| {
        let mut bytes: [u8; SLOT_BYTES] = with_redo().encode().try_into().unwrap();
        bytes[at::REDO..at::REDO + 4].copy_from_slice(&count.to_le_bytes());
        let run = pages << 24 | page;
        bytes[at::REDO_RUNS..at::REDO_RUNS + 4].copy_from_slice(&run.to_le_bytes());
        resummed(bytes)
    };
    for (count, page, pages, what) in [
        (0, 0, 1, "none"),
        (3, 0, 1, "one more, which is of block 0"),
        (65, 0, 1, "more than there is room for"),
        (u32::MAX, 0, 1, "more than there is"),
        (1, 0, 0, "of no page"),
        (1, 2 * 16, 1, "in a hole"),
        (1, 7 * 16 + 15, 2, "of two blocks"),
        (1, 0, 17, "more than a block"),
        (1, 1_023 * 16 + 1, 1, "that begins at the end"),
        (1, 1_023 * 16, 2, "the last page of which does"),
        (1, 16_384, 1, "past what a chunk has"),
        (1, 0xff_ffff, 255, "far past it"),
        (2, 1_023 * 16, 1, "two of a block"),
    ] {
        assert_eq!(
            decode(&bytes(count, page, pages), Slot::B),
            impossible,
            "{what}"
        );
    }
    for (page, pages) in [(0, 1), (0, 16), (16 * 7, 16), (1_023 * 16, 1)] {
        let redo = decode(&bytes(1, page, pages), Slot::B).unwrap().redo;
        let crc = with_redo().redo[0].crc;
        assert_eq!(redo, [RedoRun { page, pages, crc }]);
    }
    let mut old = bytes(1, 0, 1);
    old[at::FORMAT] = 1;
    assert_eq!(decode(&resummed(old), Slot::B), Ok(written()));
    for format in [2, 4] {
        old[at::FORMAT] = format;
        let refused = Err(HeaderError::Format(format.into()));
        assert_eq!(decode(&resummed(old), Slot::B), refused);
    }
}

#[test]
fn a_header_without_the_redo_runs_of_the_other_says_the_same_of_the_data() {
    let (a, b) = (
        Header {
            generation: 4,
            ..with_redo()
        },
        Header {
            generation: 5,
            ..written()
        },
    );
    let geometry = Geometry::REAL;
    assert!(Header::is_in_both_slots(
        &file(&a.encode(), &b.encode()),
        geometry
    ));
    let other = Header {
        len: b.len - 1,
        ..b.clone()
    };
    assert!(!Header::is_in_both_slots(
        &file(&a.encode(), &other.encode()),
        geometry
    ));
    assert_eq!(a.digest(geometry), b.digest(geometry));
}
