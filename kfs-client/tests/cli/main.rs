//! The `kfs` command as its users meet it: a process, its output, its exit code.
//!
//! Each test has a cluster of its own, inside the test's process, over real files; see [`cluster`].
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "ids and made-up bytes"
)]
mod append;
mod backup;
mod bad_input;
mod bench;
mod cluster;
mod copied;
mod demo;
mod drain;
mod ends;
mod explained;
mod found;
mod fsck;
mod interrupted;
mod local;
#[cfg(feature = "mount")]
mod mount;
mod offline;
mod transfer;
mod truncate;
mod verbs;
