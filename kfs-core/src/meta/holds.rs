//! Who has which files open: said by clients, kept in memory, never logged. So an open costs no record.
//!
//! A hold is of a link, and outlives it: it ends when it is released, or when nothing came on its link for as long
//! as a session may be idle. A client whose link is gone says on the next one what it still holds. After a restart
//! nothing is known of holds, so for as long as that, and as long as a session of before was neither taken up nor has
//! ended, every file counts as held; see [`super::reclaim`].
use super::record::Fate;
use super::{Io, Serving};
use crate::ids::{FileId, LinkId};
use crate::limits::{HOLD_PAGE_MAX, HOLDS_MAX, HOLDS_PER_LINK_MAX};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_meta::{Answer, At, Kind};
use crate::wire::{Refusal, Status};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// What is held open.
#[derive(Clone, Default, Debug)]
pub(super) struct Holds {
    links: BTreeMap<LinkId, Holder>,
    /// When to look whether a link is silent, or gone for so long; it may have been heard since.
    due: BTreeSet<(Instant, LinkId)>,
    /// How often each file is held.
    files: BTreeMap<FileId, usize>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Holder {
    heard: Instant,
    files: BTreeMap<FileId, usize>,
    count: usize,
}

impl Holds {
    pub(super) fn has(&self, file: FileId) -> bool {
        self.files.contains_key(&file)
    }
    /// Holds in all, and the most that one link has.
    pub(super) fn kept(&self) -> (usize, usize) {
        let most = self.links.values().map(|holder| holder.count).max();
        (self.count, most.unwrap_or(0))
    }
    /// When to look next whether a link is silent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
    /// Something came on this link.
    pub(super) fn heard(&mut self, link: LinkId, now: Instant) {
        if let Some(holder) = self.links.get_mut(&link) {
            holder.heard = now;
        }
    }
    /// That there is room for so many more.
    fn has_room(&self, link: LinkId, more: usize) -> Result<(), Refusal> {
        let of_link = self.links.get(&link).map_or(0, |holder| holder.count);
        let what = if of_link + more > HOLDS_PER_LINK_MAX {
            format!("a client may have {HOLDS_PER_LINK_MAX} files open: some must be closed first")
        } else if self.count + more > HOLDS_MAX {
            format!("all clients have {HOLDS_MAX} files open: some must be closed first")
        } else {
            return Ok(());
        };
        Err(Refusal::new(Status::Busy, what))
    }
    fn add(&mut self, link: LinkId, file: FileId, (now, idle): (Instant, Duration)) {
        let holder = self.links.entry(link).or_insert_with(|| {
            self.due.insert((now + idle, link));
            Holder {
                heard: now,
                files: BTreeMap::new(),
                count: 0,
            }
        });
        *holder.files.entry(file).or_default() += 1;
        holder.count += 1;
        *self.files.entry(file).or_default() += 1;
        self.count += 1;
    }
    /// One hold less; whether nobody holds the file any more. One that is not known is none.
    fn release(&mut self, link: LinkId, file: FileId) -> bool {
        let Some(holder) = self.links.get_mut(&link) else {
            return false;
        };
        let Some(count) = holder.files.get_mut(&file) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            holder.files.remove(&file);
        }
        holder.count -= 1;
        self.fewer(file, 1)
    }
    fn fewer(&mut self, file: FileId, by: usize) -> bool {
        self.count -= by;
        let count = self
            .files
            .get_mut(&file)
            .expect("what a link holds is counted");
        *count -= by;
        let last = *count == 0;
        if last {
            self.files.remove(&file);
        }
        last
    }
    /// Ends holds of links that were silent for that long, a page at a time; gives files that nobody holds any more.
    fn expire(&mut self, now: Instant, idle: Duration) -> Vec<FileId> {
        let mut free = Vec::new();
        while let Some((at, link)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, link));
            let Some(holder) = self.links.get_mut(&link) else {
                continue;
            };
            if holder.heard + idle > now {
                self.due.insert((holder.heard + idle, link));
                continue;
            }
            let mut page = Vec::new();
            while page.len() < HOLD_PAGE_MAX
                && let Some((file, count)) = holder.files.pop_first()
            {
                holder.count -= count;
                page.push((file, count));
            }
            if holder.files.is_empty() {
                self.links.remove(&link);
            } else {
                self.due.insert((now, link));
            }
            if !page.is_empty() {
                probe::hit(Probe::HoldsExpired);
            }
            for (file, count) in page {
                if self.fewer(file, count) {
                    free.push(file);
                }
            }
            // The next page, or the next link, with the next input.
            if free.len() >= HOLD_PAGE_MAX {
                break;
            }
        }
        free
    }
}

impl Serving {
    /// What becomes of a file that loses its name now.
    pub(super) fn fate(&self, io: &Io, file: FileId) -> Fate {
        if planted::is(Bug::HeldFileDropped) {
            return Fate::Dropped;
        }
        if self.is_held(io, file) {
            probe::hit(Probe::RemovedWhileHeld);
            return Fate::Kept;
        }
        if self.state.is_small(file) {
            Fate::Dropped
        } else {
            Fate::Kept
        }
    }

    /// Whether somebody has the file open, or may have: who held what before a restart has not said so yet.
    pub(super) fn is_held(&self, io: &Io, file: FileId) -> bool {
        self.state.is_written(file) || self.holds.has(file) || !self.knows_holders(io)
    }

    /// Whether everybody who holds a file since before the start has said so, or has had the time. A client says what it
    /// holds before it takes up its session, so a session of before that was not taken up may hold anything.
    pub(super) fn knows_holders(&self, io: &Io) -> bool {
        self.reclaim.knows(io.now.mono) && self.sessions.are_resumed()
    }

    /// The attributes of what stands at a place; a file is held from now on.
    pub(super) fn open(&mut self, io: &Io, link: LinkId, at: &At) -> Result<Answer, Refusal> {
        let attrs = super::namespace::stat(&self.state, at)?;
        let idle = io.config.timing.session_idle;
        if attrs.kind == Kind::File {
            self.holds.has_room(link, 1)?;
            self.holds.add(link, attrs.file, (io.now.mono, idle));
        }
        Ok(Answer::Opened { attrs, idle })
    }

    /// What a client has held since an older link.
    pub(super) fn hold(
        &mut self,
        io: &Io,
        link: LinkId,
        files: &[FileId],
    ) -> Result<Answer, Refusal> {
        let idle = io.config.timing.session_idle;
        if files.len() > HOLD_PAGE_MAX {
            let what = format!(
                "{} files held in one message, at most {HOLD_PAGE_MAX} are allowed",
                files.len()
            );
            return Err(Refusal::new(Status::BadRequest, what));
        }
        self.holds.has_room(link, files.len())?;
        for file in files {
            self.holds.add(link, *file, (io.now.mono, idle));
        }
        Ok(Answer::Held { idle })
    }

    pub(super) fn release(&mut self, io: &Io, link: LinkId, file: FileId) -> Answer {
        if self.holds.release(link, file) {
            self.reclaim.look_at(&self.state, [file]);
        }
        let idle = io.config.timing.session_idle;
        Answer::Held { idle }
    }

    pub(super) fn expire_holds(&mut self, io: &Io) {
        let free = self
            .holds
            .expire(io.now.mono, io.config.timing.session_idle);
        self.reclaim.look_at(&self.state, free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_file_is_held_until_each_hold_on_it_is_released() {
        let mut holds = Holds::default();
        for link in [1, 1, 2] {
            holds.add(LinkId(link), FileId(7), (at(0), IDLE));
        }
        assert!(!holds.release(LinkId(1), FileId(7)));
        assert!(!holds.release(LinkId(2), FileId(7)));
        assert!(!holds.release(LinkId(2), FileId(7)), "none is left there");
        assert!(holds.has(FileId(7)));
        assert!(holds.release(LinkId(1), FileId(7)));
        assert!(!holds.has(FileId(7)));
        assert_eq!(holds.kept(), (0, 0));
    }

    #[test]
    fn holds_end_when_their_link_is_silent_for_as_long_as_a_session_may_be() {
        let mut holds = Holds::default();
        for link in [1, 2] {
            holds.add(LinkId(link), FileId(7), (at(0), IDLE));
            holds.add(LinkId(link), FileId(link), (at(0), IDLE));
        }
        holds.heard(LinkId(1), at(4));
        assert!(holds.expire(at(9), IDLE).is_empty());
        assert_eq!(holds.expire(at(10), IDLE), [FileId(2)]);
        assert!(holds.has(FileId(7)));
        assert_eq!(holds.due(), Some(at(14)));
        assert_eq!(holds.expire(at(14), IDLE), [FileId(1), FileId(7)]);
        assert_eq!((holds.kept(), holds.due()), ((0, 0), None));
    }

    #[test]
    fn one_link_holds_no_more_than_it_may_and_its_end_is_taken_in_pages() {
        let mut holds = Holds::default();
        let more = u64::try_from(HOLDS_PER_LINK_MAX).unwrap();
        for file in 1..=more {
            holds.has_room(LinkId(1), 1).unwrap();
            holds.add(LinkId(1), FileId(file), (at(0), IDLE));
        }
        let refused = holds.has_room(LinkId(1), 1).unwrap_err();
        assert_eq!(refused.status, Status::Busy);
        holds.has_room(LinkId(2), 1).unwrap();
        let mut pages = 0;
        while holds.due().is_some() {
            let free = holds.expire(at(10), IDLE);
            assert!(free.len() <= HOLD_PAGE_MAX);
            pages += 1;
        }
        assert_eq!(pages, HOLDS_PER_LINK_MAX / HOLD_PAGE_MAX);
        assert_eq!(holds.kept(), (0, 0));
    }
}
