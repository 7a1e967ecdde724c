//! From a request to a price: inputs from the market view, `pricing` for the numbers, the writer for the record. A quote is
//! answered only when its entry is durable; a rate is answered from memory.

mod replay;

pub use replay::{Mismatch, ReplayReport, entry, export, export_from, replay};

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pricing::{PricingError, QuoteInputs, RateInputs, SourcedValue, Worth};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::data::{
    AuditLog, DatabaseError, LogPosition, MarketRefresher, QuoteEntry, QuoteFacts, WriteError,
};
use crate::domain::moment::Moment;
use crate::domain::position::Position;
use crate::domain::time::{as_micros, now_micros, rfc3339};
use crate::market::{Market, MarketError, MarketView, TickerInputs};

/// Why there is no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuoteError {
    #[error("no rate is known for {0}")]
    Ticker(String),
    #[error("no terms are on file for {0}")]
    Client(String),
    #[error("no market data has been loaded yet")]
    NoView,
    #[error("{detail}")]
    Stale { part: &'static str, detail: String },
    #[error("{field}: {message}")]
    Invalid {
        field: &'static str,
        message: String,
    },
    #[error("{0}")]
    Pricing(String),
    #[error(transparent)]
    Record(#[from] WriteError),
}

impl QuoteError {
    /// The past is read from the database, each moment once.
    pub(crate) fn past(error: DatabaseError) -> QuoteError {
        QuoteError::Stale {
            part: "database",
            detail: format!("the past cannot be read: {error}"),
        }
    }
}

impl From<MarketError> for QuoteError {
    fn from(error: MarketError) -> QuoteError {
        match error {
            MarketError::Ticker(ticker) => QuoteError::Ticker(ticker),
            MarketError::NoView => QuoteError::NoView,
        }
    }
}

impl From<PricingError> for QuoteError {
    fn from(error: PricingError) -> QuoteError {
        let message = error.to_string();
        match error {
            PricingError::Stale { .. } => QuoteError::Stale {
                part: "market_data",
                detail: message,
            },
            PricingError::Missing { field, .. } => QuoteError::Invalid {
                field: parameter(field),
                message,
            },
            PricingError::Negative { field, .. }
            | PricingError::OutOfRange { field, .. }
            | PricingError::Overflow { field }
                if matches!(
                    field,
                    "position_value" | "loan_days" | "shares" | "price" | "collateral_value"
                ) =>
            {
                QuoteError::Invalid {
                    field: parameter(field),
                    message,
                }
            }
            _ => QuoteError::Pricing(message),
        }
    }
}

/// What a client would have to change.
fn parameter(field: &'static str) -> &'static str {
    match field {
        "price" | "collateral_value" => "share_price",
        other => other,
    }
}

/// A validated request for a quote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QuoteRequest {
    pub(crate) request_id: String,
    pub(crate) client_id: String,
    pub(crate) key_id: String,
    pub(crate) ticker: String,
    pub(crate) worth: Worth,
    pub(crate) loan_days: u32,
    /// Priced as of a moment of the past instead of now.
    #[serde(default)]
    pub(crate) moment: Option<Moment>,
}

/// A quote whose entry is durable.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PricedQuote {
    pub(crate) recorded: LogPosition,
    pub(crate) quote: QuoteEntry,
}

/// A ticker's rate right now.
#[derive(Debug)]
pub(crate) struct RateNow {
    pub(crate) inputs: TickerInputs,
    pub(crate) rate: pricing::Rate,
    pub(crate) borrow_status: pricing::BorrowStatus,
    pub(crate) volatility_tier: pricing::VolatilityTier,
    pub(crate) policy: String,
    /// Names of inputs that are too old.
    pub(crate) stale: Vec<&'static str>,
}

/// The boundary in front of pricing: a local call, or the same over HTTP to a calculation-service.
pub(crate) trait Calculation: Send + Sync + std::fmt::Debug {
    /// Prices a quote and returns when its entry is durable.
    fn price_quote(&self, request: QuoteRequest) -> BoxFuture<'_, Result<PricedQuote, QuoteError>>;
}

impl Calculation for Calculator {
    fn price_quote(&self, request: QuoteRequest) -> BoxFuture<'_, Result<PricedQuote, QuoteError>> {
        Box::pin(Calculator::price_quote(self, request))
    }
}

/// What a caller would like to know the rate for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) base_rate: Option<pricing::Rate>,
    pub(crate) volatility_index: Option<pricing::Index>,
    pub(crate) event_risk_factor: Option<u8>,
}

impl Overrides {
    fn into(&self, mut inputs: TickerInputs) -> TickerInputs {
        fn put<T>(into: &mut SourcedValue<T>, value: Option<T>) {
            if let Some(value) = value {
                *into = SourcedValue::new(value, "request", None);
            }
        }
        // The feed's status describes the real market, so overridden inputs do not use it.
        if *self != Overrides::default() {
            inputs.feed_status = None;
        }
        if self.base_rate.is_some() {
            inputs.dispersion = None;
        }
        put(&mut inputs.base_rate, self.base_rate);
        put(&mut inputs.volatility_index, self.volatility_index);
        put(&mut inputs.event_risk_factor, self.event_risk_factor);
        inputs
    }
}

/// The market of one moment, and the clock that goes with it.
#[derive(Debug, Clone)]
pub(crate) struct MarketAt {
    pub(crate) view: Arc<MarketView>,
    pub(crate) micros: i64,
    /// Set when it is of the past.
    pub(crate) moment: Option<Moment>,
}

/// Prices from the market view of this process.
#[derive(Debug, Clone)]
pub(crate) struct Calculator {
    pub(crate) market: Arc<Market>,
    /// Knows the past.
    pub(crate) refresher: Arc<MarketRefresher>,
    pub(crate) writer: Arc<dyn AuditLog>,
    pub(crate) quote_valid: Duration,
}

impl Calculator {
    async fn price_quote(&self, request: QuoteRequest) -> Result<PricedQuote, QuoteError> {
        // Refused before it is priced, rather than after.
        if self.writer.knows_at_once()
            && let Some(refusal) = self.writer.refusal()
        {
            return Err(refusal.into());
        }
        let at = self.market_at(request.moment).await?;
        let inputs = inputs(&at.view, &request, at.micros)?;
        let quote = pricing::quote(&inputs)?;
        let facts = QuoteFacts {
            quote_id: Uuid::now_v7().to_string(),
            request_id: request.request_id,
            client_id: request.client_id,
            key_id: request.key_id,
            // What is priced as of the past is over when it is given.
            expires_at: rfc3339(match at.moment {
                Some(moment) => moment.as_of_micros,
                None => at.micros + as_micros(self.quote_valid),
            }),
            engine_version: crate::domain::VERSION.to_owned(),
            requested_ticker: Some(request.ticker).filter(|asked| **asked != *inputs.ticker),
            known_at: at.moment.map(|moment| rfc3339(moment.known_at_micros)),
        };
        let record = QuoteEntry::new(facts, inputs, &quote);
        let recorded = self.writer.priced(&record, &quote).await?;
        Ok(PricedQuote {
            recorded,
            quote: record,
        })
    }

    /// A line of a book: priced, not recorded.
    pub(crate) fn price(
        at: &MarketAt,
        position: &Position,
    ) -> Result<(QuoteInputs, pricing::Quote), QuoteError> {
        let inputs = inputs_of(&at.view, position, at.micros)?;
        let quote = pricing::quote(&inputs)?;
        Ok((inputs, quote))
    }

    /// The market of this moment, such that asking for the moment later gives the same.
    pub(crate) async fn settled(&self) -> Result<MarketAt, QuoteError> {
        let now = self.now()?;
        let current = self.refresher.is_current(now.micros).await;
        if current.map_err(QuoteError::past)? {
            return Ok(now);
        }
        let moment = Moment {
            as_of_micros: now.micros,
            known_at_micros: now.micros,
        };
        let view = self.refresher.view_at(moment).await;
        Ok(MarketAt {
            view: view.map_err(QuoteError::past)?,
            ..now
        })
    }

    /// With the caller's figures in place of the market's.
    pub(crate) fn rate(
        &self,
        at: &MarketAt,
        ticker: &str,
        client_id: &str,
        overrides: &Overrides,
    ) -> Result<RateNow, QuoteError> {
        let inputs = overrides.into(at.view.inputs(ticker, at.micros)?);
        self.rate_in(at, inputs, client_id)
    }

    /// The market of this moment.
    pub(crate) fn now(&self) -> Result<MarketAt, QuoteError> {
        Ok(MarketAt {
            view: self.market.view()?,
            micros: now_micros(),
            moment: None,
        })
    }

    /// The market of that moment, or of this one.
    pub(crate) async fn market_at(&self, moment: Option<Moment>) -> Result<MarketAt, QuoteError> {
        let Some(moment) = moment else {
            return self.now();
        };
        let view = self.refresher.view_at(moment).await;
        Ok(MarketAt {
            view: view.map_err(QuoteError::past)?,
            micros: moment.as_of_micros,
            moment: Some(moment),
        })
    }

    /// Tickers whose rate has that status for this client, in alphabetical order: those of one page, and how many there are.
    pub(crate) fn rates_of(
        &self,
        at: &MarketAt,
        status: pricing::BorrowStatus,
        client_id: &str,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<RateNow>, usize), QuoteError> {
        let (mut page, mut total) = (Vec::new(), 0);
        for ticker in at.view.ticker_names() {
            // One rate that cannot be computed must not take the list away; asked for by itself it says why.
            let Ok(rate) = self.rate_in(at, at.view.inputs(ticker, at.micros)?, client_id) else {
                continue;
            };
            if rate.borrow_status == status {
                if total >= skip && page.len() < limit {
                    page.push(rate);
                }
                total += 1;
            }
        }
        Ok((page, total))
    }

    fn rate_in(
        &self,
        at: &MarketAt,
        inputs: TickerInputs,
        client_id: &str,
    ) -> Result<RateNow, QuoteError> {
        let policy = at.view.policy_of(client_id);
        let steps = pricing::rate(
            &RateInputs {
                base_rate: inputs.base_rate.value,
                minimum_rate: inputs.minimum_rate.value,
                volatility_index: inputs.volatility_index.value,
                event_risk_factor: inputs.event_risk_factor.value,
            },
            policy,
        )?;
        let feed_status = inputs.feed_status.as_ref().map(|status| status.value);
        Ok(RateNow {
            rate: steps.rate,
            borrow_status: feed_status.unwrap_or_else(|| policy.status.status(steps.rate)),
            volatility_tier: pricing::volatility_tier(inputs.volatility_index.value),
            policy: policy.id(),
            stale: self.stale(at, &inputs, policy),
            inputs,
        })
    }

    fn stale(
        &self,
        at: &MarketAt,
        inputs: &TickerInputs,
        policy: &pricing::Policy,
    ) -> Vec<&'static str> {
        let found = pricing::stale_inputs(
            policy,
            at.micros,
            &inputs.base_rate,
            &inputs.volatility_index,
            &inputs.event_risk_factor,
        );
        let mut stale: Vec<_> = found.into_iter().map(|input| input.field).collect();
        if at.moment.is_none() && self.market.is_stale(at.micros) {
            stale.push("market_view");
        }
        stale
    }
}

fn inputs(view: &MarketView, request: &QuoteRequest, now: i64) -> Result<QuoteInputs, QuoteError> {
    let position = Position {
        ticker: request.ticker.clone(),
        client_id: request.client_id.clone(),
        loan_days: request.loan_days,
        worth: request.worth,
    };
    inputs_of(view, &position, now)
}

fn inputs_of(view: &MarketView, position: &Position, now: i64) -> Result<QuoteInputs, QuoteError> {
    let market = view.inputs(&position.ticker, now)?;
    let terms = view
        .terms(&position.client_id)
        .ok_or_else(|| QuoteError::Client(position.client_id.clone()))?;
    Ok(QuoteInputs {
        ticker: market.ticker,
        currency: market.currency,
        priced_at_micros: now,
        position_value: position.worth.value(),
        loan_days: position.loan_days,
        per_share: position.worth.per_share(),
        base_rate: market.base_rate,
        minimum_rate: market.minimum_rate,
        volatility_index: market.volatility_index,
        event_risk_factor: market.event_risk_factor,
        markup_percent: SourcedValue::new(terms.markup_percent, "broker", None),
        fee: SourcedValue::new(terms.fee, "broker", None),
        feed_status: market.feed_status,
        policy: Arc::clone(&terms.policy),
        convention: Arc::clone(&terms.convention),
    })
}
