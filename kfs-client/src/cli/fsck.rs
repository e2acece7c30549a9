//! `fsck`: whether every file below a path can be read, and from as many servers as it asks for.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::{Named, Screen};
use super::units::size;
use super::walk::{Step, Walk};
use kfs_core::limits::Geometry;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, ChunkPlaces, Kind};
use serde::Serialize;
use tokio::task::JoinSet;

/// What is done with the bytes of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Data {
    /// Nothing.
    Left,
    /// Every replica of them is read, which compares it with its sums.
    Read,
}

/// How a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It has as many replicas as it should.
    Whole,
    /// It can be read, from fewer servers than it should be.
    Degraded,
    /// Nobody who is there has it.
    Lost,
    /// No replica that is there matches its sums.
    Corrupt,
    /// One replica does not match its sums, or could not be read; others may.
    Replica,
}

/// A chunk that is not as it should be, as JSON; what could not be read has no chunk.
#[derive(Serialize, Debug)]
struct Shape {
    #[serde(flatten)]
    named: Named,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What was found, of all that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Debug)]
struct Found {
    files: u64,
    directories: u64,
    chunks: u64,
    degraded: u64,
    lost: u64,
    corrupt: u64,
    replicas_bad: u64,
    bytes_read: u64,
}

impl Found {
    const fn exit(&self) -> Exit {
        if self.lost + self.corrupt > 0 {
            Exit::Corrupt
        } else {
            Exit::Done
        }
    }
}

/// Looks at all files below each path.
pub(crate) async fn fsck(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    data: Data,
) -> Result<Exit, Failure> {
    let mut check = Check {
        reach,
        screen,
        data,
        found: Found::default(),
    };
    let mut exit = Exit::Done;
    for path in paths {
        let checked = check.path(path).await;
        exit = note_failure(screen, checked, exit)?;
    }
    let found = check.found;
    screen.json(&found)?;
    screen.flush()?;
    screen.note(said(&found, data));
    Ok(match exit {
        Exit::Done => found.exit(),
        failed => failed,
    })
}

struct Check<'a> {
    reach: &'a Reach,
    screen: &'a Screen,
    data: Data,
    found: Found,
}

impl Check<'_> {
    /// A file, or a directory with all that is below it.
    async fn path(&mut self, path: &RemotePath) -> Result<(), Failure> {
        let mut walk = Walk::new(&self.reach.kfs, path, u32::MAX);
        while let Some(step) = walk.next().await {
            let Step { path, attrs, .. } = step?;
            match attrs.kind {
                Kind::Directory => self.found.directories += 1,
                Kind::File => self.file(path.bytes(), &attrs).await?,
            }
        }
        Ok(())
    }

    async fn file(&mut self, path: &[u8], attrs: &Attrs) -> Result<(), Failure> {
        let lost = self.found.lost;
        // A chunk that no replica has right: where they are may have changed while they were read.
        let mut doubtful = false;
        let mut first = 0;
        loop {
            let located = match self.reach.kfs.locate(attrs.file, first).await {
                Ok(located) => located,
                // It was removed meanwhile.
                Err(error) if error.status == Status::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let Some(last) = located.chunks.last() else {
                break;
            };
            first = last.index + 1;
            for chunk in &located.chunks {
                self.chunk(path, attrs, chunk)?;
                if self.data == Data::Read {
                    doubtful |= !self.replicas(path, located.geometry, chunk).await?;
                }
            }
        }
        self.found.files += 1;
        if doubtful && self.found.lost == lost {
            return self.bytes(path).await;
        }
        Ok(())
    }

    /// Reads every replica of a chunk. Gives whether one of them is right.
    async fn replicas(
        &mut self,
        path: &[u8],
        geometry: Geometry,
        chunk: &ChunkPlaces,
    ) -> Result<bool, Failure> {
        let mut reads = JoinSet::new();
        for place in &chunk.replicas {
            let (kfs, chunk, place) = (self.reach.kfs.clone(), chunk.clone(), *place);
            reads.spawn(async move { (place, kfs.verify_replica(geometry, &chunk, place).await) });
        }
        let mut read = reads.join_all().await;
        read.sort_by_key(|(place, _)| place.addr);
        let mut right = false;
        for (place, outcome) in read {
            let error = match outcome {
                Ok(bytes) => {
                    right = true;
                    self.found.bytes_read += bytes;
                    continue;
                }
                Err(error) => error,
            };
            self.found.replicas_bad += 1;
            self.screen.json(&Shape {
                named: Named::new(path),
                state: State::Replica,
                index: Some(chunk.index),
                chunk: Some(chunk.chunk.0),
                replicas: None,
                wanted: None,
                why: Some(format!("{}: {}", place.addr, error.what)),
            })?;
            let what = format!(
                ": chunk {} ({}): the replica on {}: {}",
                chunk.index, chunk.chunk, place.addr, error.what
            );
            self.screen
                .line([&self.screen.name(path), what.as_bytes()].concat())?;
        }
        Ok(right)
    }

    fn chunk(&mut self, path: &[u8], attrs: &Attrs, chunk: &ChunkPlaces) -> Result<(), Failure> {
        let (replicas, wanted) = (chunk.replicas.len() as u64, u64::from(attrs.replication));
        let state = state(replicas, wanted);
        self.found.chunks += 1;
        match state {
            State::Whole => return Ok(()),
            State::Degraded => self.found.degraded += 1,
            State::Lost | State::Corrupt | State::Replica => self.found.lost += 1,
        }
        self.screen.json(&Shape {
            named: Named::new(path),
            state,
            index: Some(chunk.index),
            chunk: Some(chunk.chunk.0),
            replicas: Some(replicas),
            wanted: Some(wanted),
            why: None,
        })?;
        let what = format!(
            ": chunk {} ({}): {}",
            chunk.index,
            chunk.chunk,
            if state == State::Lost {
                format!("lost, or all of its {} servers are away", chunk.absent)
            } else {
                format!("{replicas} of {wanted} replicas can be read")
            }
        );
        self.screen
            .line([&self.screen.name(path), what.as_bytes()].concat())
    }

    /// Reads all of a file. The library asks every replica of a chunk before it gives up.
    async fn bytes(&mut self, path: &[u8]) -> Result<(), Failure> {
        let outcome = self.read(path).await;
        let Err(error) = outcome else { return Ok(()) };
        match error.status {
            Status::NotFound => return Ok(()),
            Status::Corrupt => self.found.corrupt += 1,
            _ => return Err(error.into()),
        }
        self.screen.json(&Shape {
            named: Named::new(path),
            state: State::Corrupt,
            index: None,
            chunk: None,
            replicas: None,
            wanted: None,
            why: Some(error.what.clone()),
        })?;
        let what = format!(": {}", error.what);
        self.screen
            .line([&self.screen.name(path), what.as_bytes()].concat())
    }

    async fn read(&self, path: &[u8]) -> kfs_client::Result<()> {
        let reader = self.reach.kfs.open(path).await?;
        let mut bytes = reader.stream(0, reader.attrs().size);
        while let Some(chunked) = bytes.next().await {
            chunked?;
        }
        Ok(())
    }
}

/// How a chunk is of which so many replicas can be read.
const fn state(replicas: u64, wanted: u64) -> State {
    match replicas {
        0 => State::Lost,
        _ if replicas < wanted => State::Degraded,
        _ => State::Whole,
    }
}

fn said(found: &Found, data: Data) -> String {
    let Found {
        files,
        directories,
        chunks,
        degraded,
        lost,
        corrupt,
        replicas_bad,
        bytes_read,
    } = found;
    let mut text = format!("{files} files and {directories} directories with {chunks} chunks: ");
    match (lost, corrupt, degraded) {
        (0, 0, 0) => text.push_str("all as they should be"),
        (0, 0, _) => text.push_str(&format!(
            "nothing is lost; {degraded} chunks have fewer replicas that can be read than they should, and copies are made ('kfs status' shows how far they are)"
        )),
        _ => text.push_str(&format!(
            "{lost} chunks lost or away, {corrupt} files that do not match their sums, {degraded} chunks with fewer replicas than they should have"
        )),
    }
    if data == Data::Read {
        text.push_str(&format!("; {} of replicas read", size(*bytes_read)));
    }
    if *replicas_bad > 0 {
        text.push_str(&format!(
            ", {replicas_bad} of them bad: their servers have these made anew from good ones"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_lost_is_a_failure() {
        let states = [
            state(0, 3),
            state(1, 3),
            state(3, 3),
            state(4, 3),
            state(0, 0),
        ];
        let expected = [
            State::Lost,
            State::Degraded,
            State::Whole,
            State::Whole,
            State::Lost,
        ];
        assert_eq!(states, expected);
        let exit = |degraded, lost, corrupt| {
            let found = Found {
                degraded,
                lost,
                corrupt,
                ..Found::default()
            };
            found.exit()
        };
        assert_eq!(exit(5, 0, 0), Exit::Done);
        assert_eq!(exit(0, 1, 0), Exit::Corrupt);
        assert_eq!(exit(0, 0, 1), Exit::Corrupt);
    }
}
