//! Decides what a request does to the namespace: reads the state, gives a record or a refusal.
//!
//! Nothing is changed here, and nothing is asked of chunkservers. Permission bits are kept, not enforced: the
//! mount checks them. Paths are walked from a directory's id, so a client may keep one open.
use super::key::{Key, Name, components, quoted};
use super::record::{
    AttributesSet, DirectoriesMade, DirectoryRemoved, Fate, FileCreated, FileRemoved, FileReopened,
    Record, Renamed, ReplicationSet, SizeSet, TreeDetached,
};
use super::state::{Node, State};
use crate::buggify::{self, Site};
use crate::ids::{FileId, ID_LIMIT, SessionId, WriteSeq};
use crate::limits::{LIST_PAGE_MAX, REPLICATION_MAX, SIZE_BASIS_MAX};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::UnixNanos;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{
    At, Attributes, Attrs, Done, Entry, Keep, Ownership, Parents, RenameMode, SyncedChunk, TimeOf,
    WriterStays,
};
use crate::wire::{Refusal, Status};
use std::collections::BTreeMap;

/// What a request comes to, if it is not refused.
#[derive(Clone, Debug)]
pub(crate) enum Decision {
    /// This is to be logged and applied; the outcome answers.
    Log(Record),
    /// Nothing changes; this answers.
    Unchanged(Done),
}

type Decided = Result<Decision, Refusal>;

pub(crate) fn mkdir(
    state: &State,
    at: &At,
    parents: Parents,
    owner: Ownership,
    time: UnixNanos,
) -> Decided {
    let names = components(&at.path)?;
    let mut dir = directory(state, at)?;
    let mut missing = Vec::new();
    for (nth, name) in names.iter().enumerate() {
        if !missing.is_empty() {
            missing.push(name.clone());
            continue;
        }
        let last = nth + 1 == names.len();
        match state.tree.get(&Key {
            parent: dir,
            name: name.clone(),
        }) {
            Some(found) if is_directory(state, found) => dir = found,
            Some(_) if last => return Err(exists(at)),
            Some(_) => return Err(not_a_directory(at, name)),
            None if last || parents == Parents::Make => missing.push(name.clone()),
            None => return Err(not_found(at, name)),
        }
    }
    if missing.is_empty() {
        return match parents {
            Parents::Make => Ok(Decision::Unchanged(Done::Made {
                file: dir,
                replication: 0,
            })),
            Parents::MustExist => Err(exists(at)),
        };
    }
    let first = state.next_counter();
    let made = (first..)
        .zip(missing)
        .map(|(counter, name)| (name, FileId::issued(state.epoch, counter)))
        .collect();
    Ok(Decision::Log(
        DirectoriesMade {
            parent: dir,
            made,
            owner: masked(owner),
            time,
        }
        .into(),
    ))
}

/// What a new file is to be.
pub(crate) struct NewFile {
    pub(crate) owner: Ownership,
    pub(crate) replication: u8,
    pub(crate) keep: Keep,
    pub(crate) time: UnixNanos,
}

pub(crate) fn create(state: &State, at: &At, new: NewFile) -> Decided {
    let NewFile {
        owner,
        replication,
        keep,
        time,
    } = new;
    replicas_fit(at, replication)?;
    let Some(key) = entry(state, at)? else {
        return Err(exists(at));
    };
    if state.tree.get(&key).is_some() {
        return Err(exists(at));
    }
    let file = FileId::issued(state.epoch, state.next_counter());
    Ok(Decision::Log(
        FileCreated {
            key,
            file,
            owner: masked(owner),
            replication,
            keep,
            time,
        }
        .into(),
    ))
}

fn replicas_fit(at: &At, replication: u8) -> Result<(), Refusal> {
    if (1..=REPLICATION_MAX).contains(&replication) {
        return Ok(());
    }
    let what = format!(
        "{replication} replicas of {} were asked for, at most {REPLICATION_MAX} can be had",
        shown(at)
    );
    Err(Refusal::new(Status::BadRequest, what))
}

/// Changes how many replicas a file asks for.
pub(crate) fn set_replication(state: &State, at: &At, replication: u8, time: UnixNanos) -> Decided {
    let file = resolve(state, at)?;
    if is_directory(state, file) {
        return Err(is_a_directory(at));
    }
    replicas_fit(at, replication)?;
    if state.replication(file) == replication {
        return Ok(Decision::Unchanged(Done::Ok));
    }
    Ok(Decision::Log(
        ReplicationSet {
            file,
            replication,
            time,
        }
        .into(),
    ))
}

/// Changes attributes of what stands at a place, or has this id.
pub(crate) fn set_attributes(state: &State, at: &At, to: Attributes, time: UnixNanos) -> Decided {
    let file = resolve(state, at)?;
    let Attributes {
        mode,
        uid,
        gid,
        mtime,
    } = to;
    if to == Attributes::default() {
        return Ok(Decision::Unchanged(Done::Ok));
    }
    let mtime = mtime.map(|mtime| match mtime {
        TimeOf::Change => time,
        TimeOf::Given(given) => given,
    });
    Ok(Decision::Log(
        AttributesSet {
            file,
            mode: mode.map(|mode| mode & MODE_BITS),
            uid,
            gid,
            mtime,
            time,
        }
        .into(),
    ))
}

/// Opens a file to write it further from where it ends.
pub(crate) fn append(state: &State, session: SessionId, at: &At) -> Decided {
    let file = resolve(state, at)?;
    if is_directory(state, file) {
        return Err(is_a_directory(at));
    }
    match state.writers.get(&file) {
        // Nothing would keep what is written to it.
        None if state.unlinked.contains(&file) => Err(Refusal::new(
            Status::NotFound,
            format!(
                "file {file} was removed: who has it open may read it, and nobody can open it for writing"
            ),
        )),
        None => Ok(Decision::Log(FileReopened { file }.into())),
        // The client may have lost the answer of an earlier call; it knows what it has open.
        Some(writer) if writer == session => Ok(Decision::Unchanged(Done::Appending {
            file,
            replication: state.replication(file),
            size: file_size(state, file)?,
        })),
        // It may close it, or its session may end, while this client asks again.
        Some(_) => {
            probe::hit(Probe::AppendWaits);
            let what = format!(
                "{} is being written by another client, until it closes it or was silent for too long",
                shown(at)
            );
            Err(Refusal::new(Status::Busy, what))
        }
    }
}

pub(crate) fn rename(
    state: &State,
    from: &At,
    to: &At,
    mode: RenameMode,
    time: UnixNanos,
    fate: impl FnOnce(FileId) -> Fate,
) -> Decided {
    let Some(from_key) = entry(state, from)? else {
        return Err(no_entry(from, "renamed"));
    };
    let Some(moved) = state.tree.get(&from_key) else {
        return Err(not_found(from, &from_key.name));
    };
    let Some(to_key) = entry(state, to)? else {
        return Err(no_entry(to, "replaced"));
    };
    if from_key == to_key {
        return Ok(Decision::Unchanged(Done::Ok));
    }
    let moves_directory = is_directory(state, moved);
    if moves_directory
        && is_within(state, to_key.parent, moved)
        && !planted::is(Bug::DirectoryIntoItself)
    {
        probe::hit(Probe::RenameIntoItself);
        let what = format!(
            "{} cannot be moved into itself, to {}",
            shown(from),
            shown(to)
        );
        return Err(Refusal::new(Status::BadRequest, what));
    }
    let mut replaced_fate = Fate::Dropped;
    if let Some(replaced) = state.tree.get(&to_key) {
        if mode == RenameMode::NoReplace {
            return Err(exists(to));
        }
        let node = state
            .inodes
            .get(&replaced)
            .expect("a name stands for something")
            .node;
        match (node, moves_directory) {
            (Node::File { .. }, false) => replaced_fate = fate(replaced),
            (Node::Directory { entries: 0, .. }, true) => {}
            (Node::File { .. }, true) => return Err(not_a_directory(to, &to_key.name)),
            (Node::Directory { .. }, false) => return Err(is_a_directory(to)),
            (Node::Directory { .. }, true) => return Err(not_empty(to)),
        }
    }
    Ok(Decision::Log(
        Renamed {
            from: from_key,
            to: to_key,
            replaced: replaced_fate,
            time,
        }
        .into(),
    ))
}

pub(crate) fn remove(
    state: &State,
    at: &At,
    time: UnixNanos,
    fate: impl FnOnce(FileId) -> Fate,
) -> Decided {
    let Some(key) = entry(state, at)? else {
        return Err(no_entry(at, "removed"));
    };
    match state.tree.get(&key) {
        None => Err(not_found(at, &key.name)),
        Some(found) if is_directory(state, found) => Err(is_a_directory(at)),
        Some(found) => {
            let fate = fate(found);
            Ok(Decision::Log(FileRemoved { key, fate, time }.into()))
        }
    }
}

/// Removes a directory with all that is in it, at once: one record, however much it is.
pub(crate) fn remove_tree(state: &State, at: &At, time: UnixNanos) -> Decided {
    let Some(key) = entry(state, at)? else {
        return Err(no_entry(at, "removed"));
    };
    match state.tree.get(&key) {
        None => Err(not_found(at, &key.name)),
        Some(found) if is_directory(state, found) => {
            Ok(Decision::Log(TreeDetached { key, time }.into()))
        }
        Some(_) => Err(not_a_directory(at, &key.name)),
    }
}

pub(crate) fn rmdir(state: &State, at: &At, time: UnixNanos) -> Decided {
    let Some(key) = entry(state, at)? else {
        return Err(no_entry(at, "removed"));
    };
    let Some(found) = state.tree.get(&key) else {
        return Err(not_found(at, &key.name));
    };
    match state
        .inodes
        .get(&found)
        .expect("a name stands for something")
        .node
    {
        Node::File { .. } => Err(not_a_directory(at, &key.name)),
        Node::Directory { entries, .. }
            if entries == 0 || planted::is(Bug::FullDirectoryRemoved) =>
        {
            Ok(Decision::Log(DirectoryRemoved { key, time }.into()))
        }
        Node::Directory { .. } => Err(not_empty(at)),
    }
}

/// A report of how far a file is written and synced.
pub(crate) struct SizeReport<'a> {
    pub(crate) file: FileId,
    pub(crate) size: u64,
    pub(crate) basis: &'a [SyncedChunk],
    pub(crate) writer: WriterStays,
    pub(crate) time: UnixNanos,
}

pub(crate) fn set_size(state: &State, session: SessionId, report: &SizeReport<'_>) -> Decided {
    let SizeReport {
        file,
        size,
        basis,
        writer,
        time,
    } = *report;
    let bad = |what: String| {
        Refusal::new(
            Status::BadRequest,
            format!("the size of file {file}: {what}"),
        )
    };
    let current = file_size(state, file)?;
    writes(state, session, file)?;
    if basis.len() > SIZE_BASIS_MAX {
        return Err(bad(format!(
            "{} chunks in one report, at most {SIZE_BASIS_MAX} are allowed",
            basis.len()
        )));
    }
    if size >= ID_LIMIT {
        return Err(bad(format!("{size} bytes are more than a file can have")));
    }
    let geometry = state.geometry();
    let mut named = BTreeMap::new();
    for synced in basis {
        let SyncedChunk {
            index,
            chunk,
            version,
            synced,
        } = *synced;
        let standing = state.chunks.get(&(file, index));
        if standing.is_none_or(|standing| (standing.chunk, standing.version) != (chunk, version)) {
            return Err(bad(format!(
                "it rests on chunk {chunk} version {version}, which is not its chunk {index}"
            )));
        }
        if state.cut(chunk).is_some() {
            return Err(bad(format!(
                "it rests on chunk {chunk}, in which the file was cut since"
            )));
        }
        let Durable { len, wseq } = synced;
        if len > geometry.chunk_bytes() || (len > 0) != (wseq > WriteSeq(0)) {
            return Err(bad(format!(
                "chunk {chunk} cannot be synced to {len} bytes at write {wseq}"
            )));
        }
        let both = named.entry(index).or_insert(synced);
        *both = synced.max(*both);
    }
    // A report below the size in the log is an old one: it raises nothing.
    let size = size.max(current);
    if state.bytes.checked_add(size - current).is_none() {
        return Err(bad(
            "all files together would be past what can be counted".into()
        ));
    }
    if size > current {
        may_grow(state, file)?;
        let (last, _) = geometry.chunk_at(size - 1);
        let unnamed = state
            .unnamed
            .range((file, 0)..=(file, last))
            .find(|(_, index)| !named.contains_key(index));
        if let Some((_, index)) = unnamed {
            return Err(bad(format!(
                "{size} bytes rest on chunk {index}, which no report has named"
            )));
        }
        if let Some(chunk) = state.chunks.get(&(file, last)) {
            let before = chunk.synced.unwrap_or_default().len;
            let synced = named.get(&last).map_or(0, |synced| synced.len).max(before);
            if geometry.chunk_len(size, last) > synced {
                return Err(bad(format!(
                    "{size} bytes need more of chunk {last} than the {synced} that are synced"
                )));
            }
        }
    }
    if size == current && named.is_empty() && writer == WriterStays::Open {
        return Ok(Decision::Unchanged(Done::Ok));
    }
    let synced = named.into_iter().collect();
    Ok(Decision::Log(
        SizeSet {
            file,
            size,
            synced,
            writer,
            time,
        }
        .into(),
    ))
}

/// Whether a file may be longer: what it had behind the place where it was cut is gone.
pub(crate) fn may_grow(state: &State, file: FileId) -> Result<(), Refusal> {
    if !state.behind.contains_key(&file) {
        return Ok(());
    }
    let what = format!("what file {file} had behind the place where it was cut is being reclaimed");
    Err(Refusal::new(Status::Busy, what))
}

/// That this session may write the file.
pub(crate) fn writes(state: &State, session: SessionId, file: FileId) -> Result<(), Refusal> {
    let why = match state.writers.get(&file) {
        Some(writer) if writer == session => return Ok(()),
        Some(_) => "another session writes it",
        None => "it is not open for writing",
    };
    Err(Refusal::new(
        Status::BadRequest,
        format!("file {file} cannot be written: {why}"),
    ))
}

/// The size of a file; a refusal if it is none.
pub(crate) fn file_size(state: &State, file: FileId) -> Result<u64, Refusal> {
    match state.inodes.get(&file).map(|inode| inode.node) {
        Some(Node::File { size, .. }) => Ok(size),
        Some(Node::Directory { .. }) => Err(Refusal::new(
            Status::IsADirectory,
            format!("{file} is a directory and has no chunks"),
        )),
        None => Err(Refusal::new(
            Status::NotFound,
            format!("there is no file {file}; it may have been removed"),
        )),
    }
}

/// The attributes of what stands at a place.
pub(crate) fn stat(state: &State, at: &At) -> Result<Attrs, Refusal> {
    let file = resolve(state, at)?;
    Ok(state.attrs(file).expect("a name stands for something"))
}

/// A page of a directory, and whether none is left.
pub(crate) fn list(
    state: &State,
    at: &At,
    after: &[u8],
    limit: u32,
) -> Result<(Vec<Entry>, bool), Refusal> {
    let dir = resolve(state, at)?;
    if !is_directory(state, dir) {
        return Err(Refusal::new(
            Status::NotADirectory,
            format!("{} is a file", shown(at)),
        ));
    }
    let page_max = if buggify::is(Site::ListPageOfTwo) {
        2
    } else {
        LIST_PAGE_MAX
    };
    let limit = (limit as usize).clamp(1, page_max);
    let mut found = state.tree.after(dir, after);
    let entries = found
        .by_ref()
        .take(limit)
        .map(|(name, file)| Entry {
            name: name.as_bytes().to_vec(),
            attrs: state.attrs(file).expect("a name stands for something"),
        })
        .collect();
    let end = found.next().is_none();
    if !end {
        probe::hit(Probe::ListPaged);
    }
    Ok((entries, end))
}

/// What stands at a place.
fn resolve(state: &State, at: &At) -> Result<FileId, Refusal> {
    match entry(state, at)? {
        Some(key) => state.tree.get(&key).ok_or_else(|| not_found(at, &key.name)),
        None if is_directory(state, at.dir) => directory(state, at),
        // A file by its id, which may have no name any more.
        None if state.inodes.contains_key(&at.dir) => Ok(at.dir),
        None => Err(no_such_id(at.dir)),
    }
}

/// The entry that a path names: the directory it would stand in is there. `None`: the path is empty.
fn entry(state: &State, at: &At) -> Result<Option<Key>, Refusal> {
    let mut names = components(&at.path)?;
    let Some(last) = names.pop() else {
        return Ok(None);
    };
    let mut parent = directory(state, at)?;
    for name in names {
        let key = Key { parent, name };
        match state.tree.get(&key) {
            Some(found) if is_directory(state, found) => parent = found,
            Some(_) => return Err(not_a_directory(at, &key.name)),
            None => return Err(not_found(at, &key.name)),
        }
    }
    Ok(Some(Key { parent, name: last }))
}

/// The directory that a path begins in.
fn directory(state: &State, at: &At) -> Result<FileId, Refusal> {
    match state.inodes.get(&at.dir).map(|inode| inode.node) {
        Some(Node::Directory { .. }) if !state.is_attached(at.dir) => Err(no_such_id(at.dir)),
        Some(Node::Directory { .. }) => Ok(at.dir),
        Some(Node::File { .. }) => Err(Refusal::new(
            Status::NotADirectory,
            format!("{} is a file, not a directory", at.dir),
        )),
        None => Err(no_such_id(at.dir)),
    }
}

pub(crate) fn is_directory(state: &State, file: FileId) -> bool {
    matches!(
        state.inodes.get(&file).map(|inode| inode.node),
        Some(Node::Directory { .. })
    )
}

/// Whether `dir` is `above` or below it.
fn is_within(state: &State, dir: FileId, above: FileId) -> bool {
    let mut at = dir;
    loop {
        if at == above {
            return true;
        }
        match state.inodes.get(&at).map(|inode| inode.node) {
            Some(Node::Directory { parent, .. }) if at != FileId::ROOT => at = parent,
            Some(Node::Directory { .. } | Node::File { .. }) | None => return false,
        }
    }
}

/// Those of a mode that are kept: permissions, and what `chmod` knows beside them.
const MODE_BITS: u32 = 0o7777;

const fn masked(owner: Ownership) -> Ownership {
    Ownership {
        mode: owner.mode & MODE_BITS,
        ..owner
    }
}

/// A place as people read it.
fn shown(at: &At) -> String {
    let path = quoted(&at.path);
    if at.dir == FileId::ROOT {
        path.replacen('\'', "'/", 1)
    } else {
        format!("{path} in directory {}", at.dir)
    }
}

fn not_found(at: &At, name: &Name) -> Refusal {
    let whole = at.path == name.as_bytes();
    let which = if whole {
        String::new()
    } else {
        format!(" (there is no {name:?})")
    };
    Refusal::new(
        Status::NotFound,
        format!("{} is not there{which}", shown(at)),
    )
}
fn no_such_id(dir: FileId) -> Refusal {
    Refusal::new(
        Status::NotFound,
        format!("there is no directory {dir}; it may have been removed"),
    )
}
fn exists(at: &At) -> Refusal {
    Refusal::new(Status::Exists, format!("{} is there already", shown(at)))
}
fn not_a_directory(at: &At, name: &Name) -> Refusal {
    Refusal::new(
        Status::NotADirectory,
        format!("{}: {name:?} is a file, not a directory", shown(at)),
    )
}
fn is_a_directory(at: &At) -> Refusal {
    Refusal::new(
        Status::IsADirectory,
        format!("{} is a directory", shown(at)),
    )
}
fn not_empty(at: &At) -> Refusal {
    Refusal::new(
        Status::NotEmpty,
        format!("the directory {} has entries", shown(at)),
    )
}
fn no_entry(at: &At, done: &str) -> Refusal {
    let what = format!(
        "{} names no entry of a directory: the root, or a directory by its id, cannot be {done}",
        shown(at)
    );
    Refusal::new(Status::BadRequest, what)
}
