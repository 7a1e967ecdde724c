-- A client's own entries, newest first, however long the log is: without it every page reads the whole log.
DROP INDEX audit_log_client;
CREATE INDEX audit_log_client ON audit_log (client_id, recorded_at DESC);
