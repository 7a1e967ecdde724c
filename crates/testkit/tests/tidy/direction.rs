//! The direction of `use crate::` inside a crate: a module imports only those that stand above it in the crate's table.
//! `ARCHITECTURE.md` prints the same tables.

use std::collections::BTreeSet;

/// A module directly below `src`, and those that it may use: all of them in rows above its own.
type Row = (&'static str, &'static [&'static str]);

/// Of each crate whose modules have a direction.
pub(super) const MODULES: [(&str, &[Row]); 4] = [
    ("services", &SERVICES),
    ("host", &HOST),
    ("operations", OPERATIONS),
    ("supervisor", &SUPERVISOR),
];

const HOST: [Row; 19] = [
    ("error", &[]),
    ("files", &["error"]),
    ("log", &[]),
    ("database", &[]),
    ("person", &[]),
    ("location", &["error"]),
    ("sockets", &["error", "files"]),
    ("instance", &["error", "files", "location", "sockets"]),
    ("lock", &["error", "files"]),
    ("control", &["error", "instance"]),
    ("record", &["error", "person", "instance", "control"]),
    ("runtime", &["error"]),
    ("signals", &["error"]),
    ("workers", &["error"]),
    ("log_file", &["error"]),
    ("telemetry", &["error", "log_file"]),
    ("progress", &[]),
    ("stored_heads", &["error", "log"]),
    (
        "keys",
        &["error", "files", "log", "progress", "stored_heads"],
    ),
];

const OPERATIONS: &[Row] = &[
    ("audit_judge", &[]),
    ("backup_record", &[]),
    ("change_look", &[]),
    ("exit", &[]),
    ("health", &[]),
    ("lost", &[]),
    ("read_book", &[]),
    ("schema_check", &[]),
    ("error", &["exit", "lost"]),
    ("audit_archive", &["error"]),
    ("expiry", &["error"]),
    ("inclusion", &["error"]),
    ("job_status", &["error"]),
    ("key_rotation", &["error"]),
    ("missing", &["error"]),
    ("recovery_fact", &["error"]),
    ("secret_file", &["error"]),
    ("settings_file", &["error"]),
    ("thinning", &["error"]),
    (
        "config",
        &["read_book", "error", "secret_file", "settings_file"],
    ),
    ("strategy", &["config"]),
    ("anchors", &["error", "config"]),
    (
        "heads",
        &["health", "error", "thinning", "config", "anchors"],
    ),
    ("audit_outside", &["error", "config", "anchors", "heads"]),
    ("audit_statements", &["error", "audit_outside"]),
    ("audit_logs", &["error", "config"]),
    ("audit_gaps", &["error", "audit_logs"]),
    ("gap_report", &["error", "audit_gaps"]),
    ("audit_compliance", &["error", "config", "audit_gaps"]),
    ("backup_request", &["error", "config"]),
    ("cache", &["error", "config"]),
    ("command_output", &["exit", "error"]),
    ("passed_over", &["health", "error"]),
    ("primary_repository", &["error", "config"]),
    ("public_log", &["error", "config"]),
    ("schema", &["error", "config"]),
    ("infrastructure", &["error", "config", "schema"]),
    ("provider_check", &["config", "infrastructure"]),
    (
        "infrastructure_restore",
        &["error", "config", "infrastructure"],
    ),
    (
        "application_state",
        &["change_look", "error", "config", "schema"],
    ),
    (
        "snapshots",
        &["error", "settings_file", "application_state"],
    ),
    ("copies", &["error", "expiry", "thinning", "config"]),
    (
        "restored",
        &["error", "missing", "recovery_fact", "passed_over"],
    ),
    ("scratch", &["error", "missing", "restored"]),
    (
        "restore_test",
        &[
            "schema_check",
            "error",
            "audit_outside",
            "audit_statements",
            "restored",
            "scratch",
        ],
    ),
    (
        "jobs",
        &[
            "backup_record",
            "change_look",
            "exit",
            "health",
            "error",
            "audit_archive",
            "audit_logs",
            "audit_compliance",
            "expiry",
            "job_status",
            "config",
            "backup_request",
            "cache",
            "command_output",
            "schema",
            "infrastructure",
            "application_state",
            "snapshots",
            "copies",
            "restore_test",
            "strategy",
            "key_rotation",
        ],
    ),
    (
        "clusters",
        &[
            "error",
            "job_status",
            "config",
            "primary_repository",
            "jobs",
        ],
    ),
    (
        "repository_handle",
        &["error", "config", "jobs", "clusters"],
    ),
    ("stream_evidence", &["clusters", "repository_handle"]),
    ("stream_report", &["health", "error", "clusters"]),
    (
        "plan",
        &[
            "health",
            "error",
            "job_status",
            "config",
            "backup_request",
            "scratch",
            "restore_test",
            "jobs",
            "clusters",
        ],
    ),
    (
        "cluster_protection",
        &[
            "health",
            "backup_request",
            "primary_repository",
            "jobs",
            "clusters",
            "plan",
        ],
    ),
    (
        "run_by_hand",
        &[
            "error",
            "config",
            "backup_request",
            "command_output",
            "jobs",
            "clusters",
            "repository_handle",
        ],
    ),
    (
        "standby",
        &[
            "lost",
            "error",
            "recovery_fact",
            "config",
            "jobs",
            "clusters",
            "repository_handle",
        ],
    ),
];

const SUPERVISOR: [Row; 7] = [
    ("leftovers", &[]),
    ("listener", &[]),
    ("protection", &[]),
    ("reload", &[]),
    ("reachable", &["listener"]),
    (
        "serve",
        &["leftovers", "listener", "protection", "reload", "reachable"],
    ),
    (
        "up",
        &["leftovers", "listener", "protection", "reload", "reachable"],
    ),
];

const SERVICES: [Row; 23] = [
    ("domain", &[]),
    ("market", &["domain"]),
    ("data", &["domain", "market"]),
    ("calculation", &["domain", "market", "data"]),
    ("book", &["domain", "calculation"]),
    ("cache", &["domain", "market"]),
    ("public_log", &["data"]),
    ("witness", &["domain"]),
    ("peer", &[]),
    ("secret", &[]),
    ("service", &[]),
    ("trusted_proxies", &[]),
    ("error", &["data"]),
    ("reload", &["domain", "data"]),
    ("unrecorded", &["data"]),
    (
        "config",
        &[
            "domain",
            "market",
            "data",
            "book",
            "cache",
            "public_log",
            "secret",
            "service",
            "trusted_proxies",
        ],
    ),
    (
        "remote",
        &[
            "domain",
            "market",
            "data",
            "calculation",
            "cache",
            "secret",
            "service",
        ],
    ),
    (
        "api_gateway",
        &[
            "domain",
            "market",
            "data",
            "calculation",
            "book",
            "cache",
            "public_log",
            "peer",
            "secret",
            "reload",
            "config",
            "remote",
        ],
    ),
    ("http_error_bodies", &["api_gateway"]),
    ("server", &["peer", "config", "http_error_bodies"]),
    (
        "internal",
        &[
            "domain",
            "data",
            "calculation",
            "cache",
            "secret",
            "service",
            "remote",
            "api_gateway",
        ],
    ),
    (
        "wiring",
        &[
            "domain",
            "market",
            "data",
            "calculation",
            "cache",
            "public_log",
            "secret",
            "service",
            "error",
            "config",
            "remote",
        ],
    ),
    (
        "running",
        &[
            "domain",
            "market",
            "data",
            "calculation",
            "cache",
            "public_log",
            "secret",
            "service",
            "error",
            "reload",
            "unrecorded",
            "config",
            "remote",
            "api_gateway",
            "server",
            "internal",
            "wiring",
        ],
    ),
];

/// Rows that name what is below them, or nothing that there is.
pub(super) fn table_faults(rows: &[(&str, &[&str])]) -> Vec<String> {
    let mut above = BTreeSet::new();
    let mut faults = Vec::new();
    for (module, may_use) in rows {
        for used in may_use.iter().filter(|used| !above.contains(*used)) {
            faults.push(format!("{module} may use {used}, which is no row above it"));
        }
        above.insert(*module);
    }
    faults
}

/// What a file of such a crate imports against the direction.
pub(super) fn faults(path: &str, text: &str) -> Vec<String> {
    let Some((rows, inside)) = place(path) else {
        return Vec::new();
    };
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    if ["lib", "main"].contains(&module) {
        return Vec::new();
    }
    let Some((_, may_use)) = rows.iter().find(|row| row.0 == module) else {
        return vec![format!(
            "{path}: the module {module} has no row in the table of modules"
        )];
    };
    // Tests look at a module from outside, and are not shipped.
    let is_tests = |part: &str| part == "tests" || part.ends_with("tests.rs");
    if inside.split('/').any(is_tests) {
        return Vec::new();
    }
    let shipped = text.split("#[cfg(test)]\nmod tests {").next();
    let code = without_comments(shipped.unwrap_or(text));
    let named: BTreeSet<String> = named_from_root(inside, &code);
    let wrong = named
        .into_iter()
        .filter(|name| name != module && !may_use.contains(&name.as_str()));
    wrong
        .map(|name| format!("{path}: {module} must not use crate::{name}"))
        .collect()
}

/// The table of the file's crate, and the file's path below its `src`.
fn place(path: &str) -> Option<(&'static [Row], &str)> {
    let (package, inside) = path.strip_prefix("crates/")?.split_once("/src/")?;
    let (_, rows) = MODULES.iter().find(|(name, _)| *name == package)?;
    Some((rows, inside))
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    text.lines().map(code).collect()
}

/// First names of the paths that begin at the root of the crate, by `crate::` or by enough of `super::`.
fn named_from_root(inside: &str, code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let is_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if !is_word {
            named.extend(first_names(&code[at + "crate::".len()..]));
        }
    }
    let climb = "super::".repeat(depth(inside));
    for (at, _) in code.match_indices(&climb) {
        named.extend(first_names(&code[at + climb.len()..]));
    }
    named
}

/// How many `super::` lead from a file's module to the root.
fn depth(inside: &str) -> usize {
    let stem = inside.strip_suffix(".rs").unwrap_or(inside);
    let module = stem.strip_suffix("/mod").unwrap_or(stem);
    module.split('/').count()
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c}`.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![first_name(rest)];
    };
    let (mut nesting, mut start, mut names) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => nesting += 1,
            '}' if nesting > 0 => nesting -= 1,
            ',' | '}' if nesting == 0 => {
                names.push(first_name(group[start..at].trim_start()));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(path: &str) -> String {
    path.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// The rule finds what it is for, and lets pass what is allowed.
pub(super) fn can_fail() {
    for (path, text, count) in [
        ("data/a.rs", "use crate::api_gateway::ApiError;", 1),
        ("data/a.rs", "use crate::{domain::time, internal};", 1),
        (
            "data/a.rs",
            "use crate::{\n    cache::{Cache, seal},\n    book,\n};",
            2,
        ),
        ("data/a.rs", "let x = crate::running::start();", 1),
        ("data/a.rs", "use crate::Services;", 1),
        ("data/a.rs", "use super::super::cache::Cache;", 1),
        ("data/mod.rs", "use super::cache::Cache;", 1),
        ("config.rs", "use super::running;", 1),
        ("new.rs", "", 1),
        (
            "data/a.rs",
            "use crate::data::row; use crate::market::X;",
            0,
        ),
        (
            "data/a.rs",
            "use super::row; use super::feeds::{Alias, load};",
            0,
        ),
        ("data/feeds/a.rs", "use super::super::row;", 0),
        ("data/a.rs", "/// See [`crate::Services`].", 0),
        (
            "config.rs",
            "\n#[cfg(test)]\nmod tests {\nuse crate::running::x;\nuse super::Settings;",
            0,
        ),
        ("data/a_tests.rs", "use crate::running::x;", 0),
        ("lib.rs", "pub use running::Running;", 0),
    ] {
        let found = faults(&format!("crates/services/src/{path}"), text);
        assert_eq!(found.len(), count, "{path}: {text}: {found:?}");
    }
    assert!(faults("crates/pricing/src/a.rs", "use crate::Quote;").is_empty());
    assert!(faults("crates/services/tests/a.rs", "use crate::api;").is_empty());
    for (rows, count) in [
        (&[("a", &[] as &[&str]), ("b", &["a"])], 0),
        (&[("a", &["b"]), ("b", &["a"])], 1),
        (&[("a", &["a"]), ("b", &["x"])], 2),
    ] {
        assert_eq!(table_faults(rows).len(), count, "{rows:?}");
    }
}
