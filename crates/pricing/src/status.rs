//! How hard a stock is to borrow, and how volatile the market is: words for display.

use serde::{Deserialize, Serialize};

use crate::number::{Index, Rate};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BorrowStatus {
    Easy,
    Medium,
    Hard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VolatilityTier {
    Low,
    Normal,
    High,
    Extreme,
}

/// The highest rates that still count as easy and as medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusBands {
    pub easy_max: Rate,
    pub medium_max: Rate,
}

impl StatusBands {
    /// EASY to 0.5 %, MEDIUM to 3 %.
    pub const STANDARD: StatusBands = StatusBands {
        easy_max: Rate::from_units(500_000),
        medium_max: Rate::from_units(3_000_000),
    };

    pub fn status(&self, rate: Rate) -> BorrowStatus {
        if rate <= self.easy_max {
            BorrowStatus::Easy
        } else if rate <= self.medium_max {
            BorrowStatus::Medium
        } else {
            BorrowStatus::Hard
        }
    }
}

/// By the standard bands.
pub fn borrow_status(rate: Rate) -> BorrowStatus {
    StatusBands::STANDARD.status(rate)
}

/// LOW < 20 ≤ NORMAL < 30 ≤ HIGH < 40 ≤ EXTREME.
pub fn volatility_tier(index: Index) -> VolatilityTier {
    if index < Index::whole(20) {
        VolatilityTier::Low
    } else if index < Index::whole(30) {
        VolatilityTier::Normal
    } else if index < Index::whole(40) {
        VolatilityTier::High
    } else {
        VolatilityTier::Extreme
    }
}

impl BorrowStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            BorrowStatus::Easy => "EASY",
            BorrowStatus::Medium => "MEDIUM",
            BorrowStatus::Hard => "HARD",
        }
    }
}

impl VolatilityTier {
    pub fn as_str(self) -> &'static str {
        match self {
            VolatilityTier::Low => "LOW",
            VolatilityTier::Normal => "NORMAL",
            VolatilityTier::High => "HIGH",
            VolatilityTier::Extreme => "EXTREME",
        }
    }
}

impl std::fmt::Display for BorrowStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for VolatilityTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As the feeds and the API write them: `EASY`, `MEDIUM`, `HARD`.
impl std::str::FromStr for BorrowStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<BorrowStatus, UnknownStatus> {
        match text {
            "EASY" => Ok(BorrowStatus::Easy),
            "MEDIUM" => Ok(BorrowStatus::Medium),
            "HARD" => Ok(BorrowStatus::Hard),
            _ => Err(UnknownStatus),
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[error("not a borrow status: EASY, MEDIUM or HARD")]
pub struct UnknownStatus;
