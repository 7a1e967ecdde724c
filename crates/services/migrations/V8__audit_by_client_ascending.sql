-- Read backwards for the newest first, and twice as dense: entries come in the order of their times, and PostgreSQL leaves the page behind such
-- an end full, but splits one in half where each new row comes before all others.
DROP INDEX audit_log_client;
CREATE INDEX audit_log_client ON audit_log (client_id, recorded_at);
