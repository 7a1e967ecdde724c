//! Fixed-point numbers: an integer, with a number of decimals that is part of the type.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// `units` × 10⁻ᴰ. Printed with exactly `D` decimals; parsed only if nothing is lost.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fixed<const D: u32>(i64);

/// A fraction a year: 0.19 is 19 %.
pub type Rate = Fixed<8>;
/// An amount as answered: fees and their parts.
pub type Money = Fixed<4>;
/// What the borrowed shares are worth, and collateral: whole cents.
pub type PositionValue = Fixed<2>;
/// The price of one share.
pub type Price = Fixed<6>;
/// 5.0 is 5 %. As many decimals as a [`Rate`] once divided by 100.
pub type Percent = Fixed<6>;
/// A volatility index in points.
pub type Index = Fixed<6>;
/// A policy's slope or weight.
pub type Factor = Fixed<8>;

#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum NumberError {
    #[error("a number is missing")]
    Empty,
    #[error(
        "not a plain decimal number (digits 0-9, at most one point with digits on both sides, a leading '-' at most)"
    )]
    Malformed,
    #[error("exponents are not accepted: write all the digits")]
    Exponent,
    #[error("{found} decimals, at most {allowed} are allowed")]
    TooManyDecimals { allowed: u32, found: usize },
    #[error("too large to hold with {decimals} decimals")]
    TooLarge { decimals: u32 },
}

impl<const D: u32> Fixed<D> {
    pub const ZERO: Fixed<D> = Fixed(0);
    /// Units in 1.
    pub const ONE_UNITS: i64 = 10_i64.pow(D);

    pub const fn from_units(units: i64) -> Fixed<D> {
        Fixed(units)
    }

    /// A whole number; for constants. Panics at compile time when it does not fit.
    pub const fn whole(value: i64) -> Fixed<D> {
        Fixed(value * Self::ONE_UNITS)
    }

    pub const fn units(self) -> i64 {
        self.0
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub fn checked_add(self, other: Fixed<D>) -> Option<Fixed<D>> {
        self.0.checked_add(other.0).map(Fixed)
    }

    pub fn checked_sub(self, other: Fixed<D>) -> Option<Fixed<D>> {
        self.0.checked_sub(other.0).map(Fixed)
    }
}

impl Rate {
    /// Exact: a percentage's units are a rate's units.
    pub const fn from_percent(percent: Percent) -> Rate {
        Fixed(percent.0)
    }

    pub const fn to_percent(self) -> Percent {
        Fixed(self.0)
    }
}

impl Money {
    /// Half-up to the cent, away from zero: for invoices.
    pub fn to_cents(self) -> Fixed<2> {
        let half = if self.0 < 0 { -50 } else { 50 };
        // Dividing first keeps the extremes in range.
        Fixed(self.0 / 100 + (self.0 % 100 + half) / 100)
    }
}

impl<const D: u32> fmt::Display for Fixed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; DIGITS_BYTES];
        f.write_str(self.digits(&mut buffer))
    }
}

impl<const D: u32> Fixed<D> {
    pub(crate) fn digits(self, buffer: &mut [u8; DIGITS_BYTES]) -> &str {
        digits::<D>(self.0, buffer)
    }
}

pub(crate) const DIGITS_BYTES: usize = 32;

/// The text, written from the right into a buffer that holds any `i64` with sign, point and leading zeros.
fn digits<const D: u32>(units: i64, buffer: &mut [u8; DIGITS_BYTES]) -> &str {
    let mut rest = units.unsigned_abs();
    let mut at = buffer.len();
    let mut written = 0;
    let mut put = |byte: u8| {
        at -= 1;
        buffer[at] = byte;
    };
    loop {
        if written == D && D > 0 {
            put(b'.');
        }
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        written += 1;
        if rest == 0 && written > D {
            break;
        }
    }
    if units < 0 {
        put(b'-');
    }
    std::str::from_utf8(&buffer[at..]).unwrap_or_default()
}

impl<const D: u32> fmt::Debug for Fixed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const D: u32> FromStr for Fixed<D> {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Fixed<D>, NumberError> {
        if text.is_empty() {
            return Err(NumberError::Empty);
        }
        let (negative, plain) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, decimals) = match plain.split_once('.') {
            Some((_, "")) => return Err(NumberError::Malformed),
            Some(parts) => parts,
            None => (plain, ""),
        };
        check_digits(whole, decimals)?;
        if decimals.len() > D as usize {
            return Err(NumberError::TooManyDecimals {
                allowed: D,
                found: decimals.len(),
            });
        }
        units::<D>(negative, whole, decimals)
            .map(Fixed)
            .ok_or(NumberError::TooLarge { decimals: D })
    }
}

fn check_digits(whole: &str, decimals: &str) -> Result<(), NumberError> {
    let mut bytes = whole.bytes().chain(decimals.bytes());
    match bytes.find(|b| !b.is_ascii_digit()) {
        Some(b'e' | b'E') if whole.starts_with(|c: char| c.is_ascii_digit()) => {
            return Err(NumberError::Exponent);
        }
        Some(_) => return Err(NumberError::Malformed),
        None => {}
    }
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(NumberError::Malformed);
    }
    Ok(())
}

fn units<const D: u32>(negative: bool, whole: &str, decimals: &str) -> Option<i64> {
    let zeros = D as usize - decimals.len();
    let all = whole
        .bytes()
        .chain(decimals.bytes())
        .map(|b| i64::from(b - b'0'));
    // Counting downward when negative reaches the smallest value too.
    let sign = if negative { -1 } else { 1 };
    all.chain(std::iter::repeat_n(0, zeros))
        .try_fold(0_i64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(sign * digit)
        })
}
