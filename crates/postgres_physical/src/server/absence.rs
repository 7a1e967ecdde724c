//! What a cluster needs of its machine and does not find there, recognised by PostgreSQL's own messages (in English:
//! the caller that starts the server sets `lc_messages`).

use std::fmt;

use super::sql::quote_identifier;

/// Something that is not on this machine, and the way on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.what, self.remedy)
    }
}

const LOCALES: [&str; 4] = ["lc_messages", "lc_monetary", "lc_numeric", "lc_time"];
const ZONES: [&str; 2] = ["log_timezone", "TimeZone"];

impl Absence {
    /// From the end of a server's log, or a message of a connection. `None`: nothing in it speaks of this machine.
    #[must_use]
    pub fn find(text: &str) -> Option<Absence> {
        text.lines().find_map(of_line).or_else(|| of_memory(text))
    }
}

fn of_line(line: &str) -> Option<Absence> {
    if let Some(file) = quoted_after(line, "could not access file ") {
        return Some(library(file));
    }
    if let Some(file) = quoted_after(line, "could not load library ") {
        return Some(library(file));
    }
    if let Some(name) = quoted_after(line, "invalid value for parameter ") {
        let value = line.split("\": \"").nth(1)?.split('"').next()?;
        if LOCALES.contains(&name) {
            let mut absence = locale(value, &format!("the setting {name}"));
            absence.remedy.push_str(&format!(
                ". Or continue without it: --set {name}=C for a restore, the setting itself elsewhere"
            ));
            return Some(absence);
        }
        return ZONES.contains(&name).then(|| Absence {
            what: format!("the time zone {value} of the setting {name} is not on this machine"),
            remedy: format!(
                "Install it (Debian: apt-get install tzdata tzdata-legacy), or continue without it: --set {name}=UTC \
                 for a restore"
            ),
        });
    }
    // The detail of `database locale is incompatible with operating system`.
    for kind in ["LC_COLLATE", "LC_CTYPE"] {
        let words = format!("was initialized with {kind} ");
        if let Some(value) = quoted_after(line, &words) {
            return Some(locale(value, "a database"));
        }
    }
    if let Some(value) = quoted_after(line, "could not open collator for locale ") {
        return Some(Absence {
            what: format!("the ICU locale {value} of a database or collation is not on this machine"),
            remedy: "Install the ICU library that the source's PostgreSQL uses (Debian: apt-get install libicu-dev shows which is here)"
                .to_owned(),
        });
    }
    if line.contains("ICU is not supported in this build") {
        return Some(Absence {
            what: "PostgreSQL on this machine was built without ICU, and the cluster uses it".to_owned(),
            remedy: "Install a PostgreSQL of the same version that has it (Debian's and PostgreSQL's own packages do)".to_owned(),
        });
    }
    None
}

fn of_memory(text: &str) -> Option<Absence> {
    let words = [
        "could not map anonymous shared memory",
        "could not create shared memory segment",
    ];
    words.iter().any(|words| text.contains(words)).then(|| Absence {
        what: "this machine has not the memory that the cluster's settings ask for".to_owned(),
        remedy: "Ask for less: --set shared_buffers=128MB for a restore, the setting itself elsewhere".to_owned(),
    })
}

/// `could not access file "x": No such file or directory` → `x`
fn quoted_after<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    let rest = line.split_once(words)?.1;
    rest.strip_prefix('"')?.split('"').next()
}

fn library(file: &str) -> Absence {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.trim_end_matches(".so");
    Absence {
        what: format!(
            "the library {name} is not on this machine, and the cluster loads it (shared_preload_libraries, \
             session_preload_libraries, local_preload_libraries, or an extension)"
        ),
        remedy: format!(
            "Install the package that has {name}.so (Debian: apt-cache search postgresql | grep -i {name}). Or \
             continue without it: name the others only, as --set shared_preload_libraries='' for a restore, the \
             setting itself elsewhere"
        ),
    }
}

fn locale(value: &str, whose: &str) -> Absence {
    // `de_DE.utf8`: language and charset, as localedef takes them.
    let (language, charset) = value.split_once('.').unwrap_or((value, "UTF-8"));
    let charset = match charset.to_ascii_lowercase().as_str() {
        "utf8" => "UTF-8".to_owned(),
        _ => charset.to_owned(),
    };
    Absence {
        what: format!("the locale {value} of {whose} is not on this machine"),
        remedy: format!(
            "Make it: localedef -i {language} -f {charset} {value} (Debian: apt-get install locales first)"
        ),
    }
}

/// A database whose text was ordered by another version of its collations than this machine has.
#[must_use]
pub fn other_collation_version(database: &str, then: &str, here: &str) -> String {
    let name = quote_identifier(database);
    format!(
        "database {database} was ordered by version {then} of its collation, and this machine has {here}: indexes of \
         text may find less than there is. After a restore here: REINDEX DATABASE {name}; ALTER DATABASE {name} \
         REFRESH COLLATION VERSION"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_this_machine_is_named_with_the_way_on() {
        let check = |text: &str, what: &str, remedy: &str| {
            let found = Absence::find(text).unwrap_or_else(|| panic!("{text}"));
            assert!(found.what.contains(what), "{found}");
            assert!(found.remedy.contains(remedy), "{found}");
        };
        check(
            "LOG:  starting\n2026-11-29 FATAL:  could not access file \"pg_hint_plan\": No such file or \
             directory\nLOG:  database system is shut down",
            "library pg_hint_plan",
            "--set shared_preload_libraries=",
        );
        check(
            "FATAL:  could not load library \"/usr/lib/postgresql/15/lib/x.so\": libfoo.so.1: cannot open shared \
             object file",
            "library x",
            "x.so",
        );
        check(
            "LOG:  invalid value for parameter \"lc_messages\": \"de_DE.utf8\"\nFATAL:  configuration file \
             \"/d/postgresql.conf\" contains errors",
            "locale de_DE.utf8 of the setting lc_messages",
            "localedef -i de_DE -f UTF-8 de_DE.utf8",
        );
        check(
            "PostgreSQL at x refused the login of postgres: FATAL: database locale is incompatible with operating \
             system (XX000); The database was initialized with LC_COLLATE \"sv_SE.ISO-8859-1\",  which is not \
             recognized by setlocale().",
            "locale sv_SE.ISO-8859-1 of a database",
            "-f ISO-8859-1",
        );
        check(
            "ERROR:  could not open collator for locale \"xx\": U_FILE_ACCESS_ERROR",
            "ICU locale xx",
            "ICU library",
        );
        check(
            "LOG:  invalid value for parameter \"log_timezone\": \"US/Eastern\"",
            "US/Eastern",
            "tzdata-legacy",
        );
        check(
            "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
            "memory",
            "shared_buffers",
        );
        for innocent in [
            "FATAL:  the database system is starting up",
            "PANIC:  could not locate a valid checkpoint record",
            "LOG:  invalid value for parameter \"work_mem\": \"x\"",
            "",
        ] {
            assert_eq!(Absence::find(innocent), None, "{innocent}");
        }
    }
}
