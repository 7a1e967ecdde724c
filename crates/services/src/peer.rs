//! The other end of a connection: whether anybody is still there while an answer is being worked on. HTTP/1.1 itself does not tell:
//! a client that has closed its side of the connection may still be reading, and hyper looks no further until it has an answer.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How soon it is noticed that a client is gone.
const LOOK: Duration = Duration::from_millis(250);
/// A client that has closed its side is waited for this long: it may have said all it wants to say (`nc -N`), and still listen.
pub(crate) const CLOSED_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) const HEADERS_MAX: usize = 100;
/// The whole head of a request; a longer one is answered 431.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Who is at the other end of the connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Handed on with every request of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<TcpStream>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerState {
    There,
    /// It sends nothing more.
    Closed,
    /// The connection is broken.
    Gone,
}

impl Connection {
    fn look(&self) -> PeerState {
        let mut polled = [PollFd::new(&*self.0, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Interrupted: the next look tells.
        if poll(&mut polled, Some(&now)).is_err() {
            return PeerState::There;
        }
        let seen = polled[0].revents();
        if seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            PeerState::Gone
        } else if seen.contains(PollFlags::RDHUP) {
            PeerState::Closed
        } else {
            PeerState::There
        }
    }

    /// Returns when nobody waits for the answer any more.
    pub(crate) async fn gone(&self) {
        let mut closed_at = None;
        loop {
            match self.look() {
                PeerState::There => {}
                PeerState::Closed => {
                    let since = *closed_at.get_or_insert_with(Instant::now);
                    if since.elapsed() >= CLOSED_TIMEOUT {
                        return;
                    }
                }
                PeerState::Gone => return,
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A TCP connection that others may look at while it is used.
#[derive(Debug)]
pub(crate) struct WatchedStream(Arc<TcpStream>);

impl WatchedStream {
    pub(crate) fn new(stream: TcpStream) -> (WatchedStream, Connection) {
        let stream = Arc::new(stream);
        (WatchedStream(Arc::clone(&stream)), Connection(stream))
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl WatchedStream {
    fn poll_writing(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// There is no buffer of ours.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    async fn until(peer: &Connection, expected: PeerState) {
        let reached = async || (peer.look() == expected).then_some(());
        testkit::eventually_async("the peer is seen as it is", reached).await;
    }

    #[tokio::test]
    async fn it_is_seen_whether_a_client_closed_its_side_or_is_gone() {
        let (mut client, server) = pair().await;
        let (mut watched, peer) = WatchedStream::new(server);
        assert_eq!(peer.look(), PeerState::There);
        client.write_all(b"ask").await.unwrap();
        let mut read = [0; 3];
        watched.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ask");
        client.shutdown().await.unwrap();
        until(&peer, PeerState::Closed).await;
        // It still listens.
        watched.write_all(b"answer").await.unwrap();
        let mut read = [0; 6];
        client.read_exact(&mut read).await.unwrap();
        // Now it does not: what is sent to it comes back refused.
        drop(client);
        let _ = watched.write_all(b"more").await;
        until(&peer, PeerState::Gone).await;
        peer.gone().await;
    }
}
