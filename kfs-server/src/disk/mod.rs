//! Data directories on real disks. The trait they implement, and what it promises, is in `kfs_drive`.
mod files;

pub use files::{Files, OpenError};
