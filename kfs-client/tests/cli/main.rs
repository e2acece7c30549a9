//! The `kfs` command as its users meet it: a process, its output, its exit code.
//!
//! Each test has a cluster of its own, inside the test's process, over real files; see [`cluster`].
mod bad_input;
mod bench;
mod cluster;
mod demo;
mod interrupted;
mod local;
mod transfer;
mod verbs;
