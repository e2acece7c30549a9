//! The connection below a link: a socket. The simulator puts [`super::seam`] in the place of this file.
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

pub(super) type Stream = TcpStream;
pub(super) type ReadHalf = tokio::net::tcp::OwnedReadHalf;
pub(super) type WriteHalf = tokio::net::tcp::OwnedWriteHalf;

pub(super) async fn connect(addr: SocketAddr) -> io::Result<Stream> {
    TcpStream::connect(addr).await
}

pub(super) fn accepted(stream: TcpStream) -> Stream {
    stream
}

/// Small frames leave at once, and each half has a task of its own.
pub(super) fn split(stream: Stream) -> io::Result<(ReadHalf, WriteHalf)> {
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}
