//! What a decision is made by: read in one transaction, under the lock that all writers of this database take for locates, and
//! carried on from order to order within a commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use audit::Entry;
use jiff::civil::Date;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::record::{At, Figure, LedgerStep, Locate};
use super::request::{LocateCommand, LocateRequest, StoredLocate};
use super::states::Reason;
use crate::data::quotes::{QuoteEntry, quote_uuid};
use crate::data::writer::LogPosition;
use crate::domain::time::micros;
use crate::market::{Calendar, FeedSettings};

#[derive(Debug)]
pub(crate) struct LocateState {
    pub(super) now_micros: i64,
    pub(super) lot: i64,
    pub(super) calendar: Arc<Calendar>,
    closed: Option<Date>,
    locates: HashMap<Uuid, Locate>,
    /// By client and idempotency key.
    made: HashMap<(String, String), StoredLocate>,
    /// By locate and the client's order.
    uses: HashMap<(Uuid, String), Vec<StoredLocate>>,
    quotes: HashMap<Uuid, QuoteEntry>,
    used: HashSet<Uuid>,
    ledger_tails: HashMap<(String, Date), LedgerStep>,
    figures: HashMap<String, Result<Figure, Reason>>,
    /// Ticker and source of rates that the source itself contradicts since.
    unconfirmed: HashSet<(String, String)>,
    /// Asked for without an order.
    looked_at: Option<String>,
}

/// What a decision is made by and is not read from the database.
#[derive(Debug)]
pub(crate) struct DecisionContext<'a> {
    pub(crate) now_micros: i64,
    pub(crate) lot: i64,
    pub(crate) calendar: Arc<Calendar>,
    pub(crate) feeds: &'a FeedSettings,
    /// A trade date on which nothing is granted.
    pub(crate) closed: Option<Date>,
}

/// Text, so that no driver type is needed; PostgreSQL compares them as what they are.
fn texts<T: ToString>(items: impl Iterator<Item = T>) -> Vec<String> {
    items.map(|item| item.to_string()).collect()
}

const STEP: &str = "a.log, a.epoch, a.position, a.recorded_at, a.canonical";

impl LocateState {
    pub(super) fn new(calendar: &Arc<Calendar>) -> LocateState {
        LocateState {
            now_micros: 0,
            lot: 1,
            calendar: Arc::clone(calendar),
            closed: None,
            locates: HashMap::new(),
            made: HashMap::new(),
            uses: HashMap::new(),
            quotes: HashMap::new(),
            used: HashSet::new(),
            ledger_tails: HashMap::new(),
            figures: HashMap::new(),
            unconfirmed: HashSet::new(),
            looked_at: None,
        }
    }

    pub(crate) async fn read(
        client: &impl GenericClient,
        requests: &[&LocateRequest],
        terms: &DecisionContext<'_>,
    ) -> Result<LocateState, tokio_postgres::Error> {
        let mut state = LocateState {
            now_micros: terms.now_micros,
            lot: terms.lot.max(1),
            closed: terms.closed,
            ..LocateState::new(&terms.calendar)
        };
        state.read_locates(client, requests).await?;
        state.read_made(client, requests).await?;
        state.read_uses(client, requests).await?;
        state.read_quotes(client, requests).await?;
        state.read_ledger_tails(client).await?;
        state.read_figures(client, terms.feeds).await?;
        Ok(state)
    }

    /// Of one ticker, for nobody in particular.
    pub(super) async fn look(
        client: &impl GenericClient,
        ticker: &str,
        terms: &DecisionContext<'_>,
    ) -> Result<LocateState, tokio_postgres::Error> {
        let mut state = LocateState {
            now_micros: terms.now_micros,
            looked_at: Some(ticker.to_owned()),
            ..LocateState::new(&terms.calendar)
        };
        state.read_ledger_tails(client).await?;
        state.read_figures(client, terms.feeds).await?;
        Ok(state)
    }

    async fn read_locates(
        &mut self,
        client: &impl GenericClient,
        requests: &[&LocateRequest],
    ) -> Result<(), tokio_postgres::Error> {
        let ids = texts(requests.iter().map(|request| request.command.locate_id()));
        let sql = format!(
            "SELECT {STEP} FROM UNNEST($1::text[]) AS wanted (id) CROSS JOIN LATERAL \
               (SELECT * FROM locates WHERE locate_id = wanted.id::uuid ORDER BY sequence DESC LIMIT 1) AS newest \
             JOIN audit_log AS a USING (log, epoch, position)"
        );
        for stored in steps(client.query(&sql, &[&ids]).await?) {
            self.locates.insert(stored.locate.locate_id, stored.locate);
        }
        Ok(())
    }

    async fn read_made(
        &mut self,
        client: &impl GenericClient,
        requests: &[&LocateRequest],
    ) -> Result<(), tokio_postgres::Error> {
        let named = requests.iter().filter_map(|request| {
            let sent = request.idempotency.as_ref()?;
            Some((request.client_id.clone()?, sent.key.clone()))
        });
        let (clients, keys): (Vec<String>, Vec<String>) = named.unzip();
        if clients.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT {STEP} FROM UNNEST($1::text[], $2::text[]) AS wanted (client_id, idempotency_key) \
             JOIN locates USING (client_id, idempotency_key) JOIN audit_log AS a USING (log, epoch, position)"
        );
        for stored in steps(client.query(&sql, &[&clients, &keys]).await?) {
            self.remember(&stored);
        }
        Ok(())
    }

    async fn read_uses(
        &mut self,
        client: &impl GenericClient,
        requests: &[&LocateRequest],
    ) -> Result<(), tokio_postgres::Error> {
        let named = requests
            .iter()
            .filter_map(|request| match &request.command {
                LocateCommand::Use { locate_id, order } => {
                    Some((locate_id.to_string(), &order.order_id))
                }
                _ => None,
            });
        let (ids, names): (Vec<String>, Vec<&String>) = named.unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT {STEP} FROM UNNEST($1::text[], $2::text[]) AS wanted (id, w_order) \
             JOIN locates AS l ON l.locate_id = wanted.id::uuid AND l.order_id = wanted.w_order \
             JOIN audit_log AS a USING (log, epoch, position)"
        );
        for stored in steps(client.query(&sql, &[&ids, &names]).await?) {
            self.remember_use(&stored);
        }
        Ok(())
    }

    /// Of offers, and of what may have to be priced for a part.
    async fn read_quotes(
        &mut self,
        client: &impl GenericClient,
        requests: &[&LocateRequest],
    ) -> Result<(), tokio_postgres::Error> {
        let wanted = requests
            .iter()
            .filter_map(|request| match &request.command {
                LocateCommand::Offer { quote_id, .. } => Some(*quote_id),
                LocateCommand::Accept { locate_id } => Some(self.locates.get(locate_id)?.quote_id),
                _ => None,
            });
        let ids = texts(wanted);
        if ids.is_empty() {
            return Ok(());
        }
        let sql = "SELECT a.canonical, EXISTS (SELECT FROM locates AS l WHERE l.quote_id = q.quote_id AND l.sequence = 1) \
                   FROM quotes AS q JOIN audit_log AS a USING (log, epoch, position) WHERE q.quote_id = ANY ($1::text[]::uuid[])";
        for row in client.query(sql, &[&ids]).await? {
            let quote = Entry::parse(&audit::expand(row.get(0)))
                .ok()
                .and_then(|entry| QuoteEntry::read(&entry.fields).ok());
            let Some(quote) = quote else {
                tracing::error!("a recorded quote is damaged; run `bre verify audit`");
                continue;
            };
            let Some(id) = quote_uuid(&quote.facts.quote_id) else {
                continue;
            };
            if row.get(1) {
                self.used.insert(id);
            }
            self.quotes.insert(id, quote);
        }
        Ok(())
    }

    fn tickers(&self) -> HashSet<String> {
        let located = self.locates.values().map(|locate| locate.ticker.clone());
        let quoted = self
            .quotes
            .values()
            .map(|quote| quote.inputs.ticker.to_string());
        located
            .chain(quoted)
            .chain(self.looked_at.clone())
            .collect()
    }

    /// Of every day that these locates are of, and of the one that goes on now.
    async fn read_ledger_tails(
        &mut self,
        client: &impl GenericClient,
    ) -> Result<(), tokio_postgres::Error> {
        // Beyond the calendar nothing is granted; what was granted is still given back.
        let today = self.calendar.trade_date(self.now_micros).ok();
        let mut ledgers: HashSet<(String, Date)> = self
            .tickers()
            .into_iter()
            .filter_map(|ticker| Some((ticker, today?)))
            .collect();
        let theirs = self.locates.values();
        ledgers.extend(theirs.map(|locate| (locate.ticker.clone(), locate.trade_date)));
        let (tickers, dates): (Vec<String>, Vec<Date>) = ledgers.into_iter().unzip();
        let sql = "SELECT ticker, trade_date::text, h.sequence, h.change, h.available, h.outstanding, h.source, h.valid_at, h.known_at \
                   FROM UNNEST($1::text[], $2::text[]) AS wanted (w_ticker, w_date) CROSS JOIN LATERAL \
                     (SELECT * FROM availability_ledger WHERE ticker = w_ticker AND trade_date = w_date::date \
                      ORDER BY sequence DESC LIMIT 1) AS h";
        for row in client
            .query(sql, &[&tickers, &texts(dates.into_iter())])
            .await?
        {
            let Ok(trade_date) = row.get::<_, &str>(1).parse() else {
                continue;
            };
            let head = LedgerStep {
                trade_date,
                sequence: row.get(2),
                change: row.get(3),
                available: row.get(4),
                outstanding: row.get(5),
                source: row.get(6),
                valid_at: At(micros(row.get(7))),
                known_at: At(micros(row.get(8))),
            };
            self.ledger_tails.insert((row.get(0), trade_date), head);
        }
        Ok(())
    }

    /// What every source said last of each ticker. A file is a lender's whole list: a ticker that is missing from the newest one
    /// with its currency is not to be had there any more.
    async fn read_figures(
        &mut self,
        client: &impl GenericClient,
        feeds: &FeedSettings,
    ) -> Result<(), tokio_postgres::Error> {
        let tickers: Vec<String> = self.tickers().into_iter().collect();
        let mut said: HashMap<String, Vec<(Figure, bool)>> = HashMap::new();
        for row in client.query(FIGURES, &[&tickers]).await? {
            if row.get(7) {
                self.unconfirmed.insert((row.get(0), row.get(1)));
            }
            let Some(available) = row.get::<_, Option<i64>>(2) else {
                continue;
            };
            let figure = Figure {
                source: row.get(1),
                available,
                or_more: row.get(3),
                valid_at: At(micros(row.get(4))),
                known_at: At(micros(row.get(5))),
            };
            said.entry(row.get(0))
                .or_default()
                .push((figure, row.get(6)));
        }
        for ticker in tickers {
            let figures = said.remove(&ticker).unwrap_or_default();
            let chosen = choose(figures, feeds, self.now_micros);
            self.figures.insert(ticker, chosen);
        }
        Ok(())
    }

    /// A step that was just made counts for the orders behind it.
    pub(crate) fn note(&mut self, stored: &StoredLocate) {
        let locate = &stored.locate;
        if let Some(step) = &locate.step {
            let ledger = (locate.ticker.clone(), step.trade_date);
            self.ledger_tails.insert(ledger, step.clone());
        }
        self.used.insert(locate.quote_id);
        self.locates.insert(locate.locate_id, locate.clone());
        self.remember(stored);
        self.remember_use(stored);
    }

    fn remember_use(&mut self, stored: &StoredLocate) {
        let locate = &stored.locate;
        if let Some(order) = &locate.order {
            let name = (locate.locate_id, order.order_id.clone());
            let uses = self.uses.entry(name).or_default();
            // The same order may be asked about twice in one reading.
            if uses
                .iter()
                .all(|known| known.locate.sequence != locate.sequence)
            {
                uses.push(stored.clone());
            }
        }
    }

    /// What an order did with a locate's shares until now.
    pub(super) fn uses_of(&self, locate_id: Uuid, order_id: &str) -> &[StoredLocate] {
        let uses = self.uses.get(&(locate_id, order_id.to_owned()));
        uses.map_or(&[], Vec::as_slice)
    }

    fn remember(&mut self, stored: &StoredLocate) {
        if let Some(sent) = &stored.locate.idempotency {
            let name = (stored.locate.client_id.clone(), sent.key.clone());
            self.made.insert(name, stored.clone());
        }
    }

    pub(super) fn made_for(&self, client_id: Option<&str>, key: &str) -> Option<&StoredLocate> {
        self.made.get(&(client_id?.to_owned(), key.to_owned()))
    }

    pub(super) fn locate(&self, id: Uuid) -> Option<&Locate> {
        self.locates.get(&id)
    }

    pub(super) fn quote(&self, id: Uuid) -> Option<&QuoteEntry> {
        self.quotes.get(&id)
    }

    pub(super) fn is_used(&self, quote_id: &Uuid) -> bool {
        self.used.contains(quote_id)
    }

    /// Its rate, or the index that it was priced with, is contradicted by something newer.
    pub(super) fn is_unconfirmed(&self, quote: &QuoteEntry) -> bool {
        let inputs = &quote.inputs;
        let rate = (
            inputs.ticker.to_string(),
            inputs.base_rate.source.to_string(),
        );
        inputs.base_rate.is_contradicted()
            || inputs.volatility_index.is_contradicted()
            || self.unconfirmed.contains(&rate)
    }

    pub(super) fn is_closed(&self, trade_date: Date) -> bool {
        self.closed == Some(trade_date)
    }

    pub(super) fn head(&self, ticker: &str, trade_date: Date) -> Option<&LedgerStep> {
        self.ledger_tails.get(&(ticker.to_owned(), trade_date))
    }

    pub(super) fn outstanding(&self, ticker: &str, trade_date: Date) -> i64 {
        self.head(ticker, trade_date)
            .map_or(0, |head| head.outstanding)
    }

    pub(super) fn figure(&self, ticker: &str) -> Result<&Figure, Reason> {
        match self.figures.get(ticker) {
            Some(Ok(figure)) => Ok(figure),
            Some(Err(reason)) => Err(*reason),
            None => Err(Reason::AvailabilityUnknown),
        }
    }
}

#[cfg(test)]
impl LocateState {
    pub(super) fn set_figure(&mut self, ticker: &str, figure: Result<Figure, Reason>) {
        self.figures.insert(ticker.to_owned(), figure);
    }

    pub(super) fn set_unconfirmed(&mut self, ticker: &str, source: &str) {
        self.unconfirmed
            .insert((ticker.to_owned(), source.to_owned()));
    }

    pub(super) fn set_quote(&mut self, id: Uuid, quote: QuoteEntry) {
        self.quotes.insert(id, quote);
    }
}

const FIGURES: &str = "\
WITH RECURSIVE sources AS ( \
   (SELECT source FROM base_rates ORDER BY source LIMIT 1) \
 UNION ALL \
   SELECT next.source FROM sources CROSS JOIN LATERAL \
     (SELECT source FROM base_rates WHERE source > sources.source ORDER BY source LIMIT 1) AS next \
) \
SELECT wanted.ticker, r.source, r.available, r.available_or_more, r.valid_at, r.known_at, \
       b.kind NOT IN ('ibkr', 'accepted') OR NOT EXISTS (SELECT FROM feed_batches AS n \
           WHERE n.source = b.source AND n.kind = 'ibkr' AND (n.valid_at, n.known_at) > (b.valid_at, b.known_at) \
             AND EXISTS (SELECT FROM base_rates AS o WHERE o.batch_id = n.batch_id AND o.currency = r.currency)), \
       EXISTS (SELECT FROM held_figures AS h WHERE h.figure = 'rate' AND h.source = r.source AND h.subject = r.ticker AND h.value <> r.rate \
               AND (h.valid_at, h.known_at) > (r.valid_at, r.known_at)) \
FROM UNNEST($1::text[]) AS wanted (ticker) CROSS JOIN sources CROSS JOIN LATERAL \
     (SELECT * FROM base_rates AS o WHERE o.source = sources.source AND o.ticker = wanted.ticker \
      ORDER BY o.valid_at DESC, o.known_at DESC LIMIT 1) AS r JOIN feed_batches AS b USING (batch_id)";

/// The preferred source of those that are not too old. Each with whether it still lists the ticker.
fn choose(
    mut said: Vec<(Figure, bool)>,
    feeds: &FeedSettings,
    now_micros: i64,
) -> Result<Figure, Reason> {
    said.sort_by_key(|(figure, _)| {
        (
            feeds.rank(&figure.source),
            -figure.valid_at.0,
            figure.source.clone(),
        )
    });
    let known = !said.is_empty();
    let fresh = said.into_iter().find(|(figure, _)| {
        let life = feeds.rate_age_seconds_max(&figure.source) * 1_000_000;
        figure.valid_at.0.saturating_add(life) >= now_micros
    });
    match (fresh, known) {
        (Some((figure, true)), _) => Ok(figure),
        (Some((_, false)), _) => Err(Reason::NotListed),
        (None, true) => Err(Reason::AvailabilityStale),
        (None, false) => Err(Reason::AvailabilityUnknown),
    }
}

/// Steps read back from their entries. A damaged one is as good as none: nothing is decided by it.
pub(super) fn steps(rows: Vec<Row>) -> impl Iterator<Item = StoredLocate> {
    rows.into_iter().filter_map(|row| {
        let read = Entry::parse(&audit::expand(row.get(4)))
            .map_err(|error| error.to_string())
            .and_then(|entry| Locate::read(&entry.fields));
        match read {
            Ok(locate) => Some(StoredLocate {
                recorded: LogPosition {
                    log: row.get::<_, i16>(0).cast_unsigned(),
                    epoch: row.get::<_, i32>(1).cast_unsigned(),
                    position: row.get::<_, i64>(2).cast_unsigned(),
                },
                recorded_at_micros: micros(row.get(3)),
                locate,
            }),
            Err(error) => {
                tracing::error!(%error, "a recorded locate is damaged; run `bre verify audit`");
                None
            }
        }
    })
}
