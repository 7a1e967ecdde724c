//! Keys that never leave AWS KMS, or a server with the same API. Why it is built this way:
//! `docs/decisions/0055-kms-as-a-key-provider.md`.
//!
//! Entry points: [`KmsKey::open`], which makes no call; [`resolve`], which finds the ARN behind an alias. A host that
//! writes needs `kms:GenerateDataKey`, one that reads `kms:Decrypt`, a rotation also `kms:Encrypt` on the new key.
//!
//! Absent: to create, rotate, disable or delete keys: that belongs to the keys' administrator.

mod ask;
mod location;
mod trouble;

use std::sync::Arc;

use repository::keys::{
    DataKeySecret, KeyError, KeyTrouble, RecipientPrivate, UnwrapKeys, WrapBinding, WrapHeader,
    WrapKeys, WrapSuite, named_recipient_id, named_wrap, open_named_wrap,
};
use zeroize::Zeroizing;

use ask::Asker;
pub use location::{KMS_LINE, KmsAccess, KmsLocation, LocationError};

/// One key to write with, and with it the way to every other key of this KMS: wraps name the key that they need.
#[derive(Debug)]
pub struct KmsKey {
    location: KmsLocation,
    asker: Asker,
}

impl KmsKey {
    #[must_use]
    pub fn open(location: KmsLocation) -> Arc<Self> {
        Arc::new(Self {
            asker: Asker::new(location.access.clone()),
            location,
        })
    }

    /// As the repository knows keys that read.
    #[must_use]
    pub fn recipient(self: &Arc<Self>) -> RecipientPrivate {
        RecipientPrivate::of(Arc::clone(self))
    }

    #[must_use]
    pub fn location(&self) -> &KmsLocation {
        &self.location
    }

    /// After how many days KMS itself replaces the key's material; none where it does not. It takes
    /// `kms:GetKeyRotationStatus`.
    ///
    /// # Errors
    /// What KMS answered instead, or that it is away.
    pub fn rotation_period_days(&self) -> Result<Option<u32>, KeyError> {
        self.asker.rotation_period_days(&self.location.arn)
    }

    fn failed(&self, trouble: KeyTrouble) -> KeyError {
        KeyError {
            key: self.location.arn.clone(),
            trouble,
        }
    }

    fn sealed_by_it(&self, by: Option<&str>) -> Result<(), KeyError> {
        if by == Some(self.location.arn.as_str()) {
            return Ok(());
        }
        Err(self.failed(KeyTrouble::Failed {
            what: format!(
                "KMS answered with another key, {}",
                by.unwrap_or("which it did not name")
            ),
        }))
    }
}

/// The ARN of the key that an id, an alias or an ARN means now. It takes `kms:GenerateDataKey`, which a writer needs
/// anyway, so that a missing permission is told here and not by the first backup.
pub fn resolve(
    key: &str,
    region: Option<&str>,
    access: KmsAccess,
) -> Result<KmsLocation, KeyError> {
    let trouble = |what: String| KeyError {
        key: key.to_owned(),
        trouble: KeyTrouble::Failed { what },
    };
    access.check().map_err(|error| trouble(error.to_string()))?;
    let arn = Asker::new(access.clone()).resolve(key, region)?;
    let location = KmsLocation { arn, access };
    let line = location.to_string();
    line.parse()
        .map_err(|error: LocationError| trouble(error.to_string()))
}

impl WrapKeys for KmsKey {
    fn recipient_id(&self) -> String {
        named_recipient_id(WrapSuite::Kms, &self.location.arn)
    }

    fn name(&self) -> String {
        self.location.arn.clone()
    }

    fn line(&self) -> String {
        self.location.to_string()
    }

    fn wrap(&self, binding: &WrapBinding, secret: &DataKeySecret) -> Result<Vec<u8>, KeyError> {
        let arn = &self.location.arn;
        let sealed = self.asker.encrypt(arn, binding, secret)?;
        self.sealed_by_it(sealed.key.as_deref())?;
        Ok(named_wrap(WrapSuite::Kms, binding, arn, &sealed.bytes))
    }

    /// KMS makes the data key: the host that writes may have `kms:GenerateDataKey` and nothing else.
    fn generate(&self, binding: &WrapBinding) -> Result<(DataKeySecret, Vec<u8>), KeyError> {
        let arn = &self.location.arn;
        let (plain, sealed) = self.asker.generate(arn, binding)?;
        self.sealed_by_it(sealed.key.as_deref())?;
        let secret = self.of_32_bytes(&plain)?;
        let wrap = named_wrap(WrapSuite::Kms, binding, arn, &sealed.bytes);
        Ok((secret, wrap))
    }
}

impl UnwrapKeys for KmsKey {
    fn recipient_id(&self) -> String {
        WrapKeys::recipient_id(self)
    }

    fn opens(&self, wrap: &WrapHeader) -> bool {
        wrap.suite == WrapSuite::Kms
    }

    fn unwrap(&self, binding: &WrapBinding, wrap: &[u8]) -> Result<DataKeySecret, KeyError> {
        let wrap = open_named_wrap(WrapSuite::Kms, binding, wrap)?;
        let plain = self
            .asker
            .decrypt(wrap.key_name, &wrap.binding, wrap.sealed)?;
        self.of_32_bytes(&plain)
    }
}

impl KmsKey {
    fn of_32_bytes(&self, plain: &Zeroizing<Vec<u8>>) -> Result<DataKeySecret, KeyError> {
        let secret: Option<[u8; 32]> = plain.as_slice().try_into().ok();
        secret.map(Zeroizing::new).ok_or_else(|| {
            self.failed(KeyTrouble::Wrong {
                what: format!("{} bytes are no data key", plain.len()),
            })
        })
    }
}
