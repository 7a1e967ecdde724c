//! An entry's fields: names and text, in the order of the names' bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

/// Most fields an entry may have.
pub const FIELDS_MAX: usize = 1024;
/// Longest name of a field, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Names are checked when the entry is written (see [`crate::EntryError`]), so that filling in fields needs no error
/// handling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Fields(BTreeMap<Cow<'static, str>, String>);

impl Fields {
    pub fn new() -> Fields {
        Fields::default()
    }

    /// Sets a field; an earlier value of the same name is replaced.
    pub fn set(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> &mut Fields {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The same, for building in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Fields {
        self.set(name, value);
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// In ascending order of the names' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<String>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Fields {
        Fields(
            pairs
                .into_iter()
                .map(|(n, v)| (n.into(), v.into()))
                .collect(),
        )
    }
}
