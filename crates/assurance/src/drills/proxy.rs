//! A proxy between the throw-away system and the S3 server of its repository, which misbehaves on request.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use super::{DrillError, faults::Fault};

const OPEN: u8 = 0;
const ERRORS: u8 = 1;
const CUTS: u8 = 2;
const SLOW: u8 = 3;
const CLOSED: u8 = 4;

/// A cut connection has carried at most so much.
const CUT_AFTER_BYTES: usize = 96 << 10;
/// About 300 KB a second and connection.
const SLOW_BYTES: usize = 16 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 64 << 10;
const BUSY: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\ncontent-length: 46\r\nconnection: close\r\n\r\n\
    <Error><Code>SlowDown</Code><Message/></Error>";

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// To `server`, a host and port. Lives as long as the process.
    ///
    /// # Errors
    /// When no port can be had on loopback.
    pub fn to(server: &str) -> Result<Self, DrillError> {
        let listen = || {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) =
            listen().map_err(DrillError::file("cannot listen for", server))?;
        let mode = Arc::new(AtomicU8::new(OPEN));
        let (shared, server) = (Arc::clone(&mode), server.to_owned());
        thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let (mode, server) = (Arc::clone(&shared), server.clone());
                thread::spawn(move || drop(serve(client, number, &server, &mode)));
            }
        });
        Ok(Self { address, mode })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn begin(&self, fault: Fault) {
        let mode = match fault {
            Fault::StoreErrors => ERRORS,
            Fault::StoreCuts => CUTS,
            Fault::StoreSlow => SLOW,
            Fault::RepositoryAway => CLOSED,
            Fault::Kills => OPEN,
        };
        self.mode.store(mode, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.mode.store(OPEN, Ordering::SeqCst);
    }
}

/// With errors every other connection is answered 503 and the rest are cut soon, so that none lives for ever on an old
/// one.
fn serve(
    mut client: TcpStream,
    number: usize,
    server: &str,
    mode: &Arc<AtomicU8>,
) -> std::io::Result<()> {
    match mode.load(Ordering::SeqCst) {
        CLOSED => return client.shutdown(Shutdown::Both),
        ERRORS if number.is_multiple_of(2) => return busy(&mut client),
        _ => {}
    }
    let server = TcpStream::connect(server)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let shared = Arc::clone(mode);
    thread::spawn(move || carry(from, to, number, &shared));
    carry(server, client, number, mode);
    Ok(())
}

fn busy(client: &mut TcpStream) -> std::io::Result<()> {
    // The request's head is read first: an answer before it would look like a broken server.
    let mut head = vec![0; HEAD_BYTES_MAX];
    let read = client.read(&mut head)?;
    if read > 0 {
        client.write_all(BUSY)?;
    }
    client.shutdown(Shutdown::Write)?;
    // What still comes is taken, so that the answer is not lost to a reset.
    while client.read(&mut head)? > 0 {}
    Ok(())
}

/// Until one side ends, or the mode cuts it.
fn carry(mut from: TcpStream, mut to: TcpStream, number: usize, mode: &AtomicU8) {
    let began_in = mode.load(Ordering::SeqCst);
    let mut left = CUT_AFTER_BYTES - (number % 5) * (CUT_AFTER_BYTES / 6);
    let mut buffer = [0; SLOW_BYTES];
    while let Ok(read) = from.read(&mut buffer) {
        let now = mode.load(Ordering::SeqCst);
        if now == SLOW {
            thread::sleep(SLOW_PAUSE);
        }
        let is_cut = match now {
            ERRORS | CUTS => {
                left = left.saturating_sub(read);
                left == 0 || began_in != now
            }
            CLOSED => true,
            _ => false,
        };
        if read == 0 || is_cut || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
