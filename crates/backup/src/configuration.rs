//! The instance's own configuration as documents: its settings, its plan, its runbooks. Keys are none of it: they
//! open what is kept here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::Progress;
use crate::documents::{Collection, Document, DocumentSource, Documents};

pub const COMPONENT: &str = "configuration";
/// The settings' name among the documents.
pub const SETTINGS: &str = "settings/bre.toml";
/// The table of jobs as it follows from the settings; nothing is restored from it.
pub const PLAN: &str = "plan.json";
const RUNBOOKS: &str = "runbooks";
/// No runbook is that long.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("cannot {what} {path}: {source}. Run this as the engine's account")]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is {reason}; {next}")]
    Odd {
        path: PathBuf,
        reason: String,
        next: &'static str,
    },
}

/// Takes the secrets out of the text of the settings.
pub type Redaction<'a> = &'a (dyn Fn(&str) -> String + Sync);

pub struct ConfigurationSource<'a> {
    /// `bre.toml`; it need not be there.
    pub settings: &'a Path,
    pub plan: Option<Vec<u8>>,
    /// A folder of pages; it need not be there.
    pub runbooks: &'a Path,
    pub redact_settings: Redaction<'a>,
}

/// Where a document belongs on this host; `None` for one that is made from others, or that is of no kind known here.
#[must_use]
pub fn place_of(name: &str, settings: &Path, runbooks: &Path) -> Option<PathBuf> {
    if name == SETTINGS {
        return Some(settings.to_owned());
    }
    let page = name.strip_prefix(RUNBOOKS)?.strip_prefix('/')?;
    Some(runbooks.join(page))
}

impl DocumentSource for ConfigurationSource<'_> {
    type Error = ConfigurationError;
    type Report = ();

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, ()), ConfigurationError> {
        let mut documents = Documents::new();
        progress.message("reading the settings");
        if let Some(document) = read(self.settings)? {
            documents.insert(SETTINGS.to_owned(), document);
        }
        if let Some(plan) = &self.plan {
            let derived = BTreeMap::from([("derived".to_owned(), "true".to_owned())]);
            let document = Document {
                content: Zeroizing::new(plan.clone()),
                attributes: derived,
            };
            documents.insert(PLAN.to_owned(), document);
        }
        progress.message("reading the runbooks");
        pages(self.runbooks, RUNBOOKS, &mut documents, progress)?;
        let collection = Collection {
            documents,
            not_read: Vec::new(),
        };
        Ok((collection, ()))
    }

    /// Settings are shown without secrets. Pages are shown as they are: people are to read them.
    fn redacted(&self, name: &str, content: &[u8]) -> String {
        match (name, std::str::from_utf8(content)) {
            (SETTINGS, Ok(text)) => (self.redact_settings)(text),
            (_, Ok(text)) if !text.contains('\0') => text.to_owned(),
            _ => format!("({} bytes that are no text)", content.len()),
        }
    }
}

/// Everything below a folder, by name; what begins with a dot, or is an editor's copy, is no page.
fn pages(
    folder: &Path,
    prefix: &str,
    documents: &mut Documents,
    progress: &dyn Progress,
) -> Result<(), ConfigurationError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("list", folder))?,
    };
    for entry in entries {
        if progress.cancelled() {
            return Ok(());
        }
        let entry = entry.map_err(failed("list", folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else {
            return Err(odd(&path, "a name that is no UTF-8", "rename it"));
        };
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        let name = format!("{prefix}/{name}");
        let kind = entry.file_type().map_err(failed("look at", &path))?;
        if kind.is_dir() {
            pages(&path, &name, documents, progress)?;
        } else if kind.is_file() {
            // Gone since the listing: it is none any more.
            if let Some(document) = read(&path)? {
                documents.insert(name, document);
            }
        } else {
            let next = "a page is a file: put the file itself there, or take it away";
            return Err(odd(&path, "neither a file nor a folder", next));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Document>, ConfigurationError> {
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("open", path))?,
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if !metadata.is_file() {
        return Err(odd(path, "no file", "put a file there, or take it away"));
    }
    let mut content = Zeroizing::new(Vec::new());
    let mut limited = (&mut file).take(DOCUMENT_BYTES_MAX + 1);
    limited
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    if content.len() as u64 > DOCUMENT_BYTES_MAX {
        let reason = format!("longer than {} MiB", DOCUMENT_BYTES_MAX >> 20);
        return Err(odd(path, reason, "it belongs elsewhere"));
    }
    let mode = format!("{:04o}", metadata.permissions().mode() & 0o7777);
    Ok(Some(Document {
        content,
        attributes: BTreeMap::from([("mode".to_owned(), mode)]),
    }))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConfigurationError {
    let path = path.to_owned();
    move |source| ConfigurationError::File { what, path, source }
}

fn odd(path: &Path, reason: impl Into<String>, next: &'static str) -> ConfigurationError {
    ConfigurationError::Odd {
        path: path.to_owned(),
        reason: reason.into(),
        next,
    }
}

impl std::fmt::Debug for ConfigurationSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigurationSource({})", self.settings.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(folder: &Path) -> Result<Documents, ConfigurationError> {
        let source = ConfigurationSource {
            settings: &folder.join("bre.toml"),
            plan: Some(b"{}".to_vec()),
            runbooks: &folder.join("runbooks"),
            redact_settings: &|text| text.replace("s3cret", "…"),
        };
        let collected = source.collect(&()).map(|(collection, ())| collection);
        assert_eq!(source.redacted(SETTINGS, b"p = s3cret"), "p = …");
        assert_eq!(source.redacted("runbooks/a.md", b"# A"), "# A");
        assert_eq!(
            source.redacted("runbooks/a.bin", b"\0"),
            "(1 bytes that are no text)"
        );
        collected.map(|collection| collection.documents)
    }

    #[test]
    fn settings_plan_and_pages_are_documents_with_their_modes() {
        let folder = tempfile::tempdir().unwrap();
        let names = |documents: &Documents| documents.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&collect(folder.path()).unwrap()), [PLAN]);
        let settings = folder.path().join("bre.toml");
        fs::write(&settings, "port = 1").unwrap();
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o640)).unwrap();
        let pages = folder.path().join("runbooks/deep");
        fs::create_dir_all(&pages).unwrap();
        for name in ["a.md", ".hidden", "a.md~"] {
            fs::write(pages.join(name), name).unwrap();
        }
        let documents = collect(folder.path()).unwrap();
        assert_eq!(names(&documents), [PLAN, "runbooks/deep/a.md", SETTINGS]);
        assert_eq!(documents[SETTINGS].attributes["mode"], "0640");
        assert_eq!(documents[PLAN].attributes["derived"], "true");
        let (s, r) = (Path::new("/x/bre.toml"), Path::new("/x/runbooks"));
        assert_eq!(place_of(SETTINGS, s, r).as_deref(), Some(s));
        let page = place_of("runbooks/deep/a.md", s, r);
        assert_eq!(page.as_deref(), Some(Path::new("/x/runbooks/deep/a.md")));
        assert_eq!(place_of(PLAN, s, r), None);
    }

    /// What cannot be kept is an error with its path: never a silent gap.
    #[test]
    fn what_is_no_page_is_named() {
        let check = |harm: &dyn Fn(&Path), says: &str| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("runbooks")).unwrap();
            harm(folder.path());
            let error = collect(folder.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        check(
            &|folder| {
                std::os::unix::fs::symlink("/etc/passwd", folder.join("runbooks/a.md")).unwrap();
            },
            "neither a file nor a folder",
        );
        check(
            &|folder| fs::create_dir(folder.join("bre.toml")).unwrap(),
            "bre.toml is no file",
        );
        check(
            &|folder| {
                let file = fs::File::create(folder.join("runbooks/large")).unwrap();
                file.set_len(DOCUMENT_BYTES_MAX + 1).unwrap();
            },
            "longer than 16 MiB",
        );
    }
}
