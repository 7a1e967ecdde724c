//! Documents: every link leads somewhere, and every page for operators is in the index.

use std::fs;

use super::{root, shown, text_files};

#[test]
fn no_link_is_dead() {
    let mut faults = Vec::new();
    let mut pages = 0;
    for path in text_files() {
        let shown = shown(&path);
        if shown.ends_with(".md") {
            pages += 1;
            faults.extend(dead_links(&shown, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert!(pages > 20, "the search for pages finds too few of them");
}

#[test]
fn every_page_for_operators_is_in_the_index() {
    let index = fs::read_to_string(root().join("docs/operations/README.md")).unwrap();
    let folder = fs::read_dir(root().join("docs/operations")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let missing: Vec<String> = names
        .filter(|name| name != "README.md" && !index.contains(&format!("({name}")))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// Called by `every_rule_can_fail`.
pub(super) fn rules_can_fail() {
    for (text, count) in [
        ("[a](README.md)", 0),
        ("[a](docs/operations/restore.md)", 0),
        (
            "[a](docs/operations/restore.md#2-into-an-empty-folder-always-safe)",
            0,
        ),
        (
            "[a](https://example.com/nothing) [b](mailto:a@example.com)",
            0,
        ),
        ("`[a](nothing.md)`", 0),
        ("```\n[a](nothing.md)\n```", 0),
        ("# Here\n[a](#here)", 0),
        ("[a](nothing.md)", 1),
        ("[a](docs/operations/restore.md#nothing)", 1),
        ("[a](#here) [b](nothing.md)", 2),
        ("[a](../outside.md)", 1),
    ] {
        assert_eq!(dead_links("README.md", text).len(), count, "{text}");
    }
    assert_eq!(
        dead_links(
            "docs/guide.md",
            "[a](operations/restore.md) [b](../README.md)"
        )
        .len(),
        0
    );
    assert_eq!(
        anchors("# `bre verify`: A, b\n```\n# c\n```\n## A-b_c"),
        ["bre-verify-a-b", "a-b_c"]
    );
}

/// Links of a page to files and headings that are not there. Links to other hosts are not followed.
pub(super) fn dead_links(page: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for target in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let there = if file.is_empty() {
            Ok(text.to_owned())
        } else {
            let path = root().join(page).parent().unwrap().join(file);
            match path.canonicalize() {
                Ok(path) if !path.starts_with(root()) => Err("leads out of the project"),
                Ok(path) if path.is_dir() => Ok(String::new()),
                Ok(path) => fs::read_to_string(path).map_err(|_| "cannot be read"),
                Err(_) => Err("is not there"),
            }
        };
        match there {
            Err(why) => faults.push(format!("{page}: link to {target}: the file {why}")),
            Ok(there)
                if !anchor.is_empty() && !anchors(&there).iter().any(|known| known == anchor) =>
            {
                faults.push(format!("{page}: link to {target}: no such heading"));
            }
            Ok(_) => {}
        }
    }
    faults
}

/// Targets of `[text](target)`, outside code.
fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let prose = line.split('`').step_by(2);
            // A code span inside a link's text leaves `](target)` in the next piece.
            let targets = prose.flat_map(|piece| piece.split("](").skip(1));
            links.extend(targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target)));
        }
    }
    links
}

/// Anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let heading = line.trim_start_matches('#');
        if is_code || heading == line || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        anchors.push(kept.collect::<String>().to_lowercase().replace(' ', "-"));
    }
    anchors
}
