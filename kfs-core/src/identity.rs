//! The identity file of a data directory: who owns it. Layout in `docs/formats/identity.md`.
//!
//! It is replaced as a whole: `identity.new` is written and synced, renamed over `identity`, and the
//! directory is synced. Whoever starts on a directory raises the boot before doing anything else.
use crate::block::crc;
use crate::ids::{Boot, ClusterId, DiskId, Epoch, Incarnation, LogSeq, NodeId};

/// Its name in the data directory.
pub const NAME: &str = "identity";
/// The name it is written under before it is renamed.
pub const NAME_NEW: &str = "identity.new";
/// `KFSIDENT`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KFSIDENT");
/// The format's version.
pub const FORMAT: u32 = 1;
/// Bytes of the part before the sibling disks.
pub const FIXED_BYTES: usize = 104;
/// The most sibling disks.
pub const SIBLINGS_MAX: usize = 64;

/// What kind of server owns a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Owner {
    /// A meta server.
    Meta = 1,
    /// A chunkserver.
    Chunk = 2,
    /// A meta server that keeps the mirror of its log here.
    Mirror = 3,
}

/// Who owns a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// What kind of server.
    pub owner: Owner,
    /// Zero for a chunkserver that has not joined one yet.
    pub cluster: ClusterId,
    /// The server.
    pub node: NodeId,
    /// This directory.
    pub disk: DiskId,
    /// How often a server has started on it.
    pub boot: Boot,
    /// The highest (epoch, incarnation) of a meta server accepted; zeros: none.
    pub seen: (Epoch, Incarnation),
    /// How far the log of that meta server was durable when it said so last, as far as that was noted.
    pub seen_seq: LogSeq,
    /// The server's other data directories.
    pub siblings: Vec<DiskId>,
}

/// Why an identity file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// Cut, damaged, or not an identity file.
    #[error("{0}")]
    Damaged(&'static str),
    /// Written by a newer build.
    #[error("format version {0}, this build knows {FORMAT}")]
    Format(u32),
}

impl Identity {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.siblings.len() <= SIBLINGS_MAX,
            "a server has few data directories"
        );
        let mut out = Vec::with_capacity(FIXED_BYTES + 16 * self.siblings.len() + 4);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(self.owner as u32).to_le_bytes());
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.disk.0.to_le_bytes());
        out.extend_from_slice(&self.boot.0.to_le_bytes());
        out.extend_from_slice(&self.seen.0.0.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&self.seen.1.0.to_le_bytes());
        out.extend_from_slice(&self.seen_seq.0.to_le_bytes());
        out.extend_from_slice(&(self.siblings.len() as u64).to_le_bytes());
        assert_eq!(out.len(), FIXED_BYTES, "the page in docs/formats says so");
        for sibling in &self.siblings {
            out.extend_from_slice(&sibling.0.to_le_bytes());
        }
        let sum = crc(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// If they are not an identity of a format this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        const CUT: IdentityError = IdentityError::Damaged("it is cut short");
        let fixed = bytes.get(..FIXED_BYTES).ok_or(CUT)?;
        let u32_at =
            |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four bytes"));
        let u64_at =
            |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let u128_at =
            |at: usize| u128::from_le_bytes(fixed[at..at + 16].try_into().expect("sixteen bytes"));
        if u64_at(0) != MAGIC {
            return Err(IdentityError::Damaged("it does not begin as one"));
        }
        if u32_at(8) != FORMAT {
            return Err(IdentityError::Format(u32_at(8)));
        }
        let siblings = usize::try_from(u64_at(96))
            .ok()
            .filter(|count| *count <= SIBLINGS_MAX);
        let siblings = siblings.ok_or(IdentityError::Damaged("it lists too many disks"))?;
        let end = FIXED_BYTES + 16 * siblings;
        if bytes.len() != end + 4 {
            return Err(CUT);
        }
        if bytes[end..] != crc(&bytes[..end]).to_le_bytes() {
            return Err(IdentityError::Damaged("it does not match its CRC"));
        }
        let owner = match u32_at(12) {
            1 => Owner::Meta,
            2 => Owner::Chunk,
            3 => Owner::Mirror,
            _ => return Err(IdentityError::Damaged("it names no kind of server")),
        };
        Ok(Self {
            owner,
            cluster: ClusterId(u128_at(16)),
            node: NodeId(u128_at(32)),
            disk: DiskId(u128_at(48)),
            boot: Boot(u64_at(64)),
            seen: (Epoch(u32_at(72)), Incarnation(u64_at(80))),
            seen_seq: LogSeq(u64_at(88)),
            siblings: bytes[FIXED_BYTES..end]
                .as_chunks::<16>()
                .0
                .iter()
                .map(|id| DiskId(u128::from_le_bytes(*id)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            owner: Owner::Chunk,
            cluster: ClusterId(1),
            node: NodeId(2),
            disk: DiskId(3),
            boot: Boot(4),
            seen: (Epoch(5), Incarnation(6)),
            seen_seq: LogSeq(9),
            siblings: vec![DiskId(7), DiskId(8)],
        }
    }

    #[test]
    fn an_identity_comes_back_as_it_was_written() {
        assert_eq!(Identity::decode(&identity().encode()), Ok(identity()));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let bytes = identity().encode();
        for len in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
