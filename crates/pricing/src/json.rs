//! Numbers in JSON: written as JSON numbers with exactly their digits, read from numbers or strings without a float.

use serde::de::{self, Deserializer};
use serde::ser::{Error, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::number::{DIGITS_BYTES, Fixed, NumberError};

impl<const D: u32> Fixed<D> {
    /// From one JSON value as it is in a document: `12.5` or `"12.5"`.
    pub fn from_json(raw: &RawValue) -> Result<Fixed<D>, NumberError> {
        let text = raw.get();
        match text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        {
            // A number has no character that JSON would need to escape.
            Some(inner) => inner.parse(),
            None => text.parse(),
        }
    }
}

/// Through serde_json only: its raw values are what carries the digits.
impl<const D: u32> Serialize for Fixed<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; DIGITS_BYTES];
        let raw: &RawValue =
            serde_json::from_str(self.digits(&mut buffer)).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Through serde_json only, and not below `flatten` or an untagged enum; elsewhere (query strings, columns) parse the
/// text.
impl<'de, const D: u32> Deserialize<'de> for Fixed<D> {
    fn deserialize<T: Deserializer<'de>>(deserializer: T) -> Result<Fixed<D>, T::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Fixed::from_json(&raw).map_err(de::Error::custom)
    }
}

/// A list; `null` is absence.
pub(crate) fn or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}
