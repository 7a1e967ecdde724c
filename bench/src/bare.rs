//! Peers that are servers, each in a process of its own: axum with nothing to do, and axum that prices but records
//! nothing.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use pricing::{
    Convention, Fee, Money, Percent, Policy, PositionValue, QuoteInputs, Rate, SourcedValue,
};
use serde::{Deserialize, Serialize};

use crate::system::Result;

/// A peer that runs; ended when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    pub(crate) address: String,
}

impl Peer {
    pub(crate) fn start(what: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(what)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        Ok(Self {
            child,
            address: address.trim().to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve(routes: Router) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    crate::say(&listener.local_addr()?.to_string());
    axum::serve(listener, routes).await?;
    Ok(())
}

#[derive(Deserialize)]
struct RateRequest {
    ticker: String,
    position_value: String,
}

#[derive(Serialize)]
struct RateAnswer {
    status: &'static str,
    ticker: String,
    current_rate: String,
}

/// Parses a small JSON body, answers a small JSON body.
pub(crate) async fn axum_alone() -> Result<()> {
    let handler = |Json(asked): Json<RateRequest>| async move {
        Json(RateAnswer {
            status: "success",
            ticker: asked.ticker,
            current_rate: asked.position_value,
        })
    };
    serve(Router::new().route("/", post(handler))).await
}

/// What the engine knows when it prices.
struct PricingData {
    keys: HashMap<[u8; 32], AtomicU64>,
    book: HashMap<String, SourcedValue<Rate>>,
    policy: Arc<Policy>,
    convention: Arc<Convention>,
}

#[derive(Deserialize)]
struct QuoteRequest {
    ticker: String,
    position_value: String,
    loan_days: u32,
    client_id: String,
}

/// The fields of the engine's own answer.
#[derive(Serialize)]
struct QuoteAnswer {
    status: &'static str,
    #[serde(flatten)]
    outputs: pricing::Outputs,
    quote_id: String,
    request_id: String,
    ticker: String,
    client_id: String,
    position_value: PositionValue,
    loan_days: u32,
    currency: Arc<str>,
    policy: String,
    convention: String,
    base_rate: SourcedValue<Rate>,
}

/// Everything that a locate takes, but no record of it: key, limit, parameters, price, ids, JSON.
pub(crate) async fn pricing_alone() -> Result<()> {
    let desk = PricingData {
        keys: HashMap::new(),
        book: HashMap::from([(
            "GME".to_owned(),
            SourcedValue::new(Rate::from_units(19_000_000), "ibkr", Some(0)),
        )]),
        policy: Arc::new(Policy::standard_1()),
        convention: Arc::new(Convention::act365_1()),
    };
    let routes = Router::new().route("/api/v1/calculate-locate", post(locate));
    serve(routes.with_state(Arc::new(desk))).await
}

async fn locate(
    State(desk): State<Arc<PricingData>>,
    headers: HeaderMap,
    Json(asked): Json<QuoteRequest>,
) -> std::result::Result<Json<QuoteAnswer>, StatusCode> {
    // Any key is good, but it is looked for.
    let key = headers.get("x-api-key").ok_or(StatusCode::UNAUTHORIZED)?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    if let Some(used) = desk.keys.get(&hash) {
        used.fetch_add(1, Ordering::Relaxed);
    }
    let base_rate = desk.book.get(&asked.ticker).ok_or(StatusCode::NOT_FOUND)?;
    let bad = |_| StatusCode::BAD_REQUEST;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let inputs = QuoteInputs {
        ticker: asked.ticker.as_str().into(),
        currency: "USD".into(),
        priced_at_micros: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
        position_value: asked.position_value.parse().map_err(bad)?,
        loan_days: asked.loan_days,
        per_share: None,
        base_rate: base_rate.clone(),
        minimum_rate: SourcedValue::new(Rate::ZERO, "stocks", None),
        volatility_index: SourcedValue::new(pricing::DEFAULT_INDEX, "vix", None),
        event_risk_factor: SourcedValue::new(0, "none", None),
        markup_percent: SourcedValue::new(Percent::whole(5), "broker", None),
        fee: SourcedValue::new(Fee::Flat(Money::whole(25)), "broker", None),
        feed_status: None,
        policy: Arc::clone(&desk.policy),
        convention: Arc::clone(&desk.convention),
    };
    let quote = pricing::quote(&inputs).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    Ok(Json(QuoteAnswer {
        status: "success",
        outputs: quote.outputs(),
        quote_id: uuid::Uuid::now_v7().to_string(),
        request_id: uuid::Uuid::now_v7().to_string(),
        ticker: asked.ticker,
        client_id: asked.client_id,
        position_value: inputs.position_value,
        loan_days: inputs.loan_days,
        currency: inputs.currency,
        policy: inputs.policy.id(),
        convention: inputs.convention.id(),
        base_rate: inputs.base_rate,
    }))
}
