//! `docs/guide.md`: each heading of the backup and recovery guide, and what of it exists here. The page is made from the table below;
//! `RENEW_GUIDE=1 cargo test -p testkit the_guide_page` writes it. What is missing says so until it exists.

use std::fmt::Write as _;
use std::fs;

use super::documents::dead_links;
use super::root;

/// What answers to a row of the guide.
#[derive(Clone, Copy)]
enum Does {
    /// A job of the plan, by its name.
    Job(&'static str),
    /// No job runs it: a person runs this.
    Command(&'static str),
    /// Both: the job covers a part of the row, and the text says which.
    Part(&'static str, &'static str),
    /// The engine does it by itself, without a job: the text says how.
    Itself(&'static str),
    /// The heading asks for nothing that runs.
    Text(&'static str),
    /// With what there is instead, where there is something.
    NotYet(&'static str),
}
use Does::{Command, Itself, Job, NotYet, Part, Text};

#[derive(Clone, Copy)]
struct Row {
    heading: &'static str,
    /// The part of the heading that this row is about.
    asks: &'static str,
    does: Does,
    /// `table.key` of bre.toml.
    settings: &'static [&'static str],
    /// Pages of `docs/operations`.
    pages: &'static [&'static str],
    /// A recovery procedure: it gets a runbook. Until then the commands stand here that a person runs.
    by_hand: Option<&'static [&'static str]>,
}

const fn row(
    heading: &'static str,
    asks: &'static str,
    does: Does,
    pages: &'static [&'static str],
) -> Row {
    Row {
        heading,
        asks,
        does,
        settings: &[],
        pages,
        by_hand: None,
    }
}

impl Row {
    const fn set_by(self, settings: &'static [&'static str]) -> Row {
        Row { settings, ..self }
    }

    const fn by_hand(self, commands: &'static [&'static str]) -> Row {
        Row {
            by_hand: Some(commands),
            ..self
        }
    }
}

/// All headings of the guide, in its order, with their level.
const HEADINGS: [(u8, &str); 40] = [
    (2, "Introduction"),
    (3, "Purpose and Scope"),
    (3, "Recovery Objectives"),
    (3, "Roles and Responsibilities"),
    (2, "Backup Strategy"),
    (3, "Database Backup Strategy"),
    (3, "Application State Backup"),
    (3, "Cache Backup Strategy"),
    (3, "Audit Log Backup"),
    (3, "Infrastructure Backup"),
    (2, "Recovery Procedures"),
    (3, "Database Recovery"),
    (3, "Complete Database Failure"),
    (3, "Partial Data Corruption"),
    (3, "Multi-AZ Failover"),
    (3, "Application Recovery"),
    (3, "Complete Application Failure"),
    (3, "Partial Application Failure"),
    (3, "Configuration Recovery"),
    (3, "Cache Recovery"),
    (3, "Redis Cache Failure"),
    (3, "ElastiCache Recovery"),
    (3, "Disaster Recovery"),
    (3, "Complete System Failure"),
    (3, "Region Failure"),
    (3, "Data Center Evacuation"),
    (3, "Data Recovery"),
    (3, "Accidental Data Deletion"),
    (3, "Data Corruption"),
    (3, "Audit Log Recovery"),
    (2, "Backup Monitoring and Verification"),
    (3, "Backup Monitoring"),
    (3, "Monitoring Metrics"),
    (3, "Monitoring Implementation"),
    (3, "Backup Verification"),
    (3, "Verification Procedures"),
    (3, "Automated Verification"),
    (3, "Recovery Testing"),
    (3, "Recovery Test Types"),
    (3, "Recovery Test Documentation"),
];

const ROWS: &[Row] = &[
    row("Purpose and Scope", "", Text("this page"), &["README.md"]),
    row("Recovery Objectives", "RPO < 5 minutes", Itself("strict mode loses nothing that was acknowledged; the drill counts it"), &["database_loss.md#what-can-be-lost", "drills.md"])
        .set_by(&["database.strict"]),
    row("Recovery Objectives", "RTO < 15 minutes", Command("bre drill database-loss"), &["drills.md#measured"]),
    row("Recovery Objectives", "backup success > 99.9 %, recovery success 100 %", NotYet("failures are alarms; no rate is computed"), &["backups.md"]),
    row("Roles and Responsibilities", "five roles", NotYet("operators' tokens exist, roles do not"), &["settings.md"]),
    row("Database Backup Strategy", "full, daily, 30 days", Job("full"), &["backups.md", "retention.md"])
        .set_by(&["backup.full", "backup.full_days"]),
    row("Database Backup Strategy", "incremental, hourly, 7 days", Job("incremental"), &["backups.md#incremental-backups", "retention.md"])
        .set_by(&["backup.incremental", "backup.incremental_days"]),
    row("Database Backup Strategy", "transaction logs, continuous, 7 days", Job("wal"), &["backups.md", "retention.md"])
        .set_by(&["backup.wal_days", "database.max_slot_wal_keep_size_mb"]),
    row("Database Backup Strategy", "schema, on change, 90 days, version control", Job("schema"), &["schema_backup.md"])
        .set_by(&["backup.schema", "backup.schema_to"]),
    row("Database Backup Strategy", "what is too old goes", Job("expire"), &["retention.md"])
        .set_by(&["backup.expire", "backup.grace_hours"]),
    row("Database Backup Strategy", "encryption, KMS, a new key every 90 days, access", Command("bre repository-key rotate"), &["keys.md", "s3.md"])
        .set_by(&["repository_key.provider", "repository_key.kms_key"]),
    row("Database Backup Strategy", "integrity check after each backup", Job("proof"), &["backups.md#restore-tests"])
        .set_by(&["backup.proof"]),
    row("Database Backup Strategy", "RDS automated backup, snapshots", NotYet(""), &[]),
    row("Application State Backup", "Kubernetes configuration", NotYet(""), &[]),
    row("Application State Backup", "Secrets", NotYet(""), &[]),
    row("Application State Backup", "ConfigMaps", NotYet(""), &[]),
    row("Application State Backup", "Helm values", NotYet(""), &[]),
    row("Cache Backup Strategy", "RDB snapshot", NotYet("the cache is filled again from the database"), &["settings.md"])
        .set_by(&["cache.url"]),
    row("Cache Backup Strategy", "AOF log", NotYet(""), &[]),
    row("Audit Log Backup", "database audit logs, daily, 7 years, WORM", Job("audit_archive"), &["audit.md#the-archive", "s3.md#object-lock"])
        .set_by(&["backup.audit_archive", "audit_key.provider", "repository.lock"]),
    row("Audit Log Backup", "application audit logs", NotYet(""), &[]),
    row("Audit Log Backup", "system audit logs", NotYet(""), &[]),
    row("Infrastructure Backup", "Terraform state", NotYet(""), &[]),
    row("Infrastructure Backup", "CloudFormation stacks", NotYet(""), &[]),
    row("Infrastructure Backup", "IAM policies", NotYet(""), &[]),
    row("Infrastructure Backup", "network configuration", NotYet(""), &[]),
    row("Complete Database Failure", "", Itself("`bre up` restores the newest backup and replays all WAL"), &["database_loss.md", "restore.md"])
        .by_hand(&["bre restore --to DIR"]),
    row("Partial Data Corruption", "tables out of a scratch restore", Command("bre table restore"), &["table_recovery.md", "data_corruption.md"])
        .by_hand(&["bre table restore", "bre backup repair-pages"]),
    row("Multi-AZ Failover", "", Itself("`bre up` promotes its standby; RDS failover: not yet"), &["spare.md"])
        .set_by(&["spare.enabled"])
        .by_hand(&["bre spare promote"]),
    row("Complete Application Failure", "", NotYet("`bre up` starts its own services in the guide's order"), &["settings.md#services-in-several-processes"])
        .by_hand(&[]),
    row("Partial Application Failure", "", NotYet("`bre up` restarts its own database and cache"), &["database_loss.md"]).by_hand(&[]),
    row("Configuration Recovery", "", NotYet(""), &[]).by_hand(&[]),
    row("Redis Cache Failure", "", Itself("`bre up` starts its Redis again and fills it from the database; from RDB or AOF: not yet"), &["database_loss.md"])
        .by_hand(&[]),
    row("ElastiCache Recovery", "", NotYet(""), &[]).by_hand(&[]),
    row("Complete System Failure", "", Part("on another machine with repository and keys", "infrastructure and application: not yet"), &["database_loss.md"])
        .by_hand(&["bre up --data DIR"]),
    row("Region Failure", "", Part("from a copy of the repository in another region", "the rest: not yet"), &["repositories.md#several-repositories", "s3.md"])
        .set_by(&["repositories.far.path"])
        .by_hand(&["bre restore --repository NAME"]),
    row("Data Center Evacuation", "", Part("`bre repository copy`, then a restore elsewhere", "the rest: not yet"), &["repositories.md#several-repositories"])
        .by_hand(&["bre repository copy --to NAME"]),
    row("Accidental Data Deletion", "point in time, table, rows", Command("bre table restore"), &["table_recovery.md", "restore.md"])
        .by_hand(&["bre restore --to DIR --time TIME", "bre table restore --table NAME --time TIME"]),
    row("Data Corruption", "", Command("bre backup verify --live"), &["data_corruption.md", "table_recovery.md"])
        .by_hand(&["bre backup repair-pages"]),
    row("Audit Log Recovery", "", Command("bre audit verify"), &["audit.md#damage-while-it-runs", "audit.md#all-of-it-is-lost"])
        .by_hand(&["bre audit verify", "bre audit reopen --reason TEXT"]),
    row("Monitoring Metrics", "success rate, duration, size", NotYet("`bre status` shows each job's last run"), &["backups.md#the-plan"]),
    row("Monitoring Metrics", "age > 125 % of schedule", Command("bre verify database"), &["backups.md#bre-verify-database"]),
    row("Monitoring Implementation", "custom metrics", Itself("`/metrics`"), &["settings.md"]).set_by(&["metrics.token_file"]),
    row("Monitoring Implementation", "CloudWatch alarms", NotYet(""), &[]),
    row("Monitoring Implementation", "dashboard", NotYet(""), &[]),
    row("Monitoring Implementation", "alerting", Itself("alarms in `bre status`, health and `/metrics`; escalation: not yet"), &["README.md"]),
    row("Verification Procedures", "weekly: restore to a test environment", Job("proof"), &["backups.md#restore-tests"])
        .set_by(&["backup.proof"]),
    row("Verification Procedures", "monthly: application-level validation", Job("proof"), &["backups.md#restore-tests"])
        .set_by(&["backup.proof"]),
    row("Verification Procedures", "quarterly: recovery test with timing", Command("bre drill database-loss"), &["drills.md"]),
    row("Automated Verification", "weekly integrity check", Command("bre verify repository"), &["repositories.md#is-all-of-it-readable"]),
    row("Automated Verification", "monthly restoration test", Job("proof"), &["backups.md#restore-tests"])
        .set_by(&["backup.proof"]),
    row("Automated Verification", "quarterly full recovery test", NotYet("`bre drill database-loss` by hand"), &["drills.md"]),
    row("Recovery Test Types", "tabletop exercises", NotYet(""), &[]),
    row("Recovery Test Types", "functional tests, monthly", Part("the database, after every backup", "other components: not yet"), &["backups.md#restore-tests"])
        .set_by(&["backup.proof"]),
    row("Recovery Test Types", "full recovery tests, semi-annual", Command("bre drill database-loss"), &["drills.md"]),
    row("Recovery Test Documentation", "plan, results, improvement actions", NotYet("the drill prints its results as JSON"), &["drills.md"]),
];

const PAGE: &str = "docs/guide.md";

#[test]
fn the_guide_page_is_what_the_table_makes() {
    let made = page();
    let path = root().join(PAGE);
    if std::env::var_os("RENEW_GUIDE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        there, made,
        "write it: RENEW_GUIDE=1 cargo test -p testkit the_guide_page"
    );
}

#[test]
fn the_guide_page_speaks_of_every_heading_job_and_setting() {
    assert_eq!(row_faults(ROWS), Vec::<String>::new());
    let settings = read("docs/operations/settings.md");
    let plan = read("docs/operations/backups.md");
    assert_eq!(setting_faults(ROWS, &settings), Vec::<String>::new());
    assert_eq!(job_faults(ROWS, &plan), Vec::<String>::new());
    assert_eq!(dead_links(PAGE, &page()), Vec::<String>::new());
}

/// Called by `every_rule_can_fail`.
pub(super) fn rules_can_fail() {
    let some = row("Redis Cache Failure", "", Job("full"), &[]).set_by(&["backup.full"]);
    let all: Vec<Row> = ROWS.to_vec();
    let without: Vec<Row> = all
        .iter()
        .filter(|row| row.heading != "Region Failure")
        .copied()
        .collect();
    assert_eq!(row_faults(&without), ["Region Failure: no row"]);
    let unknown = [all.as_slice(), &[row("Region Loss", "", NotYet(""), &[])]].concat();
    assert_eq!(
        row_faults(&unknown),
        ["Region Loss: no heading of the guide"]
    );
    let moved = [&all[1..], &all[..1]].concat();
    assert_eq!(
        row_faults(&moved),
        ["Purpose and Scope: out of the guide's order"]
    );
    let page = "## The plan\n| `full` | daily |\n\n## Else\n| `other` | |\n";
    assert_eq!(job_faults(&[some], page), Vec::<String>::new());
    assert_eq!(
        job_faults(&[], page),
        ["full: a job of the plan without a row"]
    );
    assert_eq!(
        job_faults(&[some], "## The plan\n"),
        ["full: no job of the plan"]
    );
    let known = "```toml\n[backup]\nfull = 1\n```";
    assert_eq!(setting_faults(&[some], known), Vec::<String>::new());
    for settings in [
        "[backup]\nfull = 1",
        "```toml\n[cache]\nfull = 1\n```",
        "```toml\n[backup]\nfull_days = 1\n```",
    ] {
        assert_eq!(
            setting_faults(&[some], settings),
            ["[backup] full: no such setting"]
        );
    }
}

/// Every heading without children has rows, in the guide's order, and every row has a heading.
fn row_faults(rows: &[Row]) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, (level, heading)) in HEADINGS.iter().enumerate() {
        let next = HEADINGS.get(index + 1).map(|next| next.1);
        let is_group = *level == 2 || next.is_some_and(|next| GROUPS.contains(&(heading, next)));
        if !is_group && !rows.iter().any(|row| row.heading == *heading) {
            faults.push(format!("{heading}: no row"));
        }
    }
    let place = |row: &Row| {
        HEADINGS
            .iter()
            .position(|(_, heading)| *heading == row.heading)
    };
    let mut last = 0;
    for row in rows {
        match place(row) {
            None => faults.push(format!("{}: no heading of the guide", row.heading)),
            Some(at) if at < last => {
                faults.push(format!("{}: out of the guide's order", row.heading))
            }
            Some(at) => last = at,
        }
    }
    faults
}

/// Headings whose procedures follow as headings of the same level: (heading, the first of them).
const GROUPS: [(&str, &str); 8] = [
    ("Database Recovery", "Complete Database Failure"),
    ("Application Recovery", "Complete Application Failure"),
    ("Cache Recovery", "Redis Cache Failure"),
    ("Disaster Recovery", "Complete System Failure"),
    ("Data Recovery", "Accidental Data Deletion"),
    ("Backup Monitoring", "Monitoring Metrics"),
    ("Backup Verification", "Verification Procedures"),
    ("Recovery Testing", "Recovery Test Types"),
];

/// Jobs of the plan, as its page lists them, against the rows.
fn job_faults(rows: &[Row], page: &str) -> Vec<String> {
    let plan = page
        .split_once("## The plan")
        .map_or("", |(_, after)| after);
    let plan = plan.split("\n## ").next().unwrap_or_default();
    let listed = plan
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: Vec<&str> = listed.collect();
    let named: Vec<&str> = rows
        .iter()
        .filter_map(|row| {
            if let Job(name) = row.does {
                Some(name)
            } else {
                None
            }
        })
        .collect();
    let missing = listed
        .iter()
        .filter(|name| !named.contains(name))
        .map(|name| format!("{name}: a job of the plan without a row"));
    let unknown = named
        .iter()
        .filter(|name| !listed.contains(name))
        .map(|name| format!("{name}: no job of the plan"));
    missing.chain(unknown).collect()
}

/// Settings that the page of settings does not have, in a block of TOML, shown as set or as a comment.
fn setting_faults(rows: &[Row], page: &str) -> Vec<String> {
    let mut known = Vec::new();
    for block in page.split("```toml\n").skip(1) {
        let mut table = String::new();
        for line in block.split("```").next().unwrap_or_default().lines() {
            let line = line.trim_start_matches(['#', ' ']);
            if let Some(name) = line.strip_prefix('[') {
                name.trim_start_matches('[')
                    .split(']')
                    .next()
                    .unwrap_or_default()
                    .clone_into(&mut table);
            } else if let Some((key, _)) = line.split_once(" = ") {
                known.push(format!("{table}.{key}"));
            }
        }
    }
    let settings = rows.iter().flat_map(|row| row.settings);
    let unknown = settings.filter(|setting| !known.iter().any(|known| known == *setting));
    unknown
        .map(|setting| format!("{}: no such setting", setting_shown(setting)))
        .collect()
}

fn setting_shown(setting: &str) -> String {
    let (table, key) = setting.rsplit_once('.').unwrap_or(("", setting));
    format!("[{table}] {key}")
}

fn page() -> String {
    let mut page = String::from(
        "# The guide's headings\n\n\
         Each heading of the backup and recovery guide, and what of it exists here: the job that runs it, its settings in\n\
         `bre.toml`, the page for operators, the runbook. **Not yet** means that it is missing.\n\n\
         This page is made by `RENEW_GUIDE=1 cargo test -p testkit the_guide_page`; a test compares it with the plan, the settings\n\
         and the pages.\n",
    );
    for (level, heading) in HEADINGS {
        if level == 2 {
            write!(page, "\n## {heading}\n").unwrap();
            continue;
        }
        if GROUPS.iter().any(|(group, _)| *group == heading) {
            write!(page, "\n### {heading}\n").unwrap();
            continue;
        }
        let rows: Vec<&Row> = ROWS.iter().filter(|row| row.heading == heading).collect();
        if !page.ends_with("|\n") {
            page.push_str("\n| heading | asks for | job, or what answers to it | settings | operations page | runbook |\n|---|---|---|---|---|---|\n");
        }
        for row in rows {
            page.push_str(&row.line());
        }
    }
    page
}

impl Row {
    fn line(&self) -> String {
        let does = match self.does {
            Job(name) => format!("job `{name}`"),
            Command(command) => format!("`{command}`, by hand"),
            Part(done, missing) => format!("{done}; {missing}"),
            Itself(text) | Text(text) => text.to_owned(),
            NotYet("") => "**not yet**".to_owned(),
            NotYet(instead) => format!("**not yet**; {instead}"),
        };
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|setting| format!("`{}`", setting_shown(setting)))
            .collect();
        let link = |page: &&str| {
            let name = page
                .split('#')
                .next()
                .unwrap_or_default()
                .trim_end_matches(".md");
            let name = if name == "README" { "index" } else { name };
            format!("[{}](operations/{page})", name.replace('_', " "))
        };
        let pages: Vec<String> = self.pages.iter().map(link).collect();
        let runbook = match self.by_hand {
            None => String::new(),
            Some([]) => "**not yet**".to_owned(),
            Some(commands) => {
                let commands: Vec<String> = commands
                    .iter()
                    .map(|command| format!("`{command}`"))
                    .collect();
                format!("**not yet**; by hand: {}", commands.join(", "))
            }
        };
        let cells = [
            self.heading,
            self.asks,
            &does,
            &settings.join(", "),
            &pages.join(", "),
            &runbook,
        ];
        format!("| {} |\n", cells.join(" | "))
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}
