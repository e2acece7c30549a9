//! Processes of a benchmark: how they are started and stopped, and what they cost.
use crate::cli::failure::Failure;
use kfs_core::wire::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STOP_MAX: Duration = Duration::from_secs(10);
const PAGE_MAX: Duration = Duration::from_secs(5);

/// What a part of the benchmark prints as its last line.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(super) struct Measured {
    /// Of the work, without starting and stopping.
    pub(super) seconds: f64,
    /// Of the process, and of those it started.
    pub(super) cpu_s: f64,
    /// The most memory it had; 0 if that is of no interest.
    pub(super) rss_bytes: u64,
}

/// User and system time of this process and the children it has waited for.
pub(super) fn cpu_seconds_with_children() -> io::Result<f64> {
    cpu_seconds(Path::new("/proc/self/stat"), 4)
}

/// User and system time of this process.
pub(super) fn own_cpu_seconds() -> io::Result<f64> {
    cpu_seconds(Path::new("/proc/self/stat"), 2)
}

/// The fields from utime on: utime, stime, cutime, cstime; see proc_pid_stat(5).
fn cpu_seconds(stat: &Path, fields: usize) -> io::Result<f64> {
    let text = std::fs::read_to_string(stat)?;
    let bad = || io::Error::other(format!("{} is not as proc(5) says: {text}", stat.display()));
    // The name in brackets may hold anything, also brackets and blanks.
    let (_, after_name) = text.rsplit_once(") ").ok_or_else(bad)?;
    let times: Vec<u64> = after_name
        .split(' ')
        .skip(11)
        .take(fields)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    if times.len() != fields {
        return Err(bad());
    }
    Ok(times.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The most resident memory that this process ever had.
pub(super) fn own_peak_bytes() -> io::Result<u64> {
    peak_bytes(Path::new("/proc/self/status"))
}

/// The resident memory that this process has now.
pub(super) fn own_resident_bytes() -> io::Result<u64> {
    kibibytes(Path::new("/proc/self/status"), "VmRSS:")
}

fn peak_bytes(status: &Path) -> io::Result<u64> {
    kibibytes(status, "VmHWM:")
}

fn kibibytes(status: &Path, name: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(status)?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    Ok(kib.ok_or_else(|| io::Error::other(format!("{} has no {name}", status.display())))? << 10)
}

/// Starts this program again as a part of the benchmark, its standard output a pipe.
pub(super) fn spawn_part(arguments: &[String]) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("bench-part")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// Runs a part of the benchmark to its end.
pub(super) fn run_part<T: DeserializeOwned>(arguments: &[String]) -> Result<T, Failure> {
    Beside::start(arguments)?.finish()
}

/// A part of the benchmark that runs beside the others. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Beside {
    name: String,
    child: Option<Child>,
}

impl Beside {
    pub(super) fn start(arguments: &[String]) -> Result<Self, Failure> {
        let name = arguments[0].clone();
        match spawn_part(arguments) {
            Ok(child) => Ok(Self {
                name,
                child: Some(child),
            }),
            Err(error) => Err(Self { name, child: None }.failed(&error)),
        }
    }

    /// Waits for its end, and for what it has to tell.
    pub(super) fn finish<T: DeserializeOwned>(mut self) -> Result<T, Failure> {
        let child = self.child.take().expect("it is waited for once");
        let output = child
            .wait_with_output()
            .map_err(|error| self.failed(&error))?;
        if !output.status.success() {
            return Err(Failure::new(
                Status::LocalIo,
                format!(
                    "the benchmark's process '{}' failed: {}",
                    self.name, output.status
                ),
            ));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| self.failed(&error.into()))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::local(
            format!("cannot run the benchmark's process '{}'", self.name),
            error,
        )
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A daemon that a benchmark started. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    pub(super) listen: SocketAddr,
    http: SocketAddr,
    pub(super) data: PathBuf,
}

/// So many chunkservers of this meta server, each in a directory of its own below `dir`.
pub(super) fn chunkservers(
    dir: &Path,
    meta: SocketAddr,
    count: usize,
) -> Result<Vec<Daemon>, Failure> {
    let meta = meta.to_string();
    let start = |nth| {
        let data = dir.join(format!("chunkserver-{nth}"));
        Daemon::start("kfs-chunkserver", data, &["--meta", &meta])
    };
    (1..=count).map(start).collect()
}

impl Daemon {
    /// Starts a program that stands beside this one and waits until it says that it is ready.
    pub(super) fn start(program: &str, data: PathBuf, flags: &[&str]) -> Result<Self, Failure> {
        let path = beside(program)?;
        let mut command = Command::new(&path);
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--log",
                "error",
                "--data",
            ])
            .arg(&data);
        // What is measured is what the flags say, whatever the environment of the person who measures.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KFS_"))
        {
            command.env_remove(name);
        }
        command
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let failed =
            |error: &io::Error| Failure::local(format!("cannot start {}", path.display()), error);
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        // Before it is ready it says how far it is.
        let ready = |line: &io::Result<String>| {
            line.as_ref()
                .is_ok_and(|line| !line.starts_with("starting "))
                || line.is_err()
        };
        let read = out.lines().find(ready).transpose();
        let line = read.as_ref().ok().cloned().flatten().unwrap_or_default();
        let address = |key: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key)?.parse().ok())
        };
        match (read, address("listen="), address("http=")) {
            (Ok(_), Some(listen), Some(http)) => Ok(Self {
                child,
                listen,
                http,
                data,
            }),
            (read, _, _) => {
                let _ = child.kill();
                let _ = child.wait();
                read.map_err(|error| failed(&error))?;
                Err(Failure::new(
                    Status::LocalIo,
                    format!("{program} did not get ready; it said '{}'", line.trim()),
                ))
            }
        }
    }

    /// User and system time so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64, Failure> {
        self.proc("stat", |path| cpu_seconds(path, 2))
    }

    /// The most memory it had since [`Daemon::forget_peak`].
    pub(super) fn peak_bytes(&self) -> Result<u64, Failure> {
        self.proc("status", peak_bytes)
    }

    /// The resident memory that it has now.
    pub(super) fn resident_bytes(&self) -> Result<u64, Failure> {
        self.proc("status", |path| kibibytes(path, "VmRSS:"))
    }

    /// Begins to look for the most memory anew.
    pub(super) fn forget_peak(&self) -> Result<(), Failure> {
        // "5": reset the peak resident set size, proc_pid_clear_refs(5).
        self.proc("clear_refs", |path| std::fs::write(path, "5"))
    }

    fn proc<T>(&self, name: &str, read: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, Failure> {
        let path = PathBuf::from(format!("/proc/{}/{name}", self.child.id()));
        read(&path)
            .map_err(|error| Failure::local(format!("cannot use {}", path.display()), &error))
    }

    /// A counter of its status page.
    pub(super) fn counter(&self, name: &str) -> Result<u64, Failure> {
        let failed = |error: &io::Error| {
            Failure::local(
                format!("cannot read http://{}/status.json", self.http),
                error,
            )
        };
        let page = page(self.http).map_err(|error| failed(&error))?;
        let page: serde_json::Value =
            serde_json::from_slice(&page).map_err(|error| failed(&error.into()))?;
        page.pointer("/server")
            .and_then(|server| server.get(name)?.as_u64())
            .ok_or_else(|| {
                Failure::new(
                    Status::Protocol,
                    format!("http://{}/status.json has no counter {name}", self.http),
                )
            })
    }

    /// Has it stop cleanly.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        let asked = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = kill_process(asked.expect("a child has an id"), Signal::TERM);
        asked.map_err(|error| Failure::local("cannot stop a server", &error.into()))?;
        let since = Instant::now();
        while since.elapsed() < STOP_MAX {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) => return Ok(()),
                Err(error) => return Err(Failure::local("cannot wait for a server", &error)),
            }
        }
        Err(Failure::new(
            Status::TimedOut,
            format!(
                "the server on {} did not stop in {} s",
                self.listen,
                STOP_MAX.as_secs()
            ),
        ))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in the directory of this one.
fn beside(program: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::local("cannot tell where this program is", &error))?;
    let path = own.with_file_name(program);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(
        Status::NotFound,
        format!("{} is not there, and a benchmark needs it", path.display()),
    )
    .help("build all programs with 'cargo build --release --bins'"))
}

fn page(http: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&http, PAGE_MAX)?;
    stream.set_read_timeout(Some(PAGE_MAX))?;
    write!(
        stream,
        "GET /status.json HTTP/1.0\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if !answer.starts_with(b"HTTP/1.0 200") && !answer.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other(
            String::from_utf8_lossy(&answer[..head]).into_owned(),
        ));
    }
    Ok(answer.split_off(head + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_costs_grows_with_its_work() {
        let before = own_cpu_seconds().unwrap();
        let mut work = 1_u64;
        while own_cpu_seconds().unwrap() < before + 0.05 {
            work = std::hint::black_box(work.wrapping_mul(31) + 1);
        }
        assert!(cpu_seconds_with_children().unwrap() >= before + 0.05);
        assert!(own_peak_bytes().unwrap() > 1 << 20);
    }
}
