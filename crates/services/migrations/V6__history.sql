-- Aliases are kept as they were, like everything that prices depend on: the newest line of a symbol and first day is the one in force.
ALTER TABLE aliases ADD COLUMN known_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE aliases DROP CONSTRAINT aliases_pkey;
ALTER TABLE aliases ADD PRIMARY KEY (source, symbol, valid_from, known_at);
ALTER TABLE aliases ALTER COLUMN known_at DROP DEFAULT;
REVOKE UPDATE (ticker, valid_to) ON aliases FROM bre_service;

-- When the first feed of all arrived: before it nothing was known.
CREATE INDEX feed_batches_known ON feed_batches (known_at);

-- Entries of a period; a block-range index costs a commit next to nothing.
CREATE INDEX audit_log_recorded ON audit_log USING brin (recorded_at);
