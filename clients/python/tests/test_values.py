"""What needs no engine: numbers, times, and when a request is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal

import httpx
import pytest

import borrow_rate_engine as bre
from borrow_rate_engine import _calls

REFUSED = {"status": "error", "error": "no", "error_code": "RATE_LIMIT_EXCEEDED", "details": None}
UNKNOWN = {
    "status": "error",
    "error": "outcome unknown",
    "error_code": "EXTERNAL_API_UNAVAILABLE",
    "details": {"outcome": "unknown", "request_id": "r-1"},
}


def client(answer: Callable[[httpx.Request], httpx.Response], attempts_max: int = 3) -> bre.Client:
    http = httpx.Client(base_url="http://engine", transport=httpx.MockTransport(answer))
    return bre.Client("http://engine", "key", attempts_max=attempts_max, http=http)


def test_numbers_keep_their_digits() -> None:
    assert _calls.amount("value", Decimal("1E+5")) == "100000"
    assert _calls.amount("value", "100000.10") == "100000.10"
    with pytest.raises(TypeError, match="floats lose digits"):
        _calls.amount("value", 0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _calls.amount("value", True)


def test_a_moment_needs_its_zone() -> None:
    assert _calls.moment("as_of", datetime(2026, 4, 1, 10, 31, tzinfo=timezone.utc)) == "2026-04-01T10:31:00+00:00"
    with pytest.raises(ValueError, match="time zone"):
        _calls.moment("as_of", datetime(2026, 4, 1, 10, 31))


def test_a_limit_is_waited_out_as_long_as_it_says() -> None:
    answers = iter(
        [
            httpx.Response(429, json=REFUSED, headers={"Retry-After": "0"}),
            httpx.Response(200, json={"status": "healthy"}),
        ]
    )
    assert client(lambda _: next(answers)).health()["status"] == "healthy"


def test_a_limit_that_does_not_end_is_told() -> None:
    count = 0

    def always(_: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return httpx.Response(429, json=REFUSED, headers={"Retry-After": "0", "X-Request-ID": "r-9"})

    with pytest.raises(bre.RateLimited, match="r-9"):
        client(always).health()
    assert count == 3


def test_an_unknown_outcome_is_never_asked_for_again() -> None:
    count = 0

    def unknown(_: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return httpx.Response(503, json=UNKNOWN)

    with pytest.raises(bre.OutcomeUnknown) as caught:
        client(unknown).quote("GME", "100", 30, "standard")
    assert (count, caught.value.request_id) == (1, "r-1")


def test_a_connection_that_breaks_leaves_a_quote_unknown_and_a_rate_untouched() -> None:
    def breaks(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("cut", request=request)

    with pytest.raises(bre.OutcomeUnknown) as caught:
        client(breaks).quote("GME", "100", 30, "standard", request_id="mine")
    assert caught.value.request_id == "mine"
    with pytest.raises(bre.ConnectionFailed):
        client(breaks).rate("GME")


def test_a_request_that_was_never_sent_is_tried_again() -> None:
    count = 0

    def refuses(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(bre.ConnectionFailed):
        client(refuses).quote("GME", "100", 30, "standard")
    assert count == 3
