//! Each boundary's far side: in this process, or at the other end of internal HTTP. The only place that knows which.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cache::{Cache, Seal};
use crate::calculation::{Calculation, Calculator};
use crate::config::{AuditConfig, ServicesConfig};
use crate::data::{AuditLog, HeadSigner, Writer, WriterConfig};
use crate::domain::protection::StreamHealth;
use crate::error::ServiceError;
use crate::market::{Market, MarketCache};
use crate::public_log::PublicLog;
use crate::remote::{Peer, Peers, RemoteAuditLog, RemoteCache, RemoteCalculation, WatchedPeer};
use crate::secret::InternalSecret;
use crate::service::Service;

/// A call may take a little longer than what it waits for, so that the innermost deadline is the one that is told.
const HOP: Duration = Duration::from_millis(250);

/// Services in other processes, as far as this one needs them.
#[derive(Debug)]
pub(crate) struct RemoteServices {
    calculation: Option<Arc<WatchedPeer>>,
    data: Option<Arc<WatchedPeer>>,
    cache: Option<Arc<WatchedPeer>>,
}

/// The record, and what is known of the stream that protects it.
pub(crate) struct AuditLogBackend {
    pub(crate) record: Arc<dyn AuditLog>,
    pub(crate) stream: Arc<dyn StreamHealth>,
    /// Where the log is written.
    pub(crate) local: Option<LocalData>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

pub(crate) struct LocalData {
    pub(crate) writer: Writer,
    pub(crate) writer_task: JoinHandle<()>,
    pub(crate) heads: Arc<HeadSigner>,
    pub(crate) public_log: Option<Arc<PublicLog>>,
}

impl RemoteServices {
    /// What is not here must be somewhere. The cache alone may be nowhere.
    pub(crate) fn of(config: &ServicesConfig) -> Result<RemoteServices, ServiceError> {
        let (here, elsewhere) = (&config.services, &config.elsewhere);
        let find = |service: Service, url: &Option<String>, demanded: bool| {
            if here.has(service) {
                return Ok(None);
            }
            match (url, demanded) {
                (Some(url), _) => watched(service, url, elsewhere.secret.as_ref()).map(Some),
                (None, true) => Err(ServiceError::Missing {
                    service: service.name(),
                }),
                (None, false) => Ok(None),
            }
        };
        let calculation = match here.has(Service::ApiGateway) {
            true => find(Service::CalculationService, &elsewhere.calculation, true)?,
            false => None,
        };
        Ok(RemoteServices {
            calculation,
            data: find(Service::DataService, &elsewhere.data, true)?,
            cache: find(Service::CacheService, &elsewhere.cache, false)?,
        })
    }

    pub(crate) fn peers(&self) -> Peers {
        let all = [&self.calculation, &self.data, &self.cache];
        Peers::new(all.into_iter().flatten().cloned().collect())
    }

    /// `local`: prices here, if that is where pricing is done.
    pub(crate) fn calculation(
        &self,
        local: &Calculator,
        deadline: Duration,
    ) -> Arc<dyn Calculation> {
        match &self.calculation {
            None => Arc::new(local.clone()),
            Some(service) => Arc::new(RemoteCalculation {
                service: Arc::clone(service),
                timeout: deadline + 2 * HOP,
            }),
        }
    }

    pub(crate) fn market_cache(&self, local: &Arc<Cache>) -> Arc<dyn MarketCache> {
        match &self.cache {
            None => Arc::clone(local) as Arc<dyn MarketCache>,
            Some(service) => Arc::new(RemoteCache {
                service: Arc::clone(service),
            }),
        }
    }
}

fn watched(
    service: Service,
    url: &str,
    secret: Option<&InternalSecret>,
) -> Result<Arc<WatchedPeer>, ServiceError> {
    let secret = secret.ok_or(ServiceError::NoSecret)?;
    let peer = Peer::new(service, url, secret).map_err(ServiceError::Address)?;
    Ok(Arc::new(WatchedPeer::new(peer)))
}

impl AuditLogBackend {
    pub(crate) fn of(
        config: &mut ServicesConfig,
        remote: &RemoteServices,
        market: &Arc<Market>,
        seal: &Arc<Seal>,
    ) -> Result<AuditLogBackend, ServiceError> {
        match (&remote.data, config.audit.take()) {
            (Some(service), _) => {
                let timeout = config.settings.quote_deadline + HOP;
                let (record, follow) =
                    RemoteAuditLog::new(Arc::clone(service), timeout, Arc::clone(seal));
                let record = Arc::new(record);
                Ok(AuditLogBackend {
                    stream: Arc::clone(&record) as Arc<dyn StreamHealth>,
                    record,
                    local: None,
                    tasks: vec![follow],
                })
            }
            (None, Some(audit)) => Ok(AuditLogBackend::local(config, audit, market)),
            (None, None) => Err(ServiceError::NoSigningKey),
        }
    }

    fn local(config: &ServicesConfig, audit: AuditConfig, market: &Arc<Market>) -> AuditLogBackend {
        let keys = audit.trusted;
        let heads = Arc::new(HeadSigner::new(
            audit.log,
            audit.signing_key,
            audit.publisher,
            &audit.heads,
            &keys,
            audit.look_every,
        ));
        let public_log = audit.public.map(|public| {
            let log = PublicLog::new(audit.log, public, Arc::clone(&heads));
            Arc::new(log)
        });
        let settings = &config.settings;
        let (writer, writer_task) = Writer::start(WriterConfig {
            log: audit.log,
            heads: Arc::clone(&heads),
            recovery: audit.recovery,
            database: config.database.service.clone(),
            stream: Arc::clone(&config.stream),
            strict: config.strict,
            deadline: settings.quote_deadline,
            queue_max: settings.queue_quotes_max,
            batch_max: settings.batch_quotes_max,
            locates: settings.locates,
            market: Arc::clone(market),
        });
        AuditLogBackend {
            record: Arc::new(writer.clone()),
            stream: Arc::clone(&config.stream),
            local: Some(LocalData {
                writer,
                writer_task,
                heads,
                public_log,
            }),
            tasks: Vec::new(),
        }
    }
}
