//! `docs/guide.md`: each heading of the backup and recovery guide, and what of it exists here. The page is made from
//! `guide.toml`; `RENEW_GUIDE=1 cargo test -p testkit the_guide_page` writes it. What is missing says so.

use std::fs;

use super::documents::dead_links;
use super::root;

const ROWS: &str = include_str!("guide.toml");

/// What answers to a row of the guide: `guide.toml` explains each.
#[derive(Clone)]
enum Does {
    Job(String),
    Command(String),
    Itself(String),
    Part(String),
    NotYet(String),
}

#[derive(Clone)]
struct Row {
    heading: String,
    asks: String,
    does: Does,
    settings: Vec<String>,
    pages: Vec<String>,
    by_hand: Option<Vec<String>>,
}

/// Rows of `guide.toml`. A word that is not known is a fault.
fn rows_of(text: &str) -> Result<Vec<Row>, String> {
    let table: toml::Table = text.parse().map_err(|e| format!("{e}"))?;
    let rows = table
        .get("row")
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    rows.iter()
        .filter_map(toml::Value::as_table)
        .map(row_of)
        .collect()
}

fn row_of(table: &toml::Table) -> Result<Row, String> {
    let mut row = Row {
        heading: String::new(),
        asks: String::new(),
        does: Does::NotYet(String::new()),
        settings: Vec::new(),
        pages: Vec::new(),
        by_hand: None,
    };
    let mut answers = 0;
    for (key, value) in table {
        let text = || value.as_str().unwrap_or_default().to_owned();
        let texts = || -> Vec<String> {
            let values = value.as_array().into_iter().flatten();
            values
                .filter_map(toml::Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let does: Option<fn(String) -> Does> = match key.as_str() {
            "job" => Some(Does::Job),
            "command" => Some(Does::Command),
            "itself" => Some(Does::Itself),
            "part" => Some(Does::Part),
            "not_yet" => Some(Does::NotYet),
            _ => None,
        };
        if let Some(does) = does {
            row.does = does(text());
            answers += 1;
            continue;
        }
        match key.as_str() {
            "heading" => row.heading = text(),
            "asks" => row.asks = text(),
            "settings" => row.settings = texts(),
            "pages" => row.pages = texts(),
            "by_hand" => row.by_hand = Some(texts()),
            other => return Err(format!("{}: {other} is not known", row.heading)),
        }
    }
    match answers {
        1 => Ok(row),
        _ => Err(format!(
            "{}: one of job, command, itself, part, not_yet",
            row.heading
        )),
    }
}

fn rows() -> Vec<Row> {
    rows_of(ROWS).unwrap()
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
    let rows = rows();
    assert_eq!(row_faults(&rows), Vec::<String>::new());
    let settings = read("docs/operations/settings.md");
    let plan = read("docs/operations/backups.md");
    assert_eq!(setting_faults(&rows, &settings), Vec::<String>::new());
    assert_eq!(job_faults(&rows, &plan), Vec::<String>::new());
    assert_eq!(dead_links(PAGE, &page()), Vec::<String>::new());
}

/// Called by `every_rule_can_fail`.
pub(super) fn rules_can_fail() {
    let one = |text: &str| rows_of(&format!("[[row]]\n{text}\n")).map(|rows| rows[0].clone());
    let some =
        [
            one("heading = \"Redis Cache Failure\"\njob = \"full\"\nsettings = [\"backup.full\"]")
                .unwrap(),
        ];
    for wrong in [
        "heading = \"A\"",
        "job = \"a\"\npart = \"b\"",
        "job = \"a\"\nextra = \"b\"",
    ] {
        assert!(one(wrong).is_err(), "{wrong}");
    }
    let all = rows();
    let without: Vec<Row> = all
        .iter()
        .filter(|row| row.heading != "Region Failure")
        .cloned()
        .collect();
    assert_eq!(row_faults(&without), ["Region Failure: no row"]);
    let unknown = [
        all.as_slice(),
        &[one("heading = \"Region Loss\"\njob = \"full\"").unwrap()],
    ]
    .concat();
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
    assert_eq!(job_faults(&some, page), Vec::<String>::new());
    assert_eq!(
        job_faults(&[], page),
        ["full: a job of the plan without a row"]
    );
    assert_eq!(
        job_faults(&some, "## The plan\n"),
        ["full: no job of the plan"]
    );
    let known = "```toml\n[backup]\nfull = 1\n```";
    assert_eq!(setting_faults(&some, known), Vec::<String>::new());
    for settings in [
        "[backup]\nfull = 1",
        "```toml\n[cache]\nfull = 1\n```",
        "```toml\n[backup]\nfull_days = 1\n```",
    ] {
        assert_eq!(
            setting_faults(&some, settings),
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
            if let Does::Job(name) = &row.does {
                Some(name.as_str())
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
    let settings = rows.iter().flat_map(|row| &row.settings);
    let unknown = settings.filter(|setting| !known.contains(setting));
    unknown
        .map(|setting| format!("{}: no such setting", setting_shown(setting)))
        .collect()
}

fn setting_shown(setting: &str) -> String {
    let (table, key) = setting.rsplit_once('.').unwrap_or(("", setting));
    format!("[{table}] {key}")
}

const HEAD: &str = "\
# The guide's headings

Each heading of the backup and recovery guide, and what of it exists here: the job that runs it, its settings in
`bre.toml`, the page for operators, the runbook. **Not yet** means that it is missing.

This page is made by `RENEW_GUIDE=1 cargo test -p testkit the_guide_page`; a test compares it with the plan, the
settings and the pages.
";
/// Made and compared with the plan by `operations::strategy`.
const STRATEGY: &str = include_str!("strategy.md");
const STRATEGY_HEAD: &str = "
The five tables as the plan keeps them without any settings; `bre plan show` prints them as an instance has them, and
`bre plan check` says row by row what is missing there.
";
const TABLE_HEAD: &str = "
| heading | asks for | job, or what answers to it | settings | operations page | runbook |
|---|---|---|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let rows = rows();
    for (level, heading) in HEADINGS {
        if level == 2 {
            page.push_str(&format!("\n## {heading}\n"));
            if heading == "Backup Strategy" {
                page.push_str(STRATEGY_HEAD);
                page.push_str(STRATEGY);
            }
            continue;
        }
        if GROUPS.iter().any(|(group, _)| *group == heading) {
            page.push_str(&format!("\n### {heading}\n"));
            continue;
        }
        if !page.ends_with("|\n") || page.ends_with(STRATEGY) {
            page.push_str(TABLE_HEAD);
        }
        for row in rows.iter().filter(|row| row.heading == heading) {
            page.push_str(&row.line());
        }
    }
    page
}

impl Row {
    fn line(&self) -> String {
        let does = match &self.does {
            Does::Job(name) => format!("job `{name}`"),
            Does::Command(command) => format!("`{command}`, by hand"),
            Does::Part(text) | Does::Itself(text) => text.clone(),
            Does::NotYet(instead) if instead.is_empty() => "**not yet**".to_owned(),
            Does::NotYet(instead) => format!("**not yet**; {instead}"),
        };
        let runbook = match &self.by_hand {
            None => String::new(),
            Some(commands) if commands.is_empty() => "**not yet**".to_owned(),
            Some(commands) => format!(
                "**not yet**; by hand: {}",
                listed(commands, |c| format!("`{c}`"))
            ),
        };
        let settings = listed(&self.settings, |setting| {
            format!("`{}`", setting_shown(setting))
        });
        let pages = listed(&self.pages, page_link);
        let cells = [
            &self.heading,
            &self.asks,
            &does,
            &settings,
            &pages,
            &runbook,
        ];
        format!("| {} |\n", cells.map(String::as_str).join(" | "))
    }
}

fn listed(items: &[String], show: fn(&str) -> String) -> String {
    let shown: Vec<String> = items.iter().map(|item| show(item)).collect();
    shown.join(", ")
}

fn page_link(page: &str) -> String {
    let name = page
        .split('#')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".md");
    let name = if name == "README" { "index" } else { name };
    format!("[{}](operations/{page})", name.replace('_', " "))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}
