//! `kfs bench meta`: requests to a meta server from clients that are processes of their own, beside a plain echo
//! server and a plain sync of the same disk; and what a start with many files takes, in time and in memory.
use super::checkpoint::{Beside, DISK_BYTES_A_SECOND, RATE};
use super::process::{Daemon, own_cpu_seconds, run_part, spawn_part};
use super::{directory, median, removed};
use crate::cli::failure::Failure;
use crate::cli::screen::Screen;
use crate::cli::transfer::ownership;
use clap::{Args, ValueEnum};
use kfs_client::{CreateOptions, Kfs, Options};
use kfs_core::limits::Limits;
use kfs_core::meta::checkpoint::format as checkpoint;
use kfs_core::meta::fill::{self, Log, Order, Records};
use kfs_core::meta::oplog;
use kfs_core::meta::record::{Logged, Record};
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Keep, Parents};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is sent and comes back, by the plain programs.
const ECHO_BYTES: usize = 64;
/// Pages that are written and synced for one figure.
const SYNCS: u64 = 200;
const PAGE_BYTES: usize = 4_096;
/// Files that are asked for.
const ASKED_FOR: u64 = 1_000;
/// Until all processes of a case are there.
const ASSEMBLES: Duration = Duration::from_millis(400);
/// Times that a process tells of.
const SAMPLES: usize = 2_000;

/// Metadata.
#[derive(Args, Debug)]
pub(crate) struct Metadata {
    /// Where the server keeps its data, in a directory that is removed at the end; the system's temporary directory
    /// if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How often each case is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of each round of each case
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Files that the start is measured with; 0: it is not measured
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    files: u64,
    /// Only the start with many files
    #[arg(long)]
    only_fill: bool,
}

/// What a client asks for again and again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Debug)]
pub(crate) enum Ask {
    /// A new file: the answer comes when it is durable.
    Create,
    /// The attributes of one of a thousand files, by its path.
    Stat,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Case {
    name: &'static str,
    ask: Ask,
    clients: usize,
    /// Requests that each of them has in flight.
    depth: usize,
}

const CASES: [Case; 5] = [
    Case {
        name: "create_c1_d1",
        ask: Ask::Create,
        clients: 1,
        depth: 1,
    },
    Case {
        name: "create_c16_d1",
        ask: Ask::Create,
        clients: 16,
        depth: 1,
    },
    Case {
        name: "create_c16_d32",
        ask: Ask::Create,
        clients: 16,
        depth: 32,
    },
    Case {
        name: "stat_c16_d1",
        ask: Ask::Stat,
        clients: 16,
        depth: 1,
    },
    Case {
        name: "stat_c16_d32",
        ask: Ask::Stat,
        clients: 16,
        depth: 32,
    },
];

/// What a client process did.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Asked {
    done: u64,
    seconds: f64,
    cpu_s: f64,
    /// Of some of the requests, from the question to the answer.
    took_us: Vec<f64>,
}

/// A case, as JSON.
#[derive(Serialize, Debug)]
struct Line {
    case: &'static str,
    unit: &'static str,
    /// Median of the rounds.
    value: f64,
    /// What a plain program reaches, by the same shape: echoes; for a durable change also a sync. With many requests
    /// in flight there is none: an echo of many at once is one read and one write.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<f64>,
    /// `value / floor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    /// CPU of the server for one request.
    server_cpu_us: f64,
    /// CPU of the clients for one request: on a machine with few cores it is taken from what the server could do.
    client_cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    rounds: Vec<f64>,
    floor_rounds: Vec<f64>,
}

/// The start with many files, as JSON.
#[derive(Serialize, Debug)]
struct FillLine {
    case: &'static str,
    files: u64,
    /// Resident memory of the server, started from a checkpoint, without any chunkserver.
    bytes_per_file: f64,
    checkpoint_bytes: u64,
    /// From the start of the process to its line that it is ready, from a checkpoint.
    ready_s: f64,
    load_files_per_s: f64,
    /// The same, from the log, four records a file.
    replay_s: f64,
    replay_records_per_s: f64,
    /// A log of creates only, one directory after the other, and in any.
    replay_creates_per_s: f64,
    replay_creates_random_per_s: f64,
}

/// A checkpoint beside creates, as JSON.
#[derive(Serialize, Debug)]
struct CheckpointLine {
    case: &'static str,
    files: u64,
    creates_a_second: u64,
    #[serde(flatten)]
    beside: Beside,
}

impl CheckpointLine {
    const fn of(files: u64, beside: Beside) -> Self {
        Self {
            case: "checkpoint",
            files,
            creates_a_second: RATE,
            beside,
        }
    }
    fn text(&self) -> String {
        let beside = &self.beside;
        format!(
            "a checkpoint of them beside {RATE} creates a second (simulated time; a disk of {}/s): it took {:.1} s, and {:.1} % more memory;\n\
             no call of the server took longer than {:.2} ms of CPU time ({:.2} ms without it), and one in a thousand longer than {:.2} ms ({:.2} ms)",
            crate::cli::units::size(DISK_BYTES_A_SECOND),
            beside.seconds,
            beside.memory_percent,
            beside.call_max_ms,
            beside.call_max_ms_without,
            beside.call_p999_ms,
            beside.call_p999_ms_without,
        )
    }
}

/// Measures, and prints a table, or with `--json` a line per case.
pub(super) fn run(asked: &Metadata, screen: &Screen, stop: &AtomicBool) -> Result<(), Failure> {
    let directory = directory(asked.dir.as_deref())?;
    if !asked.only_fill {
        let lines = requests(asked, directory.path(), screen, stop)?;
        for line in &lines {
            screen.json(line)?;
        }
        for line in table(&lines) {
            screen.line(line)?;
        }
    }
    if asked.files > 0 {
        let (line, beside) = fill(asked.files, directory.path(), screen, stop)?;
        screen.json(&line)?;
        screen.json(&beside)?;
        for line in fill_table(&line).into_iter().chain([beside.text()]) {
            screen.line(line)?;
        }
    }
    removed(directory)
}

pub(super) fn go_on(stop: &AtomicBool) -> Result<(), Failure> {
    if stop.load(Ordering::Relaxed) {
        Err(Failure::interrupted())
    } else {
        Ok(())
    }
}

#[derive(Clone, Default, Debug)]
struct Rounds {
    rates: Vec<f64>,
    floors: Vec<f64>,
    server_cpu_us: Vec<f64>,
    client_cpu_us: Vec<f64>,
    took_us: Vec<f64>,
}

fn requests(
    asked: &Metadata,
    dir: &Path,
    screen: &Screen,
    stop: &AtomicBool,
) -> Result<Vec<Line>, Failure> {
    let seconds = f64::from(asked.seconds);
    screen.note(format!(
        "measuring requests in {}, {} rounds of {seconds} s a case",
        dir.display(),
        asked.rounds
    ));
    let meta = Daemon::start("kfs-metaserver", dir.join("meta"), &[])?;
    super::super::runtime()?.block_on(prepare(meta.listen))?;
    let bar = screen.activity();
    let mut rounds = BTreeMap::<Case, Rounds>::new();
    for round in 0..asked.rounds {
        for case in CASES {
            go_on(stop)?;
            bar.set_message(format!(
                "round {} of {}: {}",
                round + 1,
                asked.rounds,
                case.name
            ));
            bar.tick();
            let floor = floor_of(case, dir, seconds)
                .map_err(|error| Failure::local("a plain program failed", &error))?;
            let cpu_before = meta.cpu_seconds()?;
            let told = clients(case, meta.listen, round, seconds)?;
            let cpu = meta.cpu_seconds()? - cpu_before;
            let done: u64 = told.iter().map(|told| told.done).sum();
            let all = rounds.entry(case).or_default();
            all.rates.push(
                told.iter()
                    .map(|told| told.done as f64 / told.seconds)
                    .sum(),
            );
            all.floors.extend(floor);
            all.server_cpu_us.push(cpu * 1e6 / done.max(1) as f64);
            let cpu: f64 = told.iter().map(|told| told.cpu_s).sum();
            all.client_cpu_us.push(cpu * 1e6 / done.max(1) as f64);
            all.took_us
                .extend(told.into_iter().flat_map(|told| told.took_us));
        }
    }
    bar.finish_and_clear();
    meta.stop()?;
    Ok(rounds
        .into_iter()
        .map(|(case, rounds)| line(case, rounds))
        .collect())
}

fn line(case: Case, mut rounds: Rounds) -> Line {
    let value = median(&rounds.rates);
    let floor = (!rounds.floors.is_empty()).then(|| median(&rounds.floors));
    rounds.took_us.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let last = rounds.took_us.len().saturating_sub(1);
        rounds.took_us.get(last * percent / 100).copied()
    };
    let tenths = |rounds: &[f64]| (median(rounds) * 10.0).round() / 10.0;
    Line {
        case: case.name,
        unit: "1/s",
        value: value.round(),
        floor: floor.map(f64::round),
        ratio: floor.map(|floor| (value / floor * 1e3).round() / 1e3),
        server_cpu_us: tenths(&rounds.server_cpu_us),
        client_cpu_us: tenths(&rounds.client_cpu_us),
        p50_us: at(50).unwrap_or_default().round(),
        p99_us: at(99).unwrap_or_default().round(),
        rounds: rounds.rates.iter().map(|rate| rate.round()).collect(),
        floor_rounds: rounds.floors.iter().map(|rate| rate.round()).collect(),
    }
}

/// Makes what will be asked for.
async fn prepare(meta: SocketAddr) -> Result<(), Failure> {
    let kfs = connect(meta);
    kfs.mkdir(b"/bench", Parents::MustExist, ownership(0o755))
        .await?;
    for nth in 0..ASKED_FOR {
        let path = format!("/bench/asked-for-{nth:06}");
        let writer = kfs.create(path.as_bytes(), options()).await?;
        writer.close().await?;
    }
    kfs.disconnect().await;
    Ok(())
}

fn connect(meta: SocketAddr) -> Kfs {
    Kfs::connect(Options {
        meta,
        timeout: Duration::from_secs(60),
        seed: kfs_drive::entropy(),
        limits: Limits::REAL,
    })
}

fn options() -> CreateOptions {
    CreateOptions {
        owner: ownership(0o644),
        replication: 3,
        keep: Keep::Always,
    }
}

/// Runs the clients of a case, which begin and end together.
fn clients(case: Case, meta: SocketAddr, round: u16, seconds: f64) -> Result<Vec<Asked>, Failure> {
    let failed = |error: io::Error| Failure::local("a client of the benchmark failed", &error);
    let begin = begins();
    let ask = match case.ask {
        Ask::Create => "create",
        Ask::Stat => "stat",
    };
    let all: Vec<Child> = (0..case.clients)
        .map(|nth| {
            spawn_part(&[
                "client-ask".into(),
                meta.to_string(),
                ask.into(),
                format!("{}-{round}-{nth}", case.name),
                case.depth.to_string(),
                begin.to_string(),
                seconds.to_string(),
            ])
        })
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    ended(all).map_err(failed)
}

fn ended<T: for<'a> Deserialize<'a>>(children: Vec<Child>) -> io::Result<Vec<T>> {
    // Nobody may be left behind.
    let outputs: Vec<_> = children
        .into_iter()
        .map(Child::wait_with_output)
        .collect::<Result<_, _>>()?;
    let told = outputs.into_iter().map(|output| {
        if !output.status.success() {
            return Err(io::Error::other(format!("it ended with {}", output.status)));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    });
    told.collect()
}

/// Milliseconds since 1970 at which processes that are started now are all there.
fn begins() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = now.unwrap_or_default() + ASSEMBLES;
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// How long it is until then.
fn until(begin_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Duration::from_millis(begin_ms).saturating_sub(now.unwrap_or_default())
}

/// Is a client: asks with so many requests in flight.
pub(super) async fn ask(
    meta: SocketAddr,
    ask: Ask,
    prefix: &str,
    depth: usize,
    begin_ms: u64,
    seconds: f64,
) -> Result<Asked, Failure> {
    let kfs = Arc::new(connect(meta));
    kfs.stat(b"/bench").await?;
    tokio::time::sleep(until(begin_ms)).await;
    let begun = Instant::now();
    let cpu_before = own_cpu_seconds()
        .map_err(|error| Failure::local("cannot tell what this process cost", &error))?;
    let mut tasks = tokio::task::JoinSet::new();
    for nth in 0..depth {
        let (kfs, prefix) = (Arc::clone(&kfs), format!("/bench/{prefix}-{nth}"));
        tasks.spawn(asks(kfs, ask, prefix, nth as u64, begun, seconds));
    }
    let (mut done, mut took_us) = (0, Vec::new());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(|error| Failure::new(Status::LocalIo, error.to_string()))?;
        let (count, took) = ended?;
        done += count;
        took_us.extend(took);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let step = took_us.len().div_ceil(SAMPLES).max(1);
    let cpu_s = own_cpu_seconds()
        .map_err(|error| Failure::local("cannot tell what this process cost", &error))?;
    if let Some(kfs) = Arc::into_inner(kfs) {
        kfs.disconnect().await;
    }
    Ok(Asked {
        done,
        seconds,
        cpu_s: cpu_s - cpu_before,
        took_us: took_us.into_iter().step_by(step).collect(),
    })
}

/// One request after the other.
async fn asks(
    kfs: Arc<Kfs>,
    ask: Ask,
    prefix: String,
    first: u64,
    begun: Instant,
    seconds: f64,
) -> Result<(u64, Vec<f64>), Failure> {
    let (mut done, mut took_us) = (0, Vec::new());
    let mut at = Instant::now();
    while begun.elapsed().as_secs_f64() < seconds {
        match ask {
            Ask::Create => {
                let path = format!("{prefix}-{done}");
                // It is let go of: what is measured is that it is there.
                drop(kfs.create(path.as_bytes(), options()).await?);
            }
            Ask::Stat => {
                let nth = (first * 31 + done * 7) % ASKED_FOR;
                let path = format!("/bench/asked-for-{nth:06}");
                kfs.stat(path.as_bytes()).await?;
            }
        }
        done += 1;
        let now = Instant::now();
        took_us.push((now - at).as_secs_f64() * 1e6);
        at = now;
    }
    Ok((done, took_us))
}

/// What a plain program of the same shape reaches, a second.
fn floor_of(case: Case, dir: &Path, seconds: f64) -> io::Result<Option<f64>> {
    if case.depth > 1 {
        return Ok(None);
    }
    let seconds = (seconds / 3.0).max(1.0);
    let echoes = echoes(case.clients, seconds)?;
    let floor = match (case.ask, case.clients) {
        (Ask::Stat, _) => echoes,
        // One after the other: a sync, and the question and answer of four processes that take turns.
        (Ask::Create, 1) => 1.0 / (sync_seconds(dir)? + 4.0 / echoes),
        // Each waits for a sync that it shares with all others, and for its echo.
        (Ask::Create, clients) => {
            let clients = clients as f64;
            clients / (sync_seconds(dir)? + clients / echoes)
        }
    };
    Ok(Some(floor))
}

/// Echoes a second between so many processes and one server.
fn echoes(clients: usize, seconds: f64) -> io::Result<f64> {
    let mut server = spawn_part(&["floor-echo-server".into()])?;
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().expect("its output is a pipe")).read_line(&mut line)?;
    let begin = begins();
    let all = (0..clients).map(|_| {
        spawn_part(&[
            "floor-echo-client".into(),
            line.trim().into(),
            begin.to_string(),
            seconds.to_string(),
        ])
    });
    let told = all
        .collect::<io::Result<Vec<Child>>>()
        .and_then(ended::<f64>);
    let killed = server.kill().and_then(|()| server.wait());
    let told = told?;
    killed?;
    Ok(told.iter().sum())
}

/// Gives back what it gets, to each of its clients by a thread of its own; until it is killed.
pub(super) fn echo_server() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?.port())?;
    out.flush()?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(got @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..got]).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

/// Sends and receives; gives echoes a second.
pub(super) fn echo_client(port: u16, begin_ms: u64, seconds: f64) -> io::Result<f64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let mut buffer = [1; ECHO_BYTES];
    std::thread::sleep(until(begin_ms));
    let (begun, mut done) = (Instant::now(), 0.0);
    while begun.elapsed().as_secs_f64() < seconds {
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        done += 1.0;
    }
    Ok(done / begun.elapsed().as_secs_f64())
}

/// Seconds for a page that is written and synced, by the median, in a file that is there already.
fn sync_seconds(dir: &Path) -> io::Result<f64> {
    let path = dir.join("floor-sync");
    let file = File::create(&path)?;
    let page = vec![7; PAGE_BYTES];
    let write = |nth: u64| file.write_all_at(&page, nth * PAGE_BYTES as u64);
    (0..SYNCS).try_for_each(write)?;
    file.sync_all()?;
    let mut took = Vec::new();
    for nth in 0..SYNCS {
        let begun = Instant::now();
        write(nth)?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64());
    }
    std::fs::remove_file(path)?;
    Ok(median(&took))
}

/// Starts a server with many files: from its log, and from a checkpoint.
fn fill(
    files: u64,
    dir: &Path,
    screen: &Screen,
    stop: &AtomicBool,
) -> Result<(FillLine, CheckpointLine), Failure> {
    screen.note(format!("measuring a start with {files} files"));
    let bar = screen.activity();
    let step = |what: &str| {
        bar.set_message(what.to_owned());
        bar.tick();
        go_on(stop)
    };
    let failed = |error: io::Error| Failure::local("cannot make a log", &error);
    step("a log of creates, one directory after the other")?;
    let creates = |logged: &Logged| {
        !matches!(
            logged.record,
            Record::ChunkOpened(_) | Record::SizeSet(_) | Record::Sealed(_)
        )
    };
    let sequence = replayed(
        &dir.join("sequence"),
        Records::new(files, Order::Sequence).filter(creates),
    )?;
    step("a log of creates in any directory")?;
    let random = replayed(
        &dir.join("random"),
        Records::new(files, Order::Random).filter(creates),
    )?;
    step("a log of files with chunks")?;
    let data = dir.join("filled");
    let records = write_log(&data, Records::new(files, Order::Random)).map_err(failed)?;
    step("a start from the log")?;
    let begun = Instant::now();
    let meta = Daemon::start("kfs-metaserver", data.clone(), &[])?;
    let replay_s = begun.elapsed().as_secs_f64();
    step("a checkpoint")?;
    super::super::runtime()?.block_on(async {
        let kfs = Kfs::connect(Options {
            timeout: Duration::from_secs(1_800),
            ..Options::new(meta.listen)
        });
        kfs.checkpoint().await?;
        kfs.disconnect().await;
        Ok::<_, Failure>(())
    })?;
    let checkpoint_bytes = bytes_in(&data.join(checkpoint::DIR)).map_err(failed)?;
    meta.stop()?;
    step("a start from the checkpoint")?;
    let begun = Instant::now();
    let meta = Daemon::start("kfs-metaserver", data.clone(), &[])?;
    let ready_s = begun.elapsed().as_secs_f64();
    let resident = meta.resident_bytes()?;
    meta.stop()?;
    step("a checkpoint beside creates")?;
    let directories = files.div_ceil(fill::FILES);
    let arguments = [
        "checkpoint-beside".to_owned(),
        data.display().to_string(),
        directories.to_string(),
    ];
    let beside: Beside = run_part(&arguments)?;
    bar.finish_and_clear();
    std::fs::remove_dir_all(&data).map_err(failed)?;
    let fill = FillLine {
        case: "fill",
        files,
        bytes_per_file: (resident as f64 / files as f64 * 10.0).round() / 10.0,
        checkpoint_bytes,
        ready_s,
        load_files_per_s: (files as f64 / ready_s).round(),
        replay_s,
        replay_records_per_s: (records as f64 / replay_s).round(),
        replay_creates_per_s: sequence.round(),
        replay_creates_random_per_s: random.round(),
    };
    Ok((fill, CheckpointLine::of(files, beside)))
}

fn bytes_in(dir: &Path) -> io::Result<u64> {
    std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum()
}

/// Writes a log, starts a server on it, and removes it. Gives records a second.
fn replayed(data: &Path, records: impl Iterator<Item = Logged>) -> Result<f64, Failure> {
    let failed = |error: io::Error| Failure::local("cannot make a log", &error);
    let count = write_log(data, records).map_err(failed)?;
    let begun = Instant::now();
    let meta = Daemon::start("kfs-metaserver", data.to_owned(), &[])?;
    let took = begun.elapsed().as_secs_f64();
    meta.stop()?;
    std::fs::remove_dir_all(data).map_err(failed)?;
    Ok(count as f64 / took)
}

/// Makes the data directory of a meta server whose log has these records; gives how many.
pub(super) fn write_log(data: &Path, records: impl Iterator<Item = Logged>) -> io::Result<u64> {
    let dir = data.join(oplog::DIR);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(
        data.join(kfs_core::identity::NAME),
        fill::identity().encode(),
    )?;
    let mut log = Log::new(fill::CLUSTER);
    for logged in records {
        if let Some((first, bytes)) = log.push(logged.by, logged.record) {
            std::fs::write(dir.join(oplog::segment_name(first)), bytes)?;
        }
    }
    let records = log.seq().0;
    let (first, bytes) = log.finish();
    std::fs::write(dir.join(oplog::segment_name(first)), bytes)?;
    Ok(records)
}

fn table(lines: &[Line]) -> Vec<String> {
    let head = format!(
        "{:<16}{:>10}{:>10}{:>7}{:>15}{:>15}{:>10}{:>10}",
        "case", "1/s", "floor", "ratio", "server CPU us", "client CPU us", "p50 us", "p99 us"
    );
    let mut table = vec![head];
    table.extend(lines.iter().map(|line| {
        format!(
            "{:<16}{:>10.0}{:>10}{:>7}{:>15.1}{:>15.1}{:>10.0}{:>10.0}",
            line.case,
            line.value,
            line.floor.map_or("-".into(), |floor| format!("{floor:.0}")),
            line.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
            line.server_cpu_us,
            line.client_cpu_us,
            line.p50_us,
            line.p99_us
        )
    }));
    table.push(String::from(
        "Medians. A create is answered when it is durable. The floor is a plain echo server with a thread for each\n\
         client, and as many processes; for creates with a sync of the same disk.",
    ));
    table
}

fn fill_table(line: &FillLine) -> Vec<String> {
    vec![
        format!(
            "{} files of one chunk with three replicas: {:.1} bytes of memory each, a checkpoint of {}",
            line.files,
            line.bytes_per_file,
            crate::cli::units::size(line.checkpoint_bytes)
        ),
        format!(
            "ready from the checkpoint in {:.1} s, {:.0} files/s; from the log in {:.1} s, {:.0} records/s",
            line.ready_s, line.load_files_per_s, line.replay_s, line.replay_records_per_s
        ),
        format!(
            "from a log of creates {:.0}/s one directory after the other, {:.0}/s in any directory",
            line.replay_creates_per_s, line.replay_creates_random_per_s
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_median_and_says_how_long_requests_took() {
        let rounds = Rounds {
            rates: vec![10.0, 30.0, 20.0],
            floors: vec![40.0],
            server_cpu_us: vec![3.0],
            client_cpu_us: vec![4.0],
            took_us: (0..=100).rev().map(f64::from).collect(),
        };
        let line = line(CASES[0], rounds);
        assert_eq!((line.value, line.ratio), (20.0, Some(0.5)));
        assert_eq!((line.p50_us, line.p99_us), (50.0, 99.0));
        assert_eq!(table(&[line]).len(), 3);
    }

    #[test]
    fn a_log_of_files_is_a_data_directory_that_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let records = write_log(dir.path(), Records::new(2_500, Order::Random)).unwrap();
        // An epoch, three servers, a session, three directories, and four for each file.
        assert_eq!(records, 8 + 4 * 2_500);
        let names = std::fs::read_dir(dir.path().join(oplog::DIR)).unwrap();
        assert_eq!(names.count(), 1);
    }
}
