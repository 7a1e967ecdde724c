//! A position in the write-ahead log.

use std::fmt;
use std::str::FromStr;

/// Byte position in the WAL; prints and parses as PostgreSQL does: `0/1A2B3C4D`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a WAL position; it looks like 0/1A2B3C4D")]
pub struct LsnError(String);

impl Lsn {
    /// The first byte of the segment that holds this position.
    pub fn segment_start(self, segment_bytes: u64) -> Lsn {
        Lsn(self.0 - self.0 % segment_bytes)
    }

    pub fn segment_number(self, segment_bytes: u64) -> u64 {
        self.0 / segment_bytes
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Lsn, LsnError> {
        let part = |digits: &str| -> Option<u64> {
            let hex = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hex {
                u64::from_str_radix(digits, 16).ok()
            } else {
                None
            }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(part(high)? << 32 | part(low)?)))
            .ok_or_else(|| LsnError(text.to_owned()))
    }
}

/// The name of a WAL segment file: `000000010000000000000003`.
pub fn segment_name(timeline: u32, segment_number: u64, segment_bytes: u64) -> String {
    let per_log = (1 << 32) / segment_bytes;
    format!(
        "{timeline:08X}{:08X}{:08X}",
        segment_number / per_log,
        segment_number % per_log
    )
}

/// Timeline and segment number of a WAL segment file name; `None` for anything else (histories, partial files).
pub fn parse_segment_name(name: &str, segment_bytes: u64) -> Option<(u32, u64)> {
    if name.len() != 24
        || !name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    {
        return None;
    }
    let part = |range: std::ops::Range<usize>| u64::from_str_radix(&name[range], 16).ok();
    let (timeline, log, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
    let per_log = (1 << 32) / segment_bytes;
    (low < per_log).then_some((timeline as u32, log * per_log + low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(text.parse::<Lsn>().ok(), expected.map(Lsn), "{text}")
        };
        check("0/0", Some(0));
        check("0/1A2B3C4D", Some(0x1A2B_3C4D));
        check("1A/ff", Some(0x1A_0000_00FF));
        check("FFFFFFFF/FFFFFFFF", Some(u64::MAX));
        check("", None);
        check("1", None);
        check("/1", None);
        check("1/", None);
        check("+1/2", None);
        check("0/123456789", None);
        assert_eq!(Lsn(0x1A_0000_00FF).to_string(), "1A/FF");
    }

    #[test]
    fn segment_names() {
        const MIB: u64 = 1 << 20;
        let check = |timeline, number, bytes, name: &str| {
            assert_eq!(segment_name(timeline, number, bytes), name);
            assert_eq!(parse_segment_name(name, bytes), Some((timeline, number)));
        };
        check(1, 3, 16 * MIB, "000000010000000000000003");
        check(10, 256, 16 * MIB, "0000000A0000000100000000");
        check(1, 4096, MIB, "000000010000000100000000");
        for wrong in [
            "00000002.history",
            "000000010000000000000003.partial",
            "00000001000000000000000g",
            "000000010000000000000100",
        ] {
            assert_eq!(parse_segment_name(wrong, 16 * MIB), None, "{wrong}");
        }
    }
}
