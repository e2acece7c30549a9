//! A walk through a tree of the cluster: a directory before what is in it, names in byte order.
//!
//! Each directory is listed page by page as it is come by, so that what is held is one page per level, however much is
//! in the tree. What comes or goes meanwhile is met or not; a directory that goes while it is walked ends there.
use super::failure::Failure;
use super::path::RemotePath;
use kfs_client::{Directory, Kfs};
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Entry, Kind};

/// The way through a tree.
#[derive(Debug)]
pub(crate) struct Walk {
    kfs: Kfs,
    root: RemotePath,
    depth_max: u32,
    stage: Stage,
    /// The directories that are being listed, each in the one before.
    levels: Vec<Level>,
}

#[derive(Debug)]
enum Stage {
    /// The root was not looked at yet.
    Begin,
    /// This directory was given last, and what is in it comes next.
    Enter(RemotePath),
    Inside,
}

#[derive(Debug)]
struct Level {
    directory: RemotePath,
    entries: Directory,
    /// Asked for ahead: so each entry is known to be the last one of its directory, or not.
    next: Option<Entry>,
}

/// One thing that was come by.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) path: RemotePath,
    pub(crate) attrs: Attrs,
    /// How far below the root of the walk.
    pub(crate) depth: u32,
    /// Whether nothing comes behind it in its directory.
    pub(crate) is_last: bool,
}

impl Walk {
    /// Through all below a path, so far down; a file is all there is of it.
    pub(crate) fn new(kfs: &Kfs, root: &RemotePath, depth_max: u32) -> Self {
        Self {
            kfs: kfs.clone(),
            root: root.clone(),
            depth_max,
            stage: Stage::Begin,
            levels: Vec::new(),
        }
    }

    /// The next one; `None` after the last one, or after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, Failure>> {
        let step = self.step().await;
        if step.is_err() {
            self.levels.clear();
            self.stage = Stage::Inside;
        }
        step.transpose()
    }

    async fn step(&mut self) -> Result<Option<Step>, Failure> {
        match std::mem::replace(&mut self.stage, Stage::Inside) {
            Stage::Begin => {
                let attrs = self.kfs.stat(self.root.bytes()).await?;
                return Ok(Some(self.give(self.root.clone(), attrs, 0, true)));
            }
            Stage::Enter(directory) => self.enter(directory).await?,
            Stage::Inside => {}
        }
        loop {
            let depth = u32::try_from(self.levels.len()).unwrap_or(u32::MAX);
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            let Some(entry) = level.next.take() else {
                self.levels.pop();
                continue;
            };
            level.next = next_of(&mut level.entries, level.directory == self.root).await?;
            let (path, is_last) = (level.directory.join(&entry.name), level.next.is_none());
            return Ok(Some(self.give(path, entry.attrs, depth, is_last)));
        }
    }

    fn give(&mut self, path: RemotePath, attrs: Attrs, depth: u32, is_last: bool) -> Step {
        if attrs.kind == Kind::Directory && depth < self.depth_max {
            self.stage = Stage::Enter(path.clone());
        }
        Step {
            path,
            attrs,
            depth,
            is_last,
        }
    }

    async fn enter(&mut self, directory: RemotePath) -> Result<(), Failure> {
        let mut entries = self.kfs.list(directory.bytes());
        let next = next_of(&mut entries, directory == self.root).await?;
        self.levels.push(Level {
            directory,
            entries,
            next,
        });
        Ok(())
    }
}

async fn next_of(entries: &mut Directory, is_root: bool) -> Result<Option<Entry>, Failure> {
    match entries.next().await.transpose() {
        // A directory that went away while the tree was walked is not an error of the walk.
        Err(error) if error.status == Status::NotFound && !is_root => Ok(None),
        entry => Ok(entry?),
    }
}
