//! O2 and O3 on what clients read: every byte names its writer; what a sync or a close covered is there until it is cut
//! off; what was not written, or was cut off since, reads as zeros; and a size is never below one that was acked, unless
//! the file was cut.
//!
//! A file is cut where its length and its new one both end. A cut that was asked for and never acked may have been made,
//! or not. Who has had a file open since before a cut was acked may be told of either: opening shows what others did.
use super::{Tick, Violation};
use crate::workload::bytes::Cell;
use bytes::Bytes;
use kfs_core::ids::FileId;
use std::collections::BTreeMap;

/// What was written to every file of a run.
#[derive(Clone, Debug)]
pub struct Contents {
    salt: u64,
    files: BTreeMap<FileId, Written>,
    /// Bytes that were compared with what their writer wrote.
    pub verified: u64,
    /// The log was hurt: which writes of a file are there is not asked any more, only that what is there was
    /// written there.
    pub log_hurt: bool,
}

/// What was written to one file, in the order of the calls.
#[derive(Clone, Debug, Default)]
pub struct Written {
    writes: Vec<Write>,
    cuts: Vec<Cut>,
    /// Sizes that were acked, and how many cuts were called for before.
    acked: Vec<(Tick, u64, usize)>,
    /// When it was closed for good.
    closed: Option<Tick>,
    /// Which of those who wrote it one after another writes it now.
    tenure: Tenure,
}

/// Counts those who write a file, one after another, from 0.
pub type Tenure = u32;

#[derive(Clone, Debug)]
struct Write {
    tenure: Tenure,
    called: Tick,
    offset: u64,
    data: Bytes,
    /// When a sync or a close that covers it was acked.
    synced: Option<Tick>,
    /// Another wrote the file by then, so it must have no effect.
    refused: bool,
    /// Nothing of it is there from here on: another has gone on writing the file there.
    limit: u64,
}

/// What is there of a file ends, and its length is another one.
#[derive(Clone, Debug)]
struct Cut {
    tenure: Tenure,
    /// So many writes were called for before.
    writes: usize,
    /// Where what is there ends then.
    end: u64,
    len: u64,
    /// When the meta server was asked.
    asked: Tick,
    acked: Option<Tick>,
}

/// How many cuts of a file there were when one was asked for: names it.
pub type CutId = usize;

/// What a client read.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Which file.
    pub file: FileId,
    /// Its size when it was opened.
    pub size: u64,
    /// From where.
    pub offset: u64,
    /// How much was asked for.
    pub len: usize,
    /// What came.
    pub bytes: &'a [u8],
    /// When the file was opened.
    pub opened: Tick,
    /// When it was asked for.
    pub asked: Tick,
    /// When it came.
    pub came: Tick,
}

/// Every chunk begins at a multiple of this.
const SMALLEST_BLOCK: usize = 256;

impl Contents {
    /// Nothing written yet, in the run of this salt.
    #[must_use]
    pub fn new(salt: u64) -> Self {
        Self {
            salt,
            files: BTreeMap::new(),
            verified: 0,
            log_hurt: false,
        }
    }

    /// A file was made, empty.
    pub fn created(&mut self, file: FileId) {
        self.files.entry(file).or_default();
    }

    /// A client has opened a file that others have written, to go on at its end. Gives who it is among them.
    ///
    /// # Errors
    /// If it ends before what was acked, or past all that was written.
    pub fn appending(&mut self, file: FileId, end: u64, now: Tick) -> Result<Tenure, Violation> {
        let written = self.files.entry(file).or_default();
        let (least, most) = written.sizes(Tick::MAX, Tick::MAX);
        if !self.log_hurt && !(least..=most).contains(&end) {
            let what = format!(
                "file {file} is written further from {end} on; acked were {least}, written {most}"
            );
            return Err(Violation::new("O3", "D3", what));
        }
        for write in &mut written.writes {
            write.limit = write.limit.min(end);
        }
        written.tenure += 1;
        written.closed = None;
        let is_unsure = |cut: &Cut| cut.acked.is_none() && cut.asked != Tick::MAX;
        if written.cuts.iter().any(is_unsure) {
            // What came of those is known now: whichever were made, the file ends here, as if it were cut once more.
            written.cuts.push(Cut {
                tenure: written.tenure,
                writes: written.writes.len(),
                end,
                len: end,
                asked: now,
                acked: Some(now),
            });
        }
        Ok(written.tenure)
    }

    /// A client that has opened a file asks the meta server to cut it: it has this size, as the client knows, and is to
    /// have `len` bytes. Gives who it is among those that write it, if it is not known yet, and which cut it is.
    ///
    /// # Errors
    /// If the file cannot have had that size.
    pub fn cuts(
        &mut self,
        file: FileId,
        tenure: Option<Tenure>,
        (size, len): (u64, u64),
        asked: Tick,
    ) -> Result<(Tenure, CutId), Violation> {
        if tenure.is_none() {
            self.check_size(file, size, asked, asked)?;
        }
        let written = self.files.entry(file).or_default();
        let tenure = tenure.unwrap_or_else(|| {
            written.tenure += 1;
            written.tenure
        });
        let end = size.min(len);
        if tenure == written.tenure {
            written.closed = None;
        }
        written.cuts.push(Cut {
            tenure,
            writes: written.writes.len(),
            end,
            len,
            asked,
            acked: None,
        });
        Ok((tenure, written.cuts.len() - 1))
    }

    /// The length that a file has after a cut.
    #[must_use]
    pub fn cut_len(&self, file: FileId, cut: CutId) -> u64 {
        let written = self.files.get(&file);
        let cut = written.and_then(|written| written.cuts.get(cut));
        cut.map_or(0, |cut| cut.len)
    }

    /// The meta server has refused a cut: it was not made.
    pub fn cut_refused(&mut self, file: FileId, cut: CutId) {
        let written = self.files.entry(file).or_default();
        written.cuts[cut].asked = Tick::MAX;
    }

    /// A cut was acked.
    pub fn cut_acked(&mut self, file: FileId, cut: CutId, acked: Tick) {
        let written = self.files.entry(file).or_default();
        let Cut { tenure, writes, .. } = written.cuts[cut];
        written.cuts[cut].acked = Some(acked);
        for write in &mut written.writes[..writes] {
            // What was written before by the same client was synced first.
            if write.tenure == tenure && !write.refused {
                write.synced.get_or_insert(acked);
            }
        }
    }

    /// A client calls for a write.
    pub fn write_called(
        &mut self,
        (file, tenure): (FileId, Tenure),
        called: Tick,
        offset: u64,
        data: Bytes,
    ) {
        let written = self.files.entry(file).or_default();
        // Who writes it no more has no effect on it.
        let refused = tenure < written.tenure;
        written.writes.push(Write {
            tenure,
            called,
            offset,
            data,
            synced: None,
            refused,
            limit: u64::MAX,
        });
    }

    /// Whether a byte of the file was written more than once.
    #[must_use]
    pub fn is_written_over(&self, file: FileId) -> bool {
        let writes = self.files.get(&file).map_or(&[][..], |file| &file.writes);
        let mut pairs = writes.iter().enumerate();
        pairs.any(|(nth, one)| writes[..nth].iter().any(|other| one.meets(other)))
    }

    /// A sync or a close that was called at `called` is acked.
    ///
    /// # Errors
    /// If it covers a write that cannot have been done.
    pub fn acked(
        &mut self,
        (file, tenure): (FileId, Tenure),
        called: Tick,
        acked: Tick,
        last: Last,
    ) -> Result<(), Violation> {
        let written = self.files.entry(file).or_default();
        for write in written
            .writes
            .iter_mut()
            .filter(|write| write.tenure == tenure && write.called < called)
        {
            if write.refused && !self.log_hurt {
                return Err(Violation::new(
                    "O2",
                    "D2",
                    format!(
                        "file {file}: a sync was acked though a write at {} came when another wrote the file",
                        write.offset
                    ),
                ));
            }
            write.synced.get_or_insert(acked);
        }
        let own = |write: &Write| {
            let before = write.tenure <= tenure && write.called < called;
            before && !write.refused
        };
        let before = |cut: &&Cut| cut.asked < called || cut.asked == Tick::MAX;
        let cuts = written.cuts.iter().take_while(before).count();
        let mut end = 0;
        let mut from = 0;
        let ends = |writes: &[Write]| {
            let own = writes.iter().filter(|write| own(write));
            own.map(Write::end).max().unwrap_or(0)
        };
        // Who syncs after a cut has heard of it, or it is not known whether it was made.
        for cut in written.cuts[..cuts]
            .iter()
            .filter(|cut| cut.acked.is_some())
        {
            (end, from) = (cut.len, cut.writes);
        }
        let end = ends(&written.writes[from..]).max(end);
        written.acked.push((acked, end, cuts));
        if last == Last::Closed && tenure == written.tenure {
            written.closed = Some(acked);
        }
        Ok(())
    }

    /// Checks a size that was told between these two moments.
    ///
    /// # Errors
    /// If it is below an acked one, or above everything written.
    pub fn check_size(
        &self,
        file: FileId,
        size: u64,
        asked: Tick,
        told: Tick,
    ) -> Result<(), Violation> {
        // Who made a file and did not hear of it never wrote to it.
        let nothing = Written::default();
        let written = self.files.get(&file).unwrap_or(&nothing);
        let (least, most) = written.sizes(asked, told);
        if self.log_hurt || (least..=most).contains(&size) {
            return Ok(());
        }
        Err(Violation::new(
            "O3",
            "D3",
            format!("file {file} has {size} bytes; acked were {least}, written {most}"),
        ))
    }

    /// Checks what was read.
    ///
    /// # Errors
    /// At the first byte that is not what was written there.
    pub fn check(&mut self, seen: &Seen<'_>) -> Result<(), Violation> {
        // The file may have grown, or have been cut, since it was opened.
        let written = self.files.get(&seen.file);
        let (least, most) = written.map_or((0, 0), |written| written.sizes_since(seen));
        let due = |size: u64| size.saturating_sub(seen.offset).min(seen.len as u64);
        let got = seen.bytes.len() as u64;
        let fits = (due(least.min(seen.size))..=due(most.max(seen.size))).contains(&got);
        if !fits && !self.log_hurt {
            return Err(Violation::new(
                "O2",
                "D3",
                format!(
                    "file {} of {} bytes: a read of {} at {} gave {got}",
                    seen.file, seen.size, seen.len, seen.offset,
                ),
            ));
        }
        self.compare(seen, "a client")?;
        self.verified += got;
        Ok(())
    }

    /// Checks bytes of a file wherever they were found.
    pub(super) fn compare(&self, seen: &Seen<'_>, reader: &str) -> Result<(), Violation> {
        if self.log_hurt && !self.files.contains_key(&seen.file) && self.was_once(seen) {
            // A chunk of a part of the log that was lost, found again under another name.
            return Ok(());
        }
        let nothing = Written::default();
        let written = self.files.get(&seen.file).unwrap_or(&nothing);
        // What a sync covered last, and what was written, or cut off, after that: one of these is there.
        let mut certain = vec![0_u8; seen.bytes.len()];
        let mut unsure: Vec<Vec<u8>> = vec![Vec::new(); seen.bytes.len()];
        let end = seen.offset + seen.bytes.len() as u64;
        let mut cuts = written.cuts.iter().peekable();
        for nth in 0..=written.writes.len() {
            while let Some(cut) = cuts.next_if(|cut| cut.writes <= nth) {
                for at in cut.end.max(seen.offset)..end {
                    let here = at_usize(at - seen.offset);
                    if cut.acked.is_some_and(|acked| acked < seen.opened) {
                        certain[here] = 0;
                        unsure[here].clear();
                    } else if cut.asked < seen.came {
                        unsure[here].push(0);
                    }
                }
            }
            let Some(write) = written.writes.get(nth) else {
                break;
            };
            if write.refused || write.called > seen.came {
                continue;
            }
            // In a file that was made longer a reader may know of a hole that was written since.
            let since = if written.cuts.is_empty() {
                seen.asked
            } else {
                seen.opened
            };
            let from = write.offset.max(seen.offset);
            let to = write.end().min(end);
            for at in from..to {
                let (here, there) = (at_usize(at - seen.offset), at_usize(at - write.offset));
                if write.synced.is_some_and(|synced| synced < since) {
                    certain[here] = write.data[there];
                    unsure[here].clear();
                } else {
                    unsure[here].push(write.data[there]);
                }
            }
        }
        let wrong = (0..seen.bytes.len()).find(|at| {
            let found = seen.bytes[*at];
            let due = found == certain[*at] || unsure[*at].contains(&found);
            let was = || self.log_hurt && written.ever_had(seen.offset + *at as u64, found);
            !(due || was())
        });
        let Some(at) = wrong else {
            return Ok(());
        };
        let offset = seen.offset + at as u64;
        let found = Cell::read(self.salt, seen.bytes, seen.offset, offset);
        let due = Cell::read(self.salt, &certain, seen.offset, offset);
        let text = |cell: Option<Cell>| cell.map_or("a cut cell".into(), |cell| cell.to_string());
        let lost = found == Some(Cell::Zeros);
        Err(Violation::new(
            if lost { "O3" } else { "O2" },
            if lost { "D2" } else { "D5" },
            format!(
                "file {}, byte {offset}: {reader} found {} (0x{:02x}); due was {} (0x{:02x})",
                seen.file,
                text(found),
                seen.bytes[at],
                text(due),
                certain[at]
            ),
        ))
    }

    /// Whether these bytes stood in some file at some time, which may have begun any number of chunks before them.
    fn was_once(&self, seen: &Seen<'_>) -> bool {
        self.files.values().any(|written| {
            let end = written.end_before(seen.came);
            let mut begins = (0..=end).step_by(SMALLEST_BLOCK);
            begins.any(|begin| {
                let mut bytes = (begin + seen.offset..).zip(seen.bytes);
                bytes.all(|(at, byte)| written.ever_had(at, *byte))
            })
        })
    }

    /// The files that were closed, and their acked sizes.
    #[must_use]
    pub fn closed(&self) -> BTreeMap<FileId, u64> {
        self.files
            .iter()
            .filter(|(_, written)| written.closed.is_some())
            .filter_map(|(file, written)| Some((*file, written.acked.last()?.1)))
            .collect()
    }
}

/// Whether more may come after a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// More may come.
    Synced,
    /// It was the close.
    Closed,
}

impl Written {
    /// Whether this byte was this at any time. A history that was lost may have used the same numbers.
    fn ever_had(&self, at: u64, byte: u8) -> bool {
        let mut covering = self.writes.iter().filter(|write| write.covers(at));
        byte == 0 || covering.any(|write| write.data[at_usize(at - write.offset)] == byte)
    }
    fn end_before(&self, tick: Tick) -> u64 {
        end_of(&self.writes, tick)
    }
    /// The least and the most that its size may be which somebody asks for and is told of at these moments.
    fn sizes(&self, asked: Tick, told: Tick) -> (u64, u64) {
        let (mut least, mut most) = (0, 0);
        let mut from = 0;
        for nth in 0..=self.cuts.len() {
            let acked = self
                .acked
                .iter()
                .filter(|(at, _, cuts)| *cuts == nth && *at < asked);
            least = acked
                .map(|(_, size, _)| *size)
                .max()
                .unwrap_or(0)
                .max(least);
            let to = self
                .cuts
                .get(nth)
                .map_or(self.writes.len(), |cut| cut.writes);
            most = most.max(end_of(&self.writes[from..to], told));
            from = to;
            match self.cuts.get(nth) {
                Some(cut) if cut.acked.is_some_and(|acked| acked < asked) => {
                    (least, most) = (cut.len, cut.len);
                }
                Some(cut) if cut.asked < told => {
                    (least, most) = (least.min(cut.len), most.max(cut.len));
                }
                Some(_) | None => {}
            }
        }
        (least, most)
    }
    /// As [`Self::sizes`], of who opened it some time before, and may know of any size that it had since.
    fn sizes_since(&self, seen: &Seen<'_>) -> (u64, u64) {
        let since = |cut: &&Cut| {
            let before = cut.acked.is_some_and(|acked| acked < seen.opened);
            cut.asked < seen.came && !before
        };
        let lens = || self.cuts.iter().filter(since).map(|cut| cut.len);
        let (_, most) = self.sizes(seen.opened, seen.came);
        match lens().min() {
            None => (seen.size, most),
            Some(least) => {
                let ever = self.end_before(seen.came).max(lens().max().unwrap_or(0));
                (least, most.max(ever))
            }
        }
    }
}

fn end_of(writes: &[Write], tick: Tick) -> u64 {
    let called = writes
        .iter()
        .filter(|write| write.called < tick && !write.refused);
    called.map(Write::end).max().unwrap_or(0)
}

impl Write {
    /// Where what there may be of it ends.
    fn end(&self) -> u64 {
        (self.offset + self.data.len() as u64).min(self.limit)
    }
    fn meets(&self, other: &Self) -> bool {
        let end = |write: &Self| write.offset + write.data.len() as u64;
        self.offset < end(other) && other.offset < end(self)
    }
    fn covers(&self, at: u64) -> bool {
        (self.offset..self.offset + self.data.len() as u64).contains(&at)
    }
}

fn at_usize(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::bytes::Stamp;

    const FILE: FileId = FileId(9);

    fn stamp(operation: u32) -> Stamp {
        Stamp {
            salt: 1,
            client: 1,
            operation,
        }
    }
    /// 100 bytes synced at tick 5, 100 more called for at tick 6.
    fn contents() -> Contents {
        let mut contents = Contents::new(1);
        contents.created(FILE);
        contents.write_called((FILE, 0), 1, 0, stamp(1).fill(0, 100));
        contents.acked((FILE, 0), 2, 5, Last::Synced).unwrap();
        contents.write_called((FILE, 0), 6, 112, stamp(2).fill(112, 88));
        contents
    }
    fn seen(bytes: &[u8], asked: Tick) -> Seen<'_> {
        Seen {
            file: FILE,
            size: 200,
            offset: 0,
            len: bytes.len(),
            bytes,
            opened: asked,
            asked,
            came: asked + 1,
        }
    }

    #[test]
    fn synced_bytes_must_be_there_and_later_ones_may_be() {
        let mut contents = contents();
        let mut bytes = stamp(1).fill(0, 100).to_vec();
        bytes.resize(200, 0);
        assert_eq!(contents.check(&seen(&bytes, 7)), Ok(()));
        bytes[112..].copy_from_slice(&stamp(2).fill(112, 88));
        assert_eq!(contents.check(&seen(&bytes, 7)), Ok(()));
        assert_eq!(contents.verified, 400);
        assert!(
            contents
                .check(&Seen {
                    len: 201,
                    size: 201,
                    ..seen(&bytes, 7)
                })
                .is_err()
        );
        bytes[40] ^= 1;
        assert!(
            contents
                .check(&seen(&bytes, 7))
                .is_err_and(|v| v.oracle == "O2")
        );
        bytes[32..48].fill(0);
        assert!(
            contents
                .check(&seen(&bytes, 7))
                .is_err_and(|v| v.oracle == "O3")
        );
        // Asked for before the sync was acked: zeros were still right.
        assert_eq!(contents.check(&seen(&bytes[..100], 4)), Ok(()));
    }

    #[test]
    fn bytes_of_another_operation_and_bytes_nobody_wrote_are_seen() {
        let mut contents = contents();
        let bytes = stamp(3).fill(0, 100);
        let violation = contents.check(&seen(&bytes, 7)).unwrap_err();
        assert!(violation.what.contains("operation 3"), "{violation}");
        let mut bytes = vec![0; 200];
        bytes[..100].copy_from_slice(&stamp(1).fill(0, 100));
        bytes[105] = 1;
        assert!(contents.check(&seen(&bytes, 7)).is_err());
    }

    #[test]
    fn a_size_below_an_acked_one_or_above_all_that_was_written_is_seen() {
        let contents = contents();
        assert!(contents.check_size(FILE, 99, 7, 8).is_err());
        assert!(contents.check_size(FILE, 99, 4, 8).is_ok());
        assert!(contents.check_size(FILE, 200, 7, 8).is_ok());
        assert!(contents.check_size(FILE, 201, 7, 8).is_err());
    }

    #[test]
    fn of_what_was_written_over_what_was_before_the_last_sync_is_never_there_again() {
        let mut contents = contents();
        let over = |operation| stamp(operation).fill(50, 20);
        contents.write_called((FILE, 0), 8, 50, over(3));
        contents.write_called((FILE, 0), 9, 50, over(4));
        let holds = |contents: &mut Contents, operation, asked| {
            let mut bytes = stamp(1).fill(0, 100).to_vec();
            bytes[50..70].copy_from_slice(&over(operation));
            contents.check(&Seen {
                size: 100,
                ..seen(&bytes, asked)
            })
        };
        for operation in [1, 3, 4] {
            assert_eq!(holds(&mut contents, operation, 9), Ok(()));
        }
        contents.acked((FILE, 0), 10, 11, Last::Synced).unwrap();
        contents.write_called((FILE, 0), 12, 50, over(5));
        for (operation, due) in [(1, false), (3, false), (4, true), (5, true)] {
            let held = holds(&mut contents, operation, 13);
            assert_eq!(held.is_ok(), due, "operation {operation}: {held:?}");
        }
        assert_eq!(
            holds(&mut contents, 3, 10),
            Ok(()),
            "asked for before the ack"
        );
    }

    /// [`contents`], of which 100 bytes are reported, cut to 50 bytes by its writer at tick 20, or not known to be.
    fn cut(acked: Option<Tick>) -> Contents {
        let mut contents = contents();
        let (_, cut) = contents.cuts(FILE, Some(0), (100, 50), 20).unwrap();
        if let Some(acked) = acked {
            contents.cut_acked(FILE, cut, acked);
        }
        contents
    }

    #[test]
    fn what_was_cut_off_is_seen_when_it_is_there_again() {
        let whole = stamp(1).fill(0, 100);
        let mut gone = whole[..50].to_vec();
        gone.resize(100, 0);
        let longer = |acked| {
            let mut contents = cut(acked);
            let (_, cut) = contents.cuts(FILE, Some(0), (50, 100), 30).unwrap();
            contents.cut_acked(FILE, cut, 31);
            contents
        };
        let seen = |bytes, opened| Seen {
            size: 100,
            ..seen(bytes, opened)
        };
        let mut contents = longer(Some(21));
        assert_eq!(contents.check(&seen(&gone, 40)), Ok(()));
        assert!(contents.check(&seen(&whole, 40)).is_err());
        // Who has had it open since before the cut may know of both.
        for bytes in [&gone[..], &whole] {
            let before = Seen {
                asked: 40,
                came: 41,
                ..seen(bytes, 19)
            };
            assert_eq!(contents.check(&before), Ok(()));
        }
        // A cut that is not known to be made may be, or not; one that was refused was not.
        let mut unknown = cut(None);
        assert_eq!(unknown.check(&seen(&gone, 40)), Ok(()));
        assert_eq!(unknown.check(&seen(&whole, 40)), Ok(()));
        unknown.cut_refused(FILE, 0);
        assert!(unknown.check(&seen(&gone, 40)).is_err());
    }

    #[test]
    fn a_size_of_before_a_cut_is_seen_and_what_is_written_on_either_side_of_it_counts() {
        let contents = cut(Some(21));
        assert!(contents.check_size(FILE, 50, 22, 23).is_ok());
        assert!(contents.check_size(FILE, 100, 22, 23).is_err());
        assert!(contents.check_size(FILE, 100, 19, 20).is_ok());
        assert!(contents.check_size(FILE, 50, 19, 23).is_ok());
        let mut again = contents.clone();
        again.write_called((FILE, 0), 25, 60, stamp(3).fill(60, 10));
        assert_eq!(again.acked((FILE, 0), 26, 27, Last::Closed), Ok(()));
        assert_eq!(again.closed()[&FILE], 70);
        let mut before = contents;
        before.write_called((FILE, 0), 25, 40, stamp(3).fill(40, 10));
        assert_eq!(before.acked((FILE, 0), 26, 27, Last::Closed), Ok(()));
        assert_eq!(before.closed()[&FILE], 50);
    }

    #[test]
    fn what_came_of_a_cut_that_was_not_answered_is_known_when_the_file_is_opened_to_be_written() {
        let mut contents = cut(None);
        for end in [50, 100] {
            let mut opened = contents.clone();
            assert_eq!(opened.appending(FILE, end, 30), Ok(1));
            opened.write_called((FILE, 1), 31, end, stamp(9).fill(end, 5));
            opened.acked((FILE, 1), 32, 33, Last::Closed).unwrap();
            assert_eq!(opened.closed()[&FILE], end + 5);
            assert!(opened.check_size(FILE, end + 5, 34, 35).is_ok());
            assert!(opened.check_size(FILE, 155 - end, 34, 35).is_err());
        }
        assert!(contents.appending(FILE, 49, 30).is_err());
    }

    #[test]
    fn who_goes_on_writes_over_what_was_not_there_and_who_was_before_writes_no_more() {
        let mut contents = contents();
        assert!(contents.clone().appending(FILE, 99, 7).is_err());
        assert!(contents.clone().appending(FILE, 201, 7).is_err());
        // Of the second write 8 bytes are there.
        assert_eq!(contents.appending(FILE, 120, 7), Ok(1));
        contents.write_called((FILE, 1), 8, 120, stamp(3).fill(120, 60));
        contents.write_called((FILE, 0), 9, 180, stamp(4).fill(180, 20));
        contents.acked((FILE, 1), 10, 11, Last::Synced).unwrap();
        let mut bytes = stamp(1).fill(0, 100).to_vec();
        bytes.resize(112, 0);
        bytes.extend_from_slice(&stamp(2).fill(112, 8));
        bytes.extend_from_slice(&stamp(3).fill(120, 60));
        let seen = |bytes| Seen {
            size: 180,
            ..seen(bytes, 12)
        };
        assert_eq!(contents.check(&seen(&bytes)), Ok(()));
        let old = [&bytes[..120], &stamp(2).fill(120, 60)].concat();
        assert!(contents.check(&seen(&old)).is_err());
        assert!(contents.check_size(FILE, 200, 12, 13).is_err());
    }
}
