"""Each endpoint as a value: what is sent and how the answer is read. Both clients send these; neither knows an endpoint."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from urllib.parse import quote as escaped

from .models import AuditEntry, Availability, Book, Explanation, Json, Locate, Page, Quote, Rate

T = TypeVar("T")
Amount = Decimal | int | str
"""A number with its own digits. A float has others than the ones that were meant, and is refused."""


@dataclass(frozen=True)
class Call(Generic[T]):
    method: str
    path: str
    read: Callable[[Json], T]
    params: Mapping[str, str]
    body: bytes | None
    request_id: str
    records: bool
    """Whether the engine writes something: then a lost answer is not simply asked for again."""
    headers: Mapping[str, str]


def _get(path: str, read: Callable[[Json], T], **params: str | None) -> Call[T]:
    given = {name: value for name, value in params.items() if value is not None}
    return Call("GET", path, read, given, None, _new_id(), False, {})


def _post(
    path: str, read: Callable[[Json], T], body: Mapping[str, Any], request_id: str | None, **headers: str | None
) -> Call[T]:
    given = {name: value for name, value in body.items() if value is not None}
    extra = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    return Call("POST", path, read, {}, json.dumps(given).encode(), request_id or _new_id(), True, extra)


def _new_id() -> str:
    return str(uuid.uuid4())


def amount(name: str, value: Amount | None) -> str | None:
    """As text, so that no digit is lost on the way."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise TypeError(f"{name} must be a Decimal, an int or a str, not {type(value).__name__}: floats lose digits")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def moment(name: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"{name} must have a time zone")
    return value.isoformat()


def _segment(text: str) -> str:
    return escaped(text, safe="")


def _page(read: Callable[[Json], T]) -> Callable[[Json], Page[T]]:
    def page(json: Json) -> Page[T]:
        place = json["pagination"]
        items = tuple(read(item) for item in json["items"])
        return Page(items, place["total"], place["skip"], place["limit"], place["has_more"])

    return page


def rate(ticker: str, as_of: datetime | None, known_at: datetime | None) -> Call[Rate]:
    path = f"/api/v1/rates/{_segment(ticker)}"
    return _get(path, Rate.read, as_of=moment("as_of", as_of), known_at=moment("known_at", known_at))


def what_if(
    ticker: str,
    base_rate: Amount | None,
    volatility_index: Amount | None,
    event_risk_factor: int | None,
    as_of: datetime | None,
    known_at: datetime | None,
) -> Call[Rate]:
    return _get(
        f"/api/v1/rates/{_segment(ticker)}/calculate",
        Rate.read,
        base_rate=amount("base_rate", base_rate),
        volatility_index=amount("volatility_index", volatility_index),
        event_risk_factor=amount("event_risk_factor", event_risk_factor),
        as_of=moment("as_of", as_of),
        known_at=moment("known_at", known_at),
    )


def rates_of_status(status: str, skip: int, limit: int) -> Call[Page[Rate]]:
    return _get(f"/api/v1/rates/status/{_segment(status)}", _page(Rate.read), skip=str(skip), limit=str(limit))


def quote(
    ticker: str,
    position_value: Amount,
    loan_days: int,
    client_id: str,
    shares: int | None,
    share_price: Amount | None,
    as_of: datetime | None,
    known_at: datetime | None,
    request_id: str | None,
) -> Call[Quote]:
    body = {
        "ticker": ticker,
        "position_value": amount("position_value", position_value),
        "loan_days": amount("loan_days", loan_days),
        "client_id": client_id,
        "shares": amount("shares", shares),
        "share_price": amount("share_price", share_price),
        "as_of": moment("as_of", as_of),
        "known_at": moment("known_at", known_at),
    }
    return _post("/api/v1/calculate-locate", Quote.read, body, request_id)


def quote_by_id(quote_id: str) -> Call[Quote]:
    return _get(f"/api/v1/quotes/{_segment(quote_id)}", Quote.read)


def quotes_of_request(request_id: str, skip: int, limit: int) -> Call[Page[Quote]]:
    return _get("/api/v1/quotes", _page(Quote.read), request_id=request_id, skip=str(skip), limit=str(limit))


def explanation(quote_id: str) -> Call[Explanation]:
    return _get(f"/api/v1/quotes/{_segment(quote_id)}/explanation", Explanation.read)


def audit_entries(
    ticker: str | None, start: date | None, end: date | None, page: int, page_size: int
) -> Call[Page[AuditEntry]]:
    def day(name: str, value: date | None) -> str | None:
        if isinstance(value, datetime):
            return moment(name, value)
        return None if value is None else value.isoformat()

    return _get(
        "/api/v1/audit",
        _page(AuditEntry.read),
        ticker=ticker,
        start_date=day("start", start),
        end_date=day("end", end),
        page=str(page),
        page_size=str(page_size),
    )


def _order(path: str, body: Mapping[str, Any], key: str | None, request_id: str | None) -> Call[Locate]:
    """A step of a locate. Its idempotency key makes it safe to ask again after a lost answer."""
    given = {name: value for name, value in body.items() if value is not None}
    headers = {"Idempotency-Key": key or _new_id()}
    return Call("POST", path, Locate.read, {}, json.dumps(given).encode(), request_id or _new_id(), False, headers)


def locate(
    ticker: str,
    shares: int,
    share_price: Amount,
    loan_days: int,
    client_id: str,
    kind: str,
    all_or_none: bool,
    limit_rate: Amount | None,
    key: str | None,
) -> Call[Locate]:
    body = {
        "ticker": ticker,
        "shares": shares,
        "share_price": amount("share_price", share_price),
        "loan_days": loan_days,
        "client_id": client_id,
        "type": kind,
        "all_or_none": all_or_none,
        "limit_rate": amount("limit_rate", limit_rate),
    }
    return _order("/api/v1/locates", body, key, None)


def locate_step(locate_id: str, step: str, shares: int | None, key: str | None) -> Call[Locate]:
    return _order(f"/api/v1/locates/{_segment(locate_id)}/{step}", {"shares": shares}, key, None)


def locate_by_id(locate_id: str) -> Call[Locate]:
    return _get(f"/api/v1/locates/{_segment(locate_id)}", Locate.read)


def availability(ticker: str) -> Call[Availability]:
    return _get(f"/api/v1/availability/{_segment(ticker)}", Availability.read)


def book(file: bytes, as_of: datetime | None, known_at: datetime | None) -> Call[Book]:
    params = {"as_of": moment("as_of", as_of), "known_at": moment("known_at", known_at)}
    given = {name: value for name, value in params.items() if value is not None}
    kind = "application/vnd.apache.parquet" if file.startswith(b"PAR1") else "text/csv"
    # Pricing a book again harms nothing: it leaves one entry more.
    return Call("POST", "/api/v1/book", Book.read, given, file, _new_id(), False, {"Content-Type": kind})


def health() -> Call[Json]:
    return _get("/api/v1/health", lambda json: json)


def config() -> Call[Json]:
    return _get("/api/v1/config", lambda json: json)
