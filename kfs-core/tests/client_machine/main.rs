//! The client machine against scripted peers: given, input, outputs. Each test is named for its danger.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]
mod append;
mod cut;
mod garbage;
mod held;
mod meta;
mod read;
mod rechain;
mod rig;
mod write;
