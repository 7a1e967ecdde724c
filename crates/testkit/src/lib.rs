//! Throw-away PostgreSQL, Redis and S3 servers for tests: each in a temporary folder, stopped (by its own process id) when
//! dropped.
//!
//! Entry points: [`TestPostgres::start`], [`TestPostgres::builder`], [`TestRedis::start`], [`TestS3::start`],
//! [`S3Proxy::to`], [`TestAws::start`]; [`eventually`] waits, [`skip!`] says what is not tested. Everything panics on
//! failure: a test has nothing better to do.
//!
//! Absent: anything a product path needs; starting servers for real lives in `postgres_physical::server`.

mod authority;
mod aws;
mod kms;
mod kubernetes;
pub mod odd;
mod pgbouncer;
mod postgres;
mod redis;
mod s3;
mod s3_proxy;
mod skipping;
mod template;
mod waiting;

pub use authority::{Authority, IssuedCertificate, KeyKind, base64};
pub use aws::{TestAws, aws_client, on_path, terraform};
pub use kms::{moto_kms, moto_kms_key};
pub use kubernetes::{CLOSED_NAMESPACE, KubernetesApi};
pub use pgbouncer::TestPgBouncer;
pub use postgres::{Builder, TestPostgres, postgres_17_or_newer};
pub use redis::{TestRedis, valkey_server};
pub use s3::{TestS3, moto_server};
pub use s3_proxy::{S3Proxy, Weather};
pub use skipping::skipped;
pub use waiting::{answered_async, eventually, eventually_async, within};

use std::path::{Path, PathBuf};

/// A temporary folder that the server's account may enter.
fn open_folder(prefix: &str) -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .expect("a temporary folder");
    open_up(dir.path());
    dir
}

/// Where `scripts/` put what tests need, outside the clone.
fn cache_folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join("borrow-rate-engine")
}

fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
        .expect("mode of a temporary folder");
}

/// A loopback port nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
