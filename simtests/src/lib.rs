//! The simulators of KFS. `world` runs the real machines under the real drivers on a simulated network, clock
//! and disk, from one seed, with the failures that hardware has; its oracles check what was promised.
//!
//! Start at [`world`](../simtests/world/index.html) for a run, [`disk`] for the fault model of disks,
//! [`oracle`] for what is checked. Everything that needs the simulated runtime is compiled under
//! `cfg(madsim)` only: `cargo sim …`.
pub mod disk;
pub mod fault;
pub mod keyed;
pub mod model;
pub mod oracle;
#[cfg(madsim)]
pub mod planted;
pub mod replay;
pub mod workload;
#[cfg(madsim)]
pub mod world;
