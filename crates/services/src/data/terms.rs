//! What a client has agreed to pay, as it is kept.

use tokio_postgres::{Client, Transaction};

use super::database::DatabaseError;
use super::tables::{Statement, covered};
use crate::market::BrokerTerms;

impl BrokerTerms {
    pub(crate) async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "INSERT INTO brokers (client_id, markup_percent, fee_type, fee_amount, tier, convention, policy, active, changed_at) \
                   VALUES ($1, $2::text::numeric, $3, $4::text::numeric, $5, $6, $7, $8, now())";
        statement
            .run(
                transaction,
                &covered::BROKERS,
                sql,
                &[
                    &self.client_id,
                    &self.markup_percent,
                    &self.fee_type,
                    &self.fee_amount,
                    &self.tier,
                    &self.convention,
                    &self.policy,
                    &self.active,
                ],
            )
            .await
    }
}

/// The terms in force for a client.
pub(crate) async fn read_terms(
    client: &Client,
    client_id: &str,
) -> Result<Option<BrokerTerms>, DatabaseError> {
    let sql = "SELECT client_id, markup_percent::text, fee_type, fee_amount::text, tier, convention, policy, active \
               FROM brokers WHERE client_id = $1 ORDER BY changed_at DESC LIMIT 1";
    let row = client
        .query_opt(sql, &[&client_id])
        .await
        .map_err(DatabaseError::query("reading a client's terms"))?;
    Ok(row.as_ref().map(super::reading::broker))
}
