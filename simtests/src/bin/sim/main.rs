//! `sim`: runs the simulators. Exit 0 only when no promise was broken and enough was done; 1 when one was;
//! 2 on wrong usage.
#![allow(clippy::print_stdout)] // A command speaks on its standard output.

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("sim: this build has no simulator in it; build and run it with 'cargo sim …'");
    std::process::ExitCode::from(2)
}

/// Prints a line. Nobody reads what is said when a pipe was closed: that ends the process.
#[cfg(madsim)]
macro_rules! say {
    () => {
        $crate::report::say(format_args!(""))
    };
    ($($text:tt)+) => {
        $crate::report::say(format_args!($($text)+))
    };
}

#[cfg(madsim)]
mod blocks;
#[cfg(madsim)]
mod crashes;
#[cfg(madsim)]
mod exhaustive;
#[cfg(madsim)]
mod failures;
#[cfg(madsim)]
mod mistakes;
#[cfg(madsim)]
mod options;
#[cfg(madsim)]
mod report;
#[cfg(madsim)]
mod runs;
#[cfg(madsim)]
mod scale;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    use clap::Parser as _;
    use options::{Options, What};
    let options = Options::parse();
    simtests::run::keep_panics();
    let shared = options.shared();
    match options.what {
        What::List => runs::list(shared),
        What::Run(run) => runs::run(run, shared),
        What::Sweep(sweep) => runs::sweep(sweep, shared),
        What::Twice { scenario, seed } => runs::twice(scenario, seed, shared),
        What::Planted(hunt) => mistakes::planted(hunt, shared),
        What::CrashEverywhere(everywhere) => crashes::everywhere(everywhere, shared),
        What::FaultsSweep(faults) => blocks::sweep(faults, shared),
        What::Exhaustive(args) => exhaustive::exhaustive(args, shared),
        What::Scale(args) => scale::scale(args, shared),
        What::Shrink(shrink) => failures::shrink(shrink, shared),
        What::Draw(draw) => failures::draw(draw, shared),
        What::Replay { file } => runs::replay(&file, shared),
    }
}
