//! All that a power loss can leave by a policy, as far as it can be listed.
//!
//! Files crash apart from one another, so their outcomes are listed file by file, each different one once,
//! and multiplied: a page written to twenty times between two syncs has twenty-one outcomes, not a million.
//! If there are more than asked for, the ones that look like accidents come first, and the rest is sampled.
use super::crash::{Choice, Crash, Fate, Length, Place, Policy, WriteBack};
use super::image::Image;
use super::model::reachable;
use super::model::{Change, DataOp, DiskModel, Entry, Inode, Names, PAGE_BYTES, hash_of_path};
use crate::keyed::{Keyed, mix};
use std::collections::{BTreeMap, BTreeSet};

/// States of the names that are looked at, at most, for each image that is asked for.
const NAMES_PER_IMAGE: usize = 16;
/// States of the names that are looked at in any case.
const NAMES_MIN: usize = 4_096;

/// Disks that a power loss can leave, no two of them alike.
#[derive(Clone, Debug)]
pub struct CrashImages {
    /// Whether these are all.
    pub coverage: Coverage,
    /// The disks, started again.
    pub images: Vec<CrashImage>,
}

/// Whether a list of disks is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coverage {
    /// The policy allows no other.
    Every,
    /// The policy allows more, or so many ways that nobody counted.
    Sampled,
}

/// A disk after a power loss.
#[derive(Clone, Debug)]
pub struct CrashImage {
    /// Does it again, on the disk as it was before.
    pub choice: Choice,
    /// What it did.
    pub crash: Crash,
    /// What is left.
    pub disk: DiskModel,
}

impl DiskModel {
    /// The different disks that a power loss now can leave: all, if they are at most `most`; else so many, the
    /// systematic ones first (nothing, everything, every beginning, all but one, one alone, one torn).
    #[must_use]
    pub fn crash_images(&self, policy: Policy, most: usize, draws: &mut Keyed) -> CrashImages {
        let mut every = Collection::new(self, most);
        if every.fill(policy).is_some() {
            return CrashImages {
                coverage: Coverage::Every,
                images: every.images,
            };
        }
        let mut some = Collection::new(self, most);
        let mut systematic = some.systematic(policy);
        if systematic.len() > most {
            // Nothing and everything stay; of the others, no end of the list is better than the other.
            draws.shuffle(&mut systematic[2..]);
        }
        let full = systematic
            .into_iter()
            .any(|choice| some.offer(choice).is_none());
        if !full {
            for _ in 0..most.saturating_mul(4) {
                if some.offer(self.sample_choice(policy, draws)).is_none() {
                    break;
                }
            }
        }
        CrashImages {
            coverage: Coverage::Sampled,
            images: some.images,
        }
    }
}

/// Different disks, at most so many.
struct Collection<'a> {
    before: &'a DiskModel,
    most: usize,
    places: Vec<Place>,
    hashes: BTreeSet<u64>,
    images: Vec<CrashImage>,
}

impl<'a> Collection<'a> {
    fn new(before: &'a DiskModel, most: usize) -> Self {
        Self {
            before,
            most,
            places: before.places(),
            hashes: BTreeSet::new(),
            images: Vec::new(),
        }
    }

    /// Takes a choice's disk if it is another one. Gives nothing if there is no room for it.
    fn offer(&mut self, choice: Choice) -> Option<()> {
        let mut disk = self.before.clone();
        let crash = disk
            .apply_choice(&choice)
            .expect("the choice was made for this disk");
        if self.hashes.insert(disk.durable_hash()) {
            if self.images.len() == self.most {
                return None;
            }
            self.images.push(CrashImage {
                choice,
                crash,
                disk,
            });
        }
        Some(())
    }

    /// Takes all that the policy allows. Gives nothing if there are too many.
    fn fill(&mut self, policy: Policy) -> Option<()> {
        if policy == Policy::Prefix {
            for kept in 0..=self.places.len() {
                self.offer(self.of(PAGE_BYTES, |nth| Fate::whole_if(nth < kept)))?;
            }
            return Some(());
        }
        let most_names = self.most.saturating_mul(NAMES_PER_IMAGE).max(NAMES_MIN);
        let all_names = names_left(self.before, policy, most_names)?;
        for atom in policy.atoms() {
            let mut outcomes: BTreeMap<Inode, Vec<Vec<Fate>>> = BTreeMap::new();
            for names in &all_names {
                let there = self.unsynced_files(&names.names);
                let mut ways = 1_usize;
                for inode in &there {
                    if !outcomes.contains_key(inode) {
                        let left = files_left(self.before, *inode, policy, *atom, self.most)?;
                        outcomes.insert(*inode, left);
                    }
                    ways = ways.saturating_mul(outcomes[inode].len());
                }
                if ways > self.most {
                    return None;
                }
                for way in 0..ways {
                    self.offer(self.combined(*atom, names, &there, &outcomes, way))?;
                }
            }
        }
        Some(())
    }

    /// Files with these names of which something is pending.
    fn unsynced_files(&self, names: &Names) -> BTreeSet<Inode> {
        let there = names.iter().filter(|(path, _)| reachable(names, path));
        let files = there.filter_map(|(_, entry)| match entry {
            Entry::File(inode) => Some(*inode),
            Entry::Dir => None,
        });
        files
            .filter(|inode| !self.before.files[inode].pending.is_empty())
            .collect()
    }

    /// The n-th of the ways in which the outcomes of files go together.
    fn combined(
        &self,
        atom: usize,
        names: &NamesLeft,
        there: &BTreeSet<Inode>,
        outcomes: &BTreeMap<Inode, Vec<Vec<Fate>>>,
        way: usize,
    ) -> Choice {
        let mut left = way;
        let mut files: BTreeMap<Inode, &Vec<Fate>> = BTreeMap::new();
        for inode in there {
            let outcomes = &outcomes[inode];
            files.insert(*inode, &outcomes[left % outcomes.len()]);
            left /= outcomes.len();
        }
        self.of(atom, |nth| match self.places[nth] {
            Place::Name(nth) => Fate::whole_if(names.kept[nth]),
            Place::Data(inode, nth) => match files.get(&inode) {
                Some(fates) => fates[nth].clone(),
                None => Fate::Dropped,
            },
        })
    }

    fn of(&self, atom: usize, fate: impl Fn(usize) -> Fate) -> Choice {
        Choice {
            atom,
            garbage: 0,
            fates: (0..self.places.len()).map(fate).collect(),
        }
    }

    /// Choices that look like accidents; nothing and everything are the first two.
    fn systematic(&self, policy: Policy) -> Vec<Choice> {
        let count = self.places.len();
        let whole =
            |kept: &dyn Fn(usize) -> bool| self.of(PAGE_BYTES, |nth| Fate::whole_if(kept(nth)));
        let mut choices = vec![whole(&|_| false), whole(&|_| true)];
        choices.extend((1..count).map(|kept| whole(&|nth| nth < kept)));
        match policy {
            Policy::Prefix => {}
            Policy::PrefixPerFile => {
                let groups: Vec<Group<'_>> = self.places.iter().map(|at| self.group(*at)).collect();
                for group in groups.iter().collect::<BTreeSet<_>>() {
                    let last = groups.iter().rposition(|other| other == group);
                    choices.push(whole(&|nth| groups[nth] != *group));
                    choices.push(whole(&|nth| groups[nth] == *group));
                    choices.push(whole(&|nth| Some(nth) != last));
                }
            }
            Policy::Subset | Policy::Torn => {
                choices.extend((0..count).map(|one| whole(&|nth| nth != one)));
                choices.extend((0..count).map(|one| whole(&|nth| nth == one)));
            }
        }
        if policy == Policy::Torn {
            for torn in 0..count {
                for face in self.torn(torn) {
                    choices.push(self.of(512, |nth| match nth == torn {
                        true => face.clone(),
                        false => Fate::Whole,
                    }));
                    choices.push(self.of(512, |nth| match nth == torn {
                        true => face.clone(),
                        false => Fate::whole_if(nth < torn),
                    }));
                }
            }
        }
        choices
    }

    /// What keeps its order by policy P1.
    fn group(&self, place: Place) -> Group<'_> {
        match place {
            Place::Name(nth) => Group::Dir(self.before.pending_names[nth].change.dir()),
            Place::Data(inode, _) => Group::File(inode),
        }
    }

    /// The ways to tear an operation in sectors that are told from one another at a glance.
    fn torn(&self, nth: usize) -> Vec<Fate> {
        let Place::Data(inode, nth) = self.places[nth] else {
            return Vec::new();
        };
        let Change::Write { offset, data } = &self.before.files[&inode].pending[nth].change else {
            return Vec::new();
        };
        let atoms = (offset + data.len()).div_ceil(512) - offset / 512;
        let atoms = u32::try_from(atoms).expect("a write is smaller than a chunk");
        let torn = |length, kept: &dyn Fn(u32) -> bool, garbage: &dyn Fn(u32) -> bool| Fate::Torn {
            length,
            kept: (0..atoms).filter(|atom| kept(*atom)).collect(),
            garbage: (0..atoms).filter(|atom| garbage(*atom)).collect(),
        };
        let none = |_: u32| false;
        vec![
            torn(Length::AsKept, &|atom| atom < atoms / 2, &none),
            torn(Length::AsKept, &|atom| atom + 1 < atoms, &none),
            torn(Length::AsKept, &|atom| atom > 0, &none),
            torn(Length::Whole, &|atom| atom % 2 == 0, &none),
            torn(Length::Whole, &none, &none),
            torn(Length::Whole, &none, &|_| true),
            torn(Length::Whole, &|atom| atom < atoms / 2, &|atom| {
                atom >= atoms / 2
            }),
        ]
    }
}

/// Operations that keep their order by policy P1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group<'a> {
    Dir(&'a str),
    File(Inode),
}

/// Names after a power loss, and which of the pending operations made them so.
#[derive(Clone)]
struct NamesLeft {
    names: Names,
    kept: Vec<bool>,
}

/// All different states of the names, or nothing if they are more than `most`.
fn names_left(disk: &DiskModel, policy: Policy, most: usize) -> Option<Vec<NamesLeft>> {
    let mut left = vec![NamesLeft {
        names: disk.durable_names.clone(),
        kept: Vec::new(),
    }];
    let ops = &disk.pending_names;
    for (nth, op) in ops.iter().enumerate() {
        // By policy P1 the first one that is lost takes the later ones of its directory along.
        let dir = op.change.dir();
        let earlier: Vec<usize> = (0..nth)
            .filter(|nth| policy == Policy::PrefixPerFile && ops[*nth].change.dir() == dir)
            .collect();
        let mut hashes: BTreeSet<u64> = BTreeSet::new();
        let mut next = Vec::new();
        for state in left {
            let mut with = state.clone();
            if earlier.iter().all(|nth| state.kept[*nth]) {
                op.change.apply(&mut with.names);
                with.kept.push(true);
                next.push(with);
            }
            let mut without = state;
            without.kept.push(false);
            next.push(without);
        }
        if policy != Policy::PrefixPerFile {
            // States alike may go on alike; by P1 the same names may allow other things later.
            next.retain(|state| hashes.insert(hash_of_names(&state.names)));
        }
        if next.len() > most {
            return None;
        }
        left = next;
    }
    let mut hashes: BTreeSet<u64> = BTreeSet::new();
    left.retain(|state| hashes.insert(hash_of_names(&state.names)));
    Some(left)
}

fn hash_of_names(names: &Names) -> u64 {
    names.iter().fold(0, |hash, (path, entry)| {
        let held = match entry {
            Entry::Dir => 0,
            Entry::File(inode) => mix(inode.0),
        };
        mix(mix(hash ^ hash_of_path(path)) ^ held)
    })
}

/// Ways to every different state of one file, or nothing if they are more than `most`.
fn files_left(
    disk: &DiskModel,
    inode: Inode,
    policy: Policy,
    atom: usize,
    most: usize,
) -> Option<Vec<Vec<Fate>>> {
    let file = &disk.files[&inode];
    let mut write_back = WriteBack::new(file, inode, atom, 0);
    let mut hashes = BTreeSet::from([file.durable.hash()]);
    let mut left = vec![(file.durable.clone(), Vec::new())];
    for op in &file.pending {
        let atoms = write_back.see(op);
        let mut next = Vec::new();
        for (image, fates) in left {
            let is_beginning = fates.iter().all(|fate| *fate == Fate::Whole);
            if policy != Policy::PrefixPerFile || is_beginning {
                for (fate, after) in step(&write_back, op, &atoms, &image, policy, most)? {
                    // By P1 a beginning that changed nothing is needed for the longer ones.
                    if hashes.insert(after.hash()) || policy == Policy::PrefixPerFile {
                        let fates = fates.iter().cloned().chain([fate]).collect();
                        next.push((after, fates));
                    }
                }
            }
            let dropped = fates.into_iter().chain([Fate::Dropped]).collect();
            next.push((image, dropped));
        }
        if hashes.len() > most {
            return None;
        }
        left = next;
    }
    let mut hashes: BTreeSet<u64> = BTreeSet::new();
    left.retain(|(image, _)| hashes.insert(image.hash()));
    Some(left.into_iter().map(|(_, fates)| fates).collect())
}

/// What a file may be after one more operation, unless nothing of it is left.
fn step(
    write_back: &WriteBack,
    op: &DataOp,
    atoms: &std::ops::Range<usize>,
    before: &Image,
    policy: Policy,
    most: usize,
) -> Option<Vec<(Fate, Image)>> {
    let Change::Write { offset, data } = &op.change else {
        let mut after = before.clone();
        op.change.apply(&mut after);
        return Some(vec![(Fate::Whole, after)]);
    };
    if policy != Policy::Torn {
        let mut after = before.clone();
        for atom in atoms.clone() {
            write_back.keep(atom, &mut after);
        }
        return Some(vec![(Fate::Whole, after)]);
    }
    let count = atoms.len();
    let mut found = Vec::new();
    for length in [Length::AsKept, Length::Whole] {
        let mut start = before.clone();
        if length == Length::Whole {
            start.grow(offset + data.len());
        }
        let mut hashes = BTreeSet::from([start.hash()]);
        let mut parts = vec![(start, BTreeSet::new(), BTreeSet::new())];
        for (nth, atom) in (0_u32..).zip(atoms.clone()) {
            for earlier in 0..parts.len() {
                let (image, kept, garbage) = &parts[earlier];
                let mut with = image.clone();
                write_back.keep(atom, &mut with);
                let mut kept_too = kept.clone();
                kept_too.insert(nth);
                let with = (with, kept_too, garbage.clone());
                let spoilt = (length == Length::Whole).then(|| {
                    let mut spoilt = image.clone();
                    write_back.spoil(atom, *offset..offset + data.len(), &mut spoilt);
                    let mut garbage_too = garbage.clone();
                    garbage_too.insert(nth);
                    (spoilt, kept.clone(), garbage_too)
                });
                for part in [Some(with), spoilt].into_iter().flatten() {
                    if hashes.insert(part.0.hash()) {
                        parts.push(part);
                    }
                }
            }
            if parts.len() > most {
                return None;
            }
        }
        found.extend(parts.into_iter().map(|(image, kept, garbage)| {
            let fate = if length == Length::AsKept && kept.len() == count {
                Fate::Whole
            } else {
                Fate::Torn {
                    length,
                    kept,
                    garbage,
                }
            };
            (fate, image)
        }));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kfs_core::machine::{DiskDone, DiskOp, FileName, SyncMode};

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
    fn truncate(path: &str, len: u64) -> DiskOp {
        let file = name(path);
        DiskOp::Truncate { file, len }
    }
    fn sync(path: &str) -> DiskOp {
        DiskOp::Sync { file: name(path) }
    }
    fn rename(from: &str, to: &str) -> DiskOp {
        let (from, to) = (name(from), name(to));
        DiskOp::Rename { from, to }
    }
    fn sync_dir(dir: &str) -> DiskOp {
        DiskOp::SyncDir { dir: name(dir) }
    }
    fn disk(ops: &[DiskOp]) -> DiskModel {
        let mut disk = DiskModel::new(1 << 30);
        for op in ops {
            assert_eq!(disk.apply(op), Ok(DiskDone::Done), "{op:?}");
        }
        disk
    }
    fn draws(seed: u64) -> Keyed {
        Keyed::new(seed, "images")
    }
    fn hashes(images: &CrashImages) -> BTreeSet<u64> {
        let all = images.images.iter().map(|image| image.disk.durable_hash());
        all.collect()
    }
    /// A disk of a few random operations.
    fn any_disk(seed: u64, ops: u64) -> DiskModel {
        let mut draws = Keyed::new(seed, "any disk");
        let mut disk = disk(&[
            DiskOp::MakeDir { dir: name("d") },
            create("a"),
            write("a", 0, 700, 1),
            sync("a"),
        ]);
        if draws.percent(70) {
            disk.apply(&sync_dir("")).unwrap();
        }
        let files = ["a", "b", "d/a"];
        for nth in 0..ops {
            let file = draws.pick(&files);
            let byte = 2 + nth.to_le_bytes()[0];
            let op = match draws.below(9) {
                0 | 1 => create(file),
                2..5 => write(file, draws.below(1_200), 1 + draws.index(700), byte),
                5 => truncate(file, draws.below(1_500)),
                6 => rename(file, draws.pick(&files)),
                7 => DiskOp::Remove { file: name(file) },
                _ => draws.pick(&[&sync(file), &sync_dir("d")]).clone(),
            };
            let _ = disk.apply(&op);
        }
        disk
    }
    fn sample(disk: &DiskModel, policy: Policy, draws: &mut Keyed) -> DiskModel {
        let mut choice = disk.sample_choice(policy, draws);
        // Garbage is any bytes; one kind of it is listed.
        choice.garbage = 0;
        let mut left = disk.clone();
        left.apply_choice(&choice).unwrap();
        left
    }

    #[test]
    fn what_is_listed_is_what_a_hundred_thousand_samples_reach_and_nothing_else() {
        let synced = [create("a"), write("a", 0, 600, 1), sync("a"), sync_dir("")];
        let pending: [&[DiskOp]; 4] = [
            &[create("b"), create("c"), write("a", 590, 20, 2)],
            &[write("a", 500, 800, 2), truncate("a", 700), create("b")],
            &[create("b"), write("b", 0, 300, 2), write("a", 100, 50, 3)],
            &[
                create("b"),
                write("b", 0, 9, 2),
                rename("b", "a"),
                write("a", 3, 9, 4),
            ],
        ];
        for (nth, pending) in pending.into_iter().enumerate() {
            let disk = disk(&[&synced, pending].concat());
            for policy in Policy::ALL {
                let listed = disk.crash_images(policy, 10_000, &mut draws(1));
                assert_eq!(listed.coverage, Coverage::Every);
                let mut draws = draws(2);
                // Of the other policies there are few ways.
                let samples = if policy == Policy::Torn {
                    100_000
                } else {
                    2_000
                };
                let sampled: BTreeSet<u64> = (0..samples)
                    .map(|_| sample(&disk, policy, &mut draws).durable_hash())
                    .collect();
                let (listed, what) = (hashes(&listed), format!("{policy:?}, disk {nth}"));
                assert!(listed.len() > 2, "{what}");
                assert_eq!(listed.len(), sampled.len(), "{what}");
                assert_eq!(listed, sampled, "{what}");
            }
        }
    }

    #[test]
    fn no_sample_of_any_disk_is_missing_from_a_list_that_says_it_has_all() {
        let mut complete = 0;
        for seed in 0..150 {
            let disk = any_disk(seed, 8);
            for policy in Policy::ALL {
                let listed = disk.crash_images(policy, 2_000, &mut draws(seed));
                if listed.coverage == Coverage::Sampled {
                    continue;
                }
                complete += 1;
                let all = hashes(&listed);
                assert_eq!(all.len(), listed.images.len(), "no two are alike");
                for nth in 0..60 {
                    let mut draws = draws(seed * 1_000 + nth);
                    let left = sample(&disk, policy, &mut draws);
                    assert!(
                        all.contains(&left.durable_hash()),
                        "{policy:?}, seed {seed}, sample {nth}"
                    );
                }
            }
        }
        assert!(complete > 400, "{complete} of 600");
    }

    #[test]
    fn a_choice_as_text_leaves_the_same_disk_again() {
        for seed in 0..40 {
            let disk = any_disk(seed, 12);
            for policy in Policy::ALL {
                for image in disk.crash_images(policy, 40, &mut draws(seed)).images {
                    let json = serde_json::to_string(&image.choice).unwrap();
                    let choice: Choice = serde_json::from_str(&json).unwrap();
                    assert_eq!(choice, image.choice, "{json}");
                    let mut again = disk.clone();
                    assert_eq!(again.apply_choice(&choice), Ok(image.crash), "{json}");
                    assert_eq!(again.durable_hash(), image.disk.durable_hash(), "{json}");
                    assert_eq!(again.live_hash(), again.durable_hash(), "{json}");
                }
            }
        }
    }

    #[test]
    fn one_page_written_often_has_few_images_and_they_are_all_listed() {
        let mut ops = vec![create("a"), sync_dir("")];
        ops.extend((0..20).map(|nth| write("a", 10 * nth, 10, 7)));
        let listed = disk(&ops).crash_images(Policy::Subset, 21, &mut draws(1));
        assert_eq!(listed.coverage, Coverage::Every);
        assert_eq!(listed.images.len(), 21);
        let too_many = disk(&ops).crash_images(Policy::Subset, 20, &mut draws(1));
        assert_eq!(too_many.coverage, Coverage::Sampled);
        assert_eq!(too_many.images.len(), 20);
    }

    #[test]
    fn of_too_many_images_the_ones_that_look_like_accidents_come_first() {
        let paths: Vec<String> = (0..12).map(|nth| format!("f{nth}")).collect();
        let mut ops: Vec<DiskOp> = paths.iter().map(|path| create(path)).collect();
        ops.push(sync_dir(""));
        ops.extend(paths.iter().map(|path| write(path, 0, 5_000, 7)));
        let disk = disk(&ops);
        for policy in [Policy::PrefixPerFile, Policy::Subset, Policy::Torn] {
            let listed = disk.crash_images(policy, 500, &mut draws(1));
            assert_eq!(listed.coverage, Coverage::Sampled);
            assert_eq!(listed.images.len(), 500, "the rest is sampled");
            assert_eq!(hashes(&listed).len(), 500, "no two are alike");
            let whole = |image: &CrashImage| {
                let whole = paths.iter().map(|path| image.disk.contents(path).unwrap());
                whole.filter(|bytes| *bytes == vec![7; 5_000]).count()
            };
            let counts: Vec<usize> = listed.images.iter().map(whole).collect();
            assert_eq!(counts[..2], [0, 12]);
            let times = |of: usize| counts.iter().filter(|count| **count == of).count();
            assert!(times(11) >= 12, "{policy:?}: all but any one");
            assert!(times(1) >= 12, "{policy:?}: any one alone");
            let again = disk.crash_images(policy, 500, &mut draws(1));
            assert_eq!(
                hashes(&again),
                hashes(&listed),
                "the same seed gives the same"
            );
        }
        let torn = disk.crash_images(Policy::Torn, 500, &mut draws(1));
        let torn = torn.images.iter().filter(|image| image.crash.torn == 1);
        assert!(torn.count() >= 12 * 6);
    }

    #[test]
    fn a_choice_for_another_disk_is_refused_and_does_nothing() {
        let mut one = disk(&[create("a")]);
        let other = disk(&[create("a"), create("b")]);
        let choice = other.sample_choice(Policy::Subset, &mut draws(1));
        let before = (one.live_hash(), one.pending());
        assert!(one.apply_choice(&choice).is_err());
        assert_eq!((one.live_hash(), one.pending()), before);
        for text in [
            "",
            "512",
            "512 x",
            "0 1 +",
            "512 1 ?",
            "512 1 ~3-1",
            "512 1 ~a",
        ] {
            assert!(text.parse::<Choice>().is_err(), "{text:?}");
        }
    }
}
