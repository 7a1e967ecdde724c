//! The house rules that a machine can check: who may depend on whom, and what may stand in a file.
#![allow(clippy::unwrap_used)]

#[path = "tidy/direction.rs"]
mod direction;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/edges.rs"]
mod edges;
#[path = "tidy/guide.rs"]
mod guide;
#[path = "tidy/style.rs"]
mod style;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use edges::EDGES;

/// Where a web framework may appear, and an SQL toolkit besides it.
const WEB: [&str; 3] = ["services", "engine", "bench"];
/// The feature that turns on API for tests. Nothing that is shipped has it.
const TESTING: &str = "testing";
const LINES_MAX: usize = 700;
const UNRECORDED: &str = "start_unrecorded";
/// Where client programs of PostgreSQL are told their database. They take a name for a connection string, so it is quoted in one place.
/// The driver of the services takes a name as a name.
const NAMES_DATABASES: [&str; 3] = [
    "crates/connection/src/",
    "crates/postgres_physical/src/",
    "crates/services/src/data/database.rs",
];

/// How a file is read, and what the name of one that holds a secret has in it. Such files are read by `secrets`, which looks first who
/// else can reach them.
const READS: [&str; 6] = [
    "fs::read(",
    "read_to_string(",
    "file::open(",
    "pem_file_iter(",
    "from_pem_file(",
    "profile_files(",
];
const SECRETS: [&str; 6] = ["key", "secret", "token", "password", "credentials", "pin"];

#[test]
fn only_the_allowed_edges() {
    let mut faults = Vec::new();
    for folder in package_folders() {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        faults.extend(manifest_faults(&name_of(&folder), &manifest));
    }
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        package_folders().len(),
        EDGES.len(),
        "a crate without a row, or a row without a crate"
    );
}

#[test]
fn the_architecture_prints_the_same_edges() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let printed: BTreeMap<_, _> = printed_table(&page, "edges").into_iter().collect();
    let enforced = EDGES.map(|(name, to)| (name.to_owned(), sorted(to.iter().copied())));
    assert_eq!(printed, BTreeMap::from(enforced));
}

#[test]
fn modules_have_a_direction_and_the_architecture_prints_it() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (package, rows) in direction::MODULES {
        assert_eq!(direction::table_faults(rows), Vec::<String>::new());
        let row = |(name, to): &(&str, &[&str])| (name.to_string(), sorted(to.iter().copied()));
        let enforced: Vec<_> = rows.iter().map(row).collect();
        let printed = printed_table(&page, &format!("modules of {package}"));
        assert_eq!(printed, enforced);
        let source = root().join("crates").join(package).join("src");
        let there = entries(&source).into_iter().filter_map(|path| {
            let name = name_of(&path);
            let module = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
            (!["lib", "main"].contains(&module.as_str())).then_some(module)
        });
        let there: BTreeSet<String> = there.collect();
        let listed: BTreeSet<String> = enforced.into_iter().map(|row| row.0).collect();
        assert_eq!(
            there, listed,
            "modules of {package} without a row, or rows without one"
        );
    }
}

#[test]
fn what_stands_in_the_files() {
    let mut faults = Vec::new();
    let files = text_files();
    for path in &files {
        let shown = shown(path);
        match fs::read_to_string(path) {
            Ok(text) => {
                faults.extend(text_faults(&shown, &text));
                faults.extend(direction::faults(&shown, &text));
            }
            Err(e) => faults.push(format!("{shown}: {e}")),
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    let sources = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"));
    assert!(
        sources.count() > 20,
        "the search for files finds too few of them"
    );
}

/// audit_log.md §8 says what somebody with power over a part could still do. Each row and each paragraph of it has the
/// name of a test beside it, and the test is there.
#[test]
fn what_is_said_of_tampering_has_a_test_beside_it() {
    let page = fs::read_to_string(root().join("docs/formats/audit_log.md")).unwrap();
    let (_, after) = page.split_once("\n## 8. ").unwrap();
    let (section, _) = after.split_once("\n## 9. ").unwrap();
    let sources = text_files().into_iter();
    let sources: Vec<(String, String)> = sources
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| (shown(&path), fs::read_to_string(&path).unwrap()))
        .collect();
    assert_eq!(claim_faults(section, &sources), Vec::<String>::new());
    let claims = claims_of(section).len();
    assert!(claims > 20, "the search for claims finds {claims} of them");
}

/// Rows, bullets and paragraphs behind the introduction, but for headings of tables and what only introduces the next
/// block.
fn claims_of(section: &str) -> Vec<String> {
    let mut claims: Vec<String> = Vec::new();
    let mut blank = true;
    for line in section.lines().skip(1) {
        let begins = blank || line.starts_with(['|', '-']);
        blank = line.trim().is_empty();
        match claims.last_mut() {
            Some(last) if !begins => {
                last.push(' ');
                last.push_str(line);
            }
            _ if !blank => claims.push(line.to_owned()),
            _ => {}
        }
    }
    let is_claim = |claim: &String| {
        let introduces = claim.ends_with(':');
        !introduces && !claim.starts_with("|---") && !claim.starts_with("| what |")
    };
    // The first paragraph says who is meant.
    claims.into_iter().skip(1).filter(is_claim).collect()
}

/// Claims without a test, and tests that are not there. `sources`: paths and texts.
fn claim_faults(section: &str, sources: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for claim in claims_of(section) {
        let begins: String = claim.chars().take(60).collect();
        let quoted = claim.split('`').skip(1).step_by(2);
        let tests: Vec<&str> = quoted.filter(|word| word.contains("::")).collect();
        if tests.is_empty() {
            faults.push(format!("no test beside: {begins}"));
        }
        for test in tests {
            let (module, function) = test.rsplit_once("::").unwrap();
            let module = module.rsplit("::").next().unwrap();
            let function = format!("fn {function}(");
            let is_there = |(path, text): &(String, String)| {
                let path = path.trim_end_matches(".rs");
                path.split('/').any(|part| part == module) && text.contains(&function)
            };
            if !sources.iter().any(is_there) {
                faults.push(format!("there is no test {test}, beside: {begins}"));
            }
        }
    }
    faults
}

/// The rules themselves: each finds what it is for, and lets pass what is allowed.
#[test]
fn every_rule_can_fail() {
    let manifest = |line: &str| format!("[package]\nname = \"pricing\"\n[dependencies]\n{line}\n");
    assert!(manifest_faults("pricing", &manifest("serde.workspace = true")).is_empty());
    for (package, line, says) in [
        (
            "pricing",
            "audit.workspace = true",
            "pricing must not depend on audit",
        ),
        ("pricing", "axum = \"1\"", "axum"),
        (
            "pricing",
            "x = { package = \"services\", path = \"../services\" }",
            "depend on services",
        ),
        (
            "pricing",
            "serde = { version = \"1\", features = [\"testing\"] }",
            "only [dev-dependencies]",
        ),
        ("prices", "serde = \"1\"", "no row"),
    ] {
        let faults = manifest_faults(package, &manifest(line)).join("; ");
        assert!(faults.contains(says), "{line}: {faults}");
    }
    let build = "[package]\nname = \"audit\"\n[build-dependencies]\npricing = \"1\"\n";
    assert_eq!(manifest_faults("audit", build).len(), 1);
    let target =
        "[package]\nname = \"audit\"\n[target.'cfg(unix)'.dependencies]\npricing = \"1\"\n";
    assert_eq!(manifest_faults("audit", target).len(), 1);
    let dev = "[package]\nname = \"audit\"\n[dev-dependencies]\ntestkit = \"1\"\n";
    assert!(manifest_faults("audit", dev).is_empty());

    let sources = [(
        "crates/a/tests/it/rows.rs".to_owned(),
        "#[test]\nfn found_out() {}".to_owned(),
    )];
    for (section, count) in [
        (
            "t\nWho.\n\nD:\n| what | test |\n|---|---|\n| rows | a `rows::found_out` |\n",
            0,
        ),
        (
            "t\nWho.\n\n- It is\n  found (`rows::found_out`).\n- So is it.\n",
            1,
        ),
        ("t\nWho.\n\nFound: `rows::found`, `other::found_out`.\n", 2),
    ] {
        assert_eq!(claim_faults(section, &sources).len(), count, "{section}");
    }

    let home = ["/ho", "me/someone/x"].concat();
    let unfinished = ["to", "do!()"].concat();
    for (path, text, count) in [
        ("crates/pricing/src/a.rs", "let x: f64 = y;", 1),
        ("crates/pricing/src/a.rs", "let sf64x = 1;", 0),
        ("crates/audit/src/a.rs", "let x: f64 = y;", 0),
        ("crates/backup/src/a.rs", "use axum::Router;", 1),
        ("crates/services/src/a.rs", "use axum::Router;", 0),
        ("crates/backup/src/a.rs", unfinished.as_str(), 1),
        ("crates/engine/src/a.rs", "Services::start_unrecorded(c)", 1),
        ("bench/src/a.rs", "Services::start_unrecorded(c)", 0),
        ("crates/backup/src/a.rs", "command.arg(\"--dbname\")", 1),
        ("crates/engine/src/a.rs", "format!(\"dbname={name}\")", 1),
        ("crates/engine/src/a.rs", "env(\"PGDATABASE\", name)", 1),
        ("crates/postgres_physical/src/a.rs", "\"--dbname\"", 0),
        ("crates/a/src/a.rs", "let x = fs::read(&key_file)?;", 1),
        ("crates/a/src/a.rs", "File::open(self.tls.key)", 1),
        ("crates/a/src/a.rs", "read_to_string(&credentials)", 1),
        ("crates/a/src/a.rs", "secrets::read(&key_file)", 0),
        ("crates/a/src/a.rs", "fs::read(&pinned)", 0),
        (
            "crates/a/src/a.rs",
            "\n#[cfg(test)]\nmod tests {\nfs::read(&key)",
            0,
        ),
        ("docs/a.md", home.as_str(), 1),
        ("docs/a.md", "the crate axum and f64", 0),
    ] {
        assert_eq!(text_faults(path, text).len(), count, "{path}: {text}");
    }
    let day = ["20", "26-11-23"].concat();
    let dotted = ["20", "26.11.23"].concat();
    for (path, text, count) in [
        ("crates/a/tests/it/a.rs", format!("file(\"{dotted}\")"), 1),
        ("crates/a/tests/it/snapshots/a.snap", day.clone(), 1),
        (
            "crates/a/tests/it/snapshots/a.snap",
            "2025-06-30".to_owned(),
            0,
        ),
        (
            "crates/a/tests/it/a.rs",
            format!("// any day: judged by order alone\nfile(\"{dotted}\")\nfile(\"{day}\")"),
            0,
        ),
        (
            "crates/a/tests/it/a.rs",
            format!("// any day: so\nx(\"{day}\")\n\ny(\"{day}\")"),
            1,
        ),
        (
            "crates/a/tests/it/a.rs",
            format!("real(\"usa_{day}.txt\")"),
            0,
        ),
        (
            "crates/a/src/a.rs",
            format!("x(\"{day}\") Timestamp::now()"),
            0,
        ),
        (
            "crates/a/src/a.rs",
            format!("Timestamp::now()\n#[cfg(test)]\nmod tests {{\nx(\"{day}\")"),
            0,
        ),
        (
            "crates/a/src/a.rs",
            format!("\n#[cfg(test)]\nmod tests {{\nx(\"{day}\", Timestamp::now())"),
            1,
        ),
    ] {
        assert_eq!(text_faults(path, &text).len(), count, "{path}: {text}");
    }
    documents::rules_can_fail();
    direction::can_fail();
    guide::rules_can_fail();
    style::rules_can_fail();
    assert_eq!(
        text_faults("crates/a/src/a.rs", &"\n".repeat(LINES_MAX)).len(),
        0
    );
    assert_eq!(
        text_faults("crates/a/src/a.rs", &"\n".repeat(LINES_MAX + 1)).len(),
        1
    );
}

fn manifest_faults(package: &str, manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let Some((_, allowed)) = EDGES.iter().find(|row| row.0 == package) else {
        return vec![format!("{package} has no row in the table of edges")];
    };
    let mut faults = Vec::new();
    if manifest["package"]["name"].as_str() != Some(package) {
        faults.push(format!("{package}: folder and package differ in name"));
    }
    for dependency in testing_dependencies(&manifest) {
        faults.push(format!(
            "{package} turns on {dependency}'s feature {TESTING}: only [dev-dependencies] may"
        ));
    }
    for dependency in shipped_dependencies(&manifest) {
        let ours = EDGES.iter().any(|row| row.0 == dependency);
        if ours && !allowed.contains(&dependency.as_str()) {
            faults.push(format!("{package} must not depend on {dependency}"));
        }
        if ["axum", "sqlx"].contains(&dependency.as_str()) && !WEB.contains(&package) {
            faults.push(format!(
                "{package} must not depend on {dependency}: only {WEB:?} may"
            ));
        }
    }
    faults
}

/// Names of shipped dependencies whose API for tests is turned on.
fn testing_dependencies(manifest: &toml::Table) -> Vec<String> {
    let is_testing = |value: &toml::Value| {
        let features = value.get("features").and_then(toml::Value::as_array);
        let mut features = features.into_iter().flatten();
        features.any(|feature| feature.as_str() == Some(TESTING))
    };
    shipped_tables(manifest)
        .into_iter()
        .flatten()
        .filter(|(_, value)| is_testing(value))
        .map(|(name, _)| name)
        .collect()
}

/// Names of packages in every table of dependencies but the dev ones, those for single targets included.
fn shipped_dependencies(manifest: &toml::Table) -> Vec<String> {
    let package = |(name, value): (String, toml::Value)| match value
        .get("package")
        .and_then(toml::Value::as_str)
    {
        Some(package) => package.to_owned(),
        None => name,
    };
    let tables = shipped_tables(manifest).into_iter();
    tables.flatten().map(package).collect()
}

fn shipped_tables(manifest: &toml::Table) -> Vec<toml::Table> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = targets
        .into_iter()
        .flat_map(|t| t.values())
        .filter_map(toml::Value::as_table);
    let tables = tables.chain([manifest]);
    let kinds = |table: &toml::Table| {
        ["dependencies", "build-dependencies"].map(|kind| table.get(kind).cloned())
    };
    let found = tables.flat_map(kinds).flatten();
    found
        .filter_map(|value| value.as_table().cloned())
        .collect()
}

fn text_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut found = |what: String| faults.push(format!("{path}: {what}"));
    for start in [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]].map(|parts| parts.concat()) {
        if text.contains(&start) {
            found(format!("holds a path of one machine ({start}…)"));
        }
    }
    if path.ends_with(".snap") {
        let dates = text.lines().filter_map(date_in);
        for date in dates.filter(|date| !SNAPSHOT_DATES.contains(date)) {
            found(format!(
                "shows {date}: where it follows from the day of the run it is another tomorrow, so replace it by its name; else list it in SNAPSHOT_DATES of the tidy test"
            ));
        }
    }
    if !path.ends_with(".rs") {
        return faults;
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found(format!(
            "has {lines} lines, more than {LINES_MAX}: split it"
        ));
    }
    for mark in [["to", "do!"], ["unimple", "mented!"]].map(|parts| parts.concat()) {
        if text.contains(&mark) {
            found(format!("holds {mark}"));
        }
    }
    let words = || text.split(|c: char| !c.is_alphanumeric() && c != '_');
    if path.starts_with("crates/pricing/") && words().any(|word| word == "f32" || word == "f64") {
        found("holds binary floating point".to_owned());
    }
    let web = WEB
        .iter()
        .any(|name| path.starts_with(&format!("crates/{name}/")))
        || path.starts_with("bench/");
    let this = path == "crates/testkit/tests/tidy.rs";
    // A server that records nothing is for the benchmark to start, and for nobody else.
    let benched = path.starts_with("bench/") || path.starts_with("crates/services/src/");
    if !benched && !this && words().any(|word| word == UNRECORDED) {
        found(format!("names {UNRECORDED}: only the benchmark may"));
    }
    let shipped = path.contains("/src/") && !path.starts_with("crates/testkit/");
    let names_database = |word: &str| word == "dbname" || word == "PGDATABASE";
    let may = NAMES_DATABASES.iter().any(|place| path.starts_with(place));
    if shipped && !may && words().any(names_database) {
        found(
            "names a database to a client program: client_program and to_url quote it".to_owned(),
        );
    }
    if shipped {
        for (number, line) in secrets_read(text) {
            found(format!(
                "line {number} reads a secret unchecked: secrets::read, read_text or check ({line})"
            ));
        }
    }
    if !web && !this && words().any(|word| word == "axum" || word == "sqlx") {
        found(format!("names axum or sqlx: only {WEB:?} may"));
    }
    if !this {
        for (number, date) in fixed_dates(path, text) {
            found(format!(
                "line {number} fixes {date} beside the wall clock: make the stamp from now, pass the clock in, or say in a \
                 comment \"{ANY_DAY} …\" why the day of the run does not matter"
            ));
        }
    }
    faults
}

/// Lines before the tests that read a file by a name such as `key_file`. A word that only begins so (`pinned`, `keys`: a folder) is none.
fn secrets_read(text: &str) -> Vec<(usize, &str)> {
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let reads = |line: &str| {
        let argument = READS.iter().find_map(|read| line.split_once(read));
        let (_, argument) = argument?;
        let argument = argument.split(')').next()?;
        let mut words = argument.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| SECRETS.contains(&word)).then_some(())
    };
    let lines = shipped.lines().enumerate();
    let found = lines.filter(|(_, line)| reads(&line.to_lowercase()).is_some());
    let known = |line: &str| line.contains("secrets::") || line.contains("public");
    found
        .filter(|(_, line)| !known(line))
        .map(|(number, line)| (number + 1, line.trim()))
        .collect()
}

/// Allows the fixed dates of its paragraph: up to the next empty line. In the head of a file (`//!`): all of them.
const ANY_DAY: &str = "any day:";
/// Dates that stand in snapshots whatever the day: of the fixtures, of the shipped calendar, of the words of an error.
const SNAPSHOT_DATES: [&str; 4] = ["2025-06-30", "2050-12-31", "2026-04-01", "2026-04-02"];
const CLOCKS: [&str; 4] = [
    "Timestamp::now",
    "SystemTime::now",
    "Zoned::now",
    "now_micros()",
];

/// Dates written into tests that run beside the wall clock: such a test passes today and fails on some other day. The tests of
/// `tests/` start real servers, whose clock is the machine's; those beside the code are free as long as their clock is passed in.
fn fixed_dates(path: &str, text: &str) -> Vec<(usize, String)> {
    let starts = path.contains("/tests/it/");
    let is_test_file = starts || path.contains("/src/tests/") || path.ends_with("tests.rs");
    let tested = match text.find("#[cfg(test)]\nmod tests {") {
        _ if is_test_file => text,
        Some(start) => &text[start..],
        None => return Vec::new(),
    };
    let mut head = text.lines().take_while(|line| line.starts_with("//!"));
    let is_beside_clock = starts || CLOCKS.iter().any(|clock| tested.contains(clock));
    if !is_beside_clock || head.any(|line| line.contains(ANY_DAY)) {
        return Vec::new();
    }
    let before = text.len() - tested.len();
    let first = text[..before].lines().count();
    let mut is_allowed = false;
    let mut found = Vec::new();
    for (index, line) in tested.lines().enumerate() {
        is_allowed = !line.trim().is_empty() && (is_allowed || line.contains(ANY_DAY));
        if let Some(date) = date_in(line).filter(|_| !is_allowed) {
            found.push((first + index + 1, date.to_owned()));
        }
    }
    found
}

/// The first `20YY-MM-DD` or `20YY.MM.DD` of a line that is no part of a file's name.
fn date_in(line: &str) -> Option<&str> {
    let shape = |at: usize| {
        let bytes = line.as_bytes().get(at..at + 10)?;
        let is_date = bytes.iter().enumerate().all(|(index, byte)| match index {
            0 => *byte == b'2',
            1 => *byte == b'0',
            4 | 7 => *byte == b'-' || *byte == b'.',
            _ => byte.is_ascii_digit(),
        });
        let named = at > 0 && line.as_bytes()[at - 1] == b'_';
        (is_date && !named).then(|| &line[at..at + 10])
    };
    (0..line.len()).find_map(shape)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// As a message names it: from the project's folder on.
fn shown(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap();
    path.to_string_lossy().into_owned()
}

fn package_folders() -> Vec<PathBuf> {
    let crates = entries(&root().join("crates")).into_iter();
    let mut folders: Vec<PathBuf> = crates
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    folders.push(root().join("bench"));
    folders
}

/// What people read and machines build, without what git does not keep.
fn text_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            let name = name_of(&path);
            if path.is_dir() {
                if !["target", ".git", ".bre", "bre-data"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if is_text(&path, &name) {
                files.push(path);
            }
        }
    }
    files
}

fn is_text(path: &Path, name: &str) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    ["rs", "toml", "md", "sql", "sh", "yml", "yaml", "snap"].contains(&extension)
        || ["Makefile", "run"].contains(&name)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The rows between `<!-- name -->` and `<!-- /name -->`, which have to be there.
fn printed_table(page: &str, name: &str) -> Vec<(String, Vec<String>)> {
    let (start, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let between = page
        .split_once(&start)
        .and_then(|(_, after)| after.split_once(&end));
    let Some((table, _)) = between else {
        panic!("ARCHITECTURE.md has no {start} ... {end}");
    };
    table.lines().filter_map(table_row).collect()
}

/// `| services | pricing, audit |`; nothing for the heading and the line below it.
fn table_row(line: &str) -> Option<(String, Vec<String>)> {
    let cells: Vec<&str> = line
        .trim()
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect();
    match cells[..] {
        [name, to] if !["crate", "module"].contains(&name) && !name.starts_with('-') => {
            let to = sorted(to.split(',').map(str::trim).filter(|name| !name.is_empty()));
            Some((name.to_owned(), to))
        }
        _ => None,
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}
