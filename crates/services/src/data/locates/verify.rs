//! The columns of `locates` and `availability_ledger` against the entries they repeat, in both directions, and the ledger against
//! itself.

use audit::{Entry, Kind};
use tokio_postgres::Row;

use super::record::{LEDGER_COLUMNS, LOCATE_COLUMNS, Locate};
use crate::data::cell::Cell;
use crate::data::quotes::Column;
use crate::data::row::Value;
use crate::data::verifying::Verifying;

pub(crate) fn joins(session: &Verifying) -> String {
    format!(
        " LEFT JOIN {} AS l USING (log, epoch, position) LEFT JOIN {} AS s USING (log, epoch, position)",
        session.table(LOCATES.name),
        session.table(LEDGER.name)
    )
}

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
        let mut sql = format!(", {alias}.position IS NOT NULL, {alias}.recorded_at");
        for column in self.columns {
            sql.push_str(&format!(", {alias}.{}", column.name));
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
        let has_row: bool = row.try_get(at).map_err(|error| error.to_string())?;
        let expected = match (expected, has_row) {
            (None, false) => return Ok(()),
            (Some(expected), true) => expected,
            (Some(_), false) => return Err(format!("its row in {name} is missing")),
            (None, true) => {
                return Err(format!(
                    "{name} has a row for it, but it says nothing of one"
                ));
            }
        };
        let same = |column: &str, index: usize, expected: &Value<'_>| {
            Cell::of(row, index)?.compare(&format_args!("{name}.{column}"), expected)
        };
        let recorded_at = Value::Time(entry.recorded_at_micros);
        same("recorded_at", at + 1, &recorded_at)?;
        for (index, (column, value)) in self.columns.iter().zip(expected).enumerate() {
            same(column.name, at + 2 + index, value)?;
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
pub(crate) async fn stray(
    session: &Verifying,
) -> Result<Option<(i64, i64, String)>, tokio_postgres::Error> {
    let log = session.table("audit_log");
    for name in [LOCATES.name, LEDGER.name] {
        let table = session.table(name);
        let sql = format!(
            "SELECT t.epoch::bigint, t.position, t.locate_id::text FROM {table} AS t \
             WHERE NOT EXISTS (SELECT FROM {log} AS a WHERE (a.log, a.epoch, a.position) = (t.log, t.epoch, t.position)) \
             ORDER BY t.position, t.epoch LIMIT 1"
        );
        if let Some((epoch, position, id)) = first(session, &sql).await? {
            let reason = format!(
                "locate {id} stands in {name} for this place, but the log has no such entry"
            );
            return Ok(Some((epoch, position, reason)));
        }
    }
    let found = first(session, &unbalanced(session)).await?;
    if let Some((epoch, position, what)) = found {
        let reason = format!("availability_ledger does not add up: {what}");
        return Ok(Some((epoch, position, reason)));
    }
    if let Some((epoch, position, what)) = first(session, &misused(session)).await? {
        let reason = format!("the uses of a locate do not add up: {what}");
        return Ok(Some((epoch, position, reason)));
    }
    Ok(None)
}

/// Steps without gaps, each continuing the one before, never granting more than there was; and what is outstanding in the end is
/// what the locates of that ticker and date hold.
fn unbalanced(session: &Verifying) -> String {
    let (ledger, locates) = (session.table(LEDGER.name), session.table(LOCATES.name));
    format!(
        "\
SELECT epoch::bigint, position, ticker || ' on ' || trade_date || ', step ' || sequence FROM ( \
    SELECT *, lag(outstanding, 1, 0::bigint) OVER steps AS before, row_number() OVER steps AS number, \
           lead(sequence) OVER steps IS NULL AS last FROM {ledger} \
    WINDOW steps AS (PARTITION BY ticker, trade_date ORDER BY sequence)) AS l \
WHERE sequence <> number OR outstanding <> before + change OR outstanding < 0 OR (change > 0 AND outstanding > available) \
   OR (last AND outstanding <> (SELECT coalesce(sum(h.granted - h.returned), 0) FROM {locates} AS h \
        WHERE h.ticker = l.ticker AND h.trade_date = l.trade_date AND h.status = 'filled' AND h.order_id IS NULL \
          AND NOT EXISTS (SELECT FROM {locates} AS n WHERE n.locate_id = h.locate_id AND n.sequence > h.sequence AND n.order_id IS NULL))) \
ORDER BY position LIMIT 1"
    )
}

/// Steps without gaps, each continuing the one before; never more in orders' hands than is held; what is used is what orders sold, less
/// what they bought back where that counts.
fn misused(session: &Verifying) -> String {
    let locates = session.table(LOCATES.name);
    format!(
        "\
SELECT epoch::bigint, position, locate_id || ', step ' || sequence FROM ( \
    SELECT *, lag(reserved, 1, 0::bigint) OVER steps AS reserved_before, lag(used, 1, 0::bigint) OVER steps AS used_before, \
           row_number() OVER steps AS number, \
           coalesce(max(order_shares) FILTER (WHERE order_state = 'reserved') OVER (PARTITION BY locate_id, order_id ORDER BY sequence), 0) AS held_by_order \
    FROM {locates} WINDOW steps AS (PARTITION BY locate_id ORDER BY sequence)) AS l \
WHERE sequence <> number OR reserved < 0 OR used < 0 OR reserved + used > granted - returned \
   OR used <> used_before + CASE WHEN order_id IS NULL OR order_state <> 'used' THEN 0 WHEN order_side = 'sell_short' THEN order_shares \
                                 WHEN kind = 'single_use' THEN 0 ELSE -order_shares END \
   OR reserved <> reserved_before + CASE WHEN order_id IS NULL THEN 0 WHEN order_state = 'reserved' THEN order_shares ELSE -held_by_order END \
ORDER BY position LIMIT 1"
    )
}

async fn first(
    session: &Verifying,
    sql: &str,
) -> Result<Option<(i64, i64, String)>, tokio_postgres::Error> {
    let row = session.client().query_opt(sql, &[]).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .transpose()
}
