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
        let moments = self.moments();
        let moment = Moment(draws.index(moments.max(1)));
        let bytes = draws.below(1 << 20);
        match (draws.below(18), block) {
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
            (12, Some(block)) if moments > 0 => DiskFault::Stale { block, moment },
            (13, _) => DiskFault::Stall,
            (14, _) => DiskFault::ReadOnly,
            (15, _) => DiskFault::Gone,
            (16, _) => DiskFault::Empty,
            (17, _) if moments > 0 => DiskFault::Restore { moment },
            _ => DiskFault::Fail { on, with, aim },
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
        if !file.pending.is_empty() && file.beneath.is_none() {
            // Where a length is pending, a sync need not carry what the cache shows there.
            file.beneath = Some(file.durable.clone());
        }
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
            DiskOp::Sync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncAll { .. } => {
                Some(Self::Sync)
            }
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
            DiskOp::List { dir }
            | DiskOp::MakeDir { dir }
            | DiskOp::SyncDir { dir }
            | DiskOp::SyncAll { dir } => (dir, None),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Policy;

    fn name(path: &str) -> FileName {
        FileName::new(path)
    }
    fn create(path: &str) -> DiskOp {
        let (file, zeroed) = (name(path), 0);
        DiskOp::Create { file, zeroed }
    }
    fn write(path: &str, offset: u64, len: usize, byte: u8) -> DiskOp {
        DiskOp::Write {
            file: name(path),
            offset,
            data: vec![Bytes::from(vec![byte; len])],
            sync: SyncMode::Later,
        }
    }
    fn write_now(path: &str, offset: u64, len: usize, byte: u8) -> DiskOp {
        let DiskOp::Write {
            file, offset, data, ..
        } = write(path, offset, len, byte)
        else {
            unreachable!()
        };
        let sync = SyncMode::Now;
        DiskOp::Write {
            file,
            offset,
            data,
            sync,
        }
    }
    fn read(path: &str) -> DiskOp {
        DiskOp::Read {
            file: name(path),
            offset: 0,
            len: 1 << 20,
        }
    }
    fn sync(path: &str) -> DiskOp {
        DiskOp::Sync { file: name(path) }
    }
    fn sync_dir(dir: &str) -> DiskOp {
        DiskOp::SyncDir { dir: name(dir) }
    }
    fn list(dir: &str) -> DiskOp {
        DiskOp::List { dir: name(dir) }
    }
    fn block(file: &str, offset: u64, len: u64) -> Block {
        let file = file.to_owned();
        Block { file, offset, len }
    }
    /// Two files, synced with their names.
    fn disk() -> DiskModel {
        let mut disk = DiskModel::new(1 << 20);
        let make = DiskOp::MakeDir { dir: name("d") };
        let ops = [
            make,
            create("a"),
            create("d/b"),
            write("a", 0, 10_000, 1),
            write("d/b", 0, 5_000, 2),
            sync("a"),
            sync("d/b"),
            sync_dir("d"),
            sync_dir(""),
        ];
        for op in ops {
            assert_eq!(disk.apply(&op), Ok(DiskDone::Done));
        }
        disk
    }
    fn once() -> Aim {
        Aim::now(Times::Once)
    }
    fn at(path: &str) -> Target {
        Target::File(path.to_owned())
    }
    fn bytes(disk: &DiskModel, path: &str) -> Vec<u8> {
        disk.contents(path).expect("it is there").to_vec()
    }
    fn power_loss(disk: &mut DiskModel) {
        // All that is pending is dropped.
        let fates = vec![crate::disk::crash::Fate::Dropped; disk.pending()];
        let choice = crate::disk::Choice {
            atom: 512,
            garbage: 0,
            fates,
        };
        disk.apply_choice(&choice).unwrap();
    }
    fn seen(disk: &DiskModel) -> Vec<(Effect, u64)> {
        disk.fault_counts().seen().collect()
    }
    fn done() -> DiskResult {
        Ok(DiskDone::Done)
    }

    #[test]
    fn a_failed_operation_did_nothing_and_only_the_kind_that_was_meant_fails() {
        let ops = [
            (Access::Read, read("a"), Effect::ReadFailed),
            (Access::List, list("d"), Effect::ListFailed),
            (Access::Write, write("a", 0, 9, 9), Effect::WriteFailed),
            (Access::Sync, sync("a"), Effect::SyncFailed),
            (Access::Sync, sync_dir(""), Effect::SyncFailed),
            (Access::Name, create("c"), Effect::NameFailed),
        ];
        for (nth, (on, _, _)) in ops.iter().enumerate() {
            for with in [Errno::Io, Errno::NoSpace] {
                let mut disk = disk();
                let (on, aim) = (*on, once());
                disk.inject(&DiskFault::Fail { on, with, aim });
                let mut left = 1;
                for (access, op, effect) in &ops {
                    let (before, pending) = (disk.live_hash(), disk.pending());
                    let result = disk.apply(op);
                    if *access == on && left > 0 {
                        left -= 1;
                        assert_eq!(result, Err(with.error()), "{nth} {op:?}");
                        assert_eq!((disk.live_hash(), disk.pending()), (before, pending));
                        assert_eq!(seen(&disk), [(*effect, 1)]);
                        assert_eq!(disk.armed().count(), 0, "once is once");
                    } else {
                        assert!(result.is_ok(), "{nth} {op:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_space_at_any_call_strikes_that_call() {
        let ops = [
            create("c"),
            write("c", 0, 100, 3),
            sync("c"),
            sync_dir(""),
            write_now("c", 100, 100, 4),
            DiskOp::Rename {
                from: name("c"),
                to: name("d/c"),
            },
        ];
        // The write that is synced is two.
        for after in 0..7 {
            let mut disk = disk();
            let (on, with) = (Access::Change, Errno::NoSpace);
            let aim = Aim { after, ..once() };
            disk.inject(&DiskFault::Fail { on, with, aim });
            let results: Vec<DiskResult> = ops.iter().map(|op| disk.apply(op)).collect();
            let failed = results.iter().position(Result::is_err);
            let call = if after > 4 { after - 1 } else { after };
            assert_eq!(failed, Some(to_usize(call)), "{results:?}");
            assert_eq!(results[to_usize(call)], Err(DiskError::NoSpace));
            if after == 5 {
                assert_eq!(bytes(&disk, "d/c").len(), 200, "written, not synced");
                assert!(
                    disk.durable_contents("d/c")
                        .is_some_and(|left| left.len() < 200)
                );
            }
        }
    }

    #[test]
    fn a_fault_hits_what_it_is_aimed_at_and_nothing_else() {
        let targets = [
            (at("a"), ["a"].as_slice()),
            (at("d/b"), &["d/b"]),
            (Target::Under("d".into()), &["d/b"]),
            (Target::Under(String::new()), &["a", "d/b"]),
            (Target::All, &["a", "d/b"]),
            (Target::Block(block("a", 9_999, 512)), &["a"]),
            (Target::Block(block("a", 10_000, 512)), &[]),
        ];
        for (target, hit) in targets {
            let mut disk = disk();
            disk.inject(&DiskFault::Fail {
                on: Access::Any,
                with: Errno::Io,
                aim: Aim {
                    at: target.clone(),
                    ..Aim::now(Times::Always)
                },
            });
            for path in ["a", "d/b"] {
                let len = bytes(&disk, path).len();
                let (file, offset) = (name(path), 0);
                let result = disk.apply(&DiskOp::Read { file, offset, len });
                assert_eq!(result.is_err(), hit.contains(&path), "{target:?} {path}");
            }
        }
    }

    #[test]
    fn a_corrupted_read_is_wrong_once_and_the_disk_is_right() {
        let mut disk = disk();
        let before = (disk.live_hash(), disk.durable_hash());
        disk.inject(&DiskFault::CorruptRead {
            bits: 5,
            aim: once(),
        });
        let read_bits = |disk: &mut DiskModel| match disk.apply(&read("a")) {
            Ok(DiskDone::Data(data)) => {
                let right = [1; 10_000];
                assert_eq!(data.len(), right.len());
                let wrong = data.iter().zip(right).map(|(one, two)| one ^ two);
                wrong.map(u8::count_ones).sum::<u32>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(read_bits(&mut disk), 5);
        assert_eq!(read_bits(&mut disk), 0);
        assert_eq!((disk.live_hash(), disk.durable_hash()), before);
        assert_eq!(seen(&disk), [(Effect::ReadCorrupted, 1)]);
    }

    #[test]
    fn a_short_write_leaves_a_beginning_of_it_and_a_short_read_is_an_error() {
        let mut lens = BTreeSet::new();
        for seed in 0..50 {
            let mut disk = disk();
            let (with, aim) = (Errno::NoSpace, Aim { seed, ..once() });
            disk.inject(&DiskFault::ShortWrite { with, aim });
            let op = write_now("a", 9_000, 3_000, 7);
            assert_eq!(disk.apply(&op), Err(DiskError::NoSpace));
            let left = bytes(&disk, "a");
            let sevens = left[9_000..].iter().take_while(|byte| **byte == 7).count();
            assert!(sevens < 3_000);
            assert_eq!(left.len(), 10_000.max(9_000 + sevens));
            assert!(left[9_000 + sevens..].iter().all(|byte| *byte == 1));
            assert_eq!(disk.pending(), usize::from(sevens > 0), "no sync follows");
            lens.insert(sevens);
        }
        assert!(lens.len() > 40);
        let mut disk = disk();
        disk.inject(&DiskFault::ShortRead { aim: once() });
        assert_eq!(disk.apply(&read("a")), Err(Errno::Io.error()));
        assert!(disk.apply(&read("a")).is_ok());
        assert_eq!(seen(&disk), [(Effect::ReadShort, 1)]);
    }

    #[test]
    fn a_lost_write_succeeds_and_leaves_old_bytes_and_zeros() {
        let mut disk = disk();
        disk.inject(&DiskFault::LoseWrite { aim: once() });
        assert_eq!(disk.apply(&write_now("a", 9_000, 3_000, 7)), done());
        power_loss(&mut disk);
        let left = bytes(&disk, "a");
        assert_eq!(left.len(), 12_000);
        assert_eq!(left[..10_000], [1; 10_000]);
        assert_eq!(left[10_000..], [0; 2_000]);
        assert_eq!(seen(&disk), [(Effect::WriteLost, 1)]);
    }

    #[test]
    fn a_misdirected_write_spoils_one_other_place_for_good() {
        for seed in 0..50 {
            for to in [Elsewhere::Offset, Elsewhere::File] {
                let mut disk = disk();
                let aim = Aim { seed, ..once() };
                disk.inject(&DiskFault::MisdirectWrite { to, aim });
                assert_eq!(disk.apply(&write("a", 512, 700, 7)), done());
                power_loss(&mut disk);
                let (a, b) = (bytes(&disk, "a"), bytes(&disk, "d/b"));
                assert_eq!((a.len(), b.len()), (10_000, 5_000));
                let (spoilt, sound) = match to {
                    Elsewhere::Offset => (a, b),
                    Elsewhere::File => (b, a),
                };
                assert!(!sound.contains(&7), "{to:?}");
                let first = spoilt.iter().position(|byte| *byte == 7).unwrap();
                let sevens = spoilt.iter().filter(|byte| **byte == 7).count();
                assert!(spoilt[first..first + sevens].iter().all(|byte| *byte == 7));
                assert_eq!(sevens, 700.min(spoilt.len() - first));
                assert!(to == Elsewhere::File || first != 512);
                assert_eq!(seen(&disk), [(Effect::WriteMisdirected, 1)]);
            }
        }
    }

    #[test]
    fn a_sync_that_lies_after_its_failure_loses_what_the_cache_still_shows() {
        let mut disk = disk();
        disk.inject(&DiskFault::DropSync { aim: once() });
        assert_eq!(disk.apply(&sync("a")), done(), "nothing was pending");
        assert_eq!(disk.apply(&write("a", 0, 20_000, 7)), done());
        assert_eq!(disk.apply(&sync("a")), Err(Errno::Io.error()));
        assert_eq!(disk.apply(&sync("a")), done(), "the lie");
        assert_eq!(bytes(&disk, "a"), [7; 20_000]);
        assert_eq!(disk.pending(), 0);
        assert_eq!(seen(&disk), [(Effect::SyncDropped, 1)]);
        // A page that is written to again is saved whole, with what was dropped.
        let mut saved = disk.clone();
        assert_eq!(saved.apply(&write_now("a", 5_000, 10, 8)), done());
        assert_eq!(bytes(&saved, "a").len(), 20_000);
        power_loss(&mut disk);
        assert_eq!(bytes(&disk, "a"), [1; 10_000]);
        assert_eq!(disk.live_hash(), disk.durable_hash());
        // The same by a crash that keeps the later write.
        let mut kept = saved.clone();
        power_loss(&mut saved);
        assert_eq!(kept.apply(&write("a", 12_288, 1, 9)), done());
        kept.power_loss(Policy::Prefix, &mut Keyed::new(1, "unused"));
        for disk in [&saved, &kept] {
            let left = bytes(disk, "a");
            assert_eq!(left[..4_096], [1; 4_096]);
            assert_eq!(left[4_096..5_000], [7; 904]);
            assert_eq!(left[5_000..5_010], [8; 10]);
            assert_eq!(left[5_010..8_192], [7; 3_182]);
            assert_eq!(left[8_192..10_000], [1; 1_808]);
        }
    }

    #[test]
    fn damage_at_rest_is_what_it_says_and_no_power_loss_mends_it() {
        for seed in 0..30 {
            let mut disk = disk();
            let moment = disk.remember();
            assert_eq!(disk.apply(&write("a", 4_000, 200, 3)), done());
            let before = bytes(&disk, "a");
            let here = block("a", 4_096, 512);
            let (bits, missing) = (9, block("no", 0, 1));
            let faults = [
                DiskFault::Rot {
                    block: here.clone(),
                    bits,
                    seed,
                },
                DiskFault::Zero {
                    block: here.clone(),
                },
                DiskFault::Stale {
                    block: here.clone(),
                    moment,
                },
            ];
            for fault in faults {
                let mut disk = disk.clone();
                let Injected::Changed(ranges) = disk.inject(&fault) else {
                    panic!("{fault:?} strikes at once")
                };
                let after = bytes(&disk, "a");
                let said: BTreeSet<u64> = ranges.iter().cloned().flatten().collect();
                for (at, (old, new)) in (0..).zip(before.iter().zip(&after)) {
                    assert!(old == new || said.contains(&at), "{fault:?}: {at}");
                    assert!(old == new || (4_096..4_608).contains(&at));
                }
                let flipped = before.iter().zip(&after).map(|(old, new)| old ^ new);
                let flipped: u32 = flipped.map(u8::count_ones).sum();
                let total: u64 = seen(&disk).iter().map(|(_, times)| times).sum();
                assert_eq!(total, said.len() as u64);
                match fault {
                    DiskFault::Rot { .. } => assert_eq!(flipped, bits),
                    DiskFault::Zero { .. } => assert_eq!(after[4_096..4_608], [0; 512]),
                    _ => {
                        assert_eq!(after[4_000..4_096], [3; 96]);
                        assert_eq!(after[4_096..4_608], [1; 512]);
                    }
                }
                let durable = disk.durable_contents("a").unwrap();
                power_loss(&mut disk);
                assert_eq!(bytes(&disk, "a"), durable);
                if !matches!(fault, DiskFault::Stale { .. }) {
                    assert_ne!(durable[4_096..4_608], [1; 512], "{fault:?}");
                }
            }
            let block = missing;
            for fault in [
                DiskFault::Zero {
                    block: block.clone(),
                },
                DiskFault::Stale { block, moment },
            ] {
                assert_eq!(disk.inject(&fault), Injected::Missed);
            }
            assert_eq!(seen(&disk), []);
        }
    }

    #[test]
    fn a_disk_comes_back_empty_as_it_was_or_as_another_s() {
        let mut disk = disk();
        let (then, moment) = (disk.live_hash(), disk.remember());
        assert_eq!(disk.apply(&write("a", 0, 30_000, 3)), done());
        assert_eq!(disk.apply(&DiskOp::Remove { file: name("d/b") }), done());
        let mut restored = disk.clone();
        let restore = DiskFault::Restore { moment };
        assert_eq!(restored.inject(&restore), Injected::Replaced);
        power_loss(&mut restored);
        assert_eq!(
            (restored.live_hash(), restored.durable_hash()),
            (then, then)
        );
        let moment = Moment(7);
        assert_eq!(
            restored.inject(&DiskFault::Restore { moment }),
            Injected::Missed
        );
        let mut empty = disk.clone();
        assert_eq!(empty.inject(&DiskFault::Empty), Injected::Replaced);
        power_loss(&mut empty);
        let fresh = DiskModel::new(1 << 20);
        assert_eq!(empty.live_hash(), fresh.live_hash());
        assert_eq!(
            empty.apply(&DiskOp::Space),
            fresh.clone().apply(&DiskOp::Space)
        );
        let (mut one, mut two) = (disk.clone(), empty);
        one.inject(&DiskFault::Gone);
        one.swap(&mut two);
        assert_eq!(one.live_hash(), fresh.live_hash());
        assert_eq!(two.live_hash(), disk.live_hash());
        assert!(one.apply(&read("a")).is_err() && two.apply(&read("a")).is_ok());
        assert_eq!(two.fault_counts()[Effect::Swapped], 1);
        assert_eq!(
            two.fault_counts()[Effect::Emptied],
            1,
            "a machine's counts stay"
        );
    }

    #[test]
    fn a_disk_that_is_read_only_gone_or_full_is_so_until_it_is_healed() {
        let ops = [
            read("a"),
            list(""),
            write("a", 9_999, 2, 1),
            sync("a"),
            create("c"),
        ];
        let works = |disk: &mut DiskModel| ops.clone().map(|op| disk.apply(&op).is_ok());
        let cases = [
            (DiskFault::ReadOnly, [true, true, false, false, false]),
            (DiskFault::Gone, [false; 5]),
            (
                DiskFault::Room { bytes: 0 },
                [true, true, false, true, true],
            ),
            (DiskFault::Room { bytes: 15_001 }, [true; 5]),
        ];
        for (fault, due) in cases {
            let mut disk = disk();
            let Injected::Armed(id) = disk.inject(&fault) else {
                panic!("{fault:?} stays")
            };
            assert_eq!(works(&mut disk.clone()), due, "{fault:?}");
            disk.lift(id);
            assert_eq!(works(&mut disk), [true; 5], "{fault:?}");
        }
        let mut disk = disk();
        disk.inject(&DiskFault::Room { bytes: 1 });
        let free = disk.apply(&DiskOp::Space);
        assert!(matches!(free, Ok(DiskDone::Space { bytes_free: 0, .. })));
        let (file, len) = (name("a"), 100);
        assert_eq!(
            disk.apply(&DiskOp::Truncate { file, len }),
            done(),
            "it shrinks"
        );
    }

    #[test]
    fn a_list_in_random_order_has_the_same_entries_and_the_same_seed_the_same_order() {
        let mut disk = disk();
        for nth in 0..10 {
            disk.apply(&create(&format!("d/{nth}"))).unwrap();
        }
        let lists = |seed| {
            let mut disk = disk.clone();
            disk.inject(&DiskFault::ShuffleLists { seed });
            let lists = [0; 3].map(|_| match disk.apply(&list("d")) {
                Ok(DiskDone::Entries(entries)) => entries,
                other => panic!("{other:?}"),
            });
            assert_eq!(seen(&disk), [(Effect::ListShuffled, 3)]);
            lists
        };
        assert_eq!(lists(1), lists(1));
        assert_ne!(lists(1), lists(2));
        let [first, second, _] = lists(1);
        assert_ne!(first, second);
        let sorted = |mut entries: Vec<_>| {
            entries.sort();
            entries
        };
        assert_eq!(Ok(DiskDone::Entries(sorted(first))), disk.apply(&list("d")));
    }

    #[test]
    fn a_slow_disk_says_how_slow_and_a_stalled_one_that_it_is() {
        let mut disk = disk();
        assert_eq!((disk.latency_us(10), disk.is_stalled()), (10, false));
        disk.inject(&DiskFault::Slow { factor: 50 });
        disk.inject(&DiskFault::Slow { factor: 2 });
        assert_eq!((disk.latency_us(10), disk.is_stalled()), (1_000, false));
        disk.inject(&DiskFault::Stall);
        disk.latency_us(10);
        assert!(disk.is_stalled());
        assert_eq!(seen(&disk), [(Effect::Slowed, 2), (Effect::Stalled, 1)]);
        disk.heal();
        assert_eq!((disk.latency_us(10), disk.is_stalled()), (10, false));
    }

    #[test]
    fn every_block_of_every_file_is_damaged_alone() {
        let mut disk = disk();
        disk.remember();
        for path in ["a", "d/b"] {
            let len = bytes(&disk, path).len();
            assert_eq!(disk.apply(&write_now(path, 0, len, 5)), done());
        }
        let blocks = disk.blocks(4_096);
        assert_eq!(blocks.len(), 3 + 2);
        let swept: u64 = blocks.iter().map(|block| block.len).sum();
        assert_eq!(swept, 15_000);
        for here in &blocks {
            for damage in Damage::ALL {
                let mut disk = disk.clone();
                let injected = disk.inject(&damage.of(here.clone()));
                for other in &blocks {
                    let (file, offset) = (name(&other.file), other.offset);
                    let len = to_usize(other.len);
                    let result = disk.apply(&DiskOp::Read { file, offset, len });
                    let what = format!("{damage:?} of {here:?}, read of {other:?}");
                    match (result, damage) {
                        (Err(_), Damage::Unreadable) => assert_eq!(here, other, "{what}"),
                        (Ok(DiskDone::Data(data)), _) => {
                            assert_eq!(data == vec![5; len], here != other, "{what}");
                        }
                        (result, _) => panic!("{what}: {result:?}"),
                    }
                }
                let whole = here.offset..here.offset + here.len;
                match (damage, injected) {
                    (Damage::Zero | Damage::Stale, Injected::Changed(ranges)) => {
                        assert!(ranges.into_iter().eq([whole]));
                    }
                    (Damage::Corrupt, Injected::Changed(ranges)) => assert!(!ranges.is_empty()),
                    (Damage::Unreadable, Injected::Armed(_)) => {}
                    (_, injected) => panic!("{damage:?}: {injected:?}"),
                }
            }
        }
    }

    #[test]
    fn any_faults_and_operations_go_the_same_way_again_and_a_fork_goes_its_own() {
        let mut kinds = BTreeSet::new();
        let mut effects = BTreeSet::new();
        let mut run = |seed: u64| {
            let mut draws = Keyed::new(seed, "storm");
            let mut disk = disk();
            let mut log = Vec::new();
            for nth in 0..200_u64 {
                if draws.percent(8) {
                    let fault = disk.sample_fault(&mut draws);
                    let text = serde_json::to_string(&fault).unwrap();
                    assert_eq!(serde_json::from_str::<DiskFault>(&text).unwrap(), fault);
                    kinds.insert(text.split(['"', ':']).nth(1).unwrap().to_owned());
                    log.push(format!("{:?}", disk.inject(&fault)));
                }
                if draws.percent(10) {
                    disk.heal();
                }
                if draws.percent(5) {
                    disk.remember();
                }
                let byte = nth.to_le_bytes()[0];
                let path = draws.pick(&["a", "d/b", "c", "d/e"]);
                let (at, len) = (draws.below(9_000), draws.index(6_000));
                let op = match draws.below(10) {
                    0 => create(path),
                    1 => read(path),
                    2..5 => write(path, at, len, byte),
                    5 => write_now(path, at, len, byte),
                    6 => sync(path),
                    7 => sync_dir(draws.pick(&["", "d"])),
                    8 => list("d"),
                    _ => DiskOp::Remove { file: name(path) },
                };
                log.push(format!("{:?}", disk.apply(&op)));
                log.push(format!("{} us", disk.latency_us(7)));
                if draws.percent(3) {
                    let policy = draws.pick(&Policy::ALL);
                    let mut fork = disk.clone();
                    let before = (disk.live_hash(), disk.durable_hash(), disk.fault_counts());
                    fork.power_loss(policy, &mut draws);
                    assert_eq!(fork.live_hash(), fork.durable_hash());
                    fork.inject(&DiskFault::Empty);
                    let after = (disk.live_hash(), disk.durable_hash(), disk.fault_counts());
                    assert_eq!(before, after);
                    if draws.percent(50) {
                        disk.power_loss(policy, &mut draws);
                    }
                }
            }
            effects.extend(disk.fault_counts().seen().map(|(effect, _)| effect));
            log.push(format!("{:x} {:x}", disk.live_hash(), disk.durable_hash()));
            log
        };
        for seed in 0..80 {
            assert_eq!(run(seed), run(seed), "seed {seed}");
        }
        assert_ne!(run(1), run(2));
        assert_eq!(kinds.len(), 18, "{kinds:?}");
        let unseen: Vec<Effect> = Effect::ALL
            .into_iter()
            .filter(|effect| !effects.contains(effect))
            .collect();
        assert_eq!(unseen, [Effect::Swapped]);
    }

    #[test]
    fn counts_add_up_and_name_what_they_count() {
        let mut counts = FaultCounts::default();
        for (nth, effect) in (1..).zip(Effect::ALL) {
            assert_eq!(counts[effect], 0);
            counts.add(effect, nth);
        }
        let mut twice = counts;
        twice += counts;
        assert_eq!(twice[Effect::Swapped], 44);
        let json = serde_json::to_value(twice).unwrap();
        assert_eq!(json["read-failed"], 2);
        assert_eq!(json.as_object().unwrap().len(), Effect::ALL.len());
        assert_eq!(FaultCounts::default().seen().count(), 0);
    }
}
