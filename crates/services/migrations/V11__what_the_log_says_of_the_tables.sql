-- One row until an entry of the log has stated everything that the tables of terms, keys and deliveries hold (docs/formats/audit_log.md §12):
-- what a migration or an older engine put there. The first change after this takes the row away in its own transaction.
CREATE TABLE baseline_due (
    due boolean PRIMARY KEY DEFAULT true CHECK (due)
);
INSERT INTO baseline_due DEFAULT VALUES;
GRANT SELECT, DELETE ON baseline_due TO bre_service;
