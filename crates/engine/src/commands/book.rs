//! `bre book price` and `bre book diff`: whole books, and what changed between two.

use host::{control::Control, instance::Instance, progress::Steps};
use serde::Serialize;
use services::{BookChange, BookDiff, CauseNames, Side, diff_books};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use crate::{
    cli::{BookCommand, BookDiffArgs, BookPriceArgs},
    error::Error,
};
use operations::exit::Exit;

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    command: BookCommand,
) -> Result<ExitCode, Error> {
    match command {
        BookCommand::Price(args) => price(instance, json, &args).await,
        BookCommand::Diff(args) => diff(json, &args),
    }
}

#[derive(Debug, Serialize)]
struct BookSummary {
    lines: u64,
    priced: u64,
    refused: u64,
    totals: BTreeMap<String, String>,
    audit_entry: String,
    out: Option<String>,
}

async fn price(instance: &Instance, json: bool, args: &BookPriceArgs) -> Result<ExitCode, Error> {
    let book = std::fs::read(&args.file)
        .map_err(|error| Error::failed(format!("{}: {error}", args.file.display())))?;
    let mut query = form(&[("as_of", &args.as_of), ("known_at", &args.known_at)])?;
    if !query.is_empty() {
        query.insert(0, '?');
    }
    let steps = Steps::shown(json, "book");
    let mut answer = Control::to(instance)?
        .upload_for_stream(&format!("/internal/book{query}"), book)
        .await?;
    steps.set_total(answer.content_length().unwrap_or_default());
    let header = |name: &str| {
        let value = answer.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let audit_entry = header("x-audit-entry");
    let mut out = BookOutput::to(args.out.as_deref())?;
    let cut = |error: reqwest::Error| Error::failed(format!("the answer was cut short: {error}"));
    while let Some(piece) = answer.chunk().await.map_err(cut)? {
        out.write(&piece)?;
        steps.advanced(piece.len() as u64);
    }
    let trailer = out.finish()?;
    drop(steps);
    let number = |name: &str| trailer[name].as_u64().unwrap_or_default();
    let totals = trailer["totals"].as_object().into_iter().flatten();
    let priced = BookSummary {
        lines: number("lines"),
        priced: number("priced"),
        refused: number("refused"),
        totals: totals
            .map(|(currency, total)| {
                let total = total.as_str().unwrap_or_default().to_owned();
                (currency.clone(), total)
            })
            .collect(),
        audit_entry,
        out: args.out.as_ref().map(|out| out.display().to_string()),
    };
    match args.out {
        Some(_) => terminal::result(json, &priced, || sentences(&priced)),
        // The result has standard output for itself.
        None => terminal::note(sentences(&priced).trim_end()),
    }
    Ok(how_much(priced.lines, priced.priced).into())
}

/// A pipeline must see it when a book, or a part of it, has no prices.
fn how_much(lines: u64, priced: u64) -> Exit {
    match priced {
        0 => Exit::Failed,
        priced if priced < lines => Exit::Partial,
        _ => Exit::Done,
    }
}

fn sentences(priced: &BookSummary) -> String {
    let mut text = format!(
        "{} lines: {} priced, {} refused; audit entry {}\n",
        priced.lines, priced.priced, priced.refused, priced.audit_entry
    );
    for (currency, total) in &priced.totals {
        text.push_str(&format!("  total fees {currency} {total}\n"));
    }
    if let (Some(out), true) = (&priced.out, priced.refused > 0) {
        text.push_str(&format!(
            "What was refused, and why: grep '\"status\":\"refused\"' {out}\n"
        ));
    }
    text
}

fn form(fields: &[(&str, &Option<String>)]) -> Result<String, Error> {
    let mut query = String::new();
    for (name, value) in fields {
        if let Some(value) = value {
            let time = super::moment(value)?;
            let time = terminal::time(time);
            let and = if query.is_empty() { "" } else { "&" };
            query.push_str(&format!("{and}{name}={time}"));
        }
    }
    Ok(query)
}

/// Where the result goes: a file that appears when it is whole, or standard output.
struct BookOutput<'a> {
    to: Option<(&'a Path, BufWriter<tempfile::NamedTempFile>)>,
    /// The line that is being received; in the end the last one.
    last: Vec<u8>,
}

impl<'a> BookOutput<'a> {
    fn to(path: Option<&'a Path>) -> Result<BookOutput<'a>, Error> {
        let to = match path {
            None => None,
            Some(path) => {
                let folder = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
                    .map_err(|error| failed(path, &error))?;
                Some((path, BufWriter::with_capacity(1 << 20, file)))
            }
        };
        Ok(BookOutput {
            to,
            last: Vec::new(),
        })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.remember(piece);
        match &mut self.to {
            Some((path, file)) => file.write_all(piece).map_err(|error| failed(path, &error)),
            None => {
                terminal::bytes(piece);
                Ok(())
            }
        }
    }

    fn remember(&mut self, piece: &[u8]) {
        let body = piece.strip_suffix(b"\n").unwrap_or(piece);
        match body.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                self.last.clear();
                self.last.extend_from_slice(&piece[end + 1..]);
            }
            None if self.last.ends_with(b"\n") => {
                self.last.clear();
                self.last.extend_from_slice(piece);
            }
            None => self.last.extend_from_slice(piece),
        }
    }

    /// The summary that the result ends with.
    fn finish(self) -> Result<serde_json::Value, Error> {
        let trailer: serde_json::Value = serde_json::from_slice(&self.last)
            .map_err(|_| Error::failed("the answer was cut short: its last line is missing"))?;
        if let Some((path, file)) = self.to {
            let file = file
                .into_inner()
                .map_err(|error| failed(path, error.error()))?;
            file.as_file()
                .sync_all()
                .map_err(|error| failed(path, &error))?;
            file.persist(path)
                .map_err(|error| failed(path, &error.error))?;
            let folder = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let folder = File::open(folder.unwrap_or(Path::new(".")));
            folder
                .and_then(|folder| folder.sync_all())
                .map_err(|error| failed(path, &error))?;
        }
        Ok(trailer)
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("{}: {error}", path.display()))
}

fn diff(json: bool, args: &BookDiffArgs) -> Result<ExitCode, Error> {
    let mut top: Vec<BookChange> = Vec::new();
    let report = diff_books(&args.a, &args.b, &mut |change| {
        if json {
            // One line a change, the summary last.
            terminal::result(true, change, String::new);
        } else {
            keep_largest(&mut top, change, args.top);
        }
    })
    .map_err(|error| Error::failed(error.to_string()))?;
    terminal::result(json, &report, || tell(&report, &top));
    let (lines, priced) = (report.lines, report.priced);
    // A comparison says as much as the poorer of its books.
    let sides = [how_much(lines.0, priced.0), how_much(lines.1, priced.1)];
    Ok(match sides {
        [Exit::Failed, _] | [_, Exit::Failed] => Exit::Failed,
        [Exit::Done, Exit::Done] => Exit::Done,
        _ => Exit::Partial,
    }
    .into())
}

/// Ordered by size, the largest first. Currencies are not compared: units are units.
fn keep_largest(top: &mut Vec<BookChange>, change: &BookChange, count: usize) {
    let at = top.partition_point(|other| size(other) >= size(change));
    if at < count {
        top.insert(at, change.clone());
        top.truncate(count);
    }
}

fn size(change: &BookChange) -> i64 {
    let units = |side: &Side| match side {
        Side::Total(total) => total.units(),
        Side::Refused(_) | Side::Absent => 0,
    };
    (units(&change.to) - units(&change.from)).abs()
}

fn tell(report: &BookDiff, top: &[BookChange]) -> String {
    let mut text = format!(
        "{} ({} lines) -> {} ({} lines)\n{} changed, {} unchanged, {} in one of them only\n",
        report.as_of.0,
        report.lines.0,
        report.as_of.1,
        report.lines.1,
        report.changed,
        report.unchanged,
        report.one_sided
    );
    for (currency, (from, to)) in &report.totals {
        text.push_str(&format!("\n{currency}: {from} -> {to}\n"));
        for (cause, (lines, change)) in report.causes.get(currency).into_iter().flatten() {
            text.push_str(&format!(
                "  {:<16} {change:>20}  on {lines} lines\n",
                CauseNames::of(*cause)
            ));
        }
    }
    for (currency, (from, to)) in &report.only {
        text.push_str(&format!(
            "\n{currency}, priced in one of them only: {from} | {to}\n"
        ));
    }
    if !top.is_empty() {
        text.push_str("\nThe largest changes:\n");
    }
    for change in top {
        let causes: Vec<String> = change
            .causes
            .iter()
            .map(|(cause, by)| format!("{} {by}", CauseNames::of(*cause)))
            .collect();
        text.push_str(&format!(
            "  {:<12} {:<16} {} -> {}  {}\n",
            change.ticker,
            change.client_id,
            side(&change.from),
            side(&change.to),
            causes.join(", ")
        ));
    }
    text
}

fn side(side: &Side) -> String {
    match side {
        Side::Total(total) => total.to_string(),
        Side::Refused(reason) => format!("refused ({reason})"),
        Side::Absent => "absent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_without_prices_is_no_success() {
        assert_eq!(how_much(3, 3), Exit::Done);
        assert_eq!(how_much(3, 2), Exit::Partial);
        assert_eq!(how_much(3, 0), Exit::Failed);
        assert_eq!(how_much(0, 0), Exit::Failed);
    }
}
