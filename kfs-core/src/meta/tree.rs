//! The directory entries: one persistent ordered map from (directory, name) to what the name stands for.
//!
//! A directory's entries are one range of it, so a page of a listing costs what it returns, whatever the
//! directory holds. Knows no links, no time and no attributes.
use super::key::{Key, Name};
use crate::ids::FileId;
use crate::planted::{self, Bug};
use core::ops::Bound;
use imbl::OrdMap;

/// All directory entries.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Tree(OrdMap<Key, FileId>);

impl Tree {
    /// What a name stands for.
    pub(crate) fn get(&self, key: &Key) -> Option<FileId> {
        self.0.get(key).copied()
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
    ) -> impl Iterator<Item = (&Name, FileId)> {
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
            .map(|(key, file)| (&key.name, *file))
    }
    /// How many entries there are in all.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
