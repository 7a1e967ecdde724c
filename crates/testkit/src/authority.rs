//! Certificates for servers and clients of tests.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    RsaKeySize, SignatureAlgorithm, date_time_ymd,
};

/// How an authority signs, and what keys it gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    RsaSha256,
    RsaSha384,
    EcdsaSha256,
    EcdsaSha384,
    Ed25519,
}

impl KeyKind {
    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            KeyKind::RsaSha256 => &rcgen::PKCS_RSA_SHA256,
            KeyKind::RsaSha384 => &rcgen::PKCS_RSA_SHA384,
            KeyKind::EcdsaSha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::EcdsaSha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }

    fn key(self) -> KeyPair {
        match self {
            // Dear to make: one serves all.
            KeyKind::RsaSha256 | KeyKind::RsaSha384 => {
                static RSA: OnceLock<String> = OnceLock::new();
                let pem = RSA.get_or_init(|| {
                    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
                        .expect("an RSA key")
                        .serialize_pem()
                });
                KeyPair::from_pkcs8_pem_and_sign_algo(pem, self.algorithm()).expect("the RSA key")
            }
            _ => KeyPair::generate_for(self.algorithm()).expect("a key"),
        }
    }
}

/// Signs certificates of others.
#[derive(Debug)]
pub struct Authority {
    kind: KeyKind,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str, kind: KeyKind) -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = kind.key();
        let certificate = parameters.self_signed(&key).expect("an authority");
        Authority {
            kind,
            certificate: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For a server of these names or addresses.
    pub fn server(&self, names: &[&str]) -> IssuedCertificate {
        self.issue(names, "server", false)
    }

    /// One whose time has been over for long, whatever the clock says.
    pub fn expired(&self, names: &[&str]) -> IssuedCertificate {
        self.issue(names, "server", true)
    }

    /// For a client that is to be known by this name.
    pub fn client(&self, name: &str) -> IssuedCertificate {
        self.issue(&[], name, false)
    }

    fn issue(&self, names: &[&str], common_name: &str, expired: bool) -> IssuedCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
        if expired {
            parameters.not_after = date_time_ymd(1980, 1, 1);
        }
        let key = self.kind.key();
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        IssuedCertificate {
            certificate: certificate.pem(),
            key: key_pem(self.kind, &key),
        }
    }
}

/// As servers read it: OpenSSL 3.0 knows Ed25519 keys of PKCS#8's first version only, in which nothing follows the private key.
fn key_pem(kind: KeyKind, key: &KeyPair) -> String {
    const FIRST: [u8; 16] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    if kind != KeyKind::Ed25519 {
        return key.serialize_pem();
    }
    let der = key.serialize_der();
    let text = base64(&[&FIRST[..], &der[FIRST.len()..FIRST.len() + 32]].concat());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

/// Without line breaks.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() {
                letter as char
            } else {
                '='
            });
        }
    }
    text
}
