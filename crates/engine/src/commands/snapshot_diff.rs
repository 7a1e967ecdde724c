//! `bre snapshot diff`: what differs, document by document and line by line, without a secret.

use std::collections::BTreeSet;

use repository::snapshot::find_snapshot;
use serde::Serialize;
use zeroize::Zeroizing;

use super::snapshot::SnapshotSelection;
use host::{progress::Steps, signals::interrupted};
use terminal::{self, word};

use crate::error::Error;
use operations::snapshots::redacted;

/// Lines of one document that are compared; of longer ones it is said that they differ.
const LINES_MAX: usize = 2000;
/// Lines shown around a change.
const AROUND: usize = 2;

#[derive(Debug, Serialize)]
struct Difference {
    name: String,
    /// `added`, `removed`, `changed` or `attributes`.
    what: &'static str,
    /// Of the redacted texts, each with its sign; empty when what differs is a secret, or no text.
    lines: Vec<String>,
    /// It differs where it is redacted.
    is_hidden: bool,
}

#[derive(Debug, Serialize)]
struct Differences<'a> {
    component: &'a str,
    from: &'a str,
    /// Null: what is here now.
    to: Option<&'a str>,
    same: bool,
    documents: Vec<Difference>,
}

/// One side: a snapshot, or what is here now.
pub(super) struct Side {
    pub(super) documents: Vec<(String, Content)>,
}

#[derive(PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) attributes: std::collections::BTreeMap<String, String>,
}

impl Side {
    fn get(&self, name: &str) -> Option<&Content> {
        let mut all = self.documents.iter();
        all.find(|(it, _)| it == name).map(|(_, content)| content)
    }
}

/// `live`: what is here now, where this host can collect it.
pub(super) fn run(
    asked: &SnapshotSelection,
    json: bool,
    with: Option<&str>,
    live: &dyn Fn() -> Option<Result<Side, Error>>,
) -> Result<(), Error> {
    let component = asked.summary.component.as_str();
    let from = of_snapshot(&asked.reader()?)?;
    let later = match with {
        Some(id) => Some(find_snapshot(
            &asked.opened.repository,
            component,
            Some(id),
        )?),
        None => None,
    };
    let to = match &later {
        Some(later) => of_snapshot(&asked.reader_of(later)?)?,
        None => match live() {
            Some(live) => live?,
            None => {
                return Err(Error::argument(
                    "component that this host can collect",
                    component.to_owned(),
                    "compare two snapshots of it: --with ID",
                ));
            }
        },
    };
    let redact = |name: &str, content: &Content| {
        redacted(&asked.configuration, component, name, &content.bytes)
    };
    let to_id = later.as_ref().map(|later| later.id.as_str());
    tell(
        json,
        component,
        (&asked.summary.id, &from),
        (to_id, &to),
        &redact,
    );
    Ok(())
}

/// Of the instance's own configuration.
pub(super) fn configuration_here(asked: &SnapshotSelection, json: bool) -> Result<Side, Error> {
    let steps = Steps::shown(json, "snapshot").cancelled_by(interrupted()?);
    let documents = asked.configuration.documents(&steps)?.into_iter();
    let content = |it: backup::documents::Document| Content {
        bytes: it.content,
        attributes: it.attributes,
    };
    Ok(Side {
        documents: documents.map(|(name, it)| (name, content(it))).collect(),
    })
}

/// What differs between two sides, each with its id; the second is what is here now where it has none.
pub(super) fn tell(
    json: bool,
    component: &str,
    from: (&str, &Side),
    to: (Option<&str>, &Side),
    redact: &dyn Fn(&str, &Content) -> String,
) {
    let documents = differences(from.1, to.1, redact);
    let shown = Differences {
        component,
        from: from.0,
        to: to.0,
        same: documents.is_empty(),
        documents,
    };
    terminal::result(json, &shown, || text(&shown));
}

fn of_snapshot(reader: &repository::snapshot::SnapshotReader) -> Result<Side, Error> {
    let mut documents = Vec::new();
    for document in reader.documents() {
        let content = Content {
            bytes: reader.read(document)?,
            attributes: document.attributes.clone(),
        };
        documents.push((document.name.clone(), content));
    }
    Ok(Side { documents })
}

fn differences(
    from: &Side,
    to: &Side,
    redact: &dyn Fn(&str, &Content) -> String,
) -> Vec<Difference> {
    let names = from.documents.iter().chain(&to.documents);
    let names: BTreeSet<&String> = names.map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for name in names {
        let (old, new) = (from.get(name), to.get(name));
        let (what, lines) = match (old, new) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) if old.bytes == new.bytes => {
                let said = |it: &Content| format!("{:?}", it.attributes);
                let lines = vec![format!("-{}", said(old)), format!("+{}", said(new))];
                ("attributes", lines)
            }
            (Some(old), Some(new)) => ("changed", compare(&redact(name, old), &redact(name, new))),
            (None, _) => ("added", Vec::new()),
            (_, None) => ("removed", Vec::new()),
        };
        found.push(Difference {
            name: name.clone(),
            is_hidden: what == "changed" && lines.is_empty(),
            what,
            lines,
        });
    }
    found
}

fn text(shown: &Differences<'_>) -> String {
    let to = shown.to.unwrap_or("what is here now");
    if shown.same {
        return format!("snapshot {} and {to} are the same", shown.from);
    }
    let mut text = format!("from snapshot {} to {to}\n", shown.from);
    for it in &shown.documents {
        text.push_str(&format!("{:10}  {}\n", it.what, word(&it.name)));
        for line in &it.lines {
            text.push_str(&format!("    {}\n", word(line)));
        }
        if it.is_hidden {
            text.push_str(
                "    (what differs is not shown: it is a secret, or no text, or too long)\n",
            );
        }
    }
    text
}

/// Lines with their sign: ` ` both, `-` the first, `+` the second; `…` where equal ones are left out. Empty when they
/// are equal or too long.
fn compare(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old == new || old.len() > LINES_MAX || new.len() > LINES_MAX {
        return Vec::new();
    }
    let all = signed(&old, &new);
    let near = |at: usize| {
        let from = at.saturating_sub(AROUND);
        let to = (at + AROUND + 1).min(all.len());
        all[from..to].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut lines = Vec::new();
    let mut is_left_out = false;
    for (at, (sign, line)) in all.iter().enumerate() {
        if near(at) {
            lines.push(format!("{sign}{line}"));
        } else if !is_left_out {
            lines.push("…".to_owned());
        }
        is_left_out = !near(at);
    }
    lines
}

/// By the longest common subsequence.
fn signed<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            lengths[i * width + j] = match a == b {
                true => lengths[(i + 1) * width + j + 1] + 1,
                false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        let is_same = i < old.len() && j < new.len() && old[i] == new[j];
        let goes = j == new.len()
            || (i < old.len() && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]);
        if is_same {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if goes {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_the_lines_around_it() {
        let check = |old: &str, new: &str, expected: &[&str]| {
            assert_eq!(compare(old, new), expected, "{old:?} and {new:?}");
        };
        check("a\nb", "a\nb", &[]);
        check("a\nb\nc", "a\nx\nc", &[" a", "-b", "+x", " c"]);
        check("", "a", &["+a"]);
        check("a", "", &["-a"]);
        check("a\nb\nc", "b\nc\nd", &["-a", " b", " c", "+d"]);
        check(
            "1\n2\n3\n4\n5\n6",
            "1\n2\n3\n4\n5\n7",
            &["…", " 4", " 5", "-6", "+7"],
        );
        check(&"x\n".repeat(LINES_MAX + 1), "y", &[]);
    }

    #[test]
    fn a_secret_that_changed_is_said_to_differ_and_not_shown() {
        let side = |texts: &[(&str, &str)]| Side {
            documents: texts
                .iter()
                .map(|(name, text)| {
                    let bytes = Zeroizing::new(text.as_bytes().to_vec());
                    let attributes = std::collections::BTreeMap::new();
                    ((*name).to_owned(), Content { bytes, attributes })
                })
                .collect(),
        };
        let from = side(&[("a", "s3cret"), ("b", "1"), ("c", "same")]);
        let to = side(&[("a", "s4cret"), ("c", "same"), ("d", "2")]);
        let found = differences(&from, &to, &|_, _| "…".to_owned());
        let said: Vec<(&str, &str, bool)> = found
            .iter()
            .map(|it| (it.name.as_str(), it.what, it.is_hidden))
            .collect();
        assert_eq!(
            said,
            [
                ("a", "changed", true),
                ("b", "removed", false),
                ("d", "added", false)
            ]
        );
        let shown = Differences {
            component: "configuration",
            from: "x",
            to: None,
            same: false,
            documents: found,
        };
        let text = text(&shown);
        assert!(
            text.contains("not shown") && !text.contains("cret\n"),
            "{text}"
        );
    }
}
