//! Nodes: packed leaves, and inner nodes with the keys that part them.
use super::{Code, Reader};
use std::sync::Arc;

/// The most children of an inner node.
pub(super) const CHILDREN_MAX: usize = 48;
/// An inner node that got fewer is joined with another.
const CHILDREN_MIN: usize = CHILDREN_MAX / 4;

/// A node that was split off to the right, and a key that parts it from what is left of it.
pub(super) type Split<C> = Option<(<C as Code>::Key, Node<C>)>;

pub(super) enum Node<C: Code> {
    Leaf(Arc<[u8]>),
    Inner(Arc<Inner<C>>),
}

pub(super) struct Inner<C: Code> {
    /// The n-th is above all keys of the n-th child, and not above those of the next.
    keys: Vec<C::Key>,
    nodes: Vec<Node<C>>,
}

/// See [`Node::put_last`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Another,
    Again,
}

/// Where the last entry is: it can be changed, and others put behind it, without reading its leaf.
pub(super) struct Tail<C: Code> {
    /// The one before it in its leaf.
    before: C::At,
    pub(super) last: C::At,
    /// Where it begins in its leaf.
    from: usize,
}

impl<C: Code> Clone for Tail<C> {
    fn clone(&self) -> Self {
        Self {
            before: self.before.clone(),
            last: self.last.clone(),
            from: self.from,
        }
    }
}

impl<C: Code> Tail<C> {
    /// Of a map without entries.
    pub(super) fn of_none() -> Self {
        Self {
            before: C::At::default(),
            last: C::At::default(),
            from: 0,
        }
    }
    /// Puts the last entry of the last leaf, or one leaf further.
    fn put(
        &mut self,
        leaf: &mut Arc<[u8]>,
        key: &C::Key,
        value: &C::Value,
        new: &mut Vec<u8>,
    ) -> Split<C> {
        new.clear();
        new.extend_from_slice(&leaf[..self.from]);
        C::put(&self.before, key, value, new);
        self.last.clone_from(&self.before);
        if new.len() <= C::LEAF_BYTES || self.from == 0 {
            C::take(&mut self.last, &mut Reader::new(&new[self.from..]));
            replace(leaf, new);
            return None;
        }
        // What comes in order fills leaves.
        replace(leaf, &new[..self.from]);
        *self = Self::of_none();
        new.clear();
        C::put(&self.before, key, value, new);
        C::take(&mut self.last, &mut Reader::new(new));
        Some((key.clone(), Node::Leaf(new.as_slice().into())))
    }
}

/// Makes a leaf of other bytes, in its place if that can be.
fn replace(leaf: &mut Arc<[u8]>, new: &[u8]) {
    match Arc::get_mut(leaf) {
        Some(bytes) if bytes.len() == new.len() => bytes.copy_from_slice(new),
        _ => *leaf = new.into(),
    }
}

/// What came of a change.
pub(super) struct Changed<C: Code> {
    pub(super) old: Option<C::Value>,
    /// Whether there was one.
    pub(super) is: bool,
    /// Whether it was in the last leaf.
    pub(super) in_last_leaf: bool,
    pub(super) split: Split<C>,
}

/// Where a key stands in a leaf, or would.
pub(crate) struct Spot {
    /// The beginning of the first entry that is not before the key.
    from: usize,
    /// The end of that entry if it is the key's, else the beginning.
    to: usize,
    found: bool,
}

impl Spot {
    /// Between two entries.
    pub(super) const fn gap(at: usize) -> Self {
        Self {
            from: at,
            to: at,
            found: false,
        }
    }
    /// An entry.
    pub(super) const fn entry(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            found: true,
        }
    }
}

/// What was read when everything before this place was.
fn read_to<C: Code>(leaf: &[u8], end: usize) -> C::At {
    let mut at = C::At::default();
    let mut reader = Reader::new(&leaf[..end]);
    while !reader.is_empty() {
        C::take(&mut at, &mut reader);
    }
    at
}

/// Puts what stands at `rest` of a leaf behind another entry: only the first of them is written anew, since what
/// was read says nothing of what was before.
fn follow<C: Code>(leaf: &[u8], rest: usize, was_before: &C::At, before: &C::At, to: &mut Vec<u8>) {
    let mut reader = Reader::new(&leaf[rest..]);
    if reader.is_empty() {
        return;
    }
    let mut at = was_before.clone();
    C::take(&mut at, &mut reader);
    let (key, value) = C::entry(&at);
    C::put(before, &key, &value, to);
    to.extend_from_slice(reader.bytes(reader.left()));
}

/// Makes a leaf of these bytes, or two if they are too many for one.
fn leaf_or_two<C: Code>(bytes: &[u8]) -> (Node<C>, Split<C>) {
    if bytes.len() <= C::LEAF_BYTES {
        return (Node::Leaf(bytes.into()), None);
    }
    let mut at = C::At::default();
    let mut reader = Reader::new(bytes);
    C::take(&mut at, &mut reader);
    while bytes.len() - reader.left() < bytes.len() / 2 {
        let before = reader;
        let mut next = at.clone();
        C::take(&mut next, &mut reader);
        if reader.is_empty() {
            // The last one is most of it.
            reader = before;
            break;
        }
        at = next;
    }
    let cut = bytes.len() - reader.left();
    if cut == bytes.len() {
        return (Node::Leaf(bytes.into()), None);
    }
    split_at(bytes, cut, &at)
}

/// Cuts a leaf in two, where `before` was the last entry read.
fn split_at<C: Code>(bytes: &[u8], cut: usize, before: &C::At) -> (Node<C>, Split<C>) {
    let mut right = Vec::with_capacity(bytes.len() - cut + 32);
    follow::<C>(bytes, cut, before, &C::At::default(), &mut right);
    let mut first = C::At::default();
    C::take(&mut first, &mut Reader::new(&right));
    let (key, _) = C::entry(&first);
    let split = Some((key, Node::Leaf(right.into())));
    (Node::Leaf(bytes[..cut].into()), split)
}

impl<C: Code> Node<C> {
    /// The bytes of a leaf.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Leaf(bytes) => bytes,
            Self::Inner(_) => &[],
        }
    }
    /// Whether it is the same node.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(one), Self::Leaf(other)) => Arc::ptr_eq(one, other),
            (Self::Inner(one), Self::Inner(other)) => Arc::ptr_eq(one, other),
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => false,
        }
    }
    /// The leaf that a key is in, if it is anywhere.
    pub(super) fn leaf(&self, key: &C::Key) -> &[u8] {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(bytes) => return bytes,
                Self::Inner(inner) => node = inner.at(inner.child(key)),
            }
        }
    }
    /// Where the last entry is; `None` if there is none.
    pub(super) fn tail(&self) -> Option<Tail<C>> {
        let mut node = self;
        while let Self::Inner(inner) = node {
            node = inner.at(inner.len() - 1);
        }
        let bytes = node.bytes();
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return None;
        }
        let mut tail = Tail::of_none();
        loop {
            tail.from = bytes.len() - reader.left();
            C::take(&mut tail.last, &mut reader);
            if reader.is_empty() {
                return Some(tail);
            }
            tail.before.clone_from(&tail.last);
        }
    }

    /// Puts the last entry: another one behind all others, or something else into the one that is there.
    pub(super) fn put_last(
        &mut self,
        which: Last,
        tail: &mut Tail<C>,
        key: &C::Key,
        value: &C::Value,
        new: &mut Vec<u8>,
    ) -> Split<C> {
        match self {
            Self::Leaf(bytes) => {
                if which == Last::Another {
                    tail.from = bytes.len();
                    tail.before.clone_from(&tail.last);
                }
                tail.put(bytes, key, value, new)
            }
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let child = inner.nodes.len() - 1;
                let split = inner.nodes[child].put_last(which, tail, key, value, new)?;
                inner.add(child, split, Cut::End)
            }
        }
    }
    /// Puts in what comes of what is there, if something does. The leaf is made in `new`, whatever is in there.
    pub(super) fn change(
        &mut self,
        key: &C::Key,
        make: impl FnOnce(Option<&C::Value>) -> Option<C::Value>,
        new: &mut Vec<u8>,
    ) -> Changed<C> {
        let leaf = match self {
            Self::Leaf(bytes) => bytes,
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let child = inner.child(key);
                let mut changed = inner.nodes[child].change(key, make, new);
                changed.in_last_leaf &= child + 1 == inner.nodes.len();
                if let Some(split) = changed.split.take() {
                    changed.split = inner.add(child, split, Cut::Anywhere);
                }
                return changed;
            }
        };
        let (spot, before) = C::seek(leaf, key);
        let mut was = before.clone();
        let old = spot.found.then(|| {
            C::take(&mut was, &mut Reader::new(&leaf[spot.from..spot.to]));
            C::entry(&was).1
        });
        let mut changed = Changed {
            old,
            is: false,
            in_last_leaf: true,
            split: None,
        };
        let Some(value) = make(changed.old.as_ref()) else {
            return changed;
        };
        changed.is = true;
        // The entry, and the one behind it, which is written anew.
        new.clear();
        new.extend_from_slice(&leaf[..spot.from]);
        C::put(&before, key, &value, new);
        let mut now = before.clone();
        C::take(&mut now, &mut Reader::new(&new[spot.from..]));
        follow::<C>(leaf, spot.to, &was, &now, new);
        if new.len() <= C::LEAF_BYTES {
            replace(leaf, new);
            return changed;
        }
        let is_last = spot.to == leaf.len() && spot.from > 0;
        let (node, split) = if is_last {
            split_at(new, spot.from, &before)
        } else {
            leaf_or_two(new)
        };
        *self = node;
        changed.split = split;
        changed
    }
    /// Takes out an entry that is there.
    pub(super) fn remove(&mut self, key: &C::Key) {
        match self {
            Self::Leaf(bytes) => {
                let (spot, before) = C::seek(bytes, key);
                let was = read_to::<C>(bytes, spot.to);
                let mut new = Vec::with_capacity(bytes.len() + 64);
                new.extend_from_slice(&bytes[..spot.from]);
                follow::<C>(bytes, spot.to, &was, &before, &mut new);
                *bytes = new.into();
            }
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let child = inner.child(key);
                inner.nodes[child].remove(key);
                if inner.nodes[child].is_short() {
                    inner.join(child);
                }
            }
        }
    }
    /// Lets go of its last children, of so many of the lowest inner nodes at most; whether something is left. What
    /// somebody else has too costs nothing to let go of.
    pub(super) fn shed(&mut self, most: &mut usize) -> bool {
        let own = match self {
            Self::Leaf(_) => None,
            Self::Inner(inner) => Arc::get_mut(inner),
        };
        let Some(own) = own else {
            *self = Self::default();
            *most = most.saturating_sub(1);
            return false;
        };
        while *most > 0
            && let Some(last) = own.nodes.last_mut()
        {
            if matches!(last, Self::Leaf(_)) {
                own.nodes.clear();
                *most -= 1;
            } else if !last.shed(most) {
                own.nodes.pop();
            }
        }
        !own.nodes.is_empty()
    }
    /// Whether it should be joined with another.
    fn is_short(&self) -> bool {
        match self {
            Self::Leaf(bytes) => bytes.len() < C::LEAF_BYTES / 4,
            Self::Inner(inner) => inner.nodes.len() < CHILDREN_MIN,
        }
    }
    /// A root that was split gets one above it.
    pub(super) fn grow(&mut self, separator: C::Key, right: Self) {
        let left = core::mem::take(self);
        *self = Self::Inner(Arc::new(Inner {
            keys: vec![separator],
            nodes: vec![left, right],
        }));
    }
    /// A root with one child is that child.
    pub(super) fn shrink(&mut self) {
        while let Self::Inner(inner) = self
            && let [only] = inner.nodes.as_slice()
        {
            *self = only.clone();
        }
    }
}

impl<C: Code> Default for Node<C> {
    fn default() -> Self {
        Self::Leaf(Arc::default())
    }
}
impl<C: Code> Clone for Node<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(bytes) => Self::Leaf(Arc::clone(bytes)),
            Self::Inner(inner) => Self::Inner(Arc::clone(inner)),
        }
    }
}
impl<C: Code> Clone for Inner<C> {
    fn clone(&self) -> Self {
        // One more is about to come.
        let mut keys = Vec::with_capacity(self.keys.len() + 1);
        keys.extend_from_slice(&self.keys);
        let mut nodes = Vec::with_capacity(self.nodes.len() + 1);
        nodes.extend_from_slice(&self.nodes);
        Self { keys, nodes }
    }
}

/// Where a node is split that has too many children.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Anywhere,
    /// Entries come in order, and nothing comes before them.
    End,
}

impl<C: Code> Inner<C> {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
    pub(super) fn at(&self, child: usize) -> &Node<C> {
        &self.nodes[child]
    }
    /// The child that a key is in, if it is anywhere.
    pub(super) fn child(&self, key: &C::Key) -> usize {
        self.keys.partition_point(|separator| separator <= key)
    }
    /// Takes in what was split off from a child.
    fn add(&mut self, child: usize, (key, node): (C::Key, Node<C>), cut: Cut) -> Split<C> {
        self.keys.insert(child, key);
        self.nodes.insert(child + 1, node);
        if self.nodes.len() <= CHILDREN_MAX {
            return None;
        }
        let kept = match cut {
            Cut::Anywhere => self.nodes.len() / 2,
            Cut::End => self.nodes.len() - 1,
        };
        Some(self.split(kept))
    }
    fn split(&mut self, kept: usize) -> (C::Key, Node<C>) {
        let nodes = self.nodes.split_off(kept);
        let mut keys = self.keys.split_off(kept - 1);
        let separator = keys.remove(0);
        (separator, Node::Inner(Arc::new(Self { keys, nodes })))
    }
    /// Joins a child with one beside it; if that is too much for one node, both are made anew.
    fn join(&mut self, child: usize) {
        if self.nodes.len() < 2 {
            return;
        }
        let left = child.saturating_sub(1);
        let right = self.nodes.remove(left + 1);
        let separator = self.keys.remove(left);
        let split = match (&mut self.nodes[left], right) {
            (Node::Leaf(one), Node::Leaf(other)) => {
                let mut both = one.to_vec();
                let last = read_to::<C>(one, one.len());
                follow::<C>(&other, 0, &C::At::default(), &last, &mut both);
                let (node, split) = leaf_or_two(&both);
                self.nodes[left] = node;
                split
            }
            (Node::Inner(one), Node::Inner(other)) => {
                let one = Arc::make_mut(one);
                one.keys.push(separator);
                one.keys.extend_from_slice(&other.keys);
                one.nodes.extend_from_slice(&other.nodes);
                (one.nodes.len() > CHILDREN_MAX).then(|| one.split(one.nodes.len() / 2))
            }
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
                unreachable!("all leaves are equally far from the root")
            }
        };
        if let Some((separator, right)) = split {
            self.keys.insert(left, separator);
            self.nodes.insert(left + 1, right);
        }
    }
}

/// What a check went through.
#[cfg(test)]
pub(super) struct Checked {
    pub(super) entries: usize,
    depth: usize,
}

#[cfg(test)]
impl<C: Code> Node<C> {
    /// Panics unless what is below is as it has to be, and at or behind `from`, and before `to`.
    pub(super) fn check(
        &self,
        from: Option<&C::Key>,
        to: Option<&C::Key>,
        is_root: bool,
    ) -> Checked {
        match self {
            Self::Leaf(bytes) => {
                let mut at = C::At::default();
                let mut reader = Reader::new(bytes);
                let (mut entries, mut last) = (0, None);
                while !reader.is_empty() {
                    C::take(&mut at, &mut reader);
                    let (key, _) = C::entry(&at);
                    assert!(last.is_none_or(|last| last < key), "entries are in order");
                    assert!(
                        from.is_none_or(|from| *from <= key),
                        "{key:?} is in its leaf"
                    );
                    assert!(to.is_none_or(|to| key < *to), "{key:?} is in its leaf");
                    last = Some(key);
                    entries += 1;
                }
                assert!(is_root || entries > 0, "a leaf is not empty");
                assert!(
                    bytes.len() <= 2 * C::LEAF_BYTES.max(300) || entries == 1,
                    "a leaf is short"
                );
                Checked { entries, depth: 1 }
            }
            Self::Inner(inner) => {
                let (count, keys) = (inner.nodes.len(), &inner.keys);
                assert_eq!(keys.len() + 1, count, "a key between any two children");
                assert!((1..=CHILDREN_MAX).contains(&count), "{count} children");
                assert!(!is_root || count > 1, "a root has children");
                let mut sum = Checked {
                    entries: 0,
                    depth: 0,
                };
                for (nth, node) in inner.nodes.iter().enumerate() {
                    let from = nth
                        .checked_sub(1)
                        .map_or(from, |before| Some(&keys[before]));
                    let below = node.check(from, keys.get(nth).or(to), false);
                    assert!(
                        nth == 0 || below.depth == sum.depth,
                        "all leaves are equally deep"
                    );
                    sum.entries += below.entries;
                    sum.depth = below.depth;
                }
                sum.depth += 1;
                sum
            }
        }
    }
}

/// How full leaves are.
#[cfg(test)]
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LeafBytes {
    pub(super) leaves: usize,
    pub(super) sum: usize,
}

#[cfg(test)]
impl<C: Code> Node<C> {
    pub(super) fn leaf_bytes(&self) -> LeafBytes {
        match self {
            Self::Leaf(bytes) => LeafBytes {
                leaves: 1,
                sum: bytes.len(),
            },
            Self::Inner(inner) => inner.nodes.iter().fold(LeafBytes::default(), |all, node| {
                let of = node.leaf_bytes();
                LeafBytes {
                    leaves: all.leaves + of.leaves,
                    sum: all.sum + of.sum,
                }
            }),
        }
    }
}
