//! `kfs verify`: whether a data directory is whole, and up to where.
use super::super::failure::{Exit, Failure};
use super::super::screen::Screen;
use super::super::units::size;
use super::{MetaDir, Trouble, identity, load, unreadable};
use kfs_core::block::{crc, padded_sum};
use kfs_core::chunk::header::{Header, Slot};
use kfs_core::chunk::name::{CHUNKS, ChunkName};
use kfs_core::identity::{Identity, Owner};
use kfs_core::ids::LogSeq;
use kfs_core::limits::{Geometry, HEADER_BYTES};
use kfs_core::meta::state::State;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What was looked at, and what is wrong with it.
#[derive(Serialize, Debug)]
struct Finding {
    /// `checkpoint`, `log`, `chunk`, or `directory`, which comes last.
    what: &'static str,
    /// Of a file.
    file: Option<String>,
    whole: bool,
    /// For people.
    text: String,
}

/// Reads all that is there, and says what is damaged; also that a log ends before the record it has to reach.
pub(crate) fn verify(
    dir: &Path,
    reaches: Option<LogSeq>,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let identity = identity(dir)?;
    let mut told = Told { screen, bad: 0 };
    match identity.owner {
        Owner::Meta | Owner::Mirror => meta(dir, identity, reaches, &mut told)?,
        Owner::Chunk if reaches.is_some() => {
            let what = format!("{} is a chunkserver's: it has no log", dir.display());
            return Err(Failure::usage(what));
        }
        Owner::Chunk => chunks(dir, &mut told)?,
    }
    let bad = told.bad;
    let text = match bad {
        0 => "whole".to_owned(),
        1 => "DAMAGED: one thing is wrong".to_owned(),
        more => format!("DAMAGED: {more} things are wrong"),
    };
    told.say("directory", None, bad == 0, text)?;
    Ok(if bad == 0 { Exit::Done } else { Exit::Corrupt })
}

struct Told<'a> {
    screen: &'a Screen,
    bad: u64,
}

impl Told<'_> {
    fn say(
        &mut self,
        what: &'static str,
        file: Option<&Path>,
        whole: bool,
        text: String,
    ) -> Result<(), Failure> {
        self.bad += u64::from(!whole && what != "directory");
        let file = file.map(|file| file.display().to_string());
        self.screen.line(match &file {
            Some(file) => format!("{what:<10} {file}: {text}"),
            None => format!("{what:<10} {text}"),
        })?;
        self.screen.json(&Finding {
            what,
            file,
            whole,
            text,
        })
    }
}

/// Checkpoints by themselves, the log by itself, and the one against the other.
fn meta(
    dir: &Path,
    identity: Identity,
    reaches: Option<LogSeq>,
    told: &mut Told<'_>,
) -> Result<(), Failure> {
    let cluster = identity.cluster;
    let found = MetaDir::open(dir, identity)?;
    let mut loaded = BTreeMap::new();
    for (seq, path) in &found.checkpoints {
        match load(cluster, path) {
            Ok((state, summary)) if state.seq() == *seq => {
                let text = format!(
                    "whole, {} entries in {}, state hash {:016x}",
                    summary.entries,
                    size(summary.bytes),
                    summary.hash
                );
                told.say("checkpoint", Some(path), true, text)?;
                loaded.insert(*seq, state);
            }
            Ok((state, _)) => {
                let text = format!("it is of record {}", state.seq());
                told.say("checkpoint", Some(path), false, text)?;
            }
            Err(Trouble::Damage(damage)) => {
                told.say("checkpoint", Some(path), false, damage.to_string())?;
            }
            Err(Trouble::Failure(failure)) => {
                told.say("checkpoint", Some(path), false, failure.text())?
            }
        }
    }
    let last = log(&found, loaded, told)?;
    match (last, reaches) {
        (Some(last), Some(reaches)) if last < reaches => {
            let text = format!("it ends with record {last}, and has to reach record {reaches}");
            told.say("log", None, false, text)
        }
        _ => Ok(()),
    }
}

/// Gives the last record that there is; `None` if not even the first one could be read.
fn log(
    found: &MetaDir,
    mut loaded: BTreeMap<LogSeq, State>,
    told: &mut Told<'_>,
) -> Result<Option<LogSeq>, Failure> {
    if found.identity.owner == Owner::Mirror {
        return mirror(found, told).map(Some);
    }
    let Some((first, _)) = found.segments.first() else {
        told.say("log", None, false, "there is no segment".into())?;
        return Ok(None);
    };
    // What stands for the records before the first one that is there.
    let start = if *first == LogSeq(1) {
        Some(State::default())
    } else {
        let enough = |(seq, _): &(&LogSeq, &State)| first.0 <= seq.0 + 1;
        loaded.iter().find(enough).map(|(_, state)| state.clone())
    };
    let Some(mut state) = start else {
        let text = format!(
            "it begins with record {first}, and no whole checkpoint stands for those before"
        );
        told.say("log", None, false, text)?;
        return Ok(None);
    };
    let mut differs = Vec::new();
    loaded.remove(&state.seq());
    let read = found.read_log(&mut |logged| {
        if logged.seq <= state.seq() {
            return Ok(());
        }
        state.apply(&logged)?;
        if let Some(checkpoint) = loaded.remove(&logged.seq)
            && let Some(difference) = checkpoint.difference(&state)
        {
            differs.push(format!(
                "checkpoint {} is not what the log gives: {difference}",
                logged.seq
            ));
        }
        Ok(())
    });
    match read {
        Ok(end) => {
            let torn = end.is_some_and(|end| end.torn);
            let torn = if torn {
                "; it ends in a write that was cut, of which nothing was acknowledged"
            } else {
                ""
            };
            let text = format!(
                "whole from record {first} to record {} in {} segments{torn}",
                state.seq(),
                found.segments.len()
            );
            told.say("log", None, true, text)?;
        }
        Err(Trouble::Damage(damage)) => {
            let text = format!("whole up to record {}; {damage}", state.seq());
            told.say("log", None, false, text)?;
        }
        Err(Trouble::Failure(failure)) => told.say("log", None, false, failure.text())?,
    }
    for text in differs {
        told.say("checkpoint", None, false, text)?;
    }
    for seq in loaded.keys().filter(|seq| **seq > state.seq()) {
        let text = format!(
            "checkpoint {seq} is ahead of the log, which ends with record {}",
            state.seq()
        );
        told.say("checkpoint", None, false, text)?;
    }
    Ok(Some(state.seq()))
}

/// A mirror has the log alone: what checkpoints of the data directory stand for is not in it, so that its records
/// are read, and applied only if it has them all.
fn mirror(found: &MetaDir, told: &mut Told<'_>) -> Result<LogSeq, Failure> {
    let Some((first, _)) = found.segments.first() else {
        let text = "there is no segment: nothing was mirrored yet".to_owned();
        told.say("log", None, true, text)?;
        return Ok(LogSeq(0));
    };
    let (mut state, mut last) = (State::default(), LogSeq(0));
    let read = found.read_log(&mut |logged| {
        last = logged.seq;
        if *first == LogSeq(1) {
            state.apply(&logged)?;
        }
        Ok(())
    });
    let segments = found.segments.len();
    match read {
        Ok(_) => {
            let text = format!(
                "a mirror, whole from record {first} to record {last} in {segments} segments"
            );
            told.say("log", None, true, text)?;
        }
        Err(Trouble::Damage(damage)) => {
            let text = format!("a mirror, whole up to record {last}; {damage}");
            told.say("log", None, false, text)?;
        }
        Err(Trouble::Failure(failure)) => told.say("log", None, false, failure.text())?,
    }
    Ok(last)
}

/// Every block of every replica against its sum.
fn chunks(dir: &Path, told: &mut Told<'_>) -> Result<(), Failure> {
    let dir = dir.join(CHUNKS);
    let mut paths = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|error| unreadable(&dir, &error))? {
        paths.push(entry.map_err(|error| unreadable(&dir, &error))?.path());
    }
    paths.sort();
    let (mut replicas, mut blocks, mut bytes) = (0_u64, 0_u64, 0_u64);
    for path in &paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(ChunkName::parse) else {
            let text = "not the name of a replica; left alone".to_owned();
            told.say("chunk", Some(path), true, text)?;
            continue;
        };
        replicas += 1;
        let mut verified = |len: u64| {
            blocks += 1;
            bytes += len;
        };
        for wrong in replica(path, name, &mut verified) {
            told.say("chunk", Some(path), false, wrong)?;
        }
    }
    let text = format!(
        "{replicas} replicas, {blocks} blocks verified, {}",
        size(bytes)
    );
    told.say("chunk", None, true, text)
}

/// The pages of a block that a chunkserver writes in their places when it starts, as a crash may have torn them there,
/// and where in the block they belong. What is not as its header says is left alone, there as here.
fn redo_run(file: &File, header: &Header, block: usize) -> Option<(usize, Vec<u8>)> {
    let geometry = Geometry::REAL;
    let mut runs = header.redo.iter().enumerate();
    let (nth, run) = runs.find(|(_, run)| run.block(geometry) == block)?;
    let mut bytes = vec![0; run.len(header.len, geometry)];
    let from = Slot::of(header.generation).redo_offset(nth, geometry);
    file.read_exact_at(&mut bytes, from).ok()?;
    let within = run.at(geometry) % u64::from(geometry.block_bytes);
    let within = usize::try_from(within).expect("a block is short");
    (crc(&bytes) == run.crc).then_some((within, bytes))
}

/// What is wrong with a replica.
fn replica(path: &Path, name: ChunkName, verified: &mut impl FnMut(u64)) -> Vec<String> {
    let geometry = Geometry::REAL;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return vec![format!("cannot be read: {error}")],
    };
    let head = usize::try_from(HEADER_BYTES).expect("a header is short");
    let mut bytes = vec![0; head];
    if let Err(error) = file.read_exact_at(&mut bytes, 0) {
        return vec![format!("its header cannot be read: {error}")];
    }
    let header = match Header::choose(&bytes, name, geometry) {
        Ok(header) => header,
        Err(error) => return vec![format!("its header cannot be used: {error}")],
    };
    let mut wrong = Vec::new();
    let block_bytes = u64::from(geometry.block_bytes);
    for block in 0..header.len.div_ceil(block_bytes) {
        let nth = usize::try_from(block).expect("a chunk has few blocks");
        let Some(sum) = header.sum(nth) else {
            continue;
        };
        let len = block_bytes.min(header.len - block * block_bytes);
        let mut bytes = vec![0; usize::try_from(len).expect("a block is short")];
        if let Err(error) = file.read_exact_at(&mut bytes, HEADER_BYTES + block * block_bytes) {
            wrong.push(format!("block {block} cannot be read: {error}"));
            continue;
        }
        if let Some((from, run)) = redo_run(&file, &header, nth)
            && let Some(place) = bytes.get_mut(from..from + run.len())
        {
            place.copy_from_slice(&run);
        }
        let found = padded_sum(&bytes, geometry.block_bytes);
        if found == sum {
            verified(len);
        } else {
            wrong.push(format!(
                "block {block}: its sum is 0x{found:08X}, its header says 0x{sum:08X}"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::chunk::header::RedoRun;
    use kfs_core::ids::{ChunkId, ClusterId, FileId, Incarnation, Version, WriteSeq};
    use std::os::unix::fs::FileExt;

    const PAGE: usize = 4_096;

    /// A replica of a page and a half, the second page of which is in its redo slot and perhaps in its place.
    fn file(path: &Path, place: &[u8], redo: &[u8]) -> ChunkName {
        let geometry = Geometry::REAL;
        let data = vec![7; PAGE + PAGE / 2];
        let name = ChunkName {
            file: FileId(1),
            chunk: ChunkId(2),
            version: Version(3),
        };
        let header = Header {
            name,
            len: data.len() as u64,
            sums: vec![Some(padded_sum(&data, geometry.block_bytes))],
            generation: 3,
            incarnation: Incarnation(1),
            cluster: ClusterId(1),
            wseq: WriteSeq(4),
            pieces: Vec::new(),
            redo: vec![RedoRun {
                page: 1,
                pages: 1,
                crc: crc(&data[PAGE..]),
            }],
        };
        let file = File::create(path).unwrap();
        let slot = Slot::of(header.generation);
        file.write_all_at(&header.encode(), slot.offset() as u64)
            .unwrap();
        file.write_all_at(&data[..PAGE], HEADER_BYTES).unwrap();
        file.write_all_at(place, HEADER_BYTES + PAGE as u64)
            .unwrap();
        file.write_all_at(redo, slot.redo_offset(0, geometry))
            .unwrap();
        name
    }

    #[test]
    fn a_page_that_a_crash_kept_from_its_place_is_no_damage_while_it_stands_behind_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.2.3");
        let (good, torn) = (vec![7; PAGE / 2], vec![9; PAGE / 2]);
        for (place, redo, wrong) in [
            (&good, &good, 0),
            (&torn, &good, 0),
            (&good, &torn, 0),
            (&torn, &torn, 1),
        ] {
            let name = file(&path, place, redo);
            let found = replica(&path, name, &mut |_| ());
            assert_eq!(found.len(), wrong, "{found:?}");
        }
    }
}
