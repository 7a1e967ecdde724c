//! Where in a log something was recorded, whoever's it is: for whoever keeps the record, never for a client.

use super::DatabaseError;
use super::verifying::Verifying;

/// An entry that an id leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRef {
    pub epoch: u32,
    pub position: u64,
    /// Of a locate: which step, and what the locate is from it on.
    pub step: Option<(u32, String)>,
}

fn sql(session: &Verifying) -> String {
    format!(
        "SELECT epoch, position, NULL::integer AS step, NULL::text AS status FROM {} WHERE log = $1 AND quote_id = $2::text::uuid \
         UNION ALL SELECT epoch, position, sequence, status FROM {} WHERE log = $1 AND locate_id = $2::text::uuid ORDER BY step",
        session.table("quotes"),
        session.table("locates")
    )
}

/// The entry of a quote, or every step of a locate, oldest first. Empty: nothing is recorded under this id.
pub async fn places(database: &str, log: u16, id: &str) -> Result<Vec<EntryRef>, DatabaseError> {
    let Ok(id) = uuid::Uuid::parse_str(id) else {
        return Ok(Vec::new());
    };
    let failed = DatabaseError::query("looking an id up");
    let session = Verifying::begin(database).await?;
    let rows = session
        .client()
        .query(&sql(&session), &[&log.cast_signed(), &id.to_string()])
        .await
        .map_err(&failed)?;
    let place = |row: &tokio_postgres::Row| {
        let (epoch, position): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let step = match row.try_get::<_, Option<i32>>(2)? {
            Some(step) => Some((step.cast_unsigned(), row.try_get(3)?)),
            None => None,
        };
        Ok(EntryRef {
            epoch: epoch.cast_unsigned(),
            position: position.cast_unsigned(),
            step,
        })
    };
    let places: Result<Vec<EntryRef>, tokio_postgres::Error> = rows.iter().map(place).collect();
    places.map_err(&failed)
}
