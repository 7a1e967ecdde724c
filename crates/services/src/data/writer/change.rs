//! Changes to other tables that happen in the transaction of their audit entry, or not at all. The tables themselves tell every instance at
//! commit (migration V10).

use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;

use crate::api_gateway::StoredKey;
use crate::data::feeds::{FeedLoad, FeedRefusal};
use crate::data::market::Definition;
use crate::data::stocks::StockTerms;
use crate::data::terms::BrokerTerms;
use crate::internal::whole_key;
use crate::time::system_time;

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
    Policy(Definition),
    Convention(Definition),
    /// An operator has looked at what a recovery may have lost.
    LocatesReopened {
        by: String,
    },
}

async fn insert_key(
    transaction: &Transaction<'_>,
    key: &StoredKey,
) -> Result<(), tokio_postgres::Error> {
    let sql = "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at, role) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (created, expires) = (
        system_time(key.created_at_micros),
        system_time(key.expires_at_micros),
    );
    transaction
        .execute(
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
        .await?;
    Ok(())
}

impl Change {
    pub(super) async fn apply(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        match self {
            Change::None => Ok(()),
            Change::Feed(load) => load.insert(transaction).await,
            Change::FeedRefused(refusal) => refusal.insert(transaction).await,
            Change::Key(key) => insert_key(transaction, key).await,
            Change::Stock(terms) => terms.insert(transaction).await,
            Change::KeyRotated {
                key,
                replaced,
                ends_at_micros,
            } => {
                insert_key(transaction, key).await?;
                let sql =
                    "UPDATE api_keys SET expires_at = least(expires_at, $2) WHERE key_id = $1";
                transaction
                    .execute(sql, &[replaced, &system_time(*ends_at_micros)])
                    .await
                    .map(drop)
            }
            Change::Policy(definition) => {
                let sql = "INSERT INTO policies (policy, definition) VALUES ($1, $2)";
                transaction
                    .execute(sql, &[&definition.id, &definition.json])
                    .await
                    .map(drop)
            }
            Change::Convention(definition) => {
                let sql = "INSERT INTO conventions (convention, definition) VALUES ($1, $2)";
                transaction
                    .execute(sql, &[&definition.id, &definition.json])
                    .await
                    .map(drop)
            }
            Change::KeyRevoked { key_id, at_micros } => {
                let sql =
                    "UPDATE api_keys SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL";
                transaction
                    .execute(sql, &[key_id, &system_time(*at_micros)])
                    .await
                    .map(drop)
            }
            Change::LocatesReopened { by } => {
                let sql = "INSERT INTO locate_reopenings (reopened_at, actor) VALUES ($1, $2)";
                let now = system_time(crate::time::now_micros());
                transaction.execute(sql, &[&now, by]).await.map(drop)
            }
            Change::Broker(terms) => terms.insert(transaction).await,
        }
    }
}
