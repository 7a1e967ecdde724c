//! One client of a drill, as a process of its own: prices over HTTP until its standard input closes.

use std::{
    fs::{File, OpenOptions},
    path::PathBuf,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    DrillError,
    ledger::{RequestOutcome, RequestRecord, now_micros},
};

const TICKERS: [&str; 8] = ["AAPL", "MSFT", "GOOGL", "TSLA", "JPM", "NFLX", "GME", "AMC"];
/// Longer than the engine's own deadline for a quote, so that the engine speaks first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a refusal: a client that hammers a closed door measures the door.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// What one client needs to know.
#[derive(Debug)]
pub struct Client {
    pub url: String,
    pub api_key_file: PathBuf,
    pub client_id: String,
    pub ledger: PathBuf,
    pub seed: u64,
}

#[derive(Deserialize)]
struct Answer<'a> {
    quote_id: String,
    #[serde(borrow)]
    total_fee: &'a RawValue,
    audit: AuditPosition,
}

#[derive(Deserialize)]
struct AuditPosition {
    epoch: u32,
    position: u64,
}

impl Client {
    /// Prices until standard input ends. Every answer is on disk (as far as a process can promise) before the next
    /// request.
    pub async fn run(&self) -> Result<(), DrillError> {
        let mut ledger = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.ledger)
            .map_err(DrillError::file("cannot open the ledger", &self.ledger))?;
        let key = secrets::read_text(&self.api_key_file).map_err(|error| {
            let error = std::io::Error::other(error.reason());
            DrillError::file("cannot read the API key", &self.api_key_file)(error)
        })?;
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| DrillError::Command {
                command: "drill-client".into(),
                reason: error.to_string(),
            })?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let stop = tokio::task::spawn_blocking(|| {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        });
        while !stop.is_finished() {
            self.price_once(&http, key.trim(), &mut random, &mut ledger)
                .await?;
        }
        Ok(())
    }

    async fn price_once(
        &self,
        http: &reqwest::Client,
        key: &str,
        random: &mut StdRng,
        ledger: &mut File,
    ) -> Result<(), DrillError> {
        let request_id = uuid::Uuid::now_v7().to_string();
        let body = serde_json::json!({
            "ticker": TICKERS[random.random_range(0..TICKERS.len())],
            "position_value": format!("{}.{:02}", random.random_range(1..5_000_000_u32), random.random_range(0..100_u32)),
            "loan_days": random.random_range(1..=365_u32),
            "client_id": self.client_id,
        });
        let sent_at_micros = now_micros();
        let sent = http
            .post(format!("{}/api/v1/calculate-locate", self.url))
            .header("X-API-Key", key)
            .header("X-Request-ID", &request_id)
            .json(&body)
            .send()
            .await;
        let outcome = outcome_of(sent).await;
        let record = RequestRecord {
            request_id,
            sent_at_micros,
            ended_at_micros: now_micros(),
            outcome,
        };
        record
            .append(ledger)
            .map_err(DrillError::file("cannot write the ledger", &self.ledger))?;
        if matches!(record.outcome, RequestOutcome::Refused { .. }) {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        Ok(())
    }
}

async fn outcome_of(sent: reqwest::Result<reqwest::Response>) -> RequestOutcome {
    let response = match sent {
        Ok(response) => response,
        Err(error) if error.is_connect() => return RequestOutcome::Refused { status: 0 },
        Err(_) => return RequestOutcome::InDoubt,
    };
    let status = response.status();
    let Ok(body) = response.text().await else {
        return RequestOutcome::InDoubt;
    };
    if status.is_success() {
        return acknowledged(&body).unwrap_or(RequestOutcome::InDoubt);
    }
    if body.contains("outcome unknown") {
        RequestOutcome::InDoubt
    } else {
        RequestOutcome::Refused {
            status: status.as_u16(),
        }
    }
}

fn acknowledged(body: &str) -> Option<RequestOutcome> {
    let answer: Answer<'_> = serde_json::from_str(body).ok()?;
    Some(RequestOutcome::Acknowledged {
        quote_id: answer.quote_id,
        epoch: answer.audit.epoch,
        position: answer.audit.position,
        total_fee: answer.total_fee.get().to_owned(),
    })
}
