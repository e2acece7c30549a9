//! A meta server and chunkservers as processes over temporary directories, and a client of them.
use crate::daemon::{CHUNK, Daemon, META, Ready};
use crate::wait::{until, until_async};
use bytes::Bytes;
use kfs_client::{CreateOptions, Kfs, Options, ServerState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a writer hands over at once.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) meta: Daemon,
    pub(crate) meta_ready: Ready,
    pub(crate) chunks: Vec<Daemon>,
    pub(crate) chunks_ready: Vec<Ready>,
    starts: u32,
    /// Last, so that it goes after who works in it.
    pub(crate) dir: TempDir,
}

impl Cluster {
    /// A new cluster of so many chunkservers, all of them up.
    pub(crate) fn start(chunkservers: usize) -> Self {
        Self::start_with(chunkservers, &[])
    }

    /// The same, with more flags for the meta server's first process.
    pub(crate) fn start_with(chunkservers: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::start_at("127.0.0.1:0", flags);
        cluster.add_chunks(chunkservers);
        cluster
    }

    /// So many chunkservers more, all of them up when this returns.
    pub(crate) fn add_chunks(&mut self, count: usize) {
        let before = self.chunks.len();
        for n in before..before + count {
            let chunk = spawn_chunk(&self.chunk_dir(n), self.meta_addr(), 0);
            self.chunks.push(chunk);
        }
        let ready = self.chunks[before..].iter().map(Daemon::ready);
        self.chunks_ready.extend(ready);
    }

    /// A new cluster that listens at this address of the machine, with no chunkserver yet.
    pub(crate) fn start_at(listen: &str, flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let meta = spawn_meta(dir.path(), listen, 0, flags);
        let meta_ready = meta.ready();
        Self {
            dir,
            meta,
            meta_ready,
            chunks: Vec::new(),
            chunks_ready: Vec::new(),
            starts: 0,
        }
    }

    /// A chunkserver more, at this address, run by a command that its own is the last word of.
    pub(crate) fn add_chunk_at(&mut self, listen: &str, command: &[&str]) {
        let dir = self.chunk_dir(self.chunks.len());
        let chunk = spawn_chunk_at(&dir, self.meta_addr(), listen, command, 0);
        self.chunks_ready.push(chunk.ready());
        self.chunks.push(chunk);
    }

    pub(crate) fn meta_addr(&self) -> SocketAddr {
        self.meta_ready.listen
    }

    pub(crate) fn meta_dir(&self) -> PathBuf {
        self.dir.path().join("meta")
    }

    pub(crate) fn chunk_dir(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("chunk{n}"))
    }

    /// A new client.
    pub(crate) fn client(&self) -> Kfs {
        Kfs::connect(Options::new(self.meta_addr()))
    }

    /// Starts the meta server again, on the port it had.
    pub(crate) fn restart_meta(&mut self) {
        let listen = self.meta_addr().to_string();
        // Whoever dials a port of its own range while nobody listens there may hold it for a moment.
        self.meta_ready = until("the meta server starts on its old port", || {
            self.starts += 1;
            self.meta = spawn_meta(self.dir.path(), &listen, self.starts, &[]);
            let ready = self.meta.try_ready();
            assert!(
                ready.is_some() || self.meta.stderr().contains("KFS-E063"),
                "{}",
                self.meta.stderr()
            );
            ready
        });
    }

    /// Starts a chunkserver again, on any port, and waits until it serves.
    pub(crate) fn restart_chunk(&mut self, n: usize) {
        self.spawn_chunk(n);
        self.chunks_ready[n] = self.chunks[n].ready();
    }

    /// Starts a chunkserver again, without waiting for it.
    pub(crate) fn spawn_chunk(&mut self, n: usize) {
        self.starts += 1;
        self.chunks[n] = spawn_chunk(&self.chunk_dir(n), self.meta_addr(), self.starts);
    }

    /// Waits until the meta server counts so many chunkservers as up.
    pub(crate) async fn servers_up(&self, kfs: &Kfs, count: usize) {
        until_async(&format!("{count} chunkservers are up"), async || {
            let status = kfs.status().await.ok()?;
            let up = status
                .servers
                .iter()
                .filter(|server| server.state == ServerState::Up)
                .count();
            (up == count).then_some(())
        })
        .await;
    }

    /// Names and contents of the files in `chunks/` of a chunkserver.
    pub(crate) fn chunk_files(&self, n: usize) -> BTreeMap<String, Vec<u8>> {
        files_in(&self.chunk_dir(n).join("chunks"))
    }

    /// Names and contents of the files in `trash/` of a chunkserver.
    pub(crate) fn trash_files(&self, n: usize) -> BTreeMap<String, Vec<u8>> {
        files_in(&self.chunk_dir(n).join("trash"))
    }
}

fn spawn_meta(dir: &Path, listen: &str, start: u32, flags: &[&str]) -> Daemon {
    let data = dir.join("meta");
    let args = [
        ["--data", data.to_str().unwrap()],
        ["--listen", listen],
        ["--http", "127.0.0.1:0"],
        ["--heartbeat", "200ms"],
    ];
    let args = [args.as_flattened(), flags].concat();
    Daemon::spawn(META, &args, &dir.join(format!("meta.{start}.stderr")))
}

fn spawn_chunk(data: &Path, meta: SocketAddr, start: u32) -> Daemon {
    spawn_chunk_at(data, meta, "127.0.0.1:0", &[CHUNK], start)
}

/// As the last words of a command that runs it elsewhere, or alone.
fn spawn_chunk_at(
    data: &Path,
    meta: SocketAddr,
    listen: &str,
    command: &[&str],
    start: u32,
) -> Daemon {
    let meta = meta.to_string();
    let args = [
        ["--data", data.to_str().unwrap()],
        ["--meta", &meta],
        ["--listen", listen],
        ["--http", "127.0.0.1:0"],
    ];
    let args = [&command[1..], args.as_flattened()].concat();
    let stderr = data.with_extension(format!("{start}.stderr"));
    Daemon::spawn(command[0], &args, &stderr)
}

/// Waits until every chunk has as many replicas as it should, and none is damaged.
pub(crate) async fn whole(kfs: &Kfs) {
    until_async("every chunk has its replicas", async || {
        let status = kfs.status().await.ok()?;
        (status.replicas_damaged == 0 && status.chunks_under_replicated == 0).then_some(())
    })
    .await;
}

/// Names and contents of the plain files in a directory; of a missing one: none.
pub(crate) fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    // A file that is moved while it is listed is in neither place for this look.
    files
        .filter_map(|file| {
            Some((
                file.file_name().into_string().unwrap(),
                std::fs::read(file.path()).ok()?,
            ))
        })
        .collect()
}

/// Bytes that look random, the same for the same seed.
pub(crate) fn content(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

/// Stores a file; when this returns, it is durable on all its replicas.
pub(crate) async fn put(kfs: &Kfs, path: &str, data: &Bytes) {
    let mut writer = kfs
        .create(path.as_bytes(), CreateOptions::default())
        .await
        .unwrap();
    for from in (0..data.len()).step_by(WRITE_BYTES) {
        let piece = data.slice(from..data.len().min(from + WRITE_BYTES));
        writer.write(piece).await.unwrap();
    }
    writer.close().await.unwrap();
}

/// Reads a file whole.
pub(crate) async fn get(kfs: &Kfs, path: &str) -> kfs_client::Result<Vec<u8>> {
    let reader = kfs.open(path.as_bytes()).await?;
    let mut stream = reader.stream(0, reader.attrs().size);
    let mut all = Vec::new();
    while let Some(chunked) = stream.next().await {
        for part in chunked?.parts {
            all.extend_from_slice(&part);
        }
    }
    Ok(all)
}

/// Reads a file whole and compares; says where they differ, not what they are.
pub(crate) async fn expect_content(kfs: &Kfs, path: &str, expected: &Bytes) {
    let got = get(kfs, path)
        .await
        .unwrap_or_else(|err| panic!("{path}: {err}"));
    assert_eq!(got.len(), expected.len(), "the length of {path}");
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "where {path} differs");
}
