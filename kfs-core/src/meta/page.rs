//! What segments of the log and checkpoints share: headers that end with a CRC-32, and the hash that chains them.
use super::oplog::Mismatch;
use crate::block::crc;

/// Fills a header with zeros up to its CRC-32, which it gets.
pub(crate) fn sealed(mut header: Vec<u8>, crc_at: usize) -> Vec<u8> {
    header.resize(crc_at, 0);
    let sum = crc(&header);
    header.extend_from_slice(&sum.to_le_bytes());
    header
}

/// Whether a header has the CRC-32 that it says.
///
/// # Errors
/// What it has, and what it says.
pub(crate) fn unsealed(header: &[u8], crc_at: usize, what: &str) -> Result<(), Mismatch> {
    let (sum, said) = (crc(&header[..crc_at]), u32_at(header, crc_at));
    if said == sum {
        return Ok(());
    }
    Err(Mismatch::new(
        format!("{what} with the CRC 0x{sum:08X}"),
        format!("0x{said:08X}"),
    ))
}

/// Whether a format's version is the one this build knows.
///
/// # Errors
/// Which it is.
pub(crate) fn known_format(found: u32, known: u32) -> Result<(), Mismatch> {
    if found == known {
        return Ok(());
    }
    Err(Mismatch::new(
        format!("format version {known}"),
        found.to_string(),
    ))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
