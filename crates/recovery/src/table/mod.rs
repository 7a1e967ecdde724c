//! Table-level recovery: one table, or a few of its rows, from any moment into a running database.
//!
//! The moment is a scratch cluster that the caller restored and started. Its rows are copied into temporary tables of
//! the running database, which end with the session; the rest is SQL over two tables in one database, so that only
//! files grow with the table. [`Work::open`] → [`Work::stage`] → [`Work::preview`] → an operator says yes →
//! [`Work::merge`], one transaction.
//!
//! Absent: the scratch cluster; the meaning of a table; the question to the operator.

mod compare;
mod consequences;
mod error;
mod merge;
mod schema;
mod shape;
mod stage;
mod watched;

pub use compare::{Counts, Preview, Sample, TablePreview};
pub use error::TableError;
pub use merge::{MergeOutcome, MergedTable};
pub use schema::Dump;
pub use shape::{ParseNameError, TableName};

use postgres_physical::server::sql::{Cancel, Client};
use postgres_physical::wire::{ConnectOptions, WireError};

use crate::Progress;
use shape::Shape;
use watched::watched;

/// What a merge does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Puts back the rows that are missing; whatever was written since stays as it is.
    Missing,
    /// And gives back their old content to rows that differ.
    Changed,
    /// And deletes rows that were not there then: the table as it was.
    Exact,
}

impl Mode {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Missing => "missing",
            Mode::Changed => "changed",
            Mode::Exact => "exact",
        }
    }
}

#[derive(Debug)]
pub struct Request<'a> {
    /// The moment, as a cluster; a role that sees everything.
    pub backup: ConnectOptions,
    /// The database that runs; a role that may write the tables.
    pub now: ConnectOptions,
    pub tables: Vec<TableName>,
    pub mode: Mode,
    /// An SQL condition on rows of that moment; runs on the scratch cluster only.
    pub only: Option<String>,
    /// User triggers fire for what is merged. Otherwise they are off for this transaction.
    pub fire_triggers: bool,
    /// Who wants to hear of the merge: NOTIFY, at its commit.
    pub notify: Vec<&'static str>,
    /// For tables that were dropped.
    pub dump: Dump<'a>,
}

/// One table on its way.
#[derive(Debug)]
struct Table {
    name: TableName,
    backup: Shape,
    /// `None`: it was dropped.
    now: Option<Shape>,
    /// Columns that both have and that can be written.
    columns: Vec<String>,
    /// `pg_temp.…` in the running database.
    staged: String,
}

impl Table {
    fn shape(&self) -> &Shape {
        self.now.as_ref().unwrap_or(&self.backup)
    }

    /// Every column has one binary form on both sides: nothing need be written as text and read again.
    fn is_plain(&self) -> bool {
        self.columns.iter().all(|name| {
            let (backup, now) = (self.backup.column(name), self.shape().column(name));
            backup
                .zip(now)
                .is_some_and(|(backup, now)| backup.plain && now.plain && backup.kind == now.kind)
        })
    }
}

/// The two sides, connected.
#[derive(Debug)]
pub struct Work<'a> {
    request: Request<'a>,
    backup: Client,
    now: Client,
    tables: Vec<Table>,
    /// The way to end what either side is at.
    cancels: [Cancel; 2],
}

/// Names mean what they say, text has one form on both sides, and nobody's settings end it early.
const SESSION: &str = "SET search_path = ''; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
    SET xmloption = 'content'; SET row_security = off; SET statement_timeout = 0; SET idle_session_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed'; \
    SET work_mem = '128MB'; SET jit = off";

/// A merge writes index pages again and again: whoever may choose packs them by the quickest way there is, where they
/// are packed at all.
const QUICK_WAL: &str = "SELECT set_config('wal_compression', 'lz4', false) FROM pg_settings WHERE name = 'wal_compression' \
    AND setting IN ('on', 'pglz') AND 'lz4' = ANY (enumvals) AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";

impl<'a> Work<'a> {
    /// Looks at every table on both sides and refuses, by name, what cannot be merged. Changes nothing.
    pub fn open(request: Request<'a>) -> Result<Self, TableError> {
        if request.only.is_some() && request.mode == Mode::Exact {
            return Err(TableError::ExactPart);
        }
        let mut backup = session(&request.backup)?;
        let mut now = session(&request.now)?;
        now.query(QUICK_WAL)?;
        let mut tables = Vec::new();
        for (number, name) in request.tables.iter().enumerate() {
            tables.push(shape::look(name, number, &request, &mut backup, &mut now)?);
        }
        shape::parents_first(&mut tables, &mut backup)?;
        let cancels = [backup.cancel(&request.backup), now.cancel(&request.now)];
        Ok(Self {
            request,
            backup,
            now,
            tables,
            cancels,
        })
    }

    /// Copies the rows of that moment beside the tables of now.
    pub fn stage(&mut self, progress: &dyn Progress) -> Result<(), TableError> {
        watched(&self.cancels, progress, || {
            for table in &self.tables {
                progress.message(&format!("copying {} as it was", table.name));
                let only = self.request.only.as_deref();
                stage::stage(table, only, &mut self.backup, &mut self.now, progress)?;
            }
            Ok(())
        })
    }

    /// What a merge would do now. Takes no lock that a writer would notice.
    pub fn preview(&mut self, progress: &dyn Progress) -> Result<Preview, TableError> {
        let tables = watched(&self.cancels, progress, || {
            let mut tables = Vec::new();
            for table in &self.tables {
                progress.message(&format!("comparing {}", table.name));
                let sides = (&mut self.backup, &mut self.now);
                tables.push(compare::preview(table, &self.tables, &self.request, sides)?);
            }
            Ok(tables)
        })?;
        Ok(Preview {
            mode: self.request.mode,
            tables,
        })
    }

    /// Does what the preview showed, in one transaction. With rows to change or to delete that the preview did not
    /// show, nothing happens.
    pub fn merge(
        &mut self,
        agreed: &Preview,
        progress: &dyn Progress,
    ) -> Result<MergeOutcome, TableError> {
        let sides = (&mut self.backup, &mut self.now);
        let (request, tables) = (&self.request, &self.tables);
        merge::merge(request, tables, sides, &self.cancels, agreed, progress)
    }
}

fn session(connect: &ConnectOptions) -> Result<Client, WireError> {
    let mut connect = connect.clone().with_application_name("bre-table");
    // A receiver that writes a checkpoint takes its time.
    connect.timeout = std::time::Duration::from_secs(300);
    let mut client = Client::connect(&connect)?;
    client.query(SESSION)?;
    Ok(client)
}
