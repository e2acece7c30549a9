//! The connection to a cluster: one machine, driven by one task, shared by every clone of [`Kfs`].
//!
//! Nothing is decided here: each call goes to the machine as it is, and its one event comes back.
use crate::dir::Directory;
use crate::error::{Error, Result};
use crate::file::{Reader, Writer};
use crate::replica;
use crate::usage::UsageScan;
use kfs_core::client::{Call, Client, Config, Event};
use kfs_core::ids::{FileId, NodeId};
use kfs_core::limits::{Geometry, Limits};
use kfs_core::machine::Machine;
use kfs_core::wire::client_meta::{
    At, Attributes, Attrs, CheckpointMade, ChunkPlaces, ClusterStatus, Drain, Keep, Located,
    Ownership, Parents, Place, RenameMode,
};
use kfs_core::wire::{Role, Status};
use kfs_drive::{Caller, Net, NoDisk, Pending};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the meta server listens.
    pub meta: SocketAddr,
    /// How long one call may take in all, with its retries. 60 s unless said otherwise.
    pub timeout: Duration,
    /// For back-off, the choice of replicas and the session's nonce; drawn from the operating system.
    pub seed: u64,
    /// Bounds of what is held in memory.
    pub limits: Limits,
}

impl Options {
    /// The defaults, for the cluster of this meta server.
    #[must_use]
    pub fn new(meta: SocketAddr) -> Self {
        Self {
            meta,
            timeout: Duration::from_secs(60),
            seed: kfs_drive::entropy(),
            limits: Limits::REAL,
        }
    }
}

/// What a new file is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateOptions {
    /// Owner, group and mode.
    pub owner: Ownership,
    /// Replicas of each chunk; 0: the cluster's default.
    pub replication: u8,
    /// What becomes of it if this client goes away before it is renamed.
    pub keep: Keep,
}

impl Default for CreateOptions {
    /// Root's, mode 0644, the cluster's replication, kept.
    fn default() -> Self {
        Self {
            owner: Ownership {
                uid: 0,
                gid: 0,
                mode: 0o644,
            },
            replication: 0,
            keep: Keep::Always,
        }
    }
}

/// A client of one cluster. Clones share the connection.
///
/// Paths are absolute bytes, `/a/b`, without `.` and `..`; names are any bytes but `/` and NUL.
#[derive(Clone, Debug)]
pub struct Kfs(Arc<Connection>);

/// The way to the machine.
#[derive(Debug)]
pub(crate) struct Connection {
    caller: Caller<Call, Event>,
    pub(crate) limits: Limits,
    /// Calls that let go of files whose owners were dropped; they go out before the next call.
    dropped: Mutex<Vec<Call>>,
}

impl Kfs {
    /// A client of this cluster. It dials when it is first used.
    ///
    /// # Panics
    /// Outside a tokio runtime: a task that drives the client is spawned on the current one.
    #[must_use]
    pub fn connect(options: Options) -> Self {
        let client = Client::new(Config {
            seed: options.seed,
            limits: options.limits,
            meta: options.meta,
            timeout: options.timeout,
        });
        Self::over(client, options.limits)
    }

    /// A client over any machine that takes a client's calls: how an observer is put in between.
    ///
    /// # Panics
    /// As [`Self::connect`].
    #[must_use]
    pub fn over<M>(machine: M, limits: Limits) -> Self
    where
        M: Machine<Call = Call, Event = Event> + Send + 'static,
    {
        // Every event of a client answers a call.
        let (caller, calls) = kfs_drive::calls(|_event| {});
        let (_, completions) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(kfs_drive::drive(
            machine,
            NoDisk,
            completions,
            Net::new(Role::Client),
            calls,
        ));
        Self(Arc::new(Connection {
            caller,
            limits,
            dropped: Mutex::new(Vec::new()),
        }))
    }

    pub(crate) const fn connection(&self) -> &Arc<Connection> {
        &self.0
    }

    /// The attributes of a file or directory.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::NotADirectory`], or that the meta server cannot be had.
    pub async fn stat(&self, path: &[u8]) -> Result<Attrs> {
        match self.0.call_at(path, Call::Stat(at(path)?)).await? {
            Event::Attrs(attrs) => Ok(attrs),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`Status::Exists`] (not with [`Parents::Make`]), [`Status::NotFound`], [`Status::NotADirectory`],
    /// [`Status::BadName`], or that the meta server cannot be had.
    pub async fn mkdir(&self, path: &[u8], parents: Parents, owner: Ownership) -> Result<()> {
        let at = at(path)?;
        done(
            self.0
                .call_at(path, Call::Mkdir { at, parents, owner })
                .await?,
        )
    }

    /// Makes a file to write; the name must not be taken.
    ///
    /// # Errors
    /// [`Status::Exists`], [`Status::NotFound`] (a parent), [`Status::NotADirectory`], [`Status::BadName`], or
    /// that the meta server cannot be had.
    pub async fn create(&self, path: &[u8], options: CreateOptions) -> Result<Writer> {
        let call = Call::Create {
            at: at(path)?,
            owner: options.owner,
            replication: options.replication,
            keep: options.keep,
        };
        match self.0.call_at(path, call).await? {
            Event::Created {
                handle,
                file,
                replication,
            } => Ok(Writer::new(Arc::clone(&self.0), handle, file, replication)),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a file that is there to write it further: [`Writer::write`] goes on where it ends, which
    /// [`Writer::written`] tells, and [`Writer::write_at`] writes over what is there. One client writes a file at a time; while
    /// another one does, or did and was not heard of for less than two minutes, this waits, as long as a call may take.
    ///
    /// What a client wrote that died before it had synced may be there behind what was synced, as far as all of its
    /// replicas have it.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::IsADirectory`], [`Status::Busy`] (another client writes it),
    /// [`Status::BadRequest`] (this client has it open for writing), or that the meta server or chunkservers cannot be
    /// had.
    pub async fn append(&self, path: &[u8]) -> Result<Writer> {
        self.opened_to_write(path, Call::Append(at(path)?)).await
    }

    async fn opened_to_write(&self, path: &[u8], call: Call) -> Result<Writer> {
        self.to_write(self.0.call_at(path, call).await?)
    }

    /// What came of opening a file to write it.
    pub(crate) fn to_write(&self, opened: Event) -> Result<Writer> {
        match opened {
            Event::Appending {
                handle,
                file,
                replication,
                end,
            } => {
                let writer = Writer::new(Arc::clone(&self.0), handle, file, replication);
                Ok(writer.at_end(end))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a file that is there and gives it another length, as [`Writer::set_len`] does: to write it anew from its
    /// beginning with a length of 0, or only to cut it, or to make it longer. It stays the same file to whoever has it
    /// open. Else as [`Self::append`].
    ///
    /// # Errors
    /// As [`Self::append`], and [`Status::BadRequest`] if a file cannot have so many bytes. If it failed because
    /// chunkservers or the meta server could not be had, it is not known which of the two lengths the file has.
    pub async fn truncate(&self, path: &[u8], len: u64) -> Result<Writer> {
        let at = at(path)?;
        self.opened_to_write(path, Call::Truncate { at, len }).await
    }

    /// Opens a file to read what was synced or closed before. While it is open it can be read, also when it is removed
    /// or replaced, unless this client and the meta server are apart for as long as a session may be idle.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::NotADirectory`], [`Status::IsADirectory`], or that the meta server cannot
    /// be had.
    pub async fn open(&self, path: &[u8]) -> Result<Reader> {
        match self.0.call_at(path, Call::Open(at(path)?)).await? {
            Event::Opened { handle, attrs } => Ok(Reader::new(Arc::clone(&self.0), handle, attrs)),
            other => Err(unexpected(&other)),
        }
    }

    /// Renames, atomically: a file or an empty directory of the new name is replaced, or not, by `mode`.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::Exists`], [`Status::NotEmpty`], [`Status::IsADirectory`],
    /// [`Status::NotADirectory`], [`Status::BadRequest`] (into itself), or that the meta server cannot be had.
    pub async fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> Result<()> {
        let call = Call::Rename {
            from: at(from)?,
            to: at(to)?,
            mode,
        };
        done(self.0.call_at(from, call).await?)
    }

    /// Removes a file. Who has it open, here or elsewhere, reads and writes it on until they close it.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::IsADirectory`], or that the meta server cannot be had.
    pub async fn remove(&self, path: &[u8]) -> Result<()> {
        done(self.0.call_at(path, Call::Remove(at(path)?)).await?)
    }

    /// Removes a directory with all that is in it: it is gone at once, and what it held is reclaimed bit by bit, as the
    /// status says. Files in it that somebody has open stay for them.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::NotADirectory`], [`Status::BadRequest`] (the root), or that the meta server
    /// cannot be had.
    pub async fn remove_tree(&self, path: &[u8]) -> Result<()> {
        done(self.0.call_at(path, Call::RemoveTree(at(path)?)).await?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::NotADirectory`], [`Status::NotEmpty`], or that the meta server cannot be had.
    pub async fn rmdir(&self, path: &[u8]) -> Result<()> {
        done(self.0.call_at(path, Call::Rmdir(at(path)?)).await?)
    }

    /// The entries of a directory, asked for page by page as they are taken.
    /// Errors come from [`Directory::next`].
    #[must_use]
    pub fn list(&self, path: &[u8]) -> Directory {
        Directory::new(Arc::clone(&self.0), path)
    }

    /// Where the chunks of a file are that have something to be read, and how many of their replicas cannot be read
    /// now: a page of them, from this index on. An empty page is the last one.
    ///
    /// # Errors
    /// [`Status::NotFound`] (it was removed), [`Status::IsADirectory`], or that the meta server cannot be had.
    pub async fn locate(&self, file: FileId, first: u64) -> Result<Located> {
        match self.0.call(Call::Locate { file, first }).await? {
            Event::Located(located) => Ok(*located),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads all that one server has of a chunk, as [`Self::locate`] gave it, and compares it with its sums, as the
    /// server does before it sends anything. Gives how many bytes these were. Damage that the server finds it reports,
    /// and the replica is made anew from a good one.
    ///
    /// # Errors
    /// [`Status::Corrupt`], [`Status::NotServed`] (it has no such replica, or one that is behind), or
    /// [`Status::Unreachable`].
    pub async fn verify_replica(
        &self,
        geometry: Geometry,
        chunk: &ChunkPlaces,
        place: Place,
    ) -> Result<u64> {
        replica::verify(geometry, chunk, place).await
    }

    /// What a tree takes, or a file: each directory at most `depth` below it, with all that is below that, asked for
    /// page by page as they are taken. With a depth of 0 there is only the whole: see [`UsageScan::total`].
    /// Errors come from [`UsageScan::next`].
    ///
    /// The meta server has few such scans under way at a time; one that is dropped before its end counts until nothing
    /// was asked of it for as long as a session may be idle.
    #[must_use]
    pub fn usage(&self, path: &[u8], depth: u32) -> UsageScan {
        UsageScan::new(Arc::clone(&self.0), path, depth)
    }

    /// The state of the cluster.
    ///
    /// # Errors
    /// If the meta server cannot be had.
    pub async fn status(&self) -> Result<ClusterStatus> {
        match self.0.call(Call::Status).await? {
            Event::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes the meta server write a checkpoint of the namespace, unless its newest one has everything.
    ///
    /// # Errors
    /// If it could not be made, or the meta server cannot be had.
    pub async fn checkpoint(&self) -> Result<CheckpointMade> {
        match self.0.call(Call::Checkpoint).await? {
            Event::Checkpoint(made) => Ok(made),
            other => Err(unexpected(&other)),
        }
    }

    /// Accepts that the meta server's log has lost its end, and gives up what was acknowledged in it: changes are
    /// taken again. For an operator, when no newer backup is to be had.
    ///
    /// # Errors
    /// [`Status::BadRequest`] if no part of the log is known to be missing, or that the meta server cannot be had.
    pub async fn accept_rollback(&self) -> Result<()> {
        done(self.0.call(Call::AcceptRollback).await?)
    }

    /// Changes how many replicas a file asks for. Copies are made, or go, later: `chunks_under_replicated` in
    /// [`Self::status`] counts what is still missing.
    ///
    /// # Errors
    /// [`Status::BadRequest`] if there cannot be so many, [`Status::IsADirectory`], [`Status::NotFound`], or that the
    /// meta server cannot be had.
    pub async fn set_replication(&self, path: &[u8], replication: u8) -> Result<()> {
        let at = at(path)?;
        let call = Call::SetReplication { at, replication };
        done(self.0.call(call).await.map_err(|error| error.at(path))?)
    }

    /// Changes attributes of a file or directory; those that are `None` stay. When it was changed is now.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::NotADirectory`], or that the meta server cannot be had.
    pub async fn set_attributes(&self, path: &[u8], to: Attributes) -> Result<()> {
        let at = at(path)?;
        done(self.0.call_at(path, Call::SetAttributes { at, to }).await?)
    }

    /// Has a chunkserver give away what it has, so that it may be stopped for good, or ends that. How far it is stands
    /// in [`Self::status`].
    ///
    /// # Errors
    /// [`Status::NotFound`] if there is no such server, [`Status::NoServers`] if there are too few others, or that the
    /// meta server cannot be had.
    pub async fn drain(&self, node: NodeId, drain: Drain) -> Result<()> {
        done(self.0.call(Call::Drain { node, drain }).await?)
    }

    /// Ends the session and closes all links. Files that are still open, here or in clones, are lost to their
    /// owners: what was not synced is not kept. A client that is merely dropped is found out by its silence.
    pub async fn disconnect(self) {
        // Whatever comes back, nothing is connected any more.
        let _ = self.0.caller.call(Call::Disconnect).await;
    }
}

impl Connection {
    /// Begins a call: calls reach the machine in the order of their begins.
    pub(crate) async fn begin(&self, call: Call) -> Pending<Event> {
        self.let_go().await;
        self.caller.begin(call).await
    }

    /// Lets go of the files whose owners were dropped.
    pub(crate) async fn let_go(&self) {
        let dropped =
            std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        for call in dropped {
            // Nobody waits for these.
            drop(self.caller.begin(call).await);
        }
    }

    pub(crate) async fn call(&self, call: Call) -> Result<Event> {
        outcome(self.begin(call).await).await
    }

    /// A call about this path, which its error names.
    pub(crate) async fn call_at(&self, path: &[u8], call: Call) -> Result<Event> {
        self.call(call).await.map_err(|error| error.at(path))
    }

    /// Makes this call some time later: for owners that are dropped and cannot wait.
    pub(crate) fn call_later(&self, call: Call) {
        self.dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }
}

/// What a begun call comes to.
pub(crate) async fn outcome(pending: Pending<Event>) -> Result<Event> {
    match pending.await {
        Ok(Event::Failed(failure)) => Err(failure.into()),
        Ok(event) => Ok(event),
        Err(_) => Err(Error::gone()),
    }
}

/// The event of a call that gives nothing.
pub(crate) fn done(event: Event) -> Result<()> {
    match event {
        Event::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn unexpected(event: &Event) -> Error {
    Error::new(
        Status::Protocol,
        format!("the client answered {event:?} to another call"),
    )
}

/// The place of an absolute path.
pub(crate) fn at(path: &[u8]) -> Result<At> {
    match path {
        [b'/', rest @ ..] => Ok(At::root(rest)),
        _ => {
            let path = String::from_utf8_lossy(path);
            let what = format!("'{path}' is not an absolute path");
            Err(Error::new(Status::BadName, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_refused_before_anything_is_sent() {
        for path in [&b""[..], b"a/b", b"./a"] {
            assert_eq!(at(path).unwrap_err().status, Status::BadName);
        }
        assert_eq!(at(b"/").unwrap(), At::root(""));
        assert_eq!(at(b"/a/b").unwrap(), At::root("a/b"));
    }
}
