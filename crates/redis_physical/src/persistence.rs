//! The guide's five persistence settings, and a sixth without which a moment between copies cannot be restored:
//! looked at with `CONFIG GET`, applied on request with `CONFIG SET` and kept with `CONFIG REWRITE`.

use crate::error::{RedisError, Result};
use crate::session::RedisSession;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    /// As the guide has it, and as `CONFIG SET` takes it.
    pub value: &'static str,
    /// What is lost without it.
    pub why: &'static str,
}

pub const SETTINGS: [Setting; 6] = [
    Setting {
        name: "save",
        value: "3600 1",
        why: "an RDB file at least every hour",
    },
    Setting {
        name: "appendonly",
        value: "yes",
        why: "what was written since the last RDB file is lost when the server ends",
    },
    Setting {
        name: "appendfsync",
        value: "everysec",
        why: "at most one second is lost when the host fails",
    },
    Setting {
        name: "auto-aof-rewrite-percentage",
        value: "100",
        why: "the append-only file is rewritten when it doubled, so that it does not fill the disk",
    },
    Setting {
        name: "auto-aof-rewrite-min-size",
        value: "67108864",
        why: "no rewrite below 64 MB",
    },
    Setting {
        name: "aof-timestamp-enabled",
        value: "yes",
        why: "restore cache --time can go to a moment between two copies",
    },
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistenceFinding {
    pub setting: Setting,
    /// None: the server has no such setting.
    pub found: Option<String>,
    pub is_met: bool,
}

impl PersistenceFinding {
    /// The line that mends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.setting.value.contains(' ') {
            true => format!(
                "CONFIG SET {} \"{}\"",
                self.setting.name, self.setting.value
            ),
            false => format!("CONFIG SET {} {}", self.setting.name, self.setting.value),
        }
    }
}

/// Changes nothing.
pub fn check(session: &mut RedisSession) -> Result<Vec<PersistenceFinding>> {
    let one = |setting: Setting| {
        let found = session.setting(setting.name)?;
        let is_met = found.as_deref().is_some_and(|found| is_met(setting, found));
        Ok(PersistenceFinding {
            setting,
            found,
            is_met,
        })
    };
    SETTINGS.into_iter().map(one).collect()
}

/// Stricter is met as well: more snapshots, an fsync at each write.
fn is_met(setting: Setting, found: &str) -> bool {
    match setting.name {
        "save" => {
            let words: Vec<u64> = found
                .split_whitespace()
                .filter_map(|it| it.parse().ok())
                .collect();
            words
                .chunks_exact(2)
                .any(|rule| rule[0] <= 3600 && rule[1] <= 1)
        }
        "appendfsync" => found == "everysec" || found == "always",
        // 0 switches rewrites off.
        "auto-aof-rewrite-percentage" => {
            found.parse::<u64>().is_ok_and(|it| (1..=100).contains(&it))
        }
        "auto-aof-rewrite-min-size" => found.parse::<u64>().is_ok_and(|it| it <= 64 << 20),
        _ => found == setting.value,
    }
}

/// Sets what is not met; whether the server could write it into its configuration file. Where it could not, a restart
/// of the server forgets it, and why is in the answer.
pub fn apply(
    session: &mut RedisSession,
    findings: &[PersistenceFinding],
) -> Result<Option<String>> {
    for finding in findings
        .iter()
        .filter(|finding| !finding.is_met && finding.found.is_some())
    {
        let Setting { name, value, .. } = finding.setting;
        // Rules that are there and not enough stay beside ours.
        let value = match (name, finding.found.as_deref()) {
            ("save", Some(found)) if !found.is_empty() => format!("{value} {found}"),
            _ => value.to_owned(),
        };
        session.ask::<()>(&["CONFIG", "SET", name, &value])?;
    }
    match session.ask::<()>(&["CONFIG", "REWRITE"]) {
        Ok(()) => Ok(None),
        Err(RedisError::Refused { word, .. } | RedisError::NotAllowed { word, .. }) => {
            Ok(Some(word))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stricter_than_the_guide_is_met() {
        let check = |name: &str, found: &str, met: bool| {
            let setting = SETTINGS.into_iter().find(|it| it.name == name).unwrap();
            assert_eq!(is_met(setting, found), met, "{name} {found}");
        };
        check("save", "3600 1", true);
        check("save", "3600 1 300 100 60 10000", true);
        check("save", "60 1", true);
        check("save", "7200 1", false);
        check("save", "3600 100", false);
        check("save", "", false);
        check("appendonly", "no", false);
        check("appendfsync", "always", true);
        check("appendfsync", "no", false);
        check("auto-aof-rewrite-percentage", "0", false);
        check("auto-aof-rewrite-percentage", "50", true);
        check("auto-aof-rewrite-percentage", "200", false);
        check("auto-aof-rewrite-min-size", "134217728", false);
        check("aof-timestamp-enabled", "no", false);
    }
}
