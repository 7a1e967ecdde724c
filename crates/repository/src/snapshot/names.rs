//! What components, documents and a snapshot's objects are called.

use crate::error::{Error, Result};

const PREFIX: &str = "snapshots/";
const COMPONENT_BYTES_MAX: usize = 40;
const DOCUMENT_BYTES_MAX: usize = 1000;

/// `snapshots/<component>/<snapshot id>/`
pub(crate) fn prefix_of(component: &str, id: &str) -> String {
    format!("{PREFIX}{component}/{id}/")
}

/// The same without the last `/`: what pack lists lie below.
pub(crate) fn folder_of(component: &str, id: &str) -> String {
    format!("{PREFIX}{component}/{id}")
}

pub(crate) fn manifest_of(component: &str, id: &str) -> String {
    format!("{PREFIX}{component}/{id}/manifest")
}

/// The component and the id of an object below `snapshots/`.
pub(crate) fn place_of(object: &str) -> Option<(&str, &str)> {
    let (component, rest) = object.strip_prefix(PREFIX)?.split_once('/')?;
    let (id, _) = rest.split_once('/')?;
    Some((component, id))
}

/// `[a-z][a-z0-9_]*`
pub fn check_component(component: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let begins = component
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase());
    if begins && component.len() <= COMPONENT_BYTES_MAX && component.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{component:?} is no component: its name is lower-case letters, digits and _, at most {COMPONENT_BYTES_MAX}"
    )))
}

/// A relative path that leads nowhere else: what a restore may write below a folder.
pub fn check_document(name: &str) -> Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if name.len() <= DOCUMENT_BYTES_MAX
        && name.split('/').all(plain)
        && !name.chars().any(char::is_control)
    {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{name:?} is no name of a document: a relative path without . and .., at most {DOCUMENT_BYTES_MAX} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["a", "settings/bre.toml", "a.b/..c", "ü"] {
            assert!(check_document(name).is_ok(), "{name}");
        }
        let long = "x".repeat(1001);
        for name in [
            "", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", "a\nb", &long,
        ] {
            assert!(check_document(name).is_err(), "{name}");
        }
        for component in ["configuration", "audit_log", "k8s"] {
            assert!(check_component(component).is_ok(), "{component}");
        }
        for component in ["", "A", "1a", "a.b", "a/b", "a-b", "é", &"a".repeat(41)] {
            assert!(check_component(component).is_err(), "{component}");
        }
    }
}
