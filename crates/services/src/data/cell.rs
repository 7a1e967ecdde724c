//! A value as the server sent it: in its type's binary form, with the type that the server says it has. Compared with what an entry says
//! byte by byte, so that no function of the server and no setting of a session has a part in it, and no type is taken for granted.

use std::error::Error;
use std::fmt::Display;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

use super::row::Value;
use crate::domain::time::rfc3339;

#[derive(Debug, Clone)]
pub(crate) struct Cell<'a> {
    sql_type: Type,
    bytes: Option<&'a [u8]>,
}

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(sql_type: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Cell {
            sql_type: sql_type.clone(),
            bytes: Some(raw),
        })
    }

    fn from_sql_null(sql_type: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Cell {
            sql_type: sql_type.clone(),
            bytes: None,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl<'a> Cell<'a> {
    pub(crate) fn of(row: &'a Row, index: usize) -> Result<Cell<'a>, String> {
        row.try_get(index)
            .map_err(|error| format!("column {index} of the server's answer: {error}"))
    }

    /// Why it is not what it must be; `name` is the column's, with its table.
    pub(crate) fn compare(&self, name: &dyn Display, expected: &Value<'_>) -> Result<(), String> {
        self.typed(name, &expected.sql_type())?;
        if expected.is(self.bytes) {
            return Ok(());
        }
        Err(format!(
            "{name} is {}, but the entry says {}",
            shown(self.printed()),
            shown(expected.printed())
        ))
    }

    /// The bytes of a column that must be there and of this type.
    pub(crate) fn bytes(&self, name: &dyn Display, sql_type: &Type) -> Result<&'a [u8], String> {
        self.typed(name, sql_type)?;
        self.bytes
            .ok_or_else(|| format!("{name} is empty (NULL), which it never is"))
    }

    pub(crate) fn integer(&self, name: &dyn Display) -> Result<i32, String> {
        let bytes = self.bytes(name, &Type::INT4)?;
        fixed(bytes)
            .map(i32::from_be_bytes)
            .ok_or_else(|| damaged(name))
    }

    pub(crate) fn big(&self, name: &dyn Display) -> Result<i64, String> {
        let bytes = self.bytes(name, &Type::INT8)?;
        fixed(bytes)
            .map(i64::from_be_bytes)
            .ok_or_else(|| damaged(name))
    }

    fn typed(&self, name: &dyn Display, sql_type: &Type) -> Result<(), String> {
        if self.sql_type == *sql_type {
            return Ok(());
        }
        Err(format!(
            "{name} has the type {}, not {}",
            self.sql_type.name(),
            sql_type.name()
        ))
    }

    /// For people; nothing where the column is empty.
    pub(crate) fn printed(&self) -> Option<String> {
        let bytes = self.bytes?;
        let text = match self.sql_type {
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            Type::UUID => fixed(bytes).map(|bytes| Uuid::from_bytes(bytes).to_string()),
            Type::TIMESTAMPTZ => fixed(bytes).map(|bytes| {
                rfc3339(i64::from_be_bytes(bytes).saturating_add(super::row::EPOCH_MICROS))
            }),
            Type::INT2 => fixed(bytes).map(|bytes| i16::from_be_bytes(bytes).to_string()),
            Type::INT4 => fixed(bytes).map(|bytes| i32::from_be_bytes(bytes).to_string()),
            Type::INT8 => fixed(bytes).map(|bytes| i64::from_be_bytes(bytes).to_string()),
            Type::BOOL => bytes.first().map(|byte| (*byte != 0).to_string()),
            Type::DATE => fixed(bytes).map(|bytes| date(i32::from_be_bytes(bytes))),
            Type::NUMERIC => Numeric::read(bytes).map(|number| number.printed()),
            _ => None,
        };
        Some(text.unwrap_or_else(|| format!("0x{}", audit::hex::encode(bytes))))
    }
}

/// A text in quotation marks, with what is no text escaped.
fn shown(text: Option<String>) -> String {
    text.map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}"))
}

fn damaged(name: &dyn Display) -> String {
    format!("{name} has another length than its type")
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn date(days: i32) -> String {
    let from_2000 = jiff::civil::date(2000, 1, 1);
    match from_2000.checked_add(jiff::Span::new().days(i64::from(days).clamp(-700_000, 2_900_000)))
    {
        Ok(date) => date.to_string(),
        Err(_) => format!("day {days} from 2000-01-01"),
    }
}

/// PostgreSQL's `numeric`, as far as our columns go: 20 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numeric {
    /// × 10^-decimals.
    units: i128,
    decimals: u16,
}

impl Numeric {
    /// Nothing of what is no number, or larger than any of ours.
    pub(crate) fn read(bytes: &[u8]) -> Option<Numeric> {
        let word = |at: usize| {
            Some(u16::from_be_bytes(
                bytes.get(2 * at..2 * at + 2)?.try_into().ok()?,
            ))
        };
        let (count, weight, sign, decimals) =
            (word(0)?, word(1)?.cast_signed(), word(2)?, word(3)?);
        let mut units: i128 = 0;
        for index in 0..count {
            let digit = i128::from(word(4 + usize::from(index))?);
            let power =
                4 * (i32::from(weight) - i32::from(index.cast_signed())) + i32::from(decimals);
            let shifted = match u32::try_from(power) {
                Ok(power) => digit.checked_mul(10_i128.checked_pow(power)?)?,
                // The last group of four digits may go beyond the last decimal, where it holds nothing.
                Err(_) => {
                    let beyond = 10_i128.checked_pow(power.unsigned_abs())?;
                    (digit % beyond == 0).then(|| digit / beyond)?
                }
            };
            units = units.checked_add(shifted)?;
        }
        let units = match sign {
            0 => units,
            0x4000 => -units,
            _ => return None,
        };
        Some(Numeric { units, decimals })
    }

    pub(crate) fn is(self, units: i64, decimals: u16) -> bool {
        self.decimals == decimals && self.units == i128::from(units)
    }

    fn printed(self) -> String {
        let width = usize::from(self.decimals);
        let digits = format!("{:0>width$}", self.units.unsigned_abs(), width = width + 1);
        let (whole, rest) = digits.split_at(digits.len() - width);
        let sign = if self.units < 0 { "-" } else { "" };
        match rest {
            "" => format!("{sign}{whole}"),
            rest => format!("{sign}{whole}.{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn cell(sql_type: Type, bytes: &[u8]) -> Cell<'_> {
        Cell {
            sql_type,
            bytes: Some(bytes),
        }
    }

    /// As `numeric_send` sends them: groups of zeros at the end are left out.
    #[test]
    fn a_number_is_the_same_whatever_its_groups() {
        let hundred_thousand = numeric(&[1, 1, 0, 4, 10]);
        assert!(
            Value::Number {
                units: 1_000_000_000,
                decimals: 4
            }
            .is(Some(&hundred_thousand))
        );
        assert!(
            !Value::Number {
                units: 1_000_000_001,
                decimals: 4
            }
            .is(Some(&hundred_thousand))
        );
        assert!(
            !Value::Number {
                units: 1_000_000_000,
                decimals: 8
            }
            .is(Some(&hundred_thousand))
        );
        let negative = numeric(&[2, 0, 0x4000, 4, 456, 5068]);
        assert!(
            Value::Number {
                units: -4_565_068,
                decimals: 4
            }
            .is(Some(&negative))
        );
        assert_eq!(
            cell(Type::NUMERIC, &negative).printed().unwrap(),
            "-456.5068"
        );
        let tiny = numeric(&[1, 0xfffe, 0, 8, 1]);
        assert!(
            Value::Number {
                units: 1,
                decimals: 8
            }
            .is(Some(&tiny))
        );
        assert_eq!(cell(Type::NUMERIC, &tiny).printed().unwrap(), "0.00000001");
        // Not a number, a number far beyond ours, and bytes that are none.
        for odd in [
            numeric(&[0, 0, 0xc000, 0]),
            numeric(&[1, 3000, 0, 0, 1]),
            vec![0, 9, 1],
        ] {
            assert!(
                !Value::Number {
                    units: 0,
                    decimals: 4
                }
                .is(Some(&odd))
            );
            assert!(
                cell(Type::NUMERIC, &odd)
                    .printed()
                    .unwrap()
                    .starts_with("0x")
            );
        }
    }

    /// A column of another type is named, not read.
    #[test]
    fn another_type_is_said_in_words() {
        let told = cell(Type::TEXT, b"\\x00").bytes(&"audit_log.canonical", &Type::BYTEA);
        assert_eq!(
            told.unwrap_err(),
            "audit_log.canonical has the type text, not bytea"
        );
        let told = cell(Type::FLOAT8, &[0; 8]).compare(
            &"quotes.total_fee",
            &Value::Number {
                units: 0,
                decimals: 4,
            },
        );
        assert_eq!(
            told.unwrap_err(),
            "quotes.total_fee has the type float8, not numeric"
        );
        let told = cell(Type::TEXT, b"a\x1b[2J").compare(&"quotes.ticker", &Value::text_of("GME"));
        assert_eq!(
            told.unwrap_err(),
            "quotes.ticker is \"a\\u{1b}[2J\", but the entry says \"GME\""
        );
        let nothing = Cell {
            sql_type: Type::TEXT,
            bytes: None,
        };
        assert_eq!(
            nothing
                .compare(&"quotes.ticker", &Value::text_of("GME"))
                .unwrap_err(),
            "quotes.ticker is nothing, but the entry says \"GME\""
        );
        assert!(nothing.integer(&"n").is_err() && nothing.bytes(&"n", &Type::TEXT).is_err());
    }

    /// Every kind of value is what is written of it, and prints as it prints.
    #[test]
    fn what_is_written_is_what_is_read() {
        let values = [
            Value::text_of("GME"),
            Value::Uuid(Some(Uuid::from_u128(7))),
            Value::Time(1_795_421_730_000_001),
            Value::Number {
                units: -12_345_678,
                decimals: 8,
            },
            Value::Small(-3),
            Value::Integer(30),
            Value::Big(1 << 40),
            Value::MaybeBig(Some(9)),
            Value::Date(jiff::civil::date(2026, 11, 23)),
        ];
        for value in &values {
            let written = value.written();
            let cell = cell(value.sql_type(), &written);
            assert_eq!(cell.compare(&"t.c", value), Ok(()), "{value:?}");
            assert_eq!(cell.printed(), value.printed());
            for other in values.iter().filter(|other| other != &value) {
                assert!(cell.compare(&"t.c", other).is_err(), "{value:?} {other:?}");
            }
            assert!(!value.is(None));
        }
        assert!(
            Value::Text(None).is(None)
                && Value::MaybeBig(None).is(None)
                && Value::Uuid(None).is(None)
        );
    }
}
