//! The calls of [`Kfs`] for who keeps ids: a file or directory by its id, or a name in a directory by the directory's.
//!
//! An id is never given a second time, and what it stands for may be renamed meanwhile, or have no name any more.
use crate::connect::{CreateOptions, Kfs, done, unexpected};
use crate::error::Result;
use crate::file::{Reader, Writer};
use kfs_core::client::{Call, Event};
use kfs_core::ids::FileId;
use kfs_core::wire::client_meta::{At, Attributes, Attrs, Entry, Ownership, Parents, RenameMode};
use std::sync::Arc;

/// The place of a file or directory by its id.
#[must_use]
pub const fn by_id(file: FileId) -> At {
    At {
        dir: file,
        path: Vec::new(),
    }
}

/// The place of a name in a directory.
#[must_use]
pub fn in_directory(dir: FileId, name: &[u8]) -> At {
    At {
        dir,
        path: name.to_vec(),
    }
}

impl Kfs {
    /// As [`Kfs::stat`].
    ///
    /// # Errors
    /// As [`Kfs::stat`].
    pub async fn stat_at(&self, at: At) -> Result<Attrs> {
        match self.connection().call(Call::Stat(at)).await? {
            Event::Attrs(attrs) => Ok(attrs),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Kfs::mkdir`], of one directory.
    ///
    /// # Errors
    /// As [`Kfs::mkdir`].
    pub async fn mkdir_at(&self, at: At, owner: Ownership) -> Result<()> {
        let parents = Parents::MustExist;
        done(
            self.connection()
                .call(Call::Mkdir { at, parents, owner })
                .await?,
        )
    }

    /// As [`Kfs::create`].
    ///
    /// # Errors
    /// As [`Kfs::create`].
    pub async fn create_at(&self, at: At, options: CreateOptions) -> Result<Writer> {
        let call = Call::Create {
            at,
            owner: options.owner,
            replication: options.replication,
            keep: options.keep,
        };
        match self.connection().call(call).await? {
            Event::Created {
                handle,
                file,
                replication,
            } => Ok(Writer::new(
                Arc::clone(self.connection()),
                handle,
                file,
                replication,
            )),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Kfs::append`]. A file that has no name any more is not found.
    ///
    /// # Errors
    /// As [`Kfs::append`].
    pub async fn append_at(&self, at: At) -> Result<Writer> {
        self.to_write(self.connection().call(Call::Append(at)).await?)
    }

    /// As [`Kfs::open`]. A file that has no name any more can be opened by its id for as long as somebody has it open.
    ///
    /// # Errors
    /// As [`Kfs::open`].
    pub async fn open_at(&self, at: At) -> Result<Reader> {
        match self.connection().call(Call::Open(at)).await? {
            Event::Opened { handle, attrs } => {
                Ok(Reader::new(Arc::clone(self.connection()), handle, attrs))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Kfs::rename`].
    ///
    /// # Errors
    /// As [`Kfs::rename`].
    pub async fn rename_at(&self, from: At, to: At, mode: RenameMode) -> Result<()> {
        done(
            self.connection()
                .call(Call::Rename { from, to, mode })
                .await?,
        )
    }

    /// As [`Kfs::remove`].
    ///
    /// # Errors
    /// As [`Kfs::remove`].
    pub async fn remove_at(&self, at: At) -> Result<()> {
        done(self.connection().call(Call::Remove(at)).await?)
    }

    /// As [`Kfs::rmdir`].
    ///
    /// # Errors
    /// As [`Kfs::rmdir`].
    pub async fn rmdir_at(&self, at: At) -> Result<()> {
        done(self.connection().call(Call::Rmdir(at)).await?)
    }

    /// As [`Kfs::set_attributes`].
    ///
    /// # Errors
    /// As [`Kfs::set_attributes`].
    pub async fn set_attributes_at(&self, at: At, to: Attributes) -> Result<()> {
        done(
            self.connection()
                .call(Call::SetAttributes { at, to })
                .await?,
        )
    }

    /// One page of a directory: the entries behind this name (empty: from the first), in byte order, and whether none
    /// is left. A page without entries is the last one.
    ///
    /// # Errors
    /// As [`crate::Directory::next`].
    pub async fn list_page_at(&self, at: At, after: Vec<u8>) -> Result<(Vec<Entry>, bool)> {
        match self.connection().call(Call::List { at, after }).await? {
            Event::Entries { entries, end } => {
                let end = end || entries.is_empty();
                Ok((entries, end))
            }
            other => Err(unexpected(&other)),
        }
    }
}
