//! `POST /internal/import?kind=ibkr|vix`: the body is the file.

use audit::Kind;
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::Request;
use jiff::Timestamp;
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::parameters::Parameters;
use crate::data::{Change, ImportReport, Recorded, aliases, prepare};

const PARAMETERS: &[&str] = &["kind", "source", "valid_at", "by"];
/// Real files have 1.5 MB.
const FILE_BYTES_MAX: usize = 64 << 20;

#[derive(Serialize)]
pub(super) struct ImportAnswer {
    status: &'static str,
    #[serde(flatten)]
    report: ImportReport,
    audit: Recorded,
}

pub(super) async fn import(
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Result<Json<ImportAnswer>, ApiError> {
    // Read first: a client that is still sending would miss an early answer.
    let file = gateway.body(request, FILE_BYTES_MAX).await?;
    let mut parameters = Parameters::from_query(query.as_deref(), PARAMETERS);
    let kind = parameters.required("kind", "must be ibkr or vix", |text| {
        matches!(text, "ibkr" | "vix").then(|| text.to_owned())
    });
    let source = parameters.maybe(
        "source",
        "must be 1 to 32 lower-case letters, digits or '-'",
        |text| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            ((1..=32).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
        },
    );
    let valid_at = parameters.maybe(
        "valid_at",
        "must be a time such as 2025-12-28T15:14:44Z",
        |text| text.parse::<Timestamp>().ok(),
    );
    let by = parameters.optional("by");
    parameters.finish()?;
    let aliases = aliases(&*gateway.keeper.client()?).await?;
    let kind = kind.unwrap_or_default();
    let read = tokio::task::spawn_blocking(move || {
        prepare(
            &kind,
            source.as_deref(),
            &file,
            Timestamp::now(),
            valid_at,
            &aliases,
        )
    })
    .await;
    let load = match read {
        Ok(Ok(load)) => load,
        Ok(Err(error)) => return Err(ApiError::Unreadable(error.to_string())),
        Err(_) => return Err(ApiError::Calculation("reading the file failed".to_owned())),
    };
    let report = load.report();
    let mut fields = load.fields();
    if let Some(by) = by {
        fields.set("by", by);
    }
    let audit = gateway
        .calculator
        .writer
        .entry(Kind::FeedLoaded, fields, Change::Feed(Box::new(load)))
        .await?;
    // The next price is of the new book.
    Gateway::seen(gateway.keeper.refresh().await);
    Ok(Json(ImportAnswer {
        status: "success",
        report,
        audit,
    }))
}
