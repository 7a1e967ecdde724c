//! What a log is opened in, and the entries that opened its epochs.

use audit::{
    Chain, Entry, EpochOpening, EpochRecord, Fields, Kind, SealedEntry, SigningKey, Stretch,
    VerifyingKey, expand,
};
use tokio_postgres::Client;

use super::batch::{Batch, CommitOutcome, outcome};
use super::open::{LogSession, OpenError};
use super::rows::log_number;
use super::serve::ChangeError;
use crate::data::tables;

/// Whose log it is in.
pub(super) struct Server {
    pub(super) timeline: u32,
    pub(super) system: String,
}

impl Server {
    pub(super) async fn of(client: &Client) -> Result<Server, OpenError> {
        let sql = "SELECT timeline_id, (SELECT system_identifier::text FROM pg_control_system()) FROM pg_control_checkpoint()";
        let row = client.query_one(sql, &[]).await?;
        Ok(Server {
            timeline: u32::try_from(row.get::<_, i32>(0)).unwrap_or(1),
            system: row.get(1),
        })
    }
}

/// The first entry of each epoch, by the primary key alone, where a trusted key signed it.
pub(super) async fn opened_epochs(
    client: &Client,
    log: u16,
    trusted: &[VerifyingKey],
) -> Result<Vec<EpochRecord>, OpenError> {
    let sql = "WITH RECURSIVE first AS (
         (SELECT epoch, position FROM audit_log WHERE log = $1 ORDER BY epoch, position LIMIT 1)
         UNION ALL
         SELECT n.epoch, n.position FROM first AS f CROSS JOIN LATERAL (SELECT a.epoch, a.position FROM audit_log AS a
             WHERE a.log = $1 AND a.epoch > f.epoch ORDER BY a.epoch, a.position LIMIT 1) AS n)
       SELECT a.canonical FROM first AS f JOIN audit_log AS a ON (a.log, a.epoch, a.position) = ($1, f.epoch, f.position)";
    let rows = client.query(sql, &[&log_number(log)]).await?;
    let read = |row: &tokio_postgres::Row| {
        let entry = Entry::parse(&expand(row.get(0))).ok()?;
        EpochRecord::read(&entry, trusted).ok()
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// More stretches are not told one by one.
const STRETCHES_MAX: usize = 500;

/// Stretches of positions that are not in the log, but for those that an opening in it names already.
pub(super) async fn missing_entries(
    client: &Client,
    log: u16,
    trusted: &[VerifyingKey],
) -> Result<Vec<Stretch>, OpenError> {
    let sql = "SELECT before + 1, position - 1 FROM \
                 (SELECT position, coalesce(lag(position) OVER (ORDER BY position, epoch), 0) AS before \
                  FROM audit_log WHERE log = $1) AS places WHERE position > before + 1 ORDER BY 1";
    let openings = opened_epochs(client, log, trusted).await?.into_iter();
    let named: Vec<Stretch> = openings.flat_map(|it| it.missing_entries).collect();
    let rows = client.query(sql, &[&log_number(log)]).await?;
    let stretch = |row: &tokio_postgres::Row| Stretch {
        from: row.get::<_, i64>(0).cast_unsigned(),
        to: row.get::<_, i64>(1).cast_unsigned(),
    };
    let mut missing: Vec<Stretch> = rows.iter().map(stretch).collect();
    missing.retain(|stretch| !named.contains(stretch));
    match missing.len() {
        ..=STRETCHES_MAX => Ok(missing),
        all => Err(OpenError::Refusing(format!(
            "entries are missing in {all} places, which no opening can name: restore the database to before it \
             (bre restore)"
        ))),
    }
}

/// An opening that is written.
pub(super) struct WrittenOpening {
    pub(super) chain: Chain,
    /// Behind it everything in the tables was stated again.
    pub(super) is_stated: bool,
}

/// Writes an opening. `anew`: entries that stated the tables are lost with others, so in the same transaction
/// everything is stated once more.
pub(super) async fn write(
    open: &mut LogSession,
    claimed: u32,
    opening: &EpochOpening<'_>,
    key: &SigningKey,
    anew: bool,
) -> Result<WrittenOpening, OpenError> {
    let mut chain = open.chain.clone();
    let now = crate::domain::time::now_micros();
    let sealed = chain.open_epoch_above(claimed, now, opening, key)?;
    let mut is_stated = false;
    // The guarantee may still be missing in strict mode; the next clean commit, or the first head, brings it.
    let outcome = match anew {
        false => {
            let mut batch = Batch::default();
            batch.push(&sealed);
            batch.commit(open).await
        }
        true => {
            let written = match write_anew(open, &mut chain, &sealed).await {
                Ok((standby, stated)) => {
                    is_stated = stated;
                    Ok(standby)
                }
                Err(ChangeError::Entry(error)) => return Err(error.into()),
                Err(ChangeError::Server(error)) => Err(error),
            };
            outcome(&open.session, written)
        }
    };
    match outcome {
        CommitOutcome::Committed { .. } => Ok(WrittenOpening { chain, is_stated }),
        CommitOutcome::RolledBack(reason) | CommitOutcome::Lost(reason) => {
            Err(OpenError::Away(reason))
        }
    }
}

/// Whether a standby was waited for, and whether everything was stated.
async fn write_anew(
    open: &mut LogSession,
    chain: &mut Chain,
    opening: &SealedEntry,
) -> Result<(bool, bool), ChangeError> {
    let transaction = open.session.client.transaction().await?;
    let mut statement = tables::Statement::default();
    let is_stated = statement.begin_again(&transaction).await?;
    let mut batch = Batch::default();
    batch.push(opening);
    if is_stated {
        let of = (chain.position() + 1).to_string();
        let own = |fields: Fields, name| fields.with("actor", "engine").with("name", name);
        let reason = opening.entry.fields.get("reason").unwrap_or_default();
        let first = own(Fields::new(), "tables").with("reason", reason.to_owned());
        let (first, following) = statement.complete(first);
        let following = following
            .into_iter()
            .map(|fields| own(fields, "rows").with("of", of.clone()));
        for fields in std::iter::once(first).chain(following) {
            let now = crate::domain::time::now_micros();
            batch.push(&chain.append(Kind::ConfigurationChanged, now, fields)?);
        }
    }
    let standby = batch
        .insert(&transaction, &open.statement, &open.session.word)
        .await?;
    transaction.commit().await?;
    Ok((standby, is_stated))
}
