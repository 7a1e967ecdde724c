//! Clusters copied from one that `initdb` made once for each version and set of options: a copy takes a tenth of the time.
//!
//! A copy is a cluster of its own: it gets another system identifier, as `initdb` would have given it.

use postgres_physical::server::{Binaries, InitOptions, OsUser, initdb};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A fresh cluster in `data`.
pub(crate) fn new_cluster(binaries: &Binaries, user: &OsUser, data: &Path, options: &InitOptions) {
    let template = template(binaries, user, options);
    copy(&template, data, user);
    give_identity(data);
}

/// Made when it is missing; tests that start together each make one, and the first stays.
fn template(binaries: &Binaries, user: &OsUser, options: &InitOptions) -> PathBuf {
    let InitOptions {
        superuser,
        wal_segment_bytes,
        no_sync: _,
        local_authentication,
    } = options;
    let name = format!(
        "{}-{superuser}-{local_authentication}-{}",
        binaries.version(),
        wal_segment_bytes.unwrap_or_default(),
    );
    let folder = crate::cache_folder().join("testkit").join(name);
    if folder.is_dir() {
        return folder;
    }
    // The server's account need not reach the cache.
    let work = crate::open_folder("initdb-");
    user.own(work.path()).expect("owner of the folder");
    let made = work.path().join("data");
    initdb(binaries, user, &made, options).expect("initdb");
    let parent = folder.parent().expect("the folder above the template");
    fs::create_dir_all(parent).expect("the folder of templates");
    let new = tempfile::tempdir_in(parent).expect("a folder beside the template");
    let us = OsUser::current().expect("our account");
    copy(&made, &new.path().join("data"), &us);
    // Fails when another test was first; that one is as good.
    let _ = fs::rename(new.path().join("data"), &folder);
    assert!(folder.is_dir(), "no template at {}", folder.display());
    folder
}

fn copy(from: &Path, to: &Path, user: &OsUser) {
    let copied = copy_one(from, to);
    copied.unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
    user.own(to).expect("owner of a copied file");
    if from.is_dir() {
        for entry in fs::read_dir(from).expect("a folder of the template") {
            let name = entry.expect("an entry of the template").file_name();
            copy(&from.join(&name), &to.join(&name), user);
        }
    }
}

fn copy_one(from: &Path, to: &Path) -> std::io::Result<()> {
    let attributes = fs::metadata(from)?;
    if attributes.is_dir() {
        fs::create_dir(to)?;
        return fs::set_permissions(to, attributes.permissions());
    }
    fs::copy(from, to).map(drop)
}

/// In the control file, whose checksum covers it, and at the head of each WAL segment.
fn give_identity(data: &Path) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock past 1970");
    // As initdb does it.
    let identity = now.as_secs() << 32
        | u64::from(now.subsec_micros()) << 12
        | u64::from(std::process::id() & 0xFFF);
    let control = data.join("global/pg_control");
    let mut bytes = fs::read(&control).expect("the control file");
    let version = u32::from_ne_bytes(bytes[8..12].try_into().expect("four bytes"));
    let checksum = if version < 1800 { 288 } else { 292 };
    bytes[..8].copy_from_slice(&identity.to_ne_bytes());
    let sum = crc32c::crc32c(&bytes[..checksum]);
    bytes[checksum..checksum + 4].copy_from_slice(&sum.to_ne_bytes());
    fs::write(&control, bytes).expect("the control file");
    for entry in fs::read_dir(data.join("pg_wal")).expect("pg_wal") {
        let segment = entry.expect("an entry of pg_wal").path();
        if segment.is_file() {
            let file = fs::OpenOptions::new().write(true).open(&segment);
            std::os::unix::fs::FileExt::write_all_at(
                &file.expect("a segment"),
                &identity.to_ne_bytes(),
                24,
            )
            .expect("the head of a segment");
        }
    }
}
