//! How old the repository's key is: noted beside it when it is made. Past its time `bre status` and health warn.

use std::{path::Path, time::UNIX_EPOCH};

use repository::keys::RecipientPublic;
use serde::Serialize;

use super::rotation::{BACKUPS, Pair};
use crate::{error::Error, files::write_whole};
use terminal::time;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
/// The guide's rotation.
pub const DAYS_MAX: i64 = 90;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyAge {
    pub recipient_id: String,
    pub created_at: String,
    pub days: i64,
    pub warning: Option<String>,
}

/// Of the public key that writers here use.
pub fn of(folder: &Path) -> Result<KeyAge, Error> {
    of_pair(&BACKUPS, folder)
}

/// Where its age was not noted, the file's own time counts: on a host that only writes, that is when the key came.
pub fn of_pair(pair: &Pair, folder: &Path) -> Result<KeyAge, Error> {
    let recipient_id = pair.public(folder)?.id();
    let created = match noted(pair, folder, &recipient_id) {
        Some(created) => created,
        None => modified(&pair.public_path(folder))?,
    };
    let now = jiff::Timestamp::now().as_microsecond();
    Ok(aged(pair, recipient_id, created, now))
}

fn aged(pair: &Pair, recipient_id: String, created_micros: i64, now_micros: i64) -> KeyAge {
    let days = (now_micros - created_micros).max(0) / DAY_MICROS;
    let warning = (days > DAYS_MAX).then(|| {
        format!(
            "{} is {days} days old; every {DAYS_MAX} days it should be replaced: {}",
            pair.title, pair.command
        )
    });
    KeyAge {
        recipient_id,
        created_at: time(created_micros),
        days,
        warning,
    }
}

/// Called where a key is made or put in place.
pub(super) fn note(pair: &Pair, folder: &Path, public: &RecipientPublic) -> Result<(), Error> {
    let line = format!("{} {}\n", public.id(), jiff::Timestamp::now());
    write_whole(&pair.created_path(folder), line.as_bytes(), 0o644)
}

/// A note about another key says nothing about this one.
fn noted(pair: &Pair, folder: &Path, recipient_id: &str) -> Option<i64> {
    let text = std::fs::read_to_string(pair.created_path(folder)).ok()?;
    let (id, at) = text.trim().split_once(' ')?;
    let at: jiff::Timestamp = at.parse().ok()?;
    (id == recipient_id).then(|| at.as_microsecond())
}

fn modified(path: &Path) -> Result<i64, Error> {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
    let modified = modified.map_err(Error::file("cannot look at", path))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_micros()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_ninety_days_it_warns() {
        let at = |days: i64| aged(&BACKUPS, "id".into(), 5, 5 + days * DAY_MICROS + 1).warning;
        assert_eq!(at(90), None);
        let warning = at(91).unwrap();
        assert!(
            warning.contains("91 days") && warning.contains("rotate"),
            "{warning}"
        );
    }

    #[test]
    fn a_note_about_another_key_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let key = repository::keys::RecipientPrivate::generate().unwrap();
        key.public()
            .store(&BACKUPS.public_path(folder.path()))
            .unwrap();
        let line = |id: &str| format!("{id} 2020-01-01T00:00:00Z\n");
        let write =
            |id: &str| std::fs::write(BACKUPS.created_path(folder.path()), line(id)).unwrap();
        write("0123");
        assert_eq!(of(folder.path()).unwrap().days, 0);
        write(&key.public().id());
        assert!(of(folder.path()).unwrap().warning.is_some());
        note(&BACKUPS, folder.path(), key.public()).unwrap();
        assert_eq!(of(folder.path()).unwrap().warning, None);
    }
}
