//! The schema, embedded and applied by the role that owns it.

use connection::Landing;

use super::database::{DatabaseError, connect};

refinery::embed_migrations!("migrations");

pub(crate) async fn migrate(owner: &str) -> Result<(), DatabaseError> {
    let mut session = connect(owner, "bre migrations", Landing::ReadWrite).await?;
    let applied = migrations::runner()
        .run_async(&mut session.client)
        .await
        .map_err(|error| DatabaseError::Migration(format!("{error}; {}", sources(&error))))?;
    for migration in applied.applied_migrations() {
        tracing::info!(migration = %migration, "schema migrated");
    }
    Ok(())
}

fn sources(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(inner) = source {
        text = match inner.downcast_ref::<tokio_postgres::Error>() {
            Some(postgres) => super::database::describe(postgres),
            None => inner.to_string(),
        };
        source = inner.source();
    }
    text
}
