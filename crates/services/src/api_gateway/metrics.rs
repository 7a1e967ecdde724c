//! `GET /metrics`: Prometheus text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use ::metrics::{Counter, Histogram};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::Gateway;
use super::concerns::{concerns, measure};
use super::errors::ApiError;
use crate::cache::CacheState;
use crate::config::MetricsDoor;
use crate::domain::protection::JobReport;
use crate::domain::time::now_micros;
use crate::peer::Peer;

const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// One recorder a process, whoever asks first.
pub(crate) fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets(SECONDS)
                .ok()?
                .install_recorder()
                .ok()
        })
        .as_ref()
}

/// What is counted of one route. Looked up once a thread: naming a metric anew costs more than the rest of the counting.
struct RouteMeters {
    seconds: Histogram,
    answers: Vec<(&'static str, StatusCode, Counter)>,
}

pub(super) fn count_request(route: &str, method: &Method, status: StatusCode, seconds: f64) {
    thread_local! {
        static KNOWN: RefCell<HashMap<String, RouteMeters>> = RefCell::default();
    }
    let method = known_method(method);
    KNOWN.with_borrow_mut(|known| {
        if !known.contains_key(route) {
            let meters = RouteMeters {
                seconds: ::metrics::histogram!("bre_request_seconds", "route" => route.to_owned()),
                answers: Vec::new(),
            };
            known.insert(route.to_owned(), meters);
        }
        let Some(meters) = known.get_mut(route) else {
            return;
        };
        meters.seconds.record(seconds);
        let answered = |(m, s, _): &&(&str, StatusCode, Counter)| (*m, *s) == (method, status);
        if let Some((_, _, counter)) = meters.answers.iter().find(answered) {
            return counter.increment(1);
        }
        let labels = [
            ("route", route.to_owned()),
            ("method", method.to_owned()),
            ("status", status.as_u16().to_string()),
        ];
        let counter = ::metrics::counter!("bre_requests_total", &labels);
        counter.increment(1);
        meters.answers.push((method, status, counter));
    });
}

/// Clients may invent methods; they must not make metrics without end.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    let known = KNOWN.iter().find(|known| **known == method.as_str());
    known.copied().unwrap_or("other")
}

/// On the public port: for whoever is on this machine or shows the token, or for all where the settings say so.
pub(super) async fn public_metrics(
    State(gateway): State<Gateway>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer);
    let here = peer.is_none_or(|Peer(address)| address.ip().to_canonical().is_loopback());
    if gateway.metrics.admits(here, &headers) {
        return metrics(State(gateway)).await.into_response();
    }
    if headers.contains_key(header::AUTHORIZATION) {
        gateway.slow("metrics", peer, &headers).await;
    }
    let why = "the metrics are for this machine, or for who sends the token of [metrics] token_file as a bearer token";
    let mut response = ApiError::Unauthorized(why).into_response();
    let challenge = HeaderValue::from_static("Bearer");
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, challenge);
    response
}

impl MetricsDoor {
    fn admits(&self, here: bool, headers: &HeaderMap) -> bool {
        // A proxy on this machine speaks for somebody else.
        let forwarded = || FORWARDED.iter().any(|name| headers.contains_key(*name));
        let known = || {
            let token = self.token.as_ref();
            token.is_some_and(|token| token.is_presented(headers))
        };
        self.public || (here && !forwarded()) || known()
    }
}

const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

pub(crate) async fn metrics(State(gateway): State<Gateway>) -> impl IntoResponse {
    let market = &gateway.calculator.market;
    let stream = gateway.stream.report();
    let flag = |name: &'static str, on: bool| ::metrics::gauge!(name).set(u32::from(on));
    flag("bre_database_up", market.database_up());
    flag("bre_cache_up", gateway.cache.state() == CacheState::Up);
    flag(
        "bre_locates_served",
        gateway.calculator.writer.refusal().is_none(),
    );
    for load in market.view().iter().flat_map(|view| view.loads()) {
        let age = now_micros().saturating_sub(load.valid_at_micros) / 1_000_000;
        let labels = [("feed", load.kind.clone()), ("source", load.source.clone())];
        ::metrics::gauge!("bre_feed_age_seconds", &labels)
            .set(u32::try_from(age.max(0)).unwrap_or(u32::MAX));
        ::metrics::gauge!("bre_feed_quarantined_rows", &labels).set(load.quarantined);
    }
    if let Ok(view) = market.view() {
        let held = view.held();
        for source in view.loads().iter().map(|load| load.source.as_str()) {
            let count = held.get(source).map_or(0, |subjects| subjects.len());
            ::metrics::gauge!("bre_feed_held_figures", "source" => source.to_owned())
                .set(u32::try_from(count).unwrap_or(u32::MAX));
            let refused = view
                .refusals()
                .iter()
                .any(|refusal| refusal.source == source);
            ::metrics::gauge!("bre_feed_refused", "source" => source.to_owned())
                .set(u32::from(refused));
        }
        if let Some((_, at)) = view.market_index() {
            let age = now_micros().saturating_sub(at) / 1_000_000;
            ::metrics::gauge!("bre_market_index_age_seconds")
                .set(u32::try_from(age.max(0)).unwrap_or(u32::MAX));
        }
    }
    measure(&concerns(&gateway, now_micros()));
    flag("bre_wal_stream_attached", stream.attached);
    flag("bre_alarm", stream.alarm.is_some());
    flag("bre_restore_proof_failed", stream.proof_failed);
    for (name, at) in [
        ("bre_backup_age_seconds", stream.last_backup_at_micros),
        ("bre_restore_proof_age_seconds", stream.last_proof_at_micros),
    ] {
        if let Some(at) = at {
            let age = now_micros().saturating_sub(at) / 1_000_000;
            ::metrics::gauge!(name).set(u32::try_from(age.max(0)).unwrap_or(u32::MAX));
        }
    }
    flag("bre_strict", gateway.strict);
    flag("bre_rate_limits_shared", gateway.limits_are_shared());
    let turns = u32::try_from(gateway.books.turns_in_use()).unwrap_or(u32::MAX);
    ::metrics::gauge!("bre_book_turns_in_use").set(turns);
    let seconds = market
        .unconfirmed_seconds(now_micros())
        .and_then(|seconds| u32::try_from(seconds).ok())
        .unwrap_or(u32::MAX);
    ::metrics::gauge!("bre_market_view_unconfirmed_seconds").set(seconds);
    ::metrics::gauge!("bre_slot_fill_permille").set(stream.slot_fill_permille.unwrap_or(0));
    if let Some(tip) = gateway.calculator.writer.tip() {
        ::metrics::counter!("bre_audit_position").absolute(tip.position());
        ::metrics::gauge!("bre_audit_epoch").set(tip.epoch());
    }
    ::metrics::counter!("bre_wal_durable_lsn").absolute(stream.durable_lsn.unwrap_or(0));
    let mut text = recorder()
        .map(|recorder| recorder.render())
        .unwrap_or_default();
    text.push_str(&job_metrics(&gateway.stream.jobs()));
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

/// What one metric says of a job; nothing where nothing is known.
type JobFigure = fn(&JobReport) -> Option<String>;

const JOB_METRICS: [(&str, &str, JobFigure); 7] = [
    (
        "bre_job_last_success_timestamp_seconds",
        "When the newest run that succeeded ended",
        |job| Some(seconds(job.last_success_micros?)),
    ),
    (
        "bre_job_expected_interval_seconds",
        "From one appointment to the next",
        |job| Some(job.expected_seconds?.to_string()),
    ),
    (
        "bre_job_success_ratio",
        "Of the runs of the last 30 days",
        |job| {
            let permille = (job.succeeded * 1000).checked_div(job.runs)?;
            Some(format!("{}.{:03}", permille / 1000, permille % 1000))
        },
    ),
    (
        "bre_job_duration_median_seconds",
        "Of the last 14 runs that succeeded",
        |job| Some(seconds(job.duration_median_micros?)),
    ),
    ("bre_job_failing", "Its newest run failed", |job| {
        flag_of(job.failing)
    }),
    ("bre_job_running", "It runs now", |job| flag_of(job.running)),
    ("bre_job_paused", "Nothing starts it but a person", |job| {
        flag_of(job.paused)
    }),
];

fn seconds(micros: i64) -> String {
    let micros = micros.max(0);
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn flag_of(on: bool) -> Option<String> {
    Some(u8::from(on).to_string())
}

/// Written as they are, and kept nowhere: a job that is removed from the plan leaves no metric behind.
fn job_metrics(jobs: &[JobReport]) -> String {
    let mut text = String::new();
    for (metric, help, figure) in JOB_METRICS {
        let lines: Vec<String> = jobs
            .iter()
            .filter_map(|job| {
                let (name, component) = (&job.name, &job.component);
                let value = figure(job)?;
                let cluster = job.cluster.as_ref();
                let cluster = cluster.map(|cluster| format!(",cluster=\"{cluster}\""));
                let cluster = cluster.unwrap_or_default();
                Some(format!(
                    "{metric}{{name=\"{name}\",component=\"{component}\"{cluster}}} {value}\n"
                ))
            })
            .collect();
        if !lines.is_empty() {
            text.push_str(&format!(
                "# HELP {metric} {help}\n# TYPE {metric} gauge\n{}\n",
                lines.concat()
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::InternalSecret;

    #[test]
    fn a_job_has_metrics_of_what_is_known_of_it_alone() {
        let full = JobReport {
            name: "database.full".to_owned(),
            component: "database".to_owned(),
            last_success_micros: Some(1_764_500_000_250_000),
            expected_seconds: Some(86_400),
            runs: 4,
            succeeded: 3,
            duration_median_micros: Some(1_500_000),
            running: true,
            ..JobReport::default()
        };
        let never = JobReport {
            name: "test.never".to_owned(),
            component: "test".to_owned(),
            ..JobReport::default()
        };
        let of_cluster = JobReport {
            cluster: Some("desk".to_owned()),
            ..full.clone()
        };
        let text = job_metrics(&[full, never, of_cluster]);
        for line in [
            "bre_job_last_success_timestamp_seconds{name=\"database.full\",component=\"database\"} 1764500000.250000",
            "bre_job_expected_interval_seconds{name=\"database.full\",component=\"database\"} 86400",
            "bre_job_success_ratio{name=\"database.full\",component=\"database\"} 0.750",
            "bre_job_duration_median_seconds{name=\"database.full\",component=\"database\"} 1.500000",
            "bre_job_running{name=\"database.full\",component=\"database\"} 1",
            "bre_job_paused{name=\"test.never\",component=\"test\"} 0",
            "bre_job_running{name=\"database.full\",component=\"database\",cluster=\"desk\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        // Never is not zero.
        assert_eq!(text.matches("test.never").count(), 3, "{text}");
        assert_eq!(job_metrics(&[]), "");
    }

    #[test]
    fn metrics_are_for_this_machine_a_token_or_all_if_so_set() {
        let token = "0123456789abcdef0123456789abcdef";
        let shut = MetricsDoor::default();
        let tokened = MetricsDoor {
            public: false,
            token: Some(InternalSecret::new(token).unwrap()),
        };
        let open = MetricsDoor {
            public: true,
            token: None,
        };
        let headers = |named: &[(&'static str, String)]| {
            let pair = |(name, value): &(&'static str, String)| {
                (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
            };
            named.iter().map(pair).collect::<HeaderMap>()
        };
        let none = headers(&[]);
        assert!(shut.admits(true, &none) && tokened.admits(true, &none));
        assert!(!shut.admits(false, &none) && !tokened.admits(false, &none));
        assert!(open.admits(false, &none));
        let good = headers(&[("authorization", format!("Bearer {token}"))]);
        assert!(tokened.admits(false, &good) && !shut.admits(false, &good));
        for bad in ["Bearer 0123456789abcdef0123456789abcdeF", "Bearer", token] {
            let bad = headers(&[("authorization", bad.to_owned())]);
            assert!(!tokened.admits(false, &bad));
        }
        for name in FORWARDED {
            let through_a_proxy = headers(&[(name, "203.0.113.9".to_owned())]);
            assert!(!shut.admits(true, &through_a_proxy), "{name}");
        }
    }
}
