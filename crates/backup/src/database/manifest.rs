//! `backup_manifest`, as the server itself writes it: what `pg_verifybackup` holds an exported backup against.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;

/// The first version that names the system, and that PostgreSQL 17 takes back as the base of an incremental backup.
const VERSION_NAMING_SYSTEM: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Manifest {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier", default)]
    system_identifier: u64,
    #[serde(rename = "Files")]
    pub(super) files: Vec<ManifestFile>,
    #[serde(rename = "WAL-Ranges")]
    wal: Vec<WalRange>,
}

/// One file as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ManifestFile {
    #[serde(default)]
    pub(super) path: Option<String>,
    /// The server's, for names that are not UTF-8.
    #[serde(default, rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(default, rename = "Last-Modified")]
    last_modified: Option<String>,
    #[serde(default, rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(default)]
    checksum: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WalRange {
    pub(super) timeline: u32,
    #[serde(rename = "Start-LSN")]
    pub(super) start: String,
    #[serde(rename = "End-LSN")]
    pub(super) end: String,
}

impl ManifestFile {
    pub(super) fn of(path: &str, mtime_micros: i64, bytes: &[u8]) -> ManifestFile {
        ManifestFile::with_checksum(
            path,
            bytes.len() as u64,
            mtime_micros,
            crc32c::crc32c(bytes),
        )
    }

    pub(super) fn with_checksum(
        path: &str,
        size: u64,
        mtime_micros: i64,
        crc32c: u32,
    ) -> ManifestFile {
        let modified = jiff::Timestamp::from_microsecond(mtime_micros).unwrap_or_default();
        ManifestFile {
            last_modified: Some(modified.strftime("%Y-%m-%d %H:%M:%S GMT").to_string()),
            algorithm: Some("CRC32C".to_owned()),
            // As it lies in the server's memory.
            checksum: Some(hex(&crc32c.to_ne_bytes())),
            ..ManifestFile::named(path, size)
        }
    }

    /// Without a checksum: only its size is held against the file.
    pub(super) fn named(path: &str, size: u64) -> ManifestFile {
        ManifestFile {
            path: Some(path.to_owned()),
            encoded_path: None,
            size,
            last_modified: None,
            algorithm: None,
            checksum: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn line(&self) -> String {
        let mut fields = Vec::new();
        let text = |name: &str, value: &Option<String>| {
            let value = value.as_deref()?;
            Some(format!("\"{name}\": {}", quoted(value)))
        };
        fields.extend(text("Path", &self.path));
        fields.extend(text("Encoded-Path", &self.encoded_path));
        fields.push(format!("\"Size\": {}", self.size));
        fields.extend(text("Last-Modified", &self.last_modified));
        fields.extend(text("Checksum-Algorithm", &self.algorithm));
        fields.extend(text("Checksum", &self.checksum));
        format!("{{ {} }}", fields.join(", "))
    }
}

impl Manifest {
    /// `pg_version` as `server_version_num`.
    pub(super) fn new(
        pg_version: u32,
        system_identifier: u64,
        files: Vec<ManifestFile>,
        wal: WalRange,
    ) -> Manifest {
        Manifest {
            version: match pg_version {
                ..170_000 => 1,
                _ => VERSION_NAMING_SYSTEM,
            },
            system_identifier,
            files,
            wal: vec![wal],
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The manifest of what an incremental backup became when it was combined: `combined` are the files put together from
    /// their parent's pages (path → size), `label` the label as it was stored.
    pub(super) fn make_whole(
        &mut self,
        combined: &BTreeMap<String, u64>,
        label: Option<ManifestFile>,
    ) {
        for file in &mut self.files {
            let plain = file.path.as_deref().and_then(plain_path);
            let size = plain.as_ref().and_then(|path| combined.get(path));
            if let (Some(path), Some(size)) = (&plain, size) {
                // Nobody read all of it.
                let last_modified = file.last_modified.take();
                *file = ManifestFile {
                    last_modified,
                    ..ManifestFile::named(path, *size)
                };
            }
        }
        if let Some(label) = label
            && let Some(listed) = self.files.iter_mut().find(|file| file.path == label.path)
        {
            *listed = label;
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": {},\n",
            self.version
        );
        // Writing to a string cannot fail.
        if self.version >= VERSION_NAMING_SYSTEM {
            let _ = writeln!(text, "\"System-Identifier\": {},", self.system_identifier);
        }
        let lines = |lines: Vec<String>| lines.join(",\n");
        let files = lines(self.files.iter().map(ManifestFile::line).collect());
        let ranges = lines(self.wal.iter().map(WalRange::line).collect());
        let _ = write!(
            text,
            "\"Files\": [\n{files}\n],\n\"WAL-Ranges\": [\n{ranges}\n],\n"
        );
        let checksum = hex(digest(&SHA256, text.as_bytes()).as_ref());
        let _ = writeln!(text, "\"Manifest-Checksum\": \"{checksum}\"}}");
        text
    }
}

impl WalRange {
    fn line(&self) -> String {
        format!(
            "{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
            self.timeline, self.start, self.end
        )
    }
}

/// `base/5/INCREMENTAL.1259` → `base/5/1259`; `None` for what is sent as a whole.
pub(super) fn plain_path(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    Some(format!("{folder}/{}", name.strip_prefix("INCREMENTAL.")?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incremental_manifest_becomes_one_of_whole_files() {
        let range = WalRange {
            timeline: 1,
            start: "0/2000028".into(),
            end: "0/2000120".into(),
        };
        let files = vec![
            ManifestFile::of("base/5/INCREMENTAL.1259", 0, b"some pages"),
            ManifestFile::of("backup_label", 0, b"INCREMENTAL FROM LSN: 0/1\n"),
            ManifestFile::of("base/5/a \"name\"", 0, b"x"),
        ];
        let sent = Manifest::new(180_004, 77, files, range);
        let mut whole = Manifest::parse(sent.render().as_bytes()).unwrap();
        assert_eq!(whole, sent);
        let combined = BTreeMap::from([("base/5/1259".to_owned(), 81920)]);
        whole.make_whole(&combined, Some(ManifestFile::of("backup_label", 0, b"")));
        let text = whole.render();
        let found: Vec<_> = whole.files.iter().map(|file| file.size).collect();
        assert_eq!(found, [81920, 0, 1], "{text}");
        let line = r#"{ "Path": "base/5/1259", "Size": 81920, "Last-Modified": "1970-01-01 00:00:00 GMT" },"#;
        assert!(
            text.contains(line) && !text.contains("INCREMENTAL"),
            "{text}"
        );
        let (body, sum) = text.split_at(text.find("\"Manifest-Checksum").unwrap());
        assert!(sum.contains(&hex(digest(&SHA256, body.as_bytes()).as_ref())));
    }
}
