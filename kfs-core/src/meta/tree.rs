//! The directory entries: one persistent ordered map from (directory, name) to what the name stands for.
//!
//! A directory's entries are one range of it, so a page of a listing costs what it returns, whatever the
//! directory holds. Knows no links, no time and no attributes.
use super::key::{Key, Name};
use super::packed::{Map, Names};
use crate::ids::FileId;
use crate::planted::{self, Bug};
use core::ops::Bound;

/// All directory entries.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Tree(Map<Names>);

impl Tree {
    /// See [`Map::shed`].
    pub(crate) fn shed(&mut self, most: &mut usize) -> bool {
        self.0.shed(most)
    }
    /// What a name stands for.
    pub(crate) fn get(&self, key: &Key) -> Option<FileId> {
        self.0.get(key)
    }
    /// Adds an entry; gives back what the name stood for before.
    pub(crate) fn insert(&mut self, key: Key, file: FileId) -> Option<FileId> {
        self.0.insert(key, file)
    }
    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<FileId> {
        self.0.remove(key)
    }
    /// The entries of a directory in byte order of their names, those after `after`; empty: all.
    pub(crate) fn after(
        &self,
        parent: FileId,
        after: &[u8],
    ) -> impl Iterator<Item = (Name, FileId)> {
        let from = Key {
            parent,
            name: Name::raw(after),
        };
        let from = if !after.is_empty() && planted::is(Bug::ListRepeatsAtPageEdge) {
            Bound::Included(from)
        } else {
            Bound::Excluded(from)
        };
        self.0
            .range((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.parent == parent)
            .map(|(key, file)| (key.name, file))
    }
    /// All entries behind this key, in the order of their keys.
    pub(crate) fn behind(&self, key: Option<Key>) -> impl Iterator<Item = (Key, FileId)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range((from, Bound::Unbounded))
    }
    /// The key of the last entry.
    pub(crate) fn last(&self) -> Option<Key> {
        self.0.last().map(|(key, _)| key)
    }
    /// All entries, in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, FileId)> {
        self.0.iter()
    }
    /// How many entries there are in all.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn a_page_begins_after_the_name_given_and_ends_with_the_directory() {
        let mut tree = Tree::default();
        for parent in [2, 3, 4] {
            for name in [&b"b"[..], b"a", b"c", b"ab"] {
                let key = Key {
                    parent: FileId(parent),
                    name: Name::raw(name),
                };
                assert_eq!(tree.insert(key, FileId(100 + parent)), None);
            }
        }
        let names = |after: &[u8]| -> Vec<Vec<u8>> {
            tree.after(FileId(3), after)
                .map(|(name, _)| name.as_bytes().to_vec())
                .collect()
        };
        assert_eq!(names(b""), [&b"a"[..], b"ab", b"b", b"c"]);
        assert_eq!(names(b"a"), [&b"ab"[..], b"b", b"c"]);
        assert_eq!(names(b"bb"), [&b"c"[..]]);
        assert!(names(&[b'z'; 300]).is_empty());
        assert!(
            tree.after(FileId(3), b"a")
                .all(|(_, file)| file == FileId(103))
        );
    }

    /// O6: whatever is added, replaced and taken out, in whatever order, the tree has what a plain map has, and
    /// a walk in pages of any size gives each entry once, in order.
    #[test]
    fn the_tree_is_a_btree_map_over_random_changes_and_page_walks() {
        for seed in 1..=40 {
            let mut rng = Rng::new(seed);
            let mut tree = Tree::default();
            let mut map = BTreeMap::<(u64, Vec<u8>), FileId>::new();
            for nth in 0..600 {
                let parent = 2 + rng.below(4) as u64;
                let bytes = random_name(&mut rng);
                let key = Key {
                    parent: FileId(parent),
                    name: Name::raw(&bytes),
                };
                let at = (parent, bytes);
                match rng.below(10) {
                    0..=5 => {
                        let file = FileId(100 + nth);
                        assert_eq!(tree.insert(key, file), map.insert(at, file), "seed {seed}");
                    }
                    6..=8 => assert_eq!(tree.remove(&key), map.remove(&at), "seed {seed}"),
                    _ => assert_eq!(tree.get(&key), map.get(&at).copied(), "seed {seed}"),
                }
                assert_eq!(tree.len(), map.len(), "seed {seed}");
                if nth % 50 == 49 {
                    walks(&tree, &map, &mut rng, seed);
                }
            }
            let all: Vec<_> = tree
                .iter()
                .map(|(key, file)| ((key.parent.0, key.name.as_bytes().to_vec()), file))
                .collect();
            assert_eq!(all, map.into_iter().collect::<Vec<_>>(), "seed {seed}");
        }
    }

    /// Few enough that names meet, with some that are longer than what is kept inline.
    fn random_name(rng: &mut Rng) -> Vec<u8> {
        let mut name = match rng.below(4) {
            0 => vec![b'n'; 21],
            1 => vec![0xFF; 2],
            _ => Vec::new(),
        };
        for _ in 0..=rng.below(3) {
            name.push(b'a' + u8::try_from(rng.below(3)).unwrap());
        }
        name
    }

    fn walks(tree: &Tree, map: &BTreeMap<(u64, Vec<u8>), FileId>, rng: &mut Rng, seed: u64) {
        for parent in 1..=6 {
            let due: Vec<(Vec<u8>, FileId)> = map
                .range((parent, Vec::new())..(parent + 1, Vec::new()))
                .map(|((_, name), file)| (name.clone(), *file))
                .collect();
            let page = 1 + rng.below(7);
            let mut walked: Vec<(Vec<u8>, FileId)> = Vec::new();
            loop {
                let after = walked.last().map_or(&b""[..], |(name, _)| name.as_slice());
                let next: Vec<_> = tree
                    .after(FileId(parent), after)
                    .take(page)
                    .map(|(name, file)| (name.as_bytes().to_vec(), file))
                    .collect();
                if next.is_empty() {
                    break;
                }
                walked.extend(next);
                assert!(walked.len() <= due.len(), "a walk comes to its end");
            }
            assert_eq!(walked, due, "seed {seed}, directory {parent}");
            // From a name that need not be there.
            let after = random_name(rng);
            let rest: Vec<_> = tree
                .after(FileId(parent), &after)
                .map(|(name, file)| (name.as_bytes().to_vec(), file))
                .collect();
            let due: Vec<_> = due.into_iter().filter(|(name, _)| *name > after).collect();
            assert_eq!(rest, due, "seed {seed}, directory {parent}");
        }
    }
}
