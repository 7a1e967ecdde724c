//! `bre import KIND FILE`: hands a feed file to the running engine and prints what became of every row.

use host::{control::Control, instance::Instance, person::who};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{cli::ImportArgs, error::Error};

/// rows = loaded + quarantined, always.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImportSummary {
    rows: u64,
    loaded: u64,
    quarantined: u64,
    #[serde(default)]
    reasons: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accepted: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed: Option<u64>,
    #[serde(flatten)]
    more: BTreeMap<String, serde_json::Value>,
}

pub(crate) async fn run(instance: &Instance, json: bool, args: &ImportArgs) -> Result<(), Error> {
    let bytes = std::fs::read(&args.file).map_err(Error::file("cannot read", &args.file))?;
    let mut path = format!(
        "/internal/import?kind={}&by={}",
        args.kind.name(),
        encode(&who())
    );
    for (name, value) in [("source", &args.source), ("valid_at", &args.valid_at)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    for (name, given) in [
        ("accept_jumps", args.accept_jumps),
        ("accept_older", args.accept_older),
    ] {
        if given {
            path.push_str(&format!("&{name}=true"));
        }
    }
    let imported: ImportSummary = Control::to(instance)?.upload(&path, bytes).await?;
    terminal::result(json, &imported, || {
        let mut text = format!(
            "{} rows: {} loaded, {} quarantined\n",
            imported.rows, imported.loaded, imported.quarantined
        );
        for (reason, count) in &imported.reasons {
            text.push_str(&format!("  {count:>8}  {reason}\n"));
        }
        for rule in &imported.accepted {
            text.push_str(&format!("  accepted: {rule}\n"));
        }
        if let Some(count) = imported.confirmed {
            text.push_str(&format!(
                "  confirmed: {count} that the delivery before announced\n"
            ));
        }
        if imported.reasons.contains_key("rate_jumped") {
            text.push_str("what jumped is held until a later file confirms it: `bre feed held`\n");
        }
        text
    });
    Ok(())
}

/// Percent-encodes all but unreserved characters.
pub(crate) fn encode(text: &str) -> String {
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
