//! Old spellings of commands and flags. They stand for the new ones, say so once on standard error, and no help shows
//! them.
//!
//! The words are exchanged before clap reads them: the tree of commands has each command once.

use std::ffi::{OsStr, OsString};

/// One old spelling of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alias {
    pub(crate) old: &'static [&'static str],
    /// The old command with this flag alone; the flag goes, the new words say it.
    pub(crate) flag: Option<&'static str>,
    pub(crate) new: &'static [&'static str],
}

const fn alias(old: &'static [&'static str], new: &'static [&'static str]) -> Alias {
    Alias {
        old,
        flag: None,
        new,
    }
}

/// The first that fits counts.
pub(crate) const ALIASES: [Alias; 15] = [
    alias(&["keys"], &["api-key"]),
    alias(&["repository-key"], &["repository", "key"]),
    alias(
        &["repository", "hold", "show"],
        &["repository", "hold", "list"],
    ),
    alias(&["table", "restore"], &["restore", "table"]),
    alias(&["backup", "repair-pages"], &["restore", "pages"]),
    alias(&["backup", "prove"], &["restore-test", "run"]),
    Alias {
        old: &["backup", "verify"],
        flag: Some("--live"),
        new: &["verify", "cluster"],
    },
    alias(&["backup", "verify"], &["verify", "backup"]),
    alias(&["audit", "verify"], &["verify", "audit"]),
    alias(&["audit", "heads"], &["audit", "head", "list"]),
    alias(&["spare"], &["standby"]),
    alias(&["detach"], &["wal", "detach"]),
    alias(
        &["drill", "database-loss"],
        &["drill", "run", "database-loss"],
    ),
    alias(&["plan", "run"], &["job", "run"]),
    // Its flags followed at once: `restore --to DIR`.
    alias(&["restore"], &["restore", "database"]),
];

/// One old spelling of a flag, of the commands that begin with these (new) words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlagAlias {
    pub(crate) of: &'static [&'static str],
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
}

pub(crate) const FLAG_ALIASES: [FlagAlias; 2] = [
    FlagAlias {
        of: &[],
        old: "--keys",
        new: "--keys-dir",
    },
    FlagAlias {
        of: &["drill"],
        old: "--spare",
        new: "--standby",
    },
];

/// The command line in today's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spelling {
    pub(crate) arguments: Vec<OsString>,
    /// What was spelled the old way, and what it is called now.
    pub(crate) renamed: Vec<(String, String)>,
}

impl Spelling {
    /// One line for standard error: words for a person, an event like all others there for a machine.
    pub(crate) fn note(&self, json: bool) -> Option<String> {
        let each = |(old, new): &(String, String)| format!("{old} is called {new} now");
        let told: Vec<String> = self.renamed.iter().map(each).collect();
        let told = (!told.is_empty()).then(|| told.join("; "))?;
        Some(match json {
            true => serde_json::json!({ "event": "renamed", "value": told }).to_string(),
            false => format!("bre: {told}"),
        })
    }
}

/// Exchanges old words for new ones; everything else stays as it was typed.
pub(crate) fn current(mut arguments: Vec<OsString>) -> Spelling {
    let mut renamed = Vec::new();
    if let Some(alias) = fitting(&arguments) {
        renamed.push((spoken(alias.old, alias.flag), spoken(alias.new, None)));
        exchange(&mut arguments, alias);
    }
    let words: Vec<String> = command(&arguments)
        .into_iter()
        .map(|(_, word)| word)
        .collect();
    for flag in FLAG_ALIASES.iter().filter(|flag| begins(&words, flag.of)) {
        if exchange_flag(&mut arguments, flag) {
            renamed.push((flag.old.to_owned(), flag.new.to_owned()));
        }
    }
    Spelling { arguments, renamed }
}

/// The old spelling that a mistyped command is nearest to, in today's words. What clap knows, it suggests itself.
pub(crate) fn suggestion(arguments: &[OsString]) -> Option<String> {
    let words: Vec<String> = command(arguments)
        .into_iter()
        .map(|(_, word)| word)
        .collect();
    let near = |alias: &&Alias| {
        let typed = words.get(..alias.old.len()).map(|words| words.join(" "));
        let old = alias.old.join(" ");
        // A word of three letters is near to too many others.
        typed.is_some_and(|typed| typed != old && distance(&typed, &old) <= (old.len() / 4).min(2))
    };
    let alias = ALIASES.iter().find(near)?;
    Some(spoken(alias.new, None))
}

fn spoken(words: &[&str], flag: Option<&str>) -> String {
    let flag = flag.map(|flag| format!(" {flag}")).unwrap_or_default();
    format!("bre {}{flag}", words.join(" "))
}

fn begins(words: &[String], with: &[&str]) -> bool {
    words.len() >= with.len() && words.iter().zip(with).all(|(word, with)| word == with)
}

fn fitting(arguments: &[OsString]) -> Option<&'static Alias> {
    let found = command(arguments);
    let words: Vec<String> = found.iter().map(|(_, word)| word.clone()).collect();
    let fits = |alias: &&Alias| {
        let flag = alias.flag.is_none_or(|flag| has_flag(arguments, flag));
        // The words of `restore` are new ones but for the bare one, whose flags follow.
        let bare = alias.new.starts_with(alias.old);
        let rest = !bare || (words.len() == alias.old.len() && has_options(arguments, &found));
        begins(&words, alias.old) && flag && rest
    };
    ALIASES.iter().find(fits)
}

/// What a command line is a command by: its words up to the first flag that is not for all commands, each with its
/// place.
fn command(arguments: &[OsString]) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    let mut places = arguments.iter().enumerate().skip(1);
    while let Some((place, argument)) = places.next() {
        let Some(text) = argument.to_str() else { break };
        match text {
            "--json" => {}
            "--data" => {
                places.next();
            }
            _ if text.starts_with("--data=") => {}
            _ if text.starts_with('-') => break,
            // `bre help keys list`
            "help" if words.is_empty() => {}
            _ => words.push((place, text.to_owned())),
        }
    }
    words
}

/// Something follows the words, and it is no question for help.
fn has_options(arguments: &[OsString], words: &[(usize, String)]) -> bool {
    let Some((last, _)) = words.last() else {
        return false;
    };
    let asked = |argument: &OsString| argument == "--help" || argument == "-h";
    let rest = &arguments[last + 1..];
    !arguments.iter().any(asked) && rest.iter().any(|argument| is_option(argument))
}

fn is_option(argument: &OsStr) -> bool {
    argument.to_str().is_some_and(|text| {
        text.starts_with("--") && text != "--json" && !text.starts_with("--data")
    })
}

/// Those before `--`: what follows is no flag.
fn flags(arguments: &[OsString]) -> usize {
    arguments
        .iter()
        .position(|argument| argument == "--")
        .unwrap_or(arguments.len())
}

fn has_flag(arguments: &[OsString], flag: &str) -> bool {
    arguments[..flags(arguments)]
        .iter()
        .any(|argument| argument == flag)
}

fn exchange(arguments: &mut Vec<OsString>, alias: &Alias) {
    if let Some(flag) = alias.flag {
        let end = flags(arguments);
        if let Some(place) = arguments[..end]
            .iter()
            .position(|argument| argument == flag)
        {
            arguments.remove(place);
        }
    }
    let places: Vec<usize> = command(arguments)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    for place in places[1..alias.old.len()].iter().rev() {
        arguments.remove(*place);
    }
    let new = alias.new.iter().map(OsString::from);
    drop(arguments.splice(places[0]..=places[0], new));
}

fn exchange_flag(arguments: &mut [OsString], flag: &FlagAlias) -> bool {
    let end = flags(arguments);
    let mut exchanged = false;
    for argument in &mut arguments[..end] {
        let Some(text) = argument.to_str() else {
            continue;
        };
        let value = match text.strip_prefix(flag.old) {
            Some("") => "",
            Some(value) if value.starts_with('=') => value,
            _ => continue,
        };
        *argument = format!("{}{value}", flag.new).into();
        exchanged = true;
    }
    exchanged
}

/// How many letters have to be put in, taken out or exchanged.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.chars().enumerate() {
        let mut left = row + 1;
        let mut diagonal = above[0];
        above[0] = left;
        for (column, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = above[column + 1];
            left = cost.min(left + 1).min(diagonal + 1);
            above[column + 1] = left;
        }
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::Cli, *};

    fn typed(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn read(line: &str) -> Result<String, String> {
        let spelling = current(typed(line));
        match Cli::try_parse_from(&spelling.arguments) {
            Ok(cli) => Ok(format!("{cli:?}")),
            Err(error) => Err(format!("{line}: {error}")),
        }
    }

    /// Every old spelling with what may follow it, and the same in today's words.
    const LINES: [(&str, &str); 31] = [
        (
            "bre keys create --client a --tier premium",
            "bre api-key create --client a --tier premium",
        ),
        (
            "bre keys rotate 7 --overlap-hours 1",
            "bre api-key rotate 7 --overlap-hours 1",
        ),
        ("bre --json keys list", "bre --json api-key list"),
        (
            "bre keys --data /tmp/x revoke 7",
            "bre api-key --data /tmp/x revoke 7",
        ),
        ("bre repository-key show", "bre repository key show"),
        (
            "bre repository-key rotate --config f",
            "bre repository key rotate --config f",
        ),
        (
            "bre repository-key seal-offline --keys k",
            "bre repository key seal-offline --keys-dir k",
        ),
        (
            "bre repository-key retire-old --yes",
            "bre repository key retire-old --yes",
        ),
        ("bre repository hold show", "bre repository hold list"),
        (
            "bre table restore --table a,b --yes",
            "bre restore table --table a,b --yes",
        ),
        (
            "bre backup repair-pages --dry-run",
            "bre restore pages --dry-run",
        ),
        ("bre backup prove", "bre restore-test run"),
        (
            "bre backup prove B1 --work w",
            "bre restore-test run B1 --work w",
        ),
        ("bre backup verify --live", "bre verify cluster"),
        (
            "bre backup verify --cluster desk --live",
            "bre verify cluster --cluster desk",
        ),
        (
            "bre backup verify B1 --keys=k",
            "bre verify backup B1 --keys-dir=k",
        ),
        ("bre backup verify", "bre verify backup"),
        ("bre audit verify --from-wal", "bre verify audit --from-wal"),
        (
            "bre audit --data /tmp/x verify",
            "bre --data /tmp/x verify audit",
        ),
        ("bre audit heads", "bre audit head list"),
        ("bre spare run", "bre standby run"),
        (
            "bre spare status --cluster desk",
            "bre standby status --cluster desk",
        ),
        (
            "bre spare promote --yes --even-if-alive",
            "bre standby promote --yes --even-if-alive",
        ),
        ("bre spare stop", "bre standby stop"),
        ("bre detach --yes", "bre wal detach --yes"),
        (
            "bre drill database-loss --strict --spare",
            "bre drill run database-loss --strict --standby",
        ),
        ("bre plan run full", "bre job run full"),
        (
            "bre restore --to d --latest",
            "bre restore database --to d --latest",
        ),
        (
            "bre restore --json --list-points",
            "bre restore database --json --list-points",
        ),
        (
            "bre --data=/tmp/x restore --to=d --keys k",
            "bre --data=/tmp/x restore database --to=d --keys-dir k",
        ),
        (
            "bre repository copy --to t --keys k",
            "bre repository copy --to t --keys-dir k",
        ),
    ];

    #[test]
    fn every_old_spelling_is_the_same_command_as_the_new_one() {
        for (old, new) in LINES {
            assert_eq!(read(old), read(new));
            assert!(read(new).is_ok(), "{}", read(new).unwrap_err());
            assert!(
                current(typed(old)).note(false).is_some(),
                "{old} says nothing"
            );
            assert_eq!(current(typed(new)).renamed, [], "{new}");
        }
    }

    #[test]
    fn no_old_spelling_is_without_a_line_here() {
        for alias in ALIASES {
            let old = spoken(alias.old, alias.flag);
            let said = |line: &str| {
                current(typed(line))
                    .renamed
                    .iter()
                    .any(|(name, _)| *name == old)
            };
            assert!(LINES.iter().any(|(line, _)| said(line)), "{old}");
        }
        for flag in FLAG_ALIASES {
            let said = |line: &str| {
                current(typed(line))
                    .renamed
                    .iter()
                    .any(|(name, _)| name == flag.old)
            };
            assert!(LINES.iter().any(|(line, _)| said(line)), "{}", flag.old);
        }
    }

    #[test]
    fn what_is_no_old_spelling_stays_as_it_was_typed() {
        for line in [
            "bre restore --help",
            "bre restore",
            "bre restore table --table keys",
            "bre quote --ticker keys --value 1 --days 1 --client spare",
            "bre wal fetch detach restore",
            "bre locate show -- --keys",
            "bre --data keys status",
            "bre",
        ] {
            let spelling = current(typed(line));
            assert_eq!(spelling.arguments, typed(line));
            assert_eq!(spelling.note(false), None, "{line}");
        }
    }

    #[test]
    fn one_line_names_the_new_words() {
        let spelling = current(typed("bre backup verify B1 --keys k"));
        let told =
            "bre backup verify is called bre verify backup now; --keys is called --keys-dir now";
        assert_eq!(spelling.note(false), Some(format!("bre: {told}")));
        let event = serde_json::json!({ "event": "renamed", "value": told });
        assert_eq!(spelling.note(true), Some(event.to_string()));
    }

    #[test]
    fn a_mistyped_old_word_leads_to_the_new_one() {
        for (line, expected) in [
            ("bre repositry-key show", Some("bre repository key")),
            ("bre audit verfy", Some("bre verify audit")),
            ("bre backup repair-page", Some("bre restore pages")),
            ("bre spar status", Some("bre standby")),
            ("bre nothing-like-it", None),
            ("bre audit prove", None),
        ] {
            assert_eq!(suggestion(&typed(line)).as_deref(), expected, "{line}");
        }
    }
}
