"""Against a running engine with its sample book, client `standard`."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timezone
from decimal import Decimal

import numpy
import pytest

import borrow_rate_engine as bre
from borrow_rate_engine.check_proof import read_key

Engine = tuple[str, str]


def test_a_quote_is_exact_explained_and_on_record(engine: Engine) -> None:
    with bre.Client(*engine) as client:
        quote = client.quote("GME", Decimal("100000.00"), 30, "standard")
        parts = quote.breakdown
        assert quote.total_fee == parts.borrow_cost + parts.markup + parts.transaction_fees
        assert parts.transaction_fees == Decimal("25.0000")
        assert client.quote_by_id(quote.quote_id) == quote
        assert client.quotes_of_request(quote.request_id).items == (quote,)
        explanation = client.explanation(quote.quote_id)
        assert explanation.replayed
        assert any(Decimal(step.rounded) == quote.total_fee for step in explanation.steps)
        entries = list(client.audit_entries(ticker="GME"))
        assert quote.audit.entry_id in {entry.id for entry in entries}


def test_a_position_by_its_shares_and_their_price(engine: Engine) -> None:
    with bre.Client(engine[0] + "/api/v1", engine[1]) as client:
        quote = client.quote("GME", None, 30, "standard", shares=numpy.int64(100), share_price=Decimal("25.5000"))
        assert quote.position_value == 2550 and quote in {quote}
        assert client.quote("GME", Decimal("2550.000"), 30, "standard", shares=100, share_price="25.5").total_fee == quote.total_fee
        with pytest.raises(bre.InvalidParameter, match="2550.00"):
            client.quote("GME", 1, 30, "standard", shares=100, share_price="25.5")
        with pytest.raises(bre.InvalidParameter, match="250000"):
            client.quote("GME", "250.000", 30, "standard")


def test_rates_of_now_of_then_and_supposed(engine: Engine) -> None:
    with bre.Client(*engine) as client:
        now = client.rate("GME")
        assert isinstance(now.current_rate, Decimal)
        assert now.as_of is None
        supposed = client.what_if("GME", base_rate="0.05", volatility_index=25, event_risk_factor=2)
        assert supposed.current_rate == Decimal("0.06300000")
        moment = datetime(2025, 7, 1, tzinfo=timezone.utc)
        then = client.rate("GME", as_of=moment)
        assert then.as_of == moment
        assert {rate.ticker for rate in client.rates_of_status("HARD")} >= {"GME"}


def test_what_is_wrong_is_said(engine: Engine) -> None:
    with bre.Client(*engine) as client:
        with pytest.raises(bre.InvalidParameter) as caught:
            client.quote("GME", "-1", 30, "standard")
        assert [error.field for error in caught.value.validation_errors] == ["position_value"]
        with pytest.raises(bre.NotFound, match="TICKER_NOT_FOUND"):
            client.rate("NOSUCH")
        with pytest.raises(bre.Forbidden):
            client.quote("GME", 100, 30, "premium")
    with bre.Client(engine[0], "bre_" + "0" * 64) as stranger, pytest.raises(bre.Unauthorized):
        stranger.rate("GME")


BOOK = b"ticker,client,days,value\nGME,standard,30,100000\nNOSUCH,standard,30,1\nAMC,premium,30,1\n"


def test_a_book_is_answered_line_by_line(engine: Engine) -> None:
    with bre.Client(*engine) as client:
        book = client.book(BOOK)
        assert [line.error_code for line in book.lines] == [None, "TICKER_NOT_FOUND", "FORBIDDEN"]
        quote = client.quote("GME", 100000, 30, "standard")
        assert book.lines[0].total_fee == quote.total_fee == book.totals["USD"]
        again = client.book(BOOK, as_of=book.as_of)
        assert client.book(BOOK, as_of=book.as_of.isoformat()).lines == book.lines
        assert (again.lines, again.known_at) == (book.lines, book.known_at)


def test_a_locate_from_offer_to_return(engine: Engine) -> None:
    with bre.Client(*engine) as client:
        before = client.availability("GME").remaining
        offer = client.locate("GME", 300, "25.50", 30, "standard", idempotency_key="order-1")
        assert offer.locate_status == "offered", offer
        assert client.locate("GME", 300, "25.50", 30, "standard", idempotency_key="order-1") == offer
        with pytest.raises(bre.InvalidParameter) as caught:
            client.locate("GME", 200, "25.50", 30, "standard", idempotency_key="order-1")
        assert caught.value.status == 422
        filled = client.accept(offer.locate_id)
        assert (filled.locate_status, filled.held) == ("filled", 300)
        assert client.availability("GME").remaining == before - 300
        used = client.use(filled.locate_id, "o-1", 200)
        assert (used.available, used.reserved, used.used) == (100, 0, 200)
        assert client.use(filled.locate_id, "o-1", 200) == used
        assert client.availability("GME").yours.available == 100
        with pytest.raises(bre.Conflict) as refused:
            client.use(filled.locate_id, "o-2", 101)
        assert refused.value.code == "USE_TOO_LARGE"
        assert client.return_shares(filled.locate_id, 100).held == 200
        again = client.accept(client.locate("GME", 300, "25.50", 30, "standard").locate_id)
        assert client.return_shares(again.locate_id, 300).held == 0
        assert client.availability("GME").remaining == before - 200


def test_an_entry_is_proved_under_the_logs_key_and_no_other(engine: Engine) -> None:
    public = os.environ.get("BRE_AUDIT_KEY")
    if not public:
        pytest.skip("no key of the log: run scripts/python-client")
    with open(public, encoding="ascii") as file:
        key = read_key(file.read())
    with bre.Client(*engine, attempts_max=60) as client:
        quote = client.quote("GME", 100000, 30, "standard")
        proved = client.proof(quote.audit.entry_id, [bytes(32), key])
        assert proved.fields["quote_id"] == quote.quote_id
        assert client.proof(quote.quote_id, [key]).entry_hash == proved.entry_hash
        with pytest.raises(bre.NotProved):
            client.proof(quote.quote_id, [bytes(32)])
        with pytest.raises(bre.NotFound):
            client.proof("1-1-999999999", [key])

    async def run() -> bre.Proved:
        async with bre.AsyncClient(*engine, attempts_max=60) as client:
            return await client.proof(quote.quote_id, [key])

    assert asyncio.run(run()).position == proved.position


def test_many_at_once(engine: Engine) -> None:
    async def run() -> list[bre.Quote]:
        async with bre.AsyncClient(*engine) as client:
            return await asyncio.gather(*(client.quote("GME", 1000 + n, 30, "standard") for n in range(20)))

    quotes = asyncio.run(run())
    assert len({quote.quote_id for quote in quotes}) == 20
    assert [quote.position_value for quote in quotes] == [Decimal(1000 + n) for n in range(20)]


def test_a_limit_is_told(engine: Engine) -> None:
    """The script allows 200 requests a minute; waiting it out is shown without an engine."""
    with bre.Client(*engine, attempts_max=1) as client, pytest.raises(bre.RateLimited) as caught:
        for _ in range(500):
            client.rate("GME")
    assert caught.value.code == "RATE_LIMIT_EXCEEDED"
