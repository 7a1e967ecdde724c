"""What needs no engine: numbers, times, and when a request is tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import httpx
import numpy
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


GME = {
    "ticker": "GME", "current_rate": Decimal("0.19"), "base_rate": Decimal("0.1"), "borrow_status": "HARD",
    "volatility_index": 20, "volatility_tier": "NORMAL", "event_risk_factor": 0, "currency": "USD", "policy": "standard-1",
    "available": None, "available_or_more": False, "last_updated": None, "stale": False,
    "data_sources": {"base_rate": {"source": "sample", "as_of": None, "stale": True, "fallback": False}},
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


def test_what_an_answer_does_not_follow_yet_is_told() -> None:
    newer = {"value": "0.60000000", "as_of": "2026-01-05T15:00:00Z", "reason": "rate_jumped"}
    source = {"source": "seclend", "as_of": None, "stale": False, "fallback": False}
    for told, value in [(newer, Decimal("0.6")), ({**newer, "value": None}, None)]:
        answer = {**GME, "data_sources": {"base_rate": {**source, "unconfirmed": told}}}
        unconfirmed = bre.Rate.read(answer).data_sources["base_rate"].unconfirmed
        assert unconfirmed is not None and (unconfirmed.value, unconfirmed.reason) == (value, "rate_jumped")
    assert bre.Rate.read({**GME, "data_sources": {"base_rate": source}}).data_sources["base_rate"].unconfirmed is None


def test_numbers_are_taken_as_pandas_has_them() -> None:
    column = numpy.array([100, 2500], dtype=numpy.int64)
    assert [_calls.amount("value", number) for number in column] == ["100", "2500"]
    body = json.loads(_calls.locate("GME", column[0], "25.50", column[1], "standard", "single_use", False, None, None).body or b"")
    assert (body["shares"], body["loan_days"]) == (100, 2500)
    for lost in (numpy.float64(0.1), numpy.bool_(True), float("nan")):
        with pytest.raises(TypeError, match="floats lose digits"):
            _calls.amount("value", lost)  # type: ignore[arg-type]


def test_a_decimal_is_sent_by_its_value() -> None:
    for value, sent in [("2500.5000", "2500.5"), ("1.000", "1"), ("30", "30"), ("100", "100"), ("0.000", "0"), ("-1.50", "-1.5")]:
        assert _calls.amount("value", Decimal(value)) == sent
    # What was written as text is sent as it was written: the engine says what is wrong with it.
    assert _calls.amount("value", "1.000") == "1.000"
    with pytest.raises(ValueError, match="NaN"):
        _calls.amount("value", Decimal("NaN"))


def test_a_base_url_may_hold_the_path_of_the_api() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"status": "healthy"})

    for url in ("http://engine", "http://engine/", "http://engine/api/v1", "http://engine/api/v1/", "http://engine/desk/api/v1"):
        with httpx.Client(transport=httpx.MockTransport(answer)) as http:
            bre.Client(url, http=http).health()
    assert asked == ["http://engine/api/v1/health"] * 4 + ["http://engine/desk/api/v1/health"]


def test_a_book_is_its_bytes_or_its_path(tmp_path: Path) -> None:
    text = "ticker,client,days,value\nGME,standard,30,100\n"
    path = tmp_path / "book.csv"
    path.write_text(text)
    for file in (text.encode(), bytearray(text.encode()), path, str(path), text):
        assert _calls.content(file) == text.encode()  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        _calls.content(tmp_path / "none.csv")
    with pytest.raises(TypeError, match="path"):
        _calls.content(7)  # type: ignore[arg-type]


def test_answers_go_into_sets() -> None:
    first, again = bre.Rate.read(GME), bre.Rate.read(GME)
    assert {first, again} == {first} and {first: 1}[again] == 1
    other = bre.Rate.read({**GME, "ticker": "AMC"})
    assert len({first, other}) == 2


def test_a_moment_is_a_value_or_text() -> None:
    assert _calls.moment("as_of", "2026-04-01T10:31:00-04:00") == "2026-04-01T10:31:00-04:00"
    with pytest.raises(TypeError, match="as_of"):
        _calls.moment("as_of", date(2026, 4, 1))  # type: ignore[arg-type]


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


def test_a_proof_is_waited_for_and_never_believed() -> None:
    answers = [202, 202, 200]
    pending = {"status": "pending", "entry_id": "1-1-7", "covered_to": 6, "detail": "no published head covers this entry yet; ask again"}

    def soon(_: httpx.Request) -> httpx.Response:
        return httpx.Response(answers.pop(0) if answers else 202, json=pending, headers={"Retry-After": "0"})

    with pytest.raises(bre.NotProved):
        client(soon).proof("1-1-7", [bytes(32)])
    assert not answers
    with pytest.raises(bre.ProofPending) as caught:
        client(soon).proof("1-1-7", [bytes(32)])
    assert "ask again" in str(caught.value)


def test_a_request_that_was_never_sent_is_tried_again() -> None:
    count = 0

    def refuses(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(bre.ConnectionFailed):
        client(refuses).quote("GME", "100", 30, "standard")
    assert count == 3
