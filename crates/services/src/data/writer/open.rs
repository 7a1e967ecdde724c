//! Taking up a log: connect, hold the lock, read the tail, and believe it only as far as it agrees with what is known.

use audit::{
    Chain, ChainError, Entry, EpochOpening, EpochRecord, Head, HeadRange, Stretch, expand,
};
use connection::Landing;
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::Client;

use super::batch::Batch;
use super::guard::Guard;
use super::locates::{LocateBatch, UnsettledEpoch};
use super::openings::{Server, missing_entries, opened_epochs, write};
use super::rows::{
    end_of, entries_from, entry_at, follow_from, judge_whole, log_number, verify_whole,
};
use super::{LogPosition, Reopening, Task, WriterControl};
use crate::data::database::{DatabaseError, Session, connect, describe};
use crate::data::schema::rights::{APPEND_ONLY as RECORDED, Rights};
use crate::domain::known_log::Claim;
use crate::domain::protection::RecoveryFact;

/// A connection that holds the log's lock, and the log's end.
#[derive(Debug)]
pub(super) struct LogSession {
    pub(super) session: Session,
    pub(super) chain: Chain,
    pub(super) statement: tokio_postgres::Statement,
    pub(super) locate_statement: tokio_postgres::Statement,
    pub(super) unsettled: Option<UnsettledEpoch>,
    /// Whether entries are known to say what is in the tables.
    pub(super) covered: bool,
    /// Whether the server was last seen to wait for a standby.
    pub(super) standby: bool,
    pub(super) guard: Guard,
}

#[derive(Debug)]
pub(super) enum OpenError {
    /// New orders came in between.
    Interrupted,
    Away(String),
    Refusing(String),
    /// The role that serves may do what it must not; looked at again, for a grant is soon mended.
    Overprivileged(String),
}

impl From<tokio_postgres::Error> for OpenError {
    fn from(error: tokio_postgres::Error) -> OpenError {
        OpenError::Away(describe(&error))
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> OpenError {
        OpenError::Away(error.to_string())
    }
}

impl From<ChainError> for OpenError {
    fn from(error: ChainError) -> OpenError {
        OpenError::Refusing(error.to_string())
    }
}

/// The log's table, as a session that serves finds it.
pub(super) const TABLE: &str = "audit_log";

/// Marks our advisory locks among others of the same database: "breA" and the log's number.
const LOCK_SPACE: i32 = 0x6272_6541;

impl Task {
    pub(super) async fn open(&mut self, ordered: &WriterControl) -> Result<LogSession, OpenError> {
        let mut control = self.control.clone();
        let reopening = ordered.reopening.as_deref();
        // Once: whatever came of it, the next attempt is none.
        let answer = reopening.and_then(|reopening| {
            let mut answer = reopening.answer.lock();
            answer
                .as_mut()
                .map_or_else(|poisoned| poisoned.get_mut().take(), |answer| answer.take())
        });
        let reopening = reopening.filter(|_| answer.is_some());
        let opened = tokio::select! {
            biased;
            _ = control.changed() => Err(OpenError::Interrupted),
            opened = self.open_now(&ordered.database, reopening) => opened,
        };
        if let Some(answer) = answer {
            drop(answer.send(match &opened {
                Ok(open) => Ok(LogPosition {
                    log: open.chain.log(),
                    epoch: open.chain.epoch(),
                    position: open.chain.position(),
                }),
                Err(OpenError::Interrupted) => {
                    Err("the writer was told something else meanwhile".to_owned())
                }
                Err(
                    OpenError::Away(reason)
                    | OpenError::Refusing(reason)
                    | OpenError::Overprivileged(reason),
                ) => Err(reason.clone()),
            }));
        }
        opened
    }

    async fn open_now(
        &mut self,
        database: &str,
        reopening: Option<&Reopening>,
    ) -> Result<LogSession, OpenError> {
        if let Some(reason) = self.config.heads.invalid() {
            return Err(OpenError::Refusing(format!(
                "a signed head is not valid: {reason}"
            )));
        }
        let damage = self.config.heads.damage();
        let may_continue = self.config.heads.may_continue();
        if let (Some(damage), None, None, false) =
            (&damage, &self.recovery, reopening, may_continue)
        {
            return Err(OpenError::Refusing(damaged(damage)));
        }
        let session = connect(database, "bre audit writer", Landing::ReadWrite).await?;
        let client = &session.client;
        client.batch_execute("SET synchronous_commit = on; SET client_min_messages = warning; SET timezone = 'UTC'").await?;
        check_rights(client).await?;
        let row = client
            .query_one(
                "SELECT pg_is_in_recovery(), pg_try_advisory_lock($1, $2)",
                &[&LOCK_SPACE, &i32::from(self.config.log)],
            )
            .await?;
        if row.get::<_, bool>(0) {
            return Err(OpenError::Away(
                "the server is still in recovery".to_owned(),
            ));
        }
        // An old connection of ours keeps the lock until its transaction has ended one way or the other: from here on,
        // what the tail shows is final.
        if !row.get::<_, bool>(1) {
            let reason = format!("another session writes log {} already", self.config.log);
            return Err(OpenError::Away(reason));
        }
        let recovery = match self.recovery.clone() {
            Some(fact) if !is_opened(client, self.config.log, &fact).await? => Some(fact),
            _ => None,
        };
        let chain = match (&recovery, reopening, &damage) {
            _ if may_continue && end_of(client, self.config.log).await? == 0 => {
                Chain::new(self.config.log)
            }
            (None, None, None) => self.take_up(client).await?,
            // What was damaged is whole again, or it is not: only the whole log tells.
            (Some(_), None, Some(damage)) => self
                .whole_again(client)
                .await
                .map_err(|error| still_damaged(damage, error))?,
            (None, None, Some(damage)) => return Err(OpenError::Refusing(damaged(damage))),
            _ => self.take_up_recovered(client, reopening.is_some()).await?,
        };
        let statement = client.prepare(Batch::SQL).await?;
        let locate_statement = client.prepare(LocateBatch::SQL).await?;
        session.take_warnings();
        let mut open = LogSession {
            session,
            chain,
            statement,
            locate_statement,
            unsettled: None,
            covered: false,
            standby: false,
            guard: Guard::default(),
        };
        open.guard.heed(&self.openings(&open).await?);
        if open.chain.position() > 0 && reopening.is_none() {
            self.look_at_once(&mut open).await?;
        }
        if open.chain.position() == 0 || recovery.is_some() || reopening.is_some() {
            self.open_epoch(&mut open, recovery.as_ref(), reopening)
                .await?;
            self.config.heads.forget_damage();
        }
        self.config.heads.note_opened();
        let openings = self.openings(&open).await?;
        open.guard.heed(&openings);
        self.config.heads.set_named(&openings);
        open.unsettled = UnsettledEpoch::of(&open).await?;
        let closed = match &open.unsettled {
            Some(unsettled) => unsettled.closed_since(&open.session.client).await?,
            None => None,
        };
        self.closed.send_replace(closed);
        self.recovery_used = self
            .recovery
            .take()
            .map(|fact| fact.restore_id)
            .or(self.recovery_used.take());
        self.in_doubt.clear();
        self.tip.send_replace(Some(open.chain.clone()));
        Ok(open)
    }

    /// The log as this process, or else the newest signed head, left it.
    async fn take_up(&self, client: &Client) -> Result<Chain, OpenError> {
        let (log, keys) = (self.config.log, &self.config.heads.trusted());
        let known = self.tip.borrow().as_ref().and_then(|tip| tip.head(0, 0));
        if let Some(tip) = known {
            let chain = follow_from(client, log, Some(&tip), keys)
                .await?
                .map_err(|error| not_as_left(&tip, &error))?;
            self.only_in_doubt(client, &tip).await?;
            return Ok(chain);
        }
        let heads = self.config.heads.verified();
        let newest = heads.iter().max_by_key(|head| (head.epoch, head.size));
        let chain = match follow_from(client, log, newest, keys).await? {
            // The newest head may lie on an epoch that a recovery left behind, before the new epoch's first head was published.
            Err(ChainError::BehindHead { .. }) if end_of(client, log).await? > 0 => {
                verify_whole(client, log, &heads, keys).await?
            }
            // Or before entries that a person has given up, and whose opening has the tree.
            Err(error @ ChainError::Damaged { .. }) => {
                match judge_whole(client, log, &heads, keys).await {
                    Ok(Some(chain)) => chain,
                    Ok(None) | Err(OpenError::Refusing(_)) => return Err(error.into()),
                    Err(other) => return Err(other),
                }
            }
            // Of an empty log the opening says more.
            Err(ChainError::BehindHead { .. }) => Chain::new(log),
            followed => followed?,
        };
        let evidence = &self.config.heads.known.evidence;
        let beyond = |it: &&crate::domain::known_log::Evidence| {
            it.is_beyond(chain.epoch(), chain.position())
        };
        match evidence.iter().find(beyond) {
            Some(it) if chain.position() > 0 => Err(OpenError::Refusing(damaged(&format!(
                "{} says that the log had {} entries, and it ends at {}",
                it.what,
                it.size,
                chain.position()
            )))),
            _ => Ok(chain),
        }
    }

    /// The log as a restore left it: it may end before heads that are known, but must agree with those it reaches.
    async fn take_up_recovered(
        &self,
        client: &Client,
        is_reopening: bool,
    ) -> Result<Chain, OpenError> {
        let (log, keys) = (self.config.log, &self.config.heads.trusted());
        let mut heads = self.config.heads.verified();
        heads.extend(self.tip.borrow().as_ref().and_then(|tip| tip.head(0, 0)));
        if is_reopening {
            heads.extend(self.config.heads.left_at());
        }
        heads.sort_by_key(|head| std::cmp::Reverse((head.size, head.epoch)));
        let end = end_of(client, log).await?;
        let mut start = None;
        for head in heads.iter().filter(|head| head.size <= end) {
            let Some(stored) = entry_at(client, log, head.size).await? else {
                continue;
            };
            if stored.epoch != i64::from(head.epoch) {
                continue;
            }
            if Entry::hash_of(&stored.bytes) != head.last_hash {
                let reason = format!(
                    "the restored log disagrees with the head signed at epoch {}, size {}; run `bre verify audit`",
                    head.epoch, head.size
                );
                return Err(OpenError::Refusing(reason));
            }
            start = Some(head);
            break;
        }
        let error = match follow_from(client, log, start, keys).await? {
            Err(error @ ChainError::Damaged { .. }) => error,
            followed => return Ok(followed?),
        };
        // Entries that were given up before, and no head behind them yet: the opening that names them has the tree.
        match judge_whole(client, log, &[], keys).await {
            Ok(Some(chain)) => Ok(chain),
            Ok(None) | Err(OpenError::Refusing(_)) => Err(OpenError::Refusing(format!(
                "{error}. No head was signed behind what is missing, and this process did not write it: the tree of \
                 the log cannot continue. Restore the database to before the loss (bre restore database)"
            ))),
            Err(other) => Err(other),
        }
    }

    /// Beyond the tip there may be the whole commit whose outcome was unknown, and nothing else.
    async fn only_in_doubt(&self, client: &Client, tip: &Head) -> Result<(), OpenError> {
        let mut beyond = Vec::new();
        let rows = entries_from(client, TABLE, self.config.log, tip.size + 1).await?;
        pin_mut!(rows);
        while let Some(stored) = rows.try_next().await? {
            beyond.push(Entry::hash_of(&stored.bytes));
        }
        if beyond.is_empty() || beyond == self.in_doubt {
            return Ok(());
        }
        let reason = format!(
            "{} entries after position {} were not written by this engine; run `bre verify audit`",
            beyond.len(),
            tip.size
        );
        Err(OpenError::Refusing(reason))
    }

    /// After damage a restore must have brought back all of the log, and of its heads.
    async fn whole_again(&self, client: &Client) -> Result<Chain, OpenError> {
        let (log, keys) = (self.config.log, &self.config.heads.trusted());
        let chain = self.take_up_recovered(client, false).await?;
        let missing = self
            .config
            .heads
            .missing(true)
            .await
            .map_err(OpenError::Away)?;
        if let Some(range) = missing.first() {
            return Err(OpenError::Refusing(format!(
                "heads of epoch {} between the sizes {} and {} are not in the repository",
                range.epoch, range.from, range.to
            )));
        }
        judge_whole(client, log, &[], keys).await?;
        Ok(chain)
    }

    /// At the start, and wherever the log was taken up: what is gone is told before anything is written.
    async fn look_at_once(&self, open: &mut LogSession) -> Result<(), OpenError> {
        let heads = self.config.heads.verified();
        let looked = open
            .guard
            .look(&open.session.client, &open.chain, &heads)
            .await;
        match looked {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => {
                self.config.heads.note_damage(&reason);
                Err(OpenError::Refusing(damaged(&reason)))
            }
            Err(reason) => Err(OpenError::Away(reason)),
        }
    }

    async fn open_epoch(
        &self,
        open: &mut LogSession,
        recovery: Option<&RecoveryFact>,
        reopening: Option<&Reopening>,
    ) -> Result<(), OpenError> {
        let heads = &self.config.heads;
        let server = Server::of(&open.session.client).await?;
        let tip = self.tip.borrow().clone();
        let known_heads = self.known_heads(tip.as_ref());
        let end = open.chain.position();
        // How far the log is known to have gone, less what is there.
        let lost = known_heads
            .iter()
            .map(|head| head.size)
            .max()
            .map(|size| size.saturating_sub(end));
        // Of a log without entries the openings are gone as well that named heads as missing.
        let missing = heads.missing(reopening.is_some() || end == 0).await;
        let missing = missing.map_err(OpenError::Away)?;
        let holes = match reopening {
            Some(_) => {
                missing_entries(&open.session.client, self.config.log, &heads.trusted()).await?
            }
            None => Vec::new(),
        };
        let gone: u64 = holes.iter().map(Stretch::entries).sum();
        let (by, opening) = match (reopening, recovery) {
            (Some(_), _) if end == 0 => {
                return Err(OpenError::Refusing(format!(
                    "nothing of the log is left; {CONTINUE}"
                )));
            }
            (Some(reopening), _) => (
                format!("reopened {}", crate::domain::time::now_micros()),
                EpochOpening::Reopened {
                    timeline: server.timeline,
                    known_heads: &known_heads,
                    known_lost: Some(lost.unwrap_or(0).saturating_add(gone)),
                    why: &reopening.why,
                    actor: &reopening.actor,
                    missing_heads: &missing,
                    missing_entries: &holes,
                },
            ),
            (None, Some(fact)) if end > 0 => (
                fact.restore_id.clone(),
                EpochOpening::Recovery {
                    timeline: fact.timeline,
                    known_heads: &known_heads,
                    restore_id: &fact.restore_id,
                    target_lsn: fact.target_lsn,
                    known_lost: tip.as_ref().map(|tip| tip.position().saturating_sub(end)),
                    missing_heads: &missing,
                },
            ),
            (None, _) => self.first_opening(&server, (&known_heads, &missing), recovery, lost)?,
        };
        let claimed = match heads.last_claim() {
            // What was begun for the same thing may be ended under the same number.
            Some(claim) if claim.by == by => claim.epoch.saturating_sub(1),
            Some(claim) => claim.epoch,
            None => 0,
        };
        let epoch = open.chain.next_epoch(claimed, &opening);
        heads.claim(Claim { epoch, by }).await.map_err(|reason| {
            OpenError::Away(format!("the epoch could not be claimed: {reason}"))
        })?;
        let is_continued = matches!(opening, EpochOpening::Continued { .. });
        let anew = is_continued || !holes.is_empty();
        let opened = write(open, claimed, &opening, &heads.signing_key(), anew).await?;
        open.chain = opened.chain;
        open.covered |= opened.is_stated;
        if is_continued {
            heads.note_continued();
        }
        let (epoch, position) = (open.chain.epoch(), open.chain.position());
        tracing::info!(epoch, position, "epoch opened");
        Ok(())
    }

    /// Of a log without entries: a new one, or one that another was before and that is lost whole.
    fn first_opening<'a>(
        &self,
        server: &Server,
        (known_heads, missing_heads): (&'a [Head], &'a [HeadRange]),
        recovery: Option<&'a RecoveryFact>,
        lost: Option<u64>,
    ) -> Result<(String, EpochOpening<'a>), OpenError> {
        let known = &self.config.heads.known;
        let says = known.says(known_heads);
        if let Some(says) = says
            .as_deref()
            .filter(|_| !self.config.heads.may_continue())
        {
            return Err(OpenError::Refusing(format!(
                "the log is empty, but {says}: it is lost whole. Bring back what is missing (the WAL and tails of the repository, the database, \
                 or a further repository) and start again; {CONTINUE}"
            )));
        }
        let created = format!("created in cluster {}", server.system);
        let was_before = says.is_some()
            || recovery.is_some()
            || known.existed.is_some()
            || self
                .config
                .heads
                .last_claim()
                .is_some_and(|claim| claim.by != created);
        if !was_before {
            let timeline = server.timeline;
            return Ok((created, EpochOpening::Created { timeline }));
        }
        tracing::error!(
            says,
            existed = known.existed,
            "the log is empty and was not always so: another takes its place, in an epoch of its own"
        );
        let (restore_id, target_lsn) =
            recovery.map_or(("", 0), |fact| (&*fact.restore_id, fact.target_lsn));
        let by = match recovery {
            Some(fact) => fact.restore_id.clone(),
            None => format!("continued in cluster {}", server.system),
        };
        Ok((
            by,
            EpochOpening::Continued {
                timeline: recovery.map_or(server.timeline, |fact| fact.timeline),
                known_heads,
                restore_id,
                target_lsn,
                known_lost: lost,
                missing_heads,
            },
        ))
    }

    /// All heads that are known of, and what is known without one.
    fn known_heads(&self, tip: Option<&Chain>) -> Vec<Head> {
        let heads = &self.config.heads;
        let mut known = heads.verified();
        known.extend(tip.and_then(|tip| tip.head(0, 0)));
        let evidence = heads.known.evidence.iter();
        known.extend(evidence.filter_map(|it| it.as_head(self.config.log)));
        known
    }

    /// What opened the epochs of the log, where a trusted key signed it.
    async fn openings(&self, open: &LogSession) -> Result<Vec<EpochRecord>, OpenError> {
        opened_epochs(
            &open.session.client,
            self.config.log,
            &self.config.heads.trusted(),
        )
        .await
    }
}

/// What a writer says that does not go on after damage.
pub(super) fn damaged(reason: &str) -> String {
    format!(
        "{reason}. Restore the database, or the repository's heads, to before it (bre restore database); or, when you know what happened and \
         accept it: bre audit reopen --reason TEXT"
    )
}

const CONTINUE: &str = "only if all of it is truly lost, stop the engine and let another take its place: bre up --continue-log";

fn still_damaged(damage: &str, error: OpenError) -> OpenError {
    match error {
        OpenError::Refusing(reason) => OpenError::Refusing(format!(
            "{} (what was restored is damaged too: {reason})",
            damaged(damage)
        )),
        other => other,
    }
}

/// Invariant 7 of the role that this session is, each time a log is taken up: whoever finds a way into this process must not find with it a way to
/// change what is recorded.
async fn check_rights(client: &Client) -> Result<(), OpenError> {
    let sql = "SELECT session_user::text, n.nspname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
               WHERE c.oid = to_regclass($1)";
    // Before the first migration there is nothing to own.
    let Some(row) = client.query_opt(sql, &[&TABLE]).await? else {
        return Ok(());
    };
    let (role, schema): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let rights = Rights {
        client,
        schema: &schema,
        tables: &RECORDED,
    };
    let findings = rights.findings(&role).await?;
    if findings.is_empty() {
        return Ok(());
    }
    let said: Vec<&str> = findings.iter().map(|finding| &*finding.what).collect();
    Err(OpenError::Overprivileged(format!(
        "the serving role {role} may do what it must not: {}. Nothing is recorded by it: take that away (REVOKE, ALTER TABLE … OWNER TO), or name \
         a role of its own in [database] url, apart from owner_url: docs/operations/settings.md",
        said.join("; ")
    )))
}

fn not_as_left(tip: &Head, error: &ChainError) -> OpenError {
    OpenError::Refusing(format!(
        "the database does not hold the log as this engine left it (epoch {}, position {}): {error}. Without a recorded recovery this is \
         tampering or a restore by hand",
        tip.epoch, tip.size
    ))
}

async fn is_opened(client: &Client, log: u16, fact: &RecoveryFact) -> Result<bool, OpenError> {
    let sql = "SELECT canonical FROM audit_log WHERE log = $1 AND kind = 2 ORDER BY position DESC LIMIT 1";
    let row = client.query_opt(sql, &[&log_number(log)]).await?;
    let entry = row.and_then(|row| Entry::parse(&expand(row.get(0))).ok());
    Ok(entry.is_some_and(|entry| entry.fields.get("restore_id") == Some(&fact.restore_id)))
}
