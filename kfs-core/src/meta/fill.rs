//! A cluster's metadata of any size, made record by record through the same `apply` as a log: for benches, and
//! for tests that hold what a file costs.
use super::chunkmap::ChunkMap;
use super::key::{Key, Name};
use super::oplog::{Forming, SegmentHeader};
use super::packed::{ChunkSet, Map};
use super::record::{
    By, ChunkOpened, DirectoriesMade, EpochBegun, FileCreated, Logged, Record, Sealed,
    ServerJoined, SessionOpened, SizeSet,
};
use super::state::State;
use crate::identity::{Identity, Owner};
use crate::ids::{
    Boot, ChunkId, ClusterId, Digest, DiskId, Epoch, FileId, Incarnation, Instance, LogSeq, NodeId,
    RequestNumber, ServerIndex, SessionId, Version, WriteSeq,
};
use crate::limits::{Geometry, Limits};
use crate::rng::Rng;
use crate::time::UnixNanos;
use crate::wire::chunk_meta::Content;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{Keep, Ownership, WriterStays};

const SERVERS: u64 = 3;
const REPLICAS: usize = 3;
/// Whose log has [`Records`].
pub const CLUSTER: ClusterId = ClusterId(1);
/// Of all records.
pub const EPOCH: Epoch = Epoch(1);
const SESSION: u64 = 1;
/// Files of each directory.
pub const FILES: u64 = 1_000;
/// Between two files.
const NANOS: u64 = 1_000_000;

/// In which directory the next file is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// One directory after the other.
    Sequence,
    /// Any of them.
    Random,
}

/// The records of a log in which so many files were made, each with a name of 16 bytes that say nothing, one chunk
/// of three replicas and a size, closed and sealed: four records a file, after those of directories of a thousand files.
#[derive(Clone, Debug)]
pub struct Records {
    files: u64,
    order: Order,
    rng: Rng,
    seq: u64,
    issued: u64,
    directories: Vec<FileId>,
    made: u64,
    next: Vec<Record>,
}

impl Records {
    /// Of this many files.
    #[must_use]
    pub fn new(files: u64, order: Order) -> Self {
        let mut records = Self {
            files,
            order,
            rng: Rng::new(1),
            seq: 0,
            issued: SESSION,
            directories: Vec::new(),
            made: 0,
            next: Vec::new(),
        };
        records.begin();
        // They are taken from the end.
        records.next.reverse();
        records
    }
    fn id(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }
    fn begin(&mut self) {
        let epoch = EpochBegun {
            epoch: EPOCH,
            incarnation: Incarnation(1),
            cluster: CLUSTER,
            geometry: Geometry::REAL,
        };
        self.next.push(epoch.into());
        for server in 1..=SERVERS {
            let joined = ServerJoined {
                index: ServerIndex(server),
                node: NodeId(server.into()),
                boot: Boot(1),
                instance: Instance(server),
                rack: String::new(),
            };
            self.next.push(joined.into());
        }
        let session = SessionOpened {
            session: SessionId::issued(EPOCH, SESSION),
            nonce: 1,
        };
        self.next.push(session.into());
        for nth in 0..self.files.div_ceil(FILES) {
            let file = FileId::issued(EPOCH, self.id());
            self.directories.push(file);
            let made = DirectoriesMade {
                parent: FileId::ROOT,
                made: vec![(Name::raw(format!("dir-{nth}").as_bytes()), file)],
                owner: owner(0o755),
                time: UnixNanos(nth),
            };
            self.next.push(made.into());
        }
    }
    /// The records of the next file, the last one first.
    fn file(&mut self) {
        let nth = self.made;
        self.made += 1;
        let directories = self.directories.len();
        let directory = match self.order {
            Order::Sequence => usize::try_from(nth / FILES).unwrap_or(usize::MAX),
            Order::Random => self.rng.below(directories),
        };
        // Half of the bits say which file it is, so that no two have one name.
        let name = (self.rng.u64() & 0xFFFF_FFFF) << 32 | (nth & 0xFFFF_FFFF);
        let name = format!("{:016x}", name.rotate_left(17));
        let file = FileId::issued(EPOCH, self.id());
        let (chunk, version) = (self.id(), self.id());
        let size = 1 + self.rng.below(64 << 20) as u64;
        let created = UnixNanos(1_700_000_000_000_000_000 + nth * NANOS);
        let closed = UnixNanos(created.0 + 1 + self.rng.below(50_000_000) as u64);
        let first = self.rng.below(3) as u64;
        let members = (0..SERVERS).map(|nth| ServerIndex(1 + (first + nth) % SERVERS));
        let created = FileCreated {
            key: Key {
                parent: self.directories[directory.min(directories - 1)],
                name: Name::raw(name.as_bytes()),
            },
            file,
            owner: owner(0o644),
            replication: 3,
            keep: Keep::Always,
            time: created,
        };
        let opened = ChunkOpened {
            file,
            index: 0,
            chunk: ChunkId::issued(EPOCH, chunk),
            version: Version::issued(EPOCH, version),
            members: members.collect(),
        };
        let synced = Durable {
            len: size,
            wseq: WriteSeq(1 + size / (1 << 20)),
        };
        let sized = SizeSet {
            file,
            size,
            synced: vec![(0, synced)],
            writer: WriterStays::Closed,
            time: closed,
        };
        let sealed = Sealed {
            chunk: opened.chunk,
            version: opened.version,
            content: Content {
                durable: synced,
                digest: Digest(self.rng.u64()),
            },
        };
        self.next = vec![sealed.into(), sized.into(), opened.into(), created.into()];
    }
}

fn owner(mode: u32) -> Ownership {
    Ownership {
        uid: 1_000,
        gid: 1_000,
        mode,
    }
}

impl Iterator for Records {
    type Item = Logged;
    fn next(&mut self) -> Option<Logged> {
        if self.next.is_empty() && self.made < self.files {
            self.file();
        }
        let record = self.next.pop()?;
        self.seq += 1;
        let by = match record {
            Record::FileCreated(_) | Record::ChunkOpened(_) | Record::SizeSet(_) => By {
                session: SessionId::issued(EPOCH, SESSION),
                request: RequestNumber(self.seq),
                lowest: RequestNumber(self.seq),
            },
            _ => By::NOBODY,
        };
        Some(Logged {
            seq: LogSeq(self.seq),
            by,
            record,
        })
    }
}

/// A log that is being made of records, by the encoder that meta servers use.
#[derive(Debug)]
pub struct Log {
    cluster: ClusterId,
    seq: LogSeq,
    header: SegmentHeader,
    /// The segment's bytes so far.
    bytes: Vec<u8>,
    forming: Forming,
    /// The chain hash of all batches before the one that forms.
    chain: u64,
    limits: Limits,
}

/// The bytes of a segment, and its first record.
pub type Segment = (LogSeq, Vec<u8>);

impl Log {
    /// Of this cluster; without any record.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        let header = segment_header(cluster, LogSeq(1), 0);
        Self {
            cluster,
            seq: LogSeq(0),
            header,
            bytes: header.encode(),
            forming: Forming::new(LogSeq(1)),
            chain: 0,
            limits: Limits::REAL,
        }
    }
    /// The last record.
    #[must_use]
    pub const fn seq(&self) -> LogSeq {
        self.seq
    }
    /// Adds a record. Gives a segment, if that filled one.
    pub fn push(&mut self, by: By, record: Record) -> Option<Segment> {
        self.seq = self.seq.next();
        let seq = self.seq;
        self.forming.push(&Logged { seq, by, record });
        if self.forming.payload_bytes() >= self.limits.log_batch_bytes {
            self.close_batch();
        }
        if (self.bytes.len() as u64) < self.limits.log_segment_bytes {
            return None;
        }
        // The batch that forms is empty.
        let header = segment_header(self.cluster, self.seq.next(), self.chain);
        let bytes = core::mem::replace(&mut self.bytes, header.encode());
        let first = self.header.first;
        self.header = header;
        Some((first, bytes))
    }
    fn close_batch(&mut self) {
        let forming = core::mem::replace(&mut self.forming, Forming::new(self.seq.next()));
        let durable = LogSeq(forming.first().0 - 1);
        let (batch, chain) = forming.close(self.header.salt, durable, self.chain);
        self.bytes.extend_from_slice(&batch);
        self.chain = chain;
    }
    /// The last segment.
    #[must_use]
    pub fn finish(mut self) -> Segment {
        if self.forming.payload_bytes() > 0 {
            self.close_batch();
        }
        (self.header.first, self.bytes)
    }
}

fn segment_header(cluster: ClusterId, first: LogSeq, chain: u64) -> SegmentHeader {
    SegmentHeader {
        cluster,
        epoch: EPOCH,
        first,
        salt: first.0,
        chain,
    }
}

/// The identity file of the meta server whose log has [`Records`].
#[must_use]
pub fn identity() -> Identity {
    Identity {
        owner: Owner::Meta,
        cluster: CLUSTER,
        node: NodeId(u128::from(SERVERS) + 1),
        disk: DiskId(1),
        boot: Boot(1),
        seen: (EPOCH, Incarnation(1)),
        seen_seq: LogSeq(0),
        siblings: Vec::new(),
    }
}

/// What a meta server holds in memory of all its files: what its log says, and which replicas are there.
#[derive(Default, Debug)]
pub struct Filled {
    state: State,
    copies: ChunkMap,
    confirmed: [Map<ChunkSet>; REPLICAS],
}

impl Filled {
    /// Applies a record. What is opened has all of its replicas at once.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn apply(&mut self, logged: &Logged) -> Result<(), String> {
        self.state.apply(logged)?;
        match &logged.record {
            Record::ChunkOpened(r) => {
                self.copies.opened(r.chunk, 3);
                for server in &mut self.confirmed {
                    server.insert(r.chunk, ());
                    self.copies.gained(r.chunk);
                }
            }
            Record::SizeSet(r) => {
                for (index, synced) in &r.synced {
                    if let Some(chunk) = self.state.chunks.get(&(r.file, *index)) {
                        self.copies.synced(chunk.chunk, Some(*synced));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
    /// A state that was loaded, all of whose replicas are there.
    #[must_use]
    pub fn of(state: State) -> Self {
        let mut filled = Self {
            copies: ChunkMap::of(&state),
            confirmed: Default::default(),
            state,
        };
        for (_, chunk) in filled.state.chunks.iter() {
            for server in &mut filled.confirmed {
                server.insert(chunk.chunk, ());
                filled.copies.gained(chunk.chunk);
            }
        }
        filled
    }
    /// What the log says.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }
}
