//! How the entries of each large map are written.
use super::{Code, Reader, Spot, put_signed, put_unsigned};
use crate::ids::{
    ChunkId, Digest, FileId, RequestNumber, ServerIndex, SessionId, Version, WriteSeq,
};
use crate::limits::{NAME_BYTES_MAX, REPLICATION_MAX};
use crate::meta::key::{Key, Name};
use crate::meta::state::{ChunkState, Inode, Node};
use crate::time::UnixNanos;
use crate::wire::client_chunk::Durable;
use core::cmp::Ordering;

/// (Directory, name) to file: a name as what it does not share with the one before it.
pub(crate) enum Names {}

#[derive(Debug)]
pub(crate) struct NameAt {
    parent: u64,
    file: u64,
    len: usize,
    name: [u8; NAME_BYTES_MAX],
}

impl Clone for NameAt {
    fn clone(&self) -> Self {
        let mut at = Self::default();
        at.clone_from(self);
        at
    }
    /// Most names are short.
    fn clone_from(&mut self, from: &Self) {
        (self.parent, self.file, self.len) = (from.parent, from.file, from.len);
        self.name[..from.len].copy_from_slice(from.name());
    }
}

impl Default for NameAt {
    fn default() -> Self {
        Self {
            parent: 0,
            file: 0,
            len: 0,
            name: [0; NAME_BYTES_MAX],
        }
    }
}

impl NameAt {
    fn name(&self) -> &[u8] {
        &self.name[..self.len]
    }
    #[inline]
    fn read(&mut self, written: &Written<'_>) {
        self.len = written.shared + written.own.len();
        self.name[written.shared..self.len].copy_from_slice(written.own);
        (self.parent, self.file) = (written.directory, written.file);
    }
}

/// Looks for a key among the names of a leaf without putting them together: names are in order and each says how much
/// it shares with the one before it, so that alone tells of most of them that they are before the key.
struct Search<'a> {
    key: &'a [u8],
    parent: u64,
    /// Of the entry that was read last, which is before the key.
    directory: u64,
    file: u64,
    /// How much its name shares with the key; nothing, in a directory that is another.
    matched: usize,
}

/// An entry of a leaf as it is written.
struct Written<'a> {
    shared: usize,
    own: &'a [u8],
    directory: u64,
    file: u64,
}

impl<'a> Search<'a> {
    fn new(key: &'a Key) -> Self {
        Self {
            key: key.name.as_bytes(),
            parent: key.parent.0,
            directory: 0,
            file: 0,
            matched: 0,
        }
    }
    /// Reads the next entry, and says how its key stands to the one looked for.
    #[inline]
    fn next<'l>(&mut self, from: &mut Reader<'l>) -> (Ordering, Written<'l>) {
        let mut reader = *from;
        let (shared, same) = match reader.byte() {
            OTHER_DIRECTORY => (0, false),
            shared => (usize::from(shared), true),
        };
        let directory = if same {
            self.directory
        } else {
            reader.signed(self.directory)
        };
        let own = usize::from(reader.byte());
        let own = reader.bytes(own);
        let written = Written {
            shared,
            own,
            directory,
            file: reader.signed(self.file),
        };
        *from = reader;
        let matched = if same { self.matched } else { 0 };
        let order = match directory.cmp(&self.parent) {
            // It differs from the one before it behind all that this shares with the key.
            Ordering::Equal if shared > matched => Ordering::Less,
            // It differs from the one before it in what this shares with the key; and it is behind it.
            Ordering::Equal if shared < matched => Ordering::Greater,
            Ordering::Equal => {
                let key = &self.key[matched..];
                let both = own.iter().zip(key).take_while(|(one, other)| one == other);
                let more = both.count();
                let order = own.get(more).cmp(&key.get(more));
                if order == Ordering::Less {
                    self.matched = matched + more;
                }
                order
            }
            order => order,
        };
        if order == Ordering::Less {
            (self.directory, self.file) = (directory, written.file);
        }
        (order, written)
    }
}

/// Stands where the length of what is shared stands, which is less: a directory follows, and nothing is shared.
const OTHER_DIRECTORY: u8 = u8::MAX;

impl Code for Names {
    type Key = Key;
    type Value = FileId;
    type At = NameAt;
    const LEAF_BYTES: usize = 512;

    fn put(before: &NameAt, key: &Key, file: &FileId, to: &mut Vec<u8>) {
        let name = key.name.as_bytes();
        let shared = if key.parent.0 == before.parent {
            let pairs = name.iter().zip(before.name());
            // Two names of one directory differ, so less than a whole name is shared.
            let shared = pairs.take_while(|(one, other)| one == other).count();
            let shared = u8::try_from(shared).unwrap_or(0).min(OTHER_DIRECTORY - 1);
            to.push(shared);
            usize::from(shared)
        } else {
            to.push(OTHER_DIRECTORY);
            put_signed(key.parent.0, before.parent, to);
            0
        };
        let own = &name[shared..];
        to.push(u8::try_from(own.len()).expect("a name has at most 255 bytes"));
        to.extend_from_slice(own);
        put_signed(file.0, before.file, to);
    }
    #[inline]
    fn take(at: &mut NameAt, from: &mut Reader<'_>) {
        let shared = match from.byte() {
            OTHER_DIRECTORY => {
                at.parent = from.signed(at.parent);
                0
            }
            shared => usize::from(shared),
        };
        let own = usize::from(from.byte());
        at.len = shared + own;
        at.name[shared..at.len].copy_from_slice(from.bytes(own));
        at.file = from.signed(at.file);
    }
    #[inline]
    fn compare(at: &NameAt, key: &Key) -> Ordering {
        let directories = at.parent.cmp(&key.parent.0);
        directories.then_with(|| at.name().cmp(key.name.as_bytes()))
    }
    fn entry(at: &NameAt) -> (Key, FileId) {
        let key = Key {
            parent: FileId(at.parent),
            name: Name::raw(at.name()),
        };
        (key, FileId(at.file))
    }
    fn find(leaf: &[u8], key: &Key) -> Option<FileId> {
        let mut search = Search::new(key);
        let mut reader = Reader::new(leaf);
        while !reader.is_empty() {
            match search.next(&mut reader) {
                (Ordering::Less, _) => {}
                (Ordering::Equal, written) => return Some(FileId(written.file)),
                (Ordering::Greater, _) => return None,
            }
        }
        None
    }
    fn seek(leaf: &[u8], key: &Key) -> (Spot, NameAt) {
        let mut before = NameAt::default();
        let mut search = Search::new(key);
        let mut reader = Reader::new(leaf);
        loop {
            let from = leaf.len() - reader.left();
            if reader.is_empty() {
                return (Spot::gap(from), before);
            }
            match search.next(&mut reader) {
                (Ordering::Less, written) => before.read(&written),
                (Ordering::Equal, _) => {
                    return (Spot::entry(from, leaf.len() - reader.left()), before);
                }
                (Ordering::Greater, _) => return (Spot::gap(from), before),
            }
        }
    }
}

/// File to what it is.
pub(crate) enum Inodes {}

#[derive(Clone, Debug)]
pub(crate) struct InodeAt(FileId, Inode);

impl Default for InodeAt {
    fn default() -> Self {
        let node = Node::File {
            size: 0,
            replication: 0,
        };
        let zero = UnixNanos(0);
        let inode = Inode {
            node,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: zero,
            ctime: zero,
            crtime: zero,
        };
        Self(FileId(0), inode)
    }
}

/// As a directory is.
const NO_REPLICAS: Node = Node::File {
    size: 0,
    replication: 0,
};

const IS_DIRECTORY: u8 = 1;
/// Mode, owner and group are those of the entry before.
const SAME_OWNERSHIP: u8 = 1 << 1;
const SAME_REPLICATION: u8 = 1 << 2;
const NEVER_WRITTEN: u8 = 1 << 3;
const CHANGED_WHEN_WRITTEN: u8 = 1 << 4;

impl Code for Inodes {
    type Key = FileId;
    type Value = Inode;
    type At = InodeAt;
    const LEAF_BYTES: usize = 320;

    fn put(InodeAt(last, before): &InodeAt, file: &FileId, inode: &Inode, to: &mut Vec<u8>) {
        put_unsigned(file.0 - last.0, to);
        let mut flags = 0;
        let mut flag = |is: bool, flag: u8| {
            flags |= if is { flag } else { 0 };
            is
        };
        let ownership = |inode: &Inode| (inode.mode, inode.uid, inode.gid);
        let same_ownership = flag(ownership(inode) == ownership(before), SAME_OWNERSHIP);
        let same_replication = flag(
            inode.node.replication() == before.node.replication(),
            SAME_REPLICATION,
        );
        let never_written = flag(inode.mtime == inode.crtime, NEVER_WRITTEN);
        let changed_when_written = flag(inode.ctime == inode.mtime, CHANGED_WHEN_WRITTEN);
        flag(matches!(inode.node, Node::Directory { .. }), IS_DIRECTORY);
        to.push(flags);
        if !same_ownership {
            put_unsigned(inode.mode.into(), to);
            put_unsigned(inode.uid.into(), to);
            put_unsigned(inode.gid.into(), to);
        }
        put_signed(inode.crtime.0, before.crtime.0, to);
        if !never_written {
            put_signed(inode.mtime.0, inode.crtime.0, to);
        }
        if !changed_when_written {
            put_signed(inode.ctime.0, inode.mtime.0, to);
        }
        match inode.node {
            Node::File { size, replication } => {
                put_unsigned(size, to);
                if !same_replication {
                    to.push(replication);
                }
            }
            Node::Directory {
                parent,
                entries,
                subdirectories,
            } => {
                put_signed(parent.0, file.0, to);
                put_unsigned(entries, to);
                put_unsigned(subdirectories.into(), to);
            }
        }
    }
    // Here and below a copy is read from, which stays in registers.
    #[inline]
    fn take(InodeAt(file, inode): &mut InodeAt, from: &mut Reader<'_>) {
        let mut reader = *from;
        file.0 += reader.unsigned();
        let flags = reader.byte();
        let is = |flag: u8| flags & flag != 0;
        if !is(SAME_OWNERSHIP) {
            inode.mode = small(&mut reader);
            inode.uid = small(&mut reader);
            inode.gid = small(&mut reader);
        }
        inode.crtime.0 = reader.signed(inode.crtime.0);
        inode.mtime.0 = if is(NEVER_WRITTEN) {
            inode.crtime.0
        } else {
            reader.signed(inode.crtime.0)
        };
        inode.ctime.0 = if is(CHANGED_WHEN_WRITTEN) {
            inode.mtime.0
        } else {
            reader.signed(inode.mtime.0)
        };
        inode.node = if is(IS_DIRECTORY) {
            Node::Directory {
                parent: FileId(reader.signed(file.0)),
                entries: reader.unsigned(),
                subdirectories: small(&mut reader),
            }
        } else {
            let size = reader.unsigned();
            let replication = if is(SAME_REPLICATION) {
                inode.node.replication()
            } else {
                reader.byte()
            };
            Node::File { size, replication }
        };
        *from = reader;
    }
    #[inline]
    fn compare(at: &InodeAt, key: &FileId) -> Ordering {
        at.0.cmp(key)
    }
    fn entry(at: &InodeAt) -> (FileId, Inode) {
        (at.0, at.1)
    }
    #[inline]
    fn peek(at: &InodeAt, mut from: Reader<'_>, key: &FileId) -> Ordering {
        (at.0.0 + from.unsigned()).cmp(&key.0)
    }
    #[inline]
    fn pass(InodeAt(file, inode): &mut InodeAt, from: &mut Reader<'_>) {
        let mut reader = *from;
        file.0 += reader.unsigned();
        let flags = reader.byte();
        let is = |flag: u8| flags & flag != 0;
        if !is(SAME_OWNERSHIP) {
            inode.mode = small(&mut reader);
            inode.uid = small(&mut reader);
            inode.gid = small(&mut reader);
        }
        inode.crtime.0 = reader.signed(inode.crtime.0);
        if !is(NEVER_WRITTEN) {
            reader.skip();
        }
        if !is(CHANGED_WHEN_WRITTEN) {
            reader.skip();
        }
        // The size, or the parent.
        reader.skip();
        if is(IS_DIRECTORY) {
            reader.skip();
            reader.skip();
            inode.node = NO_REPLICAS;
        } else if !is(SAME_REPLICATION) {
            inode.node = Node::File {
                size: 0,
                replication: reader.byte(),
            };
        }
        *from = reader;
    }
}

#[inline]
fn small(from: &mut Reader<'_>) -> u32 {
    u32::try_from(from.unsigned()).expect("it was written from as much")
}

/// (File, index) to the chunk.
pub(crate) enum Chunks {}

const MEMBERS_MAX: usize = REPLICATION_MAX as usize;

#[derive(Clone, Default, Debug)]
pub(crate) struct ChunkAt {
    file: u64,
    index: u64,
    chunk: u64,
    version: u64,
    members: [u64; MEMBERS_MAX],
    count: usize,
    opened_by: u64,
    synced: Option<Durable>,
    sealed: Option<Digest>,
}

/// Stands where the number of members stands, which is less: they are those of the entry before.
const SAME_MEMBERS: u8 = IS_SEALED - 1;
/// Stands there too: the chunk is sealed.
const IS_SEALED: u8 = 0x80;
const _: () = assert!(MEMBERS_MAX < SAME_MEMBERS as usize);

impl Code for Chunks {
    type Key = (FileId, u64);
    type Value = ChunkState;
    type At = ChunkAt;
    const LEAF_BYTES: usize = 320;

    fn put(before: &ChunkAt, (file, index): &(FileId, u64), value: &ChunkState, to: &mut Vec<u8>) {
        put_unsigned(file.0 - before.file, to);
        put_unsigned(*index, to);
        put_signed(value.chunk.0, file.0, to);
        put_signed(value.version.0, value.chunk.0, to);
        let same = before.members[..before.count]
            .iter()
            .eq(value.members.iter().map(|m| &m.0));
        let sealed = value.sealed.map_or(0, |_| IS_SEALED);
        if same {
            to.push(SAME_MEMBERS | sealed);
        } else {
            let count = u8::try_from(value.members.len()).expect("replication has a bound");
            to.push(count | sealed);
            for member in value.members.iter() {
                put_unsigned(member.0, to);
            }
        }
        put_signed(value.opened_by.0, before.opened_by, to);
        match value.synced {
            None => put_unsigned(0, to),
            Some(Durable { len, wseq }) => {
                put_unsigned(len + 1, to);
                put_unsigned(wseq.0, to);
            }
        }
        if let Some(digest) = value.sealed {
            to.extend_from_slice(&digest.0.to_le_bytes());
        }
    }
    #[inline]
    fn take(at: &mut ChunkAt, from: &mut Reader<'_>) {
        let mut reader = *from;
        at.file += reader.unsigned();
        at.index = reader.unsigned();
        at.chunk = reader.signed(at.file);
        at.version = reader.signed(at.chunk);
        let flags = reader.byte();
        match flags & !IS_SEALED {
            SAME_MEMBERS => {}
            count => {
                at.count = usize::from(count);
                for member in &mut at.members[..usize::from(count)] {
                    *member = reader.unsigned();
                }
            }
        }
        at.opened_by = reader.signed(at.opened_by);
        at.synced = reader.unsigned().checked_sub(1).map(|len| Durable {
            len,
            wseq: WriteSeq(reader.unsigned()),
        });
        at.sealed = (flags & IS_SEALED != 0).then(|| Digest(reader.eight()));
        *from = reader;
    }
    #[inline]
    fn compare(at: &ChunkAt, (file, index): &(FileId, u64)) -> Ordering {
        (at.file, at.index).cmp(&(file.0, *index))
    }
    #[inline]
    fn peek(at: &ChunkAt, mut from: Reader<'_>, (file, index): &(FileId, u64)) -> Ordering {
        (at.file + from.unsigned(), from.unsigned()).cmp(&(file.0, *index))
    }
    fn entry(at: &ChunkAt) -> ((FileId, u64), ChunkState) {
        let members = at.members[..at.count].iter().copied().map(ServerIndex);
        let state = ChunkState {
            chunk: ChunkId(at.chunk),
            version: Version(at.version),
            members: members.collect(),
            opened_by: RequestNumber(at.opened_by),
            synced: at.synced,
            sealed: at.sealed,
        };
        ((FileId(at.file), at.index), state)
    }
}

/// Chunk to (file, index).
pub(crate) enum Owners {}

#[derive(Clone, Default, Debug)]
pub(crate) struct OwnerAt {
    chunk: u64,
    file: u64,
    index: u64,
}

impl Code for Owners {
    type Key = ChunkId;
    type Value = (FileId, u64);
    type At = OwnerAt;
    const LEAF_BYTES: usize = 96;

    fn put(before: &OwnerAt, chunk: &ChunkId, (file, index): &(FileId, u64), to: &mut Vec<u8>) {
        put_unsigned(chunk.0 - before.chunk, to);
        put_signed(file.0, chunk.0, to);
        put_unsigned(*index, to);
    }
    #[inline]
    fn take(at: &mut OwnerAt, from: &mut Reader<'_>) {
        at.chunk += from.unsigned();
        at.file = from.signed(at.chunk);
        at.index = from.unsigned();
    }
    #[inline]
    fn compare(at: &OwnerAt, key: &ChunkId) -> Ordering {
        at.chunk.cmp(&key.0)
    }
    #[inline]
    fn peek(at: &OwnerAt, mut from: Reader<'_>, key: &ChunkId) -> Ordering {
        (at.chunk + from.unsigned()).cmp(&key.0)
    }
    fn entry(at: &OwnerAt) -> (ChunkId, (FileId, u64)) {
        (ChunkId(at.chunk), (FileId(at.file), at.index))
    }
}

/// Chunks, and nothing of them.
pub(crate) enum ChunkSet {}

impl Code for ChunkSet {
    type Key = ChunkId;
    type Value = ();
    type At = ChunkId;
    const LEAF_BYTES: usize = 64;

    fn put(before: &ChunkId, chunk: &ChunkId, (): &(), to: &mut Vec<u8>) {
        put_unsigned(chunk.0 - before.0, to);
    }
    #[inline]
    fn take(at: &mut ChunkId, from: &mut Reader<'_>) {
        at.0 += from.unsigned();
    }
    #[inline]
    fn compare(at: &ChunkId, key: &ChunkId) -> Ordering {
        at.cmp(key)
    }
    #[inline]
    fn peek(at: &ChunkId, mut from: Reader<'_>, key: &ChunkId) -> Ordering {
        (at.0 + from.unsigned()).cmp(&key.0)
    }
    fn entry(at: &ChunkId) -> (ChunkId, ()) {
        (*at, ())
    }
}

/// File to the session that may write it.
pub(crate) enum Writers {}

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct WriterAt {
    file: u64,
    session: u64,
}

impl Code for Writers {
    type Key = FileId;
    type Value = SessionId;
    type At = WriterAt;
    const LEAF_BYTES: usize = 96;

    fn put(before: &WriterAt, file: &FileId, session: &SessionId, to: &mut Vec<u8>) {
        put_unsigned(file.0 - before.file, to);
        put_signed(session.0, before.session, to);
    }
    #[inline]
    fn take(at: &mut WriterAt, from: &mut Reader<'_>) {
        at.file += from.unsigned();
        at.session = from.signed(at.session);
    }
    #[inline]
    fn compare(at: &WriterAt, key: &FileId) -> Ordering {
        at.file.cmp(&key.0)
    }
    #[inline]
    fn peek(at: &WriterAt, mut from: Reader<'_>, key: &FileId) -> Ordering {
        (at.file + from.unsigned()).cmp(&key.0)
    }
    fn entry(at: &WriterAt) -> (FileId, SessionId) {
        (FileId(at.file), SessionId(at.session))
    }
}

/// Sessions, each with a file that it may write.
pub(crate) enum Writing {}

impl Code for Writing {
    type Key = (SessionId, FileId);
    type Value = ();
    type At = WriterAt;
    const LEAF_BYTES: usize = 96;

    fn put(before: &WriterAt, (session, file): &(SessionId, FileId), (): &(), to: &mut Vec<u8>) {
        put_unsigned(session.0 - before.session, to);
        put_signed(file.0, before.file, to);
    }
    #[inline]
    fn take(at: &mut WriterAt, from: &mut Reader<'_>) {
        at.session += from.unsigned();
        at.file = from.signed(at.file);
    }
    #[inline]
    fn compare(at: &WriterAt, (session, file): &(SessionId, FileId)) -> Ordering {
        (at.session, at.file).cmp(&(session.0, file.0))
    }
    fn entry(at: &WriterAt) -> ((SessionId, FileId), ()) {
        ((SessionId(at.session), FileId(at.file)), ())
    }
}
