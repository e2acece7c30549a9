//! `cp`: a copy of a file or tree, inside the cluster. The bytes pass through here, verified on the way.
//!
//! As in [`transfer`](super::transfer), a copy has a temporary name until all of it is durable.
use super::failure::{Exit, Failure};
use super::path::RemotePath;
use super::reach::Reach;
use super::remote;
use super::screen::{Named, Screen};
use super::transfer::{
    Moved, Source, Target, Transferred, as_asked, ownership, put_file, replaceable, target_path,
    upload,
};
use super::tree::{found, say};
use super::walk::Walk;
use clap::Args;
use kfs_client::CreateOptions;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Keep, Kind, Parents, RenameMode};
use std::time::Instant;

#[derive(Args, Debug)]
pub(crate) struct Cp {
    /// Directories with everything in them as well
    #[arg(short)]
    recursive: bool,
    /// Replace a file that is there, atomically
    #[arg(long)]
    force: bool,
    /// Only say what would be copied, and what replaced
    #[arg(long)]
    dry_run: bool,
    /// Replicas of each chunk; as many as what is copied has, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(kfs_core::limits::REPLICATION_MAX)))]
    replication: Option<u8>,
    #[arg(value_name = "FROM", value_parser = remote())]
    pub(crate) from: RemotePath,
    /// Its new name; if this is a directory, the copy is made in it under the old name
    #[arg(value_name = "TO", value_parser = remote())]
    pub(crate) to: RemotePath,
}

impl Cp {
    /// What the copy of this file is to be.
    fn options(&self, attrs: &Attrs, keep: Keep) -> CreateOptions {
        CreateOptions {
            owner: ownership(attrs.mode),
            replication: self.replication.unwrap_or(attrs.replication),
            keep,
        }
    }
}

/// Copies.
pub(crate) async fn cp(reach: &Reach, screen: &Screen, asked: &Cp) -> Result<Exit, Failure> {
    let started = Instant::now();
    let (from, target) = (&asked.from, Target::from_force(asked.force));
    let attrs = reach.kfs.stat(from.bytes()).await?;
    let is_tree = attrs.kind == Kind::Directory;
    if is_tree && !asked.recursive {
        let what = format!("{} is a directory", from.shown());
        return Err(Failure::new(Status::IsADirectory, what)
            .help("'kfs cp -r' copies a directory with everything in it"));
    }
    let to = target_path(reach, asked.to.clone(), || match from.name() {
        Some(name) => Ok(name.to_vec()),
        None => Err(Failure::usage("the root directory has no name")),
    })
    .await?;
    if is_tree && to.is_below(from) {
        let what = format!(
            "{} cannot be copied into itself, to {}",
            from.shown(),
            to.shown()
        );
        return Err(Failure::new(Status::BadRequest, what));
    }
    let there = found(&reach.kfs, &to).await?;
    if let Some(there) = &there {
        // Told early; the rename tells it again, for what happens meanwhile.
        replaceable(&to, there.kind, is_tree, target)?;
        if there.file == attrs.file {
            let what = format!("{} and {} are one file", from.shown(), to.shown());
            return Err(Failure::new(Status::BadRequest, what));
        }
    }
    if asked.dry_run {
        let did = if there.is_some() {
            "would replace"
        } else {
            "would copy"
        };
        say(screen, did, from, &to)?;
        return Ok(Exit::Done);
    }
    let moved = if is_tree {
        cp_tree(reach, screen, asked, &attrs, &to).await?
    } else {
        let reader = reach.kfs.open(from.bytes()).await?;
        let attrs = reader.attrs();
        let bar = screen.progress(Some(attrs.size));
        let CreateOptions {
            owner, replication, ..
        } = asked.options(&attrs, Keep::UntilSessionEnds);
        let source = Source::remote(&reader);
        put_file(reach, source, &to, target, owner, replication, &bar).await?
    };
    screen.json(&Transferred {
        did: "copied",
        named: Named::new(to.bytes()),
        files: moved.files,
        bytes: moved.bytes,
        seconds: started.elapsed().as_secs_f64(),
    })?;
    Ok(Exit::Done)
}

/// Copies a directory: all of it under a temporary name, which is then renamed. What is removed meanwhile is not in it.
async fn cp_tree(
    reach: &Reach,
    screen: &Screen,
    asked: &Cp,
    attrs: &Attrs,
    to: &RemotePath,
) -> Result<Moved, Failure> {
    let bar = screen.progress(None);
    let temporary = reach.temporary_beside(to);
    let renamed = |error: kfs_client::Error| as_asked(error.into(), &temporary, to);
    let make = async |path: &RemotePath, attrs: &Attrs| {
        let made = reach
            .kfs
            .mkdir(path.bytes(), Parents::MustExist, ownership(attrs.mode))
            .await;
        made.map_err(renamed)
    };
    make(&temporary, attrs).await?;
    let mut moved = Moved::default();
    let mut walk = Walk::new(&reach.kfs, &asked.from, u32::MAX);
    while let Some(step) = walk.next().await {
        let step = step?;
        let copy = step.path.moved(&asked.from, &temporary);
        match step.attrs.kind {
            Kind::Directory if step.depth == 0 => {}
            Kind::Directory => make(&copy, &step.attrs).await?,
            Kind::File => {
                let reader = match reach.kfs.open(step.path.bytes()).await {
                    Err(error) if error.status == Status::NotFound => continue,
                    reader => reader?,
                };
                // It keeps its name when the tree is renamed, so the end of the session must not take it.
                let options = asked.options(&reader.attrs(), Keep::Always);
                let source = Source::remote(&reader);
                let copied = upload(&reach.kfs, source, copy.bytes(), options, &bar).await;
                moved.bytes += copied.map_err(|failure| as_asked(failure, &temporary, to))?;
                moved.files += 1;
            }
        }
    }
    reach
        .kfs
        .rename(temporary.bytes(), to.bytes(), RenameMode::NoReplace)
        .await
        .map_err(renamed)?;
    reach.settled(&temporary);
    bar.finish_and_clear();
    Ok(moved)
}
