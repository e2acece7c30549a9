//! One connection: in which state its two ends are, and what becomes of a read or a write of one of them.
use super::Node;
use super::effects::{Effect, Effects};
use super::flips::Flips;
use super::frames::{Begun, Frames};
use crate::keyed::Keyed;
use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::sync::Notify;

pub(super) type ConnId = u64;
/// 0 dialed, 1 accepted.
pub(super) type Side = usize;

/// An end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At {
    pub(super) conn: ConnId,
    pub(super) side: Side,
}

/// What an end that does not know that the other one is gone can still write before its buffers are full.
const SWALLOWED_MAX: usize = 64 << 10;
/// Every second cut is this near to the beginning of its frame: bodies are longer than all else together.
const CUT_NEAR: u64 = 64;

pub(super) struct Conn {
    pub(super) nodes: [Node; 2],
    pub(super) ends: [End; 2],
    /// Of all that befalls it as a whole.
    pub(super) draws: Keyed,
    parts: Option<Parts>,
}

pub(super) struct End {
    pub(super) state: EndState,
    pub(super) held: Held,
    cut: Option<Cut>,
    frames: Frames,
    reading: Flow,
    writing: Flow,
    /// A write of it waits for room.
    full: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EndState {
    Whole,
    /// The other end is gone, and this one is not told: so many bytes more can be written into the void.
    Silent(usize),
    Broken,
}

/// Whether a link has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    NotYet,
    Yes,
    NoMore,
}

/// One direction, at one end.
struct Flow {
    draws: Keyed,
    waker: Option<Waker>,
    /// It was just made to wait for nothing.
    waited: bool,
}

impl Flow {
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// About so many bytes leave together where a connection is cut into parts. The simulated network needs a millisecond
/// for whatever leaves by itself: were that every part, a piece would take seconds.
const BURST: u64 = 700;

/// How a connection is cut into parts.
#[derive(Clone, Copy, Debug)]
struct Parts {
    bytes_max: u64,
    /// How often a part is waited for although it is there, in hundredths.
    wait_percent: u64,
}

impl Parts {
    /// The length of the next part of so many bytes; `None` after a waking was asked for.
    fn next(self, flow: &mut Flow, bytes: usize, cx: &Context<'_>) -> Option<usize> {
        if !flow.waited && flow.draws.percent(self.wait_percent) {
            flow.waited = true;
            cx.waker().wake_by_ref();
            return None;
        }
        flow.waited = false;
        // Some are tiny on every such connection.
        let most = if flow.draws.percent(25) {
            8
        } else {
            self.bytes_max
        };
        Some(bytes.min(small(flow.draws.between(1, most))))
    }

    /// When a part of so many bytes leaves. Short frames are cut too, now and then.
    fn leaves(flow: &mut Flow, bytes: usize) -> Leaves {
        if flow.draws.below(BURST) < bytes as u64 + 10 {
            Leaves::AtOnce
        } else {
            Leaves::WhenFlushed
        }
    }
}

/// A cut in the next frame, or in the one that is under way.
struct Cut {
    /// Bytes that still pass, once that is known.
    passes: Option<usize>,
    draws: Keyed,
    struck: Arc<Notify>,
}

impl Cut {
    /// Bytes of these that pass; all of them if the frame's length cannot be told.
    fn passes(&mut self, frames: &Frames, bytes: &[u8]) -> Option<usize> {
        if self.passes.is_none() {
            let (left, begun) = frames.left(bytes)?;
            let least = u64::from(begun == Begun::No);
            let mut most = left as u64 - 1;
            if self.draws.percent(50) {
                most = most.min(CUT_NEAR);
            }
            self.passes = Some(small(self.draws.between(least, most)));
        }
        self.passes
    }
}

/// What becomes of a read.
pub(super) enum Read {
    Fails,
    Waits,
    /// It goes on, but does not end with the stream.
    Silent,
    /// Of so many bytes at most.
    Most(usize),
}

/// What becomes of a write.
pub(super) enum Write<'a> {
    Fails,
    Waits,
    Swallowed(usize),
    Passes {
        bytes: Cow<'a, [u8]>,
        leaves: Leaves,
    },
}

/// When what was written leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    AtOnce,
    /// With the rest of its batch.
    WhenFlushed,
}

/// What becomes of a flush.
pub(super) enum Flush {
    Fails,
    Waits,
    Swallowed,
    Passes,
}

/// What a write meets besides its own connection.
pub(super) struct Around<'a> {
    /// Nothing leaves.
    pub(super) full: bool,
    pub(super) flips: Option<&'a mut Flips>,
    pub(super) effects: &'a mut Effects,
}

impl Conn {
    /// The n-th from the first node to the second.
    pub(super) fn new(seed: u64, nodes: [Node; 2], nth: u64, parts_permille: u64) -> Self {
        let [from, to] = nodes;
        let keyed = |what: &str| Keyed::new(seed, &format!("wire {from} {to} {nth}: {what}"));
        let mut draws = keyed("parts");
        let parts = (draws.below(1_000) < parts_permille).then(|| Parts {
            bytes_max: draws.pick(&[16, 100, 700, 3_000]),
            wait_percent: draws.pick(&[0, 20, 60]),
        });
        let flow = |what: &str| Flow {
            draws: keyed(what),
            waker: None,
            waited: false,
        };
        let end = |held, side: Side| End {
            state: EndState::Whole,
            held,
            cut: None,
            frames: Frames::default(),
            reading: flow(&format!("reads of {side}")),
            writing: flow(&format!("writes of {side}")),
            full: false,
        };
        Self {
            nodes,
            ends: [end(Held::Yes, 0), end(Held::NotYet, 1)],
            draws: keyed("breaks"),
            parts,
        }
    }

    pub(super) fn is_cut_into_parts(&self) -> bool {
        self.parts.is_some()
    }
    pub(super) fn is_whole(&self) -> bool {
        self.ends
            .iter()
            .all(|end| end.state == EndState::Whole && end.cut.is_none())
            && self.ends.iter().all(|end| end.held != Held::NoMore)
    }
    /// Nobody has it any more.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.held == Held::NoMore)
    }

    /// The next frame that this end writes is cut. The bell rings when it was.
    pub(super) fn cut_mid_frame(&mut self, side: Side) -> Arc<Notify> {
        let struck = Arc::new(Notify::new());
        let draws = Keyed::new(self.draws.bits(), "where");
        self.ends[side].cut = Some(Cut {
            passes: None,
            draws,
            struck: Arc::clone(&struck),
        });
        struck
    }

    pub(super) fn read(&mut self, side: Side, bytes: usize, cx: &Context<'_>) -> Read {
        let parts = self.parts;
        let end = &mut self.ends[side];
        end.reading.wait(cx);
        match (end.state, parts) {
            (EndState::Broken, _) => Read::Fails,
            (EndState::Silent(_), _) => Read::Silent,
            (EndState::Whole, None) => Read::Most(bytes),
            (EndState::Whole, Some(parts)) => match parts.next(&mut end.reading, bytes, cx) {
                Some(most) => Read::Most(most),
                None => Read::Waits,
            },
        }
    }

    pub(super) fn write<'a>(
        &mut self,
        side: Side,
        bytes: &'a [u8],
        cx: &Context<'_>,
        around: Around<'_>,
    ) -> Write<'a> {
        let nodes = [self.nodes[side], self.nodes[1 - side]];
        let parts = self.parts;
        let end = &mut self.ends[side];
        end.writing.wait(cx);
        match &mut end.state {
            EndState::Broken => return Write::Fails,
            EndState::Silent(0) => return Write::Waits,
            EndState::Silent(room) => {
                let len = bytes.len().min(*room);
                *room -= len;
                around.effects.add(Effect::SwallowedWrite);
                return Write::Swallowed(len);
            }
            EndState::Whole => {}
        }
        if end.is_full(around.full, around.effects) {
            return Write::Waits;
        }
        let mut len = bytes.len();
        if let Some(parts) = parts {
            match parts.next(&mut end.writing, len, cx) {
                Some(part) => len = part,
                None => return Write::Waits,
            }
        }
        let cut = end.passes(&bytes[..len]);
        len = cut.unwrap_or(len);
        let spans = end.frames.pass(&bytes[..len]);
        let flip = around.flips.and_then(|flips| flips.meet(nodes, &spans));
        let passes = match flip {
            Some(hit) => {
                around.effects.add(Effect::flipped(hit.part));
                let mut bytes = bytes[..len].to_vec();
                bytes[hit.at] ^= 1 << hit.bit;
                Cow::Owned(bytes)
            }
            None => Cow::Borrowed(&bytes[..len]),
        };
        let mut leaves = match parts {
            Some(_) => Parts::leaves(&mut end.writing, len),
            None => Leaves::WhenFlushed,
        };
        if cut.is_some() {
            around.effects.add(Effect::CutMidFrame);
            end.breaks();
            if len == 0 {
                return Write::Fails;
            }
            leaves = Leaves::AtOnce;
        }
        Write::Passes {
            bytes: passes,
            leaves,
        }
    }

    pub(super) fn flush(
        &mut self,
        side: Side,
        cx: &Context<'_>,
        full: bool,
        effects: &mut Effects,
    ) -> Flush {
        let end = &mut self.ends[side];
        end.writing.wait(cx);
        match end.state {
            EndState::Broken => Flush::Fails,
            EndState::Silent(_) => Flush::Swallowed,
            EndState::Whole => {
                if end.is_full(full, effects) {
                    Flush::Waits
                } else {
                    Flush::Passes
                }
            }
        }
    }
}

impl End {
    /// Gives how many of these bytes pass if the connection is cut among or right behind them.
    fn passes(&mut self, bytes: &[u8]) -> Option<usize> {
        let cut = self.cut.as_mut()?;
        let passes = cut.passes(&self.frames, bytes)?;
        if passes > bytes.len() {
            cut.passes = Some(passes - bytes.len());
            return None;
        }
        Some(passes)
    }

    fn is_full(&mut self, full: bool, effects: &mut Effects) -> bool {
        if full && !self.full {
            effects.add(Effect::FullBuffer);
        }
        self.full = full;
        full
    }

    /// It learns that the connection is gone.
    pub(super) fn breaks(&mut self) {
        self.state = EndState::Broken;
        if let Some(cut) = self.cut.take() {
            cut.struck.notify_one();
        }
        self.wake();
    }
    /// The other end is gone, and this one does not learn it.
    pub(super) fn falls_silent(&mut self) {
        self.state = EndState::Silent(SWALLOWED_MAX);
        self.wake();
    }
    /// A cut that did not strike never will.
    pub(super) fn spare(&mut self) {
        self.cut = None;
    }
    pub(super) fn wake(&mut self) {
        self.reading.wake();
        self.writing.wake();
    }
    /// Its link is gone.
    pub(super) fn let_go(&mut self) {
        self.held = Held::NoMore;
        self.reading.waker = None;
        self.writing.waker = None;
    }
}

fn small(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a part of a frame")
}
