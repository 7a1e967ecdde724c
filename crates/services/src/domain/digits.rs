//! Numbers as they are sent: by people and files as text, by programs as numbers that have a type. A type has one reading, so only
//! the value counts; text may have two, and is then refused.

use std::fmt;
use std::str::FromStr;

use pricing::Fixed;

use super::text_number::ambiguity;

/// A number's digits without what changes nothing of its value: the only thing that numbers are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digits(String);

/// Text that a reader elsewhere takes for another number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("was sent as text, and {0}")]
pub(crate) struct Ambiguous(String);

impl Digits {
    /// Of a number with a type: JSON's numbers, a column of decimals.
    pub(crate) fn typed(number: &str) -> Digits {
        Digits(without_noughts(&written_out(number)).to_owned())
    }

    /// Of text: cells of CSV, queries, JSON's strings. What two people read differently is no number.
    pub(crate) fn of_text(text: &str) -> Result<Digits, Ambiguous> {
        if let Some(reason) = ambiguity(text) {
            return Err(Ambiguous(reason));
        }
        Ok(Digits(without_noughts(text).to_owned()))
    }

    /// The same of a cell of a table, where tools write large numbers with an exponent.
    pub(crate) fn of_cell(text: &str) -> Result<Digits, Ambiguous> {
        match text.contains(['e', 'E']) {
            true => Ok(Digits::typed(text)),
            false => Digits::of_text(text),
        }
    }

    /// Digits only, without a leading zero.
    pub(crate) fn whole(&self) -> Option<u64> {
        whole(&self.0)
    }

    /// By the type's own rules.
    pub(crate) fn parse<T: FromStr>(&self) -> Option<T> {
        self.0.parse().ok()
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.0.starts_with('-')
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digits only, without a leading zero: for the parts of names such as `0-1-42`.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// 2500.5 of `2500.5000`, 30 of `30.0`; what is no decimal number stays as it is, and is refused.
fn without_noughts(text: &str) -> &str {
    let Some((whole, decimals)) = text.split_once('.') else {
        return text;
    };
    if !is_plain(whole) || !is_plain(decimals) || decimals.starts_with('-') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.')
}

/// Digits, behind a minus perhaps.
fn is_plain(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A JSON number as one writes it by hand, with the same value: without the exponent that some languages use even for 10000000
/// (`1.0E7`), and 30 for `30.0`. One that nobody could mean stays as it is, and is refused.
pub(crate) fn written_out(number: &str) -> String {
    const SHIFT_MAX: i32 = 18;
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else {
        let whole = number
            .split_once('.')
            .filter(|(_, decimals)| !decimals.is_empty() && decimals.bytes().all(|b| b == b'0'));
        return whole.map_or(number, |(whole, _)| whole).to_owned();
    };
    let Some(shift) = exponent
        .parse::<i32>()
        .ok()
        .filter(|shift| shift.abs() <= SHIFT_MAX && mantissa.len() <= 40)
    else {
        return number.to_owned();
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Zeros on both sides, so that the point lands between digits wherever it goes.
    let zeros = "0".repeat(SHIFT_MAX.unsigned_abs() as usize);
    let digits = format!("{zeros}{whole}{decimals}{zeros}");
    let point = (zeros.len() + whole.len()).saturating_add_signed(shift as isize);
    let (whole, decimals) = digits.split_at(point.min(digits.len()));
    let (whole, decimals) = (
        whole.trim_start_matches('0'),
        decimals.trim_end_matches('0'),
    );
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{decimals}")
}

/// A column has more decimals than some of our types; zeros at its end are not digits.
pub(crate) fn decimal<const D: u32>(text: &str) -> Option<Fixed<D>> {
    let trimmed = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    };
    trimmed.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_end_are_no_digits() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                decimal::<4>(text)
                    .map(|number| number.to_string())
                    .as_deref(),
                expected,
                "{text}"
            );
        };
        check("25.00000000", Some("25.0000"));
        check("0.00000000", Some("0.0000"));
        check("100", Some("100.0000"));
        check("0.12345000", None);
    }

    #[test]
    fn exponents_are_written_out() {
        for (number, expected) in [
            ("1.0E7", "10000000"),
            ("2e-06", "0.000002"),
            ("-1.50e1", "-15"),
            ("12345e-2", "123.45"),
            ("0e5", "0"),
            ("100000.10", "100000.10"),
            ("30.0", "30"),
            ("-0.0", "-0"),
            ("1e400", "1e400"),
            ("1e99999999999", "1e99999999999"),
            ("1e18", "1000000000000000000"),
            ("1e-18", "0.000000000000000001"),
        ] {
            assert_eq!(written_out(number), expected);
        }
    }

    #[test]
    fn typed_numbers_are_judged_by_their_value() {
        for (number, expected) in [
            ("2500.5000", "2500.5"),
            ("1.000", "1"),
            ("250.000", "250"),
            ("30.0", "30"),
            ("1.5000E3", "1500"),
            ("100", "100"),
            ("0.000", "0"),
            ("-0.500", "-0.5"),
            ("0.001", "0.001"),
            ("5.", "5."),
            (".50", ".50"),
            ("1.2.0", "1.2.0"),
            ("", ""),
        ] {
            assert_eq!(Digits::typed(number).0, expected, "{number}");
        }
    }

    #[test]
    fn text_that_two_people_read_differently_is_refused() {
        for text in ["1.000", "250.000", "-5.000", "1000.000"] {
            let error = Digits::of_text(text).unwrap_err().to_string();
            let whole = text.strip_suffix(".000").unwrap();
            let both = format!("{text} can be read as {whole} and as {whole}000");
            assert!(error.contains(&both), "{error}");
            assert!(Digits::of_cell(text).is_err());
        }
        for (text, expected) in [
            ("2500.5000", "2500.5"),
            ("30.0", "30"),
            ("30.00", "30"),
            ("1.0000", "1"),
            ("12.345", "12.345"),
            ("1.250", "1.25"),
            ("1.000.000", "1.000.000"),
            ("1,000", "1,000"),
            ("1e5", "1e5"),
        ] {
            assert_eq!(Digits::of_text(text).unwrap().0, expected, "{text}");
        }
        assert_eq!(Digits::of_cell("1.000e5").unwrap().0, "100000");
        assert_eq!(Digits::of_cell("1.5E3").unwrap().0, "1500");
    }
}
