//! What commands find a running engine by lies in a folder that may be deleted, and is made again. (PostgreSQL and Redis make their
//! sockets at their own starts only: they are started again.)

use tokio::runtime::Runtime;

use host::instance::{Instance, Running};
use operations::Error;

use crate::listener::control_listener;

/// True when something was not there any more.
pub(crate) fn keep_reachable(
    instance: &Instance,
    runtime: &Runtime,
    services: &mut services::Running,
    announced: Option<&Running>,
) -> Result<bool, Error> {
    let mut made = false;
    if !instance.control_socket().exists() {
        tracing::warn!("the socket for commands was deleted; making it again");
        instance.make_folders()?;
        let listener = control_listener(instance)?;
        let _inside = runtime.enter();
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(Error::file("cannot listen on", instance.control_socket()))?;
        services.serve_control(listener);
        made = true;
    }
    if let Some(running) = announced.filter(|_| instance.announced().is_none()) {
        tracing::warn!("the file that commands find the engine by was deleted; writing it again");
        instance.make_folders()?;
        instance.announce(running)?;
        made = true;
    }
    Ok(made)
}
