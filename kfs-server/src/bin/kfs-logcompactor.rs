//! The off-line log compactor.
use clap::Parser as _;
use kfs_server::config::CompactorFlags;
use kfs_server::{compactor, program};
use std::process::ExitCode;

fn main() -> ExitCode {
    match compactor::run(&CompactorFlags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => program::fail(&err),
    }
}
