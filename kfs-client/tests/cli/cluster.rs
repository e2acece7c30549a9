//! A cluster for one test, and the command that is run against it.
use kfs_core::chunk::ChunkStatus;
use kfs_core::wire::client_meta::ClusterStatus;
use kfs_server::{ChunkConfig, ChunkServer, MetaConfig, MetaServer, Running};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A meta server and chunkservers, gone with their data at the end of the test.
pub(crate) struct Cluster {
    meta: Running<ClusterStatus>,
    pub(crate) chunkservers: Vec<Running<ChunkStatus>>,
    /// Last, so that it is removed when the servers have ended.
    pub(crate) dir: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Cluster {
    /// With three chunkservers.
    pub(crate) fn new() -> Self {
        Self::with(3)
    }

    pub(crate) fn with(chunkservers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let meta = MetaServer::start(MetaConfig::embedded(dir.path().join("meta"))).unwrap();
        runtime.block_on(meta.ready()).unwrap();
        let start = |n| {
            let config =
                ChunkConfig::embedded(dir.path().join(format!("chunkserver-{n}")), meta.listen);
            ChunkServer::start(config).unwrap()
        };
        let chunkservers: Vec<_> = (0..chunkservers).map(start).collect();
        for server in &chunkservers {
            runtime.block_on(server.ready()).unwrap();
        }
        Self {
            meta,
            chunkservers,
            dir,
        }
    }

    /// Kills the meta server, and starts one on another data directory in its place.
    pub(crate) fn replace_meta(&mut self, data: PathBuf) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.meta.kill());
        let listen = self.meta.listen;
        let config = || MetaConfig {
            listen,
            ..MetaConfig::embedded(&data)
        };
        // Whoever dials a port while nobody listens there may hold it for a moment.
        self.meta = wait("the port", || MetaServer::start(config()).ok());
        runtime.block_on(self.meta.ready()).unwrap();
    }

    /// Kills everybody, and starts them again on what they have left.
    pub(crate) fn restart_all(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for server in &self.chunkservers {
            runtime.block_on(server.kill());
        }
        self.replace_meta(self.dir.path().join("meta"));
        for (n, server) in self.chunkservers.iter_mut().enumerate() {
            let data = self.dir.path().join(format!("chunkserver-{n}"));
            *server = ChunkServer::start(ChunkConfig::embedded(data, self.meta.listen)).unwrap();
        }
        for server in &self.chunkservers {
            runtime.block_on(server.ready()).unwrap();
        }
    }

    pub(crate) fn meta(&self) -> String {
        self.meta.listen.to_string()
    }

    /// The command, with this cluster as the one that is meant.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("KFS_META", self.meta());
        command
    }

    pub(crate) fn kfs(&self, arguments: &[&str]) -> Said {
        run(&mut self.command(arguments))
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.kfs(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        String::from_utf8(said.out).unwrap()
    }

    /// Runs a command with bytes on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Said {
        feed(&mut self.command(arguments), input)
    }

    /// Stores bytes.
    pub(crate) fn store(&self, path: &str, bytes: &[u8]) {
        let said = self.feed(&["put", "-", path], bytes);
        assert_eq!(said.code, Some(0), "{path}: {said:?}");
    }

    /// A local file with these bytes.
    pub(crate) fn local(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The names in a directory of the cluster.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        self.ok(&["ls", path]).lines().map(str::to_owned).collect()
    }
}

impl Said {
    /// Must have failed like this: the exit code, and every one of these in the error.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "'{part}' is not in: {self:?}");
        }
    }
}

/// The command, in no cluster.
pub(crate) fn command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kfs"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KFS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run(command: &mut Command) -> Said {
    said(command.output().unwrap())
}

pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses closes its input before all of it is there.
    let _ = stdin.write_all(input);
    drop(stdin);
    ended(child)
}

pub(crate) fn ended(child: Child) -> Said {
    said(child.wait_with_output().unwrap())
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Bytes that repeat nowhere near a block or a chunk.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asks until there is an answer, for half a minute at most.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "waited in vain for {what}"
        );
    }
}
