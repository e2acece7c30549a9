//! One actor of a client of the world: does its jobs through the client library.
//!
//! It expects nothing of names, which the oracles judge from the replies; it checks every byte it reads.
use super::job::{Author, End, Fill, Job, Look, OWNER, ReadHow, SHARED_DIRS, attributes};
use super::{
    COUNT_MS, copies_missing, drain_of, is_unexpected, judge_open, must_not_fail, not_drained,
};
use crate::keyed::Keyed;
use crate::oracle::contents::Seen;
use crate::oracle::{Tick, Violation};
use crate::schedule::{Class, Schedule};
use crate::world::shared::Shared;
use kfs_client::{CreateOptions, Error, Kfs, Reader, Writer};
use kfs_core::wire::client_meta::{Drain, DrainStatus, Entry, Keep, Parents};
use std::sync::Arc;
use std::time::Duration;

/// An actor.
pub struct Actor {
    kfs: Kfs,
    record: Shared,
    setup: Arc<Schedule>,
    /// Different for each actor of each client.
    number: u32,
}

/// What came of one step of an actor.
type Step = Result<(), Error>;

/// A file that is open to be read, and when it was to be opened.
type Opened<'a> = (&'a Reader, Tick);

impl Actor {
    /// An actor that has done nothing yet.
    #[must_use]
    pub fn new(kfs: Kfs, record: Shared, setup: Arc<Schedule>, number: u32) -> Self {
        Self {
            kfs,
            record,
            setup,
            number,
        }
    }

    /// Makes the shared directories, or finds them.
    pub async fn prepare(&self) {
        for dir in 0..SHARED_DIRS {
            let path = format!("/d{dir}");
            // What does not work is seen by the oracle, and tried again by whoever needs it.
            let _ = self.kfs.mkdir(path.as_bytes(), Parents::Make, OWNER).await;
        }
    }

    /// Does a job, of this number. A failure is no violation: the oracles judge.
    pub async fn work(&mut self, number: usize, job: &Job) {
        let author = Author {
            salt: self.setup.seed,
            actor: self.number,
            job: u32::try_from(number).expect("an actor has few jobs"),
        };
        if let Err(failure) = self.job(author, job).await {
            self.failed(&failure);
        }
    }

    fn failed(&self, failure: &Error) {
        let mut record = self.record.lock();
        record.remark(|| format!("actor {}: {failure}", self.number));
        if self.setup.class == Class::Clean && is_unexpected(failure.status) {
            let what = format!("nothing fails, and still: {failure}");
            record.check::<()>(Err(Violation::new("clean", "L", what)));
        }
    }

    /// What came of a file that is open.
    fn judged<T>(&self, came: Result<T, Error>) -> Result<T, Error> {
        if let Err(failure) = &came {
            let client = self.number / self.setup.actors_max();
            let client = usize::try_from(client).expect("a run has few clients");
            let said = (failure.status, &*failure.to_string());
            judge_open(&mut self.record.lock(), &self.setup, client, said);
        }
        came
    }

    async fn job(&self, author: Author, job: &Job) -> Step {
        let kfs = &self.kfs;
        match job {
            Job::Put {
                temp,
                name,
                mode,
                fill,
            } => {
                let mut writer = self.create(temp, Keep::UntilSessionEnds).await?;
                let closed = match self.judged(fill_in(&mut writer, author, 0, fill).await) {
                    Ok(()) => writer.close().await,
                    Err(failure) => {
                        let _ = writer.abandon().await;
                        Err(failure)
                    }
                };
                let moved = match closed {
                    Ok(()) => kfs.rename(temp.as_bytes(), name.as_bytes(), *mode).await,
                    failed => failed,
                };
                if moved.is_err() {
                    let _ = kfs.remove(temp.as_bytes()).await;
                }
                moved
            }
            Job::Write {
                name,
                fill,
                end,
                failed,
            } => {
                let mut writer = self.create(name, Keep::Always).await?;
                let written = self.judged(fill_in(&mut writer, author, 0, fill).await);
                let must_not = *failed == End::MustNot;
                let end = if written.is_ok() { end } else { failed };
                let ended = match end {
                    End::Close => writer.close().await,
                    End::Abandon | End::MustNot => writer.abandon().await,
                };
                let written = written.and(ended);
                if let (Err(failure), true) = (&written, must_not) {
                    let failed = must_not_fail(name, &failure.to_string());
                    self.record.lock().check::<()>(Err(failed));
                }
                written
            }
            Job::Append { name, fill, end }
            | Job::Truncate {
                name, fill, end, ..
            } => {
                let mut writer = match job {
                    Job::Truncate { len, .. } => kfs.truncate(name.as_bytes(), *len).await?,
                    _ => kfs.append(name.as_bytes()).await?,
                };
                let begin = writer.written();
                let written = self.judged(fill_in(&mut writer, author, begin, fill).await);
                let ended = match end {
                    End::Close => writer.close().await,
                    End::Abandon | End::MustNot => writer.abandon().await,
                };
                written.and(ended)
            }
            Job::Overwrite { name, synced, from } => {
                let mut writer = self.create(name, Keep::Always).await?;
                writer.write_at(0, author.bytes(0, 100)).await?;
                if *synced {
                    writer.sync().await?;
                }
                let again = author.over_stamp(1).fill(*from, 50);
                let wrote = writer.write_at(*from, again).await;
                let closed = writer.close().await;
                wrote.and(closed)
            }
            Job::Read { name, how } => {
                let opened = self.record.lock().tick();
                let reader = kfs.open(name.as_bytes()).await?;
                let read = self.read((&reader, opened), how).await;
                self.judged(read)
            }
            Job::Stat(name) => kfs.stat(name.as_bytes()).await.map(drop),
            Job::List(name) => list(kfs, name.as_bytes()).await.map(drop),
            Job::Usage { name, depth } => {
                let mut scan = kfs.usage(name.as_bytes(), *depth);
                while let Some(of) = scan.next().await {
                    of?;
                }
                Ok(())
            }
            Job::Rename { from, to, mode } => {
                kfs.rename(from.as_bytes(), to.as_bytes(), *mode).await
            }
            Job::Remove(name) => kfs.remove(name.as_bytes()).await,
            Job::Rmdir(name) => kfs.rmdir(name.as_bytes()).await,
            Job::RemoveTree(name) => kfs.remove_tree(name.as_bytes()).await,
            Job::AcceptRollback => kfs.accept_rollback().await,
            Job::Copies { ms } => {
                let mut lack = None;
                for _ in 0..=ms / COUNT_MS {
                    let status = kfs.status().await.ok();
                    lack = status.map(|at| at.chunks_under_replicated + at.replicas_damaged);
                    if lack == Some(0) {
                        return Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(COUNT_MS)).await;
                }
                self.record.lock().check::<()>(Err(copies_missing(lack)));
                Ok(())
            }
            Job::SetReplication { name, replication } => {
                kfs.set_replication(name.as_bytes(), *replication).await
            }
            Job::SetMode { name, mode } => {
                kfs.set_attributes(name.as_bytes(), attributes(*mode)).await
            }
            Job::Drain { server, ms } => {
                let mut told = None;
                for _ in 0..=ms / COUNT_MS {
                    let status = kfs.status().await.ok();
                    told = status.and_then(|status| drain_of(&status, *server));
                    match told {
                        Some((_, Some(DrainStatus::Drained))) => return Ok(()),
                        // Refused, or not known whether it was done: it is seen in the status.
                        Some((node, None)) => drop(kfs.drain(node, Drain::Begin).await),
                        _ => {}
                    }
                    tokio::time::sleep(Duration::from_millis(COUNT_MS)).await;
                }
                let drain = told.and_then(|(_, drain)| drain);
                let late = not_drained(*server, drain);
                self.record.lock().check::<()>(Err(late));
                Ok(())
            }
            Job::Touch(name) => self.create(name, Keep::Always).await?.close().await,
            Job::Idle { ms } => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                Ok(())
            }
            Job::Await { acks, ms } => {
                let heard = || self.record.lock().counts.acked;
                for _ in 0..*ms {
                    if heard() >= *acks {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            }
            Job::Mkdir { name, parents } => kfs.mkdir(name.as_bytes(), *parents, OWNER).await,
        }
    }

    async fn create(&self, path: &str, keep: Keep) -> Result<Writer, Error> {
        let options = CreateOptions {
            owner: OWNER,
            replication: 0,
            keep,
        };
        self.kfs.create(path.as_bytes(), options).await
    }

    async fn read(&self, reader: Opened<'_>, how: &ReadHow) -> Step {
        let size = reader.0.attrs().size;
        match how {
            ReadHow::Stream => read_stream(&self.record, reader).await?,
            ReadHow::Steps(step) => read_steps(&self.record, reader, *step).await?,
            ReadHow::Ranges(ranges) => {
                for (permille, len) in ranges {
                    read_checked(&self.record, reader, size * permille / 1_000, *len).await?;
                }
            }
            ReadHow::Looks(looks) => {
                for look in looks {
                    match *look {
                        Look::At { at, len } => {
                            read_checked(&self.record, reader, at, len).await?;
                        }
                        Look::Idle { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Steps count from `begin`.
async fn fill_in(writer: &mut Writer, author: Author, begin: u64, fill: &[Fill]) -> Step {
    for (nth, step) in fill.iter().enumerate() {
        match *step {
            Fill::Bytes { .. } | Fill::Over { .. } => {
                if let Some((at, bytes)) = Fill::write(begin, fill, nth, author) {
                    writer.write_at(at, bytes).await?;
                }
            }
            Fill::Sync => writer.sync().await?,
            Fill::SetLen { len } => {
                writer.set_len(len).await?;
            }
            Fill::Idle { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
    Ok(())
}

/// All entries of a directory.
///
/// # Errors
/// If a page cannot be had.
pub async fn list(kfs: &Kfs, path: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut directory = kfs.list(path);
    let mut entries = Vec::new();
    while let Some(entry) = directory.next().await {
        entries.push(entry?);
    }
    Ok(entries)
}

/// Reads a file from its first byte to its last, as a stream or in reads of a drawn length.
///
/// # Errors
/// If a read fails. Wrong bytes are a violation in the record.
pub async fn read_all(record: &Shared, reader: Opened<'_>, draws: &mut Keyed) -> Step {
    if draws.percent(50) {
        return read_stream(record, reader).await;
    }
    let step = 1 + draws.below(reader.0.attrs().size.max(1));
    read_steps(record, reader, step).await
}

async fn read_stream(record: &Shared, reader: Opened<'_>) -> Step {
    let mut at = 0;
    let asked = record.lock().tick();
    let mut stream = reader.0.stream(0, reader.0.attrs().size);
    while let Some(next) = stream.next().await {
        let bytes = next?.parts.concat();
        check(record, reader, asked, (at, bytes.len()), &bytes);
        at += bytes.len() as u64;
    }
    // The stream may end only where the file does.
    check(record, reader, asked, (at, 1), &[]);
    Ok(())
}

async fn read_steps(record: &Shared, reader: Opened<'_>, step: u64) -> Step {
    let mut at = 0;
    while at < reader.0.attrs().size {
        match read_checked(record, reader, at, step).await? {
            // It was cut.
            0 => break,
            read => at += read,
        }
    }
    Ok(())
}

async fn read_checked(
    record: &Shared,
    reader: Opened<'_>,
    offset: u64,
    len: u64,
) -> Result<u64, Error> {
    let len = usize::try_from(len).expect("reads fit in memory");
    let asked = record.lock().tick();
    let bytes = reader.0.read_at(offset, len).await?.parts.concat();
    check(record, reader, asked, (offset, len), &bytes);
    Ok(bytes.len() as u64)
}

fn check(
    record: &Shared,
    (reader, opened): Opened<'_>,
    asked: Tick,
    range: (u64, usize),
    bytes: &[u8],
) {
    let mut record = record.lock();
    let came = record.tick();
    let attrs = reader.attrs();
    let seen = Seen {
        file: attrs.file,
        size: attrs.size,
        offset: range.0,
        len: range.1,
        bytes,
        opened,
        asked,
        came,
    };
    let result = record.contents.check(&seen);
    record.check(result);
}
