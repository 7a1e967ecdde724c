//! `[repository_key]` and `[audit_key]`: what a new key shall be.

use std::path::PathBuf;

use serde::Deserialize;

/// What a new key to the repository shall be: at the very first start, and whenever it is rotated. Which one is in use
/// stands in DIR/keys/recipient.pub.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositoryKey {
    pub provider: KeyProvider,
    /// An ARN, an id or an alias.
    pub kms_key: Option<String>,
    /// Where the key is; an ARN says so itself.
    pub region: Option<String>,
    /// Another server than Amazon's, or a private way to it.
    pub endpoint: Option<String>,
    pub profile: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub pkcs11: Option<Pkcs11Key>,
}

/// `[repository_key.pkcs11]`: an RSA key pair inside a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Key {
    /// The library that speaks to the token.
    pub module: PathBuf,
    /// Labels of the token, and of the key pair in it.
    pub token: String,
    pub object: String,
    /// Holds the PIN; mode 0600.
    pub pin_file: PathBuf,
}

/// Who keeps the key that reads.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum KeyProvider {
    /// A file in DIR/keys.
    #[default]
    File,
    Kms,
    Pkcs11,
}
