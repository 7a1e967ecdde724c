//! By which name a session finds what. A table of the same name in a schema that is searched first stands in for the engine's own, and a
//! setting of role or database can turn triggers off.

use tokio_postgres::Error;

use super::catalog::Catalog;
use super::{Finding, SERVICE};

/// The engine's names.
pub(super) struct Objects<'a> {
    pub(super) tables: &'a [&'a str],
    pub(super) functions: &'a [&'a str],
}

/// Of everybody and of the engine's own roles, in this database and in all.
const SETTINGS: &str = "SELECT CASE WHEN s.setdatabase = 0 THEN '' ELSE 'database ' || current_database()::text END \
       || CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN ' and ' ELSE '' END \
       || CASE WHEN s.setrole = 0 THEN '' ELSE 'role ' || pg_get_userbyid(s.setrole)::text END, \
       split_part(c.setting, '=', 1), substr(c.setting, position('=' IN c.setting) + 1) \
     FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting) \
     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) \
       AND (s.setrole = 0 OR pg_get_userbyid(s.setrole)::text = ANY ($1))";

/// What the server's file, or the session's own role and database, bring where nothing above does.
const IN_FORCE: &str = "SELECT s.name::text, s.reset_val FROM pg_settings AS s WHERE s.name IN ('search_path', 'session_replication_role')";

/// Of types that the engine's columns have: what prints them instead of PostgreSQL.
const CASTS: &str = "SELECT format_type(c.castsource, NULL), c.castfunc::regproc::text FROM pg_cast AS c \
     WHERE c.oid >= 16384 AND c.casttarget = 'text'::regtype AND c.castmethod = 'f' \
       AND c.castsource IN ('numeric'::regtype, 'uuid'::regtype, 'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'date'::regtype) \
     ORDER BY 1";

/// Which of the engine's names a schema holds. Of functions, those that stand in for ours whatever their arguments are.
const HELD: &str = "SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
       WHERE n.nspname = $1 AND c.relname::text = ANY ($2) AND c.relkind NOT IN ('i', 'I') \
     UNION SELECT p.proname::text || '()' FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
       WHERE n.nspname = $1 AND p.proname::text = ANY ($3) ORDER BY 1";

pub(super) async fn findings(
    catalog: &Catalog<'_>,
    objects: &Objects<'_>,
    owner: &str,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let held = held(catalog, objects, "pg_catalog").await?;
    if !held.is_empty() {
        findings.push(Finding {
            object: "schema pg_catalog".to_owned(),
            what: format!(
                "it holds {}, which every session finds before the engine's own",
                held.join(", ")
            ),
        });
    }
    for row in catalog.client.query(CASTS, &[]).await? {
        let (of, function): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        findings.push(Finding {
            object: format!("cast of {of} to text"),
            what: format!(
                "it goes through {function}, which is not PostgreSQL's: values may print as others"
            ),
        });
    }
    let roles = [SERVICE, owner];
    let mut settings = Vec::new();
    for row in catalog.client.query(SETTINGS, &[&&roles[..]]).await? {
        settings.push((
            row.try_get::<_, String>(0)?,
            row.try_get::<_, String>(1)?,
            row.try_get::<_, String>(2)?,
        ));
    }
    for row in catalog.client.query(IN_FORCE, &[]).await? {
        let value: Option<String> = row.try_get(1)?;
        settings.push((
            "the server".to_owned(),
            row.try_get(0)?,
            value.unwrap_or_default(),
        ));
    }
    for (of, name, value) in settings {
        let of = match of.as_str() {
            "" => "all databases",
            of => of,
        };
        let what = match name.to_ascii_lowercase().as_str() {
            "session_replication_role" if value != "origin" => {
                Some("it turns the engine's triggers and foreign keys off".to_owned())
            }
            "search_path" => misleads(catalog, objects, &roles, &value).await?,
            _ => None,
        };
        if let Some(what) = what {
            let object = format!("setting {name} = {value} of {of}");
            findings.push(Finding { object, what });
        }
    }
    findings.dedup();
    Ok(findings)
}

/// What a search path finds before the engine's own tables.
async fn misleads(
    catalog: &Catalog<'_>,
    objects: &Objects<'_>,
    roles: &[&str],
    path: &str,
) -> Result<Option<String>, Error> {
    for schema in schemas(path, roles) {
        if schema == catalog.schema {
            return Ok(None);
        }
        let held = held(catalog, objects, &schema).await?;
        if !held.is_empty() {
            return Ok(Some(format!(
                "schema {schema} is searched before {} and holds {}: sessions read and write these instead of the engine's own",
                catalog.schema,
                held.join(", ")
            )));
        }
    }
    Ok(Some(format!(
        "{} is not searched, where the engine's tables are",
        catalog.schema
    )))
}

/// The schemas of a search path, in order; `$user` is each of the engine's roles.
fn schemas(path: &str, roles: &[&str]) -> Vec<String> {
    let mut schemas = Vec::new();
    for part in path.split(',').map(str::trim) {
        let name = match part
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => part.to_ascii_lowercase(),
        };
        match name.as_str() {
            "$user" => schemas.extend(roles.iter().map(|role| (*role).to_owned())),
            _ => schemas.push(name),
        }
    }
    schemas
}

async fn held(
    catalog: &Catalog<'_>,
    objects: &Objects<'_>,
    schema: &str,
) -> Result<Vec<String>, Error> {
    let rows = catalog
        .client
        .query(HELD, &[&schema, &objects.tables, &objects.functions])
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_read_as_postgresql_reads_it() {
        let roles = ["bre_service", "bre_owner"];
        assert_eq!(
            schemas("\"$user\", public", &roles),
            ["bre_service", "bre_owner", "public"]
        );
        assert_eq!(
            schemas("Shadow,\"Mixed Case\" , \"a\"\"b\"", &roles),
            ["shadow", "Mixed Case", "a\"b"]
        );
    }
}
