//! What a verification says of the tables that decide prices and access, for people.

use services::TablesReport;

/// Lines, the first of them how far they are covered. A difference is part of the verdict; those after the first are named here.
pub(super) fn sentences(tables: &TablesReport) -> String {
    let mut text = match tables.verdict {
        "as_recorded" => format!(
            "{} rows of keys, terms and feeds are as the log says\n",
            tables.compared
        ),
        "not_covered" => "keys, terms and feeds are not covered: an older engine wrote this log, and the first start of this version states them\n".to_owned(),
        "differ" => "keys, terms and feeds are NOT what the log says\n".to_owned(),
        _ => "keys, terms and feeds were not compared: the log itself is not sound\n".to_owned(),
    };
    if let Some(start) = tables.not_covered_before {
        text.push_str(&format!(
            "keys, terms and feeds are not covered before position {} (epoch {}): an older engine wrote them, and they were stated then as they stood\n",
            start.position, start.epoch
        ));
    }
    for difference in tables.differences.iter().skip(1) {
        text.push_str(&format!("also {}\n", difference.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use services::{CoverageStart, Difference};

    use super::*;

    #[test]
    fn what_is_not_covered_is_said_once_and_every_difference_is() {
        let mut tables = TablesReport {
            verdict: "as_recorded",
            compared: 39,
            ..TablesReport::default()
        };
        assert_eq!(
            sentences(&tables),
            "39 rows of keys, terms and feeds are as the log says\n"
        );
        tables.not_covered_before = Some(CoverageStart {
            log: 1,
            epoch: 2,
            position: 17,
        });
        let said = sentences(&tables);
        assert_eq!(said.matches("not covered before position 17").count(), 1);
        let difference = |reason: &str| Difference {
            table: "stocks",
            row: "ticker GME".to_owned(),
            column: None,
            epoch: 1,
            position: 3,
            reason: reason.to_owned(),
        };
        tables.verdict = "differ";
        tables.differences = vec![difference("first"), difference("second")];
        let said = sentences(&tables);
        assert!(said.contains("also second") && !said.contains("also first"));
    }
}
