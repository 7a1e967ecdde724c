-- What was imported as a calendar, whole: the newest is in force, before the first of them the one that comes with the program.
CREATE TABLE calendars (
    batch_id   uuid PRIMARY KEY REFERENCES feed_batches,
    valid_at   timestamptz NOT NULL,
    known_at   timestamptz NOT NULL,
    definition text NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON calendars
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE calendars ENABLE ALWAYS TRIGGER append_only;
GRANT SELECT, INSERT ON calendars TO bre_service;
