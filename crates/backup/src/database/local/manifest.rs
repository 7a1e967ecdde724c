//! `backup_manifest`, as the server itself writes it: what `pg_verifybackup` holds an exported backup against.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use postgres_physical::lsn::Lsn;

/// One file as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) mtime_micros: i64,
    pub(super) crc32c: u32,
}

impl Listed {
    pub(super) fn of(path: &str, mtime_micros: i64, bytes: &[u8]) -> Listed {
        Listed {
            path: path.to_owned(),
            size: bytes.len() as u64,
            mtime_micros,
            crc32c: crc32c::crc32c(bytes),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct WalRange {
    pub(super) timeline: u32,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
}

/// `pg_version` as `server_version_num`.
pub(super) fn backup_manifest(
    files: &[Listed],
    wal: WalRange,
    pg_version: u32,
    system_identifier: u64,
) -> String {
    let mut text = match pg_version {
        ..170_000 => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_owned(),
        _ => format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_identifier},\n"
        ),
    };
    text.push_str("\"Files\": [");
    for (number, file) in files.iter().enumerate() {
        text.push_str(if number == 0 { "\n" } else { ",\n" });
        text.push_str(&line(file));
    }
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}\n],\n",
        wal.timeline, wal.start, wal.stop
    );
    let checksum = hex(digest(&SHA256, text.as_bytes()).as_ref());
    let _ = writeln!(text, "\"Manifest-Checksum\": \"{checksum}\"}}");
    text
}

fn line(file: &Listed) -> String {
    let modified = jiff::Timestamp::from_microsecond(file.mtime_micros).unwrap_or_default();
    format!(
        "{{ \"Path\": {}, \"Size\": {}, \"Last-Modified\": \"{}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\" }}",
        quoted(&file.path),
        file.size,
        modified.strftime("%Y-%m-%d %H:%M:%S GMT"),
        // As it lies in the server's memory.
        hex(&file.crc32c.to_ne_bytes())
    )
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
