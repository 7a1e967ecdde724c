//! Tables, what stands in for them, and what hangs on them: views, rules, policies, triggers and their functions, constraints, indexes, types,
//! names, the list of migrations.

use super::{Case, case};

pub const CASES: &[Case] = &[
    // What stands in for a table.
    case(
        "a view that shows the verifier what it wants to see",
        "ALTER TABLE quotes RENAME TO quotes_real; \
         CREATE VIEW quotes AS SELECT * FROM quotes_real WHERE current_setting('application_name') = 'bre audit verify'",
        "table quotes: is \"a view\"",
    ),
    case(
        "a view in place of the log",
        "ALTER TABLE audit_log RENAME TO real_log; CREATE VIEW audit_log AS SELECT * FROM real_log WHERE position < 10",
        "table audit_log: is \"a view\"",
    ),
    case(
        "a materialized view in place of the ledger",
        "ALTER TABLE availability_ledger RENAME TO real_ledger; CREATE MATERIALIZED VIEW availability_ledger AS SELECT * FROM real_ledger",
        "table availability_ledger: is \"a materialized view\"",
    ),
    case(
        "a partitioned table in place of the quotes",
        "ALTER TABLE quotes RENAME TO quotes_real; CREATE TABLE quotes (LIKE quotes_real) PARTITION BY LIST (log); \
         ALTER TABLE quotes ATTACH PARTITION quotes_real DEFAULT",
        "table quotes: is \"a partitioned table\"",
    ),
    case(
        "a copy without anything that hangs on it",
        "CREATE TABLE plain AS TABLE locates; DROP TABLE locates CASCADE; ALTER TABLE plain RENAME TO locates",
        "trigger append_only of locates: is missing",
    ),
    case(
        "a child that adds rows",
        "CREATE TABLE extra () INHERITS (quotes); SET session_replication_role = replica; INSERT INTO extra SELECT * FROM ONLY quotes WHERE position = 10",
        "child extra of quotes: the migrations make no such thing",
    ),
    case(
        "a parent that takes the rows away",
        "CREATE TABLE above (LIKE stocks); ALTER TABLE stocks INHERIT above",
        "parent above of stocks",
    ),
    case(
        "a table that no crash survives",
        "ALTER TABLE quotes SET UNLOGGED",
        "unlogged: a crash empties it",
    ),
    case(
        "a table dropped",
        "DROP TABLE quarantine CASCADE",
        "table quarantine: is missing",
    ),
    case(
        "the log dropped",
        "DROP TABLE audit_log",
        "table audit_log: is missing",
    ),
    case(
        "a table moved away",
        "CREATE SCHEMA elsewhere; ALTER TABLE quotes SET SCHEMA elsewhere",
        "table quotes: is missing",
    ),
    // Rules, row security.
    case(
        "a rule that swallows rows",
        "CREATE RULE swallow AS ON INSERT TO quotes DO INSTEAD NOTHING",
        "rule swallow of quotes",
    ),
    case(
        "a rule that tells others",
        "CREATE TABLE told_others (LIKE api_keys); CREATE RULE telling AS ON INSERT TO api_keys DO ALSO INSERT INTO told_others SELECT NEW.*",
        "rule telling of api_keys",
    ),
    case(
        "row security that hides quotes",
        "ALTER TABLE quotes ENABLE ROW LEVEL SECURITY; ALTER TABLE quotes FORCE ROW LEVEL SECURITY",
        "row security of quotes",
    ),
    case(
        "a policy that waits for row security",
        "CREATE POLICY a_few ON audit_log USING (position < 10)",
        "policy a_few of audit_log",
    ),
    // Triggers.
    case(
        "a trigger off",
        "ALTER TABLE audit_log DISABLE TRIGGER append_only",
        "trigger append_only of audit_log: is \"disabled: ",
    ),
    case(
        "all triggers off",
        "ALTER TABLE locates DISABLE TRIGGER ALL",
        "trigger continues of locates: is \"disabled: ",
    ),
    case(
        "a trigger that a replica's session passes by",
        "ALTER TABLE quotes ENABLE TRIGGER append_only",
        "trigger append_only of quotes: is ",
    ),
    case(
        "a trigger for replicas only",
        "ALTER TABLE api_keys ENABLE REPLICA TRIGGER ends_earlier",
        "trigger ends_earlier of api_keys: is \"only on replicas: ",
    ),
    case(
        "a trigger dropped",
        "DROP TRIGGER append_only ON availability_ledger",
        "trigger append_only of availability_ledger: is missing",
    ),
    case(
        "a trigger with another function",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; DROP TRIGGER append_only ON quotes; \
         CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON quotes FOR EACH STATEMENT EXECUTE FUNCTION nothing(); \
         ALTER TABLE quotes ENABLE ALWAYS TRIGGER append_only",
        "trigger append_only of quotes: is ",
    ),
    case(
        "a trigger more",
        "CREATE FUNCTION cheaper() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.rate := 0; RETURN NEW; END'; \
         CREATE TRIGGER cheaper BEFORE INSERT ON base_rates FOR EACH ROW EXECUTE FUNCTION cheaper()",
        "trigger cheaper of base_rates: the migrations make no such thing",
    ),
    // Functions.
    case(
        "the function behind append-only made empty",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "body of function refuse_change(): is not the one that the migrations make",
    ),
    case(
        "the check of locates made empty",
        "CREATE OR REPLACE FUNCTION check_locate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "body of function check_locate()",
    ),
    case(
        "the check of the ledger made empty",
        "CREATE OR REPLACE FUNCTION check_ledger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "body of function check_ledger()",
    ),
    case(
        "what a use is",
        "CREATE OR REPLACE FUNCTION is_use_of(before locates, now locates) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'",
        "body of function is_use_of(",
    ),
    case(
        "keys that live longer",
        "CREATE OR REPLACE FUNCTION refuse_longer_life() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "body of function refuse_longer_life()",
    ),
    case(
        "a change that nobody is told of",
        "CREATE OR REPLACE FUNCTION tell_keys() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "body of function tell_keys()",
    ),
    case(
        "a function with its owner's rights",
        "ALTER FUNCTION check_locate() SECURITY DEFINER",
        "function check_locate(): is ",
    ),
    case(
        "a function with settings of its own",
        "ALTER FUNCTION check_ledger() SET search_path = elsewhere",
        "function check_ledger(): is ",
    ),
    case(
        "a function beside its namesake",
        "CREATE FUNCTION refuse_change(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "function refuse_change(integer): the migrations make no such thing",
    ),
    case(
        "a function of the serving role's",
        "ALTER FUNCTION refuse_change() OWNER TO bre_service",
        "owner of function refuse_change(): is \"bre_service\"",
    ),
    // Constraints and indexes.
    case(
        "a check dropped",
        "ALTER TABLE locates DROP CONSTRAINT locates_uses_within_grant",
        "constraint locates_uses_within_grant of locates: is missing",
    ),
    case(
        "a check that allows everything",
        "ALTER TABLE locates DROP CONSTRAINT locates_order_whole; ALTER TABLE locates ADD CONSTRAINT locates_order_whole CHECK (true)",
        "constraint locates_order_whole of locates: is \"CHECK (true)\"",
    ),
    case(
        "a check that holds for the future only",
        "ALTER TABLE base_rates DROP CONSTRAINT base_rates_rate_check; \
         ALTER TABLE base_rates ADD CONSTRAINT base_rates_rate_check CHECK (rate >= 0) NOT VALID",
        "constraint base_rates_rate_check of base_rates: is ",
    ),
    case(
        "a check more",
        "ALTER TABLE quotes ADD CONSTRAINT cheap CHECK (total_fee < 1000000)",
        "constraint cheap of quotes: the migrations make no such thing",
    ),
    case(
        "a primary key dropped",
        "ALTER TABLE locates DROP CONSTRAINT locates_pkey",
        "constraint locates_pkey of locates: is missing",
    ),
    case(
        "the log's place no longer unique",
        "ALTER TABLE audit_log DROP CONSTRAINT audit_log_log_epoch_position_key",
        "constraint audit_log_log_epoch_position_key of audit_log: is missing",
    ),
    case(
        "a foreign key dropped",
        "ALTER TABLE base_rates DROP CONSTRAINT base_rates_batch_id_fkey",
        "constraint base_rates_batch_id_fkey of base_rates: is missing",
    ),
    case(
        "a foreign key that nobody enforces",
        "ALTER TABLE feed_batches DISABLE TRIGGER ALL",
        "its triggers disabled",
    ),
    case(
        "a unique index dropped",
        "DROP INDEX locates_quote",
        "index locates_quote of locates: is missing",
    ),
    case(
        "a unique index of other rows",
        "DROP INDEX availability_ledger_grant; CREATE UNIQUE INDEX availability_ledger_grant ON availability_ledger (locate_id) WHERE change > 1000000",
        "index availability_ledger_grant of availability_ledger: is ",
    ),
    case(
        "a unique index that is no longer in force",
        "UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'locates_order'::regclass",
        "not in force",
    ),
    case(
        "an index that runs somebody's function",
        "CREATE FUNCTION peek(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE INDEX peeking ON api_keys (peek(client_id))",
        "index peeking of api_keys",
    ),
    case(
        "a unique index more",
        "CREATE UNIQUE INDEX once ON quotes (request_id, quote_id)",
        "index once of quotes",
    ),
    // Columns.
    case(
        "bytes as text",
        "ALTER TABLE audit_log ALTER canonical TYPE text USING encode(canonical, 'hex')",
        "audit_log.canonical has the type text, not bytea",
    ),
    case(
        "money as a float",
        "ALTER TABLE quotes ALTER total_fee TYPE double precision",
        "column total_fee of quotes: is \"double precision not null\"",
    ),
    case(
        "money with fewer digits",
        "ALTER TABLE quotes ALTER markup TYPE numeric(20,2)",
        "column markup of quotes: is ",
    ),
    case(
        "a moment without its zone",
        "ALTER TABLE locates ALTER expires_at TYPE timestamp",
        "column expires_at of locates: is \"timestamp without time zone not null\"",
    ),
    case(
        "a day as text",
        "ALTER TABLE quotes ALTER ticker TYPE varchar(12)",
        "quotes.ticker has the type varchar, not text",
    ),
    case(
        "a place of another width",
        "ALTER TABLE audit_log ALTER epoch TYPE bigint",
        "audit_log.epoch has the type int8, not int4",
    ),
    case(
        "text that compares otherwise",
        "CREATE COLLATION lax (provider = icu, locale = 'und-u-ks-level2', deterministic = false); ALTER TABLE quotes ALTER request_id TYPE text COLLATE lax",
        "collate",
    ),
    case(
        "a column more",
        "ALTER TABLE brokers ADD COLUMN discount numeric",
        "column discount of brokers: the migrations make no such thing",
    ),
    case(
        "a column dropped",
        "ALTER TABLE quotes DROP COLUMN markup",
        "column markup of quotes: is missing",
    ),
    case(
        "a column renamed",
        "ALTER TABLE stocks RENAME minimum_rate TO lowest",
        "column minimum_rate of stocks: is missing",
    ),
    case(
        "a column that may be empty",
        "ALTER TABLE audit_log ALTER canonical DROP NOT NULL; SET session_replication_role = replica; ALTER TABLE audit_log DISABLE TRIGGER append_only; \
         UPDATE audit_log SET canonical = NULL WHERE position = 10; ALTER TABLE audit_log ENABLE ALWAYS TRIGGER append_only",
        "audit_log.canonical is empty (NULL), which it never is",
    ),
    case(
        "what a new row begins with",
        "ALTER TABLE api_keys ALTER role SET DEFAULT 'operator'",
        "column role of api_keys: is ",
    ),
    // Names.
    case(
        "copies that are found first",
        "CREATE SCHEMA shadow; CREATE TABLE shadow.audit_log AS TABLE audit_log; CREATE TABLE shadow.quotes AS TABLE quotes; \
         ALTER DATABASE {db} SET search_path = shadow, public; SET session_replication_role = replica; ALTER TABLE quotes DISABLE TRIGGER append_only; \
         UPDATE quotes SET total_fee = 0 WHERE position = 10; ALTER TABLE quotes ENABLE ALWAYS TRIGGER append_only",
        "quotes.total_fee is \"0.0000\"",
    ),
    case(
        "a search path that leads past the tables",
        "CREATE SCHEMA shadow; CREATE TABLE shadow.quotes AS TABLE quotes; ALTER DATABASE {db} SET search_path = shadow, public",
        "schema shadow is searched before public and holds quotes",
    ),
    Case {
        name: "a search path of the serving role's",
        sql: "CREATE SCHEMA shadow; CREATE TABLE shadow.api_keys AS TABLE api_keys; ALTER ROLE bre_service IN DATABASE {db} SET search_path = shadow, public",
        undo: "ALTER ROLE bre_service IN DATABASE {db} RESET search_path",
        finds: "schema shadow is searched before public and holds api_keys",
    },
    case(
        "a schema with the serving role's name",
        "CREATE SCHEMA bre_service; CREATE TABLE bre_service.quotes AS TABLE quotes",
        "schema bre_service is searched before public and holds quotes",
    ),
    case(
        "a function that is found first",
        "CREATE SCHEMA shadow; CREATE FUNCTION shadow.is_use_of(before public.locates, now public.locates) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         ALTER DATABASE {db} SET search_path = shadow, public",
        "holds is_use_of()",
    ),
    case(
        "a search path without the tables",
        "CREATE SCHEMA nothing; ALTER DATABASE {db} SET search_path = nothing",
        "public is not searched",
    ),
    case(
        "a table among PostgreSQL's own",
        "SET allow_system_table_mods = on; CREATE TABLE pg_catalog.quotes AS TABLE quotes",
        "schema pg_catalog: it holds quotes",
    ),
    case(
        "a setting that turns triggers off",
        "ALTER DATABASE {db} SET session_replication_role = replica",
        "it turns the engine's triggers and foreign keys off",
    ),
    case(
        "functions of one's own and other spellings, to hide a changed fee",
        "CREATE SCHEMA shadow; CREATE FUNCTION shadow.to_char(timestamptz, text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; \
         CREATE FUNCTION shadow.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; \
         CREATE FUNCTION shadow.same(bigint, numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         CREATE OPERATOR shadow.= (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = shadow.same); CREATE CAST (numeric AS text) WITH INOUT AS IMPLICIT; \
         ALTER DATABASE {db} SET search_path = shadow, pg_catalog, public; ALTER DATABASE {db} SET datestyle = 'German'; \
         SET session_replication_role = replica; ALTER TABLE quotes DISABLE TRIGGER append_only; \
         UPDATE quotes SET total_fee = 1 WHERE position = 10; ALTER TABLE quotes ENABLE ALWAYS TRIGGER append_only",
        "quotes.total_fee is \"1.0000\"",
    ),
    case(
        "a cast that prints another number",
        "CREATE FUNCTION dear(numeric) RETURNS text LANGUAGE sql AS $$SELECT '5.00000000'$$; CREATE CAST (numeric AS text) WITH FUNCTION dear(numeric); \
         UPDATE brokers SET markup_percent = 0",
        "cast of numeric to text: it goes through public.dear",
    ),
    // The list of migrations.
    case(
        "a version that nobody has",
        "INSERT INTO refinery_schema_history SELECT 9999, 'later', applied_on, '1' FROM refinery_schema_history LIMIT 1; ALTER TABLE quotes DISABLE TRIGGER ALL",
        "schema version: the database is at 9999",
    ),
    case(
        "a version taken back",
        "DELETE FROM refinery_schema_history WHERE version >= 5",
        "trigger told of stocks: the migrations make no such thing",
    ),
    case(
        "a migration that was another",
        "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 3",
        "migration 3: the database names another one",
    ),
    case(
        "a migration left out",
        "DELETE FROM refinery_schema_history WHERE version = 2",
        "migration 2: the database does not say that it was applied",
    ),
    // Several at once.
    case(
        "a view, a right and a cut tail together",
        "SET session_replication_role = replica; ALTER TABLE audit_log DISABLE TRIGGER ALL; DELETE FROM audit_log WHERE position > 12; \
         ALTER TABLE quotes RENAME TO q; CREATE VIEW quotes AS SELECT * FROM q WHERE position <= 12; GRANT ALL ON q TO PUBLIC",
        "the tail was cut",
    ),
];
