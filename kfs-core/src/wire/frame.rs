//! The frame: what carries a message over a byte stream. Layout in `docs/formats/wire.md`.
//!
//! A reader takes [`PREFIX_BYTES`], gives them to [`Prefix::decode`], takes as many more as the prefix says
//! (checked against the limits before anything is allocated), and gives head and body to [`Prefix::message`].
use super::{Head, Msg};
use crate::block::crc;
use crate::limits::{FRAME_BODY_MAX, FRAME_HEAD_MAX};
use bytes::Bytes;
use serde::de::DeserializeOwned;

/// `KFSF`, little-endian.
pub const MAGIC: u32 = 0x4653_464B;
/// Bytes of the fixed part of a frame.
pub const PREFIX_BYTES: usize = 28;
/// Bytes of the CRC-32 that ends the head.
pub const HEAD_CRC_BYTES: usize = 4;

/// What most frames have room in.
const FRAME_BYTES_MOSTLY: usize = 256;

/// The fixed part of a frame, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The protocol the sender uses; 0 in the first exchange.
    pub protocol: u8,
    /// The message type.
    pub code: u16,
    /// See [`Msg::request`].
    pub request: u64,
    /// Bytes of the head, its CRC included.
    pub head_bytes: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
}

/// Why bytes are not a frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Not the protocol at all.
    #[error("bad magic 0x{0:08X}")]
    Magic(u32),
    /// The fixed part is damaged.
    #[error("the frame's prefix does not match its CRC")]
    PrefixCrc,
    /// The head is damaged.
    #[error("the frame's head does not match its CRC")]
    HeadCrc,
    /// Too long to be read.
    #[error("a {part} of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// Head or body.
        part: &'static str,
        /// As said by the prefix.
        bytes: u32,
        /// What is allowed.
        limit: usize,
    },
    /// Flags that this protocol does not have.
    #[error("unknown flags 0x{0:02X}")]
    Flags(u8),
    /// A message type this build does not know.
    #[error("unknown message type 0x{0:04X}")]
    UnknownType(u16),
    /// The head does not decode, or bytes are left over.
    #[error("the head is not a message of its type")]
    Head,
}

impl Prefix {
    /// Checks and reads the fixed part.
    ///
    /// # Errors
    /// On anything that is not a frame within the limits.
    pub fn decode(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, FrameError> {
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        if u32_at(bytes, 24) != crc(&bytes[..24]) {
            return Err(FrameError::PrefixCrc);
        }
        if bytes[5] != 0 {
            return Err(FrameError::Flags(bytes[5]));
        }
        let bounded = |part, bytes: u32, limit: usize| match usize::try_from(bytes) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(FrameError::TooLong { part, bytes, limit }),
        };
        let head_bytes = bounded("head", u32_at(bytes, 16), FRAME_HEAD_MAX)?;
        let body_bytes = bounded("body", u32_at(bytes, 20), FRAME_BODY_MAX)?;
        if head_bytes < HEAD_CRC_BYTES {
            return Err(FrameError::Head);
        }
        let code = u16::from_le_bytes([bytes[6], bytes[7]]);
        let request = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        Ok(Self {
            protocol: bytes[4],
            code,
            request,
            head_bytes,
            body_bytes,
        })
    }

    /// The message, from the head and body that followed the prefix.
    ///
    /// # Errors
    /// If the head is damaged, of an unknown type, or has bytes left over.
    pub fn message(&self, head: &[u8], body: Bytes) -> Result<Msg, FrameError> {
        assert_eq!(
            (head.len(), body.len()),
            (self.head_bytes, self.body_bytes),
            "as long as the prefix says"
        );
        let (head, sum) = head.split_at(head.len() - HEAD_CRC_BYTES);
        if u32_at(sum, 0) != crc(head) {
            return Err(FrameError::HeadCrc);
        }
        Ok(Msg {
            request: self.request,
            head: Head::decode(self.code, head)?,
            body,
        })
    }
}

/// The frame's bytes before the body; the body follows them as it is.
#[must_use]
pub fn encode(protocol: u8, msg: &Msg) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_BYTES_MOSTLY);
    append(protocol, msg, &mut out);
    out
}

/// Appends what [`encode`] gives.
pub fn append(protocol: u8, msg: &Msg, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + PREFIX_BYTES, 0);
    *out = msg.head.encode(core::mem::take(out));
    let (prefix, head) = out[at..].split_at_mut(PREFIX_BYTES);
    let sum = crc(head);
    let head_bytes = head.len() + HEAD_CRC_BYTES;
    assert!(
        head_bytes <= FRAME_HEAD_MAX,
        "{} is {head_bytes} bytes long",
        msg.head.name()
    );
    assert!(
        msg.body.len() <= FRAME_BODY_MAX,
        "a body is one piece at most"
    );
    prefix[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    prefix[4] = protocol;
    prefix[6..8].copy_from_slice(&msg.head.code().to_le_bytes());
    prefix[8..16].copy_from_slice(&msg.request.to_le_bytes());
    let bounded = |len: usize| u32::try_from(len).expect("bounded above").to_le_bytes();
    prefix[16..20].copy_from_slice(&bounded(head_bytes));
    prefix[20..24].copy_from_slice(&bounded(msg.body.len()));
    let prefix_sum = crc(&prefix[..24]);
    prefix[24..28].copy_from_slice(&prefix_sum.to_le_bytes());
    out.extend_from_slice(&sum.to_le_bytes());
}

/// Decodes all of `bytes`; bytes left over are an error.
pub(crate) fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(FrameError::Head),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::wire::client_meta::Renew;

    fn frame() -> (Msg, Vec<u8>) {
        let msg = Msg::with_body(
            9,
            Renew {
                session: SessionId(77),
            },
            Bytes::from_static(b"body"),
        );
        let bytes = encode(1, &msg);
        (msg, bytes)
    }

    fn decode(bytes: &[u8], body: &Bytes) -> Result<Msg, FrameError> {
        let prefix = Prefix::decode(bytes[..PREFIX_BYTES].try_into().expect("long enough"))?;
        prefix.message(&bytes[PREFIX_BYTES..], body.clone())
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        let (msg, bytes) = frame();
        assert_eq!(decode(&bytes, &msg.body), Ok(msg));
    }

    #[test]
    fn a_flipped_bit_anywhere_before_the_body_is_seen() {
        let (msg, bytes) = frame();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, &msg.body).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_of_four_gibibytes_is_refused_before_anything_is_allocated() {
        for at in [16, 20] {
            let (_, mut bytes) = frame();
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            let sum = crc(&bytes[..24]);
            bytes[24..28].copy_from_slice(&sum.to_le_bytes());
            let prefix = Prefix::decode(bytes[..PREFIX_BYTES].try_into().expect("long enough"));
            assert!(matches!(
                prefix,
                Err(FrameError::TooLong {
                    bytes: u32::MAX,
                    ..
                })
            ));
        }
    }

    #[test]
    fn bytes_left_over_in_the_head_are_refused() {
        let (msg, bytes) = frame();
        let mut head = bytes[PREFIX_BYTES..bytes.len() - HEAD_CRC_BYTES].to_vec();
        head.push(0);
        assert_eq!(Head::decode(msg.head.code(), &head), Err(FrameError::Head));
    }
}
