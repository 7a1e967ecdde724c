//! TLS on a socket: requested before anything else is sent, and shared by the reader and the thread that confirms.

use super::socket::{Socket, closed};
use super::{Address, ConnectOptions, WireError};
use bytes::BytesMut;
use connection::{Tls, TlsError};
use rustix::net::{RecvFlags, recv};
use rustls::ClientConnection;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// SSLRequest of the protocol: its length, and 1234, 5679.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Read from the socket at once: several records.
const SEALED_BYTES: usize = 128 << 10;

/// A socket as the options demand it, and what SCRAM can be bound to. Plain text only where it is allowed.
pub(super) fn connect(
    options: &ConnectOptions,
    address: &Address,
) -> Result<(Socket, Option<Vec<u8>>), WireError> {
    let target = || options.target();
    let tls = options.tls().map_err(|source| WireError::Tls {
        target: target(),
        source: Box::new(source),
    })?;
    let connect = |source| WireError::Connect {
        target: target(),
        source,
    };
    let socket = Socket::connect(options, address).map_err(connect)?;
    match (tls, socket) {
        (Some(tls), Socket::Tcp(stream)) => {
            // A server that says nothing must not hold us.
            let timeout = Some(options.timeout);
            stream.set_read_timeout(timeout).map_err(connect)?;
            let (socket, binding) = begin(&tls, address, stream, options)?;
            if let Socket::Tcp(stream) = &socket {
                stream.set_read_timeout(None).map_err(connect)?;
            }
            Ok((socket, binding))
        }
        (_, socket) => Ok((socket, None)),
    }
}

fn begin(
    tls: &Tls,
    address: &Address,
    mut stream: TcpStream,
    options: &ConnectOptions,
) -> Result<(Socket, Option<Vec<u8>>), WireError> {
    let refused = |source| WireError::Tls {
        target: options.target(),
        source: Box::new(source),
    };
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::Timeout {
            what: "the request for TLS".into(),
            seconds: options.timeout.as_secs(),
        },
        _ => WireError::Lost(error),
    };
    if !tls.direct {
        stream.write_all(&REQUEST).map_err(lost)?;
        let mut answer = [0];
        stream.read_exact(&mut answer).map_err(lost)?;
        match answer[0] {
            b'S' => {}
            b'N' if tls.mode.demands() => {
                return Err(refused(TlsError::NotOffered(tls.mode.name())));
            }
            b'N' => return Ok((Socket::Tcp(stream), None)),
            _ => return Err(refused(TlsError::Answer)),
        }
    }
    let handshake = |error: io::Error| WireError::Handshake {
        target: options.target(),
        reason: error.to_string(),
    };
    let name = tls.server_name(address).map_err(refused)?;
    let mut session = ClientConnection::new(Arc::clone(&tls.config), name)
        .map_err(|error| handshake(io::Error::other(error)))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(handshake)?;
    }
    let binding = tls.binding(session.peer_certificates()).map_err(refused)?;
    stream.set_read_timeout(None).map_err(lost)?;
    let secured = TlsSocket {
        stream,
        session: Mutex::new(Session {
            tls: session,
            sealed: vec![0; SEALED_BYTES],
        }),
    };
    Ok((Socket::Secured(Arc::new(secured)), binding))
}

/// One end of a TLS session. The lock is held while bytes are opened or sealed, never while anybody waits for the
/// server to say more.
#[derive(Debug)]
pub(crate) struct TlsSocket {
    stream: TcpStream,
    session: Mutex<Session>,
}

struct Session {
    tls: ClientConnection,
    sealed: Vec<u8>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl TlsSocket {
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was opened already, by the handshake for one; false when that is nothing.
    pub(super) fn take_opened(&self, buffer: &mut BytesMut) -> io::Result<bool> {
        take_opened(&mut self.lock().tls, buffer)
    }

    /// Reads once from a socket that is ready, and opens all that came. Nothing may come of it: half a record, or a
    /// word between the ends.
    pub(super) fn read_into(&self, buffer: &mut BytesMut) -> io::Result<()> {
        let mut session = self.lock();
        let Session { tls, sealed } = &mut *session;
        let read = match recv(&self.stream, &mut sealed[..], RecvFlags::DONTWAIT) {
            Ok((_, read)) => read,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            return Err(closed());
        }
        let mut rest = &sealed[..read];
        while !rest.is_empty() {
            if tls.read_tls(&mut rest)? == 0 {
                return Err(closed());
            }
            if let Err(error) = take_opened(tls, buffer) {
                // The alert that says why.
                let _ = tls.write_tls(&mut &self.stream);
                return Err(error);
            }
        }
        self.flush(tls)
    }

    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let tls = &mut self.lock().tls;
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = tls.writer().write(rest)?;
            self.flush(tls)?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    fn flush(&self, tls: &mut ClientConnection) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(&mut &self.stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// False: nothing was there.
fn take_opened(tls: &mut ClientConnection, buffer: &mut BytesMut) -> io::Result<bool> {
    let state = tls
        .process_new_packets()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let opened = state.plaintext_bytes_to_read();
    if opened == 0 {
        return Ok(false);
    }
    let filled = buffer.len();
    buffer.resize(filled + opened, 0);
    tls.reader().read_exact(&mut buffer[filled..])?;
    Ok(true)
}
