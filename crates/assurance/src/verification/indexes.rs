//! The guide's first check after each recovery: are there invalid indexes? Damage and unfinished work are told apart:
//! an index that is still being built, or whose build was abandoned, does no harm, and each such state has a statement
//! that ends it.

use postgres_physical::wire::WireError;

use super::{CheckFindings, Database};

/// The first oid that is not PostgreSQL's own.
const FIRST_USER_OID: u32 = 16_384;

/// Per index: name for people, name and table for SQL, relkind, alive, constraint on a plain table, oid of the table,
/// who works on it, and of a partitioned table the partitions that have no index attached.
const NOT_VALID: &str = "SELECT n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname), format('%I.%I', tn.nspname, t.relname), \
     c.relkind, i.indislive, (SELECT min(k.conname) FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')), \
     i.indrelid, \
     coalesce((SELECT min(p.pid) FROM pg_stat_progress_create_index AS p WHERE p.datid = d.oid AND p.relid = i.indrelid), \
       (SELECT min(l.pid) FROM pg_locks AS l WHERE l.locktype = 'relation' AND l.database = d.oid AND l.relation = i.indexrelid \
          AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted)), \
     (SELECT string_agg(format('%I.%I', pn.nspname, p.relname), ', ' ORDER BY p.relname) FROM pg_inherits AS h \
        JOIN pg_class AS p ON p.oid = h.inhrelid JOIN pg_namespace AS pn ON pn.oid = p.relnamespace \
        WHERE c.relkind = 'I' AND h.inhparent = i.indrelid AND p.relkind IN ('r', 'p') \
        AND NOT EXISTS (SELECT FROM pg_inherits AS a JOIN pg_index AS x ON x.indexrelid = a.inhrelid \
          WHERE a.inhparent = i.indexrelid AND x.indrelid = p.oid AND x.indisvalid)) \
     FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid \
     JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_namespace AS tn ON tn.oid = t.relnamespace \
     CROSS JOIN (SELECT oid FROM pg_database WHERE datname = current_database()) AS d \
     WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) ORDER BY 1";

pub(super) fn invalid(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
) -> Result<(), WireError> {
    gathered.looked_at += database.number("SELECT count(*) FROM pg_index")?;
    for row in database.rows(NOT_VALID)? {
        let Some(index) = NotValid::read(&row) else {
            continue;
        };
        let found = index.found(&database.named(index.name));
        match found {
            IndexFault::Damage(what) => gathered.wrong(what),
            IndexFault::Unfinished(what) => gathered.warn(what),
        }
    }
    Ok(())
}

#[derive(Debug)]
enum IndexFault {
    Damage(String),
    Unfinished(String),
}

#[derive(Debug, Default)]
struct NotValid<'a> {
    name: &'a str,
    /// For SQL.
    index: &'a str,
    table: &'a str,
    partitioned: bool,
    live: bool,
    /// A key or an exclusion constraint that nothing guards without it; of a partitioned table each partition has its
    /// own.
    constraint: Option<&'a str>,
    system: bool,
    /// The process that builds or drops it just now.
    pid: Option<&'a str>,
    /// Of a partitioned table.
    partitions_without: Option<&'a str>,
}

impl<'a> NotValid<'a> {
    fn read(row: &'a [String]) -> Option<Self> {
        let [
            name,
            index,
            table,
            kind,
            live,
            constraint,
            oid,
            pid,
            partitions,
        ] = row
        else {
            return None;
        };
        let given = |text: &'a String| (!text.is_empty()).then_some(text.as_str());
        Some(Self {
            name,
            index,
            table,
            partitioned: kind == "I",
            live: live == "t",
            constraint: given(constraint),
            system: oid.parse::<u32>().is_ok_and(|oid| oid < FIRST_USER_OID),
            pid: given(pid),
            partitions_without: given(partitions),
        })
    }

    /// `name`: with its database.
    fn found(&self, name: &str) -> IndexFault {
        let (index, table) = (self.index, self.table);
        if let Some(pid) = self.pid {
            return IndexFault::Unfinished(format!(
                "index {name} on {table} is being built or dropped by process {pid}: wait for it"
            ));
        }
        if self.partitioned {
            return IndexFault::Unfinished(match self.partitions_without {
                Some(partitions) => format!(
                    "index {name} on the partitioned table {table} was made ON ONLY it, and is valid once each \
                     partition has its own (missing: {partitions}): CREATE INDEX CONCURRENTLY there, then ALTER INDEX \
                     {index} ATTACH PARTITION each of them"
                ),
                None => format!(
                    "index {name} on the partitioned table {table} is not marked as valid although each partition has \
                     its own: ALTER INDEX {index} ATTACH PARTITION one of them once more"
                ),
            });
        }
        if !self.live {
            return IndexFault::Unfinished(format!(
                "index {name} on {table} is half dropped, its DROP INDEX CONCURRENTLY did not end: DROP INDEX \
                 CONCURRENTLY {index}"
            ));
        }
        if is_leftover(self.name) {
            return IndexFault::Unfinished(format!(
                "index {name} on {table} was left behind by a REINDEX CONCURRENTLY that did not end, the index that \
                 it was to replace is in use: DROP INDEX CONCURRENTLY {index}"
            ));
        }
        if self.system {
            return IndexFault::Damage(format!(
                "index {name} of the system catalogue is invalid: REINDEX INDEX {index}"
            ));
        }
        match self.constraint {
            Some(constraint) => IndexFault::Damage(format!(
                "index {name} is invalid, so nothing guards the constraint {constraint} of {table}: REINDEX INDEX \
                 {index}"
            )),
            None => IndexFault::Unfinished(format!(
                "index {name} on {table} was not finished, its CREATE INDEX CONCURRENTLY failed or was interrupted; \
                 no query uses it: REINDEX INDEX CONCURRENTLY {index}, or DROP INDEX CONCURRENTLY {index}"
            )),
        }
    }
}

/// `_ccnew` and `_ccold`, numbered where the name was taken.
fn is_leftover(name: &str) -> bool {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.ends_with("_ccnew") || name.ends_with("_ccold")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_unfinished_work_are_told_apart_each_with_its_statement() {
        let plain = || NotValid {
            name: "public.i",
            index: "public.i",
            table: "public.t",
            live: true,
            ..NotValid::default()
        };
        let unfinished = |index: NotValid<'_>, says: &str| match index.found("desk.public.i") {
            IndexFault::Unfinished(what) => assert!(what.contains(says), "{what}"),
            damage => panic!("{damage:?}"),
        };
        unfinished(plain(), "REINDEX INDEX CONCURRENTLY public.i, or DROP");
        for name in ["public.i_ccnew", "public.i_ccold", "public.i_ccnew12"] {
            unfinished(NotValid { name, ..plain() }, ": DROP INDEX CONCURRENTLY");
        }
        let live = false;
        unfinished(NotValid { live, ..plain() }, "half dropped");
        let pid = Some("77");
        unfinished(NotValid { pid, ..plain() }, "process 77: wait");
        let partitioned = true;
        unfinished(
            NotValid {
                partitioned,
                ..plain()
            },
            "once more",
        );
        // A key of a partitioned table is guarded in its partitions.
        let (partitions_without, constraint) = (Some("public.p"), Some("t_pkey"));
        let parent = NotValid {
            partitioned,
            partitions_without,
            constraint,
            ..plain()
        };
        unfinished(parent, "ATTACH PARTITION each");
        let system = true;
        for damaged in [
            NotValid {
                constraint,
                ..plain()
            },
            NotValid { system, ..plain() },
        ] {
            let found = damaged.found("desk.public.i");
            assert!(
                matches!(&found, IndexFault::Damage(what) if what.ends_with(": REINDEX INDEX public.i")),
                "{found:?}"
            );
        }
    }
}
