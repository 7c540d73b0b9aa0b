"""What an HTTP error of a model server means for the message. Pure.

A status and the code in its body decide; the text of the body is matched for servers that have
no code for a text that is too long, and is never passed on: it may quote the analysed text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from selfheal_worker.model.errors import (
    ContentFilteredError,
    ModelAccessError,
    ModelError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.rate_limit_bodies import pause_in_body
from selfheal_worker.runtime import REAL

#: Statuses that say no more than that there are too many calls.
OVERLOADED = (429, 503, 529)
_TOO_LONG_CODES = {
    "context_length_exceeded",  # OpenAI, Azure, LiteLLM, OpenRouter
    "exceed_context_size_error",  # llama.cpp server
    "string_above_max_length",  # OpenAI
    "string_too_long",  # pydantic, as FastAPI servers answer 422
    "request_too_large",  # Anthropic
    "payload_too_large",
}
#: Of servers that have no code for it, each as its sources and bug reports show it.
_TOO_LONG_WORDS = re.compile(
    r"maximum context length|context length exceeded|exceeds? (?:the )?(?:available |model.?s )?"
    r"(?:maximum )?context (?:size|length|window)|context[ _](?:size|length|window) (?:is |was )?"
    r"exceeded|larger than the context|prompt is too long|prompt too long|input is too long"
    r"|input (?:length|prompt)[^.]{0,80}(?:exceeds|too long|longer than)"
    r"|`?inputs?`? tokens? \+ `?max_new_tokens|`?inputs`? must have less than"
    r"|too large for model with|maximum input length|max_model_len"
    r"|request too large for|request entity too large"
    r"|reduce the length of the (?:messages|prompt|input)"
    r"|exceeds the maximum number of tokens|input token count[^.]{0,40}exceeds"
)
#: Said of requests that are no matter of pace (429 says the like of tokens in a minute).
_TOO_LONG_WORDS_OF_400 = re.compile(
    r"(?:text|input|prompt|message|content|document|sequence|request)s? (?:is |are |was |were )?"
    r"too (?:long|large)"
    r"|exceeds? (?:the )?(?:maximum|max|allowed) (?:input |text |prompt |sequence )?"
    r"(?:length|size|tokens)|exceeds? (?:the )?(?:\w+ )?token limit"
)
_FILTER_CODES = {
    "content_filter",  # Azure OpenAI, Mistral
    "content_filtered",
    "responsibleaipolicyviolation",  # Azure's inner code
    "content_policy_violation",  # OpenAI, LiteLLM
    "contentpolicyviolationerror",
    "moderation_blocked",
    "moderation",
    "data_inspection_failed",  # Alibaba's Model Studio
    "invalid_prompt",  # OpenAI, of a prompt that breaks its policy
    "guardrail_intervened",
}
_FILTER_WORDS = re.compile(
    r"content management policy|content policy|content filter|usage polic|safety system"
    r"|requires moderation|flagged (?:as|for|by)|responsible ?ai"
)
_QUOTA_CODES = {
    "insufficient_quota",  # OpenAI: the prepaid credit is used up
    "billing_hard_limit_reached",
    "billing_not_active",
    "access_terminated",
    "account_deactivated",
    "billing_error",  # Anthropic
}
#: Sent with other statuses than 429, 503 and 529 too: in a reply of status 200 or 400 by gateways,
#: in a stream by Anthropic, with 400 by AWS.
_OVERLOAD_CODES = {
    "rate_limit_exceeded",  # OpenAI, Groq
    "rate_limit_error",  # Anthropic
    "rate_limited",
    "rate_limit_reached",
    "ratelimitreached",  # Azure
    "overloaded_error",  # Anthropic
    "overloaded",
    "server_overloaded",
    "engine_overloaded",
    "engine_overloaded_error",  # Moonshot
    "model_overloaded",
    "resource_exhausted",  # Google
    "throttlingexception",  # AWS
    "servicequotaexceededexception",
    "toomanyrequests",
    "too_many_requests",
    "requests_limit_exceeded",
    "nocapacity",  # Azure
    "service_tier_capacity_exceeded",  # Mistral
    "429",
    "529",
}
_NOT_FOUND_CODES = {"model_not_found", "deploymentnotfound", "model_not_exist", "modelnotfound"}
_NO_MODEL_WORDS = re.compile(
    r"\b(?:model|deployment)\b.{0,200}(?:not (?:be )?(?:found|exist)|does ?n.t exist|unknown)"
    r"|no (?:such )?(?:model|deployment|endpoints found)|unknown model"
)
_OLLAMA_WORDS = re.compile(r"model '[^']{1,200}' not found")
_NO_PATH_WORDS = re.compile(
    r"^\s*(?:404 )?(?:page |resource |url |route )?not found[.!]?\s*$|<html|<!doctype|cannot post"
    r"|no route|unknown (?:url|path|endpoint|request url)|invalid url"
)
_ACCESS_CODES = {
    "invalid_api_key",
    "invalid_authentication",
    "authentication_error",
    "permission_error",
    "permission_denied",
    "permissiondenied",
    "insufficient_permissions",
    "model_not_found",
    "unsupported_country_region_territory",
    "deploymentnotfound",
    "accessdenied",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP error of a model server: its status, the requested pause, and its body.

    where and model name the server and the model in messages; body may be JSON or anything else.
    """

    status: int
    where: str
    model: str
    pause: float | None = None
    body: object = None


def explain_refusal(refusal: Refusal, now: float | None = None) -> ModelError:
    """What a status of 400 or more means. Never quotes the body.

    A gateway may pass on a server's error about the text with its own status (502). now: Unix
    seconds, by default the clock's; for a pause that the body requests.
    """
    codes, words = _codes_and_words(refusal.body)
    status, where = refusal.status, refusal.where
    if status == 402 or codes & _QUOTA_CODES:
        return ModelAccessError(f"{where} reports that the account's quota is used up ({status})")
    if status == 401:
        return ModelAccessError(f"{where} refused the key (401)")
    if status >= 400 and (refused := _text_refused(status, where, codes, words)) is not None:
        return refused
    if status in OVERLOADED or codes & _OVERLOAD_CODES:
        pause = refusal.pause
        if pause is None:
            pause = pause_in_body(refusal.body, REAL.time() if now is None else now)
        return OverloadedError(f"{where} answered {status}", retry_after=pause)
    return _not_found(refusal, codes, words) if status == 404 else _by_status(refusal, codes)


def _text_refused(status: int, where: str, codes: set[str], words: str) -> RefusedTextError | None:
    too_long = _TOO_LONG_WORDS.search(words) or (
        status in (400, 422, 500, 502) and _TOO_LONG_WORDS_OF_400.search(words)
    )
    if status == 413 or codes & _TOO_LONG_CODES or too_long:
        return TextTooLongError(f"{where} reports that the text is too long ({status})")
    if codes & _FILTER_CODES or (status in (400, 403, 451, 502) and _FILTER_WORDS.search(words)):
        return ContentFilteredError(f"{where} filtered the content ({status})")
    return None


def _forbidden(where: str, codes: set[str]) -> ModelError:
    if codes & _ACCESS_CODES:
        return ModelAccessError(f"{where} refused the key (403)")
    # A gateway's moderation or a firewall may mean this text alone, which must count as tried:
    # requeued, it would return without end. A refused key still opens the breaker.
    return TransientError(f"{where} refused this text, or the key (403)")


def _not_found(refusal: Refusal, codes: set[str], words: str) -> ModelUnavailableError:
    where, model = refusal.where, refusal.model
    compare = "with the server's documentation"
    if "pull" in words or _OLLAMA_WORDS.match(words):
        return ModelUnavailableError(f"model '{model}' is not on {where}; pull it there first")
    if codes & _NOT_FOUND_CODES or _NO_MODEL_WORDS.search(words):
        return ModelUnavailableError(
            f"model '{model}' is not on {where} (404), or this key may not use it; "
            "compare its name with the server's list of models"
        )
    if _NO_PATH_WORDS.search(words):
        return ModelUnavailableError(
            f"{where} has nothing at this path (404); compare the URL {compare} "
            "(does it end in /v1?)"
        )
    return ModelUnavailableError(
        f"{where} has no model '{model}', or nothing at this path (404); if it is Ollama, pull it "
        f"there first, else compare name and URL {compare}"
    )


def _by_status(refusal: Refusal, codes: set[str]) -> ModelError:
    status, where, pause = refusal.status, refusal.where, refusal.pause
    message = f"{where} answered {status}"
    if status == 403:
        return _forbidden(where, codes)
    if status < 400:
        return ModelUnavailableError(f"{message}, a redirect; set its URL to where the model is")
    if status >= 500 and pause is not None:
        return OverloadedError(message, retry_after=pause)
    if status in (502, 504, 521, 522, 523, 530):
        return ModelUnavailableError(f"{message}: the gateway cannot reach the model")
    if status in (400, 406, 409, 411, 414, 415, 416, 417, 422, 431, 451):
        return RefusedTextError(f"{where} refused the request ({status})")
    return TransientError(message)


def _codes_and_words(body: object) -> tuple[set[str], str]:
    """The codes and types in an error's body, and its text, all in lower case."""
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return set(), str(body)[:4000].lower()
    codes: set[str] = set()
    words: list[str] = []
    _collect(body, codes, words, 6)
    return codes, " ".join(words)[:4000].lower()


def _collect(part: Any, codes: set[str], words: list[str], depth: int) -> None:
    if isinstance(part, str):
        words.append(part)
    if depth == 0 or not isinstance(part, dict | list):
        return
    if isinstance(part, list):
        for one in part[:20]:
            _collect(one, codes, words, depth - 1)
        return
    for name, value in list(part.items())[:40]:
        if name in ("code", "type", "reason", "error_type", "status", "__type"):
            if isinstance(value, str | int) and not isinstance(value, bool):
                codes.add(str(value)[:100].lower())
        elif name in ("message", "error", "detail", "msg", "raw") and isinstance(value, str):
            words.append(value)
        elif isinstance(value, dict | list):
            _collect(value, codes, words, depth - 1)
