//! Why a table was not restored, and what to do next. Nothing was changed, except where the last cases say so.

use postgres_physical::server::ServerError;
use postgres_physical::wire::WireError;

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("{table} was not in the database {database} at that moment. {hint}")]
    NotThen {
        table: String,
        database: String,
        hint: String,
    },
    #[error("{table} cannot be restored row by row: {reason}")]
    Unfit { table: String, reason: String },
    #[error(
        "{table} has no primary key and no unique index of columns that are never null, so rows cannot be told apart \
         for the mode {mode}. Use the mode missing (whole rows are compared), or restore it beside the table: bre \
         restore --to DIR, then copy by hand"
    )]
    NoKey { table: String, mode: &'static str },
    #[error(
        "--where names a part of the rows of that moment; the mode exact would delete all others. Use the mode \
         missing or changed"
    )]
    ExactPart,
    #[error("interrupted; nothing was changed")]
    Interrupted,
    #[error("{table} stays as it is: {obstacles}")]
    Obstacles { table: String, obstacles: String },
    #[error(
        "{table} was dropped or created again meanwhile. Nothing was changed; give the command again"
    )]
    Moved { table: String },
    #[error(
        "{table} is being written to: what was shown ({shown}) is not what would happen now ({found}). Nothing was \
         changed. Stop the writers, or use the mode missing, which keeps everything written since; then give the \
         command again"
    )]
    NotAgreed {
        table: String,
        shown: String,
        found: String,
    },
    #[error(
        "{table} could not be locked: other transactions hold it ({holders}). Nothing was changed. Wait for them or \
         end them, then give the command again"
    )]
    Locked { table: String, holders: String },
    #[error("{doing}: {error}\nNothing was changed{hint}")]
    Refused {
        doing: String,
        error: Box<WireError>,
        hint: &'static str,
    },
    #[error(
        "after the merge {table} still differed ({left}), so it was rolled back and nothing was changed. A trigger, \
         rule or type of this table changes what is written: restore it beside the table \
         (bre restore database --to DIR) and copy by hand"
    )]
    NotProved { table: String, left: String },
    #[error(
        "the connection broke at the commit ({0}): whether the merge was committed is not known. Give the command \
         again: restored rows are not restored twice"
    )]
    Unknown(WireError),
    #[error("how the dropped table {table} was made could not be read: {reason}")]
    Dump { table: String, reason: String },
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl TableError {
    /// A statement of the merge that the server refused: the transaction is gone.
    pub(super) fn refused(doing: &str) -> impl FnOnce(WireError) -> TableError {
        let doing = doing.to_owned();
        move |error| {
            let hint = match error.sqlstate() {
                Some("23503") => {
                    ": a row refers to another one that is gone too. Name both tables: --table PARENT,CHILD"
                }
                Some("23505") => {
                    ": a row written since holds the same unique value. Leave the old one out with --where, or change \
                     the newer one"
                }
                Some("42501") => ". The role may not do that: use a role that owns the table",
                _ => "",
            };
            TableError::Refused {
                doing,
                error: Box::new(error),
                hint,
            }
        }
    }
}
