//! Repairs damaged pages of a running cluster, one by one. docs/decisions/0052-page-repair.md says why each step is
//! right.
//!
//! [`remedy`] says what repairs a page. If that is the page itself: [`TableLocks::lock`] locks the relations,
//! [`TableLocks::settle`] makes the server write what it still holds of them and names an LSN after which nothing
//! changed them; a restore to that LSN has the right page; [`TableLocks::put`] writes it; [`TableLocks::release`]
//! unlocks.
//!
//! Absent: to find damaged pages (`backup::database::verify_live`), the restore, the question to the operator.

mod table_locks;

pub use table_locks::{PageOutcome, TableLocks};

use postgres_physical::page::Fork;
use postgres_physical::wire::{WireError, quote_shell};

/// The first oid that is not PostgreSQL's own.
const FIRST_USER_OID: u32 = 16_384;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedPage {
    /// Below the data folder, the same in a restored one.
    pub path: String,
    pub fork: Fork,
    pub block: u32,
    pub database: Option<String>,
    /// For SQL.
    pub relation: Option<String>,
    pub oid: u32,
    /// `relkind`
    pub kind: String,
    /// Whose lock keeps everybody from it.
    pub table: Option<String>,
    /// Why nobody knows which relation of its database it is.
    pub unknown_because: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// From the repository.
    Page,
    /// The fork only says where to look: empty is always right, and VACUUM fills it again.
    Empty,
    /// It is derived from something else, by this statement.
    Statement(String),
    /// Not here; what to do instead.
    Elsewhere(String),
}

#[must_use]
pub fn remedy(page: &DamagedPage) -> Remedy {
    let whole = "restore the whole database: bre restore database --to DIR, or bre restore database --delta over the \
                 stopped folder";
    if let (Some(database), Some(why)) = (&page.database, &page.unknown_because) {
        return Remedy::Elsewhere(format!(
            "it belongs to a relation of the database {database:?}, and which one cannot be asked: {why}; then look \
             again"
        ));
    }
    let (Some(relation), Some(table)) = (&page.relation, &page.table) else {
        return match page.kind.as_str() {
            "S" => Remedy::Elsewhere(format!(
                "it is a sequence: set it on by hand, ALTER SEQUENCE {} RESTART WITH …",
                page.relation.as_deref().unwrap_or("…")
            )),
            "t" => Remedy::Elsewhere(
                "it is the TOAST of a materialised view: REFRESH MATERIALIZED VIEW".to_owned(),
            ),
            _ => Remedy::Elsewhere(format!(
                "the server knows no relation of this file: when it is left over, nothing reads it; otherwise {whole}"
            )),
        };
    };
    match (page.kind.as_str(), page.fork) {
        ("i", _) => Remedy::Statement(format!("REINDEX INDEX {relation}")),
        ("m", _) => Remedy::Statement(format!("REFRESH MATERIALIZED VIEW {relation}")),
        ("r" | "t", _) if page.oid < FIRST_USER_OID => Remedy::Elsewhere(format!(
            "it is a part of the system catalogue {table}: {whole}"
        )),
        ("r" | "t", Fork::FreeSpace | Fork::Visibility) => Remedy::Empty,
        ("r" | "t", Fork::Main) => Remedy::Page,
        _ => Remedy::Elsewhere(whole.to_owned()),
    }
}

impl DamagedPage {
    /// `desk: public.orders, block 7`
    #[must_use]
    pub fn place(&self) -> String {
        let relation = self.relation.as_deref().unwrap_or(&self.path);
        let fork = match self.fork {
            Fork::Main => "",
            Fork::FreeSpace => " (free space map)",
            Fork::Visibility => " (visibility map)",
            Fork::Init => " (init fork)",
        };
        let database = self.database.as_deref().unwrap_or("no database");
        format!("{database}: {relation}{fork}, block {}", self.block)
    }

    /// What to do when the page itself cannot be restored.
    #[must_use]
    pub fn by_table(&self) -> String {
        match (&self.table, &self.database) {
            (Some(table), Some(database)) => format!(
                "bring its rows back: bre restore table --database={} --table={} --time … (a moment before the \
                 damage), after moving the damaged table aside",
                quote_shell(database),
                quote_shell(table)
            ),
            _ => "bring the whole database back: bre restore database --to DIR".to_owned(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error(
        "{table} in {database} could not be locked within 30 s; nothing was changed. End the transactions that use \
         it, then give the command again ({error})"
    )]
    Locked {
        table: String,
        database: String,
        error: WireError,
    },
    #[error(
        "{place} was rewritten meanwhile and is elsewhere now. Nothing was changed; look again: bre verify \
         cluster"
    )]
    Moved { place: String },
    #[error(
        "the lock on {database} was lost ({error}); nothing more is written. Look again: bre verify cluster"
    )]
    LockLost { database: String, error: WireError },
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Wire(#[from] WireError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies() {
        let check = |kind: &str, oid: u32, fork: Fork, expected: &str| {
            let named = |known: bool| known.then(|| "public.t".to_owned());
            let page = DamagedPage {
                path: "base/5/16400".to_owned(),
                fork,
                block: 3,
                database: Some("desk".to_owned()),
                relation: named(!kind.is_empty()),
                oid,
                kind: kind.to_owned(),
                table: named(!kind.is_empty() && kind != "S"),
                unknown_because: None,
            };
            let found = format!("{:?}", remedy(&page));
            assert!(found.contains(expected), "{kind} {fork:?}: {found}");
        };
        check("r", 20_000, Fork::Main, "Page");
        check("t", 20_000, Fork::Main, "Page");
        check("r", 20_000, Fork::FreeSpace, "Empty");
        check("t", 20_000, Fork::Visibility, "Empty");
        check("i", 20_000, Fork::Main, "REINDEX INDEX public.t");
        check("i", 2_662, Fork::Main, "REINDEX INDEX public.t");
        check("m", 20_000, Fork::Main, "REFRESH");
        check("m", 20_000, Fork::Visibility, "REFRESH");
        check("S", 20_000, Fork::Main, "ALTER SEQUENCE");
        check("r", 1_259, Fork::Main, "system catalogue");
        check("r", 1_259, Fork::Visibility, "system catalogue");
        check("", 0, Fork::Main, "knows no relation");
    }
}
