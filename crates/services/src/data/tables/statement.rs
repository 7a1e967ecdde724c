//! What a change says of the rows it made, as they were stored, in the entry that it is recorded by. In the transaction of that entry:
//! what is read back there is what stands in the tables afterwards.

use audit::{Fields, RowLeaves};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batches::{BeforeTree, each_batch};
use super::covered::{BATCHED, CoveredTable, FEED_BATCHES, STATED, batched, stated};
use super::prints::Prints;
use super::row::{RowReader, to_json};

/// Of rows in one entry. An entry may have 1 MiB.
const ROW_BYTES_MAX: usize = 256 << 10;
const ENTRY_BYTES_MAX: usize = 900 << 10;
/// The mark of the entry that states everything.
const BASELINE: &str = "baseline";

/// Fields that only the writer may set: what they say is compared with the tables.
pub(crate) fn is_own_field(name: &str) -> bool {
    let own = ["rows.", "prints.", "before."];
    name == BASELINE || own.iter().any(|own| name.starts_with(own))
}

#[derive(Debug, Default)]
pub(crate) struct Statement {
    /// Rows by their place in [`STATED`], as JSON.
    rows: Vec<(usize, String)>,
    /// By their place in [`BATCHED`].
    leaves: [RowLeaves; BATCHED.len()],
    prints: [Prints; BATCHED.len()],
    /// Whether everything is stated, and what of deliveries from before.
    baseline: Option<Vec<(usize, String)>>,
}

impl Statement {
    /// Runs an INSERT or UPDATE of that table and keeps the rows that it left there.
    pub(crate) async fn run(
        &mut self,
        transaction: &Transaction<'_>,
        table: &'static CoveredTable,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), tokio_postgres::Error> {
        let sql = format!(
            "WITH changed AS ({sql} RETURNING *) SELECT {} FROM changed AS c",
            table.select("c")
        );
        self.read(transaction, table, &sql, parameters).await
    }

    async fn read(
        &mut self,
        transaction: &Transaction<'_>,
        table: &'static CoveredTable,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), tokio_postgres::Error> {
        let rows = transaction
            .query_raw(sql, parameters.iter().copied())
            .await?;
        pin_mut!(rows);
        let mut reader = RowReader::of(table);
        let (stated, batched) = (stated(table.name), batched(table.name));
        while let Some(row) = rows.try_next().await? {
            if let Some(index) = stated {
                let values = reader.values(&row)?;
                self.rows.push((index, to_json(table, &values)));
            }
            if let Some(index) = batched {
                let (name, hash) = (reader.name(&row)?, reader.hash(&row)?);
                self.leaves[index].push(hash);
                self.prints[index].push(name, hash);
            }
        }
        Ok(())
    }

    /// Whether entries of this database say what is in its tables. The first that does states all of them, once: what an older engine, or a
    /// migration, has put there. While the table that keeps this in mind is not there yet, none does.
    pub(crate) async fn begin_coverage(
        &mut self,
        transaction: &Transaction<'_>,
        batch: Option<Uuid>,
    ) -> Result<bool, tokio_postgres::Error> {
        let there = transaction
            .query_one("SELECT to_regclass('baseline_due') IS NOT NULL", &[])
            .await?;
        if !there.get::<_, bool>(0) {
            *self = Statement::default();
            return Ok(false);
        }
        // Of two writers that come together, one waits here, and finds nothing left to do.
        if transaction.execute("DELETE FROM baseline_due", &[]).await? > 0 {
            self.state_everything(transaction, batch).await?;
        }
        Ok(true)
    }

    /// States everything although it was stated before: the entries that did are lost, and an opening says so in the
    /// same transaction. False where nothing is to be stated: the tables are older than that, or the first change will
    /// do it.
    pub(crate) async fn begin_again(
        &mut self,
        transaction: &Transaction<'_>,
    ) -> Result<bool, tokio_postgres::Error> {
        let sql = "SELECT to_regclass('baseline_due') IS NOT NULL";
        if !transaction.query_one(sql, &[]).await?.get::<_, bool>(0) {
            return Ok(false);
        }
        let sql = "SELECT EXISTS (SELECT FROM baseline_due)";
        if transaction.query_one(sql, &[]).await?.get(0) {
            return Ok(false);
        }
        self.state_everything(transaction, None).await?;
        Ok(true)
    }

    /// `batch`: the delivery that this same change brings, of which the entry has a digest already.
    async fn state_everything(
        &mut self,
        transaction: &Transaction<'_>,
        batch: Option<Uuid>,
    ) -> Result<(), tokio_postgres::Error> {
        self.rows.clear();
        for table in STATED {
            let sql = format!("SELECT {} FROM {} AS t", table.select("t"), table.name);
            self.read(transaction, table, &sql, &[]).await?;
        }
        let mut before = Vec::new();
        for (index, table) in BATCHED.into_iter().enumerate() {
            let mut tree = BeforeTree::default();
            each_batch(transaction, table, batch, |_, digest| tree.push(digest)).await?;
            before.push((index, tree.finish().to_string()));
        }
        self.baseline = Some(before);
        Ok(())
    }

    /// The fields of the change's own entry, and of those that follow it because one entry cannot hold all the rows.
    pub(crate) fn complete(mut self, mut fields: Fields) -> (Fields, Vec<Fields>) {
        let digested = self.leaves.iter_mut().zip(&mut self.prints);
        for (table, (leaves, prints)) in BATCHED.into_iter().zip(digested) {
            if leaves.is_empty() {
                continue;
            }
            fields.set(table.field(), leaves.digest().to_string());
            // A delivery itself is one row, of which the entry says nearly all.
            if !std::ptr::eq(table, &FEED_BATCHES) {
                fields.set(table.field_prints(), prints.runs());
                if let Some(places) = prints.places() {
                    fields.set(table.field_places(), places);
                }
            }
        }
        if let Some(before) = self.baseline {
            fields.set(BASELINE, "all");
            for (index, digest) in before {
                fields.set(BATCHED[index].field_before(), digest);
            }
        }
        let bytes: usize = fields.iter().map(|(n, v)| 6 + n.len() + v.len()).sum();
        let mut room = ROW_BYTES_MAX.min(ENTRY_BYTES_MAX.saturating_sub(bytes));
        let mut own = Some(&mut fields);
        let mut following: Vec<Fields> = Vec::new();
        // Rows of a table stand together, and a table's end in one entry may be its beginning in the next.
        self.rows.sort_by_key(|(index, _)| *index);
        let mut rows = self.rows.into_iter().peekable();
        while rows.peek().is_some() {
            let mut part: Vec<(usize, String)> = Vec::new();
            let mut taken = 0;
            while let Some((index, json)) =
                rows.next_if(|(_, json)| taken == 0 && own.is_none() || taken + json.len() < room)
            {
                taken += json.len() + 1;
                match part.last_mut() {
                    Some((last, array)) if *last == index => {
                        array.push(',');
                        array.push_str(&json);
                    }
                    _ => part.push((index, json)),
                }
            }
            let stated = part
                .into_iter()
                .map(|(index, array)| (STATED[index].field(), format!("[{array}]")));
            match own.take() {
                Some(fields) => {
                    for (name, value) in stated {
                        fields.set(name, value);
                    }
                }
                None => following.push(stated.collect()),
            }
            room = ROW_BYTES_MAX;
        }
        (fields, following)
    }
}

#[cfg(test)]
mod tests {
    use super::super::covered::{ALIASES, STOCKS};
    use super::*;

    #[test]
    fn rows_that_one_entry_cannot_hold_follow_in_others() {
        let check = |rows: usize, own_bytes: usize, expected: &[usize]| {
            let mut statement = Statement::default();
            for number in 0..rows {
                let index = if number % 2 == 0 { 4 } else { 6 };
                statement
                    .rows
                    .push((index, format!("{{\"ticker\":\"{number:01000}\"}}")));
            }
            let fields = Fields::new().with("after", "x".repeat(own_bytes));
            let (first, following) = statement.complete(fields);
            let count = |fields: &Fields| -> usize {
                [&STOCKS, &ALIASES]
                    .iter()
                    .filter_map(|table| fields.get(&table.field()))
                    .map(|json| {
                        let all: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
                        all.len()
                    })
                    .sum()
            };
            let counts: Vec<usize> = std::iter::once(&first)
                .chain(&following)
                .map(count)
                .collect();
            assert_eq!(counts, expected, "{rows} {own_bytes}");
            let bytes = |fields: &Fields| fields.iter().map(|(_, v)| v.len()).sum::<usize>();
            assert!(following.iter().all(|fields| bytes(fields) < 300 << 10));
            assert!(bytes(&first) < 1 << 20);
        };
        check(0, 10, &[0]);
        check(3, 10, &[3]);
        check(600, 10, &[258, 258, 84]);
        // An entry that is nearly full by itself.
        check(3, 950 << 10, &[0, 3]);
    }

    #[test]
    fn nobody_else_may_state_rows() {
        assert!(
            ["rows.api_keys", "prints.events", "before.events", BASELINE]
                .into_iter()
                .all(is_own_field)
        );
        assert!(!is_own_field("rows") && !is_own_field("before") && !is_own_field("name"));
    }
}
