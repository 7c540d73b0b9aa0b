"""The forms in which servers say when they may be asked again. Pure.

Retry-After: RFC 9110; retry-after-ms: Azure; x-ratelimit-*: OpenAI, Groq;
anthropic-ratelimit-*: Anthropic; RateLimit: the IETF's drafts; retryDelay: Google's APIs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any


@dataclass(frozen=True)
class Form:
    """One form; coarse: how much less than the pause may be meant, in seconds."""

    name: str
    coarse: float = 0.0
    #: Whether it is in the body, not in a header.
    body: bool = False


NONE = "none"
#: A date is read by the client's clock, which may be wrong.
_UNKNOWN = math.inf
FORMS: Mapping[str, Form] = {
    one.name: one
    for one in (
        Form("Retry-After", 1.0),
        Form("Retry-After as a fraction", 0.01),
        Form("Retry-After as a length", 1.0),
        Form("Retry-After as a date", _UNKNOWN),
        Form("retry-after-ms", 0.001),
        Form("x-ms-retry-after-ms", 0.001),
        Form("x-ratelimit requests", 0.001),
        Form("x-ratelimit tokens", 0.001),
        Form("anthropic", _UNKNOWN),
        Form("RateLimit draft 7", 1.0),
        Form("retryDelay", 0.01, body=True),
        Form("try again in", 0.01, body=True),
    )
}


def headers(form: str, seconds: float, unix: float) -> dict[str, str]:
    """The headers of a refusal that asks for a pause; none where the form is in the body."""
    whole = str(max(1, int(seconds)))
    milliseconds = f"{seconds * 1000:.0f}"
    date = datetime.fromtimestamp(int(unix + seconds), UTC)
    known: dict[str, dict[str, str]] = {
        "Retry-After": {"Retry-After": whole},
        "Retry-After as a fraction": {"Retry-After": f"{seconds:.2f}"},
        "Retry-After as a length": {
            "Retry-After": f"{int(seconds) // 60}m {int(seconds) % 60}s",
        },
        "Retry-After as a date": {"Retry-After": format_datetime(date, usegmt=True)},
        "retry-after-ms": {"retry-after-ms": milliseconds},
        "x-ms-retry-after-ms": {"x-ms-retry-after-ms": milliseconds},
        "anthropic": {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": date.isoformat().replace("+00:00", "Z"),
        },
        "RateLimit draft 7": {"RateLimit": f"limit=10, remaining=0, reset={whole}"},
    }
    for kind in ("requests", "tokens"):
        known[f"x-ratelimit {kind}"] = {
            f"x-ratelimit-remaining-{kind}": "0",
            f"x-ratelimit-reset-{kind}": f"{milliseconds}ms",
        }
    return known.get(form, {})


def body(form: str, seconds: float, said: Any) -> Any:
    """The body of a refusal: the server's own, or one with the pause in it."""
    match form:
        case "retryDelay":
            delay = {"@type": "google.rpc.RetryInfo", "retryDelay": f"{seconds:.2f}s"}
            return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [delay]}}
        case "try again in":
            words = f"Rate limit reached. Please try again in {seconds:.2f}s."
            return {"error": {"message": words, "code": "rate_limit_exceeded"}}
    return said
