//! The clocks and the entropy of the process: the only place where they are read for a machine.
use kfs_core::time::{Instant, Now, UnixNanos};

/// Readings of both clocks; the monotonic one goes on while the machine sleeps (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    #[cfg(madsim)]
    start: tokio::time::Instant,
}

impl Clock {
    /// The clock of this process.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            #[cfg(madsim)]
            start: tokio::time::Instant::now(),
        }
    }

    /// Both clocks, now.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono: self.mono(),
            wall: UnixNanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    #[cfg(not(madsim))]
    #[allow(clippy::unused_self)]
    fn mono(&self) -> Instant {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanos) = (
            u64::try_from(t.tv_sec).unwrap_or(0),
            u64::try_from(t.tv_nsec).unwrap_or(0),
        );
        Instant(seconds * 1_000_000_000 + nanos)
    }

    #[cfg(madsim)]
    fn mono(&self) -> Instant {
        // Not from zero, so that "a while before now" is a time too.
        Instant(
            1_000_000_000_000 + u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        )
    }
}

/// 64 bits from the operating system; from the run's seed in the simulator.
///
/// # Panics
/// If the operating system gives no entropy: no id could be trusted.
#[cfg(not(madsim))]
#[must_use]
pub fn entropy() -> u64 {
    getrandom::u64().expect("the operating system gives entropy")
}

/// 64 bits from the run's seed.
#[cfg(madsim)]
#[must_use]
pub fn entropy() -> u64 {
    use madsim::rand::RngCore as _;
    madsim::rand::thread_rng().next_u64()
}
