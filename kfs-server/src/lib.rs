//! The servers of KFS: the core's machines with files, sockets and pages around them.
//!
//! [`MetaServer::start`] and [`ChunkServer::start`] put a server on a thread of its own; the daemons do
//! that once per process, a demo or a test as often as it likes. Nothing here decides what the file system
//! does: that is `kfs_core`. Read [`running`] first, then [`program`] for what makes a daemon of it.
//!
//! The simulation build has none of it: the simulator drives the machines over disks and processes of its own.
#![cfg(not(madsim))]
mod admin;
pub mod chunk;
pub mod compactor;
pub mod config;
pub mod disk;
pub mod error;
pub mod meta;
pub mod observed;
pub mod program;
mod recorded;
pub mod running;
pub mod telemetry;

pub use chunk::ChunkServer;
pub use config::{ChunkConfig, MetaConfig};
pub use error::StartError;
pub use meta::MetaServer;
pub use running::{Exit, Phase, Running, View};
