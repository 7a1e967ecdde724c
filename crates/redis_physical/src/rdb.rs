//! The head of an RDB file: which version wrote it, and when. What is inside of it a server says.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::{RedisError, Result};

const AUX: u8 = 0xFA;
/// More fields than any server writes.
const FIELDS_MAX: usize = 64;
const TEXT_MAX: usize = 1 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdbHead {
    pub rdb_version: u32,
    /// `7.0.15`; of Valkey the Redis that it is compatible with, or its own.
    pub server_version: Option<String>,
    pub created_seconds: Option<i64>,
}

pub fn head_of_file(path: &Path) -> Result<RdbHead> {
    let file = File::open(path).map_err(RedisError::file("read", path))?;
    let damaged = |fault: String| RedisError::Damaged {
        path: path.to_owned(),
        offset: 0,
        fault,
    };
    head(&mut BufReader::new(file)).map_err(damaged)
}

pub fn head(source: &mut dyn Read) -> Result<RdbHead, String> {
    let mut magic = [0; 9];
    source
        .read_exact(&mut magic)
        .map_err(|_| "it is shorter than the head of an RDB file".to_owned())?;
    let digits = magic
        .strip_prefix(b"REDIS")
        .or_else(|| magic.strip_prefix(b"VALKEY"));
    let version = digits.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
    let mut head = RdbHead {
        rdb_version: version.ok_or("it does not begin as an RDB file does")?,
        ..RdbHead::default()
    };
    for _ in 0..FIELDS_MAX {
        if byte(source) != Some(AUX) {
            break;
        }
        let (Some(name), Some(value)) = (text(source), text(source)) else {
            return Err("its head is cut".to_owned());
        };
        match name.as_str() {
            "redis-ver" | "valkey-ver" => head.server_version = Some(value),
            "ctime" => head.created_seconds = value.parse().ok(),
            _ => {}
        }
    }
    Ok(head)
}

fn byte(source: &mut dyn Read) -> Option<u8> {
    let mut byte = [0];
    source.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

fn bytes<const N: usize>(source: &mut dyn Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// A string, or an integer that is kept as one; a head has no compressed one.
fn text(source: &mut dyn Read) -> Option<String> {
    let first = byte(source)?;
    let length = match first >> 6 {
        0 => usize::from(first),
        1 => usize::from(first & 0x3F) << 8 | usize::from(byte(source)?),
        3 => {
            let number = match first & 0x3F {
                0 => i64::from(i8::from_le_bytes(bytes(source)?)),
                1 => i64::from(i16::from_le_bytes(bytes(source)?)),
                2 => i64::from(i32::from_le_bytes(bytes(source)?)),
                _ => return None,
            };
            return Some(number.to_string());
        }
        _ => return None,
    };
    if length > TEXT_MAX {
        return None;
    }
    let mut text = vec![0; length];
    source.read_exact(&mut text).ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_what_a_server_wrote_is_read() {
        let mut file = b"REDIS0010".to_vec();
        file.extend(b"\xfa\x09redis-ver\x067.0.15");
        file.extend(b"\xfa\x0aredis-bits\xc0\x40");
        file.extend(b"\xfa\x05ctime\xc2\x10\x20\x30\x40");
        file.extend(b"\xfe\x00");
        let head_of = |bytes: &[u8]| head(&mut &bytes[..]);
        let expected = RdbHead {
            rdb_version: 10,
            server_version: Some("7.0.15".to_owned()),
            created_seconds: Some(0x4030_2010),
        };
        assert_eq!(head_of(&file), Ok(expected));
        for cut in 0..file.len() {
            // Never a panic; the fields that are whole, or a word.
            let _ = head_of(&file[..cut]);
        }
        assert!(
            head_of(b"*1\r\n$4\r\nPING\r\n")
                .unwrap_err()
                .contains("does not begin")
        );
        assert!(head_of(b"").unwrap_err().contains("shorter"));
        assert!(head_of(b"REDIS0010\xfa\x09re").unwrap_err().contains("cut"));
    }
}
