//! The cache on this host: which Redis it is, whether its files can be read here, where copies of them are.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use backup::cache::CacheError;
use host::instance::Instance;
use jobs::Availability;
use services::RedisSettings;

use crate::{config, error::Error};

/// As `[cache]` names it, or the instance's own while that runs; otherwise why there is none.
fn settings(instance: &Instance, config: &config::Backup) -> Result<RedisSettings, String> {
    if let Some(named) = config.cache.clone()? {
        return Ok(named);
    }
    let socket = instance.socket_folder("redis").join("redis.sock");
    match socket.exists() {
        true => Ok(RedisSettings::from(format!(
            "redis+unix://{}",
            socket.display()
        ))),
        false => Err(
            "no Redis here: the instance's own does not run, and [cache] url names no other one"
                .to_owned(),
        ),
    }
}

pub fn reached(instance: &Instance, config: &config::Backup) -> Result<RedisSettings, Error> {
    settings(instance, config)
        .map_err(|reason| Error::unreachable("the cache cannot be reached", reason))
}

/// Copies of its append-only file.
pub fn copies(instance: &Instance) -> PathBuf {
    instance.root().join("cache_copies")
}

/// For a server that loads files.
pub fn scratch(instance: &Instance) -> PathBuf {
    instance.root().join("cache_scratch")
}

/// Whether the files of the cache can be copied here, as it was last seen: asking takes a connection.
#[derive(Debug, Default)]
pub struct CacheReach(Mutex<Option<Availability>>);

impl CacheReach {
    pub fn look(
        &self,
        instance: &Instance,
        config: &config::Backup,
        check: fn(&RedisSettings) -> Result<(), CacheError>,
    ) -> Availability {
        let found = match settings(instance, config) {
            Err(reason) => Availability::Unavailable(reason),
            Ok(settings) => match check(&settings) {
                Ok(()) => Availability::Ready,
                Err(error) if error.is_unavailable() => {
                    Availability::Unavailable(error.to_string())
                }
                Err(error) => Availability::Waiting(error.to_string()),
            },
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        found
    }

    pub fn last(&self) -> Availability {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let not_yet = || Availability::Waiting("Redis was not asked yet".to_owned());
        last.clone().unwrap_or_else(not_yet)
    }
}
