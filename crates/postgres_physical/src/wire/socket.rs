//! Unix or TCP, plain or TLS, with one interface.

use super::secure::TlsSocket;
use super::{Address, ConnectOptions, Host};
use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Secured(Arc<TlsSocket>),
}

impl Socket {
    pub(crate) fn connect(options: &ConnectOptions, address: &Address) -> io::Result<Socket> {
        Ok(match address.dialled() {
            Host::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(options.timeout))?;
                Socket::Unix(stream)
            }
            Host::Tcp(host) => {
                let stream = connect_tcp(&host, address.port, options.timeout)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(options.timeout))?;
                Socket::Tcp(stream)
            }
        })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
            Socket::Secured(secured) => Socket::Secured(Arc::clone(secured)),
        })
    }

    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => (&*stream).write_all(bytes),
            Socket::Tcp(stream) => (&*stream).write_all(bytes),
            Socket::Secured(secured) => secured.write_all(bytes),
        }
    }

    /// Ends the conversation in both directions; a blocked read on another handle returns.
    pub(crate) fn shutdown(&self) {
        let _ = match self {
            Socket::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
            Socket::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
            Socket::Secured(secured) => secured.stream().shutdown(std::net::Shutdown::Both),
        };
    }

    /// Reads what is there; false when nothing came in time. The end of the stream is an error.
    pub(super) fn read_into(
        &self,
        buffer: &mut BytesMut,
        bytes_max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        if let Socket::Secured(secured) = self
            && secured.take_opened(buffer)?
        {
            return Ok(true);
        }
        if !self.wait_readable(timeout)? {
            return Ok(false);
        }
        if let Socket::Secured(secured) = self {
            return secured.read_into(buffer).map(|()| true);
        }
        let filled = buffer.len();
        let vacant = buffer.capacity() - filled;
        let room = if vacant >= 8 << 10 {
            vacant.min(bytes_max)
        } else {
            bytes_max
        };
        buffer.resize(filled + room, 0);
        let result = match self {
            Socket::Unix(stream) => (&*stream).read(&mut buffer[filled..]),
            Socket::Tcp(stream) => (&*stream).read(&mut buffer[filled..]),
            Socket::Secured(_) => Ok(0),
        };
        buffer.truncate(filled + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => Err(closed()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn wait_readable(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map(|p| Timespec {
            tv_sec: p.as_secs().min(1 << 31) as i64,
            tv_nsec: i64::from(p.subsec_nanos()),
        });
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Secured(secured) => secured.stream().as_fd(),
        }
    }
}

pub(super) fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the server closed the connection",
    )
}

fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
