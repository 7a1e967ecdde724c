//! Entries that an engine's audit log signs for as lost: what followed from them is not covered by it, and no fault.

use audit::{Entry, EpochRecord, Kind, Reason, Stretch, VerifyingKey, hex};
use postgres_physical::wire::WireError;

use super::Database;

/// An opening that accepts a loss.
#[derive(Debug)]
struct Opening {
    log: u16,
    epoch: u32,
    position: u64,
    recorded_at_micros: i64,
    /// Nothing of the log was left: positions count from 1 again.
    continues: bool,
    missing: Vec<Stretch>,
}

#[derive(Debug, Default)]
pub(super) struct KnownLosses {
    /// By log and place.
    openings: Vec<Opening>,
}

impl KnownLosses {
    /// Only what one of these keys signed excuses anything.
    pub(super) fn read(
        database: &mut Database<'_>,
        trusted: &[VerifyingKey],
    ) -> Result<Self, WireError> {
        let opened = Kind::EpochOpened.number();
        let rows = database.rows(&format!(
            "SELECT encode(canonical, 'hex') FROM audit_log WHERE kind = {opened} ORDER BY log, epoch, position"
        ))?;
        let openings = rows.iter().filter_map(|row| Opening::of(&row[0], trusted));
        Ok(Self {
            openings: openings.collect(),
        })
    }

    pub(super) fn is_none(&self) -> bool {
        self.openings.is_empty()
    }

    /// SQL: whether the entry that a row names is among those lost.
    pub(super) fn condition(&self, row: &str) -> String {
        let conditions: Vec<String> = self
            .openings
            .iter()
            .flat_map(|it| it.conditions(row))
            .collect();
        match conditions.is_empty() {
            true => "false".to_owned(),
            false => format!("({})", conditions.join(" OR ")),
        }
    }

    /// How many entries of a log are lost below its last position.
    pub(super) fn entries(&self, log: u64) -> u64 {
        let of_log = self.openings.iter().filter(|it| u64::from(it.log) == log);
        // Where nothing was left, what was lost before counts no more.
        let since = |it: &&Opening| it.continues;
        let from = of_log.clone().filter(since).map(|it| it.epoch).max();
        let of_now = of_log.filter(|it| from.is_none_or(|epoch| it.epoch > epoch));
        let mut stretches: Vec<Stretch> =
            of_now.flat_map(|it| it.missing.iter().copied()).collect();
        stretches.sort_unstable();
        let (mut entries, mut counted_to) = (0, 0);
        for stretch in stretches {
            let from = stretch.from.max(counted_to + 1);
            entries += (stretch.to + 1).saturating_sub(from);
            counted_to = counted_to.max(stretch.to);
        }
        entries
    }

    /// Whether an entry counts for what the tables hold: behind the newest such opening everything is stated again, and
    /// what was said before counts no more.
    pub(super) fn counts(&self, entry: &Entry) -> bool {
        let newest = self.openings.iter().max_by_key(|it| it.recorded_at_micros);
        newest.is_none_or(|opening| match entry.log == opening.log {
            true => (entry.epoch, entry.position) >= (opening.epoch, opening.position),
            false => entry.recorded_at_micros >= opening.recorded_at_micros,
        })
    }
}

impl Opening {
    fn of(canonical: &str, trusted: &[VerifyingKey]) -> Option<Self> {
        let bytes = hex::decode(canonical).ok()?;
        let entry = Entry::parse(&audit::expand(&bytes)).ok()?;
        let record = EpochRecord::read(&entry, trusted).ok()?;
        let continues = record.reason == Reason::Continued;
        (continues || !record.missing_entries.is_empty()).then_some(Self {
            log: entry.log,
            epoch: entry.epoch,
            position: entry.position,
            recorded_at_micros: entry.recorded_at_micros,
            continues,
            missing: record.missing_entries,
        })
    }

    fn conditions(&self, row: &str) -> Vec<String> {
        let Self { log, epoch, .. } = self;
        let before = format!("{row}.log = {log} AND {row}.epoch < {epoch}");
        if self.continues {
            return vec![format!("({before})")];
        }
        let stretch = |it: &Stretch| {
            let (from, to) = (it.from, it.to);
            format!("({before} AND {row}.position BETWEEN {from} AND {to})")
        };
        self.missing.iter().map(stretch).collect()
    }
}
