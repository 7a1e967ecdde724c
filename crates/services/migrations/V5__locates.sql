-- Locates, step by step, and the shares they take from what is available. docs/decisions/0013-locates-from-an-append-only-ledger.md says
-- why nothing can be granted twice: every rule that the proof needs is enforced here, whatever the engine does.

-- One row a step; the newest is what the locate is. Made from the step's audit entry, and compared with it by `bre audit verify`.
CREATE TABLE locates (
    log                smallint NOT NULL,
    epoch              integer NOT NULL,
    position           bigint NOT NULL,
    recorded_at        timestamptz NOT NULL,
    locate_id          uuid NOT NULL,
    sequence           integer NOT NULL,
    status             text NOT NULL CHECK (status IN ('pending', 'offered', 'filled', 'rejected', 'declined', 'expired', 'cancelled')),
    reason             text,
    quote_id           uuid NOT NULL,
    client_id          text NOT NULL,
    actor              text NOT NULL,
    request_id         text NOT NULL,
    ticker             text NOT NULL,
    currency           text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('single_use', 'reusable', 'pre_borrow')),
    shares             bigint NOT NULL CHECK (shares > 0),
    granted            bigint NOT NULL CHECK (granted BETWEEN 0 AND shares),
    returned           bigint NOT NULL CHECK (returned BETWEEN 0 AND granted),
    borrow_rate        numeric(20,8) NOT NULL,
    total_fee          numeric(20,4) NOT NULL,
    trade_date         date NOT NULL,
    offer_expires_at   timestamptz NOT NULL,
    expires_at         timestamptz NOT NULL,
    idempotency_key    text,
    idempotency_digest text,
    PRIMARY KEY (locate_id, sequence),
    CHECK ((idempotency_key IS NULL) = (idempotency_digest IS NULL))
);
-- A quote is good for one locate.
CREATE UNIQUE INDEX locates_quote ON locates (quote_id) WHERE sequence = 1;
CREATE UNIQUE INDEX locates_idempotency ON locates (client_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX locates_place ON locates (log, epoch, position);
CREATE INDEX locates_client ON locates (client_id, recorded_at);
CREATE INDEX locates_ticker ON locates (ticker, trade_date) WHERE status = 'filled';
CREATE INDEX locates_request ON locates (client_id, request_id);
-- What time has to end.
CREATE INDEX locates_offers ON locates (offer_expires_at) WHERE status = 'offered';
CREATE INDEX locates_grants ON locates (expires_at) WHERE status = 'filled';

-- What was granted (change above 0) and credited back (below), by ticker and trade date, without gaps.
-- `available`: the feed's figure in force; `outstanding`: all grants of the day that are not credited back.
CREATE TABLE availability_ledger (
    log         smallint NOT NULL,
    epoch       integer NOT NULL,
    position    bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    ticker      text NOT NULL,
    trade_date  date NOT NULL,
    sequence    integer NOT NULL CHECK (sequence > 0),
    locate_id   uuid NOT NULL,
    change      bigint NOT NULL CHECK (change <> 0),
    available   bigint NOT NULL CHECK (available >= 0),
    outstanding bigint NOT NULL CHECK (outstanding >= 0),
    source      text NOT NULL,
    valid_at    timestamptz NOT NULL,
    known_at    timestamptz NOT NULL,
    PRIMARY KEY (ticker, trade_date, sequence),
    -- Never more than there is. A smaller figure may arrive later; then nothing more is granted.
    CHECK (change < 0 OR outstanding <= available)
);
-- A locate is granted once.
CREATE UNIQUE INDEX availability_ledger_grant ON availability_ledger (locate_id) WHERE change > 0;
CREATE INDEX availability_ledger_place ON availability_ledger (log, epoch, position);

-- Each step continues the one before. Two writers that continue the same step meet at the primary key: the second is refused.
CREATE FUNCTION check_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before availability_ledger;
BEGIN
    SELECT * INTO before FROM availability_ledger
        WHERE ticker = NEW.ticker AND trade_date = NEW.trade_date ORDER BY sequence DESC LIMIT 1;
    IF NEW.sequence <> coalesce(before.sequence, 0) + 1 OR NEW.outstanding <> coalesce(before.outstanding, 0) + NEW.change THEN
        RAISE EXCEPTION 'step % of the ledger of % on % does not continue the one before', NEW.sequence, NEW.ticker, NEW.trade_date
            USING ERRCODE = 'check_violation';
    END IF;
    -- Of a feed's own figure, not of one that was made up.
    IF NEW.change > 0 AND NOT EXISTS (
        SELECT FROM base_rates WHERE source = NEW.source AND ticker = NEW.ticker AND valid_at = NEW.valid_at
            AND known_at = NEW.known_at AND available = NEW.available
    ) THEN
        RAISE EXCEPTION 'no feed said that % shares of % are available', NEW.available, NEW.ticker USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER continues BEFORE INSERT ON availability_ledger FOR EACH ROW EXECUTE FUNCTION check_ledger();

CREATE FUNCTION check_locate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before locates;
    held bigint := NEW.granted - NEW.returned;
BEGIN
    IF NEW.sequence = 1 THEN
        IF NEW.status NOT IN ('pending', 'offered', 'rejected') OR NEW.granted <> 0 THEN
            RAISE EXCEPTION 'locate % cannot begin as %', NEW.locate_id, NEW.status USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    SELECT * INTO before FROM locates WHERE locate_id = NEW.locate_id AND sequence = NEW.sequence - 1;
    IF before IS NULL
        OR (before.quote_id, before.client_id, before.ticker, before.kind, before.shares, before.trade_date)
            <> (NEW.quote_id, NEW.client_id, NEW.ticker, NEW.kind, NEW.shares, NEW.trade_date)
        -- In parentheses: PL/pgSQL takes the first bare THEN for its own.
        OR (CASE before.status || ' ' || NEW.status
            WHEN 'offered filled' THEN held <= 0 OR NEW.returned <> 0
            WHEN 'offered rejected' THEN NEW.granted <> 0
            WHEN 'offered declined' THEN NEW.granted <> 0
            WHEN 'offered expired' THEN NEW.granted <> 0
            WHEN 'filled filled' THEN NEW.granted <> before.granted OR NEW.returned <= before.returned OR held <= 0
            WHEN 'filled cancelled' THEN NEW.granted <> before.granted OR held <> 0
            WHEN 'filled expired' THEN NEW.granted <> before.granted OR NEW.returned <> before.returned
            ELSE true
        END)
    THEN
        RAISE EXCEPTION 'locate % cannot become % in step %', NEW.locate_id, NEW.status, NEW.sequence USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER continues BEFORE INSERT ON locates FOR EACH ROW EXECUTE FUNCTION check_locate();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON locates
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON availability_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE locates ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE availability_ledger ENABLE ALWAYS TRIGGER append_only;

-- After a recovery that may have lost grants, a trade date stays closed until an operator has looked.
CREATE TABLE locate_reopenings (
    reopened_at timestamptz NOT NULL,
    actor       text NOT NULL
);

-- Whether a newer file of the same source speaks of this currency at all.
CREATE INDEX base_rates_by_batch ON base_rates (batch_id, currency);

GRANT SELECT, INSERT ON locates, availability_ledger, locate_reopenings TO bre_service;
