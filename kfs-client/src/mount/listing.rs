//! A directory that is being read through the mount: pages of the library's listing, and places in them that the
//! kernel may come back to.
//!
//! Entries 0 and 1 are the directory itself and the one it stands in. The place behind entry n is n + 1. One page is
//! kept; who goes back behind its beginning has the listing begun again.
use crate::by_id::by_id;
use crate::connect::Kfs;
use crate::error::Result;
use kfs_core::ids::FileId;
use kfs_core::wire::client_meta::Entry;

/// Entries that are not in the cluster's listing.
pub(super) const DOTS: u64 = 2;

/// A directory that is open.
#[derive(Debug)]
pub(super) struct Listing {
    kfs: Kfs,
    dir: FileId,
    /// Of the first entry of the page, without the dots.
    first: u64,
    page: Vec<Entry>,
    /// Whether nothing comes behind the page.
    is_last: bool,
}

impl Listing {
    pub(super) const fn new(kfs: Kfs, dir: FileId) -> Self {
        Self {
            kfs,
            dir,
            first: 0,
            page: Vec::new(),
            is_last: false,
        }
    }

    /// The entries from this one on (0 is the first that is none of the dots), as many as are at hand; empty at the end.
    /// One that is there throughout is given once.
    ///
    /// # Errors
    /// As a page of a listing.
    pub(super) async fn from(&mut self, nth: u64) -> Result<&[Entry]> {
        if nth == 0 || nth < self.first {
            // From the start: what is there by now is given.
            (self.first, self.is_last) = (0, false);
            self.page.clear();
        }
        while nth >= self.first + self.page.len() as u64 && !self.is_last {
            let after = self.page.last().map(|entry| entry.name.clone());
            let after = after.unwrap_or_default();
            let (page, is_last) = self.kfs.list_page_at(by_id(self.dir), after).await?;
            self.first += self.page.len() as u64;
            (self.page, self.is_last) = (page, is_last);
        }
        let within = usize::try_from(nth - self.first).unwrap_or(usize::MAX);
        Ok(self.page.get(within..).unwrap_or_default())
    }
}
