//! Who can have data keys sealed to them. Today a key pair of ours; a KMS follows with a suite number and a wrap of its own, as another
//! implementation of these two.

use super::{DataKey, DataKeyId};
use crate::error::Result;

/// The writing side: can seal, cannot open.
pub(crate) trait WrapKeys {
    /// 32 hex digits, the last part of a wrap's name.
    fn recipient_id(&self) -> String;
    fn wrap(&self, key: &DataKey) -> Result<Vec<u8>>;
}

/// The reading side. Mirror of [`WrapKeys`].
pub(crate) trait UnwrapKeys: Send + Sync + std::fmt::Debug {
    fn recipient_id(&self) -> String;
    /// `object` is the wrap's name.
    fn unwrap(&self, object: &str, id: DataKeyId, wrap: &[u8]) -> Result<DataKey>;
}

pub(crate) fn wrap_name(id: DataKeyId, recipient_id: &str) -> String {
    format!("wraps/{id}/{recipient_id}")
}
