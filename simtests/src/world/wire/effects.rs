//! What the wire did to connections, counted where it struck.
use super::frames::Part;
use std::collections::BTreeMap;

/// Something that was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    /// A connection was made whose reads and writes are cut into small parts.
    Parts,
    /// A connection broke, and both ends soon knew.
    CutSeen,
    /// A connection broke, and one end was not told for long.
    CutHalfSeen,
    /// A connection broke in the middle of a frame.
    CutMidFrame,
    /// A write went into the void: the other end was gone, and this one did not know.
    SwallowedWrite,
    /// A dial got no answer.
    HungDial,
    /// A write found no room.
    FullBuffer,
    /// A bit of a frame's prefix flipped.
    FlippedPrefix,
    /// A bit of a frame's head flipped.
    FlippedHead,
    /// A bit of a frame's body flipped.
    FlippedBody,
}

impl Effect {
    /// A bit of this part flipped.
    #[must_use]
    pub const fn flipped(part: Part) -> Self {
        match part {
            Part::Prefix => Self::FlippedPrefix,
            Part::Head => Self::FlippedHead,
            Part::Body => Self::FlippedBody,
        }
    }
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parts => "wire-parts",
            Self::CutSeen => "wire-cut-seen",
            Self::CutHalfSeen => "wire-cut-half-seen",
            Self::CutMidFrame => "wire-cut-mid-frame",
            Self::SwallowedWrite => "wire-swallowed-write",
            Self::HungDial => "wire-hung-dial",
            Self::FullBuffer => "wire-full-buffer",
            Self::FlippedPrefix => "wire-flipped-prefix",
            Self::FlippedHead => "wire-flipped-head",
            Self::FlippedBody => "wire-flipped-body",
        }
    }
}

/// How often each.
#[derive(Clone, Default, Debug)]
pub struct Effects(BTreeMap<Effect, u64>);

impl Effects {
    pub(super) fn add(&mut self, effect: Effect) {
        *self.0.entry(effect).or_default() += 1;
    }
    /// How often this.
    #[must_use]
    pub fn of(&self, effect: Effect) -> u64 {
        self.0.get(&effect).copied().unwrap_or(0)
    }
    /// Those that struck at all, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(effect, count)| (effect.name(), *count))
    }
}
