//! What the entries of a log say of the tables, taken in as they come.

use std::collections::HashMap;
use std::fmt;

use audit::{Entry, Hash, Kind, RowDigest};
use uuid::Uuid;

use super::batches::PreviousBatches;
use super::covered::{API_KEYS, BATCHED, STATED, batched, stated};
use super::keys::Keys;
use super::row::{Values, from_json, hash_of, name_of};

/// Where an entry stands, for messages and for reading it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EntryPosition {
    pub(super) log: u16,
    pub(super) epoch: u32,
    pub(super) position: u64,
    kind: u8,
}

impl EntryPosition {
    pub(super) fn of(entry: &Entry) -> EntryPosition {
        EntryPosition {
            log: entry.log,
            epoch: entry.epoch,
            position: entry.position,
            kind: entry.kind.number(),
        }
    }
}

impl fmt::Display for EntryPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = Kind::from_number(self.kind);
        write!(f, "entry {} ({kind})", self.position)
    }
}

/// A row that an entry stated.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatedRow {
    pub(super) hash: Hash,
    pub(super) place: EntryPosition,
}

/// What an entry says of a delivery's rows in one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// Its place in [`BATCHED`].
    pub(super) table: usize,
    pub(super) batch: Uuid,
    pub(super) digest: RowDigest,
    pub(super) place: EntryPosition,
}

/// The entry that states everything that was there before it.
#[derive(Debug)]
pub(super) struct Baseline {
    pub(super) place: EntryPosition,
    recorded_at_micros: i64,
    /// Of deliveries before it, by the place in [`BATCHED`].
    pub(super) before: [Option<PreviousBatches>; BATCHED.len()],
}

/// Memory grows with what is in the tables of terms, and with the number of deliveries; not with quotes, nor with rates.
#[derive(Debug, Default)]
pub(crate) struct FollowedLog {
    /// By the place in [`STATED`] and the row's name.
    pub(super) rows: HashMap<(usize, String), StatedRow>,
    pub(super) keys: Keys,
    pub(super) claims: Vec<Claim>,
    pub(super) baseline: Option<Baseline>,
    /// The newest entry that was taken.
    pub(super) end: EntryPosition,
    /// When the first change of all was recorded.
    first_at_micros: Option<i64>,
}

impl FollowedLog {
    /// The next entry of a log, which is verified so far; or what it says that cannot be.
    pub(crate) fn take(&mut self, entry: &Entry) -> Result<(), String> {
        self.end = EntryPosition::of(entry);
        match entry.kind {
            Kind::Quote | Kind::BookPriced => match entry.fields.get("key_id") {
                Some(key_id) => self.asked_by(entry, key_id),
                None => Ok(()),
            },
            Kind::LocateChanged => match entry.fields.get("actor") {
                Some(actor) if actor.starts_with("key_") => self.asked_by(entry, actor),
                _ => Ok(()),
            },
            Kind::FeedLoaded
            | Kind::KeyChanged
            | Kind::BrokerChanged
            | Kind::ConfigurationChanged => self.change(entry),
            _ => Ok(()),
        }
    }

    /// The next entry of another log in the same database: who asked there is looked at when that log is verified.
    pub(crate) fn take_of_another(&mut self, entry: &Entry) -> Result<(), String> {
        match entry.kind {
            Kind::FeedLoaded
            | Kind::KeyChanged
            | Kind::BrokerChanged
            | Kind::ConfigurationChanged => self.change(entry),
            _ => Ok(()),
        }
    }

    /// Entries before the next one are missing: what they stated is not known, until everything is stated again (§12).
    pub(crate) fn forget(&mut self) {
        *self = FollowedLog {
            end: self.end,
            // Something was recorded before it; what, is not known.
            first_at_micros: Some(i64::MIN),
            ..FollowedLog::default()
        };
    }

    /// The first entry from which on everything is stated, if something was recorded before it.
    pub(super) fn not_covered_before(&self) -> Option<EntryPosition> {
        let baseline = self.baseline.as_ref()?;
        let is_late = self.first_at_micros? < baseline.recorded_at_micros;
        is_late.then_some(baseline.place)
    }

    fn asked_by(&self, entry: &Entry, key_id: &str) -> Result<(), String> {
        match self.keys.may_ask(key_id, entry.recorded_at_micros) {
            Some(answer) => answer,
            None if !self.covers(entry) => Ok(()),
            None => Err(format!(
                "it was asked for with {key_id}, and no entry before it made such a key"
            )),
        }
    }

    /// Whether what is not said before an entry was not there.
    fn covers(&self, entry: &Entry) -> bool {
        self.baseline.as_ref().is_some_and(|baseline| {
            baseline.place.log == entry.log
                || baseline.recorded_at_micros <= entry.recorded_at_micros
        })
    }

    fn change(&mut self, entry: &Entry) -> Result<(), String> {
        let place = EntryPosition::of(entry);
        self.begin(entry, place)?;
        let first = self.first_at_micros.unwrap_or(i64::MAX);
        self.first_at_micros = Some(first.min(entry.recorded_at_micros));
        if entry.kind == Kind::KeyChanged {
            self.keys.note(entry);
        }
        for (name, value) in entry.fields.iter() {
            let Some(table) = name.strip_prefix("rows.") else {
                continue;
            };
            let unreadable = || format!("its field {name} is not as the engine writes it");
            if let Some(index) = stated(table) {
                let rows: Vec<serde_json::Value> =
                    serde_json::from_str(value).map_err(|_| unreadable())?;
                for row in &rows {
                    let row = from_json(STATED[index], row).ok_or_else(unreadable)?;
                    self.state(index, row, place)?;
                }
            }
            if let Some(index) = batched(table) {
                let batch = entry.fields.get("batch_id").map(Uuid::parse_str);
                let (Some(Ok(batch)), Ok(digest)) = (batch, value.parse()) else {
                    return Err(unreadable());
                };
                self.claims.push(Claim {
                    table: index,
                    batch,
                    digest,
                    place,
                });
            }
        }
        Ok(())
    }

    /// The statement of everything comes once: a second one could call rows right that nobody entered.
    fn begin(&mut self, entry: &Entry, place: EntryPosition) -> Result<(), String> {
        if entry.fields.get("baseline").is_none() {
            return Ok(());
        }
        if let Some(first) = &self.baseline {
            return Err(format!(
                "it states all tables a second time, after {}: what changed between is on no record",
                first.place
            ));
        }
        let before = BATCHED.map(|table| entry.fields.get(&table.field_before())?.parse().ok());
        self.baseline = Some(Baseline {
            place,
            recorded_at_micros: entry.recorded_at_micros,
            before,
        });
        Ok(())
    }

    fn state(&mut self, index: usize, row: Values, place: EntryPosition) -> Result<(), String> {
        let table = STATED[index];
        if std::ptr::eq(table, &API_KEYS) {
            self.keys.state(row, place);
            return Ok(());
        }
        let (name, hash) = (name_of(table, &row), hash_of(table, &row));
        let stated = StatedRow { hash, place };
        match self.rows.insert((index, name.clone()), stated) {
            Some(before) if before.hash != hash => Err(format!(
                "it says another thing of {}: {name} than {}",
                table.name, before.place
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use audit::Fields;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn entry(position: u64, kind: Kind, fields: &[(&'static str, &str)]) -> Entry {
        Entry {
            log: 1,
            epoch: 1,
            position,
            previous: Hash::ZERO,
            recorded_at_micros: i64::try_from(position).unwrap() * HOUR,
            kind,
            fields: fields
                .iter()
                .map(|(name, value)| (*name, *value))
                .collect::<Fields>(),
        }
    }

    fn key(id: &str, expires_at: &str, revoked_at: &str) -> String {
        let revoked = match revoked_at {
            "" => String::new(),
            at => format!(r#","revoked_at":"1970-01-01T{at}:00:00.000000Z""#),
        };
        format!(
            r#"[{{"key_id":"{id}","expires_at":"1970-01-01T{expires_at}:00:00.000000Z"{revoked}}}]"#
        )
    }

    #[test]
    fn a_key_may_ask_from_its_entry_to_its_end() {
        let mut followed = FollowedLog::default();
        let check = |followed: &mut FollowedLog,
                     position,
                     fields: &[(&'static str, &str)],
                     expected: &str| {
            let kind = match fields[0].0 {
                "key_id" if fields.len() == 1 => Kind::Quote,
                "actor" => Kind::LocateChanged,
                _ => Kind::KeyChanged,
            };
            let found = followed.take(&entry(position, kind, fields));
            let found = found.err().unwrap_or_default();
            let same = found.contains(expected) && found.is_empty() == expected.is_empty();
            assert!(same, "{position}: {found}");
        };
        // Before anything is stated, older engines' entries are enough, and what they leave open is left open.
        check(&mut followed, 1, &[("key_id", "key_before")], "");
        check(
            &mut followed,
            2,
            &[("change", "created"), ("key_id", "key_old")],
            "",
        );
        let stated = key("key_a", "09", "");
        check(
            &mut followed,
            3,
            &[
                ("baseline", "all"),
                ("key_id", "key_a"),
                ("rows.api_keys", &stated),
            ],
            "",
        );
        check(&mut followed, 4, &[("key_id", "key_a")], "");
        check(&mut followed, 4, &[("actor", "key_a")], "");
        check(&mut followed, 4, &[("actor", "engine")], "");
        check(&mut followed, 4, &[("key_id", "key_old")], "");
        let nobody = "asked for with key_b, and no entry before it made such a key";
        check(&mut followed, 5, &[("key_id", "key_b")], nobody);
        check(&mut followed, 5, &[("actor", "key_b")], nobody);
        // Ended at six o'clock; whoever was let in a moment before is still recorded.
        let stated = key("key_a", "09", "06");
        check(
            &mut followed,
            6,
            &[
                ("change", "revoked"),
                ("key_id", "key_a"),
                ("rows.api_keys", &stated),
            ],
            "",
        );
        check(&mut followed, 6, &[("key_id", "key_a")], "");
        let ended = "which had ended before, as entry 6 (KeyChanged) says";
        check(&mut followed, 7, &[("key_id", "key_a")], ended);
        // No later entry, of whichever log, makes it live again.
        let stated = key("key_a", "23", "");
        check(
            &mut followed,
            8,
            &[
                ("change", "rotated"),
                ("key_id", "key_a"),
                ("rows.api_keys", &stated),
            ],
            "",
        );
        check(
            &mut followed,
            9,
            &[("key_id", "key_a")],
            "which had ended before",
        );
    }

    #[test]
    fn what_is_stated_is_stated_once_and_never_otherwise() {
        let mut followed = FollowedLog::default();
        let change = |position, fields: &[(&'static str, &str)]| {
            entry(position, Kind::ConfigurationChanged, fields)
        };
        let stocks = r#"[{"ticker":"GME","minimum_rate":"0.00000000"}]"#;
        let first = change(1, &[("baseline", "all"), ("rows.stocks", stocks)]);
        assert_eq!(followed.take(&first), Ok(()));
        assert_eq!(followed.not_covered_before(), None);
        assert_eq!(
            followed.take(&change(2, &[("rows.stocks", stocks)])),
            Ok(())
        );
        let other = stocks.replace("0.00", "0.50");
        let said = followed
            .take(&change(3, &[("rows.stocks", &other)]))
            .unwrap_err();
        assert_eq!(
            said,
            "it says another thing of stocks: ticker GME than entry 2 (ConfigurationChanged)"
        );
        let said = followed
            .take(&change(4, &[("baseline", "all")]))
            .unwrap_err();
        assert!(said.contains("a second time, after entry 1"), "{said}");
        for (name, value) in [
            ("rows.stocks", "{}"),
            ("rows.stocks", r#"[{"price":"1"}]"#),
            ("rows.base_rates", "3 abc"),
        ] {
            let said = followed.take(&change(5, &[(name, value)])).unwrap_err();
            assert!(
                said.contains(&format!("its field {name} is not as the engine writes it")),
                "{said}"
            );
        }
        // Behind entries that are missing nothing is known, and everything is stated once more.
        followed.forget();
        assert_eq!(
            followed.take(&change(7, &[("rows.stocks", &other)])),
            Ok(())
        );
        let again = change(8, &[("baseline", "all"), ("rows.stocks", &other)]);
        assert_eq!(followed.take(&again), Ok(()));
        assert_eq!(
            followed.not_covered_before().map(|place| place.position),
            Some(8)
        );
        // A table of a newer engine is its affair.
        assert_eq!(followed.take(&change(9, &[("rows.lenders", "[]")])), Ok(()));
    }
}
