//! Floors: what this machine gives to a plain program that moves the same bytes over as many loopback hops
//! into as many files, with no checksums and no protocol. Every hop is a process.
//!
//! The program is as plain as it looks on purpose: it is what the file system is held against.
use super::process::{Measured, cpu_seconds_with_children, spawn_part};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What `O_DIRECT` asks of addresses, lengths and offsets, at most.
const ALIGNMENT: usize = 4_096;
const MIB: usize = 1 << 20;

/// How a plain program writes or reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Manner {
    pub(super) buffer_bytes: usize,
    pub(super) cache: Cache,
}

/// Whether the page cache is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Cache {
    /// It is.
    Buffered,
    /// `O_DIRECT`.
    Direct,
}

/// What is done before a hop says that it has everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Ending {
    /// Nothing: it is written.
    Written,
    /// The file is synced.
    Synced,
}

impl Ending {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

impl Cache {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Direct => "direct",
        }
    }
}

impl Manner {
    pub(super) fn text(self) -> String {
        let size = match self.buffer_bytes {
            bytes if bytes >= MIB => format!("{} MiB", bytes / MIB),
            bytes => format!("{} KiB", bytes >> 10),
        };
        match self.cache {
            Cache::Buffered => format!("buffered {size}"),
            Cache::Direct => format!("O_DIRECT {size}"),
        }
    }

    pub(super) fn arguments(self) -> [String; 2] {
        [self.buffer_bytes.to_string(), self.cache.name().to_owned()]
    }

    fn flags(self) -> i32 {
        match self.cache {
            Cache::Buffered => 0,
            Cache::Direct => rustix::fs::OFlags::DIRECT.bits().cast_signed(),
        }
    }
}

/// Whether files in this directory can be opened with `O_DIRECT`; on a memory file system they cannot.
pub(super) fn takes_direct(dir: &Path) -> bool {
    let path = dir.join("floor-probe");
    let manner = Manner {
        buffer_bytes: ALIGNMENT,
        cache: Cache::Direct,
    };
    let written = create(&path, manner).and_then(|file| {
        let mut raw = Vec::new();
        file.write_all_at(aligned(&mut raw, ALIGNMENT), 0)
    });
    let _ = std::fs::remove_file(&path);
    written.is_ok()
}

fn create(path: &Path, manner: Manner) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .custom_flags(manner.flags())
        .open(path)
}

/// A part of `raw` that is as long as asked and begins where `O_DIRECT` wants it.
fn aligned(raw: &mut Vec<u8>, len: usize) -> &mut [u8] {
    raw.resize(len + ALIGNMENT, 0);
    let skew = raw.as_ptr().align_offset(ALIGNMENT);
    &mut raw[skew..skew + len]
}

/// Sends `bytes` through `hops` processes, each of which passes them on and writes them to a file of its own.
pub(super) fn chain(
    hops: usize,
    dir: &Path,
    bytes: u64,
    manner: Manner,
    ending: Ending,
) -> io::Result<Measured> {
    let (mut next, mut processes, mut files) = (0_u16, Vec::new(), Vec::new());
    for hop in 0..hops {
        let path = dir.join(format!("floor-{hop}"));
        let [size, cache] = manner.arguments();
        let (process, port) = listening(&[
            "floor-hop".into(),
            next.to_string(),
            path.display().to_string(),
            size,
            cache,
            ending.name().into(),
        ])?;
        next = port;
        processes.push(process);
        files.push(path);
    }
    let source = super::source();
    let started = Instant::now();
    let mut to = TcpStream::connect((Ipv4Addr::LOCALHOST, next))?;
    let mut sent = 0_u64;
    while sent < bytes {
        let from = usize::try_from(sent % source.len() as u64).expect("within the source");
        let left = usize::try_from(bytes - sent).unwrap_or(usize::MAX);
        let len = (source.len() - from).min(MIB).min(left);
        to.write_all(&source[from..from + len])?;
        sent += len as u64;
    }
    to.shutdown(Shutdown::Write)?;
    to.read_exact(&mut [0])?;
    let seconds = started.elapsed().as_secs_f64();
    for mut process in processes {
        process.wait()?;
    }
    for path in files {
        std::fs::remove_file(path)?;
    }
    Ok(Measured {
        seconds,
        cpu_s: cpu_seconds_with_children()?,
        rss_bytes: 0,
    })
}

/// One hop: receives, passes on, writes, and perhaps syncs.
pub(super) fn hop(next: u16, path: &Path, manner: Manner, ending: Ending) -> io::Result<()> {
    let mut from = accept()?;
    let mut next = match next {
        0 => None,
        port => Some(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?),
    };
    let file = create(path, manner)?;
    let mut raw = Vec::new();
    let buffer = aligned(&mut raw, manner.buffer_bytes);
    let mut at = 0;
    loop {
        let have = fill(&mut from, buffer)?;
        if have == 0 {
            break;
        }
        if let Some(next) = &mut next {
            next.write_all(&buffer[..have])?;
        }
        file.write_all_at(&buffer[..have], at)?;
        at += have as u64;
    }
    if ending == Ending::Synced {
        file.sync_data()?;
    }
    if let Some(mut next) = next {
        next.shutdown(Shutdown::Write)?;
        next.read_exact(&mut [0])?;
    }
    from.write_all(&[1])
}

/// The file for [`read`].
pub(super) fn read_from(dir: &Path) -> PathBuf {
    dir.join("floor-read")
}

/// Writes the file for [`read`], in the page cache afterwards.
pub(super) fn prepare(dir: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(read_from(dir))?;
    let block = vec![7; MIB];
    for at in (0..bytes).step_by(MIB) {
        file.write_all_at(&block, at)?;
    }
    file.sync_all()
}

/// Receives a file that another process reads.
pub(super) fn read(path: &Path, buffer_bytes: usize) -> io::Result<(Measured, u64)> {
    let (mut process, port) = listening(&[
        "floor-serve".into(),
        path.display().to_string(),
        buffer_bytes.to_string(),
    ])?;
    let started = Instant::now();
    let mut from = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (mut buffer, mut got) = (vec![0; buffer_bytes], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => got += n as u64,
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    process.wait()?;
    Ok((
        Measured {
            seconds,
            cpu_s: cpu_seconds_with_children()?,
            rss_bytes: 0,
        },
        got,
    ))
}

/// The other end of [`read`].
pub(super) fn serve(path: &Path, buffer_bytes: usize) -> io::Result<()> {
    let mut to = accept()?;
    let file = File::open(path)?;
    let (mut buffer, mut at) = (vec![0; buffer_bytes], 0);
    loop {
        let n = file.read_at(&mut buffer, at)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n])?;
        at += n as u64;
    }
}

/// Starts a process that says on which port it listens.
fn listening(arguments: &[String]) -> io::Result<(std::process::Child, u16)> {
    let mut process = spawn_part(arguments)?;
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().expect("its output is a pipe")).read_line(&mut line)?;
    match line.trim().parse() {
        Ok(port) => Ok((process, port)),
        Err(_) => Err(io::Error::other(format!(
            "the process '{}' did not start",
            arguments[0]
        ))),
    }
}

fn accept() -> io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?.port())?;
    out.flush()?;
    Ok(listener.accept()?.0)
}

fn fill(from: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match from.read(&mut buffer[have..])? {
            0 => break,
            n => have += n,
        }
    }
    Ok(have)
}
