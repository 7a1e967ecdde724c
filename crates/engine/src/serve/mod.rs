//! `bre serve`: some of the four services, on a database and a cache that somebody else runs. The same code as `bre up`; what is
//! not in this process is asked over internal HTTP.

mod protection;
mod wiring;

use host::{instance, instance::Instance, signals::stop_on_signal, telemetry, workers::Workers};
use serde::Serialize;
use services::{Running, Service, ServiceSet, Services};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    error::Error,
    jobs::settings,
    reload::Reloader,
    up::{leftovers, reachable::keep_reachable},
};
use protection::Protection;

/// What a person says at the start, beside the settings.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    pub(crate) services: ServiceSet,
    /// The settings file; the same one may serve all processes.
    pub(crate) config: PathBuf,
    /// Of the public API with an api-gateway, of the internal routes otherwise; 0 takes a free one.
    pub(crate) port: Option<u16>,
    /// Of the internal routes beside an api-gateway.
    pub(crate) internal_port: Option<u16>,
    /// The database was restored: the file `bre_recovery.json` that the restore left.
    pub(crate) restored: Option<PathBuf>,
}

/// The line that scripts wait for: it listens. Whether it is well, health tells.
#[derive(Debug, Serialize)]
struct Listening {
    services: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    internal_url: Option<String>,
    pid: u32,
}

const LOOK: Duration = Duration::from_millis(100);
const HOUSEKEEPING: Duration = Duration::from_secs(1);

pub(crate) fn run(instance: &Instance, json: bool, args: &ServeOptions) -> Result<ExitCode, Error> {
    telemetry::start(json);
    let config = settings::load(Some(&args.config), instance.root())?;
    telemetry::set_level(config.log.level.as_deref())?;
    let runtime = Workers::start()?;
    let stop = stop_on_signal(&runtime, || ())?;
    let mut reloader = Reloader::start(&runtime, Some(&args.config), instance.root())?;
    // The folder belongs to the data-service: the signing key, the command line's socket. The others keep nothing.
    let records = args.services.has(Service::DataService);
    let lock = if records {
        let lock = instance.lock()?;
        instance.make_folders()?;
        leftovers::end(instance, &config);
        Some(lock)
    } else {
        None
    };
    let mut protection = match records {
        true => Some(Protection::start(instance, &config)?),
        false => None,
    };
    let services_config =
        wiring::services_config(&runtime, instance, &config, args, protection.as_mut())?;
    let mut services = runtime.block_on(Services::start(services_config))?;
    let announced = announce(instance, &config, json, args, &services)?;
    let mut next_look = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        reloader.act(&runtime, &services);
        if let Some(protection) = &mut protection
            && (protection.is_asked() || next_look <= Instant::now())
        {
            let reachable = keep_reachable(instance, &runtime, &mut services, announced.as_ref());
            if let Err(error) = reachable {
                tracing::warn!(%error, "commands cannot find the engine");
            }
            protection.look_after(&runtime, instance, &services);
            next_look = Instant::now() + HOUSEKEEPING;
        }
    }
    tracing::info!("stopping");
    if records {
        instance.withdraw();
    }
    runtime.block_on(services.shutdown());
    if let Some(protection) = protection {
        protection.stop();
    }
    // A request whose work goes on in a thread is not waited for long: nobody is there to hear its answer.
    drop(runtime);
    tracing::info!("stopped");
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

fn announce(
    instance: &Instance,
    config: &Config,
    json: bool,
    args: &ServeOptions,
    services: &Running,
) -> Result<Option<instance::Running>, Error> {
    let http = |address: std::net::SocketAddr| format!("http://{address}");
    let listening = Listening {
        services: args.services.names(),
        url: services
            .address()
            .map(|address| format!("{}://{address}", config.server.scheme())),
        internal_url: services.internal_address().map(http),
        pid: std::process::id(),
    };
    let mut announced = None;
    if args.services.has(Service::DataService) {
        let running = instance::Running {
            url: listening.url.clone().unwrap_or_default(),
            database_url: wiring::database_url(&config.database.url, "url")?,
            cache_url: config.cache.url.clone().unwrap_or_default(),
            data_dir: instance.root().to_owned(),
            repository: config
                .repository
                .path
                .clone()
                .unwrap_or_else(|| instance.repository().into()),
            pid: listening.pid,
            api_key_file: None,
        };
        instance.announce(&running)?;
        announced = Some(running);
    }
    terminal::result(json, &listening, || {
        let mut text = format!("{} listening", args.services);
        for (name, url) in [
            ("API", &listening.url),
            ("internal", &listening.internal_url),
        ] {
            if let Some(url) = url {
                text.push_str(&format!("\n  {name:<10}{url}"));
            }
        }
        text
    });
    Ok(announced)
}
