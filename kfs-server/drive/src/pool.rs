//! Reused, page-aligned buffers for bulk data: from the socket to the disk and back without a copy, and
//! without the page faults of fresh memory. Aligned, so that a disk may bypass the page cache.
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every buffer, in bytes: what direct I/O asks for.
pub const ALIGN: usize = 4_096;
/// Requests below this many bytes get plain memory: reuse does not pay for them.
const POOLED_MIN: usize = 32 << 10;

/// Buffers of one size, kept for reuse up to a bound.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Free>);

#[derive(Debug)]
struct Free {
    buffer_bytes: usize,
    keep_max: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// A buffer to fill, then to [`Buffer::freeze`].
#[derive(Debug)]
pub struct Buffer {
    raw: Vec<u8>,
    skew: usize,
    len: usize,
    home: Option<Arc<Free>>,
}

impl Pool {
    /// A pool of buffers of up to `buffer_bytes`, that keeps `keep_max` unused ones.
    #[must_use]
    pub fn new(buffer_bytes: usize, keep_max: usize) -> Self {
        Self(Arc::new(Free {
            buffer_bytes,
            keep_max,
            buffers: Mutex::new(Vec::new()),
        }))
    }

    /// A buffer of `len` bytes of any content.
    #[must_use]
    pub fn take(&self, len: usize) -> Buffer {
        if len < POOLED_MIN || len > self.0.buffer_bytes {
            return Buffer {
                raw: vec![0; len],
                skew: 0,
                len,
                home: None,
            };
        }
        let reused = self
            .0
            .buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let raw = reused.unwrap_or_else(|| vec![0; self.0.buffer_bytes + ALIGN]);
        let skew = raw.as_ptr().align_offset(ALIGN);
        assert!(skew < ALIGN, "bytes can be aligned");
        Buffer {
            raw,
            skew,
            len,
            home: Some(Arc::clone(&self.0)),
        }
    }
}

impl Buffer {
    /// Shortens it.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
    /// As shared bytes; the memory goes back to its pool when the last reference is dropped.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        if self.home.is_some() {
            Bytes::from_owner(self)
        } else {
            Bytes::from(self.into_plain())
        }
    }
    fn into_plain(mut self) -> Vec<u8> {
        let mut raw = std::mem::take(&mut self.raw);
        raw.truncate(self.len);
        raw
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.raw[self.skew..self.skew + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.raw[self.skew..self.skew + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut buffers = home.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if buffers.len() < home.keep_max {
                buffers.push(std::mem::take(&mut self.raw));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_aligned_and_come_back() {
        let pool = Pool::new(1 << 20, 2);
        let mut buffer = pool.take(100_000);
        buffer.as_mut().fill(7);
        let bytes = buffer.freeze();
        assert_eq!(bytes.as_ptr() as usize % ALIGN, 0);
        let address = bytes.as_ptr();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(&part[..], [7; 10]);
        drop(part);
        assert_eq!(pool.take(1 << 20).freeze().as_ptr(), address);
    }

    #[test]
    fn no_more_buffers_are_kept_than_allowed() {
        let pool = Pool::new(1 << 20, 1);
        let (one, two) = (pool.take(1 << 20), pool.take(1 << 20));
        drop((one, two));
        assert_eq!(pool.0.buffers.lock().unwrap().len(), 1);
    }
}
