//! One expiry, whoever asks for it: survey, clocks, decision, deletion.

use postgres_physical::{server::sql::Client, wire::ConnectOptions};
use repository::{
    RecipientPrivate, Repository,
    retention::{self, Clock, Expired, Plan, Rules, execute},
};

use crate::{commands::progress::Steps, error::Error};

/// How often it is decided anew because a backup came in between.
const DECIDED_MAX: usize = 3;

/// Without the private key it decides the same, from pack lists and clear headers. `connect`: whose clock ours is compared with, where one
/// can be asked.
pub(crate) fn decide(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    connect: Option<&ConnectOptions>,
    rules: &Rules,
) -> Result<Plan, Error> {
    let postgres = connect.map(postgres_micros).transpose()?;
    let clock = Clock::read(repository, postgres)?;
    let plan = retention::decide(repository, private, &clock, rules)?;
    for warning in &plan.warnings {
        tracing::warn!(%warning, "expiry");
    }
    Ok(plan)
}

/// Says what went.
pub(crate) fn expire(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    connect: &ConnectOptions,
    rules: &Rules,
    steps: &Steps,
) -> Result<String, Error> {
    let mut decided = 0;
    loop {
        let plan = decide(repository, private, Some(connect), rules)?;
        decided += 1;
        match execute(repository, &plan, steps) {
            Err(repository::Error::PlanIsOld { .. }) if decided < DECIDED_MAX => {}
            other => return Ok(sentence(&other?)),
        }
    }
}

pub(crate) fn sentence(done: &Expired) -> String {
    let mut text = format!(
        "{} objects marked to go, {} deleted, {} signed heads thinned",
        done.buried, done.deleted, done.heads
    );
    if done.locked > 0 {
        text.push_str(&format!(", {} locked and left for later", done.locked));
    }
    text
}

fn postgres_micros(connect: &ConnectOptions) -> Result<i64, Error> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let found = Client::connect(connect)?.value(sql)?;
    found
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Failed("PostgreSQL does not tell the time".into()))
}
