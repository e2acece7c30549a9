//! The connection below a link, in the simulator: whoever plugs a [`Wiring`] in sees every dial before it is made
//! and every connection before a link has it, and puts between the two what a simulated network cannot do.
//!
//! Per thread, as a simulation is. Compiled under `cfg(madsim)` only.
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What a link reads and writes.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// What is asked before a dial.
pub type Leave = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Stands between links and their connections.
pub trait Wiring: Send + Sync {
    /// A process of the current node listens here from now on; what its predecessor did not accept is gone.
    fn listens(&self, at: SocketAddr);
    /// The current node dials; the dial is made when this resolves.
    fn dials(&self, to: SocketAddr) -> Leave;
    /// A dial of the current node succeeded.
    fn dialed(&self, stream: TcpStream) -> Box<dyn Bytes>;
    /// The current node accepted a connection; per listener, in the order of the dials.
    fn accepted(&self, stream: TcpStream) -> Box<dyn Bytes>;
}

thread_local! {
    static WIRING: RefCell<Option<Arc<dyn Wiring>>> = const { RefCell::new(None) };
}

/// While this lives, links of this thread pass through what was plugged in.
#[must_use = "dropped, it pulls the plug"]
#[derive(Debug)]
pub struct Plugged(());

impl Drop for Plugged {
    fn drop(&mut self) {
        WIRING.set(None);
    }
}

/// Puts this between links and connections made from now on by this thread.
pub fn plug(wiring: Arc<dyn Wiring>) -> Plugged {
    WIRING.set(Some(wiring));
    Plugged(())
}

fn wiring() -> Option<Arc<dyn Wiring>> {
    WIRING.with_borrow(Clone::clone)
}

pub(super) type Stream = Box<dyn Bytes>;
pub(super) type ReadHalf = tokio::io::ReadHalf<Stream>;
pub(super) type WriteHalf = tokio::io::WriteHalf<Stream>;

pub(super) fn listens(at: SocketAddr) {
    if let Some(wiring) = wiring() {
        wiring.listens(at);
    }
}

pub(super) async fn connect(addr: SocketAddr) -> io::Result<Stream> {
    let Some(wiring) = wiring() else {
        return Ok(Box::new(TcpStream::connect(addr).await?));
    };
    wiring.dials(addr).await;
    Ok(wiring.dialed(TcpStream::connect(addr).await?))
}

pub(super) fn accepted(stream: TcpStream) -> Stream {
    match wiring() {
        Some(wiring) => wiring.accepted(stream),
        None => Box::new(stream),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a socket can fail here")]
pub(super) fn split(stream: Stream) -> io::Result<(ReadHalf, WriteHalf)> {
    Ok(tokio::io::split(stream))
}
