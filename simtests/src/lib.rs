//! The simulators of KFS. `world` runs the real machines under the real drivers on a simulated network, clock
//! and disk, from one seed, with the failures that hardware has; its oracles check what was promised.
//!
//! Start at [`world`](../simtests/world/index.html) for a run, [`disk`] for the fault model of disks,
//! [`oracle`] for what is checked. Everything that needs the simulated runtime is compiled under
//! `cfg(madsim)` only: `cargo sim …`.
#[cfg(madsim)]
pub mod bare;
pub mod disk;
pub mod draw;
pub mod fault;
pub mod keyed;
pub mod model;
pub mod observe;
pub mod oracle;
pub mod outcome;
#[cfg(madsim)]
pub mod planted;
pub mod replay;
#[cfg(madsim)]
pub mod run;
pub mod scenario;
#[cfg(madsim)]
pub mod sched;
pub mod schedule;
#[cfg(madsim)]
pub mod shrink;
#[cfg(madsim)]
pub mod sweep;
pub mod workload;
#[cfg(madsim)]
pub mod world;
