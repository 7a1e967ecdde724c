-- What clients and operators may change: roles of keys, rotation, terms that have a history, a desk's own policies.

-- A client's key prices; an operator's opens administration and nothing that is priced.
ALTER TABLE api_keys ADD COLUMN role text NOT NULL DEFAULT 'client' CHECK (role IN ('client', 'operator'));

-- Rotation ends the old key earlier. Nobody who serves can make a key live longer, or bring one back.
CREATE FUNCTION refuse_longer_life() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.expires_at > OLD.expires_at OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
        RAISE EXCEPTION 'key % can only end earlier', OLD.key_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ends_earlier BEFORE UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION refuse_longer_life();
GRANT UPDATE (expires_at) ON api_keys TO bre_service;

-- Terms are kept as they were: the newest row of a client is the one in force.
ALTER TABLE brokers DROP CONSTRAINT brokers_pkey;
ALTER TABLE brokers ADD PRIMARY KEY (client_id, changed_at);

-- Beside those that come with the engine. A published version never changes: there is no update.
CREATE TABLE policies (
    policy     text PRIMARY KEY,
    definition text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE conventions (
    convention text PRIMARY KEY,
    definition text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON policies, conventions TO bre_service;

-- What a client may call a stock; source 'api' is the requests themselves. A ticker that is in the book is itself.
INSERT INTO aliases (source, symbol, ticker, valid_from, valid_to) VALUES
    ('api', 'BRK A', 'BRK.A', '-infinity', 'infinity'),
    ('api', 'BRK B', 'BRK.B', '-infinity', 'infinity'),
    ('api', 'BRK/A', 'BRK.A', '-infinity', 'infinity'),
    ('api', 'BRK/B', 'BRK.B', '-infinity', 'infinity'),
    ('api', 'FB',    'META',  '-infinity', '2022-06-09');

-- A client's own entries, newest first.
CREATE INDEX audit_log_client ON audit_log (client_id, recorded_at) WHERE client_id IS NOT NULL;
