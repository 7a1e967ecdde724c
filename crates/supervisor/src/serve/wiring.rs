//! From settings to what the services are given.

use std::{path::Path, sync::Arc};

use services::{
    AuditConfig, DatabaseConfig, Elsewhere, Service, ServiceSet, ServicesConfig, StreamHealth,
};
use tokio::runtime::Runtime;

use super::{ServeOptions, data_service::DataService};
use host::{instance::Instance, log::LOG};

use crate::listener::{control_listener, listen};
use operations::{
    Error,
    config::{Config, DatabaseUrl},
    health::StreamMonitor,
    secret_file,
};

const ALONE: u16 = 8000;
const BESIDE_GATEWAY: u16 = 8001;

pub(super) fn services_config(
    runtime: &Runtime,
    instance: &Instance,
    config: &Config,
    options: &ServeOptions,
    mut data_service: Option<&mut DataService>,
) -> Result<ServicesConfig, Error> {
    let _inside = runtime.enter();
    let secret = config
        .internal
        .secret_file
        .as_deref()
        .map(|path| secret_file::read("the internal secret is not usable", path))
        .transpose()?;
    let (public, internal) = listeners(config, options, secret.is_some())?;
    let control = match &data_service {
        Some(_) => {
            let control = tokio::net::UnixListener::from_std(control_listener(instance)?);
            Some(control.map_err(Error::file("cannot listen on", instance.control_socket()))?)
        }
        None => None,
    };
    let audit = data_service.as_deref_mut().map(|data_service| {
        Ok::<_, Error>(AuditConfig {
            log: LOG,
            signing_key: data_service.signing_key(),
            publisher: data_service.publisher(instance, config, options.restored.is_some())?,
            heads: data_service.heads()?,
            trusted: data_service.trusted()?,
            public: data_service.public_log(config)?,
            look_every: config.audit.look_seconds.every(),
            recovery: options.restored.as_deref().map(read_fact).transpose()?,
        })
    });
    Ok(ServicesConfig {
        services: options.services.clone(),
        elsewhere: Elsewhere {
            secret,
            calculation: config.services.calculation_service.clone(),
            data: config.services.data_service.clone(),
            cache: config.services.cache_service.clone(),
        },
        database: DatabaseConfig {
            owner: match &data_service {
                Some(_) => database_url(&config.database.owner_url, "owner_url")?,
                None => String::new(),
            },
            service: database_url(&config.database.url, "url")?,
        },
        redis: config.cache.redis()?,
        public,
        internal,
        control,
        audit: audit.transpose()?,
        stream: match &data_service {
            Some(data_service) => data_service.stream(),
            None => Arc::new(StreamMonitor::default()) as Arc<dyn StreamHealth>,
        },
        strict: config.database.strict,
        settings: services::Settings {
            repository_id: data_service.as_deref().and_then(DataService::repository_id),
            ..config.for_services()?
        },
        // Invented rates are for a first look at `bre up`, not for a database of somebody's own.
        sample: None,
    })
}

type Listeners = (
    Option<tokio::net::TcpListener>,
    Option<tokio::net::TcpListener>,
);

/// Alone a service listens on 8000; an api-gateway has the public API there, and its internal routes beside it.
fn listeners(config: &Config, options: &ServeOptions, secret: bool) -> Result<Listeners, Error> {
    let bind = |ip, port| {
        tokio::net::TcpListener::from_std(listen(ip, port)?)
            .map_err(|error| Error::failed(format!("cannot listen on {ip}:{port}: {error}")))
    };
    let gateway = options.services.has(Service::ApiGateway);
    let public = match gateway {
        true => {
            let port = options.port.unwrap_or(config.server.port);
            Some(bind(config.server.bind, port)?)
        }
        false => None,
    };
    // All in one process: nobody has to ask, and without a secret nobody may.
    if options.services == ServiceSet::all() && !secret {
        return Ok((public, None));
    }
    if !secret {
        return Err(Error::refused(
            "services in several processes need a shared secret",
            "name a file of mode 0600 in [internal] secret_file, the same for all; make it with: (umask 077; openssl rand -hex 32 > FILE)",
        ));
    }
    let (asked, usual) = match gateway {
        true => (options.internal_port, BESIDE_GATEWAY),
        false => (options.internal_port.or(options.port), ALONE),
    };
    let port = asked.or(config.internal.port).unwrap_or(usual);
    Ok((public, Some(bind(config.internal.bind, port)?)))
}

pub(super) fn database_url(url: &Option<DatabaseUrl>, name: &str) -> Result<String, Error> {
    let url = url.as_ref().ok_or_else(|| Error::refused("no database is named", format!(
            "set [database] {name}; docs/operations/settings.md says which service needs which. To let the engine run a database of its own: bre up"
        )))?;
    Ok(url.0.clone())
}

fn read_fact(path: &Path) -> Result<services::RecoveryFact, Error> {
    let text = std::fs::read(path).map_err(Error::file("cannot read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::file("cannot understand", path)(error.into()))
}
