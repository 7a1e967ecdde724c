//! What a command prints: sentences and a progress bar for a person, JSON for a machine.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::print_stdout,
    reason = "the one room that speaks to standard output"
)]

mod key_value;
mod table;
mod units;

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    os::unix::fs::MetadataExt,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

pub use key_value::KeyValue;
pub use table::Table;
pub use units::{
    age, bytes as size, count, duration, instant, moment, moment_and_age, moment_from,
};

/// A screen is read at this width: no line of a table or a block is longer, unless one word is.
pub const COLUMNS: usize = 100;

/// Prints a result: as JSON on one line, or by the sentences given.
pub fn result<T: Serialize>(json: bool, value: &T, sentences: impl FnOnce() -> String) {
    if json {
        match serde_json::to_string(value) {
            Ok(text) => line(&text),
            Err(error) => note(&format!("cannot print the result as JSON: {error}")),
        }
    } else {
        line(sentences().trim_end());
    }
}

/// Microseconds since 1970 for people: RFC 3339 in UTC.
pub fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |at| at.to_string())
}

/// Names come from outside (restore points, tables, files), and a terminal obeys what they hold. All that is printed
/// or logged passes here: control characters, and those that turn the direction of writing, become `\u001b`, which
/// JSON reads back as what it was. Line breaks and tabs stay, because the layout is made of them; of a name alone see
/// [`word`].
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// A name within a sentence or a table: it cannot begin a line of its own.
pub fn word(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// C0, DEL, C1, separators of lines and paragraphs, and marks of direction.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else {
        return Cow::Borrowed(text);
    };
    let mut safe = text[..first].to_owned();
    for c in text[first..].chars() {
        match (is_escaped(c), c) {
            (true, '\n') => safe.push_str("\\n"),
            (true, '\t') => safe.push_str("\\t"),
            (true, c) => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            (false, c) => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Where logs go: an event is one line, whatever the names in it hold.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = match text.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (&*text, ""),
        };
        let mut safe = escaped(text, |c| is_obeyed(c) && c != ESCAPE).into_owned();
        if safe.contains(ESCAPE) {
            safe = only_colours(&safe);
        }
        safe.push_str(end);
        io::stderr().lock().write_all(safe.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

const ESCAPE: char = '\u{1b}';

/// The log's own colours (`ESC [ 2 m`) on a terminal. In values the log escapes them itself.
fn only_colours(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(ESCAPE) {
        safe.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let code = rest.strip_prefix('[').and_then(|code| code.split_once('m'));
        let code = code.filter(|(code, _)| code.bytes().all(|b| b.is_ascii_digit() || b == b';'));
        match code {
            Some((code, after)) if are_logs_coloured() => {
                let _ = write!(safe, "{ESCAPE}[{code}m");
                rest = after;
            }
            _ => safe.push_str("\\u001b"),
        }
    }
    safe.push_str(rest);
    safe
}

/// For people who look at a terminal: a file keeps the codes, and searching it finds nothing between them.
pub fn are_logs_coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|text| !text.is_empty());
    io::stderr().is_terminal() && !unwanted
}

/// True where a service manager writes down what is printed: its journal is read by many, and kept.
pub fn is_kept() -> bool {
    // As systemd says it: device and inode of what it listens to.
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let out = std::fs::metadata("/proc/self/fd/1");
    out.is_ok_and(|out| journal == format!("{}:{}", out.dev(), out.ino()))
}

/// One line to standard output. A reader that went away (a closed pipe) is no error of ours.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", shown(text));
    let _ = out.flush();
}

/// What a terminal needs to show it.
fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Broken between words, into lines no longer than `room`; at least one, and a word is never cut: it may be a path or
/// a command.
fn fill(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = |line: &String| line.is_empty() || width(line) + 1 + width(word) <= room;
        if lines.last().is_some_and(fits)
            && let Some(line) = lines.last_mut()
        {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A sentence of a screen: broken where the screen ends, and what follows a line of it stands further in.
pub fn sentence(text: &str) -> String {
    let lines = fill(&word(text), COLUMNS - 2);
    lines.join("\n  ") + "\n"
}

/// Bytes of a result as they come, but for what a terminal would obey.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = match (out.is_terminal(), std::str::from_utf8(bytes)) {
        (true, Ok(text)) => out.write_all(shown(text).as_bytes()),
        (true, Err(_)) => out.write_all(shown(&String::from_utf8_lossy(bytes)).as_bytes()),
        (false, _) => out.write_all(bytes),
    };
}

/// One line to standard error: for the person who waits, never part of the result.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", shown(text));
}

/// A bar on a terminal, JSON events otherwise when JSON was asked for, silence into a file.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    json: bool,
}

impl Progress {
    pub fn new(json: bool, what: &'static str) -> Self {
        let bar = ProgressBar::no_length();
        if json || !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Self { bar, json }
    }

    fn event(&self, event: &str, value: impl Serialize) {
        if self.json {
            note(&serde_json::json!({"event": event, "value": value, "at_bytes": self.bar.position()}).to_string());
        }
    }

    pub fn hidden_while<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    pub fn total(&self, bytes: u64) {
        // A new step counts from nothing.
        self.bar.set_position(0);
        self.bar.set_length(bytes);
        self.event("total", bytes);
    }

    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub fn message(&self, text: &str) {
        self.bar.set_message(word(text).into_owned());
        self.event("step", text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let red = "point\u{1b}[31m\u{9b}2J\u{7f}\r\u{7}";
        assert_eq!(shown(red), r"point\u001b[31m\u009b2J\u007f\u000d\u0007");
        assert_eq!(
            shown("a\u{202e}b\u{2066}c\u{2028}d"),
            r"a\u202eb\u2066c\u2028d"
        );
        // The layout is ours, and other languages are no control characters.
        let layout = "name\tvalue\n  Größe 東京 👍\n";
        assert!(matches!(shown(layout), Cow::Borrowed(text) if text == layout));
        assert_eq!(word("a\nb\tc"), r"a\nb\tc");
        // JSON stays JSON, and reads back as what it was.
        let value = serde_json::json!({ "name": format!("{red}\u{202e}\n") });
        let text = value.to_string();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown(&text)).unwrap(),
            value
        );
        let mut facts = KeyValue::new();
        facts.row("name", value["name"].as_str().unwrap());
        assert!(!facts.text().trim_end().contains(|c: char| c.is_control()));
    }

    #[test]
    fn colours_of_a_log_are_for_a_terminal_alone() {
        // Tests have none on standard error, or NO_COLOR would say so.
        if !are_logs_coloured() {
            assert_eq!(
                only_colours("\u{1b}[2mx\u{1b}]0;t"),
                r"\u001b[2mx\u001b]0;t"
            );
        }
        assert_eq!(only_colours("\u{1b}[2Jx\u{1b}"), r"\u001b[2Jx\u001b");
    }
}
