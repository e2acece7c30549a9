//! Listing a directory, a page at a time.
use crate::connect::{Connection, at, unexpected};
use crate::error::Result;
use kfs_core::client::{Call, Event};
use kfs_core::wire::client_meta::Entry;
use std::collections::VecDeque;
use std::sync::Arc;

/// The entries of a directory, in byte order of their names. One that is there throughout is given exactly
/// once; one that comes or goes meanwhile, at most once.
#[derive(Debug)]
pub struct Directory {
    connection: Arc<Connection>,
    path: Vec<u8>,
    after: Vec<u8>,
    page: VecDeque<Entry>,
    end: bool,
}

impl Directory {
    pub(crate) fn new(connection: Arc<Connection>, path: &[u8]) -> Self {
        Self {
            connection,
            path: path.to_vec(),
            after: Vec::new(),
            page: VecDeque::new(),
            end: false,
        }
    }

    /// The next entry; `None` after the last one, or after an error.
    ///
    /// # Errors
    /// Of an entry: [`kfs_core::wire::Status::NotFound`], `NotADirectory`, `BadName`, or that the meta server
    /// cannot be had.
    pub async fn next(&mut self) -> Option<Result<Entry>> {
        while self.page.is_empty() && !self.end {
            if let Err(error) = self.turn().await {
                self.end = true;
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }

    /// Gets the next page.
    async fn turn(&mut self) -> Result<()> {
        let call = Call::List {
            at: at(&self.path)?,
            after: self.after.clone(),
        };
        match self.connection.call_at(&self.path, call).await? {
            Event::Entries { entries, end } => {
                // A page without entries is the last one, whatever it says: or this would not end.
                self.end = end || entries.is_empty();
                if let Some(last) = entries.last() {
                    self.after.clone_from(&last.name);
                }
                self.page = entries.into();
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}
