//! `bre locate`: a client's locates over the public API. `bre locate reopen`: an operator has looked at what a
//! recovery may have lost.

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    import::encode,
    public::{PublicApi, Request},
};
use host::{control::Control, instance::Instance};
use terminal::{self, KeyValue, Table, instant};

use crate::{
    cli::{
        LocateCommand, LocateListArgs, LocateRequestArgs, LocateStepArgs, LocateUseArgs, PublicArgs,
    },
    error::Error,
    question::confirmed,
};

/// No ticker is as long.
const UUID_CHARS: usize = 36;

pub(crate) async fn run(
    instance: &Instance,
    print_json: bool,
    command: &LocateCommand,
) -> Result<(), Error> {
    let (public, request) = match command {
        LocateCommand::Request(args) => (&args.public, wanted(args)),
        LocateCommand::Accept(step) => (&step.public, of_step(step, "accept", json!({}))),
        LocateCommand::Decline(step) => (&step.public, of_step(step, "decline", json!({}))),
        LocateCommand::Return { locate, shares } => {
            let body = shares.map_or_else(|| json!({}), |shares| json!({ "shares": shares }));
            (&locate.public, of_step(locate, "return", body))
        }
        LocateCommand::List(args) => (&args.public, Request::get(list_path(args))),
        LocateCommand::Availability { of, public } => {
            (public, Request::get(availability_path(of.as_deref())))
        }
        LocateCommand::Show { locate, public } => {
            (public, Request::get(format!("locates/{}", encode(locate))))
        }
        LocateCommand::Use(args) => (&args.public, used(args)),
        LocateCommand::Reopen { yes } => return reopen(instance, print_json, *yes).await,
    };
    let text = asked(instance, public, &request).await?;
    // In JSON the engine's own bytes: parsing them here could change a digit.
    terminal::line(text_of(print_json, &text)?.trim_end());
    Ok(())
}

async fn asked(
    instance: &Instance,
    public: &PublicArgs,
    request: &Request,
) -> Result<String, Error> {
    PublicApi::open(instance, public)?.send(request).await
}

fn text_of(json: bool, text: &str) -> Result<String, Error> {
    match json {
        true => Ok(text.to_owned()),
        false => for_people(text),
    }
}

/// What was typed, as it was typed: the server reads the figures.
fn wanted(args: &LocateRequestArgs) -> Request {
    let mut body = Map::new();
    for (name, value) in [
        ("ticker", &args.ticker),
        ("shares", &args.shares),
        ("share_price", &args.price),
        ("loan_days", &args.days),
        ("client_id", &args.client_id),
        ("quote_id", &args.quote),
        ("type", &args.kind),
        ("limit_rate", &args.limit_rate),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    if args.all_or_none {
        body.insert("all_or_none".to_owned(), json!(true));
    }
    let key = args.idempotency_key.as_deref();
    Request::post("locates".to_owned(), Value::Object(body)).once(key)
}

fn of_step(step: &LocateStepArgs, verb: &str, body: Value) -> Request {
    let path = format!("locates/{}/{verb}", encode(&step.locate));
    Request::post(path, body).once(step.idempotency_key.as_deref())
}

fn used(args: &LocateUseArgs) -> Request {
    let body = json!({
        "order_id": args.order, "shares": args.shares, "side": args.side, "state": args.state,
    });
    Request::post(format!("locates/{}/uses", encode(&args.locate)), body)
}

fn list_path(args: &LocateListArgs) -> String {
    let mut path = format!("locates?skip={}&limit={}", args.skip, args.limit);
    for (name, value) in [
        ("ticker", &args.ticker),
        ("locate_status", &args.status),
        ("trade_date", &args.trade_date),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    path
}

fn availability_path(of: Option<&str>) -> String {
    match of {
        None => "locates/availability".to_owned(),
        Some(id) if id.len() == UUID_CHARS => format!("locates/{}/availability", encode(id)),
        Some(ticker) => format!("locates/availability?ticker={}", encode(ticker)),
    }
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
        return Err(Error::refused(
            "nothing was changed",
            "give --yes to do it without asking",
        ));
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

/// One locate, or a line for each locate or ticker.
fn for_people(text: &str) -> Result<String, Error> {
    let answer: Value = serde_json::from_str(text).map_err(|error| {
        Error::failed(format!(
            "the engine's answer was not understood: {error}\n{text}"
        ))
    })?;
    Ok(match answer["items"].as_array() {
        Some(items) if items.iter().any(|item| !item["locate_id"].is_null()) => {
            list(items, &answer)
        }
        Some(items) if !items.is_empty() => availability(items),
        Some(_) => "no such locates".to_owned(),
        None => one(&answer, &digits(text)),
    })
}

fn availability(items: &[Value]) -> String {
    let mut table = Table::new(&["ticker", ">available", ">reserved", ">used"]);
    for item in items {
        table.row(["ticker", "available", "reserved", "used"].map(|name| shown(item, name)));
    }
    table.text()
}

fn list(items: &[Value], answer: &Value) -> String {
    let mut table = Table::new(&[
        "locate",
        "ticker",
        "status",
        ">asked",
        ">held",
        "trade date",
        "ends",
    ]);
    for item in items {
        let ends = match item["locate_status"].as_str() {
            Some("offered") => "offer_expires_at",
            _ => "expires_at",
        };
        table.row([
            shown(item, "locate_id"),
            shown(item, "ticker"),
            shown(item, "locate_status"),
            shown(item, "shares"),
            shown(item, "held"),
            shown(item, "trade_date"),
            instant(&shown(item, ends)),
        ]);
    }
    let mut text = table.text();
    if answer["pagination"]["has_more"] == Value::Bool(true) {
        let total = &answer["pagination"]["total"];
        text.push_str(&format!(
            "{} of {total}; --skip and --limit show others\n",
            items.len()
        ));
    }
    text
}

/// Rates and money by the engine's own digits: a binary fraction would lose some.
#[derive(Debug, Default, Deserialize)]
struct Digits<'a> {
    #[serde(borrow)]
    borrow_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    fee: Option<Fee<'a>>,
}

#[derive(Debug, Deserialize)]
struct Fee<'a> {
    #[serde(borrow)]
    total_fee: &'a RawValue,
}

fn digits(text: &str) -> Digits<'_> {
    serde_json::from_str(text).unwrap_or_default()
}

fn one(answer: &Value, digits: &Digits<'_>) -> String {
    let mut facts = KeyValue::new();
    for (name, field) in [
        ("locate", "locate_id"),
        ("status", "locate_status"),
        ("reason", "reason"),
        ("type", "type"),
        ("ticker", "ticker"),
        ("asked for", "shares"),
        ("granted", "granted"),
        ("returned", "returned"),
        ("available", "available"),
        ("reserved", "reserved"),
        ("used", "used"),
        ("loan days", "loan_days"),
        ("trade date", "trade_date"),
        ("settlement date", "settlement_date"),
    ] {
        let value = shown(answer, field);
        facts.maybe(name, (!value.is_empty()).then_some(value));
    }
    let rate = digits
        .borrow_rate
        .map(|rate| format!("{} a year", rate.get()));
    facts.maybe("borrow rate", rate);
    let fee = digits.fee.as_ref().map(|fee| fee.total_fee.get());
    let currency = shown(answer, "currency");
    facts.maybe("fee", fee.map(|fee| format!("{fee} {currency}")));
    let offered = answer["locate_status"] == "offered";
    let ends = match offered {
        true => ("offer ends", "offer_expires_at"),
        false => ("ends", "expires_at"),
    };
    let end = shown(answer, ends.1);
    facts.maybe(ends.0, (!end.is_empty()).then(|| instant(&end)));
    if offered {
        let id = shown(answer, "locate_id");
        facts.row("next", format!("bre locate accept {id}, or decline"));
    }
    facts.text()
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

    const OFFER: &str = r#"{"status":"success","locate_id":"0199-a","locate_status":"offered","type":"single_use",
        "ticker":"GME",
        "currency":"USD","shares":300,"granted":0,"returned":0,"held":0,"available":0,"reserved":0,"used":0,
        "borrow_rate":0.19000000,
        "loan_days":30,"fee":{"shares":300,"total_fee":133.20},"trade_date":"2026-04-01",
        "offer_expires_at":"2026-04-01T10:31:00.5Z",
        "expires_at":"2026-04-01T20:00:00Z"}"#;

    #[test]
    fn people_read_a_block_or_a_table() {
        let offer = for_people(OFFER).unwrap();
        let filled = OFFER
            .replace("offered", "filled")
            .replace("\"held\":0", "\"held\":200");
        let both =
            format!(r#"{{"items":[{OFFER},{filled}],"pagination":{{"total":7,"has_more":true}}}}"#);
        let tickers = r#"{"items":[{"ticker":"GME","available":100,"reserved":0,"used":200}]}"#;
        let none = r#"{"status":"success","items":[]}"#;
        let screens = [
            offer,
            for_people(&both).unwrap(),
            for_people(tickers).unwrap(),
            for_people(none).unwrap(),
        ];
        insta::assert_snapshot!("locates", screens.join("--\n"));
    }

    #[test]
    fn figures_reach_the_server_as_they_were_typed() {
        use crate::cli::{Cli, Command};
        use clap::Parser;
        let line = "bre locate request --ticker GME --shares 300 --price 25.50 --days 30 --client a --all-or-none \
                    --idempotency-key k";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Locate(LocateCommand::Request(args)) = cli.command else {
            panic!("another command");
        };
        let request = wanted(&args);
        let expected = json!({
            "ticker": "GME", "shares": "300", "share_price": "25.50", "loan_days": "30", "client_id": "a",
            "all_or_none": true,
        });
        assert_eq!(request.body, Some(expected));
        assert_eq!(request.idempotency_key.as_deref(), Some("k"));
    }
}
