//! `bre replay`: recorded quotes priced again from their recorded inputs, compared byte for byte.

use std::process::ExitCode;

use host::{instance::Instance, log::LOG, progress::Steps};
use serde::Serialize;
use services::Period;

use crate::{cli::ReplayArgs, error::Error};

#[derive(Debug, Serialize)]
struct ReplaySummary {
    replayed: u64,
    mismatches: u64,
    first_mismatch: Option<services::Mismatch>,
}

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    args: &ReplayArgs,
) -> Result<ExitCode, Error> {
    let period = Period {
        from_micros: moment(args.from.as_deref())?,
        to_micros: moment(args.to.as_deref())?,
    };
    if period.from_micros > period.to_micros && period.to_micros.is_some() {
        return Err(Error::argument(
            "period",
            args.to.clone().unwrap_or_default(),
            "--to is before --from",
        ));
    }
    let database = match &args.database {
        Some(database) => database.clone(),
        None => instance.running()?.database_url,
    };
    let steps = Steps::shown(json, "replay");
    let report = services::replay(&database, LOG, period, |checked| {
        steps.step(&format!("{checked} quotes priced again"));
    })
    .await?;
    drop(steps);
    let replayed = ReplaySummary {
        replayed: report.checked,
        mismatches: report.mismatches.len() as u64,
        first_mismatch: report.mismatches.into_iter().next(),
    };
    terminal::result(json, &replayed, || {
        let mut text = format!(
            "{} quotes priced again, {} mismatches\n",
            replayed.replayed, replayed.mismatches
        );
        if let Some(first) = &replayed.first_mismatch {
            text.push_str(&format!(
                "first: epoch {} position {}: {}\n",
                first.epoch, first.position, first.reason
            ));
        }
        text
    });
    Ok(if replayed.mismatches == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn moment(text: Option<&str>) -> Result<Option<i64>, Error> {
    text.map(super::moment).transpose()
}
