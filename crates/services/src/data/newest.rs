//! The newest of everything, whatever the length of the history. Each query begins at the first group of an index and jumps from
//! group to group: it reads one row a group, not the history. PostgreSQL has no skip scan of its own; the recursion is one.
//! Each says in a comment where a moment of the past comes in: what was not yet true or not yet known is passed over.

/// The same query for a moment: `$1` is when it had to be true, `$2` when it had to be known.
pub(super) fn at(query: &str) -> String {
    query.replace("/* then */", "AND valid_at <= $1 AND known_at <= $2")
}

/// Of every source and ticker. Public so that its plan can be looked at.
pub const RATES: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT source, ticker, rate, currency, valid_at, known_at, available, available_or_more, status FROM base_rates \
    WHERE true /* then */ ORDER BY source, ticker, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT source, ticker, rate, currency, valid_at, known_at, available, available_or_more, status FROM base_rates \
      WHERE (source, ticker) > (newest.source, newest.ticker) /* then */ \
      ORDER BY source, ticker, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT ticker, rate::text, currency, source, valid_at, known_at, available, available_or_more, status FROM newest";

/// Of every subject, from whichever source.
pub(super) const VOLATILITY: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT subject, volatility_index, source, valid_at FROM volatility WHERE volatility_index IS NOT NULL /* then */ \
    ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT subject, volatility_index, source, valid_at FROM volatility WHERE volatility_index IS NOT NULL AND subject > newest.subject /* then */ \
      ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT subject, volatility_index::text, source, valid_at FROM newest";

pub(super) const RISKS: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT subject, event_risk_factor, source, valid_at FROM volatility WHERE event_risk_factor IS NOT NULL /* then */ \
    ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT subject, event_risk_factor, source, valid_at FROM volatility WHERE event_risk_factor IS NOT NULL AND subject > newest.subject /* then */ \
      ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT subject, event_risk_factor, source, valid_at FROM newest";

/// The newest batch of every source and kind.
pub(super) const LOADS: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT source, kind, valid_at, known_at, rows, loaded, quarantined FROM feed_batches \
    WHERE true /* then */ ORDER BY source, kind, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT source, kind, valid_at, known_at, rows, loaded, quarantined FROM feed_batches WHERE (source, kind) > (newest.source, newest.kind) /* then */ \
      ORDER BY source, kind, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT kind, source, valid_at, known_at, rows, loaded, quarantined FROM newest";

/// What the newest calendar of every source announces.
pub(super) const ANNOUNCED: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT source, kind, valid_at, batch_id FROM feed_batches WHERE true /* then */ ORDER BY source, kind, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT source, kind, valid_at, batch_id FROM feed_batches WHERE (source, kind) > (newest.source, newest.kind) /* then */ \
      ORDER BY source, kind, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT events.ticker, events.event_date::text, events.source, newest.valid_at \
  FROM newest JOIN events USING (batch_id) WHERE newest.kind = 'events'";

/// What was said and is not believed, of every source and ticker.
pub(super) const HELD_RATES: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT source, subject, value, valid_at, known_at, reason FROM held_figures WHERE figure = 'rate' /* then */ \
    ORDER BY source, subject, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT source, subject, value, valid_at, known_at, reason FROM held_figures \
      WHERE figure = 'rate' AND (source, subject) > (newest.source, newest.subject) /* then */ \
      ORDER BY source, subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT source, subject, value::text, valid_at, known_at, reason FROM newest";

/// The same for indices of volatility.
pub(super) const HELD_INDICES: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT source, subject, value, valid_at, known_at, reason FROM held_figures WHERE figure = 'volatility_index' /* then */ \
    ORDER BY source, subject, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT source, subject, value, valid_at, known_at, reason FROM held_figures \
      WHERE figure = 'volatility_index' AND (source, subject) > (newest.source, newest.subject) /* then */ \
      ORDER BY source, subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT source, subject, value::text, valid_at, known_at, reason FROM newest";

/// The newest delivery of every source and kind that was not believed.
pub(super) const REFUSALS: &str = "\
WITH RECURSIVE newest AS ( \
   (SELECT source, kind, rule, valid_at, known_at FROM feed_refusals \
    WHERE true /* then */ ORDER BY source, kind, valid_at DESC, known_at DESC LIMIT 1) \
 UNION ALL \
   SELECT next.* FROM newest CROSS JOIN LATERAL \
     (SELECT source, kind, rule, valid_at, known_at FROM feed_refusals WHERE (source, kind) > (newest.source, newest.kind) /* then */ \
      ORDER BY source, kind, valid_at DESC, known_at DESC LIMIT 1) AS next \
) SELECT source, kind, rule, valid_at, known_at FROM newest";

#[cfg(test)]
mod tests {
    #[test]
    fn every_query_has_both_places_for_a_moment() {
        for query in [
            super::RATES,
            super::VOLATILITY,
            super::RISKS,
            super::LOADS,
            super::ANNOUNCED,
            super::HELD_RATES,
            super::HELD_INDICES,
            super::REFUSALS,
        ] {
            assert_eq!(
                super::at(query).matches("known_at <= $2").count(),
                2,
                "{query}"
            );
        }
    }
}
