//! TLS as a connection string demands it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::binding::server_end_point;
use crate::certificates::{Judge, read_identity, read_roots};
use crate::options::{Address, ConnectOptions, Host};

/// `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// TLS where the server offers it. Also what `allow` means here: it promises nothing that this does not give. A
    /// handshake that fails is an error all the same, and no reason for plain text.
    #[default]
    Prefer,
    /// TLS or nothing; whose certificate it is, is not looked at unless `sslrootcert` names who may have signed it.
    Require,
    VerifyCa,
    VerifyFull,
}

impl TlsMode {
    pub(crate) fn parse(text: &str) -> Option<TlsMode> {
        Some(match text {
            "disable" => TlsMode::Disable,
            "allow" | "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }

    /// Plain text is out of the question.
    pub fn demands(self) -> bool {
        matches!(
            self,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull
        )
    }

    pub(crate) fn verifies(self) -> bool {
        matches!(self, TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

/// `channel_binding`: whether SCRAM is tied to the server's certificate, so that nobody in between can pass it on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

impl ChannelBinding {
    pub(crate) fn parse(text: &str) -> Option<ChannelBinding> {
        Some(match text {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Prefer => "prefer",
            ChannelBinding::Require => "require",
        }
    }
}

/// `sslrootcert`: who may have signed a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    System,
    File(PathBuf),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    pub mode: TlsMode,
    /// `sslnegotiation=direct`: TLS from the first byte on (PostgreSQL 17 and newer).
    pub direct: bool,
    pub roots: Option<Roots>,
    /// The client's own, PEM.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub channel_binding: ChannelBinding,
}

/// Why TLS cannot be spoken as demanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("{name} {}: {reason}", path.display())]
    File {
        name: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error(
        "sslrootcert=system: this system has no certificates of authorities; install ca-certificates, or name a file"
    )]
    NoSystemRoots,
    #[error("{0:?} is not a name that a certificate can have")]
    Name(String),
    #[error("the server offers no TLS, and sslmode={0} demands it; nothing was sent in plain text")]
    NotOffered(&'static str),
    #[error("the server answered the request for TLS with something else")]
    Answer,
    #[error(
        "channel_binding=require: the signature of the server's certificate (Ed25519, for one) has no digest to bind \
         with; give the server an RSA or ECDSA certificate"
    )]
    NoBinding,
    #[error("no channel binding, which channel_binding=require demands: {0}; no password was sent")]
    NotBound(&'static str),
    #[error("TLS cannot be set up: {0}")]
    Rustls(String),
}

impl TlsError {
    pub(crate) fn file(name: &'static str, path: &Path, reason: impl Into<String>) -> TlsError {
        TlsError::File {
            name,
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// What a client needs to speak TLS; its files were read just now.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub mode: TlsMode,
    pub direct: bool,
    pub channel_binding: ChannelBinding,
}

/// What PostgreSQL 17 and newer call their protocol; older ones do not ask.
const PROTOCOL: &[u8] = b"postgresql";

impl ConnectOptions {
    /// Reads the files, at each connect, so that renewed ones are seen. `None`: plain text is what was asked for, or
    /// there is nothing but unix sockets, which never leave the machine.
    pub fn tls(&self) -> Result<Option<Tls>, TlsError> {
        let local = |address: &Address| matches!(address.host, Host::Unix(_));
        if self.tls.mode == TlsMode::Disable || self.addresses.iter().all(local) {
            return Ok(None);
        }
        // As libpq does: who names authorities wants the certificate to be of one of them.
        let mode = match (self.tls.mode, &self.tls.roots) {
            (TlsMode::Require, Some(_)) => TlsMode::VerifyCa,
            (mode, _) => mode,
        };
        let roots = self.tls.roots.as_ref().filter(|_| mode.verifies());
        let (roots, named) = roots
            .map(read_roots)
            .transpose()?
            .unwrap_or_else(|| (rustls::RootCertStore::empty(), Vec::new()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let failed = |error: rustls::Error| TlsError::Rustls(error.to_string());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Judge {
                mode,
                roots,
                named,
                provider,
            }));
        let mut config = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => {
                let (chain, key_der) = read_identity(certificate, key)?;
                config
                    .with_client_auth_cert(chain, key_der)
                    .map_err(|error| TlsError::file("sslkey", key, error.to_string()))?
            }
            _ => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Some(Tls {
            config: Arc::new(config),
            mode: self.tls.mode,
            direct: self.tls.direct,
            channel_binding: self.tls.channel_binding,
        }))
    }
}

impl Tls {
    /// Whom the certificate is to be for.
    pub fn server_name(&self, address: &Address) -> Result<ServerName<'static>, TlsError> {
        let name = match &address.host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        // An absolute name's dot is not part of a certificate's.
        let plain = name.strip_suffix('.').unwrap_or(&name);
        ServerName::try_from(plain.to_owned()).map_err(|_| TlsError::Name(name))
    }

    /// To be called after the handshake: what SCRAM is to be bound to, if anything.
    pub fn binding(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<Option<Vec<u8>>, TlsError> {
        if self.channel_binding == ChannelBinding::Disable {
            return Ok(None);
        }
        let binding = certificates
            .and_then(<[_]>::first)
            .and_then(|certificate| server_end_point(certificate));
        match (binding, self.channel_binding) {
            (None, ChannelBinding::Require) => Err(TlsError::NoBinding),
            (binding, _) => Ok(binding),
        }
    }
}
