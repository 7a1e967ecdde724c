//! Every error a client can see, and the only place where one becomes HTTP.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::calculation::QuoteError;
use crate::data::{DatabaseError, LOG_DAMAGED, WriteError};
use crate::market::BeyondCalendar;
use crate::peer::{HEAD_BYTES_MAX, HEADERS_MAX};

/// One parameter that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Invalid {
    pub(crate) field: String,
    pub(crate) location: &'static str,
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) enum ApiError {
    Invalid {
        errors: Vec<Invalid>,
        valid_params: &'static [&'static str],
    },
    /// The request as a whole cannot be read.
    Unreadable(String),
    /// Its body is no JSON of the kind that is wanted here.
    UnreadableBody {
        why: String,
        valid_params: &'static [&'static str],
    },
    Unauthorized(&'static str),
    Forbidden(String),
    TickerNotFound(String),
    ClientNotFound(String),
    NotFound(&'static str),
    /// It was recorded, and a recovery did not bring it back.
    Lost(Box<crate::data::Loss>),
    /// A date that the calendar does not know.
    DayNotFound(String),
    /// What is there already, or has ended, does not allow it.
    Conflict(&'static str),
    /// The audit log stays closed.
    NotReopened(String),
    MethodNotAllowed,
    UnsupportedMediaType,
    /// Its Content-Encoding.
    Encoded(String),
    PayloadTooLarge {
        bytes_max: usize,
    },
    /// Its headers, or the path before them.
    HeadTooLarge(StatusCode),
    RateLimited {
        reset_seconds: u64,
    },
    /// This client has so many on their way already.
    BooksUnderWay {
        max: usize,
    },
    Calculation(String),
    Unavailable {
        part: &'static str,
        detail: String,
    },
    QuoteExpired(&'static str),
    LocateNotOpen {
        locate_status: &'static str,
    },
    LocateExpired,
    ReturnTooLarge {
        held: i64,
        available: i64,
    },
    UseTooLarge {
        available: i64,
        reserved: i64,
        used: i64,
    },
    OrderIdReused,
    IdempotencyKeyReused,
    /// The step may or may not be recorded; the request id tells.
    LocateUnknown {
        part: &'static str,
        request_id: String,
    },
    /// The entry may or may not be in the log; the request id tells.
    OutcomeUnknown {
        part: &'static str,
        request_id: Option<String>,
    },
}

/// When a client with all its books under way may try again.
const BUSY_SECONDS: u64 = 10;

struct Body {
    status: StatusCode,
    code: &'static str,
    error: String,
    details: Value,
}

impl ApiError {
    pub(crate) fn invalid(
        field: &str,
        location: &'static str,
        message: &str,
        valid_params: &'static [&'static str],
    ) -> ApiError {
        ApiError::Invalid {
            errors: vec![Invalid {
                field: field.to_owned(),
                location,
                message: message.to_owned(),
            }],
            valid_params,
        }
    }

    /// Of a body that is no parameters but a file, or that did not arrive.
    pub(crate) fn unreadable_body(why: impl Into<String>) -> ApiError {
        ApiError::UnreadableBody {
            why: why.into(),
            valid_params: &[],
        }
    }

    fn body(&self) -> Body {
        use ApiError::*;
        let body = |status, code, error: &str, details| Body {
            status,
            code,
            error: error.to_owned(),
            details,
        };
        match self {
            Invalid { .. } => body(
                StatusCode::BAD_REQUEST,
                "INVALID_PARAMETER",
                "a parameter is not valid",
                Value::Null,
            ),
            Unreadable(why) => body(
                StatusCode::BAD_REQUEST,
                "INVALID_PARAMETER",
                "the request cannot be read",
                json!(why),
            ),
            UnreadableBody { why, .. } => body(
                StatusCode::BAD_REQUEST,
                "INVALID_PARAMETER",
                "the request cannot be read",
                json!(why),
            ),
            Unauthorized(why) => body(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why, Value::Null),
            Forbidden(why) => body(StatusCode::FORBIDDEN, "FORBIDDEN", why, Value::Null),
            TickerNotFound(ticker) => body(
                StatusCode::NOT_FOUND,
                "TICKER_NOT_FOUND",
                "no rate is known for this ticker",
                json!({ "ticker": ticker }),
            ),
            ClientNotFound(client) => body(
                StatusCode::NOT_FOUND,
                "CLIENT_NOT_FOUND",
                "no active terms are on file for this client",
                json!({ "client_id": client }),
            ),
            NotFound(what) => body(StatusCode::NOT_FOUND, "NOT_FOUND", what, Value::Null),
            Lost(loss) => body(
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                "it is not on record any more: it was made when entries were recorded that a recovery lost",
                json!({ "lost": loss, "reason": loss.describe() }),
            ),
            DayNotFound(why) => body(
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                "the calendar does not go so far",
                json!(why),
            ),
            Conflict(why) => body(StatusCode::CONFLICT, "CONFLICT", why, Value::Null),
            NotReopened(why) => body(
                StatusCode::CONFLICT,
                "CONFLICT",
                "the audit log was not reopened",
                json!({ "reason": why }),
            ),
            MethodNotAllowed => body(
                StatusCode::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                "this path does not take this method",
                Value::Null,
            ),
            UnsupportedMediaType => {
                let error = "the body must be sent as application/json";
                body(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "UNSUPPORTED_MEDIA_TYPE",
                    error,
                    Value::Null,
                )
            }
            Encoded(coding) => body(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "the body must be sent as it is, without a Content-Encoding",
                json!({ "content_encoding": coding }),
            ),
            PayloadTooLarge { bytes_max } => body(
                StatusCode::PAYLOAD_TOO_LARGE,
                "PAYLOAD_TOO_LARGE",
                "the body is too long",
                json!({ "bytes_max": bytes_max }),
            ),
            HeadTooLarge(status) => body(
                *status,
                "HEAD_TOO_LARGE",
                "the request's path or headers are too long, or too many",
                json!({ "bytes_max": HEAD_BYTES_MAX, "headers_max": HEADERS_MAX }),
            ),
            RateLimited { reset_seconds } => body(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMIT_EXCEEDED",
                "this key has used up its requests for the current minute",
                json!({ "retry_after_seconds": reset_seconds }),
            ),
            BooksUnderWay { max } => body(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMIT_EXCEEDED",
                "this client has as many books under way as it may; wait for the answer to one of them",
                json!({ "books_max": max, "retry_after_seconds": BUSY_SECONDS }),
            ),
            Calculation(why) => body(
                StatusCode::INTERNAL_SERVER_ERROR,
                "CALCULATION_ERROR",
                "the price cannot be calculated",
                json!(why),
            ),
            Unavailable { part, detail } if *part == LOG_DAMAGED => body(
                StatusCode::SERVICE_UNAVAILABLE,
                "LOG_DAMAGED",
                "the audit log is not what it should be; nothing is recorded until somebody has looked",
                json!({ "part": "audit_log", "reason": LOG_DAMAGED, "detail": detail, "outcome": "not_recorded" }),
            ),
            Unavailable { part, detail } => body(
                StatusCode::SERVICE_UNAVAILABLE,
                "EXTERNAL_API_UNAVAILABLE",
                "a part this answer needs is away; nothing was recorded, try again",
                json!({ "part": part, "detail": detail, "outcome": "not_recorded" }),
            ),
            QuoteExpired(why) => body(StatusCode::CONFLICT, "QUOTE_EXPIRED", why, Value::Null),
            LocateNotOpen { locate_status } => body(
                StatusCode::CONFLICT,
                "LOCATE_NOT_OPEN",
                "this locate is past this step",
                json!({ "locate_status": locate_status }),
            ),
            LocateExpired => body(
                StatusCode::CONFLICT,
                "LOCATE_EXPIRED",
                "this locate has expired",
                Value::Null,
            ),
            ReturnTooLarge { held, available } => body(
                StatusCode::CONFLICT,
                "RETURN_TOO_LARGE",
                "more shares than this locate holds, less those that orders reserve or have used, cannot be returned",
                json!({ "held": held, "available": available }),
            ),
            UseTooLarge {
                available,
                reserved,
                used,
            } => body(
                StatusCode::CONFLICT,
                "USE_TOO_LARGE",
                "an order cannot sell more than is available under this locate, nor cover more than is used",
                json!({ "available": available, "reserved": reserved, "used": used }),
            ),
            OrderIdReused => body(
                StatusCode::UNPROCESSABLE_ENTITY,
                "ORDER_ID_REUSED",
                "this order did something else with this locate before",
                Value::Null,
            ),
            IdempotencyKeyReused => body(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "this Idempotency-Key was sent with another request before",
                Value::Null,
            ),
            LocateUnknown { part, request_id } => body(
                StatusCode::SERVICE_UNAVAILABLE,
                "EXTERNAL_API_UNAVAILABLE",
                "outcome unknown: it may or may not be recorded; ask before trying again",
                json!({
                    "part": part,
                    "outcome": "unknown",
                    "request_id": request_id,
                    "ask": format!("/api/v1/locates?request_id={request_id}"),
                }),
            ),
            OutcomeUnknown { part, request_id } => body(
                StatusCode::SERVICE_UNAVAILABLE,
                "EXTERNAL_API_UNAVAILABLE",
                "outcome unknown: it may or may not be recorded; ask before trying again",
                match request_id {
                    Some(id) => json!({
                        "part": part,
                        "outcome": "unknown",
                        "request_id": id,
                        "ask": format!("/api/v1/quotes?request_id={id}"),
                    }),
                    None => json!({ "part": part, "outcome": "unknown" }),
                },
            ),
        }
    }
}

impl ApiError {
    /// Status and body.
    pub(crate) fn content(&self) -> (StatusCode, Value) {
        let Body {
            status,
            code,
            error,
            details,
        } = self.body();
        let mut content =
            json!({ "status": "error", "error": error, "error_code": code, "details": details });
        if let (Some((errors, valid_params)), Some(content)) =
            (self.refused(), content.as_object_mut())
        {
            content.insert("validation_errors".to_owned(), json!(errors));
            content.insert("valid_params".to_owned(), json!(valid_params));
        }
        (status, content)
    }

    /// What of a request that is not valid was refused; a request without readable parameters has one: its body.
    fn refused(&self) -> Option<(Vec<Invalid>, &'static [&'static str])> {
        let whole = |what: &'static str, message: &String| {
            vec![Invalid {
                field: what.to_owned(),
                location: what,
                message: message.clone(),
            }]
        };
        match self {
            ApiError::Invalid {
                errors,
                valid_params,
            } => Some((errors.clone(), valid_params)),
            ApiError::UnreadableBody { why, valid_params } => {
                Some((whole("body", why), valid_params))
            }
            ApiError::Unreadable(why) => Some((whole("request", why), &[])),
            _ => None,
        }
    }

    /// Of a head that could not be read.
    pub(crate) fn of_head(status: StatusCode) -> ApiError {
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
                ApiError::HeadTooLarge(status)
            }
            _ => ApiError::Unreadable(
                "its first lines are not a well-formed HTTP/1.1 request".to_owned(),
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, content) = self.content();
        let mut response = (status, Json(content)).into_response();
        let headers = response.headers_mut();
        match self {
            ApiError::RateLimited { reset_seconds } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(reset_seconds));
            }
            ApiError::Encoded(_) => {
                let plain = HeaderValue::from_static("identity");
                headers.insert(header::ACCEPT_ENCODING, plain);
            }
            ApiError::BooksUnderWay { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(BUSY_SECONDS));
            }
            ApiError::Unauthorized(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
            }
            _ => {}
        }
        response
    }
}

impl ApiError {
    /// What went wrong while pricing or recording the request of that id.
    pub(crate) fn from_quote_error(error: impl Into<QuoteError>, request_id: &str) -> ApiError {
        match error.into() {
            QuoteError::Ticker(ticker) => ApiError::TickerNotFound(ticker),
            QuoteError::Client(client) => ApiError::ClientNotFound(client),
            QuoteError::Stale { part, detail } => ApiError::Unavailable { part, detail },
            QuoteError::NoView => ApiError::Unavailable {
                part: "database",
                detail: "no market data has been loaded yet".to_owned(),
            },
            QuoteError::Pricing(why) => ApiError::Calculation(why),
            QuoteError::Invalid { field, message } => {
                ApiError::invalid(field, "request", &message, super::calculate::PARAMETERS)
            }
            QuoteError::Record(WriteError::Refused { part, reason }) => ApiError::Unavailable {
                part,
                detail: reason,
            },
            QuoteError::Record(WriteError::Unknown { part }) => ApiError::OutcomeUnknown {
                part,
                request_id: Some(request_id.to_owned()),
            },
        }
    }
}

impl From<BeyondCalendar> for ApiError {
    fn from(beyond: BeyondCalendar) -> ApiError {
        ApiError::Unavailable {
            part: "calendar",
            detail: beyond.to_string(),
        }
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> ApiError {
        tracing::warn!(%error, "a database read failed");
        ApiError::Unavailable {
            part: "database",
            detail: "the database does not answer".to_owned(),
        }
    }
}

/// Of entries that are not quotes: there is no request id to ask with.
impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> ApiError {
        match error {
            WriteError::Refused { part, reason } => ApiError::Unavailable {
                part,
                detail: reason,
            },
            WriteError::Unknown { part } => ApiError::OutcomeUnknown {
                part,
                request_id: None,
            },
        }
    }
}
