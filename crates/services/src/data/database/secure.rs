//! TLS for the SQL client: rustls beneath `tokio_postgres`, as the connection string demands it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use connection::{Address, Tls, TlsError};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// One connection's handshake; without TLS it is never asked for.
#[derive(Debug, Clone)]
pub(super) struct Handshake {
    pub(super) tls: Option<Tls>,
    pub(super) address: Address,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("no TLS was asked for")]
    NotAsked,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl<S> MakeTlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = SecuredStream<S>;
    type TlsConnect = Handshake;
    type Error = HandshakeError;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Handshake, HandshakeError> {
        Ok(self.clone())
    }
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = SecuredStream<S>;
    type Error = HandshakeError;
    type Future = BoxFuture<'static, Result<SecuredStream<S>, HandshakeError>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let tls = self.tls.ok_or(HandshakeError::NotAsked)?;
            let name = tls.server_name(&self.address)?;
            let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
            let stream = connector.connect(name, stream).await?;
            let binding = tls.binding(stream.get_ref().1.peer_certificates())?;
            Ok(SecuredStream { stream, binding })
        })
    }
}

#[derive(Debug)]
pub(super) struct SecuredStream<S> {
    stream: tokio_rustls::client::TlsStream<S>,
    binding: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for SecuredStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SecuredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SecuredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
