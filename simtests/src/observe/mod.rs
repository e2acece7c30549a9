//! How a run is observed: what is kept of it, in which both simulators write and from which all oracles read.
pub mod client;
pub mod overseer;
pub mod record;
pub mod telling;
