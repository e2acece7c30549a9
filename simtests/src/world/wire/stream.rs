//! One end of a connection, as a link has it: all that passes is asked of the wire first.
use super::Wire;
use super::conn::{At, Flush, Leaves, Read, Write};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) struct Stream {
    inner: TcpStream,
    wire: Wire,
    at: At,
}

impl Stream {
    pub(super) fn new(inner: TcpStream, wire: Wire, at: At) -> Self {
        Self { inner, wire, at }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.wire.lock().dropped(self.at);
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = this.wire.lock().read(this.at, buf.remaining(), cx);
        let most = match read {
            Read::Fails => return Poll::Ready(Err(reset())),
            Read::Waits => return Poll::Pending,
            Read::Silent => {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                // Nobody tells this end that the other one is gone.
                let end = buf.filled().len() == before;
                return if end {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
            Read::Most(most) => most,
        };
        if most >= buf.remaining() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let mut bytes = vec![0; most];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = this.wire.lock().write(this.at, buf, cx);
        let (bytes, leaves) = match write {
            Write::Fails => return Poll::Ready(Err(reset())),
            Write::Waits => return Poll::Pending,
            Write::Swallowed(len) => return Poll::Ready(Ok(len)),
            Write::Passes { bytes, leaves } => (bytes, leaves),
        };
        let inner = Pin::new(&mut this.inner);
        let len = ready!(inner.poll_write(cx, &bytes))?;
        assert_eq!(len, bytes.len(), "the simulated socket takes everything");
        if leaves == Leaves::AtOnce {
            ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        }
        Poll::Ready(Ok(len))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flush = this.wire.lock().flush(this.at, cx);
        match flush {
            Flush::Fails => Poll::Ready(Err(reset())),
            Flush::Waits => Poll::Pending,
            Flush::Swallowed => Poll::Ready(Ok(())),
            Flush::Passes => Pin::new(&mut this.inner).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
