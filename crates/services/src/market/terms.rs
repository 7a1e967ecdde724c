//! What a client has agreed to pay.

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
}
