"""Which request parameters a server takes: a pure function from its refusal to the next try.

Servers that speak OpenAI's chat completions differ in what they refuse:
OpenAI's reasoning models want max_completion_tokens and no temperature
(https://platform.openai.com/docs/guides/reasoning), Mistral calls the seed random_seed
(https://docs.mistral.ai/api/), LiteLLM answers UnsupportedParamsError
(https://docs.litellm.ai/docs/completion/drop_params), text-generation-inference wants the schema in
response_format.value (https://github.com/huggingface/text-generation-inference/issues/2899),
OpenRouter finds no endpoint (404, https://openrouter.ai/docs/guides/routing/provider-selection),
and Ollama before 0.5 takes no schema (https://github.com/ollama/ollama/releases/tag/v0.5.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: More changes than there are to make.
MOST_STEPS = 16

_LIMITS = ("max_completion_tokens", "max_tokens")
_SEEDS = ("seed", "random_seed")
_SHAPES = ("schema", "value", "json")
_REFUSED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|extra_forbidden|extra (?:inputs|fields|keys)"
    r"|not (?:supported|permitted|allowed|available|recogni[sz]ed|compatible)|n[o']t support"
    r"|does not exist|unavailable|invalid_parameter|cannot both be|deprecated|missing field"
    r"|only (?:supported|enabled|available)|(?:supported|enabled|available) only"
    r"|supported (?:values|types) are|input should be|invalid schema|invalid format"
    r"|cannot unmarshal"
    r"|failed to (?:parse grammar|initialize samplers)|grammar is too large"
    r"|no endpoints found that",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|maximum context|too long|content_filter", re.IGNORECASE
)
_SHAPE = re.compile(
    r"response_format|json_schema|structured output|grammar|samplers|\.format\b|invalid format",
    re.IGNORECASE,
)
_TOOLS = re.compile(r"\btools?\b|tool_choice|function[ -]call", re.IGNORECASE)
#: OpenRouter, where no provider takes all parameters of a request.
_NO_ENDPOINT = re.compile(r"no endpoints found that", re.IGNORECASE)
_VALUE = re.compile(r"missing field [`'\"]?value", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is sent beside the conversation. None or False: it is left out.

    structured is as in MODEL_STRUCTURED: schema, tools, json or none; value is the schema
    in the form of text-generation-inference. options are the names that the user chose. refused
    has the names that a server refused, so that none is sent again.
    """

    limit: str | None = _LIMITS[1]
    seed: str | None = _SEEDS[0]
    temperature: bool = True
    structured: str = "schema"
    options: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()


def refused_parameter(
    now: Parameters, status: int, body: object, *, fixed: bool = False
) -> str | None:
    """The name of the parameter that a refusal (HTTP status, body as text or parsed) is about.

    None where it is about none that is sent. fixed: the user chose the shape, so it stays.
    """
    words = text_of(body)
    if not _about_a_parameter(status, words):
        return None
    fields = list(_named(_parsed(body)))
    for named in (*fields, words):
        for name in _sent(now):
            if re.search(rf"(?<![\w]){name}(?![\w])", named):
                return name
        if not fixed and (shape := _shape_named(now, named)):
            return shape
    option = _option_named(now, fields, words)
    if option is None and status == 404 and not fixed and now.structured in _SHAPES:
        return "response_format"  # OpenRouter names none
    return option


def _about_a_parameter(status: int, words: str) -> bool:
    if status not in (400, 422) and not (status == 404 and _NO_ENDPOINT.search(words)):
        return False
    return not _TOO_LONG.search(words) and _REFUSED.search(words) is not None


def without(now: Parameters, name: str, words: str = "") -> Parameters:
    """The parameters after a server refused one with this message: renamed once, then left out."""
    gone = now.refused | {name}
    if name in _LIMITS:
        other = next((one for one in _LIMITS if one not in gone), None)
        return replace(now, limit=other, refused=gone)
    if name in _SEEDS:
        other = next((one for one in _SEEDS if one not in gone), None)
        return replace(now, seed=other, refused=gone)
    if name == "temperature":
        return replace(now, temperature=False, refused=gone)
    if name in now.options:
        return replace(now, refused=gone)
    return replace(now, structured=_simpler(now.structured, words), refused=gone)


def _simpler(structured: str, words: str) -> str:
    if structured in ("schema", "json") and _VALUE.search(words):
        return "value"
    return "json" if structured == "schema" else "none"


def _shape_named(now: Parameters, words: str) -> str | None:
    if now.structured in _SHAPES and _SHAPE.search(words):
        return "response_format"
    return "tools" if now.structured == "tools" and _TOOLS.search(words) else None


def _option_named(now: Parameters, fields: list[str], words: str) -> str | None:
    """The option of the user's that is refused.

    It is a word like others, so only a field of the error, quotation marks, or the words before it
    make it a name.
    """
    for name in sorted(now.options - now.refused):
        word = rf"(?<![\w.]){re.escape(name)}(?![\w.])"
        if any(re.search(word, named) for named in fields):
            return name
        if re.search(
            rf"['\"`]{re.escape(name)}['\"`]"
            rf"|(?:parameter|argument|field|input|key)s?\W{{1,3}}(?:supplied\W{{1,3}})?{word}"
            rf"|supplied: {word}|{word}: extra inputs",
            words,
            re.IGNORECASE,
        ):
            return name
    return None


def text_of(body: object) -> str:
    """A body in one line, shortened: a server may answer with a page."""
    if isinstance(body, bytes):
        body = body[:8000].decode(errors="replace")
    text = body if isinstance(body, str) else json.dumps(body, default=str)
    return " ".join(text[:8000].split())


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
    for holder in (body.get("message"), detail):
        if isinstance(holder, Mapping):
            detail = holder.get("detail")
    for one in detail if isinstance(detail, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("loc"), list):
            yield " ".join(map(str, one["loc"]))
