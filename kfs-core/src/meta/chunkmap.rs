//! Which replicas are there: what chunkservers that are up have confirmed. Known only from them, so it is
//! empty after a start and fills as they say hello.
//!
//! Per chunk it keeps only how many copies are wanted and had, so that the state of the cluster costs nothing
//! to tell; which server has which is in [`super::roster`]. A chunk of which nothing was ever said to be synced
//! has nothing that could be read: without a copy it is an unfinished write, which its writer hears of; it has
//! fewer copies than wanted, and nothing is unavailable.
use super::packed::{Code, Map, Reader, put_unsigned};
use super::state::State;
use crate::ids::{ChunkId, FileId};
use crate::planted::{self, Bug};
use crate::wire::client_chunk::Durable;
use core::cmp::Ordering;
use std::collections::BTreeMap;

/// Chunks that are counted anew in one go, and files that wait for it.
const CAUGHT_UP: usize = 1_024;
const BEHIND_MAX: usize = 64;

/// What [`ChunkMap::look`] found.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Chunks that have more or fewer copies than wanted, and how many they have.
    pub(crate) uneven: Vec<(ChunkId, u8)>,
    /// Where to go on; `None`: there are no more.
    pub(crate) next: Option<ChunkId>,
}

/// Copies of all chunks that files own.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkMap {
    copies: Map<CopiesOfChunks>,
    /// Files that ask for another number of copies, and from which of their chunks on that is not known here.
    behind: BTreeMap<FileId, u64>,
    under_replicated: u64,
    surplus: u64,
    unavailable: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Copies {
    wanted: u8,
    had: u8,
    holds: Holds,
}

/// Whether there is anything that readers may see, in a chunk's copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holds {
    /// No size report has named a byte of it.
    Nothing,
    Bytes,
}

impl Holds {
    fn synced(synced: Option<Durable>) -> Self {
        if synced.unwrap_or_default().len > 0 {
            Self::Bytes
        } else {
            Self::Nothing
        }
    }
}

/// How they are kept.
enum CopiesOfChunks {}

#[derive(Clone, Debug)]
struct CopiesAt(ChunkId, Copies);

impl Default for CopiesAt {
    fn default() -> Self {
        let none = Copies {
            wanted: 0,
            had: 0,
            holds: Holds::Nothing,
        };
        Self(ChunkId(0), none)
    }
}

impl Code for CopiesOfChunks {
    type Key = ChunkId;
    type Value = Copies;
    type At = CopiesAt;
    const LEAF_BYTES: usize = 96;

    fn put(before: &CopiesAt, chunk: &ChunkId, copies: &Copies, to: &mut Vec<u8>) {
        put_unsigned(chunk.0 - before.0.0, to);
        let holds = u64::from(copies.holds == Holds::Bytes);
        put_unsigned(u64::from(copies.wanted) << 1 | holds, to);
        to.push(copies.had);
    }
    #[inline]
    fn take(at: &mut CopiesAt, from: &mut Reader<'_>) {
        at.0.0 += from.unsigned();
        let wanted = from.unsigned();
        at.1 = Copies {
            wanted: u8::try_from(wanted >> 1).expect("it was written from as much"),
            had: from.byte(),
            holds: if wanted & 1 == 1 {
                Holds::Bytes
            } else {
                Holds::Nothing
            },
        };
    }
    #[inline]
    fn compare(at: &CopiesAt, key: &ChunkId) -> Ordering {
        at.0.cmp(key)
    }
    fn entry(at: &CopiesAt) -> (ChunkId, Copies) {
        (at.0, at.1)
    }
}

impl ChunkMap {
    /// Of a state that was just loaded: nothing is confirmed.
    pub(crate) fn of(state: &State) -> Self {
        let mut map = Self::default();
        // Both are in the order of files.
        let mut inodes = state.inodes.iter();
        let mut wanted = (FileId(0), 0);
        for ((file, _), chunk) in state.chunks.iter() {
            while wanted.0 < file
                && let Some((next, inode)) = inodes.next()
            {
                wanted = (next, inode.node.replication());
            }
            map.add(chunk.chunk, wanted.1, Holds::synced(chunk.synced));
        }
        map
    }
    /// A file has a new chunk.
    pub(crate) fn opened(&mut self, chunk: ChunkId, wanted: u8) {
        self.add(chunk, wanted, Holds::Nothing);
    }
    fn add(&mut self, chunk: ChunkId, wanted: u8, holds: Holds) {
        let copies = Copies {
            wanted,
            had: 0,
            holds,
        };
        let before = self.copies.insert(chunk, copies);
        assert!(before.is_none(), "chunk ids are never reused");
        self.count(copies, 1);
    }
    /// A file asks for another number of copies. Of one that has many chunks that is known here bit by bit.
    pub(crate) fn rewanted(&mut self, state: &State, file: FileId) {
        if planted::is(Bug::ReplicationUncounted) {
            return;
        }
        self.behind.insert(file, 0);
        self.catch_up(state, Some(file));
    }
    /// Whether there are so many files of which that is not known that no more are taken.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.len() >= BEHIND_MAX
    }
    /// Whether there is one.
    pub(crate) fn catches_up(&self) -> bool {
        !self.behind.is_empty()
    }
    /// Goes on with the next chunks of such a file: of this one, or of any.
    pub(crate) fn catch_up(&mut self, state: &State, file: Option<FileId>) {
        let file = file.or_else(|| self.behind.first_key_value().map(|(file, _)| *file));
        let Some(from) = file.and_then(|file| Some((file, *self.behind.get(&file)?))) else {
            return;
        };
        let wanted = state.replication(from.0);
        let mut left = CAUGHT_UP;
        for ((_, index), chunk) in state.chunks.range(from..=(from.0, u64::MAX)) {
            if left == 0 {
                self.behind.insert(from.0, index);
                return;
            }
            left -= 1;
            self.change(chunk.chunk, |copies| copies.wanted = wanted);
        }
        self.behind.remove(&from.0);
    }
    /// A size report rests on it.
    pub(crate) fn synced(&mut self, chunk: ChunkId, synced: Option<Durable>) {
        self.change(chunk, |copies| copies.holds = Holds::synced(synced));
    }
    /// No file owns it any more.
    pub(crate) fn freed(&mut self, chunk: ChunkId) {
        let copies = self
            .copies
            .remove(&chunk)
            .expect("a chunk that is freed was opened");
        if planted::is(Bug::FreedStillCounted) {
            return;
        }
        self.count(copies, -1);
    }
    /// A server that is up has a copy.
    pub(crate) fn gained(&mut self, chunk: ChunkId) {
        self.change_had(chunk, 1);
    }
    /// A server that was up has it no more, or is not up any more.
    pub(crate) fn lost(&mut self, chunk: ChunkId) {
        self.change_had(chunk, -1);
    }
    /// Chunks with fewer copies than wanted.
    pub(crate) const fn under_replicated(&self) -> u64 {
        self.under_replicated
    }
    /// Chunks with more or fewer copies than wanted.
    pub(crate) const fn uneven(&self) -> u64 {
        self.under_replicated + self.surplus
    }
    /// Looks at so many chunks at most, from this one on, for some that have more or fewer copies than wanted.
    pub(crate) fn look(&self, from: ChunkId, looked_at: usize, most: usize) -> Look {
        let mut look = Look {
            uneven: Vec::new(),
            next: None,
        };
        for (at, (chunk, copies)) in self.copies.range(from..).enumerate() {
            if at == looked_at || look.uneven.len() == most {
                look.next = Some(chunk);
                break;
            }
            if copies.had != copies.wanted {
                look.uneven.push((chunk, copies.had));
            }
        }
        look
    }
    /// Chunks without any, of which something was synced.
    pub(crate) const fn unavailable(&self) -> u64 {
        self.unavailable
    }

    fn change_had(&mut self, chunk: ChunkId, by: i8) {
        self.change(chunk, |copies| {
            copies.had = copies
                .had
                .checked_add_signed(by)
                .expect("a copy is lost once for each time it was gained");
        });
    }
    fn change(&mut self, chunk: ChunkId, change: impl FnOnce(&mut Copies)) {
        let changed = self.copies.update(&chunk, |copies| {
            let before = *copies;
            change(copies);
            (before, *copies)
        });
        let (before, after) = changed.expect("copies are counted of chunks that files own");
        self.count(before, -1);
        self.count(after, 1);
    }
    fn count(&mut self, copies: Copies, by: i64) {
        let add = |count: u64, holds: bool| {
            if holds {
                count
                    .checked_add_signed(by)
                    .expect("counts do not fall below zero")
            } else {
                count
            }
        };
        self.under_replicated = add(self.under_replicated, copies.had < copies.wanted);
        self.surplus = add(self.surplus, copies.had > copies.wanted);
        let unavailable = copies.had == 0 && copies.holds == Holds::Bytes;
        self.unavailable = add(self.unavailable, unavailable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriteSeq;

    const fn durable(len: u64) -> Option<Durable> {
        let wseq = WriteSeq(len);
        Some(Durable { len, wseq })
    }

    #[test]
    fn counts_follow_every_gain_and_loss() {
        let mut map = ChunkMap::default();
        for (chunk, wanted) in [(1, 2), (2, 1)] {
            map.opened(ChunkId(chunk), wanted);
            assert_eq!(map.unavailable(), chunk - 1);
            map.synced(ChunkId(chunk), durable(1));
        }
        assert_eq!((map.under_replicated(), map.unavailable()), (2, 2));
        map.gained(ChunkId(1));
        map.gained(ChunkId(2));
        assert_eq!((map.under_replicated(), map.unavailable()), (1, 0));
        map.gained(ChunkId(1));
        map.lost(ChunkId(2));
        assert_eq!((map.under_replicated(), map.unavailable()), (1, 1));
        map.freed(ChunkId(2));
        assert_eq!((map.under_replicated(), map.unavailable()), (0, 0));
    }

    #[test]
    fn a_chunk_of_which_nothing_was_synced_lacks_copies_and_is_not_unavailable() {
        let mut map = ChunkMap::default();
        map.opened(ChunkId(1), 2);
        assert_eq!((map.under_replicated(), map.unavailable()), (1, 0));
        map.synced(ChunkId(1), durable(0));
        assert_eq!((map.under_replicated(), map.unavailable()), (1, 0));
        map.synced(ChunkId(1), durable(1));
        assert_eq!((map.under_replicated(), map.unavailable()), (1, 1));
        map.gained(ChunkId(1));
        assert_eq!((map.under_replicated(), map.unavailable()), (1, 0));
        map.freed(ChunkId(1));
        assert_eq!((map.under_replicated(), map.unavailable()), (0, 0));
    }
}
