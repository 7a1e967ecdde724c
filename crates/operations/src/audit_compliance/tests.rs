//! Locks in a store that has them, and a real chrony.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use repository::{
    keys::RecipientPrivate,
    log_stretches::{LogKind, NO_DIGEST, StretchFacts, seal_stretch},
    store::MemoryStore,
};

use super::*;

fn put(repository: &Repository, key: &RecipientPrivate) {
    let facts = StretchFacts {
        kind: LogKind::System,
        source: "journal",
        number: 1,
        day: jiff::civil::Date::ZERO,
        span_micros: (0, 0),
        previous: (NO_DIGEST, 0),
        cursor: "c",
        gaps: Vec::new(),
        host: "h",
    };
    let sealed = seal_stretch(repository, key.public(), facts, &[b"line".to_vec()]);
    sealed.unwrap().put(repository).unwrap();
}

#[test]
fn an_object_without_its_lock_is_a_finding() {
    let store = MemoryStore::new();
    let repository = Repository::init(Arc::new(store.clone())).unwrap();
    let key = RecipientPrivate::generate().unwrap();
    let lock = |days| LockPolicy {
        mode: LockMode::Compliance,
        days,
    };
    store.set_lock(Some(lock(30)));
    put(&repository, &key);
    let whole = check_locks(&repository, &()).unwrap();
    assert!(whole.passed, "{whole:?}");
    // Written without a lock, as by an engine whose settings lost it.
    store.set_lock(None);
    put(&repository, &key);
    let found = check_locks(&repository, &()).unwrap();
    // The stretch and the wrap of its key; and what mends it.
    assert_eq!(found.findings.len(), 3, "{found:?}");
    assert!(
        found
            .findings
            .iter()
            .any(|it| it.contains("logs/system/journal/")),
        "{found:?}"
    );
    let readers = check_readers(&repository, &[key.public().id()]).unwrap();
    assert!(readers.passed, "{readers:?}");
    let stranger = check_readers(&repository, &["0011".to_owned()]).unwrap();
    assert_eq!(stranger.findings.len(), 2, "{stranger:?}");
}

/// Ends with the test.
struct Chrony(Child);

impl Drop for Chrony {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `-x`: this host's clock is never touched.
fn chrony(folder: &Path, name: &str, settings: &str) -> Chrony {
    let file = folder.join(format!("{name}.conf"));
    let socket = folder.join(format!("{name}.sock"));
    let pid = folder.join(format!("{name}.pid"));
    let text = format!(
        "{settings}\ncmdport 0\nbindcmdaddress {}\npidfile {}\n",
        socket.display(),
        pid.display()
    );
    fs::write(&file, text).unwrap();
    let child = Command::new("/usr/sbin/chronyd")
        .args(["-x", "-d", "-U", "-u", "root", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Chrony(child)
}

#[test]
fn the_clock_is_judged_by_what_chrony_says() {
    // any day: these are words of chronyc.
    let said = |offset: &str, leap: &str| {
        format!("7F000001,127.0.0.1,9,1796080486.9,{offset},0.0,0.0,1.0,0.0,0.1,0.0,0.0,1.0,{leap}")
    };
    assert_eq!(judge_tracking(&said("-0.000001500", "Normal"), 100), None);
    for (said, words) in [
        (said("2.999", "Normal"), "2.999 s"),
        (said("0.0", "Not synchronised"), "Not synchronised"),
        ("506 Cannot talk to daemon".to_owned(), "not understood"),
    ] {
        let fault = judge_tracking(&said, 100).unwrap();
        assert!(fault.contains(words), "{fault}");
    }
    if !Path::new("/usr/sbin/chronyd").exists() {
        testkit::skip!("chrony", "chronyd is not installed");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        testkit::skip!("root", "chronyd runs as root only");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _server = chrony(
        folder.path(),
        "server",
        &format!("local stratum 8\nport {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1"),
    );
    let _client = chrony(
        folder.path(),
        "client",
        &format!("server 127.0.0.1 port {port} iburst minpoll 0 maxpoll 1\nport 0"),
    );
    let config = AuditArchive {
        chrony: Some(folder.path().join("client.sock")),
        ..AuditArchive::default()
    };
    let synchronised = testkit::eventually("chrony follows its server", || {
        let check = check_clock(&config, &|| false);
        check.passed.then_some(check)
    });
    assert!(
        synchronised.evidence[0].contains("Normal"),
        "{synchronised:?}"
    );
    // An address without a chrony is no evidence.
    let absent = AuditArchive {
        chrony: Some(folder.path().join("none.sock")),
        ..AuditArchive::default()
    };
    assert!(!check_clock(&absent, &|| false).passed);
}
