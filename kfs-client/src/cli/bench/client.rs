//! The client of a benchmark: a process of its own that writes or reads one file over TCP.
use super::process::{Measured, own_cpu_seconds, own_peak_bytes};
use crate::cli::failure::Failure;
use crate::cli::transfer::ownership;
use bytes::Bytes;
use kfs_client::{CreateOptions, Kfs, Options};
use kfs_core::limits::Limits;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::Keep;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PIECE_BYTES: usize = 1 << 20;

pub(super) fn connect(meta: SocketAddr, timeout: Duration) -> Kfs {
    Kfs::connect(Options {
        meta,
        timeout,
        seed: kfs_drive::entropy(),
        limits: Limits::REAL,
    })
}

fn measured(started: Instant) -> Result<Measured, Failure> {
    let seconds = started.elapsed().as_secs_f64();
    let failed =
        |error: &std::io::Error| Failure::local("cannot tell what this process cost", error);
    Ok(Measured {
        seconds,
        cpu_s: own_cpu_seconds().map_err(|error| failed(&error))?,
        rss_bytes: own_peak_bytes().map_err(|error| failed(&error))?,
    })
}

/// Makes a file and writes it, from so far into the source on; the clock stops when it is durable on every replica and its size is in the log.
pub(super) async fn write(
    meta: SocketAddr,
    path: &[u8],
    begins: u64,
    bytes: u64,
    replication: u8,
    timeout: Duration,
) -> Result<Measured, Failure> {
    let kfs = connect(meta, timeout);
    let source = Bytes::from(super::source());
    let started = Instant::now();
    let options = CreateOptions {
        owner: ownership(0o644),
        replication,
        keep: Keep::Always,
    };
    let mut writer = kfs.create(path, options).await?;
    while writer.written() < bytes {
        let from = usize::try_from((begins + writer.written()) % source.len() as u64)
            .expect("within the source");
        let left = usize::try_from(bytes - writer.written()).unwrap_or(usize::MAX);
        let len = (source.len() - from).min(PIECE_BYTES).min(left);
        writer.write(source.slice(from..from + len)).await?;
    }
    writer.close().await?;
    let measured = measured(started)?;
    kfs.disconnect().await;
    Ok(measured)
}

/// Reads a file to its end, every block verified.
pub(super) async fn read(
    meta: SocketAddr,
    path: &[u8],
    bytes: u64,
    timeout: Duration,
) -> Result<Measured, Failure> {
    let kfs = connect(meta, timeout);
    let started = Instant::now();
    let reader = kfs.open(path).await?;
    let mut stream = reader.stream(0, reader.attrs().size);
    let mut got = 0;
    while let Some(chunked) = stream.next().await {
        got += chunked?
            .parts
            .iter()
            .map(|part| part.len() as u64)
            .sum::<u64>();
    }
    if got != bytes {
        return Err(Failure::new(
            Status::Corrupt,
            format!("read {got} bytes of a file of {bytes}"),
        ));
    }
    let measured = measured(started)?;
    kfs.disconnect().await;
    Ok(measured)
}

/// Whether a file holds what [`write`] wrote, from so far into the source on.
pub(super) async fn is_as_written(kfs: &Kfs, path: &[u8], begins: u64) -> Result<bool, Failure> {
    let source = super::source();
    let reader = kfs.open(path).await?;
    let mut stream = reader.stream(0, reader.attrs().size);
    let mut at = usize::try_from(begins % source.len() as u64).expect("within the source");
    while let Some(chunked) = stream.next().await {
        for part in chunked?.parts {
            let mut part = &part[..];
            while !part.is_empty() {
                let (piece, rest) = part.split_at(part.len().min(source.len() - at));
                if piece != &source[at..at + piece.len()] {
                    return Ok(false);
                }
                at = (at + piece.len()) % source.len();
                part = rest;
            }
        }
    }
    Ok(true)
}

/// Removes a file.
pub(super) async fn remove(
    meta: SocketAddr,
    path: &[u8],
    timeout: Duration,
) -> Result<Measured, Failure> {
    let kfs = connect(meta, timeout);
    let started = Instant::now();
    kfs.remove(path).await?;
    let measured = measured(started)?;
    kfs.disconnect().await;
    Ok(measured)
}
