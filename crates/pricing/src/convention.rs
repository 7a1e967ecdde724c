//! Day-count and collateral conventions: what a rate is applied to, and over how many days a year.

use serde::{Deserialize, Serialize};

use crate::error::{PricingError, check_range};
use crate::number::{Percent, PositionValue};

/// A named, versioned convention. A published version never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convention {
    pub name: String,
    pub version: u32,
    pub collateral: Collateral,
    pub basis_days: u32,
    /// Currencies with a basis of their own.
    #[serde(
        default,
        deserialize_with = "crate::json::or_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub basis_days_of: Vec<CurrencyBasis>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurrencyBasis {
    pub currency: String,
    pub basis_days: u32,
}

/// What the rate is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Collateral {
    /// The position's value as given.
    PositionValue,
    /// The share's price × `percent` %, rounded **up** to a multiple of `step`, × shares.
    PerShare {
        percent: Percent,
        step: PositionValue,
    },
}

impl Convention {
    /// The default.
    pub fn act365_1() -> Convention {
        Convention {
            name: "act365".to_owned(),
            version: 1,
            collateral: Collateral::PositionValue,
            basis_days: 365,
            basis_days_of: Vec::new(),
        }
    }

    /// All conventions that come with the engine.
    pub fn shipped() -> Vec<Convention> {
        let act365 = Convention::act365_1();
        let on_360 = |name: &str, collateral| Convention {
            name: name.to_owned(),
            collateral,
            basis_days: 360,
            ..act365.clone()
        };
        let us_street = Collateral::PerShare {
            percent: Percent::whole(102),
            step: PositionValue::whole(1),
        };
        let eu_street = Collateral::PerShare {
            percent: Percent::whole(105),
            step: PositionValue::from_units(1),
        };
        let gbp = CurrencyBasis {
            currency: "GBP".to_owned(),
            basis_days: 365,
        };
        vec![
            act365.clone(),
            on_360("us-street", us_street),
            Convention {
                basis_days_of: vec![gbp],
                ..on_360("eu-street", eu_street)
            },
            on_360("act360", Collateral::PositionValue),
        ]
    }

    /// By name and version: `act365-1`.
    pub fn find_shipped(id: &str) -> Option<Convention> {
        Convention::shipped()
            .into_iter()
            .find(|convention| convention.id() == id)
    }

    /// Name and version: `act365-1`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Whether a price needs the number of shares and the price of one.
    pub fn is_per_share(&self) -> bool {
        matches!(self.collateral, Collateral::PerShare { .. })
    }

    pub fn basis_days(&self, currency: &str) -> u32 {
        let own = self
            .basis_days_of
            .iter()
            .find(|own| own.currency == currency);
        own.map_or(self.basis_days, |own| own.basis_days)
    }

    /// Whether the numbers are ones that can be computed with. To be asked when a convention is loaded; pricing asks
    /// again.
    pub fn check(&self) -> Result<(), PricingError> {
        check_range("convention.basis_days", self.basis_days, 1, 1_000)?;
        for own in &self.basis_days_of {
            check_range("convention.basis_days", own.basis_days, 1, 1_000)?;
        }
        if let Collateral::PerShare { percent, step } = self.collateral {
            check_range(
                "convention.percent",
                percent,
                Percent::whole(1),
                Percent::whole(1_000),
            )?;
            let (min, max) = (
                PositionValue::from_units(1),
                PositionValue::whole(1_000_000),
            );
            check_range("convention.step", step, min, max)?;
        }
        Ok(())
    }
}
