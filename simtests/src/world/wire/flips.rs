//! Bits that flip on their way from a node.
use super::Node;
use super::frames::{Part, Span};
use crate::keyed::Keyed;

/// How many frames a flip waits for one with the part that it is aimed at.
const PATIENCE: u32 = 12;

/// A bit that flipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flip {
    /// Who sent the frame.
    pub from: Node,
    /// Whom to.
    pub to: Node,
    /// Where in the frame.
    pub part: Part,
    /// The message type; `None` if the prefix was hit, or was not through.
    pub code: Option<u16>,
}

/// Where among the bytes of a write.
pub(super) struct Hit {
    pub(super) at: usize,
    pub(super) bit: u32,
    pub(super) part: Part,
}

/// What is still to flip of what one node sends.
pub(super) struct Flips {
    due: u64,
    draws: Keyed,
    aim: Option<(Part, u32)>,
    pub(super) done: Vec<Flip>,
}

impl Flips {
    pub(super) fn new(draws: Keyed) -> Self {
        Self {
            due: 0,
            draws,
            aim: None,
            done: Vec::new(),
        }
    }
    pub(super) fn more(&mut self, times: u64) {
        self.due += times;
    }
    pub(super) fn none(&mut self) {
        self.due = 0;
        self.aim = None;
    }

    /// These parts of frames leave; gives what flips, if anything does.
    pub(super) fn meet(&mut self, [from, to]: [Node; 2], spans: &[Span]) -> Option<Hit> {
        if self.due == 0 {
            return None;
        }
        let draws = &mut self.draws;
        let (part, patience) = self
            .aim
            .get_or_insert_with(|| (draws.pick(&Part::ALL), PATIENCE));
        let span = spans.iter().find(|span| {
            if span.part == Part::Prefix {
                *patience = patience.saturating_sub(1);
            }
            span.part == *part || *patience == 0
        })?;
        let at = span.range.start + draws.index(span.range.len());
        let bit = draws.pick(&[0, 1, 2, 3, 4, 5, 6, 7]);
        self.due -= 1;
        self.aim = None;
        self.done.push(Flip {
            from,
            to,
            part: span.part,
            code: span.code,
        });
        let part = span.part;
        Some(Hit { at, bit, part })
    }
}
