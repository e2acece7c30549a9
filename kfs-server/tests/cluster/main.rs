//! Clusters of real processes on loopback: what is stored stays, what is damaged is told, what is wrong is refused.
//!
//! Nothing here sleeps to wait for something: conditions are polled with a deadline ([`wait`]).
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod appended;
mod chunk_file;
mod cluster;
mod compacted;
mod copies;
mod cut_off;
mod daemon;
mod damage;
mod disks;
mod embedded;
mod frozen;
mod garbage;
mod killed;
mod mirrored;
mod overs;
mod pages;
mod recorded;
mod refused;
mod removed;
mod wait;
mod written;
