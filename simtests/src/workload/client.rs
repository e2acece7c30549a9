//! One actor of a client: draws what to do next and does it through the client library.
//!
//! It expects nothing of names, which the oracles judge from the replies; it checks every byte it reads.
use super::bytes::Stamp;
use crate::keyed::Keyed;
use crate::oracle::contents::Seen;
use crate::oracle::{Tick, Violation};
use crate::world::record::Shared;
use crate::world::scenario::{Mix, Setup};
use kfs_client::{CreateOptions, Error, Kfs, Reader, Writer};
use kfs_core::limits::Geometry;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Entry, Keep, Ownership, Parents, RenameMode};
use std::sync::Arc;

/// Who and mode of everything that is made.
pub const OWNER: Ownership = Ownership {
    uid: 1,
    gid: 1,
    mode: 0o644,
};
/// Directories that all clients share.
const SHARED_DIRS: u64 = 2;
/// Names in each of them that clients contend for.
const SHARED_NAMES: u64 = 5;

/// An actor.
pub struct Actor {
    kfs: Kfs,
    record: Shared,
    setup: Arc<Setup>,
    /// Different for each actor of each client process.
    number: u32,
    draws: Keyed,
    operations: u32,
}

/// What came of one step of an actor.
type Step = Result<(), Error>;

impl Actor {
    /// An actor that has done nothing yet.
    #[must_use]
    pub fn new(kfs: Kfs, record: Shared, setup: Arc<Setup>, number: u32) -> Self {
        let draws = Keyed::new(setup.seed, &format!("actor {number}"));
        Self {
            kfs,
            record,
            setup,
            number,
            draws,
            operations: 0,
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

    /// Does one thing. A failure is no violation: the oracles judge.
    pub async fn step(&mut self) {
        let Mix {
            put,
            write,
            read,
            names,
            overwrite,
        } = self.setup.mix;
        let mut left = self.draws.below(put + write + read + names + overwrite);
        let mut is = |weight: u64| {
            let hit = left < weight;
            left = left.wrapping_sub(weight);
            hit
        };
        let result = if is(put) {
            self.put().await
        } else if is(write) {
            self.write().await
        } else if is(read) {
            self.read().await
        } else if is(names) {
            self.names().await
        } else {
            self.overwrite().await
        };
        if let Err(failure) = result {
            self.failed(&failure);
        }
    }

    fn failed(&self, failure: &Error) {
        let mut record = self.record.lock();
        record.remark(|| format!("actor {}: {failure}", self.number));
        let unexpected = match failure.status {
            Status::NotFound
            | Status::Exists
            | Status::NotADirectory
            | Status::IsADirectory
            | Status::NotEmpty
            | Status::BadName
            | Status::BadRequest
            | Status::Overwrite => false,
            // Read or written while it was removed.
            Status::NoReplica | Status::NotServed | Status::ChainBroken => {
                self.setup.clients * self.setup.actors as usize == 1
            }
            _ => true,
        };
        if self.setup.clean && unexpected {
            let what = format!("nothing fails, and still: {failure}");
            record.check::<()>(Err(Violation::new("clean", "L", what)));
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.operations += 1;
        Stamp {
            salt: self.setup.seed,
            client: self.number,
            operation: self.operations,
        }
    }
    fn shared_dir(&mut self) -> String {
        format!("/d{}", self.draws.below(SHARED_DIRS))
    }
    fn shared_name(&mut self) -> String {
        let dir = self.shared_dir();
        format!("{dir}/f{}", self.draws.below(SHARED_NAMES))
    }
    fn own_name(&mut self, of: &str) -> String {
        let dir = self.shared_dir();
        self.operations += 1;
        format!("{dir}/{of}-{}-{}", self.number, self.operations)
    }
    async fn create(&mut self, path: &str, keep: Keep) -> Result<Writer, Error> {
        let options = CreateOptions {
            owner: OWNER,
            replication: 0,
            keep,
        };
        self.kfs.create(path.as_bytes(), options).await
    }

    /// As `kfs put` does: nothing is seen under the final name before all of it is durable.
    async fn put(&mut self) -> Step {
        let temp = self.own_name(".tmp");
        let name = self.shared_name();
        let mode = if self.draws.percent(80) {
            RenameMode::Replace
        } else {
            RenameMode::NoReplace
        };
        let mut writer = self.create(&temp, Keep::UntilSessionEnds).await?;
        let written = self.fill(&mut writer).await;
        let closed = match written {
            Ok(()) => writer.close().await,
            Err(failure) => {
                let _ = writer.abandon().await;
                Err(failure)
            }
        };
        let moved = match closed {
            Ok(()) => {
                self.kfs
                    .rename(temp.as_bytes(), name.as_bytes(), mode)
                    .await
            }
            failed => failed,
        };
        if moved.is_err() {
            let _ = self.kfs.remove(temp.as_bytes()).await;
        }
        moved
    }

    async fn write(&mut self) -> Step {
        let name = if self.draws.percent(50) {
            self.shared_name()
        } else {
            self.own_name("w")
        };
        let mut writer = self.create(&name, Keep::Always).await?;
        match self.fill(&mut writer).await {
            Err(failure) if self.draws.percent(50) => {
                let _ = writer.abandon().await;
                Err(failure)
            }
            // After a failure a close must fail too, or everything must be there.
            _ if self.draws.percent(90) => writer.close().await,
            _ => writer.abandon().await,
        }
    }

    /// Writes a file of some size in some way.
    async fn fill(&mut self, writer: &mut Writer) -> Step {
        let Geometry {
            block_bytes,
            chunk_blocks,
            ..
        } = self.setup.geometry;
        let block = u64::from(block_bytes);
        let blocks = match self.draws.below(10) {
            0 => return Ok(()),
            1..4 => 1,
            4..8 => u64::from(chunk_blocks) / 2,
            8 => u64::from(chunk_blocks) + 2,
            _ => 2 * u64::from(chunk_blocks) + 3,
        };
        let size = 1 + self.draws.below(blocks * block);
        if self.draws.percent(25) {
            return self.fill_blocks(writer, size, block).await;
        }
        let stamp = self.stamp();
        let most = self
            .draws
            .pick(&[block / 3, block, 3 * block, 8 * block])
            .max(1);
        let mut at = 0;
        while at < size {
            let mut len = (1 + self.draws.below(most)).min(size - at);
            let sync = self.draws.percent(15);
            if sync {
                // Bytes beside synced ones of the same block cannot be written any more.
                len = (at + len).next_multiple_of(block).min(size) - at;
            }
            let data = stamp.fill(at, usize::try_from(len).expect("files fit in memory"));
            writer.write(data).await?;
            at += len;
            if sync {
                writer.sync().await?;
            }
        }
        Ok(())
    }

    /// Whole blocks in any order, some of them never. Not synced before the end if there are several chunks: a
    /// size that reaches into the next chunk closes the one before.
    async fn fill_blocks(&mut self, writer: &mut Writer, size: u64, block: u64) -> Step {
        let chunk = self.setup.geometry.chunk_bytes();
        let stamp = self.stamp();
        let mut blocks: Vec<u64> = (0..size.div_ceil(block)).collect();
        self.draws.shuffle(&mut blocks);
        let holes = self.draws.below(blocks.len() as u64 + 1) / 2;
        for nth in blocks
            .into_iter()
            .skip(usize::try_from(holes).expect("few blocks"))
        {
            let (from, to) = (nth * block, ((nth + 1) * block).min(size));
            let data = stamp.fill(from, usize::try_from(to - from).expect("below a block"));
            writer.write_at(from, data).await?;
            if self.draws.percent(10) && to % block == 0 && size <= chunk {
                writer.sync().await?;
            }
        }
        Ok(())
    }

    /// Writes bytes again that were written: an error is due by the next sync at the latest.
    async fn overwrite(&mut self) -> Step {
        let name = self.own_name("o");
        let mut writer = self.create(&name, Keep::Always).await?;
        let first = self.stamp();
        writer.write_at(0, first.fill(0, 100)).await?;
        if self.draws.percent(50) {
            writer.sync().await?;
        }
        let again = self.stamp();
        let from = self.draws.below(100);
        let wrote = writer.write_at(from, again.fill(from, 50)).await;
        match wrote {
            Ok(()) => writer.close().await,
            failed => {
                let _ = writer.close().await;
                failed
            }
        }
    }

    async fn read(&mut self) -> Step {
        let name = self.shared_name();
        let reader = self.kfs.open(name.as_bytes()).await?;
        if self.draws.percent(50) {
            return read_all(&self.record, &reader, &mut self.draws).await;
        }
        let size = reader.attrs().size;
        for _ in 0..4 {
            let offset = self.draws.below(size + 20);
            let most = u64::from(self.setup.geometry.block_bytes) * 5;
            let len = usize::try_from(1 + self.draws.below(most)).expect("reads fit in memory");
            read_checked(&self.record, &reader, offset, len).await?;
        }
        Ok(())
    }

    async fn names(&mut self) -> Step {
        let (one, other) = (self.shared_name(), self.shared_name());
        let (one, other) = (one.as_bytes(), other.as_bytes());
        let dir = format!("/p{}-{}", self.number % 4, self.draws.below(3));
        let inner = format!("{dir}/q{}", self.draws.below(2));
        let (dir, inner) = (dir.as_bytes(), inner.as_bytes());
        match self.draws.below(16) {
            0 | 1 => self.kfs.stat(one).await.map(drop),
            2 => {
                let dir = self.shared_dir();
                list(&self.kfs, dir.as_bytes()).await.map(drop)
            }
            3 => list(&self.kfs, b"/").await.map(drop),
            4 => self.kfs.rename(one, other, RenameMode::Replace).await,
            5 => self.kfs.rename(one, other, RenameMode::NoReplace).await,
            6 => self.kfs.remove(one).await,
            7 => {
                let file = if self.draws.percent(50) { one } else { inner };
                let options = CreateOptions {
                    owner: OWNER,
                    replication: 0,
                    keep: Keep::Always,
                };
                self.kfs.create(file, options).await?.close().await
            }
            8 | 9 => self.kfs.mkdir(dir, Parents::MustExist, OWNER).await,
            10 => self.kfs.mkdir(inner, Parents::Make, OWNER).await,
            11 => self.kfs.rmdir(dir).await,
            12 => {
                let _ = self.kfs.remove(inner).await;
                self.kfs.rmdir(inner).await
            }
            13 => {
                let to = format!("/p{}-{}", self.number % 4, self.draws.below(3));
                self.kfs
                    .rename(dir, to.as_bytes(), RenameMode::Replace)
                    .await
            }
            14 => list(&self.kfs, dir).await.map(drop),
            _ => self.kfs.stat(inner).await.map(drop),
        }
    }
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

/// Reads a file from its first byte to its last, as a stream or in reads of drawn lengths.
///
/// # Errors
/// If a read fails. Wrong bytes are a violation in the record.
pub async fn read_all(record: &Shared, reader: &Reader, draws: &mut Keyed) -> Step {
    let size = reader.attrs().size;
    let mut at = 0;
    if draws.percent(50) {
        let asked = record.lock().tick();
        let mut stream = reader.stream(0, size);
        while let Some(next) = stream.next().await {
            let bytes = next?.parts.concat();
            check(record, reader, asked, (at, bytes.len()), &bytes);
            at += bytes.len() as u64;
        }
        // The stream may end only where the file does.
        check(record, reader, asked, (at, 1), &[]);
        return Ok(());
    }
    while at < size {
        let len = usize::try_from(1 + draws.below(size)).expect("files fit in memory");
        at += read_checked(record, reader, at, len).await?;
    }
    Ok(())
}

async fn read_checked(
    record: &Shared,
    reader: &Reader,
    offset: u64,
    len: usize,
) -> Result<u64, Error> {
    let asked = record.lock().tick();
    let bytes = reader.read_at(offset, len).await?.parts.concat();
    check(record, reader, asked, (offset, len), &bytes);
    // A read that gives nothing would never end.
    Ok((bytes.len() as u64).max(1))
}

fn check(record: &Shared, reader: &Reader, asked: Tick, range: (u64, usize), bytes: &[u8]) {
    let mut record = record.lock();
    let came = record.tick();
    let attrs = reader.attrs();
    let seen = Seen {
        file: attrs.file,
        size: attrs.size,
        offset: range.0,
        len: range.1,
        bytes,
        asked,
        came,
    };
    let result = record.contents.check(&seen);
    record.check(result);
}
