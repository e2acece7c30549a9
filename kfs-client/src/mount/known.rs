//! What the kernel knows of: how often it looked each thing up and has not forgotten it, and what its cache rests on.
//!
//! Inode numbers are the ids of the cluster, but for the root, so nothing has to be kept to find a thing again, and two
//! mounts agree on them.
use kfs_core::ids::FileId;
use kfs_core::time::UnixNanos;
use kfs_core::wire::client_meta::Attrs;
use std::collections::HashMap;

/// The kernel's number of the root.
pub(super) const ROOT: u64 = 1;

/// The inode number of a file or directory.
pub(super) fn number(file: FileId) -> u64 {
    assert_ne!(file.0, ROOT, "no id is 1");
    if file == FileId::ROOT { ROOT } else { file.0 }
}

/// Which file or directory has this inode number.
pub(super) const fn file(number: u64) -> FileId {
    if number == ROOT {
        FileId::ROOT
    } else {
        FileId(number)
    }
}

/// What a file's content was when the kernel opened it last: with the same it may keep what it has cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Content {
    mtime: UnixNanos,
    ctime: UnixNanos,
    size: u64,
}

impl Content {
    pub(super) const fn of(attrs: &Attrs) -> Self {
        Self {
            mtime: attrs.mtime,
            ctime: attrs.ctime,
            size: attrs.size,
        }
    }
}

#[derive(Debug)]
struct Thing {
    /// Replies that named it, less those that were forgotten.
    lookups: u64,
    /// The directory in which it was found last.
    parent: u64,
    cached: Option<Content>,
}

/// All that the kernel knows of.
#[derive(Default, Debug)]
pub(super) struct Known {
    things: HashMap<u64, Thing>,
}

impl Known {
    /// A reply names it.
    pub(super) fn looked_up(&mut self, number: u64, parent: u64) {
        let thing = self.things.entry(number).or_insert(Thing {
            lookups: 0,
            parent,
            cached: None,
        });
        thing.lookups += 1;
        thing.parent = parent;
    }

    /// The kernel forgets so many of those replies; with the last one it has forgotten the thing.
    pub(super) fn forgotten(&mut self, number: u64, count: u64) {
        if let Some(thing) = self.things.get_mut(&number) {
            thing.lookups = thing.lookups.saturating_sub(count);
            if thing.lookups == 0 {
                self.things.remove(&number);
            }
        }
    }

    /// Where a directory was found; of one that is not known, and of the root, itself.
    pub(super) fn parent(&self, number: u64) -> u64 {
        self.things
            .get(&number)
            .map_or(number, |thing| thing.parent)
    }

    /// A file is opened with this content: whether the kernel's cache is of the same.
    pub(super) fn is_cached(&mut self, number: u64, content: Content) -> bool {
        match self.things.get_mut(&number) {
            Some(thing) => thing.cached.replace(content) == Some(content),
            None => false,
        }
    }

    /// What the kernel has cached may be of other content.
    pub(super) fn changed(&mut self, number: u64) {
        if let Some(thing) = self.things.get_mut(&number) {
            thing.cached = None;
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.things.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ids_and_the_root_is_one() {
        assert_eq!(number(FileId::ROOT), ROOT);
        assert_eq!(file(ROOT), FileId::ROOT);
        let id = FileId(1 << 40 | 7);
        assert_eq!(file(number(id)), id);
    }

    #[test]
    fn a_thing_is_known_until_every_reply_that_named_it_is_forgotten() {
        let mut known = Known::default();
        known.looked_up(9, ROOT);
        known.looked_up(9, 5);
        known.looked_up(9, 5);
        assert_eq!(known.parent(9), 5);
        known.forgotten(9, 2);
        assert_eq!(known.len(), 1);
        known.forgotten(9, 1);
        assert_eq!((known.len(), known.parent(9)), (0, 9));
        // More than there were, or of what is not known: nothing to be undone.
        known.forgotten(9, 1);
        known.looked_up(9, ROOT);
        known.forgotten(9, u64::MAX);
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn the_cache_is_kept_only_if_nothing_has_changed_since_the_last_opening() {
        let content = |time, size| Content {
            mtime: UnixNanos(time),
            ctime: UnixNanos(time),
            size,
        };
        let mut known = Known::default();
        known.looked_up(9, ROOT);
        assert!(!known.is_cached(9, content(1, 10)), "never opened");
        assert!(known.is_cached(9, content(1, 10)));
        assert!(!known.is_cached(9, content(2, 10)), "written to elsewhere");
        assert!(known.is_cached(9, content(2, 10)));
        known.changed(9);
        assert!(!known.is_cached(9, content(2, 10)), "written to here");
        known.forgotten(9, 1);
        known.looked_up(9, ROOT);
        assert!(!known.is_cached(9, content(2, 10)), "forgotten");
    }
}
