//! The two copies of the log: its own in the data directory, and the mirror, a directory that is meant to be on
//! another disk. Every operation that changes the log is issued for each copy, and counts when all have ended.
//!
//! The core names the mirror's files below [`DIR`]; where that is, is the driver's business.
use crate::ids::Ticket;
use crate::machine::{DiskOp, FileName};
use crate::outbox::Outbox;

/// Where the files of the mirror stand, in the names that the machine gives to the driver.
pub const DIR: &str = "mirror";

/// One copy of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    /// In the data directory.
    Primary,
    /// In the mirror.
    Mirror,
}

impl Side {
    /// Both of them.
    pub(crate) const BOTH: [Self; 2] = [Self::Primary, Self::Mirror];

    /// The other one.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Mirror,
            Self::Mirror => Self::Primary,
        }
    }
    /// The one that a file belongs to.
    pub(crate) fn of(file: &FileName) -> Self {
        let inside = file.as_str().strip_prefix(DIR);
        match inside.map(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(true) => Self::Mirror,
            Some(false) | None => Self::Primary,
        }
    }
    /// A file or directory of it; "" is its root.
    pub(crate) fn file(self, path: &str) -> FileName {
        match self {
            Self::Primary => FileName::new(path),
            Self::Mirror if path.is_empty() => FileName::new(DIR),
            Self::Mirror => FileName::new(&format!("{DIR}/{path}")),
        }
    }
}

/// How many copies of the log are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Copies {
    One,
    Two,
}

impl Copies {
    /// With a mirror, or without.
    pub(crate) const fn with(mirror: bool) -> Self {
        if mirror { Self::Two } else { Self::One }
    }
    pub(crate) const fn sides(self) -> &'static [Side] {
        match self {
            Self::One => &[Side::Primary],
            Self::Two => &Side::BOTH,
        }
    }
    /// Issues an operation for each copy.
    pub(crate) fn issue<E>(self, outbox: &mut Outbox<E>, op: impl Fn(Side) -> DiskOp) -> Tickets {
        let mut tickets = Tickets([None; 2]);
        for side in self.sides() {
            tickets.0[*side as usize] = Some(outbox.disk(op(*side)));
        }
        tickets
    }
}

/// One operation on each copy, as far as they have not ended yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tickets([Option<Ticket>; 2]);

impl Tickets {
    pub(crate) fn has(&self, ticket: Ticket) -> bool {
        self.0.contains(&Some(ticket))
    }
    /// One of them has ended: which copy that was of.
    pub(crate) fn end(&mut self, ticket: Ticket) -> Side {
        let ended = Side::BOTH
            .into_iter()
            .find(|side| self.0[*side as usize] == Some(ticket));
        let ended = ended.expect("a completion is given to who issued the operation");
        self.forget(ended);
        ended
    }
    /// Does not wait for this copy.
    pub(crate) const fn forget(&mut self, side: Side) {
        self.0[side as usize] = None;
    }
    /// Whether all have ended.
    pub(crate) fn are_done(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}
