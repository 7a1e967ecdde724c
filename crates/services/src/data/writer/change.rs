//! Changes to other tables that happen in the transaction of their audit entry, or not at all. The tables themselves tell every instance at
//! commit (migration V10).

use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::data::feeds::{FeedLoad, FeedRefusal};
use crate::data::stocks::StockTerms;
use crate::data::tables::{Statement, covered};
use crate::domain::keys::StoredKey;
use crate::domain::time::system_time;
use crate::domain::whole_key;
use crate::market::{BrokerTerms, Definition};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    None,
    /// Only where the writer runs.
    #[serde(skip)]
    Feed(Box<FeedLoad>),
    #[serde(skip)]
    FeedRefused(FeedRefusal),
    #[serde(with = "whole_key")]
    Key(StoredKey),
    KeyRevoked {
        key_id: String,
        at_micros: i64,
    },
    /// A new key, and when the one it replaces ends.
    KeyRotated {
        #[serde(with = "whole_key")]
        key: StoredKey,
        replaced: String,
        ends_at_micros: i64,
    },
    Broker(BrokerTerms),
    Stock(StockTerms),
    /// What a first run starts with: a client's terms, and stocks that have none of their own.
    #[serde(skip)]
    Start {
        terms: Option<BrokerTerms>,
        stocks: Vec<StockTerms>,
    },
    /// Nothing, but that everything be stated.
    #[serde(skip)]
    Baseline,
    Policy(Definition),
    Convention(Definition),
    /// An operator has looked at what a recovery may have lost.
    LocatesReopened {
        by: String,
    },
}

async fn insert_key(
    transaction: &Transaction<'_>,
    statement: &mut Statement,
    key: &StoredKey,
) -> Result<(), tokio_postgres::Error> {
    let sql = "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at, role) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (created, expires) = (
        system_time(key.created_at_micros),
        system_time(key.expires_at_micros),
    );
    statement
        .run(
            transaction,
            &covered::API_KEYS,
            sql,
            &[
                &key.key_id,
                &key.hash.as_slice(),
                &key.client_id,
                &key.tier.name(),
                &created,
                &expires,
                &key.role.name(),
            ],
        )
        .await
}

impl Change {
    /// The delivery that it brings.
    pub(super) fn batch(&self) -> Option<Uuid> {
        match self {
            Change::Feed(load) => Some(load.batch_id()),
            _ => None,
        }
    }

    /// Makes it; what it left in the tables is what the entry will say.
    pub(super) async fn apply(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
    ) -> Result<(), tokio_postgres::Error> {
        match self {
            Change::None | Change::Baseline => Ok(()),
            Change::Feed(load) => load.insert(transaction, statement).await,
            Change::FeedRefused(refusal) => refusal.insert(transaction, statement).await,
            Change::Key(key) => insert_key(transaction, statement, key).await,
            Change::Stock(terms) => terms.insert(transaction, statement).await,
            Change::Start { terms, stocks } => {
                for stock in stocks {
                    stock.insert(transaction, statement).await?;
                }
                match terms {
                    Some(terms) => terms.insert(transaction, statement).await,
                    None => Ok(()),
                }
            }
            Change::KeyRotated {
                key,
                replaced,
                ends_at_micros,
            } => {
                insert_key(transaction, statement, key).await?;
                let sql =
                    "UPDATE api_keys SET expires_at = least(expires_at, $2) WHERE key_id = $1";
                statement
                    .run(
                        transaction,
                        &covered::API_KEYS,
                        sql,
                        &[replaced, &system_time(*ends_at_micros)],
                    )
                    .await
            }
            Change::Policy(definition) => {
                let sql = "INSERT INTO policies (policy, definition) VALUES ($1, $2)";
                statement
                    .run(
                        transaction,
                        &covered::POLICIES,
                        sql,
                        &[&definition.id, &definition.json],
                    )
                    .await
            }
            Change::Convention(definition) => {
                let sql = "INSERT INTO conventions (convention, definition) VALUES ($1, $2)";
                statement
                    .run(
                        transaction,
                        &covered::CONVENTIONS,
                        sql,
                        &[&definition.id, &definition.json],
                    )
                    .await
            }
            Change::KeyRevoked { key_id, at_micros } => {
                let sql =
                    "UPDATE api_keys SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL";
                statement
                    .run(
                        transaction,
                        &covered::API_KEYS,
                        sql,
                        &[key_id, &system_time(*at_micros)],
                    )
                    .await
            }
            Change::LocatesReopened { by } => {
                let sql = "INSERT INTO locate_reopenings (reopened_at, actor) VALUES ($1, $2)";
                let now = system_time(crate::domain::time::now_micros());
                statement
                    .run(transaction, &covered::LOCATE_REOPENINGS, sql, &[&now, by])
                    .await
            }
            Change::Broker(terms) => terms.insert(transaction, statement).await,
        }
    }
}
