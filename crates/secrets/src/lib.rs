//! Files that hold a secret: a key, a password, a token, a PIN. All secrets are read through this crate, so that a new
//! such file cannot be read unchecked.
//!
//! A file is refused when others, or a group that this process is not in, can read or write it, and when any group can
//! write it. A link is followed: the file behind it counts. A group that this process is in may read (Kubernetes
//! provides secrets as 0440 with the pod's group). What is not an ordinary file (the pipe of a shell's `<(…)`) has no
//! other readers.
//!
//! Entry points: [`read`], [`read_text`]; [`check`] for a library that opens the file itself; [`open`] for a file that
//! is a secret only because of its content.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file with a secret is not used. It says what to do, and nothing of what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: it is longer than {BYTES_MAX} bytes, so it is not a file with a secret", path.display())]
    TooLong { path: PathBuf },
    #[error("{}: it is not text", path.display())]
    NotText { path: PathBuf },
    #[error("{}: {exposed}", path.display())]
    Exposed { path: PathBuf, exposed: Exposure },
}

impl SecretFileError {
    /// What is wrong, for an error that names the file itself.
    #[must_use]
    pub fn reason(&self) -> String {
        let text = self.to_string();
        let path = match self {
            SecretFileError::Io { path, .. }
            | SecretFileError::TooLong { path }
            | SecretFileError::NotText { path }
            | SecretFileError::Exposed { path, .. } => path.display().to_string(),
        };
        let reason = text
            .strip_prefix(&path)
            .and_then(|rest| rest.strip_prefix(": "));
        reason.map_or(text.clone(), str::to_owned)
    }

    /// Others can reach it, which a person has to end.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        matches!(self, SecretFileError::Exposed { .. })
    }
}

/// Who besides this process can read or change it, and the command that ends that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its mode is {mode:04o}, so {who}. Run: {remedy}")]
pub struct Exposure {
    mode: u32,
    who: String,
    remedy: String,
}

impl Exposure {
    /// Not only read: others can put something else into it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.mode & 0o022 != 0
    }
}

/// Settings and certificate chains included.
pub const BYTES_MAX: u64 = 4 << 20;
const ACL: &str = "system.posix_acl_access";

/// A file that is open, with who else can reach it as it was then: nobody can put another in its place between the look
/// and the read.
#[derive(Debug)]
pub struct SecretFile {
    path: PathBuf,
    file: File,
    exposed: Option<Exposure>,
}

/// Opens without judging; [`SecretFile::private`] judges.
pub fn open(path: &Path) -> Result<SecretFile, SecretFileError> {
    let io = |source| SecretFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let groups = Groups::of_this_process();
    let exposed = exposure(path, &metadata, &groups).or_else(|| by_list(path, &file, &metadata));
    Ok(SecretFile {
        path: path.to_owned(),
        file,
        exposed,
    })
}

impl SecretFile {
    /// Refuses what others can reach.
    pub fn private(self) -> Result<SecretFile, SecretFileError> {
        match self.exposed {
            None => Ok(self),
            Some(exposed) => Err(SecretFileError::Exposed {
                path: self.path,
                exposed,
            }),
        }
    }

    /// Who else can reach it.
    #[must_use]
    pub fn exposed(&self) -> Option<&Exposure> {
        self.exposed.as_ref()
    }

    /// All of it; wiped from memory when it is dropped.
    pub fn bytes(&mut self) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
        let mut bytes = Zeroizing::new(Vec::new());
        (&self.file)
            .take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| SecretFileError::Io {
                path: self.path.clone(),
                source,
            })?;
        if bytes.len() as u64 > BYTES_MAX {
            let path = self.path.clone();
            return Err(SecretFileError::TooLong { path });
        }
        Ok(bytes)
    }

    pub fn text(&mut self) -> Result<Zeroizing<String>, SecretFileError> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(SecretFileError::NotText {
                path: self.path.clone(),
            }),
        }
    }
}

/// The bytes of a file that holds a secret, refused where others can reach it.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    open(path)?.private()?.bytes()
}

/// The same of one that is text.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    open(path)?.private()?.text()
}

/// For a library that reads it itself.
pub fn check(path: &Path) -> Result<(), SecretFileError> {
    open(path)?.private().map(drop)
}

/// The groups that this process is in.
struct Groups(Vec<u32>);

impl Groups {
    fn of_this_process() -> Groups {
        let mut groups = vec![rustix::process::getegid().as_raw()];
        // Without the list a group counts as foreign: refused rather than believed.
        let others = rustix::process::getgroups().unwrap_or_default();
        groups.extend(others.into_iter().map(|group| group.as_raw()));
        Groups(groups)
    }

    fn has(&self, group: u32) -> bool {
        self.0.contains(&group)
    }
}

fn exposure(path: &Path, metadata: &Metadata, groups: &Groups) -> Option<Exposure> {
    if !metadata.is_file() {
        return None;
    }
    let (mode, group) = (metadata.mode() & 0o7777, metadata.gid());
    let who = who(mode, group, groups)?;
    Some(Exposure {
        mode,
        who,
        remedy: format!("chmod 600 {}", shell_word(path)),
    })
}

/// Who can reach a file of this mode and group, in words.
fn who(mode: u32, group: u32, groups: &Groups) -> Option<String> {
    let verb = |read: u32, write: u32| match (mode & read != 0, mode & write != 0) {
        (true, true) => Some("read and change"),
        (true, false) => Some("read"),
        (false, true) => Some("change"),
        (false, false) => None,
    };
    if let Some(verb) = verb(0o004, 0o002) {
        return Some(format!("everybody on this machine may {verb} it"));
    }
    let verb = verb(0o040, 0o020)?;
    match groups.has(group) {
        false => Some(format!(
            "group {group}, which this process is not in, may {verb} it"
        )),
        true if mode & 0o020 != 0 => Some(format!("all of group {group} may {verb} it")),
        true => None,
    }
}

/// With an access list the mode's group bits are a mask: the list names further users and groups.
fn by_list(path: &Path, file: &File, metadata: &Metadata) -> Option<Exposure> {
    if !metadata.is_file() || metadata.mode() & 0o060 == 0 {
        return None;
    }
    let mut list = [0; 4096];
    let length = rustix::fs::fgetxattr(file.as_fd(), ACL, &mut list[..]).ok()?;
    names_others(&list[..length], &Groups::of_this_process()).then(|| Exposure {
        mode: metadata.mode() & 0o7777,
        who: "its access list lets further users or groups read or change it".to_owned(),
        remedy: format!(
            "setfacl -b {path} && chmod 600 {path}",
            path = shell_word(path)
        ),
    })
}

/// The kernel's form: `u32` version = 2, then entries of `u16` tag, `u16` rights, `u32` id, little endian.
fn names_others(list: &[u8], groups: &Groups) -> bool {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    let entries = || {
        list.get(4..).unwrap_or_default().chunks_exact(8).map(|it| {
            let short = |at: usize| u16::from_le_bytes([it[at], it[at + 1]]);
            let id = u32::from_le_bytes([it[4], it[5], it[6], it[7]]);
            (short(0), short(2), id)
        })
    };
    let mask = entries().find(|(tag, ..)| *tag == MASK);
    let mask = mask.map_or(0o7, |(_, rights, _)| rights);
    let (own, root) = (rustix::process::geteuid().as_raw(), 0);
    entries().any(|(tag, rights, id)| {
        let rights = rights & mask & 0o6;
        match tag {
            USER => rights != 0 && id != own && id != root,
            GROUP => rights & 0o2 != 0 || (rights != 0 && !groups.has(id)),
            _ => false,
        }
    })
}

/// As a shell reads it back.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn what_others_or_a_foreign_group_can_reach_is_exposed() {
        let groups = Groups(vec![7, 70]);
        let check = |mode: u32, group: u32, says: Option<&str>| {
            let who = who(mode, group, &groups);
            match says {
                None => assert_eq!(who, None, "{mode:04o} of {group}"),
                Some(says) => {
                    let who = who.unwrap_or_else(|| panic!("{mode:04o} of {group} passes"));
                    assert!(who.contains(says), "{mode:04o} of {group}: {who}");
                }
            }
        };
        for mode in [0o600, 0o400, 0o700] {
            check(mode, 7, None);
            check(mode, 8, None);
        }
        // Kubernetes: root's, 0440, of the pod's group; and Debian's way with keys.
        check(0o440, 70, None);
        check(0o640, 7, None);
        check(
            0o640,
            8,
            Some("group 8, which this process is not in, may read"),
        );
        check(0o620, 8, Some("may change"));
        check(0o660, 7, Some("all of group 7 may read and change"));
        check(0o604, 7, Some("everybody on this machine may read"));
        check(0o602, 7, Some("may change"));
        check(0o644, 7, Some("everybody"));
        check(0o666, 7, Some("read and change"));
    }

    #[test]
    fn the_file_behind_a_link_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("it's a key"), folder.path().join("link"));
        std::fs::write(&file, "hush\n").unwrap();
        symlink(&file, &link).unwrap();
        let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(*read_text(&link).unwrap(), "hush\n");
        mode(0o604);
        let error = read(&link).unwrap_err().to_string();
        assert!(
            error.contains("0604") && error.contains("chmod 600"),
            "{error}"
        );
        let error = check(&file).unwrap_err().to_string();
        assert!(
            error.contains(r"'\''s a key'") && !error.contains("hush"),
            "{error}"
        );
        let error = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
    }

    #[test]
    fn a_group_that_this_process_is_not_in_may_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "hush\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o440)).unwrap();
        let own = Groups::of_this_process();
        let foreign = (60_000..).find(|group| !own.has(*group)).unwrap();
        read(&file).unwrap();
        if chown(&file, None, Some(foreign)).is_ok() {
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("group {foreign}")), "{error}");
        } else {
            testkit::skip!("root", "only root may give a file to another group");
        }
    }

    #[test]
    fn an_access_list_that_names_others_is_seen() {
        let own = rustix::process::geteuid().as_raw();
        let list = |entries: &[(u16, u16, u32)]| {
            let mut bytes = 2u32.to_le_bytes().to_vec();
            for (tag, rights, id) in entries {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(rights.to_le_bytes());
                bytes.extend(id.to_le_bytes());
            }
            bytes
        };
        let groups = Groups(vec![7]);
        let names = |entries: &[(u16, u16, u32)]| names_others(&list(entries), &groups);
        assert!(!names(&[]) && !names_others(&[1, 2], &groups));
        assert!(names(&[(0x02, 4, own + 1), (0x10, 4, 0)]));
        assert!(!names(&[(0x02, 4, own), (0x02, 6, 0), (0x10, 6, 0)]));
        assert!(!names(&[(0x02, 4, own + 1), (0x10, 0, 0)]), "masked");
        assert!(names(&[(0x08, 4, 8)]) && !names(&[(0x08, 4, 7)]) && names(&[(0x08, 2, 7)]));
    }
}
