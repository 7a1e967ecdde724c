//! Settings that lie outside the data folder, as Debian keeps them: `config_file`, `hba_file`, `ident_file` and whatever
//! they include. They are copied below [`FOLDER`] under their usual names, so that relative inclusions still lead to each other;
//! what lies elsewhere goes below [`OTHER`], by its absolute path.

use super::session::Session;
use super::walk::SourceFile;
use crate::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const FOLDER: &str = "bre_configuration";
const OTHER: &str = "bre_configuration/other";
/// Where the server says that each is, and what a restore calls it.
const SETTINGS: [(&str, &str); 3] = [
    ("config_file", "postgresql.conf"),
    ("hba_file", "pg_hba.conf"),
    ("ident_file", "pg_ident.conf"),
];
/// What Debian's `pg_createcluster` puts beside `postgresql.conf`.
const BESIDE: [&str; 3] = ["start.conf", "pg_ctl.conf", "environment"];
const AUTO: &str = "postgresql.auto.conf";
/// Deeper inclusions are refused by the server, too.
const DEPTH_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Configuration {
    pub(super) files: Vec<SourceFile>,
    /// `configuration.config_file` → its path; and what could not be read.
    pub(super) facts: BTreeMap<String, String>,
}

pub(super) fn outside(session: &mut Session, data: &Path) -> Result<Configuration> {
    let mut search = Search {
        data: fs::canonicalize(data).unwrap_or_else(|_| data.to_owned()),
        main_folder: None,
        names: BTreeMap::new(),
        seen: BTreeSet::new(),
        missing: Vec::new(),
        found: Configuration::default(),
    };
    for (setting, name) in SETTINGS {
        let Some(path) = session.setting(setting)?.filter(|path| !path.is_empty()) else {
            continue;
        };
        let path = plain(&data.join(path));
        if search.is_outside(&path) {
            let fact = (
                format!("configuration.{setting}"),
                path.display().to_string(),
            );
            search.found.facts.extend([fact]);
            search.names.insert(path.clone(), name);
            if setting == "config_file" {
                search.main_folder = path.parent().map(Path::to_owned);
                search.beside(&path);
            }
        }
        search.file(&path, 0);
    }
    search.auto();
    if !search.missing.is_empty() {
        let fact = (
            "configuration.missing".to_owned(),
            search.missing.join(", "),
        );
        search.found.facts.extend([fact]);
    }
    Ok(search.found)
}

struct Search {
    data: PathBuf,
    /// Of `config_file`, when that lies outside.
    main_folder: Option<PathBuf>,
    names: BTreeMap<PathBuf, &'static str>,
    seen: BTreeSet<PathBuf>,
    missing: Vec<String>,
    found: Configuration,
}

impl Search {
    /// What lies inside the data folder is copied with it.
    fn is_outside(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        !real.starts_with(&self.data)
    }

    /// In the backup.
    fn name(&self, path: &Path) -> String {
        if let Some(name) = self.names.get(path) {
            return format!("{FOLDER}/{name}");
        }
        let below = self.main_folder.as_ref();
        match below.and_then(|folder| path.strip_prefix(folder).ok()) {
            Some(below) => format!("{FOLDER}/{}", below.display()),
            None => format!("{OTHER}{}", path.display()),
        }
    }

    /// What ALTER SYSTEM writes always lies in the data folder; where it is a link, what it leads to takes its place.
    fn auto(&mut self) {
        let path = self.data.join(AUTO);
        if !path.is_symlink() {
            return;
        }
        match fs::metadata(&path) {
            Ok(meta) => self.found.files.push(SourceFile {
                path: AUTO.to_owned(),
                place: path,
                size: meta.len(),
            }),
            Err(error) => self.missing.push(format!("{} ({error})", path.display())),
        }
    }

    fn beside(&mut self, main: &Path) {
        for name in BESIDE {
            let path = main.with_file_name(name);
            if path.is_file() {
                self.file(&path, DEPTH_MAX);
            }
        }
    }

    /// The file, and those that it includes.
    fn file(&mut self, path: &Path, depth: usize) {
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let text = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.missing.push(format!("{} ({error})", path.display())),
        };
        if self.is_outside(path) {
            self.found.files.push(SourceFile {
                path: self.name(path),
                place: path.to_owned(),
                size: text.len() as u64,
            });
        }
        if depth >= DEPTH_MAX {
            return;
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        for line in String::from_utf8_lossy(&text).lines() {
            for included in included_by(line, folder) {
                if !included.optional || included.path.exists() {
                    self.file(&included.path, depth + 1);
                }
            }
        }
    }
}

struct IncludeDirective {
    path: PathBuf,
    optional: bool,
}

/// Without `.` and `..`: a name in the backup has neither.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// `include 'x'`, `include_if_exists = 'x'`, `include_dir 'x'` of all three files, `@x` of `pg_hba.conf`.
fn included_by(line: &str, folder: &Path) -> Vec<IncludeDirective> {
    let line = line.trim();
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let one = |optional| {
        let path = plain(&folder.join(value(rest)));
        vec![IncludeDirective { path, optional }]
    };
    match word.to_ascii_lowercase().as_str() {
        _ if line.starts_with('#') => Vec::new(),
        "include" => one(false),
        "include_if_exists" => one(true),
        "include_dir" => settings_in(&plain(&folder.join(value(rest)))),
        _ => line
            .split([' ', '\t', ','])
            .take_while(|word| !word.starts_with('#'))
            .filter_map(|word| word.strip_prefix('@'))
            .map(|name| IncludeDirective {
                path: plain(&folder.join(name.trim_matches('"'))),
                optional: true,
            })
            .collect(),
    }
}

fn value(rest: &str) -> &str {
    let rest = rest.trim_start().trim_start_matches('=').trim_start();
    for quote in ['\'', '"'] {
        if let Some(quoted) = rest.strip_prefix(quote) {
            return quoted.split(quote).next().unwrap_or_default();
        }
    }
    rest.split([' ', '\t', '#']).next().unwrap_or_default()
}

fn settings_in(folder: &Path) -> Vec<IncludeDirective> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_settings = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".conf") && !name.starts_with('.')
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(is_settings)
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| IncludeDirective {
            path,
            optional: false,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inclusions() {
        let folder = Path::new("/etc/x");
        let check = |line: &str, expected: &[&str]| {
            let found: Vec<_> = included_by(line, folder)
                .into_iter()
                .map(|included| included.path.display().to_string())
                .collect();
            assert_eq!(found, expected, "{line}");
        };
        check("include 'more.conf' # why", &["/etc/x/more.conf"]);
        check("  INCLUDE = '/srv/site.conf'", &["/srv/site.conf"]);
        check("include_if_exists more.conf", &["/etc/x/more.conf"]);
        check(
            "include '../shared/./more.conf'",
            &["/etc/shared/more.conf"],
        );
        check("#include 'more.conf'", &[]);
        check("include_dir 'nowhere'", &[]);
        check(
            "local @admins,bob @\"hosts\" all peer # @no",
            &["/etc/x/admins", "/etc/x/hosts"],
        );
        check("work_mem = '8MB'", &[]);
    }
}
