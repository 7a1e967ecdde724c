//! What a command prints: sentences and a progress bar for a person, JSON for a machine.
#![allow(
    clippy::print_stdout,
    reason = "the one room that speaks to standard output"
)]

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Prints a result: as JSON on one line, or by the sentences given.
pub(crate) fn result<T: Serialize>(json: bool, value: &T, sentences: impl FnOnce() -> String) {
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
pub(crate) fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |at| at.to_string())
}

/// One line to standard output. A reader that went away (a closed pipe) is no error of ours.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// One thing's facts for people, a line each: its name in words, and its value or a dash.
pub(crate) fn named(facts: &impl Serialize) -> String {
    let facts = serde_json::to_value(facts).unwrap_or_default();
    let facts = facts.as_object().into_iter().flatten();
    let lines = facts.map(|(name, value)| {
        let value = match value {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("{:24}{value}\n", name.replace('_', " "))
    });
    lines.collect()
}

/// Bytes of a result as they come.
pub(crate) fn bytes(bytes: &[u8]) {
    let _ = std::io::stdout().lock().write_all(bytes);
}

/// One line to standard error: for the person who waits, never part of the result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A bar on a terminal, JSON events otherwise when JSON was asked for, silence into a file.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    json: bool,
}

impl Progress {
    pub(crate) fn new(json: bool, what: &'static str) -> Self {
        let bar = ProgressBar::no_length();
        if json || !std::io::stderr().is_terminal() {
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

    pub(crate) fn hidden_while<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    pub(crate) fn total(&self, bytes: u64) {
        // A new step counts from nothing.
        self.bar.set_position(0);
        self.bar.set_length(bytes);
        self.event("total", bytes);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub(crate) fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
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
    fn what_people_read_of_a_thing_is_no_json() {
        let facts = serde_json::json!({ "id": "a", "bytes_stored": 7, "parent": null, "state": "complete" });
        let text = named(&facts);
        assert!(text.contains("bytes stored            7\n"), "{text}");
        assert!(text.contains("parent                  -\n"), "{text}");
        assert!(!text.contains(['{', '"', '_']), "{text}");
    }
}
