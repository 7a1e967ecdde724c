//! Reading the newest of everything from the database.

use std::collections::HashMap;
use std::time::SystemTime;

use pricing::{BorrowStatus, Fixed};
use tokio_postgres::{Client, Row};

use super::database::DatabaseError;
use super::feeds::Alias;
use super::newest;
use super::stocks::stocks;
use crate::domain::digits::decimal;
use crate::domain::keys::{KeyHash, Role, StoredKey, Tier};
use crate::domain::moment::Moment;
use crate::domain::time::{micros, now_micros, system_time};
use crate::market::{
    AnnouncedEvent, BaseRate, BrokerTerms, Definition, EventRisk, HeldFigure, LastLoad, MarketData,
    RefusedDelivery, TickerAlias, Volatility,
};

/// The source under which aliases for requests are kept.
const REQUESTS: &str = "api";

/// The newest of everything, or (of what has a time) what was the newest then.
pub(crate) async fn load(
    client: &Client,
    moment: Option<Moment>,
) -> Result<MarketData, DatabaseError> {
    let read_at_micros = now_micros();
    let times = moment.map(|moment| {
        (
            system_time(moment.as_of_micros),
            system_time(moment.known_at_micros),
        )
    });
    let failed = DatabaseError::query("reading the market data");
    let newest = async |query: &'static str| {
        match &times {
            None => client.query(query, &[]).await,
            Some((as_of, known_at)) => client.query(&newest::at(query), &[as_of, known_at]).await,
        }
        .map_err(&failed)
    };
    let read = async |query: &'static str| client.query(query, &[]).await.map_err(&failed);
    let known_at = times.map(|(_, known_at)| known_at);
    let mut rates = keep(newest(newest::RATES).await?, base_rate);
    let held = newest(newest::HELD_RATES).await?;
    let mut held: HashMap<_, _> = held.iter().map(held_row).collect();
    for rate in rates.iter_mut() {
        let name = (rate.source.to_string(), rate.ticker.to_string());
        let later = held.remove(&name).filter(|(held, known_at)| {
            (held.valid_at_micros, *known_at) > (rate.valid_at_micros, rate.known_at_micros)
        });
        rate.held = later.map(|(held, _)| held);
    }
    let mut volatility = keep(newest(newest::VOLATILITY).await?, volatility_row);
    let held = newest(newest::HELD_INDICES).await?;
    let mut held: HashMap<_, _> = held.iter().map(held_row).collect();
    for index in volatility.iter_mut() {
        let name = (index.source.to_string(), index.subject.to_string());
        let later = held.remove(&name);
        index.held = later
            .map(|(held, _)| held)
            .filter(|held| held.valid_at_micros > index.valid_at_micros);
    }
    let loads = keep(newest(newest::LOADS).await?, |row| Some(last_load(row)));
    let mut refusals = keep(newest(newest::REFUSALS).await?, |row| Some(refusal(row)));
    // One that a later delivery of the same has followed is over.
    refusals.retain(|refusal| {
        let same = |load: &&LastLoad| load.source == refusal.source && load.kind == refusal.kind;
        loads.iter().find(same).is_none_or(|load| {
            refusal.known_at_micros > load.known_at_micros
                && refusal.valid_at_micros >= load.valid_at_micros
        })
    });
    Ok(MarketData {
        rates,
        stocks: stocks(client, known_at).await?,
        volatility,
        events: keep(newest(newest::RISKS).await?, event_row),
        announced: keep(newest(newest::ANNOUNCED).await?, announced),
        loads,
        refusals,
        brokers: keep(
            client.query(BROKERS, &[&known_at]).await.map_err(&failed)?,
            |row| Some(broker(row)),
        ),
        aliases: aliases(client, known_at)
            .await?
            .into_iter()
            .filter(|alias| alias.source == REQUESTS)
            .map(|alias| TickerAlias {
                symbol: alias.symbol,
                ticker: alias.ticker,
                valid_from_micros: alias.valid_from_micros,
                valid_to_micros: alias.valid_to_micros,
            })
            .collect(),
        // Published versions never change, and terms name the one that they mean: no time is needed.
        policies: keep(read(POLICIES).await?, definition),
        conventions: keep(read(CONVENTIONS).await?, definition),
        read_at_micros,
    })
}

/// When the first batch of all arrived; before it nothing was known.
pub(crate) async fn first_known_at(client: &Client) -> Result<Option<i64>, DatabaseError> {
    let row = client
        .query_one("SELECT min(known_at) FROM feed_batches", &[])
        .await
        .map_err(DatabaseError::query("reading when the first feed came"))?;
    Ok(row.get::<_, Option<SystemTime>>(0).map(micros))
}

/// When what prices depend on last changed.
pub(crate) async fn changed_at(client: &Client) -> Result<Option<i64>, DatabaseError> {
    let sql = "SELECT greatest((SELECT max(known_at) FROM feed_batches), (SELECT max(changed_at) FROM brokers), \
                   (SELECT max(known_at) FROM feed_refusals), (SELECT max(known_at) FROM minimum_rates))";
    let row = client
        .query_one(sql, &[])
        .await
        .map_err(DatabaseError::query("reading when the market last changed"))?;
    Ok(row.get::<_, Option<SystemTime>>(0).map(micros))
}

/// All that was known at a moment, as far as a view of then depends on it: the newest change of each kind, and how many came within
/// an hour before it, since one of them may have been committed after a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knowledge {
    changes: [(Option<i64>, i64); 4],
    /// Of policies and conventions, which never change.
    definitions: i64,
}

/// Quick, whatever the past holds: it looks at the ends of indexes and at small tables. Those of [`changed_at`].
pub(crate) async fn knowledge(
    client: &Client,
    known_at_micros: i64,
) -> Result<Knowledge, DatabaseError> {
    let row = client
        .query_one(KNOWLEDGE, &[&system_time(known_at_micros)])
        .await
        .map_err(DatabaseError::query("reading what was known then"))?;
    let change = |index: usize| {
        let at = row.get::<_, Option<SystemTime>>(index).map(micros);
        (at, row.get(index + 1))
    };
    Ok(Knowledge {
        changes: [0, 2, 4, 6].map(change),
        definitions: row.get(8),
    })
}

const KNOWLEDGE: &str = "\
    WITH batch AS (SELECT max(known_at) AS at FROM feed_batches WHERE known_at <= $1), \
         terms AS (SELECT max(changed_at) AS at FROM brokers WHERE changed_at <= $1), \
         refusal AS (SELECT max(known_at) AS at FROM feed_refusals WHERE known_at <= $1), \
         minimum AS (SELECT max(known_at) AS at FROM minimum_rates WHERE known_at <= $1) \
    SELECT batch.at, (SELECT count(*) FROM feed_batches WHERE known_at <= $1 AND known_at > batch.at - interval '1 hour'), \
           terms.at, (SELECT count(*) FROM brokers WHERE changed_at <= $1 AND changed_at > terms.at - interval '1 hour'), \
           refusal.at, (SELECT count(*) FROM feed_refusals WHERE known_at <= $1 AND known_at > refusal.at - interval '1 hour'), \
           minimum.at, (SELECT count(*) FROM minimum_rates WHERE known_at <= $1 AND known_at > minimum.at - interval '1 hour'), \
           (SELECT count(*) FROM policies) + (SELECT count(*) FROM conventions) \
    FROM batch, terms, refusal, minimum";

const BROKERS: &str = "\
    SELECT DISTINCT ON (client_id) client_id, markup_percent::text, fee_type, fee_amount::text, tier, convention, policy, active \
    FROM brokers WHERE changed_at <= coalesce($1::timestamptz, 'infinity') ORDER BY client_id, changed_at DESC";
const POLICIES: &str = "SELECT policy, definition FROM policies ORDER BY policy";
const CONVENTIONS: &str = "SELECT convention, definition FROM conventions ORDER BY convention";

/// A row whose numbers do not fit our types is left out, and said so: one bad row must not take the market away.
pub(super) fn keep<T>(rows: Vec<Row>, read: impl Fn(&Row) -> Option<T>) -> Vec<T> {
    let count = rows.len();
    let kept: Vec<T> = rows.iter().filter_map(read).collect();
    if kept.len() < count {
        tracing::error!(
            left_out = count - kept.len(),
            "rows of the market data cannot be read"
        );
    }
    kept
}

fn base_rate(row: &Row) -> Option<BaseRate> {
    Some(BaseRate {
        ticker: row.get::<_, &str>(0).into(),
        rate: decimal(row.get(1))?,
        currency: row.get::<_, &str>(2).into(),
        source: row.get::<_, &str>(3).into(),
        valid_at_micros: micros(row.get(4)),
        known_at_micros: micros(row.get(5)),
        available: row.get(6),
        available_or_more: row.get(7),
        status: status(row.get(8))?,
        held: None,
    })
}

/// Source, and ticker or `MARKET`.
type Subject = (String, String);

/// By its subject, with when it was known.
fn held_row<const D: u32>(row: &Row) -> (Subject, (HeldFigure<Fixed<D>>, i64)) {
    let held = HeldFigure {
        value: row.get::<_, Option<&str>>(2).and_then(decimal),
        valid_at_micros: micros(row.get(3)),
        reason: row.get::<_, &str>(5).into(),
    };
    ((row.get(0), row.get(1)), (held, micros(row.get(4))))
}

fn refusal(row: &Row) -> RefusedDelivery {
    RefusedDelivery {
        source: row.get(0),
        kind: row.get(1),
        rule: row.get::<_, &str>(2).into(),
        valid_at_micros: micros(row.get(3)),
        known_at_micros: micros(row.get(4)),
    }
}

/// `Some(None)`: there is none. `None`: it is a word that we do not know.
pub(super) fn status(word: Option<&str>) -> Option<Option<BorrowStatus>> {
    word.map_or(Some(None), |word| word.parse().ok().map(Some))
}

fn announced(row: &Row) -> Option<AnnouncedEvent> {
    Some(AnnouncedEvent {
        ticker: row.get::<_, &str>(0).into(),
        date: row.get::<_, &str>(1).parse().ok()?,
        source: row.get::<_, &str>(2).into(),
        valid_at_micros: micros(row.get(3)),
    })
}

fn last_load(row: &Row) -> LastLoad {
    LastLoad {
        kind: row.get(0),
        source: row.get(1),
        valid_at_micros: micros(row.get(2)),
        known_at_micros: micros(row.get(3)),
        rows: row.get(4),
        loaded: row.get(5),
        quarantined: row.get(6),
    }
}

fn volatility_row(row: &Row) -> Option<Volatility> {
    Some(Volatility {
        subject: row.get::<_, &str>(0).into(),
        index: decimal(row.get(1))?,
        source: row.get::<_, &str>(2).into(),
        valid_at_micros: micros(row.get(3)),
        held: None,
    })
}

fn event_row(row: &Row) -> Option<EventRisk> {
    Some(EventRisk {
        subject: row.get::<_, &str>(0).into(),
        factor: u8::try_from(row.get::<_, i16>(1)).ok()?,
        source: row.get::<_, &str>(2).into(),
        valid_at_micros: micros(row.get(3)),
    })
}

fn definition(row: &Row) -> Option<Definition> {
    Some(Definition {
        id: row.get(0),
        json: row.get(1),
    })
}

pub(super) fn broker(row: &Row) -> BrokerTerms {
    BrokerTerms {
        client_id: row.get(0),
        markup_percent: row.get(1),
        fee_type: row.get(2),
        fee_amount: row.get(3),
        tier: row.get(4),
        convention: row.get(5),
        policy: row.get(6),
        active: row.get(7),
    }
}

pub(crate) async fn keys(client: &Client) -> Result<Vec<StoredKey>, DatabaseError> {
    let sql = "SELECT key_id, hash, client_id, tier, created_at, expires_at, revoked_at, role FROM api_keys ORDER BY created_at, key_id";
    let rows = client
        .query(sql, &[])
        .await
        .map_err(DatabaseError::query("reading the API keys"))?;
    Ok(keep(rows, key))
}

fn key(row: &Row) -> Option<StoredKey> {
    Some(StoredKey {
        key_id: row.get(0),
        hash: KeyHash::try_from(row.get::<_, &[u8]>(1)).ok()?,
        client_id: row.get(2),
        tier: Tier::parse(row.get(3))?,
        created_at_micros: micros(row.get(4)),
        expires_at_micros: micros(row.get(5)),
        revoked_at_micros: row.get::<_, Option<SystemTime>>(6).map(micros),
        role: Role::parse(row.get(7))?,
    })
}

/// As they stand, or as they stood then: the newest line of each symbol and first day counts.
pub(crate) async fn aliases(
    client: &Client,
    known_at: Option<SystemTime>,
) -> Result<Vec<Alias>, DatabaseError> {
    // Infinite dates have no number; the outermost ones stand for them.
    let sql = "SELECT DISTINCT ON (source, symbol, valid_from) source, symbol, ticker, \
                      CASE WHEN isfinite(valid_from) THEN extract(epoch FROM valid_from)::bigint ELSE -9000000000000 END * 1000000, \
                      CASE WHEN isfinite(valid_to) THEN extract(epoch FROM valid_to)::bigint ELSE 9000000000000 END * 1000000 \
               FROM aliases WHERE known_at <= coalesce($1::timestamptz, 'infinity') \
               ORDER BY source, symbol, valid_from, known_at DESC";
    let rows = client
        .query(sql, &[&known_at])
        .await
        .map_err(DatabaseError::query("reading the aliases"))?;
    let alias = |row: &Row| {
        Some(Alias {
            source: row.get(0),
            symbol: row.get(1),
            ticker: row.get(2),
            valid_from_micros: row.get(3),
            valid_to_micros: row.get(4),
        })
    };
    Ok(keep(rows, alias))
}
