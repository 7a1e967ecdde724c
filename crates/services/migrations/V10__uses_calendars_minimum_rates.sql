-- What was imported as a calendar, whole: the newest is in force, before the first of them the one that comes with the program.
CREATE TABLE calendars (
    batch_id   uuid PRIMARY KEY REFERENCES feed_batches,
    valid_at   timestamptz NOT NULL,
    known_at   timestamptz NOT NULL,
    definition text NOT NULL
);
GRANT SELECT, INSERT ON calendars TO bre_service;

-- What orders have made of a locate. A use is one more step of the locate, so the argument of docs/decisions/0013 holds for it as well: steps have no
-- gaps and no twins (the primary key), each continues the one before (the trigger), and a CHECK bounds the sum.
ALTER TABLE locates
    -- Shares that orders at the market hold, and shares that were sold under the locate.
    ADD COLUMN reserved     bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    ADD COLUMN used         bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    -- The client's order that made this step; all four or none.
    ADD COLUMN order_id     text,
    ADD COLUMN order_side   text,
    ADD COLUMN order_state  text,
    ADD COLUMN order_shares bigint,
    -- Never more than was granted and is not given back.
    ADD CONSTRAINT locates_uses_within_grant CHECK (reserved + used <= granted - returned),
    ADD CONSTRAINT locates_order_whole CHECK (
        (order_id IS NULL AND num_nonnulls(order_side, order_state, order_shares) = 0)
        OR (order_id IS NOT NULL AND num_nulls(order_side, order_state, order_shares) = 0 AND order_shares > 0
            AND order_side IN ('sell_short', 'buy_to_cover') AND order_state IN ('reserved', 'used', 'released')));

-- An order reserves once at most, and ends once.
CREATE UNIQUE INDEX locates_order ON locates (locate_id, order_id, (order_state = 'reserved')) WHERE order_id IS NOT NULL;
-- Steps that are no uses: few, however many orders there are. What time has to end, and what a client holds, is looked for among them.
CREATE UNIQUE INDEX locates_own_steps ON locates (locate_id, sequence) WHERE order_id IS NULL;
DROP INDEX locates_grants;
CREATE INDEX locates_grants ON locates (expires_at) WHERE status = 'filled' AND order_id IS NULL;
CREATE INDEX locates_in_force ON locates (client_id, expires_at) WHERE status = 'filled' AND order_id IS NULL;
DROP INDEX locates_ticker;
CREATE INDEX locates_ticker ON locates (ticker, trade_date) WHERE status = 'filled' AND order_id IS NULL;
DROP INDEX locates_client;
CREATE INDEX locates_client ON locates (client_id, recorded_at) WHERE sequence = 1;

-- Whether a use follows from the step before it.
CREATE FUNCTION is_use_of(before locates, now locates) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    known bigint;
    held_by_order bigint;
BEGIN
    SELECT count(*), coalesce(max(order_shares) FILTER (WHERE order_state = 'reserved'), 0) INTO known, held_by_order
        FROM locates WHERE locate_id = now.locate_id AND order_id = now.order_id;
    RETURN CASE now.order_side || ' ' || now.order_state
        WHEN 'sell_short reserved' THEN known = 0 AND now.used = before.used AND now.reserved = before.reserved + now.order_shares
        -- Whatever the order held at the market is free again.
        WHEN 'sell_short used' THEN now.used = before.used + now.order_shares AND now.reserved = before.reserved - held_by_order
        WHEN 'sell_short released' THEN now.used = before.used AND now.order_shares = held_by_order AND now.reserved = before.reserved - held_by_order
        -- What was sold under a single-use locate stays used.
        WHEN 'buy_to_cover used' THEN known = 0 AND now.reserved = before.reserved
            AND now.used = before.used - (CASE now.kind WHEN 'single_use' THEN 0 ELSE now.order_shares END)
        ELSE false
    END;
END
$$;

CREATE OR REPLACE FUNCTION check_locate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before locates;
    held bigint := NEW.granted - NEW.returned;
BEGIN
    IF NEW.sequence = 1 THEN
        IF NEW.status NOT IN ('pending', 'offered', 'rejected') OR NEW.granted <> 0 OR NEW.order_id IS NOT NULL THEN
            RAISE EXCEPTION 'locate % cannot begin as %', NEW.locate_id, NEW.status USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    SELECT * INTO before FROM locates WHERE locate_id = NEW.locate_id AND sequence = NEW.sequence - 1;
    IF before IS NULL
        OR (before.quote_id, before.client_id, before.ticker, before.kind, before.shares, before.trade_date)
            <> (NEW.quote_id, NEW.client_id, NEW.ticker, NEW.kind, NEW.shares, NEW.trade_date)
        -- Only an order moves what is reserved and used, and it moves nothing else.
        OR (NEW.order_id IS NULL AND (NEW.reserved, NEW.used) <> (before.reserved, before.used))
        -- In parentheses: PL/pgSQL takes the first bare THEN for its own.
        OR (CASE WHEN NEW.order_id IS NOT NULL THEN
                before.status <> 'filled' OR NEW.status <> 'filled' OR NEW.expires_at <> before.expires_at
                OR (NEW.granted, NEW.returned) <> (before.granted, before.returned) OR NOT is_use_of(before, NEW)
            ELSE CASE before.status || ' ' || NEW.status
                WHEN 'offered filled' THEN held <= 0 OR NEW.returned <> 0
                WHEN 'offered rejected' THEN NEW.granted <> 0
                WHEN 'offered declined' THEN NEW.granted <> 0
                WHEN 'offered expired' THEN NEW.granted <> 0
                WHEN 'filled filled' THEN NEW.granted <> before.granted OR NEW.returned <= before.returned OR held <= 0
                WHEN 'filled cancelled' THEN NEW.granted <> before.granted OR held <> 0
                WHEN 'filled expired' THEN NEW.granted <> before.granted OR NEW.returned <> before.returned
                ELSE true
            END
        END)
    THEN
        RAISE EXCEPTION 'locate % cannot become % in step %', NEW.locate_id, NEW.status, NEW.sequence USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;

-- Minimum rates with the time for which they are meant. Of a ticker at a moment counts, of the rows whose time it is, the one that began last; of two
-- that began together, the one that was known last. Where there is none, `stocks.minimum_rate`.
CREATE TABLE minimum_rates (
    ticker       text NOT NULL REFERENCES stocks,
    valid_from   timestamptz NOT NULL,
    valid_to     timestamptz CHECK (valid_to > valid_from),
    known_at     timestamptz NOT NULL,
    minimum_rate numeric(20,8) NOT NULL CHECK (minimum_rate >= 0),
    PRIMARY KEY (ticker, valid_from, known_at)
);
GRANT SELECT, INSERT ON minimum_rates TO bre_service;

-- Whoever changes what prices are made from, and however: every instance reads it again at once. An engine that had to remember to tell would forget.
CREATE FUNCTION tell_market() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bre_market', '');
    RETURN NULL;
END
$$;
CREATE FUNCTION tell_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bre_keys', '');
    RETURN NULL;
END
$$;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['stocks', 'minimum_rates', 'brokers', 'feed_batches', 'feed_refusals', 'base_rates', 'held_figures', 'volatility',
                                'events', 'aliases', 'policies', 'conventions', 'calendars']
    LOOP
        EXECUTE format('CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION tell_market()', name);
    END LOOP;
END
$$;
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON api_keys FOR EACH STATEMENT EXECUTE FUNCTION tell_keys();
