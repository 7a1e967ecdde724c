-- What a source said and what is not believed: figures that a guard set aside, and rows for a known ticker that could not be read (without
-- a value). A row of base_rates or volatility of the same source that is true later (or as late and known later) supersedes them. Prices
-- that rest on the figure before say so.
CREATE TABLE held_figures (
    figure            text NOT NULL CHECK (figure IN ('rate', 'volatility_index')),
    source            text NOT NULL,
    subject           text NOT NULL,
    valid_at          timestamptz NOT NULL,
    known_at          timestamptz NOT NULL,
    reason            text NOT NULL,
    value             numeric(20,8) CHECK (value >= 0),
    rebate            numeric(20,8),
    currency          text,
    available         bigint CHECK (available >= 0),
    available_or_more boolean NOT NULL DEFAULT false,
    symbol            text,
    name              text,
    isin              text,
    figi              text,
    status            text CHECK (status IN ('EASY', 'MEDIUM', 'HARD')),
    batch_id          uuid NOT NULL REFERENCES feed_batches
);
CREATE INDEX held_figures_newest ON held_figures (figure, source, subject, valid_at DESC, known_at DESC);

-- Deliveries that were not believed as a whole. One counts until a later delivery of the same source and kind is.
CREATE TABLE feed_refusals (
    source   text NOT NULL,
    kind     text NOT NULL,
    rule     text NOT NULL,
    sha256   bytea NOT NULL CHECK (length(sha256) = 32),
    valid_at timestamptz NOT NULL,
    known_at timestamptz NOT NULL
);
CREATE INDEX feed_refusals_newest ON feed_refusals (source, kind, valid_at DESC, known_at DESC);

GRANT SELECT, INSERT ON held_figures, feed_refusals TO bre_service;
