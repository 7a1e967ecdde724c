//! `bre serve`: some of the four services, on a database and a cache that somebody else runs. The same code as `bre up`; what is
//! not in this process is asked over internal HTTP.

mod data_service;
mod wiring;

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{leftovers, reachable::keep_reachable, reload::Reloader};
use host::{instance, instance::Instance, signals::stop_on_signal, telemetry, workers::Workers};
use operations::{
    Error,
    config::Config,
    jobs::{Screens, settings},
};
use serde::Serialize;
use services::{Running, Service, ServiceSet, Services};

use data_service::DataService;

/// What a person says at the start, beside the settings.
#[derive(Debug)]
pub struct ServeOptions {
    pub services: ServiceSet,
    /// The settings file; the same one may serve all processes.
    pub config: PathBuf,
    /// Of the public API with an api-gateway, of the internal routes otherwise; 0 takes a free one.
    pub port: Option<u16>,
    /// Of the internal routes beside an api-gateway.
    pub internal_port: Option<u16>,
    /// The database was restored: the file `bre_recovery.json` that the restore left.
    pub restored: Option<PathBuf>,
}

/// Where it listens. Whether it is well, health tells.
#[derive(Debug, Serialize)]
pub struct Listening {
    pub services: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_url: Option<String>,
    pub pid: u32,
}

const LOOK: Duration = Duration::from_millis(100);
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Until it is told to stop. `screens` say what came of jobs that a person asked for; `ready` is told where it listens.
pub fn run(
    instance: &Instance,
    options: &ServeOptions,
    screens: Screens,
    ready: impl FnOnce(&Listening),
) -> Result<(), Error> {
    let config = settings::load(Some(&options.config), instance.root())?;
    telemetry::set_level(config.log.level.as_deref())?;
    let runtime = Workers::start()?;
    let stop = stop_on_signal(&runtime, || ())?;
    let mut reloader = Reloader::start(&runtime, Some(&options.config), instance.root())?;
    // The folder belongs to the data-service: the signing key, the command line's socket. The others keep nothing.
    let records = options.services.has(Service::DataService);
    let lock = if records {
        let lock = instance.lock()?;
        instance.make_folders()?;
        leftovers::end(instance, &config);
        telemetry::to_file(config.log.file(&instance.logs(), "serve.log"))?;
        Some(lock)
    } else {
        // Without a folder of its own it keeps what the settings name.
        telemetry::to_file(config.log.named_file())?;
        None
    };
    let mut data_service = match records {
        true => Some(DataService::start(instance, &config, screens)?),
        false => None,
    };
    let services_config =
        wiring::services_config(&runtime, instance, &config, options, data_service.as_mut())?;
    let mut services = runtime.block_on(Services::start(services_config))?;
    let listening = listening(&config, options, &services);
    let announced = match records {
        true => Some(announce(instance, &config, &listening)?),
        false => None,
    };
    ready(&listening);
    let mut next_look = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        reloader.act(&runtime, &services);
        if let Some(data_service) = &mut data_service
            && (data_service.is_asked() || next_look <= Instant::now())
        {
            let reachable = keep_reachable(instance, &runtime, &mut services, announced.as_ref());
            if let Err(error) = reachable {
                tracing::warn!(%error, "commands cannot find the engine");
            }
            data_service.look_after(&runtime, &services);
            next_look = Instant::now() + HOUSEKEEPING;
        }
    }
    tracing::info!("stopping");
    if records {
        instance.withdraw();
    }
    runtime.block_on(services.shutdown());
    if let Some(data_service) = data_service {
        data_service.stop();
    }
    // A request whose work goes on in a thread is not waited for long: nobody is there to hear its answer.
    drop(runtime);
    tracing::info!("stopped");
    drop(lock);
    Ok(())
}

fn listening(config: &Config, options: &ServeOptions, services: &Running) -> Listening {
    let http = |address: std::net::SocketAddr| format!("http://{address}");
    Listening {
        services: options.services.names(),
        url: services
            .address()
            .map(|address| format!("{}://{address}", config.server.scheme())),
        internal_url: services.internal_address().map(http),
        pid: std::process::id(),
    }
}

/// For commands to find.
fn announce(
    instance: &Instance,
    config: &Config,
    listening: &Listening,
) -> Result<instance::Running, Error> {
    let own = || instance.repository().into();
    let running = instance::Running {
        url: listening.url.clone().unwrap_or_default(),
        database_url: wiring::database_url(&config.database.url, "url")?,
        cache_url: config.cache.url.clone().unwrap_or_default(),
        data_dir: instance.root().to_owned(),
        repository: config.repository.path.clone().unwrap_or_else(own),
        pid: listening.pid,
        api_key_file: None,
    };
    instance.announce(&running)?;
    Ok(running)
}
