//! One daemon as a process: started, watched, killed.
use crate::wait::{PATIENCE, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

pub(crate) const META: &str = env!("CARGO_BIN_EXE_kfs-metaserver");
pub(crate) const CHUNK: &str = env!("CARGO_BIN_EXE_kfs-chunkserver");

/// A running daemon; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    stderr: PathBuf,
}

/// What the ready line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ready {
    pub(crate) listen: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) mode: Option<String>,
}

/// How a daemon ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Daemon {
    /// Starts `program`; what it writes to stderr goes to the file `stderr`.
    pub(crate) fn spawn(program: &str, args: &[&str], stderr: &Path) -> Self {
        let mut command = Command::new(program);
        // What stands in the environment of whoever runs the tests is no setting of theirs.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KFS_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(stderr).unwrap())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            stderr: stderr.to_owned(),
        }
    }

    /// Waits for the ready line.
    pub(crate) fn ready(&self) -> Ready {
        self.try_ready()
            .unwrap_or_else(|| panic!("not ready; it said:\n{}", self.stderr()))
    }

    /// Waits for the ready line, or the end of the process.
    pub(crate) fn try_ready(&self) -> Option<Ready> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with("starting ") => {}
                Ok(line) => return Some(Ready::parse(&line)),
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return None,
            }
        }
    }

    /// Whether it has said that it is ready, and not been asked before.
    pub(crate) fn is_ready(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    /// What it has written to stderr.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// It does nothing any more (SIGSTOP), until [`Self::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) -> Ended {
        let status = until("the daemon ends", || self.child.try_wait().unwrap());
        Ended {
            code: status.code(),
            stderr: self.stderr(),
        }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.stderr.display(), self.stderr());
        }
    }
}

impl Ready {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "ready", "{line}");
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
        Self {
            listen: value("listen=").expect(line).parse().unwrap(),
            http: value("http=").expect(line).parse().unwrap(),
            mode: value("mode=").map(str::to_owned),
        }
    }
}

impl Ended {
    /// Ended with this exit code and an error of this code that says all of `parts`.
    pub(crate) fn expect(&self, exit: i32, error: &str, parts: &[&str]) {
        assert_eq!(self.code, Some(exit), "{}", self.stderr);
        assert!(
            self.stderr.contains(&format!("error[{error}]: ")),
            "{}",
            self.stderr
        );
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "'{part}' is not in:\n{}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Runs a daemon that is expected to end by itself.
pub(crate) fn run(program: &str, args: &[&str], dir: &Path) -> Ended {
    Daemon::spawn(program, args, &dir.join("run.stderr")).ended()
}

/// Asks for a page; gives the status and the body.
pub(crate) fn http_get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: kfs\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    (status, body.to_owned())
}
