//! Exact values before rounding, and the two roundings.

use std::fmt;

use serde::{Serialize, Serializer};

/// A value that is not negative, as a fraction; reduced only when shown.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    numerator: u128,
    /// Never zero.
    denominator: u128,
}

impl Ratio {
    /// `denominator` is a power of ten, possibly times a day-count basis: never zero.
    pub(crate) const fn new(numerator: u128, denominator: u128) -> Ratio {
        Ratio {
            numerator,
            denominator,
        }
    }

    pub fn numerator(self) -> u128 {
        self.numerator
    }

    pub fn denominator(self) -> u128 {
        self.denominator
    }
}

/// Two fractions are equal when their values are.
impl PartialEq for Ratio {
    fn eq(&self, other: &Ratio) -> bool {
        self.reduced() == other.reduced()
    }
}

impl Eq for Ratio {}

impl Ratio {
    fn reduced(self) -> (u128, u128) {
        let (mut a, mut b) = (self.numerator, self.denominator);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = a.max(1);
        (self.numerator / divisor, self.denominator / divisor)
    }
}

/// All digits when there is a last one, otherwise the reduced fraction: `0.063` or `114000/73`.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (numerator, denominator) = self.reduced();
        let mut odd = denominator;
        for prime in [2, 5] {
            while odd.is_multiple_of(prime) {
                odd /= prime;
            }
        }
        if odd != 1 {
            return write!(f, "{numerator}/{denominator}");
        }
        write!(f, "{}", numerator / denominator)?;
        let mut rest = numerator % denominator;
        if rest != 0 {
            f.write_str(".")?;
        }
        while rest != 0 {
            // The rest is below the denominator, which is at most 10³⁸: times ten may pass 2¹²⁸, so take out a factor
            // first.
            let (digit, next) = next_digit(rest, denominator);
            write!(f, "{digit}")?;
            rest = next;
        }
        Ok(())
    }
}

/// `rest` × 10 ÷ `denominator`, by adding where a product could overflow.
fn next_digit(rest: u128, denominator: u128) -> (u128, u128) {
    if let Some(ten) = rest.checked_mul(10) {
        return (ten / denominator, ten % denominator);
    }
    let (mut digit, mut sum) = (0, 0_u128);
    for _ in 0..10 {
        // Both are below the denominator: subtract before adding.
        if sum >= denominator - rest {
            sum -= denominator - rest;
            digit += 1;
        } else {
            sum += rest;
        }
    }
    (digit, sum)
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Half to even. `None` when the result does not fit.
pub(crate) fn round_half_even(numerator: u128, denominator: u128) -> Option<i64> {
    let (quotient, rest) = divide(numerator, denominator);
    let up = match rest.cmp(&(denominator - rest)) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => quotient & 1 == 1,
        std::cmp::Ordering::Less => false,
    };
    i64::try_from(quotient + u128::from(up)).ok()
}

/// Half up. `None` when the result does not fit.
pub(crate) fn round_half_up(numerator: u128, denominator: u128) -> Option<i64> {
    let (quotient, rest) = divide(numerator, denominator);
    let up = rest >= denominator - rest;
    i64::try_from(quotient + u128::from(up)).ok()
}

/// Upward. `None` when the result does not fit.
pub(crate) fn round_up(numerator: u128, denominator: u128) -> Option<i64> {
    let (quotient, rest) = divide(numerator, denominator);
    i64::try_from(quotient + u128::from(rest > 0)).ok()
}

/// A 64-bit division where both sides fit: several times quicker.
#[inline]
fn divide(numerator: u128, denominator: u128) -> (u128, u128) {
    match (u64::try_from(numerator), u64::try_from(denominator)) {
        (Ok(n), Ok(d)) => (u128::from(n / d), u128::from(n % d)),
        _ => (numerator / denominator, numerator % denominator),
    }
}
