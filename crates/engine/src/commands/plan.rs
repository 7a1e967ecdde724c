//! `bre plan show|check`: the guide's strategy as the plan keeps it, and what each of its rows lacks here.

use std::{collections::BTreeMap, process::ExitCode};

use ::jobs::{Pause, Records, RunRecord, StateFile, schedule::Trigger};
use host::{instance::Instance, location::Location};
use jiff::Timestamp;
use serde::Serialize;
use terminal::{self, KeyValue, Table, age, moment, time};

use crate::{cli::PlanCheckArgs, error::Error};
use operations::{
    application_state::{self, StateComponent},
    clusters, config,
    config::Delegation,
    exit::Exit,
    job_status::{JobDescription, JobRun, JobState, JobStatusFile},
    jobs::{
        self,
        settings::{self, runs_by_itself},
    },
    provider_check, schema,
    strategy::{JobCondition, RowCheck, STRATEGY, Section, StrategyRow, Verdict, row_of},
};

/// No run that a person's own process began takes as long: one that began before the file was written and ended after
/// it is found.
const RUN_MICROS_MAX: i64 = 86_400_000_000;

/// One row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// The named cluster whose job it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    /// As settings and metrics of older engines call it.
    pub(super) job: String,
    pub(super) name: String,
    pub(super) component: String,
    pub(super) kind: String,
    pub(super) schedule: String,
    pub(super) retention: String,
    pub(super) storage: String,
    /// `repository`, `git`, `local`.
    pub(super) storage_class: String,
    pub(super) verification: String,
    /// The row of the guide's backup strategy that it answers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) guide: Option<GuideRow>,
    /// `running`, `waiting`, `failed`, `paused`, `off`, `cannot`, `not here`, `provided`, or `not running` when no
    /// engine keeps the plan.
    pub(super) state: &'static str,
    /// Why it cannot, why it is paused, what it waits for, or what its last run said.
    pub(super) said: Option<String>,
    pub(super) last_started_at: Option<String>,
    pub(super) last_ended_at: Option<String>,
    pub(super) last_succeeded: Option<bool>,
    pub(super) next_at: Option<String>,
    /// The same for people.
    #[serde(skip)]
    pub(super) last_started_micros: Option<i64>,
    #[serde(skip)]
    pub(super) next_micros: Option<i64>,
}

/// In the guide's words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GuideRow {
    section: &'static str,
    component: &'static str,
}

/// The plan: what is meant to happen.
pub(crate) fn show(
    instance: &Instance,
    json: bool,
    cluster: Option<&str>,
) -> Result<ExitCode, Error> {
    let rows = rows_of(instance, cluster)?;
    terminal::result(json, &rows, || by_cluster(&rows, plan_table));
    Ok(ExitCode::SUCCESS)
}

/// Reading the settings refuses those that make no plan; then each row of the guide is looked at. A file that is named
/// is judged by what it says: no engine need run by it yet.
pub(crate) fn check(
    instance: &Instance,
    json: bool,
    args: &PlanCheckArgs,
) -> Result<ExitCode, Error> {
    let config = settings::load(args.config.as_deref(), instance.root())?.backup;
    let names = jobs::names(&config);
    let of_clusters: BTreeMap<_, _> = (config.clusters.iter())
        .map(|(name, plan)| (name, jobs::names(plan)))
        .collect();
    let rows = match args.config {
        Some(_) => None,
        None => Some(rows_of(instance, None)?),
    };
    let mut checks = strategy_checks(&config, rows.as_deref());
    // The settings alone are looked at where another file is named.
    if rows.is_some() {
        ask_providers(&config, &mut checks);
    }
    let said = serde_json::json!({ "jobs": names, "clusters": of_clusters, "rows": checks });
    terminal::result(json, &said, || {
        let clusters = match of_clusters.len() {
            0 => String::new(),
            count => format!(
                ", those of {} among them",
                terminal::count(count as u64, "cluster")
            ),
        };
        let all = names.len() + of_clusters.values().map(Vec::len).sum::<usize>();
        format!(
            "{}\n{all} jobs{clusters}, and the settings make a plan of them\n",
            check_table(&checks)
        )
    });
    Ok(exit_of(&checks).into())
}

/// A service that the settings name in a job's place is asked whether it is so.
fn ask_providers(config: &config::Backup, checks: &mut [RowCheck]) {
    for row in checks {
        let Some(Delegation::ProvidedBy(provider)) = config.delegation_of(row.job) else {
            continue;
        };
        match provider_check::ask(*provider, row.job, config) {
            Ok(said) => row.why = Some(format!("provided by {}: {said}", provider.name())),
            Err(fault) => {
                row.verdict = Verdict::Wrong;
                row.why = Some(fault.why);
                row.mend = Some(fault.mend);
            }
        }
    }
}

/// `rows`: as they are here; the settings alone are looked at without them.
pub(crate) fn strategy_checks(config: &config::Backup, rows: Option<&[Row]>) -> Vec<RowCheck> {
    let guide = config::Backup::default();
    let check = |row: &StrategyRow| {
        let seen = match rows {
            None => JobCondition::NotAsked,
            Some(rows) => rows
                .iter()
                .find(|job| job.cluster.is_none() && job.name == row.job)
                .map_or(JobCondition::NotRunning, Row::seen),
        };
        row.check(
            jobs::spec(config, row.job).as_ref(),
            jobs::spec(&guide, row.job).as_ref(),
            config.delegation_of(row.job),
            &seen,
        )
    };
    STRATEGY.iter().map(check).collect()
}

/// The worst of them.
fn exit_of(checks: &[RowCheck]) -> Exit {
    let any = |verdicts: &[Verdict]| checks.iter().any(|row| verdicts.contains(&row.verdict));
    if any(&[Verdict::Wrong, Verdict::Missing]) {
        Exit::Failed
    } else if any(&[Verdict::NotRunning]) {
        Exit::NotRunning
    } else if any(&[Verdict::NotHere]) {
        Exit::Partial
    } else {
        Exit::Done
    }
}

pub(crate) fn check_table(checks: &[RowCheck]) -> String {
    let mut table = Table::new(&["component", "job", "verdict", "why"]);
    let mut remedies = Table::new(&["to mend", "write or run"]);
    for row in checks {
        table.row([
            row.component.to_owned(),
            row.job.to_owned(),
            row.verdict.words().to_owned(),
            row.why.clone().unwrap_or_default(),
        ]);
        if let Some(mend) = &row.mend {
            remedies.row([row.component.to_owned(), mend.clone()]);
        }
    }
    match checks.iter().any(|row| row.mend.is_some()) {
        true => format!("{}\n{}", table.text(), remedies.text()),
        false => table.text(),
    }
}

/// Whose jobs they are, and where these lie.
#[derive(Debug)]
pub(crate) struct PlanOwner {
    /// The instance itself when absent.
    cluster: Option<String>,
    pub(crate) home: Instance,
    pub(crate) config: config::Backup,
    storage: Location,
    schema: String,
    /// Where the state of the application goes that is in git.
    state: String,
}

impl PlanOwner {
    pub(crate) fn of(instance: &Instance, cluster: Option<&str>) -> Result<Self, Error> {
        if let Some(name) = cluster {
            let cluster = clusters::find(instance, name)?;
            return Ok(Self {
                storage: cluster.repository(),
                home: cluster.instance,
                config: cluster.plan,
                cluster: Some(cluster.name),
                schema: String::new(),
                state: String::new(),
            });
        }
        let config = settings::load(None, instance.root())?;
        let own = || instance.repository().into();
        Ok(Self {
            cluster: None,
            home: instance.clone(),
            storage: match instance.announced() {
                Some(running) => running.repository,
                None => config.repository.path.unwrap_or_else(own),
            },
            schema: schema::place(instance, config.backup.schema_to.as_ref()),
            state: application_state::place(instance, &config.backup),
            config: config.backup,
        })
    }

    /// The instance, and each cluster of which something runs by itself.
    fn all(instance: &Instance) -> Result<Vec<Self>, Error> {
        let own = Self::of(instance, None)?;
        let plans = own.config.clusters.iter();
        let planned = plans.filter(|(_, plan)| runs_by_itself(plan));
        let planned: Vec<String> = planned.map(|(name, _)| name.clone()).collect();
        let of_clusters = planned.iter().map(|name| Self::of(instance, Some(name)));
        std::iter::once(Ok(own)).chain(of_clusters).collect()
    }

    /// What ran before this is in the file that the process with the plan leaves: only what has ended since is looked
    /// for among the records.
    fn newest_runs(&self) -> Result<BTreeMap<String, RunRecord>, Error> {
        let told_at = std::fs::metadata(self.home.plan_file()).and_then(|it| it.modified());
        let told_at = told_at.ok().and_then(|at| Timestamp::try_from(at).ok());
        let root = self.home.root();
        Ok(match told_at {
            Some(at) => {
                let from_micros = at.as_microsecond() - RUN_MICROS_MAX;
                Records::newest_runs(root, jobs::names(&self.config), from_micros)?
            }
            None => Records::newest_of_all(root, &self.home.cache().join("newest_runs.json"))?,
        })
    }

    /// From the settings, the records of runs and what the process with the plan says of itself: the store is not
    /// asked.
    pub(crate) fn rows(&self) -> Result<Vec<Row>, Error> {
        let newest = self.newest_runs()?;
        let state = StateFile::at(&self.home.root().join("jobs.json")).read()?;
        let table = Jobs {
            config: &self.config,
            storage: format!("{} (encrypted)", self.storage),
            schema: self.schema.clone(),
            state: self.state.clone(),
            recorded: &|name| newest.get(name).map(JobRun::of),
            standing: JobStatusFile::read(&self.home.plan_file()),
            paused: &|name| state.paused(name).cloned(),
            is_kept: self.home.is_locked(),
            now: Timestamp::now().as_microsecond(),
        };
        let mut rows = table.rows();
        for row in &mut rows {
            row.cluster.clone_from(&self.cluster);
        }
        Ok(rows)
    }
}

/// Of this cluster, or of the instance and of all clusters that have a plan.
pub(crate) fn rows_of(instance: &Instance, cluster: Option<&str>) -> Result<Vec<Row>, Error> {
    let owners = match cluster {
        Some(_) => vec![PlanOwner::of(instance, cluster)?],
        None => PlanOwner::all(instance)?,
    };
    let rows = owners.iter().map(PlanOwner::rows);
    let rows: Vec<Vec<Row>> = rows.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// One table each.
pub(crate) fn by_cluster(rows: &[Row], table: impl Fn(&[Row]) -> String) -> String {
    let of_one = |rows: &[Row]| match rows.first().and_then(|row| row.cluster.as_ref()) {
        Some(name) => format!("cluster {name}\n{}", table(rows)),
        None => table(rows),
    };
    let tables = rows.chunk_by(|a, b| a.cluster == b.cluster).map(of_one);
    tables.collect::<Vec<_>>().join("\n")
}

/// Those of the settings; where an engine runs as it has them, and those that only it has.
pub(super) fn described(
    config: &config::Backup,
    standing: &JobStatusFile,
    is_kept: bool,
) -> Vec<JobDescription> {
    let mut jobs: Vec<JobDescription> =
        jobs::specs(config).iter().map(JobDescription::of).collect();
    for job in standing.described().filter(|_| is_kept) {
        match jobs.iter_mut().find(|known| known.name == job.name) {
            Some(known) => known.clone_from(job),
            None => jobs.push(job.clone()),
        }
    }
    jobs
}

pub(crate) struct Jobs<'a> {
    pub(crate) config: &'a config::Backup,
    pub(crate) storage: String,
    pub(crate) schema: String,
    pub(crate) state: String,
    /// The newest run of a job, by its records.
    pub(crate) recorded: &'a dyn Fn(&str) -> Option<JobRun>,
    pub(crate) standing: JobStatusFile,
    pub(crate) paused: &'a dyn Fn(&str) -> Option<Pause>,
    /// An engine runs.
    pub(crate) is_kept: bool,
    pub(crate) now: i64,
}

impl Jobs<'_> {
    pub(crate) fn rows(&self) -> Vec<Row> {
        let jobs = described(self.config, &self.standing, self.is_kept);
        jobs.into_iter().map(|job| self.row(job)).collect()
    }

    fn row(&self, job: JobDescription) -> Row {
        let known = self.standing.of(&job.short).cloned().unwrap_or_default();
        let paused = (self.paused)(&job.name);
        let trigger: Trigger = job.schedule.parse().unwrap_or(Trigger::Off);
        // What was done by hand just now is on record only.
        let last = match known.running && self.is_kept {
            true => known.last.clone(),
            false => [known.last.clone(), (self.recorded)(&job.name)]
                .into_iter()
                .flatten()
                .max_by_key(|ran| ran.started_micros),
        };
        let state = match self.config.delegation_of(&job.name) {
            Some(Delegation::NotHere(_)) => "not here",
            Some(Delegation::ProvidedBy(_)) => "provided",
            None => self.state(&trigger, &known, last.as_ref(), paused.is_some()),
        };
        let next_micros = self.next(&trigger, known.next_micros, state);
        let last = last.as_ref();
        let in_a_zone = job.schedule.contains('/');
        let delegation = self.config.delegation_of(&job.name);
        let guide = row_of(&job.name);
        Row {
            cluster: None,
            guide: guide.map(|row| GuideRow {
                section: row.section.heading(),
                component: row.component,
            }),
            schedule: match trigger.period() {
                Some(_) if !in_a_zone => format!("{trigger} UTC"),
                _ => trigger.to_string(),
            },
            storage_class: job.storage.clone(),
            storage: match job.storage.as_str() {
                "repository" => self.storage.clone(),
                "git" if StateComponent::named(&job.component).is_some() => self.state.clone(),
                "git" => self.schema.clone(),
                other => other.to_owned(),
            },
            job: job.short,
            name: job.name,
            component: job.component,
            kind: job.kind,
            retention: job.retention,
            verification: job.verification,
            state,
            said: delegation
                .map(Delegation::to_string)
                .or(paused.map(|paused| paused_words(&paused)))
                .or(known.progress.filter(|_| state == "running"))
                .or(known.unavailable_reason)
                .or(known.waits_for.filter(|_| state == "waiting"))
                .or_else(|| last.map(|last| last.summary.clone())),
            last_started_at: last.map(|last| time(last.started_micros)),
            last_ended_at: last.and_then(|last| last.ended_micros).map(time),
            last_succeeded: last.and_then(|last| last.succeeded),
            next_at: next_micros.map(time),
            last_started_micros: last.map(|last| last.started_micros),
            next_micros,
        }
    }

    fn state(
        &self,
        trigger: &Trigger,
        known: &JobState,
        last: Option<&JobRun>,
        paused: bool,
    ) -> &'static str {
        match (trigger, last.and_then(|last| last.succeeded)) {
            _ if known.running && self.is_kept => "running",
            _ if paused => "paused",
            (Trigger::Off, _) => "off",
            _ if known.unavailable_reason.is_some() => "cannot",
            _ if !self.is_kept => "not running",
            (_, Some(false)) => "failed",
            _ => "waiting",
        }
    }

    fn next(&self, trigger: &Trigger, kept: Option<i64>, state: &str) -> Option<i64> {
        match state {
            "waiting" => trigger.next_appointment(self.now).or(kept),
            "failed" => kept.map(|kept| kept.max(self.now)),
            _ => None,
        }
    }
}

impl Row {
    fn seen(&self) -> JobCondition {
        let said = || self.said.clone().unwrap_or_default();
        match self.state {
            "paused" => JobCondition::Paused(said()),
            "cannot" => JobCondition::Unavailable(said()),
            "failed" => JobCondition::Failed(said()),
            "not running" => JobCondition::NotRunning,
            _ => JobCondition::Working,
        }
    }
}

fn paused_words(paused: &Pause) -> String {
    let since = moment(paused.since_micros);
    match paused.reason.as_str() {
        "" => format!("by {} since {since}", paused.by),
        reason => format!("{reason} (by {} since {since})", paused.by),
    }
}

/// The guide's five tables, and the jobs that no row of them names.
pub(crate) fn plan_table(rows: &[Row]) -> String {
    let mut parts = Vec::new();
    for section in Section::ALL {
        let mut table = Table::new(&[
            "component",
            "method",
            "frequency",
            "retention",
            "storage",
            "job",
        ]);
        let mut is_empty = true;
        for of_guide in section.rows() {
            for row in rows.iter().filter(|row| row.name == of_guide.job) {
                is_empty = false;
                let (frequency, storage) = match row.state {
                    "not here" | "provided" => {
                        (row.said.clone().unwrap_or_default(), "-".to_owned())
                    }
                    _ => (row.schedule.clone(), row.storage_class.clone()),
                };
                table.row([
                    of_guide.component.to_owned(),
                    row.kind.clone(),
                    frequency,
                    row.retention.clone(),
                    storage,
                    row.name.clone(),
                ]);
            }
        }
        if !is_empty {
            parts.push(format!("{}\n{}", section.heading(), table.text()));
        }
    }
    let others: Vec<&Row> = rows.iter().filter(|row| row.guide.is_none()).collect();
    if !others.is_empty() {
        let mut table = Table::new(&["job", "component", "schedule", "kept", "verification"]);
        for row in others {
            table.row([
                row.name.clone(),
                row.component.clone(),
                row.schedule.clone(),
                row.retention.clone(),
                row.verification.clone(),
            ]);
        }
        parts.push(format!("Other jobs\n{}", table.text()));
    }
    // Each place once: most jobs write to the same one.
    let mut places = KeyValue::new();
    let mut known: Vec<&str> = Vec::new();
    for row in rows {
        let class = row.storage_class.as_str();
        if class != row.storage && !known.contains(&row.storage.as_str()) {
            known.push(&row.storage);
            places.row(class, &row.storage);
        }
    }
    if !known.is_empty() {
        parts.push(places.text());
    }
    parts.join("\n")
}

pub(crate) fn job_table(rows: &[Row], now_micros: i64) -> String {
    let mut table = Table::new(&["job", "state", "last run", "next run", "said"]);
    for row in rows {
        let ago = |at: Option<i64>| at.map(|at| age(now_micros, at)).unwrap_or_default();
        let last = ago(row.last_started_micros);
        let last = match row.last_succeeded {
            Some(false) => format!("FAILED {last}"),
            _ => last,
        };
        table.row([
            row.job.clone(),
            row.state.to_owned(),
            last,
            ago(row.next_micros),
            row.said.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

#[cfg(test)]
#[path = "screens/plan.rs"]
pub(crate) mod screens;
