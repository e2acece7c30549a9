//! What the log holds: one record per change, with everything in it that is not determined by the state
//! before it (ids, times, chosen servers). Layout in `docs/formats/oplog.md`.
//!
//! A record type that was released is never edited: a new version of it is added, with a new struct.
use super::key::{Key, Name};
use crate::block::crc;
use crate::ids::{
    Boot, ChunkId, ClusterId, Epoch, FileId, Incarnation, Instance, LogSeq, NodeId, RequestNumber,
    ServerIndex, SessionId, Version, WriteSeq,
};
use crate::limits::{Geometry, PATH_BYTES_MAX, SIZE_BASIS_MAX};
use crate::time::UnixNanos;
use crate::wire::chunk_meta::Content;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{Drain, Keep, Ownership, WriterStays};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a record before its body.
pub const FIXED_BYTES: usize = 40;
/// Bytes of the CRC-32 that ends a record.
pub const CRC_BYTES: usize = 4;
/// The most bytes of a record.
pub const RECORD_BYTES_MAX: usize = 64 << 10;

/// Bytes that one chunk of a size report takes at most: three varints.
const SIZED_BYTES_MAX: usize = 26;
const _: () = assert!(FIXED_BYTES + SIZE_BASIS_MAX * SIZED_BYTES_MAX + 64 <= RECORD_BYTES_MAX);
// Each component of a path takes a name's length, an id of at most 10 bytes, and had a slash.
const _: () = assert!(FIXED_BYTES + PATH_BYTES_MAX / 2 * 12 + 64 <= RECORD_BYTES_MAX);

/// Who asked for a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct By {
    /// Whose request; zero: nobody's.
    pub session: SessionId,
    /// Its number within the session; zero: none.
    pub request: RequestNumber,
    /// The lowest number the session has no answer to: results below it are forgotten.
    pub lowest: RequestNumber,
}

impl By {
    /// The meta server itself.
    pub const NOBODY: Self = Self {
        session: SessionId(0),
        request: RequestNumber(0),
        lowest: RequestNumber(0),
    };
}

/// A record with its place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Its place.
    pub seq: LogSeq,
    /// Who asked for it.
    pub by: By,
    /// The change.
    pub record: Record,
}

/// A meta server has started, or has moved past an epoch it heard of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochBegun {
    /// Above all earlier ones.
    pub epoch: Epoch,
    /// Of no earlier epoch.
    pub incarnation: Incarnation,
    /// Whose log this is.
    pub cluster: ClusterId,
    /// The sizes files are cut into: the same in all epochs of a log.
    pub geometry: Geometry,
}

/// A client's session begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionOpened {
    /// New.
    pub session: SessionId,
    /// Of the client.
    pub nonce: u64,
}

/// A session ends: by its own request, or because it was silent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionEnded {
    /// Which.
    pub session: SessionId,
    /// Of the change to directories that lose temporary files.
    pub time: UnixNanos,
}

/// Directories were made, each in the one before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoriesMade {
    /// Where the first is made.
    pub parent: FileId,
    /// Their names and ids, at least one.
    pub made: Vec<(Name, FileId)>,
    /// Of all of them.
    pub owner: Ownership,
    /// Of the change.
    pub time: UnixNanos,
}

/// A file was made; its session may write it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileCreated {
    /// Its place.
    pub key: Key,
    /// New.
    pub file: FileId,
    /// Its owner, group and mode.
    pub owner: Ownership,
    /// Replicas of each chunk, at least 1.
    pub replication: u8,
    /// What becomes of it if the session ends before it is renamed.
    pub keep: Keep,
    /// Of the change.
    pub time: UnixNanos,
}

/// A name was moved, replacing what had the new one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renamed {
    /// The name before.
    pub from: Key,
    /// The name after.
    pub to: Key,
    /// What becomes of a file that had that name.
    pub replaced: Fate,
    /// Of the change.
    pub time: UnixNanos,
}

/// What becomes of a file whose name is gone, and of the chunks behind the place where one was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// Nobody has it open: it goes with its name. Chunks go at once.
    Dropped,
    /// It stays, without a name, until a record reclaims it: somebody has it open, or may have, or it has more chunks
    /// than one record reclaims. Chunks stay, unseen, as they are more than that.
    Kept,
}

/// A file's name was removed, and with it the file, unless it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRemoved {
    /// Its place.
    pub key: Key,
    /// Of the file.
    pub fate: Fate,
    /// Of the change.
    pub time: UnixNanos,
}

/// An empty directory was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoryRemoved {
    /// Its place.
    pub key: Key,
    /// Of the change.
    pub time: UnixNanos,
}

/// A chunk was given to a file. Its members are ordered to make it only after this is durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkOpened {
    /// The file that owns it.
    pub file: FileId,
    /// Which of its chunks.
    pub index: u64,
    /// New.
    pub chunk: ChunkId,
    /// New.
    pub version: Version,
    /// Its chain, head first.
    pub members: Vec<ServerIndex>,
}

/// A chunk was given up before anybody was told of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkAbandoned {
    /// Which.
    pub chunk: ChunkId,
}

/// A file was written and synced so far.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SizeSet {
    /// Which.
    pub file: FileId,
    /// Never below the size before.
    pub size: u64,
    /// Chunks it rests on, by index, and how far each is synced.
    pub synced: Vec<(u64, Durable)>,
    /// Whether the session goes on writing.
    pub writer: WriterStays,
    /// Of the change.
    pub time: UnixNanos,
}

/// A chunkserver joined, or came back after a restart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerJoined {
    /// Its place in the roster: new, or the one it has.
    pub index: ServerIndex,
    /// Which.
    pub node: NodeId,
    /// Above the one before.
    pub boot: Boot,
    /// Of its process.
    pub instance: Instance,
    /// The rack it says it is in.
    pub rack: String,
}

/// A chunkserver has proved that this log lost its end: nothing changes until somebody accepts that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TailLost {
    /// Who has seen it.
    pub node: NodeId,
    /// Of the meta server that it has seen.
    pub epoch: Epoch,
    /// Of the meta server that it has seen.
    pub incarnation: Incarnation,
    /// How far the log of that one was durable; 0: it has a chunk of it.
    pub seq: LogSeq,
    /// How far this log goes in that epoch; 0: it does not have it.
    pub has: LogSeq,
}

/// An operator has accepted that the log lost its end: what was acknowledged in it is given up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RollbackAccepted {
    /// Of the change.
    pub time: UnixNanos,
}

/// Whose a chunk was, in a part of the log that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Adopted {
    /// The file that the names of its replicas say.
    pub named: FileId,
    /// The meta server that issued it, as its headers say.
    pub incarnation: Incarnation,
}

/// A chunk of a part of the log that is missing became a file of its own; or more of its replicas were found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrphanAdopted {
    /// Where the file stands.
    pub key: Key,
    /// New; or the file that the chunk became before.
    pub file: FileId,
    /// As the names of its replicas say.
    pub chunk: ChunkId,
    /// As the names of its replicas say.
    pub version: Version,
    /// Whose it was.
    pub of: Adopted,
    /// Who has it whole.
    pub members: Vec<ServerIndex>,
    /// What they have.
    pub synced: Durable,
    /// Replicas that are asked for.
    pub replication: u8,
    /// Of the change.
    pub time: UnixNanos,
}

/// A directory was removed with all that is in it: it stands nowhere any more, and is reclaimed bit by bit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TreeDetached {
    /// Its place.
    pub key: Key,
    /// Of the change.
    pub time: UnixNanos,
}

/// The first names of a directory that stands nowhere are gone. Of these, directories stand nowhere now, and files are
/// dropped but for those that are kept. A directory that has no names left is gone with the last of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TreeReclaimed {
    /// Which.
    pub dir: FileId,
    /// How many names.
    pub entries: u32,
    /// Files among them that stay, rising; see [`Fate::Kept`].
    pub kept: Vec<FileId>,
}

/// Files without names are gone; of one that has many chunks only a part of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FilesReclaimed {
    /// Which are gone.
    pub files: Vec<FileId>,
    /// Of which one the chunks below an index are gone.
    pub part: Option<(FileId, u64)>,
}

/// Who has a chunk that is at rest has changed: a copy was made, or one that was not needed goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MembersChanged {
    /// Which.
    pub chunk: ChunkId,
    /// The one it has.
    pub version: Version,
    /// From now on.
    pub members: Vec<ServerIndex>,
}

/// What a chunk at rest holds, as all of its replicas said: from now on whoever holds something else is damaged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// Which.
    pub chunk: ChunkId,
    /// The one it has.
    pub version: Version,
    /// What they hold.
    pub content: Content,
}

/// A session writes a file further that others have written and closed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileReopened {
    /// Which.
    pub file: FileId,
}

/// A chunk is about to be written further: what its replicas hold is not what the log says any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unsealed {
    /// Which.
    pub chunk: ChunkId,
    /// The one it has.
    pub version: Version,
}

/// Members of a chunk are about to be raised to a write, of which nothing is known until all have been.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TakeoverBegun {
    /// Which.
    pub chunk: ChunkId,
    /// The one it has.
    pub version: Version,
    /// Above all that was ever given out of it.
    pub to: WriteSeq,
}

/// All members of a chunk that another session has written are at a write past all that was given out before: who is
/// not is no replica of it any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkTaken {
    /// Which.
    pub chunk: ChunkId,
    /// The one it has.
    pub version: Version,
    /// From now on, head first.
    pub members: Vec<ServerIndex>,
    /// How far they have it: where it ends, and the write that they were raised to.
    pub synced: Durable,
}

/// A chunkserver is to give away what it has, or is not any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerDrains {
    /// Which.
    pub index: ServerIndex,
    /// Which of the two.
    pub drain: Drain,
}

/// A file asks for another number of replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicationSet {
    /// Which.
    pub file: FileId,
    /// Replicas of each chunk, at least 1.
    pub replication: u8,
    /// Of the change.
    pub time: UnixNanos,
}

/// A file has another size. What it had behind the smaller one of the two is gone: whole chunks, and the rest of the
/// chunk in which that one falls, which its replicas still have; none of it is ever read again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Truncated {
    /// Which.
    pub file: FileId,
    /// From now on.
    pub size: u64,
    /// Of the chunks behind it.
    pub behind: Fate,
    /// Of the change.
    pub time: UnixNanos,
}

/// Attributes of a file or directory were changed; those that are `None` stay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttributesSet {
    /// Which.
    pub file: FileId,
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// When its content was changed last.
    pub mtime: Option<UnixNanos>,
    /// Of the change.
    pub time: UnixNanos,
}

/// Chunks behind the place where a file was cut are gone: those below an index, or all of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BehindReclaimed {
    /// Which file.
    pub file: FileId,
    /// The index; `None`: there are no more, and the file may grow again.
    pub below: Option<u64>,
}

/// Why the bytes of a record cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a record, or damaged.
    #[error("{0}")]
    Damaged(&'static str),
    /// Of a type or version this build does not have.
    #[error("a record of type {code} version {version}, which this build does not know")]
    Unknown {
        /// The type.
        code: u16,
        /// The version of the type.
        version: u16,
    },
}

macro_rules! records {
    ($($code:literal $version:literal $name:ident),+ $(,)?) => {
        /// The changes there are; type and version in the log are fixed for ever.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Record {$(
            #[doc = concat!("Type ", stringify!($code), " version ", stringify!($version), ".")]
            $name($name),
        )+}

        impl Record {
            /// Type, version and name of all records.
            pub const TYPES: &'static [(u16, u16, &'static str)] = &[$(($code, $version, stringify!($name))),+];

            /// Type and version in the log.
            #[must_use]
            pub const fn code(&self) -> (u16, u16) {
                match self {$(Self::$name(_) => ($code, $version),)+}
            }
            /// Its name, for people.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {$(Self::$name(_) => stringify!($name),)+}
            }
            fn encode(&self, to: Vec<u8>) -> Vec<u8> {
                match self {$(Self::$name(body) => postcard::to_extend(body, to),)+}
                    .expect("records hold nothing that postcard cannot encode")
            }
            fn decode(code: u16, version: u16, body: &[u8]) -> Result<Self, RecordError> {
                match (code, version) {
                    $(($code, $version) => decode_all(body).map(Self::$name),)+
                    _ => Err(RecordError::Unknown { code, version }),
                }
            }
        }
        $(impl From<$name> for Record {
            fn from(body: $name) -> Self {
                Self::$name(body)
            }
        })+
    };
}

records! {
    1 1 EpochBegun,
    2 1 SessionOpened,
    3 1 SessionEnded,
    4 1 DirectoriesMade,
    5 1 FileCreated,
    6 1 Renamed,
    7 1 FileRemoved,
    8 1 DirectoryRemoved,
    9 1 ChunkOpened,
    10 1 ChunkAbandoned,
    11 1 SizeSet,
    12 1 ServerJoined,
    13 1 TailLost,
    14 1 RollbackAccepted,
    15 1 OrphanAdopted,
    16 1 TreeDetached,
    17 1 TreeReclaimed,
    18 1 FilesReclaimed,
    19 1 MembersChanged,
    20 1 Sealed,
    21 1 FileReopened,
    22 1 Unsealed,
    23 1 ChunkTaken,
    24 1 TakeoverBegun,
    25 1 ServerDrains,
    26 1 ReplicationSet,
    27 1 Truncated,
    28 1 BehindReclaimed,
    29 1 AttributesSet,
}

impl Logged {
    /// Appends the record's bytes.
    #[must_use]
    pub fn encode(&self, mut to: Vec<u8>) -> Vec<u8> {
        let start = to.len();
        let (code, version) = self.record.code();
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&code.to_le_bytes());
        to.extend_from_slice(&version.to_le_bytes());
        to.extend_from_slice(&self.seq.0.to_le_bytes());
        to.extend_from_slice(&self.by.session.0.to_le_bytes());
        to.extend_from_slice(&self.by.request.0.to_le_bytes());
        to.extend_from_slice(&self.by.lowest.0.to_le_bytes());
        assert_eq!(
            to.len() - start,
            FIXED_BYTES,
            "the page in docs/formats says so"
        );
        let mut to = self.record.encode(to);
        let len = to.len() - start + CRC_BYTES;
        assert!(
            len <= RECORD_BYTES_MAX,
            "what a record is decided from is bounded"
        );
        let len = u32::try_from(len).expect("just bounded");
        to[start..start + 4].copy_from_slice(&len.to_le_bytes());
        let sum = crc(&to[start..]);
        to.extend_from_slice(&sum.to_le_bytes());
        to
    }

    /// Reads one record from the front of `bytes`; also gives how many bytes it took.
    ///
    /// # Errors
    /// If they do not begin with a whole, undamaged record that this build knows.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), RecordError> {
        const CUT: RecordError = RecordError::Damaged("a record that is cut short");
        let fixed: &[u8; FIXED_BYTES] = bytes.first_chunk().ok_or(CUT)?;
        let u16_at =
            |at: usize| u16::from_le_bytes(fixed[at..at + 2].try_into().expect("two bytes"));
        let u64_at =
            |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let len = u32::from_le_bytes(fixed[..4].try_into().expect("four bytes")) as usize;
        if !(FIXED_BYTES + CRC_BYTES..=RECORD_BYTES_MAX).contains(&len) {
            return Err(RecordError::Damaged("a record with an impossible length"));
        }
        let whole = bytes.get(..len).ok_or(CUT)?;
        let (summed, sum) = whole.split_at(len - CRC_BYTES);
        if sum != crc(summed).to_le_bytes() {
            return Err(RecordError::Damaged("a record that does not match its CRC"));
        }
        let record = Record::decode(u16_at(4), u16_at(6), &summed[FIXED_BYTES..])?;
        let by = By {
            session: SessionId(u64_at(16)),
            request: RequestNumber(u64_at(24)),
            lowest: RequestNumber(u64_at(32)),
        };
        Ok((
            Self {
                seq: LogSeq(u64_at(8)),
                by,
                record,
            },
            len,
        ))
    }
}

fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, [])) => Ok(body),
        _ => Err(RecordError::Damaged(
            "a record whose body is not of its type",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriteSeq;

    fn logged(record: impl Into<Record>) -> Logged {
        let by = By {
            session: SessionId(7),
            request: RequestNumber(8),
            lowest: RequestNumber(6),
        };
        Logged {
            seq: LogSeq(5),
            by,
            record: record.into(),
        }
    }

    #[test]
    fn a_record_cut_or_flipped_anywhere_is_seen() {
        let record = logged(FileRemoved {
            key: Key {
                parent: FileId(2),
                name: Name::new(b"gone").unwrap(),
            },
            fate: Fate::Kept,
            time: UnixNanos(9),
        });
        let bytes = record.encode(Vec::new());
        assert_eq!(Logged::decode(&bytes), Ok((record, bytes.len())));
        for len in 0..bytes.len() {
            assert!(Logged::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Logged::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_largest_size_report_fits_a_record() {
        let chunk_bytes_max = 1_024 * u64::from(u32::MAX);
        let all = Durable {
            len: chunk_bytes_max,
            wseq: WriteSeq(u64::MAX),
        };
        let synced = vec![(u64::MAX >> 1, all); SIZE_BASIS_MAX];
        let size = SizeSet {
            file: FileId(u64::MAX),
            size: u64::MAX,
            synced,
            writer: WriterStays::Closed,
            time: UnixNanos(u64::MAX),
        };
        let record = logged(size);
        let bytes = record.encode(Vec::new());
        assert!(bytes.len() > RECORD_BYTES_MAX / 2);
        assert_eq!(Logged::decode(&bytes).unwrap().0, record);
    }

    #[test]
    fn the_longest_path_of_directories_fits_a_record() {
        let made = vec![(Name::new(b"d").unwrap(), FileId(u64::MAX)); PATH_BYTES_MAX / 2];
        let owner = Ownership {
            uid: u32::MAX,
            gid: u32::MAX,
            mode: u32::MAX,
        };
        let record = logged(DirectoriesMade {
            parent: FileId(2),
            made,
            owner,
            time: UnixNanos(u64::MAX),
        });
        let bytes = record.encode(Vec::new());
        assert_eq!(Logged::decode(&bytes).unwrap().0, record);
    }

    #[test]
    fn no_two_records_share_a_number() {
        let mut codes: Vec<_> = Record::TYPES
            .iter()
            .map(|(code, version, _)| (*code, *version))
            .collect();
        codes.dedup();
        assert_eq!(codes.len(), Record::TYPES.len());
        assert!(matches!(
            Record::decode(99, 1, &[]),
            Err(RecordError::Unknown {
                code: 99,
                version: 1
            })
        ));
    }
}
