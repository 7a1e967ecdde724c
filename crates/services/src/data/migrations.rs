//! The schema, embedded and applied by the role that owns it.

use connection::Landing;

use super::database::{DatabaseError, connect};
use super::schema::Finding;

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

/// For tests: only up to a version.
#[cfg(test)]
pub(crate) async fn migrate_to(owner: &str, version: i64) {
    let mut session = connect(owner, "bre migrations", Landing::ReadWrite)
        .await
        .unwrap();
    let target = refinery::Target::Version(version.try_into().unwrap());
    let runner = migrations::runner().set_target(target);
    runner.run_async(&mut session.client).await.unwrap();
}

/// A migration that this program has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnMigration {
    pub(crate) version: i64,
    name: String,
    checksum: String,
}

/// One that a database says it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppliedMigration {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) checksum: String,
}

/// In order.
pub(crate) fn known() -> Vec<OwnMigration> {
    let runner = migrations::runner();
    let known = runner.get_migrations().iter();
    let mut known: Vec<OwnMigration> = known
        .map(|migration| OwnMigration {
            version: migration.version().into(),
            name: migration.name().to_owned(),
            checksum: migration.checksum().to_string(),
        })
        .collect();
    known.sort_by_key(|migration| migration.version);
    known
}

/// What the database's list says that this program cannot confirm. Of later versions than the newest known nothing can be said.
pub(crate) fn compared(known: &[OwnMigration], applied: &[AppliedMigration]) -> Vec<Finding> {
    let newest = applied.iter().map(|row| row.version).max().unwrap_or(0);
    let mut findings = Vec::new();
    let mut finding = |version: i64, what: &str| {
        findings.push(Finding {
            object: format!("migration {version}"),
            what: what.to_owned(),
        });
    };
    for migration in known.iter().filter(|known| known.version <= newest) {
        match applied.iter().find(|row| row.version == migration.version) {
            None => finding(
                migration.version,
                "the database does not say that it was applied, but later ones are",
            ),
            Some(row) if row.name != migration.name || row.checksum != migration.checksum => {
                finding(
                    migration.version,
                    "the database names another one than this program's",
                );
            }
            Some(_) => {}
        }
    }
    let last = known.last().map_or(0, |migration| migration.version);
    let unknown = |row: &&AppliedMigration| {
        row.version <= last && !known.iter().any(|known| known.version == row.version)
    };
    for row in applied.iter().filter(unknown) {
        finding(row.version, "this program has none of this number");
    }
    findings
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
