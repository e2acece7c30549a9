//! A cluster inside this process: a meta server and chunkservers on loopback, over real files.
use super::failure::{Exit, Failure};
use kfs_core::chunk::ChunkStatus;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::ClusterStatus;
use kfs_server::{ChunkConfig, ChunkServer, MetaConfig, MetaServer, Running, StartError};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Chunkservers of `--local`: as many as a file has replicas.
const LOCAL_CHUNKSERVERS: usize = 3;
/// A start reads headers of chunks, some ten thousand a second.
const START_MAX: Duration = Duration::from_secs(60);

/// The servers. Dropping them ends them at once, which loses nothing that was acknowledged.
#[derive(Debug)]
pub(crate) struct Embedded {
    meta: Running<ClusterStatus>,
    pub(crate) chunkservers: Vec<Running<ChunkStatus>>,
}

impl Embedded {
    /// The cluster of `--local DIR`.
    pub(crate) async fn local(dir: &Path) -> Result<Self, Failure> {
        let meta = MetaConfig::embedded(dir.join("meta"));
        Self::start(dir, meta, LOCAL_CHUNKSERVERS).await
    }

    /// A cluster in which lost replicas are made again after this long.
    pub(crate) async fn impatient(
        dir: &Path,
        chunkservers: usize,
        re_replicate_after: Duration,
    ) -> Result<Self, Failure> {
        let meta = MetaConfig {
            re_replicate_after,
            ..MetaConfig::embedded(dir.join("meta"))
        };
        Self::start(dir, meta, chunkservers).await
    }

    /// Starts servers on the data in `dir`, made if it is not there, and waits until all of them serve.
    async fn start(dir: &Path, meta: MetaConfig, chunkservers: usize) -> Result<Self, Failure> {
        let meta = MetaServer::start(meta)?;
        serves(&meta).await?;
        let mut embedded = Self {
            meta,
            chunkservers: Vec::with_capacity(chunkservers),
        };
        for n in 1..=chunkservers {
            let data = dir.join(format!("chunkserver-{n}"));
            embedded
                .chunkservers
                .push(ChunkServer::start(ChunkConfig::embedded(
                    data,
                    embedded.meta.listen,
                ))?);
        }
        for chunkserver in &embedded.chunkservers {
            serves(chunkserver).await?;
        }
        Ok(embedded)
    }

    /// Where clients connect.
    pub(crate) fn meta(&self) -> SocketAddr {
        self.meta.listen
    }

    /// Where the meta server's pages are.
    pub(crate) fn meta_http(&self) -> Option<SocketAddr> {
        self.meta.http
    }

    /// Has every server finish what it has begun.
    pub(crate) async fn stop(self) {
        for chunkserver in &self.chunkservers {
            chunkserver.stop().await;
        }
        self.meta.stop().await;
    }
}

async fn serves<S>(server: &Running<S>) -> Result<(), Failure> {
    match timeout(START_MAX, server.ready()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(kfs_server::Exit::Fault(fault))) => {
            Err(StartError::fault(server.data(), &fault).into())
        }
        Ok(Err(exit)) => {
            let what = format!(
                "the embedded server on {} ended while it started: {exit:?}",
                server.data().display()
            );
            Err(Failure {
                exit: Exit::Failed,
                ..Failure::new(Status::Protocol, what)
            })
        }
        Err(_) => {
            let what = format!(
                "the embedded server on {} does not serve after {} s",
                server.data().display(),
                START_MAX.as_secs()
            );
            Err(Failure::new(Status::TimedOut, what)
                .help("run it again with --log info to see what it does"))
        }
    }
}
