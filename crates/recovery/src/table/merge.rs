//! The merge: one transaction under a lock that lets readers read and makes writers wait. The preview's figures are
//! checked again before its commit.

use postgres_physical::server::sql::{Cancel, Client, quote_identifier};
use postgres_physical::wire::WireError;

use super::compare::{Counts, Preview, Sides};
use super::consequences::{firing, texts};
use super::{Mode, Request, Table, TableError, stage, watched};
use crate::Progress;

/// Writers queue behind a lock that is waited for: it is asked for in short turns.
const LOCK_TURN: &str = "5s";
const LOCK_TURNS: u32 = 12;
const LOCK_NOT_AVAILABLE: &str = "55P03";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergeOutcome {
    pub tables: Vec<MergedTable>,
    /// What PostgreSQL remarked at the commit. A strict commit that nobody confirmed is one.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergedTable {
    pub table: String,
    pub recreated: bool,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Sequences that were moved on, past what came back.
    pub sequences: Vec<String>,
    /// The comparison after it: nothing is left of what the mode asks for.
    pub after: Counts,
}

pub(super) fn merge(
    request: &Request<'_>,
    tables: &[Table],
    (backup, now): (&mut Client, &mut Client),
    cancels: &[Cancel],
    agreed: &Preview,
    progress: &dyn Progress,
) -> Result<MergeOutcome, TableError> {
    if let Some(table) = agreed.tables.iter().find(|t| !t.obstacles.is_empty()) {
        return Err(TableError::Obstacles {
            table: table.table.clone(),
            obstacles: table.obstacles.join("; "),
        });
    }
    // Watched up to the commit: that one is never cancelled, because then nobody would know what came of it.
    let merged = watched(cancels, progress, || {
        begin(tables, now, progress)?;
        check(request, tables, now, agreed)?;
        inside(request, tables, (backup, now), progress)
    });
    let mut merged = match merged {
        Ok(merged) => merged,
        Err(error) => {
            let _ = now.query("ROLLBACK");
            return Err(error);
        }
    };
    progress.message("committing");
    now.take_notices();
    now.query("COMMIT").map_err(|error| match error {
        WireError::Server { .. } => TableError::refused("committing")(error),
        error => TableError::Unknown(error),
    })?;
    let warnings = now.take_notices().into_iter();
    merged.warnings = warnings
        .filter(|notice| notice.severity == "WARNING")
        .map(|notice| notice.to_string())
        .collect();
    Ok(merged)
}

/// All locks at once, in one order for everybody.
fn begin(tables: &[Table], now: &mut Client, progress: &dyn Progress) -> Result<(), TableError> {
    let mut present: Vec<&Table> = tables.iter().filter(|table| table.now.is_some()).collect();
    present.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<String> = present.iter().map(|table| table.name.sql()).collect();
    let lock = match names.is_empty() {
        true => String::new(),
        false => format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
            names.join(", ")
        ),
    };
    progress.message("waiting for the lock");
    for _ in 0..LOCK_TURNS {
        if progress.cancelled() {
            return Err(TableError::Interrupted);
        }
        now.query(&format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TURN}'"))?;
        match now.query(&lock) {
            Ok(_) => return Ok(()),
            Err(error) => {
                now.query("ROLLBACK")?;
                if error.sqlstate() != Some(LOCK_NOT_AVAILABLE) {
                    return Err(TableError::refused("locking the tables")(error));
                }
            }
        }
    }
    let oids: Vec<&str> = present
        .iter()
        .map(|table| table.shape().oid.as_str())
        .collect();
    let sql = format!(
        "SELECT string_agg(DISTINCT format('process %s, %s since %s', a.pid, a.application_name, a.xact_start), '; ') FROM pg_locks l \
         JOIN pg_stat_activity a USING (pid) WHERE l.relation IN ({}) AND l.granted AND a.pid <> pg_backend_pid()",
        oids.join(", ")
    );
    Err(TableError::Locked {
        table: names.join(", "),
        holders: now.value(&sql)?.unwrap_or_default(),
    })
}

/// Under the lock: the tables are those of the preview, and nothing is changed or deleted that it did not show.
fn check(
    request: &Request<'_>,
    tables: &[Table],
    now: &mut Client,
    agreed: &Preview,
) -> Result<(), TableError> {
    for table in tables {
        let name = table.name.to_string();
        let literal = postgres_physical::server::sql::quote_literal(&table.name.sql());
        let oid = now.value(&format!("SELECT to_regclass({literal})::oid"))?;
        if oid.as_deref() != table.now.as_ref().map(|shape| shape.oid.as_str()) {
            return Err(TableError::Moved { table: name });
        }
        let shown = agreed.tables.iter().find(|shown| shown.table == name);
        let Some(shown) = shown.filter(|_| request.mode != Mode::Missing && oid.is_some()) else {
            continue;
        };
        let found = Sides::of(table).counts(now, request.only.is_none())?;
        let grew = found.different > shown.counts.different
            || request.mode == Mode::Exact && found.only_now > shown.counts.only_now;
        if grew {
            let say = |counts: &Counts| counts.left(request.mode).unwrap_or_default();
            return Err(TableError::NotAgreed {
                table: name,
                shown: say(&shown.counts),
                found: say(&found),
            });
        }
    }
    Ok(())
}

fn inside(
    request: &Request<'_>,
    tables: &[Table],
    (backup, now): (&mut Client, &mut Client),
    progress: &dyn Progress,
) -> Result<MergeOutcome, TableError> {
    let mut merged: Vec<MergedTable> = Vec::new();
    let mut off: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for table in tables {
        progress.message(&format!("merging {}", table.name));
        if progress.cancelled() {
            return Err(TableError::Interrupted);
        }
        if table.now.is_none() {
            recreate(request, table, "pre-data", now)?;
        } else if !request.fire_triggers {
            let firing = firing(table, now)?;
            switch(&table.name.sql(), &firing, |_| "DISABLE", now)?;
            off.push((table.name.sql(), firing));
        }
        merged.push(MergedTable {
            table: table.name.to_string(),
            recreated: table.now.is_none(),
            inserted: put_back(request, table, (backup, now), progress)?,
            ..MergedTable::default()
        });
    }
    for (table, merged) in tables.iter().zip(&mut merged).rev() {
        if request.mode != Mode::Missing && table.now.is_some() {
            merged.updated = update(table, now)?;
        }
        if request.mode == Mode::Exact && table.now.is_some() {
            merged.deleted = delete(table, now)?;
        }
    }
    for table in tables.iter().filter(|table| table.now.is_none()) {
        recreate(request, table, "post-data", now)?;
    }
    // Deferred checks are made here, where their failure can still be told by name, and before triggers may be touched.
    now.query("SET CONSTRAINTS ALL IMMEDIATE")
        .map_err(TableError::refused("checking the constraints"))?;
    for (name, firing) in &off {
        let on = |enabled: &str| {
            if enabled == "A" {
                "ENABLE ALWAYS"
            } else {
                "ENABLE"
            }
        };
        switch(name, firing, on, now)?;
    }
    for (table, merged) in tables.iter().zip(&mut merged) {
        progress.message(&format!("proving {}", table.name));
        merged.sequences = move_sequences(table, now)?;
        merged.after = prove(request, table, now)?;
    }
    for channel in &request.notify {
        now.query(&format!("NOTIFY {channel}"))?;
    }
    Ok(MergeOutcome {
        tables: merged,
        warnings: Vec::new(),
    })
}

fn recreate(
    request: &Request<'_>,
    table: &Table,
    section: &str,
    now: &mut Client,
) -> Result<(), TableError> {
    let sql = request
        .dump
        .section(&request.backup, &table.name, section)?;
    let doing = format!("making {} again", table.name);
    now.query(&sql).map_err(TableError::refused(&doing))?;
    Ok(())
}

/// Foreign keys are not user triggers: they are checked all the same.
fn switch(
    table: &str,
    triggers: &[(String, String)],
    to: impl Fn(&str) -> &'static str,
    now: &mut Client,
) -> Result<(), TableError> {
    for (name, enabled) in triggers {
        let name = quote_identifier(name);
        let sql = format!("ALTER TABLE {table} {} TRIGGER {name}", to(enabled));
        let doing = format!("switching the trigger {name} of {table}");
        now.query(&sql).map_err(TableError::refused(&doing))?;
    }
    Ok(())
}

fn counted(now: &mut Client, sql: &str, doing: &str) -> Result<u64, TableError> {
    now.execute(sql).map_err(TableError::refused(doing))
}

fn put_back(
    request: &Request<'_>,
    table: &Table,
    (backup, now): (&mut Client, &mut Client),
    progress: &dyn Progress,
) -> Result<u64, TableError> {
    // A condition may say something else when it is asked again.
    let whole = request.only.is_none();
    if whole && (table.now.is_none() || Sides::of(table).none_is_there(now)?) {
        let doing = format!("putting rows back into {}", table.name);
        let into = table.name.sql();
        return stage::copy(table, None, &into, &doing, (backup, now), progress);
    }
    insert(table, now)
}

/// Row by row, those that are missing.
fn insert(table: &Table, now: &mut Client) -> Result<u64, TableError> {
    let sides = Sides::of(table);
    let columns: Vec<String> = table.columns.iter().map(|c| quote_identifier(c)).collect();
    let sql = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}",
        sides.live,
        columns.join(", "),
        match table.now.is_some() {
            true => sides.missing(&sides.columns("s")),
            false => format!("SELECT {} FROM {} s", sides.columns("s"), table.staged),
        }
    );
    counted(now, &sql, &format!("putting rows back into {}", table.name))
}

fn update(table: &Table, now: &mut Client) -> Result<u64, TableError> {
    let sides = Sides::of(table);
    let shape = table.shape();
    let free = table
        .columns
        .iter()
        .filter(|name| shape.column(name).is_some_and(|column| !column.fixed));
    let set = free.map(|name| {
        let name = quote_identifier(name);
        format!("{name} = s.{name}")
    });
    let sql = format!(
        "UPDATE {} l SET {} FROM {} s WHERE {} AND {}",
        sides.live,
        set.collect::<Vec<_>>().join(", "),
        table.staged,
        sides.same_key(),
        sides.differs()
    );
    counted(now, &sql, &format!("changing rows of {} back", table.name))
}

fn delete(table: &Table, now: &mut Client) -> Result<u64, TableError> {
    let sides = Sides::of(table);
    let sql = format!(
        "DELETE FROM {} l WHERE NOT EXISTS (SELECT FROM {} s WHERE {})",
        sides.live,
        table.staged,
        sides.same_key()
    );
    counted(now, &sql, &format!("deleting rows of {}", table.name))
}

/// A sequence that was set back, or created again, must not hand out what came back.
fn move_sequences(table: &Table, now: &mut Client) -> Result<Vec<String>, TableError> {
    let literal = postgres_physical::server::sql::quote_literal(&table.name.sql());
    let sql = format!(
        "SELECT d.objid::regclass, a.attname FROM pg_depend d JOIN pg_sequence q ON q.seqrelid = d.objid AND q.seqincrement > 0 \
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.atttypid IN (20, 21, 23) \
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {literal}::regclass AND d.deptype IN ('a', 'i')"
    );
    let mut moved = Vec::new();
    for row in texts(now, &sql)? {
        let [sequence, column] = &row[..] else {
            continue;
        };
        let literal = postgres_physical::server::sql::quote_literal(sequence);
        let sql = format!(
            "SELECT setval({literal}::regclass, m) FROM (SELECT max({})::bigint AS m FROM {}) t, (SELECT last_value, is_called FROM {sequence}) q \
             WHERE m > last_value OR m = last_value AND NOT is_called",
            quote_identifier(column),
            table.name.sql()
        );
        let to = now.value(&sql);
        let to = to.map_err(TableError::refused(&format!("moving {sequence} on")))?;
        moved.extend(to.map(|to| format!("{sequence} to {to}")));
    }
    Ok(moved)
}

fn prove(request: &Request<'_>, table: &Table, now: &mut Client) -> Result<Counts, TableError> {
    let counts = Sides::of(table).counts(now, request.only.is_none())?;
    match counts.left(request.mode) {
        None => Ok(counts),
        Some(left) => Err(TableError::NotProved {
            table: table.name.to_string(),
            left,
        }),
    }
}
