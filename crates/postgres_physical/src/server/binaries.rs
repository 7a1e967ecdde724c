//! Finds PostgreSQL's programs.

use super::{MAJOR_VERSION_MIN, ServerError};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One installed PostgreSQL: the folder that holds `postgres`, `initdb`, `pg_waldump` ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// A configured folder is taken as it is (or refused); otherwise PATH, then Debian's and others' usual folders: the
    /// newest version that is new enough wins.
    pub fn find(configured: Option<&Path>) -> Result<Binaries, ServerError> {
        if let Some(dir) = configured {
            let found = Binaries::inspect(dir).ok_or_else(|| ServerError::NotInstalled {
                looked_in: dir.display().to_string(),
            })?;
            return if found.major >= MAJOR_VERSION_MIN {
                Ok(found)
            } else {
                Err(ServerError::TooOld {
                    program: "postgres".into(),
                    dir: found.dir,
                    found: found.version,
                })
            };
        }
        let candidates = candidate_folders();
        candidates
            .iter()
            .filter_map(|dir| Binaries::inspect(dir))
            .filter(|found| found.major >= MAJOR_VERSION_MIN)
            .reduce(|best, next| if next.major > best.major { next } else { best })
            .ok_or_else(|| ServerError::NotInstalled {
                looked_in: candidates
                    .iter()
                    .map(|dir| dir.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Asks `postgres` and `initdb` in one folder for their version; `None` when they are not there.
    fn inspect(dir: &Path) -> Option<Binaries> {
        // A link to `postgres` in some common folder leads to the folder where its other programs are.
        let real = std::fs::canonicalize(dir.join("postgres")).ok();
        let real = real
            .as_deref()
            .and_then(Path::parent)
            .filter(|real| real.join("initdb").is_file());
        let dir = real.unwrap_or(dir);
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let (version, major) = parse_version(&text)?;
        Some(Binaries {
            dir: dir.to_owned(),
            version,
            major,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For example `15.14`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one program, e.g. `program("pg_amcheck")`. Not every installation has every program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn candidate_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    folders.retain(|dir| dir.join("postgres").is_file());
    for (base, suffix) in [("/usr/lib/postgresql", "bin"), ("/opt/postgresql", "bin")] {
        let Ok(entries) = std::fs::read_dir(base) else {
            continue;
        };
        folders.extend(entries.flatten().map(|entry| entry.path().join(suffix)));
    }
    if let Ok(entries) = std::fs::read_dir("/usr") {
        // Fedora and RHEL packages of the PostgreSQL project: /usr/pgsql-16/bin.
        folders.extend(
            entries
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().starts_with("pgsql-"))
                .map(|e| e.path().join("bin")),
        );
    }
    folders.extend(["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    folders.dedup();
    folders
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` → `("15.14", 15)`; `16devel` counts as 16.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_whitespace().nth(2)?.to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        let check = |text: &str, expected: Option<(&str, u32)>| {
            assert_eq!(
                parse_version(text),
                expected.map(|(v, m)| (v.to_owned(), m)),
                "{text}"
            );
        };
        check(
            "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n",
            Some(("15.14", 15)),
        );
        check("postgres (PostgreSQL) 19devel\n", Some(("19devel", 19)));
        check("postgres (PostgreSQL) 9.6.24\n", Some(("9.6.24", 9)));
        check("nonsense", None);
    }

    #[test]
    fn an_empty_configured_folder_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let message = Binaries::find(Some(dir.path())).unwrap_err().to_string();
        assert!(
            message.contains(&dir.path().display().to_string()),
            "{message}"
        );
    }
}
