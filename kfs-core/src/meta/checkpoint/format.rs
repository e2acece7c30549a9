//! The layout of a checkpoint: a header page, blocks of entries, and an end. In `docs/formats/checkpoint.md`;
//! every constant of it is here. Everything is a function of bytes.
use crate::block::{crc, fnv};
use crate::ids::{ClusterId, Epoch, LogSeq};
use crate::meta::oplog::Mismatch;
use crate::meta::page::{known_format, sealed, u32_at, u64_at, unsealed};

/// The directory of checkpoints below the data directory.
pub const DIR: &str = "checkpoint";
/// What the name of a checkpoint begins with; the last record in it follows, in decimal.
pub const PREFIX: &str = "checkpoint.";
/// What the name of one ends with while it is being made.
pub const UNFINISHED: &str = ".tmp";
/// What the name of one ends with while a compactor makes it: the server beside it may be making the same one, and
/// takes away what it did not finish itself.
pub const COMPACTING: &str = ".compacting";
/// What the name of one ends with that was found to be damaged.
pub const DAMAGED: &str = ".damaged";
/// `KFSCHKPT`, little-endian: a checkpoint's first bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KFSCHKPT");
/// `KFSB`, little-endian: a block's first bytes.
pub const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"KFSB");
/// The format's version.
pub const FORMAT: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 4_096;
/// Where the CRC-32 of the header stands: the last bytes of it.
pub const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
/// Bytes of a block before its entries.
pub const BLOCK_HEADER_BYTES: usize = 36;
/// Where the CRC-32 of a block's header stands.
pub const BLOCK_CRC_AT: usize = BLOCK_HEADER_BYTES - 4;
/// The most bytes of a block's entries.
pub const BLOCK_PAYLOAD_MAX: usize = 1 << 20;
/// A block is closed when it has so many bytes of entries, so that none is longer than may be; and each is made in
/// one call of a server that answers nobody meanwhile: a millisecond or less.
pub const BLOCK_PAYLOAD_DUE: usize = 64 << 10;

/// The name of the checkpoint that ends with this record.
#[must_use]
pub fn checkpoint_name(seq: LogSeq) -> String {
    format!("{PREFIX}{seq}")
}

/// The last record in the checkpoint of this name.
#[must_use]
pub fn checkpoint_seq(name: &str) -> Option<LogSeq> {
    let seq: u64 = name.strip_prefix(PREFIX)?.parse().ok()?;
    (seq > 0 && checkpoint_name(LogSeq(seq)) == name).then_some(LogSeq(seq))
}

/// Whether a file of this name is a checkpoint that somebody began and did not finish.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED)
        .is_some_and(|name| checkpoint_seq(name).is_some())
}

/// Whether a file of this name is a checkpoint that a compactor began and did not finish, or is making now.
#[must_use]
pub fn is_compacting(name: &str) -> bool {
    name.strip_suffix(COMPACTING)
        .is_some_and(|name| checkpoint_seq(name).is_some())
}

/// The first page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whose state it is.
    pub cluster: ClusterId,
    /// The newest epoch in it.
    pub epoch: Epoch,
    /// The last record in it.
    pub seq: LogSeq,
}

impl Header {
    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        sealed(out, HEADER_CRC_AT)
    }
    /// Reads the page's bytes.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn decode(page: &[u8; HEADER_BYTES]) -> Result<Self, Mismatch> {
        if u64_at(page, 0) != MAGIC {
            return Err(Mismatch::new("a checkpoint's header", "other bytes"));
        }
        unsealed(page, HEADER_CRC_AT, "a header")?;
        known_format(u32_at(page, 8), FORMAT)?;
        Ok(Self {
            epoch: Epoch(u32_at(page, 12)),
            cluster: ClusterId(u128::from_le_bytes(
                page[16..32].try_into().expect("sixteen bytes"),
            )),
            seq: LogSeq(u64_at(page, 32)),
        })
    }
    /// What the hash of a checkpoint begins with.
    #[must_use]
    pub fn hash(&self) -> u64 {
        fnv(&self.encode())
    }
}

/// The first bytes of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHeader {
    /// Which kind of entries it holds.
    pub section: u16,
    /// Blocks before it.
    pub number: u32,
    /// How many entries it holds.
    pub entries: u32,
    /// Their bytes.
    pub payload_bytes: u32,
    /// Of their bytes.
    pub payload_crc: u32,
    /// The hash of all that stands before it.
    pub before: u64,
}

impl BlockHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&self.section.to_le_bytes());
        out[8..12].copy_from_slice(&self.number.to_le_bytes());
        out[12..16].copy_from_slice(&self.entries.to_le_bytes());
        out[16..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[24..32].copy_from_slice(&self.before.to_le_bytes());
        let sum = crc(&out[..BLOCK_CRC_AT]);
        out[BLOCK_CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }
    /// Reads its bytes.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<Self, Mismatch> {
        if u32_at(bytes, 0) != BLOCK_MAGIC {
            return Err(Mismatch::new("a block of a checkpoint", "other bytes"));
        }
        unsealed(bytes, BLOCK_CRC_AT, "a block header")?;
        let header = Self {
            section: u16::from_le_bytes([bytes[4], bytes[5]]),
            number: u32_at(bytes, 8),
            entries: u32_at(bytes, 12),
            payload_bytes: u32_at(bytes, 16),
            payload_crc: u32_at(bytes, 20),
            before: u64_at(bytes, 24),
        };
        if header.payload_bytes as usize > BLOCK_PAYLOAD_MAX {
            return Err(Mismatch::new(
                format!("a block of at most {BLOCK_PAYLOAD_MAX} bytes"),
                header.payload_bytes.to_string(),
            ));
        }
        Ok(header)
    }
    /// The hash after this block: FNV-1a of the header, which holds the hash before it and the payload's CRC.
    #[must_use]
    pub fn hash_after(&self) -> u64 {
        fnv(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_that_flips_in_a_header_is_seen() {
        let header = Header {
            cluster: ClusterId(7),
            epoch: Epoch(3),
            seq: LogSeq(900),
        };
        let page: [u8; HEADER_BYTES] = header.encode().try_into().unwrap();
        assert_eq!(Header::decode(&page), Ok(header));
        let block = BlockHeader {
            section: 4,
            number: 1,
            entries: 5,
            payload_bytes: 99,
            payload_crc: 0x1234_5678,
            before: header.hash(),
        };
        let bytes = block.encode();
        assert_eq!(BlockHeader::decode(&bytes), Ok(block));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = page;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit} of the header");
        }
        for bit in 0..BLOCK_HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&bad).is_err(), "bit {bit} of a block");
        }
    }

    #[test]
    fn only_names_of_checkpoints_are_taken_for_checkpoints() {
        assert_eq!(checkpoint_seq("checkpoint.12"), Some(LogSeq(12)));
        for other in [
            "checkpoint.",
            "checkpoint.0",
            "checkpoint.012",
            "checkpoint.+12",
            "checkpoint.12.tmp",
            "log.12",
        ] {
            assert_eq!(checkpoint_seq(other), None, "{other}");
        }
        assert!(is_unfinished("checkpoint.12.tmp"));
        assert!(is_compacting("checkpoint.12.compacting") && !is_compacting("checkpoint.12.tmp"));
        assert!(!is_unfinished("checkpoint.12") && !is_unfinished("notes.tmp"));
    }
}
