//! How text is written: lines of at most 120 columns, and words that a reader does not have to translate. Older text
//! breaks both rules; `allowance.toml` says how often each crate and folder still may. The numbers may only fall:
//! `RENEW_ALLOWANCE=1 cargo test -p testkit style` writes what is there now, and refuses when there is more in all.

use std::collections::BTreeMap;
use std::fs;

use super::{root, shown, text_files};

const COLUMNS_MAX: usize = 120;

/// Words not to be written in comments, texts and pages, and what to write.
const BANNED: [(&str, &str); 16] = [
    ("patience", "timeout"),
    ("spare", "standby"),
    ("whoever", "the client, the process, those who"),
    ("whatever", "any, each, what"),
    ("nobody", "no client, no process, nothing; or the passive"),
    ("anew", "again"),
    ("of then", "of that moment"),
    ("goes on", "continues"),
    ("go on", "continue"),
    ("by and by", "with back-off"),
    ("let go", "deleted, dropped"),
    ("lets go", "deletes, drops"),
    ("brought back", "restored"),
    ("bring back", "restore"),
    ("stands", "is"),
    ("lies", "is"),
];

/// Pictures and lone participles that types were called. A participle is a field or a variant.
const GONE_TYPES: [&str; 32] = [
    "Asked",
    "Beside",
    "Came",
    "Companion",
    "Desk",
    "Doing",
    "Door",
    "Ended",
    "Far",
    "Further",
    "Guarded",
    "Keeper",
    "Located",
    "Made",
    "Maker",
    "Manner",
    "Opened",
    "Orders",
    "Other",
    "Own",
    "Placed",
    "Proved",
    "Ran",
    "Recorded",
    "Sent",
    "Shown",
    "Spare",
    "Standing",
    "Supposed",
    "Then",
    "Told",
    "Worded",
];

/// A type is a noun: its last word is no past participle, of these or in -ed.
const PARTICIPLES: [&str; 24] = [
    "Begun", "Bound", "Built", "Came", "Cut", "Done", "Found", "Given", "Gone", "Held", "Kept",
    "Left", "Lost", "Made", "Put", "Ran", "Read", "Seen", "Sent", "Shown", "Taken", "Then", "Told",
    "Written",
];
/// In -ed, and nouns.
const NOUNS: [&str; 6] = ["Embed", "Feed", "Fixed", "Need", "Seed", "Speed"];

/// Words that no identifier has, and what to write.
const GONE_WORDS: [(&str, &str); 4] = [
    ("patience", "timeout"),
    ("doomed", "marked"),
    ("buried", "marked"),
    ("at_the_door", "public"),
];

const ALLOWANCE: &str = "crates/testkit/tests/tidy/allowance.toml";
/// So many fewer than allowed, in all, and the numbers have to be written again: otherwise what was mended could come
/// back.
const SLACK_MAX: usize = 100;

type Counts = BTreeMap<String, usize>;

#[derive(Default)]
struct Findings {
    counts: Counts,
    /// By crate or folder: where each is.
    places: BTreeMap<String, Vec<String>>,
}

impl Findings {
    fn add(&mut self, path: &str, places: Vec<String>) {
        let area = area_of(path);
        *self.counts.entry(area.clone()).or_default() += places.len();
        self.places.entry(area).or_default().extend(places);
    }
}

#[test]
fn style_gets_no_worse() {
    let mut long = Findings::default();
    let mut words = Findings::default();
    for path in text_files() {
        let shown = shown(&path);
        if shown.ends_with(".rs") || shown.ends_with(".md") {
            let text = fs::read_to_string(&path).unwrap();
            long.add(&shown, long_lines(&shown, &text));
            words.add(&shown, banned_words(&shown, &text));
        }
    }
    let path = root().join(ALLOWANCE);
    let allowed: BTreeMap<String, Counts> =
        toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let found = [("columns", long), ("words", words)];
    if std::env::var_os("RENEW_ALLOWANCE").is_some() {
        let mut page = String::from(
            "# How many lines still break a rule of style.rs, by crate or folder. The sums may only fall.\n\
             # Made by RENEW_ALLOWANCE=1 cargo test -p testkit style\n",
        );
        for (rule, found) in &found {
            let (now, before) = (sum(&found.counts), sum(&allowed[*rule]));
            assert!(
                now <= before,
                "{rule}: {now} lines break the rule, {before} were allowed; write the new ones otherwise"
            );
            page.push_str(&format!("\n[{rule}] # {now} in all\n"));
            for (area, count) in found.counts.iter().filter(|(_, count)| **count > 0) {
                page.push_str(&format!("\"{area}\" = {count}\n"));
            }
        }
        fs::write(&path, page).unwrap();
        return;
    }
    let mut faults = Vec::new();
    for (rule, found) in &found {
        faults.extend(allowance_faults(rule, found, &allowed[*rule]));
        eprintln!(
            "{rule}: {} lines break the rule, {} are allowed",
            sum(&found.counts),
            sum(&allowed[*rule])
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn names_that_are_gone_stay_away() {
    let mut faults = Vec::new();
    for path in text_files() {
        let shown = shown(&path);
        if shown.ends_with(".rs") {
            faults.extend(gone_names(&shown, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Called by `every_rule_can_fail`.
pub(super) fn rules_can_fail() {
    for (text, count) in [
        ("struct Told;\npub(crate) enum Told<T> {}", 2),
        ("type Told = u8; trait Told {}", 2),
        ("enum A { Told }\nstruct Tolder; // struct Told", 0),
        (
            "struct RateHeld; enum Listing { Listed }\ntype Stored = u8; struct RateFeed; struct Fixed;",
            2,
        ),
        ("const WAL_PATIENCE: u8 = 1; fn a(patience_left: u8) {}", 2),
        ("f(\"patience {patience}\") // patience", 0),
    ] {
        assert_eq!(gone_names("a.rs", text).len(), count, "{text}");
    }
    let wide = "x".repeat(COLUMNS_MAX + 1);
    for (path, text, count) in [
        ("a.md", "é".repeat(COLUMNS_MAX), 0),
        ("a.md", wide.clone(), 1),
        ("crates/a/src/a.rs", format!("// {wide}\n// {wide}"), 2),
        ("a.md", format!("| {wide} |"), 0),
        ("crates/a/src/a.rs", format!("| {wide} |"), 1),
        ("a.md", format!("https://example.com/{wide}"), 0),
    ] {
        assert_eq!(long_lines(path, &text).len(), count, "{path}: {text}");
    }
    let word = ["pati", "ence"].concat();
    let capital = ["No", "body"].concat();
    let two = ["goes", "on"].join(" ");
    for (path, text, count) in [
        ("a.md", format!("a {word}, {capital} {two}\n{word}"), 4),
        ("a.md", format!("`{word}` {word}s\n```\n{word}\n```"), 0),
        ("crates/a/src/a.rs", format!("let {word} = 1;"), 0),
        ("crates/a/src/a.rs", format!("let x = 1; // {word}"), 1),
        ("crates/a/src/a.rs", format!("/// {word}\n//! `{word}`"), 1),
        (
            "crates/a/src/a.rs",
            format!("f(\"no {word}\", {word}, \"\\\" {word}\")"),
            2,
        ),
        ("crates/a/src/a.rs", format!("f('\"', {word}, '\"')"), 0),
        (
            "crates/a/src/a.rs",
            format!("f(\"a\n {word}\n\"); {word}"),
            1,
        ),
        (
            "crates/a/src/a.rs",
            format!("f(r#\"a \" {word}\"#); {word}"),
            1,
        ),
    ] {
        assert_eq!(banned_words(path, &text).len(), count, "{path}: {text}");
    }
    let mut found = Findings::default();
    found.add("crates/a/src/a.rs", vec!["here".to_owned(); 3]);
    found.add("docs/operations/a.md", vec!["there".to_owned()]);
    let allowed = |a: usize, b: usize| {
        Counts::from([
            ("crates/a".to_owned(), a),
            ("docs/operations".to_owned(), b),
        ])
    };
    assert!(allowance_faults("words", &found, &allowed(3, 1)).is_empty());
    assert!(allowance_faults("words", &found, &allowed(3, SLACK_MAX + 1)).is_empty());
    assert_eq!(allowance_faults("words", &found, &allowed(2, 1)).len(), 1);
    assert_eq!(allowance_faults("words", &found, &Counts::new()).len(), 2);
    assert_eq!(
        allowance_faults("words", &found, &allowed(3, SLACK_MAX + 2)).len(),
        1
    );
}

fn allowance_faults(rule: &str, found: &Findings, allowed: &Counts) -> Vec<String> {
    let mut faults = Vec::new();
    for (area, count) in &found.counts {
        let most = allowed.get(area).copied().unwrap_or_default();
        if *count > most {
            let places = found.places[area].join("\n  ");
            faults.push(format!(
                "{rule}: {count} in {area}, {most} are allowed. Write the new ones otherwise (git diff shows them); if text \
                 moved here from elsewhere: RENEW_ALLOWANCE=1 cargo test -p testkit style\n  {places}"
            ));
        }
    }
    if faults.is_empty() && sum(allowed) > sum(&found.counts) + SLACK_MAX {
        faults.push(format!(
            "{rule}: many fewer than allowed. So that it stays: RENEW_ALLOWANCE=1 cargo test -p testkit style"
        ));
    }
    faults
}

fn sum(counts: &Counts) -> usize {
    counts.values().sum()
}

/// The crate, or the folder of pages: two parts of the path at most, without the file.
fn area_of(path: &str) -> String {
    let mut folders: Vec<&str> = path.split('/').collect();
    folders.pop();
    folders.truncate(2);
    if folders.is_empty() {
        ".".to_owned()
    } else {
        folders.join("/")
    }
}

/// Tables and addresses are as long as they are.
fn long_lines(path: &str, text: &str) -> Vec<String> {
    let is_page = path.ends_with(".md");
    let is_long = |line: &str| {
        let is_table = is_page && line.trim_start().starts_with('|');
        line.chars().count() > COLUMNS_MAX && !is_table && !line.contains("://")
    };
    let lines = text.lines().enumerate().filter(|(_, line)| is_long(line));
    lines
        .map(|(index, line)| format!("{path}:{}: {} columns", index + 1, line.chars().count()))
        .collect()
}

fn banned_words(path: &str, text: &str) -> Vec<String> {
    let prose = if path.ends_with(".md") {
        prose_of_page(text)
    } else {
        prose_of_source(text)
    };
    let prose = prose.to_lowercase();
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut places = Vec::new();
    for (word, instead) in BANNED {
        for (at, _) in prose.match_indices(word) {
            let (before, after) = (&prose[..at], &prose[at + word.len()..]);
            if !is_letter(before.chars().next_back()) && !is_letter(after.chars().next()) {
                let number = before.matches('\n').count() + 1;
                places.push(format!("{path}:{number}: \"{word}\": write {instead}"));
            }
        }
    }
    places
}

fn gone_names(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in code_of_source(text).lines().enumerate() {
        let mut before = "";
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let is_type = ["struct", "enum", "trait", "type"].contains(&before);
            if is_type && (GONE_TYPES.contains(&word) || is_participle(word)) {
                let instead = "a noun of the domain";
                faults.push(format!("{path}:{}: `{word}`: write {instead}", number + 1));
            }
            let small = word.to_lowercase();
            for (gone, instead) in GONE_WORDS {
                if small.contains(gone) {
                    faults.push(format!("{path}:{}: `{word}`: write {instead}", number + 1));
                }
            }
            before = word;
        }
    }
    faults
}

/// Whether the last word of a type's name is what has been done to something.
fn is_participle(name: &str) -> bool {
    let start = name.rfind(|c: char| c.is_uppercase()).unwrap_or(0);
    let last = &name[start..];
    let regular = last.ends_with("ed") && !NOUNS.contains(&last);
    regular || PARTICIPLES.contains(&last)
}

/// A source file without its comments and texts, on the same lines.
fn code_of_source(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let skipped = rest.find(['"', '/', 'r', '\'']).unwrap_or(rest.len());
        let (plain, next) = rest.split_at(skipped);
        code.push_str(plain);
        let (taken, is_prose) = prose_end(next);
        let (piece, after) = next.split_at(taken);
        match is_prose {
            true => push_line_breaks(&mut code, piece),
            false => code.push_str(piece),
        }
        rest = after;
    }
    code
}

/// A page without its code, line by line.
fn prose_of_page(text: &str) -> String {
    let mut prose = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.push_str(&without_code_spans(line));
        }
        prose.push('\n');
    }
    prose
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The comments and the texts of a source file, on the lines where they are.
fn prose_of_source(text: &str) -> String {
    let mut prose = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let skipped = rest.find(['"', '/', 'r', '\'']).unwrap_or(rest.len());
        let (code, next) = rest.split_at(skipped);
        push_line_breaks(&mut prose, code);
        let (taken, is_prose) = prose_end(next);
        let (piece, after) = next.split_at(taken);
        if !is_prose {
            push_line_breaks(&mut prose, piece);
        } else if piece.starts_with("//") {
            prose.push_str(&without_code_spans(piece));
        } else {
            prose.push_str(piece);
        }
        rest = after;
    }
    prose
}

/// What is left out counts as one blank, and as the lines that it takes.
fn push_line_breaks(prose: &mut String, code: &str) {
    prose.push(' ');
    prose.extend(code.matches('\n'));
}

/// How much of this is a comment, a text, or neither.
fn prose_end(rest: &str) -> (usize, bool) {
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), true)
    } else if let Some(end) = raw_text_end(rest) {
        (end, true)
    } else if rest.starts_with('"') {
        (text_end(rest), true)
    } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
        (3.min(rest.len()), false)
    } else {
        (rest.len().min(1), false)
    }
}

fn text_end(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '"' && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` and so on.
fn raw_text_end(rest: &str) -> Option<usize> {
    let hashes = rest
        .strip_prefix('r')?
        .chars()
        .take_while(|c| *c == '#')
        .count();
    let start = 1 + hashes + 1;
    if rest.get(start - 1..start) != Some("\"") {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(
        rest[start..]
            .find(&end)
            .map_or(rest.len(), |at| start + at + end.len()),
    )
}
