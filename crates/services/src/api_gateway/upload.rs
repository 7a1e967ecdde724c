//! Long bodies: hashed as they come, on disk beyond a size, and never slower than a pace.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::errors::ApiError;
use crate::book::hex;

/// A body up to this size stays in memory.
const MEMORY_BYTES_MAX: usize = 1 << 20;
/// Of all bodies that are on disk at one time.
const DISK_BYTES_MAX: u64 = 4 << 30;
/// A body is refused that is slower than this over a window.
pub(super) const PACE: Pace = Pace {
    bytes: 30 * (16 << 10),
    window: Duration::from_secs(30),
};

/// How many bytes must come in each window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) bytes: u64,
    pub(super) window: Duration,
}

/// Looked at whenever nothing is there to be read: who sends faster than it is read is not slow.
#[derive(Debug)]
struct Window {
    pace: Pace,
    end: Instant,
    /// Bytes that had come when it began.
    before: u64,
}

impl Window {
    fn new(pace: Pace, now: Instant) -> Window {
        Window {
            pace,
            end: now + pace.window,
            before: 0,
        }
    }

    /// It is over; was it fast enough?
    fn next(&mut self, received: u64, now: Instant) -> Result<(), ApiError> {
        let Pace { bytes, window } = self.pace;
        if received - self.before < bytes {
            return Err(ApiError::unreadable_body(format!(
                "the body came slower than {bytes} bytes in {} seconds",
                window.as_secs()
            )));
        }
        self.before = received;
        self.end = now + window;
        Ok(())
    }
}

/// Room that bodies of all clients take on disk.
#[derive(Debug, Default)]
pub(super) struct Room(AtomicU64);

/// A part of it; free again when dropped.
#[derive(Debug)]
struct RoomShare {
    room: Arc<Room>,
    bytes: u64,
}

impl RoomShare {
    fn more(&mut self, bytes: u64) -> Result<(), ApiError> {
        let before = self.room.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        match before + bytes > DISK_BYTES_MAX {
            true => Err(ApiError::Unavailable {
                part: "api-gateway",
                detail: "too many books are being sent at once; send this one again later"
                    .to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl Drop for RoomShare {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) content: Content,
    pub(super) sha256: String,
    _taken: RoomShare,
}

#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes),
    /// A file without a name.
    Disk(File),
}

/// Reads the body to its end, or says why not.
pub(super) async fn receive(
    mut body: Body,
    bytes_max: usize,
    pace: Pace,
    spool: &Path,
    room: &Arc<Room>,
) -> Result<Upload, ApiError> {
    let mut hash = Context::new(&SHA256);
    let mut taken = RoomShare {
        room: Arc::clone(room),
        bytes: 0,
    };
    let mut memory = Vec::new();
    let mut disk: Option<tokio::fs::File> = None;
    let mut received: u64 = 0;
    let mut window = Window::new(pace, Instant::now());
    loop {
        let frame = match tokio::time::timeout_at(window.end, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                return Err(ApiError::unreadable_body("the body ended early"));
            }
            Err(_) => {
                window.next(received, Instant::now())?;
                continue;
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        hash.update(&data);
        received += data.len() as u64;
        if received > bytes_max as u64 {
            return Err(ApiError::PayloadTooLarge { bytes_max });
        }
        if let Some(file) = &mut disk {
            taken.more(data.len() as u64)?;
            file.write_all(&data).await.map_err(no_room)?;
        } else if memory.len() + data.len() > MEMORY_BYTES_MAX {
            let mut file =
                tokio::fs::File::from_std(tempfile::tempfile_in(spool).map_err(no_room)?);
            taken.more(received)?;
            file.write_all(&memory).await.map_err(no_room)?;
            file.write_all(&data).await.map_err(no_room)?;
            memory = Vec::new();
            disk = Some(file);
        } else {
            memory.extend_from_slice(&data);
        }
    }
    let content = match disk {
        Some(mut file) => {
            file.flush().await.map_err(no_room)?;
            Content::Disk(file.into_std().await)
        }
        None => Content::Memory(memory.into()),
    };
    Ok(Upload {
        content,
        sha256: hex(hash.finish().as_ref()),
        _taken: taken,
    })
}

fn no_room(error: std::io::Error) -> ApiError {
    ApiError::Unavailable {
        part: "api-gateway",
        detail: format!("the body cannot be kept: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use futures_util::stream;

    use super::*;

    /// A byte now and then, and no end.
    fn drips() -> Body {
        let pieces = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        Body::from_stream(pieces)
    }

    async fn received(body: Body, bytes_max: usize, pace: Pace) -> Result<Upload, ApiError> {
        let room = Arc::default();
        let received = receive(body, bytes_max, pace, &std::env::temp_dir(), &room).await;
        if received.is_err() {
            assert_eq!(room.0.load(Ordering::Relaxed), 0);
        }
        received
    }

    #[tokio::test]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        let pace = Pace {
            bytes: 1 << 20,
            window: Duration::from_millis(20),
        };
        let slow = received(drips(), 1 << 30, pace).await;
        assert!(
            matches!(slow, Err(ApiError::UnreadableBody { .. })),
            "{slow:?}"
        );
    }

    #[test]
    fn every_window_has_to_be_fast_enough() {
        let began = Instant::now();
        let mut window = Window::new(PACE, began);
        assert_eq!(window.end, began + Duration::from_secs(30));
        assert!(window.next(480 << 10, window.end).is_ok());
        assert_eq!(window.end, began + Duration::from_secs(60));
        // What came before does not count again.
        let later = window.end + Duration::from_secs(5);
        assert!(window.next((960 << 10) - 1, window.end).is_err());
        assert!(window.next(960 << 10, later).is_ok());
        assert_eq!(window.end, later + Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_long_body_is_on_disk_and_a_short_one_in_memory() {
        let short = received(Body::from("ticker"), 10, PACE).await.unwrap();
        assert!(matches!(&short.content, Content::Memory(bytes) if &bytes[..] == b"ticker"));
        let long = vec![7; MEMORY_BYTES_MAX + 1];
        let upload = received(Body::from(long.clone()), long.len(), PACE)
            .await
            .unwrap();
        let Content::Disk(file) = &upload.content else {
            panic!("{upload:?}");
        };
        let mut read = vec![0; long.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, long);
        assert_eq!(upload._taken.bytes, long.len() as u64);
        let longer = received(Body::from(long.clone()), long.len() - 1, PACE).await;
        assert!(matches!(longer, Err(ApiError::PayloadTooLarge { .. })));
    }
}
