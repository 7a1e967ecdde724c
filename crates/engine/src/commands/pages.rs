//! `bre verify cluster`, `bre restore pages`: damaged pages of the running cluster, found and brought back.

use std::{path::PathBuf, process::ExitCode};

use backup::database::{LivePage, LivePages, verify_live};
use postgres_physical::{
    server::{Binaries, OsUser, sql::Client},
    wire::ConnectOptions,
};
use recovery::pages::{DamagedPage, PageOutcome, Remedy, TableLocks, remedy};
use serde::Serialize;

use super::table::live;
use host::{instance::Instance, progress::Steps, record::Event, signals::interrupted};
use terminal::{self, KeyValue, Table, count};

use crate::{
    cli::{RepositoryArgs, RestorePagesArgs, RunningArgs},
    error::Error,
    question::confirmed_unless,
};
use operations::{jobs::settings, repository_handle::RepositoryHandle, scratch::ScratchRestorer};

#[derive(Debug, Serialize)]
struct PagesReport {
    data_dir: PathBuf,
    files: u64,
    pages: u64,
    damaged: Vec<DamagedPageRow>,
    /// Nothing is damaged, or nothing is any more.
    sound: bool,
}

#[derive(Debug, Serialize)]
struct DamagedPageRow {
    database: Option<String>,
    relation: Option<String>,
    fork: &'static str,
    block: u32,
    path: String,
    what: String,
    remedy: String,
    /// What came of the repair.
    outcome: Option<String>,
    #[serde(skip)]
    place: String,
}

impl DamagedPageRow {
    fn new(page: &LivePage) -> Self {
        let damaged = damaged(page);
        Self {
            database: damaged.database.clone(),
            relation: damaged.relation.clone(),
            fork: fork(&damaged),
            block: page.block,
            path: page.path.clone(),
            what: page.what.clone(),
            remedy: match remedy(&damaged) {
                Remedy::Page => "the page from the repository: bre restore pages".to_owned(),
                Remedy::Empty => "an empty page, then VACUUM: bre restore pages".to_owned(),
                Remedy::Statement(sql) => format!("{sql}: bre restore pages"),
                Remedy::Elsewhere(what) => what,
            },
            outcome: None,
            place: damaged.place(),
        }
    }
}

fn fork(page: &DamagedPage) -> &'static str {
    use postgres_physical::page::Fork;
    match page.fork {
        Fork::Main => "main",
        Fork::FreeSpace => "fsm",
        Fork::Visibility => "vm",
        Fork::Init => "init",
    }
}

fn damaged(page: &LivePage) -> DamagedPage {
    let owner = page.owner.clone();
    DamagedPage {
        path: page.path.clone(),
        fork: page.fork,
        block: page.block,
        database: owner.database,
        relation: owner.relation,
        oid: owner.oid,
        kind: owner.kind,
        table: owner.table,
        unknown_because: owner.unknown_because,
    }
}

impl PagesReport {
    fn new(found: &LivePages) -> Self {
        Self {
            data_dir: found.data.clone(),
            files: found.files,
            pages: found.pages,
            damaged: found.damaged.iter().map(DamagedPageRow::new).collect(),
            sound: found.damaged.is_empty(),
        }
    }

    fn text(&self) -> String {
        let mut facts = KeyValue::new();
        facts
            .row("cluster", self.data_dir.display().to_string())
            .row(
                "read",
                format!(
                    "{} in {}",
                    count(self.pages, "page"),
                    count(self.files, "file")
                ),
            )
            .row("damaged", count(self.damaged.len() as u64, "page"));
        let mut text = facts.text();
        if !self.damaged.is_empty() {
            let mut table = Table::new(&["where", "block", "what", "what to do, or what was done"]);
            for page in &self.damaged {
                table.row([
                    format!("{} ({})", page.place, page.path),
                    page.block.to_string(),
                    page.what.clone(),
                    page.outcome.clone().unwrap_or_else(|| page.remedy.clone()),
                ]);
            }
            text.push_str(&format!("\n{}", table.text()));
        }
        text
    }

    fn show(&self, json: bool) -> ExitCode {
        terminal::result(json, self, || self.text());
        match self.sound {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

pub(super) fn verify(
    instance: &Instance,
    json: bool,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let steps = Steps::shown(json, "verify").cancelled_by(interrupted()?);
    let found = verify_live(&live(instance, args, &RunningArgs::default())?, &steps)?;
    drop(steps);
    Ok(PagesReport::new(&found).show(json))
}

pub(super) fn restore(
    instance: &Instance,
    json: bool,
    args: RestorePagesArgs,
) -> Result<ExitCode, Error> {
    let RestorePagesArgs {
        dry_run,
        yes,
        work,
        repository: args,
    } = args;
    let steps = Steps::shown(json, "repair").cancelled_by(interrupted()?);
    let connect = live(instance, &args, &RunningArgs::default())?;
    let found = verify_live(&connect, &steps)?;
    let mut report = PagesReport::new(&found);
    if report.sound || dry_run {
        drop(steps);
        return Ok(report.show(json));
    }
    let question = format!(
        "{}The tables of these pages are locked (ACCESS EXCLUSIVE) until their pages are back, which takes as long as a restore; then the pages are written \
         into the running cluster's files.",
        report.text()
    );
    if !yes && !steps.hidden_while(|| confirmed_unless(&question, &|| steps.is_cancelled())) {
        return Err(Error::refused(
            "nothing was changed",
            "give --yes to do it without asking",
        ));
    }
    let opened = RepositoryHandle::at(instance, &args)?;
    let config = settings::load(None, instance.root())?;
    let binaries = Binaries::find(config.database.binaries.as_deref())?;
    let restorer = ScratchRestorer {
        repository: &opened.repository,
        private: &opened.private()?,
        binaries: &binaries,
        user: &OsUser::for_server()?,
        work: work.unwrap_or_else(|| instance.beside()),
    };
    let pages: Vec<DamagedPage> = found.damaged.iter().map(damaged).collect();
    let outcomes = mend(&connect, &found, &pages, &restorer, &steps)?;
    steps.step("looking again");
    let after = verify_live(&connect, &steps)?;
    drop(steps);
    for (shown, outcome) in report.damaged.iter_mut().zip(outcomes) {
        shown.outcome = Some(outcome);
    }
    report.sound = after.damaged.is_empty();
    record(instance, &args, &report);
    let code = report.show(json);
    if !report.sound {
        terminal::note(&format!(
            "bre: still damaged:\n{}",
            PagesReport::new(&after).text()
        ));
    }
    Ok(code)
}

/// What came of each page, in their order.
fn mend(
    connect: &ConnectOptions,
    found: &LivePages,
    pages: &[DamagedPage],
    restorer: &ScratchRestorer<'_>,
    steps: &Steps,
) -> Result<Vec<String>, Error> {
    let locked = |page: &&DamagedPage| matches!(remedy(page), Remedy::Page | Remedy::Empty);
    let held_pages: Vec<&DamagedPage> = pages.iter().filter(locked).collect();
    steps.step("locking the tables");
    let mut held = TableLocks::lock(connect, &found.data, &held_pages)?;
    let place = held.settle(&held_pages)?;
    let wanted = held_pages
        .iter()
        .any(|page| remedy(page) == Remedy::Page && held.is_bad(page));
    // Nothing is restored for maps alone, nor for what the server itself has written by now.
    let beside = match wanted {
        true => Some(restorer.restore_sound(place, steps)),
        false => None,
    };
    if steps.is_cancelled() {
        return Err(Error::failed("nothing was changed: it was interrupted"));
    }
    let mut outcomes = Vec::new();
    for page in pages {
        let put = match remedy(page) {
            Remedy::Page if !held.is_bad(page) => PageOutcome::GoodAlready,
            Remedy::Page => match &beside {
                Some(Ok(beside)) => held.put(page, &beside.folder.data())?,
                Some(Err(error)) => PageOutcome::Refused(error.to_string()),
                None => PageOutcome::GoodAlready,
            },
            Remedy::Empty => held.empty(page)?,
            Remedy::Statement(_) => continue,
            Remedy::Elsewhere(_) => continue,
        };
        outcomes.push((page.place(), put));
    }
    held.release()?;
    drop(beside);
    pages
        .iter()
        .map(|page| outcome(connect, page, &outcomes, steps))
        .collect()
}

/// After the locks are gone: statements, and a look through SQL at what was written.
fn outcome(
    connect: &ConnectOptions,
    page: &DamagedPage,
    put: &[(String, PageOutcome)],
    steps: &Steps,
) -> Result<String, Error> {
    let place = page.place();
    steps.step(&place);
    let sql = match (remedy(page), put.iter().find(|(of, _)| *of == place)) {
        (Remedy::Elsewhere(what), _) => return Ok(format!("NOT REPAIRED: {what}")),
        (_, Some((_, PageOutcome::Refused(why)))) => {
            return Ok(format!("NOT REPAIRED: {why}. Instead {}", page.by_table()));
        }
        (Remedy::Statement(sql), _) => sql,
        (Remedy::Empty, _) => format!(
            "VACUUM (DISABLE_PAGE_SKIPPING) {}",
            page.table.as_deref().unwrap_or_default()
        ),
        (Remedy::Page, _) => format!(
            "SELECT count(*) FROM ONLY {}",
            page.relation.as_deref().unwrap_or_default()
        ),
    };
    let done = match (remedy(page), put.iter().find(|(of, _)| *of == place)) {
        (Remedy::Statement(_), _) => "made anew",
        (Remedy::Empty, _) => "emptied and filled again",
        (_, Some((_, PageOutcome::GoodAlready))) => "the server had a good copy and wrote it",
        _ => "brought back",
    };
    let database = page.database.as_deref().unwrap_or("postgres");
    let ran = Client::connect(&connect.clone().with_database(database))
        .and_then(|mut client| client.query(&sql));
    Ok(match ran {
        Ok(_) => format!("{done} ({sql})"),
        Err(error) => format!("{done}, but {sql} says: {error}"),
    })
}

fn record(instance: &Instance, args: &RepositoryArgs, report: &PagesReport) {
    if args.cluster.is_some() || !instance.is_locked() {
        return;
    }
    // An entry has its limits.
    let places: Vec<&str> = report
        .damaged
        .iter()
        .take(100)
        .map(|page| page.place.as_str())
        .collect();
    let event = Event::by_person("RestoreRun")
        .with("pages", report.damaged.len())
        .with("places", places.join("; "))
        .with(
            "outcome",
            if report.sound {
                "repaired"
            } else {
                "not all repaired"
            },
        );
    if let Err(error) = host::runtime::wait(event.record(instance)) {
        terminal::note(&format!("bre: the repair is not in the audit log: {error}"));
    }
}
