//! One line of a book: what it says as text, and what it means.

use pricing::{PerShare, Worth};

use crate::domain::digits::{Ambiguous, Digits};
use crate::domain::identifiers::{CLIENT_RULE, TICKER_RULE, is_client_id, is_ticker};
use crate::domain::position::{
    DAYS_RULE, PRICE_RULE, Position, SHARES_MAX, SHARES_RULE, VALUE_RULE, days, price, shares,
    value,
};

/// A cell as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(String),
    /// A number with a type, as its type writes it.
    Typed(String),
}

impl Default for Cell {
    fn default() -> Cell {
        Cell::Text(String::new())
    }
}

impl Cell {
    pub(super) fn text(&self) -> &str {
        match self {
            Cell::Text(text) | Cell::Typed(text) => text,
        }
    }

    fn is_empty(&self) -> bool {
        self.text().is_empty()
    }

    fn digits(&self) -> Result<Digits, Ambiguous> {
        match self {
            Cell::Text(text) => Digits::of_cell(text),
            Cell::Typed(number) => Ok(Digits::typed(number)),
        }
    }
}

/// A line's cells under the names of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cells {
    pub(super) ticker: Cell,
    pub(super) client_id: Cell,
    pub(super) loan_days: Cell,
    pub(super) position_value: Cell,
    pub(super) shares: Cell,
    pub(super) share_price: Cell,
}

/// What is wrong with a line, all of it.
struct Wrong(Vec<String>);

impl Wrong {
    fn note(&mut self, name: &str, why: &str) {
        self.0.push(format!("{name} {why}"));
    }

    /// The number in a cell that is not empty.
    fn number<T>(
        &mut self,
        name: &str,
        rule: &str,
        cell: &Cell,
        read: impl FnOnce(&Digits) -> Option<T>,
    ) -> Option<T> {
        match cell.digits() {
            Err(ambiguous) => {
                self.note(name, &ambiguous.to_string());
                None
            }
            Ok(digits) => {
                let number = read(&digits);
                if number.is_none() {
                    self.note(name, rule);
                }
                number
            }
        }
    }
}

impl Cells {
    /// What a spreadsheet leaves behind is no line.
    pub(super) fn is_empty(&self) -> bool {
        self.all().into_iter().all(Cell::is_empty)
    }

    /// In the order of `input::NAMES`.
    pub(super) fn all(&self) -> [&Cell; 6] {
        let Cells {
            ticker,
            client_id,
            loan_days,
            position_value,
            shares,
            share_price,
        } = self;
        [
            ticker,
            client_id,
            loan_days,
            position_value,
            shares,
            share_price,
        ]
    }

    /// In the order of `input::NAMES`.
    pub(super) fn of(cells: [Cell; 6]) -> Cells {
        let [
            ticker,
            client_id,
            loan_days,
            position_value,
            shares,
            share_price,
        ] = cells;
        Cells {
            ticker,
            client_id,
            loan_days,
            position_value,
            shares,
            share_price,
        }
    }

    /// Everything that is wrong with the line, in one sentence.
    pub(super) fn read(&self) -> Result<Position, String> {
        let mut wrong = Wrong(Vec::new());
        let (ticker, client_id) = (self.ticker.text(), self.client_id.text());
        if !is_ticker(ticker) {
            wrong.note("ticker", TICKER_RULE);
        }
        if !is_client_id(client_id) {
            wrong.note("client_id", CLIENT_RULE);
        }
        let loan_days = wrong.number("loan_days", DAYS_RULE, &self.loan_days, days);
        let per_share = self.per_share(&mut wrong);
        let value = match self.position_value.is_empty() {
            true => None,
            false => wrong.number("position_value", VALUE_RULE, &self.position_value, value),
        };
        // What could not be read is said already.
        let worth = match wrong.0.is_empty() {
            true => Worth::new(value, per_share)
                .map_err(|error| wrong.note("position_value", &error.to_string()))
                .ok(),
            false => None,
        };
        match (loan_days, worth) {
            (Some(loan_days), Some(worth)) => Ok(Position {
                ticker: ticker.to_owned(),
                client_id: client_id.to_owned(),
                loan_days,
                worth,
            }),
            _ => Err(wrong.0.join("; ")),
        }
    }

    fn per_share(&self, wrong: &mut Wrong) -> Option<PerShare> {
        if self.shares.is_empty() && self.share_price.is_empty() {
            return None;
        }
        let in_bounds = |digits: &Digits| shares(digits, SHARES_MAX);
        let shares = wrong.number("shares", SHARES_RULE, &self.shares, in_bounds);
        let price = wrong.number("share_price", PRICE_RULE, &self.share_price, price);
        Some(PerShare {
            shares: shares?,
            price: price?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    fn cells(value: &str, shares: &str, price: &str) -> Cells {
        Cells {
            ticker: text("GME"),
            client_id: text("standard"),
            loan_days: text("30"),
            position_value: text(value),
            shares: text(shares),
            share_price: text(price),
        }
    }

    #[track_caller]
    fn check(value: &str, shares: &str, price: &str, expected: Result<&str, &str>) {
        match (cells(value, shares, price).read(), expected) {
            (Ok(position), Ok(expected)) => {
                assert_eq!(position.worth.value().to_string(), expected);
            }
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_value_or_what_it_is_made_of() {
        check("100000", "", "", Ok("100000.00"));
        check("1e5", "", "", Ok("100000.00"));
        check("", "100", "12.345678", Ok("1234.57"));
        check("", "1", "0.005", Ok("0.01"));
        check("1234.56", "100", "12.345678", Ok("1234.57"));
        check(
            "1",
            "100",
            "12.5",
            Err("100 shares at 12.500000 are worth 1250.00"),
        );
        check("", "", "", Err("or shares and share_price"));
        check("", "1", "0.004", Err("at least 0.01"));
        check("", "10000000000", "10000000", Err("at most 1000000000"));
        check("", "100", "", Err("share_price must"));
        check("0", "", "", Err("position_value must"));
        check("-1", "", "", Err("position_value must"));
        check("0.001", "", "", Err("position_value must"));
        check("NaN", "", "", Err("position_value must"));
        check("1e400", "", "", Err("position_value must"));
        check("1000000000.01", "", "", Err("position_value must"));
        check("5", "1.5", "2", Err("shares must"));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let cells = Cells {
            ticker: text("gme"),
            client_id: text("x"),
            loan_days: text("366"),
            position_value: text("1"),
            ..Cells::default()
        };
        let reason = cells.read().unwrap_err();
        for name in ["ticker", "client_id", "loan_days"] {
            assert!(reason.contains(name), "{reason}");
        }
    }
    #[test]
    fn text_with_two_readings_is_refused_and_a_type_has_one() {
        check(
            "250.000",
            "",
            "",
            Err("250.000 can be read as 250 and as 250000"),
        );
        check("", "1.000", "2", Err("1.000 can be read as 1 and as 1000"));
        check("2500.5000", "", "", Ok("2500.50"));
        check("30.0", "", "", Ok("30.00"));
        check("1.5E3", "", "", Ok("1500.00"));
        let typed = |number: &str| Cell::Typed(number.to_owned());
        let cells = Cells {
            position_value: typed("2500.5000"),
            loan_days: typed("30.000"),
            ..cells("", "", "")
        };
        let position = cells.read().unwrap();
        assert_eq!(position.worth.value().to_string(), "2500.50");
        assert_eq!(position.loan_days, 30);
        let cells = Cells {
            loan_days: text("30.000"),
            ..cells
        };
        let reason = cells.read().unwrap_err();
        assert!(
            reason.starts_with("loan_days was sent as text, and 30.000 can be"),
            "{reason}"
        );
    }
}
