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
        let root = open_folder("redis-");
        let port = crate::free_port();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
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
