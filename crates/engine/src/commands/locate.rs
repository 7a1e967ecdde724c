//! `bre locate availability|show|use`: a client's locates over the public API. `bre locate reopen`: an operator has looked at what a recovery
//! may have lost.

use serde_json::{Value, json};

use super::import::encode;
use super::public::PublicApi;
use crate::{
    cli::{LocateCommand, LocateUseArgs},
    error::Error,
    host::{control::Control, instance::Instance},
    question::confirmed,
    terminal,
};

pub(crate) async fn run(
    instance: &Instance,
    print_json: bool,
    command: &LocateCommand,
) -> Result<(), Error> {
    let text = match command {
        LocateCommand::Availability { of, public } => {
            let public = PublicApi::open(instance, public)?;
            let path = match of {
                None => "locates/availability".to_owned(),
                Some(id) if id.len() == UUID_CHARS => {
                    format!("locates/{}/availability", encode(id))
                }
                Some(ticker) => format!("locates/availability?ticker={}", encode(ticker)),
            };
            public.get(&path).await?
        }
        LocateCommand::Show { locate, public } => {
            let public = PublicApi::open(instance, public)?;
            public.get(&format!("locates/{}", encode(locate))).await?
        }
        LocateCommand::Use(args) => use_shares(instance, args).await?,
        LocateCommand::Reopen { yes } => return reopen(instance, print_json, *yes).await,
    };
    // In JSON the engine's own bytes: parsing them here could change a digit.
    terminal::line(&if print_json { text } else { lines(&text)? });
    Ok(())
}

async fn reopen(instance: &Instance, json: bool, yes: bool) -> Result<(), Error> {
    let control = Control::to(instance)?;
    let status: Value = control.get("/internal/status").await?;
    let question = match status["locates"]["reason"].as_str() {
        Some(why) => format!(
            "{why}.\nEvery grant that a client holds and the log does not is granted a second time from here on."
        ),
        None => "Locates are served: nothing is closed.".to_owned(),
    };
    if !yes && !confirmed(&question) {
        return Err(Error::Refused {
            what: "nothing was changed",
            reason: "give --yes to do it without asking".into(),
        });
    }
    let answer: Value = control.post("/internal/locates/reopen", &json!({})).await?;
    terminal::result(json, &answer, || {
        format!(
            "locates are served again; entry {} of epoch {} says so",
            answer["audit"]["position"], answer["audit"]["epoch"]
        )
    });
    Ok(())
}

/// No ticker is as long.
const UUID_CHARS: usize = 36;

async fn use_shares(instance: &Instance, args: &LocateUseArgs) -> Result<String, Error> {
    let public = PublicApi::open(instance, &args.public)?;
    let body = json!({
        "order_id": args.order, "shares": args.shares, "side": args.side, "state": args.state,
    });
    let path = format!("locates/{}/uses", encode(&args.locate));
    public.post(&path, &body).await
}

/// For people: one locate, or a line for each ticker.
fn lines(text: &str) -> Result<String, Error> {
    let answer: Value = serde_json::from_str(text).map_err(|error| {
        Error::Failed(format!(
            "the engine's answer was not understood: {error}\n{text}"
        ))
    })?;
    if let Some(items) = answer["items"].as_array() {
        if items.is_empty() {
            return Ok("no locates in force".to_owned());
        }
        let mut table = format!(
            "{:<12} {:>14} {:>14} {:>14}",
            "ticker", "available", "reserved", "used"
        );
        for item in items {
            table.push_str(&format!(
                "\n{:<12} {:>14} {:>14} {:>14}",
                shown(item, "ticker"),
                shown(item, "available"),
                shown(item, "reserved"),
                shown(item, "used")
            ));
        }
        return Ok(table);
    }
    let names = [
        "locate_id",
        "locate_status",
        "reason",
        "type",
        "ticker",
        "trade_date",
        "settlement_date",
        "expires_at",
        "granted",
        "returned",
        "available",
        "reserved",
        "used",
    ];
    let line = |name: &str| {
        let value = shown(&answer, name);
        (!value.is_empty()).then(|| format!("{name:<16} {value}"))
    };
    Ok(names
        .into_iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join("\n"))
}

fn shown(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_lines() {
        let one = r#"{"status":"success","locate_id":"x","granted":300,"available":100,"reserved":0,"used":200}"#;
        assert_eq!(
            lines(one).unwrap(),
            "locate_id        x\ngranted          300\navailable        100\nreserved         0\nused             200"
        );
        let none = r#"{"status":"success","items":[]}"#;
        assert_eq!(lines(none).unwrap(), "no locates in force");
    }
}
