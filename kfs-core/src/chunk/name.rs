//! Names of chunk files: `<file>.<chunk>.<version>`, decimal, no leading zeros, each below 2^63.
//! Layout: `docs/formats/chunk.md`. Whatever else stands in `chunks/` is reported and never touched.
use crate::ids::{ChunkId, FileId, ID_LIMIT, Version};
use crate::machine::FileName;
use core::fmt;

/// The directory of replicas in use.
pub const CHUNKS: &str = "chunks";
/// The directory of replicas that wait to be unlinked.
pub const TRASH: &str = "trash";
/// Ends the name of a copy that is being made, in [`CHUNKS`].
const COPY_SUFFIX: &str = ".copy";
/// The longest decimal number below 2^63 has this many digits.
const DIGITS_MAX: usize = 19;

/// What a chunk file's name says. Ordered as an inventory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkName {
    /// The file that owns the chunk.
    pub file: FileId,
    /// The chunk.
    pub chunk: ChunkId,
    /// Its version.
    pub version: Version,
}

/// A replica as messages name it: one server holds at most one of each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ReplicaId {
    pub chunk: ChunkId,
    pub version: Version,
}

impl ChunkName {
    /// Reads a name of a file in `chunks/`; `None` if it is no name of ours.
    #[must_use]
    pub fn parse(base: &str) -> Option<Self> {
        let mut parts = base.split('.').map(number);
        let (file, chunk, version) = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(Self {
            file: FileId(file),
            chunk: ChunkId(chunk),
            version: Version(version),
        })
    }
    /// Reads a name of a file in `trash/`: a chunk's name and the number that made it unique there.
    #[must_use]
    pub fn parse_trash(base: &str) -> Option<(Self, u64)> {
        let (name, n) = base.rsplit_once('.')?;
        Some((Self::parse(name)?, number(n)?))
    }
    /// Reads a name of a copy that was being made.
    #[must_use]
    pub fn parse_copy(base: &str) -> Option<Self> {
        Self::parse(base.strip_suffix(COPY_SUFFIX)?)
    }
    /// Where a replica is made as a copy of another one, until it is whole and durable.
    #[must_use]
    pub fn copy_path(self) -> FileName {
        FileName::new(&format!("{CHUNKS}/{self}{COPY_SUFFIX}"))
    }
    /// Where a replica in use stands.
    #[must_use]
    pub fn path(self) -> FileName {
        FileName::new(&format!("{CHUNKS}/{self}"))
    }
    /// Where a replica stands that was moved to the trash as the `n`-th.
    #[must_use]
    pub fn trash_path(self, n: u64) -> FileName {
        FileName::new(&format!("{TRASH}/{self}.{n}"))
    }
    pub(super) const fn id(self) -> ReplicaId {
        ReplicaId {
            chunk: self.chunk,
            version: self.version,
        }
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.file, self.chunk, self.version)
    }
}

impl ReplicaId {
    pub(super) const fn of(self, file: FileId) -> ChunkName {
        ChunkName {
            file,
            chunk: self.chunk,
            version: self.version,
        }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} version {}", self.chunk, self.version)
    }
}

/// `(0|[1-9][0-9]{0,18})`, below 2^63.
fn number(text: &str) -> Option<u64> {
    let digits =
        (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|number| *number < ID_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_as_it_was_written() {
        for text in ["0.0.0", "2.5.1", "9223372036854775807.10.3"] {
            assert_eq!(ChunkName::parse(text).unwrap().to_string(), text);
        }
        let name = ChunkName::parse("2.5.1").unwrap();
        assert_eq!(name.path().as_str(), "chunks/2.5.1");
        assert_eq!(name.trash_path(7).as_str(), "trash/2.5.1.7");
        assert_eq!(ChunkName::parse_trash("2.5.1.7"), Some((name, 7)));
    }

    #[test]
    fn what_is_almost_a_name_is_none() {
        for text in [
            "",
            "2",
            "2.5",
            "2.5.1.0",
            "2.5.",
            ".5.1",
            "2..1",
            "02.5.1",
            "2.05.1",
            "2.5.01",
            "00.5.1",
            "+2.5.1",
            "-2.5.1",
            " 2.5.1",
            "2.5.1 ",
            "2.5.1\n",
            "2.5.a",
            "2.5.0x1",
            "9223372036854775808.5.1",
            "2.18446744073709551616.1",
            "2.5.99999999999999999999",
            "٢.5.1",
            "2.5.1.tmp",
            "2,5,1",
        ] {
            assert_eq!(ChunkName::parse(text), None, "{text:?}");
        }
        for text in ["2.5.1", "2.5.1.x", "2.5.1.01", "2.5.1.2.3", "x.2.5.1"] {
            assert_eq!(ChunkName::parse_trash(text), None, "{text:?}");
        }
    }
}
