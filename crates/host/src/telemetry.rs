//! Structured logs to standard error: people read lines, machines read JSON. `RUST_LOG` chooses what; without it
//! `[log] level` does, which can change while the engine runs. The same events go into a file as lines of JSON, once
//! one is named ([`to_file`]): an audit asks for them, and standard error may be kept nowhere.

use std::sync::OnceLock;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::dynamic_filter_fn, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::{error::Error, log_file};
pub use log_file::{LogFile, to_file};
use terminal::{LogWriter, are_logs_coloured};

const DEFAULT: &str = "info";
/// One tells each migration that it considers, the others from where they have credentials.
const QUIET: &str = "refinery_core=warn,aws_config=warn,aws_runtime=warn,aws_smithy_runtime=warn";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

pub fn start(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{DEFAULT},{QUIET}")));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| LogWriter)
        .with_ansi(are_logs_coloured())
        .with_target(false);
    let kept = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(|| log_file::Writer)
        .with_ansi(false)
        .with_filter(dynamic_filter_fn(|_, _| log_file::is_open()));
    let registry = tracing_subscriber::registry().with(filter).with(kept);
    let started = if json {
        registry.with(lines.json()).try_init()
    } else {
        registry.with(lines.compact()).try_init()
    };
    // Only a second start within one process can fail, and then logs are on already.
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// What `[log] level` says from now on. `RUST_LOG` wins: who set it wants to see that.
pub fn set_level(level: Option<&str>) -> Result<(), Error> {
    let level = level.unwrap_or(DEFAULT);
    let filter =
        EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| Error::Argument {
            what: "log level",
            value: level.to_owned(),
            reason: error.to_string(),
        })?;
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_some() {
        return Ok(());
    }
    if let Some(handle) = FILTER.get() {
        let _ = handle.reload(filter);
    }
    Ok(())
}
