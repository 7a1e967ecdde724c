//! `bre replay`: recorded quotes priced again from their recorded inputs, compared byte for byte.

use std::process::ExitCode;

use serde::Serialize;

use crate::{error::Error, instance::Instance, terminal, up::heads::LOG};

#[derive(Debug, Serialize)]
struct Replayed {
    replayed: u64,
    mismatches: u64,
    first_mismatch: Option<services::Mismatch>,
}

pub(crate) async fn run(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let database = instance.running()?.database_url;
    let report = services::replay(&database, LOG, 1, u64::MAX).await?;
    let replayed = Replayed {
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
