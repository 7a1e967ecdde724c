//! Isolates a restored cluster: before its first start nothing in its configuration reaches another server, waits for a
//! standby, archives over other WAL, or reads files outside its folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    ("listen_addresses", ""),
    ("port", "5432"),
];

/// Recovery is driven from outside: every setting of it, and what it is where it has no effect. It is put into
/// `postgresql.auto.conf`, which PostgreSQL reads last, whatever a file that is included says; a server that we start
/// is told on its command line too, which wins over all files.
pub const RECOVERY_OFF: [(&str, &str); 14] = [
    ("restore_command", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("recovery_min_apply_delay", "0"),
    ("recovery_target", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_xid", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_inclusive", "on"),
    ("recovery_target_timeline", "latest"),
    ("recovery_target_action", "pause"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
];
/// PostgreSQL 16 and newer do not know it: it is set only where a file has it.
const TRIGGER: &str = "promote_trigger_file";

fn is_recovery(name: &str) -> bool {
    name == TRIGGER || RECOVERY_OFF.iter().any(|(known, _)| *known == name)
}

fn is_off(name: &str, value: &str) -> bool {
    value.is_empty() || RECOVERY_OFF.contains(&(name, value))
}

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

/// What of the source's settings has no effect in the copy, in sentences for whoever restores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omissions {
    pub sentences: Vec<String>,
}

impl Omissions {
    fn note(&mut self, sentence: String) {
        if !self.sentences.contains(&sentence) {
            self.sentences.push(sentence);
        }
    }

    /// Paths that the source had and could not copy. Its configuration may have been copied from where a link led.
    pub(super) fn note_skipped(&mut self, dir: &Path, skipped: &[String]) {
        for path in skipped {
            let is_socket = path.starts_with(".s.PGSQL.");
            let words = format!("{path} is not in the backup");
            let is_said = self.sentences.iter().any(|it| it.starts_with(&words));
            if !is_socket && !is_said && !dir.join(CONFIGURATION).join(path).exists() {
                self.note(format!(
                    "{words}: on the source it was a link, lay outside the data folder, or could not be read. Bring \
                     it from there"
                ));
            }
        }
    }
}

/// `set`: what the copy is set to, whatever its files say.
pub(super) fn make_private(
    dir: &Path,
    set: &[(String, String)],
    write: Write<'_>,
) -> Result<Omissions> {
    let mut omissions = Omissions::default();
    let elsewhere = dir.join(CONFIGURATION);
    let main = dir.join(MAIN);
    if read(&main)?.trim().is_empty() && elsewhere.join(MAIN).exists() {
        let text = format!(
            "# The source keeps its configuration outside its data folder.\ninclude '{CONFIGURATION}/{MAIN}'\n"
        );
        write(&main, text.as_bytes())?;
    } else if read(&main)?.trim().is_empty() {
        omissions.note(format!(
            "{MAIN} is not in the backup: on the source it was a link or lay outside the data folder. The copy has \
             PostgreSQL's defaults: bring the source's settings before it is used"
        ));
        write(&main, b"# The source's own is not in the backup.\n")?;
    }
    let mut files = Files {
        dir,
        write,
        omissions: &mut omissions,
        seen: BTreeSet::new(),
        has_trigger: false,
    };
    files.file(&main)?;
    files.all_below(&elsewhere)?;
    let has_trigger = files.has_trigger;
    let mut auto = private_auto(&read(&dir.join(AUTO))?, dir, has_trigger, &mut omissions);
    for (name, value) in set {
        // The last of several of one name counts.
        auto.push_str(&format!("{name} = '{}'\n", escaped(value)));
    }
    write(&dir.join(AUTO), auto.as_bytes())?;
    for (name, otherwise) in [
        (
            HBA,
            "# The source keeps its own elsewhere.\nlocal all all peer\n",
        ),
        (IDENT, ""),
    ] {
        let found = read(&dir.join(name))?;
        let is_lost = name == HBA && found.trim().is_empty();
        if is_lost || !dir.join(name).exists() {
            let kept = read(&elsewhere.join(name))?;
            if kept.is_empty() {
                omissions.note(format!(
                    "{name} is not in the backup: on the source it was a link or lay outside the data folder. Bring \
                     it from there"
                ));
            }
            let text = if kept.is_empty() { otherwise } else { &kept };
            write(&dir.join(name), text.as_bytes())?;
        }
    }
    for signal in ["standby.signal", "postmaster.pid", "postmaster.opts"] {
        remove(&dir.join(signal))?;
    }
    write(&dir.join(SIGNAL), b"")?;
    Ok(omissions)
}

/// The settings files of a folder, each of which may include others.
struct Files<'a> {
    dir: &'a Path,
    write: Write<'a>,
    omissions: &'a mut Omissions,
    seen: BTreeSet<PathBuf>,
    has_trigger: bool,
}

impl Files<'_> {
    /// Makes one private, and those that it includes.
    fn file(&mut self, path: &Path) -> Result<()> {
        let is_file = path.symlink_metadata().is_ok_and(|meta| meta.is_file());
        if !is_file || !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let before = read(path)?;
        let mut after = String::new();
        let mut included = Vec::new();
        for line in before.lines() {
            match setting(line) {
                Some((name, value)) if self.is_out(path, &name, &value) => {
                    after.push_str(&format!("# not in a restored copy: {line}\n"));
                }
                Some((name, value)) if INCLUDES.contains(&name.as_str()) => {
                    included.extend(included_by(path, &name, &value));
                    after.push_str(&format!("{line}\n"));
                }
                _ => after.push_str(&format!("{line}\n")),
            }
        }
        if after.trim_end() != before.trim_end() {
            (self.write)(path, after.as_bytes())?;
        }
        included.iter().try_for_each(|path| self.file(path))
    }

    /// Every settings file of a configuration that lay elsewhere.
    fn all_below(&mut self, folder: &Path) -> Result<()> {
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
                self.all_below(&path)?;
            } else if kind.is_file() && settings {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a line has no place in a copy: it reaches out of it, or drives a recovery that is not ours.
    fn is_out(&mut self, path: &Path, name: &str, value: &str) -> bool {
        let shown = path.strip_prefix(self.dir).unwrap_or(path).display();
        if is_recovery(name) {
            self.has_trigger |= name == TRIGGER;
            if !is_off(name, value) {
                self.omissions.note(leftover(name, &shown.to_string()));
            }
            return true;
        }
        let outside = value.starts_with('/') || value.split('/').any(|part| part == "..");
        if LOCATIONS.contains(&name) {
            return outside;
        }
        if !INCLUDES.contains(&name) {
            return false;
        }
        let missing =
            !outside && name != "include_if_exists" && !path.with_file_name(value).exists();
        if outside || missing {
            self.omissions.note(format!(
                "{name} '{value}' in {shown} leads to what is not in the backup: what it sets has no effect in the \
                 copy. Bring it from the source"
            ));
        }
        outside || missing
    }
}

fn leftover(name: &str, file: &str) -> String {
    format!(
        "{name} in {file} of the source belongs to another recovery: it had no effect here, and has none in the copy"
    )
}

/// Relative to the file that says so.
fn included_by(path: &Path, name: &str, value: &str) -> Vec<PathBuf> {
    let place = path.with_file_name(value);
    if name != "include_dir" {
        return vec![place];
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".conf") && !name.starts_with('.')
    });
    files.sort();
    files
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

fn private_auto(text: &str, dir: &Path, has_trigger: bool, omissions: &mut Omissions) -> String {
    let mut auto = String::new();
    for line in text.lines() {
        let Some((name, value)) = setting(line) else {
            auto.push_str(&format!("{line}\n"));
            continue;
        };
        if is_recovery(&name) && !is_off(&name, &value) {
            omissions.note(leftover(&name, AUTO));
        }
        let overridden = name == "unix_socket_directories"
            || is_recovery(&name)
            || LOCATIONS.contains(&name.as_str())
            || OVERRIDES.iter().any(|(overridden, _)| *overridden == name);
        if !overridden {
            auto.push_str(&format!("{line}\n"));
        }
    }
    let trigger = has_trigger.then_some((TRIGGER, ""));
    for (name, value) in OVERRIDES.iter().copied().chain(RECOVERY_OFF).chain(trigger) {
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
        escaped(&sockets)
    ));
    auto
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''")
}

/// Puts settings into `postgresql.auto.conf`, in the place of those that it has of the same name.
pub(super) fn set_in_auto(dir: &Path, settings: &[(&str, u32)]) -> Result<()> {
    use std::io::Write as _;
    let path = dir.join(AUTO);
    let named = |line: &str| {
        let found = setting(line);
        found.is_some_and(|(name, _)| settings.iter().any(|(set, _)| *set == name))
    };
    let text = read(&path)?;
    let kept = text.lines().filter(|line| !named(line));
    let mut auto: String = kept.map(|line| format!("{line}\n")).collect();
    for (name, value) in settings {
        auto.push_str(&format!("{name} = '{value}'\n"));
    }
    // Not truncated first: the folder is not whole before this is on disk, and the marker says so.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    file.write_all(auto.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &path))
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

    fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn made_private(dir: &Path) -> Vec<String> {
        let write =
            |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(Error::io("write", path));
        make_private(dir, &[], &write).unwrap().sentences
    }

    #[test]
    fn only_what_reaches_out_is_taken_out() {
        let check = |line: &str, kept: bool| {
            let folder = folder_of(&[
                ("postgresql.conf", &format!("{line}\n")),
                ("pg_hba.conf", "local all all peer\n"),
                ("pg_ident.conf", ""),
                ("conf.d/a.conf", ""),
            ]);
            made_private(folder.path());
            let found = fs::read_to_string(folder.path().join(MAIN)).unwrap();
            let expected = if kept {
                format!("{line}\n")
            } else {
                format!("# not in a restored copy: {line}\n")
            };
            assert_eq!(found, expected);
        };
        check("shared_buffers = 128MB", true);
        check("include_dir 'conf.d'", true);
        check("include_dir = '/etc/postgresql/15/main/conf.d'", false);
        check("INCLUDE '../shared.conf' # why", false);
        check("include 'was_a_link.conf'", false);
        check("include_if_exists 'was_a_link.conf'", true);
        check("hba_file = '/etc/postgresql/15/main/pg_hba.conf'", false);
        check("restore_command='cp /archive/%f %p'", false);
        check("# include '/x'", true);
        check("log_directory = '/var/log/postgresql'", true);
    }

    #[test]
    fn every_setting_of_recovery_is_out_of_force_in_the_file_that_is_read_last_and_named() {
        let folder = folder_of(&[
            (
                "postgresql.conf",
                "include_dir 'conf.d'\nrecovery_target_action = pause\n",
            ),
            (
                "conf.d/90-restore.conf",
                "recovery_target_time = '2020-01-01'\nrecovery_end_command = 'touch /tmp/ran'\nrecovery_min_apply_delay = '2min'\n\
                 include 'deeper/b.conf'\npromote_trigger_file = '/tmp/x'\n",
            ),
            (
                "conf.d/deeper/b.conf",
                "data_directory = '/srv/other'\nexternal_pid_file = '/run/pid'\nwork_mem = '8MB'\n",
            ),
            (
                "postgresql.auto.conf",
                "primary_conninfo = 'host=prod'\nrestore_command = ''\n",
            ),
            ("pg_hba.conf", "local all all peer\n"),
            ("pg_ident.conf", ""),
        ]);
        let said = made_private(folder.path());
        let get = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for (name, place) in [
            ("recovery_target_time", "conf.d/90-restore.conf"),
            ("recovery_end_command", "conf.d/90-restore.conf"),
            ("recovery_min_apply_delay", "conf.d/90-restore.conf"),
            ("promote_trigger_file", "conf.d/90-restore.conf"),
            ("primary_conninfo", "postgresql.auto.conf"),
        ] {
            let expected = format!("{name} in {place} ");
            assert!(
                said.iter().any(|it| it.starts_with(&expected)),
                "{name}: {said:?}"
            );
        }
        assert_eq!(said.len(), 5, "{said:?}");
        let auto = get(AUTO);
        for (name, value) in RECOVERY_OFF {
            assert!(auto.contains(&format!("{name} = '{value}'\n")), "{auto}");
        }
        assert!(auto.contains("promote_trigger_file = ''\n"), "{auto}");
        let deeper = get("conf.d/deeper/b.conf");
        assert!(
            deeper.starts_with("# not in a restored copy: data_directory"),
            "{deeper}"
        );
        assert!(
            deeper.contains("\n# not in a restored copy: external_pid_file"),
            "{deeper}"
        );
        assert!(deeper.ends_with("\nwork_mem = '8MB'\n"), "{deeper}");
        assert!(
            made_private(folder.path()).is_empty(),
            "what is out of force is said once"
        );
    }

    #[test]
    fn settings_that_were_no_plain_files_are_said() {
        let folder = folder_of(&[("postgresql.conf", "")]);
        let write =
            |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(Error::io("write", path));
        let mut omissions = make_private(folder.path(), &[], &write).unwrap();
        let skipped = ["pg_hba.conf", ".s.PGSQL.5432", "ssl.key"].map(str::to_owned);
        omissions.note_skipped(folder.path(), &skipped);
        let said = omissions.sentences;
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "ssl.key"] {
            let expected = format!("{name} is not in the backup");
            assert!(said.iter().any(|it| it.starts_with(&expected)), "{said:?}");
        }
        assert!(!said.iter().any(|it| it.contains("PGSQL")), "{said:?}");
    }

    #[test]
    fn a_setting_takes_the_place_of_its_namesake() {
        let folder = folder_of(&[(AUTO, "max_connections = 5\n# kept\nport = '5432'\n")]);
        set_in_auto(folder.path(), &[("max_connections", 300)]).unwrap();
        let auto = fs::read_to_string(folder.path().join(AUTO)).unwrap();
        assert_eq!(auto, "# kept\nport = '5432'\nmax_connections = '300'\n");
    }

    #[test]
    fn overrides_replace_what_was_there() {
        let before = "# kept\nwork_mem = '8MB'\nsynchronous_standby_names = 'bre'\nprimary_conninfo = 'host=prod'\n";
        let private =
            |text: &str| private_auto(text, Path::new("/data"), false, &mut Omissions::default());
        let auto = private(before);
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
        assert!(!auto.contains(TRIGGER), "newer ones do not know it");
        assert_eq!(private(&auto).lines().count(), auto.lines().count());
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
        make_private(dir, &[], &|path, bytes| {
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
