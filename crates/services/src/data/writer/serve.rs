//! The loop of a writer that is up.

use std::time::Duration;

use audit::{ChainError, ChainLink, Fields, Kind, SealedEntry};
use tokio::time::Instant;

use super::batch::{Batch, CommitOutcome, outcome};
use super::open::LogSession;
use super::{
    Change, EntryWork, LogPosition, Mode, Reply, Task, Work, WriteError, WriterConfig, WriterState,
};
use crate::data::database::describe;
use crate::data::tables::{Statement, is_own_field};
use crate::domain::time::now_micros;

/// A head at most this often.
const HEAD_EVERY: Duration = Duration::from_secs(1);
const FLUSHED_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum SessionEnd {
    /// New orders.
    Ordered,
    Lost(String),
    /// Something of the log has disappeared.
    Damaged(String),
}

/// Entries of one commit.
pub(super) struct Commit {
    placed: Vec<ChainLink>,
    /// Whether a reply promises that the repository holds it, where that was demanded.
    promises: bool,
}

impl Commit {
    pub(super) fn of(sealed: &[SealedEntry]) -> Commit {
        let promises = [Kind::Quote, Kind::LocateChanged];
        let place = |sealed: &SealedEntry| ChainLink {
            log: sealed.entry.log,
            epoch: sealed.entry.epoch,
            position: sealed.entry.position,
            hash: sealed.hash,
        };
        Commit {
            promises: sealed
                .first()
                .is_some_and(|sealed| promises.contains(&sealed.entry.kind)),
            placed: sealed.iter().map(place).collect(),
        }
    }

    /// Replies to those who wait for its entries, in their order.
    fn reply(&self, replies: Vec<Reply>, certain: &Result<(), WriteError>) {
        for (placed, reply) in self.placed.iter().zip(replies) {
            let recorded = LogPosition {
                log: placed.log,
                epoch: placed.epoch,
                position: placed.position,
            };
            drop(reply.send(certain.clone().map(|()| recorded)));
        }
    }
}

impl Task {
    pub(super) async fn serve(&mut self, mut open: LogSession) -> SessionEnd {
        self.state.send_replace(WriterState::Serving {
            epoch: open.chain.epoch(),
        });
        // What was recovered or opened is signed for as soon as the repository holds it.
        let mut head_due = Some(Instant::now());
        let look_every = self.config.heads.look_every;
        let mut look_due = Instant::now() + look_every;
        let mut damage = self.config.heads.watch_damage();
        loop {
            let head_timer = async {
                match head_due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let first = tokio::select! {
                biased;
                _ = self.control.changed() => {
                    if self.control.borrow().mode == Mode::Stop {
                        self.offer_head(&open).await;
                    }
                    return SessionEnd::Ordered;
                }
                () = open.session.closed() => return SessionEnd::Lost("the server closed the connection".to_owned()),
                reason = found_damaged(&mut damage) => return SessionEnd::Damaged(reason),
                () = tokio::time::sleep_until(look_due) => {
                    if let Err(ended) = self.check_guard(&mut open).await {
                        return ended;
                    }
                    look_due = Instant::now() + look_every;
                    continue;
                }
                () = head_timer => {
                    self.offer_head(&open).await;
                    head_due = None;
                    continue;
                }
                work = self.works.recv() => match work {
                    Some(work) => work,
                    None => return SessionEnd::Ordered,
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

    /// Whether all that was written is still there.
    async fn check_guard(&mut self, open: &mut LogSession) -> Result<(), SessionEnd> {
        let heads = self.config.heads.verified();
        let looked = open.guard.look(&open.session.client, &open.chain, &heads);
        let looked = tokio::select! {
            biased;
            looked = looked => looked,
            _ = self.control.changed() => return Err(SessionEnd::Lost("told to let go of the database".to_owned())),
        };
        match looked {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(SessionEnd::Damaged(reason)),
            Err(reason) => Err(SessionEnd::Lost(reason)),
        }
    }

    /// Writes the work, and what of its kind waits behind it, in one commit.
    async fn take(&mut self, open: &mut LogSession, first: Work) -> Result<(), SessionEnd> {
        match first {
            Work::Entry(work) => self.commit_entry(open, work).await,
            Work::Locate(first) => self.take_locates(open, first).await,
            quote @ Work::Quote { .. } => self.take_quotes(open, quote).await,
        }
    }

    async fn take_quotes(&mut self, open: &mut LogSession, first: Work) -> Result<(), SessionEnd> {
        let before = open.chain.clone();
        let mut commit = Commit {
            placed: Vec::new(),
            promises: true,
        };
        let mut replies = Vec::new();
        let mut batch = std::mem::take(&mut self.free_batch);
        let mut current = Some(first);
        while let Some(work) = current.take() {
            match work {
                // Nobody waits for it any more: it was answered, and was never begun.
                Work::Quote { reply, .. } if reply.is_closed() => {}
                Work::Quote { quote, reply } => {
                    match batch.quote(&mut open.chain, now_micros(), &quote) {
                        Ok(placed) => {
                            commit.placed.push(placed);
                            replies.push(reply);
                        }
                        Err(error) => refuse(reply, &error),
                    }
                }
                other => {
                    self.works.put_back(other);
                    break;
                }
            }
            if commit.placed.len() < self.config.batch_max {
                current = self.works.try_recv();
            }
        }
        let ended = match commit.placed.is_empty() {
            true => Ok(()),
            false => {
                self.commit_quotes(open, before, &commit, replies, &batch)
                    .await
            }
        };
        batch.clear();
        self.free_batch = batch;
        ended
    }

    async fn commit_quotes(
        &mut self,
        open: &mut LogSession,
        before: audit::Chain,
        commit: &Commit,
        replies: Vec<Reply>,
        batch: &Batch,
    ) -> Result<(), SessionEnd> {
        if self.config.strict && !open.standby && !self.sees_standby(open).await? {
            open.chain = before;
            let why = "strict mode: the server does not wait for the stream to the repository yet";
            commit.reply(replies, &Err(WriteError::refused("wal_stream", why)));
            return Ok(());
        }
        let began = Instant::now();
        let committed = async {
            let outcome = batch.commit(open).await;
            wait_until_durable(&self.config, open, outcome).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = committed => outcome,
            _ = self.control.changed() => CommitOutcome::Lost("told to let go of the database".to_owned()),
        };
        metrics::histogram!("bre_commit_seconds").record(began.elapsed().as_secs_f64());
        metrics::counter!("bre_commits_total").increment(1);
        metrics::counter!("bre_entries_total").increment(commit.placed.len() as u64);
        let (certain, ended) = self.finish_commit(open, before, commit, outcome);
        commit.reply(replies, &certain);
        ended
    }

    async fn commit_entry(
        &mut self,
        open: &mut LogSession,
        work: EntryWork,
    ) -> Result<(), SessionEnd> {
        let EntryWork {
            kind,
            fields,
            change,
            reply,
        } = work;
        if let Some(name) = fields
            .iter()
            .map(|(name, _)| name)
            .find(|name| is_own_field(name))
        {
            let why = format!(
                "the field {name} says what is in the tables: only the writer of the log sets it"
            );
            drop(reply.send(Err(WriteError::refused("audit_log", why))));
            return Ok(());
        }
        let before = open.chain.clone();
        let mut sealed = Vec::new();
        let ran = tokio::select! {
            biased;
            ran = transact(open, kind, fields, &change, &mut sealed) => match ran {
                Ok((standby, covered)) => {
                    open.covered = covered;
                    outcome(&open.session, Ok(standby))
                }
                Err(ChangeError::Server(error)) => outcome(&open.session, Err(error)),
                Err(ChangeError::Entry(error)) => {
                    open.chain = before;
                    refuse(reply, &error);
                    return Ok(());
                }
            },
            _ = self.control.changed() => CommitOutcome::Lost("told to let go of the database".to_owned()),
        };
        let reopens = matches!(change, Change::LocatesReopened { .. });
        let commit = Commit::of(&sealed);
        let (certain, ended) = self.finish_commit(open, before, &commit, ran);
        commit.reply(vec![reply], &certain);
        if reopens && ended.is_ok() {
            self.closed.send_replace(None);
        }
        ended
    }

    /// Keeps in mind what became of a commit. What is certain of its entries, and whether writing continues.
    pub(super) fn finish_commit(
        &mut self,
        open: &mut LogSession,
        before: audit::Chain,
        commit: &Commit,
        outcome: CommitOutcome,
    ) -> (Result<(), WriteError>, Result<(), SessionEnd>) {
        let entries = commit.placed.len();
        match outcome {
            CommitOutcome::Committed { warnings, standby } => {
                open.standby = standby;
                self.tip.send_replace(Some(open.chain.clone()));
                let protected =
                    warnings.is_empty() && (standby || !self.config.strict || !commit.promises);
                if protected {
                    return (Ok(()), Ok(()));
                }
                tracing::error!(
                    ?warnings,
                    entries,
                    "committed without its guarantee: not acknowledged"
                );
                metrics::counter!("bre_unacknowledged_total").increment(entries as u64);
                (Err(WriteError::unknown("database")), Ok(()))
            }
            CommitOutcome::RolledBack(reason) => {
                open.chain = before;
                tracing::error!(%reason, entries, "the database took a commit back");
                let refused = WriteError::refused("database", reason.clone());
                // Somebody else wrote our log, or the server is ill: look again before anything else is written.
                (Err(refused), Err(SessionEnd::Lost(reason)))
            }
            CommitOutcome::Lost(reason) => {
                self.in_doubt = commit.placed.iter().map(|placed| placed.hash).collect();
                (
                    Err(WriteError::unknown("database")),
                    Err(SessionEnd::Lost(reason)),
                )
            }
        }
    }

    pub(super) async fn sees_standby(&mut self, open: &mut LogSession) -> Result<bool, SessionEnd> {
        let asked = open
            .session
            .client
            .query_one("SELECT current_setting('synchronous_standby_names')", &[]);
        let row = tokio::select! {
            biased;
            row = asked => row.map_err(|error| SessionEnd::Lost(describe(&error)))?,
            _ = self.control.changed() => return Err(SessionEnd::Lost("told to let go of the database".to_owned())),
        };
        open.standby = !row.get::<_, String>(0).trim().is_empty();
        Ok(open.standby)
    }

    /// A head may be signed once the repository holds what the server has flushed by now.
    async fn offer_head(&self, open: &LogSession) {
        if let Some(lsn) = flushed(open).await
            && let Some(head) = open.chain.head(now_micros(), lsn)
        {
            self.config.heads.offer(head);
        }
    }
}

/// Returns when there is damage.
async fn found_damaged(damage: &mut tokio::sync::watch::Receiver<Option<String>>) -> String {
    let found = damage.wait_for(Option::is_some).await;
    let reason = found.ok().and_then(|damage| damage.clone());
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

/// Strict mode asks twice: the server waited for the stream, and the repository holds what it has flushed. The server alone
/// is not enough: a session may see the setting before the commits of the cluster obey it.
pub(super) async fn wait_until_durable(
    config: &WriterConfig,
    open: &LogSession,
    outcome: CommitOutcome,
) -> CommitOutcome {
    let CommitOutcome::Committed {
        mut warnings,
        standby,
    } = outcome
    else {
        return outcome;
    };
    if config.strict && warnings.is_empty() {
        let durable = match flushed(open).await {
            Some(lsn) => tokio::time::timeout(config.deadline, config.heads.until_durable(lsn))
                .await
                .is_ok(),
            None => false,
        };
        if !durable {
            warnings.push("the repository does not hold the commit".to_owned());
        }
    }
    CommitOutcome::Committed { warnings, standby }
}

/// The end of what the server has written durably: at or beyond the last commit of this session. A server that does not answer
/// is no reason to hang here.
async fn flushed(open: &LogSession) -> Option<u64> {
    let asked = open.session.client.query_one(
        "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint",
        &[],
    );
    let row = tokio::time::timeout(FLUSHED_TIMEOUT, asked).await.ok()?;
    u64::try_from(row.ok()?.get::<_, i64>(0)).ok()
}

fn refuse(reply: Reply, error: &ChainError) {
    drop(reply.send(Err(WriteError::refused("audit_log", error.to_string()))));
}

/// Why a change was not recorded.
pub(super) enum ChangeError {
    /// The log takes no such entry: nothing was changed.
    Entry(ChainError),
    Server(tokio_postgres::Error),
}

impl From<ChainError> for ChangeError {
    fn from(error: ChainError) -> ChangeError {
        ChangeError::Entry(error)
    }
}

impl From<tokio_postgres::Error> for ChangeError {
    fn from(error: tokio_postgres::Error) -> ChangeError {
        ChangeError::Server(error)
    }
}

/// Makes a change and records what it left in the tables, in one transaction: whether a standby was waited for, and whether entries say
/// what is in the tables. In `sealed` is what was on its way when it ends, however it ends.
async fn transact(
    open: &mut LogSession,
    kind: Kind,
    fields: Fields,
    change: &Change,
    sealed: &mut Vec<SealedEntry>,
) -> Result<(bool, bool), ChangeError> {
    let transaction = open.session.client.transaction().await?;
    let mut statement = Statement::default();
    change.apply(&transaction, &mut statement).await?;
    let mut covered = open.covered;
    if !covered && !matches!(change, Change::None) {
        covered = statement
            .begin_coverage(&transaction, change.batch())
            .await?;
    }
    let own = (open.chain.position() + 1).to_string();
    let (fields, following) = statement.complete(fields);
    let following = following.into_iter().map(|fields| {
        let fields = fields.with("actor", "engine").with("name", "rows");
        (Kind::ConfigurationChanged, fields.with("of", own.clone()))
    });
    let mut batch = Batch::default();
    for (kind, fields) in std::iter::once((kind, fields)).chain(following) {
        let now = now_micros();
        let entry = open.chain.append(kind, now, fields)?;
        batch.push(&entry);
        sealed.push(entry);
    }
    let standby = batch
        .insert(&transaction, &open.statement, &open.session.word)
        .await?;
    transaction.commit().await?;
    Ok((standby, covered))
}
