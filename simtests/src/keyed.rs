//! Keyed randomness: every number is a function of (seed, entity, counter).
//!
//! So taking one event out of a schedule, or one entity out of a run, does not reshuffle the others.

/// Draws for one entity of one run.
#[derive(Clone, Debug)]
pub struct Keyed {
    key: u64,
    counter: u64,
}

impl Keyed {
    /// The draws of the entity of this name in the run of this seed.
    #[must_use]
    pub fn new(seed: u64, entity: &str) -> Self {
        Self {
            key: mix(mix(seed) ^ named(entity)),
            counter: 0,
        }
    }
    /// Draws of a part of the entity, apart from its own.
    #[must_use]
    pub fn fork(&self, part: &str) -> Self {
        Self {
            key: mix(mix(self.key) ^ named(part)),
            counter: 0,
        }
    }
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key ^ mix(self.counter))
    }
    /// A number below `limit`, which must not be zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "there is a number below the limit");
        self.bits() % limit
    }
    /// A number of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
    /// An index of a collection of `len` items, which must not be empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }
    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
    /// Random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}

fn named(entity: &str) -> u64 {
    let hashed = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    entity.bytes().fold(0xcbf2_9ce4_8422_2325, hashed)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits that spreads every bit.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_entity_or_seed_draws_other_numbers_and_the_same_one_the_same() {
        let draw = |seed, entity| {
            let mut keyed = Keyed::new(seed, entity);
            (0..4).map(|_| keyed.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, "disk"), draw(1, "disk"));
        assert_ne!(draw(1, "disk"), draw(2, "disk"));
        assert_ne!(draw(1, "disk"), draw(1, "faults"));
    }
}
