//! The one source of randomness in a machine: seeded by the driver, so a run replays from its seed.
use core::time::Duration;
use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// A seeded generator. Production seeds it from the operating system, the simulator from the run's seed.
#[derive(Debug)]
pub struct Rng(ChaCha8Rng);

/// Goes on from the same place: a machine that is cloned draws what the first one draws.
impl Clone for Rng {
    fn clone(&self) -> Self {
        Self(ChaCha8Rng::deserialize_state(&self.0.serialize_state()))
    }
}

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// A random id that is not zero.
    pub fn id(&mut self) -> u128 {
        (u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64())).max(1)
    }
    /// A number below `limit`, which must not be zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }
    /// Between one half of `base` and the whole of it: back-off with jitter.
    pub fn jitter(&mut self, base: Duration) -> Duration {
        let nanos = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX).max(2);
        Duration::from_nanos(nanos / 2 + self.0.random_range(0..nanos / 2))
    }
    /// Random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_draws_something_else() {
        let mut first = Rng::new(7);
        // Past every phase of the generator's buffer, with draws of all widths.
        for drawn in 0..600 {
            let mut second = first.clone();
            assert_eq!(first.u64(), second.u64(), "after {drawn}");
            assert_eq!(first.below(10), second.below(10), "after {drawn}");
            assert_eq!(
                first.jitter(Duration::from_secs(1)),
                second.jitter(Duration::from_secs(1))
            );
        }
    }
}
