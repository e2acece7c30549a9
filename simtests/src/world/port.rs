//! The client library as the workload uses it, over any machine that speaks the client's calls.
use bytes::Bytes;
use kfs_core::client::{Call, Event, Failure, Handle};
use kfs_core::ids::FileId;
use kfs_core::machine::Machine;
use kfs_core::wire::Role;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{
    At, Attrs, ClusterStatus, Entry, Keep, Ownership, Parents, RenameMode,
};
use kfs_drive::{Caller, Net, NoDisk};

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Clone)]
pub struct Kfs(Caller<Call, Event>);

pub struct CreateOptions {
    pub owner: Ownership,
    pub replication: u8,
    pub keep: Keep,
}

pub struct Writer {
    kfs: Kfs,
    handle: Handle,
    file: FileId,
    at: u64,
}

pub struct Reader {
    kfs: Kfs,
    handle: Handle,
    attrs: Attrs,
}

fn at(path: &[u8]) -> At {
    At::root(path.strip_prefix(b"/").unwrap_or(path))
}

impl Kfs {
    pub fn over<M>(machine: M) -> Self
    where
        M: Machine<Call = Call, Event = Event> + Send + 'static,
    {
        let (caller, calls) = kfs_drive::calls(|_| {});
        let (_, completions) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(kfs_drive::drive(
            machine,
            NoDisk,
            completions,
            Net::new(Role::Client),
            calls,
        ));
        Self(caller)
    }
    async fn call(&self, call: Call) -> Result<Event> {
        match self.0.call(call).await {
            Ok(Event::Failed(failure)) => Err(failure),
            Ok(event) => Ok(event),
            Err(gone) => Err(Failure {
                status: Status::Unreachable,
                what: gone.to_string(),
            }),
        }
    }
    async fn done(&self, call: Call) -> Result<()> {
        self.call(call).await.map(drop)
    }
    pub async fn stat(&self, path: &[u8]) -> Result<Attrs> {
        match self.call(Call::Stat(at(path))).await? {
            Event::Attrs(attrs) => Ok(attrs),
            other => unreachable!("{other:?}"),
        }
    }
    pub async fn mkdir(&self, path: &[u8], parents: Parents, owner: Ownership) -> Result<()> {
        let at = at(path);
        self.done(Call::Mkdir { at, parents, owner }).await
    }
    pub async fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> Result<()> {
        let (from, to) = (at(from), at(to));
        self.done(Call::Rename { from, to, mode }).await
    }
    pub async fn remove(&self, path: &[u8]) -> Result<()> {
        self.done(Call::Remove(at(path))).await
    }
    pub async fn rmdir(&self, path: &[u8]) -> Result<()> {
        self.done(Call::Rmdir(at(path))).await
    }
    pub async fn list(&self, path: &[u8]) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map_or(Vec::new(), |entry| entry.name.clone());
            match self
                .call(Call::List {
                    at: at(path),
                    after,
                })
                .await?
            {
                Event::Entries { entries, end } => {
                    all.extend(entries);
                    if end {
                        return Ok(all);
                    }
                }
                other => unreachable!("{other:?}"),
            }
        }
    }
    pub async fn status(&self) -> Result<ClusterStatus> {
        match self.call(Call::Status).await? {
            Event::Status(status) => Ok(*status),
            other => unreachable!("{other:?}"),
        }
    }
    pub async fn create(&self, path: &[u8], options: CreateOptions) -> Result<Writer> {
        let call = Call::Create {
            at: at(path),
            owner: options.owner,
            replication: options.replication,
            keep: options.keep,
        };
        match self.call(call).await? {
            Event::Created { handle, file, .. } => Ok(Writer {
                kfs: self.clone(),
                handle,
                file,
                at: 0,
            }),
            other => unreachable!("{other:?}"),
        }
    }
    pub async fn open(&self, path: &[u8]) -> Result<Reader> {
        match self.call(Call::Open(at(path))).await? {
            Event::Opened { handle, attrs } => Ok(Reader {
                kfs: self.clone(),
                handle,
                attrs,
            }),
            other => unreachable!("{other:?}"),
        }
    }
    pub async fn disconnect(self) -> Result<()> {
        self.done(Call::Disconnect).await
    }
}

impl Writer {
    pub fn file(&self) -> FileId {
        self.file
    }
    pub async fn write(&mut self, data: Bytes) -> Result<()> {
        let offset = self.at;
        self.write_at(offset, data).await
    }
    pub async fn write_at(&mut self, offset: u64, data: Bytes) -> Result<()> {
        self.at = offset + data.len() as u64;
        let handle = self.handle;
        self.kfs
            .done(Call::Write {
                handle,
                offset,
                data,
            })
            .await
    }
    pub async fn sync(&mut self) -> Result<()> {
        self.kfs.done(Call::Sync(self.handle)).await
    }
    pub async fn close(self) -> Result<()> {
        self.kfs.done(Call::Close(self.handle)).await
    }
    pub async fn abandon(self) -> Result<()> {
        self.kfs.done(Call::Abandon(self.handle)).await
    }
}

impl Reader {
    pub fn attrs(&self) -> &Attrs {
        &self.attrs
    }
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<Bytes>> {
        let handle = self.handle;
        match self
            .kfs
            .call(Call::Read {
                handle,
                offset,
                len,
            })
            .await?
        {
            Event::Data { parts, .. } => Ok(parts),
            other => unreachable!("{other:?}"),
        }
    }
}
