//! The one function that changes the state: live, and when the log is read at a start.
//!
//! It decides nothing: every record was decided on exactly the state it is applied to. A record that does not
//! fit says so instead of being bent; live that is a bug, at a start it means that log and build disagree.
mod removal;
mod truncation;

use self::removal::{
    directory_removed, drop_chunk, drop_chunks, drop_directory, file_removed, files_reclaimed,
    lose_name, tree_detached, tree_reclaimed,
};
use self::truncation::{behind_reclaimed, truncated};
use super::key::Key;
use super::packed::Map;
use super::record::{
    AttributesSet, ChunkAbandoned, ChunkOpened, ChunkTaken, DirectoriesMade, EpochBegun, Fate,
    FileCreated, FileReopened, Logged, MembersChanged, OrphanAdopted, Record, Renamed,
    ReplicationSet, Sealed, ServerDrains, ServerJoined, SessionEnded, SessionOpened, SizeSet,
    TailLost, TakeoverBegun, Unsealed,
};
use super::state::{ChunkState, EpochState, Inode, Node, Server, SessionState, State};
use crate::ids::{
    ChunkId, Epoch, FileId, ID_LIMIT, LogSeq, RequestNumber, ServerIndex, SessionId, Version,
};
use crate::limits::REPLICATION_MAX;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::UnixNanos;
use crate::wire::chunk_meta::Content;
use crate::wire::client_meta::{Done, Drain, Keep, Ownership, WriterStays};
use imbl::OrdMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a record did.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// The answer to who asked.
    pub(crate) done: Done,
    pub(crate) gone: Gone,
}

/// What a record left behind.
#[derive(Clone, Default, Debug)]
pub(crate) struct Gone {
    /// Chunks that no file owns any more.
    pub(crate) freed: Vec<Freed>,
    /// Files without names that one more does not hold: they have just lost their name, or their writer.
    pub(crate) nameless: Vec<FileId>,
    /// Files and directories that are not there any more.
    pub(crate) dropped: u64,
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
    let mut gone = Gone::default();
    let done = match record {
        Record::EpochBegun(r) => epoch_begun(state, *seq, r),
        Record::SessionOpened(r) => session_opened(state, r),
        Record::SessionEnded(r) => session_ended(state, r, &mut gone),
        Record::DirectoriesMade(r) => directories_made(state, r),
        Record::FileCreated(r) => file_created(state, by.session, r),
        Record::Renamed(r) => renamed(state, r, &mut gone),
        Record::FileRemoved(r) => file_removed(state, r, &mut gone),
        Record::DirectoryRemoved(r) => directory_removed(state, r, &mut gone),
        Record::ChunkOpened(r) => chunk_opened(state, by.request, r),
        Record::ChunkAbandoned(r) => chunk_abandoned(state, r, &mut gone),
        Record::SizeSet(r) => size_set(state, r, &mut gone),
        Record::ServerJoined(r) => server_joined(state, r),
        Record::TailLost(r) => tail_lost(state, r),
        Record::RollbackAccepted(_) => rollback_accepted(state),
        Record::OrphanAdopted(r) => orphan_adopted(state, r),
        Record::TreeDetached(r) => tree_detached(state, r),
        Record::TreeReclaimed(r) => tree_reclaimed(state, r, &mut gone),
        Record::FilesReclaimed(r) => files_reclaimed(state, r, &mut gone),
        Record::MembersChanged(r) => members_changed(state, r),
        Record::Sealed(r) => sealed(state, r),
        Record::FileReopened(r) => file_reopened(state, by.session, r),
        Record::Unsealed(r) => unsealed(state, r),
        Record::ChunkTaken(r) => chunk_taken(state, r),
        Record::TakeoverBegun(r) => takeover_begun(state, r),
        Record::ServerDrains(r) => server_drains(state, r),
        Record::ReplicationSet(r) => replication_set(state, r),
        Record::Truncated(r) => truncated(state, r, &mut gone),
        Record::BehindReclaimed(r) => behind_reclaimed(state, r, &mut gone),
        Record::AttributesSet(r) => attributes_set(state, r),
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
    Ok(Applied { done, gone })
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

fn session_ended(state: &mut State, r: &SessionEnded, gone: &mut Gone) -> Step {
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
        // Somebody else may have it open: whoever reclaims it knows.
        lose_name(state, file, Fate::Kept, gone)?;
        probe::hit(Probe::TemporaryRemoved);
    }
    let writing: Vec<FileId> = state
        .writing
        .range(of_session)
        .map(|((_, file), ())| file)
        .collect();
    for file in writing {
        close(state, file, gone)?;
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
    state.writing.insert((session, r.file), ());
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

fn renamed(state: &mut State, r: &Renamed, gone: &mut Gone) -> Step {
    let file = state
        .tree
        .get(&r.from)
        .ok_or("the name to move is not there")?;
    ensure(r.from != r.to, "it moves nothing")?;
    if let Some(replaced) = state.tree.get(&r.to) {
        detach(state, &r.to, r.time)?;
        match state
            .inodes
            .get(&replaced)
            .ok_or("what it replaces is not there")?
            .node
        {
            Node::File { .. } => {
                probe::hit(Probe::RenameReplaced);
                lose_name(state, replaced, r.replaced, gone)?;
            }
            Node::Directory { .. } => drop_directory(state, replaced, gone)?,
        }
    }
    detach(state, &r.from, r.time)?;
    attach(state, r.to.clone(), file, None, r.time)?;
    let moved = state.inodes.update(&file, |inode| {
        inode.ctime = r.time;
        if let Node::Directory { parent, .. } = &mut inode.node {
            *parent = r.to.parent;
        }
        inode.node
    });
    match moved.ok_or("what it moves is not there")? {
        Node::Directory { .. } => {}
        Node::File { .. } if planted::is(Bug::SessionEndRemovesRenamed) => {
            if let Some(session) = state.holders.get(&file) {
                state.temporary.insert((*session, file), r.to.clone());
            }
        }
        Node::File { .. } => forget_temporary(state, file),
    }
    Ok(Done::Ok)
}

fn chunk_opened(state: &mut State, request: RequestNumber, r: &ChunkOpened) -> Step {
    ensure(
        state.writers.contains_key(&r.file),
        "nobody writes the file",
    )?;
    members_fit(state, &r.members)?;
    let at = (r.file, r.index);
    ensure(
        !state.chunks.contains_key(&at),
        "the file has that chunk already",
    )?;
    ensure(
        !state.is_behind(at),
        "chunks behind the end of the file are still there",
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
        sealed: None,
    };
    state.chunks.insert(at, chunk);
    state.owners.insert(r.chunk, at);
    state.unnamed.insert(at);
    Ok(Done::Ok)
}

fn chunk_abandoned(state: &mut State, r: &ChunkAbandoned, gone: &mut Gone) -> Step {
    let at = state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    ensure(state.unnamed.contains(&at), "a size rests on the chunk")?;
    drop_chunk(state, at, gone)?;
    Ok(Done::Ok)
}

fn members_changed(state: &mut State, r: &MembersChanged) -> Step {
    let at = state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    members_differ(state, &r.members)?;
    let changed = state.chunks.update(&at, |chunk| {
        ensure(chunk.version == r.version, "the chunk has another version")?;
        chunk.members = r.members.as_slice().into();
        Ok(())
    });
    changed.ok_or("there is no such chunk")??;
    Ok(Done::Ok)
}

fn sealed(state: &mut State, r: &Sealed) -> Step {
    let at = state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    ensure(!state.is_written(at.0), "its file is being written")?;
    ensure(!state.cuts.contains(&r.chunk), "its replicas are to be cut")?;
    let Content { durable, digest } = r.content;
    ensure(
        durable.len < ID_LIMIT,
        "it holds more than a chunk can have",
    )?;
    let sealed = state.chunks.update(&at, |chunk| {
        ensure(chunk.version == r.version, "the chunk has another version")?;
        ensure(chunk.sealed.is_none(), "the chunk is sealed")?;
        let known = chunk.synced.ok_or("no report has named the chunk")?;
        // More than was reported, if a writer died in the middle of a sync, or one began to take it over.
        let grows = durable.wseq >= known.wseq && durable.len >= known.len;
        ensure(grows, "it holds less than was synced")?;
        if !planted::is(Bug::SealForgetsMore) {
            chunk.synced = Some(durable);
        }
        chunk.sealed = Some(digest);
        Ok(())
    });
    sealed.ok_or("there is no such chunk")??;
    Ok(Done::Ok)
}

fn file_reopened(state: &mut State, session: SessionId, r: &FileReopened) -> Step {
    ensure(
        state.sessions.contains_key(&session),
        "its session is not there",
    )?;
    ensure(!state.is_written(r.file), "a session writes it already")?;
    let node = state.inodes.get(&r.file).map(|inode| inode.node);
    let Some(Node::File { size, replication }) = node else {
        return Err("it is no file");
    };
    ensure(!state.unlinked.contains(&r.file), "it has no name")?;
    state.writers.insert(r.file, session);
    state.writing.insert((session, r.file), ());
    Ok(Done::Appending {
        file: r.file,
        replication,
        size,
    })
}

fn unsealed(state: &mut State, r: &Unsealed) -> Step {
    let at = state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    ensure(state.is_written(at.0), "nobody writes its file")?;
    let unsealed = state.chunks.update(&at, |chunk| {
        ensure(chunk.version == r.version, "the chunk has another version")?;
        let sealed = chunk.sealed.take();
        ensure(sealed.is_some(), "the chunk is not sealed")
    });
    unsealed.ok_or("there is no such chunk")??;
    Ok(Done::Ok)
}

/// Whether members of a chunk may be raised: for the session that writes its file, or to cut them.
fn may_be_raised(state: &State, chunk: ChunkId, file: FileId) -> Result<(), &'static str> {
    let may = state.is_written(file) || state.cuts.contains(&chunk);
    ensure(may, "nobody writes its file, and it is not to be cut")
}

fn takeover_begun(state: &mut State, r: &TakeoverBegun) -> Step {
    let at = state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    may_be_raised(state, r.chunk, at.0)?;
    let chunk = state.chunks.get(&at).ok_or("there is no such chunk")?;
    ensure(chunk.version == r.version, "the chunk has another version")?;
    ensure(chunk.sealed.is_none(), "the chunk is sealed")?;
    let before = chunk.synced.ok_or("no report has named the chunk")?;
    let begun = state.raising.get(&r.chunk).copied().unwrap_or_default();
    let above = r.to > before.wseq.max(begun);
    ensure(above, "the write was given out before")?;
    if !planted::is(Bug::TakeoverForgotten) {
        state.raising.insert(r.chunk, r.to);
    }
    Ok(Done::Ok)
}

fn chunk_taken(state: &mut State, r: &ChunkTaken) -> Step {
    let at = state.owners.get(&r.chunk).ok_or("there is no such chunk")?;
    may_be_raised(state, r.chunk, at.0)?;
    let cut = state.cut(r.chunk);
    ensure(
        cut.is_none_or(|cut| r.synced.len == cut),
        "it does not end where it was to be cut",
    )?;
    members_differ(state, &r.members)?;
    ensure(
        r.synced.len < ID_LIMIT,
        "it holds more than a chunk can have",
    )?;
    let begun = state.raising.get(&r.chunk);
    ensure(
        begun == Some(&r.synced.wseq) || planted::is(Bug::TakeoverForgotten),
        "it was not to be raised to this write",
    )?;
    let taken = state.chunks.update(&at, |chunk| {
        ensure(chunk.version == r.version, "the chunk has another version")?;
        ensure(chunk.sealed.is_none(), "the chunk is sealed")?;
        let before = chunk.synced.ok_or("no report has named the chunk")?;
        let grows = r.synced.wseq > before.wseq && r.synced.len >= before.len;
        ensure(grows, "it goes back to an earlier write")?;
        chunk.members = r.members.as_slice().into();
        chunk.synced = Some(r.synced);
        Ok(())
    });
    taken.ok_or("there is no such chunk")??;
    state.raising.remove(&r.chunk);
    state.cuts.remove(&r.chunk);
    Ok(Done::Ok)
}

fn size_set(state: &mut State, r: &SizeSet, gone: &mut Gone) -> Step {
    ensure(
        state.writers.contains_key(&r.file),
        "nobody writes the file",
    )?;
    let is_cut = state.behind.contains_key(&r.file);
    // What names nothing new, as the close of a file that was synced before, leaves times as they were set.
    let writes = r.synced.iter().any(|(index, synced)| {
        let known = state.chunks.get(&(r.file, *index));
        let before = known.and_then(|chunk| chunk.synced);
        before.is_none_or(|before| before.max(*synced) != before)
    });
    let bytes = &mut state.bytes;
    let grows = state.inodes.update(&r.file, |inode| {
        let Node::File { size, .. } = &mut inode.node else {
            return Err("a directory has no size");
        };
        ensure(r.size >= *size, "a report makes no file shorter")?;
        ensure(
            r.size == *size || !is_cut,
            "chunks behind its end are still there",
        )?;
        let grown = bytes.checked_add(r.size - *size);
        *bytes = grown.ok_or("the sizes of all files are past what can be counted")?;
        if writes || r.size > *size {
            (inode.mtime, inode.ctime) = (r.time, r.time);
        }
        *size = r.size;
        Ok(())
    });
    grows.ok_or("the file is not there")??;
    for (index, synced) in &r.synced {
        let at = (r.file, *index);
        ensure(synced.len < ID_LIMIT, "it syncs more than a chunk can have")?;
        let cut = state.chunks.get(&at);
        let cut = cut.is_some_and(|chunk| state.cuts.contains(&chunk.chunk));
        ensure(!cut, "it rests on a chunk that is to be cut")?;
        let named = state.chunks.update(&at, |chunk| {
            chunk.synced = Some(chunk.synced.unwrap_or_default().max(*synced));
        });
        named.ok_or("it rests on a chunk that is not there")?;
        state.unnamed.remove(&at);
    }
    match r.writer {
        WriterStays::Open => {}
        WriterStays::Closed => close(state, r.file, gone)?,
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

fn server_drains(state: &mut State, r: &ServerDrains) -> Step {
    ensure(
        state.roster.contains_key(&r.index),
        "the server is not in the roster",
    )?;
    match r.drain {
        Drain::Begin => {
            let begins = state.draining.insert(r.index).is_none();
            ensure(begins, "the server is being drained already")?;
        }
        Drain::End => {
            let ends = state.draining.remove(&r.index).is_some();
            ensure(ends, "the server is not being drained")?;
        }
    }
    Ok(Done::Ok)
}

fn replication_set(state: &mut State, r: &ReplicationSet) -> Step {
    ensure(r.replication > 0, "it asks for no replica")?;
    let set = state.inodes.update(&r.file, |inode| {
        let Node::File { replication, .. } = &mut inode.node else {
            return Err("a directory has no replicas");
        };
        *replication = r.replication;
        inode.ctime = r.time;
        Ok(())
    });
    set.ok_or("the file is not there")??;
    Ok(Done::Ok)
}

fn attributes_set(state: &mut State, r: &AttributesSet) -> Step {
    let set = state.inodes.update(&r.file, |inode| {
        inode.mode = r.mode.unwrap_or(inode.mode);
        inode.uid = r.uid.unwrap_or(inode.uid);
        inode.gid = match r.gid {
            None if planted::is(Bug::UnsetAttributesZeroed) => 0,
            None => inode.gid,
            Some(gid) => gid,
        };
        inode.mtime = r.mtime.unwrap_or(inode.mtime);
        inode.ctime = r.time;
    });
    set.ok_or("it is not there")?;
    Ok(Done::Ok)
}

fn tail_lost(state: &mut State, r: &TailLost) -> Step {
    ensure(
        state.tail_lost.is_none(),
        "it is known that the end of the log is lost",
    )?;
    state.tail_lost = Some(r.clone());
    Ok(Done::Ok)
}

fn rollback_accepted(state: &mut State) -> Step {
    ensure(
        state.tail_lost.take().is_some(),
        "nothing is known to be lost",
    )?;
    state.accepted = state.epoch;
    // What was being written may have been finished in the part that is missing: it does not go with its session.
    (state.temporary, state.holders) = (OrdMap::new(), OrdMap::new());
    (state.writers, state.writing) = (Map::default(), Map::default());
    Ok(Done::Ok)
}

fn orphan_adopted(state: &mut State, r: &OrphanAdopted) -> Step {
    members_fit(state, &r.members)?;
    if let Some(at) = state.owners.get(&r.chunk) {
        ensure(
            state.adopted.get(&r.chunk) == Some(&r.of) && at.0 == r.file,
            "the chunk is another file's",
        )?;
        let grows = state.chunks.update(&at, |chunk| {
            ensure(chunk.version == r.version, "it is of another version")?;
            let mut members = chunk.members.to_vec();
            members.extend(&r.members);
            let before = chunk.members.len();
            ensure(
                members[before..]
                    .iter()
                    .all(|member| !members[..before].contains(member)),
                "a member has it already",
            )?;
            ensure(
                members.len() <= usize::from(REPLICATION_MAX),
                "it has more members than a chunk can have",
            )?;
            chunk.members = members.into();
            Ok(())
        });
        grows.ok_or("an owner has lost its chunk")??;
        return Ok(Done::Ok);
    }
    ensure(
        r.synced.len < ID_LIMIT,
        "it has more bytes than a chunk can have",
    )?;
    ensure(r.synced.len > 0, "there is nothing in it")?;
    ensure(r.replication > 0, "it asks for no replica")?;
    issue(state, r.file.epoch(), r.file.counter())?;
    let owner = Ownership {
        uid: 0,
        gid: 0,
        mode: 0o600,
    };
    let node = Node::File {
        size: r.synced.len,
        replication: r.replication,
    };
    let grown = state.bytes.checked_add(r.synced.len);
    state.bytes = grown.ok_or("the sizes of all files are past what can be counted")?;
    let new = Some(inode(node, owner, r.time));
    attach(state, r.key.clone(), r.file, new, r.time)?;
    let chunk = ChunkState {
        chunk: r.chunk,
        version: r.version,
        members: r.members.as_slice().into(),
        opened_by: RequestNumber(0),
        synced: Some(r.synced),
        sealed: None,
    };
    state.chunks.insert((r.file, 0), chunk);
    state.owners.insert(r.chunk, (r.file, 0));
    state.adopted.insert(r.chunk, r.of);
    Ok(Done::Ok)
}

/// Whether these can be the members of a chunk.
fn members_fit(state: &State, members: &[ServerIndex]) -> Result<(), &'static str> {
    ensure(!members.is_empty(), "it has no member")?;
    ensure(
        members.len() <= usize::from(REPLICATION_MAX),
        "it has more members than a chunk can have",
    )?;
    ensure(
        members
            .iter()
            .all(|member| state.roster.contains_key(member)),
        "a member is not in the roster",
    )
}

/// As [`members_fit`], and that none of them is there twice.
fn members_differ(state: &State, members: &[ServerIndex]) -> Result<(), &'static str> {
    members_fit(state, members)?;
    let distinct: BTreeSet<_> = members.iter().collect();
    ensure(
        distinct.len() == members.len(),
        "a server is a member twice",
    )
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
    let touched = state.inodes.update(&parent, |inode| {
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
    });
    touched.ok_or("the directory is not there")??;
    if state.detached.contains(&parent) {
        let entries = state.detached_entries.checked_add_signed(by);
        state.detached_entries = entries.ok_or("names that are to go were miscounted")?;
    }
    Ok(())
}

/// Ends the write grant. Chunks past the end of the file, and those that no size report has named, are given
/// up: nobody can write them any more, and no size rests on them.
fn close(state: &mut State, file: FileId, gone: &mut Gone) -> Result<(), &'static str> {
    let session = state
        .writers
        .remove(&file)
        .ok_or("nobody writes the file")?;
    state.writing.remove(&(session, file));
    if state.unlinked.contains(&file) {
        gone.nameless.push(file);
    }
    let Some(Node::File { size, .. }) = state.inodes.get(&file).map(|inode| inode.node) else {
        return Err("it is not a file");
    };
    let geometry = state.geometry.ok_or("there is no epoch yet")?;
    let first_past_end = if planted::is(Bug::LastChunkDropped) {
        size / geometry.chunk_bytes()
    } else {
        size.div_ceil(geometry.chunk_bytes())
    };
    // Those behind a cut are reclaimed bit by bit.
    if !state.behind.contains_key(&file) {
        drop_chunks(state, file, first_past_end..=u64::MAX, gone)?;
    }
    let unnamed: Vec<(FileId, u64)> = state
        .unnamed
        .range((file, 0)..=(file, u64::MAX))
        .copied()
        .filter(|at| !state.is_behind(*at))
        .collect();
    for at in unnamed {
        drop_chunk(state, at, gone)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::fill::{Order, Records};

    /// The state before the first record of this kind, and that record.
    fn before(is: fn(&Record) -> bool) -> (State, Logged) {
        let mut state = State::default();
        for logged in Records::new(1, Order::Sequence) {
            if is(&logged.record) {
                return (state, logged);
            }
            state.apply(&logged).unwrap();
        }
        panic!("a file has a record of each kind");
    }

    #[test]
    fn more_members_than_a_chunk_can_have_do_not_fit() {
        let (mut state, mut logged) = before(|record| matches!(record, Record::ChunkOpened(_)));
        let server = state.roster.get(&ServerIndex(1)).unwrap().clone();
        for index in 1..=17 {
            state.roster.insert(ServerIndex(index), server.clone());
        }
        let members = |logged: &mut Logged, count: u64| {
            if let Record::ChunkOpened(r) = &mut logged.record {
                r.members = (1..=count).map(ServerIndex).collect();
            }
        };
        members(&mut logged, 17);
        let misfit = state.clone().apply(&logged).unwrap_err();
        assert!(misfit.contains("more members"), "{misfit}");
        members(&mut logged, 16);
        state.apply(&logged).unwrap();
        let chunk = state.chunks().next().unwrap();
        assert_eq!(chunk.members.len(), 16, "as many as can be are kept");
    }

    #[test]
    fn more_bytes_than_a_chunk_can_have_do_not_fit() {
        let (mut state, mut logged) = before(|record| matches!(record, Record::SizeSet(_)));
        if let Record::SizeSet(r) = &mut logged.record {
            r.synced[0].1.len = u64::MAX;
        }
        let misfit = state.apply(&logged).unwrap_err();
        assert!(misfit.contains("more than a chunk"), "{misfit}");
    }
}
