//! A head with its signature, and the JSON object that stores it (format §5).

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::head::{Head, HeadError};
use crate::hex;
use crate::keys::{self, KeyId, Refusal, SignedPlace, SigningKey, VerifyingKey};
use crate::opening::LostHead;

const FORMAT: &str = "bre-audit-head-1";

/// Reading one proves nothing: only [`SignedHead::verify`] hands out a [`Head`] to rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    claimed: Head,
    key_id: KeyId,
    payload: Vec<u8>,
    signature: [u8; 64],
    link: Option<Link>,
}

/// The head that was published before this one, and that its signer says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    previous: LostHead,
    signature: [u8; 64],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkJson {
    epoch: u32,
    size: u64,
    last_hash: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Json {
    format: String,
    log: u16,
    epoch: u32,
    size: u64,
    last_hash: String,
    root: String,
    at_micros: i64,
    lsn: String,
    key_id: String,
    payload: String,
    signature: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<LinkJson>,
}

/// What is signed of a link (format §5).
fn link_bytes(payload: &[u8], previous: &LostHead) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(82);
    bytes.extend_from_slice(b"BREL");
    bytes.extend_from_slice(&1_u16.to_be_bytes());
    bytes.extend_from_slice(Hash::of(&[payload]).as_bytes());
    bytes.extend_from_slice(&previous.epoch.to_be_bytes());
    bytes.extend_from_slice(&previous.size.to_be_bytes());
    bytes.extend_from_slice(previous.hash.as_bytes());
    bytes
}

impl SignedHead {
    pub(crate) fn from_parts(
        claimed: Head,
        key_id: KeyId,
        payload: Vec<u8>,
        signature: [u8; 64],
    ) -> SignedHead {
        SignedHead {
            claimed,
            key_id,
            payload,
            signature,
            link: None,
        }
    }

    /// With a link to the head that was published before it, by the key that signed this one.
    #[must_use]
    pub fn after(mut self, previous: LostHead, key: &SigningKey) -> SignedHead {
        let signature = key.sign_bytes(&link_bytes(&self.payload, &previous));
        self.link = Some(Link {
            previous,
            signature,
        });
        self
    }

    /// As it is in a proof.
    #[must_use]
    pub fn without_link(mut self) -> SignedHead {
        self.link = None;
        self
    }

    /// The head that was published before it, as its link says; of older engines there is none.
    pub fn previous(&self) -> Option<LostHead> {
        self.link.as_ref().map(|link| link.previous)
    }

    /// What the payload says, not verified: for choosing names and for messages.
    pub fn claimed(&self) -> &Head {
        &self.claimed
    }

    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Checks the signature against whichever of the trusted keys the head names.
    pub fn verify(&self, keys: &[VerifyingKey]) -> Result<Head, HeadError> {
        let (log, epoch, size, key_id) = (
            self.claimed.log,
            self.claimed.epoch,
            self.claimed.size,
            self.key_id,
        );
        let place = SignedPlace::Log {
            epoch,
            position: size,
        };
        let accept = |bytes: &[u8], signature| keys::accept(keys, key_id, bytes, signature, place);
        let linked = match &self.link {
            Some(link) => accept(&link_bytes(&self.payload, &link.previous), &link.signature),
            None => Ok(()),
        };
        // A false signature is worse than a late one.
        let signed = accept(&self.payload, &self.signature);
        let refusal = match (linked, signed) {
            (Err(Refusal::False), _) => Err(Refusal::False),
            (linked, signed) => signed.and(linked),
        };
        refusal.map_err(|refusal| match refusal {
            Refusal::UnknownKey => HeadError::UnknownKey {
                log,
                epoch,
                size,
                key_id,
            },
            Refusal::False => HeadError::Signature {
                log,
                epoch,
                size,
                key_id,
            },
            Refusal::Revoked(from) => HeadError::Revoked {
                log,
                epoch,
                size,
                key_id,
                from,
            },
        })?;
        Ok(self.claimed.clone())
    }

    /// One JSON object with a line end, for people as well.
    pub fn to_json(&self) -> Vec<u8> {
        let json = Json::of(self);
        // Strings and integers only: there is nothing here that serde_json could fail on.
        let mut bytes = serde_json::to_vec_pretty(&json).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub fn from_json(bytes: &[u8]) -> Result<SignedHead, HeadError> {
        let json: Json =
            serde_json::from_slice(bytes).map_err(|e| HeadError::Json(e.to_string()))?;
        SignedHead::from_fields(json)
    }

    pub(crate) fn from_fields(json: Json) -> Result<SignedHead, HeadError> {
        if json.format != FORMAT {
            return Err(HeadError::Json(format!("its format is {:?}", json.format)));
        }
        let payload = hex::decode(&json.payload).map_err(|source| bad_hex("payload", source))?;
        let signature =
            hex::decode_array(&json.signature).map_err(|source| bad_hex("signature", source))?;
        let (claimed, key_id) = Head::parse(&payload)?;
        let mut signed = SignedHead::from_parts(claimed, key_id, payload, signature);
        signed.link = json.previous.as_ref().map(read_link).transpose()?;
        json.agree_with(&Json::of(&signed))?;
        Ok(signed)
    }
}

fn read_link(json: &LinkJson) -> Result<Link, HeadError> {
    let hash = hex::decode_array(&json.last_hash).map_err(|source| bad_hex("previous", source))?;
    let signature =
        hex::decode_array(&json.signature).map_err(|source| bad_hex("previous", source))?;
    Ok(Link {
        previous: LostHead {
            epoch: json.epoch,
            size: json.size,
            hash: Hash::from_bytes(hash),
        },
        signature,
    })
}

fn bad_hex(field: &'static str, source: hex::HexError) -> HeadError {
    HeadError::Hex { field, source }
}

impl Json {
    pub(crate) fn of(signed: &SignedHead) -> Json {
        let head = &signed.claimed;
        Json {
            format: FORMAT.to_owned(),
            log: head.log,
            epoch: head.epoch,
            size: head.size,
            last_hash: head.last_hash.to_string(),
            root: head.root.to_string(),
            at_micros: head.at_micros,
            lsn: lsn_text(head.lsn),
            key_id: signed.key_id.to_string(),
            payload: hex::encode(&signed.payload),
            signature: hex::encode(&signed.signature),
            previous: signed.link.as_ref().map(|link| LinkJson {
                epoch: link.previous.epoch,
                size: link.previous.size,
                last_hash: link.previous.hash.to_string(),
                signature: hex::encode(&link.signature),
            }),
        }
    }

    fn agree_with(&self, payload: &Json) -> Result<(), HeadError> {
        let copies = [
            ("log", self.log.to_string(), payload.log.to_string()),
            ("epoch", self.epoch.to_string(), payload.epoch.to_string()),
            ("size", self.size.to_string(), payload.size.to_string()),
            (
                "last_hash",
                self.last_hash.clone(),
                payload.last_hash.clone(),
            ),
            ("root", self.root.clone(), payload.root.clone()),
            (
                "at_micros",
                self.at_micros.to_string(),
                payload.at_micros.to_string(),
            ),
            ("lsn", self.lsn.clone(), payload.lsn.clone()),
            ("key_id", self.key_id.clone(), payload.key_id.clone()),
        ];
        for (field, says, payload) in copies {
            if says != payload {
                return Err(HeadError::CopyDisagrees {
                    field,
                    says,
                    payload,
                });
            }
        }
        Ok(())
    }
}

/// As PostgreSQL prints it.
pub(crate) fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}
