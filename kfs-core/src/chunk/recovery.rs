//! The start of a chunkserver: whose directory it is, the boot raised, what is in `chunks/`.
//!
//! Nothing is formatted that is not empty, nothing is guessed that cannot be read, and nothing found is
//! changed, but for redo runs that a crash kept from their places: the meta server's verdicts come later, in [`super::meta_on_chunk`].
use super::inventory::{Replica, Standing};
use super::meta_on_chunk::Station;
use super::name::{CHUNKS, ChunkName, TRASH};
use super::redo::After;
use super::{Chunk, Job};
use crate::identity::{self, FIXED_BYTES, Identity, IdentityError, Owner, SIBLINGS_MAX};
use crate::ids::{Boot, ClusterId, DiskId, Epoch, Incarnation, LogSeq, NodeId};
use crate::limits::HEADER_BYTES;
use crate::machine::{
    DirEntry, DiskDone, DiskError, DiskOp, DiskResult, FaultKind, FileName, SyncMode,
};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::rng::Rng;
use bytes::Bytes;
use std::collections::VecDeque;

/// Headers being read at the same time during the scan.
const SCAN_READS: usize = 64;
/// Made by the file system, not by us.
const LOST_AND_FOUND: &str = "lost+found";

/// How far the start is.
#[derive(Clone, Debug)]
pub(super) enum Start {
    NotYet,
    /// The data directory is being listed.
    Root,
    /// There is no identity file: these directories must be empty, or it is not ours to format.
    Emptiness {
        left: VecDeque<FileName>,
        leftover: Leftover,
    },
    /// The identity file is being written for the first time.
    Format,
    /// The identity file is being read.
    Reading {
        leftover: Leftover,
    },
    /// It is being replaced, with the boot raised.
    Boot,
    /// `trash/` is being listed.
    Trash,
    /// What is in `chunks/` is made durable, names and headers: a process that was killed may have left some that are
    /// not, and what is reported is relied on.
    SyncAll,
    /// `chunks/` is being listed.
    Chunks,
    /// Headers are being read.
    Scan {
        left: VecDeque<ChunkName>,
        /// Copies that a crash left behind: they go.
        copies: Vec<ChunkName>,
        reading: usize,
    },
    Done,
}

/// Whether a crash left the identity file's replacement half made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leftover {
    None,
    Identity,
}

/// The identity of a server that is formatted now.
pub(super) fn new_identity(rng: &mut Rng) -> Identity {
    Identity {
        owner: Owner::Chunk,
        cluster: ClusterId(0),
        node: NodeId(rng.id()),
        disk: DiskId(rng.id()),
        boot: Boot(1),
        seen: (Epoch(0), Incarnation(0)),
        seen_seq: LogSeq(0),
        siblings: Vec::new(),
    }
}

impl Chunk {
    pub(super) fn begin(&mut self) {
        self.start = Start::Root;
        self.disk(
            Job::Start,
            DiskOp::List {
                dir: FileName::new(""),
            },
        );
    }

    /// A step of the start ended.
    pub(super) fn started(&mut self, result: DiskResult) {
        let start = core::mem::replace(&mut self.start, Start::NotYet);
        match (start, result) {
            (Start::Root, Ok(DiskDone::Entries(entries))) => self.root_listed(&entries),
            (Start::Emptiness { left, leftover }, Ok(DiskDone::Entries(entries))) => {
                let strange = entries.first().map(|entry| entry.name.clone());
                self.looked_for_emptiness(left, leftover, strange);
            }
            (Start::Reading { leftover }, Ok(DiskDone::Data(bytes))) => {
                self.identity_read(&bytes, leftover)
            }
            (Start::Trash, Ok(DiskDone::Entries(entries))) => self.trash_listed(entries),
            (Start::Trash, Err(DiskError::NotFound)) => self.trash_missing(),
            (Start::SyncAll, Ok(DiskDone::Done)) => self.list_chunks(),
            (Start::Chunks, Ok(DiskDone::Entries(entries))) => self.chunks_listed(entries),
            (Start::SyncAll | Start::Chunks, Err(DiskError::NotFound)) => {
                let help = Some(
                    "is a disk not mounted? An empty directory to begin anew is formatted".into(),
                );
                self.halt(
                    FaultKind::Corrupt,
                    "the data directory has an identity file but no chunks/".into(),
                    help,
                );
            }
            (start, Err(error)) => {
                let what = format!("cannot read the data directory ({}): {error}", start.what());
                self.halt(FaultKind::Disk, what, None);
            }
            (start, Ok(other)) => {
                let what = format!("the disk answered {other:?} ({})", start.what());
                self.halt(FaultKind::Disk, what, None);
            }
        }
    }

    fn root_listed(&mut self, entries: &[DirEntry]) {
        let has = |name: &str| entries.iter().any(|entry| entry.name == name);
        let leftover = if has(identity::NAME_NEW) {
            Leftover::Identity
        } else {
            Leftover::None
        };
        if has(identity::NAME) {
            self.start = Start::Reading { leftover };
            // One byte more than the longest, so that a longer one is seen as such.
            let len = FIXED_BYTES + 16 * SIBLINGS_MAX + 4 + 1;
            return self.disk(
                Job::Start,
                DiskOp::Read {
                    file: FileName::new(identity::NAME),
                    offset: 0,
                    len,
                },
            );
        }
        let ours = [identity::NAME_NEW, CHUNKS, TRASH, LOST_AND_FOUND];
        let strange = entries
            .iter()
            .find(|entry| !ours.contains(&entry.name.as_str()));
        let left = [CHUNKS, TRASH]
            .into_iter()
            .filter(|dir| has(dir))
            .map(FileName::new)
            .collect();
        self.looked_for_emptiness(left, leftover, strange.map(|entry| entry.name.clone()));
    }

    fn looked_for_emptiness(
        &mut self,
        mut left: VecDeque<FileName>,
        leftover: Leftover,
        strange: Option<String>,
    ) {
        if let Some(strange) = strange {
            let what = format!(
                "the data directory has files ('{strange}') but no identity file: it is not formatted"
            );
            let help = "name the directory of a chunkserver, or an empty one; if its identity file was lost, restore it";
            return self.halt(FaultKind::Refused, what, Some(help.into()));
        }
        if let Some(dir) = left.pop_front() {
            self.start = Start::Emptiness { left, leftover };
            return self.disk(Job::Start, DiskOp::List { dir });
        }
        self.start = Start::Format;
        let dirs = [CHUNKS, TRASH].map(|dir| DiskOp::MakeDir {
            dir: FileName::new(dir),
        });
        self.replace_identity(leftover, dirs.into());
    }

    fn identity_read(&mut self, bytes: &[u8], leftover: Leftover) {
        match Identity::decode(bytes) {
            Ok(found) if found.owner == Owner::Chunk => {
                self.identity = Identity {
                    boot: found.boot.next(),
                    ..found
                };
                self.start = Start::Boot;
                self.replace_identity(leftover, Vec::new());
            }
            Ok(_) => {
                let what = "the data directory belongs to a meta server".into();
                self.halt(
                    FaultKind::Refused,
                    what,
                    Some("name the directory of a chunkserver, or an empty one".into()),
                );
            }
            Err(IdentityError::Format(format)) => {
                let what = format!(
                    "the identity file has format {format}, this build knows {}",
                    identity::FORMAT
                );
                self.halt(
                    FaultKind::Refused,
                    what,
                    Some("run the build that wrote it, or a newer one".into()),
                );
            }
            Err(error) => {
                let what = format!("the identity file is damaged: {error}");
                self.halt(
                    FaultKind::Corrupt,
                    what,
                    Some("restore it from a copy; no other file was touched".into()),
                );
            }
        }
    }

    /// Replaces the identity file by `self.identity`, durably; `before` comes before the rename.
    pub(super) fn replace_identity(&mut self, leftover: Leftover, before: Vec<DiskOp>) {
        assert!(self.identity_steps.is_empty(), "one replacement at a time");
        self.note.begun(self.identity.seen_seq);
        let new = FileName::new(identity::NAME_NEW);
        if leftover == Leftover::Identity {
            probe::hit(Probe::IdentityHalfMade);
            self.identity_steps
                .push_back(DiskOp::Remove { file: new.clone() });
        }
        self.identity_steps.push_back(DiskOp::Create {
            file: new.clone(),
            zeroed: 0,
        });
        let data = vec![Bytes::from(self.identity.encode())];
        self.identity_steps.push_back(DiskOp::Write {
            file: new.clone(),
            offset: 0,
            data,
            sync: SyncMode::Now,
        });
        let made_names = !before.is_empty();
        self.identity_steps.extend(before);
        let root = FileName::new("");
        if made_names {
            self.identity_steps
                .push_back(DiskOp::SyncDir { dir: root.clone() });
        }
        self.identity_steps.push_back(DiskOp::Rename {
            from: new,
            to: FileName::new(identity::NAME),
        });
        if !planted::is(Bug::IdentityUnnamed) {
            self.identity_steps.push_back(DiskOp::SyncDir { dir: root });
        }
        self.identity_step();
    }

    /// Issues the step at the front, which stays there until it is done.
    pub(super) fn identity_step(&mut self) {
        let op = self
            .identity_steps
            .front()
            .expect("a replacement has steps")
            .clone();
        self.disk(Job::Identity, op);
    }

    pub(super) fn identity_step_done(&mut self, result: DiskResult) {
        let result = match super::done(result) {
            Err(DiskError::NoSpace) if self.note.may_wait() => return self.take_note_back(),
            Err(DiskError::NotFound) if self.note.is_taken_back() => Ok(()),
            result => result,
        };
        if let Err(error) = result {
            let what = format!("cannot write the identity file: {error}");
            return self.halt(
                FaultKind::Disk,
                what,
                Some("check the disk of the data directory".into()),
            );
        }
        self.identity_steps
            .pop_front()
            .expect("the step that just ended");
        if !self.identity_steps.is_empty() {
            return self.identity_step();
        }
        self.note.ended(self.now.mono);
        if matches!(self.start, Start::Format | Start::Boot) {
            self.start = Start::Trash;
            self.disk(
                Job::Start,
                DiskOp::List {
                    dir: FileName::new(TRASH),
                },
            );
        } else {
            self.identity_recorded();
        }
    }

    fn trash_listed(&mut self, entries: Vec<DirEntry>) {
        for entry in entries {
            match ChunkName::parse_trash(&entry.name).filter(|_| entry.is_file) {
                Some((name, n)) => self.trash.found(self.now.mono, name, n),
                None => self.foreign(TRASH, &entry.name),
            }
        }
        self.sync_chunks();
    }

    /// Somebody threw the trash away, which is theirs to do.
    fn trash_missing(&mut self) {
        self.disk(
            Job::Tidy,
            DiskOp::MakeDir {
                dir: FileName::new(TRASH),
            },
        );
        self.disk(
            Job::Tidy,
            DiskOp::SyncDir {
                dir: FileName::new(""),
            },
        );
        self.sync_chunks();
    }

    fn sync_chunks(&mut self) {
        if planted::is(Bug::FoundUnsynced) {
            return self.list_chunks();
        }
        self.start = Start::SyncAll;
        self.disk(
            Job::Start,
            DiskOp::SyncAll {
                dir: FileName::new(CHUNKS),
            },
        );
    }

    fn list_chunks(&mut self) {
        self.start = Start::Chunks;
        self.disk(
            Job::Start,
            DiskOp::List {
                dir: FileName::new(CHUNKS),
            },
        );
    }

    fn chunks_listed(&mut self, entries: Vec<DirEntry>) {
        let mut left = VecDeque::new();
        let mut copies = Vec::new();
        for entry in entries {
            let is_file = |_: &ChunkName| entry.is_file;
            if let Some(name) = ChunkName::parse(&entry.name).filter(is_file) {
                left.push_back(name);
            } else if let Some(name) = ChunkName::parse_copy(&entry.name).filter(is_file) {
                probe::hit(Probe::CopyLeftover);
                copies.push(name);
            } else {
                self.foreign(CHUNKS, &entry.name);
            }
        }
        self.start = Start::Scan {
            left,
            copies,
            reading: 0,
        };
        self.scan();
    }

    /// What is none of ours is reported, and never touched.
    fn foreign(&mut self, dir: &str, name: &str) {
        tracing::warn!(
            file = format!("{dir}/{name}"),
            "not a file of ours: left where it is"
        );
        self.inventory.foreign += 1;
    }

    fn scan(&mut self) {
        while let Start::Scan {
            left,
            copies,
            reading,
        } = &mut self.start
            && *reading < SCAN_READS
        {
            if let Some(name) = copies.pop() {
                *reading += 1;
                let file = name.copy_path();
                self.disk(Job::Leftover, DiskOp::Remove { file });
                continue;
            }
            match left.pop_front() {
                Some(name) => {
                    *reading += 1;
                    let len = usize::try_from(HEADER_BYTES).expect("a header is small");
                    self.disk(
                        Job::Scan(name),
                        DiskOp::Read {
                            file: name.path(),
                            offset: 0,
                            len,
                        },
                    );
                }
                None if *reading > 0 => return,
                None => {
                    self.start = Start::Done;
                    self.station = Station::Measuring;
                    self.measure_space();
                }
            }
        }
    }

    pub(super) fn scanned(&mut self, name: ChunkName, result: DiskResult) {
        let header = match result {
            Err(DiskError::NotFound) => None,
            result => Some(self.read_header(name, result)),
        };
        if let Some(header) = header {
            if let Err(why) = &header {
                tracing::warn!(
                    why,
                    "a chunk file without a readable header is served to nobody"
                );
            }
            let header = header.ok();
            self.found(
                name,
                Replica::found(name, header.as_deref(), self.config.geometry),
            );
            // A file that is none of ours is never touched.
            let is_ours = self.inventory.replicas[&name.id()].file == name.file;
            if let Some(header) = header.filter(|header| is_ours && !header.redo.is_empty()) {
                return self.recall(&header, true, After::Scan);
            }
        }
        self.scan_goes_on();
    }

    /// One of those that the scan waits for has ended.
    pub(super) fn scan_goes_on(&mut self) {
        if let Start::Scan { reading, .. } = &mut self.start {
            *reading -= 1;
            self.scan();
        }
    }

    /// Two files cannot be the same version of one chunk: the one with the good header is, the other is
    /// none of ours.
    fn found(&mut self, name: ChunkName, replica: Replica) {
        match self.inventory.replicas.get(&name.id()) {
            None => {
                self.inventory.replicas.insert(name.id(), replica);
            }
            Some(other)
                if other.standing == Standing::BadHeader
                    && replica.standing != Standing::BadHeader =>
            {
                let other = name.id().of(other.file);
                self.inventory.replicas.insert(name.id(), replica);
                self.foreign(CHUNKS, &other.to_string());
            }
            Some(_) => self.foreign(CHUNKS, &name.to_string()),
        }
    }
}

impl Start {
    /// For people.
    const fn what(&self) -> &'static str {
        match self {
            Self::NotYet | Self::Root | Self::Done => "listing it",
            Self::Emptiness { .. } => "looking whether it is empty",
            Self::Format => "formatting it",
            Self::Reading { .. } | Self::Boot => "its identity file",
            Self::Trash => "listing trash/",
            Self::SyncAll => "making chunks/ durable",
            Self::Chunks | Self::Scan { .. } => "listing chunks/",
        }
    }
}
