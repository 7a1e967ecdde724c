//! What PostgreSQL's own catalogs say of the engine's tables. Every query runs in a session that finds nothing but `pg_catalog`.

use tokio_postgres::{Client, Error};

use super::{BODY, Facts, HISTORY, OWNER, RIGHTS, TABLE};
use crate::data::migrations::AppliedMigration;
use crate::data::verifying::quoted;

pub(super) struct Catalog<'a> {
    pub(super) client: &'a Client,
    pub(super) schema: &'a str,
}

/// Of what a name means, whatever kind of relation it is. $1: the schema, $2: names, here and below.
const RELATIONS: &str = "SELECT c.relname::text, 'table', \
     CASE c.relkind WHEN 'r' THEN 'a table' WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' WHEN 'f' THEN 'a foreign table' \
       WHEN 'p' THEN 'a partitioned table' ELSE 'no table, but a relation of kind ' || c.relkind::text END \
     || CASE c.relpersistence WHEN 'p' THEN '' WHEN 'u' THEN ', unlogged: a crash empties it, and no backup of WAL holds it' ELSE ', temporary' END \
     || CASE WHEN m.amname <> 'heap' THEN ', kept by the access method ' || m.amname::text ELSE '' END \
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_am AS m ON m.oid = c.relam \
     WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND c.relkind NOT IN ('i', 'I', 'c')";

const OWNERS: &str = "SELECT c.relname::text, 'owner', pg_get_userbyid(c.relowner)::text \
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND c.relkind NOT IN ('i', 'I', 'c')";

/// Rules, policies, parents and children: the migrations make none.
const EXTRAS: &str = "WITH ours AS (SELECT c.* FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
       WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND c.relkind NOT IN ('i', 'I', 'c')) \
     SELECT o.relname::text, 'rule ' || r.rulename::text, pg_get_ruledef(r.oid) \
       FROM ours AS o JOIN pg_rewrite AS r ON r.ev_class = o.oid WHERE o.relkind <> 'v' AND o.relkind <> 'm' \
     UNION ALL SELECT o.relname::text, 'row security', CASE WHEN o.relforcerowsecurity THEN 'on, for the owner too' ELSE 'on' END \
       FROM ours AS o WHERE o.relrowsecurity OR o.relforcerowsecurity \
     UNION ALL SELECT o.relname::text, 'policy ' || p.polname::text, coalesce(pg_get_expr(p.polqual, p.polrelid), 'all rows') \
       FROM ours AS o JOIN pg_policy AS p ON p.polrelid = o.oid \
     UNION ALL SELECT o.relname::text, 'child ' || i.inhrelid::regclass::text, 'its rows count as rows of the table' \
       FROM ours AS o JOIN pg_inherits AS i ON i.inhparent = o.oid \
     UNION ALL SELECT o.relname::text, 'parent ' || i.inhparent::regclass::text, 'the table''s rows count as its rows' \
       FROM ours AS o JOIN pg_inherits AS i ON i.inhrelid = o.oid";

const COLUMNS: &str = "SELECT c.relname::text, 'column ' || a.attname::text, format_type(a.atttypid, a.atttypmod) \
     || CASE WHEN a.attcollation <> t.typcollation THEN ' collate ' || a.attcollation::regcollation::text ELSE '' END \
     || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END \
     || CASE WHEN a.attidentity <> '' THEN ' identity' WHEN a.attgenerated <> '' THEN ' generated' ELSE '' END \
     || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') \
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid \
     JOIN pg_type AS t ON t.oid = a.atttypid LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum \
     WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped";

/// What is not null stands with the columns. A foreign key is enforced by triggers of its own, on both tables.
const CONSTRAINTS: &str = "SELECT c.relname::text, 'constraint ' || k.conname::text, pg_get_constraintdef(k.oid) \
     || CASE WHEN EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgenabled NOT IN ('O', 'A')) \
        THEN ', its triggers disabled' ELSE '' END \
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_constraint AS k ON k.conrelid = c.oid \
     WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND k.contype <> 'n'";

/// Those that refuse rows, and those that run somebody's function whenever a row is written. One that is being rebuilt is none yet.
const INDEXES: &str = "SELECT c.relname::text, 'index ' || i.relname::text, pg_get_indexdef(x.indexrelid) \
     || CASE WHEN x.indisvalid AND x.indisready AND x.indislive THEN '' ELSE ', not in force' END \
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_index AS x ON x.indrelid = c.oid \
     JOIN pg_class AS i ON i.oid = x.indexrelid \
     WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND NOT (NOT x.indisvalid AND i.relname ~ '_cc(new|old)[0-9]*$') \
       AND (x.indisunique OR x.indisexclusion OR EXISTS (SELECT FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid \
         WHERE d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid AND d.refclassid = 'pg_proc'::regclass \
           AND p.pronamespace <> 'pg_catalog'::regnamespace))";

const TRIGGERS: &str = "SELECT c.relname::text, 'trigger ' || t.tgname::text, \
     CASE t.tgenabled WHEN 'A' THEN 'always: ' WHEN 'O' THEN '' WHEN 'R' THEN 'only on replicas: ' ELSE 'disabled: ' END || pg_get_triggerdef(t.oid) \
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_trigger AS t ON t.tgrelid = c.oid \
     WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND NOT t.tgisinternal";

/// All of the schema: which of them are the engine's, the manifest knows. $2 is not needed, and is given all the same.
const FUNCTIONS: &str = "WITH ours AS (SELECT p.*, p.proname::text || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS called \
       FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND $2::text[] IS NOT NULL) \
     SELECT '', 'function ' || o.called, l.lanname::text || ', returns ' || format_type(o.prorettype, NULL) \
       || CASE o.provolatile WHEN 'i' THEN ', immutable' WHEN 's' THEN ', stable' ELSE '' END \
       || CASE WHEN o.prosecdef THEN ', with its owner''s rights' ELSE '' END \
       || coalesce(', ' || array_to_string(o.proconfig, ', '), '') \
       FROM ours AS o JOIN pg_language AS l ON l.oid = o.prolang \
     UNION ALL SELECT '', 'owner of function ' || o.called, pg_get_userbyid(o.proowner)::text FROM ours AS o \
     UNION ALL SELECT '', 'body of function ' || o.called, encode(sha256(convert_to(o.prosrc, 'UTF8')), 'hex') FROM ours AS o";

/// Of everybody but the owner, for tables and for columns.
const GRANTS: &str = "WITH ours AS (SELECT c.* FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
       WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND c.relkind NOT IN ('i', 'I', 'c')), \
     given AS ( \
       SELECT o.relname::text AS name, '' AS part, x.grantee, x.privilege_type, x.is_grantable FROM ours AS o \
         CROSS JOIN LATERAL aclexplode(o.relacl) AS x WHERE x.grantee <> o.relowner \
       UNION ALL SELECT o.relname::text, ' on column ' || a.attname::text, x.grantee, x.privilege_type, x.is_grantable FROM ours AS o \
         JOIN pg_attribute AS a ON a.attrelid = o.oid CROSS JOIN LATERAL aclexplode(a.attacl) AS x WHERE x.grantee <> o.relowner) \
     SELECT name, 'rights of ' || CASE WHEN grantee = 0 THEN 'everybody' ELSE pg_get_userbyid(grantee)::text END || part, \
       string_agg(privilege_type || CASE WHEN is_grantable THEN ' and to pass it on' ELSE '' END, ', ' ORDER BY privilege_type COLLATE \"C\") \
     FROM given GROUP BY name, grantee, part";

const ALL: [&str; 9] = [
    RELATIONS,
    OWNERS,
    EXTRAS,
    COLUMNS,
    CONSTRAINTS,
    INDEXES,
    TRIGGERS,
    FUNCTIONS,
    GRANTS,
];

/// What stands for the name of the owner.
const THE_OWNER: &str = "@owner";

impl Catalog<'_> {
    /// Everything about these tables and the schema's functions. `owner`: whose they should be.
    pub(super) async fn facts(&self, tables: &[&str], owner: &str) -> Result<Facts, Error> {
        let prefix = self.prefix().await?;
        let mut facts = Facts::new();
        for sql in ALL {
            for row in self.client.query(sql, &[&self.schema, &tables]).await? {
                let (table, object): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                // Its columns and keys are refinery's affair.
                if table == HISTORY
                    && ![TABLE, "owner"].contains(&&*object)
                    && !object.starts_with(RIGHTS)
                    && !object.starts_with("rule ")
                {
                    continue;
                }
                let object = object.replace(&prefix, "");
                let is: Option<String> = row.try_get(2)?;
                let is = is.unwrap_or_default().replace(&prefix, "");
                let is = match is == owner && (object == "owner" || object.starts_with("owner of"))
                {
                    true => THE_OWNER.to_owned(),
                    false if object.starts_with(BODY) => is,
                    // One line each in the manifest.
                    false => is.split_whitespace().collect::<Vec<_>>().join(" "),
                };
                facts.insert((table, object), is);
            }
        }
        Ok(facts)
    }

    /// How PostgreSQL writes the schema before a name.
    async fn prefix(&self) -> Result<String, Error> {
        let row = self
            .client
            .query_one("SELECT quote_ident($1) || '.'", &[&self.schema])
            .await?;
        row.try_get(0)
    }

    /// Whose the tables should be: the instance's own owner, or else whose the list of migrations is.
    pub(super) async fn owner(&self) -> Result<String, Error> {
        let sql = "SELECT coalesce((SELECT rolname::text FROM pg_roles WHERE rolname = $1), \
             (SELECT pg_get_userbyid(c.relowner)::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
              WHERE n.nspname = $2 AND c.relname IN ($3, 'audit_log') ORDER BY c.relname = $3 DESC LIMIT 1), '')";
        let row = self
            .client
            .query_one(sql, &[&OWNER, &self.schema, &HISTORY])
            .await?;
        row.try_get(0)
    }

    /// The list of migrations; nothing where it may not be read.
    pub(super) async fn history(&self) -> Result<Option<Vec<AppliedMigration>>, Error> {
        let sql = "SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT') \
               AND NOT c.relrowsecurity";
        let readable = self
            .client
            .query_opt(sql, &[&self.schema, &HISTORY])
            .await?;
        if readable.is_none() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT version::bigint, name::text, checksum::text FROM {}.{HISTORY} ORDER BY version",
            quoted(self.schema)
        );
        let rows = self.client.query(&sql, &[]).await?;
        let applied = |row: &tokio_postgres::Row| {
            Ok(AppliedMigration {
                version: row.try_get(0)?,
                name: row.try_get(1)?,
                checksum: row.try_get(2)?,
            })
        };
        rows.iter().map(applied).collect::<Result<_, _>>().map(Some)
    }
}
