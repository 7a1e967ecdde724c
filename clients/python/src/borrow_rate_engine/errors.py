"""What can go wrong, as exceptions: one for each thing that a caller would do differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class BreError(Exception):
    """Everything that this package raises."""


class ConnectionFailed(BreError):
    """The engine could not be reached, or went away, and nothing can have been recorded that matters."""


@dataclass(frozen=True)
class ValidationError:
    """One parameter that was refused."""

    field: str
    location: str
    message: str


class ApiError(BreError):
    """The engine answered that it will not, and why."""

    def __init__(self, status: int, body: Mapping[str, Any], request_id: str | None) -> None:
        self.status = status
        self.error = str(body.get("error", body.get("detail", "an answer without a reason")))
        self.code = str(body.get("error_code", ""))
        self.details: Any = body.get("details")
        self.request_id = request_id
        self.validation_errors = [
            ValidationError(str(e["field"]), str(e["location"]), str(e["message"]))
            for e in body.get("validation_errors", [])
        ]
        why = "; ".join(f"{e.field} {e.message}" for e in self.validation_errors)
        text = f"{self.error}: {why}" if why else self.error
        super().__init__(f"{text} ({self.code}, HTTP {status}, request {request_id})")


class InvalidParameter(ApiError):
    """A parameter is wrong; `validation_errors` says which."""


class Unauthorized(ApiError):
    """There is no such key, or it has ended."""


class Forbidden(ApiError):
    """The key may not do this."""


class NotFound(ApiError):
    """No such ticker, client, quote, locate or entry."""


class Conflict(ApiError):
    """What is there already, or has ended, does not allow it."""


class ProofPending(ApiError):
    """No published head covers the entry yet, also after waiting as often as was allowed."""


class RateLimited(ApiError):
    """Too many requests in this minute, also after waiting as often as was allowed."""


class Unavailable(ApiError):
    """A part of the engine is away. Nothing was recorded."""


class OutcomeUnknown(BreError):
    """The quote may or may not be on record. Ask with `quotes_of_request(request_id)` once the engine answers again."""

    def __init__(self, request_id: str, why: str) -> None:
        self.request_id = request_id
        super().__init__(f"the outcome of request {request_id} is not known: {why}")


_BY_STATUS: dict[int, type[ApiError]] = {
    202: ProofPending,
    400: InvalidParameter,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidParameter,
    415: InvalidParameter,
    422: InvalidParameter,
    429: RateLimited,
    503: Unavailable,
}


def of(status: int, body: Mapping[str, Any], request_id: str | None) -> BreError:
    """The exception for an answer that is no success."""
    details = body.get("details")
    if status == 503 and isinstance(details, Mapping) and details.get("outcome") == "unknown":
        return OutcomeUnknown(str(details.get("request_id") or request_id), str(body.get("error")))
    return _BY_STATUS.get(status, ApiError)(status, body, request_id)
