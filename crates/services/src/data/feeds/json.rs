//! Numbers of JSON answers as the exact text they were sent as. No float is ever made of them.

use serde_json::value::RawValue;

/// A JSON number, or a string that holds one, as a count of 10^-`scale`; nothing is rounded. `None`: it is neither, or does not fit.
pub(super) fn number(raw: &RawValue, scale: usize) -> Option<i64> {
    let text = raw.get().trim();
    let text = match text.strip_prefix('"') {
        // A number needs no escapes.
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    match text.split_once(['e', 'E']) {
        None => super::scaled(text, scale),
        Some((digits, exponent)) => shifted(digits, exponent, scale),
    }
}

/// `1.5e-3`, as some servers write small numbers.
fn shifted(digits: &str, exponent: &str, scale: usize) -> Option<i64> {
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let digits_only = all.bytes().all(|byte| byte.is_ascii_digit());
    if exponent.unsigned_abs() > 20 || all.len() > 40 || whole.is_empty() || !digits_only {
        return None;
    }
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let text = match usize::try_from(point) {
        Ok(point) if point >= all.len() => format!("{sign}{all:0<point$}"),
        Ok(0) | Err(_) => {
            let zeros = usize::try_from(-point).ok()?;
            format!("{sign}0.{}{all}", "0".repeat(zeros))
        }
        Ok(point) => format!("{sign}{}.{}", &all[..point], &all[point..]),
    };
    // What the shift left in front says nothing.
    let unsigned = text.trim_start_matches('-').trim_start_matches('0');
    let unsigned = if unsigned.starts_with('.') || unsigned.is_empty() {
        format!("0{unsigned}")
    } else {
        unsigned.to_owned()
    };
    super::scaled(&format!("{sign}{unsigned}"), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept_or_the_number_is_refused() {
        let check = |json: &str, expected: Option<i64>| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(number(raw, 8), expected, "{json}");
        };
        check("0.15", Some(15_000_000));
        check("\"0.15\"", Some(15_000_000));
        check("1.5e-3", Some(150_000));
        check("1E-8", Some(1));
        check("1e-05", Some(1_000));
        check("12e2", Some(120_000_000_000));
        check("-2.5E-1", Some(-25_000_000));
        check("0e0", Some(0));
        check("-0", Some(0));
        for bad in [
            "1e400",
            "1e-9",
            "1e-400",
            "0.123456789",
            "\"NaN\"",
            "\"\"",
            "\"1\\u0030\"",
            "true",
            "null",
            "[1]",
            "{}",
            "12345678901",
            "\"１\"",
            "\"0x1\"",
            "\"1e\"",
            "\"e5\"",
            "\".5e1\"",
            "\"1.5.5e1\"",
            "\"--1e1\"",
            "0.15000000000000002",
        ] {
            check(bad, None);
        }
    }
}
