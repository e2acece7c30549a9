//! The meta server daemon.
use clap::Parser as _;
use kfs_server::config::MetaFlags;
use kfs_server::{MetaServer, program};
use std::process::ExitCode;

fn main() -> ExitCode {
    match MetaFlags::parse().resolve() {
        Ok((config, logging)) => program::run(&logging, || MetaServer::start(config)),
        Err(err) => program::fail(&err),
    }
}
