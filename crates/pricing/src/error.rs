//! Why a price was refused.

use thiserror::Error;

/// Every variant names the input at fault, so that an answer can point at it.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum PricingError {
    #[error("{field} is negative ({value}); it must be 0 or more")]
    Negative { field: &'static str, value: String },
    #[error("{field} is {value}; it must be from {min} to {max}")]
    OutOfRange {
        field: &'static str,
        value: String,
        min: String,
        max: String,
    },
    #[error("{field} is missing: the convention {convention} prices per share and needs it")]
    Missing {
        field: &'static str,
        convention: String,
    },
    #[error("{field} is too large to be computed with these inputs")]
    Overflow { field: &'static str },
    #[error(
        "{field} is {age_seconds} seconds old, and the policy {policy} refuses it after {age_seconds_max}"
    )]
    Stale {
        field: &'static str,
        policy: String,
        age_seconds: i64,
        age_seconds_max: i64,
    },
    #[error("the recorded inputs cannot be read: {0}")]
    Unreadable(String),
}

impl PricingError {
    /// The input at fault; `inputs` when they could not be read at all.
    pub fn field(&self) -> &'static str {
        match self {
            PricingError::Negative { field, .. }
            | PricingError::OutOfRange { field, .. }
            | PricingError::Missing { field, .. }
            | PricingError::Overflow { field }
            | PricingError::Stale { field, .. } => field,
            PricingError::Unreadable(_) => "inputs",
        }
    }
}

/// Checks `min <= value <= max`; below zero is told as such.
#[inline]
pub(crate) fn check_range<T: Copy + PartialOrd + ToString + Default>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), PricingError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(out_of_range(field, value, min, max))
}

#[cold]
fn out_of_range<T: Copy + PartialOrd + ToString + Default>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
) -> PricingError {
    let value_text = value.to_string();
    if value < T::default() && min >= T::default() {
        return PricingError::Negative {
            field,
            value: value_text,
        };
    }
    PricingError::OutOfRange {
        field,
        value: value_text,
        min: min.to_string(),
        max: max.to_string(),
    }
}
