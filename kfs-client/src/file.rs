//! Open files: a [`Writer`] appends or fills a new file, a [`Reader`] gives verified bytes.
use crate::connect::{Connection, done, outcome, unexpected};
use crate::error::Result;
use bytes::Bytes;
use kfs_core::client::{Call, Event, Handle};
use kfs_core::ids::FileId;
use kfs_core::limits::FRAME_BODY_MAX;
use kfs_core::wire::client_meta::Attrs;
use kfs_drive::Pending;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// A file that is being written.
///
/// A write is done when the window has room for more, not when it is on disk: [`Writer::sync`] and
/// [`Writer::close`] make it durable on every replica, and visible. Bytes that were written cannot be written
/// again, nor those of a block before them. After an error every further call gives the same error. A writer that is
/// dropped is abandoned.
#[derive(Debug)]
pub struct Writer {
    open: Open,
    file: FileId,
    replication: u8,
    position: u64,
}

/// An open file; let go when dropped.
#[derive(Debug)]
struct Open {
    connection: Arc<Connection>,
    handle: Handle,
    /// How it is let go of; `None` once it is.
    farewell: Option<fn(Handle) -> Call>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(farewell) = self.farewell {
            self.connection.call_later(farewell(self.handle));
        }
    }
}

impl Writer {
    pub(crate) const fn new(
        connection: Arc<Connection>,
        handle: Handle,
        file: FileId,
        replication: u8,
    ) -> Self {
        let open = Open {
            connection,
            handle,
            farewell: Some(Call::Abandon),
        };
        Self {
            open,
            file,
            replication,
            position: 0,
        }
    }

    /// One that goes on where the file ends.
    pub(crate) const fn at_end(mut self, end: u64) -> Self {
        self.position = end;
        self
    }

    /// Its id.
    #[must_use]
    pub const fn file(&self) -> FileId {
        self.file
    }
    /// Replicas of each of its chunks.
    #[must_use]
    pub const fn replication(&self) -> u8 {
        self.replication
    }
    /// Where the last write ended, in bytes from the beginning of the file; of a file that was opened to be written
    /// further, before the first write, where it ends.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.position
    }

    /// Appends at the position where the last write ended. The bytes are not copied if they are many.
    ///
    /// # Errors
    /// The first thing that went wrong with the file, also with an earlier write: no chunkserver, no room, a
    /// broken chain.
    pub async fn write(&mut self, data: Bytes) -> Result<()> {
        self.write_at(self.position, data).await
    }

    /// Writes at `offset`, in bytes, over what is there, and leaves the position behind it. Between where the file ended
    /// and that it is zeros.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn write_at(&mut self, offset: u64, data: Bytes) -> Result<()> {
        self.position = offset.saturating_add(data.len() as u64);
        let handle = self.open.handle;
        let write = Call::Write {
            handle,
            offset,
            data,
        };
        done(self.open.connection.call(write).await?)
    }

    /// Makes all that was written durable on every replica, and visible to everybody who opens the file.
    ///
    /// # Errors
    /// As [`Writer::write`]; then it is not known how much of the unsynced bytes is durable.
    pub async fn sync(&mut self) -> Result<()> {
        done(
            self.open
                .connection
                .call(Call::Sync(self.open.handle))
                .await?,
        )
    }

    /// Makes all that was written durable, as [`Writer::sync`] does, and gives the file this length in bytes. What is
    /// behind it is gone. If the file is made longer, what is behind where it ended is zeros until it is written.
    ///
    /// Writing goes on at the new end. Bytes before that can only be written if they are behind where the file ended
    /// before. Who has the file open to read sees the new length when it asks for something that was cut off, or opens
    /// the file again.
    ///
    /// # Errors
    /// As [`Writer::write`]; then it is not known which of the two lengths the file has.
    pub async fn set_len(&mut self, len: u64) -> Result<()> {
        let handle = self.open.handle;
        let set = Call::SetLen { handle, len };
        done(self.open.connection.call(set).await?)?;
        self.position = len;
        Ok(())
    }

    /// Syncs and closes.
    ///
    /// # Errors
    /// As [`Writer::sync`]; the file is as last synced then.
    pub async fn close(mut self) -> Result<()> {
        let pending = self
            .open
            .connection
            .begin(Call::Close(self.open.handle))
            .await;
        self.open.farewell = None;
        done(outcome(pending).await?)
    }

    /// Lets go of the file without syncing: it stays as last synced, or empty.
    ///
    /// # Errors
    /// If the client has stopped.
    pub async fn abandon(mut self) -> Result<()> {
        let pending = self
            .open
            .connection
            .begin(Call::Abandon(self.open.handle))
            .await;
        self.open.farewell = None;
        done(outcome(pending).await?)
    }
}

/// A file that is open for reading.
#[derive(Clone, Debug)]
pub struct Reader {
    open: Arc<Open>,
    attrs: Attrs,
}

/// Bytes of a file, verified.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Chunked {
    /// In order; one buffer or several, uncopied.
    pub parts: Vec<Bytes>,
    /// Where they came from: chunk index and server. Holes come from nowhere.
    pub from: Vec<(u64, SocketAddr)>,
}

impl Chunked {
    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
    /// Whether there are none: the end of the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Reader {
    pub(crate) fn new(connection: Arc<Connection>, handle: Handle, attrs: Attrs) -> Self {
        let open = Open {
            connection,
            handle,
            farewell: Some(Call::Close),
        };
        Self {
            open: Arc::new(open),
            attrs,
        }
    }

    /// As they were when it was opened.
    #[must_use]
    pub const fn attrs(&self) -> Attrs {
        self.attrs
    }

    /// Reads `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// [`kfs_core::wire::Status::Corrupt`] if every copy of a chunk is damaged,
    /// [`kfs_core::wire::Status::NoReplica`] or `TimedOut` if none can be had in time; the text names every
    /// server that was tried, and what it said. [`kfs_core::wire::Status::NotFound`] if the file was removed.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Chunked> {
        data(self.begin(offset, len).await).await
    }

    /// Reads `len` bytes from `offset` on, as far as the file went when it was opened, asking ahead.
    #[must_use]
    pub fn stream(&self, offset: u64, len: u64) -> ReadStream {
        ReadStream {
            reader: self.clone(),
            next: offset,
            end: offset.saturating_add(len).min(self.attrs.size),
            ahead: VecDeque::new(),
        }
    }

    async fn begin(&self, offset: u64, len: usize) -> Pending<Event> {
        let handle = self.open.handle;
        let read = Call::Read {
            handle,
            offset,
            len,
        };
        self.open.connection.begin(read).await
    }
}

/// A file read from one place to another, with several reads in flight.
#[derive(Debug)]
pub struct ReadStream {
    reader: Reader,
    next: u64,
    end: u64,
    /// Each with how many bytes it is to give.
    ahead: VecDeque<(usize, Pending<Event>)>,
}

impl ReadStream {
    /// The next bytes; `None` at the end, or after an error. A file that is cut meanwhile may end earlier.
    pub async fn next(&mut self) -> Option<Result<Chunked>> {
        let reads_max =
            (self.reader.open.connection.limits.read_ahead_bytes / FRAME_BODY_MAX).max(1);
        while self.next < self.end && self.ahead.len() < reads_max {
            let piece = FRAME_BODY_MAX as u64;
            let edge = (self.next / piece + 1) * piece;
            let share = edge.min(self.end) - self.next;
            let len = usize::try_from(share).expect("a piece fits in memory");
            let pending = self.reader.begin(self.next, len).await;
            self.ahead.push_back((len, pending));
            self.next += share;
        }
        let (due, pending) = self.ahead.pop_front()?;
        let outcome = data(pending).await;
        // The file may have been cut since it was opened: it ends there.
        if outcome.as_ref().map_or(0, Chunked::len) < due {
            self.ahead.clear();
            self.next = self.end;
        }
        Some(outcome)
    }
}

async fn data(pending: Pending<Event>) -> Result<Chunked> {
    match outcome(pending).await? {
        Event::Data { parts, from } => Ok(Chunked { parts, from }),
        other => Err(unexpected(&other)),
    }
}
