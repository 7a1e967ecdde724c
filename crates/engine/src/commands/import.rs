//! `bre import KIND FILE`: hands a feed file to the running engine and prints what became of every row.

use std::path::Path;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{cli::FeedKind, control::Control, error::Error, instance::Instance, terminal};

/// rows = loaded + quarantined, always.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Imported {
    rows: u64,
    loaded: u64,
    quarantined: u64,
    #[serde(default)]
    reasons: BTreeMap<String, u64>,
    #[serde(flatten)]
    more: BTreeMap<String, serde_json::Value>,
}

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    kind: FeedKind,
    file: &Path,
) -> Result<(), Error> {
    let bytes = std::fs::read(file).map_err(Error::file("cannot read", file))?;
    let kind = match kind {
        FeedKind::Ibkr => "ibkr",
        FeedKind::Vix => "vix",
    };
    let path = format!("/internal/import?kind={kind}&by={}", encode(&who()));
    let imported: Imported = Control::to(instance)?.upload(&path, bytes).await?;
    terminal::result(json, &imported, || {
        let mut text = format!(
            "{} rows: {} loaded, {} quarantined\n",
            imported.rows, imported.loaded, imported.quarantined
        );
        for (reason, count) in &imported.reasons {
            text.push_str(&format!("  {count:>8}  {reason}\n"));
        }
        text
    });
    Ok(())
}

/// Who did it, for the record: the operating system's name for this account.
pub(crate) fn who() -> String {
    postgres_physical::server::OsUser::current()
        .map_or_else(|_| "unknown".to_owned(), |user| user.name)
}

/// Percent-encodes all but unreserved characters.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_survives_the_query_string() {
        assert_eq!(super::encode("jo doe&co"), "jo%20doe%26co");
    }
}
