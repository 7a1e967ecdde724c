//! Documents of a snapshot back into files: what would be done is decided first ([`plan`]), shown, and only then
//! carried out ([`apply`]), which reads back what it wrote. A second plan is empty. What a snapshot does not hold is
//! left alone.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use repository::snapshot::{SnapshotDocument, SnapshotReader};
use serde::Serialize;

use crate::error::{Error, Result};

/// Of a document whose mode is not told: it may hold a secret.
const MODE: u32 = 0o600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentAction {
    Create,
    Replace,
    /// The content is the same.
    Mode,
    /// Nothing to do.
    Same,
    /// It has no place here.
    Skip,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentStep {
    pub name: String,
    pub action: DocumentAction,
    pub path: Option<PathBuf>,
    pub bytes: u64,
    #[serde(skip)]
    mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentPlan {
    pub steps: Vec<DocumentStep>,
}

impl DocumentPlan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    pub fn changes(&self) -> impl Iterator<Item = &DocumentStep> {
        let idle = |step: &&DocumentStep| {
            !matches!(step.action, DocumentAction::Same | DocumentAction::Skip)
        };
        self.steps.iter().filter(idle)
    }
}

/// Looks at what is there; changes nothing. `place` says where a document belongs.
pub fn plan(
    reader: &SnapshotReader,
    place: &dyn Fn(&SnapshotDocument) -> Option<PathBuf>,
) -> Result<DocumentPlan> {
    let mut steps = Vec::new();
    for document in reader.documents() {
        let mode = mode_of(document);
        let path = place(document);
        let action = match &path {
            None => DocumentAction::Skip,
            Some(path) => action(reader, document, path, mode)?,
        };
        steps.push(DocumentStep {
            name: document.name.clone(),
            action,
            path,
            bytes: document.bytes,
            mode,
        });
    }
    Ok(DocumentPlan { steps })
}

fn mode_of(document: &SnapshotDocument) -> u32 {
    let told = document.attributes.get("mode");
    let told = told.and_then(|mode| u32::from_str_radix(mode, 8).ok());
    // No bit beyond the permissions is ever set from a snapshot.
    told.map_or(MODE, |mode| mode & 0o777)
}

fn action(
    reader: &SnapshotReader,
    document: &SnapshotDocument,
    path: &Path,
    mode: u32,
) -> Result<DocumentAction> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DocumentAction::Create),
        other => other.map_err(Error::io("cannot look at", path))?,
    };
    if !metadata.is_file() {
        return Err(Error::InTheWay(path.to_owned()));
    }
    let there = zeroize::Zeroizing::new(fs::read(path).map_err(Error::io("cannot read", path))?);
    if there != reader.read(document)? {
        return Ok(DocumentAction::Replace);
    }
    match metadata.permissions().mode() & 0o777 == mode {
        true => Ok(DocumentAction::Same),
        false => Ok(DocumentAction::Mode),
    }
}

/// Each file whole or not at all, on disk when this returns, and read back. Interrupted anywhere it is planned and
/// applied again.
pub fn apply(reader: &SnapshotReader, plan: &DocumentPlan) -> Result<()> {
    for step in plan.changes() {
        let (Some(path), Some(document)) = (&step.path, reader.document(&step.name)) else {
            continue;
        };
        if step.action == DocumentAction::Mode {
            fs::set_permissions(path, Permissions::from_mode(step.mode))
                .map_err(Error::io("cannot set the mode of", path))?;
            continue;
        }
        let content = reader.read(document)?;
        write_whole(path, &content, step.mode).map_err(Error::io("cannot write", path))?;
        let found = fs::read(path).map_err(Error::io("cannot read back", path))?;
        if zeroize::Zeroizing::new(found) != content {
            return Err(Error::ReadBack(path.clone()));
        }
    }
    Ok(())
}

fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folders(folder)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let _ = fs::remove_file(&unfinished);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&unfinished)
        .and_then(|mut file| {
            // The process's umask may have taken bits away.
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)
        });
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Each new one is on disk in its parent.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("."));
    make_folders(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    File::open(parent)?.sync_all()
}

/// Below a folder, by the document's own name.
#[must_use]
pub fn below(folder: &Path, document: &SnapshotDocument) -> Option<PathBuf> {
    let name = Path::new(&document.name);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    name.components()
        .all(plain)
        .then(|| folder.join(&document.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use repository::Repository;
    use repository::keys::{ChunkIdKey, RecipientPrivate};
    use repository::snapshot::{SnapshotOptions, SnapshotWriter};
    use repository::store::MemoryStore;

    use super::*;

    fn snapshot(documents: &[(&str, &[u8], &str)]) -> SnapshotReader {
        let repository = Repository::init(Arc::new(MemoryStore::new())).unwrap();
        let private = RecipientPrivate::generate().unwrap();
        let key = ChunkIdKey::generate().unwrap();
        let options = SnapshotOptions::default();
        let public = private.public();
        let mut writer =
            SnapshotWriter::begin(&repository, public, &key, "configuration", 1, options).unwrap();
        for (name, content, mode) in documents {
            let attributes = BTreeMap::from([("mode".to_owned(), (*mode).to_owned())]);
            writer
                .document(name, attributes, &mut &content[..])
                .unwrap();
        }
        let id = writer.finish(BTreeMap::new(), 2).unwrap().id;
        SnapshotReader::open(&repository, &private, "configuration", &id).unwrap()
    }

    fn actions(plan: &DocumentPlan) -> Vec<(&str, DocumentAction)> {
        let steps = plan.steps.iter();
        steps
            .map(|step| (step.name.as_str(), step.action))
            .collect()
    }

    #[test]
    fn a_second_plan_is_empty_and_what_is_not_in_the_snapshot_stays() {
        let reader = snapshot(&[
            ("deep/a", b"1", "0640"),
            ("b", b"2", "0600"),
            ("c", b"3", "0600"),
            ("derived", b"4", "0600"),
            ("odd", b"5", "7777"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/place");
        let place = |document: &SnapshotDocument| {
            below(&root, document).filter(|_| document.name != "derived")
        };
        let first = plan(&reader, &place).unwrap();
        assert!(!root.exists(), "a plan changes nothing");
        apply(&reader, &first).unwrap();
        assert!(plan(&reader, &place).unwrap().is_empty());
        let mode = |name: &str| {
            let metadata = fs::metadata(root.join(name)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!((mode("deep/a"), mode("odd")), (0o640, 0o777));
        fs::write(root.join("b"), "changed").unwrap();
        fs::write(root.join("mine"), "mine").unwrap();
        fs::remove_file(root.join("deep/a")).unwrap();
        fs::set_permissions(root.join("c"), Permissions::from_mode(0o644)).unwrap();
        let second = plan(&reader, &place).unwrap();
        assert_eq!(
            actions(&second),
            [
                ("b", DocumentAction::Replace),
                ("c", DocumentAction::Mode),
                ("deep/a", DocumentAction::Create),
                ("derived", DocumentAction::Skip),
                ("odd", DocumentAction::Same),
            ]
        );
        // Killed half way: a file that was not finished is not in the way.
        fs::write(root.join("b.unfinished"), "half").unwrap();
        apply(&reader, &second).unwrap();
        assert!(plan(&reader, &place).unwrap().is_empty());
        assert_eq!(fs::read(root.join("b")).unwrap(), b"2");
        assert_eq!(fs::read(root.join("mine")).unwrap(), b"mine");
        let left = fs::read_dir(&root).unwrap().count();
        assert_eq!(left, 5, "b, c, deep, mine, odd");
    }

    #[test]
    fn what_is_no_file_is_not_written_over() {
        let reader = snapshot(&[("a", b"1", "0600")]);
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join("a")).unwrap();
        let place = |document: &SnapshotDocument| below(folder.path(), document);
        let error = plan(&reader, &place).unwrap_err();
        assert!(
            error.is_refusal() && error.to_string().contains("in the way"),
            "{error}"
        );
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
    }
}
