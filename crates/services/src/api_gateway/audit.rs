//! `GET /api/v1/audit` and `/audit/{id}`: a client's own entries, with what is needed to check them.

use audit::Entry;
use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Gateway;
use super::errors::ApiError;
use super::lists::{List, Page};
use super::middleware::Caller;
use super::parameters::Parameters;
use crate::data::{COUNTED_MAX, EntryFilter, EntryId, StoredEntry, find_entries, find_entry};
use crate::domain::digits::whole;
use crate::domain::identifiers::{CLIENT_RULE, TICKER_RULE, is_client_id, is_ticker};
use crate::domain::time::rfc3339;

const LIST: &[&str] = &[
    "client_id",
    "ticker",
    "start_date",
    "end_date",
    "page",
    "page_size",
];
pub(super) const BY_ID: &[&str] = &["id"];
const DATE_RULE: &str = "must be a date such as 2026-04-01, or a time such as 2026-04-01T10:31:00Z";
pub(super) const ID_RULE: &str = "must be an entry's id such as 0-1-42, or a quote's id";

#[derive(Debug, Serialize)]
pub(super) struct EntryItem {
    /// log-epoch-position
    id: String,
    kind: &'static str,
    recorded_at: String,
    log: u16,
    epoch: u32,
    position: u64,
    hash: String,
    previous_hash: String,
    fields: Exact,
}

#[derive(Debug, Serialize)]
pub(super) struct EntryAnswer {
    status: &'static str,
    #[serde(flatten)]
    entry: EntryItem,
    /// The bytes that the hash is over, in hexadecimal: docs/formats/audit_log.md.
    canonical: String,
    /// Whether SHA-256 over them is the hash.
    hash_matches: bool,
}

/// An entry's fields; those that hold JSON are shown as JSON, digit for digit.
#[derive(Debug)]
struct Exact(Vec<(String, Field)>);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Field {
    Text(String),
    Json(Box<RawValue>),
}

impl Serialize for Exact {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

impl Exact {
    fn of(entry: &Entry) -> Exact {
        let field = |name: &str, value: &str| match name {
            "inputs" | "outputs" => RawValue::from_string(value.to_owned())
                .map_or_else(|_| Field::Text(value.to_owned()), Field::Json),
            _ => Field::Text(value.to_owned()),
        };
        let fields = entry.fields.iter();
        Exact(
            fields
                .map(|(name, value)| (name.to_owned(), field(name, value)))
                .collect(),
        )
    }
}

impl EntryItem {
    fn of(stored: &StoredEntry) -> EntryItem {
        let entry = &stored.entry;
        EntryItem {
            id: format!("{}-{}-{}", entry.log, entry.epoch, entry.position),
            kind: entry.kind.name(),
            recorded_at: rfc3339(entry.recorded_at_micros),
            log: entry.log,
            epoch: entry.epoch,
            position: entry.position,
            hash: stored.hash.to_string(),
            previous_hash: entry.previous.to_string(),
            fields: Exact::of(entry),
        }
    }
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<EntryItem>>, ApiError> {
    let own = &caller.0.stored.client_id;
    let mut parameters = Parameters::from_query(query.as_deref(), LIST);
    let client_id = parameters.maybe("client_id", CLIENT_RULE, |text| {
        is_client_id(text).then(|| text.to_owned())
    });
    let ticker = parameters.maybe("ticker", TICKER_RULE, |text| {
        is_ticker(text).then(|| text.to_owned())
    });
    let from_micros = parameters.maybe("start_date", DATE_RULE, |text| moment(text, Edge::Start));
    let to_micros = parameters.maybe("end_date", DATE_RULE, |text| moment(text, Edge::End));
    let page = Page::read_numbered(&mut parameters);
    parameters.finish()?;
    if client_id.is_some_and(|client_id| client_id != *own) {
        return Err(ApiError::Forbidden(
            "this API key may read only its own client's entries".to_owned(),
        ));
    }
    let filter = EntryFilter {
        client_id: own.clone(),
        ticker,
        from_micros,
        to_micros,
    };
    let client = gateway.refresher.client()?;
    let found = find_entries(&client, &filter, page.offset(), page.rows()).await?;
    let items: Vec<EntryItem> = found.entries.iter().map(EntryItem::of).collect();
    let seen = page.skip.saturating_add(items.len());
    let counted = usize::try_from(found.counted).unwrap_or(0);
    // A page beyond what was counted has been seen, at least.
    let total = if items.is_empty() {
        counted
    } else {
        counted.max(seen)
    };
    let is_minimum = found.counted >= COUNTED_MAX;
    Ok(Json(List::counted(
        items,
        page,
        total,
        found.has_more,
        is_minimum,
    )))
}

enum Edge {
    Start,
    End,
}

/// A day ends where the next one begins; a time is included.
fn moment(text: &str, edge: Edge) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        let micros = time.as_microsecond();
        return Some(match edge {
            Edge::Start => micros,
            Edge::End => micros.saturating_add(1),
        });
    }
    let day: Date = (text.len() == 10).then(|| text.parse().ok())??;
    let day = match edge {
        Edge::Start => day,
        Edge::End => match day.tomorrow() {
            Ok(next) => next,
            // The last day there is.
            Err(_) => return Some(Timestamp::MAX.as_microsecond()),
        },
    };
    let start = day.to_zoned(TimeZone::UTC).ok()?;
    Some(start.timestamp().as_microsecond())
}

pub(super) async fn by_id(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<EntryAnswer>, ApiError> {
    let id = entry_id(&id).ok_or_else(|| ApiError::invalid("id", "path", ID_RULE, BY_ID))?;
    let client = gateway.refresher.client()?;
    let found = find_entry(&client, &caller.0.stored.client_id, &id).await?;
    let stored = found.ok_or(ApiError::NotFound("there is no such entry of yours"))?;
    let canonical = stored.canonical.iter();
    Ok(Json(EntryAnswer {
        status: "success",
        entry: EntryItem::of(&stored),
        canonical: canonical.map(|byte| format!("{byte:02x}")).collect(),
        hash_matches: Entry::hash_of(&stored.canonical) == stored.hash,
    }))
}

pub(super) fn entry_id(text: &str) -> Option<EntryId> {
    let mut parts = text.split('-');
    let place = (parts.next()?, parts.next()?, parts.next());
    if let (log, epoch, Some(position)) = place
        && parts.next().is_none()
    {
        return Some(EntryId::Place {
            log: i16::try_from(whole(log)?).ok()?,
            epoch: i32::try_from(whole(epoch)?).ok()?,
            position: i64::try_from(whole(position)?).ok()?,
        });
    }
    let quote: Uuid = (text.len() == 36).then(|| text.parse().ok())??;
    Some(EntryId::Quote(quote.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_places_or_quotes() {
        let place = EntryId::Place {
            log: 0,
            epoch: 1,
            position: 42,
        };
        let quote = "0190163d-8694-739b-aea5-966c26f8ad91";
        for (text, expected) in [
            ("0-1-42", Some(place)),
            (quote, Some(EntryId::Quote(quote.to_owned()))),
            ("0-1", None),
            ("0-1-42-1", None),
            ("0-1--42", None),
            ("0-1-９", None),
            ("0-1-99999999999999999999", None),
            ("", None),
            ("' OR 1=1", None),
        ] {
            assert_eq!(entry_id(text), expected, "{text}");
        }
    }

    #[test]
    fn a_day_is_included_to_its_end() {
        let day = 1_774_998_000_000_000 - 1_774_998_000_000_000 % 86_400_000_000;
        let check = |text: &str, edge: Edge, expected: Option<i64>| {
            assert_eq!(moment(text, edge), expected, "{text}");
        };
        check("2026-03-31", Edge::Start, Some(day));
        check("2026-03-31", Edge::End, Some(day + 86_400_000_000));
        check("2026-03-31T00:00:00Z", Edge::End, Some(day + 1));
        check("2026-02-30", Edge::Start, None);
        check(
            "9999-12-31",
            Edge::End,
            Some(Timestamp::MAX.as_microsecond()),
        );
        check("yesterday", Edge::Start, None);
    }
}
