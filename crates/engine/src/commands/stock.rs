//! `bre stock minimum-rate TICKER [RATE]`: shows or sets below which rate a stock is lent to nobody.

use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use super::import::encode;
use host::{control::Control, instance::Instance, person::who};
use terminal::{self, Table, instant};

use crate::{
    cli::{MinimumRateArgs, StockCommand},
    error::Error,
};

#[derive(Debug, Serialize, Deserialize)]
struct RatePeriod {
    /// The engine's own digits.
    minimum_rate: Box<RawValue>,
    valid_from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known_at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MinimumRateChange {
    ticker: String,
    minimum_rate: Box<RawValue>,
    valid_from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_to: Option<String>,
    audit: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct MinimumRates {
    ticker: String,
    minimum_rate: Box<RawValue>,
    source: String,
    items: Vec<RatePeriod>,
}

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    command: &StockCommand,
) -> Result<(), Error> {
    let StockCommand::MinimumRate(args) = command;
    let control = Control::to(instance)?;
    let path = format!("/internal/stocks/{}/minimum-rate", encode(&args.ticker));
    let Some(rate) = &args.rate else {
        let shown: MinimumRates = control.get(&path).await?;
        terminal::result(json, &shown, || shown_lines(&shown));
        return Ok(());
    };
    let set: MinimumRateChange = control.post(&path, &body(args, rate)).await?;
    terminal::result(json, &set, || {
        let end = set.valid_to.as_deref().unwrap_or("further notice");
        format!(
            "{}: minimum rate {} from {} until {end}\n",
            set.ticker, set.minimum_rate, set.valid_from
        )
    });
    Ok(())
}

fn body(args: &MinimumRateArgs, rate: &str) -> serde_json::Value {
    let mut body = json!({ "minimum_rate": rate, "by": who() });
    for (name, value) in [
        ("valid_from", &args.valid_from),
        ("valid_to", &args.valid_to),
    ] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    body
}

fn shown_lines(shown: &MinimumRates) -> String {
    let mut text = format!(
        "{}: minimum rate {} now, from {}\n",
        shown.ticker, shown.minimum_rate, shown.source
    );
    let mut table = Table::new(&[">rate", "from", "until", "set"]);
    for item in &shown.items {
        table.row([
            item.minimum_rate.get().to_owned(),
            instant(&item.valid_from),
            item.valid_to
                .as_deref()
                .map_or_else(|| "further notice".to_owned(), instant),
            instant(item.known_at.as_deref().unwrap_or_default()),
        ]);
    }
    if !shown.items.is_empty() {
        text.push_str(&format!("\n{}", table.text()));
    }
    text
}
