//! Disk usage: what trees take, by a scan of a state as it was in one instant, while everything else goes on.
//!
//! A scan holds a copy of the state, which costs next to nothing to take, and walks it name by name: so many names and
//! chunks in a slice, a slice every [`EVERY`], whatever is asked meanwhile. So a request waits for one slice at most,
//! however large the tree is, and a scan takes a bounded part of the time that there is. All numbers are of the
//! record of the log that the scan began in.
//!
//! What comes out is bounded too. A tree may have more directories than fit in an answer, or in memory, so the rows are
//! given a page at a time, and the scan rests until the next page is asked for. A row does not carry a path, which may
//! be long: it says that a directory is entered, by its name, or that one is left, and what it took. Whoever keeps the
//! names of those that were entered and not left knows the path of each. The scan itself keeps as much: one place for
//! each directory above the one it is in, and no more of those than [`USAGE_DEPTH_MAX`]. That the client asks for one
//! directory after another would need nothing kept here, but no two answers would be of one instant.
//!
//! A scan is of the link that it was asked for on, and ends with it; and when its next page is not asked for within the
//! time that a session may be idle. It changes nothing, and is in no log. What it held is let go of bit by bit.
use super::key::{Key, Name};
use super::namespace;
use super::state::{Node, State};
use super::{Io, Serving};
use crate::buggify::{self, Site};
use crate::ids::{FileId, LinkId, LogSeq};
use crate::limits::{
    HEADER_BYTES, USAGE_DEPTH_MAX, USAGE_PAGE_MAX, USAGE_SCANS_MAX, USAGE_SCANS_PER_LINK_MAX,
};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_meta::{Answer, Answered, At, Kind, Usage, UsagePage, UsageRow};
use crate::wire::{Refusal, Status};
use core::time::Duration;
use std::collections::VecDeque;

/// Between two slices.
const EVERY: Duration = Duration::from_millis(1);
/// Names and chunks that are looked at in a slice.
const SLICE: usize = 256;
/// A page is given after this, full or not: whoever asked knows then that its scan goes on, however few rows it has.
const PAGE_WITHIN: Duration = Duration::from_secs(1);
/// Nodes of a state of which no more is wanted that are let go of in a slice.
const SHED_AT_ONCE: usize = 32;

/// The scans of a meta server that serves.
#[derive(Clone, Debug)]
pub(super) struct Usages {
    /// Those that are walked take turns.
    scans: VecDeque<Scan>,
    /// What scans held that have ended. They count as scans until it is gone.
    old: VecDeque<State>,
    /// Not before this: the slice before is too new.
    next: Instant,
}

#[derive(Clone, Debug)]
struct Scan {
    /// Drawn, so that one of before a restart is not taken for one of now.
    number: u64,
    link: LinkId,
    /// The record of the log that all of it is of.
    at: LogSeq,
    state: State,
    pace: Pace,
    walk: Walk,
    turn: Turn,
}

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Names and chunks of a slice.
    slice: usize,
    /// Rows of a page.
    page: usize,
}

/// Whose turn it is.
#[derive(Clone, Debug)]
enum Turn {
    /// It is walked for this request.
    Walks {
        request: u64,
        /// When it is answered at the latest.
        by: Instant,
        rows: Vec<UsageRow>,
    },
    /// It waits for its next page to be asked for.
    Rests { since: Instant },
}

/// Where a scan is.
#[derive(Clone, Debug)]
struct Walk {
    /// Directories so far down have rows of their own.
    depth: u32,
    /// From where the scan began down to the directory that is read.
    open: Vec<Open>,
    /// The file whose chunks are being counted, and from which of them on.
    file: Option<(FileId, u64)>,
    /// Of a file that the scan began at.
    alone: Usage,
}

/// A directory that was entered and not left.
#[derive(Clone, Debug)]
struct Open {
    /// The last of its names that was looked at; an empty one before the first.
    at: Key,
    sum: Usage,
}

/// How far a slice came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    /// There is more.
    On,
    ToTheEnd,
    /// Further down than a scan goes.
    TooDeep,
}

impl Usages {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            scans: VecDeque::new(),
            old: VecDeque::new(),
            next: now,
        }
    }
    /// Scans, and what is left of those that have ended.
    pub(super) fn len(&self) -> usize {
        self.scans.len() + self.old.len()
    }
    /// When [`Serving::scan_usage`] is due.
    pub(super) fn due(&self, idle: Duration) -> Option<Instant> {
        let of = |scan: &Scan| match scan.turn {
            Turn::Walks { .. } => self.next,
            Turn::Rests { since } => since + idle,
        };
        let old = (!self.old.is_empty()).then_some(self.next);
        self.scans.iter().map(of).chain(old).min()
    }
    /// A link is gone, and its scans with it.
    pub(super) fn closed(&mut self, link: LinkId) {
        self.end(|scan| scan.link == link);
    }
    /// Those that nobody asks about any more.
    fn expire(&mut self, now: Instant, idle: Duration) {
        self.end(|scan| match scan.turn {
            Turn::Walks { .. } => false,
            Turn::Rests { since } => since + idle <= now,
        });
    }
    fn end(&mut self, ends: impl Fn(&Scan) -> bool) {
        for scan in core::mem::take(&mut self.scans) {
            if ends(&scan) {
                probe::hit(Probe::UsageScanDropped);
                self.old.push_back(scan.state);
            } else {
                self.scans.push_back(scan);
            }
        }
    }
    /// That there is room for one more on this link.
    fn room(&self, link: LinkId) -> Result<(), Refusal> {
        let of_link = self.scans.iter().filter(|scan| scan.link == link).count();
        let what = if of_link >= USAGE_SCANS_PER_LINK_MAX {
            format!("{of_link} scans of this client are under way, which is as many as it may have")
        } else if self.len() >= USAGE_SCANS_MAX {
            format!(
                "{} scans are under way, which is as many as there may be",
                self.len()
            )
        } else {
            return Ok(());
        };
        Err(Refusal::new(Status::Busy, what))
    }
}

impl Serving {
    /// What a tree takes is asked for.
    pub(super) fn usage(&mut self, io: &mut Io, link: LinkId, request: u64, at: &At, depth: u32) {
        let begun = namespace::stat(&self.state, at);
        let begun = begun.and_then(|attrs| self.usages.room(link).map(|()| attrs));
        let attrs = match begun {
            Ok(attrs) => attrs,
            Err(refusal) => return self.tell(io, link, request, Err(refusal)),
        };
        let number = loop {
            let drawn = io.rng.u64();
            if self.usages.scans.iter().all(|scan| scan.number != drawn) {
                break drawn;
            }
        };
        self.usages.scans.push_back(Scan {
            number,
            link,
            at: self.state.seq,
            state: self.state.clone(),
            pace: Pace::new(),
            walk: Walk::of(attrs.file, attrs.kind, attrs.size, depth),
            turn: Turn::walks(request, io.now.mono),
        });
    }

    /// The next page of a scan is asked for.
    pub(super) fn usage_next(&mut self, io: &mut Io, link: LinkId, request: u64, number: u64) {
        let of = |scan: &&mut Scan| (scan.number, scan.link) == (number, link);
        let Some(scan) = self.usages.scans.iter_mut().find(of) else {
            let what = "this scan has ended: its connection was lost, or its rows were not taken for too long; it is to be begun again";
            let refusal = Refusal::new(Status::BadRequest, what);
            return self.tell(io, link, request, Err(refusal));
        };
        if matches!(scan.turn, Turn::Walks { .. }) {
            let what = "the page before is not given yet";
            let refusal = Refusal::new(Status::BadRequest, what);
            return self.tell(io, link, request, Err(refusal));
        }
        scan.turn = Turn::walks(request, io.now.mono);
    }

    /// The next slice, if it is time.
    pub(super) fn scan_usage(&mut self, io: &mut Io) {
        let (now, idle) = (io.now.mono, io.config.timing.session_idle);
        if self.usages.due(idle).is_none_or(|due| due > now) {
            return;
        }
        self.usages.expire(now, idle);
        if self.usages.next > now {
            return;
        }
        self.usages.next = now + EVERY;
        if let Some(old) = self.usages.old.front_mut()
            && !old.shed(SHED_AT_ONCE)
        {
            self.usages.old.pop_front();
        }
        let walked = |scan: &Scan| matches!(scan.turn, Turn::Walks { .. });
        let Some(nth) = self.usages.scans.iter().position(walked) else {
            return;
        };
        let mut scan = self.usages.scans.remove(nth).expect("it was found there");
        if planted::is(Bug::UsageOfMovingTree) {
            scan.state = self.state.clone();
        }
        let Turn::Walks { request, by, rows } = &mut scan.turn else {
            unreachable!("it was looked for");
        };
        let Pace { slice, page } = scan.pace;
        let came = scan.walk.slice(&scan.state, slice, page, rows);
        if came == Came::On && rows.len() < page && *by > now {
            return self.usages.scans.push_back(scan);
        }
        let (link, request, at) = (scan.link, *request, scan.at);
        let page = UsagePage {
            scan: scan.number,
            at,
            rows: core::mem::take(rows),
            end: came == Came::ToTheEnd,
        };
        if came == Came::On {
            probe::hit(Probe::UsageInPages);
            scan.turn = Turn::Rests { since: now };
            self.usages.scans.push_back(scan);
        } else {
            self.usages.old.push_back(scan.state);
        }
        let outcome = if came == Came::TooDeep {
            let what = format!(
                "directories stand more than {USAGE_DEPTH_MAX} deep in one another here: ask for what a directory further down takes"
            );
            Err(Refusal::new(Status::BadRequest, what))
        } else {
            Ok(Answer::Usage(page))
        };
        // It leaves when all that was logged since is durable too, which comes after what it rests on.
        self.reply(io, link, request, Answered { seq: at, outcome });
    }
}

impl Pace {
    fn new() -> Self {
        if buggify::is(Site::UsageSliceOfTwo) {
            return Self { slice: 2, page: 3 };
        }
        Self {
            slice: SLICE,
            page: USAGE_PAGE_MAX,
        }
    }
}

impl Turn {
    fn walks(request: u64, now: Instant) -> Self {
        Self::Walks {
            request,
            by: now + PAGE_WITHIN,
            rows: Vec::new(),
        }
    }
}

impl Open {
    fn new(dir: FileId) -> Self {
        let at = Key {
            parent: dir,
            name: Name::raw(b""),
        };
        let sum = Usage {
            directories: 1,
            ..Usage::default()
        };
        Self { at, sum }
    }
}

impl Walk {
    /// From this file or directory on.
    fn of(file: FileId, kind: Kind, size: u64, depth: u32) -> Self {
        let (open, chunks, alone) = match kind {
            Kind::Directory => (vec![Open::new(file)], None, Usage::default()),
            Kind::File => (Vec::new(), Some((file, 0)), Usage::of_file(size)),
        };
        Self {
            depth,
            open,
            file: chunks,
            alone,
        }
    }

    /// Looks at so many names and chunks, or until the page is full.
    fn slice(
        &mut self,
        state: &State,
        mut left: usize,
        page: usize,
        rows: &mut Vec<UsageRow>,
    ) -> Came {
        while left > 0 && rows.len() < page {
            if let Some(at) = self.file {
                let open = self.open.last_mut();
                let sum = open.map_or(&mut self.alone, |open| &mut open.sum);
                self.file = chunks(state, at, &mut left, sum);
                continue;
            }
            let Some(dir) = self.open.last() else {
                rows.push(UsageRow::Leaves(self.alone));
                return Came::ToTheEnd;
            };
            let (parent, last) = (dir.at.parent, dir.at.clone());
            match self.names(state, parent, last, &mut left) {
                Some(Some((child, name))) => {
                    if self.open.len() >= USAGE_DEPTH_MAX {
                        return Came::TooDeep;
                    }
                    if self.has_row(self.open.len()) {
                        let name = name.as_bytes().to_vec();
                        rows.push(UsageRow::Enters { name });
                    }
                    self.open.push(Open::new(child));
                }
                // There is more of it.
                Some(None) => {}
                None => {
                    left = left.saturating_sub(1);
                    let sum = self.open.pop().expect("it was read").sum;
                    if self.has_row(self.open.len()) {
                        rows.push(UsageRow::Leaves(sum));
                    }
                    match self.open.last_mut() {
                        Some(above) => above.sum.add(&sum),
                        None => return Came::ToTheEnd,
                    }
                }
            }
        }
        Came::On
    }

    /// Whether directories so far below where the scan began have rows.
    fn has_row(&self, below: usize) -> bool {
        below <= usize::try_from(self.depth).unwrap_or(usize::MAX)
    }

    /// Names of a directory behind this one, with the chunks of files: up to the next directory in it, which is given, or
    /// as far as it may look. `None`: it has no more.
    fn names(
        &mut self,
        state: &State,
        dir: FileId,
        last: Key,
        left: &mut usize,
    ) -> Option<Option<(FileId, Name)>> {
        let open = self.open.last_mut().expect("it is read");
        for (key, file) in state.tree.behind(Some(last)) {
            if key.parent != dir {
                return None;
            }
            if *left == 0 {
                return Some(None);
            }
            *left -= 1;
            let inode = state
                .inodes
                .get(&file)
                .expect("a name stands for something");
            open.at = key;
            match inode.node {
                Node::Directory { .. } => return Some(Some((file, open.at.name.clone()))),
                Node::File { size, .. } => {
                    open.sum.add(&Usage::of_file(size));
                    self.file = chunks(state, (file, 0), left, &mut open.sum);
                    if self.file.is_some() {
                        return Some(None);
                    }
                }
            }
        }
        None
    }
}

/// Counts chunks of a file from this one on; gives where to go on if there are more.
fn chunks(
    state: &State,
    (file, from): (FileId, u64),
    left: &mut usize,
    sum: &mut Usage,
) -> Option<(FileId, u64)> {
    for ((_, index), chunk) in state.chunks.range((file, from)..=(file, u64::MAX)) {
        if *left == 0 {
            probe::hit(Probe::UsageFileInParts);
            return Some((file, index));
        }
        *left -= 1;
        let replica = HEADER_BYTES + state.logged(file, index, &chunk).len;
        let members = chunk.members.len() as u64;
        sum.add(&Usage {
            chunks: 1,
            replica_bytes: replica.saturating_mul(members),
            ..Usage::default()
        });
    }
    None
}

impl Usage {
    /// Of a file, but for its chunks.
    const fn of_file(size: u64) -> Self {
        Self {
            bytes: size,
            files: 1,
            directories: 0,
            chunks: 0,
            replica_bytes: 0,
        }
    }
}
