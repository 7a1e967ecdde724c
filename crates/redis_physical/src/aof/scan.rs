//! Where whole commands end in an increment. A server that is copied while it writes leaves the last one cut.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{RedisError, Result};

/// Of a line that says a number or a moment.
const LINE_MAX: u64 = 64;
/// A server takes no longer value.
const VALUE_MAX: u64 = 8 << 30;
const WORDS_MAX: u64 = 1 << 31;

/// What an increment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AofScan {
    /// Up to here it is whole commands, and whole transactions.
    pub whole_bytes: u64,
    pub bytes: u64,
    pub commands: u64,
    /// Of its marks (`aof-timestamp-enabled`), seconds since the Unix epoch.
    pub first_moment_seconds: Option<i64>,
    pub last_moment_seconds: Option<i64>,
    /// Where it stops being an append-only file, and why. What is cut short at its end is no damage.
    pub damage: Option<(u64, String)>,
}

pub fn scan_file(path: &Path) -> Result<AofScan> {
    let file = File::open(path).map_err(RedisError::file("read", path))?;
    scan(&mut BufReader::with_capacity(1 << 20, file)).map_err(RedisError::file("read", path))
}

/// One thing in the file.
enum Item {
    /// The file ended inside of it.
    Cut,
    End,
    Mark(i64),
    Note,
    Command {
        first: Vec<u8>,
        words: u64,
    },
    Damage(String),
}

pub fn scan(source: &mut dyn BufRead) -> io::Result<AofScan> {
    let mut scan = AofScan::default();
    let mut reader = AppendOnlyReader { source, bytes: 0 };
    let mut in_transaction = false;
    loop {
        let begin = reader.bytes;
        match reader.item()? {
            Item::End | Item::Cut => break,
            Item::Damage(fault) => {
                scan.damage = Some((begin, fault));
                break;
            }
            Item::Mark(seconds) => {
                scan.first_moment_seconds.get_or_insert(seconds);
                scan.last_moment_seconds = Some(seconds);
            }
            Item::Note => {}
            Item::Command { first, words } => {
                scan.commands += 1;
                if words == 1 && first.eq_ignore_ascii_case(b"multi") {
                    in_transaction = true;
                } else if words == 1 && first.eq_ignore_ascii_case(b"exec") {
                    in_transaction = false;
                }
            }
        }
        // A transaction without its end is undone by a server; what is kept ends before it.
        if !in_transaction {
            scan.whole_bytes = reader.bytes;
        }
    }
    scan.bytes = reader.bytes;
    Ok(scan)
}

struct AppendOnlyReader<'a> {
    source: &'a mut dyn BufRead,
    bytes: u64,
}

impl AppendOnlyReader<'_> {
    fn item(&mut self) -> io::Result<Item> {
        let Some(line) = self.line()? else {
            return Ok(Item::End);
        };
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Ok(match line.len() as u64 >= LINE_MAX {
                true => Item::Damage("a line without an end".to_owned()),
                false if line.ends_with(b"\n") => {
                    Item::Damage("a line ends without \\r".to_owned())
                }
                false => Item::Cut,
            });
        };
        if let Some(mark) = text.strip_prefix(b"#") {
            let seconds = mark
                .strip_prefix(b"TS:")
                .and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
            return Ok(seconds.map_or(Item::Note, Item::Mark));
        }
        let words = match number(text, b'*', WORDS_MAX) {
            Some(words) if words > 0 => words,
            _ => return Ok(Item::Damage("a command does not begin with *N".to_owned())),
        };
        let mut first = Vec::new();
        for at in 0..words {
            match self.word((at == 0).then_some(&mut first))? {
                None => {}
                Some(other) => return Ok(other),
            }
        }
        Ok(Item::Command { first, words })
    }

    /// What is wrong with the next word, if anything is.
    fn word(&mut self, kept: Option<&mut Vec<u8>>) -> io::Result<Option<Item>> {
        let Some(line) = self.line()? else {
            return Ok(Some(Item::Cut));
        };
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Ok(Some(
                match line.ends_with(b"\n") || line.len() as u64 >= LINE_MAX {
                    true => Item::Damage("a word does not begin with $N".to_owned()),
                    false => Item::Cut,
                },
            ));
        };
        let Some(bytes) = number(text, b'$', VALUE_MAX) else {
            return Ok(Some(Item::Damage(
                "a word does not begin with $N".to_owned(),
            )));
        };
        match kept {
            Some(kept) if bytes <= LINE_MAX => {
                let mut word = self.source.take(bytes);
                let read = word.read_to_end(kept)?;
                self.bytes += read as u64;
                if (read as u64) < bytes {
                    return Ok(Some(Item::Cut));
                }
            }
            _ => {
                if self.skip(bytes)? < bytes {
                    return Ok(Some(Item::Cut));
                }
            }
        }
        let mut end = Vec::new();
        let read = self.source.take(2).read_to_end(&mut end)?;
        self.bytes += read as u64;
        Ok(match end.as_slice() {
            b"\r\n" => None,
            b"" | b"\r" => Some(Item::Cut),
            _ => Some(Item::Damage("a word is longer than it says".to_owned())),
        })
    }

    /// None at the end.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = self.source.take(LINE_MAX).read_until(b'\n', &mut line)?;
        self.bytes += read as u64;
        Ok((read > 0).then_some(line))
    }

    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let skipped = io::copy(&mut self.source.take(bytes), &mut io::sink())?;
        self.bytes += skipped;
        Ok(skipped)
    }
}

fn number(line: &[u8], sign: u8, max: u64) -> Option<u64> {
    let digits = std::str::from_utf8(line.strip_prefix(&[sign])?).ok()?;
    if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|it| *it <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> String {
        let words_text: String = words
            .iter()
            .map(|it| format!("${}\r\n{it}\r\n", it.len()))
            .collect();
        format!("*{}\r\n{words_text}", words.len())
    }

    fn scanned(text: &str) -> AofScan {
        scan(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_that_is_cut_anywhere_ends_with_a_whole_command() {
        let parts = [
            "#TS:100\r\n".to_owned(),
            command(&["SELECT", "0"]),
            command(&["SET", "a", "*1\r\n$3\r\nnot"]),
            "#TS:107\r\n".to_owned(),
            // A transaction is one piece.
            command(&["MULTI"])
                + &command(&["SET", "b", "1"])
                + &command(&["INCR", "b"])
                + &command(&["EXEC"]),
            command(&["SET", &"k".repeat(100), ""]),
        ];
        let text = parts.concat();
        let mut ends = vec![0];
        for part in &parts {
            ends.push(ends[ends.len() - 1] + part.len() as u64);
        }
        for cut in 0..=text.len() {
            let scan = scanned(&text[..cut]);
            let whole = ends.iter().rev().find(|end| **end <= cut as u64).unwrap();
            assert_eq!(
                (scan.whole_bytes, scan.damage),
                (*whole, None),
                "cut at {cut}"
            );
        }
        let scan = scanned(&text);
        assert_eq!((scan.commands, scan.bytes), (7, text.len() as u64));
        assert_eq!(
            (scan.first_moment_seconds, scan.last_moment_seconds),
            (Some(100), Some(107))
        );
    }

    #[test]
    fn damage_is_told_from_a_cut() {
        let good = command(&["SET", "a", "1"]);
        for bad in [
            "SET a 1\r\n".to_owned(),
            "*0\r\n".to_owned(),
            "*-1\r\n".to_owned(),
            "*99999999999999999999\r\n".to_owned(),
            "*1\r\n$3\r\nPINGX\r\n".to_owned(),
            "*1\r\n:3\r\nSET\r\n".to_owned(),
            "*1\n$4\nPING\n".to_owned(),
            "\0".repeat(200),
        ] {
            let scan = scanned(&(good.clone() + &bad));
            let (offset, fault) = scan.damage.unwrap_or_else(|| panic!("{bad:?}"));
            assert_eq!(
                (offset, scan.whole_bytes),
                (good.len() as u64, good.len() as u64),
                "{bad:?} {fault}"
            );
        }
    }
}
