//! A file that programs have open through this mount: one library writer for all who write it, one reader for all who
//! read it.
//!
//! Nothing is acknowledged here that the library has not acknowledged: a sync is the library's sync, and an error of it
//! is given to whoever syncs or closes, and to every write after it. A read of a file that has unsynced bytes syncs
//! them first, as readers see what was synced. No lock is held while another file is worked on.
use super::errno;
use super::gathering::{GATHERED_MAX, Gathering};
use crate::by_id::by_id;
use crate::connect::Kfs;
use crate::error::Error;
use crate::file::{Chunked, Reader, Writer};
use bytes::{Buf, Bytes};
use fuser::Errno;
use kfs_core::ids::FileId;
use kfs_core::wire::client_meta::Attrs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// How the kernel's offset of a write is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    /// There.
    At(u64),
    /// `O_APPEND`: at the end as this mount's writer has it; the kernel may know an older one.
    End,
}

/// What programs have been told, or have written, and the cluster may not say yet.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Here {
    /// The file ends there at least.
    pub(super) end: u64,
    /// When it was written last, since 1970; zero if all of it is synced.
    pub(super) written: Duration,
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    kfs: Kfs,
    file: FileId,
    /// Held while a writer is opened, which may take as long as somebody else writes the file, or closed.
    opening: Mutex<()>,
    state: Mutex<State>,
    /// Where the writer ends; 0 without one.
    end: AtomicU64,
    /// When unsynced bytes came last, in nanoseconds since 1970; 0 without any.
    written: AtomicU64,
    /// The largest size that the kernel was told of: what lies below it must be read.
    told: AtomicU64,
}

#[derive(Default, Debug)]
struct State {
    /// Opened for writing so many times.
    writers: usize,
    writer: Option<Writer>,
    gathering: Gathering,
    unsynced: Unsynced,
    reader: Option<Reader>,
}

/// What the writer has taken since the last sync.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Unsynced {
    #[default]
    Nothing,
    Bytes,
    /// A write or a sync failed with this: nothing more can be written until everybody has closed the file.
    Failed(i32),
}

impl OpenFile {
    pub(super) fn new(kfs: Kfs, file: FileId) -> Self {
        Self {
            kfs,
            file,
            opening: Mutex::default(),
            state: Mutex::default(),
            end: AtomicU64::new(0),
            written: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// What its attributes are to say at least.
    pub(super) fn here(&self) -> Here {
        Here {
            end: self.end.load(Ordering::Acquire),
            written: Duration::from_nanos(self.written.load(Ordering::Acquire)),
        }
    }

    /// The kernel is told this size.
    pub(super) fn told(&self, size: u64) {
        self.told.fetch_max(size, Ordering::AcqRel);
    }

    /// Opened for reading: what was synced or closed before is seen from here on. Gives what it is now.
    pub(super) async fn open_to_read(&self) -> Result<Attrs, Errno> {
        let reader = self.opened().await?;
        let attrs = reader.attrs();
        has_a_name(&attrs)?;
        self.state.lock().await.reader = Some(reader);
        Ok(attrs)
    }

    async fn opened(&self) -> Result<Reader, Errno> {
        let reader = self.kfs.open_at(by_id(self.file)).await;
        reader.map_err(|error| self.failed("be opened", &error, errno::of_id))
    }

    /// Opened for writing, by one more. Waits while another client writes it, as long as a call may take.
    pub(super) async fn open_to_write(&self) -> Result<(), Errno> {
        // With it nobody closes the writer meanwhile.
        let _opening = self.opening.lock().await;
        if self.state.lock().await.writers > 0 {
            let attrs = self.kfs.stat_at(by_id(self.file)).await;
            let attrs = attrs
                .map_err(|error| self.failed("be opened for writing", &error, errno::of_id))?;
            has_a_name(&attrs)?;
            self.state.lock().await.writers += 1;
            return Ok(());
        }
        let writer = self.kfs.append_at(by_id(self.file)).await;
        let writer =
            writer.map_err(|error| self.failed("be opened for writing", &error, errno::of_id))?;
        self.begin(writer).await;
        Ok(())
    }

    /// It was made, and is open for writing.
    pub(super) async fn begin(&self, writer: Writer) {
        let mut state = self.state.lock().await;
        self.end.store(writer.written(), Ordering::Release);
        state.writer = Some(writer);
        state.writers = 1;
        state.unsynced = Unsynced::Nothing;
    }

    /// Writes, and gives how much: all of it.
    pub(super) async fn write(&self, at: Where, data: Bytes) -> Result<(), Errno> {
        let mut state = self.state.lock().await;
        state.usable()?;
        let end = self.end.load(Ordering::Acquire);
        let offset = match at {
            Where::At(offset) => offset,
            Where::End => end,
        };
        if data.is_empty() {
            return Ok(());
        }
        let after = offset + data.len() as u64;
        self.gather(&mut state, offset, data).await?;
        state.unsynced = Unsynced::Bytes;
        self.written.store(now(), Ordering::Release);
        self.end.fetch_max(after, Ordering::AcqRel);
        Ok(())
    }

    async fn gather(
        &self,
        state: &mut State,
        mut offset: u64,
        mut data: Bytes,
    ) -> Result<(), Errno> {
        while !data.is_empty() {
            if !state.gathering.joins(offset) {
                self.give_on(state).await?;
            }
            if state.gathering.is_empty() && data.len() >= GATHERED_MAX {
                return self.give(state, offset, data).await;
            }
            let taken = state.gathering.add(offset, &data);
            data.advance(taken);
            offset += taken as u64;
            if state.gathering.is_full() {
                self.give_on(state).await?;
            }
        }
        Ok(())
    }

    async fn give_on(&self, state: &mut State) -> Result<(), Errno> {
        match state.gathering.give() {
            Some((at, bytes)) => self.give(state, at, bytes).await,
            None => Ok(()),
        }
    }

    async fn give(&self, state: &mut State, at: u64, bytes: Bytes) -> Result<(), Errno> {
        let writer = state.writer.as_mut().ok_or(Errno::EBADF)?;
        let given = writer.write_at(at, bytes).await;
        given.map_err(|error| self.fail(state, "be written", &error))
    }

    /// Reads; less than asked for only at the end.
    pub(super) async fn read(&self, offset: u64, len: usize) -> Result<Chunked, Errno> {
        let reader = {
            let mut state = self.state.lock().await;
            if state.unsynced == Unsynced::Bytes {
                self.sync_in(&mut state).await?;
            }
            let wanted = self
                .told
                .load(Ordering::Acquire)
                .min(offset.saturating_add(len as u64));
            match &state.reader {
                Some(reader) if reader.attrs().size >= wanted => reader.clone(),
                _ => {
                    let reader = self.opened().await?;
                    state.reader = Some(reader.clone());
                    reader
                }
            }
        };
        let read = reader.read_at(offset, len).await;
        read.map_err(|error| self.failed("be read", &error, errno::of_id))
    }

    /// Makes all that was written durable.
    pub(super) async fn sync(&self) -> Result<(), Errno> {
        let mut state = self.state.lock().await;
        self.sync_in(&mut state).await
    }

    async fn sync_in(&self, state: &mut State) -> Result<(), Errno> {
        match state.unsynced {
            Unsynced::Nothing => return Ok(()),
            Unsynced::Failed(errno) => return Err(Errno::from_i32(errno)),
            Unsynced::Bytes => {}
        }
        self.give_on(state).await?;
        let writer = state.writer.as_mut().ok_or(Errno::EBADF)?;
        if let Err(error) = writer.sync().await {
            return Err(self.fail(state, "be synced", &error));
        }
        state.unsynced = Unsynced::Nothing;
        // Bytes in what was a hole change what a reader that is open is to give, and so does a larger size.
        state.reader = None;
        self.told(self.end.load(Ordering::Acquire));
        self.written.store(0, Ordering::Release);
        Ok(())
    }

    /// Sets the length of a file that is open for writing here.
    pub(super) async fn set_len(&self, len: u64) -> Result<(), Errno> {
        let mut state = self.state.lock().await;
        state.usable()?;
        self.give_on(&mut state).await?;
        let writer = state.writer.as_mut().ok_or(Errno::EBADF)?;
        if let Err(error) = writer.set_len(len).await {
            return Err(self.fail(&mut state, "be given another length", &error));
        }
        // All that was written before is synced with it.
        state.unsynced = Unsynced::Nothing;
        state.reader = None;
        self.end.store(len, Ordering::Release);
        self.told.store(len, Ordering::Release);
        self.written.store(0, Ordering::Release);
        Ok(())
    }

    /// One who had it open for writing has closed it; with the last one the cluster is told that it is written no more.
    pub(super) async fn close_writer(&self) {
        let _opening = self.opening.lock().await;
        let mut state = self.state.lock().await;
        assert!(state.writers > 0, "who closes it had it open");
        state.writers -= 1;
        if state.writers == 0 {
            self.finish(&mut state).await;
        }
    }

    /// Everything is over for who has it open: what was written is synced, and the writer closed.
    pub(super) async fn finish_now(&self) {
        let _opening = self.opening.lock().await;
        self.finish(&mut *self.state.lock().await).await;
    }

    async fn finish(&self, state: &mut State) {
        // Whoever closed it was told of a failure then. What comes after that, through a mapping of the file, has
        // nobody left to tell; it is in the log.
        let synced = self.sync_in(state).await;
        if let Some(writer) = state.writer.take() {
            let closed = match synced {
                Ok(()) => writer.close().await,
                Err(_) => writer.abandon().await,
            };
            if let Err(error) = closed {
                self.failed("be closed", &error, errno::of);
            }
        }
        state.unsynced = Unsynced::Nothing;
        self.end.store(0, Ordering::Release);
        self.written.store(0, Ordering::Release);
    }

    /// The writer is of no use any more.
    fn fail(&self, state: &mut State, what: &str, error: &Error) -> Errno {
        let errno = self.failed(what, error, errno::of);
        state.unsynced = Unsynced::Failed(errno.code());
        drop(state.gathering.give());
        errno
    }

    /// Says why, for whoever runs the mount: a program is told a number only.
    fn failed(&self, what: &str, error: &Error, number: fn(&Error) -> Errno) -> Errno {
        let errno = number(error);
        if errno.code() == Errno::ESTALE.code() {
            tracing::debug!("file {} cannot {what}: {}", self.file, error.what);
        } else {
            let (file, code) = (self.file, error.code());
            tracing::warn!(
                "file {file} cannot {what} (errno {}): [{code}] {}",
                errno.code(),
                error.what
            );
        }
        errno
    }
}

impl State {
    fn usable(&self) -> Result<(), Errno> {
        match self.unsynced {
            Unsynced::Failed(errno) => Err(Errno::from_i32(errno)),
            Unsynced::Nothing | Unsynced::Bytes if self.writer.is_none() => Err(Errno::EBADF),
            Unsynced::Nothing | Unsynced::Bytes => Ok(()),
        }
    }
}

/// A file that has lost its name, or whose name another one has, is not what was to be opened: the kernel knows it from
/// a listing, and looks once more.
fn has_a_name(attrs: &Attrs) -> Result<(), Errno> {
    if attrs.links == 0 {
        Err(Errno::ESTALE)
    } else {
        Ok(())
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}
