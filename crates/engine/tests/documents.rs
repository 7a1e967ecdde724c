//! What pages tell a reader to type exists: each `bre …` in a page names a command that the program knows, by its name or
//! by an older one, with options that it takes. The program itself is asked, by `--help`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `--help` of one command says.
#[derive(Clone, Default)]
struct Help {
    subcommands: BTreeSet<String>,
    options: BTreeSet<String>,
}

#[derive(Default)]
struct Program {
    asked: BTreeMap<Vec<String>, Help>,
}

impl Program {
    /// `None` when there is no such command.
    fn help(&mut self, command: &[String]) -> Option<Help> {
        if let Some(known) = self.asked.get(command) {
            return Some(known.clone());
        }
        let help = help_of(&asked(command).ok()?);
        self.asked.insert(command.to_vec(), help.clone());
        Some(help)
    }

    fn faults(&mut self, line: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for words in alternatives(line) {
            let mut command: Vec<String> = Vec::new();
            let mut words = words.iter().peekable();
            let mut help = self.help(&command).unwrap();
            while !help.subcommands.is_empty() {
                let Some(word) = words.next_if(|word| is_name(word)) else {
                    break;
                };
                command.push(word.clone());
                // An older name may be two words, the first of which means nothing by itself.
                let mut known = self.help(&command);
                if known.is_none()
                    && let Some(second) = words.next_if(|word| is_name(word))
                {
                    command.push(second.clone());
                    known = self.help(&command);
                }
                let Some(next) = known else {
                    faults.push(format!("`bre {}` is not a command", command.join(" ")));
                    break;
                };
                help = next;
            }
            for option in words.filter_map(|word| option_of(word)) {
                // An older name of a command may stand for one with this option.
                let with_option = [command.as_slice(), &[option.to_owned()]].concat();
                if !help.options.contains(option) && asked(&with_option).is_err() {
                    faults.push(format!(
                        "`bre {}` has no option {option}",
                        command.join(" ")
                    ));
                }
            }
        }
        faults
    }
}

/// What the program prints when it is asked for help with these words; an error when it does not know one of them.
fn asked(words: &[String]) -> Result<String, ()> {
    let bre = env!("CARGO_BIN_EXE_bre");
    let asked = Command::new(bre)
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    let complaint = String::from_utf8(asked.stderr).unwrap();
    let unknown = ["unrecognized subcommand", "unexpected argument"];
    if unknown.iter().any(|words| complaint.contains(words)) {
        return Err(());
    }
    Ok(String::from_utf8(asked.stdout).unwrap())
}

#[test]
fn pages_name_commands_and_options_that_exist() {
    let mut program = Program::default();
    let mut faults = Vec::new();
    let mut lines = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in lines_to_type(&text) {
            lines += 1;
            faults.extend(
                program
                    .faults(&line)
                    .into_iter()
                    .map(|fault| format!("{}: {fault}, in: {line}", page.display())),
            );
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert!(
        lines > 100,
        "the search for commands finds too few of them: {lines}"
    );
}

/// The rule itself: what it lets pass, and what it finds.
#[test]
fn a_command_that_does_not_exist_is_found() {
    let mut program = Program::default();
    for (line, count) in [
        ("bre up --data DIR", 0),
        ("bre backup list|show --json", 0),
        ("bre backup run [--kind incremental]", 0),
        ("bre audit key", 0),
        ("bre nothing", 1),
        ("bre backup nothing --json", 1),
        ("bre backup list|nothing|neither", 2),
        ("bre up --nothing", 1),
        ("bre backup list --nothing=x [--neither]", 2),
    ] {
        assert_eq!(
            program.faults(line).len(),
            count,
            "{line}: {:?}",
            program.faults(line)
        );
    }
    let text = "a `bre up` b\n```\n$ bre status    # bre nothing\nX=1 bre nothing\n```\nbre nothing\n\
                `cat x; bre verify\nrepository --json`";
    assert_eq!(
        lines_to_type(text),
        ["bre up", "bre verify repository --json", "bre status"]
    );
}

/// Names of subcommands and long options, aliases that are shown included.
fn help_of(text: &str) -> Help {
    let mut help = Help::default();
    let mut is_list = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            is_list = line == "Commands:";
        }
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        if is_list && line.starts_with("  ") && !line.starts_with("   ") {
            help.subcommands
                .extend(line.split_whitespace().next().map(str::to_owned));
        }
        if line.trim_start().starts_with('-') {
            help.options.extend(
                words
                    .filter(|word| word.len() > 2 && word.starts_with("--"))
                    .map(str::to_owned),
            );
        }
    }
    help
}

/// Commands in code spans and in lines of code blocks: what begins with `bre`, or has it after `; `. Comments are left
/// out.
fn lines_to_type(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut prose = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            let line = line.trim_start().trim_start_matches("$ ");
            lines.extend(typed(line.split(" #").next().unwrap_or_default()));
        } else {
            prose.push_str(line.trim());
            prose.push(' ');
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    [spans.filter_map(typed).collect(), lines].concat()
}

fn typed(line: &str) -> Option<String> {
    let line = line.rsplit("; ").next()?.trim();
    line.starts_with("bre ").then(|| line.to_owned())
}

/// `bre backup list|show X` is two commands.
fn alternatives(line: &str) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for word in line.split_whitespace().skip(1) {
        let is_choice = word.split('|').all(is_name);
        let words: Vec<&str> = if is_choice {
            word.split('|').collect()
        } else {
            vec![word]
        };
        let longer = |start: &Vec<String>| {
            let start = start.clone();
            words
                .iter()
                .map(move |word| [start.as_slice(), &[(*word).to_owned()]].concat())
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

fn is_name(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('-')
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

/// `--kind` of `[--kind`, `--json]`, `--set=x`.
fn option_of(word: &str) -> Option<&str> {
    let word = word.trim_start_matches(['[', '(']);
    let end = word
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .unwrap_or(word.len());
    word[..end]
        .starts_with("--")
        .then(|| &word[..end])
        .filter(|option| option.len() > 2)
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![
        root.join("README.md"),
        root.join("ARCHITECTURE.md"),
        root.join("CONTRIBUTING.md"),
    ];
    for folder in ["docs", "docs/operations"] {
        let entries = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    pages.sort();
    pages
}
