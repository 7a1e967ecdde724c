//! Rows in PostgreSQL's binary form, as an array of a table's own row type: one parameter carries the whole batch, no value is
//! parsed from text, and a column of another type than the table's is refused by the server.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;

use bytes::BytesMut;
use jiff::civil::Date;
use pricing::Fixed;
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::cell::Numeric;
use crate::domain::time::rfc3339;

/// A value in the type of its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(Option<Cow<'a, str>>),
    Uuid(Option<Uuid>),
    /// Microseconds since 1970.
    Time(i64),
    /// `units` × 10⁻ᵈᵉᶜⁱᵐᵃˡˢ; the decimals are the column's, 4 or 8.
    Number {
        units: i64,
        decimals: u16,
    },
    Small(i16),
    Integer(i32),
    Big(i64),
    MaybeBig(Option<i64>),
    Date(Date),
    Bytes(&'a [u8]),
}

/// From 1970 to 2000, where PostgreSQL begins to count.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

impl<'a> Value<'a> {
    pub(crate) fn text_of(text: impl Into<Cow<'a, str>>) -> Value<'a> {
        Value::Text(Some(text.into()))
    }

    /// With as many decimals as the column has; it never has fewer than the number, and pricing's limits leave room for them.
    pub(crate) fn number<const D: u32>(number: Fixed<D>, decimals: u16) -> Value<'a> {
        let more = u32::from(decimals).saturating_sub(D);
        Value::Number {
            units: number.units().saturating_mul(10_i64.pow(more)),
            decimals,
        }
    }

    /// As PostgreSQL prints it, a time in RFC 3339.
    pub(crate) fn printed(&self) -> Option<String> {
        match self {
            Value::Text(text) => text.as_deref().map(str::to_owned),
            Value::Uuid(uuid) => uuid.map(|uuid| uuid.to_string()),
            Value::Time(micros) => Some(rfc3339(*micros)),
            Value::Number { units, decimals: 4 } => {
                Some(Fixed::<4>::from_units(*units).to_string())
            }
            Value::Number { units, .. } => Some(Fixed::<8>::from_units(*units).to_string()),
            Value::Small(number) => Some(number.to_string()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Big(number) => Some(number.to_string()),
            Value::MaybeBig(number) => number.map(|number| number.to_string()),
            Value::Date(date) => Some(date.to_string()),
            Value::Bytes(_) => None,
        }
    }

    pub(super) fn sql_type(&self) -> Type {
        match self {
            Value::Text(_) => Type::TEXT,
            Value::Uuid(_) => Type::UUID,
            Value::Time(_) => Type::TIMESTAMPTZ,
            Value::Number { .. } => Type::NUMERIC,
            Value::Small(_) => Type::INT2,
            Value::Integer(_) => Type::INT4,
            Value::Big(_) | Value::MaybeBig(_) => Type::INT8,
            Value::Date(_) => Type::DATE,
            Value::Bytes(_) => Type::BYTEA,
        }
    }

    /// Whether a value that the server sent, in its type's binary form, is this one.
    pub(super) fn is(&self, sent: Option<&[u8]>) -> bool {
        match (self, sent) {
            (Value::Text(None) | Value::Uuid(None) | Value::MaybeBig(None), sent) => sent.is_none(),
            (_, None) => false,
            (Value::Text(Some(text)), Some(sent)) => sent == text.as_bytes(),
            (Value::Uuid(Some(uuid)), Some(sent)) => sent == uuid.as_bytes(),
            (Value::Time(micros), Some(sent)) => {
                sent == micros.saturating_sub(EPOCH_MICROS).to_be_bytes()
            }
            (Value::Number { units, decimals }, Some(sent)) => {
                Numeric::read(sent).is_some_and(|number| number.is(*units, *decimals))
            }
            (Value::Small(number), Some(sent)) => sent == number.to_be_bytes(),
            (Value::Integer(number), Some(sent)) => sent == number.to_be_bytes(),
            (Value::Big(number) | Value::MaybeBig(Some(number)), Some(sent)) => {
                sent == number.to_be_bytes()
            }
            (Value::Date(date), Some(sent)) => sent == days_from_2000(*date).to_be_bytes(),
            (Value::Bytes(bytes), Some(sent)) => sent == *bytes,
        }
    }

    /// Its binary form alone.
    #[cfg(test)]
    pub(super) fn written(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        bytes.split_off(8)
    }

    fn put(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.sql_type().oid().to_be_bytes());
        if matches!(
            self,
            Value::Text(None) | Value::Uuid(None) | Value::MaybeBig(None)
        ) {
            into.extend_from_slice(&(-1_i32).to_be_bytes());
            return;
        }
        let at = begin(into);
        match self {
            Value::Text(text) => into.extend_from_slice(text.as_deref().unwrap_or("").as_bytes()),
            Value::Uuid(uuid) => into.extend_from_slice(uuid.unwrap_or_default().as_bytes()),
            Value::Time(micros) => {
                into.extend_from_slice(&micros.saturating_sub(EPOCH_MICROS).to_be_bytes());
            }
            Value::Number { units, decimals } => put_number(*units, *decimals, into),
            Value::Small(number) => into.extend_from_slice(&number.to_be_bytes()),
            Value::Integer(number) => into.extend_from_slice(&number.to_be_bytes()),
            Value::Big(number) => into.extend_from_slice(&number.to_be_bytes()),
            Value::MaybeBig(number) => {
                into.extend_from_slice(&number.unwrap_or_default().to_be_bytes());
            }
            Value::Date(date) => into.extend_from_slice(&days_from_2000(*date).to_be_bytes()),
            Value::Bytes(bytes) => into.extend_from_slice(bytes),
        }
        end(into, at);
    }
}

/// As PostgreSQL counts days.
fn days_from_2000(date: Date) -> i32 {
    let days = jiff::civil::date(2000, 1, 1)
        .duration_until(date)
        .as_hours()
        .div_euclid(24);
    i32::try_from(days).unwrap_or(i32::MAX)
}

/// Digits to the base of 10,000, the first of them standing for 10,000ʷᵉⁱᵍʰᵗ.
fn put_number(units: i64, decimals: u16, into: &mut Vec<u8>) {
    const BASE: u64 = 10_000;
    let mut digits = [0_u16; 5];
    let mut rest = units.unsigned_abs();
    let mut count = 0_u16;
    while rest > 0 {
        digits[usize::from(count)] = (rest % BASE) as u16;
        rest /= BASE;
        count += 1;
    }
    let weight = count.wrapping_sub(decimals / 4).wrapping_sub(1);
    let sign: u16 = if units < 0 { 0x4000 } else { 0 };
    for part in [count, if count == 0 { 0 } else { weight }, sign, decimals] {
        into.extend_from_slice(&part.to_be_bytes());
    }
    for digit in digits[..usize::from(count)].iter().rev() {
        into.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Leaves room for the length of what follows.
fn begin(into: &mut Vec<u8>) -> usize {
    into.extend_from_slice(&[0; 4]);
    into.len()
}

fn end(into: &mut [u8], at: usize) {
    // Entries are at most 1 MiB, a batch far below 2 GiB.
    let length = i32::try_from(into.len() - at).unwrap_or(i32::MAX);
    into[at - 4..at].copy_from_slice(&length.to_be_bytes());
}

/// Columns of one row, encoded ahead of those before them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    count: usize,
    bytes: Vec<u8>,
}

impl<'a> FromIterator<Value<'a>> for Columns {
    fn from_iter<I: IntoIterator<Item = Value<'a>>>(values: I) -> Columns {
        Columns::new(values, 640)
    }
}

impl Columns {
    /// `bytes`: about how many they take.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = Value<'a>>, bytes: usize) -> Columns {
        let mut columns = Columns {
            count: 0,
            bytes: Vec::with_capacity(bytes),
        };
        for value in values {
            value.put(&mut columns.bytes);
            columns.count += 1;
        }
        columns
    }
}

/// Rows of one table: a parameter `$n::table[]`.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    count: i32,
    bytes: Vec<u8>,
}

/// A row that is being written, column by column.
#[derive(Debug)]
pub(crate) struct RowWriter<'a> {
    bytes: &'a mut Vec<u8>,
    columns: i32,
}

impl RowWriter<'_> {
    pub(crate) fn value(&mut self, value: &Value<'_>) {
        value.put(self.bytes);
        self.columns += 1;
    }

    pub(crate) fn columns(&mut self, columns: &Columns) {
        self.bytes.extend_from_slice(&columns.bytes);
        // No table has more than 1,600.
        self.columns += i32::try_from(columns.count).unwrap_or(i32::MAX);
    }

    /// A `bytea` of what `write` appends.
    pub(crate) fn bytes<T, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.bytes
            .extend_from_slice(&Type::BYTEA.oid().to_be_bytes());
        let at = begin(self.bytes);
        let written = write(self.bytes)?;
        end(self.bytes, at);
        self.columns += 1;
        Ok(written)
    }
}

impl Rows {
    /// One more row, unless `write` fails.
    pub(crate) fn row<T, E>(
        &mut self,
        write: impl FnOnce(&mut RowWriter<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.bytes.len();
        let at = begin(&mut self.bytes);
        self.bytes.extend_from_slice(&[0; 4]);
        let mut row = RowWriter {
            bytes: &mut self.bytes,
            columns: 0,
        };
        let written = write(&mut row);
        let columns = row.columns;
        if written.is_err() {
            self.bytes.truncate(before);
            return written;
        }
        self.bytes[at..at + 4].copy_from_slice(&columns.to_be_bytes());
        end(&mut self.bytes, at);
        self.count += 1;
        written
    }

    pub(crate) fn push(&mut self, first: &[Value<'_>], then: Option<&Columns>) {
        let pushed = self.row(|row| {
            first.iter().for_each(|value| row.value(value));
            then.into_iter().for_each(|then| row.columns(then));
            Ok::<_, Infallible>(())
        });
        match pushed {
            Ok(()) => {}
        }
    }

    /// Keeps its memory for the next rows.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }
}

impl ToSql for Rows {
    fn to_sql(
        &self,
        array: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Kind::Array(row) = array.kind() else {
            return Err("rows are an array".into());
        };
        out.reserve(self.bytes.len() + 32);
        let (dimensions, no_nulls, lower_bound) = (i32::from(self.count > 0), 0_i32, 1_i32);
        out.extend_from_slice(&dimensions.to_be_bytes());
        out.extend_from_slice(&no_nulls.to_be_bytes());
        out.extend_from_slice(&row.oid().to_be_bytes());
        if self.count > 0 {
            out.extend_from_slice(&self.count.to_be_bytes());
            out.extend_from_slice(&lower_bound.to_be_bytes());
            out.extend_from_slice(&self.bytes);
        }
        Ok(IsNull::No)
    }

    fn accepts(array: &Type) -> bool {
        matches!(array.kind(), Kind::Array(row) if matches!(row.kind(), Kind::Composite(_)))
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(units: i64, decimals: u16) -> Vec<u16> {
        let mut bytes = Vec::new();
        put_number(units, decimals, &mut bytes);
        bytes
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect()
    }

    /// PostgreSQL's own `numeric_send` gives these (without the zeros that it strips at the end).
    #[test]
    fn numbers_are_digits_to_the_base_of_ten_thousand() {
        assert_eq!(number(0, 4), [0, 0, 0, 4]);
        // 100000.0000
        assert_eq!(number(1_000_000_000, 4), [3, 1, 0, 4, 10, 0, 0]);
        // 0.06300000
        assert_eq!(number(6_300_000, 8), [2, 0xffff, 0, 8, 630, 0]);
        // 0.00000001
        assert_eq!(number(1, 8), [1, 0xfffe, 0, 8, 1]);
        // -456.5068
        assert_eq!(number(-4_565_068, 4), [2, 0, 0x4000, 4, 456, 5068]);
        assert_eq!(number(i64::MAX, 8).len(), 4 + 5);
    }

    #[test]
    fn days_are_counted_from_2000() {
        for (date, days) in [("2000-01-01", 0), ("2026-11-23", 9823), ("1999-12-31", -1)] {
            let date: Date = date.parse().unwrap();
            assert_eq!(days_from_2000(date), days, "{date}");
            assert_eq!(Value::Date(date).printed(), Some(date.to_string()));
        }
    }

    #[test]
    fn numbers_get_the_decimals_of_their_column() {
        let printed = |value: Value<'_>| value.printed().unwrap();
        let value = pricing::PositionValue::whole(100_000);
        assert_eq!(printed(Value::number(value, 4)), "100000.0000");
        assert_eq!(
            printed(Value::number(pricing::Rate::whole(1), 8)),
            "1.00000000"
        );
        let index = pricing::Index::from_units(18_500_000);
        assert_eq!(printed(Value::number(index, 8)), "18.50000000");
    }
}
