//! `kfs snapshot`: a copy of a meta server's data directory, which may be serving meanwhile.
//!
//! [`kfs_core::meta::snapshot`] says what is copied, in which order and how much of it; here that is done with files.
//! What the server never changes again is linked: a link stays when the server removes or replaces its own name.
use super::super::failure::{Exit, Failure};
use super::super::screen::Screen;
use super::unreadable;
use kfs_core::identity;
use kfs_core::machine::FileName;
use kfs_core::meta::checkpoint::format::DIR as CHECKPOINT;
use kfs_core::meta::oplog::DIR as LOG;
use kfs_core::meta::snapshot::{Answer, Ask, Snapshot, Taken, Wrong};
use kfs_core::wire::Status;
use serde::Serialize;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Serialize, Debug)]
struct Shape {
    cluster: String,
    record: u64,
    files: usize,
}

/// Makes the copy, and says up to which record it goes.
pub(crate) fn snapshot(dir: &Path, to: &Path, screen: &Screen) -> Result<Exit, Failure> {
    let mut copy = Copy::into(dir, to)?;
    let Taken { cluster, record } = copy.take()?;
    let files = copy.made.len();
    screen.line(format!(
        "snapshot of cluster {cluster} up to record {record}, {files} files in {}",
        to.display()
    ))?;
    screen.json(&Shape {
        cluster: cluster.to_string(),
        record: record.0,
        files,
    })?;
    Ok(Exit::Done)
}

/// A directory that is being filled.
struct Copy {
    dir: PathBuf,
    to: PathBuf,
    /// Files in it.
    made: Vec<PathBuf>,
    /// What was read last.
    read: Vec<u8>,
}

impl Copy {
    fn into(dir: &Path, to: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::local(format!("cannot make {}", to.display()), &error);
        match fs::read_dir(to) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let what = format!("{} is not empty", to.display());
                    return Err(Failure::new(Status::Exists, what));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(to).map_err(failed)?;
            }
            Err(error) => return Err(unreadable(to, &error)),
        }
        for dir in [LOG, CHECKPOINT] {
            fs::create_dir(to.join(dir)).map_err(failed)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            to: to.to_owned(),
            made: Vec::new(),
            read: Vec::new(),
        })
    }

    fn take(&mut self) -> Result<Taken, Failure> {
        let mut snapshot = Snapshot::new();
        let mut ask = snapshot.go_on(Answer::Done);
        loop {
            let answer = match ask.map_err(|wrong| self.failure(wrong))? {
                Ask::Nothing(taken) => return Ok(taken),
                Ask::Link(file) => self.link(&file)?,
                Ask::ReadCopy(file) => {
                    let path = self.to.join(file.as_str());
                    self.read = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
                    Answer::Bytes(&self.read)
                }
                Ask::List(dir) => Answer::Names(names(&self.dir.join(dir))?),
                Ask::Read(file) => {
                    let path = self.dir.join(file.as_str());
                    match fs::read(&path) {
                        Ok(bytes) => {
                            self.read = bytes;
                            Answer::Bytes(&self.read)
                        }
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::Gone,
                        Err(error) => return Err(unreadable(&path, &error)),
                    }
                }
                Ask::Keep(file, bytes) => {
                    let to = self.to.join(file.as_str());
                    fs::write(&to, &self.read[..bytes]).map_err(|error| {
                        Failure::local(format!("cannot write {}", to.display()), &error)
                    })?;
                    self.made.push(to);
                    Answer::Done
                }
                Ask::Clear => {
                    self.clear()?;
                    Answer::Done
                }
            };
            ask = snapshot.go_on(answer);
        }
    }

    /// Gives a file that does not change any more a second name.
    fn link(&mut self, name: &FileName) -> Result<Answer<'static>, Failure> {
        let (from, to) = (self.dir.join(name.as_str()), self.to.join(name.as_str()));
        let linked = fs::hard_link(&from, &to).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Err(error),
            // Another file system, one without links, or somebody else's file.
            _ => copied(&from, &to),
        });
        match linked {
            Ok(()) => {
                self.made.push(to);
                Ok(Answer::Done)
            }
            // The identity is replaced, never removed: this is no data directory.
            Err(error) if name.as_str() == identity::NAME => Err(unreadable(&from, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Gone),
            Err(error) => Err(Failure::local(
                format!("cannot copy {} to {}", from.display(), to.display()),
                &error,
            )),
        }
    }

    fn clear(&mut self) -> Result<(), Failure> {
        for path in self.made.drain(..) {
            fs::remove_file(&path).map_err(|error| {
                Failure::local(format!("cannot remove {}", path.display()), &error)
            })?;
        }
        Ok(())
    }

    fn failure(&self, wrong: Wrong) -> Failure {
        let dir = self.dir.display();
        match wrong {
            Wrong::Identity(why) => {
                let path = self.to.join(identity::NAME);
                Failure::new(Status::Corrupt, format!("{}: {why}", path.display()))
            }
            Wrong::Owner => Failure::usage(format!("{dir} is a chunkserver's: it has no log")),
            Wrong::NoLog => Failure::new(Status::Corrupt, format!("{dir} has no log")),
            Wrong::Segment(file, mismatch) => {
                let path = self.dir.join(file.as_str());
                Failure::new(Status::Corrupt, format!("{}: {mismatch}", path.display()))
            }
            Wrong::Changes(times) => {
                let what =
                    format!("{dir} changed {times} times while it was copied: there is no copy");
                Failure::new(Status::Busy, what).help("try again, or copy to the same file system")
            }
        }
    }
}

/// The names in a directory; none in one that is missing.
fn names(dir: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(dir, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(dir, &error))?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}

/// The whole file, with its time: whoever compares by size and time finds it unchanged.
fn copied(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let times = FileTimes::new().set_modified(fs::metadata(from)?.modified()?);
    File::open(to)?.set_times(times)
}
