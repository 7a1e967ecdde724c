//! Certificates and keys from files, and the check of a server's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::{Roots, TlsError, TlsMode};

/// The authorities to trust, and their certificates as they stand in the file.
pub(crate) fn read_roots(
    roots: &Roots,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut store = RootCertStore::empty();
    let named: Vec<CertificateDer<'static>> = match roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(TlsError::NoSystemRoots);
            }
            Vec::new()
        }
        Roots::File(path) => {
            let certificates = read_certificates(path, "sslrootcert")?;
            // One that cannot be read beside others that can is as good as absent: what it signed will be refused.
            let (added, _) = store.add_parsable_certificates(certificates.iter().cloned());
            if added == 0 {
                return Err(TlsError::file(
                    "sslrootcert",
                    path,
                    "no certificate in it can be used",
                ));
            }
            certificates
        }
    };
    Ok((store, named))
}

fn read_certificates(
    path: &Path,
    name: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |error: rustls::pki_types::pem::Error| TlsError::file(name, path, error.to_string());
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(fail)?.collect();
    let certificates = certificates.map_err(fail)?;
    if certificates.is_empty() {
        return Err(TlsError::file(name, path, "it holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// The client's chain and key.
pub(crate) fn read_identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = read_certificates(certificate, "sslcert")?;
    let text = secrets::read(key).map_err(|error| TlsError::file("sslkey", key, error.reason()))?;
    if text.windows(9).any(|window| window == b"ENCRYPTED") {
        let reason = "it is encrypted, which is not supported. Decrypt it: openssl pkey -in KEY -out PLAIN, mode 0600";
        return Err(TlsError::file("sslkey", key, reason));
    }
    let key_der = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        TlsError::file(
            "sslkey",
            key,
            "it holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)",
        )
    })?;
    Ok((chain, key_der))
}

/// Judges as `sslmode` says.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) mode: TlsMode,
    pub(crate) roots: RootCertStore,
    /// The certificates of the file: one that a server shows itself is trusted as it is, as libpq does with self-signed
    /// ones.
    pub(crate) named: Vec<CertificateDer<'static>>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl Judge {
    fn signed(
        &self,
        parsed: &ParsedCertificate<'_>,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.named.iter().any(|named| named == certificate) {
            return valid_at(certificate, now);
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )
    }
}

fn valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.mode.verifies() {
            let parsed = ParsedCertificate::try_from(certificate)?;
            self.signed(&parsed, certificate, intermediates, now)?;
            if self.mode == TlsMode::VerifyFull {
                verify_server_name(&parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
