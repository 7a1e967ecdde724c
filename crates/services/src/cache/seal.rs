//! Whose an object of the shared cache is. Anybody may be on the same Redis: a second system that was given the same URL, an old
//! one that was copied, a stranger. What is not sealed by this system is not read. Form: docs/formats/shared_cache.md.

use std::fmt::Write;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;

/// A secret of the system, and the name of its log and repository.
pub(crate) struct Seal {
    key: hmac::Key,
    /// Unknown in a process that neither writes the log nor has reached the one that does.
    identity: ArcSwapOption<String>,
}

/// Nothing of it is printed.
impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

const MAC_DIGITS: usize = 64;
/// The identity where it is not known.
const UNKNOWN: &str = "-";

impl Seal {
    pub(crate) fn new(secret: &[u8], identity: Option<String>) -> Seal {
        // The secret itself opens doors: only something derived from it is used here.
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&root, b"bre shared cache 2");
        Seal {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            identity: ArcSwapOption::new(identity.map(Arc::new)),
        }
    }

    /// What the data-service says.
    pub(crate) fn learn(&self, identity: &str) {
        let known = self.identity.load();
        if known.as_ref().is_none_or(|known| ***known != *identity) {
            self.identity.store(Some(Arc::new(identity.to_owned())));
        }
    }

    pub(crate) fn identity(&self) -> Option<String> {
        self.identity.load().as_deref().cloned()
    }

    /// `MAC IDENTITY`, a line break, the text.
    pub(super) fn close(&self, kind: &str, text: &str) -> String {
        let identity = self.identity.load();
        let identity = identity.as_deref().map_or(UNKNOWN, String::as_str);
        let mac = hmac::sign(&self.key, &message(kind, identity, text));
        let mut sealed = String::with_capacity(MAC_DIGITS + identity.len() + text.len() + 2);
        for byte in mac.as_ref() {
            let _ = write!(sealed, "{byte:02x}");
        }
        let _ = write!(sealed, " {identity}\n{text}");
        sealed
    }

    /// `None`: this system did not put it there, or not under this name.
    pub(super) fn open<'a>(&self, kind: &str, sealed: &'a str) -> Option<&'a str> {
        let (head, text) = sealed.split_once('\n')?;
        let (mac, identity) = head.split_once(' ')?;
        if let Some(own) = self.identity.load().as_deref()
            && *own != identity
            && identity != UNKNOWN
        {
            return None;
        }
        let mac = bytes(mac)?;
        hmac::verify(&self.key, &message(kind, identity, text), &mac).ok()?;
        Some(text)
    }
}

fn message(kind: &str, identity: &str, text: &str) -> Vec<u8> {
    // Neither kinds nor identities hold a line break.
    format!("{kind}\n{identity}\n{text}").into_bytes()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    if digits.len() != MAC_DIGITS || !digits.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..MAC_DIGITS).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_system_put_under_this_name_is_read() {
        let seal = |secret: &str, identity: Option<&str>| {
            Seal::new(secret.as_bytes(), identity.map(str::to_owned))
        };
        let ours = seal("one secret", Some("0 of a"));
        let sealed = ours.close("rates", "[1,\n2]");
        assert_eq!(ours.open("rates", &sealed), Some("[1,\n2]"));
        assert_eq!(ours.open("keys", &sealed), None);
        assert_eq!(seal("another", Some("0 of a")).open("rates", &sealed), None);
        // The same secret, another log or repository.
        assert_eq!(
            seal("one secret", Some("0 of b")).open("rates", &sealed),
            None
        );
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8_lossy(&bytes);
            assert_eq!(ours.open("rates", &changed), None, "{at}");
        }
        for none in ["", "[1,2]", "\n", "00 x\n[]", &"é".repeat(40)] {
            assert_eq!(ours.open("rates", none), None);
        }
        // A process that does not know yet goes by the secret; what it wrote itself is as good as its own.
        let unknown = seal("one secret", None);
        assert_eq!(unknown.open("rates", &sealed), Some("[1,\n2]"));
        let by_it = unknown.close("rates", "3");
        assert_eq!(ours.open("rates", &by_it), Some("3"));
        unknown.learn("0 of b");
        assert_eq!(unknown.open("rates", &sealed), None);
        assert_eq!(unknown.identity().as_deref(), Some("0 of b"));
    }
}
