//! What the instance's database is called and knows: itself, its roles, the slot of the WAL stream, the settings of
//! its servers.

pub const DATABASE: &str = "bre";
pub const SUPERUSER: &str = "postgres";
pub const OWNER: &str = "bre_owner";
pub const SERVICE: &str = "bre_service";
pub const BACKUP: &str = "bre_backup";
/// Name of our slot, and of our stream as a standby.
pub const SLOT: &str = "bre";

/// What every server of an instance is started with: the primary, and the spare that may become it.
pub fn server_settings(keep_mb: u32) -> Vec<(String, String)> {
    let keep = format!("{keep_mb}MB");
    let settings = [
        ("wal_level", "replica"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("max_slot_wal_keep_size", &keep),
        ("max_connections", "100"),
        ("shared_buffers", "128MB"),
        ("wal_compression", "on"),
        ("log_checkpoints", "off"),
        // An audit asks who came and what was defined: docs/operations/audit_logs.md.
        ("log_connections", "on"),
        ("log_disconnections", "on"),
        ("log_statement", "ddl"),
        ("log_line_prefix", "%m [%p] %q%u@%d %a "),
        ("log_timezone", "UTC"),
    ];
    settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}
