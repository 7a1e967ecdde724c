//! Books that are sent to do harm: made here from a seed, sent to a running engine, and given to its reader alone to see what each
//! costs. By hand, with 200 of them and their figures: `make slow-hostile`.

use std::{
    fs::File,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::instance::{BRE, Folder, Instance, plain_http};

/// Splitmix64: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

struct Hostile {
    what: String,
    bytes: Vec<u8>,
    /// Words of the refusal; some may be a book after all.
    why: Option<&'static str>,
}

const KINDS: u64 = 11;

/// `big`: as costly as it can be made.
fn hostile(index: u64, random: &mut Dice, big: bool) -> Hostile {
    let (what, bytes, why) = match index % KINDS {
        0 => {
            let depth = random.between(9, 900);
            let bytes = footer_only(&nested(depth));
            (
                format!("{depth} groups in each other"),
                bytes,
                Some("a book is flat"),
            )
        }
        1 => {
            let depth = random.between(4_000, 400_000);
            let bytes = footer_only(&nested(depth));
            (
                format!("{depth} groups in each other"),
                bytes,
                Some("columns and groups"),
            )
        }
        2 => {
            let (rows, size) = match big {
                true => (
                    random.between(100_000, 4_900_000),
                    random.between(100_000, 4_000_000),
                ),
                false => (300, 70_000),
            };
            let bytes = same_text(rows, size, 1 << 20);
            (
                format!("a text of {size} bytes in {rows} rows"),
                bytes,
                Some("longer than 64 KiB"),
            )
        }
        3 => {
            let rows = if big {
                random.between(20_000, 2_000_000)
            } else {
                300
            };
            let size = random.between(30_000, 65_000);
            let bytes = same_text(rows, size, 1 << 20);
            (
                format!("a text of {size} bytes in {rows} rows"),
                bytes,
                None,
            )
        }
        4 => {
            // Without a dictionary, in one page that is long when it is decompressed.
            let rows = if big {
                random.between(2_000, 9_000)
            } else {
                100
            };
            let bytes = same_text(rows, 60_000, 0);
            (format!("a page of {} bytes", rows * 60_000), bytes, None)
        }
        5 => {
            let mut bytes = same_text(2_000, 8, 1 << 20);
            for _ in 0..random.between(1, 20) {
                let at = random.between(0, bytes.len() as u64);
                bytes[at as usize] = random.next().to_le_bytes()[0];
            }
            ("a damaged file".to_owned(), bytes, None)
        }
        6 => {
            let whole = same_text(2_000, 8, 1 << 20);
            let footer = whole.len() - 600;
            let mut bytes = whole;
            let at = random.between(footer as u64, bytes.len() as u64 - 8);
            bytes[at as usize] ^= 1 << (random.next() % 8);
            ("a damaged footer".to_owned(), bytes, None)
        }
        7 => {
            let length = random.between(10, 100_000);
            let noise = random.bytes(length);
            let size = u32::try_from(noise.len()).unwrap().to_le_bytes();
            let bytes = [&b"PAR1"[..], &noise, &size, b"PAR1"].concat();
            (
                format!("{length} bytes of noise"),
                bytes,
                Some("cannot be read"),
            )
        }
        8 => {
            let size = if big { 200 << 20 } else { 3 << 20 };
            let bytes = [HEADER, b"\"", &b"GME,standard,30,1\n".repeat(size / 18)].concat();
            (
                "a quotation mark without an end".to_owned(),
                bytes,
                Some("not closed"),
            )
        }
        9 => {
            let size = if big { 200 << 20 } else { 3 << 20 };
            let bytes = [HEADER, &b",".repeat(size)].concat();
            (
                "a line of commas".to_owned(),
                bytes,
                Some("longer than 1024 KiB"),
            )
        }
        _ => {
            let depth = random.between(1_000, 1_000_000) as usize;
            let head = [0x1c, 0x19, 0x1b][(random.next() % 3) as usize];
            let bytes = footer_only(&vec![head; depth]);
            (
                "structures in structures".to_owned(),
                bytes,
                Some("damaged"),
            )
        }
    };
    Hostile { what, bytes, why }
}

const HEADER: &[u8] = b"ticker,client,days,value\n";

fn footer_only(metadata: &[u8]) -> Vec<u8> {
    let size = u32::try_from(metadata.len()).unwrap().to_le_bytes();
    [&b"PAR1"[..], metadata, &size, b"PAR1"].concat()
}

/// Metadata in Thrift's compact protocol: groups, each within the one before, and a column in the last.
fn nested(depth: u64) -> Vec<u8> {
    let mut bytes = vec![0x15, 0x02, 0x19, 0xfc];
    let mut count = depth + 1;
    while count >= 0x80 {
        bytes.push((count & 0x7f) as u8 | 0x80);
        count >>= 7;
    }
    bytes.push(count as u8);
    bytes.extend([0x48, 1, b's', 0x15, 2, 0]);
    for _ in 1..depth {
        bytes.extend([0x35, 2, 0x18, 1, b'a', 0x15, 2, 0]);
    }
    bytes.extend([0x15, 2, 0x25, 2, 0x18, 1, b'x', 0]);
    bytes.extend([0x16, 0, 0x19, 0x0c, 0]);
    bytes
}

/// A book whose ticker has that many bytes in every row. `dictionary`: how long one may be; 0: none, and everything in one page.
fn same_text(rows: u64, size: u64, dictionary: usize) -> Vec<u8> {
    const SCHEMA: &str =
        "message book { required binary ticker (UTF8); required binary client (UTF8);
        required int32 days; required double value; }";
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .set_dictionary_page_size_limit(1 << 30);
    if dictionary == 0 {
        properties = properties
            .set_dictionary_enabled(false)
            .set_data_page_size_limit(1 << 30);
    }
    let mut file =
        SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).unwrap();
    let mut group = file.next_row_group().unwrap();
    let rows = usize::try_from(rows).unwrap();
    let text = ByteArray::from(vec![b'A'; usize::try_from(size).unwrap()]);
    let mut column = group.next_column().unwrap().unwrap();
    let batch = vec![text; rows.min(4096)];
    let mut left = rows;
    while left > 0 {
        let part = left.min(batch.len());
        column
            .typed::<ByteArrayType>()
            .write_batch(&batch[..part], None, None)
            .unwrap();
        left -= part;
    }
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let clients = vec![ByteArray::from("standard"); rows];
    column
        .typed::<ByteArrayType>()
        .write_batch(&clients, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int32Type>()
        .write_batch(&vec![30; rows], None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<DoubleType>()
        .write_batch(&vec![1000.0; rows], None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.into_inner().unwrap()
}

#[derive(Debug)]
struct Cost {
    cpu_seconds: f64,
    /// The most that it had at any look.
    memory_mib: u64,
    ended: std::process::ExitStatus,
}

/// The reader alone, on this file.
fn cost(folder: &Folder, bytes: &[u8]) -> Cost {
    let path = folder.join("hostile");
    std::fs::write(&path, bytes).unwrap();
    let mut child = Command::new(BRE)
        .arg("read-book")
        .stdin(File::open(&path).unwrap())
        .stdout(File::create(folder.join("lines")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    let own = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", child.id()));
    let mut memory_kib = 0;
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(pid), look).unwrap().is_none() {
        let status = own("status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
        memory_kib = memory_kib.max(peak.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // A process that was not waited for yet still has its account. After the name in brackets.
    let stat = own("stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<u32>().unwrap();
    #[expect(clippy::float_arithmetic, reason = "a figure to print, no money")]
    let cpu_seconds = f64::from(ticks(11) + ticks(12)) / 100.0;
    Cost {
        cpu_seconds,
        memory_mib: memory_kib / 1024,
        ended: child.wait().unwrap(),
    }
}

impl Instance {
    /// Over the door that clients have, or the command line's.
    fn send_book(&self, bytes: Vec<u8>, public: bool) -> (u16, String) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let request = match public {
            true => plain_http()
                .post(format!("{}/api/v1/book", self.ready("url")))
                .header("X-API-Key", self.api_key()),
            false => {
                let socket = self.data().join("run/control.sock");
                let client = reqwest::Client::builder().unix_socket(socket).no_proxy();
                let client = client.tls_certs_only([]).build().unwrap();
                client.post("http://engine/internal/book")
            }
        };
        runtime.block_on(async {
            let answer = request.body(bytes).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }
}

fn all_of_them(count: u64, seed: u64, big: bool, print: bool) {
    let instance = Instance::start();
    let engine = instance.pid();
    let mut random = Dice(seed);
    for index in 0..count {
        let file = hostile(index, &mut random, big);
        let parquet = file.bytes.starts_with(b"PAR1");
        if parquet {
            let cost = cost(&instance.folder, &file.bytes);
            if print {
                println!(
                    "{index:>4}  {:>9} bytes  {:>6.2} s  {:>4} MiB  {}  {}",
                    file.bytes.len(),
                    cost.cpu_seconds,
                    cost.memory_mib,
                    file.what,
                    cost.ended
                );
            }
            assert!(cost.cpu_seconds <= 62.0, "{}: {cost:?}", file.what);
            // Beside what it allocates it has its own program in memory.
            assert!(cost.memory_mib <= 640, "{}: {cost:?}", file.what);
        }
        let (status, answer) = instance.send_book(file.bytes, !big);
        match file.why {
            Some(why) => assert!(
                status == 400 && answer.contains(why),
                "{}: {status} {answer}",
                file.what
            ),
            None => assert!(
                matches!(status, 200 | 400),
                "{}: {status} {answer}",
                file.what
            ),
        }
        assert_eq!(
            (
                instance.pid(),
                instance.get("/api/v1/health/liveness").status
            ),
            (engine, 200)
        );
    }
    assert_eq!(instance.locate().status, 200);
    told_by_exit_codes(&instance);
}

/// How much of a book was priced is seen by a pipeline.
fn told_by_exit_codes(instance: &Instance) {
    let price = |name: &str, bytes: &[u8]| {
        let path = instance.folder.join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        let out = instance.folder.join(&format!("{name}.out"));
        instance.bre(&[
            "book",
            "price",
            path.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ])
    };
    let book = |rows: &str| [HEADER, rows.as_bytes()].concat();
    price("all", &book("GME,standard,30,1000\n")).exits(0);
    price(
        "part",
        &book("GME,standard,30,1000\nNOSUCH,standard,30,1000\n"),
    )
    .exits(5);
    price("none", &book("NOSUCH,standard,30,1000\n")).exits(1);
    let whole = price("sample", &same_text(3, 3, 1 << 20));
    // The ticker AAA is in no feed.
    whole.exits(1);
    price("hostile", &footer_only(&nested(4_000))).refused(&["columns and groups"]);
    let diff = |a: &str, b: &str| {
        let path = |name: &str| instance.folder.join(&format!("{name}.out"));
        instance.bre(&[
            "book",
            "diff",
            path(a).to_str().unwrap(),
            path(b).to_str().unwrap(),
        ])
    };
    diff("all", "all").exits(0);
    diff("all", "part").exits(5);
    diff("part", "none").exits(1);
}

#[test]
fn no_file_takes_the_engine_with_it_or_costs_more_than_its_bound() {
    all_of_them(KINDS, 1, false, false);
}

#[test]
#[ignore = "minutes of processor time: make slow-hostile"]
fn two_hundred_hostile_books() {
    let number = |name: &str, usual: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(usual)
    };
    all_of_them(number("FILES", 200), number("SEED", 1), true, true);
}
