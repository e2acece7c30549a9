//! O6 for each kind of map: it has what a plain map has, whatever is done to it and in whatever order; and a
//! clone keeps what it had.
use super::*;
use crate::ids::{
    ChunkId, Digest, FileId, RequestNumber, ServerIndex, SessionId, Version, WriteSeq,
};
use crate::meta::key::{Key, Name};
use crate::meta::state::{ChunkState, Inode, Node};
use crate::rng::Rng;
use crate::time::UnixNanos;
use crate::wire::client_chunk::Durable;
use std::collections::BTreeMap;

/// How a test draws.
trait Drawn: Code {
    /// One of about so many keys.
    fn key(rng: &mut Rng, of: usize) -> Self::Key;
    fn value(rng: &mut Rng) -> Self::Value;
}

/// A number that is small, or in the middle, or as large as can be.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => (1 << 63) - 1,
        1 => (1 << 40) + rng.below(1 << 20) as u64,
        2..=4 => rng.below(1 << 16) as u64,
        _ => rng.below(100) as u64,
    }
}

fn id(rng: &mut Rng, of: usize) -> u64 {
    let epoch = [0, 1_u64 << 40, ((1 << 23) - 1) << 40][rng.below(3)];
    epoch + 2 + rng.below(of) as u64
}

fn name(rng: &mut Rng, of: usize) -> Vec<u8> {
    let nth = rng.below(of);
    match nth % 5 {
        // Those that begin alike, those that share nothing, and those that are as long as names can be.
        0 => format!("file-{nth:08}").into_bytes(),
        1 => [
            (nth.wrapping_mul(2_654_435_761)).to_be_bytes().as_slice(),
            b"x",
        ]
        .concat(),
        2 => [&vec![b'n'; 251][..], &nth.to_be_bytes()[4..]].concat(),
        3 => vec![0xFF; 1 + nth % 255],
        _ => vec![b'a'; 1 + nth % 40],
    }
}

impl Drawn for Names {
    fn key(rng: &mut Rng, of: usize) -> Key {
        let parent = FileId(id(rng, 1 + of / 50));
        let name = Name::raw(&name(rng, of));
        Key { parent, name }
    }
    fn value(rng: &mut Rng) -> FileId {
        FileId(number(rng))
    }
}
impl Drawn for Inodes {
    fn key(rng: &mut Rng, of: usize) -> FileId {
        FileId(id(rng, of))
    }
    fn value(rng: &mut Rng) -> Inode {
        let node = if rng.below(4) == 0 {
            Node::Directory {
                parent: FileId(number(rng)),
                entries: number(rng),
                subdirectories: [0, 7, u32::MAX][rng.below(3)],
            }
        } else {
            let replication = [1, 3, 16][rng.below(3)];
            let size = number(rng);
            Node::File { size, replication }
        };
        let crtime = UnixNanos([1_700_000_000_000_000_000, 0, u64::MAX][rng.below(3)]);
        let mtime = [crtime, UnixNanos(number(rng))][rng.below(2)];
        Inode {
            node,
            mode: [0o644, 0o755, u32::MAX][rng.below(3)],
            uid: [0, 1_000, u32::MAX][rng.below(3)],
            gid: [0, u32::MAX][rng.below(2)],
            mtime,
            ctime: [mtime, UnixNanos(number(rng))][rng.below(2)],
            crtime,
        }
    }
}
impl Drawn for Chunks {
    fn key(rng: &mut Rng, of: usize) -> (FileId, u64) {
        let index = [0, 1, 2, 300, (1 << 37) - 1][rng.below(5)];
        (FileId(id(rng, of)), index)
    }
    fn value(rng: &mut Rng) -> ChunkState {
        let members = match rng.below(5) {
            0 => (1..=16).map(ServerIndex).collect(),
            1 => [ServerIndex(number(rng))].into(),
            _ => [ServerIndex(1), ServerIndex(2), ServerIndex(3)].into(),
        };
        ChunkState {
            chunk: ChunkId(number(rng)),
            version: Version(number(rng)),
            members,
            opened_by: RequestNumber(number(rng)),
            synced: (rng.below(3) > 0).then(|| Durable {
                len: number(rng).min((1 << 63) - 1),
                wseq: WriteSeq(number(rng)),
            }),
            sealed: (rng.below(3) > 0)
                .then(|| Digest(number(rng).wrapping_mul(0x9E37_79B9_7F4A_7C15))),
        }
    }
}
impl Drawn for Owners {
    fn key(rng: &mut Rng, of: usize) -> ChunkId {
        ChunkId(id(rng, of))
    }
    fn value(rng: &mut Rng) -> (FileId, u64) {
        (FileId(number(rng)), number(rng))
    }
}
impl Drawn for ChunkSet {
    fn key(rng: &mut Rng, of: usize) -> ChunkId {
        ChunkId(id(rng, of))
    }
    fn value(_: &mut Rng) {}
}

impl Drawn for Writers {
    fn key(rng: &mut Rng, of: usize) -> FileId {
        FileId(id(rng, of))
    }
    fn value(rng: &mut Rng) -> SessionId {
        SessionId(number(rng))
    }
}
impl Drawn for Writing {
    fn key(rng: &mut Rng, of: usize) -> (SessionId, FileId) {
        let session = [3, 4, 1 << 40, (1 << 63) - 1][rng.below(4)];
        (SessionId(session), FileId(id(rng, of)))
    }
    fn value(_: &mut Rng) {}
}

/// What grows, stays and shrinks, by turns.
fn is_a_btree_map<C: Drawn>() {
    for seed in 1..=6 {
        let mut rng = Rng::new(seed);
        let of = [40, 400, 4_000][rng.below(3)];
        let mut map = Map::<C>::default();
        let mut plain = BTreeMap::<C::Key, C::Value>::new();
        let mut changing = None::<C::Key>;
        let mut kept = None::<(Map<C>, BTreeMap<C::Key, C::Value>)>;
        for nth in 0..6_000 {
            let key = C::key(&mut rng, of);
            let removes = [1, 5, 8][nth / 700 % 3];
            if rng.below(10) < removes {
                assert_eq!(map.remove(&key), plain.remove(&key), "seed {seed}");
            } else if rng.below(4) == 0 {
                // Once, or again and again, and perhaps once more after something else.
                changing = [changing.unwrap_or_else(|| key.clone()), key][rng.below(2)]
                    .clone()
                    .into();
                let key = changing.as_ref().expect("it was just set");
                for _ in 0..=rng.below(3) {
                    let value = C::value(&mut rng);
                    let change = |old: &mut C::Value| core::mem::replace(old, value.clone());
                    let before = plain.get_mut(key).map(change);
                    assert_eq!(map.update(key, change), before, "seed {seed}");
                    assert_eq!(map.get(key).as_ref(), plain.get(key), "seed {seed}");
                }
            } else {
                let value = C::value(&mut rng);
                let before = plain.insert(key.clone(), value.clone());
                assert_eq!(map.insert(key.clone(), value), before, "seed {seed}");
            }
            let key = C::key(&mut rng, of);
            assert_eq!(map.get(&key).as_ref(), plain.get(&key), "seed {seed}");
            assert_eq!(map.contains_key(&key), plain.contains_key(&key));
            assert!(
                map.last()
                    .into_iter()
                    .eq(owned(plain.iter().next_back().into_iter()))
            );
            if nth % 300 == 0 {
                map.check();
                assert!(map.iter().eq(owned(plain.iter())), "seed {seed}");
                ranges(&map, &plain, &mut rng, of);
                if let Some((map, plain)) = kept.replace((map.clone(), plain.clone())) {
                    map.check();
                    assert!(
                        map.iter().eq(owned(plain.iter())),
                        "a clone keeps what it had"
                    );
                }
            }
        }
        for key in plain.keys().cloned().collect::<Vec<_>>() {
            assert_eq!(map.remove(&key), plain.remove(&key));
        }
        map.check();
        assert_eq!((map.len(), map.iter().next()), (0, None));
    }
}

fn owned<'a, K: Clone + 'a, V: Clone + 'a>(
    entries: impl Iterator<Item = (&'a K, &'a V)>,
) -> impl Iterator<Item = (K, V)> {
    entries.map(|(key, value)| (key.clone(), value.clone()))
}

fn ranges<C: Drawn>(map: &Map<C>, plain: &BTreeMap<C::Key, C::Value>, rng: &mut Rng, of: usize) {
    for _ in 0..12 {
        let (one, other) = (C::key(rng, of), C::key(rng, of));
        let (from, to) = (one.clone().min(other.clone()), one.max(other));
        assert!(
            map.range(from.clone()..=to.clone())
                .eq(owned(plain.range(from.clone()..=to.clone())))
        );
        assert!(
            map.range(from.clone()..to.clone())
                .eq(owned(plain.range(from.clone()..to)))
        );
        let behind = (Bound::Excluded(from), Bound::Unbounded);
        assert!(map.range(behind.clone()).eq(owned(plain.range(behind))));
    }
}

#[test]
fn names_are_a_btree_map() {
    is_a_btree_map::<Names>();
}
#[test]
fn inodes_are_a_btree_map() {
    is_a_btree_map::<Inodes>();
}
#[test]
fn chunks_are_a_btree_map() {
    is_a_btree_map::<Chunks>();
}
#[test]
fn owners_are_a_btree_map() {
    is_a_btree_map::<Owners>();
}
#[test]
fn sets_of_chunks_are_a_btree_map() {
    is_a_btree_map::<ChunkSet>();
}
#[test]
fn writers_are_a_btree_map() {
    is_a_btree_map::<Writers>();
    is_a_btree_map::<Writing>();
}

#[test]
fn a_map_is_let_go_of_in_parts_and_its_clones_keep_what_they_have() {
    let mut map = Map::<Owners>::default();
    for chunk in 0..100_000 {
        map.insert(ChunkId(chunk), (FileId(chunk / 3), chunk % 3));
    }
    let mut old = map.clone();
    for chunk in (0..100_000).step_by(97) {
        map.insert(ChunkId(chunk), (FileId(chunk), 7));
    }
    let all: Vec<_> = map.iter().collect();
    let mut parts = 0;
    loop {
        parts += 1;
        let mut most = 4;
        if !old.shed(&mut most) {
            break;
        }
        assert_eq!(most, 0, "it goes on as long as it may");
    }
    // A leaf has some fifteen of them, an inner node 48 leaves; no more than one in a hundred is its own.
    assert!((10..100).contains(&parts), "{parts} parts");
    drop(old);
    map.check();
    assert!(map.iter().eq(all), "what is still used is there");
}

#[test]
fn what_comes_in_order_fills_leaves_and_costs_what_it_is() {
    let mut map = Map::<Owners>::default();
    for nth in 0..100_000 {
        let chunk = 3 * nth + 2;
        map.insert(ChunkId(chunk), (FileId(chunk - 1), 0));
    }
    map.check();
    let bytes = map.root.leaf_bytes();
    // A distance to the chunk before, to the file, and an index.
    assert_eq!(bytes.sum / 100_000, 3);
    assert!(bytes.sum / bytes.leaves > 90, "{bytes:?}");
}

#[test]
fn equal_maps_are_equal_however_they_came_about() {
    let mut rng = Rng::new(7);
    let mut forward = Map::<Inodes>::default();
    let mut backward = Map::<Inodes>::default();
    let entries: BTreeMap<FileId, Inode> = (0..2_000)
        .map(|_| (Inodes::key(&mut rng, 5_000), Inodes::value(&mut rng)))
        .collect();
    for (file, inode) in &entries {
        forward.insert(*file, *inode);
    }
    for (file, inode) in entries.iter().rev() {
        backward.insert(*file, *inode);
    }
    assert_eq!(forward, backward);
    let (last, _) = forward.last().unwrap();
    backward.update(&last, |inode| inode.uid ^= 1);
    assert_ne!(forward, backward);
    backward.update(&last, |inode| inode.uid ^= 1);
    let (first, _) = forward.iter().next().unwrap();
    let same = forward.clone();
    for nth in 0..6 {
        forward.update(&first, |inode| inode.uid ^= 1);
        assert_eq!(forward == backward, nth % 2 == 1);
        assert_eq!(forward == same, nth % 2 == 1);
    }
}
