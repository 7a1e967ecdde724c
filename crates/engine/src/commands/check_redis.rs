//! `bre check redis`: the guide's settings for persistence, looked at and on request applied, and whether the files can
//! be copied here.

use std::process::ExitCode;

use host::instance::Instance;
use redis_physical::{PersistenceFinding, RedisSession};
use serde::Serialize;
use terminal::{self, KeyValue, Table};

use crate::{cli::CheckRedisArgs, error::Error};
use operations::{cache, exit::Exit, jobs::settings};

#[derive(Debug, Serialize)]
struct SettingReport {
    name: &'static str,
    wanted: &'static str,
    found: Option<String>,
    is_met: bool,
    why: &'static str,
    remedy: Option<String>,
}

impl From<&PersistenceFinding> for SettingReport {
    fn from(finding: &PersistenceFinding) -> Self {
        Self {
            name: finding.setting.name,
            wanted: finding.setting.value,
            found: finding.found.clone(),
            is_met: finding.is_met,
            why: finding.setting.why,
            remedy: (!finding.is_met).then(|| finding.remedy()),
        }
    }
}

#[derive(Debug, Serialize)]
struct RedisReport {
    server: String,
    place: String,
    settings: Vec<SettingReport>,
    /// Null: its files can be copied here.
    not_copied_because: Option<String>,
    /// Settings were changed now.
    applied: bool,
    /// Null, or why the server's configuration file does not have them: a restart forgets them.
    not_kept_because: Option<String>,
}

impl RedisReport {
    fn is_sound(&self) -> bool {
        self.settings.iter().all(|setting| setting.is_met)
    }

    fn text(&self) -> String {
        let mut facts = KeyValue::new();
        facts
            .row("server", format!("{} at {}", self.server, self.place))
            .maybe("cannot be copied here", self.not_copied_because.as_ref());
        let mut table = Table::new(&["setting", "wanted", "found", "what to do"]);
        for setting in &self.settings {
            table.row([
                setting.name.to_owned(),
                setting.wanted.to_owned(),
                setting.found.clone().unwrap_or_else(|| "-".to_owned()),
                setting.remedy.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        let mut text = format!("{}\n{}", facts.text(), table.text());
        for setting in self.settings.iter().filter(|setting| !setting.is_met) {
            text.push_str(&format!("{}: {}\n", setting.name, setting.why));
        }
        match (self.applied, &self.not_kept_because) {
            (false, _) if self.is_sound() => {}
            (false, _) => text.push_str("bre check redis --apply sets what is not as wanted\n"),
            (true, None) => text.push_str("set, and kept in its configuration file\n"),
            (true, Some(why)) => text.push_str(&format!(
                "set, and not kept: {why}\nput the lines into its configuration file, or a restart forgets them\n"
            )),
        }
        text
    }
}

pub(super) fn run(
    instance: &Instance,
    json: bool,
    args: &CheckRedisArgs,
) -> Result<ExitCode, Error> {
    let config = settings::load(None, instance.root())?.backup;
    let settings = cache::reached(instance, &config)?;
    let mut session = RedisSession::open(&settings)?;
    let info = session.info()?;
    let mut found = redis_physical::check(&mut session)?;
    let is_met = found.iter().all(|finding| finding.is_met);
    let (mut applied, mut not_kept_because) = (false, None);
    if args.apply && !is_met {
        not_kept_because = redis_physical::apply(&mut session, &found)?;
        applied = true;
        found = redis_physical::check(&mut session)?;
    }
    let report = RedisReport {
        server: info.version(),
        place: session.place().to_owned(),
        settings: found.iter().map(SettingReport::from).collect(),
        not_copied_because: backup::cache::check_aof(&settings)
            .err()
            .map(|error| error.to_string()),
        applied,
        not_kept_because,
    };
    terminal::result(json, &report, || report.text());
    Ok(match report.is_sound() {
        true => ExitCode::SUCCESS,
        false => Exit::Failed.into(),
    })
}

#[cfg(test)]
mod tests {
    use redis_physical::SETTINGS;

    use super::*;
    use crate::commands::screens::readable;

    #[test]
    fn what_a_check_of_redis_shows() {
        let finding = |at: usize, found: &str, is_met: bool| PersistenceFinding {
            setting: SETTINGS[at],
            found: Some(found.to_owned()),
            is_met,
        };
        let found = [
            finding(0, "3600 1", true),
            finding(1, "yes", true),
            finding(2, "no", false),
            finding(5, "no", false),
        ];
        let report = |found: &[PersistenceFinding], applied: bool| RedisReport {
            server: "Redis 7.0.15".to_owned(),
            place: "127.0.0.1:6379".to_owned(),
            settings: found.iter().map(SettingReport::from).collect(),
            not_copied_because: (!applied).then(|| "the folder cannot be read here".to_owned()),
            applied,
            not_kept_because: applied
                .then(|| "ERR The server is running without a config file".to_owned()),
        };
        let unmet = report(&found, false);
        let met = report(&found[..2], true);
        assert!(!unmet.is_sound() && met.is_sound());
        let screens = [unmet.text(), met.text()].map(readable);
        insta::assert_snapshot!("check_redis", screens.join("\n---\n"));
    }
}
