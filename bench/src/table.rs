//! Rows of a benchmark: ours and theirs from the same run, round by round; what counts is the ratio of the medians.

use std::{path::Path, process::Command};

use serde::Serialize;

/// One comparison. `ratio` = ours / theirs of the medians.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    case: String,
    metric: &'static str,
    unit: &'static str,
    peer: String,
    ours: f64,
    theirs: f64,
    ratio: f64,
    ours_rounds: Vec<f64>,
    theirs_rounds: Vec<f64>,
}

impl Row {
    #[allow(clippy::float_arithmetic, reason = "a ratio of two measurements")]
    pub(crate) fn new(
        case: &str,
        metric: &'static str,
        unit: &'static str,
        peer: &str,
        rounds: Vec<(f64, f64)>,
    ) -> Self {
        let (ours_rounds, theirs_rounds): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        let (ours, theirs) = (median(&ours_rounds), median(&theirs_rounds));
        Self {
            case: case.to_owned(),
            metric,
            unit,
            peer: peer.to_owned(),
            ours,
            theirs,
            ratio: ours / theirs,
            ours_rounds,
            theirs_rounds,
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Rows that were measured under the same settings.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static str,
    pub(crate) rows: Vec<Row>,
}

impl Section {
    /// Left as JSON for machines as soon as it is measured.
    pub(crate) fn keep(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(
            folder.join(format!("{}.json", self.name)),
            serde_json::to_vec_pretty(&self.rows)?,
        )
    }
}

/// One table in Markdown, to be put into a page as it is: when, on what, how, and every comparison.
#[allow(clippy::print_stdout, reason = "a benchmark prints its table")]
pub(crate) fn print(sections: &[Section], rounds: usize) {
    println!(
        "`make bench`, {}, {}; ours and the peer alternate in one run of {rounds} rounds, the ratio is of the \
         medians.\n",
        today(),
        machine()
    );
    for section in sections {
        println!("- {}: {}", section.name, section.settings);
    }
    println!("\n| case | metric | ours | peer | theirs | ours / theirs |");
    println!("|---|---|---|---|---|---|");
    for row in sections.iter().flat_map(|section| &section.rows) {
        println!(
            "| {} | {}, {} | {} | {} | {} | **{:.2}** |",
            row.case,
            row.metric,
            row.unit,
            figure(row.ours),
            row.peer,
            figure(row.theirs),
            row.ratio,
        );
    }
}

fn today() -> String {
    let printed = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let printed = printed.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    printed.unwrap_or_default()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kibibytes = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
    let gibibytes = kibibytes.unwrap_or(0).div_ceil(1 << 20);
    format!("{cores} cores, {gibibytes} GiB, load {}", load())
}

/// Of the last minute: what else the machine did.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn figure(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_medians() {
        let row = Row::new(
            "c",
            "m",
            "u",
            "p",
            vec![(1.0, 2.0), (100.0, 4.0), (3.0, 3.0)],
        );
        assert!(
            (row.ours - 3.0).abs() < 1e-9
                && (row.theirs - 3.0).abs() < 1e-9
                && (row.ratio - 1.0).abs() < 1e-9
        );
    }
}
