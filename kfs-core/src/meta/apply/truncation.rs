//! A file gets another size, whatever it had: what is behind the smaller one of the two goes.
use super::super::record::{BehindReclaimed, Fate, Truncated};
use super::super::state::{Node, State};
use super::removal::{drop_chunk, drop_chunks};
use super::{Gone, Step, ensure};
use crate::ids::{FileId, ID_LIMIT};
use crate::planted::{self, Bug};
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::Done;

pub(super) fn truncated(state: &mut State, r: &Truncated, gone: &mut Gone) -> Step {
    ensure(state.is_written(r.file), "nobody writes the file")?;
    ensure(r.size < ID_LIMIT, "it is more than a file can have")?;
    ensure(
        !state.behind.contains_key(&r.file),
        "chunks behind an earlier cut are still there",
    )?;
    let geometry = state.geometry.ok_or("there is no epoch yet")?;
    let bytes = &mut state.bytes;
    let before = state.inodes.update(&r.file, |inode| {
        let Node::File { size, .. } = &mut inode.node else {
            return Err("a directory has no size");
        };
        let others = *bytes - *size;
        let all = others.checked_add(r.size);
        *bytes = all.ok_or("the sizes of all files are past what can be counted")?;
        (inode.mtime, inode.ctime) = (r.time, r.time);
        Ok(core::mem::replace(size, r.size))
    });
    let before = before.ok_or("the file is not there")??;
    // What is there of the file is below both sizes.
    let end = before.min(r.size);
    let first_behind = end.div_ceil(geometry.chunk_bytes());
    match r.behind {
        Fate::Dropped => drop_chunks(state, r.file, first_behind..=u64::MAX, gone)?,
        Fate::Kept => {
            state.behind.insert(r.file, first_behind);
        }
    }
    let seen = (r.file, 0)..(r.file, first_behind);
    let unnamed: Vec<(FileId, u64)> = state.unnamed.range(seen).copied().collect();
    for at in unnamed {
        drop_chunk(state, at, gone)?;
    }
    let (index, within) = geometry.chunk_at(end);
    if within > 0 && (r.size < before || !planted::is(Bug::ExtendedUncut)) {
        cut_chunk(state, (r.file, index), within)?;
    }
    Ok(Done::Ok)
}

/// A file ends in this chunk, or went on behind it with nothing. What its replicas have behind that, or behind what was
/// reported before, does not count, and they are to be cut there: unless it is known that they have nothing more.
fn cut_chunk(state: &mut State, at: (FileId, u64), within: u64) -> Result<(), &'static str> {
    let cut = state.chunks.update(&at, |chunk| {
        let synced = chunk.synced.ok_or("no report has named the chunk")?;
        if chunk.sealed.is_some() && synced.len <= within {
            return Ok(None);
        }
        chunk.sealed = None;
        let len = synced.len.min(within);
        chunk.synced = Some(Durable { len, ..synced });
        Ok(Some(chunk.chunk))
    });
    if let Some(Some(chunk)) = cut.transpose()?
        && !planted::is(Bug::CutForgotten)
    {
        state.cuts.insert(chunk);
    }
    Ok(())
}

pub(super) fn behind_reclaimed(state: &mut State, r: &BehindReclaimed, gone: &mut Gone) -> Step {
    let first = *state
        .behind
        .get(&r.file)
        .ok_or("nothing is behind the end of the file")?;
    match r.below {
        Some(below) => {
            ensure(below > first, "it takes no chunk")?;
            drop_chunks(state, r.file, first..=below - 1, gone)?;
        }
        None => {
            drop_chunks(state, r.file, first..=u64::MAX, gone)?;
            state.behind.remove(&r.file);
        }
    }
    Ok(Done::Ok)
}
