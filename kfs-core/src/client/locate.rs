//! Where the chunks of an open file are: what the meta server said, kept until it proves wrong.
//!
//! A cache per open file. Nothing here decides whom to read from, or when to ask again: see `read`.
use super::is_sound;
use crate::buggify::{self, Site};
use crate::ids::{ChunkId, FileId, Version};
use crate::limits::{Geometry, LOCATE_PAGE_MAX};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::rng::Rng;
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::Located;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// A file that is open for reading.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) file: FileId,
    /// Its path, for people.
    pub(super) name: String,
    /// As the log last said.
    pub(super) size: u64,
    /// Known once a location was asked for.
    pub(super) geometry: Option<Geometry>,
    known: BTreeMap<u64, Place>,
    /// Questions on their way: first chunk → how many.
    asking: BTreeMap<u64, u64>,
}

/// What is known of one chunk of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// There is none: zeros.
    Hole,
    /// These servers have it.
    At(Spot),
}

/// A chunk and its servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    pub(super) chunk: ChunkId,
    pub(super) version: Version,
    /// What the log has of it: the bytes that the file's size gives it, as far as they were ever written, and
    /// the last write that is synced.
    pub(super) log: Durable,
    /// In the order in which they are to be tried.
    pub(super) replicas: Vec<SocketAddr>,
    /// Replicas that cannot be read from now.
    pub(super) absent: u32,
}

/// A question for the meta server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Page {
    pub(super) first: u64,
    pub(super) count: u32,
}

impl Places {
    pub(super) fn new(file: FileId, name: String, size: u64) -> Self {
        Self {
            file,
            name,
            size,
            geometry: None,
            known: BTreeMap::new(),
            asking: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, index: u64) -> Option<&Place> {
        self.known.get(&index)
    }

    /// What to ask so that chunk `index` gets known; `None` if that is on its way.
    pub(super) fn page_for(&mut self, index: u64) -> Option<Page> {
        let (first, count) = self
            .asking
            .range(..=index)
            .next_back()
            .map_or((0, 0), |(first, count)| (*first, *count));
        if index - first < count {
            return None;
        }
        let mut count = if buggify::is(Site::LocatePageOfOne) {
            1
        } else {
            LOCATE_PAGE_MAX as u64
        };
        if let Some(geometry) = self.geometry {
            let (last, _) = geometry.chunk_at(self.size.saturating_sub(1));
            count = count.min(last.saturating_sub(index) + 1);
        }
        self.asking.insert(index, count);
        Some(Page {
            first: index,
            count: u32::try_from(count).expect("a page is small"),
        })
    }

    /// The question for this page ended without an answer.
    pub(super) fn unanswered(&mut self, first: u64) {
        self.asking.remove(&first);
    }

    /// Takes up the answer to the question for this page.
    ///
    /// # Errors
    /// If it cannot be; nothing is changed then.
    pub(super) fn answered(
        &mut self,
        page: Page,
        located: Located,
        rng: &mut Rng,
    ) -> Result<(), String> {
        self.asking.remove(&page.first);
        if !is_sound(located.geometry)
            || self.geometry.is_some_and(|known| known != located.geometry)
        {
            return Err(format!(
                "the meta server named impossible sizes: {:?}",
                located.geometry
            ));
        }
        let geometry = *self.geometry.insert(located.geometry);
        if located.size > self.size {
            probe::hit(Probe::SizeGrown);
            self.size = located.size;
            let size = self.size;
            // A chunk that the longer size gives more bytes than before is asked for anew.
            self.known.retain(|index, place| match place {
                Place::Hole => false,
                Place::At(_) if planted::is(Bug::GrownPlacesKept) => true,
                Place::At(spot) => spot.log.len == geometry.chunk_len(size, *index),
            });
        }
        if located.size < self.size {
            probe::hit(Probe::SizeShrunk);
            self.size = located.size;
            // It was cut: what is known of its chunks is of before.
            self.known.clear();
        }
        // Whether `count` counts indexes or chunks, every chunk below this end is in the answer.
        let asked = u64::from(page.count) + u64::from(planted::is(Bug::HolePastPage));
        for index in page.first..page.first.saturating_add(asked) {
            self.known.insert(index, Place::Hole);
        }
        for places in located.chunks {
            let mut replicas: Vec<SocketAddr> =
                places.replicas.iter().map(|place| place.addr).collect();
            rng.shuffle(&mut replicas);
            let spot = Spot {
                chunk: places.chunk,
                version: places.version,
                log: Durable {
                    len: places
                        .log
                        .len
                        .min(geometry.chunk_len(self.size, places.index)),
                    ..places.log
                },
                replicas,
                absent: places.absent,
            };
            self.known.insert(places.index, Place::At(spot));
        }
        Ok(())
    }

    /// What is known of this chunk did not help: it is asked for anew.
    pub(super) fn forget(&mut self, index: u64) {
        self.known.remove(&index);
    }

    /// This server failed a read of this chunk: it is tried last from now on.
    pub(super) fn put_last(&mut self, index: u64, addr: SocketAddr) {
        if let Some(Place::At(spot)) = self.known.get_mut(&index)
            && let Some(at) = spot.replicas.iter().position(|replica| *replica == addr)
        {
            let failed = spot.replicas.remove(at);
            spot.replicas.push(failed);
        }
    }
}
