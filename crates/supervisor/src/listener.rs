//! Where an engine listens: its public port, and its socket for commands.

use std::{
    net::{IpAddr, TcpListener},
    os::unix::net::UnixListener,
};

use host::{instance::Instance, sockets};
use operations::Error;

pub(crate) fn listen(bind: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind((bind, port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::from(host::Error::PortTaken { bind, port }),
        _ => Error::failed(format!("cannot listen on {bind}:{port}: {error}")),
    })?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("cannot use", "the listening socket"))?;
    Ok(listener)
}

pub(crate) fn control_listener(instance: &Instance) -> Result<UnixListener, Error> {
    let path = instance.control_socket();
    let listener = sockets::listen(&path, &instance.run())?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("cannot listen on", &path))?;
    Ok(listener)
}
