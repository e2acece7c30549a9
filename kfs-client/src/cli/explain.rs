//! `explain`: what a code means; or, of a file, where each of its chunks is, how it is, and what comes of that.
use super::codes::{self, CODES, Meaning};
use super::failure::{Exit, Failure};
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::{Named, Screen, kind};
use super::table::{Side, Table};
use super::units::size;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use kfs_core::limits::Geometry;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, ChunkPlaces, ClusterStatus, Kind, Located, ServerState};
use serde::Serialize;
use std::ffi::OsString;

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A code, as KFS-E021 or SERVERS_DOWN, or the path of a file; without it, all codes are listed
    #[arg(value_name = "CODE|PATH", value_parser = subject())]
    pub(crate) of: Option<Subject>,
    /// Of a file: read every replica of every chunk, too, and compare it with its sums
    #[arg(long)]
    verify_data: bool,
}

/// What is explained.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Code(&'static Meaning),
    Path(RemotePath),
}

fn subject() -> impl TypedValueParser<Value = Subject> {
    OsStringValueParser::new().try_map(|argument: OsString| {
        if let Some(meaning) = argument.to_str().and_then(codes::find) {
            return Ok(Subject::Code(meaning));
        }
        RemotePath::parse(&argument).map(Subject::Path).map_err(|_| {
            "it is neither a code, which 'kfs explain' lists, nor a path, which begins with '/' or with kfs://HOST:PORT/"
        })
    })
}

/// Explains a code, or lists them all. A cluster is not asked.
pub(crate) fn code(screen: &Screen, meaning: Option<&Meaning>) -> Result<Exit, Failure> {
    let Some(meaning) = meaning else {
        let mut table = Table::new(&[("CODE", Side::Left), ("MEANING", Side::Left)]);
        for meaning in CODES {
            screen.json(meaning)?;
            table.row([meaning.code.into(), meaning.what.into()]);
        }
        for line in table.lines(None) {
            screen.line(line)?;
        }
        return Ok(Exit::Done);
    };
    screen.json(meaning)?;
    screen.line(format!("{}: {}", meaning.code, meaning.what))?;
    screen.line(format!("why:  {}", meaning.why))?;
    screen.line(format!("help: {}", meaning.remedy))?;
    Ok(Exit::Done)
}

/// A chunk, as JSON.
#[derive(Serialize, Debug)]
struct ChunkShape {
    #[serde(flatten)]
    named: Named,
    index: u64,
    chunk: u64,
    version: u64,
    offset: u64,
    bytes: u64,
    writes: u64,
    wanted: u8,
    absent: u32,
    replicas: Vec<ReplicaShape>,
}

#[derive(Serialize, Debug)]
struct ReplicaShape {
    address: String,
    node: String,
    rack: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A file, as JSON.
#[derive(Serialize, Debug)]
struct FileShape {
    #[serde(flatten)]
    named: Named,
    file: u64,
    kind: &'static str,
    size: u64,
    replication: u8,
    chunk_bytes: Option<u64>,
    chunks: u64,
    degraded: u64,
    unreadable: u64,
    replicas_bad: u64,
    text: String,
}

/// What there is of the chunks of a file.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Tally {
    chunks: u64,
    /// With fewer replicas that can be read than wanted, but some.
    degraded: u64,
    /// With none.
    unreadable: u64,
    /// Replicas that were read and did not match, or could not be read.
    replicas_bad: u64,
    /// Bytes of the file that are in a chunk; what is not is zeros.
    bytes: u64,
}

/// Explains a file, chunk by chunk.
pub(crate) async fn path(
    reach: &Reach,
    screen: &Screen,
    asked: &Explain,
    path: &RemotePath,
) -> Result<Exit, Failure> {
    let attrs = reach.kfs.stat(path.bytes()).await?;
    let status = reach.kfs.status().await?;
    let mut explained = Explained {
        reach,
        screen,
        path,
        attrs,
        status,
        tally: Tally::default(),
        does_verify: asked.verify_data,
    };
    let geometry = match attrs.kind {
        Kind::File => explained.chunks().await?,
        Kind::Directory => None,
    };
    explained.sum_up(geometry)
}

struct Explained<'a> {
    reach: &'a Reach,
    screen: &'a Screen,
    path: &'a RemotePath,
    attrs: Attrs,
    status: ClusterStatus,
    tally: Tally,
    does_verify: bool,
}

impl Explained<'_> {
    async fn chunks(&mut self) -> Result<Option<Geometry>, Failure> {
        self.screen.line(
            [
                &self.screen.name(self.path.bytes())[..],
                format!(
                    ": file {}, {} bytes ({}), {} replicas wanted",
                    self.attrs.file,
                    self.attrs.size,
                    size(self.attrs.size),
                    self.attrs.replication
                )
                .as_bytes(),
            ]
            .concat(),
        )?;
        let mut first = 0;
        loop {
            let located: Located = self.reach.kfs.locate(self.attrs.file, first).await?;
            let Some(last) = located.chunks.last() else {
                return Ok(Some(located.geometry));
            };
            first = last.index + 1;
            for chunk in &located.chunks {
                self.chunk(located.geometry, chunk).await?;
            }
        }
    }

    async fn chunk(&mut self, geometry: Geometry, chunk: &ChunkPlaces) -> Result<(), Failure> {
        let wanted = self.attrs.replication;
        let begin = chunk.index.saturating_mul(geometry.chunk_bytes());
        self.tally.chunks += 1;
        self.tally.bytes += chunk.log.len;
        self.screen.line(format!(
            "chunk {} ({} at version {}): {} bytes from {begin} on, {} writes synced",
            chunk.index, chunk.chunk, chunk.version, chunk.log.len, chunk.log.wseq
        ))?;
        let mut replicas = Vec::new();
        let mut good = 0;
        for place in &chunk.replicas {
            let verified = if self.does_verify {
                Some(self.reach.kfs.verify_replica(geometry, chunk, *place).await)
            } else {
                None
            };
            let said = match &verified {
                None => "can be read".to_owned(),
                Some(Ok(bytes)) => format!("matches its sums ({bytes} bytes read)"),
                Some(Err(error)) => format!("cannot be read: {} ({})", error.what, error.code()),
            };
            match &verified {
                Some(Err(_)) => self.tally.replicas_bad += 1,
                _ => good += 1,
            }
            let server = self.status.servers.iter().find(|s| s.node == place.node);
            let rack = server.map_or_else(String::new, |server| server.rack.clone());
            let shown = if rack.is_empty() {
                String::new()
            } else {
                format!(" in rack {rack}")
            };
            self.screen
                .line(format!("  {}{shown}: {said}", place.addr))?;
            replicas.push(ReplicaShape {
                address: place.addr.to_string(),
                node: place.node.to_string(),
                rack,
                matches: verified.as_ref().map(Result::is_ok),
                why: verified.and_then(Result::err).map(|error| error.what),
            });
        }
        if chunk.absent > 0 {
            self.screen.line(format!(
                "  {} more cannot be read now: its server is down or has not been confirmed yet, or it is damaged",
                chunk.absent
            ))?;
        }
        match good {
            0 => self.tally.unreadable += 1,
            good if good < wanted => self.tally.degraded += 1,
            _ => {}
        }
        self.screen.json(&ChunkShape {
            named: Named::new(self.path.bytes()),
            index: chunk.index,
            chunk: chunk.chunk.0,
            version: chunk.version.0,
            offset: begin,
            bytes: chunk.log.len,
            writes: chunk.log.wseq.0,
            wanted,
            absent: chunk.absent,
            replicas,
        })
    }

    fn sum_up(self, geometry: Option<Geometry>) -> Result<Exit, Failure> {
        let Self {
            screen,
            path,
            attrs,
            status,
            tally,
            ..
        } = self;
        let text = in_words(&attrs, &tally, &status);
        screen.json(&FileShape {
            named: Named::new(path.bytes()),
            file: attrs.file.0,
            kind: kind(attrs.kind),
            size: attrs.size,
            replication: attrs.replication,
            chunk_bytes: geometry.as_ref().map(Geometry::chunk_bytes),
            chunks: tally.chunks,
            degraded: tally.degraded,
            unreadable: tally.unreadable,
            replicas_bad: tally.replicas_bad,
            text: text.join(" "),
        })?;
        for line in text {
            screen.line(line)?;
        }
        Ok(if tally.unreadable > 0 {
            Exit::Corrupt
        } else {
            Exit::Done
        })
    }
}

/// What is so, and what comes next: a sentence each.
fn in_words(attrs: &Attrs, tally: &Tally, status: &ClusterStatus) -> Vec<String> {
    if attrs.kind == Kind::Directory {
        return vec![format!(
            "A directory with {} entries, which is in the meta server's log and has no chunks: 'kfs fsck' looks at all files below it, 'kfs du' says what they take.",
            attrs.size
        )];
    }
    let Tally {
        chunks,
        degraded,
        unreadable,
        replicas_bad,
        bytes,
    } = *tally;
    let wanted = attrs.replication;
    let up = status
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Up)
        .count();
    let mut text = Vec::new();
    if chunks == 0 {
        text.push(if attrs.size == 0 {
            "An empty file: it is in the meta server's log, and has no chunks.".to_owned()
        } else {
            "All of it is a hole, which reads as zeros and takes no chunks.".to_owned()
        });
        return text;
    }
    if bytes < attrs.size {
        text.push(format!(
            "{} of its bytes are holes, which read as zeros and take no room.",
            attrs.size - bytes
        ));
    }
    if unreadable > 0 {
        text.push(format!(
            "{unreadable} of its {chunks} chunks cannot be read from anybody: reads of it fail ({}) until a server that has them comes back. 'kfs servers' shows those that are down; if their disks are gone for good, so is that part of the file.",
            if replicas_bad > 0 { Status::Corrupt.code() } else { Status::NoReplica.code() }
        ));
    }
    if degraded > 0 {
        text.push(format!(
            "{degraded} of its {chunks} chunks can be read from fewer than {wanted} servers; nothing is lost."
        ));
        text.push(if up < usize::from(wanted) {
            format!("Only {up} servers are up: there will be {wanted} replicas when as many servers are.")
        } else {
            "Copies are made by themselves: once a server was silent for the meta server's --re-replicate-after (60 s unless it says otherwise; a tenth of that if one replica is left), at once if a replica is damaged, and if the file is being written, when it is closed. 'kfs status' shows how far they are.".to_owned()
        });
    }
    if replicas_bad > 0 {
        text.push(format!(
            "{replicas_bad} replicas could not be read or do not match their sums: their servers report that, nobody is given such bytes, and they are made anew from a good one."
        ));
    }
    if text.is_empty() || (bytes < attrs.size && unreadable + degraded + replicas_bad == 0) {
        text.push(format!(
            "All of its {chunks} chunks can be read from as many servers as they should be; nothing is to be done."
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::FileId;

    #[test]
    fn the_words_say_what_is_so_and_no_more() {
        let attrs = |kind, size| Attrs {
            file: FileId(9),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            replication: 3,
            links: 1,
            mtime: kfs_core::time::UnixNanos(0),
            ctime: kfs_core::time::UnixNanos(0),
            crtime: kfs_core::time::UnixNanos(0),
        };
        let status = super::super::status::tests::cluster();
        let words =
            |size, tally: Tally| in_words(&attrs(Kind::File, size), &tally, &status).join(" ");
        let whole = Tally {
            chunks: 2,
            bytes: 10,
            ..Tally::default()
        };
        let as_should = "All of its 2 chunks can be read from as many servers as they should be";
        assert!(words(10, whole).starts_with(as_should));
        let holes = words(15, whole);
        assert!(holes.starts_with("5 of its bytes are holes") && holes.contains(as_should));
        assert!(words(0, Tally::default()).starts_with("An empty file"));
        assert!(words(7, Tally::default()).starts_with("All of it is a hole"));
        let degraded = words(
            10,
            Tally {
                degraded: 1,
                ..whole
            },
        );
        assert!(
            degraded.contains("nothing is lost") && degraded.contains("--re-replicate-after"),
            "{degraded}"
        );
        let lost = words(
            10,
            Tally {
                unreadable: 1,
                ..whole
            },
        );
        assert!(
            lost.contains("(KFS-E025)") && !lost.contains("nothing"),
            "{lost}"
        );
        let bad = Tally {
            unreadable: 1,
            replicas_bad: 3,
            ..whole
        };
        assert!(words(10, bad).contains("(KFS-E024)"));
        let directory = in_words(&attrs(Kind::Directory, 4), &whole, &status).join(" ");
        assert!(directory.contains("4 entries"), "{directory}");
    }
}
