//! Stands between a client and an S3 server, and does to requests what networks and busy servers do: all alike by order, or drawn
//! from a seed. What is drawn depends on the seed, on the request and on how often it came, not on the order of arrival: a seed
//! does the same again.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// For all requests from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Every connection ends before anything is read.
    Away,
    /// Every request is answered 503.
    Busy,
    /// No request is answered: every other one never arrives, the rest take effect.
    Cut,
    /// Each request fails in a drawn way with this probability, at most twice in a row.
    Rough {
        percent: u64,
    },
    /// The same, and one in twenty fails until the client gives up. Some listings are those of an earlier moment.
    Storm {
        percent: u64,
    },
    /// As an older store: puts with checksums are refused, trailers too.
    NoChecksums,
    /// Nobody may delete: 403, as by a policy of the bucket.
    NoDeletes,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Served,
    Slow,
    Error400,
    Error403,
    Error500,
    Error501,
    Error503,
    /// The connection ends amid the request; the server never sees it.
    RequestLost,
    /// It took effect; then the connection ends.
    AnswerLost,
    HalfAnswer,
    /// It took effect; the answer says 500.
    ErrorAfterwards,
    /// A listing as it was when the same was asked before.
    Stale,
}

const DRAWN: [Fate; 7] = [
    Fate::Slow,
    Fate::Error500,
    Fate::Error503,
    Fate::RequestLost,
    Fate::AnswerLost,
    Fate::HalfAnswer,
    Fate::ErrorAfterwards,
];
const STORM_PERCENT: u64 = 5;
/// More than the client's attempts.
const STORM_REQUESTS: u32 = 6;
const SLOW: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub struct S3Proxy {
    port: u16,
    shared: Arc<SharedState>,
}

#[derive(Debug)]
struct SharedState {
    server: u16,
    seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    weather: Weather,
    requests: HashMap<String, SeenRequest>,
    listings: HashMap<String, Vec<u8>>,
    log: Vec<String>,
}

/// Of one request that comes again and again.
#[derive(Debug, Default)]
struct SeenRequest {
    times: u64,
    faults_left: u32,
    calm: bool,
}

impl S3Proxy {
    /// To a server on this port of loopback. It lives as long as the process, with fair weather at first.
    pub fn to(server: u16, seed: u64) -> S3Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let inner = Inner {
            weather: Weather::Fair,
            requests: HashMap::new(),
            listings: HashMap::new(),
            log: Vec::new(),
        };
        let shared = Arc::new(SharedState {
            server,
            seed,
            inner: Mutex::new(inner),
        });
        let proxy = S3Proxy {
            port,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A connection that breaks is the client's to notice.
                thread::spawn(move || drop(shared.serve(client)));
            }
        });
        proxy
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, weather: Weather) {
        self.shared.inner().weather = weather;
    }

    /// Method, what was asked for, and what became of it; one line a request.
    pub fn log(&self) -> Vec<String> {
        self.shared.inner().log.clone()
    }
}

struct Request {
    method: String,
    target: String,
    head: Vec<u8>,
    body_bytes: usize,
    expects: bool,
}

impl SharedState {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        if self.inner().weather == Weather::Away {
            return Ok(());
        }
        let mut from = BufReader::new(client.try_clone()?);
        let Some(request) = read_head(&mut from)? else {
            return Ok(());
        };
        let fate = self.inner().fate(self.seed, &request);
        if fate == Fate::RequestLost {
            return Ok(());
        }
        if request.expects {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; request.body_bytes];
        from.read_exact(&mut body)?;
        let answer = match fate {
            Fate::Error400 => refusal(400, &request),
            Fate::Error403 => refusal(403, &request),
            Fate::Error500 => refusal(500, &request),
            Fate::Error501 => refusal(501, &request),
            Fate::Error503 => refusal(503, &request),
            Fate::Stale => self.earlier(&request, &body)?,
            _ => self.ask(&request, &body)?,
        };
        match fate {
            Fate::AnswerLost => Ok(()),
            Fate::ErrorAfterwards => client.write_all(&refusal(500, &request)),
            Fate::HalfAnswer => client.write_all(&answer[..answer.len() / 2]),
            _ => {
                if fate == Fate::Slow {
                    thread::sleep(SLOW);
                }
                client.write_all(&answer)
            }
        }
    }

    fn ask(&self, request: &Request, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(("127.0.0.1", self.server))?;
        server.write_all(&request.head)?;
        server.write_all(body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        if is_listing(request) {
            let key = request.target.clone();
            self.inner().listings.insert(key, answer.clone());
        }
        Ok(answer)
    }

    fn earlier(&self, request: &Request, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let known = self.inner().listings.get(&request.target).cloned();
        known.map_or_else(|| self.ask(request, body), Ok)
    }
}

impl Inner {
    fn fate(&mut self, seed: u64, request: &Request) -> Fate {
        let fate = match self.weather {
            Weather::Fair => Fate::Served,
            Weather::Away => Fate::RequestLost,
            Weather::Busy => Fate::Error503,
            Weather::Cut if self.log.len().is_multiple_of(2) => Fate::RequestLost,
            Weather::Cut => Fate::AnswerLost,
            Weather::Rough { percent } => self.drawn(seed, request, percent, 0),
            Weather::Storm { percent } => self.drawn(seed, request, percent, STORM_PERCENT),
            Weather::NoChecksums => without_checksums(request),
            Weather::NoDeletes if request.method == "DELETE" => Fate::Error403,
            Weather::NoDeletes => Fate::Served,
        };
        let (method, target) = (&request.method, &request.target);
        self.log.push(format!("{method} {target}: {fate:?}"));
        fate
    }

    fn drawn(&mut self, seed: u64, request: &Request, percent: u64, storms: u64) -> Fate {
        let key = repeatable(request);
        let asked = self.requests.entry(key.clone()).or_default();
        asked.times += 1;
        let dice = mix(seed ^ mix(fnv(&key)) ^ asked.times);
        if asked.faults_left == 0 {
            if std::mem::take(&mut asked.calm) || dice % 100 >= percent {
                let stale = storms > 0 && is_listing(request) && dice.is_multiple_of(3);
                return if stale { Fate::Stale } else { Fate::Served };
            }
            asked.faults_left = match dice % 100 < storms {
                true => STORM_REQUESTS,
                false => 1 + u32::from(dice & 256 != 0),
            };
        }
        asked.faults_left -= 1;
        asked.calm = asked.faults_left == 0;
        DRAWN[usize::try_from((dice >> 32) % DRAWN.len() as u64).unwrap_or(0)]
    }
}

fn without_checksums(request: &Request) -> Fate {
    let head = String::from_utf8_lossy(&request.head).to_ascii_lowercase();
    let has = |name: &str| head.lines().any(|line| line.starts_with(name));
    if head.contains("aws-chunked") || has("x-amz-trailer") {
        return Fate::Error501;
    }
    let writes = request.method == "PUT" || request.method == "POST";
    if writes && (has("x-amz-checksum-") || has("x-amz-sdk-checksum-")) {
        return Fate::Error400;
    }
    Fate::Served
}

/// The same in every run: without what clients and servers draw themselves.
fn repeatable(request: &Request) -> String {
    let target = request.target.split("uploadId=").next().unwrap_or_default();
    let target = target.split("/probes/").next().unwrap_or_default();
    format!("{} {target}", request.method)
}

fn is_listing(request: &Request) -> bool {
    request.method == "GET" && request.target.contains("list-type=2")
}

fn read_head(from: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        head: line.clone().into_bytes(),
        body_bytes: 0,
        expects: false,
    };
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "" => break,
            "content-length" => request.body_bytes = value.trim().parse().unwrap_or(0),
            "expect" => request.expects = true,
            "connection" => {}
            _ => request.head.extend_from_slice(line.as_bytes()),
        }
        if name.eq_ignore_ascii_case("content-length") {
            request.head.extend_from_slice(line.as_bytes());
        }
    }
    request.head.extend_from_slice(b"Connection: close\r\n\r\n");
    Ok(Some(request))
}

fn refusal(status: u16, request: &Request) -> Vec<u8> {
    let (code, reason) = match status {
        400 => ("InvalidArgument", "Bad Request"),
        403 => ("AccessDenied", "Forbidden"),
        501 => ("NotImplemented", "Not Implemented"),
        503 => ("SlowDown", "Slow Down"),
        _ => ("InternalError", "Internal Server Error"),
    };
    let body = match request.method.as_str() {
        "HEAD" => String::new(),
        _ => format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>drawn</Message></Error>"
        ),
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// splitmix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
