//! The bytes of a wrap (repository.md §4): a header that names data key and recipient, then what its suite says. Keys of a provider say
//! their names in it, so that whoever finds a wrap that does not open can say which key is wanted.

use super::provider::{KeyError, KeyTrouble, WrapBinding};
use super::{from_hex, hex};

const MAGIC: &[u8; 4] = b"BREW";
const VERSION: u16 = 1;
pub(crate) const WRAP_HEADER: usize = 40;
const REPOSITORY_ID: usize = 16;
const NAME_MAX: usize = 2048;

/// How a wrap is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapSuite {
    /// HPKE to an X25519 key of ours.
    HpkeX25519,
    /// By AWS KMS, or a server that speaks as it does.
    Kms,
    /// RSA-OAEP to a key inside a PKCS#11 token.
    Pkcs11Rsa,
    Other(u16),
}

impl WrapSuite {
    fn number(self) -> u16 {
        match self {
            Self::HpkeX25519 => 1,
            Self::Kms => 2,
            Self::Pkcs11Rsa => 3,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> Self {
        match number {
            1 => Self::HpkeX25519,
            2 => Self::Kms,
            3 => Self::Pkcs11Rsa,
            other => Self::Other(other),
        }
    }

    /// Of the provider, as in settings and key files.
    #[must_use]
    pub fn provider(self) -> &'static str {
        match self {
            Self::HpkeX25519 => "file",
            Self::Kms => "kms",
            Self::Pkcs11Rsa => "pkcs11",
            Self::Other(_) => "unknown",
        }
    }
}

/// What a wrap says about itself, readable without any key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapHeader {
    pub suite: WrapSuite,
    pub data_key_id: String,
    pub recipient_id: String,
    /// The provider's own name of the key; empty for a key pair of ours, which has none but its id.
    pub key_name: String,
}

impl WrapHeader {
    /// `None` when these are not the bytes of a wrap.
    #[must_use]
    pub fn read(wrap: &[u8]) -> Option<Self> {
        let (header, _) = wrap.split_at_checked(WRAP_HEADER)?;
        if &header[..4] != MAGIC || header[4..6] != VERSION.to_be_bytes() {
            return None;
        }
        let suite = WrapSuite::from_number(u16::from_be_bytes([header[6], header[7]]));
        let key_name = match suite {
            WrapSuite::Kms | WrapSuite::Pkcs11Rsa => named(wrap)?.0.to_owned(),
            _ => String::new(),
        };
        Some(Self {
            suite,
            data_key_id: hex(&header[8..24]),
            recipient_id: hex(&header[24..40]),
            key_name,
        })
    }

    /// As a person would name the recipient.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.key_name.is_empty() {
            return self.recipient_id.clone();
        }
        self.key_name.clone()
    }
}

/// The first 40 bytes.
pub(crate) fn wrap_header(suite: WrapSuite, binding: &WrapBinding, recipient_id: &str) -> Vec<u8> {
    let mut header = Vec::with_capacity(120);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_be_bytes());
    header.extend_from_slice(&suite.number().to_be_bytes());
    header.extend(from_hex(&binding.data_key_id).unwrap_or_default());
    header.extend(from_hex(recipient_id).unwrap_or_default());
    header
}

/// The recipient id of a provider's key, from its name alone.
#[must_use]
pub fn named_recipient_id(suite: WrapSuite, key_name: &str) -> String {
    let mut bytes = format!("bre-{}-1\0", suite.provider()).into_bytes();
    bytes.extend_from_slice(key_name.as_bytes());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    hex(&digest.as_ref()[..16])
}

/// A wrap by a provider's key: header, the repository that it was made in, the key's name, and what the provider sealed.
#[must_use]
pub fn named_wrap(
    suite: WrapSuite,
    binding: &WrapBinding,
    key_name: &str,
    sealed: &[u8],
) -> Vec<u8> {
    let mut wrap = wrap_header(suite, binding, &named_recipient_id(suite, key_name));
    wrap.extend(from_hex(&binding.repository_id).unwrap_or_default());
    let length = u16::try_from(key_name.len()).unwrap_or(u16::MAX);
    wrap.extend_from_slice(&length.to_be_bytes());
    wrap.extend_from_slice(key_name.as_bytes());
    wrap.extend_from_slice(sealed);
    wrap
}

/// What [`open_named_wrap`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedWrap<'a> {
    /// What its provider bound it to. A copy of a repository keeps the wraps of the first: the provider asks for where it was made.
    pub binding: WrapBinding,
    pub key_name: &'a str,
    pub sealed: &'a [u8],
}

/// Mirror of [`named_wrap`]; refuses what was sealed for another data key.
pub fn open_named_wrap<'a>(
    suite: WrapSuite,
    binding: &WrapBinding,
    wrap: &'a [u8],
) -> Result<NamedWrap<'a>, KeyError> {
    let wrong = |key: &str| KeyError {
        key: key.to_owned(),
        trouble: KeyTrouble::Wrong {
            what: "this is not the wrap that its name promises".to_owned(),
        },
    };
    let (name, sealed) = named(wrap).ok_or_else(|| wrong("of an unknown provider"))?;
    let header = wrap_header(suite, binding, &named_recipient_id(suite, name));
    if !wrap.starts_with(&header) {
        return Err(wrong(name));
    }
    let made_in = wrap.get(WRAP_HEADER..WRAP_HEADER + REPOSITORY_ID);
    Ok(NamedWrap {
        binding: WrapBinding {
            repository_id: hex(made_in.unwrap_or_default()),
            data_key_id: binding.data_key_id.clone(),
        },
        key_name: name,
        sealed,
    })
}

fn named(wrap: &[u8]) -> Option<(&str, &[u8])> {
    let rest = wrap.get(WRAP_HEADER + REPOSITORY_ID..)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (name, sealed) = rest.split_at_checked(length)?;
    let name = std::str::from_utf8(name).ok()?;
    let plain = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(char::is_control);
    plain.then_some((name, sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(digit: char) -> WrapBinding {
        WrapBinding {
            repository_id: "0".repeat(32),
            data_key_id: digit.to_string().repeat(32),
        }
    }

    #[test]
    fn a_named_wrap_says_whose_it_is_and_opens_for_its_data_key_only() {
        let name = "arn:aws:kms:eu-west-1:1:key/a";
        let wrap = named_wrap(WrapSuite::Kms, &binding('a'), name, b"sealed");
        let header = WrapHeader::read(&wrap).unwrap();
        assert_eq!(header.suite, WrapSuite::Kms);
        assert_eq!(header.describe(), name);
        assert_eq!(
            header.recipient_id,
            named_recipient_id(WrapSuite::Kms, name)
        );
        assert_eq!(header.data_key_id, "a".repeat(32));
        let open = |digit, wrap: &[u8]| {
            open_named_wrap(WrapSuite::Kms, &binding(digit), wrap).map(|found| {
                (
                    found.binding,
                    found.key_name.to_owned(),
                    found.sealed.to_vec(),
                )
            })
        };
        let found = (binding('a'), name.to_owned(), b"sealed".to_vec());
        assert_eq!(open('a', &wrap), Ok(found));
        assert!(open('b', &wrap).is_err());
        assert!(open_named_wrap(WrapSuite::Pkcs11Rsa, &binding('a'), &wrap).is_err());
        // Another key's name in the same wrap is another recipient's.
        let mut other = wrap.clone();
        other[WRAP_HEADER + REPOSITORY_ID + 3] ^= 1;
        assert!(open('a', &other).is_err());
        for cut in 0..WRAP_HEADER + REPOSITORY_ID + 2 + name.len() {
            assert!(WrapHeader::read(&wrap[..cut]).is_none(), "{cut}");
        }
    }
}
