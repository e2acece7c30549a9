//! A reader of chunk files that knows nothing but their format page: no code of the product is used.
use crate::cluster::{Cluster, content};
use kfs_client::CreateOptions;

const SLOT_BYTES: usize = 8_192;
const BLOCK_BYTES: usize = 65_536;
const HEADER_BYTES: usize = 16_384;

/// A header slot, field by field.
#[derive(Debug)]
struct Slot {
    file: u64,
    chunk: u64,
    version: u64,
    size: u64,
    sums: Vec<u32>,
    generation: u64,
    incarnation: u64,
    cluster: u128,
    bitmap: Vec<u8>,
    wseq: u64,
    pieces: Vec<(u64, u64, u32)>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Reads a slot; `None` if it is not valid.
fn slot(bytes: &[u8], parity: u64) -> Option<Slot> {
    assert_eq!(bytes.len(), SLOT_BYTES);
    let valid = u32_at(bytes, 0) == 0xCAFE_CAFE
        && u32_at(bytes, 4) == 1
        && u32_at(bytes, 8_184) == crc32fast::hash(&bytes[..8_184])
        && u64_at(bytes, 4_400) == u64::from(adler::adler32_slice(&bytes[..4_400]))
        && &bytes[4_408..4_416] == b"KFSRUST1"
        && u64_at(bytes, 4_416) % 2 == parity
        && u64::from(u32_at(bytes, 8_188)) == u64_at(bytes, 4_416) & 0xFFFF_FFFF;
    if !valid {
        return None;
    }
    let count = usize::try_from(u32_at(bytes, 4_584)).unwrap();
    assert!(count <= 128);
    assert!(bytes[4_588..4_600].iter().all(|byte| *byte == 0));
    assert!(
        bytes[4_600 + 24 * count..8_184]
            .iter()
            .all(|byte| *byte == 0)
    );
    let pieces = (0..count).map(|n| 4_600 + 24 * n);
    Some(Slot {
        file: u64_at(bytes, 8),
        chunk: u64_at(bytes, 16),
        version: u64_at(bytes, 24),
        size: u64_at(bytes, 32),
        sums: (0..1_024).map(|n| u32_at(bytes, 40 + 4 * n)).collect(),
        generation: u64_at(bytes, 4_416),
        incarnation: u64_at(bytes, 4_424),
        cluster: u128::from_le_bytes(bytes[4_432..4_448].try_into().unwrap()),
        bitmap: bytes[4_448..4_576].to_vec(),
        wseq: u64_at(bytes, 4_576),
        pieces: pieces
            .map(|at| {
                (
                    u64_at(bytes, at),
                    u64_at(bytes, at + 8),
                    u32_at(bytes, at + 16),
                )
            })
            .collect(),
    })
}

/// The slot in force: the valid one with the larger generation.
fn header(file: &[u8]) -> Slot {
    let a = slot(&file[..SLOT_BYTES], 0);
    let b = slot(&file[SLOT_BYTES..HEADER_BYTES], 1);
    a.into_iter()
        .chain(b)
        .max_by_key(|slot| slot.generation)
        .expect("a valid slot")
}

/// A chunk file as `file`, but of a chunk and an incarnation that nobody here knows; with its name.
pub(crate) fn of_a_stranger(file: &[u8]) -> (String, Vec<u8>) {
    let mut file = file.to_vec();
    for at in [0, SLOT_BYTES] {
        let slot = &mut file[at..at + SLOT_BYTES];
        if u32_at(slot, 0) != 0xCAFE_CAFE {
            continue;
        }
        let chunk = u64_at(slot, 16) + 1_000;
        slot[16..24].copy_from_slice(&chunk.to_le_bytes());
        let incarnation = !u64_at(slot, 4_424);
        slot[4_424..4_432].copy_from_slice(&incarnation.to_le_bytes());
        let sum = u64::from(adler::adler32_slice(&slot[..4_400]));
        slot[4_400..4_408].copy_from_slice(&sum.to_le_bytes());
        let crc = crc32fast::hash(&slot[..8_184]);
        slot[8_184..8_188].copy_from_slice(&crc.to_le_bytes());
    }
    let header = header(&file);
    (
        format!("{}.{}.{}", header.file, header.chunk, header.version),
        file,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunk_files_are_what_their_format_page_says() {
    let cluster = Cluster::start(3);
    let kfs = cluster.client();
    // Two blocks, a hole of one, and a block that is not full; synced twice, so that both slots are in use.
    let mut expected = content(1, 3 * BLOCK_BYTES + 1_000).to_vec();
    expected[2 * BLOCK_BYTES..3 * BLOCK_BYTES].fill(0);
    let mut writer = kfs.create(b"/f", CreateOptions::default()).await.unwrap();
    writer
        .write_at(0, content(1, 2 * BLOCK_BYTES))
        .await
        .unwrap();
    writer.sync().await.unwrap();
    let tail = content(1, expected.len()).slice(3 * BLOCK_BYTES..);
    writer.write_at(3 * BLOCK_BYTES as u64, tail).await.unwrap();
    let file = writer.file();
    writer.close().await.unwrap();
    let status = kfs.status().await.unwrap();

    let mut first: Option<Slot> = None;
    for n in 0..3 {
        let files = cluster.chunk_files(n);
        assert_eq!(files.len(), 1);
        let (name, bytes) = files.first_key_value().unwrap();
        let parts: Vec<&str> = name.split('.').collect();
        assert_eq!(parts.len(), 3);
        for part in &parts {
            assert!(
                part.bytes().all(|byte| byte.is_ascii_digit())
                    && (!part.starts_with('0') || *part == "0")
            );
        }
        let ids: Vec<u64> = parts.iter().map(|part| part.parse().unwrap()).collect();
        let header = header(bytes);
        assert_eq!(ids, [header.file, header.chunk, header.version]);
        assert!(ids.iter().all(|id| *id < 1 << 63));
        assert_eq!(header.file, file.0);
        assert_eq!(header.size, expected.len() as u64);
        assert_eq!(header.cluster, status.cluster.0);
        assert_ne!(header.incarnation, 0);
        assert!(
            header.generation >= 3,
            "two syncs, the first slot written is A with generation 2"
        );
        assert!(header.wseq >= 2);
        assert_eq!(header.pieces.len(), 1, "one session wrote it");
        assert!(header.pieces[0].0 != 0 && header.pieces[0].1 >= 2);
        let low = status.cluster.0.to_le_bytes();
        let slot_a = &bytes[..SLOT_BYTES];
        assert!(
            slot_a[4_136..4_396]
                .windows(8)
                .any(|window| window == &low[..8]),
            "the file-system id"
        );

        assert!(bytes.len() >= HEADER_BYTES + expected.len());
        for block in 0..1_024 {
            let bit = header.bitmap[block / 8] >> (block % 8) & 1;
            if [0, 1, 3].contains(&block) {
                let from = HEADER_BYTES + block * BLOCK_BYTES;
                let end = (from + BLOCK_BYTES).min(HEADER_BYTES + expected.len());
                let mut padded = bytes[from..end].to_vec();
                assert!(
                    padded == expected[from - HEADER_BYTES..end - HEADER_BYTES],
                    "block {block} on {n}"
                );
                padded.resize(BLOCK_BYTES, 0);
                assert_eq!(bit, 1, "block {block}");
                assert_eq!(
                    header.sums[block],
                    adler::adler32_slice(&padded),
                    "block {block} on {n}"
                );
            } else {
                assert_eq!(
                    (bit, header.sums[block]),
                    (0, 0),
                    "block {block} is a hole or past the end"
                );
            }
        }
        if let Some(first) = &first {
            assert_eq!(
                (first.chunk, first.version, first.wseq),
                (header.chunk, header.version, header.wseq)
            );
            assert_eq!((&first.sums, &first.bitmap), (&header.sums, &header.bitmap));
            assert_eq!(
                (&first.pieces, first.incarnation),
                (&header.pieces, header.incarnation)
            );
        }
        first = Some(header);
    }
}
