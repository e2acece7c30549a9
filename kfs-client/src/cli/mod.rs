//! The `kfs` command: its arguments, and which verb does what.
//!
//! Read [`reach`] next (the cluster a command talks to), then the verb you came for. Nothing here knows the
//! protocol: the command uses the library as anybody else would.
mod admin;
mod attributes;
mod bench;
mod checkpoint;
mod checksum;
mod codes;
#[cfg(feature = "embedded")]
mod config;
mod copy;
#[cfg(feature = "embedded")]
mod demo;
mod doctor;
mod drain;
mod drawing;
#[cfg(feature = "embedded")]
mod embedded;
mod ends;
mod explain;
mod failure;
mod find;
mod fsck;
mod glob;
mod list;
mod man;
#[cfg(feature = "mount")]
mod mount;
mod offline;
mod path;
mod pieces;
mod reach;
mod room;
mod screen;
mod servers;
mod signals;
mod status;
mod table;
mod transfer;
mod tree;
mod units;
mod usage;
mod walk;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use explain::{Explain, Subject};
use failure::{Exit, Failure};
use kfs_core::ids::LogSeq;
use kfs_core::wire::client_meta::{Parents, RenameMode};
use list::Look;
use offline::history::Shows;
use path::RemotePath;
use reach::Reach;
use screen::{Chatter, Form, Screen};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const AFTER_HELP: &str = "\
Paths are /a/b or kfs://HOST:PORT/a/b.

Exit codes: 0 done, 1 the operation failed, 2 bad usage, 3 not found, 4 exists, 5 not reachable or timed out, \
6 corrupt or lost data, 7 refused (permission, full, read-only).";

/// A file system that keeps each file on several machines.
#[derive(Parser, Debug)]
#[command(name = "kfs", version, after_help = AFTER_HELP, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Where the meta server listens [env: KFS_META] [default: 127.0.0.1:20000]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    meta: Option<String>,
    /// Run on an embedded cluster (a meta server and three chunkservers) whose data is kept in DIR
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "meta")]
    local: Option<PathBuf>,
    /// How long an operation may take in all, with its retries
    #[arg(long, global = true, value_name = "TIME", default_value = "60s", env = "KFS_TIMEOUT", value_parser = units::parse_span)]
    timeout: Duration,
    /// Print results, and errors, as lines of JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print results only: no remarks, no progress
    #[arg(short, long, global = true)]
    quiet: bool,
    /// What is logged to standard error, as in 'info' or 'kfs_core=debug'
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "error",
        env = "RUST_LOG"
    )]
    log: String,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List directories, one name a line when not on a terminal
    Ls {
        /// With kind, mode, replicas, owner, size and time
        #[arg(short)]
        long: bool,
        /// Directories below as well
        #[arg(short = 'R')]
        recursive: bool,
        #[arg(value_name = "PATH", value_parser = remote(), default_value = "/")]
        paths: Vec<RemotePath>,
    },
    /// Show the attributes of files and directories
    Stat {
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Show directories and what is in them, drawn as a tree
    Tree(drawing::Tree),
    /// Find what below some paths has a name, a kind or a size
    ///
    /// Each is a line, as it is come by. What is made or removed meanwhile is found or not; what is there throughout is
    /// found once.
    Find(find::Find),
    /// Show what trees take: bytes of the files, directory by directory, what is in one before itself
    ///
    /// All numbers of a tree are of one instant, which is said at its end, and nothing waits for them. With --json also
    /// files, directories, chunks, and what the replicas take.
    #[command(disable_help_flag = true)]
    Du {
        /// Only what is asked for, with all below it
        #[arg(short, long, conflicts_with = "max_depth")]
        summarize: bool,
        /// Sizes in the unit that fits, as in 1.5 GiB
        #[arg(short, long)]
        human_readable: bool,
        /// Only directories so far below what is asked for; what is in others is counted
        #[arg(long, value_name = "N")]
        max_depth: Option<u32>,
        #[arg(value_name = "PATH", value_parser = remote(), default_value = "/")]
        paths: Vec<RemotePath>,
        /// Print help: here '-h' says how sizes are shown, as in 'du -sh'
        #[arg(long, action = clap::ArgAction::Help)]
        help: Option<bool>,
    },
    /// Check that files are whole: that every chunk can be read, and from as many servers as it should be
    ///
    /// Exits with 0 if nothing is lost, also while copies are still being made, and with 6 if a file cannot be read or
    /// does not match its sums. Each chunk that is not as it should be is a line.
    Fsck {
        /// Read every replica of all files, too, and compare it with its sums
        #[arg(long)]
        verify_data: bool,
        #[arg(value_name = "PATH", value_parser = remote(), default_value = "/")]
        paths: Vec<RemotePath>,
    },
    /// Write a file to standard output
    Cat {
        #[arg(value_name = "PATH", value_parser = remote())]
        path: RemotePath,
        /// Begin at this byte
        #[arg(long, value_name = "BYTES", default_value = "0", value_parser = units::parse_size)]
        offset: u64,
        /// At most so many bytes
        #[arg(long, value_name = "BYTES", value_parser = units::parse_size)]
        length: Option<u64>,
    },
    /// Write the beginning of files to standard output
    Head(ends::Head),
    /// Write the end of files to standard output
    Tail(ends::Tail),
    /// Show the SHA-256 of what is in files, in lines that 'sha256sum -c' can check
    ///
    /// It is made here, of bytes that were compared with the cluster's own sums on their way.
    Checksum {
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Store a local file or directory, or standard input
    ///
    /// It appears under its name when all of it is on disk on every replica, and not before.
    Put {
        /// What to store; '-' is standard input
        #[arg(value_name = "LOCAL")]
        from: PathBuf,
        /// Its new name; if this is a directory, it is stored in it under its own name
        #[arg(value_name = "PATH", value_parser = remote())]
        path: RemotePath,
        /// Replace a file that is there, atomically
        #[arg(long)]
        force: bool,
        /// Only say what would be stored, and what replaced
        #[arg(long)]
        dry_run: bool,
        /// Replicas of each chunk; the cluster's default if not given
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(kfs_core::limits::REPLICATION_MAX)))]
        replication: Option<u8>,
    },
    /// Add a local file, or standard input, to the end of a file that is there
    ///
    /// Done when all of it is on disk on every replica. If it fails in the middle, a part of it may have been added:
    /// what is there then is the beginning of it.
    Append {
        /// What to add; '-' is standard input
        #[arg(value_name = "LOCAL")]
        from: PathBuf,
        /// The file that is added to; another client that writes it is waited for
        #[arg(value_name = "PATH", value_parser = remote())]
        path: RemotePath,
    },
    /// Fetch a file or directory, or write a file to standard output
    ///
    /// It appears under its name when all of it is on disk, and not before.
    Get {
        #[arg(value_name = "PATH", value_parser = remote())]
        path: RemotePath,
        /// Its new name, or a directory to store it in under its own name; '-' is standard output
        #[arg(value_name = "LOCAL")]
        to: PathBuf,
        /// Replace a file that is there, atomically
        #[arg(long)]
        force: bool,
        /// Only say what would be fetched, and what replaced
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy a file or directory inside the cluster
    ///
    /// The copy appears under its name when all of it is on disk on every replica, and not before.
    Cp(copy::Cp),
    /// Set the time of files and directories to now, and make empty files of what is not there
    Touch(attributes::Touch),
    /// Change the permissions of files and directories
    Chmod(attributes::Chmod),
    /// Change the owner and the group of files and directories
    Chown(attributes::Chown),
    /// Remove files
    Rm {
        /// Directories with everything in them as well
        #[arg(short)]
        recursive: bool,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Make directories
    Mkdir {
        /// Missing parents as well; a directory that is there is no error
        #[arg(short)]
        parents: bool,
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Remove empty directories
    Rmdir {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Rename, replacing a file that is there; into TO, if it is a directory
    Mv {
        /// Never replace
        #[arg(short)]
        no_replace: bool,
        /// Only say what would be renamed, and what replaced
        #[arg(long)]
        dry_run: bool,
        #[arg(value_name = "FROM", value_parser = remote())]
        from: RemotePath,
        #[arg(value_name = "TO", value_parser = remote())]
        to: RemotePath,
    },
    /// Change how many replicas files ask for: copies are made, or go, in the background
    ///
    /// 'kfs status' and 'kfs fsck' tell what is still missing.
    Setrep {
        /// Of all files below directories as well
        #[arg(short = 'R')]
        recursive: bool,
        /// Replicas of each chunk
        #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(kfs_core::limits::REPLICATION_MAX)))]
        replication: u8,
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Cut files, or make them longer: what is added reads as zeros
    ///
    /// The files must be there; who has one open to read sees its new length when it opens it again.
    Truncate {
        /// Their new length: 4096, 64KiB, 1.5GiB
        #[arg(short, long, value_parser = units::parse_size)]
        size: u64,
        #[arg(value_name = "PATH", value_parser = remote(), required = true)]
        paths: Vec<RemotePath>,
    },
    /// Show the state of the cluster on one screen
    Status,
    /// Show the chunkservers: where they are, how they are, what they have, and when they were last heard of
    Servers,
    /// Show the room in the cluster, server by server, and how much more can be stored in it
    #[command(disable_help_flag = true)]
    Df(room::Df),
    /// Explain a code of an error or of the status; or a file: where its chunks are, how they are, and what comes next
    Explain(Explain),
    /// Look for what on this machine keeps a server or a client from working, and say what to do about it
    ///
    /// Looks at checksums, clocks, limits, ports, the meta server, and the disks that are named. Each is a line: ok,
    /// warn, or FAIL with exit code 1.
    Doctor(doctor::Doctor),
    /// Settings of the daemons
    #[cfg(feature = "embedded")]
    #[command(subcommand)]
    Config(config::Config),
    /// Have a chunkserver give away what it has, so that it may be stopped for good
    ///
    /// It gets nothing new from now on. Each chunk that it has is copied to another server, and only then taken off it;
    /// what is being written waits until it is closed. 'kfs status' shows what is left, and says when the server may be
    /// stopped. Refused if too few others are up.
    Drain {
        /// It is to keep what it still has, and gets chunks and copies again
        #[arg(long)]
        undo: bool,
        /// Its address or its node id, as 'kfs status' shows it
        #[arg(value_name = "SERVER")]
        server: String,
    },
    /// Make the cluster a directory of this machine, until it is unmounted or a signal comes
    ///
    /// What a program has written is on disk on every replica when it has closed the file, and every later opening sees
    /// it, here and elsewhere. SIGINT and SIGTERM sync what is open and unmount.
    #[cfg(feature = "mount")]
    Mount(mount::Asked),
    /// Unmount what 'kfs mount' has mounted, also if its process is gone
    #[cfg(feature = "mount")]
    Umount(mount::Umount),
    /// Make a checkpoint of the namespace now: a start reads it, and only the log behind it
    Checkpoint,
    /// What only an operator may decide
    #[command(subcommand)]
    Admin(AdminVerb),
    /// Read a data directory of a stopped server, or a copy of one, and say what in it is damaged
    Verify {
        /// Of a meta server or a chunkserver
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Damaged also if the log of the meta server ends before this record
        #[arg(long, value_name = "RECORD")]
        reaches: Option<u64>,
    },
    /// Copy the data directory of a meta server, which may be serving meanwhile
    ///
    /// The copy is what a loss of power could have left: whole by itself, with all that was acknowledged when the
    /// copy began. Files that do not change any more are hard links where that can be. Made for scripts/backup.
    Snapshot {
        /// Of a meta server
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Where the copy goes: missing, or empty
        #[arg(value_name = "NEW_DIR")]
        to: PathBuf,
    },
    /// Read the log of a meta server
    #[command(subcommand)]
    Log(LogVerb),
    /// Show what stood at a path once a record of the log was applied, from a data directory
    At {
        /// A number of the log, as 'kfs log cat' and 'kfs log blame' print them
        #[arg(value_name = "RECORD")]
        record: u64,
        #[command(subcommand)]
        verb: AtVerb,
    },
    /// Show on an embedded cluster what this is: store a file, kill a server, read the file back
    #[cfg(feature = "embedded")]
    Demo(demo::Demo),
    /// Measure, beside what a plain program does on the same machine
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print a script that completes commands in a shell
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print a manual page, as for 'kfs man put | man -l -', or write them all
    Man(man::Pages),
    /// A process of a benchmark, started by it
    #[command(hide = true, subcommand)]
    BenchPart(bench::Part),
}

impl Verb {
    /// The paths that name the cluster that is meant, if one does.
    fn paths(&self) -> Vec<&RemotePath> {
        match self {
            Self::Ls { paths, .. }
            | Self::Stat { paths }
            | Self::Tree(drawing::Tree { paths, .. })
            | Self::Find(find::Find { paths, .. })
            | Self::Du { paths, .. }
            | Self::Fsck { paths, .. }
            | Self::Head(ends::Head { paths, .. })
            | Self::Tail(ends::Tail { paths, .. })
            | Self::Checksum { paths }
            | Self::Touch(attributes::Touch { paths, .. })
            | Self::Chmod(attributes::Chmod { paths, .. })
            | Self::Chown(attributes::Chown { paths, .. })
            | Self::Rm { paths, .. }
            | Self::Mkdir { paths, .. }
            | Self::Setrep { paths, .. }
            | Self::Truncate { paths, .. }
            | Self::Rmdir { paths, .. } => paths.iter().collect(),
            Self::Cat { path, .. }
            | Self::Put { path, .. }
            | Self::Append { path, .. }
            | Self::Get { path, .. } => vec![path],
            Self::Explain(Explain { of, .. }) => match of {
                Some(Subject::Path(path)) => vec![path],
                Some(Subject::Code(_)) | None => vec![],
            },
            Self::Mv { from, to, .. } | Self::Cp(copy::Cp { from, to, .. }) => vec![from, to],
            Self::Status
            | Self::Servers
            | Self::Df(_)
            | Self::Doctor(_)
            | Self::Drain { .. }
            | Self::Checkpoint
            | Self::Admin(_)
            | Self::Verify { .. }
            | Self::Snapshot { .. }
            | Self::Log(_)
            | Self::At { .. }
            | Self::Bench(_)
            | Self::Completions { .. }
            | Self::Man(_)
            | Self::BenchPart(_) => vec![],
            #[cfg(feature = "mount")]
            Self::Mount(_) | Self::Umount(_) => vec![],
            #[cfg(feature = "embedded")]
            Self::Demo(_) | Self::Config(_) => vec![],
        }
    }
}

#[derive(Subcommand, Debug)]
enum AdminVerb {
    /// Give up what was acknowledged in a part of the log that is missing, so that changes are taken again
    ///
    /// A meta server refuses changes (LOG_TAIL_LOST in 'kfs status') when a chunkserver has seen more of its log than
    /// it has: it was restored from an old backup, or its disk was set back. If there is a newer backup, restore that
    /// one instead.
    AcceptRollback {
        /// Only say whether there is something to give up, and what is known of it
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand, Debug)]
enum LogVerb {
    /// Print the records in a data directory, oldest first
    Cat {
        /// Of a meta server
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print the records that made what stands, or stood, at a path
    Blame {
        #[arg(value_name = "PATH", value_parser = remote())]
        path: RemotePath,
        #[command(flatten)]
        of: OfData,
    },
}

#[derive(Subcommand, Debug)]
enum AtVerb {
    /// List a directory, one name a line
    Ls {
        /// With kind, mode, replicas, owner, size and time
        #[arg(short)]
        long: bool,
        #[arg(value_name = "PATH", value_parser = remote(), default_value = "/")]
        path: RemotePath,
        #[command(flatten)]
        of: OfData,
    },
    /// Show the attributes of a file or directory
    Stat {
        #[arg(value_name = "PATH", value_parser = remote())]
        path: RemotePath,
        #[command(flatten)]
        of: OfData,
    },
}

/// Whose past is looked at.
#[derive(Args, Debug)]
struct OfData {
    /// The data directory of a stopped meta server, or a copy of one
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

fn remote() -> impl TypedValueParser<Value = RemotePath> {
    OsStringValueParser::new().try_map(|argument: OsString| RemotePath::parse(&argument))
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let common = &arguments.common;
    let form = if common.json { Form::Json } else { Form::Text };
    let chatter = if common.quiet {
        Chatter::Quiet
    } else {
        Chatter::Shown
    };
    let screen = Screen::new(form, chatter);
    let outcome = log_to_stderr(&common.log).and_then(|()| act(arguments.verb, common, &screen));
    let outcome = outcome.and_then(|exit| screen.flush().map(|()| exit));
    let exit = outcome.unwrap_or_else(|failure| {
        // What was done before the failure is said before it.
        let _ = screen.flush();
        screen.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// Help and version are answers; anything else is a command line that makes no sense.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    if std::env::args_os().any(|argument| argument == "--json") {
        let line = text.split("\n\n").next().unwrap_or(text).replace('\n', " ");
        let _ = io::stderr().write_all(Failure::usage(line).json().as_bytes());
    } else {
        let _ = write!(
            io::stderr(),
            "error[{}]: {text}",
            kfs_core::wire::Status::BadRequest.code()
        );
    }
    ExitCode::from(Exit::Usage as u8)
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("'{filter}' is not a log filter: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    Ok(())
}

fn act(verb: Verb, common: &Common, screen: &Screen) -> Result<Exit, Failure> {
    match verb {
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "kfs", &mut script);
            io::stdout()
                .write_all(&script)
                .map_err(|error| Failure::stdout(&error))?;
            Ok(Exit::Done)
        }
        Verb::Verify { dir, reaches } => {
            no_cluster("verify", common)?;
            offline::verify::verify(&dir, reaches.map(LogSeq), screen)
        }
        Verb::Snapshot { dir, to } => {
            no_cluster("snapshot", common)?;
            offline::snapshot::snapshot(&dir, &to, screen)
        }
        Verb::Log(LogVerb::Cat { dir }) => {
            no_cluster("log cat", common)?;
            offline::log::cat(&dir, screen)
        }
        Verb::Log(LogVerb::Blame { path, of }) => {
            no_cluster("log blame", common)?;
            of_no_cluster("log blame", &path)?;
            offline::history::blame(&of.data, &path, screen)
        }
        Verb::At { record, verb } => {
            no_cluster("at", common)?;
            let (path, of, shows) = match verb {
                AtVerb::Ls { long, path, of } => {
                    let look = if long { Look::Long } else { Look::Names };
                    (path, of, Shows::Entries(look))
                }
                AtVerb::Stat { path, of } => (path, of, Shows::Attributes),
            };
            of_no_cluster("at", &path)?;
            offline::history::look(&of.data, LogSeq(record), &path, shows, screen)
        }
        Verb::Explain(Explain {
            of: Some(Subject::Code(code)),
            ..
        }) => explain::code(screen, Some(code)),
        Verb::Explain(Explain { of: None, .. }) => explain::code(screen, None),
        Verb::Man(asked) => man::man(screen, &asked),
        Verb::Doctor(asked) => runtime()?.block_on(doctor::doctor(common, screen, &asked)),
        #[cfg(feature = "embedded")]
        Verb::Config(config::Config::Show(asked)) => {
            no_cluster("config show", common)?;
            config::show(screen, asked)
        }
        Verb::BenchPart(part) => bench::part(part, common),
        Verb::Bench(asked) => {
            own_cluster("bench", common)?;
            bench::run(&asked, screen)
        }
        #[cfg(feature = "embedded")]
        Verb::Demo(asked) => {
            own_cluster("demo", common)?;
            runtime()?.block_on(demo::run(&asked, common.timeout, screen))
        }
        #[cfg(feature = "mount")]
        Verb::Mount(asked) => mount::mount(common, screen, &asked),
        #[cfg(feature = "mount")]
        Verb::Umount(asked) => {
            no_cluster("umount", common)?;
            mount::umount(screen, &asked)
        }
        verb => runtime()?.block_on(on_cluster(verb, common, screen)),
    }
}

/// Refuses to name a cluster to a verb that asks none.
fn no_cluster(verb: &str, common: &Common) -> Result<(), Failure> {
    if common.meta.is_some() || common.local.is_some() {
        return Err(Failure::usage(format!(
            "'kfs {verb}' asks no cluster: --meta and --local say nothing to it"
        )));
    }
    Ok(())
}

/// Refuses a path in a cluster that is not asked.
fn of_no_cluster(verb: &str, path: &RemotePath) -> Result<(), Failure> {
    if path.meta.is_some() {
        return Err(Failure::usage(format!(
            "'kfs {verb}' reads a data directory: a path with kfs://HOST:PORT says nothing to it"
        )));
    }
    Ok(())
}

/// Refuses to name a cluster to a verb that starts its own.
fn own_cluster(verb: &str, common: &Common) -> Result<(), Failure> {
    if common.meta.is_some() || common.local.is_some() {
        return Err(Failure::usage(format!(
            "'kfs {verb}' starts a cluster of its own: --meta and --local say nothing to it"
        ))
        .help("its --dir says where that cluster keeps its data"));
    }
    Ok(())
}

/// One thread: a command is one client, and what it shares with other threads it would pay for.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    runtime_of(tokio::runtime::Builder::new_current_thread)
}

fn runtime_of(
    builder: fn() -> tokio::runtime::Builder,
) -> Result<tokio::runtime::Runtime, Failure> {
    builder()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("cannot start", &error))
}

async fn on_cluster(verb: Verb, common: &Common, screen: &Screen) -> Result<Exit, Failure> {
    let named = verb.paths();
    if let Verb::Put { from, .. } | Verb::Append { from, .. } = &verb {
        // Told before servers are started or asked.
        transfer::check_source(from)?;
    }
    let mut signals = signals::Signals::new()?;
    let reach = tokio::select! {
        biased;
        () = signals.raised() => return Err(Failure::interrupted()),
        reach = Reach::new(&named, common, screen) => reach?,
    };
    let outcome = tokio::select! {
        biased;
        () = signals.raised() => Err(Failure::interrupted()),
        outcome = on_reach(verb, &reach, screen) => outcome,
    };
    signals.exit_on_the_next();
    reach.leave().await;
    outcome
}

async fn on_reach(verb: Verb, reach: &Reach, screen: &Screen) -> Result<Exit, Failure> {
    match verb {
        Verb::Ls {
            long,
            recursive,
            paths,
        } => {
            let look = if long { Look::Long } else { Look::Names };
            let depth = if recursive {
                list::Depth::Tree
            } else {
                list::Depth::Directory
            };
            list::ls(reach, screen, &paths, look, depth).await
        }
        Verb::Stat { paths } => list::stat(reach, screen, &paths).await,
        Verb::Tree(asked) => drawing::tree(reach, screen, &asked).await,
        Verb::Find(asked) => find::find(reach, screen, &asked).await,
        Verb::Head(asked) => ends::head(reach, screen, &asked).await,
        Verb::Tail(asked) => ends::tail(reach, screen, &asked).await,
        Verb::Checksum { paths } => checksum::checksum(reach, screen, &paths).await,
        Verb::Cp(asked) => copy::cp(reach, screen, &asked).await,
        Verb::Touch(asked) => attributes::touch(reach, screen, &asked).await,
        Verb::Chmod(asked) => attributes::chmod(reach, screen, &asked).await,
        Verb::Chown(asked) => attributes::chown(reach, screen, &asked).await,
        Verb::Du {
            summarize,
            human_readable,
            max_depth,
            paths,
            help: _,
        } => {
            let depth = if summarize {
                0
            } else {
                max_depth.unwrap_or(u32::MAX)
            };
            let sizes = if human_readable {
                usage::Sizes::Short
            } else {
                usage::Sizes::Bytes
            };
            usage::du(reach, screen, &paths, depth, sizes).await
        }
        Verb::Fsck { verify_data, paths } => {
            let data = if verify_data {
                fsck::Data::Read
            } else {
                fsck::Data::Left
            };
            fsck::fsck(reach, screen, &paths, data).await
        }
        Verb::Cat {
            path,
            offset,
            length,
        } => transfer::cat(reach, &path, offset, length).await,
        Verb::Put {
            from,
            path,
            force,
            dry_run,
            replication,
        } => {
            let target = transfer::Target::from_force(force);
            if dry_run {
                return transfer::say_put(reach, screen, &from, path, target).await;
            }
            transfer::put(reach, screen, &from, path, target, replication.unwrap_or(0)).await
        }
        Verb::Append { from, path } => transfer::append(reach, screen, &from, &path).await,
        Verb::Get {
            path,
            to,
            force,
            dry_run,
        } => {
            let target = transfer::Target::from_force(force);
            let effect = tree::Effect::from_dry_run(dry_run);
            transfer::get(reach, screen, &path, to, target, effect).await
        }
        Verb::Rm {
            recursive,
            dry_run,
            paths,
        } => {
            let depth = if recursive {
                tree::Depth::Tree
            } else {
                tree::Depth::File
            };
            tree::rm(
                reach,
                screen,
                &paths,
                depth,
                tree::Effect::from_dry_run(dry_run),
            )
            .await
        }
        Verb::Mkdir { parents, paths } => {
            tree::mkdir(
                reach,
                screen,
                &paths,
                if parents {
                    Parents::Make
                } else {
                    Parents::MustExist
                },
            )
            .await
        }
        Verb::Rmdir { dry_run, paths } => {
            tree::rmdir(reach, screen, &paths, tree::Effect::from_dry_run(dry_run)).await
        }
        Verb::Mv {
            no_replace,
            dry_run,
            from,
            to,
        } => {
            let mode = if no_replace {
                RenameMode::NoReplace
            } else {
                RenameMode::Replace
            };
            let effect = tree::Effect::from_dry_run(dry_run);
            tree::mv(reach, screen, &from, &to, mode, effect).await
        }
        Verb::Setrep {
            recursive,
            replication,
            paths,
        } => {
            let depth = if recursive {
                tree::Depth::Tree
            } else {
                tree::Depth::File
            };
            tree::setrep(reach, screen, &paths, replication, depth).await
        }
        Verb::Truncate { size, paths } => tree::truncate(reach, screen, &paths, size).await,
        Verb::Status => status::status(reach, screen).await,
        Verb::Servers => servers::servers(reach, screen).await,
        Verb::Explain(
            ref asked @ Explain {
                of: Some(Subject::Path(ref path)),
                ..
            },
        ) => explain::path(reach, screen, asked, path).await,
        Verb::Df(asked) => room::df(reach, screen, &asked).await,
        Verb::Drain { undo, server } => {
            drain::drain(reach, screen, &server, drain::wanted(undo)).await
        }
        Verb::Checkpoint => checkpoint::checkpoint(reach, screen).await,
        Verb::Admin(AdminVerb::AcceptRollback { dry_run }) => {
            let effect = tree::Effect::from_dry_run(dry_run);
            admin::accept_rollback(reach, screen, effect).await
        }
        _ => unreachable!("verbs that need no cluster are done before one is reached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_takes_what_its_help_says() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_verb_has_an_argument_of_its_own_with_the_name_of_a_common_one() {
        fn check(command: &clap::Command, common: &[String]) {
            for verb in command.get_subcommands() {
                for argument in verb.get_arguments() {
                    assert!(
                        !common.contains(&argument.get_id().to_string()),
                        "{argument} of {}",
                        verb.get_name()
                    );
                }
                check(verb, common);
            }
        }
        let command = Arguments::command();
        let common: Vec<String> = command
            .get_arguments()
            .map(|argument| argument.get_id().to_string())
            .collect();
        assert!(common.iter().any(|id| id == "local"));
        check(&command, &common);
    }

    #[test]
    fn common_flags_may_stand_before_and_after_the_verb() {
        for line in [
            ["kfs", "--meta", "h:1", "ls", "/"],
            ["kfs", "ls", "--meta", "h:1", "/"],
            ["kfs", "ls", "/", "--meta", "h:1"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.common.meta.as_deref(), Some("h:1"));
        }
    }

    #[test]
    fn a_path_may_be_any_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let line = [
            "kfs".into(),
            "rm".into(),
            OsString::from_vec(b"/\xff".to_vec()),
        ];
        let Verb::Rm { paths, .. } = Arguments::try_parse_from(line).unwrap().verb else {
            panic!("rm is rm")
        };
        assert_eq!(paths[0].bytes(), b"/\xff");
    }
}
