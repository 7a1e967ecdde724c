//! hyper answers a head that it cannot read by itself, with a status and no words. This stands between it and the connection and
//! puts an answer like all others in its place. Whoever is refused may still be sending: the rest is read and thrown away, or the
//! cut connection would take the answer with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use uuid::Uuid;

use crate::api_gateway::{ApiError, FIXED_HEADERS};

/// How much, and for how long, of what a refused client still sends.
const REST_BYTES_MAX: u64 = 4 << 20;
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection on which every refusal has words. Ours all carry a request id; hyper's own do not.
#[derive(Debug)]
pub(crate) struct ErrorBodyStream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    /// Until it is dropped.
    stream: Option<S>,
    answer: Vec<u8>,
    written: usize,
    refused: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> ErrorBodyStream<S> {
    pub(crate) fn new(stream: S) -> ErrorBodyStream<S> {
        ErrorBodyStream {
            stream: Some(stream),
            answer: Vec::new(),
            written: 0,
            refused: false,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.stream.as_mut().map(Pin::new).ok_or_else(gone)
    }

    /// Whether `bytes` are hyper's own refusal, or ours in its place is still under way.
    fn takes_over(&mut self, bytes: &[u8]) -> bool {
        if self.answer.is_empty()
            && let Some(status) = bare_status(bytes)
        {
            self.answer = answer(status);
            self.written = 0;
            self.refused = true;
        }
        !self.answer.is_empty()
    }

    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        instead_of: usize,
    ) -> Poll<io::Result<usize>> {
        while self.written < self.answer.len() {
            let rest = self.answer.split_off(self.written);
            let wrote = self.stream()?.poll_write(context, &rest);
            self.answer.extend_from_slice(&rest);
            match ready!(wrote)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                wrote => self.written += wrote,
            }
        }
        self.answer.clear();
        Poll::Ready(Ok(instead_of))
    }
}

/// The status of an answer that says nothing, and that no handler of ours gave.
fn bare_status(bytes: &[u8]) -> Option<StatusCode> {
    let rest = bytes
        .strip_prefix(b"HTTP/1.1 4")
        .or_else(|| bytes.strip_prefix(b"HTTP/1.0 4"))?;
    let head = std::str::from_utf8(rest).ok()?;
    let (digits, _) = head.split_at_checked(2)?;
    let ours = head.contains("x-request-id: ");
    let empty = head.contains("content-length: 0\r\n") && head.ends_with("\r\n\r\n");
    let status = digits.parse::<u16>().ok()? + 400;
    (empty && !ours)
        .then(|| StatusCode::from_u16(status).ok())
        .flatten()
}

fn answer(status: StatusCode) -> Vec<u8> {
    let (_, content) = ApiError::of_head(status).content();
    let body = content.to_string();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for (name, value) in FIXED_HEADERS {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    let id = Uuid::now_v7();
    head += &format!("x-request-id: {id}\r\ncontent-type: application/json\r\n");
    head += &format!(
        "content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    metrics::counter!("bre_heads_refused_total").increment(1);
    tracing::debug!(request_id = %id, status = status.as_u16(), "a request's head was refused");
    head.into_bytes()
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for ErrorBodyStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for ErrorBodyStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.takes_over(bytes) {
            return self.poll_answer(context, bytes.len());
        }
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = parts.iter().find(|part| !part.is_empty());
        if let Some(first) = first
            && self.takes_over(first)
        {
            return self.poll_answer(context, first.len());
        }
        self.stream()?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for ErrorBodyStream<S> {
    fn drop(&mut self) {
        if let (true, Some(stream), Ok(runtime)) = (
            self.refused,
            self.stream.take(),
            tokio::runtime::Handle::try_current(),
        ) {
            runtime.spawn(discard_rest(stream));
        }
    }
}

async fn discard_rest(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let reading = async {
        let _ = stream.shutdown().await;
        let mut rest = stream.take(REST_BYTES_MAX);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let _ = tokio::time::timeout(REST_TIMEOUT, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_is_replaced() {
        let check = |text: &str, expected: Option<u16>| {
            let status = bare_status(text.as_bytes()).map(|status| status.as_u16());
            assert_eq!(status, expected, "{text:?}");
        };
        let date = "date: Mon, 23 Nov 2026 12:00:00 GMT\r\n\r\n";
        check(
            &format!(
                "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n{date}"
            ),
            Some(431),
        );
        check(
            &format!("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n{date}"),
            Some(400),
        );
        check(
            &format!("HTTP/1.1 404 Not Found\r\nx-request-id: 7\r\ncontent-length: 0\r\n{date}"),
            None,
        );
        check(
            &format!("HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n{date}"),
            None,
        );
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None);
        check("HTTP/1.1 4", None);
        check("{}", None);
    }
}
