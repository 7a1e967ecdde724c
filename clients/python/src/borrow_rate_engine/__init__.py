"""Client of the Borrow Rate Engine.

`Client` and `AsyncClient` have the same methods; the second one's are awaited. Every number of the engine that is not a count
is a `decimal.Decimal`, read from the answer's own digits; floats are not taken.
"""

from .aclient import AsyncClient
from .check_proof import NotProved, Proved
from .client import Client
from .errors import (
    ApiError,
    BreError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidParameter,
    NotFound,
    OutcomeUnknown,
    ProofPending,
    RateLimited,
    Unauthorized,
    Unavailable,
    ValidationError,
)
from .models import (
    AuditEntry,
    Availability,
    Book,
    BookLine,
    Breakdown,
    Explanation,
    Locate,
    Origin,
    Page,
    Quote,
    Rate,
    Recorded,
    Source,
    Step,
    Unconfirmed,
    Uses,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuditEntry",
    "Availability",
    "Book",
    "BookLine",
    "BreError",
    "Breakdown",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Explanation",
    "Forbidden",
    "InvalidParameter",
    "Locate",
    "NotFound",
    "NotProved",
    "Origin",
    "OutcomeUnknown",
    "Page",
    "ProofPending",
    "Proved",
    "Quote",
    "Rate",
    "RateLimited",
    "Recorded",
    "Source",
    "Step",
    "Unauthorized",
    "Unavailable",
    "Unconfirmed",
    "Uses",
    "ValidationError",
]
