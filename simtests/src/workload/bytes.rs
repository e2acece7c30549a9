//! Bytes that name their writer: every 16 bytes of a file say which client and which operation wrote them,
//! and where they belong.
use crate::keyed::mix;
use bytes::{BufMut as _, Bytes, BytesMut};
use std::fmt;

/// Bytes of one cell.
pub const CELL_BYTES: u64 = 16;
/// The first byte of every cell, so that no cell is zeros.
const MARK: u8 = 0xC5;

/// Who wrote something, in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Of the run, so that bytes of another one are told apart.
    pub salt: u64,
    /// Which client.
    pub client: u32,
    /// Which of its operations.
    pub operation: u32,
}

impl Stamp {
    /// `len` bytes for `offset` of a file.
    #[must_use]
    pub fn fill(&self, offset: u64, len: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(len + 32);
        let skip = usize::try_from(offset % CELL_BYTES).expect("below a cell");
        let mut cell = offset / CELL_BYTES;
        while bytes.len() < skip + len {
            bytes.put_slice(&self.cell(cell));
            cell += 1;
        }
        bytes.freeze().slice(skip..skip + len)
    }

    fn cell(&self, cell: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = MARK;
        bytes[1] = self.client.to_le_bytes()[0];
        bytes[2..4].copy_from_slice(&self.operation.to_le_bytes()[..2]);
        bytes[4..8].copy_from_slice(&cell.to_le_bytes()[..4]);
        bytes[8..].copy_from_slice(&self.check(cell).to_le_bytes());
        bytes
    }
    fn check(&self, cell: u64) -> u64 {
        mix(mix(self.salt ^ u64::from(self.client) << 32 ^ u64::from(self.operation)) ^ cell)
    }
}

/// What 16 bytes of a file are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Zeros: never written.
    Zeros,
    /// Written by this one for that offset.
    Written(Stamp, u64),
    /// No cell of this run, or a mixture.
    Other,
}

impl Cell {
    /// Reads the cell that holds `offset`, if `bytes` (which begin at `from` of the file) hold all of it.
    #[must_use]
    pub fn read(salt: u64, bytes: &[u8], from: u64, offset: u64) -> Option<Self> {
        let begin = offset - offset % CELL_BYTES;
        let at = usize::try_from(begin.checked_sub(from)?).ok()?;
        let cell: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        if cell == [0; 16] {
            return Some(Self::Zeros);
        }
        let stamp = Stamp {
            salt,
            client: u32::from(cell[1]),
            operation: u32::from_le_bytes([cell[2], cell[3], 0, 0]),
        };
        let index = u64::from(u32::from_le_bytes([cell[4], cell[5], cell[6], cell[7]]));
        Some(if cell == stamp.cell(index) {
            Self::Written(stamp, index * CELL_BYTES)
        } else {
            Self::Other
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => write!(f, "zeros"),
            Self::Written(stamp, offset) => write!(
                f,
                "client {}'s operation {} for offset {offset}",
                stamp.client, stamp.operation
            ),
            Self::Other => write!(f, "no writer's bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_write_says_who_wrote_it_and_where_it_belongs() {
        let stamp = Stamp {
            salt: 3,
            client: 2,
            operation: 700,
        };
        let all = stamp.fill(0, 1_000);
        assert_eq!(stamp.fill(37, 500), all.slice(37..537));
        assert_eq!(
            Cell::read(3, &all[37..], 37, 100),
            Some(Cell::Written(stamp, 96))
        );
        assert_eq!(Cell::read(4, &all, 0, 100), Some(Cell::Other));
        assert_eq!(Cell::read(3, &[0; 32], 0, 16), Some(Cell::Zeros));
        assert_eq!(Cell::read(3, &all[37..], 37, 40), None);
    }
}
