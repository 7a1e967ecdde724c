"""What the engine answers, as values: they compare, and go into sets and dictionaries. Rates are fractions a year (0.19 is 19 %);
money is in the quote's currency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

Json = Mapping[str, Any]
T = TypeVar("T")


def _time(text: str | None) -> datetime | None:
    return None if text is None else _instant(text)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(value)


@dataclass(frozen=True)
class Unconfirmed:
    """Something newer that an answer does not follow yet; without a value where a whole delivery of the feed was refused."""

    value: Decimal | None
    as_of: datetime
    reason: str

    @classmethod
    def read(cls, json: Json) -> Unconfirmed:
        value = json.get("value")
        return cls(None if value is None else _decimal(value), _instant(json["as_of"]), json["reason"])


@dataclass(frozen=True)
class Source:
    """Where an input came from, and what is the matter with it."""

    source: str
    as_of: datetime | None
    stale: bool
    fallback: bool
    unconfirmed: Unconfirmed | None = None

    @classmethod
    def read(cls, json: Json) -> Source:
        newer = json.get("unconfirmed")
        unconfirmed = None if newer is None else Unconfirmed.read(newer)
        return cls(json["source"], _time(json["as_of"]), json["stale"], json["fallback"], unconfirmed)


def _sources(json: Json) -> Mapping[str, Source]:
    return {name: Source.read(source) for name, source in json.items() if isinstance(source, Mapping)}


@dataclass(frozen=True)
class Rate:
    ticker: str
    current_rate: Decimal
    base_rate: Decimal
    borrow_status: str
    volatility_index: Decimal
    volatility_tier: str
    event_risk_factor: int
    currency: str
    policy: str
    available: int | None
    available_or_more: bool
    last_updated: datetime | None
    stale: bool
    data_sources: Mapping[str, Source] = field(hash=False)
    as_of: datetime | None
    known_at: datetime | None

    @classmethod
    def read(cls, json: Json) -> Rate:
        return cls(
            ticker=json["ticker"],
            current_rate=_decimal(json["current_rate"]),
            base_rate=_decimal(json["base_rate"]),
            borrow_status=json["borrow_status"],
            volatility_index=_decimal(json["volatility_index"]),
            volatility_tier=json["volatility_tier"],
            event_risk_factor=json["event_risk_factor"],
            currency=json["currency"],
            policy=json["policy"],
            available=json["available"],
            available_or_more=json["available_or_more"],
            last_updated=_time(json["last_updated"]),
            stale=json["stale"],
            data_sources=_sources(json["data_sources"]),
            as_of=_time(json.get("as_of")),
            known_at=_time(json.get("known_at")),
        )


@dataclass(frozen=True)
class Breakdown:
    """The three parts, as printed; their sum is the total fee."""

    borrow_cost: Decimal
    markup: Decimal
    transaction_fees: Decimal


@dataclass(frozen=True)
class Recorded:
    """The place of an entry in the audit log."""

    log: int
    epoch: int
    position: int

    @property
    def entry_id(self) -> str:
        return f"{self.log}-{self.epoch}-{self.position}"


@dataclass(frozen=True)
class Quote:
    quote_id: str
    request_id: str
    ticker: str
    client_id: str
    position_value: Decimal
    loan_days: int
    currency: str
    total_fee: Decimal
    breakdown: Breakdown
    borrow_rate_used: Decimal
    borrow_status: str
    policy: str
    convention: str
    collateral_value: Decimal
    expires_at: datetime
    audit: Recorded
    stale: bool
    data_sources: Mapping[str, Source] = field(hash=False)
    as_of: datetime | None
    known_at: datetime | None

    @classmethod
    def read(cls, json: Json) -> Quote:
        parts = json["breakdown"]
        audit = json["audit"]
        return cls(
            quote_id=json["quote_id"],
            request_id=json["request_id"],
            ticker=json["ticker"],
            client_id=json["client_id"],
            position_value=_decimal(json["position_value"]),
            loan_days=json["loan_days"],
            currency=json["currency"],
            total_fee=_decimal(json["total_fee"]),
            breakdown=Breakdown(
                _decimal(parts["borrow_cost"]), _decimal(parts["markup"]), _decimal(parts["transaction_fees"])
            ),
            borrow_rate_used=_decimal(json["borrow_rate_used"]),
            borrow_status=json["borrow_status"],
            policy=json["policy"],
            convention=json["convention"],
            collateral_value=_decimal(json["collateral_value"]),
            expires_at=_instant(json["expires_at"]),
            audit=Recorded(audit["log"], audit["epoch"], audit["position"]),
            stale=json["stale"],
            data_sources=_sources(json["data_sources"]),
            as_of=_time(json.get("as_of")),
            known_at=_time(json.get("known_at")),
        )


@dataclass(frozen=True)
class Origin:
    """One input of a quote. `value` has the exact digits."""

    name: str
    value: str
    source: str
    age_seconds: int | None
    stale: bool
    fallback: bool


@dataclass(frozen=True)
class Step:
    """One step of the computation. `unrounded` is exact, a fraction where there is no last digit."""

    name: str
    formula: str
    unrounded: str
    rounded: str


@dataclass(frozen=True)
class Explanation:
    quote_id: str
    policy: str
    convention: str
    origins: tuple[Origin, ...]
    steps: tuple[Step, ...]
    replayed: bool
    """Pricing the recorded inputs again gave the recorded outputs."""

    @classmethod
    def read(cls, json: Json) -> Explanation:
        inner = json["explanation"]
        return cls(
            quote_id=json["quote_id"],
            policy=inner["policy"],
            convention=inner["convention"],
            origins=tuple(Origin(**origin) for origin in inner["origins"]),
            steps=tuple(Step(**step) for step in inner["steps"]),
            replayed=json["replayed"],
        )


@dataclass(frozen=True)
class Locate:
    """Shares that were located, or asked for. `held` are the client's now; only a locate that is `filled` holds any.

    Of these, `available` may be sold short, `reserved` are held by orders at the market, and `used` were sold.
    """

    locate_id: str
    locate_status: str
    reason: str | None
    kind: str
    client_id: str
    ticker: str
    currency: str
    shares: int
    granted: int
    returned: int
    held: int
    available: int
    reserved: int
    used: int
    borrow_rate: Decimal
    total_fee: Decimal
    trade_date: str
    settlement_date: str | None
    offer_expires_at: datetime
    expires_at: datetime
    quote_id: str

    @classmethod
    def read(cls, json: Json) -> Locate:
        return cls(
            locate_id=json["locate_id"],
            locate_status=json["locate_status"],
            reason=json.get("reason"),
            kind=json["type"],
            client_id=json["client_id"],
            ticker=json["ticker"],
            currency=json["currency"],
            shares=json["shares"],
            granted=json["granted"],
            returned=json["returned"],
            held=json["held"],
            available=json["available"],
            reserved=json["reserved"],
            used=json["used"],
            borrow_rate=_decimal(json["borrow_rate"]),
            total_fee=_decimal(json["fee"]["total_fee"]),
            trade_date=json["trade_date"],
            settlement_date=json.get("settlement_date"),
            offer_expires_at=_instant(json["offer_expires_at"]),
            expires_at=_instant(json["expires_at"]),
            quote_id=json["quote_id"],
        )


@dataclass(frozen=True)
class Uses:
    """Shares of locates in force: what may be sold short, what orders at the market hold, what was sold."""

    held: int
    available: int
    reserved: int
    used: int

    @classmethod
    def read(cls, json: Json) -> Uses:
        return cls(json["held"], json["available"], json["reserved"], json["used"])


@dataclass(frozen=True)
class Availability:
    """How many shares can still be located, and what the client has of the ticker already."""

    ticker: str
    trade_date: str
    remaining: int
    reason: str | None
    yours: Uses

    @classmethod
    def read(cls, json: Json) -> Availability:
        return cls(
            json["ticker"], json["trade_date"], json["remaining"], json.get("reason"), Uses.read(json["yours"])
        )


@dataclass(frozen=True)
class BookLine:
    """One position's answer: `total_fee` and the rest where it is priced, `error` where it is refused."""

    line: int
    ticker: str | None
    client_id: str | None
    total_fee: Decimal | None
    borrow_rate: Decimal | None
    currency: str | None
    error_code: str | None
    error: str | None

    @classmethod
    def read(cls, json: Json) -> BookLine:
        def number(name: str) -> Decimal | None:
            return _decimal(json[name]) if name in json else None

        return cls(
            json["line"],
            json.get("ticker"),
            json.get("client_id"),
            number("total_fee"),
            number("borrow_rate"),
            json.get("currency"),
            json.get("error_code"),
            json.get("error"),
        )


@dataclass(frozen=True)
class Book:
    as_of: datetime
    known_at: datetime
    lines: tuple[BookLine, ...]
    priced: int
    refused: int
    totals: Mapping[str, Decimal] = field(hash=False)
    audit_entry: str

    @classmethod
    def read(cls, json: Json) -> Book:
        header, *lines, trailer = json["lines"]
        return cls(
            as_of=_instant(header["as_of"]),
            known_at=_instant(header["known_at"]),
            lines=tuple(BookLine.read(line) for line in lines),
            priced=trailer["priced"],
            refused=trailer["refused"],
            totals={currency: Decimal(total) for currency, total in trailer["totals"].items()},
            audit_entry=json["audit_entry"],
        )


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the audit log; `fields` as it was recorded, texts but for a quote's inputs and outputs."""

    id: str
    kind: str
    recorded_at: datetime
    hash: str
    previous_hash: str
    fields: Mapping[str, Any] = field(hash=False)

    @classmethod
    def read(cls, json: Json) -> AuditEntry:
        return cls(
            json["id"], json["kind"], _instant(json["recorded_at"]), json["hash"], json["previous_hash"], json["fields"]
        )


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list."""

    items: tuple[T, ...]
    total: int
    skip: int
    limit: int
    has_more: bool
