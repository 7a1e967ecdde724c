//! An S3 server of its own: moto, which keeps everything in memory. Good for what stores do; no proof that a lock holds.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::{eventually, open_folder};

/// Listens on a free loopback port. Every key opens it; the credentials file that its locations name holds one.
#[derive(Debug)]
pub struct TestS3 {
    child: Child,
    port: u16,
    root: tempfile::TempDir,
}

impl TestS3 {
    /// None where moto cannot be had (`scripts/moto` installs it); this is said.
    pub fn start() -> Option<TestS3> {
        let program = moto_server();
        if !program.exists() {
            crate::skip!("moto", "scripts/moto puts it at {}", program.display());
            return None;
        }
        let root = open_folder("s3-");
        let credentials = root.path().join("credentials");
        std::fs::write(
            &credentials,
            "[default]\naws_access_key_id = test\naws_secret_access_key = test\n",
        )
        .expect("a credentials file");
        std::fs::set_permissions(&credentials, PermissionsExt::from_mode(0o600)).expect("its mode");
        let port = crate::free_port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let s3 = TestS3 { child, port, root };
        eventually("moto answers", || s3.ask("GET", "/moto-api/", "").ok());
        Some(s3)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn make_bucket(&self, name: &str) {
        self.made(name, "");
    }

    /// With versions, and object lock.
    pub fn make_locking_bucket(&self, name: &str) {
        self.made(name, "x-amz-bucket-object-lock-enabled: true\r\n");
    }

    fn made(&self, name: &str, headers: &str) {
        let status = self
            .ask("PUT", &format!("/{name}"), headers)
            .expect("moto answers");
        assert_eq!(status, 200, "bucket {name}");
    }

    /// Where a repository lies below this bucket, as `--repository` takes it.
    pub fn location(&self, bucket: &str, prefix: &str) -> String {
        self.location_through(&self.endpoint(), bucket, prefix)
    }

    /// The same by another way, a proxy for instance.
    pub fn location_through(&self, endpoint: &str, bucket: &str, prefix: &str) -> String {
        let file = self.root.path().join("credentials");
        format!(
            "s3://{bucket}/{prefix}?region=us-east-1&endpoint={endpoint}&credentials-file={}",
            file.display()
        )
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        )?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        std::io::copy(&mut answer.by_ref().take(1 << 20), &mut std::io::sink())?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        status.ok_or_else(|| std::io::Error::other(line))
    }

    /// Stops the server as a crash would; what it held is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TestS3 {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where `scripts/moto` puts it.
pub fn moto_server() -> PathBuf {
    crate::cache_folder().join("moto/bin/moto_server")
}
