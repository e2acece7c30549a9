//! `kfs bench recover`: how fast what a killed chunkserver had is copied to the others, beside a plain program that
//! sends as many bytes into a file and syncs it; and the same beside a reader, with what that one notices of it.
use super::floors::{Floor, Floors, Rounds};
use super::meta::go_on;
use super::process::{self, Beside, Daemon, Measured};
use super::{
    CHUNKSERVERS, SIZE_STEP, check_counter, client, counted, directory, median, removed, round,
    tenths,
};
use crate::cli::failure::Failure;
use crate::cli::screen::Screen;
use crate::cli::units;
use clap::Args;
use kfs_client::Kfs;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::ChunkPlaces;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of each file; one is lost with the server that is killed.
const REPLICATION: u8 = 2;
/// A file is one chunk, or less if there is little to write.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// If there is little, so many files as a rule.
const FILES: u64 = 16;
/// Files that are read byte by byte in the end, each of their replicas as well.
const READ_AGAIN: u64 = 4;
/// How long a call of the clients may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// It is looked so often how far copies are.
const LOOKS: Duration = Duration::from_millis(5);
/// Nothing new comes of copies: they never end.
const STANDS_MAX: Duration = Duration::from_secs(60);
/// A reader notes so often how far it is.
const NOTES: Duration = Duration::from_millis(5);
/// A reader is measured alone for as long as copies took, within these.
const ALONE_MIN: Duration = Duration::from_millis(500);
const ALONE_MAX: Duration = Duration::from_secs(10);
/// Of the size, so much is on the disk at a time, at most.
const ROOM: u64 = 3;
/// A tenth of it is what passes before a chunk is copied of which there is only one replica; and nothing but the disk
/// and the processors limit the copies.
const META_FLAGS: [&str; 6] = [
    "--re-replicate-after",
    "2s",
    "--copy-rate",
    "64GiB",
    "--min-replicas",
    "1",
];

/// Copies of what is lost.
#[derive(Args, Debug)]
pub(crate) struct Recover {
    /// Where the servers and the plain program keep their data, in a directory that is removed at the end; the
    /// system's temporary directory if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of all files together, rounded up to 4 MiB; the disk must have room for three times as much
    #[arg(long, value_name = "BYTES", default_value = "2GiB", value_parser = size_of_something)]
    size: u64,
    /// How often each case is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

fn size_of_something(text: &str) -> Result<u64, String> {
    match units::parse_size(text)? {
        0 => Err("without any bytes there is nothing to copy".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Copies, as JSON.
#[derive(Serialize, Debug)]
struct CopyLine {
    case: &'static str,
    unit: &'static str,
    /// Median of the rounds: bytes of the copies, by the time from the first one to the last.
    value: f64,
    /// The plain program at its best: the median of its best manner.
    floor: f64,
    /// `value / floor`.
    ratio: f64,
    /// CPU seconds per GiB of copies, of all servers. Beside a reader there is none: they work for it as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s: Option<f64>,
    /// The same of the plain program.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_floor_s: Option<f64>,
    rounds: Vec<f64>,
    floor_rounds: Vec<f64>,
    /// How the plain program was at its best.
    floor_manner: String,
    /// Of all files, each counted once.
    bytes: u64,
    /// Copied, in each round.
    copied_rounds: Vec<u64>,
    /// From the kill to the first copy; median.
    grace_s: f64,
    /// Copies that had to be made again, in all rounds.
    copies_failed: u64,
    /// The most memory that any chunkserver had.
    rss_chunkserver_bytes: u64,
}

/// What a reader notices, as JSON.
#[derive(Serialize, Debug)]
struct ReaderLine {
    case: &'static str,
    unit: &'static str,
    /// While copies are made; median of the rounds.
    value: f64,
    /// Afterwards, from the same servers.
    alone: f64,
    /// `value / alone`.
    ratio: f64,
    rounds: Vec<f64>,
    alone_rounds: Vec<f64>,
}

/// How far a reader was.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(crate) struct Note {
    /// Microseconds since 1970.
    at: u64,
    /// Read since its start.
    bytes: u64,
}

/// What all files are.
#[derive(Clone, Copy, Debug)]
struct Files {
    bytes: u64,
    each: u64,
}

impl Files {
    fn new(size: u64) -> Self {
        let each = (size / FILES).next_multiple_of(SIZE_STEP);
        Self {
            bytes: size.next_multiple_of(SIZE_STEP),
            each: each.clamp(SIZE_STEP, FILE_BYTES_MAX),
        }
    }
    const fn count(self) -> u64 {
        self.bytes.div_ceil(self.each)
    }
    fn len(self, nth: u64) -> u64 {
        self.each.min(self.bytes - nth * self.each)
    }
}

fn path(nth: u64) -> Vec<u8> {
    format!("/bench-recover-{nth}").into_bytes()
}

/// Where in the source a file begins, so that one is not taken for another.
const fn begins(nth: u64) -> u64 {
    nth * 4_093
}

/// A recovery that was measured.
#[derive(Clone, Copy, Debug)]
struct Recovered {
    copies: Measured,
    bytes: u64,
    grace: Duration,
    failed: u64,
    reader: Option<Read>,
}

/// MB/s of a reader.
#[derive(Clone, Copy, Debug)]
struct Read {
    beside: f64,
    alone: f64,
}

/// Whether somebody reads meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    Absent,
    Reads,
}

/// Measures, and prints a table, or with `--json` a line per case.
pub(super) fn run(asked: &Recover, screen: &Screen, stop: &AtomicBool) -> Result<(), Failure> {
    let directory = directory(asked.dir.as_deref())?;
    let dir = directory.path();
    has_room(dir, asked.size)?;
    let files = Files::new(asked.size);
    screen.note(format!(
        "measuring with {} in {} files at replication {REPLICATION} in {}, {} rounds",
        units::size(files.bytes),
        files.count(),
        dir.display(),
        asked.rounds
    ));
    let mut floors = Floors::new(dir, stop);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let bar = screen.activity();
    for nth in 0..asked.rounds {
        let say = |what: &str| {
            bar.set_message(format!("round {} of {}: {what}", nth + 1, asked.rounds));
            bar.tick();
        };
        let recovers = |reader| {
            say(match reader {
                Reader::Absent => "copies",
                Reader::Reads => "copies beside a reader",
            });
            super::super::runtime()?.block_on(recovery(dir, files, reader, stop))
        };
        // The floor stands between the two that are held against it.
        alone.push(recovers(Reader::Absent)?);
        say("a plain program");
        let copied = alone.last().map_or(0, |recovered| recovered.bytes);
        floors.measure(Floor::Chain1Synced, copied, nth)?;
        settle(dir)?;
        beside.push(recovers(Reader::Reads)?);
    }
    bar.finish_and_clear();
    let copies = [
        copy_line("recover_copy", &alone, &floors, files),
        copy_line("recover_copy_beside_reader", &beside, &floors, files),
    ];
    let reader = reader_line(&beside);
    for line in &copies {
        screen.json(line)?;
    }
    screen.json(&reader)?;
    for line in table(&copies, &reader) {
        screen.line(line)?;
    }
    removed(directory)
}

fn has_room(dir: &Path, size: u64) -> Result<(), Failure> {
    let failed =
        |error: rustix::io::Errno| Failure::local("cannot tell what room there is", &error.into());
    let stat = rustix::fs::statvfs(dir).map_err(failed)?;
    let (free, needed) = (
        stat.f_bavail.saturating_mul(stat.f_frsize),
        size.saturating_mul(ROOM),
    );
    if needed <= free {
        return Ok(());
    }
    let what = format!(
        "{} has {} free, and {} are needed",
        dir.display(),
        units::size(free),
        units::size(needed)
    );
    Err(Failure::new(Status::NoRoom, what)
        .help("give another directory with '--dir', or less with '--size'"))
}

/// Waits until the disk has nothing more to do of what was written and removed.
fn settle(dir: &Path) -> Result<(), Failure> {
    let synced = File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    synced.map_err(|error| Failure::local(format!("cannot sync {}", dir.display()), &error))
}

/// Fills a cluster, kills a chunkserver of it, and measures until everything is there twice again.
async fn recovery(
    dir: &Path,
    files: Files,
    reader: Reader,
    stop: &AtomicBool,
) -> Result<Recovered, Failure> {
    let home = dir.join("cluster");
    let meta = Daemon::start("kfs-metaserver", home.join("meta"), &META_FLAGS)?;
    let mut left = process::chunkservers(&home, meta.listen, CHUNKSERVERS)?;
    for nth in 0..files.count() {
        go_on(stop)?;
        client::write(
            meta.listen,
            &path(nth),
            begins(nth),
            files.len(nth),
            REPLICATION,
            CALL_MAX,
        )
        .await?;
    }
    let kfs = client::connect(meta.listen, CALL_MAX);
    rests(&kfs, stop).await?;
    settle(dir)?;
    let (killed, lost) = has_most(&kfs, files).await?;
    let killed = left.iter().position(|server| server.listen == killed);
    let killed = left.swap_remove(killed.expect("it is one of them"));

    let flag = dir.join("reads-on");
    let reads = match reader {
        Reader::Absent => None,
        Reader::Reads => Some(reads(&flag, meta.listen, files, &left, stop).await?),
    };
    left.iter().try_for_each(Daemon::forget_peak)?;
    let read_before = counted(&left, "bytes_read")?;
    let cpu_before = cpu_seconds(&meta, &left)?;
    // Dropped, it is killed.
    drop(killed);
    let watched = watch(&kfs, lost, stop).await?;
    let copies = Measured {
        seconds: (watched.ended.0 - watched.began.0).as_secs_f64(),
        cpu_s: cpu_seconds(&meta, &left)? - cpu_before,
        rss_bytes: peak_bytes(&left)?,
    };
    let case = match reader {
        Reader::Absent => "recover_copy",
        Reader::Reads => "recover_copy_beside_reader",
    };
    let reader = match reads {
        None => None,
        Some(reads) => {
            let (read, got) = read_by(reads, &flag, &watched, stop).await?;
            // To copy is to read, too.
            let least = read_before + watched.bytes + got;
            check_counter(&left, case, "bytes_read", least..=u64::MAX)?;
            Some(read)
        }
    };
    let most = if watched.failed == 0 {
        watched.bytes
    } else {
        u64::MAX
    };
    check_counter(&left, case, "bytes_copied", watched.bytes..=most)?;
    is_whole(&kfs, files, stop).await?;
    kfs.disconnect().await;
    left.into_iter().try_for_each(Daemon::stop)?;
    meta.stop()?;
    std::fs::remove_dir_all(&home)
        .map_err(|error| Failure::local(format!("cannot remove {}", home.display()), &error))?;
    settle(dir)?;
    Ok(Recovered {
        copies,
        bytes: watched.bytes,
        grace: watched.grace,
        failed: watched.failed,
        reader,
    })
}

fn cpu_seconds(meta: &Daemon, chunkservers: &[Daemon]) -> Result<f64, Failure> {
    let all = std::iter::once(meta).chain(chunkservers);
    all.map(Daemon::cpu_seconds).sum()
}

fn peak_bytes(servers: &[Daemon]) -> Result<u64, Failure> {
    let mut peaks = servers.iter().map(Daemon::peak_bytes);
    peaks.try_fold(0, |most, peak| Ok(most.max(peak?)))
}

/// Waits until all files have their replicas, and nothing is being done about any.
async fn rests(kfs: &Kfs, stop: &AtomicBool) -> Result<(), Failure> {
    let since = Instant::now();
    loop {
        go_on(stop)?;
        let status = kfs.status().await?;
        let work = &status.replication_work;
        if status.chunks_under_replicated + work.waiting + work.copying == 0 {
            return Ok(());
        }
        stands(since, "files do not come to rest")?;
        tokio::time::sleep(LOOKS).await;
    }
}

fn stands(since: Instant, what: &str) -> Result<(), Failure> {
    if since.elapsed() < STANDS_MAX {
        return Ok(());
    }
    let what = format!("{what} in {} s", STANDS_MAX.as_secs());
    Err(Failure::new(Status::TimedOut, what))
}

/// All chunks of a file, and who has them.
async fn chunks(kfs: &Kfs, nth: u64) -> Result<Vec<ChunkPlaces>, Failure> {
    let file = kfs.stat(&path(nth)).await?.file;
    Ok(kfs.locate(file, 0).await?.chunks)
}

/// The chunkserver that has most, and how much that is.
async fn has_most(kfs: &Kfs, files: Files) -> Result<(SocketAddr, u64), Failure> {
    let mut held = BTreeMap::<SocketAddr, u64>::new();
    for nth in 0..files.count() {
        for chunk in chunks(kfs, nth).await? {
            for replica in chunk.replicas {
                *held.entry(replica.addr).or_default() += chunk.log.len;
            }
        }
    }
    let most = held.into_iter().max_by_key(|(_, bytes)| *bytes);
    Ok(most.expect("there is a file"))
}

/// What was seen of the copies.
#[derive(Clone, Copy, Debug)]
struct Watched {
    grace: Duration,
    /// By both clocks: the reader is another process.
    began: (Instant, u64),
    ended: (Instant, u64),
    bytes: u64,
    failed: u64,
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Looks on until everything that was lost is copied.
async fn watch(kfs: &Kfs, lost: u64, stop: &AtomicBool) -> Result<Watched, Failure> {
    let killed = Instant::now();
    let (mut began, mut moved) = (None, (killed, 0));
    loop {
        go_on(stop)?;
        let status = kfs.status().await?;
        let (now, work) = ((Instant::now(), micros()), &status.replication_work);
        if began.is_none() && work.copying + work.copied > 0 {
            began = Some(now);
        }
        if let Some(began) = began
            && work.copied_bytes >= lost
            && status.chunks_under_replicated + work.copying == 0
        {
            if work.copied_bytes > lost {
                let what = format!(
                    "{} bytes were copied, and {lost} were lost",
                    work.copied_bytes
                );
                return Err(Failure::new(Status::Protocol, what));
            }
            return Ok(Watched {
                grace: began.0 - killed,
                began,
                ended: now,
                bytes: work.copied_bytes,
                failed: work.failed,
            });
        }
        if work.copied_bytes > moved.1 {
            moved = (now.0, work.copied_bytes);
        }
        stands(moved.0, "no copy was made")?;
        tokio::time::sleep(LOOKS).await;
    }
}

/// Starts a reader, and waits until it reads.
async fn reads(
    flag: &Path,
    meta: SocketAddr,
    files: Files,
    servers: &[Daemon],
    stop: &AtomicBool,
) -> Result<Beside, Failure> {
    let failed =
        |error: std::io::Error| Failure::local(format!("cannot make {}", flag.display()), &error);
    File::create(flag).map_err(failed)?;
    let before = counted(servers, "bytes_read")?;
    let reader = Beside::start(&[
        "client-read-on".into(),
        meta.to_string(),
        files.count().to_string(),
        flag.display().to_string(),
    ])?;
    let since = Instant::now();
    while counted(servers, "bytes_read")? == before {
        go_on(stop)?;
        stands(since, "the reader read nothing")?;
        tokio::time::sleep(LOOKS).await;
    }
    Ok(reader)
}

/// What the reader reached, and what it got since copies began. It reads on for a while without them.
async fn read_by(
    reader: Beside,
    flag: &Path,
    watched: &Watched,
    stop: &AtomicBool,
) -> Result<(Read, u64), Failure> {
    let took = watched.ended.0 - watched.began.0;
    while watched.ended.0.elapsed() < took.clamp(ALONE_MIN, ALONE_MAX) {
        go_on(stop)?;
        tokio::time::sleep(LOOKS).await;
    }
    let alone_until = micros();
    let failed =
        |error: std::io::Error| Failure::local(format!("cannot remove {}", flag.display()), &error);
    std::fs::remove_file(flag).map_err(failed)?;
    let notes: Vec<Note> = reader.finish()?;
    let (began, ended) = (watched.began.1, watched.ended.1);
    let at = |micros: u64| read_until(&notes, micros);
    let rate = |from: u64, to: u64| {
        let took = to.saturating_sub(from).max(1);
        (at(to) - at(from)) as f64 / took as f64
    };
    let read = Read {
        beside: rate(began, ended),
        alone: rate(ended, alone_until),
    };
    Ok((read, at(alone_until) - at(began)))
}

/// Bytes that were read until then, in between two notes by the time.
fn read_until(notes: &[Note], micros: u64) -> u64 {
    let next = notes.partition_point(|note| note.at <= micros);
    let Some(before) = next.checked_sub(1).map(|before| notes[before]) else {
        return 0;
    };
    let Some(after) = notes.get(next) else {
        return before.bytes;
    };
    let (bytes, took) = (after.bytes - before.bytes, after.at - before.at);
    before.bytes + bytes * (micros - before.at) / took
}

/// Is a reader: reads all files again and again for as long as the flag is there.
pub(super) async fn read_on(
    meta: SocketAddr,
    files: u64,
    flag: &Path,
    timeout: Duration,
) -> Result<Vec<Note>, Failure> {
    let kfs = client::connect(meta, timeout);
    let mut notes = vec![Note {
        at: micros(),
        bytes: 0,
    }];
    let (mut bytes, mut noted) = (0, Instant::now());
    'reads: for nth in (0..files).cycle() {
        let reader = kfs.open(&path(nth)).await?;
        let mut stream = reader.stream(0, reader.attrs().size);
        while let Some(chunked) = stream.next().await {
            let parts = chunked?.parts;
            bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            if noted.elapsed() < NOTES {
                continue;
            }
            noted = Instant::now();
            let at = micros();
            notes.push(Note { at, bytes });
            if !flag.exists() {
                break 'reads;
            }
        }
    }
    kfs.disconnect().await;
    Ok(notes)
}

/// Every chunk is where it should be, and some files are read and compared: all they hold, and each replica of them.
async fn is_whole(kfs: &Kfs, files: Files, stop: &AtomicBool) -> Result<(), Failure> {
    let step = files.count().div_ceil(READ_AGAIN);
    for nth in 0..files.count() {
        go_on(stop)?;
        let name = String::from_utf8_lossy(&path(nth)).into_owned();
        let bad = |what: String| Failure::new(Status::Corrupt, format!("{name}: {what}"));
        let file = kfs.stat(&path(nth)).await?.file;
        let located = kfs.locate(file, 0).await?;
        let held: u64 = located.chunks.iter().map(|chunk| chunk.log.len).sum();
        if held != files.len(nth) {
            return Err(bad(format!("it has {held} bytes of {}", files.len(nth))));
        }
        for chunk in &located.chunks {
            if chunk.replicas.len() != usize::from(REPLICATION) {
                return Err(bad(format!(
                    "chunk {} has {} replicas after all copies were made",
                    chunk.chunk,
                    chunk.replicas.len()
                )));
            }
            if !nth.is_multiple_of(step) {
                continue;
            }
            for replica in &chunk.replicas {
                kfs.verify_replica(located.geometry, chunk, *replica)
                    .await?;
            }
        }
        if nth.is_multiple_of(step) && !client::is_as_written(kfs, &path(nth), begins(nth)).await? {
            return Err(bad("it is not what was written".to_owned()));
        }
    }
    Ok(())
}

fn copy_line(
    case: &'static str,
    rounds: &[Recovered],
    floors: &Floors<'_>,
    files: Files,
) -> CopyLine {
    let mut all = Rounds::default();
    for recovered in rounds {
        all.add(recovered.copies, recovered.bytes);
    }
    let graces: Vec<f64> = rounds.iter().map(|of| of.grace.as_secs_f64()).collect();
    let is_alone = rounds.iter().all(|recovered| recovered.reader.is_none());
    let (manner, floor) = floors.steadily_best(Floor::Chain1Synced);
    let (value, floor_value) = (median(&all.mb_per_s), median(&floor.mb_per_s));
    let cpu = |rounds: &Rounds| is_alone.then(|| round(median(&rounds.cpu_per_gib), 2));
    let peaks = rounds.iter().map(|recovered| recovered.copies.rss_bytes);
    CopyLine {
        case,
        unit: "MB/s",
        value: round(value, 1),
        floor: round(floor_value, 1),
        ratio: round(value / floor_value, 3),
        cpu_s: cpu(&all),
        cpu_floor_s: cpu(floor),
        rounds: tenths(&all.mb_per_s),
        floor_rounds: tenths(&floor.mb_per_s),
        floor_manner: manner.text(),
        bytes: files.bytes,
        copied_rounds: rounds.iter().map(|recovered| recovered.bytes).collect(),
        grace_s: round(median(&graces), 2),
        copies_failed: rounds.iter().map(|recovered| recovered.failed).sum(),
        rss_chunkserver_bytes: peaks.max().unwrap_or(0),
    }
}

fn reader_line(rounds: &[Recovered]) -> ReaderLine {
    let reads = rounds.iter().filter_map(|recovered| recovered.reader);
    let (beside, alone): (Vec<f64>, Vec<f64>) = reads.map(|read| (read.beside, read.alone)).unzip();
    let (value, alone_value) = (median(&beside), median(&alone));
    ReaderLine {
        case: "recover_reader",
        unit: "MB/s",
        value: round(value, 1),
        alone: round(alone_value, 1),
        ratio: round(value / alone_value, 3),
        rounds: tenths(&beside),
        alone_rounds: tenths(&alone),
    }
}

fn table(copies: &[CopyLine], reader: &ReaderLine) -> Vec<String> {
    let mut table = vec![format!(
        "{:<27}{:>8}{:>8}{:>7}{:>11}{:>8}{:>9}{:>13}  {}",
        "case",
        "MB/s",
        "floor",
        "ratio",
        "CPU s/GiB",
        "floor",
        "grace",
        "chunkserver",
        "floor at its best"
    )];
    let cpu = |cpu: Option<f64>| cpu.map_or_else(String::new, |cpu| format!("{cpu:.2}"));
    for line in copies {
        table.push(format!(
            "{:<27}{:>8.0}{:>8.0}{:>7.2}{:>11}{:>8}{:>9}{:>13}  {}",
            line.case,
            line.value,
            line.floor,
            line.ratio,
            cpu(line.cpu_s),
            cpu(line.cpu_floor_s),
            format!("{:.2} s", line.grace_s),
            units::size(line.rss_chunkserver_bytes),
            line.floor_manner
        ));
    }
    table.push(format!(
        "{:<27}{:>8.0}{:>8.0}{:>7.2}  of what it reaches when no copies are made",
        reader.case, reader.value, reader.alone, reader.ratio
    ));
    table.push(String::from(
        "Medians. Copies count from the first to the last, each durable on the server that has it; the floor sends as\n\
         many bytes into one file and syncs it. The grace is what passes before it, from the kill on. All files have\n\
         all of their replicas afterwards, and some were read and compared with what was written.",
    ));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_as_large_together_as_was_asked_for() {
        for (size, count, each, last) in [
            (1, 1, 4, 4),
            (16 << 20, 4, 4, 4),
            (129 << 20, 11, 12, 12),
            (2 << 30, 32, 64, 64),
            ((2 << 30) + 1, 33, 64, 4),
        ] {
            let files = Files::new(size);
            let lens: Vec<u64> = (0..files.count()).map(|nth| files.len(nth)).collect();
            let ends = (lens[0] >> 20, lens[lens.len() - 1] >> 20);
            assert_eq!((ends, files.count()), ((each, last), count), "{size}");
            assert_eq!(lens.iter().sum::<u64>(), files.bytes);
        }
    }

    #[test]
    fn what_was_read_between_two_notes_is_in_between() {
        let note = |at, bytes| Note { at, bytes };
        let notes = [note(10, 0), note(20, 100), note(40, 200)];
        for (micros, bytes) in [(5, 0), (10, 0), (15, 50), (30, 150), (99, 200)] {
            assert_eq!(read_until(&notes, micros), bytes, "{micros}");
        }
    }

    #[test]
    fn nothing_cannot_be_copied() {
        assert_eq!(size_of_something("4MiB"), Ok(4 << 20));
        assert!(size_of_something("0").is_err() && size_of_something("0MiB").is_err());
    }
}
