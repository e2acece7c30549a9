//! The cluster that a command talks to: the one that is named, or one embedded for this command; and what
//! must be cleaned up there before the command ends.
use super::Common;
#[cfg(feature = "embedded")]
use super::embedded::Embedded;
use super::failure::Failure;
use super::path::RemotePath;
use super::screen::Screen;
use super::tree;
use kfs_client::{Kfs, Options};
use kfs_core::limits::Limits;
use kfs_core::wire::Status;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

const META_DEFAULT: &str = "127.0.0.1:20000";
/// Cleaning up is worth this much of the time of somebody who waits; the end of the session does the rest.
const CLEANUP_MAX: Duration = Duration::from_secs(5);

/// A client of one cluster.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) kfs: Kfs,
    /// Where its meta server listens.
    pub(crate) meta: SocketAddr,
    /// Names that only a command that was not finished leaves behind.
    temporaries: RefCell<BTreeSet<Vec<u8>>>,
    #[cfg(feature = "embedded")]
    embedded: Option<Embedded>,
}

impl Reach {
    /// The cluster that these paths and options name.
    pub(crate) async fn new(
        paths: &[&RemotePath],
        common: &Common,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let in_paths = one_meta(paths)?;
        if let Some(dir) = &common.local {
            if let Some(meta) = in_paths {
                return Err(Failure::usage(format!(
                    "--local runs a cluster of its own, but a path names {meta}"
                )));
            }
            return Self::embedded(dir, common, screen).await;
        }
        let meta = match (in_paths, &common.meta) {
            (Some(path), Some(flag)) if path != *flag => {
                return Err(Failure::usage(format!(
                    "a path names the meta server {path}, but --meta names {flag}"
                )));
            }
            (Some(path), _) => path,
            (None, Some(flag)) => flag.clone(),
            (None, None) => std::env::var("KFS_META").unwrap_or_else(|_| META_DEFAULT.to_owned()),
        };
        Ok(Self::to(resolve(&meta).await?, common.timeout))
    }

    /// The cluster whose meta server listens here.
    pub(crate) fn to(meta: SocketAddr, timeout: Duration) -> Self {
        let kfs = Kfs::connect(Options {
            timeout,
            seed: kfs_drive::entropy(),
            limits: Limits::REAL,
            meta,
        });
        Self {
            kfs,
            meta,
            temporaries: RefCell::default(),
            #[cfg(feature = "embedded")]
            embedded: None,
        }
    }

    #[cfg(feature = "embedded")]
    async fn embedded(
        dir: &std::path::Path,
        common: &Common,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        screen.note(format!(
            "starting a meta server and three chunkservers in {}",
            dir.display()
        ));
        let embedded = Embedded::local(dir).await?;
        let reach = Self::to(embedded.meta(), common.timeout);
        Ok(Self {
            embedded: Some(embedded),
            ..reach
        })
    }

    #[cfg(not(feature = "embedded"))]
    #[allow(clippy::unused_async)] // as its twin, which starts servers
    async fn embedded(_: &std::path::Path, _: &Common, _: &Screen) -> Result<Self, Failure> {
        Err(Failure::usage(
            "this kfs was built without the feature 'embedded', so there is no --local",
        ))
    }

    /// A name in the directory of `path` that nothing has, to be removed if the command does not get to
    /// [`Reach::settled`]. Its length does not depend on the name at the end of `path`, which may be as
    /// long as names get.
    pub(crate) fn temporary_beside(&self, path: &RemotePath) -> RemotePath {
        let temporary = path
            .parent()
            .join(format!(".kfs-put-{:016x}", kfs_drive::entropy()).as_bytes());
        self.temporaries
            .borrow_mut()
            .insert(temporary.bytes().to_vec());
        temporary
    }

    /// This temporary has got its final name.
    pub(crate) fn settled(&self, temporary: &RemotePath) {
        let known = self.temporaries.borrow_mut().remove(temporary.bytes());
        assert!(known, "a temporary is settled once");
    }

    /// Removes what is left of a command that failed, ends the session, stops embedded servers.
    pub(crate) async fn leave(self) {
        let left = self.temporaries.take();
        // Not done in time, or failing: the session's end removes temporary files, and whoever looks finds
        // a name that says what it is.
        let _ = timeout(CLEANUP_MAX, async {
            for path in left {
                let _ = tree::remove_all(&self.kfs, &path).await;
            }
        })
        .await;
        let _ = timeout(CLEANUP_MAX, self.kfs.disconnect()).await;
        #[cfg(feature = "embedded")]
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// The meta server that paths name, which must be one.
fn one_meta(paths: &[&RemotePath]) -> Result<Option<String>, Failure> {
    let mut named: Option<&String> = None;
    for meta in paths.iter().filter_map(|path| path.meta.as_ref()) {
        match named {
            Some(other) if other != meta => {
                return Err(Failure::usage(format!(
                    "the paths name two clusters, {other} and {meta}"
                )));
            }
            _ => named = Some(meta),
        }
    }
    Ok(named.cloned())
}

async fn resolve(meta: &str) -> Result<SocketAddr, Failure> {
    if !meta
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    {
        return Err(Failure::usage(format!(
            "'{meta}' is not the address of a meta server: write it as HOST:PORT"
        )));
    }
    let unknown = |why: String| {
        Failure::new(
            Status::Unreachable,
            format!("cannot find the meta server {meta}: {why}"),
        )
        .help("name it with --meta HOST:PORT or KFS_META")
    };
    let mut addresses = tokio::net::lookup_host(meta)
        .await
        .map_err(|error| unknown(error.to_string()))?;
    addresses
        .next()
        .ok_or_else(|| unknown("the name has no address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn two_clusters_in_one_command_are_refused() {
        let path = |text: &str| RemotePath::parse(OsStr::new(text)).unwrap();
        let (a, b, bare) = (path("kfs://h:1/x"), path("kfs://h:2/x"), path("/x"));
        assert_eq!(one_meta(&[&bare, &a, &a]).unwrap().as_deref(), Some("h:1"));
        assert_eq!(one_meta(&[&bare]).unwrap(), None);
        assert!(one_meta(&[&a, &bare, &b]).is_err());
    }
}
