//! The loop of a writer that is up.

use std::time::Duration;

use audit::{ChainError, Kind, Sealed};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::{Batch, Outcome, outcome};
use super::open::Open;
use super::{Change, Mode, Recorded, Request, Task, Work, WriteError, WriterConfig, WriterState};
use crate::data::database::describe;
use crate::data::row::Columns;

/// A head at most this often.
const HEAD_EVERY: Duration = Duration::from_secs(1);
const FLUSHED_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum Ended {
    /// New orders.
    Ordered,
    Lost(String),
}

type Answer = oneshot::Sender<Result<Recorded, WriteError>>;

struct Waiting {
    sealed: Vec<Sealed>,
    /// Of quotes, their rows in `quotes`.
    rows: Vec<Columns>,
    answers: Vec<Answer>,
}

impl Task {
    pub(super) async fn serve(&mut self, mut open: Open) -> Ended {
        self.state.send_replace(WriterState::Serving {
            epoch: open.chain.epoch(),
        });
        // What was recovered or opened is signed for as soon as the repository holds it.
        let mut head_due = Some(Instant::now());
        loop {
            let head_timer = async {
                match head_due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let first = tokio::select! {
                biased;
                _ = self.orders.changed() => {
                    if self.orders.borrow().mode == Mode::Stop {
                        self.offer_head(&open).await;
                    }
                    return Ended::Ordered;
                }
                () = open.session.closed() => return Ended::Lost("the server closed the connection".to_owned()),
                () = head_timer => {
                    self.offer_head(&open).await;
                    head_due = None;
                    continue;
                }
                request = self.requests.recv() => match request {
                    Some(request) => request,
                    None => return Ended::Ordered,
                },
            };
            if let Err(ended) = self.take(&mut open, first).await {
                return ended;
            }
            let due = *head_due.get_or_insert_with(|| Instant::now() + HEAD_EVERY);
            if due <= Instant::now() {
                self.offer_head(&open).await;
                head_due = None;
            }
        }
    }

    /// Writes the request and all that wait behind it.
    async fn take(&mut self, open: &mut Open, first: Request) -> Result<(), Ended> {
        let mut next = Some(first);
        while let Some(request) = next.take() {
            let mut waiting = Waiting {
                sealed: Vec::new(),
                rows: Vec::new(),
                answers: Vec::new(),
            };
            let before = open.chain.clone();
            let mut current = Some(request);
            while let Some(request) = current.take() {
                match request.work {
                    // Nobody waits for it any more: it was answered, and was never begun.
                    Work::Quote(_) if request.answer.is_closed() => {}
                    Work::Quote(quote) => match open.chain.append(
                        Kind::Quote,
                        crate::time::now_micros(),
                        quote.fields,
                    ) {
                        Ok(sealed) => {
                            waiting.sealed.push(sealed);
                            waiting.rows.push(quote.row);
                            waiting.answers.push(request.answer);
                        }
                        Err(error) => refuse(request.answer, &error),
                    },
                    Work::Entry { .. } => {
                        next = Some(request);
                        break;
                    }
                }
                if waiting.sealed.len() < self.config.batch_max {
                    current = self.requests.try_recv().ok();
                }
            }
            if !waiting.sealed.is_empty() {
                self.commit_quotes(open, before, waiting).await?;
            }
            if let Some(Request {
                work:
                    Work::Entry {
                        kind,
                        fields,
                        change,
                    },
                answer,
            }) = next.take()
            {
                self.commit_entry(open, kind, fields, change, answer)
                    .await?;
            }
        }
        Ok(())
    }

    async fn commit_quotes(
        &mut self,
        open: &mut Open,
        before: audit::Chain,
        waiting: Waiting,
    ) -> Result<(), Ended> {
        if self.config.strict && !open.standby && !self.sees_standby(open).await? {
            open.chain = before;
            let why = "strict mode: the server does not wait for the stream to the repository yet";
            waiting
                .answers
                .into_iter()
                .for_each(|answer| drop(answer.send(Err(WriteError::refused("wal_stream", why)))));
            return Ok(());
        }
        let began = Instant::now();
        let mut batch = Batch::default();
        for (sealed, row) in waiting.sealed.iter().zip(&waiting.rows) {
            batch.push(sealed, Some(row));
        }
        let committed = async {
            let outcome = batch.commit(open).await;
            hold_back_until_held(&self.config, open, outcome).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = committed => outcome,
            _ = self.orders.changed() => Outcome::Lost("told to let go of the database".to_owned()),
        };
        drop(batch);
        metrics::histogram!("bre_commit_seconds").record(began.elapsed().as_secs_f64());
        metrics::counter!("bre_commits_total").increment(1);
        metrics::counter!("bre_entries_total").increment(waiting.sealed.len() as u64);
        self.settle(open, before, waiting, outcome)
    }

    async fn commit_entry(
        &mut self,
        open: &mut Open,
        kind: Kind,
        fields: audit::Fields,
        change: Change,
        answer: Answer,
    ) -> Result<(), Ended> {
        let before = open.chain.clone();
        let sealed = match open.chain.append(kind, crate::time::now_micros(), fields) {
            Ok(sealed) => sealed,
            Err(error) => {
                refuse(answer, &error);
                return Ok(());
            }
        };
        let ran = tokio::select! {
            biased;
            ran = transact(open, &sealed, &change) => outcome(&open.session, ran),
            _ = self.orders.changed() => Outcome::Lost("told to let go of the database".to_owned()),
        };
        self.settle(
            open,
            before,
            Waiting {
                sealed: vec![sealed],
                rows: Vec::new(),
                answers: vec![answer],
            },
            ran,
        )
    }

    /// Answers, and keeps in mind, what became of a commit.
    fn settle(
        &mut self,
        open: &mut Open,
        before: audit::Chain,
        waiting: Waiting,
        outcome: Outcome,
    ) -> Result<(), Ended> {
        let Waiting {
            sealed, answers, ..
        } = waiting;
        match outcome {
            Outcome::Committed { warnings, standby } => {
                open.standby = standby;
                self.tip.send_replace(Some(open.chain.clone()));
                let is_quote = sealed
                    .first()
                    .is_some_and(|sealed| sealed.entry.kind == Kind::Quote);
                let protected =
                    warnings.is_empty() && (standby || !self.config.strict || !is_quote);
                if !protected {
                    tracing::error!(
                        ?warnings,
                        entries = sealed.len(),
                        "committed without its guarantee: not acknowledged"
                    );
                    metrics::counter!("bre_unacknowledged_total").increment(sealed.len() as u64);
                }
                for (sealed, answer) in sealed.iter().zip(answers) {
                    let entry = &sealed.entry;
                    let recorded = Recorded {
                        log: entry.log,
                        epoch: entry.epoch,
                        position: entry.position,
                    };
                    drop(answer.send(if protected {
                        Ok(recorded)
                    } else {
                        Err(WriteError::unknown("database"))
                    }));
                }
                Ok(())
            }
            Outcome::RolledBack(reason) => {
                open.chain = before;
                tracing::error!(%reason, entries = sealed.len(), "the database took a commit back");
                answers.into_iter().for_each(|answer| {
                    drop(answer.send(Err(WriteError::refused("database", reason.clone()))))
                });
                // Somebody else wrote our log, or the server is ill: look again before anything else is written.
                Err(Ended::Lost(reason))
            }
            Outcome::Lost(reason) => {
                self.in_doubt = sealed.iter().map(|sealed| sealed.hash).collect();
                answers
                    .into_iter()
                    .for_each(|answer| drop(answer.send(Err(WriteError::unknown("database")))));
                Err(Ended::Lost(reason))
            }
        }
    }

    async fn sees_standby(&mut self, open: &mut Open) -> Result<bool, Ended> {
        let asked = open
            .session
            .client
            .query_one("SELECT current_setting('synchronous_standby_names')", &[]);
        let row = tokio::select! {
            biased;
            row = asked => row.map_err(|error| Ended::Lost(describe(&error)))?,
            _ = self.orders.changed() => return Err(Ended::Lost("told to let go of the database".to_owned())),
        };
        open.standby = !row.get::<_, String>(0).trim().is_empty();
        Ok(open.standby)
    }

    /// A head may be signed once the repository holds what the server has flushed by now.
    async fn offer_head(&self, open: &Open) {
        if let Some(lsn) = flushed(open).await
            && let Some(head) = open.chain.head(crate::time::now_micros(), lsn)
        {
            self.config.heads.offer(head);
        }
    }
}

/// Strict mode asks twice: the server waited for the stream, and the repository holds what it has flushed. The server alone
/// is not enough: a session may see the setting before the commits of the cluster obey it.
async fn hold_back_until_held(config: &WriterConfig, open: &Open, outcome: Outcome) -> Outcome {
    let Outcome::Committed {
        mut warnings,
        standby,
    } = outcome
    else {
        return outcome;
    };
    if config.strict && warnings.is_empty() {
        let held = match flushed(open).await {
            Some(lsn) => tokio::time::timeout(config.deadline, config.heads.held(lsn))
                .await
                .is_ok(),
            None => false,
        };
        if !held {
            warnings.push("the repository does not hold the commit".to_owned());
        }
    }
    Outcome::Committed { warnings, standby }
}

/// The end of what the server has written durably: at or beyond the last commit of this session. A server that does not answer
/// is no reason to hang here.
async fn flushed(open: &Open) -> Option<u64> {
    let asked = open.session.client.query_one(
        "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint",
        &[],
    );
    let row = tokio::time::timeout(FLUSHED_PATIENCE, asked).await.ok()?;
    u64::try_from(row.ok()?.get::<_, i64>(0)).ok()
}

fn refuse(answer: Answer, error: &ChainError) {
    drop(answer.send(Err(WriteError::refused("audit_log", error.to_string()))));
}

async fn transact(
    open: &mut Open,
    sealed: &Sealed,
    change: &Change,
) -> Result<bool, tokio_postgres::Error> {
    let transaction = open.session.client.transaction().await?;
    change.apply(&transaction).await?;
    let mut batch = Batch::default();
    batch.push(sealed, None);
    let standby = batch.insert(&transaction, &open.statement).await?;
    transaction.commit().await?;
    Ok(standby)
}
