//! Keeps a restored cluster to itself: before its first start nothing in its configuration reaches another server, waits for a standby,
//! archives over somebody's WAL, or reads files outside its folder.

use std::fs;
use std::path::Path;

use crate::{Error, Result};

const AUTO: &str = "postgresql.auto.conf";
const MAIN: &str = "postgresql.conf";
const SIGNAL: &str = "recovery.signal";
const HBA: &str = "pg_hba.conf";
const IDENT: &str = "pg_ident.conf";

/// Kept in `postgresql.auto.conf`, so that the operator sees and changes them with ALTER SYSTEM.
const OVERRIDES: &[(&str, &str)] = &[
    ("synchronous_standby_names", ""),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("listen_addresses", ""),
    ("port", "5432"),
];

/// Recovery is driven from outside; none of these may stay behind in a file.
const RECOVERY: &[&str] = &[
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
    "promote_trigger_file",
];

const LOCATIONS: &[&str] = &[
    "data_directory",
    "hba_file",
    "ident_file",
    "external_pid_file",
];
const INCLUDES: &[&str] = &["include", "include_dir", "include_if_exists"];

/// Writes a small file that belongs to PostgreSQL's account.
type Write<'a> = &'a dyn Fn(&Path, &[u8]) -> Result<()>;

/// Where the configuration of a source lies that keeps it outside its data folder, as Debian does.
const CONFIGURATION: &str = "bre_configuration";

pub(super) fn make_private(dir: &Path, write: Write<'_>) -> Result<()> {
    let elsewhere = dir.join(CONFIGURATION);
    make_private_below(&elsewhere, write)?;
    let main = dir.join(MAIN);
    if main.exists() || !elsewhere.join(MAIN).exists() {
        write(&main, private_main(&read(&main)?).as_bytes())?;
    } else {
        let text = format!(
            "# The source keeps its configuration outside its data folder.\ninclude '{CONFIGURATION}/{MAIN}'\n"
        );
        write(&main, text.as_bytes())?;
    }
    let auto = private_auto(&read(&dir.join(AUTO))?, dir);
    write(&dir.join(AUTO), auto.as_bytes())?;
    for (name, otherwise) in [
        (
            HBA,
            "# The source keeps its own elsewhere.\nlocal all all peer\n",
        ),
        (IDENT, ""),
    ] {
        if !dir.join(name).exists() {
            let kept = read(&elsewhere.join(name))?;
            let text = if kept.is_empty() { otherwise } else { &kept };
            write(&dir.join(name), text.as_bytes())?;
        }
    }
    for signal in ["standby.signal", "postmaster.pid", "postmaster.opts"] {
        remove(&dir.join(signal))?;
    }
    write(&dir.join(SIGNAL), b"")
}

/// Every settings file of a configuration that lay elsewhere: they include each other.
fn make_private_below(folder: &Path, write: Write<'_>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io("list", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        let settings = name
            .to_str()
            .is_some_and(|name| name.ends_with(".conf") && ![HBA, IDENT].contains(&name));
        if kind.is_dir() {
            make_private_below(&path, write)?;
        } else if kind.is_file() && settings {
            write(&path, private_main(&read(&path)?).as_bytes())?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn private_main(text: &str) -> String {
    let private = |line: &str| match setting(line) {
        Some((name, value)) if reaches_out(&name, &value) => {
            format!("# not in a restored copy: {line}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(private).collect()
}

fn reaches_out(name: &str, value: &str) -> bool {
    let outside = value.starts_with('/') || value.split('/').any(|part| part == "..");
    RECOVERY.contains(&name) || (outside && (INCLUDES.contains(&name) || LOCATIONS.contains(&name)))
}

fn private_auto(text: &str, dir: &Path) -> String {
    let overridden = |name: &str| {
        name == "unix_socket_directories"
            || RECOVERY.contains(&name)
            || LOCATIONS.contains(&name)
            || OVERRIDES.iter().any(|(overridden, _)| *overridden == name)
    };
    let kept = text
        .lines()
        .filter(|line| setting(line).is_none_or(|(name, _)| !overridden(&name)));
    let mut auto: String = kept.map(|line| format!("{line}\n")).collect();
    for (name, value) in OVERRIDES {
        auto.push_str(&format!("{name} = '{value}'\n"));
    }
    // A socket in the folder itself meets no other server's; its path has a limit of 107 bytes.
    let folder = dir.display().to_string();
    let sockets = if folder.len() <= 85 && !folder.contains([',', '"', ' ']) {
        folder
    } else {
        "/tmp".to_owned()
    };
    auto.push_str(&format!(
        "unix_socket_directories = '{}'\n",
        sockets.replace('\'', "''")
    ));
    auto
}

/// Name and value of a line, or `None` for comments and blanks.
fn setting(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start().trim_start_matches('=').trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next().unwrap_or_default(),
        None => rest.split([' ', '\t', '#']).next().unwrap_or_default(),
    };
    Some((name.to_ascii_lowercase(), value.to_owned()))
}

/// What recovery itself leaves beside a plain data folder.
pub(super) fn remove_traces(dir: &Path) -> Result<()> {
    for name in [
        SIGNAL,
        "backup_label.old",
        "tablespace_map.old",
        "recovery.done",
    ] {
        remove(&dir.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reaches_out_is_taken_out() {
        let check = |line: &str, kept: bool| {
            let expected = if kept {
                format!("{line}\n")
            } else {
                format!("# not in a restored copy: {line}\n")
            };
            assert_eq!(private_main(line), expected);
        };
        check("shared_buffers = 128MB", true);
        check("include_dir 'conf.d'", true);
        check("include_dir = '/etc/postgresql/15/main/conf.d'", false);
        check("INCLUDE '../shared.conf' # why", false);
        check("hba_file = '/etc/postgresql/15/main/pg_hba.conf'", false);
        check("restore_command='cp /archive/%f %p'", false);
        check("# include '/x'", true);
        check("log_directory = '/var/log/postgresql'", true);
    }

    #[test]
    fn overrides_replace_what_was_there() {
        let before = "# kept\nwork_mem = '8MB'\nsynchronous_standby_names = 'bre'\nprimary_conninfo = 'host=prod'\n";
        let auto = private_auto(before, Path::new("/data"));
        assert!(
            auto.starts_with("# kept\nwork_mem = '8MB'\nsynchronous_standby_names = ''\n"),
            "{auto}"
        );
        assert!(
            !auto.contains("prod") && auto.contains("archive_mode = 'off'\n"),
            "{auto}"
        );
        assert!(
            auto.ends_with("unix_socket_directories = '/data'\n"),
            "{auto}"
        );
        assert_eq!(
            private_auto(&auto, Path::new("/data")).lines().count(),
            auto.lines().count()
        );
    }

    #[test]
    fn configuration_from_outside_the_data_folder_is_included_and_reaches_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::create_dir_all(dir.join("bre_configuration/conf.d")).unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        put(
            "bre_configuration/postgresql.conf",
            "data_directory = '/var/lib/postgresql/15/main'\ninclude_dir = 'conf.d'\nwork_mem = '8MB'\n",
        );
        put("bre_configuration/conf.d/a.conf", "hba_file = '/etc/hba'\n");
        put("bre_configuration/pg_hba.conf", "local all all trust\n");
        make_private(dir, &|path, bytes| {
            std::fs::write(path, bytes).map_err(Error::io("write", path))
        })
        .unwrap();
        let get = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(get("postgresql.conf").ends_with("include 'bre_configuration/postgresql.conf'\n"));
        let main = get("bre_configuration/postgresql.conf");
        assert!(
            main.starts_with("# not in a restored copy: data_directory"),
            "{main}"
        );
        assert!(
            main.ends_with("include_dir = 'conf.d'\nwork_mem = '8MB'\n"),
            "{main}"
        );
        assert!(get("bre_configuration/conf.d/a.conf").starts_with("# not in"));
        assert_eq!(get("pg_hba.conf"), "local all all trust\n");
        assert_eq!(get("recovery.signal"), "");
    }
}
