//! Numbers of as few bytes as they need: seven bits a byte, the lowest first; signed ones with the sign in the
//! lowest bit.

/// Reads what was written here. It is never fed anything else, so it does not look for flaws.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of these bytes.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    /// Whether all was read.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// How many bytes are left.
    pub(crate) const fn left(&self) -> usize {
        self.0.len()
    }
    /// A byte.
    #[inline]
    pub(crate) fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().expect("what was written is there");
        self.0 = rest;
        *byte
    }
    /// Bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }
    /// A number of eight bytes.
    #[inline]
    pub(crate) fn eight(&mut self) -> u64 {
        let (bytes, rest) = self
            .0
            .split_first_chunk()
            .expect("what was written is there");
        self.0 = rest;
        u64::from_le_bytes(*bytes)
    }
    /// A number.
    #[inline]
    pub(crate) fn unsigned(&mut self) -> u64 {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                u64::from(*byte)
            }
            _ => self.long(),
        }
    }
    /// A number of several bytes: of up to eight all at once, for times are of four or five.
    #[inline]
    fn long(&mut self) -> u64 {
        let Some((word, bytes)) = self.word() else {
            // By value, so that this reader can stay in registers.
            let (value, rest) = self.longest();
            *self = rest;
            return value;
        };
        self.0 = &self.0[bytes..];
        let word = word & (u64::MAX >> (64 - 8 * bytes)) & 0x7F7F_7F7F_7F7F_7F7F;
        // Seven bits of each byte move together: of two bytes, of four, of eight.
        let word = (word & 0x007F_007F_007F_007F) | ((word & 0x7F00_7F00_7F00_7F00) >> 1);
        let word = (word & 0x0000_3FFF_0000_3FFF) | ((word & 0x3FFF_0000_3FFF_0000) >> 2);
        (word & 0x0000_0000_0FFF_FFFF) | ((word & 0x0FFF_FFFF_0000_0000) >> 4)
    }
    /// The next eight bytes, and of how many the number is that they begin with; `None` if it does not end there.
    #[inline]
    fn word(&self) -> Option<(u64, usize)> {
        let word = u64::from_le_bytes(*self.0.first_chunk()?);
        let ends = !word & 0x8080_8080_8080_8080;
        (ends != 0).then(|| (word, ends.trailing_zeros() as usize / 8 + 1))
    }
    /// A number, byte by byte: one that is long, or at the end.
    #[cold]
    fn longest(mut self) -> (u64, Self) {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return (value, self);
            }
            shift += 7;
        }
    }
    /// Leaves a number out.
    #[inline]
    pub(crate) fn skip(&mut self) {
        match self.word() {
            Some((_, bytes)) => self.0 = &self.0[bytes..],
            None => while self.byte() >= 0x80 {},
        }
    }
    /// A number that stands at this distance from another.
    #[inline]
    pub(crate) fn signed(&mut self, from: u64) -> u64 {
        let zigzag = self.unsigned();
        let distance = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        from.wrapping_add(distance)
    }
}

/// Writes a number.
pub(crate) fn put_unsigned(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    to.push((value & 0x7F) as u8);
}

/// Writes how far a number is from another, which is near.
pub(crate) fn put_signed(value: u64, from: u64, to: &mut Vec<u8>) {
    let distance = value.wrapping_sub(from);
    let sign = (distance >> 63).wrapping_neg();
    put_unsigned((distance << 1) ^ sign, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_near_ones_cost_a_byte() {
        let edges = [
            0,
            1,
            63,
            64,
            127,
            128,
            1 << 40,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX,
        ];
        let mut bytes = Vec::new();
        for value in edges {
            put_unsigned(value, &mut bytes);
            for from in edges {
                put_signed(value, from, &mut bytes);
            }
        }
        let mut reader = Reader::new(&bytes);
        for value in edges {
            assert_eq!(reader.unsigned(), value);
            for from in edges {
                assert_eq!(reader.signed(from), value, "from {from}");
            }
        }
        assert!(reader.is_empty());
        for (value, from) in [(1 << 50, (1 << 50) - 60), ((1 << 50) - 60, 1 << 50)] {
            let mut near = Vec::new();
            put_signed(value, from, &mut near);
            assert_eq!(near.len(), 1);
        }
    }
}
