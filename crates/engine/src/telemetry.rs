//! Structured logs to standard error: people read lines, machines read JSON; `RUST_LOG` chooses what.

use tracing_subscriber::EnvFilter;

pub(crate) fn start(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,refinery_core=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = if json {
        builder.json().try_init()
    } else {
        builder.compact().try_init()
    };
    // Only a second start within one process can fail, and then logs are on already.
    drop(started);
}
