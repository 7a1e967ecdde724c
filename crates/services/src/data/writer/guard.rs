//! What the writer looks at again and again while it runs: that the log's end, its beginning, the entries that were signed and the rows
//! beside them are still there. Whoever takes something away is told of within a minute.

use audit::{Chain, EpochRecord, Head};
use tokio_postgres::Client;

use super::rows::log_number;
use crate::data::database::describe;

/// Entries before the log's end whose rows are looked for, each time and at the start.
const RECENT: u64 = 200;
const RECENT_AT_START: u64 = 10_000;
/// Signed places that are looked for.
const SIGNED_MAX: usize = 32;

/// In the writer's own session, in the order of its commits: nothing that it committed can be invisible.
const SQL: &str = "WITH recent AS (
        SELECT epoch, position, kind, quote_id FROM audit_log WHERE log = $1 AND epoch = $2 AND position > $4 AND position <= $3),
    signed AS (SELECT * FROM UNNEST($5::bigint[], $6::bytea[]) AS s (position, hash))
  SELECT (SELECT hash FROM audit_log WHERE log = $1 AND epoch = $2 AND position = $3),
    (SELECT position FROM audit_log WHERE log = $1 ORDER BY epoch, position LIMIT 1),
    (SELECT count(*) FROM recent), (SELECT min(position) FROM recent),
    (SELECT kind FROM recent ORDER BY position LIMIT 1),
    (SELECT min(r.position) FROM recent AS r WHERE r.kind = 1 AND NOT EXISTS (SELECT FROM quotes AS q WHERE q.quote_id = r.quote_id)),
    (SELECT min(r.position) FROM recent AS r WHERE r.kind = 10
        AND NOT EXISTS (SELECT FROM locates AS l WHERE (l.log, l.epoch, l.position) = ($1, r.epoch, r.position))),
    EXISTS (SELECT FROM quotes), EXISTS (SELECT FROM locates), EXISTS (SELECT FROM availability_ledger),
    EXISTS (SELECT FROM locates WHERE status = 'filled'),
    (SELECT min(s.position) FROM signed AS s WHERE NOT EXISTS (
        SELECT FROM audit_log AS a WHERE a.log = $1 AND a.epoch = $2 AND a.position = s.position AND a.hash = s.hash))";

const OPENED: i16 = 2;

/// What was there at an earlier look.
#[derive(Debug, Default)]
pub(super) struct Guard {
    quotes: bool,
    locates: bool,
    ledger: bool,
    looked: bool,
    /// Entries at the log's beginning that a person has given up.
    let_go: u64,
}

impl Guard {
    /// What openings name as missing is not looked for.
    pub(super) fn heed(&mut self, openings: &[EpochRecord]) {
        let missing = openings.iter().flat_map(|it| &it.missing_entries);
        let first = missing.filter(|stretch| stretch.from == 1);
        self.let_go = first.map(|stretch| stretch.to).max().unwrap_or(0);
    }

    /// What is gone, in words; the outer error: the database did not answer.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        chain: &Chain,
        heads: &[Head],
    ) -> Result<Option<String>, String> {
        let (log, epoch) = (log_number(chain.log()), chain.epoch().cast_signed());
        let end = chain.position();
        let recent = if self.looked { RECENT } else { RECENT_AT_START };
        let before = end.saturating_sub(recent);
        let signed = signed(heads, chain);
        let places: Vec<i64> = signed.iter().map(|head| head.size.cast_signed()).collect();
        let hashes: Vec<&[u8]> = signed
            .iter()
            .map(|head| &head.last_hash.as_bytes()[..])
            .collect();
        let row = client
            .query_one(
                SQL,
                &[
                    &log,
                    &epoch,
                    &end.cast_signed(),
                    &before.cast_signed(),
                    &places,
                    &hashes,
                ],
            )
            .await
            .map_err(|error| describe(&error))?;
        let seen = GuardReport {
            tip: row.get::<_, Option<Vec<u8>>>(0).as_deref()
                == Some(&chain.last_hash().as_bytes()[..]),
            first: row.get(1),
            recent: row.get(2),
            recent_from: row.get(3),
            recent_from_kind: row.get(4),
            quote_missing: row.get(5),
            locate_missing: row.get(6),
            quotes: row.get(7),
            locates: row.get(8),
            ledger: row.get(9),
            filled: row.get(10),
            signed_missing: row.get(11),
        };
        Ok(self.judge(end.cast_signed(), before.cast_signed(), &seen))
    }

    fn judge(&mut self, end: i64, before: i64, seen: &GuardReport) -> Option<String> {
        let gone = |what: String| Some(format!("{what}; run `bre verify audit`"));
        if !seen.tip {
            return gone(match seen.first {
                None => format!("audit_log is empty: its {end} entries were taken away"),
                Some(_) => format!(
                    "the log got shorter: entry {end}, its last, is not there as it was written"
                ),
            });
        }
        let first = self.let_go.cast_signed() + 1;
        if seen.first != Some(first) {
            return gone(format!(
                "the log's beginning was taken away: entry {first} is not there"
            ));
        }
        if let Some(position) = seen.signed_missing {
            return gone(format!(
                "entry {position}, which a head was signed for, is not there as it was written"
            ));
        }
        // The whole stretch, or from the epoch's opening on.
        let from = seen.recent_from.unwrap_or(end);
        let begins = from == before + 1 || seen.recent_from_kind == Some(OPENED);
        if seen.recent != end - from + 1 || !begins {
            return gone(format!("entries between {before} and {end} are missing"));
        }
        for (table, missing) in [
            ("quotes", seen.quote_missing),
            ("locates", seen.locate_missing),
        ] {
            if let Some(position) = missing {
                return gone(format!(
                    "the row of entry {position} in {table} is not there"
                ));
            }
        }
        for (table, was, is) in [
            ("quotes", &mut self.quotes, seen.quotes),
            ("locates", &mut self.locates, seen.locates),
            ("availability_ledger", &mut self.ledger, seen.ledger),
        ] {
            if *was && !is {
                return gone(format!("{table} is empty: its rows were taken away"));
            }
            *was = is;
        }
        if seen.filled && !seen.ledger {
            return gone("availability_ledger is empty, but locates were granted".to_owned());
        }
        self.looked = true;
        None
    }
}

/// What one look found.
#[derive(Clone, Debug, Default)]
struct GuardReport {
    tip: bool,
    first: Option<i64>,
    recent: i64,
    recent_from: Option<i64>,
    recent_from_kind: Option<i16>,
    quote_missing: Option<i64>,
    locate_missing: Option<i64>,
    quotes: bool,
    locates: bool,
    ledger: bool,
    filled: bool,
    signed_missing: Option<i64>,
}

/// Heads of the present epoch, evenly spread, the newest among them.
fn signed<'a>(heads: &'a [Head], chain: &Chain) -> Vec<&'a Head> {
    let of_epoch = |head: &&Head| head.epoch == chain.epoch() && head.size <= chain.position();
    let all: Vec<&Head> = heads.iter().filter(of_epoch).collect();
    let step = all.len().div_ceil(SIGNED_MAX).max(1);
    all.into_iter().rev().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> GuardReport {
        GuardReport {
            tip: true,
            first: Some(1),
            recent: 200,
            recent_from: Some(301),
            recent_from_kind: Some(1),
            quotes: true,
            locates: true,
            ledger: true,
            filled: true,
            ..GuardReport::default()
        }
    }

    #[test]
    fn whatever_is_taken_away_is_named() {
        let mut guard = Guard::default();
        assert_eq!(guard.judge(500, 300, &well()), None);
        let young = GuardReport {
            recent: 20,
            recent_from: Some(481),
            recent_from_kind: Some(OPENED),
            ..well()
        };
        assert_eq!(guard.judge(500, 300, &young), None);
        let mut told = |change: fn(&mut GuardReport), words: &str| {
            let mut seen = well();
            change(&mut seen);
            let said = guard.judge(500, 300, &seen).unwrap_or_default();
            assert!(said.contains(words), "{words}: {said}");
        };
        told(|seen| seen.tip = false, "got shorter");
        told(
            |seen| (seen.tip, seen.first) = (false, None),
            "audit_log is empty",
        );
        told(|seen| seen.first = Some(387), "beginning was taken away");
        told(|seen| seen.signed_missing = Some(312), "entry 312");
        told(|seen| seen.recent = 199, "are missing");
        told(
            |seen| (seen.recent, seen.recent_from) = (20, Some(481)),
            "are missing",
        );
        told(|seen| seen.quote_missing = Some(400), "entry 400 in quotes");
        told(
            |seen| seen.locate_missing = Some(401),
            "entry 401 in locates",
        );
        told(|seen| seen.quotes = false, "quotes is empty");
        told(|seen| seen.locates = false, "locates is empty");
        told(|seen| seen.ledger = false, "availability_ledger is empty");
        // At a start nothing is remembered; what was granted says that there was a ledger.
        let seen = GuardReport {
            ledger: false,
            ..well()
        };
        assert!(Guard::default().judge(500, 300, &seen).is_some());
        assert_eq!(guard.judge(500, 300, &well()), None);
    }
}
