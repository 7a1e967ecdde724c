//! `bre quote`: one locate over the public API, as any client would ask for it.

use audit::Entry;
use pricing::Explanation;
use serde_json::{Value, json, value::RawValue};

use super::public::PublicApi;
use crate::{
    cli::QuoteArgs,
    error::Error,
    host::{instance::Instance, log::LOG},
    terminal,
};

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
    let text = public.post("calculate-locate", &body).await?;
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
    let missing = || {
        Error::Failed(
            "the quote's entry was not found in the audit log; run: bre audit verify".into(),
        )
    };
    let stored = services::entry(database, LOG, position.ok_or_else(missing)?)
        .await?
        .ok_or_else(missing)?;
    let entry = Entry::parse(&stored.bytes).map_err(|_| missing())?;
    let inputs = serde_json::from_str(entry.fields.get("inputs").unwrap_or_default())
        .map_err(|_| missing())?;
    pricing::explain(&inputs)
        .map_err(|error| Error::Failed(format!("the recorded inputs cannot be priced: {error}")))
}

fn steps(explanation: &Explanation) -> String {
    let mut text = format!(
        "\n{} under {}\n",
        explanation.policy, explanation.convention
    );
    for origin in &explanation.origins {
        let age = origin
            .age_seconds
            .map_or_else(|| "no time".to_owned(), |age| format!("{age} s old"));
        let marks = match (origin.stale, origin.fallback) {
            (true, _) => ", STALE",
            (false, true) => ", FALLBACK",
            (false, false) => "",
        };
        text.push_str(&format!(
            "  input {:<22} {:<16} from {} ({age}{marks})\n",
            origin.name, origin.value, origin.source
        ));
        if let Some(newer) = &origin.unconfirmed {
            text.push_str(&format!("        not believed yet: {newer}\n"));
        }
    }
    for step in &explanation.steps {
        text.push_str(&format!(
            "  {:<28} {} = {} -> {}\n",
            step.name, step.formula, step.unrounded, step.rounded
        ));
    }
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
    #[serde(borrow)]
    stale: &'a RawValue,
    #[serde(borrow)]
    audit: &'a RawValue,
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
        Error::Failed(format!(
            "the engine's answer was not understood: {error}\n{text}"
        ))
    })?;
    Ok(format!(
        "borrow rate      {}\nborrow cost      {}\nmarkup           {}\ntransaction fees {}\ntotal            {} {}\n\
         quote {} until {}, audit {}, stale {}",
        answer.borrow_rate_used,
        answer.breakdown.borrow_cost,
        answer.breakdown.markup,
        answer.breakdown.transaction_fees,
        answer.total_fee,
        answer.currency,
        answer.quote_id,
        answer.expires_at,
        answer.audit,
        answer.stale,
    ))
}
