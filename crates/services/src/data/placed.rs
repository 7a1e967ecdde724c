//! Where in a log something was recorded, whoever's it is: for whoever keeps the record, never for a client.

use connection::Landing;

use super::DatabaseError;
use super::database::connect;

/// An entry that an id leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub epoch: u32,
    pub position: u64,
    /// Of a locate: which step, and what the locate is from it on.
    pub step: Option<(u32, String)>,
}

const SQL: &str = "SELECT epoch, position, NULL::integer AS step, NULL::text AS status FROM quotes WHERE log = $1 AND quote_id = $2::text::uuid \
     UNION ALL SELECT epoch, position, sequence, status FROM locates WHERE log = $1 AND locate_id = $2::text::uuid ORDER BY step";

/// The entry of a quote, or every step of a locate, oldest first. Empty: nothing is recorded under this id.
pub async fn places(database: &str, log: u16, id: &str) -> Result<Vec<Place>, DatabaseError> {
    let Ok(id) = uuid::Uuid::parse_str(id) else {
        return Ok(Vec::new());
    };
    let session = connect(database, "bre audit prove", Landing::Any).await?;
    let rows = session
        .client
        .query(SQL, &[&log.cast_signed(), &id.to_string()])
        .await
        .map_err(DatabaseError::query("looking an id up"))?;
    let step = |row: &tokio_postgres::Row| {
        Some((row.get::<_, Option<i32>>(2)?.cast_unsigned(), row.get(3)))
    };
    let place = |row: &tokio_postgres::Row| Place {
        epoch: row.get::<_, i32>(0).cast_unsigned(),
        position: row.get::<_, i64>(1).cast_unsigned(),
        step: step(row),
    };
    Ok(rows.iter().map(place).collect())
}
