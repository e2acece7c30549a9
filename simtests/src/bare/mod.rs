//! The bare simulator: core machines only, on one heap of timed inputs, with no runtime and no drivers.
//!
//! For volume: it runs tens of times as many events a second as the world, and a whole cluster in the middle of
//! a run is a value that can be copied, so that a crash can be tried at *every* point of it ([`everywhere`]), a
//! damage on every block ([`blocks`]), and every short sequence of operations ([`exhaustive`]).
//! What it cannot see is what only drivers do: framing, cancellation, back-pressure of tasks.
//!
//! Read [`sim`] first (the heap and the nodes), then [`net`] and [`disk`] (what the drivers stand for here),
//! then [`run`]. [`scale`] runs a thousand servers on the disks that [`written`] makes.
pub mod actor;
pub mod backup;
pub mod beside;
pub mod blocks;
pub mod disk;
pub mod everywhere;
pub mod exhaustive;
pub mod net;
pub mod process;
pub mod run;
pub mod scale;
pub mod sim;
mod strike;
pub mod written;
