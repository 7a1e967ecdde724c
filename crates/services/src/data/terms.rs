//! What a client has agreed to pay.

use tokio_postgres::{Client, Transaction};

use super::database::DatabaseError;
use super::tables::{Statement, covered};

/// One row of `brokers`; decimals as exact text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct BrokerTerms {
    pub(crate) client_id: String,
    pub(crate) markup_percent: String,
    pub(crate) fee_type: String,
    pub(crate) fee_amount: String,
    pub(crate) tier: String,
    pub(crate) convention: String,
    pub(crate) policy: String,
    pub(crate) active: bool,
}

impl BrokerTerms {
    /// The four that a first run starts with.
    pub(crate) fn starting_set() -> [BrokerTerms; 4] {
        let terms = |client_id: &str,
                     tier: &str,
                     markup_percent: &str,
                     fee_type: &str,
                     fee_amount: &str| BrokerTerms {
            client_id: client_id.to_owned(),
            markup_percent: markup_percent.to_owned(),
            fee_type: fee_type.to_owned(),
            fee_amount: fee_amount.to_owned(),
            tier: tier.to_owned(),
            convention: "act365-1".to_owned(),
            policy: "standard-1".to_owned(),
            active: true,
        };
        [
            terms("standard", "standard", "5.0", "FLAT", "25.00"),
            terms("premium", "premium", "3.5", "PERCENTAGE", "0.5"),
            terms("discount", "standard", "2.0", "FLAT", "15.00"),
            terms("institutional", "premium", "1.5", "PERCENTAGE", "0.25"),
        ]
    }

    pub(crate) fn fields(&self) -> audit::Fields {
        audit::Fields::new()
            .with("client_id", &self.client_id)
            .with("markup_percent", &self.markup_percent)
            .with("fee_type", &self.fee_type)
            .with("fee_amount", &self.fee_amount)
            .with("tier", &self.tier)
            .with("convention", &self.convention)
            .with("policy", &self.policy)
            .with("active", self.active.to_string())
    }

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
    Ok(row.as_ref().map(super::market::broker))
}
