//! What is asked of the command.
use clap::{Args, Parser, Subcommand};
use kfs_core::planted::Bug;
use simtests::bare::blocks::Case;
use simtests::run::Kind;
use std::ops::Range;
use std::path::PathBuf;

/// KFS in simulation: the real machines and drivers, with faults that replay from a seed.
#[derive(Parser, Debug)]
#[command(name = "sim", version)]
pub(super) struct Options {
    /// One JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Threads for many runs; 0: as many as there are processors.
    #[arg(long, global = true, default_value_t = 0)]
    jobs: usize,
    #[command(subcommand)]
    pub(super) what: What,
}

/// What holds for every subcommand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    pub(super) json: bool,
    pub(super) jobs: usize,
}

impl Options {
    pub(super) fn shared(&self) -> Shared {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Shared {
            json: self.json,
            jobs: if self.jobs == 0 {
                processors
            } else {
                self.jobs
            },
        }
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum What {
    /// The scenarios and the mistakes that can be planted.
    List,
    /// One run.
    Run(RunArgs),
    /// Many runs.
    Sweep(SweepArgs),
    /// The same run in two processes: every event must be the same.
    Twice {
        #[arg(value_parser = kind)]
        scenario: Kind,
        #[arg(long)]
        seed: u64,
    },
    /// Plants each mistake and looks how soon it is seen, and by whom.
    Planted(PlantedArgs),
    /// A crash after every disk operation and message of a scenario, and a second one at every disk operation of
    /// the recovery.
    CrashEverywhere(EverywhereArgs),
    /// Damages each block of each file on disk, one at a time, in four ways, while its server runs and while it is
    /// down; after each, everything that was acked is read back.
    FaultsSweep(FaultsArgs),
    /// Every short sequence of operations on two directories and two files, with a crash at every disk operation
    /// of the last one.
    Exhaustive(ExhaustiveArgs),
    /// Many servers with many chunks come up, say hello, and do so again after a power loss of everything.
    Scale(ScaleArgs),
    /// Makes a failing run smaller; writes a .sched file to run again and a test to paste.
    Shrink(ShrinkArgs),
    /// Draws a run of a .sched file, or of a scenario and a seed, as one page.
    Draw(DrawArgs),
    /// What a real server recorded with --record: the same machine must do the same again.
    Replay { file: PathBuf },
}

/// A scenario and a seed, or a file that has a whole run in it.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// Such as `bare:files`, or a .sched file.
    pub(super) what: String,
    /// Of a scenario: which of its runs.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Plants this mistake.
    #[arg(long, value_parser = bug)]
    pub(super) planted: Option<Bug>,
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Writes every event of every machine there.
    #[arg(long)]
    pub(super) trace: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct SweepArgs {
    /// Such as `world:files`, or `bare` for all of one simulator, or `bare:drawn` for those that are no stories;
    /// everything, if it is left out.
    pub(super) scenario: Option<String>,
    /// `A..B`, B exclusive.
    #[arg(long, value_parser = seeds)]
    pub(super) seeds: Range<u64>,
    /// Begins no run after so many minutes.
    #[arg(long)]
    pub(super) minutes: Option<u64>,
    /// Plants this mistake.
    #[arg(long, value_parser = bug)]
    pub(super) planted: Option<Bug>,
}

#[derive(Args, Debug)]
pub(super) struct PlantedArgs {
    /// Only this one.
    #[arg(value_parser = bug)]
    pub(super) bug: Option<Bug>,
    /// Runs of each scenario until a mistake counts as not seen.
    #[arg(long, default_value_t = 200)]
    pub(super) most: u64,
}

#[derive(Args, Debug)]
pub(super) struct EverywhereArgs {
    /// Such as `write`; all that can be crashed everywhere, if it is left out.
    pub(super) scenario: Option<String>,
    /// When exactly things happen.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Only the crash after this point.
    #[arg(long)]
    pub(super) point: Option<u64>,
    /// No second crash.
    #[arg(long)]
    pub(super) once: bool,
    /// Images of a disk that are tried per point and policy, at most.
    #[arg(long, default_value_t = 12)]
    pub(super) images: usize,
    /// Begins no point after so many minutes, in each scenario.
    #[arg(long)]
    pub(super) minutes: Option<u64>,
    /// Plants this mistake.
    #[arg(long, value_parser = bug)]
    pub(super) planted: Option<Bug>,
}

#[derive(Args, Debug)]
pub(super) struct ExhaustiveArgs {
    /// Operations of a sequence, at most.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4))]
    pub(super) depth: u32,
    /// Only every so-manieth sequence.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) every: u64,
    /// Only the sequence of this number.
    #[arg(long)]
    pub(super) only: Option<u64>,
    /// When exactly things happen.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Plants this mistake.
    #[arg(long, value_parser = bug)]
    pub(super) planted: Option<Bug>,
}

#[derive(Args, Debug)]
pub(super) struct FaultsArgs {
    /// Such as `write`, or `bare:files`, whose faults are left out; all that tell a story, if it is left out.
    pub(super) scenario: Option<String>,
    /// When exactly things happen; of a drawn scenario, which of its runs.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Only every so-manieth block.
    #[arg(long, default_value_t = 1)]
    pub(super) every: u64,
    /// Bytes of a block on every disk; if it is left out, 4096 on the meta server's and a block of data on others.
    #[arg(long)]
    pub(super) block: Option<u64>,
    /// Only this one, as a sweep printed it: SERVER:FILE:OFFSET+LENGTH:DAMAGE:HOW.
    #[arg(long)]
    pub(super) only: Option<Case>,
    /// Begins no block after so many minutes, in each scenario.
    #[arg(long)]
    pub(super) minutes: Option<u64>,
    /// Plants this mistake.
    #[arg(long, value_parser = bug)]
    pub(super) planted: Option<Bug>,
}

#[derive(Args, Debug)]
pub(super) struct ScaleArgs {
    /// Chunkservers.
    #[arg(long, default_value_t = 1_000)]
    pub(super) servers: u64,
    /// Replicas of each of them.
    #[arg(long, default_value_t = 1_000)]
    pub(super) chunks: u64,
    /// Replicas of each chunk.
    #[arg(long, default_value_t = 3)]
    pub(super) replication: u8,
    /// Chunks of each file.
    #[arg(long, default_value_t = 1)]
    pub(super) file_chunks: u64,
    /// When exactly things happen.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

#[derive(Args, Debug)]
pub(super) struct ShrinkArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Where the files go.
    #[arg(long, default_value = ".")]
    pub(super) out: PathBuf,
    /// Ends after so many minutes with what there is then.
    #[arg(long, default_value_t = 5)]
    pub(super) minutes: u64,
}

#[derive(Args, Debug)]
pub(super) struct DrawArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Where the page goes; beside the file, or here, if it is left out.
    #[arg(long)]
    pub(super) out: Option<PathBuf>,
}

pub(super) fn kind(name: &str) -> Result<Kind, String> {
    Kind::named(name).ok_or_else(|| format!("no scenario '{name}'; see 'sim list'"))
}
fn bug(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    found.ok_or_else(|| "no such mistake; see 'sim list'".into())
}
fn seeds(range: &str) -> Result<Range<u64>, String> {
    let (from, to) = range.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|why| why.to_string());
    let range = number(from)?..number(to)?;
    if range.is_empty() {
        return Err("the range is empty: its end is exclusive".into());
    }
    Ok(range)
}
