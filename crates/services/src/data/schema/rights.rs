//! Invariant 7 where it counts, in the running database: the serving role owns no table of the engine and may insert, never update or delete,
//! audit entries, quotes, locates and the availability ledger; and it cannot become somebody who may.

use tokio_postgres::{Client, Error};

use super::Finding;

pub(crate) struct Rights<'a> {
    pub(crate) client: &'a Client,
    /// Where the engine's tables are.
    pub(crate) schema: &'a str,
    pub(crate) tables: &'a [&'a str],
}

/// What only ever grows.
pub(crate) const APPEND_ONLY: [&str; 4] = ["audit_log", "quotes", "locates", "availability_ledger"];

/// $1: the role.
const ROLE: &str = "SELECT r.rolsuper, r.rolcreaterole FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1::text::name";

/// Members of these reach the tables past every right. $1: the role.
const DANGEROUS: &str = "SELECT r.rolname::text FROM pg_catalog.pg_roles AS r \
     WHERE r.rolname <> $1::text::name AND pg_catalog.pg_has_role($1::text::name, r.oid, 'MEMBER') \
       AND (r.rolsuper OR r.rolname IN ('pg_write_all_data', 'pg_write_server_files', 'pg_execute_server_program')) ORDER BY 1";

/// Tables that belong to the role, or to one that it is a member of. $1: the role, $2: the schema, $3: the tables.
const OWNED: &str = "SELECT c.relname::text, pg_catalog.pg_get_userbyid(c.relowner)::text FROM pg_catalog.pg_class AS c \
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE n.nspname = $2::text::name AND c.relname::text = ANY ($3) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
       AND pg_catalog.pg_has_role($1::text::name, c.relowner, 'MEMBER') ORDER BY 1";

/// Rights over what only grows that nobody may have who serves: $3 are those tables.
const GRANTED: &str = "SELECT c.relname::text, p.name FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
     CROSS JOIN (VALUES ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('TRIGGER')) AS p(name) \
     WHERE n.nspname = $2::text::name AND c.relname::text = ANY ($3) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
       AND (pg_catalog.has_table_privilege($1::text::name, c.oid, p.name) \
         OR (p.name = 'UPDATE' AND pg_catalog.has_any_column_privilege($1::text::name, c.oid, p.name))) ORDER BY 1, 2";

impl Rights<'_> {
    /// What this role could do and must not.
    pub(crate) async fn findings(&self, role: &str) -> Result<Vec<Finding>, Error> {
        let finding = |what: String| Finding {
            object: format!("serving role {role}"),
            what,
        };
        let Some(row) = self.client.query_opt(ROLE, &[&role]).await? else {
            return Ok(vec![finding("there is no such role".to_owned())]);
        };
        // Whoever is one may do everything that follows.
        if row.try_get(0)? {
            return Ok(vec![finding(
                "it is a superuser and may change everything".to_owned(),
            )]);
        }
        let mut findings = Vec::new();
        if row.try_get(1)? {
            let what = "it may make roles and give them to itself (CREATEROLE)";
            findings.push(finding(what.to_owned()));
        }
        for row in self.client.query(DANGEROUS, &[&role]).await? {
            let of: String = row.try_get(0)?;
            findings.push(finding(format!("it is a member of {of}")));
        }
        let owned = self
            .client
            .query(OWNED, &[&role, &self.schema, &self.tables])
            .await?;
        let mut owners: Vec<(String, Vec<String>)> = Vec::new();
        for row in owned {
            let (table, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            match owners.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, tables)) => tables.push(table),
                None => owners.push((owner, vec![table])),
            }
        }
        let is_owner = !owners.is_empty();
        findings.extend(owners.into_iter().map(|(owner, tables)| {
            let tables = tables.join(", ");
            finding(match owner == role {
                true => format!("it owns {tables}"),
                false => format!("it is a member of {owner}, which owns {tables}"),
            })
        }));
        if is_owner {
            return Ok(findings);
        }
        let granted = self
            .client
            .query(GRANTED, &[&role, &self.schema, &&APPEND_ONLY[..]])
            .await?;
        for row in granted {
            let (table, right): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            findings.push(finding(format!(
                "it has the right {right} on {table}, which only grows"
            )));
        }
        Ok(findings)
    }
}
