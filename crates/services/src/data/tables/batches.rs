//! Rows by the delivery they came with: streamed, so that memory holds one delivery's leaves and no more.

use std::fmt;
use std::str::FromStr;

use audit::{Frontier, Hash, RowDigest, RowLeaves};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::covered::CoveredTable;
use super::row::RowReader;

/// Hands out the digest of each delivery's rows in this table, in the ascending order of their ids.
pub(super) async fn each_batch(
    client: &impl GenericClient,
    table: &'static CoveredTable,
    without: Option<Uuid>,
    mut take: impl FnMut(Uuid, RowDigest),
) -> Result<(), tokio_postgres::Error> {
    let without = without.map(|batch| batch.to_string());
    let sql = format!(
        "SELECT {} FROM {} AS t WHERE $1::text IS NULL OR t.batch_id <> $1::text::uuid ORDER BY t.batch_id",
        table.select("t"),
        table.name
    );
    let parameters = [&without as &(dyn ToSql + Sync)];
    let rows = client.query_raw(&sql, parameters).await?;
    pin_mut!(rows);
    let mut reader = RowReader::of(table);
    let mut leaves = RowLeaves::default();
    let mut current: Option<(String, Uuid)> = None;
    while let Some(row) = rows.try_next().await? {
        let batch: &str = row.try_get::<_, Option<&str>>(0)?.unwrap_or_default();
        if current.as_ref().is_none_or(|(text, _)| text != batch) {
            if let Some((_, id)) = current.take() {
                take(id, leaves.digest());
                leaves.clear();
            }
            // One that is no id at all is nobody's.
            let id = Uuid::parse_str(batch).unwrap_or_default();
            current = Some((batch.to_owned(), id));
        }
        leaves.push(reader.hash(&row)?);
    }
    if let Some((_, id)) = current {
        take(id, leaves.digest());
    }
    Ok(())
}

/// All deliveries of a table together: how many, their rows, and the root of the tree over their roots. Printed as `BATCHES ROWS ROOT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreviousBatches {
    pub(super) batches: u64,
    pub(super) rows: u64,
    pub(super) root: Hash,
}

impl fmt::Display for PreviousBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.batches, self.rows, self.root)
    }
}

impl FromStr for PreviousBatches {
    type Err = ();

    fn from_str(text: &str) -> Result<PreviousBatches, ()> {
        let (batches, rest) = text.split_once(' ').ok_or(())?;
        let digest: RowDigest = rest.parse().map_err(|_| ())?;
        Ok(PreviousBatches {
            batches: batches.parse().map_err(|_| ())?,
            rows: digest.rows,
            root: digest.root,
        })
    }
}

/// Grows a [`PreviousBatches`], delivery by delivery.
#[derive(Debug, Default)]
pub(super) struct BeforeTree {
    tree: Frontier,
    rows: u64,
}

impl BeforeTree {
    pub(super) fn push(&mut self, digest: RowDigest) {
        self.tree.push(digest.root);
        self.rows += digest.rows;
    }

    pub(super) fn finish(&self) -> PreviousBatches {
        PreviousBatches {
            batches: self.tree.size(),
            rows: self.rows,
            root: self.tree.root(),
        }
    }
}
