//! What is read from a data directory without its server: `kfs verify`, `kfs log`, `kfs at`,
//! `kfs snapshot`. Nothing is written there.
pub(crate) mod history;
pub(crate) mod log;
pub(crate) mod snapshot;
pub(crate) mod verify;

use super::failure::Failure;
use kfs_core::identity::{self, Identity};
use kfs_core::ids::{ClusterId, LogSeq};
use kfs_core::meta::checkpoint::format::{self as checkpoint, checkpoint_seq};
use kfs_core::meta::checkpoint::{Loader, Summary};
use kfs_core::meta::oplog::{
    DIR as LOG, Damage, Follows, More, SegmentEnd, SegmentReader, segment_first,
};
use kfs_core::meta::record::Logged;
use kfs_core::meta::state::State;
use kfs_core::wire::Status;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// A meta server's data directory.
#[derive(Debug)]
pub(crate) struct MetaDir {
    /// Whose.
    pub(crate) identity: Identity,
    /// Segments of the log by their first records, oldest first.
    pub(crate) segments: Vec<(LogSeq, PathBuf)>,
    /// Checkpoints by their last records, oldest first.
    pub(crate) checkpoints: Vec<(LogSeq, PathBuf)>,
}

/// The identity in a data directory.
fn identity(dir: &Path) -> Result<Identity, Failure> {
    let path = dir.join(identity::NAME);
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    Identity::decode(&bytes).map_err(|error| {
        let what = format!("{}: {error}", path.display());
        Failure::new(Status::Corrupt, what)
    })
}

impl MetaDir {
    /// Looks at what there is.
    pub(crate) fn open(dir: &Path, identity: Identity) -> Result<Self, Failure> {
        Ok(Self {
            identity,
            segments: numbered(&dir.join(LOG), segment_first)?,
            checkpoints: numbered(&dir.join(checkpoint::DIR), checkpoint_seq)?,
        })
    }

    /// Reads the log from its first segment on, and gives every record to `sink`. `None`: there is no segment.
    pub(crate) fn read_log(
        &self,
        sink: &mut impl FnMut(Logged) -> Result<(), String>,
    ) -> Result<Option<SegmentEnd>, Trouble> {
        let cluster = self.identity.cluster;
        let mut before = None;
        for (nth, (first, path)) in self.segments.iter().enumerate() {
            let follows = if nth + 1 == self.segments.len() {
                Follows::Nothing
            } else {
                Follows::Segment
            };
            let name = path.display().to_string();
            let mut reader = if nth == 0 && *first > LogSeq(1) {
                SegmentReader::behind_checkpoint(name, cluster, *first, follows)
            } else {
                SegmentReader::new(name, cluster, before.take(), follows)
            };
            before = in_pieces(path, |bytes, more| reader.feed(bytes, more, sink))?;
        }
        Ok(before)
    }
}

/// Loads a checkpoint.
pub(crate) fn load(cluster: ClusterId, path: &Path) -> Result<(State, Summary), Trouble> {
    let mut loader = Loader::new(path.display().to_string(), cluster);
    let loaded = in_pieces(path, |bytes, more| loader.feed(bytes, more))?;
    Ok(loaded.expect("a file that has ended is whole or damaged"))
}

/// Why a file could not be read to its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is damaged.
    Damage(Damage),
    /// The system says so.
    Failure(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Damage(damage) => Self::new(Status::Corrupt, damage.to_string()),
            Trouble::Failure(failure) => failure,
        }
    }
}

/// Reads a file in pieces until `feed` has enough.
fn in_pieces<T>(
    path: &Path,
    mut feed: impl FnMut(&[u8], More) -> Result<Option<T>, Damage>,
) -> Result<Option<T>, Trouble> {
    let failed = |error| Trouble::Failure(unreadable(path, &error));
    let mut file = File::open(path).map_err(failed)?;
    let mut piece = Vec::with_capacity(READ_BYTES);
    loop {
        piece.clear();
        let most = READ_BYTES as u64;
        let read = (&mut file)
            .take(most)
            .read_to_end(&mut piece)
            .map_err(failed)?;
        let more = if read < READ_BYTES {
            More::Ends
        } else {
            More::Follows
        };
        if let Some(done) = feed(&piece, more).map_err(Trouble::Damage)? {
            return Ok(Some(done));
        }
        if more == More::Ends {
            return Ok(None);
        }
    }
}

/// The files of a directory whose names have a number, in its order. A directory that is not there has none.
fn numbered(
    dir: &Path,
    number: fn(&str) -> Option<LogSeq>,
) -> Result<Vec<(LogSeq, PathBuf)>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(dir, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(dir, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(number) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::local(format!("cannot read {}", path.display()), error)
}
