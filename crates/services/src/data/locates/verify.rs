//! The columns of `locates` and `availability_ledger` against the entries they repeat, in both directions, and the ledger against
//! itself.

use audit::{Entry, Kind};
use tokio_postgres::{Client, Row};

use super::record::{LEDGER_COLUMNS, LOCATE_COLUMNS, Locate};
use crate::data::database::DatabaseError;
use crate::data::quotes::{Column, text_of, timestamp_text};
use crate::data::row::Value;
use crate::time::rfc3339;

pub(crate) const JOINS: &str = " LEFT JOIN locates AS l USING (log, epoch, position) \
     LEFT JOIN availability_ledger AS s USING (log, epoch, position)";

const LOCATES: Table = Table {
    name: "locates",
    alias: "l",
    columns: LOCATE_COLUMNS,
};
const LEDGER: Table = Table {
    name: "availability_ledger",
    alias: "s",
    columns: LEDGER_COLUMNS,
};

struct Table {
    name: &'static str,
    alias: &'static str,
    columns: &'static [Column],
}

impl Table {
    /// Whether there is a row, its time, its columns.
    fn select(&self) -> String {
        let alias = self.alias;
        let recorded_at = timestamp_text(&format!("{alias}.recorded_at"));
        let mut sql = format!(", {alias}.position IS NOT NULL, {recorded_at}");
        for column in self.columns {
            sql.push_str(&format!(", {}", text_of(alias, column)));
        }
        sql
    }

    fn width(&self) -> usize {
        2 + self.columns.len()
    }

    fn compare(
        &self,
        row: &Row,
        at: usize,
        entry: &Entry,
        expected: Option<&[Value<'_>]>,
    ) -> Result<(), String> {
        let name = self.name;
        let expected = match (expected, row.get(at)) {
            (None, false) => return Ok(()),
            (Some(expected), true) => expected,
            (Some(_), false) => return Err(format!("its row in {name} is missing")),
            (None, true) => {
                return Err(format!(
                    "{name} has a row for it, but it says nothing of one"
                ));
            }
        };
        let same = |column: &str, found: Option<&str>, expected: Option<String>| match found
            == expected.as_deref()
        {
            true => Ok(()),
            false => Err(format!(
                "{name}.{column} is {found:?}, but the entry says {expected:?}"
            )),
        };
        same(
            "recorded_at",
            row.get(at + 1),
            Some(rfc3339(entry.recorded_at_micros)),
        )?;
        for (index, (column, value)) in self.columns.iter().zip(expected).enumerate() {
            same(column.name, row.get(at + 2 + index), value.printed())?;
        }
        Ok(())
    }
}

pub(crate) fn select() -> String {
    format!("{}{}", LOCATES.select(), LEDGER.select())
}

/// Whether the entry is a step of a locate, and of an order's making; or which column disagrees with it. The columns of [`select`] begin
/// at `at`.
pub(crate) fn compare(entry: &Entry, row: &Row, at: usize) -> Result<(bool, bool), String> {
    let is_step = entry.kind == Kind::LocateChanged;
    let locate = match is_step {
        true => Some(Locate::read(&entry.fields)?),
        false => None,
    };
    let values = locate.as_ref().map(Locate::values);
    LOCATES.compare(
        row,
        at,
        entry,
        values.as_ref().map(|values| values.as_slice()),
    )?;
    let values = locate.as_ref().and_then(Locate::ledger_values);
    let at = at + LOCATES.width();
    LEDGER.compare(
        row,
        at,
        entry,
        values.as_ref().map(|values| values.as_slice()),
    )?;
    Ok((is_step, locate.is_some_and(|locate| locate.order.is_some())))
}

/// A row without its entry, or a ledger that does not add up: where, and what is wrong.
pub(crate) async fn stray(client: &Client) -> Result<Option<(i64, i64, String)>, DatabaseError> {
    for table in [LOCATES.name, LEDGER.name] {
        let sql = format!(
            "SELECT t.epoch::bigint, t.position, t.locate_id::text FROM {table} AS t \
             WHERE NOT EXISTS (SELECT FROM audit_log AS a WHERE (a.log, a.epoch, a.position) = (t.log, t.epoch, t.position)) \
             ORDER BY t.position, t.epoch LIMIT 1"
        );
        if let Some((epoch, position, id)) = first(client, &sql).await? {
            let reason = format!(
                "locate {id} stands in {table} for this place, but the log has no such entry"
            );
            return Ok(Some((epoch, position, reason)));
        }
    }
    let found = first(client, UNBALANCED).await?;
    if let Some((epoch, position, what)) = found {
        let reason = format!("availability_ledger does not add up: {what}");
        return Ok(Some((epoch, position, reason)));
    }
    if let Some((epoch, position, what)) = first(client, MISUSED).await? {
        let reason = format!("the uses of a locate do not add up: {what}");
        return Ok(Some((epoch, position, reason)));
    }
    Ok(None)
}

/// Steps without gaps, each continuing the one before, never granting more than there was; and what is outstanding in the end is
/// what the locates of that ticker and date hold.
const UNBALANCED: &str = "\
SELECT epoch::bigint, position, ticker || ' on ' || trade_date || ', step ' || sequence FROM ( \
    SELECT *, lag(outstanding, 1, 0::bigint) OVER steps AS before, row_number() OVER steps AS number, \
           lead(sequence) OVER steps IS NULL AS last FROM availability_ledger \
    WINDOW steps AS (PARTITION BY ticker, trade_date ORDER BY sequence)) AS l \
WHERE sequence <> number OR outstanding <> before + change OR outstanding < 0 OR (change > 0 AND outstanding > available) \
   OR (last AND outstanding <> (SELECT coalesce(sum(h.granted - h.returned), 0) FROM locates AS h \
        WHERE h.ticker = l.ticker AND h.trade_date = l.trade_date AND h.status = 'filled' AND h.order_id IS NULL \
          AND NOT EXISTS (SELECT FROM locates AS n WHERE n.locate_id = h.locate_id AND n.sequence > h.sequence AND n.order_id IS NULL))) \
ORDER BY position LIMIT 1";

/// Steps without gaps, each continuing the one before; never more in orders' hands than is held; what is used is what orders sold, less
/// what they bought back where that counts.
const MISUSED: &str = "\
SELECT epoch::bigint, position, locate_id || ', step ' || sequence FROM ( \
    SELECT *, lag(reserved, 1, 0::bigint) OVER steps AS reserved_before, lag(used, 1, 0::bigint) OVER steps AS used_before, \
           row_number() OVER steps AS number, \
           coalesce(max(order_shares) FILTER (WHERE order_state = 'reserved') OVER (PARTITION BY locate_id, order_id ORDER BY sequence), 0) AS held_by_order \
    FROM locates WINDOW steps AS (PARTITION BY locate_id ORDER BY sequence)) AS l \
WHERE sequence <> number OR reserved < 0 OR used < 0 OR reserved + used > granted - returned \
   OR used <> used_before + CASE WHEN order_id IS NULL OR order_state <> 'used' THEN 0 WHEN order_side = 'sell_short' THEN order_shares \
                                 WHEN kind = 'single_use' THEN 0 ELSE -order_shares END \
   OR reserved <> reserved_before + CASE WHEN order_id IS NULL THEN 0 WHEN order_state = 'reserved' THEN order_shares ELSE -held_by_order END \
ORDER BY position LIMIT 1";

async fn first(client: &Client, sql: &str) -> Result<Option<(i64, i64, String)>, DatabaseError> {
    let row = client
        .query_opt(sql, &[])
        .await
        .map_err(DatabaseError::query("looking for locates without an entry"))?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}
