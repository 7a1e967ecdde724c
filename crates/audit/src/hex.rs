//! Lower-case hex only: upper case is refused, so that one value has one text.

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum HexError {
    #[error("expected {expected} hex digits, found {found} characters")]
    Length { expected: usize, found: usize },
    #[error("byte {at} is not a lower-case hex digit")]
    Digit { at: usize },
    #[error("an odd number of hex digits ({0})")]
    Odd(usize),
}

pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

pub fn decode(text: &str) -> Result<Vec<u8>, HexError> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return Err(HexError::Odd(digits.len()));
    }
    digits
        .chunks_exact(2)
        .enumerate()
        .map(|(i, pair)| Ok(digit(pair[0], i * 2)? << 4 | digit(pair[1], i * 2 + 1)?))
        .collect()
}

pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let length = HexError::Length {
        expected: N * 2,
        found: text.chars().count(),
    };
    if text.len() != N * 2 {
        return Err(length);
    }
    decode(text)?.try_into().map_err(|_| length)
}

fn digit(byte: u8, at: usize) -> Result<u8, HexError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(HexError::Digit { at }),
    }
}
