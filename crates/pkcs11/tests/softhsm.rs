//! Against SoftHSM 2. It reads its settings from the environment when it is loaded, so each scenario is a process of
//! its own: the test starts itself again with a token made for it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::Attribute,
    session::UserType,
    types::AuthPin,
};
use pkcs11::{KeyLabels, TokenKey, TokenLocation, look};
use repository::{
    Repository,
    keys::{KeyTrouble, RecipientPrivate, UnwrapKeys, WrapBinding, WrapKeys, rewrap},
    store::MemoryStore,
    wal::{WalReader, WalWriter},
};

const PIN: &str = "4711-pin";
const INSIDE: &str = "BRE_TEST_INSIDE";

fn library() -> Option<PathBuf> {
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ];
    let found = known
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        testkit::skip!("softhsm2", "scripts/setup softhsm2 installs it");
    }
    found
}

fn wanted(folder: &Path) -> KeyLabels {
    KeyLabels {
        module: library().unwrap(),
        token: "bre".into(),
        object: "backups".into(),
        pin_file: folder.join("pin"),
    }
}

fn binding(digit: &str) -> WrapBinding {
    WrapBinding {
        repository_id: "1".repeat(32),
        data_key_id: digit.repeat(32),
    }
}

/// Runs `scenario` in a child that has a token of its own.
fn with_token(name: &str, scenario: fn(&Path)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return scenario(Path::new(&folder));
    }
    if library().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("softhsm2.conf");
    let tokens = folder.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    std::fs::write(
        &settings,
        format!(
            "directories.tokendir = {}\nobjectstore.backend = file\n",
            tokens.display()
        ),
    )
    .unwrap();
    let pin = folder.path().join("pin");
    std::fs::write(&pin, format!("{PIN}\n")).unwrap();
    std::fs::set_permissions(&pin, PermissionsExt::from_mode(0o600)).unwrap();
    let made = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            "bre",
            "--so-pin",
            "so-pin-1",
            "--pin",
            PIN,
        ])
        .env("SOFTHSM2_CONF", &settings)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("SOFTHSM2_CONF", &settings)
        .env(INSIDE, folder.path())
        .output()
        .unwrap();
    // A name that matches nothing would succeed too.
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        ran && output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A key pair as an operator would make it: the private half stays inside.
fn make_key(module: &Path) {
    let module = Pkcs11::new(module).unwrap();
    module
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    session
        .login(UserType::User, Some(&AuthPin::from(PIN.to_owned())))
        .unwrap();
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(b"backups".to_vec()),
        Attribute::ModulusBits(2048.into()),
        Attribute::PublicExponent(vec![1, 0, 1]),
        Attribute::Encrypt(true),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(b"backups".to_vec()),
        Attribute::Decrypt(true),
    ];
    session
        .generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)
        .unwrap();
    session.logout().unwrap();
}

#[test]
fn what_the_public_half_seals_only_the_token_opens() {
    with_token(
        "what_the_public_half_seals_only_the_token_opens",
        |folder| {
            let wanted = wanted(folder);
            make_key(&wanted.module);
            let location = look(&wanted).unwrap();
            let line = location.to_string();
            assert_eq!(line.parse::<TokenLocation>(), Ok(location.clone()));
            assert!(!line.contains(PIN));

            // A host without the token seals.
            let elsewhere = TokenKey::open(TokenLocation {
                module: "/nowhere.so".into(),
                ..location.clone()
            });
            let (secret, wrap) = elsewhere.generate(&binding("a")).unwrap();
            assert!(elsewhere.unwrap(&binding("a"), &wrap).is_err());
            let key = TokenKey::open(location);
            assert_eq!(key.unwrap(&binding("a"), &wrap).unwrap(), secret);
            let wrong =
                |error: KeyTrouble| assert!(matches!(error, KeyTrouble::Wrong { .. }), "{error}");
            wrong(key.unwrap(&binding("b"), &wrap).unwrap_err().trouble);
            for at in [40, wrap.len() - 1] {
                let mut other = wrap.clone();
                other[at] ^= 1;
                wrong(key.unwrap(&binding("a"), &other).unwrap_err().trouble);
            }
            assert_eq!(key.unwrap(&binding("a"), &wrap).unwrap(), secret);

            // A repository from a file to the token and back, and read with it from several threads.
            let repository = Repository::init(Arc::new(MemoryStore::new())).unwrap();
            let (file, token) = (RecipientPrivate::generate().unwrap(), key.recipient());
            for (segment, to) in [(1, file.public()), (2, token.public())] {
                let mut writer =
                    WalWriter::new(&repository, to, 7, 1, 1 << 16, "s", segment << 16).unwrap();
                writer.append(segment << 16, &[7; 100], 1).unwrap();
                writer.finish().unwrap();
            }
            rewrap(&repository, &file, &token, &()).unwrap();
            let reads = || {
                let reader = WalReader::new(&repository, &token);
                for segment in [1 << 16, 2 << 16] {
                    assert_eq!(reader.bytes(1, segment, segment + 100).unwrap(), [7; 100]);
                }
            };
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(reads);
                }
            });
            let next = RecipientPrivate::generate().unwrap();
            let done = rewrap(&repository, &token, &next, &()).unwrap();
            assert_eq!((done.closed, done.foreign), (0, 0), "{done:?}");
        },
    );
}

#[test]
fn a_wrong_pin_is_tried_once_and_what_is_missing_is_named() {
    with_token(
        "a_wrong_pin_is_tried_once_and_what_is_missing_is_named",
        |folder| {
            let wanted = wanted(folder);
            make_key(&wanted.module);
            let location = look(&wanted).unwrap();
            let pin = folder.join("pin");
            std::fs::write(&pin, "0000-wrong\n").unwrap();
            let key = TokenKey::open(location.clone());
            let (_, wrap) = key.generate(&binding("a")).unwrap();
            let unwrap = |key: &TokenKey| key.unwrap(&binding("a"), &wrap).map(drop);
            let refused = unwrap(&key).unwrap_err();
            assert!(
                matches!(refused.trouble, KeyTrouble::Locked { .. }),
                "{refused}"
            );
            assert!(
                refused.to_string().contains("pin") && !refused.to_string().contains("0000"),
                "{refused}"
            );
            // Even with the right one now: the token was not asked a second time.
            std::fs::write(&pin, PIN).unwrap();
            assert_eq!(unwrap(&key), Err(refused));
            unwrap(&TokenKey::open(location.clone())).unwrap();

            let object = KeyLabels {
                object: "other".into(),
                ..wanted.clone()
            };
            let error = look(&object).unwrap_err();
            assert!(
                matches!(error.trouble, KeyTrouble::Gone { .. })
                    && error.to_string().contains("other"),
                "{error}"
            );
            let away = KeyLabels {
                token: "elsewhere".into(),
                ..wanted.clone()
            };
            let error = look(&away).unwrap_err();
            assert!(
                error.trouble.may_pass() && error.to_string().contains("elsewhere"),
                "{error}"
            );
            let module = KeyLabels {
                module: "/nowhere.so".into(),
                ..wanted
            };
            assert!(
                look(&module)
                    .unwrap_err()
                    .to_string()
                    .contains("/nowhere.so")
            );
        },
    );
}
