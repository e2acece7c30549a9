//! What goes: names, the files and directories behind them, and their chunks, at once or bit by bit.
use super::super::key::{Key, Name};
use super::super::record::{
    DirectoryRemoved, Fate, FileRemoved, FilesReclaimed, TreeDetached, TreeReclaimed,
};
use super::super::state::{NOWHERE, Node, State};
use super::{Freed, Gone, Step, detach, ensure, forget_temporary};
use crate::ids::FileId;
use crate::planted::{self, Bug};
use crate::wire::client_meta::Done;
use core::ops::RangeInclusive;

pub(super) fn file_removed(state: &mut State, r: &FileRemoved, gone: &mut Gone) -> Step {
    let file = state.tree.get(&r.key).ok_or("the name is not there")?;
    detach(state, &r.key, r.time)?;
    lose_name(state, file, r.fate, gone)?;
    Ok(Done::Ok)
}

pub(super) fn directory_removed(state: &mut State, r: &DirectoryRemoved, gone: &mut Gone) -> Step {
    let file = state.tree.get(&r.key).ok_or("the name is not there")?;
    detach(state, &r.key, r.time)?;
    drop_directory(state, file, gone)?;
    Ok(Done::Ok)
}

pub(super) fn tree_detached(state: &mut State, r: &TreeDetached) -> Step {
    let dir = state.tree.get(&r.key).ok_or("the name is not there")?;
    detach(state, &r.key, r.time)?;
    stands_nowhere(state, dir)?;
    Ok(Done::Ok)
}

/// A directory that lost its name stands nowhere from now on.
fn stands_nowhere(state: &mut State, dir: FileId) -> Result<(), &'static str> {
    let entries = state.inodes.update(&dir, |inode| match &mut inode.node {
        Node::Directory {
            parent, entries, ..
        } => {
            *parent = NOWHERE;
            Ok(*entries)
        }
        Node::File { .. } => Err("it is not a directory"),
    });
    state.detached_entries += entries.ok_or("the directory is not there")??;
    state.detached.insert(dir);
    Ok(())
}

pub(super) fn tree_reclaimed(state: &mut State, r: &TreeReclaimed, gone: &mut Gone) -> Step {
    ensure(
        state.detached.contains(&r.dir),
        "the directory stands somewhere",
    )?;
    ensure(
        r.kept.is_sorted_by(|a, b| a < b),
        "what it keeps is out of order",
    )?;
    let first: Vec<(Name, FileId)> = state
        .tree
        .after(r.dir, b"")
        .take(r.entries as usize)
        .collect();
    ensure(
        first.len() == r.entries as usize,
        "the directory has fewer names",
    )?;
    let (mut below, mut kept) = (0, 0);
    for (name, file) in first {
        let parent = r.dir;
        state.tree.remove(&Key { parent, name });
        let node = state.inodes.get(&file).map(|inode| inode.node);
        match node.ok_or("a name stands for nothing")? {
            Node::File { .. } => {
                let fate = match r.kept.binary_search(&file) {
                    Ok(_) => Fate::Kept,
                    Err(_) => Fate::Dropped,
                };
                kept += usize::from(fate == Fate::Kept);
                lose_name(state, file, fate, gone)?;
            }
            Node::Directory { entries: 0, .. } => {
                below += 1;
                drop_directory(state, file, gone)?;
            }
            Node::Directory { .. } => {
                below += 1;
                stands_nowhere(state, file)?;
            }
        }
    }
    ensure(kept == r.kept.len(), "it keeps what is not among the names")?;
    let left = state.inodes.update(&r.dir, |inode| {
        let Node::Directory {
            entries,
            subdirectories,
            ..
        } = &mut inode.node
        else {
            return Err("it is not a directory");
        };
        let fewer = entries.checked_sub(u64::from(r.entries));
        *entries = fewer.ok_or("a directory has lost count of its entries")?;
        let fewer = subdirectories.checked_sub(below);
        *subdirectories = fewer.ok_or("a directory has lost count of its directories")?;
        Ok(*entries)
    });
    state.detached_entries -= u64::from(r.entries);
    if left.ok_or("the directory is not there")?? == 0 {
        state.detached.remove(&r.dir);
        drop_directory(state, r.dir, gone)?;
    }
    Ok(Done::Ok)
}

pub(super) fn files_reclaimed(state: &mut State, r: &FilesReclaimed, gone: &mut Gone) -> Step {
    let nameless =
        |state: &State, file: FileId| ensure(state.unlinked.contains(&file), "the file has a name");
    for file in &r.files {
        nameless(state, *file)?;
        drop_file(state, *file, gone)?;
    }
    if let Some((file, end)) = r.part {
        nameless(state, file)?;
        ensure(end > 0, "it takes no chunk")?;
        drop_chunks(state, file, 0..=end - 1, gone)?;
    }
    Ok(Done::Ok)
}

/// A file is without a name from now on: it goes, or stays until it is reclaimed.
pub(super) fn lose_name(
    state: &mut State,
    file: FileId,
    fate: Fate,
    gone: &mut Gone,
) -> Result<(), &'static str> {
    match fate {
        Fate::Dropped => drop_file(state, file, gone),
        Fate::Kept => {
            let node = state.inodes.get(&file).map(|inode| inode.node);
            ensure(matches!(node, Some(Node::File { .. })), "it is not a file")?;
            forget_temporary(state, file);
            state.unlinked.insert(file);
            gone.nameless.push(file);
            Ok(())
        }
    }
}

fn drop_file(state: &mut State, file: FileId, gone: &mut Gone) -> Result<(), &'static str> {
    drop_chunks(state, file, 0..=u64::MAX, gone)?;
    forget_temporary(state, file);
    state.unlinked.remove(&file);
    state.behind.remove(&file);
    gone.dropped += 1;
    if let Some(session) = state.writers.remove(&file) {
        state.writing.remove(&(session, file));
    }
    match state.inodes.remove(&file).map(|inode| inode.node) {
        Some(Node::File { size, .. }) => state.bytes -= size,
        Some(Node::Directory { .. }) | None => return Err("it is not a file"),
    }
    Ok(())
}

pub(super) fn drop_directory(
    state: &mut State,
    file: FileId,
    gone: &mut Gone,
) -> Result<(), &'static str> {
    ensure(file != FileId::ROOT, "the root stays")?;
    match state.inodes.remove(&file).map(|inode| inode.node) {
        Some(Node::Directory { entries, .. })
            if entries == 0 || planted::is(Bug::FullDirectoryRemoved) =>
        {
            state.directories -= 1;
            gone.dropped += 1;
        }
        Some(Node::Directory { .. }) => return Err("the directory is not empty"),
        Some(Node::File { .. }) | None => return Err("it is not a directory"),
    }
    Ok(())
}

pub(super) fn drop_chunks(
    state: &mut State,
    file: FileId,
    which: RangeInclusive<u64>,
    gone: &mut Gone,
) -> Result<(), &'static str> {
    let (first, last) = which.into_inner();
    let of_file: Vec<(FileId, u64)> = state
        .chunks
        .range((file, first)..=(file, last))
        .map(|(at, _)| at)
        .collect();
    for at in of_file {
        drop_chunk(state, at, gone)?;
    }
    Ok(())
}

pub(super) fn drop_chunk(
    state: &mut State,
    at: (FileId, u64),
    gone: &mut Gone,
) -> Result<(), &'static str> {
    let chunk = state.chunks.remove(&at).ok_or("there is no such chunk")?;
    state
        .owners
        .remove(&chunk.chunk)
        .ok_or("a chunk has lost its owner")?;
    if planted::is(Bug::IdsGivenAgain)
        && let Some(epoch) = state.epochs.get_mut(&chunk.version.epoch())
        && epoch.issued == chunk.version.counter()
    {
        epoch.issued -= 2;
    }
    state.unnamed.remove(&at);
    state.adopted.remove(&chunk.chunk);
    state.raising.remove(&chunk.chunk);
    state.cuts.remove(&chunk.chunk);
    gone.freed.push(Freed {
        at,
        chunk: chunk.chunk,
        version: chunk.version,
        members: chunk.members,
    });
    Ok(())
}
