//! The secret that the services of one installation share, or that opens their metrics. It is never printed, and compared without telling by its timing how
//! much of it was right.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderValue, header};

#[derive(Clone)]
pub struct InternalSecret(String);

impl std::fmt::Debug for InternalSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InternalSecret(…)")
    }
}

const LENGTH_MIN: usize = 32;
const LENGTH_MAX: usize = 1024;

impl InternalSecret {
    /// White space around it is no part of it: files end with a line break.
    pub fn new(text: &str) -> Result<InternalSecret, String> {
        let text = text.trim();
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&text.len()) {
            return Err(format!(
                "it must have {LENGTH_MIN} to {LENGTH_MAX} characters; make one with: openssl rand -hex 32"
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it must be one line of visible ASCII characters".to_owned());
        }
        Ok(InternalSecret(text.to_owned()))
    }

    /// As the one bearer token of a request.
    pub(crate) fn is_presented(&self, headers: &HeaderMap) -> bool {
        let mut presented = headers.get_all(header::AUTHORIZATION).iter();
        match (presented.next(), presented.next()) {
            (Some(value), None) => value
                .as_bytes()
                .strip_prefix(SCHEME.as_bytes())
                .is_some_and(|text| self.is(text)),
            _ => false,
        }
    }

    /// Hashes are compared: they have one length, whatever was presented.
    fn is(&self, presented: &[u8]) -> bool {
        let (ours, theirs) = (
            digest(&SHA256, self.0.as_bytes()),
            digest(&SHA256, presented),
        );
        verify_slices_are_equal(ours.as_ref(), theirs.as_ref()).is_ok()
    }

    /// To derive others from.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("{SCHEME}{}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

const SCHEME: &str = "Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_opens() {
        let text = "0123456789abcdef0123456789abcdef";
        let secret = InternalSecret::new(&format!("{text}\n")).unwrap();
        assert!(secret.is(text.as_bytes()));
        for wrong in ["", &text[1..], "0123456789abcdef0123456789abcdeF"] {
            assert!(!secret.is(wrong.as_bytes()), "{wrong}");
        }
        assert!(secret.is(format!("{text}\n").trim().as_bytes()));
        assert_eq!(format!("{secret:?}"), "InternalSecret(…)");
    }

    #[test]
    fn short_or_broken_secrets_are_refused() {
        for bad in ["short", "0123456789abcdef 0123456789abcdef", "\u{7f}"] {
            assert!(InternalSecret::new(bad).is_err(), "{bad}");
        }
    }
}
