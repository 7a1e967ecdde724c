//! The databases of a cluster, and which of them cannot be entered.

use super::sql::{Client, quote_identifier};
use crate::wire::WireError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Open,
    /// `datallowconn` is false.
    Closed,
    /// A DROP DATABASE ended half way (`datconnlimit` is -2): only dropping it again helps.
    HalfDropped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDatabase {
    pub name: String,
    pub access: Access,
    /// New databases are made of it.
    pub template: bool,
}

/// In the order of their names.
pub fn databases(client: &mut Client) -> Result<Vec<ListedDatabase>, WireError> {
    let rows = client.query(
        "SELECT datname, datallowconn, datconnlimit, datistemplate FROM pg_catalog.pg_database ORDER BY datname COLLATE pg_catalog.\"C\"",
    )?;
    let listed = |row: Vec<Option<String>>| {
        let field = |at: usize| row.get(at).and_then(Option::as_deref);
        Some(ListedDatabase {
            name: field(0)?.to_owned(),
            access: match (field(1), field(2)) {
                (_, Some("-2")) => Access::HalfDropped,
                (Some("t"), _) => Access::Open,
                _ => Access::Closed,
            },
            template: field(3) == Some("t"),
        })
    };
    Ok(rows.rows.into_iter().filter_map(listed).collect())
}

impl ListedDatabase {
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.access == Access::Open
    }

    /// Nothing in it can have changed since `initdb`: it takes no connections, and nobody is meant to change that.
    #[must_use]
    pub fn is_pristine_template(&self) -> bool {
        self.name == "template0" && self.template && self.access == Access::Closed
    }

    /// Why nobody can look into it, with the statement that mends it.
    #[must_use]
    pub fn why_closed(&self) -> Option<String> {
        let name = quote_identifier(&self.name);
        match self.access {
            Access::Open => None,
            Access::Closed => Some(format!(
                "it takes no connections; to have it looked at too: ALTER DATABASE {name} ALLOW_CONNECTIONS true"
            )),
            Access::HalfDropped => Some(format!(
                "its DROP DATABASE ended half way, and it takes no connections any more: DROP DATABASE {name}"
            )),
        }
    }
}
