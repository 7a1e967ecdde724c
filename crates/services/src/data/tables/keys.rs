//! Who could ask, and when: what the log says of each key, for the entries that name one.

use std::collections::HashMap;

use audit::{Entry, Kind};
use jiff::Timestamp;

use super::covered::API_KEYS;
use super::followed::EntryPosition;
use super::row::{Values, hash_of};

/// How long after its end a key may still be found in an entry: a request that was let in before, an instance that was cut off from
/// the database for a moment, clocks that differ.
pub(super) const GRACE_MICROS: i64 = 5 * 60 * 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Keys {
    by_id: HashMap<String, Key>,
}

#[derive(Debug)]
pub(super) struct Key {
    /// As it must stand in the table; absent where only older entries speak of it.
    pub(super) row: Option<Values>,
    /// The entry that spoke of it last.
    pub(super) place: EntryPosition,
    ends_at_micros: Option<i64>,
}

impl Keys {
    /// An entry of a change of keys, whatever else it says: older ones say no more than which key it was.
    pub(super) fn note(&mut self, entry: &Entry) {
        let Some(id) = entry.fields.get("key_id") else {
            return;
        };
        let place = EntryPosition::of(entry);
        let key = self.by_id.entry(id.to_owned()).or_insert(Key {
            row: None,
            place,
            ends_at_micros: None,
        });
        if entry.kind == Kind::KeyChanged && entry.fields.get("change") == Some("revoked") {
            let at = entry.recorded_at_micros;
            key.ends_at_micros = Some(key.ends_at_micros.map_or(at, |end| end.min(at)));
        }
    }

    /// A key's row as it was left by an entry. A key can only end earlier, so of several entries, of whichever logs, the earliest end counts.
    pub(super) fn state(&mut self, mut row: Values, place: EntryPosition) {
        let Some(id) = row[0].clone() else { return };
        let known = self.by_id.remove(&id);
        if let Some(before) = known.as_ref().and_then(|known| known.row.as_ref()) {
            let expires = column("expires_at");
            row[expires] = row[expires].take().min(before[expires].clone());
            let revoked = column("revoked_at");
            row[revoked] = before[revoked].clone().or(row[revoked].take());
        }
        let micros = |index: usize| {
            let text = row[index].as_deref()?;
            text.parse::<Timestamp>()
                .ok()
                .map(Timestamp::as_microsecond)
        };
        let ends = [column("expires_at"), column("revoked_at")];
        let ends_at_micros = ends.into_iter().filter_map(micros).min();
        let key = Key {
            row: Some(row),
            place,
            ends_at_micros,
        };
        self.by_id.insert(id, key);
    }

    /// Whether an entry recorded then may name it; if not, why. `None`: no entry speaks of it.
    pub(super) fn may_ask(&self, id: &str, recorded_at_micros: i64) -> Option<Result<(), String>> {
        let key = self.by_id.get(id)?;
        let late = |end: i64| recorded_at_micros > end.saturating_add(GRACE_MICROS);
        Some(match key.ends_at_micros.is_some_and(late) {
            true => Err(format!(
                "it was asked for with {id}, which had ended before, as {} says",
                key.place
            )),
            false => Ok(()),
        })
    }

    /// Those whose row is stated: id, row and where it was stated.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (Values, EntryPosition)> {
        let stated = |key: Key| key.row.map(|row| (row, key.place));
        self.by_id.into_values().filter_map(stated)
    }
}

fn column(name: &str) -> usize {
    let found = API_KEYS
        .columns
        .iter()
        .position(|(column, _)| *column == name);
    found.unwrap_or_default()
}

/// For the comparison: like any other row.
pub(super) fn hash(row: &Values) -> audit::Hash {
    hash_of(&API_KEYS, row)
}
