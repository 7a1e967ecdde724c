//! The formulas once more, in fractions of big integers: what every price of the benchmark is compared with.

use num_bigint::BigInt;
use pricing::{Fee, FeeInputs, RateInputs};

/// Not reduced: comparing does not need it.
#[derive(Clone, Debug)]
struct Fraction(BigInt, BigInt);

impl Fraction {
    fn new(units: i64, decimals: u32) -> Fraction {
        Fraction(units.into(), BigInt::from(10).pow(decimals))
    }

    fn plus(&self, other: &Fraction) -> Fraction {
        Fraction(&self.0 * &other.1 + &other.0 * &self.1, &self.1 * &other.1)
    }

    fn times(&self, other: &Fraction) -> Fraction {
        Fraction(&self.0 * &other.0, &self.1 * &other.1)
    }

    fn over(&self, whole: i64) -> Fraction {
        Fraction(self.0.clone(), &self.1 * whole)
    }

    fn at_least(self, other: Fraction) -> Fraction {
        if &self.0 * &other.1 < &other.0 * &self.1 {
            other
        } else {
            self
        }
    }

    fn is_below(&self, whole: i64) -> bool {
        self.0 < &self.1 * whole
    }

    fn ceil(&self) -> Fraction {
        Fraction((&self.0 + &self.1 - 1_i32) / &self.1, 1.into())
    }

    /// The nearest multiple of 10⁻ᵈ in those units; of two equally near the even one, or the upper one.
    fn nearest(&self, decimals: u32, even: bool) -> BigInt {
        let scaled = &self.0 * BigInt::from(10).pow(decimals);
        let floor = &scaled / &self.1;
        let twice = (scaled - &floor * &self.1) * 2_i32;
        let odd = floor.bit(0);
        if twice > self.1 || (twice == self.1 && (!even || odd)) {
            floor + 1_i32
        } else {
            floor
        }
    }
}

pub(crate) fn rate(inputs: &RateInputs, policy: &str) -> BigInt {
    let base = Fraction::new(inputs.base_rate.units(), 8);
    let index = Fraction::new(inputs.volatility_index.units(), 6);
    let above = |from: i64| {
        let above = index.plus(&Fraction::new(-from, 0));
        above.at_least(Fraction::new(0, 0)).over(100)
    };
    let v = match policy {
        "above-20-1" => above(20),
        "banded-1" if !index.is_below(30) => above(0).plus(&above(30).over(2)),
        "banded-1" if !index.is_below(20) => above(0).plus(&above(20).over(4)),
        _ => above(0),
    };
    let e = Fraction::new(i64::from(inputs.event_risk_factor) * 5, 3);
    let one = Fraction::new(1, 0);
    let adjusted = match policy {
        "sequential-1" => base.times(&one.plus(&v)).times(&one.plus(&e)),
        "absolute-event-1" => base.times(&one.plus(&v)).plus(&e),
        _ => base.times(&one.plus(&v).plus(&e)),
    };
    let floor = Fraction::new(inputs.minimum_rate.units(), 8).at_least(Fraction::new(1, 4));
    adjusted.at_least(floor).nearest(8, true)
}

/// Borrow cost, markup, transaction fee and their sum.
pub(crate) fn fee(inputs: &FeeInputs<'_>, convention: &str) -> [BigInt; 4] {
    let position = Fraction::new(inputs.position_value.units(), 2);
    let per_share = |percent: i64, decimals: u32| match inputs.per_share {
        Some(per_share) => {
            let price = Fraction::new(per_share.price.units(), 6);
            let marked = price.times(&Fraction::new(percent, 2));
            let steps = marked.times(&Fraction(BigInt::from(10).pow(decimals), 1.into()));
            let shares = Fraction(per_share.shares.into(), 1.into());
            steps
                .ceil()
                .times(&Fraction::new(1, decimals))
                .times(&shares)
        }
        None => Fraction::new(0, 0),
    };
    let collateral = match convention {
        "us-street-1" => per_share(102, 0),
        "eu-street-1" => per_share(105, 2),
        _ => position.clone(),
    };
    let basis = match (convention, inputs.currency) {
        ("act365-1", _) | ("eu-street-1", "GBP") => 365,
        _ => 360,
    };
    let days = Fraction::new(i64::from(inputs.loan_days), 0);
    let rate = Fraction::new(inputs.rate.units(), 8);
    let cost = collateral.times(&rate).times(&days).over(basis);
    let markup = cost.times(&Fraction::new(inputs.markup_percent.units(), 8));
    let charged = match inputs.fee {
        Fee::Flat(amount) => Fraction::new(amount.units(), 4),
        Fee::Percentage(part) => position.times(&Fraction::new(part.units(), 8)),
    };
    let [cost, markup, charged] = [cost, markup, charged].map(|part| part.nearest(4, false));
    let total = &cost + &markup + &charged;
    [cost, markup, charged, total]
}
