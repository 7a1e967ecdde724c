//! Steps of locates: read, decided and recorded in one transaction, under one lock that the writers of every log take in turn.
//! Whatever is waiting is decided together and shares the commit.

use std::sync::Arc;

use audit::{Entry, Kind, SealedEntry};
use jiff::civil::Date;
use tokio::sync::oneshot;
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Statement, Transaction};

use super::batch::{Batch, CommitOutcome, outcome, own_session, place};
use super::open::LogSession;
use super::serve::{Commit, SessionEnd, wait_until_durable};
use super::{LogPosition, Task, Work, WriteError, Writer, WriterConfig, log_number};
use crate::data::locates::{
    DecisionContext, Locate, LocateDecision, LocateOutcome, LocateRequest, LocateState, Refusal,
    Status, StoredLocate, decide,
};
use crate::data::row::Rows;
use crate::domain::time::{now_micros, system_time};
use crate::market::Calendar;

/// "breA" and a number that no log has. A writer that hangs in the middle is thrown out by the server, so that the others go on.
const LOCK: &str = "SET LOCAL lock_timeout = '1s'; SET LOCAL idle_in_transaction_session_timeout = '5s'; \
     SELECT pg_advisory_xact_lock(1651664193, 65536)";

pub(crate) struct LocateWork {
    request: LocateRequest,
    pub(super) reply: oneshot::Sender<Result<LocateOutcome, WriteError>>,
}

impl std::fmt::Debug for LocateWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.request.fmt(f)
    }
}

impl Writer {
    /// Takes a locate one step further, or says within the deadline that it could not.
    pub(crate) async fn locate(&self, request: LocateRequest) -> Result<LocateOutcome, WriteError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let (reply, replied) = oneshot::channel();
        let work = Work::Locate(Box::new(LocateWork { request, reply }));
        self.works.try_send(work).map_err(|_| {
            WriteError::refused("database", "too many requests are waiting to be recorded")
        })?;
        match tokio::time::timeout(self.deadline, replied).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(WriteError::unknown("database")),
        }
    }
}

/// What one order came to, before its commit.
enum Decision {
    /// By a step that was made now.
    Step(Box<StoredLocate>),
    Ended(Refusal),
    Already(Box<StoredLocate>),
    Refused(Refusal),
    Failed(WriteError),
}

/// Outlives a commit that is broken off: what was sent may be in.
#[derive(Default)]
struct LocateResults {
    sealed: Vec<SealedEntry>,
    told: Vec<Decision>,
}

enum TransactionOutcome {
    /// Somebody else holds the lock and does not let go.
    Busy,
    /// No order led to a step.
    Nothing,
    Committed(bool),
}

impl Task {
    /// This one and those right behind it.
    pub(super) async fn take_locates(
        &mut self,
        open: &mut LogSession,
        first: Box<LocateWork>,
    ) -> Result<(), SessionEnd> {
        let mut works = vec![*first];
        while works.len() < self.config.batch_max {
            match self.works.try_recv() {
                Some(Work::Locate(work)) => works.push(*work),
                Some(other) => {
                    self.works.put_back(other);
                    break;
                }
                None => break,
            }
        }
        // Nobody waits for it any more: it was answered, and was never begun.
        works.retain(|work| !work.reply.is_closed());
        match works.is_empty() {
            true => Ok(()),
            false => self.commit_locates(open, works).await,
        }
    }

    async fn commit_locates(
        &mut self,
        open: &mut LogSession,
        works: Vec<LocateWork>,
    ) -> Result<(), SessionEnd> {
        if self.config.strict && !open.standby && !self.sees_standby(open).await? {
            let why = "strict mode: the server does not wait for the stream to the repository yet";
            refuse_all(works, &WriteError::refused("wal_stream", why));
            return Ok(());
        }
        let Some(calendar) = self.config.market.calendar() else {
            let why = "which calendar is in force has not been read yet";
            refuse_all(works, &WriteError::refused("calendar", why));
            return Ok(());
        };
        let before = open.chain.clone();
        let mut results = LocateResults::default();
        let ran = tokio::select! {
            biased;
            ran = run(&self.config, open, &works, calendar, &mut results) => Some(ran),
            _ = self.control.changed() => None,
        };
        let outcome = match ran {
            None => CommitOutcome::Lost("told to let go of the database".to_owned()),
            Some(Ok(TransactionOutcome::Busy)) => {
                open.session.take_warnings();
                let why = "another data-service is deciding on locates and does not finish";
                refuse_all(works, &WriteError::refused("database", why));
                return Ok(());
            }
            Some(Ok(TransactionOutcome::Nothing)) => outcome(&open.session, Ok(open.standby)),
            Some(Ok(TransactionOutcome::Committed(standby))) => outcome(&open.session, Ok(standby)),
            Some(Err(error)) => outcome(&open.session, Err(error)),
        };
        let outcome = wait_until_durable(&self.config, open, outcome).await;
        self.conclude(open, before, works, results, outcome)
    }

    /// Answers everybody, each with what is certain.
    fn conclude(
        &mut self,
        open: &mut LogSession,
        before: audit::Chain,
        works: Vec<LocateWork>,
        results: LocateResults,
        outcome: CommitOutcome,
    ) -> Result<(), SessionEnd> {
        let clean =
            matches!(&outcome, CommitOutcome::Committed { warnings, .. } if warnings.is_empty());
        let LocateResults { sealed, mut told } = results;
        let nothing_sent = sealed.is_empty();
        let (certain, ended) = match (nothing_sent, &outcome) {
            (true, CommitOutcome::Committed { .. }) => (Ok(()), Ok(())),
            _ => self.finish_commit(open, before, &Commit::of(&sealed), outcome),
        };
        told.reverse();
        for work in works {
            let answer = match told.pop() {
                Some(Decision::Step(stored)) => certain.clone().map(|()| {
                    count(&stored.locate);
                    LocateOutcome::Step(stored)
                }),
                Some(Decision::Ended(refusal)) => {
                    certain.clone().map(|()| LocateOutcome::Refused(refusal))
                }
                Some(Decision::Already(stored)) if clean => Ok(LocateOutcome::Step(stored)),
                Some(Decision::Already(_)) => Err(WriteError::unknown("database")),
                Some(Decision::Refused(refusal)) => Ok(LocateOutcome::Refused(refusal)),
                Some(Decision::Failed(error)) => Err(error),
                None if nothing_sent => {
                    let why = "the database did not answer while the locate was being decided";
                    Err(WriteError::refused("database", why))
                }
                None => Err(WriteError::unknown("database")),
            };
            drop(work.reply.send(answer));
        }
        ended
    }
}

fn refuse_all(works: Vec<LocateWork>, error: &WriteError) {
    for work in works {
        drop(work.reply.send(Err(error.clone())));
    }
}

fn count(locate: &Locate) {
    if let Some(order) = &locate.order {
        metrics::counter!("bre_locate_uses_total", "side" => order.side.name(), "state" => order.state.name())
            .increment(1);
        metrics::counter!("bre_locate_use_shares_total", "side" => order.side.name(), "state" => order.state.name())
            .increment(order.shares.unsigned_abs());
        return;
    }
    metrics::counter!("bre_locate_steps_total", "status" => locate.status.name()).increment(1);
    let Some(step) = &locate.step else {
        return;
    };
    let name = match locate.status {
        Status::Filled if locate.returned == 0 => "bre_locate_shares_granted_total",
        _ => "bre_locate_shares_credited_total",
    };
    metrics::counter!(name).increment(step.change.unsigned_abs());
}

async fn run(
    config: &WriterConfig,
    open: &mut LogSession,
    works: &[LocateWork],
    calendar: Arc<Calendar>,
    results: &mut LocateResults,
) -> Result<TransactionOutcome, tokio_postgres::Error> {
    let transaction = open.session.client.transaction().await?;
    match transaction.batch_execute(LOCK).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            transaction.rollback().await?;
            return Ok(TransactionOutcome::Busy);
        }
        locked => locked?,
    }
    let closed = match &open.unsettled {
        Some(unsettled) => unsettled.closed(&transaction, &calendar).await?,
        None => None,
    };
    let requests: Vec<&LocateRequest> = works.iter().map(|work| &work.request).collect();
    let terms = DecisionContext {
        now_micros: now_micros(),
        lot: i64::from(config.locates.lot.get()),
        calendar,
        feeds: &config.market.feeds(),
        closed,
    };
    let mut state = LocateState::read(&transaction, &requests, &terms).await?;
    let mut batch = LocateBatch::default();
    for request in requests {
        let told = results.take(&mut state, &mut open.chain, &mut batch, request);
        results.told.push(told);
    }
    if results.sealed.is_empty() {
        transaction.rollback().await?;
        return Ok(TransactionOutcome::Nothing);
    }
    let standby = batch
        .insert(&transaction, &open.locate_statement, &open.session.word)
        .await?;
    transaction.commit().await?;
    Ok(TransactionOutcome::Committed(standby))
}

impl LocateResults {
    fn take(
        &mut self,
        state: &mut LocateState,
        chain: &mut audit::Chain,
        batch: &mut LocateBatch,
        request: &LocateRequest,
    ) -> Decision {
        let (locate, refusal) = match decide(state, request) {
            LocateDecision::Step(locate) => (*locate, None),
            LocateDecision::Ended(locate, refusal) => (*locate, Some(refusal)),
            LocateDecision::Already(stored) => return Decision::Already(stored),
            LocateDecision::Refused(refusal) => return Decision::Refused(refusal),
        };
        let appended = locate
            .fields()
            .and_then(|fields| {
                let chained = chain.append(Kind::LocateChanged, now_micros(), fields);
                chained.map_err(|error| error.to_string())
            })
            .map_err(|error| WriteError::refused("audit_log", error));
        let sealed = match appended {
            Ok(sealed) => sealed,
            Err(error) => return Decision::Failed(error),
        };
        let stored = StoredLocate {
            recorded: LogPosition {
                log: sealed.entry.log,
                epoch: sealed.entry.epoch,
                position: sealed.entry.position,
            },
            recorded_at_micros: sealed.entry.recorded_at_micros,
            locate,
        };
        state.note(&stored);
        batch.push(&sealed, &stored.locate);
        self.sealed.push(sealed);
        match refusal {
            None => Decision::Step(Box::new(stored)),
            Some(refusal) => Decision::Ended(refusal),
        }
    }
}

/// Entries, steps and the ledger in one statement.
#[derive(Debug, Default)]
pub(super) struct LocateBatch {
    entries: Batch,
    locates: Rows,
    ledger: Rows,
}

impl LocateBatch {
    pub(super) const SQL: &str = concat!(
        "WITH entries AS (INSERT INTO audit_log SELECT * FROM UNNEST($1::audit_log[])), \
         steps AS (INSERT INTO locates SELECT * FROM UNNEST($2::locates[])), \
         moved AS (INSERT INTO availability_ledger SELECT * FROM UNNEST($3::availability_ledger[])) \
         SELECT current_setting('synchronous_standby_names'), ",
        own_session!("$4")
    );

    fn push(&mut self, sealed: &SealedEntry, locate: &Locate) {
        self.entries.push(sealed);
        let entry = &sealed.entry;
        self.locates
            .push(&place(entry), Some(&locate.values().into_iter().collect()));
        if let Some(values) = locate.ledger_values() {
            self.ledger
                .push(&place(entry), Some(&values.into_iter().collect()));
        }
    }

    async fn insert(
        &self,
        client: &impl GenericClient,
        statement: &Statement,
        word: &str,
    ) -> Result<bool, tokio_postgres::Error> {
        let rows = client
            .query(
                statement,
                &[&self.entries.entries, &self.locates, &self.ledger, &word],
            )
            .await?;
        Ok(super::batch::standby(&rows))
    }
}

/// The epoch began with a recovery that may have lost grants: since when this is known.
#[derive(Debug)]
pub(super) struct UnsettledEpoch {
    opened_at_micros: i64,
}

impl UnsettledEpoch {
    pub(super) async fn of(
        open: &LogSession,
    ) -> Result<Option<UnsettledEpoch>, tokio_postgres::Error> {
        let sql = "SELECT canonical FROM audit_log WHERE log = $1 AND epoch = $2 ORDER BY position LIMIT 1";
        let (log, epoch) = (
            log_number(open.chain.log()),
            open.chain.epoch().cast_signed(),
        );
        let row = open.session.client.query_opt(sql, &[&log, &epoch]).await?;
        let opening = row.and_then(|row| Entry::parse(&audit::expand(row.get(0))).ok());
        let may_have_lost = |entry: &Entry| {
            entry.kind == Kind::EpochOpened
                && entry.fields.get("reason") != Some("created")
                && entry.fields.get("known_lost") != Some("0")
        };
        Ok(opening.filter(may_have_lost).map(|entry| UnsettledEpoch {
            opened_at_micros: entry.recorded_at_micros,
        }))
    }

    /// The trade date that may have lost grants, unless an operator has reopened it since.
    async fn closed(
        &self,
        transaction: &Transaction<'_>,
        calendar: &Calendar,
    ) -> Result<Option<Date>, tokio_postgres::Error> {
        let reopened = self.is_reopened(transaction).await?;
        // Beyond the calendar nothing is granted anyway.
        let trade_date = calendar.trade_date(self.opened_at_micros).ok();
        Ok(trade_date.filter(|_| !reopened))
    }

    async fn is_reopened(
        &self,
        client: &impl GenericClient,
    ) -> Result<bool, tokio_postgres::Error> {
        let sql = "SELECT EXISTS (SELECT FROM locate_reopenings WHERE reopened_at >= $1)";
        let since = system_time(self.opened_at_micros);
        Ok(client.query_one(sql, &[&since]).await?.get(0))
    }

    /// When it was opened, as long as nobody has reopened the day.
    pub(super) async fn closed_since(
        &self,
        client: &impl GenericClient,
    ) -> Result<Option<i64>, tokio_postgres::Error> {
        let reopened = self.is_reopened(client).await?;
        Ok((!reopened).then_some(self.opened_at_micros))
    }
}
