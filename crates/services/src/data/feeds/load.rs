//! From a file to rows: checks, aliases, one batch, and what the audit entry says of it.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use audit::Fields;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use tokio_postgres::Transaction;
use uuid::Uuid;

use super::{FeedError, Quarantined, count_reasons, eight_decimals, ibkr, refuse_mostly_bad, vix};
use crate::time::{rfc3339, system_time};

/// A feed's symbol, and ours, for files of certain dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) source: String,
    pub(crate) symbol: String,
    pub(crate) ticker: String,
    pub(crate) valid_from_micros: i64,
    pub(crate) valid_to_micros: i64,
}

/// A file that passed, ready to be inserted.
#[derive(Debug)]
pub(crate) struct FeedLoad {
    batch_id: Uuid,
    kind: &'static str,
    source: String,
    sha256: Vec<u8>,
    valid_at_micros: i64,
    known_at_micros: i64,
    rates: Vec<(String, ibkr::RateRow)>,
    volatility: Vec<vix::VolatilityRow>,
    quarantined: Vec<Quarantined>,
    benchmarks: BTreeMap<String, i64>,
}

/// What an import answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    pub kind: String,
    pub source: String,
    pub batch_id: String,
    pub sha256: String,
    pub valid_at: String,
    pub rows: usize,
    pub loaded: usize,
    pub quarantined: usize,
    pub reasons: BTreeMap<String, usize>,
    /// Fractions a year, by currency.
    pub benchmarks: BTreeMap<String, String>,
}

/// Reads a whole file. `valid_at`: when a file without a time of its own was true.
pub(crate) fn prepare(
    kind: &str,
    source: Option<&str>,
    bytes: &[u8],
    now: Timestamp,
    valid_at: Option<Timestamp>,
    aliases: &[Alias],
) -> Result<FeedLoad, FeedError> {
    let mut load = FeedLoad {
        batch_id: Uuid::now_v7(),
        kind: "",
        source: String::new(),
        sha256: digest(&SHA256, bytes).as_ref().to_vec(),
        valid_at_micros: 0,
        known_at_micros: now.as_microsecond(),
        rates: Vec::new(),
        volatility: Vec::new(),
        quarantined: Vec::new(),
        benchmarks: BTreeMap::new(),
    };
    match kind {
        "ibkr" => load.take_book(bytes, now, valid_at, aliases)?,
        "vix" => load.take_history(bytes, now)?,
        other => return Err(FeedError::Kind(other.to_owned())),
    }
    source.unwrap_or(load.kind).clone_into(&mut load.source);
    load.quarantined.sort_by_key(|row| row.line);
    Ok(load)
}

impl FeedLoad {
    fn take_book(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        valid_at: Option<Timestamp>,
        aliases: &[Alias],
    ) -> Result<(), FeedError> {
        let parsed = ibkr::parse(bytes, now)?;
        self.kind = "ibkr";
        self.valid_at_micros = parsed.valid_at.or(valid_at).unwrap_or(now).as_microsecond();
        self.quarantined = parsed.quarantined;
        self.benchmarks = parsed.benchmarks;
        let mut seen = HashSet::new();
        for row in parsed.rows {
            let alias = aliases.iter().find(|alias| {
                alias.source == self.kind
                    && alias.symbol == row.symbol
                    && (alias.valid_from_micros..alias.valid_to_micros)
                        .contains(&self.valid_at_micros)
            });
            let ticker = alias.map_or(&row.symbol, |alias| &alias.ticker).clone();
            if seen.insert(ticker.clone()) {
                self.rates.push((ticker, row));
            } else {
                self.quarantined.push(Quarantined {
                    line: row.line,
                    reason: "ticker_repeated",
                    row: row.row,
                });
            }
        }
        refuse_mostly_bad(self.rates.len(), &self.quarantined)
    }

    fn take_history(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), FeedError> {
        let parsed = vix::parse(bytes, now)?;
        self.kind = "vix";
        self.valid_at_micros = parsed
            .rows
            .iter()
            .map(|row| row.valid_at.as_microsecond())
            .max()
            .unwrap_or_default();
        self.volatility = parsed.rows;
        self.quarantined = parsed.quarantined;
        Ok(())
    }

    fn loaded(&self) -> usize {
        self.rates.len() + self.volatility.len()
    }

    fn rows(&self) -> usize {
        self.loaded() + self.quarantined.len()
    }

    pub(crate) fn report(&self) -> ImportReport {
        ImportReport {
            kind: self.kind.to_owned(),
            source: self.source.clone(),
            batch_id: self.batch_id.to_string(),
            sha256: self
                .sha256
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            valid_at: rfc3339(self.valid_at_micros),
            rows: self.rows(),
            loaded: self.loaded(),
            quarantined: self.quarantined.len(),
            reasons: count_reasons(&self.quarantined)
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            benchmarks: self
                .benchmarks
                .iter()
                .map(|(currency, value)| (currency.clone(), eight_decimals(*value)))
                .collect(),
        }
    }

    pub(crate) fn fields(&self) -> Fields {
        let report = self.report();
        let mut fields = Fields::new()
            .with("feed", report.kind)
            .with("source", report.source)
            .with("batch_id", report.batch_id)
            .with("sha256", report.sha256)
            .with("valid_at", report.valid_at)
            .with("rows", report.rows.to_string())
            .with("loaded", report.loaded.to_string())
            .with("quarantined", report.quarantined.to_string());
        for (reason, count) in report.reasons {
            fields.set(format!("quarantined.{reason}"), count.to_string());
        }
        for (currency, value) in report.benchmarks {
            fields.set(format!("benchmark.{}", currency.to_lowercase()), value);
        }
        fields
    }

    pub(crate) async fn insert(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        let (valid_at, known_at) = (
            system_time(self.valid_at_micros),
            system_time(self.known_at_micros),
        );
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        transaction
            .execute(
                "INSERT INTO feed_batches (batch_id, kind, source, sha256, rows, loaded, quarantined, valid_at, known_at) \
                 VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9)",
                &[
                    &self.batch_id.to_string(),
                    &self.kind,
                    &self.source,
                    &self.sha256,
                    &count(self.rows()),
                    &count(self.loaded()),
                    &count(self.quarantined.len()),
                    &valid_at,
                    &known_at,
                ],
            )
            .await?;
        self.insert_rates(transaction, valid_at, known_at).await?;
        self.insert_volatility(transaction, known_at).await?;
        let lines: Vec<i32> = self.quarantined.iter().map(|row| count(row.line)).collect();
        let reasons: Vec<&str> = self.quarantined.iter().map(|row| row.reason).collect();
        // A NUL cannot be stored as text; what else a broken row holds can.
        let rows: Vec<String> = self
            .quarantined
            .iter()
            .map(|row| row.row.replace('\0', "\u{fffd}"))
            .collect();
        transaction
            .execute(
                "INSERT INTO quarantine (batch_id, line_number, reason, row) \
                 SELECT $1::text::uuid, * FROM UNNEST($2::integer[], $3::text[], $4::text[])",
                &[&self.batch_id.to_string(), &lines, &reasons, &rows],
            )
            .await?;
        Ok(())
    }

    async fn insert_rates(
        &self,
        transaction: &Transaction<'_>,
        valid_at: SystemTime,
        known_at: SystemTime,
    ) -> Result<(), tokio_postgres::Error> {
        let text = |read: fn(&ibkr::RateRow) -> &str| -> Vec<Option<&str>> {
            self.rates
                .iter()
                .map(|(_, row)| Some(read(row)).filter(|text| !text.is_empty()))
                .collect()
        };
        let tickers: Vec<&str> = self
            .rates
            .iter()
            .map(|(ticker, _)| ticker.as_str())
            .collect();
        let rates: Vec<String> = self
            .rates
            .iter()
            .map(|(_, row)| eight_decimals(row.rate))
            .collect();
        let rebates: Vec<String> = self
            .rates
            .iter()
            .map(|(_, row)| eight_decimals(row.rebate))
            .collect();
        let available: Vec<Option<i64>> = self.rates.iter().map(|(_, row)| row.available).collect();
        let or_more: Vec<bool> = self
            .rates
            .iter()
            .map(|(_, row)| row.available_or_more)
            .collect();
        transaction
            .execute(
                "INSERT INTO base_rates (ticker, valid_at, known_at, rate, rebate, currency, available, available_or_more, source, symbol, \
                                         name, isin, figi, batch_id) \
                 SELECT ticker, $1, $2, rate::numeric, rebate::numeric, currency, available, or_more, $3, symbol, name, isin, figi, $4::text::uuid \
                 FROM UNNEST($5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::boolean[], $11::text[], $12::text[], \
                             $13::text[], $14::text[]) \
                      AS t (ticker, rate, rebate, currency, available, or_more, symbol, name, isin, figi)",
                &[
                    &valid_at,
                    &known_at,
                    &self.source,
                    &self.batch_id.to_string(),
                    &tickers,
                    &rates,
                    &rebates,
                    &text(|row| &row.currency),
                    &available,
                    &or_more,
                    &text(|row| &row.symbol),
                    &text(|row| &row.name),
                    &text(|row| &row.isin),
                    &text(|row| &row.figi),
                ],
            )
            .await?;
        Ok(())
    }

    /// Rows that are there already, unchanged, are not stored again: the history comes whole every day.
    async fn insert_volatility(
        &self,
        transaction: &Transaction<'_>,
        known_at: SystemTime,
    ) -> Result<(), tokio_postgres::Error> {
        let times: Vec<SystemTime> = self
            .volatility
            .iter()
            .map(|row| system_time(row.valid_at.as_microsecond()))
            .collect();
        let values: Vec<String> = self
            .volatility
            .iter()
            .map(|row| eight_decimals(row.index))
            .collect();
        transaction
            .execute(
                "INSERT INTO volatility (subject, valid_at, known_at, volatility_index, source, batch_id) \
                 SELECT 'MARKET', t.valid_at, $1, t.value::numeric, $2, $3::text::uuid \
                 FROM UNNEST($4::timestamptz[], $5::text[]) AS t (valid_at, value) \
                 WHERE NOT EXISTS (SELECT FROM volatility AS known WHERE known.subject = 'MARKET' AND known.valid_at = t.valid_at \
                                   AND known.source = $2 AND known.volatility_index = t.value::numeric)",
                &[&known_at, &self.source, &self.batch_id.to_string(), &times, &values],
            )
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_count_for_files_of_their_dates_only() {
        let micros = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        let aliases = [
            Alias {
                source: "ibkr".into(),
                symbol: "BRK A".into(),
                ticker: "BRK.A".into(),
                valid_from_micros: i64::MIN,
                valid_to_micros: i64::MAX,
            },
            Alias {
                source: "ibkr".into(),
                symbol: "FB".into(),
                ticker: "META".into(),
                valid_from_micros: i64::MIN,
                valid_to_micros: micros("2022-06-09T00:00:00Z"),
            },
        ];
        let check = |date: &str, expected: &[&str]| {
            let file = format!(
                "#BOF|{date}|00:00:00\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|\nBRK A|USD|B|1|X|3.3900|0.2500|1|\n\
                 FB|USD|F|1|X|3.3900|0.2500|1|\nMETA|USD|F|1|X|3.3900|0.2500|1|\n#EOF|3\n"
            );
            let load = prepare(
                "ibkr",
                None,
                file.as_bytes(),
                "2025-07-01T12:00:00Z".parse().unwrap(),
                None,
                &aliases,
            )
            .unwrap();
            let found: Vec<&str> = load
                .rates
                .iter()
                .map(|(ticker, _)| ticker.as_str())
                .collect();
            assert_eq!(found, expected);
            assert_eq!(load.report().rows, 3);
        };
        check("2021.01.04", &["BRK.A", "META"]);
        check("2024.01.04", &["BRK.A", "FB", "META"]);
    }
}
