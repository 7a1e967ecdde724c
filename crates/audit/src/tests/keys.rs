use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{SEED, key};
use crate::*;

#[test]
fn a_key_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = (
        folder.path().join("audit.key"),
        folder.path().join("audit.pub"),
    );
    let created = SigningKey::create(&private).unwrap();
    created.verifying_key().create(&public).unwrap();
    assert_eq!(
        fs::metadata(&private).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(
        SigningKey::load(&private).unwrap().key_id(),
        created.key_id()
    );
    assert_eq!(
        &VerifyingKey::load(&public).unwrap(),
        created.verifying_key()
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "no temporary file stays"
    );
}

#[test]
fn a_key_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.key");
    SigningKey::create(&path).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(
        SigningKey::create(&path),
        Err(KeyError::Exists { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.key");
    SigningKey::create(&path).unwrap();
    for mode in [0o644, 0o660, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = SigningKey::load(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("mode is {mode:04o}")) && error.contains("chmod 600"),
            "{error}"
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    SigningKey::load(&path).unwrap();
}

#[test]
fn what_is_not_a_key_file_is_told_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.key");
    let digits = hex::encode(&SEED);
    for text in [
        String::new(),
        digits.clone(),
        format!("bre-audit-verifying-key-1 {digits}\n"),
        format!("bre-audit-signing-key-1 {}\n", &digits[2..]),
        format!("bre-audit-signing-key-1 {}\n", digits.to_uppercase()),
        format!("bre-audit-signing-key-1 {digits}\n\n"),
    ] {
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = SigningKey::load(&path).unwrap_err();
        assert!(
            matches!(error, KeyError::NotAKey { .. }),
            "{text:?}: {error}"
        );
        assert!(!format!("{error} {error:?}").contains(&digits[2..20]));
    }
    fs::write(&path, [0xFF; 40]).unwrap();
    assert!(matches!(
        SigningKey::load(&path),
        Err(KeyError::NotAKey { .. })
    ));
    let absent = SigningKey::load(folder.path().join("none")).unwrap_err();
    assert!(absent.to_string().contains("none"), "{absent}");
}

#[test]
fn debug_shows_the_id_only() {
    let shown = format!("{:?}", key());
    assert_eq!(shown, format!("SigningKey(id {})", key().key_id()));
}
