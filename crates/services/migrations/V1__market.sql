-- What the engine knows about the market. All of it is append-only for the serving role: a newer row wins, an older one
-- stays, so that the past can be priced as it was known (valid_at: when it was true; known_at: when it reached us).

CREATE TABLE stocks (
    ticker       text PRIMARY KEY CHECK (ticker ~ '^[A-Z0-9][A-Z0-9 ./]{0,11}$'),
    status       text CHECK (status IN ('EASY', 'MEDIUM', 'HARD')),
    lender_id    text,
    minimum_rate numeric(20,8) NOT NULL DEFAULT 0 CHECK (minimum_rate >= 0)
);

CREATE TABLE brokers (
    client_id      text PRIMARY KEY CHECK (client_id ~ '^[A-Za-z0-9_-]{3,50}$'),
    markup_percent numeric(20,8) NOT NULL CHECK (markup_percent >= 0),
    fee_type       text NOT NULL CHECK (fee_type IN ('FLAT', 'PERCENTAGE')),
    fee_amount     numeric(20,8) NOT NULL CHECK (fee_amount >= 0),
    tier           text NOT NULL CHECK (tier IN ('standard', 'premium', 'internal')),
    convention     text NOT NULL,
    policy         text NOT NULL,
    active         boolean NOT NULL DEFAULT true,
    changed_at     timestamptz NOT NULL
);

CREATE TABLE feed_batches (
    batch_id    uuid PRIMARY KEY,
    kind        text NOT NULL,
    source      text NOT NULL,
    sha256      bytea NOT NULL CHECK (length(sha256) = 32),
    rows        integer NOT NULL,
    loaded      integer NOT NULL,
    quarantined integer NOT NULL,
    valid_at    timestamptz NOT NULL,
    known_at    timestamptz NOT NULL,
    CHECK (rows = loaded + quarantined)
);

CREATE TABLE base_rates (
    ticker             text NOT NULL,
    valid_at           timestamptz NOT NULL,
    known_at           timestamptz NOT NULL,
    rate               numeric(20,8) NOT NULL CHECK (rate >= 0),
    rebate             numeric(20,8),
    currency           text NOT NULL,
    available          bigint CHECK (available >= 0),
    available_or_more  boolean NOT NULL DEFAULT false,
    source             text NOT NULL,
    symbol             text NOT NULL,
    name               text,
    isin               text,
    figi               text,
    batch_id           uuid NOT NULL REFERENCES feed_batches
);
CREATE INDEX base_rates_newest ON base_rates (ticker, valid_at DESC, known_at DESC);

-- subject: a ticker, or MARKET for the index that counts for every ticker without its own.
CREATE TABLE volatility (
    subject           text NOT NULL,
    valid_at          timestamptz NOT NULL,
    known_at          timestamptz NOT NULL,
    volatility_index  numeric(20,8) CHECK (volatility_index >= 0),
    event_risk_factor smallint CHECK (event_risk_factor BETWEEN 0 AND 10),
    source            text NOT NULL,
    batch_id          uuid NOT NULL REFERENCES feed_batches
);
CREATE INDEX volatility_newest ON volatility (subject, valid_at DESC, known_at DESC);

CREATE TABLE quarantine (
    batch_id    uuid NOT NULL REFERENCES feed_batches,
    line_number integer NOT NULL,
    reason      text NOT NULL,
    row         text NOT NULL,
    PRIMARY KEY (batch_id, line_number)
);

-- A feed's own symbol, and ours, for files dated from valid_from up to (not including) valid_to.
CREATE TABLE aliases (
    source     text NOT NULL,
    symbol     text NOT NULL,
    ticker     text NOT NULL,
    valid_from date NOT NULL DEFAULT '-infinity',
    valid_to   date NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (source, symbol, valid_from),
    CHECK (valid_from < valid_to)
);
INSERT INTO aliases (source, symbol, ticker, valid_from, valid_to) VALUES
    ('ibkr', 'BRK A', 'BRK.A', '-infinity', 'infinity'),
    ('ibkr', 'BRK B', 'BRK.B', '-infinity', 'infinity'),
    ('ibkr', 'FB',    'META',  '-infinity', '2022-06-09');

-- The key itself is never stored: only its SHA-256.
CREATE TABLE api_keys (
    key_id     text PRIMARY KEY,
    hash       bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    client_id  text NOT NULL CHECK (client_id ~ '^[A-Za-z0-9_-]{3,50}$'),
    tier       text NOT NULL CHECK (tier IN ('standard', 'premium', 'internal')),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

GRANT SELECT ON stocks, brokers, feed_batches, base_rates, volatility, quarantine, aliases, api_keys TO bre_service;
GRANT INSERT ON stocks, brokers, feed_batches, base_rates, volatility, quarantine, api_keys TO bre_service;
GRANT UPDATE (revoked_at) ON api_keys TO bre_service;
