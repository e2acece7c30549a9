//! The bytes of one file: pages that copies share until one of them is written to.
//!
//! So a clone costs a pointer per page, a range of zeros costs nothing, and the hash of a file after a small
//! change is that of one page. A file may also be made by a [`Recipe`]: then its bytes exist only while
//! somebody reads them, until the first change. It never knows which of its bytes are durable: see
//! [`model`](super::model).
use super::model::PAGE_BYTES;
use crate::keyed::mix;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// How the bytes of a file are made when somebody asks for them. Many files may share one maker.
#[derive(Clone)]
pub struct Recipe {
    /// What the maker is told.
    pub key: u64,
    /// Bytes that it makes of this key.
    pub len: usize,
    /// Gives the same bytes for the same key, always.
    pub maker: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>,
}

impl Recipe {
    fn make(&self) -> Vec<u8> {
        let bytes = (self.maker)(self.key);
        assert_eq!(bytes.len(), self.len, "a recipe makes what it promised");
        bytes
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recipe {} of {} bytes", self.key, self.len)
    }
}

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    len: usize,
    /// As many as `len` needs, but none while there is a recipe. Bytes of the last one past `len` are zero.
    pages: Vec<Option<Arc<Page>>>,
    recipe: Option<Recipe>,
    hash: OnceLock<u64>,
}

/// A page that is not all zeros, or once was not.
struct Page {
    bytes: [u8; PAGE_BYTES],
    hash: OnceLock<u64>,
}

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

impl Image {
    pub(super) fn made_by(recipe: Recipe) -> Self {
        Self {
            len: recipe.len,
            recipe: Some(recipe),
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes of this range, as far as there are any.
    pub(super) fn read(&self, range: Range<usize>) -> Bytes {
        let to = range.end.min(self.len);
        let from = range.start.min(to);
        if from == to {
            return Bytes::new();
        }
        if let Some(recipe) = &self.recipe {
            return Bytes::from(recipe.make()).slice(from..to);
        }
        let mut bytes = Vec::with_capacity(to - from);
        for (page, part) in parts(from..to) {
            bytes.extend_from_slice(&self.page(page)[part]);
        }
        Bytes::from(bytes)
    }

    /// Writes from `offset` on; what is between the end and there becomes zeros.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.grow(offset + data.len());
        self.change();
        let mut rest = data;
        for (page, part) in parts(offset..offset + data.len()) {
            let (now, later) = rest.split_at(part.len());
            rest = later;
            let slot = &mut self.pages[page];
            let zeros = now == &ZEROS[..now.len()];
            if zeros && (slot.is_none() || now.len() == PAGE_BYTES) {
                *slot = None;
            } else {
                Page::of(slot)[part].copy_from_slice(now);
            }
        }
    }

    /// Cuts it, or lengthens it with zeros.
    pub(super) fn set_len(&mut self, len: usize) {
        if len == self.len {
            return;
        }
        self.change();
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
        let last = len % PAGE_BYTES;
        if len < self.len
            && last > 0
            && let Some(slot @ Some(_)) = self.pages.last_mut()
        {
            Page::of(slot)[last..].fill(0);
        }
        self.len = len;
    }

    /// Lengthens it with zeros if it is shorter.
    pub(super) fn grow(&mut self, len: usize) {
        if len > self.len {
            self.set_len(len);
        }
    }

    /// Makes a range as it is in another, which must reach that far; whole pages are shared.
    pub(super) fn copy(&mut self, from: &Self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        assert!(range.end <= from.len, "copied is what there is");
        self.grow(range.end);
        self.change();
        let both_end = range.end == self.len && range.end == from.len;
        for (page, part) in parts(range) {
            let whole = part.start == 0 && (part.end == PAGE_BYTES || both_end);
            if whole && from.recipe.is_none() {
                self.pages[page].clone_from(&from.pages[page]);
            } else {
                let at = page * PAGE_BYTES;
                let bytes = from.read(at + part.start..at + part.end);
                Page::of(&mut self.pages[page])[part].copy_from_slice(&bytes);
            }
        }
    }

    /// Changes bytes in place. The range must be within the file.
    pub(super) fn edit(&mut self, range: Range<usize>, edit: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(range.clone()).to_vec();
        assert_eq!(bytes.len(), range.len(), "edited is what there is");
        edit(&mut bytes);
        self.write(range.start, &bytes);
    }

    /// Of length and bytes; of a large file cheap after a small change.
    pub(super) fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            if let Some(recipe) = &self.recipe {
                let mut made = Self::default();
                made.write(0, &recipe.make());
                return made.hash();
            }
            let len = mix(self.len as u64);
            let pages = self.pages.iter().map(|page| match page {
                Some(page) => *page.hash.get_or_init(|| hash_of(&page.bytes)),
                None => hash_of_zeros(),
            });
            pages.fold(len, |hash, page| mix(hash ^ page))
        })
    }

    fn page(&self, nth: usize) -> &[u8; PAGE_BYTES] {
        self.pages[nth].as_ref().map_or(&ZEROS, |page| &page.bytes)
    }

    /// Called before a change: its bytes must be there, and its hash will be another.
    fn change(&mut self) {
        self.hash = OnceLock::new();
        if let Some(recipe) = self.recipe.take() {
            self.pages = vec![None; self.len.div_ceil(PAGE_BYTES)];
            self.write(0, &recipe.make());
        }
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, two): (&Option<Arc<Page>>, &Option<Arc<Page>>)| match (one, two) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two) || one.bytes == two.bytes,
            (Some(one), None) | (None, Some(one)) => one.bytes == ZEROS,
            (None, None) => true,
        };
        if self.len != other.len {
            return false;
        }
        if self.recipe.is_some() || other.recipe.is_some() {
            return self.hash() == other.hash();
        }
        self.pages.iter().zip(&other.pages).all(same)
    }
}

impl Page {
    /// The bytes of a slot, to be changed.
    fn of(slot: &mut Option<Arc<Self>>) -> &mut [u8; PAGE_BYTES] {
        let empty = || {
            Arc::new(Self {
                bytes: ZEROS,
                hash: OnceLock::new(),
            })
        };
        let page = Arc::make_mut(slot.get_or_insert_with(empty));
        page.hash = OnceLock::new();
        &mut page.bytes
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes,
            hash: OnceLock::new(),
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:x}", hash_of(&self.bytes))
    }
}

/// The pages of a range of a file, and which part of each.
fn parts(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
    pages.map(move |page| {
        let at = page * PAGE_BYTES;
        let from = range.start.max(at) - at;
        let to = range.end.min(at + PAGE_BYTES) - at;
        (page, from..to)
    })
}

/// Spreads every bit of every word, in four lanes so that the processor multiplies side by side. No defence
/// against an adversary: nobody here is one.
fn hash_of(page: &[u8; PAGE_BYTES]) -> u64 {
    let mut lanes = [1_u64, 2, 3, 4];
    for words in page.chunks_exact(32) {
        for (lane, word) in lanes.iter_mut().zip(words.chunks_exact(8)) {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes are a word"));
            *lane = (*lane ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }
    lanes.into_iter().fold(0, |hash, lane| mix(hash ^ lane))
}

fn hash_of_zeros() -> u64 {
    static HASH: OnceLock<u64> = OnceLock::new();
    *HASH.get_or_init(|| hash_of(&ZEROS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Keyed;

    fn same(image: &Image, bytes: &[u8], what: &str) {
        assert_eq!(image.len(), bytes.len(), "{what}");
        assert_eq!(image.read(0..usize::MAX), bytes, "{what}");
        let mut fresh = Image::default();
        fresh.write(0, bytes);
        assert_eq!(
            image.hash(),
            fresh.hash(),
            "{what}: the hash is of the bytes"
        );
        assert!(*image == fresh, "{what}");
    }

    #[test]
    fn pages_say_what_a_plain_vector_says_and_copies_never_change_one_another() {
        for seed in 0..40 {
            let mut draws = Keyed::new(seed, "image");
            let mut all = vec![(Image::default(), Vec::<u8>::new())];
            for nth in 0..120 {
                let which = draws.index(all.len());
                if all.len() < 4 && draws.percent(20) {
                    all.push(all[which].clone());
                }
                let (at, len) = (draws.index(20_000), draws.index(9_000));
                let byte = draws.pick(&[0, draws.clone().bits().to_le_bytes()[0]]);
                let other = all[draws.index(all.len())].clone();
                let (image, bytes) = &mut all[which];
                match draws.below(5) {
                    0 => {
                        image.set_len(at);
                        bytes.resize(at, 0);
                    }
                    1 if !other.1.is_empty() => {
                        let to = 1 + at % other.1.len();
                        let from = to.saturating_sub(len);
                        image.copy(&other.0, from..to);
                        bytes.resize(bytes.len().max(to), 0);
                        bytes[from..to].copy_from_slice(&other.1[from..to]);
                    }
                    2 if !bytes.is_empty() => {
                        let to = 1 + at % bytes.len();
                        let from = to.saturating_sub(len);
                        image.edit(from..to, |part| part.fill(byte));
                        bytes[from..to].fill(byte);
                    }
                    _ => {
                        image.write(at, &vec![byte; len]);
                        if len > 0 {
                            bytes.resize(bytes.len().max(at + len), 0);
                            bytes[at..at + len].fill(byte);
                        }
                    }
                }
                for (image, bytes) in &all {
                    same(image, bytes, &format!("seed {seed}, change {nth}"));
                }
            }
        }
    }

    #[test]
    fn a_recipe_is_kept_by_reads_and_hashes_and_cooked_by_the_first_change() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        let recipe = Recipe {
            key: 1,
            len: bytes.len(),
            maker: Arc::new(|_| (0..10_000_u32).map(|i| i.to_le_bytes()[1]).collect()),
        };
        let changes: [fn(&mut Image); 3] = [
            |image| image.write(9_999, &[7, 7]),
            |image| image.set_len(10),
            |image| image.edit(5_000..5_001, |bytes| bytes[0] = 9),
        ];
        for change in changes {
            let mut image = Image::made_by(recipe.clone());
            same(&image, &bytes, "untouched");
            assert!(image.recipe.is_some() && image.pages.is_empty());
            let mut plain = Image::default();
            plain.copy(&image, 0..bytes.len());
            same(&plain, &bytes, "copied");
            change(&mut image);
            change(&mut plain);
            assert!(image.recipe.is_none() && image == plain);
        }
    }

    #[test]
    fn zeros_take_no_memory() {
        let mut image = Image::default();
        image.write(0, &[0; 64 << 10]);
        image.write(100, &[1]);
        image.write(100, &[0]);
        image.write(8_192, &[7; 8_192]);
        image.write(8_192, &[0; 4_096]);
        let held = image.pages.iter().flatten().count();
        assert_eq!(held, 2, "the one that was written to, and the sevens");
    }
}
