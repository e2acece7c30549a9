//! The chunkserver daemon.
use clap::Parser as _;
use kfs_server::config::ChunkFlags;
use kfs_server::{ChunkServer, program};
use std::process::ExitCode;

fn main() -> ExitCode {
    match ChunkFlags::parse().resolve() {
        Ok((config, logging)) => program::run(&logging, || ChunkServer::start(config)),
        Err(err) => program::fail(&err),
    }
}
