//! SIGHUP: the settings file is read again. What can change while the engine runs does, and goes on record; what cannot is named
//! in the log and in `/config`, and waits for the next start.

use host::telemetry;
use services::{ReloadReport, Running};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use operations::{Error, jobs::settings, settings_file};

/// Settings by their dotted names, as they stand in the file.
type NamedSettings = BTreeMap<String, String>;

/// Follows one settings file.
#[derive(Debug)]
pub(crate) struct Reloader {
    path: PathBuf,
    data: PathBuf,
    named: bool,
    /// As it was when what it says took effect.
    effective: NamedSettings,
    asked: Arc<AtomicBool>,
}

impl Reloader {
    /// `named`: by `--config`; otherwise `DIR/bre.toml`, which may be absent.
    pub(crate) fn start(
        runtime: &Runtime,
        named: Option<&Path>,
        data: &Path,
    ) -> Result<Self, Error> {
        let path = named.map_or_else(|| data.join("bre.toml"), Path::to_owned);
        let effective = read(&path).unwrap_or_default();
        Ok(Self {
            asked: on_hangup(runtime)?,
            path,
            data: data.to_owned(),
            named: named.is_some(),
            effective,
        })
    }

    /// To be called now and then. A file that cannot be understood changes nothing.
    pub(crate) fn act(&mut self, runtime: &Runtime, services: &Running) {
        if !self.asked.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.reload(runtime, services) {
            tracing::error!(%error, "the settings stay as they are");
        }
    }

    fn reload(&mut self, runtime: &Runtime, services: &Running) -> Result<(), Error> {
        let config = settings::load(self.named.then_some(&*self.path), &self.data)?;
        let found = read(&self.path)?;
        let (now, later) = split(&self.effective, &found);
        if now.keys().any(|name| name.starts_with("log.")) {
            telemetry::set_level(config.log.level.as_deref())?;
        }
        if now.keys().any(|name| name.starts_with("limits.")) {
            services.set_limits(config.limits.requests_per_minute());
        }
        if now.keys().any(|name| name.starts_with("feeds.")) {
            let _inside = runtime.enter();
            services.set_feeds(config.feeds.clone());
        }
        for (name, change) in &now {
            tracing::info!(setting = name, change, "a setting changed");
            match found.get(name) {
                Some(value) => drop(self.effective.insert(name.clone(), value.clone())),
                None => drop(self.effective.remove(name)),
            }
        }
        for name in &later {
            tracing::warn!(
                setting = name,
                "this setting takes effect at the next start"
            );
        }
        let report = ReloadReport::new(now, later);
        // Not waited for: the record may be away, and whoever waits here notices nothing else.
        runtime.spawn(services.reloaded(report));
        Ok(())
    }
}

/// What can change while the engine runs.
const LIVE: [&str; 3] = ["limits.", "log.", "feeds."];

/// What differs: with its old and new value where it can take effect now, by name alone where it cannot.
fn split(before: &NamedSettings, after: &NamedSettings) -> (NamedSettings, Vec<String>) {
    let (mut now, mut later) = (NamedSettings::new(), Vec::new());
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old == new {
            continue;
        }
        if LIVE.iter().any(|live| name.starts_with(live)) {
            now.insert(name.clone(), format!("{} -> {}", show(old), show(new)));
        } else {
            later.push(name.clone());
        }
    }
    (now, later)
}

/// For the record. An address may hold a password.
fn show(value: Option<&String>) -> &str {
    match value.map(String::as_str) {
        None => "default",
        Some(text) if text.contains('@') => "(not shown)",
        Some(text) => text,
    }
}

fn read(path: &Path) -> Result<NamedSettings, Error> {
    let text = settings_file::read(path)?.unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        Error::from(host::Error::Settings {
            path: path.into(),
            reason: error.to_string(),
        })
    })?;
    let mut named = NamedSettings::new();
    flatten("", &toml::Value::Table(table), &mut named);
    Ok(named)
}

fn flatten(name: &str, value: &toml::Value, named: &mut NamedSettings) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                flatten(&name, value, named);
            }
        }
        value => drop(named.insert(name.to_owned(), value.to_string())),
    }
}

fn on_hangup(runtime: &Runtime) -> Result<Arc<AtomicBool>, Error> {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let _inside = runtime.enter();
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Error::failed(format!("cannot listen for signals: {error}")))?;
    runtime.spawn(async move {
        while hangup.recv().await.is_some() {
            seen.store(true, Ordering::Relaxed);
        }
    });
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::files::write_whole;

    fn named(text: &str) -> NamedSettings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bre.toml");
        // Some hold passwords.
        write_whole(&path, text.as_bytes(), 0o600).unwrap();
        read(&path).unwrap()
    }

    #[test]
    fn what_can_change_is_told_with_its_values_and_the_rest_by_name() {
        let before = named(
            "[limits]\nstandard_per_minute = 60\n[server]\nport = 8000\n[database]\nurl = \"postgres://a:secret@h/d\"",
        );
        let after = named(
            "[limits]\nstandard_per_minute = 5\npremium_per_minute = 7\n[database]\nurl = \"postgres://a:other@h/d\"",
        );
        let (now, later) = split(&before, &after);
        let now: Vec<String> = now
            .into_iter()
            .map(|(name, change)| format!("{name}: {change}"))
            .collect();
        assert_eq!(
            now,
            [
                "limits.premium_per_minute: default -> 7",
                "limits.standard_per_minute: 60 -> 5"
            ]
        );
        assert_eq!(later, ["database.url", "server.port"]);
        assert_eq!(split(&after, &after), (NamedSettings::new(), Vec::new()));
        let feed = named("[feeds.seclend]\nbase = \"https://user:secret@lender\"\n");
        let (now, _) = split(&NamedSettings::new(), &feed);
        assert_eq!(now["feeds.seclend.base"], "default -> (not shown)");
    }
}
