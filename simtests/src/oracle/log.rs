//! O7: the log is the state: what the segments on a meta server's disk replay to is what its machine has.
//!
//! The segments are read with the product's reader, so a format that reader and writer both get wrong is not
//! seen here (the golden files see it); a record that is applied and not logged, logged and applied otherwise,
//! or durable in word only, is. It never asks the machine for anything but its state.
use super::Violation;
use crate::disk::DiskModel;
use bytes::Bytes;
use kfs_core::ids::LogSeq;
use kfs_core::meta::checkpoint::{Loader, format as checkpoint};
use kfs_core::meta::oplog::{
    DIR, Follows, More, SEGMENT_HEADER_BYTES, SegmentEnd, SegmentHeader, SegmentReader,
    segment_first,
};
use kfs_core::meta::record::{Logged, Record};
use kfs_core::meta::state::State;
use std::collections::BTreeMap;

/// The records of all segments on a disk, in order, as a start would read them.
///
/// # Errors
/// If the log is damaged: no crash does that to it.
pub fn records(disk: &DiskModel) -> Result<Vec<Logged>, Violation> {
    let damaged = |what: String| Violation::new("O7", "N3", format!("the log on the disk: {what}"));
    let first = |path: &str| segment_first(path.strip_prefix(DIR)?.strip_prefix('/')?);
    // Those that checkpoints stand for, and then those that are there.
    let mut segments: BTreeMap<LogSeq, (&str, Bytes)> = BTreeMap::new();
    for (path, bytes) in disk.archived() {
        segments.extend(first(path).map(|first| (first, (path, bytes.clone()))));
    }
    for path in disk.paths() {
        let bytes = || disk.contents(path).unwrap_or_default();
        segments.extend(first(path).map(|first| (first, (path, bytes()))));
    }
    let mut records: Vec<Logged> = Vec::new();
    let mut before: Option<SegmentEnd> = None;
    for (nth, (path, bytes)) in segments.values().enumerate() {
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>();
        let header = header.ok_or_else(|| damaged(format!("{path} is cut short")))?;
        let header =
            SegmentHeader::decode(header).map_err(|why| damaged(format!("{path}: {why}")))?;
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
            .map_err(|damage| damaged(damage.to_string()))?;
        if before.is_none() {
            return Err(damaged(format!("{path} has no end")));
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
