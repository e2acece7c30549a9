//! An ordered map for tens of millions of small entries: a B+-tree whose leaves are packed bytes.
//!
//! Each entry is written as how it differs from the one before it in its leaf ([`Code`]), so that ids that were
//! given one after another, times, names of one directory and chains of the same servers cost a byte or two. A
//! leaf is one allocation of exactly its bytes and is never changed: a change makes another, and a clone of the
//! map shares all of them, so a snapshot costs nothing. Entries come out by value.
//!
//! Everything is found by reading at most one leaf from its start, which is why leaves are short. Entries that
//! are added behind all others (ids grow) are put at the end of the last leaf without reading it. An entry that is
//! changed again and again, as a directory is by each file made in it, is kept beside the leaves meanwhile.
mod codes;
mod node;
mod varint;

pub(crate) use self::codes::{ChunkSet, Chunks, Inodes, Names, Owners, Writers, Writing};
pub(crate) use self::node::Spot;
use self::node::{Last, Node, Tail};
pub(crate) use self::varint::{Reader, put_signed, put_unsigned};
use core::cmp::Ordering;
use core::fmt;
use core::ops::{Bound, RangeBounds};

/// How entries of a map are written.
pub(crate) trait Code: 'static {
    type Key: Ord + Clone + fmt::Debug;
    type Value: Clone + PartialEq + fmt::Debug;
    /// An entry that was read, or, as it is made first, what the first entry of a leaf is written against. It says
    /// nothing of the entries before it.
    type At: Clone + Default + fmt::Debug;
    /// A leaf with more bytes is cut in two, if it has more than one entry. Longer ones cost less memory, and more
    /// time: some thirty entries are read to find one.
    const LEAF_BYTES: usize;

    /// Writes an entry as it differs from the one before it.
    fn put(before: &Self::At, key: &Self::Key, value: &Self::Value, to: &mut Vec<u8>);
    /// Reads the next entry.
    fn take(at: &mut Self::At, from: &mut Reader<'_>);
    /// How the key of what was read stands to another.
    fn compare(at: &Self::At, key: &Self::Key) -> Ordering;
    /// What was read.
    fn entry(at: &Self::At) -> (Self::Key, Self::Value);
    /// How the key of the next entry stands to another.
    fn peek(at: &Self::At, mut from: Reader<'_>, key: &Self::Key) -> Ordering {
        let mut next = at.clone();
        Self::take(&mut next, &mut from);
        Self::compare(&next, key)
    }
    /// Reads the next entry for what the one behind it is written against, and no more.
    fn pass(at: &mut Self::At, from: &mut Reader<'_>) {
        Self::take(at, from);
    }
    /// What is at a key of a leaf.
    fn find(leaf: &[u8], key: &Self::Key) -> Option<Self::Value> {
        let mut at = Self::At::default();
        let mut reader = Reader::new(leaf);
        while !reader.is_empty() {
            match Self::peek(&at, reader, key) {
                Ordering::Less => Self::pass(&mut at, &mut reader),
                Ordering::Equal => {
                    Self::take(&mut at, &mut reader);
                    return Some(Self::entry(&at).1);
                }
                Ordering::Greater => return None,
            }
        }
        None
    }
    /// Where a key stands in a leaf, and what its entry is written against.
    fn seek(leaf: &[u8], key: &Self::Key) -> (Spot, Self::At) {
        let mut before = Self::At::default();
        let mut reader = Reader::new(leaf);
        loop {
            let from = leaf.len() - reader.left();
            if reader.is_empty() {
                return (Spot::gap(from), before);
            }
            match Self::peek(&before, reader, key) {
                Ordering::Less => Self::pass(&mut before, &mut reader),
                Ordering::Equal => {
                    Self::pass(&mut before.clone(), &mut reader);
                    return (Spot::entry(from, leaf.len() - reader.left()), before);
                }
                Ordering::Greater => return (Spot::gap(from), before),
            }
        }
    }
}

/// The map.
pub(crate) struct Map<C: Code> {
    root: Node<C>,
    len: usize,
    /// The last entry, if it is known: ids grow, so most of what is asked for is behind it, or is it.
    tail: Option<Tail<C>>,
    changing: Changing<C>,
    /// Where a leaf is made before it is put in its place.
    scratch: Vec<u8>,
}

/// Which entries [`Map::update`] was last about.
struct Changing<C: Code> {
    /// It was changed again soon after it was changed: what its leaf has is older, and what is here goes there when
    /// that happens to another one. Those that are changed but once in between do not take its place: a file that is
    /// closed is one, and its directory the other.
    again: Option<(C::Key, C::Value)>,
    /// The last ones besides, which their leaves have.
    once: [Option<C::Key>; 2],
}

impl<C: Code> Changing<C> {
    const fn nothing() -> Self {
        Self {
            again: None,
            once: [None, None],
        }
    }
    /// What is at this key, if it is not in its leaf.
    fn apart(&self, key: &C::Key) -> Option<&C::Value> {
        let (of, value) = self.again.as_ref()?;
        (of == key).then_some(value)
    }
}

impl<C: Code> Map<C> {
    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
    /// How a key stands to the last entry, as far as that is known.
    fn stands(&self, key: &C::Key) -> Stands<'_, C> {
        let Some(tail) = &self.tail else {
            return Stands::Anywhere;
        };
        match C::compare(&tail.last, key) {
            Ordering::Less => Stands::Behind,
            Ordering::Equal => Stands::Last(&tail.last),
            Ordering::Greater => Stands::Anywhere,
        }
    }
    /// What is at this key, if it is not in its leaf.
    fn apart(&self, key: &C::Key) -> Option<&C::Value> {
        self.changing.apart(key)
    }
    /// Everything is in its leaf.
    fn settle(&mut self) {
        if let Some((key, value)) = self.changing.again.take() {
            drop(self.change(&key, |_| Some(value)));
        }
    }
    /// What is at this key.
    pub(crate) fn get(&self, key: &C::Key) -> Option<C::Value> {
        if let Some(value) = self.apart(key) {
            return Some(value.clone());
        }
        match self.stands(key) {
            Stands::Behind => return None,
            Stands::Last(last) => return Some(C::entry(last).1),
            Stands::Anywhere => {}
        }
        C::find(self.root.leaf(key), key)
    }
    /// Whether something is at this key.
    pub(crate) fn contains_key(&self, key: &C::Key) -> bool {
        match self.stands(key) {
            Stands::Behind => false,
            Stands::Last(_) => true,
            Stands::Anywhere => C::find(self.root.leaf(key), key).is_some(),
        }
    }
    /// Puts an entry in; gives back what was there.
    pub(crate) fn insert(&mut self, key: C::Key, value: C::Value) -> Option<C::Value> {
        if self.apart(&key).is_some() {
            self.settle();
        }
        if self.tail.is_none() {
            self.tail = self.root.tail();
        }
        let old = match self.stands(&key) {
            Stands::Anywhere if self.len > 0 => self.change(&key, |_| Some(value)),
            Stands::Last(last) => {
                let (_, old) = C::entry(last);
                self.put_last(Last::Again, &key, &value);
                Some(old)
            }
            Stands::Behind | Stands::Anywhere => {
                self.put_last(Last::Another, &key, &value);
                None
            }
        };
        self.len += usize::from(old.is_none());
        old
    }
    /// Changes what is at this key, if something is; says what the change says.
    pub(crate) fn update<T>(
        &mut self,
        key: &C::Key,
        change: impl FnOnce(&mut C::Value) -> T,
    ) -> Option<T> {
        match &mut self.changing.again {
            Some((of, value)) if of == key => return Some(change(value)),
            Some(_) | None => {}
        }
        match self.stands(key) {
            Stands::Behind => return None,
            Stands::Last(last) => {
                let (_, old) = C::entry(last);
                let mut value = old.clone();
                let said = change(&mut value);
                if value != old {
                    self.put_last(Last::Again, key, &value);
                }
                return Some(said);
            }
            Stands::Anywhere => {}
        }
        if self.changing.once.iter().flatten().any(|of| of == key) {
            let mut value = self.get(key)?;
            let said = change(&mut value);
            self.settle();
            self.changing.again = Some((key.clone(), value));
            return Some(said);
        }
        self.changing.once.rotate_right(1);
        self.changing.once[0] = Some(key.clone());
        let mut said = None;
        self.change(key, |old| {
            let old = old?;
            let mut value = old.clone();
            said = Some(change(&mut value));
            (value != *old).then_some(value)
        });
        said
    }
    fn change(
        &mut self,
        key: &C::Key,
        make: impl FnOnce(Option<&C::Value>) -> Option<C::Value>,
    ) -> Option<C::Value> {
        let changed = self.root.change(key, make, &mut self.scratch);
        if changed.is && changed.in_last_leaf {
            self.tail = None;
        }
        self.grow(changed.split);
        changed.old
    }
    fn put_last(&mut self, which: Last, key: &C::Key, value: &C::Value) {
        let tail = self.tail.get_or_insert_with(Tail::of_none);
        let split = self
            .root
            .put_last(which, tail, key, value, &mut self.scratch);
        self.grow(split);
    }
    fn grow(&mut self, split: node::Split<C>) {
        if let Some((separator, right)) = split {
            self.root.grow(separator, right);
        }
    }
    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &C::Key) -> Option<C::Value> {
        let before = self.get(key)?;
        if self.apart(key).is_some() {
            self.changing = Changing::nothing();
        }
        self.tail = None;
        self.root.remove(key);
        self.root.shrink();
        self.len -= 1;
        Some(before)
    }
    /// Lets go of a part of a map that is of no use any more, so that this does not take long at once; whether there
    /// is more. Nothing else may be done with it afterwards.
    pub(crate) fn shed(&mut self, most: &mut usize) -> bool {
        self.root.shed(most)
    }
    /// The last entry.
    pub(crate) fn last(&self) -> Option<(C::Key, C::Value)> {
        let (key, value) = match &self.tail {
            Some(tail) => C::entry(&tail.last),
            None => C::entry(&self.root.tail()?.last),
        };
        let value = self.apart(&key).cloned().unwrap_or(value);
        Some((key, value))
    }
    /// All entries, in order.
    pub(crate) fn iter(&self) -> Iter<'_, C> {
        self.range(..)
    }
    /// All keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = C::Key> {
        self.iter().map(|(key, _)| key)
    }
    /// The entries of a range of keys, in order.
    pub(crate) fn range(&self, range: impl RangeBounds<C::Key>) -> Iter<'_, C> {
        let mut iter = Iter {
            path: Vec::new(),
            leaf: Reader::new(&[]),
            at: C::At::default(),
            is_read: false,
            end: range.end_bound().cloned(),
            changing: &self.changing,
        };
        let (from, included) = match range.start_bound() {
            Bound::Unbounded => {
                iter.descend(&self.root);
                return iter;
            }
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
        };
        let mut node = &self.root;
        while let Node::Inner(inner) = node {
            let child = inner.child(from);
            iter.path.push((node, child));
            node = inner.at(child);
        }
        iter.leaf = Reader::new(node.bytes());
        while iter.read() {
            match C::compare(&iter.at, from) {
                Ordering::Less => {}
                Ordering::Equal if !included => {}
                Ordering::Equal | Ordering::Greater => {
                    iter.is_read = true;
                    break;
                }
            }
        }
        iter
    }
    /// Panics unless the tree is as it has to be.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let found = self.root.check(None, None, true);
        assert_eq!(found.entries, self.len, "entries are counted");
        if let Some(tail) = &self.tail {
            let (key, _) = C::entry(&tail.last);
            assert_eq!(self.iter().last(), self.last(), "the last entry is known");
            assert_eq!(self.iter().last().map(|(key, _)| key), Some(key));
        }
    }
}

/// See [`Map::stands`].
enum Stands<'a, C: Code> {
    Behind,
    Last(&'a C::At),
    Anywhere,
}

impl<C: Code> Default for Map<C> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            len: 0,
            tail: None,
            changing: Changing::nothing(),
            scratch: Vec::new(),
        }
    }
}
impl<C: Code> Clone for Map<C> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            len: self.len,
            tail: self.tail.clone(),
            changing: Changing {
                again: self.changing.again.clone(),
                once: [None, None],
            },
            scratch: Vec::new(),
        }
    }
}
impl<C: Code> PartialEq for Map<C> {
    fn eq(&self, other: &Self) -> bool {
        let apart = |map: &Self| map.changing.again.is_some();
        let same = self.root.is(&other.root) && !apart(self) && !apart(other);
        self.len == other.len && (same || self.iter().eq(other.iter()))
    }
}
impl<C: Code> fmt::Debug for Map<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// See [`Map::range`].
pub(crate) struct Iter<'a, C: Code> {
    /// Inner nodes above the leaf, and which of its children was gone into.
    path: Vec<(&'a Node<C>, usize)>,
    leaf: Reader<'a>,
    at: C::At,
    /// Whether `at` was read and not given yet.
    is_read: bool,
    end: Bound<C::Key>,
    changing: &'a Changing<C>,
}

impl<'a, C: Code> Iter<'a, C> {
    /// Goes to the first leaf below a node.
    fn descend(&mut self, mut node: &'a Node<C>) {
        while let Node::Inner(inner) = node {
            self.path.push((node, 0));
            node = inner.at(0);
        }
        self.at = C::At::default();
        self.leaf = Reader::new(node.bytes());
    }
    /// Reads the next entry; `false` at the end.
    fn read(&mut self) -> bool {
        while self.leaf.is_empty() {
            let Some((node, child)) = self.path.pop() else {
                return false;
            };
            if let Node::Inner(inner) = node
                && child + 1 < inner.len()
            {
                self.path.push((node, child + 1));
                self.descend(inner.at(child + 1));
            }
        }
        C::take(&mut self.at, &mut self.leaf);
        true
    }
}

impl<C: Code> Iterator for Iter<'_, C> {
    type Item = (C::Key, C::Value);
    fn next(&mut self) -> Option<Self::Item> {
        if !core::mem::take(&mut self.is_read) && !self.read() {
            return None;
        }
        let is_in = match &self.end {
            Bound::Unbounded => true,
            Bound::Included(key) => C::compare(&self.at, key) != Ordering::Greater,
            Bound::Excluded(key) => C::compare(&self.at, key) == Ordering::Less,
        };
        if is_in {
            let (key, value) = C::entry(&self.at);
            let newer = self.changing.apart(&key).cloned();
            return Some((key, newer.unwrap_or(value)));
        }
        // It stays at its end.
        (self.path, self.leaf) = (Vec::new(), Reader::new(&[]));
        None
    }
}

#[cfg(test)]
mod tests;
