//! What a power loss leaves of the operations that no sync covered.
//!
//! A page cache writes back whole atoms: whoever keeps a later write of an atom keeps the earlier ones of the
//! same atom too. A name and the data behind it are decided apart.
use super::model::{Change, DataOp, DiskModel, File, PAGE_BYTES};
use crate::keyed::Keyed;
use serde::{Deserialize, Serialize};

/// Which of the pending operations survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub enum Policy {
    /// P0: the first so many of all operations of the disk, in their order.
    Prefix,
    /// P1: the first so many per file; names apart, per directory.
    PrefixPerFile,
    /// P2: any subset.
    Subset,
    /// P3: any subset, and a write may survive in part: a prefix of its atoms, any of its atoms, its length
    /// without its data, or garbage where nothing was ever synced.
    Torn,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Prefix, Self::PrefixPerFile, Self::Subset, Self::Torn];
}

/// What a power loss did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Crash {
    /// Operations that were pending.
    pub pending: u64,
    /// Of those, the ones of which nothing was left.
    pub dropped: u64,
    /// Of those, the writes that were left in part.
    pub torn: u64,
}

/// How much of one write survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tear {
    Dropped,
    Whole,
    Prefix,
    Interleaved,
    LengthOnly,
    Garbage,
}

impl DiskModel {
    /// The power fails, and comes back: pending operations survive as the policy says, the rest is gone.
    pub fn power_loss(&mut self, policy: Policy, draws: &mut Keyed) -> Crash {
        let mut crash = Crash::default();
        let cut = self.global_cut(draws);
        let odds = draws.pick(&[10, 50, 90]);
        let atom = draws.pick(&[512, PAGE_BYTES]);
        self.crash_names(policy, cut, odds, draws, &mut crash);
        for file in self.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            crash.pending += pending.len() as u64;
            let kept_first = draws.below(pending.len() as u64 + 1);
            let mut write_back = WriteBack {
                seen: file.durable.clone(),
                synced: file.durable.len(),
                atom: if policy == Policy::Torn {
                    atom
                } else {
                    PAGE_BYTES
                },
            };
            for (nth, op) in pending.iter().enumerate() {
                let tear = match policy {
                    Policy::Prefix if op.order < cut => Tear::Whole,
                    Policy::PrefixPerFile if (nth as u64) < kept_first => Tear::Whole,
                    Policy::Prefix | Policy::PrefixPerFile => Tear::Dropped,
                    Policy::Subset if draws.percent(odds) => Tear::Whole,
                    Policy::Subset => Tear::Dropped,
                    Policy::Torn => draws.pick(&[
                        Tear::Dropped,
                        Tear::Whole,
                        Tear::Prefix,
                        Tear::Interleaved,
                        Tear::LengthOnly,
                        Tear::Garbage,
                    ]),
                };
                write_back.apply(op, tear, file, draws);
                match tear {
                    Tear::Dropped => crash.dropped += 1,
                    Tear::Whole => {}
                    Tear::Prefix | Tear::Interleaved | Tear::LengthOnly | Tear::Garbage => {
                        crash.torn += 1;
                    }
                }
            }
        }
        self.restart();
        crash
    }

    /// An order below which, by policy P0, everything survives.
    fn global_cut(&self, draws: &mut Keyed) -> u64 {
        let mut orders: Vec<u64> = self.pending_names.iter().map(|op| op.order).collect();
        for file in self.files.values() {
            orders.extend(file.pending.iter().map(|op| op.order));
        }
        orders.sort_unstable();
        let survivors = draws.index(orders.len() + 1);
        orders.get(survivors).copied().unwrap_or(u64::MAX)
    }

    fn crash_names(
        &mut self,
        policy: Policy,
        cut: u64,
        odds: u64,
        draws: &mut Keyed,
        crash: &mut Crash,
    ) {
        let pending = std::mem::take(&mut self.pending_names);
        crash.pending += pending.len() as u64;
        let mut dirs_cut: Vec<String> = Vec::new();
        for op in pending {
            let dir = op.change.dir();
            let survives = match policy {
                Policy::Prefix => op.order < cut,
                Policy::PrefixPerFile => {
                    if !dirs_cut.iter().any(|known| known == dir) && !draws.percent(odds) {
                        dirs_cut.push(dir.to_owned());
                    }
                    !dirs_cut.iter().any(|known| known == dir)
                }
                Policy::Subset | Policy::Torn => draws.percent(odds),
            };
            if survives {
                op.change.apply(&mut self.durable_names);
            } else {
                crash.dropped += 1;
            }
        }
    }
}

/// The write-back of one file's pending operations at the moment the power fails.
struct WriteBack {
    /// The contents with every operation so far applied: what the cache would have written back.
    seen: Vec<u8>,
    /// Bytes from here on were never synced.
    synced: usize,
    atom: usize,
}

impl WriteBack {
    fn apply(&mut self, op: &DataOp, tear: Tear, file: &mut File, draws: &mut Keyed) {
        op.change.apply(&mut self.seen);
        let Change::Write { offset, data } = &op.change else {
            if tear != Tear::Dropped {
                op.change.apply(&mut file.durable);
            }
            return;
        };
        let (start, end) = (*offset, offset + data.len());
        let first = start / self.atom;
        let atoms = end.div_ceil(self.atom) - first;
        match tear {
            Tear::Dropped => {}
            Tear::Whole => self.keep(file, first, atoms),
            Tear::Prefix => {
                let kept = draws.index(atoms + 1);
                self.keep(file, first, kept);
            }
            Tear::Interleaved => {
                for atom in first..first + atoms {
                    if draws.percent(50) {
                        self.keep(file, atom, 1);
                    }
                }
            }
            Tear::LengthOnly => grow(&mut file.durable, end),
            Tear::Garbage => {
                grow(&mut file.durable, end);
                for atom in first..first + atoms {
                    let from = atom * self.atom;
                    let to = (from + self.atom).min(file.durable.len());
                    if from >= self.synced && draws.percent(50) {
                        for byte in &mut file.durable[from..to] {
                            *byte = draws.bits().to_le_bytes()[0];
                        }
                    } else if draws.percent(50) {
                        self.keep(file, atom, 1);
                    }
                }
            }
        }
    }

    /// Writes back so many atoms as the cache holds them.
    fn keep(&self, file: &mut File, first: usize, atoms: usize) {
        let from = first * self.atom;
        let to = (from + atoms * self.atom).min(self.seen.len());
        if from < to {
            grow(&mut file.durable, to);
            file.durable[from..to].copy_from_slice(&self.seen[from..to]);
        }
    }
}

fn grow(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kfs_core::machine::{DiskDone, DiskOp, FileName, SyncMode};

    fn name(path: &str) -> FileName {
        FileName::new(path)
    }
    fn write(path: &str, offset: u64, data: &[u8]) -> DiskOp {
        DiskOp::Write {
            file: name(path),
            offset,
            data: vec![Bytes::copy_from_slice(data)],
            sync: SyncMode::Later,
        }
    }
    fn create(path: &str) -> DiskOp {
        DiskOp::Create {
            file: name(path),
            zeroed: 0,
        }
    }
    fn run(disk: &mut DiskModel, ops: &[DiskOp]) {
        for op in ops {
            assert_eq!(disk.apply(op), Ok(DiskDone::Done), "{op:?}");
        }
    }
    fn draws(seed: u64) -> Keyed {
        Keyed::new(seed, "crash")
    }

    #[test]
    fn a_synced_file_without_a_synced_name_may_be_lost() {
        let lost = (0..64).filter(|seed| {
            let mut disk = DiskModel::new(1 << 20);
            let sync = DiskOp::Sync { file: name("a") };
            run(&mut disk, &[create("a"), write("a", 0, b"x"), sync]);
            disk.power_loss(Policy::Subset, &mut draws(*seed));
            disk.contents("a").is_none()
        });
        assert!((1..64).contains(&lost.count()));
    }

    #[test]
    fn a_synced_name_and_synced_data_survive_every_policy() {
        for policy in Policy::ALL {
            for seed in 0..64 {
                let mut disk = DiskModel::new(1 << 20);
                let bytes: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
                let sync = DiskOp::Sync { file: name("d/a") };
                let make = DiskOp::MakeDir { dir: name("d") };
                let dirs = ["", "d"].map(|dir| DiskOp::SyncDir { dir: name(dir) });
                run(
                    &mut disk,
                    &[make, create("d/a"), write("d/a", 0, &bytes), sync],
                );
                run(&mut disk, &dirs);
                run(&mut disk, &[write("d/a", 10_000, &bytes)]);
                disk.power_loss(policy, &mut draws(seed));
                let left = disk.contents("d/a").expect("the name was synced");
                assert_eq!(&left[..10_000], bytes, "{policy:?} {seed}");
            }
        }
    }

    #[test]
    fn a_rename_across_directories_never_loses_the_file() {
        for seed in 0..256 {
            for synced in ["", "from", "to"] {
                let mut disk = DiskModel::new(1 << 20);
                let dirs = ["from", "to"].map(|dir| DiskOp::MakeDir { dir: name(dir) });
                run(&mut disk, &dirs);
                run(&mut disk, &[create("from/a")]);
                let all = ["", "from", "to"].map(|dir| DiskOp::SyncDir { dir: name(dir) });
                run(&mut disk, &all);
                let (from, to) = (name("from/a"), name("to/a"));
                let sync = DiskOp::SyncDir { dir: name(synced) };
                run(&mut disk, &[DiskOp::Rename { from, to }, sync]);
                disk.power_loss(Policy::Torn, &mut draws(seed));
                let names: Vec<_> = disk.paths().collect();
                assert!(
                    !names.is_empty(),
                    "lost with {synced:?} synced, seed {seed}"
                );
                assert!(synced != "to" || names.contains(&"to/a"));
            }
        }
    }

    #[test]
    fn a_torn_write_shows_every_face_of_it_and_never_old_bytes_of_others() {
        let (mut zeros, mut garbage, mut parts, mut whole, mut dropped) = (0, 0, 0, 0, 0);
        for seed in 0..512 {
            let mut disk = DiskModel::new(1 << 20);
            let dir = DiskOp::SyncDir { dir: name("") };
            run(&mut disk, &[create("a"), dir, write("a", 0, &[7; 8_192])]);
            disk.power_loss(Policy::Torn, &mut draws(seed));
            let left = disk.contents("a").expect("the name was synced");
            let sevens = left.iter().filter(|byte| **byte == 7).count();
            let nulls = left.iter().filter(|byte| **byte == 0).count();
            dropped += usize::from(left.is_empty());
            whole += usize::from(sevens == 8_192);
            zeros += usize::from(nulls == 8_192);
            parts += usize::from(sevens > 0 && sevens + nulls < 8_193 && sevens < 8_192);
            garbage += usize::from(sevens + nulls < left.len());
        }
        for face in [zeros, garbage, parts, whole, dropped] {
            assert!(face > 0, "{zeros} {garbage} {parts} {whole} {dropped}");
        }
    }

    #[test]
    fn a_later_write_of_a_page_carries_the_earlier_ones_of_the_same_page() {
        for seed in 0..64 {
            let mut disk = DiskModel::new(1 << 20);
            let dir = DiskOp::SyncDir { dir: name("") };
            run(&mut disk, &[create("a"), dir]);
            run(
                &mut disk,
                &[write("a", 0, &[1; 100]), write("a", 100, &[2; 100])],
            );
            disk.power_loss(Policy::Subset, &mut draws(seed));
            let left = disk.contents("a").expect("the name was synced");
            assert!(left.len() < 200 || left[..100] == [1; 100]);
        }
    }
}
