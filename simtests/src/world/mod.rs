//! The world: the real machines under the real drivers and the real client library, on a simulated network,
//! clock and disk.
//!
//! [`run`] makes one run from a scenario and a seed. Read [`cluster`] for what is started and how it fails,
//! [`wire`] for what connections suffer, [`tap`] for how a run is observed, [`crate::observe::record`] for what is
//! kept of it.
pub mod cluster;
pub mod run;
pub mod shared;
mod strike;

pub mod tap;
pub mod wire;
