//! The peer "same server without audit": our own gateway, calculation and settings as `bre up` runs them (HTTP server,
//! middleware, key, limit, validation, market view, price, JSON answer of the same fields), in a process of its own,
//! reading keys and market from the database of the instance it is compared with. Left out is the record and nothing
//! else: no canonical entry is made, there is no writer, no commit, no WAL, and so no stream. What is left out is
//! `services::Services::start_unrecorded`.

use std::{sync::Arc, time::Duration};

use services::{
    DatabaseConfig, Elsewhere, RequestsPerMinute, ServiceSet, Services, ServicesConfig, Settings,
    StreamHealth, StreamReport,
};

use crate::system::Result;

#[derive(Debug)]
struct NoStream;

impl StreamHealth for NoStream {
    fn report(&self) -> StreamReport {
        StreamReport::default()
    }
}

/// Serves until it is ended.
pub(crate) async fn serve(database_url: &str) -> Result<()> {
    let many = 1_000_000_000;
    let settings = Settings {
        requests_per_minute: RequestsPerMinute {
            standard: many,
            premium: many,
            internal: many,
        },
        ..Settings::default()
    };
    let running = Services::start_unrecorded(ServicesConfig {
        services: ServiceSet::all(),
        elsewhere: Elsewhere::default(),
        database: DatabaseConfig {
            owner: database_url.to_owned(),
            service: database_url.to_owned(),
        },
        redis: None,
        public: Some(tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?),
        internal: None,
        control: None,
        audit: None,
        stream: Arc::new(NoStream),
        strict: false,
        settings,
        sample: None,
    })
    .await?;
    running.wait_ready(Duration::from_secs(30)).await?;
    let address = running.address().ok_or("it does not listen")?;
    crate::say(&address.to_string());
    std::future::pending().await
}
