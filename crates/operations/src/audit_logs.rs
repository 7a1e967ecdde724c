//! The logs that an audit asks for: which there are on this host, and their way into the repository of the archive.

use std::path::{Path, PathBuf};

use backup::audit_log::{
    FileLog, JournalLog, LogError, LogSource, SYSTEM_IDENTIFIERS, Shipment, ShipmentReport,
};
use host::{
    instance::Instance,
    keys::{audit_writing_key, lacks_audit_writing_key},
    person::machine,
};
use repository::{
    Progress, Repository,
    keys::{RecipientPublic, Vault, recipients_in},
    log_stretches::{LogExpiry, LogKind, SourceGap, digest_of, expire_logs, log_stretches},
};
use serde::Serialize;

use crate::{
    config::{self, AuditLogs, ObjectLock},
    error::Error,
};

/// Where systemd keeps a journal: on disk, or in memory until the next start.
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
const POSTGRES: &str = "postgres.log";
/// Of a server that replays WAL for a restore: PostgreSQL's too.
const RESTORE: &str = "restore.log";
const SOURCE_BYTES_MAX: usize = 60;

/// A log of this host, by its name in the repository.
pub struct NamedLog {
    pub name: String,
    pub source: Box<dyn LogSource>,
}

impl std::fmt::Debug for NamedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// What came of one kind.
#[derive(Debug, Serialize)]
pub struct LogsReport {
    pub kind: LogKind,
    pub logs: Vec<LogReport>,
}

#[derive(Debug, Serialize)]
pub struct LogReport {
    pub source: String,
    #[serde(flatten)]
    pub shipped: ShipmentReport,
    pub expired: LogExpiry,
    /// It was not read, or not to its end.
    pub trouble: Option<String>,
}

impl LogsReport {
    pub fn lines(&self) -> u64 {
        self.logs.iter().map(|log| log.shipped.lines).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.logs.iter().map(|log| log.shipped.bytes).sum()
    }

    pub fn stretches(&self) -> u64 {
        self.logs.iter().map(|log| log.shipped.stretches).sum()
    }

    pub fn gaps(&self) -> impl Iterator<Item = (&str, &SourceGap)> {
        self.logs.iter().flat_map(|log| {
            let gaps = log.shipped.gaps.iter();
            gaps.map(|gap| (log.source.as_str(), gap))
        })
    }

    /// The logs that were not read to their end.
    pub fn trouble(&self) -> Option<String> {
        let troubled = self.logs.iter().filter_map(|log| {
            let trouble = log.trouble.as_ref()?;
            Some(format!("{}: {trouble}", log.source))
        });
        let troubled: Vec<String> = troubled.collect();
        (!troubled.is_empty()).then(|| troubled.join("; "))
    }

    /// For the plan.
    pub fn summary(&self) -> String {
        let expired: u64 = self.logs.iter().map(|log| log.expired.deleted).sum();
        let mut said = format!(
            "{} lines of {} logs in {} stretches",
            self.lines(),
            self.logs.len(),
            self.stretches()
        );
        if expired > 0 {
            said.push_str(&format!("; {expired} stretches expired"));
        }
        said
    }

    pub fn sentences(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            text.push_str(&format!(
                "{} {}: {} lines in {} stretches; its chain ends at {}\n",
                self.kind, log.source, log.shipped.lines, log.shipped.stretches, log.shipped.number
            ));
            for note in &log.shipped.notes {
                text.push_str(&format!("  {note}\n"));
            }
            for gap in &log.shipped.gaps {
                text.push_str(&format!(
                    "  lines are missing {}: {}\n",
                    span(gap),
                    gap.what
                ));
            }
            if let Some(trouble) = &log.trouble {
                text.push_str(&format!("  not read to its end: {trouble}\n"));
            }
        }
        text
    }
}

/// For people.
pub fn span(gap: &SourceGap) -> String {
    let moment = |at| {
        let at = jiff::Timestamp::from_microsecond(at).ok();
        at.map_or_else(|| "?".to_owned(), |at| format!("{at:.0}"))
    };
    format!(
        "from {} to {}",
        moment(gap.from_micros),
        moment(gap.to_micros)
    )
}

/// The repository of the archive, where it is another than the instance's own.
pub fn own_repository(config: &config::AuditArchive) -> Result<Option<Repository>, Error> {
    let Some(location) = &config.repository else {
        return Ok(None);
    };
    let store = location.open(config.lock.map(ObjectLock::policy))?;
    Ok(Some(Repository::init(store)?))
}

/// Of one kind, on this host; an `Err` in the list is one that the settings name and that makes no sense.
pub fn logs_of(
    kind: LogKind,
    instance: &Instance,
    config: &AuditLogs,
) -> Result<Vec<NamedLog>, Error> {
    let host = machine();
    let mut logs = Vec::new();
    let mut file = |path: &Path, name: String| -> Result<(), Error> {
        let source = Box::new(FileLog::new(path)?);
        logs.push(NamedLog { name, source });
        Ok(())
    };
    match kind {
        LogKind::Application => {
            for path in files_of_engine(&instance.logs())? {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                file(&path, plain(&format!("{stem}-{host}")))?;
            }
            for path in config.log_file.iter().chain(&config.application) {
                file(path, name_of(path, &host))?;
            }
        }
        LogKind::Postgres => {
            let own = instance.logs().join(POSTGRES);
            if own.exists() {
                file(&own, plain(&format!("postgres-{host}")))?;
            }
            for path in &config.postgres {
                file(path, name_of(path, &host))?;
            }
        }
        LogKind::System => {
            let place = journal(config).map_err(|why| Error::refused("no journal is read", why))?;
            let named = config.system_identifiers.clone();
            let source = Box::new(JournalLog {
                place,
                identifiers: named
                    .unwrap_or_else(|| SYSTEM_IDENTIFIERS.map(str::to_owned).to_vec()),
            });
            let name = plain(&format!("journal-{host}"));
            logs.push(NamedLog { name, source });
        }
    }
    Ok(logs)
}

/// Which journal is read; otherwise why none is.
pub fn journal(config: &AuditLogs) -> Result<PathBuf, String> {
    if let Some(named) = &config.journal {
        return match named.exists() {
            true => Ok(named.clone()),
            false => Err(format!(
                "[audit_logs] journal = {:?} is not there",
                named.display()
            )),
        };
    }
    let found = JOURNALS
        .iter()
        .map(PathBuf::from)
        .find(|place| has_machines(place));
    found.ok_or_else(|| {
        format!(
            "no journal of systemd in {}. Set Storage=persistent in journald.conf, or name its folder: \
                [audit_logs] journal = \"/var/log/journal\"",
            JOURNALS.join(" or ")
        )
    })
}

/// Whether there is a log of PostgreSQL to read; otherwise why not.
pub fn postgres_log(instance: &Instance, config: &AuditLogs) -> Result<(), String> {
    match instance.logs().join(POSTGRES).exists() || !config.postgres.is_empty() {
        true => Ok(()),
        false => Err(
            "the instance runs no PostgreSQL of its own here; name the files of yours: [audit_logs] postgres = \
                [\"/var/log/postgresql/*.log\"]"
                .to_owned(),
        ),
    }
}

fn has_machines(place: &Path) -> bool {
    std::fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some())
}

/// What the engine and what it starts write, without PostgreSQL's.
fn files_of_engine(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(Error::file("cannot read", folder)(error)),
    };
    for entry in entries {
        let name = entry
            .map_err(Error::file("cannot read", folder))?
            .file_name();
        let of_postgres = name == POSTGRES || name == RESTORE;
        let is_log = name.to_str().is_some_and(|name| name.ends_with(".log"));
        if is_log && !of_postgres {
            files.push(folder.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// Of a file that the settings name: what it is called, and a digest that tells it from others.
fn name_of(path: &Path, host: &str) -> String {
    let digest = digest_of(path.as_os_str().as_encoded_bytes());
    let digest = &digest[..8];
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    plain(&format!("{stem}-{digest}-{host}"))
}

fn plain(name: &str) -> String {
    let of = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' => c,
        _ => '-',
    };
    let name: String = name.chars().map(of).take(SOURCE_BYTES_MAX).collect();
    match name.trim_start_matches(['-', '_']) {
        "" => "log".to_owned(),
        named => named.to_owned(),
    }
}

/// Where a log's cursor is kept on this host.
pub fn cursor_file(instance: &Instance, kind: LogKind, source: &str) -> PathBuf {
    cursors(instance).join(format!("{kind}.{source}.json"))
}

pub(crate) fn cursors(instance: &Instance) -> PathBuf {
    instance.root().join("log_cursors")
}

/// To whom logs are sealed: a key pair is made at the first use, unless the archive knows another one.
fn recipient(repository: &Repository, keys: &Path) -> Result<RecipientPublic, Error> {
    if lacks_audit_writing_key(keys)
        && let Some(id) = recipients_in(repository, Vault::Audit)?.first()
    {
        return Err(Error::refused(
            "the archive is sealed to another key",
            format!(
                "it was made for recipient {id}, and {} holds no audit_recipient.pub. Bring that file from the \
                    host that archived before",
                keys.display()
            ),
        ));
    }
    Ok(audit_writing_key(keys)?.0)
}

/// All logs of a kind. One that cannot be read holds up none of the others.
pub fn ship(
    kind: LogKind,
    instance: &Instance,
    config: &AuditLogs,
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<LogsReport, Error> {
    let logs = logs_of(kind, instance, config)?;
    let recipient = recipient(repository, &instance.keys())?;
    host::files::make_folder(&cursors(instance), 0o700)?;
    let host = machine();
    let mut report = LogsReport {
        kind,
        logs: Vec::new(),
    };
    for log in logs {
        progress.message(&log.name);
        let cursor_file = cursor_file(instance, kind, &log.name);
        let shipment = Shipment {
            repository,
            recipient: &recipient,
            kind,
            source: &log.name,
            cursor_file: &cursor_file,
            host: &host,
        };
        let (shipped, trouble) = match shipment.ship(&*log.source, progress) {
            Ok(shipped) => (shipped, None),
            Err(LogError::Cancelled) => return Err(LogError::Cancelled.into()),
            // The store is every log's.
            Err(LogError::Repository(error)) => return Err(error.into()),
            Err(error) => (ShipmentReport::default(), Some(error.to_string())),
        };
        let expired = expire(repository, (kind, &log.name), config)?;
        report.logs.push(LogReport {
            source: log.name,
            shipped,
            expired,
            trouble,
        });
    }
    Ok(report)
}

/// By the store's clock, as its newest stretch tells it: a clock of this host that went ahead deletes nothing.
fn expire(
    repository: &Repository,
    (kind, source): (LogKind, &str),
    config: &AuditLogs,
) -> Result<LogExpiry, Error> {
    let listed = log_stretches(repository, kind, source)?;
    let newest = listed.iter().map(|it| it.modified_micros).max();
    let now = jiff::Timestamp::now().as_microsecond();
    let Some(now) = newest.map(|newest| newest.min(now)) else {
        return Ok(LogExpiry::default());
    };
    Ok(expire_logs(
        repository,
        (kind, source),
        config.days(kind).get(),
        now,
    )?)
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Repository(error) => error.into(),
            LogError::Cancelled => Self::failed(error.to_string()),
            other => Self::refused("the log is not shipped", other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_have_plain_names_that_differ() {
        let of = |path: &str| name_of(Path::new(path), "Web_1.example");
        let (one, other) = (of("/var/log/a/App.log"), of("/var/log/b/App.log"));
        assert_ne!(one, other);
        assert!(
            one.starts_with("app-") && one.ends_with("-web_1-example"),
            "{one}"
        );
        for name in [one, plain("-ä"), plain(""), plain(&"x".repeat(99))] {
            repository::log_stretches::check_source(&name).unwrap();
        }
    }
}
