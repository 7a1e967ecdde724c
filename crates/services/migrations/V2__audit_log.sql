-- The record. docs/formats/audit_log.md defines `canonical`; every other column repeats a part of it for searching, and
-- `bre audit verify` compares them all. No foreign key between the two tables: one statement writes both, the
-- comparison finds a row without its twin in either direction, and the check would cost every commit.

CREATE TABLE audit_log (
    log         smallint NOT NULL,
    epoch       integer NOT NULL,
    position    bigint NOT NULL,
    kind        smallint NOT NULL,
    recorded_at timestamptz NOT NULL,
    client_id   text,
    ticker      text,
    request_id  text,
    quote_id    uuid,
    canonical   bytea NOT NULL,
    hash        bytea NOT NULL CHECK (length(hash) = 32),
    UNIQUE (log, epoch, position)
);

-- Only what people search and sum by: `canonical` holds the rest. No second unique index over the place: audit_log has one, and one
-- statement writes both rows.
CREATE TABLE quotes (
    log                  smallint NOT NULL,
    epoch                integer NOT NULL,
    position             bigint NOT NULL,
    recorded_at          timestamptz NOT NULL,
    quote_id             uuid PRIMARY KEY,
    request_id           text NOT NULL,
    client_id            text NOT NULL,
    key_id               text NOT NULL,
    priced_at            timestamptz NOT NULL,
    ticker               text NOT NULL,
    currency             text NOT NULL,
    position_value       numeric(20,4) NOT NULL,
    loan_days            integer NOT NULL,
    policy               text NOT NULL,
    convention           text NOT NULL,
    base_rate            numeric(20,8) NOT NULL,
    base_rate_source     text NOT NULL,
    volatility_index     numeric(20,8) NOT NULL,
    event_risk_factor    smallint NOT NULL,
    borrow_rate          numeric(20,8) NOT NULL,
    borrow_cost          numeric(20,4) NOT NULL,
    markup               numeric(20,4) NOT NULL,
    transaction_fees     numeric(20,4) NOT NULL,
    total_fee            numeric(20,4) NOT NULL,
    stale                text NOT NULL
);
CREATE INDEX quotes_request ON quotes (client_id, request_id);

-- Whoever changes a recorded row has to switch this off first, which only a table's owner or a superuser can do; the
-- chain and the signed heads find it all the same.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table % is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON quotes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE quotes ENABLE ALWAYS TRIGGER append_only;

GRANT SELECT, INSERT ON audit_log, quotes TO bre_service;
