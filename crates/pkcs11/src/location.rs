//! The line of a key file that names a key in a token: where it is, and its public half. It holds no secret.

use std::{fmt, path::PathBuf, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};

/// What a line of a key file begins with.
pub const TOKEN_LINE: &str = "bre-recipient-pkcs11-1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLocation {
    pub module: PathBuf,
    pub token: String,
    pub object: String,
    pub pin_file: PathBuf,
    /// Big endian, without leading zeros.
    pub modulus: Vec<u8>,
    pub exponent: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this does not name a key in a token: {0}. A line reads `{TOKEN_LINE} module=PATH token=LABEL object=LABEL \
     pin-file=PATH modulus=HEX exponent=HEX`, without spaces in any of them"
)]
pub struct LocationError(String);

impl TokenLocation {
    /// Labels can be given twice in the world; with the fingerprint of the public half the name is this key's alone.
    #[must_use]
    pub fn name(&self) -> String {
        let print = digest(&SHA256, &self.modulus);
        format!(
            "pkcs11:token={};object={};sha256={}",
            self.token,
            self.object,
            hex(&print.as_ref()[..8])
        )
    }
}

impl FromStr for TokenLocation {
    type Err = LocationError;

    fn from_str(line: &str) -> Result<Self, LocationError> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some(TOKEN_LINE) {
            return Err(LocationError("it begins with another word".to_owned()));
        }
        let words: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let value = |name: &str| {
            let found = words.iter().find(|(key, _)| *key == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .filter(|value| !value.is_empty() && !value.contains([';', '=']))
                .ok_or_else(|| LocationError(format!("{name} is missing, empty, or holds ; or =")))
        };
        let number = |name: &str| {
            let bytes = from_hex(&value(name)?);
            let bytes = bytes.filter(|bytes| bytes.first().is_some_and(|first| *first != 0));
            bytes.ok_or_else(|| LocationError(format!("{name} is not a number in hex")))
        };
        Ok(Self {
            module: value("module")?.into(),
            token: value("token")?,
            object: value("object")?,
            pin_file: value("pin-file")?.into(),
            modulus: number("modulus")?,
            exponent: number("exponent")?,
        })
    }
}

impl fmt::Display for TokenLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{TOKEN_LINE} module={} token={} object={} pin-file={} modulus={} exponent={}",
            self.module.display(),
            self.token,
            self.object,
            self.pin_file.display(),
            hex(&self.modulus),
            hex(&self.exponent)
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_was() {
        let line = "bre-recipient-pkcs11-1 module=/usr/lib/m.so token=bre object=backups pin-file=/etc/bre/pin modulus=c0ffee exponent=010001";
        let location: TokenLocation = line.parse().unwrap();
        assert_eq!(location.to_string(), line);
        for (part, other) in [
            ("token=bre", "token="),
            ("modulus=c0ffee", "modulus=xx"),
            ("modulus=c0ffee", "modulus=00"),
            ("pin-file=/etc/bre/pin", ""),
            ("bre-recipient-pkcs11-1", "bre-recipient-kms-1"),
            ("object=backups", "object=a;b"),
        ] {
            assert!(
                line.replace(part, other).parse::<TokenLocation>().is_err(),
                "{other}"
            );
        }
    }
}
