//! The market in memory: rows as they were read, the view that every price is made from, the calendar, and the
//! settings of the feeds. No SQL and no HTTP: `data` reads and keeps it, `calculation` prices from it.

mod calendar;
mod event_risk;
mod feed_limits;
mod feed_settings;
mod offers;
mod rows;
mod shared;
mod stock;
mod terms;
mod view;

pub(crate) use calendar::{BeyondCalendar, Calendar, CalendarInForce, SpecialDay};
pub use feed_limits::FeedLimits;
pub use feed_settings::{FeedSettings, HttpSettings};
pub(crate) use offers::Dispersion;
pub(crate) use rows::{
    AnnouncedEvent, BaseRate, Definition, EventRisk, HeldFigure, LastLoad, MarketData,
    RefusedDelivery, TickerAlias, Volatility,
};
pub(crate) use shared::MarketCache;
pub(crate) use stock::{MinimumRate, Stock};
pub(crate) use terms::BrokerTerms;
pub(crate) use view::{Market, MarketError, MarketView, TickerInputs};
