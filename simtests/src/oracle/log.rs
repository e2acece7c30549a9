//! O7: the log is the state: what the segments on a meta server's disk replay to is what its machine has.
//!
//! The segments are read with the product's reader, so a format that reader and writer both get wrong is not
//! seen here (the golden files see it); a record that is applied and not logged, logged and applied otherwise,
//! or durable in word only, is. It never asks the machine for anything but its state.
use super::Violation;
use crate::disk::DiskModel;
use bytes::Bytes;
use kfs_core::identity::{self, Identity};
use kfs_core::ids::LogSeq;
use kfs_core::meta::checkpoint::{Loader, format as checkpoint};
use kfs_core::meta::oplog::{
    DIR, Follows, More, SEGMENT_HEADER_BYTES, SegmentEnd, SegmentHeader, SegmentReader,
    segment_first,
};
use kfs_core::meta::record::{Logged, Record};
use kfs_core::meta::state::State;
use std::collections::BTreeMap;

/// The records of all segments on a disk, in order, as a start would read them: of a log with a mirror, what either
/// copy has.
///
/// # Errors
/// If the log is damaged: no crash does that to it.
pub fn records(disk: &DiskModel) -> Result<Vec<Logged>, Violation> {
    let damaged = |bad: Bad| {
        let what = format!("the log on the disk: {}", bad.what);
        Violation::new("O7", "N3", what)
    };
    let (own, mirror) = (segments(disk, ""), segments(disk, MIRROR));
    if !disk.paths().any(|path| path.starts_with(MIRROR)) {
        return read(&own).map_err(damaged);
    }
    // One of them may end before the other.
    match (mended(&own, &mirror), mended(&mirror, &own)) {
        (Ok(own), Ok(mirror)) if own.len() < mirror.len() => Ok(mirror),
        (Ok(records), _) | (Err(_), Ok(records)) => Ok(records),
        (Err(bad), Err(_)) => Err(damaged(bad)),
    }
}

/// Where the files of a log mirror stand.
const MIRROR: &str = "mirror/";
/// Pages of a batch, at most.
const PAGES_MAX: usize = 32;

type Segments<'a> = BTreeMap<LogSeq, (&'a str, Bytes)>;

/// Why a copy of the log cannot be read, and where.
struct Bad {
    at: (LogSeq, u64),
    what: String,
}

/// Those that checkpoints stand for, and then those that are there.
fn segments<'a>(disk: &'a DiskModel, root: &str) -> Segments<'a> {
    let first = |path: &str| segment_first(path.strip_prefix(DIR)?.strip_prefix('/')?);
    let mut segments = Segments::new();
    for (path, bytes) in disk.archived() {
        segments.extend(first(path).map(|first| (first, (path, bytes.clone()))));
    }
    for path in disk.paths() {
        let bytes = || disk.contents(path).unwrap_or_default();
        let first = path.strip_prefix(root).and_then(first);
        segments.extend(first.map(|first| (first, (path, bytes()))));
    }
    segments
}

/// The records of a copy, with pages of the other one where it is bad.
fn mended<'a>(own: &Segments<'a>, other: &Segments<'a>) -> Result<Vec<Logged>, Bad> {
    let mut own = own.clone();
    for (first, segment) in other {
        own.entry(*first).or_insert_with(|| segment.clone());
    }
    loop {
        let bad = match read(&own) {
            Ok(records) => return Ok(records),
            Err(bad) => bad,
        };
        let (first, offset) = bad.at;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let patched = (1..=PAGES_MAX).find_map(|pages| {
            let (path, mut bytes) = own.get(&first).map(|(path, it)| (*path, it.to_vec()))?;
            let (_, with) = other.get(&first)?;
            let to = (from + pages * SEGMENT_HEADER_BYTES).min(with.len());
            bytes.resize(bytes.len().max(to), 0);
            bytes
                .get_mut(from..to)?
                .copy_from_slice(with.get(from..to)?);
            let mut patched = own.clone();
            patched.insert(first, (path, bytes.into()));
            let gets_further = match read(&patched) {
                Ok(_) => true,
                Err(next) => next.at > bad.at,
            };
            gets_further.then_some(patched)
        });
        own = patched.ok_or(bad)?;
    }
}

fn read(segments: &Segments<'_>) -> Result<Vec<Logged>, Bad> {
    let of = |path: &str| {
        let named = segments.iter().find(|(_, (other, _))| *other == path);
        named.map_or(LogSeq(0), |(first, _)| *first)
    };
    let mut records: Vec<Logged> = Vec::new();
    let mut before: Option<SegmentEnd> = None;
    for (nth, (first, (path, bytes))) in segments.iter().enumerate() {
        let bad = |what: String| Bad {
            at: (*first, 0),
            what: format!("{path}{what}"),
        };
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>();
        let header = header.ok_or_else(|| bad(" is cut short".into()))?;
        let header = SegmentHeader::decode(header).map_err(|why| bad(format!(": {why}")))?;
        let follows = if nth + 1 < segments.len() {
            Follows::Segment
        } else {
            Follows::Nothing
        };
        let mut reader = SegmentReader::new((*path).into(), header.cluster, before.take(), follows);
        let mut sink = |logged| {
            records.push(logged);
            Ok(())
        };
        before = reader
            .feed(bytes, More::Ends, &mut sink)
            .map_err(|damage| Bad {
                at: (of(&damage.file), damage.offset),
                what: damage.to_string(),
            })?;
        if before.is_none() {
            return Err(bad(" has no end".into()));
        }
    }
    Ok(records)
}

/// Compares each checkpoint on a disk with what the log gives up to its end.
///
/// # Errors
/// If one cannot be loaded, or gives another state.
pub fn checkpoints(disk: &DiskModel, records: &[Logged]) -> Result<(), Violation> {
    let Some(cluster) = records.iter().find_map(|logged| match &logged.record {
        Record::EpochBegun(begun) => Some(begun.cluster),
        _ => None,
    }) else {
        return Ok(());
    };
    for path in disk.paths() {
        let name = path.strip_prefix(checkpoint::DIR);
        let name = name.and_then(|name| name.strip_prefix('/'));
        let Some(seq) = name.and_then(checkpoint::checkpoint_seq) else {
            continue;
        };
        let wrong = |what: String| Violation::new("O7", "N3", format!("{path}: {what}"));
        let bytes = disk.contents(path).unwrap_or_default();
        let mut loader = Loader::new(path.to_owned(), cluster);
        let loaded = loader.feed(&bytes, More::Ends);
        let loaded = loaded.map_err(|damage| wrong(damage.to_string()))?;
        let (loaded, _) = loaded.ok_or_else(|| wrong("it has no end".into()))?;
        let up_to = records.iter().take_while(|logged| logged.seq <= seq);
        let replayed = State::replay(up_to).map_err(&wrong)?;
        if let Some(difference) = loaded.difference(&replayed) {
            return Err(wrong(format!("against the log: {difference}")));
        }
    }
    Ok(())
}

/// A checkpoint has its name when the log is durable up to it.
///
/// # Errors
/// If one on this disk is ahead of the log, or the identity names an epoch that the log lacks.
pub fn ahead(disk: &DiskModel, records: &[Logged]) -> Result<(), Violation> {
    let end = records.last().map_or(LogSeq(0), |logged| logged.seq);
    let epochs = records.iter().filter_map(|logged| match &logged.record {
        Record::EpochBegun(begun) => Some(begun.epoch),
        _ => None,
    });
    let identity = disk.contents(identity::NAME);
    let identity = identity.and_then(|bytes| Identity::decode(&bytes).ok());
    let seen = identity.map(|identity| identity.seen.0);
    if let (Some(seen), Some(newest)) = (seen, epochs.max())
        && seen > newest
    {
        let what =
            format!("the identity has seen epoch {seen}, and the log ends in epoch {newest}");
        return Err(Violation::new("O7", "N3", what));
    }
    let name = |path: &str| {
        let name = path.strip_prefix(checkpoint::DIR)?;
        checkpoint::checkpoint_seq(name.strip_prefix('/')?)
    };
    match disk.paths().filter_map(name).max() {
        Some(newest) if newest > end => {
            let what = format!("checkpoint {newest} is there, and the log ends with record {end}");
            Err(Violation::new("O7", "N3", what))
        }
        _ => Ok(()),
    }
}

/// What a backup had is there after its restoration, whatever comes behind it.
///
/// # Errors
/// If the log on the disk does not begin with these records.
pub fn goes_on(disk: &DiskModel, from: &[Logged]) -> Result<(), Violation> {
    let records = records(disk)?;
    match records.iter().zip(from).find(|(found, had)| found != had) {
        None if records.len() >= from.len() => checkpoints(disk, &records),
        differs => {
            let had = from.last().map_or(LogSeq(0), |logged| logged.seq);
            let found = records.last().map_or(LogSeq(0), |logged| logged.seq);
            let what = format!(
                "the backup that was restored reaches record {had}; the log ends with {found}, and differs first at {differs:?}"
            );
            Err(Violation::new("O7", "N3", what))
        }
    }
}

/// The states of one meta server's process since the last one that is known to be durable. Snapshots are
/// cheap: the maps are persistent.
#[derive(Clone, Debug, Default)]
pub struct LiveStates {
    states: BTreeMap<LogSeq, State>,
    durable: LogSeq,
    /// States that were compared with the log.
    pub compared: u64,
}

impl LiveStates {
    /// A state of the machine between two inputs, durable up to that record.
    pub fn saw(&mut self, state: &State, durable: LogSeq) {
        self.durable = self.durable.max(durable);
        self.states
            .entry(state.seq())
            .or_insert_with(|| state.clone());
        // Of those that are durable the newest is enough: the log has at least that.
        let settled = self.states.range(..=self.durable).next_back();
        if let Some(oldest) = settled.map(|(seq, _)| *seq) {
            self.states = self.states.split_off(&oldest);
        }
    }

    /// The process died; the next one says anew what it has. What was durable stays so.
    pub fn died(&mut self) {
        let durable = self.durable;
        self.states.retain(|seq, _| *seq <= durable);
    }

    /// Compares with the log on a disk: as it is now, or as a power loss left it.
    ///
    /// # Errors
    /// If the log ends before what was said to be durable, or gives another state than the machine had.
    pub fn check(&mut self, disk: &DiskModel) -> Result<(), Violation> {
        let records = records(disk)?;
        let end = records.last().map_or(LogSeq(0), |logged| logged.seq);
        if end < self.durable {
            let durable = self.durable;
            let what = format!("record {durable} was durable; the log on the disk ends with {end}");
            return Err(Violation::new("O7", "N3", what));
        }
        let Some((seq, live)) = self.states.range(..=end).next_back() else {
            return Ok(());
        };
        let up_to = records.iter().take_while(|logged| logged.seq <= *seq);
        let replayed = State::replay(up_to).map_err(|misfit| {
            Violation::new(
                "O7",
                "N3",
                format!("the log on the disk does not replay: {misfit}"),
            )
        })?;
        self.compared += 1;
        checkpoints(disk, &records)?;
        match replayed.difference(live) {
            None => Ok(()),
            Some(difference) => Err(Violation::new(
                "O7",
                "N3",
                format!("state {seq}: the log on the disk against the machine: {difference}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::meta::tests::{CLUSTER, created, logged, removed, with_a_file};
    use bytes::Bytes;
    use kfs_core::ids::Epoch;
    use kfs_core::machine::{DiskOp, FileName, SyncMode};
    use kfs_core::meta::oplog::{Forming, segment_name};
    use kfs_core::meta::record::Record;

    const SALT: u64 = 0x5A17;

    /// A disk with these records in two segments.
    fn disk(records: &[Logged], first: usize) -> DiskModel {
        let mut disk = DiskModel::new(1 << 24);
        let dir = FileName::new(DIR);
        disk.apply(&DiskOp::MakeDir { dir }).unwrap();
        let mut chain = 0;
        for part in [&records[..first], &records[first..]] {
            let Some(begins) = part.first().map(|logged| logged.seq) else {
                continue;
            };
            let header = SegmentHeader {
                cluster: CLUSTER,
                epoch: Epoch(1),
                first: begins,
                salt: SALT,
                chain,
            };
            let mut bytes = header.encode();
            for logged in part {
                let mut forming = Forming::new(logged.seq);
                forming.push(logged);
                let (batch, after) = forming.close(SALT, LogSeq(logged.seq.0 - 1), chain);
                chain = after;
                bytes.extend(batch);
            }
            let file = FileName::new(&format!("{DIR}/{}", segment_name(begins)));
            disk.apply(&DiskOp::Create {
                file: file.clone(),
                zeroed: 0,
            })
            .unwrap();
            let op = DiskOp::Write {
                file,
                offset: 0,
                data: vec![Bytes::from(bytes)],
                sync: SyncMode::Now,
            };
            disk.apply(&op).unwrap();
        }
        disk
    }
    fn live(records: &[Logged], durable: u64) -> LiveStates {
        let mut live = LiveStates::default();
        for end in 1..=records.len() {
            let state = State::replay(&records[..end]).unwrap();
            let seq = state.seq();
            live.saw(&state, seq.min(LogSeq(durable)));
        }
        live
    }
    fn with(more: Record) -> Vec<Logged> {
        let mut records = with_a_file();
        records.push(more);
        logged(records)
    }

    #[test]
    fn a_log_of_several_segments_is_the_state() {
        let records = logged(with_a_file());
        let disk = disk(&records, 3);
        assert_eq!(super::records(&disk).unwrap(), records);
        let mut live = live(&records, 7);
        live.check(&disk).unwrap();
        assert_eq!((live.compared, live.states.len()), (1, 1));
    }

    #[test]
    fn a_record_that_was_not_durable_may_be_missing_and_one_that_was_may_not() {
        let records = with(created("g", 7));
        let shorter = disk(&records[..7], 3);
        live(&records, 7).check(&shorter).unwrap();
        let lost = live(&records, 8).check(&shorter).unwrap_err();
        assert_eq!((lost.oracle, lost.promise), ("O7", "N3"), "{lost}");
        let mut died = live(&records, 7);
        died.died();
        died.check(&disk(&with(removed("f")), 3)).unwrap();
    }

    #[test]
    fn a_state_that_is_not_what_the_log_says_is_named_by_part_and_key() {
        let due = with(created("g", 7));
        let other = with(created("h", 7));
        let seen = live(&due, 8).check(&disk(&other, 3)).unwrap_err();
        assert!(
            seen.what.contains("tree, at") && seen.what.contains("'g'"),
            "{seen}"
        );
        assert!(seen.what.len() < 300, "{seen}");
    }

    #[test]
    fn a_log_that_is_damaged_in_its_middle_is_seen() {
        let records = logged(with_a_file());
        let mut disk = disk(&records, 3);
        let op = DiskOp::Write {
            file: FileName::new("log/log.1"),
            offset: 4_096 + 70,
            data: vec![Bytes::from_static(b"x")],
            sync: SyncMode::Now,
        };
        disk.apply(&op).unwrap();
        assert!(live(&records, 7).check(&disk).is_err());
    }
}
