//! The formulas once more, in fractions of big integers. Shares no line with the code under test.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};
use proptest::prelude::*;

use crate::*;

fn fraction(units: i64, decimals: u32) -> BigRational {
    BigRational::new(units.into(), BigInt::from(10).pow(decimals))
}

fn percent(units: i64) -> BigRational {
    fraction(units, 8)
}

fn whole(value: i64) -> BigRational {
    BigRational::from_integer(value.into())
}

/// The units of the nearest multiple of 10⁻ᵈ; `tie` decides between two equally near.
fn nearest(value: &BigRational, decimals: u32, tie: fn(&BigInt) -> bool) -> BigInt {
    let scaled = value * BigRational::from_integer(BigInt::from(10).pow(decimals));
    let floor = scaled.floor().to_integer();
    let rest = scaled - BigRational::from_integer(floor.clone());
    let half = BigRational::new(1.into(), 2.into());
    if rest > half || (rest == half && tie(&floor)) {
        floor + 1
    } else {
        floor
    }
}

fn half_even(value: &BigRational, decimals: u32) -> BigInt {
    nearest(value, decimals, |floor| (floor % 2) != BigInt::zero())
}

fn half_up(value: &BigRational, decimals: u32) -> BigInt {
    nearest(value, decimals, |_| true)
}

fn reference_rate(inputs: &RateInputs, policy: &str) -> BigInt {
    let base = fraction(inputs.base_rate.units(), 8);
    let index = fraction(inputs.volatility_index.units(), 6);
    let slope = BigRational::new(1.into(), 100.into());
    let above = |from: i64| (&index - whole(from)).max(BigRational::zero()) * &slope;
    let v = match policy {
        "above-20-1" => above(20),
        "banded-1" if index >= whole(30) => above(0) + above(30) / whole(2),
        "banded-1" if index >= whole(20) => above(0) + above(20) / whole(4),
        _ => above(0),
    };
    let e =
        whole(inputs.event_risk_factor.into()) / whole(10) * BigRational::new(5.into(), 100.into());
    let one = BigRational::one;
    let adjusted = match policy {
        "sequential-1" => base * (one() + v) * (one() + e),
        "absolute-event-1" => base * (one() + v) + e,
        _ => base * (one() + v + e),
    };
    let floor =
        fraction(inputs.minimum_rate.units(), 8).max(BigRational::new(1.into(), 10_000.into()));
    half_even(&adjusted.max(floor), 8)
}

fn reference_fee(inputs: &FeeInputs<'_>, convention: &str) -> [BigInt; 4] {
    let position = fraction(inputs.position_value.units(), 2);
    let (shares, price) = inputs.per_share.map_or((whole(0), whole(0)), |per_share| {
        let shares = BigRational::from_integer(per_share.shares.into());
        (shares, fraction(per_share.price.units(), 6))
    });
    let hundredths = |n: i64| BigRational::new(n.into(), 100.into());
    let collateral = match convention {
        "us-street-1" => (price * hundredths(102)).ceil() * shares,
        "eu-street-1" => (price * hundredths(105) * whole(100)).ceil() / whole(100) * shares,
        _ => position.clone(),
    };
    let basis = match (convention, inputs.currency) {
        ("act365-1", _) | ("eu-street-1", "GBP") => 365,
        _ => 360,
    };
    let cost = collateral * fraction(inputs.rate.units(), 8) * whole(inputs.loan_days.into())
        / whole(basis);
    let markup = &cost * percent(inputs.markup_percent.units());
    let fee = match inputs.fee {
        Fee::Flat(amount) => fraction(amount.units(), 4),
        Fee::Percentage(part) => position * percent(part.units()),
    };
    let parts = [cost, markup, fee].map(|part| half_up(&part, 4));
    let total = parts.iter().sum();
    let [cost, markup, fee] = parts;
    [cost, markup, fee, total]
}

/// Numbers as they come: round ones, ones with every decimal in use, and the ends.
fn units(max: i64, round: i64) -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => (0..=max / round).prop_map(move |n| n * round),
        3 => 0..=max,
        2 => 0..=(max / 100_000).max(1),
        1 => Just(0),
        1 => Just(max),
    ]
}

fn any_rate_inputs() -> impl Strategy<Value = RateInputs> {
    let rates = || units(100_000_000_000, 1_000_000).prop_map(Rate::from_units);
    let index = units(1_000_000_000, 10_000).prop_map(Index::from_units);
    (rates(), rates(), index, 0_u8..=10).prop_map(
        |(base, minimum, volatility_index, event_risk_factor)| RateInputs {
            base_rate: base,
            // Mostly below what the base gives, as in life.
            minimum_rate: Rate::from_units(minimum.units() / 1_000),
            volatility_index,
            event_risk_factor,
        },
    )
}

fn any_fee() -> impl Strategy<Value = Fee> {
    prop_oneof![
        units(10_000_000_000, 10_000).prop_map(|units| Fee::Flat(Money::from_units(units))),
        units(100_000_000, 10_000).prop_map(|units| Fee::Percentage(Percent::from_units(units))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn rates_agree(inputs in any_rate_inputs(), which in 0_usize..5) {
        let policy = &Policy::shipped()[which];
        let steps = rate(&inputs, policy).unwrap();
        prop_assert_eq!(BigInt::from(steps.rate.units()), reference_rate(&inputs, &policy.id()));
        let shown = BigRational::new(steps.adjusted.numerator().into(), steps.adjusted.denominator().into());
        let larger = shown.max(fraction(steps.floor.units(), 8));
        prop_assert_eq!(half_even(&larger, 8), BigInt::from(steps.rate.units()));
    }

    #[test]
    fn ties_of_a_rate_go_to_even(base in 0_i64..100_000_000, hundredths in 1_i64..=100) {
        // A slope of 0.01 and indices in halves make exact ties at the ninth decimal.
        let inputs = RateInputs {
            base_rate: Rate::from_units(base),
            minimum_rate: Rate::ZERO,
            volatility_index: Index::from_units(hundredths * 500_000),
            event_risk_factor: 0,
        };
        let steps = rate(&inputs, &Policy::standard_1()).unwrap();
        prop_assert_eq!(BigInt::from(steps.rate.units()), reference_rate(&inputs, "standard-1"));
    }

    #[test]
    fn fees_agree(
        position in units(100_000_000_000, 100_000).prop_map(|units| units.max(1)),
        shares in 1_u64..=100_000_000,
        price in units(100_000_000_000, 10_000).prop_map(|units| units.clamp(1, 100_000_000_000)),
        rate in units(10_000_000_000, 10_000),
        loan_days in 1_u32..=365,
        markup in units(100_000_000, 500_000),
        fee in any_fee(),
        currency in prop_oneof![Just("USD"), Just("GBP"), Just("EUR")],
        which in 0_usize..4,
    ) {
        let convention = &Convention::shipped()[which];
        // Keep the collateral within what is accepted.
        let shares = shares.min(1_000_000_000_000_000 / u64::try_from(price).unwrap()).max(1);
        let inputs = FeeInputs {
            position_value: PositionValue::from_units(position),
            per_share: Some(PerShare { shares, price: Price::from_units(price) }),
            currency,
            loan_days,
            rate: Rate::from_units(rate),
            markup_percent: Percent::from_units(markup),
            fee,
        };
        let steps = locate_fee(&inputs, convention).unwrap();
        let found = [steps.borrow_cost, steps.markup, steps.transaction_fee, steps.total_fee]
            .map(|money| BigInt::from(money.units()));
        prop_assert_eq!(found, reference_fee(&inputs, &convention.id()));
        for (exact, printed) in [
            (steps.borrow_cost_unrounded, steps.borrow_cost),
            (steps.markup_unrounded, steps.markup),
            (steps.transaction_fee_unrounded, steps.transaction_fee),
        ] {
            let exact = BigRational::new(exact.numerator().into(), exact.denominator().into());
            prop_assert_eq!(half_up(&exact, 4), BigInt::from(printed.units()));
        }
    }

    #[test]
    fn a_ratio_shows_its_value(numerator: u128, decimals in 0_u32..=38, odd in 1_u128..1_000) {
        let tenth = 10_u128.pow(decimals);
        let denominator = tenth.checked_mul(odd).unwrap_or(tenth);
        let shown = Ratio::new(numerator, denominator).to_string();
        let value = BigRational::new(numerator.into(), denominator.into());
        let read = match (shown.split_once('/'), shown.split_once('.')) {
            (Some((above, below)), _) => BigRational::new(above.parse().unwrap(), below.parse().unwrap()),
            (None, Some((whole, decimals))) => {
                let digits: BigInt = format!("{whole}{decimals}").parse().unwrap();
                BigRational::new(digits, BigInt::from(10).pow(decimals.len() as u32))
            }
            (None, None) => BigRational::from_integer(shown.parse().unwrap()),
        };
        prop_assert!(!value.is_negative());
        prop_assert_eq!(read, value, "{}", shown);
    }
}
