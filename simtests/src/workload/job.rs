//! What clients are to do, spelled out: each job stands for itself, so that one can be left out or made smaller
//! without changing the others. Drawn from the seed before anything runs, done by both simulators.
use super::bytes::Stamp;
use crate::keyed::Keyed;
use bytes::Bytes;
use kfs_core::limits::Geometry;
use kfs_core::wire::client_meta::{Attributes, Ownership, Parents, RenameMode};
use serde::{Deserialize, Serialize};

/// Who and mode of everything that is made.
pub const OWNER: Ownership = Ownership {
    uid: 1,
    gid: 1,
    mode: 0o644,
};
/// Directories that all clients share.
pub const SHARED_DIRS: u64 = 2;
/// Names in each of them that clients contend for.
const SHARED_NAMES: u64 = 5;

/// One thing that an actor does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Job {
    /// As `kfs put` does: written under a temporary name, closed, renamed; nothing is seen under the final name
    /// before all of it is durable.
    Put {
        /// The temporary name.
        temp: String,
        /// The final one.
        name: String,
        /// Whether what has the final name is replaced.
        mode: RenameMode,
        /// What is written.
        fill: Vec<Fill>,
    },
    /// A file is written under its name.
    Write {
        /// Its name.
        name: String,
        /// What is written.
        fill: Vec<Fill>,
        /// What is done then.
        end: End,
        /// What is done if a write or a sync fails: a close must then fail too, or everything must be there.
        failed: End,
    },
    /// A file that is there is written further from where it ends; where that is its steps do not know.
    Append {
        /// Its name.
        name: String,
        /// What is written, from there on.
        fill: Vec<Fill>,
        /// What is done then.
        end: End,
    },
    /// A file that is there is opened with another length.
    Truncate {
        /// Its name.
        name: String,
        /// In bytes.
        len: u64,
        /// What is written, from its new end on.
        fill: Vec<Fill>,
        /// What is done then.
        end: End,
    },
    /// Bytes that were written are written over.
    Overwrite {
        /// Of a new file.
        name: String,
        /// Whether the first bytes are synced before.
        synced: bool,
        /// Where the second write begins, below 100.
        from: u64,
    },
    /// A file is read and checked.
    Read {
        /// Its name.
        name: String,
        /// How.
        how: ReadHow,
    },
    /// Attributes are asked for.
    Stat(String),
    /// A directory is listed.
    List(String),
    /// What a tree takes is asked for, while it changes.
    Usage {
        /// Its name.
        name: String,
        /// Directories so far below have rows of their own.
        depth: u32,
    },
    /// A name is moved.
    Rename {
        /// From here.
        from: String,
        /// To there.
        to: String,
        /// Whether what is there is replaced.
        mode: RenameMode,
    },
    /// A file is removed.
    Remove(String),
    /// A directory is removed.
    Rmdir(String),
    /// A directory is removed with all that is in it.
    RemoveTree(String),
    /// An empty file is made.
    Touch(String),
    /// Nothing is done for so many milliseconds.
    Idle {
        /// How long.
        ms: u64,
    },
    /// Nothing is done until so many acks were heard by all clients together.
    Await {
        /// How many.
        acks: u64,
        /// How long at most, in milliseconds: who was to hear them may be dead.
        ms: u64,
    },
    /// A directory is made.
    Mkdir {
        /// Its name.
        name: String,
        /// With those above it, or not.
        parents: Parents,
    },
    /// The operator accepts that the log of the meta server has lost its end.
    AcceptRollback,
    /// A file asks for another number of replicas.
    SetReplication {
        /// Its name.
        name: String,
        /// Of each chunk.
        replication: u8,
    },
    /// The mode of a file or directory is changed, and its group with some.
    SetMode {
        /// Its name.
        name: String,
        /// See [`attributes`].
        mode: u32,
    },
    /// A chunkserver is drained, which has to end.
    Drain {
        /// Which, as faults name them.
        server: usize,
        /// Within so many milliseconds.
        ms: u64,
    },
    /// Every chunk has to get all its copies, whoever is still away.
    Copies {
        /// Within so many milliseconds.
        ms: u64,
    },
}

/// What [`Job::SetMode`] sets: with an odd mode the group too, so that there is one to be kept with the next.
#[must_use]
pub fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode: Some(mode),
        gid: (mode % 2 == 1).then_some(mode),
        ..Attributes::default()
    }
}

/// One step of filling a file.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Fill {
    /// So many bytes are written there.
    Bytes {
        /// In the file, in bytes.
        at: u64,
        /// In bytes.
        len: u64,
    },
    /// Bytes that are there are written over: where, in thousandths of what the file has by then.
    Over {
        /// Below 1000.
        permille: u64,
        /// In bytes.
        len: u64,
        /// The how manieth of its job, from 1: what is written differs.
        round: u32,
    },
    /// All that was written is synced.
    Sync,
    /// The file gets this length; what is written then counts from there.
    SetLen {
        /// In bytes.
        len: u64,
    },
    /// The file stays open, and nothing is done for so many milliseconds.
    Idle {
        /// How long.
        ms: u64,
    },
}

impl Fill {
    /// From where steps count after these, in a file that ended at `begin` before them, and where it ends.
    fn after(begin: u64, done: &[Self]) -> (u64, u64) {
        let mut now = (begin, begin);
        for step in done {
            let (from, end) = now;
            now = match *step {
                Self::Bytes { at, len } => (from, end.max(from + at + len)),
                Self::SetLen { len } => (len, len),
                Self::Over { .. } | Self::Sync | Self::Idle { .. } => now,
            };
        }
        now
    }
    /// What a step writes, if it does, and where, in a file that ended at `begin` before the first one.
    #[must_use]
    pub fn write(begin: u64, steps: &[Self], nth: usize, author: Author) -> Option<(u64, Bytes)> {
        let (from, end) = Self::after(begin, &steps[..nth]);
        match steps[nth] {
            Self::Bytes { at, len } => Some((from + at, author.bytes(from + at, len))),
            Self::Over {
                permille,
                len,
                round,
            } => {
                let at = end * permille / 1_000;
                let len = len.min(end - at);
                let len = usize::try_from(len).expect("simulated files fit in memory");
                (len > 0).then(|| (at, author.over_stamp(round).fill(at, len)))
            }
            Self::Sync | Self::SetLen { .. } | Self::Idle { .. } => None,
        }
    }
}

/// How a file that was written is let go of.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum End {
    /// It is closed: everything is durable then.
    Close,
    /// It is forgotten.
    Abandon,
    /// As [`Self::Abandon`], and that it comes to it breaks a promise: there was nothing that it may fail of.
    MustNot,
}

/// How a file is read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum ReadHow {
    /// From its first byte to its last, as one stream.
    Stream,
    /// From its first byte to its last, in reads of about this many bytes.
    Steps(u64),
    /// These ranges: offset in thousandths of the size, and bytes.
    Ranges(Vec<(u64, u64)>),
    /// One look after another, while the file may be written on.
    Looks(Vec<Look>),
}

/// One look at a file that stays open.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Look {
    /// These bytes.
    At {
        /// In the file, in bytes.
        at: u64,
        /// In bytes.
        len: u64,
    },
    /// Nothing is done for so many milliseconds.
    Idle {
        /// How long.
        ms: u64,
    },
}

/// How often actors do what.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// A temporary file is written and renamed to its final name.
    pub put: u64,
    /// A file is written under its name, with syncs between.
    pub write: u64,
    /// A file is read and checked.
    pub read: u64,
    /// Names are made, moved, removed, listed.
    pub names: u64,
    /// Bytes that were written are written over.
    pub overwrite: u64,
    /// Files are cut, or made longer, and written on.
    pub cut: u64,
}

/// Of which run and actor a job is: what names its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Author {
    /// Of the run.
    pub salt: u64,
    /// Different for each actor of each client.
    pub actor: u32,
    /// Of the job, among those of the actor.
    pub job: u32,
}

impl Author {
    /// What the job writes.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        Stamp {
            salt: self.salt,
            client: self.actor,
            operation: 2 * self.job + 1,
        }
    }
    /// What the job writes over it.
    #[must_use]
    pub fn over_stamp(self, round: u32) -> Stamp {
        assert!(self.job < 400 && round < 60, "operations have 16 bits");
        Stamp {
            salt: self.salt,
            client: self.actor,
            operation: 2 * self.job + 2 + 1_000 * round,
        }
    }
    /// These bytes of what the job writes.
    #[must_use]
    pub fn bytes(self, at: u64, len: u64) -> Bytes {
        let len = usize::try_from(len).expect("simulated files fit in memory");
        self.stamp().fill(at, len)
    }
}

/// Draws the jobs of one actor. Each draws from numbers of its own.
#[must_use]
pub fn draw(seed: u64, actor: u32, count: u32, mix: Mix, geometry: Geometry) -> Vec<Job> {
    let mut jobs = Vec::new();
    for nth in 0..count {
        let draws = Keyed::new(seed, &format!("job {nth} of actor {actor}"));
        let mut drawing = Drawing {
            draws,
            actor,
            nth,
            geometry,
        };
        drawing.job(mix, &mut jobs);
    }
    jobs
}

struct Drawing {
    draws: Keyed,
    actor: u32,
    nth: u32,
    geometry: Geometry,
}

impl Drawing {
    fn job(&mut self, mix: Mix, jobs: &mut Vec<Job>) {
        let Mix {
            put,
            write,
            read,
            names,
            overwrite,
            cut,
        } = mix;
        let mut left = self
            .draws
            .below(put + write + read + names + overwrite + cut);
        let mut is = |weight: u64| {
            let hit = left < weight;
            left = left.wrapping_sub(weight);
            hit
        };
        if is(put) {
            jobs.push(self.put());
        } else if is(write) && self.draws.percent(30) {
            let append = self.append();
            jobs.push(append);
        } else if is(write) {
            jobs.push(self.write());
        } else if is(read) {
            jobs.push(self.read());
        } else if is(names) {
            self.names(jobs);
        } else if is(cut) {
            let cut = self.cut();
            jobs.push(cut);
        } else {
            jobs.push(Job::Overwrite {
                name: self.own_name("o"),
                synced: self.draws.percent(50),
                from: self.draws.below(100),
            });
        }
    }

    fn put(&mut self) -> Job {
        Job::Put {
            temp: self.own_name(".tmp"),
            name: self.shared_name(),
            mode: if self.draws.percent(80) {
                RenameMode::Replace
            } else {
                RenameMode::NoReplace
            },
            fill: self.filled(),
        }
    }

    fn write(&mut self) -> Job {
        let name = if self.draws.percent(50) {
            self.shared_name()
        } else {
            self.own_name("w")
        };
        let mut end = |close| {
            if self.draws.percent(close) {
                End::Close
            } else {
                End::Abandon
            }
        };
        let (end, failed) = (end(90), end(50));
        Job::Write {
            name,
            fill: self.filled(),
            end,
            failed,
        }
    }

    fn filled(&mut self) -> Vec<Fill> {
        let mut fill = self.fill();
        self.write_over(&mut fill);
        fill
    }

    /// Some bytes are written over, of those that are there by then.
    fn write_over(&mut self, fill: &mut Vec<Fill>) {
        if fill.is_empty() || !self.draws.percent(35) {
            return;
        }
        let block = u64::from(self.geometry.block_bytes);
        for round in 1..1 + u32::try_from(self.draws.between(1, 5)).expect("few") {
            let at = 1 + self.draws.index(fill.len());
            let len = self.draws.pick(&[20, block / 3, block, 3 * block]);
            let over = Fill::Over {
                permille: self.draws.below(1_000),
                len: 1 + self.draws.below(len.max(1)),
                round,
            };
            fill.insert(at, over);
            if self.draws.percent(40) {
                fill.insert(at + 1, Fill::Sync);
            }
        }
    }

    fn append(&mut self) -> Job {
        let block = u64::from(self.geometry.block_bytes);
        let most = self.draws.pick(&[20, block / 3, block, 3 * block]).max(1);
        let mut fill = Vec::new();
        let mut at = 0;
        for _ in 0..self.draws.between(1, 9) {
            let len = 1 + self.draws.below(most);
            fill.push(Fill::Bytes { at, len });
            at += len;
            if self.draws.percent(30) {
                fill.push(Fill::Sync);
            }
        }
        let end = if self.draws.percent(80) {
            End::Close
        } else {
            End::Abandon
        };
        let name = self.shared_name();
        if self.draws.percent(25) {
            // From one of them on it goes on at a distance.
            let gap = 1 + self.draws.below(3 * block);
            let from = self.draws.index(fill.len());
            for step in &mut fill[from..] {
                if let Fill::Bytes { at, .. } = step {
                    *at += gap;
                }
            }
        }
        self.write_over(&mut fill);
        Job::Append { name, fill, end }
    }

    /// A length near those that files have, at an edge of something or not.
    fn len(&mut self) -> u64 {
        let block = u64::from(self.geometry.block_bytes);
        let chunk = self.geometry.chunk_bytes();
        match self.draws.below(8) {
            0 => 0,
            1 => block * self.draws.below(12),
            2 => chunk * self.draws.below(3),
            3 => chunk + self.draws.below(2 * block),
            4 => self.draws.below(3 * chunk),
            _ => self.draws.below(chunk),
        }
    }

    /// A file is cut or made longer, when it is opened or later, and written on.
    fn cut(&mut self) -> Job {
        let block = u64::from(self.geometry.block_bytes);
        let mut fill = Vec::new();
        let mut at = 0;
        for _ in 0..self.draws.below(6) {
            let gap = if self.draws.percent(30) {
                self.draws.below(3 * block)
            } else {
                0
            };
            let len = 1 + self.draws.below(2 * block);
            fill.push(Fill::Bytes { at: at + gap, len });
            at += gap + len;
            if self.draws.percent(30) {
                fill.push(Fill::Sync);
            }
            if self.draws.percent(25) {
                fill.push(Fill::SetLen { len: self.len() });
                at = 0;
            }
        }
        let end = if self.draws.percent(80) {
            End::Close
        } else {
            End::Abandon
        };
        let name = self.shared_name();
        self.write_over(&mut fill);
        if self.draws.percent(30) {
            let len = self.len();
            fill.insert(0, Fill::SetLen { len });
            return Job::Append { name, fill, end };
        }
        let len = self.len();
        Job::Truncate {
            name,
            len,
            fill,
            end,
        }
    }

    /// A file of some size, written in some way.
    fn fill(&mut self) -> Vec<Fill> {
        let Geometry {
            block_bytes,
            chunk_blocks,
            ..
        } = self.geometry;
        let block = u64::from(block_bytes);
        let blocks = match self.draws.below(10) {
            0 => return Vec::new(),
            1..4 => 1,
            4..8 => u64::from(chunk_blocks) / 2,
            8 => u64::from(chunk_blocks) + 2,
            _ => 2 * u64::from(chunk_blocks) + 3,
        };
        let size = 1 + self.draws.below(blocks * block);
        if self.draws.percent(25) {
            return self.fill_blocks(size, block);
        }
        let most = self
            .draws
            .pick(&[block / 3, block, 3 * block, 8 * block])
            .max(1);
        let mut fill = Vec::new();
        let mut at = 0;
        while at < size {
            let len = (1 + self.draws.below(most)).min(size - at);
            let sync = self.draws.percent(15);
            fill.push(Fill::Bytes { at, len });
            at += len;
            if sync {
                fill.push(Fill::Sync);
            }
        }
        fill
    }

    /// Whole blocks in any order, some of them never. Not synced before the end if there are several chunks: a
    /// size that reaches into the next chunk closes the one before.
    fn fill_blocks(&mut self, size: u64, block: u64) -> Vec<Fill> {
        let chunk = self.geometry.chunk_bytes();
        let mut blocks: Vec<u64> = (0..size.div_ceil(block)).collect();
        self.draws.shuffle(&mut blocks);
        let holes = self.draws.index(blocks.len() + 1) / 2;
        let mut fill = Vec::new();
        for nth in blocks.into_iter().skip(holes) {
            let (at, to) = (nth * block, ((nth + 1) * block).min(size));
            fill.push(Fill::Bytes { at, len: to - at });
            if self.draws.percent(10) && to % block == 0 && size <= chunk {
                fill.push(Fill::Sync);
            }
        }
        fill
    }

    fn read(&mut self) -> Job {
        let block = u64::from(self.geometry.block_bytes);
        let how = match self.draws.below(5) {
            0 => ReadHow::Stream,
            1 => ReadHow::Steps(1 + self.draws.below(6 * block)),
            2 => self.looks(block),
            _ => ReadHow::Ranges(
                (0..4)
                    .map(|_| (self.draws.below(1_010), 1 + self.draws.below(5 * block)))
                    .collect(),
            ),
        };
        Job::Read {
            name: self.shared_name(),
            how,
        }
    }

    /// The file stays open for a while: it may be removed or replaced meanwhile.
    fn looks(&mut self, block: u64) -> ReadHow {
        let look = |draws: &mut Keyed| Look::At {
            at: draws.below(4 * block),
            len: 1 + draws.below(3 * block),
        };
        let idle = |draws: &mut Keyed| Look::Idle {
            ms: draws.pick(&[5, 50, 300]),
        };
        let looks = (0..4).flat_map(|_| [look(&mut self.draws), idle(&mut self.draws)]);
        ReadHow::Looks(looks.collect())
    }

    fn names(&mut self, jobs: &mut Vec<Job>) {
        let (one, other) = (self.shared_name(), self.shared_name());
        let family = self.actor % 4;
        let dir = format!("/p{family}-{}", self.draws.below(3));
        let inner = format!("{dir}/q{}", self.draws.below(2));
        let moved = |mode| Job::Rename {
            from: one.clone(),
            to: other.clone(),
            mode,
        };
        let job = match self.draws.below(17) {
            0 | 1 => Job::Stat(one),
            2 => Job::List(self.shared_dir()),
            3 => Job::List("/".into()),
            4 => moved(RenameMode::Replace),
            5 => moved(RenameMode::NoReplace),
            6 => Job::Remove(one),
            7 => Job::Touch(if self.draws.percent(50) { one } else { inner }),
            8 | 9 => Job::Mkdir {
                name: dir,
                parents: Parents::MustExist,
            },
            10 => Job::Mkdir {
                name: inner,
                parents: Parents::Make,
            },
            11 => Job::Rmdir(dir),
            12 => {
                jobs.push(Job::Remove(inner.clone()));
                Job::Rmdir(inner)
            }
            13 => Job::Rename {
                from: dir,
                to: format!("/p{family}-{}", self.draws.below(3)),
                mode: RenameMode::Replace,
            },
            14 => Job::List(dir),
            15 => Job::RemoveTree(dir),
            _ if self.draws.percent(50) => Job::Usage {
                name: self.draws.pick(&["/", "/d0", &dir]).into(),
                depth: self.draws.pick(&[0, 1, 9]),
            },
            _ => Job::Stat(inner),
        };
        jobs.push(job);
    }

    fn shared_dir(&mut self) -> String {
        format!("/d{}", self.draws.below(SHARED_DIRS))
    }
    fn shared_name(&mut self) -> String {
        let dir = self.shared_dir();
        format!("{dir}/f{}", self.draws.below(SHARED_NAMES))
    }
    fn own_name(&mut self, of: &str) -> String {
        let dir = self.shared_dir();
        format!("{dir}/{of}-{}-{}", self.actor, self.nth)
    }
}
