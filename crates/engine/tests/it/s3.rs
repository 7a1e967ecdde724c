//! The whole engine on a repository in S3: backups, the stream, an outage in between, and a restore.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use serde_json::Value;
use testkit::TestS3;

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
    restore::QUOTES,
};

const OPEN: u8 = 0;
/// Connections are cut amid what they carry.
const CUT: u8 = 1;
/// Every request is answered with 503 SlowDown.
const BUSY: u8 = 2;

/// Stands between the engine and the server.
struct Proxy {
    port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            mode: Arc::new(AtomicU8::new(OPEN)),
        };
        let mode = Arc::clone(&proxy.mode);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mode = Arc::clone(&mode);
                thread::spawn(move || match mode.load(Ordering::SeqCst) {
                    BUSY => busy(client),
                    _ => drop(pass(client, port, &mode)),
                });
            }
        });
        proxy
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

fn pass(client: TcpStream, port: u16, mode: &Arc<AtomicU8>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let up = Arc::clone(mode);
    thread::spawn(move || copy(from, to, &up));
    copy(server, client, mode);
    Ok(())
}

/// Until the mode changes: then what is under way is lost.
fn copy(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        let open = mode.load(Ordering::SeqCst) == OPEN;
        if read == 0 || !open || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn busy(mut client: TcpStream) {
    let mut buffer = [0; 16 << 10];
    let _ = client.read(&mut buffer);
    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let _ = write!(
        client,
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

#[test]
fn a_repository_in_s3_backs_up_streams_rides_out_an_outage_and_restores() {
    let Some(s3) = TestS3::start() else {
        return;
    };
    s3.make_bucket("backups");
    s3.make_locking_bucket("locked");
    let proxy = Proxy::to(s3.port());
    let through = format!("http://127.0.0.1:{}", proxy.port);
    let place = s3.location_through(&through, "backups", "one");
    let mut instance = Instance::prepared(&[]);
    let copy = instance.folder.join("copy-of-all");
    let settings = format!(
        "[repository]\npath = \"{place}\"\n\
         [repositories.near]\npath = \"{}\"\nwal_days = 3\n\
         [repositories.far]\npath = \"{}\"\nlock = {{ mode = \"compliance\", days = 2 }}\n",
        copy.display(),
        s3.location("locked", "far"),
    );
    std::fs::create_dir_all(instance.data()).unwrap();
    std::fs::write(instance.data().join("bre.toml"), settings).unwrap();
    instance.up();
    assert_eq!(instance.locate().status, 200);
    let full = instance.bre(&["backup", "run", "--kind", "full"]).json();
    let changed = instance
        .bre(&["backup", "run", "--kind", "incremental"])
        .json();
    for backup in [&full, &changed] {
        assert!(backup["id"].is_string(), "{backup}");
    }

    // Away, in one way and then in another; locates go on, and what they wrote is caught up.
    proxy.set(CUT);
    let away = within(TIMEOUT, || {
        assert_eq!(instance.locate().status, 200);
        (instance.stream()["attached"] == false).then_some(())
    });
    assert!(away.is_some(), "{}", instance.stream());
    proxy.set(BUSY);
    assert_eq!(instance.locate().status, 200);
    proxy.set(OPEN);
    let calm = within(TIMEOUT, || {
        (instance.get("/api/v1/health").body["status"] == "healthy").then_some(())
    });
    assert!(calm.is_some(), "{}", instance.get("/api/v1/health").text);
    assert_eq!(instance.locate().status, 200);
    instance.wait_caught_up();
    instance.audit_is_sound();

    let newest = changed["id"].as_str().unwrap();
    let verified = instance.bre(&["verify", "backup", newest]).json();
    assert_eq!(verified[0]["sound"], Value::Bool(true), "{verified}");
    let quotes = instance.sql(QUOTES);
    instance.restores("restored", &["--latest"], &quotes);

    let full = full["id"].as_str().unwrap();
    held_until_it_is_cleared(&instance, full);
    copied_continuously_and_restored_from_each(&instance, &quotes);
    let refused = instance.bre(&["backup", "expire", "--repository", "far", "--dry-run"]);
    assert!(refused.json()["decisions"].is_array());
}

fn held_until_it_is_cleared(instance: &Instance, backup: &str) {
    let hold = ["repository", "hold"];
    let set = [&hold[..], &["set", backup, "--reason", "case 4711"]].concat();
    let set = instance.bre(&set).json();
    assert!(set["objects"].as_u64() > Some(2), "{set}");
    let shown = instance.bre(&[&hold[..], &["show"]].concat()).json();
    assert_eq!(shown[0]["reason"], "case 4711", "{shown}");
    let plan = instance.bre(&["backup", "expire", "--dry-run"]).json();
    let decisions = plan["decisions"].as_array().unwrap();
    let kept = decisions.iter().find(|d| d["which"] == backup).unwrap();
    assert!(
        kept["reason"]
            .as_str()
            .unwrap()
            .starts_with("on legal hold"),
        "{kept}"
    );
    let clear = ["clear", backup, "--reason", "closed", "--yes"];
    instance.bre(&[&hold[..], &clear].concat()).json();
    assert_eq!(
        instance.bre(&[&hold[..], &["show"]].concat()).json(),
        serde_json::json!([])
    );
}

fn copied_continuously_and_restored_from_each(instance: &Instance, quotes: &[Vec<String>]) {
    instance.wait_caught_up();
    let end = instance.value("SELECT pg_current_wal_flush_lsn() - '0/0'");
    let end: u64 = end.parse().unwrap();
    for name in ["near", "far"] {
        let copied = within(TIMEOUT, || {
            let status = instance.bre(&["status"]).parsed();
            (status["copies"][name]["wal_end_lsn"].as_u64()? >= end).then_some(())
        });
        assert!(
            copied.is_some(),
            "{name}: {}",
            instance.bre(&["status"]).parsed()
        );
        instance.restores(
            &format!("from-{name}"),
            &["--latest", "--repository", name],
            quotes,
        );
    }
}
