//! `bre quote`: one locate over the public API, as any client would ask for it.

use audit::Entry;
use pricing::Explanation;
use serde_json::{Value, json, value::RawValue};

use super::public::{PublicApi, Request};
use host::{instance::Instance, log::LOG};
use terminal::{self, KeyValue, Table, instant};

use crate::{cli::QuoteArgs, error::Error};

pub(crate) async fn run(
    instance: &Instance,
    print_json: bool,
    args: &QuoteArgs,
) -> Result<(), Error> {
    let running = instance.running()?;
    let body = json!({
        "ticker": args.ticker, "position_value": args.value, "shares": args.shares,
        "share_price": args.price, "loan_days": args.days, "client_id": args.client_id,
    });
    let public = PublicApi::open(instance, &args.public)?;
    let request = Request::post("calculate-locate".to_owned(), body);
    let text = public.send(&request).await?;
    // In JSON the engine's own bytes: parsing them here could change a digit.
    terminal::line(&if print_json {
        text.clone()
    } else {
        sentences(&text)?
    });
    if args.explain {
        let explanation = explanation(&running.database_url, &text).await?;
        terminal::result(print_json, &explanation, || steps(&explanation));
    }
    Ok(())
}

/// From the record, not from the answer: what is explained is what an auditor will find.
async fn explanation(database: &str, answer: &str) -> Result<Explanation, Error> {
    let position = serde_json::from_str::<Value>(answer)
        .ok()
        .and_then(|answer| answer["audit"]["position"].as_u64());
    let missing =
        || Error::failed("the quote's entry was not found in the audit log; run: bre verify audit");
    let stored = services::entry(database, LOG, position.ok_or_else(missing)?)
        .await?
        .ok_or_else(missing)?;
    let entry = Entry::parse(&stored.bytes).map_err(|_| missing())?;
    let inputs = serde_json::from_str(entry.fields.get("inputs").unwrap_or_default())
        .map_err(|_| missing())?;
    pricing::explain(&inputs)
        .map_err(|error| Error::failed(format!("the recorded inputs cannot be priced: {error}")))
}

fn steps(explanation: &Explanation) -> String {
    let mut text = format!(
        "\n{} under {}\n",
        explanation.policy, explanation.convention
    );
    let mut inputs = Table::new(&["input", ">value", "source", "age", "note"]);
    for origin in &explanation.origins {
        let age = origin.age_seconds.map(|age| format!("{age} s"));
        let marks = match (origin.stale, origin.fallback) {
            (true, _) => "STALE",
            (false, true) => "FALLBACK",
            (false, false) => "",
        };
        let newer = origin
            .unconfirmed
            .as_ref()
            .map(|newer| format!("not believed yet: {newer}"));
        let notes = [
            Some(marks.to_owned()).filter(|marks| !marks.is_empty()),
            newer,
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        inputs.row([
            origin.name.to_string(),
            origin.value.to_string(),
            origin.source.to_string(),
            age.unwrap_or_default(),
            notes.join("; "),
        ]);
    }
    let mut steps = Table::new(&["step", ">rounded", "unrounded", "formula"]);
    for step in &explanation.steps {
        steps.row([
            step.name.to_string(),
            step.rounded.to_string(),
            step.unrounded.to_string(),
            step.formula.to_string(),
        ]);
    }
    text.push_str(&format!("\n{}\n{}", inputs.text(), steps.text()));
    text
}

#[derive(serde::Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    total_fee: &'a RawValue,
    #[serde(borrow)]
    breakdown: Breakdown<'a>,
    #[serde(borrow)]
    borrow_rate_used: &'a RawValue,
    quote_id: &'a str,
    currency: &'a str,
    expires_at: &'a str,
    stale: bool,
    audit: Option<LogPosition>,
}

/// Where the quote stands in the audit log.
#[derive(serde::Deserialize)]
struct LogPosition {
    epoch: u64,
    position: u64,
}

#[derive(serde::Deserialize)]
struct Breakdown<'a> {
    #[serde(borrow)]
    borrow_cost: &'a RawValue,
    #[serde(borrow)]
    markup: &'a RawValue,
    #[serde(borrow)]
    transaction_fees: &'a RawValue,
}

fn sentences(text: &str) -> Result<String, Error> {
    let answer: Answer<'_> = serde_json::from_str(text).map_err(|error| {
        Error::failed(format!(
            "the engine's answer was not understood: {error}\n{text}"
        ))
    })?;
    let mut facts = KeyValue::new();
    facts
        .row("borrow rate", format!("{} a year", answer.borrow_rate_used))
        .row("borrow cost", answer.breakdown.borrow_cost.get())
        .row("markup", answer.breakdown.markup.get())
        .row("transaction fees", answer.breakdown.transaction_fees.get())
        .row("total", format!("{} {}", answer.total_fee, answer.currency))
        .row("quote", answer.quote_id)
        .row("valid until", instant(answer.expires_at))
        .row(
            "inputs",
            if answer.stale {
                "some are STALE: --explain names them"
            } else {
                "all are fresh"
            },
        );
    if let Some(place) = &answer.audit {
        facts.row(
            "audit log",
            format!("entry {} of epoch {}", place.position, place.epoch),
        );
    }
    Ok(facts.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_read_without_json() {
        let answer = r#"{"status":"success","total_fee":1733.25,
            "breakdown":{"borrow_cost":1561.64,"markup":78.08,"transaction_fees":93.53},
            "borrow_rate_used":0.19000000,"quote_id":"q-1","currency":"USD",
            "expires_at":"2026-04-01T10:31:00Z","stale":false,
            "audit":{"epoch":1,"position":41207,"hash":"ab"}}"#;
        insta::assert_snapshot!("quote", sentences(answer).unwrap());
    }
}
