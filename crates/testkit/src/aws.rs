//! Amazon's services as moto plays them, and the real client of them, which reaches nothing else: it refuses a call
//! without an address, and what leaves loopback would go to a proxy that is not there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{TestS3, open_folder};

/// moto, the client and, between the two, what refuses what it is told to.
#[derive(Debug)]
pub struct TestAws {
    moto: TestS3,
    gate: Gate,
    root: tempfile::TempDir,
}

const ENVIRONMENT: &str = "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
export HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1
unset AWS_PROFILE AWS_ENDPOINT_URL AWS_REGION";

impl TestAws {
    /// None where moto or the client cannot be had (`scripts/moto`, `scripts/awscli`); this is said.
    pub fn start() -> Option<Self> {
        let client = aws_client()?;
        let moto = TestS3::start()?;
        let root = open_folder("aws-");
        let gate = Gate::before(moto.port());
        let real = client.display();
        let endpoint = format!("http://127.0.0.1:{}", gate.port);
        let strict = format!(
            "#!/bin/sh\n{ENVIRONMENT}\ncase \" $* \" in\n\
             *\" --endpoint-url http://127.0.0.1:\"*|\" --version \") ;;\n\
             *) echo \"aws was called without an address: $*\" >&2; exit 97;;\nesac\nexec {real} \"$@\"\n"
        );
        let guide =
            format!("#!/bin/sh\n{ENVIRONMENT}\nexec {real} --endpoint-url {endpoint} \"$@\"\n");
        for (folder, script) in [("client", strict), ("guide", guide)] {
            let folder = root.path().join(folder);
            std::fs::create_dir(&folder).expect("a folder");
            let program = folder.join("aws");
            // By another process: this one may be about to start a third, which would hold the file open.
            let written = Command::new("sh")
                .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh"])
                .arg(&script)
                .arg(&program)
                .status();
            assert!(written.expect("a shell").success(), "{}", program.display());
        }
        Some(Self { moto, gate, root })
    }

    /// Where the services are; a refusal that was asked for is among their answers.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.gate.port)
    }

    /// The client. It wants `--endpoint-url` with every call.
    pub fn program(&self) -> PathBuf {
        self.root.path().join("client/aws")
    }

    pub fn moto(&self) -> &TestS3 {
        &self.moto
    }

    /// `[aws]` of `bre.toml`.
    pub fn settings(&self) -> String {
        format!(
            "[aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\nprogram = \"{}\"\n",
            self.endpoint(),
            self.program().display()
        )
    }

    /// A script of the guide, unchanged: `aws` in it reaches moto.
    pub fn run_guide(&self, script: &str) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = self.root.path().join("guide");
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", format!("{}:{path}", folder.display()))
            .stdin(Stdio::null());
        command.output().expect("bash runs")
    }

    /// Python with boto3, whose clients come from `client("ec2")`: quicker than a process for every call.
    pub fn python(&self, script: &str) -> String {
        let python = crate::moto_server().with_file_name("python");
        let head = format!(
            "import json, boto3\ndef client(of):\n    return boto3.client(of, region_name='us-east-1', \
             endpoint_url='{}', aws_access_key_id='test', aws_secret_access_key='test')\n",
            self.moto.endpoint()
        );
        let output = Command::new(python)
            .args(["-c", &format!("{head}{script}")])
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .expect("python runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// From now on the next `times` calls of this action (`DescribeVpcs`) are refused so.
    pub fn refuse(&self, action: &str, code: &str, times: usize) {
        let refused = (code.to_owned(), times);
        self.gate.rules().insert(action.to_owned(), refused);
    }

    pub fn refuse_nothing(&self) {
        self.gate.rules().clear();
    }
}

/// A program on the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

/// The client on the PATH, or where `scripts/awscli` puts it; None is said.
pub fn aws_client() -> Option<PathBuf> {
    let installed = crate::cache_folder().join("awscli/bin/aws");
    let found = on_path("aws").or_else(|| installed.is_file().then_some(installed));
    if found.is_none() {
        crate::skip!("aws", "scripts/awscli installs it");
    }
    found
}

/// `terraform` on the PATH; None is said.
pub fn terraform() -> Option<PathBuf> {
    let found = on_path("terraform");
    if found.is_none() {
        crate::skip!("terraform", "it is not on the PATH");
    }
    found
}

type Rules = BTreeMap<String, (String, usize)>;

/// Passes everything on, but for what it is told to refuse: moto knows no rights, no limits and no expiry.
#[derive(Debug)]
struct Gate {
    port: u16,
    rules: Arc<Mutex<Rules>>,
}

impl Gate {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let rules = Arc::<Mutex<Rules>>::default();
        let of_thread = Arc::clone(&rules);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rules = Arc::clone(&of_thread);
                std::thread::spawn(move || drop(answer(&stream, port, &rules)));
            }
        });
        Self { port: own, rules }
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request, one answer.
fn answer(stream: &TcpStream, port: u16, rules: &Mutex<Rules>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if lower.starts_with("expect:") {
            (&mut &*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            continue;
        }
        if line == "\r\n" {
            head.push_str("Connection: close\r\n\r\n");
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if let Some(code) = refusal(&head, &body, rules) {
        let is_json = head.to_ascii_lowercase().contains("x-amz-target:");
        let text = match is_json {
            true => format!("{{\"__type\":\"{code}\",\"message\":\"refused by the test\"}}"),
            false => format!(
                "<ErrorResponse><Error><Code>{code}</Code><Message>refused by the test</Message></Error>\
                 <Errors><Error><Code>{code}</Code><Message>refused by the test</Message></Error></Errors>\
                 </ErrorResponse>"
            ),
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
        );
        return (&mut &*stream).write_all(answer.as_bytes());
    }
    let mut moto = TcpStream::connect(("127.0.0.1", port))?;
    moto.write_all(head.as_bytes())?;
    moto.write_all(&body)?;
    std::io::copy(&mut moto, &mut &*stream)?;
    stream.shutdown(Shutdown::Both)
}

/// An action is a parameter of the body (`Action=DescribeVpcs`) or the end of a header.
fn refusal(head: &str, body: &[u8], rules: &Mutex<Rules>) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let of_body = body.split('&').find_map(|it| it.strip_prefix("Action="));
    let of_head = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_target = name.eq_ignore_ascii_case("x-amz-target");
        is_target.then(|| value.rsplit('.').next().unwrap_or(value).trim())
    });
    let action = of_body.or(of_head)?;
    let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
    let (code, times) = rules.get_mut(action)?;
    if *times == 0 {
        return None;
    }
    *times -= 1;
    Some(code.clone())
}
