//! `bre restore cache`: files into a server of our own, what would change is shown, then only what is missing or older
//! in the cache is written, its append-only file is written again, and everything is read back.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use host::{
    control::Control, instance::Instance, progress::Steps, record::Event, signals::interrupted,
};
use recovery::cache::{
    CachePlan, CacheRestoreReport, DOCUMENT, KeyAction, LoadedCache, StoppedCache, apply, copy_for,
    plan,
};
use redis_physical::{Program, RedisSession, ServerKind, aof::AofCopy};
use repository::snapshot::{SnapshotReader, SnapshotSummary, find_snapshot, snapshots};
use serde::Serialize;
use terminal::{self, KeyValue, count};

use super::{
    cache_origin::{OriginReport, origins, quickest, said},
    moment,
};
use crate::{
    cli::{CacheOrigin, RestoreCacheArgs},
    error::Error,
    question::confirmed,
};
use operations::{
    cache, command_output::CommandOutput, jobs::settings, repository_handle::RepositoryHandle,
};

/// The route that `bre restore cache --from database` calls.
const WARM: &str = "/internal/cache/warm";
const MICROS: i64 = 1_000_000;

#[derive(Debug, Serialize)]
struct CacheReport {
    from: CacheOrigin,
    /// What it was chosen from; null: it was named.
    chosen_from: Option<Vec<OriginReport>>,
    /// Of a snapshot or a copy.
    id: String,
    taken_at_micros: i64,
    /// The second that it goes back to, when one was asked for.
    until_seconds: Option<i64>,
    /// Host and port, or socket, or the folder of a stopped one.
    to: String,
    create: usize,
    replace: usize,
    same: usize,
    /// Newer in the cache, or without a moment to compare: they stay.
    keep: usize,
    expired: u64,
    /// Null: nothing was written.
    restored: Option<RestoredReport>,
    /// Null, or where an append-only file that does not load is now.
    set_aside: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct RestoredReport {
    written: usize,
    /// Something newer came first.
    kept: usize,
    digest: String,
    /// The append-only file was written again; false: the cache has none.
    append_only_file: bool,
    millis: u64,
}

impl CacheReport {
    fn planned(source: &CacheSource, to: String, plan: &CachePlan) -> Self {
        let expired = plan.count(KeyAction::Expired) as u64 + plan.expired_before;
        Self {
            from: source.from,
            chosen_from: None,
            id: source.id.clone(),
            taken_at_micros: source.taken_at_micros,
            until_seconds: source.until_seconds,
            to,
            create: plan.count(KeyAction::Create),
            replace: plan.count(KeyAction::Replace),
            same: plan.count(KeyAction::Same),
            keep: plan.count(KeyAction::Keep),
            expired,
            restored: None,
            set_aside: None,
        }
    }

    fn text(&self) -> String {
        let keys = |number: usize| count(number as u64, "key");
        let mut facts = KeyValue::new();
        facts
            .row("from", format!("{} {}", self.from.name(), self.id))
            .maybe("the quickest", self.chosen_from.as_deref().map(said))
            .row("taken", terminal::moment(self.taken_at_micros))
            .maybe(
                "as it was at",
                self.until_seconds.map(|it| terminal::moment(it * MICROS)),
            )
            .row("to", &self.to)
            .row("missing there", keys(self.create))
            .row("older there", keys(self.replace))
            .row("the same there", keys(self.same))
            .row("newer there", format!("{}, which stay", keys(self.keep)))
            .row("expired since", count(self.expired, "key"));
        facts.maybe(
            "set aside",
            self.set_aside
                .as_ref()
                .map(|path| format!("{}: an append-only file that does not load", path.display())),
        );
        let mut text = facts.text();
        if let Some(restored) = &self.restored {
            let file = match restored.append_only_file {
                true => "the append-only file is written again",
                false => "the cache has no append-only file: a restart loses this",
            };
            text.push_str(&format!(
                "\n{} restored and read back in {} ms\n{file}\ndigest of what was loaded: {}\n",
                keys(restored.written),
                restored.millis,
                restored.digest
            ));
            if restored.kept > 0 {
                text.push_str(&format!(
                    "{} written by others meanwhile, which are newer\n",
                    keys(restored.kept)
                ));
            }
        } else if self.create + self.replace == 0 {
            text.push_str("\nnothing to do: nothing in it is newer than the cache\n");
        }
        text
    }
}

/// Loaded, and where it comes from.
struct CacheSource {
    from: CacheOrigin,
    id: String,
    taken_at_micros: i64,
    until_seconds: Option<i64>,
    loaded: LoadedCache,
}

pub(super) fn run(
    instance: &Instance,
    json: bool,
    args: &RestoreCacheArgs,
) -> Result<ExitCode, Error> {
    let time_micros = args.time.as_deref().map(moment).transpose()?;
    let (from, chosen_from) = match args.from {
        Some(named) => (named, None),
        None => {
            let origins = origins(instance, args, time_micros);
            (quickest(&origins)?, Some(origins))
        }
    };
    if from == CacheOrigin::Database {
        return warm(instance, json, args, chosen_from);
    }
    let began = Instant::now();
    let config = settings::load(None, instance.root())?.backup;
    let steps = Steps::shown(json, "restore").cancelled_by(interrupted()?);
    let cancelled = || repository::Progress::cancelled(&steps);
    let live = match &args.to {
        Some(_) => None,
        None => Some(RedisSession::open(&cache::reached(instance, &config)?)?),
    };
    let (live, kind) = match live {
        Some(mut session) => {
            let info = session.primary()?;
            if !info.has_aof_folder() {
                let (place, version) = (session.place().to_owned(), info.version());
                return Err(redis_physical::RedisError::Version { place, version }.into());
            }
            (Some(session), info.kind())
        }
        None => (None, ServerKind::Redis),
    };
    let program = Program::find(kind)?;
    let source = match from {
        CacheOrigin::Aof => from_aof(instance, &program, time_micros, &cancelled)?,
        _ => from_rdb(instance, &program, args, time_micros, &cancelled)?,
    };
    let stopped = match &args.to {
        Some(folder) => {
            let folder = std::path::absolute(folder).map_err(Error::file("cannot find", folder))?;
            if args.dry_run {
                return Err(Error::refused(
                    "nothing was looked at",
                    "a stopped cache is started to be looked at: without --dry-run it is, shown, and asked about",
                ));
            }
            let now = jiff::Timestamp::now().as_microsecond();
            Some((
                StoppedCache::open(&program, &folder, now, &cancelled)?,
                folder,
            ))
        }
        None => None,
    };
    let (mut session, to) = match (live, &stopped) {
        (Some(session), _) => {
            let place = session.place().to_owned();
            (session, place)
        }
        (None, Some((stopped, folder))) => (stopped.session()?, folder.display().to_string()),
        (None, None) => return Err(Error::failed("no cache to restore into")),
    };
    let wanted = plan(&source.loaded, &mut session, &cancelled)?;
    let mut report = CacheReport::planned(&source, to, &wanted);
    report.chosen_from = chosen_from;
    if let Some((stopped, _)) = &stopped {
        report.set_aside = stopped.set_aside.as_ref().map(|(path, _)| path.clone());
    }
    drop(steps);
    if !args.dry_run && !wanted.is_empty() {
        if !args.yes {
            terminal::note(&report.text());
            if !confirmed("These keys are written into the cache.") {
                return Err(Error::refused(
                    "nothing was restored",
                    "give --yes to restore without asking",
                ));
            }
        }
        let done = apply(&source.loaded, &wanted, &mut session, &|| false)?;
        report.restored = Some(restored(done, began));
    }
    if let Some((stopped, _)) = stopped {
        stopped.close()?;
    }
    source.loaded.end()?;
    if report.restored.is_some() {
        on_record(instance, &report);
    }
    terminal::result(json, &report, || report.text());
    Ok(ExitCode::SUCCESS)
}

fn restored(done: CacheRestoreReport, began: Instant) -> RestoredReport {
    RestoredReport {
        written: done.written,
        kept: done.kept,
        digest: done.digest,
        append_only_file: done.has_aof,
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn from_aof(
    instance: &Instance,
    program: &Program,
    time_micros: Option<i64>,
    cancelled: &dyn Fn() -> bool,
) -> Result<CacheSource, Error> {
    let until_seconds = time_micros.map(|micros| micros.div_euclid(MICROS));
    let copy: AofCopy = copy_for(&cache::copies(instance), until_seconds)?;
    let scratch = cache::scratch(instance);
    let loaded = LoadedCache::from_aof(program, &copy, until_seconds, &scratch, cancelled)?;
    Ok(CacheSource {
        from: CacheOrigin::Aof,
        id: copy.id,
        taken_at_micros: copy.facts.taken_at_micros,
        until_seconds,
        loaded,
    })
}

fn from_rdb(
    instance: &Instance,
    program: &Program,
    args: &RestoreCacheArgs,
    time_micros: Option<i64>,
    cancelled: &dyn Fn() -> bool,
) -> Result<CacheSource, Error> {
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let summary = snapshot_for(&opened, args, time_micros)?;
    let private = opened.private()?;
    let reader = SnapshotReader::open(
        &opened.repository,
        &private,
        &summary.component,
        &summary.id,
    )?;
    let document = reader
        .document(DOCUMENT)
        .ok_or_else(|| Error::failed(format!("snapshot {} holds no {DOCUMENT}", summary.id)))?;
    let content = reader.read(document)?;
    let scratch = cache::scratch(instance);
    let loaded = LoadedCache::from_rdb(program, &content, &scratch, cancelled)?;
    Ok(CacheSource {
        from: CacheOrigin::Rdb,
        id: summary.id,
        taken_at_micros: summary.taken_at_micros,
        until_seconds: None,
        loaded,
    })
}

pub(super) fn snapshot_for(
    opened: &RepositoryHandle,
    args: &RestoreCacheArgs,
    time_micros: Option<i64>,
) -> Result<SnapshotSummary, Error> {
    match time_micros {
        Some(micros) => newest_before(opened, micros),
        None => Ok(find_snapshot(
            &opened.repository,
            backup::cache::COMPONENT,
            args.snapshot.as_deref(),
        )?),
    }
}

fn newest_before(opened: &RepositoryHandle, micros: i64) -> Result<SnapshotSummary, Error> {
    let all = snapshots(&opened.repository)?.snapshots.into_iter();
    let of_cache =
        all.filter(|it| it.component == backup::cache::COMPONENT && it.taken_at_micros <= micros);
    of_cache.max_by_key(|it| it.taken_at_micros).ok_or_else(|| {
        Error::refused(
            "nothing was restored",
            format!(
                "no snapshot of the cache is from {} or before (bre snapshot list cache)",
                terminal::time(micros)
            ),
        )
    })
}

/// That it was done is in the audit log where an engine runs; where none does, it is on the screen.
fn on_record(instance: &Instance, report: &CacheReport) {
    if !instance.is_locked() {
        return;
    }
    let event = Event::by_person("RestoreRun")
        .with("component", backup::cache::COMPONENT)
        .with("from", format!("{} {}", report.from.name(), report.id))
        .with(
            "written",
            report.restored.as_ref().map_or(0, |it| it.written),
        );
    if let Err(error) = host::runtime::wait(event.record(instance)) {
        terminal::note(&format!(
            "bre: it is done but not in the audit log: {error}"
        ));
    }
}

/// The engine reads the whole market from the database and writes it into the cache.
fn warm(
    instance: &Instance,
    json: bool,
    args: &RestoreCacheArgs,
    chosen_from: Option<Vec<OriginReport>>,
) -> Result<ExitCode, Error> {
    if args.time.is_some() || args.snapshot.is_some() || args.to.is_some() {
        return Err(Error::argument(
            "combination",
            "--from database".to_owned(),
            "the database has the newest market alone: without --time, --snapshot and --to",
        ));
    }
    if args.dry_run {
        let plan = serde_json::json!({
            "from": CacheOrigin::Database,
            "chosen_from": chosen_from,
            "restored": null,
        });
        terminal::result(json, &plan, || {
            let chosen = chosen_from.as_deref().map(said).unwrap_or_default();
            format!(
                "the engine would read the whole market from the database and write it into the cache\n{chosen}"
            )
        });
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    let answer: serde_json::Value = host::runtime::wait(async {
        let control = Control::to(instance)?;
        Ok::<_, Error>(control.post(WARM, &serde_json::json!({})).await?)
    })?;
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let warmed = WarmReport {
        from: CacheOrigin::Database,
        chosen_from,
        rates: answer["rates"].as_u64().unwrap_or_default(),
        kinds: answer["kinds"].clone(),
        requests_before: hits(&answer["requests_before"]),
        requests_after: hits(&answer["requests_after"]),
        market_read_millis: answer["market_read_millis"].as_u64(),
        millis,
    };
    terminal::result(json, &warmed, || warmed.text());
    Ok(ExitCode::SUCCESS)
}

/// How many of the requests for each kind of data found it.
#[derive(Clone, Copy, Debug, Serialize)]
struct HitReport {
    hits: u64,
    requests: u64,
}

fn hits(reads: &serde_json::Value) -> HitReport {
    let of = |name: &str| reads[name].as_u64().unwrap_or_default();
    let hits = of("hits");
    HitReport {
        hits,
        requests: hits + of("misses") + of("foreign") + of("unanswered"),
    }
}

#[derive(Debug, Serialize)]
struct WarmReport {
    from: CacheOrigin,
    chosen_from: Option<Vec<OriginReport>>,
    /// Names that have a rate.
    rates: u64,
    kinds: serde_json::Value,
    requests_before: HitReport,
    requests_after: HitReport,
    /// Of it: from the first question to the database to the answer of the cache.
    market_read_millis: Option<u64>,
    millis: u64,
}

impl WarmReport {
    fn text(&self) -> String {
        let kinds = self.kinds.as_array().map_or(&[][..], Vec::as_slice);
        let bytes = kinds.iter().filter_map(|kind| kind["bytes"].as_u64()).sum();
        let hits = |of: HitReport| format!("{} of {} requests", of.hits, of.requests);
        let mut facts = KeyValue::new();
        facts
            .row("from", "the database: the whole market as it is now")
            .maybe("the quickest", self.chosen_from.as_deref().map(said))
            .row(
                "written",
                format!(
                    "{} with a rate, {} of data, {}",
                    count(self.rates, "name"),
                    count(kinds.len() as u64, "kind"),
                    indicatif::HumanBytes(bytes)
                ),
            )
            .row("hits before", hits(self.requests_before))
            .row("hits after", hits(self.requests_after))
            .row("took", format!("{} ms", self.millis));
        facts.text()
    }
}

pub(crate) fn copied(copy: &AofCopy) -> Result<CommandOutput, operations::Error> {
    let shown = serde_json::json!({ "id": copy.id, "path": copy.path, "facts": copy.facts });
    let text = format!(
        "copy {}: {} of {}, loaded once; it is in {}",
        copy.id,
        count(copy.facts.keys, "key"),
        copy.facts.server,
        copy.path.display()
    );
    CommandOutput::of(&shown, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::screens::{at, readable};

    fn report() -> CacheReport {
        CacheReport {
            from: CacheOrigin::Aof,
            chosen_from: None,
            id: "20260401T103000Z-0a1b2c3d".to_owned(),
            taken_at_micros: at("10:30"),
            until_seconds: Some(at("10:27") / MICROS),
            to: "/srv/bre/redis.sock".to_owned(),
            create: 9,
            replace: 1,
            same: 2,
            keep: 3,
            expired: 1,
            restored: None,
            set_aside: None,
        }
    }

    #[test]
    fn what_filling_the_cache_from_the_database_shows() {
        let warmed = WarmReport {
            from: CacheOrigin::Database,
            chosen_from: None,
            rates: 16_749,
            kinds: serde_json::json!([{ "kind": "rates", "bytes": 5_300_000, "seconds_left": 300 }]),
            requests_before: HitReport {
                hits: 0,
                requests: 10,
            },
            requests_after: HitReport {
                hits: 10,
                requests: 10,
            },
            market_read_millis: Some(310),
            millis: 315,
        };
        insta::assert_snapshot!("cache_from_the_database", readable(warmed.text()));
    }

    #[test]
    fn what_a_restore_of_the_cache_shows() {
        let planned = report().text();
        let restored = CacheReport {
            restored: Some(RestoredReport {
                written: 9,
                kept: 1,
                digest: "0a".repeat(32),
                append_only_file: true,
                millis: 312,
            }),
            ..report()
        };
        let stopped = CacheReport {
            from: CacheOrigin::Rdb,
            chosen_from: Some(vec![OriginReport {
                origin: CacheOrigin::Rdb,
                millis: Some(120),
                unavailable: None,
            }]),
            until_seconds: None,
            to: "/var/lib/redis".to_owned(),
            create: 0,
            replace: 0,
            set_aside: Some("/var/lib/redis/appendonlydir.before-7".into()),
            ..report()
        };
        let screens = [planned, restored.text(), stopped.text()].map(readable);
        insta::assert_snapshot!("restore_cache", screens.join("\n---\n"));
    }
}
