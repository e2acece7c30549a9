//! `put`, `append`, `get` and `cat`: whole files and trees between this machine and the cluster.
//!
//! What is being made has a temporary name beside its final one until all of it is durable; then it is
//! renamed. So nobody ever sees a part of it under the final name.
use super::failure::{Exit, Failure};
use super::path::{RemotePath, local_name};
use super::pieces::{self, Sink};
use super::reach::Reach;
use super::screen::{Named, Screen};
use super::tree::{Did, Effect, found};
use bytes::Bytes;
use indicatif::ProgressBar;
use kfs_client::{CreateOptions, Kfs, ReadStream, Reader, Writer};
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Keep, Kind, Ownership, Parents, RenameMode};
use serde::Serialize;
use std::collections::VecDeque;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc;

/// The prefix of what is being fetched.
const GET_PREFIX: &str = ".kfs-get-";

/// What becomes of a file that has the final name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// It stays, and the command is refused.
    MustBeNew,
    /// `--force`: it is replaced, atomically.
    Replaced,
}

impl Target {
    pub(crate) const fn from_force(force: bool) -> Self {
        if force {
            Self::Replaced
        } else {
            Self::MustBeNew
        }
    }
}

/// What a transfer did, as JSON.
#[derive(Serialize, Debug)]
pub(crate) struct Transferred<'a> {
    pub(crate) did: &'a str,
    #[serde(flatten)]
    pub(crate) named: Named,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// How much was moved.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Moved {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Where bytes that are stored come from, in order.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file or pipe of this machine.
    Local(mpsc::Receiver<io::Result<Bytes>>),
    /// A file of the cluster.
    Remote {
        stream: ReadStream,
        /// Came with others, and were not taken yet.
        parts: VecDeque<Bytes>,
        /// Has to come.
        left: u64,
    },
}

impl Source {
    pub(crate) fn local(source: impl Read + Send + 'static) -> Self {
        Self::Local(pieces::read(source))
    }

    /// All of it, as it was when it was opened.
    pub(crate) fn remote(reader: &Reader) -> Self {
        let left = reader.attrs().size;
        Self::Remote {
            stream: reader.stream(0, left),
            parts: VecDeque::new(),
            left,
        }
    }

    /// The next bytes; `None` at the end, which is where it has to be.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Local(pieces) => {
                let piece = pieces.recv().await.transpose();
                piece.map_err(|error| Failure::local("cannot read what is to be stored", &error))
            }
            Self::Remote {
                stream,
                parts,
                left,
            } => loop {
                if let Some(part) = parts.pop_front() {
                    *left = left.saturating_sub(part.len() as u64);
                    return Ok(Some(part));
                }
                match stream.next().await.transpose()? {
                    Some(chunked) => parts.extend(chunked.parts),
                    None if *left == 0 => return Ok(None),
                    None => {
                        let what = format!("what is copied ended {left} bytes before its end");
                        return Err(Failure::new(Status::Corrupt, what));
                    }
                }
            },
        }
    }
}

/// Who owns what this process makes.
pub(crate) fn ownership(mode: u32) -> Ownership {
    Ownership {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode: mode & 0o7777,
    }
}

/// The mode bits that this process does not give.
pub(crate) fn umask() -> u32 {
    // It can only be read by setting it.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

pub(crate) fn exists(what: &str) -> Failure {
    Failure::new(Status::Exists, format!("{what} exists")).help("--force replaces a file")
}

/// Whether there is something to store.
pub(crate) fn check_source(local: &Path) -> Result<(), Failure> {
    if is_stdio(local) {
        return Ok(());
    }
    fs::metadata(local)
        .map(|_| ())
        .map_err(|error| cannot("open", local, &error))
}

fn is_stdio(local: &Path) -> bool {
    local.as_os_str() == "-"
}

fn cannot(verb: &str, local: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("cannot {verb} {}", local.display()), error)
}

/// What is to be stored, and where.
struct Asked {
    /// `None`: standard input.
    source: Option<Metadata>,
    path: RemotePath,
    /// Whether a file has the name.
    is_there: bool,
}

/// Looks whether it can be, before anything is done.
async fn asked(
    reach: &Reach,
    local: &Path,
    path: RemotePath,
    target: Target,
) -> Result<Asked, Failure> {
    let source = if is_stdio(local) {
        None
    } else {
        Some(fs::metadata(local).map_err(|e| cannot("open", local, &e))?)
    };
    let path = match &source {
        Some(_) => target_path(reach, path, || name_of(local)).await?,
        None => target_path(reach, path, || Err(nameless())).await?,
    };
    // Told early; the rename tells it again, for what happens meanwhile.
    let there = found(&reach.kfs, &path).await?;
    if let Some(found) = &there {
        let is_tree = source.as_ref().is_some_and(Metadata::is_dir);
        replaceable(&path, found.kind, is_tree, target)?;
    }
    Ok(Asked {
        source,
        path,
        is_there: there.is_some(),
    })
}

/// `put --dry-run`.
pub(crate) async fn say_put(
    reach: &Reach,
    screen: &Screen,
    local: &Path,
    path: RemotePath,
    target: Target,
) -> Result<Exit, Failure> {
    let Asked { path, is_there, .. } = asked(reach, local, path, target).await?;
    let did = if is_there {
        "would replace"
    } else {
        "would store"
    };
    screen.json(&Did::new(did, &path))?;
    screen.line([did.as_bytes(), b" ", &screen.name(path.bytes())].concat())?;
    Ok(Exit::Done)
}

/// Stores a local file, directory, or standard input.
pub(crate) async fn put(
    reach: &Reach,
    screen: &Screen,
    local: &Path,
    path: RemotePath,
    target: Target,
    replication: u8,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let Asked { source, path, .. } = asked(reach, local, path, target).await?;
    let moved = match source {
        Some(source) if source.is_dir() => {
            put_tree(reach, screen, local, &source, &path, replication).await
        }
        Some(source) => {
            let file = File::open(local).map_err(|error| cannot("open", local, &error))?;
            let len = source.is_file().then_some(source.len());
            let mode = source.permissions().mode();
            let bar = screen.progress(len);
            put_file(
                reach,
                Source::local(file),
                &path,
                target,
                ownership(mode),
                replication,
                &bar,
            )
            .await
        }
        None => {
            let bar = screen.progress(None);
            put_file(
                reach,
                Source::local(io::stdin()),
                &path,
                target,
                ownership(0o666 & !umask()),
                replication,
                &bar,
            )
            .await
        }
    }?;
    screen.json(&Transferred {
        did: "stored",
        named: Named::new(path.bytes()),
        files: moved.files,
        bytes: moved.bytes,
        seconds: started.elapsed().as_secs_f64(),
    })?;
    Ok(Exit::Done)
}

/// Adds a local file, or standard input, to the end of a file.
pub(crate) async fn append(
    reach: &Reach,
    screen: &Screen,
    local: &Path,
    path: &RemotePath,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let (source, len) = if is_stdio(local) {
        (Source::local(io::stdin()), None)
    } else {
        let file = File::open(local).map_err(|error| cannot("open", local, &error))?;
        let found = file
            .metadata()
            .map_err(|error| cannot("open", local, &error))?;
        if found.is_dir() {
            let what = format!("{} is a directory", local.display());
            return Err(Failure::new(Status::IsADirectory, what));
        }
        (Source::local(file), found.is_file().then_some(found.len()))
    };
    let bar = screen.progress(len);
    let writer = reach.kfs.append(path.bytes()).await?;
    let bytes = fill(writer, source, &bar).await?;
    bar.finish_and_clear();
    screen.json(&Transferred {
        did: "appended",
        named: Named::new(path.bytes()),
        files: 1,
        bytes,
        seconds: started.elapsed().as_secs_f64(),
    })?;
    Ok(Exit::Done)
}

/// The final path: `path`, or in it under its own name, if it is a directory. Its parent is there.
pub(crate) async fn target_path(
    reach: &Reach,
    path: RemotePath,
    name: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<RemotePath, Failure> {
    match found(&reach.kfs, &path).await? {
        Some(found) if found.kind == Kind::Directory => {
            let name = name().map_err(|failure| Failure {
                what: format!("{} is a directory, and {}", path.shown(), failure.what),
                ..failure
            })?;
            Ok(path.join(&name))
        }
        Some(_) => Ok(path),
        None => {
            let parent = path.parent();
            if reach.kfs.stat(parent.bytes()).await?.kind == Kind::File {
                return Err(Failure::new(
                    Status::NotADirectory,
                    format!("{} is a file", parent.shown()),
                ));
            }
            Ok(path)
        }
    }
}

/// Under which name something of this machine is stored.
fn name_of(local: &Path) -> Result<Vec<u8>, Failure> {
    // `.` and `..` have a name, but do not say it.
    let local = fs::canonicalize(local).map_err(|error| cannot("open", local, &error))?;
    match local.file_name() {
        Some(name) => Ok(std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec()),
        None => Err(Failure::usage(
            "the root directory has no name to be stored under",
        )),
    }
}

fn nameless() -> Failure {
    Failure::new(
        Status::IsADirectory,
        "standard input has no name of its own",
    )
    .help("name the file that is to be made")
}

/// Whether what is there may be replaced by a file or a tree.
pub(crate) fn replaceable(
    path: &RemotePath,
    found: Kind,
    is_tree: bool,
    target: Target,
) -> Result<(), Failure> {
    if target == Target::MustBeNew {
        return Err(exists(&path.shown()));
    }
    match (found, is_tree) {
        (Kind::File, false) => Ok(()),
        (Kind::Directory, false) => Err(Failure::new(
            Status::IsADirectory,
            format!(
                "{} is a directory: it is not replaced by a file",
                path.shown()
            ),
        )),
        (_, true) => Err(Failure {
            help: None,
            ..exists(&path.shown())
        }
        .help("a directory replaces nothing: 'kfs rm -r' what is there first")),
    }
}

/// Stores a file under a temporary name, and renames it when it is durable.
pub(crate) async fn put_file(
    reach: &Reach,
    source: Source,
    path: &RemotePath,
    target: Target,
    owner: Ownership,
    replication: u8,
    bar: &ProgressBar,
) -> Result<Moved, Failure> {
    let temporary = reach.temporary_beside(path);
    let renamed = |failure| as_asked(failure, &temporary, path);
    let options = CreateOptions {
        owner,
        replication,
        keep: Keep::UntilSessionEnds,
    };
    let bytes = upload(&reach.kfs, source, temporary.bytes(), options, bar)
        .await
        .map_err(renamed)?;
    let mode = match target {
        Target::MustBeNew => RenameMode::NoReplace,
        Target::Replaced => RenameMode::Replace,
    };
    match reach
        .kfs
        .rename(temporary.bytes(), path.bytes(), mode)
        .await
    {
        Ok(()) => {}
        Err(error) if error.status == Status::Exists => return Err(exists(&path.shown())),
        Err(error) => return Err(renamed(error.into())),
    }
    reach.settled(&temporary);
    bar.finish_and_clear();
    Ok(Moved { files: 1, bytes })
}

/// People asked for `path`: they should not have to know what else it was called.
pub(crate) fn as_asked(failure: Failure, temporary: &RemotePath, path: &RemotePath) -> Failure {
    Failure {
        what: failure.what.replace(&temporary.shown(), &path.shown()),
        ..failure
    }
}

/// Makes a file and fills it, durably.
pub(crate) async fn upload(
    kfs: &Kfs,
    source: Source,
    path: &[u8],
    options: CreateOptions,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    fill(kfs.create(path, options).await?, source, bar).await
}

/// Writes all of it where the file ends, and closes that. Gives how many bytes these are.
async fn fill(mut writer: Writer, mut source: Source, bar: &ProgressBar) -> Result<u64, Failure> {
    let begin = writer.written();
    while let Some(piece) = source.next().await? {
        let len = piece.len() as u64;
        writer.write(piece).await?;
        bar.inc(len);
    }
    let bytes = writer.written() - begin;
    writer.close().await?;
    Ok(bytes)
}

/// One entry of a local tree, its path relative to the tree's root as names.
struct LocalEntry {
    below: Vec<Vec<u8>>,
    local: PathBuf,
    metadata: Metadata,
}

/// Stores a directory: all of it under a temporary name, which is then renamed.
async fn put_tree(
    reach: &Reach,
    screen: &Screen,
    root: &Path,
    metadata: &Metadata,
    path: &RemotePath,
    replication: u8,
) -> Result<Moved, Failure> {
    // Looked through first: what cannot be stored is found before anything is.
    let entries = walk(root)?;
    let total = entries
        .iter()
        .filter(|entry| entry.metadata.is_file())
        .map(|entry| entry.metadata.len())
        .sum();
    let bar = screen.progress(Some(total));
    let temporary = reach.temporary_beside(path);
    let renamed = |error: kfs_client::Error| as_asked(error.into(), &temporary, path);
    reach
        .kfs
        .mkdir(
            temporary.bytes(),
            Parents::MustExist,
            ownership(metadata.permissions().mode()),
        )
        .await
        .map_err(renamed)?;
    let mut moved = Moved::default();
    for LocalEntry {
        below,
        local,
        metadata,
    } in entries
    {
        let there = below
            .iter()
            .fold(temporary.clone(), |path, name| path.join(name));
        let owner = ownership(metadata.permissions().mode());
        if metadata.is_dir() {
            reach
                .kfs
                .mkdir(there.bytes(), Parents::MustExist, owner)
                .await
                .map_err(renamed)?;
            continue;
        }
        let file = File::open(&local).map_err(|error| cannot("open", &local, &error))?;
        // It keeps its name when the tree is renamed, so the end of the session must not take it.
        let options = CreateOptions {
            owner,
            replication,
            keep: Keep::Always,
        };
        let source = Source::local(file);
        let stored = upload(&reach.kfs, source, there.bytes(), options, &bar).await;
        let stored = stored.map_err(|failure| {
            let failure = as_asked(failure, &temporary, path);
            Failure {
                what: format!("{}: {}", local.display(), failure.what),
                ..failure
            }
        })?;
        moved = Moved {
            files: moved.files + 1,
            bytes: moved.bytes + stored,
        };
    }
    reach
        .kfs
        .rename(temporary.bytes(), path.bytes(), RenameMode::NoReplace)
        .await
        .map_err(renamed)?;
    reach.settled(&temporary);
    bar.finish_and_clear();
    Ok(moved)
}

/// Everything below a local directory, parents before what is in them.
fn walk(root: &Path) -> Result<Vec<LocalEntry>, Failure> {
    let mut found = Vec::new();
    let mut pending = vec![(Vec::<Vec<u8>>::new(), root.to_path_buf())];
    while let Some((below, directory)) = pending.pop() {
        let read = |error: &io::Error| cannot("read", &directory, error);
        for entry in fs::read_dir(&directory).map_err(|error| read(&error))? {
            let entry = entry.map_err(|error| read(&error))?;
            let local = entry.path();
            let metadata = entry
                .metadata()
                .map_err(|error| cannot("look at", &local, &error))?;
            if !metadata.is_dir() && !metadata.is_file() {
                let what = format!("{} is neither a file nor a directory", local.display());
                return Err(Failure::new(Status::LocalIo, what)
                    .help("leave it out: nothing has been stored"));
            }
            let mut below = below.clone();
            below.push(std::os::unix::ffi::OsStringExt::into_vec(entry.file_name()));
            if metadata.is_dir() {
                pending.push((below.clone(), local.clone()));
            }
            found.push(LocalEntry {
                below,
                local,
                metadata,
            });
        }
    }
    Ok(found)
}

/// Fetches a file or directory.
pub(crate) async fn get(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    local: PathBuf,
    target: Target,
    effect: Effect,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    if is_stdio(&local) && effect == Effect::Real {
        return cat(reach, path, 0, None).await;
    }
    let attrs = reach.kfs.stat(path.bytes()).await?;
    let local = match (local.is_dir(), path.name()) {
        (true, Some(name)) => local.join(local_name(name)),
        (true, None) => {
            return Err(
                Failure::usage("the root directory has no name to be stored under")
                    .help("name a new directory"),
            );
        }
        (false, _) => local,
    };
    // `symlink_metadata`: a dangling link is something that exists, too.
    let taken = fs::symlink_metadata(&local).ok();
    if taken.is_some() && target == Target::MustBeNew {
        return Err(exists(&local.display().to_string()));
    }
    if taken.as_ref().is_some_and(Metadata::is_dir)
        || (taken.is_some() && attrs.kind == Kind::Directory)
    {
        let what = format!(
            "{} exists, and only a file is replaced, by a file",
            local.display()
        );
        return Err(Failure::new(Status::Exists, what).help("remove it first"));
    }
    if effect == Effect::Said {
        let did = if taken.is_some() {
            "would replace"
        } else {
            "would fetch"
        };
        screen.json(&Did::new(did, path))?;
        screen.line(match taken {
            Some(_) => format!("{did} {} by {}", local.display(), path.shown()),
            None => format!("{did} {} to {}", path.shown(), local.display()),
        })?;
        return Ok(Exit::Done);
    }
    let moved = match attrs.kind {
        Kind::File => {
            let bar = screen.progress(Some(attrs.size));
            let bytes = get_file(&reach.kfs, path, &local, target, &bar).await?;
            bar.finish_and_clear();
            Moved { files: 1, bytes }
        }
        Kind::Directory => get_tree(&reach.kfs, screen, path, &attrs, &local).await?,
    };
    screen.json(&Transferred {
        did: "fetched",
        named: Named::new(path.bytes()),
        files: moved.files,
        bytes: moved.bytes,
        seconds: started.elapsed().as_secs_f64(),
    })?;
    Ok(Exit::Done)
}

/// Fetches into a temporary file beside `local`, syncs it, and renames it.
async fn get_file(
    kfs: &Kfs,
    path: &RemotePath,
    local: &Path,
    target: Target,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let directory = directory_of(local);
    let reader = kfs.open(path.bytes()).await?;
    let temporary = tempfile::Builder::new()
        .prefix(GET_PREFIX)
        .tempfile_in(directory);
    let temporary = temporary.map_err(|error| cannot("make a file in", directory, &error))?;
    let failed = |error: &io::Error| cannot("write", local, error);
    let file = temporary
        .as_file()
        .try_clone()
        .map_err(|error| failed(&error))?;
    let (file, bytes) = download(&reader, 0, reader.attrs().size, path, file, bar, failed).await?;
    let mode = reader.attrs().mode & 0o777 & !umask();
    file.set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.sync_all())
        .map_err(|error| failed(&error))?;
    match target {
        Target::Replaced => temporary.persist(local),
        Target::MustBeNew => temporary.persist_noclobber(local),
    }
    .map_err(|unnamed| match unnamed.error.kind() {
        io::ErrorKind::AlreadyExists => exists(&local.display().to_string()),
        _ => failed(&unnamed.error),
    })?;
    sync_directory(directory)?;
    Ok(bytes)
}

/// Fetches a directory: all of it under a temporary name, which is then renamed.
async fn get_tree(
    kfs: &Kfs,
    screen: &Screen,
    root: &RemotePath,
    attrs: &Attrs,
    local: &Path,
) -> Result<Moved, Failure> {
    let directory = directory_of(local);
    let temporary = tempfile::Builder::new()
        .prefix(GET_PREFIX)
        .tempdir_in(directory);
    let temporary = temporary.map_err(|error| cannot("make a directory in", directory, &error))?;
    let bar = screen.progress(None);
    let mut moved = Moved::default();
    // Modes are given at the end, deepest first: a directory that may not be written could not be filled.
    let mut modes = vec![(temporary.path().to_path_buf(), attrs.mode)];
    let mut pending = vec![(root.clone(), temporary.path().to_path_buf())];
    while let Some((there, here)) = pending.pop() {
        let mut entries = kfs.list(there.bytes());
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            if entry.name.is_empty()
                || entry.name == b"."
                || entry.name == b".."
                || entry.name.contains(&b'/')
            {
                let what = format!("{} lists a name that cannot be", there.shown());
                return Err(Failure::new(Status::Protocol, what));
            }
            let (there, here) = (there.join(&entry.name), here.join(local_name(&entry.name)));
            match entry.attrs.kind {
                Kind::File => {
                    let bytes = get_file(kfs, &there, &here, Target::MustBeNew, &bar).await?;
                    moved = Moved {
                        files: moved.files + 1,
                        bytes: moved.bytes + bytes,
                    };
                }
                Kind::Directory => {
                    fs::create_dir(&here).map_err(|error| cannot("make", &here, &error))?;
                    modes.push((here.clone(), entry.attrs.mode));
                    pending.push((there, here));
                }
            }
        }
    }
    for (made, mode) in modes.into_iter().rev() {
        sync_directory(&made)?;
        let mode = Permissions::from_mode(mode & 0o777 & !umask());
        fs::set_permissions(&made, mode)
            .map_err(|error| cannot("set the mode of", &made, &error))?;
    }
    let (cwd, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
    rustix::fs::renameat_with(cwd, temporary.path(), cwd, local, flags).map_err(
        |error| match error {
            rustix::io::Errno::EXIST => exists(&local.display().to_string()),
            error => cannot("name", local, &error.into()),
        },
    )?;
    // It is not there any more under its temporary name.
    let _ = temporary.keep();
    sync_directory(directory)?;
    bar.finish_and_clear();
    Ok(moved)
}

/// Where a local path is an entry.
fn directory_of(local: &Path) -> &Path {
    local
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes names in a local directory durable.
fn sync_directory(directory: &Path) -> Result<(), Failure> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| cannot("sync", directory, &error))
}

/// Writes a file, or a range of it, to standard output.
pub(crate) async fn cat(
    reach: &Reach,
    path: &RemotePath,
    offset: u64,
    length: Option<u64>,
) -> Result<Exit, Failure> {
    let reader = reach.kfs.open(path.bytes()).await?;
    let len = reader
        .attrs()
        .size
        .saturating_sub(offset)
        .min(length.unwrap_or(u64::MAX));
    download(
        &reader,
        offset,
        len,
        path,
        io::stdout(),
        &ProgressBar::hidden(),
        Failure::stdout,
    )
    .await?;
    Ok(Exit::Done)
}

/// Reads a range, which is all there, into a local file or pipe.
pub(crate) async fn download<W: Write + Send + 'static>(
    reader: &Reader,
    offset: u64,
    len: u64,
    path: &RemotePath,
    target: W,
    bar: &ProgressBar,
    failed: impl Fn(&io::Error) -> Failure,
) -> Result<(W, u64), Failure> {
    let sink = Sink::new(target);
    let mut stream = reader.stream(offset, len);
    let mut bytes = 0;
    while let Some(chunked) = stream.next().await {
        let parts = chunked?.parts;
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if sink.write(parts).await.is_err() {
            break;
        }
        bytes += len;
        bar.inc(len);
    }
    let target = sink.end().await.map_err(|error| failed(&error))?;
    if bytes != len {
        let what = format!("{} ended after {bytes} of {len} bytes", path.shown());
        return Err(Failure::new(Status::Corrupt, what));
    }
    Ok((target, bytes))
}
