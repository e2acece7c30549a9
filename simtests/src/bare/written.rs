//! A cluster that has been written to: the disks as its servers would have left them, made without running
//! anything. What is on them is a function of a few numbers, so that a million chunks take the memory of their
//! names.
use crate::disk::{DiskModel, Recipe};
use crate::keyed::Keyed;
use crate::workload::bytes::Stamp;
use crate::workload::job::OWNER;
use bytes::Bytes;
use kfs_core::block::padded_sum;
use kfs_core::chunk::header::{FIRST_GENERATION, Header, Slot};
use kfs_core::chunk::name::{CHUNKS, ChunkName, TRASH};
use kfs_core::identity::{self, Identity, Owner};
use kfs_core::ids::{
    Boot, ChunkId, ClusterId, DiskId, FileId, Incarnation, Instance, LogSeq, NodeId, RequestNumber,
    ServerIndex, SessionId, Version, WriteSeq,
};
use kfs_core::limits::{Geometry, HEADER_BYTES};
use kfs_core::machine::{DiskOp, FileName, SyncMode};
use kfs_core::meta::fill::{self, EPOCH};
use kfs_core::meta::key::{Key, Name};
use kfs_core::meta::oplog;
use kfs_core::meta::record::{
    By, ChunkOpened, DirectoriesMade, EpochBegun, FileCreated, Record, ServerJoined, SessionEnded,
    SessionOpened, SizeSet,
};
use kfs_core::time::UnixNanos;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::{Keep, WriterStays};
use std::ops::Range;
use std::sync::Arc;

/// Files of a directory, at most.
const DIR_FILES: u64 = 1_000;
const INCARNATION: Incarnation = Incarnation(1);
const SESSION: u64 = 1;
/// Ids that are issued before those of directories and files.
const IDS_BEFORE: u64 = SESSION + 1;
/// Bytes left on every disk.
const BYTES_FREE: u64 = 64 << 20;

/// See the module: how much was written, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Of ids that are random, and the salt of all bytes.
    pub seed: u64,
    /// Chunkservers.
    pub servers: u64,
    /// Replicas of each of them, at least; a few have one more.
    pub replicas: u64,
    /// Replicas of each chunk, on neighbouring servers.
    pub replication: u8,
    /// Chunks of each file, all full but the last one; the last file may have fewer.
    pub file_chunks: u64,
    /// The sizes files are cut into.
    pub geometry: Geometry,
}

/// A chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenChunk {
    /// Its file's number.
    pub file: u64,
    /// Its place in the file.
    pub index: u64,
    /// The name of each of its files on a disk.
    pub name: ChunkName,
    /// Its bytes.
    pub len: u64,
}

impl Written {
    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        (self.servers * self.replicas).div_ceil(u64::from(self.replication))
    }
    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.chunks().div_ceil(self.file_chunks)
    }
    /// How many directories there are below the root.
    #[must_use]
    pub fn directories(&self) -> u64 {
        self.files().div_ceil(DIR_FILES)
    }
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (0..self.files()).map(|file| self.size(file)).sum()
    }
    /// How many replicas a chunkserver has, the first one being 0.
    #[must_use]
    pub fn replicas_of(&self, server: u64) -> u64 {
        let all = self.chunks() * u64::from(self.replication);
        all / self.servers + u64::from(server < all % self.servers)
    }
    /// The path of a directory.
    #[must_use]
    pub fn dir_path(&self, dir: u64) -> String {
        format!("/w{dir}")
    }
    /// How many files a directory has.
    #[must_use]
    pub fn dir_files(&self, dir: u64) -> u64 {
        self.files().saturating_sub(dir * DIR_FILES).min(DIR_FILES)
    }
    /// The path of a file.
    #[must_use]
    pub fn path(&self, file: u64) -> String {
        format!("{}/f{file}", self.dir_path(file / DIR_FILES))
    }
    /// The id of a file.
    #[must_use]
    pub fn file_id(&self, file: u64) -> FileId {
        FileId::issued(EPOCH, self.file_counter(file))
    }
    /// Bytes of a file.
    #[must_use]
    pub fn size(&self, file: u64) -> u64 {
        self.chunks_of(file).map(|nth| self.chunk(nth).len).sum()
    }
    /// What was written to a file.
    #[must_use]
    pub fn contents(&self, file: u64) -> Bytes {
        let size = usize::try_from(self.size(file)).expect("files here are small");
        self.stamp(file).fill(0, size)
    }
    /// The node id of a chunkserver.
    #[must_use]
    pub fn node(&self, server: u64) -> NodeId {
        NodeId(u128::from(server) + 1)
    }
    /// A chunk.
    #[must_use]
    pub fn chunk(&self, nth: u64) -> WrittenChunk {
        let file = nth / self.file_chunks;
        let index = nth % self.file_chunks;
        let ids = self.file_counter(file) + 1 + 2 * index;
        let is_last = nth + 1 == self.chunks_of(file).end;
        let full = self.geometry.chunk_bytes();
        WrittenChunk {
            file,
            index,
            name: ChunkName {
                file: self.file_id(file),
                chunk: ChunkId::issued(EPOCH, ids),
                version: Version::issued(EPOCH, ids + 1),
            },
            // Ends of all kinds: within a block, at its edge, at the end of the chunk.
            len: if is_last { 1 + file % full } else { full },
        }
    }

    /// The disks: the meta server's, then each chunkserver's.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskModel> {
        let written = *self;
        let maker: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync> =
            Arc::new(move |nth| written.chunk_file(nth));
        let mut disks = vec![self.meta_disk()];
        for server in 0..self.servers {
            let room = (self.replicas + 1) * (HEADER_BYTES + self.geometry.chunk_bytes());
            let mut disk = DiskModel::new(room + BYTES_FREE);
            make_dirs(&mut disk, &[CHUNKS, TRASH]);
            let identity = self.identity(Owner::Chunk, self.node(server));
            put(&mut disk, identity::NAME, identity.encode());
            disks.push(disk);
        }
        for nth in 0..self.chunks() {
            let chunk = self.chunk(nth);
            let path = chunk.name.path();
            let len = usize::try_from(HEADER_BYTES + chunk.len).expect("chunks here are small");
            for server in self.servers_of(nth) {
                let recipe = Recipe {
                    key: nth,
                    len,
                    maker: Arc::clone(&maker),
                };
                let disk = usize::try_from(server).expect("a run has few servers") + 1;
                disks[disk].place(path.as_str(), recipe);
            }
        }
        disks
    }

    /// How many records the log has.
    #[must_use]
    pub fn records(&self) -> u64 {
        // The epoch, the session's beginning and end.
        3 + self.servers + self.directories() + 2 * self.files() + self.chunks()
    }

    fn servers_of(&self, nth: u64) -> impl Iterator<Item = u64> {
        let replication = u64::from(self.replication);
        (0..replication).map(move |copy| (nth * replication + copy) % self.servers)
    }
    fn chunks_of(&self, file: u64) -> Range<u64> {
        let first = file * self.file_chunks;
        first..(first + self.file_chunks).min(self.chunks())
    }
    fn file_counter(&self, file: u64) -> u64 {
        IDS_BEFORE + self.directories() + file * (1 + 2 * self.file_chunks)
    }
    fn dir_id(&self, dir: u64) -> FileId {
        FileId::issued(EPOCH, IDS_BEFORE + dir)
    }
    fn stamp(&self, file: u64) -> Stamp {
        Stamp {
            salt: self.seed,
            client: u32::try_from(file >> 16 & 0xFF).expect("just bounded"),
            operation: u32::try_from(file & 0xFFFF).expect("just bounded"),
        }
    }
    fn cluster(&self) -> ClusterId {
        let mut draws = Keyed::new(self.seed, "cluster");
        ClusterId(u128::from(draws.bits()) << 64 | u128::from(draws.bits()))
    }
    fn identity(&self, owner: Owner, node: NodeId) -> Identity {
        Identity {
            owner,
            cluster: self.cluster(),
            node,
            disk: DiskId(node.0),
            boot: Boot(1),
            seen: (EPOCH, INCARNATION),
            seen_seq: LogSeq(0),
            siblings: Vec::new(),
        }
    }

    /// The bytes of a chunk's file.
    fn chunk_file(&self, nth: u64) -> Vec<u8> {
        let WrittenChunk {
            file,
            index,
            name,
            len,
        } = self.chunk(nth);
        let block_bytes = self.geometry.block_bytes;
        let bytes = usize::try_from(len).expect("chunks here are small");
        let data = self
            .stamp(file)
            .fill(index * self.geometry.chunk_bytes(), bytes);
        let header = Header {
            name,
            len,
            sums: data
                .chunks(block_bytes as usize)
                .map(|block| Some(padded_sum(block, block_bytes)))
                .collect(),
            generation: FIRST_GENERATION,
            incarnation: INCARNATION,
            cluster: self.cluster(),
            wseq: WriteSeq(1),
            pieces: Vec::new(),
            redo: Vec::new(),
        };
        let header_bytes = usize::try_from(HEADER_BYTES).expect("a header is small");
        let mut out = header.encode();
        assert_eq!(Slot::of(FIRST_GENERATION), Slot::A, "the first slot is A");
        out.resize(header_bytes, 0);
        out.extend_from_slice(&data);
        out
    }

    fn meta_disk(&self) -> DiskModel {
        let mut log = Log::new(self.cluster());
        self.tell(&mut log);
        let segments = log.finish();
        let bytes: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut disk = DiskModel::new(bytes as u64 + BYTES_FREE);
        make_dirs(&mut disk, &[oplog::DIR]);
        let node = NodeId(u128::from(self.servers) + 1);
        let identity = self.identity(Owner::Meta, node);
        put(&mut disk, identity::NAME, identity.encode());
        for (first, bytes) in segments {
            let name = format!("{}/{}", oplog::DIR, oplog::segment_name(first));
            put(&mut disk, &name, bytes);
        }
        disk
    }

    /// Everything that happened, in its order.
    fn tell(&self, log: &mut Log) {
        log.record(
            By::NOBODY,
            EpochBegun {
                epoch: EPOCH,
                incarnation: INCARNATION,
                cluster: self.cluster(),
                geometry: self.geometry,
            },
        );
        for server in 0..self.servers {
            log.record(
                By::NOBODY,
                ServerJoined {
                    index: index_of(server),
                    node: self.node(server),
                    boot: Boot(1),
                    instance: Instance(1),
                    rack: String::new(),
                },
            );
        }
        let session = SessionId::issued(EPOCH, SESSION);
        log.record(By::NOBODY, SessionOpened { session, nonce: 1 });
        let mut by = By {
            session,
            request: RequestNumber(0),
            lowest: RequestNumber(0),
        };
        let mut next = || {
            by.request = by.request.next();
            by.lowest = by.request;
            by
        };
        for dir in 0..self.directories() {
            let made = vec![(name_in(&self.dir_path(dir)), self.dir_id(dir))];
            log.record(
                next(),
                DirectoriesMade {
                    parent: FileId::ROOT,
                    made,
                    owner: OWNER,
                    time: TIME,
                },
            );
        }
        for file in 0..self.files() {
            self.tell_file(log, file, &mut next);
        }
        let ended = SessionEnded {
            session,
            time: TIME,
        };
        log.record(By::NOBODY, ended);
        assert_eq!(log.log.seq().0, self.records(), "all records are counted");
    }

    fn tell_file(&self, log: &mut Log, file: u64, next: &mut impl FnMut() -> By) {
        let id = self.file_id(file);
        log.record(
            next(),
            FileCreated {
                key: Key {
                    parent: self.dir_id(file / DIR_FILES),
                    name: name_in(&self.path(file)),
                },
                file: id,
                owner: OWNER,
                replication: self.replication,
                keep: Keep::Always,
                time: TIME,
            },
        );
        let mut synced = Vec::new();
        for nth in self.chunks_of(file) {
            let chunk = self.chunk(nth);
            log.record(
                next(),
                ChunkOpened {
                    file: id,
                    index: chunk.index,
                    chunk: chunk.name.chunk,
                    version: chunk.name.version,
                    members: self.servers_of(nth).map(index_of).collect(),
                },
            );
            let all = Durable {
                len: chunk.len,
                wseq: WRITES,
            };
            synced.push((chunk.index, all));
        }
        log.record(
            next(),
            SizeSet {
                file: id,
                size: self.size(file),
                synced,
                writer: WriterStays::Closed,
                time: TIME,
            },
        );
    }
}

/// Each chunk was written at once.
const WRITES: WriteSeq = WriteSeq(1);
/// When everything was written: 2025-12-31.
const TIME: UnixNanos = UnixNanos(1_767_139_200_000_000_000);

fn index_of(server: u64) -> ServerIndex {
    ServerIndex(server + 1)
}

fn name_in(path: &str) -> Name {
    let (_, name) = path.rsplit_once('/').expect("a path begins with a slash");
    Name::new(name.as_bytes()).expect("it is a name")
}

/// A log that is being made, and its segments.
struct Log {
    log: fill::Log,
    done: Vec<fill::Segment>,
}

impl Log {
    fn new(cluster: ClusterId) -> Self {
        Self {
            log: fill::Log::new(cluster),
            done: Vec::new(),
        }
    }
    fn record(&mut self, by: By, record: impl Into<Record>) {
        self.done.extend(self.log.push(by, record.into()));
    }
    /// The segments, each with its first record.
    fn finish(mut self) -> Vec<fill::Segment> {
        self.done.push(self.log.finish());
        self.done
    }
}

fn make_dirs(disk: &mut DiskModel, dirs: &[&str]) {
    for dir in dirs {
        let dir = FileName::new(dir);
        carry_out(disk, &DiskOp::MakeDir { dir });
    }
    let dir = FileName::new("");
    carry_out(disk, &DiskOp::SyncDir { dir });
}

/// A file that is durable with its name.
fn put(disk: &mut DiskModel, path: &str, bytes: Vec<u8>) {
    let file = FileName::new(path);
    let dir = FileName::new(file.dir());
    carry_out(
        disk,
        &DiskOp::Create {
            file: file.clone(),
            zeroed: 0,
        },
    );
    carry_out(
        disk,
        &DiskOp::Write {
            file,
            offset: 0,
            data: vec![Bytes::from(bytes)],
            sync: SyncMode::Now,
        },
    );
    carry_out(disk, &DiskOp::SyncDir { dir });
}

fn carry_out(disk: &mut DiskModel, op: &DiskOp) {
    if let Err(error) = disk.apply(op) {
        panic!("an empty disk does what it is told: {error}");
    }
}
