//! What was said of the keys that sign the log, and whom to trust by it (docs/formats/audit_transparency.md §6).

use audit::{KeyStatement, VerifyingKey};
use repository::Repository;

use crate::{
    error::Error,
    log::{LOG, log_name},
};

/// Those that can be read. What cannot says nothing, and is told.
pub fn published(repository: &Repository) -> Result<Vec<KeyStatement>, Error> {
    let mut statements = Vec::new();
    for bytes in repository::transparency::key_statements(repository, &log_name())? {
        match KeyStatement::parse(&bytes) {
            Ok(statement) => statements.push(statement),
            Err(error) => {
                tracing::warn!(%error, "an object below signing-keys/ is no statement: somebody else put it there, or it was changed");
            }
        }
    }
    Ok(statements)
}

/// From the keys that were given to all that vouch for the log.
pub fn trusted(
    given: &[VerifyingKey],
    repository: &Repository,
) -> Result<Vec<VerifyingKey>, Error> {
    let refused = |error: audit::StatementError| Error::Refused {
        what: "it is not known whose signatures count",
        reason: error.to_string(),
    };
    audit::trust(LOG, given, &published(repository)?).map_err(refused)
}
