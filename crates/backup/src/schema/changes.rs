//! What changed between two dumps, by the names that `pg_dump` itself writes above every object.

use std::collections::BTreeMap;

use super::GLOBALS;
use super::dump::Files;

/// One line each; empty when nothing changed.
pub(super) fn changes(before: &Files, after: &Files) -> Vec<String> {
    let mut changes = Vec::new();
    let names = before
        .keys()
        .chain(after.keys().filter(|name| !before.contains_key(*name)));
    for name in names {
        let database = name
            .rsplit('/')
            .next()
            .unwrap_or(name)
            .trim_end_matches(".sql");
        let of = match name == GLOBALS {
            true => String::new(),
            false => format!(" in {database}"),
        };
        match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => changes.extend(objects_changed(old, new, &of)),
            (None, Some(new)) if name != GLOBALS => {
                changes.push(format!("database {database} added"));
                let tables = objects(new)
                    .into_keys()
                    .filter(|what| what.starts_with("table "));
                changes.extend(tables.map(|what| format!("{what} added{of}")));
            }
            (Some(_), None) => changes.push(format!("database {database} dropped")),
            _ => changes.push("roles and tablespaces added".to_owned()),
        }
    }
    changes
}

fn objects_changed(old: &str, new: &str, of: &str) -> Vec<String> {
    let (old, new) = (objects(old), objects(new));
    let mut changes = Vec::new();
    for (what, text) in &new {
        match old.get(what) {
            None => changes.push(format!("{what} added{of}")),
            Some(before) if before != text => changes.push(format!("{what} altered{of}")),
            Some(_) => {}
        }
    }
    let dropped = old.keys().filter(|what| !new.contains_key(*what));
    changes.extend(dropped.map(|what| format!("{what} dropped{of}")));
    // The same objects in another order, or something between them.
    if changes.is_empty() {
        changes.push(format!("definitions altered{of}"));
    }
    // Tables say most.
    changes.sort_by_key(|change| !change.starts_with("table "));
    changes
}

/// `table public.orders` → its SQL. Roles have no such heads: there a statement's first words are the name.
fn objects(text: &str) -> BTreeMap<String, String> {
    let mut objects: BTreeMap<String, String> = BTreeMap::new();
    let mut what = "settings".to_owned();
    for line in text.lines() {
        if let Some(head) = head(line) {
            what = head;
        } else if let Some(role) = line
            .strip_prefix("CREATE ROLE ")
            .or(line.strip_prefix("ALTER ROLE "))
        {
            let name = role.split([' ', ';']).next().unwrap_or_default();
            what = format!("role {name}");
        }
        if !line.is_empty() && line != "--" {
            let sql = objects.entry(what.clone()).or_default();
            sql.push_str(line);
            sql.push('\n');
        }
    }
    objects
}

/// `-- Name: orders; Type: TABLE; Schema: public; Owner: bob`
fn head(line: &str) -> Option<String> {
    let rest = line.strip_prefix("-- Name: ")?;
    let (name, rest) = rest.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    let schema = rest.split(';').next().unwrap_or("-");
    let kind = kind.to_lowercase();
    Some(match schema {
        "-" => format!("{kind} {name}"),
        schema => format!("{kind} {schema}.{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(tables: &[(&str, &str)]) -> Files {
        let text: String = tables
            .iter()
            .map(|(name, columns)| {
                format!("--\n-- Name: {name}; Type: TABLE; Schema: public; Owner: bob\n--\n\nCREATE TABLE public.{name} ({columns});\n\n\n")
            })
            .collect();
        Files::from([("databases/desk.sql".to_owned(), text)])
    }

    #[test]
    fn changes_have_names() {
        let check = |before: &Files, after: &Files, expected: &[&str]| {
            assert_eq!(changes(before, after), expected);
        };
        let (none, one) = (Files::new(), dump(&[("a", "x integer")]));
        check(
            &none,
            &one,
            &["database desk added", "table public.a added in desk"],
        );
        check(&one, &one, &[]);
        check(
            &one,
            &dump(&[("a", "x bigint"), ("b", "y text")]),
            &[
                "table public.a altered in desk",
                "table public.b added in desk",
            ],
        );
        check(&one, &dump(&[]), &["table public.a dropped in desk"]);
        check(&one, &none, &["database desk dropped"]);
        let roles = |text: &str| Files::from([(GLOBALS.to_owned(), text.to_owned())]);
        check(
            &roles("CREATE ROLE a;\nALTER ROLE a WITH LOGIN;\n"),
            &roles("CREATE ROLE a;\nALTER ROLE a WITH NOLOGIN;\nCREATE ROLE b;\n"),
            &["role a altered", "role b added"],
        );
    }
}
