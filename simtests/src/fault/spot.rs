//! Places on a disk that a plan can name before anybody knows which files there will be.
use crate::disk::DiskModel;
use crate::disk::faults::{Block, DiskFault};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A block that is in use (not all zeros) when a fault strikes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Spot {
    /// Of the files whose path begins so.
    pub under: String,
    /// Which one of their blocks that are in use.
    pub which: Which,
    /// Bytes of a block.
    pub bytes: u64,
}

/// Counted over all files, in the order of their paths.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Which {
    /// From the first one on, which is 0; around, if there are fewer.
    FromFirst(u64),
    /// From the last one back, which is 0; around, if there are fewer.
    FromLast(u64),
}

impl Spot {
    /// The block that is meant, on this disk as it is now.
    #[must_use]
    pub fn find(&self, disk: &DiskModel) -> Option<Block> {
        let blocks = disk.blocks(self.bytes).into_iter();
        let in_use: Vec<Block> = blocks
            .filter(|block| block.file.starts_with(&self.under))
            .filter(|block| {
                disk.contents(&block.file)
                    .is_some_and(|bytes| is_in_use(block, &bytes))
            })
            .collect();
        let count = in_use.len() as u64;
        let nth = match self.which {
            Which::FromFirst(nth) => nth.checked_rem(count)?,
            Which::FromLast(nth) => {
                let back = nth.checked_rem(count)?;
                count - 1 - back
            }
        };
        in_use.into_iter().nth(usize::try_from(nth).ok()?)
    }
}

fn is_in_use(block: &Block, bytes: &[u8]) -> bool {
    let from = usize::try_from(block.offset).unwrap_or(usize::MAX);
    let len = usize::try_from(block.len).unwrap_or(usize::MAX);
    let there = bytes.get(from..).unwrap_or_default();
    there.iter().take(len).any(|byte| *byte != 0)
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nth, from) = match self.which {
            Which::FromFirst(nth) => (nth, "first"),
            Which::FromLast(nth) => (nth, "last"),
        };
        let (bytes, under) = (self.bytes, &self.under);
        write!(
            f,
            "block {nth} of {bytes} bytes from the {from} in {under}*"
        )
    }
}

/// Whether what lies on a disk may be something else afterwards than what was written and synced there.
#[must_use]
pub fn hurts(fault: &DiskFault) -> bool {
    match fault {
        DiskFault::LoseWrite { .. }
        | DiskFault::MisdirectWrite { .. }
        | DiskFault::Rot { .. }
        | DiskFault::Zero { .. }
        | DiskFault::Stale { .. }
        | DiskFault::Empty
        | DiskFault::Restore { .. } => true,
        DiskFault::Fail { .. }
        | DiskFault::CorruptRead { .. }
        | DiskFault::ShortRead { .. }
        | DiskFault::ShortWrite { .. }
        | DiskFault::DropSync { .. }
        | DiskFault::ShuffleLists { .. }
        | DiskFault::Room { .. }
        | DiskFault::Slow { .. }
        | DiskFault::Stall
        | DiskFault::ReadOnly
        | DiskFault::Gone => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kfs_core::machine::{DiskOp, FileName, SyncMode};

    #[test]
    fn the_last_block_in_use_is_found_before_the_zeros_of_a_preallocated_file() {
        let mut disk = DiskModel::new(1 << 20);
        let dir = FileName::new("log");
        disk.apply(&DiskOp::MakeDir { dir }).unwrap();
        for (path, zeroed, data) in [
            ("log/a", 4_096, 700),
            ("log/b", 4_096, 300),
            ("other", 0, 99),
        ] {
            let file = FileName::new(path);
            disk.apply(&DiskOp::Create {
                file: file.clone(),
                zeroed,
            })
            .unwrap();
            let data = vec![Bytes::from(vec![1; data])];
            let sync = SyncMode::Later;
            disk.apply(&DiskOp::Write {
                file,
                offset: 0,
                data,
                sync,
            })
            .unwrap();
        }
        let find = |which| {
            let spot = Spot {
                under: "log/".into(),
                which,
                bytes: 512,
            };
            let block = spot.find(&disk).unwrap();
            (block.file, block.offset)
        };
        assert_eq!(find(Which::FromLast(0)), ("log/b".into(), 0));
        assert_eq!(find(Which::FromLast(1)), ("log/a".into(), 512));
        assert_eq!(find(Which::FromFirst(0)), ("log/a".into(), 0));
        assert_eq!(find(Which::FromFirst(3)), ("log/a".into(), 0), "around");
        let none = Spot {
            under: "chunks/".into(),
            which: Which::FromLast(0),
            bytes: 512,
        };
        assert_eq!(none.find(&disk), None);
    }
}
