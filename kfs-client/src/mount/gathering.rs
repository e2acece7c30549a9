//! Small writes that follow one another, gathered to one: at most [`GATHERED_MAX`] bytes of a file.
use bytes::{Bytes, BytesMut};

/// So many bytes at most are kept of one file. It is what a piece has at most, so whole ones are given on.
pub(super) const GATHERED_MAX: usize = 1 << 20;

/// What was written and not given on yet: bytes without a gap.
#[derive(Default, Debug)]
pub(super) struct Gathering {
    /// Where they begin, in the file.
    at: u64,
    bytes: BytesMut,
}

impl Gathering {
    /// Whether a write there follows what is gathered.
    pub(super) fn joins(&self, offset: u64) -> bool {
        self.bytes.is_empty() || self.end() == offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Up to the next edge of a piece there is room.
    fn room(end: u64) -> usize {
        let within = end % GATHERED_MAX as u64;
        GATHERED_MAX - usize::try_from(within).expect("less than a piece")
    }

    /// Takes the beginning of a write that joins, as much as there is room for, and says how much that was.
    pub(super) fn add(&mut self, offset: u64, data: &[u8]) -> usize {
        assert!(self.joins(offset), "bytes without a gap are gathered");
        if self.bytes.is_empty() {
            self.at = offset;
        }
        let taken = data.len().min(Self::room(self.end()));
        self.bytes.extend_from_slice(&data[..taken]);
        assert!(self.bytes.len() <= GATHERED_MAX, "a piece at most");
        taken
    }

    /// Whether it reaches the edge of a piece.
    pub(super) fn is_full(&self) -> bool {
        !self.bytes.is_empty() && self.end().is_multiple_of(GATHERED_MAX as u64)
    }

    /// All of it, and where it begins; nothing is gathered then.
    pub(super) fn give(&mut self) -> Option<(u64, Bytes)> {
        if self.bytes.is_empty() {
            return None;
        }
        Some((self.at, std::mem::take(&mut self.bytes).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes all of it, as a file does, and gives what was given on.
    fn write(gathering: &mut Gathering, offset: u64, data: &[u8]) -> Vec<(u64, Bytes)> {
        let (mut offset, mut data) = (offset, data);
        let mut given = Vec::new();
        while !data.is_empty() {
            if !gathering.joins(offset) {
                given.extend(gathering.give());
            }
            let taken = gathering.add(offset, data);
            assert!(taken > 0, "a write comes to its end");
            offset += taken as u64;
            data = &data[taken..];
            if gathering.is_full() {
                given.extend(gathering.give());
            }
        }
        given
    }

    #[test]
    fn what_is_given_on_is_what_was_written_whatever_the_sizes() {
        for (start, step, count) in [
            (0, 1_000, 3_000),
            (1, 4_096, 600),
            (GATHERED_MAX as u64 - 3, 7, 50),
            (5, GATHERED_MAX, 3),
            (0, GATHERED_MAX * 2 + 9, 2),
        ] {
            let mut gathering = Gathering::default();
            let (mut at, mut due, mut given) = (start, Vec::new(), Vec::new());
            for nth in 0..count {
                let byte = u8::try_from(nth % 251).unwrap();
                let data = vec![byte; step];
                given.extend(write(&mut gathering, at, &data));
                at += step as u64;
                due.extend(data);
            }
            given.extend(gathering.give());
            assert!(gathering.is_empty());
            let (mut next, mut got) = (start, Vec::new());
            for (at, bytes) in &given {
                assert_eq!(*at, next, "no gap");
                assert!(!bytes.is_empty() && bytes.len() <= GATHERED_MAX);
                next += bytes.len() as u64;
                got.extend_from_slice(bytes);
            }
            assert!(got == due, "{start} {step}");
            // All but the first and the last are whole pieces.
            let inner = &given[1..given.len().max(2) - 1];
            assert!(inner.iter().all(|(_, bytes)| bytes.len() == GATHERED_MAX));
        }
    }

    #[test]
    fn a_write_elsewhere_does_not_join_what_is_gathered() {
        let mut gathering = Gathering::default();
        assert!(gathering.joins(77), "nothing is there to be joined");
        assert_eq!(gathering.add(10, b"abc"), 3);
        assert!(gathering.joins(13) && !gathering.joins(12) && !gathering.joins(14));
        let given = write(&mut gathering, 20, b"x");
        assert_eq!(given, [(10, Bytes::from_static(b"abc"))]);
        assert_eq!(gathering.give(), Some((20, Bytes::from_static(b"x"))));
        assert_eq!(gathering.give(), None);
    }
}
