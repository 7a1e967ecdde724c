//! TCP connections to the routes: with TLS where it is set up, with a limit to how slow a client may be, and drained at the end.
//! `axum::serve` has no such limits.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;
use crate::http_error_bodies::ErrorBodyStream;
use crate::peer::{Connection, HEAD_BYTES_MAX, HEADERS_MAX, Peer, WatchedStream};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an accept that failed: usually for want of file descriptors, which come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How connections are treated.
#[derive(Clone)]
pub(crate) struct ConnectionOptions {
    /// How long a client may take to send a request's head, or to think of the next one.
    pub(crate) head_timeout: Duration,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionOptions")
            .field("head_timeout", &self.head_timeout)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// Reads certificate chain and key once, at the start: what is wrong with them is said then.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&tls.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the TLS certificate is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("the TLS certificate file holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&tls.key)
        .map_err(|error| format!("the TLS key is not a PEM private key: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config =
        config.map_err(|error| format!("the TLS certificate and key do not work: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Ends when it is told to drain and every request that had begun is answered.
pub(crate) fn serve(
    listener: TcpListener,
    routes: Router,
    options: ConnectionOptions,
    mut drain: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Each connection holds a sender: the receiver ends when the last of them has.
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                biased;
                () = told(&mut drain) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    // Small answers are sent at once, not collected.
                    let _ = stream.set_nodelay(true);
                    let (routes, options) = (routes.clone(), options.clone());
                    let (drain, open) = (drain.clone(), open.clone());
                    tokio::spawn(async move {
                        connection((stream, Peer(address)), routes, options, drain).await;
                        drop(open);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((listener, open));
        let _ = all_closed.recv().await;
    })
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    routes: Router,
    options: ConnectionOptions,
    drain: watch::Receiver<bool>,
) {
    let (stream, connection) = WatchedStream::new(stream);
    let Some(tls) = &options.tls else {
        return requests(
            (stream, (peer, connection)),
            routes,
            options.head_timeout,
            drain,
        )
        .await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            requests(
                (stream, (peer, connection)),
                routes,
                options.head_timeout,
                drain,
            )
            .await
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn requests(
    (stream, (peer, connection)): (
        impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        (Peer, Connection),
    ),
    routes: Router,
    head_timeout: Duration,
    mut drain: watch::Receiver<bool>,
) {
    let routes = TowerToHyperService::new(routes);
    let with_peer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(connection.clone());
        routes.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        // A client that has said all it wants to say (`nc -N`) still listens: it gets its answer.
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(ErrorBodyStream::new(stream)), with_peer);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told(&mut drain) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Returns when it is time to drain.
async fn told(drain: &mut watch::Receiver<bool>) {
    let _ = drain.wait_for(|drain| *drain).await;
}
