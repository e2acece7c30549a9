//! `kfs bench`: what the file system does, beside what a plain program does on the same machine, in the same
//! directory, in the same run.
//!
//! Servers and clients are processes of their own. Rounds of the floor and of the file system alternate, so
//! that what else happens on the machine hits both; each figure is the median of its rounds.
mod checkpoint;
mod client;
mod floor;
mod floors;
mod killed;
mod meta;
mod process;
mod recover;

use super::failure::{Exit, Failure};
use super::screen::Screen;
use super::signals::Signals;
use super::{Common, units};
use clap::{Args, Subcommand};
use floor::{Cache, Ending, Manner};
use floors::{Floor, Floors, Rounds};
use kfs_core::wire::Status;
use process::{Daemon, Measured, run_part};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CHUNKSERVERS: usize = 3;
/// Files are whole multiples of the largest buffer, as `O_DIRECT` wants its writes whole.
const SIZE_STEP: u64 = 4 << 20;

/// What is measured.
#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Write and read a large file at replication 1 and 3
    Data(Data),
    /// Requests to the meta server from many clients; and a start with many files
    Meta(meta::Metadata),
    /// Kill a meta server with many files in the middle of its checkpoints, and compare what it is then with its log
    Killed(killed::Killed),
    /// Kill a chunkserver, and see how fast what it had is copied to the others, and what a reader notices of it
    Recover(recover::Recover),
}

/// Bulk data.
#[derive(Args, Debug)]
pub(crate) struct Data {
    /// Where the servers and the plain program keep their data, in a directory that is removed at the end;
    /// the system's temporary directory if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of the file, rounded up to 4 MiB
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_size)]
    size: u64,
    /// How often each case is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

/// A process of a benchmark. Each prints one line of JSON; those that listen, their port.
#[derive(Subcommand, Debug)]
pub(crate) enum Part {
    FloorChain {
        hops: usize,
        dir: PathBuf,
        bytes: u64,
        buffer: usize,
        cache: Cache,
        ending: Ending,
    },
    FloorHop {
        next: u16,
        path: PathBuf,
        buffer: usize,
        cache: Cache,
        ending: Ending,
    },
    FloorRead {
        path: PathBuf,
        bytes: u64,
        buffer: usize,
    },
    FloorServe {
        path: PathBuf,
        buffer: usize,
    },
    ClientWrite {
        at: SocketAddr,
        path: String,
        bytes: u64,
        replication: u8,
    },
    ClientRead {
        at: SocketAddr,
        path: String,
        bytes: u64,
    },
    ClientRemove {
        at: SocketAddr,
        path: String,
    },
    ClientReadOn {
        at: SocketAddr,
        files: u64,
        flag: PathBuf,
    },
    ClientAsk {
        at: SocketAddr,
        ask: meta::Ask,
        prefix: String,
        depth: usize,
        begin_ms: u64,
        seconds: f64,
    },
    CheckpointBeside {
        data: PathBuf,
        directories: u64,
    },
    FloorEchoServer,
    FloorEchoClient {
        port: u16,
        begin_ms: u64,
        seconds: f64,
    },
}

/// A case, as JSON.
#[derive(Serialize, Debug)]
struct Line {
    case: &'static str,
    unit: &'static str,
    /// Median of the rounds.
    value: f64,
    /// The plain program at its best: the median of its best manner.
    floor: f64,
    /// `value / floor`.
    ratio: f64,
    /// CPU seconds per GiB of the file, over all processes that had a part in it.
    cpu_s: f64,
    /// The same of the plain program.
    cpu_floor_s: f64,
    rounds: Vec<f64>,
    floor_rounds: Vec<f64>,
    /// How the plain program was at its best.
    floor_manner: String,
    bytes: u64,
    /// The most memory that any chunkserver had.
    rss_chunkserver_bytes: u64,
    /// The most memory that the client had.
    rss_client_bytes: u64,
}

/// The first bytes of every file that is written.
fn source() -> Vec<u8> {
    let byte =
        |i: u32| u8::try_from(i.wrapping_mul(31).wrapping_add(i / 255) & 0xff).expect("one byte");
    (0..16 << 20).map(byte).collect()
}

/// Is one process of a benchmark.
pub(crate) fn part(part: Part, common: &Common) -> Result<Exit, Failure> {
    let failed =
        |error: io::Error| Failure::local("a plain program of the benchmark failed", &error);
    let client = |path: &str| path.as_bytes().to_vec();
    let measured = match part {
        Part::FloorChain {
            hops,
            dir,
            bytes,
            buffer,
            cache,
            ending,
        } => floor::chain(
            hops,
            &dir,
            bytes,
            Manner {
                buffer_bytes: buffer,
                cache,
            },
            ending,
        )
        .map_err(failed)?,
        Part::FloorHop {
            next,
            path,
            buffer,
            cache,
            ending,
        } => {
            floor::hop(
                next,
                &path,
                Manner {
                    buffer_bytes: buffer,
                    cache,
                },
                ending,
            )
            .map_err(failed)?;
            return Ok(Exit::Done);
        }
        Part::FloorRead {
            path,
            bytes,
            buffer,
        } => {
            let (measured, got) = floor::read(&path, buffer).map_err(failed)?;
            if got != bytes {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            measured
        }
        Part::FloorServe { path, buffer } => {
            floor::serve(&path, buffer).map_err(failed)?;
            return Ok(Exit::Done);
        }
        Part::ClientWrite {
            at,
            path,
            bytes,
            replication,
        } => super::runtime()?.block_on(client::write(
            at,
            &client(&path),
            0,
            bytes,
            replication,
            common.timeout,
        ))?,
        Part::ClientRead { at, path, bytes } => {
            super::runtime()?.block_on(client::read(at, &client(&path), bytes, common.timeout))?
        }
        Part::ClientRemove { at, path } => {
            super::runtime()?.block_on(client::remove(at, &client(&path), common.timeout))?
        }
        Part::ClientReadOn { at, files, flag } => {
            let read = recover::read_on(at, files, &flag, common.timeout);
            return tell(&super::runtime()?.block_on(read)?);
        }
        Part::ClientAsk {
            at,
            ask,
            prefix,
            depth,
            begin_ms,
            seconds,
        } => {
            let asked = meta::ask(at, ask, &prefix, depth, begin_ms, seconds);
            return tell(&super::runtime()?.block_on(asked)?);
        }
        Part::CheckpointBeside { data, directories } => {
            return tell(&checkpoint::beside(data, directories).map_err(failed)?);
        }
        Part::FloorEchoServer => {
            meta::echo_server().map_err(failed)?;
            return Ok(Exit::Done);
        }
        Part::FloorEchoClient {
            port,
            begin_ms,
            seconds,
        } => {
            return tell(&meta::echo_client(port, begin_ms, seconds).map_err(failed)?);
        }
    };
    tell(&measured)
}

/// Prints what a part of the benchmark has to tell.
fn tell(told: &impl Serialize) -> Result<Exit, Failure> {
    let line = serde_json::to_string(told).expect("numbers have a JSON form");
    io::Write::write_all(&mut io::stdout(), line.as_bytes())
        .map_err(|error| Failure::stdout(&error))?;
    Ok(Exit::Done)
}

/// Measures, and prints a table, or with `--json` a line per case.
pub(crate) fn run(asked: &Bench, screen: &Screen) -> Result<Exit, Failure> {
    let stop = stop_on_signals()?;
    let measured = match asked {
        Bench::Data(asked) => data(asked, screen, &stop),
        Bench::Meta(asked) => meta::run(asked, screen, &stop).map(|()| Vec::new()),
        Bench::Killed(asked) => killed::run(asked, screen, &stop).map(|()| Vec::new()),
        Bench::Recover(asked) => recover::run(asked, screen, &stop).map(|()| Vec::new()),
    };
    // Servers and clients in the foreground hear Ctrl-C, too, so what is seen first may be their end.
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::interrupted());
    }
    let lines = measured?;
    for line in &lines {
        screen.json(line)?;
    }
    if !lines.is_empty() {
        for line in table(&lines) {
            screen.line(line)?;
        }
    }
    Ok(Exit::Done)
}

/// Set when a signal asks to stop. Steps end by themselves soon after; then everything is cleaned up.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let (told, runtime) = (Arc::clone(&stop), super::runtime()?);
    let entered = runtime.enter();
    let mut signals = Signals::new()?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            signals.raised().await;
            told.store(true, Ordering::Relaxed);
            signals.raised().await;
            std::process::exit(i32::from(Exit::Failed as u8));
        });
    });
    Ok(stop)
}

/// One of the four cases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Case {
    WriteR1,
    WriteR3,
    ReadR1,
    ReadR3,
}

impl Case {
    const ALL: [Self; 4] = [Self::WriteR1, Self::WriteR3, Self::ReadR1, Self::ReadR3];

    const fn name(self) -> &'static str {
        match self {
            Self::WriteR1 => "write_r1",
            Self::WriteR3 => "write_r3",
            Self::ReadR1 => "read_r1",
            Self::ReadR3 => "read_r3",
        }
    }

    const fn replication(self) -> u8 {
        match self {
            Self::WriteR1 | Self::ReadR1 => 1,
            Self::WriteR3 | Self::ReadR3 => 3,
        }
    }

    const fn floor(self) -> Floor {
        match self {
            Self::WriteR1 => Floor::Chain1,
            Self::WriteR3 => Floor::Chain3,
            Self::ReadR1 | Self::ReadR3 => Floor::Read,
        }
    }

    fn path(self) -> String {
        format!("/bench-r{}", self.replication())
    }
}

fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "at least one round is made");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// A run: its servers, its directory, and what it has measured.
struct Run<'a> {
    meta: Daemon,
    chunkservers: Vec<Daemon>,
    bytes: u64,
    floors: Floors<'a>,
    cases: BTreeMap<Case, Rounds>,
    stop: &'a AtomicBool,
}

/// A directory for a benchmark, in this one or the system's.
fn directory(within: Option<&Path>) -> Result<TempDir, Failure> {
    let mut directory = tempfile::Builder::new();
    directory.prefix("kfs-bench-");
    within
        .map_or_else(
            || directory.tempdir(),
            |within| directory.tempdir_in(within),
        )
        .map_err(|error| Failure::local("cannot make a directory for the benchmark", &error))
}

fn removed(directory: TempDir) -> Result<(), Failure> {
    directory
        .close()
        .map_err(|error| Failure::local("cannot remove the directory of the benchmark", &error))
}

fn data(asked: &Data, screen: &Screen, stop: &AtomicBool) -> Result<Vec<Line>, Failure> {
    let bytes = asked.size.max(1).next_multiple_of(SIZE_STEP);
    let directory = directory(asked.dir.as_deref())?;
    let dir = directory.path();
    screen.note(format!(
        "measuring with {} in {}, {} rounds",
        units::size(bytes),
        dir.display(),
        asked.rounds
    ));
    let meta = Daemon::start(
        "kfs-metaserver",
        dir.join("meta"),
        &["--trash-grace", "1s", "--min-replicas", "1"],
    )?;
    let chunkservers = process::chunkservers(dir, meta.listen, CHUNKSERVERS)?;
    floor::prepare(dir, bytes)
        .map_err(|error| Failure::local("cannot write the file of the read floor", &error))?;
    let mut run = Run {
        meta,
        chunkservers,
        bytes,
        floors: Floors::new(dir, stop),
        cases: BTreeMap::new(),
        stop,
    };
    let bar = screen.activity();
    for round in 0..asked.rounds {
        for case in Case::ALL {
            bar.set_message(format!(
                "round {} of {}: {}",
                round + 1,
                asked.rounds,
                case.name()
            ));
            bar.tick();
            // Both reads are held against the same floor; it is measured before each of them.
            run.floors.measure(case.floor(), run.bytes, round)?;
            run.case(case)?;
        }
        run.clear()?;
    }
    bar.finish_and_clear();
    let lines = Case::ALL.map(|case| run.line(case)).into();
    let Run {
        meta, chunkservers, ..
    } = run;
    chunkservers.into_iter().try_for_each(Daemon::stop)?;
    meta.stop()?;
    removed(directory)?;
    Ok(lines)
}

impl Run<'_> {
    fn go_on(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            Err(Failure::interrupted())
        } else {
            Ok(())
        }
    }

    /// A round of the file system.
    fn case(&mut self, case: Case) -> Result<(), Failure> {
        self.go_on()?;
        let (meta, bytes) = (self.meta.listen.to_string(), self.bytes.to_string());
        let (counter, moved, part) = match case {
            Case::WriteR1 | Case::WriteR3 => {
                let part = vec![
                    "client-write".into(),
                    meta,
                    case.path(),
                    bytes,
                    case.replication().to_string(),
                ];
                (
                    "bytes_written",
                    self.bytes * u64::from(case.replication()),
                    part,
                )
            }
            Case::ReadR1 | Case::ReadR3 => {
                self.warm()?;
                (
                    "bytes_read",
                    self.bytes,
                    vec!["client-read".into(), meta, case.path(), bytes],
                )
            }
        };
        self.chunkservers.iter().try_for_each(Daemon::forget_peak)?;
        let counted_before = counted(&self.chunkservers, counter)?;
        let cpu_before = self.cpu_seconds()?;
        let mut measured: Measured = run_part(&part)?;
        measured.cpu_s += self.cpu_seconds()? - cpu_before;
        let expected = counted_before + moved;
        check_counter(
            &self.chunkservers,
            case.name(),
            counter,
            expected..=expected,
        )?;
        let peaks: Vec<u64> = self
            .chunkservers
            .iter()
            .map(Daemon::peak_bytes)
            .collect::<Result<_, _>>()?;
        let rounds = self.cases.entry(case).or_default();
        rounds.add(measured, self.bytes);
        rounds.rss_chunkserver_bytes = peaks
            .into_iter()
            .fold(rounds.rss_chunkserver_bytes, u64::max);
        Ok(())
    }

    fn cpu_seconds(&self) -> Result<f64, Failure> {
        std::iter::once(&self.meta)
            .chain(&self.chunkservers)
            .map(Daemon::cpu_seconds)
            .sum()
    }

    /// Has the replicas in the page cache, as the file of the read floor is: whether they are after a write
    /// depends on how a chunkserver writes, and is not what is measured.
    fn warm(&self) -> Result<(), Failure> {
        for server in &self.chunkservers {
            let chunks = server.data.join("chunks");
            let failed = |error: io::Error| {
                Failure::local(format!("cannot read {}", chunks.display()), &error)
            };
            for entry in std::fs::read_dir(&chunks).map_err(failed)? {
                let mut file = entry
                    .and_then(|entry| std::fs::File::open(entry.path()))
                    .map_err(failed)?;
                io::copy(&mut file, &mut io::sink()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes the files of a round, and waits until their room is free and nobody is busy with it any more.
    fn clear(&self) -> Result<(), Failure> {
        self.go_on()?;
        for case in [Case::WriteR1, Case::WriteR3] {
            run_part::<Measured>(&[
                "client-remove".into(),
                self.meta.listen.to_string(),
                case.path(),
            ])?;
        }
        let since = Instant::now();
        while self
            .chunkservers
            .iter()
            .any(|server| !(is_empty(&server.data, "chunks") && is_empty(&server.data, "trash")))
        {
            self.go_on()?;
            if since.elapsed() > Duration::from_secs(30) {
                let what = "the chunkservers still hold chunks of a removed file after 30 s";
                return Err(Failure::new(Status::TimedOut, what));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn line(&self, case: Case) -> Line {
        let (manner, floor) = self.floors.steadily_best(case.floor());
        let rounds = &self.cases[&case];
        let (value, floor_value) = (median(&rounds.mb_per_s), median(&floor.mb_per_s));
        Line {
            case: case.name(),
            unit: "MB/s",
            value: round(value, 1),
            floor: round(floor_value, 1),
            ratio: round(value / floor_value, 3),
            cpu_s: round(median(&rounds.cpu_per_gib), 2),
            cpu_floor_s: round(median(&floor.cpu_per_gib), 2),
            rounds: tenths(&rounds.mb_per_s),
            floor_rounds: tenths(&floor.mb_per_s),
            floor_manner: manner.text(),
            bytes: self.bytes,
            rss_chunkserver_bytes: rounds.rss_chunkserver_bytes,
            rss_client_bytes: rounds.rss_client_bytes,
        }
    }
}

/// With so many digits behind the point.
fn round(value: f64, digits: i32) -> f64 {
    (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
}

fn tenths(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| round(*value, 1)).collect()
}

/// What chunkservers count together.
fn counted(servers: &[Daemon], counter: &str) -> Result<u64, Failure> {
    servers.iter().map(|server| server.counter(counter)).sum()
}

/// The servers must have moved what is said of them. Their pages may lag a little behind.
fn check_counter(
    servers: &[Daemon],
    case: &str,
    counter: &str,
    expected: RangeInclusive<u64>,
) -> Result<(), Failure> {
    let since = Instant::now();
    loop {
        let found = counted(servers, counter)?;
        if expected.contains(&found) {
            return Ok(());
        }
        if since.elapsed() > Duration::from_secs(3) {
            let least = expected.start();
            let expected = if expected.end() == least {
                format!("{least}")
            } else {
                format!("{least} or more")
            };
            let what =
                format!("after {case} the chunkservers count {counter} {found}, not {expected}");
            return Err(Failure::new(Status::Protocol, what));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_empty(data: &Path, name: &str) -> bool {
    std::fs::read_dir(data.join(name)).is_ok_and(|mut entries| entries.next().is_none())
}

fn table(lines: &[Line]) -> Vec<String> {
    let head = format!(
        "{:<10}{:>8}{:>8}{:>7}{:>11}{:>8}{:>13}{:>10}  {}",
        "case",
        "MB/s",
        "floor",
        "ratio",
        "CPU s/GiB",
        "floor",
        "chunkserver",
        "client",
        "floor at its best"
    );
    let mut table = vec![head];
    for line in lines {
        table.push(format!(
            "{:<10}{:>8.0}{:>8.0}{:>7.2}{:>11.2}{:>8.2}{:>13}{:>10}  {}",
            line.case,
            line.value,
            line.floor,
            line.ratio,
            line.cpu_s,
            line.cpu_floor_s,
            units::size(line.rss_chunkserver_bytes),
            units::size(line.rss_client_bytes),
            line.floor_manner
        ));
    }
    table.push(String::from(
        "Medians. Writes end when all replicas and the size are durable; the floor writes without sums, protocol or\n\
         sync. CPU counts all processes that had a part; memory is the peak of the largest process.",
    ));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_bad_round() {
        assert!((median(&[1.0, 900.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 2.0]) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_table_has_a_row_for_every_case() {
        let line = Line {
            case: "write_r3",
            unit: "MB/s",
            value: 300.0,
            floor: 500.0,
            ratio: 0.6,
            cpu_s: 4.0,
            cpu_floor_s: 3.3,
            rounds: vec![300.0],
            floor_rounds: vec![500.0],
            floor_manner: "buffered 64 KiB".into(),
            bytes: 1 << 30,
            rss_chunkserver_bytes: 100 << 20,
            rss_client_bytes: 60 << 20,
        };
        assert!(
            table(&[line])
                .iter()
                .any(|row| row.starts_with("write_r3") && row.contains("0.60"))
        );
    }
}
