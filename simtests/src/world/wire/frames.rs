//! Where in which frame the next byte of a stream stands.
use kfs_core::wire::frame::{PREFIX_BYTES, Prefix};
use std::ops::Range;

/// A part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// Magic, lengths, type; with a CRC of its own.
    Prefix,
    /// The message; with a CRC of its own.
    Head,
    /// Bulk data, which the frame has no sum of.
    Body,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Prefix, Self::Head, Self::Body];
}

/// Bytes of one part that pass together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) part: Part,
    /// Where they stand in what was passed.
    pub(super) range: Range<usize>,
    /// The message type, once the prefix is through.
    pub(super) code: Option<u16>,
}

/// Follows what one end writes.
#[derive(Default)]
pub(super) struct Frames {
    prefix: Vec<u8>,
    /// Of the frame whose prefix is through.
    frame: Option<Prefix>,
    /// Bytes of head and body that have passed.
    passed: usize,
}

impl Frames {
    /// Bytes that are left of the frame that `next` begins with or goes on with, and whether it has begun.
    /// `None`: that cannot be told from so few.
    pub(super) fn left(&self, next: &[u8]) -> Option<(usize, Begun)> {
        if let Some(frame) = &self.frame {
            return Some((
                frame.head_bytes + frame.body_bytes - self.passed,
                Begun::Yes,
            ));
        }
        let missing = PREFIX_BYTES - self.prefix.len();
        let mut prefix = self.prefix.clone();
        prefix.extend_from_slice(next.get(..missing)?);
        let frame = decode(&prefix)?;
        let begun = if self.prefix.is_empty() {
            Begun::No
        } else {
            Begun::Yes
        };
        Some((missing + frame.head_bytes + frame.body_bytes, begun))
    }

    /// These bytes pass; gives the parts that they are of, in order.
    ///
    /// # Panics
    /// If they are no frames: links write nothing else.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            let rest = bytes.len() - from;
            let (part, len, code) = match &self.frame {
                None => {
                    let len = rest.min(PREFIX_BYTES - self.prefix.len());
                    self.prefix.extend_from_slice(&bytes[from..from + len]);
                    (Part::Prefix, len, None)
                }
                Some(frame) => {
                    let (part, end) = if self.passed < frame.head_bytes {
                        (Part::Head, frame.head_bytes)
                    } else {
                        (Part::Body, frame.head_bytes + frame.body_bytes)
                    };
                    let len = rest.min(end - self.passed);
                    self.passed += len;
                    (part, len, Some(frame.code))
                }
            };
            let range = from..from + len;
            from += len;
            spans.push(Span { part, range, code });
            self.turn();
        }
        spans
    }

    /// Goes on to the head behind a whole prefix, or to the next frame behind a whole one.
    fn turn(&mut self) {
        match &self.frame {
            None if self.prefix.len() == PREFIX_BYTES => {
                self.frame = Some(decode(&self.prefix).expect("links write frames"));
                self.prefix.clear();
                self.passed = 0;
            }
            Some(frame) if self.passed == frame.head_bytes + frame.body_bytes => self.frame = None,
            _ => {}
        }
    }
}

/// Whether a part of a frame has passed already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    Yes,
    No,
}

fn decode(prefix: &[u8]) -> Option<Prefix> {
    Prefix::decode(prefix.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kfs_core::ids::SessionId;
    use kfs_core::wire::client_meta::Renew;
    use kfs_core::wire::{Msg, frame};

    #[test]
    fn two_frames_cut_anywhere_have_the_same_parts() {
        let body = Bytes::from_static(b"body");
        let renew = Renew {
            session: SessionId(77),
        };
        let msg = Msg::with_body(9, renew, body.clone());
        let heads = frame::encode(1, &msg);
        let one: Vec<u8> = heads.iter().chain(&body).copied().collect();
        let two = [one.as_slice(), one.as_slice()].concat();
        let counted = |frames: &mut Frames, bytes: &[u8]| {
            let mut counts = [0; 3];
            for span in frames.pass(bytes) {
                counts[span.part as usize] += span.range.len();
            }
            counts
        };
        let whole = counted(&mut Frames::default(), &two);
        assert_eq!(
            whole,
            [2 * PREFIX_BYTES, 2 * (heads.len() - PREFIX_BYTES), 8]
        );
        for cut in 0..two.len() {
            let mut frames = Frames::default();
            let first = counted(&mut frames, &two[..cut]);
            if let Some((left, begun)) = frames.left(&two[cut..]) {
                assert_eq!(left, one.len() - cut % one.len(), "cut at {cut}");
                assert_eq!(begun == Begun::No, cut % one.len() == 0, "cut at {cut}");
            } else {
                assert!(two.len() - cut < PREFIX_BYTES, "cut at {cut}");
            }
            let second = counted(&mut frames, &two[cut..]);
            let sum: Vec<usize> = first.iter().zip(second).map(|(a, b)| a + b).collect();
            assert_eq!(sum, whole, "cut at {cut}");
        }
    }
}
