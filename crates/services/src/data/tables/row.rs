//! A row as it is written out: the same text when it is stated and when it is compared, whatever the session is set to.

use std::borrow::Cow;
use std::error::Error;

use audit::{Hash, RowBytes};
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::covered::{CoveredTable, Form};
use crate::domain::time::rfc3339;

/// Microseconds since 2000, as the server sends a timestamptz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(i64);

/// From 1970 to 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Moment, Box<dyn Error + Sync + Send>> {
        Ok(Moment(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

impl Moment {
    fn text(self) -> String {
        match self.0 {
            i64::MIN => "-infinity".to_owned(),
            i64::MAX => "infinity".to_owned(),
            micros => rfc3339(micros.saturating_add(EPOCH_MICROS)),
        }
    }
}

/// Reads rows of one table; times that repeat are written once.
#[derive(Debug)]
pub(super) struct RowReader {
    table: &'static CoveredTable,
    times: Vec<Option<(Moment, String)>>,
    bytes: RowBytes,
}

impl RowReader {
    pub(super) fn of(table: &'static CoveredTable) -> RowReader {
        RowReader {
            table,
            times: vec![None; table.columns.len()],
            bytes: RowBytes::default(),
        }
    }

    /// Of a row whose columns are those of [`CoveredTable::select`].
    fn column<'r>(
        &'r mut self,
        row: &'r Row,
        index: usize,
    ) -> Result<Option<Cow<'r, str>>, tokio_postgres::Error> {
        let (_, form) = self.table.columns[index];
        Ok(match form {
            Form::Time => {
                let Some(moment) = row.try_get::<_, Option<Moment>>(index)? else {
                    return Ok(None);
                };
                let known = &mut self.times[index];
                if known.as_ref().is_none_or(|(known, _)| *known != moment) {
                    *known = Some((moment, moment.text()));
                }
                known.as_ref().map(|(_, text)| Cow::Borrowed(text.as_str()))
            }
            Form::Flag => row
                .try_get::<_, Option<bool>>(index)?
                .map(|flag| Cow::Borrowed(if flag { "true" } else { "false" })),
            Form::Text | Form::Plain | Form::Date | Form::Hex => {
                row.try_get::<_, Option<&str>>(index)?.map(Cow::Borrowed)
            }
        })
    }

    /// Its leaf.
    pub(super) fn hash(&mut self, row: &Row) -> Result<Hash, tokio_postgres::Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.begin(self.table.name);
        for index in 0..self.table.columns.len() {
            bytes.value(self.column(row, index)?.as_deref());
        }
        let hash = bytes.hash();
        self.bytes = bytes;
        Ok(hash)
    }

    /// As [`name_of`] gives it.
    pub(super) fn name(&mut self, row: &Row) -> Result<String, tokio_postgres::Error> {
        let key =
            (0..self.table.key).map(|index| Ok(self.column(row, index)?.map(Cow::into_owned)));
        let key: Values = key.collect::<Result<_, tokio_postgres::Error>>()?;
        Ok(name_of(self.table, &key))
    }

    pub(super) fn values(&mut self, row: &Row) -> Result<Values, tokio_postgres::Error> {
        (0..self.table.columns.len())
            .map(|index| Ok(self.column(row, index)?.map(Cow::into_owned)))
            .collect()
    }
}

/// A row's columns in the table's order.
pub(super) type Values = Vec<Option<String>>;

pub(super) fn hash_of(table: &CoveredTable, values: &Values) -> Hash {
    let mut bytes = RowBytes::default();
    bytes.begin(table.name);
    for value in values {
        bytes.value(value.as_deref());
    }
    bytes.hash()
}

/// For people and as a key: `client_id standard, changed_at 2026-…`.
pub(super) fn name_of(table: &CoveredTable, values: &Values) -> String {
    let named = |((name, _), value): (&(&str, Form), &Option<String>)| match value {
        Some(value) => format!("{name} {value}"),
        None => format!("{name} nothing"),
    };
    let columns = table.columns.iter().zip(values).take(table.key);
    columns.map(named).collect::<Vec<_>>().join(", ")
}

/// As an entry repeats it: an object by column, empty ones left out.
pub(super) fn to_json(table: &CoveredTable, values: &Values) -> String {
    let mut object = Map::new();
    for ((name, _), value) in table.columns.iter().zip(values) {
        if let Some(value) = value {
            object.insert((*name).to_owned(), Value::String(value.clone()));
        }
    }
    Value::Object(object).to_string()
}

/// `None`: it is not one, or has a column that is not the table's.
pub(super) fn from_json(table: &CoveredTable, row: &Value) -> Option<Values> {
    let object = row.as_object()?;
    let mut values: Values = vec![None; table.columns.len()];
    for (name, value) in object {
        let index = table
            .columns
            .iter()
            .position(|(column, _)| column == name)?;
        values[index] = Some(value.as_str()?.to_owned());
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::super::covered::ALIASES;
    use super::*;

    #[test]
    fn a_row_in_an_entry_is_the_row_in_the_table() {
        let text = |text: &str| Some(text.to_owned());
        let values = vec![
            text("ibkr"),
            text("FB"),
            text("-infinity"),
            text("2026-11-23T08:15:30.123456Z"),
            None,
            text("META"),
        ];
        let json = to_json(&ALIASES, &values);
        let back = from_json(&ALIASES, &serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(back, values);
        assert_eq!(hash_of(&ALIASES, &back), hash_of(&ALIASES, &values));
        assert_eq!(
            name_of(&ALIASES, &values),
            "source ibkr, symbol FB, valid_from -infinity, known_at 2026-11-23T08:15:30.123456Z"
        );
        for bad in [r#"{"other":"x"}"#, r#"{"ticker":1}"#, "[]"] {
            assert_eq!(
                from_json(&ALIASES, &serde_json::from_str(bad).unwrap()),
                None
            );
        }
    }

    #[test]
    fn times_without_end_are_words() {
        assert_eq!(Moment(i64::MIN).text(), "-infinity");
        assert_eq!(Moment(i64::MAX).text(), "infinity");
        assert_eq!(Moment(0).text(), "2000-01-01T00:00:00.000000Z");
    }
}
