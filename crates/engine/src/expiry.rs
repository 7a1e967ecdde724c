//! One expiry, whoever asks for it: survey, clocks, decision, deletion.

use postgres_physical::{server::sql::Client, wire::ConnectOptions};
use repository::{
    RecipientPrivate, Repository,
    retention::{Clock, Rules, Survey, execute, plan},
};

use crate::{commands::progress::Steps, error::Error};

/// Says what went.
pub(crate) fn expire(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    connect: &ConnectOptions,
    rules: &Rules,
    steps: &Steps,
) -> Result<String, Error> {
    let survey = Survey::read(repository, private)?;
    let clock = Clock::read(repository, Some(postgres_micros(connect)?))?;
    let plan = plan(&survey, &clock, rules)?;
    for warning in &plan.warnings {
        tracing::warn!(%warning, "expiry");
    }
    let done = execute(repository, &plan, steps)?;
    Ok(format!(
        "{} objects marked to go, {} deleted, {} signed heads thinned",
        done.buried, done.deleted, done.heads
    ))
}

fn postgres_micros(connect: &ConnectOptions) -> Result<i64, Error> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let found = Client::connect(connect)?.value(sql)?;
    found
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Failed("PostgreSQL does not tell the time".into()))
}
