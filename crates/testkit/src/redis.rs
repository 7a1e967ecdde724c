//! A Redis server of its own.

use crate::{eventually, open_folder};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Listens on a unix socket and on a free loopback port; keeps nothing on disk unless asked (`SAVE`, `CONFIG SET`).
#[derive(Debug)]
pub struct TestRedis {
    child: Child,
    program: PathBuf,
    words: Vec<String>,
    port: u16,
    root: tempfile::TempDir,
}

/// A Valkey; `None` (which is said) when there is none. `scripts/valkey` installs it.
pub fn valkey_server() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(crate::cache_folder().join("valkey"));
    let mut files = folders
        .into_iter()
        .map(|folder| folder.join("valkey-server"));
    let found = files.find(|file| file.is_file());
    if found.is_none() {
        crate::skip!("valkey", "scripts/valkey installs it");
    }
    found
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

    /// Keeps an append-only file with time marks in its folder, and a configuration file that `CONFIG REWRITE` writes;
    /// on its socket alone.
    pub fn durable(program: &Path) -> TestRedis {
        let root = open_folder("redis-");
        let folder = root.path().display().to_string();
        let settings = format!(
            "port 0\nunixsocket {folder}/redis.sock\ndir {folder}\nsave 3600 1\nappendonly yes\n\
             appendfsync everysec\nauto-aof-rewrite-percentage 0\naof-timestamp-enabled yes\n"
        );
        let file = root.path().join("redis.conf");
        std::fs::write(&file, settings).expect("a configuration of Redis");
        let words = vec![file.display().to_string()];
        TestRedis::started(program.to_owned(), words, root, 0)
    }

    fn run(root: tempfile::TempDir, port: u16, ports: &[&str]) -> TestRedis {
        let mut words: Vec<String> = ports.iter().map(|word| (*word).to_owned()).collect();
        let others = "--bind 127.0.0.1 --appendonly no --daemonize no --save";
        words.extend(others.split(' ').map(str::to_owned));
        words.push(String::new());
        let socket = root.path().join("redis.sock").display().to_string();
        words.extend(["--unixsocket".to_owned(), socket]);
        words.extend(["--dir".to_owned(), root.path().display().to_string()]);
        TestRedis::started(PathBuf::from("redis-server"), words, root, port)
    }

    fn started(
        program: PathBuf,
        words: Vec<String>,
        root: tempfile::TempDir,
        port: u16,
    ) -> TestRedis {
        let child = spawn(&program, &words);
        let redis = TestRedis {
            child,
            program,
            words,
            port,
            root,
        };
        redis.wait_until_it_answers();
        redis
    }

    fn wait_until_it_answers(&self) {
        eventually("Redis answers", || {
            (self.command("PING").ok()? == "+PONG\r\n").then_some(())
        });
    }

    /// On the same files, as after a crash.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.words);
        self.wait_until_it_answers();
    }

    pub fn folder(&self) -> &Path {
        self.root.path()
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

fn spawn(program: &Path, words: &[String]) -> Child {
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
