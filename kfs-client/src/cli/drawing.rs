//! `tree`: directories and what is in them, drawn.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::remote;
use super::screen::{Described, Screen};
use super::walk::{Step, Walk};
use clap::Args;
use kfs_core::wire::client_meta::Kind;
use serde::Serialize;

#[derive(Args, Debug)]
pub(crate) struct Tree {
    /// Only so far below each path
    #[arg(long, value_name = "N")]
    max_depth: Option<u32>,
    #[arg(value_name = "PATH", value_parser = remote(), default_value = "/")]
    pub(crate) paths: Vec<RemotePath>,
}

/// What was come by, as JSON.
#[derive(Serialize, Debug)]
struct Shape {
    #[serde(flatten)]
    described: Described,
    depth: u32,
}

/// Draws the tree of each path.
pub(crate) async fn tree(reach: &Reach, screen: &Screen, asked: &Tree) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &asked.paths {
        let drawn = tree_one(reach, screen, path, asked.max_depth.unwrap_or(u32::MAX)).await;
        exit = note_failure(screen, drawn, exit)?;
    }
    Ok(exit)
}

async fn tree_one(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    depth_max: u32,
) -> Result<(), Failure> {
    let mut walk = Walk::new(&reach.kfs, path, depth_max);
    let mut lanes = Lanes::default();
    let (mut directories, mut files) = (0_u64, 0_u64);
    while let Some(step) = walk.next().await {
        let step = step?;
        match step.attrs.kind {
            Kind::Directory => directories += 1,
            Kind::File => files += 1,
        }
        let name = match step.path.name() {
            Some(name) if step.depth > 0 => name,
            _ => step.path.bytes(),
        };
        screen.line([lanes.before(&step).as_bytes(), &screen.name(name)].concat())?;
        screen.json(&Shape {
            described: Described::new(step.path.bytes(), &step.attrs),
            depth: step.depth,
        })?;
    }
    screen.flush()?;
    screen.note(format!(
        "{}: {directories} directories, {files} files",
        path.shown()
    ));
    Ok(())
}

/// For each level above, whether more comes below it, which a line leads down to.
#[derive(Default, Debug)]
struct Lanes(Vec<bool>);

impl Lanes {
    /// What stands before a name.
    fn before(&mut self, step: &Step) -> String {
        let Some(above) = usize::try_from(step.depth)
            .ok()
            .and_then(|d| d.checked_sub(1))
        else {
            self.0.clear();
            return String::new();
        };
        self.0.truncate(above);
        let mut text: String = self
            .0
            .iter()
            .map(|goes_on| if *goes_on { "│   " } else { "    " })
            .collect();
        text.push_str(if step.is_last {
            "└── "
        } else {
            "├── "
        });
        self.0.push(!step.is_last);
        text
    }
}
