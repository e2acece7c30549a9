//! `kfs at` and `kfs log blame`: what a namespace was, and which records made it so, from a data directory.
use super::super::failure::{Exit, Failure};
use super::super::list::{self, Look};
use super::super::path::{RemotePath, shown};
use super::super::screen::{Described, Screen};
use super::log::show;
use super::{MetaDir, identity, load};
use kfs_core::identity::Owner;
use kfs_core::ids::{FileId, LogSeq};
use kfs_core::meta::record::{Logged, Record};
use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::{At, Attrs, Kind};
use kfs_core::wire::{Refusal, Status};
use std::collections::BTreeSet;
use std::path::Path;

/// What is shown of a past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shows {
    /// The entries of a directory, or a file.
    Entries(Look),
    /// All attributes.
    Attributes,
}

/// The data directory of a meta server, and the state at its oldest record or at a newer checkpoint.
struct History {
    dir: MetaDir,
    base: State,
}

/// From where a history is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Since {
    /// As far back as there is anything.
    Oldest,
    /// As short before this record as there is a checkpoint.
    Before(LogSeq),
}

impl History {
    fn open(data: &Path, since: Since) -> Result<Self, Failure> {
        let identity = identity(data)?;
        if identity.owner == Owner::Chunk {
            let what = format!("{} is a chunkserver's: it has no log", data.display());
            return Err(Failure::usage(what));
        }
        let dir = MetaDir::open(data, identity)?;
        let first = dir.segments.first().map(|(first, _)| *first);
        let whole = first == Some(LogSeq(1));
        let all = || dir.checkpoints.iter().map(|(seq, path)| (*seq, path));
        // A checkpoint is of use if the log goes on behind it.
        let joins = |seq: LogSeq| first.is_none_or(|first| first <= seq.next());
        let base = match since {
            Since::Oldest if whole => None,
            Since::Oldest => all().find(|(seq, _)| joins(*seq)),
            Since::Before(seq) => all().rfind(|(at, _)| *at <= seq && joins(*at)),
        };
        let base = match base {
            Some((_, path)) => load(dir.identity.cluster, path)?.0,
            None if whole => State::default(),
            None => {
                let oldest = all().find(|(seq, _)| joins(*seq));
                let since = oldest.map_or_else(
                    || "nothing in it can be told".to_owned(),
                    |(seq, _)| format!("what was before record {seq} cannot be told"),
                );
                let what = format!("the log in {} was shortened: {since}", data.display());
                return Err(Failure::new(Status::NotFound, what));
            }
        };
        Ok(Self { dir, base })
    }

    /// Gives every record behind the base to `each`, with the state that it is applied to, until that wants no more;
    /// gives the state then.
    fn tell(
        &self,
        mut each: impl FnMut(&State, &Logged) -> Result<Go, Failure>,
    ) -> Result<State, Failure> {
        let mut state = self.base.clone();
        let mut ended = None;
        let read = self.dir.read_log(&mut |logged| {
            if logged.seq <= state.seq() {
                return Ok(());
            }
            match each(&state, &logged) {
                Ok(Go::On) => state.apply(&logged),
                Ok(Go::Stop) => {
                    ended = Some(Ok(()));
                    Err("it is far enough".into())
                }
                Err(failure) => {
                    ended = Some(Err(failure));
                    Err("it failed".into())
                }
            }
        });
        match ended {
            Some(ended) => ended?,
            None => drop(read?),
        }
        Ok(state)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Go {
    On,
    Stop,
}

fn at(path: &RemotePath) -> At {
    At::root(path.bytes().strip_prefix(b"/").unwrap_or(path.bytes()))
}

fn failure(refusal: Refusal) -> Failure {
    Failure::new(refusal.status, refusal.detail)
}

/// Shows what stood at a path once a record was applied.
pub(crate) fn look(
    data: &Path,
    seq: LogSeq,
    path: &RemotePath,
    shows: Shows,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let history = History::open(data, Since::Before(seq))?;
    let state = history.tell(|_, logged| Ok(if logged.seq <= seq { Go::On } else { Go::Stop }))?;
    if state.seq() < seq {
        let what = format!(
            "the log ends with record {}: there is no {seq}",
            state.seq()
        );
        return Err(Failure::new(Status::NotFound, what));
    }
    let attrs = state.stat(&at(path)).map_err(failure)?;
    let look = match shows {
        Shows::Attributes => {
            list::show(screen, path, &attrs)?;
            return Ok(Exit::Done);
        }
        Shows::Entries(look) => look,
    };
    if attrs.kind == Kind::File {
        screen.json(&Described::new(path.bytes(), &attrs))?;
        list::entry(screen, path.bytes(), &attrs, look)?;
        return Ok(Exit::Done);
    }
    let (mut after, mut end) = (Vec::new(), false);
    while !end {
        let (page, is_last) = state.list(&at(path), &after).map_err(failure)?;
        end = is_last;
        for entry in page {
            let full = path.join(&entry.name);
            screen.json(&Described::new(full.bytes(), &entry.attrs))?;
            list::entry(screen, &entry.name, &entry.attrs, look)?;
            after = entry.name;
        }
    }
    Ok(Exit::Done)
}

/// What stands at a path, if anything does.
fn standing(state: &State, path: &RemotePath) -> Option<FileId> {
    state.stat(&at(path)).ok().map(|attrs| attrs.file)
}

/// The file that a record about a chunk is about.
fn of_chunk(state: &State, record: &Record) -> Option<FileId> {
    match record {
        Record::ChunkOpened(opened) => Some(opened.file),
        Record::ChunkAbandoned(gone) => state.chunk(gone.chunk).map(|owned| owned.file),
        Record::MembersChanged(r) => state.chunk(r.chunk).map(|owned| owned.file),
        Record::Sealed(r) => state.chunk(r.chunk).map(|owned| owned.file),
        Record::SizeSet(set) => Some(set.file),
        Record::OrphanAdopted(adopted) => Some(adopted.file),
        _ => None,
    }
}

/// Prints every record that changed what stands at a path, and what stood there before, whatever its name was then;
/// oldest first.
pub(crate) fn blame(data: &Path, path: &RemotePath, screen: &Screen) -> Result<Exit, Failure> {
    let history = History::open(data, Since::Oldest)?;
    // Who stood there is known at the end only: a file that is put is written under another name.
    let mut stood: BTreeSet<FileId> = BTreeSet::new();
    let end = history.tell(|state, _| {
        stood.extend(standing(state, path));
        Ok(Go::On)
    })?;
    stood.extend(standing(&end, path));
    if stood.is_empty() {
        let since = history.base.seq();
        let what = if since == LogSeq(0) {
            format!("nothing ever stood at {}", shown(path.bytes()))
        } else {
            format!(
                "nothing stood at {} since record {since}, where this history begins",
                shown(path.bytes())
            )
        };
        return Err(Failure::new(Status::NotFound, what));
    }
    let before = standing(&history.base, path);
    if before.is_some() {
        let since = history.base.seq();
        screen.note(format!(
            "what stands there is older than record {since}, where this history begins"
        ));
    }
    // A record is shown when the state behind it is known: with the one that follows, or at the end.
    let mut pending: Option<(Logged, Seen)> = None;
    let end = history.tell(|state, logged| {
        let seen = Seen::of(state, path, &stood);
        if let Some((shaped, before)) = pending.take()
            && before != seen
        {
            show(&shaped, screen)?;
        }
        if of_chunk(state, &logged.record).is_some_and(|file| stood.contains(&file)) {
            show(logged, screen)?;
        } else {
            pending = Some((logged.clone(), seen));
        }
        Ok(Go::On)
    })?;
    if let Some((shaped, before)) = pending
        && before != Seen::of(&end, path, &stood)
    {
        show(&shaped, screen)?;
    }
    Ok(Exit::Done)
}

/// All that a record may change of what stands, or stood, at a path.
#[derive(PartialEq, Debug)]
struct Seen {
    standing: Option<FileId>,
    attrs: Vec<Option<Attrs>>,
}

impl Seen {
    fn of(state: &State, path: &RemotePath, stood: &BTreeSet<FileId>) -> Self {
        Self {
            standing: standing(state, path),
            attrs: stood.iter().map(|file| state.attrs(*file)).collect(),
        }
    }
}
