-- Several sources for a ticker, events with dates, and reading "the newest of each" without walking through the history.

ALTER TABLE base_rates ADD COLUMN status text CHECK (status IN ('EASY', 'MEDIUM', 'HARD'));

-- The newest row of every (source, ticker) is the first of its group: the reader jumps from group to group.
CREATE INDEX base_rates_by_source ON base_rates (source, ticker, valid_at DESC, known_at DESC);
DROP INDEX base_rates_newest;

CREATE INDEX volatility_newest_index ON volatility (subject, valid_at DESC, known_at DESC) WHERE volatility_index IS NOT NULL;
CREATE INDEX volatility_newest_risk ON volatility (subject, valid_at DESC, known_at DESC) WHERE event_risk_factor IS NOT NULL;
CREATE INDEX volatility_by_source ON volatility (source, subject, valid_at DESC, known_at DESC);
DROP INDEX volatility_newest;

CREATE INDEX feed_batches_newest ON feed_batches (source, kind, valid_at DESC, known_at DESC);

-- A calendar comes whole: the newest batch of a source is all that it announces.
CREATE TABLE events (
    batch_id   uuid NOT NULL REFERENCES feed_batches,
    ticker     text NOT NULL,
    event_date date NOT NULL,
    kind       text NOT NULL,
    source     text NOT NULL,
    PRIMARY KEY (batch_id, ticker, event_date, kind)
);

GRANT SELECT, INSERT ON events TO bre_service;
GRANT INSERT, UPDATE (ticker, valid_to) ON aliases TO bre_service;
