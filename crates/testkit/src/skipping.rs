//! Tests that do not run because a part of them is not there.

use std::ffi::OsStr;
use std::io::Write;

/// Parts that those who run the tests have found not to be had here, separated by blanks.
const CANNOT_BE_HAD: &str = "BRE_CANNOT_BE_HAD";
/// A file that gets a line for every skip: `scripts/test` counts them.
const SKIPS: &str = "BRE_SKIPS";

/// Says that a test, or a part of one, does not run for want of a part: `skip!("pgbouncer", "scripts/setup pgbouncer
/// installs it")`. `scripts/test` counts it. Where `CI` is set it fails instead, unless `BRE_CANNOT_BE_HAD` names the
/// part. The caller returns.
#[macro_export]
macro_rules! skip {
    ($part:literal, $($why:tt)+) => {
        $crate::skipped($part, &format!($($why)+), &format!("{}:{}", file!(), line!()))
    };
}

/// What `skip!` calls.
pub fn skipped(part: &str, why: &str, place: &str) {
    let cannot_be_had = std::env::var(CANNOT_BE_HAD).unwrap_or_default();
    if let Err(fault) = judge(std::env::var_os("CI").is_some(), &cannot_be_had, part) {
        panic!("{fault} ({why}) at {place}");
    }
    eprintln!("skipped: no {part} here: {why}");
    if let Some(file) = std::env::var_os(SKIPS).filter(|file| !file.is_empty()) {
        note(&file, &format!("{part}: {why} ({place})\n"));
    }
}

fn judge(is_ci: bool, cannot_be_had: &str, part: &str) -> Result<(), String> {
    let is_known = cannot_be_had.split_whitespace().any(|it| it == part);
    match is_ci && !is_known {
        true => Err(format!(
            "{part} is missing, and nothing may be skipped here: provide it, or name it in {CANNOT_BE_HAD}"
        )),
        false => Ok(()),
    }
}

/// One write a line: tests run side by side.
fn note(file: &OsStr, line: &str) {
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("the file of the skips");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn under_ci_only_what_cannot_be_had_is_skipped() {
        for (is_ci, cannot_be_had, allowed) in [
            (false, "", true),
            (true, "", false),
            (true, "pgbouncer", false),
            (true, "pgbouncer softhsm", true),
            (true, "softhsm2", false),
        ] {
            let judged = judge(is_ci, cannot_be_had, "softhsm");
            assert_eq!(
                judged.is_ok(),
                allowed,
                "{is_ci} {cannot_be_had}: {judged:?}"
            );
        }
    }

    #[test]
    fn every_skip_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("skips");
        note(file.as_os_str(), "first\n");
        note(file.as_os_str(), "second\n");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "first\nsecond\n");
    }
}
