"""Which request parameters a server takes: a pure function from its refusal to the next try.

Servers that speak OpenAI's chat completions differ in what they refuse:
OpenAI's reasoning models want max_completion_tokens and no temperature
(https://platform.openai.com/docs/guides/reasoning), Mistral calls the seed random_seed
(https://docs.mistral.ai/api/), LiteLLM answers UnsupportedParamsError
(https://docs.litellm.ai/docs/completion/drop_params).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: More changes than there are to make.
MOST_STEPS = 8

_LIMITS = ("max_completion_tokens", "max_tokens")
_SEEDS = ("seed", "random_seed")
_REFUSED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|extra_forbidden|extra (?:inputs|fields|keys)"
    r"|not (?:supported|permitted|allowed|available|recogni[sz]ed|compatible)|n[o']t support"
    r"|does not exist|unavailable|invalid_parameter|cannot both be",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window)|maximum context|too long|content_filter", re.IGNORECASE
)
_SHAPE = re.compile(r"response_format|json_schema|structured output|grammar", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is sent beside the conversation. None or False: it is left out.

    structured is the shape as in MODEL_STRUCTURED: schema, tools, json or none. refused holds the
    names that a server refused, so that none is tried twice.
    """

    limit: str | None = _LIMITS[1]
    seed: str | None = _SEEDS[0]
    temperature: bool = True
    structured: str = "schema"
    refused: frozenset[str] = frozenset()


def refused_parameter(
    now: Parameters, status: int, body: object, *, fixed: bool = False
) -> str | None:
    """The name of the parameter that a refusal (HTTP status, body as text or parsed) is about.

    None where it is about none that is sent. fixed: the user chose the shape, so it stays.
    """
    if status not in (400, 422):
        return None
    words = text_of(body)
    if _TOO_LONG.search(words) or not _REFUSED.search(words):
        return None
    names = _sent(now)
    for named in (*_named(_parsed(body)), words):
        for name in names:
            if re.search(rf"(?<![\w]){name}(?![\w])", named):
                return name
        if not fixed and now.structured in ("schema", "json") and _SHAPE.search(named):
            return "response_format"
    return None


def without(now: Parameters, name: str) -> Parameters:
    """The parameters after a server refused one: it is renamed once, then left out."""
    gone = now.refused | {name}
    if name in _LIMITS:
        other = next((one for one in _LIMITS if one not in gone), None)
        return replace(now, limit=other, refused=gone)
    if name in _SEEDS:
        other = next((one for one in _SEEDS if one not in gone), None)
        return replace(now, seed=other, refused=gone)
    if name == "temperature":
        return replace(now, temperature=False, refused=gone)
    return replace(now, structured="json" if now.structured == "schema" else "none", refused=gone)


def text_of(body: object) -> str:
    """A body in one line, shortened: a server may answer with a page."""
    if isinstance(body, bytes):
        body = body[:8000].decode(errors="replace")
    said = body if isinstance(body, str) else json.dumps(body, default=str)
    return " ".join(said[:8000].split())


def _sent(now: Parameters) -> list[str]:
    return [
        name for name in (now.limit, now.seed, "temperature" if now.temperature else None) if name
    ]


def _parsed(body: object) -> Any:
    if isinstance(body, str | bytes):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None
    return body


def _named(body: Any) -> Iterator[str]:
    """The fields in which servers name a parameter: OpenAI's param, the loc of a 422."""
    if not isinstance(body, Mapping):
        return
    error = body.get("error", body)
    if isinstance(error, Mapping) and isinstance(error.get("param"), str):
        yield error["param"]
    detail = body.get("detail")
    if isinstance(detail, Mapping):
        detail = detail.get("detail")
    for one in detail if isinstance(detail, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("loc"), list):
            yield " ".join(map(str, one["loc"]))
