//! Changes to other tables that happen in the transaction of their audit entry, or not at all.

use tokio_postgres::Transaction;

use crate::api_gateway::StoredKey;
use crate::data::feeds::FeedLoad;
use crate::data::keeper::{KEYS, MARKET};
use crate::data::terms::BrokerTerms;
use crate::time::system_time;

#[derive(Debug)]
pub(crate) enum Change {
    None,
    Feed(Box<FeedLoad>),
    Key(StoredKey),
    KeyRevoked { key_id: String, at_micros: i64 },
    Broker(BrokerTerms),
}

/// Every instance is told at commit.
async fn tell(transaction: &Transaction<'_>, channel: &str) -> Result<(), tokio_postgres::Error> {
    transaction
        .batch_execute(&format!("NOTIFY {channel}"))
        .await
}

impl Change {
    pub(super) async fn apply(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        match self {
            Change::None => Ok(()),
            Change::Feed(load) => {
                load.insert(transaction).await?;
                tell(transaction, MARKET).await
            }
            Change::Key(key) => {
                let sql = "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
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
                        ],
                    )
                    .await?;
                tell(transaction, KEYS).await
            }
            Change::KeyRevoked { key_id, at_micros } => {
                let sql =
                    "UPDATE api_keys SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL";
                transaction
                    .execute(sql, &[key_id, &system_time(*at_micros)])
                    .await?;
                tell(transaction, KEYS).await
            }
            Change::Broker(terms) => {
                terms.insert(transaction).await?;
                tell(transaction, MARKET).await
            }
        }
    }
}
