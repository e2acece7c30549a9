//! A listener for pages that nobody can use up: few connections at a time, each with little time to ask.
use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take from one answer to the end of the next request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when the system has no more sockets to give.
const BREATH: Duration = Duration::from_millis(100);

/// Accepts connections within the limits above.
#[derive(Debug)]
pub(super) struct Guarded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Guarded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

impl Listener for Guarded {
    type Io = Timed;
    type Addr = SocketAddr;
    async fn accept(&mut self) -> (Timed, SocketAddr) {
        let room = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match TcpListener::accept(&self.listener).await {
                Ok((stream, addr)) => {
                    let patience = Box::pin(tokio::time::sleep(PATIENCE));
                    return (
                        Timed {
                            stream,
                            patience,
                            _room: room,
                        },
                        addr,
                    );
                }
                Err(_) => tokio::time::sleep(BREATH).await,
            }
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when it was waited for too long.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    patience: Pin<Box<Sleep>>,
    _room: OwnedSemaphorePermit,
}

impl Timed {
    /// Fails once the time is up.
    fn run_out<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Asked before the socket is: who sends a byte now and then is not waited for any longer.
        if self.patience.is_elapsed() {
            return self.run_out(cx);
        }
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.run_out(cx),
            read @ Poll::Ready(_) => read,
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.run_out(cx),
            written @ Poll::Ready(_) => {
                // An answer goes out: the time for the next request begins.
                self.patience.as_mut().reset(Instant::now() + PATIENCE);
                written
            }
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
