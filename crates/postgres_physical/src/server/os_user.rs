//! The operating-system account that runs the server: ourselves, or `postgres` when we are root.

use super::ServerError;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl OsUser {
    /// The account this process runs as.
    pub fn current() -> Result<OsUser, ServerError> {
        OsUser::lookup(&rustix::process::geteuid().as_raw().to_string())
    }

    /// The account the server must run as: PostgreSQL refuses root, so root hands it to `postgres`.
    pub fn for_server() -> Result<OsUser, ServerError> {
        if rustix::process::geteuid().is_root() {
            OsUser::lookup("postgres")
        } else {
            OsUser::current()
        }
    }

    /// By name or by number.
    pub fn lookup(name: &str) -> Result<OsUser, ServerError> {
        let passwd = std::fs::read_to_string("/etc/passwd")
            .map_err(ServerError::io("read", "/etc/passwd"))?;
        if let Some(user) = passwd
            .lines()
            .filter_map(parse_passwd)
            .find(|user| user.name == name || user.uid.to_string() == name)
        {
            return Ok(user);
        }
        // Accounts from a directory service are only known to getent.
        let output = Command::new("getent").args(["passwd", name]).output();
        let text = output
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default();
        text.lines()
            .find_map(parse_passwd)
            .ok_or_else(|| ServerError::NoSuchUser {
                name: name.to_owned(),
            })
    }

    /// Whether programs for this account need another uid than ours.
    pub fn is_other(&self) -> bool {
        self.uid != rustix::process::geteuid().as_raw()
    }

    /// A command that runs as this account, in `/` and with a plain environment as far as PostgreSQL is concerned.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if self.is_other() {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives one path to this account (nothing to do when it is our own).
    pub fn own(&self, path: &Path) -> Result<(), ServerError> {
        if !self.is_other() {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(ServerError::io("change the owner of", path))
    }

    /// Gives a folder and everything in it to this account; symbolic links are not followed, and what is mounted inside
    /// stays whose it is.
    pub fn own_tree(&self, path: &Path) -> Result<(), ServerError> {
        if !self.is_other() {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .map_err(ServerError::io("change the owner of", path))?;
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).map_err(ServerError::io("list", path))? {
                let inside = entry.map_err(ServerError::io("list", path))?.path();
                if !super::is_mount_root(&inside).map_err(ServerError::io("look at", &inside))? {
                    self.own_tree(&inside)?;
                }
            }
        }
        Ok(())
    }
}

fn parse_passwd(line: &str) -> Option<OsUser> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(OsUser { name, uid, gid })
}

/// Refuses when `user` cannot reach `path`: some folder above it (or the folder itself) lacks the right to enter.
/// Only its own uid and primary group count: that is what a command of [`OsUser::command`] has.
pub fn check_traversable(path: &Path, user: &OsUser) -> Result<(), ServerError> {
    let path = std::path::absolute(path).map_err(ServerError::io("resolve", path))?;
    if user.uid == 0 {
        return Ok(());
    }
    let mut folders: Vec<&Path> = path.ancestors().filter(|folder| folder.is_dir()).collect();
    folders.reverse();
    for folder in folders {
        let metadata = std::fs::metadata(folder).map_err(ServerError::io("look at", folder))?;
        let bit = if metadata.uid() == user.uid {
            0o100
        } else if metadata.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        if metadata.mode() & bit == 0 {
            return Err(ServerError::NotTraversable {
                user: user.name.clone(),
                folder: folder.to_owned(),
                path: path.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn passwd_lines() {
        let user = parse_passwd(
            "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash",
        )
        .unwrap();
        assert_eq!(
            user,
            OsUser {
                name: "postgres".into(),
                uid: 101,
                gid: 104
            }
        );
        assert_eq!(parse_passwd("broken:x"), None);
    }

    #[test]
    fn a_closed_parent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        let inner = closed.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let stranger = OsUser {
            name: "stranger".into(),
            uid: 54_321,
            gid: 54_321,
        };
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        match check_traversable(&inner.join("not-yet"), &stranger) {
            Err(ServerError::NotTraversable { folder, .. }) => assert_eq!(folder, closed),
            other => panic!("{other:?}"),
        }
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o711)).unwrap();
        check_traversable(&inner.join("not-yet"), &stranger).unwrap();
    }
}
