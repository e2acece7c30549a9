//! O4: replicas are equal at rest. Chunk files of all servers, read with nothing but the format's page.
//!
//! What is promised depends on how a chunk came to rest, and no more is asked:
//! - *Equal writes, equal replicas.* Of any two replicas of one (chunk, version) whose headers say the same
//!   wseq, committed length, sums, bitmap, piece table and bytes are equal. Always: pieces are applied in order.
//! - *A shorter one is the beginning of a longer one.* If one says a lower wseq (its chain broke, its server
//!   died before a sync reached it, or its chunk was never closed), it is not longer, and what it has of a
//!   block the other has too: what a sync covered is not written again. Always among writes of one tenure. Who was
//!   left out when a chunk was taken over may have more of the tenure before than was taken over, and who was raised
//!   less than who was not heard of: of two tenures both must have what the log says, if they are good by it.
//! - *Closed files are equal.* Once a close was acked, all members of a chunk that readers see say the same
//!   wseq: the close synced all of it, and nobody writes it any more. Somebody may have begun to take the chunk
//!   over, and it never came into the log: then some are raised, and committed length and sums must be the same
//!   ([`raised_only`]). Where a file was cut and its replicas are still to be, some have more than others, and only what
//!   the log has of the chunk must be the same. Of a file whose session ended without a
//!   close, or that is still open ([`Closed::Abandoned`]), syncs in the background may have come further on one
//!   member than on another; what size reports named is the same by the rule before.
//! - *Everybody is there.* If readers may see bytes of the chunk, every member that is listed has a file whose
//!   header is good and not shorter than that.
//! - A chunk that was never synced promises nothing but the first two: its file may be missing or headless.
//!
//! Generations may differ. `trash/` is not looked at, and neither are bytes past the committed end. A replica
//! that was hurt on purpose is left out by who calls.
use super::Violation;
use super::replicas::Slot;
use crate::disk::DiskModel;
use kfs_core::block::padded_sum;
use kfs_core::ids::{ChunkId, FileId, ServerIndex, Version};
use kfs_core::limits::Geometry;
use kfs_core::meta::state::State;
use std::collections::BTreeMap;

/// A server's disk.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// Its place in the roster; `None`: it never joined.
    pub server: Option<ServerIndex>,
    /// For people.
    pub name: &'a str,
    /// Its files.
    pub disk: &'a DiskModel,
}

/// How a file came to be closed for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// A close was acked to its client.
    Acked,
    /// A client holds it open, or its session ended, or nobody knows.
    Abandoned,
}

/// How much was compared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Compared {
    /// Replicas whose header is good.
    pub replicas: u64,
    /// Pairs of them of one (chunk, version) that had to be equal.
    pub equal: u64,
    /// Pairs of which one had to be the beginning of the other.
    pub beginnings: u64,
    /// Blocks compared.
    pub blocks: u64,
}

/// One replica.
struct Copy<'a> {
    shelf: Shelf<'a>,
    bytes: bytes::Bytes,
    slot: Slot,
}

/// The number of a session's first write of a chunk that it took over is a multiple of this.
const TENURE: u64 = 1 << 40;

type Name = (FileId, ChunkId, Version);

/// Compares all replicas of all chunks. `closed` says how a file was left; `hurt` which replicas, by the
/// server's name and path, were damaged on purpose and not repaired.
///
/// # Errors
/// The first two replicas that differ and may not, or one that is missing.
pub fn check(
    state: &State,
    shelves: &[Shelf<'_>],
    geometry: Geometry,
    closed: impl Fn(FileId) -> Closed,
    over: impl Fn(FileId) -> bool,
    hurt: impl Fn(&str, &str) -> bool,
) -> Result<Compared, Violation> {
    let block_bytes = geometry.block_bytes as usize;
    let mut chunks: BTreeMap<Name, Vec<Copy<'_>>> = BTreeMap::new();
    let mut compared = Compared::default();
    for shelf in shelves {
        for path in shelf.disk.paths().filter(|path| !hurt(shelf.name, path)) {
            let Some(name) = chunk_name(path) else {
                continue;
            };
            let bytes = shelf.disk.contents(path).unwrap_or_default();
            let ids = [name.0.0, name.1.0, name.2.0];
            // One that says another name is as bad as none.
            let Some(slot) = Slot::newest(&bytes).filter(|slot| slot.ids == ids) else {
                continue;
            };
            let bytes = slot.redone(bytes, geometry);
            compared.replicas += 1;
            if let Some(block) = slot.bad_block(&bytes, block_bytes) {
                let what = format!(
                    "{}, {path}: block {block} does not give its sum",
                    shelf.name
                );
                return Err(Violation::new("O4", "D2", what));
            }
            chunks.entry(name).or_default().push(Copy {
                shelf: *shelf,
                bytes,
                slot,
            });
        }
    }
    for (name, copies) in &chunks {
        for (nth, one) in copies.iter().enumerate() {
            for other in &copies[nth + 1..] {
                let (short, long) = if one.slot.wseq <= other.slot.wseq {
                    (one, other)
                } else {
                    (other, one)
                };
                let difference = if short.slot.wseq == long.slot.wseq {
                    compared.equal += 1;
                    unequal(short, long, block_bytes)
                } else {
                    compared.beginnings += 1;
                    None
                };
                compared.blocks += short.slot.blocks().count() as u64;
                let limit = if short.slot.wseq / TENURE == long.slot.wseq / TENURE {
                    None
                } else {
                    let log = state
                        .chunk(name.1)
                        .map(|owned| owned.log)
                        .unwrap_or_default();
                    let good = short.slot.has_all(log) && long.slot.has_all(log);
                    Some(if good { log.len } else { 0 })
                };
                let bytes = if over(name.0) {
                    Earlier::WrittenOver
                } else {
                    Earlier::Kept
                };
                let shorter = || not_its_beginning(short, long, block_bytes, (limit, bytes));
                if let Some(what) = difference.or_else(shorter) {
                    return Err(Violation::new(
                        "O4",
                        "D2",
                        format!("{} {what}", pair(*name, short, long)),
                    ));
                }
            }
        }
    }
    everybody_is_there(state, shelves, &chunks, block_bytes, closed, hurt)?;
    Ok(compared)
}

/// Every member of a chunk that has something to be read has a replica of it that has as much as the log.
///
/// # Errors
/// The first that has not.
pub fn members_are_there(
    state: &State,
    shelves: &[Shelf<'_>],
    hurt: impl Fn(&str) -> bool,
) -> Result<(), Violation> {
    for owned in state.chunks().filter(|owned| owned.log.len > 0) {
        let path = format!("chunks/{}.{}.{}", owned.named, owned.chunk, owned.version);
        for shelf in shelves {
            let member = shelf.server;
            if !member.is_some_and(|member| owned.members.contains(&member)) || hurt(shelf.name) {
                continue;
            }
            let bytes = shelf.disk.contents(&path).unwrap_or_default();
            let slot = Slot::newest(&bytes);
            if !slot.is_some_and(|slot| slot.has_all(owned.log)) {
                let what = format!(
                    "{}, {path}: no replica that has the {} bytes at write {} that are in the log",
                    shelf.name, owned.log.len, owned.log.wseq
                );
                return Err(Violation::new("O4", "D2", what));
            }
        }
    }
    Ok(())
}

/// Every chunk that has something to be read is sealed, and each of its members holds what the log says: no more, and no
/// less. That they hold the same then is what [`check`] sees.
///
/// # Errors
/// The first that is not, or that holds something else.
pub fn sealed_as_held(state: &State, shelves: &[Shelf<'_>]) -> Result<(), Violation> {
    let broken = |what| Err(Violation::new("O4", "L", what));
    for owned in state.chunks().filter(|owned| owned.log.len > 0) {
        let path = format!("chunks/{}.{}.{}", owned.named, owned.chunk, owned.version);
        if let Some(writer) = state.writer(owned.file) {
            return broken(format!("{path} is still written, by session {writer}"));
        }
        let mut held = Vec::new();
        for shelf in shelves {
            let member = shelf.server;
            if member.is_some_and(|member| owned.members.contains(&member)) {
                let bytes = shelf.disk.contents(&path).unwrap_or_default();
                let slot = Slot::newest(&bytes).map(|slot| (slot.len, slot.wseq));
                held.push((shelf.name, slot));
            }
        }
        let known = owned.synced.unwrap_or_default();
        let known = owned.sealed.map(|_| (known.len, known.wseq.0));
        if known.is_none() || held.iter().any(|(_, held)| *held != known) {
            return broken(format!(
                "{path} is at rest: its members hold (bytes, write) {held:?}, and the log says {known:?}"
            ));
        }
    }
    Ok(())
}

fn everybody_is_there(
    state: &State,
    shelves: &[Shelf<'_>],
    chunks: &BTreeMap<Name, Vec<Copy<'_>>>,
    block_bytes: usize,
    closed: impl Fn(FileId) -> Closed,
    hurt: impl Fn(&str, &str) -> bool,
) -> Result<(), Violation> {
    for owned in state.chunks().filter(|owned| owned.log.len > 0) {
        let name = (owned.named, owned.chunk, owned.version);
        let path = format!("chunks/{}.{}.{}", owned.named, owned.chunk, owned.version);
        let mut first: Option<&Copy<'_>> = None;
        for shelf in shelves {
            let member = shelf
                .server
                .is_some_and(|server| owned.members.contains(&server));
            if !member || hurt(shelf.name, &path) {
                continue;
            }
            let copies = chunks.get(&name);
            let copy =
                copies.and_then(|copies| copies.iter().find(|copy| copy.shelf.name == shelf.name));
            let Some(copy) = copy.filter(|copy| copy.slot.has_all(owned.log)) else {
                let found = copy.map_or("nothing readable".into(), |copy| {
                    format!(
                        "{} bytes committed at write {}",
                        copy.slot.len, copy.slot.wseq
                    )
                });
                let what = format!(
                    "{}, {path}: {found}; {} bytes at write {} are in the log",
                    shelf.name, owned.log.len, owned.log.wseq
                );
                return Err(Violation::new("O4", "D2", what));
            };
            let acked = state.writer(owned.file).is_none() && closed(owned.file) == Closed::Acked;
            let first = *first.get_or_insert(copy);
            let is_cut = state.cut(owned.chunk).is_some();
            if acked
                && !is_cut
                && first.slot.wseq != copy.slot.wseq
                && !raised_only(first, copy, block_bytes)
            {
                let (one, other) = (first.slot.wseq, copy.slot.wseq);
                let what = format!(
                    "{}: the file is closed, and one is at write {one}, the other at {other}",
                    pair(name, first, copy)
                );
                return Err(Violation::new("O4", "D2", what));
            }
        }
    }
    Ok(())
}

fn pair(name: Name, one: &Copy<'_>, other: &Copy<'_>) -> String {
    let (file, chunk, version) = name;
    let (one, other) = (one.shelf.name, other.shelf.name);
    format!("chunk {chunk} version {version} of file {file} on {one} and {other}")
}

/// Whether the later of two replicas is the other one raised to a tenure's first number, and nothing besides: all
/// that a takeover leaves behind that was broken off before the log had it.
fn raised_only(one: &Copy<'_>, other: &Copy<'_>, block_bytes: usize) -> bool {
    let later = one.slot.wseq.max(other.slot.wseq);
    later.is_multiple_of(TENURE) && holds_other(&one.slot, &other.slot, block_bytes).is_none()
}

fn unequal(one: &Copy<'_>, other: &Copy<'_>, block_bytes: usize) -> Option<String> {
    let (left, right) = (&one.slot, &other.slot);
    // A copy has no pieces: nobody asks for those of a chunk at rest.
    let copied = left.pieces.is_empty() || right.pieces.is_empty();
    let difference = if left.pieces != right.pieces && !copied {
        let (left, right) = (&left.pieces, &right.pieces);
        Some(format!("pieces {left:?} against {right:?}"))
    } else {
        holds_other(left, right, block_bytes)
    };
    difference.map(|what| format!("differ at write {}: {what}", left.wseq))
}

/// What one has committed and the other has not, whatever their writes are.
fn holds_other(left: &Slot, right: &Slot, block_bytes: usize) -> Option<String> {
    let block_bytes = u32::try_from(block_bytes).expect("a block is small");
    let zeros = padded_sum(&[], block_bytes);
    let differs =
        |what: &str, left: String, right: String| Some(format!("{what} {left} against {right}"));
    if left.len != right.len {
        return differs("committed", left.len.to_string(), right.len.to_string());
    }
    let sum = |slot: &Slot, block: usize| {
        let has = slot.bitmap[block / 8] >> (block % 8) & 1 == 1;
        // Zeros that were written are as good as a hole, which is what a copy has for them.
        has.then(|| slot.sums[block]).filter(|sum| *sum != zeros)
    };
    let block = (0..left.sums.len()).find(|block| sum(left, *block) != sum(right, *block))?;
    let text = |slot| sum(slot, block).map_or("a hole".into(), |sum| format!("0x{sum:08x}"));
    differs(
        &format!("the sum of block {block} is"),
        text(left),
        text(right),
    )
}

/// What becomes of bytes that a replica with fewer writes has, in one with more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Earlier {
    /// They are there.
    Kept,
    /// Some were written over: whether each is right is for the contents to say.
    WrittenOver,
}

/// Bytes are compared too: two blocks may have one sum. With a limit only those before it.
fn not_its_beginning(
    short: &Copy<'_>,
    long: &Copy<'_>,
    block_bytes: usize,
    (limit, bytes): (Option<u64>, Earlier),
) -> Option<String> {
    if short.slot.len > long.slot.len && limit.is_none() {
        let (less, more) = (short.slot.wseq, long.slot.wseq);
        return Some(format!(
            "are {} bytes at write {less}, and {} at write {more}",
            short.slot.len, long.slot.len
        ));
    }
    if bytes == Earlier::WrittenOver {
        return None;
    }
    short.slot.blocks().find_map(|block| {
        let (one, other) = (
            short.slot.block(&short.bytes, block, block_bytes),
            long.slot.block(&long.bytes, block, block_bytes),
        );
        let at = |held: &[u8], at: usize| held.get(at).copied().unwrap_or(0);
        let before = limit.map_or(usize::MAX, |limit| {
            let left = limit.saturating_sub((block * block_bytes) as u64);
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        let share = one.share.min(before);
        let differs = (0..share).find(|byte| at(one.held, *byte) != at(other.held, *byte))?;
        let (left, right) = (at(one.held, differs), at(other.held, differs));
        Some(format!(
            "differ in byte {differs} of block {block}: 0x{left:02x} at write {}, 0x{right:02x} at write {}",
            short.slot.wseq, long.slot.wseq
        ))
    })
}

/// The file, chunk and version that a path below `chunks/` names.
pub(super) fn chunk_name(path: &str) -> Option<Name> {
    let mut parts = path.strip_prefix("chunks/")?.split('.').map(|part| {
        let number: u64 = part.parse().ok()?;
        (number.to_string() == part).then_some(number)
    });
    let name = (parts.next()??, parts.next()??, parts.next()??);
    parts
        .next()
        .is_none()
        .then_some((FileId(name.0), ChunkId(name.1), Version(name.2)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::oracle::meta::tests::{
        CLUSTER, GEOMETRY, begun, chunk_id, created, file_id, opened, state, version, with_a_file,
    };
    use bytes::Bytes;
    use kfs_core::chunk::header::{FIRST_GENERATION, Header, PieceEntry, Slot as Place};
    use kfs_core::chunk::name::ChunkName;
    use kfs_core::ids::{Incarnation, PieceNumber, SessionId, WriteSeq};
    use kfs_core::machine::{DiskOp, FileName, SyncMode};

    pub(in crate::oracle) const NAME: fn() -> ChunkName = || ChunkName {
        file: file_id(2),
        chunk: chunk_id(3),
        version: version(4),
    };

    /// A chunk file with these bytes committed.
    pub(in crate::oracle) fn chunk_file(name: ChunkName, bytes: &[u8], wseq: u64) -> Vec<u8> {
        let block_bytes = GEOMETRY.block_bytes as usize;
        let sum = |block: &[u8]| {
            let mut padded = block.to_vec();
            padded.resize(block_bytes, 0);
            Some(adler2::adler32_slice(&padded))
        };
        let header = Header {
            name,
            len: bytes.len() as u64,
            sums: bytes.chunks(block_bytes).map(sum).collect(),
            generation: FIRST_GENERATION + wseq % 2,
            incarnation: Incarnation(77),
            cluster: CLUSTER,
            wseq: WriteSeq(wseq),
            pieces: vec![PieceEntry {
                session: SessionId(5),
                last: PieceNumber(wseq),
                append_offset: 0,
            }],
            redo: Vec::new(),
        };
        let mut file = vec![0; 16_384];
        let slot = header.encode();
        let at = Place::of(header.generation).offset();
        file[at..at + slot.len()].copy_from_slice(&slot);
        file.extend_from_slice(bytes);
        file
    }
    pub(in crate::oracle) fn disk(files: &[(String, Vec<u8>)]) -> DiskModel {
        let mut disk = DiskModel::new(1 << 24);
        for dir in ["chunks", "trash"] {
            let dir = FileName::new(dir);
            disk.apply(&DiskOp::MakeDir { dir }).unwrap();
        }
        for (path, bytes) in files {
            let file = FileName::new(path);
            disk.apply(&DiskOp::Create {
                file: file.clone(),
                zeroed: 0,
            })
            .unwrap();
            let op = DiskOp::Write {
                file,
                offset: 0,
                data: vec![Bytes::copy_from_slice(bytes)],
                sync: SyncMode::Now,
            };
            disk.apply(&op).unwrap();
        }
        disk
    }
    pub(in crate::oracle) fn path() -> String {
        NAME().path().as_str().to_owned()
    }
    pub(in crate::oracle) fn bytes(len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| u8::try_from(at % 251).unwrap() + 1)
            .collect()
    }
    fn judge(
        state: &State,
        files: [Option<Vec<u8>>; 2],
        closed: Closed,
    ) -> Result<Compared, Violation> {
        let disks = files.map(|file| {
            disk(
                &file
                    .map(|file| (path(), file))
                    .into_iter()
                    .collect::<Vec<_>>(),
            )
        });
        let shelf = |nth: usize, name| Shelf {
            server: Some(ServerIndex(nth as u64 + 1)),
            name,
            disk: &disks[nth],
        };
        check(
            state,
            &[shelf(0, "one"), shelf(1, "two")],
            GEOMETRY,
            |_| closed,
            |_| false,
            |_, _| false,
        )
    }
    fn file(bytes: &[u8], wseq: u64) -> Option<Vec<u8>> {
        Some(chunk_file(NAME(), bytes, wseq))
    }

    #[test]
    fn equal_replicas_are_equal_and_one_bit_is_seen() {
        let state = state(with_a_file());
        let same = || file(&bytes(100), 2);
        let compared = judge(&state, [same(), same()], Closed::Acked).unwrap();
        assert_eq!(
            (compared.replicas, compared.equal, compared.blocks),
            (2, 1, 2)
        );
        let mut other = bytes(100);
        other[77] ^= 1;
        let seen = judge(&state, [same(), file(&other, 2)], Closed::Acked).unwrap_err();
        assert!(seen.what.contains("the sum of block 1"), "{seen}");
        let mut rotten = same();
        rotten.as_mut().unwrap()[16_384 + 5] ^= 1;
        let seen = judge(&state, [same(), rotten], Closed::Acked).unwrap_err();
        assert!(
            seen.what.contains("block 0 does not give its sum"),
            "{seen}"
        );
    }

    #[test]
    fn two_blocks_with_one_sum_are_not_equal() {
        let state = state(with_a_file());
        let (mut one, mut other) = (bytes(100), bytes(100));
        one[10..13].copy_from_slice(&[1, 3, 2]);
        other[10..13].copy_from_slice(&[2, 1, 3]);
        let seen = judge(&state, [file(&one, 2), file(&other, 2)], Closed::Acked).unwrap_err();
        assert!(seen.what.contains("byte 10 of block 0"), "{seen}");
    }

    #[test]
    fn a_takeover_that_was_broken_off_leaves_the_same_bytes_or_is_seen() {
        let state = state(with_a_file());
        let closed = |raised, wseq| {
            let files = [file(&bytes(100), 2), file(&bytes(raised), wseq)];
            judge(&state, files, Closed::Acked).map(|_| ())
        };
        assert_eq!(closed(100, TENURE), Ok(()));
        assert!(closed(100, TENURE + 1).is_err(), "somebody wrote");
        assert!(closed(101, TENURE).is_err());
        assert!(closed(100, 3).is_err());
    }

    #[test]
    fn a_shorter_replica_is_the_beginning_of_the_longer_one_unless_the_file_was_closed() {
        let state = state(with_a_file());
        let longer = file(&bytes(150), 3);
        let shorter = file(&bytes(100), 2);
        let files = || [longer.clone(), shorter.clone()];
        assert_eq!(
            judge(&state, files(), Closed::Abandoned).map(|c| c.beginnings),
            Ok(1)
        );
        assert!(judge(&state, files(), Closed::Acked).is_err());
        let mut rewritten = bytes(150);
        rewritten[99] ^= 1;
        let files = [file(&rewritten, 3), shorter.clone()];
        assert!(judge(&state, files, Closed::Abandoned).is_err());
        let shrunk = [file(&bytes(120), 3), file(&bytes(130), 2)];
        assert!(judge(&state, shrunk, Closed::Abandoned).is_err());
    }

    #[test]
    fn a_member_without_what_readers_may_see_is_seen() {
        let state = state(with_a_file());
        let whole = || file(&bytes(100), 2);
        for lacking in [None, Some(vec![0; 16_384]), file(&bytes(99), 1)] {
            assert!(judge(&state, [whole(), lacking], Closed::Abandoned).is_err());
        }
    }

    #[test]
    fn a_chunk_that_was_never_synced_may_be_missing_or_headless() {
        let mut records = begun();
        records.extend([created("f", 2), opened(2, 3)]);
        let state = state(records);
        for left in [None, Some(vec![0; 100]), file(&[], 0)] {
            let files = [file(&bytes(10), 1), left];
            assert!(judge(&state, files, Closed::Abandoned).is_ok());
        }
    }
}
