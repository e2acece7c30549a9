//! Whatever is written in which order, over whatever is there, what a header covers is on the disk, and no write may
//! tear it.
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
fn whatever_is_written_over_and_an_earlier_chain_left_a_header_says_what_is_on_the_disk_and_nothing_is_torn()
 {
    // A page is less than a block, or a block.
    let geometries = [(8_192, 6), (65_536, 2), (256, 8)];
    let (mut cleared, mut over) = (0, 0);
    for seed in 0..60 {
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
            let chain = (Vec::new(), 0);
            let before = (&header, Elsewhere::Leftovers);
            let mut writing =
                Writing::begun(name, before, geometry, chain, SESSION, Instant::default());
            let mut whole = committed.clone();
            for nth in 0..12 {
                let at = rng.below(chunk_bytes);
                let len = 1 + rng.below((chunk_bytes - at).min(block_bytes as usize));
                let from = at as u64;
                let mut body = vec![0; len];
                body.fill_with(|| 1 + rng.u64().to_le_bytes()[0] % 200);
                whole[at..at + len].copy_from_slice(&body);
                let body = Bytes::from(body);
                let sums = Sums::of(geometry, from, &body);
                let (places, zeros) = writing.table.write(from, &body, &sums.blocks);
                writing.applied = writing.applied.next();
                cleared += zeros;
                let mut before = usize::try_from(zeros).unwrap();
                for place in places {
                    let begin = at + place.start - core::mem::take(&mut before);
                    let range = begin..at + place.end;
                    let pages = range.start as u64..range.end as u64;
                    assert_apart(geometry, &header, pages, &when("a write"));
                    disk[range.start..at + place.start].fill(0);
                    disk[at + place.start..at + place.end].copy_from_slice(&body[place]);
                }
                for block in 0..chunk_blocks as usize {
                    // Readers see a block as it is on the disk, whatever waits.
                    let Expected { filled, sum } = writing.table.expected(block);
                    let begin = block * block_bytes as usize;
                    let there = &disk[begin..begin + filled as usize];
                    let is = sum.is_none_or(|sum| padded_sum(there, block_bytes) == sum);
                    assert!(is, "{}, block {block}", when("read"));
                }
                assert_holds(geometry, &header, &disk, &committed, &when("written"));
                if rng.below(4) > 0 || nth == 11 {
                    continue;
                }
                let (mut next, zeros, changes) = writing.next_header(ClusterId(1));
                for range in zeros {
                    cleared += range.end - range.start;
                    assert_apart(geometry, &header, range.clone(), &when("zeros"));
                    disk[usize::try_from(range.start).unwrap()
                        ..usize::try_from(range.end).unwrap()]
                        .fill(0);
                }
                let mut redo = Vec::new();
                for change in changes {
                    let was = writing.table.expected(change.block);
                    let begin = change.block * block_bytes as usize;
                    let old = &disk[begin..begin + was.filled as usize];
                    let made = change.make(geometry, was, old).unwrap();
                    next.sums[made.block] = made.is.sum;
                    writing.table.made_anew(made.block, made.is, true);
                    redo.push(made);
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
                over += redo.len();
                for redo in redo {
                    let at = usize::try_from(redo.run.at(geometry)).unwrap();
                    assert_eq!(redo.run.len(header.len, geometry), redo.bytes.len());
                    disk[at..at + redo.bytes.len()].copy_from_slice(&redo.bytes);
                    writing.table.placed(redo.block, redo.is, true);
                }
                assert_holds(geometry, &header, &disk, &committed, &when("synced"));
            }
        }
    }
    assert!(cleared > 0, "something was left behind");
    assert!(over > 150, "something was written over: {over}");
}

const SESSION: SessionId = SessionId(1);
