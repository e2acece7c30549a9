//! One damage of one block: where, what, when; and what the block is for.
use super::super::net::NodeId;
use crate::disk::DiskModel;
use crate::disk::faults::{Block, Damage};
use kfs_core::meta::oplog::{DIR, segment_first};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One damage of one block. As text, `SERVER:FILE:OFFSET+LENGTH:DAMAGE:HOW`, such as
/// `1:chunks/3.4.5:16384+256:corrupt:down`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// On whose disk; 0: the meta server's.
    pub server: NodeId,
    /// Which bytes.
    pub block: Block,
    /// What befalls them.
    pub damage: Damage,
    /// When.
    pub how: How,
}

/// When a block is damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum How {
    /// While its server runs; who does not notice is started again later.
    Running,
    /// While its server is down.
    Down,
}

impl How {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Running, Self::Down];

    const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Down => "down",
        }
    }
}

impl Damage {
    /// As it is printed and asked for.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Zero => "zero",
            Self::Stale => "stale",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            block,
            damage,
            how,
        } = self;
        let Block { file, offset, len } = block;
        let (damage, how) = (damage.name(), how.name());
        write!(f, "{server}:{file}:{offset}+{len}:{damage}:{how}")
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [server, file, span, damage, how] = parts[..] else {
            return Err("expected SERVER:FILE:OFFSET+LENGTH:DAMAGE:HOW".into());
        };
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|why| format!("'{text}': {why}"))
        };
        let (offset, len) = span.split_once('+').ok_or("expected OFFSET+LENGTH")?;
        let damage = Damage::ALL.into_iter().find(|one| one.name() == damage);
        let how = How::ALL.into_iter().find(|one| one.name() == how);
        Ok(Self {
            server: server.parse().map_err(|why| format!("'{server}': {why}"))?,
            block: Block {
                file: file.into(),
                offset: number(offset)?,
                len: number(len)?,
            },
            damage: damage.ok_or("a damage is corrupt, zero, stale or unreadable")?,
            how: how.ok_or("a server is running or down")?,
        })
    }
}

/// What a block is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The identity of the meta server.
    MetaIdentity,
    /// The header of a log segment.
    SegmentHeader,
    /// A batch of the log that others follow.
    Batch,
    /// The batch of the log that was acked last.
    LastBatch,
    /// A mark of the log.
    Mark,
    /// A page of the log that was never written.
    LogRoom,
    /// The segment that is made ready.
    NextSegment,
    /// The identity of a chunkserver.
    ChunkIdentity,
    /// The newest header of a replica, its sums apart.
    NewestHeader,
    /// The sums in it.
    NewestSums,
    /// The header before it, or the place for one.
    OtherHeader,
    /// Bytes of a replica.
    Data,
    /// Anything of a replica that was given up.
    Trash,
    /// Anything else.
    Other,
}

/// The sums of a header: `docs/formats/chunk.md`.
const SUMS: Range<u64> = 40..4_136;
const GENERATION_AT: usize = 4_416;
const SLOT_BYTES: u64 = 8_192;
const HEADER_BYTES: u64 = 2 * SLOT_BYTES;

impl Kind {
    /// For people and programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MetaIdentity => "meta: identity",
            Self::SegmentHeader => "log: segment header",
            Self::Batch => "log: batch",
            Self::LastBatch => "log: last batch",
            Self::Mark => "log: mark",
            Self::LogRoom => "log: room",
            Self::NextSegment => "log: next segment",
            Self::ChunkIdentity => "chunk: identity",
            Self::NewestHeader => "chunk: newest header",
            Self::NewestSums => "chunk: newest sums",
            Self::OtherHeader => "chunk: other header",
            Self::Data => "chunk: data",
            Self::Trash => "chunk: trash",
            Self::Other => "other",
        }
    }

    /// Of a block of this disk as it is.
    pub(super) fn of(server: NodeId, disk: &DiskModel, block: &Block) -> Self {
        let Block { file, offset, .. } = block;
        match (server, file.split_once('/')) {
            (0, None) if file == "identity" => Self::MetaIdentity,
            (0, Some((DIR, name))) => Self::of_log(disk, block, name),
            (1.., None) if file == "identity" => Self::ChunkIdentity,
            (1.., Some(("trash", _))) => Self::Trash,
            (1.., Some(("chunks", _))) if *offset >= HEADER_BYTES => Self::Data,
            (1.., Some(("chunks", _))) => Self::of_header(disk, block),
            _ => Self::Other,
        }
    }

    fn of_log(disk: &DiskModel, block: &Block, name: &str) -> Self {
        let Some(first) = segment_first(name) else {
            return Self::NextSegment;
        };
        if block.offset == 0 {
            return Self::SegmentHeader;
        }
        let page = |block: &Block| Page::of(&bytes(disk, block));
        match page(block) {
            Page::Empty => Self::LogRoom,
            Page::Mark => Self::Mark,
            Page::Records => {
                let later = |other: &Block| {
                    let of = other.file.strip_prefix("log/").and_then(segment_first);
                    of.is_some_and(|of| (of, other.offset) > (first, block.offset))
                };
                let blocks = disk.blocks(block.len);
                let mut after = blocks.iter().filter(|other| later(other));
                // The header of a later segment says where this one ends, as a batch after it would.
                if after.any(|other| other.offset == 0 || page(other) == Page::Records) {
                    Self::Batch
                } else {
                    Self::LastBatch
                }
            }
        }
    }

    fn of_header(disk: &DiskModel, block: &Block) -> Self {
        let file = disk.contents(&block.file).unwrap_or_default();
        let generation = |slot: u64| {
            let at = usize::try_from(slot * SLOT_BYTES).expect("a header is small") + GENERATION_AT;
            let bytes = file.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        let (slot, within) = (block.offset / SLOT_BYTES, block.offset % SLOT_BYTES);
        if generation(slot) < generation(1 - slot) {
            Self::OtherHeader
        } else if SUMS.contains(&within) {
            Self::NewestSums
        } else {
            Self::NewestHeader
        }
    }
}

/// What begins in a page of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    Empty,
    Mark,
    Records,
}

impl Page {
    fn of(bytes: &[u8]) -> Self {
        let is_zero = |range: Range<usize>| {
            let bytes = bytes.get(range).unwrap_or_default();
            bytes.iter().all(|byte| *byte == 0)
        };
        if is_zero(0..bytes.len()) {
            Self::Empty
        } else if is_zero(8..16) {
            // No bytes of records, and none of them.
            Self::Mark
        } else {
            Self::Records
        }
    }
}

/// The bytes of a block, as processes see them.
pub(super) fn bytes(disk: &DiskModel, block: &Block) -> bytes::Bytes {
    let file = disk.contents(&block.file).unwrap_or_default();
    let at = |offset: u64| usize::try_from(offset).map_or(file.len(), |at| at.min(file.len()));
    file.slice(at(block.offset)..at(block.offset + block.len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_reads_as_it_is_written_and_nothing_else_does() {
        for (damage, how) in Damage::ALL.into_iter().zip([How::ALL; 2].concat()) {
            let case = Case {
                server: 2,
                block: Block {
                    file: "chunks/3.4.5".into(),
                    offset: 16_384,
                    len: 256,
                },
                damage,
                how,
            };
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        for bad in [
            "",
            "1:f:0+1:zero",
            "1:f:0:zero:down",
            "1:f:0+1:burnt:down",
            "1:f:0+1:zero:asleep",
            "x:f:0+1:zero:down",
        ] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }
}
