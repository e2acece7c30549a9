//! The `kfs` command. All of it is in `cli`, which uses the library as anybody else would.
#[cfg(not(madsim))]
#[path = "../cli/mod.rs"]
mod cli;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    cli::run()
}

/// The command is for people; simulations drive the library.
#[cfg(madsim)]
fn main() {}
