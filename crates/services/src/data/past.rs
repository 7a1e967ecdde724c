//! The market as it was: views of moments, read from the database when first asked for and kept while they are asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::database::DatabaseError;
use super::reading::{self, Knowledge};
use super::refresher::MarketRefresher;
use crate::domain::moment::Moment;
use crate::domain::time::now_micros;
use crate::market::MarketView;

/// A view of the whole real market takes some 20 MB.
const VIEWS_MAX: usize = 6;

/// A view, and what it was read for.
#[derive(Debug)]
struct PastView {
    moment: Moment,
    /// Whoever asks later with nothing new known asks for the same.
    knowledge: Knowledge,
    view: Arc<MarketView>,
}

/// The views last asked for, the newest at the end.
#[derive(Debug, Default)]
pub(super) struct PastViews {
    views: Mutex<VecDeque<PastView>>,
    /// One is read at a time: a crowd that asks for the same moment waits for one reading.
    reading: tokio::sync::Mutex<()>,
}

impl PastViews {
    fn find(&self, is_it: impl Fn(&PastView) -> bool) -> Option<Arc<MarketView>> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let at = views.iter().position(is_it)?;
        let found = views.remove(at)?;
        let view = Arc::clone(&found.view);
        views.push_back(found);
        Some(view)
    }

    fn find_known(&self, as_of_micros: i64, knowledge: Knowledge) -> Option<Arc<MarketView>> {
        self.find(|past| past.moment.as_of_micros == as_of_micros && past.knowledge == knowledge)
    }

    fn put(&self, view: PastView) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.push_back(view);
        if views.len() > VIEWS_MAX {
            views.pop_front();
        }
    }
}

impl MarketRefresher {
    /// What counts when a caller asks for `as_of`: what was known by then. Where nothing was known yet (the first feed came later),
    /// what is known now; the answer says which.
    pub(crate) async fn moment(
        &self,
        as_of_micros: i64,
        known_at_micros: Option<i64>,
    ) -> Result<Moment, DatabaseError> {
        let known_at_micros = match known_at_micros {
            Some(known_at) => known_at,
            None => {
                let first = reading::first_known_at(&*self.client()?).await?;
                let was_known = first.is_some_and(|first| first <= as_of_micros);
                if was_known {
                    as_of_micros
                } else {
                    now_micros()
                }
            }
        };
        Ok(Moment {
            as_of_micros,
            known_at_micros,
        })
    }

    /// Whether the view in memory holds all that was known at that moment. Told of changes a moment late, it may not; hosts' clocks
    /// may differ a little, too.
    pub(crate) async fn is_current(&self, now_micros: i64) -> Result<bool, DatabaseError> {
        const DOUBT_MICROS: i64 = 5_000_000;
        let changed_at = reading::changed_at(&*self.client()?).await?.unwrap_or(0);
        let read_at = self.market.view().map_or(0, |view| view.read_at_micros());
        Ok(changed_at < read_at - DOUBT_MICROS && changed_at <= now_micros)
    }

    pub(crate) async fn view_at(&self, moment: Moment) -> Result<Arc<MarketView>, DatabaseError> {
        if let Some(view) = self.past.find(|past| past.moment == moment) {
            return Ok(view);
        }
        // `known_at` is another one at every request when it is now: what was known by then seldom is.
        let client = self.client()?;
        let knowledge = reading::knowledge(&client, moment.known_at_micros).await?;
        let as_of = moment.as_of_micros;
        if let Some(view) = self.past.find_known(as_of, knowledge) {
            return Ok(view);
        }
        let _turn = self.past.reading.lock().await;
        if let Some(view) = self.past.find_known(as_of, knowledge) {
            return Ok(view);
        }
        let data = reading::load(&client, Some(moment)).await?;
        let view = Arc::new(MarketView::new(&data, &self.market.feeds()));
        self.past.put(PastView {
            moment,
            knowledge,
            view: Arc::clone(&view),
        });
        Ok(view)
    }
}
