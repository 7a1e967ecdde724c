//! Channel binding of SCRAM to TLS: `tls-server-end-point` (RFC 5929).

use aws_lc_rs::digest::{self, Algorithm, SHA224, SHA256, SHA384, SHA512};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// What both ends hash of the server's certificate (DER): with the digest of the certificate's own signature, SHA-256
/// in place of MD5 and SHA-1. `None`: the signature has no digest of its own (Ed25519), and no binding is defined.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let digest = signature_digest(certificate)?;
    Some(digest::digest(digest, certificate).as_ref().to_vec())
}

fn signature_digest(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let signature = &parsed.signature_algorithm;
    if let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(signature)
    {
        return digest_of(&parameters.hash_algorithm_oid().to_id_string());
    }
    digest_of(&signature.algorithm.to_id_string())
}

/// By the identifier of a signature, or of a digest.
fn digest_of(oid: &str) -> Option<&'static Algorithm> {
    Some(match oid {
        // MD5 and SHA-1 with RSA, SHA-1 with DSA and ECDSA; the digests themselves.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10040.4.3"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.2.5"
        | "1.3.14.3.2.26" => &SHA256,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.2.4" => &SHA224,
        "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2"
        | "2.16.840.1.101.3.4.3.2"
        | "2.16.840.1.101.3.4.2.1" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => &SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(algorithm: &'static rcgen::SignatureAlgorithm) -> Option<usize> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        server_end_point(certificate.der()).map(|hash| hash.len())
    }

    #[test]
    fn the_certificates_own_digest() {
        assert_eq!(bytes(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(bytes(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(bytes(&rcgen::PKCS_ED25519), None);
        assert_eq!(server_end_point(b"no certificate"), None);
        let length = |oid| digest_of(oid).map(|digest: &Algorithm| digest.output_len);
        for weak in [
            "1.2.840.113549.1.1.4",
            "1.2.840.113549.1.1.5",
            "1.2.840.10045.4.1",
        ] {
            assert_eq!(length(weak), Some(32), "{weak}");
        }
        assert_eq!(length("1.2.840.113549.1.1.12"), Some(48));
        assert_eq!(length("1.2.840.113549.1.1.13"), Some(64));
    }
}
