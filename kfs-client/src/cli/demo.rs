//! `kfs demo`: the whole of it in a minute, on servers inside this process and real files.
//!
//! A file is stored on three of four chunkservers, the one that served its first chunk is killed, the file is
//! read back from the others, and what the dead one had is copied to who is left. Each step is a line, or with `--json` an object.
use super::checksum::{Summing, hex};
use super::embedded::Embedded;
use super::failure::{Exit, Failure};
use super::pieces;
use super::reach::Reach;
use super::screen::{Form, Screen};
use super::signals::Signals;
use super::transfer::ownership;
use super::units;
use bytes::Bytes;
use clap::Args;
use kfs_client::{CreateOptions, Kfs};
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Keep, Parents, ServerState};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const DIRECTORY: &[u8] = b"/demo";
const FILE: &[u8] = b"/demo/file";
const REPLICAS: u8 = 3;
/// So soon what a dead server had is copied to others: people watch.
const RE_REPLICATE_AFTER: Duration = Duration::from_secs(2);
/// How long copies may take, beside what their bytes take.
const COPIES_WITHIN: Duration = Duration::from_secs(60);
/// So much is copied in a second even by a slow disk.
const COPIED_A_SECOND: u64 = 8 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Store a file, kill a server, read the file back, see the lost copies made again.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Where the servers keep their data; a fresh temporary directory, removed at the end, if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many chunkservers; a file has three replicas, and one server is killed
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=64))]
    chunkservers: u8,
    /// Size of the file
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = units::parse_size)]
    size: u64,
    /// End after the tour instead of staying up
    #[arg(long)]
    exit: bool,
}

/// A step of the tour, as JSON.
#[derive(Serialize, Debug)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Step<'a> {
    Started {
        dir: &'a Path,
        meta: SocketAddr,
        http: Option<SocketAddr>,
        chunkservers: Vec<SocketAddr>,
    },
    Stored {
        path: &'a str,
        bytes: u64,
        replicas: u8,
        sha256: &'a str,
        seconds: f64,
    },
    Killed {
        chunkserver: SocketAddr,
        port_refuses: bool,
    },
    Read {
        bytes: u64,
        sha256: &'a str,
        equal: bool,
        seconds: f64,
        replicas: Vec<SocketAddr>,
    },
    CopiesMade {
        copies: u64,
        bytes: u64,
        seconds: f64,
    },
    StaysUp {
        meta: SocketAddr,
    },
}

/// Gives the tour.
pub(crate) async fn run(asked: &Demo, timeout: Duration, screen: &Screen) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    // Kept to the end: dropping it removes it, with the servers' data, after they have stopped.
    let (dir, _temporary) = match &asked.dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let made = tempfile::Builder::new().prefix("kfs-demo-").tempdir();
            let made =
                made.map_err(|error| Failure::local("cannot make a temporary directory", &error))?;
            (made.path().to_path_buf(), Some(made))
        }
    };
    let embedded = tokio::select! {
        biased;
        () = signals.raised() => return Err(Failure::interrupted()),
        embedded = Embedded::impatient(&dir, usize::from(asked.chunkservers), RE_REPLICATE_AFTER) => embedded?,
    };
    let reach = Reach::to(embedded.meta(), timeout);
    let outcome = tokio::select! {
        biased;
        () = signals.raised() => Err(Failure::interrupted()),
        toured = tour(asked, &dir, &embedded, &reach.kfs, screen) => toured,
    };
    let mut outcome = outcome.and_then(|()| screen.flush());
    if outcome.is_ok() && !asked.exit {
        outcome = invite(&embedded, screen).and_then(|()| screen.flush());
        if outcome.is_ok() {
            signals.raised().await;
        }
    }
    signals.exit_on_the_next();
    reach.leave().await;
    embedded.stop().await;
    outcome.map(|()| Exit::Done)
}

async fn tour(
    asked: &Demo,
    dir: &Path,
    embedded: &Embedded,
    kfs: &Kfs,
    screen: &Screen,
) -> Result<(), Failure> {
    let addresses: Vec<SocketAddr> = embedded
        .chunkservers
        .iter()
        .map(|server| server.listen)
        .collect();
    screen.json(&Step::Started {
        dir,
        meta: embedded.meta(),
        http: embedded.meta_http(),
        chunkservers: addresses.clone(),
    })?;
    step(
        screen,
        format!("data of all servers is in {}", dir.display()),
    )?;
    step(
        screen,
        format!("a meta server listens on {}", embedded.meta()),
    )?;
    step(
        screen,
        format!(
            "{} chunkservers listen on {}",
            addresses.len(),
            list(&addresses)
        ),
    )?;

    let (stored, seconds) = store(kfs, asked.size).await?;
    let text = format!(
        "stored /demo/file: {} at {REPLICAS} replicas in {seconds:.1} s ({:.0} MB/s), synced on all of them",
        units::size(asked.size),
        asked.size as f64 / 1e6 / seconds
    );
    step(screen, text)?;
    step(screen, format!("    SHA-256 {stored}"))?;
    screen.json(&Step::Stored {
        path: "/demo/file",
        bytes: asked.size,
        replicas: REPLICAS,
        sha256: &stored,
        seconds,
    })?;

    let victim = first_replica(kfs).await?.unwrap_or(addresses[0]);
    let server = embedded
        .chunkservers
        .iter()
        .find(|server| server.listen == victim);
    let server = server.ok_or_else(|| {
        Failure::new(
            Status::Protocol,
            format!("{victim} served the file, but is no chunkserver of this cluster"),
        )
    })?;
    step(
        screen,
        format!("{victim} just served the beginning of the file: killing that chunkserver"),
    )?;
    server.kill().await;
    let refuses = refuses(victim);
    screen.json(&Step::Killed {
        chunkserver: victim,
        port_refuses: refuses,
    })?;
    if !refuses {
        return Err(Failure::new(
            Status::Protocol,
            format!("the chunkserver on {victim} was killed, but its port answers"),
        ));
    }
    step(
        screen,
        format!(
            "its port refuses connections now; {} chunkservers are left",
            addresses.len() - 1
        ),
    )?;

    let read = read_back(kfs).await?;
    let text = format!(
        "read /demo/file back: {} in {:.1} s ({:.0} MB/s)",
        units::size(read.bytes),
        read.seconds,
        read.bytes as f64 / 1e6 / read.seconds
    );
    step(screen, text)?;
    for (replica, chunks) in &read.from {
        step(
            screen,
            format!("    from the replica on {replica}: {}", chunks_of(chunks)),
        )?;
    }
    step(screen, format!("    SHA-256 {}", read.sha256))?;
    let equal = read.sha256 == stored && read.bytes == asked.size;
    let replicas: Vec<SocketAddr> = read.from.keys().copied().collect();
    screen.json(&Step::Read {
        bytes: read.bytes,
        sha256: &read.sha256,
        equal,
        seconds: read.seconds,
        replicas,
    })?;
    if !equal {
        return Err(Failure::new(
            Status::Corrupt,
            format!(
                "/demo/file was stored as {stored}, but came back as {}",
                read.sha256
            ),
        ));
    }
    step(screen, "both sums are equal: the file survived its server")?;
    if usize::from(REPLICAS) < addresses.len() {
        copied(kfs, victim, asked.size, screen).await
    } else {
        step(
            screen,
            format!(
                "nobody is left who could get what it had: {REPLICAS} replicas need {REPLICAS} servers"
            ),
        )
    }
}

/// Waits until every chunk has all of its replicas again.
async fn copied(kfs: &Kfs, victim: SocketAddr, size: u64, screen: &Screen) -> Result<(), Failure> {
    let started = Instant::now();
    let within = COPIES_WITHIN + Duration::from_secs(size / COPIED_A_SECOND);
    let mut said = false;
    loop {
        let status = kfs.status().await?;
        let work = &status.replication_work;
        let is_noticed = status
            .servers
            .iter()
            .any(|server| server.addr == Some(victim) && server.state != ServerState::Up);
        if is_noticed && !said {
            said = true;
            let text = format!(
                "{} one replica less now; after {} s without the server others get copies",
                match status.chunks_under_replicated {
                    1 => "1 chunk has".to_owned(),
                    chunks => format!("{chunks} chunks have"),
                },
                RE_REPLICATE_AFTER.as_secs()
            );
            step(screen, text)?;
        }
        if is_noticed && status.chunks_under_replicated == 0 {
            let seconds = started.elapsed().as_secs_f64();
            let (copies, bytes) = (work.copied, work.copied_bytes);
            screen.json(&Step::CopiesMade {
                copies,
                bytes,
                seconds,
            })?;
            let made = match copies {
                1 => "1 copy was".to_owned(),
                copies => format!("{copies} copies were"),
            };
            let text = format!(
                "{made} made ({}), {seconds:.1} s later: every chunk has its {REPLICAS} replicas again",
                units::size(bytes)
            );
            return step(screen, text);
        }
        if started.elapsed() > within {
            let lacking = status.chunks_under_replicated;
            let what = format!(
                "{lacking} chunks still lack a replica after {} s; {} copies could not be made",
                within.as_secs(),
                work.failed
            );
            return Err(Failure::new(Status::Busy, what));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A line, seen at once.
fn step(screen: &Screen, text: impl AsRef<[u8]>) -> Result<(), Failure> {
    screen.line(text)?;
    screen.flush()
}

/// Makes up a file and stores it, durably, under its final name only when it is whole.
async fn store(kfs: &Kfs, size: u64) -> Result<(String, f64), Failure> {
    kfs.mkdir(DIRECTORY, Parents::Make, ownership(0o755))
        .await?;
    // Of an earlier demo in the same directory.
    match kfs.remove(FILE).await {
        Err(error) if error.status != Status::NotFound => return Err(error.into()),
        _ => {}
    }
    let started = Instant::now();
    let options = CreateOptions {
        owner: ownership(0o644),
        replication: REPLICAS,
        keep: Keep::Always,
    };
    let mut writer = kfs.create(FILE, options).await?;
    let (sum, summed) = mpsc::channel();
    let mut made = pieces::read(Made {
        left: size,
        state: kfs_drive::entropy() | 1,
        sum: Some((Sha256::new(), sum)),
    });
    while let Some(piece) = made.recv().await {
        writer
            .write(piece.map_err(|error| Failure::local("cannot make data", &error))?)
            .await?;
    }
    writer.close().await?;
    let sha256 = summed
        .recv()
        .expect("a source that was read to its end has told its sum");
    Ok((sha256, started.elapsed().as_secs_f64()))
}

/// Bytes that no two demos share, summed as they are made.
struct Made {
    left: u64,
    state: u64,
    sum: Option<(Sha256, mpsc::Sender<String>)>,
}

impl Read for Made {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..len];
        for word in buffer.chunks_mut(8) {
            // Marsaglia's xorshift64.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
        if let Some((sum, _)) = &mut self.sum {
            sum.update(&*buffer);
        }
        self.left -= len as u64;
        if self.left == 0
            && let Some((sum, told)) = self.sum.take()
        {
            // Nobody asks if the demo has failed meanwhile.
            let _ = told.send(hex(&sum.finalize()));
        }
        Ok(len)
    }
}

/// Which replica serves the first bytes; none if there are no bytes.
async fn first_replica(kfs: &Kfs) -> Result<Option<SocketAddr>, Failure> {
    let reader = kfs.open(FILE).await?;
    let first = reader.read_at(0, 1).await?;
    Ok(first.from.first().map(|(_, replica)| *replica))
}

/// Whether a server that is gone leaves a port that refuses.
fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(2))
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

struct ReadBack {
    bytes: u64,
    sha256: String,
    seconds: f64,
    /// The chunks that each replica served.
    from: BTreeMap<SocketAddr, Vec<u64>>,
}

async fn read_back(kfs: &Kfs) -> Result<ReadBack, Failure> {
    let started = Instant::now();
    let reader = kfs.open(FILE).await?;
    let mut stream = reader.stream(0, reader.attrs().size);
    let sink = pieces::Sink::new(Summing::default());
    let mut read = ReadBack {
        bytes: 0,
        sha256: String::new(),
        seconds: 0.0,
        from: BTreeMap::new(),
    };
    while let Some(chunked) = stream.next().await {
        let chunked = chunked?;
        for (chunk, replica) in chunked.from {
            let chunks = read.from.entry(replica).or_default();
            if !chunks.contains(&chunk) {
                chunks.push(chunk);
            }
        }
        read.bytes += chunked
            .parts
            .iter()
            .map(|part: &Bytes| part.len() as u64)
            .sum::<u64>();
        if sink.write(chunked.parts).await.is_err() {
            break;
        }
    }
    let sum = sink
        .end()
        .await
        .map_err(|error| Failure::local("cannot sum", &error))?;
    read.sha256 = sum.hex();
    read.seconds = started.elapsed().as_secs_f64();
    Ok(read)
}

/// `chunk 0`, `chunks 0-3 and 5`.
fn chunks_of(chunks: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut sorted = chunks.to_vec();
    sorted.sort_unstable();
    for chunk in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == chunk => *last = chunk,
            _ => runs.push((chunk, chunk)),
        }
    }
    let runs = runs.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    format!(
        "chunk{} {}",
        if chunks.len() == 1 { "" } else { "s" },
        runs.collect::<Vec<_>>().join(", ")
    )
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(SocketAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What may be tried while it stays up.
fn invite(embedded: &Embedded, screen: &Screen) -> Result<(), Failure> {
    screen.json(&Step::StaysUp {
        meta: embedded.meta(),
    })?;
    if screen.form == Form::Json {
        return Ok(());
    }
    // As it was called, so that the line can be pasted.
    let program = std::env::args().next().unwrap_or_else(|| "kfs".into());
    let meta = embedded.meta();
    screen.line("")?;
    screen.line("The cluster stays up until Ctrl-C. Try:")?;
    screen.line(format!("    export KFS_META={meta}"))?;
    for command in [
        "ls -lR /",
        "status",
        "put Cargo.toml /hello",
        "cat /hello",
        "get /demo/file /tmp/kfs-demo-file",
        "rm -r /demo",
    ] {
        screen.line(format!("    {program} {command}"))?;
    }
    if let Some(http) = embedded.meta_http() {
        screen.line(format!("    curl http://{http}/status.json"))?;
    }
    for server in &embedded.chunkservers {
        if let Some(http) = server.http.filter(|_| !refuses(server.listen)) {
            screen.line(format!(
                "    curl http://{http}/status.json    # chunkserver {}",
                server.listen
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_told_in_runs() {
        assert_eq!(chunks_of(&[0]), "chunk 0");
        assert_eq!(chunks_of(&[3, 0, 1, 2, 7]), "chunks 0-3, 7");
    }

    #[test]
    fn the_sum_told_is_that_of_the_bytes_made() {
        for len in [0, 1, 8, 4_095, 1 << 20] {
            let (sum, summed) = mpsc::channel();
            let mut made = Made {
                left: len,
                state: 7,
                sum: Some((Sha256::new(), sum)),
            };
            let mut bytes = Vec::new();
            made.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, len);
            assert_eq!(summed.recv().unwrap(), hex(&Sha256::digest(&bytes)));
        }
    }
}
