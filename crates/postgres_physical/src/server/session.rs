//! The settings of each session of ours, which override `postgresql.conf`, ALTER DATABASE and ALTER ROLE: those are
//! made for the applications of a cluster. A timeout would end a backup, and another spelling of the same definition
//! would look like a change.

/// Setting and value, in the order in which they are set: first what could end the session meanwhile.
type Settings = &'static [(&'static str, &'static str)];

const TIMEOUTS: Settings = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// How values and definitions are spelled, and what a transaction is.
const SPELLING: Settings = &[
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("IntervalStyle", "postgres"),
    ("xmloption", "content"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
];

/// For `PGOPTIONS`.
pub(super) fn program_options() -> String {
    options(&[TIMEOUTS, SPELLING])
}

/// A backup's temporary slot hangs on a connection that is silent meanwhile.
pub(crate) fn replication_options() -> String {
    options(&[TIMEOUTS])
}

/// Stronger than what is set for role and database.
fn options(settings: &[Settings]) -> String {
    let option = |(name, value): &(&str, &str)| format!("-c {name}={}", value.replace(' ', "\\ "));
    let options: Vec<String> = settings
        .iter()
        .flat_map(|part| part.iter())
        .map(option)
        .collect();
    options.join(" ")
}

/// The first statements of a session.
pub(super) fn statements() -> String {
    let mut sql: String = TIMEOUTS
        .iter()
        .chain(SPELLING)
        .map(|(name, value)| format!("SET {name} = '{value}'; "))
        .collect();
    // Not every version that we speak to has it.
    sql.push_str(
        "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'",
    );
    sql
}
