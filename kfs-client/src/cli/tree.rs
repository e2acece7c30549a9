//! `rm`, `mkdir`, `rmdir`, `mv`, `setrep` and `truncate`.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::{Named, Screen};
use super::transfer::{exists, ownership, umask};
use super::walk::Walk;
use kfs_client::Kfs;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Kind, Parents, RenameMode};
use serde::Serialize;

/// What `rm` removes, and of what `setrep` changes the replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// A file.
    File,
    /// `-r`, or `-R`: with all that is below it.
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
pub(crate) struct Did<'a> {
    did: &'a str,
    #[serde(flatten)]
    named: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Named>,
}

impl<'a> Did<'a> {
    pub(crate) fn new(did: &'a str, path: &RemotePath) -> Self {
        Self {
            did,
            named: Named::new(path.bytes()),
            to: None,
        }
    }

    pub(crate) fn to(self, to: &RemotePath) -> Self {
        Self {
            to: Some(Named::new(to.bytes())),
            ..self
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
        let mut walk = Walk::new(kfs, path, u32::MAX);
        while let Some(step) = walk.next().await {
            let path = step?.path;
            screen.json(&Did::new("would remove", &path))?;
            screen.line([b"would remove ", &screen.name(path.bytes())[..]].concat())?;
        }
        return Ok(());
    }
    match attrs.kind {
        Kind::File => kfs.remove(path.bytes()).await?,
        Kind::Directory => remove_all(kfs, path.bytes()).await?,
    }
    screen.json(&Did::new("removed", path))
}

/// Changes how many replicas each path, or each file below it, asks for.
pub(crate) async fn setrep(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    replication: u8,
    depth: Depth,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let set = setrep_one(&reach.kfs, screen, path, replication, depth).await;
        exit = note_failure(screen, set, exit)?;
    }
    Ok(exit)
}

async fn setrep_one(
    kfs: &Kfs,
    screen: &Screen,
    root: &RemotePath,
    replication: u8,
    depth: Depth,
) -> Result<(), Failure> {
    let set = async |path: &RemotePath| -> Result<(), Failure> {
        kfs.set_replication(path.bytes(), replication).await?;
        screen.json(&Did::new("set", path))
    };
    if kfs.stat(root.bytes()).await?.kind == Kind::File {
        return set(root).await;
    }
    if depth == Depth::File {
        let what = format!("{} is a directory", root.shown());
        return Err(Failure::new(Status::IsADirectory, what)
            .help("'kfs setrep -R' changes all files below a directory"));
    }
    let mut walk = Walk::new(kfs, root, u32::MAX);
    while let Some(step) = walk.next().await {
        let step = step?;
        if step.attrs.kind == Kind::File {
            set(&step.path).await?;
        }
    }
    Ok(())
}

/// Gives each file another length.
pub(crate) async fn truncate(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    size: u64,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let cut = async {
            reach
                .kfs
                .truncate(path.bytes(), size)
                .await?
                .close()
                .await?;
            screen.json(&Did::new("truncated", path))
        };
        exit = note_failure(screen, cut.await, exit)?;
    }
    Ok(exit)
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
    effect: Effect,
) -> Result<Exit, Failure> {
    let found = found(&reach.kfs, to).await?;
    let into = found.is_some_and(|attrs| attrs.kind == Kind::Directory) && to != from;
    let to = match from.name() {
        Some(name) if into => to.join(name),
        _ => to.clone(),
    };
    if effect == Effect::Said {
        return say_mv(&reach.kfs, screen, from, &to, mode).await;
    }
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
    screen.json(&Did::new("renamed", from).to(&to))?;
    Ok(Exit::Done)
}

/// What is there, if anything is.
pub(crate) async fn found(kfs: &Kfs, path: &RemotePath) -> Result<Option<Attrs>, Failure> {
    match kfs.stat(path.bytes()).await {
        Ok(attrs) => Ok(Some(attrs)),
        Err(error) if error.status == Status::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says what a rename would do, or why it would be refused.
async fn say_mv(
    kfs: &Kfs,
    screen: &Screen,
    from: &RemotePath,
    to: &RemotePath,
    mode: RenameMode,
) -> Result<Exit, Failure> {
    let attrs = kfs.stat(from.bytes()).await?;
    let is_inside = attrs.kind == Kind::Directory && to != from && to.is_below(from);
    if is_inside || from.is_root() {
        let what = format!("{} cannot be moved into itself", from.shown());
        return Err(Failure::new(Status::BadRequest, what));
    }
    kfs.stat(to.parent().bytes()).await?;
    let refused = |status, what: &str| {
        let what = format!("{} {what}", to.shown());
        Err(Failure::new(status, what))
    };
    let did = match found(kfs, to).await? {
        None => "would rename",
        Some(there) if there.file == attrs.file => "would leave",
        Some(_) if mode == RenameMode::NoReplace => {
            return Err(exists(&to.shown()).help("without -n it is replaced"));
        }
        Some(there) => match (attrs.kind, there.kind) {
            (Kind::File, Kind::Directory) => {
                return refused(Status::IsADirectory, "is a directory");
            }
            (Kind::Directory, Kind::File) => return refused(Status::NotADirectory, "is a file"),
            (Kind::Directory, Kind::Directory) if there.size > 0 => {
                return refused(Status::NotEmpty, "has entries");
            }
            _ => "would replace",
        },
    };
    say(screen, did, from, to)?;
    Ok(Exit::Done)
}

/// Says of something that it would get another name, or a copy, and whether that replaces what has it.
pub(crate) fn say(
    screen: &Screen,
    did: &str,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<(), Failure> {
    screen.json(&Did::new(did, from).to(to))?;
    let (from, to) = (screen.name(from.bytes()), screen.name(to.bytes()));
    screen.line(match did {
        "would replace" => [b"would replace ", &to[..], b" by ", &from].concat(),
        "would leave" => [b"would leave ", &from[..], b" as it is"].concat(),
        did => [did.as_bytes(), b" ", &from, b" to ", &to].concat(),
    })
}
