//! How far WAL went, by those who stream it.

use host::{control::Control, instance::Instance};
use repository::read_back::{Evidence, EvidenceSource};
use serde_json::Value;

use crate::{clusters, repository_handle::RepositorySelection};

/// What is known outside of the repository: a stream acknowledges only what the repository holds. Nothing where nobody can be asked.
pub fn known_elsewhere(instance: &Instance, selection: &RepositorySelection) -> Vec<Evidence> {
    if selection.repository.is_some() {
        return Vec::new();
    }
    if let Some(name) = &selection.cluster {
        let cluster = clusters::find(instance, name).ok();
        return cluster
            .and_then(|cluster| cluster.last_stream())
            .into_iter()
            .collect();
    }
    if !instance.is_locked() {
        return Vec::new();
    }
    let asked = host::runtime::wait(async {
        Control::to(instance)?
            .get::<Value>("/internal/status")
            .await
    });
    let durable = asked
        .ok()
        .and_then(|status| status["components"]["wal_stream"]["durable_lsn"].as_u64());
    let evidence = durable.map(|lsn| Evidence {
        source: EvidenceSource::Stream,
        object: None,
        timeline: None,
        epoch: 0,
        lsn,
        at_micros: jiff::Timestamp::now().as_microsecond(),
    });
    evidence.into_iter().collect()
}
