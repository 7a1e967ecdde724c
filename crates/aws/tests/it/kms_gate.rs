//! Stands between a client and moto's KMS. moto does not refuse what a disabled key, or one that will be deleted, is
//! asked for, and asks no policy: the gate looks the key's state up in moto and answers as AWS documents. It can also
//! refuse calls, keep silent, and fail.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use testkit::{moto_kms, moto_kms_key};

#[derive(Debug)]
pub(crate) struct Gate {
    port: u16,
    moto: u16,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Calls that the caller's role may not make: `Decrypt` …
    pub(crate) denied: BTreeSet<&'static str>,
    /// Every connection is taken and never answered.
    pub(crate) silent: bool,
    /// So many calls are answered 500 first.
    pub(crate) failing: u32,
    /// What was asked.
    pub(crate) asked: Vec<String>,
    held: Vec<TcpStream>,
}

impl Gate {
    pub(crate) fn before(moto: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let rules = Arc::new(Mutex::new(Rules::default()));
        let shared = Arc::clone(&rules);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rules = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, moto, &rules));
            }
        });
        Self { port, moto, rules }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn rules<T>(&self, act: impl FnOnce(&mut Rules) -> T) -> T {
        act(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As whoever administers the keys: `CreateKey` …
    pub(crate) fn administer(&self, call: &str, body: Value) -> Value {
        let answer = moto(self.moto, call, &body);
        assert!(answer.get("__type").is_none(), "{call}: {answer}");
        answer
    }

    /// The ARN of a new key.
    pub(crate) fn make_key(&self) -> String {
        moto_kms_key(self.moto)
    }
}

fn serve(stream: TcpStream, port: u16, rules: &Mutex<Rules>) {
    let rules = || rules.lock().unwrap_or_else(PoisonError::into_inner);
    if rules().silent {
        rules().held.push(stream);
        return;
    }
    let Some((call, body)) = request(&stream) else {
        return;
    };
    let failing = {
        let mut rules = rules();
        rules.asked.push(call.clone());
        let failing = rules.failing > 0;
        rules.failing = rules.failing.saturating_sub(1);
        failing
    };
    let (status, answer) = if failing {
        (500, error("KMSInternalException", "try again"))
    } else if rules().denied.contains(call.as_str()) {
        let message = format!("User is not authorized to perform: kms:{call}");
        (400, error("AccessDeniedException", &message))
    } else {
        match refused(port, &body) {
            Some(answer) => (400, answer),
            None => {
                let answer = moto(port, &call, &body);
                let failed = answer.get("__type").is_some();
                (if failed { 400 } else { 200 }, answer)
            }
        }
    };
    let text = answer.to_string();
    let mut stream = &stream;
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{text}",
        text.len()
    );
}

fn error(code: &str, message: &str) -> Value {
    json!({"__type": code, "message": message})
}

/// By the state of the key.
fn refused(port: u16, body: &Value) -> Option<Value> {
    let key = body["KeyId"].as_str()?;
    let known = moto(port, "DescribeKey", &json!({"KeyId": key}));
    let arn = known["KeyMetadata"]["Arn"].as_str()?;
    match known["KeyMetadata"]["KeyState"].as_str()? {
        "PendingDeletion" => Some(error(
            "KMSInvalidStateException",
            &format!("{arn} is pending deletion."),
        )),
        _ if known["KeyMetadata"]["Enabled"] == false => {
            Some(error("DisabledException", &format!("{arn} is disabled.")))
        }
        _ => None,
    }
}

/// The call and its body.
fn request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut call, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line
            .trim_end()
            .split_once(": ")
            .or_else(|| line.split_once(':'))
        else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => call = value.trim().rsplit('.').next()?.to_owned(),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((call, serde_json::from_slice(&body).ok()?))
}

/// An error's body holds `__type`; calls without a result answer with nothing.
fn moto(port: u16, call: &str, body: &Value) -> Value {
    serde_json::from_str(&moto_kms(port, call, &body.to_string())).unwrap_or(Value::Null)
}
