//! The log's rows as the database holds them, walked along and verified.

use audit::{Chain, ChainError, Head, StoredEntry, Verifier, VerifyingKey, expand};
use futures_util::{StreamExt, TryStreamExt, pin_mut};
use tokio_postgres::{Client, Row};

use super::open::{OpenError, TABLE, damaged};
use crate::domain::moment::Period;
use crate::domain::time::system_time;

/// The outer error: the database; the inner: the log.
pub(super) async fn follow_from(
    client: &Client,
    log: u16,
    head: Option<&Head>,
    keys: &[VerifyingKey],
) -> Result<Result<Chain, ChainError>, OpenError> {
    let from = head.map_or(1, |head| head.size);
    let rows = entries_from(client, TABLE, log, from).await?;
    pin_mut!(rows);
    let first = match head {
        Some(_) => rows.try_next().await?,
        None => None,
    };
    let mut chain = match Chain::resume(log, head, first, keys) {
        Ok(chain) => chain,
        Err(error) => return Ok(Err(error)),
    };
    while let Some(stored) = rows.try_next().await? {
        if let Err(error) = chain.follow(&stored, keys) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(chain))
}

pub(super) async fn verify_whole(
    client: &Client,
    log: u16,
    heads: &[Head],
    keys: &[VerifyingKey],
) -> Result<Chain, OpenError> {
    let chain = judge_whole(client, log, heads, keys).await?;
    let treeless = "no head was signed since entries went missing, so its tree cannot continue";
    chain.ok_or_else(|| OpenError::Refusing(damaged(treeless)))
}

/// Refuses what does not verify. No chain where it is sound as far as it is there, and its tree is not known.
pub(super) async fn judge_whole(
    client: &Client,
    log: u16,
    heads: &[Head],
    keys: &[VerifyingKey],
) -> Result<Option<Chain>, OpenError> {
    let mut verifier = Verifier::new(log, heads, keys);
    let rows = entries_from(client, TABLE, log, 1).await?;
    pin_mut!(rows);
    while let Some(stored) = rows.try_next().await? {
        verifier.push(&stored);
    }
    let chain = verifier.chain();
    match verifier.finish().reason {
        None => Ok(chain),
        Some(reason) => Err(OpenError::Refusing(format!(
            "{reason}. Without a recorded recovery this is tampering or a restore by hand"
        ))),
    }
}

pub(super) async fn end_of(client: &Client, log: u16) -> Result<u64, OpenError> {
    let row = client
        .query_one(
            "SELECT coalesce(max(position), 0) FROM audit_log WHERE log = $1",
            &[&log_number(log)],
        )
        .await?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

pub(super) async fn entry_at(
    client: &Client,
    log: u16,
    position: u64,
) -> Result<Option<StoredEntry>, OpenError> {
    let sql = "SELECT epoch::bigint, position, canonical, hash FROM audit_log WHERE log = $1 AND position = $2 \
               ORDER BY epoch LIMIT 1";
    Ok(client
        .query_opt(sql, &[&log_number(log), &stored_position(position)])
        .await?
        .map(|row| stored(&row))
        .transpose()?)
}

/// The log's rows from a position on, in order.
pub(crate) async fn entries_from(
    client: &Client,
    table: &str,
    log: u16,
    position: u64,
) -> Result<
    impl futures_util::Stream<Item = Result<StoredEntry, tokio_postgres::Error>> + use<>,
    tokio_postgres::Error,
> {
    let sql = format!(
        "SELECT epoch::bigint, position, canonical, hash FROM {table} WHERE log = $1 AND position >= $2 \
         ORDER BY position, epoch"
    );
    let rows = client
        .query_raw(
            &sql,
            [
                &log_number(log) as &(dyn tokio_postgres::types::ToSql + Sync),
                &stored_position(position),
            ],
        )
        .await?;
    Ok(rows.map(|row| row.and_then(|row| stored(&row))))
}

/// Entries recorded in a period, in the order of positions.
pub(crate) async fn entries_of(
    client: &Client,
    table: &str,
    log: u16,
    period: Period,
) -> Result<
    impl futures_util::Stream<Item = Result<StoredEntry, tokio_postgres::Error>> + use<>,
    tokio_postgres::Error,
> {
    let sql = format!(
        "SELECT epoch::bigint, position, canonical, hash FROM {table} WHERE log = $1 \
         AND recorded_at >= coalesce($2::timestamptz, '-infinity') \
         AND recorded_at <= coalesce($3::timestamptz, 'infinity') \
         ORDER BY position, epoch"
    );
    let rows = client
        .query_raw(
            &sql,
            [
                &log_number(log) as &(dyn tokio_postgres::types::ToSql + Sync),
                &period.from_micros.map(system_time),
                &period.to_micros.map(system_time),
            ],
        )
        .await?;
    Ok(rows.map(|row| row.and_then(|row| stored(&row))))
}

/// A column of another type is an error that names it.
fn stored(row: &Row) -> Result<StoredEntry, tokio_postgres::Error> {
    Ok(StoredEntry {
        epoch: row.try_get(0)?,
        position: row.try_get(1)?,
        bytes: expand(row.try_get(2)?).into_owned(),
        hash: row.try_get(3)?,
    })
}

/// smallint is signed; a log's number is not. Both are the same 16 bits.
pub(crate) fn log_number(log: u16) -> i16 {
    log.cast_signed()
}

fn stored_position(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
