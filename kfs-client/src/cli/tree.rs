//! `rm`, `mkdir`, `rmdir` and `mv`.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::{Named, Screen};
use super::transfer::{ownership, umask};
use kfs_client::Kfs;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Entry, Kind, Parents, RenameMode};
use serde::Serialize;

/// What `rm` removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// A file.
    File,
    /// `-r`.
    Tree,
}

/// Whether anything is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// It is.
    Real,
    /// `--dry-run`: it is only said.
    Said,
}

impl Effect {
    pub(crate) const fn from_dry_run(dry_run: bool) -> Self {
        if dry_run { Self::Said } else { Self::Real }
    }
}

/// What a verb did, as JSON.
#[derive(Serialize, Debug)]
struct Did<'a> {
    did: &'a str,
    #[serde(flatten)]
    named: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Named>,
}

impl<'a> Did<'a> {
    fn new(did: &'a str, path: &RemotePath) -> Self {
        Self {
            did,
            named: Named::new(path.bytes()),
            to: None,
        }
    }
}

/// Removes each path.
pub(crate) async fn rm(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    depth: Depth,
    effect: Effect,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let removed = rm_one(&reach.kfs, screen, path, depth, effect).await;
        exit = note_failure(screen, removed, exit)?;
    }
    Ok(exit)
}

async fn rm_one(
    kfs: &Kfs,
    screen: &Screen,
    path: &RemotePath,
    depth: Depth,
    effect: Effect,
) -> Result<(), Failure> {
    if path.is_root() {
        // Refused before anything below it is touched.
        return Err(
            Failure::new(Status::Permission, "the root directory cannot be removed")
                .help("name what is to go: 'kfs ls /' lists it"),
        );
    }
    let attrs = kfs.stat(path.bytes()).await?;
    if attrs.kind == Kind::Directory && depth == Depth::File {
        return Err(Failure::new(
            Status::IsADirectory,
            format!("{} is a directory", path.shown()),
        )
        .help("'kfs rm -r' removes a directory with everything in it, 'kfs rmdir' an empty one"));
    }
    if effect == Effect::Said {
        screen.json(&Did::new("would remove", path))?;
        screen.line([b"would remove ", &screen.name(path.bytes())[..]].concat())?;
        if attrs.kind == Kind::Directory {
            say_tree(kfs, screen, path).await?;
        }
        return Ok(());
    }
    match attrs.kind {
        Kind::File => kfs.remove(path.bytes()).await?,
        Kind::Directory => remove_all(kfs, path.bytes()).await?,
    }
    screen.json(&Did::new("removed", path))
}

async fn say_tree(kfs: &Kfs, screen: &Screen, root: &RemotePath) -> Result<(), Failure> {
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        let mut entries = kfs.list(directory.bytes());
        while let Some(entry) = entries.next().await {
            let entry: Entry = entry?;
            let path = directory.join(&entry.name);
            screen.json(&Did::new("would remove", &path))?;
            screen.line([b"would remove ", &screen.name(path.bytes())[..]].concat())?;
            if entry.attrs.kind == Kind::Directory {
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// Removes a file, or a directory with everything in it. What somebody else removes meanwhile is not missed.
pub(crate) async fn remove_all(kfs: &Kfs, path: &[u8]) -> Result<(), kfs_client::Error> {
    match kfs.remove(path).await {
        Err(error) if error.status == Status::IsADirectory => {
            missing_is_fine(kfs.remove_tree(path).await)
        }
        done => missing_is_fine(done),
    }
}

fn missing_is_fine(done: Result<(), kfs_client::Error>) -> Result<(), kfs_client::Error> {
    done.or_else(|error| {
        if error.status == Status::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// Makes each directory.
pub(crate) async fn mkdir(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    parents: Parents,
) -> Result<Exit, Failure> {
    let owner = ownership(0o777 & !umask());
    let mut exit = Exit::Done;
    for path in paths {
        let made = reach
            .kfs
            .mkdir(path.bytes(), parents, owner)
            .await
            .map_err(|error| {
                let missing = error.status == Status::NotFound;
                let failure = Failure::from(error);
                if missing {
                    failure.help("'kfs mkdir -p' makes missing parents too")
                } else {
                    failure
                }
            });
        let made = made.and_then(|()| screen.json(&Did::new("made", path)));
        exit = note_failure(screen, made, exit)?;
    }
    Ok(exit)
}

/// Removes each empty directory.
pub(crate) async fn rmdir(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    effect: Effect,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let removed = rmdir_one(&reach.kfs, screen, path, effect).await;
        exit = note_failure(screen, removed, exit)?;
    }
    Ok(exit)
}

async fn rmdir_one(
    kfs: &Kfs,
    screen: &Screen,
    path: &RemotePath,
    effect: Effect,
) -> Result<(), Failure> {
    if effect == Effect::Real {
        kfs.rmdir(path.bytes()).await?;
        return screen.json(&Did::new("removed", path));
    }
    let attrs = kfs.stat(path.bytes()).await?;
    if attrs.kind == Kind::File {
        return Err(Failure::new(
            Status::NotADirectory,
            format!("{} is a file", path.shown()),
        ));
    }
    if attrs.size > 0 {
        let what = format!("{} has {} entries", path.shown(), attrs.size);
        return Err(Failure::new(Status::NotEmpty, what));
    }
    screen.json(&Did::new("would remove", path))?;
    screen.line([b"would remove ", &screen.name(path.bytes())[..]].concat())
}

/// Renames; into `to`, if that is a directory, as everywhere on unix.
pub(crate) async fn mv(
    reach: &Reach,
    screen: &Screen,
    from: &RemotePath,
    to: &RemotePath,
    mode: RenameMode,
) -> Result<Exit, Failure> {
    let into = match reach.kfs.stat(to.bytes()).await {
        Ok(attrs) => attrs.kind == Kind::Directory && to != from,
        Err(error) if error.status == Status::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    let to = match from.name() {
        Some(name) if into => to.join(name),
        _ => to.clone(),
    };
    reach
        .kfs
        .rename(from.bytes(), to.bytes(), mode)
        .await
        .map_err(|error| {
            let taken = error.status == Status::Exists;
            let failure = Failure::from(error);
            if taken {
                failure.help("without -n it is replaced")
            } else {
                failure
            }
        })?;
    screen.json(&Did {
        to: Some(Named::new(to.bytes())),
        ..Did::new("renamed", from)
    })?;
    Ok(Exit::Done)
}
