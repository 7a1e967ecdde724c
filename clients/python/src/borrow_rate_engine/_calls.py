"""Each endpoint as a value: what is sent and how the answer is read. Both clients send these; neither knows an endpoint."""

from __future__ import annotations

import json
import operator
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, SupportsIndex, TypeVar
from urllib.parse import quote as escaped

from .check_proof import Proved, check
from .models import AuditEntry, Availability, Book, Explanation, Json, Locate, Page, Quote, Rate

T = TypeVar("T")
Amount = Decimal | SupportsIndex | str
"""A number with its own digits: a Decimal, a whole number of any type (numpy's too), or text. A float has others than the ones
that were meant, and is refused."""
Moment = datetime | str
"""A time with its zone, as a value (pandas' Timestamp too) or as text such as 2026-04-01T10:31:00-04:00."""
File = bytes | str | os.PathLike[str]
"""A book: its bytes, or where it is; text of more than one line is the book itself."""


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
    raw: Callable[[bytes], T] | None = None
    """Where the answer's very bytes count."""


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
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return _by_value(name, value)
    return str(whole(name, value))


def _by_value(name: str, value: Decimal) -> str:
    """Without the noughts that only its type put there: `1.000`, as text, is a thousand to some."""
    if not value.is_finite():
        raise ValueError(f"{name} must be a number, not {value}")
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def whole(name: str, value: SupportsIndex) -> int:
    # numpy's truth values are no subclass of bool, and its float64 is one of float.
    if isinstance(value, float) or type(value).__name__ in ("bool", "bool_"):
        raise TypeError(_not_a_number(name, value))
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(_not_a_number(name, value)) from None


def _not_a_number(name: str, value: object) -> str:
    kind = type(value).__name__
    return f"{name} must be a Decimal, a whole number or a str, not {kind}: floats lose digits, Decimal(str(value)) says which are meant"


def moment(name: str, value: Moment | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime with a time zone or a str, not {type(value).__name__}")
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


def rate(ticker: str, as_of: Moment | None, known_at: Moment | None) -> Call[Rate]:
    path = f"/api/v1/rates/{_segment(ticker)}"
    return _get(path, Rate.read, as_of=moment("as_of", as_of), known_at=moment("known_at", known_at))


def what_if(
    ticker: str,
    base_rate: Amount | None,
    volatility_index: Amount | None,
    event_risk_factor: SupportsIndex | None,
    as_of: Moment | None,
    known_at: Moment | None,
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
    position_value: Amount | None,
    loan_days: SupportsIndex,
    client_id: str,
    shares: SupportsIndex | None,
    share_price: Amount | None,
    as_of: Moment | None,
    known_at: Moment | None,
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
    ticker: str | None, start: date | str | None, end: date | str | None, page: int, page_size: int
) -> Call[Page[AuditEntry]]:
    def day(name: str, value: date | str | None) -> str | None:
        if value is None or isinstance(value, (datetime, str)):
            return moment(name, value)
        return value.isoformat()

    return _get(
        "/api/v1/audit",
        _page(AuditEntry.read),
        ticker=ticker,
        start_date=day("start", start),
        end_date=day("end", end),
        page=str(page),
        page_size=str(page_size),
    )


def proof(entry_or_quote_id: str, keys: Sequence[bytes]) -> Call[Proved]:
    """Checked under the keys before it is handed out."""

    def read(json: Json) -> Proved:
        raise AssertionError("read from its bytes")

    path = f"/api/v1/audit/{_segment(entry_or_quote_id)}/proof"
    return Call("GET", path, read, {}, None, _new_id(), False, {}, lambda data: check(data, keys))


def _order(path: str, body: Mapping[str, Any], key: str | None, request_id: str | None) -> Call[Locate]:
    """A step of a locate. Its idempotency key makes it safe to ask again after a lost answer."""
    given = {name: value for name, value in body.items() if value is not None}
    headers = {"Idempotency-Key": key or _new_id()}
    return Call("POST", path, Locate.read, {}, json.dumps(given).encode(), request_id or _new_id(), False, headers)


def locate(
    ticker: str,
    shares: SupportsIndex,
    share_price: Amount,
    loan_days: SupportsIndex,
    client_id: str,
    kind: str,
    all_or_none: bool,
    limit_rate: Amount | None,
    key: str | None,
) -> Call[Locate]:
    body = {
        "ticker": ticker,
        "shares": whole("shares", shares),
        "share_price": amount("share_price", share_price),
        "loan_days": whole("loan_days", loan_days),
        "client_id": client_id,
        "type": kind,
        "all_or_none": all_or_none,
        "limit_rate": amount("limit_rate", limit_rate),
    }
    return _order("/api/v1/locates", body, key, None)


def locate_step(locate_id: str, step: str, shares: SupportsIndex | None, key: str | None) -> Call[Locate]:
    body = {"shares": None if shares is None else whole("shares", shares)}
    return _order(f"/api/v1/locates/{_segment(locate_id)}/{step}", body, key, None)


def use(locate_id: str, order_id: str, shares: int, side: str, state: str) -> Call[Locate]:
    body = {"order_id": order_id, "shares": shares, "side": side, "state": state}
    path = f"/api/v1/locates/{_segment(locate_id)}/uses"
    # The order's id makes it safe to ask again.
    return Call("POST", path, Locate.read, {}, json.dumps(body).encode(), _new_id(), False, {})


def locate_by_id(locate_id: str) -> Call[Locate]:
    return _get(f"/api/v1/locates/{_segment(locate_id)}", Locate.read)


def availability(ticker: str) -> Call[Availability]:
    return _get(f"/api/v1/availability/{_segment(ticker)}", Availability.read)


def content(file: File) -> bytes:
    """What a book says. Reads the file where only its place is given."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file)
    if isinstance(file, str) and "\n" in file:
        return file.encode()
    if not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"a book is bytes, or the path of a CSV or Parquet file, not {type(file).__name__}")
    with open(file, "rb") as opened:
        return opened.read()


def book(file: bytes, as_of: Moment | None, known_at: Moment | None) -> Call[Book]:
    params = {"as_of": moment("as_of", as_of), "known_at": moment("known_at", known_at)}
    given = {name: value for name, value in params.items() if value is not None}
    kind = "application/vnd.apache.parquet" if file.startswith(b"PAR1") else "text/csv"
    # Pricing a book again harms nothing: it leaves one entry more.
    return Call("POST", "/api/v1/book", Book.read, given, file, _new_id(), False, {"Content-Type": kind})


def health() -> Call[Json]:
    return _get("/api/v1/health", lambda json: json)


def config() -> Call[Json]:
    return _get("/api/v1/config", lambda json: json)
