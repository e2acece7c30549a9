//! Planted bugs: real mistakes behind a runtime switch, so that the simulator's eyes can be tested.
//!
//! Compiled only under `cfg(madsim)`. In every other build [`is`] is a constant `false` and the mistakes
//! are compiled away.

/// The mistakes that can be planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The meta server answers before the record is durable (N3).
    ReplyBeforeSync,
    /// A chunk's first sync does not sync its directory (D4).
    NoDirSyncOnCreate,
    /// Replay skips a record now and then (N3).
    ReplaySkipsRecord,
    /// The head acks a sync before the tail has made it (D2).
    HeadAcksEarly,
    /// The last, short block of a chunk is summed without its padding (D5).
    ShortBlockUnpadded,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ReplyBeforeSync,
        Self::NoDirSyncOnCreate,
        Self::ReplaySkipsRecord,
        Self::HeadAcksEarly,
        Self::ShortBlockUnpadded,
    ];
}

#[cfg(madsim)]
std::thread_local! {
    static PLANTED: core::cell::Cell<Option<Bug>> = const { core::cell::Cell::new(None) };
}

/// Plants one bug, or none, for the rest of this thread's life.
#[cfg(madsim)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.with(|planted| planted.set(bug));
}

/// Whether this bug is planted.
#[cfg(madsim)]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.with(|planted| planted.get() == Some(bug))
}

/// Whether this bug is planted: never, outside the simulator.
#[cfg(not(madsim))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}
