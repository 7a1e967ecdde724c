"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import date
from types import TracebackType
from typing import SupportsIndex, TypeVar

import httpx

from . import _calls
from ._calls import Amount, Call, File, Moment
from ._sending import Retries, answer, base, broken, request
from .check_proof import Proved
from .models import AuditEntry, Availability, Book, Explanation, Json, Locate, Page, Quote, Rate

T = TypeVar("T")
PAGE = 100


class AsyncClient:
    """Talks to one engine with one API key. Use it as an asynchronous context manager, or close it.

    `attempts_max`: a request that the engine refused for now (429, 503) or that was never sent is tried again, up to so many
    times in all, after the time that the engine names. A request whose outcome is unknown never is.
    `base_url`: where the engine is, such as http://127.0.0.1:8000; `/api/v1` may stand behind it.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 10.0,
        attempts_max: int = 4,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._api_key = api_key
        self._retries = Retries(attempts_max)
        self._base = base(base_url)
        self._http = http or httpx.AsyncClient(timeout=timeout_seconds)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, call: Call[T]) -> T:
        attempt = 1
        while True:
            trouble: httpx.Response | httpx.TransportError
            try:
                response = await self._http.send(request(self._http, self._base, call, self._api_key))
                if response.is_success and response.status_code != 202:
                    return answer(call, response)
                trouble = response
            except httpx.TransportError as error:
                trouble = error
            wait_seconds = self._retries.wait_seconds(call, attempt, trouble)
            if wait_seconds is None:
                if isinstance(trouble, httpx.TransportError):
                    raise broken(call, trouble) from trouble
                return answer(call, trouble)
            await asyncio.sleep(wait_seconds)
            attempt += 1

    async def rate(self, ticker: str, *, as_of: Moment | None = None, known_at: Moment | None = None) -> Rate:
        """The current rate; or that of a moment of the past, with what was known then."""
        return await self._send(_calls.rate(ticker, as_of, known_at))

    async def what_if(
        self,
        ticker: str,
        *,
        base_rate: Amount | None = None,
        volatility_index: Amount | None = None,
        event_risk_factor: SupportsIndex | None = None,
        as_of: Moment | None = None,
        known_at: Moment | None = None,
    ) -> Rate:
        """The rate with what is supposed in place of what the market says."""
        call = _calls.what_if(ticker, base_rate, volatility_index, event_risk_factor, as_of, known_at)
        return await self._send(call)

    async def rates_of_status(self, status: str) -> AsyncIterator[Rate]:
        """All tickers that are EASY, MEDIUM or HARD to borrow, a page at a time."""
        skip = 0
        while True:
            page = await self._send(_calls.rates_of_status(status, skip, PAGE))
            for rate in page.items:
                yield rate
            skip += len(page.items)
            if not page.has_more or not page.items:
                return

    async def quote(
        self,
        ticker: str,
        position_value: Amount | None,
        loan_days: SupportsIndex,
        client_id: str,
        *,
        shares: SupportsIndex | None = None,
        share_price: Amount | None = None,
        as_of: Moment | None = None,
        known_at: Moment | None = None,
        request_id: str | None = None,
    ) -> Quote:
        """Prices a locate. It is on record when this returns; `OutcomeUnknown` says that it may be.

        With `shares` and `share_price` the position is worth their product, and `position_value` may be None.
        """
        call = _calls.quote(
            ticker, position_value, loan_days, client_id, shares, share_price, as_of, known_at, request_id
        )
        return await self._send(call)

    async def quote_by_id(self, quote_id: str) -> Quote:
        """A quote as it was answered."""
        return await self._send(_calls.quote_by_id(quote_id))

    async def quotes_of_request(self, request_id: str) -> Page[Quote]:
        """What a request left on record: how to learn an unknown outcome."""
        return await self._send(_calls.quotes_of_request(request_id, 0, PAGE))

    async def proof(self, entry_or_quote_id: str, keys: Sequence[bytes]) -> Proved:
        """That an entry of the client's own is in the log: proved under one of the log's public keys, or `NotProved`.

        `keys`: 32 bytes each, from whom the log belongs to; `check_proof.read_key` reads a file. Waits, within the attempts, until a
        signed head covers the entry; after the last one `ProofPending`.
        """
        return await self._send(_calls.proof(entry_or_quote_id, keys))

    async def explanation(self, quote_id: str) -> Explanation:
        """Every input and every step of a quote, from the record."""
        return await self._send(_calls.explanation(quote_id))

    async def audit_entries(
        self, *, ticker: str | None = None, start: date | str | None = None, end: date | str | None = None
    ) -> AsyncIterator[AuditEntry]:
        """The client's own entries, newest first, a page at a time."""
        number = 1
        while True:
            page = await self._send(_calls.audit_entries(ticker, start, end, number, PAGE))
            for entry in page.items:
                yield entry
            number += 1
            if not page.has_more or not page.items:
                return

    async def availability(self, ticker: str) -> Availability:
        """How many shares of a ticker can still be located today."""
        return await self._send(_calls.availability(ticker))

    async def locate(
        self,
        ticker: str,
        shares: SupportsIndex,
        share_price: Amount,
        loan_days: SupportsIndex,
        client_id: str,
        *,
        kind: str = "single_use",
        all_or_none: bool = False,
        limit_rate: Amount | None = None,
        idempotency_key: str | None = None,
    ) -> Locate:
        """Asks for shares; the answer is an offer to accept or decline, or a rejection with its reason.

        Every step of a locate carries an idempotency key (a new one unless given), so that a lost answer is asked for again.
        """
        call = _calls.locate(
            ticker, shares, share_price, loan_days, client_id, kind, all_or_none, limit_rate, idempotency_key
        )
        return await self._send(call)

    async def accept(self, locate_id: str, *, idempotency_key: str | None = None) -> Locate:
        """Takes an offer; what is granted may be less than was asked for, and never more than was available."""
        return await self._send(_calls.locate_step(locate_id, "accept", None, idempotency_key))

    async def decline(self, locate_id: str, *, idempotency_key: str | None = None) -> Locate:
        """Lets an offer go."""
        return await self._send(_calls.locate_step(locate_id, "decline", None, idempotency_key))

    async def return_shares(self, locate_id: str, shares: SupportsIndex, *, idempotency_key: str | None = None) -> Locate:
        """Gives back what is not needed."""
        return await self._send(_calls.locate_step(locate_id, "return", shares, idempotency_key))

    async def use(
        self, locate_id: str, order_id: str, shares: int, *, side: str = "sell_short", state: str = "used"
    ) -> Locate:
        """An order's use of a locate, recorded once for each order id: `sell_short` or `buy_to_cover`.

        `reserved` holds shares for an order at the market; `used` or `released` ends that.
        """
        return await self._send(_calls.use(locate_id, order_id, shares, side, state))

    async def locate_by_id(self, locate_id: str) -> Locate:
        """A locate as it stands."""
        return await self._send(_calls.locate_by_id(locate_id))

    async def book(self, file: File, *, as_of: Moment | None = None, known_at: Moment | None = None) -> Book:
        """Prices a whole book, CSV or Parquet, from its bytes or its path; every line is answered."""
        return await self._send(_calls.book(await asyncio.to_thread(_calls.content, file), as_of, known_at))

    async def health(self) -> Json:
        """The state of each part; needs no key."""
        return await self._send(_calls.health())

    async def config(self) -> Json:
        """Settings, policies and conventions."""
        return await self._send(_calls.config())
