//! A Redis server of its own.

use crate::{eventually, open_folder};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Listens on a unix socket and on a free loopback port; keeps nothing on disk unless asked (`SAVE`, `CONFIG SET`).
#[derive(Debug)]
pub struct TestRedis {
    child: Child,
    port: u16,
    root: tempfile::TempDir,
}

impl TestRedis {
    pub fn start() -> TestRedis {
        let port = crate::free_port();
        TestRedis::run(open_folder("redis-"), port, &["--port", &port.to_string()])
    }

    /// Its port speaks TLS alone; with `clients`, to those that show a certificate of the authority.
    pub fn secured(
        issued: &crate::IssuedCertificate,
        authority: &crate::Authority,
        clients: bool,
    ) -> TestRedis {
        let root = open_folder("redis-");
        let file = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::write(&path, text).expect("a file for TLS");
            path.display().to_string()
        };
        let port = crate::free_port();
        let words = [
            "--port".to_owned(),
            "0".to_owned(),
            "--tls-port".to_owned(),
            port.to_string(),
            "--tls-cert-file".to_owned(),
            file("server.crt", &issued.certificate),
            "--tls-key-file".to_owned(),
            file("server.key", &issued.key),
            "--tls-ca-cert-file".to_owned(),
            file("authority.crt", authority.certificate()),
            "--tls-auth-clients".to_owned(),
            if clients { "yes" } else { "no" }.to_owned(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        TestRedis::run(root, port, &words)
    }

    fn run(root: tempfile::TempDir, port: u16, ports: &[&str]) -> TestRedis {
        let child = Command::new("redis-server")
            .args(ports)
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
            ])
            .arg("--unixsocket")
            .arg(root.path().join("redis.sock"))
            .arg("--dir")
            .arg(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let redis = TestRedis { child, port, root };
        eventually("Redis answers", || {
            (redis.command("PING").ok()? == "+PONG\r\n").then_some(())
        });
        redis
    }

    pub fn socket(&self) -> PathBuf {
        self.root.path().join("redis.sock")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// One inline command; the raw answer (up to 64 KiB).
    pub fn command(&self, line: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = vec![0; 64 << 10];
        let read = stream.read(&mut answer)?;
        answer.truncate(read);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}
