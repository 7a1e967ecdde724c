//! Rows of a benchmark: ours and theirs from the same run, round by round; what counts is the ratio of the medians.

use std::path::Path;

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
    rounds: usize,
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
            rounds: ours_rounds.len(),
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

/// Prints the table and leaves it as JSON for machines.
#[allow(clippy::print_stdout, reason = "a benchmark prints its table")]
pub(crate) fn publish(
    name: &str,
    settings: &str,
    rows: &[Row],
    folder: &Path,
) -> std::io::Result<()> {
    println!("\n## {name}\n{settings}\n");
    println!("| case | metric | ours | peer | theirs | ours / theirs | rounds |");
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {}, {} | {} | {} | {} | **{:.2}** | {} |",
            row.case,
            row.metric,
            row.unit,
            figure(row.ours),
            row.peer,
            figure(row.theirs),
            row.ratio,
            row.rounds
        );
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(
        folder.join(format!("{name}.json")),
        serde_json::to_vec_pretty(rows)?,
    )
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
