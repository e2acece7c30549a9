//! What goes wrong with a disk while it runs, and how often it did.
//!
//! A fault is a value that stands in a plan as text and says all of itself: where, when, how often, and the
//! seed of what it draws. Some change what lies on the disk at once; the others are armed, stay with the disk
//! and its clones, and strike in [`DiskModel::apply`] until they are used up or lifted. A machine sees of them
//! what a driver over a real file system would tell it, so a read that is short is an error or whole: drivers
//! read on. Nothing here is drawn when nothing strikes.
use super::image::Image;
use super::model::{DiskModel, Inode, Moment, joined, to_usize};
use crate::keyed::Keyed;
use bytes::Bytes;
use kfs_core::machine::{DiskDone, DiskError, DiskOp, DiskResult, FileName, SyncMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::{AddAssign, Index, Range};

/// What goes wrong with one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// Operations fail, and do nothing. What was pending for a sync that fails so stays pending.
    Fail {
        /// Which.
        on: Access,
        /// How.
        with: Errno,
        /// Where and when.
        aim: Aim,
    },
    /// A read gives wrong bytes; what lies on the disk is right.
    CorruptRead {
        /// How many are flipped.
        bits: u32,
        /// Where and when.
        aim: Aim,
    },
    /// A read stops half-way, and reading on fails.
    ShortRead {
        /// Where and when.
        aim: Aim,
    },
    /// A write is done in part, and the rest fails.
    ShortWrite {
        /// How.
        with: Errno,
        /// Where and when.
        aim: Aim,
    },
    /// A write succeeds, and its bytes never reach the disk. The file is as long as if they had.
    LoseWrite {
        /// Where and when.
        aim: Aim,
    },
    /// A write succeeds, and its bytes lie elsewhere, over others. The file is as long as if they were there.
    MisdirectWrite {
        /// Where they lie.
        to: Elsewhere,
        /// Which write.
        aim: Aim,
    },
    /// A sync fails, and the cache takes for clean what it did not write: the next sync succeeds, and a power
    /// loss takes what both were to save.
    DropSync {
        /// Where and when.
        aim: Aim,
    },
    /// Directories are listed in random order.
    ShuffleLists {
        /// Of the order.
        seed: u64,
    },
    /// There is room for so many bytes in all, also if more are taken already.
    Room {
        /// So many.
        bytes: u64,
    },
    /// Everything takes so many times as long.
    Slow {
        /// So many.
        factor: u32,
    },
    /// Nothing comes back.
    Stall,
    /// All that changes something fails.
    ReadOnly,
    /// Everything fails. What lies on the disk is there when it comes back.
    Gone,
    /// Bits of a block turn over.
    Rot {
        /// Where.
        block: Block,
        /// How many.
        bits: u32,
        /// Of which ones.
        seed: u64,
    },
    /// A block turns to zeros.
    Zero {
        /// Where.
        block: Block,
    },
    /// A block is as it was; zeros, where there was none.
    Stale {
        /// Where.
        block: Block,
        /// When.
        moment: Moment,
    },
    /// Nothing lies on the disk any more.
    Empty,
    /// All is as it was.
    Restore {
        /// When.
        moment: Moment,
    },
}

/// Kinds of operations. A write that is synced before its completion is a write and then a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Of bytes.
    Read,
    /// Of a directory.
    List,
    /// Of bytes or a length.
    Write,
    /// Of a file or a directory.
    Sync,
    /// A name that comes, goes or changes.
    Name,
    /// Any of them that changes something.
    Change,
    /// Any of them.
    Any,
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errno {
    /// EIO.
    Io,
    /// ENOSPC.
    NoSpace,
}

/// Which operations an armed fault strikes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Aim {
    /// On what.
    pub at: Target,
    /// After so many that it could have struck.
    pub after: u64,
    /// How often.
    pub times: Times,
    /// Of what is drawn when it strikes.
    pub seed: u64,
}

/// What a fault is aimed at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Everything.
    All,
    /// A directory and all in it.
    Under(String),
    /// A file.
    File(String),
    /// Reads and writes of any byte of a block.
    Block(Block),
}

/// How often an armed fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Times {
    /// Once.
    Once,
    /// Until it is lifted.
    Always,
}

/// Where a misdirected write goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Elsewhere {
    /// Another place of the same file.
    Offset,
    /// Another file.
    File,
}

/// A part of a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Of which file.
    pub file: String,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
}

/// What can befall one block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// Some of its bits turn over.
    Corrupt,
    /// It turns to zeros.
    Zero,
    /// It is as it was at the first remembered moment.
    Stale,
    /// It cannot be read.
    Unreadable,
}

/// What an injection did at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Injected {
    /// It lies in wait, under this number.
    Armed(FaultId),
    /// These bytes of the file have another value than before. None is possible: zeros that turn to zeros.
    Changed(Vec<Range<u64>>),
    /// The whole disk is another.
    Replaced,
    /// There was nothing that it could have struck: no such file, no such moment.
    Missed,
}

/// An armed fault of one disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FaultId(u64);

/// What a fault did, as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    /// A read failed.
    ReadFailed,
    /// A list failed.
    ListFailed,
    /// A write or a change of length failed.
    WriteFailed,
    /// A sync failed.
    SyncFailed,
    /// A change of names failed.
    NameFailed,
    /// A read gave wrong bytes.
    ReadCorrupted,
    /// A read failed half-way.
    ReadShort,
    /// A write failed half-way.
    WriteShort,
    /// A write was lost.
    WriteLost,
    /// A write went elsewhere.
    WriteMisdirected,
    /// A sync failed and dropped what it was to save.
    SyncDropped,
    /// A directory of two entries or more was listed in random order.
    ListShuffled,
    /// An operation took longer.
    Slowed,
    /// An operation came while nothing was carried out.
    Stalled,
    /// A change was refused by a disk that is read-only.
    ReadOnlyRefused,
    /// An operation was refused by a disk that is gone.
    GoneRefused,
    /// Bytes changed by rot.
    BytesRotted,
    /// Bytes changed to zeros.
    BytesZeroed,
    /// Bytes changed to earlier ones.
    BytesStale,
    /// A disk was emptied.
    Emptied,
    /// A disk was set back.
    Restored,
    /// A disk was given another's files.
    Swapped,
}

/// How often each effect was seen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FaultCounts([u64; Effect::ALL.len()]);

/// The faults of one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    counts: FaultCounts,
    next_id: u64,
    /// The least of all limits of room.
    pub(super) room_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
struct Armed {
    id: FaultId,
    fault: DiskFault,
    /// How often it could have struck so far.
    passed: u64,
    draws: Keyed,
}

/// A change of bytes that lie on the disk.
enum Edit {
    /// These bits, of the bytes at these offsets, turn over.
    Flip(BTreeSet<(usize, u8)>),
    /// The bytes from there on are these.
    Set(usize, Bytes),
}

impl DiskModel {
    /// Lets a fault strike, or arms it.
    pub fn inject(&mut self, fault: &DiskFault) -> Injected {
        match fault {
            DiskFault::Rot { block, bits, seed } => self.rot(block, *bits, *seed),
            DiskFault::Zero { block } => {
                let Some((inode, range)) = self.span(block) else {
                    return Injected::Missed;
                };
                let zeros = Edit::Set(range.start, Bytes::from(vec![0; range.len()]));
                self.disturb(inode, range, &zeros, Effect::BytesZeroed)
            }
            DiskFault::Stale { block, moment } => {
                let span = self.span(block).zip(self.earlier(*moment, &block.file));
                let Some(((inode, range), earlier)) = span else {
                    return Injected::Missed;
                };
                let mut bytes = earlier.read(range.clone()).to_vec();
                bytes.resize(range.len(), 0);
                let bytes = Edit::Set(range.start, Bytes::from(bytes));
                self.disturb(inode, range, &bytes, Effect::BytesStale)
            }
            DiskFault::Empty => {
                self.wipe();
                self.faults.counts.add(Effect::Emptied, 1);
                Injected::Replaced
            }
            DiskFault::Restore { moment } => match self.restore(*moment) {
                None => Injected::Missed,
                Some(()) => {
                    self.faults.counts.add(Effect::Restored, 1);
                    Injected::Replaced
                }
            },
            DiskFault::Fail { .. }
            | DiskFault::CorruptRead { .. }
            | DiskFault::ShortRead { .. }
            | DiskFault::ShortWrite { .. }
            | DiskFault::LoseWrite { .. }
            | DiskFault::MisdirectWrite { .. }
            | DiskFault::DropSync { .. }
            | DiskFault::ShuffleLists { .. }
            | DiskFault::Room { .. }
            | DiskFault::Slow { .. }
            | DiskFault::Stall
            | DiskFault::ReadOnly
            | DiskFault::Gone => Injected::Armed(self.faults.arm(fault.clone())),
        }
    }

    /// Takes back an armed fault. What it did stays done.
    pub fn lift(&mut self, id: FaultId) {
        self.faults.armed.retain(|armed| armed.id != id);
        self.faults.count_room();
    }

    /// Takes back all armed faults. What they did stays done.
    pub fn heal(&mut self) {
        self.faults.armed.clear();
        self.faults.count_room();
    }

    /// Two disks are taken out of their machines and put back into each other's; armed faults stay.
    pub fn swap(&mut self, other: &mut Self) {
        self.exchange(other);
        for disk in [self, other] {
            disk.faults.counts.add(Effect::Swapped, 1);
        }
    }

    /// The faults that lie in wait, in the order in which they came.
    pub fn armed(&self) -> impl Iterator<Item = (FaultId, &DiskFault)> {
        self.faults.armed.iter().map(|one| (one.id, &one.fault))
    }

    /// What faults did so far.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.faults.counts
    }

    /// How long an operation takes that comes now and would take so long on a healthy disk. Whoever keeps the
    /// time calls it once for each operation.
    pub fn latency_us(&mut self, healthy_us: u64) -> u64 {
        let factors = self.faults.armed.iter().map(|armed| match armed.fault {
            DiskFault::Slow { factor } => u64::from(factor),
            _ => 1,
        });
        let factor = factors.fold(1, u64::saturating_mul);
        self.faults
            .counts
            .add(Effect::Slowed, u64::from(factor > 1));
        let stalled = u64::from(self.is_stalled());
        self.faults.counts.add(Effect::Stalled, stalled);
        healthy_us.saturating_mul(factor)
    }

    /// Whether whoever keeps the time must hold back all operations until a fault is lifted.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.faults.has(&DiskFault::Stall)
    }

    /// All files, cut into blocks of so many bytes; the last one of a file may be shorter.
    #[must_use]
    pub fn blocks(&self, block_bytes: u64) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (path, len) in self.lengths() {
            for nth in 0..len.div_ceil(block_bytes) {
                let offset = nth * block_bytes;
                blocks.push(Block {
                    file: path.to_owned(),
                    offset,
                    len: block_bytes.min(len - offset),
                });
            }
        }
        blocks
    }

    /// A fault of any kind that could strike this disk as it is now.
    #[must_use]
    pub fn sample_fault(&self, draws: &mut Keyed) -> DiskFault {
        let files: Vec<(&str, u64)> = self.lengths().filter(|(_, len)| *len > 0).collect();
        let file = (!files.is_empty()).then(|| files[draws.index(files.len())]);
        let block = file.map(|(path, len)| {
            let bytes = draws.pick(&[512_u64, 4_096]);
            let offset = draws.below(len.div_ceil(bytes)) * bytes;
            Block {
                file: path.to_owned(),
                offset,
                len: bytes.min(len - offset),
            }
        });
        let at = match (draws.below(4), file) {
            (0, Some((path, _))) => Target::Under(FileName::new(path).dir().to_owned()),
            (1 | 2, Some((path, _))) => Target::File(path.to_owned()),
            _ => Target::All,
        };
        let times = if draws.percent(80) {
            Times::Once
        } else {
            Times::Always
        };
        let aim = Aim {
            at,
            after: draws.pick(&[0, 0, 0, 1, 5, 20]),
            times,
            seed: draws.bits(),
        };
        let with = draws.pick(&[Errno::Io, Errno::NoSpace]);
        let on = draws.pick(&[
            Access::Read,
            Access::List,
            Access::Write,
            Access::Sync,
            Access::Name,
            Access::Change,
            Access::Any,
        ]);
        let to = draws.pick(&[Elsewhere::Offset, Elsewhere::File]);
        let (bits, seed, factor) = (1 + draws.pick(&[0, 0, 1, 30]), draws.bits(), 50);
        let moment = draws.index(self.moments().max(1));
        let moment = Moment(moment);
        let bytes = draws.below(1 << 20);
        match (draws.below(16), block) {
            (0, _) => DiskFault::Fail { on, with, aim },
            (1, _) => DiskFault::CorruptRead { bits, aim },
            (2, _) => DiskFault::ShortRead { aim },
            (3, _) => DiskFault::ShortWrite { with, aim },
            (4, _) => DiskFault::LoseWrite { aim },
            (5, _) => DiskFault::MisdirectWrite { to, aim },
            (6, _) => DiskFault::DropSync { aim },
            (7, _) => DiskFault::ShuffleLists { seed },
            (8, _) => DiskFault::Room { bytes },
            (9, _) => DiskFault::Slow { factor },
            (10, Some(block)) => DiskFault::Rot { block, bits, seed },
            (11, Some(block)) => DiskFault::Zero { block },
            (12, Some(block)) if self.moments() > 0 => DiskFault::Stale { block, moment },
            (13, _) => DiskFault::Stall,
            (14, _) => DiskFault::ReadOnly,
            (15, _) => DiskFault::Gone,
            _ => DiskFault::Empty,
        }
    }

    /// Carries out one operation with faults in its way.
    pub(super) fn suffer(&mut self, op: &DiskOp) -> DiskResult {
        if self.faults.has(&DiskFault::Gone) {
            self.faults.counts.add(Effect::GoneRefused, 1);
            return Err(DiskError::Io("no such device".into()));
        }
        let DiskOp::Write {
            file,
            offset,
            data,
            sync: SyncMode::Now,
        } = op
        else {
            return self.suffer_one(op);
        };
        let (file, sync) = (file.clone(), SyncMode::Later);
        self.suffer_one(&DiskOp::Write {
            file: file.clone(),
            offset: *offset,
            data: data.clone(),
            sync,
        })?;
        self.suffer_one(&DiskOp::Sync { file })
    }

    /// One operation that is not both a write and a sync.
    fn suffer_one(&mut self, op: &DiskOp) -> DiskResult {
        let access = Access::of(op);
        if self.faults.has(&DiskFault::ReadOnly) && access.is_some_and(Access::changes) {
            self.faults.counts.add(Effect::ReadOnlyRefused, 1);
            return Err(DiskError::Io("read-only file system".into()));
        }
        let bytes = self.bytes_at_stake(op);
        let Some((fault, mut draws)) = self.faults.strike(op, access, bytes) else {
            return self.obey(op);
        };
        match (fault, op) {
            (DiskFault::Fail { with, .. }, _) => {
                let effect = match access {
                    Some(Access::Read) | None => Effect::ReadFailed,
                    Some(Access::List) => Effect::ListFailed,
                    Some(Access::Sync) => Effect::SyncFailed,
                    Some(Access::Name) => Effect::NameFailed,
                    Some(Access::Write | Access::Change | Access::Any) => Effect::WriteFailed,
                };
                self.faults.counts.add(effect, 1);
                Err(with.error())
            }
            (DiskFault::CorruptRead { bits, .. }, _) => {
                let Ok(DiskDone::Data(data)) = self.obey(op) else {
                    unreachable!("a read of bytes that are there gives them");
                };
                let flips = flips(bits, 0..data.len(), &mut draws);
                let mut wrong = data.to_vec();
                flip(&mut wrong, 0, &flips);
                self.faults.counts.add(Effect::ReadCorrupted, 1);
                Ok(DiskDone::Data(wrong.into()))
            }
            (DiskFault::ShortRead { .. }, _) => {
                self.faults.counts.add(Effect::ReadShort, 1);
                Err(Errno::Io.error())
            }
            (
                DiskFault::ShortWrite { with, .. },
                DiskOp::Write {
                    file, offset, data, ..
                },
            ) => {
                let inode = self.inode(file)?;
                let data = joined(data);
                let part = data.slice(..draws.index(data.len()));
                self.write(inode, to_usize(*offset), part)?;
                self.faults.counts.add(Effect::WriteShort, 1);
                Err(with.error())
            }
            (
                DiskFault::LoseWrite { .. },
                DiskOp::Write {
                    file, offset, data, ..
                },
            ) => {
                let inode = self.inode(file)?;
                self.lengthen(inode, to_usize(*offset) + joined(data).len())?;
                self.faults.counts.add(Effect::WriteLost, 1);
                Ok(DiskDone::Done)
            }
            (
                DiskFault::MisdirectWrite { to, .. },
                DiskOp::Write {
                    file, offset, data, ..
                },
            ) => {
                let (inode, data) = (self.inode(file)?, joined(data));
                self.lengthen(inode, to_usize(*offset) + data.len())?;
                let range = to_usize(*offset)..to_usize(*offset) + data.len();
                let effect = match self.victim(inode, &range, to, &mut draws) {
                    None => Effect::WriteLost,
                    Some((victim, at)) => {
                        let data = data.slice(..at.len());
                        self.edit_at_rest(victim, &at, &Edit::Set(at.start, data));
                        Effect::WriteMisdirected
                    }
                };
                self.faults.counts.add(effect, 1);
                Ok(DiskDone::Done)
            }
            (DiskFault::DropSync { .. }, DiskOp::Sync { file }) => {
                let inode = self.inode(file)?;
                self.file_mut(inode).forget_pending();
                self.faults.counts.add(Effect::SyncDropped, 1);
                Err(Errno::Io.error())
            }
            (DiskFault::ShuffleLists { .. }, _) => {
                let Ok(DiskDone::Entries(mut entries)) = self.obey(op) else {
                    return self.obey(op);
                };
                draws.shuffle(&mut entries);
                let shuffled = u64::from(entries.len() > 1);
                self.faults.counts.add(Effect::ListShuffled, shuffled);
                Ok(DiskDone::Entries(entries))
            }
            (fault, op) => unreachable!("{fault:?} does not strike {op:?}"),
        }
    }

    /// Bytes that an operation would read, write or save.
    fn bytes_at_stake(&self, op: &DiskOp) -> usize {
        match op {
            DiskOp::Read { file, offset, len } => match self.inode(file) {
                Ok(inode) => {
                    let there = self.files[&inode].live.len();
                    there.saturating_sub(to_usize(*offset)).min(*len)
                }
                Err(_) => 0,
            },
            DiskOp::Write { file, data, .. } => match self.inode(file) {
                Ok(_) => data.iter().map(Bytes::len).sum(),
                Err(_) => 0,
            },
            DiskOp::Sync { file } => match self.inode(file) {
                Ok(inode) => self.files[&inode].pending.len(),
                Err(_) => 0,
            },
            _ => 0,
        }
    }

    fn lengthen(&mut self, inode: Inode, end: usize) -> Result<(), DiskError> {
        if end > self.files[&inode].live.len() {
            self.set_len(inode, end)?;
        }
        Ok(())
    }

    /// Where a misdirected write goes to: within a file, in sectors.
    fn victim(
        &self,
        inode: Inode,
        range: &Range<usize>,
        to: Elsewhere,
        draws: &mut Keyed,
    ) -> Option<(Inode, Range<usize>)> {
        let candidates: Vec<Inode> = match to {
            Elsewhere::Offset => vec![inode],
            Elsewhere::File => super::model::inodes(&self.names)
                .filter(|other| *other != inode && self.files[other].live.len() > 0)
                .collect(),
        };
        if candidates.is_empty() {
            return None;
        }
        let victim = candidates[draws.index(candidates.len())];
        let len = self.files[&victim].live.len();
        let sectors: Vec<usize> = (0..len)
            .step_by(512)
            .filter(|at| victim != inode || *at != range.start)
            .collect();
        if sectors.is_empty() {
            return None;
        }
        let at = sectors[draws.index(sectors.len())];
        Some((victim, at..len.min(at + range.len())))
    }

    fn rot(&mut self, block: &Block, bits: u32, seed: u64) -> Injected {
        let Some((inode, range)) = self.span(block) else {
            return Injected::Missed;
        };
        let flips = flips(bits, range.clone(), &mut Keyed::new(seed, "rot"));
        self.disturb(inode, range, &Edit::Flip(flips), Effect::BytesRotted)
    }

    /// The part of a block that is there.
    fn span(&self, block: &Block) -> Option<(Inode, Range<usize>)> {
        let inode = self.inode(&FileName::new(&block.file)).ok()?;
        let len = self.files[&inode].live.len();
        let from = to_usize(block.offset);
        let to = len.min(from.saturating_add(to_usize(block.len)));
        (from < to).then_some((inode, from..to))
    }

    fn disturb(
        &mut self,
        inode: Inode,
        range: Range<usize>,
        edit: &Edit,
        effect: Effect,
    ) -> Injected {
        let changed = self.edit_at_rest(inode, &range, edit);
        self.faults.counts.add(effect, changed.len() as u64);
        let mut runs: Vec<Range<u64>> = Vec::new();
        for at in changed {
            match runs.last_mut() {
                Some(run) if run.end == at => run.end += 1,
                _ => runs.push(at..at + 1),
            }
        }
        Injected::Changed(runs)
    }

    /// Changes bytes in the cache and below it. Gives the ones that are others now, in one or the other.
    fn edit_at_rest(&mut self, inode: Inode, range: &Range<usize>, edit: &Edit) -> BTreeSet<u64> {
        let file = self.file_mut(inode);
        let mut changed = BTreeSet::new();
        let beneath = file.beneath.as_mut();
        for image in [&mut file.live, &mut file.durable]
            .into_iter()
            .chain(beneath)
        {
            let to = range.end.min(image.len());
            if range.start >= to {
                continue;
            }
            let before = image.read(range.start..to);
            edit.apply(image, range.start..to);
            let after = image.read(range.start..to);
            let bytes = (range.start as u64..).zip(before.iter().zip(&after));
            changed.extend(bytes.filter(|(_, (old, new))| old != new).map(|(at, _)| at));
        }
        changed
    }
}

impl Edit {
    /// Changes what is in the range.
    fn apply(&self, image: &mut Image, range: Range<usize>) {
        image.edit(range.clone(), |bytes| match self {
            Self::Flip(flips) => flip(bytes, range.start, flips),
            Self::Set(start, new) => {
                let from = range.start - start;
                bytes.copy_from_slice(&new[from..from + bytes.len()]);
            }
        });
    }
}

/// Different bits of a range, so many if there are.
fn flips(bits: u32, range: Range<usize>, draws: &mut Keyed) -> BTreeSet<(usize, u8)> {
    let bits = (bits as usize).min(range.len() * 8);
    let mut flips = BTreeSet::new();
    while flips.len() < bits {
        let bit = u8::try_from(draws.below(8)).expect("below 8");
        flips.insert((range.start + draws.index(range.len()), bit));
    }
    flips
}

/// Turns bits over in bytes that start at an offset of the file.
fn flip(bytes: &mut [u8], start: usize, flips: &BTreeSet<(usize, u8)>) {
    for (at, bit) in flips {
        if let Some(byte) = at.checked_sub(start).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1 << bit;
        }
    }
}

impl Faults {
    pub(super) fn are_none(&self) -> bool {
        self.armed.is_empty()
    }

    fn has(&self, fault: &DiskFault) -> bool {
        self.armed.iter().any(|armed| armed.fault == *fault)
    }

    fn arm(&mut self, fault: DiskFault) -> FaultId {
        let id = FaultId(self.next_id);
        self.next_id += 1;
        let seed = match &fault {
            DiskFault::ShuffleLists { seed } => *seed,
            fault => fault.aim().map_or(0, |aim| aim.seed),
        };
        self.armed.push(Armed {
            id,
            fault,
            passed: 0,
            draws: Keyed::new(seed, "disk fault"),
        });
        self.count_room();
        id
    }

    fn count_room(&mut self) {
        let limits = self.armed.iter().filter_map(|armed| match armed.fault {
            DiskFault::Room { bytes } => Some(bytes),
            _ => None,
        });
        self.room_bytes = limits.min();
    }

    /// The first armed fault that strikes an operation; each that could is a step nearer.
    fn strike(
        &mut self,
        op: &DiskOp,
        access: Option<Access>,
        bytes: usize,
    ) -> Option<(DiskFault, Keyed)> {
        let mut struck = None;
        for (nth, armed) in self.armed.iter_mut().enumerate() {
            if !armed.fault.could_strike(op, access, bytes) {
                continue;
            }
            let after = armed.fault.aim().map_or(0, |aim| aim.after);
            // One that is due waits while another strikes.
            if armed.passed < after {
                armed.passed += 1;
            } else if struck.is_none() {
                let draws = Keyed::new(armed.draws.bits(), "strike");
                struck = Some((nth, armed.fault.clone(), draws));
            }
        }
        let (nth, fault, draws) = struck?;
        if fault.aim().is_some_and(|aim| aim.times == Times::Once) {
            self.armed.remove(nth);
        }
        Some((fault, draws))
    }
}

impl DiskFault {
    fn aim(&self) -> Option<&Aim> {
        match self {
            Self::Fail { aim, .. }
            | Self::CorruptRead { aim, .. }
            | Self::ShortRead { aim }
            | Self::ShortWrite { aim, .. }
            | Self::LoseWrite { aim }
            | Self::MisdirectWrite { aim, .. }
            | Self::DropSync { aim } => Some(aim),
            Self::ShuffleLists { .. }
            | Self::Room { .. }
            | Self::Slow { .. }
            | Self::Stall
            | Self::ReadOnly
            | Self::Gone
            | Self::Rot { .. }
            | Self::Zero { .. }
            | Self::Stale { .. }
            | Self::Empty
            | Self::Restore { .. } => None,
        }
    }

    /// Whether an operation with so many bytes at stake is one of its kind, at its place.
    fn could_strike(&self, op: &DiskOp, access: Option<Access>, bytes: usize) -> bool {
        let Some(access) = access else { return false };
        let is_kind = match self {
            Self::Fail { on, .. } => on.covers(access),
            Self::CorruptRead { .. } | Self::ShortRead { .. } => {
                access == Access::Read && bytes > 0
            }
            Self::ShortWrite { .. } | Self::LoseWrite { .. } | Self::MisdirectWrite { .. } => {
                access == Access::Write && bytes > 0
            }
            Self::DropSync { .. } => access == Access::Sync && bytes > 0,
            Self::ShuffleLists { .. } => access == Access::List,
            _ => false,
        };
        is_kind && self.aim().is_none_or(|aim| aim.at.is_hit(op))
    }
}

impl Access {
    fn of(op: &DiskOp) -> Option<Self> {
        match op {
            DiskOp::Read { .. } => Some(Self::Read),
            DiskOp::List { .. } => Some(Self::List),
            DiskOp::Write { .. } | DiskOp::Truncate { .. } => Some(Self::Write),
            DiskOp::Sync { .. } | DiskOp::SyncDir { .. } => Some(Self::Sync),
            DiskOp::MakeDir { .. }
            | DiskOp::Create { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. } => Some(Self::Name),
            DiskOp::Space => None,
        }
    }
    fn changes(self) -> bool {
        Self::Change.covers(self)
    }
    fn covers(self, other: Self) -> bool {
        match self {
            Self::Any => true,
            Self::Change => matches!(other, Self::Write | Self::Sync | Self::Name),
            one => one == other,
        }
    }
}

impl Errno {
    fn error(self) -> DiskError {
        match self {
            Self::Io => DiskError::Io("input/output error".into()),
            Self::NoSpace => DiskError::NoSpace,
        }
    }
}

impl Target {
    fn is_hit(&self, op: &DiskOp) -> bool {
        let (one, other) = match op {
            DiskOp::List { dir } | DiskOp::MakeDir { dir } | DiskOp::SyncDir { dir } => (dir, None),
            DiskOp::Create { file, .. }
            | DiskOp::Write { file, .. }
            | DiskOp::Read { file, .. }
            | DiskOp::Sync { file }
            | DiskOp::Remove { file }
            | DiskOp::Truncate { file, .. } => (file, None),
            DiskOp::Rename { from, to } => (from, Some(to)),
            DiskOp::Space => return false,
        };
        let any = |hit: &dyn Fn(&str) -> bool| {
            hit(one.as_str()) || other.is_some_and(|other| hit(other.as_str()))
        };
        match self {
            Self::All => true,
            Self::File(path) => any(&|name| name == path),
            Self::Under(dir) => any(&|name| {
                let below = name.strip_prefix(dir.as_str());
                dir.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
            Self::Block(block) => {
                let (offset, len) = match op {
                    DiskOp::Read { offset, len, .. } => (*offset, *len as u64),
                    DiskOp::Write { offset, data, .. } => {
                        let lens = data.iter().map(|part| part.len() as u64);
                        (*offset, lens.sum())
                    }
                    _ => return false,
                };
                let (end, block_end) = (
                    offset.saturating_add(len),
                    block.offset.saturating_add(block.len),
                );
                any(&|name| name == block.file) && offset < block_end && block.offset < end
            }
        }
    }
}

impl Aim {
    /// At everything, at once, so often.
    #[must_use]
    pub fn now(times: Times) -> Self {
        Self {
            at: Target::All,
            after: 0,
            times,
            seed: 0,
        }
    }
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Corrupt, Self::Zero, Self::Stale, Self::Unreadable];

    /// The fault that does this to exactly one block.
    #[must_use]
    pub fn of(self, block: Block) -> DiskFault {
        match self {
            Self::Corrupt => DiskFault::Rot {
                bits: 3,
                seed: block.offset,
                block,
            },
            Self::Zero => DiskFault::Zero { block },
            Self::Stale => DiskFault::Stale {
                block,
                moment: Moment(0),
            },
            Self::Unreadable => DiskFault::Fail {
                on: Access::Read,
                with: Errno::Io,
                aim: Aim {
                    at: Target::Block(block),
                    ..Aim::now(Times::Always)
                },
            },
        }
    }
}

impl Effect {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 22] = [
        Self::ReadFailed,
        Self::ListFailed,
        Self::WriteFailed,
        Self::SyncFailed,
        Self::NameFailed,
        Self::ReadCorrupted,
        Self::ReadShort,
        Self::WriteShort,
        Self::WriteLost,
        Self::WriteMisdirected,
        Self::SyncDropped,
        Self::ListShuffled,
        Self::Slowed,
        Self::Stalled,
        Self::ReadOnlyRefused,
        Self::GoneRefused,
        Self::BytesRotted,
        Self::BytesZeroed,
        Self::BytesStale,
        Self::Emptied,
        Self::Restored,
        Self::Swapped,
    ];

    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadFailed => "read-failed",
            Self::ListFailed => "list-failed",
            Self::WriteFailed => "write-failed",
            Self::SyncFailed => "sync-failed",
            Self::NameFailed => "name-failed",
            Self::ReadCorrupted => "read-corrupted",
            Self::ReadShort => "read-short",
            Self::WriteShort => "write-short",
            Self::WriteLost => "write-lost",
            Self::WriteMisdirected => "write-misdirected",
            Self::SyncDropped => "sync-dropped",
            Self::ListShuffled => "list-shuffled",
            Self::Slowed => "slowed",
            Self::Stalled => "stalled",
            Self::ReadOnlyRefused => "read-only-refused",
            Self::GoneRefused => "gone-refused",
            Self::BytesRotted => "bytes-rotted",
            Self::BytesZeroed => "bytes-zeroed",
            Self::BytesStale => "bytes-stale",
            Self::Emptied => "emptied",
            Self::Restored => "restored",
            Self::Swapped => "swapped",
        }
    }
}

impl FaultCounts {
    fn add(&mut self, effect: Effect, times: u64) {
        self.0[effect as usize] += times;
    }
    /// Those that were seen, with how often.
    pub fn seen(&self) -> impl Iterator<Item = (Effect, u64)> {
        let all = Effect::ALL.into_iter().zip(self.0);
        all.filter(|(_, times)| *times > 0)
    }
}

impl Index<Effect> for FaultCounts {
    type Output = u64;

    fn index(&self, effect: Effect) -> &u64 {
        &self.0[effect as usize]
    }
}

impl AddAssign for FaultCounts {
    fn add_assign(&mut self, other: Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours += theirs;
        }
    }
}

impl Serialize for FaultCounts {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.seen().map(|(effect, times)| (effect.name(), times)))
    }
}
