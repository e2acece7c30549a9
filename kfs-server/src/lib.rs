//! The KFS servers: what drives their machines on real hardware.
#[cfg(not(madsim))]
pub mod disk;
