"""What both clients do with a call: headers, reading the answer, and whether to try again."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import httpx

from . import errors
from ._calls import Call

T = TypeVar("T")
WAIT_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Retries:
    """How often a request is repeated, and how long it waits where the engine does not say."""

    attempts_max: int
    pause_seconds: float = 0.1

    def wait_seconds(self, call: Call[Any], attempt: int, trouble: httpx.Response | httpx.TransportError) -> float | None:
        """`None`: give up."""
        if attempt >= self.attempts_max:
            return None
        pause = min(WAIT_SECONDS_MAX, self.pause_seconds * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        if isinstance(trouble, httpx.TransportError):
            # One that was never sent changed nothing.
            return pause if never_sent(trouble) or not call.records else None
        # Not there yet: no head covers what is to be proved.
        if trouble.status_code in (202, 429):
            return _told(trouble, pause)
        if trouble.status_code == 503 and not (call.records and isinstance(failure(trouble), errors.OutcomeUnknown)):
            return _told(trouble, pause)
        return None


def _told(response: httpx.Response, otherwise: float) -> float:
    text = response.headers.get("Retry-After", "")
    return min(WAIT_SECONDS_MAX, float(text)) if text.isdigit() else otherwise


def never_sent(error: httpx.TransportError) -> bool:
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def base(url: str) -> str:
    """Where the engine is, however much of a path was copied with it."""
    url = str(url).rstrip("/")
    return url.removesuffix("/api/v1").rstrip("/")


def request(client: httpx.Client | httpx.AsyncClient, base: str, call: Call[Any], api_key: str | None) -> httpx.Request:
    headers = {"X-Request-ID": call.request_id, "Accept": "application/json", **call.headers}
    if api_key is not None:
        headers["X-API-Key"] = api_key
    if call.body is not None:
        headers.setdefault("Content-Type", "application/json")
    url = base + call.path
    return client.build_request(call.method, url, params=dict(call.params), content=call.body, headers=headers)


def answer(call: Call[T], response: httpx.Response) -> T:
    if response.is_success and response.status_code != 202:
        return call.raw(response.content) if call.raw is not None else call.read(_json(response))
    raise failure(response)


def failure(response: httpx.Response) -> errors.BreError:
    return errors.of(response.status_code, _json(response), response.headers.get("X-Request-ID"))


def broken(call: Call[Any], error: httpx.TransportError) -> errors.BreError:
    why = str(error) or type(error).__name__
    if call.records and not never_sent(error):
        return errors.OutcomeUnknown(call.request_id, why)
    return errors.ConnectionFailed(why)


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        if response.headers.get("Content-Type", "").startswith("application/x-ndjson"):
            lines = [json.loads(line, parse_float=Decimal) for line in response.content.splitlines()]
            return {"lines": lines, "audit_entry": response.headers.get("X-Audit-Entry", "")}
        body = json.loads(response.content, parse_float=Decimal)
    except ValueError:
        body = None
    return body if isinstance(body, Mapping) else {"error": f"no JSON: {response.text[:200]!r}"}
