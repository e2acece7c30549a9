//! The KFS client library: files of a cluster, from any async Rust program.
//!
//! [`Kfs::connect`] gives a client; it knows the meta server's address and finds everything else from there.
//! Every call is retried until it has an outcome or its time is up: a change is done exactly once however
//! often its messages are lost, and a read falls over to another replica when a server is gone or a copy is
//! damaged. Every byte read was verified against the sums made when it was written.
//!
//! ```no_run
//! use bytes::Bytes;
//! use kfs_client::{CreateOptions, Kfs, Options, Ownership, Parents, RenameMode};
//!
//! # async fn example() -> kfs_client::Result<()> {
//! let kfs = Kfs::connect(Options::new("127.0.0.1:20000".parse().expect("an address")));
//! let owner = Ownership { uid: 1000, gid: 1000, mode: 0o755 };
//! kfs.mkdir(b"/reports/2026", Parents::Make, owner).await?;
//!
//! // Written under a temporary name, and renamed when it is whole and durable: nobody sees half a file.
//! let mut writer = kfs.create(b"/reports/2026/.may.tmp", CreateOptions::default()).await?;
//! writer.write(Bytes::from_static(b"all is well\n")).await?;
//! writer.close().await?;
//! kfs.rename(b"/reports/2026/.may.tmp", b"/reports/2026/may", RenameMode::Replace).await?;
//!
//! let reader = kfs.open(b"/reports/2026/may").await?;
//! let mut stream = reader.stream(0, reader.attrs().size);
//! while let Some(bytes) = stream.next().await {
//!     for part in bytes?.parts {
//!         println!("{}", String::from_utf8_lossy(&part));
//!     }
//! }
//!
//! let mut reports = kfs.list(b"/reports/2026");
//! while let Some(entry) = reports.next().await {
//!     let entry = entry?;
//!     println!("{} {}", String::from_utf8_lossy(&entry.name), entry.attrs.size);
//! }
//! kfs.disconnect().await;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod by_id;
mod connect;
mod dir;
mod error;
mod file;
#[cfg(all(feature = "mount", not(madsim)))]
pub mod mount;
mod replica;
mod usage;

pub use by_id::{by_id, in_directory};
pub use connect::{CreateOptions, Kfs, Options};
pub use dir::Directory;
pub use error::{Error, Result};
pub use file::{Chunked, ReadStream, Reader, Writer};
pub use kfs_core::limits::Limits;
pub use kfs_core::wire::Status;
pub use kfs_core::wire::client_meta::{
    At, Attributes, Attrs, ClusterStatus, Entry, Keep, Kind, Ownership, Parents, RenameMode,
    ServerState, ServerStatus, TimeOf, Usage,
};
pub use usage::{UsageOf, UsageScan};
