//! What the services are given: where the parts are, and how they hear of each other.

use std::{net::TcpListener, sync::Arc};

use services::{
    AuditConfig, DatabaseConfig, Elsewhere, RecoveryFact, SampleRates, ServiceSet, ServicesConfig,
    Settings,
};

use super::supervisor::Supervisor;
use host::{
    database::{OWNER, SERVICE},
    log::LOG,
};

use operations::{Error, heads::Publisher};

pub(super) fn services_config(
    supervisor: &Supervisor,
    listener: TcpListener,
    control: std::os::unix::net::UnixListener,
    rates_file: Option<Vec<u8>>,
    recovery: Option<RecoveryFact>,
    publisher: Arc<Publisher>,
) -> Result<ServicesConfig, Error> {
    let _inside = supervisor.runtime.enter();
    let protection = &supervisor.protection;
    let trusted = protection.trusted()?;
    let socket = |error: std::io::Error| Error::failed(format!("cannot listen: {error}"));
    Ok(ServicesConfig {
        services: ServiceSet::all(),
        elsewhere: Elsewhere::default(),
        internal: None,
        database: DatabaseConfig {
            owner: supervisor.postgres.url(OWNER),
            service: supervisor.postgres.url(SERVICE),
        },
        redis: supervisor.cache()?,
        public: Some(tokio::net::TcpListener::from_std(listener).map_err(socket)?),
        control: Some(tokio::net::UnixListener::from_std(control).map_err(socket)?),
        audit: Some(AuditConfig {
            log: LOG,
            signing_key: Arc::clone(&protection.keys().signing),
            publisher,
            heads: protection.heads(&trusted)?,
            trusted,
            public: Some(protection.public_log(&supervisor.config)?),
            look_every: supervisor.config.audit.look_seconds.every(),
            recovery,
        }),
        stream: Arc::new(protection.monitor().clone()),
        strict: supervisor.config.database.strict,
        settings: Settings {
            starts_later: true,
            repository_id: Some(protection.repository().id().to_owned()),
            ..supervisor.config.for_services()?
        },
        sample: Some(sample(rates_file)),
    })
}

/// The book of a first start: the one named, or the shipped one.
fn sample(rates_file: Option<Vec<u8>>) -> SampleRates {
    let shipped = SampleRates::shipped();
    match rates_file {
        // Leaked once a process: the services want bytes that live as long as they do.
        Some(bytes) => SampleRates {
            rates: bytes.leak(),
            ..shipped
        },
        None => shipped,
    }
}
