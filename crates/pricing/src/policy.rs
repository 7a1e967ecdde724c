//! Adjustment policies: how a lending market's rate becomes ours. They are data, so that a desk can add its own.

use serde::{Deserialize, Serialize};

use crate::error::{PricingError, check_range};
use crate::number::{Factor, Index, Rate};
use crate::status::StatusBands;

/// A named, versioned way to adjust a base rate. A published version never changes; a change is a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub name: String,
    pub version: u32,
    pub combine: Combine,
    /// Points of the index up to which volatility adds nothing.
    pub threshold: Index,
    /// Added for each point above the threshold.
    pub slope: Factor,
    /// More of the slope within bands of the index.
    #[serde(
        default,
        deserialize_with = "crate::json::or_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub bands: Vec<Band>,
    /// Added for an event risk factor of 10.
    pub weight: Factor,
    /// No rate is below this, whatever a stock's own minimum says.
    pub minimum_rate: Rate,
    pub status: StatusBands,
    pub freshness: Freshness,
}

/// How volatility `v` and event risk `e` act on the base rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// base × (1 + v + e)
    Additive,
    /// base × (1 + v) × (1 + e)
    Sequential,
    /// base × (1 + v) + e
    AbsoluteEvent,
}

/// From `from` (included) to `to` (not included; open when absent): `slope_percent` % of the slope for each point above
/// `from`, on top of the policy's own line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    pub from: Index,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Index>,
    pub slope_percent: u32,
}

/// Ages above which an input counts as stale, and whether a stale input is refused or only named in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    pub base_rate_age_seconds_max: i64,
    pub volatility_age_seconds_max: i64,
    pub event_age_seconds_max: i64,
    pub refuse_stale: bool,
}

impl Freshness {
    /// A day for rates, four (a long weekend) for the index's daily close, a week for the calendar of events.
    pub const STANDARD: Freshness = Freshness {
        base_rate_age_seconds_max: 86_400,
        volatility_age_seconds_max: 4 * 86_400,
        event_age_seconds_max: 7 * 86_400,
        refuse_stale: false,
    };
}

impl Policy {
    /// The default.
    pub fn standard_1() -> Policy {
        Policy {
            name: "standard".to_owned(),
            version: 1,
            combine: Combine::Additive,
            threshold: Index::ZERO,
            slope: Factor::from_units(1_000_000),
            bands: Vec::new(),
            weight: Factor::from_units(5_000_000),
            minimum_rate: Rate::from_units(10_000),
            status: StatusBands::STANDARD,
            freshness: Freshness::STANDARD,
        }
    }

    /// All policies that come with the engine.
    pub fn shipped() -> Vec<Policy> {
        let standard = Policy::standard_1();
        let named = |name: &str| Policy {
            name: name.to_owned(),
            ..standard.clone()
        };
        let sequential = Policy {
            combine: Combine::Sequential,
            ..named("sequential")
        };
        let absolute_event = Policy {
            combine: Combine::AbsoluteEvent,
            ..named("absolute-event")
        };
        let above_20 = Policy {
            threshold: Index::whole(20),
            ..named("above-20")
        };
        let banded = Policy {
            bands: vec![
                Band {
                    from: Index::whole(20),
                    to: Some(Index::whole(30)),
                    slope_percent: 25,
                },
                Band {
                    from: Index::whole(30),
                    to: None,
                    slope_percent: 50,
                },
            ],
            ..named("banded")
        };
        vec![standard, sequential, absolute_event, above_20, banded]
    }

    /// By name and version: `standard-1`.
    pub fn find_shipped(id: &str) -> Option<Policy> {
        Policy::shipped()
            .into_iter()
            .find(|policy| policy.id() == id)
    }

    /// Name and version: `standard-1`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Whether the numbers are ones that can be computed with. To be asked when a policy is loaded; pricing asks again.
    pub fn check(&self) -> Result<(), PricingError> {
        check_range(
            "policy.threshold",
            self.threshold,
            Index::ZERO,
            Index::whole(1_000),
        )?;
        check_range("policy.slope", self.slope, Factor::ZERO, Factor::whole(1))?;
        check_range(
            "policy.weight",
            self.weight,
            Factor::ZERO,
            Factor::whole(100),
        )?;
        check_range(
            "policy.minimum_rate",
            self.minimum_rate,
            Rate::ZERO,
            Rate::whole(1_000),
        )?;
        for band in &self.bands {
            check_range(
                "policy.bands.from",
                band.from,
                Index::ZERO,
                Index::whole(1_000),
            )?;
            check_range("policy.bands.slope_percent", band.slope_percent, 0, 1_000)?;
        }
        Ok(())
    }
}
