//! The one function that changes the state: live, and when the log is read at a start.
//!
//! It decides nothing: every record was decided on exactly the state it is applied to. A record that does not
//! fit says so instead of being bent; live that is a bug, at a start it means that log and build disagree.
use super::key::Key;
use super::record::{
    ChunkAbandoned, ChunkOpened, DirectoriesMade, DirectoryRemoved, EpochBegun, FileCreated,
    FileRemoved, Logged, Record, Renamed, ServerJoined, SessionEnded, SessionOpened, SizeSet,
};
use super::state::{ChunkState, EpochState, Inode, Node, Server, SessionState, State};
use crate::ids::{ChunkId, Epoch, FileId, LogSeq, RequestNumber, ServerIndex, SessionId, Version};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::UnixNanos;
use crate::wire::client_meta::{Done, Keep, Ownership, WriterStays};
use std::sync::Arc;

/// What a record did.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// The answer to who asked.
    pub(crate) done: Done,
    /// Chunks that no file owns any more.
    pub(crate) freed: Vec<Freed>,
}

/// A chunk that no file owns any more, and where it was.
#[derive(Clone, Debug)]
pub(crate) struct Freed {
    /// Whose it was.
    pub(crate) at: (FileId, u64),
    pub(crate) chunk: ChunkId,
    pub(crate) version: Version,
    pub(crate) members: Arc<[ServerIndex]>,
}

/// A record does not fit the state.
#[derive(Clone, Debug)]
pub(crate) struct Misfit(pub(crate) String);

/// Applies one record.
pub(crate) fn apply(state: &mut State, logged: &Logged) -> Result<Applied, Misfit> {
    let Logged { seq, by, record } = logged;
    if seq.0 <= state.seq.0 {
        return Err(Misfit(format!("record {seq} after record {}", state.seq)));
    }
    let misfit = |why: &str| Misfit(format!("record {seq} ({}): {why}", record.name()));
    let mut freed = Vec::new();
    let done = match record {
        Record::EpochBegun(r) => epoch_begun(state, *seq, r),
        Record::SessionOpened(r) => session_opened(state, r),
        Record::SessionEnded(r) => session_ended(state, r, &mut freed),
        Record::DirectoriesMade(r) => directories_made(state, r),
        Record::FileCreated(r) => file_created(state, by.session, r),
        Record::Renamed(r) => renamed(state, r, &mut freed),
        Record::FileRemoved(r) => file_removed(state, r, &mut freed),
        Record::DirectoryRemoved(r) => directory_removed(state, r),
        Record::ChunkOpened(r) => chunk_opened(state, by.request, r),
        Record::ChunkAbandoned(r) => chunk_abandoned(state, r, &mut freed),
        Record::SizeSet(r) => size_set(state, r, &mut freed),
        Record::ServerJoined(r) => server_joined(state, r),
    }
    .map_err(misfit)?;
    state.seq = *seq;
    // A chunk is granted when its members have made it, so its record answers nobody yet.
    let answers =
        by.request.0 != 0 && !matches!(record, Record::ChunkOpened(_) | Record::ChunkAbandoned(_));
    if let Some(session) = state.sessions.get_mut(&by.session) {
        session.forget_below(by.lowest);
        if answers && !planted::is(Bug::ResultsForgotten) {
            session.remember(by.request, *seq, done.clone());
        }
    }
    Ok(Applied { done, freed })
}

impl SessionState {
    fn forget_below(&mut self, lowest: RequestNumber) {
        if lowest > self.lowest {
            self.lowest = lowest;
            let kept = if planted::is(Bug::ResultForgottenEarly) {
                lowest.next()
            } else {
                lowest
            };
            self.results.retain(|(number, _, _)| *number >= kept);
        }
    }
    fn remember(&mut self, number: RequestNumber, seq: LogSeq, done: Done) {
        match self
            .results
            .binary_search_by_key(&number, |(number, _, _)| *number)
        {
            // Asked twice within one number: the first result is the one.
            Ok(_) => {}
            Err(at) => self.results.insert(at, (number, seq, done)),
        }
    }
    /// The result of a request that changed something.
    pub(crate) fn result(&self, number: RequestNumber) -> Option<(LogSeq, &Done)> {
        let at = self
            .results
            .binary_search_by_key(&number, |(number, _, _)| *number)
            .ok()?;
        Some((self.results[at].1, &self.results[at].2))
    }
}

type Step = Result<Done, &'static str>;

fn epoch_begun(state: &mut State, seq: LogSeq, r: &EpochBegun) -> Step {
    ensure(r.epoch > state.epoch, "epochs grow")?;
    ensure(
        !state.incarnations.contains_key(&r.incarnation),
        "an incarnation is of one epoch",
    )?;
    ensure(r.geometry.fits(), "its sizes do not fit one another")?;
    match state.geometry {
        None => (state.geometry, state.cluster) = (Some(r.geometry), r.cluster),
        Some(geometry) => {
            ensure(
                geometry == r.geometry,
                "the geometry of a log does not change",
            )?;
            ensure(
                state.cluster == r.cluster,
                "the cluster of a log does not change",
            )?;
        }
    }
    state.epoch = r.epoch;
    state.epochs.insert(
        r.epoch,
        EpochState {
            incarnation: r.incarnation,
            first_seq: seq,
            issued: 0,
        },
    );
    state.incarnations.insert(r.incarnation, r.epoch);
    Ok(Done::Ok)
}

fn session_opened(state: &mut State, r: &SessionOpened) -> Step {
    ensure(
        !state.sessions.contains_key(&r.session),
        "the session is there already",
    )?;
    ensure(
        !state.nonces.contains_key(&r.nonce),
        "the nonce has a session already",
    )?;
    issue(state, r.session.epoch(), r.session.counter())?;
    let session = SessionState {
        nonce: r.nonce,
        lowest: RequestNumber(1),
        results: Vec::new(),
    };
    state.sessions.insert(r.session, session);
    state.nonces.insert(r.nonce, r.session);
    Ok(Done::Ok)
}

fn session_ended(state: &mut State, r: &SessionEnded, freed: &mut Vec<Freed>) -> Step {
    let session = state
        .sessions
        .remove(&r.session)
        .ok_or("there is no such session")?;
    state.nonces.remove(&session.nonce);
    let of_session = (r.session, FileId(0))..=(r.session, FileId(u64::MAX));
    let temporary: Vec<Key> = state
        .temporary
        .range(of_session.clone())
        .map(|(_, key)| key.clone())
        .collect();
    for key in temporary {
        let file = state
            .tree
            .get(&key)
            .ok_or("a temporary file has lost its name")?;
        if planted::is(Bug::TemporaryStays) {
            forget_temporary(state, file);
            continue;
        }
        detach(state, &key, r.time)?;
        drop_file(state, file, freed)?;
        probe::hit(Probe::TemporaryRemoved);
    }
    let writing: Vec<FileId> = state
        .writing
        .range(of_session)
        .map(|(_, file)| *file)
        .collect();
    for file in writing {
        close(state, file, freed)?;
    }
    Ok(Done::Ok)
}

fn directories_made(state: &mut State, r: &DirectoriesMade) -> Step {
    let mut parent = r.parent;
    for (name, file) in &r.made {
        let key = Key {
            parent,
            name: name.clone(),
        };
        issue(state, file.epoch(), file.counter())?;
        let node = Node::Directory {
            parent,
            entries: 0,
            subdirectories: 0,
        };
        attach(
            state,
            key,
            *file,
            Some(inode(node, r.owner, r.time)),
            r.time,
        )?;
        state.directories += 1;
        parent = *file;
    }
    ensure(!r.made.is_empty(), "it makes nothing")?;
    Ok(Done::Made {
        file: parent,
        replication: 0,
    })
}

fn file_created(state: &mut State, session: SessionId, r: &FileCreated) -> Step {
    ensure(
        state.sessions.contains_key(&session),
        "its session is not there",
    )?;
    ensure(r.replication > 0, "it asks for no replica")?;
    issue(state, r.file.epoch(), r.file.counter())?;
    let node = Node::File {
        size: 0,
        replication: r.replication,
    };
    attach(
        state,
        r.key.clone(),
        r.file,
        Some(inode(node, r.owner, r.time)),
        r.time,
    )?;
    state.writers.insert(r.file, session);
    state.writing.insert((session, r.file));
    match r.keep {
        Keep::Always => {}
        Keep::UntilSessionEnds => {
            state.temporary.insert((session, r.file), r.key.clone());
            state.holders.insert(r.file, session);
        }
    }
    Ok(Done::Made {
        file: r.file,
        replication: r.replication,
    })
}

fn renamed(state: &mut State, r: &Renamed, freed: &mut Vec<Freed>) -> Step {
    let file = state
        .tree
        .get(&r.from)
        .ok_or("the name to move is not there")?;
    ensure(r.from != r.to, "it moves nothing")?;
    if let Some(replaced) = state.tree.get(&r.to) {
        detach(state, &r.to, r.time)?;
        match &state
            .inodes
            .get(&replaced)
            .ok_or("what it replaces is not there")?
            .node
        {
            Node::File { .. } => {
                probe::hit(Probe::RenameReplaced);
                drop_file(state, replaced, freed)?;
            }
            Node::Directory { .. } => drop_directory(state, replaced)?,
        }
    }
    detach(state, &r.from, r.time)?;
    attach(state, r.to.clone(), file, None, r.time)?;
    let inode = state
        .inodes
        .get_mut(&file)
        .ok_or("what it moves is not there")?;
    inode.ctime = r.time;
    match &mut inode.node {
        Node::Directory { parent, .. } => *parent = r.to.parent,
        Node::File { .. } if planted::is(Bug::SessionEndRemovesRenamed) => {
            if let Some(session) = state.holders.get(&file) {
                state.temporary.insert((*session, file), r.to.clone());
            }
        }
        Node::File { .. } => forget_temporary(state, file),
    }
    Ok(Done::Ok)
}

fn file_removed(state: &mut State, r: &FileRemoved, freed: &mut Vec<Freed>) -> Step {
    let file = state.tree.get(&r.key).ok_or("the name is not there")?;
    detach(state, &r.key, r.time)?;
    drop_file(state, file, freed)?;
    Ok(Done::Ok)
}

fn directory_removed(state: &mut State, r: &DirectoryRemoved) -> Step {
    let file = state.tree.get(&r.key).ok_or("the name is not there")?;
    detach(state, &r.key, r.time)?;
    drop_directory(state, file)?;
    Ok(Done::Ok)
}

fn chunk_opened(state: &mut State, request: RequestNumber, r: &ChunkOpened) -> Step {
    ensure(
        state.writers.contains_key(&r.file),
        "nobody writes the file",
    )?;
    ensure(!r.members.is_empty(), "it has no member")?;
    ensure(
        r.members
            .iter()
            .all(|member| state.roster.contains_key(member)),
        "a member is not in the roster",
    )?;
    let at = (r.file, r.index);
    ensure(
        !state.chunks.contains_key(&at),
        "the file has that chunk already",
    )?;
    issue(state, r.chunk.epoch(), r.chunk.counter())?;
    issue(state, r.version.epoch(), r.version.counter())?;
    let members: Arc<[ServerIndex]> = r.members.as_slice().into();
    let chunk = ChunkState {
        chunk: r.chunk,
        version: r.version,
        members,
        opened_by: request,
        synced: None,
    };
    state.chunks.insert(at, chunk);
    state.owners.insert(r.chunk, at);
    state.unnamed.insert(at);
    Ok(Done::Ok)
}

fn chunk_abandoned(state: &mut State, r: &ChunkAbandoned, freed: &mut Vec<Freed>) -> Step {
    let at = *state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    ensure(state.unnamed.contains(&at), "a size rests on the chunk")?;
    drop_chunk(state, at, freed)?;
    Ok(Done::Ok)
}

fn size_set(state: &mut State, r: &SizeSet, freed: &mut Vec<Freed>) -> Step {
    ensure(
        state.writers.contains_key(&r.file),
        "nobody writes the file",
    )?;
    let inode = state
        .inodes
        .get_mut(&r.file)
        .ok_or("the file is not there")?;
    let Node::File { size, .. } = &mut inode.node else {
        return Err("a directory has no size");
    };
    ensure(r.size >= *size, "a size does not fall")?;
    let grown = state.bytes.checked_add(r.size - *size);
    state.bytes = grown.ok_or("the sizes of all files are past what can be counted")?;
    *size = r.size;
    (inode.mtime, inode.ctime) = (r.time, r.time);
    for (index, synced) in &r.synced {
        let at = (r.file, *index);
        let chunk = state
            .chunks
            .get_mut(&at)
            .ok_or("it rests on a chunk that is not there")?;
        chunk.synced = Some(chunk.synced.unwrap_or_default().max(*synced));
        state.unnamed.remove(&at);
    }
    match r.writer {
        WriterStays::Open => {}
        WriterStays::Closed => close(state, r.file, freed)?,
    }
    Ok(Done::Ok)
}

fn server_joined(state: &mut State, r: &ServerJoined) -> Step {
    match (state.roster.get(&r.index), state.nodes.get(&r.node)) {
        (None, None) => {}
        (Some(server), Some(index)) => {
            ensure(
                server.node == r.node && *index == r.index,
                "the place is another server's",
            )?;
            ensure(
                r.boot > server.boot || planted::is(Bug::ClonedDiskAccepted),
                "a server that restarted has a higher boot",
            )?;
        }
        (Some(_), None) | (None, Some(_)) => return Err("the server has another place"),
    }
    let rack = r.rack.as_str().into();
    state.roster.insert(
        r.index,
        Server {
            node: r.node,
            boot: r.boot,
            instance: r.instance,
            rack,
        },
    );
    state.nodes.insert(r.node, r.index);
    Ok(Done::Ok)
}

/// Gives what is there, or new, a name.
fn attach(
    state: &mut State,
    key: Key,
    file: FileId,
    new: Option<Inode>,
    time: UnixNanos,
) -> Result<(), &'static str> {
    let child = match new {
        Some(inode) => {
            ensure(!state.inodes.contains_key(&file), "the id is taken")?;
            let counts = i64::from(matches!(inode.node, Node::Directory { .. }));
            state.inodes.insert(file, inode);
            counts
        }
        None => directories_in(state, file)?,
    };
    touch_parent(state, key.parent, 1, child, time)?;
    match state.tree.insert(key, file) {
        None => Ok(()),
        Some(_) => Err("the name is taken"),
    }
}

/// Takes a name out; what it stood for is left without one.
fn detach(state: &mut State, key: &Key, time: UnixNanos) -> Result<(), &'static str> {
    let file = state.tree.remove(key).ok_or("the name is not there")?;
    let child = directories_in(state, file)?;
    touch_parent(state, key.parent, -1, -child, time)
}

/// How many directories this is: one or none.
fn directories_in(state: &State, file: FileId) -> Result<i64, &'static str> {
    let inode = state.inodes.get(&file).ok_or("a name stands for nothing")?;
    Ok(i64::from(matches!(inode.node, Node::Directory { .. })))
}

fn touch_parent(
    state: &mut State,
    parent: FileId,
    by: i64,
    directories: i64,
    time: UnixNanos,
) -> Result<(), &'static str> {
    let inode = state
        .inodes
        .get_mut(&parent)
        .ok_or("the directory is not there")?;
    let Node::Directory {
        entries,
        subdirectories,
        ..
    } = &mut inode.node
    else {
        return Err("the parent is a file");
    };
    *entries = entries
        .checked_add_signed(by)
        .ok_or("a directory has lost count of its entries")?;
    *subdirectories = i64::from(*subdirectories)
        .checked_add(directories)
        .and_then(|count| u32::try_from(count).ok())
        .ok_or("a directory has lost count of its directories")?;
    (inode.mtime, inode.ctime) = (time, time);
    Ok(())
}

fn drop_file(state: &mut State, file: FileId, freed: &mut Vec<Freed>) -> Result<(), &'static str> {
    drop_chunks(state, file, 0, freed)?;
    forget_temporary(state, file);
    if let Some(session) = state.writers.remove(&file) {
        state.writing.remove(&(session, file));
    }
    match state.inodes.remove(&file).map(|inode| inode.node) {
        Some(Node::File { size, .. }) => state.bytes -= size,
        Some(Node::Directory { .. }) | None => return Err("it is not a file"),
    }
    Ok(())
}

fn drop_directory(state: &mut State, file: FileId) -> Result<(), &'static str> {
    ensure(file != FileId::ROOT, "the root stays")?;
    match state.inodes.remove(&file).map(|inode| inode.node) {
        Some(Node::Directory { entries, .. })
            if entries == 0 || planted::is(Bug::FullDirectoryRemoved) =>
        {
            state.directories -= 1;
        }
        Some(Node::Directory { .. }) => return Err("the directory is not empty"),
        Some(Node::File { .. }) | None => return Err("it is not a directory"),
    }
    Ok(())
}

/// Ends the write grant. Chunks past the end of the file, and those that no size report has named, are given
/// up: nobody can write them any more, and no size rests on them.
fn close(state: &mut State, file: FileId, freed: &mut Vec<Freed>) -> Result<(), &'static str> {
    let session = state
        .writers
        .remove(&file)
        .ok_or("nobody writes the file")?;
    state.writing.remove(&(session, file));
    let Some(Node::File { size, .. }) = state.inodes.get(&file).map(|inode| &inode.node) else {
        return Err("it is not a file");
    };
    let geometry = state.geometry.ok_or("there is no epoch yet")?;
    let first_past_end = if planted::is(Bug::LastChunkDropped) {
        size / geometry.chunk_bytes()
    } else {
        size.div_ceil(geometry.chunk_bytes())
    };
    drop_chunks(state, file, first_past_end, freed)?;
    let unnamed: Vec<(FileId, u64)> = state
        .unnamed
        .range((file, 0)..=(file, u64::MAX))
        .copied()
        .collect();
    for at in unnamed {
        drop_chunk(state, at, freed)?;
    }
    Ok(())
}

fn drop_chunks(
    state: &mut State,
    file: FileId,
    first: u64,
    freed: &mut Vec<Freed>,
) -> Result<(), &'static str> {
    let of_file: Vec<(FileId, u64)> = state
        .chunks
        .range((file, first)..=(file, u64::MAX))
        .map(|(at, _)| *at)
        .collect();
    for at in of_file {
        drop_chunk(state, at, freed)?;
    }
    Ok(())
}

fn drop_chunk(
    state: &mut State,
    at: (FileId, u64),
    freed: &mut Vec<Freed>,
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
    freed.push(Freed {
        at,
        chunk: chunk.chunk,
        version: chunk.version,
        members: chunk.members,
    });
    Ok(())
}

fn forget_temporary(state: &mut State, file: FileId) {
    if let Some(session) = state.holders.remove(&file) {
        state.temporary.remove(&(session, file));
    }
}

/// Notes that an id was issued.
fn issue(state: &mut State, epoch: Epoch, counter: u64) -> Result<(), &'static str> {
    let newest = state.epoch;
    ensure(epoch == newest, "it holds an id of another epoch")?;
    let epoch = state
        .epochs
        .get_mut(&newest)
        .ok_or("there is no epoch yet")?;
    ensure(
        counter > epoch.issued,
        "it holds an id that was issued before",
    )?;
    epoch.issued = counter;
    Ok(())
}

fn inode(node: Node, owner: Ownership, time: UnixNanos) -> Inode {
    let Ownership { uid, gid, mode } = owner;
    Inode {
        node,
        mode,
        uid,
        gid,
        mtime: time,
        ctime: time,
        crtime: time,
    }
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
