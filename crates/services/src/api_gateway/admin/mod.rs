//! `/api/v1/admin/…`: for operators' tokens only.

pub(crate) mod clients;
pub(crate) mod keys;
pub(crate) mod standards;
pub(crate) mod stocks;

use super::middleware::Caller;

/// Who did it, for the record.
pub(super) fn by(caller: &Caller) -> String {
    let key = &caller.0.stored;
    format!("operator {} ({})", key.client_id, key.key_id)
}
