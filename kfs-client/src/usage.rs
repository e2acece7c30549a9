//! What a tree takes, directory by directory, as the rows of a scan come in.
use crate::connect::{Connection, at, unexpected};
use crate::error::{Error, Result};
use kfs_core::client::{Call, Event};
use kfs_core::ids::LogSeq;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Usage, UsagePage, UsageRow};
use std::collections::VecDeque;
use std::sync::Arc;

/// A scan that has given nothing yet is begun again so often when its connection is lost.
const BEGINS_MAX: u32 = 5;

/// The directories of a tree and what each takes, with all below it: what is in a directory before the directory
/// itself, the tree's root last. All of one instant, while the meta server goes on with everything else. What is kept
/// here is one page of rows, and the path of one directory.
#[derive(Debug)]
pub struct UsageScan {
    connection: Arc<Connection>,
    path: Vec<u8>,
    depth: u32,
    stage: Stage,
    rows: VecDeque<UsageRow>,
    /// The path of the directory that was entered last and not left, and where the names in it begin.
    here: Vec<u8>,
    names: Vec<usize>,
    at: LogSeq,
    /// Whether a row was given: from then on it cannot be begun again.
    given: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// To be begun, and how often it was.
    Begin(u32),
    /// There are more pages of this scan.
    Going(u64, u32),
    /// No page is left.
    End,
}

/// What one directory takes, or a file that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageOf {
    /// Its path.
    pub path: Vec<u8>,
    /// How far below what was asked for it is.
    pub depth: usize,
    /// With all below it.
    pub usage: Usage,
    /// The record of the log that the numbers of the whole scan are of.
    pub at: LogSeq,
}

impl UsageScan {
    pub(crate) fn new(connection: Arc<Connection>, path: &[u8], depth: u32) -> Self {
        Self {
            connection,
            path: path.to_vec(),
            depth,
            stage: Stage::Begin(0),
            rows: VecDeque::new(),
            here: path.to_vec(),
            names: Vec::new(),
            at: LogSeq(0),
            given: false,
        }
    }

    /// The next directory; `None` after the last one, or after an error.
    ///
    /// # Errors
    /// [`Status::NotFound`], `NotADirectory`, `BadName`; [`Status::BadRequest`] if the connection was lost after some of
    /// it was given, or rows were not taken for as long as a session may be idle; or that the meta server cannot be
    /// had.
    pub async fn next(&mut self) -> Option<Result<UsageOf>> {
        loop {
            match self.rows.pop_front() {
                Some(UsageRow::Enters { name }) => self.enter(&name),
                Some(UsageRow::Leaves(usage)) => {
                    self.given = true;
                    return Some(Ok(self.leave(usage)));
                }
                None if matches!(self.stage, Stage::End) => return None,
                None => {
                    if let Err(error) = self.turn().await {
                        self.stage = Stage::End;
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Only what was asked for, with all below it.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn total(mut self) -> Result<UsageOf> {
        let mut last = None;
        while let Some(row) = self.next().await {
            last = Some(row?);
        }
        last.ok_or_else(|| Error::new(Status::Protocol, "a scan ended without a row"))
    }

    fn enter(&mut self, name: &[u8]) {
        self.names.push(self.here.len());
        if self.here.last() != Some(&b'/') {
            self.here.push(b'/');
        }
        self.here.extend_from_slice(name);
    }

    fn leave(&mut self, usage: Usage) -> UsageOf {
        let of = UsageOf {
            path: self.here.clone(),
            depth: self.names.len(),
            usage,
            at: self.at,
        };
        if let Some(above) = self.names.pop() {
            self.here.truncate(above);
        }
        of
    }

    /// Gets the next page.
    async fn turn(&mut self) -> Result<()> {
        let (call, begun) = match self.stage {
            Stage::Begin(begun) => {
                let (at, depth) = (at(&self.path)?, self.depth);
                (Call::Usage { at, depth }, begun + 1)
            }
            Stage::Going(scan, begun) => (Call::UsageNext { scan }, begun),
            Stage::End => return Ok(()),
        };
        let goes_on = matches!(call, Call::UsageNext { .. });
        match self.connection.call_at(&self.path, call).await {
            Ok(Event::Usage(UsagePage {
                scan,
                at,
                rows,
                end,
            })) => {
                self.at = at;
                self.rows = rows.into();
                self.stage = if end {
                    Stage::End
                } else {
                    Stage::Going(scan, begun)
                };
                Ok(())
            }
            Ok(other) => Err(unexpected(&other)),
            // The scan is gone, and nobody has seen anything of it.
            Err(error)
                if goes_on
                    && error.status == Status::BadRequest
                    && !self.given
                    && begun < BEGINS_MAX =>
            {
                self.names.clear();
                self.here.clone_from(&self.path);
                self.stage = Stage::Begin(begun);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
