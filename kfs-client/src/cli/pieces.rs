//! Bytes between this machine's files and the library: read and written on threads of their own, so that a
//! disk or a pipe that is slow does not hold up the network, and the other way round.
//!
//! The threads are not the runtime's: one that waits for standard input must not keep the process.
use bytes::Bytes;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// What is read at once: a piece of the write protocol, so that none is made of two.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces read ahead of the sender. The sender keeps its own window besides.
const READ_AHEAD: usize = 4;
/// Answers received ahead of the writer.
const WRITE_BEHIND: usize = 2;

/// Reads a source to its end, a piece at a time.
pub(crate) fn read(mut source: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Bytes>> {
    let (filled, pieces) = mpsc::channel(READ_AHEAD);
    let pool = Arc::new(Pool::default());
    std::thread::spawn(move || {
        loop {
            let mut piece = Piece {
                buffer: pool.take(),
                len: 0,
                pool: Arc::clone(&pool),
            };
            let read = fill(&mut source, &mut piece.buffer).map(|len| {
                piece.len = len;
                Bytes::from_owner(piece)
            });
            let last = read
                .as_ref()
                .map_or(true, |piece| piece.len() < PIECE_BYTES);
            let empty = read.as_ref().is_ok_and(Bytes::is_empty);
            // Nobody takes pieces any more: the command has failed or was interrupted.
            if (!empty && filled.blocking_send(read).is_err()) || last {
                return;
            }
        }
    });
    pieces
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match source.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Buffers that have been used. A fresh one costs a page fault for every 4 KiB, which is more than reading
/// into it; so they go round. There are as many as were ever in flight at once.
#[derive(Debug, Default)]
struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    fn take(&self) -> Vec<u8> {
        let free = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        free.unwrap_or_else(|| vec![0; PIECE_BYTES])
    }
}

/// A buffer that goes back to its pool when the last `Bytes` of it is gone.
#[derive(Debug)]
struct Piece {
    buffer: Vec<u8>,
    len: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}

/// Writes what it is given, in order.
#[derive(Debug)]
pub(crate) struct Sink<W> {
    parts: mpsc::Sender<Vec<Bytes>>,
    ended: oneshot::Receiver<io::Result<W>>,
}

impl<W: Write + Send + 'static> Sink<W> {
    pub(crate) fn new(mut target: W) -> Self {
        let (parts, mut waiting) = mpsc::channel::<Vec<Bytes>>(WRITE_BEHIND);
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let mut written = Ok(());
            while let Some(parts) = waiting.blocking_recv() {
                written = parts.iter().try_for_each(|part| target.write_all(part));
                if written.is_err() {
                    break;
                }
            }
            // Nobody asks: the command has failed elsewhere.
            let _ = end.send(written.and_then(|()| target.flush()).map(|()| target));
        });
        Self { parts, ended }
    }

    /// Hands on what is to be written next. An error is said by [`Sink::end`].
    pub(crate) async fn write(&self, parts: Vec<Bytes>) -> Result<(), Closed> {
        self.parts.send(parts).await.map_err(|_| Closed)
    }

    /// Waits until all is written, and gives back what it was written to.
    pub(crate) async fn end(self) -> io::Result<W> {
        drop(self.parts);
        self.ended
            .await
            .expect("the writing thread ends by saying how")
    }
}

/// The sink takes no more, and [`Sink::end`] says why.
#[derive(Debug)]
pub(crate) struct Closed;

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    async fn all(mut pieces: mpsc::Receiver<io::Result<Bytes>>) -> Vec<Bytes> {
        let mut out = Vec::new();
        while let Some(piece) = pieces.recv().await {
            out.push(piece.unwrap());
        }
        out
    }

    #[test]
    fn every_length_comes_in_whole_pieces_and_one_short_one_at_most() {
        for len in [
            0,
            1,
            PIECE_BYTES - 1,
            PIECE_BYTES,
            PIECE_BYTES + 1,
            7 * PIECE_BYTES + 5,
        ] {
            let source: Vec<u8> = (0..len)
                .map(|i| u8::try_from(i / 7 % 251).unwrap())
                .collect();
            let pieces = runtime().block_on(all(read(io::Cursor::new(source.clone()))));
            assert!(
                pieces
                    .iter()
                    .rev()
                    .skip(1)
                    .all(|piece| piece.len() == PIECE_BYTES),
                "{len}"
            );
            assert!(pieces.iter().all(|piece| !piece.is_empty()), "{len}");
            assert_eq!(pieces.concat(), source, "{len}");
        }
    }

    #[test]
    fn an_error_in_the_middle_ends_the_pieces() {
        struct Bad(usize);
        impl Read for Bad {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 1 {
                    Err(io::Error::other("bad disk"))
                } else {
                    Ok(buffer.len())
                }
            }
        }
        runtime().block_on(async {
            let mut pieces = read(Bad(0));
            assert_eq!(pieces.recv().await.unwrap().unwrap().len(), PIECE_BYTES);
            assert!(pieces.recv().await.unwrap().is_err());
            assert!(pieces.recv().await.is_none());
        });
    }

    #[test]
    fn a_buffer_is_used_again_only_when_nobody_looks_at_it() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take();
        buffer[0] = 7;
        let bytes = Bytes::from_owner(Piece {
            buffer,
            len: 1,
            pool: Arc::clone(&pool),
        });
        let slice = bytes.slice(..1);
        drop(bytes);
        assert!(pool.free.lock().unwrap().is_empty());
        assert_eq!(&slice[..], [7]);
        drop(slice);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_sink_that_fails_says_so_at_its_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        runtime().block_on(async {
            let sink = Sink::new(Full);
            while sink.write(vec![Bytes::from_static(b"x")]).await.is_ok() {}
            assert_eq!(
                sink.end().await.err().unwrap().kind(),
                io::ErrorKind::StorageFull
            );
        });
    }
}
