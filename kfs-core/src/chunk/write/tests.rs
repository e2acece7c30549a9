//! Whatever is written in which order, what a header covers is on the disk, and no write may tear it.
use super::super::tail::Tail;
use super::*;
use crate::block::padded_sum;
use crate::chunk::table::Expected;
use crate::ids::*;
use crate::rng::Rng;

/// Every block is on the disk what the header says of it, and holds these bytes.
fn assert_holds(geometry: Geometry, header: &Header, disk: &[u8], whole: &[u8], when: &str) {
    let block_bytes = geometry.block_bytes as usize;
    for block in 0..geometry.chunk_blocks as usize {
        let Expected { filled, sum } = Expected::by(geometry, header, block);
        let begin = block * block_bytes;
        let there = &disk[begin..begin + filled as usize];
        let expected = &whole[begin..begin + block_bytes];
        let Some(sum) = sum else {
            assert!(expected.iter().all(|byte| *byte == 0), "{when}");
            continue;
        };
        assert_eq!(
            padded_sum(there, geometry.block_bytes),
            sum,
            "{when}, block {block}"
        );
        assert_eq!(there, &expected[..filled as usize], "{when}, block {block}");
        assert!(
            expected[filled as usize..].iter().all(|byte| *byte == 0),
            "{when}"
        );
    }
}

/// A write of these bytes in their place tears nothing that the header covers.
fn assert_apart(geometry: Geometry, header: &Header, range: Range<u64>, when: &str) {
    let page_bytes = geometry.page_bytes();
    for page in range.start / page_bytes..range.end.div_ceil(page_bytes) {
        let at = page * page_bytes;
        let block = usize::try_from(at / u64::from(geometry.block_bytes)).unwrap();
        let filled = Expected::by(geometry, header, block).filled;
        assert!(
            at % u64::from(geometry.block_bytes) >= filled.into(),
            "{when}"
        );
    }
}

#[test]
fn whatever_an_earlier_chain_left_a_header_says_what_is_on_the_disk_and_nothing_before_it_is_torn()
{
    // A page is less than a block, or a block.
    let geometries = [(8_192, 6), (65_536, 2), (256, 8)];
    let mut cleared = 0;
    for seed in 0..99 {
        let mut rng = Rng::new(seed);
        let (block_bytes, chunk_blocks) = geometries[usize::try_from(seed % 3).unwrap()];
        let geometry = Geometry {
            block_bytes,
            chunk_blocks,
            piece_bytes: block_bytes,
        };
        let chunk_bytes = usize::try_from(geometry.chunk_bytes()).unwrap();
        let name = ChunkName {
            file: FileId(1),
            chunk: ChunkId(1),
            version: Version(1),
        };
        let mut header = first_header(name, Incarnation(1), ClusterId(1));
        let mut disk = vec![0xEE; chunk_bytes];
        let mut committed = vec![0; chunk_bytes];
        for session in 0..4 {
            let when = |what: &str| format!("seed {seed}, session {session}, {what}");
            let begin = header.len - header.len % u64::from(block_bytes);
            let block = usize::try_from(begin).unwrap()..usize::try_from(header.len).unwrap();
            let chain = (Vec::new(), 0);
            let before = (&header, Elsewhere::Leftovers);
            let mut writing =
                Writing::begun(name, before, geometry, chain, SESSION, Instant::default());
            writing.tail = Tail::of(geometry, &header, &disk[block]).unwrap();
            let mut whole = committed.clone();
            for nth in 0..12 {
                let at = rng.below(chunk_bytes);
                let len = 1 + rng.below((chunk_bytes - at).min(block_bytes as usize));
                let from = at as u64;
                if writing.table.may_write(from, len as u64).is_ok() {
                    let mut body = vec![0; len];
                    body.fill_with(|| 1 + rng.u64().to_le_bytes()[0] % 200);
                    whole[at..at + len].copy_from_slice(&body);
                    let body = Bytes::from(body);
                    let sums = Sums::of(geometry, from, &body);
                    let (zeros, waits) = writing.lay(from, &body, &sums);
                    writing.applied = writing.applied.next();
                    cleared += zeros;
                    let zeros = usize::try_from(zeros).unwrap();
                    if waits < len {
                        let range = (at + waits - zeros) as u64..(at + len) as u64;
                        assert_apart(geometry, &header, range, &when("a write"));
                        disk[at + waits - zeros..at + waits].fill(0);
                        disk[at + waits..at + len].copy_from_slice(&body[waits..]);
                    }
                }
                assert_holds(geometry, &header, &disk, &committed, &when("written"));
                if rng.below(4) > 0 || nth == 11 {
                    continue;
                }
                let (next, anew) = writing.next_header(ClusterId(1));
                for range in anew.zeros {
                    cleared += range.end - range.start;
                    assert_apart(geometry, &header, range.clone(), &when("zeros"));
                    disk[usize::try_from(range.start).unwrap()
                        ..usize::try_from(range.end).unwrap()]
                        .fill(0);
                }
                assert_holds(
                    geometry,
                    &header,
                    &disk,
                    &committed,
                    &when("before the header"),
                );
                header = next;
                committed.clone_from(&whole);
                if let Some(redo) = anew.redo {
                    let at = usize::try_from(redo.page.at(geometry)).unwrap();
                    disk[at..at + redo.bytes.len()].copy_from_slice(&redo.bytes);
                }
                assert_holds(geometry, &header, &disk, &committed, &when("synced"));
            }
        }
    }
    assert!(cleared > 0, "something was left behind");
}

const SESSION: SessionId = SessionId(1);
