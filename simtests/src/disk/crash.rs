//! What a power loss leaves of the operations that no sync covered: sampled, or chosen one by one.
//!
//! A page cache writes back whole atoms: whoever keeps a later write of an atom keeps the earlier ones of the
//! same atom too. A name and the data behind it are decided apart. Each power loss is a [`Choice`], a line of
//! text that does the same again; all that a policy allows are listed by [`images`](super::images).
use super::image::Image;
use super::model::{Change, DataOp, DiskModel, File, Inode, PAGE_BYTES};
use crate::keyed::{Keyed, mix};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What a write that tears takes with it, aligned: on a real disk the page. Here it is as much as the smallest block of
/// a simulated cluster, which stands for a page there.
const BESIDE_BYTES: usize = 256;

/// Which of the pending operations survive.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// P0: the first so many of all operations of the disk, in their order.
    Prefix,
    /// P1: the first so many per file; names apart, per directory.
    PrefixPerFile,
    /// P2: any subset.
    Subset,
    /// P3: any subset, and a write may survive in part: a prefix of its atoms, any of its atoms, its length
    /// without its data, or garbage: all of an atom of which nothing was ever synced, else what is written and what
    /// stands beside it.
    Torn,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Prefix, Self::PrefixPerFile, Self::Subset, Self::Torn];

    /// The atoms in which a write is kept, one of them for a whole disk.
    pub(super) fn atoms(self) -> &'static [usize] {
        match self {
            Self::Prefix | Self::PrefixPerFile | Self::Subset => &[PAGE_BYTES],
            Self::Torn => &[512, PAGE_BYTES],
        }
    }
}

/// What a power loss did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Crash {
    /// Operations that were pending.
    pub pending: u64,
    /// Of those, the ones of which nothing was left.
    pub dropped: u64,
    /// Of those, the writes that were left in part.
    pub torn: u64,
}

/// What becomes of each operation that is pending on one disk at one moment. As text it is one line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Choice {
    /// Bytes that the disk writes as one.
    pub atom: usize,
    /// What garbage is made of.
    pub garbage: u64,
    /// Of all pending operations of names and data, in their order.
    pub fates: Vec<Fate>,
}

/// What becomes of one pending operation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// Nothing is left of it.
    Dropped,
    /// It is done.
    Whole,
    /// It is a write, of which a part is done.
    Torn {
        /// What is left of its length.
        length: Length,
        /// Which of its atoms are done, the first one being 0.
        kept: BTreeSet<u32>,
        /// Which of its atoms are garbage.
        garbage: BTreeSet<u32>,
    },
}

/// The length of a file after a torn write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Length {
    /// Up to the last atom that was done.
    AsKept,
    /// Up to the write's end; what was not done there is zeros.
    Whole,
}

/// Why a choice cannot be done: it was made for another disk, or is no choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChoiceError(String);

/// A pending operation, by its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Name(usize),
    Data(Inode, usize),
}

impl DiskModel {
    /// The power fails, and comes back: pending operations survive as the policy says, the rest is gone.
    pub fn power_loss(&mut self, policy: Policy, draws: &mut Keyed) -> Crash {
        let choice = self.sample_choice(policy, draws);
        self.apply_choice(&choice)
            .expect("the choice was made for this disk")
    }

    /// One of the choices that the policy allows.
    #[must_use]
    pub fn sample_choice(&self, policy: Policy, draws: &mut Keyed) -> Choice {
        let places = self.places();
        let cut = draws.index(places.len() + 1);
        let odds = draws.pick(&[10, 50, 90]);
        let atom = draws.pick(&[512, PAGE_BYTES]);
        let atom = if policy == Policy::Torn {
            atom
        } else {
            PAGE_BYTES
        };
        let garbage = draws.bits();
        let mut dirs_cut: BTreeSet<&str> = BTreeSet::new();
        let mut files_kept: Vec<(Inode, usize)> = Vec::new();
        let subset = |draws: &mut Keyed| Fate::whole_if(draws.percent(odds));
        let fate = |(nth, place): (usize, &Place)| match (policy, *place) {
            (Policy::Prefix, _) => Fate::whole_if(nth < cut),
            (Policy::PrefixPerFile, Place::Name(nth)) => {
                let dir = self.pending_names[nth].change.dir();
                if !dirs_cut.contains(dir) && !draws.percent(odds) {
                    dirs_cut.insert(dir);
                }
                Fate::whole_if(!dirs_cut.contains(dir))
            }
            (Policy::PrefixPerFile, Place::Data(inode, nth)) => {
                let known = files_kept.iter().find(|(file, _)| *file == inode).copied();
                let (_, kept) = known.unwrap_or_else(|| {
                    let kept = draws.index(self.files[&inode].pending.len() + 1);
                    files_kept.push((inode, kept));
                    (inode, kept)
                });
                Fate::whole_if(nth < kept)
            }
            (Policy::Subset, _) | (Policy::Torn, Place::Name(_)) => subset(draws),
            (Policy::Torn, Place::Data(inode, nth)) => {
                Fate::any(&self.files[&inode].pending[nth].change, atom, draws)
            }
        };
        let fates = places.iter().enumerate().map(fate).collect();
        Choice {
            atom,
            garbage,
            fates,
        }
    }

    /// The power fails, and comes back, and this is what it did.
    ///
    /// # Errors
    /// If the choice does not fit what is pending; then nothing happens.
    pub fn apply_choice(&mut self, choice: &Choice) -> Result<Crash, ChoiceError> {
        let places = self.places();
        if places.len() != choice.fates.len() {
            let (has, asked) = (places.len(), choice.fates.len());
            return Err(ChoiceError(format!(
                "a choice for {asked} pending operations, the disk has {has}"
            )));
        }
        let mut crash = Crash::default();
        let mut files: BTreeSet<Inode> = BTreeSet::new();
        let mut fates_of_data = Vec::new();
        for (place, fate) in places.into_iter().zip(&choice.fates) {
            crash.pending += 1;
            match fate {
                Fate::Dropped => crash.dropped += 1,
                Fate::Whole => {}
                Fate::Torn { .. } => crash.torn += 1,
            }
            match place {
                Place::Name(nth) => {
                    if *fate != Fate::Dropped {
                        let change = &self.pending_names[nth].change;
                        change.apply(&mut self.durable_names);
                    }
                }
                Place::Data(inode, nth) => {
                    files.insert(inode);
                    fates_of_data.push((inode, nth, fate));
                }
            }
        }
        // Stable, so that each file's stay in their order.
        fates_of_data.sort_by_key(|(inode, ..)| *inode);
        for of_one_file in fates_of_data.chunk_by(|one, other| one.0 == other.0) {
            let inode = of_one_file[0].0;
            let file = self.file_mut(inode);
            let mut write_back = WriteBack::new(file, inode, choice.atom, choice.garbage);
            for (_, nth, fate) in of_one_file {
                let op = &file.pending[*nth];
                write_back.apply(op, fate, &mut file.durable);
            }
        }
        self.restart();
        Ok(crash)
    }

    /// All pending operations in their order.
    pub(super) fn places(&self) -> Vec<Place> {
        let names = self.pending_names.iter().enumerate();
        let mut places: Vec<(u64, Place)> = names
            .map(|(nth, op)| (op.order, Place::Name(nth)))
            .collect();
        for (inode, file) in &self.files {
            let data = file.pending.iter().enumerate();
            places.extend(data.map(|(nth, op)| (op.order, Place::Data(*inode, nth))));
        }
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect()
    }
}

impl Fate {
    pub(super) fn whole_if(kept: bool) -> Self {
        if kept { Self::Whole } else { Self::Dropped }
    }

    /// What can become of a change by policy P3.
    fn any(change: &Change, atom: usize, draws: &mut Keyed) -> Self {
        let face = draws.below(6);
        let half = |draws: &mut Keyed, from: &BTreeSet<u32>| {
            let half = from.iter().copied().filter(|_| draws.percent(50));
            half.collect::<BTreeSet<u32>>()
        };
        let Change::Write { offset, data } = change else {
            return Self::whole_if(face > 0);
        };
        let atoms: BTreeSet<u32> = (0..count_of_atoms(*offset, data.len(), atom)).collect();
        let none = BTreeSet::new();
        let (length, kept, garbage) = match face {
            0 => return Self::Dropped,
            1 => return Self::Whole,
            2 => {
                let kept = draws.index(atoms.len() + 1);
                let kept = atoms.into_iter().take(kept).collect();
                (Length::AsKept, kept, none)
            }
            3 => (Length::AsKept, half(draws, &atoms), none),
            4 => (Length::Whole, none.clone(), none),
            _ => {
                let garbage = half(draws, &atoms);
                (Length::Whole, half(draws, &atoms), garbage)
            }
        };
        Self::Torn {
            length,
            kept,
            garbage,
        }
    }
}

/// The write-back of one file's pending operations at the moment the power fails.
pub(super) struct WriteBack {
    /// The contents with every operation so far applied: what the cache would have written back.
    seen: Image,
    /// Bytes from here on were never synced.
    synced: usize,
    atom: usize,
    garbage: u64,
}

impl WriteBack {
    pub(super) fn new(file: &File, inode: Inode, atom: usize, garbage: u64) -> Self {
        Self {
            seen: file.beneath.as_ref().unwrap_or(&file.durable).clone(),
            synced: file.durable.len(),
            atom,
            garbage: mix(mix(garbage) ^ inode.0),
        }
    }

    /// The next operation, into what is durable.
    pub(super) fn apply(&mut self, op: &DataOp, fate: &Fate, durable: &mut Image) {
        let atoms = self.see(op);
        match (&op.change, fate) {
            (_, Fate::Dropped) => {}
            (Change::SetLen(_), Fate::Whole | Fate::Torn { .. }) => op.change.apply(durable),
            (Change::Write { .. }, Fate::Whole) => {
                for atom in atoms {
                    self.keep(atom, durable);
                }
            }
            (
                Change::Write { offset, data },
                Fate::Torn {
                    length,
                    kept,
                    garbage,
                },
            ) => {
                if *length == Length::Whole {
                    durable.grow(offset + data.len());
                }
                for (nth, atom) in (0_u32..).zip(atoms) {
                    if garbage.contains(&nth) {
                        self.spoil(atom, *offset..offset + data.len(), durable);
                    } else if kept.contains(&nth) {
                        self.keep(atom, durable);
                    }
                }
            }
        }
    }

    /// The cache after the next operation. Gives the atoms that it wrote to.
    pub(super) fn see(&mut self, op: &DataOp) -> std::ops::Range<usize> {
        op.change.apply(&mut self.seen);
        match &op.change {
            Change::Write { offset, data } => {
                let first = offset / self.atom;
                first..(offset + data.len()).div_ceil(self.atom)
            }
            Change::SetLen(_) => 0..0,
        }
    }

    /// Writes back an atom as the cache holds it.
    pub(super) fn keep(&self, atom: usize, durable: &mut Image) {
        let from = atom * self.atom;
        let to = (from + self.atom).min(self.seen.len());
        if from < to {
            durable.copy(&self.seen, from..to);
        }
    }

    /// Makes garbage of an atom in which nothing was ever synced, or else of what a write wrote to it and of what
    /// stands beside that: the same at the same place.
    pub(super) fn spoil(&self, atom: usize, written: std::ops::Range<usize>, durable: &mut Image) {
        let (first, end) = (atom * self.atom, (atom + 1) * self.atom);
        let (from, to) = if first >= self.synced {
            (first, end)
        } else {
            let from = written.start / BESIDE_BYTES * BESIDE_BYTES;
            let to = written.end.next_multiple_of(BESIDE_BYTES);
            (from.max(first), to.min(end))
        };
        let to = to.min(durable.len());
        self.spoil_range(from.min(to)..to, durable);
    }

    fn spoil_range(&self, range: std::ops::Range<usize>, durable: &mut Image) {
        let from = range.start;
        durable.edit(range, |bytes| {
            for (byte, at) in bytes.iter_mut().zip(from as u64..) {
                *byte = mix(self.garbage ^ mix(at)).to_le_bytes()[0];
            }
        });
    }
}

/// How many atoms a write touches.
fn count_of_atoms(offset: usize, len: usize, atom: usize) -> u32 {
    let atoms = (offset + len).div_ceil(atom) - offset / atom;
    u32::try_from(atoms).expect("a write is smaller than a chunk")
}

/// `ATOM GARBAGE FATE…`, where a fate is `-` (dropped), `+` (whole), or for a torn write `~` (as long as what
/// was done) or `=` (its whole length), the atoms that were done, and `!` and the atoms that are garbage, as in
/// `~0-3.7` and `=0!1-2`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.atom, self.garbage)?;
        for fate in &self.fates {
            match fate {
                Fate::Dropped => f.write_str(" -")?,
                Fate::Whole => f.write_str(" +")?,
                Fate::Torn {
                    length,
                    kept,
                    garbage,
                } => {
                    f.write_str(match length {
                        Length::AsKept => " ~",
                        Length::Whole => " =",
                    })?;
                    f.write_str(&runs(kept))?;
                    if !garbage.is_empty() {
                        write!(f, "!{}", runs(garbage))?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let no_choice = || ChoiceError(format!("no choice: {text:?}"));
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let atom = number().and_then(|atom| usize::try_from(atom).ok());
        let atom = atom.filter(|atom| *atom > 0).ok_or_else(no_choice)?;
        let garbage = number().ok_or_else(no_choice)?;
        let fate = |word: &str| match word {
            "-" => Some(Fate::Dropped),
            "+" => Some(Fate::Whole),
            torn => {
                let (length, parts) = match torn.strip_prefix('~') {
                    Some(parts) => (Length::AsKept, parts),
                    None => (Length::Whole, torn.strip_prefix('=')?),
                };
                let (kept, garbage) = parts.split_once('!').unwrap_or((parts, ""));
                Some(Fate::Torn {
                    length,
                    kept: of_runs(kept)?,
                    garbage: of_runs(garbage)?,
                })
            }
        };
        let fates: Option<Vec<Fate>> = words.map(fate).collect();
        Ok(Self {
            atom,
            garbage,
            fates: fates.ok_or_else(no_choice)?,
        })
    }
}

impl serde::Serialize for Choice {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Choice {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ChoiceError {}

/// Numbers as `0-3.7`.
fn runs(numbers: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let run = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(".")
}

fn of_runs(text: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for run in text.split('.').filter(|run| !run.is_empty()) {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last - first > 1 << 20 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
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
                run(&mut disk, &[write("d/a", 10_240, &bytes)]);
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
    fn a_torn_write_takes_synced_bytes_beside_it_and_none_of_further_away() {
        let (mut beside, mut own) = (0, 0);
        for seed in 0..512 {
            let mut disk = DiskModel::new(1 << 20);
            let dir = DiskOp::SyncDir { dir: name("") };
            let sync = DiskOp::Sync { file: name("a") };
            run(
                &mut disk,
                &[create("a"), dir, write("a", 0, &[1; 300]), sync],
            );
            run(&mut disk, &[write("a", 300, &[2; 100])]);
            disk.power_loss(Policy::Torn, &mut draws(seed));
            let left = disk.contents("a").expect("the name was synced");
            assert_eq!(left[..256], [1; 256], "another block");
            beside += usize::from(left[256..300] != [1; 44]);
            own += usize::from(
                left.len() == 400 && left[300..] != [2; 100] && left[300..] != [0; 100],
            );
        }
        assert!(beside > 0 && own > 0, "{beside} {own}");
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
